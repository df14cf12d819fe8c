"""The prompt that sample.py and tools/explain.py read, and what sample.py shows: lines that fit a terminal, texts
that grow, a file of samples."""

import io
import os
import re
import shutil
import sys
from contextlib import suppress

from tqdm import tqdm

from support.errors import fail
from support.files import check_output, write_whole
from support.printable import printable, printable_line, raw

DASHES = '---------------'   # nanoGPT's, between samples


def read_prompt(start):
    """The text that `start` means: itself, with \\n for a new line; the file's for FILE:name; standard input's for
    -."""
    try:
        if start == '-':
            text = io.TextIOWrapper(sys.stdin.buffer, encoding='utf-8-sig').read()   # with \n for Windows' \r\n
            text = text.removesuffix('\n')   # which echo adds
        elif start.startswith('FILE:'):
            with open(os.path.expanduser(start[5:]), encoding='utf-8-sig') as f:
                text = f.read()
        else:
            text = start.replace('\\n', '\n')
    except (OSError, UnicodeDecodeError) as e:
        where = 'in standard input' if start == '-' else f'file {start[5:]}'
        reason = getattr(e, 'strerror', 'it is not UTF-8')
        fail(f'the prompt {where} cannot be read: {reason}')
    if not text:
        fail('the prompt is empty; give at least one character, as in --start="A"')
    return text


def typed_lines():
    """Yield the lines of standard input until its end (Ctrl-D). On a terminal each is asked for, can be edited, and
    called back by the arrow keys."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        for line in io.TextIOWrapper(sys.stdin.buffer, encoding='utf-8-sig', errors='replace'):
            yield line.removesuffix('\n')
        return
    with suppress(ImportError):   # Windows has none, and edits lines itself
        import readline   # noqa: F401   input() uses it
    while True:
        try:
            line = input('> ')
        except EOFError:
            print()
            return
        yield line


def fit(text):
    """On a terminal: text with new lines in place of some spaces, so that its lines fit. Elsewhere: as it is."""
    if not sys.stdout.isatty():
        return text
    columns = shutil.get_terminal_size().columns
    # where a line is too long: as much of it as fits, up to a space
    return re.sub(rf'(?=[^\n]{{{columns + 1}}})([^\n]{{1,{columns}}}) ', r'\1\n', text.replace('\t', ' '))


def clean(text):
    """On a terminal: text without characters that could be commands to it. Elsewhere: as it is."""
    return printable(text) if sys.stdout.isatty() else text


def bold(text):
    """On a terminal: text in bold, unless the user wants no colours (https://no-color.org). Elsewhere: as it is."""
    if not sys.stdout.isatty() or 'NO_COLOR' in os.environ:
        return text
    return f'\x1b[1m{text}\x1b[0m'


def print_sample(start, text):
    """A whole sample: the prompt, and what the model wrote after it."""
    start = clean(start)
    whole = fit(start + clean(text))   # which changes no length
    print(f'{bold(whole[:len(start)])}{whole[len(start):]}\n{DASHES}', file=raw(sys.stdout))


class GrowingText:
    """Shows the first of several texts while it is written."""

    def __init__(self, start, stop):
        self.start = start
        self.stop = stop
        self.shown = fit(clean(start))   # what is on the screen
        print(bold(self.shown), end='', flush=True, file=raw(sys.stdout))

    def show(self, texts):
        """Print what is certain of the text by now. Held back is what the next tokens may turn into another
        character, into `stop`, or, on a terminal, into a longer word."""
        n_held = max(0, len(self.stop) - 1)
        certain = self.start + texts[0][:max(0, len(texts[0]) - n_held)].rstrip('\ufffd')
        if sys.stdout.isatty():
            certain = certain.rpartition(' ')[0]
        certain = fit(clean(certain))
        print(certain[len(self.shown):], end='', flush=True)
        if len(certain) > len(self.shown):
            self.shown = certain

    def finish(self, texts):
        """Print the rest of the text; returns the texts that are still to be printed."""
        print(fit(clean(self.start + texts[0]))[len(self.shown):] + f'\n{DASHES}')
        return texts[1:]


class GrowingLines:
    """Shows the newest part of several texts while they are written, each on a line of its own."""

    def __init__(self, start, n):
        self.start = start
        self.lines = [tqdm(bar_format='{desc}', position=i, leave=False, dynamic_ncols=True, file=raw(sys.stdout))
                      for i in range(n)]

    def show(self, texts):
        """Show the end of each text."""
        columns = shutil.get_terminal_size().columns
        for line, text in zip(self.lines, texts):
            line.set_description_str(printable_line((self.start + text)[1 - columns:]))

    def finish(self, texts):
        """Take the lines away; returns the texts that are still to be printed: all of them."""
        for line in reversed(self.lines):
            line.close()
        return texts


def check_samples_file(path):
    """Exit unless samples can be written to path, the setting `out`: a new file, or one of samples."""
    check_output('out', path, ends=f'\n{DASHES}\n'.encode())


def write_samples(path, start, texts):
    """Write texts that continue `start` to a file, as print_sample would show them."""
    whole = ''.join(f'{start}{text}\n{DASHES}\n' for text in texts)
    write_whole(path, lambda f: f.write(whole.encode()))
