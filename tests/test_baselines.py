"""What counting reaches, on texts whose answers are known, and a GPT that learns from the past alone."""

import importlib.util
import math
import re

import numpy as np
import pytest
import torch
from conftest import ECA, TINY, make_model, script_globals

from support import evaluate


@pytest.fixture(scope='module')
def tool(prepared):
    """The functions of tools/baselines.py, from a run on little."""
    return script_globals(prepared / 'tools/baselines.py', '--max_chars=50', '--out_dir=')


def test_probabilities_sum_to_one(tool):
    """Of all that may follow a context: one that is frequent, one seen once, one never seen."""
    rng = np.random.default_rng(0)
    V = 5
    train = np.minimum(rng.geometric(0.5, 300), V) - 1
    train[train == 4] = 3   # 4 is never seen
    for context in ([0, 0, 0], [3, 3, 2], [4, 0, 1], [1, 4, 4]):
        for order in range(1, 5):
            total = 0.0
            for following in range(V):
                text = np.array([*context, following])
                p = tool['ngram_probabilities'](train, text, V, order)[-1]
                assert p.shape == (4,)
                total += p[-1]
            assert total == pytest.approx(1), (context, order)


def test_witten_bell_by_hand(tool):
    """After a in abacab: b, c and b; so 3 ids in all, 2 different ones."""
    a, b, c = 0, 1, 2
    train = np.array([a, b, a, c, a, b])
    unigrams = np.array([4, 3, 2]) / 9   # one more than seen
    found = tool['ngram_probabilities'](train, np.array([a, b, a, a]), 3, 2)
    np.testing.assert_allclose(found[0], unigrams[[a, b, a, a]])
    after_a = [(0 + 2 * unigrams[a]) / 5, (2 + 2 * unigrams[b]) / 5]
    after_b = (1 + 1 * unigrams[a]) / 2
    np.testing.assert_allclose(found[1], [unigrams[a], after_a[1], after_b, after_a[0]])


def test_a_text_that_is_seen_before_is_nearly_certain(tool):
    train = np.random.default_rng(0).integers(20, size=2000)
    found = tool['ngram_probabilities'](train, train[500:900], 20, 6)
    bits = [-np.log2(p).mean() for p in found]
    assert bits == sorted(bits, reverse=True)
    assert bits[0] == pytest.approx(math.log2(20), abs=0.05) and bits[-1] < 0.6


def test_compressors_count_what_a_text_adds(tool):
    before = ('O primo Basílio e a prima Luísa. ' * 50).encode()
    noise = np.random.default_rng(0).integers(256, size=3000).astype(np.uint8).tobytes()
    compressors = [tool['xz']]
    if importlib.util.find_spec('pyppmd'):
        compressors += [tool['ppmd'](6), tool['ppmd'](8)]
    for compress in compressors:
        assert tool['added_bits'](compress, before, before) < 0.2 * 8 * len(before)
        assert 0.95 * 8 * len(noise) < tool['added_bits'](compress, before, noise) < 1.1 * 8 * len(noise)


@pytest.mark.parametrize('n_ids, stride', [(2, 4), (16, 4), (17, 16), (50, 16), (50, 7), (51, 1)])
def test_every_token_but_the_first_is_scored_once(tool, n_ids, stride):
    scored = []
    for start, end, n_new in tool['windows'](n_ids, stride, 16):
        assert 0 <= start < end <= n_ids - 1 and end - start <= 16 and 1 <= n_new <= stride
        scored += range(end - n_new + 1, end + 1)   # the target of position i is token i + 1
    assert scored == list(range(1, n_ids))


def optimizers_of(model):
    return model.configure_optimizers(0.0, 1e-2, (0.9, 0.99), muon=dict(lr=1e-2, momentum=0.9, ns_dtype='float32'))


def test_side_by_side_windows_give_the_loss_of_train_py(tool, tmp_path):
    model = make_model()
    ids = torch.randint(37, (101,))
    ids.numpy().astype(np.uint16).tofile(tmp_path / 'val.bin')
    losses = tool['read_text'](model, ids, stride=16)
    (x, y), = evaluate.sweep(str(tmp_path / 'val.bin'), 100, 16)
    x, y = x[:-1], y[:-1]   # the last window is not whole, and that of read_text reaches back
    with torch.no_grad():
        _, loss = model(torch.from_numpy(x), torch.from_numpy(y))
    assert losses.shape == (100,)
    assert losses[:y.size].mean().item() == pytest.approx(loss.item(), abs=1e-5)


