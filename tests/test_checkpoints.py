"""Checkpoints: written whole or not at all, read from anybody without harm."""

import io
import os
import pickle
import random
import re
import resource
import zipfile

import pytest
import torch
from conftest import TINY

from model import GPT, GPTConfig
from muon import Muon
from support import checkpoints, checks, processes
from support.checkpoints import load_checkpoint, save_checkpoint
from support.torch_file import read_torch_file

ARGS = dict(n_layer=1, n_head=1, n_embd=8, block_size=4, bias=False, vocab_size=5, dropout=0.5)
CHECKPOINT = {'model': GPT(GPTConfig(**ARGS)).state_dict(), 'model_args': ARGS, 'iter_num': 7}


def test_checkpoint_round_trip(tmp_path):
    path = str(tmp_path / 'ckpt.pt')
    save_checkpoint(CHECKPOINT, path)
    save_checkpoint({**CHECKPOINT, 'iter_num': 8}, path)   # over the old one
    assert load_checkpoint(path)[1]['iter_num'] == 8
    assert os.listdir(tmp_path) == ['ckpt.pt']


def test_weights_that_do_not_fit_their_description(tmp_path):
    path = str(tmp_path / 'ckpt.pt')
    for wrong in (dict(n_layer=2), dict(n_embd=16), dict(n_head=3), dict(colour='red')):
        save_checkpoint({**CHECKPOINT, 'model_args': {**ARGS, **wrong}}, path)
        with pytest.raises(SystemExit, match='not a whole checkpoint'):
            load_checkpoint(path)


def test_old_nanogpt_names(tmp_path):
    """Prefixes of compiled models, and the mask that nanoGPT stored on torch 1."""
    weights = {f'_orig_mod.{k}': v for k, v in CHECKPOINT['model'].items()}
    weights['_orig_mod.transformer.h.0.attn.bias'] = torch.ones(1, 1, 4, 4)
    save_checkpoint({**CHECKPOINT, 'model': weights}, str(tmp_path / 'ckpt.pt'))
    model, _ = load_checkpoint(str(tmp_path / 'ckpt.pt'), dropout=0.25)
    assert all(torch.equal(v, CHECKPOINT['model'][k]) for k, v in model.state_dict().items())
    assert model.config.dropout == 0.25


def test_failed_save_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = str(tmp_path / 'ckpt.pt')
    save_checkpoint(CHECKPOINT, path)

    def half_a_save(checkpoint, f):
        f.write(b'half')
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(torch, 'save', half_a_save)
    with pytest.raises(SystemExit, match='No space left on device'):
        save_checkpoint({**CHECKPOINT, 'iter_num': 8}, path)
    assert load_checkpoint(path)[1]['iter_num'] == 7 and os.listdir(tmp_path) == ['ckpt.pt']


class Payload:
    """What a stranger's pickle would do: run a command."""
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}',)


def test_payloads_do_not_run(tmp_path):
    ran = tmp_path / 'ran'
    torch.save({**CHECKPOINT, 'config': Payload(ran)}, tmp_path / 'ckpt.pt')
    with pytest.raises(SystemExit, match='not a whole checkpoint'):
        load_checkpoint(str(tmp_path / 'ckpt.pt'))
    assert not ran.exists()


@pytest.mark.parametrize('content', [b'', b'not a checkpoint', pickle.dumps({'model': 3}, 2), pickle.dumps([1, 2], 2)])
def test_files_that_are_something_else(tmp_path, content):
    (tmp_path / 'file').write_bytes(content)
    with pytest.raises(SystemExit, match='not a whole checkpoint'):
        load_checkpoint(str(tmp_path / 'file'))


def test_flipped_bytes(prepared, tmp_path):
    """One bit wrong, anywhere in a checkpoint: it is refused, or it is what it was."""
    prepared.run('train.py', *TINY, '--max_iters=1', f'--out_dir={tmp_path}/out')
    data = (tmp_path / 'out' / 'ckpt.pt').read_bytes()
    whole, _ = load_checkpoint(str(tmp_path / 'out' / 'ckpt.pt'))
    rng = random.Random(0)
    refused = 0
    for _ in range(150):
        i = rng.randrange(len(data))
        (tmp_path / 'ckpt.pt').write_bytes(data[:i] + bytes([data[i] ^ 1 << rng.randrange(8)]) + data[i + 1:])
        try:
            model, _ = load_checkpoint(str(tmp_path / 'ckpt.pt'))
        except SystemExit as e:
            assert 'is not a whole checkpoint' in str(e)
            refused += 1
        else:
            assert all(torch.equal(v, whole.state_dict()[k]) for k, v in model.state_dict().items())
    assert refused > 50


