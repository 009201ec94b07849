"""Made-up validations for tests: two sides on the same rows and days, their skill chosen.

`made_rows` and `made_returns` build what `AccuracyAnalyzer` and the backtest leave behind; `gathered`
runs the whole evidence on them, `judged` the whole gate as `sqkit.research.decision.judge` does, and
`problems_of` says what is wrong with the form of a record.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import fields, replace
from typing import Any

import numpy as np

from sqkit.checklist import Adequacy, Policy, generate_promotion_checklist
from sqkit.checklist_rules import thresholds_passed, unrounded_deltas
from sqkit.metrics import accuracy_metrics, adequacy_counts, financial_metrics, seven_metrics
from sqkit.records import DOWN, FLAT, INSIDE, LONG, SHORT, UP
from sqkit.research.evidence import Evidence, PairedReturns, PairedRows, Trials, gather_evidence
from sqkit.settings import Settings

FIRST_DAY = 19_723
"""2024-01-01, a Monday."""

CANDIDATE = "c" * 64
KEYS = {
    *("name", "kind", "status", "estimate", "se", "ci", "ci_level", "p_value", "alternative"),
    *("method", "params", "n", "threshold", "unit", "note"),
}
STATUSES = ("pass", "fail", "undefined", "insufficient")


def session_days(days: int) -> np.ndarray:
    """Weekdays from `FIRST_DAY` on, int64 (days,)."""
    at = np.arange(days)
    return (FIRST_DAY + at // 5 * 7 + at % 5).astype(np.int64)


def made_rows(
    seed: int = 0,
    *,
    days: int = 63,
    symbols: int = 4,
    bars: int = 4,
    student: float = 0.6,
    baseline: float = 0.2,
    acted_share: float = 0.6,
    only_idle: bool = False,
    rule: bool = False,
) -> PairedRows:
    """Rows whose outcomes follow a signal that each side sees with its own skill.

    Parameters
    ----------
    bars
        Rows of a symbol on a day.
    student, baseline
        Skill in [0, 1]: 0 sees noise, 1 the signal. Their noise has a part in common, of the day.
    acted_share
        Share of rows on which the rule is not FLAT.
    only_idle
        The student sees more than the baseline only where the rule is FLAT; elsewhere both are the same.
    rule
        The baseline has no probabilities.
    """
    generator = np.random.default_rng(seed)
    size = days * symbols * bars
    day = np.repeat(np.arange(days), symbols * bars)
    signal = generator.standard_normal(size) + 0.5 * generator.standard_normal(days)[day]
    up = generator.random(size) < 1.0 / (1.0 + np.exp(-signal))
    outcomes = np.where(generator.random(size) < 0.25, INSIDE, np.where(up, UP, DOWN)).astype(np.int8)
    acted_on = generator.random(size) < acted_share

    def seen(skill: float) -> np.ndarray:
        blurred = skill * signal + (1.0 - skill) * generator.standard_normal(size)
        return np.clip(0.5 + 0.2 * blurred, 0.02, 0.98)

    theirs, ours = seen(baseline), seen(student)
    if only_idle:
        ours = np.where(acted_on, theirs, ours)
    return PairedRows(
        session_days=session_days(days)[day],
        symbols=np.tile(np.repeat(np.arange(symbols, dtype=np.int32), bars), days),
        symbol_names=tuple(f"SYM{number:02d}" for number in range(symbols)),
        acted_on=acted_on,
        outcomes=outcomes,
        calls_student=calls_of(ours),
        calls_baseline=calls_of(theirs),
        probability_student=ours,
        probability_baseline=np.full(size, np.nan) if rule else theirs,
    )


def calls_of(probability: np.ndarray, threshold: float = 0.55) -> np.ndarray:
    """LONG, FLAT or SHORT of each probability, int8 (n,)."""
    calls = np.full(len(probability), FLAT, dtype=np.int8)
    calls[probability >= threshold] = LONG
    calls[1.0 - probability >= threshold] = SHORT
    return calls


def made_returns(
    seed: int = 0, *, days: int = 63, student: float = 0.0015, baseline: float = 0.001
) -> PairedReturns:
    """Correlated daily returns with these means and one percent of volatility; costs of a basis point or so."""
    generator = np.random.default_rng(seed)
    market, own = generator.standard_normal(days), generator.standard_normal((2, days))
    series = 0.01 * (0.9 * market + 0.4 * own)
    costs = 0.0001 * generator.random((2, days))
    return PairedReturns(
        session_days=session_days(days),
        student=series[0] + student,
        baseline=series[1] + baseline,
        student_costs=costs[0],
        baseline_costs=costs[1],
    )


def gathered(rows: PairedRows, returns: PairedReturns, **changes: Any) -> Evidence:
    """The whole evidence: a rule as baseline where it has no probabilities, one trial, thresholds reached."""
    rule = len(rows) > 0 and bool(np.isnan(rows.probability_baseline).all())
    arguments: dict[str, Any] = {
        "base_rate": 0.5 if rule else None,
        "overlap": 1,
        "trials": Trials(CANDIDATE, 1, {}),
        "thresholds_passed": True,
        "sharpe_uplift": 0.5,
    }
    return gather_evidence(rows, returns, **arguments | changes)


def judged(
    rows: PairedRows, returns: PairedReturns, *, policy: dict[str, Any] | None = None, **changes: Any
) -> tuple[Evidence, dict[str, Any]]:
    """Evidence and checklist of a made-up validation under the default policy with `policy` in place.

    Metrics, counts, thresholds and evidence all follow from the rows and returns; every day stands for
    a closed trade.
    """
    asked = Policy.from_settings(Settings(_env_file=None), **(policy or {}))
    rule = bool(np.isnan(rows.probability_baseline).all())
    sevens = {}
    for side, calls, probability, series in (
        ("candidate", rows.calls_student, rows.probability_student, returns.student),
        ("baseline", rows.calls_baseline, None if rule else rows.probability_baseline, returns.baseline),
    ):
        accuracy = accuracy_metrics(calls, rows.outcomes, probability)
        sevens[side] = seven_metrics(accuracy, financial_metrics(series, series))
    candidate, baseline = sevens["candidate"], sevens["baseline"]
    found = gathered(
        rows,
        returns,
        **{
            "thresholds_passed": thresholds_passed(candidate, baseline, asked),
            "sharpe_uplift": unrounded_deltas(candidate, baseline, asked)["sharpe_uplift"],
        }
        | changes,
    )
    checklist = generate_promotion_checklist(
        timestamp="2025-01-12T15:30:00Z",
        candidate_model="student_model.onnx",
        baseline_model=None if rule else "baseline_model.onnx",
        start=None,
        end=None,
        symbols=rows.symbol_names,
        candidate_metrics=candidate,
        baseline_metrics=baseline,
        policy=asked,
        adequacy=Adequacy(**adequacy_counts(rows.session_days, rows.calls_student, rows.calls_baseline)),
        evidence={"records": found.records, "summary": found.summary},
        digests={"model": "a" * 64, "predictions": "b" * 64},
    )
    return found, checklist


def with_rows(rows: PairedRows, chosen: np.ndarray) -> PairedRows:
    """These rows only, or in this order."""
    columns = [field.name for field in fields(rows) if field.name != "symbol_names"]
    return replace(rows, **{name: getattr(rows, name)[chosen] for name in columns})


def with_days(returns: PairedReturns, chosen: np.ndarray) -> PairedReturns:
    """These days only, or in this order."""
    return PairedReturns(*(getattr(returns, field.name)[chosen] for field in fields(returns)))


def swapped(rows: PairedRows, returns: PairedReturns) -> tuple[PairedRows, PairedReturns]:
    """Student and baseline exchanged."""
    return (
        replace(
            rows,
            calls_student=rows.calls_baseline,
            calls_baseline=rows.calls_student,
            probability_student=rows.probability_baseline,
            probability_baseline=rows.probability_student,
        ),
        replace(
            returns,
            student=returns.baseline,
            baseline=returns.student,
            student_costs=returns.baseline_costs,
            baseline_costs=returns.student_costs,
        ),
    )


def by_name(records: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Records by their name."""
    return {record["name"]: record for record in records}


