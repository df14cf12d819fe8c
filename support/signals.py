"""Stopping on a signal: Ctrl-C, a cluster's SIGTERM, a closed terminal, output that nobody takes any longer."""

import os
import signal
import sys
import time
from contextlib import suppress

from support.errors import is_first_rank, lead_nowhere, say

SIGPIPE = 13   # which Windows has not


def catch_signals():
    """From here on, collect SIGINT (Ctrl-C), SIGTERM and SIGHUP (the terminal was closed) in the list that is
    returned, where the training loop looks at its next step; and SIGPIPE, when standard output or the errors' stream
    breaks: a pipe that is closed, a disk that is full. A second signal ends the process, unless it comes within
    a second of the first: torchrun passes on what a cluster has sent to every process anyway."""
    caught = []
    first_s = None
    screens = [fd for fd in (1, 2) if os.isatty(fd)]
    sys.stderr = GuardedStream(sys.stderr, caught)
    sys.stdout = GuardedStream(sys.stdout, caught)
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


class GuardedStream:
    """A stream that does not fail: when it breaks, SIGPIPE goes into the list `caught`, and what comes later goes
    nowhere."""

    def __init__(self, stream, caught):
        self.stream = stream
        self.caught = caught
        self.is_broken = False
        self.flush()   # what was printed before

    def write(self, text):
        """Write a text."""
        if self.is_broken:
            return
        try:
            self.stream.write(text)   # each line at once: catch_crashes has seen to it
        except (OSError, ValueError) as e:   # ValueError: it was closed in this process
            self.give_up(e)

    def flush(self):
        """Write what is still to be written."""
        if self.is_broken:
            return
        try:
            self.stream.flush()
        except (OSError, ValueError) as e:
            self.give_up(e)

    def give_up(self, e):
        """Stop the training, since its output is lost; say so, if the other stream is whole."""
        self.is_broken = True
        self.caught.append(SIGPIPE)
        lead_nowhere(self.stream)
        if is_first_rank():
            say(f'the output cannot be written ({getattr(e, "strerror", None) or e}); stopping after this step, and '
                'saving')

    def __getattr__(self, name):
        return getattr(self.stream, name)


def say_stopping():
    """Tell the user that the signal has arrived. Not by print(), which the signal may have interrupted."""
    if is_first_rank() and sys.__stderr__ is not None:   # None: it was closed from the start
        with suppress(OSError):   # nobody may be reading
            os.write(2, b'\nstopping after this step, and saving; once more, a second later, ends it unsaved\n')


def exit_status(caught):
    """The status to exit with after a stop: 128 + the signal. 143 (SIGTERM) if another process caught it."""
    number = caught[0] if caught else signal.SIGTERM
    return 128 + number
