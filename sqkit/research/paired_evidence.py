"""The tests that a verdict may rest on: is the student better, and is it no worse?

`blocking_records` is what the gate runs on a validation and what the gate's simulation runs on made-up
ones, so the stated error rates are those of this code. In: `PairedRows`, daily returns. Out: records
(`sqkit.research.evidence_records`) that `sqkit.evidence_grade` grades.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np

from sqkit.evidence_grade import (
    FIRST_BRIER,
    FIRST_DAILY_PNL,
    FIRST_PRECISION,
    FIRST_PRECISION_P,
    FIRST_RULE_BRIER,
    LOSS_ACTED_ON,
    LOSS_ALL_ROWS,
    MODERATE_P,
    NAMED_BASE_RATE,
    NAMED_PRECISION,
    NAMED_RULE_BRIER,
    PRECISION_ACTED_ON,
    PRECISION_ALL_ROWS,
)
from sqkit.metrics import TRADING_DAYS_PER_YEAR
from sqkit.research.evidence_records import (
    BETTER,
    FAIL,
    PASS,
    UNDEFINED,
    evidence_record,
    finite,
)
from sqkit.research.paired_rows import BASELINE_COLUMNS, STUDENT_COLUMNS, PairedReturns, PairedRows
from sqkit.research.paired_statistics import PairedDifference, loss_differential, precision_difference
from sqkit.research.sharpe_difference import SharpeDifference, sharpe_difference

Record = dict[str, Any]
Kind = Literal["blocking", "advisory"]

HIT_RATIO_ALL_ROWS: Final = "hit_ratio_difference.all_rows"
HIT_RATIO_ACTED_ON: Final = "hit_ratio_difference.acted_on_rows"
HARM_PRECISION: Final = "no_harm.precision"
HARM_HIT_RATIO: Final = "no_harm.hit_ratio"
HARM_SHARPE: Final = "no_harm.sharpe"

_T_TEST: Final = "day-clustered t"
_SHARE_METHOD: Final = f"{_T_TEST}, delta method on day sums"
_LOSS_METHOD: Final = f"{_T_TEST} of the daily Brier difference"
_SHARPE_METHOD: Final = "Ledoit-Wolf studentized circular block bootstrap of pairs"
_SAME_RETURNS: Final = "student and baseline earned the same on every day"
_SAME_CALLS: Final = "student and baseline called alike and were right alike on every day"


@dataclass(frozen=True)
class NamedBaseline:
    """What it takes to ask whether a student beats more than a baseline somebody chose.

    Attributes
    ----------
    base_rate
        Share of up moves among the decisive training rows.
    rule_calls
        int8 (n,), what the baseline rule calls on each row.
    """

    base_rate: float
    rule_calls: np.ndarray


def blocking_records(
    rows: PairedRows,
    returns: PairedReturns,
    *,
    base_rate: float | None,
    overlap: int,
    sharpe: SharpeDifference,
    named_baseline: NamedBaseline | None = None,
) -> list[Record]:
    """Every record that can change a verdict, and the precision differences they rest on.

    Parameters
    ----------
    base_rate
        Share of up moves among the decisive training rows; given when the baseline is a rule, which
        has no probabilities ("first model, no incumbent"), None when it is a model.
    overlap
        Session days a label reaches over, 1 for labels that end on their day.
    sharpe
        From `daily_sharpe_difference`.
    named_baseline
        Given when the baseline is a model that is not in production.
    """
    precision, hit_ratio = share_records(rows, overlap)
    if base_rate is None:  # the grade asks where the precision differs as well
        better = loss_records(rows, overlap)
        precision = [{**record, "kind": "blocking"} for record in precision]
        if named_baseline is not None:
            better += rule_records(
                rows.against_rule(named_baseline.rule_calls),
                base_rate=named_baseline.base_rate,
                overlap=overlap,
                names=(NAMED_PRECISION, NAMED_BASE_RATE, NAMED_RULE_BRIER),
            )
    else:
        better = first_model_records(rows, returns, base_rate=base_rate, overlap=overlap)
    return [
        *better,
        *precision,
        *hit_ratio,
        _no_harm_share(HARM_PRECISION, precision[0], lambda: rows.long_counts(rows.everywhere)),
        _no_harm_share(HARM_HIT_RATIO, hit_ratio[0], lambda: rows.directional_counts(rows.everywhere)),
        _no_harm_sharpe(sharpe, returns),
    ]


def loss_records(rows: PairedRows, overlap: int) -> list[Record]:
    """Student against a baseline model: the paired daily Brier differential, on all and on acted-on rows."""
    records = []
    for name, chosen in ((LOSS_ALL_ROWS, rows.everywhere), (LOSS_ACTED_ON, rows.acted_on)):
        scored = rows.decisive(chosen) & np.isfinite(rows.probability_baseline)
        found = loss_differential(
            rows.brier_losses(scored, rows.probability_baseline),
            rows.brier_losses(scored, rows.probability_student),
            rows.day_index[scored],
            overlap=overlap,
        )
        records.append(
            _record(name, "blocking", found, _LOSS_METHOD, overlap, level=MODERATE_P, unit="Brier score")
        )
    return records


def first_model_records(
    rows: PairedRows, returns: PairedReturns, *, base_rate: float, overlap: int
) -> list[Record]:
    """Student against a rule: precision where it trades, daily P&L, and two Brier differentials."""
    names = (FIRST_PRECISION, FIRST_BRIER, FIRST_RULE_BRIER)
    precision, *briers = rule_records(rows, base_rate=base_rate, overlap=overlap, names=names)
    earned = loss_differential(-returns.baseline, -returns.student, np.arange(len(returns.student)))
    return [precision, _daily_pnl(earned, returns), *briers]


def rule_records(
    rows: PairedRows, *, base_rate: float, overlap: int, names: tuple[str, str, str]
) -> list[Record]:
    """The student's precision where the rule trades, its Brier against the base rate and against the rule's.

    The last one, against the rule's own hit rates, is what keeps an equal student out: a student that
    knows as much as the rule beats a constant easily.

    Parameters
    ----------
    rows
        The rule in the baseline's place.
    names
        Of the three records.
    """
    precision = precision_difference(rows.long_counts(rows.acted_on), overlap=overlap)
    scored = rows.decisive(rows.everywhere)
    opponents = (
        ("the training base rate", np.full(len(rows), base_rate), {"base_rate": finite(base_rate)}),
        ("the rule's own hit rates on these rows", rows.rule_forecast(scored), None),
    )
    return [
        _record(names[0], "blocking", precision, _SHARE_METHOD, overlap, level=FIRST_PRECISION_P),
        *(
            _record(
                name,
                "blocking",
                loss_differential(
                    rows.brier_losses(scored, forecast),
                    rows.brier_losses(scored, rows.probability_student),
                    rows.day_index[scored],
                    overlap=overlap,
                ),
                f"{_LOSS_METHOD} to {opponent}",
                overlap,
                level=MODERATE_P,
                unit="Brier score",
                params=params,
            )
            for name, (opponent, forecast, params) in zip(names[1:], opponents, strict=True)
        ),
    ]


def share_records(rows: PairedRows, overlap: int) -> tuple[list[Record], list[Record]]:
    """Precision and hit-ratio differences, each on all rows and on acted-on rows."""
    families = (
        ((PRECISION_ALL_ROWS, PRECISION_ACTED_ON), rows.long_counts),
        ((HIT_RATIO_ALL_ROWS, HIT_RATIO_ACTED_ON), rows.directional_counts),
    )
    made = []
    for names, counts in families:
        records = []
        for name, chosen in zip(names, (rows.everywhere, rows.acted_on), strict=True):
            found = precision_difference(counts(chosen), overlap=overlap)
            records.append(_record(name, "advisory", found, _SHARE_METHOD, overlap, level=MODERATE_P))
        made.append(records)
    return made[0], made[1]


def daily_sharpe_difference(
    returns: PairedReturns, *, block: int = 1, reps: int = 4999, seed: int = 0
) -> SharpeDifference:
    """`sharpe_difference` of student and baseline, per day; a reason names the side."""
    found = sharpe_difference(returns.student, returns.baseline, block=block, reps=reps, seed=seed)
    reason = found.reason.replace("r1: ", "student: ").replace("r2: ", "baseline: ")
    return replace(found, reason=reason)


def sharpe_record(found: SharpeDifference) -> Record:
    """The annualised difference of the Sharpe ratios with its interval and every other test's p."""
    year = TRADING_DAYS_PER_YEAR**0.5
    significant = found.bootstrap_p_one_sided is not None and found.bootstrap_p_one_sided <= MODERATE_P
    return evidence_record(
        "sharpe_difference",
        kind="advisory",
        status=UNDEFINED if found.status != "ok" else PASS if significant else FAIL,
        estimate=_times(found.difference, year),
        se=_times(found.hac_prewhitened_se, year),
        ci=None if found.bootstrap_ci95 is None else [bound * year for bound in found.bootstrap_ci95],
        p_value=found.bootstrap_p_one_sided,
        alternative=BETTER,
        method=_SHARPE_METHOD,
        params={
            "block": found.block,
            "reps": found.reps,
            "seed": found.seed,
            "correlation": found.correlation,
            "hac_p": found.hac_p,
            "hac_prewhitened_p": found.hac_prewhitened_p,
            "memmel_p": found.memmel_p,
            "cluster": "day",
        },
        n={"days": found.n, "clusters": found.n},
        threshold=MODERATE_P,
        unit="annualised Sharpe ratio",
        note=found.reason or _distance(found.bootstrap_ci95),
    )


