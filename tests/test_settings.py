"""Settings out of range: each has one line that says so, and how to mend it. To add one, add a row.

The checks are called as they are, with the settings of a script; some rows are run, to see that the scripts call them.
"""

import pytest
from conftest import ECA, REPO, TINY, defaults_of, train_defaults

from model import GPTConfig
from support import checkpoints, dataset, devices, terminal
from support.settings import check_sample_settings, check_settings

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
])
def test_train_settings(change, says):
    assert says in refusal(check_settings, {**train_defaults(), **change})


@pytest.mark.parametrize('change', [
    dict(eval_iters=0), dict(max_iters=0), dict(warmup_iters=0), dict(min_lr=0.0), dict(weight_decay=0.0),
    dict(grad_clip=0.0), dict(seed=0), dict(beta1=0.0, beta2=0.0, muon_momentum=0.0), dict(lr_schedule='linear'),
    dict(optimizer='muon'), dict(batch_size=1, block_size=1, gradient_accumulation_steps=1)])
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
    (devices.pick_sampling_dtype, ['int8', 'cpu'], 'dtype = int8 is not known'),
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
    (dict(out='data'), 'out = data is not the name of a file in a folder that is there'),
    (dict(out='nada/texto.txt'), 'out = nada/texto.txt is not the name of a file'),
])
def test_sample_settings(monkeypatch, change, says):
    monkeypatch.chdir(REPO)
    assert says in refusal(check_sample_settings, {**defaults_of('sample.py'), **change})


@pytest.mark.parametrize('change', [
    dict(temperature=0.0), dict(top_k=0), dict(top_p=1.0), dict(top_p=0.01), dict(num_samples=1, max_new_tokens=1),
    dict(out='texto.txt'), dict(out='data/texto.txt')])
def test_sample_settings_at_the_edge_are_accepted(monkeypatch, change):
    monkeypatch.chdir(REPO)
    check_sample_settings({**defaults_of('sample.py'), **change})


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
    (SAMPLE, '--out=data', 'out = data is not the name of a file in a folder that is there'),
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
    (SAMPLE, ['--start=' + 'um começo muito longo ' * 9]),
])
def test_settings_at_the_edge_are_accepted(trained, command, args):
    trained.run(*command, *args)


def test_warmup_longer_than_the_run(trained):
    """It is accepted, for a try, and is said."""
    said = 'warmup_iters = 5 is more than max_iters = 1: the rate stays below its peak'
    assert said in trained.run(*TRAIN)
    assert 'warmup_iters' not in trained.run(*TRAIN, '--warmup_iters=1')
