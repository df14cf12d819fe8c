"""
Tokenizers: text to token ids and back.

A data set and a checkpoint keep a record of their tokenizer: a plain dict with all that encoding and decoding need.

    {'kind': 'char', 'itos': [...]}               characters; the id of one is its index in the list
    {'kind': 'gpt2'}                              GPT-2's, which tiktoken downloads once
    {'kind': 'gpt2', 'bpe': [...]}                the same with its tokens, as Latin-1 strings: nothing to download
    {'kind': 'hf', 'json': '...', 'eos': '...'}   a Hugging Face tokenizer.json, and the token that ends a document
"""

import hashlib
import io
import math
import os
import pickle
import tempfile
import unicodedata

from support.errors import fail, first_line

# where GPT-2 cuts a text before it merges bytes: words, numbers, punctuation and white space stay apart
GPT2_SPLIT = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
GPT2_END = 50256   # the id of <|endoftext|>; the 50,256 tokens before it are text


# -----------------------------------------------------------------------------
# records

class PlainUnpickler(pickle.Unpickler):
    """Loads containers, strings and numbers only, no class and no function: a file from a stranger cannot run
    code."""

    def find_class(self, module, name):
        raise pickle.UnpicklingError(f'it asks for {module}.{name}')


def load_meta(path):
    """The dict in a data set's meta.pkl, with its tokenizer's record under 'tokenizer'; None if there is no file.

    On the disk it has vocab_size, and either itos (id -> character) and stoi (character -> id), as nanoGPT writes
    them, or a record. Exits if the file is something else.
    """
    if not os.path.exists(path):
        return None
    try:
        with open(path, 'rb') as f:
            meta = PlainUnpickler(io.BytesIO(f.read())).load()
        if 'tokenizer' in meta:
            check_hf_meta(meta)
        else:
            check_char_meta(meta)
            chars = [meta['itos'][i] for i in range(meta['vocab_size'])]
            meta['tokenizer'] = {'kind': 'char', 'itos': chars}
        return meta
    except Exception as e:   # bytes from anywhere can make pickle raise anything
        reason = f' ({e})' if isinstance(e, pickle.UnpicklingError) else ''
        fail(f'{path} is not a vocabulary{reason}; run the prepare.py beside it again')


def check_char_meta(meta):
    """Raise ValueError or KeyError unless itos, stoi and vocab_size describe the same characters."""
    id_of = {meta['itos'][i]: i for i in range(meta['vocab_size'])}
    if meta['stoi'] != id_of or not len(id_of) == len(meta['itos']) == meta['vocab_size']:
        raise ValueError('stoi, itos and vocab_size disagree')


def check_hf_meta(meta):
    """Raise ValueError or KeyError unless this is the record of a Hugging Face tokenizer, and its size."""
    record = meta['tokenizer']
    if record['kind'] != 'hf' or not record['json'] or type(meta['vocab_size']) is not int:
        raise ValueError('this is not the record of a tokenizer')


def load_tokenizer(data_dir):
    """(record, vocab_size) of the tokenizer that a data set was prepared with: its meta.pkl's, or GPT-2's where there
    is none. Except for characters, vocab_size is padded to a multiple of 64, as in GPTConfig."""
    meta = load_meta(os.path.join(data_dir, 'meta.pkl'))
    if meta is None:
        return {'kind': 'gpt2'}, 50304
    record = meta['tokenizer']
    vocab_size = meta['vocab_size']
    if record['kind'] != 'char':
        vocab_size = pad_to_64(vocab_size)
    return record, vocab_size


def pad_to_64(n):
    """n, rounded up to a multiple of 64."""
    return math.ceil(n / 64) * 64


def fits(record, vocab_size, model_vocab_size):
    """Whether a model with model_vocab_size logits can have this tokenizer of vocab_size tokens. A vocabulary of
    words may be padded to a multiple of 64 on one side and not on the other (OpenAI's GPT-2 is not)."""
    if record['kind'] == 'char':
        return vocab_size == model_vocab_size
    return vocab_size <= pad_to_64(model_vocab_size)


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
    fail(f'the checkpoint has a tokenizer of the kind {record["kind"]!r}; this version knows char, gpt2 and hf')


