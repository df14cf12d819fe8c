"""
What two scripts need, or a test must import: devices and number formats, signals, and how to fail.

A user's mistake ends in fail(): one line on stderr that says what, which value, and how to mend it, and exit status 1.
"""

import errno
import math
import os
import signal
import sys
import time
from contextlib import nullcontext, suppress

import torch
import torch.distributed as dist

from model import PackedLinear


def fail(message):
    """End the script with one line on stderr."""
    if os.environ.get('RANK', '0') != '0':
        time.sleep(5)   # rank 0 speaks first; where it fails too, torchrun ends this process before it says the same
    raise SystemExit(f'{os.path.basename(sys.argv[0])}: {message}')


def explain_crash(kind, e, trace):
    """For sys.excepthook: Ctrl-C, memory or a disk that ran out, and a GPU unknown to torch, need no traceback."""
    script = os.path.basename(sys.argv[0])
    if is_out_of_memory(e):
        batch = '; lower batch_size (and raise gradient_accumulation_steps to match), block_size or the model itself'
        advice = {'train.py': batch, 'bench.py': batch, 'sample.py': '; lower num_samples'}.get(script, '')
        print(f'{script}: memory ran out{advice}', file=sys.stderr)
    elif isinstance(e, OSError) and e.errno in (errno.ENOSPC, errno.EFBIG, getattr(errno, 'EDQUOT', None)):
        print(f'{script}: the disk is full ({e.strerror}); what was saved before is unharmed', file=sys.stderr)
    elif 'no kernel image' in str(e):
        print(f'{script}: this build of torch is not for this GPU; use --device=cpu, or another build', file=sys.stderr)
    elif kind is BrokenPipeError:   # who read it has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    elif kind is not KeyboardInterrupt:
        sys.__excepthook__(kind, e, trace)


def is_out_of_memory(e):
    """Whether an exception says so, in the words of Python, of torch on its devices, or of cuBLAS."""
    words = ('out of memory', "can't allocate memory", 'not enough memory', 'alloc_failed')
    return isinstance(e, MemoryError) or any(word in str(e).lower() for word in words)


def catch_signals():
    """From here on SIGINT (Ctrl-C), SIGTERM and SIGHUP (the terminal was closed) end nothing: they go to the list
    returned. A second one ends it all, unless it comes within a second: torchrun passes on what a cluster sends to
    every process anyway."""
    caught, times = [], []
    screens = [fd for fd in (1, 2) if os.isatty(fd)]
    hangup = getattr(signal, 'SIGHUP', None)   # Windows has none

    def handler(number, frame):
        caught.append(number)
        times.append(time.monotonic())
        for fd in screens if number == hangup else []:   # to print there would fail now
            os.dup2(os.open(os.devnull, os.O_WRONLY), fd)
        if len(caught) == 1 and os.environ.get('RANK', '0') == '0':
            with suppress(OSError):   # nobody may be reading; and not by print(), which may be at work
                os.write(2, b'\nstopping after this step, and saving; once more, a second later, ends it unsaved\n')
        if times[-1] - times[0] > 1:
            raise SystemExit(128 + number)

    signal.signal(signal.SIGINT, handler)
    signal.signal(signal.SIGTERM, handler)
    if hangup and signal.getsignal(hangup) != signal.SIG_IGN:   # as nohup has it
        signal.signal(hangup, handler)
    return caught


def first_line(e):
    """What an exception says, or what it is."""
    return (str(e).strip() or type(e).__name__).splitlines()[0]


def or_fail(f, *args, **settings):
    """f(...), whose ValueErrors are about the user's settings."""
    try:
        return f(*args, **settings)
    except ValueError as e:
        fail(e)


def check_at_least(least, settings, *names):
    """End the script if one of these settings, a dict, is below the least."""
    for name in names:
        if settings[name] < least:
            fail(f'{name} = {settings[name]} will not do; it must be at least {least}')


def check_finite(value, name, iter_num):
    """End the script if a number of the training is NaN or infinite."""
    if not math.isfinite(value):
        fail(f'the {name} is {value} at iteration {iter_num}, and what was saved before is unharmed; likely causes: '
             'learning_rate or muon_lr too high, warmup_iters too few, grad_clip = 0, or dtype = float16')


def pick_device(device, is_ddp=False):
    """'auto' is CUDA, else MPS, else CPU. A device by name ('cuda:1', 'mps', 'cpu') must be there. Under torchrun each
    process has a CUDA device of its own, and there is no MPS, which Gloo does not know."""
    has = {'cuda': torch.cuda.is_available(), 'mps': torch.backends.mps.is_available(), 'cpu': True}
    if is_ddp and device.startswith('cuda:') and int(os.environ.get('LOCAL_WORLD_SIZE', 1)) > 1:
        fail(f'device = {device} would be the device of every process; use --device=cuda, which gives each its own')
    if is_ddp and device in ('auto', 'cuda'):
        device = f'cuda:{os.environ.get("LOCAL_RANK", 0)}' if has['cuda'] or device == 'cuda' else 'cpu'
    if device == 'auto':
        return next(name for name in has if has[name])
    try:
        kind, index = torch.device(device).type, torch.device(device).index or 0
    except RuntimeError:
        fail(f'device = {device} is not the name of a device; use auto, cpu, mps, cuda or cuda:N')
    if not has.get(kind, False):
        there = ', '.join(name for name in has if has[name])
        fail(f'device = {device} is not on this machine; use auto, or one of: {there}')
    if kind == 'cuda' and index >= torch.cuda.device_count():
        fail(f'device = {device} is not on this machine; the last one is cuda:{torch.cuda.device_count() - 1}')
    return device


