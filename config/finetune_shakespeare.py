# OpenAI's GPT-2 XL goes on with Shakespeare, for a few minutes
#
#     python data/shakespeare/prepare.py
#     python train.py config/finetune_shakespeare.py
#     python sample.py --out_dir=out-shakespeare
#
# It needs a GPU of 40 GB or so; --init_from=gpt2 with --block_size=256 runs on a laptop.
out_dir = 'out-shakespeare'
init_from = 'gpt2-xl'   # the largest
dataset = 'shakespeare'
eval_interval = 5
eval_iters = 40

always_save_checkpoint = False   # ckpt.pt only when val loss improves

wandb_project = 'shakespeare'
wandb_run_name = 'ft-gpt2-xl'

# 1 sequence * 1024 tokens (the default) * 32 micro-batches = 32,768 tokens in an iteration; the text has 301,966, so
# nine iterations read it once
batch_size = 1
gradient_accumulation_steps = 32
max_iters = 20

learning_rate = 3e-5
decay_lr = False   # constant: too short for a schedule