def char_codec(record):
    itos = record['itos']
    stoi = {c: i for i, c in enumerate(itos)}

    def encode(text):
        if text == '\n' and '\n' not in stoi:   # the default prompt, and a vocabulary from a text of one line
            return [0]
        # a Mac may write é as e and an accent; so may the text that the model was trained on
        for form in (text, unicodedata.normalize('NFC', text), unicodedata.normalize('NFD', text)):
            if stoi.keys() >= set(form):
                return [stoi[c] for c in form]
        unknown = sorted(set(text) - stoi.keys())
        fail('the prompt has characters that the model has never seen: '
             + ' '.join(f'{c!r} (U+{ord(c):04X})' for c in unknown) + '; write it without them')

    def decode(ids):
        return ''.join(itos[i] for i in ids)

    return encode, decode


def gpt2_codec(record, with_special):
    gpt2 = gpt2_encoding(record)
    n_tokens = GPT2_END + 1 if with_special else GPT2_END

    def encode(text):
        return gpt2.encode(text, allowed_special='all')

    def decode(ids):
        return gpt2.decode([i for i in ids if i < n_tokens])   # the padding of the vocabulary has no text

    return encode, decode


def hf_codec(record, with_special, vocab_size):
    try:
        from tokenizers import Tokenizer
    except ImportError:
        fail("this model's tokenizer needs the package tokenizers: pip install tokenizers")
    hf = Tokenizer.from_str(record['json'])

    def encode(text):
        try:
            ids = hf.encode(text, add_special_tokens=False).ids or [0]   # some have no token for white space
        except Exception as e:   # it has no class of its own
            fail(f"the model's tokenizer cannot read the prompt: {first_line(e)}; write it otherwise")
        if vocab_size is not None and max(ids) >= vocab_size:
            token = hf.id_to_token(max(ids))
            fail(f'the prompt has the token {token!a}, which the model does not know; write it without')
        return ids

    def decode(ids):
        return hf.decode(ids, skip_special_tokens=not with_special)

    return encode, decode


def cached_decoder(record):
    """(decode, first_id), without downloading anything: a training does not wait for a network. decode leaves out
    special tokens, and is None, which is said, if the tokenizer is not on this machine. first_id is the token to
    begin a text with: the end of a document where tokens are words, else a new line."""
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
        import tiktoken
        if 'bpe' not in record:
            return tiktoken.get_encoding('gpt2')   # downloaded once, then kept in TIKTOKEN_CACHE_DIR
        ranks = {token.encode('latin-1'): rank for rank, token in enumerate(record['bpe'])}
        return tiktoken.Encoding('gpt2', pat_str=GPT2_SPLIT, mergeable_ranks=ranks,
                                 special_tokens={'<|endoftext|>': GPT2_END})
    except ImportError:
        fail("GPT-2's tokenizer needs the package tiktoken: pip install tiktoken")
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

def load_hf_tokenizer(name, what):
    """transformers' fast tokenizer of a Hugging Face Hub id or folder, which truncates and pads nothing. what: how
    the user asked for it, to begin a message with."""
    try:
        from transformers import AutoTokenizer
    except ImportError:
        fail(f'{what} needs the package transformers: pip install transformers')
    try:
        hf = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        hf.backend_tokenizer.no_truncation()   # as some were saved
        hf.backend_tokenizer.no_padding()
        return hf
    except Exception as e:   # a hub, a cache and strangers' files can raise anything
        fail(f'{what} cannot be loaded: {first_line(e)}')


def hf_record(hf):
    """The record of a tokenizer from load_hf_tokenizer."""
    return {'kind': 'hf', 'json': hf.backend_tokenizer.to_str(), 'eos': hf.eos_token}
