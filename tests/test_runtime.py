"""Devices that choose themselves, checkpoints written whole, files from strangers."""

import os
import sys
import pickle
import platform
from types import SimpleNamespace

import pytest
import torch

import checkpoint
import runtime


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
    assert runtime.pick_device('auto') == device
    assert runtime.pick_dtype('auto', device) == dtype
    assert runtime.pick_dtype('auto', device, is_training=False) == sampling_dtype
    assert runtime.pick_compile('auto', device)[0] is compiles


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
    assert runtime.peak_flops('cuda', dtype) == tflops * 1e12
    assert runtime.peak_flops('cpu', dtype) == runtime.peak_flops('mps', dtype) == 0


def test_broken_compiler_is_a_reason(machine):
    machine(cuda=1, compiler=False)
    assert runtime.pick_compile('auto', 'cuda') == (False, 'torch.compile does not work here: no compiler')


def test_forced(machine):
    machine(cuda=2, mps=True)
    for device in ('cpu', 'mps', 'cuda', 'cuda:1'):
        assert runtime.pick_device(device) == device
        assert runtime.pick_dtype('float16', device) == 'float16'
        assert runtime.pick_compile('True', device) == (True, 'as asked')
        assert runtime.pick_compile('False', device) == (False, 'as asked')


@pytest.mark.parametrize('has, device, says', [
    (dict(), 'cuda', 'use auto, or one of: cpu'),
    (dict(mps=True), 'cuda', 'use auto, or one of: mps, cpu'),
    (dict(), 'mps', 'not on this machine'),
    (dict(cuda=2), 'cuda:2', 'the last one is cuda:1'),
    (dict(), 'tpu', 'not the name of a device'),
    (dict(), 'meta', 'not on this machine'),
])
def test_device_that_is_not_there(machine, has, device, says):
    machine(**has)
    with pytest.raises(SystemExit, match=says):
        runtime.pick_device(device)


def test_one_device_for_all_processes(machine, monkeypatch):
    machine(cuda=2)
    monkeypatch.setenv('LOCAL_RANK', '1')
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '2')
    assert runtime.pick_device('cuda', is_ddp=True) == 'cuda:1'
    with pytest.raises(SystemExit, match='use --device=cuda, which gives each its own'):
        runtime.pick_device('cuda:0', is_ddp=True)
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '1')   # on each of two machines
    assert runtime.pick_device('cuda:0', is_ddp=True) == 'cuda:0'


def test_what_is_printed_to_be_typed(monkeypatch):
    words = ['python', 'sample.py', '--out_dir=meus livros']
    assert checkpoint.command_line(words) == "python sample.py '--out_dir=meus livros'"
    with monkeypatch.context() as m:
        m.setattr(os, 'name', 'nt')
        printed = checkpoint.command_line([*words, r'--to=a\b'])
    assert printed == r'python sample.py "--out_dir=meus livros" --to=a\b'


def test_torch_without_get_capabilities(monkeypatch):
    monkeypatch.delattr(torch.cpu, 'get_capabilities', raising=False)
    assert runtime.cpu_has_bfloat16() is False


