"""Data sets of words, and large ones: tiktoken's very tokens, one end for each document, nothing half-written."""

import gzip
import hashlib
import http.server
import json
import pickle
import random
import threading
import urllib.parse

import numpy as np
import pytest
from conftest import ECA, REPO

from support.dataset import split_text

tiktoken = pytest.importorskip('tiktoken')
datasets = pytest.importorskip('datasets')
tokenizers = pytest.importorskip('tokenizers')
transformers = pytest.importorskip('transformers')
REAL_TEXT = REPO / 'data/shakespeare/input.txt'
FETCH = '''
import runpy
import sys
from support import dataset
server, sha256, *sys.argv = sys.argv[1:]
download = dataset.download
dataset.download = lambda url, *args: download(url.replace('https://raw.githubusercontent.com', server), *args)
find_text = dataset.find_text
dataset.find_text = lambda paths, path, url, known: find_text(paths, path, url, sha256 or known)
runpy.run_path(sys.argv[0], run_name='__main__')
'''   # runs a script, with a server on this machine in place of GitHub, and another text's sum
SHAKESPEARE = ['data/shakespeare_char/prepare.py', 'data/shakespeare/prepare.py']


@pytest.fixture
def gpt2(tiktoken_cache, monkeypatch):
    monkeypatch.setenv('TIKTOKEN_CACHE_DIR', tiktoken_cache)
    return tiktoken.get_encoding('gpt2')


def read_ids(workspace, dataset):
    folder = workspace / 'data' / dataset
    return [np.fromfile(folder / f'{split}.bin', dtype='<u2').tolist() for split in ('train', 'val')]


class Server:
    """An HTTP server on this machine; answer(path) -> bytes, or None for a 404."""

    def __init__(self, answer):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                content = answer(urllib.parse.unquote(urllib.parse.urlparse(self.path).path))
                self.send_response(404 if content is None else 200)
                self.send_header('Content-Length', str(len(content or b'')))
                self.send_header('X-Repo-Commit', '1' * 40)   # from here on: as the Hugging Face Hub does
                self.send_header('ETag', '"1"')
                if content is None:
                    self.send_header('X-Error-Code', 'EntryNotFound')
                self.end_headers()
                if self.command == 'GET':
                    self.wfile.write(content or b'')

            do_HEAD = do_GET

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.url = f'http://127.0.0.1:{self.server.server_port}'

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *args):
        self.server.shutdown()
        self.server.server_close()


def test_pieces_have_the_tokens_of_the_whole(gpt2):
    rng = random.Random(0)
    cut = 0
    for _ in range(200):
        parts = ['a', 'não', ' ', ' ', '\n', '\n\n', '  ', '\t', "'s", '42', '…', '\x1c', '\u00a0', '日', '.']
        text = ''.join(rng.choices(parts, k=rng.randrange(2000)))
        size = rng.randrange(60, 200)
        pieces = list(split_text(text, size))
        assert ''.join(pieces) == text and all(len(piece) <= 2 * size for piece in pieces)
        if all(len(piece) < 2 * size for piece in pieces):
            cut += len(pieces)
            assert sum(map(gpt2.encode_ordinary, pieces), []) == gpt2.encode_ordinary(text)
    assert cut > 500


@pytest.mark.skipif(not REAL_TEXT.exists(), reason='the real text is not at data/shakespeare/input.txt')
def test_real_shakespeare(bare, tiktoken_cache):
    """The counts that nanoGPT's README gives."""
    for script, counts in zip(SHAKESPEARE, ((1_003_854, 111_540), (301_966, 36_059))):
        printed = bare.run(script, REAL_TEXT, env={'TIKTOKEN_CACHE_DIR': tiktoken_cache})
        assert f'train has {counts[0]:,} tokens\nval has {counts[1]:,} tokens' in printed


PLAY = 'First Citizen:\nBefore we proceed any further, hear me speak.\n\n' * 100


