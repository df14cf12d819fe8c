"""
Tokenizers: text to token ids and back.

A data set and a checkpoint keep a record of their tokenizer: a plain dict with all that encoding and decoding need.

    {'kind': 'char', 'itos': [...]}               characters, or words; the id of one is its index in the list
    {'kind': 'ids'}                               tokens of which nobody knows the text
    {'kind': 'gpt2'}                              GPT-2's, which tiktoken downloads once
    {'kind': 'gpt2', 'bpe': [...]}                the same with its tokens, as Latin-1 strings: nothing to download
    {'kind': 'hf', 'json': '...', 'eos': '...'}   a Hugging Face tokenizer.json, and the token that ends a document
"""

import functools
import hashlib
import importlib.util
import json
import math
import os
import re
import sys
import tempfile
import unicodedata
from collections import Counter
from contextlib import contextmanager

from support.errors import fail, first_line
from support.files import check_regular
from support.pickles import MAX_BYTES, NotPlain, load_plain

# where GPT-2 cuts a text before it merges bytes: words, numbers, punctuation and white space stay apart
GPT2_SPLIT = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
GPT2_END = 50256   # the id of <|endoftext|>; the 50,256 tokens before it are text
# of those tokens, by hash_tokens: a training on tiktoken's ids needs no vocabulary, and no network, to know it again
GPT2_SHA256 = 'd6eafc9c4e864b82073cdfe088157f5447dbdf12dfcc165653a9ca5eb92dce19'
KINDS = ('char', 'gpt2', 'hf', 'ids')
LISTED = ('char', 'ids')   # kinds whose vocabularies are as large as nanoGPT makes them, not padded
# models with GPT-2's own tokenizer whose names have no owner, and who that is
WELL_KNOWN = {'gpt2': 'openai-community', 'gpt2-medium': 'openai-community', 'gpt2-large': 'openai-community',
              'gpt2-xl': 'openai-community', 'distilgpt2': 'distilbert'}


# -----------------------------------------------------------------------------
# records

def load_meta(path):
    """The dict in a data set's meta.pkl, with its tokenizer's record under 'tokenizer'; None if there is no file.

    On the disk it has vocab_size, and either itos (id -> character, or word) and perhaps stoi (the way back), as
    nanoGPT writes them, or a record, or nothing more: tokens of which nobody knows the text. Exits if the file is
    something else.
    """
    content = read_meta(path)
    if content is None:
        return None
    try:
        meta = load_plain(content)
        if type(meta) is not dict:
            raise NotPlain('it is no dict')
        if 'tokenizer' not in meta:
            meta['tokenizer'] = nanogpt_record(meta)
        check_meta(meta)
        return meta
    except MemoryError:
        raise
    except Exception as e:   # bytes from anywhere can make pickletools raise anything
        reason = f' ({e})' if isinstance(e, NotPlain) else ''
        fail(f'{path} is not a vocabulary{reason}; run the prepare.py beside it again')


def read_meta(path):
    """The bytes of a meta.pkl; None if there is no such name. Exits if they cannot be read."""
    if not os.path.lexists(path):
        return None
    try:
        check_regular(path)   # to open a pipe would wait for ever
        with open(path, 'rb') as f:
            return f.read(MAX_BYTES + 1)
    except OSError as e:
        fail(f'{path} cannot be read: {e.strerror}')


def nanogpt_record(meta):
    """The record of a meta.pkl as nanoGPT writes it. Raises NotPlain if stoi, itos and vocab_size disagree."""
    vocab_size = meta.get('vocab_size')
    if 'itos' not in meta and 'stoi' not in meta:
        return {'kind': 'ids'}
    itos = meta.get('itos')
    if not isinstance(itos, (dict, list, tuple)):
        raise NotPlain(f'itos is a {type(itos).__name__}, not a dict or list')
    check_count(itos, vocab_size)
    try:
        words = [itos[i] for i in range(len(itos))]
    except KeyError:
        raise NotPlain('the ids in itos are not 0, 1, 2 ...') from None
    check_words(words)
    if 'stoi' in meta and meta['stoi'] != {word: i for i, word in enumerate(words)}:
        raise NotPlain('stoi and itos disagree')
    return {'kind': 'char', 'itos': words}


