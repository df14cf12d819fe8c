"""
A run on the disk: log.csv, ckpt.pt (the best state, or the last evaluated), last.pt (the newest, if that is another),
and the optimizers' part in them. Every file is whole or not there, and holds tensors and plain values only.
"""

import csv
import glob
import math
import os
import shlex
import subprocess
import sys
import zipfile

import torch
import torch.distributed as dist
from tqdm import tqdm

from model import GPT, GPTConfig
from runtime import fail, first_line, is_out_of_memory

try:
    import fcntl
except ImportError:   # Windows
    fcntl = None


def open_log(out_dir, iter_num, is_new=False, is_off=False):
    """(csv.DictWriter on out_dir/log.csv, names of checkpoints of another training there). Of a run that resumes at
    iter_num > 0 the rows before that are kept. out_dir is locked, and tidied up. is_new: this is another training than
    what is there, which is said, and whose log is set aside. is_off: nothing is written."""
    columns = ['iter', 'elapsed_s', 'lr', 'loss', 'train_loss', 'val_loss']
    path, others = os.path.join(out_dir, 'log.csv') if not is_off else os.devnull, []
    try:
        if not is_off:
            os.makedirs(out_dir, exist_ok=True)
            lock(out_dir)
            for name in ('ckpt.pt', 'last.pt', 'log.csv'):   # halves, left by a process that was killed
                for half in glob.glob(os.path.join(glob.escape(out_dir), f'{name}.*.tmp')):
                    os.remove(half)
            others = [name for name in ('ckpt.pt', 'last.pt') if is_new and os.path.exists(os.path.join(out_dir, name))]
            if others:
                print(f'{out_dir} has {" and ".join(others)} of another training, which this one will replace')
                set_aside(['log.csv'], out_dir)
            rows = [','.join(columns) + '\n']
            if iter_num > 0 and os.path.exists(path):
                with open(path, encoding='utf-8', errors='replace') as f:   # damaged rows are left out
                    rows += [row for row in f if row.count(',') == rows[0].count(',') and row.endswith('\n')
                             and row.split(',')[0].isdigit() and int(row.split(',')[0]) < iter_num]
            write_whole(path, lambda f: f.write(''.join(rows).encode()))
        f = open(path, 'a', encoding='utf-8', newline='', buffering=1)   # a row at a time
        return csv.DictWriter(f, columns, lineterminator='\n'), others
    except BlockingIOError:
        fail(f'out_dir = {out_dir} is in use by another training; wait for it, or choose another with --out_dir=')
    except OSError as e:
        fail(f'out_dir = {out_dir} cannot be written to: {e.strerror}; choose another with --out_dir=')


