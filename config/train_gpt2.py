# GPT-2 (124M) on OpenWebText. nanoGPT's README: a val loss of about 2.85 after some four days on eight A100s
#
#     python data/openwebtext/prepare.py --num_proc=8
#     torchrun --standalone --nproc_per_node=8 train.py config/train_gpt2.py
out_dir = 'out-gpt2'
wandb_log = True
wandb_project = 'owt'
wandb_run_name = 'gpt2-124M'

# 12 texts * 1024 tokens * 40 micro-batches, shared by the processes = 491,520 tokens in an iteration
batch_size = 12
block_size = 1024
gradient_accumulation_steps = 5 * 8

# 600,000 iterations: 295 billion tokens in all
max_iters = 600000
lr_decay_iters = 600000
weight_decay = 1e-1

eval_interval = 1000
eval_iters = 200
log_interval = 10
