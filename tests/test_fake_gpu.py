"""What the scripts would do on a GPU, from one that has no data (fake_gpu.py): tensors of two devices never meet, and
the host waits for the device only where it is meant to."""

import json

import pytest
import torch
from conftest import TINY

if not hasattr(torch.utils.backend_registration, '_setup_privateuseone_for_python_backend'):
    pytest.skip('this torch has no hook for a device written in Python', allow_module_level=True)

# what the fake device is to find: each kind of wait counts; tensors of two devices, or a shape that depends on data,
# raise
PROBE = '''
import torch

x = torch.ones(3, device='gpu')
y = torch.ones(3)
kept = torch.empty(3)
x.sum().item()
bool(x[0] > 0)
x.cpu()
x.tolist()
kept.copy_(x)
x.copy_(y)
y.to('gpu')
y.to('gpu', non_blocking=True)
assert (y + y).sum() == 6   # on the CPU, numbers are numbers
for mix in (lambda: x + y, lambda: x @ y, lambda: torch.cat([x, y]), lambda: x[x > 0]):
    try:
        mix()
    except Exception:
        continue
    raise AssertionError('it did not raise')
'''
PROBED = ['x.sum().item()', 'bool(x[0] > 0)', 'x.cpu()', 'x.tolist()', 'kept.copy_(x)', 'x.copy_(y)', "y.to('gpu')"]

TRAIN = ['train.py', *TINY, '--n_layer=1', '--block_size=8', '--eval_iters=1', '--sample_chars=3', '--max_iters=3',
         '--eval_interval=3', '--log_interval=2', '--out_dir=out-gpu']

# in a run of TRAIN: what two evaluations, of two splits each, one save and two lines of the log wait for
SCALE = "train.py: 'scaler': scaler.state_dict(),"
OVERFLOW = 'train.py: is_overflow = scaler.is_enabled() and not grad_norm.isfinite()'
LOSS = 'train.py: losses[split] = (loss_sum / n_tokens).item()'
LOG = 'train.py: loss_mean = loss_sum.item() / world_size'
NORM = 'train.py: weights_norm = torch.nn.utils.get_total_norm(raw_model.parameters()).item()'
LINE = 'train.py: prompt = torch.tensor([[first_id]], device=device)'
TEXT = 'train.py: return printable_line(decode(ids[0, 1:].tolist()))[:sample_chars]'
SAVE = 'support/checkpoints.py: write_whole(path, lambda f: torch.save(checkpoint, f))'
TRAINING = {LOSS: 4, LINE: 2, TEXT: 2, LOG: 2, NORM: 1, SAVE: 1}
FLOAT16 = {OVERFLOW: 3, SCALE: 2}   # once in each of three steps; the scale and its age, in a save
RESUMED = {
    'support/processes.py: return moment.reshape(()).clone().to(param.device)': 5,   # of AdamW's parameters
    'support/processes.py: return torch.empty_like(param).copy_(moment)': 14,   # two of each, and one of Muon's four
    LOSS: 4, LINE: 2, TEXT: 2, NORM: 2, SAVE: 2,
}
PROMPT = 'sample.py: idx = torch.tensor([prompt], dtype=torch.long, device=device)'
SAMPLES = 'sample.py: samples = torch.stack(list(steps), dim=1).tolist()'
TOKEN = 'sample.py: for ids, token in zip(samples, tokens.tolist()):'

RUNS = [
    (['probe.py'], {f'probe.py: {line}': 1 for line in PROBED}),
    (TRAIN + ['--optimizer=adamw', '--dtype=float32', '--gradient_accumulation_steps=2'], TRAINING),
    (TRAIN + ['--optimizer=adamw', '--dtype=float16', '--dropout=0.1'], TRAINING | FLOAT16),
    (TRAIN + ['--optimizer=muon', '--dtype=float16', '--gradient_accumulation_steps=2'], TRAINING | FLOAT16),
    # the whole of val.bin, without train.bin, in many batches
    (TRAIN + ['--optimizer=muon', '--dtype=bfloat16', '--dropout=0.1', '--eval_iters=0', '--batch_size=64'],
     TRAINING | {LOSS: 2}),
    # another step, which is not logged, between two evaluations, which save
    (TRAIN + ['--optimizer=muon', '--dtype=bfloat16', '--init_from=resume', '--max_iters=4'], RESUMED),
    # over the end of the window
    (['sample.py', '--out_dir=out-gpu', '--dtype=bfloat16', '--num_samples=2', '--max_new_tokens=12', '--top_p=0.9'],
     {PROMPT: 1, SAMPLES: 1}),
    (['sample.py', '--out_dir=out-gpu', '--dtype=float16', '--num_samples=1', '--max_new_tokens=5', '--stream=True'],
     {PROMPT: 1, TOKEN: 5}),
    (['tools/explain.py', '--out_dir=out-gpu', '--max_new_tokens=5', '--max_mb=0'], {
        'tools/explain.py: idx = torch.tensor([prompt], device=device)': 1,
        'tools/explain.py: ids = idx[0].tolist()': 1,
        'tools/explain.py: return logits[0].float().cpu(), scores.masked_fill(future, -math.inf).softmax(dim=-1)': 1,
        'tools/explain.py: q, k, _ = qkv.permute(2, 0, 3, 1, 4).float().cpu()': 1,
    }),
]


def test_where_the_host_waits(prepared):
    """All in one process, since most of it is imports."""
    (prepared / 'probe.py').write_text(PROBE, encoding='utf-8')
    args = []
    for command, _ in RUNS:
        args += [*command, '--']
    printed = prepared.run('tests/fake_gpu.py', *args[:-1], real=True)
    found = [json.loads(line) for line in printed.splitlines() if line.startswith('{')]
    assert len(found) == len(RUNS)
    for (command, expected), waits in zip(RUNS, found):
        assert waits == expected, command
