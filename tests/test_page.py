"""The page of tools/explain.py in a real browser: the model in it computes what PyTorch does, every control does what
it says, by mouse, finger and keyboard, and the page asks nobody for anything."""

import json
import math
import os
import random
import shutil
import time

import pytest
import torch
from conftest import REPO
from test_explain import CHARS, HOSTILE, LETTER, explain, freeze, save_model

from model import pick_token
from support.tokenizer import get_codec, gpt2_tokens

MINI = REPO / 'assets' / 'eca-mini'
CHAR = {'kind': 'char', 'itos': list(CHARS)}


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
    """open_page(path, locale) -> a page that has read its text; at the end, none may have asked for another file, or
    said anything."""
    contexts = []
    requests = []
    said = []

    def open_page(path, locale='en-US', width=1280, height=800, **kwargs):
        context = browser.new_context(locale=locale, viewport={'width': width, 'height': height}, **kwargs)
        contexts.append((context, path))
        context.route(lambda url: not url.startswith('file:'), lambda route: route.abort())
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on('request', lambda request: requests.append(request.url))
        page.on('console', lambda message: said.append(message.text))
        page.on('pageerror', lambda e: said.append(str(e)))
        page.on('dialog', lambda dialog: said.append(dialog.message))
        page.goto(path.as_uri())
        at_rest(page)
        return page

    yield open_page
    for context, _ in contexts:
        context.close()
    assert requests == [path.as_uri() for _, path in contexts] and said == []


def at_rest(page):
    """Wait until the page has read its text, and shown it."""
    page.evaluate('new Promise(resolve => requestAnimationFrame(() => setTimeout(resolve)))')   # a caret moves later
    until(page, 'isReady && nRead() === ids.length && !resting')


def until(page, condition):
    """Wait for a condition. (Playwright's own way would evaluate a string in the page, which its policy forbids.)"""
    deadline = time.monotonic() + 30
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(20)


READ = """() => ({
    text: box.value, ids, chosen, start, layer, head,
    marked: spans.filter(e => e.matches('.chosen')).map(e => e.textContent).join('|'),
    next: [...document.querySelectorAll('#next li')].map(e => [e.querySelector('.name').firstChild.textContent,
        e.querySelector('.value').firstChild.textContent, e.className.trim()]),
    looks: [...document.querySelectorAll('#looks li')].map(e => [e.querySelector('b').textContent,
        e.querySelector('.value').textContent]),
    looked: spans.map(e => +e.style.getPropertyValue('--looked')),
    heat: spans.map(e => +e.style.getPropertyValue('--heat-share')),
    live: document.querySelector('#live').textContent, total: document.querySelector('#total').textContent,
    loss: document.querySelector('#loss').firstChild.textContent,
    overflow: document.documentElement.scrollWidth - innerWidth,
})"""


def see(page):
    at_rest(page)
    return page.evaluate(READ)


def as_number(text):
    """A percentage, or a number, in English."""
    return float(text.strip('<%+ ◂').replace('−', '-')) / (100 if '%' in text else 1)


def rounded(g):
    """The script's model with the weights that the page has; and, of characters, what its ids mean."""
    model = g['model'].float().cpu().eval()
    model.itos = g['tokenizer'].get('itos')
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.half().float())
    return model


def logits_of(model, ids):
    idx = torch.tensor([ids])
    with torch.no_grad():
        return model(idx, idx)[0][0]


def bits_of(logits, ids):
    """The surprise of each token but the first, in bits."""
    return [-logits[t].log_softmax(0)[ids[t + 1]].item() / math.log(2) for t in range(len(ids) - 1)]


@pytest.fixture(scope='module')
def eca(tmp_path_factory):
    """(model, path of its page): the model that comes along."""
    path = tmp_path_factory.mktemp('page') / 'mini.html'
    g = explain(MINI, '--start=Meu caro amigo', f'--to={path}')
    return rounded(g), path, g


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    """The same for an untrained model with few characters, biases, odd head sizes and a short window."""
    folder = save_model(tmp_path_factory.mktemp('page') / 'out', CHAR, len(CHARS), n_embd=21, block_size=40)
    g = explain(folder, '--start=Meu caro amigo', '--max_new_tokens=0')
    return rounded(g), folder / 'explain.html', g


def train_bpe(special=()):
    """A byte-level BPE in GPT-2's manner, as JSON."""
    tokenizers = pytest.importorskip('tokenizers')
    bpe = tokenizers.ByteLevelBPETokenizer()
    bpe.train_from_iterator([LETTER * 3, "it's we'll, 12 345", 'olá, o dia  que\n\nvem'] * 3, vocab_size=330,
                            show_progress=False, special_tokens=list(special))
    return bpe.to_str()


@pytest.fixture(scope='module')
def pieces(tmp_path_factory):
    """The same for a model of pieces, without biases."""
    tokenizer = {'kind': 'hf', 'json': train_bpe(['<|endoftext|>']), 'eos': '<|endoftext|>'}
    folder = save_model(tmp_path_factory.mktemp('page') / 'out', tokenizer, 384, bias=False)
    g = explain(folder, '--start=olá, o dia 日', '--max_new_tokens=20')
    return rounded(g), folder / 'explain.html', g


# -----------------------------------------------------------------------------
# the model

@pytest.mark.parametrize('shape', [
    dict(), dict(bias=False, n_embd=21, n_layer=3), dict(n_head=1, n_embd=7, n_layer=1), dict(n_embd=5, n_head=5)])
