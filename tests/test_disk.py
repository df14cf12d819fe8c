"""What is on the disk stays true: one set of data, one training in a folder, nothing replaced that is not ours."""

import os
import signal
import socket
import subprocess
import time

import numpy as np
import pytest
from conftest import ECA, TINY, load, newest, read_log

from support import dataset, files
from support.files import check_output, lock, making_folder, remove_halves, replacing, unlock

fcntl = pytest.importorskip('fcntl')   # pipes, sockets and kills as Unix has them

ARGS = [*TINY, '--n_layer=1', '--eval_interval=5', '--eval_iters=1', '--sample_chars=0']


def wait_for(process, text):
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(process.stderr.read())


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


# -----------------------------------------------------------------------------
# the folder of a run

PAUSED = '''
import runpy, sys, time
sys.path.insert(0, '.')
from support import checkpoints
load_run = checkpoints.load_run


def slowly(config):
    found = load_run(config)
    print('read', flush=True)
    sys.stdin.readline()
    return found


checkpoints.load_run = slowly
sys.argv = sys.argv[1:]
runpy.run_path('train.py', run_name='__main__')
'''


def test_the_lock_comes_before_the_load(prepared, tmp_path):
    """While one run that resumes has read and not yet begun, no other gets in, to be overwritten later."""
    args = ['train.py', *ARGS, f'--out_dir={tmp_path}/out']
    prepared.run(*args, '--max_iters=5')
    slow = prepared.start('-c', PAUSED, *args, '--init_from=resume', '--max_iters=6', stdin=subprocess.PIPE)
    wait_for(slow, 'read')
    said = prepared.run(*args, '--init_from=resume', '--max_iters=10', fails=True)
    assert 'is in use by another training' in said
    slow.communicate('\n', timeout=60)
    assert newest(tmp_path / 'out')['iter_num'] == 6


def test_a_run_that_is_not_there_is_not_made(prepared, tmp_path):
    said = prepared.run('train.py', *ARGS, '--init_from=resume', f'--out_dir={tmp_path}/out', fails=True)
    assert 'there is no ' in said and not (tmp_path / 'out').exists()


def test_mistaken_starts_lose_nothing(prepared, tmp_path):
    """A finished run; a start that is killed, two that are stopped at once, one that goes beyond its first
    evaluation: each run's checkpoints and log are there, together, under one ending."""
    out = tmp_path / 'out'
    args = ['train.py', *ARGS, f'--out_dir={out}']
    prepared.run(*args, '--max_iters=5')
    finished = contents(out)
    process = prepared.start(*args, '--max_iters=9999', '--eval_interval=5000')
    wait_for(process, 'iter 3:')
    process.kill()
    process.communicate()
    found = contents(out)
    assert found.pop('.lock') == b''   # of the killed
    assert len(found.pop('log.csv.new').splitlines()) > 4 and found == finished   # what it did is there as well
    for _ in range(2):
        process = prepared.start(*args, '--max_iters=9999', '--eval_interval=5000')
        wait_for(process, 'iter 3:')
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=60)
        assert f'{out}/log.csv, of another training, is now' in printed
    prepared.run(*args, '--max_iters=6', '--seed=7')
    found = contents(out)
    assert {name: found[name + '.old'] for name in finished} == finished
    assert sorted(found) == ['ckpt.pt', 'ckpt.pt.old', 'last.pt.old2', 'last.pt.old3', 'log.csv', 'log.csv.old',
                             'log.csv.old2', 'log.csv.old3']
    assert load(out / 'ckpt.pt')['iter_num'] == 6 and read_log(out)[-1]['iter'] == '6'


def test_a_first_state_that_cannot_be_saved_moves_nothing(prepared, tmp_path):
    """The disk is full: the other training's files are still where they were, and it can be resumed."""
    resource = pytest.importorskip('resource')
    args = ['train.py', *ARGS, '--max_iters=5', f'--out_dir={tmp_path}/out']
    prepared.run(*args)
    before = contents(tmp_path / 'out')
    process = prepared.start(*args, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)))
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1 and 'could not be written' in said and len(said.splitlines()) == 1
    found = contents(tmp_path / 'out')
    assert found.pop('log.csv.new') and found == before


# -----------------------------------------------------------------------------
# what is written over

