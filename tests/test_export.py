"""tools/export.py: in transformers the same logits and tokens; in a file the model alone."""

import os
import re

import pytest
import torch
from conftest import ECA, PORTUGUESE, TINY, assert_same_logits, export, load

from model import GPT, GPTConfig
from support.cpu import can_pack
from support.tokenizer import get_codec, gpt2_tokens

@pytest.mark.parametrize('bias', [False, True])
def test_characters_out(prepared, tmp_path, bias):
    """A character model in transformers: the same logits, a fast tokenizer, a pipeline that writes."""
    transformers = pytest.importorskip('transformers')
    safetensors = pytest.importorskip('safetensors')
    prepared.run('train.py', *TINY, '--max_iters=3', f'--bias={bias}', f'--out_dir={tmp_path}/out')
    ours, hf, hf_tokenizer = export(prepared, tmp_path / 'out', tmp_path / 'hf')
    assert_same_logits(ours, hf, ours.config.vocab_size)
    text = (prepared / ECA / 'amostra.txt').read_text(encoding='utf-8')[:5000]
    encode, decode = get_codec(load(tmp_path / 'out' / 'ckpt.pt')['tokenizer'])
    assert hf_tokenizer.is_fast and hf_tokenizer(text).input_ids == encode(text)
    assert hf_tokenizer.decode(encode(text)) == text == decode(encode(text))
    # mlx-lm 0.32 takes the names of OpenAI's files only, and asks for n_ctx
    with safetensors.safe_open(tmp_path / 'hf' / 'model.safetensors', 'pt') as f:
        assert {'wte.weight', 'h.0.attn.c_attn.bias', 'ln_f.bias'} < set(f.keys())
        assert not any(name.startswith(('transformer.', 'lm_head.')) for name in f.keys())
    assert hf.config.n_ctx == ours.config.block_size
    written = transformers.pipeline('text-generation', str(tmp_path / 'hf'))('Meu caro', do_sample=True)
    assert len(written[0]['generated_text']) == 32   # the window is full
    refused = prepared.run('sample.py', f'--init_from={tmp_path}/hf', '--start=漢', fails=True)
    assert "the model's tokenizer cannot read the prompt" in refused
    again = prepared.run('tools/export.py', f'--out_dir={tmp_path}/out', f'--to={tmp_path}/hf', fails=True)
    assert f'to = {tmp_path}/hf is there already' in again


def test_gpt2_tokens_out(prepared, tmp_path, tiktoken_cache, monkeypatch):
    """A model over GPT-2's own tokens: prepared, trained, exported; the padding of the vocabulary stays behind."""
    pytest.importorskip('transformers')
    env = {'TIKTOKEN_CACHE_DIR': tiktoken_cache}
    prepared.run('data/shakespeare/prepare.py', prepared / ECA / 'amostra.txt', env=env)
    prepared.run('train.py', *TINY, '--dataset=shakespeare', '--n_layer=1', '--n_embd=8', '--max_iters=2',
                 f'--out_dir={tmp_path}/out')   # needs no tokenizer
    offline = prepared.run('sample.py', f'--out_dir={tmp_path}/out', fails=True)
    assert "GPT-2's vocabulary could not be fetched" in offline and 'TIKTOKEN_CACHE_DIR' in offline
    assert '---' in prepared.run('sample.py', f'--out_dir={tmp_path}/out', '--max_new_tokens=5', env=env)
    line = prepared.run('train.py', *TINY, '--dataset=shakespeare', '--n_layer=1', '--n_embd=8', '--init_from=resume',
                        '--eval_only=True', '--eval_iters=0', f'--out_dir={tmp_path}/out')
    assert 'the tokenizer is not on this machine: no text, no bits per character' in line and ': val loss' in line
    assert 'it writes' not in line and not re.search(r'\d bits per character', line)
    checkpoint = load(tmp_path / 'out' / 'ckpt.pt')
    with monkeypatch.context() as m:
        m.setenv('TIKTOKEN_CACHE_DIR', tiktoken_cache)
        bpe = [token.decode('latin-1') for token in gpt2_tokens({})]
        checkpoint['tokenizer'] = {'kind': 'gpt2', 'bpe': bpe}   # as a finetuned model has it: whole
        encode, _ = get_codec({'kind': 'gpt2'})
        ids = encode(PORTUGUESE)
    torch.save(checkpoint, tmp_path / 'out' / 'ckpt.pt')
    assert '---' in prepared.run('sample.py', f'--out_dir={tmp_path}/out', '--max_new_tokens=5')   # no vocabulary here
    ours, hf, hf_tokenizer = export(prepared, tmp_path / 'out', tmp_path / 'hf')
    assert hf.config.vocab_size == len(hf_tokenizer) == 50257 and ours.config.vocab_size == 50304
    assert_same_logits(ours, hf, 50257)
    assert hf_tokenizer(PORTUGUESE).input_ids == ids and hf_tokenizer.decode(ids) == PORTUGUESE
    assert hf_tokenizer.eos_token_id == hf.config.eos_token_id == 50256


