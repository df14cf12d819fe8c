"""
Time train.py's and sample.py's work beside what this machine could do.
Every setting of train.py can be given here too.

    python tools/bench.py               # the model of train_eca_char.py
    python tools/bench.py config/train_eca_char_laptop.py --dropout=0.2
    python tools/bench.py --nanogpt=../nanoGPT    # beside a checkout of nanoGPT
    python tools/bench.py --profile     # also a trace for ui.perfetto.dev

The data are random. Each program has a process of its own, so that neither inherits the other's memory, and they take
turns; a figure is the median of several, after a warm-up. Close everything else first: two programs at work on two
cores ruin each other.

A training step is one micro-batch, clipping and an optimizer step, whatever gradient_accumulation_steps says. The
limits: for training, the rate of a large matmul; for sampling, the rate of a large copy, since each step reads every
weight once for all samples (a model that fits in the processor's cache can beat that), or, with many samples, the
matmul's.
"""
# ruff: noqa: F821   the names from train.py are exec'd, which a linter cannot see

import os
import sys

_root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))   # the repository
sys.path.insert(0, _root)
import support.interrupt   # noqa: F401   first: from here on Ctrl-C ends the script without a traceback

import importlib.util
import io
import json
import math
import statistics
import subprocess
import time
from contextlib import redirect_stdout

import torch

from model import GPT, GPTConfig
from support import devices
from support.errors import catch_crashes, fail
from support.settings import check_at_least, check_settings
from support.tokenizer import load_meta

catch_crashes()

# -----------------------------------------------------------------------------
# settings: those of train.py, so that its config files can be used, and these
with open(os.path.join(_root, 'train.py'), encoding='utf-8') as f:
    exec(f.read().split(f'# {"-" * 77}\n')[1])
nanogpt = ''            # the folder of a nanoGPT checkout to measure beside this code
rounds = 2              # turns for each program
repeats = 3             # measurements of each thing in a turn
num_samples = 10        # samples drawn together
max_new_tokens = 500    # tokens in each
profile = False         # True: write out_dir/trace.json, with three training steps
measure = ''            # 'ours' or 'nanogpt': measure that one and print JSON; set by this script itself
if not any(arg.endswith('.py') or arg in ('--help', '-h') for arg in sys.argv[1:]):
    sys.argv.insert(1, os.path.join(_root, 'config', 'train_eca_char.py'))
exec(open(os.path.join(_root, 'configurator.py'), encoding='utf-8').read())
check_at_least(1, globals(), 'rounds', 'repeats', 'num_samples', 'max_new_tokens')
check_settings(globals())
# -----------------------------------------------------------------------------

# device: the settings 'auto' become what is best on this machine
device = devices.pick_device(device)
device_type = torch.device(device).type
devices.speed_up(device)
synchronize = getattr(torch, device_type).synchronize   # waits until the device has done what it was given
compile, compile_reason = devices.pick_compile(compile, device)

# the model's shape; the vocabulary is that of the data, if they are prepared
meta = load_meta(os.path.join(_root, 'data', dataset, 'meta.pkl'))
if meta is not None:
    vocab_size = meta['vocab_size']
elif dataset.endswith('_char'):
    vocab_size = 145   # as many characters as Eça has
else:
    vocab_size = 50304   # GPT-2's, padded
shape = dict(n_layer=n_layer, n_head=n_head, n_embd=n_embd, block_size=block_size, vocab_size=vocab_size, bias=bias)
try:
    model = GPT(GPTConfig(**shape, dropout=dropout))
except ValueError as e:   # a shape that cannot be built
    fail(e)
sampling_dtype = devices.pick_sampling_dtype(dtype, device, model)
dtype = devices.pick_dtype(dtype, device)
model = None   # its memory is free again


# -----------------------------------------------------------------------------
# the clock

def timed(f, n=repeats, calls=1):
    """n measurements of the seconds that f takes, after a warm-up; each is the mean of so many calls in a row."""
    f()   # compiles, if at all
    seconds = []
    for _ in range(n):
        synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            f()
        synchronize()
        seconds.append((time.perf_counter() - start) / calls)
    return seconds


def timed_once(f, *args):
    """(the seconds that f(*args) takes, what it returns). The device must have nothing left to do before."""
    start = time.perf_counter()
    result = f(*args)
    synchronize()
    return time.perf_counter() - start, result


