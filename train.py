"""
Train a GPT, on one device or on many.

    python train.py config/train_eca_char.py                   # a config file
    python train.py config/train_eca_char.py --batch_size=32   # and a setting
    torchrun --standalone --nproc_per_node=4 train.py config/train_gpt2.py
"""

import support.interrupt   # noqa: F401   first: from here on Ctrl-C ends the script without a traceback

import math
import os
import sys
import time
from dataclasses import asdict

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel as DDP
from tqdm import tqdm

from model import GPT, GPTConfig
from support import checkpoints, devices, evaluate, processes, report, run_folder, signals, sizes
from support.dataset import OpenSplits, check_ids, check_prepared, check_vocabulary, find_dataset, fingerprint
from support.errors import catch_crashes, check_finite, fail
from support.pace import Pace
from support.printable import printable_line
from support.settings import check_settings
from support.tokenizer import cached_decoder, load_tokenizer

catch_crashes()   # memory that runs out, a full disk, Ctrl-C: one line instead of a traceback

# -----------------------------------------------------------------------------
# settings; the defaults are for a GPT-2 (124M) on OpenWebText
# files
out_dir = 'out'                 # checkpoints and log.csv go here
eval_interval = 2000            # iterations between evaluations
log_interval = 1                # iterations between log lines
eval_iters = 200                # random batches per split in an evaluation; 0: all of val.bin, and none of train.bin
eval_only = False               # evaluate once, then stop
sample_chars = 64               # at each evaluation the model writes a line this long; 0: none
always_save_checkpoint = True   # ckpt.pt at every evaluation; False: only when val loss improves
init_from = 'scratch'           # 'resume': go on with out_dir's run; a run's folder, 'gpt2', a Hub id: finetune that
# wandb: logging to Weights & Biases
wandb_log = False               # needs a wandb account, or WANDB_MODE=offline
wandb_project = 'owt'           # the project in Weights & Biases
wandb_run_name = 'gpt2'         # this run's name in the project
# data
dataset = 'openwebtext'         # the folder in data/ whose prepare.py has been run
gradient_accumulation_steps = 5 * 8   # micro-batches per iteration, over all processes; more of them need less memory
batch_size = 12                 # sequences in one micro-batch
block_size = 1024               # tokens in one sequence: the longest context
# model
n_layer = 12                    # blocks
n_head = 12                     # attention heads in each
n_embd = 768                    # channels; a multiple of n_head
dropout = 0.0                   # 0 unless the model sees its data many times; try 0.1 when finetuning
bias = False                    # biases in Linear and LayerNorm; GPT-2 has them, without is a little better and faster
sinusoidal_init = False         # position embeddings start as sinusoids, not as noise: short runs learn sooner
# optimizer
optimizer = 'adamw'             # 'adamw', or 'muon': Muon for the matrices in the blocks, AdamW for the rest
learning_rate = 6e-4            # peak rate of AdamW
muon_lr = 3e-3                  # peak rate of Muon; follows the same schedule
muon_momentum = 0.95            # decay rate of Muon's mean of the gradients; less in short runs
max_iters = 600000              # iterations (optimizer steps) in all
minutes = 0.0                   # above 0: as many iterations as fit into this time, whatever max_iters says
patience = 0                    # stop when val loss has not improved in so many evaluations; 0: go on
weight_decay = 1e-1             # of matrices and embeddings; biases and LayerNorm weights are not decayed
beta1 = 0.9                     # decay rate of AdamW's mean of the gradients
beta2 = 0.95                    # and of their squares; nearer 1 where iterations have few tokens
grad_clip = 1.0                 # clip the gradient's norm to this; 0.0: no clipping
# schedule: of the learning rate, a linear warm-up, then a decay
decay_lr = True                 # False: learning_rate throughout, without warm-up
lr_schedule = 'cosine'          # the decay: 'cosine', or 'linear', which with min_lr = 0 does better in short runs
warmup_iters = 2000             # raise it if the loss spikes early
lr_decay_iters = 600000         # the iteration at which min_lr is reached; usually max_iters
min_lr = 6e-5                   # usually learning_rate / 10
# system
backend = 'auto'                # between processes: 'nccl' on CUDA, 'gloo' elsewhere
shard_optimizer = False         # each process keeps only its part of the optimizer's state; less memory, same result
seed = 1337                     # random seed of the weights, the batches and the dropout
device = 'auto'                 # CUDA, else MPS, else CPU; or 'cpu', 'mps', 'cuda', 'cuda:1'
dtype = 'auto'                  # what is fast on the device; or 'float32', 'bfloat16', 'float16'
compile = 'auto'                # torch.compile: on for CUDA, where the run is long; or True, False
# -----------------------------------------------------------------------------
# configurator.py overrides the settings above from config files and --name=value arguments
config_keys = [k for k, v in globals().items() if not k.startswith('_') and isinstance(v, (int, float, bool, str))]
exec(open(os.path.join(os.path.dirname(__file__), 'configurator.py'), encoding='utf-8').read())
config = {k: globals()[k] for k in config_keys}   # as asked, 'auto' included: goes into checkpoints
# -----------------------------------------------------------------------------

