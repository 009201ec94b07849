"""Sequential detectors of a live model: evidence of too many misses, in one number that every outcome moves.

A *miss* is 1 for a wrong call and 0 for a right one; the miss of a bar is the mean over its symbols, because symbols
move together. Labels that overlap go into *streams*: with a horizon of h bars, bar t belongs to stream t mod h, and
within one stream no two labels share a bar.

What the figures promise, when the miss of each next bar is at most the baseline on average, whatever the past was:

- `MixtureShiryaevRoberts`: n days of weight injected give a level of n on average at most, so an alert at D comes
  once in D days at most, and within n days with a probability of n/D at most (Shin, Ramdas and Rinaldo,
  "E-detectors", 2024; Ville's inequality).
- `MixtureEvidence`: ever reaching 1/alpha has a probability of alpha at most (Ville).

With more than one stream both are proven for a figure looked at on a day fixed beforehand, and within each stream;
that they hold for the sum, and for the mean, at the time of an alert is checked by simulation
(`benchmarks/monitor.py`). All updates are plain floating-point sums and products: the same outcomes give the same bits.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any, Final, Self

from sqkit.errors import UsageError
from sqkit.sequential_bets import bets_of

PAIR_BETS: Final = (0.1, 0.2, 0.35)
"""Shares of the wealth that paired evidence stakes on the archived model being the better one."""

CLEARED: Final = 1.0 / 20.0
"""Evidence at which an alert is taken back."""

BOTH_BAD: Final = 10.0
"""So many times the evidence that is enough elsewhere says that the archived model is bad too: chance reaches that
rarely, and then a model that could have been restored is halted instead."""

_CEILING: Final = 1e100
"""Levels stop here: beyond every threshold, and JSON has no infinity. Cutting evidence only weakens it."""


def shiryaev_roberts_step(level: float, likelihood_ratio: float, weight: float = 1.0) -> float:
    """Next Shiryaev-Roberts level: a change may have begun just now (`weight`) or before (`level`)."""
    return (weight + level) * likelihood_ratio


def cusum_step(level: float, increment: float) -> float:
    """Next level of Page's cumulative sum, which never falls below 0."""
    return max(0.0, level + increment)


def confirmation_verdict(live: float, pair: float, archived: float, alpha: float) -> str | None:
    """What the evidence after an alert asks for.

    Parameters
    ----------
    live
        Evidence that the live model misses more than validated, on fresh outcomes.
    pair
        Evidence that the archived model does better on the same rows.
    archived
        Evidence that the archived model misses more than the live one was validated to.
    alpha
        Chance, in (0, 1), at which evidence is enough.

    Returns
    -------
    str | None
        ``cleared``: the live model is as validated. ``roll_back``: it is worse, and the archived one better.
        ``halt``: both are bad, and nothing says that the archived one is better. None: not known yet.

    Raises
    ------
    UsageError
        `alpha` is no share.
    """
    if not 0.0 < alpha < 1.0:
        raise UsageError(f"alpha {alpha}: give a share between 0 and 1")
    enough = 1.0 / alpha
    if live <= CLEARED:
        return "cleared"
    if live < enough:
        return None
    if pair >= enough:
        return "roll_back"
    return "halt" if archived >= BOTH_BAD * enough and pair < 1.0 else None


class _Mixture:
    """Rows of levels, one row a stream and one level a bet."""

    def __init__(
        self, start: float, centre: float, bets: Sequence[float], streams: int, lowest: float
    ) -> None:
        if not lowest <= centre < 1.0:
            raise UsageError(f"mean {centre}: give a number from {lowest:g} up to 1")
        if not bets or not all(bet > 0.0 and bet * (centre - lowest) < 1.0 for bet in bets):
            raise UsageError(f"bets {list(bets)}: give some, each above 0 and too small to lose everything")
        self._start = start
        self._centre = centre
        self._bets = tuple(bets)
        self._lowest = lowest
        self._streams = _streams(streams)
        self.reset()

    def reset(self) -> None:
        """Forget all evidence."""
        self._rows = [[self._start] * len(self._bets) for _ in range(self._streams)]
        self._means = [self._start] * self._streams

    def _take(self, observation: float, weight: float, stream: int) -> None:
        """Move the levels of one stream."""
        if not self._lowest <= observation <= 1.0:
            raise UsageError(f"{observation}: give a number from {self._lowest:g} to 1")
        if not 0 <= stream < self._streams:
            raise UsageError(f"stream {stream}: there are {self._streams}, counted from 0")
        gain = float(observation) - self._centre  # a NumPy number would go into the state
        row = [
            shiryaev_roberts_step(level, 1.0 + bet * gain, weight)
            for bet, level in zip(self._bets, self._rows[stream], strict=True)
        ]
        if max(row) > _CEILING:
            row = [min(level, _CEILING) for level in row]
        self._rows[stream] = row
        self._means[stream] = _mean(row)

    def _restore(self, rows: Any) -> None:
        if not isinstance(rows, list | tuple) or len(rows) != self._streams:
            raise UsageError(f"state: give a list for each of {self._streams} streams")
        self._rows = [_numbers(row, len(self._bets), 0.0, _CEILING) for row in rows]
        self._means = [_mean(row) for row in self._rows]


