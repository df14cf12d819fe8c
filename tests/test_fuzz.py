"""Input that nobody would think of: hypothesis thinks of it. Clean errors or correct results, and nothing else."""

import os
import pickle
import sys

import numpy as np
import pytest
from conftest import REPO
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support import dataset, tokenizer

settings.register_profile('here', deadline=None, max_examples=200, derandomize=True,
                          suppress_health_check=[HealthCheck.function_scoped_fixture])
settings.load_profile('here')
CONFIGURATOR = compile((REPO / 'configurator.py').read_text(encoding='utf-8'), 'configurator.py', 'exec')
DEFAULTS = {'batch_size': 12, 'learning_rate': 6e-4, 'out_dir': 'out', 'bias': False}
VOCABULARY = {'kind': 'char', 'itos': list('\n aãbcçé—')}
anything = st.text(alphabet=st.characters(exclude_characters='\0', exclude_categories=['Cs']))   # that a shell can pass
names = st.sampled_from(['--batch_size', '--learning_rate', '--out_dir', '--bias', '--bach_size', 'batch_size', '-b'])
values = st.one_of(anything, st.integers().map(str), st.floats().map(str), st.sampled_from(['1e3', 'True', '2**9']))


@given(st.lists(st.one_of(anything, st.tuples(names, st.sampled_from(['=', ' ', '==', '']), values).map(''.join)),
                max_size=3))
def test_arguments(tmp_path, args):
    """Each is refused in one line, or sets a value of the right type."""
    script = {**DEFAULTS, '__file__': str(REPO / 'sample.py')}
    old_argv = sys.argv
    old_folder = os.getcwd()
    sys.argv = ['train.py', *args]
    os.chdir(tmp_path)   # no file there to be a config file
    try:
        exec(CONFIGURATOR, script)
    except SystemExit as e:
        assert e.code == 0 or (isinstance(e.code, str) and e.code)
    else:
        assert all(type(script[k]) is type(v) for k, v in DEFAULTS.items())
    finally:
        sys.argv = old_argv
        os.chdir(old_folder)


@given(st.text())
def test_prompts(text):
    """Encoded and decoded they are the same, or their unknown characters are named."""
    encode, decode = tokenizer.get_codec(VOCABULARY)
    unknown = set(text) - set(VOCABULARY['itos'])
    if unknown:
        with pytest.raises(SystemExit) as e:
            encode(text)
        assert all(f'U+{ord(c):04X}' in str(e.value) for c in unknown)
    else:
        assert decode(encode(text)) == text


@given(st.data())
def test_meta_with_flipped_bytes(tmp_path, data):
    """A bit of meta.pkl is wrong: it is refused, or it is a whole vocabulary all the same."""
    itos = dict(enumerate('abcdefgh'))
    whole = pickle.dumps({'vocab_size': 8, 'itos': itos, 'stoi': {c: i for i, c in itos.items()}})
    i = data.draw(st.integers(0, len(whole) - 1))
    bit = data.draw(st.integers(0, 7))
    path = tmp_path / 'meta.pkl'
    path.write_bytes(whole[:i] + bytes([whole[i] ^ 1 << bit]) + whole[i + 1:])
    try:
        meta = tokenizer.load_meta(str(path))
    except SystemExit as e:
        assert 'is not a vocabulary' in str(e) and '\n' not in str(e)
    else:
        encode, decode = tokenizer.get_codec(meta['tokenizer'])
        ids = list(range(meta['vocab_size']))
        assert encode(decode(ids)) == ids


@given(st.binary(max_size=200))
def test_tokens_of_any_bytes(tmp_path, content):
    """As a .bin they are refused, or their every token is known."""
    (tmp_path / 'train.bin').write_bytes(content)
    try:
        n = dataset.count_tokens(str(tmp_path), 'train', 4)
    except SystemExit as e:
        assert 'odd number of bytes' in str(e) or 'needs at least 5' in str(e)
    else:
        assert n == len(content) // 2 > 4
        ids = np.frombuffer(content, dtype='<u2')
        if ids.max() < 300:
            dataset.check_ids(ids, 300, 'here')
        else:
            with pytest.raises(SystemExit, match=f'has the token {ids.max()}, beyond the 300'):
                dataset.check_ids(ids, 300, 'here')
