"""sample.py: prompts and their mistakes, text that grows and stops, checkpoints that nanoGPT wrote."""

import os
import re
import subprocess
import unicodedata

import pytest
import torch
from conftest import ECA, TINY, load

from model import GPT, GPTConfig
from support.tokenizer import gpt2_tokens

DASHES = '\n---------------\n'


@pytest.fixture(scope='module')
def trained(prepared):
    """A workspace whose out-sample has a model that knows a little."""
    prepared.run('train.py', *TINY, '--max_iters=60', '--eval_interval=30', '--lr_decay_iters=60',
                 '--out_dir=out-sample')
    return prepared


def sample(workspace, *args, out_dir='out-sample', **kwargs):
    return workspace.run('sample.py', f'--out_dir={out_dir}', '--num_samples=2', '--max_new_tokens=60', *args, **kwargs)


def test_unknown_character_is_named(trained):
    message = sample(trained, '--start=Olá 漢 mundo ☃', fails=True)
    assert "'漢' (U+6F22)" in message and "'☃' (U+2603)" in message and 'KeyError' not in message


def test_prompt_from_file(trained, tmp_path):
    (tmp_path / 'prompt.txt').write_text('Minha tia:\n', encoding='utf-8')
    assert sample(trained, f'--start=FILE:{tmp_path}/prompt.txt').startswith('Minha tia:\n')
    assert 'cannot be read: No such file' in sample(trained, '--start=FILE:nada.txt', fails=True)
    (tmp_path / 'latin1.txt').write_bytes('ação'.encode('latin-1'))
    assert 'it is not UTF-8' in sample(trained, f'--start=FILE:{tmp_path}/latin1.txt', fails=True)


def test_home_folder(trained, tmp_path):
    """~ is the home folder, also where the shell does not say so."""
    home = {'HOME': str(tmp_path), 'USERPROFILE': str(tmp_path)}
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run' / 'ckpt.pt').write_bytes((trained / 'out-sample' / 'ckpt.pt').read_bytes())
    assert sample(trained, out_dir='~/run', env=home) == sample(trained)
    sample(trained, '--out=~/text.txt', env=home)
    assert (tmp_path / 'text.txt').read_text(encoding='utf-8') == sample(trained)
    name = tmp_path / 'text.txt'
    name.write_text('Meu caro amigo,\n' * 400, encoding='utf-8')
    assert f'text: {name}' in trained.run('data/shakespeare_char/prepare.py', '~/text.txt', env=home)


def test_prompt_with_accents_apart(trained):
    """As a Mac may write them: a letter, then its accent."""
    assert sample(trained, '--start=' + unicodedata.normalize('NFD', 'ação')).startswith('ação')


def test_greedy_does_not_depend_on_the_seed(trained):
    greedy = sample(trained, '--temperature=0')
    assert greedy == sample(trained, '--temperature=0.0', '--seed=5')
    assert len(set(greedy.split(DASHES))) == 2   # both samples the same, and the empty end


def test_prompt_longer_than_the_window(trained):
    prompt = 'uma carta muito comprida ' * 10
    assert sample(trained, f'--start={prompt}').startswith(prompt)


def test_checkpoint_from_nanogpt(trained):
    """nanoGPT knows no tokenizer record, and its compiled models carry a prefix: the data set's meta.pkl serves."""
    checkpoint = load(trained / 'out-sample' / 'ckpt.pt')
    nanogpt = {'model': {f'_orig_mod.{k}': v for k, v in checkpoint['model'].items()},
               'optimizer': checkpoint['optimizer'][0], 'model_args': checkpoint['model_args'],
               'iter_num': 5, 'best_val_loss': torch.tensor(3.0),   # nanoGPT keeps the loss as a tensor
               'config': {'dataset': 'ecadequeiuroz_char'}}
    (trained / 'out-nano').mkdir()
    torch.save(nanogpt, trained / 'out-nano' / 'ckpt.pt')
    assert sample(trained, out_dir='out-nano') == sample(trained)
    resume = ['train.py', *TINY, '--max_iters=7', '--init_from=resume']
    message = trained.run(*resume, '--out_dir=out-nano', fails=True)
    assert 'was trained with another optimizer than muon' in message   # nanoGPT has AdamW alone


