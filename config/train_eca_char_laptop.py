# O mesmo trabalho de train_eca_char.py, para um notebook de 2 núcleos sem GPU
#
# Em 2 núcleos sem bfloat16, 1150 iterações levam 175 segundos e a perda de validação chega a 1,624.
out_dir = 'out-eca-char-laptop'
eval_interval = 250
eval_iters = 20
log_interval = 50

always_save_checkpoint = False   # só grava quando a perda de validação melhora

wandb_log = False
wandb_project = 'eca-char'
wandb_run_name = 'laptop'

dataset = 'ecadequeiuroz_char'
gradient_accumulation_steps = 1
batch_size = 16    # 12 × 64 e 8 × 128, no mesmo tempo, chegaram a 1,644 e 1,648
block_size = 128   # contexto: até 128 caracteres

n_layer = 4
n_head = 4
n_embd = 128
dropout = 0.0      # lê só um terço do texto: não chega a decorar nada

optimizer = 'muon'
learning_rate = 3e-3
muon_lr = 1e-2     # matrizes menores aguentam passos maiores
min_lr = 3e-4      # 3e-5 foi pior: 1,843 contra 1,826 em 1000 iterações de 12 × 64
warmup_iters = 20  # 100 foi pior: 1,843 contra 1,831, com min_lr = 3e-5
max_iters = 1150
lr_decay_iters = 1150   # em geral, igual a max_iters
beta2 = 0.99       # há poucos tokens por iteração
