"""The configurator: config files and --key=value, typed by the settings they override, every mistake in one line."""

import pytest
from conftest import REPO

SCRIPT = '''"""A script with settings."""
import os
import time
batch_size = 12          # sequences in one micro-batch
learning_rate = 6e-4     # peak rate
eval_only = False
start = 'abc'            # the prompt
out_dir = 'out'
compile = 'auto'         # a setting may shadow a builtin
_private = 1
exec(open(CONFIGURATOR, encoding='utf-8').read())
print({k: globals()[k] for k in ('batch_size', 'learning_rate', 'eval_only', 'start', 'out_dir', 'compile')})
'''
DEFAULTS = dict(batch_size=12, learning_rate=6e-4, eval_only=False, start='abc', out_dir='out', compile='auto')


@pytest.fixture
def configure(tmp_path, monkeypatch, capsys):
    """Run the script above with these arguments; returns its settings, or the one line with which it failed."""
    script = tmp_path / 'script.py'
    script.write_text(SCRIPT.replace('CONFIGURATOR', repr(str(REPO / 'configurator.py'))), encoding='utf-8')
    monkeypatch.chdir(tmp_path)

    def run(*args, config=None):
        if config is not None:
            (tmp_path / 'config.py').write_text(config, encoding='utf-8')
            args = ('config.py', *args)
        monkeypatch.setattr('sys.argv', [str(script), *args])
        try:
            exec(script.read_text(encoding='utf-8'), {'__file__': str(script), '__name__': '__main__'})
        except SystemExit as e:
            if e.code == 0:
                return capsys.readouterr().out
            assert isinstance(e.code, str) and '\n' not in e.code
            return e.code
        return eval(capsys.readouterr().out.splitlines()[-1])

    return run


@pytest.mark.parametrize('arg, expected', [
    ('--batch_size=4', {'batch_size': 4}),
    ('--batch_size=5e3', {'batch_size': 5000}),
    ('--learning_rate=1', {'learning_rate': 1.0}),           # an int where a float is expected
    ('--learning_rate=1e-3', {'learning_rate': 1e-3}),
    ('--eval_only=TRUE', {'eval_only': True}),
    ('--eval_only=false', {'eval_only': False}),
    ('--start=a=b==c', {'start': 'a=b==c'}),                  # a value with = in it
    ('--start=123', {'start': '123'}),                        # a string stays a string
    ('--start=True', {'start': 'True'}),
    ("--start='x'", {'start': "'x'"}),
    ('--start=', {'start': ''}),
    ('--start=--eval_only=True', {'start': '--eval_only=True'}),
    ('--compile=False', {'compile': 'False'}),
    ('--eval_only', {'eval_only': True}),   # a claim can be made by its name alone
])
def test_values(configure, arg, expected):
    settings = configure(arg)
    assert settings == {**DEFAULTS, **expected}
    assert [type(v) for v in settings.values()] == [type(v) for v in DEFAULTS.values()]


@pytest.mark.parametrize('arg, says', [
    ('--batchsize=4', 'there is no setting batchsize; did you mean batch_size?'),
    ('--zzz=4', 'see --help'),
    ('--_private=4', 'there is no setting _private'),
    ('--batch_size=2.5', 'batch_size = 2.5 is invalid: it must be a whole number'),
    ('--batch_size=True', 'a whole number'),
    ('--batch_size=', 'a whole number'),
    ('--batch_size=[1]', 'a whole number'),
    ('--learning_rate=fast', 'learning_rate = fast is invalid: it must be a number, as in --learning_rate=0.0006'),
    ('--learning_rate=nan', 'a number'),
    ('--batch_size=' + '9' * 5000, ' ... is invalid: it must be a whole number'),   # Python reads 4300 digits
    ('--batch_size=' + '(' * 5000, ' ... is invalid: it must be a whole number'),
    ('--a\nb=1', r'there is no setting a\nb'),
    ('--eval_only=1', 'True or False'),
    ('--batch_size', '--batch_size is invalid: write --key=value'),
    ('-eval_only', 'write --key=value'),
    ('-batch_size=4', 'write --key=value'),
    ('nothing.py', 'nothing.py: No such file or directory'),
])
def test_mistakes_on_the_command_line(configure, arg, says):
    assert says in configure(arg)


def test_left_to_right(configure):
    assert configure('--batch_size=1', '--batch_size=3', config='batch_size = 2')['batch_size'] == 3
    assert configure('--batch_size=1', 'config.py', config='batch_size = 2')['batch_size'] == 2


def test_config_file_is_python(configure):
    settings = configure(config='import time\nfrom math import sqrt\n_n = 3\nbatch_size = 2 ** _n\nlearning_rate = 1\n'
                                'eval_only = True\nstart = "ç-" + str(time.time())\ncompile = False\ndef f(): pass\n')
    assert settings['batch_size'] == 8 and settings['learning_rate'] == 1.0 and settings['eval_only'] is True
    assert settings['start'].startswith('ç-') and settings['compile'] == 'False'


def test_config_file_can_compute_from_settings(configure):
    assert configure(config='batch_size = batch_size * 2')['batch_size'] == 24


