"""The folder of a run: one training has it, and what another one left there is kept, whatever happens when."""

import os
import shutil
import subprocess

import pytest
from conftest import TINY, assert_same_run, load, newest, read_log

from support import run_folder

ARGS = ['train.py', *TINY, '--n_layer=1', '--eval_interval=5', '--eval_iters=1', '--sample_chars=0', '--max_iters=10']
FILES = ('ckpt.pt', 'last.pt', 'log.csv')


@pytest.fixture(scope='module')
def runs(prepared, tmp_path_factory):
    """A folder with two runs: in old, of seed 7, with ckpt.pt and last.pt, and in new, of ARGS."""
    folder = tmp_path_factory.mktemp('runs')
    prepared.run(*ARGS, '--seed=7', f'--out_dir={folder}/old')
    shutil.copy(folder / 'old' / 'ckpt.pt', folder / 'old' / 'last.pt')
    prepared.run(*ARGS, f'--out_dir={folder}/new')
    return folder


@pytest.fixture
def out(runs, tmp_path):
    """A folder with the old run in it."""
    shutil.copytree(runs / 'old', tmp_path / 'out')
    return tmp_path / 'out'


def contents(folder):
    """{name: bytes} of the files in a folder, but for the lock, which stays when its owner is killed."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != '.lock'}


def is_old_run(folder, suffix, runs):
    """Whether the old run is there, under names with this suffix."""
    return all((folder / f'{name}{suffix}').read_bytes() == (runs / 'old' / name).read_bytes() for name in FILES)


PATCHED = '''
import os, runpy, sys
sys.path.insert(0, '.')
rename, replace, remove = os.rename, os.replace, os.remove
{patch}
sys.argv = sys.argv[1:]
runpy.run_path('train.py', run_name='__main__')
'''


def run_patched(workspace, patch, *args):
    """(status, what it prints, what it says) of a train.py in which a line or more have been run first."""
    process = workspace.start('-c', PATCHED.replace('{patch}', patch), *args)
    printed, said = process.communicate(timeout=100)
    return process.returncode, printed, said


# -----------------------------------------------------------------------------
# setting another run aside

BUSY_LOG = '''
def rename(old, new, rename=os.rename):   # a file that is open in another program, on Windows
    if old.endswith('log.csv') and not os.path.exists('{free}'):
        raise PermissionError(13, 'Permission denied', old, None, new)
    rename(old, new)


os.rename = rename
'''


def test_a_log_that_is_open_elsewhere_stops_no_training(prepared, runs, out, tmp_path):
    """The old run's files keep their names, together; the new one's are beside them, and take the names when they
    can: when the run is resumed, or at its next save."""
    busy = BUSY_LOG.replace('{free}', f'{tmp_path}/free')
    status, printed, said = run_patched(prepared, busy, *ARGS, f'--out_dir={out}')
    assert status == 0 and said == ''
    line = (f'{out}/log.csv, of another training, could not be renamed (Permission denied): close what uses it; until '
            f'the next save, or --init_from=resume, this one is ckpt.pt.new in {out}\n')
    assert printed.count(line) == 2 and 'sample.py' not in printed   # which would be given the old run's model
    assert sorted(contents(out)) == sorted([*FILES, 'ckpt.pt.new', 'log.csv.new']) and is_old_run(out, '', runs)

    status, _, said = run_patched(prepared, busy, *ARGS, '--init_from=resume', f'--out_dir={out}')
    assert status == 1 and len(said.splitlines()) == 1 and 'log.csv could not be renamed (Permission denied)' in said
    assert is_old_run(out, '', runs)
    prepared.run(*ARGS, '--init_from=resume', f'--out_dir={out}')
    assert_same_run(runs / 'new', out)
    assert is_old_run(out, '.old', runs) and not list(out.glob('*.new'))

    shutil.rmtree(out)
    shutil.copytree(runs / 'old', out)
    args = [*ARGS, '--always_save_checkpoint=False', '--max_iters=30', f'--out_dir={out}']
    frees = busy + f'''
def replace(old, new, replace=os.replace):
    if 'ckpt.pt.new' in new and os.path.exists(new):   # the second save
        open('{tmp_path}/free', 'w').close()
    replace(old, new)


os.replace = replace
'''
    status, printed, _ = run_patched(prepared, frees, *args)
    assert status == 0 and printed.count('could not be renamed') == 1 and 'next: python sample.py' in printed
    assert is_old_run(out, '.old', runs) and load(out / 'ckpt.pt')['iter_num'] == 30
    assert [row['iter'] for row in read_log(out) if row['val_loss']] == [str(i) for i in range(0, 31, 5)]


KILLED = '''
import os, runpy, shutil, sys
sys.path.insert(0, os.getcwd())
import numpy, torch, tqdm                       # once, for all that are killed
import torch._dynamo, torch.distributed, torch.nn.parallel
old, folder, *args = sys.argv[1:]


def die_at(n, function):
    def counted(path, *more):
        if folder in str(path) and '.lock' not in str(path):
            n.pop()
            if not n:
                os._exit(9)
        return function(path, *more)
    return counted


status = 9
i = 0
while status:
    out = f'{folder}/{i}'
    shutil.copytree(old, out)
    pid = os.fork()
    if pid == 0:
        n = [None] * (i + 1)
        os.rename, os.replace, os.remove = die_at(n, os.rename), die_at(n, os.replace), die_at(n, os.remove)
        sys.argv = [*args, f'--out_dir={out}']
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        runpy.run_path('train.py', run_name='__main__')
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, 9), status
    i += 1
'''


def test_a_kill_at_any_step_loses_neither_run(prepared, runs, tmp_path):
    """Before each renaming and each removal: the old run is there, and the new one from its first save on, which a
    resume finds; it comes out as if nothing had happened."""
    prepared.run('-c', KILLED, runs / 'old', tmp_path, *ARGS)
    outs = sorted(tmp_path.iterdir(), key=lambda out: int(out.name))
    n_new = 0
    for out in outs:
        has_saved = any((out / name).exists() for name in ('ckpt.pt.new', 'ckpt.pt.old'))
        assert has_saved or n_new == 0
        seed = 1337 if has_saved else 7   # of the run that is there: its evaluations are those that it had
        prepared.run(*ARGS, f'--seed={seed}', '--init_from=resume', f'--out_dir={out}')
        if has_saved:
            n_new += 1
            assert_same_run(runs / 'new', out)
            assert is_old_run(out, '.old', runs)
            assert sorted(contents(out)) == sorted(['ckpt.pt', 'log.csv', *(f'{name}.old' for name in FILES)])
        else:
            assert read_log(out)[:-1] == read_log(runs / 'old')[:-1]
            assert sorted(contents(out)) == ['ckpt.pt', 'log.csv']
    assert n_new > 8 and len(outs) - n_new > 3


def test_a_log_of_a_killed_start_goes(prepared, runs, out):
    """plot.py shows it while it is there; a run that is resumed has its own log again."""
    (out / 'log.csv.new').write_text('iter,elapsed_s,lr,loss,train_loss,val_loss\n0,1.0,0.1,,4.5,4.625\n')
    pytest.importorskip('matplotlib')
    assert f'{out}/log.csv.new: of the newer training' in prepared.run('tools/plot.py', out, f'--to={out}/new.png')
    prepared.run(*ARGS, '--init_from=resume', f'--out_dir={out}')
    assert not (out / 'log.csv.new').exists() and is_old_run(out, '', runs) is False
    assert 'newer' not in prepared.run('tools/plot.py', out, f'--to={out}/old.png')
    assert (out / 'old.png').read_bytes() != (out / 'new.png').read_bytes()


def test_a_log_that_is_removed_while_it_is_written(prepared, runs, out):
    """Nothing of the old run is overwritten all the same."""
    removed = f'''
def replace(old, new, replace=os.replace):
    if new.endswith('ckpt.pt.new'):
        os.remove('{out}/log.csv.new')
    replace(old, new)


os.replace = replace
'''
    status, _, said = run_patched(prepared, removed, *ARGS, '--max_iters=5', f'--out_dir={out}')
    assert status == 0, said
    assert (out / 'ckpt.pt.old').read_bytes() == (runs / 'old' / 'ckpt.pt').read_bytes()
    assert load(out / 'ckpt.pt')['iter_num'] == 5


# -----------------------------------------------------------------------------
# the newest state

def test_an_older_last_pt(prepared, runs, out):
    """A kill after ckpt.pt was written, or a last.pt that could not be removed: the newer state is resumed."""
    resumed = [*ARGS, '--init_from=resume', f'--out_dir={out}']
    state = load(out / 'last.pt')
    torch_save(state | {'iter_num': 3}, out / 'last.pt')
    assert 'after 10 iterations' in prepared.run(*resumed)
    torch_save(state | {'iter_num': 12}, out / 'last.pt')
    assert 'after 12 iterations' in prepared.run(*resumed)
    (out / 'last.pt').write_bytes(b'damaged')
    assert 'last.pt is not a whole checkpoint' in prepared.run(*resumed, fails=True)


def torch_save(state, path):
    import torch
    torch.save(state, path)


def test_a_last_pt_that_cannot_be_removed(prepared, runs, out):
    """On Windows, while it is read: the run goes on."""
    busy = '''
def remove(path):
    if path.endswith('last.pt'):
        raise PermissionError(13, 'Permission denied', path)
    return unlink(path)


unlink, os.remove = os.remove, remove
'''
    status, printed, said = run_patched(prepared, busy, *ARGS, '--init_from=resume', '--max_iters=15',
                                        f'--out_dir={out}')
    assert status == 0 and said == '' and (out / 'last.pt').exists()
    again = prepared.run(*ARGS, '--init_from=resume', '--max_iters=15', f'--out_dir={out}')
    assert 'after 15 iterations' in again and not (out / 'last.pt').exists()


# -----------------------------------------------------------------------------
# links, and what is no file

@pytest.mark.parametrize('n_there', [0, 1])
def test_links_stay_and_their_files_are_written(prepared, runs, tmp_path, n_there):
    """Links to another disk, to files that are there and to names that are not: training, resuming, a new run."""
    out = tmp_path / 'out'
    disk = tmp_path / 'disk'
    out.mkdir()
    disk.mkdir()
    for name in FILES:
        (out / name).symlink_to(disk / f'big-{name}')
        if n_there:
            shutil.copy(runs / 'old' / name, disk / f'big-{name}')

    prepared.run(*ARGS, '--max_iters=5', f'--out_dir={out}')
    prepared.run(*ARGS, '--init_from=resume', f'--out_dir={out}')
    assert_same_run(runs / 'new', out)
    assert sorted(os.listdir(out)) == sorted(FILES) and all((out / name).is_symlink() for name in FILES)
    expected = ['big-ckpt.pt', 'big-log.csv']
    if n_there:
        expected += ['big-ckpt.pt.old', 'big-last.pt.old', 'big-log.csv.old']
        for name in FILES:
            assert (disk / f'big-{name}.old').read_bytes() == (runs / 'old' / name).read_bytes()
    assert sorted(os.listdir(disk)) == sorted(expected)


def test_a_link_for_the_best_state_alone(prepared, runs, tmp_path):
    """last.pt is on another disk than ckpt.pt: nothing is renamed from one to the other."""
    out = tmp_path / 'out'
    out.mkdir()
    other_disk = '''
def replace(old, new, replace=os.replace):
    if os.path.dirname(os.path.abspath(old)) != os.path.dirname(os.path.abspath(new)):
        raise OSError(18, 'Invalid cross-device link', old, None, new)
    replace(old, new)


os.replace = os.rename = replace
'''
    (tmp_path / 'disk').mkdir()
    (out / 'ckpt.pt').symlink_to(tmp_path / 'disk' / 'ckpt.pt')
    for args in (['--max_iters=5'], ['--init_from=resume'], ['--max_iters=5', '--seed=8']):
        status, _, said = run_patched(prepared, other_disk, *ARGS, *args, f'--out_dir={out}')
        assert status == 0, said
    assert sorted(os.listdir(out)) == ['ckpt.pt', 'log.csv', 'log.csv.old'] and (out / 'ckpt.pt').is_symlink()
    assert sorted(os.listdir(tmp_path / 'disk')) == ['ckpt.pt', 'ckpt.pt.old']


@pytest.mark.parametrize('name, kind, says', [
    ('ckpt.pt', 'folder', 'ckpt.pt cannot be written: it is a folder, not a file'),
    ('last.pt', 'folder', 'last.pt cannot be written: it is a folder, not a file'),
    ('log.csv', 'pipe', 'log.csv cannot be written: it is a pipe, not a file'),
    ('ckpt.pt.new', 'folder', 'ckpt.pt.new cannot be written: it is a folder, not a file'),
    ('last.pt', '/dev/null', '/dev/null cannot be written: it is a device, not a file'),
    ('ckpt.pt', 'nada/ckpt.pt', 'nada/ckpt.pt cannot be written: its folder is not there'),
    ('ckpt.pt', 'ckpt.pt', 'ckpt.pt cannot be written: Too many levels of symbolic links'),
    ('ckpt.pt', 'last.pt', 'two of ckpt.pt, last.pt and log.csv in {out} are links to one file; remove the links'),
    ('last.pt', 'ckpt.pt.new', 'are links to one file'),
    ('.lock', 'folder', 'cannot be written to: {out}/.lock: Is a directory'),
])
@pytest.mark.parametrize('args', [[], ['--init_from=resume']])
def test_what_cannot_be_written_is_found_out_first(prepared, runs, out, name, kind, says, args):
    """Before training, and nothing has changed."""
    (out / name).unlink(missing_ok=True)
    if kind == 'folder':
        (out / name).mkdir()
    elif kind == 'pipe':
        os.mkfifo(out / name)
    else:
        (out / name).symlink_to(kind)
    before = sorted((path.name, path.lstat().st_ino, path.lstat().st_mtime_ns) for path in out.iterdir())
    said = prepared.run(*ARGS, *args, f'--out_dir={out}', fails=True)
    assert says.replace('{out}', str(out)) in said and len(said.splitlines()) == 1
    assert before == sorted((path.name, path.lstat().st_ino, path.lstat().st_mtime_ns) for path in out.iterdir())


def test_a_start_that_fails_leaves_no_folder(prepared, tmp_path):
    for mistake in (['--n_head=3'], ['--init_from=nada'], ['--init_from=resume']):
        prepared.run(*ARGS, *mistake, f'--out_dir={tmp_path}/out', fails=True)
        assert not list(tmp_path.iterdir())


# -----------------------------------------------------------------------------
# two at once

def test_two_torchruns_that_resume_at_once(prepared, runs, out):
    """One trains on; the other ends in one line, of its rank 0, and touches nothing."""
    command = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2', *ARGS, '--init_from=resume',
               '--gradient_accumulation_steps=2', '--max_iters=200', '--eval_interval=100', f'--out_dir={out}']
    both = [prepared.start(*command, f'--seed={seed}', stderr=subprocess.PIPE) for seed in (11, 12)]
    ends = [(process.communicate(timeout=200), process.returncode) for process in both]
    statuses = [status for _, status in ends]
    assert sorted(statuses) == [0, 1], ends
    winner = statuses.index(0)
    (printed, said), _ = ends[1 - winner]
    lines = [line for line in said.splitlines() if line.startswith('train.py: ')]
    assert lines == [f'train.py: out_dir = {out} is in use by another training; wait for it, or choose another with '
                     '--out_dir=']
    assert 'Traceback' not in said.split(lines[0])[0] and 'iter 10:' not in printed   # torchrun adds one of its own
    found = newest(out)
    assert found['iter_num'] == 200 and found['config']['seed'] == (11, 12)[winner]
    assert [row['iter'] for row in read_log(out) if row['loss']] == [str(i) for i in range(200)]
    assert sorted(os.listdir(out)) == ['ckpt.pt', 'log.csv']


def test_release_removes_only_its_own_lock(tmp_path):
    """Of two that claim and release in turn, neither removes the other's."""
    run_folder.claim(str(tmp_path / 'a'), is_resume=False)
    run_folder.claim(str(tmp_path / 'b'), is_resume=False)
    assert (tmp_path / 'a' / '.lock').exists()
    with pytest.raises(SystemExit):
        run_folder.claim(str(tmp_path / 'a'), is_resume=False)
    run_folder.release()
    assert list(tmp_path.iterdir()) == []
