"""Checkpoints with some part of their structure changed: refused in one line, or they work; none hangs, none takes
memory."""

import copy
import json
import math
import random
import resource
import time

import pytest
import torch
from conftest import load

from model import GPT, GPTConfig
from support import checkpoints
from support.tokenizer import get_codec

ARGS = dict(n_layer=2, n_head=2, n_embd=8, block_size=4, bias=True, vocab_size=5, dropout=0.0)
SETTINGS = dict(eval_only=False, dropout=0.0, gradient_accumulation_steps=1, batch_size=2, optimizer='muon', **{
    key: ARGS[key] for key in ('n_layer', 'n_head', 'n_embd', 'block_size', 'bias')})
REASONS = ('is not a whole checkpoint', 'there is nothing to resume', 'was trained with another optimizer',
           'has weights that are NaN', 'but 2 in', 'cannot read the prompt', 'the model has never seen')


def new_optimizers(model, kind='muon'):
    muon = dict(lr=1e-3, momentum=0.9, ns_dtype='float32') if kind == 'muon' else None
    return model.configure_optimizers(0.1, 1e-3, (0.9, 0.95), muon=muon)


def train_a_step(model, optimizers):
    torch.manual_seed(0)
    x = torch.randint(model.config.vocab_size, (2, model.config.block_size))
    model(x, x)[1].backward()
    for opt in optimizers:
        opt.step()
        opt.zero_grad()


def whole_checkpoint(kind='muon', tokenizer=None):
    """As train.py saves it, after a step."""
    torch.manual_seed(1)
    model = GPT(GPTConfig(**ARGS))
    optimizers = new_optimizers(model, kind)
    train_a_step(model, optimizers)
    return {
        'model': model.state_dict(), 'optimizer': [opt.state_dict() for opt in optimizers],
        'scaler': dict(scale=65536.0, growth_factor=2.0, backoff_factor=0.5, growth_interval=2000, _growth_tracker=1),
        'model_args': dict(ARGS), 'tokenizer': tokenizer or {'kind': 'char', 'itos': list('abcd\n')},
        'iter_num': 1, 'best_val_loss': 1.5, 'elapsed_s': 2.0, 'tokens_read': 8,
        'config': dict(SETTINGS, dataset='a', learning_rate=1e-3),
    }


def word_tokenizer(n=5):
    tokenizers = pytest.importorskip('tokenizers')
    vocab = {word: i for i, word in enumerate(['[UNK]', 'a', 'b', 'c', 'd', 'e', 'f', 'g'][:n])}
    return tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token='[UNK]')).to_str()


def resume(folder, kind='muon'):
    """(model, optimizers) of the run in a folder, after one more step and all that reads its fields."""
    config = {**SETTINGS, 'out_dir': str(folder), 'optimizer': kind}
    model, checkpoint = checkpoints.load_run(config)
    optimizers = new_optimizers(model, kind)
    scaler = torch.amp.GradScaler('cpu', enabled=True)
    checkpoints.load_optimizers(optimizers, scaler, checkpoint, config)
    train_a_step(model, optimizers)
    assert all(p.isfinite().all() for p in model.parameters())
    for name in ('iter_num', 'best_val_loss', 'elapsed_s', 'tokens_read'):
        assert type(checkpoint[name]) in (int, float) and checkpoint[name] >= 0
    if 'tokenizer' in checkpoint:
        encode, decode = get_codec(checkpoints.checkpoint_tokenizer(checkpoint), vocab_size=5)
        decode(list(range(model.config.vocab_size)))
        assert max(encode('a')) < 5
    json.dumps(checkpoint['config'] if 'config' in checkpoint else {})
    return model, optimizers


def paths_in(value, path=()):
    """The keys that lead to each part of a structure, itself included."""
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from paths_in(value[key], (*path, key))
    elif isinstance(value, (list, tuple)):
        for i, part in enumerate(value):
            yield from paths_in(part, (*path, i))


