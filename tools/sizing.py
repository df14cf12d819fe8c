"""
Say what a training will take, and train nothing: parameters, memory, time.
Every setting of train.py can be given here too.

    python tools/sizing.py              # the model of train_eca_char.py
    python tools/sizing.py config/train_gpt2.py
    python tools/sizing.py config/eval_gpt2_xl.py        # GPT-2 XL, on paper

On paper too, a Llama's size: --n_layer=32 --n_head=32 --n_embd=4096 --block_size=2048 --vocab_size=32000.

The formulas stand in support/sizes.py, each with its reason. Nothing of the model's size is built, so the model may be
larger than the machine. Memory is given for the device here and, if that is no GPU, for one: without torch.compile,
which needs less. Times suppose a share of the peak that NVIDIA publishes, and of what a large matmul reaches here,
which is measured in a second or two.
"""
# ruff: noqa: F821   the names from train.py are exec'd, which a linter cannot see

import os
import sys

_root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))   # the repository
sys.path.insert(0, _root)
import support.interrupt   # noqa: F401   first: from here on Ctrl-C ends the script without a traceback

import math

from model import GPTConfig
from support import devices, sizes
from support.checkpoints import find_checkpoint
from support.errors import catch_crashes, fail
from support.settings import check_at_least, check_settings
from support.sizes import in_bytes
from support.tokenizer import load_meta
from support.torch_file import read_torch_file

catch_crashes()

# -----------------------------------------------------------------------------
# settings: those of train.py, so that its config files can be used, and these
with open(os.path.join(_root, 'train.py'), encoding='utf-8') as f:
    exec(f.read().split(f'# {"-" * 77}\n')[1])
vocab_size = 0          # tokens in the vocabulary; 0: that of the data, if they are prepared
num_samples = 10        # samples drawn together, for the key/value cache
gpus = 8                # GPUs to plan for as well, where the micro-batches can be shared by so many processes
measure = True          # measure what this machine's matmul reaches; False: do not
if not any(arg.endswith('.py') or arg in ('--help', '-h') for arg in sys.argv[1:]):
    sys.argv.insert(1, os.path.join(_root, 'config', 'train_eca_char.py'))
exec(open(os.path.join(_root, 'configurator.py'), encoding='utf-8').read())
check_at_least(0, globals(), 'vocab_size')
check_at_least(1, globals(), 'num_samples', 'gpus')
check_settings(globals())
# -----------------------------------------------------------------------------

GPT2_SHAPES = {   # layers, heads, channels: of OpenAI's, and of Hugging Face's distilgpt2
    'gpt2': (12, 12, 768), 'gpt2-medium': (24, 16, 1024), 'gpt2-large': (36, 20, 1280), 'gpt2-xl': (48, 25, 1600),
    'distilgpt2': (6, 12, 768)}
CARDS = ['T4', 'RTX 3090', 'RTX 4090', 'A100', 'H100', 'B200']
MEMORIES_GB = [8, 16, 24, 80]
LEFT_FREE = 0.1   # of a device's memory: for the driver, and the gaps between tensors
LAUNCHES_S = 1e-3   # an iteration that computes for less waits for the host, which has hundreds of kernels to launch
CPU_SHARES = (0.4, 0.7)   # of a large matmul's rate, as measured: the laptop's model, and that of train_eca_char.py


# the device, and a GPU where it is none
here = devices.pick_device(device)
places = [(here, devices.pick_dtype(dtype, here))]
if not here.startswith('cuda'):
    places.append(('cuda', devices.check_dtype('bfloat16' if dtype == 'auto' else dtype)))

# the vocabulary: as asked, the data's, or as many as those data sets have
data_dir = os.path.join(_root, 'data', dataset)
meta = load_meta(os.path.join(data_dir, 'meta.pkl'))
if vocab_size == 0 and meta is not None:
    vocab_size = meta['vocab_size']
elif vocab_size == 0:
    vocab_size = 145 if dataset.endswith('_char') else 50304   # Eça's characters; GPT-2's tokens, padded

# the model: the settings', or the one that init_from names
shape = dict(n_layer=n_layer, n_head=n_head, n_embd=n_embd, vocab_size=vocab_size, bias=bias)
if init_from in GPT2_SHAPES:
    shape = dict(zip(('n_layer', 'n_head', 'n_embd'), GPT2_SHAPES[init_from]), vocab_size=50257, bias=True)
elif init_from not in ('scratch', 'resume'):
    path = find_checkpoint(init_from)
    if path is None:
        fail(f'init_from = {init_from} is not on this machine; give the model\'s shape, such as --init_from=scratch '
             '--n_layer=12')
    try:
        model_args = read_torch_file(path, device='meta')['model_args']   # shapes, and no weights
        shape = {key: model_args[key] for key in shape}
    except Exception as e:   # bytes from anywhere can raise anything
        fail(f'{path} is not a whole checkpoint: {e}')
