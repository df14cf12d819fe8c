"""
Train a GPT, on one device or on many.

    python train.py config/train_eca_char.py         # settings from a file ...
    python train.py config/train_eca_char.py --batch_size=32   # ... and by name
    torchrun --standalone --nproc_per_node=4 train.py config/train_gpt2.py
"""

import math
import os
import sys
import time

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel as DDP
from tqdm import tqdm

from checkpoint import gather_state, load_run, load_states, open_log, print_summary, resume_command, save_run
from model import GPT, GPTConfig
from runtime import (autocast, catch_signals, check_at_least, check_finite, explain_crash, fail, first_line,
                     is_any_process, or_fail, peak_flops, pick_backend, pick_compile, pick_device, pick_dtype)
from tokenizer import (check_ids, count_tokens, count_tokens_per_char, find_decode, load_pretrained, load_tokenizer,
                       match_tokenizer, unigram_loss)

sys.excepthook = explain_crash

# -----------------------------------------------------------------------------
# settings; the defaults are for a GPT-2 (124M) on OpenWebText
# files
out_dir = 'out'                 # checkpoints and log.csv go here
eval_interval = 2000            # iterations between evaluations
log_interval = 1                # iterations between log lines
eval_iters = 200                # batches per split in one evaluation; 0: all of val.bin once, and none of train.bin
eval_only = False               # evaluate once, then stop
sample_chars = 64               # at each evaluation the model writes a line this long; 0: none
always_save_checkpoint = True   # ckpt.pt at every evaluation; False: only when val loss improves
init_from = 'scratch'           # 'resume' goes on from out_dir; 'gpt2', another GPT-2's Hub id or folder finetunes it
# wandb: logging to Weights & Biases
wandb_log = False               # needs a wandb account, or WANDB_MODE=offline
wandb_project = 'owt'           # the project in Weights & Biases
wandb_run_name = 'gpt2'         # this run's name in the project
# data
dataset = 'openwebtext'         # the folder in data/ whose prepare.py has been run
gradient_accumulation_steps = 5 * 8   # micro-batches per iteration, over all processes; less memory, same result
batch_size = 12                 # texts in one micro-batch
block_size = 1024               # tokens in one text: the longest context
# model
n_layer = 12                    # blocks
n_head = 12                     # attention heads in each
n_embd = 768                    # channels; a multiple of n_head
dropout = 0.0                   # 0 unless the model sees its data many times; try 0.1 when finetuning
bias = False                    # biases in Linear and LayerNorm; GPT-2 has them, better without
sinusoidal_init = False         # position embeddings start as sinusoids, not as noise: short runs learn sooner
# optimizer
optimizer = 'adamw'             # 'adamw', or 'muon': Muon for the matrices in the blocks, AdamW for the rest
learning_rate = 6e-4            # peak rate of AdamW
muon_lr = 3e-3                  # peak rate of Muon; follows the same schedule
muon_momentum = 0.95            # Muon's memory of gradients; less in short runs
max_iters = 600000              # iterations (optimizer steps) in all
weight_decay = 1e-1             # pull of matrices and embeddings towards 0
beta1 = 0.9                     # AdamW's memory of gradients
beta2 = 0.95                    # AdamW's memory of their squares; nearer 1 where iterations have few tokens
grad_clip = 1.0                 # gradients longer than this are scaled down to it; 0.0 leaves them alone
# schedule: of the learning rate, linear warm-up, then down
decay_lr = True                 # False: learning_rate throughout, without warm-up
lr_schedule = 'cosine'          # the way down: 'cosine', or 'linear', which with min_lr = 0 does better in short runs
warmup_iters = 2000             # raise it if the loss spikes early
lr_decay_iters = 600000         # where it arrives at min_lr; usually max_iters
min_lr = 6e-5                   # usually learning_rate / 10
# system
backend = 'auto'                # between processes: 'nccl' on CUDA, 'gloo' elsewhere
shard_optimizer = False         # each process keeps only its part of the optimizer's state; less memory, same result
seed = 1337                     # of the weights, the batches and the dropout
device = 'auto'                 # CUDA, else MPS, else CPU; or 'cpu', 'mps', 'cuda', 'cuda:1'
dtype = 'auto'                  # 'float32', 'bfloat16' or 'float16'; auto takes what is fast on the device
compile = 'auto'                # torch.compile; True, False, auto is on for CUDA
# -----------------------------------------------------------------------------
config_keys = [k for k, v in globals().items() if not k.startswith('_') and isinstance(v, (int, float, bool, str))]
exec(open(os.path.join(os.path.dirname(__file__), 'configurator.py'), encoding='utf-8').read())
config = {k: globals()[k] for k in config_keys}
# -----------------------------------------------------------------------------
# settings that would fail later, and worse
check_at_least(1, config, 'eval_interval', 'log_interval', 'batch_size', 'block_size', 'gradient_accumulation_steps')
check_at_least(0, config, 'eval_iters', 'max_iters', 'warmup_iters', 'min_lr', 'weight_decay', 'grad_clip', 'seed')
if learning_rate <= 0 or muon_lr <= 0:
    fail(f'learning_rate = {learning_rate} and muon_lr = {muon_lr} must both be above 0')
