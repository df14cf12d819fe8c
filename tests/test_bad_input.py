"""Data, checkpoints and settings that will not do: each has one line that says so. To add one, add a row."""

import io
import os
import pickle
import random
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ECA, TINY, copy_repository, load

TRAIN = ['train.py', *TINY, '--max_iters=1']
RESUME = [*TRAIN, '--out_dir=out', '--init_from=resume']
SAMPLE = ['sample.py', '--out_dir=out', '--num_samples=2', '--max_new_tokens=40']


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A repository of our own, with data and a run in out, to spoil and to put in order again."""
    workspace = copy_repository(tmp_path_factory.mktemp('bad') / 'repository')
    workspace.run(f'{ECA}/prepare.py', f'{ECA}/amostra.txt')
    workspace.run(*TRAIN, '--out_dir=out')
    return workspace


# settings: what is typed, and what is said

SETTINGS = [
    (TRAIN, '--lr_schedule=step', "lr_schedule = step is not known; use 'cosine' or 'linear'"),
    (TRAIN, '--dataset=nada', 'choose a --dataset of: autor_char ecadequeiuroz ecadequeiuroz_char openwebtext '),
    (TRAIN, '--dataset=data/ecadequeiuroz_char', 'char/train.bin; choose a --dataset of: autor_char ecadequeiuroz '),
    (TRAIN, '--block_size=100000', 'take a longer text or a smaller block_size'),
    (TRAIN, '--block_size=0', 'block_size = 0 will not do; it must be at least 1'),
    (TRAIN, '--batch_size=-1', 'batch_size = -1'),
    (TRAIN, '--eval_interval=0', 'eval_interval = 0'),
    (TRAIN, '--log_interval=0', 'log_interval = 0'),
    (TRAIN, '--eval_iters=-1', 'eval_iters = -1'),
    (TRAIN, '--seed=-1', 'seed = -1'),
    (TRAIN, '--learning_rate=0', 'must both be above 0'),
    (TRAIN, '--learning_rate=-1e-3', 'must both be above 0'),
    (TRAIN, '--muon_lr=-1', 'must both be above 0'),
    (TRAIN, '--min_lr=-1', 'min_lr = -1.0'),
    (TRAIN, '--weight_decay=-1', 'weight_decay = -1.0'),
    (TRAIN, '--muon_momentum=1', "Muon's momentum is 1.0"),
    (TRAIN, '--n_layer=0', 'n_layer is 0'),
    (TRAIN, '--dropout=1', 'dropout is 1.0'),
    (TRAIN, '--n_embd=33', 'n_embd = 33 cannot be split over n_head = 2 heads; try n_embd = 32'),
    (TRAIN, '--optimizer=sgd', "optimizer is 'sgd'; it must be 'adamw' or 'muon'"),
    (TRAIN, '--init_from=resumed', "init_from = resumed is not known; use 'scratch', 'resume', gpt2,"),
    (RESUME, '--out_dir=out-nada', 'there is no out-nada/ckpt.pt; train first'),
    (TRAIN, '--device=cuda:99', 'device = cuda:99 is not on this machine'),
    (TRAIN, '--device=gpu', 'device = gpu is not the name of a device'),
    (TRAIN, '--dtype=int8', 'dtype = int8 is not known'),
    (TRAIN, '--compile=maybe', 'compile = maybe is not known'),
    (TRAIN, '--gradient_accumulation_steps=0', 'gradient_accumulation_steps = 0'),
    (TRAIN, '--out_dir=train.py', 'out_dir = train.py cannot be written to'),
    (TRAIN, '--warmup_iters=2.5', 'warmup_iters = 2.5 will not do: it must be a whole number'),
    (RESUME, '--n_layer=3', 'n_layer is 3, but 2 in out/ckpt.pt'),
    (RESUME, '--block_size=16', 'block_size is 16, but 32 in out/ckpt.pt'),
    (RESUME, '--bias=True', 'bias is True, but False in out/ckpt.pt'),
    (RESUME, '--optimizer=adamw', 'was trained with another optimizer than adamw'),
    (SAMPLE, '--start=', 'the prompt is empty'),
    (SAMPLE, '--num_samples=0', 'num_samples = 0'),
    (SAMPLE, '--max_new_tokens=0', 'max_new_tokens = 0'),
    (SAMPLE, '--temperature=-1', 'temperature = -1.0'),
    (SAMPLE, '--top_k=-1', 'top_k = -1'),
    (SAMPLE, '--top_p=0', 'top_p = 0.0 will not do; it must be above 0 and at most 1'),
    (SAMPLE, '--top_p=1.5', 'top_p = 1.5'),
    (SAMPLE, '--out=data', 'out = data is not the name of a file in a folder that is there'),
    (SAMPLE, '--out=nada/texto.txt', 'out = nada/texto.txt is not the name of a file'),
    (SAMPLE, '--keep=-1', 'keep = -1'),
    (SAMPLE, '--keep=33', "keep = 33 is not between 0 and the model's block_size = 32"),
    (SAMPLE, '--init_from=gpt3', 'init_from = gpt3 is not known'),
    (SAMPLE, '--out_dir=out-nada', 'there is no out-nada/ckpt.pt; train first'),
    (SAMPLE, '--start=FILE:nada.txt', 'cannot be read: No such file'),
    (SAMPLE, '--device=cuda:99', 'device = cuda:99 is not on this machine'),
]


@pytest.mark.parametrize('command, arg, says', SETTINGS)
def test_settings(trained, command, arg, says):
    assert says in trained.run(*command, arg, fails=True)


# settings at the edge, which will do
@pytest.mark.parametrize('command, args', [
    (TRAIN, ['--lr_decay_iters=5', '--warmup_iters=5', '--max_iters=7', '--out_dir=out-edge']),
    (TRAIN, ['--warmup_iters=0', '--lr_decay_iters=0', '--max_iters=0', '--out_dir=out-edge']),
    (SAMPLE, ['--top_k=0']),
    (SAMPLE, ['--top_k=100000']),
    (SAMPLE, ['--temperature=0']),
    (SAMPLE, ['--start=' + 'um começo muito longo ' * 9]),
])
def test_edges(trained, command, args):
    trained.run(*command, *args)


def test_warmup_longer_than_the_run(trained):
    """It will do for a try, and is said."""
    said = 'warmup_iters = 5 is more than max_iters = 1: the rate stays below its peak'
    assert said in trained.run(*TRAIN, '--out_dir=out-edge')
    assert 'warmup_iters' not in trained.run(*TRAIN, '--warmup_iters=1', '--out_dir=out-edge')


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
    env = {**os.environ, 'PYTHONIOENCODING': 'cp1252', 'PYTHONUTF8': '0'}
    sample = ['sample.py', '--out_dir=out-日本', '--start=Meu caro é', '--num_samples=1']
    for args in ([*TRAIN, '--out_dir=out-日本'], sample):
        done = subprocess.run([sys.executable, *args], cwd=trained.path, env=env, capture_output=True)
        assert done.returncode == 0, done.stderr
    assert 'Meu caro é'.encode('cp1252') in done.stdout


def test_flipped_bytes(trained, tmp_path):
    """One bit wrong, anywhere in a checkpoint: it is refused, or it is what it was."""
    from checkpoint import load_checkpoint
    data, rng = (trained / 'out' / 'ckpt.pt').read_bytes(), random.Random(0)
    whole, _ = load_checkpoint(str(trained / 'out' / 'ckpt.pt'))
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
