"""train.py and sample.py as a user runs them: the loss falls, runs repeat, resume and parallelise exactly."""

import json
import math
import re

import numpy as np
import pytest
import torch
from conftest import ECA, TINY, assert_same_run, load, newest, read_log

from support.checkpoints import load_checkpoint


def test_the_three_commands(bare):
    """On the embedded sample, with a tiny model: far better than guessing, better than counting letters."""
    bare.run(f'{ECA}/prepare.py', f'{ECA}/amostra.txt', real=True)
    printed = bare.run('train.py', *TINY, '--max_iters=300', '--lr_decay_iters=300', '--eval_interval=100',
                       '--eval_iters=20', '--log_interval=50', real=True)
    lines = printed.splitlines()
    assert 'device: cpu, dtype: float32\n' in printed and 'compile: False (it does not pay on cpu)\n' in printed
    steps = [line.split(':')[0] for line in lines if line.startswith('step')]
    assert steps == ['step 0', 'step 100', 'step 200', 'step 300']
    assert lines[-1] == 'next: python sample.py --out_dir=out-eca-char'
    assert '\r' not in printed and '\x1b' not in printed   # no bar and no colours in a pipe
    ids = np.fromfile(bare / ECA / 'train.bin', dtype=np.uint16)
    p = np.bincount(ids) / len(ids)
    unigram = -(p[p > 0] * np.log(p[p > 0])).sum()   # nats a character, for a model that only counts letters
    losses = [float(row['val_loss']) for row in read_log(bare / 'out-eca-char') if row['val_loss']]
    assert abs(losses[0] - math.log(len(p))) < 0.2   # at first, no better than guessing
    assert losses[-1] < unigram - 0.6 and losses[-1] < 0.6 * math.log(len(p))

    bare_sample = ['sample.py', '--out_dir=out-eca-char', '--num_samples=3', '--max_new_tokens=70', '--start=Meu caro']
    text = bare.run(*bare_sample, real=True)
    samples = text.split('\n---------------\n')
    assert len(samples) == 4 and samples[3] == '' and len(set(samples)) == 4
    assert all(s.startswith('Meu caro') and len(s) == len('Meu caro') + 70 for s in samples[:3])
    assert text == bare.run(*bare_sample)   # same seed, same text, whatever process
    assert text != bare.run(*bare_sample, '--seed=1')


@pytest.mark.parametrize('extra', [
    ['--dropout=0.2', '--optimizer=adamw', '--always_save_checkpoint=True'],
    ['--dropout=0.2', '--gradient_accumulation_steps=3'],   # the config's Muon
    ['--dtype=float16', '--n_layer=1'],   # whose scaler is part of the state
])
def test_resumed_equals_uninterrupted(prepared, tmp_path, extra):
    args = ['train.py', *TINY, *extra, '--lr_decay_iters=12', '--eval_interval=4']
    prepared.run(*args, '--max_iters=12', f'--out_dir={tmp_path}/straight')
    prepared.run(*args, '--max_iters=8', f'--out_dir={tmp_path}/resumed')
    # as after a kill at iteration 11: the log is further than ckpt.pt, and ends in half a row
    log = (tmp_path / 'straight' / 'log.csv').read_text(encoding='utf-8').splitlines(keepends=True)
    (tmp_path / 'resumed' / 'log.csv').write_text(''.join(log[:-2]) + '11,0.', encoding='utf-8')
    prepared.run(*args, '--max_iters=12', f'--out_dir={tmp_path}/resumed', '--init_from=resume')
    assert_same_run(tmp_path / 'straight', tmp_path / 'resumed')


