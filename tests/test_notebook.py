"""mynanogpt.ipynb, run from its first cell to its last, with a training of seconds."""

import os
import re

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


def test_every_cell_does_what_it_says(bare, monkeypatch):
    pytest.importorskip('matplotlib')
    pytest.importorskip('ipykernel')
    preprocessors = pytest.importorskip('nbconvert.preprocessors')
    # no network, so that prepare.py falls back on the sample; and nothing of the user's
    for name, value in {'http_proxy': 'http://127.0.0.1:9', 'https_proxy': 'http://127.0.0.1:9',
                        'IPYTHONDIR': str(bare / 'ipython'), 'JUPYTER_RUNTIME_DIR': str(bare / 'runtime')}.items():
        monkeypatch.setenv(name, value)
    notebook = read()
    cells = {cell.id: cell for cell in notebook.cells if cell.cell_type == 'code'}
    extra = ' '.join([*TINY[1:], '--max_iters=20', '--eval_interval=10'])
    assert cells['parametros'].source.count("extra = ''") == 1
    cells['parametros'].source = cells['parametros'].source.replace("extra = ''", f"extra = '{extra}'")
    run = preprocessors.ExecutePreprocessor(timeout=120, kernel_name='python3')
    run.preprocess(notebook, {'metadata': {'path': str(bare.path)}})   # raises what a cell raises
    cells = {cell.id: cell for cell in notebook.cells if cell.cell_type == 'code'}

    # but not what a !command says when it fails
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
