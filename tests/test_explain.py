"""tools/explain.py: the numbers of a frozen page are the model's, and a page is complete in itself. test_page.py opens
both kinds in a browser."""

import base64
import json
import math
import re
import shutil

import numpy as np
import pytest
import torch
from conftest import script_globals
from torch.nn import functional as F

from model import GPT, GPTConfig
from support.checkpoints import save_checkpoint
from support.tokenizer import gpt2_tokens

CHARS = '\n' + ''.join(map(chr, range(32, 127))) + 'ãáâçéêíóõúÁÉ«»—'
LETTER = 'Meu caro amigo,\nrecebi ontem a tua carta de Lisboa'
HOSTILE = '</script><script>alert(1)</script><!-- "a" & \'b\' <b>&lt;'


def save_model(folder, tokenizer, vocab_size, seed=0, **shape):
    """An untrained model with a mind of its own: large weights make its heads look at few positions."""
    torch.manual_seed(seed)
    args = dict(n_layer=2, n_head=3, n_embd=24, block_size=96, bias=True, vocab_size=vocab_size, dropout=0.0) | shape
    model = GPT(GPTConfig(**args))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2:
                weight.normal_(std=0.5 if '.h.' in name else 0.2)
    folder.mkdir(exist_ok=True)
    save_checkpoint({'model': model.state_dict(), 'model_args': args, 'tokenizer': tokenizer}, str(folder / 'ckpt.pt'))
    return folder


@pytest.fixture(scope='module')
def out_dir(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp('explain') / 'out-eca', {'kind': 'char', 'itos': list(CHARS)}, len(CHARS))


def explain(out_dir, *args):
    """The variables that the script ends with."""
    return script_globals('tools/explain.py', f'--out_dir={out_dir}', '--device=cpu', *args)


def freeze(out_dir, *args):
    """The same for a page without the model."""
    return explain(out_dir, '--max_mb=0', *args)


def read_data(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL).group(1))


def text_of(data):
    return ''.join(text for text, _ in data['clusters'])


@pytest.fixture(scope='module')
def letter(out_dir):
    """(the script's globals, its page's path) for a letter that the model goes on with, frozen."""
    g = freeze(out_dir, f'--start={LETTER}', '--max_new_tokens=30', '--top=7', f'--to={out_dir}/letter.html')
    return g, out_dir / 'letter.html'


# -----------------------------------------------------------------------------
# numbers

def test_attention_is_the_models(letter):
    """The weights that hooks gave, applied to the values, are what each attention module put out."""
    g, _ = letter
    model = g['model']
    idx = g['idx']
    attention = g['attention']
    nl, nh, T, _ = attention.shape
    assert (nl, nh, T) == (2, 3, len(LETTER) + 30) and T == idx.size(1)
    assert torch.equal(attention, attention.tril())
    torch.testing.assert_close(attention.sum(-1), torch.ones(nl, nh, T))
    assert attention.max() > 0.9 and attention[:, :, 40:].max(dim=-1).values.min() < 0.5   # sharp and blurred

    seen = []
    for block in model.transformer.h:
        block.attn.register_forward_hook(lambda module, x, y: seen.append((module, x[0], y)))
    with torch.no_grad():
        model(idx)
        for weights, (module, x, y) in zip(attention, seen, strict=True):
            q, k, v = module.c_attn(x)[0].double().split(24, dim=1)   # (T, C)
            heads = []
            for h in range(nh):
                part = slice(8 * h, 8 * h + 8)
                for t in (0, 1, 17, T - 1):
                    scores = k[:t + 1, part] @ q[t, part] / math.sqrt(8)
                    torch.testing.assert_close(weights[h, t, :t + 1].double(), scores.softmax(0), rtol=1e-3, atol=1e-5)
                heads.append(weights[h].double() @ v[:, part])
            torch.testing.assert_close(module.c_proj(torch.cat(heads, 1).float()), y[0], rtol=1e-3, atol=1e-4)


