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
from support.dataset import begin, command_line   # noqa: E402
from support.vocabulary import add_options, write_dataset   # noqa: E402

if __name__ == '__main__':
    begin()
    parser = command_line(__doc__)
    add_options(parser, 'vocab_size', 'vocab', 'tokenizer')
    args = parser.parse_args()
    write_dataset(find_text(args.texts), here, args)
