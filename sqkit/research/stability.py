"""Does an uplift hold: week by week, without its best days, at higher costs?

The evidence of a validation asks this module; `sqkit.research.symbol_stability` asks symbol by symbol.
Daily losses, returns and costs of student and baseline go in, advisory records
(`sqkit.research.evidence_records`) come out. A total can rest on one week, five lucky days or a cheap
fee schedule; each function takes one of these away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from sqkit.errors import UsageError
from sqkit.metrics import financial_metrics
from sqkit.research.evidence_records import (
    BETTER,
    FAIL,
    INSUFFICIENT,
    PASS,
    UNDEFINED,
    evidence_record,
    finite,
)
from sqkit.research.paired_statistics import wilson_interval
from sqkit.research.sharpe_statistics import return_series

FEWEST_WEEKS: Final = 4
BEST_DAYS: Final = 5
JUDGED_MULTIPLE: Final = 2.0

_DAYS_FROM_MONDAY: Final = 3
"""1970-01-01 was a Thursday."""


def weekly_stability(loss_difference_by_day: ArrayLike, session_days: ArrayLike) -> dict[str, Any]:
    """Share of ISO weeks in which the student was better.

    A week counts as positive when the mean over its days lies above zero. Wilson's interval takes weeks
    as independent.

    Parameters
    ----------
    loss_difference_by_day
        float (d,), the day's mean of (baseline's loss - student's loss), or any other daily uplift that
        is positive when the student is better.
    session_days
        int (d,), session dates as days since 1970-01-01, in any order.

    Returns
    -------
    dict
        Record ``stability.weeks``, passed above one half. Insufficient below four weeks; undefined for a
        value that is not finite and when no day differs.

    Raises
    ------
    UsageError
        Arrays of different lengths or not one-dimensional, or dates that are not whole numbers.
    """
    uplift, days = return_series("loss_difference_by_day", loss_difference_by_day), np.asarray(session_days)
    if days.shape != uplift.shape:
        raise UsageError(
            f"loss_difference_by_day {uplift.shape}, session_days {days.shape}: give one value a day"
        )
    if days.size and days.dtype.kind not in "iu":
        raise UsageError(f"session_days of type {days.dtype}: give whole days since 1970-01-01")

    week_of_day = np.unique((days.astype(np.int64) + _DAYS_FROM_MONDAY) // 7, return_inverse=True)[1]
    weeks = int(week_of_day.max()) + 1 if uplift.size else 0
    counts = {"days": len(uplift), "weeks": weeks}
    method = "share of ISO weeks with a positive mean uplift, Wilson interval"

    def record(status: str, note: str, **found: Any) -> dict[str, Any]:
        return evidence_record(
            "stability.weeks",
            kind="advisory",
            status=status,
            method=method,
            n=counts,
            threshold=0.5,
            unit="share of weeks",
            alternative=BETTER,
            note=note,
            **found,
        )

    if not np.isfinite(uplift).all():
        return record(UNDEFINED, "a daily difference is not finite")
    if weeks < FEWEST_WEEKS:
        return record(INSUFFICIENT, f"{weeks} weeks, fewer than {FEWEST_WEEKS}")
    if not uplift.any():
        return record(UNDEFINED, "student and baseline do not differ on any day")
    # scaled by the largest, so that no sum leaves the range of floats
    sums = np.bincount(week_of_day, uplift / np.max(np.abs(uplift)))
    positive = int(np.count_nonzero(sums > 0.0))
    share = positive / weeks
    return record(
        PASS if share > 0.5 else FAIL,
        f"better in {positive} of {weeks} weeks",
        estimate=share,
        ci=wilson_interval(positive, weeks),
        params={"positive": positive, "negative": int(np.count_nonzero(sums < 0.0)), "cluster": "ISO week"},
    )


def without_best_days(
    returns_student: ArrayLike, returns_baseline: ArrayLike, days: int = BEST_DAYS
) -> list[dict[str, Any]]:
    """What is left when the best days are taken away.

    Parameters
    ----------
    returns_student, returns_baseline
        float (d,), net returns of the same sessions, zero on idle ones.
    days
        How many to drop, at least 1; of equal days the earliest.

    Returns
    -------
    list of dict
        ``stability.without_best_days``: mean daily return of the student minus that of the baseline
        without the best days of the DIFFERENCE, with both annualised Sharpe ratios on the days that
        remain. ``stability.without_own_best_days``: the student's total return without its OWN best
        days, with its Sharpe ratio. Each passed above zero; insufficient below four times `days`
        sessions, undefined for a return that is not finite and for series that do not differ.

    Raises
    ------
    UsageError
        Series of different lengths or not one-dimensional, or no day to drop.
    """
    student, baseline = _same_sessions(returns_student=returns_student, returns_baseline=returns_baseline)
    if days < 1:
        raise UsageError(f"{days} best days: give at least 1", days=days)
    sessions = len(student)
    status, note = "", ""
    if sessions < 4 * days:
        status, note = INSUFFICIENT, f"{sessions} sessions, fewer than four times the {days} dropped"
    elif not (np.isfinite(student).all() and np.isfinite(baseline).all()):
        status, note = UNDEFINED, "a daily return is not finite"

    shared: dict[str, Any] = {"kind": "advisory", "n": {"days": sessions}, "threshold": 0.0}
    names = ("stability.without_best_days", "stability.without_own_best_days")
    methods = (
        f"difference of mean daily returns without the {days} best days of the difference",
        f"the student's total return without its own {days} best days",
    )
    if status:
        return [
            evidence_record(name, status=status, method=method, note=note, **shared)
            for name, method in zip(names, methods, strict=True)
        ]

    with np.errstate(all="ignore"):
        difference = student - baseline
        kept = _without_largest(difference, days)
        left, before = finite(float(np.mean(difference[kept]))), finite(float(np.mean(difference)))
    ours, theirs = _account(student[kept]), _account(baseline[kept])
    own = _account(student[_without_largest(student, days)])
    if not difference.any():
        status, note = UNDEFINED, "student and baseline have the same returns"
    elif left is None:
        status, note = UNDEFINED, "the returns are too large to compute with"
    else:
        status = PASS if left > 0.0 else FAIL
    total = own["total_return"]
    return [
        evidence_record(
            names[0],
            status=status,
            method=methods[0],
            estimate=left,
            alternative=BETTER,
            params={
                "dropped": days,
                "all_days": before,
                "sharpe_student": ours["sharpe_ratio"],
                "sharpe_baseline": theirs["sharpe_ratio"],
                "sharpe_difference": _minus(ours["sharpe_ratio"], theirs["sharpe_ratio"]),
            },
            unit="return a day",
            note=note,
            **shared,
        ),
        evidence_record(
            names[1],
            status=UNDEFINED if total is None else PASS if total > 0.0 else FAIL,
            method=methods[1],
            estimate=total,
            params={
                "dropped": days,
                "all_days": _account(student)["total_return"],
                "sharpe_student": own["sharpe_ratio"],
            },
            unit="total return",
            note=own["undefined"].get("total_return", ""),
            **shared,
        ),
    ]


def cost_stress(
    returns_student: ArrayLike,
    costs_student: ArrayLike,
    returns_baseline: ArrayLike,
    costs_baseline: ArrayLike,
    multiples: Sequence[float] = (1, 2, 3),
) -> dict[str, Any]:
    """Sharpe ratio and total return of both sides when every cost is a multiple of what it was.

    Parameters
    ----------
    returns_student, returns_baseline
        float (d,), net returns of the same sessions, costs already taken off once.
    costs_student, costs_baseline
        float (d,), fees and slippage of the session as a fraction of capital, not negative.
    multiples
        Of the costs; 2 must be among them, because there it is judged.

    Returns
    -------
    dict
        Record ``stability.costs``: the estimate is the difference of the annualised Sharpe ratios at
        twice the costs, passed when it and the student's own mean return are above zero there.
        ``params["at"]`` holds a row a multiple. Undefined where a Sharpe ratio is.

    Raises
    ------
    UsageError
        Series of different lengths or not one-dimensional, a negative cost, multiples without 2 or not
        finite.
    """
    student, student_costs, baseline, baseline_costs = _same_sessions(
        returns_student=returns_student,
        costs_student=costs_student,
        returns_baseline=returns_baseline,
        costs_baseline=costs_baseline,
    )
    for name, costs in (("costs_student", student_costs), ("costs_baseline", baseline_costs)):
        if np.any(costs < 0.0):
            day = int(np.argmax(costs < 0.0))
            raise UsageError(f"{name}[{day}] is negative: give costs as positive fractions", day=day)
    if JUDGED_MULTIPLE not in multiples or not np.isfinite(np.asarray(multiples, np.float64)).all():
        raise UsageError(f"multiples {tuple(multiples)}: give finite numbers, {JUDGED_MULTIPLE:g} among them")

    at: list[dict[str, Any]] = []
    judged: dict[str, Any] = {}
    for multiple in multiples:
        with np.errstate(all="ignore"):
            dearer = student - (multiple - 1) * student_costs
            ours = _account(dearer)
            theirs = _account(baseline - (multiple - 1) * baseline_costs)
        row = {
            "multiple": float(multiple),
            "sharpe_student": ours["sharpe_ratio"],
            "sharpe_baseline": theirs["sharpe_ratio"],
            "sharpe_difference": _minus(ours["sharpe_ratio"], theirs["sharpe_ratio"]),
            "total_return_student": ours["total_return"],
            "total_return_baseline": theirs["total_return"],
        }
        at.append(row)
        if multiple == JUDGED_MULTIPLE:
            why = [
                f"the {side}'s Sharpe ratio: {account['undefined']['sharpe_ratio']}"
                for side, account in (("student", ours), ("baseline", theirs))
                if account["sharpe_ratio"] is None
            ]
            judged = {**row, "why": "; ".join(why)}

    # A Sharpe ratio above zero is a mean return above zero.
    own, uplift = judged["sharpe_student"], judged["sharpe_difference"]
    few = min(len(student), 2) < 2
    status = INSUFFICIENT if few else UNDEFINED
    if own is not None and uplift is not None:
        status = PASS if own > 0.0 and uplift > 0.0 else FAIL
    return evidence_record(
        "stability.costs",
        kind="advisory",
        status=status,
        method=f"Sharpe ratios with costs multiplied, judged at x{JUDGED_MULTIPLE:g}",
        estimate=uplift,
        alternative=BETTER,
        params={"at": at, "judged_at": JUDGED_MULTIPLE},
        n={"days": len(student)},
        threshold=0.0,
        unit="annualised Sharpe ratio",
        note=judged["why"],
    )


def _same_sessions(**series: ArrayLike) -> list[np.ndarray]:
    arrays = {name: return_series(name, values) for name, values in series.items()}
    if len({len(array) for array in arrays.values()}) > 1:
        lengths = ", ".join(f"{name} {len(array)}" for name, array in arrays.items())
        raise UsageError(f"{lengths} sessions: give series of the same sessions")
    return list(arrays.values())


def _without_largest(values: np.ndarray, days: int) -> np.ndarray:
    """Positions of all but the `days` largest values, in time order."""
    dropped = np.argsort(-values, kind="stable")[:days]
    return np.setdiff1d(np.arange(len(values)), dropped)


def _account(returns: np.ndarray) -> dict[str, Any]:
    return financial_metrics(returns, np.empty(0))


def _minus(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else finite(first - second)
