"""
Show a trained GPT at work: a page with its guesses, surprise and attention.

    python tools/explain.py --out_dir=assets/eca-mini --start="Meu caro"
    python tools/explain.py --out_dir=out-eca-char --start=FILE:carta.txt
    python tools/explain.py --init_from=gpt2 --start="The answer" --to=gpt2.html

The model goes on with the text that it is given. Of each position the page shows what the model expects next, how much
the token surprised it, and where each head looks. It is one file and needs no network: it can be sent to anybody.
"""

import os
import sys

_root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))   # the repository
sys.path.insert(0, _root)
import support.interrupt   # noqa: F401   first: from here on Ctrl-C ends the script without a traceback

import base64
import json
import math

import torch

from support.checkpoints import load_model
from support.devices import pick_device
from support.errors import catch_crashes, fail
from support.files import check_output, write_whole
from support.settings import check_explain_settings
from support.terminal import read_prompt
from support.tokenizer import get_codec

catch_crashes()

# -----------------------------------------------------------------------------
# settings
init_from = 'resume'    # the best model in out_dir; or as in sample.py
out_dir = 'out'         # the folder that train.py wrote
to = ''                 # the page to write; '' is out_dir/explain.html
start = '\n'            # the prompt; FILE:name reads a file, - the input
max_new_tokens = 120    # to write after it; 0 explains the prompt alone
temperature = 0.8       # of what is written; the page shows 1.0
top_k = 200             # write from this many likeliest tokens; 0: all
top = 10                # predictions to list at each position
seed = 1337             # same seed, same text
device = 'auto'         # CUDA, else MPS, else CPU; or by name
# -----------------------------------------------------------------------------
exec(open(os.path.join(_root, 'configurator.py'), encoding='utf-8').read())
# -----------------------------------------------------------------------------

device = pick_device(device)
check_explain_settings(globals())
if to == '':
    to = os.path.join(out_dir if init_from == 'resume' else '', 'explain.html')
if init_from != 'resume' or os.path.isdir(out_dir):   # else load_model says what is missing
    check_output('to', to, begins=b'<!DOCTYPE html>\n<!-- explain.py ')   # exits if another kind of file is there

# model and tokenizer
model, tokenizer = load_model(init_from, out_dir)
encode, decode = get_codec(tokenizer, vocab_size=model.config.vocab_size)
model.eval().to(device)
c = model.config
if top > c.vocab_size:
    fail(f'top = {top} is invalid: the model knows {c.vocab_size} tokens')

# the prompt
prompt = encode(read_prompt(start))
if len(prompt) > c.block_size:
    fail(f'the prompt has {len(prompt):,} tokens, and the model sees block_size = {c.block_size} at once; shorten it')
if max_new_tokens > c.block_size - len(prompt):
    max_new_tokens = c.block_size - len(prompt)
    print(f'max_new_tokens is {max_new_tokens} here: the text must fit in block_size = {c.block_size}')

# most of the page is attention, which grows with the square of the text
n_weights = c.n_layer * c.n_head * (len(prompt) + max_new_tokens) ** 2 / 2   # a byte each
page_mb = n_weights * 4 / 3 / 1e6   # in base64
if page_mb > 20:
    fail(f'the page would have {page_mb:.0f} MB; shorten the prompt, or lower max_new_tokens = {max_new_tokens}')

# generate
torch.manual_seed(seed)
idx = torch.tensor([prompt], device=device)
idx = model.generate(idx, max_new_tokens, temperature, top_k)   # (1, T)
ids = idx[0].tolist()
T = len(ids)

# one pass over all of it, in which hooks keep each layer's queries, keys and values
qkvs = []
hooks = []
for block in model.transformer.h:
    hooks.append(block.attn.c_attn.register_forward_hook(lambda module, x, y: qkvs.append(y)))
with torch.no_grad():
    logits, _ = model(idx, idx)   # with targets, whatever they are, there are logits of all positions
