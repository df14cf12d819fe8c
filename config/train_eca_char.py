# GPT de caracteres sobre as obras de Eça de Queiroz, em tamanho didático
#
# Com 500 das 2000 iterações (--max_iters=500 --lr_decay_iters=500), numa CPU de 2 núcleos sem bfloat16, a perda de
# validação chegou a 1,440 em 73 minutos de treino.
out_dir = 'out-eca-char'
eval_interval = 250
eval_iters = 20
log_interval = 10

always_save_checkpoint = False   # ckpt.pt só quando a perda de validação melhora

wandb_project = 'eca-char'
wandb_run_name = 'mini-gpt'

dataset = 'ecadequeiuroz_char'
gradient_accumulation_steps = 1
batch_size = 64
block_size = 256   # contexto: até 256 caracteres

n_layer = 6
n_head = 6
n_embd = 384
# sem dropout: em 2000 iterações o modelo lê o texto só 4,4 vezes; falta treino, e dropout só atrasaria

optimizer = 'muon'      # num treino de 250 iterações chega a 1,68 de validação; AdamW a 1e-3 a 2,23
learning_rate = 3e-3    # a do Muon, muon_lr, fica no padrão, também 3e-3
min_lr = 3e-4           # com cosseno, terminar em 3e-5 foi pior no modelo de laptop: 1,843 contra 1,826
warmup_iters = 50       # 20 foram melhores que 100 no modelo de laptop
max_iters = 2000
lr_decay_iters = max_iters
beta2 = 0.99            # há poucos tokens por iteração
