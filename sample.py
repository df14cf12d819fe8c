"""
Let a trained GPT write.

    python sample.py --out_dir=out-eca-char
    python sample.py --out_dir=out-eca-char --start="Meu caro amigo" --num_samples=3 --temperature=0.7
    python sample.py --out_dir=out-eca-char --start=FILE:prompt.txt
"""

import os
import sys

import torch

from checkpoint import load_checkpoint
from model import PackedLinear
from runtime import autocast, check_at_least, explain_crash, fail, pick_compile, pick_device, pick_dtype
from tokenizer import checkpoint_tokenizer, get_codec, load_pretrained

sys.excepthook = explain_crash

# -----------------------------------------------------------------------------
# settings
init_from = 'resume'    # the best model in out_dir; or 'gpt2', 'gpt2-xl', another GPT-2's Hub id, a folder
out_dir = 'out'         # the folder that train.py wrote
start = '\n'            # the prompt, or FILE:name to read it from a UTF-8 file
num_samples = 10        # texts to write, drawn together
max_new_tokens = 500    # tokens in each, after the prompt
temperature = 0.8       # 1.0 as learned; lower is safer, higher is wilder; 0.0 always takes the likeliest
top_k = 200             # draw from this many likeliest tokens; 0 from all of them
keep = 0                # tokens kept when the window is full; 0 is half of it, block_size is exact and slow
seed = 1337             # same seed, same text
device = 'auto'         # CUDA, else MPS, else CPU; or 'cpu', 'mps', 'cuda', 'cuda:1'
dtype = 'auto'          # 'float32', 'bfloat16' or 'float16'; auto takes what is fast on the device
compile = 'false'       # torch.compile pays only for very long texts
# -----------------------------------------------------------------------------
exec(open(os.path.join(os.path.dirname(__file__), 'configurator.py'), encoding='utf-8').read())
# -----------------------------------------------------------------------------

device = pick_device(device)
dtype = pick_dtype(dtype, device, is_training=False)
compile, compile_reason = pick_compile(compile, device)
if torch.device(device).type == 'cuda':
    torch.set_float32_matmul_precision('high')   # float32 products in TF32
check_at_least(1, globals(), 'num_samples', 'max_new_tokens')
check_at_least(0, globals(), 'temperature', 'top_k')

# model and tokenizer
if init_from == 'resume':
    model, checkpoint = load_checkpoint(os.path.join(out_dir, 'ckpt.pt'))
    tokenizer = checkpoint_tokenizer(checkpoint, os.path.join(os.path.dirname(__file__), 'data'))
else:
    model, tokenizer = load_pretrained(init_from)
encode, decode = get_codec(tokenizer)
model.eval().to(device)
is_packed = dtype == 'float16' and torch.device(device).type == 'cpu' and PackedLinear.is_available()
if is_packed:
    model.pack_weights()
if compile:
    model.forward = torch.compile(model.forward)
if not 0 <= keep <= model.config.block_size:
    fail(f"keep = {keep} is not between 0 and the model's block_size = {model.config.block_size}")

# prompt
if start.startswith('FILE:'):
    try:
        with open(start[5:], encoding='utf-8') as f:
            start = f.read()
    except (OSError, UnicodeDecodeError) as e:
        fail(f'the prompt file {start[5:]} cannot be read: {getattr(e, "strerror", "it is not UTF-8")}')
if not start:
    fail('the prompt is empty; give at least one character, as in --start="A"')
prompt = torch.tensor([encode(start)], dtype=torch.long, device=device)   # (1, T)

# generate; standard output is for the text alone
print(f'device: {device}, dtype: {dtype}, compile: {compile} ({compile_reason})', file=sys.stderr)
torch.manual_seed(seed)
with autocast(device, 'float32' if is_packed else dtype):
    texts = model.generate(prompt, max_new_tokens, temperature, top_k, num_samples, keep or None)
for ids in texts.tolist():
    print(decode(ids))
    print('---------------')
