"""
Draw the loss curves of one or more runs, from the log.csv that train.py keeps,
also while it trains.

    python plot.py out-eca-char                  # writes out-eca-char/loss.png
    python plot.py out-eca-char out-other        # both in it
    python plot.py out-eca-char --to=curves.svg  # elsewhere; .png, .svg or .pdf
"""

import argparse
import csv
import os
import sys

COLORS = ['#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000']   # Okabe and Ito's, for all eyes
MARKERS = 'oDs^vPX'                                                                      # for paper without colours
INK, GRAY = '#2B3138', '#6B747D'
LOSSES = ['loss', 'train_loss', 'val_loss']
COLUMNS = ['iter', 'elapsed_s', 'lr', *LOSSES]


def fail(message):
    sys.exit(f'plot.py: {message}')


def read_log(folder):
    """{column: array} of the rows of folder's log.csv; NaN where a field is empty."""
    path = os.path.join(folder, 'log.csv')
    try:
        with open(path, 'rb') as f:
            whole, newline, _ = f.read().rpartition(b'\n')   # what follows is a row that is being written
        lines = csv.reader((whole + newline).decode('utf-8-sig', 'replace').splitlines())
        header = next(lines, COLUMNS)
        if set(COLUMNS) - set(header):
            fail(f"{path} is not one of train.py's: its first line is not {','.join(COLUMNS)}")
        rows = []
        for row in lines:
            numbers = dict(zip(header, [float(field or 'nan') for field in row], strict=True))
            rows.append([numbers[k] if abs(numbers[k]) < 1e12 else np.nan for k in COLUMNS])
            if np.isnan(rows[-1][:2]).any():
                raise ValueError
    except FileNotFoundError:
        fail(f'there is no {path}; train first, as in '
             f'python train.py config/train_eca_char_laptop.py --out_dir={folder}')
    except OSError as e:
        fail(f'{path} cannot be read: {e.strerror}')
    except (ValueError, csv.Error):
        fail(f'{path} is damaged in line {lines.line_num}; delete that line')
    if np.isnan(np.array(rows)[..., 3:]).all():
        fail(f'{path} has no losses yet; try again after the first evaluation')
    return dict(zip(COLUMNS, np.array(rows).T, strict=True))


