"""Every command in README and docs/ runs as written, where it can without a network; the pages are the same in both
languages."""

import glob
import os
import re
import shlex
import subprocess
import sys

import pytest
from conftest import ECA, REPO, TINY

PAIRS = [   # Portuguese, English; their commands run in this order
    ('README.md', 'README.en.md'),
    ('docs/pedacos-de-palavras.md', 'docs/pieces-of-words.md'),
    ('docs/partir-de-um-gpt2.md', 'docs/starting-from-a-gpt2.md'),   # needs the run of README in out-eca-char
    ('docs/processos.md', 'docs/processes.md'),
    ('docs/lei-de-escala.md', 'docs/scaling-law.md'),
    ('docs/medidas.md', 'docs/measurements.md'),   # trains anew in out-eca-char, by AdamW
]
PAGES = [page for pair in PAIRS for page in pair]
SHORT = ['--max_iters=4', '--lr_decay_iters=4', '--eval_interval=2']   # for a training: otherwise as written
# what cannot run in a test, by what it starts with or has in it, and why
NOT_HERE = {
    'python3 -m venv': 'make test has done it', 'pip install': 'make test has done it', 'make ': 'it installs',
    'source ': 'a shell of its own', 'git clone': 'network', '--nanogpt=': 'needs the clone',
    'tools/bench.py': 'test_bench.py runs it', 'tools/baselines.py': 'needs all of Eça: see test_baselines.py',
    'minha-lei.png': 'needs nine trainings: see test_scaling.py',
    'gpt2': 'network: test_gpt2.py has a hub on this machine',
    '--out_dir=assets/eca-mini --eval_only': 'needs all of Eça, whose characters the model knows',
    'config/finetune_eca.py': 'needs a GPT-2 from the network', '--out_dir=out-eca ': 'made by finetune_eca.py',
    'data/ecadequeiuroz/prepare.py \n': 'needs a vocabulary: test_prepare_tokens.py', 'data/shakespeare': 'network',
    'data/openwebtext': 'network: test_prepare_tokens.py', 'train_shakespeare_char.py': 'a command of nanoGPT',
    '--nproc_per_node=8': 'eight GPUs, or two machines: test_distributed.py plays them', 'grande.txt': '256 MB',
}
STARTS = ('python ', 'python3 ', 'torchrun ', 'make ', 'git ', 'pip ', 'source ', 'echo ')


def read(page):
    return (REPO / page).read_text(encoding='utf-8')


def commands(page):
    """The commands on a page, in order: lines of its indented blocks, and `...` in its tables and text."""
    found = []
    for line in read(page).splitlines():
        line = line.removesuffix('\\')
        spans = [line.strip()] if line.startswith('    ') else re.findall(r'`([^`]+)`', line)
        found += [span for span in spans if span.startswith(STARTS)]
    return [command for command in found if '…' not in command]


def all_commands():
    """Those of all pages, README's first, each once."""
    return list(dict.fromkeys(command for page, _ in PAIRS for command in commands(page)))


def why_not(command):
    return next((why for what, why in NOT_HERE.items() if what in command + ' \n'), None)   # which end a command


def anchors(page):
    """What a link to a heading of the page has after its #."""
    return {re.sub(r'[^\w\- ]', '', h.lower()).replace(' ', '-') for h in re.findall(r'^#+ (.*)', read(page), re.M)}


def test_every_page_has_its_twin():
    assert {f'docs/{path.name}' for path in REPO.glob('docs/*.md')} == {p for p in PAGES if p.startswith('docs/')}
    for pair in PAIRS:
        for page, twin in (pair, pair[::-1]):
            assert f']({os.path.basename(twin)})' in read(page)
    for i, readme in enumerate(PAIRS[0]):   # and README leads to each, in its own language
        assert all(f']({pair[i]})' in read(readme) for pair in PAIRS[1:])


@pytest.mark.parametrize('pair', PAIRS)
def test_both_languages_have_the_same_commands(pair):
    assert commands(pair[0]) == commands(pair[1])
    assert not any(' #' in command for command in commands(pair[0]))   # a Mac's zsh would take it as an argument


def test_there_are_as_many_commands_as_it_takes():
    assert len(set(commands('README.md'))) > 30
    assert len(all_commands()) > 60
    unused = [what for what in NOT_HERE if not any(what in command + ' \n' for command in all_commands())]
    assert unused == []


