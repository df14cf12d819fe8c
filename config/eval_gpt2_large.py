# The loss of OpenAI's gpt2-large (774M) on OpenWebText. nanoGPT's README gives 2.67 for val
#
#     python train.py config/eval_gpt2_large.py
init_from = 'gpt2-large'
eval_only = True
batch_size = 8
eval_iters = 500   # 0: all of val.bin, with bits per character
