"""The model: GPT-2's logits, a cache that changes nothing, optimizers that miss no parameter."""

import math
import shutil

import pytest
import torch
from conftest import REPO, Workspace, make_model, recompute, start_compiler

from model import GPT, Dropout, GPTConfig, attention_in_blocks, pick_token
from muon import Muon


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
    start_compiler()
    model = make_model()
    idx = torch.randint(37, (2, 4))
    plain = model.generate(idx, 40, temperature=0)
    model.forward = torch.compile(model.forward)
    assert torch.equal(model.generate(idx, 40, temperature=0), plain)


def test_the_cache_is_allocated_once(monkeypatch):
    """However long the text and however often the window is refilled."""
    model = make_model()
    made = []
    monkeypatch.setattr(model, 'new_cache', lambda B: made.append(B) or GPT.new_cache(model, B))
    model.generate(torch.zeros(1, 3, dtype=torch.long), 60, num_samples=4)
    assert made == [4]


@pytest.mark.parametrize('p', [0.5, 0.2, 0.1])
def test_dropout(p):
    """On CPU: the rate, the scaling, a fresh mask each call, the same mask in backward."""
    torch.manual_seed(0)
    dropout = Dropout(p)
    rate = round(p * 256) / 256
    x = torch.ones(501, 333, requires_grad=True)   # a size that is no multiple of 8
    y = dropout(x)
    assert set(y.unique().tolist()) == {0.0, torch.tensor(1 / (1 - rate)).item()}
    for part in (y, y[:250], y[:, :100], y.flatten()[7::8], y.flatten()[::8]):   # every byte of an integer serves
        sigma = math.sqrt(rate * (1 - rate) / part.numel())
        assert abs((part == 0).float().mean() - rate) < 4 * sigma
    y.sum().backward()
    assert torch.equal(x.grad, y)
    fresh = dropout(x)
    both = ((y == 0) & (fresh == 0)).float().mean()
    assert abs(both - rate ** 2) < 4 * rate / math.sqrt(y.numel())   # the two masks know nothing of each other
    torch.manual_seed(0)
    assert torch.equal(dropout(x), y)
    assert dropout(x.bfloat16()).dtype == torch.bfloat16
    assert torch.equal(dropout.eval()(x), x) and torch.equal(Dropout(0.0)(x), x)


def test_extreme_dropout():
    torch.manual_seed(0)
    assert 0 < (Dropout(0.001)(torch.ones(10**5)) == 0).sum() < 1000   # 1/256 is the least
    y = Dropout(0.9999)(torch.ones(10**5))
    assert set(y.unique().tolist()) == {0.0, 256.0}   # 255/256 the most


def test_compiled_dropout():
    """Under torch.compile, too: the rate, a fresh mask each call, the same mask in backward."""
    start_compiler()
    dropout = Dropout(0.25)
    compiled = torch.compile(lambda x: dropout(x) * 1.0)
    x = torch.ones(100, 1000, requires_grad=True)
    y = compiled(x)
    assert abs((y == 0).float().mean() - 0.25) < 0.01 and not torch.equal(compiled(x), y)
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], y)


@pytest.mark.parametrize('T', [1, 100, 128, 129, 300])
def test_attention_in_blocks_computes_attention(T):
    """Without dropout, output and gradients are those of scaled_dot_product_attention."""
    torch.manual_seed(0)
    q, k, v, g = torch.randn(4, 2, 3, T, 8)
    results = []
    for attend in (lambda q, k, v: attention_in_blocks(q, k, v, Dropout(0.0)),
                   lambda q, k, v: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)):
        inputs = [h.clone().requires_grad_() for h in (q, k, v)]
        y = attend(*inputs)
        results.append([y, *torch.autograd.grad(y, inputs, g)])
    for ours, theirs in zip(*results):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_attention_in_blocks_drops_weights():
    """With the identity as values the output is the weights: some dropped, the rest scaled up; backward agrees."""
    torch.manual_seed(0)
    T = 200
    q, k = torch.randn(2, 2, 3, T, T)
    v = torch.eye(T).expand(2, 3, T, T).clone().requires_grad_()
    weights = attention_in_blocks(q, k, v, Dropout(0.0)).detach()
    y = attention_in_blocks(q, k, v, Dropout(0.25))
    seen = torch.ones(T, T).tril().bool().expand_as(y)
    assert (y[~seen] == 0).all()
    dropped = (y[seen] == 0).float().mean()
    assert abs(dropped - 0.25) < 4 * math.sqrt(0.25 * 0.75 / seen.sum())
    torch.testing.assert_close(y[y > 0], weights[y > 0] / 0.75)
    g = torch.randn_like(y)
    torch.testing.assert_close(torch.autograd.grad(y, v, g)[0], y.detach().mT @ g)   # the same weights in backward