try:
    c = GPTConfig(**shape, block_size=block_size, dropout=dropout)
except ValueError as e:   # a shape that cannot be built
    fail(e)


# -----------------------------------------------------------------------------
# the model

def print_parameters():
    """A line for each part of the model: its shape, how many there are, its parameters and its FLOPs, with shares."""
    flops = sizes.flops_per_token(c)
    all_parameters = sizes.count_parameters(c)
    all_flops = sum(flops.values())
    parts = {}   # {name: [shape of the weight, how many, parameters, FLOPs]}, with biases in their weights' lines
    for name, (size, n) in sizes.parameter_shapes(c).items():
        part = name.removeprefix('transformer.').rpartition('.')[0]
        line = parts.setdefault(part, [size, n, 0, 0])   # weights come before biases
        line[2] += n * math.prod(size)
        line[3] += flops.get(name, 0)
        if part == 'h.*.attn.c_attn':
            parts['  attention, T x T'] = [(c.block_size, c.block_size), c.n_layer, 0, flops['attention']]
    print(f'{"part":17}{"shape":>15}{"times":>6}{"parameters":>15}{"":6}{"MFLOP/token":>14}')
    for part, (size, n, parameters, part_flops) in parts.items():
        title = 'wte = lm_head' if part == 'wte' else part
        print(f'{title:17}{" x ".join(map(str, size)):>15}{n:6}{parameters:15,}{share(parameters, all_parameters)}'
              f'{part_flops / 1e6:14,.3f}{share(part_flops, all_flops)}'.rstrip())
    print(f'{"all":17}{"":21}{all_parameters:15,}{"":6}{all_flops / 1e6:14,.3f}')
    without = all_parameters - c.block_size * c.n_embd
    print(f'train.py says {without / 1e6:.2f}M, since it leaves out wpe\n'
          'a FLOP is a multiplication or an addition; forward and backward are counted')


def share(part, whole):
    return f'{part / whole:6.1%}' if part else ' ' * 6


# -----------------------------------------------------------------------------
# memory

def print_memory():
    """What a training keeps in memory, part by part, on each of the places."""
    print('\n' + f'{"memory, at its most":36}' + ''.join(f'{f"{kind}, {number}":>18}' for kind, number in places))
    rows = {}   # {name of a row: its figures}
    pieces = []
    for kind, number in places:
        B = min(batch_size, devices.pick_piece_size(kind, block_size, batch_size))
        pieces.append(B * block_size)
        memory = sizes.training_memory(c, batch_size, kind, number, optimizer)
        for name in ('weights', 'gradients', 'optimizer'):
            rows.setdefault(name, []).append(memory[name])
        for name, n in sizes.activation_bytes(c, B, kind.partition(':')[0], number).items():
            name = name if not name.endswith('weights') else 'weights in half precision'
            rows.setdefault(f'activations: {name}', [0] * len(pieces[:-1])).append(n)
        rows.setdefault('working space', []).append(memory['working'])
        rows.setdefault('all', []).append(sum(memory.values()))
    order = ['weights', 'gradients', 'optimizer', *(name for name in rows if name.startswith('activations')),
             'working space', 'all']
    for name in order:
        title = f'optimizer ({optimizer})' if name == 'optimizer' else name
        figures = rows[name] + [0] * (len(places) - len(rows[name]))
        print(f'{title:36}' + ''.join(f'{in_bytes(n) if n else "":>18}' for n in figures))
    print(f'{"for so many tokens at a time":36}' + ''.join(f'{n:18,}' for n in pieces))
    if here == 'cpu':
        print(f'and on a CPU {in_bytes(sizes.PROCESS_BYTES)} for Python and torch')

    other = 'adamw' if optimizer == 'muon' else 'muon'
    print(f'with --optimizer={other} its state would be {in_bytes(sizes.optimizer_bytes(c, other))}\n'
          f'on disk, ckpt.pt: {in_bytes(sizes.checkpoint_bytes(c, optimizer))}, weights and the optimizer\'s state')
    caches = [in_bytes(sizes.cache_bytes(c, num_samples, number)) for number in ('float32', 'float16')]
    print(f'to write {num_samples} samples, keys and values: {caches[0]} (float32) or {caches[1]} (half)')


def print_fits():
    """Into what memory it fits on each of the places, and if not, what to lower."""
    print(f'\nfits, with {LEFT_FREE:.0%} of the memory left free')
    for kind, number in places:
        process = sizes.PROCESS_BYTES if kind == 'cpu' else 0
        fitting = []
        advice = []
        for size in MEMORIES_GB:
            available = size * 1e9 * (1 - LEFT_FREE) - process
            lower = sizes.what_to_lower(c, batch_size, gradient_accumulation_steps, kind, number, optimizer, available)
            if lower:
                advice.append(f'  in {size} GB: {lower}')
            else:
                fitting.append(f'{size} GB')
        print(f'{kind}, {number}: ' + (', '.join(fitting) or 'none of these'))
        print(''.join(f'{line}\n' for line in advice), end='')


