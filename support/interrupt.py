"""
Import this before anything that is slow to import: from here to catch_crashes(), Ctrl-C ends the script at once.

A KeyboardInterrupt would not do: numpy, torch and their like turn one that comes while they load into errors of their
own, drop it, or abort.
"""

import _signal   # the core of the module signal, which itself takes some milliseconds to load

if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:   # not ignored, as by a job in the background
    try:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    except ValueError:   # not the main thread, which alone is interrupted
        pass