@pytest.mark.parametrize('per_step', [1, 2])
def test_each_window_is_scored_before_it_is_learned_from(tool, per_step):
    ids = torch.randint(37, (120,), generator=torch.Generator().manual_seed(1))
    static = tool['read_text'](make_model(), ids, stride=8)
    model = make_model()
    learned = tool['read_text'](model, ids, 8, optimizers_of(model), per_step)
    n = 8 * per_step   # as many are scored before the first step
    torch.testing.assert_close(learned[:n], static[:n])
    assert not torch.allclose(learned[n:n + 8], static[n:n + 8])

    # what comes later has no part in what was said before
    changed = ids.clone()
    changed[81:] = (changed[81:] + 1) % 37
    model = make_model()
    other = tool['read_text'](model, changed, 8, optimizers_of(model), per_step)
    torch.testing.assert_close(other[:80], learned[:80])   # losses of tokens 1 to 80
    assert not torch.allclose(other[80:], learned[80:])


def test_who_learns_while_reading_reads_a_repeated_text_better(tool):
    ids = torch.randint(37, (40,), generator=torch.Generator().manual_seed(2)).repeat(8)
    static = tool['read_text'](make_model(), ids, stride=8)
    model = make_model()
    learned = tool['read_text'](model, ids, 8, optimizers_of(model), 1)
    assert learned[-80:].mean() < 0.7 * static[-80:].mean()


def test_the_table(prepared, tmp_path):
    out = tmp_path / 'out'
    prepared.run('train.py', *TINY, '--max_iters=1', '--eval_iters=1', f'--out_dir={out}')
    said = prepared.run('tools/baselines.py', '--max_chars=200', '--dynamic=True', '--stride=16', f'--out_dir={out}')
    rows = re.findall(r'^(\S.*?) {2,}(\d\.\d{3}) +(\d\.\d{3}) +(\d\.\d{3}) +[\d.]+$', said, re.M)
    names = [row[0] for row in rows]
    assert len(rows) in (10, 12) and 'xz -9e: what val.bin adds to the file' in names   # 10: pyppmd is missing
    for _, per_char, per_byte, nats in rows:
        assert float(per_char) >= float(per_byte)   # a character is a byte or more
        assert float(nats) == pytest.approx(float(per_char) * math.log(2), abs=0.001)
    by_name = {row[0]: float(row[1]) for row in rows}
    assert by_name['sequences of up to 3 (Witten-Bell)'] < by_name['pairs of characters (Witten-Bell)']
    assert by_name['pairs of characters (Witten-Bell)'] < by_name['how frequent each character is']


def test_the_first_row_is_the_baseline_of_train_py(prepared, tool):
    data_dir = str(prepared / ECA)
    train, val = (np.fromfile(f'{data_dir}/{split}.bin', np.uint16).astype(np.int64) for split in ('train', 'val'))
    vocab_size = int(max(train.max(), val.max())) + 1
    p = tool['ngram_probabilities'](train, val, vocab_size, 1)[0]
    assert -np.log(p).mean() == pytest.approx(evaluate.unigram_loss(data_dir, vocab_size))


def test_without_pyppmd_a_line_says_so(prepared, tmp_path):
    (tmp_path / 'pyppmd.py').write_text('raise ImportError')
    said = prepared.run('tools/baselines.py', '--max_chars=100', '--out_dir=', real=True,
                        env={'PYTHONPATH': str(tmp_path)})
    assert 'PPMd of order 6: pip install pyppmd' in said and 'xz -9e' in said


def test_mistakes_are_one_line(bare):
    assert 'prepare.py' in bare.run('tools/baselines.py', fails=True)
    bare.run(f'{ECA}/prepare.py', f'{ECA}/amostra.txt')
    assert 'stride = 0' in bare.run('tools/baselines.py', '--stride=0', fails=True)
    assert 'there is no' in bare.run('tools/baselines.py', '--out_dir=nowhere', fails=True)
    assert 'is not that of the model' in bare.run('tools/baselines.py', fails=True)   # the sample has fewer characters
