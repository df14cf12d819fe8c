# The loss of OpenAI's gpt2 (124M) on OpenWebText. nanoGPT's README gives 3.12 for val
#
#     python train.py config/eval_gpt2.py
init_from = 'gpt2'
eval_only = True
batch_size = 8
eval_iters = 500   # 0: all of val.bin, with bits per character
