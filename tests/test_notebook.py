"""mynanogpt.ipynb, run from its first cell to its last, with a training of seconds; and the ways in which it finds the
repository."""

import os
import re
import shutil
import subprocess

import pytest
from conftest import REPO, TINY

nbformat = pytest.importorskip('nbformat')
NOTEBOOK = 'mynanogpt.ipynb'


def read():
    return nbformat.read(REPO / NOTEBOOK, as_version=4)


def text(cell):
    """What a cell printed or shows as text."""
    return ''.join(o.get('text', '') or o.get('data', {}).get('text/html', '') for o in cell.outputs)


def test_it_is_stored_clean():
    notebook = read()
    nbformat.validate(notebook)
    assert all(not c.outputs and c.execution_count is None for c in notebook.cells if c.cell_type == 'code')
    assert notebook.metadata.accelerator == 'GPU' and notebook.metadata.kernelspec.name == 'python3'


@pytest.fixture
def execute(tmp_path, monkeypatch):
    """A function that runs cells, a folder being the one in which the notebook lies, and returns what each printed.
    What a cell raises, it raises; with stops=True, a cell must end with a plain sentence, which it returns."""
    pytest.importorskip('ipykernel')
    preprocessors = pytest.importorskip('nbconvert.preprocessors')
    # no network, so that prepare.py falls back on the sample; and nothing of the user's
    for name, value in {'http_proxy': 'http://127.0.0.1:9', 'https_proxy': 'http://127.0.0.1:9',
                        'IPYTHONDIR': str(tmp_path / 'ipython'),
                        'JUPYTER_RUNTIME_DIR': str(tmp_path / 'runtime')}.items():
        monkeypatch.setenv(name, value)

    def run(notebook, folder, stops=False):
        preprocessor = preprocessors.ExecutePreprocessor(timeout=120, kernel_name='python3')
        resources = {'metadata': {'path': str(folder)}}
        if stops:
            with pytest.raises(preprocessors.CellExecutionError) as raised:
                preprocessor.preprocess(notebook, resources)
            assert raised.value.ename == 'SystemExit'
            return raised.value.evalue
        preprocessor.preprocess(notebook, resources)
        return {cell.id: text(cell) for cell in notebook.cells if cell.cell_type == 'code'}
    return run


def beginning(repository='', given='/nowhere'):
    """The notebook to the cell that prepares the data, with other values in its first cell; no training."""
    notebook = read()
    kept = ('endereco', 'repositorio', 'preparar')
    notebook.cells = [cell for cell in notebook.cells if cell.id in kept]
    assert [cell.id for cell in notebook.cells] == list(kept)
    first = notebook.cells[0]
    assert first.source.count("REPOSITORY = ''") == first.source.count("INPUT = '/kaggle/input'") == 1
    first.source = first.source.replace("REPOSITORY = ''", f'REPOSITORY = {repository!r}')
    first.source = first.source.replace("INPUT = '/kaggle/input'", f'INPUT = {str(given)!r}')
    return notebook


def commit(folder):
    """Make a git repository of a folder; returns its address."""
    for args in (['init', '--quiet'], ['add', '.'],
                 ['-c', 'user.name=a', '-c', 'user.email=a@b', 'commit', '--quiet', '--message=all']):
        subprocess.run(['git', *args], cwd=folder, check=True)
    return folder.as_uri()


@pytest.fixture
def empty(tmp_path):
    """A folder with nothing in it but, perhaps, the notebook."""
    folder = tmp_path / 'content'
    folder.mkdir()
    return folder


def test_from_an_address(bare, empty, execute):
    said = execute(beginning(commit(bare.path)), empty)
    assert f'pasta: {os.path.realpath(empty)}/MyNanoGPT\n' in said['repositorio']
    assert (empty / 'MyNanoGPT/data/ecadequeiuroz_char/train.bin').exists()


def test_another_project_stops_it(tmp_path, empty, execute):
    other = tmp_path / 'other'
    other.mkdir()
    (other / 'train.py').write_text('print("another")')
    address = commit(other)
    for folder in (empty, other):   # a train.py alone does not make it this project
        said = execute(beginning(address), folder, stops=True)
        assert said.startswith(f'O repositório {address} não é deste projeto: ')
        assert not (folder / 'MyNanoGPT').exists()


