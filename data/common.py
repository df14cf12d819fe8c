"""
What several prepare.py scripts do: read text, download, write files whole or not at all, turn characters into ids.
Needs numpy and tqdm only.
"""

import os
import pickle
import urllib.request

import numpy as np
from tqdm import tqdm

MIN_CHARS = 5120   # val.bin gets a tenth of the text, and should hold at least two blocks of 256


def fail(message):
    """End the script with one line on stderr."""
    raise SystemExit(f'prepare.py: {message}')


def read_text(path):
    """The whole file as UTF-8, newlines untouched."""
    try:
        with open(path, 'rb') as f:
            return f.read().decode('utf-8')
    except UnicodeDecodeError as e:
        fail(f'{path} is not UTF-8: byte {e.object[e.start]:#04x} at offset {e.start:,}. If it is Latin-1, as older '
             'Portuguese texts often are, convert it: '
             f'iconv -f latin1 -t utf-8 {path} > {os.path.splitext(path)[0]}-utf8.txt')
    except OSError as e:
        fail(f'{path} cannot be read: {e.strerror}')


def download(url, max_bytes, timeout_s=30):
    """The bytes behind url, with a progress bar. Raises OSError for what did not come, or not whole."""
    request = urllib.request.Request(url, headers={'User-Agent': 'MyNanoGPT'})
    with urllib.request.urlopen(request, timeout=timeout_s) as response:
        expected = int(response.headers.get('Content-Length') or 0)
        data = bytearray()
        with tqdm(total=expected or None, unit='B', unit_scale=True, desc='download', disable=None) as bar:
            while chunk := response.read(1 << 16):
                data += chunk
                bar.update(len(chunk))
                if len(data) > max_bytes:
                    raise OSError(f'more than {max_bytes:,} bytes came, which cannot be right')
    if expected and len(data) != expected:
        raise OSError(f'it broke off after {len(data):,} of {expected:,} bytes')
    return bytes(data)


def write_files(folder, contents):
    """Write {name: bytes or array} into folder. No file changes before all of them are on the disk."""
    temporary = {}
    try:
        for name, content in contents.items():
            temporary[name] = os.path.join(folder, f'{name}.{os.getpid()}.tmp')
            with open(temporary[name], 'wb') as f:
                f.write(content)
                f.flush()
                os.fsync(f.fileno())
        for name, path in temporary.items():
            os.replace(path, os.path.join(folder, name))
    finally:
        for path in temporary.values():
            if os.path.exists(path):
                os.remove(path)


def encode_chars(text):
    """text -> (ids as a uint16 array, list of its distinct characters in order); an id is a place in that list."""
    step = 1 << 18   # in pieces, so that four bytes a character never stand in memory for the whole text

    def code_points(start):
        return np.frombuffer(text[start:start + step].encode('utf-32-le'), dtype='<u4')

    is_used = np.zeros(0x110000, dtype=bool)
    for start in range(0, len(text), step):
        is_used[code_points(start)] = True
    chars = np.flatnonzero(is_used)
    if len(chars) > 65536:
        fail(f'the text has {len(chars):,} distinct characters; uint16 ids have room for 65,536')
    id_of = np.zeros(0x110000, dtype='<u2')
    id_of[chars] = np.arange(len(chars))
    ids = np.empty(len(text), dtype='<u2')
    for start in range(0, len(text), step):
        ids[start:start + step] = id_of.take(code_points(start))   # indexing with [] is four times slower
    return ids, [chr(c) for c in chars]


def write_char_dataset(text, folder):
    """Write train.bin (the first 90 %), val.bin (the rest) and meta.pkl into folder, and say what they hold."""
    if len(text) < MIN_CHARS:
        fail(f'the text has {len(text):,} characters, too few to train on: at least {MIN_CHARS:,} are needed')
    ids, chars = encode_chars(text)
    n = int(len(ids) * 0.9)
    meta = {'vocab_size': len(chars), 'itos': dict(enumerate(chars)), 'stoi': {c: i for i, c in enumerate(chars)}}
    try:
        write_files(folder, {'train.bin': ids[:n], 'val.bin': ids[n:], 'meta.pkl': pickle.dumps(meta)})
    except OSError as e:
        fail(f'{folder} cannot be written to: {e.strerror}; its files are as they were')
    print(f'length of dataset in characters: {len(ids):,}')
    print('all the unique characters:', repr(''.join(chars[:500])) + (' ...' if len(chars) > 500 else ''))
    print(f'vocab size: {len(chars):,}')
    print(f'train has {n:,} tokens')
    print(f'val has {len(ids) - n:,} tokens')