def peak_memory():
    """The most memory this process has held, in bytes: of the device, or on CPU of the whole process. 0: unknown."""
    if device_type == 'cuda':
        return torch.cuda.max_memory_allocated()
    if device_type == 'mps':
        return torch.mps.driver_allocated_memory()   # what is held now: it counts no peaks
    try:
        import resource
    except ImportError:   # Windows
        return 0
    unit = 1 if sys.platform == 'darwin' else 1024   # bytes on a Mac, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


# -----------------------------------------------------------------------------
# training, as train.py does it

class Training:
    """What an iteration of a training needs, and its three parts.

    model: on the device; run: the model or, compiled, what stands for it; piece_size: how many sequences go through the
    model at once.
    """

    def __init__(self, model, run, optimizers, piece_size, dtype):
        self.model = model
        self.run = run
        self.optimizers = optimizers
        self.amp = devices.autocast(device, dtype)
        self.scaler = torch.amp.GradScaler(device_type, enabled=dtype == 'float16')
        windows = torch.randint(vocab_size, (batch_size, block_size + 1), device=device)
        X = windows[:, :-1].contiguous()
        Y = windows[:, 1:].contiguous()
        self.pieces = list(zip(X.split(piece_size), Y.split(piece_size)))

    def forward(self, x, y):
        """A piece's share of the loss."""
        with self.amp:
            _, loss = self.run(x, y)
            return loss * (len(x) / batch_size)

    def backward(self, loss):
        self.scaler.scale(loss).backward()

    def clip_and_step(self):
        for opt in self.optimizers:
            self.scaler.unscale_(opt)
        max_norm = grad_clip if grad_clip > 0 else math.inf
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), max_norm)
        for opt in self.optimizers:
            self.scaler.step(opt)
        self.scaler.update()
        for opt in self.optimizers:
            opt.zero_grad(set_to_none=True)

    def step(self):
        """An iteration with one micro-batch."""
        for x, y in self.pieces:
            loss = self.forward(x, y)
            self.backward(loss)
        self.clip_and_step()

    def timed_step(self):
        """The seconds of each part of an iteration. To wait for the device after each costs some time on a GPU."""
        forward_s = 0.0
        backward_s = 0.0
        synchronize()
        for x, y in self.pieces:
            seconds, loss = timed_once(self.forward, x, y)
            forward_s += seconds
            seconds, _ = timed_once(self.backward, loss)
            backward_s += seconds
        optimizer_s, _ = timed_once(self.clip_and_step)
        return {'forward_s': forward_s, 'backward_s': backward_s, 'optimizer_s': optimizer_s}


def measure_training(training):
    """{name of a figure: measurements}, in the unit that the name ends with."""
    step_s = timed(training.step, calls=1 if device_type == 'cpu' else 10)   # as in training, the host runs ahead
    parts = [training.timed_step() for _ in range(repeats)]
    return {
        'step_s': step_s,
        'forward_s': [part['forward_s'] for part in parts],
        'backward_s': [part['backward_s'] for part in parts],
        'optimizer_s': [part['optimizer_s'] for part in parts],
        'tokens_per_s': [batch_size * block_size / s for s in step_s],
        'memory': [peak_memory()],
    }


def write_trace(training):
    """Write out_dir/trace.json, with three training steps."""
    with torch.profiler.profile(record_shapes=True) as trace:
        for _ in range(3):
            training.step()
    os.makedirs(out_dir, exist_ok=True)
    path = os.path.join(out_dir, 'trace.json')
    trace.export_chrome_trace(path)
    print(f'trace: {path}', file=sys.stderr)


# -----------------------------------------------------------------------------
# this code

def measure_our_training():
    model = GPT(GPTConfig(**shape, dropout=dropout)).to(device)
    muon = None
    if optimizer == 'muon':
        ns_dtype = 'bfloat16' if dtype == 'bfloat16' else 'float32'   # of the Newton-Schulz iteration
        muon = dict(lr=muon_lr, momentum=muon_momentum, ns_dtype=ns_dtype)
    optimizers = model.configure_optimizers(weight_decay, learning_rate, (beta1, beta2), device_type, muon)
    run = torch.compile(model, dynamic=False) if compile else model
    piece_size = devices.pick_piece_size(device, block_size, batch_size)
    training = Training(model, run, optimizers, piece_size, dtype)
    figures = measure_training(training)
    figures['flops_per_token'] = [model.flops_per_token()]
    if profile:
        write_trace(training)
    return figures


