"""minutes and patience: a run that fits a time, and one that stops when it has stopped learning."""

import re
import signal

import pytest
import torch
from conftest import ECA, TINY, assert_same_run, load, newest, read_log

from support.pace import Pace


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def simulate(minutes, iteration_s, evaluation_s, warmup_iters, eval_interval, first_s=0.0):
    """(max_iters, the seconds that a run takes) where iterations and evaluations take so long, the first iteration
    first_s more. As the loop of train.py."""
    clock = Clock()
    pace = Pace(clock)
    iter_num = 0
    max_iters = None
    while True:
        is_last = iter_num == max_iters
        if iter_num % eval_interval == 0 or is_last:
            clock.now += evaluation_s
            pace.lap(is_evaluation=True)
        if is_last:
            return max_iters, clock.now - 1000.0
        clock.now += iteration_s + (first_s if iter_num == 0 else 0.0)
        iter_num += 1
        if max_iters is None:
            pace.lap(is_evaluation=False)
            max_iters = pace.fit(minutes, clock.now - 1000.0, iter_num, warmup_iters, eval_interval) or None


@pytest.mark.parametrize('iteration_s, evaluation_s, warmup_iters, eval_interval, first_s', [
    (0.05, 0.9, 20, 500, 0.0),     # the laptop run
    (0.05, 0.0, 20, 500, 0.0),
    (0.05, 20.0, 20, 500, 0.0),    # each evaluation a ninth of the time
    (0.05, 3.0, 0, 10, 0.0),       # mostly evaluations
    (0.003, 0.4, 100, 250, 25.0),  # a GPU, compiling first
    (4.0, 9.0, 50, 250, 2.0),      # so slow that the warm-up alone would take longer
])
def test_a_run_fits_its_time(iteration_s, evaluation_s, warmup_iters, eval_interval, first_s):
    max_iters, seconds = simulate(3, iteration_s, evaluation_s, warmup_iters, eval_interval, first_s)
    assert seconds <= 180 and 180 - seconds <= max(iteration_s + evaluation_s, 1)
    longer, _ = simulate(6, iteration_s, evaluation_s, warmup_iters, eval_interval, first_s)
    assert longer > 1.7 * max_iters


def test_too_little_time():
    """Not even the evaluation at the end has room: it ends at once."""
    max_iters, seconds = simulate(0.1, 1.0, 5.0, 20, 500)
    assert max_iters == 4 and seconds == 14


def test_minutes(prepared, tmp_path):
    """For real; then the same run in two parts, and with the number that was found."""
    args = ['train.py', *TINY, '--eval_interval=50', '--log_interval=10', '--warmup_iters=20']
    timed = [*args, '--minutes=0.05', '--max_iters=7', f'--out_dir={tmp_path}/timed']
    training = prepared.start(*timed)
    said = ''
    while 'minutes = ' not in said:
        said = training.stdout.readline()
        assert said, training.stderr.read()
    found = re.fullmatch(r'minutes = 0.05: an iteration takes (\S+) ms, an evaluation (\S+) s, so max_iters and '
                         r'lr_decay_iters = (\d+)\n', said)
    n = int(found[3])
    assert n > 20 and float(found[1]) > 0 and float(found[2]) > 0
    training.send_signal(signal.SIGTERM)
    training.communicate()
    state = newest(tmp_path / 'timed')
    assert state['fitted_iters'] == n and state['iter_num'] < n

    printed = prepared.run(*timed, '--init_from=resume')
    assert f'done: {n} iterations' in printed and 'minutes = ' not in printed
    prepared.run(*args, f'--max_iters={n}', f'--lr_decay_iters={n}', f'--out_dir={tmp_path}/counted')
    assert_same_run(tmp_path / 'timed', tmp_path / 'counted')


def test_patience(prepared, tmp_path):
    """At a rate of next to nothing from the fourth evaluation on, val loss rises or stays: it stops two later."""
    args = ['train.py', *TINY, '--eval_interval=2', '--decay_lr=False', '--learning_rate=1', '--muon_lr=1',
            '--patience=2', '--max_iters=100']
    printed = prepared.run(*args, f'--out_dir={tmp_path}/out')
    losses = [float(row['val_loss']) for row in read_log(tmp_path / 'out') if row['val_loss']][1:]
    best = losses.index(min(losses))
    assert len(losses) == best + 3 < 50
    iteration = 2 * (best + 1)
    assert f'stopped early: val loss was lowest at iteration {iteration}, 2 evaluations ago' in printed
    assert load(tmp_path / 'out' / 'ckpt.pt')['iter_num'] == iteration
    state = load(tmp_path / 'out' / 'last.pt')
    assert state['lowest_iter'] == iteration and state['iter_num'] == iteration + 4

    # in parts: the same
    stop = iteration + 2
    prepared.run(*args, f'--max_iters={stop}', f'--out_dir={tmp_path}/parts')
    prepared.run(*args, f'--out_dir={tmp_path}/parts', '--init_from=resume')
    assert_same_run(tmp_path / 'out', tmp_path / 'parts')

    # of the best seen, also where ckpt.pt is always the newest; the summary has the loss of that
    printed = prepared.run(*args, '--always_save_checkpoint=True', f'--out_dir={tmp_path}/always')
    assert f'val loss was lowest at iteration {iteration}, 2 evaluations ago' in printed
    assert f'val loss  {losses[-1]:.3f} nats' in printed
    assert load(tmp_path / 'always' / 'ckpt.pt')['lowest_val_loss'] == pytest.approx(min(losses))


def test_resumed_on_another_text(bare):
    """best_val_loss and tokens_read begin anew, so that ckpt.pt gets the model of the new text; with the same text
    they go on, also where it has been prepared again."""
    text = (bare / ECA / 'amostra.txt').read_text(encoding='utf-8')
    (bare / 'other.txt').write_text('\n\n'.join(reversed(text.split('\n\n'))), encoding='utf-8')
    bare.run(f'{ECA}/prepare.py', f'{ECA}/amostra.txt')
    args = ['train.py', *TINY, '--eval_interval=10', '--out_dir=out', '--init_from=resume']
    bare.run(*args, '--init_from=scratch', '--max_iters=20')
    bare.run(f'{ECA}/prepare.py', f'{ECA}/amostra.txt')
    assert 'begin anew' not in bare.run(*args, '--max_iters=20')
    state = load(bare / 'out' / 'ckpt.pt')
    state['best_val_loss'] = 0.5   # as if the old text had been an easy one
    torch.save(state, bare / 'out' / 'ckpt.pt')

    bare.run(f'{ECA}/prepare.py', 'other.txt')
    printed = bare.run(*args, '--max_iters=30')
    assert printed.count('is not what this run has read so far: the best val loss and the tokens read begin anew') == 1
    state = load(bare / 'out' / 'ckpt.pt')
    assert state['iter_num'] == 30 and state['tokens_read'] == 10 * 8 * 32 and state['best_val_loss'] > 2
    assert f"val loss  {state['best_val_loss']:.3f}" in printed

    # of a checkpoint without a fingerprint, nanoGPT's or an older one, the data set's name tells
    del state['data']
    state['config']['dataset'] = 'shakespeare_char'
    torch.save(state, bare / 'out' / 'ckpt.pt')
    assert 'begin anew' in bare.run(*args, '--max_iters=31')
