"""How often the rolling windows and the accuracy floor alert by chance, and how soon they see a loss: simulated.

Calls of one step move together, where need be those of one day as well, so that a day holds as much information as
the validation's effective counts say. Daily labels span days, and so do their shares.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from sqkit.bars import INTERVAL_MINUTES
from sqkit.monitoring_baseline import MonitoringBaseline, MonitoringRules, Rate
from sqkit.rule_figures import LOSSES, PATHS, SEED, YEAR_DAYS, cannot_fire, median_delay, rule_figures

HOURS_PER_DAY: Final = 24.0

_MOST_STEPS: Final = 25


@dataclass(frozen=True)
class _Series:
    """Many paths of a share, step by step.

    Attributes
    ----------
    steps
        A session day.
    share
        As validated.
    day_variance, step_variance
        Of a day's share about it, and of a step's about its day.
    overlap
        Days that one label spans.
    """

    steps: int
    share: float
    day_variance: float
    step_variance: float
    overlap: int

    @classmethod
    def of(cls, rate: Rate, baseline: MonitoringBaseline, *, steps: int) -> _Series:
        """A series whose days hold as much information as the validation's did."""
        days, spread = max(baseline.session_days, 1), rate.rate * (1.0 - rate.rate)
        a_day = max(rate.effective / days, 1e-6)
        if baseline.bars_per_session == 1:
            return cls(steps, rate.rate, spread / a_day, 0.0, baseline.horizon_bars)
        # Calls of one step move together as far as it takes; only what is left then belongs to the day.
        within = max(min(rate.count / days / baseline.horizon_bars, steps), a_day)
        return cls(steps, rate.rate, spread * (1.0 / a_day - 1.0 / within), spread * steps / within, 1)

    def paths(self, days: int) -> np.ndarray:
        """float64 (paths, days * steps); normal, for they are averaged over many calls."""
        random = np.random.default_rng(SEED)
        noise = random.standard_normal((PATHS, days + self.overlap - 1))
        total = np.cumsum(np.pad(noise, ((0, 0), (1, 0))), axis=1)
        by_day = (total[:, self.overlap :] - total[:, : -self.overlap]) / math.sqrt(self.overlap)
        share = self.share + math.sqrt(self.day_variance) * np.repeat(by_day, self.steps, axis=1)
        if self.step_variance:
            share += math.sqrt(self.step_variance) * random.standard_normal(share.shape)
        return share


def rolling_window(
    baseline: MonitoringBaseline, rules: MonitoringRules, metric: str, rate: Rate | None, drop: float
) -> dict[str, Any]:
    """A rolling window: the metric of its outcomes lies so far below the validated one."""
    if rate is None:
        return cannot_fire(f"can never fire: the validation has no {metric}")
    steps = max(min(round(baseline.bars_per_session / baseline.horizon_bars), _MOST_STEPS), 1)
    series = _Series.of(rate, baseline, steps=steps)
    burn_in = min(math.ceil(rules.window_hours / HOURS_PER_DAY) + 1, YEAR_DAYS)
    hours = _hours(baseline, steps, burn_in + YEAR_DAYS)
    first = np.searchsorted(hours, hours - rules.window_hours, "right")
    last = np.arange(1, len(hours) + 1)
    samples = (last - first) * rate.count / max(baseline.session_days, 1) / steps
    if samples.max() < rules.min_samples:
        possible = (last - first).max() / steps * baseline.bars_per_session * baseline.symbols
        return cannot_fire(
            f"{'can never fire' if possible < rules.min_samples else 'does not usually fire'}: a window of "
            f"{rules.window_hours:g} hours holds {samples.max():.3g} samples, {rules.min_samples} are asked for"
        )
    enough = samples >= rules.min_samples - 1e-9
    paths, begin = series.paths(burn_in + YEAR_DAYS), burn_in * steps

    def breaches(loss: float) -> np.ndarray:
        fallen = paths.copy()
        fallen[:, begin:] -= loss
        total = np.cumsum(np.pad(fallen, ((0, 0), (1, 0))), axis=1)
        means = (total[:, last] - total[:, first]) / (last - first)
        return np.asarray((means <= series.share - drop + 1e-12) & enough)

    return _judged(breaches, hours, begin, steps, rules.alert_cooldown_hours)


def accuracy_floor(baseline: MonitoringBaseline, rules: MonitoringRules) -> dict[str, Any]:
    """The accuracy floor: so many days in a row below a share of the validated accuracy."""
    rate, needed = baseline.accuracy, rules.accuracy_floor_days
    if rate is None or rules.accuracy_floor_ratio <= 0.0:
        return cannot_fire(
            f"can never fire: {'there is no floor' if rate else 'the validation has no accuracy'}"
        )
    if needed > YEAR_DAYS:
        return cannot_fire(f"does not usually fire: {needed} days in a row are more than a year")
    series = _Series.of(rate, baseline, steps=1)
    paths, hours = series.paths(needed + YEAR_DAYS), HOURS_PER_DAY * np.arange(needed + YEAR_DAYS)

    def breaches(loss: float) -> np.ndarray:
        fallen = paths.copy()
        fallen[:, needed:] -= loss
        below = fallen < rules.accuracy_floor_ratio * series.share
        total = np.cumsum(np.pad(below, ((0, 0), (1, 0))), axis=1)
        in_a_row = total[:, needed:] - total[:, :-needed] >= needed
        return np.pad(in_a_row, ((0, 0), (needed - 1, 0)))

    return _judged(breaches, hours, needed, 1, rules.alert_cooldown_hours)


def _hours(baseline: MonitoringBaseline, steps: int, days: int) -> np.ndarray:
    """When each step ends, on a time line of session days of 24 hours."""
    session = baseline.bars_per_session * INTERVAL_MINUTES[baseline.interval] / 60.0
    within = session * np.arange(1, steps + 1) / steps
    return (np.arange(days)[:, None] * HOURS_PER_DAY + within).ravel()


def _judged(
    breaches: Callable[[float], np.ndarray], hours: np.ndarray, begin: int, steps: int, cooldown: float
) -> dict[str, Any]:
    """False alerts and delays of a rule that is broken where `breaches` of a loss says so."""
    alerts = alerts_begin(breaches(0.0), hours, cooldown)[:, begin:]
    delays = {}
    for name, loss in LOSSES.items():
        broken = breaches(loss)[:, begin:]
        first = np.where(broken.any(axis=1), broken.argmax(axis=1) + 1.0, np.inf)
        delays[name] = median_delay(first / steps)
    return rule_figures(float(alerts.sum()), delays)


def alerts_begin(broken: np.ndarray, hours: np.ndarray, cooldown: float) -> np.ndarray:
    """Where an alert begins: one ends at a step without a breach, the cooldown after its last one."""
    place = np.where(broken, np.arange(broken.shape[1]), -1)
    before = np.pad(np.maximum.accumulate(place, axis=1)[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
    passed = np.concatenate([[np.inf], hours[:-1]]) - np.where(before < 0, -np.inf, hours[before])
    mended = ~np.pad(broken[:, :-1], ((0, 0), (1, 0)))
    return np.asarray(broken & mended & (passed >= cooldown))