# -----------------------------------------------------------------------------
# archives that torch.save does not write

def edit_archive(path, change, compression=zipfile.ZIP_STORED):
    """Save CHECKPOINT to path, with change(name, bytes) in the place of each record's bytes."""
    buffer = io.BytesIO()
    torch.save(CHECKPOINT, buffer)
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(path, 'w', compression) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))


def refusal(path, says='is not a whole checkpoint'):
    """The line with which a file is refused, in less than 100 MB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SystemExit, match=says) as e:
        load_checkpoint(str(path))
    assert '\n' not in str(e.value) and resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
    return str(e.value)


def with_pickle(tmp_path, data):
    """The refusal of an archive whose data.pkl is something else."""
    edit_archive(tmp_path / 'ckpt.pt', lambda name, old: data if name.endswith('data.pkl') else old)
    return refusal(tmp_path / 'ckpt.pt')


def test_an_archive_that_inflates(tmp_path):
    def zeros(name, old):
        return bytes(300_000_000) if name.endswith('data/0') else old
    edit_archive(tmp_path / 'ckpt.pt', zeros, zipfile.ZIP_DEFLATED)
    assert os.path.getsize(tmp_path / 'ckpt.pt') < 10**6
    assert 'it is compressed, and torch.save does not compress' in refusal(tmp_path / 'ckpt.pt')


def test_a_record_that_is_too_short(tmp_path):
    """torch.load would read what lies behind it in the memory."""
    edit_archive(tmp_path / 'ckpt.pt', lambda name, old: old[:-4] if name.endswith('data/0') else old)
    assert "its record '0' does not have" in refusal(tmp_path / 'ckpt.pt')


def test_two_records_of_one_name(tmp_path):
    edit_archive(tmp_path / 'ckpt.pt', lambda name, old: old)
    with zipfile.ZipFile(tmp_path / 'ckpt.pt', 'a') as archive, pytest.warns(UserWarning, match='Duplicate name'):
        archive.writestr('archive/data/0', b'')
    assert 'two records of one name' in refusal(tmp_path / 'ckpt.pt')


def test_checksums(tmp_path):
    """Of a tensor, and of a record that no tensor has."""
    torch.save(CHECKPOINT, tmp_path / 'ckpt.pt')
    data = (tmp_path / 'ckpt.pt').read_bytes()
    with zipfile.ZipFile(tmp_path / 'ckpt.pt') as archive:
        offset = data.index(archive.read('ckpt/data/0'))
    (tmp_path / 'ckpt.pt').write_bytes(data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1:])
    assert 'Bad CRC-32' in refusal(tmp_path / 'ckpt.pt')


def test_an_encrypted_archive(tmp_path):
    """zipfile's words for it have the name of the record in them, and that may be any."""
    path = tmp_path / 'ckpt.pt'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('out of memory/data.pkl', b'N.')
    data = path.read_bytes()
    for mark, place in ((b'PK\x03\x04', 6), (b'PK\x01\x02', 8)):   # the flags of the record, and of its entry
        i = data.index(mark) + place
        data = data[:i] + bytes([data[i] | 1]) + data[i + 1:]
    path.write_bytes(data)
    assert 'it is encrypted' in refusal(path)