def make(kind, path):
    if kind == 'pipe':
        os.mkfifo(path)
    if kind == 'socket':
        socket.socket(socket.AF_UNIX).bind(os.path.relpath(path))   # whose names are short
    if kind == 'folder':
        os.mkdir(path)
    if kind == 'link to a pipe':
        os.mkfifo(f'{path}.pipe')
        os.symlink(f'{path}.pipe', path)
    if kind == 'link to itself':
        os.symlink(path, path)


@pytest.mark.parametrize('kind', ['pipe', 'socket', 'folder', 'link to a pipe', 'link to itself'])
def test_only_regular_files_are_replaced(tmp_path, kind, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = str(tmp_path / 'a.txt')
    make(kind, path)
    before = sorted((name, os.lstat(name).st_ino, os.lstat(name).st_mode) for name in os.listdir())
    with pytest.raises(OSError):
        with replacing(path) as f:
            f.write(b'new')
    for refuse in (lambda: files.write_whole(path, lambda f: f.write(b'new')), lambda: check_output('to', path)):
        with pytest.raises(SystemExit) as e:
            refuse()
        assert '\n' not in str(e.value)
    assert before == sorted((name, os.lstat(name).st_ino, os.lstat(name).st_mode) for name in os.listdir())


def test_devices_stay_devices():
    with pytest.raises(OSError, match='it is a device, not a file'):
        files.check_regular('/dev/null')


@pytest.fixture(scope='module')
def trained(prepared):
    prepared.run('train.py', *ARGS, '--max_iters=5', '--out_dir=out-disk')
    return prepared


@pytest.mark.parametrize('script', [
    ['sample.py', '--out_dir=out-disk', '--num_samples=1', '--max_new_tokens=5', '--out='],
    ['tools/explain.py', '--out_dir=out-disk', '--max_new_tokens=5', '--to='],
    ['tools/plot.py', 'out-disk', '--to='],
])
def test_a_file_of_another_kind_is_not_written_over(trained, tmp_path, script):
    """Neither a checkpoint nor data nor a text of somebody's; its own kind is, again and again, and an empty file."""
    pytest.importorskip('matplotlib')
    *args, to = script
    end = {'--out=': 'txt', '--to=': 'html'}[to] if 'plot' not in args[0] else 'svg'
    (tmp_path / 'notes.txt').write_text('mine\n', encoding='utf-8')
    (tmp_path / f'notes.{end}').write_text('<html>mine</html>\n', encoding='utf-8')
    (tmp_path / 'link').symlink_to(tmp_path / 'notes.txt')
    for path in (trained / 'out-disk' / 'ckpt.pt', trained / 'out-disk' / 'log.csv', trained / ECA / 'train.bin',
                 trained / 'model.py', tmp_path / 'notes.txt', tmp_path / f'notes.{end}', tmp_path / 'link'):
        before = path.read_bytes()
        said = trained.run(*args, f'{to}{path}', fails=True)
        assert f'{path} is there, and is not what this script writes' in said and path.read_bytes() == before
    own = tmp_path / f'own.{end}'
    own.write_bytes(b'')
    for _ in range(2):
        trained.run(*args, f'{to}{own}')
        assert own.stat().st_size > 0


HALF = '''
import os, sys
sys.path.insert(0, '.')
from support.files import making_folder, replacing
path = sys.argv[1]
with replacing(path) as f, making_folder(path + '-folder') as folder:
    f.write(b'half of it')
    f.flush()
    os.mkdir(folder)
    print('writing', flush=True)
    sys.stdin.readline()
'''


def test_halves_of_the_killed_go_and_those_of_the_living_stay(prepared, tmp_path):
    path = tmp_path / 'a.txt'
    living, dead = (prepared.start('-c', HALF, path, stdin=subprocess.PIPE) for _ in range(2))
    for process in (living, dead):
        wait_for(process, 'writing')
    assert len(os.listdir(tmp_path)) == 4
    dead.kill()
    dead.communicate()
    with replacing(str(path)) as f:   # whoever writes there next
        f.write(b'whole')
        assert len([name for name in os.listdir(tmp_path) if name.startswith('a.txt.')]) == 2
    remove_halves(f'{path}-folder')
    assert len(os.listdir(tmp_path)) == 3 and path.read_bytes() == b'whole'
    living.communicate('\n', timeout=60)
    assert path.read_bytes() == b'half of it' and sorted(os.listdir(tmp_path)) == ['a.txt', 'a.txt-folder']


def test_a_file_that_would_not_change_is_not_touched(tmp_path):
    path = tmp_path / 'a.txt'
    path.write_bytes(b'as it is')
    before = path.stat()
    with replacing(str(path)) as f:
        f.write(b'as it is')
    after = path.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert os.listdir(tmp_path) == ['a.txt']


def test_an_empty_folder_is_not_replaced(tmp_path):
    (tmp_path / 'made').mkdir()
    with pytest.raises(FileExistsError):
        with making_folder(str(tmp_path / 'made')) as folder:
            os.mkdir(folder)
    assert os.listdir(tmp_path) == ['made']


def test_lock_without_flock(tmp_path, monkeypatch):
    """As on Windows: by a file in the folder."""
    pytest.importorskip('filelock')
    monkeypatch.setattr(files, 'fcntl', None)
    folder = str(tmp_path)
    held = lock(folder)
    with pytest.raises(BlockingIOError):
        lock(folder)
    unlock(folder, held)
    unlock(folder, lock(folder))


# -----------------------------------------------------------------------------
# one data set

def text_file(path, words, n=3000):
    path.write_text(words * n, encoding='utf-8')
    return path


KILLED_BETWEEN = '''
import os, runpy, sys
n = int(sys.argv[1])
replace = os.replace


def replace_n(source, target):
    global n
    if n == 0:
        os._exit(9)
    n -= 1
    replace(source, target)


os.replace = replace_n
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name='__main__')
'''


@pytest.mark.parametrize('before', ['nothing', 'a set', "nanoGPT's set"])
def test_a_kill_between_two_files_leaves_no_mixture(bare, before, monkeypatch):
    """At every rename, whatever was there: the old set, or one that is refused, and that preparing again mends."""
    one, two = text_file(bare / 'um.txt', 'abc def '), text_file(bare / 'dois.txt', 'xyz abc ')
    prepare = f'{ECA}/prepare.py'
    folder = bare / ECA
    monkeypatch.setattr(dataset, 'DATA', folder.parent)
    n_refused = 0
    for n in range(6):
        for name in (*dataset.SET, dataset.SIDECAR):
            (folder / name).unlink(missing_ok=True)
        if before != 'nothing':
            bare.run(prepare, one)
        if before == "nanoGPT's set":
            (folder / dataset.SIDECAR).unlink()
        old = {name: (folder / name).read_bytes() for name in dataset.SET if (folder / name).exists()}
        process = bare.start('-c', KILLED_BETWEEN, n, prepare, two)
        process.communicate(timeout=60)
        found = {name: (folder / name).read_bytes() for name in dataset.SET if (folder / name).exists()}
        try:
            dataset.find_dataset('ecadequeiuroz_char', 32)
            dataset.check_prepared(str(folder))
            assert found == old or process.returncode == 0
        except SystemExit as e:
            n_refused += 1
            assert '\n' not in str(e) and found != old or before == 'nothing'
        if process.returncode == 0:
            break
        bare.run(prepare, two)
        dataset.check_prepared(str(folder))
    assert process.returncode == 0 and n_refused > 2


def test_a_mixture_is_refused_and_a_folder_without_a_record_passes(bare):
    one, two = text_file(bare / 'um.txt', 'abc def '), text_file(bare / 'dois.txt', 'fed cba ')   # of one length
    folder = bare / ECA
    bare.run(f'{ECA}/prepare.py', one)
    old = contents(folder)
    bare.run(f'{ECA}/prepare.py', two)
    new = contents(folder)
    args = ['train.py', *ARGS, '--max_iters=1', '--eval_only=True']
    for name in ('train.bin', 'val.bin', 'meta.pkl', 'dataset.json'):
        damaged = [b'', b'[' * 100_000, b'null', b'\xff'] if name == 'dataset.json' else [old[name] + b'\0\0']
        for content in (old[name], *damaged):
            if content == new[name]:
                continue
            (folder / name).write_bytes(content)
            said = bare.run(*args, fails=True)
            assert 'were not written together; prepare the text again' in said
        (folder / name).write_bytes(new[name])
    bare.run(*args)
    (folder / 'dataset.json').unlink()
    (folder / 'train.bin').write_bytes(old['train.bin'])
    bare.run(*args)


def test_a_prepare_that_still_writes(bare, monkeypatch, capsys):
    """Its files are no mixture, and not missing: the training says that they come, and counts them when they are
    there."""
    folder = bare / ECA
    args = ['train.py', *ARGS, '--eval_only=True']
    held = lock(str(folder))
    assert 'prepare.py is still writing to' in bare.run(*args, fails=True)
    unlock(str(folder), held)
    assert 'run python data/ecadequeiuroz_char/prepare.py first' in bare.run(*args, fails=True)
    bare.run(f'{ECA}/prepare.py', f'{ECA}/amostra.txt')
    new = (folder / 'val.bin').read_bytes()
    (folder / 'val.bin').write_bytes(new[:-2])
    held = lock(str(folder))
    assert 'prepare.py is still writing to' in bare.run(*args, fails=True)
    unlock(str(folder), held)
    assert 'were not written together' in bare.run(*args, fails=True)

    def end_of_writing(path):
        (folder / 'val.bin').write_bytes(new)
        return False

    monkeypatch.setattr(dataset, 'is_locked', end_of_writing)   # it ended between the two looks
    dataset.check_prepared(str(folder))


@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='Windows has none')
def test_a_pipe_among_the_files_of_a_set_is_not_waited_for(bare):
    bare.run(f'{ECA}/prepare.py', f'{ECA}/amostra.txt')
    (bare / ECA / 'meta.pkl').unlink()
    os.mkfifo(bare / ECA / 'meta.pkl')
    said = bare.run(f'{ECA}/prepare.py', f'{ECA}/amostra.txt', fails=True, real=True, timeout_s=60)
    assert 'cannot be written to' in said and 'its files are as they were' in said


