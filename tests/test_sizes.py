"""The formulas of support/sizes.py against what torch has, keeps and writes; tools/sizing.py and train.py's line, which
print them."""

import os
import re

import pytest
import torch
from conftest import REPO, TINY, load
from torch.nn.attention import SDPBackend, sdpa_kernel

import model as model_file
from model import GPT, GPTConfig
from support import devices, sizes

MODELS = [GPTConfig(),   # GPT-2's shape, without biases: the settings' default
          GPTConfig(vocab_size=145, block_size=256, n_layer=6, n_head=6, n_embd=384, bias=False),
          GPTConfig(vocab_size=50257, n_layer=5, n_head=25, n_embd=1600),   # GPT-2 XL has 48 layers
          GPTConfig(vocab_size=7, block_size=5, n_layer=1, n_head=1, n_embd=3),
          GPTConfig(vocab_size=32000, block_size=2048, n_layer=2, n_head=32, n_embd=4096, bias=False)]
SMALL = dict(vocab_size=53, block_size=192, n_layer=2, n_head=2, n_embd=48)
LINE = r'memory: about (\S+ \wB), (\S+ \wB) of it activations, and 400 MB for torch itself'


def on_meta(c):
    """A model without data."""
    with torch.device('meta'):
        return GPT(c)


@pytest.mark.parametrize('c', MODELS)
def test_parameters_and_flops_are_the_models(c):
    model = on_meta(c)
    own = {}
    for name, p in model.named_parameters():
        shapes = own.setdefault(re.sub(r'\.\d+\.', '.*.', name), [])
        shapes.append(tuple(p.shape))
    assert own == {name: n * [shape] for name, (shape, n) in sizes.parameter_shapes(c).items()}
    assert sizes.count_parameters(c) == model.get_num_params(non_embedding=False)
    assert sum(sizes.flops_per_token(c).values()) == model.flops_per_token()


# -----------------------------------------------------------------------------
# what torch keeps

def kept_bytes(c, B, dtype):
    """Bytes of the tensors that a forward pass keeps for the backward pass, parameters left out, each storage once."""
    torch.manual_seed(0)
    model = GPT(c)
    model.train()
    storages = {}
    alive = []   # or a storage might be freed, and its address be another's

    def note(x):
        alive.append(x)
        storages[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    windows = torch.randint(c.vocab_size, (B, c.block_size + 1))
    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x), devices.autocast('cpu', dtype):
        model(windows[:, :-1], windows[:, 1:])
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    return sum(n for address, n in storages.items() if address not in parameters)


@pytest.mark.parametrize('changes', [{}, {'bias': False, 'n_head': 6}, {'vocab_size': 1000, 'block_size': 300},
                                     {'n_embd': 96, 'n_layer': 1}])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('dropout', [0.0, 0.2])
def test_activations_on_a_cpu(changes, dtype, dropout):
    c = GPTConfig(**{**SMALL, **changes, 'dropout': dropout})
    estimate = sizes.activation_bytes(c, 3, 'cpu', dtype)
    assert sum(estimate.values()) == pytest.approx(kept_bytes(c, 3, dtype), rel=0.02)   # 0.1 was asked for
    assert ('dropout' in estimate) == (dropout > 0) and ('bfloat16 weights' in estimate) == (dtype == 'bfloat16')


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_activations_with_other_attentions(dtype, monkeypatch):
    """What a GPU has, computed on the CPU: the fused attention in bfloat16, and the plain one of MPS."""
    def attention(q, k, v, dropout):
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)

    monkeypatch.setattr(model_file, 'attention_in_blocks', attention)
    c = GPTConfig(**SMALL)
    for kind, backend in [('fused', SDPBackend.FLASH_ATTENTION), ('plain', SDPBackend.MATH)]:
        with sdpa_kernel(backend):
            kept = kept_bytes(c, 3, dtype)
        estimate = sizes.activation_bytes(c, 3, 'cpu', dtype, attention=kind)
        assert sum(estimate.values()) == pytest.approx(kept, rel=0.02)
    assert sizes.attention_kind(c, 'cuda', dtype) == 'fused' and sizes.attention_kind(c, 'mps', dtype) == 'plain'


