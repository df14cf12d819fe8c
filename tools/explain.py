"""
Put a trained GPT into a page, where it runs and can be taken apart.

    python tools/explain.py --out_dir=assets/eca-mini --start="Meu caro"
    python tools/explain.py --out_dir=out-eca-char --start=FILE:carta.txt
    python tools/explain.py --init_from=gpt2 --start="The answer" --to=gpt2.html

The page is one file and needs no network: it can be sent to anybody. It opens on the text that it is given here, and on
what the model wrote after it. A model that is too large for a page is shown frozen, with this one text. The page's
source is assets/explain.html.
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
from support.devices import FLOAT16_MAX, largest_weight, pick_device
from support.errors import catch_crashes, fail
from support.files import check_output, write_whole
from support.settings import check_explain_settings
from support.terminal import read_prompt
from support.tokenizer import GPT2_END, byte_letters, get_codec, gpt2_tokens, word_gap

catch_crashes()

# -----------------------------------------------------------------------------
# settings
init_from = 'resume'    # the best model in out_dir; or as in sample.py
out_dir = 'out'         # the folder that train.py wrote
to = ''                 # the page to write; '' is out_dir/explain.html
start = '\n'            # the prompt; FILE:name reads a file, - the input
max_new_tokens = 120    # to write after it; 0 explains the prompt alone
temperature = 0.8       # of what is written; the page opens with 1.0
top_k = 200             # write from this many likeliest tokens; 0: all
seed = 1337             # same seed, same text
max_mb = 32             # a page with a larger model is frozen; 0: always
top = 10                # predictions to list in a frozen page
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
largest = largest_weight(model.parameters())
model.eval().to(device)
c = model.config

# the prompt
prompt = encode(read_prompt(start))
if len(prompt) > c.block_size:
    fail(f'the prompt has {len(prompt):,} tokens, and the model sees block_size = {c.block_size} at once; shorten it')
if max_new_tokens > c.block_size - len(prompt):
    max_new_tokens = c.block_size - len(prompt)
    print(f'max_new_tokens is {max_new_tokens} here: the text must fit in block_size = {c.block_size}')


# -----------------------------------------------------------------------------
# the tokenizer, as the page takes it

def page_tokenizer(record):
    """What the page needs for encoding and decoding, or None for a tokenizer that it does not know.

    {'kind': 'char', 'tokens': [...], 'gap': ''}   characters; or words, with a gap between them
    {'kind': 'bytes', 'tokens': [...], ...}        byte-level BPE as GPT-2 has it, each token a Latin-1 string of bytes:
                                                   'merges', the pairs of ids to merge, in order (None: in the order of
                                                   the ids that come out), and 'special', the ids of tokens never cut
    """
    if record['kind'] == 'char':
        return {'kind': 'char', 'tokens': record['itos'], 'gap': word_gap(record['itos'])}
    if record['kind'] == 'gpt2':
        end = '<|endoftext|>'
        tokens = [token.decode('latin-1') for token in gpt2_tokens(record)]
        return {'kind': 'bytes', 'tokens': [*tokens, end], 'merges': None, 'special': {end: GPT2_END}}

    # a Hugging Face tokenizer.json: nothing may be in it that GPT-2's has not
    hf = json.loads(record['json'])
    bpe = hf['model']
    split = hf.get('pre_tokenizer') or {}
    decoder = hf.get('decoder') or {}
    added = hf.get('added_tokens') or []
    is_bpe = bpe.get('type') == 'BPE' and decoder.get('type') == 'ByteLevel' and not hf.get('normalizer')
    extras = ('dropout', 'unk_token', 'continuing_subword_prefix', 'end_of_word_suffix', 'byte_fallback',
              'ignore_merges')
    has_extras = any(bpe.get(key) for key in extras)
    is_cut_alike = split.get('type') == 'ByteLevel' and split.get('use_regex', True)
    strips = any(token.get(key) for token in added for key in ('lstrip', 'rstrip', 'single_word'))
    if not is_bpe or has_extras or not is_cut_alike or split.get('add_prefix_space', True) or strips:
        return None
    bytes_of = {letter: chr(byte) for letter, byte in byte_letters().items()}
    if not bytes_of.keys() <= bpe['vocab'].keys():
        return None
    special = {token['content']: token['id'] for token in added if token['id'] < c.vocab_size}
    tokens = [''] * c.vocab_size
    for token, i in bpe['vocab'].items():
        tokens[i] = ''.join(bytes_of.get(sign, '') for sign in token)
    for token, i in special.items():
        tokens[i] = token.encode().decode('latin-1')
    pairs = [pair.split(' ') if isinstance(pair, str) else pair for pair in bpe['merges']]   # older files have strings
    merges = [[bpe['vocab'][left], bpe['vocab'][right]] for left, right in pairs]
    return {'kind': 'bytes', 'tokens': tokens, 'merges': merges, 'special': special}


# -----------------------------------------------------------------------------
# does the model live in the page?

n_weights = sum(weight.numel() for weight in model.parameters())   # lm_head is wte, and counts once
weights_mb = n_weights * 2 * 4 / 3 / 1e6   # float16, in base64
vocabulary = page_tokenizer(tokenizer)
if weights_mb > max_mb:
    frozen = 'size' if max_mb else 'asked'   # the page says it in its own words
    print(f'the page is frozen: with the model it would have {weights_mb:.0f} MB, and max_mb = {max_mb}')
elif vocabulary is None:
    frozen = 'tokenizer'
    print("the page is frozen: it knows tokenizers of characters and byte-level BPE like GPT-2's, and not this one")
elif largest > FLOAT16_MAX:
    frozen = 'range'
    print(f'the page is frozen: the model has weights up to {largest:.2g}, too large for float16')
else:
    frozen = ''

# most of a frozen page is attention, which grows with the square of the text
n_bytes = c.n_layer * c.n_head * (len(prompt) + max_new_tokens) ** 2 / 2   # a byte for each of its weights
page_mb = n_bytes * 4 / 3 / 1e6   # in base64
if frozen and top > c.vocab_size:
    fail(f'top = {top} is invalid: the model knows {c.vocab_size} tokens')
if frozen and page_mb > 20:
    fail(f'the page would have {page_mb:.0f} MB; shorten the prompt, or lower max_new_tokens = {max_new_tokens}')

# generate
torch.manual_seed(seed)
idx = torch.tensor([prompt], device=device)
idx = model.generate(idx, max_new_tokens, temperature, top_k)   # (1, T)
ids = idx[0].tolist()
T = len(ids)


# -----------------------------------------------------------------------------
# what a frozen page shows: the model's numbers for this text, which a living one computes itself

def read_text():
    """(logits (T, V), attention (n_layer, nh, T, T)) of one pass over the text."""
    qkvs = []
    hooks = []
    for block in model.transformer.h:   # hooks keep each layer's queries, keys and values
        hooks.append(block.attn.c_attn.register_forward_hook(lambda module, x, y: qkvs.append(y)))
    with torch.no_grad():
        logits, _ = model(idx, idx)   # with targets, whatever they are, there are logits of all positions
    for hook in hooks:
        hook.remove()

    # attention: the softmax of queries times keys, which is inside scaled_dot_product_attention in the model
    qkv = torch.stack(qkvs).view(c.n_layer, T, 3, c.n_head, -1)
    q, k, _ = qkv.permute(2, 0, 3, 1, 4).float().cpu()   # (n_layer, nh, T, hs)
    scores = q @ k.mT / math.sqrt(q.size(-1))            # (n_layer, nh, T, T)
    future = torch.ones(T, T, dtype=torch.bool).triu(1)
    return logits[0].float().cpu(), scores.masked_fill(future, -math.inf).softmax(dim=-1)


def spell(first, last, token):
    """What a token adds to the text before ids[first:last], if it comes after these tokens of an unfinished character:
    the character included."""
    before = ids[:first][-1:]   # some tokenizers drop the space of a text's first token
    text = decode(before + ids[first:last] + [token])
    text = text[len(decode(before)):]
    return text or f'<{token}>'   # padding of the vocabulary has no text


def spell_text(likeliest):
    """(clusters, predicted): the text as pieces (text, number of its tokens), of more than one token where each is but
    a part of a character; and what the page shows for the likeliest tokens (T, top) after each position."""
    clusters = []
    predicted = []
    first = 0   # where the tokens of an unfinished character begin
    for t in range(T):
        piece = spell(first, t, ids[t])
        is_unfinished = piece.endswith('\ufffd') and t + 1 - first < 4 and t + 1 < T   # UTF-8 has four bytes at most
        if not is_unfinished:
            clusters.append((piece, t + 1 - first))
            first = t + 1
        predicted.append([spell(first, t + 1, token) for token in likeliest[t].tolist()])
    return clusters, predicted


def frozen_data():
    """The numbers of a frozen page, as its data."""
    # how likely each token was, in bits, and its rank among all; predictions at position t are about t + 1
    bits = -logits.log_softmax(dim=-1) / math.log(2)   # (T, V)
    order = logits.argsort(dim=-1, descending=True, stable=True)   # (T, V)
    follows = torch.tensor(ids[1:])[:, None]   # (T - 1, 1)
    surprise = bits[:-1].gather(1, follows)[:, 0]   # (T - 1,), the first token has none
    ranks = (order[:-1] == follows).int().argmax(dim=1)   # (T - 1,), 0 is the likeliest
    likeliest = order[:, :top]
    p = bits.gather(1, likeliest).neg().exp2()   # (T, top)
    clusters, predicted = spell_text(likeliest)

    # weights as bytes of their square roots, which keep small ones apart; lower triangles, since the rest is zeros
    rows, columns = torch.tril_indices(T, T)
    packed = (attention.sqrt() * 255).round().byte()[..., rows, columns]   # (n_layer, nh, T * (T + 1) / 2)
    return {
        'clusters': clusters,
        'surprise': [None] + [round(x, 4) for x in surprise.tolist()],
        'ranks': ranks.tolist(),
        'predicted': predicted,
        'p': [[float(f'{x:.4g}') for x in row] for row in p.tolist()],
        'attention': base64.b64encode(packed.numpy().tobytes()).decode(),
    }


# -----------------------------------------------------------------------------
# the page: its source, with the data in it

source = out_dir if init_from == 'resume' else init_from
data = {
    'name': os.path.basename(os.path.normpath(source)),
    'isChar': tokenizer['kind'] == 'char',
    'nLayer': c.n_layer,
    'nHead': c.n_head,
    'nEmbd': c.n_embd,
    'vocabSize': c.vocab_size,
    'blockSize': c.block_size,
    'nPrompt': len(prompt),
    'seed': seed % 2**32,
    'frozen': frozen,
}
weights = ''
if frozen:
    logits, attention = read_text()
    data |= frozen_data()
else:
    named = dict(model.named_parameters())
    halves = torch.cat([weight.detach().flatten() for weight in named.values()]).half().cpu()
    weights = base64.b64encode(halves.numpy().astype('<f2').tobytes()).decode()
    data |= {'ids': ids, 'tokenizer': vocabulary, 'layers': [[name, w.numel()] for name, w in named.items()]}

with open(os.path.join(_root, 'assets', 'explain.html'), encoding='utf-8') as f:
    page = f.read()
page = page.replace('{{weights}}', weights)   # before the data, in which anything may stand
page = page.replace('{{data}}', json.dumps(data).replace('<', '\\u003c'))   # no </script> can end it early
write_whole(to, lambda f: f.write(page.encode()))
print(f'wrote {to}: {T} tokens, {len(page) / 1e6:.1f} MB')
