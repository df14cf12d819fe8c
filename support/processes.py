"""
Training in several processes, which torchrun starts: https://docs.pytorch.org/docs/stable/elastic/run.html

Each process is one rank with its own device; gradients are averaged over them by DistributedDataParallel.
"""

import os
import time

import torch
import torch.distributed as dist

from support.checks import check_moments
from support.errors import fail, first_line


def check_environment():
    """Exit if RANK is set, as torchrun sets it, but not all that goes with it: then nobody else would be found."""
    if os.environ.get('RANK', '-1') == '-1':
        return
    advice = 'start with torchrun, or unset RANK to train in one process'
    for name in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'LOCAL_WORLD_SIZE', 'MASTER_PORT'):
        value = os.environ.get(name, '0')
        if not (value.isascii() and value.isdigit()):
            fail(f'{name} = {value} in the environment is not a number; {advice}')
    for name in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'):
        if not os.environ.get(name):
            fail(f"RANK = {os.environ['RANK']}, as torchrun sets it, but {name} is not set; {advice}")
    if int(os.environ['RANK']) >= int(os.environ['WORLD_SIZE']):
        fail(f"RANK = {os.environ['RANK']} must be below WORLD_SIZE = {os.environ['WORLD_SIZE']}; {advice}")
    if int(os.environ['MASTER_PORT']) > 65535:
        fail(f"MASTER_PORT = {os.environ['MASTER_PORT']} must be below 65536; {advice}")


def pick_backend(backend, device):
    """How the processes talk to each other: 'auto' is NCCL on CUDA, with Gloo beside it for what lies in the CPU's
    memory, and Gloo elsewhere."""
    kind = torch.device(device).type
    if kind == 'mps' or backend not in ('auto', 'gloo', 'nccl') or (backend == 'nccl' and kind != 'cuda'):
        fail(f'backend = {backend} cannot join processes on {kind}; use --backend=auto, and on a Mac --device=cpu')
    if backend != 'auto':
        return backend
    return 'cpu:gloo,cuda:nccl' if kind == 'cuda' else 'gloo'


def start(backend):
    """Join the other processes. Exits if they cannot be found."""
    try:
        dist.init_process_group(backend)
    except (RuntimeError, ValueError) as e:
        place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        fail(f'the processes did not find each other at MASTER_ADDR:MASTER_PORT = {place}: {first_line(e)}')


def end():
    """Wait for all ranks, then leave: when one has gone, torchrun ends the others, and rank 0 may still be saving."""
    dist.barrier()
    dist.destroy_process_group()
    time.sleep(0.1)   # Gloo's threads drop their last tensors; while Python shuts down that would abort it


def is_any(flag, device):
    """Whether a flag is set in any of the processes, or in this one if it is alone."""
    if not dist.is_initialized():
        return flag
    flags = torch.tensor(float(flag), device=where_ranks_meet(device))
    dist.all_reduce(flags)
    return flags.item() > 0


def from_master(number, device):
    """A whole number as rank 0 has it."""
    if not dist.is_initialized():
        return number
    shared = torch.tensor(number, device=where_ranks_meet(device))
    dist.broadcast(shared, 0)
    return int(shared)


def where_ranks_meet(device):
    """The device for a number that ranks share: the CPU, where they can, so that nobody has to wait for a GPU."""
    return 'cpu' if 'gloo' in dist.get_backend_config() else device


def shard(opt):
    """opt, before its first step, with its state split over the processes: ZeRO, stage 1
    (https://arxiv.org/abs/1910.02054)."""
    from torch.distributed.optim import ZeroRedundancyOptimizer   # slow to import
    return ZeroRedundancyOptimizer(opt.param_groups, type(opt), lr=opt.defaults['lr'])


def whole_state(opt):
    """The state_dict of an optimizer; of a sharded one it is on rank 0 and on the CPU, and every process must call
    this. (ZeroRedundancyOptimizer's own way takes most of a minute for a gigabyte.)"""
    if not hasattr(opt, 'optim'):   # not sharded
        return opt.state_dict()
    params = [p for group in opt.param_groups for p in group['params']]
    mine = opt.optim.state
    part = {}
    for i, p in enumerate(params):
        if p in mine:
            part[i] = {k: v.cpu() for k, v in mine[p].items()}
    parts = [{}] * dist.get_world_size()
    dist.gather_object(part, parts if dist.get_rank() == 0 else None)

    state = {}
    for part in parts:
        state.update(part)
    groups = []
    n_params = 0
    for group in opt.param_groups:
        ids = list(range(n_params, n_params + len(group['params'])))
        groups.append({**group, 'params': ids})
        n_params += len(ids)
    return {'state': dict(sorted(state.items())), 'param_groups': groups}


def load_state(opt, state):
    """Copy the moments in an optimizer's state_dict into an optimizer; a sharded one takes its part. Raises ValueError
    if they do not fit."""
    params = [p for group in opt.param_groups for p in group['params']]
    inner = getattr(opt, 'optim', opt)   # of a sharded one, the part in this process
    own = {p for group in inner.param_groups for p in group['params']}
    check_moments(state, params, type(inner).__name__)
    for i, moments in state['state'].items():
        if params[i] in own:
            inner.state[params[i]] = {name: like(params[i], name, moment) for name, moment in moments.items()}


def like(param, name, moment):
    """A copy of a moment on the parameter's device and, unless it is the number of steps, in its layout: a fused AdamW
    goes through their memory side by side. (The number, 0-dimensional, is on the device, too, where a fused AdamW
    counts.)"""
    if name == 'step':
        return moment.reshape(()).clone().to(param.device)
    return torch.empty_like(param).copy_(moment)