def test_bytes_for_each_channel():
    """The rule of thumb that the page gives."""
    c = GPTConfig(n_layer=1, n_head=1, n_embd=4096, block_size=64, vocab_size=1)
    for dtype, factor in [('float32', 64), ('bfloat16', 36)]:
        kept = sizes.activation_bytes(c, 1, 'cuda', dtype)
        of_a_block = kept['attention'] + kept['MLP'] + kept['LayerNorms'] * 2 / 3
        assert of_a_block == pytest.approx(64 * 4096 * factor, rel=0.01)


# -----------------------------------------------------------------------------
# optimizers, the cache, the file

@pytest.mark.parametrize('optimizer', ['adamw', 'muon'])
def test_optimizers(optimizer, monkeypatch):
    c = GPTConfig(**SMALL)
    model = GPT(c)
    muon = dict(lr=1e-3, momentum=0.9, ns_dtype='float32') if optimizer == 'muon' else None
    optimizers = model.configure_optimizers(0.1, 1e-3, (0.9, 0.99), 'cpu', muon)
    ids = torch.zeros(1, 4, dtype=torch.long)
    model(ids, ids)[1].backward()
    for opt in optimizers:
        opt.step()
    states = [state for opt in optimizers for state in opt.state.values()]
    assert sizes.optimizer_bytes(c, optimizer) == sum(x.nbytes for state in states for x in state.values())
    assert sizes.optimizer_bytes(c, 'muon') < sizes.optimizer_bytes(c, 'adamw')

    # shared by processes, as ZeroRedundancyOptimizer shares
    from torch.testing._internal.distributed.fake_pg import FakeStore
    torch.distributed.init_process_group('fake', store=FakeStore(), rank=0, world_size=4)
    try:
        from support import processes
        shards = [0] * 4
        for opt in optimizers:
            bytes_of = {p: sum(x.nbytes for x in state.values()) for p, state in opt.state.items()}
            for i, groups in enumerate(processes.shard(opt)._partition_parameters()):
                shards[i] += sum(bytes_of[p] for group in groups for p in group['params'])
    finally:
        torch.distributed.destroy_process_group()
    assert sum(shards) == sizes.optimizer_bytes(c, optimizer)
    assert max(shards) == sizes.optimizer_bytes(c, optimizer, n_shards=4)


def test_cache():
    c = GPTConfig(**SMALL)
    cache = GPT(c).new_cache(5)
    assert sum(layer.nbytes for layer in cache) == sizes.cache_bytes(c, 5, 'float32')
    assert sizes.cache_bytes(c, 5, 'float32') == 2 * sizes.cache_bytes(c, 5, 'float16')


@pytest.mark.parametrize('optimizer', ['adamw', 'muon'])
def test_checkpoint_and_the_line_of_a_training(prepared, optimizer):
    printed = prepared.run('train.py', *TINY, '--n_embd=96', '--max_iters=1', '--sample_chars=0',
                           f'--optimizer={optimizer}', f'--out_dir=out-size-{optimizer}')
    path = prepared / f'out-size-{optimizer}' / 'ckpt.pt'
    c = GPTConfig(**load(path)['model_args'])
    assert os.path.getsize(path) == pytest.approx(sizes.checkpoint_bytes(c, optimizer), rel=0.1)
    lines = printed.splitlines()
    memory = sizes.training_memory(c, 8, 'cpu', 'float32', optimizer)
    found = re.fullmatch(LINE, lines[1 + [line.startswith('number of') for line in lines].index(True)])
    assert found.groups() == (sizes.in_bytes(sum(memory.values())), sizes.in_bytes(memory['activations']))


# -----------------------------------------------------------------------------
# too little memory

def needed(c, batch_size, device='cuda', dtype='bfloat16', n_shards=1):
    return sum(sizes.training_memory(c, batch_size, device, dtype, 'adamw', n_shards).values())


def lower(c, available, device='cuda'):
    return sizes.what_to_lower(c, 12, 40, device, 'bfloat16', 'adamw', available)


