"""
Data sets: train.bin and val.bin, token ids as raw uint16, and meta.pkl, their vocabulary. Written by the prepare.py
scripts, with what those share, and read by train.py. Needs numpy and tqdm; tokens of words need tiktoken or
transformers.
"""

import argparse
import os
import pickle
import re
import shlex
import sys
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from tqdm import tqdm

from support.errors import catch_crashes, fail, script_doc
from support.files import replacing
from support.tokenizer import GPT2_END, fits, gpt2_encoding, hf_record, load_hf_tokenizer

DATA = Path(__file__).resolve().parent.parent / 'data'
MIN_CHARS = 5120   # val.bin gets a tenth of the text, and should hold at least two blocks of 256
TOKENIZER = dict(default='gpt2', type=os.path.expanduser,   # of --tokenizer
                 help="'gpt2', or a Hugging Face tokenizer's Hub id or folder")


# -----------------------------------------------------------------------------
# reading data sets

def find_dataset(name, block_size):
    """The folder of a data set in data/. Exits unless each of its two .bin files holds a window of block_size tokens
    and the one that comes next."""
    data_dir = os.path.join(DATA, name)
    for split in ('train', 'val'):
        count_tokens(data_dir, split, block_size)
    return data_dir


def count_tokens(data_dir, split, block_size):
    """The number of tokens in train.bin or val.bin. Exits if there are too few."""
    path = os.path.join(data_dir, f'{split}.bin')
    if not os.path.exists(path):
        there = sorted(p.parent.name for p in DATA.glob('*/prepare.py'))
        name = os.path.basename(os.path.normpath(data_dir))
        advice = ''
        if name in there and os.path.abspath(data_dir) == str(DATA / name):
            advice = f'run python data/{name}/prepare.py first, or '
        fail(f'there is no {path}; {advice}choose a --dataset of: {" ".join(there)}')
    n_bytes = os.path.getsize(path)
    n_tokens = n_bytes // 2
    if n_bytes % 2:
        fail(f'{path} has an odd number of bytes, and tokens have two each; prepare it again')
    if n_tokens <= block_size:
        fail(f'{path} has {n_tokens:,} tokens, block_size = {block_size} needs at least {block_size + 1:,}; take a '
             'longer text or a smaller block_size')
    return n_tokens


def check_ids(ids, vocab_size, data_dir):
    """Exit if one of the ids (an array) is not in the model's vocabulary."""
    if ids.max() >= vocab_size:
        fail(f'{data_dir} has the token {ids.max()}, beyond the {vocab_size} that the model knows; prepare it again')


