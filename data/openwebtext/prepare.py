"""
Turn OpenWebText, or your documents, into GPT-2's tokens: train.bin, val.bin.

    python data/openwebtext/prepare.py --num_proc=8     # 54 GB cached, 17 here
    python data/openwebtext/prepare.py docs/*.jsonl     # or .parquet, or .txt

A document is a row with a text in .jsonl and .parquet, a whole file in .txt.
Each ends with <|endoftext|>. One in 2000, and one at least, goes to val.bin:
of rows drawn at random, of .txt files the last. Memory stays within bounds
however large the corpus is: it passes through Hugging Face's cache on the
disk, whose place the variable HF_HOME sets.
"""

import argparse
import math
import os
import sys

from tqdm import tqdm

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(here))   # data/, for common.py: what the prepare.py scripts share
from common import begin, fail, first_line, make_encoder, split_text, write_token_files   # noqa: E402

# the scripts that data sets used to come with no longer run; this branch has the same documents as Parquet files
HUB_ID, REVISION, N_DOCUMENTS = 'Skylion007/openwebtext', 'refs/convert/parquet', 8_013_769
ROWS = 100   # in memory at once; a row of a text file has 64 thousand characters


def read_texts(files):
    """Rows of text files given as (path, size, time of change). A long file comes in pieces; the last one ends it."""
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
    """{'train': rows, 'test': rows}, each row with a 'text', and with 'is_end' where a document may have several."""
    from datasets import Dataset, load_dataset
    in_2000 = dict(test_size=0.0005, seed=2357, shuffle=True)   # nanoGPT's split
    if not paths:
        documents = load_dataset(HUB_ID, revision=REVISION, split='train', num_proc=num_proc)
        if len(documents) != N_DOCUMENTS:
            print(f'{HUB_ID} came with {len(documents):,} documents; it used to have {N_DOCUMENTS:,}')
        return documents.train_test_split(**in_2000)
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        fail(f'there is no file {missing[0]}')
    kinds = {os.path.splitext(path)[1] for path in paths}
    loaders = {'.txt': None, '.jsonl': 'json', '.json': 'json', '.parquet': 'parquet'}
    if len(kinds) > 1 or not kinds <= loaders.keys():
        fail(f'the files end in {" ".join(sorted(kinds))}; give files of one kind: .jsonl, .parquet or .txt')
    documents = paths if kinds == {'.txt'} else load_dataset(loaders[kinds.pop()], data_files=paths, split='train')
    if len(documents) < 2:
        fail('one document cannot be split in two; for a single text, use data/shakespeare/prepare.py')
    if documents is paths:   # what is in a file stays in order
        n = math.ceil(len(paths) * 0.0005)
        return {name: Dataset.from_generator(read_texts, writer_batch_size=ROWS, gen_kwargs={
            'files': [(path, os.path.getsize(path), os.path.getmtime(path)) for path in part]})
            for name, part in (('train', paths[:-n]), ('test', paths[-n:]))}
    if 'text' not in documents.column_names or 'string' not in str(documents.features['text'].dtype):
        fail(f"{paths[0]} has no text in a column 'text'; its columns are {', '.join(documents.column_names)}")
    return documents.train_test_split(**in_2000)


def tokenize(row, encode, end):
    ids = encode(row['text'] or '')   # a row may have none
    return {'ids': ids + [end] if row.get('is_end', True) and end is not None else ids}


def batches(split, rows):
    """The ids of a split, in arrays."""
    for table in tqdm(rows.with_format('arrow').iter(ROWS), total=-(-len(rows) // ROWS), desc=f'{split}.bin',
                      disable=None):
        yield table['ids'].combine_chunks().flatten().to_numpy().astype('<u2')


if __name__ == '__main__':
    begin()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('files', nargs='*', help='.jsonl, .parquet or .txt files; without any, OpenWebText')
    parser.add_argument('--num_proc', type=int, default=max(1, (os.cpu_count() or 2) // 2),
                        help='processes that tokenize (default: half the cores)')
    parser.add_argument('--tokenizer', default='gpt2', help="'gpt2', or a Hugging Face tokenizer's Hub id or folder")
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
    try:
        ids = {name: rows.map(tokenize, fn_kwargs={'encode': encode, 'end': end}, remove_columns=rows.column_names,
                              features=Features({'ids': List(Value('uint16'))}), num_proc=num_proc,
                              writer_batch_size=ROWS, desc=f'tokenizing {name}')
               for name, rows in load_splits(args.files, num_proc).items()}
    except Exception as e:   # a hub, a cache, a full disk and strangers' files can raise anything
        fail(f'the documents cannot be read: {first_line(e.__cause__ or e)}')
    write_token_files(here, batches('train', ids['train']), batches('val', ids['test']), meta)
    for split in ('train', 'val'):
        n_tokens = os.path.getsize(os.path.join(here, f'{split}.bin')) // 2
        print(f'{split} has {n_tokens:,} tokens')
