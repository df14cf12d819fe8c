"""
Import this before anything else: from here to catch_crashes(), Ctrl-C ends the script at once, and one line says what
is wrong if the Python is too old or a package is missing (machine.py).

A KeyboardInterrupt would not do: numpy, torch and their like turn one that comes while they load into errors of their
own, drop it, or abort.
"""

import _signal   # the core of the module signal, which itself takes some milliseconds to load
import sys

from support import machine

is_notebook = 'ipykernel' in sys.modules   # where the process is not the script's alone
is_ours = _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler   # a job in the background ignores it
if is_ours and not is_notebook:
    try:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    except ValueError:   # not the main thread, which alone is interrupted
        pass

machine.check_python()
sys.excepthook = machine.explain_missing
