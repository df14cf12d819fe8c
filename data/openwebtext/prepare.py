"""
Turn OpenWebText, or your documents, into GPT-2's tokens: train.bin, val.bin.

    python data/openwebtext/prepare.py --num_proc=8     # 54 GB cached, 17 here
    python data/openwebtext/prepare.py documents/*.jsonl  # or .parquet, .txt

A document is a row in .jsonl and .parquet, a whole file in .txt. Each ends with
<|endoftext|>. One in 2000 goes to val.bin, or as many as a block needs: drawn
at random, or the last .txt files. The corpus passes through Hugging Face's
cache on the disk, so memory stays small.
"""

import itertools
import math
import os
import sys

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(os.path.dirname(here)))   # the repository, for support/
import support.interrupt   # noqa: E402, F401   first: from here on Ctrl-C ends the script without a traceback
import numpy as np   # noqa: E402
from tqdm import tqdm   # noqa: E402
from support.dataset import (SAMPLE_CHARS, TOKENIZER, begin, check_split, command_line, named_encoder,   # noqa: E402
                             split_text, write_token_files)
from support.errors import fail, first_line, is_out_of_memory   # noqa: E402
from support.texts import HEAD, check_kind, count_accents, normalise, warn_of_two_ways   # noqa: E402

# the scripts that data sets used to come with no longer run; this branch has the same documents as Parquet files
HUB_ID = 'Skylion007/openwebtext'
REVISION = 'refs/convert/parquet'
N_DOCUMENTS = 8_013_769
VAL_SHARE = 0.0005        # of the documents, nanoGPT's
MOST_VAL_SHARE = 0.25     # for a small corpus
MIN_VAL_TOKENS = 1025     # a block of GPT-2's 1024, and the token that comes next
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


def load_corpus(paths, num_proc):
    """(the number of documents, split): split(n) -> {'train': rows, 'test': rows}, n documents of them in 'test'.
    Each row has a 'text', and 'is_end' where a document may have several."""
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
    """load_corpus of rows: those for validation are drawn at random, by nanoGPT's method, with its seed."""
    return len(documents), lambda n: documents.train_test_split(test_size=n, seed=2357, shuffle=True)


def split_text_files(paths):
    """load_corpus of text files: the last ones are for validation; what is in a file stays in order."""
    from datasets import Dataset
    check_two(paths)
    for path in paths:
        with open(path, 'rb') as f:
            check_kind(path, f.read(HEAD))

    def split(n):
        splits = {}
        for name, part in (('train', paths[:-n]), ('test', paths[-n:])):
            # a file that has changed is read anew
            files = [(path, os.path.getsize(path), os.path.getmtime(path)) for path in part]
            splits[name] = Dataset.from_generator(read_texts, writer_batch_size=ROWS, gen_kwargs={'files': files})
        return splits

    return len(paths), split


def tokenize(row, encoder, is_own):
    """The ids of a row's text, and the end of the document after them; and what there is to count. OpenWebText stays
    as it is; one's own documents, if is_own, are rid of byte order marks and \\r."""
    text = row['text'] or ''   # a row may have none
    n_left_out = 0
    if is_own:
        n_left_out = text.count('\ufeff') + text.count('\r')
        text = normalise(text)
    ids = encoder.encode(text)
    n_unknown = encoder.count_unknown(np.array(ids))
    if encoder.end is not None and row.get('is_end', True):
        ids = ids + [encoder.end]
    n_composed, n_apart = (0, 0) if text.isascii() else count_accents(text)
    return {'ids': ids, 'n_chars': len(text), 'n_left_out': n_left_out, 'n_unknown': n_unknown,
            'n_composed': n_composed, 'n_apart': n_apart}


def batches(split, rows):
    """The ids of a split, in arrays. Exits at their end, if they cannot be right."""
    tables = rows.with_format('arrow').iter(ROWS)
    n_tokens = 0
    bounds = []
    for table in tqdm(tables, total=math.ceil(len(rows) / ROWS), desc=f'{split}.bin', disable=None):
        ids = table['ids'].combine_chunks().flatten().to_numpy().astype('<u2')
        if len(ids):
            bounds = [min([*bounds, ids.min()]), max([*bounds, ids.max()])]
        n_tokens += len(ids)
        yield ids
    try:
        check_split(split, n_tokens, bounds, count(rows, 'n_chars'))
    except ValueError as e:
        fail(e)


def count(rows, column):
    """The sum of a column of numbers."""
    tables = rows.select_columns([column]).with_format('arrow').iter(10**5)
    return sum(table[column].to_numpy().sum() for table in tables)


