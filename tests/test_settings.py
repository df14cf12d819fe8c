"""Settings out of range: each has one line that says so, and how to mend it. To add one, add a row.

The checks are called as they are, with the settings of a script; some rows are run, to see that the scripts call them.
"""

import ast
import math
import sys
import types
from unittest import mock

import pytest
from conftest import ECA, REPO, TINY, defaults_of, train_defaults

from model import GPTConfig
from support import checkpoints, dataset, devices, processes, report, terminal
from support.settings import check_explain_settings, check_sample_settings, check_settings

TRAIN = ['train.py', *TINY, '--max_iters=1', '--out_dir=out-edge']
SAMPLE = ['sample.py', '--out_dir=out-settings', '--num_samples=2', '--max_new_tokens=40']


@pytest.fixture(scope='module')
def trained(prepared):
    """A repository with data, and a run in out-settings."""
    prepared.run('train.py', *TINY, '--max_iters=1', '--out_dir=out-settings')
    return prepared


def refusal(check, *args, **kwargs):
    """What a check says when it refuses, one line."""
    with pytest.raises(SystemExit) as e:
        check(*args, **kwargs)
    assert isinstance(e.value.code, str) and '\n' not in e.value.code
    return e.value.code


# ---------------------------------------------------------------------------
# train.py

def test_the_defaults_are_in_range():
    check_settings(train_defaults())
    check_settings(train_defaults(), world_size=8)
    check_sample_settings(defaults_of('sample.py'))


@pytest.mark.parametrize('change, says', [
    (dict(lr_schedule='step'), "lr_schedule = step is not known; use 'cosine' or 'linear'"),
    (dict(optimizer='sgd'), "optimizer = sgd is not known; use 'adamw' or 'muon'"),
    (dict(block_size=0), 'block_size = 0 is invalid: it must be at least 1'),
    (dict(batch_size=-1), 'batch_size = -1 is invalid: it must be at least 1'),
    (dict(eval_interval=0), 'eval_interval = 0 is invalid: it must be at least 1'),
    (dict(log_interval=0), 'log_interval = 0 is invalid: it must be at least 1'),
    (dict(gradient_accumulation_steps=0), 'gradient_accumulation_steps = 0 is invalid: it must be at least 1'),
    (dict(eval_iters=-1), 'eval_iters = -1 is invalid: it must be at least 0'),
    (dict(max_iters=-1), 'max_iters = -1 is invalid: it must be at least 0'),
    (dict(warmup_iters=-1), 'warmup_iters = -1 is invalid: it must be at least 0'),
    (dict(grad_clip=-1.0), 'grad_clip = -1.0 is invalid: it must be at least 0'),
    (dict(seed=-1), 'seed = -1 is invalid: it must be at least 0'),
    (dict(min_lr=-1.0), 'min_lr = -1.0 is invalid: it must be at least 0'),
    (dict(weight_decay=-1.0), 'weight_decay = -1.0 is invalid: it must be at least 0'),
    (dict(learning_rate=0.0), 'learning_rate = 0.0 and muon_lr = 0.003 must both be above 0'),
    (dict(learning_rate=-1e-3), 'learning_rate = -0.001 and muon_lr = 0.003 must both be above 0'),
    (dict(muon_lr=-1.0), 'learning_rate = 0.0006 and muon_lr = -1.0 must both be above 0'),
    (dict(muon_momentum=1.0), 'muon_momentum = 1.0 is invalid: it must be at least 0 and below 1'),
    (dict(muon_momentum=-0.1), 'muon_momentum = -0.1 is invalid: it must be at least 0 and below 1'),
    (dict(beta1=1.0), 'beta1 = 1.0 is invalid: it must be at least 0 and below 1'),
    (dict(beta1=-0.1), 'beta1 = -0.1 is invalid: it must be at least 0 and below 1'),
    (dict(beta2=1.0), 'beta2 = 1.0 is invalid: it must be at least 0 and below 1'),
    (dict(beta2=-0.1), 'beta2 = -0.1 is invalid: it must be at least 0 and below 1'),
    (dict(beta2=float('nan')), 'beta2 = nan is invalid: it must be at least 0 and below 1'),
    (dict(min_lr=float('nan')), 'min_lr = nan is invalid: it must be at least 0'),
    (dict(learning_rate=float('nan')), 'learning_rate = nan is invalid: it must be finite'),
    (dict(learning_rate=math.inf), 'learning_rate = inf is invalid: it must be finite'),
    (dict(muon_lr=math.inf), 'muon_lr = inf is invalid: it must be finite'),
    (dict(weight_decay=math.inf), 'weight_decay = inf is invalid: it must be finite'),
    (dict(grad_clip=math.inf), 'grad_clip = inf is invalid: it must be finite'),
    (dict(learning_rate=1e-320), 'learning_rate = 1e-320 is invalid: it must be 0, or between 1e-30 and 1e+30'),
    (dict(grad_clip=1e300), 'grad_clip = 1e+300 is invalid: it must be 0, or between 1e-30 and 1e+30'),
    (dict(seed=2**63), 'seed = 9223372036854775808 is invalid: it must be below 2**63'),
    (dict(max_iters=10**5000), 'max_iters = about 2**16609 is invalid: it must be below 2**63'),
    (dict(n_layer=-2**63), 'n_layer = -9223372036854775808 is invalid: it must be below 2**63'),
])
def test_train_settings(change, says):
    assert says in refusal(check_settings, {**train_defaults(), **change})


