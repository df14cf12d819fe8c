"""
Draw the loss curves of one or more runs, from the log.csv that train.py keeps,
also while it trains.

    python tools/plot.py out-eca-char             # writes out-eca-char/loss.png
    python tools/plot.py out-eca-char out-other   # both in it
    python tools/plot.py out-eca-char --to=curves.svg   # .svg, .pdf or .png
"""

import os
import sys

_root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))   # the repository
sys.path.insert(0, _root)
import support.interrupt   # noqa: F401   first: from here on Ctrl-C ends the script without a traceback

import argparse
import csv
from dataclasses import dataclass

import numpy as np

from support.errors import catch_crashes, fail, script_doc
from support.files import check_output, replacing
from support.report import COLUMNS, LOSSES
from support.run_folder import LOG, find, path_of

catch_crashes()

COLORS = ['#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000']   # Okabe and Ito's, for all eyes
MARKERS = 'oDs^vPX'   # for paper without colours
INK = '#2B3138'
GRAY = '#6B747D'

# the command line; read before matplotlib loads, so that --help does without it
parser = argparse.ArgumentParser(prog='plot.py', usage='python tools/plot.py OUT_DIR... [--to=FILE.png]',
                                 description=script_doc(), formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('out_dirs', nargs='+', metavar='OUT_DIR', type=os.path.expanduser,
                    help='a folder that train.py wrote')
parser.add_argument('--to', metavar='FILE.png', type=os.path.expanduser,
                    help='the picture; else loss.png in the first folder')
parser.error = lambda message: fail(f'{message}; see python tools/plot.py --help')
args = parser.parse_args()

try:
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure   # without pyplot, which would look for a screen
    from matplotlib.lines import Line2D
    from matplotlib.patheffects import withStroke
    from matplotlib.ticker import FuncFormatter, MaxNLocator
except ImportError as e:
    fail(f'matplotlib does not load ({e}): pip install matplotlib')
HALO = [withStroke(linewidth=3, foreground='white')]   # keeps words readable over lines


# -----------------------------------------------------------------------------
# read the logs

@dataclass
class Run:
    """One training, and how it looks in the picture."""
    name: str
    log: dict               # {column: array} of log.csv
    best_rows: np.ndarray   # the rows of log with the lowest validation loss: nearly always one; none before the first
    color: str
    marker: str


def read_log(folder):
    """{column: array} of the rows of folder's log.csv, or of log.csv.new, of a newer training in it; NaN
    where a field is empty. Exits if it cannot be drawn."""
    path = os.path.join(folder, LOG)
    if find(folder, [LOG], '.new'):
        path = path_of(folder, LOG, '.new')
        print(f'{path}: of the newer training there')
    lines = csv.reader(read_lines(path, folder))
    try:
        header = next(lines, COLUMNS)
        if not set(COLUMNS) <= set(header):
            fail(f"{path} is not one of train.py's: its first line is not {','.join(COLUMNS)}")
        rows = [parse_row(header, fields) for fields in lines]
    except (ValueError, csv.Error):
        fail(f'{path} is damaged in line {lines.line_num}; delete that line')
    columns = np.array(rows).reshape(-1, len(COLUMNS)).T   # (columns, rows)
    log = dict(zip(COLUMNS, columns, strict=True))
    if all(np.isnan(log[column]).all() for column in LOSSES):
        fail(f'{path} has no losses yet; try again after the first evaluation')
    return log


def read_lines(path, folder):
    """The lines of a log.csv, without the last one if that is being written."""
    try:
        with open(path, 'rb') as f:
            whole, newline, _ = f.read().rpartition(b'\n')
        return (whole + newline).decode('utf-8-sig', 'replace').splitlines()
    except FileNotFoundError:
        fail(f'there is no {path}; train first, as in '
             f'python train.py config/train_eca_char_laptop.py --out_dir={folder}')
    except OSError as e:
        fail(f'{path} cannot be read: {e.strerror}')


def parse_row(header, fields):
    """The numbers of a row, in the order of COLUMNS; NaN for a field that is empty or out of all proportion, which a
    loss can be. Raises ValueError for a row that train.py did not write."""
    numbers = [float(field or 'nan') for field in fields]
    number_in = dict(zip(header, numbers, strict=True))
    row = [number_in[column] for column in COLUMNS]
    row = [number if abs(number) < 1e12 else np.nan for number in row]
    iteration, elapsed_s = row[:2]
    if np.isnan(iteration) or np.isnan(elapsed_s):
        raise ValueError
    return row


# names: that of the folder, or its path where two have the same
folders = [os.path.normpath(folder) for folder in args.out_dirs]
folders = list(dict.fromkeys(folders))   # each once
base_names = [os.path.basename(os.path.abspath(folder)) for folder in folders]
runs = []
for i, folder in enumerate(folders):
    log = read_log(folder)
    lowest = np.fmin.reduce(log['val_loss'])   # fmin: the least that is not NaN
    run = Run(
        name=base_names[i] if base_names.count(base_names[i]) == 1 else folder,
        log=log,
        best_rows=np.flatnonzero(log['val_loss'] == lowest),
        color=COLORS[i % len(COLORS)],
        marker=MARKERS[(i + i // len(COLORS)) % len(MARKERS)],   # when the colours begin again, with other markers
    )
    runs.append(run)
is_alone = len(runs) == 1
is_crowd = len(runs) > 2

# the picture's name, and how a file of its kind begins
to = args.to or os.path.join(folders[0], 'loss.png')
file_format = os.path.splitext(to)[1].lstrip('.').lower() or 'png'
svg = b'<?xml version="1.0" encoding="utf-8" standalone="no"?>\n<!DOCTYPE svg'   # as matplotlib writes it
jpeg = b'\xff\xd8\xff'
beginnings = {'png': b'\x89PNG\r\n\x1a\n', 'pdf': b'%PDF-', 'svg': svg, 'jpg': jpeg, 'jpeg': jpeg}
check_output('to', to, beginnings.get(file_format, b'a new file only'))   # exits if another kind of file is there

# -----------------------------------------------------------------------------
# choose what is shown

# the unit of time
last_iter = max(run.log['iter'].max() for run in runs)
last_s = max(run.log['elapsed_s'].max() for run in runs)
if last_s < 180:
    unit = 's'
    unit_s = 1
elif last_s < 3 * 3600:
    unit = 'min'
    unit_s = 60
else:
    unit = 'h'
    unit_s = 3600


def is_late(run):
    """Whether the losses in each row of a run must fit in the picture. Those of the first 2 % of all iterations need
    not: they would squash the others. Of a run that is shorter than that, the second half must; of each, the best."""
    is_shown = run.log['iter'] >= min(0.02 * last_iter, 0.5 * run.log['iter'].max())
    is_shown[run.best_rows] = True
    return is_shown


# the range of the losses
losses = [np.stack([run.log[column] for column in LOSSES]) for run in runs]
losses = np.concatenate(losses, axis=1)   # (3, rows of all runs)
late_losses = losses[:, np.concatenate([is_late(run) for run in runs])]
bottom = np.nanmin(losses)
highest = np.nanmax(losses)
top = bottom
if not np.isnan(late_losses).all():
    top = np.nanmax(late_losses)
if highest - bottom <= 1.3 * (top - bottom):   # all of them need little more room
    top = highest
margin = max(0.05 * (top - bottom), 0.01 * abs(top))

# the kinds of curves, from the back to the front
styles = {
    'train, each batch': dict(lw=0.6, alpha=0.3),
    'train, running mean': dict(lw=1.3, alpha=0.7),
    'train, evaluated': dict(lw=1.2, ls=(0, (4, 1.5)), ms=4.5, mfc='white'),
    'validation': dict(lw=1.8, ms=5),
    'best validation': dict(ls='', ms=15, mec='white', zorder=4),
}
if is_crowd:   # fainter, so that the runs can be told apart
    styles['train, each batch']['alpha'] = 0
    styles['train, running mean']['alpha'] = 0.4
    styles['train, evaluated']['ms'] = 3

# -----------------------------------------------------------------------------
# the figure: losses over iterations on the left, over time on the right; the learning rate below

matplotlib.rcParams.update({
    'font.size': 10.5,
    'text.color': INK,
    'axes.edgecolor': GRAY,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.grid': True,
    'axes.axisbelow': True,
    'grid.color': '#E4E7EB',
    'legend.frameon': False,
    'agg.path.chunksize': 10000,   # a long noisy line is too much for it otherwise
})
fig = Figure(figsize=(10, 6 + 0.2 * len(runs)), dpi=150, layout='constrained')
axes = fig.subplots(2, 2, sharex='col', sharey='row', height_ratios=[3.6, 1])


@dataclass
class Side:
    """The left or the right half of the figure; they differ in what x is."""
    label: str     # of the x axis
    column: str    # x, of log.csv
    unit: float    # of the x axis, in log.csv's
    end: float     # the largest x of all runs
    losses: Axes   # the panel above
    lr: Axes       # the panel below

    def x(self, run):
        """x in each row of a run."""
        return run.log[self.column] / self.unit


sides = [
    Side('iteration', 'iter', 1, last_iter, axes[0, 0], axes[1, 0]),
    Side(f'time ({unit})', 'elapsed_s', unit_s, last_s / unit_s, axes[0, 1], axes[1, 1]),
]

# -----------------------------------------------------------------------------
# the curves

def draw_losses(run):
    """Draw a run's loss curves."""
    batches = rows_with('loss', run)
    mark = {}
    if len(batches) == 1:   # a line of one point would not be seen
        batches = drop_first_above(run, 'loss', batches)
        mark = marks(run, batches)
    loss = run.log['loss'][batches]
    draw_line(run, 'train, each batch', batches, loss, **mark)
    draw_line(run, 'train, running mean', batches, smooth(loss), **mark)

    for kind, column in ('train, evaluated', 'train_loss'), ('validation', 'val_loss'):
        rows = drop_first_above(run, column, rows_with(column, run))
        draw_line(run, kind, rows, run.log[column][rows], **marks(run, rows))

    best = run.best_rows[:1]
    draw_line(run, 'best validation', best, run.log['val_loss'][best], marker='*')


def rows_with(column, run):
    """The rows of a run that have a number in a column."""
    return np.flatnonzero(~np.isnan(run.log[column]))


def drop_first_above(run, column, rows):
    """rows without that of iteration 0, if its loss is above the picture: a line from there would say nothing."""
    is_drawn = (run.log['iter'][rows] > 0) | (run.log[column][rows] <= top)
    return rows[is_drawn]


def marks(run, rows):
    """The settings of a line that put markers on some of its points, the last always."""
    most = 10 if is_crowd else 25
    every = len(rows) // most + 1
    first = (len(rows) - 1) % every
    return dict(marker=run.marker, markevery=(first, every))


def smooth(y):
    """Running mean over 5 % of the points; at the beginning, where the loss falls fast, over fewer."""
    i = np.arange(len(y))
    half = np.minimum(i // 2, max(1, len(y) // 40))   # half of the way back: never to the first loss
    first = i - half
    end = np.minimum(i + half + 1, len(y))
    sums = np.concatenate([[0], np.cumsum(y)])   # sums[i]: of the i numbers before y[i]
    return (sums[end] - sums[first]) / (end - first)


def draw_line(run, kind, rows, y, **settings):
    """Draw one curve of a run, y at these rows, on both sides."""
    color = run.color
    if is_alone and 'train' in kind:   # there is a colour to spare
        color = COLORS[1]
    for side in sides:
        side.losses.plot(side.x(run)[rows], y, color=color, **styles[kind], **settings)


def draw_lr(run):
    """Draw a run's learning rate."""
    marker = '.' if len(run.log['iter']) == 1 else ''
    for side in sides:
        side.lr.plot(side.x(run), run.log['lr'], color=run.color, lw=1.6, marker=marker)


for run in runs:
    draw_losses(run)
    draw_lr(run)

# -----------------------------------------------------------------------------
# the words

# axes: their names, ranges, and the form of their numbers
highest_lr = max(np.fmax.reduce(run.log['lr'], initial=1e-9) for run in runs)
axes[0, 0].set(ylabel='loss (nats per token)', ylim=(bottom - margin, top + margin))
axes[1, 0].set(ylabel='learning rate', ylim=(0, 1.15 * highest_lr))
axes[1, 0].yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
axes[1, 0].yaxis.set_major_formatter(FuncFormatter(lambda y, _: f'{y:g}'.replace('e-0', 'e-')))
for side in sides:
    width = side.end or 1
    side.lr.set(xlabel=side.label, xlim=(-0.02 * width, 1.07 * width))
    side.lr.xaxis.set_major_locator(MaxNLocator(6, integer=side.column == 'iter'))
    side.lr.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f'{x:,.10g}'))

# what is above the picture
if top < highest:
    iters = np.concatenate([run.log['iter'] for run in runs])
    _, row = np.unravel_index(np.nanargmax(losses), losses.shape)
    axes[0, 0].annotate(f'not shown: up to {highest:.2f} at iteration {iters[row]:,.0f}', (0.99, 0.985),
                        xycoords='axes fraction', va='top', ha='right', color=GRAY, fontsize=9, path_effects=HALO)


def note_best(run, side):
    """Write the lowest validation loss over its point; returns the note."""
    best = run.best_rows[0]
    x = side.x(run)[best]
    loss = run.log['val_loss'][best]
    ha = 'center' if x > 0.08 * side.end else 'left'   # so that it stays off the y axis
    return side.losses.annotate(f'{loss:.3f}', (x, loss), (0, 9), textcoords='offset points', ha=ha, color=run.color,
                                weight='bold', path_effects=HALO, zorder=5)


def describe(run):
    """A run's line in the legend."""
    name = run.name.replace('$', r'\$')   # matplotlib would read $...$ as mathematics
    if len(run.best_rows) == 0:
        return f'{name}: not evaluated yet'
    best = run.best_rows[0]
    return f"{name}: best {run.log['val_loss'][best]:.4f} at iteration {run.log['iter'][best]:,.0f}"


# the legend of the runs, above
handles = [Line2D([], [], color=run.color, marker=run.marker, ms=6, lw=1.8) for run in runs]
fig.legend(handles, [describe(run) for run in runs], loc='outside upper left')

# the legend of the kinds of curves, below
legend_markers = {'train, evaluated': 'o', 'validation': 'o', 'best validation': '*'}
shown = [kind for kind in styles if styles[kind].get('alpha') != 0]
handles = []
for kind in shown:
    color = GRAY
    if is_alone:
        color = COLORS[1] if 'train' in kind else COLORS[0]
    handles.append(Line2D([], [], **styles[kind], color=color, marker=legend_markers.get(kind, '')))
fig.legend(handles, shown, loc='outside lower center', ncols=len(shown), fontsize=9.5, handlelength=2.6)

# notes at the best losses; each moves up until it covers none below it
notes_of_sides = []
for side in sides:
    notes_of_sides.append([note_best(run, side) for run in runs if len(run.best_rows)])
fig.draw_without_rendering()   # lays everything out
for notes in notes_of_sides:
    boxes = []
    for note in sorted(notes, key=lambda note: note.xy[1]):
        while any(note.get_window_extent().overlaps(box) for box in boxes):
            x, y = note.get_position()
            note.set_position((x, y + 3))
        boxes.append(note.get_window_extent())

# -----------------------------------------------------------------------------
# save

try:
    with replacing(to) as f:
        fig.savefig(f, format=file_format)
except (OSError, ValueError) as e:   # ValueError: no such format
    reason = getattr(e, 'strerror', None) or e
    fail(f'{to} cannot be written: {reason}')
print(f'saved {to}')
