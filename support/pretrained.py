"""
GPT-2s that somebody else has trained, as Hugging Face's transformers saves them: a folder, or a model on the Hub, with
config.json, the weights in model.safetensors or pytorch_model.bin, or in several of these, and a tokenizer.

check_pretrained compares config.json with the shapes in the weights, before transformers builds anything. Code that
comes along is never run. Needs the package transformers.
"""

import json
import os
import sys
import zipfile

import torch

from model import pretrained_config
from support.checks import FLOATS, check_int, check_layers, check_text, check_tied, check_type, gpt_shapes, show
from support.torch_file import read_old_shapes, read_torch_file

CONV1D = ('c_attn.weight', 'c_fc.weight', 'c_proj.weight')   # which GPT-2 keeps as (in, out)
SAFE_FLOATS = ('F16', 'BF16', 'F32', 'F64')   # safetensors' names


def check_pretrained(name):
    """Check the config.json and the weights of a Hub id or folder against each other. Raises ValueError for what does
    not fit, with a message that begins with 'it'; what transformers raises for what cannot be found."""
    from transformers import PretrainedConfig
    raw, _ = PretrainedConfig.get_config_dict(name)
    if 'auto_map' in raw:
        print(f'{name} comes with code of its own, which is not run', file=sys.stderr)
    kind = str(raw.get('model_type', 'gpt2'))
    if kind != 'gpt2':
        raise ValueError(f'it is a model of the kind {show(kind)[1:-1]}, not a GPT-2')
    check_int('num_labels in config.json', raw.get('num_labels', 2), 0, 10**6)   # transformers makes a name for each
    for key in ('quantization_config', 'transformers_weights'):
        if raw.get(key) is not None:
            raise ValueError(f'it is a variant of GPT-2: its config.json has {key}')
    config = pretrained_config(name)
    for key in ('n_layer', 'n_head', 'n_embd', 'block_size', 'vocab_size'):
        check_int(f'{key} in config.json', getattr(config, key), 1)

    paths = weight_files(name)
    shapes = {}
    for path in paths:
        for key, shape in read_shapes(path).items():
            if key in shapes:
                raise ValueError(f'it has the weight {show(key)} twice')
            shapes[key] = shape
    check_shapes(shapes, config)
    if 'lm_head.weight' in shapes:   # the same matrix again, or another one, of which transformers takes no notice
        tensors = {}
        for path in paths:
            tensors.update(read_tensors(path, ('lm_head.weight', 'transformer.wte.weight')))
        check_tied(tensors['lm_head.weight'], tensors['transformer.wte.weight'])


def check_shapes(shapes, config):
    """The shapes of the weights, by name, are those of a GPT-2 with this GPTConfig. Weights that a GPT has no use for
    may be there."""
    check_layers(shapes, config.n_layer)
    for key, shape in gpt_shapes(config).items():
        if key == 'lm_head.weight' and key not in shapes:   # the embeddings again
            continue
        if key not in shapes:
            raise ValueError(f'it lacks the weight {key}')
        if key.endswith(CONV1D):
            shape = shape[::-1]
        if tuple(shapes[key]) != tuple(shape):
            raise ValueError(f'its {key} has the shape {tuple(shapes[key])}, and config.json says {tuple(shape)}')


def weight_files(name):
    """The paths of the files with the weights, downloaded if need be; transformers takes the same."""
    from transformers.utils.hub import cached_file
    for single in ('model.safetensors', 'pytorch_model.bin'):
        path = cached_file(name, single, _raise_exceptions_for_missing_entries=False)
        if path is not None:
            return [path]
        index = cached_file(name, f'{single}.index.json', _raise_exceptions_for_missing_entries=False)
        if index is not None:
            return [cached_file(name, part) for part in parts_of(index)]
    raise ValueError('it has no model.safetensors and no pytorch_model.bin')


def parts_of(path):
    """The names of the files that an index.json speaks of."""
    with open(path, encoding='utf-8') as f:
        index = json.load(f)
    check_type('the index of the weights', index, dict)
    check_type('weight_map in the index of the weights', index.get('weight_map'), dict)
    names = list(index['weight_map'].values())
    for part in names:
        check_text('a file in the index of the weights', part)
        if not part.endswith(('.safetensors', '.bin')) or any(c in '/\\:' for c in part):
            raise ValueError(f'its index of the weights has a file {show(part)}')
    return sorted(set(names))


def plain_names(names):
    """{name in a GPT: name in a file}: some files lack the prefix 'transformer.', some have the causal masks."""
    plain = {}
    for name in names:
        check_text('the name of a weight', name)
        if name.endswith(('.attn.bias', '.attn.masked_bias')):
            continue
        key = name
        if not name.startswith(('transformer.', 'lm_head.')):
            key = f'transformer.{name}'
        if key in plain:
            raise ValueError(f'it has the weight {show(key)} twice')
        plain[key] = name
    return plain


def read_shapes(path):
    """{name of a weight: its shape} in a file of weights, without reading these."""
    shapes = {}
    if path.endswith('.safetensors'):
        with open_safetensors(path) as f:
            for key, name in plain_names(f.keys()).items():
                part = f.get_slice(name)
                if part.get_dtype() not in SAFE_FLOATS:
                    raise ValueError(f'its {show(key)} has numbers of the kind {part.get_dtype()}')
                shapes[key] = part.get_shape()
    else:
        weights = load_bin(path, 'meta')
        for key, name in plain_names(weights).items():
            if not isinstance(weights[name], torch.Tensor) or weights[name].dtype not in FLOATS:
                raise ValueError(f'its {show(key)} is {show(weights[name])}')
            shapes[key] = weights[name].shape
    return shapes


def read_tensors(path, keys):
    """{name of a weight: tensor} of those of these weights that a file has."""
    if path.endswith('.safetensors'):
        with open_safetensors(path) as f:
            return {key: f.get_tensor(name) for key, name in plain_names(f.keys()).items() if key in keys}
    weights = load_bin(path, 'cpu')
    return {key: weights[name] for key, name in plain_names(weights).items() if key in keys}


def open_safetensors(path):
    """A file of safetensors, whose header gives names and shapes; opening it compares their sizes with the file's."""
    from safetensors import safe_open
    if not os.path.isfile(path):
        raise ValueError(f'its {os.path.basename(path)} is not a regular file')
    return safe_open(path, 'pt')


def load_bin(path, device):
    """The dict in a pytorch_model.bin, on the CPU, or on 'meta' with shapes alone."""
    if os.path.isfile(path) and not zipfile.is_zipfile(path):   # from a torch before 1.6
        weights = read_old_shapes(path)
        if device != 'meta':
            weights = torch.load(path, weights_only=True)
    else:
        weights = read_torch_file(path, device)
    if not isinstance(weights, dict):   # an OrderedDict, too
        raise ValueError(f'its weights are {show(weights)}')
    return weights
