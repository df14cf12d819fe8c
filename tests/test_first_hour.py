"""What a student sees in the first hour: text that grows, a line at each evaluation, a summary, help on one screen."""

import math
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ECA, TINY, load, read_log

from model import GPT, GPTConfig, pick_token
from tokenizer import unigram_loss

DASHES = '\n---------------\n'


@pytest.fixture(scope='module')
def trained(prepared):
    """A workspace whose `out-hour` has a model that knows a little, and what its training printed."""
    printed = prepared.run('train.py', *TINY, '--max_iters=60', '--eval_interval=30', '--log_interval=20',
                           '--lr_decay_iters=60', '--out_dir=out-hour')
    return prepared, printed


def sample(trained, *args, **kwargs):
    return trained[0].run('sample.py', '--out_dir=out-hour', '--max_new_tokens=60', *args, **kwargs)


class Terminal:
    """What a script shows on a terminal of 80 columns: at the end, and after each thing that it wrote."""

    def __init__(self, workspace, *args):
        pyte = pytest.importorskip('pyte')
        pty, termios, fcntl = (pytest.importorskip(name) for name in ('pty', 'termios', 'fcntl'))
        screen = pyte.HistoryScreen(80, 24, history=500)
        stream = pyte.ByteStream(screen)
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, b'\x18\0\x50\0\0\0\0\0')   # 24 rows, 80 columns
        env = {k: v for k, v in os.environ.items() if k not in ('COLUMNS', 'LINES', 'NO_COLOR')}
        process = subprocess.Popen([sys.executable, *args], cwd=workspace.path, env=env, stdout=slave, stderr=slave,
                                   stdin=subprocess.DEVNULL)
        os.close(slave)
        self.bytes, self.screens = b'', []
        while True:
            try:
                data = os.read(master, 4096)
            except OSError:   # Linux says so when the other end is closed
                data = b''
            if not data:
                break
            self.bytes += data
            stream.feed(data)
            self.screens.append([line.rstrip() for line in screen.display])
        os.close(master)
        assert process.wait(timeout=60) == 0, self.bytes
        above = [''.join(line[x].data for x in range(80)).rstrip() for line in screen.history.top]
        self.lines = above + self.screens[-1]


# ---------------------------------------------------------------------------
# the model: one token after the other

def test_stream_and_generate_agree():
    torch.manual_seed(0)
    model, idx = GPT(GPTConfig(8, 37, 1, 2, 16)).eval(), torch.randint(37, (1, 3))
    settings = dict(temperature=0.9, top_k=9, num_samples=4, top_p=0.8)
    torch.manual_seed(1)
    whole = model.generate(idx, 20, **settings)
    torch.manual_seed(1)
    steps = list(model.stream(idx, 20, **settings))
    assert whole.shape == (4, 23) and torch.equal(whole[:, 3:], torch.stack(steps, dim=1))
    torch.manual_seed(1)
    first = next(iter(model.stream(idx, 20, **settings)))   # who stops early has the same beginning
    assert torch.equal(first, steps[0])
    assert torch.equal(model.generate(idx, 0, num_samples=4), idx.expand(4, -1))


def test_top_p_draws_from_the_nucleus():
    p = torch.tensor([0.1, 0.4, 0.2, 0.3])
    logits = p.log().repeat(20000, 1)
    torch.manual_seed(0)
    for top_p, nucleus in ((0.3, [1]), (0.39, [1]), (0.41, [1, 3]), (0.75, [1, 2, 3]), (1, [0, 1, 2, 3])):
        drawn = pick_token(logits, 1.0, None, top_p)
        assert sorted(drawn.unique().tolist()) == nucleus
        share = torch.bincount(drawn, minlength=4) / len(drawn)   # as likely, beside each other, as before
        torch.testing.assert_close(share[nucleus], p[nucleus] / p[nucleus].sum(), rtol=0, atol=0.02)
    assert sorted(pick_token(logits, 1.0, 3, 0.7).unique().tolist()) == [1, 3]   # of what top_k has left
    for temperature in (1e-40, 1e-50):   # nearly greedy, and no number overflows
        assert pick_token(logits, temperature, None, 0.9).unique().tolist() == [1]
    with pytest.raises(ValueError):
        GPT(GPTConfig(8, 37, 1, 2, 16)).generate(torch.zeros(1, 1, dtype=torch.long), 1, top_p=0.0)


