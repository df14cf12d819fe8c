"""
Files that are whole or not there, and folders that one process has for itself.

Whatever a script writes goes to a temporary file beside its place, a half, which takes the name when it is on the
disk. Only regular files are ever replaced. A process that writes a half has it locked, so halves that killed ones have
left are known.
"""

import errno
import filecmp
import os
import re
import secrets
import shutil
import stat
from contextlib import contextmanager, suppress

from tqdm import tqdm

from support.errors import fail, first_line

try:
    import fcntl
except ImportError:   # Windows
    fcntl = None


# -----------------------------------------------------------------------------
# writing

@contextmanager
def replacing(path):
    """A binary file to write to, which takes the name path when the block ends: whole, or not at all. A file that has
    these bytes already is not touched. If path is a symbolic link, the file that it points to is replaced, as editors
    do: whoever keeps train.bin on another disk means that file. Raises OSError, also where path names anything but a
    regular file, or what the block raises."""
    check_regular(path)
    target = os.path.realpath(path)
    remove_halves(os.path.dirname(target), os.path.basename(target))
    f, held = open_half(target)
    try:
        with f:
            yield f
            f.flush()
            os.fsync(f.fileno())   # on the disk before the name points to it
        target = os.path.realpath(path)   # a link may have been set aside meanwhile
        if not os.path.exists(target) or not filecmp.cmp(f.name, target, shallow=False):
            os.replace(f.name, target)
    finally:
        if os.path.exists(f.name):
            os.remove(f.name)
        unlock(held)


@contextmanager
def making_folder(path):
    """The name of a folder to write to, which takes the name path when the block ends: whole, or not at all. Raises
    OSError if path is there, or what the block raises."""
    remove_halves(os.path.dirname(path), os.path.basename(path))
    half = f'{path}.{secrets.token_hex(4)}.tmp'
    os.makedirs(half)
    held = hold(half)
    try:
        temporary = os.path.join(half, os.path.basename(path))
        yield temporary
        if os.path.lexists(path):   # rename would replace an empty folder
            raise FileExistsError(errno.EEXIST, 'it is there already', path)
        os.rename(temporary, path)
    finally:
        shutil.rmtree(half, ignore_errors=True)
        unlock(held)


def write_whole(path, write):
    """Have write(file) fill the file that replaces path, as `replacing` does. Exits where that fails."""
    try:
        with replacing(path) as f:
            write(f)
    except (OSError, RuntimeError) as e:   # torch.save reports a full disk as a RuntimeError
        reason = getattr(e, 'strerror', None) or first_line(e)
        fail(f'{path} could not be written ({reason}); what was there before is unharmed')


def check_regular(path):
    """Raise OSError unless path is a new name or that of a regular file, which a symbolic link may point to."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISREG(mode):
        return
    kinds = {stat.S_IFDIR: 'a folder', stat.S_IFIFO: 'a pipe', stat.S_IFSOCK: 'a socket'}
    kind = kinds.get(stat.S_IFMT(mode), 'a device')
    raise OSError(errno.EINVAL, f'it is {kind}, not a file', path)


def check_own_kind(path, begins=b'', ends=b''):
    """Exit unless a script may write its result to path, a name of the user's choice: a new one, or that of a file of
    the script's own kind, which begins and ends with these bytes, or is empty."""
    try:
        check_regular(path)
        if not os.path.exists(path):
            return
        size = os.path.getsize(path)
        with open(path, 'rb') as f:
            is_own = f.read(len(begins)) == begins
            f.seek(max(0, size - len(ends)))
            is_own = is_own and f.read(len(ends)) == ends
    except OSError as e:
        fail(f'{path} cannot be written: {e.strerror}; choose another name')
    if size > 0 and not is_own:
        fail(f'{path} is there, and is not what this script writes; choose another name, or remove it')


# -----------------------------------------------------------------------------
# halves

def open_half(target):
    """(file, lock): a new temporary file beside target, and what unlock takes. Raises OSError."""
    while True:
        f = open(f'{target}.{secrets.token_hex(4)}.tmp', 'xb')
        with suppress(BlockingIOError):
            held = hold(f.name)
            if os.path.exists(f.name):
                return f, held
        f.close()   # between these lines another process has taken it for one that was left behind


def remove_halves(folder, *names):
    """Remove the temporary files and folders that killed processes have left beside these names."""
    for name in names:
        is_half = re.compile(re.escape(name) + r'\.[0-9a-f]+\.tmp')
        with suppress(OSError):   # another process may remove them, too
            for found in os.listdir(folder or '.'):
                if is_half.fullmatch(found):
                    remove_half(os.path.join(folder, found))


def remove_half(path):
    """Remove a temporary file or folder, unless a process is writing it."""
    if fcntl is None:
        with suppress(OSError):   # Windows removes no file that is open; and of folders nobody knows
            os.remove(path)
        return
    with suppress(OSError):   # BlockingIOError: it is being written
        held = hold(path)
        if os.path.isdir(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.remove(path)
        unlock(held)


# -----------------------------------------------------------------------------
# names

def set_aside(folder, names):
    """Rename files of another training, those that are there, to NAME.old, and say so; if one of these names is
    taken, all to NAME.old2, or the first number that is free. They keep together, and no name that exists is used."""
    paths = [os.path.join(folder, name) for name in names if os.path.lexists(os.path.join(folder, name))]
    n = 1
    suffix = '.old'
    while any(os.path.lexists(path + suffix) for path in paths):
        n += 1
        suffix = f'.old{n}'
    renamed = []
    try:
        for path in paths:
            os.rename(path, path + suffix)
            renamed.append(path)
    except OSError:   # on Windows, while another program reads one of them: they keep together
        for path in renamed:
            os.rename(path + suffix, path)
        raise
    for path in paths:
        tqdm.write(f'{path}, of another training, is now {path}{suffix}')


# -----------------------------------------------------------------------------
# locks

def lock(folder):
    """Lock a folder until unlock() gets what is returned, or the process ends. Raises BlockingIOError if another
    process has it. On file systems without locks, and for a folder that can only be written to, it does nothing.

    The folder itself is locked, not a file in it: nothing stays behind, and a folder that cannot be written to can be
    locked. Where no folder can be, on Windows, it is a file, by the package filelock, which comes with torch. (Not
    everywhere: on file systems without locks filelock makes one of its own that a killed process leaves for ever.)
    """
    if fcntl is None:
        return lock_by_file(folder)
    return hold(folder)


def lock_by_file(folder):
    """As lock(), by a file .lock in the folder, which is gone when the lock is."""
    try:
        from filelock import FileLock, Timeout
    except ImportError:   # there is no torch
        return None
    held = FileLock(os.path.join(folder, '.lock'))
    try:
        held.acquire(timeout=0)
    except Timeout:
        raise BlockingIOError(errno.EAGAIN, 'another process has it', folder) from None
    except OSError:   # it cannot be written to
        return None
    return held


def hold(path):
    """Lock a file or a folder by flock, where there is such a thing; returns what unlock takes. Raises
    BlockingIOError if another process has it."""
    if fcntl is None:
        return None
    is_file = os.path.isfile(path)
    try:
        f = os.open(path, os.O_RDWR if is_file else os.O_RDONLY)   # NFS locks for writing only what is open for it
    except OSError:   # it cannot be read, only written to
        return None
    try:
        fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(f)
        raise
    except OSError:   # a file system without locks
        os.close(f)
        return None
    return f


def unlock(held):
    """Give back what lock() or hold() has returned."""
    if isinstance(held, int):
        os.close(held)
    elif held is not None:
        held.release()