def lock(out_dir):
    """Keep out_dir for this process while it lives: raises BlockingIOError if another one has it. (Not on Windows, and
    not between machines.)"""
    try:
        if fcntl:
            fcntl.flock(os.open(out_dir, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:   # a file system without locks
        pass


def write_whole(path, write):
    """Have write(file) fill a file that then takes the name path: whole, or not at all."""
    target = os.path.realpath(path)   # a link stays one
    temporary = f'{target}.{os.getpid()}.tmp'
    try:
        with open(temporary, 'wb') as f:
            write(f)
            f.flush()
            os.fsync(f.fileno())   # on the disk before the name points to it
        os.replace(temporary, target)
    except (OSError, RuntimeError) as e:   # torch reports a full disk as a RuntimeError
        reason = getattr(e, 'strerror', None) or first_line(e)
        fail(f'{path} could not be written ({reason}); what was there before is unharmed')
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def save_checkpoint(checkpoint, path):
    """Write a dict of tensors and plain values to path."""
    write_whole(path, lambda f: torch.save(checkpoint, f))


def save_run(checkpoint, out_dir, is_kept, others):
    """Write the state of a training to out_dir, once, since a large one takes seconds: if it is to be kept as ckpt.pt,
    to sample and to resume from, else as last.pt, to resume from. others: names of checkpoints of another training
    there. The first evaluation replaces them; a stop before that, perhaps of a mistaken start, sets them aside."""
    last = os.path.join(out_dir, 'last.pt')
    try:
        set_aside([] if is_kept else others, out_dir)
        others.clear()
        save_checkpoint(checkpoint, last)
        if is_kept:   # a kill just before this repeats the evaluation
            os.replace(last, os.path.join(out_dir, 'ckpt.pt'))
    except OSError as e:   # on Windows, while another program reads the file
        fail(f'{e.filename} could not be renamed ({e.strerror}); close what uses it, and add --init_from=resume')


def set_aside(names, out_dir):
    """Give files of another training names with .old at the end."""
    for name in names:
        path = os.path.join(out_dir, name)
        if os.path.exists(path):
            os.replace(path, f'{path}.old')
            tqdm.write(f'{path}, of another training, is now {path}.old')


def load_checkpoint(path, dropout=0.0):
    """(model, checkpoint): a GPT on the CPU, and the dict that save_checkpoint or nanoGPT wrote. Loads tensors and
    plain values only, so a file from a stranger can be wrong but can do nothing."""
    if not os.path.exists(path):
        is_begun = os.path.exists(os.path.join(os.path.dirname(path), 'last.pt'))
        fail(f'there is no {path}; ' + (
            'there is last.pt: go on with that training, by train.py --init_from=resume, to its next evaluation'
            if is_begun else 'train first, or give the folder of a run as --out_dir'))
    try:
        if zipfile.ZipFile(path).testzip():   # torch.load does not look at the checksums that torch.save writes
            raise ValueError
        checkpoint = torch.load(path, map_location='cpu', weights_only=True)
        model = GPT(GPTConfig(**{**checkpoint['model_args'], 'dropout': dropout}))
        # in nanoGPT's files a compiled model's names carry a prefix, and on torch 1 the causal mask was a weight
        weights = {k.removeprefix('_orig_mod.'): v for k, v in checkpoint['model'].items()}
        model.load_state_dict({k: v for k, v in weights.items() if not k.endswith('.attn.bias')})
        tokenizer = checkpoint.get('tokenizer', {'kind': 'gpt2'})
        if tokenizer['kind'] == 'char' and len(tokenizer['itos']) != model.config.vocab_size:
            raise ValueError
        if not torch.nn.utils.get_total_norm(model.parameters()).isfinite():
            fail(f'{path} has weights that are NaN or infinite: that training failed; train anew, at a lower rate')
        return model, checkpoint
    except OSError as e:
        fail(f'{path} cannot be read: {e.strerror}')
    except Exception as e:   # bytes from anywhere can make torch raise anything
        if is_out_of_memory(e):
            raise
        fail(f'{path} is not a whole checkpoint of this program or of nanoGPT')


def load_run(out_dir, config):
    """(model, checkpoint) of the newest state in out_dir, once it is clear that the settings describe that model. For
    eval_only the model that sample.py writes with, which may be a model alone."""
    names = ('ckpt.pt', 'last.pt') if config['eval_only'] else ('last.pt', 'ckpt.pt')
    newest = next((name for name in names if os.path.exists(os.path.join(out_dir, name))), 'ckpt.pt')
    model, checkpoint = load_checkpoint(os.path.join(out_dir, newest), config['dropout'])
    if 'optimizer' not in checkpoint and config['eval_only']:   # a model alone, as export.py writes it
        checkpoint.update(iter_num=0, best_val_loss=math.inf)
    elif 'optimizer' not in checkpoint or not all(
            isinstance(checkpoint.get(k), (int, float, torch.Tensor)) for k in ('iter_num', 'best_val_loss')):
        fail(f'{out_dir}/{newest} is a model to sample from, not the state of a training; there is nothing to resume')
    for k in ('n_layer', 'n_head', 'n_embd', 'block_size', 'bias'):
        was = getattr(model.config, k)
        if config[k] not in (was, checkpoint.get('config', {}).get(k)):   # a finetuned model has a shape of its own
            fail(f'{k} is {config[k]}, but {was} in {out_dir}/{newest}; resume with the config file of that run')
    return model, checkpoint


def gather_state(opt):
    """The state_dict of an optimizer that is sharded over processes, as if it were not: on rank 0, and on the CPU.
    Every process must call it. (ZeroRedundancyOptimizer's own way takes most of a minute for a gigabyte.)"""
    params = [p for group in opt.param_groups for p in group['params']]
    mine = opt.optim.state
    part = {i: {k: v.cpu() for k, v in mine[p].items()} for i, p in enumerate(params) if p in mine}
    parts = [{}] * dist.get_world_size()
    dist.gather_object(part, parts if dist.get_rank() == 0 else None)
    ids = iter(range(len(params)))
    groups = [{**group, 'params': [next(ids) for _ in group['params']]} for group in opt.param_groups]
    return {'state': {i: state for part in parts for i, state in sorted(part.items())}, 'param_groups': groups}


def load_states(optimizers, checkpoint, otherwise):
    """Give optimizers the moments in a checkpoint; a sharded one takes its part. Their rates stay as they are. The
    script ends with the line `otherwise` if the checkpoint is of other optimizers."""
    if 'optimizer' not in checkpoint:   # a model alone, which load_run admits only for eval_only
        return
    states = checkpoint['optimizer']
    states = states if isinstance(states, list) else [states]   # nanoGPT has one
    if len(states) != len(optimizers):
        fail(otherwise)
    for opt, state in zip(optimizers, states):
        params = [p for group in opt.param_groups for p in group['params']]
        inner = getattr(opt, 'optim', opt)   # of a sharded one, the part in this process
        own = {p for group in inner.param_groups for p in group['params']}
        try:
            for i, moments in state['state'].items():
                if any(v.dim() and v.shape != params[i].shape for v in moments.values()):
                    raise ValueError
                if params[i] in own:   # 'step' too goes to the device, where a fused AdamW counts
                    inner.state[params[i]] = {k: v.to(params[i].device) for k, v in moments.items()}
        except (ValueError, IndexError, KeyError, TypeError, AttributeError):   # a stranger's
            fail(otherwise)


def print_summary(out_dir, seconds, tokens_read, tokens_in_train, val_loss, unigram_loss, tokens_per_char):
    """What came of a run, as a table, and what to type next. Losses are in nats per token; tokens_per_char is 0 where
    nobody knows it."""
    files = [name for name in ('ckpt.pt', 'last.pt', 'log.csv') if os.path.exists(os.path.join(out_dir, name))]
    print(f'  time      {tqdm.format_interval(seconds)}, evaluations included\n'
          f'  read      {tokens_read:,} tokens, {tokens_read / tokens_in_train:.2f} times train.bin\n'
          f'  val loss  {val_loss:.3f} nats per token; of the frequencies alone {unigram_loss:.3f}')
    if tokens_per_char:
        bits, unigram_bits = (loss * tokens_per_char / math.log(2) for loss in (val_loss, unigram_loss))
        print(f'  in bits   {bits:.3f} per character; of the frequencies alone {unigram_bits:.3f}')
    print(f'  files     {out_dir}: ' + ', '.join(files))
    if 'ckpt.pt' in files:
        print('next:', command_line(['python', 'sample.py', f'--out_dir={out_dir}']))


def resume_command():
    """What to type to go on with a training that stopped."""
    if 'RANK' in os.environ:
        return 'the same torchrun command, with --init_from=resume at its end'
    again = [arg for arg in sys.argv if not arg.startswith('--init_from=')]
    return command_line(['python', *again, '--init_from=resume'])


def command_line(words):
    """Words as the shell at hand takes them."""
    return subprocess.list2cmdline(words) if os.name == 'nt' else shlex.join(words)
