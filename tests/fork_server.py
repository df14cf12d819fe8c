"""
Run Python scripts, each in a fork of this process, which has imported what takes seconds to import and has done nothing
with it: no tensor, no thread. Linux only.

conftest.py asks for one at a time: a line of JSON on standard input, become()'s arguments; and reads a line on standard
output, the status with which the script ended, as subprocess has it.
"""

import gc
import json
import os
import signal
import sys

import numpy
import torch
import torch._dynamo   # which every optimizer imports
import tqdm   # noqa: F401


def become(args, cwd, env, files, timeout_s):
    """Be `python ARGS` from here on. Where the script ends this returns, or lets its exception through, and the process
    ends as that one would: its status, sys.excepthook, threads, atexit and flush are the interpreter's business."""
    signal.alarm(timeout_s)   # then SIGALRM ends it
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for fd, path in enumerate(files):   # standard input, output and error
        opened = os.open(path, os.O_RDWR)
        os.dup2(opened, fd)
        os.close(opened)
    torch.default_generator.seed()   # by chance, as at a start, so that a script that forgets its seed is found out
    numpy.random.seed()
    sys.argv, sys.path[0] = args, os.path.dirname(os.path.realpath(args[0]))
    path = os.path.abspath(args[0])
    with open(path, 'rb') as f:
        script = compile(f.read(), path, 'exec', dont_inherit=True)
    main = globals()   # of the module __main__, which some packages have looked up by now
    for name in [name for name in main if not name.startswith('__')]:
        del main[name]
    main.update(__file__=path, __doc__=None)
    exec(script, main)


gc.freeze()   # the child need not take all of torch apart when it ends
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        become(**json.loads(line))
        break
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