def check_meta(meta):
    """Raise NotPlain unless a dict is a whole meta.pkl: the record of a tokenizer, and a size that uint16 has room
    for."""
    vocab_size = meta.get('vocab_size')
    if type(vocab_size) is not int or not 1 <= vocab_size <= 65536:
        raise NotPlain('vocab_size is no number from 1 to 65,536')
    record = meta['tokenizer']
    check_record(record)
    if record['kind'] == 'char':
        check_count(record['itos'], vocab_size)
    if record['kind'] == 'gpt2':
        check_fit(GPT2_END + 1, pad_to_64(vocab_size))
    if record['kind'] == 'hf':   # as check_checkpoint will do it, so that what trains can be resumed
        check_hf(record['json'], record.get('eos'), pad_to_64(vocab_size))


def check_record(record):
    """Raise NotPlain (a ValueError) unless this is the record of a tokenizer, whole and of the right types."""
    if type(record) is not dict or type(record.get('kind')) is not str:
        raise NotPlain("its tokenizer is no record: a dict with a 'kind'")
    if record['kind'] not in KINDS:
        raise NotPlain(f'its tokenizer is of the kind {record["kind"][:40]!a}; this version knows {", ".join(KINDS)}')
    if record['kind'] == 'char':
        check_words(record.get('itos'))
    if record['kind'] == 'gpt2' and 'bpe' in record:
        check_words(record['bpe'])
        if len(record['bpe']) != GPT2_END or max(map(max, record['bpe'])) > '\xff':
            raise NotPlain("its tokens are not GPT-2's 50,256")
        if not set(map(chr, range(256))) <= set(record['bpe']):
            raise NotPlain('its tokens lack some bytes')
    if record['kind'] == 'hf':
        if type(record.get('json')) is not str:
            raise NotPlain('json of the tokenizer is no text')
        if type(record.get('eos')) not in (str, type(None)):
            raise NotPlain('eos of the tokenizer is no text')


def check_words(words):
    """Raise NotPlain unless this is a list of different strings, each with something in it."""
    if type(words) is not list or {type(word) for word in words} != {str}:
        raise NotPlain('its tokens are no list of strings')
    if len(words) > 65536:
        raise NotPlain(f'it has {len(words):,} tokens, and there can be 65,536')
    if len(set(words)) < len(words):
        word, _ = Counter(words).most_common(1)[0]
        raise NotPlain(f'the token {word[:40]!a} is there twice')
    if '' in words:
        raise NotPlain(f'token {words.index("")} is empty')
    half = re.search('[\ud800-\udfff]', ''.join(words))
    if half:
        raise NotPlain(f'a token has half a character, {half[0]!a}')


def check_count(itos, vocab_size):
    """Raise NotPlain unless itos has vocab_size entries."""
    if len(itos) != vocab_size:
        raise NotPlain(f'itos has {len(itos):,} entries, and vocab_size is {vocab_size}')


def check_fit(n_tokens, vocab_size):
    """Raise NotPlain unless a model that knows vocab_size tokens knows all of a tokenizer's."""
    if n_tokens > vocab_size:
        raise NotPlain(f'the tokenizer has {n_tokens:,} tokens, more than the {vocab_size:,} that the model knows')


def check_hf(json, eos, vocab_size):
    """Raise NotPlain unless this is a tokenizer.json that the package tokenizers can read, and eos a token of it, or
    None. A model of vocab_size knows its tokens, except that some special ones may have been added; encode refuses
    these."""
    try:
        hf = parse_hf(json)
    except ImportError:   # then no text is encoded or decoded here, either
        return
    own_ids = hf.get_vocab(with_added_tokens=False)
    ids = hf.get_vocab(with_added_tokens=True)
    if not ids:
        raise NotPlain('json of the tokenizer has no tokens')
    check_fit(max(own_ids.values(), default=0) + 1, vocab_size)
    check_fit(max(ids.values()) + 1, pad_to_64(vocab_size))   # transformers may have added an <|endoftext|>
    if eos is not None and ids.get(eos, vocab_size) >= vocab_size:
        raise NotPlain(f'eos of the tokenizer is {eos[:40]!a}, which is not one of the tokens that the model knows')


@functools.lru_cache(maxsize=1)   # a large one takes a second
def parse_hf(json):
    """The Tokenizer of a tokenizer.json. Raises NotPlain if it is none, ImportError without the package tokenizers."""
    from tokenizers import Tokenizer
    try:
        with silent_stderr():   # where its panics write a hundred lines
            hf = Tokenizer.from_str(json)
            hf.no_padding()   # which may be to any length
            hf.no_truncation()
            return hf
    except (KeyboardInterrupt, MemoryError):
        raise
    except BaseException as e:   # its panics, for which it has a class of its own, are no Exceptions
        raise NotPlain(f'json of the tokenizer cannot be read: {str(e)[:80]!a}') from None


