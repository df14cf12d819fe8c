"""Files that are whole or not there, folders that one process has for itself."""

import errno
import os
import stat

import pytest

from support import files
from support.files import check_output, lock, making_folder, remove_halves, replacing, unlock, write_whole
from support.run_folder import set_aside


def test_replacing(tmp_path):
    """The old file stays until the block ends, and then the new one is there; nothing else is."""
    path = tmp_path / 'a.txt'
    path.write_bytes(b'old')
    with replacing(str(path)) as f:
        f.write(b'new')
        f.flush()
        assert path.read_bytes() == b'old'
    assert path.read_bytes() == b'new' and os.listdir(tmp_path) == ['a.txt']


@pytest.mark.parametrize('content', [None, b'old'])
def test_replacing_that_fails_leaves_what_was_there(tmp_path, content):
    path = tmp_path / 'a.txt'
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(KeyboardInterrupt):
        with replacing(str(path)) as f:
            f.write(b'half of it')
            raise KeyboardInterrupt
    assert os.listdir(tmp_path) == ([] if content is None else ['a.txt'])
    assert content is None or path.read_bytes() == content


def test_a_symbolic_link_stays_one(tmp_path):
    """The file that it points to is replaced, in its own folder, whether it was there or not."""
    (tmp_path / 'disk').mkdir()
    link = tmp_path / 'a.txt'
    try:
        link.symlink_to(tmp_path / 'disk' / 'real.txt')
    except OSError:
        pytest.skip('no symbolic links here')
    for content in (b'first', b'second'):
        with replacing(str(link)) as f:
            f.write(content)
        assert link.is_symlink() and (tmp_path / 'disk' / 'real.txt').read_bytes() == content
    assert os.listdir(tmp_path / 'disk') == ['real.txt'] and sorted(os.listdir(tmp_path)) == ['a.txt', 'disk']


def test_making_folder(tmp_path):
    path = tmp_path / 'made'
    with making_folder(str(path)) as folder:
        os.mkdir(folder)
        with open(os.path.join(folder, 'a.txt'), 'wb') as f:
            f.write(b'new')
        assert not path.exists()
    assert (path / 'a.txt').read_bytes() == b'new' and os.listdir(tmp_path) == ['made']


def test_making_folder_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        with making_folder(str(tmp_path / 'made')) as folder:
            os.mkdir(folder)
            with open(os.path.join(folder, 'a.txt'), 'wb') as f:
                f.write(b'half of it')
            raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_there_is_not_replaced(tmp_path):
    (tmp_path / 'made').mkdir()
    (tmp_path / 'made' / 'mine.txt').write_bytes(b'old')
    with pytest.raises(OSError):
        with making_folder(str(tmp_path / 'made')) as folder:
            os.mkdir(folder)
    assert os.listdir(tmp_path) == ['made'] and os.listdir(tmp_path / 'made') == ['mine.txt']


@pytest.mark.parametrize('e, says', [
    (OSError(28, 'No space left on device'), 'could not be written (No space left on device)'),
    (RuntimeError('unexpected pos 64 vs 0\nmore of it'), 'could not be written (unexpected pos 64 vs 0)'),
])
def test_writing_that_fails_is_one_line(tmp_path, e, says):
    def write(f):
        f.write(b'half of it')
        raise e

    path = tmp_path / 'a.txt'
    path.write_bytes(b'old')
    with pytest.raises(SystemExit) as failure:
        write_whole(str(path), write)
    message = str(failure.value)
    assert f'{path} {says}; what was there before is unharmed' in message and '\n' not in message
    assert path.read_bytes() == b'old' and os.listdir(tmp_path) == ['a.txt']


def refusal(*args):
    """The one line with which check_output exits."""
    with pytest.raises(SystemExit) as e:
        check_output(*args)
    assert '\n' not in str(e.value)
    return str(e.value)


