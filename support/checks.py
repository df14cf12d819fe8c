"""
Checks of what comes from outside: a checkpoint, the record of a tokenizer, the state of an optimizer. Each is checked
once, completely, where it enters, before anything of its size is built; after that no field needs a second look.

A check raises ValueError, whose message says which field is wrong and what it is.
"""

import torch

from model import GPTConfig
from support.tokenizer import GPT2_END, check_fit, check_hf, check_record

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
SCALER = ('scale', 'growth_factor', 'backoff_factor', 'growth_interval', '_growth_tracker')   # of a GradScaler
MOMENTS = {'AdamW': ('step', 'exp_avg', 'exp_avg_sq'), 'Muon': ('momentum_buffer',)}
GPT2_TOKENS = GPT2_END + 1   # <|endoftext|> included
MAX_COUNT = 2**40     # of iterations; also the number of the first batch that only evaluations see
MAX_AMOUNT = 1e18     # of tokens or seconds
MAX_WANDB_ID = 128    # characters


# -----------------------------------------------------------------------------
# values

def show(value):
    """A value in a few printable characters."""
    if isinstance(value, torch.Tensor):
        return f'a tensor {tuple(value.shape)} of {str(value.dtype).removeprefix("torch.")}'
    if value is None or type(value) in (bool, int, float):
        return str(value)
    if type(value) is str:
        return f'{value[:40]!a}' + ('...' if len(value) > 40 else '')
    return f'a {type(value).__name__}'


def check_type(name, value, *types):
    """The value has exactly one of these types: True is no int, and 2.0 is none."""
    if type(value) not in types:
        kinds = ' or '.join(t.__name__ for t in types)
        article = 'an' if kinds.startswith('int') else 'a'
        raise ValueError(f'{name} is {show(value)}, not {article} {kinds}')


def check_int(name, value, least, most=MAX_COUNT):
    """The value is an int from least to most."""
    check_type(name, value, int)
    if not least <= value <= most:
        raise ValueError(f'{name} is {value}, not between {least} and {most}')


def check_number(name, value, least=0, most=MAX_AMOUNT):
    """The value is an int or float from least to most, and so not NaN."""
    check_type(name, value, int, float)
    if not least <= value <= most:
        raise ValueError(f'{name} is {value}, not between {least} and {most}')


def check_keys(name, value, required, optional=()):
    """The value is a dict with these keys and no others."""
    check_type(name, value, dict)
    for key in required:
        if key not in value:
            raise ValueError(f'{name} has no {key}')
    for key in value:
        if key not in required and key not in optional:
            raise ValueError(f'{name} has a key {show(key)}, which is not known')


def check_text(name, value):
    """The value is a str that can be written as UTF-8."""
    check_type(name, value, str)
    try:
        value.encode('utf-8')
    except UnicodeEncodeError:
        raise ValueError(f'{name} is {show(value)}, which is no text') from None


def check_wandb_id(value):
    """The value is an id that wandb may have given a run, or '': wandb makes a folder with it in its name."""
    check_text('wandb_id', value)
    if len(value) > MAX_WANDB_ID or not value.isprintable() or set(value) & set('/\\'):
        raise ValueError(f'wandb_id is {show(value)}, which is no id of a run')


def check_tensor(name, value, shape, dtypes=FLOATS):
    """The value is a tensor of this shape, which lies densely in the memory of the CPU."""
    if not isinstance(value, torch.Tensor):
        raise ValueError(f'{name} is {show(value)}, not a tensor')
    if value.layout != torch.strided or value.dtype not in dtypes or value.device.type != 'cpu':
        raise ValueError(f'{name} is {show(value)}, not dense numbers of {dtypes[0]} on the CPU')
    if value.shape != shape:
        raise ValueError(f'{name} has the shape {tuple(value.shape)}, not {tuple(shape)}')
    outer_first = sorted(range(value.dim()), key=value.stride, reverse=True)
    if not value.permute(outer_first).is_contiguous():
        raise ValueError(f'{name} is {show(value)} with gaps or with elements that share memory')


def check_finite_tensor(name, value):
    """No element is NaN or infinite."""
    if not value.isfinite().all():
        raise ValueError(f'{name} has elements that are NaN or infinite')


# -----------------------------------------------------------------------------
# checkpoints

