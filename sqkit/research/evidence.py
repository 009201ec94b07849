"""The evidence: how sure is it that the student is better, and not just lucky on these days?

`gather_evidence` is the recipe behind a checklist's ``evidence`` and ``evidence.json``: stored
predictions and returns in, records, grade and one plain line out. The statistics are public
functions with plain arguments, defined in the modules named below and importable from here.

==========================  =====================================================================
sharpe_statistics           PSR, DSR, minimum track record and backtest lengths
sharpe_difference           Memmel, Ledoit-Wolf, studentized bootstrap of pairs
paired_statistics           day-clustered differences, daily loss differential, calibration
overfitting                 probability of backtest overfitting
paired_evidence             the records a verdict may rest on
supporting_evidence         advisory records: stability, costs, track record, trials
==========================  =====================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from sqkit.checklist_tables import p_text
from sqkit.evidence_grade import (
    FIRST_BRIER,
    FIRST_PRECISION,
    FIRST_RULE_BRIER,
    LOSS_ALL_ROWS,
    NAMED_PRECISION,
    NAMED_RULE_BRIER,
    evidence_grade,
)
from sqkit.research.many_trials import block_length
from sqkit.research.overfitting import probability_of_backtest_overfitting
from sqkit.research.paired_evidence import (
    NamedBaseline,
    blocking_records,
    daily_sharpe_difference,
    sharpe_record,
)
from sqkit.research.paired_rows import PairedReturns, PairedRows
from sqkit.research.paired_statistics import calibration, loss_differential, precision_difference
from sqkit.research.sharpe_difference import sharpe_difference
from sqkit.research.sharpe_statistics import (
    deflated_sharpe_ratio,
    expected_max_z,
    min_backtest_length,
    min_track_record_length,
    probabilistic_sharpe_ratio,
)
from sqkit.research.supporting_evidence import (
    calibration_record,
    money_records,
    symbol_record,
    trial_records,
    week_record,
)

__all__ = [
    "Evidence",
    "PairedReturns",
    "PairedRows",
    "Trials",
    "calibration",
    "deflated_sharpe_ratio",
    "expected_max_z",
    "gather_evidence",
    "loss_differential",
    "min_backtest_length",
    "min_track_record_length",
    "precision_difference",
    "probabilistic_sharpe_ratio",
    "probability_of_backtest_overfitting",
    "sharpe_difference",
]

SEED: Final = 0
BOOTSTRAP_REPS: Final = 4999


@dataclass(frozen=True)
class Trials:
    """How often the window was looked at.

    Attributes
    ----------
    candidate
        Behaviour digest of the judged model.
    n_trials
        Distinct behaviours that looked at the window, the candidate included.
    others
        Behaviour digest to session dates (int (d,)) and daily net returns of the others.
    """

    candidate: str
    n_trials: int
    others: dict[str, tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Evidence:
    """What `gather_evidence` found.

    Attributes
    ----------
    grade
        One of `sqkit.settings.GRADES`.
    summary
        The plain line under the verdict.
    records
        Every record, those a verdict may rest on first.
    symbols
        One row a symbol: hit ratios, uplifts, adjusted p-values, verdict.
    calibration
        Bins of the student, and of the baseline where it is a model.
    """

    grade: str
    summary: str
    records: list[dict[str, Any]]
    symbols: list[dict[str, Any]]
    calibration: dict[str, list[dict[str, Any]]]


def gather_evidence(
    rows: PairedRows,
    returns: PairedReturns,
    *,
    base_rate: float | None,
    overlap: int,
    trials: Trials,
    thresholds_passed: bool,
    sharpe_uplift: float | None,
    has_incumbent: bool = False,
    named_baseline: NamedBaseline | None = None,
    seed: int = SEED,
) -> Evidence:
    """Test student against baseline on the same rows and days.

    Parameters
    ----------
    base_rate
        Share of up moves among the decisive training rows when the baseline is a rule, else None.
    overlap
        Session days a label reaches over, 1 for labels that end on their day.
    thresholds_passed
        Whether the policy's uplift thresholds were reached.
    sharpe_uplift
        The relative uplift the checklist prints, None where it is not defined.
    has_incumbent
        Whether a model is in production, also where the baseline is another model or the rule.
    named_baseline
        Given when the baseline is a model that is not in production: then the rule must be beaten too.
    seed
        Of every random draw; stored in the records.
    """
    first_model = base_rate is not None
    block = block_length(returns.student, returns.baseline, horizon_days=overlap)
    sharpe = daily_sharpe_difference(returns, block=block, reps=BOOTSTRAP_REPS, seed=seed)
    deciding = blocking_records(
        rows, returns, base_rate=base_rate, overlap=overlap, sharpe=sharpe, named_baseline=named_baseline
    )
    grade = evidence_grade(deciding, thresholds_passed=thresholds_passed)

    bins, calibrations = {}, []
    for side in ("student",) if first_model else ("student", "baseline"):
        record, bins[side] = calibration_record(rows, side, seed=seed)
        calibrations.append(record)
    by_symbol, symbols = symbol_record(
        rows, first_model=first_model, overlap=overlap, pool_passes=thresholds_passed
    )
    records = [
        *deciding,
        sharpe_record(sharpe),
        *calibrations,
        week_record(rows, returns, first_model=first_model),
        by_symbol,
        *money_records(returns),
        *trial_records(
            returns,
            trials.others,
            candidate=trials.candidate,
            n_trials=trials.n_trials,
            overlap=overlap,
            seed=seed,
        ),
    ]
    summary = summary_line(
        records,
        grade,
        n_trials=trials.n_trials,
        sharpe_uplift=sharpe_uplift,
        has_incumbent=has_incumbent,
    )
    return Evidence(grade, summary, records, symbols, bins)


def summary_line(
    records: list[dict[str, Any]],
    grade: str,
    *,
    n_trials: int,
    sharpe_uplift: float | None,
    has_incumbent: bool = False,
) -> str:
    """The line a person reads first: Sharpe with its interval, the deciding test, the looks, the grade."""
    known = {record["name"]: record for record in records}
    if FIRST_PRECISION in known:
        against = "against the rule, not the incumbent" if has_incumbent else "first model, no incumbent"
        test = (
            f"{against}: precision p {_p(known[FIRST_PRECISION])}, "
            f"Brier p {_p(known[FIRST_BRIER])} against the base rate, {_p(known[FIRST_RULE_BRIER])} against the rule"
        )
    else:
        test = f"Brier p {_p(known[LOSS_ALL_ROWS])}"
        if NAMED_PRECISION in known:
            test += (
                f" against a named baseline, not {'the' if has_incumbent else 'an'} incumbent; against the rule: "
                f"precision p {_p(known[NAMED_PRECISION])}, Brier p {_p(known[NAMED_RULE_BRIER])}"
            )
    looks = f"{n_trials} look{'' if n_trials == 1 else 's'} at this window"
    return f"{_sharpe(known['sharpe_difference'], sharpe_uplift)}; {test}; {looks}; grade {grade.upper()}"


def _sharpe(record: dict[str, Any], relative: float | None) -> str:
    """``Sharpe +7.6 % (95 % CI -41 % .. +58 %): noise at 63 days``; absolute where no relative uplift is."""
    days, estimate, interval = record["n"]["days"], record["estimate"], record["ci"]
    if estimate is None:
        return f"Sharpe difference undefined ({record['note']})"
    if interval is None:
        return f"Sharpe {estimate:+z.2f} (no interval: {record['note']})"
    low, high = interval
    verdict = "noise" if low <= 0.0 <= high else "more than noise"
    if relative is not None and estimate != 0.0 and relative != 0.0:
        unit = 100.0 * relative / estimate
        said = (
            f"{unit * estimate:+z.1f} % (95 % CI {_signed(unit * low, 0)} % .. {_signed(unit * high, 0)} %)"
        )
    else:
        said = f"{estimate:+z.2f} (95 % CI {_signed(low, 2)} .. {_signed(high, 2)})"
    return f"Sharpe {said}: {verdict} at {days} days"


def _signed(value: float, places: int) -> str:
    """A bound with so many decimals, one more where it would hide on which side of zero it lies."""
    return f"{value:+z.{places + (abs(value) < 0.5 * 10.0**-places)}f}"


def _p(record: dict[str, Any]) -> str:
    """``= .004`` or ``< .001``; ``undefined`` without a test."""
    text = p_text(record["p_value"])
    return "undefined" if text is None else text if text.startswith("<") else f"= {text}"
