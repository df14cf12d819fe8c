"""
Measure a scaling law: train models of several sizes on several amounts of text,
a run for each, and keep one row of each in a CSV. A run that has a row is done.

    python tools/scaling.py               # all runs of assets/scaling.csv that it lacks
    python tools/scaling.py --max_runs=1  # one of them
    python tools/scaling.py --rows=mine.csv --dataset=autor_char   # of your text
    python assets/draw_scaling.py         # the law, and its picture

Each amount of text is a run of its own, whose learning rate falls to 0 at its end: the losses on the way of a longer
run are no losses of shorter ones (https://arxiv.org/abs/2203.15556, section 3). The size of a model is counted as
train.py prints it: all parameters but the position embeddings, which are only looked up. The token embeddings count:
they are the output layer, too, and multiply as the others do; in a model this small they are up to a sixth of it.
"""
# ruff: noqa: F821   what the configurator sets, a linter cannot see

import os
import sys

_root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))   # the repository
sys.path.insert(0, _root)
import support.interrupt   # noqa: F401   first: from here on Ctrl-C ends the script without a traceback

import math
import platform
import subprocess
import tempfile
import time

import numpy as np
import torch

from model import GPT, GPTConfig
from support import evaluate, scaling
from support.checkpoints import load_checkpoint
from support.dataset import find_dataset
from support.errors import catch_crashes, fail
from support.settings import check_at_least, check_numbers
from support.tokenizer import load_tokenizer

catch_crashes()

# -----------------------------------------------------------------------------
# settings
rows = os.path.join(_root, 'assets', 'scaling.csv')   # the CSV: one row for each finished run
sizes = '2x1x32 2x2x48 2x2x64 3x2x72 3x3x96 3x4x128 4x5x160 4x6x192'   # layers x heads x channels: 29 k to 1.8 M
tokens = '0.5e6 1e6 2e6 4e6'   # characters to read, each number in a run of its own
max_flops = 8.6e12             # runs that would take more operations are left out
max_runs = 0                   # stop after so many runs; 0: do them all
rate_factor = 1.0              # times both learning rates; another than 1 makes a pilot, which the fit leaves out
is_check = False               # True: the law says first what these runs will reach; the fit leaves them out
recipe = 'config/train_eca_char_laptop.py'   # all other settings
dataset = 'ecadequeiuroz_char'               # the folder in data/ whose prepare.py has been run
processor = platform.machine()               # its name, for the CSV
exec(open(os.path.join(_root, 'configurator.py'), encoding='utf-8').read())
check_at_least(0, globals(), 'max_flops', 'max_runs', 'rate_factor')
check_numbers(globals())
# -----------------------------------------------------------------------------

BATCH_SIZE = 16    # as in the recipe
BLOCK_SIZE = 128


def parse_sizes(text):
    """'2x1x32 3x3x96' as [(2, 1, 32), (3, 3, 96)]: layers, heads, channels. Exits if it is something else."""
    try:
        shapes = [tuple(int(number) for number in size.split('x')) for size in text.split()]
    except ValueError:
        shapes = []
    if not shapes or any(len(shape) != 3 for shape in shapes):
        fail(f"sizes = {text} is invalid: it must be layers x heads x channels, as in --sizes='2x1x32 3x3x96'")
    return shapes


def parse_tokens(text):
    """'0.5e6 1e6' as [500000, 1000000]. Exits if it is something else."""
    try:
        counts = [int(float(number)) for number in text.split()]
    except (ValueError, OverflowError):
        counts = []
    if not counts or min(counts) < BATCH_SIZE * BLOCK_SIZE:
        fail(f"tokens = {text} is invalid: it must be numbers of at least {BATCH_SIZE * BLOCK_SIZE}, as in "
             "--tokens='0.5e6 1e6'")
    return counts


def pick_rates(n_embd):
    """(learning_rate, muon_lr) for a model of so many channels. Small matrices bear large steps: twice the recipe's at
    its 96 channels, where a run is as short as these, and in inverse proportion to the width elsewhere."""
    factor = rate_factor * 2 * 96 / n_embd
    return float(f'{6e-3 * factor:.3g}'), float(f'{1e-2 * factor:.3g}')