def test_what_to_lower():
    """What is said to fit does, and what comes before it does not."""
    c = GPTConfig()
    assert lower(c, needed(c, 12)) == ''
    assert lower(c, needed(c, 12) - 1) == '--batch_size=6 --gradient_accumulation_steps=80'
    assert lower(c, needed(c, 4)) == '--batch_size=4 --gradient_accumulation_steps=120'
    one = '--batch_size=1 --gradient_accumulation_steps=480'
    assert lower(c, needed(c, 1)) == one
    assert lower(c, needed(c, 1) - 1) == f'{one} --block_size=512'
    fewer = re.fullmatch(f'{one} --n_layer=(\\d+)', lower(c, 1.8e9))
    n_layer = int(fewer[1])
    assert needed(GPTConfig(n_layer=n_layer), 1) <= 1.8e9 < needed(GPTConfig(n_layer=n_layer + 1), 1)
    assert lower(c, 1e6) == 'a smaller n_embd'
    # a CPU takes 2048 tokens at a time, whatever batch_size is
    assert needed(c, 12, 'cpu') == needed(c, 2, 'cpu') > needed(c, 1, 'cpu')
    assert needed(c, 12, n_shards=8) < needed(c, 12)


def test_a_device_that_has_less(monkeypatch, capsys):
    c = GPTConfig()
    config = dict(eval_only=False, shard_optimizer=False, batch_size=12, gradient_accumulation_steps=40,
                  optimizer='adamw')
    monkeypatch.setattr(devices, 'memory_bytes', lambda device: 16e9)
    sizes.print_memory(c, config, 'cpu', 'float32', 1)
    assert re.fullmatch(LINE + '\n', capsys.readouterr().out)
    monkeypatch.setattr(devices, 'memory_bytes', lambda device: 4e9)
    sizes.print_memory(c, config, 'cpu', 'float32', 1)
    line, warning = capsys.readouterr().out.splitlines()
    assert re.fullmatch(LINE, line)
    assert warning == ('memory may run out: cpu has 3.6 GB; this would fit: --batch_size=1 '
                       '--gradient_accumulation_steps=480')
    monkeypatch.setattr(devices, 'memory_bytes', lambda device: 16e9)
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '4')   # as torchrun sets it: each has a quarter
    sizes.print_memory(c, config, 'cpu', 'float32', 4)
    assert capsys.readouterr().out.splitlines()[1] == warning
    monkeypatch.setattr(devices, 'memory_bytes', lambda device: 4e9)
    sizes.print_memory(c, config, 'cuda:1', 'bfloat16', 8)
    line, warning = capsys.readouterr().out.splitlines()
    assert line == (f"memory: about {sizes.in_bytes(needed(c, 12))}, "
                    f"{sizes.in_bytes(sizes.training_memory(c, 12, 'cuda', 'bfloat16', 'adamw')['activations'])} "
                    'of it activations')
    assert warning.startswith('memory may run out: cuda:1 has 4 GB; this would fit: --batch_size=')
    monkeypatch.setattr(devices, 'memory_bytes', lambda device: 0)   # not known
    sizes.print_memory(c, config, 'mps', 'float32', 1)
    assert len(capsys.readouterr().out.splitlines()) == 1
    sizes.print_memory(c, {**config, 'eval_only': True}, 'cpu', 'float32', 1)
    assert capsys.readouterr().out == ''


def test_the_memory_of_this_machine():
    assert devices.memory_bytes('cpu') > 2**28


def test_bytes_in_words():
    words = {0: '0 bytes', 999: '999 bytes', 1000: '1 kB', 1234: '1.23 kB', 999_600: '1 MB', 45_600_000: '45.6 MB',
             2e9: '2 GB', 1.5e12: '1.5 TB'}
    assert {n: sizes.in_bytes(n) for n in words} == words


# -----------------------------------------------------------------------------
# tools/sizing.py

SIZING = ['tools/sizing.py', '--device=cpu', '--dtype=float32']
LLAMA = ['--n_layer=32', '--n_head=32', '--n_embd=4096', '--block_size=2048', '--vocab_size=32000', '--bias=False',
         '--gradient_accumulation_steps=64']


