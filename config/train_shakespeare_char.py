# A character-level GPT on the plays of Shakespeare: nanoGPT's first example, with its settings and its name
#
#     python data/shakespeare_char/prepare.py
#     python train.py config/train_shakespeare_char.py
#
# nanoGPT reports a val loss of 1.4697 for this, after three minutes on an A100.
out_dir = 'out-shakespeare-char'
eval_interval = 250   # it will overfit, so look often
log_interval = 10

always_save_checkpoint = False   # ckpt.pt only when val loss improves

wandb_project = 'shakespeare-char'
wandb_run_name = 'mini-gpt'

dataset = 'shakespeare_char'
gradient_accumulation_steps = 1
batch_size = 64
block_size = 256   # context: up to 256 characters

n_layer = 6
n_head = 6
n_embd = 384
dropout = 0.2      # 5000 iterations read the text 82 times

learning_rate = 1e-3   # a small model can take larger steps
max_iters = 5000
lr_decay_iters = max_iters
min_lr = 1e-4           # usually learning_rate / 10
beta2 = 0.99            # an iteration has few tokens
warmup_iters = 100
