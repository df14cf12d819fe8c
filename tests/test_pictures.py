"""The scripts in assets/ that draw README's pictures."""

import re

import pytest
from conftest import TINY


def test_learning_is_drawn_from_what_a_training_prints(prepared, tmp_path):
    """From the real lines of a short run, with other iterations in them: the true ones would take minutes."""
    pytest.importorskip('matplotlib')
    printed = prepared.run('train.py', *TINY, '--max_iters=1', '--sample_chars=100', f'--out_dir={tmp_path / "out"}')
    lines = ''
    for n in (0, 250, 500, 1000, 2400):
        lines += re.sub(r'^(step|iter) \d+:', rf'\1 {n}:', printed, flags=re.M)
    (tmp_path / 'printed.txt').write_text(lines, encoding='utf-8')
    picture = prepared / 'assets' / 'learning.png'
    picture.unlink()
    assert f'wrote {picture}' in prepared.run('assets/draw_learning.py', tmp_path / 'printed.txt')
    assert picture.read_bytes()[16:24] == (1800).to_bytes(4, 'big') + (945).to_bytes(4, 'big')   # PNG: width, height
