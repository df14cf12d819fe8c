"""
Turn the works of Eça de Queiroz, or your own text, into pieces of words:
train.bin, val.bin and, except for GPT-2's pieces, meta.pkl.

    python data/ecadequeiuroz/prepare.py --vocab_size=2048  # learned from it
    python data/ecadequeiuroz/prepare.py            # GPT-2's, made for English
    python data/ecadequeiuroz/prepare.py \\
        --tokenizer=pierreguillou/gpt2-small-portuguese     # for Portuguese
    python data/ecadequeiuroz/prepare.py a.txt b.txt        # UTF-8

The text of Eça is that of data/ecadequeiuroz_char, downloaded if need be. The
folder holds one data set: the one prepared last.
"""

import os
import sys

here = os.path.dirname(os.path.abspath(__file__))
data = os.path.dirname(here)
sys.path.insert(0, os.path.dirname(data))                        # the repository, for support/
import support.interrupt   # noqa: E402, F401   first: from here on Ctrl-C ends the script without a traceback
sys.path.insert(0, os.path.join(data, 'ecadequeiuroz_char'))     # for its prepare.py, which finds the text
from prepare import find_text   # noqa: E402
from support.dataset import TOKENIZER, begin, command_line, named_encoder, write_token_dataset   # noqa: E402
from support.vocabulary import VOCAB, VOCAB_SIZE, learn_pieces, write_in_vocabulary   # noqa: E402

if __name__ == '__main__':
    begin()
    parser = command_line(__doc__)
    one_of = parser.add_mutually_exclusive_group()
    one_of.add_argument('--vocab_size', **VOCAB_SIZE)
    one_of.add_argument('--vocab', **VOCAB)
    one_of.add_argument('--tokenizer', **TOKENIZER)
    args = parser.parse_args()
    text = find_text(args.texts)
    if args.vocab_size is not None:
        write_token_dataset(text, here, learn_pieces(text, args.vocab_size))
    elif args.vocab is not None:
        write_in_vocabulary(text, here, args.vocab)
    else:
        write_token_dataset(text, here, named_encoder(args.tokenizer))