# ---------------------------------------------------------------------------
# sample.py

def test_streamed_and_unstreamed_text_are_equal(trained):
    for args in (['--num_samples=1'], ['--num_samples=3', '--start=Meu caro'], ['--num_samples=2', '--top_p=0.9']):
        text = sample(trained, *args)
        assert text == sample(trained, *args, '--stream') and '\x1b' not in text and '\r' not in text


def test_stop_ends_each_text_before_it(trained):
    whole = sample(trained, '--num_samples=3', '--start=Meu').split(DASHES)[:3]
    stop = 'a'
    assert any(stop in text[3:] for text in whole)
    expected = DASHES.join('Meu' + text[3:].split(stop)[0] for text in whole) + DASHES
    assert sample(trained, '--num_samples=3', '--start=Meu', f'--stop={stop}') == expected
    assert sample(trained, '--num_samples=3', '--start=Meu', f'--stop={stop}', '--stream') == expected
    greedy = ['--num_samples=1', '--start=Meu', '--temperature=0']
    stop = sample(trained, *greedy)[3:15]   # it comes at once, and is long: none of it may show
    assert sample(trained, *greedy, f'--stop={stop}') == 'Meu' + DASHES
    assert sample(trained, *greedy, f'--stop={stop}', '--stream') == 'Meu' + DASHES
    two = whole[0][20:22]   # more than a character: the first of them must not show
    assert sample(trained, '--num_samples=1', '--start=Meu', f'--stop={two}', '--stream') == sample(
        trained, '--num_samples=1', '--start=Meu', f'--stop={two}')


def test_streaming_waits_for_whole_characters(trained, tmp_path, tiktoken_cache, monkeypatch):
    """With GPT-2's tokens a character can come in several pieces; random weights write little else."""
    import tokenizer
    monkeypatch.setenv('TIKTOKEN_CACHE_DIR', tiktoken_cache)
    bpe = [token.decode('latin-1') for token in tokenizer.gpt2_tokens({})]
    torch.manual_seed(0)
    config = dict(block_size=64, vocab_size=50257, n_layer=1, n_head=1, n_embd=4)
    model = GPT(GPTConfig(**config))
    broken = [i for i, token in enumerate(bpe) if re.fullmatch('[\x80-\xff]{1,2}', token)][:60]   # bytes, halves of é
    with torch.no_grad():
        model.lm_head.weight.zero_()   # tied: all tokens alike, but those below
        model.transformer.ln_f.bias.fill_(1)
        model.lm_head.weight[broken] = 5
    torch.save({'model': model.state_dict(), 'model_args': config, 'tokenizer': {'kind': 'gpt2', 'bpe': bpe}},
               tmp_path / 'ckpt.pt')
    args = [f'--out_dir={tmp_path}', '--start=é ', '--num_samples=1']
    text = sample(trained, *args)
    assert '\ufffd' in text and any(c in text for c in 'áéíóúâêôãõçàÃÂ') and text == sample(trained, *args, '--stream')


def test_prompt_from_standard_input_and_text_to_a_file(trained, tmp_path):
    workspace = trained[0]
    done = subprocess.run([sys.executable, 'sample.py', '--out_dir=out-hour', '--max_new_tokens=60', '--num_samples=2',
                           '--start=-', f'--out={tmp_path}/cartas.txt'], cwd=workspace.path, input='Meu caro José\n',
                          capture_output=True, text=True, encoding='utf-8', timeout=60)
    assert done.returncode == 0 and done.stdout == '' and f'wrote {tmp_path}/cartas.txt' in done.stderr
    written = (tmp_path / 'cartas.txt').read_text(encoding='utf-8')
    assert written == sample(trained, '--num_samples=2', '--start=Meu caro José')
    assert os.listdir(tmp_path) == ['cartas.txt']


def test_a_terminal_shows_several_texts_grow(trained):
    args = ['sample.py', '--out_dir=out-hour', '--start=Meu caro', '--num_samples=3', '--max_new_tokens=200',
            '--device=cpu']
    seen = Terminal(trained[0], *args, '--stream')
    growing = [[len(row) for row in rows if row.startswith('Meu caro')] for rows in seen.screens]
    assert any(len(lengths) == 3 and all(8 < n < 79 for n in lengths) for lengths in growing)
    plain = trained[0].run(*args).split(DASHES)[:3]
    text = '\n'.join(seen.lines)
    for whole in plain:   # on lines that end between words; nothing else is different
        words = [re.escape(word) for word in whole.split()]
        assert re.search(r'\s+'.join(words) + r'\s*\n-{15}', text), text
    assert text.count('---------------') == 3 and b'\x1b[1mMeu caro\x1b[0m' in seen.bytes   # the prompt stands out


