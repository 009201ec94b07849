"""The trial a user's feature step must pass before it is registered: does it keep the contract?

`sqkit.features.feature_set` calls `try_step` with the step compiled twice, once with bounds
checks. The step runs over made-up bars with everything real bars have (null volume, bars without
range, short sessions), three times with other memory around its arrays; whatever differs between
the runs was read or written where the step has no business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sqkit.bars import (
    BAR_MINUTES,
    CLOSE,
    HIGH,
    LOW,
    MINUTE,
    OPEN,
    ROW_WIDTH,
    SESSION,
    SESSION_MINUTES,
    VOLUME,
)
from sqkit.errors import FeatureSetRefused

Step = Callable[[np.ndarray, np.ndarray, np.ndarray], None]

_MARGIN = 256  # slots of memory watched on either side of every array
_BARS_AFTER_WARM_UP = 300
_FILLS = (-7.25e77, 3.5e71, float("nan"))  # what lies around the arrays, and in `out`, run by run


def trial_rows(strategy: str, bars: int, seed: int = 7) -> np.ndarray:
    """Made-up bars, float64 (bars, 9): a random walk in sessions of 75 five-minute bars, or in days."""
    random = np.random.default_rng(seed)
    close = 250.0 * np.exp(np.cumsum(random.normal(0.0, 0.004, bars)))
    rows = np.empty((bars, ROW_WIDTH))
    rows[:, CLOSE] = close
    rows[:, OPEN] = np.concatenate(([250.0], close[:-1])) * np.exp(random.normal(0.0, 0.001, bars))
    rows[:, HIGH] = np.maximum(rows[:, OPEN], close) * np.exp(random.exponential(0.001, bars))
    rows[:, LOW] = np.minimum(rows[:, OPEN], close) * np.exp(-random.exponential(0.001, bars))
    rows[:, VOLUME] = random.integers(0, 10_000, bars)
    rows[::13, VOLUME] = np.nan
    rows[::17, :VOLUME] = rows[::17, CLOSE : CLOSE + 1]
    place = np.arange(bars)
    in_session = 75 if strategy == "intraday" else 1
    rows[:, SESSION] = 18_000 + place // in_session
    rows[:, MINUTE] = place % in_session * 5.0
    rows[:, SESSION_MINUTES] = 375.0
    rows[:, BAR_MINUTES] = 5.0 if strategy == "intraday" else 375.0
    return rows


def try_step(
    name: str,
    columns: Sequence[str],
    warmup_bars: int,
    state_size: int,
    strategy: str,
    step: Step,
    checked_step: Step,
) -> None:
    """Run a step over made-up bars and refuse it unless it keeps the contract.

    Parameters
    ----------
    step, checked_step
        The step as it will run, and the same compiled with ``boundscheck=True``.

    Raises
    ------
    FeatureSetRefused
        It raises, leaves its arrays, does not write every column, changes the bar, depends on
        anything but state and bar, is not NaN before or not finite after its warm-up.
    """
    rows = trial_rows(strategy, warmup_bars + _BARS_AFTER_WARM_UP)
    width = len(columns)
    first = _run(name, checked_step, rows, state_size, width, fill=_FILLS[0])
    second = _run(name, step, rows, state_size, width, fill=_FILLS[1])
    third = _run(name, step, rows, state_size, width, fill=_FILLS[2])
    for column in range(width):
        if np.all(first[:, column] == _FILLS[0]):
            raise FeatureSetRefused(
                f"feature set {name}: column {columns[column]} is never written; name as many columns as the step writes",
                column=columns[column],
            )
    differs = (first.view(np.int64) != second.view(np.int64)) & ~(np.isnan(first) & np.isnan(second))
    differs |= (second.view(np.int64) != third.view(np.int64)) & ~(np.isnan(second) & np.isnan(third))
    if differs.any():
        bar, column = (int(place) for place in np.argwhere(differs)[0])
        raise FeatureSetRefused(
            f"feature set {name}: column {columns[column]} at bar {bar} is not the same twice; a step must write every "
            "column on every bar and use its state and the bar alone, no random numbers, nothing outside its arrays",
            column=columns[column],
            bar=bar,
        )
    _check_warm_up(name, columns, warmup_bars, first)


def _run(name: str, step: Step, rows: np.ndarray, state_size: int, width: int, *, fill: float) -> np.ndarray:
    state, state_watch = _watched(state_size, fill)
    row, row_watch = _watched(ROW_WIDTH, fill)
    out, out_watch = _watched(width, fill)
    state[:] = 0.0
    result = np.empty((len(rows), width))
    for bar in range(len(rows)):
        row[:] = rows[bar]
        out[:] = fill
        try:
            step(state, row, out)
        except IndexError:
            raise FeatureSetRefused(
                f"feature set {name}: bar {bar} reads or writes outside state ({state_size} slots), "
                f"bar row ({ROW_WIDTH}) or out ({width} columns); correct the index or the sizes",
                bar=bar,
            ) from None
        except Exception as problem:  # noqa: BLE001  (a user's step may raise anything)
            raise FeatureSetRefused(
                f"feature set {name}: bar {bar} raises {type(problem).__name__}: {problem}; a step must not raise",
                bar=bar,
            ) from None
        if row.tobytes() != rows[bar].tobytes():
            raise FeatureSetRefused(
                f"feature set {name}: bar {bar} is changed by the step; copy what must change into state",
                bar=bar,
            )
        result[bar] = out
    for what, watch in (("state", state_watch), ("the bar row", row_watch), ("out", out_watch)):
        margins = np.concatenate((watch[:_MARGIN], watch[-_MARGIN:]))
        if not np.array_equal(margins, np.full(2 * _MARGIN, fill), equal_nan=True):
            raise FeatureSetRefused(
                f"feature set {name}: writes outside {what}; correct the index or state_size ({state_size})"
            )
    return result


def _watched(size: int, fill: float) -> tuple[np.ndarray, np.ndarray]:
    """An array of `size` in the middle of a larger one that is filled with `fill`."""
    around = np.full(size + 2 * _MARGIN, fill)
    return around[_MARGIN : _MARGIN + size], around


def _check_warm_up(name: str, columns: Sequence[str], warmup_bars: int, result: np.ndarray) -> None:
    early = ~np.isnan(result[: warmup_bars - 1])
    if early.any():
        bar, column = (int(place) for place in np.argwhere(early)[0])
        raise FeatureSetRefused(
            f"feature set {name}: column {columns[column]} has a value at bar {bar}, before its warm-up of {warmup_bars} "
            "bars is over; write NaN into every column until then",
            column=columns[column],
            bar=bar,
        )
    late = ~np.isfinite(result[warmup_bars - 1 :])
    if late.any():
        bar, column = (int(place) for place in np.argwhere(late)[0])
        raise FeatureSetRefused(
            f"feature set {name}: column {columns[column]} is not finite at bar {bar + warmup_bars - 1}, after its warm-up "
            f"of {warmup_bars} bars; raise warmup_bars or guard the division or the null volume",
            column=columns[column],
            bar=bar + warmup_bars - 1,
        )