def test_surprise_and_predictions_are_the_models(letter):
    g, path = letter
    model = g['model']
    idx = g['idx']
    data = read_data(path.read_text(encoding='utf-8'))
    T = idx.size(1)
    with torch.no_grad():
        for t in (1, 5, len(LETTER), T - 1):
            p = F.softmax(model(idx[:, :t])[0][0, -1], dim=0)   # from the text before t alone, not from one long pass
            assert abs(data['surprise'][t] + math.log2(p[idx[0, t]])) < 1e-3
            assert data['ranks'][t - 1] == (p > p[idx[0, t]]).sum()
            assert data['predicted'][t - 1] == [CHARS[i] for i in p.topk(7).indices]
            np.testing.assert_allclose(data['p'][t - 1], p.topk(7).values, rtol=1e-3)
        _, loss = model(idx[:, :-1], idx[:, 1:])
    assert data['surprise'][0] is None and len(data['surprise']) == T
    assert abs(sum(data['surprise'][1:]) * math.log(2) / (T - 1) - loss.item()) < 1e-3
    assert text_of(data).startswith(LETTER) and data['nPrompt'] == len(LETTER)
    assert text_of(data) == ''.join(CHARS[i] for i in idx[0])

    roots = np.frombuffer(base64.b64decode(data['attention']), dtype=np.uint8).reshape(2, 3, -1) / 255
    row = roots[:, :, 20 * 21 // 2:21 * 22 // 2]   # of position 20
    np.testing.assert_allclose(row, g['attention'][:, :, 20, :21].sqrt(), atol=0.51 / 255)


def test_prompts_short_and_long(out_dir, capsys):
    """One character alone, and a prompt as long as the window, whose continuation has no room."""
    g = freeze(out_dir, '--start=A', '--max_new_tokens=0', f'--to={out_dir}/one.html')
    assert read_data((out_dir / 'one.html').read_text(encoding='utf-8'))['clusters'] == [['A', 1]] and g['T'] == 1
    g = explain(out_dir, f'--start={"a" * 90}', f'--to={out_dir}/long.html')
    assert g['T'] == 96 and 'max_new_tokens is 6 here' in capsys.readouterr().out


@pytest.mark.parametrize('kind', ['gpt2', 'hf'])
def test_tokens_that_are_parts_of_characters(tmp_path, request, kind):
    """The character is there once, for all of its tokens, and a prediction that completes it shows it whole."""
    if kind == 'gpt2':
        pytest.importorskip('tiktoken')
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv('TIKTOKEN_CACHE_DIR', request.getfixturevalue('tiktoken_cache'))
            bpe = [token.decode('latin-1') for token in gpt2_tokens({})]
        tokenizer = {'kind': 'gpt2', 'bpe': bpe}
        vocab_size = 50304
    else:
        tokenizers = pytest.importorskip('tokenizers')
        bpe = tokenizers.ByteLevelBPETokenizer()
        bpe.train_from_iterator(['olá, o dia'] * 3, vocab_size=270, show_progress=False)
        tokenizer = {'kind': 'hf', 'json': bpe.to_str(), 'eos': None}
        vocab_size = 320
    folder = save_model(tmp_path / 'out', tokenizer, vocab_size, n_embd=12)
    top = 60 if kind == 'gpt2' else vocab_size
    g = freeze(folder, '--start=olá 日本, </b>\n', '--max_new_tokens=8', f'--top={top}', f'--to={tmp_path}/page.html')
    data = read_data((tmp_path / 'page.html').read_text(encoding='utf-8'))
    assert text_of(data).startswith('olá 日本, </b>\n') and all(text for text, _ in data['clusters'])
    assert sum(n for _, n in data['clusters']) == len(g['ids'])
    where = next(i for i, (text, _) in enumerate(data['clusters']) if '日' in text)
    assert data['clusters'][where][1] > 1
    if top == vocab_size:
        order = g['logits'].argsort(dim=-1, descending=True, stable=True)
        last = sum(n for _, n in data['clusters'][:where + 1]) - 1   # the position of the character's last token
        assert data['predicted'][last - 1][data['ranks'][last - 1]] == data['clusters'][where][0]
        assert data['predicted'][0][(order[0] == vocab_size - 1).int().argmax()] == f'<{vocab_size - 1}>'   # padding


# -----------------------------------------------------------------------------
# the script as a user runs it

def test_as_a_user_runs_it(prepared, out_dir):
    """The page lies in out_dir, and is the same again."""
    args = ['--start=Ora', '--max_new_tokens=20', '--seed=3']
    printed = prepared.run('tools/explain.py', f'--out_dir={out_dir}', '--device=cpu', *args)
    page = (out_dir / 'explain.html').read_bytes()
    assert printed == f'wrote {out_dir}/explain.html: 23 tokens, 0.2 MB\n'
    explain(out_dir, *args, f'--to={out_dir}/again.html')
    assert (out_dir / 'again.html').read_bytes() == page
    said = prepared.run('tools/explain.py', f'--out_dir={out_dir}', '--start=Olá 漢', fails=True)
    assert "'漢' (U+6F22)" in said and (out_dir / 'explain.html').read_bytes() == page


@pytest.mark.parametrize('args, says', [
    (['--out_dir=out-nada'], 'there is no out-nada'),
    ([f'--start={"carta " * 20}'], 'the prompt has 120 tokens, and the model sees block_size = 96 at once; shorten it'),
    (['--start='], 'the prompt is empty'),
    (['--start=FILE:nada.txt'], 'nada.txt cannot be read: No such file'),
    (['--top=0'], 'top = 0 is invalid: it must be at least 1'),
    (['--top=1000', '--max_mb=0'], f'top = 1000 is invalid: the model knows {len(CHARS)} tokens'),
    (['--max_new_tokens=-1'], 'max_new_tokens = -1 is invalid'),
    (['--max_mb=-1'], 'max_mb = -1 is invalid'),
    (['--start=A', '--to=nada/nada/page.html'], 'to = nada/nada/page.html cannot be written: its folder is not there'),
])
def test_bad_input(out_dir, tmp_path, monkeypatch, args, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as e:
        explain(out_dir, *args)
    assert says in str(e.value) and len(str(e.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('how', [explain, freeze])
def test_page_is_complete_in_itself(out_dir, how):
    how(out_dir, f'--start={HOSTILE}', '--max_new_tokens=0', f'--to={out_dir}/hostile.html')
    page = (out_dir / 'hostile.html').read_text(encoding='utf-8')
    assert not re.search(r'https?:|\b(src|href|srcset|poster)\s*=|@import|\b(url|import|fetch)\(', page)
    assert not re.search('{{(data|weights)}}', page)
    assert page.count('</script>') == page.count('<script') == 3 and page.count('<!--') == page.count('-->')
    data = read_data(page)
    text = text_of(data) if how is freeze else ''.join(CHARS[i] for i in data['ids'])
    assert text == HOSTILE


def test_words_in_double_braces_are_only_text(tmp_path):
    """The prompt stands where the page's source has such words, and must not be taken for them."""
    folder = save_model(tmp_path / 'out', {'kind': 'char', 'itos': [*CHARS]}, len(CHARS))
    prompt = '{{weights}} {{data}}'
    explain(folder, f'--start={prompt}', '--max_new_tokens=0')
    data = read_data((folder / 'explain.html').read_text(encoding='utf-8'))
    assert ''.join(CHARS[i] for i in data['ids']) == prompt


def test_a_page_with_the_model_in_it(out_dir, tmp_path, capsys):
    """Its weights are the model's, rounded; and it says why where they are not there."""
    g = explain(out_dir, '--start=Ora', '--max_new_tokens=9', f'--to={tmp_path}/page.html')
    page = (tmp_path / 'page.html').read_text(encoding='utf-8')
    data = read_data(page)
    weights = np.frombuffer(base64.b64decode(re.search(r'id="weights">(.*?)</script>', page)[1]), '<f2')
    named = dict(g['model'].named_parameters())
    assert data['layers'] == [[name, w.numel()] for name, w in named.items()] and 'lm_head.weight' not in named
    expected = torch.cat([w.detach().flatten() for w in named.values()]).half().numpy()
    assert np.array_equal(weights, expected) and data['ids'] == g['ids'] and data['frozen'] == ''
    assert capsys.readouterr().out.count('\n') == 1

    wide = save_model(tmp_path / 'wide', {'kind': 'char', 'itos': list(CHARS)}, len(CHARS), n_embd=240)
    shutil.copytree(out_dir, tmp_path / 'large')
    checkpoint = torch.load(tmp_path / 'large' / 'ckpt.pt')
    checkpoint['model']['transformer.ln_f.weight'][0] = 1e6
    save_checkpoint(checkpoint, str(tmp_path / 'large' / 'ckpt.pt'))
    for folder, args, why, says in [
        (out_dir, ['--max_mb=0'], 'asked', ''),
        (wide, ['--max_mb=1'], 'size', 'with the model it would have 4 MB, and max_mb = 1'),
        (tmp_path / 'large', [], 'range', 'weights up to 1e+06, too large for float16'),
    ]:
        explain(folder, '--start=Ora', '--max_new_tokens=9', f'--to={tmp_path}/page.html', *args)
        page = (tmp_path / 'page.html').read_text(encoding='utf-8')
        assert read_data(page)['frozen'] == why and 'id="weights"></script>' in page
        printed = capsys.readouterr().out
        assert says in printed and printed.startswith('the page is frozen: ')


def test_tokenizers_that_the_page_does_not_know(tmp_path, capsys):
    """Their pages are frozen; and one like GPT-2's is not."""
    tokenizers = pytest.importorskip('tokenizers')
    bpe = tokenizers.ByteLevelBPETokenizer()
    bpe.train_from_iterator(['olá, o dia'] * 3, vocab_size=270, show_progress=False)
    plain = json.loads(bpe.to_str())
    nfc = plain | {'normalizer': {'type': 'NFC'}}
    spaced = plain | {'pre_tokenizer': plain['pre_tokenizer'] | {'add_prefix_space': True}}
    whole = plain | {'model': plain['model'] | {'ignore_merges': True}}
    no_cut = plain | {'pre_tokenizer': None}
    for hf in (plain, nfc, spaced, whole, no_cut):
        frozen = '' if hf is plain else 'tokenizer'
        folder = save_model(tmp_path / 'out', {'kind': 'hf', 'json': json.dumps(hf), 'eos': None}, 320)
        g = explain(folder, '--start=dia', '--max_new_tokens=3')
        assert g['frozen'] == frozen
        assert ('and not this one' in capsys.readouterr().out) == bool(frozen)
