"""
Time train.py's and sample.py's work beside what this machine could do.
Every setting of train.py can be given here too.

    python bench.py                         # the model of train_eca_char.py
    python bench.py config/train_eca_char_laptop.py --dropout=0.2
    python bench.py --nanogpt=../nanoGPT    # beside a checkout of nanoGPT
    python bench.py --profile               # also a trace for ui.perfetto.dev

The data are random. Each program has a process of its own, so that neither inherits the other's memory, and they take
turns; a figure is the median of several, after a warm-up. Close everything else first: two programs at work on two
cores ruin each other.

A training step is one micro-batch, clipping and an optimizer step, whatever gradient_accumulation_steps says. The
limits: for training, the rate of a large matrix product; for sampling, the rate of a large copy, since each step reads
every weight once for all texts (a model that fits in the processor's cache can beat that), or, with many texts, the
product's.
"""
# ruff: noqa: F821   the names from train.py are exec'd, which a linter cannot see

import importlib.util
import json
import math
import os
import statistics
import subprocess
import sys
import time

import torch

from model import GPT, GPTConfig, PackedLinear
from runtime import autocast, check_at_least, explain_crash, fail, or_fail, pick_compile, pick_device, pick_dtype
from tokenizer import load_meta

sys.excepthook = explain_crash

# -----------------------------------------------------------------------------
# settings: those of train.py, so that its config files will do, and these
_here = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(_here, 'train.py'), encoding='utf-8') as f:
    exec(f.read().split(f'# {"-" * 77}\n')[1])
nanogpt = ''            # the folder of a nanoGPT checkout to measure beside this code
rounds = 2              # turns for each program
repeats = 3             # measurements of each thing in a turn
num_samples = 10        # texts drawn at once
max_new_tokens = 500    # tokens in each
profile = False         # True: write out_dir/trace.json, with three training steps
measure = ''            # 'ours' or 'nanogpt': measure that one and print JSON; set by this script itself
if not any(arg.endswith('.py') or arg in ('--help', '-h') for arg in sys.argv[1:]):
    sys.argv.insert(1, os.path.join(_here, 'config', 'train_eca_char.py'))
exec(open(os.path.join(_here, 'configurator.py'), encoding='utf-8').read())
# -----------------------------------------------------------------------------

check_at_least(1, globals(), 'batch_size', 'block_size', 'rounds', 'repeats', 'num_samples', 'max_new_tokens')
if learning_rate <= 0 or muon_lr <= 0 or not 0 <= muon_momentum < 1:
    fail(f'learning_rate = {learning_rate} and muon_lr = {muon_lr} must be above 0, muon_momentum = {muon_momentum} at '
         'least 0 and below 1')
device = pick_device(device)
kind = torch.device(device).type
if kind == 'cuda':
    torch.cuda.set_device(torch.device(device).index or 0)
synchronize = getattr(torch, kind).synchronize   # waits until the device has done what it was given
sampling_dtype = pick_dtype(dtype, device, is_training=False)
dtype = pick_dtype(dtype, device)
compile, compile_reason = pick_compile(compile, device)
meta = load_meta(os.path.join(_here, 'data', dataset, 'meta.pkl'))
vocab_size = 50304   # GPT-2's, padded
if meta or dataset.endswith('_char'):
    vocab_size = meta['vocab_size'] if meta else 145   # as many characters as Eça has
shape = dict(n_layer=n_layer, n_head=n_head, n_embd=n_embd, block_size=block_size, vocab_size=vocab_size, bias=bias)
or_fail(GPTConfig, **shape, dropout=dropout)
if optimizer not in ('adamw', 'muon'):
    fail(f"optimizer = {optimizer} is not known; use 'adamw' or 'muon'")


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


def peak_memory():
    """The most memory this process has held, in bytes: of the device, or on CPU of the whole process. 0: unknown."""
    if kind == 'cuda':
        return torch.cuda.max_memory_allocated()
    if kind == 'mps':
        return torch.mps.driver_allocated_memory()   # what is held now: it counts no peaks
    try:
        import resource   # not on Windows
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024)
    except ImportError:
        return 0