def test_a_terminal_shows_one_text_grow(trained):
    args = ['sample.py', '--out_dir=out-hour', '--start=Meu caro', '--num_samples=1', '--max_new_tokens=300']
    seen = Terminal(trained[0], *args, '--stream')
    lengths = [len(' '.join(rows)) for rows in seen.screens]
    assert len(set(lengths)) > 10 and lengths == sorted(lengths)   # bit by bit, and nothing is taken back
    text = trained[0].run(*args).removesuffix(DASHES)
    shown = '\n'.join(seen.lines)
    assert shown[shown.index('Meu caro'):].split() == [*text.split(), '---------------']   # and no word is broken


# ---------------------------------------------------------------------------
# train.py

def test_a_line_at_each_evaluation(trained, prepared, tmp_path):
    workspace, printed = trained
    lines = printed.splitlines()
    written = [lines[i + 1] for i, line in enumerate(lines) if line.startswith('step ')]
    assert len(written) == 3 and all(re.fullmatch('it writes: .{64}', line) for line in written)
    assert len(set(written)) == 3 and not re.search(r'[\x00-\x09\x0b-\x1f]', printed)
    known = set(load(workspace / 'out-hour' / 'ckpt.pt')['tokenizer']['itos'])
    assert set(written[-1].removeprefix('it writes: ')) <= known | {' '}
    # the same training without them
    quiet = prepared.run('train.py', *TINY, '--max_iters=60', '--eval_interval=30', '--log_interval=20',
                         '--lr_decay_iters=60', f'--out_dir={tmp_path}/out', '--sample_chars=0', '--dropout=0.0')
    assert 'it writes' not in quiet and read_log(tmp_path / 'out') == read_log(workspace / 'out-hour')


def test_summary(trained):
    workspace, printed = trained
    lines = printed.splitlines()[-7:]
    best = load(workspace / 'out-hour' / 'ckpt.pt')['best_val_loss']
    train, val = (np.fromfile(workspace / ECA / f'{split}.bin', np.uint16) for split in ('train', 'val'))
    counts = np.bincount(train, minlength=val.max() + 1) + 1
    p = counts / counts.sum()
    unigram = -np.log(p[val]).mean()
    assert unigram_loss(workspace / ECA, len(counts)) == pytest.approx(unigram)
    assert lines[0] == 'done: 60 iterations'
    assert re.fullmatch(r'  time      00:\d\d, evaluations included', lines[1])
    assert lines[2] == f'  read      {60 * 8 * 32:,} tokens, {60 * 8 * 32 / len(train):.2f} times train.bin'
    assert lines[3] == f'  val loss  {best:.3f} nats per token; of the frequencies alone {unigram:.3f}'
    assert lines[4] == (f'  in bits   {best / math.log(2):.3f} per character; '
                        f'of the frequencies alone {unigram / math.log(2):.3f}')
    assert lines[5] == '  files     out-hour: ckpt.pt, log.csv'
    assert lines[6] == 'next: python sample.py --out_dir=out-hour'


def test_training_on_a_terminal(prepared):
    seen = Terminal(prepared, 'train.py', *TINY, '--max_iters=40', '--eval_interval=20', '--log_interval=10',
                    '--out_dir=out-terminal')
    bars = [[row for row in rows if '%|' in row] for rows in seen.screens]
    assert max(map(len, bars)) == 1   # never two, never a torn one
    whole = re.compile(r'/40 \[\d\d:\d\d<\d\d:\d\d, .*it/s, loss \d\.\d{4}, [\d,]+ tokens/s\]$')   # < time left
    assert any(whole.search(row) for rows in bars for row in rows)
    printed = [line for line in seen.lines if line and '%|' not in line]
    kinds = ('Overriding', 'device:', 'tokens per', 'number of', 'step ', 'iter ', 'it writes: ', 'saving ', 'done:',
             '  time', '  read', '  val loss', '  in bits', '  files', 'next:')
    assert all(line.startswith(kinds) for line in printed) and printed[-1].startswith('next:'), printed


# ---------------------------------------------------------------------------
# help, and one's own text

