"""
Tokenizers: text to token ids and back; what data sets and checkpoints record of theirs; pretrained models with theirs.

That record is a plain dict, and all that encoding and decoding need:
    {'kind': 'char', 'itos': [...]}   the characters, each id a place in the list
    {'kind': 'gpt2'}                  GPT-2's, which tiktoken fetches once; or, with 'bpe', its tokens in Latin-1
    {'kind': 'hf', 'json': '...', 'eos': '...'}   a Hugging Face tokenizer.json, the token that ends a document
"""

import functools
import hashlib
import io
import math
import os
import pickle
import sys
import tempfile
import unicodedata
from pathlib import Path

import numpy as np

from checkpoint import load_checkpoint
from model import GPT
from runtime import fail, first_line

OPENAI_MODELS = ('gpt2', 'gpt2-medium', 'gpt2-large', 'gpt2-xl')


class PlainUnpickler(pickle.Unpickler):
    """Admits no class and no function, only containers, text and numbers: a payload has nothing to call."""
    def find_class(self, module, name):
        raise pickle.UnpicklingError(f'it asks for {module}.{name}')


def load_meta(path):
    """meta.pkl as a prepare.py writes it, None if absent: vocab_size, and either itos (id -> character) with stoi
    (character -> id) or a tokenizer; with the tokenizer in either case."""
    if not os.path.exists(path):
        return None
    try:
        with open(path, 'rb') as f:
            meta = PlainUnpickler(io.BytesIO(f.read())).load()
        if 'tokenizer' not in meta:
            by_char = {meta['itos'][i]: i for i in range(meta['vocab_size'])}
            if meta['stoi'] != by_char or not len(by_char) == len(meta['itos']) == meta['vocab_size']:
                raise ValueError('stoi, itos and vocab_size disagree')
            meta['tokenizer'] = {'kind': 'char', 'itos': [meta['itos'][i] for i in range(meta['vocab_size'])]}
        elif not (meta['tokenizer']['kind'] == 'hf' and type(meta['vocab_size']) is int and meta['tokenizer']['json']):
            raise ValueError('this is no tokenizer')
        return meta
    except Exception as e:   # bytes from anywhere can make pickle raise anything
        reason = f' ({e})' if isinstance(e, pickle.UnpicklingError) else ''
        fail(f'{path} is not a vocabulary{reason}; run the prepare.py beside it again')


def count_tokens(data_dir, split, block_size):
    """The number of tokens in a data set's train.bin or val.bin, which must hold a window of block_size at least."""
    path, data = os.path.join(data_dir, f'{split}.bin'), Path(__file__).parent / 'data'
    if not os.path.exists(path):
        there = sorted(p.parent.name for p in data.glob('*/prepare.py'))
        name = os.path.basename(os.path.normpath(data_dir))
        is_one = name in there and os.path.abspath(data_dir) == os.path.abspath(data / name)
        first = f'run python data/{name}/prepare.py first, or ' if is_one else ''
        fail(f'there is no {path}; {first}choose a --dataset of: {" ".join(there)}')
    n_tokens = os.path.getsize(path) // 2
    if os.path.getsize(path) % 2:
        fail(f'{path} has an odd number of bytes, and tokens have two each; prepare it again')
    if n_tokens <= block_size:
        fail(f'{path} has {n_tokens:,} tokens, block_size = {block_size} needs at least {block_size + 1:,}; take a '
             'longer text or a smaller block_size')
    return n_tokens


def load_tokenizer(data_dir):
    """(tokenizer, vocab_size) of a data set: its meta.pkl's, or GPT-2's where there is none."""
    meta = load_meta(os.path.join(data_dir, 'meta.pkl'))
    if meta is None:
        return {'kind': 'gpt2'}, 50304   # GPT-2's 50257, padded: see GPTConfig
    is_char = meta['tokenizer']['kind'] == 'char'
    return meta['tokenizer'], meta['vocab_size'] if is_char else math.ceil(meta['vocab_size'] / 64) * 64


def fits(tokenizer, vocab_size, model_vocab_size):
    """Whether a vocabulary is the model's. One of words may be padded to a multiple of 64; OpenAI's GPT-2 is not."""
    is_char = tokenizer['kind'] == 'char'
    return vocab_size == model_vocab_size if is_char else vocab_size <= math.ceil(model_vocab_size / 64) * 64


def checkpoint_tokenizer(checkpoint, data):
    """The tokenizer of a checkpoint. One that nanoGPT wrote names its data set instead, a folder in data."""
    if 'tokenizer' in checkpoint:
        return checkpoint['tokenizer']
    folder = os.path.join(data, checkpoint.get('config', {}).get('dataset', ''))
    tokenizer, vocab_size = load_tokenizer(folder)
    if not fits(tokenizer, vocab_size, checkpoint['model_args']['vocab_size']):
        fail(f'the checkpoint has no vocabulary, and {folder}/meta.pkl is missing or another; prepare its text again')
    return tokenizer


