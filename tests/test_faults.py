"""What goes wrong outside: signals, kills, full disks, two at once, numbers that are none. Nothing is lost."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest
from conftest import ECA, TINY, assert_same_run, load, newest

resource = pytest.importorskip('resource')   # limits, which Windows does not know
pty = pytest.importorskip('pty')             # nor terminals of this kind

ARGS = [*TINY, '--dropout=0.2', '--gradient_accumulation_steps=2', '--eval_interval=7', '--eval_iters=1',
        '--max_iters=150']


def with_hangup():
    """For a process about to start: SIGHUP means something, even where these tests run under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def wait_for(process, text):
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(process.stderr.read())


def weights(out):
    """What the best state and the newest hold, to compare."""
    found = [load(out / 'ckpt.pt'), newest(out)]
    return [(c['iter_num'], {k: v.tolist() for k, v in c['model'].items()}) for c in found]


@pytest.fixture(scope='module')
def uninterrupted(prepared, tmp_path_factory):
    """The folder of ARGS, run in one go."""
    out = tmp_path_factory.mktemp('uninterrupted') / 'out'
    prepared.run('train.py', *ARGS, f'--out_dir={out}')
    return out


@pytest.mark.parametrize('number, at', [(signal.SIGINT, 'iter 3:'), (signal.SIGTERM, 'step 14:'),
                                        (signal.SIGHUP, 'iter 9:')])
def test_signal_stops_and_the_printed_command_goes_on(prepared, uninterrupted, tmp_path, number, at):
    process = prepared.start('train.py', *ARGS, f'--out_dir={tmp_path}/out', preexec_fn=with_hangup)
    wait_for(process, at)
    process.send_signal(number)
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert errors == '\nstopping after this step, and saving; once more, a second later, ends it unsaved\n'
    (line,) = [line for line in printed.splitlines() if line.startswith('stopped after ')]
    stopped_at = int(line.split()[2])
    assert 0 < stopped_at < 150 and newest(tmp_path / 'out')['iter_num'] == stopped_at
    command = shlex.split(line.split('to go on: ')[1])
    assert command[0] == 'python' and command[-1] == '--init_from=resume'
    prepared.run(*command[1:])
    assert_same_run(uninterrupted, tmp_path / 'out')


def on_a_terminal(workspace, *command):
    """(pid, the terminal's other end)"""
    pid, terminal = pty.fork()
    if pid == 0:
        with_hangup()
        os.chdir(workspace.path)
        os.execvp(command[0], list(map(str, command)))
    return pid, terminal


def test_a_terminal_that_is_closed(prepared, tmp_path):
    """The training loses what it prints on, and is told so; it saves."""
    pid, terminal = on_a_terminal(prepared, sys.executable, 'train.py', *ARGS, '--max_iters=9999',
                                  f'--out_dir={tmp_path}/out')
    printed = b''
    while b'step 14:' not in printed:
        printed += os.read(terminal, 4096)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 128 + signal.SIGHUP
    assert newest(tmp_path / 'out')['iter_num'] > 14


def test_nohup_goes_on_when_the_terminal_is_closed(prepared, tmp_path):
    pid, terminal = on_a_terminal(prepared, 'nohup', sys.executable, 'train.py', *ARGS, f'--out_dir={tmp_path}/out')
    while not (tmp_path / 'out' / 'ckpt.pt').exists():
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
        time.sleep(0.01)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert newest(tmp_path / 'out')['iter_num'] == 150


def test_a_forgotten_resume_loses_nothing(prepared, tmp_path):
    """Ctrl-C, the command again without --init_from=resume, Ctrl-C: both trainings are there."""
    process = prepared.start('train.py', *ARGS, f'--out_dir={tmp_path}/out')
    wait_for(process, 'step 14:')
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    before = weights(tmp_path / 'out')
    log = (tmp_path / 'out' / 'log.csv').read_bytes()
    process = prepared.start('train.py', *ARGS, f'--out_dir={tmp_path}/out')
    wait_for(process, 'iter 1:')
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    for name in ('ckpt.pt', 'last.pt'):
        assert f'{tmp_path}/out/{name}, of another training, is now {tmp_path}/out/{name}.old' in printed
    assert 1 < newest(tmp_path / 'out')['iter_num'] < 7
    for path in (tmp_path / 'out').glob('*.old'):
        os.replace(path, path.with_suffix(''))
    assert before == weights(tmp_path / 'out') and log == (tmp_path / 'out' / 'log.csv').read_bytes()


