"""What torch.compile is asked for: by 'auto' where it pays, and one program for each of few shapes and modes."""

import pytest
import torch
from conftest import REPO, make_model
from torch._dynamo.testing import CompileCounter

from model import GPT, GPTConfig
from support import devices


@pytest.fixture
def flops_per_iter():
    """Of config/train_eca_char.py."""
    settings = {}
    exec((REPO / 'config/train_eca_char.py').read_text(encoding='utf-8'), settings)
    shape = {name: settings[name] for name in ('n_layer', 'n_head', 'n_embd', 'block_size')}
    model = GPT(GPTConfig(**shape, vocab_size=145, bias=False))
    return model.flops_per_token() * settings['batch_size'] * settings['block_size']


# iterations of train_eca_char.py whose savings, by estimate, are what compiling costs
BREAK_EVEN = [
    ('NVIDIA H100 80GB HBM3', 'bfloat16', 22000),
    ('NVIDIA A100-SXM4-40GB', 'bfloat16', 10000),
    ('NVIDIA GeForce RTX 4090', 'bfloat16', 6700),
    ('Tesla T4', 'float16', 3700),
]


@pytest.fixture
def compiler(monkeypatch):
    """A compiler that works, whatever it is given."""
    monkeypatch.setattr(torch, 'compile', lambda f: lambda x: None)
    monkeypatch.setattr(torch, 'ones', lambda n, device: None)


@pytest.mark.parametrize('name, dtype, break_even', BREAK_EVEN)
def test_auto_near_the_break_even(monkeypatch, compiler, flops_per_iter, name, dtype, break_even):
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda device: name)
    peak_flops = devices.peak_flops('cuda', dtype)
    seconds = flops_per_iter * break_even / (0.4 * peak_flops)
    assert 60 < seconds < 180   # one to three minutes
    assert not devices.pick_compile('auto', 'cuda', flops_per_iter * break_even * 0.8, peak_flops)[0]
    assert devices.pick_compile('auto', 'cuda', flops_per_iter * break_even * 2.5, peak_flops)[0]
    assert devices.pick_compile('auto', 'cuda', flops_per_iter * 2000, peak_flops)[0] is False   # as in the config


@pytest.mark.parametrize('kind, flops, peak_flops, pays, reason', [
    ('cuda', 59e15, 989e12, False,
     'training takes some 149 s at 40% of 989 TFLOP/s; compiling pays from 150 s on'),
    ('cuda', 6e18, 989e12, True,
     'training takes some 15,167 s at 40% of 989 TFLOP/s; compiling pays from 150 s on'),
    ('cuda', 4e15, 0, False,
     'training takes some 100 s at 40% of 100 TFLOP/s, a guess; compiling pays from 150 s on'),
    ('cuda', 8e15, 0, True,
     'training takes some 200 s at 40% of 100 TFLOP/s, a guess; compiling pays from 150 s on'),
    ('cuda', 0, 989e12, False, 'there is nothing to train'),
    ('cpu', 6e18, 0, False, 'it does not pay on cpu'),
    ('mps', 6e18, 0, False, 'it does not pay on mps'),
])
def test_auto_says_why(compiler, kind, flops, peak_flops, pays, reason):
    assert devices.pick_compile('auto', kind, flops, peak_flops) == (pays, reason)
    assert devices.pick_compile('True', kind, flops, peak_flops) == (True, 'as asked')   # whatever pays


def test_train_counts_what_is_left(prepared, tmp_path, monkeypatch):
    """train.py gives the choice the FLOPs of the iterations that are left: none to evaluate, fewer when resumed."""
    (tmp_path / 'spy.py').write_text(
        "devices_of_this_run = __import__('support.devices').devices\n"
        'def spy(compile, device, flops, peak_flops, minutes):\n'
        "    print(f'asked for {flops / 1e6:.3f} MFLOP')\n"
        "    return False, 'spied'\n"
        'devices_of_this_run.pick_compile = spy\n', encoding='utf-8')
    args = ['train.py', 'config/train_eca_char.py', '--n_layer=1', '--n_head=1', '--n_embd=16', '--block_size=8',
            '--batch_size=2', '--eval_iters=1', '--sample_chars=0', tmp_path / 'spy.py', f'--out_dir={tmp_path}/out']

    def asked(*more):
        printed = prepared.run(*args, *more)
        assert 'compile: False (spied)\n' in printed
        return float(printed.split('asked for ')[1].split()[0])

    four = asked('--max_iters=4')
    assert four > 0
    assert asked('--max_iters=8', '--init_from=resume') == four
    assert asked('--max_iters=8', '--init_from=resume', '--eval_only=True') == 0
    assert asked('--max_iters=3', '--init_from=resume') == 0   # they are done


def test_number_of_programs():
    """One for training, one for evaluation; text is written without. fullgraph=True raises where a program breaks."""
    torch._dynamo.reset()
    model = make_model().train()   # without dropout: on a CPU its mask breaks a program
    counter = CompileCounter()
    compiled = torch.compile(model, dynamic=False, backend=counter, fullgraph=True)
    optimizer, = model.configure_optimizers(0.1, 1e-3, (0.9, 0.95))
    batch = torch.randint(37, (4, 17))
    x = batch[:, :-1]
    y = batch[:, 1:]

    def step():
        compiled(x, y)[1].backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    step()
    assert counter.frame_count == 1
    model.eval()
    with torch.no_grad():
        for _ in range(2):
            compiled(x, y)
    assert counter.frame_count == 2
    model.generate(x[:1, :3], 20)   # past the end of the window
    model.train()
    step()
    assert counter.frame_count == 2
