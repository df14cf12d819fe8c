"""Checks of settings: what would fail later, and less clearly, fails here in one line."""

import math

from support.errors import fail

SMALLEST = 1e-30   # float32, in which models compute, ends at about 1e-38 and 3e38; these leave room for products
LARGEST = 1e30


def check_settings(config, world_size=1):
    """Exit unless train.py's settings, a dict, are in range. What depends on the machine or on the data is checked
    where it is chosen or opened; the model's shape by GPTConfig."""
    check_at_least(1, config, 'eval_interval', 'log_interval', 'batch_size', 'block_size',
                   'gradient_accumulation_steps')
    check_at_least(0, config, 'eval_iters', 'max_iters', 'warmup_iters', 'min_lr', 'weight_decay', 'grad_clip', 'seed',
                   'minutes', 'patience')
    if config['learning_rate'] <= 0 or config['muon_lr'] <= 0:
        fail(f"learning_rate = {config['learning_rate']} and muon_lr = {config['muon_lr']} must both be above 0")
    check_below_one(config, 'dropout', 'muon_momentum', 'beta1', 'beta2')
    check_one_of(('adamw', 'muon'), config, 'optimizer')
    check_one_of(('cosine', 'linear'), config, 'lr_schedule')
    check_numbers(config)
    check_shared(config['gradient_accumulation_steps'], world_size)


def check_sample_settings(config):
    """Exit unless sample.py's settings, a dict, are in range. `keep` is checked once the model is known."""
    check_at_least(1, config, 'num_samples', 'max_new_tokens')
    check_at_least(0, config, 'temperature', 'top_k')
    if not 0 < config['top_p'] <= 1:
        fail(f"top_p = {config['top_p']} is invalid: it must be above 0 and at most 1")
    check_numbers(config)


def check_explain_settings(config):
    """Exit unless the settings of tools/explain.py, a dict, are in range. Those that depend on the model are checked
    once it is known."""
    check_at_least(0, config, 'max_new_tokens', 'temperature', 'top_k', 'max_mb')
    check_at_least(1, config, 'top')
    check_numbers(config)


def check_numbers(config):
    """Exit if one of these settings is a number that nothing can compute with: a whole one beyond 64 bits, one that
    is infinite or none at all, or too large or too small for float32."""
    for name, value in config.items():
        if isinstance(value, int) and abs(value) >= 2**63:
            fail(f'{name} = {short(value)} is invalid: it must be below 2**63')
        if isinstance(value, float) and not math.isfinite(value):
            fail(f'{name} = {value} is invalid: it must be finite')
        if isinstance(value, float) and value != 0 and not SMALLEST <= abs(value) <= LARGEST:
            fail(f'{name} = {value} is invalid: it must be 0, or between {SMALLEST} and {LARGEST}')


def short(number):
    """A whole number, not all of whose digits need be seen."""
    return str(number) if abs(number) < 10**30 else f'about 2**{abs(number).bit_length() - 1}'


def check_at_least(least, config, *names):
    """Exit if one of these settings is below the least."""
    for name in names:
        if not config[name] >= least:   # NaN is not
            fail(f'{name} = {config[name]} is invalid: it must be at least {least}')


def check_below_one(config, *names):
    """Exit if one of these settings is not in [0, 1)."""
    for name in names:
        if not 0 <= config[name] < 1:
            fail(f'{name} = {config[name]} is invalid: it must be at least 0 and below 1')


def check_one_of(choices, config, name):
    """Exit if a setting is none of its choices."""
    if config[name] not in choices:
        fail(f"{name} = {config[name]} is not known; use {' or '.join(map(repr, choices))}")


def check_shared(gradient_accumulation_steps, world_size):
    """Exit unless the micro-batches of an iteration can be shared equally by the processes."""
    if gradient_accumulation_steps % world_size == 0:
        return
    fewer = gradient_accumulation_steps // world_size * world_size
    more = fewer + world_size
    tries = f'{fewer} or {more}' if fewer else more
    fail(f'gradient_accumulation_steps = {gradient_accumulation_steps} cannot be shared by {world_size} processes; '
         f'try {tries}')