@pytest.mark.parametrize('script', SHAKESPEARE)
@pytest.mark.parametrize('body, reason', [
    (PLAY, None), (None, '404'), (PLAY[:-1], 'is not the text that is known'),
    ('Under maintenance', '17 bytes only'), (b'\xff' * 9999, "can't decode"),
    ('<!DOCTYPE html>\n<html>please sign in</html>' + PLAY, 'what came is a web page'),
    ('<p>a</p>\n' * 999, 'what came is a web page'), ('{"error": "no"}' + PLAY, 'what came is a web page'),
    (gzip.compress(bytes(range(256)) * 999), 'what came is a gzip file'),
    (PLAY.encode('utf-16-le'), 'is in UTF-16-LE'),
    ('0123456789 ' * 999, 'more signs than letters')])
def test_shakespeare_download(bare, gpt2, script, body, reason):
    body = body.encode() if isinstance(body, str) else body
    sha256 = hashlib.sha256(PLAY.encode()).hexdigest()
    with Server(lambda path: body) as server:
        (bare / 'fetch.py').write_text(FETCH, encoding='utf-8')
        env = {'TIKTOKEN_CACHE_DIR': str(gpt2 and bare / 'cache'), 'no_proxy': '127.0.0.1'}
        folder = (bare / script).parent
        if reason:
            said = bare.run('fetch.py', server.url, sha256, script, env=env, fails=True)
            assert reason in said and f'save it as {folder}/input.txt' in said
            assert [path.name for path in folder.iterdir()] == ['prepare.py']
            return
        said = bare.run('fetch.py', server.url, '', script, env=env, fails=True)   # with the sum of the real text
        assert 'is not the text that is known' in said and not (folder / 'input.txt').exists()
        if 'char' not in script:   # the text comes, GPT-2's vocabulary does not
            env['TIKTOKEN_CACHE_DIR'] = str(bare)
            said = bare.run('fetch.py', server.url, sha256, script, env=env, fails=True)
            assert "GPT-2's vocabulary could not be fetched" in said and 'TIKTOKEN_CACHE_DIR' in said
            return
        bare.run('fetch.py', server.url, sha256, script, env=env)
    assert (folder / 'input.txt').read_bytes() == body
    assert 'train has' in bare.run(script)   # without the server
    assert len(sum(read_ids(bare, folder.name), [])) == len(body)


@pytest.mark.skipif(not REAL_TEXT.exists(), reason='the real text is not at data/shakespeare/input.txt')
def test_the_sum_is_that_of_the_real_text():
    sha256 = hashlib.sha256(REAL_TEXT.read_bytes()).hexdigest()
    assert all(f"SHA256 = '{sha256}'" in (REPO / script).read_text(encoding='utf-8') for script in SHAKESPEARE)


def test_eca_in_tokens(bare, tiktoken_cache, gpt2):
    text = (bare / ECA / 'amostra.txt').read_text(encoding='utf-8')
    folder = bare / 'data/ecadequeiuroz'
    (folder / 'meta.pkl').write_bytes(pickle.dumps({'left by': 'another tokenizer'}))
    env = {'TIKTOKEN_CACHE_DIR': tiktoken_cache}
    assert 'SAMPLE' in bare.run('data/ecadequeiuroz/prepare.py', env=env)   # no network: the sample, as for characters
    n = int(len(text) * 0.9)
    assert read_ids(bare, 'ecadequeiuroz') == [gpt2.encode_ordinary(text[:n]), gpt2.encode_ordinary(text[n:])]
    assert not (folder / 'meta.pkl').exists()
    said = bare.run('data/ecadequeiuroz/prepare.py', '--tokenizer=nada', env={**env, 'HF_HUB_OFFLINE': '1'}, fails=True,
                    real=True)
    assert 'tokenizer nada cannot be loaded' in said
    assert 'No such file' in bare.run('data/ecadequeiuroz/prepare.py', 'nada.txt', env=env, fails=True)


# OpenWebText, or one's own documents

DOCUMENTS = [f'Documento {i}:\n' + 'linha  com espaços\n\n' * (i % 7) + '<|endoftext|> é texto' for i in range(3000)]
PREPARE = 'data/openwebtext/prepare.py'


def by_nanogpt(gpt2, documents):
    """The reference: [train ids, val ids], split, shuffled and ended as nanoGPT does it."""
    rows = datasets.Dataset.from_dict({'text': documents}).train_test_split(test_size=0.0005, seed=2357, shuffle=True)
    return [[i for text in rows[split]['text'] for i in [*gpt2.encode_ordinary(text), gpt2.eot_token]]
            for split in ('train', 'test')]