def test_logits_are_pytorchs(tmp_path, open_page, shape):
    """At every position of 256 characters; also where no size is a multiple of 4."""
    folder = save_model(tmp_path / 'out', CHAR, len(CHARS), **{'block_size': 256, **shape})
    g = explain(folder, '--start=A', '--max_new_tokens=0')
    page = open_page(folder / 'explain.html')
    text = (LETTER * 6)[:256]
    ids = page.evaluate('text => gpt.encode(text)', text)
    assert ids == [CHARS.index(char) for char in text] and page.evaluate('ids => gpt.decode(ids)', ids) == text
    ours = torch.tensor(page.evaluate('ids => gpt.logits(ids)', ids))
    assert ours.shape == (256, len(CHARS))
    assert (ours - logits_of(rounded(g), ids)).abs().max() < 1e-3
    assert 'RangeError: 257 tokens do not fit in block_size = 256' in page.evaluate(
        "ids => { try { gpt.logits([...ids, 0]) } catch (e) { return String(e) } }", ids)


def test_logits_of_the_model_that_comes_along(eca, open_page):
    model, path, g = eca
    page = open_page(path)
    text = 'Não; os maridos das outras, tudo, tudo, mas o meu, jurava-o, era um santo! — disse ela, com um gesto. ' * 3
    ids = page.evaluate('text => gpt.encode(text)', text[:256])
    ours = torch.tensor(page.evaluate('ids => gpt.logits(ids)', ids))
    assert len(ids) == 256 and (ours - logits_of(model, ids)).abs().max() < 1e-3


def test_logits_of_pieces(pieces, open_page):
    model, path, g = pieces
    page = open_page(path)
    ids = page.evaluate('text => gpt.encode(text)', LETTER + ' <|endoftext|> 日本')
    assert ids == g['encode'](LETTER + ' <|endoftext|> 日本')
    assert (torch.tensor(page.evaluate('ids => gpt.logits(ids)', ids)) - logits_of(model, ids)).abs().max() < 1e-3


def strange_texts(alphabet, n=300):
    """Texts from an alphabet with a preference for blanks, accents and what GPT-2 cuts at."""
    chance = random.Random(0)
    often = [*" \n'", "'s", "'ll", "'T", '  ', ' \n', '12', '\u00e9', 'e\u0301', '日', '🙂', '\u00a0', '\t', '\r\n',
             '\u200f', '\ufeff', '<|endoftext|>', '<|end', '</script>', '\u0085', '\u2028', '\x00']
    return [''.join(chance.choice(often if chance.random() < 0.4 else alphabet) for _ in range(chance.randint(0, 20)))
            for _ in range(n)]


def test_the_tokenizer_of_pieces_is_pythons(pieces, open_page):
    model, path, g = pieces
    page = open_page(path)
    texts = [text for text in strange_texts(CHARS) if text]
    ours = page.evaluate('texts => texts.map(text => gpt.encode(text))', texts)
    theirs = [g['encode'](text) for text in texts]
    assert [text for text, a, b in zip(texts, ours, theirs) if a != b] == []
    assert page.evaluate('all => all.map(ids => gpt.decode(ids))', ours) == texts
    assert page.evaluate('''all => all.map(ids => {
        const list = []
        ids.forEach(id => vocabulary.append(list, id))
        return textOf(list)
    })''', ours) == texts


def test_gpt2s_tokenizer_is_tiktokens(tmp_path, request, open_page):
    pytest.importorskip('tiktoken')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('TIKTOKEN_CACHE_DIR', request.getfixturevalue('tiktoken_cache'))
        bpe = [token.decode('latin-1') for token in gpt2_tokens({})]
    folder = save_model(tmp_path / 'out', {'kind': 'gpt2', 'bpe': bpe}, 50304, n_embd=6, n_layer=1)
    g = explain(folder, '--start=The answer', '--max_new_tokens=5')
    page = open_page(folder / 'explain.html')
    texts = [text for text in strange_texts(CHARS, 150) if text] + ['The quick brown fox\n\n  jumps', "don't you'LL"]
    ours = page.evaluate('texts => texts.map(text => gpt.encode(text))', texts)
    assert [text for text, ids in zip(texts, ours) if ids != g['encode'](text)] == []
    page.locator('#next button').first.click()
    assert len(see(page)['ids']) == len(g['ids']) + 1


@pytest.mark.parametrize('itos', [
    list(CHARS),                                         # characters
    ['ab', 'a', 'b', 'abc', ' ', '\n', 'e\u0301', 'x'],   # the longest first, and accents as a Mac writes them
    ['que', 'o', 'dia', 'x'],                            # words with a space between them
])
def test_the_tokenizer_of_characters_is_pythons(tmp_path, open_page, itos):
    folder = save_model(tmp_path / 'out', {'kind': 'char', 'itos': itos}, len(itos))
    explain(folder, f'--start={itos[1]}', '--max_new_tokens=0')
    page = open_page(folder / 'explain.html')
    encode, decode = get_codec({'kind': 'char', 'itos': itos})
    chance = random.Random(0)
    blanks = [' ', '\n'] if itos[0] == 'que' else []
    texts = [(' ' if blanks else '').join(chance.choice([*itos, *blanks]) for _ in range(9)) for _ in range(50)]
    texts += ['\u00e9x'] if 'x' in itos and len(itos) == 8 else []
    for text in texts:
        if not text.strip():
            continue
        ids = page.evaluate('text => gpt.encode(text)', text)
        assert ids == encode(text) and page.evaluate('ids => gpt.decode(ids)', ids) == decode(ids)


# -----------------------------------------------------------------------------
# type and see

