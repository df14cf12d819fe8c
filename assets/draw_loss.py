"""
Draws the loss curve of a run from its log.csv, with what guessing and letter counting would reach.

    python assets/draw_loss.py assets/loss_eca_char.csv data/ecadequeiuroz_char/train.bin   # writes loss_eca_char.png
"""

import csv
import math
import os
import sys

import matplotlib.pyplot as plt
import numpy as np

log_path, bin_path = sys.argv[1:]
with open(log_path, encoding='utf-8', newline='') as f:
    rows = list(csv.DictReader(f))
ids = np.fromfile(bin_path, dtype=np.uint16)
p = np.bincount(ids) / len(ids)
guessing = math.log(len(p))                        # every character equally likely, in nats
counting = -(p[p > 0] * np.log(p[p > 0])).sum()    # each as likely as it is frequent

plt.switch_backend('Agg')   # only a file is written, so no screen is needed
plt.rcParams.update({'font.size': 11, 'axes.spines.top': False, 'axes.spines.right': False})
fig, ax = plt.subplots(figsize=(8, 4.5), dpi=150)
curves = {column: [(int(r['iter']), float(r[column])) for r in rows if r[column]]
          for column in ('loss', 'train_loss', 'val_loss')}
dots = dict(ls='', marker='o', ms=5)
for column, label, color, style in (('loss', 'treino: lote de cada iteração', '#5BA3D9', dict(lw=1.5)),
                                    ('train_loss', 'treino: média da avaliação', '#0072B2', dots),
                                    ('val_loss', 'validação', '#D55E00', dict(dots, marker='D'))):
    ax.plot(*zip(*curves[column], strict=True), label=label, color=color, **style)
best_iter, best = min(curves['val_loss'], key=lambda point: point[1])
ax.annotate(f'{best:.3f}'.replace('.', ','), (best_iter, best), textcoords='offset points', xytext=(0, 11),
            ha='center', color='#D55E00', weight='bold')
end = curves['val_loss'][-1][0]
for level, label in ((guessing, 'adivinhar ao acaso'), (counting, 'só contar as letras')):
    ax.axhline(level, color='#8A9199', lw=1, ls=(0, (4, 3)))
    ax.text(end, level + 0.07, f'{label}: {level:.2f}'.replace('.', ','), ha='right', color='#5B626B', fontsize=10)
ax.set(xlabel='iteração', ylabel='perda (nats por caractere)', xlim=(0, end * 1.02), ylim=(best - 0.45, guessing + 0.4))
ax.yaxis.set_major_formatter(lambda y, _: f'{y:.1f}'.replace('.', ','))
ax.grid(axis='y', color='#E4E7EB', lw=0.8)
ax.legend(frameon=False, loc='center', bbox_to_anchor=(0.55, 0.66))
fig.tight_layout()
out = os.path.splitext(log_path)[0] + '.png'
fig.savefig(out)
print(f'saved {out}')