def test_character_checkpoint_without_its_vocabulary(trained, bare):
    checkpoint = load(trained / 'out-sample' / 'ckpt.pt')
    (bare / 'out').mkdir()
    torch.save({k: v for k, v in checkpoint.items() if k != 'tokenizer'}, bare / 'out' / 'ckpt.pt')
    said = sample(bare, out_dir='out', fails=True)
    assert 'has no vocabulary' in said and 'data/ecadequeiuroz_char/meta.pkl is missing or another' in said


def test_tokenizer_travels_with_the_checkpoint(trained, bare):
    """Sampling needs ckpt.pt alone."""
    (bare / 'out').mkdir()
    (bare / 'out' / 'ckpt.pt').write_bytes((trained / 'out-sample' / 'ckpt.pt').read_bytes())
    assert not (bare / ECA / 'meta.pkl').exists()
    assert sample(bare, out_dir='out') == sample(trained)


def test_console_that_cannot_show_a_character(trained):
    text = sample(trained, '--start=«', env={'PYTHONIOENCODING': 'ascii'}, real=True)
    assert text.startswith('\\xab')


def test_streamed_and_unstreamed_text_are_equal(trained):
    for args in (['--num_samples=1'], ['--num_samples=3', '--start=Meu caro'], ['--num_samples=2', '--top_p=0.9']):
        text = sample(trained, *args)
        assert text == sample(trained, *args, '--stream') and '\x1b' not in text and '\r' not in text


def test_stop_ends_each_sample_before_it(trained):
    whole = sample(trained, '--num_samples=3', '--start=Meu').split(DASHES)[:3]
    stop = 'a'
    assert any(stop in text[3:] for text in whole)
    expected = DASHES.join('Meu' + text[3:].split(stop)[0] for text in whole) + DASHES
    assert sample(trained, '--num_samples=3', '--start=Meu', f'--stop={stop}') == expected
    assert sample(trained, '--num_samples=3', '--start=Meu', f'--stop={stop}', '--stream') == expected
    greedy = ['--num_samples=1', '--start=Meu', '--temperature=0']
    stop = sample(trained, *greedy)[3:15]   # it comes at once, and is long: none of it may show
    assert sample(trained, *greedy, f'--stop={stop}') == 'Meu' + DASHES
    assert sample(trained, *greedy, f'--stop={stop}', '--stream') == 'Meu' + DASHES
    two = whole[0][20:22]   # more than a character: the first of them must not show
    plain = sample(trained, '--num_samples=1', '--start=Meu', f'--stop={two}')
    assert sample(trained, '--num_samples=1', '--start=Meu', f'--stop={two}', '--stream') == plain


def test_streaming_waits_for_whole_characters(trained, tmp_path, tiktoken_cache, monkeypatch):
    """With GPT-2's tokens a character can come in several pieces; random weights write little else."""
    monkeypatch.setenv('TIKTOKEN_CACHE_DIR', tiktoken_cache)
    bpe = [token.decode('latin-1') for token in gpt2_tokens({})]
    torch.manual_seed(0)
    config = dict(block_size=64, vocab_size=50257, n_layer=1, n_head=1, n_embd=4)
    model = GPT(GPTConfig(**config))
    broken = [i for i, token in enumerate(bpe) if re.fullmatch('[\x80-\xff]{1,2}', token)][:60]   # bytes, halves of é
    with torch.no_grad():
        model.lm_head.weight.zero_()   # tied: all tokens alike, but those below
        model.transformer.ln_f.bias.fill_(1)
        model.lm_head.weight[broken] = 5
    torch.save({'model': model.state_dict(), 'model_args': config, 'tokenizer': {'kind': 'gpt2', 'bpe': bpe}},
               tmp_path / 'ckpt.pt')
    args = [f'--out_dir={tmp_path}', '--start=é ', '--num_samples=1']
    text = sample(trained, *args)
    assert '\ufffd' in text and any(c in text for c in 'áéíóúâêôãõçàÃÂ') and text == sample(trained, *args, '--stream')


