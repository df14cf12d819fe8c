"""
What two scripts need, or a test must import: devices and number formats, log and checkpoint files, optimizers' state.

Importing it does nothing. A user's mistake ends in fail(): one line on stderr that says what, which value, and how to
mend it, and exit status 1.
"""

import os
import sys
import time
from contextlib import nullcontext

import torch
import torch.distributed as dist

from model import GPT, GPTConfig, PackedLinear


def fail(message):
    """End the script with one line on stderr."""
    if os.environ.get('RANK', '0') != '0':
        time.sleep(1)   # rank 0 speaks first; where it fails too, torchrun ends this process before it says the same
    raise SystemExit(f'{os.path.basename(sys.argv[0])}: {message}')


def first_line(e):
    """What an exception says, or what it is."""
    return (str(e).strip() or type(e).__name__).splitlines()[0]


def check_at_least(least, settings, *names):
    """End the script if one of these settings, a dict, is below the least."""
    for name in names:
        if settings[name] < least:
            fail(f'{name} = {settings[name]} will not do; it must be at least {least}')


# -----------------------------------------------------------------------------
# device

def pick_device(device):
    """'auto' is CUDA, else MPS, else CPU. A device by name ('cuda:1', 'mps', 'cpu') must be there."""
    has = {'cuda': torch.cuda.is_available(), 'mps': torch.backends.mps.is_available(), 'cpu': True}
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


def autocast(device, dtype):
    """The context to compute in: autocast for the half precisions, nothing for float32."""
    if dtype == 'float32':
        return nullcontext()
    return torch.autocast(torch.device(device).type, getattr(torch, dtype))


# -----------------------------------------------------------------------------
# files

def open_log(out_dir, columns, iter_num):
    """out_dir/log.csv, opened to append. Of a run that resumes at iter_num > 0, the rows before that are kept."""
    path = os.path.join(out_dir, 'log.csv')
    try:
        os.makedirs(out_dir, exist_ok=True)
        rows = [','.join(columns) + '\n']
        if iter_num > 0 and os.path.exists(path):
            with open(path, encoding='utf-8') as f:
                rows += [row for row in f if row.split(',')[0].isdigit() and int(row.split(',')[0]) < iter_num]
        write_whole(path, lambda f: f.write(''.join(rows).encode()))
        return open(path, 'a', encoding='utf-8', newline='', buffering=1)
    except OSError as e:
        fail(f'out_dir = {out_dir} cannot be written to: {e.strerror}; choose another with --out_dir=')


def write_whole(path, write):
    """Have write(file) fill a file that then takes the name path: whole, or not at all."""
    temporary = f'{path}.{os.getpid()}.tmp'
    try:
        with open(temporary, 'wb') as f:
            write(f)
            f.flush()
            os.fsync(f.fileno())   # on the disk before the name points to it
        os.replace(temporary, path)
    except (OSError, RuntimeError) as e:   # torch reports a full disk as a RuntimeError
        fail(f'{path} could not be written ({first_line(e)}); what was there before is unharmed')
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def save_checkpoint(checkpoint, path):
    """Write a dict of tensors and plain values to path."""
    write_whole(path, lambda f: torch.save(checkpoint, f))


def load_checkpoint(path, dropout=0.0):
    """(model, checkpoint): a GPT on the CPU, and the dict that save_checkpoint or nanoGPT wrote. Loads tensors and
    plain values only, so a file from a stranger can be wrong but can do nothing."""
    if not os.path.exists(path):
        fail(f'there is no {path}; train first, or give the folder of a run as --out_dir')
    try:
        checkpoint = torch.load(path, map_location='cpu', weights_only=True)
        model = GPT(GPTConfig(**{**checkpoint['model_args'], 'dropout': dropout}))
        # in nanoGPT's files a compiled model's names carry a prefix, and on torch 1 the causal mask was a weight
        weights = {k.removeprefix('_orig_mod.'): v for k, v in checkpoint['model'].items()}
        model.load_state_dict({k: v for k, v in weights.items() if not k.endswith('.attn.bias')})
        return model, checkpoint
    except Exception:   # bytes from anywhere can make torch raise anything
        fail(f'{path} is not a whole checkpoint of this program or of nanoGPT')


def gather_state(opt):
    """The state_dict of an optimizer that is sharded over processes, as if it were not: on rank 0, and on the CPU.
    Every process must call it. (ZeroRedundancyOptimizer's own way takes most of a minute for a gigabyte.)"""
    params = [p for group in opt.param_groups for p in group['params']]
    mine = opt.optim.state
    part = {i: {k: v.cpu() for k, v in mine[p].items()} for i, p in enumerate(params) if p in mine}
    parts = [{}] * dist.get_world_size()
    dist.gather_object(part, parts if dist.get_rank() == 0 else None)
    ids = iter(range(len(params)))
    groups = [{**group, 'params': [next(ids) for _ in group['params']]} for group in opt.param_groups]
    return {'state': {i: state for part in parts for i, state in sorted(part.items())}, 'param_groups': groups}


def load_state(opt, state):
    """Give an optimizer the moments of a whole state_dict; a sharded one takes its part. Its rates stay as they are."""
    params = [p for group in opt.param_groups for p in group['params']]
    inner = getattr(opt, 'optim', opt)   # of a sharded one, the part in this process
    own = {p for group in inner.param_groups for p in group['params']}
    for i, moments in state['state'].items():
        if params[i] in own:   # 'step' too goes to the device, where a fused AdamW counts
            inner.state[params[i]] = {k: v.to(params[i].device) for k, v in moments.items()}
