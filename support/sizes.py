"""
What a training needs, by formulas: parameters, bytes of memory and of disk, floating-point operations.

Nothing of the model's size is built, so that it works for models larger than the machine. c is a GPTConfig throughout,
in shapes C is its n_embd, T its block_size, V its vocab_size; N = B T are the tokens that go through the model at once.
tests/test_sizes.py compares each formula with what torch really has, keeps or writes.

How near it comes to the most memory that a process ever holds was measured on a CPU: see docs/sizes.md.
"""

import math
import os

from support import devices

FLOAT32 = 4   # bytes; parameters, gradients and the state of the optimizers are float32, whatever dtype is
BYTES = {'float32': 4, 'bfloat16': 2, 'float16': 2}

# the most that train.py holds on Linux, with torch's CPU build, while it trains a model of next to nothing: 401 MB were
# measured, of which importing torch takes 230; a CUDA build has more, there and on the GPU, and was not measured
PROCESS_BYTES = 400e6


# -----------------------------------------------------------------------------
# parameters and arithmetic

def parameter_shapes(c):
    """{name: (shape, how many of them)} of a model's parameters. Names as in GPT.named_parameters(), with h.* for the
    n_layer blocks. lm_head.weight is not among them: it is wte's."""
    C = c.n_embd
    block = {   # of one block: name, shape of the weight
        'ln_1': (C,),
        'attn.c_attn': (3 * C, C),   # query, key and value
        'attn.c_proj': (C, C),
        'ln_2': (C,),
        'mlp.c_fc': (4 * C, C),
        'mlp.c_proj': (C, 4 * C),
    }
    shapes = {'transformer.wte.weight': ((c.vocab_size, C), 1), 'transformer.wpe.weight': ((c.block_size, C), 1)}
    for name, shape in block.items():
        shapes[f'transformer.h.*.{name}.weight'] = (shape, c.n_layer)
        if c.bias:
            shapes[f'transformer.h.*.{name}.bias'] = (shape[:1], c.n_layer)   # one for each output
    shapes['transformer.ln_f.weight'] = ((C,), 1)
    if c.bias:
        shapes['transformer.ln_f.bias'] = ((C,), 1)
    return shapes


def count_parameters(c):
    """All of them: GPT.get_num_params() leaves out wpe's."""
    return sum(n * math.prod(shape) for shape, n in parameter_shapes(c).values())


def flops_per_token(c):
    """{part: floating-point operations that training takes for one token}, which add up to GPT.flops_per_token().

    A matrix of P weights costs 2 P in the forward pass, a multiplication and an addition for each; the backward pass
    has two such products, one for the gradient of the input and one for that of the weights: 6 P in all. wte costs that
    as the output layer, and nothing as a table to look up; wpe is only a table. The few operations of biases and
    LayerNorms are counted alike, as GPT.flops_per_token() does. Attention has two more products, q k^T and weights v,
    2 T C each and forward, 6 T C with backward, in each block: half of it is masked, and counted all the same.
    """
    flops = {}
    for name, (shape, n) in parameter_shapes(c).items():
        if name != 'transformer.wpe.weight':
            flops[name] = 6 * n * math.prod(shape)
    flops['attention'] = 12 * c.n_layer * c.n_embd * c.block_size
    return flops


# -----------------------------------------------------------------------------
# memory

def optimizer_bytes(c, optimizer, n_shards=1):
    """Bytes of an optimizer's state: AdamW keeps two means for each parameter, of the gradients and of their squares,
    and the number of steps for each tensor; Muon keeps one mean for each of its parameters, the matrices in the blocks,
    and AdamW has the rest. Shared by n_shards processes (shard_optimizer), it is that of the fullest one."""
    decayed = []       # bytes of the state of each parameter, as GPT.configure_optimizers groups them
    not_decayed = []
    matrices = []
    for name, (shape, n) in parameter_shapes(c).items():
        if optimizer == 'muon' and len(shape) == 2 and '.h.' in name:
            matrices += n * [FLOAT32 * math.prod(shape)]
        elif len(shape) == 2:
            decayed += n * [FLOAT32 * (2 * math.prod(shape) + 1)]
        else:
            not_decayed += n * [FLOAT32 * (2 * math.prod(shape) + 1)]
    adamw = fill_shards([decayed, not_decayed], n_shards)
    muon = fill_shards([matrices], n_shards)
    return max(a + b for a, b in zip(adamw, muon))


def fill_shards(groups, n_shards):
    """What each of n_shards processes has to keep, of groups of sizes: as ZeroRedundancyOptimizer does it, whole
    parameters, the largest first, each to the process that has least so far."""
    shards = n_shards * [0]
    for sizes in groups:
        for size in sorted(sizes, reverse=True):
            shards[shards.index(min(shards))] += size
    return shards


