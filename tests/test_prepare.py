"""prepare.py: the same ids as nanoGPT's method, text from four places in order, and bad input that changes nothing."""

import http.server
import importlib.util
import io
import pickle
import os
import re
import sys
import threading
import unicodedata
import zipfile

import numpy as np
import pytest
from conftest import ECA, REAL_TEXT, REPO, TINY, load, needs_real_text

SAMPLE = f'{ECA}/amostra.txt'


def read_back(workspace):
    """(train ids, val ids, meta) that prepare.py wrote."""
    with open(workspace / ECA / 'meta.pkl', 'rb') as f:
        meta = pickle.load(f)
    return *(np.fromfile(workspace / ECA / f'{split}.bin', dtype='<u2') for split in ('train', 'val')), meta


def by_nanogpt(text):
    """The reference: sorted characters, ids in that order, the first 90 % for training."""
    chars = sorted(set(text))
    stoi = {c: i for i, c in enumerate(chars)}
    n = int(len(text) * 0.9)
    return [stoi[c] for c in text[:n]], [stoi[c] for c in text[n:]], {
        'vocab_size': len(chars), 'itos': dict(enumerate(chars)), 'stoi': stoi}


def assert_same(workspace, text):
    train, val, meta = read_back(workspace)
    want_train, want_val, want_meta = by_nanogpt(text)
    assert train.tolist() == want_train and val.tolist() == want_val and meta == want_meta


@needs_real_text
def test_real_text(bare):
    (bare / ECA / 'input_eca.txt').write_bytes(REAL_TEXT.read_bytes())
    printed = bare.run(f'{ECA}/prepare.py')
    assert 'input_eca.txt' in printed.splitlines()[0]
    for line in ('characters: 8,292,842', 'vocab size: 145', 'train has 7,463,557 tokens', 'val has 829,285 tokens'):
        assert line in printed
    assert_same(bare, REAL_TEXT.read_text(encoding='utf-8'))


def test_files_are_joined_in_order_and_cleaned(bare):
    """Byte order marks and \\r are left out, which is said; all else stays as it is."""
    one = 'Olá — «mundo»\r\ne mais\u00a0nada, cafe\u0301 e café.\n' * 100   # no-break space, two ways to write é
    two = '\ufeffsegundo 𝒜 livro\r' * 100   # a character beyond 16 bits
    (bare / 'um.txt').write_bytes(one.encode())
    (bare / 'dois.txt').write_bytes(two.encode())
    for name in ('ecadequeiuroz_char', 'shakespeare_char', 'autor_char'):
        printed = bare.run(f'data/{name}/prepare.py', 'um.txt', 'dois.txt')
        assert 'um.txt: 0 byte order marks and 100 \\r (carriage returns) are left out' in printed
        assert 'dois.txt: 100 byte order marks and 100 \\r (carriage returns) are left out' in printed
        assert printed.count('are left out') == 2
        assert printed.count('accents are written in two ways: 200 letters have theirs in one character (NFC), 100 as'
                             ) == 1
        assert bare.run(f'data/{name}/prepare.py', SAMPLE).count('accents') == 0
    bare.run(f'{ECA}/prepare.py', 'um.txt', 'dois.txt')
    assert_same(bare, one.replace('\r', '') + two.replace('\ufeff', '').replace('\r', '\n'))


def test_accents_in_one_way_are_no_matter(bare):
    for form in ('NFC', 'NFD'):
        text = unicodedata.normalize(form, 'À noite, o avô põe-se à janela.\n' * 200)
        (bare / 'texto.txt').write_text(text, encoding='utf-8')
        assert 'accents' not in bare.run(f'{ECA}/prepare.py', 'texto.txt')
        assert_same(bare, text)


def test_text_longer_than_one_piece(bare):
    rng = np.random.default_rng(0)
    text = ''.join(map(chr, rng.integers(32, 2000, size=(1 << 19) + 7)))
    (bare / 'longo.txt').write_text(text, encoding='utf-8', newline='')
    bare.run(f'{ECA}/prepare.py', 'longo.txt')
    assert_same(bare, text)


