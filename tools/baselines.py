"""
What counting alone reaches on val.bin, and what a GPT that goes on learning while
it reads does: rows of the table in section 8 of docs/course.md.

    python tools/baselines.py                    # of Eça's characters
    python tools/baselines.py --dataset=autor_char --out_dir=''   # of yours, without a GPT
    python tools/baselines.py --dynamic=True     # also one pass that learns, some 15 minutes

It works on any data set of characters that is prepared. Each row is in bits per character, by which models with
different tokens compare, and in bits per byte of UTF-8, in which most papers count. Times are processor seconds, which
other programs at work hardly change.
"""
# ruff: noqa: F821   what the configurator sets, a linter cannot see

import os
import sys

_root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))   # the repository
sys.path.insert(0, _root)
import support.interrupt   # noqa: F401   first: from here on Ctrl-C ends the script without a traceback

import lzma
import math
import time

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from support.checkpoints import checkpoint_tokenizer, load_checkpoint
from support.dataset import check_ids, check_prepared, check_vocabulary, find_dataset
from support.errors import catch_crashes, fail
from support.settings import check_at_least, check_numbers
from support.tokenizer import load_tokenizer

catch_crashes()

# -----------------------------------------------------------------------------
# settings
dataset = 'ecadequeiuroz_char'       # the folder in data/ whose prepare.py has been run
out_dir = os.path.join(_root, 'assets', 'eca-mini')   # the run whose GPT is measured; '': none
dynamic = False         # True: measure also what it reaches if it goes on learning while it reads
# of the pass that learns
stride = 64             # new characters in each window; those before them are its context
windows_per_step = 4    # windows for each step of the optimizers
learning_rate = 1e-4    # of AdamW
muon_lr = 3e-4          # of Muon, for the matrices in the blocks
max_chars = 0           # read only so many characters of val.bin, for trials; 0: all
exec(open(os.path.join(_root, 'configurator.py'), encoding='utf-8').read())
check_at_least(0, globals(), 'max_chars')
check_at_least(1, globals(), 'stride', 'windows_per_step')
check_numbers(globals())
if learning_rate <= 0 or muon_lr <= 0:
    fail(f'learning_rate = {learning_rate} and muon_lr = {muon_lr} must both be above 0')
# -----------------------------------------------------------------------------


# -----------------------------------------------------------------------------
# n-grams

def codes_of(ids, n, vocab_size):
    """A number for each n-gram in ids (M,): (M - n + 1,), int64. Without its last token it is code // vocab_size."""
    codes = np.zeros(len(ids) - n + 1, np.int64)
    for k in range(n):
        codes = codes * vocab_size + ids[k:len(ids) - n + 1 + k]
    return codes


def look_up(codes, keys, values):
    """The values of the codes, 0 for one that is not among the keys, which are sorted."""
    i = np.searchsorted(keys, codes).clip(max=len(keys) - 1)
    return np.where(keys[i] == codes, values[i], 0)


