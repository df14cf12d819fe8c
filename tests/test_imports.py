"""What imports what: scripts that need no torch start without it, and each room stands on those below it."""

import ast
import re

import pytest
from conftest import REPO

import support

PREPARE = sorted(str(path.relative_to(REPO)) for path in REPO.glob('data/*/prepare.py'))
ROOMS = re.findall(r'^    (\w+)\.py ', support.__doc__, re.MULTILINE)   # from top to bottom
WITHOUT_TORCH = re.findall(r'\w+', support.__doc__.split('start at once:')[1])


@pytest.mark.parametrize('script', [*PREPARE, 'tools/plot.py'])
def test_no_torch_for_help(prepared, script):
    process = prepared.start('-X', 'importtime', script, '--help')
    printed, said = process.communicate(timeout=60)
    imported = set(re.findall(r'^import time:.*\| +(\S+)$', said, re.MULTILINE))
    assert process.returncode == 0 and 'python ' in printed
    assert 'argparse' in imported and 'torch' not in imported


def test_no_torch_in_the_rooms_that_say_so(prepared):
    assert len(WITHOUT_TORCH) == 18 and set(WITHOUT_TORCH) < set(ROOMS)
    imports = ', '.join(f'support.{name}' for name in WITHOUT_TORCH)
    assert prepared.run('-c', f'import sys, {imports}\nprint("numpy" in sys.modules, "torch" in sys.modules)',
                        real=True) == 'True False\n'


def modules_of(path):
    """The modules that a file imports, wherever in it."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            modules |= {node.module} | {f'{node.module}.{alias.name}' for alias in node.names}
    return modules


def test_each_room_stands_on_those_below_it():
    assert sorted(ROOMS) == sorted(path.stem for path in REPO.glob('support/*.py') if path.stem != '__init__')
    n_imports = 0
    for i, room in enumerate(ROOMS):
        used = {name.split('.')[1] for name in modules_of(REPO / f'support/{room}.py') if name.startswith('support.')}
        assert used <= set(ROOMS[i + 1:]), f'{room} imports {used}'
        n_imports += len(used)
    assert n_imports > 10


def test_the_model_stands_on_no_room():
    for name in ('model.py', 'muon.py'):
        assert not any(module.startswith('support') for module in modules_of(REPO / name))
