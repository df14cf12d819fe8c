"""Texts as they come: files of other kinds, downloads that will not do, memory that is not enough; one line each."""

import bz2
import gzip
import io
import lzma
import os
import resource
import socket
import subprocess
import sys
import tarfile
import threading
import time
import zipfile

import pytest
from conftest import ECA, REPO

from support import texts
from support.dataset import MIN_CHARS

SAMPLE = (REPO / ECA / 'amostra.txt').read_bytes()
TEXT = SAMPLE.decode('utf-8')
RUSSIAN = 'Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива.\n' * 99
CHINESE = '道可道，非常道。名可名，非常名。 無名天地之始；有名萬物之母。\n' * 99


def zipped(*names):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, SAMPLE)
    return buffer.getvalue()


def stored_first(mimetype):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as archive:
        archive.writestr('mimetype', mimetype)
        archive.writestr('content.xml', SAMPLE)
    return buffer.getvalue()


def tarred():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode='w') as archive:
        info = tarfile.TarInfo('a.txt')
        info.size = len(SAMPLE)
        archive.addfile(info, io.BytesIO(SAMPLE))
    return buffer.getvalue()


OTHER_KINDS = {
    'gzip': (gzip.compress(SAMPLE), 'is a gzip file; unpack it: gunzip -k'),
    'bzip2': (bz2.compress(SAMPLE), 'is a bzip2 file; unpack it: bunzip2 -k'),
    'xz': (lzma.compress(SAMPLE), 'is an xz file; unpack it: unxz -k'),
    'zstd': (b'\x28\xb5\x2f\xfd\x04\x58' + os.urandom(9999), 'is a Zstandard file; unpack it: unzstd'),
    'lz4': (b'\x04\x22\x4d\x18' + os.urandom(9999), 'is an LZ4 file'),
    '7z': (b"7z\xbc\xaf'\x1c\0\4" + os.urandom(9999), 'is a 7-Zip archive'),
    'rar': (b'Rar!\x1a\x07\1\0' + os.urandom(9999), 'is a RAR archive'),
    'zip': (zipped('eca.txt'), 'is a zip archive; unpack it: unzip'),
    'tar': (tarred(), 'is a tar archive'),
    'docx': (zipped('[Content_Types].xml', 'word/document.xml'), 'is a Word document (.docx); save it as plain text'),
    'xlsx': (zipped('[Content_Types].xml', 'xl/workbook.xml'), 'is an Excel table'),
    'odt': (stored_first('application/vnd.oasis.opendocument.text'), 'is an OpenDocument file'),
    'epub': (stored_first('application/epub+zip'), 'is an e-book (.epub)'),
    'doc': (b'\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1' + bytes(9999), 'is a document of old Microsoft Office'),
    'pdf': (b'%PDF-1.7\n%\xe2\xe3\xcf\xd3\n' + os.urandom(9999), 'is a PDF; take the text out: pdftotext'),
    'pdf, all ASCII': (b'%PDF-1.2\n' + b'1 0 obj << /Length 44 >>\n' * 999, 'is a PDF'),
    'rtf': (b'{\\rtf1\\ansi ' + b'palavras ' * 999 + b'}', 'is an RTF document'),
    'png': (b'\x89PNG\r\n\x1a\n' + os.urandom(9999), 'is a picture (PNG)'),
    'jpeg': (b'\xff\xd8\xff\xe0' + os.urandom(9999), 'is a picture (JPEG)'),
    'gif': (b'GIF89a' + os.urandom(9999), 'is a picture (GIF)'),
    'webp': (b'RIFF1234WEBP' + os.urandom(9999), 'is a picture, sound or film'),
    'mp4': (b'\0\0\0\x20ftypisom' + os.urandom(9999), 'is a film'),
    'parquet': (b'PAR1\x15\x04' + os.urandom(9999), 'is a Parquet file; give it to data/openwebtext/prepare.py'),
    'noise': (os.urandom(99999), 'is no text'),
    'zeros': (bytes(9999), 'is no text'),
    **{f'{encoding}, no mark, {len(text)}':
       (text.encode(encoding), f'is in {encoding.upper()}; convert it: iconv -f {encoding}')
       for encoding in ('utf-16-le', 'utf-16-be', 'utf-32-le', 'utf-32-be')
       for text in (TEXT, TEXT.encode('ascii', 'replace').decode() + '!', RUSSIAN, CHINESE)},
    'utf-16': (('\ufeff' + TEXT).encode('utf-16-le'), 'is in UTF-16; '),
    'utf-16, the other': (('\ufeff' + RUSSIAN).encode('utf-16-be'), 'is in UTF-16; '),
    'utf-32': (('\ufeff' + TEXT).encode('utf-32-le'), 'is in UTF-32; '),
    'utf-32, the other': (('\ufeff' + CHINESE).encode('utf-32-be'), 'is in UTF-32; '),
}


