"""
Checkpoints: ckpt.pt is the best state of a run (or the last evaluated), last.pt the newest, if that is another one.

Each is a dict of tensors and plain values, which torch.load(weights_only=True) accepts: a file from a stranger can be
wrong, but cannot run code. What is wrong is found when it is loaded, by checks.py. nanoGPT's checkpoints are read too,
and nanoGPT reads ours. Also here: the folder of a run, and models that somebody else has trained.
"""

import math
import os
import sys

import torch

from model import GPT, GPTConfig
from support import processes
from support.checks import check_checkpoint, check_folder_name, check_tokenizer
from support.dataset import DATA
from support.errors import fail, first_line, is_out_of_memory
from support.files import check_regular, lock, remove_halves, write_whole
from support.pretrained import check_pretrained
from support.torch_file import read_torch_file
from support.tokenizer import (WELL_KNOWN, check_fit, check_transformers, fits, gpt2_tokens, hf_record, hub_id,
                               load_hf_tokenizer, load_tokenizer)

locks = []   # of folders, while this process lives
NAME_DATASET = ('put its meta.pkl into a folder data/NAME, and the name into the checkpoint, in Python: '
                'c = torch.load(PATH); c.setdefault("config", {})["dataset"] = NAME; torch.save(c, PATH)')


# -----------------------------------------------------------------------------
# the folder of a run

def claim_out_dir(out_dir):
    """Make the folder of a run, lock it while this process lives, and remove temporary files of killed processes."""
    try:
        os.makedirs(out_dir, exist_ok=True)
        locks.append(lock(out_dir))
        remove_halves(out_dir, 'ckpt.pt', 'last.pt', 'log.csv')
    except BlockingIOError:
        fail(f'out_dir = {out_dir} is in use by another training; wait for it, or choose another with --out_dir=')
    except OSError as e:
        fail(f'out_dir = {out_dir} cannot be written to: {e.strerror}; choose another with --out_dir=')


def claim_old_run(out_dir):
    """As claim_out_dir, of a run to resume: before it is read, since another training may be saving there. Makes no
    folder where there is none."""
    if os.path.isdir(out_dir):
        claim_out_dir(out_dir)


def find_old_files(out_dir):
    """The names of another training's files, which the training that begins in this folder sets aside when its own
    first state is on the disk: until then they are that training's still, and it can be resumed."""
    names = [name for name in ('ckpt.pt', 'last.pt', 'log.csv') if os.path.lexists(os.path.join(out_dir, name))]
    checkpoints = [name for name in names if name.endswith('.pt')]
    if checkpoints:
        print(f'{out_dir} has {" and ".join(checkpoints)} of another training, which this one will replace, and keep '
              'as .old')
    return names


# -----------------------------------------------------------------------------
# saving

def save_checkpoint(checkpoint, path):
    """Write a dict of tensors and plain values to path: whole, or not at all."""
    write_whole(path, lambda f: torch.save(checkpoint, f))


def save_run(checkpoint, out_dir, is_best, set_old_aside):
    """Write the state of a training to out_dir, once, since a large one takes seconds: if is_best as ckpt.pt, to
    sample and to resume from, else as last.pt, to resume from. set_old_aside() is called when the state is on the
    disk, before it takes a name."""
    last_path = os.path.join(out_dir, 'last.pt')
    best_path = os.path.join(out_dir, 'ckpt.pt')

    def write(f):
        torch.save(checkpoint, f)
        f.flush()
        os.fsync(f.fileno())   # a full disk shows here, and another training's files stay where they are
        set_old_aside()

    write_whole(last_path, write)
    try:
        if is_best:   # after a kill at this point, the evaluation is repeated
            check_regular(best_path)
            os.replace(last_path, best_path)
    except OSError as e:   # on Windows, while another program reads the file
        fail(f'{e.filename} could not be renamed ({e.strerror}); close what uses it, and add --init_from=resume')


# -----------------------------------------------------------------------------
# loading

def load_checkpoint(path, dropout=0.0):
    """(model, checkpoint): a GPT on the CPU, and the dict that save_checkpoint or nanoGPT wrote, checked completely but
    for the optimizers' state, which load_optimizers checks. Exits if the file is something else."""
    if not os.path.exists(path):
        advice = 'train first, or give the folder of a run as --out_dir'
        if os.path.exists(os.path.join(os.path.dirname(path), 'last.pt')):
            advice = ('there is last.pt: go on with that training, by train.py --init_from=resume, to its next '
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


def load_run(config):
    """(model, checkpoint) to resume from: the newest state in out_dir; with eval_only the one that sample.py writes
    with, which may be a model alone. Exits if train.py's settings describe a model of another shape."""
    out_dir = config['out_dir']
    names = ['last.pt', 'ckpt.pt']   # the newest state, if there are both
    if config['eval_only']:
        names.reverse()
    found = [name for name in names if os.path.exists(os.path.join(out_dir, name))]
    name = found[0] if found else 'ckpt.pt'
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
    return model, checkpoint


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
    """(model, the record of its tokenizer): a GPT on the CPU with the weights of a GPT-2, named by its Hugging Face
    Hub id or its folder. The record is whole, so that later no network is needed."""
    what = f'init_from = {name}'
    if name not in WELL_KNOWN and '/' not in name and not os.path.isdir(name):
        fail(f"{what} is not known; use 'scratch', 'resume', {', '.join(WELL_KNOWN)}, OWNER/NAME of a GPT-2 on the "
             'Hugging Face Hub, or a folder that has one')
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