@contextmanager
def silent_stderr():
    """What is written to standard error, by any language, goes nowhere until the block ends."""
    try:
        old = os.dup(2)
    except OSError:   # it is closed
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(old, 2)
        os.close(old)
        os.close(nowhere)


def load_tokenizer(data_dir):
    """(record, vocab_size) of the tokenizer that a data set was prepared with: its meta.pkl's, or GPT-2's where there
    is none. GPT-2's and Hugging Face's vocab_size is padded to a multiple of 64, as in GPTConfig."""
    meta = load_meta(os.path.join(data_dir, 'meta.pkl'))
    if meta is None:
        return {'kind': 'gpt2'}, 50304
    record = meta['tokenizer']
    vocab_size = meta['vocab_size']
    if record['kind'] not in LISTED:
        vocab_size = pad_to_64(vocab_size)
    return record, vocab_size


def pad_to_64(n):
    """n, rounded up to a multiple of 64."""
    return math.ceil(n / 64) * 64


def fits(record, vocab_size, model_vocab_size):
    """Whether a model with model_vocab_size logits can have this tokenizer of vocab_size tokens. A vocabulary of
    words may be padded to a multiple of 64 on one side and not on the other (OpenAI's GPT-2 is not)."""
    if record['kind'] in LISTED:
        return vocab_size == model_vocab_size
    return vocab_size <= pad_to_64(model_vocab_size)


# -----------------------------------------------------------------------------
# comparing

def same_tokens(one, two):
    """Whether two records have the same tokens with the same ids, of whatever kinds they are. A special token, such as
    one that pads, may be in one of them alone: no text is made of it."""
    kinds = {one['kind'], two['kind']}
    if one == two or kinds == {'ids'}:
        return True
    if 'ids' in kinds:
        return False
    sides = [tokens_of(record) for record in (one, two)]
    known = [side for side in sides if side is not None]
    if not known:
        return True
    if len(known) == 1:   # the other one is GPT-2's
        tokens, special = known[0]
        are_special = all(i in special or i == GPT2_END for i in tokens if i >= GPT2_END)
        return are_special and hash_tokens([tokens.get(i, b'') for i in range(GPT2_END)]) == GPT2_SHA256
    (tokens, special), (others, others_special) = known
    are_special = all(i in special or i in others_special for i in tokens.keys() ^ others.keys())
    return are_special and all(tokens[i] == others[i] for i in tokens.keys() & others.keys())


def tokens_of(record):
    """({id: the bytes of the token}, the ids of special ones) of a record; None for GPT-2's without its tokens."""
    if record['kind'] == 'char':
        return {i: word.encode() for i, word in enumerate(record['itos'])}, set()
    if record['kind'] == 'gpt2':
        if 'bpe' not in record:
            return None
        tokens = {i: token.encode('latin-1') for i, token in enumerate(record['bpe'])}
        return {**tokens, GPT2_END: b'<|endoftext|>'}, {GPT2_END}
    hf = read_hf(record)
    special = {i for i, token in hf.get_added_tokens_decoder().items() if token.special}
    letters = byte_letters() if is_byte_level(record) else {}
    tokens = {}
    for token, i in hf.get_vocab(with_added_tokens=True).items():
        if letters.keys() >= set(token):
            tokens[i] = bytes(letters[letter] for letter in token)
        else:
            tokens[i] = token.encode(errors='surrogatepass')
    return tokens, special


def hash_tokens(tokens):
    """The SHA-256, in hexadecimal, of a list of tokens, as bytes."""
    return hashlib.sha256(b' '.join(token.hex().encode() for token in tokens)).hexdigest()


def is_byte_level(record):
    """Whether a Hugging Face tokenizer's tokens are bytes, written as letters: then it has a token for every text."""
    decoder = json.loads(record['json']).get('decoder') or {}
    return any(part.get('type') == 'ByteLevel' for part in [decoder, *decoder.get('decoders', [])])


def byte_letters():
    """{letter: byte} of byte-level BPE, which writes bytes as letters (Radford et al. 2019): those that are printable
    in Latin-1 as themselves, the others, in order, as U+0100 and on."""
    printable = [byte for byte in range(256) if chr(byte).isprintable() and chr(byte) != ' ']
    others = [byte for byte in range(256) if byte not in printable]
    return {**{chr(byte): byte for byte in printable}, **{chr(256 + n): byte for n, byte in enumerate(others)}}


# -----------------------------------------------------------------------------
# encoding and decoding