def test_resume_what_nanogpt_wrote(prepared, tmp_path):
    """Its checkpoints have prefixed names, one optimizer, no tokenizer; the run goes on as if it were ours."""
    args = ['train.py', *TINY, '--optimizer=adamw', '--lr_decay_iters=8', '--eval_interval=4']
    prepared.run(*args, '--max_iters=8', f'--out_dir={tmp_path}/straight')
    prepared.run(*args, '--max_iters=4', f'--out_dir={tmp_path}/resumed')
    ours = load(tmp_path / 'resumed' / 'ckpt.pt')
    torch.save({'model': {f'_orig_mod.{k}': v for k, v in ours['model'].items()}, 'optimizer': ours['optimizer'][0],
                'model_args': ours['model_args'], 'iter_num': 4, 'config': {'dataset': 'ecadequeiuroz_char'},
                'best_val_loss': torch.tensor(ours['best_val_loss'])}, tmp_path / 'resumed' / 'ckpt.pt')
    prepared.run(*args, '--max_iters=8', f'--out_dir={tmp_path}/resumed', '--init_from=resume')
    assert_same_run(tmp_path / 'straight', tmp_path / 'resumed')


def test_eval_interval_changes_nothing_else(prepared, tmp_path):
    args = ['train.py', *TINY, '--max_iters=8', '--dropout=0.2']
    prepared.run(*args, '--eval_interval=1', f'--out_dir={tmp_path}/often')
    prepared.run(*args, '--eval_interval=100', f'--out_dir={tmp_path}/seldom')
    often, seldom = ([row for row in read_log(tmp_path / name) if row['loss']] for name in ('often', 'seldom'))
    assert often == seldom
    assert [row['iter'] for row in read_log(tmp_path / 'seldom') if row['val_loss']] == ['0', '8']   # first and final


@pytest.mark.parametrize('schedule, quarter', [('cosine', 0.5 + 0.5 ** 1.5), ('linear', 0.75)])
def test_learning_rate_schedules(prepared, tmp_path, schedule, quarter):
    """Up over the warm-up, then down: a quarter of the way, half of the way, at the end, and beyond it."""
    prepared.run('train.py', *TINY, '--max_iters=15', '--lr_decay_iters=12', '--warmup_iters=4', '--eval_iters=1',
                 f'--lr_schedule={schedule}', '--learning_rate=1e-3', '--min_lr=1e-4', f'--out_dir={tmp_path}')
    lr = [float(row['lr']) for row in read_log(tmp_path) if row['loss']]
    expected = {0: 2e-4, 3: 8e-4, 4: 1e-3, 6: 1e-4 + 9e-4 * quarter, 8: 5.5e-4, 10: 1e-4 + 9e-4 * (1 - quarter),
                12: 1e-4, 14: 1e-4}
    for it, value in expected.items():
        assert lr[it] == pytest.approx(value)


def test_accumulated_equals_one_large_batch(prepared, tmp_path):
    """The gradient of 4 micro-batches of 2 sequences is that of one batch of 8. (AdamW's first moment is a tenth of
    it.)"""
    from model import GPT, GPTConfig
    args = ['train.py', *TINY, '--max_iters=1', '--optimizer=adamw', '--grad_clip=0.0', '--warmup_iters=0']
    prepared.run(*args, '--gradient_accumulation_steps=4', '--batch_size=2', f'--out_dir={tmp_path}/out')
    trained = load(tmp_path / 'out' / 'ckpt.pt')
    torch.manual_seed(1337)
    model = GPT(GPTConfig(**trained['model_args']))
    data = np.fromfile(prepared / ECA / 'train.bin', dtype=np.uint16).astype(np.int64)
    rngs = [np.random.default_rng((1337, False, n)) for n in range(4)]
    starts = np.concatenate([rng.integers(len(data) - 32, size=2) for rng in rngs])
    windows = torch.from_numpy(data[starts[:, None] + np.arange(33)])
    loss = model(windows[:, :-1], windows[:, 1:])[1]
    loss.backward()
    params = sorted(model.parameters(), key=lambda p: p.dim() < 2)   # AdamW's order: decayed, then not
    for i, p in enumerate(params):
        moment = trained['optimizer'][0]['state'][i]['exp_avg']
        torch.testing.assert_close(moment, 0.1 * p.grad, rtol=1e-3, atol=1e-6)
    assert abs(float(read_log(tmp_path / 'out')[1]['loss']) - loss.item()) < 1e-5


