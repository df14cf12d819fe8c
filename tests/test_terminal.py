"""What sample.py shows on a terminal, and the prompt that it reads: lines fit, samples grow, no word is broken."""

import io
import random
import re
import sys

import pytest
from conftest import TINY, Terminal

from support import terminal

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