BAD_TEXTS = {
    'empty': (b'', 'has 0 characters'),
    'short': (b'Curto demais. ' * 20, '280 characters, too few'),
    'one character': (b'a' * 9000, "one character alone, 'a'"),
    'latin1': (('A' * 5000 + 'coração' * 1000).encode('latin-1'), 'byte 0xe7 at offset 5,004'),
    'too many characters': (''.join(map(chr, range(0x10000, 0x10000 + 70000))).encode(), '70,000 distinct characters'),
}


@pytest.mark.parametrize('name', BAD_TEXTS)
def test_bad_text_is_one_line_and_changes_nothing(bare, name):
    bare.run(f'{ECA}/prepare.py', SAMPLE)
    before = {p.name: p.read_bytes() for p in (bare / ECA).iterdir() if p.is_file()}
    content, message = BAD_TEXTS[name]
    (bare / 'mau.txt').write_bytes(content)
    assert message in bare.run(f'{ECA}/prepare.py', 'mau.txt', fails=True)
    assert {p.name: p.read_bytes() for p in (bare / ECA).iterdir() if p.is_file()} == before


def test_latin1_error_says_how_to_convert(bare):
    (bare / 'mau.txt').write_bytes('ação'.encode('latin-1') * 5000)
    message = bare.run(f'{ECA}/prepare.py', 'mau.txt', fails=True)
    assert 'or old, convert it: iconv -f cp1252 -t utf-8 mau.txt > mau-utf8.txt' in message


def test_missing_file_and_unknown_option(bare):
    assert 'nada.txt cannot be read' in bare.run(f'{ECA}/prepare.py', 'nada.txt', fails=True)
    said = bare.run(f'{ECA}/prepare.py', 'a.txt', '--force', fails=True)
    assert 'unrecognized arguments: --force; see --help' in said
    assert 'a.txt b.txt' in bare.run(f'{ECA}/prepare.py', '--help')


def test_without_network_the_sample_is_taken_and_said_so(bare):
    first = bare.run(f'{ECA}/prepare.py').splitlines()[1]
    assert 'SAMPLE' in first and 'download failed' in first and 'kaggle.com/datasets' in first
    assert not (bare / ECA / 'input_eca.txt').exists()
    assert_same(bare, (bare / SAMPLE).read_text(encoding='utf-8'))


@pytest.mark.parametrize('name', ['ecadequeiuroz_char', 'autor_char', 'shakespeare_char'])
def test_a_pipe_that_closes_ends_quietly(bare, name):
    read_end, write_end = os.pipe()
    os.close(read_end)   # whoever read it has read enough
    process = bare.start(f'data/{name}/prepare.py', SAMPLE, stdout=write_end, env={'PYTHONUNBUFFERED': ''})
    os.close(write_end)
    _, said = process.communicate(timeout=60)
    assert said == '' and process.returncode in (0, 1)   # no signal has ended it


def test_a_console_without_every_character(bare):
    """Wherever the name of a text is printed."""
    (bare / 'ação.txt').write_text((bare / SAMPLE).read_text(encoding='utf-8'), encoding='utf-8')
    for name in ('ecadequeiuroz_char', 'autor_char', 'shakespeare_char'):
        bare.run(f'data/{name}/prepare.py', 'ação.txt', env={'PYTHONIOENCODING': 'ascii'}, real=True)
    for name in ('ecadequeiuroz', 'shakespeare'):   # as far as they get without a vocabulary
        bare.run(f'data/{name}/prepare.py', 'ação.txt', env={'PYTHONIOENCODING': 'ascii'}, real=True, fails=True)


