"""The device to compute on, its dtype, torch.compile, memory, peak FLOP/s: what a GPU, a Mac or a CPU each want."""

import math
import os
import time
from contextlib import contextmanager, nullcontext

import torch

from support.cpu import can_pack, has_bfloat16, is_worth_packing, pack_weights
from support.errors import fail, first_line

FLOAT16_MAX = 65504
SUPPORTED = 'auto, cpu, mps (a Mac), cuda or cuda:N (NVIDIA, or AMD with ROCm)'


def pick_device(device, is_ddp=False):
    """The name of the device to compute on. 'auto' is CUDA, else MPS, else CPU; a device by name ('cuda:1', 'mps',
    'cpu') must be there. Under torchrun each process has a CUDA device of its own, and MPS is not used, since Gloo
    does not know it."""
    has = {'cuda': torch.cuda.is_available(), 'mps': torch.backends.mps.is_available(), 'cpu': True}
    if is_ddp and device.startswith('cuda:') and int(os.environ.get('LOCAL_WORLD_SIZE', 1)) > 1:
        fail(f'device = {device} would be the device of every process; use --device=cuda, which gives each its own')
    if is_ddp and device == 'auto':
        device = 'cuda' if has['cuda'] else 'cpu'
    if is_ddp and device == 'cuda':
        device = f'cuda:{os.environ.get("LOCAL_RANK", 0)}'
    if device == 'auto':
        return next(name for name in has if has[name])

    try:
        kind = torch.device(device).type
    except RuntimeError:
        fail(f'device = {device} is not the name of a device; use {SUPPORTED}')
    index = device.partition(':')[2]   # as it was written: torch.device('cuda:300') is cuda:44
    if kind not in has or kind != 'cuda' and index not in ('', '0'):   # torch knows more of them: xpu, meta, cpu:1
        fail(f'device = {device} is not supported here; use {SUPPORTED}')
    if not has[kind]:
        there = ', '.join(name for name in has if has[name])
        fail(f'device = {device} is not on this machine; use auto, or one of: {there}')
    if kind == 'cuda' and int(index or 0) >= torch.cuda.device_count():
        fail(f'device = {device} is not on this machine; the last one is cuda:{torch.cuda.device_count() - 1}')
    return device


def speed_up(device):
    """On CUDA: make the device the current one, and let float32 matmuls use TF32, several times faster and hardly
    less exact."""
    if torch.device(device).type == 'cuda':
        torch.cuda.set_device(torch.device(device).index or 0)
        torch.set_float32_matmul_precision('high')


def synchronize(device):
    """Wait until the device has done what it was given."""
    getattr(torch, torch.device(device).type).synchronize()


def pick_dtype(dtype, device):
    """The name of the dtype to train in; parameters stay float32. 'auto' follows the device."""
    kind = torch.device(device).type
    if dtype != 'auto':
        return check_dtype(dtype)
    if kind == 'cuda':
        # is_bf16_supported() is also true of cards that only emulate it, slowly; compute capability 8.0 has it
        return 'bfloat16' if torch.cuda.get_device_capability(device)[0] >= 8 else 'float16'
    if kind == 'cpu' and has_bfloat16():
        return 'bfloat16'
    return 'float32'


def pick_sampling_dtype(dtype, device, model):
    """The name of the dtype to sample in. As pick_dtype, but a CPU reads a large model's weights in float16 where it
    can, and computes in float32. Weights that are beyond float16 need another: 'auto' takes float32."""
    chosen = pick_dtype(dtype, device)
    if dtype == 'auto' and torch.device(device).type == 'cpu':
        chosen = 'float16' if can_pack() and is_worth_packing(model) else 'float32'
    if chosen != 'float16':
        return chosen
    # those that are multiplied in a half precision
    largest = largest_weight(module.weight for module in model.modules() if isinstance(module, torch.nn.Linear))
    if largest <= FLOAT16_MAX:
        return 'float16'
    if dtype == 'float16':
        fail(f'dtype = float16 ends at {FLOAT16_MAX}, and the model has a weight of {largest:.6g}; use '
             '--dtype=float32, or bfloat16')
    return 'float32'


def largest_weight(weights):
    """The largest absolute value in some tensors: beyond FLOAT16_MAX they do not fit into float16."""
    largest = 0.0
    for weight in weights:
        low, high = torch.aminmax(weight.detach())
        largest = max(largest, -low.item(), high.item())
    return largest


def check_dtype(dtype):
    """dtype, if it is one. Exits otherwise."""
    if dtype not in ('float32', 'bfloat16', 'float16'):
        fail(f'dtype = {dtype} is not known; use auto, float32, bfloat16 or float16')
    return dtype


def autocast(device, dtype):
    """The context to compute in: matmuls in a half precision, or everything in float32."""
    if dtype == 'float32':
        return nullcontext()
    return torch.autocast(torch.device(device).type, getattr(torch, dtype))


def prepare_sampling(model, device, dtype):
    """Bring a model to the device to sample in dtype; returns the context to compute in."""
    model.eval().to(device)
    if dtype == 'float16' and torch.device(device).type == 'cpu' and can_pack():
        pack_weights(model)   # then the weights alone are float16
        return nullcontext()
    return autocast(device, dtype)


@contextmanager
def no_cudnn_attention():
    """A context without cuDNN's attention, which plans anew, for 30 ms, at each length of the key/value cache."""
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(True)