# a tuple of itself twice, sixty times, as a key: its hash would take 2**60 steps
DOUBLED = b'\x80\x02}K\x01\x85' + b''.join(b'q%ch%c\x86' % (i, i) for i in range(60)) + b'Ns.'
PICKLES = [
    (DOUBLED, 'a key that is a tuple'),
    (b'\x80\x02' + b']' * 900_000 + b'a' * 899_999 + b'.', 'the file is a list'),
    (b'\x80\x02' + b'K\x01' * 3_000_000 + b'.', 'more than 2,000,000 instructions'),
    (b'\x80\x02Nr\xff\xff\xff\x7f.', 'the file is None'),
    (b'\x80\x02j\xff\xff\xff\x7f.', 'refers to what is not there'),
    (b'\x80\x02c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R.', 'asks for __builtin__.bytearray'),
    (b'\x80\x02cposix\nsystem\nX\x02\x00\x00\x00ls\x85R.', 'asks for posix.system'),
    (b'\x80\x02c\x1b]0;x\x07\ny\n.', 'asks for'),
    (b'\x80\x02\x8a\xff' + b'\x7f' * 255 + b'.', 'a number beyond 64 bits'),
    (b'\x80\x02.', 'ends too soon'),
    (b'\x80\x02}', 'ends too soon|exhausted before'),
    (b'\x80\x02s.', 'ends too soon'),
    (b'\x80\x02u.', 'refers to what is not there'),
    (b'\x80\x02}}Ns.', 'a key that is a dict'),
    (b'\x80\x02]q\x00h\x00a.', 'the file is a list'),
    (b'\x80\x02NQ.', 'a storage without description'),
    (b'\x80\x02X\x07\x00\x00\x00storageNNNN(ttQ.', 'a storage without description|there|too soon'),
    (b'\x80\x02ccollections\nOrderedDict\nK\x01\x85R.', 'calls collections OrderedDict otherwise'),
    (b'\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(NNNNtR.', 'a tensor without description'),
    (b'\x80\x02NNR.', 'calls what is no function'),
    (b'', 'exhausted before|ends too soon'),
]


@pytest.mark.parametrize('data, says', PICKLES)
def test_pickles_that_torch_does_not_write(tmp_path, data, says):
    """Bombs, references to nothing, functions."""
    assert re.search(says, with_pickle(tmp_path, data))


def test_random_pickles(tmp_path):
    """A whole data.pkl with some bytes changed, so that the archive's checksums are right."""
    buffer = io.BytesIO()
    torch.save(CHECKPOINT, buffer)
    rng = random.Random(0)
    for _ in range(200):
        def change(name, old):
            if not name.endswith('data.pkl'):
                return old
            new = bytearray(old)
            for _ in range(rng.choice([1, 1, 3])):
                new[rng.randrange(len(new))] = rng.choice([rng.randrange(256), *b'\x85\x86\x87jhqrRQbsuae.(}]'])
            return bytes(new)
        edit_archive(tmp_path / 'ckpt.pt', change)
        try:
            load_checkpoint(str(tmp_path / 'ckpt.pt'))
        except SystemExit as e:
            assert 'is not a whole checkpoint' in str(e) or 'has weights that are NaN' in str(e)
            assert '\n' not in str(e) and str(e).isprintable()


@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='Windows has none')
def test_a_pipe(tmp_path):
    os.mkfifo(tmp_path / 'ckpt.pt')
    assert 'it is a pipe, not a file' in refusal(tmp_path / 'ckpt.pt', 'cannot be read')


# -----------------------------------------------------------------------------
# sizes that are believed, and fields

WTE = 'transformer.wte.weight'
BIG = torch.ones(1).expand(10**7, 10**7)


def weights_with(**changes):
    return {'model': {**CHECKPOINT['model'], **{name.replace('__', '.'): w for name, w in changes.items()}}}


def args_with(**changes):
    return {'model_args': {**ARGS, **changes}}


def tokenizer_with(**record):
    return {'tokenizer': record}


