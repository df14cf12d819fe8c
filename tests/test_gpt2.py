"""GPT-2s of others: weights from Hugging Face, tokenizers that come along, finetuning, without a network."""

import http.server
import json
import resource
import shutil
import subprocess
import tarfile
import threading
import zipfile

import pytest
import torch
from conftest import ECA, PORTUGUESE, assert_same_logits, export, load

from model import GPT
from support.checkpoints import load_pretrained

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


# -----------------------------------------------------------------------------
# folders that will not do: refused in one line, before anything of a believed size is built

SMALL = dict(n_layer=1, n_head=1, n_embd=8, n_positions=8, vocab_size=300)


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    """A GPT-2 with its tokenizer."""
    folder = tmp_path_factory.mktemp('small')
    save_gpt2(folder, **SMALL)
    save_bpe(folder, 'meu caro amigo ' * 9, vocab_size=270)
    return folder


def change_config(folder, **changes):
    path = folder / 'config.json'
    path.write_text(json.dumps({**json.loads(path.read_text(encoding='utf-8')), **changes}), encoding='utf-8')


def change_weights(folder, change):
    """Replace the weights, a dict of tensors, by change(them)."""
    from safetensors.torch import load_file, save_file
    path = folder / 'model.safetensors'
    weights = change({name: weight.clone() for name, weight in load_file(path).items()})
    save_file(weights, path, metadata={'format': 'pt'})


def without(part):
    return lambda weights: {name: weight for name, weight in weights.items() if part not in name}


def renamed(old, new):
    return lambda weights: {name.replace(old, new, 1): weight for name, weight in weights.items()}


def with_weight(name, value):
    return lambda weights: {**weights, name: value}


CONFIGS = [
    (dict(n_layer=2), 'n_layer is 2, and it has the weights of 1 layers'),
    (dict(n_layer=10**6), 'n_layer is 1000000, and it has the weights of 1 layers'),
    (dict(n_embd=10**7), 'and config.json says (300, 10000000)'),
    (dict(n_positions=2**39), 'and config.json says (549755813888, 8)'),
    (dict(vocab_size=2**60), 'vocab_size in config.json is'),
    (dict(vocab_size=301), 'wte.weight has the shape (300, 8), and config.json says (301, 8)'),
    (dict(n_head=3), 'cannot be split over n_head = 3'),
    (dict(n_head=0), 'n_head = 0 is invalid'),
    (dict(n_layer='1'), 'n_layer'),
    (dict(n_layer=-1), 'n_layer = -1 is invalid'),
    (dict(num_labels=10**9), 'num_labels in config.json is 1000000000'),
    (dict(model_type='x\x1b[0m', auto_map={'AutoConfig': 'code.C'}), 'it is a model of the kind'),
    (dict(transformers_weights='other.safetensors'), 'has transformers_weights'),
    (dict(quantization_config={'quant_method': 'x'}), 'has quantization_config'),
]


@pytest.mark.parametrize('config, says', CONFIGS)
def test_config_that_does_not_fit(prepared, small, tmp_path, config, says):
    folder = tmp_path / 'hf'
    shutil.copytree(small, folder)
    change_config(folder, **config)
    code = folder / 'code.py'
    code.write_text(f'open({str(tmp_path / "ran")!r}, "w")', encoding='utf-8')
    if 'auto_map' in config:   # that is said, too
        with pytest.raises(AssertionError, match='code of its own, which is not run'):
            prepared.run('sample.py', f'--init_from={folder}')
    else:
        said = prepared.run('sample.py', f'--init_from={folder}', fails=True)
        assert f'{folder} cannot be loaded' in said and says in said
    assert not (tmp_path / 'ran').exists()


