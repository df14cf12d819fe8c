"""
Files that are whole or not there, and folders that one process has for itself.

Whatever a script writes goes to a temporary file beside its place, a half, which takes the name when it is on the
disk. Only regular files are ever replaced; a symbolic link stays, and the file that it points to is replaced. A process
that writes a half has it locked, so halves that killed ones have left are known.
"""

import errno
import filecmp
import os
import re
import secrets
import shutil
import stat
from contextlib import contextmanager, suppress

from support.errors import fail, first_line

try:
    import fcntl
except ImportError:   # Windows
    fcntl = None

TRIES = 100   # to get ahead of other processes; the second nearly always succeeds
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)   # what file systems without locks answer


# -----------------------------------------------------------------------------
# writing

@contextmanager
def replacing(path):
    """A binary file to write to, which takes the name path when the block ends: whole, or not at all. A file that has
    these bytes already is not touched. If path is a symbolic link, the file that it points to is replaced, or made, as
    editors do: whoever keeps train.bin on another disk means that file. Raises OSError, also where path names anything
    but a regular file, or what the block raises."""
    check_regular(path)
    target = os.path.realpath(path)
    f, held = open_half(target)
    try:
        with f:
            yield f
            f.flush()
            os.fsync(f.fileno())   # on the disk before the name points to it
        if not os.path.exists(target) or not filecmp.cmp(f.name, target, shallow=False):
            os.replace(f.name, target)
    finally:
        remove_open_half(f, held)


@contextmanager
def making_folder(path):
    """The name of a folder to write to, which takes the name path when the block ends: whole, or not at all. Raises
    OSError if path is there, or what the block raises."""
    half, held = make_half(path)
    try:
        temporary = os.path.join(half, os.path.basename(path))
        yield temporary
        if os.path.lexists(path):   # rename would replace an empty folder
            raise FileExistsError(errno.EEXIST, 'it is there already', path)
        os.rename(temporary, path)
    finally:
        unlock(half, held)
        shutil.rmtree(half, ignore_errors=True)


def write_whole(path, write):
    """Have write(file) fill the file that replaces path, as `replacing` does. Exits where that fails."""
    try:
        with replacing(path) as f:
            write(f)
    except (OSError, RuntimeError) as e:   # torch.save reports a full disk as a RuntimeError
        reason = getattr(e, 'strerror', None) or first_line(e)
        fail(f'{path} could not be written ({reason}); what was there before is unharmed')


# -----------------------------------------------------------------------------
# looking, before anything is read or written

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


def check_can_write(path):
    """Raise OSError unless `replacing` can write path: found out before the work whose result it is to take. Halves
    that were left there are gone afterwards."""
    check_regular(path)
    if not os.path.isdir(os.path.dirname(path) or '.'):
        raise FileNotFoundError(errno.ENOENT, 'its folder is not there', path)
    remove_open_half(*open_half(os.path.realpath(path)))


def check_output(name, path, begins=b'', ends=b''):
    """Exit unless a script may write its result to path, the setting `name`: found out before the work. It must be a
    new name, or that of a file of the script's own kind, which begins and ends with these bytes, or is empty."""
    try:
        check_can_write(path)
        is_own = not os.path.exists(path) or is_of_kind(path, begins, ends)
        if is_own and os.path.exists(path) and not os.access(path, os.W_OK):   # replaced it would be all the same
            raise PermissionError(errno.EACCES, 'it is read-only', path)
    except (OSError, ValueError) as e:   # ValueError: a NUL in the name
        reason = getattr(e, 'strerror', None) or e
        fail(f'{name} = {path} cannot be written: {reason}; choose another with --{name}=')
    if not is_own:
        fail(f'{name} = {path} is there, and is not what this script writes; choose another with --{name}=, or '
             'remove it')


def is_of_kind(path, begins, ends):
    """Whether a file begins and ends with these bytes, or is empty."""
    size = os.path.getsize(path)
    with open(path, 'rb') as f:
        head = f.read(len(begins))
        f.seek(max(0, size - len(ends)))
        tail = f.read(len(ends))
    return size == 0 or (head == begins and tail == ends)


# -----------------------------------------------------------------------------
# halves

def open_half(target):
    """(file, lock): a new temporary file beside target, for remove_open_half. Those that killed processes have left
    there go. Raises OSError."""
    remove_halves(target)
    for _ in range(TRIES):
        f = open(half_name(target), 'xb')
        with suppress(BlockingIOError, FileNotFoundError):   # another process has just taken it for one that was left
            held = None if fcntl is None else hold(f.name)
            if os.path.exists(f.name):
                return f, held
            os.close(held)
        f.close()
    raise BlockingIOError(errno.EAGAIN, 'other processes remove its temporary files', target)