ALL_BYTES = [chr(i) for i in range(256)]
BPE = ALL_BYTES + [f'a{i}' for i in range(50000)]
FIELDS = [
    (args_with(n_layer=10**6), 'n_layer is 1000000, and it has the weights of 1 layers'),
    (args_with(n_embd=10**7), 'has the shape (5, 8), not (5, 10000000)'),
    (args_with(vocab_size=2**40), 'not (1099511627776, 8)'),
    (args_with(block_size=2**40), 'not (1099511627776, 8)'),
    (args_with(n_embd=2**60), 'n_embd is 1152921504606846976, not between'),
    (args_with(n_head=1.0), 'n_head is 1.0, not an int'),
    (args_with(n_layer=True), 'n_layer is True, not an int'),
    (args_with(n_head=0), 'n_head is 0, not between'),
    (args_with(bias=0), 'bias is 0, not a bool'),
    (args_with(dropout='0'), "dropout is '0', not an int or float"),
    (args_with(dropout=1.5), 'dropout = 1.5 is invalid'),
    (args_with(vocab_size=None), 'vocab_size is None'),
    ({'model_args': [1]}, 'model_args is a list, not a dict'),
    ({'model': [1]}, 'model is a list'),
    (weights_with(extra=torch.ones(3)), "has a weight 'extra', which is not known"),
    (weights_with(transformer__ln_f__weight=torch.ones(9)), 'ln_f.weight has the shape (9,), not (8,)'),
    (weights_with(transformer__ln_f__weight=torch.ones(8).int()), 'not dense numbers of'),
    (weights_with(transformer__ln_f__weight=torch.ones(8).to(torch.complex64)), 'not dense numbers of'),
    (weights_with(transformer__ln_f__weight=torch.ones(1).expand(8)), 'with 1 elements only'),
    (weights_with(transformer__ln_f__weight=torch.ones(20)[::2][:8]), 'with gaps'),
    (weights_with(transformer__ln_f__weight=BIG), 'with 1 elements only'),
    (weights_with(transformer__ln_f__weight=torch.eye(8).to_sparse()), 'asks for'),
    (weights_with(transformer__ln_f__weight=torch.ones(8, device='meta')), 'asks for'),
    (weights_with(transformer__ln_f__weight=3), 'ln_f.weight is 3, not a tensor'),
    (weights_with(lm_head__weight=torch.ones(5, 8)), 'differ, and a GPT has one matrix for both'),
    ({'iter_num': 7.0}, 'iter_num is 7.0'),
    ({'iter_num': float('nan')}, 'iter_num is nan'),
    ({'iter_num': -3}, 'iter_num is -3'),
    ({'iter_num': 2**50}, 'iter_num is'),
    ({'iter_num': torch.tensor(7)}, 'iter_num is a tensor () of int64'),
    ({'best_val_loss': '1.5'}, "best_val_loss is '1.5'"),
    ({'best_val_loss': float('nan')}, 'best_val_loss is nan'),
    ({'best_val_loss': torch.tensor(float('nan'))}, 'best_val_loss is nan'),
    ({'best_val_loss': torch.ones(1)}, 'best_val_loss has the shape (1,)'),
    ({'elapsed_s': float('inf')}, 'elapsed_s is inf'),
    ({'elapsed_s': None}, 'elapsed_s is None'),
    ({'wandb_id': 7}, 'wandb_id is 7, not a str'),
    ({'wandb_id': '../../elsewhere'}, "wandb_id is '../../elsewhere', which is no id of a run"),
    ({'wandb_id': 'abc\x1b[2J'}, 'which is no id of a run'),
    ({'tokens_read': '8'}, "tokens_read is '8'"),
    ({'tokens_read': -8}, 'tokens_read is -8'),
    ({'config': 7}, 'config is 7, not a dict'),
    ({'config': {3: 4}}, 'a name in config is 3'),
    ({'config': {'n_layer': [1]}}, "config['n_layer'] is a list"),
    ({'config': {'dataset': 3}}, 'dataset is 3'),
    ({'scaler': 3}, 'scaler is 3'),
    ({'scaler': {'scale': 1.0}}, 'scaler has no growth_factor'),
    (tokenizer_with(kind='char', itos=[1, 2, 3, 4, 5]), 'its tokens are no list of strings'),
    (tokenizer_with(kind='char', itos=list('aabcd')), "the token 'a' is there twice"),
    (tokenizer_with(kind='char', itos=list('abcd')), 'has 4 entries, not 5'),
    (tokenizer_with(kind='char', itos=dict(enumerate('abcde'))), 'its tokens are no list of strings'),
    (tokenizer_with(kind='char', itos=[*'abcd', '\ud800']), 'a token has half a character'),
    (tokenizer_with(kind='char'), 'its tokens are no list of strings'),
    (tokenizer_with(kind=['char']), 'its tokenizer is no record'),
    (tokenizer_with(itos=list('abcde')), 'its tokenizer is no record'),
    (tokenizer_with(kind='gpt2'), '50,257 tokens, more than the 5 that the model knows'),
    (tokenizer_with(kind='hf', json='{}', eos=None), 'json of the tokenizer cannot be read'),
    (tokenizer_with(kind='hf', json=3), 'json of the tokenizer is no text'),
    (tokenizer_with(kind='hf', json='{}', eos=3), 'eos of the tokenizer is no text'),
]


@pytest.mark.parametrize('change, says', FIELDS)
def test_fields(tmp_path, change, says):
    torch.save({**CHECKPOINT, **change}, tmp_path / 'ckpt.pt')
    assert says in refusal(tmp_path / 'ckpt.pt')


