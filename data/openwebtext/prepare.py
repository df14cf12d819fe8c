"""
Turn OpenWebText, or documents of yours, into GPT-2's tokens: train.bin and val.bin.

    python data/openwebtext/prepare.py --num_proc=8                # some 54 GB in Hugging Face's cache, 17 GB here
    python data/openwebtext/prepare.py --num_proc=8 docs/*.jsonl   # your own: .jsonl, .parquet or .txt files

A document is a row with a text in .jsonl and .parquet, a whole file in .txt. Each ends with <|endoftext|>; one in 2000,
drawn at random, goes to val.bin. Memory stays within bounds however large the corpus is: it is streamed through
Hugging Face's cache, whose place the variable HF_HOME sets.
"""

import argparse
import os
import sys

from tqdm import tqdm

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(here))   # data/, for common.py: what the prepare.py scripts share
from common import fail, load_tokenizer, split_text, write_token_files   # noqa: E402

# the scripts that data sets used to come with no longer run; this branch has the same documents as Parquet files
HUB_ID, REVISION, N_DOCUMENTS = 'Skylion007/openwebtext', 'refs/convert/parquet', 8_013_769


def read_texts(files):
    """Rows of text files given as (path, size, time of change). A long file comes in pieces; the last one ends it."""
    for path, _, _ in files:
        with open(path, encoding='utf-8', newline='') as f:
            rest = f.read(1 << 20)
            while chunk := f.read(1 << 20):
                *whole, rest = split_text(rest + chunk)
                yield from ({'text': piece, 'is_end': False} for piece in whole)
            yield {'text': rest, 'is_end': True}


def load_documents(paths, num_proc):
    """A data set with a column 'text', and with 'is_end' where some rows are not yet the end of their document."""
    from datasets import Dataset, load_dataset
    if not paths:
        documents = load_dataset(HUB_ID, revision=REVISION, split='train', num_proc=num_proc)
        if len(documents) != N_DOCUMENTS:
            print(f'{HUB_ID} came with {len(documents):,} documents; it used to have {N_DOCUMENTS:,}')
        return documents
    kinds = {os.path.splitext(path)[1] for path in paths}
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        fail(f'there is no file {missing[0]}')
    if kinds == {'.txt'}:
        files = [(path, os.path.getsize(path), os.path.getmtime(path)) for path in paths]   # new ones are read anew
        return Dataset.from_generator(read_texts, gen_kwargs={'files': files})
    loaders = {'.jsonl': 'json', '.json': 'json', '.parquet': 'parquet'}
    if len(kinds) > 1 or not kinds <= loaders.keys():
        fail(f'the files end in {" ".join(sorted(kinds))}; give files of one kind: .jsonl, .parquet or .txt')
    documents = load_dataset(loaders[kinds.pop()], data_files=paths, split='train')
    if 'text' not in documents.column_names:
        fail(f"{paths[0]} has no column 'text', only {', '.join(documents.column_names)}; rename the one to train on")
    return documents


def tokenize(row, encode, end):
    ids = encode(row['text'] or '')   # a row may have none
    return {'ids': ids + [end] if row.get('is_end', True) and end is not None else ids}


def batches(split, rows):
    """The ids of a split in arrays, a thousand rows at a time."""
    for table in tqdm(rows.with_format('arrow').iter(1000), total=-(-len(rows) // 1000), desc=f'{split}.bin',
                      disable=None):
        yield table['ids'].combine_chunks().flatten().to_numpy().astype('<u2')


if __name__ == '__main__':
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
    encode, end, meta = load_tokenizer(args.tokenizer)
    num_proc = args.num_proc if args.num_proc > 1 else None
    try:
        documents = load_documents(args.files, num_proc)
    except Exception as e:   # a hub, a cache and strangers' files can raise anything
        fail(f'the documents cannot be loaded: {str(e.__cause__ or e).strip().splitlines()[0]}')
    if len(documents) < 2:
        fail(f'{len(documents)} document cannot be split in two; for a single text, use data/shakespeare/prepare.py')
    splits = documents.train_test_split(test_size=0.0005, seed=2357, shuffle=True)
    ids = splits.map(tokenize, fn_kwargs={'encode': encode, 'end': end}, remove_columns=documents.column_names,
                     features=Features({'ids': List(Value('uint16'))}), num_proc=num_proc, desc='tokenizing')
    write_token_files(here, batches('train', ids['train']), batches('val', ids['test']), meta)
    for split in ('train', 'val'):
        n_tokens = os.path.getsize(os.path.join(here, f'{split}.bin')) // 2
        print(f'{split} has {n_tokens:,} tokens')