def pick_dtype(dtype, device, is_training=True):
    """The name of the dtype to compute in; parameters stay float32. 'auto' follows the device."""
    kind = torch.device(device).type
    if dtype == 'auto':
        if kind == 'cuda':
            # is_bf16_supported() says yes to cards that only emulate it, slowly; compute capability 8.0 has it
            return 'bfloat16' if torch.cuda.get_device_capability(device)[0] >= 8 else 'float16'
        if kind == 'cpu' and is_training:
            return 'bfloat16' if cpu_has_bfloat16() else 'float32'
        return 'float16' if kind == 'cpu' and PackedLinear.is_available() else 'float32'
    if dtype not in ('float32', 'bfloat16', 'float16'):
        fail(f'dtype = {dtype} is not known; use auto, float32, bfloat16 or float16')
    return dtype


def cpu_has_bfloat16():
    """Whether the processor multiplies bfloat16 matrices in hardware; elsewhere torch is a hundredfold slower at it."""
    flags = getattr(torch.cpu, 'get_capabilities', dict)()
    return bool(flags.get('amx_bf16') or flags.get('avx512_bf16'))


# TFLOP/s of dense bfloat16 (T4, V100: float16) products summed in float32, by NVIDIA's data sheets and white papers
PEAK_TFLOPS = {'B200': 2250, 'GH200': 989, 'H200': 989, 'H100': 989, 'H100 PCIe': 756, 'A100': 312,
               'A100 PCIE': 312, 'A100 PCIe': 312, 'A40': 150, 'A10': 125, 'L40S': 362, 'L4': 121, 'V100': 125,
               'V100 PCIE': 112, 'T4': 65, 'RTX A6000': 155, 'RTX 5090': 210, 'RTX 4090': 165, 'RTX 3090': 71}


def peak_flops(device, dtype):
    """The most FLOP/s that the device can do in dtype; 0 where the table above does not know it."""
    if torch.device(device).type != 'cuda' or dtype == 'float32':
        return 0
    words = torch.cuda.get_device_name(device).replace('-', ' ').split()   # NVIDIA A100 SXM4 40GB, Tesla T4
    variants = {'PCIe', 'PCIE', 'NVL', 'Ti', 'D', 'MIG', 'Laptop', 'Max', 'SUPER'} & set(words)   # slower or faster
    known = [tflops for name, tflops in PEAK_TFLOPS.items() if variants <= set(name.split()) <= set(words)]
    return known[0] * 1e12 if known else 0


def pick_compile(compile, device):
    """(whether to torch.compile, why). 'auto' is on for CUDA alone: elsewhere it has not paid."""
    kind, choice = torch.device(device).type, compile.lower()
    if choice not in ('auto', 'true', 'false'):
        fail(f'compile = {compile} is not known; use auto, True or False')
    if choice == 'false':
        return False, 'as asked'
    if choice == 'auto' and kind != 'cuda':
        return False, f'it does not pay on {kind}'
    try:   # a compiler, Triton, Python's headers: whatever is missing shows on the smallest example
        torch.compile(torch.sin)(torch.ones(2, device=device))
    except Exception as e:
        return False, f'torch.compile does not work here: {first_line(e)}'
    return True, 'as asked' if choice == 'true' else 'it pays on cuda'


def pick_backend(backend, device):
    """What joins processes on a device. 'auto': NCCL on CUDA, with Gloo beside it for what lies in the CPU's memory."""
    kind = torch.device(device).type
    if kind == 'mps' or backend not in ('auto', 'gloo', 'nccl') or (backend == 'nccl' and kind != 'cuda'):
        fail(f'backend = {backend} cannot join processes on {kind}; use --backend=auto, and on a Mac --device=cpu')
    return backend if backend != 'auto' else 'cpu:gloo,cuda:nccl' if kind == 'cuda' else 'gloo'


def is_any_process(flag, device):
    """Whether a flag is set in any of the processes that train together. On the CPU they need not wait for a GPU."""
    if not dist.is_initialized():
        return flag
    flags = torch.tensor(float(flag), device=device)
    dist.all_reduce(flags)
    return flags.item() > 0


def autocast(device, dtype):
    """The context to compute in: autocast for the half precisions, nothing for float32."""
    return nullcontext() if dtype == 'float32' else torch.autocast(torch.device(device).type, getattr(torch, dtype))
