"""
Turn your own texts into character ids: train.bin, val.bin and meta.pkl.

    python data/autor_char/prepare.py livros/      # all .txt files in a folder
    python data/autor_char/prepare.py a.txt b.txt
"""

import argparse
import os
import sys
from pathlib import Path

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(here))   # data/, for common.py: what the prepare.py scripts share
from common import begin, fail, read_text, write_char_dataset   # noqa: E402

if __name__ == '__main__':
    begin()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('texts', nargs='*', help='text files, UTF-8, or folders that have .txt files somewhere in them')
    args = parser.parse_args()
    paths = []
    for name in args.texts:
        found = [Path(name)]
        if os.path.isdir(name):
            found = sorted(path for path in Path(name).rglob('*') if path.suffix.lower() == '.txt' and path.is_file()
                           and not path.name.startswith('._'))   # which are a Mac's notes about a file, not a text
        if not found:
            fail(f'there is no .txt file in {name}; name the folder that has them')
        paths += [path for path in found if path.resolve() not in map(Path.resolve, paths)]   # each once
    if not paths:
        fail('no text is named; write python data/autor_char/prepare.py FOLDER, a folder with .txt files')
    texts = []
    for path in paths:
        # as Windows and Project Gutenberg write them: neither the mark at the beginning nor \r is something to learn
        texts.append(read_text(str(path)).removeprefix('\ufeff').replace('\r\n', '\n').replace('\r', '\n').strip('\n'))
        print(f'text: {path}, {len(texts[-1]):,} characters')
    write_char_dataset('\n\n'.join(texts), here)