def test_sample_is_varied():
    """At least 125 KB, no paragraph twice and no nine words twice; and of the size that is told where it is named."""
    text = (REPO / SAMPLE).read_text(encoding='utf-8')
    paragraphs = [p for p in text.split('\n\n') if len(p) > 40]
    assert len(text.encode()) >= 125_000 and len(set(paragraphs)) == len(paragraphs) > 300
    words = re.findall(r'\w+', text.lower())
    nines = [tuple(words[i:i + 9]) for i in range(len(words) - 8)]
    assert len(set(nines)) == len(nines)
    size = f'{round(len(text.encode()), -4) // 1000} KB'
    for name, before in (('README.md', '`amostra.txt`, '), ('README.en.md', '`amostra.txt`, '),
                         ('docs/curso.md', '`amostra.txt`, '), ('docs/course.md', '`amostra.txt`, '),
                         ('mynanogpt.ipynb', 'uma amostra de '), (f'{ECA}/prepare.py', 'a SAMPLE of '),
                         ('docs/problemas.md', 'a SAMPLE of '), ('docs/problems.md', 'a SAMPLE of ')):
        assert before + size in (REPO / name).read_text(encoding='utf-8'), name


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
    assert said.count('text: ') == 2 and said.count('a.txt, ') == 1
    assert 'a.txt: 1 byte order marks' in said
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


# the download, from a server on this machine

BOOK = 'Nas tardes de Verão, a vila cheirava a pó e a laranja.\r\n' * 200


def make_zip(name, content):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


GOOD_ZIP = make_zip('obras/eca.txt', BOOK.encode())
# what the server sends, the length that it announces (None: none), and the reason that is to be printed
DOWNLOADS = {
    'whole': (GOOD_ZIP, len(GOOD_ZIP), None),
    'whole, no length announced': (GOOD_ZIP, None, None),
    'cut short': (GOOD_ZIP[:-100], len(GOOD_ZIP), 'broke off'),
    'cut short, no length announced': (GOOD_ZIP[:-100], None, 'not a zip'),
    'a web page': (b'<html>please sign in</html>', 27, 'not a zip'),
    'another book': (make_zip('camilo.txt', BOOK.encode()), None, 'no eca.txt'),
    'latin-1': (make_zip('eca.txt', BOOK.encode('latin-1')), None, "can't decode"),
    'damaged': (GOOD_ZIP[:70] + bytes([GOOD_ZIP[70] ^ 0xFF]) + GOOD_ZIP[71:], None, 'decompress'),
    'nearly empty': (make_zip('eca.txt', b'Em breve.'), None, '9 bytes only'),
    'absurdly large inside': (make_zip('eca.txt', bytes(300_000)), None, 'would have 300,000 bytes'),
    'a web page inside': (make_zip('eca.txt', b'<!DOCTYPE html><title>Sign in</title>' * 200), None, 'a web page'),
    'a picture inside': (make_zip('eca.txt', b'\x89PNG\r\n\x1a\n' + bytes(9999)), None, 'a picture (PNG)'),
    'numbers inside': (make_zip('eca.txt', b'12345 67890\n' * 999), None, 'more signs than letters'),
    'out of its folder': (make_zip('../../eca.txt', BOOK.encode()), None, 'named ../../eca.txt'),
    'absurdly large': (bytes(300_000), None, 'more than 200,000 bytes'),
    'error 404': (None, None, '404'),
}


@pytest.mark.parametrize('name', DOWNLOADS)
def test_download(bare, name, capsys, monkeypatch):
    body, announced, reason = DOWNLOADS[name]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if body else 404)
            if announced:
                self.send_header('Content-Length', str(announced))
            self.end_headers()
            self.wfile.write(body or b'')

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for variable in ('http_proxy', 'HTTP_PROXY', 'all_proxy', 'ALL_PROXY'):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setattr(sys, 'path', sys.path[:])   # the script adds its repository
        spec = importlib.util.spec_from_file_location('prepare', bare / ECA / 'prepare.py')
        prepare = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(prepare)
        prepare.MAX_BYTES = 200_000
        prepare.URL = f'http://127.0.0.1:{server.server_port}/eca.zip'
        text = prepare.find_text([])
        server.shutdown()

    input_path = bare / ECA / 'input_eca.txt'
    if reason is None:
        assert text == BOOK.replace('\r', '') and input_path.read_bytes() == BOOK.encode()
    else:
        assert reason in capsys.readouterr().out
        assert text == (bare / SAMPLE).read_text(encoding='utf-8') and not input_path.exists()
    assert not list((bare / ECA).glob('*.tmp'))
