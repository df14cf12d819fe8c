"""
Follow one text through a trained GPT, with the numbers that it computes.

    python tools/trace.py --out_dir=assets/eca-mini --start="Meu caro"
    python tools/trace.py --out_dir=out-eca-char --start="Meu caro" --layer=3
    python tools/trace.py --init_from=gpt2 --start="The answer"

The stages are those of model.py, one after the other, and each is shown with its formula, its shape and its line in
that file. Of a vector the first four numbers are shown, of a long text the last tokens. One block and one head are
taken apart; --layer and --head choose which, counted from 1. At the end stands how far this is from what the model's
own forward pass gives.
"""

import os
import sys

_root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))   # the repository
sys.path.insert(0, _root)
import support.interrupt   # noqa: F401   first: from here on Ctrl-C ends the script without a traceback

import math
import textwrap

import torch

from support.checkpoints import load_model
from support.errors import catch_crashes, fail
from support.printable import printable_line
from support.settings import check_at_least, check_numbers
from support.terminal import read_prompt
from support.tokenizer import get_codec

catch_crashes()

# -----------------------------------------------------------------------------
# settings
init_from = 'resume'    # the best model in out_dir; or as in sample.py
out_dir = 'out'         # the folder that train.py wrote
start = '\n'            # the text; FILE:name reads a file, - the input
layer = 1               # the block to take apart, counted from 1
head = 1                # the attention head in it, counted from 1
rows = 12               # tokens of a long text to show: the last ones
top = 5                 # predictions to show
# -----------------------------------------------------------------------------
exec(open(os.path.join(_root, 'configurator.py'), encoding='utf-8').read())
check_numbers(globals())
check_at_least(1, globals(), 'layer', 'head', 'rows', 'top')
# -----------------------------------------------------------------------------

# model and tokenizer; in float32 on the CPU, where the numbers are the same for everybody
model, tokenizer = load_model(init_from, out_dir)
encode, decode = get_codec(tokenizer, vocab_size=model.config.vocab_size)
model.eval()
c = model.config
if layer > c.n_layer:
    fail(f'layer = {layer} is invalid: the model has {c.n_layer} blocks')
if head > c.n_head:
    fail(f'head = {head} is invalid: each block of the model has {c.n_head} heads')
ids = encode(read_prompt(start))
if len(ids) > c.block_size:
    fail(f'start has {len(ids):,} tokens, and the model sees block_size = {c.block_size} at once; shorten it')

# shapes, named as in model.py
B = 1
T = len(ids)
C = c.n_embd
V = c.vocab_size
nh = c.n_head
hs = C // nh
shown = range(max(0, T - rows), T)   # the positions that are shown

with open(os.path.join(_root, 'model.py'), encoding='utf-8') as f:
    model_lines = f.read().splitlines()
n_stages = 0


# -----------------------------------------------------------------------------
# how it looks: 80 columns

def line_of(code):
    """The number of the line of model.py that has this code in it; '?' if somebody has changed it."""
    return next((n for n, line in enumerate(model_lines, start=1) if code in line), '?')


def stage(title, formula, code, words):
    """Print the heading of a stage."""
    global n_stages
    n_stages += 1
    title = f'{n_stages}. {title}'
    print(f'\n{title}' + f'model.py, line {line_of(code)}'.rjust(79 - len(title)))
    print(f'   {formula}')
    print(textwrap.fill(words, 79, initial_indent='   ', subsequent_indent='   ') + '\n')


def number(x):
    """A number, nine columns wide."""
    return f'{x:9.3f}' if abs(x) < 1e5 else f'{x:9.1e}'


def spell(token):
    """A token in quotes, at most 14 columns wide."""
    text = printable_line(decode([token]).replace('\n', '\\n'))
    return f"'{text if len(text) <= 12 else text[:11] + '…'}'"


def at(t):
    """The beginning of a line about position t."""
    return f'   {t:5} {spell(ids[t]):14}'


def show_vectors(x):
    """Print four numbers of each of the vectors x (T, size)."""
    for t in shown:
        print(at(t) + vector(x[t]))


