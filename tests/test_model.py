"""The model: GPT-2's logits, a cache that changes nothing, optimizers that miss no parameter."""

import math

import pytest
import torch

import runtime
from model import GPT, GPTConfig, Muon, orthogonalize, pick_token


def make_model(seed=0, **overrides):
    """A small model whose weights are large enough to have opinions."""
    torch.manual_seed(seed)
    config = dict(block_size=16, vocab_size=37, n_layer=3, n_head=2, n_embd=32, dropout=0.0, bias=True)
    model = GPT(GPTConfig(**{**config, **overrides})).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(0, 0.3)
    return model


@torch.no_grad()
def recompute(model, idx, max_new_tokens, keep):
    """Greedy generation by plain forward passes, no cache: the window grows to block_size, then restarts from keep."""
    window = idx[:, -model.config.block_size:]
    for _ in range(max_new_tokens):
        token = model(window)[0][:, -1].argmax(-1, keepdim=True)
        idx = torch.cat([idx, token], dim=1)
        full = window.size(1) == model.config.block_size
        window = idx[:, -keep:] if full else torch.cat([window, token], dim=1)
    return idx


@pytest.mark.parametrize('B', [1, 2, 5])
@pytest.mark.parametrize('T', [1, 7, 15, 16, 17, 40])   # within, at and past the window of 16
@pytest.mark.parametrize('keep', [None, 1, 5, 16])
def test_cached_equals_recomputed(B, T, keep):
    model = make_model()
    idx = torch.randint(37, (B, T))
    cached = model.generate(idx, 45, temperature=0, keep=keep)   # long enough for several refills
    assert torch.equal(cached, recompute(model, idx, 45, keep or 8))


def test_compiled_equals_plain():
    """With torch.compile, whose graphs write into the cache, generation gives the same tokens, refills included."""
    if not runtime.pick_compile('true', 'cpu')[0]:
        pytest.skip('torch.compile does not work on this machine')
    model, idx = make_model(), torch.randint(37, (2, 4))
    plain = model.generate(idx, 40, temperature=0)
    model.forward = torch.compile(model.forward)
    assert torch.equal(model.generate(idx, 40, temperature=0), plain)


def test_cached_logits_equal_full_logits():
    model = make_model()
    idx = torch.randint(37, (3, 16))
    cache = model.new_cache(3)
    with torch.no_grad():
        pieces = [model(idx[:, :5], cache=cache)[0]]
        pieces += [model(idx[:, t:t + 1], cache=cache, pos=t)[0] for t in range(5, 16)]
        full = [model(idx[:, :t + 1])[0] for t in range(4, 16)]
    torch.testing.assert_close(torch.cat(pieces), torch.cat(full), rtol=1e-4, atol=1e-4)


def test_samples_of_one_prompt():
    """Reading the prompt once for all samples gives what reading it for each would."""
    model, idx = make_model(), torch.randint(37, (1, 4))
    torch.manual_seed(1)
    together = model.generate(idx, 30, temperature=1.0, top_k=5, num_samples=6)
    torch.manual_seed(1)
    apart = model.generate(idx.expand(6, -1), 30, temperature=1.0, top_k=5)
    assert torch.equal(together, apart) and len({tuple(row) for row in together.tolist()}) > 1


def test_a_window_of_one_token():
    model = make_model(block_size=1)
    assert model.generate(torch.zeros(2, 1, dtype=torch.long), 5).shape == (2, 6)


def test_generate_refuses_what_it_cannot_do():
    model, idx = make_model(), torch.zeros(1, 3, dtype=torch.long)
    for bad in (dict(temperature=-1), dict(top_k=-1), dict(keep=17), dict(keep=-1)):
        with pytest.raises(ValueError):
            model.generate(idx, 5, **bad)
    with pytest.raises(ValueError):
        model.generate(idx[:, :0], 5)
    with pytest.raises(ValueError):
        model.generate(idx.expand(2, -1), 5, num_samples=4)


def test_pick_token():
    logits = torch.tensor([[0.0, 3.0, 1.0, 2.0]]).repeat(4000, 1)
    assert pick_token(logits, 0, None).unique().tolist() == [1]
    assert pick_token(logits, 1.0, 1).unique().tolist() == [1]
    assert sorted(pick_token(logits, 1.0, 2).unique().tolist()) == [1, 3]
    assert sorted(pick_token(logits, 2.0, 99).unique().tolist()) == [0, 1, 2, 3]
    share = (pick_token(logits, 1.0, 0) == 1).float().mean().item()
    assert abs(share - torch.softmax(logits[0], 0)[1].item()) < 0.05


def test_no_token_sees_the_future():
    model, idx = make_model(), torch.randint(37, (2, 12))
    changed = idx.clone()
    changed[:, 8:] = (changed[:, 8:] + 1) % 37
    logits, changed_logits = model(idx, idx)[0], model(changed, idx)[0]
    torch.testing.assert_close(logits[:, :8], changed_logits[:, :8])
    assert not torch.allclose(logits[:, 8:], changed_logits[:, 8:])