@pytest.mark.parametrize('script', ['train.py', 'sample.py', 'bench.py', 'export.py', 'explain.py', 'plot.py',
                                    *(f'data/{name}/prepare.py' for name in (
                                        'ecadequeiuroz_char', 'autor_char', 'shakespeare_char', 'ecadequeiuroz',
                                        'shakespeare', 'openwebtext'))])
def test_help_fits_a_screen(prepared, script):
    lines = prepared.run(script, '--help').splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 80 and any('python ' in line for line in lines[:8])


def test_help_on_one_setting(prepared):
    assert prepared.run('train.py', '--help=dropout').startswith('  --dropout=0.0  0 unless the model sees its data')
    everything = prepared.run('train.py', '--help=all')
    assert everything.count('\n  --') == 41 and '--seed=1337  ' in everything
    assert max(map(len, everything.splitlines())) <= 80
    assert 'there is no setting dropot; did you mean dropout?' in prepared.run('train.py', '--help=dropot', fails=True)


def test_own_texts(bare, tmp_path):
    """From a folder of .txt files, as Windows writes them, to samples in its voice."""
    sample_text = (bare / ECA / 'amostra.txt').read_text(encoding='utf-8')
    (tmp_path / 'livros' / 'b').mkdir(parents=True)
    (tmp_path / 'livros' / 'a.txt').write_bytes(b'\xef\xbb\xbf' + sample_text[:9000].replace('\n', '\r\n').encode())
    (tmp_path / 'livros' / 'b' / 'c.txt').write_text(sample_text[9000:], encoding='utf-8')
    (tmp_path / 'livros' / 'pasta.txt').mkdir()   # no text, whatever its name
    (tmp_path / 'livros' / '._a.txt').write_bytes(b'\x00\x05\x16\x07\xff')   # what a Mac puts beside a file
    (tmp_path / 'livros' / 'notas.md').write_text('not this', encoding='utf-8')
    said = bare.run('data/autor_char/prepare.py', tmp_path / 'livros', tmp_path / 'livros' / 'a.txt')   # named twice
    assert said.count('a.txt') == 1
    assert said.index('a.txt') < said.index('c.txt') and 'notas.md' not in said
    tiny = [arg for arg in TINY if not arg.startswith('config/')]
    said = bare.run('train.py', 'config/train_autor_char.py', *tiny, '--max_iters=30')
    assert 'next: python sample.py --out_dir=out-autor-char' in said
    itos = load(bare / 'out-autor-char' / 'ckpt.pt')['tokenizer']['itos']
    assert '\r' not in itos and '\ufeff' not in itos and set(itos) == set(sample_text)
    assert bare.run('sample.py', '--out_dir=out-autor-char', '--num_samples=2').count('---------------') == 2
    empty = tmp_path / 'vazia'
    empty.mkdir()
    assert f'there is no .txt file in {empty}' in bare.run('data/autor_char/prepare.py', empty, fails=True)
    assert 'no text is named' in bare.run('data/autor_char/prepare.py', fails=True)
    assert 'cannot be read' in bare.run('data/autor_char/prepare.py', 'nada.txt', fails=True)


def test_model_to_give_away(trained, tmp_path):
    """export.py to a .pt file: the model alone, in half precision; it writes, and cannot be resumed."""
    workspace = trained[0]
    (tmp_path / 'out').mkdir()
    said = workspace.run('export.py', '--out_dir=out-hour', f'--to={tmp_path}/out/ckpt.pt')
    whole, alone = load(workspace / 'out-hour' / 'ckpt.pt'), load(tmp_path / 'out' / 'ckpt.pt')
    size = os.path.getsize(tmp_path / 'out' / 'ckpt.pt')
    assert f'{size / 1e6:.2f} MB' in said and size < os.path.getsize(workspace / 'out-hour' / 'ckpt.pt') / 3
    assert all(torch.equal(alone['model'][k], v.half()) for k, v in whole['model'].items())
    text = sample(trained, f'--out_dir={tmp_path}/out', '--num_samples=1')
    assert len(text) == 1 + 60 + len(DASHES)
    message = workspace.run('train.py', *TINY, '--init_from=resume', f'--out_dir={tmp_path}/out', fails=True)
    assert 'is a model to sample from, not the state of a training' in message
    again = workspace.run('export.py', '--out_dir=out-hour', f'--to={tmp_path}/out/ckpt.pt', fails=True)
    assert 'is there already' in again
