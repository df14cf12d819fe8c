"""Muon: torch's steps, and Newton-Schulz's iteration however it is computed."""

import math

import pytest
import torch
from conftest import start_compiler

import muon
from muon import Muon, orthogonalize


@pytest.mark.parametrize('shape', [(24, 24), (16, 48), (48, 16)])
def test_muon_steps_as_torchs_does(shape):
    """Our stacked Muon against torch.optim.Muon, one matrix at a time, over several steps."""
    torch.manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(shape)) for _ in range(3)]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    opt = Muon(ours, lr=0.02, weight_decay=0.1)
    reference = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, adjust_lr_fn='match_rms_adamw')
    for _ in range(4):
        for p, q in zip(ours, theirs):
            p.grad = torch.randn(shape)
            q.grad = p.grad.clone()
        opt.step()
        reference.step()
    for p, q in zip(ours, theirs):
        # bfloat16 has 8 bits: matmuls that add in another order differ in the last of them
        torch.testing.assert_close(p, q, rtol=0, atol=0.02 * 0.2 * math.sqrt(max(shape)) * 2e-2)


@pytest.mark.parametrize('rows, columns', [(16, 16), (16, 31), (16, 32), (32, 16), (16, 64), (64, 16)])
@pytest.mark.parametrize('kind', ['full', 'low rank', 'steep', 'zero'])
def test_orthogonalize_is_newton_schulz(rows, columns, kind):
    """Both ways of computing it, for wide, tall and square matrices, against the plain iteration in float64."""
    torch.manual_seed(0)
    G = torch.randn(3, rows, columns)
    if kind == 'low rank':
        G = torch.randn(3, rows, 2) @ torch.randn(3, 2, columns) + 1e-4 * G
    if kind == 'steep':
        U, S, Vh = torch.linalg.svd(G, full_matrices=False)
        G = U * torch.logspace(0, -8, S.size(1)) @ Vh
    if kind == 'zero':
        G = torch.zeros_like(G)
    X = G.double() / G.double().norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        A = X @ X.mT
        X = 3.4445 * X + (-4.7750 * A + 2.0315 * A @ A) @ X
    torch.testing.assert_close(orthogonalize(G), X.float(), rtol=0, atol=1e-3)   # entries are about 0.2


def test_orthogonalize():
    """Singular values are pushed near 1, singular vectors are kept."""
    torch.manual_seed(0)
    G = torch.randn(4, 20, 50)
    S = torch.linalg.svdvals(orthogonalize(G))
    assert 0.6 < S.min() and S.max() < 1.3
    U, _, Vh = torch.linalg.svd(G, full_matrices=False)
    S = U.mT @ orthogonalize(G) @ Vh.mT   # diagonal, in the basis of G's singular vectors
    assert (S - torch.diag_embed(S.diagonal(dim1=1, dim2=2))).abs().max() < 1e-3


def test_compiled_muon_steps_as_plain(monkeypatch):
    """Whoever compiles orthogonalize, a graph for each shape, has the same steps."""
    start_compiler()
    torch.manual_seed(0)
    plain = [torch.nn.Parameter(torch.randn(shape)) for shape in ((24, 24), (16, 48), (48, 16), (48, 16))]
    compiled = [torch.nn.Parameter(p.detach().clone()) for p in plain]
    for params in (plain, compiled):
        torch.manual_seed(1)
        opt = Muon(params, lr=0.02, ns_dtype='float32')
        if params is compiled:
            monkeypatch.setattr(muon, 'orthogonalize', torch.compile(orthogonalize, dynamic=False))
        for _ in range(3):
            for p in params:
                p.grad = torch.randn_like(p)
            opt.step()
    for p, q in zip(plain, compiled):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('momentum', [-0.1, 1.0])
def test_momentum_out_of_range(momentum):
    with pytest.raises(ValueError, match=f'momentum = {momentum} is invalid'):
        Muon([torch.nn.Parameter(torch.ones(2, 2))], lr=0.02, momentum=momentum)
