"""Fixtures. Scripts run as a user runs them, in a copy of the repository, so that no test touches anybody's data."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))
os.environ['OMP_NUM_THREADS'] = '1'   # the models here are tiny: more threads would only get in each other's way

ECA = 'data/ecadequeiuroz_char'
REAL_TEXT = REPO / ECA / 'input_eca.txt'
needs_real_text = pytest.mark.skipif(not REAL_TEXT.exists(), reason=f'the real text is not at {ECA}/input_eca.txt')


class Workspace:
    """A copy of the repository in which to run its scripts."""

    def __init__(self, path):
        self.path = path

    def __truediv__(self, name):
        return self.path / name

    def run(self, *args, fails=False, env=None):
        """Run `python ARGS` here; returns what it printed. With fails=True it must end in one line on stderr."""
        # a proxy that is not there: no test waits for the network
        env = dict(os.environ, http_proxy='http://127.0.0.1:9', https_proxy='http://127.0.0.1:9', **(env or {}))
        done = subprocess.run([sys.executable, *map(str, args)], cwd=self.path, env=env, timeout=300,
                              capture_output=True, text=True, encoding='utf-8')
        if fails:
            assert done.returncode not in (0, -6, -11), done.stdout
            assert 'Traceback' not in done.stderr, done.stderr
            assert len(done.stderr.strip().splitlines()) == 1, done.stderr
            return done.stderr
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def copy_repository(to):
    ignored = shutil.ignore_patterns('.*', 'out*', 'wandb', '__pycache__', '*.bin', '*.pkl', 'input*.txt', '*.pt')
    shutil.copytree(REPO, to, ignore=ignored)
    return Workspace(Path(to))


TINY = ['config/train_eca_char.py', '--n_layer=2', '--n_head=2', '--n_embd=32', '--block_size=32', '--batch_size=8',
        '--eval_iters=4', '--warmup_iters=5', '--log_interval=1', '--device=cpu', '--dtype=float32']


def load(path):
    return torch.load(path, weights_only=True)


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
