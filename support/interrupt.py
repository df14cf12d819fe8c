"""
Import this before anything that is slow to import: from here to catch_crashes(), Ctrl-C ends the script at once.

A KeyboardInterrupt would not do: numpy, torch and their like turn one that comes while they load into errors of their
own, drop it, or abort.
"""

import _signal   # the core of the module signal, which itself takes some milliseconds to load
import sys

is_notebook = 'ipykernel' in sys.modules   # where the process is not the script's alone
is_ours = _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler   # a job in the background ignores it
if is_ours and not is_notebook:
    try:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    except ValueError:   # not the main thread, which alone is interrupted
        pass