def assert_shows(seen, model, t, layer, head):
    """The text up to position t is chosen, and all panels say what the model does there."""
    ids = seen['ids']
    assert seen['chosen'] == t and (seen['layer'], seen['head']) == (layer, head)
    window = ids[seen['start']:]
    logits = logits_of(model, window)
    bits = bits_of(logits, window)
    p = logits[t - seen['start']].softmax(0)
    order = p.argsort(descending=True, stable=True).tolist()
    for (name, value, _), i in zip(seen['next'], order[:8], strict=False):
        assert name.strip('␣↵') == model.itos[i].strip()
        assert as_number(value) == pytest.approx(max(p[i].item(), 1e-4), rel=0.06)
    came = [(name, value) for name, value, kind in seen['next'] if kind == 'came']
    if t + 1 < len(ids):
        (name, value), = came
        assert name.strip('␣↵') == model.itos[ids[t + 1]].strip() and value.endswith('◂')
        assert as_number(value) == pytest.approx(max(p[ids[t + 1]].item(), 1e-4), rel=0.06)
    else:
        assert came == []
    weights = attention_of(model, window)[layer][head][t - seen['start']]
    most = weights.max().item()
    looked = seen['looked'][seen['start']:]
    for s in range(t - seen['start'] + 1):
        assert looked[s] == pytest.approx(weights[s].item() / most, abs=0.021)   # below 0.02 none is drawn
    for (_, value), weight in zip(seen['looks'], weights.sort(descending=True).values.tolist()):
        assert as_number(value) == pytest.approx(weight, rel=0.06, abs=2e-3)
    heat = seen['heat'][seen['start'] + 1:]
    for share, b in zip(heat, bits, strict=True):
        assert share == pytest.approx(0.9 * min(1, b / math.log2(model.config.vocab_size)), abs=2e-3)
    assert f'{sum(bits) / len(bits):.2f} per character' in seen['total']


def attention_of(model, ids):
    """(n_layer, nh, T, T)"""
    kept = []
    hooks = [block.attn.c_attn.register_forward_hook(lambda module, x, y: kept.append(y[0]))
             for block in model.transformer.h]
    logits_of(model, ids)
    for hook in hooks:
        hook.remove()
    T = len(ids)
    nh = model.config.n_head
    q, k, _ = torch.stack(kept).view(len(kept), T, 3, nh, -1).permute(2, 0, 3, 1, 4)
    scores = q @ k.mT / math.sqrt(q.size(-1))
    return scores.masked_fill(torch.ones(T, T, dtype=torch.bool).triu(1), -math.inf).softmax(-1)


def test_every_keystroke_is_read(small, open_page):
    """At the end, in the middle, over a selection: what is kept of the text before is as good as reading all anew."""
    model, path, g = small
    page = open_page(path)
    box = page.locator('#box')
    seen = see(page)
    head = (seen['layer'], seen['head'])
    assert_shows(seen, model, 13, *head)
    box.focus()
    page.keyboard.press('Control+End')
    for key in 'X, ':
        page.keyboard.type(key)
        seen = see(page)
        assert_shows(seen, model, len(seen['ids']) - 1, *head)
    assert seen['text'] == 'Meu caro amigoX, '
    page.keyboard.press('Control+Home')
    page.keyboard.type('O')
    seen = see(page)
    assert seen['text'] == 'OMeu caro amigoX, '
    assert_shows(seen, model, 0, *head)
    page.keyboard.press('Enter')
    for _ in range(3):
        page.keyboard.press('ArrowRight')
    page.keyboard.press('Shift+ArrowRight')
    page.keyboard.press('Shift+ArrowRight')
    page.keyboard.press('Backspace')
    seen = see(page)
    assert seen['text'] == 'O\nMeuaro amigoX, '
    assert_shows(seen, model, 4, *head)
    page.keyboard.press('Control+A')
    page.keyboard.press('Delete')
    seen = see(page)
    assert seen['ids'] == [] and seen['next'] == [] and 'Without a text' in seen['total']
    page.locator('#step').click()
    seen = see(page)
    assert seen['text'].startswith('\n') and len(seen['ids']) == 2   # as sample.py begins


def test_what_the_window_no_longer_holds(small, open_page):
    """A text of more than block_size tokens is read from the place where generation would read it again."""
    model, path, _ = small
    page = open_page(path)
    page.locator('#box').fill(LETTER[:47])
    seen = see(page)
    assert seen['start'] == 21 and 'reads 40 at most' in seen['total']
    assert_shows(seen, model, 46, seen['layer'], seen['head'])
    assert page.evaluate("spans.filter(e => e.matches('.forgotten')).length") == 21


def middle(page, c):
    """Where a letter is on the screen."""
    return page.evaluate('''c => {
        const box = spans[c].getBoundingClientRect()
        return [box.x + box.width / 2, box.y + box.height / 2]
    }''', c)


def test_choosing_a_position(small, open_page):
    """A click on a letter, arrow keys, the mouse in passing, the list of places looked at, the map."""
    model, path, _ = small
    page = open_page(path)
    seen = see(page)
    head = (seen['layer'], seen['head'])

    page.mouse.click(*middle(page, 5))
    seen = see(page)
    assert seen['marked'] == 'a' and 'Position 6 of 14, “a”' in seen['live']
    assert_shows(seen, model, 5, *head)
    page.keyboard.press('ArrowLeft')
    assert_shows(see(page), model, 4, *head)
    page.keyboard.press('Home')
    assert_shows(see(page), model, 0, *head)
    page.keyboard.press('End')
    before = see(page)
    assert_shows(before, model, 13, *head)
    page.mouse.move(*middle(page, 2))
    until(page, 'passing === 2')
    passing = page.evaluate(READ)
    assert passing['next'] != before['next'] and passing['chosen'] == 13 and passing['live'] == before['live']
    page.mouse.move(5, 5)
    until(page, 'passing < 0')
    assert page.evaluate(READ) == before
    page.locator('#looks button').nth(1).click()
    assert see(page)['chosen'] != 13
    size = page.locator('#map').bounding_box()
    page.locator('#map').click(position={'x': 3, 'y': size['height'] * 7.5 / 14})
    assert_shows(see(page), model, 7, *head)