class MixtureShiryaevRoberts(_Mixture):
    """When did the misses become too many? Shiryaev-Roberts e-detector, a mixture over six sizes of loss.

    ``R_j <- (weight + R_j) * (1 + lambda_j * (miss - miss_rate))`` with ``lambda_j = d_j / (q (1 - q))`` for d in
    `sqkit.sequential_bets.SHIFTS`; a bet that could lose nearly everything on one bar is left out.

    Parameters
    ----------
    miss_rate
        The baseline q, in (0, 1). An estimate is no baseline: take its upper bound, `sqkit.sequential_bets.wilson_upper`.
    streams
        Label horizon in bars.

    Raises
    ------
    UsageError
        A value lies outside its range; an update raises it as well.
    """

    def __init__(self, miss_rate: float, streams: int = 1) -> None:
        super().__init__(0.0, miss_rate, bets_of(miss_rate), streams, 0.0)

    @property
    def level(self) -> float:
        """Sum over streams of the mean level, in units of the injected weight (session days, say)."""
        return math.fsum(self._means)

    def update(self, miss: float, *, weight: float = 1.0, stream: int = 0) -> float:
        """Take the mean miss of one bar, in [0, 1].

        Parameters
        ----------
        weight
            Time that has passed, in the unit of the level; fixed before the miss was known.

        Returns
        -------
        float
            The level.
        """
        if not 0.0 <= weight < math.inf:
            raise UsageError(f"weight {weight}: give a number of at least 0")
        self._take(miss, float(weight), stream)
        return math.fsum(self._means)

    def state(self) -> list[list[float]]:
        """Plain JSON values: the levels of each stream."""
        return [list(row) for row in self._rows]

    def restore(self, state: Sequence[Sequence[float]]) -> None:
        """Go on from there, to the bit."""
        self._restore(state)


class MixtureEvidence(_Mixture):
    """Is the mean above a given one? Evidence from fresh observations: the mean wealth of those who bet on it.

    ``E = mean over streams and bets of prod(1 + bet * (x - null_mean))``; it starts at 1.

    Parameters
    ----------
    null_mean
        What the mean of each observation is at most, if there is nothing to find.
    bets
        Each above 0 and below ``1 / (null_mean - lowest)``.
    streams
        Label horizon in bars.
    lowest
        Observations lie in [lowest, 1].

    Attributes
    ----------
    updates
        Observations taken.

    Raises
    ------
    UsageError
        A value lies outside its range; an update raises it as well.
    """

    def __init__(
        self, null_mean: float, bets: Sequence[float], streams: int = 1, *, lowest: float = -1.0
    ) -> None:
        super().__init__(1.0, null_mean, bets, streams, lowest)
        self.updates = 0

    @classmethod
    def of_misses(cls, miss_rate: float, streams: int = 1) -> Self:
        """Are the misses, in [0, 1], more than a baseline's?"""
        return cls(miss_rate, bets_of(miss_rate), streams, lowest=0.0)

    @classmethod
    def of_pairs(cls, streams: int = 1) -> Self:
        """Are differences in [-1, 1], archived model less live one, positive?"""
        return cls(0.0, PAIR_BETS, streams)

    @property
    def value(self) -> float:
        """The evidence E."""
        return math.fsum(self._means) / self._streams

    def update(self, x: float, *, stream: int = 0) -> float:
        """Take the observation of one bar; the evidence after it."""
        self._take(x, 0.0, stream)
        self.updates += 1
        return self.value

    def reset(self) -> None:
        """Forget all evidence."""
        super().reset()
        self.updates = 0

    def state(self) -> list[Any]:
        """Plain JSON values: the count of updates, and the wealth of each stream's bets."""
        return [self.updates, [list(row) for row in self._rows]]

    def restore(self, state: Sequence[Any]) -> None:
        """Go on from there, to the bit."""
        if not isinstance(state, list | tuple) or len(state) != 2:
            raise UsageError("state: give the count of updates and the wealth of each stream")
        (updates,) = _numbers([state[0]], 1, 0.0)
        self._restore(state[1])
        self.updates = int(updates)


