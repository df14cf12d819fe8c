"""Stopping on a signal: Ctrl-C, a cluster's SIGTERM, a closed terminal."""

import os
import signal
import time
from contextlib import suppress


def catch_signals():
    """From here on, collect SIGINT (Ctrl-C), SIGTERM and SIGHUP (the terminal was closed) in the list that is
    returned, where the training loop looks at its next step. A second signal ends the process, unless it comes within
    a second of the first: torchrun passes on what a cluster has sent to every process anyway."""
    caught = []
    first_s = None
    screens = [fd for fd in (1, 2) if os.isatty(fd)]
    hangup = getattr(signal, 'SIGHUP', None)   # Windows has none

    def handler(number, frame):
        nonlocal first_s
        caught.append(number)
        if number == hangup:   # the terminal is gone, and printing to it would fail from now on
            for fd in screens:
                os.dup2(os.open(os.devnull, os.O_WRONLY), fd)
        if first_s is None:
            first_s = time.monotonic()
            say_stopping()
        elif time.monotonic() - first_s > 1:
            raise SystemExit(128 + number)

    signal.signal(signal.SIGINT, handler)
    signal.signal(signal.SIGTERM, handler)
    if hangup is not None and signal.getsignal(hangup) != signal.SIG_IGN:   # nohup ignores it, and so do we
        signal.signal(hangup, handler)
    return caught


def say_stopping():
    """Tell the user that the signal has arrived. Not by print(), which the signal may have interrupted."""
    if os.environ.get('RANK', '0') == '0':
        with suppress(OSError):   # nobody may be reading
            os.write(2, b'\nstopping after this step, and saving; once more, a second later, ends it unsaved\n')


def exit_status(caught):
    """The status to exit with after a stop: 128 + the signal. 143 (SIGTERM) if another process caught it."""
    number = caught[0] if caught else signal.SIGTERM
    return 128 + number
