"""
Turn the works of Eça de Queiroz, or your own text, into the tokens of GPT-2 or
of another model: train.bin, val.bin and, except for GPT-2, meta.pkl.

    python data/ecadequeiuroz/prepare.py            # GPT-2's, made for English
    python data/ecadequeiuroz/prepare.py \\
        --tokenizer=pierreguillou/gpt2-small-portuguese     # for Portuguese
    python data/ecadequeiuroz/prepare.py a.txt b.txt        # UTF-8

The text of Eça is that of data/ecadequeiuroz_char, downloaded if need be.
"""

import argparse
import os
import sys

here = os.path.dirname(os.path.abspath(__file__))
data = os.path.dirname(here)
sys.path[:0] = [os.path.join(data, 'ecadequeiuroz_char'), data]   # for its prepare.py, and for common.py
from common import begin, write_token_dataset   # noqa: E402
from prepare import find_text   # noqa: E402

if __name__ == '__main__':
    begin()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('texts', nargs='*', help='text files, UTF-8')
    parser.add_argument('--tokenizer', default='gpt2', help="'gpt2', or a Hugging Face tokenizer's Hub id or folder")
    args = parser.parse_args()
    write_token_dataset(find_text(args.texts), here, args.tokenizer)
