"""sample.py: prompts, their mistakes, and checkpoints that nanoGPT wrote."""

import io
import sys
import unicodedata

import pytest
import torch
from conftest import ECA, TINY, load

from tokenizer import get_codec, read_prompt


@pytest.fixture(scope='module')
def trained(prepared):
    prepared.run('train.py', *TINY, '--max_iters=5', '--out_dir=out-sample')
    return prepared


def sample(workspace, *args, out_dir='out-sample', **kwargs):
    return workspace.run('sample.py', f'--out_dir={out_dir}', '--num_samples=2', '--max_new_tokens=40', *args, **kwargs)


def test_unknown_character_is_named(trained):
    message = sample(trained, '--start=Olá 漢 mundo ☃', fails=True)
    assert "'漢' (U+6F22)" in message and "'☃' (U+2603)" in message and 'KeyError' not in message


def test_prompt_from_file(trained, tmp_path):
    (tmp_path / 'prompt.txt').write_text('Minha tia:\n', encoding='utf-8')
    assert sample(trained, f'--start=FILE:{tmp_path}/prompt.txt').startswith('Minha tia:\n')
    assert 'cannot be read: No such file' in sample(trained, '--start=FILE:nada.txt', fails=True)
    (tmp_path / 'latin1.txt').write_bytes('ação'.encode('latin-1'))
    assert 'it is not UTF-8' in sample(trained, f'--start=FILE:{tmp_path}/latin1.txt', fails=True)


@pytest.mark.parametrize('piped', ['Meu caro\namigo\n', 'Meu caro\r\namigo\r\n', '\ufeffMeu caro\namigo'])
def test_prompt_from_a_pipe(monkeypatch, piped):
    """As Linux's echo, Windows's, and an editor's file put it there."""
    monkeypatch.setattr(sys, 'stdin', io.TextIOWrapper(io.BytesIO(piped.encode())))
    assert read_prompt('-') == 'Meu caro\namigo'


def test_prompt_with_accents_apart(trained):
    """As a Mac may write them: a letter, then its accent."""
    assert sample(trained, '--start=' + unicodedata.normalize('NFD', 'ação')).startswith('ação')


def test_prompt_for_a_vocabulary_with_accents_apart():
    encode, decode = get_codec({'kind': 'char', 'itos': list('aco\u0303\u0327')})
    assert decode(encode('ação')) == unicodedata.normalize('NFD', 'ação')
    with pytest.raises(SystemExit, match='U\\+00E9'):   # named as it was typed
        encode('aé')


def test_default_prompt_where_there_is_no_new_line():
    encode, _ = get_codec({'kind': 'char', 'itos': ['a', 'b']})
    assert encode('\n') == [0]
    with pytest.raises(SystemExit, match='never seen'):
        encode('a\n')


def test_greedy_does_not_depend_on_the_seed(trained):
    greedy = sample(trained, '--temperature=0')
    assert greedy == sample(trained, '--temperature=0.0', '--seed=5')
    assert len(set(greedy.split('\n---------------\n'))) == 2   # both samples the same, and the empty end


def test_prompt_longer_than_the_window(trained):
    prompt = 'uma carta muito comprida ' * 10
    assert sample(trained, f'--start={prompt}').startswith(prompt)



def test_checkpoint_from_nanogpt(trained):
    """nanoGPT knows no tokenizer record, and its compiled models carry a prefix: the data set's meta.pkl serves."""
    checkpoint = load(trained / 'out-sample' / 'ckpt.pt')
    nanogpt = {'model': {f'_orig_mod.{k}': v for k, v in checkpoint['model'].items()},
               'optimizer': checkpoint['optimizer'][0], 'model_args': checkpoint['model_args'],
               'iter_num': 5, 'best_val_loss': torch.tensor(3.0),   # nanoGPT keeps the loss as a tensor
               'config': {'dataset': 'ecadequeiuroz_char'}}
    (trained / 'out-nano').mkdir()
    torch.save(nanogpt, trained / 'out-nano' / 'ckpt.pt')
    assert sample(trained, out_dir='out-nano') == sample(trained)
    resume = ['train.py', *TINY, '--max_iters=7', '--init_from=resume']
    message = trained.run(*resume, '--out_dir=out-nano', fails=True)
    assert 'was trained with another optimizer than muon' in message   # nanoGPT has AdamW alone


def test_character_checkpoint_without_its_vocabulary(trained, bare):
    checkpoint = load(trained / 'out-sample' / 'ckpt.pt')
    (bare / 'out').mkdir()
    torch.save({k: v for k, v in checkpoint.items() if k != 'tokenizer'}, bare / 'out' / 'ckpt.pt')
    said = sample(bare, out_dir='out', fails=True)
    assert 'has no vocabulary' in said and 'data/ecadequeiuroz_char/meta.pkl is missing or another' in said


def test_tokenizer_travels_with_the_checkpoint(trained, bare):
    """Sampling needs ckpt.pt alone."""
    (bare / 'out').mkdir()
    (bare / 'out' / 'ckpt.pt').write_bytes((trained / 'out-sample' / 'ckpt.pt').read_bytes())
    assert not (bare / ECA / 'meta.pkl').exists()
    assert sample(bare, out_dir='out') == sample(trained)


def test_console_that_cannot_show_a_character(trained):
    text = sample(trained, '--start=«', env={'PYTHONIOENCODING': 'ascii'})
    assert text.startswith('\\xab')
