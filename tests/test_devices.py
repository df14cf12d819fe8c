"""Devices that choose themselves: what a machine has, what is asked for, and why it is refused."""

import platform
from types import SimpleNamespace

import pytest
import torch

from support import devices
from support.cpu import has_bfloat16

LARGE = torch.nn.Linear(2000, 2000)   # as many weights as make float16 pay on a CPU


@pytest.fixture
def machine(monkeypatch):
    """Pretend to be a machine with these devices."""
    def pretend(cuda=0, mps=False, capability=(9, 0), cpu_flags=(), processor='x86_64', compiler=True):
        def compiled(x):
            if not compiler:
                raise RuntimeError('no compiler\nand more about it')
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, 'device_count', lambda: cuda)
        monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device=None: capability)
        monkeypatch.setattr(torch.backends.mps, 'is_available', lambda: mps)
        monkeypatch.setattr(torch.cpu, 'get_capabilities', lambda: dict.fromkeys(cpu_flags, True), raising=False)
        monkeypatch.setattr(torch.backends, 'quantized', SimpleNamespace(supported_engines=['fbgemm']))
        monkeypatch.setattr(platform, 'machine', lambda: processor)
        monkeypatch.setattr(torch, 'compile', lambda f: compiled)
        monkeypatch.setattr(torch, 'ones', lambda n, device: None)
    return pretend


@pytest.mark.parametrize('has, device, dtype, sampling_dtype, compiles', [
    (dict(cuda=1), 'cuda', 'bfloat16', 'bfloat16', True),
    (dict(cuda=1, mps=True), 'cuda', 'bfloat16', 'bfloat16', True),
    (dict(cuda=1, capability=(7, 5)), 'cuda', 'float16', 'float16', True),
    (dict(cuda=1, compiler=False), 'cuda', 'bfloat16', 'bfloat16', False),
    (dict(mps=True), 'mps', 'float32', 'float32', False),
    (dict(), 'cpu', 'float32', 'float16', False),
    (dict(processor='AMD64'), 'cpu', 'float32', 'float16', False),   # Windows' name for x86_64
    (dict(processor='aarch64'), 'cpu', 'float32', 'float32', False),   # FBGEMM may be there, and crash
    (dict(cpu_flags=['avx2', 'avx512_f']), 'cpu', 'float32', 'float16', False),
    (dict(cpu_flags=['amx_bf16']), 'cpu', 'bfloat16', 'float16', False),
    (dict(cpu_flags=['avx512_bf16']), 'cpu', 'bfloat16', 'float16', False),
])
def test_auto(machine, has, device, dtype, sampling_dtype, compiles):
    machine(**has)
    assert devices.pick_device('auto') == device
    assert devices.pick_dtype('auto', device) == dtype
    assert devices.pick_sampling_dtype('auto', device, LARGE) == sampling_dtype
    assert devices.pick_compile('auto', device)[0] is compiles


@pytest.mark.parametrize('name, dtype, tflops', [
    ('NVIDIA H200', 'bfloat16', 989),
    ('NVIDIA H100 80GB HBM3', 'bfloat16', 989),
    ('NVIDIA H100 PCIe', 'bfloat16', 756),
    ('NVIDIA H100 NVL', 'bfloat16', 0),   # slower than an H100, and not in the table
    ('NVIDIA A100-SXM4-40GB', 'bfloat16', 312),
    ('NVIDIA A100-PCIE-40GB', 'bfloat16', 312),
    ('NVIDIA A100-SXM4-40GB MIG 1g.5gb', 'bfloat16', 0),   # a slice of one
    ('NVIDIA A10', 'bfloat16', 125),
    ('NVIDIA A10G', 'bfloat16', 0),   # not an A10, and not in the table
    ('Tesla T4', 'float16', 65),
    ('Tesla V100-SXM2-16GB', 'float16', 125),
    ('Tesla V100-PCIE-16GB', 'float16', 112),
    ('NVIDIA GeForce RTX 4090', 'bfloat16', 165),
    ('NVIDIA GeForce RTX 4090 Laptop GPU', 'bfloat16', 0),
    ('NVIDIA H200', 'float32', 0),
])
def test_peak_flops(monkeypatch, name, dtype, tflops):
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda device: name)
    assert devices.peak_flops('cuda', dtype) == tflops * 1e12
    assert devices.peak_flops('cpu', dtype) == devices.peak_flops('mps', dtype) == 0