@pytest.mark.parametrize('bias', [False, True])
def test_shapes(bias):
    """As told in advance, those of the model."""
    config = GPTConfig(n_layer=3, n_head=2, n_embd=6, block_size=5, vocab_size=7, bias=bias)
    shapes = {name: weight.shape for name, weight in GPT(config).state_dict().items()}
    assert checks.gpt_shapes(config) == shapes and list(checks.gpt_shapes(config)) == list(shapes)


@pytest.mark.parametrize('dataset, says', [
    ('/etc', "dataset is '/etc', not the name of a folder in data/"),
    ('../x', "dataset is '../x'"),
    ('..', "dataset is '..'"),
    ('a\nb', "dataset is 'a\\nb'"),
])
def test_data_sets_that_are_no_folder_in_data(tmp_path, dataset, says):
    """Where nobody asks for their vocabulary they do no harm: resume, with another --dataset."""
    config = {'config': {'dataset': dataset}}
    torch.save({**{k: v for k, v in CHECKPOINT.items() if k != 'tokenizer'}, **config}, tmp_path / 'ckpt.pt')
    _, checkpoint = checkpoints.load_checkpoint(str(tmp_path / 'ckpt.pt'))
    with pytest.raises(SystemExit) as e:
        checkpoints.checkpoint_tokenizer(checkpoint)
    assert says in str(e.value) and '\n' not in str(e.value)


def test_a_checkpoint_that_names_no_data_set(prepared, tmp_path):
    """The advice helps, as it is written."""
    torch.save({'model': CHECKPOINT['model'], 'model_args': ARGS}, tmp_path / 'ckpt.pt')
    args = ['sample.py', f'--out_dir={tmp_path}', '--num_samples=1', '--start=a', '--max_new_tokens=3']
    said = prepared.run(*args, fails=True)
    assert 'the checkpoint has no vocabulary, and names no data set; put its meta.pkl into a folder data/NAME' in said
    advice = said.partition('in Python: ')[2].strip()
    (prepared / 'data/letras').mkdir()
    meta = {'vocab_size': 5, 'itos': dict(enumerate('abcd\n')), 'stoi': {c: i for i, c in enumerate('abcd\n')}}
    (prepared / 'data/letras/meta.pkl').write_bytes(pickle.dumps(meta))
    exec(advice, {'torch': torch, 'PATH': str(tmp_path / 'ckpt.pt'), 'NAME': 'letras'})
    assert prepared.run(*args).startswith('a')


def test_weights_that_share_memory(tmp_path):
    """A thousand layers that are one."""
    weights = dict(CHECKPOINT['model'])
    for name, weight in CHECKPOINT['model'].items():
        for i in range(1, 50):
            weights[name.replace('.h.0.', f'.h.{i}.')] = weight
    torch.save({'model': weights, 'model_args': {**ARGS, 'n_layer': 50}}, tmp_path / 'ckpt.pt')
    assert 'its weights share memory' in refusal(tmp_path / 'ckpt.pt')


@pytest.mark.parametrize('bpe, says', [
    (BPE, None),
    (BPE[:9], "its tokens are not GPT-2's 50,256"),
    (BPE[:-1] + ['ł'], "its tokens are not GPT-2's 50,256"),
    (BPE[:-1] + ['a0'], "the token 'a0' is there twice"),
    (BPE[:-1] + [b'a0'], 'its tokens are no list of strings'),
    (BPE[1:] + ['zz'], 'its tokens lack some bytes'),
])
def test_tokens_of_gpt2(bpe, says):
    """Wrong ones end in a panic of tiktoken's."""
    record = {'kind': 'gpt2', 'bpe': bpe}
    if says is None:
        checks.check_tokenizer(record, 50257)
    else:
        with pytest.raises(ValueError, match=says):
            checks.check_tokenizer(record, 50257)


def test_tokenizers_that_panic(capfd):
    """Rust prints a backtrace; here it is one line."""
    tokenizers = pytest.importorskip('tokenizers')
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE({'a': 0, 'b': 1, 'ab': 2}, [('a', 'b')]))
    record = {'kind': 'hf', 'json': bpe.to_str(), 'eos': 'ab'}
    checks.check_tokenizer(record, 3)
    for change, says in (
            ({'json': record['json'].replace('"continuing_subword_prefix":null', '"continuing_subword_prefix":"xyz"')},
             'json of the tokenizer cannot be read'),
            ({'json': record['json'].replace('"ab":2', '"ab":3')}, 'has 4 tokens, more than the 3'),
            ({'json': record['json'] + '\ud800'}, 'json of the tokenizer cannot be read'),
            ({'eos': 'abc'}, "eos of the tokenizer is 'abc', which is not one of the tokens")):
        with pytest.raises(ValueError, match=says):
            checks.check_tokenizer({**record, **change}, 3)
    assert capfd.readouterr().err == ''


