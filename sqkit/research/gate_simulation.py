"""How often the gate errs: its own rules, run on made-up validations with a known answer.

`error_rates` is what ``benchmarks/gate.py`` prints. Each attempt (`sqkit.research.gate_attempts`) goes
through the code that judges a real validation: `sqkit.metrics`, `paired_evidence.blocking_records`,
`sqkit.evidence_grade` and the recommendation table. Only blocking checks run: advisory ones cannot change
a verdict. `sqkit.research.power` asks the same simulation before training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import numpy as np
from scipy.special import stdtr

from sqkit.checklist_inputs import Adequacy, Policy
from sqkit.checklist_rules import PROMOTE, recommend, thresholds_passed
from sqkit.evidence_grade import (
    FIRST_BRIER,
    FIRST_PRECISION,
    FIRST_RULE_BRIER,
    LOSS_ACTED_ON,
    LOSS_ALL_ROWS,
    PRECISION_ALL_ROWS,
    evidence_grade,
)
from sqkit.metrics import accuracy_metrics, adequacy_counts, financial_metrics, seven_metrics
from sqkit.records import FLAT, INSIDE
from sqkit.research.gate_attempts import Attempt, Student, attempts_of
from sqkit.research.gate_calibration import calibrate
from sqkit.research.gate_world import World
from sqkit.research.paired_evidence import Record, blocking_records, daily_sharpe_difference

TEN: Final = 10
"""Attempts that are grouped for "at least one of ten passes"."""

_NO_HARM_REPS: Final = 99
"""Draws behind the no-harm interval of the Sharpe difference; it cannot bind where thresholds pass."""


@dataclass(frozen=True)
class Judgement:
    """What the gate says about one attempt.

    Attributes
    ----------
    thresholds_only
        PROMOTE under a policy that asks for no evidence: adequacy, thresholds, minimum Sharpe.
    with_evidence
        PROMOTE under the policy as given.
    candidate, baseline
        The seven metrics of either side.
    """

    thresholds_only: bool
    with_evidence: bool
    candidate: dict[str, float | None]
    baseline: dict[str, float | None]


@dataclass(frozen=True)
class PassRate:
    """Share of attempts that pass, and of groups of ten attempts in which at least one does.

    Attributes
    ----------
    one_attempt, standard_error
        Share and its binomial standard error.
    ten_attempts, ten_standard_error
        The same over groups of ten; None below ten attempts.
    """

    one_attempt: float
    standard_error: float
    ten_attempts: float | None
    ten_standard_error: float | None

    @classmethod
    def of(cls, passed: np.ndarray) -> PassRate:
        """From one bool an attempt, (n,)."""
        groups = len(passed) // TEN
        tens = passed[: groups * TEN].reshape(groups, TEN).any(axis=1)
        return cls(
            *_share(passed),
            *(_share(tens) if groups else (None, None)),
        )

    def describe(self) -> dict[str, float | None]:
        """Plain JSON values."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def judge_attempt(attempt: Attempt, policy: Policy, *, overlap: int = 1) -> Judgement:
    """Thresholds alone, then thresholds and evidence, by the gate's own rules.

    Evidence is computed only where the thresholds pass: it can never turn a REJECT into a PROMOTE.
    """
    rows = attempt.rows
    candidate = seven_metrics(
        accuracy_metrics(rows.calls_student, rows.outcomes),
        financial_metrics(attempt.returns.student, attempt.trades_student),
    )
    baseline = seven_metrics(
        accuracy_metrics(rows.calls_baseline, rows.outcomes),
        financial_metrics(attempt.returns.baseline, attempt.trades_baseline),
    )
    adequacy = Adequacy(**adequacy_counts(rows.session_days, rows.calls_student, rows.calls_baseline))

    def promoted(under: Policy, records: Sequence[Record]) -> bool:
        passed = thresholds_passed(candidate, baseline, under)
        verdict = recommend(
            candidate=candidate,
            baseline=baseline,
            policy=under,
            adequacy=adequacy,
            integrity=(),
            grade=evidence_grade(records, thresholds_passed=passed),
            records=records,
        )
        return verdict.recommendation == PROMOTE

    thresholds_only = promoted(replace(policy, min_evidence="none"), ())
    with_evidence = thresholds_only and promoted(policy, deciding_records(attempt, overlap=overlap))
    return Judgement(thresholds_only, with_evidence, candidate, baseline)


