"""What a model says over a few bars, and how far that is from what it usually says: defined once.

A validation measures the usual with these functions, whoever watches the live model compares with the same ones.
A window is the last `WINDOW_BARS` bars, pooled over symbols; the usual is known by `BUCKET_MINUTES` minutes of the
session, so an expected morning warm-up is expected. Nothing here needs an outcome.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from sqkit.records import FLAT, LONG

WINDOW_BARS: Final = 5
BUCKET_MINUTES: Final = 15

ROWS, CALLS, LONGS, UNSCORED, PROBABILITY = range(5)
"""Columns of a bar's counts: rows, LONG or SHORT, LONG, rows without a probability, sum of probabilities."""

STATISTICS: Final = ("calls", "long", "unscored", "probability")
"""Share of rows with a call, with a LONG call, without a probability; mean probability of the others."""

_RAREST: Final = 0.02
"""A share is never told from this one more surely than independent rows of it would allow."""

_NARROWEST: Final = 0.005
"""Standard deviation of one row's probability, at least: a model that says nearly always the same."""


def bar_counts(bar: np.ndarray, direction: np.ndarray, probability_up: np.ndarray, bars: int) -> np.ndarray:
    """Count the rows of each bar.

    Parameters
    ----------
    bar
        int (n,), number of the row's bar, from 0.
    direction, probability_up
        (n,), LONG, FLAT or SHORT; P(up | decisive move), NaN where not scored.
    bars
        Number of bars.

    Returns
    -------
    ndarray
        float64 (bars, 5), columns `ROWS` to `PROBABILITY`.
    """
    scored = np.isfinite(probability_up)
    said = (
        np.ones(len(bar)),
        direction != FLAT,
        direction == LONG,
        ~scored,
        np.where(scored, probability_up, 0.0),
    )
    return np.stack([np.bincount(bar, weights=one, minlength=bars) for one in said], axis=1)


