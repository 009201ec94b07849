"""Rules of monitoring over many orders of one outcome log at once: where each of them alerts.

`sqkit.production.monitor_simulation` makes the orders. The rules that watch a live model are computed here as they are
there (a test holds both together), and beside them those that people use elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from sqkit.detector_rates import mixture_step
from sqkit.monitoring_baseline import MonitoringBaseline, MonitoringRules, Rate
from sqkit.production.detectors import log_ratios
from sqkit.production.monitor_rules import ACCURACY_FLOOR, HIT_RATIO_DROP, PRECISION_DROP
from sqkit.production.run_lengths import cusum_threshold
from sqkit.records import FLAT, LONG
from sqkit.sequential_bets import DETECTED, bets_of, miss_rate_bound
from sqkit.window_rates import alerts_begin

ROLLING_CALLS: Final = 200
ROLLING_DROP: Final = 0.05
ROLLING: Final = "rolling_200"
CUSUM_BARS: Final = "cusum_bar_mean"
CUSUM_OUTCOMES: Final = "cusum_outcome"
RISK_ADJUSTED: Final = "risk_adjusted_cusum"

LOSS: Final = 0.10
"""What the cumulative sums are tuned to, in points."""

ODDS: Final = 2.0
"""Odds of a miss, true to claimed, that the risk-adjusted one is tuned to."""

_TOLERANCE: Final = 1e-12


@dataclass(frozen=True)
class Path:
    """Outcomes of one model in some order.

    Attributes
    ----------
    bar
        int (n,), ascending: number of each row's bar.
    call, right, decisive
        (n,): the call; whether it was right; whether the move was decisive.
    claimed_miss
        float64 (n,): 1 less the model's own confidence.
    day
        int (m,), ascending: number of each bar's session day, from 0.
    hours
        float64 (m,): when each bar was over, 24 hours a session day.
    stream
        int (m,): labels within one stream do not overlap.
    """

    bar: np.ndarray
    call: np.ndarray
    right: np.ndarray
    decisive: np.ndarray
    claimed_miss: np.ndarray
    day: np.ndarray
    hours: np.ndarray
    stream: np.ndarray

    def by_bar(self, of: np.ndarray) -> np.ndarray:
        """How many of the marked rows each bar has."""
        return np.bincount(self.bar[of], minlength=len(self.day))

    def miss_by_bar(self, of: np.ndarray) -> np.ndarray:
        """Mean miss of the marked rows of each bar, NaN where it has none."""
        count = self.by_bar(of)
        with np.errstate(invalid="ignore"):
            mean: np.ndarray = self.by_bar(of & ~self.right) / count
        return mean


Rule = Callable[[Sequence[Path]], list[np.ndarray]]
"""Paths in, for each the bars at which an alert begins."""


def rules_of(baseline: MonitoringBaseline, rules: MonitoringRules, log: Path) -> dict[str, Rule]:
    """Every rule that has something to go by.

    Parameters
    ----------
    log
        As it was: how many calls a day has sets the thresholds of the cumulative sums.
    """
    found: dict[str, Rule] = {}
    for name, metric, drop in (
        (PRECISION_DROP, "precision_long", rules.precision_drop_threshold),
        (HIT_RATIO_DROP, "hit_ratio", rules.hit_ratio_drop_threshold),
    ):
        validated: Rate | None = getattr(baseline, metric)
        if validated is not None:
            found[name] = _each(partial(_window, metric=metric, lowest=validated.rate - drop, rules=rules))
    if baseline.accuracy is not None and rules.accuracy_floor_ratio > 0.0:
        floor = rules.accuracy_floor_ratio * baseline.accuracy.rate
        found[ACCURACY_FLOOR] = _each(partial(_floor, floor=floor, rules=rules))
    days = rules.days_between_false_alerts * len(DETECTED)
    for metric in DETECTED:
        bound = miss_rate_bound(getattr(baseline, metric))
        if bound is not None:
            found[f"sequential_{metric}"] = partial(
                _sequential, metric=metric, bound=bound, days=days, baseline=baseline
            )
    if baseline.hit_ratio is not None:
        found[ROLLING] = _each(partial(_rolling, lowest=baseline.hit_ratio.rate - ROLLING_DROP))
    found |= _cumulative(miss_rate_bound(baseline.hit_ratio), days, log)
    return found


def _cumulative(bound: float | None, days: float, log: Path) -> dict[str, Rule]:
    """Cumulative sums with the false alerts of a sequential detector, were outcomes independent."""
    calls, length = log.call != FLAT, max(int(log.day[-1]) + 1, 1)
    found: dict[str, Rule] = {}
    if bound is not None and calls.any():
        bad = min(bound + LOSS, 0.99)
        for name, count in (
            (CUSUM_BARS, int(np.count_nonzero(log.by_bar(calls)))),
            (CUSUM_OUTCOMES, int(np.count_nonzero(calls))),
        ):
            threshold = cusum_threshold(_run_length(days * count / length), bound, bad)
            found[name] = _each(
                partial(_cusum, good=bound, bad=bad, threshold=threshold, means=name == CUSUM_BARS)
            )
    judged = calls & log.decisive
    if judged.any():
        claimed = min(max(float(np.mean(log.claimed_miss[judged])), 0.01), 0.98)
        worse = ODDS * claimed / (1.0 - claimed + ODDS * claimed)
        run = _run_length(days * np.count_nonzero(judged) / length)
        found[RISK_ADJUSTED] = _each(partial(_risk_adjusted, threshold=cusum_threshold(run, claimed, worse)))
    return found


def _run_length(count: float) -> float:
    return float(min(max(count, 2.0), 1e9))


def _each(rule: Callable[[Path], np.ndarray]) -> Rule:
    def each(paths: Sequence[Path]) -> list[np.ndarray]:
        return [rule(path) for path in paths]

    return each


def marked(path: Path, metric: str) -> np.ndarray:
    """Rows that a metric counts."""
    of: np.ndarray = path.call == LONG if metric == "precision_long" else path.call != FLAT
    return of


# --- the given rules


def _window(path: Path, metric: str, lowest: float, rules: MonitoringRules) -> np.ndarray:
    """The metric of a rolling window of hours lies too low."""
    of = marked(path, metric)
    count, right = _totals(path.by_bar(of)), _totals(path.by_bar(of & path.right))
    first = np.searchsorted(path.hours, path.hours - rules.window_hours, "right")
    last = np.arange(1, len(path.hours) + 1)
    samples, hits = count[last] - count[first], right[last] - right[first]
    low = hits <= (lowest + _TOLERANCE) * samples
    return _begin(low & (samples >= rules.min_samples), path, rules)


def _floor(path: Path, floor: float, rules: MonitoringRules) -> np.ndarray:
    """Accuracy below a floor on so many days in a row; known with the first bar of the next day."""
    day = path.day[path.bar]
    length = int(path.day[-1]) + 1
    rows, right = np.bincount(day, minlength=length), np.bincount(day[path.right], minlength=length)
    below = _totals(right < (floor - _TOLERANCE) * rows)
    needed = rules.accuracy_floor_days
    until = path.day
    since = np.maximum(until - needed, 0)
    return _begin((until >= needed) & (below[until] - below[since] >= needed), path, rules)


def _begin(broken: np.ndarray, path: Path, rules: MonitoringRules) -> np.ndarray:
    begins = alerts_begin(broken[None, :], path.hours, rules.alert_cooldown_hours)[0]
    return np.flatnonzero(begins)


def _totals(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts)])


# --- the sequential detectors, all paths step by step


def _sequential(
    paths: Sequence[Path], metric: str, bound: float, days: float, baseline: MonitoringBaseline
) -> list[np.ndarray]:
    """The e-detector; it begins again after an alert."""
    misses = np.array([path.miss_by_bar(marked(path, metric)) for path in paths])
    streams = np.array([path.stream for path in paths])
    bets, everyone = np.array(bets_of(bound)), np.arange(len(paths))
    levels = np.zeros((len(paths), baseline.horizon_bars, len(bets)))
    weight = np.zeros(len(paths))
    found: list[list[int]] = [[] for _ in paths]
    for at in range(misses.shape[1]):
        weight += 1.0 / baseline.bars_per_session
        who = everyone[~np.isnan(misses[:, at])]
        if not len(who):
            continue
        stream = streams[who, at]
        levels[who, stream] = _stepped(levels[who, stream], misses[who, at], bound, bets, weight[who])
        weight[who] = 0.0
        for path in who[levels[who].mean(axis=2).sum(axis=1) >= days]:
            found[path].append(at)
            levels[path] = 0.0
    return [np.array(one, dtype=np.int64) for one in found]


def _stepped(
    levels: np.ndarray, misses: np.ndarray, bound: float, bets: np.ndarray, weight: np.ndarray
) -> np.ndarray:
    """One update; the weight of each path is its own, so it goes in before the step."""
    after: np.ndarray = mixture_step(levels + weight[:, None], misses, bound, bets, 0.0)
    return after


# --- what others use


def _rolling(path: Path, lowest: float) -> np.ndarray:
    """The hit ratio of the last so many calls lies too low; after an alert as many fresh ones are waited for."""
    calls = np.flatnonzero(path.call != FLAT)
    right = _totals(path.right[calls])
    if len(calls) < ROLLING_CALLS:
        return np.empty(0, dtype=np.int64)
    hits = right[ROLLING_CALLS:] - right[:-ROLLING_CALLS]
    low = np.flatnonzero(hits <= (lowest + _TOLERANCE) * ROLLING_CALLS) + ROLLING_CALLS - 1
    found, after = [], 0
    while (place := int(np.searchsorted(low, after))) < len(low):
        found.append(int(low[place]))
        after = found[-1] + ROLLING_CALLS
    return np.asarray(path.bar[calls[np.array(found, dtype=np.int64)]])


def _cusum(path: Path, good: float, bad: float, threshold: float, *, means: bool) -> np.ndarray:
    """Bernoulli CUSUM, of bar means or of single outcomes."""
    up, down = log_ratios(good, bad)
    calls = path.call != FLAT
    if means:
        miss = path.miss_by_bar(calls)
        bars = np.flatnonzero(~np.isnan(miss))
        miss = miss[bars]
    else:
        bars, miss = path.bar[calls], (~path.right[calls]).astype(np.float64)
    return np.asarray(bars[_crossings(miss * up + (1.0 - miss) * down, threshold)])


def _risk_adjusted(path: Path, threshold: float) -> np.ndarray:
    """Each decisive call's own confidence is what it is held against."""
    of = (path.call != FLAT) & path.decisive
    increments = ~path.right[of] * math.log(ODDS) - np.log1p((ODDS - 1.0) * path.claimed_miss[of])
    return np.asarray(path.bar[of][_crossings(increments, threshold)])


def _crossings(increments: np.ndarray, threshold: float) -> np.ndarray:
    """Where a sum that never falls below 0 reaches the threshold; then it begins again at 0."""
    found, start = list[int](), 0
    while start < len(increments):
        total = np.cumsum(increments[start:])
        level = total - np.minimum(np.minimum.accumulate(total), 0.0)
        at = int(np.argmax(level >= threshold))
        if level[at] < threshold:
            break
        found.append(start + at)
        start += at + 1
    return np.array(found, dtype=np.int64)
