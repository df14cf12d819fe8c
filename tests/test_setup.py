"""A Python that is too old, or that lacks a package: each script says so in one line, and what to do."""

import ast
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from conftest import REPO

from support import machine

SCRIPTS = sorted(str(path.relative_to(REPO))
                 for path in [*REPO.glob('data/*/prepare.py'), *REPO.glob('tools/*.py'), REPO / 'train.py',
                              REPO / 'sample.py'])
FIRST_ROOMS = ['support/__init__.py', 'support/interrupt.py', 'support/machine.py']   # all that an old Python runs
OLD_PYTHONS = [python for minor in (8, 9, 10)
               for python in sorted(Path.home().glob(f'.pyenv/versions/3.{minor}.*/bin/python'))]


@pytest.mark.parametrize('path', [*SCRIPTS, *FIRST_ROOMS])
def test_an_old_python_can_read_it(path):
    """A Python that cannot would end in a SyntaxError before anything runs."""
    ast.parse((REPO / path).read_text(encoding='utf-8'), feature_version=(3, 8))


@pytest.mark.parametrize('path', SCRIPTS)
def test_a_script_looks_at_its_python_first(path):
    """Before it imports a package."""
    imported = []
    for node in ast.parse((REPO / path).read_text(encoding='utf-8')).body:
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            imported.append(node.module)
    before = imported[:imported.index('support.interrupt')]
    assert set(before) <= sys.stdlib_module_names


def say(python, workspace, script):
    """The one line that a script ends in."""
    done = subprocess.run([python, script, '--help'], cwd=workspace.path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stdout == '', done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


@pytest.mark.skipif(not OLD_PYTHONS, reason='there is no old Python in ~/.pyenv/versions')
def test_real_old_pythons(bare):
    for python, script in zip(OLD_PYTHONS, ['data/openwebtext/prepare.py', 'train.py', 'tools/plot.py']):
        version = re.search(r'3\.\d+', str(python)).group()
        assert say(python, bare, script) == (
            f'{Path(script).name}: Python 3.11 to 3.15 is needed, for which torch is built; this is {version}: '
            'install one from https://www.python.org/downloads/ and make .venv with it (README.md)\n')
    (bare / '.venv').mkdir()
    assert say(python, bare, 'train.py').endswith(f': {machine.activate()}\n')


@pytest.fixture(scope='module')
def empty_python(tmp_path_factory):
    """A Python of the version that runs the tests, without any package."""
    folder = tmp_path_factory.mktemp('empty') / 'venv'
    venv.create(folder, with_pip=False)
    return next(path for path in (folder / 'bin/python', folder / 'Scripts/python.exe') if path.exists())


def test_a_python_without_packages(bare, empty_python):
    for script in ('data/openwebtext/prepare.py', 'data/shakespeare_char/prepare.py', 'train.py', 'tools/trace.py'):
        said = say(empty_python, bare, script)
        assert re.search(rf'^{Path(script).name}: (torch|numpy|tqdm) is not installed', said), said
        assert re.search(': pip install torch numpy tqdm$|Colab', said), said


def test_a_python_beside_the_repository_s_own(bare, empty_python):
    venv.create(bare / '.venv', with_pip=False)
    assert say(empty_python, bare, 'train.py') == (
        f'train.py: numpy is not installed in this Python, but there is a .venv: {machine.activate()}\n')
    own = bare / '.venv' / Path(empty_python).parent.name / Path(empty_python).name
    assert '.venv' not in say(own, bare, 'train.py')


def test_other_errors_keep_their_traceback(bare):
    """A package that a script can do without, or a module of the user's own, is another matter."""
    process = bare.start('-c', 'import support.interrupt\nimport nonsense')
    assert process.communicate(timeout=60)[1].startswith('Traceback')
    process = bare.start('-c', 'import support.interrupt\n1 / 0')
    assert process.communicate(timeout=60)[1].startswith('Traceback')


@pytest.mark.parametrize('version, kind, has_venv, expected', [
    ((3, 13), '', False, 'torch is not installed: pip install torch numpy tqdm'),
    ((3, 15), '', False, 'torch is not installed: pip install torch numpy tqdm'),
    ((3, 16), '', False, 'torch is not installed; for Python 3.16, which this is, torch may not be built yet: '
                         'take 3.11 to 3.15'),
    ((3, 16), '', True, 'torch is not installed in this Python, but there is a .venv: source .venv/bin/activate'),
    ((3, 12), 'Intel Mac', False, 'torch is not installed, and the last one for Intel Macs is 2.2, which is too old: '
     'run mynanogpt.ipynb on Colab (on a Mac with Apple silicon, install a Python for arm64)'),
    ((3, 12), 'Windows on ARM', False, 'torch is not installed, and PyPI has none for Windows on ARM: install a Python '
     'for x86-64, or run mynanogpt.ipynb on Colab'),
])
def test_each_reason(monkeypatch, version, kind, has_venv, expected):
    monkeypatch.setattr(sys, 'platform', 'linux')
    assert machine.advice_on_package('torch', version, kind, has_venv) == expected


def test_numpy_is_for_every_machine():
    for kind in ('Intel Mac', 'Windows on ARM'):
        assert machine.advice_on_package('numpy', (3, 13), kind, False).endswith(': pip install torch numpy tqdm')


def test_kinds_of_machines(monkeypatch):
    uname = type('uname', (), {})()
    monkeypatch.setattr(machine.os, 'uname', lambda: uname, raising=False)
    for system, name, compiler, expected in [('darwin', 'x86_64', '[Clang 16]', 'Intel Mac'),
                                             ('darwin', 'arm64', '[Clang 16]', ''),
                                             ('linux', 'x86_64', '[GCC 12]', ''),
                                             ('win32', '', '[MSC v.1942 64 bit (ARM64)]', 'Windows on ARM'),
                                             ('win32', '', '[MSC v.1942 64 bit (AMD64)]', '')]:
        uname.machine = name
        monkeypatch.setattr(sys, 'platform', system)
        monkeypatch.setattr(sys, 'version', f'3.13.1 (main) {compiler}')
        assert machine.kind_of_machine() == expected


@pytest.mark.parametrize('version', [(3, 8), (3, 10, 99)])
def test_too_old(monkeypatch, version):
    monkeypatch.setattr(sys, 'version_info', version)
    with pytest.raises(SystemExit, match='this is 3.'):
        machine.check_python()


@pytest.mark.parametrize('version', [(3, 11, 0), (3, 15, 2), (3, 16, 0)])
def test_neither_too_old_nor_too_new(monkeypatch, version):
    """A newer Python has its packages perhaps by the time that it is there."""
    monkeypatch.setattr(sys, 'version_info', version)
    machine.check_python()


def test_it_imports_nothing_slow(prepared):
    said = prepared.run('-c', 'import sys; before = set(sys.modules); import support.interrupt; '
                        'print(sorted(set(sys.modules) - before))', real=True)
    assert set(ast.literal_eval(said)) <= {'support', 'support.interrupt', 'support.machine', '__future__'}


def test_the_makefile_names_the_same_pythons():
    assert f'{machine.OLDEST} <= v <= {machine.NEWEST}' in (REPO / 'Makefile').read_text(encoding='utf-8')
