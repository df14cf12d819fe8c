"""Every command in the READMEs runs as written, where it can without a network; both pages have the same ones."""

import glob
import os
import re
import shlex
import subprocess
import sys

import pytest
from conftest import ECA, REPO, TINY

PAGES = {'README.md': 'pt', 'README.en.md': 'en'}
SHORT = ['--max_iters=4', '--lr_decay_iters=4', '--eval_interval=2']   # for a training: otherwise as written
# what cannot run in a test, by what it starts with or has in it, and why
NOT_HERE = {
    'python3 -m venv': 'make test has done it', 'pip install': 'make test has done it', 'make ': 'it installs',
    'source ': 'a shell of its own', 'git clone': 'network', '--nanogpt=': 'needs the clone',
    'bench.py': 'test_bench.py runs it', 'gpt2': 'network: test_gpt2.py has a hub on this machine',
    '--out_dir=assets/eca-mini --eval_only': 'needs all of Eça, whose characters the model knows',
    'config/finetune_eca.py': 'needs a GPT-2 from the network', '--out_dir=out-eca ': 'made by finetune_eca.py',
    'data/ecadequeiuroz/prepare.py': 'needs a vocabulary: test_prepare_tokens.py', 'data/shakespeare': 'network',
    'data/openwebtext': 'network: test_prepare_tokens.py', 'train_shakespeare_char.py': 'a command of nanoGPT',
    '--nproc_per_node=8': 'eight GPUs, or two machines: test_distributed.py plays them', 'grande.txt': '256 MB',
}
STARTS = ('python ', 'python3 ', 'torchrun ', 'make ', 'git ', 'pip ', 'source ', 'echo ')


def commands(page):
    """The commands on a page, in order: lines of its indented blocks, and `...` in its tables and text."""
    found = []
    for line in (REPO / page).read_text(encoding='utf-8').splitlines():
        line = line.removesuffix('\\')
        spans = [line.strip()] if line.startswith('    ') else re.findall(r'`([^`]+)`', line)
        found += [span for span in spans if span.startswith(STARTS)]
    return [command for command in found if '…' not in command]


def why_not(command):
    return next((why for what, why in NOT_HERE.items() if what in command + ' '), None)


def test_both_pages_have_the_same_commands():
    assert commands('README.md') == commands('README.en.md')
    assert len(set(commands('README.md'))) > 40
    assert not any(' #' in command for command in commands('README.md'))   # a Mac's zsh would take it as an argument


def test_both_pages_have_the_same_parts():
    shapes = []
    for page in PAGES:
        text = (REPO / page).read_text(encoding='utf-8')
        tables = [len(block.splitlines()) for block in re.findall(r'(?:^\|.*\n)+', text, re.M)]
        shapes.append((re.findall(r'^#+', text, re.M), tables, sorted(re.findall(r'\]\((assets/[^)]+)\)', text)),
                       text.count('```')))
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize('page', PAGES)
def test_links_lead_somewhere(page):
    text = (REPO / page).read_text(encoding='utf-8')
    headings = {re.sub(r'[^\w\- ]', '', h.lower()).replace(' ', '-') for h in re.findall(r'^#+ (.*)', text, re.M)}
    for target in re.findall(r'\]\(([^)]+)\)', text):
        if target.startswith('#'):
            assert target[1:] in headings, target
        elif not target.startswith('https://'):
            assert (REPO / target).exists(), target
    for name in re.findall(r'`((?:config|assets|data)/[\w./-]+|\w+\.py)`', text):
        assert (REPO / name).exists() or name.endswith(('/train.bin', '/val.bin', 'explain.html')) or any(
            REPO.glob(f'*/{name}')) or any(REPO.glob(f'data/*/{name}')), name


def test_commands_run(bare):
    """In the order of the page, trainings cut short and small."""
    sample = (bare / ECA / 'amostra.txt').read_text(encoding='utf-8')
    (bare / 'livros').mkdir()
    for name in ('livros/a.txt', 'livro1.txt', 'livro2.txt'):
        (bare / name).write_text(sample, encoding='utf-8')
    python = os.path.dirname(sys.executable)
    env = {**os.environ, 'PATH': python + os.pathsep + os.environ['PATH'], 'http_proxy': 'http://127.0.0.1:9',
           'https_proxy': 'http://127.0.0.1:9', 'HF_HOME': str(bare / 'hf-home')}
    ran = set()
    for command in commands('README.md'):
        if why_not(command) or command in ran:
            continue
        ran.add(command)
        # a training is made small at the end of its command, wherever that is in the line
        line = re.sub(r'(train\.py config/\S+(?: --\S+)*)', lambda m: shlex.join([m[1]] + TINY[1:] + SHORT)
                      .replace(shlex.quote(m[1]), m[1], 1), command)
        line = re.sub(r'(sample\.py (?:--\S+ ?)*)', r'\1 --max_new_tokens=20 ', line) if 'max_new' not in line else line
        words = shlex.split(line)
        is_plain = words[0] == 'python' and words[1].endswith('.py') and not set('|&<>') & set(line)
        if is_plain:
            bare.run(*(path for word in words[1:] for path in (glob.glob(word, root_dir=bare.path) or [word])))
        else:
            done = subprocess.run(['bash', '-c', f'set -o pipefail; {line}'], cwd=bare.path, env=env, timeout=300,
                                  capture_output=True, text=True, encoding='utf-8')
            assert done.returncode == 0, command + '\n' + done.stdout + done.stderr
    assert len(ran) > 25
    for name in ('out-eca-char/ckpt.pt', 'assets/eca-mini/explain.html', 'continuacao.txt', 'out-autor-char/ckpt.pt',
                 'out-eca-char-laptop/loss.png', 'hf-eca-char/model.safetensors'):
        assert (bare / name).exists(), name
