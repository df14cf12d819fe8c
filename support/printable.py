"""
What may reach a terminal: printable characters, new lines and tabs.

Names and texts come from files that anybody may have written, and on a terminal other characters are commands: they
set the window's title, move the cursor, or hide what is printed.
"""

import re
import unicodedata

# what progress bars and coloured words are made of: go to the start of the line, up some lines, clear one, set a colour
BAR_CODES = re.compile(r'(\r|\x1b\[\d*A|\x1b\[[0-2]?K|\x1b\[[0-9;]*m)')
JOINERS = '\u200c\u200d'   # without width, and harmless: Persian words and many emoji are made with them


def printable(text):
    """text as a terminal may have it: a space for each other kind of space, nothing for marks without width, and
    \ufffd for whatever else cannot be printed."""
    return ''.join(c if c.isprintable() or c in '\n\t' or c in JOINERS else stand_in(c) for c in text)


def printable_line(text):
    """text as `printable` leaves it, on one line: spaces for new lines and tabs."""
    return printable(text).replace('\n', ' ').replace('\t', ' ')


def stand_in(c):
    """What is printed for a character that is not printable."""
    kind = unicodedata.category(c)
    if kind == 'Zs':   # such as the space that breaks no line
        return ' '
    if kind == 'Cf':   # such as soft hyphens
        return ''
    return '\ufffd'


def one_line(message):
    """A message as one line: what is not printable, new lines included, as its code."""
    return ''.join(c if c.isprintable() else c.encode('unicode_escape').decode() for c in str(message))


class Screen:
    """A stream to a terminal that shows what `printable` leaves. `stream`, which it writes to, shows everything."""

    def __init__(self, stream, has_bars=False):
        self.stream = stream
        self.has_bars = has_bars   # whether progress bars may be drawn here

    def write(self, text):
        """Write text; returns its length, as a stream does."""
        if self.has_bars:
            parts = BAR_CODES.split(text)   # a text, a code, a text, ...
            parts[::2] = [printable(part) for part in parts[::2]]
            self.stream.write(''.join(parts))
        else:
            self.stream.write(printable(text))
        return len(text)

    def writelines(self, lines):
        """Write each of the texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name):   # all else is the stream's own
        return getattr(self.stream, name)


def raw(stream):
    """The stream below, if this is a Screen: for what a script itself has to say to a terminal."""
    return stream.stream if isinstance(stream, Screen) else stream