@pytest.mark.parametrize('config, says', [
    ('batchsize = 4', 'config.py: there is no setting batchsize; did you mean batch_size?'),
    ('zzz = 4', 'begin the name of a variable of your own with _'),
    ('batch_size = "many"', 'batch_size = many is invalid'),
    ('batch_size = None', 'config.py: batch_size = None is invalid'),
    ('batch_size = [1, 2]', 'config.py: batch_size = [1, 2] is invalid'),
    ('batch_size = 4\nthis is no python', 'config.py, line 2: SyntaxError'),
    ('x_ = 1\nbatch_size = 1 / 0', 'config.py, line 2: ZeroDivisionError: division by zero'),
    ('x_ = 1\nraise ValueError("one\\ntwo")', 'config.py, line 2: ValueError: one'),
    ('class E(Exception):\n  def __str__(self): 1 / 0\nraise E', 'config.py, line 3: E: E'),
    ('import sys\nsys.exit(0)', 'config.py, line 2: SystemExit: 0'),
    ('exit()', 'config.py, line 1: SystemExit: '),
    ('raise KeyboardInterrupt', 'config.py, line 1: KeyboardInterrupt'),
    ('x_ = 1\nopen("nada")', 'config.py, line 2: FileNotFoundError: '),
    ('x_ = 1\nexec("a b")', 'config.py, line 2: SyntaxError: '),
    ('batch_size = \0 4', 'config.py: ValueError: it is not a text; save it as UTF-8'),
    ('def f(): f()\nf()', 'config.py, line 1: RecursionError: '),
    ('batch_size = 10**5000', 'batch_size = a int is invalid'),
    ('class A:\n  def __repr__(self): return "1\\n2"\nbatch_size = A()', r'config.py: batch_size = 1\n2 is invalid'),
])
def test_mistakes_in_a_config_file(configure, config, says):
    assert says in configure(config=config)


def test_config_file_from_notepad(configure, tmp_path):
    (tmp_path / 'notepad.py').write_bytes('# ção\r\nbatch_size = 4\r\n'.encode('utf-8-sig'))
    assert configure('notepad.py')['batch_size'] == 4
    (tmp_path / 'unicode.py').write_bytes('batch_size = 4\r\n'.encode('utf-16'))
    assert configure('unicode.py') == 'unicode.py: UnicodeDecodeError: it is not UTF-8; save it as UTF-8'


def test_config_file_that_is_a_folder(configure, tmp_path):
    (tmp_path / 'folder').mkdir()
    assert configure('folder') == 'folder: Is a directory'


def test_the_home_folder(configure, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.setenv('USERPROFILE', str(tmp_path))   # Windows
    (tmp_path / 'mine.py').write_text('batch_size = 4\nout_dir = "~/mine"', encoding='utf-8')
    assert configure('~/mine.py', '--start=~/carta') == {**DEFAULTS, 'batch_size': 4, 'out_dir': str(tmp_path / 'mine'),
                                                         'start': '~/carta'}   # a text is no path
    assert configure('--out_dir=~')['out_dir'] == str(tmp_path)


def test_config_file_that_is_not_utf8(configure, tmp_path):
    (tmp_path / 'latin.py').write_bytes('# configuração\n'.encode('latin-1'))
    assert configure('latin.py').startswith('latin.py: UnicodeDecodeError')


def test_help_shows_defaults(configure):
    assert '--batch_size=12 ' in configure('--batch_size=5', '--help')


def test_help(configure):
    lines = configure('--help').splitlines()
    assert lines[0] == 'A script with settings.'
    assert any(line.split() == '--batch_size=12 sequences in one micro-batch'.split() for line in lines)
    assert any(line.split() == ['--eval_only=False'] for line in lines)
    assert not any('_private' in line for line in lines)


# -----------------------------------------------------------------------------
# the help of each script

SCRIPTS = [
    'train.py', 'sample.py', 'tools/bench.py', 'tools/sizing.py', 'tools/export.py', 'tools/explain.py',
    'tools/trace.py', 'tools/plot.py',
    'data/ecadequeiuroz_char/prepare.py', 'data/autor_char/prepare.py', 'data/shakespeare_char/prepare.py',
    'data/ecadequeiuroz/prepare.py', 'data/shakespeare/prepare.py', 'data/openwebtext/prepare.py',
]


@pytest.mark.parametrize('script', SCRIPTS)
def test_help_fits_a_screen(prepared, script):
    lines = prepared.run(script, '--help').splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 80 and any('python ' in line for line in lines[:8])


@pytest.mark.parametrize('script', ['tools/plot.py', 'data/ecadequeiuroz/prepare.py'])
def test_help_without_docstrings(prepared, script):
    """python -OO takes them away."""
    assert prepared.run('-OO', script, '--help') == prepared.run(script, '--help', real=True)


def test_help_on_one_setting(prepared):
    assert prepared.run('train.py', '--help=dropout').startswith('  --dropout=0.0  0 unless the model sees its data')
    everything = prepared.run('train.py', '--help=all')
    assert everything.count('\n  --') == 43 and '--seed=1337  ' in everything
    assert max(map(len, everything.splitlines())) <= 80
    assert 'there is no setting dropot; did you mean dropout?' in prepared.run('train.py', '--help=dropot', fails=True)
