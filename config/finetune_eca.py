# Um GPT-2 que já sabe português continua o treino com as obras de Eça de Queiroz
#
#     python data/ecadequeiuroz/prepare.py --tokenizer=pierreguillou/gpt2-small-portuguese
#     python train.py config/finetune_eca.py
#     python sample.py --out_dir=out-eca --start="Meu caro amigo"
#
# São 124 milhões de parâmetros. O texto tem de ser preparado com o vocabulário do próprio modelo; para partir do GPT-2
# da OpenAI, prepare sem --tokenizer e treine com --init_from=gpt2.
out_dir = 'out-eca'
init_from = 'pierreguillou/gpt2-small-portuguese'
dataset = 'ecadequeiuroz'
eval_interval = 50
eval_iters = 40
log_interval = 5

always_save_checkpoint = False   # ckpt.pt só quando a perda de validação melhora

wandb_project = 'eca'
wandb_run_name = 'ft-gpt2-small-portuguese'

# 4 sequências × 256 tokens × 8 micro-lotes = 8192 tokens por iteração: cabe num notebook
batch_size = 4
block_size = 256
gradient_accumulation_steps = 8
max_iters = 400
dropout = 0.1        # um modelo deste tamanho decora o texto depressa

learning_rate = 3e-5   # bem menor que num treino do zero, para não perder o que o modelo já sabe
decay_lr = False       # constante: o treino é curto
