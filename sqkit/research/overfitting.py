"""Probability of backtest overfitting: does the search find what lasts?

The evidence of a validation asks this module when the returns of every trial are at hand. It judges
the search that chose among them, not one candidate, and is advice: without any skill the value is
about one half, with a wide spread.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from sqkit.errors import UsageError

ROWS_PER_BLOCK: Final = 15
"""Fewer rows in a block say too little about a trial (own rule); eight blocks are used instead."""

MOST_BLOCKS: Final = 20
"""184 756 splits; more blocks add time and no information."""

_CONSTANT: Final = 1e-12
_VALUES_AT_ONCE: Final = 1_000_000


@dataclass(frozen=True)
class BacktestOverfitting:
    """Result of `probability_of_backtest_overfitting`.

    Attributes
    ----------
    status, reason
        ``"ok"`` and empty, or ``"undefined"`` and one line saying why; then `probability` is None.
    rows, trials
        Shape of the returns.
    probability
        Share of the splits whose in-sample best ranks below the out-of-sample median.
    blocks, splits
        As used.
    """

    status: str
    reason: str
    rows: int
    trials: int
    probability: float | None = None
    blocks: int | None = None
    splits: int | None = None


def probability_of_backtest_overfitting(
    returns: ArrayLike, blocks: int = 16, *, metric: str = "sharpe", rows_per_block: int = ROWS_PER_BLOCK
) -> BacktestOverfitting:
    """Combinatorially symmetric cross-validation: how often the in-sample best disappoints.

    The rows are cut into `blocks` consecutive blocks; each choice of half of them is once in sample,
    the rest out of sample. The trial that is best in sample has rank r among N out of sample;
    ``lambda = logit(r / (N + 1))``, and the result is the share of splits with ``lambda < 0``: Bailey,
    Borwein, Lopez de Prado and Zhu (2017). (R's pbo ranks by r / N and counts zero.)

    Parameters
    ----------
    returns
        float (t, n), one row a period in time order, one column a trial.
    blocks
        Even, 2 to 20. Eight are used where more would hold fewer than `rows_per_block` rows each.
    metric
        ``"sharpe"`` (mean / standard deviation, ddof 1; zero for a trial without any return) or
        ``"mean"``.
    rows_per_block
        Smallest block that is accepted.

    Returns
    -------
    BacktestOverfitting
        Undefined with too few rows, fewer than two trials, a return that is not finite, a trial that is
        constant in a half, or trials that are all alike.

    Raises
    ------
    UsageError
        Not two dimensions, an odd or unusable number of blocks, an unknown metric.
    """
    table = np.asarray(returns, dtype=np.float64)
    if table.ndim != 2 and table.size:
        raise UsageError(f"returns {table.shape}: give two dimensions, a row a period and a column a trial")
    if blocks % 2 or not 2 <= blocks <= MOST_BLOCKS:
        raise UsageError(f"{blocks} blocks: give an even number from 2 to {MOST_BLOCKS}", blocks=blocks)
    if metric not in ("sharpe", "mean"):
        raise UsageError(f"metric {metric!r}: give 'sharpe' or 'mean'", metric=metric)
    rows, trials = table.shape if table.ndim == 2 else (0, 0)

    used = 8 if blocks > 8 and rows < blocks * rows_per_block else blocks
    problem = _unusable(table, rows, trials, used, max(1, rows_per_block))
    if problem:
        return BacktestOverfitting("undefined", problem, rows, trials)
    with np.errstate(all="ignore"):
        below, splits = _splits_below_median(table, used, metric)
    if below is None:
        reason = "a trial's returns are constant, or too large or small, in half of the blocks"
        return BacktestOverfitting("undefined", reason, rows, trials)
    return BacktestOverfitting("ok", "", rows, trials, below / splits, used, splits)


def _unusable(table: np.ndarray, rows: int, trials: int, blocks: int, rows_per_block: int) -> str:
    if rows < blocks * rows_per_block:
        return f"{rows} rows, fewer than {blocks * rows_per_block} for {blocks} blocks"
    if trials < 2:
        return f"{trials} trial, fewer than two"
    if not np.isfinite(table).all():
        return "a return is not finite"
    if np.all(table == table[:, :1]):
        return "all trials have the same returns"
    return ""


def _splits_below_median(table: np.ndarray, blocks: int, metric: str) -> tuple[int | None, int]:
    """Splits whose in-sample best lies below the out-of-sample median (None: not defined), and all."""
    pieces = np.array_split(table, blocks)
    middle = table.mean(axis=0)  # sums about the mean lose no digits
    sums = np.array([np.sum(piece - middle, axis=0) for piece in pieces])
    squares = np.array([np.sum((piece - middle) ** 2, axis=0) for piece in pieces])
    size = np.array([float(len(piece)) for piece in pieces])
    idle = np.array([np.all(piece == 0.0, axis=0) for piece in pieces])

    splits = np.array(list(combinations(range(blocks), blocks // 2)))
    trials = table.shape[1]
    at_once = max(1, _VALUES_AT_ONCE // trials)
    below = 0
    for start in range(0, len(splits), at_once):
        some = splits[start : start + at_once]
        chosen = np.zeros((len(some), blocks))
        np.put_along_axis(chosen, some, 1.0, axis=1)
        scores = []
        for half in (chosen, 1.0 - chosen):
            score = _score(half @ sums, half @ squares, (half @ size)[:, None], middle, metric)
            score[half @ (~idle).astype(np.float64) == 0.0] = 0.0
            if not np.isfinite(score).all():
                return None, len(splits)
            scores.append(score)
        inside, outside = scores
        best = np.take_along_axis(outside, np.argmax(inside, axis=1)[:, None], axis=1)
        rank = np.sum(outside < best, axis=1) + (np.sum(outside == best, axis=1) + 1) / 2
        below += int(np.count_nonzero(rank / (trials + 1) < 0.5))
    return below, len(splits)


def _score(
    sums: np.ndarray, squares: np.ndarray, size: np.ndarray, middle: np.ndarray, metric: str
) -> np.ndarray:
    """Metric of every trial in every half, from sums about `middle`; NaN where it is constant."""
    mean: np.ndarray = middle + sums / size
    if metric == "mean":
        return mean
    variance = (squares - sums * sums / size) / (size - 1)
    smallest = _CONSTANT * (squares / size + middle * middle)
    score: np.ndarray = np.where(variance > smallest, mean / np.sqrt(np.maximum(variance, 0.0)), np.nan)
    return score
