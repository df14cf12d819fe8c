"""
Only for speed on a CPU: whether the processor multiplies bfloat16, and weights in float16 for sampling.

(Dropout and attention_in_blocks, which are for a CPU too, stand at the end of model.py, which works without this
file.)
"""

import platform

import torch
from torch import nn


def has_bfloat16():
    """Whether the processor multiplies bfloat16 matrices in hardware; elsewhere torch is a hundredfold slower at
    it."""
    flags = getattr(torch.cpu, 'get_capabilities', dict)()   # an older torch has no such function
    return bool(flags.get('amx_bf16') or flags.get('avx512_bf16'))


def can_pack():
    """Whether PackedLinear works here: it needs FBGEMM, a part of torch that is sound on x86 processors only."""
    return platform.machine() in ('x86_64', 'AMD64') and 'fbgemm' in torch.backends.quantized.supported_engines


def pack_weights(model):
    """Replace every nn.Linear in a model by a PackedLinear. The model can no longer be trained."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Linear):
                setattr(parent, name, PackedLinear(child))


class PackedLinear(nn.Module):
    """nn.Linear whose weights are float16 and whose arithmetic is float32. To write one token, every weight is read
    once, so half the bytes is up to twice the speed."""

    def __init__(self, linear):
        super().__init__()
        self.weight = torch.ops.quantized.linear_prepack_fp16(linear.weight.detach(), linear.bias)

    def forward(self, x):
        return torch.ops.quantized.linear_dynamic_fp16(x, self.weight)