def ngram_probabilities(train, text, vocab_size, order):
    """The probability of each id in text, by counting in train the sequences of up to `order` ids: a list of arrays
    (M,), for order 1, 2, ... (The first ids of text, which have fewer before them, keep what the lower orders say.)

    By Witten and Bell (method C, https://doi.org/10.1109/18.87000), interpolated: a context h that has been seen n
    times, with t different ids after it, says (count(h, id) + t * p_shorter(id)) / (n + t): what has been followed by
    many different ids is likely to be followed by a new one.
    """
    counts = np.bincount(train, minlength=vocab_size) + 1   # + 1: no id is impossible
    p = (counts / counts.sum())[text]
    found = [p]
    for n in range(2, order + 1):
        grams, n_seen = np.unique(codes_of(train, n, vocab_size), return_counts=True)
        contexts, first = np.unique(grams // vocab_size, return_index=True)   # grams are sorted, so contexts are, too
        n_total = np.add.reduceat(n_seen, first)
        n_different = np.diff(np.append(first, len(grams)))

        codes = codes_of(text, n, vocab_size)
        seen = look_up(codes, grams, n_seen)
        total = look_up(codes // vocab_size, contexts, n_total)
        different = look_up(codes // vocab_size, contexts, n_different)
        p = p.copy()
        shorter = p[n - 1:]
        # a context that was never seen says nothing: 0 / 0, for which the shorter one's stands
        p[n - 1:] = np.where(total > 0, (seen + different * shorter) / np.maximum(1, total + different), shorter)
        found.append(p)
    return found


# -----------------------------------------------------------------------------
# compressors: bytes that val.bin's text adds to a file that begins with train.bin's

def added_bits(compress, before, text):
    """The bits by which compress, a function of bytes, makes more of before + text than of before alone."""
    return 8 * (len(compress(before + text)) - len(compress(before)))


def xz(data):
    """As the command xz -9e."""
    return lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)


def ppmd(order):
    """A function that compresses by PPMd (variant I; Shkarin 2002, https://doi.org/10.1109/DCC.2002.999958): counts of
    what has followed each sequence of up to `order` bytes, updated after each byte. Raises ImportError."""
    import pyppmd
    return lambda data: pyppmd.compress(data, max_order=order, mem_size=2**29)


# -----------------------------------------------------------------------------
# a GPT

def windows(n_ids, stride, block_size):
    """All of a text of n_ids tokens, as (start, end, new): the window [start, end) of inputs, at most block_size, of
    whose targets, one further, the last `new`, at most stride, were targets of none before."""
    end = 0
    while end < n_ids - 1:
        new = min(stride, n_ids - 1 - end)
        end += new
        yield max(0, end - block_size), end, new


def read_text(model, ids, stride, optimizers=(), windows_per_step=1):
    """The surprise of a GPT that reads ids (M,), a tensor, once: nats at each but the first, (M - 1,).

    With optimizers it goes on learning: each window is scored, and only then learned from (dynamic evaluation:
    https://arxiv.org/abs/1709.07432), so no token has a part in its own prediction. The gradients of windows_per_step
    windows make one step. There is no dropout, to which each window would have to be read twice.
    """
    model.eval()
    found = []
    bar = tqdm(list(windows(len(ids), stride, model.config.block_size)), unit='window', leave=False, disable=None)
    for i, (start, end, n_new) in enumerate(bar, start=1):
        x = ids[None, start:end]
        y = ids[None, start + 1:end + 1]
        with torch.set_grad_enabled(len(optimizers) > 0):
            logits, loss = model(x, y)   # (1, T, V), and the mean over all of the window, its context included
        found.append(F.cross_entropy(logits[0, -n_new:], y[0, -n_new:], reduction='none'))
        if optimizers:
            (loss / windows_per_step).backward()
        if optimizers and i % windows_per_step == 0:
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for opt in optimizers:
                opt.step()
                opt.zero_grad(set_to_none=True)
    return torch.cat(found)


# -----------------------------------------------------------------------------
# the table

data_dir = find_dataset(dataset, 1)
check_prepared(data_dir)
tokenizer, vocab_size = load_tokenizer(data_dir)
if tokenizer['kind'] != 'char' or vocab_size**6 > 2**62:
    fail(f'{data_dir} is not a data set of characters, which are what is counted here; prepare one, as '
         'data/autor_char/prepare.py does')
train = np.fromfile(os.path.join(data_dir, 'train.bin'), np.uint16).astype(np.int64)
val = np.fromfile(os.path.join(data_dir, 'val.bin'), np.uint16).astype(np.int64)
check_ids(train, vocab_size, data_dir)
check_ids(val, vocab_size, data_dir)
if max_chars > 0:
    val = val[:max_chars]
if out_dir:   # before the minutes that counting takes
    model, checkpoint = load_checkpoint(os.path.join(out_dir, 'ckpt.pt'))
    check_vocabulary(data_dir, tokenizer, vocab_size, checkpoint_tokenizer(checkpoint), model.config.vocab_size)
itos = tokenizer['itos']
train_bytes = ''.join(itos[i] for i in train).encode()
val_bytes = ''.join(itos[i] for i in val).encode()
print(f'{data_dir}: {len(val):,} characters of val.bin, {len(val_bytes):,} bytes of UTF-8')
print(f'{"what predicts":44}  bits/char  bits/byte  nats/char    cpu s')


def show(what, bits, seconds, n_chars=None):
    """Print a row: bits in all, over n_chars characters (all of them, if not said)."""
    n_chars = n_chars or len(val)
    per_char = bits / n_chars
    per_byte = per_char * len(val) / len(val_bytes)
    print(f'{what:44}  {per_char:9.3f}  {per_byte:9.3f}  {per_char * math.log(2):9.3f}  {seconds:7.1f}')


show(f'nobody: {vocab_size} characters, all equally likely', len(val) * math.log2(vocab_size), 0)
started = time.process_time()
for order, p in enumerate(ngram_probabilities(train, val, vocab_size, 6), start=1):
    names = {1: 'how frequent each character is', 2: 'pairs of characters (Witten-Bell)'}
    name = names.get(order, f'sequences of up to {order} (Witten-Bell)')
    show(name, -np.log2(p).sum(), time.process_time() - started)   # each order needs those before it

started = time.process_time()
show('xz -9e: what val.bin adds to the file', added_bits(xz, train_bytes, val_bytes), time.process_time() - started)
for order in (6, 8):
    started = time.process_time()
    try:
        show(f'PPMd of order {order}, which learns as it reads', added_bits(ppmd(order), train_bytes, val_bytes),
             time.process_time() - started)
    except ImportError:
        print(f'PPMd of order {order}: pip install pyppmd')

if out_dir:
    ids = torch.from_numpy(val)
    started = time.process_time()
    losses = read_text(model, ids, model.config.block_size)
    show(f'{os.path.basename(out_dir)}, as train.py evaluates it', losses.sum().item() / math.log(2),
         time.process_time() - started, len(losses))
if out_dir and dynamic:
    started = time.process_time()
    muon = dict(lr=muon_lr, momentum=0.9, ns_dtype='float32')
    optimizers = model.configure_optimizers(0.0, learning_rate, (0.9, 0.99), muon=muon)
    losses = read_text(model, ids, stride, optimizers, windows_per_step)
    show(f'{os.path.basename(out_dir)}, which learns as it reads', losses.sum().item() / math.log(2),
         time.process_time() - started, len(losses))