def _distance(interval: Sequence[float] | None) -> str:
    if interval is None:
        return "no interval: a draw of the bootstrap does not vary"
    return "not distinguishable from zero" if interval[0] <= 0.0 <= interval[1] else ""


def _record(
    name: str,
    kind: Kind,
    found: PairedDifference,
    method: str,
    overlap: int,
    *,
    level: float,
    unit: str = "share",
    params: dict[str, Any] | None = None,
) -> Record:
    """A paired difference as a record: it passes when its one-sided p is at most `level`."""
    passed = found.p_one_sided is not None and found.p_one_sided <= level
    return evidence_record(
        name,
        kind=kind,
        status=UNDEFINED if found.status != "ok" else PASS if passed else FAIL,
        estimate=found.difference,
        se=found.se,
        ci=found.ci95,
        p_value=found.p_one_sided,
        alternative=BETTER,
        method=method,
        params={
            "cluster": "day",
            "overlap_days": overlap,
            "student": found.student,
            "baseline": found.baseline,
            **(params or {}),
        },
        n={"clusters": found.clusters, "rows": found.rows},
        threshold=level,
        unit=unit,
        note=found.reason,
    )


def _daily_pnl(found: PairedDifference, returns: PairedReturns) -> Record:
    """Daily P&L not worse: the mean daily difference is not below zero; the test's p stands beside it."""
    days, same = len(returns.student), _same(returns)
    estimate = 0.0 if same else found.difference
    known = same or found.status == "ok"
    return evidence_record(
        FIRST_DAILY_PNL,
        kind="blocking",
        status=UNDEFINED if not known or estimate is None else PASS if estimate >= 0.0 else FAIL,
        estimate=estimate if known else None,
        se=found.se,
        ci=found.ci95,
        p_value=found.p_one_sided,
        alternative=BETTER,
        method="mean daily net return, student minus baseline",
        params={"cluster": "day"},
        n={"days": days, "clusters": days},
        threshold=0.0,
        unit="daily net return",
        note=_SAME_RETURNS if same else found.reason,
    )


