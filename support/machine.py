"""
Whether this Python can run the scripts at all: its version, and torch, numpy, tqdm. If not, one line says what to do.

interrupt.py, which every script imports first, begins with it. Pythons that are too old have to read it: no syntax
newer than 3.6, and nothing is imported that takes time.
"""

import os
import sys

OLDEST = (3, 11)
NEWEST = (3, 15)   # torch has no builds for a newer one
PACKAGES = ('torch', 'numpy', 'tqdm')
root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def check_python():
    """Exit with one line if this Python is too old. One that is too new may have got its torch since: it may try."""
    if sys.version_info < OLDEST:
        raise SystemExit(line(advice_on_python(sys.version_info, has_venv_elsewhere())))


def explain_missing(kind, e, trace):
    """A sys.excepthook: one line for a package that is not installed. catch_crashes() later replaces it, when the
    packages are there."""
    name = getattr(e, 'name', None)
    if not issubclass(kind, ModuleNotFoundError) or name not in PACKAGES:
        sys.__excepthook__(kind, e, trace)
        return
    message = advice_on_package(name, sys.version_info, kind_of_machine(), has_venv_elsewhere())
    print(line(message), file=sys.stderr)


def advice_on_python(version, has_venv):
    """What to do about a Python that is too old. has_venv: there is a .venv, and this is not its Python."""
    message = 'Python %d.%d to %d.%d is needed, for which torch is built; this is %d.%d: ' % (
        OLDEST + NEWEST + tuple(version[:2]))
    if has_venv:
        return message + activate()
    return message + 'install one from https://www.python.org/downloads/ and make .venv with it (README.md)'


def advice_on_package(name, version, machine, has_venv):
    """What to do about torch, numpy or tqdm, which is not there. machine: a name from kind_of_machine()."""
    message = name + ' is not installed'
    if has_venv:
        return message + ' in this Python, but there is a .venv: ' + activate()
    if tuple(version[:2]) > NEWEST:
        return message + '; for Python %d.%d, which this is, torch may not be built yet: take %d.%d to %d.%d' % (
            tuple(version[:2]) + OLDEST + NEWEST)
    if name == 'torch' and machine == 'Intel Mac':
        return message + (', and the last one for Intel Macs is 2.2, which is too old: run mynanogpt.ipynb on Colab '
                          '(on a Mac with Apple silicon, install a Python for arm64)')
    if name == 'torch' and machine == 'Windows on ARM':
        return message + (', and PyPI has none for Windows on ARM: install a Python for x86-64, or run mynanogpt.ipynb '
                          'on Colab')
    return message + ': pip install ' + ' '.join(PACKAGES)


def kind_of_machine():
    """'Intel Mac' or 'Windows on ARM', the machines for which torch is no longer built, or not yet; else ''. It is
    what Python was built for that counts, not the processor: both kinds run programs of the other one, too."""
    if sys.platform == 'darwin' and os.uname().machine == 'x86_64':
        return 'Intel Mac'
    if sys.platform == 'win32' and '(ARM64)' in sys.version:
        return 'Windows on ARM'
    return ''


def has_venv_elsewhere():
    """Whether the repository has a .venv, and another Python runs."""
    venv = os.path.join(root, '.venv')
    return os.path.isdir(venv) and os.path.realpath(sys.prefix) != os.path.realpath(venv)


def activate():
    """The command that makes .venv's Python the one that runs."""
    if sys.platform == 'win32':
        return '.venv\\Scripts\\activate'
    return 'source .venv/bin/activate'


def line(message):
    """A message with the name of the script that runs."""
    return os.path.basename(sys.argv[0]) + ': ' + message
