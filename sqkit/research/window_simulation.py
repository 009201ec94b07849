"""Simulated validation windows of a student whose quality is known: what the gate's tests say of them.

`sqkit.research.window_plan` asks for the windows a plan rests on: judged by the gate's own code
(`Simulation.judge`), or observed test by test (`Simulation.observe`), so that
`sqkit.research.window_scaling` can compute windows of other sizes from them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from sqkit.checklist_inputs import Policy
from sqkit.evidence_grade import (
    FIRST_BRIER,
    FIRST_DAILY_PNL,
    FIRST_PRECISION,
    FIRST_PRECISION_P,
    FIRST_RULE_BRIER,
    LOSS_ACTED_ON,
    LOSS_ALL_ROWS,
    MODERATE_P,
    PRECISION_ACTED_ON,
    PRECISION_ALL_ROWS,
    STRONG_P,
)
from sqkit.metrics import TRADING_DAYS_PER_YEAR
from sqkit.research.gate_attempts import Attempt, Student, attempts_of
from sqkit.research.gate_simulation import deciding_records, judge_attempt
from sqkit.research.gate_world import World
from sqkit.research.paired_evidence import HARM_SHARPE, HIT_RATIO_ALL_ROWS

PRECISION: Final = PRECISION_ALL_ROWS
HIT_RATIO: Final = HIT_RATIO_ALL_ROWS
SHARPE_DIFFERENCE: Final = HARM_SHARPE
SHARPE_BASELINE: Final = "sharpe_ratio.baseline"
"""What the thresholds are held against; the first three are names of records."""

_ROWS_AN_ARM: Final = 2_400_000
_FEWEST_ATTEMPTS: Final = 60
_EQUAL: Final = 0.5
"""Level of a test that only asks for an estimate not below zero."""

_AGAINST_MODEL: Final = {LOSS_ALL_ROWS: MODERATE_P, LOSS_ACTED_ON: MODERATE_P, PRECISION_ACTED_ON: _EQUAL}
_FIRST_MODEL: Final = {
    FIRST_PRECISION: FIRST_PRECISION_P,
    FIRST_BRIER: MODERATE_P,
    FIRST_RULE_BRIER: MODERATE_P,
    FIRST_DAILY_PNL: _EQUAL,
}
_STRONG: Final = {
    True: _AGAINST_MODEL | {LOSS_ALL_ROWS: STRONG_P, PRECISION_ALL_ROWS: 0.025},
    False: _FIRST_MODEL | {FIRST_PRECISION: STRONG_P},
}


@dataclass(frozen=True)
class Arm:
    """One student in the asked window.

    Attributes
    ----------
    thresholds_only, with_evidence
        Share of such windows that end in PROMOTE, without and with the tests.
    idle_days, correlation, attempts
        As in `Observed`.
    """

    thresholds_only: float
    with_evidence: float
    idle_days: float
    correlation: float
    attempts: int

    def rates(self) -> dict[str, float]:
        """Pass rates, and the larger binomial standard error."""
        shares = {"thresholds_only": self.thresholds_only, "with_evidence": self.with_evidence}
        errors = [math.sqrt(share * (1.0 - share) / self.attempts) for share in shares.values()]
        return shares | {"standard_error": max(errors)}


@dataclass(frozen=True)
class Observed:
    """What simulated windows of one size showed of a student.

    Attributes
    ----------
    estimates, squared_error
        By name, (n,): estimates of the attempts whose every test is defined, and their squared standard
        errors.
    day_variance
        Mean variance of the daily return of student and baseline.
    idle_days
        Share of the days on which the side that calls less makes no call.
    correlation
        Mean correlation of the daily returns of student and baseline.
    attempts
        Attempts, defined or not.
    """

    estimates: dict[str, np.ndarray]
    squared_error: dict[str, np.ndarray]
    day_variance: tuple[float, float]
    idle_days: float
    correlation: float
    attempts: int

    @property
    def defined(self) -> int:
        """Attempts whose every test is defined."""
        return len(self.estimates[SHARPE_BASELINE])


@dataclass(frozen=True)
class Simulation:
    """How a plan simulates: the gate's policy, the opponent, attempts (fewer of large windows) and seed."""

    policy: Policy
    incumbent: bool
    attempts: int
    seed: int

    def windows(self, world: World, student: Student, *, most: int | None = None) -> Iterator[Attempt]:
        """Made-up validations, at most `most`."""
        fitting = max(_FEWEST_ATTEMPTS, _ROWS_AN_ARM // (world.days * world.symbols))
        attempts = max(1, min(self.attempts, fitting if most is None else most))
        return attempts_of(world, student, incumbent=self.incumbent, attempts=attempts, seed=self.seed)

    def judge(self, world: World, student: Student) -> Arm:
        """Pass rates of such a student; adequacy is said apart, so it is judged whatever the size."""
        lenient = replace(self.policy, min_days=0, min_day_clusters=0, min_calls=0)
        verdicts, looks = [], []
        for attempt in self.windows(world, student):
            judged = judge_attempt(attempt, lenient, overlap=world.horizon_sessions)
            verdicts.append((judged.thresholds_only, judged.with_evidence))
            looks.append((_idle_share(attempt), _daily_correlation(attempt)))
        passed, look = np.mean(verdicts, axis=0), np.mean(looks, axis=0)
        return Arm(float(passed[0]), float(passed[1]), float(look[0]), float(look[1]), len(verdicts))

    def observe(self, world: World, student: Student, *, most: int | None = None) -> Observed:
        """What the tests say of such a student."""
        names = (
            PRECISION,
            HIT_RATIO,
            SHARPE_DIFFERENCE,
            *(_AGAINST_MODEL if self.incumbent else _FIRST_MODEL),
        )
        year = TRADING_DAYS_PER_YEAR**0.5
        found, sizes = [], []
        for attempt in self.windows(world, student, most=most):
            returns = attempt.returns
            variances = [float(np.var(arm, ddof=1)) for arm in (returns.student, returns.baseline)]
            sizes.append((*variances, _idle_share(attempt), _daily_correlation(attempt)))
            records = deciding_records(attempt, overlap=world.horizon_sessions)
            known = {record["name"]: record for record in records}
            pairs = [(known[name]["estimate"], known[name]["se"]) for name in names]
            if variances[1] > 0.0 and all(part is not None for pair in pairs for part in pair):
                sharpe = float(returns.baseline.mean()) / math.sqrt(variances[1]) * year
                found.append([*pairs, (sharpe, year / math.sqrt(world.days))])
        table = np.array(found, dtype=np.float64).reshape(len(found), len(names) + 1, 2)
        columns = {name: table[:, at] for at, name in enumerate((*names, SHARPE_BASELINE))}
        student_variance, baseline_variance, idle, correlation = np.mean(sizes, axis=0)
        return Observed(
            estimates={name: column[:, 0] for name, column in columns.items()},
            squared_error={name: column[:, 1] ** 2 for name, column in columns.items()},
            day_variance=(float(student_variance), float(baseline_variance)),
            idle_days=float(idle),
            correlation=float(correlation),
            attempts=len(sizes),
        )


def tests_of(policy: Policy, *, incumbent: bool) -> dict[str, float]:
    """One-sided level by record of the tests that the policy's grade asks for."""
    if policy.min_evidence in ("none", "weak"):
        return {}
    if policy.min_evidence == "strong":
        return _STRONG[incumbent]
    return _AGAINST_MODEL if incumbent else _FIRST_MODEL


def _idle_share(attempt: Attempt) -> float:
    """Share of the days without a call of the side that has more such days."""
    calls = attempt.rows.directional_counts(attempt.rows.everywhere)[:, [1, 3]]
    return 1.0 - float((calls > 0).sum(axis=0).min()) / len(attempt.returns.student)


def _daily_correlation(attempt: Attempt) -> float:
    """Of the daily returns of student and baseline; 1 where one does not vary."""
    with np.errstate(all="ignore"):
        found = np.corrcoef(attempt.returns.student, attempt.returns.baseline)[0, 1]
    return float(found) if math.isfinite(found) else 1.0
