"""GPT-2s of others: weights from Hugging Face, tokenizers that come along, finetuning, without a network."""

import http.server
import json
import shutil
import threading

import pytest
import torch
from conftest import ECA, PORTUGUESE, assert_same_logits, export, load

from model import GPT

transformers = pytest.importorskip('transformers')


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
        for name in ('gpt2', 'alguem/gpt2-pt'):
            assert bare.run('sample.py', f'--init_from={name}', *args, env=env, real=True).count('Meu caro') == 2
        bare.run('data/shakespeare/prepare.py', f'{ECA}/amostra.txt', env=env)
        train = ['train.py', 'config/eval_gpt2.py', '--dataset=shakespeare', '--eval_iters=2', '--batch_size=1',
                 '--block_size=48', '--device=cpu', '--dtype=float32']
        assert 'step 0: train loss' in bare.run(*train, env=env, real=True)
        bare.run(*train, '--eval_only=False', '--max_iters=1', '--gradient_accumulation_steps=1',
                 f'--out_dir={tmp_path}/out', env=env, real=True)
        server.shutdown()
    checkpoint = load(tmp_path / 'out' / 'ckpt.pt')
    assert checkpoint['model_args']['vocab_size'] == hf.config.vocab_size and checkpoint['model_args']['bias']
    json.dumps(checkpoint['tokenizer'])
    assert bare.run('sample.py', f'--out_dir={tmp_path}/out', *args).count('Meu caro') == 2   # no hub, no vocabulary
