"""
What several prepare.py scripts do: read text, download, write files whole or not at all, turn characters or words into
ids. Needs numpy and tqdm only; words need tiktoken or transformers, too.
"""

import os
import pickle
import re
import shlex
import sys
import urllib.request

import numpy as np
from tqdm import tqdm

MIN_CHARS = 5120   # val.bin gets a tenth of the text, and should hold at least two blocks of 256


def fail(message):
    """End the script with one line on stderr."""
    raise SystemExit(f'prepare.py: {message}')


def begin():
    """What every prepare.py does first: nothing that is printed, no closed pipe and no Ctrl-C ends in a traceback."""
    def explain_crash(kind, e, trace):
        if kind is BrokenPipeError:   # who read it has read enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        elif kind is not KeyboardInterrupt:
            sys.__excepthook__(kind, e, trace)

    sys.excepthook = explain_crash
    sys.stdout.reconfigure(errors='backslashreplace', line_buffering=True)   # not every console has every character


def first_line(e):
    """What an exception says, or what it is."""
    return (str(e).strip() or type(e).__name__).splitlines()[0]


def read_text(path):
    """The whole file as UTF-8, newlines untouched."""
    try:
        with open(path, 'rb') as f:
            return f.read().decode('utf-8')
    except UnicodeDecodeError as e:
        is_utf16 = e.object[:2] in (b'\xff\xfe', b'\xfe\xff')
        what = 'is UTF-16' if is_utf16 else 'is from Windows, or old'
        old, new = shlex.quote(path), shlex.quote(os.path.splitext(path)[0] + '-utf8.txt')
        how = (f'iconv -f {"utf-16" if is_utf16 else "cp1252"} -t utf-8 {old} > {new}, and take the old one away'
               if os.name != 'nt' else 'open it in Notepad, and save it as UTF-8')
        fail(f'{path} is not UTF-8: byte {e.object[e.start]:#04x} at offset {e.start:,}. If it {what}, convert it: '
             f'{how}')
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


def write_files(folder, contents):
    """Write {name: bytes, an array, or an iterable of them} into folder; None removes a file. No file changes before
    all that is new is on the disk."""
    temporary = {}
    try:
        for name, content in contents.items():
            if content is not None:
                temporary[name] = os.path.join(folder, f'{name}.{os.getpid()}.tmp')
                with open(temporary[name], 'wb') as f:
                    for part in [content] if isinstance(content, (bytes, np.ndarray)) else content:
                        f.write(part)
                    f.flush()
                    os.fsync(f.fileno())
        for name, path in temporary.items():
            os.replace(path, os.path.join(folder, name))
        for name in contents.keys() - temporary.keys():
            if os.path.exists(os.path.join(folder, name)):
                os.remove(os.path.join(folder, name))
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
    write_token_files(folder, ids[:n], ids[n:], meta)
    print(f'length of dataset in characters: {len(ids):,}')
    print('all the unique characters:', repr(''.join(chars[:500])) + (' ...' if len(chars) > 500 else ''))
    print(f'vocab size: {len(chars):,}')
    print(f'train has {n:,} tokens')
    print(f'val has {len(ids) - n:,} tokens')


def make_encoder(name):
    """(encode, end, meta): encode(text) -> list of ids; the id that ends a document, or None; what meta.pkl is to hold,
    None for 'gpt2', which needs no meta.pkl. Any other name is a Hugging Face tokenizer: a Hub id or a folder."""
    if name == 'gpt2':
        try:
            import tiktoken
            gpt2 = tiktoken.get_encoding('gpt2')   # fetched once, then kept in TIKTOKEN_CACHE_DIR
        except ImportError:
            fail("GPT-2's tokenizer needs the package tiktoken: pip install tiktoken")
        except OSError as e:
            fail(f"GPT-2's vocabulary could not be fetched ({type(e).__name__}); connect once, or set "
                 'TIKTOKEN_CACHE_DIR to a folder that has it')
        return gpt2.encode_ordinary, gpt2.eot_token, None
    try:
        from transformers import AutoTokenizer
    except ImportError:
        fail(f'tokenizer {name} needs the package transformers: pip install transformers')
    try:
        hf = AutoTokenizer.from_pretrained(name)
        fast = hf.backend_tokenizer
        fast.no_truncation()   # as some were saved
        fast.no_padding()
    except Exception as e:   # a hub, a cache and strangers' files can raise anything
        fail(f'tokenizer {name} cannot be loaded: {first_line(e)}')
    if len(hf) > 65536:
        fail(f'tokenizer {name} has {len(hf):,} tokens; uint16 ids have room for 65,536')
    meta = {'vocab_size': len(hf), 'tokenizer': {'kind': 'hf', 'json': fast.to_str(), 'eos': hf.eos_token}}

    def encode(text):
        fast.encode_special_tokens = True   # a '<|endoftext|>' in the text is text; lost when sent to another process
        return fast.encode(text, add_special_tokens=False).ids

    return encode, hf.eos_token_id, meta


def split_text(text, size=1 << 20):
    """Cut a long text in pieces of so many characters or a little more, where GPT-2's tokenizer cuts it anyway: before
    a single space or line break between two words. So the tokens of the pieces are those of the whole. (A text without
    such a place is cut at twice the size.)"""
    start = 0
    while start < len(text):
        gap = re.compile(r'(?<=\S)[ \n](?=\S)').search(text, start + size, start + 2 * size)
        end = gap.start() if gap else min(start + 2 * size, len(text))
        yield text[start:end]
        start = end


def write_token_dataset(text, folder, tokenizer):
    """Write train.bin (the first 90 % of the text), val.bin (the rest) and, except for GPT-2's tokenizer, meta.pkl into
    folder, and say what they hold."""
    if len(text) < MIN_CHARS:
        fail(f'the text has {len(text):,} characters, too few to train on: at least {MIN_CHARS:,} are needed')
    encode, _, meta = make_encoder(tokenizer)
    ids = {}
    for split, part in (('train', text[:int(len(text) * 0.9)]), ('val', text[int(len(text) * 0.9):])):
        with tqdm(total=len(part), unit='char', unit_scale=True, desc=split, disable=None) as bar:
            pieces = []
            for piece in split_text(part):
                pieces.append(np.array(encode(piece), dtype='<u2'))
                bar.update(len(piece))
        ids[split] = np.concatenate(pieces)
    write_token_files(folder, ids['train'], ids['val'], meta)
    for split in ids:
        print(f'{split} has {len(ids[split]):,} tokens')


def write_token_files(folder, train, val, meta):
    """Write train.bin, val.bin and meta.pkl; with meta = None, remove a meta.pkl that another tokenizer left."""
    try:
        write_files(folder, {'train.bin': train, 'val.bin': val, 'meta.pkl': pickle.dumps(meta) if meta else None})
    except OSError as e:
        fail(f'{folder} cannot be written to: {e.strerror}; its files are as they were')
