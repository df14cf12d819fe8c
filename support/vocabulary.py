"""
Vocabularies for the prepare.py scripts beyond the text's own characters: pieces of words learned from the text, or
those that a model has. Needs the package tokenizers for pieces, and torch to read a run of train.py's.
"""

import os
import unicodedata
from collections import Counter

from support.dataset import (TOKENIZER, Encoder, count_train, gpt2_encoder, named_encoder, write_char_dataset,
                             write_token_dataset)
from support.errors import fail
from support.texts import PIECE
from support.tokenizer import WELL_KNOWN, is_byte_level, read_hf

OPTIONS = {
    'vocab_size': dict(type=int, metavar='N', help='learn N pieces of words from the text, such as 2048'),
    'vocab': dict(type=os.path.expanduser, metavar='FOLDER',
                  help="take a model's vocabulary, to go on training it: a run's folder"),
    'tokenizer': TOKENIZER,
}
# characters that stand in for each other, the best first
ALIKE = ('"“”„‟«»″', "'’‘‚‛′`´", '—–―‒-', '-‐‑−')
MOST_SHOWN = 20       # of the characters that a vocabulary lacks
MOST_LEFT_OUT = 0.1   # of a text; what lost more has little to teach


def add_options(parser, *names):
    """Give the parser of a prepare.py those of OPTIONS that are named, of which a user may take one."""
    one_of = parser.add_mutually_exclusive_group()
    for name in names:
        one_of.add_argument(f'--{name}', **OPTIONS[name])


def write_dataset(text, folder, args):
    """Write the data set of a text into folder, in the vocabulary that the parsed options ask for; in characters where
    the script has no --tokenizer, and none was asked for."""
    asked = vars(args)
    if asked.get('vocab_size') is not None:
        write_token_dataset(text, folder, learn_pieces(text, args.vocab_size))
    elif asked.get('vocab') is not None:
        write_in_vocabulary(text, folder, args.vocab)
    elif 'tokenizer' in asked:
        write_token_dataset(text, folder, named_encoder(args.tokenizer))
    else:
        write_char_dataset(text, folder)


def learn_pieces(text, vocab_size):
    """The Encoder of vocab_size pieces of words, learned from the text's part for training: byte-level BPE (Sennrich et
    al. 2016, Radford et al. 2019). They are the 256 bytes, so that any text has its ids, and the pairs of pieces that
    were most frequent when they were merged. The same text gives the same pieces on any machine. Exits if vocab_size is
    out of range."""
    if not 257 <= vocab_size <= 65536:
        fail(f'vocab_size = {vocab_size} is invalid: it must be between 257 (the 256 bytes, and a piece) and 65,536')
    try:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    except ImportError:
        fail('--vocab_size needs the package tokenizers: pip install tokenizers')
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)   # cuts as GPT-2: no piece reaches over a word
    bpe.decoder = decoders.ByteLevel()
    # a pair that occurs once is no piece: it is learned by heart
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, min_frequency=2, show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    n = count_train(text)
    bpe.train_from_iterator((text[start:min(start + PIECE, n)] for start in range(0, n, PIECE)), trainer)
    n_pieces = bpe.get_vocab_size()
    if n_pieces < vocab_size:
        print(f'the text gives {n_pieces:,} pieces, not {vocab_size:,}: no other pair occurs twice in it')
    record = {'kind': 'hf', 'json': bpe.to_str(), 'eos': None}
    return Encoder('of the text', bpe, {'vocab_size': n_pieces, 'tokenizer': record})