@pytest.mark.parametrize('pair', PAIRS)
def test_both_languages_have_the_same_parts(pair):
    shapes = []
    for page in pair:
        text = read(page)
        tables = [len(block.splitlines()) for block in re.findall(r'(?:^\|.*\n)+', text, re.M)]
        shapes.append((re.findall(r'^#+', text, re.M), tables, sorted(re.findall(r'\]\((assets/[^)]+)\)', text)),
                       text.count('```')))
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize('pair', PAIRS)
def test_both_languages_have_the_same_figures(pair):
    """1.374 in English is 1,374 in Portuguese, and 7,463,557 is 7.463.557."""
    english = read(pair[1])
    figures = []
    for text in (read(pair[0]), english):
        rows = re.findall(r'^\|.*', text, re.M)
        figures.append([re.findall(r'\d+(?:[.,]\d+)*', row.replace(',', '.')) for row in rows])
    assert figures[0] == figures[1]


@pytest.mark.parametrize('page', PAGES)
def test_links_lead_somewhere(page):
    folder = (REPO / page).parent
    for target in re.findall(r'\]\(([^)]+)\)', read(page)):
        if target.startswith('https://'):
            continue
        path, _, anchor = target.partition('#')
        linked = folder / path if path else REPO / page
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked.relative_to(REPO)), target


@pytest.mark.parametrize('page', PAGES)
def test_files_that_are_named_are_there(page):
    """A script in tools/ or support/ is named with its folder, except in the table's row about that folder."""
    for line in read(page).splitlines():
        row = re.match(r'\| `(tools)/` \|', line)
        places = ['', 'config/', 'data/*/', *(f'{folder}/' for folder in (row.groups() if row else ()))]
        for name in re.findall(r'`((?:assets|config|data|docs|support|tests|tools)/[\w./-]*|\w+\.py)`', line):
            is_made = name.endswith(('/train.bin', '/val.bin', 'explain.html'))
            assert is_made or any(list(REPO.glob(place + name)) for place in places), name


@pytest.mark.parametrize('language', [0, 1])
def test_torchrun_commands_share_their_micro_batches(language):
    found = 0
    for line in [line for pair in PAIRS for line in read(pair[language]).splitlines()]:
        if line.startswith('    torchrun'):
            settings = {'gradient_accumulation_steps': 40}
            exec(read(re.search(r'config/\w+\.py', line)[0]), settings)
            options = {k: int(v) for k, v in re.findall(r'--(\w+)=(\d+)\b', line)}
            steps = options.get('gradient_accumulation_steps', settings['gradient_accumulation_steps'])
            assert steps % (options['nproc_per_node'] * options.get('nnodes', 1)) == 0, line
            found += 1
    assert found == 4


@pytest.mark.parametrize('page', PAGES[:2])
def test_the_summary_of_a_run_is_quoted_as_it_is_printed(page):
    """The lines that begin like those of support/report.py have the same words, whatever their figures."""
    report = read('support/report.py')
    quoted = re.findall(r'^      (?:val loss|in bits) .*', read(page), re.M)
    assert len(quoted) == 2
    for line in quoted:
        words = re.split(r'\d[\d.]*|\(character frequencies\)', line.removeprefix('    '))
        assert all(word in report for word in words), line


def test_commands_run(bare):
    """In the order of the pages, trainings cut short and small."""
    sample = (bare / ECA / 'amostra.txt').read_text(encoding='utf-8')
    (bare / 'livros').mkdir()
    for name in ('livros/a.txt', 'livro1.txt', 'livro2.txt'):
        (bare / name).write_text(sample, encoding='utf-8')
    python = os.path.dirname(sys.executable)
    env = {**os.environ, 'PATH': python + os.pathsep + os.environ['PATH'], 'http_proxy': 'http://127.0.0.1:9',
           'https_proxy': 'http://127.0.0.1:9', 'HF_HOME': str(bare / 'hf-home')}
    ran = [command for command in all_commands() if not why_not(command)]
    for command in ran:
        # a training is made small at the end of its command, wherever that is in the line
        line = re.sub(r'(train\.py config/\S+(?: --\S+)*)', lambda m: shlex.join([m[1]] + TINY[1:] + SHORT)
                      .replace(shlex.quote(m[1]), m[1], 1), command)
        line = re.sub(r'(tools/scaling\.py.*)', r'\1 --sizes=1x1x8 --tokens=2048', line)   # one run, of a second
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
    for name in ('out-eca-bpe-laptop/ckpt.pt', 'out-autor-eca/ckpt.pt', 'hf-eca-bpe/tokenizer.json',
                 'out-eca-char/ckpt.pt', 'assets/eca-mini/explain.html', 'continuacao.txt', 'out-autor-char/ckpt.pt',
                 'out-eca-char-laptop/loss.png', 'hf-eca-char/model.safetensors'):
        assert (bare / name).exists(), name
