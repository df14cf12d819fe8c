"""
A GPT, all of it: the network, and below it what else a GPT needs: optimizers, loading GPT-2, generation.

It is GPT-2 (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"):

    idx (B, T)                             token ids
     |   wte[idx] + wpe[0 .. T-1]          an embedding for each token, and one for each position
    x (B, T, C)                            the residual stream
     |   x = x + attention(LayerNorm(x))   each position looks at itself and those before   | n_layer
     |   x = x + MLP(LayerNorm(x))         each position by itself                          | blocks
     |   lm_head(LayerNorm(x))             the same matrix as wte
    logits (B, T, V)                       at each position, how likely is each token to come next

Shapes: B batch (sequences), T sequence length, C channels (n_embd), V vocabulary, nh heads, hs head size (C / nh), and
n samples in generation.

The names are GPT-2's, so that its weights load by name: wte and wpe are the embeddings of tokens and positions, h the
blocks, ln_1, ln_2 and ln_f the LayerNorms; the c_ of c_attn, c_proj and c_fc is for Conv1D, GPT-2's linear layer.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn as nn
from torch.nn import functional as F

from muon import Muon   # an optimizer; see configure_optimizers


@dataclass
class GPTConfig:
    """What a model is built from; the shape is by default that of GPT-2 (124M). Raises ValueError for a shape that
    cannot be built."""
    block_size: int = 1024    # the longest sequence, in tokens
    vocab_size: int = 50304   # GPT-2's 50257 tokens, padded to a multiple of 64, for which matmuls are faster
    n_layer: int = 12         # blocks
    n_head: int = 12          # attention heads in each
    n_embd: int = 768         # channels: the width of the residual stream
    dropout: float = 0.0      # the share of activations that are set to 0 in training
    bias: bool = True         # biases in Linear and LayerNorm, as GPT-2 has; False: a little better and faster

    def __post_init__(self):
        for name in ('block_size', 'vocab_size', 'n_layer', 'n_head', 'n_embd'):
            if getattr(self, name) < 1:
                raise ValueError(f'{name} = {getattr(self, name)} is invalid: it must be at least 1')
        if self.n_embd % self.n_head:
            nearest = max(1, round(self.n_embd / self.n_head)) * self.n_head
            raise ValueError(f'n_embd = {self.n_embd} cannot be split over n_head = {self.n_head} heads; '
                             f'try n_embd = {nearest}')
        if not 0 <= self.dropout < 1:
            raise ValueError(f'dropout = {self.dropout} is invalid: it must be at least 0 and below 1')


class CausalSelfAttention(nn.Module):
    """Multi-head causal self-attention: each position takes a weighted mean of the values at its own and at earlier
    positions. The weights say how well its query matches their keys; each head has its own."""

    def __init__(self, config):
        super().__init__()
        self.n_head = config.n_head
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)   # query, key, value in one matmul
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)       # mixes what the heads found
        self.attn_dropout = Dropout(config.dropout)   # nn.Dropout, but faster on a CPU: see the end of this file
        self.resid_dropout = Dropout(config.dropout)

    def forward(self, x, cache=None):
        """x (B, T, C) -> (B, T, C). cache, for generation only, is filled with the keys and values of x: see
        GPT.new_cache."""
        B, T, C = x.shape
        nh = self.n_head
        hs = C // nh
        q, k, v = self.c_attn(x).split(C, dim=2)     # (B, T, C) each
        q = q.view(B, T, nh, hs).transpose(1, 2)     # (B, nh, T, hs)
        k = k.view(B, T, nh, hs).transpose(1, 2)     # (B, nh, T, hs)
        v = v.view(B, T, nh, hs).transpose(1, 2)     # (B, nh, T, hs)
        if cache is not None:
            cache[0, :, :, :T] = k   # if B = 1, for all n sequences
            cache[1, :, :, :T] = v

        # the calls below compute, without dropout:
        #     future = torch.full((T, T), -math.inf).triu(1)                        # no position may look ahead
        #     y = (q @ k.mT / math.sqrt(hs) + future).softmax(dim=-1) @ v           # (B, nh, T, T) @ (B, nh, T, hs)
        p = self.attn_dropout.p if self.training else 0.0
        if x.device.type == 'cpu' and (p > 0 or q.dtype == torch.bfloat16):
            y = attention_in_blocks(q, k, v, self.attn_dropout)   # faster there: see the end of this file
        else:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=p)

        y = y.transpose(1, 2).reshape(B, T, C)       # the heads side by side again
        return self.resid_dropout(self.c_proj(y))


class MLP(nn.Module):
    """A feed-forward network, applied to each position by itself; its hidden layer has 4C channels."""

    def __init__(self, config):
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.gelu = nn.GELU(approximate='tanh')   # the approximation that GPT-2 was trained with
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.bias)
        self.dropout = Dropout(config.dropout)

    def forward(self, x):
        x = self.c_fc(x)     # (B, T, 4C)
        x = self.gelu(x)
        x = self.c_proj(x)   # (B, T, C)
        return self.dropout(x)


class Block(nn.Module):
    """Attention, then MLP. Each reads the residual stream x through a LayerNorm (pre-norm), and adds to it."""

    def __init__(self, config):
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.attn = CausalSelfAttention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.mlp = MLP(config)

    def forward(self, x, cache=None):
        x = x + self.attn(self.ln_1(x), cache)
        x = x + self.mlp(self.ln_2(x))
        return x


class GPT(nn.Module):
    """Embeddings, n_layer blocks, a last LayerNorm, and a linear layer that gives the logits."""

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
        self.transformer.wte.weight = self.lm_head.weight   # one matrix for both: https://arxiv.org/abs/1608.05859

        # initialisation: std 0.02, and less for the c_proj layers, which add to the residual stream 2 * n_layer times;
        # LayerNorm weights stay 1
        for name, param in self.named_parameters():
            if name.endswith('c_proj.weight'):
                nn.init.normal_(param, std=0.02 / math.sqrt(2 * config.n_layer))
            elif param.dim() == 2:
                nn.init.normal_(param, std=0.02)
            elif name.endswith('bias'):
                nn.init.zeros_(param)

    def forward(self, idx, targets=None, cache=None, pos=0):
        """Predict what comes after each position of idx (B, T). Returns (logits, loss).

        For training and evaluation, targets (B, T) are the ids that do come next, or -1 where none counts: returns
        logits (B, T, V), without a gradient, and the mean cross-entropy in nats per token. For generation, without
        targets: returns the logits (B, 1, V) of the last position, and None; with a cache (see new_cache), idx is
        either a whole sequence (pos = 0), whose keys and values fill the cache, or the newest token of each sequence
        (T = 1), at position pos. Raises ValueError if the sequences are longer than block_size.
        """
        B, T = idx.shape
        if pos + T > self.config.block_size:
            raise ValueError(f'{pos + T} tokens do not fit in block_size = {self.config.block_size}')
        if pos > 0:
            assert T == 1   # several positions in mid-sequence would need a mask of their own
            return self.decode(idx, cache, pos), None

        tok_emb = self.transformer.wte(idx)            # (B, T, C)
        pos_emb = self.transformer.wpe.weight[:T]      # (T, C)
        x = self.transformer.drop(tok_emb + pos_emb)
        for i, block in enumerate(self.transformer.h):
            layer_cache = None if cache is None else cache[i]
            x = block(x, layer_cache)
        x = self.transformer.ln_f(x)

        if targets is None:
            return self.lm_head(x[:, -1:]), None   # generation needs the last position only
        logits = self.lm_head(x)                             # (B, T, V)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)
        return logits.detach(), loss   # detached: torch.compile's backward would make (B, T, V) zeros, their gradient

    # -------------------------------------------------------------------------
    # The network ends here. What follows: counting, other starts and lengths, optimizers, loading GPT-2, generation.

    def get_num_params(self, non_embedding=True):
        """The number of parameters; by default without the position embeddings. (The token embeddings count: they are
        the output layer, too.)"""
        n_params = sum(p.numel() for p in self.parameters())
        if non_embedding:
            n_params -= self.transformer.wpe.weight.numel()
        return n_params

    def flops_per_token(self):
        """Floating-point operations that training takes per token: for each parameter 2 forward and 4 backward, and
        attention's matmuls. As in appendix B of PaLM (https://arxiv.org/abs/2204.02311), which counts the masked
        positions, too."""
        c = self.config
        return 6 * self.get_num_params() + 12 * c.n_layer * c.n_embd * c.block_size

    @torch.no_grad()
    def init_positions(self, amplitude=0.1, base=300.0):
        """Start the position embeddings as sinusoids (https://arxiv.org/abs/1706.03762) instead of noise. They are
        learned as before, but know from the start which positions are close, so in short runs attention works sooner.
        amplitude and base were tuned on characters, for runs of minutes."""
        block_size, C = self.transformer.wpe.weight.shape
        phase = torch.arange(block_size)[:, None] * base ** (-torch.arange(0, C, 2) / C)   # (block_size, ceil(C / 2))
        sinusoids = torch.cat([phase.sin(), phase.cos()], dim=1)[:, :C]                    # one too many for an odd C
        self.transformer.wpe.weight.copy_(amplitude * sinusoids)

    def crop_block_size(self, block_size):
        """Shorten the longest sequence, e.g. from GPT-2's 1024 to 256. Call it before configure_optimizers: optimizers
        made earlier would keep the old wpe. Raises ValueError unless 1 <= block_size <= the model's own."""
        if not 1 <= block_size <= self.config.block_size:
            raise ValueError(f"block_size = {block_size} is not between 1 and the model's {self.config.block_size}")
        self.config.block_size = block_size
        self.transformer.wpe.weight = nn.Parameter(self.transformer.wpe.weight[:block_size].detach().clone())
        self.transformer.wpe.num_embeddings = block_size

    def configure_optimizers(self, weight_decay, learning_rate, betas, device_type=None, muon=None):
        """A list of optimizers: [AdamW] (Loshchilov & Hutter 2019), or [AdamW, Muon].

        With muon, a dict of Muon's lr, momentum and ns_dtype (see muon.py), the matrices inside the blocks go to Muon.
        AdamW has all the other parameters. Biases and LayerNorm weights are not decayed. Each param group gets an
        'lr_scale', its own peak learning rate divided by learning_rate: one schedule, times lr_scale, serves all.
        device_type is nanoGPT's, and not needed here.
        """
        matrices = []      # Muon's
        decayed = []       # AdamW's
        not_decayed = []   # AdamW's
        for name, param in self.named_parameters():
            if muon is not None and param.dim() == 2 and '.h.' in name:
                matrices.append(param)
            elif param.dim() >= 2:
                decayed.append(param)
            else:
                not_decayed.append(param)
        groups = [
            {'params': decayed, 'weight_decay': weight_decay},
            {'params': not_decayed, 'weight_decay': 0.0},
        ]
        # fused: all the arithmetic of a step in one pass over the parameters
        optimizers = [torch.optim.AdamW(groups, lr=learning_rate, betas=betas, fused=True)]
        if muon is not None:
            optimizers.append(Muon(matrices, weight_decay=weight_decay, **muon))
        for opt in optimizers:
            for group in opt.param_groups:
                group['lr_scale'] = group['lr'] / learning_rate
        return optimizers

    # -------------------------------------------------------------------------
    # loading GPT-2

    @classmethod
    def from_pretrained(cls, name, dropout=0.0):
        """A GPT with the weights of a GPT-2: a Hugging Face Hub id such as 'gpt2-xl', or a folder that transformers
        reads; code that comes along is not run. Raises ValueError for another architecture or missing weights, OSError
        for what cannot be found; messages begin with 'it', for the caller to put the name before."""
        from transformers import GPT2LMHeadModel
        config = pretrained_config(name, dropout)
        hf, info = GPT2LMHeadModel.from_pretrained(name, dtype=torch.float32, trust_remote_code=False,
                                                   output_loading_info=True)
        if info['missing_keys']:   # transformers would go on, with random numbers
            raise ValueError(f"it lacks the weights {', '.join(sorted(info['missing_keys'])[:3])}")
        model = cls(config)
        weights = hf.state_dict()
        for key, weight in model.state_dict().items():
            if key.endswith(('c_attn.weight', 'c_fc.weight', 'c_proj.weight')):
                weight.copy_(weights[key].T)   # Conv1D's are (in, out), Linear's (out, in)
            else:
                weight.copy_(weights[key])
        return model

    # -------------------------------------------------------------------------
    # generation

    def new_cache(self, B):
        """Room for the keys and values of B sequences: for each layer a tensor (2, B, nh, block_size, hs)."""
        c = self.config
        weight = self.transformer.wte.weight
        dtype = weight.dtype
        if torch.is_autocast_enabled(weight.device.type):
            dtype = torch.get_autocast_dtype(weight.device.type)   # which c_attn's output has, too
        shape = (2, B, c.n_head, c.block_size, c.n_embd // c.n_head)
        # not slices of one tensor: torch.compile on a CPU wrote those wrong
        return [torch.empty(shape, dtype=dtype, device=weight.device) for _ in range(c.n_layer)]

    def decode(self, idx, cache, pos):
        """The logits (B, 1, V) that follow the newest token of each sequence, idx (B, 1), which stands at position pos;
        the cache has the keys and values of those before, and gets its own. The arithmetic is forward's, for one
        position, to which nothing is masked. It is written out since calls are what costs here: through Block's,
        CausalSelfAttention's and MLP's forward a token of a small model took up to 1.6 times as long."""
        B = idx.size(0)
        nh = self.config.n_head
        x = self.transformer.wte(idx[:, 0]) + self.transformer.wpe.weight[pos]   # (B, C)
        for block, layer_cache in zip(self.transformer.h, cache):
            qkv = block.attn.c_attn(block.ln_1(x)).view(B, 3, nh, 1, -1)
            layer_cache[:, :, :, pos:pos + 1] = qkv[:, 1:].transpose(0, 1)       # (2, B, nh, 1, hs)
            k, v = layer_cache[:, :, :, :pos + 1].unbind(0)                      # (B, nh, pos + 1, hs) each
            y = F.scaled_dot_product_attention(qkv[:, 0], k, v)                  # (B, nh, 1, hs)
            x = x + block.attn.c_proj(y.view(B, -1))
            x = x + block.mlp.c_proj(block.mlp.gelu(block.mlp.c_fc(block.ln_2(x))))
        return self.lm_head(self.transformer.ln_f(x))[:, None]

    @torch.no_grad()
    def stream(self, idx, max_new_tokens, temperature=1.0, top_k=None, num_samples=None, keep=None, top_p=1.0):
        """Continue idx (B, T) by max_new_tokens, yielding the next token id of each sequence, (n,), step by step.

        n is B; or num_samples, which continues one prompt (B = 1) so many times and reads it once. temperature, top_k
        and top_p are those of pick_token. Call eval() first: it turns dropout off.

        While a sequence fits in block_size, its keys and values are kept, and the tokens are those that recomputing all
        of it would give. Keys and values depend on absolute positions, so a full window cannot slide: its newest `keep`
        tokens (default: half of it) are read again, from position 0. keep = block_size reads the whole window for every
        token, as nanoGPT does. Raises ValueError for an argument out of range, when the first token is asked for.
        """
        B, n_prompt = idx.shape
        n = num_samples or B
        window = self.config.block_size
        keep = keep or max(1, window // 2)
        if n_prompt < 1:
            raise ValueError('the prompt is empty; give at least one token')
        if max_new_tokens < 0:
            raise ValueError(f'max_new_tokens = {max_new_tokens} is below 0')
        if temperature < 0 or (top_k or 0) < 0 or not 0 < top_p <= 1:
            raise ValueError(f'temperature {temperature} or top_k {top_k} is below 0, or top_p {top_p} not in (0, 1]')
        if not 1 <= keep <= window:
            raise ValueError(f"keep = {keep} is not between 1 and the model's block_size = {window}")
        if B not in (1, n):
            raise ValueError(f'num_samples = {n} needs one prompt to start from, not {B}')

        text = torch.empty(n, n_prompt + max_new_tokens, dtype=torch.long, device=idx.device)
        text[:, :n_prompt] = idx
        cache = self.new_cache(n)
        n_cached = 0   # positions in the cache
        for t in range(n_prompt, n_prompt + max_new_tokens):
            if t == n_prompt:         # read the prompt
                context = idx[:, -window:]
            elif n_cached < window:   # read the newest token
                context = text[:, t - 1:t]
            else:                     # the window is full: read its newest part again
                context = text[:, t - keep:t]
                n_cached = 0
            logits, _ = self(context, cache=cache, pos=n_cached)   # (B or n, 1, V)
            n_cached += context.size(1)
            logits = logits[:, -1].float().expand(n, -1)           # (n, V)
            text[:, t] = pick_token(logits, temperature, top_k, top_p)
            yield text[:, t]

    def generate(self, idx, max_new_tokens, temperature=1.0, top_k=None, num_samples=None, **settings):
        """idx (B, T) followed by all the tokens that stream yields: (n, T + max_new_tokens). Settings as in stream."""
        new = [ids[:, None] for ids in self.stream(idx, max_new_tokens, temperature, top_k, num_samples, **settings)]
        return torch.cat([idx.expand(num_samples or len(idx), -1), *new], dim=1)


def pretrained_config(name, dropout=0.0):
    """The GPTConfig of a GPT-2, a Hugging Face Hub id or a folder. Raises as GPT.from_pretrained."""
    from transformers import AutoConfig
    c = AutoConfig.from_pretrained(name, trust_remote_code=False)
    if c.model_type != 'gpt2':
        raise ValueError(f'it is a model of the kind {c.model_type}, not a GPT-2')
    if c.n_inner is None:   # the channels of the MLP's hidden layer
        c.n_inner = 4 * c.n_embd
    expected = dict(activation_function='gelu_new', n_inner=4 * c.n_embd, layer_norm_epsilon=1e-5,
                    scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False, tie_word_embeddings=True)
    for key, value in expected.items():
        if getattr(c, key) != value:
            raise ValueError(f'it is a variant of GPT-2: its {key} is {getattr(c, key)}, not {value}')
    return GPTConfig(block_size=c.n_positions, vocab_size=c.vocab_size, n_layer=c.n_layer, n_head=c.n_head,
                     n_embd=c.n_embd, dropout=dropout, bias=True)


def pick_token(logits, temperature, top_k=None, top_p=1.0):
    """logits (B, V) -> token ids (B,).

    temperature 0 takes the likeliest. Otherwise a token is drawn: from the top_k likeliest (None or 0: all; what equals
    the last of them counts, too), and of these from the fewest that together hold top_p of the probability
    (https://arxiv.org/abs/1904.09751).
    """
    if temperature < 1e-30:   # as good as 0, and far below it float32 has only 0: the division would be 0 / 0
        return logits.argmax(dim=-1)
    logits = logits - logits.max(dim=-1, keepdim=True).values   # at most 0: the division can never give +inf
    logits = logits / temperature
    if top_k and top_k < logits.size(-1):
        kth_largest = logits.topk(top_k).values[:, -1:]
        logits = logits.masked_fill(logits < kth_largest, -math.inf)
    probs = F.softmax(logits, dim=-1)
    if top_p == 1:
        return draw(probs)
    probs, order = probs.sort(descending=True)   # order: the token id at each rank
    mass_before = probs.cumsum(dim=-1) - probs   # the probability of all tokens that are likelier
    probs = probs.masked_fill(mass_before >= top_p, 0.0)
    return order.gather(1, draw(probs)[:, None]).squeeze(1)


def draw(probs):
    """Draw one index from each row of probs (B, V), in proportion to its entries, whose sum need not be 1. By an
    exponential race: if E_i ~ Exp(1), probs_i / E_i is largest at i with probability probs_i / sum(probs).
    torch.multinomial does the same and, from the same seed, draws the same; but on MPS E_i can be 0, and where probs_i
    is 0, too, argmax takes the NaN (pytorch issue 192577). The 1e-30 prevents that."""
    race = probs / torch.empty_like(probs).exponential_().add_(1e-30)
    return race.argmax(dim=-1)


# -----------------------------------------------------------------------------
# Only for speed on a CPU. On a first reading stop here: Dropout does what nn.Dropout does, and attention_in_blocks what
# scaled_dot_product_attention does.
# -----------------------------------------------------------------------------

class Dropout(nn.Dropout):
    """nn.Dropout, with a cheaper mask on a CPU, where most builds of torch draw a random number for each element, one
    after the other. Here one draw of 64 bits serves eight elements, a byte each. So p is rounded to a multiple of
    1/256, from 1/256 to 255/256."""

    def forward(self, x):
        if not self.training or self.p == 0 or x.device.type != 'cpu':
            return super().forward(x)
        threshold = min(max(1, round(self.p * 256)), 255)   # a byte below it drops its element
        n_draws = math.ceil(x.numel() / 8)
        draws = torch.empty(n_draws, dtype=torch.int64).random_(-2**63, None)   # all 64 bits of each
        keep = draws.view(torch.uint8)[:x.numel()].view(x.shape) >= threshold
        return x * (keep.to(x.dtype) * (256 / (256 - threshold)))


def attention_in_blocks(q, k, v, dropout, rows=128):
    """Causal attention, with dropout (a module) on the weights; q, k, v and the result are (B, nh, T, hs).

    On a CPU, scaled_dot_product_attention has no fast way with dropout. Here the (T, T) weights are computed some rows
    at a time: that takes less memory, and leaves out the columns beyond these rows, which are masked.
    """
    B, nh, T, hs = q.shape
    q = (q / math.sqrt(hs)).reshape(B * nh, T, hs)
    k = k.reshape(B * nh, T, hs)
    v = v.reshape(B * nh, T, hs)
    future = q.new_full((T, T), -math.inf).triu(1)   # added to the scores: no position sees a later one
    y = []
    for start in range(0, T, rows):
        end = min(start + rows, T)
        scores = torch.baddbmm(future[start:end, :end], q[:, start:end], k[:, :end].mT)   # (B * nh, rows, end)
        weights = dropout(scores.softmax(dim=-1))
        y.append(weights @ v[:, :end])
    return torch.cat(y, dim=1).view(B, nh, T, hs)
