"""Files that are whole or not there, folders that one process has for itself."""

import os

import pytest

from support.files import lock, making_folder, remove_halves, replacing, set_aside, write_whole


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


def test_halves_are_removed_and_nothing_else(tmp_path):
    for name in ('ckpt.pt', 'ckpt.pt.12.tmp', 'last.pt.7.tmp', 'mine.tmp', 'ckpt.pt.old'):
        (tmp_path / name).write_bytes(b'')
    remove_halves(str(tmp_path), 'ckpt.pt', 'last.pt')
    assert sorted(os.listdir(tmp_path)) == ['ckpt.pt', 'ckpt.pt.old', 'mine.tmp']


def test_set_aside(tmp_path, capsys):
    """Together, to names that are free: nothing that was set aside before is overwritten."""
    (tmp_path / 'a.txt').write_bytes(b'newer')
    (tmp_path / 'b.txt').write_bytes(b'newer, too')
    (tmp_path / 'a.txt.old').write_bytes(b'older')
    set_aside(str(tmp_path), ['a.txt', 'b.txt', 'c.txt'])
    assert capsys.readouterr().out == ''.join(
        f'{tmp_path}/{name}, of another training, is now {tmp_path}/{name}.old2\n' for name in ('a.txt', 'b.txt'))
    assert sorted(os.listdir(tmp_path)) == ['a.txt.old', 'a.txt.old2', 'b.txt.old2']
    assert (tmp_path / 'a.txt.old').read_bytes() == b'older' and (tmp_path / 'a.txt.old2').read_bytes() == b'newer'
    (tmp_path / 'b.txt').write_bytes(b'newest')
    set_aside(str(tmp_path), ['a.txt', 'b.txt'])
    assert capsys.readouterr().out == f'{tmp_path}/b.txt, of another training, is now {tmp_path}/b.txt.old\n'


def test_lock(tmp_path):
    """One has it until it closes the file."""
    pytest.importorskip('fcntl')
    f = lock(str(tmp_path))
    with pytest.raises(BlockingIOError):
        lock(str(tmp_path))
    os.close(f)
    os.close(lock(str(tmp_path)))
