"""What is only for speed on a CPU: weights in float16 change nothing but their rounding."""

import pytest
import torch
from conftest import make_model, recompute, start_compiler

from support.cpu import can_pack, pack_weights

pytestmark = pytest.mark.skipif(not can_pack(), reason='no FBGEMM here')


@pytest.mark.parametrize('bias', [True, False])
def test_packed_weights_are_float16_in_float32_arithmetic(bias):
    """pack_weights changes logits just as rounding the weights does, and cached still equals recomputed."""
    packed = make_model(bias=bias)
    rounded = make_model(bias=bias)
    pack_weights(packed)
    assert not any(isinstance(m, torch.nn.Linear) for m in packed.modules())
    for module in rounded.modules():
        if isinstance(module, torch.nn.Linear):   # the tied embedding stays as it was
            module.weight = torch.nn.Parameter(module.weight.half().float())
    rounded.transformer.wte.weight = packed.transformer.wte.weight
    idx = torch.randint(37, (2, 16))
    with torch.no_grad():
        torch.testing.assert_close(packed(idx)[0], rounded(idx)[0], rtol=1e-4, atol=1e-4)
    assert torch.equal(packed.generate(idx[:, :5], 30, temperature=0), recompute(packed, idx[:, :5], 30, 8))


def test_compiled_and_packed_equals_packed():
    """With torch.compile, whose graphs write into the cache, generation gives the same tokens, refills included."""
    start_compiler()
    model = make_model()
    pack_weights(model)
    idx = torch.randint(37, (2, 4))
    plain = model.generate(idx, 40, temperature=0)
    model.forward = torch.compile(model.forward)
    assert torch.equal(model.generate(idx, 40, temperature=0), plain)