WITHOUT_PIECES = '''
import runpy
from support import devices


def whole_batch(device, block_size, batch_size):
    print('in one piece')
    return batch_size


devices.pick_piece_size = whole_batch
runpy.run_path('train.py', run_name='__main__')
'''


def test_pieces_equal_one_batch(prepared, tmp_path):
    """On CPU a batch goes through the model in pieces of 2048 tokens, here 64 + 64 + 2 sequences: the same gradient."""
    args = [*TINY, '--batch_size=130', '--max_iters=4', '--eval_interval=4', '--optimizer=adamw']
    prepared.run('train.py', *args, f'--out_dir={tmp_path}/pieces')
    (prepared / 'train_without_pieces.py').write_text(WITHOUT_PIECES, encoding='utf-8')
    assert 'in one piece' in prepared.run('train_without_pieces.py', *args, f'--out_dir={tmp_path}/whole')
    for a, b in zip(read_log(tmp_path / 'pieces'), read_log(tmp_path / 'whole'), strict=True):
        for key in ('loss', 'train_loss', 'val_loss'):
            assert a[key] == b[key] == '' or abs(float(a[key]) - float(b[key])) < 1e-5


def test_world_size_without_a_rank_is_one_process(prepared, tmp_path):
    """Clusters set WORLD_SIZE in their machines; RANK is what torchrun adds, and -1 says that it did not."""
    for i, env in enumerate([{}, {'WORLD_SIZE': '3'}, {'WORLD_SIZE': '3', 'RANK': '-1'}]):
        prepared.run('train.py', *TINY, '--max_iters=2', '--eval_iters=1', f'--out_dir={tmp_path}/{i}', env=env)
        assert read_log(tmp_path / str(i)) == read_log(tmp_path / '0')


def test_nanogpt_config_file_runs_unchanged(prepared, tmp_path):
    """The settings of nanoGPT's finetuning and CPU examples, in its own way of writing them."""
    (tmp_path / 'nano.py').write_text(
        "import time\nout_dir = 'out-nano'\neval_interval = 5\neval_iters = 2\nwandb_log = False # feel free\n"
        "wandb_project = 'eca'\nwandb_run_name = 'ft-' + str(time.time())\ndataset = 'ecadequeiuroz_char'\n"
        "init_from = 'scratch'\nalways_save_checkpoint = False\nbatch_size = 2\ngradient_accumulation_steps = 1 * 2\n"
        "max_iters = 6\nlearning_rate = 1e-3\ndecay_lr = False\nblock_size = 16\nn_layer = 1\nn_head = 2\nn_embd = 16\n"
        "device = 'cpu'\ndtype = 'float32'\ncompile = False\nbackend = 'nccl'\n", encoding='utf-8')
    assert 'step 6: train loss' in prepared.run('train.py', tmp_path / 'nano.py', f'--out_dir={tmp_path}/out')
    assert {row['lr'] for row in read_log(tmp_path / 'out')} == {'0.001'}   # decay_lr = False means no warm-up either


def test_every_setting_of_nanogpt_is_there(prepared):
    """Names and defaults as in nanoGPT's train.py, but for those that choose themselves."""
    nanogpt = dict(
        out_dir='out', eval_interval=2000, log_interval=1, eval_iters=200, eval_only=False, always_save_checkpoint=True,
        init_from='scratch', wandb_log=False, wandb_project='owt', wandb_run_name='gpt2', dataset='openwebtext',
        gradient_accumulation_steps=40, batch_size=12, block_size=1024, n_layer=12, n_head=12, n_embd=768, dropout=0.0,
        bias=False, learning_rate=6e-4, max_iters=600000, weight_decay=1e-1, beta1=0.9, beta2=0.95, grad_clip=1.0,
        decay_lr=True, warmup_iters=2000, lr_decay_iters=600000, min_lr=6e-5,
        backend='auto', device='auto', dtype='auto', compile='auto')
    printed = prepared.run('train.py', '--help=all')
    for key, value in nanogpt.items():
        assert f'--{key}={value!r} ' in printed or f'--{key}={value!r}\n' in printed