def test_what_nanogpt_writes(tmp_path):
    """A tensor for the loss, a prefix, no tokenizer, no bias in model_args at first; a name of a data set."""
    model = GPT(GPTConfig(**{**ARGS, 'bias': True}))
    args = {k: v for k, v in ARGS.items() if k != 'bias'}
    saved = {'model': {f'_orig_mod.{k}': v for k, v in model.state_dict().items()}, 'optimizer': {}, 'model_args': args,
             'iter_num': 5, 'best_val_loss': torch.tensor(1.25),
             'config': {'dataset': 'shakespeare_char', 'learning_rate': 1e-3, 'compile': True}}
    torch.save(saved, tmp_path / 'ckpt.pt')
    loaded, checkpoint = load_checkpoint(str(tmp_path / 'ckpt.pt'))
    assert loaded.config.bias and checkpoint['best_val_loss'] == 1.25 and type(checkpoint['best_val_loss']) is float
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in loaded.state_dict().items())


def test_reading_equals_torch_load(tmp_path):
    """Of tensors of all layouts and types, and of plain values."""
    shared = torch.arange(24.0)
    saved = {'a': shared, 'b': shared[3:15].view(3, 4).mT, 'c': torch.empty(0, 3), 'd': torch.tensor(3),
             'e': [1, (2, [])], 'f': torch.ones(3).bfloat16(), 'g': torch.eye(2).bool(),
             'h': {1: None, 'x': 2**40, 'ç\U0001f600': -1.5}, 'i': torch.nn.Parameter(torch.ones(2)),
             'j': torch.nn.Linear(2, 2).state_dict(), 'k': True}
    torch.save(saved, tmp_path / 'file')
    ours = read_torch_file(str(tmp_path / 'file'))
    theirs = torch.load(tmp_path / 'file', weights_only=True)

    def assert_same(one, two):
        if isinstance(one, torch.Tensor):
            assert one.dtype == two.dtype and one.stride() == two.stride() and torch.equal(one, two)
        elif isinstance(one, dict):
            assert list(one) == list(two)
            for key in one:
                assert_same(one[key], two[key])
        elif isinstance(one, (list, tuple)):
            assert type(one) is type(two) and len(one) == len(two)
            for x, y in zip(one, two):
                assert_same(x, y)
        else:
            assert type(one) is type(two) and one == two

    assert_same(ours, theirs)
    assert ours['a'].untyped_storage().data_ptr() == ours['b'].untyped_storage().data_ptr()
    on_meta = read_torch_file(str(tmp_path / 'file'), device='meta')
    assert on_meta['b'].shape == (4, 3) and on_meta['b'].is_meta


# -----------------------------------------------------------------------------
# the state of an optimizer

def moments_with(kind, i, **changes):
    """The outcome of loading an optimizer's state after two steps, with changes in parameter i's: the optimizer."""
    torch.manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(6, 4)), torch.nn.Parameter(torch.randn(4))]

    def new():
        if kind == 'Muon':
            return Muon(params[:1], lr=1e-3, ns_dtype='float32')
        return torch.optim.AdamW(params, fused=True)

    old = new()
    for _ in range(2):
        for p in params:
            p.grad = torch.ones_like(p)
        old.step()
    state = old.state_dict()
    for name, change in changes.items():
        if change is None:
            del state['state'][i][name]
        elif callable(change):
            state['state'][i][name] = change(state['state'][i][name])
        else:
            state['state'][i][name] = change
    opt = new()
    processes.load_state(opt, state)
    return params[i], opt.state[params[i]], old.state[params[i]]


