"""
Training in several processes, which torchrun starts: https://docs.pytorch.org/docs/stable/elastic/run.html

Each process is one rank with its own device; gradients are averaged over them by DistributedDataParallel.
"""

import time

import torch
import torch.distributed as dist

from support.errors import fail


def start(backend, device):
    """Join the other processes. backend 'auto' is NCCL on CUDA, with Gloo beside it for what lies in the
    CPU's memory, and Gloo elsewhere."""
    kind = torch.device(device).type
    if kind == 'mps' or backend not in ('auto', 'gloo', 'nccl') or (backend == 'nccl' and kind != 'cuda'):
        fail(f'backend = {backend} cannot join processes on {kind}; use --backend=auto, and on a Mac --device=cpu')
    if backend == 'auto':
        backend = 'cpu:gloo,cuda:nccl' if kind == 'cuda' else 'gloo'
    dist.init_process_group(backend)


def end():
    """Leave the other processes, once all have come here: torchrun would end rank 0, which may still be
    saving, when another rank has ended."""
    dist.barrier()
    dist.destroy_process_group()
    time.sleep(0.1)   # Gloo's threads drop their last tensors; while Python shuts down that would abort it


def is_any(flag, device):
    """Whether a flag is set in any of the processes, or in this one if it is alone."""
    if not dist.is_initialized():
        return flag
    if 'gloo' in dist.get_backend_config():
        device = 'cpu'   # so that nobody has to wait for a GPU
    flags = torch.tensor(float(flag), device=device)
    dist.all_reduce(flags)
    return flags.item() > 0


def shard(opt):
    """An optimizer like opt, which has not stepped yet, of whose state each process keeps only a part:
    ZeRO, stage 1 (https://arxiv.org/abs/1910.02054)."""
    from torch.distributed.optim import ZeroRedundancyOptimizer   # slow to import
    return ZeroRedundancyOptimizer(opt.param_groups, type(opt), lr=opt.defaults['lr'])


def whole_state(opt):
    """The state_dict of an optimizer; of a sharded one it is on rank 0 and on the CPU, and every process
    must call this. (ZeroRedundancyOptimizer's own way takes most of a minute for a gigabyte.)"""
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
