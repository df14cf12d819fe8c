"""The files in config/: each runs, repeats no default, and agrees with the file whose recipe it is."""

import ast
import re
import sys

import pytest
from conftest import REPO, train_defaults

from support.settings import check_settings

FILES = sorted(path.name for path in (REPO / 'config').glob('*.py'))


def assigned(name):
    """The settings that a config file assigns, in order."""
    tree = ast.parse((REPO / 'config' / name).read_text(encoding='utf-8'))
    targets = [target for line in tree.body for target in line.targets]   # of assignments: there is nothing else
    return [target.id for target in targets]


@pytest.fixture
def settings_of(monkeypatch, capsys):
    """A function: all settings of train.py as configurator.py leaves them after a config file."""
    configurator = compile((REPO / 'configurator.py').read_text(encoding='utf-8'), 'configurator.py', 'exec')

    def run(name):
        monkeypatch.setattr(sys, 'argv', ['train.py', str(REPO / 'config' / name)])
        settings = train_defaults()
        namespace = dict(settings)
        exec(configurator, namespace)
        assert capsys.readouterr().out == f'Overriding config with {REPO / "config" / name}\n'
        return {key: namespace[key] for key in settings}

    return run


@pytest.mark.parametrize('name', FILES)
def test_every_file_gives_valid_settings(name, settings_of):
    config = settings_of(name)
    check_settings(config)
    assert config['n_embd'] % config['n_head'] == 0
    assert (REPO / 'data' / config['dataset'] / 'prepare.py').exists()
    assert config['lr_decay_iters'] == config['max_iters'] or not config['decay_lr'] or config['eval_only']
    # each training has a folder of its own
    assert config['out_dir'] != train_defaults()['out_dir'] or config['eval_only']


@pytest.mark.parametrize('name', FILES)
def test_no_file_repeats_a_default_or_a_line(name, settings_of):
    default = train_defaults()
    config = settings_of(name)
    keys = assigned(name)
    assert len(keys) == len(set(keys))
    assert [key for key in keys if config[key] == default[key]] == []
    assert [key for key in default if config[key] != default[key] and key not in keys] == []


@pytest.mark.parametrize('name', FILES)
def test_every_file_says_what_it_trains(name):
    """In its first line; and the commands in its comments name files that are there."""
    source = (REPO / 'config' / name).read_text(encoding='utf-8')
    assert source.startswith('# ')
    for path in re.findall(r'\b(?:config|data|docs|tools)/[\w/]+\.\w+', source):
        assert (REPO / path).exists(), path


def test_an_authors_text_is_trained_by_the_laptop_recipe(settings_of):
    author = settings_of('train_autor_char.py')
    laptop = settings_of('train_eca_char_laptop.py')
    different = {key for key in author if author[key] != laptop[key]}
    # a whole book is read many times, so its best moment is looked for more often; the file's comment says so
    assert different == {'out_dir', 'dataset', 'wandb_project', 'eval_interval'}
    source = (REPO / 'config' / 'train_autor_char.py').read_text(encoding='utf-8')
    assert 'train_eca_char_laptop.py' in source and '# eval_interval' in source


def test_the_four_evaluations_differ_in_the_model_alone(settings_of):
    files = [name for name in FILES if name.startswith('eval_gpt2')]
    models = [settings_of(name)['init_from'] for name in files]
    assert sorted(models) == ['gpt2', 'gpt2-large', 'gpt2-medium', 'gpt2-xl']
    rests = [{k: v for k, v in settings_of(name).items() if k != 'init_from'} for name in files]
    assert all(rest == rests[0] for rest in rests)
