"""From a simulated window to another size: what chance has the same student over more days or symbols?

`sqkit.research.window_plan` simulates windows of one size (`sqkit.research.window_simulation`) and asks `ScaledWindow` about
larger ones, and about the smallest that would do. Estimates are taken as jointly normal around what is true
of the student; their spread falls with the square root of the days, and with the symbols only by that part
which a second simulation with more symbols shows to be the rows' own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import stdtrit

from sqkit.checklist_inputs import Policy
from sqkit.evidence_grade import LOSS_ACTED_ON, LOSS_ALL_ROWS, PRECISION_ACTED_ON
from sqkit.research.gate_attempts import Student
from sqkit.research.gate_world import World
from sqkit.research.power import POWER
from sqkit.research.sharpe_difference import FEWEST_DAYS
from sqkit.research.window_simulation import (
    HIT_RATIO,
    PRECISION,
    SHARPE_BASELINE,
    SHARPE_DIFFERENCE,
    Observed,
    tests_of,
)

_SHARPE: Final = (SHARPE_BASELINE, SHARPE_DIFFERENCE)
_LABELS: Final = 3
"""Labels, one after the other, below which `sqkit.research.paired_statistics` calls a test undefined."""

_DRAWS: Final = 8192
_STEPS: Final = 100
_HALVINGS: Final = 10

FEWEST_DEFINED: Final = 10
"""With fewer attempts whose every test is defined nothing is known about larger windows."""


@dataclass(frozen=True)
class Symbols:
    """What more symbols do, from the same student simulated with few and with `times` as many.

    Attributes
    ----------
    own_share
        Share of an estimate's variance, by name, that shrinks with the symbols; missing means none.
    own_return
        The same of the variance of the daily returns of student and baseline.
    idle_days
        Share of the days without a call with few and with many.
    """

    times: float
    own_share: dict[str, float]
    own_return: tuple[float, float]
    idle_days: tuple[float, float]

    @classmethod
    def of(cls, few: Observed, many: Observed, times: float) -> Symbols:
        """Compare the mean squared standard errors: the spread of the estimates says the same, less exactly."""

        def own(small: float, large: float) -> float:
            shrinks = (1.0 - large / small) * times / (times - 1.0) if small > 0.0 else 0.0
            return min(max(shrinks, 0.0), 1.0)

        shares = {
            name: own(float(squared.mean()), float(many.squared_error[name].mean()))
            for name, squared in few.squared_error.items()
            if name != SHARPE_BASELINE and few.defined and many.defined
        }
        returns = tuple(own(*pair) for pair in zip(few.day_variance, many.day_variance, strict=True))
        return cls(times, shares, (returns[0], returns[1]), (few.idle_days, many.idle_days))

    def variance(self, name: str, times: float) -> float:
        """Times the variance of an estimate with so many times the symbols."""
        own = self.own_share.get(name, 0.0)
        return 1.0 - own + own / times

    def sharpe(self, side: int, times: float) -> float:
        """Times the Sharpe ratio of student (0) or baseline (1): the mean stays, the deviation shrinks."""
        own = self.own_return[side]
        return 1.0 / math.sqrt(max(1.0 - own + own / times, 1e-12))

    def idle(self, idle_days: float, times: float) -> float:
        """Share of the days without a call: each factor of symbols takes the same part of what is left."""
        few, many = self.idle_days
        if few <= 0.0 or times <= 1.0:
            return idle_days
        return float(idle_days * min(many / few, 1.0) ** (math.log(times) / math.log(self.times)))


@dataclass(frozen=True)
class ScaledWindow:
    """One student's simulated windows, ready to be asked about other sizes.

    Attributes
    ----------
    days, overlap
        Of the simulated window; session days a label reaches over.
    level, error
        True value (else the mean) and root mean squared standard error by name.
    deviations
        Joint normal deviations by name, (m,), with the covariance of the estimates.
    symbols
        What more symbols do.
    incumbent
        Whether the baseline is a model.
    """

    days: int
    overlap: int
    level: dict[str, float]
    error: dict[str, float]
    deviations: dict[str, np.ndarray]
    symbols: Symbols
    incumbent: bool

    @classmethod
    def of(
        cls, observed: Observed, symbols: Symbols, world: World, student: Student, *, incumbent: bool
    ) -> ScaledWindow | None:
        """From simulated windows of this world; None where too few attempts have every test defined."""
        if observed.defined < FEWEST_DEFINED:
            return None
        names = tuple(observed.estimates)
        table = np.array([observed.estimates[name] for name in names])
        means = {name: float(row.mean()) for name, row in zip(names, table, strict=True)}
        values, vectors = np.linalg.eigh(np.cov(table))
        normal = np.random.default_rng(0).standard_normal((len(names), _DRAWS // 2))
        drawn = (vectors * np.sqrt(np.maximum(values, 0.0))) @ np.hstack([normal, -normal])
        return cls(
            world.days,
            world.horizon_sessions,
            means | _known(student, world, incumbent=incumbent),
            {name: math.sqrt(float(squared.mean())) for name, squared in observed.squared_error.items()},
            dict(zip(names, drawn, strict=True)),
            symbols,
            incumbent,
        )

    def pass_share(self, policy: Policy, *, days: float, times_symbols: float = 1.0) -> tuple[float, float]:
        """Share of windows of `days` days that reach the thresholds, and that pass the policy's tests as well."""
        larger = {name: self._at(name, days, times_symbols) for name in self.deviations}
        theirs, gain = larger[SHARPE_BASELINE], larger[SHARPE_DIFFERENCE]
        reached = (
            larger[PRECISION] >= policy.min_precision_uplift,
            larger[HIT_RATIO] >= policy.min_hit_ratio_uplift,
            np.where(
                theirs >= policy.relative_sharpe_floor,
                gain >= policy.min_sharpe_uplift * theirs,
                gain >= policy.min_sharpe_uplift_absolute,
            ),
        )
        combine = np.logical_and if policy.require_all_criteria else np.logical_or
        passed = combine.reduce(reached) & (theirs + gain >= policy.min_sharpe)
        shown = passed.copy()
        freedom = max(1, math.ceil(days / self.overlap) - 1)
        for name, level in tests_of(policy, incumbent=self.incumbent).items():
            error = self.error[name] * self._shrinks(name, days, times_symbols)
            shown &= larger[name] >= float(stdtrit(freedom, 1.0 - level)) * error
        defined = days >= max(FEWEST_DAYS, _LABELS * self.overlap)
        return float(passed.mean()), float(shown.mean()) if defined else 0.0

    def _at(self, name: str, days: float, times_symbols: float) -> np.ndarray:
        return self._level(name, times_symbols) + self.deviations[name] * self._shrinks(
            name, days, times_symbols
        )

    def _level(self, name: str, times_symbols: float) -> float:
        if name not in _SHARPE:
            return self.level[name]
        theirs = self.level[SHARPE_BASELINE] * self.symbols.sharpe(1, times_symbols)
        if name == SHARPE_BASELINE:
            return theirs
        if self.level[name] == 0.0:  # equal by construction, whatever the symbols
            return 0.0
        return (self.level[SHARPE_BASELINE] + self.level[name]) * self.symbols.sharpe(
            0, times_symbols
        ) - theirs

    def _shrinks(self, name: str, days: float, times_symbols: float) -> float:
        return math.sqrt(self.symbols.variance(name, times_symbols) * self.days / days)


def _known(student: Student, world: World, *, incumbent: bool) -> dict[str, float]:
    """What is true of a better or an equal student by construction of the world."""
    if student == "better":
        return dict.fromkeys((PRECISION, HIT_RATIO), world.uplift)
    known = dict.fromkeys((PRECISION, HIT_RATIO, SHARPE_DIFFERENCE), 0.0)
    return known | (
        dict.fromkeys((LOSS_ALL_ROWS, LOSS_ACTED_ON, PRECISION_ACTED_ON), 0.0) if incumbent else {}
    )


def first_enough(chance: Callable[[float], float], least: float, most: float) -> float | None:
    """Smallest size in [least, most] from which on the chance is at least `POWER`; None beyond."""
    too_small = enough = None
    for size in np.geomspace(most, least, _STEPS) if most > least else (least,):
        if chance(float(size)) < POWER:
            too_small = float(size)
            break
        enough = float(size)
    if enough is None or too_small is None:
        return enough
    for _ in range(_HALVINGS):
        middle = (too_small + enough) / 2.0
        too_small, enough = (too_small, middle) if chance(middle) >= POWER else (middle, enough)
    return enough
