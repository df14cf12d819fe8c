"""Vocabularies as others make them: of vocab_size alone, of words; trained, sampled from, exported."""

import pickle

import numpy as np
import pytest
from conftest import TINY, load

from support.tokenizer import get_codec

WITH_SPACES = ['o ', 'gato', ' ', 'ga', 'dorme', '.\n', 'no', ' telhado', 'g', 't', '\n']
WITHOUT = ['o', 'gato', 'dorme', 'no', 'telhado', '.', 'ga']
RUN = [*TINY, '--dataset=palavras', '--max_iters=3', '--eval_iters=0', '--eval_interval=3']


@pytest.fixture
def prepare(bare):
    """prepare(meta): a data set of random ids below vocab_size, with this meta.pkl."""
    def write(meta):
        folder = bare / 'data/palavras'
        folder.mkdir(exist_ok=True)
        ids = np.random.default_rng(0).integers(meta['vocab_size'], size=9000).astype('<u2')
        ids[:8000].tofile(folder / 'train.bin')
        ids[8000:].tofile(folder / 'val.bin')
        (folder / 'meta.pkl').write_bytes(pickle.dumps(meta))
        return bare
    return write


def words_meta(words):
    return {'vocab_size': len(words), 'itos': dict(enumerate(words)), 'stoi': {w: i for i, w in enumerate(words)}}


def test_size_alone(prepare, tmp_path):
    """nanoGPT trains with it, and so do we: without text, which is said once."""
    bare = prepare({'vocab_size': 77})
    said = bare.run('train.py', *RUN, '--out_dir=out')
    assert said.count('meta.pkl does not say what its tokens mean: no text, no bits per character') == 1
    assert 'it writes' not in said and 'bits per character,' not in said and 'next: python sample.py' in said
    checkpoint = load(bare / 'out/ckpt.pt')
    assert checkpoint['model_args']['vocab_size'] == 77 and checkpoint['tokenizer'] == {'kind': 'ids'}
    assert 'done: 5' in bare.run('train.py', *RUN, '--out_dir=out', '--max_iters=5', '--init_from=resume')
    assert "the text of the model's tokens is not known" in bare.run('sample.py', '--out_dir=out', fails=True)
    assert 'export a file instead' in bare.run('tools/export.py', '--out_dir=out', f'--to={tmp_path}/hf', fails=True)
    assert 'wrote' in bare.run('tools/export.py', '--out_dir=out', f'--to={tmp_path}/m.pt')
    bare = prepare({'vocab_size': 78})
    said = bare.run('train.py', *RUN, '--out_dir=out', '--init_from=resume', fails=True)
    assert 'is not that of the model' in said


@pytest.mark.parametrize('words', [WITH_SPACES, WITHOUT])
def test_words(prepare, tmp_path, words):
    transformers = pytest.importorskip('transformers')
    bare = prepare(words_meta(words))
    said = bare.run('train.py', *RUN, '--out_dir=out', '--sample_chars=40')
    assert 'it writes' in said and 'bits per character' in said
    start = 'gato dorme no telhado' if words == WITHOUT else 'gato dorme telhado.\n'
    sample = ['sample.py', '--out_dir=out', '--num_samples=1', '--max_new_tokens=20', '--device=cpu']
    text = bare.run(*sample, f'--start={start}')
    assert text.startswith(start)
    written = text.removesuffix('\n---------------\n')
    if words == WITHOUT:
        assert set(written.split()) <= set(words) and len(written.split()) == 24
    assert bare.run(*sample)   # the default prompt
    assert 'never seen' in bare.run(*sample, '--start=gato xadrez', fails=True)
    assert 'no words that the model knows' in bare.run(*sample, '--start=dor', fails=True)
    encode, decode = get_codec(load(bare / 'out/ckpt.pt')['tokenizer'])
    assert decode(encode(start)) == start and decode(encode('gato')) == 'gato' and len(encode('gato')) == 1
    bare.run('tools/export.py', '--out_dir=out', f'--to={tmp_path}/hf')
    hf = transformers.AutoTokenizer.from_pretrained(tmp_path / 'hf')
    for prompt in (start, 'gato', written):
        assert hf(prompt).input_ids == encode(prompt) and hf.decode(encode(prompt)) == decode(encode(prompt))
    assert 'dorme' in bare.run('sample.py', f'--init_from={tmp_path}/hf', f'--start={start}', '--num_samples=1',
                               '--max_new_tokens=5')


def test_prompts_of_words():
    encode, decode = get_codec({'kind': 'char', 'itos': WITHOUT})
    assert decode(encode('  gato\n dorme ')) == 'gato dorme' and decode(encode('gao')) == 'ga o'
    assert encode('\n') == encode(' \t') == [0]
    encode, decode = get_codec({'kind': 'char', 'itos': ['ab', 'a', 'bc', 'c']})   # the longest first: no way back
    assert decode(encode('ab c')) == 'ab c'
    with pytest.raises(SystemExit, match=r"has no words that the model knows: 'b'"):
        encode('b')


def test_itos_alone_and_as_a_list(prepare):
    for meta in ({'vocab_size': 3, 'itos': ['a', 'b', '\n']}, {'vocab_size': 3, 'itos': {2: '\n', 0: 'a', 1: 'b'}}):
        bare = prepare(meta)
        bare.run('train.py', *RUN, '--out_dir=out')
        assert load(bare / 'out/ckpt.pt')['tokenizer'] == {'kind': 'char', 'itos': ['a', 'b', '\n']}
