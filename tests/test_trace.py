"""tools/trace.py: every number that it prints is one of the model's own forward pass, on the line that it names."""

import re
from pathlib import Path

import pytest
import torch
from conftest import REPO, script_globals
from test_explain import CHARS, save_model

from support.checkpoints import load_checkpoint

TEXT = 'Meu caro amigo'
MODEL = (REPO / 'model.py').read_text(encoding='utf-8').splitlines()


@pytest.fixture(scope='module')
def out_dir(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp('trace') / 'out-eca', {'kind': 'char', 'itos': list(CHARS)}, len(CHARS),
                      n_layer=3)


@pytest.fixture
def trace(out_dir, capsys):
    """What the script prints of TEXT: (a list of its stages, the last line)."""
    def run(*args):
        script_globals('tools/trace.py', f'--out_dir={out_dir}', f'--start={TEXT}', *args)
        printed = capsys.readouterr().out
        assert max(map(len, printed.splitlines())) <= 80
        *body, last = printed.rstrip().split('\n\n')
        return re.split(r'\n(?=\d+\. )', '\n\n'.join(body))[1:], last
    return run


def rows(stage, begins=r' +\d+ \'.*?\' '):
    """The numbers in the lines of a stage that begin so."""
    lines = [re.sub(f'^{begins}', '', line) for line in stage.split('\n') if re.match(begins, line)]
    return torch.tensor([[float(n) for n in re.findall(r'-?\d+\.\d+|\b\d+\b', line)] for line in lines])


def close(printed, exact):
    """Whether what is printed with three decimals is the exact value."""
    torch.testing.assert_close(printed, exact.float(), rtol=0, atol=0.00051)


@pytest.mark.parametrize('layer, head', [(1, 1), (2, 3), (3, 2)])
def test_the_numbers_are_those_of_the_forward_pass(trace, out_dir, layer, head):
    model, _ = load_checkpoint(str(out_dir / 'ckpt.pt'))
    model.eval()
    block = model.transformer.h[layer - 1]
    seen = {}
    for name, module in {'x': model.transformer.drop, 'ln_1': block.ln_1, 'qkv': block.attn.c_attn, 'block': block,
                         'attn': block.attn, 'c_proj': block.attn.c_proj}.items():
        module.register_forward_hook(lambda module, x, y, name=name: seen.update({name: y[0], f'into {name}': x[0][0]}))
    ids = [CHARS.index(char) for char in TEXT]
    with torch.no_grad():
        logits, _ = model(torch.tensor([ids]))
    q, k, v = (part[:, 8 * head - 8:8 * head] for part in seen['qkv'].split(24, dim=1))   # (T, hs) each
    mix = seen['into c_proj'][:, 8 * head - 8:8 * head]

    stages, last = trace(f'--layer={layer}', f'--head={head}', '--rows=99')
    numbers, vectors, normed, keys, scores, weights, values, stream, mlp, lm_head, likeliest = stages
    assert rows(numbers)[:, 0].tolist() == ids
    close(rows(vectors), seen['x'][:, :4])
    close(rows(normed), seen['ln_1'][:, :4])
    close(rows(keys, ' +query  '), q[-1:, :4])
    close(rows(keys), k[:, :4])
    close(rows(scores)[:, 0], k @ q[-1] / 8 ** 0.5)
    close(rows(weights)[:, 0], (k @ q[-1] / 8 ** 0.5).softmax(dim=0))
    close(rows(values), v[:, :4])
    close(rows(values, ' +the mix  '), mix[-1:, :4])   # what the model itself put into c_proj
    close(rows(stream, ' +before  '), seen['into block'][-1:, :4])
    close(rows(stream, ' +after  '), (seen['into block'] + seen['attn'])[-1:, :4])
    close(rows(mlp, ' +after  '), seen['block'][-1:, :4])
    close(rows(lm_head, ' +first four  '), logits[0, :, :4])
    close(rows(lm_head, ' +highest  '), logits[0].max(dim=-1, keepdim=True).values)
    probs = logits[0, 0].softmax(dim=-1)
    close(rows(likeliest)[:, 0], logits[0, 0].topk(5).values)
    close(rows(likeliest)[:, 1] / 100, probs.topk(5).values)
    assert [int(n) for n in re.findall(r"^ +(\d+) '", likeliest, re.M)] == probs.topk(5).indices.tolist()
    assert float(re.search(r'but for (\S+) at most', last)[1]) < 1e-4


def test_each_stage_names_its_line_of_model_py(trace):
    """The line is one of model.py's, and has in it what the formula is about."""
    stages, _ = trace()
    in_line = ['idx.shape', 'tok_emb + pos_emb', 'ln_1(x)', 'c_attn(x)', 'q @ k.mT', '.softmax(', '@ v',
               '.reshape(B, T, C)', 'mlp(', 'lm_head(x)', 'F.softmax(logits']
    assert len(stages) == len(in_line)
    for stage, code in zip(stages, in_line):
        n = int(re.search(r'model\.py, line (\d+)$', stage, re.M)[1])
        assert code in MODEL[n - 1]


def test_of_a_long_text_the_last_tokens_are_shown(trace):
    stages, _ = trace('--rows=5', '--top=2')
    assert all(len(rows(stage)) == 5 for stage in stages[:7] if "'" in stage)
    assert re.findall(r"^ +(\d+) '", stages[0], re.M) == ['9', '10', '11', '12', '13']
    weights = rows(stages[5])[:, 0].sum() + rows(stages[5], ' +the others ')[0, 0]
    assert abs(weights - 1) < 0.004 and len(rows(stages[-1])) == 2


@pytest.mark.parametrize('args, says', [
    (['--start=日'], "'日'"),
    ([f"--start={'a' * 97}"], 'start has 97 tokens, and the model sees block_size = 96 at once; shorten it'),
    (['--layer=4'], 'layer = 4 is invalid: the model has 3 blocks'),
    (['--layer=0'], 'layer = 0 is invalid: it must be at least 1'),
    (['--head=4'], 'head = 4 is invalid: each block of the model has 3 heads'),
    (['--out_dir=nowhere'], 'there is no nowhere'),
])
def test_mistakes_are_one_line(prepared, out_dir, args, says):
    args = [f'--out_dir={out_dir}', *args]
    assert says in prepared.run('tools/trace.py', *args, fails=True)


def test_a_model_that_knows_other_tokens(prepared, tmp_path):
    """Control characters, wide letters and words do not break the lines; an untrained model has large numbers."""
    words = ['\x1b[2J', '\n', ' ', 'a' * 50, 'é']
    out_dir = save_model(tmp_path / 'out', {'kind': 'char', 'itos': words}, 5)
    said = prepared.run('tools/trace.py', f'--out_dir={Path(out_dir)}', '--start=' + 'é a' + 'a' * 49, '--top=9')
    assert max(map(len, said.splitlines())) <= 80 and '\x1b' not in said and "'aaaaaaaaaaa…'" in said