if lr_schedule not in ('cosine', 'linear'):
    fail(f"lr_schedule = {lr_schedule} is not known; use 'cosine' or 'linear'")

# device and processes: under torchrun each process is one rank, with its own device and its share of the micro-batches
is_ddp = int(os.environ.get('RANK', -1)) != -1
rank, world_size = (int(os.environ['RANK']), int(os.environ.get('WORLD_SIZE', 1))) if is_ddp else (0, 1)
is_master = rank == 0   # the process that prints and writes
device = pick_device(device, is_ddp)
device_type = torch.device(device).type
if device_type == 'cuda':
    torch.cuda.set_device(torch.device(device).index or 0)
    torch.set_float32_matmul_precision('high')   # float32 products in TF32: several times faster, hardly less exact
backend = pick_backend(backend, device) if is_ddp else ''
if gradient_accumulation_steps % world_size:
    fewer = gradient_accumulation_steps // world_size * world_size
    fail(f'gradient_accumulation_steps = {gradient_accumulation_steps} cannot be shared by {world_size} processes; '
         f'try {f"{fewer} or " if fewer else ""}{fewer + world_size}')
micro_steps = gradient_accumulation_steps // world_size   # of this rank, per iteration
tokens_per_iter = gradient_accumulation_steps * batch_size * block_size
dtype = pick_dtype(dtype, device)
compile, compile_reason = pick_compile(compile, device)
if is_master:
    print(f'device: {device}, dtype: {dtype}, compile: {compile} ({compile_reason})\n'
          f'tokens per iteration: {tokens_per_iter:,}')
    if decay_lr and warmup_iters > max_iters > 0:
        print(f'warmup_iters = {warmup_iters} is more than max_iters = {max_iters}: the rate stays below its peak')

# data: random windows of block_size tokens. A batch is a function of (seed, split, its number) and of nothing else, so
# that resumed and uninterrupted runs, and one process and four, see the same
data_dir = os.path.join(os.path.dirname(__file__), 'data', dataset)
n_tokens = {split: count_tokens(data_dir, split, block_size) for split in ('train', 'val')}
n_val_windows = math.ceil((n_tokens['val'] - 1) / block_size)   # that cover every target once; the last may be shorter
tokenizer, vocab_size = load_tokenizer(data_dir)


def get_batch(split, number):
    """(x, y), each (B, T): windows of the text at random places, and for each token in them the one after it. For an
    evaluation with eval_iters = 0: windows in order, fewer in the last batch, y = -1 beyond the end of the text."""
    # opened anew each time: a memmap that lives on counts every page it has touched as memory of this process
    data = np.memmap(os.path.join(data_dir, f'{split}.bin'), dtype=np.uint16, mode='r')
    is_sweep = split == 'val' and eval_iters == 0
    rng = np.random.default_rng((seed, split == 'val', number))
    starts = (np.arange(number * batch_size, min((number + 1) * batch_size, n_val_windows)) * block_size if is_sweep
              else rng.integers(len(data) - block_size, size=batch_size))
    places = starts[:, None] + np.arange(block_size + 1)   # (B, T + 1)
    ids = data[np.minimum(places, len(data) - 1)]
    check_ids(ids, model_args['vocab_size'], data_dir)   # on a GPU it would be a riddle
    windows = torch.from_numpy(ids.astype(np.int64))
    # pinned: the host need not wait for the copy
    windows = windows.pin_memory().to(device, non_blocking=True) if device_type == 'cuda' else windows.to(device)
    x, y = windows[:, :-1], windows[:, 1:]
    return x, y.masked_fill(torch.from_numpy(places[:, 1:] >= len(data)).to(device), -1) if is_sweep else y


