"""How many iterations fit into a given time, once the speed of a run has shown."""

import time


class Pace:
    """The time that the iterations and the evaluations of a run take, told by lap() at the end of each.

    The first few iterations are not counted: memory is allocated in them, and programs are compiled. clock() is in
    seconds.
    """

    skipped = 3      # iterations at the start
    enough = 10      # iterations to measure; fewer where they are slow, and would take over a tenth of the time

    def __init__(self, clock=time.perf_counter):
        self.clock = clock
        self.last = clock()
        self.iteration_s = 0.0   # of all that count
        self.n_iterations = -self.skipped
        self.evaluation_s = 0.0   # of the last one

    def lap(self, is_evaluation):
        """An evaluation or an iteration has just ended."""
        now = self.clock()
        seconds = now - self.last
        self.last = now
        if is_evaluation:
            self.evaluation_s = seconds
            return
        self.n_iterations += 1
        if self.n_iterations > 0:
            self.iteration_s += seconds

    def speed(self):
        """In words."""
        one_ms = 1000 * self.iteration_s / self.n_iterations
        return f'an iteration takes {one_ms:.3g} ms, an evaluation {self.evaluation_s:.2g} s'

    def fit(self, minutes, elapsed_s, iter_num, warmup_iters, eval_interval):
        """max_iters, so that a run that has done iter_num iterations in elapsed_s seconds ends after so many minutes,
        with an evaluation every eval_interval iterations and one at the end. 0: it is too early to say."""
        is_late = elapsed_s > 0.1 * 60 * minutes and self.n_iterations > 0
        if not is_late and (iter_num < warmup_iters or self.n_iterations < self.enough):
            return 0
        left_s = 60 * minutes - elapsed_s
        one_s = self.iteration_s / self.n_iterations
        max_iters = iter_num + max(0, int(left_s / one_s))
        while max_iters > iter_num:
            n_evaluations = (max_iters - 1) // eval_interval - (iter_num - 1) // eval_interval + 1
            over_s = (max_iters - iter_num) * one_s + n_evaluations * self.evaluation_s - left_s
            if over_s <= 0:
                break
            surely_too_many = (over_s - self.evaluation_s) / (one_s + self.evaluation_s / eval_interval)
            max_iters -= max(1, int(surely_too_many))
        return max(max_iters, iter_num)