def test_the_letters_of_the_box_are_over_the_coloured_ones(eca, open_page):
    """Both break their lines at the same places, at any width."""
    page = open_page(eca[1])
    for width in (1280, 390, 777):
        page.set_viewport_size({'width': width, 'height': 800})
        same = page.evaluate("""() => {
            const box_ = getComputedStyle(box), tokens = getComputedStyle($('tokens'))
            const names = ['font', 'letterSpacing', 'lineHeight', 'paddingLeft', 'paddingTop', 'paddingRight', 'width',
                'whiteSpace', 'overflowWrap', 'wordBreak', 'fontKerning', 'tabSize', 'textAlign']
            return [names.filter(name => box_[name] !== tokens[name]), box.scrollHeight - box.clientHeight,
                box.clientWidth - $('tokens').clientWidth]
        }""")
        assert same == [[], 0, 0]


def test_characters_that_the_model_has_never_seen(small, open_page):
    """They are shown, marked and left out; what is around them is read."""
    model, path, _ = small
    page = open_page(path)
    page.locator('#box').fill('A漢 carta🙂')
    seen = see(page)
    assert seen['text'] == 'A漢 carta🙂' and seen['ids'] == [CHARS.index(char) for char in 'A carta']
    assert page.locator('#refused').text_content() == (
        'The model has never seen “漢” “🙂”: a character that is not in the vocabulary is left out.')
    assert page.evaluate("spans.filter(e => e.matches('.unknown')).map(e => e.textContent).join()") == '漢,🙂'
    page.locator('#box').fill('A carta')
    assert page.locator('#refused').text_content() == ''
    page.locator('#box').fill('Sa\u0303o')   # as a Mac may paste it
    assert see(page)['text'] == 'São' and page.locator('#refused').text_content() == ''


def test_a_bet_can_be_written_by_a_click(small, open_page):
    model, path, _ = small
    page = open_page(path)
    page.evaluate('select(2)')
    page.locator('#next button').nth(3).click()
    seen = see(page)
    fourth = logits_of(model, [CHARS.index(char) for char in 'Meu']).argsort(dim=-1, descending=True)[2, 3]
    assert seen['text'] == f'Meu{CHARS[fourth]} caro amigo' and seen['chosen'] == 3


# -----------------------------------------------------------------------------
# writing

def draw_of(seed, position):
    """What random() in the page gives."""
    mask = 2**32 - 1
    h = ((position + 1) * 0x9e3779b1 & mask) ^ seed
    h = (h ^ h >> 16) * 0x85ebca6b & mask
    h = (h ^ h >> 13) * 0xc2b2ae35 & mask
    return (h ^ h >> 16) / 2**32


