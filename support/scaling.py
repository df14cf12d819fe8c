"""
A scaling law: the rows that tools/scaling.py measures, and the formula that fits them,

    L(N, D) = E + A / N^alpha + B / D^beta

N parameters, D tokens read, L the loss in nats per token. E is what no model would take away: the text's own surprise.
The second term is what a larger model would, the third what more text would (https://arxiv.org/abs/2203.15556).
"""

import csv
import io
import itertools
import math
import os
from dataclasses import dataclass

import numpy as np

from support.errors import fail
from support.files import write_whole

COLUMNS = {   # of the CSV, with their types
    'role': str,              # 'fit'; 'pilot': a trial of other rates; 'check': predicted before it was run
    'n_layer': int, 'n_head': int, 'n_embd': int,
    'params': int,            # without the position embeddings
    'tokens': int,            # read in training
    'flops': float,           # floating-point operations of the training
    'learning_rate': float,   # peak rate of AdamW
    'muon_lr': float,         # peak rate of Muon
    'predicted': float,       # of a check: what the law said before it was run; else NaN
    'val_loss': float,        # of all of val.bin, in nats per token
    'train_s': float,         # seconds that the training took
    'cpu_s': float,           # processor seconds of its process, imports included
    'processor': str,
}


# -----------------------------------------------------------------------------
# the rows

def read_rows(path):
    """The rows of a CSV, dicts; none where there is no file. Exits if it is something else."""
    if not os.path.exists(path):
        return []
    try:
        with open(path, encoding='utf-8', newline='') as f:
            lines = csv.DictReader(f)
            return [{name: kind(line[name]) for name, kind in COLUMNS.items()} for line in lines]
    except (KeyError, TypeError, ValueError, csv.Error):
        fail(f'{path} is not a CSV of tools/scaling.py, or is damaged; move it away')
    except OSError as e:
        fail(f'{path} cannot be read: {e.strerror}')


def add_row(path, row):
    """Write a CSV anew, with one row more."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator='\n')
    writer.writeheader()
    for each in [*read_rows(path), row]:
        line = dict(each)
        for name, kind in COLUMNS.items():
            if kind is float:
                line[name] = f'{each[name]:.6g}'
        writer.writerow(line)
    write_whole(path, lambda f: f.write(text.getvalue().encode()))


def key_of(row):
    """What tells a run from others: size, text, and of a pilot the rates."""
    key = (row['n_layer'], row['n_head'], row['n_embd'], row['tokens'])
    if row['role'] == 'pilot':
        key += (row['learning_rate'], row['muon_lr'])
    return key


# -----------------------------------------------------------------------------
# the law

@dataclass
class Law:
    """L(N, D) = E + A / N^alpha + B / D^beta."""
    E: float
    A: float
    B: float
    alpha: float
    beta: float

    def loss(self, N, D):
        """The loss of models of N parameters that have read D tokens, in nats per token; arrays of one shape."""
        return self.E + self.A / np.asarray(N, float) ** self.alpha + self.B / np.asarray(D, float) ** self.beta

    def best_size(self, flops):
        """(N, D) of the lowest loss among those with 6 N D = flops: where, at equal compute, alpha times the second
        term equals beta times the third."""
        a = self.beta / (self.alpha + self.beta)
        G = (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))
        N = G * (flops / 6) ** a
        return N, flops / 6 / N


def fit(N, D, L):
    """The Law that fits losses L of models of N parameters and D tokens, arrays (runs,).

    As in Hoffmann et al., appendix D.3: the Huber loss of log L, which counts outliers less, from several starts, of
    which the best end is taken.
    """
    starts = itertools.product((-1.0, 0.0), (0.0, 5.0, 10.0), (0.0, 5.0, 10.0), (0.2, 0.5, 0.8))
    starts = np.array([(e, a, b, slope, slope) for e, a, b, slope in starts])
    ends, errors = descend(starts, N, D, L, np.ones((len(starts), len(L))))
    return law_of(ends[np.argmin(errors)])


def bootstrap(N, D, L, law, n=200, seed=0):
    """n Laws, each fitted to as many runs drawn with replacement: what spread the choice of runs alone causes."""
    rng = np.random.default_rng(seed)
    times_drawn = rng.multinomial(len(L), np.full(len(L), 1 / len(L)), size=n)   # (n, runs)
    start = (math.log(law.E), math.log(law.A), math.log(law.B), law.alpha, law.beta)
    ends, _ = descend(np.tile(start, (n, 1)), N, D, L, times_drawn)
    return [law_of(end) for end in ends]


def law_of(p):
    """The Law whose (log E, log A, log B, alpha, beta) is p."""
    e, a, b, alpha, beta = (float(value) for value in p)
    return Law(math.exp(e), math.exp(a), math.exp(b), alpha, beta)


def descend(p, N, D, L, weights, steps=200, delta=1e-3):
    """Several fits side by side. p (fits, 5) are their starts, (log E, log A, log B, alpha, beta), and weights (fits,
    runs) say how much each run counts in each. Returns the ends (fits, 5) and their errors (fits,).

    By Levenberg and Marquardt's method: least squares of a straight line through the present point, a step that is the
    shorter the worse that worked. Huber's loss makes an outlier's weight delta / its miss.
    """
    log_N, log_D, log_L = np.log(N), np.log(D), np.log(L)

    def misses(p):
        """log of the law minus log L, (fits, runs), and the shares of its three terms, (fits, runs, 3)."""
        e, a, b, alpha, beta = (column[:, None] for column in p.T)
        terms = np.stack([e + 0 * log_N, a - alpha * log_N, b - beta * log_D], axis=2)
        top = terms.max(axis=2, keepdims=True)
        total = top[..., 0] + np.log(np.exp(terms - top).sum(axis=2))
        return total - log_L, np.exp(terms - total[..., None])

    def error_of(r):
        huber = np.where(abs(r) <= delta, 0.5 * r**2, delta * (abs(r) - 0.5 * delta))
        return (weights * huber).sum(axis=1)

    r, shares = misses(p)
    error = error_of(r)
    damping = np.full(len(p), 1e-2)
    for _ in range(steps):
        E_share, N_share, D_share = np.moveaxis(shares, 2, 0)
        slopes = np.stack([E_share, N_share, D_share, -N_share * log_N, -D_share * log_D], axis=2)   # of r, by p
        w = weights * delta / np.maximum(delta, abs(r))
        gradient = np.einsum('fr,fr,fri->fi', w, r, slopes)
        H = np.einsum('fr,fri,frj->fij', w, slopes, slopes)
        diagonal = np.einsum('fii->fi', H)
        H = H + np.eye(5) * (damping[:, None] * diagonal + 1e-12)[:, None]
        tried = p - np.linalg.solve(H, gradient[..., None])[..., 0]
        tried_r, tried_shares = misses(tried)
        tried_error = error_of(tried_r)
        is_better = tried_error < error   # NaN is not
        p = np.where(is_better[:, None], tried, p)
        r = np.where(is_better[:, None], tried_r, r)
        shares = np.where(is_better[:, None, None], tried_shares, shares)
        error = np.where(is_better, tried_error, error)
        damping = np.where(is_better, damping / 3, damping * 3).clip(1e-9, 1e9)
    return p, error