@pytest.mark.parametrize('name', OTHER_KINDS)
def test_files_of_other_kinds(tmp_path, name):
    """Named for what they are, and never 'iconv -f cp1252'."""
    content, says = OTHER_KINDS[name]
    path = tmp_path / 'o livro.txt'
    path.write_bytes(content)
    with pytest.raises(SystemExit) as e:
        texts.read_text(str(path))
    said = str(e.value)
    assert f'{path} {says}' in said and '\n' not in said and 'cp1252' not in said and 'NAME' not in said


@pytest.mark.parametrize('name', [
    'ecadequeiuroz_char', 'autor_char', 'shakespeare_char', 'shakespeare', 'openwebtext'])
def test_every_prepare_names_them(bare, tiktoken_cache, name):
    (bare / 'b.txt').write_bytes(gzip.compress(SAMPLE))
    (bare / 'a.txt').write_bytes(SAMPLE)
    env = {'TIKTOKEN_CACHE_DIR': tiktoken_cache}
    said = bare.run(f'data/{name}/prepare.py', 'a.txt', 'b.txt', env=env, fails=True)
    assert 'b.txt is a gzip file; unpack it: gunzip -k b.txt' in said
    assert [path.name for path in (bare / 'data' / name).iterdir() if path.suffix in ('.bin', '.pkl')] == []


@pytest.mark.parametrize('text', [
    TEXT, RUSSIAN, CHINESE, 'PK is not a zip. ' * 999, 'BM, ID3, RIFF. ' * 999, 'BZh ' * 999, 'Rar! ' * 999,
    'um\x0cdois\x1a\n' * 999, '<html><p>uma página</p></html>' * 999])
def test_texts_are_texts(tmp_path, text):
    path = tmp_path / 'a.txt'
    path.write_bytes(text.encode())
    assert texts.read_text(str(path)) == text


def test_old_texts_that_begin_like_other_files(tmp_path):
    for start in ('PK', 'BM', 'ID3', 'RIFF', 'GIF8', 'BZh', ''):
        (tmp_path / 'a.txt').write_bytes((start + 'ação\n').encode('cp1252') * 999)
        with pytest.raises(SystemExit, match='is not UTF-8: byte 0xe7 at offset .* iconv -f cp1252'):
            texts.read_text(str(tmp_path / 'a.txt'))


def test_a_pipe_is_read_and_a_device_is_not(bare):
    prepare = f'{ECA}/prepare.py'
    command = f'{sys.executable} {prepare} <(cat {ECA}/amostra.txt)'
    done = subprocess.run(['bash', '-c', command], cwd=bare.path, text=True, capture_output=True, timeout=60)
    assert done.returncode == 0 and f'length of dataset in characters: {len(TEXT):,}' in done.stdout
    assert '/dev/zero is not a file' in bare.run(prepare, '/dev/zero', fails=True, real=True)
    assert 'data cannot be read: Is a directory' in bare.run(prepare, 'data', fails=True)