def test_a_signal_saves_though_nobody_reads(prepared, tmp_path):
    """As Ctrl-C ends `python train.py 2>&1 | tee log`, which ends tee too."""
    process = prepared.start('train.py', *ARGS, '--max_iters=9999', '--log_interval=9999', f'--out_dir={tmp_path}/out')
    wait_for(process, 'step 14:')
    process.stderr.close()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert newest(tmp_path / 'out')['iter_num'] > 14


def test_second_signal_stops_at_once(prepared, tmp_path):
    """In a step that takes a minute; what was saved stays."""
    prepared.run('train.py', *ARGS, '--max_iters=7', f'--out_dir={tmp_path}/out')
    before = weights(tmp_path / 'out')
    process = prepared.start('train.py', *ARGS, '--init_from=resume', '--batch_size=200000', '--eval_iters=0',
                             f'--out_dir={tmp_path}/out')
    wait_for(process, 'step 7:')
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    time.sleep(1.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=5) == 130 and 'Traceback' not in process.stderr.read()
    assert before == weights(tmp_path / 'out')


@pytest.mark.parametrize('who', [0, 1, 'all'])
def test_ranks_stop_together(prepared, tmp_path, who):
    """A signal to one of two processes, or to both: they stop at one iteration, and end when it is saved."""
    process = prepared.start('-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2', 'train.py', *ARGS,
                             '--max_iters=100000', f'--out_dir={tmp_path}/out')
    wait_for(process, 'iter 3:')
    ranks = subprocess.run(['pgrep', '-P', str(process.pid)], capture_output=True, text=True).stdout.split()
    for number in map(int, ranks if who == 'all' else ranks[who:who + 1]):
        os.kill(number, signal.SIGTERM)
    printed, _ = process.communicate(timeout=100)
    stopped_at = int(re.search(r'stopped after (\d+) iterations; to go on: the same torchrun command', printed)[1])
    assert newest(tmp_path / 'out')['iter_num'] == stopped_at


KILLED = '''
import glob, os, random, runpy, signal, sys, time
import numpy, torch, tqdm                       # once, for all that are killed
import torch._dynamo, torch.distributed, torch.nn.parallel
sys.path.insert(0, os.getcwd())
out, *args = sys.argv[1:]
rng = random.Random(0)
kills = 0


def saved():
    names = [f'{out}/ckpt.pt', f'{out}/last.pt']   # of which the second comes and goes
    return [os.stat(name).st_mtime_ns for name in names if os.path.exists(name)]


while True:
    before = saved()
    pid = os.fork()
    if pid == 0:
        resume = ['--init_from=resume'] if before else []
        sys.argv = ['train.py', *args, f'--out_dir={out}', *resume]
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        runpy.run_path('train.py', run_name='__main__')
        os._exit(0)
    if kills < 30:
        while saved() == before and os.waitpid(pid, os.WNOHANG) == (0, 0):
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.15))
        os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    if kills == 30:
        assert status == 0, status
        break
    assert os.WIFSIGNALED(status), status   # it did not end by itself
    kills += 1
    for path in glob.glob(f'{out}/*.pt'):
        torch.load(path, weights_only=True)
print('killed', kills)
'''


def test_killed_again_and_again(prepared, tmp_path):
    """SIGKILL a few dozen times, at random moments of a run that saves every iteration: the files always load, and the
    run comes out as if nothing had happened."""
    args = [*TINY, '--dropout=0.2', '--eval_interval=1', '--eval_iters=1', '--max_iters=700', '--n_layer=1',
            '--sample_chars=0']   # and only the best as ckpt.pt
    prepared.run('train.py', *args, f'--out_dir={tmp_path}/whole')
    printed = prepared.run('-c', KILLED, tmp_path / 'out', *args)
    assert printed == 'killed 30\n'
    assert_same_run(tmp_path / 'whole', tmp_path / 'out')
    assert len(list((tmp_path / 'out').iterdir())) <= 4   # nor do halves of files pile up


