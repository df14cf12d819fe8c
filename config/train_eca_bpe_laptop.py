# O mesmo trabalho de train_eca_char_laptop.py, no mesmo tempo, com pedaços de palavras em vez de caracteres
#
#     python data/ecadequeiuroz/prepare.py --vocab_size=2048
#     python train.py config/train_eca_bpe_laptop.py
#     python sample.py --out_dir=out-eca-bpe-laptop
#
# O texto é o de data/ecadequeiuroz, cuja pasta guarda um só conjunto: quem depois o prepara com os tokens do GPT-2
# (config/finetune_eca.py) tem de prepará-lo de novo para continuar este treino. Um pedaço tem em média 2,8 caracteres,
# de modo que 96 deles são um contexto de 270. Em 2 núcleos com bfloat16, 1800 iterações levam 169 segundos e chegam a
# 2,09 bits por caractere; os números ainda não foram afinados.
out_dir = 'out-eca-bpe-laptop'
eval_interval = 300
eval_iters = 20
log_interval = 50

always_save_checkpoint = False   # ckpt.pt só quando a perda de validação melhora

wandb_project = 'eca-bpe'
wandb_run_name = 'laptop'

dataset = 'ecadequeiuroz'
gradient_accumulation_steps = 1
batch_size = 20
block_size = 96    # contexto: até 96 pedaços

n_layer = 3
n_head = 4
n_embd = 128       # o vocabulário de 2048 pede vetores um pouco maiores que os 96 dos caracteres
sinusoidal_init = True

optimizer = 'muon'
learning_rate = 6e-3
muon_lr = 1e-2
muon_momentum = 0.9
lr_schedule = 'linear'
min_lr = 0.0
warmup_iters = 20
max_iters = 1800
lr_decay_iters = max_iters
beta2 = 0.99