def test_prompt_from_standard_input_and_text_to_a_file(trained, tmp_path):
    process = trained.start('sample.py', '--out_dir=out-sample', '--max_new_tokens=60', '--num_samples=2', '--start=-',
                            f'--out={tmp_path}/cartas.txt', stdin=subprocess.PIPE)
    printed, said = process.communicate('Meu caro José\n', timeout=60)
    assert process.returncode == 0 and printed == '' and f'wrote {tmp_path}/cartas.txt' in said
    written = (tmp_path / 'cartas.txt').read_text(encoding='utf-8')
    assert written == sample(trained, '--num_samples=2', '--start=Meu caro José')
    assert os.listdir(tmp_path) == ['cartas.txt']


def test_a_file_that_cannot_be_written_is_found_out_first(trained, monkeypatch):
    """Before there is a model: this one is not there."""
    for out in ('/dev/null', 'nada/text', 'data', '/proc/text'):
        assert f'out = {out} ' in sample(trained, f'--out={out}', out_dir='out-nada', fails=True)


def read_sample(process):
    """What sample.py prints up to the dashes."""
    text = ''
    while not text.endswith(DASHES):
        char = process.stdout.read(1)
        assert char, text
        text += char
    return text.removesuffix(DASHES)


def test_interactive_in_a_pipe(trained):
    """Each line is answered before the next one is sent; what cannot be read is said, and it goes on."""
    args = ['--interactive', '--max_new_tokens=40', '--temperature=0']
    out_dir = 'assets/eca-mini'   # a small model would repeat itself, whatever it is asked
    process = trained.start('sample.py', f'--out_dir={out_dir}', *args, stdin=subprocess.PIPE)

    def ask(line):
        process.stdin.write(line)
        process.stdin.flush()
        return read_sample(process)

    one = ['--num_samples=1', '--max_new_tokens=40', '--temperature=0']
    first = ask('Meu caro\n')
    assert first == sample(trained, *one, '--start=Meu caro', out_dir=out_dir).removesuffix(DASHES)
    second = ask('\n')
    assert first + second == sample(trained, *one, f'--start={first}', out_dir=out_dir).removesuffix(DASHES)
    assert len(second) == 40 and second != first.removeprefix('Meu caro')
    process.stdin.write('漢字\n')
    assert ask('A casa\\n\n').startswith('A casa\n')
    assert ask('fim\r\n').startswith('fim')   # as Windows ends a line
    printed, said = process.communicate(timeout=60)
    assert process.returncode == 0 and printed == ''
    assert said.count('device: ') == 1 and said.count("never seen: '字' (U+5B57) '漢' (U+6F22)") == 1
    assert 'tokens in the prompt' not in said and 'an empty line goes on with the last one' in said


def test_interactive_from_an_empty_line(trained):
    """It goes on with the prompt, each time otherwise; the end of a text before `stop` is no end for the next."""
    def write(lines, *args):
        process = trained.start('sample.py', '--out_dir=out-sample', '--interactive', '--max_new_tokens=40', *args,
                                stdin=subprocess.PIPE)
        printed, _ = process.communicate(lines, timeout=60)
        assert process.returncode == 0
        return printed.split(DASHES)

    assert write('') == ['']
    first, second, end = write('\n\n', '--start=Meu caro')
    whole = sample(trained, '--num_samples=1', '--max_new_tokens=40', '--start=Meu caro').removesuffix(DASHES)
    assert 'Meu caro' + first == whole and second != first and end == ''
    texts = write('\n' * 6, '--stop=a')
    assert len(texts) == 7 and not any('a' in text for text in texts) and any(texts[1:])


@pytest.mark.parametrize('args', [['--out=cartas.txt'], ['--start=-']])
def test_interactive_and_what_it_cannot_go_with(trained, args):
    assert 'leave out --out= and --start=-' in sample(trained, '--interactive', *args, fails=True)