if not measure:
    # the parent: give each program its turns, then print the table
    if nanogpt and not os.path.exists(os.path.join(nanogpt, 'model.py')):
        fail(f'nanogpt = {nanogpt} is not a checkout of nanoGPT: there is no model.py in it')
    print(f'device: {device}, dtype: {dtype}, {sampling_dtype} for sampling\n'
          f'compile: {compile} ({compile_reason}), optimizer: {optimizer}, dropout: {dropout}\n'
          f'model: {n_layer} layers, {n_head} heads, {n_embd} channels, vocabulary {vocab_size}')
    results = {'ours': [], 'nanogpt': []}
    for turn in range(rounds):
        for who in ('ours', 'nanogpt') if nanogpt else ('ours',):
            print(f'turn {turn + 1} of {rounds}: {who}', file=sys.stderr)
            no_trace = ['--profile=False'] if turn or who == 'nanogpt' else []
            done = subprocess.run([sys.executable, __file__, *sys.argv[1:], *no_trace, f'--measure={who}'],
                                  stdout=subprocess.PIPE, text=True)
            if done.returncode < 0:
                fail(f'signal {-done.returncode} ended it; if memory ran out, try a smaller batch_size')
            if done.returncode:
                raise SystemExit(done.returncode)   # it has said why
            results[who].append(json.loads(done.stdout.splitlines()[-1]))

    def median(who, key):
        """The median over all turns, in the unit that key names; None where it was not measured."""
        return statistics.median(sum((result[key] for result in results[who]), [])) if results[who] else None

    def row(name, key, form, limit=0.0):
        """A line of the table. form(value) -> text; limit is what the machine could do, in the same unit."""
        ours, theirs = median('ours', key), median('nanogpt', key)
        is_rate = key.endswith('per_s')   # more is better
        print(f'{name:38}{form(ours):>12}'
              + (f'{(ours / limit if is_rate else limit / ours):>9.0%}' if limit else ' ' * 9)
              + (f'{form(theirs):>12}{(ours / theirs if is_rate else theirs / ours):>8.2f}x' if theirs else ''))

    def ms(seconds):
        return f'{1000 * seconds:,.1f} ms'

    def rate(tokens_per_s):
        return f'{tokens_per_s:,.0f} tok/s'

    matmul, copy = (max(result[key][0] for result in results['ours']) for key in ('matmul_flops', 'copy_bytes_per_s'))
    tokens = batch_size * block_size
    flops_per_token, weight_bytes = (results['ours'][0][key][0] for key in ('flops_per_token', 'weight_bytes'))
    print(f'limits: {matmul / 1e12:.3g} TFLOP/s in a large {dtype} product, {copy / 1e9:.1f} GB/s in a large copy\n')
    print(f'{"":38}{"this code":>12}{"of limit":>9}' + (f'{"nanoGPT":>12}{"ratio":>9}' if nanogpt else ''))
    row(f'training step, {batch_size} x {block_size} tokens', 'step_s', ms, flops_per_token * tokens / matmul)
    row('  forward', 'forward_s', ms)
    row('  backward', 'backward_s', ms)
    row('  clip and step', 'optimizer_s', ms)
    row('training', 'tokens_per_s', rate, matmul / flops_per_token)
    row('peak memory, training', 'memory', lambda n: f'{n / 1e6:,.0f} MB' if n else 'n/a')
    one, many = (min(n * copy / weight_bytes, 3 * matmul / flops_per_token) for n in (1, num_samples))   # tokens/s
    row('sampling, 1 text, within the window', 'one_within_per_s', rate, one)
    row('sampling, 1 text, past it', 'one_past_per_s', rate, one)
    row(f'sampling, {num_samples} texts, within the window', 'many_within_per_s', rate, many)
    row(f'sampling, {num_samples} texts, past it', 'many_past_per_s', rate, many)
    row(f'{num_samples} texts of {max_new_tokens} tokens', 'sample_s', ms)
    raise SystemExit

# the child: measure one program
torch.manual_seed(seed)
if kind == 'cuda':
    torch.set_float32_matmul_precision('high')
is_ours = measure == 'ours'
if not is_ours:
    spec = importlib.util.spec_from_file_location('nanogpt_model', os.path.join(nanogpt, 'model.py'))
    nanogpt_model = importlib.util.module_from_spec(spec)
    sys.modules['nanogpt_model'] = nanogpt_model
    spec.loader.exec_module(nanogpt_model)
    GPT, GPTConfig = nanogpt_model.GPT, nanogpt_model.GPTConfig
    dtype = sampling_dtype = dtype if kind == 'cuda' else 'float32'   # elsewhere its scripts know no other
stdout = sys.stdout
sys.stdout = sys.stderr if is_ours else open(os.devnull, 'w', encoding='utf-8')   # nanoGPT prints as it builds
result = {}

# training, as train.py does it
model = GPT(GPTConfig(**shape, dropout=dropout)).to(device)
if is_ours:
    result['flops_per_token'] = [model.flops_per_token()]
    optimizers = model.configure_optimizers(
        weight_decay, learning_rate, (beta1, beta2), optimizer, muon_lr, muon_momentum,
        ns_dtype='bfloat16' if dtype == 'bfloat16' else 'float32', is_compiled=compile)
    piece_size = model.pick_piece_size(batch_size)
else:
    optimizers = [model.configure_optimizers(weight_decay, learning_rate, (beta1, beta2), kind)]
    piece_size = batch_size