def check_checkpoint(checkpoint):
    """Check the dict that read_torch_file found in ckpt.pt or last.pt: all but the optimizer's state, for which there
    is check_moments. What nanoGPT writes otherwise becomes as it is here: the names of the weights, best_val_loss as a
    tensor, model_args without `bias` (in its first weeks) or dropout. Keys that nobody reads may be there."""
    check_type('the file', checkpoint, dict)
    for key in ('model', 'model_args'):
        if key not in checkpoint:
            raise ValueError(f'it has no {key}')
    for key in ('iter_num', 'best_val_loss'):   # None is as good as absent
        if checkpoint.get(key, 0) is None:
            del checkpoint[key]

    args = checkpoint['model_args']
    check_type('model_args', args, dict)
    args.setdefault('bias', True)
    args.setdefault('dropout', 0.0)
    check_model_args(args)
    check_type('model', checkpoint['model'], dict)
    checkpoint['model'] = clean_names(checkpoint['model'])
    check_weights(checkpoint['model'], args)

    check_int('iter_num', checkpoint.get('iter_num', 0), 0)
    loss = checkpoint.get('best_val_loss', 0.0)
    if isinstance(loss, torch.Tensor):   # nanoGPT's
        check_tensor('best_val_loss', loss, torch.Size([]))
        loss = checkpoint['best_val_loss'] = loss.item()
    check_number('best_val_loss', loss, 0, float('inf'))
    check_number('elapsed_s', checkpoint.get('elapsed_s', 0.0))
    check_number('tokens_read', checkpoint.get('tokens_read', 0))
    check_number('lowest_val_loss', checkpoint.get('lowest_val_loss', 0.0))
    check_int('lowest_iter', checkpoint.get('lowest_iter', 0), 0)
    check_int('fitted_iters', checkpoint.get('fitted_iters', 0), 0)
    check_wandb_id(checkpoint.get('wandb_id', ''))
    check_text('data', checkpoint.get('data', ''))
    check_config(checkpoint.get('config', {}))
    check_scaler(checkpoint.get('scaler', {}))
    if 'tokenizer' in checkpoint:
        check_tokenizer(checkpoint['tokenizer'], args['vocab_size'])
    else:   # nanoGPT's names its data set, to look for a vocabulary in it
        check_text('dataset', checkpoint.get('config', {}).get('dataset', ''))


def clean_names(weights):
    """A model's state_dict without what nanoGPT may have in it: the prefix of compiled models, and the causal mask,
    which on torch 1 was a weight."""
    cleaned = {}
    for name, weight in weights.items():
        check_type('the name of a weight', name, str)
        name = name.removeprefix('_orig_mod.')
        if name in cleaned:
            raise ValueError(f'it has the weight {show(name)} twice')
        if not name.endswith('.attn.bias'):
            cleaned[name] = weight
    return cleaned


def check_model_args(args):
    """The shape of a model, a dict of nanoGPT's seven numbers. Whether the weights have it, check_weights says."""
    sizes = ('n_layer', 'n_head', 'n_embd', 'block_size', 'vocab_size')
    check_keys('model_args', args, (*sizes, 'bias', 'dropout'))
    for name in sizes:
        check_int(name, args[name], 1)
    check_type('bias', args['bias'], bool)
    check_number('dropout', args['dropout'])
    GPTConfig(**args)   # raises ValueError if n_head does not divide n_embd, or dropout is not below 1


def check_weights(weights, args):
    """The weights are all of a model with these arguments and no others, each of the right shape, and finite."""
    check_layers(weights, args['n_layer'])
    shapes = gpt_shapes(GPTConfig(**args))
    check_names(weights, shapes)
    for name, shape in shapes.items():
        check_tensor(name, weights[name], shape)
    check_tied(weights['lm_head.weight'], weights['transformer.wte.weight'])
    storages = [weight.untyped_storage() for weight in weights.values()]
    n_bytes = sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
    if sum(weight.nbytes for name, weight in weights.items() if name != 'lm_head.weight') > n_bytes:
        raise ValueError('its weights share memory')


def gpt_shapes(config):
    """{name: shape} of the weights of a GPT, in the order of its state_dict. A GPT on the meta device would tell the
    same, but that takes a second, of imports."""
    C = config.n_embd
    block = {'ln_1': (C,), 'attn.c_attn': (3 * C, C), 'attn.c_proj': (C, C),
             'ln_2': (C,), 'mlp.c_fc': (4 * C, C), 'mlp.c_proj': (C, 4 * C)}
    layers = {'wte': (config.vocab_size, C), 'wpe': (config.block_size, C)}
    for i in range(config.n_layer):
        layers.update({f'h.{i}.{name}': shape for name, shape in block.items()})
    layers['ln_f'] = (C,)

    shapes = {}
    for name, shape in layers.items():
        shapes[f'transformer.{name}.weight'] = torch.Size(shape)
        if config.bias and name not in ('wte', 'wpe'):
            shapes[f'transformer.{name}.bias'] = torch.Size(shape[:1])
    shapes['lm_head.weight'] = torch.Size(layers['wte'])
    return shapes


