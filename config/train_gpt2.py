# GPT-2 (124M) on OpenWebText. nanoGPT's README: a val loss of about 2.85 after some four days on eight A100s
#
#     python data/openwebtext/prepare.py --num_proc=8
#     torchrun --standalone --nproc_per_node=8 train.py config/train_gpt2.py
out_dir = 'out-gpt2'
wandb_log = True
wandb_run_name = 'gpt2-124M'

# The model and its training are the defaults of train.py: 12 sequences * 1024 tokens * 40 micro-batches, shared by the
# processes, = 491,520 tokens in an iteration; in 600,000 iterations 295 billion.
eval_interval = 1000
log_interval = 10
