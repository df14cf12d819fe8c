"""Many processes, real torchrun, Gloo: they learn what one learns, one of them writes, and none is left behind."""

import re
import socket
import subprocess

import pytest
from conftest import TINY, assert_same_run, load, newest, read_log

from support import devices

TORCHRUN = ['-m', 'torch.distributed.run']
ARGS = [*TINY, '--max_iters=20', '--eval_interval=10', '--gradient_accumulation_steps=4', '--warmup_iters=2']


@pytest.fixture(scope='module')
def one(prepared, tmp_path_factory):
    """The folder of ARGS run by one process."""
    out = tmp_path_factory.mktemp('one') / 'out'
    prepared.run('train.py', *ARGS, f'--out_dir={out}')
    return out


def torchrun(workspace, nproc, *args, **kwargs):
    return workspace.run(*TORCHRUN, '--standalone', f'--nproc_per_node={nproc}', 'train.py', *args, **kwargs)


def assert_same_curve(a, b):
    """Losses to 1e-4, row by row."""
    for x, y in zip(read_log(a), read_log(b), strict=True):
        assert x['iter'] == y['iter']
        for k in ('loss', 'train_loss', 'val_loss'):
            assert x[k] == y[k] == '' or abs(float(x[k]) - float(y[k])) < 1e-4


@pytest.mark.parametrize('nproc', [2, 4])
def test_ranks_equal_one(prepared, one, tmp_path, nproc):
    """The same global batch, the same loss curve over 20 steps; evaluations, which the ranks share, included."""
    printed = torchrun(prepared, nproc, *ARGS, f'--out_dir={tmp_path}/out')
    assert_same_curve(one, tmp_path / 'out')
    assert printed.count('device: ') == printed.count('step 20: ') == printed.count('iter 7: ') == 1
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['ckpt.pt', 'log.csv']


def test_two_nodes_equal_one(prepared, one, tmp_path):
    """Two torchrun, as on two machines, here over the loopback."""
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    command = [*TORCHRUN, '--nnodes=2', '--nproc_per_node=1', '--master_addr=127.0.0.1', f'--master_port={port}']
    nodes = [prepared.start(*command, f'--node_rank={rank}', 'train.py', *ARGS, f'--out_dir={tmp_path}/out',
                            stderr=subprocess.STDOUT)
             for rank in (0, 1)]
    printed = [node.communicate(timeout=200)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], printed
    assert 'step 20: ' in printed[0] and 'step 20: ' not in printed[1]
    assert_same_curve(one, tmp_path / 'out')


def test_sharded_optimizer(prepared, one, tmp_path):
    """The state in parts is the state, and any number of processes resume from it: two to one, and one to two."""
    sharded = [*ARGS, '--shard_optimizer=True']
    torchrun(prepared, 2, *sharded, '--max_iters=10', '--lr_decay_iters=2000', f'--out_dir={tmp_path}/out')
    halfway = newest(tmp_path / 'out')
    n_params = sum(len(group['params']) for state in halfway['optimizer'] for group in state['param_groups'])
    assert n_params == sum(len(state['state']) for state in halfway['optimizer']) == len(halfway['model']) - 1   # tied
    prepared.run('train.py', *sharded, '--init_from=resume', f'--out_dir={tmp_path}/out')
    assert_same_run(one, tmp_path / 'out', atol=1e-3)
    assert_same_curve(one, tmp_path / 'out')

    prepared.run('train.py', *ARGS, '--max_iters=10', f'--out_dir={tmp_path}/back')
    torchrun(prepared, 2, *sharded, '--init_from=resume', f'--out_dir={tmp_path}/back')
    assert_same_run(one, tmp_path / 'back', atol=1e-3)
    assert_same_curve(one, tmp_path / 'back')


HOLDS = '''
import sys
import torch
from model import GPT, GPTConfig
from support import processes

processes.start(processes.pick_backend('auto', 'cpu'))
model = GPT(GPTConfig(8, 11, 2, 2, 16))
muon = dict(lr=1e-3, momentum=0.95, ns_dtype='float32')
optimizers = [processes.shard(opt) for opt in model.configure_optimizers(0.1, 1e-3, (0.9, 0.99), 'cpu', muon)]
model(*torch.zeros(2, 1, 8, dtype=torch.long))[1].backward()
for opt in optimizers:
    opt.step()
held = [len(opt.optim.state) for opt in optimizers]
n = [sum(len(group['params']) for group in opt.param_groups) for opt in optimizers]
sys.stdout.write(f'holds {held[0]} {held[1]} of {n[0]} {n[1]}\\n')
sys.stdout.flush()
processes.end()
'''


def test_each_rank_holds_a_part(prepared):
    """Sharded, no rank has state for every parameter, and together they have it once."""
    (prepared / 'hold.py').write_text(HOLDS, encoding='utf-8')
    printed = prepared.run(*TORCHRUN, '--standalone', '--nproc_per_node=2', 'hold.py')
    (a, b, n, m), (c, d, *_) = [map(int, found) for found in re.findall(r'holds (\d+) (\d+) of (\d+) (\d+)', printed)]
    assert a + c == n and b + d == m and 0 < a < n and 0 < b < m