def deciding_records(attempt: Attempt, *, overlap: int = 1) -> list[Record]:
    """The blocking records of an attempt, as a validation would make them."""
    sharpe = daily_sharpe_difference(attempt.returns, block=overlap, reps=_NO_HARM_REPS)
    return blocking_records(
        attempt.rows, attempt.returns, base_rate=attempt.base_rate, overlap=overlap, sharpe=sharpe
    )


def pass_rates(
    world: World, student: Student, policy: Policy, *, incumbent: bool, attempts: int, seed: int = 0
) -> dict[str, PassRate]:
    """How often such a student passes: ``thresholds_only`` and ``with_evidence``."""
    overlap = world.horizon_sessions
    judged = [
        judge_attempt(attempt, policy, overlap=overlap)
        for attempt in attempts_of(world, student, incumbent=incumbent, attempts=attempts, seed=seed)
    ]
    return {
        name: PassRate.of(np.array([getattr(one, name) for one in judged], dtype=bool))
        for name in ("thresholds_only", "with_evidence")
    }


def error_rates(world: World, policy: Policy, *, attempts: int, seed: int = 0) -> dict[str, Any]:
    """Pass rates of equal, better and worthless students, with and without an incumbent model.

    Returns
    -------
    dict
        ``equal_models.{thresholds_only,with_evidence}.{one_attempt,ten_attempts}``,
        ``better_student.{thresholds_only,with_evidence}``, ``noise_student`` likewise, and the same under
        ``no_incumbent``, where ``echo_student`` knows nothing beyond the rule; standard errors beside
        every share.
    """

    def arms(incumbent: bool) -> dict[str, Any]:
        others: tuple[Student, ...] = ("better", "noise") if incumbent else ("better", "noise", "echo")

        def rates(student: Student) -> dict[str, PassRate]:
            return pass_rates(world, student, policy, incumbent=incumbent, attempts=attempts, seed=seed)

        equal = {name: rate.describe() for name, rate in rates("equal").items()}
        return {"equal_models": equal} | {f"{name}_student": _one_attempt(rates(name)) for name in others}

    return {**arms(True), "no_incumbent": arms(False)}


def world_facts(world: World, *, attempts: int, seed: int = 0) -> dict[str, Any]:
    """What can be known about a world, so that a reader can judge it: levels, correlations, powers.

    ``power`` is the share of better students for which a test has one-sided p <= .05, ``size`` the same
    for equal ones.
    """
    measured = {
        student: [
            _measure(attempt, world.horizon_sessions)
            for attempt in attempts_of(world, student, incumbent=True, attempts=attempts, seed=seed)
        ]
        for student in ("equal", "better")
    }
    first = [
        _measure(attempt, world.horizon_sessions)
        for attempt in attempts_of(world, "better", incumbent=False, attempts=attempts, seed=seed)
    ]

    def mean(rows: list[dict[str, float]], name: str) -> float:
        return float(np.mean([row[name] for row in rows]))

    def rejects(rows: list[dict[str, float]], name: str, level: float = 0.05) -> float:
        return float(np.mean([row[name] <= level for row in rows]))

    equal, better = measured["equal"], measured["better"]
    tests = [name for name in equal[0] if name.startswith("p_")]
    return {
        "attempts": attempts,
        "size": {name[2:]: rejects(equal, name) for name in tests},
        "power": {name[2:]: rejects(better, name) for name in tests},
        "no_incumbent_power": {
            "precision_acted_on_at_10_percent": rejects(first, f"p_{FIRST_PRECISION}", 0.10),
            "brier_against_base_rate": rejects(first, f"p_{FIRST_BRIER}"),
            "brier_against_the_rule": rejects(first, f"p_{FIRST_RULE_BRIER}"),
        },
        "levels": {name: mean(equal, name) for name in equal[0] if not name.startswith(("p_", "uplift_"))},
        "true_uplift_measured": {
            name: mean(better, f"uplift_{name}") for name in ("precision", "hit_ratio", "sharpe")
        },
        "spread_of_equal_models": {
            name: float(np.std([row[f"uplift_{name}"] for row in equal]))
            for name in ("precision", "hit_ratio", "sharpe")
        },
        "calibration": {
            name: {field.name: getattr(solved, field.name) for field in fields(solved)}
            for name, solved in (
                ("incumbent", calibrate(world, incumbent=True)),
                ("no_incumbent", calibrate(world, incumbent=False)),
            )
        },
    }