def bucket_bars(bar_minutes: int) -> int:
    """Bars of one bucket of the session; a daily bar (0 minutes) has one bucket."""
    return max(BUCKET_MINUTES // bar_minutes, 1) if bar_minutes else 1


def bucket_of(bar_in_session: Any, bar_minutes: int, buckets: int) -> Any:
    """Bucket of a bar by its number in the session; after the last known one the last."""
    return np.minimum(np.asarray(bar_in_session) // bucket_bars(bar_minutes), buckets - 1)


def silence_after(silence: float, calls: float, expected_calls: float) -> float:
    """Calls that were expected since the last one, after one more bar; see `Usual.expected_calls`."""
    return 0.0 if calls else silence + expected_calls


@dataclass(frozen=True)
class Usual:
    """What is usual, by bucket, as arrays.

    Attributes
    ----------
    means
        float64 (b, 4), `STATISTICS`.
    row_deviation
        float64 (b,), standard deviation of one row's probability.
    window_deviations
        float64 (b, 4), root mean square, over days and windows, of `strays`.
    window_rows
        float64 (b,), rows that these windows had, on average.
    """

    means: np.ndarray
    row_deviation: np.ndarray
    window_deviations: np.ndarray
    window_rows: np.ndarray

    @classmethod
    def of_buckets(cls, buckets: Sequence[Mapping[str, Any]]) -> Usual:
        """From a profile's buckets; one without a scored row takes the mean of the others."""
        scored = [one["probability_up"] for one in buckets if one["probability_up"] is not None]
        middle = float(np.mean(scored)) if scored else 0.5
        means = [
            (
                one["calls"],
                one["long"],
                one["unscored"],
                middle if one["probability_up"] is None else one["probability_up"],
            )
            for one in buckets
        ]
        deviations = [[one["window_deviations"][name] for name in STATISTICS] for one in buckets]
        return cls(
            np.array(means, dtype=np.float64),
            np.array([one["probability_deviation"] for one in buckets], dtype=np.float64),
            np.array(deviations, dtype=np.float64),
            np.array([one["window_rows"] for one in buckets], dtype=np.float64),
        )

    def expected_calls(self, counts: np.ndarray, bucket: np.ndarray) -> np.ndarray:
        """Calls expected of each bar's scored rows, float64 (n,): a warm-up is no silence.

        Parameters
        ----------
        counts
            float64 (n, 5), as `bar_counts` gives them.
        bucket
            int (n,), bucket of each bar.
        """
        scored = 1.0 - self.means[bucket, 2]
        often = self.means[bucket, 0] / np.where(scored > 0.0, scored, 1.0)
        expected: np.ndarray = (counts[:, ROWS] - counts[:, UNSCORED]) * often
        return expected


def windows_of(values: np.ndarray) -> np.ndarray:
    """Every run of `WINDOW_BARS` consecutive entries: (n - 4, 5, ...)."""
    return np.moveaxis(np.lib.stride_tricks.sliding_window_view(values, WINDOW_BARS, axis=0), -1, 1)


def window_means(counts: np.ndarray, bucket: np.ndarray, means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Statistics of windows, and what is expected of them.

    Parameters
    ----------
    counts
        float64 (w, 5, 5): windows, bars, columns of `bar_counts`.
    bucket
        int (w, 5), bucket of each bar.
    means
        float64 (b, 4), as `Usual.means`.

    Returns
    -------
    tuple of ndarray
        Observed and expected, float64 (w, 4); equal where a window has no scored row to average.
    """
    rows = counts[:, :, ROWS]
    scored = rows - counts[:, :, UNSCORED]
    weights = np.stack([rows, rows, rows, scored], axis=2)
    total = weights.sum(axis=1)
    expected_sum = (weights * means[bucket]).sum(axis=1)
    observed_sum = counts[:, :, [CALLS, LONGS, UNSCORED, PROBABILITY]].sum(axis=1)
    nothing = total == 0.0
    at_least_one = np.where(nothing, 1.0, total)
    expected = np.where(nothing, means[bucket[:, -1]], expected_sum / at_least_one)
    return np.where(nothing, expected, observed_sum / at_least_one), expected


def strays(observed: np.ndarray, expected: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """How far windows stray from what is expected of them, float64 (w, 4), before any standard deviation.

    Parameters
    ----------
    observed, expected
        As `window_means` gives them.
    rows
        float64 (w,), rows of each window.

    Notes
    -----
    Shares of calls as differences of log odds, ``log((x n + c) / (n - x n + c))`` with c half a symbol's window: symbols
    call together, so a share of calls is skewed, and "all of them" must lie further off than "many of them".
    The other two as plain differences.
    """
    of_calls = _log_odds(observed[:, :2], rows) - _log_odds(expected[:, :2], rows)
    return np.concatenate([of_calls, observed[:, 2:] - expected[:, 2:]], axis=1)


def _log_odds(share: np.ndarray, rows: np.ndarray) -> np.ndarray:
    half, every = WINDOW_BARS / 2.0, rows[:, None]
    odds: np.ndarray = np.log((share * every + half) / ((1.0 - share) * every + half))
    return odds


def unusual(
    observed: np.ndarray, expected: np.ndarray, rows: np.ndarray, bucket: np.ndarray, usual: Usual
) -> np.ndarray:
    """z of windows, float64 (w, 4): how far they stray, in standard deviations.

    Parameters
    ----------
    observed, expected, rows
        As `strays` takes them.
    bucket
        int (w,), bucket of each window's last bar.

    Notes
    -----
    The standard deviation is the windows' own in that bucket, widened by ``sqrt(usual rows / rows)`` where there are
    fewer rows; never below that of independent rows: ``p (1 - p) / n``, for log odds ``1 / (n p (1 - p))``.
    """
    count = np.maximum(rows, 1.0)[:, None]
    fewer = np.maximum(usual.window_rows[bucket][:, None] / count, 1.0)
    share = np.clip(expected, _RAREST, 1.0 - _RAREST)
    of_rows = share * (1.0 - share)
    of_rows[:, :2] = 1.0 / of_rows[:, :2]
    of_rows[:, 3] = np.maximum(usual.row_deviation[bucket], _NARROWEST) ** 2
    variance = np.maximum(usual.window_deviations[bucket] ** 2 * fewer, of_rows / count)
    z: np.ndarray = strays(observed, expected, rows) / np.sqrt(variance)
    return z


def standardised(
    counts: np.ndarray, bucket: np.ndarray, usual: Usual
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How unusual windows are.

    Parameters
    ----------
    counts, bucket
        As `window_means` takes them.

    Returns
    -------
    tuple of ndarray
        z, observed and expected, float64 (w, 4) each.
    """
    observed, expected = window_means(counts, bucket, usual.means)
    z = unusual(observed, expected, counts[:, :, ROWS].sum(axis=1), bucket[:, -1], usual)
    return z, observed, expected