def get_codec(record, with_special=True, vocab_size=None):
    """(encode, decode) of a tokenizer: text -> list of ids, list of ids -> text. Without with_special, decode leaves
    out <|endoftext|> and its like. encode exits if the text cannot be encoded, or has a token that a model which knows
    vocab_size tokens does not know."""
    if record['kind'] == 'char':
        return char_codec(record)
    if record['kind'] == 'gpt2':
        return gpt2_codec(record, with_special)
    if record['kind'] == 'hf':
        return hf_codec(record, with_special, vocab_size)
    fail("the text of the model's tokens is not known: its data set's meta.pkl has vocab_size alone; train with one "
         'that has itos and stoi too')   # the kind is 'ids'


def char_codec(record):
    itos = record['itos']
    stoi = {c: i for i, c in enumerate(itos)}
    lengths = sorted({len(c) for c in itos}, reverse=True)
    gap = word_gap(itos)

    def encode(text):
        is_blank = text == '\n' or gap and text.isspace()
        if is_blank and text not in stoi:   # the default prompt, and a vocabulary of words or of one line
            return [0]
        # a Mac may write é as e and an accent; so may the text that the model was trained on
        for form in (text, unicodedata.normalize('NFC', text), unicodedata.normalize('NFD', text)):
            pieces = form.split() if gap else [form]
            ids = [i for piece in pieces for i in longest_tokens(piece, stoi, lengths)]
            if None not in ids:
                return ids
        unknown = sorted(set(text) - set(''.join(itos)))
        if gap:
            unknown = [c for c in unknown if not c.isspace()]
        if unknown:
            fail('the prompt has characters that the model has never seen: '
                 + ' '.join(f'{c!r} (U+{ord(c):04X})' for c in unknown) + '; write it without them')
        fail(f'the prompt has no words that the model knows: {text[:40]!r}; write others, as they are in meta.pkl')

    def decode(ids):
        return gap.join(itos[i] for i in ids)

    return encode, decode


def word_gap(itos):
    """What stands between two tokens: nothing between characters; a space between words, if none of them brings
    white space of its own."""
    are_words = any(len(c) > 1 for c in itos)
    have_space = any(c.isspace() for c in set(''.join(itos)))
    return ' ' if are_words and not have_space else ''


def longest_tokens(text, stoi, lengths):
    """The ids of a text, of the longest token each time; lengths are those of the tokens, from long to short. Where
    there is none, the last id is None."""
    if lengths == [1]:   # characters
        return [stoi.get(c) for c in text]
    ids = []
    start = 0
    while start < len(text):
        n = next((n for n in lengths if text[start:start + n] in stoi), None)
        if n is None:
            return [*ids, None]
        ids.append(stoi[text[start:start + n]])
        start += n
    return ids


def gpt2_codec(record, with_special):
    gpt2 = gpt2_encoding(record)
    n_tokens = GPT2_END + 1 if with_special else GPT2_END

    def encode(text):
        return gpt2.encode(text, allowed_special='all')

    def decode(ids):
        return gpt2.decode([i for i in ids if i < n_tokens])   # the padding of the vocabulary has no text

    return encode, decode


def read_hf(record):
    """The Tokenizer of a record of the kind 'hf'."""
    try:
        return parse_hf(record['json'])
    except ImportError:
        fail("this model's tokenizer needs the package tokenizers: pip install tokenizers")


def hf_codec(record, with_special, vocab_size):
    hf = read_hf(record)

    def encode(text):
        try:
            ids = hf.encode(text, add_special_tokens=False).ids or [0]   # some have no token for white space
        except MemoryError:
            raise
        except Exception as e:   # it has no class of its own
            fail(f"the model's tokenizer cannot read the prompt: {first_line(e)}; write it otherwise")
        if vocab_size is not None and max(ids) >= vocab_size:
            token = hf.id_to_token(max(ids))
            fail(f'the prompt has the token {token!a}, which the model does not know; write it without')
        return ids

    def decode(ids):
        return hf.decode(ids, skip_special_tokens=not with_special)   # ids beyond its vocabulary have no text

    return encode, decode


