"""
Turn Shakespeare's plays (1 MB of them), or your own text, into character ids:
train.bin, val.bin and meta.pkl.

    python data/shakespeare_char/prepare.py              # input.txt, downloaded
    python data/shakespeare_char/prepare.py a.txt b.txt  # UTF-8, in this order
"""

import os
import sys

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(os.path.dirname(here)))   # the repository, for support/
import support.interrupt   # noqa: E402, F401   first: from here on Ctrl-C ends the script without a traceback
from support.dataset import begin, command_line, find_text   # noqa: E402
from support.vocabulary import add_options, write_dataset   # noqa: E402

URL = 'https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt'
SHA256 = '86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed'   # of its 1,115,394 bytes, by sha256sum

if __name__ == '__main__':
    begin()
    parser = command_line(__doc__)
    add_options(parser, 'vocab')
    args = parser.parse_args()
    text = find_text(args.texts, os.path.join(here, 'input.txt'), URL, SHA256)
    write_dataset(text, here, args)