def test_attention_in_blocks_gradients():
    """Against finite differences, with the same mask each time."""
    def attend(q, k, v):
        torch.manual_seed(0)
        return attention_in_blocks(q, k, v, Dropout(0.3), rows=4)
    inputs = [torch.randn(1, 2, 10, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    assert torch.autograd.gradcheck(attend, inputs)


def test_attention_in_blocks_in_bfloat16():
    """Under autocast, to bfloat16's 8 bits."""
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 3, 50, 16)
    exact = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    with torch.autocast('cpu', torch.bfloat16):
        y = attention_in_blocks(q.bfloat16(), k.bfloat16(), v.bfloat16(), Dropout(0.0))
    torch.testing.assert_close(y.float(), exact, rtol=0.03, atol=0.03)


def test_attention_is_dropped_in_the_model():
    """Attention alone: with every other dropout off, training losses still differ."""
    model = make_model(dropout=0.2).train()
    idx = torch.randint(37, (2, 16))
    for name, module in model.named_modules():
        if isinstance(module, Dropout) and not name.endswith('attn_dropout'):
            module.p = 0.0
    assert torch.stack([model(idx, idx)[1] for _ in range(5)]).std() > 0
    model.generate(idx, 20)   # nothing that anyone should do in training mode, but it works


def test_dropout_works_in_the_whole_model():
    model = make_model(dropout=0.2)
    idx = torch.randint(37, (2, 16))
    plain = make_model()(idx, idx)[1]
    assert torch.equal(model(idx, idx)[1], plain)   # eval
    model.train()
    losses = torch.stack([model(idx, idx)[1] for _ in range(20)])
    assert losses.std() > 0 and losses.isfinite().all()
    losses[0].backward()
    assert all(p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in model.parameters())


def test_flops_per_token():
    """6 N for the parameters, and 12 T C a layer for attention: the training cost of a 124M GPT-2 by hand."""
    config = GPTConfig(block_size=1024, vocab_size=50304, n_layer=12, n_head=12, n_embd=768, bias=False)
    with torch.device('meta'):
        assert GPT(config).flops_per_token() == 6 * (50304 * 768 + 12 * 12 * 768**2 + 25 * 768) + 12 * 12 * 768 * 1024


def test_cached_logits_equal_full_logits():
    model = make_model()
    idx = torch.randint(37, (3, 16))
    cache = model.new_cache(3)
    with torch.no_grad():
        pieces = [model(idx[:, :5], cache=cache)[0]]
        pieces += [model(idx[:, t:t + 1], cache=cache, pos=t)[0] for t in range(5, 16)]
        full = [model(idx[:, :t + 1])[0] for t in range(4, 16)]
    torch.testing.assert_close(torch.cat(pieces), torch.cat(full), rtol=1e-4, atol=1e-4)


def test_only_the_loss_has_a_gradient():
    """A gradient for the logits would be filled and read in vain wherever the model is compiled."""
    idx = torch.randint(37, (1, 3))
    logits, loss = make_model().train()(idx, idx)
    assert loss.requires_grad and not logits.requires_grad


def test_compiled_decoding_is_one_graph():
    """fullgraph=True raises where torch.compile would break it, as at a symbolic position it once did."""
    model = make_model()
    idx = torch.randint(37, (1, 3))
    plain = model.generate(idx, 10, temperature=0, num_samples=2)
    model.forward = torch.compile(model.forward, backend='eager', fullgraph=True)
    assert torch.equal(model.generate(idx, 10, temperature=0, num_samples=2), plain)


def test_samples_of_one_prompt():
    """Reading the prompt once for all samples gives what reading it for each would."""
    model = make_model()
    idx = torch.randint(37, (1, 4))
    torch.manual_seed(1)
    together = model.generate(idx, 30, temperature=1.0, top_k=5, num_samples=6)
    torch.manual_seed(1)
    apart = model.generate(idx.expand(6, -1), 30, temperature=1.0, top_k=5)
    assert torch.equal(together, apart) and len({tuple(row) for row in together.tolist()}) > 1


def test_a_window_of_one_token():
    model = make_model(block_size=1)
    assert model.generate(torch.zeros(2, 1, dtype=torch.long), 5).shape == (2, 6)


def test_generate_refuses_what_it_cannot_do():
    model = make_model()
    idx = torch.zeros(1, 3, dtype=torch.long)
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


def test_pick_token_draws_as_multinomial(monkeypatch):
    logits = torch.randn(1000, 300)
    logits[:, ::3] = -math.inf   # of probability 0
    torch.manual_seed(0)
    expected = torch.multinomial(logits.softmax(dim=-1), num_samples=1).squeeze(1)
    torch.manual_seed(0)
    assert torch.equal(pick_token(logits, 1.0), expected)
    largest, order = logits.topk(50)
    p = largest.softmax(dim=-1)
    p[p.cumsum(dim=-1) - p >= 0.9] = 0
    p = torch.cat([p, torch.zeros(1000, 250)], dim=-1)
    torch.manual_seed(0)
    expected = order.gather(1, torch.multinomial(p, num_samples=1)).squeeze(1)
    torch.manual_seed(0)
    assert torch.equal(pick_token(logits, 1.0, 50, 0.9), expected)
    # Apple's GPUs draw a -0.0 now and then, and 0 / -0 is NaN, which is the greatest there is
    draws = torch.ones(1000, 300)
    draws[:, ::3] = -0.0
    monkeypatch.setattr(torch.Tensor, 'exponential_', lambda self: self.copy_(draws))
    assert torch.equal(pick_token(logits, 1.0), logits.argmax(dim=-1))
    assert torch.equal(pick_token(logits, 1.0, top_p=0.9999), logits.argmax(dim=-1))


def test_stream_and_generate_agree():
    torch.manual_seed(0)
    model = GPT(GPTConfig(8, 37, 1, 2, 16)).eval()
    idx = torch.randint(37, (1, 3))
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


def test_no_token_sees_the_future():
    model = make_model()
    idx = torch.randint(37, (2, 12))
    changed = idx.clone()
    changed[:, 8:] = (changed[:, 8:] + 1) % 37
    logits = model(idx, idx)[0]
    changed_logits = model(changed, idx)[0]
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


@pytest.mark.parametrize('n_embd', [32, 34])
def test_init_positions(n_embd):
    """Sinusoids: neighbours alike, strangers not, all of one length; and only the position embeddings change."""
    model = make_model(n_embd=n_embd)
    before = {name: p.clone() for name, p in model.named_parameters()}
    model.init_positions(amplitude=0.1)
    wpe = model.transformer.wpe.weight.detach()
    torch.testing.assert_close(wpe.norm(dim=1), torch.full((16,), 0.1 * math.sqrt(n_embd / 2)))
    near = (wpe[1:] * wpe[:-1]).sum(1)
    far = (wpe[8:] * wpe[:-8]).sum(1)
    assert near.min() > far.max()
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters() if 'wpe' not in name)


