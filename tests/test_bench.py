"""tools/bench.py measures what it says; no test here asks how fast."""

import json
import re

from conftest import TINY

SMALL = [*TINY, '--rounds=1', '--repeats=1', '--max_new_tokens=40', '--num_samples=2']
NANOGPT = """
import importlib.util
spec = importlib.util.spec_from_file_location('ours', {model!r})
ours = importlib.util.module_from_spec(spec)
spec.loader.exec_module(ours)
GPTConfig = ours.GPTConfig


class GPT(ours.GPT):
    def configure_optimizers(self, weight_decay, learning_rate, betas, device_type):
        print('as nanoGPT does, it prints')
        return super().configure_optimizers(weight_decay, learning_rate, betas)[0]
"""


def test_table(bare, tmp_path):
    """A positive figure in every row; with another program beside it, that one's and the ratio; and a trace."""
    (tmp_path / 'other').mkdir()
    (tmp_path / 'other' / 'model.py').write_text(NANOGPT.format(model=str(bare / 'model.py')), encoding='utf-8')
    printed = bare.run('tools/bench.py', *SMALL, f'--nanogpt={tmp_path}/other', '--profile',
                       f'--out_dir={tmp_path}/out')
    assert 'device: cpu, dtype: float32' in printed and 'vocabulary 145' in printed
    table = printed.split('ratio\n')[1].splitlines()
    assert max(map(len, printed.splitlines())) <= 80
    names = [line[:38].strip() for line in table]
    assert len(table) == 11 and len(set(names)) == 11
    for line in table:
        figures = [float(n.replace(',', '')) for n in re.findall(r'[\d,]*\.?\d+', line[38:])]
        assert len(figures) >= 3 and all(n >= 0 for n in figures) and figures[0] > 0, line
    figures = {line[:38].strip(): float(re.search(r'[\d,]*\.?\d+', line[38:])[0].replace(',', '')) for line in table}
    step_ms = figures['training step, 8 x 32 tokens']
    tokens = 8 * 32
    assert 0.2 * step_ms < figures['forward'] + figures['backward'] + figures['clip and step'] < 5 * step_ms
    assert abs(figures['training'] / (tokens / step_ms * 1000) - 1) < 0.2   # medians of a few, each rounded
    shares = {line[:38].strip(): line[50:59].strip() for line in table}
    assert shares['training'] == shares['training step, 8 x 32 tokens'] != ''
    assert sum(bool(re.fullmatch(r'\d+%', share)) for share in shares.values()) == 6
    with open(tmp_path / 'out' / 'trace.json', encoding='utf-8') as f:
        assert any(event.get('name') == 'aten::mm' for event in json.load(f)['traceEvents'])


def test_mistakes(bare):
    said = bare.run('tools/bench.py', *SMALL, '--nanogpt=no-such-folder', fails=True)
    assert 'no-such-folder is not a checkout of nanoGPT' in said
    for arg, says in [('--rounds=0', 'rounds = 0'), ('--n_head=5', 'n_embd = 32 cannot be split'),
                      ('--optimizer=sgd', 'optimizer = sgd'), ('--beta2=1', 'beta2 = 1.0'),
                      (f'--rounds={2**63}', 'it must be below 2**63'), ('--learning_rate=inf', 'learning_rate = inf'),
                      ('--muon_momentum=1', 'muon_momentum = 1.0'), ('--device=tpu', 'device = tpu')]:
        assert says in bare.run('tools/bench.py', *SMALL, arg, fails=True)
    assert 'did you mean batch_size' in bare.run('tools/bench.py', '--batchsize=2', fails=True)


def test_help(bare):
    printed = bare.run('tools/bench.py', '--help')
    assert '--nanogpt=' in printed and '--device=' not in printed and 'Overriding' not in printed
    assert 'Every setting of train.py can be given here too' in printed
