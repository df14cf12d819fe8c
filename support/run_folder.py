"""
The folder of a run: ckpt.pt, its best state (or the last evaluated), last.pt, the newest, if that is another one, and
log.csv. Any of them may be a symbolic link: what it points to is written, and is renamed.

A training that begins where another one's files are writes NAME.new, so that two mistaken starts, killed or stopped,
take nothing from the training that was there. When it has saved its first state, theirs become NAME.old, and its own
take the names. A kill at any point in between leaves both, and the next training that claims the folder goes on there.
"""

import atexit
import os
from contextlib import suppress

from tqdm import tqdm

from support.errors import fail
from support.files import check_can_write, lock, unlock

STATES = ('ckpt.pt', 'last.pt')
LOG = 'log.csv'
claimed = []   # (folder, lock, whether it was made) while this process lives


def path_of(out_dir, name, suffix=''):
    """Where one of these files is; with a suffix, the name beside it."""
    path = os.path.join(out_dir, name)
    if os.path.islink(path):
        path = os.path.realpath(path)
    return path + suffix


def find(out_dir, names, suffix=''):
    """The names of which there are files."""
    return [name for name in names if os.path.isfile(path_of(out_dir, name, suffix))]


def claim(out_dir, is_resume):
    """Lock the folder of a run while this process lives, and put in order what killed ones have left in it. Exits if it
    cannot be written to. It is made if need be, but not for a run to resume, and goes again if nothing comes into
    it."""
    is_new = not os.path.isdir(out_dir)
    if is_new and is_resume:   # whoever reads it says what is missing
        return
    try:
        os.makedirs(out_dir, exist_ok=True)
        claimed.append((out_dir, lock(out_dir), is_new))
        atexit.register(release)
    except BlockingIOError:
        fail(f'out_dir = {out_dir} is in use by another training; wait for it, or choose another with --out_dir=')
    except OSError as e:
        fail(f'out_dir = {out_dir} cannot be written to: {e.filename}: {e.strerror}; choose another with --out_dir=')
    check_files(out_dir)
    try:
        if find(out_dir, STATES, '.new'):
            take_names(out_dir)
        elif find(out_dir, [LOG], '.new'):   # of a training that never saved
            os.remove(path_of(out_dir, LOG, '.new'))
    except OSError as e:
        fail(f'{e.filename} could not be renamed ({e.strerror}), as a training before this one wanted; close what '
             'uses it')


def release():
    """Give back the folder that was claimed."""
    while claimed:
        out_dir, held, is_new = claimed.pop()
        unlock(out_dir, held)
        if is_new:
            with suppress(OSError):   # it is not empty
                os.rmdir(out_dir)


def check_files(out_dir):
    """Exit unless a run can write its files."""
    targets = []
    for name in (*STATES, LOG):
        for suffix in ('', '.new'):
            path = path_of(out_dir, name, suffix)
            targets.append(os.path.realpath(path))
            try:
                check_can_write(path)
            except OSError as e:
                fail(f'{path} cannot be written: {e.strerror}; choose another folder with --out_dir=')
    if len(set(targets)) < len(targets):
        fail(f'two of {", ".join(STATES)} and {LOG} in {out_dir} are links to one file; remove the links')


def choose_suffix(out_dir):
    """What a new training adds to its names until it has saved: '.new' if another one's files are there. Says so."""
    states = find(out_dir, STATES)
    if states:
        print(f'{out_dir} has {" and ".join(states)} of another training, which this one will replace, and keep as '
              '.old')
    return '.new' if states or find(out_dir, [LOG]) else ''


def take_names(out_dir):
    """Set another training's files aside, and give their names to those of the newer one, which end in .new. Raises
    OSError; called again, it goes on where it stopped, after a kill too."""
    if find(out_dir, [LOG], '.new'):   # it is renamed when all others are aside, and before the states
        set_aside([path_of(out_dir, name) for name in find(out_dir, (*STATES, LOG))])
        os.rename(path_of(out_dir, LOG, '.new'), path_of(out_dir, LOG))
    for name in find(out_dir, STATES, '.new'):
        path = path_of(out_dir, name)
        if os.path.exists(path):   # somebody has removed log.csv.new
            set_aside([path])
        os.rename(f'{path}.new', path)


def set_aside(paths):
    """Rename files of another training to PATH.old, and say so; if one of these names is taken, all to PATH.old2, or
    the first number that is free. They keep together, and no name that exists is used. Raises OSError."""
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