def test_targets_of_minus_one_do_not_count():
    model = make_model()
    idx = torch.randint(37, (2, 12))
    targets = idx.clone()
    targets[:, 6:] = -1
    torch.testing.assert_close(model(idx, targets)[1], model(idx[:, :6], idx[:, :6])[1])


def test_crop_block_size():
    model = make_model()
    idx = torch.randint(37, (2, 8))
    before = model(idx, idx)[0]
    model.crop_block_size(8)
    torch.testing.assert_close(model(idx, idx)[0], before)
    assert model.config.block_size == 8 and model.state_dict()['transformer.wpe.weight'].shape == (8, 32)
    with pytest.raises(ValueError):
        model.crop_block_size(9)


def test_shapes_that_cannot_be():
    for bad, says in ((dict(n_embd=33), 'try n_embd = 32'), (dict(block_size=0), 'block_size = 0 is invalid'),
                      (dict(dropout=1), 'dropout')):
        with pytest.raises(ValueError, match=says):
            make_model(**bad)


# -----------------------------------------------------------------------------
# optimizers

@pytest.mark.parametrize('optimizer', ['adamw', 'muon'])
@pytest.mark.parametrize('bias', [True, False])
def test_every_parameter_has_exactly_one_optimizer(optimizer, bias):
    model = make_model(bias=bias)
    muon = None
    if optimizer == 'muon':
        muon = dict(lr=2e-3, momentum=0.95, ns_dtype='float32')
    optimizers = model.configure_optimizers(0.1, 1e-3, (0.9, 0.95), muon=muon)
    seen = [p for opt in optimizers for group in opt.param_groups for p in group['params']]
    assert len(seen) == len(set(seen)) and set(seen) == set(model.parameters())
    for opt in optimizers:
        for group in opt.param_groups:
            for p in group['params']:
                assert (group['weight_decay'] == 0) == (p.dim() < 2)   # biases and norms are not decayed
            assert group['lr_scale'] == (2 if isinstance(opt, Muon) else 1)
    names = {p: name for name, p in model.named_parameters()}
    in_muon = sorted(names[p] for opt in optimizers if isinstance(opt, Muon) for p in opt.param_groups[0]['params'])
    matrices = sorted(f'transformer.h.{i}.{m}.weight' for i in range(3)
                      for m in ('attn.c_attn', 'attn.c_proj', 'mlp.c_fc', 'mlp.c_proj'))
    assert in_muon == (matrices if optimizer == 'muon' else [])


