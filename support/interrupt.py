"""
Import this before anything that is slow to import: from here to catch_crashes(), Ctrl-C ends the script at once.

A KeyboardInterrupt would not do: numpy, torch and their like turn one that comes while they load into errors of their
own, drop it, or abort.
"""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:   # not where it is ignored, as by a job in background
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    except ValueError:   # not the main thread, which alone is interrupted
        pass