def smooth(y):
    """Running mean over 5% of the points; at the beginning, where the loss falls fast, over fewer."""
    i, sums = np.arange(len(y)), np.concatenate([[0], np.cumsum(y)])
    half = np.minimum(i, max(1, len(y) // 40))
    first, end = i - half, np.minimum(i + half + 1, len(y))
    return (sums[end] - sums[first]) / (end - first)


parser = argparse.ArgumentParser(prog='plot.py', usage='python plot.py OUT_DIR... [--to=FILE.png]',
                                 description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('out_dirs', nargs='+', metavar='OUT_DIR', help='a folder that train.py wrote')
parser.add_argument('--to', metavar='FILE.png', help='the picture; else loss.png in the first folder')
parser.error = lambda message: fail(f'{message}; see python plot.py --help')
args = parser.parse_args()
sys.stdout.reconfigure(errors='backslashreplace')   # not every console can show every character
try:
    import matplotlib
    import numpy as np
    from matplotlib.figure import Figure   # without pyplot, which would look for a screen
    from matplotlib.lines import Line2D
    from matplotlib.patheffects import withStroke
    from matplotlib.ticker import FuncFormatter, MaxNLocator
except ImportError as e:
    fail(f'matplotlib does not load ({e}): pip install matplotlib')
HALO = [withStroke(linewidth=3, foreground='white')]   # keeps words readable over lines

# runs, by the name of their folder, or by its path where two have the same
folders = list(dict.fromkeys(map(os.path.normpath, args.out_dirs)))
names = [os.path.basename(os.path.abspath(folder)) for folder in folders]
names = [name if names.count(name) == 1 else folder for name, folder in zip(names, folders, strict=True)]
runs = list(map(read_log, folders))
is_alone, is_crowd = len(runs) == 1, len(runs) > 2
last_iter, last_s = (max(run[k].max() for run in runs) for k in ('iter', 'elapsed_s'))
unit, unit_s = ('s', 1) if last_s < 180 else ('min', 60) if last_s < 3 * 3600 else ('h', 3600)
is_bests = [run['val_loss'] == np.fmin.reduce(run['val_loss']) for run in runs]   # fmin: the least that is not NaN

# height: of what comes after the first 5%, as the first losses would squash the others
iters = np.concatenate([run['iter'] for run in runs])
losses = np.concatenate([[run[k] for k in LOSSES] for run in runs], axis=1)   # (3, rows of all runs)
is_late = np.concatenate([(run['iter'] >= min(0.05 * last_iter, 0.5 * run['iter'].max())) | is_best
                          for run, is_best in zip(runs, is_bests, strict=True)])
bottom, highest = np.nanmin(losses), np.nanmax(losses)
top = np.nanmax(np.where(is_late, losses, bottom))
top = top if highest - bottom > 1.3 * (top - bottom) else highest
margin = max(0.05 * (top - bottom), 0.01 * abs(top))

# losses over iterations on the left, over time on the right; the learning rate below
matplotlib.rcParams.update({
    'font.size': 10.5, 'axes.spines.top': False, 'axes.spines.right': False, 'axes.edgecolor': GRAY, 'text.color': INK,
    'axes.grid': True, 'grid.color': '#E4E7EB', 'axes.axisbelow': True, 'legend.frameon': False,
    'agg.path.chunksize': 10000})   # without the last, a long noisy line is too much for it
fig = Figure(figsize=(10, 6 + 0.2 * len(runs)), dpi=150, layout='constrained')
axes = fig.subplots(2, 2, sharex='col', sharey='row', height_ratios=[3.6, 1])
kinds = {   # from the back to the front
    'train, each batch': ('loss', dict(lw=0.6, alpha=0 if is_crowd else 0.3)),
    'train, running mean': ('loss', dict(lw=1.3, alpha=0.4 if is_crowd else 0.7)),
    'train, evaluated': ('train_loss', dict(lw=1.2, ls=(0, (4, 1.5)), ms=3 if is_crowd else 4.5, mfc='white')),
    'validation': ('val_loss', dict(lw=1.8, ms=5)),
    'best validation': ('val_loss', dict(ls='', ms=15, mec='white', zorder=4))}
handles, labels, notes = [], [], [[], []]
for i, (name, run, is_best) in enumerate(zip(names, runs, is_bests, strict=True)):
    color, marker = COLORS[i % len(COLORS)], MARKERS[(i + i // len(COLORS)) % len(MARKERS)]
    best = is_best.argmax() if is_best.any() else None   # its row
    for kind, (column, style) in kinds.items():
        rows = np.flatnonzero(~np.isnan(run[column]))
        if kind == 'best validation':
            rows, style = np.flatnonzero(is_best)[:1], dict(style, marker='*')
        elif column != 'loss' or len(rows) == 1:
            rows = rows[(run['iter'][rows] > 0) | (run[column][rows] <= top)]   # a line from there would say nothing
            every = len(rows) // (10 if is_crowd else 25) + 1
            style = dict(style, marker=marker, markevery=((len(rows) - 1) % every, every))   # the last always
        y = smooth(run[column][rows]) if 'mean' in kind else run[column][rows]
        for ax, x in zip(axes[0], (run['iter'][rows], run['elapsed_s'][rows] / unit_s), strict=True):
            ax.plot(x, y, color=COLORS[1] if is_alone and 'train' in kind else color, **style)
    for ax, k, per, end, panel_notes in zip(axes.T, ('iter', 'elapsed_s'), (1, unit_s), (last_iter, last_s), notes,
                                             strict=True):
        ax[1].plot(run[k] / per, run['lr'], color=color, lw=1.6, marker='.' if len(run[k]) == 1 else '')
        if best is not None:
            panel_notes.append(ax[0].annotate(
                f"{run['val_loss'][best]:.3f}", (run[k][best] / per, run['val_loss'][best]), (0, 9),
                textcoords='offset points', ha='center' if run[k][best] > 0.08 * end else 'left', color=color,
                weight='bold', path_effects=HALO, zorder=5))
    handles.append(Line2D([], [], color=color, marker=marker, ms=6, lw=1.8))
    labels.append(name.replace('$', r'\$') + (': not evaluated yet' if best is None else
                  f": best {run['val_loss'][best]:.4f} at iteration {run['iter'][best]:,.0f}"))

# words
axes[0, 0].set(ylabel='loss (nats per token)', ylim=(bottom - margin, top + margin))
axes[1, 0].set(ylabel='learning rate', ylim=(0, 1.15 * max(np.fmax.reduce(run['lr'], initial=1e-9) for run in runs)))
axes[1, 0].yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
axes[1, 0].yaxis.set_major_formatter(FuncFormatter(lambda y, _: f'{y:g}'.replace('e-0', 'e-')))
for ax, name, end in zip(axes[1], ('iteration', f'time ({unit})'), (last_iter, last_s / unit_s), strict=True):
    ax.set(xlabel=name, xlim=(-0.02 * (end or 1), 1.07 * (end or 1)))
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=name == 'iteration'))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f'{x:,.10g}'))
if top < highest:
    where = iters[np.nanargmax(losses) % len(iters)]
    axes[0, 0].annotate(f'not shown: up to {highest:.2f} at iteration {where:,.0f}', (0.99, 0.985), va='top',
                        ha='right', xycoords='axes fraction', color=GRAY, fontsize=9, path_effects=HALO)
fig.legend(handles, labels, loc='outside upper left')
shown = [kind for kind, (_, style) in kinds.items() if style.get('alpha') != 0]
fig.legend([Line2D([], [], **kinds[kind][1], color=COLORS['train' in kind] if is_alone else GRAY,
                   marker='*' if 'best' in kind else '' if kinds[kind][0] == 'loss' else 'o') for kind in shown],
           shown, loc='outside lower center', ncols=len(shown), fontsize=9.5, handlelength=2.6)
fig.draw_without_rendering()   # finds every place, so that the notes can make way for each other
for panel_notes in notes:
    boxes = []
    for note in sorted(panel_notes, key=lambda note: note.xy[1]):
        while any(note.get_window_extent().overlaps(box) for box in boxes):
            note.set_position((0, note.get_position()[1] + 3))
        boxes.append(note.get_window_extent())

# save
to = args.to or os.path.join(folders[0], 'loss.png')
temporary = f'{to}.{os.getpid()}.tmp'
try:
    with open(temporary, 'wb') as f:
        fig.savefig(f, format=os.path.splitext(to)[1].lstrip('.') or 'png')
        f.flush()
        os.fsync(f.fileno())   # on the disk before the name points to it
    os.replace(temporary, to)
except (OSError, ValueError) as e:   # ValueError: no such format
    fail(f'{to} cannot be written: {getattr(e, "strerror", "") or e}')
finally:
    if os.path.exists(temporary):
        os.remove(temporary)
print(f'saved {to}')