def attention_kind(c, device_type, dtype):
    """How CausalSelfAttention computes attention, which decides what it keeps.
    'fused': scaled_dot_product_attention, without the (T, T) weights; 'blocks': attention_in_blocks; 'plain':
    scaled_dot_product_attention on MPS, which has no fused one for training."""
    if device_type == 'mps':
        return 'plain'
    if device_type == 'cpu' and (c.dropout > 0 or dtype == 'bfloat16'):
        return 'blocks'
    return 'fused'


def activation_bytes(c, B, device_type, dtype, attention=None, rows=128):
    """{part: bytes} that the forward pass of B sequences keeps until the backward pass has used them, without
    torch.compile (which keeps less: it computes some of them a second time). attention as attention_kind gives it;
    rows as in attention_in_blocks.

    Autocast computes matmuls in dtype, of h bytes, and LayerNorm, the residual stream and the loss in float32. In bytes
    for each token, and for each block where not said otherwise:

        LayerNorms     2 (4 C + 8)        the input of each, its mean, and one over its deviation
                       2 h C              the output of each, which is the input of c_attn and of c_fc
        attention      3 h C              q, k and v
                       h C                the output, which is the input of c_proj
                       4 nh               fused: the log of each row's sum of exponentials, from which the backward pass
                                          computes the weights again
                       h nh (T + rows)/2  blocks: the weights of the columns that are not masked, about half of (T, T);
                                          with dropout three times: as they were, the mask, and what was left
                       4 nh T             plain: all of them, in float32, as then are q, k and v
        MLP            2 * 4 h C          the input of GELU, and its output, which is the input of c_proj
        dropout        2 h C              the masks after attention and after the MLP, multiplied with in dtype; on CUDA
                                          a byte for each element
        once           4 C                the mask after the embeddings, if there is dropout
                       4 C + 8 + h C      the last LayerNorm
                       4 V                the logarithms of the probabilities, for the loss
                       16                 the ids x and y, int64
        for all tokens 2 (12 L C C + V C) in half precision: autocast's copies of the matrices

    Per block and without dropout that is 64 C in float32, and 36 C in half precision.
    """
    C = c.n_embd
    T = c.block_size
    L = c.n_layer
    nh = c.n_head
    h = BYTES[dtype]
    N = B * T
    attention = attention or attention_kind(c, device_type, dtype)
    has_dropout = c.dropout > 0
    mask = 1 if device_type == 'cuda' else h   # bytes of an element of a mask

    # attention, for each token
    qkv = 3 * h * C
    if attention == 'fused':
        weights = 4 * nh
    elif attention == 'blocks':
        ends = [min(start + rows, T) for start in range(0, T, rows)]   # a block of rows has columns up to its end
        widths = sum((end - start) * end for start, end in zip([0, *ends], ends)) / T   # their mean
        weights = h * nh * widths * (3 if has_dropout else 1)
    else:
        qkv = 3 * FLOAT32 * C
        weights = FLOAT32 * nh * T * (3 if has_dropout else 1)

    kept = {
        'LayerNorms': N * (2 * L + 1) * (FLOAT32 * C + 8 + h * C),
        'attention': N * L * (qkv + h * C + weights),
        'MLP': N * L * 8 * h * C,
        'loss': N * (4 * c.vocab_size + 16),
    }
    if has_dropout:
        kept['dropout'] = N * (L * 2 * mask * C + (1 if device_type == 'cuda' else FLOAT32) * C)
    if h < FLOAT32:
        kept[f'{dtype} weights'] = h * (12 * L * C * C + c.vocab_size * C)
    return {part: round(n) for part, n in kept.items()}


def working_bytes(c, B, dtype):
    """Bytes of what stands for a moment beside all that is kept, when it is most: as the backward pass begins.

    Either the logits, which train.py's `_` holds, and two gradients of them in float32, N V (h + 8) bytes; or, of a
    small vocabulary, in the last block's MLP the gradients of both sides of GELU, less what has been used by then,
    3 h N C bytes. And the gradient of lm_head, which waits until wte's, at the very end, is added to it: 4 V C.
    """
    h = BYTES[dtype]
    N = B * c.block_size
    return N * max(c.vocab_size * (h + 8), 3 * h * c.n_embd) + FLOAT32 * c.vocab_size * c.n_embd


