"""What sample.py shows on a terminal, and the prompt that it reads: lines fit, samples grow, no word is broken."""

import io
import os
import random
import re
import sys

import pytest
import torch
from conftest import TINY, Terminal

from model import GPT, GPTConfig
from support import printable, terminal

DASHES = '\n---------------\n'


@pytest.fixture(scope='module')
def trained(prepared):
    """A workspace whose out-terminal has a model that knows a little."""
    prepared.run('train.py', *TINY, '--max_iters=60', '--eval_interval=30', '--lr_decay_iters=60',
                 '--out_dir=out-terminal')
    return prepared


def test_a_terminal_shows_several_samples_grow(trained):
    args = ['sample.py', '--out_dir=out-terminal', '--start=Meu caro', '--num_samples=3', '--max_new_tokens=200',
            '--device=cpu']
    seen = Terminal(trained, *args, '--stream')
    growing = [[len(row) for row in rows if row.startswith('Meu caro')] for rows in seen.screens]
    assert any(len(lengths) == 3 and all(8 < n < 79 for n in lengths) for lengths in growing)
    plain = trained.run(*args).split(DASHES)[:3]
    text = '\n'.join(seen.lines)
    for whole in plain:   # on lines that end between words; nothing else is different
        words = [re.escape(word) for word in whole.split()]
        assert re.search(r'\s+'.join(words) + r'\s*\n-{15}', text), text
    assert text.count('---------------') == 3 and b'\x1b[1mMeu caro\x1b[0m' in seen.bytes   # the prompt stands out


def test_a_terminal_shows_one_sample_grow(trained):
    args = ['sample.py', '--out_dir=out-terminal', '--start=Meu caro', '--num_samples=1', '--max_new_tokens=300']
    seen = Terminal(trained, *args, '--stream')
    lengths = [len(' '.join(rows)) for rows in seen.screens]
    assert len(set(lengths)) > 10 and lengths == sorted(lengths)   # bit by bit, and nothing is taken back
    text = trained.run(*args).removesuffix(DASHES)
    shown = '\n'.join(seen.lines)
    assert shown[shown.index('Meu caro'):].split() == [*text.split(), '---------------']   # and no word is broken


COMMANDS = ['\x1b', ']', '0', ';', '\x07', '\r', '\x9b', '\u202e', '\x08', '\xad', '\u200b', '[', 'J', '\ue000', '\x7f']


@pytest.fixture(scope='module')
def hostile(tmp_path_factory):
    """The folder of a model whose vocabulary has what a terminal takes for commands, and which writes little else."""
    folder = tmp_path_factory.mktemp('hostile')
    itos = ['\n', 'a', ' ', *COMMANDS]
    config = dict(block_size=32, vocab_size=len(itos), n_layer=1, n_head=1, n_embd=4)
    weights = GPT(GPTConfig(**config)).state_dict()
    torch.save({'model': weights, 'model_args': config, 'tokenizer': {'kind': 'char', 'itos': itos}},
               folder / 'ckpt.pt')
    return folder


@pytest.mark.parametrize('args', [['--num_samples=2'], ['--num_samples=1', '--stream'],
                                  ['--num_samples=3', '--stream']])
def test_a_text_gives_a_terminal_no_commands(trained, hostile, args):
    """But those of bold type, of growing lines, and of the terminal itself: \r."""
    seen = Terminal(trained, 'sample.py', f'--out_dir={hostile}', '--start=\x1b]0;a\x07', '--max_new_tokens=200', *args)
    shown = re.sub(r'\x1b\[(1m|0m|A)', '', seen.bytes.decode())
    assert set(shown) - set('\r\n\t') and all(c.isprintable() or c in '\r\n\t' for c in shown)
    if '3' not in args[0]:
        assert '\r' not in shown.replace('\r\n', '')
    assert '\ufffd]0;a\ufffd' in shown


def test_a_pipe_has_the_text_as_it_is(trained, hostile):
    text = trained.run('sample.py', f'--out_dir={hostile}', '--start=\x1b]0;a\x07', '--max_new_tokens=300',
                       '--num_samples=1')
    assert text.startswith('\x1b]0;a\x07') and set(COMMANDS) <= set(text)


def test_names_of_files_give_a_terminal_no_commands(trained, tmp_path):
    name = tmp_path / 'carta\x1b]0;title\x07\x1b[2J.txt'
    name.write_text('Meu caro amigo,\n' * 400, encoding='utf-8')
    seen = Terminal(trained, 'data/shakespeare_char/prepare.py', name)
    assert b'\x1b' not in seen.bytes and b'\x07' not in seen.bytes
    assert 'carta\ufffd]0;title\ufffd\ufffd[2J.txt' in ''.join(seen.lines)


@pytest.mark.parametrize('text, shown', [
    ('Olá, 漢字 😀\n\tfim', 'Olá, 漢字 😀\n\tfim'),
    ('a\x1b[2Jb', 'a\ufffd[2Jb'),
    ('a\rb\x00\x7f\x9b', 'a\ufffdb\ufffd\ufffd\ufffd'),
    ('um\xa0dia\u2009só', 'um dia só'),        # spaces
    ('so\xadbre\u200b\u202e', 'sobre'),        # without width
    ('\u2028\ud800\ue000', '\ufffd\ufffd\ufffd'),
])
def test_printable(text, shown):
    assert printable.printable(text) == shown


