"""Checkpoints: written whole or not at all, read from anybody without harm."""

import os
import pickle
import random

import pytest
import torch
from conftest import TINY

from model import GPT, GPTConfig
from support.checkpoints import load_checkpoint, save_checkpoint

ARGS = dict(n_layer=1, n_head=1, n_embd=8, block_size=4, bias=False, vocab_size=5, dropout=0.5)
CHECKPOINT = {'model': GPT(GPTConfig(**ARGS)).state_dict(), 'model_args': ARGS, 'iter_num': 7}


def test_checkpoint_round_trip(tmp_path):
    path = str(tmp_path / 'ckpt.pt')
    save_checkpoint(CHECKPOINT, path)
    save_checkpoint({**CHECKPOINT, 'iter_num': 8}, path)   # over the old one
    assert load_checkpoint(path)[1]['iter_num'] == 8
    assert os.listdir(tmp_path) == ['ckpt.pt']


def test_weights_that_do_not_fit_their_description(tmp_path):
    path = str(tmp_path / 'ckpt.pt')
    for wrong in (dict(n_layer=2), dict(n_embd=16), dict(n_head=3), dict(colour='red')):
        save_checkpoint({**CHECKPOINT, 'model_args': {**ARGS, **wrong}}, path)
        with pytest.raises(SystemExit, match='not a whole checkpoint'):
            load_checkpoint(path)


def test_old_nanogpt_names(tmp_path):
    """Prefixes of compiled models, and the mask that nanoGPT stored on torch 1."""
    weights = {f'_orig_mod.{k}': v for k, v in CHECKPOINT['model'].items()}
    weights['_orig_mod.transformer.h.0.attn.bias'] = torch.ones(1, 1, 4, 4)
    save_checkpoint({**CHECKPOINT, 'model': weights}, str(tmp_path / 'ckpt.pt'))
    model, _ = load_checkpoint(str(tmp_path / 'ckpt.pt'), dropout=0.25)
    assert all(torch.equal(v, CHECKPOINT['model'][k]) for k, v in model.state_dict().items())
    assert model.config.dropout == 0.25


def test_failed_save_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = str(tmp_path / 'ckpt.pt')
    save_checkpoint(CHECKPOINT, path)

    def half_a_save(checkpoint, f):
        f.write(b'half')
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(torch, 'save', half_a_save)
    with pytest.raises(SystemExit, match='No space left on device'):
        save_checkpoint({**CHECKPOINT, 'iter_num': 8}, path)
    assert load_checkpoint(path)[1]['iter_num'] == 7 and os.listdir(tmp_path) == ['ckpt.pt']


class Payload:
    """What a stranger's pickle would do: run a command."""
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}',)


def test_payloads_do_not_run(tmp_path):
    ran = tmp_path / 'ran'
    torch.save({**CHECKPOINT, 'config': Payload(ran)}, tmp_path / 'ckpt.pt')
    with pytest.raises(SystemExit, match='not a whole checkpoint'):
        load_checkpoint(str(tmp_path / 'ckpt.pt'))
    assert not ran.exists()


@pytest.mark.parametrize('content', [b'', b'not a checkpoint', pickle.dumps({'model': 3}, 2), pickle.dumps([1, 2], 2)])
def test_files_that_are_something_else(tmp_path, content):
    (tmp_path / 'file').write_bytes(content)
    with pytest.raises(SystemExit, match='not a whole checkpoint'):
        load_checkpoint(str(tmp_path / 'file'))


def test_flipped_bytes(prepared, tmp_path):
    """One bit wrong, anywhere in a checkpoint: it is refused, or it is what it was."""
    prepared.run('train.py', *TINY, '--max_iters=1', f'--out_dir={tmp_path}/out')
    data = (tmp_path / 'out' / 'ckpt.pt').read_bytes()
    whole, _ = load_checkpoint(str(tmp_path / 'out' / 'ckpt.pt'))
    rng = random.Random(0)
    refused = 0
    for _ in range(150):
        i = rng.randrange(len(data))
        (tmp_path / 'ckpt.pt').write_bytes(data[:i] + bytes([data[i] ^ 1 << rng.randrange(8)]) + data[i + 1:])
        try:
            model, _ = load_checkpoint(str(tmp_path / 'ckpt.pt'))
        except SystemExit as e:
            assert 'is not a whole checkpoint' in str(e)
            refused += 1
        else:
            assert all(torch.equal(v, whole.state_dict()[k]) for k, v in model.state_dict().items())
    assert refused > 50