# model: from scratch, where the last run stopped, or somebody's GPT-2
iter_num, best_val_loss, elapsed_s, tokens_read = 0, 1e9, 0.0, 0   # iterations done; their best loss, time and tokens
model_args = dict(n_layer=n_layer, n_head=n_head, n_embd=n_embd, block_size=block_size, bias=bias,
                  vocab_size=vocab_size, dropout=dropout)
gptconf = or_fail(GPTConfig, **model_args)
own_tokenizer = tokenizer
if init_from == 'resume':
    model, checkpoint = load_run(out_dir, config)
    own_tokenizer = checkpoint.get('tokenizer', tokenizer)   # nanoGPT's have none
elif init_from == 'scratch':
    torch.manual_seed(seed)
    model = GPT(gptconf)
    if sinusoidal_init:
        model.init_positions()
else:
    model, own_tokenizer = load_pretrained(init_from, dropout, block_size)
match_tokenizer(data_dir, tokenizer, vocab_size, own_tokenizer, model.config.vocab_size)
tokenizer, model_args = own_tokenizer, {k: getattr(model.config, k) for k in model_args}   # a pretrained model's: whole
model.to(device)
if is_ddp:
    dist.init_process_group(backend)
optimizers = or_fail(model.configure_optimizers, weight_decay, learning_rate, (beta1, beta2), optimizer, muon_lr,
                     muon_momentum, ns_dtype='bfloat16' if dtype == 'bfloat16' else 'float32',
                     is_compiled=compile, is_sharded=shard_optimizer and is_ddp)
scaler = torch.amp.GradScaler(device_type, enabled=dtype == 'float16')   # only float16 underflows
if init_from == 'resume':
    load_states(optimizers, checkpoint, f'{out_dir} was trained with another optimizer than {optimizer}; use the same')
    scaler.load_state_dict(checkpoint.get('scaler', {}) or scaler.state_dict())
    iter_num, best_val_loss = checkpoint['iter_num'], float(checkpoint['best_val_loss'])
    elapsed_s, tokens_read = checkpoint.get('elapsed_s', 0.0), checkpoint.get('tokens_read', iter_num * tokens_per_iter)
    del checkpoint   # its memory is free again
# to show what the model writes, and to compare tokenizers by
decode, first = find_decode(tokenizer) if is_master else (None, 0)
# mfu (model FLOPs utilization): the share of the devices' peak that goes into the model
flops_per_iter, peak = model.flops_per_token() * tokens_per_iter, world_size * peak_flops(device, dtype)
if is_master:
    print(f'number of parameters: {model.get_num_params() / 1e6:.2f}M'
          + (f', after {iter_num} iterations' if iter_num else '')
          + ('\ncompiling the model... (takes about a minute)' if compile else ''))
piece_size = model.pick_piece_size(batch_size)   # of a micro-batch, the texts that go through the model at once
raw_model = model   # the names in a checkpoint are those of the model without the wrappings below
model = torch.compile(model, dynamic=False) if compile else model   # each shape a program; there are few
model = DDP(model) if is_ddp else model


@torch.no_grad()
def estimate_loss():
    """Mean loss of each split, in nats per token. The batches are the same each time, and shared by the processes."""
    raw_model.eval()
    losses = {'train': math.nan}
    for split in ['train', 'val'] if eval_iters else ['val']:
        total = torch.zeros(2, device=device)   # losses, tokens
        for k in range(rank, eval_iters or math.ceil(n_val_windows / batch_size), world_size):
            X, Y = get_batch(split, k if split == 'val' else 2**40 + k)   # 2**40: no batch of the training itself
            for x, y in zip(X.split(piece_size), Y.split(piece_size)):
                with autocast(device, dtype):
                    n = (y >= 0).sum()
                    total += torch.stack([model(x, y)[1] * n, n])
        if is_ddp:
            dist.all_reduce(total)
        losses[split] = (total[0] / total[1]).item()
    raw_model.train()
    return losses