@pytest.mark.parametrize('kind, num_proc', [('jsonl', 1), ('jsonl', 2), ('parquet', 1)])
def test_documents(bare, gpt2, tiktoken_cache, kind, num_proc):
    rows = datasets.Dataset.from_dict({'url': [''] * len(DOCUMENTS), 'text': DOCUMENTS})
    path = bare / f'documentos.{kind}'
    if kind == 'parquet':
        rows.to_parquet(path)
    else:
        rows.to_json(path)
    env = {'TIKTOKEN_CACHE_DIR': tiktoken_cache}
    bare.run(PREPARE, path, '--val_share=0.0005', f'--num_proc={num_proc}', env=env, real=True)
    assert read_ids(bare, 'openwebtext') == by_nanogpt(gpt2, DOCUMENTS)
    assert not list((bare / 'data/openwebtext').glob('*.tmp'))


def test_another_tokenizer(bare):
    """Saved with truncation, which is for sentences; and what looks like the end of a document in a text is text, in
    other processes too."""
    bpe = tokenizers.ByteLevelBPETokenizer()
    bpe.train_from_iterator(DOCUMENTS, 400, special_tokens=['<|endoftext|>'], show_progress=False)
    end = bpe.token_to_id('<|endoftext|>')
    bpe.enable_truncation(8)
    transformers.PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, eos_token='<|endoftext|>').save_pretrained(
        bare / 'bpe')
    bpe.no_truncation()
    bpe._tokenizer.encode_special_tokens = True
    datasets.Dataset.from_dict({'text': DOCUMENTS}).to_json(bare / 'um.jsonl')
    for num_proc in (1, 2):
        bare.run(PREPARE, 'um.jsonl', '--tokenizer=bpe', f'--num_proc={num_proc}', real=True)
        train, val = read_ids(bare, 'openwebtext')
        assert len(train + val) == sum(len(bpe.encode(text).ids) + 1 for text in DOCUMENTS)
        assert (train + val).count(end) == len(DOCUMENTS)


def test_text_files(bare, gpt2, tiktoken_cache):
    """A file is a document, and a long one is read in pieces. A file that changes is read anew."""
    long = (bare / ECA / 'amostra.txt').read_text(encoding='utf-8') * 18   # two and a half million characters
    for changed in ('', 'Fim.'):
        texts = ['\ufeffUm livro curto.\n', long + changed, 'Outro\r\nlivro.']
        for i, text in enumerate(texts):
            (bare / f'{i}.txt').write_bytes(text.encode())
        printed = bare.run(PREPARE, '0.txt', '1.txt', '2.txt', env={'TIKTOKEN_CACHE_DIR': tiktoken_cache}, real=True)
        train, val = read_ids(bare, 'openwebtext')
        assert f'train has {len(train):,} tokens\nval has {len(val):,} tokens' in printed
        assert '2 byte order marks and \\r' in printed and 'val.bin is short' in printed
        texts = [text.removeprefix('\ufeff').replace('\r', '') for text in texts]
        want = [[*gpt2.encode_ordinary(text), gpt2.eot_token] for text in texts]
        assert [train, val] == [want[0] + want[1], want[2]]


LINES = [f'Linha {i} é curta. São {i * i % 97}.' for i in range(1000)]   # 12,500 tokens


@pytest.mark.parametrize('share, least, most', [(None, 1025, 1500), (0.3, 3600, 3900), (0.0005, 1, 40)])
def test_validation_large_enough_for_a_block(bare, tiktoken_cache, share, least, most):
    """Of 1000 short lines, one in 2000 would be a line. Drawn as nanoGPT draws, only more."""
    datasets.Dataset.from_dict({'text': LINES}).to_json(bare / 'linhas.jsonl')
    args = [] if share is None else [f'--val_share={share}']
    env = {'TIKTOKEN_CACHE_DIR': tiktoken_cache}
    said = bare.run(PREPARE, 'linhas.jsonl', *args, '--num_proc=1', env=env, real=True)
    val = read_ids(bare, 'openwebtext')[1]
    assert least <= len(val) <= most
    assert ('would be too short for a block' in said) == (share is None)
    assert ('val.bin is short' in said) == (len(val) < 1025)


