"""What a model usually says, by minute of the session, and how far a usual day strays from it.

Measured on every row of a validation, also those without an outcome; `sqkit.behaviour_windows` defines the
statistics and `sqkit.behaviour_limits` the alarms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from sqkit.behaviour_limits import SIDES, SILENT, gumbel_of
from sqkit.behaviour_windows import (
    CALLS,
    LONGS,
    PROBABILITY,
    ROWS,
    STATISTICS,
    UNSCORED,
    WINDOW_BARS,
    Usual,
    bar_counts,
    bucket_bars,
    bucket_of,
    silence_after,
    standardised,
    strays,
    window_means,
    windows_of,
)
from sqkit.records import REASON_CODES, REASONS

CONFIDENCE_BINS: Final = 10
FEWEST_DAYS: Final = 10
"""A law of daily maxima from fewer days would say nothing."""

_PLACES: Final = 5
_SPOKE: Final = REASON_CODES["scored"]


@dataclass(frozen=True)
class SaidRows:
    """What a model said, one entry a bar and symbol, in any order.

    Attributes
    ----------
    session_day, bar_in_session
        int (n,), days since 1970-01-01; number of the bar in its session, from 0.
    direction, probability_up, reason
        (n,), codes of `sqkit.records`; NaN where not scored.
    """

    session_day: np.ndarray
    bar_in_session: np.ndarray
    direction: np.ndarray
    probability_up: np.ndarray
    reason: np.ndarray


@dataclass(frozen=True)
class _Bars:
    """Pooled bars in time order."""

    day: np.ndarray
    bucket: np.ndarray
    counts: np.ndarray


def usual_behaviour(said: SaidRows, *, bar_minutes: int, symbols: int) -> dict[str, Any] | None:
    """The profile that `sqkit.production.behaviour.BehaviourWatch` watches by, plain JSON.

    Parameters
    ----------
    bar_minutes
        Length of a bar; 0 for daily bars.
    symbols
        That were validated.

    Returns
    -------
    dict or None
        None below `FEWEST_DAYS` session days.
    """
    if len(np.unique(said.session_day)) < FEWEST_DAYS:
        return None
    buckets = int(np.max(said.bar_in_session)) // bucket_bars(bar_minutes) + 1 if bar_minutes else 1
    row_bucket = bucket_of(said.bar_in_session, bar_minutes, buckets)
    bars = _pooled(said, row_bucket)
    profile: dict[str, Any] = {
        "bar_minutes": bar_minutes,
        "buckets": [_bucket(said, row_bucket == number) for number in range(buckets)],
        "days": len(np.unique(bars.day)),
        "symbols": symbols,
        "window_bars": WINDOW_BARS,
    }
    _add_window_deviations(profile["buckets"], bars, daily=not bar_minutes)
    maxima, windows = _daily_maxima(Usual.of_buckets(profile["buckets"]), bars, daily=not bar_minutes)
    profile["daily_maxima"] = {name: gumbel_of(values) for name, values in maxima.items()}
    profile["windows_per_day"] = round(windows / profile["days"], 2)
    return profile


def _pooled(said: SaidRows, row_bucket: np.ndarray) -> _Bars:
    """Bars with the counts of all their symbols."""
    longest = int(np.max(said.bar_in_session)) + 1
    key = said.session_day.astype(np.int64) * longest + said.bar_in_session
    _, first, number = np.unique(key, return_index=True, return_inverse=True)
    counts = bar_counts(number, said.direction, said.probability_up, len(first))
    return _Bars(said.session_day[first], row_bucket[first], counts)


def _bucket(said: SaidRows, rows: np.ndarray) -> dict[str, Any]:
    """Shares and means of one bucket's rows."""
    probability, reason = said.probability_up[rows], said.reason[rows]
    counts = bar_counts(np.zeros(len(reason), dtype=np.int64), said.direction[rows], probability, 1)[0]
    scored = probability[np.isfinite(probability)]
    confidence = np.maximum(scored, 1.0 - scored)
    histogram = np.histogram(confidence, bins=CONFIDENCE_BINS, range=(0.5, 1.0))[0]
    every = max(counts[ROWS], 1.0)
    return {
        "abstentions": {
            name: _short(np.mean(reason == code))
            for code, name in REASONS.items()
            if code != _SPOKE and np.any(reason == code)
        },
        "calls": _short(counts[CALLS] / every),
        "confidence": [_short(count / max(len(scored), 1)) for count in histogram],
        "long": _short(counts[LONGS] / every),
        "probability_deviation": _short(np.std(scored)) if len(scored) else 0.0,
        "probability_up": _short(counts[PROBABILITY] / len(scored)) if len(scored) else None,
        "rows": int(counts[ROWS]),
        "unscored": _short(counts[UNSCORED] / every),
    }


def _windows(bars: _Bars, *, daily: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts and buckets of every window, and the day of its last bar; an intraday one lies in one session."""
    if len(bars.day) < WINDOW_BARS:
        return np.zeros((0, WINDOW_BARS, 5)), np.zeros((0, WINDOW_BARS), dtype=np.int64), bars.day[:0]
    days = windows_of(bars.day)
    whole = np.ones(len(days), dtype=bool) if daily else days[:, 0] == days[:, -1]
    return windows_of(bars.counts)[whole], windows_of(bars.bucket)[whole], days[whole, -1]


def _add_window_deviations(buckets: list[dict[str, Any]], bars: _Bars, *, daily: bool) -> None:
    """How far windows that end in a bucket stray, over days; zeros where none ends there."""
    nothing = {"window_deviations": dict.fromkeys(STATISTICS, 0.0), "window_rows": 1.0}
    usual = Usual.of_buckets([{**one, **nothing} for one in buckets])
    counts, bucket, _ = _windows(bars, daily=daily)
    observed, expected = window_means(counts, bucket, usual.means)
    rows = counts[:, :, ROWS].sum(axis=1)
    for number, one in enumerate(buckets):
        here = bucket[:, -1] == number
        one |= nothing
        if not np.any(here):
            continue
        stray = np.sqrt(np.mean(strays(observed[here], expected[here], rows[here]) ** 2, axis=0))
        one["window_deviations"] = {
            name: _short(value) for name, value in zip(STATISTICS, stray, strict=True)
        }
        one["window_rows"] = round(float(np.mean(rows[here])), 1)


def _daily_maxima(usual: Usual, bars: _Bars, *, daily: bool) -> tuple[dict[str, np.ndarray], int]:
    """The largest value of each alarm's statistic on each day, and how many windows there were."""
    counts, bucket, day = _windows(bars, daily=daily)
    z = standardised(counts, bucket, usual)[0]
    maxima = {name: _largest(z[:, column] * sign, day) for name, (column, sign) in SIDES.items()}
    silence, path = 0.0, np.empty(len(bars.day))
    expected = usual.expected_calls(bars.counts, bars.bucket).tolist()
    for number, (calls, hoped) in enumerate(zip(bars.counts[:, CALLS].tolist(), expected, strict=True)):
        path[number] = silence = silence_after(silence, calls, hoped)
    maxima[SILENT] = _largest(path, bars.day)
    return maxima, len(day)


def _largest(values: np.ndarray, day: np.ndarray) -> np.ndarray:
    """Largest value of each day; two zeros where there is none, which no law can be fitted to."""
    days, number = np.unique(day, return_inverse=True)
    if len(days) < 2:
        return np.zeros(2)
    largest = np.full(len(days), -np.inf)
    np.maximum.at(largest, number, values)
    return largest


def _short(value: Any) -> float:
    return round(float(value), _PLACES)