def test_eval_only_writes_nothing(prepared, tmp_path):
    """Not from scratch, and not after resume, where it gives the figures of the run."""
    args = ['train.py', *TINY, f'--out_dir={tmp_path}/out']
    assert 'step 0: train loss' in prepared.run(*args, '--eval_only=True') and not (tmp_path / 'out').exists()
    trained = prepared.run(*args, '--max_iters=6', '--eval_interval=3')
    (line,) = [line for line in trained.splitlines() if line.startswith('step 6')]
    before = {path.name: path.read_bytes() for path in (tmp_path / 'out').iterdir()}
    printed = prepared.run(*args, '--eval_only=True', '--init_from=resume')
    assert line in printed and 'step 3' not in printed and 'iter ' not in printed
    assert before == {path.name: path.read_bytes() for path in (tmp_path / 'out').iterdir()}


def test_a_model_alone_can_be_evaluated_but_not_resumed(prepared, tmp_path):
    """What tools/export.py --to=NAME.pt writes, and README's figure for assets/eca-mini is measured on."""
    prepared.run('train.py', *TINY, '--max_iters=5', f'--out_dir={tmp_path}/whole')
    prepared.run('tools/export.py', f'--out_dir={tmp_path}/whole', f'--to={tmp_path}/alone/ckpt.pt')
    args = ['train.py', *TINY, '--init_from=resume', '--eval_only=True', '--eval_iters=0']
    whole, alone = (float(re.search(r'val loss ([\d.]+)', prepared.run(*args, f'--out_dir={tmp_path}/{out}'))[1])
                    for out in ('whole', 'alone'))
    assert abs(whole - alone) < 1e-3   # the weights are rounded to float16
    assert [path.name for path in (tmp_path / 'alone').iterdir()] == ['ckpt.pt']
    message = prepared.run(*args, f'--out_dir={tmp_path}/alone', '--eval_only=False', fails=True)
    assert 'is a model to sample from, not the state of a training' in message


def test_the_summary_is_of_the_model_that_was_saved(prepared, tmp_path):
    """With always_save_checkpoint the last one, however bad; without, the best, which is what eval_only measures."""
    args = ['train.py', *TINY, '--eval_interval=30', '--sample_chars=0']
    ruin = ['--init_from=resume', '--max_iters=32', '--learning_rate=3', '--muon_lr=3', '--decay_lr=False']
    for always in (True, False):
        here = [*args, f'--out_dir={tmp_path}/{always}', f'--always_save_checkpoint={always}']
        good = prepared.run(*here, '--max_iters=30')
        bad = prepared.run(*here, *ruin)
        summary = float(re.search(r'  val loss  (\S+) nats', bad)[1])
        good, bad = (re.search(rf'step {n}: .*val loss (\S+)', printed)[1] for n, printed in ((30, good), (32, bad)))
        assert float(bad) > float(good) + 0.1
        kept = bad if always else good
        assert abs(summary - float(kept)) < 1e-3
        again = prepared.run(*here, *ruin[:1], '--eval_only=True')
        assert re.search(r'val loss (\S+)', again)[1] == kept and 'best' not in again


def test_a_training_that_is_replaced_is_named(prepared, tmp_path):
    args = ['train.py', *TINY, '--max_iters=1', f'--out_dir={tmp_path}/out']
    said = 'out has ckpt.pt of another training, which this one will replace'
    assert [said in prepared.run(*args, *more) for more in ([], [], ['--init_from=resume'])] == [False, True, False]