def small_files(n_bytes):
    """For a process about to start: no file may grow beyond so many bytes, as on a full disk."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))


def test_full_disk(prepared, tmp_path):
    prepared.run('train.py', *ARGS, '--max_iters=7', f'--out_dir={tmp_path}/out')
    before = weights(tmp_path / 'out')
    process = prepared.start('train.py', *ARGS, '--init_from=resume', f'--out_dir={tmp_path}/out',
                             preexec_fn=small_files(50_000))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and len(errors.splitlines()) == 1
    assert 'could not be written' in errors and 'what was there before is unharmed' in errors
    assert before == weights(tmp_path / 'out')
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['ckpt.pt', 'log.csv']


def test_full_disk_while_preparing(bare):
    bare.run(f'{ECA}/prepare.py', f'{ECA}/amostra.txt')
    before = {path.name: path.read_bytes() for path in (bare / ECA).iterdir()}
    (bare / 'outro.txt').write_text('outra vez ' * 20_000, encoding='utf-8')
    process = bare.start(f'{ECA}/prepare.py', 'outro.txt', preexec_fn=small_files(50_000))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and len(errors.splitlines()) == 1 and 'its files are as they were' in errors
    assert before == {path.name: path.read_bytes() for path in (bare / ECA).iterdir()}


def test_two_at_once(prepared, tmp_path):
    process = prepared.start('train.py', *ARGS, '--max_iters=100000', f'--out_dir={tmp_path}/out')
    wait_for(process, 'iter 8:')
    said = prepared.run('train.py', *ARGS, f'--out_dir={tmp_path}/out', fails=True)
    assert f'out_dir = {tmp_path}/out is in use by another training' in said
    evaluated = prepared.run('train.py', *ARGS, '--init_from=resume', '--eval_only=True', f'--out_dir={tmp_path}/out')
    assert 'val loss' in evaluated   # to look does no harm
    process.kill()
    process.communicate()
    prepared.run('train.py', *ARGS, '--max_iters=2', f'--out_dir={tmp_path}/out')   # a dead one keeps nobody out


@pytest.mark.parametrize('args', [['--grad_clip=0', '--learning_rate=1e9', '--muon_lr=1e9', '--decay_lr=False'],
                                  ['--grad_clip=0', '--learning_rate=1e9', '--muon_lr=1e9', '--decay_lr=False',
                                   '--log_interval=1000']])
def test_numbers_gone_wrong(prepared, tmp_path, args):
    """The run stops, with the iteration and the likely causes, and does not save what is broken."""
    prepared.run('train.py', *ARGS, '--max_iters=7', f'--out_dir={tmp_path}/out')
    before = weights(tmp_path / 'out')
    said = prepared.run('train.py', *ARGS, *args, '--init_from=resume', f'--out_dir={tmp_path}/out', fails=True)
    assert 'loss is ' in said and 'at iteration ' in said and 'learning_rate or muon_lr too high' in said
    assert before == weights(tmp_path / 'out')


@pytest.mark.skipif(sys.platform != 'linux', reason='only Linux keeps to the limit')
def test_memory_that_runs_out(prepared, tmp_path):
    process = prepared.start('train.py', *ARGS, '--batch_size=100000000', f'--out_dir={tmp_path}/out',
                             preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30)))
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 1 and len(errors.splitlines()) == 1
    assert 'memory ran out; lower batch_size' in errors


def test_full_disk_while_preparing_documents(bare, tiktoken_cache):
    """Of large data sets, too: what train.bin was, it stays."""
    for i in range(2):
        (bare / f'{i}.txt').write_text('outra vez ' * 30_000, encoding='utf-8')
    folder = bare / 'data/openwebtext'
    (folder / 'train.bin').write_bytes(b'as it was')
    process = bare.start('data/openwebtext/prepare.py', '--num_proc=1', '0.txt', '1.txt',
                         env={'TIKTOKEN_CACHE_DIR': tiktoken_cache}, preexec_fn=small_files(100_000))
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 1 and len(errors.splitlines()) == 1, errors
    assert 'File too large' in errors
    assert sorted(path.name for path in folder.iterdir()) == ['prepare.py', 'train.bin']
    assert (folder / 'train.bin').read_bytes() == b'as it was'
