# The loss of OpenAI's gpt2-medium (350M) on OpenWebText. nanoGPT's README gives 2.84 for val
#
#     python train.py config/eval_gpt2_medium.py
init_from = 'gpt2-medium'
eval_only = True
batch_size = 8
eval_iters = 500   # 0: all of val.bin, with bits per character