def test_best_is_the_best_of_what_was_kept(prepared, tmp_path):
    """Where always_save_checkpoint kept a worse model than an earlier one, that one is the mark to beat."""
    args = ['train.py', *TINY, '--eval_interval=30', '--sample_chars=0', f'--out_dir={tmp_path}/out']
    prepared.run(*args, '--max_iters=30')
    ruin = ['--learning_rate=3', '--muon_lr=3', '--decay_lr=False', '--always_save_checkpoint=True']
    prepared.run(*args, '--init_from=resume', '--max_iters=32', *ruin)
    ruined = load(tmp_path / 'out' / 'ckpt.pt')
    prepared.run(*args, '--init_from=resume', '--max_iters=52')
    better = load(tmp_path / 'out' / 'ckpt.pt')
    assert ruined['iter_num'] == 32 and better['iter_num'] == 52
    assert better['best_val_loss'] < ruined['best_val_loss']


def test_resuming_what_is_done_changes_nothing(prepared, tmp_path):
    args = ['train.py', *TINY, '--max_iters=3', f'--out_dir={tmp_path}/out']
    prepared.run(*args)
    before = load(tmp_path / 'out' / 'ckpt.pt')
    assert ', after 3 iterations' in prepared.run(*args, '--init_from=resume')
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['ckpt.pt', 'log.csv']
    after = load(tmp_path / 'out' / 'ckpt.pt')
    assert after['iter_num'] == 3 and after['best_val_loss'] == before['best_val_loss']


def test_a_log_that_a_spreadsheet_has_rewritten(prepared, tmp_path):
    args = ['train.py', *TINY, f'--out_dir={tmp_path}/out']
    prepared.run(*args, '--max_iters=2')
    log = tmp_path / 'out' / 'log.csv'
    log.write_text(log.read_text(encoding='utf-8'), encoding='utf-16')
    prepared.run(*args, '--max_iters=4', '--init_from=resume')
    assert [row['iter'] for row in read_log(tmp_path / 'out')] == ['2', '3', '4']   # the old cannot be read


def test_tokens_read_are_counted_over_a_change_of_batch(prepared, tmp_path):
    args = ['train.py', *TINY, '--eval_interval=5', f'--out_dir={tmp_path}/out']
    prepared.run(*args, '--max_iters=2', '--batch_size=4', '--block_size=16')
    printed = prepared.run(*args, '--init_from=resume', '--max_iters=5', '--batch_size=8', '--block_size=16')
    assert f'read      {2 * 4 * 16 + 3 * 8 * 16:,} tokens' in printed


@pytest.mark.parametrize('block_size', [32, 30])
def test_eval_iters_0_sweeps_val(prepared, tmp_path, block_size):
    """Every token of val.bin is predicted once, whatever the batches; for characters, bits per character are bits per
    token."""
    args = ['train.py', *TINY, f'--block_size={block_size}', f'--out_dir={tmp_path}/out']
    prepared.run(*args, '--max_iters=5')
    args += ['--init_from=resume', '--eval_only=True', '--eval_iters=0']
    lines = [[line for line in prepared.run(*args, *more).splitlines() if line.startswith('step 5')][0]
             for more in ([], ['--batch_size=100'])]
    model, _ = load_checkpoint(str(tmp_path / 'out' / 'ckpt.pt'))
    model.eval()
    ids = torch.from_numpy(np.fromfile(prepared / ECA / 'val.bin', dtype=np.uint16).astype(np.int64))
    assert (len(ids) - 1) % block_size   # so that the last window is shorter
    total = 0.0
    with torch.no_grad():
        for i in range(0, len(ids) - 1, block_size):
            y = ids[i + 1:i + 1 + block_size]
            total += model(ids[None, i:i + len(y)], y[None])[1].item() * len(y)
    loss = total / (len(ids) - 1)
    for line in lines:
        found = re.fullmatch(r'step 5: val loss (\S+), (\S+) bits per character', line)
        assert abs(float(found[1]) - loss) < 1e-4 and abs(float(found[2]) - loss / math.log(2)) < 2e-4