def test_model_to_give_away(prepared, tmp_path):
    """tools/export.py to a .pt file: the model alone, in half precision; it writes, and cannot be resumed."""
    prepared.run('train.py', *TINY, '--max_iters=3', '--out_dir=out-give')
    (tmp_path / 'out').mkdir()
    said = prepared.run('tools/export.py', '--out_dir=out-give', f'--to={tmp_path}/out/ckpt.pt')
    whole = load(prepared / 'out-give' / 'ckpt.pt')
    alone = load(tmp_path / 'out' / 'ckpt.pt')
    size = os.path.getsize(tmp_path / 'out' / 'ckpt.pt')
    assert f'{size / 1e6:.2f} MB' in said and size < os.path.getsize(prepared / 'out-give' / 'ckpt.pt') / 3
    assert all(torch.equal(alone['model'][k], v.half()) for k, v in whole['model'].items())
    text = prepared.run('sample.py', f'--out_dir={tmp_path}/out', '--num_samples=1', '--max_new_tokens=60')
    assert len(text) == 1 + 60 + len('\n---------------\n')
    message = prepared.run('train.py', *TINY, '--init_from=resume', f'--out_dir={tmp_path}/out', fails=True)
    assert 'is a model to sample from, not the state of a training' in message
    again = prepared.run('tools/export.py', '--out_dir=out-give', f'--to={tmp_path}/out/ckpt.pt', fails=True)
    assert 'is there already' in again


def test_batches_of_characters(prepared, tmp_path):
    """Characters have no token that ends a text. A batch is padded with one that the model hardly writes, and then
    never does: what transformers shows of a text is what it shows of it alone."""
    transformers = pytest.importorskip('transformers')
    prepared.run('train.py', *TINY, '--max_iters=20', f'--out_dir={tmp_path}/out')
    said = prepared.run('tools/export.py', f'--out_dir={tmp_path}/out', f'--to={tmp_path}/hf')
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / 'hf')
    itos = load(tmp_path / 'out' / 'ckpt.pt')['tokenizer']['itos']
    assert tokenizer.pad_token in itos and tokenizer.eos_token is None and len(tokenizer) == len(itos)
    assert 'no token ends a text: writing goes on to max_length' in said
    assert f'batches are padded with {tokenizer.pad_token!r}' in said
    encode, _ = get_codec({'kind': 'char', 'itos': itos})
    assert f"--model_args pretrained={tmp_path}/hf,prefix_token_id={itos.index(chr(10))};" in said
    texts = ['Meu caro\namigo', 'Oi', ''.join(itos)]
    batch = tokenizer(texts, padding=True)
    for text, ids, mask in zip(texts, batch.input_ids, batch.attention_mask, strict=True):
        assert ids[len(ids) - len(text):] == encode(text) and sum(mask) == len(text)   # padded on the left
        assert set(ids[:len(ids) - len(text)]) <= {tokenizer.pad_token_id}
    write = transformers.pipeline('text-generation', str(tmp_path / 'hf'))
    both = write(texts[:2], batch_size=2, do_sample=False, max_new_tokens=15)
    for text, written in zip(texts, both, strict=False):
        assert written == write(text, do_sample=False, max_new_tokens=15)
        assert len(written[0]['generated_text']) == len(text) + 15


@pytest.mark.parametrize('weight, dtype', [(65504, torch.float16), (-65536, torch.float32), (1e18, torch.float32)])
def test_weights_beyond_float16_stay_float32(prepared, tmp_path, weight, dtype):
    torch.manual_seed(0)
    config = dict(block_size=8, vocab_size=3, n_layer=1, n_head=1, n_embd=4)
    weights = GPT(GPTConfig(**config)).state_dict()
    weights['transformer.wpe.weight'][0, 0] = weight
    (tmp_path / 'out').mkdir()
    torch.save({'model': weights, 'model_args': config, 'tokenizer': {'kind': 'char', 'itos': ['\n', 'a', 'b']}},
               tmp_path / 'out' / 'ckpt.pt')
    said = prepared.run('tools/export.py', f'--out_dir={tmp_path}/out', f'--to={tmp_path}/given/ckpt.pt')
    alone = load(tmp_path / 'given' / 'ckpt.pt')['model']
    assert all(w.dtype == dtype for w in alone.values())
    assert ('in float32, since float16 ends at 65504' in said) == (dtype == torch.float32)
    assert '---' in prepared.run('sample.py', f'--out_dir={tmp_path}/given', '--max_new_tokens=5')


@pytest.mark.skipif(not can_pack(), reason='float16 is of x86 processors here')
@pytest.mark.parametrize('weight, dtype', [(-65504, 'float16'), (65536, 'float32'), (-1e18, 'float32')])
def test_weights_beyond_float16_are_sampled_in_float32(prepared, tmp_path, weight, dtype):
    """Packed they would become 65504, and be others."""
    config = dict(block_size=8, vocab_size=3, n_layer=1, n_head=1, n_embd=512)   # large enough to be packed
    weights = GPT(GPTConfig(**config)).state_dict()
    weights['transformer.h.0.mlp.c_proj.weight'][0, 0] = weight
    torch.save({'model': weights, 'model_args': config, 'tokenizer': {'kind': 'char', 'itos': ['\n', 'a', 'b']}},
               tmp_path / 'ckpt.pt')
    args = ['sample.py', f'--out_dir={tmp_path}', '--max_new_tokens=9', '--device=cpu', '--num_samples=2']
    process = prepared.start(*args)
    text, said = process.communicate(timeout=100)
    assert f'dtype: {dtype}\n' in said and 'out of range' not in said
    assert prepared.run(*args, f'--dtype={dtype}') == text
    assert '---' in prepared.run(*args, '--dtype=bfloat16')
    if dtype == 'float32':
        said = prepared.run(*args, '--dtype=float16', fails=True)
        assert f'ends at 65504, and the model has a weight of {abs(weight):.6g}; use --dtype=float32, or bfl' in said