@pytest.mark.parametrize('share', ['0', '-1', '0.7', 'nan', 'x'])
def test_validation_share_out_of_range(bare, share):
    assert 'val_share' in bare.run(PREPARE, 'linhas.jsonl', f'--val_share={share}', fails=True)


def test_documents_as_windows_writes_them(bare, gpt2, tiktoken_cache):
    texts = [f'\ufeffLinha {i}\r\ne fim, e\u0301 isso é tudo.\r' for i in range(30)]
    datasets.Dataset.from_dict({'text': texts}).to_json(bare / 'linhas.jsonl')
    said = bare.run(PREPARE, 'linhas.jsonl', '--num_proc=1', env={'TIKTOKEN_CACHE_DIR': tiktoken_cache}, real=True)
    assert '90 byte order marks and \\r (carriage returns) are left out' in said
    assert said.count('30 letters have theirs in one character (NFC), 30 as a character of its own (NFD)') == 1
    ids = sum(read_ids(bare, 'openwebtext'), [])
    assert '\r' not in gpt2.decode(ids) and '\ufeff' not in gpt2.decode(ids)


def test_openwebtext_itself(bare, gpt2, tiktoken_cache):
    """Without files it comes from the Hub: from a hub on this machine, as Parquet, and no script of its own is run."""
    datasets.Dataset.from_dict({'text': DOCUMENTS}).to_parquet(bare / '0000.parquet')
    parquet = (bare / '0000.parquet').read_bytes()
    asked = []

    def answer(path):
        asked.append(path)
        if '/revision/' in path:
            return json.dumps({'id': 'Skylion007/openwebtext', 'sha': '1' * 40, 'siblings': [], 'tags': []}).encode()
        if path.endswith('/tree/' + '1' * 40):
            return json.dumps([{'type': 'directory', 'path': 'plain_text', 'size': 0, 'oid': '1'}]).encode()
        if path.endswith('/plain_text'):
            return json.dumps([{'type': 'file', 'path': 'plain_text/train/0000.parquet', 'size': len(parquet),
                                'oid': '1'}]).encode()
        return parquet if path.endswith('0000.parquet') else b'[]' if '/tree/' in path else None

    with Server(answer) as server:
        env = {'TIKTOKEN_CACHE_DIR': tiktoken_cache, 'HF_ENDPOINT': server.url, 'no_proxy': '127.0.0.1'}
        printed = bare.run(PREPARE, '--num_proc=1', '--val_share=0.0005', env=env, real=True)
    assert 'Skylion007/openwebtext came with 3,000 documents; it used to have 8,013,769' in printed
    assert any('Skylion007/openwebtext/revision/refs/convert/parquet' in path for path in asked)
    assert read_ids(bare, 'openwebtext') == by_nanogpt(gpt2, DOCUMENTS)


@pytest.mark.parametrize('files, says', [
    ({}, 'the documents cannot be read'),   # no network
    ({'um.jsonl': '{"texto": "a"}\n' * 3}, "has no text in a column 'text'; its columns are texto"),
    ({'um.jsonl': '{"text": 5}\n' * 3}, "has no text in a column 'text'"),
    ({'um.jsonl': '{"text": "a"}\n'}, 'one document cannot be split in two'),
    ({'um.jsonl': 'isto não é JSON'}, 'the documents cannot be read'),
    ({'um.parquet': 'isto não é Parquet'}, 'the documents cannot be read'),
    ({'um.jsonl': '{"text": "a"}\n', 'dois.txt': 'b'}, 'give files of one kind'),
    ({'um.docx': 'b'}, 'the files end in .docx'),
    ({'um.txt': 'Ol\xe1', 'dois.txt': 'b'}, 'um.txt is not UTF-8'),
    ({'nada.txt': None}, 'there is no file nada.txt'),
    ({'um.jsonl': '{"text": ""}\n' * 30}, 'tokens for train.bin are the same'),
    ({'um.txt': '%PDF-1.4 ', 'dois.txt': 'b'}, 'um.txt is a PDF'),
])
def test_documents_that_are_invalid(bare, tiktoken_cache, files, says):
    for name, content in files.items():
        if content is not None:
            (bare / name).write_bytes(content.encode('latin-1' if name == 'um.txt' else 'utf-8'))
    env = {'TIKTOKEN_CACHE_DIR': tiktoken_cache, 'HF_HUB_OFFLINE': '1'}
    assert says in bare.run(PREPARE, '--num_proc=1', *files, env=env, fails=True, real=True)
    assert [path.name for path in (bare / 'data/openwebtext').iterdir()] == ['prepare.py']


