"""A scaling law: the fit finds what made the losses, and the runs that it is fitted to can be stopped and gone on
with."""

import csv
import math

import numpy as np
import pytest
from conftest import ECA, script_globals

from model import GPT, GPTConfig
from support import scaling
from support.tokenizer import load_meta

LAW = scaling.Law(E=1.1, A=40.0, B=900.0, alpha=0.4, beta=0.5)
SIZES = np.geomspace(3e4, 2e6, 8)
AMOUNTS = np.array([5e5, 1e6, 2e6, 4e6])


def runs(noise=0.0):
    """N, D and L of models of each size on each amount of text, by LAW."""
    N, D = (grid.flatten() for grid in np.meshgrid(SIZES, AMOUNTS))
    factor = np.exp(np.random.default_rng(0).normal(0, noise, len(N)))
    return N, D, LAW.loss(N, D) * factor


def test_the_fit_finds_the_law_that_made_the_losses():
    law = scaling.fit(*runs())
    for name in ('E', 'A', 'B', 'alpha', 'beta'):
        assert getattr(law, name) == pytest.approx(getattr(LAW, name), rel=1e-3), name


def test_the_fit_stands_some_noise_and_an_outlier():
    N, D, L = runs(noise=0.003)
    L[5] *= 1.2   # a run that failed
    law = scaling.fit(N, D, L)
    assert law.loss(4e6, 16e6) == pytest.approx(LAW.loss(4e6, 16e6), abs=0.03)   # larger and longer than all of them


def test_the_bootstrap_spreads_about_as_the_noise_does():
    N, D, L = runs(noise=0.003)
    law = scaling.fit(N, D, L)
    losses = [each.loss(4e6, 16e6) for each in scaling.bootstrap(N, D, L, law, n=20)]
    assert 0.0005 < np.std(losses) < 0.05
    assert min(losses) < LAW.loss(4e6, 16e6) < max(losses)
    exact = scaling.bootstrap(*runs(), LAW, n=3)
    assert np.std([each.loss(4e6, 16e6) for each in exact]) < 1e-4


@pytest.mark.parametrize('flops', [1e12, 1e14, 1e17])
def test_the_best_size_is_the_least_of_all_at_equal_compute(flops):
    N, D = LAW.best_size(flops)
    assert 6 * N * D == pytest.approx(flops)
    others = N * np.geomspace(0.01, 100, 2001)
    least = others[np.argmin(LAW.loss(others, flops / 6 / others))]
    assert N == pytest.approx(least, rel=0.01)


TINY = ('--sizes=1x1x8 2x2x16', '--tokens=2048 4096', '--max_flops=1e8')   # 2 runs; the large model is beyond max_flops


def read(path):
    with open(path, encoding='utf-8', newline='') as f:
        return list(csv.DictReader(f))


@pytest.fixture(scope='module')
def measured(prepared):
    """(the CSV of TINY, what was said for its first run, and for the second)."""
    rows = prepared / 'tiny.csv'
    first = prepared.run('tools/scaling.py', *TINY, f'--rows={rows}', '--max_runs=1')
    assert len(read(rows)) == 1
    return rows, first, prepared.run('tools/scaling.py', *TINY, f'--rows={rows}')


def test_runs_that_have_a_row_are_skipped(prepared, measured):
    rows, first, second = measured
    assert '0 runs' in first and '1 to do' in first and '1 runs' in second and '1 to do' in second
    assert [(row['n_layer'], row['tokens']) for row in read(rows)] == [('1', '2048'), ('1', '4096')]   # cheap first
    before = rows.read_bytes()
    assert '2 runs' in prepared.run('tools/scaling.py', *TINY, f'--rows={rows}')
    assert rows.read_bytes() == before


def test_a_row_counts_as_the_model_does(prepared, measured):
    row = read(measured[0])[0]
    vocab_size = load_meta(str(prepared / ECA / 'meta.pkl'))['vocab_size']
    model = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=128, bias=False, vocab_size=vocab_size))
    assert int(row['params']) == model.get_num_params()
    assert float(row['flops']) == pytest.approx(2048 * model.flops_per_token(), rel=1e-5)
    assert row['role'] == 'fit' and math.isnan(float(row['predicted']))


def test_the_loss_is_what_train_py_says(prepared, measured, tmp_path):
    """All of val.bin, by another way than train.py's."""
    row = read(measured[0])[0]
    said = prepared.run('train.py', 'config/train_eca_char_laptop.py', '--n_layer=1', '--n_head=1', '--n_embd=8',
                        f'--learning_rate={row["learning_rate"]}', f'--muon_lr={row["muon_lr"]}', '--max_iters=1',
                        '--lr_decay_iters=1', '--eval_iters=0', '--device=cpu', f'--out_dir={tmp_path / "out"}')
    assert f"step 1: val loss {float(row['val_loss']):.4f}" in said


def test_smaller_models_take_larger_steps(prepared, measured):
    rows = measured[0]
    tool = script_globals(prepared / 'tools/scaling.py', *TINY, f'--rows={rows}')
    pilot = script_globals(prepared / 'tools/scaling.py', *TINY, f'--rows={rows}', '--max_flops=0', '--rate_factor=0.5')
    for i in range(2):   # AdamW's and Muon's
        assert tool['pick_rates'](8)[i] > tool['pick_rates'](16)[i]
        assert pilot['pick_rates'](8)[i] == pytest.approx(0.5 * tool['pick_rates'](8)[i], rel=0.01)
    assert (tool['role'], pilot['role']) == ('fit', 'pilot')


def fill(path):
    """Write the rows of runs() to a CSV."""
    for n, d, loss in zip(*runs()):
        scaling.add_row(str(path), dict(role='fit', n_layer=1, n_head=1, n_embd=1, params=int(n), tokens=int(d),
                                        flops=1.0, learning_rate=n, muon_lr=1.0, predicted=math.nan, val_loss=loss,
                                        train_s=1.0, cpu_s=1.0, processor='none'))


def test_a_check_is_predicted_before_it_is_run(prepared, tmp_path):
    rows = tmp_path / 'rows.csv'
    fill(rows)
    said = prepared.run('tools/scaling.py', '--sizes=1x1x8', '--tokens=2048', '--is_check=True', f'--rows={rows}')
    check = read(rows)[-1]
    assert check['role'] == 'check'
    assert float(check['predicted']) == pytest.approx(float(LAW.loss(int(check['params']), 2048)), rel=1e-3)
    assert said.index('predicted:') < said.index('val loss')

    picture = tmp_path / 'law.png'
    said = prepared.run('assets/draw_scaling.py', str(rows), str(picture))
    assert picture.read_bytes().startswith(b'\x89PNG') and '32 runs, 8 sizes' in said
    assert 'missed by' in said and '| 1 hour | CPU, 2 cores |' in said


def test_mistakes_are_one_line(prepared, tmp_path):
    assert 'layers x heads x channels' in prepared.run('tools/scaling.py', '--sizes=3x96', fails=True)
    assert 'n_head' in prepared.run('tools/scaling.py', '--sizes=1x3x8', fails=True)
    assert 'tokens = 10 ' in prepared.run('tools/scaling.py', '--tokens=10', fails=True)
    (tmp_path / 'other.csv').write_text('a,b\n1,2\n')
    assert 'not a CSV' in prepared.run('tools/scaling.py', f'--rows={tmp_path / "other.csv"}', fails=True)
    assert 'too few runs' in prepared.run('assets/draw_scaling.py', str(tmp_path / 'none.csv'), fails=True)
