"""
Draws what a model writes while it learns, beside its loss curve: the picture at the top of README.md. It reads what
train.py printed, and writes learning.png beside this file:

    python train.py config/train_eca_char_laptop.py --eval_interval=250 --log_interval=10 --sample_chars=100 \
        --out_dir=out-learning > out-learning.txt
    python assets/draw_learning.py out-learning.txt

The losses are those of the recipe as it stands: looking more often does not change what is learned.
"""

import re
import sys
import textwrap
from pathlib import Path

from matplotlib.figure import Figure

INK = '#1F2328'
SOFT = '#5B626B'
BLUE = '#0072B2'
ORANGE = '#C25400'
SHOWN = [0, 250, 500, 1000, 2400]   # iterations whose text is shown
NUMBER = dict(color='white', fontsize=12, weight='bold', ha='center', va='center')
WIDTH = 47                          # characters in a line of it
# the words are in both languages, for both pages
LINES = [
    (4.98, 'chute / blind guess'),
    (3.13, 'frequências / frequencies'),
    (2.43, 'pares de letras / pairs of letters'),
]

# read: iter N: loss L; step N: ... val loss L; it writes: TEXT
printed = Path(sys.argv[1]).read_text(encoding='utf-8')
batch_losses = [(int(n), float(loss)) for n, loss in re.findall(r'^iter (\d+): loss ([\d.]+)', printed, re.M)]
evaluations = re.findall(r'^step (\d+): .*val loss ([\d.]+)\nit writes: (.*)', printed, re.M)
val_losses = {int(n): float(loss) for n, loss, _ in evaluations}
texts = {int(n): text for n, _, text in evaluations}

fig = Figure(figsize=(12, 6.3), dpi=150, facecolor='white')   # 1800 x 945 pixels; shown some 800 wide

# left: the curve
ax = fig.add_axes([0.06, 0.115, 0.39, 0.80])
for y, words in LINES:
    ax.axhline(y, color=SOFT, lw=1, ls=(0, (4, 3)), zorder=1)
    ax.text(2400, y + 0.035, f'{words}  {y}', color=SOFT, fontsize=13, ha='right', va='bottom')
ax.plot(*zip(*batch_losses), color=BLUE, lw=1.7, zorder=2)
for i, n in enumerate(SHOWN):
    ax.plot(n, val_losses[n], 'o', ms=17, color=ORANGE, mec='white', mew=1.5, zorder=4, clip_on=False)
    ax.text(n, val_losses[n] - 0.008, i + 1, **NUMBER, zorder=5)
ax.set(xlim=(0, 2450), ylim=(1.35, 5.2), xticks=[0, 500, 1000, 1500, 2000, 2400], yticks=[2, 3, 4, 5])
ax.tick_params(labelsize=13, colors=INK, length=4)
ax.tick_params(axis='y', pad=11)   # room for the first number
ax.set_xlabel('iteração / iteration', fontsize=14, color=INK)
ax.set_title('perda / loss (nats)', fontsize=15, color=INK, loc='left', pad=12)
for side in ('top', 'right'):
    ax.spines[side].set_visible(False)

# right: what it writes
page = fig.add_axes([0.48, 0, 0.52, 1])
page.set(xlim=(0, 1), ylim=(0, 1))
page.axis('off')
page.text(0.01, 0.952, 'ele escreve / it writes', fontsize=15, color=INK, va='center')
for i, n in enumerate(SHOWN):
    y = 0.85 - 0.178 * i
    page.plot(0.03, y, 'o', ms=17, color=ORANGE)
    page.text(0.03, y - 0.002, i + 1, **NUMBER)
    page.text(0.075, y, f'iter {n}', fontsize=14, color=INK, va='center', weight='bold')
    page.text(0.96, y, f'val loss {val_losses[n]:.2f}', fontsize=14, color=BLUE, va='center', ha='right', weight='bold')
    shown = textwrap.wrap(texts[n], WIDTH, break_long_words=True, break_on_hyphens=False)[:2]
    page.text(0.075, y - 0.037, '\n'.join(line.replace('$', r'\$') for line in shown), fontsize=14, color=INK, va='top',
              family='DejaVu Sans Mono', linespacing=1.25)

picture_path = Path(__file__).resolve().parent / 'learning.png'
fig.savefig(picture_path)
print(f'wrote {picture_path}')