@pytest.mark.parametrize('n_layer, n_head, n_embd', [(1, 1, 16), (3, 4, 64), (2, 6, 96)])
def test_logits_equal_hugging_face(n_layer, n_head, n_embd):
    transformers = pytest.importorskip('transformers')
    hf = transformers.GPT2LMHeadModel(transformers.GPT2Config(
        vocab_size=97, n_positions=32, n_embd=n_embd, n_layer=n_layer, n_head=n_head, initializer_range=0.2)).eval()
    model = make_model(block_size=32, vocab_size=97, n_layer=n_layer, n_head=n_head, n_embd=n_embd)
    is_conv1d = ('c_attn.weight', 'c_proj.weight', 'c_fc.weight')   # GPT-2's files hold these transposed
    model.load_state_dict({k: v.T if k.endswith(is_conv1d) else v for k, v in hf.state_dict().items()})
    idx = torch.randint(97, (2, 32))
    with torch.no_grad():
        torch.testing.assert_close(model(idx, idx)[0], hf(idx).logits, rtol=1e-4, atol=1e-4)


def test_untrained_loss_is_that_of_guessing():
    torch.manual_seed(0)
    model = GPT(GPTConfig(block_size=16, vocab_size=145, n_layer=6, n_head=2, n_embd=32))
    idx, targets = torch.randint(145, (2, 64, 16))
    assert abs(model(idx, targets)[1].item() - math.log(145)) < 0.1


def test_targets_of_minus_one_do_not_count():
    model, idx = make_model(), torch.randint(37, (2, 12))
    targets = idx.clone()
    targets[:, 6:] = -1
    torch.testing.assert_close(model(idx, targets)[1], model(idx[:, :6], idx[:, :6])[1])


def test_crop_block_size():
    model, idx = make_model(), torch.randint(37, (2, 8))
    before = model(idx, idx)[0]
    model.crop_block_size(8)
    torch.testing.assert_close(model(idx, idx)[0], before)
    assert model.config.block_size == 8 and model.state_dict()['transformer.wpe.weight'].shape == (8, 32)
    with pytest.raises(ValueError):
        model.crop_block_size(9)


def test_shapes_that_cannot_be():
    for bad, says in ((dict(n_embd=33), 'try n_embd = 32'), (dict(block_size=0), 'block_size is 0'),
                      (dict(dropout=1), 'dropout')):
        with pytest.raises(ValueError, match=says):
            make_model(**bad)


# -----------------------------------------------------------------------------
# optimizers

@pytest.mark.parametrize('optimizer', ['adamw', 'muon'])
@pytest.mark.parametrize('bias', [True, False])
def test_every_parameter_has_exactly_one_optimizer(optimizer, bias):
    model = make_model(bias=bias)
    optimizers = model.configure_optimizers(0.1, 1e-3, (0.9, 0.95), optimizer, muon_lr=2e-3, ns_dtype=torch.float32)
    seen = [p for opt in optimizers for group in opt.param_groups for p in group['params']]
    assert len(seen) == len(set(seen)) and set(seen) == set(model.parameters())
    for opt in optimizers:
        for group in opt.param_groups:
            for p in group['params']:
                assert (group['weight_decay'] == 0) == (p.dim() < 2)   # biases and norms are not decayed
            assert group['lr_scale'] == (2 if isinstance(opt, Muon) else 1)
    names = {p: name for name, p in model.named_parameters()}
    muon = sorted(names[p] for opt in optimizers if isinstance(opt, Muon) for p in opt.param_groups[0]['params'])
    matrices = sorted(f'transformer.h.{i}.{m}.weight' for i in range(3)
                      for m in ('attn.c_attn', 'attn.c_proj', 'mlp.c_fc', 'mlp.c_proj'))
    assert muon == (matrices if optimizer == 'muon' else [])


@pytest.mark.parametrize('shape', [(24, 24), (16, 48), (48, 16)])
def test_muon_steps_as_torchs_does(shape):
    """Our stacked Muon against torch.optim.Muon, one matrix at a time, over several steps."""
    torch.manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(shape)) for _ in range(3)]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    muon = Muon(ours, lr=0.02, weight_decay=0.1)
    reference = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, adjust_lr_fn='match_rms_adamw')
    for _ in range(4):
        for p, q in zip(ours, theirs):
            p.grad = torch.randn(shape)
            q.grad = p.grad.clone()
        muon.step()
        reference.step()
    for p, q in zip(ours, theirs):
        # bfloat16 has 8 bits: products summed in another order differ in the last of them
        torch.testing.assert_close(p, q, rtol=0, atol=0.02 * 0.2 * math.sqrt(max(shape)) * 2e-2)


def test_orthogonalize():
    """Singular values are pushed near 1, singular vectors are kept."""
    G = torch.randn(4, 20, 50)
    S = torch.linalg.svdvals(orthogonalize(G))
    assert 0.6 < S.min() and S.max() < 1.3
    U, _, Vh = torch.linalg.svd(G, full_matrices=False)
    product = U.mT @ orthogonalize(G) @ Vh.mT
    assert (product - torch.diag_embed(product.diagonal(dim1=1, dim2=2))).abs().max() < 1e-3