@pytest.mark.parametrize('change', [
    dict(eval_iters=0), dict(max_iters=0), dict(warmup_iters=0), dict(min_lr=0.0), dict(weight_decay=0.0),
    dict(grad_clip=0.0), dict(seed=0), dict(beta1=0.0, beta2=0.0, muon_momentum=0.0), dict(lr_schedule='linear'),
    dict(optimizer='muon'), dict(seed=2**63 - 1), dict(learning_rate=1e-30),
    dict(batch_size=1, block_size=1, gradient_accumulation_steps=1)])
def test_train_settings_at_the_edge_are_accepted(change):
    check_settings({**train_defaults(), **change})


@pytest.mark.parametrize('steps, tries', [(6, 'try 4 or 8'), (3, 'try 4'), (13, 'try 12 or 16')])
def test_accumulation_that_the_processes_cannot_share(steps, tries):
    said = refusal(check_settings, {**train_defaults(), 'gradient_accumulation_steps': steps}, world_size=4)
    assert f'gradient_accumulation_steps = {steps} cannot be shared by 4 processes; ' in said
    assert said.endswith(tries)


@pytest.mark.parametrize('steps, world_size', [(4, 4), (8, 4), (40, 8), (1, 1), (7, 1)])
def test_accumulation_that_they_can_share(steps, world_size):
    check_settings({**train_defaults(), 'gradient_accumulation_steps': steps}, world_size)


@pytest.mark.parametrize('shape, says', [
    (dict(n_layer=0), 'n_layer = 0 is invalid: it must be at least 1'),
    (dict(n_head=0), 'n_head = 0 is invalid: it must be at least 1'),
    (dict(vocab_size=0), 'vocab_size = 0 is invalid: it must be at least 1'),
    (dict(dropout=1.0), 'dropout = 1.0 is invalid: it must be at least 0 and below 1'),
    (dict(dropout=-0.1), 'dropout = -0.1 is invalid: it must be at least 0 and below 1'),
    (dict(n_embd=33, n_head=2), 'n_embd = 33 cannot be split over n_head = 2 heads; try n_embd = 32'),
])
def test_shapes_that_cannot_be_built(shape, says):
    with pytest.raises(ValueError) as e:
        GPTConfig(**shape)
    assert says == str(e.value)


@pytest.mark.parametrize('pick, args, says', [
    (devices.pick_device, ['cuda:99'], 'device = cuda:99 is not on this machine'),
    (devices.pick_device, ['gpu'], 'device = gpu is not the name of a device'),
    (devices.pick_dtype, ['int8', 'cpu'], 'dtype = int8 is not known; use auto, float32, bfloat16 or float16'),
    (devices.pick_sampling_dtype, ['int8', 'cpu', None], 'dtype = int8 is not known'),
    (devices.pick_compile, ['maybe', 'cpu'], 'compile = maybe is not known; use auto, True or False'),
])
def test_devices_and_their_like(pick, args, says):
    assert says in refusal(pick, *args)


@pytest.mark.parametrize('name, says', [
    ('nada', 'nada/train.bin; choose a --dataset of: autor_char ecadequeiuroz ecadequeiuroz_char openwebtext '),
    ('data/ecadequeiuroz_char', 'char/train.bin; choose a --dataset of: autor_char ecadequeiuroz '),
])
def test_datasets_that_are_not_there(name, says):
    assert says in refusal(dataset.find_dataset, name, 32)


def test_text_shorter_than_the_window(trained):
    assert 'take a longer text or a smaller block_size' in refusal(dataset.find_dataset, str(trained / ECA), 100_000)


@pytest.mark.parametrize('name, says', [
    ('resumed', "init_from = resumed is not known; use 'scratch', 'resume', gpt2,"),
    ('gpt3', 'init_from = gpt3 is not known'),
])
def test_models_of_others_that_are_not_known(name, says):
    assert says in refusal(checkpoints.load_pretrained, name)