def write_in_vocabulary(text, folder, name):
    """As write_char_dataset or write_token_dataset, in the vocabulary of the model that --vocab names. What the text
    has and the vocabulary lacks is said, and replaced or left out."""
    record = load_vocabulary(name)
    if record is not None and record['kind'] == 'char':
        known = set(record['itos'])
        if max(map(len, known)) > 1:
            fail(f'vocab = {name} has a vocabulary of words; --vocab takes characters, or pieces of words')
        write_char_dataset(adapt(text, known, name), folder, record['itos'])
        return
    encoder = named_encoder(name) if record is None else record_encoder(name, record)
    if encoder.meta is not None and not is_byte_level(encoder.meta['tokenizer']):
        known = {c for c in set(text).union(*ALIKE) if encoder.is_known(c)}
        text = adapt(text, known, name)
    write_token_dataset(text, folder, encoder)


def load_vocabulary(name):
    """The record of the tokenizer of the model in a run's folder or file; None for what transformers is to load."""
    is_named = name in WELL_KNOWN or '/' in name
    if not is_named and not os.path.exists(name):
        fail(f'there is no {name}; --vocab= takes the folder of a run, a ckpt.pt, or the folder of a GPT-2')
    from support.checkpoints import checkpoint_tokenizer, find_checkpoint, load_checkpoint   # torch, for this alone
    path = find_checkpoint(name)
    if path is None:
        return None
    _, checkpoint = load_checkpoint(path)
    return checkpoint_tokenizer(checkpoint)


def record_encoder(name, record):
    """The Encoder of the tokens in a model's record. Exits if it has none, or they are of no text that is known."""
    if record['kind'] == 'gpt2':
        return gpt2_encoder(record)
    if record['kind'] == 'ids':
        fail(f"vocab = {name}: the text of the model's tokens is not known")
    fast = read_hf(record)
    vocab_size = 1 + max(fast.get_vocab().values())
    return Encoder(name, fast, {'vocab_size': vocab_size, 'tokenizer': record})


# -----------------------------------------------------------------------------
# characters that a vocabulary lacks

def adapt(text, known, name):
    """A text in the known characters, a set: the others are replaced by what is like them, or left out, and it is
    printed which, how often, and by what. Exits if that is too much of the text."""
    missing = count_missing(text, known)
    for form in ('NFC', 'NFD'):   # accents as one character with their letter, or as one of their own
        other = unicodedata.normalize(form, text) if missing else text
        if count_missing(other, known).total() < missing.total():
            print(f'accents are written in {form} here, as in the vocabulary of {name}')
            text = other
            missing = count_missing(text, known)
    if not missing:
        return text
    becomes = {c: stand_in(c, known) for c in missing}
    n_left_out = sum(n for c, n in missing.items() if not becomes[c])
    if n_left_out > MOST_LEFT_OUT * len(text):
        fail(f'the vocabulary of {name} lacks {n_left_out:,} of the {len(text):,} characters of the text, as if it '
             'were not made for it; take the vocabulary of another model, or of the text itself')
    print(f'the vocabulary of {name} lacks {len(missing):,} of the characters of the text, which occur '
          f'{missing.total():,} times among {len(text):,}:')
    for c, n in missing.most_common(MOST_SHOWN):
        fate = f'becomes {becomes[c]!r}' if becomes[c] else 'is left out'
        print(f'  {c!r} (U+{ord(c):04X}), {n:,} times, {fate}')
    if len(missing) > MOST_SHOWN:
        rest = [c for c, _ in missing.most_common()[MOST_SHOWN:]]
        n_without = sum(not becomes[c] for c in rest)
        print(f'  and {len(rest):,} more, of which {n_without:,} are left out')
    return text.translate(str.maketrans(becomes))


def count_missing(text, known):
    """How often each character occurs in a text that is not in the set of those that are known."""
    return Counter({c: n for c, n in Counter(text).items() if c not in known})


def stand_in(char, known):
    """What stands in for a character in the known ones: one that looks alike, its letter without the accent, or ''."""
    for alike in ALIKE:
        if char in alike:
            found = [c for c in alike if c in known]
            if found:
                return found[0]
    plain = unicodedata.normalize('NFKD', char)
    plain = ''.join(c for c in plain if not unicodedata.combining(c))
    return plain if set(plain) <= known else ''