def _no_harm(name: str, difference: Record, *, same: bool) -> Record:
    """The same difference, asked whether its 95 % interval lies wholly below zero.

    Two sides that are the `same`, as a model and its copy, harm nobody; their difference has no interval.
    """
    upper = difference["ci"][1] if difference["ci"] else None
    status = UNDEFINED if upper is None else FAIL if upper < 0.0 else PASS
    return {
        **difference,
        "name": name,
        "kind": "blocking",
        "status": PASS if same else status,
        "threshold": 0.0,
    }


def _no_harm_share(name: str, difference: Record, counts: Callable[[], np.ndarray]) -> Record:
    """Equal shares alone, on one day say, could be chance: the same is the same on every day."""
    same = difference["estimate"] == 0.0 and _same_calls(counts())
    return _no_harm(name, difference | ({"note": _SAME_CALLS} if same else {}), same=same)


def _same_calls(counts: np.ndarray) -> bool:
    return np.array_equal(counts[:, STUDENT_COLUMNS], counts[:, BASELINE_COLUMNS])


def _no_harm_sharpe(found: SharpeDifference, returns: PairedReturns) -> Record:
    record = sharpe_record(found)
    same = found.status != "ok" and _same(returns)
    return _no_harm(
        HARM_SHARPE, record | ({"estimate": 0.0, "note": _SAME_RETURNS} if same else {}), same=same
    )


def _same(returns: PairedReturns) -> bool:
    return (
        len(returns.student) > 0
        and bool(np.isfinite(returns.student).all())
        and np.array_equal(returns.student, returns.baseline)
    )


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
