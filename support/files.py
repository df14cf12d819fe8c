"""Files that are whole or not there, and folders that one process has for itself."""

import glob
import os
import shutil
from contextlib import contextmanager

from tqdm import tqdm

from support.errors import fail, first_line

try:
    import fcntl
except ImportError:   # Windows
    fcntl = None


@contextmanager
def replacing(path):
    """A binary file to write to, which takes the name path when the block ends: whole, or not at all. If path is a
    symbolic link, the file that it points to is replaced. Raises OSError, or what the block raises."""
    target = os.path.realpath(path)
    temporary = f'{target}.{os.getpid()}.tmp'
    try:
        with open(temporary, 'wb') as f:
            yield f
            f.flush()
            os.fsync(f.fileno())   # on the disk before the name points to it
        os.replace(temporary, target)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


@contextmanager
def making_folder(path):
    """The name of a folder to write to, which takes the name path when the block ends: whole, or not at all. Raises
    OSError if path is there, or what the block raises."""
    temporary = f'{path}.{os.getpid()}.tmp'
    try:
        yield temporary
        os.rename(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_whole(path, write):
    """Have write(file) fill the file that replaces path, as `replacing` does. Exits where that fails."""
    try:
        with replacing(path) as f:
            write(f)
    except (OSError, RuntimeError) as e:   # torch.save reports a full disk as a RuntimeError
        reason = getattr(e, 'strerror', None) or first_line(e)
        fail(f'{path} could not be written ({reason}); what was there before is unharmed')


def remove_halves(folder, *names):
    """Remove the temporary files that killed processes have left beside these files."""
    for name in names:
        for half in glob.glob(os.path.join(glob.escape(folder), f'{name}.*.tmp')):
            os.remove(half)


def set_aside(folder, names):
    """Rename files of another training to NAME.old, where they exist, and say so."""
    for name in names:
        path = os.path.join(folder, name)
        if os.path.exists(path):
            os.replace(path, f'{path}.old')
            tqdm.write(f'{path}, of another training, is now {path}.old')


def lock(folder):
    """Lock a folder while the file that is returned is open. Raises BlockingIOError if another process has it. Does
    nothing on Windows and on file systems without locks; between machines it does not hold."""
    if fcntl is None:
        return None
    try:
        f = os.open(folder, os.O_RDONLY)
    except OSError:   # it cannot be read, only written to
        return None
    try:
        fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(f)
        raise
    except OSError:   # a file system without locks
        pass
    return f