@pytest.mark.parametrize('change, says', [
    (dict(out_dir='out-nada'), 'there is no out-nada/ckpt.pt; train first'),
    (dict(n_layer=3), 'n_layer is 3, but 2 in out-settings/ckpt.pt; resume with the config file of that run'),
    (dict(block_size=16), 'block_size is 16, but 32 in out-settings/ckpt.pt'),
    (dict(bias=True), 'bias is True, but False in out-settings/ckpt.pt'),
])
def test_what_cannot_be_resumed(trained, monkeypatch, change, says):
    monkeypatch.chdir(trained.path)
    config = {**train_defaults(), 'out_dir': 'out-settings', 'n_layer': 2, 'n_head': 2, 'n_embd': 32,
              'block_size': 32}
    assert checkpoints.load_run(config)[1]['iter_num'] == 1   # as it is, it can
    assert says in refusal(checkpoints.load_run, {**config, **change})


# ---------------------------------------------------------------------------
# sample.py

@pytest.mark.parametrize('change, says', [
    (dict(num_samples=0), 'num_samples = 0 is invalid: it must be at least 1'),
    (dict(max_new_tokens=0), 'max_new_tokens = 0 is invalid: it must be at least 1'),
    (dict(temperature=-1.0), 'temperature = -1.0 is invalid: it must be at least 0'),
    (dict(top_k=-1), 'top_k = -1 is invalid: it must be at least 0'),
    (dict(top_p=0.0), 'top_p = 0.0 is invalid: it must be above 0 and at most 1'),
    (dict(top_p=1.5), 'top_p = 1.5 is invalid: it must be above 0 and at most 1'),
    (dict(temperature=1e-320), 'temperature = 1e-320 is invalid: it must be 0, or between 1e-30 and 1e+30'),
    (dict(temperature=math.inf), 'temperature = inf is invalid: it must be finite'),
    (dict(temperature=math.nan), 'temperature = nan is invalid: it must be at least 0'),
    (dict(top_p=math.nan), 'top_p = nan is invalid: it must be above 0 and at most 1'),
    (dict(seed=2**64), 'seed = 18446744073709551616 is invalid: it must be below 2**63'),
    (dict(num_samples=2**63), 'num_samples = 9223372036854775808 is invalid: it must be below 2**63'),
])
def test_sample_settings(monkeypatch, change, says):
    monkeypatch.chdir(REPO)
    assert says in refusal(check_sample_settings, {**defaults_of('sample.py'), **change})


@pytest.mark.parametrize('change', [
    dict(temperature=0.0), dict(top_k=0), dict(top_p=1.0), dict(top_p=0.01), dict(num_samples=1, max_new_tokens=1)])
def test_sample_settings_at_the_edge_are_accepted(monkeypatch, change):
    monkeypatch.chdir(REPO)
    check_sample_settings({**defaults_of('sample.py'), **change})


@pytest.mark.parametrize('change, says', [
    (dict(top=0), 'top = 0 is invalid: it must be at least 1'),
    (dict(top_k=-1), 'top_k = -1 is invalid: it must be at least 0'),
    (dict(temperature=1e-320), 'temperature = 1e-320 is invalid: it must be 0, or between'),
    (dict(seed=2**63), 'it must be below 2**63'),
])
def test_explain_settings(change, says):
    check_explain_settings(defaults_of('tools/explain.py'))
    assert says in refusal(check_explain_settings, {**defaults_of('tools/explain.py'), **change})


@pytest.mark.parametrize('start, says', [
    ('', 'the prompt is empty; give at least one character'),
    ('FILE:nada.txt', 'the prompt file nada.txt cannot be read: No such file'),
])
def test_prompts_that_are_not_there(start, says):
    assert says in refusal(terminal.read_prompt, start)


# ---------------------------------------------------------------------------
# the scripts

@pytest.mark.parametrize('command, arg, says', [
    (TRAIN, '--lr_schedule=step', "lr_schedule = step is not known; use 'cosine' or 'linear'"),
    (TRAIN, '--n_embd=33', 'n_embd = 33 cannot be split over n_head = 2 heads; try n_embd = 32'),
    (TRAIN, '--out_dir=train.py', 'out_dir = train.py cannot be written to'),
    (TRAIN, '--warmup_iters=2.5', 'warmup_iters = 2.5 is invalid: it must be a whole number'),
    (TRAIN, '--dataset=a\nb', r'data/a\nb/train.bin'),
    (TRAIN, '--device=xpu', 'device = xpu is not supported here; use auto, cpu, mps'),
    (TRAIN, f'--seed={2**63}', 'it must be below 2**63'),
    (TRAIN, '--learning_rate=1e-320', 'learning_rate = 1e-320 is invalid'),
    (SAMPLE, '--out=/dev/null', 'out = /dev/null cannot be written: it is a device, not a file'),
    (SAMPLE, '--top_p=0', 'top_p = 0.0 is invalid: it must be above 0 and at most 1'),
    (SAMPLE, '--start=', 'the prompt is empty'),
    (SAMPLE, '--keep=-1', "keep = -1 is not between 0 and the model's block_size = 32"),
    (SAMPLE, '--keep=33', "keep = 33 is not between 0 and the model's block_size = 32"),
])
def test_the_scripts_check_them(trained, command, arg, says):
    assert says in trained.run(*command, arg, fails=True)