def plan():
    """The runs, cheap ones first: rows without their results."""
    runs = []
    for n_layer, n_head, n_embd in parse_sizes(sizes):
        try:
            config = GPTConfig(n_layer=n_layer, n_head=n_head, n_embd=n_embd, block_size=BLOCK_SIZE,
                               vocab_size=vocab_size, bias=False)
        except ValueError as e:   # a shape that cannot be built
            fail(e)
        with torch.device('meta'):   # shapes without numbers
            model = GPT(config)
        learning_rate, muon_lr = pick_rates(n_embd)
        for count in parse_tokens(tokens):
            iters = round(count / (BATCH_SIZE * BLOCK_SIZE))
            n_read = iters * BATCH_SIZE * BLOCK_SIZE
            flops = model.flops_per_token() * n_read
            if flops <= max_flops:
                runs.append(dict(role=role, n_layer=n_layer, n_head=n_head, n_embd=n_embd,
                                 params=model.get_num_params(), tokens=n_read, flops=flops,
                                 learning_rate=learning_rate, muon_lr=muon_lr))
    return sorted(runs, key=lambda run: run['flops'])


def train(run, out_dir):
    """Train the model of a run in a process of its own, and leave it in out_dir. Exits if that fails."""
    iters = run['tokens'] // (BATCH_SIZE * BLOCK_SIZE)
    shape = [f'--{name}={run[name]}' for name in ('n_layer', 'n_head', 'n_embd', 'learning_rate', 'muon_lr')]
    command = [sys.executable, os.path.join(_root, 'train.py'), os.path.join(_root, recipe), *shape,
               f'--dataset={dataset}', f'--batch_size={BATCH_SIZE}', f'--block_size={BLOCK_SIZE}',
               f'--max_iters={iters}', f'--lr_decay_iters={iters}', f'--out_dir={out_dir}', '--device=cpu',
               '--eval_iters=1', f'--eval_interval={iters}', '--always_save_checkpoint=True', '--patience=0',
               '--sample_chars=0', '--log_interval=1000']
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, encoding='utf-8')
    if done.returncode != 0:
        fail(f'train.py failed: {done.stderr.strip().splitlines()[-1]}')


@torch.no_grad()
def measure_loss(model):
    """The loss on all of val.bin, in nats per token: what train.py says with eval_iters = 0."""
    model.eval()
    loss_sum = 0.0
    n_tokens = 0
    for x, y in evaluate.sweep(os.path.join(data_dir, 'val.bin'), BATCH_SIZE, BLOCK_SIZE):
        _, loss = model(torch.from_numpy(x), torch.from_numpy(y))
        n = int((y >= 0).sum())
        loss_sum += loss.item() * n
        n_tokens += n
    return loss_sum / n_tokens


role = 'fit'
if rate_factor != 1:
    role = 'pilot'
if is_check:
    role = 'check'
data_dir = find_dataset(dataset, BLOCK_SIZE)
_, vocab_size = load_tokenizer(data_dir)
finished = scaling.read_rows(rows)
done = {scaling.key_of(row) for row in finished}
todo = [run for run in plan() if scaling.key_of(run) not in done]
if max_runs > 0:
    todo = todo[:max_runs]
if is_check:   # said before the run
    fitted = [row for row in finished if row['role'] == 'fit']
    N, D, L = (np.array([row[name] for row in fitted], float) for name in ('params', 'tokens', 'val_loss'))
    law = scaling.fit(N, D, L)
for run in todo:
    run['predicted'] = math.nan
    if is_check:
        run['predicted'] = float(law.loss(run['params'], run['tokens']))
        print(f"predicted: {run['predicted']:.4f} with {run['params']:,} parameters and {run['tokens']:,} tokens")
print(f'{len(done)} runs in {rows}, {len(todo)} to do, {sum(run["flops"] for run in todo) / 1e12:.1f} TFLOP')
for run in todo:
    name = f"{run['n_layer']} layers x {run['n_embd']} channels, {run['tokens']:,} tokens"
    with tempfile.TemporaryDirectory() as out_dir:
        before = os.times()
        train(run, out_dir)
        after = os.times()
        model, checkpoint = load_checkpoint(os.path.join(out_dir, 'ckpt.pt'))
    # the processor's seconds, which other programs at work beside it hardly change; Windows does not count them
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    start = time.perf_counter()
    run['val_loss'] = round(measure_loss(model), 5)
    run['train_s'] = round(checkpoint['elapsed_s'], 1)
    run['cpu_s'] = round(cpu_s, 1)
    run['processor'] = processor
    scaling.add_row(rows, run)
    print(f"{name}: val loss {run['val_loss']:.4f} in {run['train_s']:.0f} s, "
          f'and {time.perf_counter() - start:.0f} s to measure it')