def write_line():
    """A line that the model writes as it is now. The dice are the same each time: only what it has learned changes."""
    torch.manual_seed(seed)
    raw_model.eval()
    torch.backends.cuda.enable_cudnn_sdp(False)   # its attention needs a new plan, 30 ms, for each length of the cache
    with autocast(device, dtype):
        ids = raw_model.generate(torch.tensor([[first]], device=device), sample_chars, temperature=0.8, top_k=200)
    torch.backends.cuda.enable_cudnn_sdp(True)
    raw_model.train()
    return ''.join(c if c.isprintable() else ' ' for c in decode(ids[0, 1:].tolist()))[:sample_chars]


def get_lr(it):
    """Learning rate at iteration it: linear warm-up, then half a cosine or a line from learning_rate down to min_lr."""
    if it < warmup_iters:
        return learning_rate * (it + 1) / (warmup_iters + 1)
    progress = min(1.0, (it - warmup_iters) / max(1, lr_decay_iters - warmup_iters))
    height = 1 - progress if lr_schedule == 'linear' else 0.5 * (1 + math.cos(math.pi * progress))
    return min_lr + (learning_rate - min_lr) * height


# log: log.csv gets a row for each line printed
if is_master:
    if wandb_log:
        try:
            import wandb
            wandb.init(project=wandb_project, name=wandb_run_name, config=config)
        except Exception as e:   # not installed, no account, no network
            fail(f'wandb_log = True, but wandb does not start ({first_line(e)}); try WANDB_MODE=offline, or '
                 '--wandb_log=False')
    log_rows, others = open_log(out_dir, iter_num, init_from != 'resume', eval_only)


def log(line, **row):
    tqdm.write(line)   # print() would tear the progress bar
    log_rows.writerow({**row, 'elapsed_s': round(elapsed_s + time.perf_counter() - started, 1)})
    if wandb_log:
        wandb.log({k.replace('_loss', '/loss'): v for k, v in row.items()})


