"""Data and checkpoints that are invalid: each has one line that says so. To add one, add a row."""

import io
import os
import pickle
import shutil

import numpy as np
import pytest
import torch
from conftest import ECA, TINY, copy_repository, load

TRAIN = ['train.py', *TINY, '--max_iters=1']
RESUME = [*TRAIN, '--out_dir=out', '--init_from=resume']
EXPORT = ['tools/export.py', '--out_dir=out', '--to=out-hf']
SAMPLE = ['sample.py', '--out_dir=out', '--num_samples=2', '--max_new_tokens=40']


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A repository of our own, with data and a run in out, to spoil and to put in order again."""
    workspace = copy_repository(tmp_path_factory.mktemp('bad') / 'repository')
    workspace.run(f'{ECA}/prepare.py', f'{ECA}/amostra.txt')
    (workspace / ECA / 'dataset.json').unlink()   # it would find out the changes before anybody reads the files
    workspace.run(*TRAIN, '--out_dir=out')
    return workspace


# files: which one, what it becomes (a function of its bytes, or None: it goes away), what then is said, and by whom

def tokens(*ids):
    return lambda old: np.array(ids, dtype='<u2').tobytes()


def with_meta(**changes):
    return lambda old: pickle.dumps({**pickle.loads(old), **changes})


def with_checkpoint(**changes):
    def change(old):
        buffer = io.BytesIO()
        torch.save({**torch.load(io.BytesIO(old), weights_only=True), **changes}, buffer)
        return buffer.getvalue()
    return change


def with_nan(old):
    weights = torch.load(io.BytesIO(old), weights_only=True)['model']
    weights['transformer.ln_f.weight'][0] = torch.nan
    return with_checkpoint(model=weights)(old)


def with_itos(change):
    def changed(old):
        itos = torch.load(io.BytesIO(old), weights_only=True)['tokenizer']['itos']
        return with_checkpoint(tokenizer={'kind': 'char', 'itos': change(itos)})(old)
    return changed


def with_moment(name, change):
    def changed(old):
        states = torch.load(io.BytesIO(old), weights_only=True)['optimizer']
        moment = states[0]['state'][0].pop(name)
        if change:
            states[0]['state'][0][name] = change(moment)
        return with_checkpoint(optimizer=states)(old)
    return changed


TOO_SHORT = 'block_size = 32 needs at least 33'
FILES = [
    (f'{ECA}/train.bin', None, TRAIN, 'there is no'),
    (f'{ECA}/val.bin', None, TRAIN, 'there is no'),
    (f'{ECA}/train.bin', lambda old: b'', TRAIN, TOO_SHORT),
    (f'{ECA}/val.bin', lambda old: old[:64], TRAIN, TOO_SHORT),
    (f'{ECA}/val.bin', lambda old: old[:-1], TRAIN, 'has an odd number of bytes'),
    (f'{ECA}/train.bin', lambda old: old + tokens(60000)(old), TRAIN, 'has the token 60000, beyond the'),
    (f'{ECA}/val.bin', lambda old: tokens(999)(old) + old, TRAIN, 'has the token 999, beyond the'),
    (f'{ECA}/meta.pkl', lambda old: b'', TRAIN, 'is not a vocabulary'),
    (f'{ECA}/meta.pkl', lambda old: old[:99], TRAIN, 'is not a vocabulary'),
    (f'{ECA}/meta.pkl', with_meta(vocab_size=3), TRAIN, 'is not a vocabulary'),
    (f'{ECA}/meta.pkl', with_meta(itos={0: 'a'}, stoi={'a': 0}, vocab_size=1), RESUME, 'is not that of the model'),
    (f'{ECA}/meta.pkl', None, RESUME, 'is not that of the model'),
    ('out/ckpt.pt', lambda old: b'', RESUME, 'out/ckpt.pt is not a whole checkpoint'),
    ('out/ckpt.pt', lambda old: old[:len(old) // 2], RESUME, 'out/ckpt.pt is not a whole checkpoint'),
    ('out/ckpt.pt', lambda old: b'\x89PNG' * 99, RESUME, 'out/ckpt.pt is not a whole checkpoint'),
    ('out/ckpt.pt', lambda old: old[:-9], SAMPLE, 'out/ckpt.pt is not a whole checkpoint'),
    ('out/ckpt.pt', lambda old: pickle.dumps({'model': 1}, 2), SAMPLE, 'out/ckpt.pt is not a whole checkpoint'),
    ('out/ckpt.pt', None, SAMPLE, 'there is no out/ckpt.pt; train first'),
    ('out/ckpt.pt', with_nan, SAMPLE, 'out/ckpt.pt has weights that are NaN or infinite'),
    ('out/ckpt.pt', with_checkpoint(iter_num=None), RESUME, 'there is nothing to resume'),
    ('out/ckpt.pt', with_checkpoint(optimizer=[{}, {}]), RESUME, 'was trained with another optimizer'),
    ('out/ckpt.pt', with_checkpoint(optimizer=[{'state': {0: {'step': torch.ones(3)}}}] * 2), RESUME,
     'was trained with another optimizer'),
    ('out/ckpt.pt', with_checkpoint(tokenizer={'kind': 'char', 'itos': ['a']}), SAMPLE, 'is not a whole checkpoint'),
    ('out/ckpt.pt', with_checkpoint(tokenizer={'kind': 'sentencepiece'}), SAMPLE, 'this version knows char, gpt2'),
    ('out/ckpt.pt', with_checkpoint(tokenizer=7), SAMPLE, 'is not a whole checkpoint'),
    # what export.py would have passed on
    ('out/ckpt.pt', with_checkpoint(tokenizer={'kind': 'sentencepiece'}), EXPORT, 'this version knows char, gpt2'),
    ('out/ckpt.pt', with_itos(lambda itos: itos[:-1]), EXPORT, 'itos of the tokenizer has'),
    ('out/ckpt.pt', with_itos(lambda itos: itos[:-1] + itos[:1]), EXPORT, 'is there twice'),
    ('out/ckpt.pt', with_itos(lambda itos: list(range(len(itos)))), EXPORT, 'its tokens are no list of strings'),
    ('out/ckpt.pt', with_itos(lambda itos: dict(enumerate(itos))), EXPORT, 'its tokens are no list of strings'),
    ('out/ckpt.pt', with_checkpoint(tokenizer={'kind': 'hf', 'json': '{', 'eos': None}), EXPORT, 'cannot be read'),
    ('out/ckpt.pt', with_checkpoint(tokenizer={'kind': 'gpt2', 'bpe': ['a']}), EXPORT, "not GPT-2's 50,256"),
    # what a training would have believed
    ('out/ckpt.pt', with_checkpoint(iter_num=-3), RESUME, 'iter_num is -3'),
    ('out/ckpt.pt', with_checkpoint(tokens_read='many'), RESUME, "tokens_read is 'many'"),
    ('out/ckpt.pt', with_checkpoint(elapsed_s=float('nan')), RESUME, 'elapsed_s is nan'),
    ('out/ckpt.pt', with_checkpoint(config=[1]), RESUME, 'config is a list'),
    ('out/ckpt.pt', with_moment('exp_avg', lambda m: m.sum()), RESUME, 'exp_avg of parameter 0 has the shape ()'),
    ('out/ckpt.pt', with_moment('exp_avg', lambda m: m.half()), RESUME, 'was trained with another optimizer'),
    ('out/ckpt.pt', with_moment('exp_avg', None), RESUME, 'has no exp_avg'),
]


@pytest.mark.parametrize('name, change, command, says', FILES)
def test_files(trained, name, change, command, says):
    path = trained / name
    old = path.read_bytes()
    try:
        path.unlink()
        if change:
            path.write_bytes(change(old))
        assert says in trained.run(*command, fails=True)
    finally:
        path.write_bytes(old)


def test_a_training_that_has_not_been_evaluated_yet(trained, tmp_path):
    """Ctrl-C before that leaves last.pt alone, which resumes; sample.py says so."""
    shutil.copy(trained / 'out' / 'ckpt.pt', tmp_path / 'last.pt')
    said = trained.run(*SAMPLE, f'--out_dir={tmp_path}', fails=True)
    assert 'ckpt.pt; there is last.pt: go on with that training, by train.py --init_from=resume' in said
    said = trained.run(*RESUME, f'--out_dir={tmp_path}', '--n_layer=3', fails=True)
    assert f'n_layer is 3, but 2 in {tmp_path}/last.pt' in said


def test_log_that_is_a_folder(trained, tmp_path):
    shutil.copy(trained / 'out' / 'ckpt.pt', tmp_path)
    (tmp_path / 'log.csv').mkdir()
    said = trained.run(*RESUME, f'--out_dir={tmp_path}', fails=True)
    assert f'{tmp_path}/log.csv cannot be written: it is a folder, not a file' in said


@pytest.mark.parametrize('change', [dict(n_layer=1), dict(n_embd=16), dict(vocab_size=7), dict(n_head=5)])
def test_checkpoint_whose_weights_are_of_another_shape(trained, tmp_path, change):
    checkpoint = load(trained / 'out' / 'ckpt.pt')
    checkpoint['model_args'].update(change)
    torch.save(checkpoint, tmp_path / 'ckpt.pt')
    assert 'is not a whole checkpoint' in trained.run(*SAMPLE, f'--out_dir={tmp_path}', fails=True)


@pytest.mark.skipif(os.geteuid() == 0, reason='root writes everywhere')
def test_read_only_out_dir(trained, tmp_path):
    tmp_path.chmod(0o500)
    assert 'cannot be written to' in trained.run(*TRAIN, f'--out_dir={tmp_path}', fails=True)


def test_console_that_cannot_show_it(trained):
    """On a Windows console of old, and in a folder with a name that it lacks."""
    env = {'PYTHONIOENCODING': 'cp1252', 'PYTHONUTF8': '0'}
    sample = ['sample.py', '--out_dir=out-日本', '--start=Meu caro é', '--num_samples=1']
    for args in ([*TRAIN, '--out_dir=out-日本'], sample):
        process = trained.start(*args, env=env, text=False, encoding=None)
        printed, errors = process.communicate(timeout=100)
        assert process.returncode == 0, errors
    assert 'Meu caro é'.encode('cp1252') in printed
