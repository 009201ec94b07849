"""When unusual behaviour is an alarm, at a rate of false alarms that is set; and which faults would be seen how soon.

A profile keeps, for each alarm, how large the largest value of a validated day was: location and scale of a Gumbel
law, and the largest of all. A limit for any rate follows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any, Final

import numpy as np

from sqkit.behaviour_windows import (
    STATISTICS,
    WINDOW_BARS,
    Usual,
    unusual,
)

SIDES: Final[dict[str, tuple[int, float]]] = {
    "calls_more": (0, 1.0),
    "calls_less": (0, -1.0),
    "long_more": (1, 1.0),
    "long_less": (1, -1.0),
    "unscored_more": (2, 1.0),
    "probability_higher": (3, 1.0),
    "probability_lower": (3, -1.0),
}
"""Alarm to statistic (of `sqkit.behaviour_windows.STATISTICS`) and side; the two tails of a share differ."""

SILENT: Final = "silent"
"""The alarm that no call has come for too long, measured in calls that were expected since the last one."""

ALARMS: Final = (*SIDES, SILENT)

FAULTS: Final = ("all_long", "ten_times_the_calls", "never_calls", "never_scored")
"""What `detectable` answers for."""

_EULER: Final = 0.5772156649015329
_SCALE_ERROR: Final = 1.05
"""Standard error of a scale by moments is this over sqrt(days), relative: a Gumbel law's kurtosis is 5.4."""


def gumbel_of(daily_maxima: np.ndarray) -> dict[str, float]:
    """A Gumbel law by the method of moments, and the largest value.

    Parameters
    ----------
    daily_maxima
        float (d,), at least 2 days.

    Returns
    -------
    dict
        ``location``, ``scale`` and ``largest``: ``scale = sd sqrt(6) / pi``, ``location = mean - 0.5772 scale``.
    """
    scale = float(np.std(daily_maxima, ddof=1)) * math.sqrt(6.0) / math.pi
    location = float(np.mean(daily_maxima)) - _EULER * scale
    largest = float(np.max(daily_maxima))
    return {"largest": round(largest, 4), "location": round(location, 4), "scale": round(scale, 4)}


def limits_of(profile: Mapping[str, Any], false_alarms_per_day: float, symbols: int) -> dict[str, float]:
    """Limit of each alarm.

    Parameters
    ----------
    profile
        ``behaviour`` of a `sqkit.monitoring_baseline.MonitoringBaseline`.
    false_alarms_per_day
        Of all alarms together, in (0, 1); they share it equally.
    symbols
        That are watched. With more than were validated a common pause is worth more expected calls.

    Notes
    -----
    The Gumbel quantile, its scale widened by one standard error, or the largest value seen, whichever is larger;
    for windows also no less than the normal quantile of so many independent windows a day.
    """
    rate = min(max(false_alarms_per_day, 1e-9), 0.999) / len(ALARMS)
    wider = 1.0 + _SCALE_ERROR / math.sqrt(profile["days"])
    beyond = -math.log(-math.log1p(-rate))
    noise = NormalDist().inv_cdf(1.0 - rate / max(profile["windows_per_day"], 1.0))
    limits = {}
    for name in ALARMS:
        law = profile["daily_maxima"][name]
        limits[name] = max(law["largest"], law["location"] + wider * law["scale"] * beyond)
        if name != SILENT:
            limits[name] = max(limits[name], noise)
    many = max(symbols / max(profile["symbols"], 1), 1.0)
    # An exponential law of gaps between independent calls, where the validation had next to none.
    limits[SILENT] = max(limits[SILENT] * many, -math.log(rate / max(profile["windows_per_day"], 1.0)))
    return limits


def detectable(
    profile: Mapping[str, Any], false_alarms_per_day: float, symbols: int | None = None
) -> dict[str, int | None]:
    """Within how many bars each of `FAULTS` would be seen, at the median bucket of the session.

    Parameters
    ----------
    profile, false_alarms_per_day
        As `limits_of` takes them.
    symbols
        That are watched; None for as many as were validated.

    Returns
    -------
    dict
        Fault to bars since it began, counted as if all else were as usual; None where never.

    Notes
    -----
    How many symbols suffice depends on how the model calls; ask here. With probabilities that persist (AR 0.9 by the
    minute), a fifth of their variance common to all symbols, one false alarm in 100 days and 60 validated days: for
    all LONG within five bars 10 symbols suffice. For ten times the calls as many, where one row in ten or more has a
    call; where one in 25 has, even that is not told from a busy market. For no call at all it takes about as many
    symbols as expect four calls a bar (20 at one call in four rows, 60 at one in ten). That nothing is scored is seen at
    once. Fewer symbols or calls are decided later, by the silence, or not at all.
    """
    watched = symbols or profile["symbols"]
    limits = limits_of(profile, false_alarms_per_day, watched)
    usual = Usual.of_buckets(profile["buckets"])
    found = {fault: _bars_until(_faulty(usual.means, fault), usual, limits, watched) for fault in FAULTS}
    return {fault: None if bars is None else math.ceil(bars) for fault, bars in found.items()}


def _faulty(means: np.ndarray, fault: str) -> np.ndarray:
    """What a faulty model's statistics are, by bucket."""
    said = means.copy()
    calls, long, unscored, _ = range(len(STATISTICS))
    scored = 1.0 - means[:, unscored]
    if fault == "all_long":
        said[:, calls] = said[:, long] = scored
    elif fault == "ten_times_the_calls":
        often = np.minimum(10.0 * means[:, calls], scored)
        part = means[:, long] / np.where(means[:, calls] > 0.0, means[:, calls], 1.0)
        said[:, calls], said[:, long] = often, often * part
    else:
        said[:, calls] = said[:, long] = 0.0
        if fault == "never_scored":
            said[:, unscored] = 1.0
    return said


def _bars_until(said: np.ndarray, usual: Usual, limits: Mapping[str, float], symbols: int) -> float | None:
    """Median over buckets of the bars until the first alarm; None where most buckets never see it."""
    buckets = np.arange(len(said))
    rows = np.full(len(said), float(WINDOW_BARS * symbols))
    soonest = np.full(len(said), np.inf)
    for bars in range(WINDOW_BARS, 0, -1):
        observed = usual.means + (said - usual.means) * bars / WINDOW_BARS
        z = unusual(observed, usual.means, rows, buckets, usual)
        seen = [z[:, column] * sign > limits[name] for name, (column, sign) in SIDES.items()]
        soonest[np.any(seen, axis=0)] = bars
    if not said[:, 0].any() and not np.all(said[:, 2] == 1.0):  # what is not scored is not silent
        expected = np.maximum(usual.means[:, 0] * symbols, 1e-12)
        soonest = np.minimum(soonest, np.floor(limits[SILENT] / expected) + 1.0)
    median = float(np.quantile(soonest, 0.5, method="higher"))
    return median if median < 1e6 else None