def vector(x):
    """The first four numbers of a vector."""
    return ''.join(number(value) for value in x[:4].tolist()) + ('  ...' if len(x) > 4 else '')


# -----------------------------------------------------------------------------
# the model, taken apart

source = out_dir if init_from == 'resume' else init_from
print(textwrap.fill(f'{source}: {c.n_layer} blocks, {nh} heads, C = {C} channels, hs = {hs} in each head, V = {V:,} '
                    f'tokens in the vocabulary. The text has T = {T:,}, and B = {B} of it.', 79))
if len(shown) < T:
    print(f'Shown are the last {len(shown)} positions; --rows=... shows more.')

with torch.no_grad():
    stage('Tokens become numbers', f'idx (B, T) = ({B}, {T})', 'B, T = idx.shape',
          'A model reads no letters. Each token, here a character or a piece of a word, has a number: its place in '
          'the vocabulary.')
    idx = torch.tensor([ids])   # (B, T)
    for t in shown:
        print(f'{at(t)}{ids[t]:9}')

    stage('Numbers become vectors', f'x = wte[idx] + wpe[0 .. T-1]   (B, T, C) = ({B}, {T}, {C})',
          'x = self.transformer.drop(tok_emb + pos_emb)',
          'Each token has a vector of C numbers, which were learned, and so has each position. Their sum says what '
          'stands there, and where. Here are the first four numbers of each:')
    x = model.transformer.wte(idx) + model.transformer.wpe.weight[:T]   # (B, T, C)
    show_vectors(x[0])

    for block in model.transformer.h[:layer - 1]:
        x = block(x)
    block = model.transformer.h[layer - 1]
    earlier = ''
    if layer > 1:
        earlier = f' (Earlier blocks, {layer - 1}, have added to the vectors by now.)'
    stage(f'Block {layer}: LayerNorm', f'ln_1(x)   (B, T, C) = ({B}, {T}, {C})', 'x = x + self.attn(self.ln_1(x)',
          'Before attention each vector is brought to mean 0 and standard deviation 1, then scaled as '
          f'learned.{earlier}')
    normed = block.ln_1(x)
    show_vectors(normed[0])

    stage('Query, key and value', f'q, k, v = c_attn(ln_1(x))   (B, nh, T, hs) = ({B}, {nh}, {T}, {hs}) each',
          'q, k, v = self.c_attn(x).split(C, dim=2)',
          f'From each vector come three for each head: what the position looks for (query), what it offers to be found '
          f'by (key), and what it gives (value). This is head {head} of {nh}: the query of the last position, and the '
          'keys of all.')
    q, k, v = block.attn.c_attn(normed).split(C, dim=2)   # (B, T, C) each
    q = q.view(B, T, nh, hs).transpose(1, 2)              # (B, nh, T, hs)
    k = k.view(B, T, nh, hs).transpose(1, 2)
    v = v.view(B, T, nh, hs).transpose(1, 2)
    print('   query' + ' ' * 15 + vector(q[0, head - 1, -1]))
    print('   keys')
    show_vectors(k[0, head - 1])

    stage('Query times key', f'scores = q @ k.mT / sqrt(hs)   (B, nh, T, T) = ({B}, {nh}, {T}, {T})',
          'q @ k.mT / math.sqrt(hs)',
          'The query of the last position is multiplied by each key, number by number, and the products are summed: '
          'the better they match, the higher the score. This is the last row of T, in which nothing is masked; in the '
          'rows above it, the mask hides the positions that come later.')
    scores = q @ k.mT / math.sqrt(hs)
    row = scores[0, head - 1, -1]   # (T,)
    for t in shown:
        print(at(t) + number(row[t].item()))

    stage('Scores become weights', f'weights = softmax(scores)   (B, nh, T, T) = ({B}, {nh}, {T}, {T})',
          'q @ k.mT / math.sqrt(hs)',
          'e to the power of each score, divided by the sum of all: the weights are above 0, and are 1 together. They '
          f'are where the last position, {spell(ids[-1])}, looks.')
    future = torch.full((T, T), -math.inf).triu(1)   # no position may look ahead
    weights = (scores + future).softmax(dim=-1)
    for t in shown:
        weight = weights[0, head - 1, -1, t].item()
        print(f"{at(t)}{weight:9.3f}  {'#' * round(40 * weight)}".rstrip())
    if len(shown) < T:
        print(f"   {'the others'.ljust(20)}{weights[0, head - 1, -1, :shown[0]].sum().item():9.3f}")

    stage('The mix', f'y = weights @ v   (B, nh, T, hs) = ({B}, {nh}, {T}, {hs})',
          '.softmax(dim=-1) @ v',
          'The values, each times its weight, are summed. That is what this head tells the last position about those '
          'before it.')
    y = weights @ v
    show_vectors(v[0, head - 1])
    print('   the mix' + ' ' * 13 + vector(y[0, head - 1, -1]))

    stage('Back into the stream', f'x = x + c_proj(y)   (B, T, C) = ({B}, {T}, {C})',
          'y = y.transpose(1, 2).reshape(B, T, C)',
          f'The mixes of all {nh} heads stand side by side again, are mixed with each other, and are added to the '
          'vector that they came from. The last position, before and after:')
    attended = x + block.attn.c_proj(y.transpose(1, 2).reshape(B, T, C))
    print('   before' + ' ' * 14 + vector(x[0, -1]))
    print('   after' + ' ' * 15 + vector(attended[0, -1]))

    stage('MLP', f'x = x + mlp(ln_2(x))   (B, T, 4C) = ({B}, {T}, {4 * C}), and back to (B, T, C)',
          'x = x + self.mlp(self.ln_2(x))',
          'Each position by itself: 4C numbers are computed from its vector, gelu lets hardly any through that is '
          'below 0, and of what is left C numbers are made, which are added. The last position, before and after:')
    x = attended + block.mlp(block.ln_2(attended))
    print('   before' + ' ' * 14 + vector(attended[0, -1]))
    print('   after' + ' ' * 15 + vector(x[0, -1]))

    for block in model.transformer.h[layer:]:
        x = block(x)
    if layer == c.n_layer:
        rest = 'This was the last block.'
    elif layer == c.n_layer - 1:
        rest = f'Block {c.n_layer} has done the same.'
    else:
        rest = f'Blocks {layer + 1} to {c.n_layer} have done the same.'
    x = model.transformer.ln_f(x)
    logits = model.lm_head(x)   # (B, T, V)
    stage('Vectors become logits', f'logits = lm_head(ln_f(x))   (B, T, V) = ({B}, {T}, {V})',
          'logits = self.lm_head(x)',
          f'{rest} The vector of the last position goes through a last LayerNorm, and is multiplied by the '
          'vector of each token of the vocabulary, that of stage 2. The better they match, the higher the logit. It '
          'says what comes next. The logits of the first four tokens, and the highest:')
    last = logits[0, -1]        # (V,)
    print('   first four' + ' ' * 10 + vector(last))
    print('   highest' + ' ' * 13 + number(last.max().item()))

    stage(f'The {min(top, V)} likeliest', f'probs = softmax(logits)   (B, V) = ({B}, {V})',
          'probs = F.softmax(logits, dim=-1)',
          f'The softmax makes probabilities of the logits: of what may come after {spell(ids[-1])}. sample.py draws '
          'one of them, puts it at the end of the text, and all begins anew.')
    probs = last.softmax(dim=-1)
    likeliest = probs.topk(min(top, V)).indices.tolist()
    for token in likeliest:
        p = probs[token].item()
        print(f"   {token:5} {spell(token):14}{number(last[token].item())}{p:8.1%}  {'#' * round(32 * p)}".rstrip())

    # the check: the same text through model.py
    own, _ = model(idx)   # (B, 1, V), of the last position
    difference = (own[0, -1] - last).abs().max().item()
    print(f"\nmodel.py's own forward pass gives these logits, but for {difference:.0e} at most.")