def test_configure_optimizers_takes_nanogpts_call():
    """Its fourth argument, the type of the device, by position or by name; the optimizer is the same without it."""
    settings = dict(weight_decay=0.1, learning_rate=1e-3, betas=(0.9, 0.95))
    trained = []
    for args, kwargs in ((settings.values(), {}), ([*settings.values(), 'cpu'], {}),
                         ([], dict(settings, device_type='cpu'))):
        model = make_model()
        (opt,) = model.configure_optimizers(*args, **kwargs)
        assert type(opt) is torch.optim.AdamW and opt.defaults['lr'] == 1e-3 and opt.defaults['betas'] == (0.9, 0.95)
        assert [group['weight_decay'] for group in opt.param_groups] == [0.1, 0.0]
        idx = torch.arange(16)[None]
        model(idx, idx)[1].backward()
        opt.step()
        trained.append(torch.nn.utils.parameters_to_vector(model.parameters()))
    assert torch.equal(trained[0], trained[1]) and torch.equal(trained[0], trained[2])


# -----------------------------------------------------------------------------
# the file

ALONE = '''
import sys
import torch
from model import GPT, GPTConfig
model = GPT(GPTConfig(block_size=8, vocab_size=11, n_layer=1, n_head=2, n_embd=16, dropout=0.1))
muon = dict(lr=1e-3, momentum=0.9, ns_dtype='float32')
optimizers = model.configure_optimizers(0.1, 1e-3, (0.9, 0.95), muon=muon)
idx = torch.randint(11, (2, 8))
_, loss = model(idx, idx)
loss.backward()
for opt in optimizers:
    opt.step()
print(list(model.eval().generate(idx[:1], 20).shape), len(optimizers), 'support' in sys.modules)
'''


def test_model_and_muon_work_without_the_rest(tmp_path):
    """Copied into an empty folder, they are a GPT that trains and writes."""
    for name in ('model.py', 'muon.py'):
        shutil.copy(REPO / name, tmp_path)
    assert Workspace(tmp_path).run('-c', ALONE, real=True) == '[1, 28] 2 False\n'