@pytest.mark.parametrize('command, args', [
    (TRAIN, ['--lr_decay_iters=5', '--warmup_iters=5', '--max_iters=7']),
    (TRAIN, ['--warmup_iters=0', '--lr_decay_iters=0', '--max_iters=0']),
    (SAMPLE, ['--top_k=0']),
    (SAMPLE, ['--top_k=100000']),
    (SAMPLE, ['--temperature=0']),
    (SAMPLE, ['--temperature=1e-30', '--top_p=1e-30']),
    (SAMPLE, ['--temperature=1e30']),
    (TRAIN, [f'--seed={2**63 - 1}', '--learning_rate=1e-30', '--grad_clip=1e-30', '--dropout=1e-30']),
    (SAMPLE, ['--start=' + 'um começo muito longo ' * 9]),
])
def test_settings_at_the_edge_are_accepted(trained, command, args):
    trained.run(*command, *args)


@pytest.mark.parametrize('variables, says', [
    (dict(RANK='0'), 'RANK = 0, as torchrun sets it, but WORLD_SIZE is not set; start with torchrun, or unset RANK'),
    (dict(RANK='0', WORLD_SIZE='1'), 'but MASTER_ADDR is not set'),
    (dict(RANK='0', WORLD_SIZE='1', MASTER_ADDR='localhost'), 'but MASTER_PORT is not set'),
    (dict(RANK='one'), 'RANK = one in the environment is not a number'),
    (dict(RANK=''), 'RANK =  in the environment is not a number'),
    (dict(RANK='0', WORLD_SIZE='many'), 'WORLD_SIZE = many in the environment is not a number'),
    (dict(RANK='0', WORLD_SIZE='1', MASTER_ADDR='localhost', MASTER_PORT='-1'), 'MASTER_PORT = -1 in the environment'),
    (dict(RANK='0', WORLD_SIZE='1', MASTER_ADDR='localhost', MASTER_PORT='70000'), '70000 must be below 65536'),
    (dict(RANK='2', WORLD_SIZE='2', MASTER_ADDR='localhost', MASTER_PORT='1'), 'RANK = 2 must be below WORLD_SIZE = 2'),
])
def test_half_of_torchruns_variables(monkeypatch, variables, says):
    monkeypatch.setattr('support.errors.time.sleep', lambda s: None)
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'LOCAL_WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'):
        monkeypatch.delenv(name, raising=False)
    processes.check_environment()   # without any there is one process
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert says in refusal(processes.check_environment)


def test_rank_alone(trained):
    assert 'RANK = 0, as torchrun sets it' in trained.run(*TRAIN, fails=True, env={'RANK': '0'})
    assert '---' in trained.run(*SAMPLE, env={'RANK': 'none'})   # which is nothing to sample.py


def test_processes_that_do_not_find_each_other(monkeypatch):
    monkeypatch.setenv('MASTER_PORT', '29500')
    monkeypatch.setattr('torch.distributed.init_process_group', mock.Mock(side_effect=RuntimeError('no host\nat all')))
    assert refusal(processes.start, 'gloo').endswith(':29500: no host')


def test_optimized_python(trained):
    """Checks are no asserts, which -O takes away."""
    assert trained.run('-OO', *SAMPLE) == trained.run(*SAMPLE)
    for path in [REPO / 'configurator.py', *REPO.glob('support/*.py'), *REPO.glob('tools/*.py'),
                 *REPO.glob('data/*/prepare.py'), REPO / 'train.py', REPO / 'sample.py']:
        nodes = ast.walk(ast.parse(path.read_text(encoding='utf-8')))
        assert not any(isinstance(node, ast.Assert) for node in nodes), path


def test_wandb_that_is_not_installed(monkeypatch):
    for module in (None, types.ModuleType('wandb')):   # a folder of its runs is a module to Python, but an empty one
        monkeypatch.setitem(sys.modules, 'wandb', module)
        assert 'pip install wandb' in refusal(report.start_wandb, train_defaults())


def test_warmup_longer_than_the_run(trained):
    """It is accepted, for a try, and is said."""
    said = 'warmup_iters = 5 is more than max_iters = 1: the rate stays below its peak'
    assert said in trained.run(*TRAIN)
    assert 'warmup_iters' not in trained.run(*TRAIN, '--warmup_iters=1')
