"""Vocabularies: characters there and back, files that lie, files that would run a command."""

import json
import os
import pickle
import unicodedata

import pytest

from support import tokenizer


class Payload:
    """What a stranger's pickle would do: run a command."""
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}',)


@pytest.mark.parametrize('where', ['stoi', 'tokenizer'])
def test_payloads_do_not_run(tmp_path, where):
    ran = tmp_path / 'ran'
    meta = {'vocab_size': 1, 'itos': {0: 'a'}, 'stoi': {'a': 0}, where: Payload(ran)}
    (tmp_path / 'meta.pkl').write_bytes(pickle.dumps(meta))
    with pytest.raises(SystemExit, match=r'not a vocabulary \(it asks for posix.system\)'):
        tokenizer.load_meta(str(tmp_path / 'meta.pkl'))
    assert not ran.exists()


@pytest.mark.parametrize('content', [b'', b'not a vocabulary', pickle.dumps({'model': 3}, 2), pickle.dumps([1, 2], 2),
                                     pickle.dumps({'vocab_size': 3, 'tokenizer': {'kind': 'char'}})])
def test_files_that_are_something_else(tmp_path, content):
    (tmp_path / 'meta.pkl').write_bytes(content)
    with pytest.raises(SystemExit, match='not a vocabulary'):
        tokenizer.load_meta(str(tmp_path / 'meta.pkl'))


@pytest.mark.parametrize('meta', [
    {'vocab_size': 3, 'itos': {0: 'a', 1: 'b'}, 'stoi': {'a': 0, 'b': 1}},
    {'vocab_size': 2, 'itos': {0: 'a', 1: 'b'}, 'stoi': {'a': 1, 'b': 0}},
    {'vocab_size': 2, 'itos': {0: 'a', 2: 'b'}, 'stoi': {'a': 0, 'b': 2}},
    {'vocab_size': 2, 'itos': {0: 'a', 1: 'a'}, 'stoi': {'a': 1}},
    {'vocab_size': 1, 'itos': {0: 'a', 1: 'b'}, 'stoi': {'a': 0}},
])
def test_vocabulary_that_contradicts_itself(tmp_path, meta):
    (tmp_path / 'meta.pkl').write_bytes(pickle.dumps(meta))
    with pytest.raises(SystemExit, match='not a vocabulary'):
        tokenizer.load_meta(str(tmp_path / 'meta.pkl'))


def test_white_space_without_a_token():
    """As in BERT's vocabularies; a text can begin all the same."""
    tokenizers = pytest.importorskip('tokenizers')
    hf = tokenizers.Tokenizer(tokenizers.models.WordLevel({'[UNK]': 0, 'meu': 1, 'caro': 2}, unk_token='[UNK]'))
    hf.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    data = {'kind': 'hf', 'json': hf.to_str(), 'eos': None}
    encode, _ = tokenizer.get_codec(data)
    assert encode('meu\ncaro') == [1, 2] and encode('\n') == [0] and tokenizer.cached_decoder(data)[1] == 0


def test_char_codec_round_trip():
    encode, decode = tokenizer.get_codec({'kind': 'char', 'itos': list('\n açã—')})
    assert decode(encode('ação—\n'.replace('o', 'a'))) == 'açãa—\n'
    with pytest.raises(SystemExit, match=r"'o' \(U\+006F\)"):
        encode('ação')


def test_prompt_for_a_vocabulary_with_accents_apart():
    encode, decode = tokenizer.get_codec({'kind': 'char', 'itos': list('aco\u0303\u0327')})
    assert decode(encode('ação')) == unicodedata.normalize('NFD', 'ação')
    with pytest.raises(SystemExit, match='U\\+00E9'):   # named as it was typed
        encode('aé')


def test_default_prompt_where_there_is_no_new_line():
    encode, _ = tokenizer.get_codec({'kind': 'char', 'itos': ['a', 'b']})
    assert encode('\n') == [0]
    with pytest.raises(SystemExit, match='never seen'):
        encode('a\n')


def test_a_tokenizer_that_pads():
    """To any length; and one that cuts texts off."""
    tokenizers = pytest.importorskip('tokenizers')
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({'a': 0, 'b': 1}))
    words.enable_padding(length=10**6, pad_token='a')
    words.enable_truncation(2)
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    record = {'kind': 'hf', 'json': words.to_str(), 'eos': None}
    assert json.loads(record['json'])['padding'] and json.loads(record['json'])['truncation']
    encode, _ = tokenizer.get_codec(record)
    assert encode('b a b') == [1, 0, 1]