def muon_bytes(c):
    """Bytes of what a step of Muon needs for a moment. It stacks all matrices of one shape, of which the MLP's are the
    largest, 4 C C in each block, and then has at once the gradients, X and its product with Q, and five (C, C) matrices
    for each: 17 C C numbers a block. Activations have gone by then."""
    return FLOAT32 * 17 * c.n_layer * c.n_embd * c.n_embd


def training_memory(c, batch_size, device, dtype, optimizer, n_shards=1):
    """{'weights', 'gradients', 'optimizer', 'activations', 'working': bytes} of a training, each when it is most; their
    sum is about the most memory that it ever holds, beside the process itself. 'working' is what stands for a moment:
    in the backward pass, or in a step of Muon, as far as that takes more than the activations, which have gone by then.
    Activations are those of a piece of a micro-batch: see devices.pick_piece_size. How many micro-batches an iteration
    has costs no memory."""
    device_type = device.partition(':')[0]
    B = min(batch_size, devices.pick_piece_size(device, c.block_size, batch_size))
    weights = FLOAT32 * count_parameters(c)
    activations = sum(activation_bytes(c, B, device_type, dtype).values())
    working = working_bytes(c, B, dtype)
    if optimizer == 'muon':
        working = max(working, muon_bytes(c) - activations)
    return {
        'weights': weights,
        'gradients': weights,
        'optimizer': optimizer_bytes(c, optimizer, n_shards),
        'activations': activations,
        'working': working,
    }


def cache_bytes(c, n_samples, dtype):
    """Bytes of the keys and values that generation keeps: for each sample, block and position a key and a value."""
    return n_samples * c.n_layer * c.block_size * 2 * c.n_embd * BYTES[dtype]


def checkpoint_bytes(c, optimizer):
    """Bytes of ckpt.pt: the weights and the state of the optimizer, in float32. A record of the tokenizer, settings and
    names come to some ten kB, GPT-2's vocabulary to a few MB."""
    return FLOAT32 * count_parameters(c) + optimizer_bytes(c, optimizer)


# -----------------------------------------------------------------------------
# what to do about it

def what_to_lower(c, batch_size, accumulation, device, dtype, optimizer, available, n_shards=1):
    """'' if a training fits into so many bytes. If not, the settings with which it does, as they are typed. First a
    smaller batch_size, with as many more micro-batches: the same training, but for the order of sums. Then, one
    sequence at a time, shorter sequences; then fewer blocks."""
    def fits(n_sequences, **changes):
        changed = type(c)(**{**vars(c), **changes})
        return sum(training_memory(changed, n_sequences, device, dtype, optimizer, n_shards).values()) <= available

    if fits(batch_size):
        return ''
    for n in range(batch_size - 1, 0, -1):
        if batch_size % n == 0 and fits(n):
            return f'--batch_size={n} --gradient_accumulation_steps={accumulation * batch_size // n}'
    one = f'--batch_size=1 --gradient_accumulation_steps={accumulation * batch_size}'
    block_size = c.block_size // 2
    while block_size >= 64:
        if fits(1, block_size=block_size):
            return f'{one} --block_size={block_size}'
        block_size //= 2
    for n_layer in range(c.n_layer - 1, 0, -1):
        if fits(1, n_layer=n_layer):
            return f'{one} --n_layer={n_layer}'
    return 'a smaller n_embd'


def print_memory(c, config, device, dtype, world_size):
    """Say in one line how much memory a training will take, and in another if the device has less. config: train.py's
    settings, a dict."""
    if config['eval_only']:
        return
    n_shards = world_size if config['shard_optimizer'] else 1
    memory = training_memory(c, config['batch_size'], device, dtype, config['optimizer'], n_shards)
    needed = sum(memory.values())
    is_cpu = device == 'cpu'
    line = f"memory: about {in_bytes(needed)}, {in_bytes(memory['activations'])} of it activations"
    if is_cpu:
        line += f', and {in_bytes(PROCESS_BYTES)} for torch itself'
    print(line)
    available = devices.memory_bytes(device)
    if is_cpu:   # which all processes of this machine share
        available = available / int(os.environ.get('LOCAL_WORLD_SIZE', 1)) - PROCESS_BYTES
    if 0 < available < needed:
        lower = what_to_lower(c, config['batch_size'], config['gradient_accumulation_steps'], device, dtype,
                              config['optimizer'], available, n_shards)
        print(f'memory may run out: {device} has {in_bytes(available)}; this would fit: {lower}')


def in_bytes(n):
    """Bytes in words, with three digits."""
    for unit, size in (('TB', 1e12), ('GB', 1e9), ('MB', 1e6), ('kB', 1e3)):
        if n >= 0.9995 * size:
            return f'{n / size:.3g} {unit}'
    return f'{n:.0f} bytes'