def values_like(value, rng):
    """Something else in the place of a value: of another type, size, range, layout or place."""
    choices = [
        None, True, False, 0, 1, -1, 2.0, 0.5, -3, 2**31, 2**40 + 1, 2**62, 10**18, 10**300, 1e308, math.nan, math.inf,
        -math.inf, '', 'a', 'gpt2', '../../etc', '/etc', '\x1b[0m\n', '\ud800', b'x', [], {}, (), [1], {'a': 1}, {1: 2},
        (1, 2), [[]], 3j, {1, 2}, bytearray(3), torch.float32, torch.Size([2]), torch.tensor(3), torch.tensor(2.0),
        torch.tensor(math.nan), torch.ones(3), torch.empty(0), torch.ones(1, 1), torch.ones(2, device='meta'),
        torch.ones(1).expand(10**9), torch.eye(3).to_sparse(), torch.nn.Parameter(torch.ones(2)), ['a'] * 5,
        list('abcde'), list('aabcd'), {i: c for i, c in enumerate('abcde')}, [1, 2, 3, 4, 5], ['ab', 'c', 'd', 'e', ''],
    ]
    if isinstance(value, torch.Tensor):
        choices = [
            value.half(), value.double(), value.int(), value.bool(), value.to(torch.complex64), value.bfloat16(),
            value.to('meta'), value.flatten(), value[None], value.sum(), value * math.nan, value * math.inf, -value,
            value * 1e30, value.sum().expand(value.shape), value.mT.contiguous().mT if value.dim() == 2 else value,
            value.to_sparse() if value.dim() else value, torch.nn.Parameter(value, False), value.tolist(),
            value.clone(), value.sum().expand(10**6, 10**6), *choices,
        ]
    elif type(value) in (int, float):
        choices = [value + 1, -value, value * 2, float(value), torch.tensor(value), str(value), [value], *choices]
    elif isinstance(value, str):
        choices = [value[:-1], value + 'a', value * 1000, value.encode(), [value], *choices]
    elif isinstance(value, dict):
        choices = [list(value), list(value.values()), {**value, 'extra': 1}, {**value, 7: 1}, [value], *choices]
    elif isinstance(value, (list, tuple)):
        choices = [value[1:], [*value, *value], [*value, 1], list(value)[::-1], dict(enumerate(value)), *choices]
    return rng.choice(choices)


def mutate(checkpoint, rng):
    """Change one or two parts of a checkpoint: put something else there, take it away, rename or exchange it."""
    for _ in range(rng.choice([1, 1, 1, 2])):
        paths = list(paths_in(checkpoint))
        top = rng.choice(sorted({path[0] for path in paths if path}, key=str) or [None])
        path = rng.choice([path for path in paths if path and path[0] == top] or [()])
        if not path:
            return values_like(checkpoint, rng)
        owner = checkpoint
        for key in path[:-1]:
            owner = owner[key]
        key = path[-1]
        if isinstance(owner, tuple):
            continue
        how = rng.random()
        if how < 0.7:
            owner[key] = values_like(owner[key], rng)
        elif how < 0.8:
            del owner[key]
        elif how < 0.9 and isinstance(owner, dict):
            owner[rng.choice([key * 2, 'x', 99, f'{key}'])] = owner.pop(key)
        else:
            other = rng.choice(list(owner) if isinstance(owner, dict) else range(len(owner)))
            owner[key], owner[other] = owner[other], owner[key]
    return checkpoint


@pytest.mark.parametrize('part', range(2))
def test_mutations(tmp_path, part):
    """1,600 of them."""
    rng = random.Random(part)
    json_record = {'kind': 'hf', 'json': word_tokenizer(), 'eos': 'a'}
    originals = [whole_checkpoint(), whole_checkpoint(tokenizer=json_record)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    n_refused = 0
    n_good = 0
    for i in range(800):
        changed = mutate(copy.deepcopy(rng.choice(originals)), rng)
        torch.save(changed, tmp_path / 'ckpt.pt')
        start = time.process_time()
        try:
            resume(tmp_path)
            n_good += 1
        except SystemExit as e:
            n_refused += 1
            assert any(reason in str(e) for reason in REASONS), (i, str(e))
            assert '\n' not in str(e) and str(e).isprintable() and len(str(e)) < 400, (i, str(e))
        except BaseException as e:
            raise AssertionError(f'mutation {i} of part {part}: {e!r}') from e
        assert time.process_time() - start < 5
    assert n_refused > 200 and n_good > 50
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
    assert grown < 300_000   # KB on Linux; bytes on a Mac, where this says little


def test_the_original_resumes_as_it_was(tmp_path):
    """A step from the file equals a step in memory, bit for bit, for either optimizer."""
    for kind in ('muon', 'adamw'):
        checkpoint = whole_checkpoint(kind)
        torch.save(checkpoint, tmp_path / 'ckpt.pt')
        model, optimizers = resume(tmp_path, kind)
        other = GPT(GPTConfig(**ARGS))
        other.load_state_dict(load(tmp_path / 'ckpt.pt')['model'])
        others = new_optimizers(other, kind)
        for opt, state in zip(others, checkpoint['optimizer']):
            opt.load_state_dict(copy.deepcopy(state))
        train_a_step(other, others)
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters()))