def test_compiled_ranks_equal_one(prepared, tmp_path):
    if not devices.pick_compile('true', 'cpu')[0]:
        pytest.skip('torch.compile does not work on this machine')
    args = [*ARGS, '--max_iters=4', '--n_layer=1', '--eval_iters=2']
    prepared.run('train.py', *args, f'--out_dir={tmp_path}/one')
    printed = torchrun(prepared, 2, *args, '--compile=True', f'--out_dir={tmp_path}/two')
    assert 'compile: True' in printed
    assert_same_curve(tmp_path / 'one', tmp_path / 'two')
    assert not any(k.startswith(('module.', '_orig_mod.')) for k in load(tmp_path / 'two' / 'ckpt.pt')['model'])


def torchrun_that_fails(workspace, *args):
    """What a torchrun says that must end, in failure, and leave no process behind."""
    process = workspace.start(*TORCHRUN, '--standalone', *args)
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    left = subprocess.run(['pgrep', '-f', f'{args[-1]}'], capture_output=True, text=True).stdout.split()
    assert not left
    return errors


@pytest.mark.parametrize('steps, tries', [(6, 'try 4 or 8'), (3, 'try 4')])
def test_accumulation_that_the_ranks_cannot_share(prepared, tmp_path, steps, tries):
    """It is said once. (More of the kind in test_settings.py.)"""
    errors = torchrun_that_fails(prepared, '--nproc_per_node=4', 'train.py', *ARGS,
                                 f'--gradient_accumulation_steps={steps}', f'--out_dir={tmp_path}/out')
    said = [line for line in errors.splitlines() if 'cannot be shared by 4 processes' in line]
    assert len(said) == 1 and said[0].endswith(tries) and 'Traceback' not in errors.split('cannot be shared')[0]


NO_DATA = '''
import os
if os.environ['RANK'] == '1':
    dataset = 'nada'
'''
DIES = '''
import os, threading, time


def die():
    while not os.path.exists('{path}'):
        time.sleep(0.05)
    os._exit(7)


if os.environ['RANK'] == '1':
    threading.Thread(target=die, daemon=True).start()
'''


@pytest.mark.parametrize('fault, says', [(NO_DATA, 'train.py: there is no'), (DIES, 'exitcode  : 7')],
                         ids=['before', 'during'])
def test_an_error_on_one_rank_ends_all(prepared, tmp_path, fault, says):
    """Rank 1 finds no data, or dies in mid-training: the run ends at once, not after a timeout, and says why."""
    fault = fault.replace('{path}', f'{tmp_path}/out/ckpt.pt')
    (tmp_path / 'fault.py').write_text(fault, encoding='utf-8')
    errors = torchrun_that_fails(prepared, '--nproc_per_node=2', 'train.py', *ARGS, tmp_path / 'fault.py',
                                 '--max_iters=1000000', f'--out_dir={tmp_path}/out')
    assert says in errors


def test_one_rank_evaluates_as_many(prepared, one, tmp_path):
    """The whole of val.bin, in parts: as one process."""
    args = ['--init_from=resume', '--eval_only=True', '--eval_iters=0', '--batch_size=5', f'--out_dir={one}']
    alone = prepared.run('train.py', *ARGS, *args)
    shared = torchrun(prepared, 4, *ARGS, *args)
    found = [re.search(r'step \d+: val loss (\S+), (\S+) bits per character', text) for text in (alone, shared)]
    assert abs(float(found[0][1]) - float(found[1][1])) < 2e-4 and abs(float(found[0][2]) - float(found[1][2])) < 2e-4


@pytest.mark.parametrize('args, says', [
    (['--backend=nccl'], 'backend = nccl cannot join processes on cpu; use --backend=auto'),
    (['--backend=mpi'], 'backend = mpi cannot join processes on cpu'),
])
def test_backends_that_are_invalid(prepared, args, says):
    """As one process of a torchrun sees it."""
    env = {'RANK': '0', 'WORLD_SIZE': '1', 'MASTER_ADDR': 'localhost', 'MASTER_PORT': '29500'}
    assert says in prepared.run('train.py', *ARGS, *args, env=env, fails=True)


def test_ranks_agree_on_the_length_and_on_the_end(prepared, tmp_path):
    """`minutes` by the clock of rank 0, and patience."""
    printed = torchrun(prepared, 2, *ARGS, '--minutes=0.05', '--eval_interval=1000', f'--out_dir={tmp_path}/timed')
    n = int(re.search(r'minutes = .*lr_decay_iters = (\d+)$', printed, re.MULTILINE)[1])
    assert f'done: {n} iterations' in printed and newest(tmp_path / 'timed')['iter_num'] == n
    printed = torchrun(prepared, 2, *ARGS, '--patience=1', '--eval_interval=1', '--learning_rate=3', '--muon_lr=3',
                       '--max_iters=1000', f'--out_dir={tmp_path}/impatient')
    assert 'stopped early' in printed
