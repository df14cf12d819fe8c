"""
Turn Shakespeare's plays (1 MB of them), or your own text, into character ids:
train.bin, val.bin and meta.pkl.

    python data/shakespeare_char/prepare.py              # input.txt, downloaded
    python data/shakespeare_char/prepare.py a.txt b.txt  # UTF-8, in this order
"""

import argparse
import os
import sys

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(here))   # data/, for common.py: what the prepare.py scripts share
from common import begin, find_text, write_char_dataset   # noqa: E402

URL = 'https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt'

if __name__ == '__main__':
    begin()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('texts', nargs='*', help='text files, UTF-8')
    args = parser.parse_args()
    write_char_dataset(find_text(args.texts, os.path.join(here, 'input.txt'), URL), here)