def problems_of(record: dict[str, Any]) -> list[str]:
    """What a record lacks of the one shape, one line each."""
    name = record.get("name")
    problems = []
    if set(record) != KEYS:
        problems.append(f"{name}: keys {sorted(set(record) ^ KEYS)} are missing or unknown")
    if record["status"] not in STATUSES:
        problems.append(f"{name}: status {record['status']!r}")
    if record["kind"] not in ("blocking", "advisory"):
        problems.append(f"{name}: kind {record['kind']!r}")
    if record["status"] in ("undefined", "insufficient") and not record["note"]:
        problems.append(f"{name}: {record['status']} without a reason")
    for key in ("estimate", "se", "p_value", "threshold"):
        value = record[key]
        if value is not None and not (type(value) is float and math.isfinite(value)):
            problems.append(f"{name}: {key}={value!r}")
    interval = record["ci"]
    if interval is not None and not (len(interval) == 2 and all(map(math.isfinite, interval))):
        problems.append(f"{name}: ci={interval!r}")
    if interval is not None and interval[0] > interval[1]:
        problems.append(f"{name}: ci={interval!r} is upside down")
    if record["p_value"] is not None and not 0.0 <= record["p_value"] <= 1.0:
        problems.append(f"{name}: p_value={record['p_value']!r}")
    if not all(type(count) is int and count >= 0 for count in record["n"].values()):
        problems.append(f"{name}: n={record['n']!r}")
    if "reps" in record["params"] and "seed" not in record["params"]:
        problems.append(f"{name}: a random draw without its seed")
    try:
        json.dumps(record, allow_nan=False)
    except (TypeError, ValueError) as problem:
        problems.append(f"{name}: {problem}")
    return problems
