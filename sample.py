"""
Let a trained GPT write.

    python sample.py --out_dir=assets/eca-mini     # the model that comes along
    python sample.py --out_dir=out-eca-char --start="Meu caro" --num_samples=3
    python sample.py --out_dir=out-eca-char --num_samples=1 --stream
"""

import os
import re
import shutil
import sys

import torch
from tqdm import tqdm

from checkpoint import write_whole
from model import PackedLinear
from runtime import autocast, check_at_least, explain_crash, fail, pick_compile, pick_device, pick_dtype
from tokenizer import get_codec, load_model, read_prompt

sys.excepthook = explain_crash

# -----------------------------------------------------------------------------
# settings
init_from = 'resume'    # the model in out_dir; 'gpt2', a Hub id, a folder
out_dir = 'out'         # the folder that train.py wrote
start = '\n'            # the prompt; FILE:name reads a file, - the input
num_samples = 10        # texts to write, drawn together
max_new_tokens = 500    # tokens in each, after the prompt
temperature = 0.8       # 1.0 as learned; lower is safer; 0.0: likeliest
top_k = 200             # draw from this many likeliest; 0: all
top_p = 1.0             # draw from the fewest that hold this probability
stop = ''               # texts end before this; \n is a new line
keep = 0                # tokens of a full window to keep; 0: half
stream = False          # True: show the texts while they are written
out = ''                # a file to write to, instead of the screen
seed = 1337             # same seed, same text
device = 'auto'         # CUDA, else MPS, else CPU; or one by name
dtype = 'auto'          # float32, bfloat16, float16; auto: what is fast
compile = 'false'       # torch.compile pays only for very long texts
# -----------------------------------------------------------------------------
exec(open(os.path.join(os.path.dirname(__file__), 'configurator.py'), encoding='utf-8').read())
# -----------------------------------------------------------------------------

device = pick_device(device)
dtype = pick_dtype(dtype, device, is_training=False)
compile, compile_reason = pick_compile(compile, device)
if torch.device(device).type == 'cuda':
    torch.set_float32_matmul_precision('high')   # float32 products in TF32
    torch.backends.cuda.enable_cudnn_sdp(False)   # it plans anew, for 30 ms, at each length of the cache
check_at_least(1, globals(), 'num_samples', 'max_new_tokens')
check_at_least(0, globals(), 'temperature', 'top_k')
if not 0 < top_p <= 1:
    fail(f'top_p = {top_p} will not do; it must be above 0 and at most 1')
if out and (not os.path.isdir(os.path.dirname(out) or '.') or os.path.exists(out) and not os.path.isfile(out)):
    fail(f'out = {out} is not the name of a file in a folder that is there')

# model and tokenizer
model, tokenizer = load_model(init_from, out_dir)
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
prompt = torch.tensor([encode(read_prompt(start))], dtype=torch.long, device=device)   # (1, T)
start, stop, stream = decode(prompt[0].tolist()), stop.replace('\\n', '\n'), stream and not out
context = prompt[0, -8:].tolist()   # enough for a tokenizer to decode what follows as it would after all of it
print(f'device: {device}, dtype: {dtype}, compile: {compile} ({compile_reason})\n'
      f'tokens in the prompt: {prompt.numel()}', file=sys.stderr)   # standard output is for the text alone

# on a terminal the prompt is bold, and lines end between words
is_terminal = sys.stdout.isatty()
bold, plain = ('\x1b[1m', '\x1b[0m') if is_terminal and 'NO_COLOR' not in os.environ else ('', '')
columns = shutil.get_terminal_size().columns
DASHES = '---------------'


def fit(text):
    """On a terminal, text with new lines in place of some spaces, so that its lines fit; elsewhere as it is."""
    if not is_terminal:
        return text
    return re.sub(rf'(?=[^\n]{{{columns + 1}}})([^\n]{{1,{columns}}}) ', r'\1\n', text.replace('\t', ' '))


def continuation(steps, i):
    """(text, whether stop has ended it) of sample i after the prompt; each step is a list of num_samples ids."""
    written = decode(context + [ids[i] for ids in steps])[len(decode(context)):]
    text, stopped, _ = written.partition(stop) if stop else (written, '', '')
    return text, bool(stopped)


# generate. A stream shows the first text as it grows, or, of several on a terminal, the end of each on its own line
is_watched = stream or stop != ''   # if not, the device need not be waited for
is_growing = stream and (num_samples == 1 or not is_terminal)
lines = [tqdm(bar_format='{desc}', position=i, leave=False, dynamic_ncols=True, file=sys.stdout)
         for i in range(num_samples if stream and not is_growing else 0)]
shown = fit(start)   # of the first text, the part that is on the screen
if is_growing:
    print(f'{bold}{shown}{plain}', end='', flush=True)
steps = []   # the new tokens, (num_samples,) each
torch.manual_seed(seed)
with autocast(device, 'float32' if is_packed else dtype):
    for tokens in model.stream(prompt, max_new_tokens, temperature, top_k, num_samples, keep or None, top_p):
        steps.append(tokens.tolist() if is_watched else tokens)
        if not is_watched:
            continue
        texts, are_complete = zip(*(continuation(steps, i) for i in range(num_samples)))
        for line, text in zip(lines, texts):
            line.set_description_str(''.join(c if c.isprintable() else ' ' for c in start + text)[1 - columns:])
        if is_growing:   # held back: what more tokens may turn into another character, into stop, or into a longer word
            sure = start + texts[0][:max(0, len(texts[0]) - len(stop[1:]))].rstrip('\ufffd')
            sure = fit(sure.rpartition(' ')[0] if is_terminal else sure)
            print(sure[len(shown):], end='', flush=True)
            shown = max(shown, sure, key=len)
        if all(are_complete):
            break
if not is_watched:
    steps = torch.stack(steps).tolist()
texts = [continuation(steps, i)[0] for i in range(num_samples)]
for line in reversed(lines):
    line.close()

# show what is not shown yet, or write it all
if is_growing:
    print(fit(start + texts[0])[len(shown):] + f'\n{DASHES}')
if out:
    write_whole(out, lambda f: f.write(''.join(f'{start}{text}\n{DASHES}\n' for text in texts).encode()))
    print(f'wrote {out}', file=sys.stderr)
else:
    for text in (fit(start + text) for text in texts[is_growing:]):
        print(f'{bold}{text[:len(start)]}{plain}{text[len(start):]}\n{DASHES}')