IN_A_WORKER = '''
import os
import runpy
import signal
import sys
from support.dataset import Encoder
encode = Encoder.encode
parent = os.getpid()


def end(self, text):
    if os.getpid() == parent:
        return encode(self, text)
    if sys.argv[-1] == '--num_proc=2':
        os.kill(os.getpid(), signal.SIGKILL)
    raise MemoryError


Encoder.encode = end
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
'''   # runs prepare.py; the processes that tokenize for it are killed, or, of three, have no memory


@pytest.mark.parametrize('num_proc, says', [
    (2, 'a process that tokenizes was killed, perhaps since memory ran out; try'),
    (3, 'memory ran out; take a shorter text (or, where there is one, a lower')])
def test_a_worker_that_ends(bare, tiktoken_cache, num_proc, says):
    datasets.Dataset.from_dict({'text': DOCUMENTS[:200]}).to_json(bare / 'um.jsonl')
    said = bare.run('-c', IN_A_WORKER, PREPARE, 'um.jsonl', '--val_share=0.2', f'--num_proc={num_proc}',
                    env={'TIKTOKEN_CACHE_DIR': tiktoken_cache}, fails=True)
    assert said.startswith(f'prepare.py: {says}')
    assert [path.name for path in (bare / 'data/openwebtext').iterdir()] == ['prepare.py']


def test_what_a_worker_says(bare):
    """The error of another process is that of this one."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({'a': 0, 'b': 1}))
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(bare / 'ab')
    datasets.Dataset.from_dict({'text': ['a', 'b'] * 50 + ['c'] * 100}).to_json(bare / 'um.jsonl')
    said = bare.run(PREPARE, 'um.jsonl', '--tokenizer=ab', '--num_proc=2', fails=True, real=True)
    assert "tokenizer ab has no token for 'c' (U+0063)" in said


@pytest.mark.parametrize('dataset', ['shakespeare_char', 'shakespeare', 'ecadequeiuroz', 'openwebtext'])
def test_help(bare, dataset):
    printed = bare.run(f'data/{dataset}/prepare.py', '--help')
    assert f'python data/{dataset}/prepare.py' in printed and len(printed.splitlines()) < 40


def test_accents_in_two_ways_over_documents(bare, tiktoken_cache):
    """Though each document keeps to one."""
    texts = ['café é bom. ' * 50, 'cafe\u0301 e\u0301 bom. ' * 50, 'no accents. ' * 50] * 4
    datasets.Dataset.from_dict({'text': texts}).to_json(bare / 'um.jsonl')
    said = bare.run(PREPARE, 'um.jsonl', '--num_proc=1', env={'TIKTOKEN_CACHE_DIR': tiktoken_cache}, real=True)
    assert said.count('accents are written in two ways') == 1
    assert '400 letters have theirs in one character (NFC), 400 as' in said


def test_a_folder_with_the_name_of_a_well_known_tokenizer(bare, tmp_path):
    """distilgpt2 is the one on the Hub, which is not there; ./distilgpt2 is the folder."""
    bpe = tokenizers.ByteLevelBPETokenizer()
    bpe.train_from_iterator([(bare / ECA / 'amostra.txt').read_text(encoding='utf-8')], 600, show_progress=False)
    transformers.PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer).save_pretrained(bare / 'distilgpt2')
    prepare = ['data/ecadequeiuroz/prepare.py', f'{ECA}/amostra.txt']
    done = bare.start(*prepare, '--tokenizer=distilgpt2', env={'HF_HUB_OFFLINE': '1'})
    _, said = done.communicate(timeout=60)
    assert done.returncode == 1 and 'for the folder distilgpt2 write ./distilgpt2' in said
    assert 'tokenizer distilgpt2 cannot be loaded' in said and 'Traceback' not in said
    assert 'train has' in bare.run(*prepare, '--tokenizer=./distilgpt2')