def match_tokenizer(data_dir, tokenizer, vocab_size, own, model_vocab_size):
    """End the script unless a data set, in the tokenizer that load_tokenizer gives for it, is one for a model with a
    tokenizer and a vocabulary of its own."""
    is_same = all(tokenizer.get(k) == own.get(k) for k in ('kind', 'itos', 'json'))
    if not is_same or not fits(tokenizer, vocab_size, model_vocab_size):
        fail(f'the vocabulary in {data_dir} is not that of the model; prepare the text with the same one')
    for split in ('train', 'val'):   # not all of a large file: the first million, the last, a thousand between
        data = np.memmap(os.path.join(data_dir, f'{split}.bin'), dtype=np.uint16, mode='r')
        for part in (data[:10**6], data[-10**6:], data[::len(data) // 1000 + 1]):
            check_ids(part, model_vocab_size, data_dir)


def check_ids(ids, vocab_size, data_dir):
    """End the script if one of the ids (an array) is beyond the model's vocabulary."""
    if ids.max() >= vocab_size:
        fail(f'{data_dir} has the token {ids.max()}, beyond the {vocab_size} that the model knows; prepare it again')


def load_pretrained(name, dropout=0.0, block_size=None):
    """(model, tokenizer): a GPT on the CPU with the weights of a GPT-2, named by its Hugging Face Hub id or its folder;
    and its tokenizer, whole, so that later no network is needed."""
    if name not in OPENAI_MODELS and '/' not in name and not os.path.isdir(name):
        fail(f"init_from = {name} is not known; use 'scratch', 'resume', {', '.join(OPENAI_MODELS)}, OWNER/NAME of a "
             'GPT-2 on the Hugging Face Hub, or a folder that has one')
    try:
        from transformers import AutoTokenizer
        from transformers.utils.logging import disable_progress_bar
    except ImportError:
        fail(f'init_from = {name} needs the package transformers: pip install transformers')
    try:
        if not sys.stderr.isatty():
            disable_progress_bar()
        model = GPT.from_pretrained(name, dropout)
        model.crop_block_size(block_size or model.config.block_size)
        if name in OPENAI_MODELS:
            return model, {'kind': 'gpt2', 'bpe': [token.decode('latin-1') for token in gpt2_tokens({})]}
        hf = AutoTokenizer.from_pretrained(name)
        hf.backend_tokenizer.no_truncation()   # as some were saved
        hf.backend_tokenizer.no_padding()
        return model, {'kind': 'hf', 'json': hf.backend_tokenizer.to_str(), 'eos': hf.eos_token}
    except Exception as e:   # a hub, a cache and strangers' files can raise anything
        fail(f'init_from = {name} cannot be loaded: {first_line(e)}')


def load_model(init_from, out_dir):
    """(model, tokenizer) to write with: the best of the run in out_dir for 'resume', else as load_pretrained."""
    if init_from != 'resume':
        return load_pretrained(init_from)
    model, checkpoint = load_checkpoint(os.path.join(out_dir, 'ckpt.pt'))
    return model, checkpoint_tokenizer(checkpoint, os.path.join(os.path.dirname(__file__), 'data'))


# where GPT-2 cuts a text before it merges bytes: words, numbers, signs and spaces never go together
GPT2_SPLIT = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def gpt2_tokens(tokenizer):
    """The bytes of GPT-2's 50,256 tokens, in order."""
    gpt2 = gpt2_encoding(tokenizer)
    return [gpt2.decode_single_token_bytes(i) for i in range(50256)]


def gpt2_encoding(tokenizer):
    """tiktoken's GPT-2 Encoding, from the tokens in the tokenizer where it has them."""
    try:
        import tiktoken
        if 'bpe' not in tokenizer:
            return tiktoken.get_encoding('gpt2')   # fetched once, then kept in TIKTOKEN_CACHE_DIR
        ranks = {token.encode('latin-1'): rank for rank, token in enumerate(tokenizer['bpe'])}
        return tiktoken.Encoding('gpt2', pat_str=GPT2_SPLIT, mergeable_ranks=ranks,
                                 special_tokens={'<|endoftext|>': 50256})
    except ImportError:
        fail("GPT-2's tokenizer needs the package tiktoken: pip install tiktoken")
    except OSError as e:
        fail(f"GPT-2's vocabulary could not be fetched ({type(e).__name__}); connect once, or set TIKTOKEN_CACHE_DIR "
             'to a folder that has it')


def get_codec(tokenizer, with_special=True):
    """(encode, decode) of a tokenizer: text -> list of ids, list of ids -> text, with <|endoftext|> and its like or
    without."""
    if tokenizer['kind'] == 'gpt2':
        gpt2 = gpt2_encoding(tokenizer)
        return (lambda text: gpt2.encode(text, allowed_special='all'),
                lambda ids: gpt2.decode([i for i in ids if i < 50256 + with_special]))   # nor has padding a meaning
    if tokenizer['kind'] == 'hf':
        try:
            from tokenizers import Tokenizer
        except ImportError:
            fail("this model's tokenizer needs the package tokenizers: pip install tokenizers")
        hf = Tokenizer.from_str(tokenizer['json'])

        def encode(text):
            try:
                return hf.encode(text, add_special_tokens=False).ids or [0]   # some have no token for white space
            except Exception as e:   # it has no class of its own
                fail(f"the model's tokenizer cannot read the prompt: {first_line(e)}; write it otherwise")

        return encode, lambda ids: hf.decode(ids, skip_special_tokens=not with_special)
    if tokenizer['kind'] != 'char':
        fail(f'the checkpoint has a tokenizer of the kind {tokenizer["kind"]!r}; this version knows char, gpt2 and hf')
    itos = tokenizer['itos']
    stoi = {c: i for i, c in enumerate(itos)}

    def encode(text):
        if text == '\n' and '\n' not in stoi:   # a prompt by default, in a vocabulary from a text of one line
            return [0]
        # a Mac may write an accent as a character of its own; so may a text that it was trained on
        forms = (text, *(unicodedata.normalize(form, text) for form in ('NFC', 'NFD')))
        text = next((form for form in forms if stoi.keys() >= set(form)), text)
        unknown = sorted(set(text) - stoi.keys())
        if unknown:
            fail('the prompt has characters that the model has never seen: '
                 + ' '.join(f'{c!r} (U+{ord(c):04X})' for c in unknown) + '; write it without them')
        return [stoi[c] for c in text]

    return encode, lambda ids: ''.join(itos[i] for i in ids)


def read_prompt(start):
    """The text that `start` means: itself, with \\n for a new line; a file's for FILE:name; standard input's for -."""
    try:
        if start == '-':
            text = io.TextIOWrapper(sys.stdin.buffer, encoding='utf-8-sig').read()   # with \n for Windows' \r\n
            start = text.removesuffix('\n')   # echo's
        elif start.startswith('FILE:'):
            with open(start[5:], encoding='utf-8-sig') as f:
                start = f.read()
        else:
            start = start.replace('\\n', '\n')
    except (OSError, UnicodeDecodeError) as e:
        fail(f'the prompt {"in standard input" if start == "-" else f"file {start[5:]}"} cannot be read: '
             + getattr(e, 'strerror', 'it is not UTF-8'))
    if not start:
        fail('the prompt is empty; give at least one character, as in --start="A"')
    return start


def find_decode(tokenizer):
    """(decode, first): get_codec's decode without special tokens, None if the tokenizer is not at hand, which is said;
    and the id to begin a text from, that of a new line, or of the end of a document where words are tokens. Nothing is
    fetched: a training need not wait for a network."""
    cache = os.environ.get('TIKTOKEN_CACHE_DIR') or os.environ.get('DATA_GYM_CACHE_DIR') or os.path.join(
        tempfile.gettempdir(), 'data-gym-cache')   # as tiktoken looks for it; a file has the sha1 of its URL for a name
    url = 'https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/vocab.bpe'
    is_cached = os.path.exists(os.path.join(cache, hashlib.sha1(url.encode()).hexdigest()))
    try:
        if tokenizer['kind'] == 'gpt2' and 'bpe' not in tokenizer and not is_cached:
            raise SystemExit
        encode, decode = get_codec(tokenizer, with_special=False)
        return decode, 50256 if tokenizer['kind'] == 'gpt2' else encode(tokenizer.get('eos') or '\n')[0]
    except SystemExit:   # no package, no vocabulary: training goes on all the same
        print('the tokenizer is not on this machine: no text, no bits per character')
        return None, 0


@functools.cache
def count_tokens_per_char(decode, data_dir):
    """Tokens per character of val.bin, its first token left out, since no model predicts it. The ends of documents are
    not characters. 0 if decode is None. It reads all of val.bin, once."""
    if decode is None:
        return 0
    ids = np.fromfile(os.path.join(data_dir, 'val.bin'), dtype=np.uint16)[1:]
    return len(ids) / sum(len(decode(ids[i:i + 2**20].tolist())) for i in range(0, len(ids), 2**20))


def unigram_loss(data_dir, vocab_size, most=10**7):
    """The loss on val.bin, in nats per token, of a model that knows only how frequent each token is in train.bin (of
    long ones, their first `most` tokens): what the first minutes of a training have to beat."""
    train, val = (np.bincount(np.fromfile(os.path.join(data_dir, split), np.uint16, most), minlength=vocab_size)
                  for split in ('train.bin', 'val.bin'))
    return float(-(val * np.log((train + 1) / (train + 1).sum())).sum() / val.sum())   # + 1: none is impossible
