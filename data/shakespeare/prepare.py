"""
Turn Shakespeare's plays (1 MB of them), or your own text, into GPT-2's tokens:
train.bin and val.bin.

    python data/shakespeare/prepare.py              # input.txt, downloaded once
    python data/shakespeare/prepare.py a.txt b.txt  # UTF-8, in this order
"""

import argparse
import os
import sys

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(here))   # data/, for common.py: what the prepare.py scripts share
from common import begin, find_text, write_token_dataset   # noqa: E402

URL = 'https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt'

if __name__ == '__main__':
    begin()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('texts', nargs='*', help='text files, UTF-8')
    parser.add_argument('--tokenizer', default='gpt2', help="'gpt2', or a Hugging Face tokenizer's Hub id or folder")
    args = parser.parse_args()
    write_token_dataset(find_text(args.texts, os.path.join(here, 'input.txt'), URL), here, args.tokenizer)