def remove_open_half(f, held):
    """Close a half and remove it, if it still has its own name; held is its lock."""
    f.close()
    with suppress(FileNotFoundError):   # it has taken another name
        os.remove(f.name)
    if held is not None:
        os.close(held)


def make_half(path):
    """(folder, lock): a new temporary folder beside path, and what unlock takes. Raises OSError."""
    remove_halves(path)
    for _ in range(TRIES):
        half = half_name(path)
        os.makedirs(half)
        with suppress(BlockingIOError, FileNotFoundError):   # as in open_half
            return half, lock(half)
    raise BlockingIOError(errno.EAGAIN, 'other processes remove its temporary folders', path)


def half_name(path):
    """A new name for a half of path; remove_halves knows it again."""
    return f'{path}.{secrets.token_hex(4)}.tmp'


def remove_halves(path):
    """Remove the temporary files and folders that killed processes have left beside path."""
    folder, name = os.path.split(path)
    is_half = re.compile(re.escape(name) + r'\.[0-9a-f]+\.tmp')
    with suppress(OSError):   # there is no such folder, or it can only be written to
        for found in os.listdir(folder or '.'):
            if is_half.fullmatch(found):
                with suppress(OSError):   # BlockingIOError: it is being written; or another process removes it, too
                    remove_half(os.path.join(folder, found))


def remove_half(path):
    """Remove a temporary file or folder. Raises OSError if a process is writing it; where there are no locks, and
    nobody knows, it stays."""
    if os.path.isdir(path):
        held = lock(path)
        if held is not None:
            shutil.rmtree(path, ignore_errors=True)
            unlock(path, held)
            os.rmdir(path)   # on Windows: the file that was locked was left in it
    elif fcntl is None:   # Windows removes no file that is open
        os.remove(path)
    else:
        held = hold(path)
        if held is not None:
            os.remove(path)
            os.close(held)


# -----------------------------------------------------------------------------
# locks

def lock(folder):
    """Lock a folder until unlock() gets what is returned, or the process ends. Raises BlockingIOError if another
    process has it, OSError if it cannot be written to. On file systems without locks it does nothing, and returns None.

    Everywhere it is a file in the folder, .lock, that is locked, and that goes when the lock is given back. The folder
    itself could be locked, too, and nothing would ever be left there: but on NFS that would keep out processes on the
    same machine only, and on Windows nobody.
    """
    path = os.path.join(folder, '.lock')
    if fcntl is None:
        return lock_by_package(path)
    for _ in range(TRIES):
        f = hold(path, os.O_CREAT)
        if f is None or is_name_of(path, f):
            return f
        os.close(f)   # whoever had it has removed it meanwhile
    raise BlockingIOError(errno.EAGAIN, 'other processes have it, one after the other', path)


def lock_by_package(path):
    """As lock(), on Windows: by the package filelock, which comes with torch."""
    try:
        from filelock import FileLock, Timeout
    except ImportError:   # there is no torch
        return None
    held = FileLock(path)
    try:
        held.acquire(timeout=0)
    except Timeout:
        raise BlockingIOError(errno.EAGAIN, 'another process has it', path) from None
    return held


def unlock(folder, held):
    """Give back the lock of a folder, as lock() has returned it."""
    if isinstance(held, int):
        path = os.path.join(folder, '.lock')
        with suppress(OSError):   # the folder has gone, or cannot be written to any longer
            if is_name_of(path, held):
                os.remove(path)
        os.close(held)
    elif held is not None:
        held.release()


def is_locked(folder):
    """Whether another process has locked a folder. Nothing is written there."""
    path = os.path.join(folder, '.lock')
    if not os.path.exists(path):
        return False
    try:
        held = hold(path) if fcntl else lock_by_package(path)
    except BlockingIOError:
        return True
    except OSError:   # it cannot be opened: nobody writes there as this user
        return False
    if isinstance(held, int):   # it is what a killed process has left
        os.close(held)
    elif held is not None:
        held.release()
    return False


def hold(path, flags=0):
    """Open a file and lock it until its number, which is returned, is closed; None where the file system has no locks.
    Raises BlockingIOError if another process has it, and OSError."""
    f = os.open(path, os.O_RDWR | flags, 0o666)   # NFS locks only what is open for writing
    try:
        fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        os.close(f)
        if e.errno in NO_LOCKS:
            return None
        raise OSError(e.errno, e.strerror, path) from None
    return f


def is_name_of(path, f):
    """Whether path still names the open file with the number f."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(f))
    except FileNotFoundError:
        return False
