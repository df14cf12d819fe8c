"""Evaluation: a sweep of a .bin file, which leaves out no token and takes none twice."""

import numpy as np
import pytest

from support.evaluate import sweep


@pytest.fixture
def write(tmp_path):
    """A function that writes n tokens, each another one, to a .bin file, and returns its path and them."""
    def write(n):
        ids = np.random.default_rng(0).permutation(n).astype(np.uint16)
        ids.tofile(tmp_path / 'val.bin')
        return str(tmp_path / 'val.bin'), ids.tolist()
    return write


# the last window is full, has one token, has all but one; the last batch is full, has one window
SHAPES = [(33, 2, 8), (34, 2, 8), (32, 2, 8), (25, 2, 8), (26, 3, 1), (9, 4, 8), (2, 4, 8), (100, 7, 5), (1000, 3, 16)]


@pytest.mark.parametrize('n, batch_size, block_size', SHAPES)
def test_every_token_but_the_first_is_a_target_once(write, n, batch_size, block_size):
    path, ids = write(n)
    targets = []
    for x, y in sweep(path, batch_size, block_size):
        assert x.shape == y.shape and x.shape[1] == block_size and 1 <= len(x) <= batch_size
        assert x.min() >= 0   # -1, which is no token, is among the targets alone
        flat = y.flatten()
        targets += flat[flat >= 0].tolist()
        before = dict(zip(ids[1:], ids))   # target -> the token before it
        assert all(before[b] == a for a, b in zip(x.flatten().tolist(), flat.tolist()) if b >= 0)
    assert targets == ids[1:]


@pytest.mark.parametrize('n, batch_size, block_size', SHAPES)
def test_beyond_the_end_is_no_target(write, n, batch_size, block_size):
    """What fills the last window up: -1, after the last token."""
    path, ids = write(n)
    y = np.concatenate([y.flatten() for _, y in sweep(path, batch_size, block_size)])
    assert y[:n - 1].tolist() == ids[1:]
    assert (y[n - 1:] == -1).all() and len(y) - (n - 1) < block_size


@pytest.mark.parametrize('n, batch_size, block_size', SHAPES)
@pytest.mark.parametrize('world_size', [2, 3, 8])
def test_shares_are_disjoint_and_complete(write, n, batch_size, block_size, world_size):
    path, ids = write(n)
    shares = []
    for rank in range(world_size):
        ys = [y.flatten() for _, y in sweep(path, batch_size, block_size, rank, world_size)]
        shares.append([target for y in ys for target in y.tolist() if target >= 0])
    together = sorted(target for share in shares for target in share)
    assert together == sorted(ids[1:])   # each token is there once, so no two shares have the same
    whole = [len(y) for _, y in sweep(path, batch_size, block_size)]
    n_batches = [len(list(sweep(path, batch_size, block_size, rank, world_size))) for rank in range(world_size)]
    assert sum(n_batches) == len(whole) and max(n_batches) - min(n_batches) <= 1