# processes: torchrun starts this script world_size times; each process is one rank and shares in every iteration
processes.check_environment()   # exits if only some of torchrun's variables are set
is_ddp = int(os.environ.get('RANK', -1)) != -1   # torchrun sets RANK; ddp is distributed data parallel
rank = int(os.environ['RANK']) if is_ddp else 0
world_size = int(os.environ.get('WORLD_SIZE', 1)) if is_ddp else 1
is_master = rank == 0   # the one that prints and writes
check_settings(config, world_size)   # exits if one is wrong, or the next division leaves a remainder
micro_steps = gradient_accumulation_steps // world_size   # micro-batches of this rank, per iteration
tokens_per_iter = gradient_accumulation_steps * batch_size * block_size

# device: 'auto' becomes what is best on this machine
device = devices.pick_device(device, is_ddp)   # under torchrun, each rank has a GPU of its own, if there are any
device_type = torch.device(device).type
devices.speed_up(device)   # on CUDA: make it the current device, and do float32 matmuls in TF32
dtype = devices.pick_dtype(dtype, device)
if is_ddp:
    backend = processes.pick_backend(backend, device)
if is_master:
    print(f'device: {device}, dtype: {dtype}')
    print(f'tokens per iteration: {tokens_per_iter:,}')
    if decay_lr and warmup_iters > max_iters > 0 and minutes == 0:
        print(f'warmup_iters = {warmup_iters} is more than max_iters = {max_iters}: the rate stays below its peak')

# data: train.bin and val.bin, each one long sequence of token ids (uint16), and the tokenizer that made them, a dict
data_dir = find_dataset(dataset, block_size)
if is_master:
    check_prepared(data_dir)   # exits if its files are of two preparations
data_files = OpenSplits(data_dir)   # open: a prepare.py that runs during the training does not change what it reads
data_mark = fingerprint(data_dir)   # tells these files from others of the same names
data_tokenizer, data_vocab_size = load_tokenizer(data_dir)


def to_device(ids):
    """Token ids, an array, as a tensor on the device."""
    # checked here, against the model's vocab_size (see below): on a GPU, an id out of range is an opaque assert
    check_ids(ids, vocab_size, data_dir)
    ids = torch.from_numpy(ids.astype(np.int64))
    if device_type == 'cuda':   # pinned memory makes the copy asynchronous
        return ids.pin_memory().to(device, non_blocking=True)
    return ids.to(device)


def get_batch(split, number):
    """Batch `number` of a split: x and y, each (B, T); y has, for each token in x, the one that comes next.
    It depends on nothing but the settings and its number, so a resumed run sees the same data."""
    # mapped anew each time: a memmap that stays keeps every page it has read in this process's memory
    data = np.memmap(data_files[split], dtype=np.uint16, mode='r')
    rng = np.random.default_rng((seed, split == 'val', number))   # a random stream of its own for each split and number
    starts = rng.integers(len(data) - block_size, size=batch_size)
    windows = to_device(data[starts[:, None] + np.arange(block_size + 1)])   # (B, T + 1)
    return windows[:, :-1], windows[:, 1:]


# out_dir is this training's alone, which rank 0 sees to before a run to resume is read; eval_only leaves it alone
if is_master and not eval_only:
    run_folder.claim(out_dir, is_resume=init_from == 'resume')
if is_ddp and init_from == 'resume':
    processes.start(backend)   # the ranks meet, for torch.distributed: none reads before rank 0 has the lock

