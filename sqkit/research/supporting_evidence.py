"""Evidence that decides nothing and says how far a result can be trusted: advisory records.

Calibration, stability over weeks and symbols, the result without its best days and under higher
costs, the track record against the number of trials, the trials against each other. Called by
`sqkit.research.evidence`; the statistics stand in the modules it calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sqkit.metrics import CALIBRATION_BINS
from sqkit.records import UP
from sqkit.research.evidence_records import FAIL, PASS, UNDEFINED, evidence_record
from sqkit.research.many_trials import (
    align_trials,
    overfitting,
    step_multiple,
    superior_predictive_ability,
)
from sqkit.research.paired_rows import PairedReturns, PairedRows
from sqkit.research.paired_statistics import calibration
from sqkit.research.stability import cost_stress, weekly_stability, without_best_days
from sqkit.research.symbol_stability import symbol_stability
from sqkit.research.track_record import track_record

Record = dict[str, Any]
Series = tuple[np.ndarray, np.ndarray]


def calibration_record(rows: PairedRows, side: str, *, seed: int) -> tuple[Record, list[dict[str, Any]]]:
    """Whether a confidence means what it says, against what a perfect model would show; with its bins."""
    probability = rows.probability_student if side == "student" else rows.probability_baseline
    scored = np.flatnonzero(rows.decisive(rows.everywhere) & np.isfinite(probability))
    # By size: the draws of the null must not depend on the order in which symbols were asked for.
    scored = scored[np.argsort(probability[scored], kind="stable")]
    up = rows.outcomes[scored] == UP
    found = calibration(probability[scored], up, bins=CALIBRATION_BINS, seed=seed)
    known = found.ece is not None and found.ece_null_95 is not None
    parts = ("brier", "reliability", "resolution", "uncertainty", "within_bins", "ece_rms", "ece_max")
    record = evidence_record(
        f"calibration.{side}",
        kind="advisory",
        status=UNDEFINED if not known else PASS if _at_most(found.ece, found.ece_null_95) else FAIL,
        estimate=found.ece,
        p_value=found.ece_p,
        alternative="less calibrated than its own probabilities",
        method="expected calibration error against a perfectly calibrated model (parametric bootstrap)",
        params={name: getattr(found, name) for name in parts}
        | {"bins": CALIBRATION_BINS, "ece_null_95": found.ece_null_95, "seed": seed},
        n={"rows": found.rows},
        threshold=found.ece_null_95,
        unit="share",
        note=found.reason,
    )
    return record, [dict(bin_) for bin_ in found.bins]


def week_record(rows: PairedRows, returns: PairedReturns, *, first_model: bool) -> Record:
    """Uplift by ISO week: of the daily Brier score, or of the daily P&L where the baseline is a rule."""
    if first_model:
        with np.errstate(all="ignore"):  # what is not finite is said by the record
            earned = returns.student - returns.baseline
        return weekly_stability(earned, returns.session_days)
    scored = rows.decisive(rows.everywhere) & np.isfinite(rows.probability_baseline)
    difference = rows.brier_losses(scored, rows.probability_baseline) - rows.brier_losses(
        scored, rows.probability_student
    )
    places = rows.day_index[scored]
    size = np.bincount(places, minlength=len(rows.days))
    seen = size > 0
    total = np.bincount(places, difference, minlength=len(rows.days))
    return weekly_stability(total[seen] / size[seen], rows.days[seen])


def symbol_record(
    rows: PairedRows, *, first_model: bool, overlap: int, pool_passes: bool
) -> tuple[Record, list[dict[str, Any]]]:
    """The checklist's "all symbols" and its table."""
    counts, losses = {}, {}
    for number, symbol in enumerate(rows.symbol_names):
        own = rows.symbols == number
        counts[symbol] = rows.directional_counts(own)
        scored = rows.decisive(own) & np.isfinite(rows.probability_baseline)
        if not first_model and scored.any():
            losses[symbol] = (
                rows.brier_losses(scored, rows.probability_baseline),
                rows.brier_losses(scored, rows.probability_student),
                rows.day_index[scored],
            )
    return symbol_stability(counts, losses, pool_passes=pool_passes, overlap=overlap)


def money_records(returns: PairedReturns) -> list[Record]:
    """The result without its best days, and at two and three times the costs."""
    return [
        *without_best_days(returns.student, returns.baseline),
        cost_stress(returns.student, returns.student_costs, returns.baseline, returns.baseline_costs),
    ]


def trial_records(
    returns: PairedReturns,
    others: Mapping[str, Series],
    *,
    candidate: str,
    n_trials: int,
    overlap: int,
    seed: int,
) -> list[Record]:
    """The track record given how often the window was looked at, and the trials against each other.

    Parameters
    ----------
    others
        Behaviour digest to session dates and daily net returns of the other trials of this window.
    candidate
        Behaviour digest of the judged model.
    """
    trials = {**others, candidate: (returns.session_days, returns.student)}
    aligned = align_trials(trials, (returns.session_days, returns.baseline))
    return [
        *track_record(returns.student, n_trials, [series for _, series in trials.values()]),
        superior_predictive_ability(aligned, horizon_days=overlap, seed=seed),
        step_multiple(aligned, candidate=candidate, horizon_days=overlap, seed=seed),
        overfitting(aligned),
    ]


def _at_most(value: float | None, bound: float | None) -> bool:
    return value is not None and bound is not None and value <= bound
