"""
The GPT, all of it: configuration, blocks, key/value cache, generation, optimizers.

A GPT-2 (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"): a stack of blocks, each
attention then MLP, both behind a LayerNorm and added to the residual stream. Read from top to bottom.

Dimensions: B batch, T time (position in the text), C channels (n_embd), V vocabulary, nh heads, hs head size.
"""

import math
import platform
from dataclasses import dataclass

import torch
import torch.nn as nn
from torch.nn import functional as F


@dataclass
class GPTConfig:
    """The seven numbers that fix a model's shape. Raises ValueError for a shape that cannot be built."""
    block_size: int = 1024    # longest context, in tokens
    vocab_size: int = 50304   # GPT-2's 50257, padded to a multiple of 64: matrix products like it
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    dropout: float = 0.0
    bias: bool = True         # biases in Linear and LayerNorm, as GPT-2 has; without them a little better and faster

    def __post_init__(self):
        for name in ('block_size', 'vocab_size', 'n_layer', 'n_head', 'n_embd'):
            if getattr(self, name) < 1:
                raise ValueError(f'{name} is {getattr(self, name)}; it must be at least 1')
        if self.n_embd % self.n_head:
            raise ValueError(f'n_embd = {self.n_embd} cannot be split over n_head = {self.n_head} heads; '
                             f'try n_embd = {max(1, round(self.n_embd / self.n_head)) * self.n_head}')
        if not 0 <= self.dropout < 1:
            raise ValueError(f'dropout is {self.dropout}; it must be at least 0 and below 1')


class Dropout(nn.Dropout):
    """nn.Dropout, with a cheap mask on CPU, where random numbers come one after the other from one core: torch draws
    one for each element, here one of 64 bits serves eight, a byte each. p is rounded to a multiple of 1/256, not 0."""

    def forward(self, x):
        if not self.training or self.p == 0 or x.device.type != 'cpu':
            return super().forward(x)
        threshold = min(max(1, round(self.p * 256)), 255)
        draws = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-2**63, None)   # all 64 bits of each
        keep = draws.view(torch.uint8)[:x.numel()].view(x.shape) >= threshold
        return x * (keep.to(x.dtype) * (256 / (256 - threshold)))


def attention_with_dropout(q, k, v, dropout, rows=128):
    """softmax(q k' / sqrt(hs)) v, causal, with dropout (a module) on the weights; q, k, v and result (B, nh, T, hs).
    For CPU, where scaled_dot_product_attention falls back on a slow path for dropout. Taking some rows of the weights
    at a time leaves out most of their masked half, and what is left stays in the processor's cache."""
    B, nh, T, hs = q.shape
    q, k, v = (h.reshape(B * nh, T, hs) for h in (q / math.sqrt(hs), k, v))
    future = q.new_full((T, T), -math.inf).triu(1)
    y = []
    for a in range(0, T, rows):
        b = min(a + rows, T)
        scores = torch.baddbmm(future[a:b, :b], q[:, a:b], k[:, :b].mT)   # (B * nh, b - a, b)
        y.append(dropout(scores.softmax(dim=-1)) @ v[:, :b])
    return torch.cat(y, dim=1).view(B, nh, T, hs)


class CausalSelfAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.n_head = config.n_head
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)  # query, key, value in one product
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.attn_dropout = Dropout(config.dropout)
        self.resid_dropout = Dropout(config.dropout)

    def forward(self, x, cache=None, pos=0):
        """x (B, T, C) -> (B, T, C). cache, this layer's part of new_cache(B'), receives the keys and values of
        positions pos .. pos+T-1; from pos = 0 the T tokens see each other, later a single token sees all before it."""
        B, T, C = x.shape
        assert pos == 0 or T == 1   # several tokens in mid-text would need a mask of their own
        qkv = self.c_attn(x).view(B, T, 3, self.n_head, C // self.n_head).permute(2, 0, 3, 1, 4)   # (3, B, nh, T, hs)
        q, k, v = qkv
        if cache is not None:
            cache[:, :, :, pos:pos + T] = qkv[1:]   # B = 1 broadcasts: one prompt fills the cache of every sample
            if pos > 0:
                k, v = cache[:, :, :, :pos + T]
        p = self.attn_dropout.p if self.training else 0
        if p > 0 and pos == 0 and x.device.type == 'cpu':
            y = attention_with_dropout(q, k, v, self.attn_dropout)
        else:   # is_causal must be a plain bool, and for torch.compile pos == 0 may be a symbol
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True if pos == 0 else False, dropout_p=p)
        y = y.transpose(1, 2).reshape(B, T, C)   # heads side by side again
        return self.resid_dropout(self.c_proj(y))


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.gelu = nn.GELU(approximate='tanh')   # GPT-2's, so that its weights give its logits
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.bias)
        self.dropout = Dropout(config.dropout)

    def forward(self, x):
        return self.dropout(self.c_proj(self.gelu(self.c_fc(x))))


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.attn = CausalSelfAttention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.mlp = MLP(config)

    def forward(self, x, cache=None, pos=0):
        x = x + self.attn(self.ln_1(x), cache, pos)   # tokens look at each other
        return x + self.mlp(self.ln_2(x))             # each token thinks by itself