# model: from scratch, out_dir's run, another run's, or a GPT-2; each with the tokenizer that it was trained with
if init_from == 'scratch':
    torch.manual_seed(seed)
    try:
        model = GPT(GPTConfig(n_layer=n_layer, n_head=n_head, n_embd=n_embd, block_size=block_size, bias=bias,
                              vocab_size=data_vocab_size, dropout=dropout))
    except ValueError as e:   # a shape that cannot be built
        fail(e)
    if sinusoidal_init:
        model.init_positions()
    model_tokenizer = data_tokenizer
elif init_from == 'resume':
    model, checkpoint = checkpoints.load_run(config)   # exits if the settings describe a model of another shape
    model_tokenizer = checkpoint.get('tokenizer', data_tokenizer)   # nanoGPT's checkpoints have none
else:
    model, model_tokenizer = checkpoints.load_pretrained(init_from, dropout, block_size)
vocab_size = model.config.vocab_size
check_vocabulary(data_dir, data_tokenizer, data_vocab_size, model_tokenizer, vocab_size)   # exits if they differ
model.to(device)
if is_ddp and init_from != 'resume':
    processes.start(backend)   # only now: a mistake above ends each rank before another one waits for it

# optimizers: AdamW; or Muon for the matrices in the blocks, and AdamW for the rest
muon = None
if optimizer == 'muon':
    ns_dtype = 'bfloat16' if dtype == 'bfloat16' else 'float32'   # for the matmuls inside Muon
    muon = dict(lr=muon_lr, momentum=muon_momentum, ns_dtype=ns_dtype)
optimizers = model.configure_optimizers(weight_decay, learning_rate, (beta1, beta2), device_type, muon)
if is_ddp and shard_optimizer:
    optimizers = [processes.shard(opt) for opt in optimizers]   # each rank keeps a part of the state
scaler = torch.amp.GradScaler(device_type, enabled=dtype == 'float16')   # where small gradients would underflow

# where the run stands
iter_num = 0            # iterations done
elapsed_s = 0.0         # the seconds that they took, evaluations included
tokens_read = 0         # the tokens that they trained on
best_val_loss = 1e9     # of the model in ckpt.pt
lowest_val_loss = 1e9   # of all evaluations, for `patience`
lowest_iter = 0         # the iteration at which it was found
fitted_iters = 0        # the max_iters that `minutes` has come to; 0: not known yet, or not wanted
wandb_id = ''           # of the run in Weights & Biases; '': it has none
if init_from == 'resume':
    checkpoints.load_optimizers(optimizers, scaler, checkpoint, config)   # the moments of AdamW and Muon
    iter_num = checkpoint['iter_num']
    elapsed_s = checkpoint['elapsed_s']
    tokens_read = checkpoint['tokens_read']
    best_val_loss = checkpoint['best_val_loss']
    lowest_val_loss = checkpoint['lowest_val_loss']
    lowest_iter = checkpoint['lowest_iter']
    wandb_id = checkpoint['wandb_id']
    if checkpoint['config'].get('minutes') == minutes:
        fitted_iters = checkpoint['fitted_iters']
    if checkpoints.is_of_other_data(checkpoint, dataset, data_mark):   # its losses do not compare
        best_val_loss = 1e9
        lowest_val_loss = 1e9
        lowest_iter = iter_num
        tokens_read = 0
        if is_master:
            print(f'{data_dir} is not what this run has read so far: the best val loss and the tokens read begin anew')
    checkpoint = None   # its memory is free again
if minutes > 0:
    max_iters = fitted_iters or sys.maxsize   # the loop finds out
    lr_decay_iters = max_iters

# text: decode (ids -> str; None if the tokenizer is not on this machine), and the token to begin a text with
if is_master:
    decode, first_id = cached_decoder(model_tokenizer)

# mfu (model FLOPs utilization): the share of the devices' peak FLOP/s that the model gets
flops_per_iter = model.flops_per_token() * tokens_per_iter
peak_flops = world_size * devices.peak_flops(device, dtype)   # 0 where it is not known
if is_master:
    done = f', after {iter_num} iterations' if iter_num else ''
    print(f'number of parameters: {model.get_num_params() / 1e6:.2f}M{done}')
    sizes.print_memory(model.config, config, device, dtype, world_size)   # what the run will take

