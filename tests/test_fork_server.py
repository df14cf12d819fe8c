"""A script that runs in a fork, as most do here, behaves as in a process of its own."""

import os
import subprocess
import sys

import pytest
from conftest import ENVIRONMENT, run_python

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='there is no fork server')
SCRIPT = '''"""A docstring."""
import atexit, io, json, os, random, signal, sys, threading, time, warnings
import model   # the one beside this script
print(__name__, __file__, __doc__, __spec__, sys.argv, sys.path, os.getcwd(), sorted(os.environ.items()))
print(sys.modules['__main__'].__dict__ is globals(), [k for k in globals() if k[:2] != '__'], repr(sys.stdin.read()))
print([(f.fileno(), f.isatty(), f.encoding, f.errors, f.line_buffering) for f in (sys.stdout, sys.stderr)])
print([signal.getsignal(n) for n in range(1, 20)], threading.active_count(), sys.flags)
print(model.which, 'é 漢', 'to be flushed', end='')
never_closed = open('written', 'w')
never_closed.write('whole')
atexit.register(print, 'at exit')
threading.Thread(target=lambda: (time.sleep(0.1), print('from a thread'))).start()
warnings.warn('careful')


def hook(kind, e, trace):
    print('hook', kind, e, file=sys.stderr)


'''
TORCH = '''import torch
torch.manual_seed(1)
a = torch.randn(300, 300, requires_grad=True)
(a @ a).tanh().sum().backward()
print(torch.get_num_threads(), a.grad.sum().item().hex())
'''
ENDS = ['', 'sys.exit(3)', 'sys.exit()', 'sys.exit("a reason")', 'sys.exit(300)', 'sys.excepthook = hook; 1 / 0',
        'sys.excepthook = hook; raise KeyboardInterrupt', 'os.kill(os.getpid(), signal.SIGTERM)', 'os.abort()',
        'sys.stdout.close()', 'os._exit(5)']


@pytest.mark.parametrize('end', ENDS)
def test_like_a_process(tmp_path, end):
    (tmp_path / 'sub').mkdir()
    (tmp_path / 'sub' / 'model.py').write_text('which = "the one beside the script"', encoding='utf-8')
    (tmp_path / 'sub' / 'script.py').write_text(SCRIPT + end if end else TORCH + SCRIPT, encoding='utf-8')
    ends = []
    for real in (True, False):
        env = {**ENVIRONMENT, 'HF_HOME': str(tmp_path)}
        done = run_python(['sub/script.py', 'um', '--dois=três'], tmp_path, env, real=real)
        written = (tmp_path / 'written').read_text(encoding='utf-8')
        ends.append([done.returncode, done.stdout, done.stderr, written])
    assert ends[0] == ends[1]


def test_which_runs_fork(tmp_path):
    (tmp_path / 'script.py').write_text('import os\nprint(os.getppid())', encoding='utf-8')

    def forks(*args, **variables):
        return run_python(args, tmp_path, {**ENVIRONMENT, **variables}).stdout != f'{os.getpid()}\n'

    assert forks('script.py') and forks('script.py', TIKTOKEN_CACHE_DIR='there')
    for name in ('PYTHONUTF8', 'PYTHONPATH', 'CXX', 'OMP_NUM_THREADS', 'TORCHINDUCTOR_CACHE_DIR'):
        assert not forks('script.py', **{name: '1' if name != 'OMP_NUM_THREADS' else '2'})
    assert not forks('-c', 'import os; print(os.getppid())')


def test_chance_and_time(tmp_path):
    """Without a seed no two runs are alike; a run that takes too long is ended."""
    (tmp_path / 'script.py').write_text('import numpy, random, torch\nprint(torch.rand(1).item())\n'
                                        'print(numpy.random.rand())\nprint(random.random())', encoding='utf-8')
    one, two = (run_python(['script.py'], tmp_path, ENVIRONMENT).stdout.splitlines() for _ in range(2))
    assert all(a != b for a, b in zip(one, two, strict=True))
    (tmp_path / 'script.py').write_text('print("begun", flush=True)\nwhile True:\n    pass', encoding='utf-8')
    with pytest.raises(subprocess.TimeoutExpired) as e:
        run_python(['script.py'], tmp_path, ENVIRONMENT, timeout_s=1)
    assert 'begun' in str(e.value.stdout)