MOMENTS = [
    ('0-dimensional', lambda m: m.sum(), 'has the shape ()'),
    ('expanded', lambda m: m[:1, :1].expand(6, 4), 'share memory'),
    ('transposed shape', lambda m: m.mT, 'has the shape (4, 6)'),
    ('flat', lambda m: m.flatten(), 'has the shape (24,)'),
    ('gaps', lambda m: m.repeat(1, 2)[:, ::2], 'with gaps'),
    ('int', lambda m: m.int(), 'of int32'),
    ('half', lambda m: m.half(), 'of float16'),
    ('double', lambda m: m.double(), 'of float64'),
    ('complex', lambda m: m.to(torch.complex64), 'of complex64'),
    ('sparse', lambda m: m.to_sparse(), 'not dense'),
    ('meta', lambda m: m.to('meta'), 'not dense'),
    ('NaN', lambda m: m * float('nan'), 'NaN or infinite'),
    ('infinite', lambda m: m / 0, 'NaN or infinite'),
    ('list', lambda m: m.tolist(), 'is a list'),
    ('missing', None, 'has no'),
]


@pytest.mark.parametrize('kind, name', [('AdamW', 'exp_avg'), ('AdamW', 'exp_avg_sq'), ('Muon', 'momentum_buffer')])
@pytest.mark.parametrize('what, change, says', MOMENTS)
def test_moments_of_a_stranger(kind, name, what, change, says):
    """A fused AdamW would write beyond some of them."""
    with pytest.raises(ValueError, match=None if says is None else re.escape(says)):
        moments_with(kind, 0, **{name: change})


@pytest.mark.parametrize('changes, says', [
    (dict(step=3), 'step of parameter 0 is 3'),
    (dict(step=torch.ones(2)), 'has the shape (2,)'),
    (dict(step=torch.ones(1, 1)), 'has the shape (1, 1)'),
    (dict(step=torch.ones(1).int()), 'of int32'),
    (dict(step=torch.tensor(3)), 'of int64'),
    (dict(step=torch.tensor(float('nan'))), 'NaN'),
    (dict(step=torch.tensor(-1.0)), 'below 0'),
    (dict(exp_avg_sq=lambda m: -m), 'below 0'),
    (dict(step=None), 'has no step'),
    (dict(max_exp_avg_sq=torch.ones(6, 4)), "a key 'max_exp_avg_sq', which is not known"),
])
def test_steps_of_a_stranger(changes, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        moments_with('AdamW', 0, **changes)


def test_moments_of_another_layout():
    """Equal values in another order of memory: they are taken in the parameter's own."""
    def turned(m):
        return m.mT.contiguous().mT

    param, new, old = moments_with('AdamW', 0, exp_avg=turned, exp_avg_sq=turned)
    for name in ('exp_avg', 'exp_avg_sq'):
        assert torch.equal(new[name], old[name]) and new[name].stride() == param.stride()
        assert new[name].data_ptr() != old[name].data_ptr()
    assert new['step'] == 2 and new['step'].dtype == torch.float32 and new['step'].data_ptr() != old['step'].data_ptr()


def test_the_step_of_an_old_fused_adamw():
    """In torch 2.0 it is a tensor (1,): nanoGPT's checkpoints from then have it so."""
    param, new, old = moments_with('AdamW', 0, step=lambda step: step[None])
    assert new['step'].shape == () and new['step'] == 2 and new['step'].data_ptr() != old['step'].data_ptr()


def test_the_moments_of_a_single_number():
    """A parameter (1,) keeps its shape."""
    param = torch.nn.Parameter(torch.ones(1))
    old = torch.optim.AdamW([param], fused=True)
    param.grad = torch.ones(1)
    old.step()
    new = torch.optim.AdamW([param], fused=True)
    processes.load_state(new, old.state_dict())
    assert new.state[param]['exp_avg'].shape == (1,) and new.state[param]['step'].shape == ()


@pytest.mark.parametrize('state', [
    {'state': {0: {}, 1: {}}}, {'state': []}, {'state': 7}, {}, [], None, {'state': {'0': {}}}, {'state': {True: {}}},
    {'state': {0: 7, 1: 7}}, {'state': {7: {}}}, {'state': {}, 'more': 1},
    {'state': {0: dict(step=torch.tensor(1.0), exp_avg=torch.ones(6), exp_avg_sq=torch.ones(6))}},
])
def test_states_of_a_stranger(state):
    """All parameters have one, or none."""
    params = [torch.nn.Parameter(torch.ones(6)), torch.nn.Parameter(torch.ones(6))]
    with pytest.raises(ValueError):
        processes.load_state(torch.optim.AdamW(params, fused=True), state)
    processes.load_state(torch.optim.AdamW(params, fused=True), {'state': {}, 'param_groups': []})