@pytest.mark.parametrize('name', ['ecadequeiuroz_char', 'autor_char', 'shakespeare'])
def test_memory_that_is_not_enough(bare, tiktoken_cache, name):
    """One line, and what was there before stays."""
    with open(bare / 'grande.txt', 'wb') as f:
        for _ in range(2400):
            f.write(SAMPLE)   # 150 MB
    folder = bare / 'data' / name
    (folder / 'train.bin').write_bytes(b'as before')
    limits = dict(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (500_000_000, 500_000_000)))
    process = bare.start(f'data/{name}/prepare.py', 'grande.txt', **limits, env={
        'OPENBLAS_NUM_THREADS': '1', 'TIKTOKEN_CACHE_DIR': tiktoken_cache})
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1 and said.startswith('prepare.py: memory ran out') and said.count('\n') == 1
    assert (folder / 'train.bin').read_bytes() == b'as before' and not (folder / 'val.bin').exists()


# downloads

class RawServer:
    """A server on this machine that answers each connection by answer(connection), in a thread."""

    def __init__(self, answer):
        self.answer = answer
        self.socket = socket.create_server(('127.0.0.1', 0))
        self.url = f'http://127.0.0.1:{self.socket.getsockname()[1]}/eca.txt'

    def __enter__(self):
        threading.Thread(target=self.serve, daemon=True).start()
        return self

    def serve(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:   # closed: the test is over
                return
            threading.Thread(target=self.talk, args=[connection], daemon=True).start()

    def talk(self, connection):
        try:
            connection.recv(1 << 16)
            self.answer(connection)
            connection.close()
        except OSError:   # who asked has gone
            pass

    def __exit__(self, *args):
        self.socket.close()


def drip(connection, start, content=b'a' * 10**6):
    connection.sendall(start)
    for i in range(len(content)):
        connection.sendall(content[i:i + 1])
        time.sleep(0.05)


OK = b'HTTP/1.1 200 OK\r\n'
CHUNKED = OK + b'Transfer-Encoding: chunked\r\n\r\n'
FOUND = b'HTTP/1.1 302 Found\r\nLocation: '
BROKEN = {
    'a body that never ends': (lambda c: drip(c, OK + b'\r\n'), 'came too slowly'),
    'a header that never ends': (lambda c: drip(c, OK + b'X-Long: '), 'came too slowly'),
    'silence': (lambda c: time.sleep(9), 'came too slowly'),
    'no HTTP': (lambda c: c.sendall(b'220 ftp ready\r\n' * 9), 'BadStatusLine'),
    'nothing': (lambda c: None, 'closed connection without response'),
    'chunks that break off': (lambda c: c.sendall(CHUNKED + b'ffff\r\nabc'), 'IncompleteRead'),
    'chunks that are none': (lambda c: c.sendall(CHUNKED + b'xyz\r\nabc'), 'IncompleteRead'),
    'too many headers': (lambda c: c.sendall(OK + b'A: b\r\n' * 300 + b'\r\nabc'), 'HTTPException: got more than'),
    'a header without end': (lambda c: c.sendall(OK + b'A: ' + b'b' * 99999 + b'\r\n\r\n'), 'LineTooLong'),
    'a length that is none': (lambda c: c.sendall(OK + b'Content-Length: many\r\n\r\nabc'), 'ValueError'),
    'a length too long': (lambda c: c.sendall(OK + b'Content-Length: 99\r\n\r\nabc'), '3 of 99 bytes'),
    'a circle': (lambda c: c.sendall(FOUND + b'/eca.txt\r\n\r\n'), 'infinite loop'),
    'to another place': (lambda c: c.sendall(FOUND + b'file:///etc/passwd\r\n\r\n'), 'not allowed'),
}


@pytest.fixture
def direct(monkeypatch):
    """No proxy; and downloads that are given up after a second, not after half a minute."""
    for variable in ('http_proxy', 'HTTP_PROXY', 'all_proxy', 'ALL_PROXY'):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(texts, 'WINDOW_S', 1)


@pytest.mark.parametrize('name', BROKEN)
def test_downloads_that_break(direct, name):
    answer, reason = BROKEN[name]
    started = time.monotonic()
    with RawServer(answer) as server:
        with pytest.raises(OSError, match=reason) as e:
            texts.download(server.url, 10**6)
    assert '\n' not in str(e.value) and time.monotonic() - started < 5


def test_a_download_that_is_slow_but_steady_has_an_end(direct, monkeypatch):
    monkeypatch.setattr(texts, 'DEADLINE_S', 2.5)

    def answer(connection):
        connection.sendall(OK + b'\r\n')
        while True:
            connection.sendall(b'a' * 500)
            time.sleep(0.05)

    with RawServer(answer) as server, pytest.raises(OSError, match='not whole after 2.5 seconds'):
        texts.download(server.url, 10**9)


def test_a_slow_download_that_ends_is_whole(direct):
    body = os.urandom(9000)

    def answer(connection):
        connection.sendall(OK + b'Content-Length: 9000\r\n\r\n')
        for i in range(0, 9000, 300):
            connection.sendall(body[i:i + 300])
            time.sleep(0.08)

    with RawServer(answer) as server:
        assert texts.download(server.url, 10**6) == body


@pytest.mark.parametrize('name', ['a body that never ends', 'no HTTP', 'a web page'])
def test_a_broken_download_keeps_nothing(bare, name):
    """In a real process: one line, no input.txt, and it ends at once although the server still talks."""
    page = OK + b'\r\n<!DOCTYPE html><html><body>' + b'<p>Sign in, please.</p>' * 999
    answer = BROKEN[name][0] if name in BROKEN else lambda c: c.sendall(page)
    (bare / 'fetch.py').write_text(
        'import runpy, sys\nfrom support import texts\ntexts.WINDOW_S = 1\nreceive = texts.receive\n'
        'sys.argv[0] = sys.argv[2]\nurl = sys.argv[1]\ntexts.receive = lambda _, *args: receive(url, *args)\n'
        'del sys.argv[1:]\nrunpy.run_path(sys.argv[0], run_name="__main__")\n', encoding='utf-8')
    with RawServer(answer) as server:
        for script in ('data/shakespeare_char/prepare.py', f'{ECA}/prepare.py'):
            is_eca = ECA in script
            env = {'no_proxy': '127.0.0.1'}
            done = bare.run('fetch.py', server.url, script, env=env, real=True, fails=not is_eca, timeout_s=30)
            assert ('a SAMPLE of 140 KB, because' if is_eca else 'could not be downloaded') in done
            assert not list((bare / script).parent.glob('input*'))


@pytest.mark.parametrize('content, reason', [
    (SAMPLE, None), (SAMPLE[:99], '99 bytes only'), (b'<html>' + SAMPLE, 'web page'),
    (b'\n<!doctype HTML>' + SAMPLE, 'web page'),
    (b'<?xml version="1.0"?>' + SAMPLE, 'web page'), (b'\xef\xbb\xbf<html>' + SAMPLE, 'web page'),
    (b'<!-- x --><html>' + SAMPLE, 'web page'), (gzip.compress(SAMPLE), 'gzip'), (bytes(9999), 'no text'),
    (b'{"message": "Forbidden"}' + SAMPLE, 'web page'), (b'=-+ ' * 9999, 'more signs than letters'),
    (TEXT.encode('cp1252', 'replace'), "can't decode"), (TEXT.encode('utf-16'), 'UTF-16')])
def test_a_look_at_what_came(content, reason):
    if reason is None:
        texts.check_download(content, MIN_CHARS)
        return
    with pytest.raises(ValueError, match=reason):
        texts.check_download(content, MIN_CHARS)