WEIGHTS = [
    (without('mlp.c_fc.weight'), 'it lacks the weight transformer.h.0.mlp.c_fc.weight'),
    (without('ln_f.bias'), 'it lacks the weight transformer.ln_f.bias'),
    (renamed('transformer.', 'model.transformer.'), 'it has the weights of 0 layers'),
    (renamed('ln_f', 'final'), 'it lacks the weight transformer.ln_f.weight'),
    (with_weight('transformer.h.1.ln_1.weight', torch.ones(8)), 'it has the weights of 2 layers'),
    (with_weight('ln_f.bias', torch.ones(8)), "the weight 'transformer.ln_f.bias' twice"),
    (with_weight('transformer.ln_f.bias', torch.ones(7)), 'has the shape (7,), and config.json says (8,)'),
    (with_weight('transformer.ln_f.bias', torch.ones(8).int()), 'has numbers of the kind I32'),
    (with_weight('lm_head.weight', torch.ones(300, 8)), 'differ, and a GPT has one matrix for both'),
    (with_weight('transformer.ln_f.bias', torch.full((8,), torch.nan)),
     'has weights that are NaN or infinite, in transformer.ln_f.bias'),
]


@pytest.mark.parametrize('change, says', WEIGHTS)
def test_weights_that_do_not_fit(prepared, small, tmp_path, change, says):
    folder = tmp_path / 'hf'
    shutil.copytree(small, folder)
    change_weights(folder, change)
    assert says in prepared.run('sample.py', f'--init_from={folder}', fails=True)


def as_bin(folder, **kwargs):
    """Put the weights in a pytorch_model.bin."""
    from safetensors.torch import load_file
    torch.save(load_file(folder / 'model.safetensors'), folder / 'pytorch_model.bin', **kwargs)
    (folder / 'model.safetensors').unlink()


def in_shards(folder):
    """Put the weights in three files, with an index."""
    hf = transformers.GPT2LMHeadModel.from_pretrained(folder)
    (folder / 'model.safetensors').unlink()
    hf.save_pretrained(folder, max_shard_size='5KB')
    assert (folder / 'model.safetensors.index.json').exists()


GOOD = [
    lambda folder: change_weights(folder, renamed('transformer.', '')),
    lambda folder: change_weights(folder, lambda weights: {**weights, 'lm_head.weight': weights[WTE].clone()}),
    lambda folder: change_weights(folder, with_weight('score.weight', torch.ones(2, 8))),
    lambda folder: change_weights(folder, with_weight('transformer.h.0.attn.bias', torch.ones(1, 1, 8, 8))),
    lambda folder: change_config(folder, auto_map={'AutoModel': 'code.Model'}),
    as_bin, in_shards,
    lambda folder: as_bin(folder, _use_new_zipfile_serialization=False),
]
WTE = 'transformer.wte.weight'


@pytest.mark.parametrize('change', GOOD)
def test_folders_that_will_do(prepared, small, tmp_path, change):
    """Names without a prefix, an output layer of its own that is equal, files of other kinds."""
    args = ['--num_samples=1', '--max_new_tokens=20', '--start=meu caro']
    folder = tmp_path / 'hf'
    shutil.copytree(small, folder)
    change(folder)
    assert prepared.run('sample.py', f'--init_from={folder}', *args) == \
        prepared.run('sample.py', f'--init_from={small}', *args)


def test_a_bin_that_inflates(prepared, small, tmp_path):
    folder = tmp_path / 'hf'
    shutil.copytree(small, folder)
    as_bin(folder)
    with zipfile.ZipFile(folder / 'pytorch_model.bin') as old:
        records = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(folder / 'pytorch_model.bin', 'w', zipfile.ZIP_DEFLATED) as new:
        for name, data in records.items():
            new.writestr(name, data)
    assert 'it is compressed' in prepared.run('sample.py', f'--init_from={folder}', fails=True)


DOUBLED = b'}K\x01\x85' + b''.join(b'q%ch%c\x86' % (i, i) for i in range(60)) + b'Ns.'   # a key that takes 2**60 steps
OLD_BINS = [
    (lambda old: b'\x80\x02' + DOUBLED, 'it is no file of torch.save'),
    (lambda old: old[:21] + b'\x80\x02' + DOUBLED, 'it has a key that is a tuple'),
    (lambda old: old[:21] + b'\x80\x02}.\x80\x02' + DOUBLED, 'it has a key that is a tuple'),
    (lambda old: old[:21] + b'\x80\x02}.\x80\x02cos\nsystem\n.', 'it has the instruction GLOBAL|it asks for os.system'),
    (lambda old: old[:21] + b'\x80\x02X\xff\xff\xff\xff.', 'expected 4294967295 bytes'),
    (lambda old: old[:-8], 'does not have'),
    (lambda old: old[:-200_000], 'cannot be loaded'),
    (lambda old: old.replace(b'K\x08N', b'K\x07N', 1), 'has two types|a tensor of size|does not have'),
    (lambda old: old.replace(b'cpu', b'cud', 1).replace(b'torch\nFloat', b'torch\nFloot', 1), 'asks for torch.Floot'),
]


