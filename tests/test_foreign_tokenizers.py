"""Tokenizers of others, and texts that they do not give back: said in one line, and no data set is emptied."""

import json
import pickle

import numpy as np
import pytest
from conftest import ECA, TINY

transformers = pytest.importorskip('transformers')
tokenizers = pytest.importorskip('tokenizers')
SAMPLE = f'{ECA}/amostra.txt'
PREPARE = ['data/ecadequeiuroz/prepare.py', 'data/shakespeare/prepare.py', 'data/openwebtext/prepare.py']


def save_words(folder, words, **kwargs):
    """A tokenizer that knows some words, or characters, alone."""
    vocabulary = {word: i for i, word in enumerate(words)}
    unknown = '[UNK]' if '[UNK]' in words else None
    options = {'unk_token': unknown} if unknown else {}
    fast = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, **options))
    fast.pre_tokenizer = kwargs.pop('split', tokenizers.pre_tokenizers.Whitespace())
    fast.normalizer = kwargs.pop('normalizer', None) or tokenizers.normalizers.Sequence([])
    transformers.PreTrainedTokenizerFast(tokenizer_object=fast, unk_token=unknown, **kwargs).save_pretrained(folder)


@pytest.fixture
def good(bare):
    """The repository with data sets that must stay as they are; and the sample's documents."""
    for script in PREPARE:
        for split in ('train', 'val'):
            np.arange(1000, dtype='<u2').tofile((bare / script).parent / f'{split}.bin')
    text = (bare / SAMPLE).read_text(encoding='utf-8')
    lines = [json.dumps({'text': line}) for line in text.splitlines() if line]
    (bare / 'documentos.jsonl').write_text('\n'.join(lines), encoding='utf-8')
    return bare


def assert_refused(workspace, script, tokenizer, says):
    texts = 'documentos.jsonl' if 'openwebtext' in script else SAMPLE
    said = workspace.run(script, f'--tokenizer={tokenizer}', texts, fails=True, real='openwebtext' in script)
    assert says in said
    folder = (workspace / script).parent
    for split in ('train', 'val'):
        assert (np.fromfile(folder / f'{split}.bin', '<u2') == np.arange(1000)).all()
    assert sorted(path.name for path in folder.iterdir()) == ['prepare.py', 'train.bin', 'val.bin']


@pytest.mark.parametrize('script', PREPARE)
def test_a_folder_without_tokenizer_files(good, script):
    config = transformers.GPT2Config(n_layer=1, n_head=1, n_embd=8, n_positions=8, vocab_size=9, bos_token_id=None,
                                     eos_token_id=None)
    transformers.GPT2LMHeadModel(config).save_pretrained(good / 'gpt2-alheio')
    assert_refused(good, script, 'gpt2-alheio', 'tokenizer gpt2-alheio has no tokenizer: tokenizer.json, or')
    said = good.run('sample.py', '--init_from=gpt2-alheio', fails=True)
    assert 'init_from = gpt2-alheio has no tokenizer' in said


@pytest.mark.parametrize('script', PREPARE)
def test_tokenizers_that_lose_the_text(good, script):
    letters = sorted(set((good / SAMPLE).read_text(encoding='utf-8')) - {'ã'})
    each = tokenizers.pre_tokenizers.Split(tokenizers.Regex(r'[\s\S]'), 'isolated')
    save_words(good / 'sem-a', letters, split=each)   # as tools/export.py makes them
    assert_refused(good, script, 'sem-a', "tokenizer sem-a has no token for 'ã' (U+00E3)")
    save_words(good / 'poucas', ['[UNK]', 'the', 'and', 'of', 'que'])
    assert_refused(good, script, 'poucas', 'of the characters of the text, as if it were not made for it')
    nothing = tokenizers.normalizers.Replace(tokenizers.Regex(r'[\s\S]'), '')
    save_words(good / 'nada', ['a', 'b'], normalizer=nothing)
    assert_refused(good, script, 'nada', 'gives back 0% of the characters')
    alike = tokenizers.normalizers.Replace(tokenizers.Regex(r'[\s\S]+'), 'a')
    save_words(good / 'a', ['a', 'b'], normalizer=alike)
    assert_refused(good, script, 'a', 'gives back 0% of the characters')
    save_words(good / 'longe', ['[UNK]', 'que', *map(str, range(70000))])
    assert_refused(good, script, 'longe', 'uint16 ids have room for 65,536')


@pytest.mark.parametrize('script', PREPARE)
def test_a_tokenizer_that_writes_otherwise(good, script):
    """Lower case, no accents, some words unknown: good enough, and said."""
    text = (good / SAMPLE).read_text(encoding='utf-8')
    plain = tokenizers.normalizers.BertNormalizer(strip_accents=True, lowercase=True)
    split = tokenizers.pre_tokenizers.BertPreTokenizer()
    words = sorted({word for word, _ in split.pre_tokenize_str(plain.normalize_str(text))})
    save_words(good / 'simples', ['[UNK]', *words[::2], *words[1::8]], normalizer=plain, split=split)
    texts = 'documentos.jsonl' if 'openwebtext' in script else SAMPLE
    said = good.run(script, '--tokenizer=simples', texts, real=True)
    assert 'tokenizer simples does not know all of the text: ' in said and 'are its token for the unknown' in said
    folder = (good / script).parent
    ids = [np.fromfile(folder / f'{split}.bin', '<u2') for split in ('train', 'val')]
    n_unknown = sum(int((part == 0).sum()) for part in ids)
    assert f'{n_unknown:,} of {sum(map(len, ids)):,} tokens' in said and n_unknown > 100
    with open(folder / 'meta.pkl', 'rb') as f:
        assert pickle.load(f)['vocab_size'] == 1 + len(words[::2]) + len(words[1::8])


def test_ids_with_gaps(good):
    """A tokenizer of few tokens, one of which is 70000."""
    fast = tokenizers.Tokenizer(tokenizers.models.WordLevel({'[UNK]': 0, 'que': 70000}, unk_token='[UNK]'))
    transformers.PreTrainedTokenizerFast(tokenizer_object=fast, unk_token='[UNK]').save_pretrained(good / 'longe')
    assert_refused(good, PREPARE[0], 'longe', 'has 70,001 tokens; uint16 ids have room for 65,536')


def test_an_exported_vocabulary_on_another_text(bare, tmp_path):
    """The character that it lacks is named, and no traceback."""
    bare.run(f'{ECA}/prepare.py', SAMPLE)
    bare.run('train.py', *TINY, '--max_iters=2', '--out_dir=out')
    bare.run('tools/export.py', '--out_dir=out', f'--to={tmp_path}/hf')
    text = (bare / SAMPLE).read_text(encoding='utf-8')
    (bare / 'outro.txt').write_text(text + 'И мир — 漢\n', encoding='utf-8')
    said = bare.run('data/ecadequeiuroz/prepare.py', f'--tokenizer={tmp_path}/hf', 'outro.txt', fails=True)
    assert "has no token for 'И' (U+0418) 'и' (U+0438) 'м' (U+043C) 'р' (U+0440) '漢' (U+6F22); take another" in said
    said = bare.run('data/ecadequeiuroz/prepare.py', f'--tokenizer={tmp_path}/hf', SAMPLE)
    assert 'does not know' not in said and f'val has {len(text) - int(len(text) * 0.9):,} tokens' in said
