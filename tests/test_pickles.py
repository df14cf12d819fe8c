"""meta.pkl from strangers: what nanoGPT and prepare.py write is read in every protocol; what would take all memory,
all time or the stack is refused in one line, at once."""

import os
import pickle
import resource
import struct
import time

import pytest

from support import pickles, tokenizer

CHARS = ['\n', ' ', 'a', 'é', '𝒜', '\xa0']
META = {'vocab_size': 6, 'itos': dict(enumerate(CHARS)), 'stoi': {c: i for i, c in enumerate(CHARS)}}
MANY = [1, -1, 2**40, -2**63, 2.5, None, True, False, 'x' * 300, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [], {},
        {1: 'b', -7: ''}]
VALUES = [META, {'vocab_size': 3}, {'a': MANY}, list(range(3000)), 'ação', 70000]


@pytest.mark.parametrize('protocol', range(6))
@pytest.mark.parametrize('value', VALUES)
def test_plain_values(value, protocol):
    content = pickle.dumps(value, protocol)
    assert pickles.load_plain(content) == value
    assert pickles.load_plain(pickle.dumps(pickle.loads(content), protocol)) == value


@pytest.mark.parametrize('protocol', range(6))
def test_vocabularies(tmp_path, protocol):
    path = tmp_path / 'meta.pkl'
    path.write_bytes(pickle.dumps(META, protocol))
    assert tokenizer.load_meta(str(path)) == {**META, 'tokenizer': {'kind': 'char', 'itos': CHARS}}
    assert tokenizer.load_tokenizer(str(tmp_path)) == ({'kind': 'char', 'itos': CHARS}, 6)
    tokenizers = pytest.importorskip('tokenizers')
    words = {f'w{i}': i for i in range(65)}
    record = {'kind': 'hf', 'json': tokenizers.Tokenizer(tokenizers.models.WordLevel(words)).to_str(), 'eos': None}
    path.write_bytes(pickle.dumps({'vocab_size': 65, 'tokenizer': record}, protocol))
    assert tokenizer.load_tokenizer(str(tmp_path)) == (record, 128)


def test_the_largest_vocabulary_is_read_soon(tmp_path):
    chars = [chr(0x10000 + i) for i in range(65536)]
    meta = {'vocab_size': 65536, 'itos': dict(enumerate(chars)), 'stoi': {c: i for i, c in enumerate(chars)}}
    for protocol in (0, 4):
        (tmp_path / 'meta.pkl').write_bytes(pickle.dumps(meta, protocol))
        started = time.process_time()
        assert tokenizer.load_meta(str(tmp_path / 'meta.pkl'))['vocab_size'] == 65536
        assert time.process_time() - started < 10


def deep_list(n):
    return b']' * n + b'a' * (n - 1) + b'.'


def in_dict(value):
    return b"}(X\x0a\x00\x00\x00vocab_sizeK\x01X\x04\x00\x00\x00itos" + value + b'u.'


BOMBS = {
    'a huge place in the memo': b'Nr\xff\xff\xff\x7f.',
    'a huge place in the memo, of protocol 0': b'Np99999999999999999\n.',
    'a tuple doubled 60 times': b'N' + b'\x85q\x00h\x00h\x00\x86' + b'q\x00h\x00h\x00\x86' * 60 + b'.',
    'a tuple doubled 60 times as a key': b'}N' + b'2\x86' * 60 + b'K\x01s.',
    'a tuple doubled 60 times in a vocabulary': in_dict(b'Nq\x00' + b'0h\x00h\x00\x86q\x00' * 60),
    'a list doubled 60 times': in_dict(b']q\x00' + b'0](h\x00h\x00eq\x00' * 60),
    'lists a million deep': deep_list(400_000),
    'tuples a million deep': b'N' + b'\x85' * 900_000 + b'.',
    'dicts a million deep': b'}(' * 300_000 + b'K\x01K\x02u' + b'u' * 300_000 + b'.',
    'marks a million deep': b'(' * 999_999 + b'.',
    'a list in itself': b']q\x00h\x00a.',
    'a dict in itself': b'}q\x00X\x01\x00\x00\x00ah\x00s.',
    'an integer of a million digits': in_dict(b'\x8b' + struct.pack('<i', 500_000) + b'\x7f' * 500_000),
    'an integer in words': in_dict(b'I' + b'9' * 1_000_000 + b'\n'),
    'a long in words': in_dict(b'L' + b'9' * 1_000_000 + b'L\n'),
    'a string that says it has 2 GB': in_dict(b'X\xff\xff\xff\x7fa'),
    'a string that says it has 2^63 bytes': in_dict(b'\x8d' + b'\xff' * 7 + b'\x7fa'),
    'bytes that say they have 2 GB': in_dict(b'\x8e' + b'\xff\xff\xff\x7f\0\0\0\0a'),
    'a bytearray of 2^40': in_dict(b'\x96' + struct.pack('<Q', 2**40)),
    'a frame of 2^60': b'\x80\x04\x95' + struct.pack('<Q', 2**60) + b'}.',
    'a string of 60 million': in_dict(b'X' + struct.pack('<I', 60_000_000) + b'a' * 60_000_000),
    'ten million instructions': b'N0' * 5_000_000 + b'N.',
    'a file of 70 million bytes': b'N0' * 35_000_000 + b'N.',
    'a class': b'cos\nsystem\n(S\'true\'\ntR.',
    'a class, of protocol 4': b'\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.',
    'a class, of protocol 0': b'(S\'true\'\nios\nsystem\n.',
    'a class whose name is a tuple doubled 60 times': b'N' + b'q\x00h\x00\x86' * 60 + b'q\x00h\x00\x93.',
    'an extension': b'\x82\x01.',
    'a persistent id': b'Pabc\n.',
    'an object built': b'}}b.',
    'a set': b'\x8f.',
    'the stack runs empty': b'0.',
    'a key alone': b'}(K\x01u.',
    'no end': b'}',
    'nothing': b'',
    'a vocabulary of 2^40': pickle.dumps({'vocab_size': 2**40}),
    'a vocabulary of none': pickle.dumps({'vocab_size': 0}),
    'a vocabulary of half': pickle.dumps({'vocab_size': 2.5}),
    'a vocabulary of true': pickle.dumps({'vocab_size': True, 'itos': ['a'], 'stoi': {'a': 0}}),
    'a word that is none': pickle.dumps({'vocab_size': 1, 'itos': [7], 'stoi': {7: 0}}),
    'half a character': pickle.dumps({'vocab_size': 1, 'itos': ['\ud800'], 'stoi': {'\ud800': 0}}),
    'an empty word': pickle.dumps({'vocab_size': 1, 'itos': [''], 'stoi': {'': 0}}),
    'itos as a string': pickle.dumps({'vocab_size': 2, 'itos': 'ab', 'stoi': {'a': 0, 'b': 1}}),
    'an unknown tokenizer': pickle.dumps({'vocab_size': 2, 'tokenizer': {'kind': 'x'}}),
    'a tokenizer of numbers': pickle.dumps({'vocab_size': 2, 'tokenizer': {'kind': 'hf', 'json': 7, 'eos': None}}),
    'tokens that are not bytes': pickle.dumps({'vocab_size': 2, 'tokenizer': {'kind': 'gpt2', 'bpe': ['é', '日']}}),
}