def _measure(attempt: Attempt, overlap: int) -> dict[str, float]:
    """One attempt in numbers; p-values are one-sided, 1 where undefined."""
    rows, returns = attempt.rows, attempt.returns
    student = accuracy_metrics(rows.calls_student, rows.outcomes)
    baseline = accuracy_metrics(rows.calls_baseline, rows.outcomes)
    known = {record["name"]: record for record in deciding_records(attempt, overlap=overlap)}
    sharpes = [
        float(financial_metrics(series, np.empty(0))["sharpe_ratio"] or 0.0)
        for series in (returns.student, returns.baseline)
    ]
    gain = returns.student - returns.baseline
    spread = float(np.std(gain, ddof=1)) or math.inf
    tests = [
        name
        for name in (
            LOSS_ALL_ROWS,
            LOSS_ACTED_ON,
            PRECISION_ALL_ROWS,
            FIRST_PRECISION,
            FIRST_BRIER,
            FIRST_RULE_BRIER,
        )
        if name in known
    ]
    return {
        **{f"p_{name}": _or(known[name]["p_value"], 1.0) for name in tests},
        "p_mean_return": float(stdtr(len(gain) - 1, -float(gain.mean()) / spread * math.sqrt(len(gain)))),
        "p_sharpe": _or(known["no_harm.sharpe"]["p_value"], 1.0),
        "coverage_baseline": baseline["coverage"],
        "acted_on_share": float(rows.acted_on.mean()),
        "decisive_share": 1.0 - float(np.mean(rows.outcomes == INSIDE)),
        "precision_baseline": _or(baseline["precision_long"], 0.0),
        "hit_ratio_baseline": _or(baseline["hit_ratio"], 0.0),
        "sharpe_baseline": sharpes[1],
        "daily_pnl_correlation": float(np.corrcoef(returns.student, returns.baseline)[0, 1]),
        "intra_day_correlation_of_correctness": _intra_day_correlation(attempt),
        "uplift_precision": _or(student["precision_long"], 0.0) - _or(baseline["precision_long"], 0.0),
        "uplift_hit_ratio": _or(student["hit_ratio"], 0.0) - _or(baseline["hit_ratio"], 0.0),
        "uplift_sharpe": sharpes[0] - sharpes[1],
    }


def _intra_day_correlation(attempt: Attempt) -> float:
    """Correlation of two LONG calls of one day being right (analysis of variance over days)."""
    rows = attempt.rows
    counts = rows.long_counts(rows.calls_baseline != FLAT)[:, 2:]
    right, calls = counts[counts[:, 1] > 0].T
    if len(calls) < 2 or calls.sum() <= len(calls):
        return 0.0
    share, total, days = right.sum() / calls.sum(), calls.sum(), len(calls)
    between = float(np.sum(calls * (right / calls - share) ** 2)) / (days - 1)
    within = float(np.sum(right * (1.0 - right / calls))) / (total - days)
    size = (total - float(np.sum(calls**2)) / total) / (days - 1)
    return float((between - within) / (between + (size - 1.0) * within))


def _one_attempt(rates: dict[str, PassRate]) -> dict[str, float]:
    """Plain shares by name, and their standard errors."""
    return {name: rate.one_attempt for name, rate in rates.items()} | {
        "standard_error": max(rate.standard_error for rate in rates.values())
    }


def _share(passed: Any) -> tuple[float, float]:
    share = float(passed.mean())
    return share, math.sqrt(share * (1.0 - share) / len(passed))


def _or(value: Any, otherwise: float) -> float:
    return otherwise if value is None else float(value)
