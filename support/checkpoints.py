"""
Checkpoints: save, load, resume.

Each is a dict of tensors and plain values, which torch.load(weights_only=True) accepts: a file from a stranger can be
wrong, but cannot run code. What is wrong is found when it is loaded, by checks.py. nanoGPT's checkpoints are read too,
and nanoGPT reads ours. Also here: models that somebody else has trained.
"""

import math
import os
import sys
from contextlib import suppress

import torch

from model import GPT, GPTConfig
from support import processes
from support.checks import check_checkpoint, check_folder_name, check_tokenizer
from support.dataset import DATA
from support.errors import fail, first_line, is_out_of_memory
from support.files import write_whole
from support.pretrained import check_pretrained
from support.run_folder import STATES, find, path_of
from support.torch_file import read_torch_file
from support.tokenizer import (WELL_KNOWN, check_fit, check_transformers, fits, gpt2_tokens, hf_record, hub_id,
                               load_hf_tokenizer, load_tokenizer)

NAME_DATASET = ('put its meta.pkl into a folder data/NAME, and the name into the checkpoint, in Python: '
                'c = torch.load(PATH); c.setdefault("config", {})["dataset"] = NAME; torch.save(c, PATH)')


# -----------------------------------------------------------------------------
# saving

def save_checkpoint(checkpoint, path):
    """Write a dict of tensors and plain values to path: whole, or not at all."""
    write_whole(path, lambda f: torch.save(checkpoint, f))


def save_run(checkpoint, out_dir, is_best, suffix):
    """Write the state of a training to out_dir, once, since a large one takes seconds: if is_best to ckpt.pt, to sample
    and to resume from, else to last.pt, to resume from. suffix is added to the names."""
    last_path = path_of(out_dir, 'last.pt', suffix)
    if not is_best:
        save_checkpoint(checkpoint, last_path)
        return
    save_checkpoint(checkpoint, path_of(out_dir, 'ckpt.pt', suffix))
    with suppress(OSError):   # there is none; or it is being read, on Windows: load_run takes the newer one
        os.remove(last_path)


# -----------------------------------------------------------------------------
# loading

def load_checkpoint(path, dropout=0.0):
    """(model, checkpoint): a GPT on the CPU, and the dict that save_checkpoint or nanoGPT wrote, checked completely but
    for the optimizers' state, which load_optimizers checks. Exits if the file is something else."""
    if not os.path.exists(path):
        advice = 'train first, or give the folder of a run as --out_dir'
        folder = os.path.dirname(path)
        newer = find(folder, ['last.pt']) + [f'{name}.new' for name in find(folder, STATES, '.new')]
        if newer:
            advice = (f'there is {newer[0]}: go on with that training, by train.py --init_from=resume, to its next '
                      'evaluation')
        fail(f'there is no {path}; {advice}')
    try:
        checkpoint = read_torch_file(path)
        check_checkpoint(checkpoint)
        model = GPT(GPTConfig(**{**checkpoint['model_args'], 'dropout': dropout}))
        model.load_state_dict(checkpoint['model'])
    except OSError as e:
        fail(f'{path} cannot be read: {e.strerror}')
    except Exception as e:   # bytes from anywhere can make zipfile raise anything
        if is_out_of_memory(e):
            raise
        fail(f'{path} is not a whole checkpoint of this program or of nanoGPT: {first_line(e)}; copy it again, or '
             'train anew')
    bad = find_not_finite(model)
    if bad:
        fail(f'{path} has weights that are NaN or infinite, in {bad}: that training failed; train anew, at a lower '
             'rate')
    return model, checkpoint


def find_not_finite(model):
    """The name of the first weights that are NaN or infinite, or too large to be squared; None if there are none."""
    if torch.nn.utils.get_total_norm(model.parameters()).isfinite():
        return None
    names = [name for name, weight in model.named_parameters() if not weight.isfinite().all()]
    return names[0] if names else 'all together'


def iter_num_of(path):
    """The iteration at which a state was saved, without reading it all; NaN if the file does not say."""
    try:
        return float(read_torch_file(path, device='meta')['iter_num'])
    except Exception:   # as in load_checkpoint, which says what is wrong
        return math.nan