def count_tokens(rows):
    """The number of ids in tokenized rows."""
    return sum(len(table['ids'].combine_chunks().flatten()) for table in rows.with_format('arrow').iter(ROWS))


def choose_validation(n_documents, share, tokenize_val):
    """How many documents are for validation: that share, or, where share is None, nanoGPT's, or as many as it takes.
    tokenize_val(n) -> the rows of n documents."""
    if share is not None:
        return min(n_documents - 1, math.ceil(n_documents * share))
    least = math.ceil(n_documents * VAL_SHARE)
    most = max(least, int(n_documents * MOST_VAL_SHARE))
    n = least
    n_tokens = count_tokens(tokenize_val(n))
    while n < most and n_tokens < MIN_VAL_TOKENS:
        n = min(most, max(n + 1, math.ceil(1.1 * n * MIN_VAL_TOKENS / max(1, n_tokens))))
        n_tokens = count_tokens(tokenize_val(n))
    if n > least:
        print(f'val.bin gets {n:,} of {n_documents:,} documents, with {n_tokens:,} tokens, since {least:,} would be '
              'too short for a block; --val_share= sets another share')
    return n


if __name__ == '__main__':
    begin()
    parser = command_line(__doc__, 'files', '.jsonl, .parquet, .txt files; else OpenWebText')
    parser.add_argument('--num_proc', type=int, default=max(1, (os.cpu_count() or 2) // 2),
                        help='processes that tokenize (default: half the cores)')
    parser.add_argument('--val_share', type=float, help='share of the documents for val.bin, as in 0.05')
    parser.add_argument('--tokenizer', **TOKENIZER)
    args = parser.parse_args()
    if args.val_share is not None and not 0 < args.val_share <= 0.5:
        fail(f'val_share = {args.val_share} is invalid: it must be above 0 and at most 0.5')
    try:
        from datasets import Features, List, Value, disable_progress_bars, logging
        from datasets.exceptions import DatasetGenerationError
    except ImportError:
        fail('it needs the package datasets: pip install datasets')
    logging.set_verbosity(logging.CRITICAL)   # what goes wrong, fail() says
    if not sys.stderr.isatty():
        disable_progress_bars()
    encoder = named_encoder(args.tokenizer)
    num_proc = args.num_proc if args.num_proc > 1 else None
    numbers = ('n_chars', 'n_left_out', 'n_unknown', 'n_composed', 'n_apart')
    features = Features({'ids': List(Value('uint16')), **{name: Value('int64') for name in numbers}})

    def tokenize_rows(rows, name):
        return rows.map(
            tokenize, fn_kwargs={'encoder': encoder, 'is_own': bool(args.files)}, remove_columns=rows.column_names,
            features=features, num_proc=num_proc, writer_batch_size=ROWS, desc=f'tokenizing {name}')

    try:
        n_documents, split = load_corpus(args.files, num_proc)
        n_val = choose_validation(n_documents, args.val_share, lambda n: tokenize_rows(split(n)['test'], 'val'))
        rows = split(n_val)
        sample = (row['text'] or '' for row in rows['test'])
        encoder.check_gives_back(''.join(itertools.islice(sample, ROWS))[:SAMPLE_CHARS])
        ids = {'train': tokenize_rows(rows['train'], 'train'), 'val': tokenize_rows(rows['test'], 'val')}
    except Exception as e:   # a hub, a cache, a full disk and strangers' files can raise anything
        if isinstance(e, DatasetGenerationError):
            e = e.__cause__ or e
        if is_out_of_memory(e):
            raise e from None
        if 'abruptly died' in str(e):   # the words of datasets
            fail('a process that tokenizes was killed, perhaps since memory ran out; try a lower --num_proc=')
        fail(f'the documents cannot be read: {first_line(e)}')
    write_token_files(here, batches('train', ids['train']), batches('val', ids['val']), encoder.meta)
    total = {name: sum(int(count(ids[part], name)) for part in ids) for name in numbers}
    n_tokens = {part: os.path.getsize(os.path.join(here, f'{part}.bin')) // 2 for part in ids}
    if total['n_left_out']:
        print(f"{total['n_left_out']:,} byte order marks and \\r (carriage returns) are left out")
    warn_of_two_ways(total['n_composed'], total['n_apart'])
    encoder.say_unknown(total['n_unknown'], sum(n_tokens.values()))
    for part in n_tokens:
        print(f'{part} has {n_tokens[part]:,} tokens')
    if n_tokens['val'] < MIN_VAL_TOKENS:
        print(f"val.bin is short: train with a block_size below {n_tokens['val']:,}, or prepare more documents, or a "
              'larger --val_share')
