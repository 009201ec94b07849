"""How often the sequential detectors alert by chance, and how soon they see a loss: simulated.

The recursion is that of `sqkit.production.detectors.MixtureShiryaevRoberts`, for many paths at once. Only one of the
streams of labels is simulated, its level taken for all: they see nearly the same outcomes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sqkit.monitoring_baseline import MonitoringBaseline, MonitoringRules, Rate
from sqkit.rule_figures import LOSSES, PATHS, SEED, YEAR_DAYS, cannot_fire, median_delay, rule_figures
from sqkit.sequential_bets import DETECTED, bets_of, miss_rate_bound


def mixture_step(
    levels: np.ndarray, misses: np.ndarray, miss_rate: float, bets: np.ndarray, weight: float
) -> np.ndarray:
    """One update of many `sqkit.production.detectors.MixtureShiryaevRoberts` of one stream at once.

    ``R_j <- (weight + R_j) * (1 + bet_j * (miss - miss_rate))``; the level of a path is the mean over j.

    Parameters
    ----------
    levels
        float64 (paths, b).
    misses
        float64 (paths,), in [0, 1].
    """
    after: np.ndarray = (weight + levels) * (1.0 + bets * (misses - miss_rate)[:, None])
    return after


@dataclass(frozen=True)
class _Stream:
    """Outcomes of one stream of labels that do not overlap.

    Attributes
    ----------
    bound
        The detector's miss rate.
    miss_rate
        As validated.
    a_day, days_between
        Outcomes a session day, or session days from one to the next; one of them is 1.
    calls
        Independent ones of one outcome: those of one bar move together.
    together
        Variance of a day's miss rate, as a share of the most it can be, where that does not explain it all.
    """

    bound: float
    miss_rate: float
    a_day: int
    days_between: int
    calls: int
    together: float

    @classmethod
    def of(cls, rate: Rate, called_bars: int, baseline: MonitoringBaseline, bound: float) -> _Stream:
        """The stream of a metric whose calls came on so many bars."""
        days = max(baseline.session_days, 1)
        outcomes = called_bars / days / baseline.horizon_bars
        a_day = max(round(outcomes), 1)
        days_between = 1 if outcomes >= 1.0 else round(1.0 / outcomes)
        # A stream that rests for days knows what one bar of it does.
        effective = rate.effective / days if outcomes >= 1.0 else rate.effective / called_bars
        calls = max(min(int(effective / a_day), round(rate.count / called_bars)), 1)
        together = min(max(1.0 / max(effective, 1e-6) - 1.0 / (calls * a_day), 0.0), 0.9)
        return cls(bound, 1.0 - rate.rate, a_day, days_between, calls, together)

    def misses(self, random: np.random.Generator, loss: float) -> np.ndarray:
        """One day of many paths, float64 (paths, outcomes)."""
        mean = min(max(self.miss_rate + loss, 1e-6), 1.0 - 1e-6)
        rates = np.full(PATHS, mean)
        if self.together > 0.0:
            sure = 1.0 / self.together - 1.0
            rates = random.beta(mean * sure, (1.0 - mean) * sure, PATHS)
        drawn: np.ndarray = random.binomial(self.calls, rates[:, None], (PATHS, self.a_day))
        return drawn / self.calls


def sequential_detector(
    baseline: MonitoringBaseline, rules: MonitoringRules, rate: Rate | None, called_bars: int
) -> dict[str, Any]:
    """A sequential detector; its level is that of one stream times their number, for they see nearly the same."""
    if rate is None or not called_bars:
        return cannot_fire("can never fire: the validation has no such call")
    bound = miss_rate_bound(rate)
    if bound is None:
        return cannot_fire("can never fire: the validated rate leaves no room for a loss")
    stream = _Stream.of(rate, called_bars, baseline, bound)
    threshold = len(DETECTED) * rules.days_between_false_alerts
    alerts, _ = _watched(stream, threshold, 0.0)
    delays = {name: median_delay(_watched(stream, threshold, loss)[1]) for name, loss in LOSSES.items()}
    return rule_figures(float(alerts), delays)


def _watched(stream: _Stream, threshold: float, loss: float) -> tuple[int, np.ndarray]:
    """Alerts in a year of all paths, and the day of each path's first; with a loss, until all have alerted."""
    random, bets = np.random.default_rng(SEED), np.array(bets_of(stream.bound))
    levels, first, alerts = np.zeros((PATHS, len(bets))), np.full(PATHS, np.inf), 0
    weight = stream.days_between / stream.a_day
    for day in range(0, YEAR_DAYS, stream.days_between):
        misses = stream.misses(random, loss)
        for number in range(stream.a_day):
            levels = mixture_step(levels, misses[:, number], stream.bound, bets, weight)
            fired = levels.mean(axis=1) >= threshold
            if fired.any():
                alerts += int(fired.sum())
                first[fired] = np.minimum(first[fired], day + (number + 1.0) * weight)
                levels[fired] = 0.0
        if loss and np.isfinite(first).all():
            break
    return alerts, first