def cached_decoder(record):
    """(decode, first_id), without downloading anything: a training does not wait for a network. decode leaves out
    special tokens, and is None, which is said, if the tokenizer is not on this machine. first_id is the token to
    begin a text with: the end of a document where tokens are words, else a new line."""
    if record['kind'] == 'ids':
        print('meta.pkl does not say what its tokens mean: no text, no bits per character')
        return None, 0
    try:
        if record['kind'] == 'gpt2' and 'bpe' not in record and not is_gpt2_cached():
            raise SystemExit
        encode, decode = get_codec(record, with_special=False)
        first_id = GPT2_END if record['kind'] == 'gpt2' else encode(record.get('eos') or '\n')[0]
        return decode, first_id
    except SystemExit:   # a package or the vocabulary is missing
        print('the tokenizer is not on this machine: no text, no bits per character')
        return None, 0


# -----------------------------------------------------------------------------
# GPT-2's tokenizer, by tiktoken

def gpt2_encoding(record):
    """tiktoken's GPT-2 Encoding, from the tokens in the record where it has them."""
    try:
        check_record({'kind': 'gpt2', **record})   # tiktoken would end with a panic of Rust's
        import tiktoken
        if 'bpe' not in record:
            return tiktoken.get_encoding('gpt2')   # downloaded once, then kept in TIKTOKEN_CACHE_DIR
        ranks = {token.encode('latin-1'): rank for rank, token in enumerate(record['bpe'])}
        return tiktoken.Encoding('gpt2', pat_str=GPT2_SPLIT, mergeable_ranks=ranks,
                                 special_tokens={'<|endoftext|>': GPT2_END})
    except ImportError:
        fail("GPT-2's tokenizer needs the package tiktoken: pip install tiktoken")
    except NotPlain as e:
        fail(f"the model's vocabulary is not GPT-2's: {e}")
    except OSError as e:
        fail(f"GPT-2's vocabulary could not be fetched ({type(e).__name__}); connect once, or set TIKTOKEN_CACHE_DIR "
             'to a folder that has it')


def gpt2_tokens(record):
    """The bytes of GPT-2's 50,256 tokens, in order."""
    gpt2 = gpt2_encoding(record)
    return [gpt2.decode_single_token_bytes(i) for i in range(GPT2_END)]


def is_gpt2_cached():
    """Whether tiktoken has downloaded GPT-2's vocabulary: it names a file by the sha1 of its URL."""
    cache = (os.environ.get('TIKTOKEN_CACHE_DIR') or os.environ.get('DATA_GYM_CACHE_DIR')
             or os.path.join(tempfile.gettempdir(), 'data-gym-cache'))
    url = 'https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/vocab.bpe'
    return os.path.exists(os.path.join(cache, hashlib.sha1(url.encode()).hexdigest()))


# -----------------------------------------------------------------------------
# somebody's tokenizer, by transformers

def hub_id(name):
    """What to ask transformers for: the name, but where a folder here is called as a well-known model, which is on the
    Hub, its whole name: transformers would take the folder."""
    if name in WELL_KNOWN and os.path.exists(name):
        print(f'{name} is the model on the Hugging Face Hub; for the folder {name} write ./{name}', file=sys.stderr)
        return f'{WELL_KNOWN[name]}/{name}'
    return name


def check_transformers(what):
    """Exit unless the package transformers is there, and works. what: what needs it, to begin a message with."""
    if importlib.util.find_spec('transformers') is None:
        fail(f'{what} needs the package transformers: pip install transformers')
    if sys.flags.optimize > 1:   # it makes its documentation when it is imported, and fails without its docstrings
        fail(f'{what} needs the package transformers, which does not work with python -OO; leave -OO away')


def load_hf_tokenizer(name, what):
    """transformers' fast tokenizer of a Hugging Face Hub id or folder, which truncates and pads nothing. what: how
    the user asked for it, to begin a message with."""
    check_transformers(what)
    source = hub_id(name)
    try:
        from transformers import AutoTokenizer
        with silent_stderr():
            hf = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        hf.backend_tokenizer.no_truncation()   # as some were saved
        hf.backend_tokenizer.no_padding()
        known = set(hf.get_vocab()) - set(hf.all_special_tokens)
    except (KeyboardInterrupt, MemoryError):
        raise
    except BaseException as e:   # a hub, a cache and strangers' files can raise anything; a panic is no Exception
        fail(f'{what} cannot be loaded: {first_line(e)}')
    if not known:   # what transformers makes of a model's folder without them
        fail(f'{what} has no tokenizer: tokenizer.json, or vocab.json and merges.txt, is missing there; '
             'put the files of the tokenizer there')
    return hf


def hf_record(hf):
    """The record of a tokenizer from load_hf_tokenizer."""
    end = hf.eos_token if hf.eos_token_id is not None else None   # some name one that they do not have
    return {'kind': 'hf', 'json': hf.backend_tokenizer.to_str(), 'eos': end}
