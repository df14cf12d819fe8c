"""tools/explain.py: its numbers are the model's, its page is complete in itself, and a browser shows what it says."""

import base64
import json
import math
import os
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


def read_data(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL).group(1))


@pytest.fixture(scope='module')
def letter(out_dir):
    """(the script's globals, its page's path) for a letter that the model goes on with."""
    g = explain(out_dir, f'--start={LETTER}', '--max_new_tokens=30', '--top=7', f'--to={out_dir}/letter.html')
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
    assert ''.join(data['pieces']).startswith(LETTER) and data['nPrompt'] == len(LETTER)
    assert ''.join(data['pieces']) == ''.join(CHARS[i] for i in idx[0])

    roots = np.frombuffer(base64.b64decode(data['attention']), dtype=np.uint8).reshape(2, 3, -1) / 255
    row = roots[:, :, 20 * 21 // 2:21 * 22 // 2]   # of position 20
    np.testing.assert_allclose(row, g['attention'][:, :, 20, :21].sqrt(), atol=0.51 / 255)


def test_prompts_short_and_long(out_dir, capsys):
    """One character alone, and a prompt as long as the window, whose continuation has no room."""
    g = explain(out_dir, '--start=A', '--max_new_tokens=0', f'--to={out_dir}/one.html')
    assert read_data((out_dir / 'one.html').read_text(encoding='utf-8'))['pieces'] == ['A'] and g['T'] == 1
    g = explain(out_dir, f'--start={"a" * 90}', f'--to={out_dir}/long.html')
    assert g['T'] == 96 and 'max_new_tokens is 6 here' in capsys.readouterr().out


@pytest.mark.parametrize('kind', ['gpt2', 'hf'])
def test_tokens_that_are_parts_of_characters(tmp_path, request, kind):
    """Each shows the whole character, numbered, and a prediction that completes a character shows that one."""
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
    g = explain(folder, '--start=olá 日本, </b>\n', '--max_new_tokens=8', f'--top={top}', f'--to={tmp_path}/page.html')
    pieces = g['pieces'][:len(g['prompt'])]
    assert ''.join(piece.rstrip('₁') for piece in pieces if piece[-1] not in '₂₃₄') == 'olá 日本, </b>\n'
    parts = [t for t, piece in enumerate(pieces) if '日' in piece]
    assert len(parts) > 1 and [pieces[t][-1] for t in parts] == list('₁₂₃')[:len(parts)]
    assert len(g['pieces']) == len(g['ids']) and all(g['pieces'])
    if top == vocab_size:
        completes = parts[-2]   # the position before the character's last token
        assert g['predicted'][completes][g['ranks'][completes]] + '₁' == pieces[parts[0]]
        assert g['predicted'][0][(g['order'][0] == vocab_size - 1).int().argmax()] == f'<{vocab_size - 1}>'   # padding


# -----------------------------------------------------------------------------
# the script as a user runs it

def test_as_a_user_runs_it(prepared, out_dir):
    """The page lies in out_dir, and is the same again."""
    args = ['--start=Ora', '--max_new_tokens=20', '--seed=3']
    printed = prepared.run('tools/explain.py', f'--out_dir={out_dir}', '--device=cpu', *args)
    page = (out_dir / 'explain.html').read_bytes()
    assert printed == f'wrote {out_dir}/explain.html: 23 tokens, 0.0 MB\n'
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
    (['--top=1000'], f'top = 1000 is invalid: the model knows {len(CHARS)} tokens'),
    (['--max_new_tokens=-1'], 'max_new_tokens = -1 is invalid'),
    (['--start=A', '--to=nada/nada/page.html'], 'to = nada/nada/page.html cannot be written: its folder is not there'),
])
def test_bad_input(out_dir, tmp_path, monkeypatch, args, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as e:
        explain(out_dir, *args)
    assert says in str(e.value) and len(str(e.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_page_is_complete_in_itself(out_dir):
    explain(out_dir, f'--start={HOSTILE}', '--max_new_tokens=0', f'--to={out_dir}/hostile.html')
    page = (out_dir / 'hostile.html').read_text(encoding='utf-8')
    assert not re.search(r'https?:|\b(src|href|srcset|poster)\s*=|@import|\b(url|import|fetch)\(|{{', page)
    assert page.count('</script>') == page.count('<script') == 2 and page.count('<!--') == page.count('-->')
    assert ''.join(read_data(page)['pieces']) == HOSTILE


# -----------------------------------------------------------------------------
# the page in a browser

@pytest.fixture(scope='module')
def browser():
    playwright = pytest.importorskip('playwright.sync_api', reason='playwright is not installed')
    with playwright.sync_playwright() as p:
        names = ('chromium', 'chromium-browser', 'google-chrome')
        path = next(filter(None, map(shutil.which, names)), p.chromium.executable_path)   # or playwright's own
        if not os.path.exists(path):
            pytest.skip('there is no Chromium to open the page in: playwright install chromium')
        browser = p.chromium.launch(executable_path=path, args=[
            '--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update',
            '--disable-sync', '--no-first-run'])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser):
    """open_page(path, locale) -> a page; at the end, none may have asked for another file or said anything."""
    contexts = []
    requests = []
    said = []

    def open_page(path, locale='en-US', **kwargs):
        context = browser.new_context(locale=locale, viewport={'width': 1200, 'height': 900}, **kwargs)
        contexts.append((context, path))
        context.route(lambda url: not url.startswith('file:'), lambda route: route.abort())
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on('request', lambda request: requests.append(request.url))
        page.on('console', lambda message: said.append(message.text))
        page.on('pageerror', lambda e: said.append(str(e)))
        page.on('dialog', lambda dialog: said.append(dialog.message))
        page.goto(path.as_uri())
        return page

    yield open_page
    for context, _ in contexts:
        context.close()
    assert requests == [path.as_uri() for _, path in contexts] and said == []


READ = """() => ({
    text: [...document.querySelectorAll('#text .token')].map(e => e.textContent).join(''),
    pinned: [...document.querySelectorAll('#text [aria-selected=true]')].map(e => e.id).join(),
    active: document.querySelector('#text').getAttribute('aria-activedescendant'),
    shown: document.querySelector('#text .shown').id,
    next: [...document.querySelectorAll('#next li')].map(e => [e.querySelector('.name').textContent,
        e.querySelector('.value').textContent, e.className]),
    looks: [...document.querySelectorAll('#looks li')].map(e => [e.querySelector('b').textContent,
        e.querySelector('.value').textContent]),
    bars: [...document.querySelectorAll('#text svg rect')].map(e => [+e.dataset.token, +e.getAttribute('height')]),
    curves: [...document.querySelectorAll('#text svg path')].map(e => +e.dataset.token),
    layer: document.querySelector('#layer').value, head: document.querySelector('#head').value,
    live: document.querySelector('#live').textContent,
    tops: [...document.querySelectorAll('#text .token')].map(e => Math.round(e.getBoundingClientRect().top)),
    overflow: document.documentElement.scrollWidth - innerWidth,
})"""


def as_shown(text):
    return text.replace(' ', '·').replace('\n', '↵')


def as_number(percent):
    return float(percent.strip('<% ◂')) / 100


def assert_shows(seen, g, t, layer, head):
    """Position t is selected, with the model's predictions after it and the weights of one head, or their mean (-1)."""
    assert seen['pinned'] == seen['active'] == seen['shown'] == f'token-{t}'
    assert (seen['layer'], seen['head']) == (str(layer), str(head))
    p = g['logits'][t].softmax(0)
    for (name, value, _), i in zip(seen['next'], p.topk(7).indices, strict=False):
        assert name == as_shown(CHARS[i]) and as_number(value) == pytest.approx(max(p[i].item(), 1e-4), rel=0.051)
    if t + 1 < g['T']:
        came = [(name, value) for name, value, kind in seen['next'] if kind == 'came']
        assert [name for name, _ in came] == [as_shown(g['pieces'][t + 1])] and came[0][1].endswith('◂')
        assert as_number(came[0][1]) == pytest.approx(max(p[g['ids'][t + 1]].item(), 1e-4), rel=0.051)
    weights = g['attention'][layer, :, t, :t + 1].mean(0) if head < 0 else g['attention'][layer, head, t, :t + 1]
    most = weights.max().item()
    bars = dict(seen['bars'])
    for s, weight in enumerate(weights.tolist()):
        assert bars.get(s, 0) / 9 == pytest.approx(weight / most, abs=0.025)   # shares below 0.02 are not drawn
    for (_, value), weight in zip(seen['looks'], weights.sort(descending=True).values.tolist()):
        assert as_number(value) == pytest.approx(weight, rel=0.06, abs=2e-3)
    assert seen['curves'] and t not in seen['curves'] or t == 0 or most > 0.9


def test_steering(letter, open_page):
    """Keys and mouse move the position; keys, selects and pictures choose the head; all panels follow."""
    g, path = letter
    page = open_page(path)
    seen = page.evaluate(READ)
    assert seen['text'] == as_shown(''.join(g['pieces'])) and seen['overflow'] <= 0
    assert_shows(seen, g, len(LETTER) - 1, 0, -1)
    lines = sorted(set(seen['tops']))
    assert len(lines) >= 2 and seen['tops'][LETTER.index('\n') + 1] > seen['tops'][LETTER.index('\n')]

    def press(key):
        page.keyboard.press(key)
        return page.evaluate(READ)

    for _ in range(2):   # the text is the first thing that Tab reaches, and the selects come after it
        page.keyboard.press('Tab')
        if page.evaluate('document.activeElement.id') == 'text':
            break
    assert page.evaluate('document.activeElement.id') == 'text'
    assert page.evaluate("getComputedStyle(document.activeElement).boxShadow") != 'none'   # focus shows
    assert_shows(press('Home'), g, 0, 0, -1)
    assert_shows(press('ArrowLeft'), g, 0, 0, -1)
    one = press('ArrowRight')
    assert_shows(one, g, 1, 0, -1)
    two = press('ArrowRight')
    assert_shows(two, g, 2, 0, -1)
    assert two['next'] != one['next'] and two['bars'] != one['bars'] and 'Position 3 of' in two['live']
    down = press('ArrowDown')
    t = int(down['pinned'].split('-')[1])
    assert lines.index(down['tops'][t]) == 1
    assert_shows(down, g, t, 0, -1)
    up = press('ArrowUp')
    assert lines.index(up['tops'][int(up['pinned'].split('-')[1])]) == 0
    last = press('End')
    assert_shows(last, g, g['T'] - 1, 0, -1)
    assert page.locator('#last').text_content().startswith('The text ends here')

    page.locator('#token-30').click()   # the mouse pins; passing by only previews
    clicked = page.evaluate(READ)
    assert_shows(clicked, g, 30, 0, -1)
    page.locator('#token-12').hover()
    passing = page.evaluate(READ)
    assert (passing['shown'], passing['pinned'], passing['live']) == ('token-12', 'token-30', clicked['live'])
    assert passing['next'] != clicked['next']
    page.mouse.move(5, 5)
    assert page.evaluate(READ) == clicked

    assert_shows(press('w'), g, 30, 1, -1)
    assert_shows(press('W'), g, 30, 1, -1)   # there is no higher layer
    assert_shows(press('d'), g, 30, 1, 0)
    assert_shows(press('d'), g, 30, 1, 1)
    assert_shows(press('a'), g, 30, 1, 0)
    page.locator('#head').select_option(label='3')
    page.locator('#layer').select_option(index=0)
    chosen = page.evaluate(READ)
    assert_shows(chosen, g, 30, 0, 2)
    page.locator('canvas[data-layer="1"][data-head="1"]').click()
    assert_shows(page.evaluate(READ), g, 30, 1, 1)
    assert page.locator('canvas.chosen').count() == 1
    page.locator('#looks li').nth(1).click()   # go where it looked
    assert page.evaluate(READ)['pinned'] != 'token-30'


def test_narrow_and_portuguese(letter, open_page):
    """A phone's width: nothing to scroll sideways, and the curves go where the letters went."""
    g, path = letter
    page = open_page(path, locale='pt-BR', color_scheme='dark')
    assert page.locator('h1').text_content() == 'Por dentro de um GPT'
    assert page.evaluate('document.documentElement.lang') == 'pt-BR' and ',' in page.locator('#means').text_content()
    page.set_viewport_size({'width': 360, 'height': 700})
    page.wait_for_timeout(100)   # the observer of the text's size draws anew
    where = page.evaluate("""() => {
        const left = e => e.getBoundingClientRect().left
        return [...document.querySelectorAll('#text svg rect')].map(e => left(e) - left(tokens[e.dataset.token]))
    }""")
    assert where and max(map(abs, where)) < 2
    assert page.evaluate(READ)['overflow'] <= 0
    assert page.evaluate("[...document.querySelectorAll('[data-say]')].every(e => e.textContent.length > 3)")


def test_hostile_text_is_only_text(out_dir, open_page):
    explain(out_dir, f'--start={HOSTILE}', '--max_new_tokens=9', f'--to={out_dir}/hostile-too.html')
    page = open_page(out_dir / 'hostile-too.html')
    assert page.evaluate(READ)['text'].startswith(as_shown(HOSTILE))
    assert page.evaluate("document.scripts.length + document.querySelectorAll('#text b, #text script').length") == 2
    page.locator('#token-10').click()
    assert page.evaluate(READ)['pinned'] == 'token-10'