def load_run(config):
    """(model, checkpoint) to resume from: the newest state in out_dir; with eval_only the one that sample.py writes
    with, which may be a model alone. Exits if train.py's settings describe a model of another shape."""
    out_dir = config['out_dir']
    best_path = os.path.join(out_dir, 'ckpt.pt')
    last_path = os.path.join(out_dir, 'last.pt')
    name = 'ckpt.pt'
    if os.path.exists(last_path):   # nearly always the newer one; not after a kill between two lines of save_run
        is_older = os.path.exists(best_path) and iter_num_of(last_path) < iter_num_of(best_path)
        if not is_older and not (config['eval_only'] and os.path.exists(best_path)):
            name = 'last.pt'
    model, checkpoint = load_checkpoint(os.path.join(out_dir, name), config['dropout'])

    if 'optimizer' not in checkpoint and config['eval_only']:   # a model alone, as tools/export.py writes it
        checkpoint.update(iter_num=0, best_val_loss=math.inf)
    needed = {'iter_num', 'best_val_loss'} if config['eval_only'] else {'optimizer', 'iter_num', 'best_val_loss'}
    if not needed <= checkpoint.keys():
        fail(f'{out_dir}/{name} is a model to sample from, not the state of a training; there is nothing to resume')

    for key in ('n_layer', 'n_head', 'n_embd', 'block_size', 'bias'):
        was = getattr(model.config, key)
        asked = checkpoint.get('config', {}).get(key)   # a finetuned model has another shape than its settings
        if config[key] not in (was, asked):
            fail(f'{key} is {config[key]}, but {was} in {out_dir}/{name}; resume with the config file of that run')

    # what nanoGPT does not keep
    tokens_per_iter = config['gradient_accumulation_steps'] * config['batch_size'] * config['block_size']
    checkpoint.setdefault('elapsed_s', 0.0)
    checkpoint.setdefault('tokens_read', checkpoint['iter_num'] * tokens_per_iter)
    checkpoint.setdefault('lowest_val_loss', checkpoint['best_val_loss'])
    checkpoint.setdefault('lowest_iter', checkpoint['iter_num'])
    checkpoint.setdefault('fitted_iters', 0)
    checkpoint.setdefault('wandb_id', '')
    checkpoint.setdefault('config', {})
    return model, checkpoint


def is_of_other_data(checkpoint, dataset, fingerprint):
    """Whether a run has read other data than the data set of this name and fingerprint. Older checkpoints, and
    nanoGPT's, have no fingerprint."""
    if 'data' in checkpoint:
        return checkpoint['data'] != fingerprint
    return checkpoint['config'].get('dataset', dataset) != dataset


def load_optimizers(optimizers, scaler, checkpoint, config):
    """Give optimizers and the float16 scaler the state in a checkpoint; a sharded optimizer takes its part. Their
    learning rates stay as they are. Exits if the checkpoint is of another optimizer."""
    if 'optimizer' not in checkpoint:   # a model alone, which load_run admits for eval_only
        return
    states = checkpoint['optimizer']
    if not isinstance(states, list):   # nanoGPT has one
        states = [states]
    try:
        if len(states) != len(optimizers):
            raise ValueError(f'it has {len(states)} optimizers, and there are {len(optimizers)}')
        for opt, state in zip(optimizers, states):
            processes.load_state(opt, state)
    except ValueError as e:
        fail(f"{config['out_dir']} was trained with another optimizer than {config['optimizer']}, or its state is "
             f'damaged: {e}; use the same, or train anew')
    if checkpoint.get('scaler'):
        scaler.load_state_dict(checkpoint['scaler'])


# -----------------------------------------------------------------------------
# models to write with, and pretrained ones

def find_checkpoint(name):
    """The path of the checkpoint that init_from names: a file, or the folder of a run; None if it names something
    else."""
    if name in WELL_KNOWN:   # on the Hub, whatever is here
        return None
    if os.path.isfile(name):
        return name
    has_run = any(os.path.exists(os.path.join(name, file)) for file in ('ckpt.pt', 'last.pt'))
    return os.path.join(name, 'ckpt.pt') if has_run else None


