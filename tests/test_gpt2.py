"""GPT-2 in and out: weights from Hugging Face and back, tokenizers that come along, finetuning, without a network."""

import http.server
import json
import re
import shutil
import threading

import pytest
import torch
from conftest import ECA, TINY, load

import tokenizer
from checkpoint import load_checkpoint
from model import GPT

transformers = pytest.importorskip('transformers')
PORTUGUESE = 'Não há pressa, José: o coração da avó «às vezes» dói…\n\n\tPõe-te à janela — são 7h30!  Até já.\r\n 😀'


def save_gpt2(folder, **config):
    """A GPT-2 of random weights, large enough to have opinions, as transformers saves it."""
    torch.manual_seed(0)
    hf = transformers.GPT2LMHeadModel(transformers.GPT2Config(bos_token_id=None, eos_token_id=None, **config)).eval()
    with torch.no_grad():
        for p in hf.parameters():
            p.normal_(0, 0.2)
    hf.save_pretrained(folder)
    return hf


def save_bpe(folder, text, vocab_size=600):
    """A byte-level BPE like GPT-2's, learned from a text, as transformers saves it."""
    from tokenizers import ByteLevelBPETokenizer
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator([text], vocab_size, special_tokens=['<|fim|>'], show_progress=False)
    hf = transformers.PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, eos_token='<|fim|>')
    hf.save_pretrained(folder)
    return hf