def check_vocabulary(data_dir, data_tokenizer, data_vocab_size, model_tokenizer, model_vocab_size):
    """Exit unless the data set was prepared with the model's tokenizer. Both tokenizers are records. Of large .bin
    files only a part is read: the first and the last million tokens, and some thousand between."""
    is_same = all(data_tokenizer.get(k) == model_tokenizer.get(k) for k in ('kind', 'itos', 'json'))
    if not is_same or not fits(data_tokenizer, data_vocab_size, model_vocab_size):
        fail(f'the vocabulary in {data_dir} is not that of the model; prepare the text with the same one')
    for split in ('train', 'val'):
        ids = np.memmap(os.path.join(data_dir, f'{split}.bin'), dtype=np.uint16, mode='r')
        for part in (ids[:10**6], ids[-10**6:], ids[::len(ids) // 1000 + 1]):
            check_ids(part, model_vocab_size, data_dir)


# -----------------------------------------------------------------------------
# the prepare.py scripts: their command line, and the text

def begin():
    """What every prepare.py does first: install crash handling, and print each line at once."""
    catch_crashes()
    sys.stdout.reconfigure(line_buffering=True)


def command_line(doc, argument='texts', help='text files, UTF-8'):
    """The argparse parser of a prepare.py that takes files; --help shows doc, a mistake is one line."""
    doc = doc or script_doc()   # with python -OO
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(argument, nargs='*', type=os.path.expanduser, help=help)
    parser.error = lambda message: fail(f'{message}; see --help')
    return parser


def read_text(path):
    """The whole file as UTF-8, newlines untouched."""
    try:
        with open(path, 'rb') as f:
            return f.read().decode('utf-8')
    except UnicodeDecodeError as e:
        advice = how_to_convert(path, e.object)
        fail(f'{path} is not UTF-8: byte {e.object[e.start]:#04x} at offset {e.start:,}. {advice}')
    except OSError as e:
        fail(f'{path} cannot be read: {e.strerror}')


def how_to_convert(path, content):
    """How to make a text UTF-8 that is something else."""
    is_utf16 = content[:2] in (b'\xff\xfe', b'\xfe\xff')
    guess = 'UTF-16' if is_utf16 else 'from Windows, or old'
    encoding = 'utf-16' if is_utf16 else 'cp1252'
    old = shlex.quote(path)
    new = shlex.quote(os.path.splitext(path)[0] + '-utf8.txt')
    how = f'iconv -f {encoding} -t utf-8 {old} > {new}, and take the old one away'
    if os.name == 'nt':
        how = 'open it in Notepad, and save it as UTF-8'
    return f'If it is {guess}, convert it: {how}'


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


def find_text(paths, input_path, url, max_bytes=200_000_000):
    """The text of the files in paths; without any, of input_path, which is first downloaded if it is not there."""
    if not paths and not os.path.exists(input_path):
        print(f'downloading {url}')
        try:
            data = download(url, max_bytes)
            if len(data.decode('utf-8')) < MIN_CHARS:
                raise ValueError(f'it has {len(data):,} bytes only')
            write_files(os.path.dirname(input_path), {os.path.basename(input_path): data})
        except (OSError, ValueError) as e:
            fail(f'{url} could not be downloaded ({e}); save it as {input_path} and run this again')
    print('text:', ' + '.join(paths or [input_path]))
    return ''.join(read_text(path) for path in paths or [input_path])


def check_length(text):
    """Exit if a text is too short to train on."""
    if len(text) < MIN_CHARS:
        fail(f'the text has {len(text):,} characters, too few to train on: at least {MIN_CHARS:,} are needed')


# -----------------------------------------------------------------------------
# characters

def write_char_dataset(text, folder):
    """Write train.bin (the first 90 % of the characters), val.bin (the rest) and meta.pkl into folder, and print what
    they hold."""
    check_length(text)
    ids, chars = encode_chars(text)
    n = int(len(ids) * 0.9)
    meta = {'vocab_size': len(chars), 'itos': dict(enumerate(chars)), 'stoi': {c: i for i, c in enumerate(chars)}}
    write_token_files(folder, ids[:n], ids[n:], meta)
    print(f'length of dataset in characters: {len(ids):,}')
    print('all the unique characters:', repr(''.join(chars[:500])) + (' ...' if len(chars) > 500 else ''))
    print(f'vocab size: {len(chars):,}')
    print(f'train has {n:,} tokens')
    print(f'val has {len(ids) - n:,} tokens')


def encode_chars(text):
    """text -> (ids as a uint16 array, the list of its distinct characters in order); an id is a place in that
    list."""
    step = 1 << 18   # in pieces, so that four bytes a character are never in memory for the whole text

    def code_points(start):
        return np.frombuffer(text[start:start + step].encode('utf-32-le'), dtype='<u4')

    is_used = np.zeros(0x110000, dtype=bool)   # by code point; there are no more in Unicode
    for start in range(0, len(text), step):
        is_used[code_points(start)] = True
    chars = np.flatnonzero(is_used)
    if len(chars) > 65536:
        fail(f'the text has {len(chars):,} distinct characters; uint16 ids have room for 65,536')
    id_of = np.zeros(0x110000, dtype='<u2')
    id_of[chars] = np.arange(len(chars))
    ids = np.empty(len(text), dtype='<u2')
    for start in range(0, len(text), step):
        ids[start:start + step] = id_of.take(code_points(start))   # four times faster than id_of[...]
    return ids, [chr(c) for c in chars]


# -----------------------------------------------------------------------------
# tokens of words

def write_token_dataset(text, folder, tokenizer):
    """Write train.bin (the first 90 % of the text), val.bin (the rest) and, except for GPT-2's tokenizer, meta.pkl
    into folder, and print what they hold."""
    check_length(text)
    encode, _, meta = make_encoder(tokenizer)
    n = int(len(text) * 0.9)
    ids = {}
    for split, part in (('train', text[:n]), ('val', text[n:])):
        with tqdm(total=len(part), unit='char', unit_scale=True, desc=split, disable=None) as bar:
            pieces = []
            for piece in split_text(part):
                pieces.append(np.array(encode(piece), dtype='<u2'))
                bar.update(len(piece))
        ids[split] = np.concatenate(pieces)
    write_token_files(folder, ids['train'], ids['val'], meta)
    for split in ids:
        print(f'{split} has {len(ids[split]):,} tokens')


def make_encoder(name):
    """(encode, end, meta): encode(text) -> list of ids, special tokens in the text as text; the id that ends a
    document, or None; what meta.pkl is to hold, None for 'gpt2', which needs no meta.pkl. Any other name is a Hugging
    Face tokenizer: a Hub id or a folder."""
    if name == 'gpt2':
        gpt2 = gpt2_encoding({'kind': 'gpt2'})
        return gpt2.encode_ordinary, GPT2_END, None
    hf = load_hf_tokenizer(name, f'tokenizer {name}')
    if len(hf) > 65536:
        fail(f'tokenizer {name} has {len(hf):,} tokens; uint16 ids have room for 65,536')
    fast = hf.backend_tokenizer

    def encode(text):
        fast.encode_special_tokens = True   # set each time: it is lost when sent to another process
        return fast.encode(text, add_special_tokens=False).ids

    return encode, hf.eos_token_id, {'vocab_size': len(hf), 'tokenizer': hf_record(hf)}


def split_text(text, size=1 << 20):
    """Cut a long text in pieces of `size` characters or a little more, where GPT-2's tokenizer cuts it anyway: before
    a single space or line break between two words. So the tokens of the pieces are those of the whole. (A text
    without such a place is cut at twice the size.)"""
    start = 0
    while start < len(text):
        gap = re.compile(r'(?<=\S)[ \n](?=\S)').search(text, start + size, start + 2 * size)
        end = gap.start() if gap else min(start + 2 * size, len(text))
        yield text[start:end]
        start = end


# -----------------------------------------------------------------------------
# writing

def write_token_files(folder, train, val, meta):
    """Write train.bin, val.bin and meta.pkl; with meta = None, remove a meta.pkl that another tokenizer left."""
    try:
        write_files(folder, {'train.bin': train, 'val.bin': val, 'meta.pkl': pickle.dumps(meta) if meta else None})
    except OSError as e:
        fail(f'{folder} cannot be written to: {e.strerror}; its files are as they were')


def write_files(folder, contents):
    """Write {name: bytes, an array, or an iterable of them} into folder; None removes a file. No file changes before
    everything new is on the disk. Raises OSError."""
    with ExitStack() as stack:   # at its end, each file takes its name
        for name, content in contents.items():
            if content is None:
                continue
            f = stack.enter_context(replacing(os.path.join(folder, name)))
            parts = [content] if isinstance(content, (bytes, np.ndarray)) else content
            for part in parts:
                f.write(part)
            f.flush()
            os.fsync(f.fileno())   # a full disk shows here, before any file has changed
    for name, content in contents.items():
        path = os.path.join(folder, name)
        if content is None and os.path.exists(path):
            os.remove(path)