def load_model(init_from, out_dir):
    """(model, the record of its tokenizer) to write with: of the run in out_dir for 'resume', else as
    load_pretrained."""
    if init_from != 'resume':
        return load_pretrained(init_from)
    model, checkpoint = load_checkpoint(os.path.join(out_dir, 'ckpt.pt'))
    return model, checkpoint_tokenizer(checkpoint)


def checkpoint_tokenizer(checkpoint):
    """The record of a checkpoint's tokenizer. nanoGPT's checkpoints have none, but name their data set."""
    if 'tokenizer' in checkpoint:
        return checkpoint['tokenizer']
    model_vocab_size = checkpoint['model_args']['vocab_size']
    dataset = checkpoint.get('config', {}).get('dataset', '')
    try:
        check_folder_name(dataset)
    except ValueError as e:
        fail(f'the checkpoint has no vocabulary, and its {e}; {NAME_DATASET}')
    folder = os.path.join(DATA, dataset)
    tokenizer, vocab_size = load_tokenizer(folder)
    if not fits(tokenizer, vocab_size, model_vocab_size) and not dataset:
        fail(f'the checkpoint has no vocabulary, and names no data set; {NAME_DATASET}')
    if not fits(tokenizer, vocab_size, model_vocab_size):
        fail(f'the checkpoint has no vocabulary, and {folder}/meta.pkl is missing or another; prepare its text again')
    try:
        check_tokenizer(tokenizer, model_vocab_size)
    except ValueError as e:
        fail(f'the checkpoint has no vocabulary, and {folder} has another: {e}; prepare its text again')
    return tokenizer


def load_pretrained(name, dropout=0.0, block_size=None):
    """(model, the record of its tokenizer): a GPT on the CPU with the weights of a run of train.py's, named by its
    folder or its ckpt.pt, or of a GPT-2, named by its Hugging Face Hub id or its folder. The record is whole, so that
    later no network is needed."""
    what = f'init_from = {name}'
    path = find_checkpoint(name)
    if path is not None:
        model, checkpoint = load_checkpoint(path, dropout)
        try:
            model.crop_block_size(block_size or model.config.block_size)
        except ValueError as e:
            fail(f'{what} cannot be used: {e}')
        return model, checkpoint_tokenizer(checkpoint)
    if name not in WELL_KNOWN and '/' not in name and not os.path.isdir(name):
        fail(f"{what} is not known; use 'scratch', 'resume', {', '.join(WELL_KNOWN)}, OWNER/NAME of a GPT-2 on the "
             'Hugging Face Hub, or the folder of a run or of a GPT-2')
    check_transformers(what)
    from transformers.utils.logging import disable_progress_bar
    if not sys.stderr.isatty():
        disable_progress_bar()
    source = hub_id(name)
    try:
        check_pretrained(source)
        model = GPT.from_pretrained(source, dropout)
        model.crop_block_size(block_size or model.config.block_size)
        record = None
        if name in WELL_KNOWN:
            record = {'kind': 'gpt2', 'bpe': [token.decode('latin-1') for token in gpt2_tokens({})]}
    except Exception as e:   # a hub, a cache and strangers' files can raise anything
        if is_out_of_memory(e):
            raise
        fail(f'{what} cannot be loaded: {first_line(e)}')
    bad = find_not_finite(model)
    if bad:
        fail(f'{what} has weights that are NaN or infinite, in {bad}: that training failed; take another model')
    try:
        if record is None:
            hf = load_hf_tokenizer(source, what)
            own_ids = hf.backend_tokenizer.get_vocab(with_added_tokens=False)
            check_fit(max(own_ids.values(), default=0) + 1, model.config.vocab_size)   # its json takes memory by these
            record = hf_record(hf)
            if record['eos'] is not None and hf.eos_token_id >= model.config.vocab_size:   # transformers added it
                record['eos'] = None
        check_tokenizer(record, model.config.vocab_size)
    except ValueError as e:
        fail(f'{what} cannot be used: {e}; take a model whose tokenizer fits')
    return model, record
