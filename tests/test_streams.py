"""Standard streams that are closed or full: a training goes on in silence, or saves and stops; nothing is a
traceback."""

import errno
import io
import os
import signal
import subprocess
import sys

import pytest
from conftest import ECA, TINY, newest, read_log

from support import signals

pytest.importorskip('fcntl')   # a shell's >&- and /dev/full

ARGS = [*TINY, '--n_layer=1', '--eval_interval=20', '--eval_iters=1', '--sample_chars=0', '--max_iters=99999']
full = pytest.mark.skipif(not os.path.exists('/dev/full'), reason='only Linux has /dev/full')


def close(*numbers):
    """For a process about to start: as a shell does for 2>&-."""
    return lambda: [os.close(number) for number in numbers]


@pytest.mark.parametrize('closed', [(1,), (2,), (0, 1, 2)])
def test_streams_that_were_closed_from_the_start(prepared, tmp_path, closed):
    """It trains, and nothing that is printed gets into a file that has taken the number of a stream."""
    process = prepared.start('train.py', *ARGS, '--max_iters=20', f'--out_dir={tmp_path}/out',
                             preexec_fn=close(*closed))
    printed, said = process.communicate(timeout=60)
    assert process.returncode == 0 and said == '' and ('next: ' in printed) == (1 not in closed)
    rows = read_log(tmp_path / 'out')
    assert newest(tmp_path / 'out')['iter_num'] == 20 and len(rows) == 22
    assert all(row['loss'] or row['val_loss'] for row in rows)


def test_other_scripts_without_streams(prepared):
    for args in (['sample.py', '--out_dir=assets/eca-mini', '--num_samples=1', '--max_new_tokens=5'],
                 [f'{ECA}/prepare.py', f'{ECA}/amostra.txt']):
        assert prepared.start(*args, preexec_fn=close(0, 1, 2)).wait(timeout=60) == 0


def test_a_pipe_that_breaks_while_training(prepared, tmp_path):
    process = prepared.start('train.py', *ARGS, f'--out_dir={tmp_path}/out')
    for line in process.stdout:
        if line.startswith('iter 25:'):
            break
    process.stdout.close()
    said = process.stderr.read()
    assert process.wait(timeout=60) == 128 + 13
    assert said == 'train.py: the output cannot be written (Broken pipe); stopping after this step, and saving\n'
    assert newest(tmp_path / 'out')['iter_num'] > 25


@full
def test_output_that_is_full(prepared, tmp_path):
    """From the start: one line, and the status says that not all is well, though Python buffers."""
    def run(*args):
        with open('/dev/full', 'w') as device:
            process = prepared.start(*args, stdout=device, env={'PYTHONUNBUFFERED': ''})
            _, said = process.communicate(timeout=60)
        lines = [line for line in said.splitlines() if not line.startswith(('device: ', 'tokens in'))]
        assert process.returncode not in (0, 120) and len(lines) == 1 and 'No space left on device' in lines[0], said

    run('train.py', *ARGS, f'--out_dir={tmp_path}/out')
    run('train.py', *ARGS, '--eval_only=True', f'--out_dir={tmp_path}/out')
    run('train.py', '--help=all')
    run('sample.py', '--out_dir=assets/eca-mini', '--num_samples=1', '--max_new_tokens=5')
    run(f'{ECA}/prepare.py', f'{ECA}/amostra.txt')


class Full(io.StringIO):
    """A stream on a disk that is full."""

    def write(self, text):
        raise OSError(errno.ENOSPC, 'No space left on device')


@pytest.mark.parametrize('are_full', [(True, False), (False, True), (True, True)])
def test_streams_that_fill_up(monkeypatch, are_full):
    """It counts as one signal, is said where that can be, and nothing fails."""
    streams = [Full() if is_full else io.StringIO() for is_full in are_full]
    monkeypatch.setattr(signal, 'signal', lambda *args: None)
    monkeypatch.setattr(sys, 'stdout', streams[0])
    monkeypatch.setattr(sys, 'stderr', streams[1])
    caught = signals.catch_signals()
    for _ in range(2):
        print('a line')
        print('an error', file=sys.stderr)
    assert set(caught) == {13} and signals.exit_status(caught) == 141
    said = 'the output cannot be written (No space left on device); stopping after this step, and saving'
    for stream, is_full in zip(streams, are_full):
        assert is_full or 'a' in stream.getvalue()
    assert are_full != (True, False) or said in streams[1].getvalue()


@full
def test_errors_that_nobody_takes(prepared, tmp_path):
    with open('/dev/full', 'w') as device:
        process = prepared.start('train.py', *ARGS, '--max_iters=20', f'--out_dir={tmp_path}/out', stderr=device)
        printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and 'next: ' in printed


def test_samples_that_nobody_reads(prepared):
    read_end, write_end = os.pipe()
    os.close(read_end)
    process = prepared.start('sample.py', '--out_dir=assets/eca-mini', '--num_samples=1', '--max_new_tokens=5',
                             stdout=write_end, env={'PYTHONUNBUFFERED': ''}, stderr=subprocess.PIPE)
    os.close(write_end)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1 and len(said.splitlines()) == 2   # the device, the prompt
