"""
Texts from files and from the network: what a file is, reading it as UTF-8, cleaning it, downloading.

Every text comes in by read_text or by check_download, so each prepare.py treats it alike.
"""

import os
import re
import shlex
import stat
import threading
import time
import unicodedata
import urllib.request
from collections import Counter

from tqdm import tqdm

from support.errors import fail, first_line

HEAD = 1 << 16   # bytes of a file that show what it is
PIECE = 1 << 18   # characters; a long text is looked at in pieces, so that it is not in memory twice

# how files of other kinds begin (a regular expression), what they are, and how to get at the text; NAME is the file's
KINDS = [
    (b'\x1f\x8b', 'a gzip file', 'unpack it: gunzip -k NAME'),
    (rb'BZh[1-9]', 'a bzip2 file', 'unpack it: bunzip2 -k NAME'),
    (b'\xfd7zXZ\x00', 'an xz file', 'unpack it: unxz -k NAME'),
    (rb'\x28\xb5\x2f\xfd', 'a Zstandard file', 'unpack it: unzstd NAME'),
    (b'\x04\x22\x4d\x18', 'an LZ4 file', 'unpack it: unlz4 NAME'),
    (b'\x1f\x9d', 'a .Z file', 'unpack it: uncompress NAME'),
    (b"7z\xbc\xaf'\x1c", 'a 7-Zip archive', 'unpack it: 7z x NAME'),
    (b'Rar!\x1a\x07', 'a RAR archive', 'unpack it'),
    (rb'PK(?:\x03\x04|\x05\x06|\x07\x08)', 'a zip archive', 'unpack it: unzip NAME'),
    (b'%PDF-', 'a PDF', 'take the text out: pdftotext NAME'),
    (b'%!PS', 'a PostScript file', 'take the text out: ps2ascii NAME'),
    (rb'\{\\rtf', 'an RTF document', 'save it as plain text, UTF-8'),
    (rb'\xd0\xcf\x11\xe0', 'a document of old Microsoft Office', 'save it as plain text, UTF-8'),
    (b'\x89PNG', 'a picture (PNG)', 'give the text itself'),
    (b'\xff\xd8\xff', 'a picture (JPEG)', 'give the text itself'),
    (rb'GIF8[79]a', 'a picture (GIF)', 'give the text itself'),
    (rb'BM.{4}\x00{4}', 'a picture (BMP)', 'give the text itself'),
    (rb'II\*\x00', 'a picture (TIFF)', 'give the text itself'),
    (rb'MM\x00\*', 'a picture (TIFF)', 'give the text itself'),
    (rb'RIFF.{4}(?:WAVE|WEBP|AVI )', 'a picture, sound or film (RIFF)', 'give the text itself'),
    (rb'ID3[\x02-\x04]', 'a sound (MP3)', 'give the text itself'),
    (rb'OggS\x00', 'a sound (Ogg)', 'give the text itself'),
    (b'fLaC', 'a sound (FLAC)', 'give the text itself'),
    (b'\x1aE\xdf\xa3', 'a film (Matroska)', 'give the text itself'),
    (rb'PAR1[\x00-\x1f]', 'a Parquet file', 'give it to data/openwebtext/prepare.py'),
    (b'SQLite format 3\x00', 'a database (SQLite)', 'give the text itself'),
    (b'\x7fELF', 'a program', 'give the text itself'),
    (b'\x93NUMPY', 'an array of NumPy', 'give the text itself'),
]
TEXT_LIKE = (b'%PDF-', b'%!PS', b'{\\rtf')   # which may be ASCII throughout
ZIPPED = [   # what a zip archive may be
    (b'word/document.xml', 'a Word document (.docx)'),
    (b'xl/workbook.xml', 'an Excel table (.xlsx)'),
    (b'ppt/presentation.xml', 'a PowerPoint file (.pptx)'),
    (b'mimetypeapplication/vnd.oasis.opendocument', 'an OpenDocument file (.odt or the like)'),
    (b'mimetypeapplication/epub', 'an e-book (.epub)'),
]
MARKS = [   # byte order marks; UTF-32's begins like UTF-16's
    (b'\xff\xfe\x00\x00', 'utf-32'), (b'\x00\x00\xfe\xff', 'utf-32'),
    (b'\xff\xfe', 'utf-16'), (b'\xfe\xff', 'utf-16')]


# -----------------------------------------------------------------------------
# what a file is

