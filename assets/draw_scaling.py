"""
Fits the law L(N, D) = E + A / N^alpha + B / D^beta to the runs of tools/scaling.py, says what follows from it, and
draws scaling.png beside this file. Of another CSV:

    python assets/draw_scaling.py
    python assets/draw_scaling.py mine.csv mine.png
"""

import os
import sys

_here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(_here))   # the repository

import matplotlib.pyplot as plt
import numpy as np

from support import scaling
from support.errors import catch_crashes, fail

catch_crashes()
rows_path = sys.argv[1] if len(sys.argv) > 1 else os.path.join(_here, 'scaling.csv')
picture = sys.argv[2] if len(sys.argv) > 2 else os.path.join(_here, 'scaling.png')

# FLOP/s, counted as 6 N D, that a device sustains
RATES = [
    ('CPU, 2 cores', 0.060e12),   # measured: config/train_eca_char_laptop.py on an AMD EPYC with AVX2, 29,100 tokens/s
    ('M2', 0.4 * 3.6e12),         # not measured: 40 % of 3.6 TFLOP/s, Apple's figure for 10 cores of its GPU
    ('T4', 0.4 * 65e12),          # not measured: 40 % of the peak in support/devices.py
]
TIMES = [('1 minute', 60), ('10 minutes', 600), ('1 hour', 3600), ('a night, 8 h', 8 * 3600)]
TEXT = 7_463_557   # tokens of train.bin
INK = '#1F2328'
GRAY = '#6B747D'

# -----------------------------------------------------------------------------
# the fit

rows = scaling.read_rows(rows_path)
fitted = [row for row in rows if row['role'] == 'fit']
checks = [row for row in rows if row['role'] == 'check']
if len({row['params'] for row in fitted}) < 3 or len({row['tokens'] for row in fitted}) < 3:
    fail(f'{rows_path} has too few runs for a fit: three sizes and three amounts of text; run tools/scaling.py')
N, D, L = (np.array([row[name] for row in fitted], float) for name in ('params', 'tokens', 'val_loss'))
law = scaling.fit(N, D, L)
laws = scaling.bootstrap(N, D, L, law)


def interval(values):
    """The middle 90 % of what the bootstrap gave, as words."""
    low, high = np.percentile(values, [5, 95])
    return f'{low:.4g} to {high:.4g}'


print(f'{len(fitted)} runs, {len({row["params"] for row in fitted})} sizes; L = E + A / N^alpha + B / D^beta, and the '
      'middle 90 % of the bootstrap')
for name in ('E', 'A', 'B', 'alpha', 'beta'):
    print(f'  {name:5} {getattr(law, name):8.4g}   {interval([getattr(each, name) for each in laws])}')
errors = L - law.loss(N, D)
print(f'  misses of the fitted runs: {np.sqrt(np.mean(errors**2)):.3f} nats (root mean square), '
      f'{abs(errors).max():.3f} at most')

for row in checks:
    print(f"predicted {row['predicted']:.3f}, measured {row['val_loss']:.3f}: {row['params']:,} parameters, "
          f"{row['tokens']:,} tokens; missed by {row['val_loss'] - row['predicted']:+.3f} nats")

# which size for which time
print('\n| time | device | parameters | tokens | times the text | loss, by the law |\n|---|---|---|---|---|---|')
for what, seconds in TIMES:
    for device, rate in RATES:
        n, d = law.best_size(seconds * rate)
        sizes = [each.best_size(seconds * rate)[0] for each in laws]
        low, high = np.percentile(sizes, [5, 95])
        print(f'| {what} | {device} | {n:.2g} ({low:.2g} to {high:.2g}) | {d:.2g} | {d / TEXT:.2g} '
              f'| {law.loss(n, d):.2f} |')

# -----------------------------------------------------------------------------
# the picture

plt.switch_backend('Agg')   # only a file is written, so no screen is needed
plt.rcParams.update({'font.size': 10.5, 'text.color': INK, 'axes.edgecolor': GRAY, 'axes.spines.top': False,
                     'axes.spines.right': False, 'axes.grid': True, 'axes.axisbelow': True, 'grid.color': '#E4E7EB',
                     'legend.frameon': False})
fig, (left, right) = plt.subplots(1, 2, figsize=(12, 5.2), dpi=150, layout='constrained', sharey=True)
sizes = sorted({row['params'] for row in fitted})
colors = plt.cm.viridis(np.linspace(0, 0.9, len(sizes)))


def size_name(n):
    """A number of parameters, in few characters."""
    return f'{n / 1e6:.2g} M' if n >= 1e6 else f'{n / 1e3:.0f} k'


# left: loss against compute; a line for each size, and the least that any size reaches
for n, color in zip(sizes, colors, strict=True):
    own = sorted((row['tokens'], row['val_loss']) for row in fitted if row['params'] == n)
    d = np.array([tokens for tokens, _ in own])
    losses = [loss for _, loss in own]
    along = np.geomspace(d.min(), d.max(), 50)
    left.plot(6 * n * along, law.loss(n, along), color=color, lw=1, alpha=0.6)
    left.plot(6 * n * d, losses, 'o', color=color, ms=6, label=size_name(n))
for i, row in enumerate(checks):
    left.plot(6 * row['params'] * row['tokens'], row['val_loss'], '*', color='#D55E00', ms=14, mec='white',
              label='predicted, then run' if i == 0 else None)
most = max([6 * row['params'] * row['tokens'] for row in rows])
compute = np.geomspace(min(6 * N * D), 2 * most, 60)
best = [law.best_size(c) for c in compute]
left.plot(compute, [law.loss(n, d) for n, d in best], color=INK, lw=1.6, ls=(0, (4, 2)), label='the best size')
many = np.array([[each.loss(*each.best_size(c)) for c in compute] for each in laws])
left.fill_between(compute, *np.percentile(many, [5, 95], axis=0), color=INK, alpha=0.12, lw=0)
left.set(xscale='log', xlabel='compute of the training, 6ND (FLOP)', ylabel='loss on val.bin (nats per character)',
         title='Loss against compute')
left.legend(title='parameters', fontsize=9, ncols=2)

# right: loss against size at equal compute; the points lie between two measured amounts of text, on a straight line
for c, color in zip(np.geomspace(min(6 * N * D) * 4, most / 2, 5), plt.cm.plasma(np.linspace(0, 0.8, 5)), strict=True):
    along = np.geomspace(min(sizes) / 1.5, max(sizes) * 1.5, 100)
    right.plot(along, law.loss(along, c / 6 / along), color=color, lw=1.2, alpha=0.7)
    found = []
    for n in sizes:
        own = sorted((row['tokens'], row['val_loss']) for row in fitted if row['params'] == n)
        d = np.log([tokens for tokens, _ in own])
        wanted = np.log(c / 6 / n)
        if d.min() <= wanted <= d.max():
            found.append((n, np.interp(wanted, d, [loss for _, loss in own])))
    right.plot([n for n, _ in found], [loss for _, loss in found], 'o', color=color, ms=6,
               label=f'{c / 1e12:.2g} TFLOP')
    n, d = law.best_size(c)
    right.plot(n, law.loss(n, d), 'v', color=color, mec=INK, ms=8)
right.set(xscale='log', xlabel='parameters, N', title='Loss against size, at equal compute (▼ the least, by the law)',
          ylim=(min(row['val_loss'] for row in rows) - 0.08, max(L) + 0.05))
right.set_xticks(sizes, [size_name(n) for n in sizes])
right.minorticks_off()
right.legend(fontsize=9)

fig.savefig(picture)
print(f'\nsaved {picture}')
