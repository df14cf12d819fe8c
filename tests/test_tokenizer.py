"""Tokenizers: round trips, the real GPT-2 vocabulary without a network, vocabularies that lie."""

import pickle

import pytest

import tokenizer

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


def test_char_codec_round_trip():
    encode, decode = tokenizer.get_codec({'kind': 'char', 'itos': list('\n açã—')})
    assert decode(encode('ação—\n'.replace('o', 'a'))) == 'açãa—\n'
    with pytest.raises(SystemExit, match=r"'o' \(U\+006F\)"):
        encode('ação')