def test_broken_compiler_is_a_reason(machine):
    machine(cuda=1, compiler=False)
    assert devices.pick_compile('auto', 'cuda') == (False, 'torch.compile does not work here: no compiler')


def test_forced(machine):
    machine(cuda=2, mps=True)
    for device in ('cpu', 'mps', 'cuda', 'cuda:1', 'cpu:0', 'mps:0'):
        assert devices.pick_device(device) == device
        assert devices.pick_dtype('float16', device) == 'float16'
        assert devices.pick_compile('True', device) == (True, 'as asked')
        assert devices.pick_compile('False', device) == (False, 'as asked')


@pytest.mark.parametrize('has, device, says', [
    (dict(), 'cuda', 'use auto, or one of: cpu'),
    (dict(mps=True), 'cuda', 'use auto, or one of: mps, cpu'),
    (dict(), 'mps', 'not on this machine'),
    (dict(cuda=2), 'cuda:2', 'the last one is cuda:1'),
    (dict(), 'tpu', 'not the name of a device'),
    (dict(), 'meta', 'meta is not supported here; use auto, cpu, mps .*, cuda or cuda:N'),
    (dict(), 'xpu', 'xpu is not supported here; use auto, cpu, mps'),
    (dict(), 'hpu:1', 'hpu:1 is not supported here'),
    (dict(), 'cpu:1', 'cpu:1 is not supported here'),
    (dict(mps=True), 'mps:1', 'mps:1 is not supported here'),
    (dict(cuda=1), 'cuda:256', 'the last one is cuda:0'),   # to torch, which keeps a byte of it, cuda:0
    (dict(cuda=1), 'cuda:99999999999999999999', 'not the name of a device'),
    (dict(cuda=1), '', 'not the name of a device'),
])
def test_device_that_is_not_there(machine, has, device, says):
    machine(**has)
    with pytest.raises(SystemExit, match=says):
        devices.pick_device(device)


def test_one_device_for_all_processes(machine, monkeypatch):
    machine(cuda=2)
    monkeypatch.setenv('LOCAL_RANK', '1')
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '2')
    assert devices.pick_device('cuda', is_ddp=True) == 'cuda:1'
    with pytest.raises(SystemExit, match='use --device=cuda, which gives each its own'):
        devices.pick_device('cuda:0', is_ddp=True)
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '1')   # on each of two machines
    assert devices.pick_device('cuda:0', is_ddp=True) == 'cuda:0'


def test_torch_without_get_capabilities(monkeypatch):
    monkeypatch.delattr(torch.cpu, 'get_capabilities', raising=False)
    assert has_bfloat16() is False


def test_autocast_keeps_float32_plain():
    x = torch.randn(4, 4)
    with devices.autocast('cpu', 'float32'):
        assert (x @ x).dtype == torch.float32
    with devices.autocast('cpu', 'bfloat16'):
        assert (x @ x).dtype == torch.bfloat16


@pytest.mark.parametrize('device, block_size, batch_size, piece_size', [
    ('cpu', 32, 130, 64),          # 2048 tokens
    ('cpu', 2048, 8, 1),
    ('cpu', 4096, 8, 1),           # one sequence at least
    ('mps', 256, 130, 64),         # 16384 tokens
    ('cuda', 1024, 130, 130),
    ('cuda:1', 1024, 130, 130),
])
def test_pieces_of_a_batch(device, block_size, batch_size, piece_size):
    assert devices.pick_piece_size(device, block_size, batch_size) == piece_size