@pytest.mark.parametrize('e, is_it', [
    (MemoryError(), True), (torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB.'), True),
    (RuntimeError('MPS backend out of memory (MPS allocated: 5 GB)'), True),
    (RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory"), True),
    (RuntimeError('CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate'), True),
    (RuntimeError('mat1 and mat2 shapes cannot be multiplied'), False), (ValueError(), False)])
def test_out_of_memory_is_one_line(capsys, monkeypatch, e, is_it):
    for script, says in (('train.py', '; lower batch_size'), ('sample.py', '; lower num_samples\n'), ('plot.py', '\n')):
        monkeypatch.setattr(sys, 'argv', [script])
        runtime.explain_crash(type(e), e, None)
        said = f'{script}: memory ran out{says}' in capsys.readouterr().err
        assert said == is_it == runtime.is_out_of_memory(e)


def test_a_gpu_that_torch_has_no_code_for_is_one_line(capsys, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['train.py'])
    e = RuntimeError('CUDA error: no kernel image is available for execution on the device\nSearch ...')
    runtime.explain_crash(type(e), e, None)
    said = capsys.readouterr().err
    assert said.startswith('train.py: this build of torch ') and '--device=cpu' in said and said.count('\n') == 1


def test_autocast_keeps_float32_plain():
    x = torch.randn(4, 4)
    with runtime.autocast('cpu', 'float32'):
        assert (x @ x).dtype == torch.float32
    with runtime.autocast('cpu', 'bfloat16'):
        assert (x @ x).dtype == torch.bfloat16


ARGS = dict(n_layer=1, n_head=1, n_embd=8, block_size=4, bias=False, vocab_size=5, dropout=0.5)
CHECKPOINT = {'model': checkpoint.GPT(checkpoint.GPTConfig(**ARGS)).state_dict(), 'model_args': ARGS, 'iter_num': 7}


def test_checkpoint_round_trip(tmp_path):
    path = str(tmp_path / 'ckpt.pt')
    checkpoint.save_checkpoint(CHECKPOINT, path)
    checkpoint.save_checkpoint({**CHECKPOINT, 'iter_num': 8}, path)   # over the old one
    assert checkpoint.load_checkpoint(path)[1]['iter_num'] == 8
    assert os.listdir(tmp_path) == ['ckpt.pt']


def test_weights_that_do_not_fit_their_description(tmp_path):
    path = str(tmp_path / 'ckpt.pt')
    for wrong in (dict(n_layer=2), dict(n_embd=16), dict(n_head=3), dict(colour='red')):
        checkpoint.save_checkpoint({**CHECKPOINT, 'model_args': {**ARGS, **wrong}}, path)
        with pytest.raises(SystemExit, match='not a whole checkpoint'):
            checkpoint.load_checkpoint(path)


def test_old_nanogpt_names(tmp_path):
    """Prefixes of compiled models, and the mask that nanoGPT stored on torch 1."""
    weights = {f'_orig_mod.{k}': v for k, v in CHECKPOINT['model'].items()}
    weights['_orig_mod.transformer.h.0.attn.bias'] = torch.ones(1, 1, 4, 4)
    checkpoint.save_checkpoint({**CHECKPOINT, 'model': weights}, str(tmp_path / 'ckpt.pt'))
    model, _ = checkpoint.load_checkpoint(str(tmp_path / 'ckpt.pt'), dropout=0.25)
    assert all(torch.equal(v, CHECKPOINT['model'][k]) for k, v in model.state_dict().items())
    assert model.config.dropout == 0.25


def test_failed_save_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = str(tmp_path / 'ckpt.pt')
    checkpoint.save_checkpoint(CHECKPOINT, path)

    def half_a_save(checkpoint, f):
        f.write(b'half')
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(torch, 'save', half_a_save)
    with pytest.raises(SystemExit, match='No space left on device'):
        checkpoint.save_checkpoint({**CHECKPOINT, 'iter_num': 8}, path)
    assert checkpoint.load_checkpoint(path)[1]['iter_num'] == 7 and os.listdir(tmp_path) == ['ckpt.pt']


class Payload:
    """What a stranger's pickle would do: run a command."""
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}',)


def test_payloads_do_not_run(tmp_path):
    ran = tmp_path / 'ran'
    torch.save({**CHECKPOINT, 'config': Payload(ran)}, tmp_path / 'ckpt.pt')
    with pytest.raises(SystemExit, match='not a whole checkpoint'):
        checkpoint.load_checkpoint(str(tmp_path / 'ckpt.pt'))
    assert not ran.exists()


@pytest.mark.parametrize('content', [b'', b'not a checkpoint', pickle.dumps({'model': 3}, 2), pickle.dumps([1, 2], 2)])
def test_files_that_are_something_else(tmp_path, content):
    (tmp_path / 'file').write_bytes(content)
    with pytest.raises(SystemExit, match='not a whole checkpoint'):
        checkpoint.load_checkpoint(str(tmp_path / 'file'))
