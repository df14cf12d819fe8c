# O modelo que vem com o repositório, em assets/eca-mini: escreve português antes de se treinar qualquer coisa
#
#     python train.py config/train_eca_mini.py
#     python tools/export.py --out_dir=out-eca-mini --to=meu-mini/ckpt.pt
#
# Num só núcleo de CPU foram 83 minutos, e a perda em todo o val.bin chegou a 1,374 (1,98 bits por caractere).
out_dir = 'out-eca-mini'
eval_interval = 500
eval_iters = 25
log_interval = 50

always_save_checkpoint = False   # ckpt.pt só quando a perda de validação melhora

wandb_project = 'eca-char'
wandb_run_name = 'eca-mini'

dataset = 'ecadequeiuroz_char'
gradient_accumulation_steps = 1
batch_size = 8
block_size = 256   # contexto: até 256 caracteres

n_layer = 4        # poucas camadas e cabeças, para que tools/explain.py as mostre todas
n_head = 4
n_embd = 160
sinusoidal_init = True
# sem dropout: lê o texto só 3,3 vezes

optimizer = 'muon'
learning_rate = 4e-3
muon_lr = 1e-2
lr_schedule = 'linear'
min_lr = 0.0
warmup_iters = 50
max_iters = 12000
lr_decay_iters = max_iters
beta2 = 0.99
