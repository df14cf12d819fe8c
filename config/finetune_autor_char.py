# O modelo de assets/eca-mini continua o treino com os textos de outro autor, ainda que poucos
#
#     python data/autor_char/prepare.py livros --vocab=assets/eca-mini
#     python train.py config/finetune_autor_char.py
#     python sample.py --out_dir=out-autor-eca
#
# Os textos são preparados com o vocabulário do modelo, e prepare.py diz que caracteres ele não tem. Para partir de
# outro modelo de caracteres, a pasta dele nas duas primeiras linhas: --vocab=PASTA e --init_from=PASTA.
out_dir = 'out-autor-eca'
init_from = 'assets/eca-mini'
dataset = 'autor_char'
eval_interval = 25
eval_iters = 0     # val.bin inteiro, que é pequeno
log_interval = 25

always_save_checkpoint = False   # ckpt.pt só quando a perda de validação melhora

wandb_project = 'autor-char'
wandb_run_name = 'ft-eca-mini'

gradient_accumulation_steps = 1
batch_size = 8
block_size = 256
# sem dropout, como o modelo aprendeu: com 0.1 a amostra deste repositório ficou em 2,02 bits por caractere, e não 1,93

optimizer = 'muon'
learning_rate = 1e-3   # um quarto das taxas com que o modelo foi treinado, para que não esqueça o que sabe
muon_lr = 2.5e-3
muon_momentum = 0.9
lr_schedule = 'linear'
min_lr = 0.0
warmup_iters = 20
max_iters = 100    # com 122 mil caracteres, 200 não ajudaram: 1,94
lr_decay_iters = max_iters
beta2 = 0.99