# compile the model, if there is enough left to do, and let the ranks average its gradients
iters_left = 0 if eval_only else max(0, max_iters - iter_num)
compile, compile_reason = devices.pick_compile(
    compile, device, flops_per_iter * iters_left / world_size, peak_flops / world_size, minutes)   # of one device
if is_master:
    print(f'compile: {compile} ({compile_reason})')
raw_model = model   # the model itself, for checkpoints and for generating
if compile:
    if is_master:
        print('compiling the model... (takes about a minute)')
    model = torch.compile(model, dynamic=False)   # when it is called, anew for each shape; there are few
if is_ddp:
    model = DDP(model, gradient_as_bucket_view=True)   # without a second copy of the gradients
amp = devices.autocast(device, dtype)   # automatic mixed precision: a context in which matmuls are in dtype

# where a device wants it, a micro-batch goes through the model in pieces: on a CPU, what fits in its caches
piece_size = devices.pick_piece_size(device, block_size, batch_size)   # in sequences


def split_batch(X, Y):
    """A batch, x and y (B, T), as a list of smaller ones."""
    return list(zip(X.split(piece_size), Y.split(piece_size)))


def eval_batches(split):
    """This rank's share of an evaluation: eval_iters random batches, the same each time; or all of val.bin in order."""
    if eval_iters > 0:
        first = 0 if split == 'val' else 2**40   # numbers that training never reaches
        for number in range(rank, eval_iters, world_size):
            yield get_batch(split, first + number)
    else:
        for x, y in evaluate.sweep(data_files[split], batch_size, block_size, rank, world_size):
            yield to_device(x), to_device(y)


@torch.no_grad()
def estimate_loss():
    """Mean loss of each split, in nats per token, over the batches of all ranks."""
    raw_model.eval()
    losses = {}
    splits = ['train', 'val'] if eval_iters > 0 else ['val']
    for split in splits:
        loss_sum = torch.zeros((), device=device)   # on the device: nothing waits for it until the end
        n_tokens = torch.zeros((), device=device)
        for X, Y in eval_batches(split):
            for x, y in split_batch(X, Y):
                with amp:
                    _, loss = model(x, y)   # the mean over the targets; -1, beyond the end of val.bin, is none
                n = (y >= 0).sum()
                loss_sum += loss * n
                n_tokens += n
        if is_ddp:
            dist.all_reduce(loss_sum)
            dist.all_reduce(n_tokens)
        losses[split] = (loss_sum / n_tokens).item()
    raw_model.train()
    return losses


def get_lr(it):
    """Learning rate at iteration it: a linear warm-up, then half a cosine or a straight line down to min_lr."""
    if not decay_lr:
        return learning_rate
    if it < warmup_iters:
        return learning_rate * (it + 1) / (warmup_iters + 1)
    progress = min(1.0, (it - warmup_iters) / max(1, lr_decay_iters - warmup_iters))   # from 0 to 1
    if lr_schedule == 'cosine':
        decay = 0.5 * (1 + math.cos(math.pi * progress))   # from 1 to 0
    else:
        decay = 1 - progress
    return min_lr + (learning_rate - min_lr) * decay


def sample_line():
    """A line that the model writes. The seed is the same each time, so only what it has learned changes the line."""
    torch.manual_seed(seed)
    raw_model.eval()
    prompt = torch.tensor([[first_id]], device=device)
    with amp, devices.no_cudnn_attention():   # which plans anew, slowly, for each new length
        ids = raw_model.generate(prompt, sample_chars, temperature=0.8, top_k=200)   # a token is a character, or more
    raw_model.train()
    return printable_line(decode(ids[0, 1:].tolist()))[:sample_chars]