@pytest.mark.parametrize('args', [['config/train_eca_char_laptop.py'], ['config/train_gpt2.py', '--dropout=0.1'],
                                  ['config/eval_gpt2_xl.py'], ['config/finetune_autor_char.py'], LLAMA])
def test_sizing_prints_what_the_formulas_say(prepared, args):
    printed = prepared.run(*SIZING, *args, '--measure=False')
    assert max(len(line) for line in printed.splitlines() if not line.startswith('Overriding')) <= 80
    n_layer, n_head, n_embd, block_size, vocab_size = map(int, re.search(
        r'^model: (\d+) layers, (\d+) heads, (\d+) channels, windows of (\d+), vocabulary (\d+)$', printed, re.M)
        .groups())
    c = GPTConfig(n_layer=n_layer, n_head=n_head, n_embd=n_embd, block_size=block_size, vocab_size=vocab_size,
                  bias='xl' in args[0], dropout=0.1 if 'dropout' in args[-1] else 0.0)
    rows = re.findall(r'^(wte|wpe|h\.\*|ln_f)\S*.*?([\d,]+)  ?\d?\d\.\d%', printed, re.M)
    assert sum(int(n.replace(',', '')) for _, n in rows) == sizes.count_parameters(c)
    assert f'{sizes.count_parameters(c):,}' in re.search('^all .*', printed, re.M)[0]
    assert f'train.py says {(sizes.count_parameters(c) - block_size * n_embd) / 1e6:.2f}M' in printed
    batch_size = int(re.search('batch_size = ([0-9]+)', (REPO / args[0]).read_text())[1]) \
        if args[0].startswith('config') and 'gpt2.py' not in args[0] else (64 if args is LLAMA else 12)
    optimizer = re.search(r'^optimizer \((\w+)\)', printed, re.M)[1]
    for device, dtype in [('cpu', 'float32'), ('cuda', 'float32')]:
        memory = sizes.training_memory(c, batch_size, device, dtype, optimizer)
        assert sizes.in_bytes(sum(memory.values())) in re.findall('^all .*', printed, re.M)[1]
    assert ('8 GPUs' in printed) == (args is LLAMA or 'gpt2' in args[0])


def test_sizing_of_the_data_and_of_this_machine(prepared):
    printed = prepared.run(*SIZING, 'config/train_eca_char_laptop.py')
    assert re.search(r', \d+\.\d\d times train\.bin$', printed, re.M)
    assert re.search(r'^here, on cpu: \S+ TFLOP/s in a large float32 matmul$', printed, re.M)
    assert max(len(line) for line in printed.splitlines() if not line.startswith('Overriding')) <= 80


@pytest.mark.parametrize('page', ['docs/sizes.md', 'docs/tamanhos.md'])
def test_the_pages_quote_what_it_prints(bare, page):
    if devices.pick_dtype('auto', 'cpu') != 'float32':
        pytest.skip('the pages quote a machine without bfloat16')
    text = (REPO / page).read_text(encoding='utf-8')
    quoted = re.findall(r'^```\n(.*?)^```', text, re.M | re.S)
    printed = ''.join(bare.run('tools/sizing.py', f'config/{name}.py', '--device=cpu', '--measure=False')
                      for name in ('train_eca_char_laptop', 'train_gpt2'))
    assert len(quoted) == 3 and all(block in printed for block in quoted)


def test_sizing_mistakes(bare):
    for arg, says in [('--n_head=5', 'n_embd = 384 cannot be split'), ('--gpus=0', 'gpus = 0'),
                      ('--optimizer=sgd', 'optimizer = sgd'), ('--dtype=int8', 'dtype = int8'),
                      ('--vocab_size=-1', 'vocab_size = -1'), ('--init_from=someone/else', 'someone/else is not'),
                      ('--batchsize=2', 'did you mean batch_size')]:
        assert says in bare.run('tools/sizing.py', arg, '--measure=False', fails=True)
    assert '--gpus=8' in bare.run('tools/sizing.py', '--help')