def pick_compile(compile, device, flops=math.inf, peak_flops=0, minutes=0):
    """(whether to torch.compile, why). 'auto' is on for CUDA, if the run is long enough; elsewhere it has not paid.
    flops is what this device has yet to compute, and peak_flops its FLOP/s, 0 where they are not known; of a run that
    has so many minutes, these tell."""
    kind = torch.device(device).type
    choice = compile.lower()
    if choice not in ('auto', 'true', 'false'):
        fail(f'compile = {compile} is not known; use auto, True or False')
    if choice == 'false':
        return False, 'as asked'
    reason = 'as asked'
    if choice == 'auto':
        pays, reason = worth_compiling(kind, flops, peak_flops, minutes)
        if not pays:
            return False, reason
    try:   # a compiler, Triton, Python's headers: whatever is missing shows on the smallest example
        torch.compile(torch.sin)(torch.ones(2, device=device))
    except Exception as e:
        return False, f'torch.compile does not work here: {first_line(e)}'
    return True, reason


# Estimates, for train_eca_char.py on an H100, an A100, an RTX 4090 and a T4: compiling takes 20 to 35 s, and saves 0.9,
# 1.9, 3 and 9.5 ms an iteration. On each, a run that would take one to three minutes at USUAL_MFU of the peak breaks
# even; near the upper end compiling costs nobody much.
USUAL_MFU = 0.4
COMPILING_PAYS_S = 150
GUESSED_PEAK = 100e12   # FLOP/s, where the peak is not known: of an A10 or an L4, about


def worth_compiling(kind, flops, peak_flops, minutes):
    """(whether compiling saves more seconds than it takes, why): the choice of 'auto'; see pick_compile."""
    if kind != 'cuda':
        return False, f'it does not pay on {kind}'
    if flops == 0:
        return False, 'there is nothing to train'
    if flops == math.inf:
        return True, 'it pays on cuda'
    if minutes > 0:
        reason = f'training takes {60 * minutes:,.0f} s, as asked; compiling pays from {COMPILING_PAYS_S} s on'
        return 60 * minutes >= COMPILING_PAYS_S, reason
    guess = '' if peak_flops else ', a guess'
    peak_flops = peak_flops or GUESSED_PEAK
    seconds = flops / (USUAL_MFU * peak_flops)
    reason = (f'training takes some {seconds:,.0f} s at {USUAL_MFU:.0%} of {peak_flops / 1e12:.0f} TFLOP/s{guess}; '
              f'compiling pays from {COMPILING_PAYS_S} s on')
    return seconds >= COMPILING_PAYS_S, reason


def pick_piece_size(device, block_size, batch_size):
    """How many sequences of a batch to put through the model at once: the gradient is the same. On CPU 2048 tokens,
    which its caches hold; beyond them is a cliff: with pieces of 4096 tokens, a step of train_eca_char.py took 11 s
    instead of 4.7 (bfloat16, 2 cores of an AMD EPYC). On MPS 16384, since on M1 and M2 matmuls that sum over 32767
    tokens or more go wrong (pytorch issue 195163). On CUDA the whole batch."""
    tokens = {'cpu': 2048, 'mps': 16384}.get(torch.device(device).type)
    if tokens is None:
        return batch_size
    return max(1, tokens // block_size)


def memory_bytes(device):
    """Bytes of memory that a training may use on the device: of a CPU, all that the machine has; of a GPU, what others
    hold is left out. 0 where it is not known."""
    kind = torch.device(device).type
    if kind == 'cuda':
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device)   # the model is there already
    if kind == 'mps':
        return torch.mps.recommended_max_memory()
    if kind == 'cpu' and hasattr(os, 'sysconf') and 'SC_PHYS_PAGES' in os.sysconf_names:   # not on Windows
        return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    return 0


def matmul_flops(device, dtype):
    """The FLOP/s of a large matmul in dtype, measured: the best of five, which take a second or two in all."""
    n = 8192 if torch.device(device).type == 'cuda' else 2048
    a = torch.randn(n, n, device=device, dtype=getattr(torch, dtype))
    b = torch.randn(n, n, device=device, dtype=getattr(torch, dtype))
    a @ b   # the first one prepares
    seconds = []
    for _ in range(5):
        synchronize(device)
        start = time.perf_counter()
        a @ b
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return 2 * n**3 / min(seconds)


# TFLOP/s of dense bfloat16 (T4, V100: float16) matmuls summed in float32, by NVIDIA's data sheets and white papers
PEAK_TFLOPS = {'B200': 2250, 'GH200': 989, 'H200': 989, 'H100': 989, 'H100 PCIe': 756, 'A100': 312,
               'A100 PCIE': 312, 'A100 PCIe': 312, 'A40': 150, 'A10': 125, 'L40S': 362, 'L4': 121, 'V100': 125,
               'V100 PCIE': 112, 'T4': 65, 'RTX A6000': 155, 'RTX 5090': 210, 'RTX 4090': 165, 'RTX 3090': 71}


def peak_flops(device, dtype):
    """The most FLOP/s that the device can do in dtype; 0 where the table above does not know it."""
    if torch.device(device).type != 'cuda' or dtype == 'float32':
        return 0
    words = set(torch.cuda.get_device_name(device).replace('-', ' ').split())   # NVIDIA A100 SXM4 40GB, Tesla T4
    variants = {'PCIe', 'PCIE', 'NVL', 'Ti', 'D', 'MIG', 'Laptop', 'Max', 'SUPER'} & words   # slower or faster ones
    for name, tflops in PEAK_TFLOPS.items():
        if variants <= set(name.split()) <= words:
            return tflops * 1e12
    return 0