def written(page, n, seed, temperature=1.0, top_k=0, top_p=1.0):
    """What the page should write, by its own logits computed anew for each token, without a cache."""
    ids = page.evaluate('ids')
    block_size = page.evaluate('data.blockSize')
    for _ in range(n):
        start = max(0, math.ceil((len(ids) - block_size) / (block_size // 2 + 1)) * (block_size // 2 + 1))
        logits = torch.tensor(page.evaluate('ids => gpt.logits(ids).at(-1)', ids[start:]), dtype=torch.float64)
        p, order = (logits / temperature).softmax(0).sort(descending=True, stable=True)
        keep = torch.ones_like(p, dtype=torch.bool)
        if top_k:
            keep[top_k:] = False
        p = p * keep / (p * keep).sum()
        keep &= p.cumsum(0) - p < top_p
        p = p * keep / (p * keep).sum()
        ids = [*ids, order[(p.cumsum(0) <= draw_of(seed, len(ids))).sum()].item()]
    return ids


def set_slider(page, name, value):
    page.evaluate('''([name, value]) => {
        $(name).value = value
        $(name).dispatchEvent(new Event('input'))
    }''', [name, value])


@pytest.mark.parametrize('how', [{}, dict(temperature=0.7, top_k=5), dict(temperature=1.5, top_p=0.6)])
def test_a_seed_gives_the_same_text(small, open_page, how):
    """Step by step or running, slow or fast, within the window and beyond it: what recomputing all of it would draw."""
    model, path, _ = small
    page = open_page(path)
    page.locator('#seed').fill('77')
    for name, value in how.items():
        set_slider(page, {'top_k': 'topK', 'top_p': 'topP'}.get(name, name), value)
    expected = written(page, 45, seed=77, **how)
    for _ in range(3):
        page.locator('#step').click()
        seen = see(page)
    assert seen['ids'] == expected[:17] and seen['chosen'] == 16
    page.locator('#fast').check()
    page.locator('#write').click()
    until(page, 'ids.length >= 59')
    page.locator('#write').click()
    assert see(page)['ids'][:59] == expected
    assert page.locator('#write').text_content() == '▶ Write'
    page.locator('#again').click()
    for _ in range(4):
        page.locator('#step').click()
    page.evaluate('select(15)')
    page.locator('#cut').click()
    assert see(page)['ids'] == expected[:16]
    page.locator('#again').click()
    assert see(page)['text'] == 'Meu caro amigo'
    page.locator('#fast').uncheck()
    page.locator('#box').press('Control+Enter')
    until(page, 'ids.length >= 18')
    page.keyboard.press('Escape')
    seen = see(page)
    assert seen['ids'] == expected[:len(seen['ids'])]


def test_without_chance_it_writes_what_sample_py_does(small, open_page):
    """At temperature 0, far beyond the window."""
    model, path, g = small
    page = open_page(path)
    set_slider(page, 'temperature', 0)
    assert 'always the likeliest' in page.locator('#draw').text_content()
    page.locator('#fast').check()
    page.locator('#write').click()
    until(page, 'ids.length >= 110')
    page.locator('#write').click()
    ours = see(page)['ids'][:110]
    idx = torch.tensor([g['prompt']])
    assert ours == model.generate(idx, 110 - idx.size(1), temperature=0)[0].tolist()


def test_sliders_move_the_bars(small, open_page):
    """The bars are the probabilities that pick_token of model.py draws with."""
    model, path, _ = small
    page = open_page(path)
    logits = logits_of(model, page.evaluate('ids'))[-1]
    for temperature, top_k, top_p in ((0.5, 0, 1), (1.4, 4, 1), (1, 0, 0.4), (0.8, 6, 0.7), (0, 0, 1)):
        for name, value in (('temperature', temperature), ('topK', top_k or len(CHARS)), ('topP', top_p)):
            set_slider(page, name, value)
        torch.manual_seed(0)
        drawn = pick_token(logits.expand(4000, -1), temperature, top_k, top_p).bincount(minlength=len(CHARS)) / 4000
        order = logits.argsort(descending=True)
        for (_, value, kind), i in zip(see(page)['next'], order.tolist()):
            assert as_number(value) == pytest.approx(drawn[i].item(), abs=0.03)
            assert (drawn[i] > 0.002) <= (kind != 'cut')
            if as_number(value) == 0:
                assert drawn[i] == 0 and kind == 'cut'


def test_a_character_of_several_tokens(pieces, open_page):
    """It is there once; while some of its bytes are missing, what completes it is shown whole."""
    model, path, g = pieces
    page = open_page(path)
    page.locator('#box').fill('o 日')
    seen = see(page)
    encode = g['encode']
    n = len(encode('日'))
    assert seen['text'] == 'o 日' and seen['ids'] == encode('o 日') and n == 3
    assert page.evaluate('[0, 1, 2].map(i => pieceOf(ids.length - 3 + i))') == ['日₁', '日₂', '日₃']
    assert page.evaluate('vocabulary.spell(clustersUpTo(ids.length - 2), ids[ids.length - 1])') == '日'
    page.evaluate('select(ids.length - 2)')
    assert see(page)['chosen'] == len(seen['ids']) - 2
    page.locator('#fast').check()
    page.locator('#write').click()
    until(page, 'ids.length > 120')
    page.locator('#write').click()
    seen = see(page)
    assert seen['text'] == page.evaluate('toBox(textOf(clusters))') and len(seen['ids']) > 120


# -----------------------------------------------------------------------------
# break it and see

def without(model, name):
    """Hooks that switch a part of the model off; returns how to take them away."""
    h = model.transformer.h
    kind, *where = name.split()
    where = [int(i) for i in where]
    if kind == 'positions':
        return [model.transformer.drop.register_forward_hook(
            lambda module, x, y: y - model.transformer.wpe.weight[:y.size(1)])]
    if kind == 'block':
        return [h[where[0]].register_forward_hook(lambda module, x, y: x[0])]
    if kind == 'mlp':
        return [h[where[0]].mlp.register_forward_hook(lambda module, x, y: y * 0)]
    hs = model.config.n_embd // model.config.n_head

    def silence(module, x):
        y = x[0].clone()
        y[..., where[1] * hs:(where[1] + 1) * hs] = 0
        return (y,)
    return [h[where[0]].attn.c_proj.register_forward_pre_hook(silence)]


def loss_without(model, ids, *names):
    hooks = [hook for name in names for hook in without(model, name)]
    logits = logits_of(model, ids)
    for hook in hooks:
        hook.remove()
    return logits, sum(bits_of(logits, ids)) / (len(ids) - 1)


def effect(page, name):
    return page.locator(f'[data-part="{name}"] .effect').text_content()


def test_each_switch(small, open_page):
    """Head, MLP, block and positions, one by one, then two at once: as PyTorch without them, and the losses beside."""
    model, path, _ = small
    page = open_page(path)
    ids = page.evaluate('ids')
    _, whole = loss_without(model, ids)
    assert f'{whole:.2f} bits per character' in see(page)['loss']
    for name in ('head 0 0', 'head 1 2', 'mlp 0', 'mlp 1', 'block 0', 'block 1', 'positions'):
        switch = page.locator(f'[data-switch="{name}"]')
        switch.click()
        seen = see(page)
        logits, loss = loss_without(model, ids, name)
        assert (torch.tensor(page.evaluate('gpt.logits(ids)')) - logits).abs().max() < 1e-3
        assert switch.get_attribute('aria-checked') == 'false'
        assert effect(page, name) == f'{whole:.2f} → {loss:.2f}' and f'{whole:.2f} → {loss:.2f}' in seen['loss']
        switch.click()
        assert switch.get_attribute('aria-checked') == 'true'
        assert f'{whole:.2f} bits' in see(page)['loss'] and as_number(effect(page, name)) == pytest.approx(
            loss - whole, abs=0.011)
    for name in ('head 0 1', 'mlp 1'):
        page.locator(f'[data-switch="{name}"]').click()
        at_rest(page)
    _, one = loss_without(model, ids, 'head 0 1')
    _, two = loss_without(model, ids, 'head 0 1', 'mlp 1')
    assert effect(page, 'mlp 1') == f'{one:.2f} → {two:.2f}' and f'{whole:.2f} → {two:.2f}' in see(page)['loss']
    page.locator('#reset').click()
    seen = see(page)
    assert f'{whole:.2f} bits' in seen['loss'] and page.locator('[aria-checked=false][role=switch]').count() == 0
    assert page.evaluate("[...document.querySelectorAll('.effect')].map(e => e.textContent).join('')") == ''
    assert_shows(seen, model, 13, seen['layer'], seen['head'])


def test_all_parts_are_ranked(small, open_page):
    """Each as if switched off alone; the worst has the strongest colour."""
    model, path, _ = small
    page = open_page(path)
    ids = page.evaluate('ids')
    _, whole = loss_without(model, ids)
    page.locator('#rank').click()
    until(page, '!isRanking && !resting && effects.size')
    names = page.evaluate('[...effects.keys()]')
    cards = page.evaluate("[...document.querySelectorAll('[data-part]')].map(e => e.dataset.part)")
    assert sorted(names) == sorted(cards)
    assert len(names) == 1 + 2 * (3 + 1 + 1)
    harms = {}
    for name in names:
        _, loss = loss_without(model, ids, name)
        harms[name] = loss - whole
        assert as_number(effect(page, name)) == pytest.approx(loss - whole, abs=0.011)
    shown = page.evaluate("""Object.fromEntries([...document.querySelectorAll('[data-part]')].map(
        e => [e.dataset.part, +e.style.getPropertyValue('--harm')]))""")
    worst = max(harms, key=harms.get)
    assert shown[worst] == max(shown.values()) > 0
    page.locator('#rank').click()   # again, and stopped
    page.locator('#rank').click()
    until(page, '!isRanking')
    page.locator('#box').fill('Outra')
    at_rest(page)
    assert effect(page, worst) == ''   # it was the other text's


def test_heads_are_named_by_what_they_look_at(eca, open_page):
    model, path, g = eca
    page = open_page(path)
    attention = attention_of(model, g['ids'])
    T = len(g['ids'])
    text = g['decode'](g['ids'])
    assert (see(page)['layer'], see(page)['head']) == (0, 0)   # the clearest
    previous = attention[0, 0].diagonal(-1).mean().item()
    card = page.locator('[data-part="head 0 0"] .what')
    assert card.locator('b').text_content() == 'the one before' and previous > 0.8
    assert as_number(card.locator('.number').text_content()) == pytest.approx(previous, abs=0.006)
    spaces = torch.tensor([char == ' ' for char in text])
    share = attention[2, 0][1:, spaces].sum(-1).mean().item()
    card = page.locator('[data-part="head 2 0"] .what')
    assert card.locator('b').text_content() == 'spaces' and share > 0.6
    assert as_number(card.locator('.number').text_content()) == pytest.approx(share, abs=0.006)
    page.locator('[data-part="head 2 0"] .pick').click()
    assert_shows(see(page), model, 13, 2, 0)
    base = torch.stack([spaces[:t + 1].float().mean() for t in range(1, T)]).mean().item()
    note = page.locator('#look-note').text_content()
    assert f"{share:.0%} of this head's gaze goes to the spaces (a gaze at random would give {base:.0%})" in note


# -----------------------------------------------------------------------------
# look inside

OPEN_ALL = "for (const stage of document.querySelectorAll('.stage')) stage.open = true"


def test_the_stages_show_the_models_numbers(small, open_page):
    model, path, _ = small
    page = open_page(path)
    ids = page.evaluate('ids')
    page.evaluate('select(9); choose(1, 2)')
    page.evaluate(OPEN_ALL)
    at_rest(page)
    page.wait_for_timeout(100)   # a stage says that it is open in its own time
    kept = {}
    block = model.transformer.h[1]
    watched = {'c_attn': block.attn.c_attn, 'c_proj': block.attn.c_proj, 'ln_1': block.ln_1, 'c_fc': block.mlp.c_fc,
               'gelu': block.mlp.gelu, 'mlp': block.mlp.c_proj, 'h0': model.transformer.h[0], 'h1': block,
               'x': model.transformer.drop}
    hooks = [module.register_forward_hook(lambda module, x, y, name=name: kept.update({name: y[0, 9]}))
             for name, module in watched.items()]
    logits = logits_of(model, ids)
    for hook in hooks:
        hook.remove()
    vectors = dict(page.evaluate("""[...document.querySelectorAll('.stage')].flatMap((stage, i) =>
        [...stage.querySelectorAll('.numbers')].map((e, j) => [`${i + 1}.${j}`, e.textContent]))"""))
    q, k, v = kept['c_attn'].split(21)
    expected = {'1.0': model.transformer.wte.weight[ids[9]], '1.1': model.transformer.wpe.weight[9], '1.2': kept['x'],
                '2.0': kept['h0'], '2.1': kept['ln_1'], '3.0': q[14:], '3.1': k[14:], '4.0': v[14:],
                '4.3': kept['c_proj'], '5.0': kept['c_fc'], '5.1': kept['gelu'], '5.2': kept['mlp'], '7.0': logits[9]}
    for name, values in expected.items():
        shown = torch.tensor([as_number(x) for x in vectors[name].split()])
        torch.testing.assert_close(shown, values.detach(), atol=0.0051, rtol=1e-3)
    weights = attention_of(model, ids)[1, 2, 9]
    rows = page.evaluate("""[...document.querySelectorAll('.stage')[2].querySelectorAll('tbody tr')].map(
        row => [...row.cells].map(cell => cell.textContent))""")
    assert len(rows) == 13 and [row[3] for row in rows[10:]] == ['0%'] * 3 and rows[11][2] == '−∞'   # three masked
    for row, weight in zip(rows[:10], weights.tolist()):
        assert as_number(row[1]) / math.sqrt(7) == pytest.approx(as_number(row[2]), abs=0.01)
        assert as_number(row[3]) == pytest.approx(max(weight, 1e-4), rel=0.06)
    lens = page.evaluate("""[...document.querySelectorAll('.stage')[5].querySelectorAll('tbody tr')].map(
        row => [row.cells[1].textContent, row.querySelector('.guess').textContent])""")
    for (size, guess), x in zip(lens, (kept['x'], kept['h0'], kept['h1']), strict=True):
        p = model.lm_head(model.transformer.ln_f(x)).softmax(0)
        assert as_number(size) == pytest.approx(x.norm().item(), abs=0.006)
        assert as_number(guess.split()[-1]) == pytest.approx(p.max().item(), rel=0.06)
    page.locator('#layer').select_option(label='1')
    assert page.evaluate('layer') == 0 and 'h[0].ln_1(x)' in page.locator('.stage').nth(1).text_content()


# -----------------------------------------------------------------------------
# everybody can use it

def test_keyboard_alone(small, open_page):
    model, path, _ = small
    page = open_page(path)
    reached = set()
    for _ in range(60):
        page.keyboard.press('Tab')
        reached.add(page.evaluate("""[document.activeElement].map(e =>
            e.id || e.dataset.switch || e.dataset.language || e.classList[0] || e.tagName)[0]"""))
    assert {'start-tour', 'pt', 'en', 'box', 'write', 'step', 'cut', 'again', 'fast', 'seed', 'temperature', 'topK',
            'topP', 'rank', 'pick', 'mlp 0', 'block 1', 'positions', 'layer', 'head', 'SUMMARY'} <= reached
    page.locator('.pick[tabindex="0"]').focus()
    page.evaluate('choose(0, 0)')
    page.locator('.pick[tabindex="0"]').focus()
    page.keyboard.press('ArrowUp')
    page.keyboard.press('ArrowRight')
    page.keyboard.press('ArrowRight')
    page.keyboard.press('ArrowRight')   # there is none further on
    assert_shows(see(page), model, 13, 1, 2)
    assert page.evaluate('document.activeElement.dataset.head') == '2'
    page.keyboard.press('Tab')
    page.keyboard.press('Space')
    at_rest(page)
    assert page.evaluate('[...off]') == ['head 1 2']
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != 'none'   # focus shows
    page.locator('.stage summary').first.focus()
    page.keyboard.press('Enter')
    until(page, "document.querySelector('.stage .vector')")


def test_a_screen_reader_has_names_for_all(small, open_page):
    page = open_page(small[1])
    nameless = page.evaluate("""[...document.querySelectorAll('button, input, select, textarea, canvas, [role]')]
        .filter(e => e.checkVisibility() && !e.closest('[aria-hidden=true], .pick canvas') && e.role !== 'status'
            && !e.getAttribute('aria-label') && !e.getAttribute('aria-labelledby') && !e.textContent.trim()
            && !e.labels?.[0]?.textContent.trim()).map(e => e.outerHTML.slice(0, 90))""")
    assert nameless == []
    assert page.evaluate("document.querySelectorAll('h1').length") == 1


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_nothing_is_wider_than_the_screen(eca, open_page, scheme):
    page = open_page(eca[1], locale='pt-BR', color_scheme=scheme)
    page.evaluate(OPEN_ALL)
    page.evaluate('rankAll()')
    for width, height in ((320, 640), (390, 844), (768, 1024), (1280, 800), (1920, 1080)):
        page.set_viewport_size({'width': width, 'height': height})
        assert see(page)['overflow'] <= 0
        hidden = page.evaluate("""[...document.querySelectorAll('button, h2')].map(e => [e, e.getBoundingClientRect()])
            .filter(([e, {left, right}]) => e.checkVisibility() && (left < 0 || right > innerWidth))
            .map(([e]) => e.outerHTML)""")
        assert hidden == []
    page.set_viewport_size({'width': 1280, 'height': 800})
    for name in ('#text-card', '#next-card'):   # at this size, all of these
        box = page.locator(name).bounding_box()
        assert box['y'] + box['height'] <= 800
    for name in ('#look-card .look', '#parts'):   # and most of these
        assert page.locator(name).bounding_box()['y'] < 520


def test_a_phone(eca, open_page):
    """A tap on a letter opens no keyboard, and the bars are in sight; a button opens it."""
    model, path, _ = eca
    page = open_page(path, locale='pt-BR', width=390, height=844, has_touch=True, is_mobile=True)
    page.touchscreen.tap(*middle(page, 40))
    assert see(page)['chosen'] == 40 and page.evaluate('box.inputMode') == 'none'
    bars = page.locator('#next li').first.bounding_box()
    assert 0 < bars['y'] < 800
    page.locator('#keyboard').tap()
    assert page.evaluate('[box.inputMode, document.activeElement.id]') == ['text', 'box']
    for name in ('[data-part="head 2 0"] .pick', '[data-switch="head 2 0"]'):
        page.locator(name).tap()
    at_rest(page)
    assert page.evaluate('[layer, head, ...off]') == [2, 0, 'head 2 0']
    page.locator('#box').fill('Uma carta muito comprida, que enche a tela toda. ' * 5)
    at_rest(page)
    page.evaluate("box.blur(); scrollTo(0, 0)")
    bars = page.locator('#next li').nth(3).bounding_box()
    assert 0 < bars['y'] and bars['y'] + bars['height'] <= 844


def test_both_languages(eca, open_page):
    model, path, _ = eca
    page = open_page(path, locale='pt-BR')
    assert page.locator('h1').text_content() == 'Por dentro de um GPT'
    assert page.evaluate('document.documentElement.lang') == 'pt-BR' and '1,4' in page.locator('#total').text_content()
    assert 'espaço' in page.locator('#next').text_content()
    page.evaluate(OPEN_ALL)
    page.wait_for_timeout(100)
    portuguese = page.locator('main').inner_text()
    page.locator('[data-language=en]').click()
    at_rest(page)
    assert page.locator('h1').text_content() == 'Inside a GPT'
    assert page.evaluate('document.documentElement.lang') == 'en'
    english = page.locator('main').inner_text()
    for word in ('espaço', 'Bloco', 'Perda', 'semente', 'posição', 'agulha', 'cabeça'):
        assert word in portuguese and word not in english
    for word in ('space', 'Block', 'Loss', 'seed', 'position', 'needle', 'gaze'):
        assert word in english and word not in portuguese
    assert 'undefined' not in portuguese + english and 'NaN' not in portuguese + english
    keys = page.evaluate("""['pt', 'en'].map(language => Object.entries(WORDS[language]).flatMap(([key, words]) =>
        typeof words === 'object' ? Object.keys(words).map(inner => `${key}.${inner}`) : [key]))""")
    assert keys[0] == keys[1]


@pytest.mark.parametrize('locale', ['pt-BR', 'en-US'])
def test_the_tour(eca, open_page, locale):
    model, path, _ = eca
    page = open_page(path, locale=locale)
    page.locator('#start-tour').click()
    titles = []
    for i in range(8):
        until(page, f"$('tour-step').textContent.startsWith('{i + 1} ') && !$('tour').hidden")
        at_rest(page)
        titles.append(page.locator('#tour-title').text_content())
        said = page.locator('#tour-text').text_content()
        assert len(said) > 100 and 'NaN' not in said and 'undefined' not in said
        assert page.locator('.spot').count() == 1 and page.evaluate('document.activeElement.id') == 'tour-title'
        if i < 7:
            page.locator('#tour-next').click()
    assert len(set(titles)) == 8
    assert page.evaluate('off.size') == 1   # "turn this head off"
    page.locator('#tour-back').click()
    until(page, "$('tour-step').textContent.startsWith('7 ')")
    page.keyboard.press('Escape')
    at_rest(page)
    assert page.locator('#tour').is_hidden() and page.locator('.spot').count() == 0 and page.evaluate('off.size') == 0
    page.locator('#box').fill('')   # a tour needs a text, and brings one
    page.locator('#start-tour').click()
    until(page, "!$('tour').hidden")
    assert 'Meu caro amigo' in see(page)['text']


# -----------------------------------------------------------------------------
# what is not a model of letters

def test_hostile_text_and_vocabulary_are_only_text(tmp_path, open_page):
    """Markup, quotes, signs that turn the line round, and what else a vocabulary may hold."""
    bad = ['</script><script>alert(1)</script>', '<img src=x onerror=alert(1)>', '"', "'", '`${alert(1)}`', '\u202e',
           '\u200f', '\u2067', '\x00', '\ud7ff', '\ufeff', '\u0301', '\r', '{{data}}', '{{weights}}', '<!--',
           '__proto__', 'constructor', '\\u003c', '\u2028', 'é']
    bad += [char for char in CHARS if char not in bad]
    folder = save_model(tmp_path / 'out', {'kind': 'char', 'itos': bad}, len(bad), block_size=256)
    for how in (explain, freeze):
        how(folder, f'--start={"".join(bad)}{HOSTILE}', '--max_new_tokens=5')
        page = open_page(folder / 'explain.html')
        seen = see(page)
        assert '</script><script>alert(1)</script><img src=x' in seen['text']
        assert page.evaluate("document.querySelectorAll('img, b script').length + document.scripts.length") <= 3
        for t in range(0, len(seen['ids']), 7):
            page.evaluate('t => select(t)', t)
        at_rest(page)
        if how is explain:
            page.locator('#fast').check()
            page.locator('#write').click()
            until(page, 'ids.length > 300')
            page.locator('#write').click()
            page.locator('#start-tour').click()
            at_rest(page)


def test_a_hostile_tokenizer_of_pieces(tmp_path, open_page):
    hf = json.loads(train_bpe(['</script><script>alert(1)</script>', '<b>', '\u202e"\'']))
    folder = save_model(tmp_path / 'out', {'kind': 'hf', 'json': json.dumps(hf), 'eos': None}, 384)
    g = explain(folder, f'--start={HOSTILE}<b>\u202e"\'', '--max_new_tokens=9')
    page = open_page(folder / 'explain.html')
    assert see(page)['ids'] == g['ids']
    assert page.evaluate('text => gpt.encode(text)', HOSTILE) == g['encode'](HOSTILE)


def test_the_source_can_be_opened_by_itself(open_page):
    """With a tiny model that knows nothing, so that whoever edits it sees something."""
    page = open_page(REPO / 'assets' / 'explain.html')
    seen = see(page)
    assert seen['text'] == 'This model has learned nothing.' and len(seen['next']) >= 8 and seen['looks']
    page.locator('#step').click()
    assert len(see(page)['text']) == 32


def test_a_frozen_page(tmp_path, open_page):
    """It shows the same numbers, says why it is frozen, and lets nothing be changed."""
    folder = save_model(tmp_path / 'out', CHAR, len(CHARS))
    g = freeze(folder, f'--start={LETTER}', '--max_new_tokens=30')
    page = open_page(folder / 'explain.html')
    seen = see(page)
    assert seen['text'] == ''.join(CHARS[i] for i in g['ids']) and seen['chosen'] == len(LETTER) - 1
    assert page.evaluate('typeof window.gpt') == 'undefined' or page.evaluate('window.gpt === undefined')
    assert 'This page is a photograph' in page.locator('#why').text_content()
    assert not page.locator('#write').is_visible() and not page.locator('#inside').is_visible()
    seen['ids'] = g['ids']
    model = g['model'].eval()
    model.itos = CHARS
    for t, layer, head in ((30, 0, 0), (len(g['ids']) - 1, 1, 2), (0, 0, 1)):
        page.evaluate('([t, l, h]) => { select(t); choose(l, h) }', [t, layer, head])
        seen = see(page) | {'ids': g['ids']}
        assert_shows(seen, model, t, layer, head)
    page.locator('#box').press('Control+End')
    page.keyboard.type('abc')
    page.keyboard.press('Backspace')
    assert see(page)['text'] == ''.join(CHARS[i] for i in g['ids'])
    page.keyboard.press('ArrowLeft')
    assert see(page)['chosen'] == len(g['ids']) - 2
    page.locator('[data-language=pt]').click()
    assert 'Esta página é um retrato' in page.locator('#why').text_content()


def test_speed(eca, open_page):
    """Printed, not asserted: how soon there is a first picture, and how fast it writes."""
    began = time.perf_counter()
    page = open_page(eca[1])
    opened = time.perf_counter() - began
    paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0]?.startTime")
    page.locator('#fast').check()
    n, ms = page.evaluate("""async () => {
        const began = performance.now(), n = ids.length
        const writing = write()
        while (ids.length < n + 300) await pause(20)
        const ms = performance.now() - began
        stopWriting()
        await writing
        return [ids.length - n, ms]
    }""")
    print(f'\nfirst picture after {paint:.0f} ms, all read after {1000 * opened:.0f} ms; '
          f'writes {1000 * n / ms:.0f} characters a second')