for hook in hooks:
    hook.remove()
logits = logits[0].float().cpu()   # (T, V)

# attention: the softmax of queries times keys, which is inside scaled_dot_product_attention in the model
qkv = torch.stack(qkvs).view(c.n_layer, T, 3, c.n_head, -1)
q, k, _ = qkv.permute(2, 0, 3, 1, 4).float().cpu()   # (n_layer, nh, T, hs)
scores = q @ k.mT / math.sqrt(q.size(-1))            # (n_layer, nh, T, T)
future = torch.ones(T, T, dtype=torch.bool).triu(1)
attention = scores.masked_fill(future, -math.inf).softmax(dim=-1)

# how likely each token was, in bits, and its rank among all; predictions at position t are about t + 1
bits = -logits.log_softmax(dim=-1) / math.log(2)   # (T, V)
order = logits.argsort(dim=-1, descending=True, stable=True)   # (T, V)
follows = torch.tensor(ids[1:])[:, None]   # (T - 1, 1)
surprise = bits[:-1].gather(1, follows)[:, 0]   # (T - 1,), the first token has none
ranks = (order[:-1] == follows).int().argmax(dim=1)   # (T - 1,), 0 is the likeliest
likeliest = order[:, :top]
p = bits.gather(1, likeliest).neg().exp2()   # (T, top)


def spell(first, last, token):
    """What a token adds to the text before ids[first:last], if it comes after these tokens of an unfinished character:
    the character included."""
    before = ids[:first][-1:]   # some tokenizers drop the space of a text's first token
    text = decode(before + ids[first:last] + [token])
    text = text[len(decode(before)):]
    return text or f'<{token}>'   # padding of the vocabulary has no text


# spelling: a token can be a part of a character, which then stands under each of its tokens, numbered
pieces = []      # of each position, what the page shows for its token
predicted = []   # of each position, the same of the likeliest next tokens
first = 0        # where the tokens of an unfinished character begin
for t in range(T):
    piece = spell(first, t, ids[t])
    n_parts = t + 1 - first
    is_unfinished = piece.endswith('\ufffd') and n_parts < 4   # UTF-8 has four bytes at most
    if not is_unfinished:
        if n_parts == 1:
            pieces.append(piece)
        else:
            for number in '₁₂₃₄'[:n_parts]:
                pieces.append(piece + number)
        first = t + 1
    predicted.append([spell(first, t + 1, token) for token in likeliest[t].tolist()])
pieces += ['\ufffd'] * (T - first)   # the end of the text cut a character

# weights as bytes of their square roots, which keep small ones apart; lower triangles, since the rest is zeros
rows, columns = torch.tril_indices(T, T)
packed = (attention.sqrt() * 255).round().byte()[..., rows, columns]   # (n_layer, nh, T * (T + 1) / 2)

# the page: the template, with the data in it
source = out_dir if init_from == 'resume' else init_from
data = {
    'name': os.path.basename(os.path.normpath(source)),
    'isChar': tokenizer['kind'] == 'char',
    'nLayer': c.n_layer,
    'nHead': c.n_head,
    'nEmbd': c.n_embd,
    'vocabSize': c.vocab_size,
    'nPrompt': len(prompt),
    'pieces': pieces,
    'surprise': [None] + [round(x, 4) for x in surprise.tolist()],
    'ranks': ranks.tolist(),
    'predicted': predicted,
    'p': [[float(f'{x:.4g}') for x in row] for row in p.tolist()],
    'attention': base64.b64encode(packed.numpy().tobytes()).decode(),
}
with open(os.path.join(_root, 'assets', 'explain.html'), encoding='utf-8') as f:
    template = f.read()
page = template.replace('{{data}}', json.dumps(data).replace('<', '\\u003c'))   # no </script> can end it early
write_whole(to, lambda f: f.write(page.encode()))
print(f'wrote {to}: {T} tokens, {len(page) / 1e6:.1f} MB')
