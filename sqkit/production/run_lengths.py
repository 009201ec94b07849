"""How long a cumulative sum runs on average until it alerts: exactly, by Markov chain or in closed form.

``sqkit monitor simulate`` sets the thresholds of `sqkit.production.detectors.BernoulliCusum` with it; outcomes count as
independent.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from fractions import Fraction
from functools import partial
from typing import Final

import numpy as np

from sqkit.errors import UsageError
from sqkit.production.detectors import log_ratios

_LONGEST: Final = 1e12
"""Run lengths above this are lost in rounding."""


def closed_form_run_length(miss_rate: float, steps: int) -> float:
    """Exact average run length of the symmetric Bernoulli CUSUM, in outcomes.

    Its bad miss rate is 1 less its good one, so a miss is a step up, a hit one down, and an alert `steps` steps
    above 0. To climb from k to k + 1 takes ``d_k = 1/q + (1 - q)/q * d_(k-1)`` outcomes on average, ``d_0 = 1/q``.

    Parameters
    ----------
    miss_rate
        The true one, q, in (0, 1].
    steps
        Threshold in steps, at least 1.

    Raises
    ------
    UsageError
        A value lies outside its range.
    """
    if not 0.0 < miss_rate <= 1.0 or steps < 1:
        raise UsageError(f"miss rate {miss_rate}, {steps} steps: give a rate above 0 and at least one step")
    climb = total = 1.0 / miss_rate
    for _ in range(steps - 1):
        climb = (1.0 + (1.0 - miss_rate) * climb) / miss_rate
        total += climb
    return total


def cusum_run_length(
    threshold: float, good: float, bad: float, true_miss_rate: float, nodes: int = 1000
) -> float:
    """Average run length of `BernoulliCusum` from level 0 to an alert, in outcomes (Brook and Evans, 1972).

    The ratio of a step up to a step down is rounded to one of whole numbers; then the levels are those of a
    Markov chain, and the run length is its exact one.

    Parameters
    ----------
    threshold
        Level of the alert, above 0.
    good, bad
        Miss rates that the sum is tuned to.
    true_miss_rate
        Of independent outcomes, in (0, 1).
    nodes
        States of the chain at most; below a thousand the rounded steps are coarse for long runs.

    Returns
    -------
    float
        Infinity above 1e12.

    Raises
    ------
    UsageError
        A value lies outside its range, or `nodes` are too few.
    """
    if not (0.0 < threshold < math.inf and 0.0 < true_miss_rate < 1.0):
        raise UsageError(f"threshold {threshold}, true miss rate {true_miss_rate}: give numbers above 0")
    up, down, unit = _lattice(threshold, good, bad, nodes)
    states = math.ceil(threshold / unit - 1e-9)
    return _chain_run_length(states, up, down, true_miss_rate)


def cusum_threshold(run_length: float, good: float, bad: float, nodes: int = 1000) -> float:
    """Lowest threshold of `BernoulliCusum` with so long an average run when the miss rate is the good one.

    Parameters
    ----------
    run_length
        Outcomes between false alerts, from 2 to 1e9.

    Raises
    ------
    UsageError
        A value lies outside its range, or `nodes` are too few.
    """
    if not 2.0 <= run_length <= 1e9:
        raise UsageError(f"run length {run_length}: give 2 to 1e9 outcomes")
    highest = math.log(run_length)  # Lorden, 1971: a run lasts exp(threshold) at least
    for _ in range(2):  # a lower ceiling makes finer steps of as many nodes
        up, down, unit = _lattice(highest, good, bad, nodes)
        states = range(1, math.ceil(highest / unit) + 1)
        lengths = partial(_chain_run_length, up=up, down=down, miss_rate=good)
        threshold = (bisect_left(states, run_length, key=lengths) + 1) * unit
        highest = 1.1 * threshold
    return threshold


def _lattice(highest: float, good: float, bad: float, nodes: int) -> tuple[int, int, float]:
    """Steps up and down in whole units, and the unit, with at most so many units up to the highest level."""
    miss, hit = log_ratios(good, bad)
    ratio = Fraction(miss / -hit).limit_denominator(max(int(nodes * -hit / highest), 1))
    up, down = ratio.numerator, ratio.denominator
    unit = (miss - hit) / (up + down)
    if not up or highest / unit > 1.1 * nodes:
        raise UsageError(f"nodes {nodes}: too few for levels up to {highest:.6g} at rates {good}, {bad}")
    return up, down, unit


def _chain_run_length(states: int, up: int, down: int, miss_rate: float) -> float:
    """Steps until the chain, from 0, is at `states` or above."""
    matrix, here = np.eye(states), np.arange(states)
    matrix[here, np.maximum(here - down, 0)] -= 1.0 - miss_rate
    below = here[: max(states - up, 0)]
    matrix[below, below + up] -= miss_rate
    length = float(np.linalg.solve(matrix, np.ones(states))[0])
    return length if 0.0 < length <= _LONGEST else math.inf
