# GPT de caracteres sobre os textos de quem você quiser, preparados por data/autor_char/prepare.py
#
# É a receita de train_eca_char_laptop.py, três minutos num laptop sem GPU, e tem de continuar igual a ela, salvo em
# eval_interval. Um livro só, de uns 500 mil caracteres, é lido dez vezes: as avaliações são mais frequentes, para que
# ckpt.pt guarde o melhor momento. Com menos de um milhão de caracteres, experimente --dropout=0.1. Com vários livros e
# uma GPU ou um Mac, tome o tamanho e as taxas de train_eca_char.py: --n_layer=6 --n_head=6 --n_embd=384
# --block_size=256 --batch_size=64 --learning_rate=3e-3 --muon_lr=3e-3.
out_dir = 'out-autor-char'
eval_interval = 200
eval_iters = 20
log_interval = 50

always_save_checkpoint = False   # ckpt.pt só quando a perda de validação melhora

wandb_project = 'autor-char'
wandb_run_name = 'laptop'

dataset = 'autor_char'
gradient_accumulation_steps = 1
batch_size = 16
block_size = 128   # contexto: até 128 caracteres

n_layer = 3
n_head = 3
n_embd = 96
sinusoidal_init = True

optimizer = 'muon'
learning_rate = 6e-3
muon_lr = 1e-2
muon_momentum = 0.9
lr_schedule = 'linear'
min_lr = 0.0
warmup_iters = 20
max_iters = 2400
patience = 2
lr_decay_iters = max_iters
beta2 = 0.99
