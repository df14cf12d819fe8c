"""What is left of a run for people: its lines in log.csv and Weights & Biases, the summary, the command to type
next."""

import csv
import os
import shlex
import subprocess
import sys

from tqdm import tqdm

from support.errors import fail, first_line
from support.evaluate import bits_per_char, unigram_loss
from support.files import write_whole
from support.run_folder import LOG, STATES, choose_suffix, find, path_of, take_names

LOSSES = ['loss', 'train_loss', 'val_loss']   # of a batch; of an evaluation
COLUMNS = ['iter', 'elapsed_s', 'lr', *LOSSES]


def open_log(path, iter_num=0):
    """A csv.DictWriter that appends to a log.csv. Of a run that resumes at iter_num the rows before it are kept.
    Raises OSError."""
    header = ','.join(COLUMNS) + '\n'
    rows = []
    if iter_num > 0 and os.path.isfile(path):
        with open(path, encoding='utf-8', errors='replace') as f:
            rows = [row for row in f if is_row_before(row, iter_num)]
    write_whole(path, lambda f: f.write((header + ''.join(rows)).encode()))
    return append_to(path)


def append_to(path):
    """A csv.DictWriter that appends rows to a file, which is its .file."""
    f = open(path, 'a', encoding='utf-8', newline='', buffering=1)   # a row at a time
    writer = csv.DictWriter(f, COLUMNS, lineterminator='\n')
    writer.file = f
    return writer


def is_row_before(row, iter_num):
    """Whether a line of log.csv is a whole row of an iteration before iter_num; damaged ones are none."""
    fields = row.split(',')
    is_whole = len(fields) == len(COLUMNS) and row.endswith('\n') and fields[0].isdigit()
    return is_whole and int(fields[0]) < iter_num


class RunLog:
    """log(line, **row) prints a line, and keeps its numbers as a row of log.csv and in wandb, a module or None. With
    eval_only no file is written. suffix is what the run adds to the names of its files: see run_folder.py."""

    def __init__(self, config, iter_num, wandb):
        self.out_dir = config['out_dir']
        self.wandb = wandb
        self.suffix = ''
        self.rows = None
        if config['eval_only']:
            return
        if config['init_from'] != 'resume':
            self.suffix = choose_suffix(self.out_dir)
        try:
            self.rows = open_log(path_of(self.out_dir, LOG, self.suffix), iter_num)
        except OSError as e:
            fail(f'out_dir = {self.out_dir} cannot be written to: {e.strerror}; choose another with --out_dir=')

    def __call__(self, line, elapsed_s, **row):
        tqdm.write(line)   # print() would tear the progress bar
        if self.rows is not None:
            self.rows.writerow({**row, 'elapsed_s': round(elapsed_s, 1)})
        if self.wandb is not None:
            self.wandb.log({k.replace('_loss', '/loss'): v for k, v in row.items()})

    def set_old_aside(self):
        """Now that this run has saved a state, set another training's files aside. If that fails, say so: all are
        kept, and the next time it is tried again."""
        if self.suffix == '':
            return
        self.rows.file.close()   # Windows renames no file that is open
        try:
            take_names(self.out_dir)
            self.suffix = ''
        except OSError as e:   # on Windows, while another program reads a file
            names = ' and '.join(f'{name}.new' for name in find(self.out_dir, STATES, '.new'))
            tqdm.write(f'{e.filename}, of another training, could not be renamed ({e.strerror}): close what uses it; '
                       f'until the next save, or --init_from=resume, this one is {names} in {self.out_dir}')
        new = '.new' if find(self.out_dir, [LOG], '.new') else ''
        self.rows = append_to(path_of(self.out_dir, LOG, new))


def start_wandb(config, run_id=''):
    """The module wandb, with a run in it: the one with this id goes on, if there is an id."""
    try:
        import wandb
        if not hasattr(wandb, 'init'):   # not the package, but the folder wandb that it leaves
            raise ImportError
        again = {'id': run_id, 'resume': 'allow'} if run_id else {}   # a new run where wandb has none of it
        wandb.init(project=config['wandb_project'], name=config['wandb_run_name'], config=config, **again)
        return wandb
    except ImportError:
        fail('wandb_log = True needs the package wandb: pip install wandb, or use --wandb_log=False')
    except Exception as e:   # no account, no network
        fail(f'wandb_log = True, but wandb does not start ({first_line(e)}); try WANDB_MODE=offline, or '
             '--wandb_log=False')


def print_summary(out_dir, seconds, tokens_read, val_loss, data_dir, tokenizer, vocab_size, decode):
    """What came of a run, as a table, and what to type next. val_loss is in nats per token; tokenizer and vocab_size
    as load_tokenizer gives them; decode as cached_decoder does."""
    tokens_in_train = os.path.getsize(os.path.join(data_dir, 'train.bin')) // 2
    baseline = unigram_loss(data_dir, vocab_size)
    unit = 'character' if tokenizer['kind'] == 'char' else 'token'
    bits = bits_per_char(val_loss, decode, data_dir)
    baseline_bits = bits_per_char(baseline, decode, data_dir)
    files = find(out_dir, (*STATES, LOG))
    new_files = [f'{name}.new' for name in find(out_dir, STATES, '.new')]
    if new_files:   # the others are another training's
        files = new_files

    print(f'  time      {tqdm.format_interval(seconds)}, evaluations included')
    print(f'  read      {tokens_read:,} tokens, {tokens_read / tokens_in_train:.2f} times train.bin')
    print(f'  val loss  {val_loss:.3f} nats per token; baseline ({unit} frequencies) {baseline:.3f}')
    if bits is not None:
        print(f'  in bits   {bits:.3f} per character; baseline ({unit} frequencies) {baseline_bits:.3f}')
    print(f'  files     {out_dir}: ' + ', '.join(files))
    if 'ckpt.pt' in files:
        print('next:', command_line(['python', 'sample.py', f'--out_dir={out_dir}']))


def resume_command():
    """What to type to go on with a training that stopped."""
    if os.environ.get('RANK', '-1') != '-1':
        return 'the same torchrun command, with --init_from=resume at its end'
    again = [arg for arg in sys.argv if not arg.startswith('--init_from=')]
    return command_line(['python', *again, '--init_from=resume'])


def command_line(words):
    """Words as the shell at hand takes them."""
    if os.name == 'nt':
        return subprocess.list2cmdline(words)
    return shlex.join(words)
