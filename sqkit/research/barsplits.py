"""Splits and bonus issues that a series of bars was not adjusted for.

`barchecks.py` calls `find_splits`; nothing is corrected here.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from sqkit.records import iso_date

_SPLIT_RATIOS: Final = np.array([1.5, 5 / 3, 2, 2.5, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 25, 30, 40, 50, 100])
_SPLIT_TOLERANCE: Final = 0.08
_EXACT_TOLERANCE: Final = 0.02
_STAYS_TOLERANCE: Final = 0.2
_STAYS_BARS: Final = 5
_SURGE_SESSIONS: Final = 20
_REAL_MOVE_SURGE: Final = 8.0


def find_splits(days: np.ndarray, prices: np.ndarray, volume: np.ndarray) -> list[str]:
    """Overnight jumps by a simple ratio that the following bars keep.

    A real crash moves many times the usual money, a split as a rule does not: after such a
    session only a ratio met almost exactly counts. Without volume only the ratio and its
    permanence speak.

    Parameters
    ----------
    days
        int (n,), session date of each bar, increasing.
    prices, volume
        float64 (n, 4) open, high, low, close, and (n,).

    Returns
    -------
    list of str
        ``2017-09-07 (2:1)`` for each, in time order.
    """
    turn = np.flatnonzero(np.diff(days) > 0) + 1
    before, after = prices[turn - 1, 3], prices[turn, 0]
    surge = _money_surge(turn, prices[:, 3] * np.nan_to_num(volume))
    good = (before > 0) & (after > 0)
    turn, before, after, surge = turn[good], before[good], after[good], surge[good]
    if not len(turn):
        return []
    factor = np.maximum(before / after, after / before)
    distance = np.abs(np.log(factor[:, None] / _SPLIT_RATIOS[None, :]))
    nearest = _SPLIT_RATIOS[np.argmin(distance, axis=1)]
    near = distance.min(axis=1) < np.where(surge < _REAL_MOVE_SURGE, _SPLIT_TOLERANCE, _EXACT_TOLERANCE)
    near &= (before > after) | (nearest >= 2)  # a rise by half is no usual reverse split
    found = []
    for at in np.flatnonzero(near):
        row, ratio = turn[at], nearest[at]
        old = np.median(prices[max(0, row - _STAYS_BARS) : row, 3])
        new = np.median(prices[row : row + _STAYS_BARS, 3])
        if abs(np.log(max(old / new, new / old) / ratio)) < _STAYS_TOLERANCE:
            sign = f"{ratio:.3g}:1" if before[at] > after[at] else f"1:{ratio:.3g}"
            found.append(f"{iso_date(days[row])} ({sign})")
    return found


def _money_surge(turn: np.ndarray, money: np.ndarray) -> np.ndarray:
    """Money traded in each session but the first, over the median of up to 20 sessions before; 0 if unknown."""
    if not len(turn):
        return np.empty(0)
    traded = pd.Series(np.add.reduceat(money, np.concatenate([[0], turn])))
    usual = traded.rolling(_SURGE_SESSIONS, min_periods=1).median().shift(1)
    return (traded / usual.where(usual > 0)).fillna(0.0).to_numpy()[1:]