run = model
if compile:
    run = torch.compile(model, dynamic=False if is_ours else None)
scaler = torch.amp.GradScaler(kind, enabled=dtype == 'float16')
windows = torch.randint(vocab_size, (batch_size, block_size + 1), device=device)
X, Y = windows[:, :-1].contiguous(), windows[:, 1:].contiguous()
parts = {'forward_s': 0.0, 'backward_s': 0.0, 'optimizer_s': 0.0}


def training_step(wait=lambda: None):
    """One iteration with a micro-batch. With wait=synchronize its parts can be timed apart, at some cost on a GPU."""
    clock = time.perf_counter
    parts.update(forward_s=0.0, backward_s=0.0)
    for i in range(0, batch_size, piece_size):
        x, y = X[i:i + piece_size], Y[i:i + piece_size]
        start = clock()
        with autocast(device, dtype):
            loss = run(x, y)[1] * (len(x) / batch_size)
        wait()
        middle = clock()
        scaler.scale(loss).backward()
        wait()
        parts['forward_s'] += middle - start
        parts['backward_s'] += clock() - middle
    start = clock()
    for opt in optimizers:
        scaler.unscale_(opt)
    torch.nn.utils.clip_grad_norm_(model.parameters(), grad_clip if grad_clip > 0 else math.inf)
    for opt in optimizers:
        scaler.step(opt)
    scaler.update()
    for opt in optimizers:
        opt.zero_grad(set_to_none=True)
    wait()
    parts['optimizer_s'] = clock() - start


result['step_s'] = timed(training_step, calls=1 if kind == 'cpu' else 10)   # as in training, the host runs ahead
for _ in range(repeats):
    training_step(synchronize)
    for name, seconds in parts.items():
        result.setdefault(name, []).append(seconds)
result['tokens_per_s'] = [batch_size * block_size / s for s in result['step_s']]
result['memory'] = [peak_memory()]
if profile:
    with torch.profiler.profile(record_shapes=True) as trace:
        for _ in range(3):
            training_step()
    os.makedirs(out_dir, exist_ok=True)
    trace.export_chrome_trace(os.path.join(out_dir, 'trace.json'))
    print(f'trace: {os.path.join(out_dir, "trace.json")}')

# sampling, as sample.py does it
del optimizers, run, model
model = GPT(GPTConfig(**shape, dropout=0.0)).to(device).eval()
result['weight_bytes'] = [sum(p.numel() for p in model.parameters()) * (4 if sampling_dtype == 'float32' else 2)]
if is_ours:
    torch.backends.cuda.enable_cudnn_sdp(False)
if is_ours and kind == 'cpu' and sampling_dtype == 'float16' and PackedLinear.is_available():
    model.pack_weights()
    sampling_dtype = 'float32'


def sample(prompt_length, new_tokens, n):
    """Write n texts: ours as one batch, nanoGPT's one after the other, as its sample.py does."""
    prompt = torch.zeros(1, prompt_length, dtype=torch.long, device=device)
    with autocast(device, sampling_dtype):
        if is_ours:
            model.generate(prompt, new_tokens, 0.8, 200, num_samples=n)
        else:
            for _ in range(n):
                model.generate(prompt, new_tokens, temperature=0.8, top_k=200)


within = block_size - 1
past = block_size if is_ours else 16   # nanoGPT's tokens past the window all cost the same
result['one_within_per_s'] = [within / s for s in timed(lambda: sample(1, within, 1))]
result['one_past_per_s'] = [past / s for s in timed(lambda: sample(block_size, past, 1))]
if is_ours:
    result['many_within_per_s'] = [num_samples * within / s for s in timed(lambda: sample(1, within, num_samples))]
    result['many_past_per_s'] = [num_samples * past / s for s in timed(lambda: sample(block_size, past, num_samples))]
    result['sample_s'] = timed(lambda: sample(1, max_new_tokens, num_samples))
else:   # one after the other: the rate of one is the rate of all
    result['many_within_per_s'], result['many_past_per_s'] = result['one_within_per_s'], result['one_past_per_s']
    result['sample_s'] = [num_samples * s for s in timed(lambda: sample(1, max_new_tokens, 1), 1)]

# the machine's own limits, for the fractions in the table
if is_ours:
    n = 2048 if kind == 'cpu' else 8192
    a, b = (torch.randn(n, n, device=device, dtype=getattr(torch, dtype)) for _ in range(2))
    result['matmul_flops'] = [2 * n**3 / min(timed(lambda: a @ b, 10))]
    source = torch.ones(2**26, device=device)
    target = torch.empty_like(source)
    result['copy_bytes_per_s'] = [2 * source.nbytes / min(timed(lambda: target.copy_(source), 10, 10))]   # read, write
print(json.dumps(result), file=stdout)
