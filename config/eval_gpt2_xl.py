# The loss of OpenAI's gpt2-xl (1558M) on OpenWebText. nanoGPT's README gives 2.54 for val
#
#     python train.py config/eval_gpt2_xl.py
init_from = 'gpt2-xl'
eval_only = True
batch_size = 8
eval_iters = 500   # 0: all of val.bin, with bits per character