def check_layers(weights, n_layer):
    """The names of the weights are those of n_layer blocks: compared before a name is made for each of them."""
    layers = {name.split('.')[2] for name in weights if name.startswith('transformer.h.')}
    if len(layers) != n_layer:
        raise ValueError(f'n_layer is {n_layer}, and it has the weights of {len(layers)} layers')


def check_tied(lm_head, wte):
    """The two matrices that are one in a GPT are equal, wherever they are no NaN."""
    if lm_head.data_ptr() == wte.data_ptr() and lm_head.stride() == wte.stride():
        return
    if lm_head.dtype != wte.dtype or not torch.equal(lm_head.nan_to_num(), wte.nan_to_num()):
        raise ValueError('lm_head.weight and transformer.wte.weight differ, and a GPT has one matrix for both')


def check_names(names, expected):
    """There are these weights and no others."""
    for name in expected:
        if name not in names:
            raise ValueError(f'it lacks the weight {name}')
    for name in names:
        if name not in expected:
            raise ValueError(f'it has a weight {show(name)}, which is not known')


def check_config(config):
    """train.py's settings: plain values by name."""
    check_type('config', config, dict)
    for name, value in config.items():
        check_text('a name in config', name)
        check_type(f'config[{show(name)}]', value, bool, int, float, str, type(None))


def check_folder_name(name):
    """The value is the name of a folder, and no path that leads out of the folder that it is in."""
    check_text('dataset', name)
    if name in ('.', '..') or any(c in '/\\:' or not c.isprintable() for c in name):
        raise ValueError(f'dataset is {show(name)}, not the name of a folder in data/')


def check_scaler(scaler):
    """The state of a float16 GradScaler, or of none: an empty dict."""
    check_type('scaler', scaler, dict)
    if not scaler:
        return
    check_keys('scaler', scaler, SCALER)
    check_number('scale of the scaler', scaler['scale'], 1e-30, 1e30)
    check_number('growth_factor of the scaler', scaler['growth_factor'], 1, 1e6)
    check_number('backoff_factor of the scaler', scaler['backoff_factor'], 1e-6, 1)
    check_int('growth_interval of the scaler', scaler['growth_interval'], 1)
    check_int('_growth_tracker of the scaler', scaler['_growth_tracker'], 0)


# -----------------------------------------------------------------------------
# tokenizers

def check_tokenizer(record, vocab_size):
    """The record of a tokenizer (see tokenizer.py) for a model that knows vocab_size tokens. There may be more ids in
    the model than tokens, since vocabularies of words are padded, but not fewer."""
    check_record(record)
    kind = record['kind']
    if kind == 'char':
        check_keys('tokenizer', record, ('kind', 'itos'))
        if len(record['itos']) != vocab_size:
            raise ValueError(f"itos of the tokenizer has {len(record['itos']):,} entries, not {vocab_size:,}")
    elif kind == 'ids':
        check_keys('tokenizer', record, ('kind',))
    elif kind == 'gpt2':
        check_keys('tokenizer', record, ('kind',), ('bpe',))
        check_fit(GPT2_TOKENS, vocab_size)
    else:   # 'hf': check_record knows no other
        check_keys('tokenizer', record, ('kind', 'json'), ('eos',))
        check_hf(record['json'], record.get('eos'), vocab_size)


# -----------------------------------------------------------------------------
# optimizers

def check_moments(state, params, kind):
    """The state of an optimizer of this kind, 'AdamW' or 'Muon', for these parameters: {number of the parameter: {name:
    tensor}}. All of them have one, or none: where no step was done yet, or all were skipped."""
    check_keys('the state of an optimizer', state, ('state',), ('param_groups',))
    state = state['state']
    check_type('the state of an optimizer', state, dict)
    if not state:
        return
    if any(type(i) is not int for i in state) or set(state) != set(range(len(params))):
        raise ValueError(f'it has the state of {len(state)} parameters, and there are {len(params)}')
    for i, param in enumerate(params):
        where = f'of parameter {i}'
        check_keys(f'the state {where}', state[i], MOMENTS[kind])
        for name, value in state[i].items():
            shape = param.shape
            if name == 'step':   # a number; one element, (1,), in the fused AdamW of torch 2.0
                shape = torch.Size([1] if isinstance(value, torch.Tensor) and value.shape == (1,) else [])
            check_tensor(f'{name} {where}', value, shape, dtypes=(param.dtype,))
            check_finite_tensor(f'{name} {where}', value)
            if name in ('step', 'exp_avg_sq') and value.numel() and value.min() < 0:
                raise ValueError(f'{name} {where} has elements below 0')
