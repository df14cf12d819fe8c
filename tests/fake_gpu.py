"""
Run scripts of this repository on a GPU that is not there, and say where the host waits for it.

    python tests/fake_gpu.py train.py config/train_eca_char.py --max_iters=2 --eval_iters=2 --sample_chars=4
    python tests/fake_gpu.py train.py --max_iters=2 ... -- sample.py --out_dir=out ...     # one after the other

Tensors on the device 'gpu' have a shape and a dtype, and no data: PyTorch's FakeTensorMode works out what each
operation would give, and raises where tensors of two devices meet or a shape depends on data. Tensors on the CPU are
real throughout; what comes back from the device is 0, or True. After each script a line of JSON says which lines of the
repository waited for the device, and how often. Not shown: kernels, their speed and their numbers, memory, streams.
"""

import collections
import json
import linecache
import os
import sys
import traceback

import torch
from conftest import REPO, new_python
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils import backend_registration
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
F = torch.nn.functional
waits = collections.Counter()


def count_wait():
    """Count a wait, for the innermost line of the repository that led to it."""
    for frame in reversed(traceback.extract_stack()):
        path = os.path.relpath(frame.filename, REPO)
        if not path.startswith(('..', '.venv', 'tests')):
            break
    line = linecache.getline(frame.filename, frame.lineno).split('   #')[0].strip()
    waits[f'{path}: {line}'] += 1


def is_on_gpu(x):
    return isinstance(x, torch.Tensor) and x.device.type == 'gpu'


def on_host(x):
    """x, a tensor or anything else, as it comes back from the device: a tensor's elements are all 0 or True."""
    if not is_on_gpu(x):
        return x
    return torch.full(x.shape, x.dtype == torch.bool, dtype=x.dtype)   # True: the gradients are finite


class Gpu(FakeTensorMode):
    """Within, tensors on the device 'gpu' are fake, and the others as ever."""

    avoid_device_init = True   # or torch.tensor(data, device='gpu') would look for kernels of the device

    def dispatch(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        device = kwargs.get('device')
        is_to_gpu = device is not None and torch.device(device).type == 'gpu'
        if not is_to_gpu and not any(isinstance(x, FakeTensor) for x in tree_leaves((args, kwargs))):
            return func(*args, **kwargs)   # on the CPU alone

        if func is aten._local_scalar_dense.default:   # item(), bool(), float()
            count_wait()
            return on_host(args[0]).item()
        if func is aten._to_copy.default and is_on_gpu(args[0]) and device is not None and not is_to_gpu:   # cpu()
            count_wait()
            return on_host(args[0]).to(kwargs.get('dtype'))
        if func is aten._to_copy.default and is_to_gpu and not is_on_gpu(args[0]) and not kwargs.get('non_blocking'):
            count_wait()   # CUDA does, until the copy has been made
        if func is aten.copy_.default and is_on_gpu(args[0]) != is_on_gpu(args[1]):
            count_wait()
        return super().dispatch(func, types, args, kwargs)


# -----------------------------------------------------------------------------
# what PyTorch has for real devices only

def move(module, device):
    """Module.to: PyTorch's own cannot put a fake tensor into a real parameter."""
    moved = {}
    for part in module.modules():
        for name, p in part._parameters.items():
            if p is not None and p not in moved:
                moved[p] = torch.nn.Parameter(p.detach().to(device, non_blocking=True), p.requires_grad)
            part._parameters[name] = moved.get(p)   # of tied ones, the same in both places
    return module


def attention(q, k, v, is_causal=False, dropout_p=0.0):
    """scaled_dot_product_attention, of plain operations."""
    q, k, v = in_autocast_dtype(q, k, v)
    return aten._scaled_dot_product_attention_math(q, k, v, None, dropout_p, is_causal)[0]


def linear(*tensors):
    return plain_linear(*in_autocast_dtype(*tensors))


def in_autocast_dtype(*tensors):
    """Tensors as autocast gives them to a matmul."""
    if not torch.is_autocast_enabled('gpu'):
        return tensors
    return [x.to(torch.get_autocast_dtype('gpu')) if is_on_gpu(x) else x for x in tensors]


def tolist(x):
    """FakeTensor.tolist: one copy from the device, and not one for each element."""
    count_wait()
    return on_host(x).tolist()


def save(contents, file):
    """torch.save, which copies from the device; all of it counts as one wait."""
    count_wait()
    plain_save(tree_map(on_host, contents), file)


plain_linear = F.linear
plain_save = torch.save
autocast_rules = torch.library.Library('_', 'IMPL', 'AutocastPrivateUse1')   # they last as long as this object


def add_device():
    """Make the device known to PyTorch, in this process for good."""
    backend_registration._setup_privateuseone_for_python_backend('gpu')
    torch.gpu.get_amp_supported_dtype = lambda: [torch.bfloat16, torch.float16]
    autocast_rules.fallback(torch.library.fallthrough_kernel)   # none but those below
    torch.nn.Module.to = move
    F.linear = linear
    F.scaled_dot_product_attention = attention
    FakeTensor.tolist = tolist
    torch.Tensor.pin_memory = lambda x: x
    torch.save = save


def run(script, *args):
    """Run `python SCRIPT ARGS` on the device."""
    with new_python([script, *args]):
        sys.path.insert(0, str(REPO))
        from support import devices
        devices.pick_device = lambda *_: 'gpu:0'
        with open(script, encoding='utf-8') as f:
            source = f.read()
        source = source.replace("device_type == 'cuda'", "device_type == 'gpu'")   # what a script does for CUDA
        path = str(REPO / script)
        with Gpu(allow_non_fake_inputs=True):
            exec(compile(source, path, 'exec'), {'__name__': '__main__', '__file__': path})
    print(json.dumps(waits))
    waits.clear()


if __name__ == '__main__':
    add_device()
    commands = [[]]
    for arg in sys.argv[1:]:
        if arg == '--':
            commands.append([])
        else:
            commands[-1].append(arg)
    for command in commands:
        run(*command)