class Sprt:
    """Good or bad? Wald's sequential probability ratio test (1945) of two miss rates.

    Both errors are about `error` for one symbol and one stream, and at most that for the mean of several symbols:
    the ratio of a mean is at most the mean of the ratios. Log likelihood ratios are averaged over the streams.

    Parameters
    ----------
    good_miss_rate, bad_miss_rate
        In (0, 1), the bad one higher.
    error
        In (0, 0.5); bounds at ``+-log((1 - error) / error)``.
    streams
        Label horizon in bars.

    Raises
    ------
    UsageError
        A value lies outside its range; an update raises it as well.
    """

    def __init__(
        self, good_miss_rate: float, bad_miss_rate: float, *, error: float = 0.05, streams: int = 1
    ) -> None:
        if not 0.0 < error < 0.5:
            raise UsageError(f"error {error}: give a share below a half")
        self._up, self._down = log_ratios(good_miss_rate, bad_miss_rate)
        self.bound = math.log((1.0 - error) / error)
        self._ratios = [0.0] * _streams(streams)

    @property
    def level(self) -> float:
        """Log likelihood ratio of bad to good, the mean over streams."""
        return _mean(self._ratios)

    def update(self, miss: float, *, stream: int = 0) -> str | None:
        """Take the mean miss of one bar, in [0, 1]; ``good``, ``bad``, or None while it is open."""
        if not 0 <= stream < len(self._ratios):
            raise UsageError(f"stream {stream}: there are {len(self._ratios)}, counted from 0")
        self._ratios[stream] += _increment(miss, self._up, self._down)
        level = self.level
        if level >= self.bound:
            return "bad"
        return "good" if level <= -self.bound else None

    def state(self) -> list[float]:
        """Plain JSON values: the log likelihood ratio of each stream."""
        return list(self._ratios)

    def restore(self, state: Sequence[float]) -> None:
        """Go on from there, to the bit."""
        self._ratios = _numbers(state, len(self._ratios))


class _Level:
    """A level that never falls below 0."""

    level = 0.0

    def state(self) -> list[float]:
        """Plain JSON values: the level."""
        return [self.level]

    def restore(self, state: Sequence[float]) -> None:
        """Go on from there, to the bit."""
        (self.level,) = _numbers(state, 1, 0.0)


class BernoulliCusum(_Level):
    """Page's cumulative sum of the log likelihood ratio of two miss rates; independent outcomes only.

    Parameters
    ----------
    good_miss_rate, bad_miss_rate
        In (0, 1), the bad one higher.

    Attributes
    ----------
    level
        Alert at `cusum_threshold` or above.

    Raises
    ------
    UsageError
        A value lies outside its range; an update raises it as well.
    """

    def __init__(self, good_miss_rate: float, bad_miss_rate: float) -> None:
        self._up, self._down = log_ratios(good_miss_rate, bad_miss_rate)

    def update(self, miss: float) -> float:
        """Take a miss, in [0, 1]; the level after it."""
        self.level = cusum_step(self.level, _increment(miss, self._up, self._down))
        return self.level


class RiskAdjustedCusum(_Level):
    """Is the model worse than it claims itself? Risk-adjusted cumulative sum (Steiner et al., 2000).

    ``W = y log(RA) - log(1 - p + RA p)`` for a miss y where a miss had the probability p.

    Parameters
    ----------
    odds_ratio
        RA above 1: the odds of a miss, true to claimed, that it is tuned to.

    Attributes
    ----------
    level
        Evidence that the misses are more than claimed.

    Raises
    ------
    UsageError
        A value lies outside its range; an update raises it as well.
    """

    def __init__(self, odds_ratio: float = 2.0) -> None:
        if not 1.0 < odds_ratio < math.inf:
            raise UsageError(f"odds ratio {odds_ratio}: give a number above 1")
        self._excess = odds_ratio - 1.0
        self._up = math.log(odds_ratio)

    def update(self, miss: float, expected_miss: float) -> float:
        """Take a miss (0 or 1) and its claimed probability, 1 - confidence; the level after it."""
        if miss not in (0.0, 1.0) or not 0.0 <= expected_miss <= 1.0:
            raise UsageError(f"miss {miss}, expected {expected_miss}: give 0 or 1, and a probability")
        self.level = cusum_step(self.level, float(miss) * self._up - math.log1p(self._excess * expected_miss))
        return self.level


def log_ratios(good: float, bad: float) -> tuple[float, float]:
    """Log likelihood ratios, bad to good, of a miss and of a hit.

    Raises
    ------
    UsageError
        The rates are not two between 0 and 1, the bad one higher.
    """
    if not 0.0 < good < bad < 1.0:
        raise UsageError(f"miss rates {good} and {bad}: give two between 0 and 1, the bad one higher")
    return math.log(bad / good), math.log((1.0 - bad) / (1.0 - good))


def _increment(miss: float, up: float, down: float) -> float:
    if not 0.0 <= miss <= 1.0:
        raise UsageError(f"miss {miss}: give a number from 0 to 1")
    return float(miss * up + (1.0 - miss) * down)


def _streams(count: int) -> int:
    if count < 1 or count != int(count):
        raise UsageError(f"streams {count}: give a whole number of at least 1")
    return int(count)


def _mean(row: Sequence[float]) -> float:
    """Rounded once: `sum` adds in another way from Python 3.12 on."""
    return math.fsum(row) / len(row)


def _numbers(
    state: Any, count: int, lowest: float = -sys.float_info.max, highest: float = sys.float_info.max
) -> list[float]:
    """What was stored, if it can be what is asked for."""
    if not isinstance(state, list | tuple) or len(state) != count:
        raise UsageError(f"state: give a list of {count}")
    if not all(isinstance(value, int | float) and lowest <= value <= highest for value in state):
        raise UsageError(f"state: give numbers that a level can have, not {list(state)}")
    return [float(value) for value in state]