def save(is_best):
    """Save the run: to ckpt.pt if is_best, else to last.pt, for resuming only (which takes the newer of the two)."""
    weights_norm = torch.nn.utils.get_total_norm(raw_model.parameters()).item()
    check_finite(weights_norm, 'norm of the weights', iter_num)   # NaN never replaces what was saved before
    optimizer_states = [processes.whole_state(opt) for opt in optimizers]   # all ranks take part
    if is_master:
        checkpoint = {   # tensors and plain values only
            'model': raw_model.state_dict(),
            'optimizer': optimizer_states,
            'scaler': scaler.state_dict(),
            'model_args': asdict(raw_model.config),
            'tokenizer': model_tokenizer,
            'iter_num': iter_num,
            'best_val_loss': best_val_loss,
            'lowest_val_loss': lowest_val_loss,
            'lowest_iter': lowest_iter,
            'fitted_iters': fitted_iters,
            'wandb_id': wandb_id,
            'data': data_mark,
            'elapsed_s': run_s(),
            'tokens_read': tokens_read,
            'config': config,
        }
        if is_best:
            tqdm.write(f'saving checkpoint to {out_dir}')
        checkpoints.save_run(checkpoint, out_dir, is_best, log.suffix)
        log.set_old_aside()   # the files of another training, which have waited for this


def run_s():
    """The seconds of this run so far, those before it was resumed included."""
    return time.perf_counter() - started


# the log and the progress bar
wandb = None
if is_master and wandb_log:
    wandb = report.start_wandb(config, wandb_id)   # first: where it does not start, no file has been touched
    wandb_id = wandb.run.id
if is_master:
    log = report.RunLog(config, iter_num, wandb)   # log(line, **numbers) prints and keeps them

# Ctrl-C and other signals do not interrupt training: their numbers are put into this list, and the loop looks there;
# output that nobody takes any longer counts as one
caught = [] if eval_only else signals.catch_signals()
bar = tqdm(total=max_iters if max_iters < sys.maxsize else None, initial=iter_num, unit='it', dynamic_ncols=True,
           disable=None if is_master else True)   # None: shown on a terminal only

# `minutes` measures evaluations: what they need is compiled before
if compile and minutes > 0 and fitted_iters == 0:
    x, y = split_batch(*get_batch('val', 0))[0]
    raw_model.eval()
    with torch.no_grad(), amp:
        model(x, y)
    raw_model.train()