@pytest.mark.parametrize('change, says', OLD_BINS)
def test_old_bins_that_will_not_do(small, tmp_path, change, says):
    """A pytorch_model.bin that is no zip archive: torch.load comes to no end with some."""
    folder = tmp_path / 'hf'
    shutil.copytree(small, folder)
    as_bin(folder, _use_new_zipfile_serialization=False)
    path = folder / 'pytorch_model.bin'
    new = change(path.read_bytes())
    assert new != path.read_bytes()
    path.write_bytes(new)
    with pytest.raises(SystemExit, match=says) as e:
        load_pretrained(str(folder))
    assert 'cannot be loaded' in str(e.value) and str(e.value).isprintable()


def test_a_tar_that_is_an_old_bin_too(small, tmp_path):
    """torch.load tries that first."""
    folder = tmp_path / 'hf'
    shutil.copytree(small, folder)
    (folder / 'model.safetensors').unlink()
    with tarfile.open(folder / 'pytorch_model.bin', 'w') as tar:
        tar.add(folder / 'config.json', 'pickle')
    with pytest.raises(SystemExit, match='it is of a version of torch that is too old'):
        load_pretrained(str(folder))


def test_an_index_that_leads_elsewhere(prepared, small, tmp_path):
    folder = tmp_path / 'hf'
    shutil.copytree(small, folder)
    (folder / 'model.safetensors').unlink()
    for part, says in (('../../x.safetensors', 'a file'), (3, 'a file in the index of the weights is 3')):
        index = {'weight_map': {'transformer.wte.weight': part}}
        (folder / 'model.safetensors.index.json').write_text(json.dumps(index), encoding='utf-8')
        assert says in prepared.run('sample.py', f'--init_from={folder}', fails=True)


def test_a_tokenizer_with_code(prepared, small, tmp_path):
    """It is not run, on a terminal or not."""
    folder = tmp_path / 'hf'
    shutil.copytree(small, folder)
    path = folder / 'tokenizer_config.json'
    config = json.loads(path.read_text(encoding='utf-8'))
    config.update(tokenizer_class='Mine', auto_map={'AutoTokenizer': ['code.Mine', 'code.Mine']})
    path.write_text(json.dumps(config), encoding='utf-8')
    (folder / 'code.py').write_text(f'open({str(tmp_path / "ran")!r}, "w")', encoding='utf-8')
    process = prepared.start('sample.py', f'--init_from={folder}', '--num_samples=1', '--start=meu caro',
                             stdin=subprocess.PIPE)
    process.communicate('y\ny\n', timeout=120)
    assert not (tmp_path / 'ran').exists()


def test_a_tokenizer_larger_than_its_model(prepared, small, tmp_path):
    folder = tmp_path / 'hf'
    shutil.copytree(small, folder)
    save_bpe(folder, (prepared / ECA / 'amostra.txt').read_text(encoding='utf-8'), vocab_size=400)
    said = prepared.run('sample.py', f'--init_from={folder}', fails=True)
    assert 'the tokenizer has 400 tokens, more than the 300 that the model knows' in said


def change_json(path, change):
    content = json.loads(path.read_text(encoding='utf-8'))
    change(content)
    path.write_text(json.dumps(content), encoding='utf-8')


def test_a_token_with_a_large_number(small, tmp_path):
    """The package tokenizers takes four bytes for each number below it, when asked for its json."""
    folder = tmp_path / 'hf'
    shutil.copytree(small, folder)
    change_json(folder / 'tokenizer.json', lambda content: content['model']['vocab'].update(a=10**8))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SystemExit, match='has 100,000,001 tokens, more than the 300 that the model knows'):
        load_pretrained(str(folder))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000   # kilobytes


