# O mesmo trabalho de train_eca_char.py, para um notebook de 2 núcleos sem GPU
out_dir = 'out-eca-char-laptop'
eval_interval = 500
eval_iters = 100
log_interval = 50

always_save_checkpoint = False   # só grava quando a perda de validação melhora

wandb_log = False
wandb_project = 'eca-char'
wandb_run_name = 'laptop'

dataset = 'ecadequeiuroz_char'
gradient_accumulation_steps = 1
batch_size = 12
block_size = 64    # contexto: até 64 caracteres

n_layer = 4
n_head = 4
n_embd = 128
dropout = 0.0      # lê só um quarto do texto: não chega a decorar nada

optimizer = 'muon'
learning_rate = 3e-3
muon_lr = 1e-2     # matrizes menores aguentam passos maiores
min_lr = 3e-4
warmup_iters = 20
max_iters = 2500
lr_decay_iters = 2500   # em geral, igual a max_iters
beta2 = 0.99       # há poucos tokens por iteração
