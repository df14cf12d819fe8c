"""What train.py shows: a line that the model writes at each evaluation, one whole progress bar, a summary."""

import math
import re

import numpy as np
import pytest
from conftest import ECA, TINY, Terminal, load, read_log

from support.evaluate import unigram_loss


@pytest.fixture(scope='module')
def trained(prepared):
    """A workspace whose out-hour has a model that knows a little, and what its training printed."""
    printed = prepared.run('train.py', *TINY, '--max_iters=60', '--eval_interval=30', '--log_interval=20',
                           '--lr_decay_iters=60', '--out_dir=out-hour')
    return prepared, printed


def test_a_line_at_each_evaluation(trained, prepared, tmp_path):
    workspace, printed = trained
    lines = printed.splitlines()
    written = [lines[i + 1] for i, line in enumerate(lines) if line.startswith('step ')]
    assert len(written) == 3 and all(re.fullmatch('it writes: .{64}', line) for line in written)
    assert len(set(written)) == 3 and not re.search(r'[\x00-\x09\x0b-\x1f]', printed)
    known = set(load(workspace / 'out-hour' / 'ckpt.pt')['tokenizer']['itos'])
    assert set(written[-1].removeprefix('it writes: ')) <= known | {' '}
    # the same training without them
    quiet = prepared.run('train.py', *TINY, '--max_iters=60', '--eval_interval=30', '--log_interval=20',
                         '--lr_decay_iters=60', f'--out_dir={tmp_path}/out', '--sample_chars=0', '--dropout=0.0')
    assert 'it writes' not in quiet and read_log(tmp_path / 'out') == read_log(workspace / 'out-hour')


def test_summary(trained):
    workspace, printed = trained
    lines = printed.splitlines()[-7:]
    best = load(workspace / 'out-hour' / 'ckpt.pt')['best_val_loss']
    train, val = (np.fromfile(workspace / ECA / f'{split}.bin', np.uint16) for split in ('train', 'val'))
    counts = np.bincount(train, minlength=val.max() + 1) + 1
    p = counts / counts.sum()
    unigram = -np.log(p[val]).mean()
    assert unigram_loss(workspace / ECA, len(counts)) == pytest.approx(unigram)
    assert lines[0] == 'done: 60 iterations'
    assert re.fullmatch(r'  time      00:\d\d, evaluations included', lines[1])
    assert lines[2] == f'  read      {60 * 8 * 32:,} tokens, {60 * 8 * 32 / len(train):.2f} times train.bin'
    assert lines[3] == f'  val loss  {best:.3f} nats per token; baseline (character frequencies) {unigram:.3f}'
    assert lines[4] == (f'  in bits   {best / math.log(2):.3f} per character; '
                        f'baseline (character frequencies) {unigram / math.log(2):.3f}')
    assert lines[5] == '  files     out-hour: ckpt.pt, log.csv'
    assert lines[6] == 'next: python sample.py --out_dir=out-hour'


def test_training_on_a_terminal(prepared):
    seen = Terminal(prepared, 'train.py', *TINY, '--max_iters=40', '--eval_interval=20', '--log_interval=10',
                    '--out_dir=out-bar')
    bars = [[row for row in rows if '%|' in row] for rows in seen.screens]
    assert max(map(len, bars)) == 1   # never two, never a torn one
    whole = re.compile(r'/40 \[\d\d:\d\d<\d\d:\d\d, .*it/s, loss \d\.\d{4}, [\d,]+ tokens/s\]$')   # < time left
    assert any(whole.search(row) for rows in bars for row in rows)
    printed = [line for line in seen.lines if line and '%|' not in line]
    kinds = ('Overriding', 'device:', 'tokens per', 'number of', 'memory:', 'compile:', 'step ', 'iter ',
             'it writes: ', 'saving ', 'done:', '  time', '  read', '  val loss', '  in bits', '  files', 'next:')
    assert all(line.startswith(kinds) for line in printed) and printed[-1].startswith('next:'), printed
