"""What is only for speed on a CPU: weights in float16 change nothing but their rounding."""

from types import SimpleNamespace

import pytest
import torch
from conftest import make_model, recompute, start_compiler

from support import devices
from support.cpu import can_pack, pack_weights

needs_fbgemm = pytest.mark.skipif(not can_pack(), reason='no FBGEMM here')


@pytest.mark.parametrize('operators', [{}, {'linear_prepack_fp16': None}])
def test_a_torch_without_the_operators_samples_all_the_same(monkeypatch, operators):
    """torch.ops.quantized is on its way out of torch: 'auto' takes plain weights then, and float16 is autocast's."""
    monkeypatch.setattr(torch.ops, 'quantized', SimpleNamespace(**operators))
    model = make_model()
    monkeypatch.setattr(devices, 'is_worth_packing', lambda model: True)
    assert devices.pick_sampling_dtype('auto', 'cpu', model) == 'float32'
    idx = torch.zeros(1, 1, dtype=torch.long)
    plain = model.generate(idx, 5, temperature=0)
    with devices.prepare_sampling(model, 'cpu', 'float32'):
        assert torch.equal(model.generate(idx, 5, temperature=0), plain)
    with devices.prepare_sampling(model, 'cpu', 'float16'):
        assert model(idx)[0].dtype == torch.float16


@needs_fbgemm
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


@needs_fbgemm
def test_compiled_and_packed_equals_packed():
    """With torch.compile, whose graphs write into the cache, generation gives the same tokens, refills included."""
    start_compiler()
    model = make_model()
    pack_weights(model)
    idx = torch.randint(37, (2, 4))
    plain = model.generate(idx, 40, temperature=0)
    model.forward = torch.compile(model.forward)
    assert torch.equal(model.generate(idx, 40, temperature=0), plain)
