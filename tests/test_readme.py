"""Every command in README and docs/ runs as written, where it can without a network, and so does the course's code;
what the course quotes is in the files; links lead somewhere; the pages are the same in both languages."""

import glob
import os
import re
import shlex
import subprocess
import sys

import pytest
from conftest import ECA, REPO, TINY

# Portuguese, English; their commands run in this order. A page in English has a name in English; where that would be
# the same, .en stands before .md
PAIRS = [
    ('README.md', 'README.en.md'),
    ('docs/curso.md', 'docs/course.md'),
    ('docs/experimentos.md', 'docs/experiments.md'),
    ('docs/tamanhos.md', 'docs/sizes.md'),
    ('docs/lei-de-escala.md', 'docs/scaling-law.md'),
    ('docs/problemas.md', 'docs/problems.md'),
    ('docs/pedacos-de-palavras.md', 'docs/pieces-of-words.md'),
    ('docs/gpt2.md', 'docs/gpt2.en.md'),   # needs the run of README in out-eca-char
    ('docs/processos.md', 'docs/processes.md'),
]
LOG = 'docs/medidas.md'   # in one language; trains anew in out-eca-char, by AdamW
PAGES = [page for pair in PAIRS for page in pair] + [LOG]
COURSES = PAIRS[1]
SHORT = ['--max_iters=4', '--lr_decay_iters=4', '--eval_interval=2']   # for a training: otherwise as written
# what cannot run in a test, by what it starts with or has in it, and why
NOT_HERE = {
    'python3 -m venv': 'make test has done it', 'pip install': 'make test has done it', 'make ': 'it installs',
    'source ': 'a shell of its own', 'git clone': 'network', '--nanogpt=': 'needs the clone',
    'git checkout': 'undoes an edit', 'tools/bench.py': 'test_bench.py runs it',
    'tools/baselines.py': 'needs all of Eça: see test_baselines.py',
    'minha-lei.png': 'needs nine trainings: see test_scaling.py',
    'gpt2': 'network: test_gpt2.py has a hub on this machine',
    '--out_dir=assets/eca-mini --eval_only': 'needs all of Eça, whose characters the model knows',
    'config/finetune_eca.py': 'needs a GPT-2 from the network', '--out_dir=out-eca ': 'made by finetune_eca.py',
    'data/ecadequeiuroz/prepare.py \n': 'needs a vocabulary: test_prepare_tokens.py', 'data/shakespeare': 'network',
    'data/openwebtext': 'network: test_prepare_tokens.py', 'train_shakespeare_char.py': 'a command of nanoGPT',
    '--nproc_per_node=8': 'eight GPUs, or two machines: test_distributed.py plays them', 'grande.txt': '256 MB',
    'python -m mlx_lm': 'not in requirements: test_export.py checks the names that it needs',
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
    pages = [page for page, _ in PAIRS] + [LOG]
    return list(dict.fromkeys(command for page in pages for command in commands(page)))


def why_not(command):
    return next((why for what, why in NOT_HERE.items() if what in command + ' \n'), None)   # which end a command


def anchors(path):
    """What a link to a heading of a page has after its #."""
    headings = re.findall(r'^#+ (.*)', path.read_text(encoding='utf-8'), re.M)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


def test_every_page_has_its_twin():
    assert {f'docs/{path.name}' for path in REPO.glob('docs/*.md')} == {p for p in PAGES if p.startswith('docs/')}
    for pair in PAIRS:
        for page, twin in (pair, pair[::-1]):
            assert f']({os.path.basename(twin)})' in read(page)
    for i, readme in enumerate(PAIRS[0]):   # and README leads to each, in its own language
        assert all(f']({pair[i]})' in read(readme) for pair in PAIRS[1:] + [(LOG, LOG)])
        assert len(read(readme).splitlines()) <= 180   # one page to start


@pytest.mark.parametrize('pair', PAIRS)
def test_both_languages_have_the_same_commands(pair):
    assert commands(pair[0]) == commands(pair[1])
    assert not any(' #' in command for command in commands(pair[0]))   # a Mac's zsh would take it as an argument


def test_there_are_as_many_commands_as_it_takes():
    assert len(set(commands('README.md'))) > 15
    assert len(all_commands()) > 60
    unused = [what for what in NOT_HERE if not any(what in command + ' \n' for command in all_commands())]
    assert unused == []


@pytest.mark.parametrize('pair', PAIRS)
def test_both_languages_have_the_same_parts(pair):
    shapes = []
    for page in pair:
        text = read(page)
        tables = [len(block.splitlines()) for block in re.findall(r'(?:^\|.*\n)+', text, re.M)]
        pictures = sorted(re.findall(r'\]\((?:\.\./)?(assets/[^)]+)\)', text))
        shapes.append((re.findall(r'^#+', text, re.M), tables, pictures, text.count('```')))
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize('pair', PAIRS)
def test_both_languages_have_the_same_figures(pair):
    """In tables. 1.374 in English is 1,374 in Portuguese, and 7,463,557 is 7.463.557."""
    figures = []
    for page in pair:
        rows = re.findall(r'^\|.*', read(page), re.M)
        figures.append([re.findall(r'\d+(?:[.,]\d+)*', row.replace(',', '.')) for row in rows])
    assert figures[0] == figures[1]


def test_links_lead_somewhere():
    """Those of every .md in the repository: files, and headings in them."""
    pages = [path for path in REPO.rglob('*.md') if not any(p[0] == '.' for p in path.relative_to(REPO).parts)]
    found = 0
    for page in pages:
        for target in re.findall(r'\]\(([^)]+)\)', page.read_text(encoding='utf-8')):
            if not target.startswith('https://'):
                path, _, anchor = target.partition('#')
                linked = page.parent / path if path else page
                assert linked.exists(), f'{page}: {target}'
                assert not anchor or anchor in anchors(linked), f'{page}: {target}'
                found += 1
    assert set(PAGES) <= {path.relative_to(REPO).as_posix() for path in pages} and found > 100


@pytest.mark.parametrize('page', [*PAGES, 'CONTRIBUTING.md'])
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


@pytest.mark.parametrize('page', PAIRS[0] + COURSES)
def test_the_summary_of_a_run_is_quoted_as_it_is_printed(page):
    """The lines that begin like those of support/report.py have the same words, whatever their figures."""
    report = read('support/report.py')
    quoted = re.findall(r'^      (?:val loss|in bits) .*', read(page), re.M)
    assert len(quoted) == 2
    for line in quoted:
        words = re.split(r'\d[\d.]*|\(character frequencies\)', line.removeprefix('    '))
        assert all(word in report for word in words), line


def code_blocks(page):
    """(code, what it prints or None) of each part of a page that has Python code to run, and the quoted ones as (file,
    lines). A block whose first line is a comment with a file's name quotes it."""
    to_run = []
    quotes = []
    for part in re.split(r'^(?=## |\*\*\d+\. )', read(page), flags=re.M):
        printed = None
        for language, block in reversed(re.findall(r'^```(\w*)\n(.*?)^```$', part, re.M | re.S)):
            name = re.match(r'# ([\w/]+\.py)\n', block)
            if name:
                quotes.append((name[1], block.splitlines()[1:]))
            elif language == 'python':
                to_run.append((block, printed))
            else:
                printed = block
    return to_run, quotes


@pytest.mark.parametrize('page', COURSES)
def test_quoted_code_is_in_the_files(page):
    """In the order of the quotation, but for indentation."""
    _, quotes = code_blocks(page)
    assert len(quotes) == 6
    for name, lines in quotes:
        source = [line.strip() for line in read(name).splitlines()]
        places = [source.index(line) for line in lines if line in source]
        assert len(places) == len(lines) and places == sorted(places), (name, lines)


@pytest.mark.parametrize('page', COURSES)
def test_code_in_the_course_prints_what_it_says(prepared, page):
    """All of it in one process. What it prints is not compared where it depends on the text that was prepared."""
    to_run, _ = code_blocks(page)
    assert len(to_run) == 4
    mark = '-----\n'
    said = prepared.run('-c', 'print("-----")\n'.join(code for code, _ in to_run), real=True)
    for (code, printed), really in zip(to_run, said.split(mark), strict=True):
        assert really == printed or (printed is None and 'train.bin' in code and really), code


@pytest.mark.parametrize('readme', PAIRS[0])
def test_the_tree_of_files(readme):
    tree = re.search(r'^```\n(model\.py .*?)^```', read(readme), re.M | re.S)[1]
    names = {line.split()[0].rstrip('/') for line in tree.splitlines()}
    assert all((REPO / name).exists() for name in names)
    folders = {'assets', 'config', 'data', 'docs', 'support', 'tests', 'tools'}
    assert names == {path.name for path in REPO.glob('*.py')} | folders | {'mynanogpt.ipynb'}


def test_commands_run(bare):
    """In the order of the pages, trainings cut short and small. README names trainings before it prepares a text."""
    bare.run(f'{ECA}/prepare.py')
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
