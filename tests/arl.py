"""Run lengths of detectors: exact ones of normal data by quadrature, and those of many simulated runs at once.

The quadrature solves the Fredholm equation ``L(u) = 1 + integral L(y) k(u, y) dy`` of the average run length from
level u (Brook and Evans, 1972, with Gauss-Legendre nodes instead of a chain). Its kernel k comes from the
observation that leads from u to y: the inverse of the production step, which `tests/test_detectors.py` checks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy.stats import norm

from sqkit.production.detectors import PAIR_BETS, confirmation_verdict
from sqkit.sequential_bets import SHIFTS, wilson_upper

NODES = 160

# --- exact, normal observations of variance 1


def cusum_observation(level: Any, after: Any, reference: float) -> Any:
    """The x with ``cusum_step(level, x - reference) == after``, for `after` above 0."""
    return after - level + reference


def normal_cusum_run_length(reference: float, threshold: float, mean: float) -> float:
    """Observations of N(mean, 1) from level 0 to an alert, the alerting one included."""
    nodes, weights = _legendre(0.0, threshold)
    levels = np.append(0.0, nodes)
    kernel = np.empty((NODES + 1, NODES + 1))
    kernel[:, 0] = norm.cdf(cusum_observation(levels, 0.0, reference) - mean)  # all that would fall below 0
    kernel[:, 1:] = norm.pdf(cusum_observation(levels[:, None], nodes, reference) - mean) * weights
    return float(_lengths(kernel)[0])


def two_sided_cusum_run_length(reference: float, threshold: float, mean: float) -> float:
    """The same of two sums, one for each direction (Kemp, 1961: their rates add)."""
    lengths = [normal_cusum_run_length(reference, threshold, side * mean) for side in (1, -1)]
    return float(1.0 / sum(1.0 / length for length in lengths))


def shiryaev_roberts_observation(level: Any, after: Any, shift: float) -> Any:
    """The x with ``shiryaev_roberts_step(level, exp(shift * x - shift**2 / 2)) == after``."""
    return (np.log(after) - np.log1p(level)) / shift + shift / 2.0


def shiryaev_roberts_lengths(shift: float, threshold: float) -> tuple[float, float]:
    """Average run length without a change, and delay, as Moustakides, Polunchenko and Tartakovsky count them.

    Observations are numbered from 0, so the run length is one less than the number of observations; the change
    comes after observation 0, so the delay counts from the level that one left.
    """
    lowest = -(shift**2) / 2.0 - 9.0 * shift
    logs, weights = _legendre(lowest, np.log(threshold))
    levels = np.exp(logs)

    def kernel(here: np.ndarray, mean: float) -> np.ndarray:
        observation = shiryaev_roberts_observation(here[:, None], levels, shift)
        return np.asarray(norm.pdf(observation - mean) * weights / shift)

    first = kernel(np.zeros(1), 0.0)[0]
    before, after = (_lengths(kernel(levels, mean)) for mean in (0.0, shift))
    return float(first @ before), float(first @ after / first.sum())


def _legendre(low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    half = (high - low) / 2.0
    return low + half * (nodes + 1.0), weights * half


def _lengths(kernel: np.ndarray) -> np.ndarray:
    return np.linalg.solve(np.eye(len(kernel)) - kernel, np.ones(len(kernel)))


# --- simulated, many runs at once


class MixtureRuns:
    """`MixtureShiryaevRoberts` of many runs, or with `start` 1 and no weight `MixtureEvidence`.

    Attributes
    ----------
    levels
        (streams, bets, runs).
    """

    def __init__(
        self,
        miss_rate: float | np.ndarray,
        runs: int,
        *,
        start: float = 0.0,
        bets: Sequence[float] | None = None,
        streams: int = 1,
    ) -> None:
        self._centre = np.broadcast_to(np.asarray(miss_rate, float), (runs,))
        if bets is None:
            self._bets = np.array([shift / (self._centre * (1.0 - self._centre)) for shift in SHIFTS])
        else:
            self._bets = np.repeat(np.array(bets)[:, None], runs, axis=1)
        self._start = start
        self.levels = np.full((streams, len(self._bets), runs), start)
        self._means = np.full((streams, runs), start)

    def update(self, observations: np.ndarray, weight: float = 1.0, stream: int = 0) -> np.ndarray:
        """Take one bar of every run; the sum over streams of the mean levels."""
        levels = self.levels[stream]
        levels += weight
        levels *= 1.0 + self._bets * (observations - self._centre)
        self._means[stream] = levels.mean(axis=0)
        return np.asarray(self._means.sum(axis=0))

    def reset(self, chosen: np.ndarray) -> None:
        """Let the chosen runs begin again."""
        self.levels[:, :, chosen] = self._start
        self._means[:, chosen] = self._start


class CusumRuns:
    """`BernoulliCusum` of many runs."""

    def __init__(self, good: float, bad: float, runs: int) -> None:
        self._up, self._down = np.log(bad / good), np.log((1.0 - bad) / (1.0 - good))
        self.levels = np.zeros(runs)

    def update(self, observations: np.ndarray, weight: float = 1.0, stream: int = 0) -> np.ndarray:
        """Take one outcome of every run; the levels."""
        step = observations * self._up + (1.0 - observations) * self._down
        self.levels = np.maximum(0.0, self.levels + step)
        return self.levels

    def reset(self, chosen: np.ndarray) -> None:
        """Let the chosen runs begin again."""
        self.levels[chosen] = 0.0


def independent(random: np.random.Generator, rate: float, runs: int) -> Iterator[np.ndarray]:
    """Without end: one independent outcome of every run."""
    while True:
        yield (random.random(runs) < rate).astype(float)


def correlated(
    random: np.random.Generator, rate: float, runs: int, symbols: int, correlation: float
) -> Iterator[np.ndarray]:
    """Without end: the misses, summed, of a bar of symbols whose misses are correlated (beta-binomial)."""
    spread = 1.0 / correlation - 1.0 if correlation else 0.0
    while True:
        hard = random.beta(rate * spread, (1.0 - rate) * spread, runs) if correlation else rate
        yield random.binomial(symbols, hard, runs).astype(float)


def overlapping(
    random: np.random.Generator, runs: int, bars: int, horizon: int, persistence: float
) -> Iterator[np.ndarray]:
    """Misses of persistent calls about the next `horizon` bars of a random walk, which no call can foresee."""
    walk = np.cumsum(random.standard_normal((bars + horizon + 1, runs)), axis=0)
    opinion = random.standard_normal(runs)
    for bar in range(bars):
        yield ((opinion > 0.0) != (walk[bar + horizon] > walk[bar])).astype(float)
        opinion = persistence * opinion + np.sqrt(1.0 - persistence**2) * random.standard_normal(runs)


def first_alarms(
    detector: MixtureRuns | CusumRuns,
    misses: Iterator[np.ndarray],
    threshold: float,
    bars: int,
    *,
    streams: int = 1,
) -> np.ndarray:
    """The bar, counted from 1, at which each run first reaches the threshold; infinity where none does."""
    found: np.ndarray | None = None
    for bar in range(bars):
        level = detector.update(next(misses), 1.0, bar % streams)
        found = np.full(len(level), np.inf) if found is None else found
        found[(level >= threshold) & np.isinf(found)] = bar + 1
        if np.isfinite(found).all():
            break
    assert found is not None
    return found


def alarms_per_bar(
    detector: MixtureRuns | CusumRuns,
    misses: Iterator[np.ndarray],
    threshold: float,
    bars: int,
    *,
    streams: int = 1,
) -> float:
    """Alarms a bar and run, of detectors that begin again after each."""
    alarms = runs = 0
    for bar in range(bars):
        reached = detector.update(next(misses), 1.0, bar % streams) >= threshold
        detector.reset(reached)
        alarms, runs = alarms + int(reached.sum()), len(reached)
    return alarms / (bars * runs)


def detection_delays(
    random: np.random.Generator,
    detector: MixtureRuns | CusumRuns,
    threshold: float,
    *,
    runs: int,
    good: float,
    bad: float,
    before: int,
    allowed: int,
) -> np.ndarray:
    """Outcomes from a change after `before` good ones to the alarm, of the runs without an alarm before it."""
    early = np.zeros(runs, bool)
    misses = independent(random, good, runs)
    for _ in range(before):
        early |= detector.update(next(misses)) >= threshold
    alarms = first_alarms(detector, independent(random, bad, runs), threshold, allowed)
    return alarms[~early]


def validated_rates(
    random: np.random.Generator, miss_rate: float, outcomes: int | None, runs: int
) -> np.ndarray:
    """The baseline that each run takes from a validation of its own: its Wilson bound; exact for None."""
    if outcomes is None:
        return np.full(runs, miss_rate)
    found = random.binomial(outcomes, miss_rate, runs) / outcomes
    return np.array([wilson_upper(rate, outcomes) for rate in found])


def verdicts(
    random: np.random.Generator,
    *,
    live: float,
    archived: float,
    runs: int,
    outcomes: int,
    baseline: float | np.ndarray = 0.4,
    threshold: float = 1e4,
    alpha: float = 0.05,
) -> dict[str, Any]:
    """Alert, confirmation on fresh outcomes, verdict; watched again after ``cleared``, over when it acts.

    Parameters
    ----------
    live, archived
        True miss rates of the two models, their misses independent.
    outcomes
        Of each run at most.

    Returns
    -------
    dict[str, Any]
        Counts of runs that end with ``roll_back``, with ``halt``, or stay ``open``, and of ``cleared`` alerts;
        ``outcomes_to_...`` on average, from the start.
    """
    watch = MixtureRuns(baseline, runs)
    evidence = {
        "live": MixtureRuns(baseline, runs, start=1.0),
        "archived": MixtureRuns(baseline, runs, start=1.0),
        "pair": MixtureRuns(0.0, runs, start=1.0, bets=PAIR_BETS),
    }
    confirming, ended = np.zeros(runs, bool), np.zeros(runs, bool)
    ended_at: dict[str, list[int]] = {"halt": [], "roll_back": []}
    cleared = 0
    for number in range(1, outcomes + 1):
        misses = random.random(runs) < live, random.random(runs) < archived
        seen = {"live": misses[0] * 1.0, "archived": misses[1] * 1.0, "pair": misses[0] * 1.0 - misses[1]}
        level = watch.update(seen["live"])
        values = {name: one.update(seen[name], 0.0) for name, one in evidence.items()}
        back = np.zeros(runs, bool)
        for run in np.flatnonzero(confirming):
            live_e, pair_e, archived_e = (float(values[name][run]) for name in ("live", "pair", "archived"))
            said = confirmation_verdict(live_e, pair_e, archived_e, alpha)
            if said is None:
                continue
            if said == "cleared":
                cleared, back[run] = cleared + 1, True
            else:
                ended_at[said].append(number)
                ended[run] = True
        watch.reset(back)
        confirming &= ~(back | ended)
        begun = (level >= threshold) & ~confirming & ~ended & ~back
        confirming |= begun
        for one in evidence.values():
            one.reset(begun)
        if ended.all():
            break
    found: dict[str, Any] = {"cleared": cleared, "open": int((~ended).sum()), "runs": runs}
    for said, at in ended_at.items():
        found[said] = len(at)
        found[f"outcomes_to_{said}"] = round(float(np.mean(at)), 1) if at else None
    return found
