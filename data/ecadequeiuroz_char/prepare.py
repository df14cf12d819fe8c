"""
Turn the works of Eça de Queiroz, or your own text, into character ids:
train.bin, val.bin and meta.pkl.

    python data/ecadequeiuroz_char/prepare.py            # Eça, downloaded once
    python data/ecadequeiuroz_char/prepare.py a.txt b.txt  # in this order

Without file names it takes input_eca.txt beside this script; if that is not
there, downloads it from Kaggle; if that fails, takes amostra.txt, a short
sample that comes with the repository.
"""

import io
import os
import sys
import zipfile

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(os.path.dirname(here)))   # the repository, for support/
import support.interrupt   # noqa: E402, F401   first: from here on Ctrl-C ends the script without a traceback
from support.dataset import MIN_CHARS, begin, command_line, write_files   # noqa: E402
from support.errors import first_line   # noqa: E402
from support.texts import check_download, download, read_text   # noqa: E402
from support.vocabulary import add_options, write_dataset   # noqa: E402

URL = 'https://www.kaggle.com/api/v1/datasets/download/leite0407/ea-de-queiroz'
PAGE = 'https://www.kaggle.com/datasets/leite0407/ea-de-queiroz'
MAX_BYTES = 200_000_000   # eca.txt has 8.5 million


def download_eca():
    """The text of eca.txt in Kaggle's zip, as bytes that are UTF-8. Raises whatever went wrong."""
    print(f'downloading {URL}')
    with zipfile.ZipFile(io.BytesIO(download(URL, MAX_BYTES))) as archive:
        members = [m for m in archive.infolist() if os.path.basename(m.filename) == 'eca.txt']
        if not members:
            raise ValueError('there is no eca.txt in the zip')
        if '..' in members[0].filename.replace('\\', '/').split('/'):
            raise ValueError(f'the zip has a file named {members[0].filename}, which nobody means well by')
        if members[0].file_size > MAX_BYTES:
            raise ValueError(f'eca.txt would have {members[0].file_size:,} bytes, which cannot be right')
        data = archive.read(members[0])   # checks its CRC
    check_download(data, MIN_CHARS)
    return data


def find_text(paths):
    """The text to prepare, from the first place that has one."""
    if paths:
        print('text:', ' + '.join(paths))
        return ''.join(read_text(path) for path in paths)
    input_path = os.path.join(here, 'input_eca.txt')
    sample_path = os.path.join(here, 'amostra.txt')
    if not os.path.exists(input_path):
        try:
            write_files(here, {'input_eca.txt': download_eca()})
        except Exception as e:   # no network, a moved page, a broken zip, a full disk: the sample is always there
            print(f'text: {sample_path}, a SAMPLE of 140 KB, because the download failed ({first_line(e)}). For the '
                  f'real works, get eca.txt from {PAGE}, save it as {input_path} and run this again')
            return read_text(sample_path)
    print(f'text: {input_path}')
    return read_text(input_path)


if __name__ == '__main__':
    begin()
    parser = command_line(__doc__)
    add_options(parser, 'vocab')
    args = parser.parse_args()
    write_dataset(find_text(args.texts), here, args)
