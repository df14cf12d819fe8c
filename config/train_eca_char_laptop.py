# O mesmo trabalho de train_eca_char.py, para um laptop de 2 núcleos sem GPU
#
# Em 2 núcleos sem bfloat16, 2400 iterações levam 169 segundos e a perda de validação chega a 1,564. Em tão pouco
# tempo, um modelo menor que lê mais texto aprende mais. O que perdeu para esta receita está em docs/medidas.md.
out_dir = 'out-eca-char-laptop'
eval_interval = 250
eval_iters = 20
log_interval = 50

always_save_checkpoint = False   # ckpt.pt só quando a perda de validação melhora

wandb_project = 'eca-char'
wandb_run_name = 'laptop'

dataset = 'ecadequeiuroz_char'
gradient_accumulation_steps = 1
batch_size = 16    # 12 × 64 e 8 × 128, no mesmo tempo, foram piores
block_size = 128   # contexto: até 128 caracteres; com 8 × 256 a perda foi 0,08 pior

n_layer = 3        # sem as senoides e no mesmo tempo: 1,579; 4 camadas de 128 canais, como no nanoGPT, 1,616
n_head = 3
n_embd = 96
sinusoidal_init = True   # em 300 iterações, 2,08 em vez de 2,21: a atenção desperta mais cedo
# sem dropout: lê só uns dois terços do texto, e não chega a decorar nada

optimizer = 'muon'
learning_rate = 6e-3
muon_lr = 1e-2          # matrizes menores aguentam passos maiores
muon_momentum = 0.9     # 0,95 foi 0,006 pior
lr_schedule = 'linear'  # o cosseno que termina em um décimo da taxa foi 0,012 pior
min_lr = 0.0
warmup_iters = 20
max_iters = 2400
patience = 2            # com a amostra, que é pequena, para antes; com as obras de Eça, não
lr_decay_iters = max_iters
beta2 = 0.99            # há poucos tokens por iteração