def measure_our_sampling():
    """Within the window a token costs a pass of one position; past it the window is also filled anew now and then."""
    model = GPT(GPTConfig(**shape, dropout=0.0))
    bytes_per_weight = 4 if sampling_dtype == 'float32' else 2
    weight_bytes = bytes_per_weight * sum(p.numel() for p in model.parameters())
    amp = devices.prepare_sampling(model, device, sampling_dtype)

    def write(prompt_length, n_tokens, n):
        """Write n samples of n_tokens, as one batch."""
        prompt = torch.zeros(1, prompt_length, dtype=torch.long, device=device)
        with amp, devices.no_cudnn_attention():
            model.generate(prompt, n_tokens, temperature=0.8, top_k=200, num_samples=n)

    def rates(prompt_length, n_tokens, n):
        """Measurements of the tokens per second, over all samples."""
        return [n * n_tokens / s for s in timed(lambda: write(prompt_length, n_tokens, n))]

    return {
        'weight_bytes': [weight_bytes],
        'one_within_per_s': rates(1, block_size - 1, 1),
        'one_past_per_s': rates(block_size, block_size, 1),
        'many_within_per_s': rates(1, block_size - 1, num_samples),
        'many_past_per_s': rates(block_size, block_size, num_samples),
        'sample_s': timed(lambda: write(1, max_new_tokens, num_samples)),
    }


# -----------------------------------------------------------------------------
# nanoGPT

def nanogpt_dtype(dtype):
    """The dtype in which nanoGPT computes here: on anything but CUDA its scripts know float32 alone."""
    return dtype if device_type == 'cuda' else 'float32'


def load_nanogpt():
    """nanoGPT's module model."""
    spec = importlib.util.spec_from_file_location('nanogpt_model', os.path.join(nanogpt, 'model.py'))
    module = importlib.util.module_from_spec(spec)
    sys.modules['nanogpt_model'] = module   # its dataclass looks there
    spec.loader.exec_module(module)
    return module


def measure_nanogpt_training(module):
    model = module.GPT(module.GPTConfig(**shape, dropout=dropout)).to(device)
    opt = model.configure_optimizers(weight_decay, learning_rate, (beta1, beta2), device_type)
    run = torch.compile(model) if compile else model
    return measure_training(Training(model, run, [opt], batch_size, nanogpt_dtype(dtype)))


def measure_nanogpt_sampling(module):
    """It writes samples one after the other, so the rate of one is the rate of all."""
    model = module.GPT(module.GPTConfig(**shape, dropout=0.0)).to(device).eval()
    amp = devices.autocast(device, nanogpt_dtype(sampling_dtype))

    def write(prompt_length, n_tokens):
        """Write a sample of n_tokens."""
        prompt = torch.zeros(1, prompt_length, dtype=torch.long, device=device)
        with amp:
            model.generate(prompt, n_tokens, temperature=0.8, top_k=200)

    def rates(prompt_length, n_tokens):
        """Measurements of the tokens per second."""
        return [n_tokens / s for s in timed(lambda: write(prompt_length, n_tokens))]

    within_per_s = rates(1, block_size - 1)
    past_per_s = rates(block_size, 16)   # its tokens past the window all cost the same
    seconds = timed(lambda: write(1, max_new_tokens), n=1)
    return {
        'one_within_per_s': within_per_s,
        'one_past_per_s': past_per_s,
        'many_within_per_s': within_per_s,
        'many_past_per_s': past_per_s,
        'sample_s': [num_samples * s for s in seconds],
    }


# -----------------------------------------------------------------------------
# the machine's own limits, for the fractions in the table

def measure_limits():
    source = torch.ones(2**26, device=device)
    target = torch.empty_like(source)
    copy_s = min(timed(lambda: target.copy_(source), n=10, calls=10))
    return {
        'matmul_flops': [devices.matmul_flops(device, dtype)],
        'copy_bytes_per_s': [2 * source.nbytes / copy_s],   # read and written
    }


# -----------------------------------------------------------------------------
# turns and table

def run_turns():
    """{program: its figures, a dict for each turn}. A turn is a process of this script with --measure=PROGRAM."""
    programs = ['ours', 'nanogpt'] if nanogpt else ['ours']
    results = {program: [] for program in programs}
    for turn in range(rounds):
        for program in programs:
            print(f'turn {turn + 1} of {rounds}: {program}', file=sys.stderr)
            command = [sys.executable, __file__, *sys.argv[1:], f'--measure={program}']
            if turn > 0:
                command.append('--profile=False')   # one trace is enough
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            if done.returncode < 0:
                fail(f'signal {-done.returncode} ended it; if memory ran out, try a smaller batch_size')
            if done.returncode > 0:
                raise SystemExit(done.returncode)   # it has said why
            results[program].append(json.loads(done.stdout.splitlines()[-1]))
    return results