@torch.no_grad()
def assert_same_logits(ours, hf, vocab_size):
    idx = torch.randint(vocab_size, (3, ours.config.block_size))
    torch.testing.assert_close(ours.eval()(idx, idx)[0][..., :vocab_size], hf.eval()(idx).logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize('n_layer, n_head, n_embd, n_positions, vocab_size', [
    (1, 1, 16, 8, 31), (3, 4, 64, 64, 1000), (2, 6, 96, 128, 50257)])
def test_weights_in(tmp_path, n_layer, n_head, n_embd, n_positions, vocab_size):
    hf = save_gpt2(tmp_path / 'hf', n_layer=n_layer, n_head=n_head, n_embd=n_embd, n_positions=n_positions,
                   vocab_size=vocab_size)
    model = GPT.from_pretrained(str(tmp_path / 'hf'))
    assert model.config.block_size == n_positions and model.config.bias
    assert_same_logits(model, hf, vocab_size)
    model.crop_block_size(n_positions // 2)   # the first positions are those of the whole
    assert_same_logits(model, hf, vocab_size)


@pytest.mark.parametrize('config, says', [
    (dict(n_inner=24), 'it is a variant of GPT-2: its n_inner is 24, not 32'),
    (dict(activation_function='relu'), 'its activation_function is relu, not gelu_new'),
    ('llama', 'it is a model of the kind llama, not a GPT-2'),
    ('nothing', 'cannot be loaded'),
])
def test_what_is_not_gpt2(prepared, tmp_path, config, says):
    folder = tmp_path / 'hf'
    if config == 'llama':
        transformers.LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
                                 num_attention_heads=1).save_pretrained(folder)
    elif config == 'nothing':
        folder.mkdir()
    else:
        save_gpt2(folder, n_layer=1, n_head=1, n_embd=8, n_positions=8, vocab_size=9, **config)
    said = prepared.run('sample.py', f'--init_from={folder}', fails=True)
    assert said.startswith(f'sample.py: init_from = {folder} cannot be loaded') and says in said


def export(workspace, out_dir, to):
    """(our model, transformers' model, its tokenizer) of a checkpoint and of what export.py makes of it."""
    assert f'wrote {to}' in workspace.run('export.py', f'--out_dir={out_dir}', f'--to={to}/',
                                          env={'TIKTOKEN_CACHE_DIR': str(workspace / 'none')})
    hf, hf_tokenizer = (kind.from_pretrained(to) for kind in (transformers.AutoModelForCausalLM,
                                                              transformers.AutoTokenizer))
    assert (to / 'model.safetensors').exists() and not list(to.parent.glob('*.tmp'))
    return load_checkpoint(str(out_dir / 'ckpt.pt'))[0], hf, hf_tokenizer


@pytest.mark.parametrize('bias', [False, True])
def test_characters_out(prepared, tmp_path, bias):
    """A character model in transformers: the same logits, a fast tokenizer, a pipeline that writes."""
    prepared.run('train.py', *TINY, '--max_iters=3', f'--bias={bias}', f'--out_dir={tmp_path}/out')
    ours, hf, hf_tokenizer = export(prepared, tmp_path / 'out', tmp_path / 'hf')
    assert_same_logits(ours, hf, ours.config.vocab_size)
    text = (prepared / ECA / 'amostra.txt').read_text(encoding='utf-8')[:5000]
    encode, decode = tokenizer.get_codec(load(tmp_path / 'out' / 'ckpt.pt')['tokenizer'])
    assert hf_tokenizer.is_fast and hf_tokenizer(text).input_ids == encode(text)
    assert hf_tokenizer.decode(encode(text)) == text == decode(encode(text))
    written = transformers.pipeline('text-generation', str(tmp_path / 'hf'))('Meu caro', do_sample=True)
    assert len(written[0]['generated_text']) == 32   # the window is full
    refused = prepared.run('sample.py', f'--init_from={tmp_path}/hf', '--start=漢', fails=True)
    assert "the model's tokenizer cannot read the prompt" in refused
    again = prepared.run('export.py', f'--out_dir={tmp_path}/out', f'--to={tmp_path}/hf', fails=True)
    assert f'to = {tmp_path}/hf is there already' in again


def test_gpt2_tokens_out(prepared, tmp_path, tiktoken_cache, monkeypatch):
    """A model over GPT-2's own tokens: prepared, trained, exported; the padding of the vocabulary stays behind."""
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
        bpe = [token.decode('latin-1') for token in tokenizer.gpt2_tokens({})]
        checkpoint['tokenizer'] = {'kind': 'gpt2', 'bpe': bpe}   # as a finetuned model has it: whole
        encode, _ = tokenizer.get_codec({'kind': 'gpt2'})
        ids = encode(PORTUGUESE)
    torch.save(checkpoint, tmp_path / 'out' / 'ckpt.pt')
    assert '---' in prepared.run('sample.py', f'--out_dir={tmp_path}/out', '--max_new_tokens=5')   # no vocabulary here
    ours, hf, hf_tokenizer = export(prepared, tmp_path / 'out', tmp_path / 'hf')
    assert hf.config.vocab_size == len(hf_tokenizer) == 50257 and ours.config.vocab_size == 50304
    assert_same_logits(ours, hf, 50257)
    assert hf_tokenizer(PORTUGUESE).input_ids == ids and hf_tokenizer.decode(ids) == PORTUGUESE
    assert hf_tokenizer.eos_token_id == hf.config.eos_token_id == 50256


def test_finetune_somebodys_model(bare, tmp_path):
    """A GPT-2 with a tokenizer of its own, from a folder: prepare, finetune, resume, sample, export; after the first
    two, without the folder."""
    text = (bare / ECA / 'amostra.txt').read_text(encoding='utf-8')
    folder = tmp_path / 'gpt2-alheio'
    hf_tokenizer = save_bpe(folder, text)
    save_gpt2(folder, n_layer=2, n_head=2, n_embd=32, n_positions=64, vocab_size=len(hf_tokenizer))
    printed = bare.run('data/ecadequeiuroz/prepare.py', f'--tokenizer={folder}', f'{ECA}/amostra.txt')
    n = int(len(text) * 0.9)
    n_tokens = [len(hf_tokenizer(part).input_ids) for part in (text[:n], text[n:])]
    assert f'train has {n_tokens[0]:,} tokens\nval has {n_tokens[1]:,} tokens' in printed

    args = ['train.py', 'config/finetune_eca.py', '--block_size=32', '--batch_size=4', '--eval_iters=0', '--device=cpu',
            '--dtype=float32', '--eval_interval=4', '--learning_rate=1e-2', '--dropout=0', f'--out_dir={tmp_path}/out']
    printed = bare.run(*args, f'--init_from={folder}', '--max_iters=8')
    steps = [line for line in printed.splitlines() if line.startswith('step ')]
    losses = [float(line.split('val loss ')[1].split(',')[0]) for line in steps]
    assert losses[-1] < losses[0] - 0.5
    chars_per_token = len(hf_tokenizer.decode(hf_tokenizer(text[n:]).input_ids[1:])) / (n_tokens[1] - 1)
    bits = float(printed.split(' bits per character')[0].split()[-1])
    assert abs(bits - losses[0] / chars_per_token / 0.6931) < 1e-3

    shutil.rmtree(folder)   # what was needed of it is in the checkpoint
    bare.run(*args, '--init_from=resume', '--max_iters=10')
    checkpoint = load(tmp_path / 'out' / 'ckpt.pt')
    assert checkpoint['iter_num'] == 10 and checkpoint['model_args']['block_size'] == 32
    sample = bare.run('sample.py', f'--out_dir={tmp_path}/out', '--start=Meu caro', '--num_samples=1')
    assert sample.startswith('Meu caro') and len(sample) > 200
    ours, hf, exported = export(bare, tmp_path / 'out', tmp_path / 'hf')
    assert_same_logits(ours, hf, ours.config.vocab_size)
    assert exported(PORTUGUESE).input_ids == hf_tokenizer(PORTUGUESE).input_ids
    assert exported.decode(exported(PORTUGUESE).input_ids) == PORTUGUESE and exported.eos_token == '<|fim|>'
    assert 'gpt2-alheio' in bare.run(*args, f'--init_from={folder}', fails=True)   # gone
    other = bare.run(*args, '--dataset=ecadequeiuroz_char', '--init_from=resume', fails=True)
    assert 'prepare.py' in other   # that text is not prepared
    bare.run(f'{ECA}/prepare.py', f'{ECA}/amostra.txt')
    other = bare.run(*args, '--dataset=ecadequeiuroz_char', '--init_from=resume', fails=True)
    assert 'is not that of the model' in other
    said = bare.run(*args, f'--init_from={tmp_path}/hf', '--block_size=33', fails=True)
    assert "block_size = 33 is not between 1 and the model's 32" in said


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the Hugging Face Hub as a download takes: two models, whose files lie in self.folder."""
    folder = None

    def do_GET(self):
        name = self.path.removeprefix('/').split('/resolve/main/')
        path = self.folder / name[0] / name[1] if len(name) == 2 else None
        found = path is not None and path.is_file()
        self.send_response(200 if found else 404)
        content = path.read_bytes() if found else b''
        self.send_header('Content-Length', str(len(content)))
        self.send_header('X-Repo-Commit', '0' * 40)
        self.send_header('ETag', f'"{len(content)}"')
        if not found:
            self.send_header('X-Error-Code', 'EntryNotFound')
        self.end_headers()
        if self.command == 'GET':
            self.wfile.write(content)

    do_HEAD = do_GET

    def log_message(self, *args):
        pass


def test_from_the_hub(bare, tmp_path, tiktoken_cache):
    """By name: OpenAI's gpt2, with tiktoken's tokenizer, and somebody's, with its own; from a hub on this machine."""
    hub = type('Hub', (Hub,), {'folder': tmp_path})
    hf = save_gpt2(tmp_path / 'gpt2', n_layer=1, n_head=1, n_embd=8, n_positions=64, vocab_size=50257)
    save_gpt2(tmp_path / 'alguem/gpt2-pt', n_layer=1, n_head=2, n_embd=8, n_positions=32, vocab_size=600)
    save_bpe(tmp_path / 'alguem/gpt2-pt', (bare / ECA / 'amostra.txt').read_text(encoding='utf-8'))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        env = {'HF_ENDPOINT': f'http://127.0.0.1:{server.server_port}', 'no_proxy': '127.0.0.1',
               'TIKTOKEN_CACHE_DIR': tiktoken_cache}
        args = ['--num_samples=2', '--max_new_tokens=8', '--start=Meu caro']
        assert bare.run('sample.py', '--init_from=gpt2', *args, env=env).count('Meu caro') == 2
        assert bare.run('sample.py', '--init_from=alguem/gpt2-pt', *args, env=env).count('Meu caro') == 2
        bare.run('data/shakespeare/prepare.py', f'{ECA}/amostra.txt', env=env)
        train = ['train.py', 'config/eval_gpt2.py', '--dataset=shakespeare', '--eval_iters=2', '--batch_size=1',
                 '--block_size=48', '--device=cpu', '--dtype=float32']
        assert 'step 0: train loss' in bare.run(*train, env=env)
        bare.run(*train, '--eval_only=False', '--max_iters=1', '--gradient_accumulation_steps=1',
                 f'--out_dir={tmp_path}/out', env=env)
        server.shutdown()
    checkpoint = load(tmp_path / 'out' / 'ckpt.pt')
    assert checkpoint['model_args']['vocab_size'] == hf.config.vocab_size and checkpoint['model_args']['bias']
    json.dumps(checkpoint['tokenizer'])
    assert bare.run('sample.py', f'--out_dir={tmp_path}/out', *args).count('Meu caro') == 2   # no hub, no vocabulary
