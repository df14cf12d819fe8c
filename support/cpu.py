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
    """Whether PackedLinear works here: it needs FBGEMM, a part of torch that is sound on x86 processors only, and two
    operators, which a later torch may no longer have."""
    is_x86 = platform.machine() in ('x86_64', 'AMD64')
    operators = ('linear_prepack_fp16', 'linear_dynamic_fp16')
    has_operators = all(hasattr(torch.ops.quantized, name) for name in operators)
    return is_x86 and has_operators and 'fbgemm' in torch.backends.quantized.supported_engines


# In milliseconds a token, one text / ten texts, plain and packed, on 2 cores of an AMD EPYC (AVX2): 4 layers of 160
# channels (assets/eca-mini, 1.25 million weights) 1.05 / 1.85 and 1.42 / 2.21; 6 of 256 (4.8 million) 3.23 / 7.98 and
# 2.49 / 5.00; 6 of 384 (10.7 million) 5.85 / 10.9 and 3.49 / 8.0; 4 layers of GPT-2 (67 million) 24 / 83 and 11 / 38.
PACKING_PAYS_FROM = 2_500_000   # weights


def is_worth_packing(model):
    """Whether a model is large enough for pack_weights to save time. A small one is in the processor's caches and quick
    to read, and PackedLinear costs more to call."""
    return sum(p.numel() for p in model.parameters()) >= PACKING_PAYS_FROM


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