def test_laptop_config(prepared, tmp_path):
    printed = prepared.run('train.py', 'config/train_eca_char_laptop.py', '--max_iters=2', '--eval_iters=1',
                           f'--out_dir={tmp_path}/out')
    assert 'step 2: train loss' in printed


def test_float16_overflow_skips_all_optimizers(prepared, tmp_path):
    """Gradients that are infinite change nothing but the scale, which is halved."""
    args = [*TINY, '--optimizer=muon', '--dtype=float16', '--n_layer=1', f'--out_dir={tmp_path}']
    prepared.run('train.py', *args, '--max_iters=1')
    before = newest(tmp_path)
    before['scaler']['scale'] = 1e30
    torch.save(before, tmp_path / 'ckpt.pt')
    prepared.run('train.py', *args, '--max_iters=2', '--init_from=resume')
    after = newest(tmp_path)
    assert after['iter_num'] == 2 and after['scaler']['scale'] == pytest.approx(5e29)
    for name, weight in before['model'].items():
        assert torch.equal(weight, after['model'][name])
    for one, two in zip(before['optimizer'], after['optimizer'], strict=True):
        for i, moments in one['state'].items():
            assert all(torch.equal(moments[name], two['state'][i][name]) for name in moments)


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_half_precision(prepared, tmp_path, dtype):
    """Both learn about as well as float32; float16's scaler is in the checkpoint."""
    args = ['train.py', *TINY, '--max_iters=10', '--eval_interval=10']
    prepared.run(*args, f'--out_dir={tmp_path}/full')
    prepared.run(*args, f'--dtype={dtype}', f'--out_dir={tmp_path}/half')
    full, half = (float(read_log(tmp_path / name)[-1]['val_loss']) for name in ('full', 'half'))
    assert abs(full - half) < 0.05
    assert bool(load(tmp_path / 'half' / 'ckpt.pt')['scaler']) == (dtype == 'float16')


def test_missing_compiler_is_a_line_and_eager_mode(prepared, tmp_path):
    printed = prepared.run('train.py', *TINY, '--max_iters=1', '--compile=True', f'--out_dir={tmp_path}/out', real=True,
                           env={'CXX': 'no-such-compiler', 'TORCHINDUCTOR_CACHE_DIR': str(tmp_path / 'cache')})
    assert 'compile: False (torch.compile does not work here' in printed and 'step 1: train loss' in printed


def test_best_model_is_kept(prepared, tmp_path):
    """A learning rate that ruins the model: ckpt.pt stays at the best, last.pt goes on."""
    prepared.run('train.py', *TINY, '--max_iters=20', '--eval_interval=10', f'--out_dir={tmp_path}/out')
    best = load(tmp_path / 'out' / 'ckpt.pt')
    assert best['iter_num'] == 20 and not (tmp_path / 'out' / 'last.pt').exists()   # it would be the same
    prepared.run('train.py', *TINY, '--max_iters=30', '--eval_interval=10', f'--out_dir={tmp_path}/out',
                 '--init_from=resume', '--learning_rate=1.0', '--muon_lr=10.0', '--decay_lr=False')
    after = load(tmp_path / 'out' / 'ckpt.pt')
    last = load(tmp_path / 'out' / 'last.pt')
    assert after['iter_num'] == 20 and last['iter_num'] == 30
    assert after['best_val_loss'] == last['best_val_loss'] == best['best_val_loss']