# the training loop: stop, evaluate and save, forward and backward, step, log
started = time.perf_counter() - elapsed_s   # when the run would have begun, had it never stopped
t0 = time.perf_counter()
iters_timed = 0   # iterations since t0
is_patient = True
pace = Pace()     # for `minutes`
while True:
    # stop, if any rank has caught a signal, or its data set is no longer the one that it reads
    has_to_stop = not eval_only and (bool(caught) or data_files.changed())
    is_stopping = processes.is_any(has_to_stop, device)
    if is_stopping:
        save(is_best=False)
        break

    # the learning rate of this iteration
    lr = get_lr(iter_num)
    for opt in optimizers:
        for group in opt.param_groups:
            group['lr'] = lr * group['lr_scale']   # 1 for AdamW, muon_lr / learning_rate for Muon

    # evaluate, and save
    is_last = iter_num >= max_iters or eval_only
    if iter_num % eval_interval == 0 or is_last:
        losses = estimate_loss()
        if is_master:
            line = f"step {iter_num}: " + ', '.join(f'{split} loss {loss:.4f}' for split, loss in losses.items())
            if eval_iters == 0 and decode:
                line += f", {evaluate.bits_per_char(losses['val'], decode, data_dir):.4f} bits per character"
            log(line, iter=iter_num, elapsed_s=run_s(), lr=lr,
                train_loss=losses.get('train', math.nan), val_loss=losses['val'])
        check_finite(losses['val'], 'val loss', iter_num)
        if is_master and sample_chars > 0 and decode:
            tqdm.write(f'it writes: {sample_line()}')
        if not eval_only and (iter_num > 0 or is_last):   # at iteration 0 there is nothing new to save
            is_best = losses['val'] <= best_val_loss or always_save_checkpoint   # what goes into ckpt.pt
            if is_best:
                best_val_loss = losses['val']
            if losses['val'] < lowest_val_loss:
                lowest_val_loss = losses['val']
                lowest_iter = iter_num
            save(is_best)
        pace.lap(is_evaluation=True)
        t0 = time.perf_counter()   # tokens/s and mfu leave evaluations out
        iters_timed = 0
        is_patient = patience == 0 or iter_num - lowest_iter < patience * eval_interval
    if is_last or not is_patient:
        break

    # each iteration and rank seeds its own dropout, so that a resumed run drops the same
    if raw_model.config.dropout > 0:
        dropout_seed = np.random.SeedSequence((seed, iter_num, rank)).generate_state(1, np.uint64)
        torch.manual_seed(int(dropout_seed[0]))

    # forward and backward: the gradients of this rank's micro-batches, and of the pieces of them, add up
    loss_sum = torch.zeros((), device=device)   # of losses with weights, below: it ends as the mean of this rank's
    for micro_step in range(micro_steps):
        # numbered so that an iteration has the same micro-batches for any number of ranks
        number = (iter_num * micro_steps + micro_step) * world_size + rank
        X, Y = get_batch('train', number)
        pieces = split_batch(X, Y)
        for i, (x, y) in enumerate(pieces):
            if is_ddp:   # gradients are averaged over the ranks once an iteration, in the last backward
                is_last_backward = micro_step == micro_steps - 1 and i == len(pieces) - 1
                model.require_backward_grad_sync = is_last_backward
            with amp:
                _, loss = model(x, y)
                loss = loss * (len(x) / batch_size / micro_steps)   # its share in the mean
            loss_sum += loss.detach()
            scaler.scale(loss).backward()

    # clip the gradients and step
    for opt in optimizers:
        scaler.unscale_(opt)   # nothing happens here unless dtype is float16
    max_norm = grad_clip if grad_clip > 0 else math.inf   # inf: no clipping, but the norm is wanted below
    grad_norm = torch.nn.utils.clip_grad_norm_(raw_model.parameters(), max_norm)
    is_overflow = scaler.is_enabled() and not grad_norm.isfinite()   # in float16; scaler.update() lowers the scale
    for opt in optimizers:
        if not is_overflow:
            opt.step()   # scaler.step(opt) would wait for the device again, and might skip one optimizer, not both
        opt.zero_grad(set_to_none=True)
    scaler.update()

    # log; .item() waits for the device; between logs the host runs ahead of it (in float16, to the end of a step)
    iters_timed += 1
    if iter_num % log_interval == 0:
        if is_ddp:
            dist.all_reduce(loss_sum)
        if is_master:
            loss_mean = loss_sum.item() / world_size
            dt_s = (time.perf_counter() - t0) / iters_timed
            speed = f'{tokens_per_iter / dt_s:,.0f} tokens/s'
            mfu = f'{flops_per_iter / dt_s / peak_flops:.1%}' if peak_flops else 'n/a'
            log(f'iter {iter_num}: loss {loss_mean:.4f}, time {dt_s * 1000:.2f}ms, mfu {mfu}, {speed}',
                iter=iter_num, elapsed_s=run_s(), lr=lr, loss=loss_mean)
            check_finite(loss_mean, 'loss', iter_num)
            bar.set_postfix_str(f'loss {loss_mean:.4f}, {speed}')
            t0 = time.perf_counter()
            iters_timed = 0
    iter_num += 1
    tokens_read += tokens_per_iter
    bar.update()

    # minutes: once the speed is known, choose how many iterations the run gets; rank 0 does, by its clock
    if minutes > 0 and fitted_iters == 0:
        devices.synchronize(device)   # what was given to a GPU is done
        pace.lap(is_evaluation=False)
        fitted_iters = pace.fit(minutes, run_s(), iter_num, warmup_iters, eval_interval)
        fitted_iters = processes.from_master(fitted_iters, device)
        if fitted_iters > 0:
            max_iters = fitted_iters
            lr_decay_iters = fitted_iters
            bar.total = fitted_iters
            if is_master:
                tqdm.write(f'minutes = {minutes:g}: {pace.speed()}, so max_iters and lr_decay_iters = {fitted_iters}')

# the end
bar.close()
if is_master and is_stopping:
    print(f'stopped after {iter_num} iterations; to go on: {report.resume_command()}')
elif is_master and not eval_only:
    print(f'done: {iter_num} iterations')
    if not is_patient:
        print(f'stopped early: val loss was lowest at iteration {lowest_iter}, {patience} evaluations ago; '
              'more text would help')
    report.print_summary(out_dir, run_s(), tokens_read, best_val_loss,
                         data_dir, data_tokenizer, data_vocab_size, decode)
if is_ddp:
    processes.end()
if is_stopping:
    data_files.check_unchanged()   # exits, and says so, if that was why
    sys.exit(signals.exit_status(caught))   # 128 + the number of the signal, as shells expect