@pytest.mark.parametrize('name', BOMBS)
def test_bombs(tmp_path, name):
    path = tmp_path / 'meta.pkl'
    path.write_bytes(BOMBS[name])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    with pytest.raises(SystemExit) as e:
        tokenizer.load_meta(str(path))
    said = str(e.value)
    assert 'meta.pkl is not a vocabulary' in said and len(said) < 400 and said.isprintable()
    assert time.process_time() - started < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600_000   # kilobytes


def test_names_reach_no_terminal_raw(tmp_path):
    (tmp_path / 'meta.pkl').write_bytes(b'\x80\x04\x8c\x08os\x1b]0;x\x07\x8c\x06sys\ntm\x93.')
    with pytest.raises(SystemExit) as e:
        tokenizer.load_meta(str(tmp_path / 'meta.pkl'))
    assert r'it asks for os\x1b]0;x\x07.sys\ntm)' in str(e.value)


def test_what_is_no_file(tmp_path):
    """A folder, a named pipe, a link to nothing: one line each, and no waiting."""
    path = tmp_path / 'meta.pkl'
    path.mkdir()
    with pytest.raises(SystemExit, match='meta.pkl cannot be read: it is a'):
        tokenizer.load_meta(str(path))
    path.rmdir()
    if hasattr(os, 'mkfifo'):
        os.mkfifo(path)
        with pytest.raises(SystemExit, match='meta.pkl cannot be read: it is a'):
            tokenizer.load_meta(str(path))
        path.unlink()
    path.symlink_to(tmp_path / 'nothing')
    with pytest.raises(SystemExit, match='meta.pkl cannot be read: No such file'):
        tokenizer.load_meta(str(path))
    path.unlink()
    assert tokenizer.load_meta(str(path)) is None


def test_what_nobody_may_read(tmp_path, monkeypatch):
    path = tmp_path / 'meta.pkl'
    path.write_bytes(pickle.dumps(META))
    path.chmod(0)
    if os.geteuid() == 0:   # root reads everything
        def refuse(*args):
            raise PermissionError(13, 'Permission denied', str(path))
        monkeypatch.setattr('builtins.open', refuse)
    with pytest.raises(SystemExit, match='meta.pkl cannot be read: Permission denied'):
        tokenizer.load_meta(str(path))


@pytest.mark.parametrize('vocab_size, record, says', [
    (65, {'kind': 'hf', 'json': '{}', 'eos': None}, 'json of the tokenizer cannot be read'),
    (300, {'kind': 'gpt2'}, '50,257 tokens, more than the 320 that the model knows'),
])
def test_tokenizers_whose_checkpoint_could_not_be_resumed(tmp_path, vocab_size, record, says):
    """Found out before the training, not after it."""
    pytest.importorskip('tokenizers')
    (tmp_path / 'meta.pkl').write_bytes(pickle.dumps({'vocab_size': vocab_size, 'tokenizer': record}))
    with pytest.raises(SystemExit, match=says):
        tokenizer.load_meta(str(tmp_path / 'meta.pkl'))