def test_checkpoint_is_plain_and_complete(prepared, tmp_path):
    prepared.run('train.py', *TINY, '--max_iters=2', f'--out_dir={tmp_path}/out')
    checkpoint = load(tmp_path / 'out' / 'ckpt.pt')
    shape = {'n_layer', 'n_head', 'n_embd', 'block_size', 'bias', 'vocab_size', 'dropout'}
    assert set(checkpoint['model_args']) == shape
    assert {'model', 'optimizer', 'iter_num', 'best_val_loss', 'config', 'tokenizer'} <= set(checkpoint)
    json.dumps([checkpoint[k] for k in ('model_args', 'iter_num', 'best_val_loss', 'config', 'tokenizer')])
    assert not list((tmp_path / 'out').glob('*.tmp'))


def test_wandb_offline(prepared, tmp_path):
    pytest.importorskip('wandb')
    prepared.run('train.py', *TINY, '--max_iters=4', '--eval_interval=2', '--wandb_log=True', '--wandb_project=eca',
                 f'--out_dir={tmp_path}/out', env={'WANDB_MODE': 'offline', 'WANDB_DIR': str(tmp_path)}, real=True)
    log = read_log(tmp_path / 'out')
    said = prepared.run('train.py', *TINY, '--wandb_log=True', f'--out_dir={tmp_path}/out', fails=True,
                        env={'WANDB_MODE': 'nonsense'}, real=True)
    assert 'wandb does not start' in said and log == read_log(tmp_path / 'out')   # nothing was begun
    said = prepared.run('train.py', *TINY, '--wandb_log=True', f'--out_dir={tmp_path}/new', fails=True,
                        env={'WANDB_MODE': 'nonsense'}, real=True)
    assert 'wandb does not start' in said and not (tmp_path / 'new').exists()
    (written,) = tmp_path.glob('wandb/offline-run-*/*.wandb')
    content = written.read_bytes()
    assert b'val/loss' in content and b'learning_rate' in content

    # a resumed run is the same one there
    (tmp_path / 'again').mkdir()
    prepared.run('train.py', *TINY, '--max_iters=6', '--eval_interval=2', '--wandb_log=True', '--wandb_project=eca',
                 '--init_from=resume', f'--out_dir={tmp_path}/out', real=True,
                 env={'WANDB_MODE': 'offline', 'WANDB_DIR': f'{tmp_path}/again'})
    (again,) = tmp_path.glob('again/wandb/offline-run-*/*.wandb')
    assert again.name == written.name == f"run-{newest(tmp_path / 'out')['wandb_id']}.wandb"


def test_what_may_change_on_resume(prepared, tmp_path):
    args = ['train.py', *TINY, f'--out_dir={tmp_path}/out', '--log_interval=3']
    prepared.run(*args, '--max_iters=4')
    prepared.run(*args, '--init_from=resume', '--max_iters=11', '--learning_rate=1e-4', '--muon_lr=2e-4',
                 '--eval_interval=5', '--batch_size=3', '--gradient_accumulation_steps=2', '--dropout=0.1',
                 '--decay_lr=False', '--device=cpu:0', '--seed=5', '--weight_decay=0')
    checkpoint = newest(tmp_path / 'out')
    assert checkpoint['iter_num'] == 11 and checkpoint['config']['batch_size'] == 3
    assert [(row['iter'], row['lr']) for row in read_log(tmp_path / 'out')][3:] == [
        (str(i), '0.0001') for i in (5, 6, 9, 10, 11)]
    assert [group['lr'] for state in checkpoint['optimizer'] for group in state['param_groups']] == [1e-4, 1e-4, 2e-4]


def test_resume_refuses_another_shape(prepared, tmp_path):
    prepared.run('train.py', *TINY, '--max_iters=1', f'--out_dir={tmp_path}/out')
    resume = ['train.py', *TINY, '--max_iters=2', f'--out_dir={tmp_path}/out', '--init_from=resume']
    assert 'n_layer is 3, but 2 in' in prepared.run(*resume, '--n_layer=3', fails=True)
    assert 'was trained with another optimizer than adamw' in prepared.run(*resume, '--optimizer=adamw', fails=True)