def test_no_address_and_a_wrong_one_stop_it(tmp_path, empty, execute):
    assert execute(beginning(), empty, stops=True).startswith('Não achei o repositório. Cole o endereço ')
    said = execute(beginning((tmp_path / 'nothing').as_uri()), empty, stops=True)
    assert said.startswith('Este comando falhou (código 128)') and 'git clone ' in said


@pytest.mark.parametrize('is_unpacked', [False, True])
def test_from_a_zip(bare, empty, execute, is_unpacked):
    """As GitHub makes it: all in one folder, named after the branch."""
    (empty / 'other.zip').write_bytes(b'PK, but only the beginning')
    named = bare.path.parent / 'zip/MyNanoGPT-main'
    shutil.copytree(bare.path, named)
    shutil.make_archive(str(empty / 'MyNanoGPT-main'), 'zip', named.parent)
    if is_unpacked:
        shutil.unpack_archive(empty / 'MyNanoGPT-main.zip', empty)
    said = execute(beginning(), empty)
    assert re.search(f'pasta: {os.path.realpath(empty)}/MyNanoGPT-main(/MyNanoGPT-main)?\n', said['repositorio'])
    assert 'SAMPLE' in said['preparar'] and len(list(empty.rglob('train.bin'))) == 1


def test_on_kaggle(bare, tmp_path, empty, execute):
    """No network: the repository and the text are data sets, and what is there stays as it is."""
    given = tmp_path / 'input'
    shutil.copytree(bare.path, given / 'datasets/somebody/mynanogpt/MyNanoGPT-main')
    (given / 'ea de queiroz').mkdir()
    shutil.copy(bare / 'data/ecadequeiuroz_char/amostra.txt', given / 'ea de queiroz/eca.txt')
    said = execute(beginning(given=given), empty)
    assert f'pasta: {os.path.realpath(empty)}/MyNanoGPT\n' in said['repositorio']
    assert f'text: {given}/ea de queiroz/eca.txt' in said['preparar'] and 'SAMPLE' not in said['preparar']
    assert (empty / 'MyNanoGPT/data/ecadequeiuroz_char/train.bin').exists() and not list(given.rglob('train.bin'))


def test_a_command_that_fails_stops_it(bare, tmp_path, execute):
    (tmp_path / 'eca.txt').write_text('Era uma vez')
    said = execute(beginning(given=tmp_path), bare.path, stops=True)
    assert said.startswith('Este comando falhou (código 1)') and 'prepare.py' in said
    for cell in read().cells:
        assert cell.cell_type != 'code' or not re.search(r'^ *[!%]', cell.source, re.M)   # these go on


def test_every_cell_does_what_it_says(bare, execute):
    pytest.importorskip('matplotlib')
    notebook = read()
    cells = {cell.id: cell for cell in notebook.cells if cell.cell_type == 'code'}
    extra = ' '.join([*TINY[1:], '--max_iters=20', '--eval_interval=10'])
    assert cells['parametros'].source.count("extra = ''") == 1
    cells['parametros'].source = cells['parametros'].source.replace("extra = ''", f"extra = '{extra}'")
    execute(notebook, bare.path)
    cells = {cell.id: cell for cell in notebook.cells if cell.cell_type == 'code'}

    for cell in cells.values():
        assert not re.search(r'Traceback|error:|^\w+\.py: ', text(cell), re.M), text(cell)
    assert f'pasta: {os.path.realpath(bare.path)}' in text(cells['repositorio'])
    assert text(cells['pronto']).count('---------------') == 2
    assert 'SAMPLE' in text(cells['preparar']) and 'vocab size: ' in text(cells['preparar'])
    losses = re.findall(r'step (\d+): train loss \d\.\d{4}, val loss \d\.\d{4}', text(cells['treinar']))
    assert losses == ['0', '10', '20'] and 'done: 20 iterations' in text(cells['treinar'])
    shown = [o.data for o in cells['curva'].outputs if 'data' in o]
    assert 'loss.png' in text(cells['curva']) and any(len(data.get('image/png', '')) > 10000 for data in shown)
    assert text(cells['escrever']).count('Meu caro amigo') == text(cells['escrever']).count('---------------') == 3
    assert '<iframe srcdoc="&lt;!' in text(cells['explicar'])
