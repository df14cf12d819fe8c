"""
Data sets: train.bin and val.bin, token ids as raw uint16, and meta.pkl, their vocabulary. Written by the prepare.py
scripts, with what those share, and read by train.py. Needs numpy and tqdm; tokens of words need tiktoken or
transformers.
"""

import argparse
import hashlib
import json
import os
import pickle
import re
import time
import unicodedata
from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from tqdm import tqdm

from support.errors import catch_crashes, fail, first_line, script_doc
from support.files import check_regular, is_locked, lock, replacing, unlock
from support.texts import check_download, count_accents, download, has_one_way, read_text, warn_of_two_ways
from support.tokenizer import GPT2_END, fits, gpt2_encoding, hf_record, load_hf_tokenizer, same_tokens

DATA = Path(__file__).resolve().parent.parent / 'data'
SET = ('train.bin', 'val.bin', 'meta.pkl')   # the files of a data set
SIDECAR = 'dataset.json'                 # beside them: what they are, so that a mixture of two sets is found out
MIN_CHARS = 5120   # val.bin gets a tenth of the text, and should hold at least two blocks of 256
SAMPLE_CHARS = 20_000   # of a text, on which a tokenizer is tried
MAX_TOKEN_CHARS = 64    # per token, on average; a tokenizer that is good for a text has between 1 and 10
TOKENIZER = dict(default='gpt2', metavar='NAME', type=os.path.expanduser,   # of --tokenizer
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
    """The number of tokens in train.bin or val.bin. Exits if there are too few, or if it cannot be read."""
    path = os.path.join(data_dir, f'{split}.bin')
    if not os.path.exists(path):
        check_not_busy(data_dir)
        there = sorted(p.parent.name for p in DATA.glob('*/prepare.py'))
        name = os.path.basename(os.path.normpath(data_dir))
        advice = ''
        if name in there and os.path.abspath(data_dir) == str(DATA / name):
            advice = f'run python data/{name}/prepare.py first, or '
        fail(f'there is no {path}; {advice}choose a --dataset of: {" ".join(there)}')
    try:
        check_regular(path)   # to open a pipe would wait for ever
        with open(path, 'rb') as f:
            n_bytes = os.fstat(f.fileno()).st_size
    except OSError as e:
        fail(f'{path} cannot be read: {e.strerror}')
    n_tokens = n_bytes // 2
    if n_bytes % 2:
        fail(f'{path} has an odd number of bytes, and tokens have two each; prepare it again')
    if n_tokens <= block_size:
        fail(f'{path} has {n_tokens:,} tokens, block_size = {block_size} needs at least {block_size + 1:,}; take a '
             'longer text or a smaller block_size')
    return n_tokens


class OpenSplits:
    """train.bin and val.bin as they are now: open, so that whoever prepares the data anew, which gives their names to
    other files, does not change what a training reads. changed() says that it has happened."""

    def __init__(self, data_dir):
        self.files = {}
        self.marks = {}
        self.changed_path = None
        for split in ('train', 'val'):
            f = open(os.path.join(data_dir, f'{split}.bin'), 'rb')
            self.files[split] = f
            self.marks[split] = self.mark(f.name)

    def __getitem__(self, split):
        """The open file of 'train' or 'val'."""
        return self.files[split]

    @staticmethod
    def mark(path):
        """What tells a file, given by its name or number, from another: its inode and its size."""
        status = os.stat(path)
        return status.st_ino, status.st_size

    def changed(self):
        """Whether one of the files is no longer the one that was opened. Two looks at the disk."""
        for split, f in self.files.items():
            try:
                is_changed = self.mark(f.name) != self.marks[split]
            except FileNotFoundError:
                is_changed = True
            except OSError:   # a network drive that does not answer for a moment
                is_changed = False
            if is_changed:
                self.changed_path = f.name
                return True
        return False

    def check_unchanged(self):
        """Exit if changed() has found one."""
        if self.changed_path is not None:
            fail(f'{self.changed_path} is another file than when this training began, which has stopped, and is saved; '
                 'prepare the same text again to go on with it')


def check_prepared(data_dir):
    """Exit if the files of a data set do not belong together, as after a prepare.py that was killed between two of
    them. What each should be stands in dataset.json; a folder without one, such as nanoGPT's, passes. However large
    the files are, 16 MiB of each are read."""
    if is_as_prepared(data_dir):
        return
    check_not_busy(data_dir)
    if not is_as_prepared(data_dir):   # nor now, that nobody writes there any longer
        fail(f'train.bin, val.bin and meta.pkl in {data_dir} were not written together; prepare the text again (or, if '
             f'another program has written them, remove {SIDECAR} there)')


def is_as_prepared(data_dir):
    """Whether the files of a data set are what dataset.json says, or there is none. Exits if one cannot be read."""
    path = os.path.join(data_dir, SIDECAR)
    if not os.path.exists(path):
        return True
    try:
        check_regular(path)
        with open(path, 'rb') as f:
            recorded = json.loads(f.read(10_000))   # it has some hundred bytes
        return recorded == describe(data_dir)
    except (ValueError, RecursionError):   # it is damaged
        return False
    except OSError as e:
        fail(f'{e.filename} cannot be read: {e.strerror}')


def check_not_busy(data_dir):
    """Exit if a prepare.py is writing a data set to a folder."""
    if is_locked(data_dir):
        fail(f'prepare.py is still writing to {data_dir}; wait for it, and start again')


def describe(data_dir, names=SET):
    """{name: its size in bytes and a hash of it, or None if it is not there} of the files of a data set. The hash is
    of 32 pieces of 512 KiB, evenly spaced, which are all of a small file."""
    found = {}
    for name in names:
        path = os.path.join(data_dir, name)
        found[name] = None
        if os.path.exists(path):
            check_regular(path)
            size = os.path.getsize(path)
            found[name] = {'bytes': size, 'sha256_of_pieces': hash_pieces(path, size)}
    return found


def fingerprint(data_dir):
    """A hash of train.bin and val.bin, in hexadecimal, by which a training knows its text again."""
    found = describe(data_dir, ('train.bin', 'val.bin'))
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()[:16]


def hash_pieces(path, size, n=32, piece=1 << 19):
    """The SHA-256, in hexadecimal, of n pieces of a file, the first and the last among them."""
    digest = hashlib.sha256()
    with open(path, 'rb') as f:
        for i in range(n):
            f.seek(max(0, size - piece) * i // (n - 1))
            digest.update(f.read(piece))
    return digest.hexdigest()


def check_ids(ids, vocab_size, data_dir):
    """Exit if one of the ids (an array) is not in the model's vocabulary."""
    if ids.max() >= vocab_size:
        fail(f'{data_dir} has the token {ids.max()}, beyond the {vocab_size} that the model knows; prepare it again')


def check_vocabulary(data_dir, data_tokenizer, data_vocab_size, model_tokenizer, model_vocab_size):
    """Exit unless the data set was prepared with the model's tokens. Both tokenizers are records. Of large .bin files
    only a part is read: the first and the last million tokens, and some thousand between."""
    is_same = same_tokens(data_tokenizer, model_tokenizer)
    if not is_same or not fits(data_tokenizer, data_vocab_size, model_vocab_size):
        fail(f'the vocabulary in {data_dir} is not that of the model: {name_tokens(data_tokenizer, data_vocab_size)} '
             f'there, {name_tokens(model_tokenizer, model_vocab_size)} in the model; choose the --dataset that it was '
             "trained on, or prepare the text with --vocab=FOLDER, the model's")
    for split in ('train', 'val'):
        ids = np.memmap(os.path.join(data_dir, f'{split}.bin'), dtype=np.uint16, mode='r')
        for part in (ids[:10**6], ids[-10**6:], ids[::len(ids) // 1000 + 1]):
            check_ids(part, model_vocab_size, data_dir)


def name_tokens(record, vocab_size):
    """What a tokenizer knows, in some words."""
    names = {'char': 'characters', 'gpt2': "tokens of GPT-2's", 'hf': 'tokens of a Hugging Face tokenizer',
             'ids': 'tokens without a text'}
    return f"{vocab_size:,} {names[record['kind']]}"


# -----------------------------------------------------------------------------
# the prepare.py scripts: their command line, and the text

def begin():
    """What every prepare.py does first: install crash handling, and print each line at once."""
    catch_crashes()


def command_line(doc, argument='texts', help='text files, UTF-8'):
    """The argparse parser of a prepare.py that takes files; --help shows doc, a mistake is one line."""
    doc = doc or script_doc()   # with python -OO
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(argument, nargs='*', type=os.path.expanduser, help=help)
    parser.error = lambda message: fail(f'{message}; see --help')
    return parser


def find_text(paths, input_path, url, sha256, max_bytes=200_000_000):
    """The text of the files in paths; without any, of input_path, which is first downloaded if it is not there. The
    file at the url never changes; sha256 is its sum, in hexadecimal digits."""
    if not paths and not os.path.exists(input_path):
        print(f'downloading {url}')
        try:
            data = download(url, max_bytes)
            check_download(data, MIN_CHARS)
            if hashlib.sha256(data).hexdigest() != sha256:
                raise ValueError(f'what came, {len(data):,} bytes, is not the text that is known')
            write_files(os.path.dirname(input_path), {os.path.basename(input_path): data})
        except (OSError, ValueError) as e:
            fail(f'{url} could not be downloaded ({e}); save it as {input_path} and run this again')
    print('text:', ' + '.join(paths or [input_path]))
    return ''.join(read_text(path) for path in paths or [input_path])


def check_text(text):
    """Exit if a text is too short to train on, or has one character alone; say so if its accents are written in two
    ways."""
    if len(text) < MIN_CHARS:
        fail(f'the text has {len(text):,} characters, too few to train on: at least {MIN_CHARS:,} are needed')
    if not text.strip(text[0]):
        fail(f'the text has one character alone, {text[0]!r}: there is nothing to learn in it')
    if not has_one_way(text):
        warn_of_two_ways(*count_accents(text))


def count_train(text):
    """How many of a text's characters, the first ones, are for train.bin."""
    return int(len(text) * 0.9)


# -----------------------------------------------------------------------------
# characters

def write_char_dataset(text, folder, vocabulary=None):
    """Write train.bin (the first 90 % of the characters), val.bin (the rest) and meta.pkl into folder, and print what
    they hold. The vocabulary, a list, has all of the text's characters; by default it has no others."""
    check_text(text)
    ids, chars = encode_chars(text, vocabulary)
    n = count_train(text)
    meta = {'vocab_size': len(chars), 'itos': dict(enumerate(chars)), 'stoi': {c: i for i, c in enumerate(chars)}}
    write_token_files(folder, ids[:n], ids[n:], meta)
    print(f'length of dataset in characters: {len(ids):,}')
    print('all the unique characters:', repr(''.join(chars[:500])) + (' ...' if len(chars) > 500 else ''))
    print(f'vocab size: {len(chars):,}')
    print(f'train has {n:,} tokens')
    print(f'val has {len(ids) - n:,} tokens')


def encode_chars(text, vocabulary=None):
    """text -> (ids as a uint16 array, the vocabulary); an id is a place in that list, by default of the text's distinct
    characters in order."""
    step = 1 << 18   # in pieces, so that four bytes a character are never in memory for the whole text

    def code_points(start):
        return np.frombuffer(text[start:start + step].encode('utf-32-le'), dtype='<u4')

    if vocabulary is None:
        is_used = np.zeros(0x110000, dtype=bool)   # by code point; there are no more in Unicode
        for start in range(0, len(text), step):
            is_used[code_points(start)] = True
        chars = np.flatnonzero(is_used)
    else:
        chars = np.array([ord(c) for c in vocabulary])
    if len(chars) > 65536:
        fail(f'the text has {len(chars):,} distinct characters; uint16 ids have room for 65,536: prepare it as tokens, '
             'with data/ecadequeiuroz/prepare.py')
    id_of = np.zeros(0x110000, dtype='<u2')
    id_of[chars] = np.arange(len(chars))
    ids = np.empty(len(text), dtype='<u2')
    for start in range(0, len(text), step):
        ids[start:start + step] = id_of.take(code_points(start))   # four times faster than id_of[...]
    return ids, [chr(c) for c in chars]


# -----------------------------------------------------------------------------
# tokens of words

def write_token_dataset(text, folder, encoder):
    """Write train.bin (the first 90 % of the text), val.bin (the rest) and, except for GPT-2's tokenizer, meta.pkl
    into folder, and print what they hold."""
    check_text(text)
    n = count_train(text)
    ids = {}
    try:
        encoder.check_gives_back(text[:SAMPLE_CHARS])
        encoder.check_gives_back(text[-SAMPLE_CHARS:])
        for split, part in (('train', text[:n]), ('val', text[n:])):
            with tqdm(total=len(part), unit='char', unit_scale=True, desc=split, disable=None) as bar:
                pieces = []
                for piece in split_text(part):
                    pieces.append(np.array(encoder.encode(piece), dtype='<u2'))
                    bar.update(len(piece))
            ids[split] = np.concatenate(pieces)
            bounds = [ids[split].min(initial=65535), ids[split].max(initial=0)]
            check_split(split, len(ids[split]), bounds, len(part))
    except ValueError as e:
        fail(e)
    n_unknown = sum(encoder.count_unknown(part) for part in ids.values())
    encoder.say_unknown(n_unknown, sum(map(len, ids.values())))
    write_token_files(folder, ids['train'], ids['val'], encoder.meta)
    for split in ids:
        print(f'{split} has {len(ids[split]):,} tokens')
    print(f'a token has {len(text) / sum(map(len, ids.values())):.2f} characters on average')


def gpt2_encoder(record):
    """The Encoder of GPT-2's tokens; their record may have them, or not."""
    return Encoder('gpt2', gpt2_encoding(record), end=GPT2_END)


def named_encoder(name):
    """The Encoder that --tokenizer names: 'gpt2', or a Hugging Face Hub id or folder."""
    if name == 'gpt2':
        return gpt2_encoder({'kind': 'gpt2'})
    hf = load_hf_tokenizer(name, f'tokenizer {name}')
    vocab_size = max(len(hf), 1 + max(hf.get_vocab().values()))   # some leave ids out
    if vocab_size > 65536:
        fail(f'tokenizer {name} has {vocab_size:,} tokens; uint16 ids have room for 65,536: take another with '
             '--tokenizer=')
    unknown = hf.unk_token_id
    if unknown == hf.eos_token_id:   # GPT-2's says that they are the same, and needs neither for a text
        unknown = None
    meta = {'vocab_size': vocab_size, 'tokenizer': hf_record(hf)}
    return Encoder(name, hf.backend_tokenizer, meta, hf.eos_token_id, unknown)


class Encoder:
    """Text to the ids of a tokenizer: of tiktoken's GPT-2, or of a Tokenizer of the package tokenizers.

    name: for messages. meta: what meta.pkl is to hold, None for GPT-2's, which needs none. end: the id that ends a
    document, or None. unknown: the id of what the tokenizer does not know, or None.
    """

    def __init__(self, name, fast, meta=None, end=None, unknown=None):
        self.name = name
        self.fast = fast
        self.meta = meta
        self.end = end
        self.unknown = unknown

    def encode(self, text):
        """text -> list of ids; special tokens in the text are text. Raises ValueError, naming the characters, where
        the tokenizer has no token for some."""
        if self.meta is None:
            return self.fast.encode_ordinary(text)
        try:
            return self.encode_fast(text)
        except MemoryError:
            raise
        except Exception as e:   # it has no class of its own
            unknown = [f'{c!r} (U+{ord(c):04X})' for c in sorted(set(text)) if not self.is_known(c)]
            reason = f'cannot read the text: {first_line(e)}'
            if unknown:
                reason = f'has no token for {" ".join(unknown[:20])}'
            raise ValueError(f'tokenizer {self.name} {reason}; take another with --tokenizer=, or a text without '
                             'them') from None

    def encode_fast(self, text):
        """encode, with whatever tokenizers raises."""
        self.fast.encode_special_tokens = True   # set each time: it is lost when sent to another process
        return self.fast.encode(text, add_special_tokens=False).ids

    def is_known(self, char):
        """Whether a character alone can be encoded."""
        try:
            self.encode_fast(char)
            return True
        except Exception:   # it has no class of its own
            return False

    def check_gives_back(self, text):
        """Raise ValueError if ids of a sample of a text lose most of it. Case, accents and spaces, which some
        tokenizers take away, do not count."""
        before = count_signs(text)
        if not before:
            return
        after = count_signs(self.fast.decode(self.encode(text)))
        share = (before & after).total() / before.total()
        if share < 0.5:
            raise ValueError(f'tokenizer {self.name} gives back {share:.0%} of the characters of the text, as if it '
                             'were not made for it; take another with --tokenizer=')

    def count_unknown(self, ids):
        """How many of the ids, an array, are the token for what the tokenizer does not know."""
        if self.unknown is None:
            return 0
        return int(np.count_nonzero(ids == self.unknown))

    def say_unknown(self, n_unknown, n_tokens):
        """Print how much of a text the tokenizer does not know, if there is such."""
        if n_unknown:
            print(f'tokenizer {self.name} does not know all of the text: {n_unknown:,} of {n_tokens:,} tokens are '
                  'its token for the unknown')


def count_signs(text):
    """How often each character occurs in a text, without white space, case and accents."""
    signs = Counter(unicodedata.normalize('NFKD', text).casefold())
    return Counter({c: n for c, n in signs.items() if not c.isspace() and not unicodedata.combining(c)})


def check_split(split, n_tokens, bounds, n_chars):
    """Raise ValueError if the n_tokens of a split, of which the least and the greatest are the bounds, cannot be
    those of a text of n_chars characters."""
    if n_tokens == 0 or n_tokens * MAX_TOKEN_CHARS < n_chars:
        raise ValueError(f'the {n_chars:,} characters for {split}.bin became {n_tokens:,} tokens, which cannot be '
                         'right; take another tokenizer with --tokenizer=')
    if bounds[0] == bounds[1]:
        raise ValueError(f'all {n_tokens:,} tokens for {split}.bin are the same; take a longer text, or another '
                         'tokenizer with --tokenizer=')


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
    """Write train.bin, val.bin and meta.pkl; with meta = None, remove a meta.pkl that another tokenizer left.

    They are one data set: a kill leaves the old one, or files that dataset.json, which check_prepared reads, shows to
    be of two. For it is there, if need be of the old files, before the first of them changes, and is written last.
    """
    contents = {'train.bin': train, 'val.bin': val}
    if meta:
        contents['meta.pkl'] = pickle.dumps(meta)
    say_other_vocabulary(folder, contents.get('meta.pkl'))
    try:
        is_begun = False
        with waiting_for_lock(folder):
            with ExitStack() as stack:
                fill_files(stack, folder, contents)
                if not os.path.exists(os.path.join(folder, SIDECAR)):
                    write_sidecar(folder)
                is_begun = True
            if not meta and os.path.exists(os.path.join(folder, 'meta.pkl')):
                os.remove(os.path.join(folder, 'meta.pkl'))
            write_sidecar(folder)
    except OSError as e:
        if is_begun:
            cause = ''
            if isinstance(e, PermissionError):   # Windows replaces no file that is open
                cause = ' (a training may be reading it: end that first)'
            fail(f'{e.filename2 or e.filename} cannot be replaced: {e.strerror}{cause}; prepare the text again')
        fail(f'{folder} cannot be written to: {e.strerror}; its files are as they were')


def say_other_vocabulary(folder, new):
    """Print that the data set in folder, if there is one, has another vocabulary than the one that takes its place,
    whose meta.pkl is to have the bytes new, or None."""
    if not os.path.exists(os.path.join(folder, 'train.bin')):
        return
    path = os.path.join(folder, 'meta.pkl')
    try:
        check_regular(path)   # to open a pipe would wait for ever
        with open(path, 'rb') as f:
            old = f.read()
    except OSError:   # there is none, or what is there will not be replaced
        old = None
    if old != new:
        print('this data set takes the place of one with another vocabulary; to go on with a model of that one, '
              'prepare it again')


def write_sidecar(folder):
    """Write dataset.json, which says what the other files of a data set are. Raises OSError."""
    with replacing(os.path.join(folder, SIDECAR)) as f:
        f.write(json.dumps(describe(folder), indent=1).encode() + b'\n')


@contextmanager
def waiting_for_lock(folder):
    """A block in which this process alone writes a data set to folder; another one that does is waited for."""
    held = None
    is_waiting = False
    while True:
        try:
            held = lock(folder)
            break
        except BlockingIOError:
            if not is_waiting:
                print(f'waiting for another prepare.py, which is writing to {folder}')
            is_waiting = True
            time.sleep(0.1)
    try:
        yield
    finally:
        unlock(folder, held)


def write_files(folder, contents):
    """Write {name: bytes, an array, or an iterable of them} into folder. No file changes before all are on the disk.
    Raises OSError."""
    with ExitStack() as stack:
        fill_files(stack, folder, contents)


def fill_files(stack, folder, contents):
    """Write what write_files does; when the stack ends, the files take their names, in the order of contents."""
    files = {}
    for name in reversed(contents):   # the stack ends what came last first
        files[name] = stack.enter_context(replacing(os.path.join(folder, name)))
    for name, content in contents.items():
        parts = [content] if isinstance(content, (bytes, np.ndarray)) else content
        for part in parts:
            files[name].write(part)
        files[name].flush()
        os.fsync(files[name].fileno())   # a full disk shows here, before any file has changed
