"""Evaluation beyond the loss of some batches: all of val.bin once, bits per character, what counting alone
reaches."""

import functools
import math
import os

import numpy as np


def sweep(file, batch_size, block_size, rank=0, world_size=1):
    """All of a .bin file, given by its path or open, once: yields batches (x, y), arrays (B, T) of token ids.
    Their windows follow each other, so every token but the first is a target once. The last batch has fewer
    windows, and y is -1 beyond the end of the text. Of several processes each gets its share of the batches."""
    n_ids = len(np.memmap(file, dtype=np.uint16, mode='r'))
    n_windows = math.ceil((n_ids - 1) / block_size)
    n_batches = math.ceil(n_windows / batch_size)
    for number in range(rank, n_batches, world_size):
        first = number * batch_size
        starts = np.arange(first, min(first + batch_size, n_windows)) * block_size
        positions = starts[:, None] + np.arange(block_size + 1)   # (B, T + 1)
        ids = np.memmap(file, dtype=np.uint16, mode='r')   # mapped anew each time, as in train.py
        windows = ids[np.minimum(positions, n_ids - 1)].astype(np.int64)
        x = windows[:, :-1]
        y = np.where(positions[:, 1:] < n_ids, windows[:, 1:], -1)
        yield x, y


def bits_per_char(loss, decode, data_dir):
    """A loss on val.bin, in nats per token, in bits per character; None where the tokenizer, and so decode, is
    missing. By it models with different vocabularies compare."""
    if decode is None:
        return None
    return loss * count_tokens_per_char(decode, data_dir) / math.log(2)


@functools.cache
def count_tokens_per_char(decode, data_dir):
    """Tokens per character of val.bin, without its first token, which no model predicts. The ends of documents are
    not characters. Reads all of val.bin, once."""
    ids = np.fromfile(os.path.join(data_dir, 'val.bin'), dtype=np.uint16)[1:]
    n_chars = sum(len(decode(ids[i:i + 2**20].tolist())) for i in range(0, len(ids), 2**20))
    return len(ids) / n_chars


def unigram_loss(data_dir, vocab_size, most=10**7):
    """A baseline: the loss on val.bin, in nats per token, of predicting each token by its frequency in train.bin
    alone. Of long files the first `most` tokens are read."""
    train = np.bincount(np.fromfile(os.path.join(data_dir, 'train.bin'), np.uint16, most), minlength=vocab_size)
    val = np.bincount(np.fromfile(os.path.join(data_dir, 'val.bin'), np.uint16, most), minlength=vocab_size)
    p = (train + 1) / (train + 1).sum()   # + 1: no token is impossible
    return float(-(val * np.log(p)).sum() / val.sum())