# the loop: learning rate, evaluate and save, stop, forward and backward, clip, step, log
bar = tqdm(total=max_iters, initial=iter_num, unit='it', dynamic_ncols=True, disable=None if is_master else True)
started = t0 = time.perf_counter()
iters_timed = 0   # iterations since t0
caught = [] if eval_only else catch_signals()
while True:
    lr = get_lr(iter_num) if decay_lr else learning_rate
    for opt in optimizers:
        for group in opt.param_groups:
            group['lr'] = lr * group['lr_scale']
    is_stopping = is_any_process(bool(caught), 'cpu' if 'gloo' in backend else device)   # after a signal

    # evaluate, and save what is worth keeping
    is_last = iter_num >= max_iters or eval_only
    is_evaluating = (iter_num % eval_interval == 0 or is_last) and not is_stopping
    is_kept = False
    if is_evaluating:
        losses = estimate_loss()
        is_kept = (losses['val'] <= best_val_loss or always_save_checkpoint) and (iter_num > 0 or is_last)
        best_val_loss = losses['val'] if is_kept else best_val_loss   # of the model in ckpt.pt
        if is_master:
            bits = losses['val'] * count_tokens_per_char(decode, data_dir) / math.log(2) if eval_iters == 0 else 0
            log(f'step {iter_num}: ' + (f"train loss {losses['train']:.4f}, " if eval_iters else '')
                + f"val loss {losses['val']:.4f}" + (f', {bits:.4f} bits per character' if bits else ''),
                iter=iter_num, lr=lr, train_loss=losses['train'], val_loss=losses['val'])
        check_finite(losses['val'], 'val loss', iter_num)
        if sample_chars > 0 and decode:
            tqdm.write(f'it writes: {write_line()}')
    if not eval_only and (is_stopping or is_last or (is_evaluating and iter_num > 0)):
        check_finite(torch.nn.utils.get_total_norm(raw_model.parameters()).item(), 'norm of the weights', iter_num)
        states = [gather_state(opt) if shard_optimizer and is_ddp else opt.state_dict() for opt in optimizers]
        if is_master:
            checkpoint = {   # plain values and tensors only; optimizer states whole, for any number of processes
                'model': raw_model.state_dict(), 'optimizer': states, 'scaler': scaler.state_dict(), 'config': config,
                'model_args': model_args, 'tokenizer': tokenizer, 'tokens_read': tokens_read, 'iter_num': iter_num,
                'best_val_loss': best_val_loss, 'elapsed_s': elapsed_s + time.perf_counter() - started,
            }
            if is_kept:
                tqdm.write(f'saving checkpoint to {out_dir}')
            save_run(checkpoint, out_dir, is_kept, others)
        checkpoint = states = None   # their memory is free again
    if is_last or is_stopping:
        break
    t0, iters_timed = (time.perf_counter(), 0) if is_evaluating else (t0, iters_timed)   # evaluations do not count

    # forward and backward, over micro-batches whose gradients add up
    # a stream of dropout masks of its own for each iteration and rank, so that a resumed run draws the same
    if raw_model.config.dropout > 0:
        torch.manual_seed(int(np.random.SeedSequence((seed, iter_num, rank)).generate_state(1, np.uint64)[0]))
    loss_sum = 0.0
    for micro_step in range(micro_steps):
        X, Y = get_batch('train', (iter_num * micro_steps + micro_step) * world_size + rank)
        for i in range(0, batch_size, piece_size):
            x, y = X[i:i + piece_size], Y[i:i + piece_size]
            if is_ddp:   # gradients travel once an iteration
                model.require_backward_grad_sync = micro_step == micro_steps - 1 and i + piece_size >= batch_size
            with autocast(device, dtype):
                loss = model(x, y)[1] * (len(x) / batch_size / micro_steps)
            loss_sum += loss.detach()
            scaler.scale(loss).backward()

    # clip and step; where float16 overflowed anywhere, no optimizer steps
    for opt in optimizers:
        scaler.unscale_(opt)
    norm = torch.nn.utils.clip_grad_norm_(raw_model.parameters(), grad_clip if grad_clip > 0 else math.inf)
    for opt in optimizers:
        if not scaler.is_enabled() or norm.isfinite():
            scaler.step(opt)
        opt.zero_grad(set_to_none=True)
    scaler.update()

    # log; reading the loss waits for the device, so it is done only here (float16 waits in each step)
    iters_timed += 1
    if iter_num % log_interval == 0:
        if is_ddp:
            dist.all_reduce(loss_sum)
        if is_master:
            lossf = loss_sum.item() / world_size
            dt_ms = (time.perf_counter() - t0) / iters_timed * 1000
            speed = f'{tokens_per_iter / dt_ms * 1000:,.0f} tokens/s'
            mfu = f'{flops_per_iter / dt_ms * 1000 / peak:.1%}' if peak else 'n/a'
            log(f'iter {iter_num}: loss {lossf:.4f}, time {dt_ms:.2f}ms, mfu {mfu}, {speed}',
                iter=iter_num, lr=lr, loss=lossf)
            check_finite(lossf, 'loss', iter_num)
            bar.set_postfix_str(f'loss {lossf:.4f}, {speed}')
            t0, iters_timed = time.perf_counter(), 0
    iter_num, tokens_read = iter_num + 1, tokens_read + tokens_per_iter
    bar.update()

bar.close()
if is_master and is_stopping:
    print(f'stopped after {iter_num} iterations; to go on: {resume_command()}')
elif is_master and not eval_only:
    print(f'done: {iter_num} iterations')
    print_summary(out_dir, elapsed_s + time.perf_counter() - started, tokens_read, n_tokens['train'],
                  best_val_loss, unigram_loss(data_dir, vocab_size), count_tokens_per_char(decode, data_dir))
if is_ddp:
    dist.barrier()   # who ends early would have torchrun end rank 0, which may still be saving
    dist.destroy_process_group()
    time.sleep(0.1)   # Gloo's threads drop their last tensors; to do so while Python shuts down would abort it
if is_stopping:
    sys.exit(128 + (caught or [15])[0])   # 15 is SIGTERM, if another process caught it
