"""Ctrl-C before a script has begun, while it imports, and after: it ends at once, without a traceback.

To a shell a process that SIGINT ends has status 130; to subprocess it is -2.
"""

import re
import signal
import subprocess
import sys

import pytest
from conftest import ECA, TINY

from support import errors


def interrupt_at(workspace, module, *args):
    """(status, what it says from then on) of a script that Ctrl-C meets just after it has imported a module."""
    process = workspace.start('-X', 'importtime', *args)
    for line in process.stderr:
        if re.search(rf'\| +{module}$', line):
            break
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    return process.returncode, re.sub('^import time:.*\n?', '', said, flags=re.MULTILINE)   # its last line may be torn


@pytest.mark.parametrize('module, args', [
    ('support.interrupt', ['train.py', *TINY, '--out_dir=out-interrupt']),
    ('numpy._core.multiarray', ['train.py', *TINY, '--out_dir=out-interrupt']),
    ('torch._C', ['train.py', *TINY, '--out_dir=out-interrupt']),
    ('torch.nn.functional', ['sample.py']),
    ('statistics', ['tools/bench.py']),
    ('numpy', ['tools/plot.py', '--help']),
    ('numpy', [f'{ECA}/prepare.py', '--help']),
])
def test_while_it_imports(prepared, module, args):
    status, said = interrupt_at(prepared, module, *args)
    assert status in (-signal.SIGINT, 0), said   # 0: a short script, which had ended before
    assert 'Traceback' not in said and 'Interrupt' not in said and 'rror' not in said, said
    assert not (prepared / 'out-interrupt').exists()


def test_a_job_in_the_background_goes_on(prepared):
    """A shell has it ignore SIGINT, which is for the foreground."""
    process = prepared.start('train.py', '--help', preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    process.send_signal(signal.SIGINT)
    printed, said = process.communicate(timeout=60)
    assert process.returncode == 0 and 'python train.py' in printed and said == ''


@pytest.mark.parametrize('code', [
    'raise ImportError("an extension failed to load")',   # what numpy makes of it
    'errors.fail("transformers does not load")',
    '1 / 0',
    'raise',
])
def test_what_comes_of_it_is_not_said(prepared, code):
    """Libraries make other exceptions of a KeyboardInterrupt; they end the script as it would."""
    script = f'''
import signal, sys
from support import errors
errors.catch_crashes()
print('begun')
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    {code}
'''
    process = prepared.start('-c', script, env={'PYTHONUNBUFFERED': ''})
    printed, said = process.communicate(timeout=60)
    assert (process.returncode, printed, said) == (-signal.SIGINT, 'begun\n', '')


def test_a_shell_sees_130(prepared):
    script = 'import signal; from support import interrupt; signal.raise_signal(signal.SIGINT)'
    done = subprocess.run(['sh', '-c', f'"{sys.executable}" -c "{script}"; echo $?'], cwd=prepared.path,
                          capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ('130\n', '')


def test_it_is_forgotten_with_the_script(monkeypatch):
    monkeypatch.setattr(errors, 'is_interrupted', True)
    with pytest.raises(KeyboardInterrupt):
        errors.fail('what came of it')
    monkeypatch.setattr(errors, 'is_interrupted', False)
    with pytest.raises(SystemExit):
        errors.fail('a mistake')
