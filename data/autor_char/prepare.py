"""
Turn your own texts into character ids: train.bin, val.bin and meta.pkl. Or into
pieces of words, learned from them; or into the vocabulary of a model.

    python data/autor_char/prepare.py livros/      # all .txt files in a folder
    python data/autor_char/prepare.py a.txt b.txt
    python data/autor_char/prepare.py livros/ --vocab_size=1024
    python data/autor_char/prepare.py livros/ --vocab=assets/eca-mini
"""

import os
import sys
from pathlib import Path

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(os.path.dirname(here)))   # the repository, for support/
import support.interrupt   # noqa: E402, F401   first: from here on Ctrl-C ends the script without a traceback
from support.dataset import begin, command_line   # noqa: E402
from support.errors import fail   # noqa: E402
from support.texts import read_text   # noqa: E402
from support.vocabulary import add_options, write_dataset   # noqa: E402


def find_files(names):
    """The text files that are named, or lie somewhere in folders that are named; each once."""
    paths = []
    for name in names:
        found = [Path(name)]
        if os.path.isdir(name):
            found = sorted(path for path in Path(name).rglob('*') if is_text_file(path))
        if not found:
            fail(f'there is no .txt file in {name}; name the folder that has them')
        paths += [path for path in found if path.resolve() not in map(Path.resolve, paths)]
    return paths


def is_text_file(path):
    """Whether a path in a folder is a text. (A Mac's ._NAME.txt is a note about NAME.txt.)"""
    return path.suffix.lower() == '.txt' and path.is_file() and not path.name.startswith('._')


if __name__ == '__main__':
    begin()
    parser = command_line(__doc__, help='text files, UTF-8, or folders that have .txt files somewhere in them')
    add_options(parser, 'vocab_size', 'vocab')
    args = parser.parse_args()
    if not args.texts:
        fail('no text is named; write python data/autor_char/prepare.py FOLDER, a folder with .txt files')
    texts = []
    for path in find_files(args.texts):
        texts.append(read_text(str(path)).strip('\n'))
        print(f'text: {path}, {len(texts[-1]):,} characters')
    write_dataset('\n\n'.join(texts), here, args)
