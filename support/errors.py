"""
One line instead of a traceback: a user's mistake, Ctrl-C, memory or a disk that ran out.

A line says what is wrong, with which value, and how to fix it. It goes to stderr, and the exit status is 1.
"""

import ast
import atexit
import errno
import math
import os
import signal
import sys
import time
from contextlib import suppress

from support.printable import Screen, one_line

is_interrupted = False   # whether Ctrl-C was pressed: whatever goes wrong after it is its doing


def fail(message):
    """Exit with one line on stderr and status 1; after Ctrl-C, without a word."""
    if is_interrupted:
        raise KeyboardInterrupt
    if not is_first_rank():
        time.sleep(5)   # under torchrun rank 0 says it first; torchrun then ends the others before they repeat it
    raise SystemExit(one_line(f'{script_name()}: {message}'))


def is_first_rank():
    """Whether this process speaks for all: the only one, or rank 0 of those that torchrun has started."""
    return os.environ.get('RANK', '0') in ('0', '-1')   # -1: there is one process


def script_name():
    """The name of the script that runs, such as train.py."""
    return os.path.basename(sys.argv[0])


def first_line(e):
    """The first line of what an exception says, not all of a long one; its name, if it says nothing."""
    try:
        said = str(e).strip()
    except Exception:   # a class of the user's own can have a mistake there, too
        said = ''
    line = (said or type(e).__name__).splitlines()[0]
    return line if len(line) <= 400 else line[:400] + ' ...'   # some quote what is in a file


def check_finite(value, name, iter_num):
    """Exit if a number of the training is NaN or infinite."""
    if not math.isfinite(value):
        fail(f'the {name} is {value} at iteration {iter_num}, and what was saved before is unharmed; likely causes: '
             'learning_rate or muon_lr too high, warmup_iters too few, grad_clip = 0, or dtype = float16')


def catch_crashes():
    """Install explain_crash as sys.excepthook; print each line at once, characters that the console lacks as their
    codes, and on a terminal none that could be commands to it."""
    global is_interrupted
    is_interrupted = False
    sys.excepthook = explain_crash
    sys.unraisablehook = explain_unraisable
    open_closed_streams()
    atexit.register(flush_output)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, 'reconfigure'):   # a notebook's has not
            # by lines: of output that is full, Python itself says nothing if more than a buffer is left at the end
            stream.reconfigure(errors='backslashreplace', line_buffering=True)
    sys.stdout = on_terminal(sys.stdout)
    sys.stderr = on_terminal(sys.stderr, has_bars=True)
    if signal.getsignal(signal.SIGINT) in (signal.SIG_DFL, signal.default_int_handler):   # see interrupt.py
        signal.signal(signal.SIGINT, interrupt)


def on_terminal(stream, has_bars=False):
    """A stream, made a Screen where it goes to a terminal."""
    if stream is None or isinstance(stream, Screen) or not stream.isatty():
        return stream
    return Screen(stream, has_bars)


def interrupt(number, frame):
    """A signal handler for Ctrl-C: Python's own, and a note for what catches KeyboardInterrupt, or makes another
    exception of it."""
    global is_interrupted
    is_interrupted = True
    raise KeyboardInterrupt


def end_interrupted():
    """End as Ctrl-C ends a program: shells then see status 130, and stop as well."""
    with suppress(Exception):   # nobody may be reading
        sys.stdout.flush()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.raise_signal(signal.SIGINT)


def open_closed_streams():
    """Give a script whose standard streams were closed when it started (>&-) some that lead nowhere: it works on in
    silence, and no file that it opens gets the number of a stream, into which others would print."""
    fd = os.open(os.devnull, os.O_RDWR)   # the lowest number that is free
    while fd <= 2:
        fd = os.open(os.devnull, os.O_RDWR)
    os.close(fd)
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding='utf-8')
    if sys.stdout is None:
        sys.stdout = open(os.devnull, 'w', encoding='utf-8')
    if sys.stderr is None:
        sys.stderr = open(os.devnull, 'w', encoding='utf-8')


def flush_output():
    """At the end, write what is still to be printed. If nobody takes it: one line, unless it is a pipe that was
    closed, and status 1. (Python itself would print two lines, of an exception that is ignored.)"""
    try:
        sys.stdout.flush()
    except (OSError, ValueError) as e:   # ValueError: it was closed
        if isinstance(e, OSError) and not isinstance(e, BrokenPipeError):
            say(f'the output could not be written: {e.strerror}')
        lead_nowhere(sys.stdout)
        with suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(1)


def lead_nowhere(stream):
    """From here on, what is printed to a stream that is broken goes nowhere, and nothing fails."""
    with suppress(OSError, ValueError):   # what is no file has no number
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def say(message):
    """One line on stderr, if somebody takes it."""
    with suppress(OSError, ValueError):
        print(f'{script_name()}: {message}', file=sys.stderr, flush=True)


def explain_crash(kind, e, trace):
    """A sys.excepthook: one line for what is no bug (for Ctrl-C none), a traceback for anything else."""
    if kind is KeyboardInterrupt:
        return
    if is_interrupted:
        end_interrupted()
    try:
        sys.stdout.flush()
    except (OSError, ValueError):   # it is the output that is full, or closed: at the end nobody says so again
        lead_nowhere(sys.stdout)
    if kind is BrokenPipeError:   # whoever read the output has read enough
        return
    if is_out_of_memory(e):
        say(f'memory ran out{memory_advice()}')
    elif is_disk_full(e):
        say(f'the disk is full ({e.strerror}); what was saved before is unharmed')
    elif isinstance(e, RuntimeError) and 'no kernel image' in str(e):   # CUDA's words
        say('this build of torch does not support this GPU; use --device=cpu, or another build')
    else:
        sys.__excepthook__(kind, e, trace)


def explain_unraisable(unraisable):
    """A sys.unraisablehook: Ctrl-C where nobody can catch it, as while Python ends, goes without a word."""
    if not (is_interrupted and unraisable.exc_type is KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)


def is_out_of_memory(e):
    """Whether an exception means that memory ran out, or that what it should hold has a size beyond all numbers. The
    type says so; torch and cuBLAS raise a RuntimeError, and numpy a ValueError, of which only the words say it."""
    words = ('out of memory', "can't allocate memory", 'not enough memory', 'alloc_failed',
             'size calculation overflowed', 'multiplication overflow')
    if isinstance(e, RuntimeError):
        return any(word in str(e).lower() for word in words)
    if type(e) is ValueError:   # others may quote what stands in a file
        return str(e).startswith(('Maximum allowed dimension exceeded', 'array is too big'))
    if isinstance(e, OSError):
        return e.errno == errno.ENOMEM
    return isinstance(e, MemoryError)


def is_disk_full(e):
    """Whether an exception means that the disk, a quota or the largest file size is full."""
    codes = (errno.ENOSPC, errno.EFBIG, getattr(errno, 'EDQUOT', None))   # Windows has no quotas
    return isinstance(e, OSError) and e.errno in codes


def script_doc():
    """The docstring of the script that runs, from its source: with python -OO it has none in memory."""
    with open(sys.argv[0], encoding='utf-8') as f:
        return ast.get_docstring(ast.parse(f.read()))


def memory_advice():
    """What to lower in the script that runs."""
    if script_name() in ('train.py', 'bench.py'):
        return '; lower batch_size (and raise gradient_accumulation_steps to match), block_size or the model itself'
    if script_name() == 'sample.py':
        return '; lower num_samples'
    if script_name() == 'prepare.py':
        return '; take a shorter text (or, where there is one, a lower --num_proc)'
    return ''
