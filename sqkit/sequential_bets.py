"""What the sequential detectors bet on, and against which miss rate: the live ones and those that are simulated.

`sqkit.production.detectors` watches with these, `sqkit.detector_rates` says what that implies.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Final

from sqkit.errors import UsageError
from sqkit.monitoring_baseline import Rate

DETECTED: Final = ("hit_ratio", "precision_long")
"""Metrics that a detector watches; the budget of false alerts is split between them."""

SHIFTS: Final = (0.03, 0.05, 0.08, 0.12, 0.18, 0.25)
"""Losses of hit ratio that the mixture is tuned to."""

_WIDEST: Final = 0.95
"""A bet loses at most this share of what it has; one that could lose all would never come back."""

_HIGHEST_MISS_RATE: Final = 0.98


def wilson_upper(rate: float, count: float, confidence: float = 0.9) -> float:
    """Upper end of the one-sided Wilson interval (1927) of a rate.

    Parameters
    ----------
    rate
        Observed, in [0, 1].
    count
        Observations it rests on, above 0; an effective number need not be whole.
    confidence
        That the true rate is not above.

    Raises
    ------
    UsageError
        A value lies outside its range.
    """
    if not (0.0 <= rate <= 1.0 and count > 0.0 and 0.0 < confidence < 1.0):
        raise UsageError(f"wilson_upper({rate}, {count}, {confidence}): give shares, and a count above 0")
    z = NormalDist().inv_cdf(confidence)
    spread = z * math.sqrt(rate * (1.0 - rate) / count + (z / (2.0 * count)) ** 2)
    return min((rate + z * z / (2.0 * count) + spread) / (1.0 + z * z / count), 1.0)


def miss_rate_bound(validated: Rate | None) -> float | None:
    """The validated miss rate at its worst: the upper end of its one-sided 90 % Wilson interval.

    None where the metric was not validated, or leaves no room for a loss.
    """
    if validated is None:
        return None
    bound = wilson_upper(1.0 - validated.rate, validated.effective)
    return bound if 0.0 < bound < _HIGHEST_MISS_RATE else None


def bets_of(miss_rate: float) -> tuple[float, ...]:
    """The bets on `SHIFTS` that are safe at a miss rate; where none is, one that stakes half of what it has.

    Raises
    ------
    UsageError
        The rate does not lie between 0 and 1.
    """
    if not 0.0 < miss_rate < 1.0:
        raise UsageError(f"miss rate {miss_rate}: give a rate between 0 and 1")
    tuned = (shift / (miss_rate * (1.0 - miss_rate)) for shift in SHIFTS)
    return tuple(bet for bet in tuned if bet < _WIDEST / miss_rate) or (0.5 / miss_rate,)