class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.transformer = nn.ModuleDict(dict(
            wte=nn.Embedding(config.vocab_size, config.n_embd),
            wpe=nn.Embedding(config.block_size, config.n_embd),
            drop=Dropout(config.dropout),
            h=nn.ModuleList([Block(config) for _ in range(config.n_layer)]),
            ln_f=nn.LayerNorm(config.n_embd, bias=config.bias),
        ))
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.transformer.wte.weight = self.lm_head.weight   # tied: https://arxiv.org/abs/1608.05859

        # GPT-2's initialisation: 0.02 everywhere, less where 2 * n_layer branches add up on the residual stream
        for name, param in self.named_parameters():
            if name.endswith('c_proj.weight'):
                nn.init.normal_(param, std=0.02 / math.sqrt(2 * config.n_layer))
            elif param.dim() == 2:
                nn.init.normal_(param, std=0.02)
            elif name.endswith('bias'):
                nn.init.zeros_(param)

    @torch.no_grad()
    def init_positions(self, amplitude=0.1, base=300.0):
        """Start the position embeddings from the sinusoids of https://arxiv.org/abs/1706.03762, instead of noise. They
        are learned from there on as ever, but that two places are near each other need not be learned first: on a short
        run attention wakes up sooner. (The amplitude and the base are tuned for runs of minutes on characters.)"""
        T, C = self.transformer.wpe.weight.shape
        phase = torch.arange(T)[:, None] * base ** (-torch.arange(0, C, 2) / C)   # (T, C / 2)
        self.transformer.wpe.weight.copy_(amplitude * torch.cat([phase.sin(), phase.cos()], dim=1)[:, :C])

    def get_num_params(self, non_embedding=True):
        """Number of parameters; of the embeddings those of tokens always count, since the output layer shares them."""
        n_params = sum(p.numel() for p in self.parameters())
        return n_params - self.transformer.wpe.weight.numel() if non_embedding else n_params

    def flops_per_token(self):
        """Floating-point operations that training spends on one token: 6 for each parameter, and attention's products.
        As in appendix B of PaLM (https://arxiv.org/abs/2204.02311), which does not discount the causal mask."""
        c = self.config
        return 6 * self.get_num_params() + 12 * c.n_layer * c.n_embd * c.block_size

    def forward(self, idx, targets=None, cache=None, pos=0):
        """idx (B, T) token ids; targets (B, T), -1 where there is none. Returns (logits, loss): with targets, logits
        (B, T, V), without a gradient, and the mean cross-entropy in nats; without, logits (B, 1, V) of the last
        position and None. cache (from new_cache) and pos: see CausalSelfAttention.forward."""
        B, T = idx.shape
        if pos + T > self.config.block_size:
            raise ValueError(f'{pos + T} tokens do not fit in block_size = {self.config.block_size}')
        x = self.transformer.drop(self.transformer.wte(idx) + self.transformer.wpe.weight[pos:pos + T])   # (B, T, C)
        for i, block in enumerate(self.transformer.h):
            x = block(x, None if cache is None else cache[i], pos)
        x = self.transformer.ln_f(x)
        if targets is None:
            return self.lm_head(x[:, -1:]), None   # sampling needs the last position only
        logits = self.lm_head(x)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)
        return logits.detach(), loss   # detached: compiled, the backward pass would fill a gradient of its size with 0

    def pick_piece_size(self, batch_size):
        """How many texts of a batch to put through the model at once in training: on CPU 2048 tokens, which its caches
        hold; on MPS 16384: on M1 and M2 products that sum over 32767 tokens or more go wrong (pytorch issue 195163)."""
        tokens = {'cpu': 2048, 'mps': 16384}.get(self.lm_head.weight.device.type)
        return max(1, tokens // self.config.block_size) if tokens else batch_size

    def crop_block_size(self, block_size):
        """Shorten the context, e.g. to finetune GPT-2's 1024 at 256. Raises ValueError if that would lengthen it."""
        if not 1 <= block_size <= self.config.block_size:
            raise ValueError(f'block_size = {block_size} is not between 1 and the model\'s {self.config.block_size}')
        self.config.block_size = block_size
        self.transformer.wpe.weight = nn.Parameter(self.transformer.wpe.weight[:block_size].detach().clone())
        self.transformer.wpe.num_embeddings = block_size

    @classmethod
    def from_pretrained(cls, name, dropout=0.0):
        """A GPT with the weights of a GPT-2: a Hub id such as 'gpt2-xl', or a folder that transformers reads; export.py
        writes one. Raises ValueError for another architecture, OSError for what cannot be found."""
        from transformers import AutoConfig, GPT2LMHeadModel
        c = AutoConfig.from_pretrained(name)
        if c.model_type != 'gpt2':
            raise ValueError(f'it is a model of the kind {c.model_type}, not a GPT-2')
        gpt2s = dict(activation_function='gelu_new', n_inner=c.n_inner and 4 * c.n_embd, layer_norm_epsilon=1e-5,
                     scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False, tie_word_embeddings=True)
        for key, value in gpt2s.items():
            if getattr(c, key) != value:
                raise ValueError(f'it is a variant of GPT-2: its {key} is {getattr(c, key)}, not {value}')
        model = cls(GPTConfig(c.n_positions, c.vocab_size, c.n_layer, c.n_head, c.n_embd, dropout, bias=True))
        weights = GPT2LMHeadModel.from_pretrained(name, dtype=torch.float32).state_dict()
        for key, weight in model.state_dict().items():
            is_conv1d = key.endswith(('c_attn.weight', 'c_fc.weight', 'c_proj.weight'))   # (in, out) there
            weight.copy_(weights[key].T if is_conv1d else weights[key])
        return model

    # generation
    def new_cache(self, B):
        """Room for the keys and values of B texts, a (2, B, nh, block_size, hs) tensor for each layer, allocated once;
        torch.compile on CPU got them wrong as slices of one tensor. Under autocast they have its lower precision."""
        c, weight = self.config, self.transformer.wte.weight
        kind = weight.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        shape = (2, B, c.n_head, c.block_size, c.n_embd // c.n_head)
        return [torch.empty(shape, dtype=dtype, device=weight.device) for _ in range(c.n_layer)]

    @torch.no_grad()
    def stream(self, idx, max_new_tokens, temperature=1.0, top_k=None, num_samples=None, keep=None, top_p=1.0):
        """Continue idx (B, T) by max_new_tokens, yielding the next token of every text, (n,), step by step.

        temperature 0 is greedy; top_k 0 (or None) and top_p 1 draw from the whole vocabulary. num_samples continues
        one prompt (B = 1) n times at the cost of reading it once; without it n is B.
        While the text fits in block_size the cached keys and values give the tokens that full recomputation would.
        Learned positions cannot slide, so when the window is full the cache is filled anew from the newest `keep`
        tokens (default: half the window). keep = block_size recomputes the window for every token, as nanoGPT does.
        Raises ValueError for an argument that is out of range.
        """
        B, T = idx.shape
        n, window = num_samples or B, self.config.block_size
        keep = keep or max(1, window // 2)
        if T < 1:
            raise ValueError('the prompt is empty; give at least one token')
        if temperature < 0 or (top_k or 0) < 0 or not 0 < top_p <= 1:
            raise ValueError(f'temperature {temperature} or top_k {top_k} is below 0, or top_p {top_p} not in (0, 1]')
        if not 1 <= keep <= window:
            raise ValueError(f"keep = {keep} is not between 1 and the model's block_size = {window}")
        if B not in (1, n):
            raise ValueError(f'num_samples = {n} needs one prompt to start from, not {B}')
        text = torch.empty(n, T + max_new_tokens, dtype=torch.long, device=idx.device)
        text[:, :T] = idx
        cache, pos = None, window   # pos of the next token in the window; full, so that the first step reads the prompt
        for t in range(T, T + max_new_tokens):
            if pos == window:
                context = idx[:, -window:] if t == T else text[:, t - keep:t]
                cache = self.new_cache(n) if cache is None else cache
                logits, pos = self(context, cache=cache)[0], context.size(1)
            else:
                logits, pos = self(text[:, t - 1:t], cache=cache, pos=pos)[0], pos + 1
            text[:, t] = pick_token(logits[:, -1].float().expand(n, -1), temperature, top_k, top_p)
            yield text[:, t]

    def generate(self, idx, max_new_tokens, temperature=1.0, top_k=None, num_samples=None, **settings):
        """What stream yields, with its settings, after idx (B, T): whole texts (n, T + max_new_tokens)."""
        new = [ids[:, None] for ids in self.stream(idx, max_new_tokens, temperature, top_k, num_samples, **settings)]
        return torch.cat([idx.expand(num_samples or len(idx), -1), *new], dim=1)

    def pack_weights(self):
        """For sampling on CPU: hold the matrices in float16 (see PackedLinear). The model can no longer be trained."""
        for parent in list(self.modules()):
            for name, child in parent.named_children():
                if isinstance(child, nn.Linear):
                    setattr(parent, name, PackedLinear(child))

    # optimizers
    def configure_optimizers(self, weight_decay, learning_rate, betas, optimizer='adamw', muon_lr=None,
                             muon_momentum=0.95, ns_dtype='bfloat16', is_compiled=False, is_sharded=False):
        """The optimizers, a list that the training loop steps; every parameter is in exactly one group of one.

        'adamw' (Loshchilov & Hutter 2019) decays matrices and embeddings, not biases and norm weights. 'muon' gives the
        matrices inside the blocks to Muon at the rate muon_lr, and leaves embeddings, norms and biases to AdamW.
        Each group's 'lr_scale' is its peak rate over learning_rate: the schedule multiplies by it. is_sharded: each
        process of torch.distributed holds a part of the state (https://arxiv.org/abs/1910.02054, stage 1).
        """
        def make(kind, params, **settings):
            if is_sharded:
                from torch.distributed.optim import ZeroRedundancyOptimizer   # slow to import
                return ZeroRedundancyOptimizer(params, kind, **settings)
            return kind(params, **settings)

        if optimizer not in ('adamw', 'muon'):
            raise ValueError(f"optimizer is {optimizer!r}; it must be 'adamw' or 'muon'")
        params = [(p, optimizer == 'muon' and p.dim() == 2 and '.h.' in name)
                  for name, p in self.named_parameters() if p.requires_grad]
        muon, rest = ([p for p, is_muon in params if is_muon == wanted] for wanted in (True, False))
        groups = [{'params': [p for p in rest if p.dim() >= 2], 'weight_decay': weight_decay},
                  {'params': [p for p in rest if p.dim() < 2], 'weight_decay': 0.0}]
        # fused: one kernel for the whole step instead of several for each parameter
        optimizers = [make(torch.optim.AdamW, groups, lr=learning_rate, betas=betas, fused=True)]
        if muon:
            optimizers.append(make(Muon, muon, lr=muon_lr, weight_decay=weight_decay, momentum=muon_momentum,
                                   ns_dtype=ns_dtype, is_compiled=is_compiled))
        for opt in optimizers:
            for group in opt.param_groups:
                group['lr_scale'] = group['lr'] / learning_rate
        return optimizers


class PackedLinear(nn.Module):
    """nn.Linear whose weights are float16 and whose arithmetic is float32. Writing one token means reading every weight
    once, so half the bytes is up to twice the speed."""

    @staticmethod
    def is_available():
        """It needs FBGEMM, a part of torch's builds that is sound on x86 processors only."""
        return platform.machine() in ('x86_64', 'AMD64') and 'fbgemm' in torch.backends.quantized.supported_engines

    def __init__(self, linear):
        super().__init__()
        self.weight = torch.ops.quantized.linear_prepack_fp16(linear.weight.detach(), linear.bias)

    def forward(self, x):
        return torch.ops.quantized.linear_dynamic_fp16(x, self.weight)


def pick_token(logits, temperature, top_k=None, top_p=1.0):
    """logits (B, V) -> token ids (B,): the likeliest at temperature 0, else drawn from the top_k likeliest, and of
    these from the fewest that hold top_p of the probability (https://arxiv.org/abs/1904.09751)."""
    if temperature < 1e-30:   # a division by much less, the least of float32, is NaN
        return logits.argmax(dim=-1)
    logits = (logits - logits.max(dim=-1, keepdim=True).values) / temperature   # at most 0: nothing overflows
    if top_k and top_k < logits.size(-1):
        logits = logits.masked_fill(logits < logits.topk(top_k).values[:, -1:], -math.inf)
    p = F.softmax(logits, dim=-1)
    if top_p < 1:
        p, order = p.sort(descending=True)
        p = p.masked_fill(p.cumsum(dim=-1) - p >= top_p, 0.0)   # where those before it hold top_p already
    # torch.multinomial's way, which on MPS waits and, where a draw is 0, takes what has p = 0 (pytorch issue 192577)
    drawn = (p / torch.empty_like(p).exponential_().add_(1e-30)).argmax(dim=-1)
    return order.gather(1, drawn[:, None]).squeeze(1) if top_p < 1 else drawn


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal, for matrices of hidden layers: https://kellerjordan.github.io/posts/muon

    A step equals torch.optim.Muon's with adjust_lr_fn='match_rms_adamw' (updates as large as AdamW's, so its rates and
    weight decay carry over: https://arxiv.org/abs/2502.16982). Three differences buy speed: matrices of one shape are
    stacked and go through each product together; ns_dtype is a choice, because bfloat16, torch's only one, is a
    hundredfold slower than float32 on processors that lack it; and see orthogonalize.
    """

    def __init__(self, params, lr, weight_decay=0.1, momentum=0.95, ns_dtype='bfloat16', is_compiled=False):
        if not 0 <= momentum < 1:
            raise ValueError(f"Muon's momentum is {momentum}; it must be at least 0 and below 1")
        super().__init__(params, dict(lr=lr, weight_decay=weight_decay, momentum=momentum))
        self.ns_dtype = getattr(torch, ns_dtype)
        self.orthogonalize = torch.compile(orthogonalize, dynamic=False) if is_compiled else orthogonalize

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            by_shape = {}
            for p in group['params']:
                if p.grad is not None:
                    by_shape.setdefault(p.shape, []).append(p)
            for shape, params in by_shape.items():
                grads = torch.stack([p.grad for p in params])   # (N, rows, columns)
                for p in params:
                    if 'momentum_buffer' not in self.state[p]:
                        self.state[p]['momentum_buffer'] = torch.zeros_like(p)
                buffers = [self.state[p]['momentum_buffer'] for p in params]
                torch._foreach_lerp_(buffers, list(grads), 1 - group['momentum'])
                grads.lerp_(torch.stack(buffers), group['momentum'])   # Nesterov: look one step ahead
                updates = self.orthogonalize(grads.to(self.ns_dtype)).to(params[0].dtype)
                torch._foreach_mul_(params, 1 - group['lr'] * group['weight_decay'])
                torch._foreach_add_(params, list(updates), alpha=-group['lr'] * 0.2 * math.sqrt(max(shape)))


def orthogonalize(G, steps=5, eps=1e-7):
    """Push the singular values of each matrix of G (N, rows, columns) towards 1 by the quintic Newton-Schulz iteration
    of Muon, whose coefficients make small ones grow fastest. Needs products only, so it runs on matrix units."""
    a, b, c = 3.4445, -4.7750, 2.0315
    is_tall = G.size(1) > G.size(2)
    X = G.mT if is_tall else G   # (N, n, m), n <= m
    X = X / X.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    if X.device.type == 'cpu' and X.dtype == torch.float32 and X.size(2) >= 2 * X.size(1):
        # each step is X <- P X with P = a I + b A + c A A and A = X X', and A <- P A P: steps on (n, n) matrices alone,
        # and one product with the long X at the end, are faster; they need all of float32's digits
        A, Q = X @ X.mT, None
        for step in range(steps):
            P = torch.baddbmm(A, A, A, beta=b, alpha=c)
            P.diagonal(dim1=1, dim2=2).add_(a)
            Q = P if step == 0 else P @ Q
            A = P @ A @ P if step < steps - 1 else None
        X = Q @ X
    else:
        for _ in range(steps):
            A = X @ X.mT
            X = torch.baddbmm(X, torch.baddbmm(A, A, A, beta=b, alpha=c), X, beta=a)
    return X.mT.contiguous() if is_tall else X   # contiguous: foreach functions are slow at other layouts