def what_is(content):
    """(what the content of a file is, how to get at its text), or None for what may be a text. NAME in the advice
    stands for the file."""
    for start, kind, advice in KINDS:
        if re.match(start, content, re.DOTALL):
            for inside, document in ZIPPED:
                if kind == 'a zip archive' and inside in content:
                    return document, 'save it as plain text, UTF-8'
            return kind, advice
    if content[257:262] == b'ustar':
        return 'a tar archive', 'unpack it: tar -xf NAME'
    if content[4:8] == b'ftyp':
        return 'a film, sound or picture (MP4, HEIC)', 'give the text itself'
    if content[60:68] == b'BOOKMOBI':
        return 'an e-book (.mobi)', 'save it as plain text, UTF-8'
    encoding = guess_encoding(content[:HEAD])
    if encoding:
        return f'in {encoding.upper()}', how_to_convert(encoding)
    n_control = sum(content[:HEAD].count(code) for code in range(32) if code not in b'\t\n\f\r\x1a\x1b')
    if n_control > 0.01 * len(content[:HEAD]):
        return 'no text: it has bytes that no text has', 'give the text itself'
    return None


def guess_encoding(head):
    """'utf-16', 'utf-32-le' and the like for the beginning of a text in one of these, with a byte order mark or
    without; else None. Without one, its spaces, new lines and Latin letters betray it: bytes of 0, always in the same
    places."""
    for mark, encoding in MARKS:
        if head.startswith(mark):
            return encoding
    head = head[:len(head) // 4 * 4]
    zeros = [head[i::4].count(0) for i in range(4)]
    n = max(1, len(head) // 4)
    even = zeros[0] + zeros[2]
    odd = zeros[1] + zeros[3]
    if zeros[3] == n and zeros[2] > 0.9 * n and zeros[0] < 0.5 * n:
        return 'utf-32-le'
    if zeros[0] == n and zeros[1] > 0.9 * n and zeros[3] < 0.5 * n:
        return 'utf-32-be'
    # a space in every hundred characters, at least, and hardly a zero in the other places
    if odd > 0.02 * n and odd > 10 * even:
        return 'utf-16-le'
    if even > 0.02 * n and even > 10 * odd:
        return 'utf-16-be'
    return None


def how_to_convert(encoding):
    """How to make UTF-8 of a text in an encoding."""
    if os.name == 'nt':
        return 'convert it: open it in Notepad, and save it as UTF-8'
    return f'convert it: iconv -f {encoding} -t utf-8 NAME > NEW, and take the old one away'


def name_file(advice, path):
    """An advice with the file's name in it."""
    new = os.path.splitext(path)[0] + '-utf8.txt'
    return advice.replace('NAME', shlex.quote(path)).replace('NEW', shlex.quote(new))


def check_kind(path, content):
    """Exit, naming what it is, if the content (or beginning) of a file is no text in UTF-8."""
    if b'\0' in content or content.startswith(TEXT_LIKE) or not is_utf8(content):
        found = what_is(content)
        if found:
            kind, advice = found
            fail(f'{path} is {kind}; {name_file(advice, path)}')


def is_utf8(content):
    """Whether the content (or beginning) of a file is UTF-8, but for a character that is cut at its end."""
    try:
        content.decode('utf-8')
    except UnicodeDecodeError as e:
        return e.reason == 'unexpected end of data'
    return True


# -----------------------------------------------------------------------------
# reading

def read_text(path):
    """The whole file, which is UTF-8, as `clean` makes it."""
    try:
        if not os.path.isfile(path) and not os.path.isdir(path) and os.path.exists(path):
            check_pipe(path)
        with open(path, 'rb') as f:
            content = f.read()
    except OSError as e:
        fail(f'{path} cannot be read: {e.strerror}')
    return clean(decode_text(path, content), path)


def check_pipe(path):
    """Exit if a path is a device, which may have no end. (A pipe, as of <(gunzip -c FILE), is welcome.)"""
    if not stat.S_ISFIFO(os.stat(path).st_mode):
        fail(f'{path} is not a file; name one with a text')


def decode_text(path, content):
    """The bytes of a file as text. Exits if they are something else than UTF-8, and says what."""
    try:
        if b'\0' in content or content.startswith(TEXT_LIKE):
            check_kind(path, content)
        return content.decode('utf-8')
    except UnicodeDecodeError as e:
        check_kind(path, content)
        advice = name_file(how_to_convert('cp1252'), path)
        fail(f'{path} is not UTF-8: byte {content[e.start]:#04x} at offset {e.start:,}. If it is from Windows, or '
             f'old, {advice}')


def clean(text, path):
    """A text without what editors and Windows add, and no model should learn: byte order marks are taken out, and
    every line ends in \\n alone. Says how many there were."""
    n_marks = text.count('\ufeff')
    n_returns = text.count('\r')
    if n_marks or n_returns:
        text = normalise(text)
        print(f'{path}: {n_marks:,} byte order marks and {n_returns:,} \\r (carriage returns) are left out')
    return text


def normalise(text):
    """A text without byte order marks, whose lines end in \\n."""
    return text.replace('\ufeff', '').replace('\r\n', '\n').replace('\r', '\n')


def has_one_way(text):
    """Whether a text writes its accents in one way alone, NFC or NFD. Much faster than to count them."""
    pieces = range(0, len(text), PIECE)
    return any(all(unicodedata.is_normalized(form, text[i:i + PIECE]) for i in pieces) for form in ('NFC', 'NFD'))


def count_accents(text):
    """(letters with their accent in one character, é; letters with an accent of its own, e + ´) in a text."""
    n_of = Counter()
    n_apart = 0
    for i in range(0, len(text), PIECE):
        piece = text[i:i + PIECE]
        n_of.update(piece)
        n_apart += max(0, len(piece) - len(unicodedata.normalize('NFC', piece)))
    n_composed = sum(n for c, n in n_of.items() if len(unicodedata.normalize('NFD', c)) > 1)
    return n_composed, n_apart


def warn_of_two_ways(n_composed, n_apart):
    """Say so if a text writes its accents in two ways; numbers as count_accents gives them."""
    if n_composed and n_apart:
        print(f'accents are written in two ways: {n_composed:,} letters have theirs in one character (NFC), '
              f'{n_apart:,} as a character of its own (NFD), and a model learns these as different letters; uconv -x '
              'nfc makes them one')


# -----------------------------------------------------------------------------
# downloading

LEAST_RATE = 1000   # bytes per second
WINDOW_S = 30       # in which that many must have come on average
DEADLINE_S = 1200   # for the whole


def download(url, max_bytes):
    """The bytes behind url, with a progress bar. Raises OSError, of one line, for what did not come, not whole, too
    slowly, or not as HTTP."""
    data = bytearray()
    outcome = []   # at the end: an exception, or None
    expected = []   # the bytes that are announced, once that is known

    def fetch():
        try:
            receive(url, max_bytes, data, expected)
            outcome.append(None)
        except Exception as e:   # the network can make urllib raise anything
            outcome.append(e)

    # in a thread, because a name server, a header or a body can take for ever, a byte at a time
    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    started = window_started = time.monotonic()
    window_bytes = 0
    with tqdm(unit='B', unit_scale=True, desc='download', disable=None) as bar:
        while thread.is_alive():
            thread.join(0.05)
            bar.total = expected[0] if expected else None
            bar.update(len(data) - bar.n)
            now = time.monotonic()
            if now - started > DEADLINE_S:
                raise OSError(f'it was not whole after {DEADLINE_S} seconds: {len(data):,} bytes came')
            if now - window_started > WINDOW_S:
                if len(data) - window_bytes < LEAST_RATE * WINDOW_S:
                    raise OSError(f'it came too slowly: {len(data) - window_bytes:,} bytes in {WINDOW_S} seconds')
                window_started = now
                window_bytes = len(data)
    e = outcome[0]
    if isinstance(e, MemoryError):
        raise e
    if e is not None:
        words = first_line(e)
        raise OSError(words if isinstance(e, OSError) else f'{type(e).__name__}: {words}')
    return bytes(data)


def receive(url, max_bytes, data, expected):
    """Read what is behind url into data, a bytearray; expected, a list, gets the number of bytes that is announced.
    Raises OSError and others."""
    request = urllib.request.Request(url, headers={'User-Agent': 'MyNanoGPT'})
    with urllib.request.urlopen(request, timeout=WINDOW_S) as response:
        announced = int(response.headers.get('Content-Length') or 0)
        if announced > 0:
            expected.append(announced)
        while chunk := response.read1(1 << 16):
            data += chunk
            if len(data) > max_bytes:
                raise OSError(f'more than {max_bytes:,} bytes came, which cannot be right')
    if announced > 0 and len(data) != announced:
        raise OSError(f'it broke off after {len(data):,} of {announced:,} bytes')


def check_download(content, min_chars):
    """Raise ValueError unless bytes from the network are a text in UTF-8 of min_chars at least, and neither a web
    page nor data."""
    if b'\0' in content or not is_utf8(content):
        found = what_is(content)
        if found:
            raise ValueError(f'what came is {found[0]}')
    if is_web_page(content):
        raise ValueError('what came is a web page: a sign-in, perhaps, or an error')
    text = content.decode('utf-8')
    if len(text) < min_chars:
        raise ValueError(f'what came has {len(content):,} bytes only')
    sample = text[:PIECE]
    if sum(c.isalpha() for c in sample) < 0.5 * len(sample):
        raise ValueError('what came has more signs than letters')


def is_web_page(content):
    """Whether bytes begin like HTML, XML or JSON."""
    head = content[:HEAD].lstrip(b'\xef\xbb\xbf \t\r\n').lower()
    tags = len(re.findall(rb'<(?:html|head|body|title|meta|script|div|p|a|br|span|form)\b', head))
    return head.startswith((b'<!doctype', b'<html', b'<?xml', b'<head', b'<body', b'{"', b'[{', b'<!--')) or tags > 5