def test_files_that_cannot_be_written(tmp_path, monkeypatch):
    """Found out before the work, which leaves no trace."""
    monkeypatch.chdir(tmp_path)
    os.mkdir('folder')
    os.symlink('nowhere/text', 'dangling')
    for path, says in (('folder', 'it is a folder, not a file'), ('folder/', 'it is a folder, not a file'),
                       ('nada/text', 'its folder is not there'), ('nada/..', 'its folder is not there'),
                       ('nada/', 'its folder is not there'), ('/dev/null', 'it is a device, not a file'),
                       ('dangling', 'No such file'), ('x' * 252, 'name too long'), ('a\0b', 'null'),
                       ('/proc/text', 'No such file')):
        said = refusal('out', path)
        assert 'cannot be written: ' in said and says in said and said.endswith('; choose another with --out=')
    (tmp_path / 'text').write_text('as it was')
    (tmp_path / 'empty').touch()
    os.symlink('folder/text', 'link')
    for path in ('text', 'empty', 'folder/new', './new', 'link'):
        check_output('out', path)
        check_output('out', path, b'as', b'was')
    assert 'text is there, and is not what this script writes' in refusal('out', 'text', b'as', b'is')
    assert sorted(os.listdir()) == ['dangling', 'empty', 'folder', 'link', 'text'] and os.listdir('folder') == []
    assert (tmp_path / 'text').read_text() == 'as it was'


def test_files_that_are_read_only(tmp_path, monkeypatch):
    path = tmp_path / 'text'
    path.touch()
    monkeypatch.setattr(os, 'access', lambda path, mode: False)   # root may write to all of them
    assert f'out = {path} cannot be written: it is read-only' in refusal('out', str(path))


def test_halves_are_removed_and_nothing_else(tmp_path):
    for name in ('ckpt.pt', 'ckpt.pt.12.tmp', 'last.pt.7.tmp', 'mine.tmp', 'ckpt.pt.old'):
        (tmp_path / name).write_bytes(b'')
    for name in ('ckpt.pt', 'last.pt'):
        remove_halves(str(tmp_path / name))
    assert sorted(os.listdir(tmp_path)) == ['ckpt.pt', 'ckpt.pt.old', 'mine.tmp']


def test_set_aside(tmp_path, capsys):
    """Together, to names that are free: nothing that was set aside before is overwritten."""
    (tmp_path / 'a.txt').write_bytes(b'newer')
    (tmp_path / 'b.txt').write_bytes(b'newer, too')
    (tmp_path / 'a.txt.old').write_bytes(b'older')
    set_aside([str(tmp_path / 'a.txt'), str(tmp_path / 'b.txt')])
    assert capsys.readouterr().out == ''.join(
        f'{tmp_path}/{name}, of another training, is now {tmp_path}/{name}.old2\n' for name in ('a.txt', 'b.txt'))
    assert sorted(os.listdir(tmp_path)) == ['a.txt.old', 'a.txt.old2', 'b.txt.old2']
    assert (tmp_path / 'a.txt.old').read_bytes() == b'older' and (tmp_path / 'a.txt.old2').read_bytes() == b'newer'
    (tmp_path / 'b.txt').write_bytes(b'newest')
    set_aside([str(tmp_path / 'b.txt')])
    assert capsys.readouterr().out == f'{tmp_path}/b.txt, of another training, is now {tmp_path}/b.txt.old\n'


def test_lock(tmp_path):
    """One has it until it gives it back; nothing is left there."""
    folder = str(tmp_path)
    for _ in range(2):
        held = lock(folder)
        with pytest.raises(BlockingIOError):
            lock(folder)
        unlock(folder, held)
    assert os.listdir(folder) == []


def test_what_a_killed_process_has_locked(tmp_path):
    """Its .lock is there, and keeps nobody out."""
    pytest.importorskip('fcntl')
    folder = str(tmp_path)
    os.close(lock(folder))
    assert os.listdir(folder) == ['.lock']
    unlock(folder, lock(folder))
    assert os.listdir(folder) == []