def test_an_end_that_is_no_token(small, tmp_path):
    folder = tmp_path / 'hf'
    shutil.copytree(small, folder)
    change_json(folder / 'tokenizer_config.json', lambda content: content.update(eos_token=''))
    _, record = load_pretrained(str(folder))
    assert record['eos'] is None


def test_a_tokenizer_that_panics(prepared, small, tmp_path):
    """Rust prints a note of its own, and raises what is no Exception."""
    folder = tmp_path / 'hf'
    shutil.copytree(small, folder)
    change_json(folder / 'tokenizer.json', lambda content: content['model'].update(continuing_subword_prefix='xxxx'))
    for args in (['sample.py', f'--init_from={folder}'],
                 ['data/ecadequeiuroz/prepare.py', f'--tokenizer={folder}', f'{ECA}/amostra.txt']):
        assert f'{folder} cannot be loaded: ' in prepared.run(*args, fails=True)


def test_a_json_that_says_much(small, tmp_path):
    """Whoever quotes it keeps to a line that can be read."""
    folder = tmp_path / 'hf'
    shutil.copytree(small, folder)
    change_json(folder / 'tokenizer.json', lambda content: content['model']['vocab'].update(a='x' * 10_000))
    with pytest.raises(SystemExit, match='cannot be loaded: invalid type') as e:
        load_pretrained(str(folder))
    assert len(str(e.value)) < 700


def test_a_token_beyond_the_model(prepared, small, tmp_path):
    """One that was added without room for it in the model: the model goes, and the prompt may not have it."""
    folder = tmp_path / 'hf'
    shutil.copytree(small, folder)
    hf = transformers.AutoTokenizer.from_pretrained(folder)
    hf.add_special_tokens({'extra_special_tokens': [f'<|{i}|>' for i in range(302 - len(hf))]})
    hf.save_pretrained(folder)
    assert len(hf) == 302
    args = ['sample.py', f'--init_from={folder}', '--num_samples=1', '--max_new_tokens=3']
    assert prepared.run(*args, '--start=meu caro').startswith('meu caro')
    last = hf.convert_ids_to_tokens(301)
    said = prepared.run(*args, f'--start=meu{last}', fails=True)
    assert f"the prompt has the token '{last}', which the model does not know" in said


def test_names_of_well_known_models(bare, small):
    """A folder called gpt2 is not OpenAI's; distilgpt2 is known, though it has no owner; others are named."""
    shutil.copytree(small, bare / 'gpt2')
    no_hub = dict(env={'HF_HUB_OFFLINE': '1'}, real=True)
    with pytest.raises(AssertionError) as e:
        bare.run('sample.py', '--init_from=gpt2', '--num_samples=1', **no_hub)
    assert 'gpt2 is the model on the Hugging Face Hub; for the folder gpt2 write ./gpt2' in str(e.value)
    assert 'init_from = gpt2 cannot be loaded' in str(e.value) and 'Traceback' not in str(e.value)
    assert bare.run('sample.py', '--init_from=./gpt2', '--num_samples=1', '--start=meu').startswith('meu')
    said = bare.run('sample.py', '--init_from=distilgpt2', fails=True, **no_hub)
    assert 'init_from = distilgpt2 cannot be loaded' in said
    said = bare.run('sample.py', '--init_from=gpt3', fails=True)
    assert 'gpt2-xl, distilgpt2, OWNER/NAME' in said


@pytest.mark.parametrize('args', [
    ['sample.py', '--init_from=HF'], ['data/ecadequeiuroz/prepare.py', '--tokenizer=HF', f'{ECA}/amostra.txt'],
    ['tools/export.py', '--out_dir=assets/eca-mini', '--to=TO']])
def test_python_without_docstrings(prepared, small, tmp_path, args):
    """transformers needs its own: one line, and none of its dozens."""
    args = [arg.replace('HF', str(small)).replace('TO', str(tmp_path / 'to')) for arg in args]
    process = prepared.start('-OO', *args)
    printed, said = process.communicate(timeout=100)
    assert process.returncode == 1 and len(said.splitlines()) == 1 and '[ERROR]' not in printed
    assert 'needs the package transformers, which does not work with python -OO; leave -OO away' in said