def test_the_same_text_again_changes_nothing(bare):
    def marks():
        return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in (bare / ECA).iterdir()}

    bare.run(f'{ECA}/prepare.py', f'{ECA}/amostra.txt')
    before = marks()
    bare.run(f'{ECA}/prepare.py', f'{ECA}/amostra.txt')
    after = marks()
    before.pop('__pycache__', None)
    after.pop('__pycache__', None)
    assert before == after and 'dataset.json' in before


def test_two_that_prepare_at_once_leave_one_set(bare):
    texts = [text_file(bare / f'{i}.txt', words, 30_000) for i, words in enumerate(('abc def ', 'xyz abcd '))]
    for _ in range(2):
        both = [bare.start(f'{ECA}/prepare.py', text) for text in texts]
        for process in both:
            _, said = process.communicate(timeout=100)
            assert process.returncode == 0, said
        dataset.check_prepared(str(bare / ECA))
        assert not list((bare / ECA).glob('*.tmp'))


def test_another_prepare_is_waited_for(tmp_path, capsys):
    held = lock(str(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        with pytest.MonkeyPatch.context() as m:
            m.setattr(time, 'sleep', lambda s: (_ for _ in ()).throw(KeyboardInterrupt))
            dataset.write_token_files(str(tmp_path), np.zeros(9, '<u2'), np.zeros(9, '<u2'), None)
    unlock(str(tmp_path), held)
    assert capsys.readouterr().out.startswith('waiting for another prepare.py') and os.listdir(tmp_path) == []


def test_a_file_that_a_training_has_open(tmp_path, monkeypatch, capsys):
    """On Windows it cannot be replaced. What is said of the files is true, whichever it is."""
    old, new = np.zeros(9, '<u2'), np.ones(9, '<u2')
    replace = os.replace
    for name in dataset.SET:
        folder = tmp_path / name
        folder.mkdir()
        dataset.write_token_files(str(folder), old, old, {'vocab_size': 2})

        def replace_unless_open(source, target, busy=str(folder / name)):
            if target == busy:
                raise PermissionError(13, 'Permission denied', source, None, target)
            replace(source, target)

        with monkeypatch.context() as m:
            m.setattr(os, 'replace', replace_unless_open)
            with pytest.raises(SystemExit) as e:
                dataset.write_token_files(str(folder), new, new, {'vocab_size': 3})
        assert str(e.value).endswith(f'{folder}/{name} cannot be replaced: Permission denied (a training may be '
                                     'reading it: end that first); prepare the text again')
        if name == 'train.bin':
            dataset.check_prepared(str(folder))
        else:
            with pytest.raises(SystemExit):
                dataset.check_prepared(str(folder))
        assert not list(folder.glob('*.tmp')) and not (folder / '.lock').exists()
        dataset.write_token_files(str(folder), new, new, {'vocab_size': 3})
        dataset.check_prepared(str(folder))


def test_large_files_are_checked_in_no_time(tmp_path):
    for name in ('train.bin', 'val.bin'):
        with open(tmp_path / name, 'wb') as f:
            f.truncate(50 << 30)   # a file with a hole
    began = time.perf_counter()
    dataset.write_sidecar(str(tmp_path))
    dataset.check_prepared(str(tmp_path))
    assert time.perf_counter() - began < 5   # twice; a busy machine included
    with open(tmp_path / 'val.bin', 'r+b') as f:
        f.seek(-2, os.SEEK_END)
        f.write(b'xx')
    with pytest.raises(SystemExit):
        dataset.check_prepared(str(tmp_path))


def test_preparing_while_a_training_runs(bare):
    """It saves, stops and says so; and no letter of the other text is trained on: the run up to there is the run that
    nobody disturbed."""
    bare.run(f'{ECA}/prepare.py', f'{ECA}/amostra.txt')
    args = ['train.py', *ARGS, '--max_iters=9999', '--eval_interval=5000', '--gradient_accumulation_steps=8']
    process = bare.start(*args, '--out_dir=out')
    wait_for(process, 'iter 5:')
    text_file(bare / 'outro.txt', 'outra vez Ω ', 9000)
    bare.run(f'{ECA}/prepare.py', 'outro.txt', real=True)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1 and len(said.splitlines()) == 1
    assert 'train.bin is another file than when this training began, which has stopped, and is saved' in said
    stopped = newest(bare / 'out')['iter_num']
    assert stopped > 5
    bare.run(f'{ECA}/prepare.py', f'{ECA}/amostra.txt')
    bare.run(*args, '--out_dir=whole', f'--max_iters={stopped}')
    rows = [row for row in read_log(bare / 'out') if row['loss']]
    assert rows == [row for row in read_log(bare / 'whole') if row['loss']]


@pytest.mark.parametrize('change', ['longer', 'another inode', 'gone'])
def test_a_file_that_changes_is_seen(tmp_path, change):
    for split in ('train', 'val'):
        (tmp_path / f'{split}.bin').write_bytes(b'\0\0')
    opened = dataset.OpenSplits(str(tmp_path))
    assert opened.changed() is False
    opened.check_unchanged()
    path = tmp_path / 'val.bin'
    if change == 'longer':
        path.write_bytes(b'\0\0\0\0')
    else:
        path.unlink()
    if change == 'another inode':
        path.write_bytes(b'\0\0')
    assert opened.changed() is True
    with pytest.raises(SystemExit, match=f'{path} is another file than'):
        opened.check_unchanged()


@pytest.mark.parametrize('kind', ['pipe', 'folder', 'socket'])
def test_data_that_are_no_files(bare, kind, monkeypatch):
    bare.run(f'{ECA}/prepare.py', f'{ECA}/amostra.txt')
    path = bare / ECA / 'train.bin'
    path.unlink()
    monkeypatch.chdir(bare.path)
    make(kind, str(path))
    assert f'train.bin cannot be read: it is a {kind}, not a file' in bare.run('train.py', *ARGS, fails=True)
    assert f'it is a {kind}, not a file' in bare.run(f'{ECA}/prepare.py', f'{ECA}/amostra.txt', fails=True)


def test_a_data_folder_that_is_read_only(bare, tmp_path):
    """train.py writes nothing there."""
    bare.run(f'{ECA}/prepare.py', f'{ECA}/amostra.txt')
    before = sorted((path.name, path.stat().st_mtime_ns) for path in (bare / ECA).iterdir())
    (bare / ECA).chmod(0o555)
    try:
        bare.run('train.py', *ARGS, '--max_iters=1', f'--out_dir={tmp_path}/out')
    finally:
        (bare / ECA).chmod(0o755)
    assert before == sorted((path.name, path.stat().st_mtime_ns) for path in (bare / ECA).iterdir())
