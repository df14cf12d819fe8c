"""
Turn OpenWebText, or your documents, into GPT-2's tokens: train.bin, val.bin.

    python data/openwebtext/prepare.py --num_proc=8     # 54 GB cached, 17 here
    python data/openwebtext/prepare.py documents/*.jsonl  # or .parquet, .txt

A document is a row with a text in .jsonl and .parquet, a whole file in .txt.
Each ends with <|endoftext|>. One in 2000, and one at least, goes to val.bin:
of rows drawn at random, of .txt files the last. Memory stays within bounds
however large the corpus is: it passes through Hugging Face's cache on the
disk, whose place the variable HF_HOME sets.
"""

import math
import os
import sys

from tqdm import tqdm

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(os.path.dirname(here)))   # the repository, for support/
import support.interrupt   # noqa: E402, F401   first: from here on Ctrl-C ends the script without a traceback
from support.dataset import (TOKENIZER, begin, command_line, make_encoder, split_text,   # noqa: E402
                             write_token_files)
from support.errors import fail, first_line   # noqa: E402

# the scripts that data sets used to come with no longer run; this branch has the same documents as Parquet files
HUB_ID = 'Skylion007/openwebtext'
REVISION = 'refs/convert/parquet'
N_DOCUMENTS = 8_013_769
ROWS = 100   # in memory at once; a row of a text file has 64 thousand characters


def read_texts(files):
    """Rows of text files given as (path, size, time of change). A long file comes in pieces; the last one
    ends it."""
    for path, _, _ in files:
        try:
            with open(path, encoding='utf-8', newline='') as f:
                rest = f.read(1 << 16)
                while chunk := f.read(1 << 16):
                    *whole, rest = split_text(rest + chunk, 1 << 16)
                    yield from ({'text': piece, 'is_end': False} for piece in whole)
                yield {'text': rest, 'is_end': True}
        except UnicodeDecodeError:
            raise ValueError(f'{path} is not UTF-8') from None


def load_splits(paths, num_proc):
    """{'train': rows, 'test': rows}, each row with a 'text', and with 'is_end' where a document may have
    several."""
    if not paths:
        return split_rows(load_openwebtext(num_proc))
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        fail(f'there is no file {missing[0]}')
    kinds = {os.path.splitext(path)[1] for path in paths}
    if len(kinds) > 1 or not kinds <= {'.txt', '.jsonl', '.json', '.parquet'}:
        fail(f'the files end in {" ".join(sorted(kinds))}; give files of one kind: .jsonl, .parquet or .txt')
    if kinds == {'.txt'}:
        return split_text_files(paths)
    loader = 'parquet' if kinds == {'.parquet'} else 'json'
    return split_rows(load_documents(paths, loader))


def load_openwebtext(num_proc):
    """The rows of OpenWebText, from the Hub."""
    from datasets import load_dataset
    documents = load_dataset(HUB_ID, revision=REVISION, split='train', num_proc=num_proc)
    if len(documents) != N_DOCUMENTS:
        print(f'{HUB_ID} came with {len(documents):,} documents; it used to have {N_DOCUMENTS:,}')
    return documents


def load_documents(paths, loader):
    """The rows of .jsonl or .parquet files."""
    from datasets import load_dataset
    documents = load_dataset(loader, data_files=paths, split='train')
    check_two(documents)
    if 'text' not in documents.column_names or 'string' not in str(documents.features['text'].dtype):
        fail(f"{paths[0]} has no text in a column 'text'; its columns are {', '.join(documents.column_names)}")
    return documents


def check_two(documents):
    """Exit unless there are two documents at least."""
    if len(documents) < 2:
        fail('one document cannot be split in two; for a single text, use data/shakespeare/prepare.py')


def split_rows(documents):
    """One row in 2000, drawn at random, is for validation: nanoGPT's split, with its seed."""
    return documents.train_test_split(test_size=0.0005, seed=2357, shuffle=True)


def split_text_files(paths):
    """One text file in 2000, the last ones, is for validation; what is in a file stays in order."""
    from datasets import Dataset
    check_two(paths)
    n = math.ceil(len(paths) * 0.0005)
    splits = {}
    for name, part in (('train', paths[:-n]), ('test', paths[-n:])):
        files = [(path, os.path.getsize(path), os.path.getmtime(path)) for path in part]   # a changed file is read anew
        splits[name] = Dataset.from_generator(read_texts, writer_batch_size=ROWS, gen_kwargs={'files': files})
    return splits


def tokenize(row, encode, end):
    """The ids of a row's text, and the end of the document after them."""
    ids = encode(row['text'] or '')   # a row may have none
    if end is not None and row.get('is_end', True):
        ids = ids + [end]
    return {'ids': ids}


def batches(split, rows):
    """The ids of a split, in arrays."""
    tables = rows.with_format('arrow').iter(ROWS)
    for table in tqdm(tables, total=math.ceil(len(rows) / ROWS), desc=f'{split}.bin', disable=None):
        yield table['ids'].combine_chunks().flatten().to_numpy().astype('<u2')


if __name__ == '__main__':
    begin()
    parser = command_line(__doc__, 'files', '.jsonl, .parquet or .txt files; without any, OpenWebText')
    parser.add_argument('--num_proc', type=int, default=max(1, (os.cpu_count() or 2) // 2),
                        help='processes that tokenize (default: half the cores)')
    parser.add_argument('--tokenizer', **TOKENIZER)
    args = parser.parse_args()
    try:
        from datasets import Features, List, Value, disable_progress_bars, logging
    except ImportError:
        fail('it needs the package datasets: pip install datasets')
    logging.set_verbosity(logging.CRITICAL)   # what goes wrong, fail() says
    if not sys.stderr.isatty():
        disable_progress_bars()
    encode, end, meta = make_encoder(args.tokenizer)
    num_proc = args.num_proc if args.num_proc > 1 else None
    features = Features({'ids': List(Value('uint16'))})
    ids = {}
    try:
        for name, rows in load_splits(args.files, num_proc).items():
            ids[name] = rows.map(
                tokenize, fn_kwargs={'encode': encode, 'end': end}, remove_columns=rows.column_names,
                features=features, num_proc=num_proc, writer_batch_size=ROWS, desc=f'tokenizing {name}')
    except Exception as e:   # a hub, a cache, a full disk and strangers' files can raise anything
        fail(f'the documents cannot be read: {first_line(e.__cause__ or e)}')
    write_token_files(here, batches('train', ids['train']), batches('val', ids['test']), meta)
    for split in ('train', 'val'):
        n_tokens = os.path.getsize(os.path.join(here, f'{split}.bin')) // 2
        print(f'{split} has {n_tokens:,} tokens')
