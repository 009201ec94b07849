"""What monitoring settings imply for a validated model: how often they alert by chance, how soon they see a loss.

Simulated with fixed seeds, by the session day and by the outcomes of labels that do not overlap. Calls of one bar
move together, where need be those of one day as well, so that a day holds as much information as the validation's
effective counts say. A quarter has 63 session days. Delays are medians.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Final

import numpy as np

from sqkit.bars import INTERVAL_MINUTES
from sqkit.behaviour_limits import detectable
from sqkit.monitoring_baseline import MonitoringBaseline, MonitoringRules, Rate

QUARTER_DAYS: Final = 63
YEAR_DAYS: Final = 252
LOSSES: Final = {"5_points": 0.05, "10_points": 0.10}
RULES: Final = (
    "precision_drop",
    "hit_ratio_drop",
    "accuracy_floor",
    "sequential_precision_long",
    "sequential_hit_ratio",
)

_ADVICE: Final = {
    "precision_drop": "ask for a larger drop or a longer window",
    "hit_ratio_drop": "ask for a larger drop or a longer window",
    "accuracy_floor": "set a lower floor or more days",
    "sequential_precision_long": "set more days between false alerts",
    "sequential_hit_ratio": "set more days between false alerts",
}

SHIFTS: Final = (0.03, 0.05, 0.08, 0.12, 0.18, 0.25)
"""As `sqkit.production.detectors.SHIFTS`; the hall does not know production, a test holds both together."""

DETECTORS: Final = 2
"""Detectors that share the budget of false alerts."""

_CONFIDENCE: Final = 0.9
_WIDEST: Final = 0.95
_HIGHEST_MISS_RATE: Final = 0.98
_MOST_STEPS: Final = 25
_PATHS: Final = 200
_SEED: Final = 20_260_731
_HOURS_PER_DAY: Final = 24.0


def implied(baseline: MonitoringBaseline, rules: MonitoringRules) -> dict[str, Any]:
    """What the rules do with a model as good as validated, and with a worse one.

    Parameters
    ----------
    baseline
        Of the model.
    rules
        The settings.

    Returns
    -------
    dict
        ``rules``: for each of `RULES` ``can_fire``, ``reason`` (None where it can), ``false_alerts_per_quarter``, and
        ``delay_days``: session days until half of such losses are seen, ``5_points`` and ``10_points``; None beyond
        252. ``behaviour``: what `sqkit.behaviour_limits.detectable` says at one false alarm in as many days.
        ``warnings``: lines for a person.
    """
    found = {
        "precision_drop": _rolling(
            baseline, rules, "precision_long", baseline.precision_long, rules.precision_drop_threshold
        ),
        "hit_ratio_drop": _rolling(
            baseline, rules, "hit_ratio", baseline.hit_ratio, rules.hit_ratio_drop_threshold
        ),
        "accuracy_floor": _floor(baseline, rules),
        "sequential_precision_long": _sequential(
            baseline, rules, baseline.precision_long, baseline.long_called_bars
        ),
        "sequential_hit_ratio": _sequential(baseline, rules, baseline.hit_ratio, baseline.called_bars),
    }
    behaviour = None
    if baseline.behaviour is not None:
        rate = min(1.0 / rules.days_between_false_alerts, 0.5)
        behaviour = {
            "bars_until_seen": detectable(baseline.behaviour, rate),
            "false_alarms_per_day": rate,
        }
    return {"behaviour": behaviour, "rules": found, "warnings": _warnings(found)}


def wilson_upper(rate: float, count: float) -> float:
    """Upper end of the one-sided 90 % Wilson interval, as `sqkit.production.detectors.wilson_upper`."""
    z = NormalDist().inv_cdf(_CONFIDENCE)
    spread = z * math.sqrt(rate * (1.0 - rate) / count + (z / (2.0 * count)) ** 2)
    return min((rate + z * z / (2.0 * count) + spread) / (1.0 + z * z / count), 1.0)


def bets_of(miss_rate: float) -> np.ndarray:
    """The bets of `sqkit.production.detectors.MixtureShiryaevRoberts`; float64 (b,)."""
    tuned = [shift / (miss_rate * (1.0 - miss_rate)) for shift in SHIFTS]
    return np.array([bet for bet in tuned if bet < _WIDEST / miss_rate] or [0.5 / miss_rate])


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


def _nothing(reason: str) -> dict[str, Any]:
    return {
        "can_fire": False,
        "delay_days": dict.fromkeys(LOSSES),
        "false_alerts_per_quarter": None,
        "reason": reason,
    }


def _figures(false_alerts: float, delays: dict[str, float | None]) -> dict[str, Any]:
    return {
        "can_fire": True,
        "delay_days": {
            name: None if days is None else round(days, 1 if days < 10.0 else 0)
            for name, days in delays.items()
        },
        "false_alerts_per_quarter": round(false_alerts, 2),
        "reason": None,
    }


def _median(delays: np.ndarray) -> float | None:
    """Median in days; None where half of the paths never alert."""
    middle = float(np.quantile(delays, 0.5, method="higher"))
    return middle if math.isfinite(middle) else None


# --- the two rolling windows and the accuracy floor


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
        random = np.random.default_rng(_SEED)
        noise = random.standard_normal((_PATHS, days + self.overlap - 1))
        total = np.cumsum(np.pad(noise, ((0, 0), (1, 0))), axis=1)
        by_day = (total[:, self.overlap :] - total[:, : -self.overlap]) / math.sqrt(self.overlap)
        share = self.share + math.sqrt(self.day_variance) * np.repeat(by_day, self.steps, axis=1)
        if self.step_variance:
            share += math.sqrt(self.step_variance) * random.standard_normal(share.shape)
        return share


def _rolling(
    baseline: MonitoringBaseline, rules: MonitoringRules, metric: str, rate: Rate | None, drop: float
) -> dict[str, Any]:
    """A rolling window: the metric of its outcomes lies so far below the validated one."""
    if rate is None:
        return _nothing(f"can never fire: the validation has no {metric}")
    steps = max(min(round(baseline.bars_per_session / baseline.horizon_bars), _MOST_STEPS), 1)
    series = _Series.of(rate, baseline, steps=steps)
    burn_in = min(math.ceil(rules.window_hours / _HOURS_PER_DAY) + 1, YEAR_DAYS)
    hours = _hours(baseline, steps, burn_in + YEAR_DAYS)
    first = np.searchsorted(hours, hours - rules.window_hours, "right")
    last = np.arange(1, len(hours) + 1)
    samples = (last - first) * rate.count / max(baseline.session_days, 1) / steps
    if samples.max() < rules.min_samples:
        possible = (last - first).max() / steps * baseline.bars_per_session * baseline.symbols
        return _nothing(
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


def _floor(baseline: MonitoringBaseline, rules: MonitoringRules) -> dict[str, Any]:
    """The accuracy floor: so many days in a row below a share of the validated accuracy."""
    rate, needed = baseline.accuracy, rules.accuracy_floor_days
    if rate is None or rules.accuracy_floor_ratio <= 0.0:
        return _nothing(
            f"can never fire: {'there is no floor' if rate else 'the validation has no accuracy'}"
        )
    if needed > YEAR_DAYS:
        return _nothing(f"does not usually fire: {needed} days in a row are more than a year")
    series = _Series.of(rate, baseline, steps=1)
    paths, hours = series.paths(needed + YEAR_DAYS), _HOURS_PER_DAY * np.arange(needed + YEAR_DAYS)

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
    return (np.arange(days)[:, None] * _HOURS_PER_DAY + within).ravel()


def _judged(
    breaches: Callable[[float], np.ndarray], hours: np.ndarray, begin: int, steps: int, cooldown: float
) -> dict[str, Any]:
    """False alerts and delays of a rule that is broken where `breaches` of a loss says so."""
    alerts = _alerts(breaches(0.0), hours, cooldown)[:, begin:]
    delays = {}
    for name, loss in LOSSES.items():
        broken = breaches(loss)[:, begin:]
        first = np.where(broken.any(axis=1), broken.argmax(axis=1) + 1.0, np.inf)
        delays[name] = _median(first / steps)
    return _figures(float(alerts.sum()) / _PATHS * QUARTER_DAYS / YEAR_DAYS, delays)


def _alerts(broken: np.ndarray, hours: np.ndarray, cooldown: float) -> np.ndarray:
    """Where an alert begins: one ends at a step without a breach, the cooldown after its last one."""
    place = np.where(broken, np.arange(broken.shape[1]), -1)
    before = np.pad(np.maximum.accumulate(place, axis=1)[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
    passed = np.concatenate([[np.inf], hours[:-1]]) - np.where(before < 0, -np.inf, hours[before])
    mended = ~np.pad(broken[:, :-1], ((0, 0), (1, 0)))
    return np.asarray(broken & mended & (passed >= cooldown))


# --- the sequential detectors


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
        rates = np.full(_PATHS, mean)
        if self.together > 0.0:
            sure = 1.0 / self.together - 1.0
            rates = random.beta(mean * sure, (1.0 - mean) * sure, _PATHS)
        drawn: np.ndarray = random.binomial(self.calls, rates[:, None], (_PATHS, self.a_day))
        return drawn / self.calls


def _sequential(
    baseline: MonitoringBaseline, rules: MonitoringRules, rate: Rate | None, called_bars: int
) -> dict[str, Any]:
    """A sequential detector; its level is that of one stream times their number, for they see nearly the same."""
    if rate is None or not called_bars:
        return _nothing("can never fire: the validation has no such call")
    bound = wilson_upper(1.0 - rate.rate, rate.effective)
    if not 0.0 < bound < _HIGHEST_MISS_RATE:
        return _nothing("can never fire: the validated rate leaves no room for a loss")
    stream = _Stream.of(rate, called_bars, baseline, bound)
    threshold = DETECTORS * rules.days_between_false_alerts
    alerts, _ = _watched(stream, threshold, 0.0)
    delays = {name: _median(_watched(stream, threshold, loss)[1]) for name, loss in LOSSES.items()}
    return _figures(alerts / _PATHS * QUARTER_DAYS / YEAR_DAYS, delays)


def _watched(stream: _Stream, threshold: float, loss: float) -> tuple[int, np.ndarray]:
    """Alerts in a year of all paths, and the day of each path's first; with a loss, until all have alerted."""
    random, bets = np.random.default_rng(_SEED), bets_of(stream.bound)
    levels, first, alerts = np.zeros((_PATHS, len(bets))), np.full(_PATHS, np.inf), 0
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


def _warnings(found: dict[str, dict[str, Any]]) -> list[str]:
    """What a person should know of the settings, one line each."""
    lines = []
    for name, said in found.items():
        often = said["false_alerts_per_quarter"]
        if not said["can_fire"]:
            lines.append(f"{name} {said['reason']}")
        elif often > 1.0:
            lines.append(f"{name} fires by chance {often:.3g} times a quarter: {_ADVICE[name]}")
    if all(said["delay_days"]["10_points"] is None for said in found.values()):
        lines.append(f"no rule sees a loss of 10 points within {YEAR_DAYS} session days in half of the cases")
    return lines