def print_table(results):
    """The figures of each program, and the fraction of the limit that this code reaches."""
    # limits: in the unit of the row that they are for
    matmul_flops = max(figures['matmul_flops'][0] for figures in results['ours'])
    copy_bytes_per_s = max(figures['copy_bytes_per_s'][0] for figures in results['ours'])
    flops_per_token = results['ours'][0]['flops_per_token'][0]
    weight_bytes = results['ours'][0]['weight_bytes'][0]
    training_per_s = matmul_flops / flops_per_token
    sampling_per_s = 3 * matmul_flops / flops_per_token   # forward is a third of training
    step_s = batch_size * block_size / training_per_s
    one_per_s = min(copy_bytes_per_s / weight_bytes, sampling_per_s)
    many_per_s = min(num_samples * copy_bytes_per_s / weight_bytes, sampling_per_s)

    def row(name, key, form, limit=None):
        """Print a line of the table. form: value -> text; limit: what the machine could do, in the same unit."""
        print(f'{name:38}{cells(results, key, form, limit)}')

    print(f'limits: {matmul_flops / 1e12:.3g} TFLOP/s in a large {dtype} matmul, '
          f'{copy_bytes_per_s / 1e9:.1f} GB/s in a large copy\n')
    heads = f'{"":38}{"this code":>12}{"of limit":>9}'
    if 'nanogpt' in results:
        heads += f'{"nanoGPT":>12}{"ratio":>9}'
    print(heads)
    row(f'training step, {batch_size} x {block_size} tokens', 'step_s', ms, step_s)
    row('  forward', 'forward_s', ms)
    row('  backward', 'backward_s', ms)
    row('  clip and step', 'optimizer_s', ms)
    row('training', 'tokens_per_s', rate, training_per_s)
    row('peak memory, training', 'memory', megabytes)
    row('writing, 1 sample, within the window', 'one_within_per_s', rate, one_per_s)
    row('writing, 1 sample, past it', 'one_past_per_s', rate, one_per_s)
    row(f'writing, {num_samples} samples, within the window', 'many_within_per_s', rate, many_per_s)
    row(f'writing, {num_samples} samples, past it', 'many_past_per_s', rate, many_per_s)
    row(f'{num_samples} samples of {max_new_tokens} tokens', 'sample_s', ms)


def cells(results, key, form, limit):
    """The cells of a line of the table: this code's figure, its fraction of the limit, nanoGPT's figure, and how many
    times better this code is. What is not known is blank."""
    ours = median(results['ours'], key)
    text = f'{form(ours):>12}'
    text += ' ' * 9 if limit is None else f'{times_better(key, ours, limit):>9.0%}'
    if 'nanogpt' in results:
        theirs = median(results['nanogpt'], key)
        if theirs > 0:
            text += f'{form(theirs):>12}{times_better(key, ours, theirs):>8.2f}x'
    return text


def median(turns, key):
    """The median of a figure's measurements in all turns."""
    measurements = []
    for figures in turns:
        measurements += figures[key]
    return statistics.median(measurements)


def times_better(key, a, b):
    """How many times better a is than b: of a rate more is better, else less."""
    return a / b if key.endswith('per_s') else b / a


def ms(seconds):
    return f'{1000 * seconds:,.1f} ms'


def rate(tokens_per_s):
    return f'{tokens_per_s:,.0f} tok/s'


def megabytes(n):
    return f'{n / 1e6:,.0f} MB' if n else 'n/a'


# -----------------------------------------------------------------------------
# the parent gives each program its turns and prints the table; a child measures one program and prints JSON

if measure == '':
    if nanogpt and not os.path.exists(os.path.join(nanogpt, 'model.py')):
        fail(f'nanogpt = {nanogpt} is not a checkout of nanoGPT: there is no model.py in it')
    print(f'device: {device}, dtype: {dtype}, {sampling_dtype} for sampling\n'
          f'compile: {compile} ({compile_reason}), optimizer: {optimizer}, dropout: {dropout}\n'
          f'model: {n_layer} layers, {n_head} heads, {n_embd} channels, vocabulary {vocab_size}')
    print_table(run_turns())
else:
    torch.manual_seed(seed)
    with redirect_stdout(io.StringIO()):   # nanoGPT prints as it builds
        if measure == 'ours':
            figures = measure_our_training() | measure_our_sampling() | measure_limits()
        else:
            module = load_nanogpt()
            figures = measure_nanogpt_training(module) | measure_nanogpt_sampling(module)
    print(json.dumps(figures))