def test_a_lock_whose_file_is_removed_meanwhile(tmp_path, monkeypatch):
    """Its owner gives it back between our opening it and our locking it: then we have locked what nobody else sees."""
    pytest.importorskip('fcntl')
    folder = str(tmp_path)
    hold = files.hold

    def hold_too_late(path, flags=0):
        monkeypatch.setattr(files, 'hold', hold)
        f = hold(path, flags)
        os.remove(path)
        return f

    monkeypatch.setattr(files, 'hold', hold_too_late)
    held = lock(folder)
    with pytest.raises(BlockingIOError):
        lock(folder)
    unlock(folder, held)


def test_lock_as_on_nfs(tmp_path, monkeypatch):
    """Files that are open for writing can be locked there, and nothing else: a folder would be locked for one machine
    alone."""
    fcntl = pytest.importorskip('fcntl')
    flock = fcntl.flock

    def flock_of_nfs(f, operation):
        is_for_writing = fcntl.fcntl(f, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
        if not stat.S_ISREG(os.fstat(f).st_mode) or not is_for_writing:
            raise OSError(errno.EBADF, 'Bad file descriptor')
        flock(f, operation)

    monkeypatch.setattr(fcntl, 'flock', flock_of_nfs)
    test_lock(tmp_path)
    with making_folder(str(tmp_path / 'made')) as folder:
        os.mkdir(folder)
        remove_halves(str(tmp_path / 'made'))
        assert os.path.isdir(folder)


def test_file_systems_without_locks(tmp_path, monkeypatch):
    """Writing works; a half that may be somebody's stays."""
    fcntl = pytest.importorskip('fcntl')
    (tmp_path / 'a.txt.12.tmp').write_bytes(b'')

    def no_flock(f, operation):
        raise OSError(errno.ENOLCK, 'No locks available')

    monkeypatch.setattr(fcntl, 'flock', no_flock)
    with replacing(str(tmp_path / 'a.txt')) as f:
        f.write(b'new')
    unlock(str(tmp_path), lock(str(tmp_path)))
    with making_folder(str(tmp_path / 'made')) as folder:
        os.mkdir(folder)
    assert sorted(set(os.listdir(tmp_path)) - {'.lock'}) == ['a.txt', 'a.txt.12.tmp', 'made']


def test_a_half_that_others_take_for_one_that_was_left(tmp_path, monkeypatch):
    """Twice it is gone before it is locked; if it always were, that would end, too."""
    pytest.importorskip('fcntl')
    hold = files.hold
    n_stolen = 0

    def hold_too_late(path, flags=0):
        nonlocal n_stolen
        if n_stolen < most and path.endswith('.tmp'):
            n_stolen += 1
            os.remove(path)
        return hold(path, flags)

    monkeypatch.setattr(files, 'hold', hold_too_late)
    most = 2
    with replacing(str(tmp_path / 'a.txt')) as f:
        f.write(b'new')
    assert n_stolen == 2 and os.listdir(tmp_path) == ['a.txt']
    most = 10**9
    with pytest.raises(OSError, match='other processes remove its temporary files'):
        with replacing(str(tmp_path / 'a.txt')) as f:
            f.write(b'newer')
    assert os.listdir(tmp_path) == ['a.txt']


def test_halves_that_are_folders(tmp_path):
    """As a kill leaves them; those of the living stay."""
    (tmp_path / 'made.12.tmp' / 'made').mkdir(parents=True)
    (tmp_path / 'made.12.tmp' / '.lock').write_bytes(b'')
    with making_folder(str(tmp_path / 'made')) as folder:
        assert not (tmp_path / 'made.12.tmp').exists()
        os.mkdir(folder)
        remove_halves(str(tmp_path / 'made'))
        assert os.path.isdir(folder)
    assert os.listdir(tmp_path) == ['made']


def test_halves_that_are_folders_without_flock(tmp_path, monkeypatch):
    """As on Windows."""
    pytest.importorskip('filelock')
    monkeypatch.setattr(files, 'fcntl', None)
    test_halves_that_are_folders(tmp_path)