def test_a_screen_lets_bars_and_nothing_else_through():
    stream = io.StringIO()
    screen = printable.Screen(stream, has_bars=True)
    assert screen.write('\r 50%\x1b[A\x1b[32mgreen\x1b[0m\n') == 23
    print('a\x1b]0;title\x07\x1b[2J', file=screen)
    assert stream.getvalue() == '\r 50%\x1b[A\x1b[32mgreen\x1b[0m\na\ufffd]0;title\ufffd\ufffd[2J\n'
    plain = printable.Screen(io.StringIO())
    plain.writelines(['\r\x1b[A', '\x1b[32m'])
    assert plain.getvalue() == '\ufffd\ufffd[A\ufffd[32m' and printable.raw(plain) is plain.stream


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def columns(monkeypatch):
    """A function that makes standard output a terminal of so many columns."""
    def set_columns(n):
        monkeypatch.setattr(sys, 'stdout', Screen())
        monkeypatch.setenv('COLUMNS', str(n))

    return set_columns


@pytest.mark.parametrize('text, shown', [
    ('Meu caro amigo', 'Meu caro\namigo'),
    ('Meu caro a', 'Meu caro a'),   # ten characters, which just fit
    ('Meu caro\namigo', 'Meu caro\namigo'),   # which fits as it is
    ('um dois tres quatro cinco', 'um dois\ntres\nquatro\ncinco'),
    ('inconstitucionalmente e só', 'inconstitucionalmente\ne só'),   # a word is never broken
    ('\tMeu caro amigo', ' Meu caro\namigo'),   # a tab would be wider than it is long
    ('', ''),
])
def test_lines_fit(columns, text, shown):
    columns(10)
    assert terminal.fit(text) == shown


def test_fitting_turns_spaces_into_new_lines_and_nothing_else(columns):
    rng = random.Random(0)
    for _ in range(500):
        text = ''.join(rng.choices(['a', 'é', 'bcd', ' ', ' ', '\n'], k=rng.randrange(80)))
        width = rng.randrange(4, 20)
        columns(width)
        shown = terminal.fit(text)
        assert len(shown) == len(text)
        assert all(a == b or (a, b) == (' ', '\n') for a, b in zip(text, shown))
        for line in shown.split('\n'):
            assert len(line) <= width or ' ' not in line.strip(' ')


def test_elsewhere_lines_are_as_they_are(monkeypatch):
    monkeypatch.setattr(sys, 'stdout', io.StringIO())
    monkeypatch.setenv('COLUMNS', '10')
    assert terminal.fit('\tMeu caro amigo') == '\tMeu caro amigo' and terminal.bold('Meu') == 'Meu'


def test_bold_for_those_who_want_it(columns, monkeypatch):
    columns(80)
    monkeypatch.delenv('NO_COLOR', raising=False)
    assert terminal.bold('Meu') == '\x1b[1mMeu\x1b[0m'
    monkeypatch.setenv('NO_COLOR', '')
    assert terminal.bold('Meu') == 'Meu'


@pytest.mark.parametrize('piped', ['Meu caro\namigo\n', 'Meu caro\r\namigo\r\n', '\ufeffMeu caro\namigo'])
def test_prompt_from_a_pipe(monkeypatch, piped):
    """As Linux's echo, Windows's, and an editor's file put it there."""
    monkeypatch.setattr(sys, 'stdin', io.TextIOWrapper(io.BytesIO(piped.encode())))
    assert terminal.read_prompt('-') == 'Meu caro\namigo'


def test_prompt_file_in_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.setenv('USERPROFILE', str(tmp_path))   # Windows
    (tmp_path / 'carta.txt').write_text('Meu caro', encoding='utf-8')
    assert terminal.read_prompt('FILE:~/carta.txt') == 'Meu caro'
    assert terminal.read_prompt('~/carta.txt') == '~/carta.txt'   # a prompt is no path


def test_lines_typed_at_a_terminal(trained):
    """Each is asked for, can be called back and edited, and is answered; Ctrl-D ends."""
    pty = pytest.importorskip('pty')
    pytest.importorskip('readline')
    master, slave = pty.openpty()
    process = trained.start('sample.py', '--out_dir=out-terminal', '--interactive', '--max_new_tokens=30',
                            stdin=slave, stdout=slave, stderr=slave, env={'TERM': 'xterm', 'PYTHONUNBUFFERED': ''})
    os.close(slave)
    seen = ''

    def wait_for(text):
        nonlocal seen
        seen = ''
        while not seen.endswith(text):
            seen += os.read(master, 1).decode('latin-1')   # a byte at a time

    wait_for('\n> ')
    assert 'Ctrl-D ends' in seen
    os.write(master, b'Meu caro\n')
    wait_for('\r\n---------------\r\n> ')
    assert '\x1b[1mMeu caro\x1b[0m' in seen
    os.write(master, b'\n')
    wait_for('\r\n---------------\r\n> ')
    assert 'Meu caro' not in seen
    os.write(master, b'\x1b[A amigo\n')   # the arrow calls the last line back
    wait_for('\r\n---------------\r\n> ')
    assert '\x1b[1mMeu caro amigo\x1b[0m' in seen
    os.write(master, b'\x04')
    assert process.wait(timeout=60) == 0
    os.close(master)