# -----------------------------------------------------------------------------
# time

def count_tokens(split):
    """The tokens of the data set, or 0 where it is not prepared."""
    path = os.path.join(data_dir, f'{split}.bin')
    return os.path.getsize(path) // 2 if os.path.isfile(path) else 0


def print_run():
    """The arithmetic of the whole training, and the time that it takes. Returns its FLOPs."""
    tokens_per_iter = gradient_accumulation_steps * batch_size * block_size
    flops_per_token = sum(sizes.flops_per_token(c).values())
    n_iters = 0 if eval_only else max_iters
    tokens = n_iters * tokens_per_iter
    n_evaluations = 1 + -(-n_iters // eval_interval)
    tokens_evaluated = eval_iters * 2 * batch_size * block_size or count_tokens('val')
    flops = flops_per_token * (tokens + n_evaluations * tokens_evaluated / 3)   # forward is a third
    print(f'\nan iteration has {tokens_per_iter:,} tokens, {flops_per_token * tokens_per_iter:.3g} FLOP')
    line = f'{n_iters:,} iterations have {tokens:,} tokens'
    train_tokens = count_tokens('train')
    print(line + (f', {tokens / train_tokens:.2f} times train.bin' if train_tokens else ''))
    print(f'with {n_evaluations:,} evaluations of {tokens_evaluated:,} tokens, {flops:.3g} FLOP')
    if minutes > 0:
        print(f'(with minutes = {minutes:g} it does as many iterations as fit into this time)')
    return flops


def print_times(flops):
    """The time that so many FLOPs take on some cards, and here."""
    flops_per_iter = sum(sizes.flops_per_token(c).values()) * gradient_accumulation_steps * batch_size * block_size
    print(f'\ntime at {devices.USUAL_MFU:.0%} of the peak in half precision')
    print(f'{"":10}{"TFLOP/s":>10}{"1 GPU":>18}' + (f'{f"{gpus} GPUs":>18}' if can_share() else ''))
    for card in CARDS:
        flops_per_s = devices.USUAL_MFU * devices.PEAK_TFLOPS[card] * 1e12
        times = [in_time(flops / flops_per_s)]
        if flops_per_iter / flops_per_s < LAUNCHES_S:
            times = ['launches decide']
        elif can_share():
            times.append(in_time(flops / flops_per_s / gpus))
        print(f'{card:10}{devices.PEAK_TFLOPS[card]:10,}' + ''.join(f'{time:>18}' for time in times))
    if not measure:
        return
    kind, number = places[0]
    rate = devices.matmul_flops(kind, number)
    print(f'\nhere, on {kind}: {rate / 1e12:.3g} TFLOP/s in a large {number} matmul')
    if kind == 'cpu':
        low, high = CPU_SHARES
        print(f'small models reach {low:.0%} of that: {in_time(flops / (low * rate))}; '
              f'large ones {high:.0%}: {in_time(flops / (high * rate))}')
    else:
        print(f'at {devices.USUAL_MFU:.0%} of that, {in_time(flops / (devices.USUAL_MFU * rate))}')


def can_share():
    """Whether so many processes can share the micro-batches."""
    return gpus > 1 and gradient_accumulation_steps % gpus == 0


def print_shared():
    """The memory of each of several GPUs."""
    if not can_share():
        return
    kind, number = places[-1]
    each = sum(sizes.training_memory(c, batch_size, kind, number, optimizer).values())
    sharded = sum(sizes.training_memory(c, batch_size, kind, number, optimizer, gpus).values())
    state = sizes.optimizer_bytes(c, optimizer, gpus)
    print(f'{gpus} GPUs, {gradient_accumulation_steps // gpus} micro-batches each: {in_bytes(each)} on each; '
          f'with --shard_optimizer\n{in_bytes(sharded)} on the fullest, of which the optimizer has {in_bytes(state)}')


def in_time(seconds):
    """Seconds in words."""
    for unit, length in (('years', 365 * 86400), ('days', 86400), ('hours', 3600), ('minutes', 60)):
        if seconds >= 2 * length:
            return f'{seconds / length:,.{0 if seconds >= 10 * length else 1}f} {unit}'
    return f'{seconds:.{0 if seconds >= 10 else 1}f} seconds'


print(f'model: {c.n_layer} layers, {c.n_head} heads, {c.n_embd} channels, windows of {c.block_size}, '
      f'vocabulary {c.vocab_size}\n')
print_parameters()
print_memory()
print_fits()
print_shared()
print_times(print_run())
