"""The grade of the evidence, from its records alone: none, weak, moderate or strong.

Pure: the checklist derives the grade again from what it stores, so a grade that does not follow
from its records is found. The levels are conventions of the trade (one in twenty, one in a
hundred), not settings: a policy asks for a grade, it does not redefine one.

==========  =================================================================================
none        no predictions, or neither thresholds nor tests passed
weak        only the thresholds passed
moderate    the student's daily loss is lower, p <= .05, also on the rows that can trade; without
            an incumbent model: precision p <= .10 where the rule trades, daily P&L not worse, and a
            Brier score better (p <= .05) than the training base rate and than the rule's own hit rates
strong      p <= .01 and the interval of the precision difference lies above zero; without an
            incumbent model: precision p <= .01
==========  =================================================================================

A baseline model that is not the incumbent was chosen by whoever validates: then the first model's tests
of precision and Brier score, against the rule, are asked for as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqkit.checklist_inputs import is_number

LOSS_ALL_ROWS: Final = "loss_differential.all_rows"
LOSS_ACTED_ON: Final = "loss_differential.acted_on_rows"
PRECISION_ALL_ROWS: Final = "precision_difference.all_rows"
PRECISION_ACTED_ON: Final = "precision_difference.acted_on_rows"
FIRST_PRECISION: Final = "first_model.precision"
FIRST_DAILY_PNL: Final = "first_model.daily_pnl"
FIRST_BRIER: Final = "first_model.brier"
FIRST_RULE_BRIER: Final = "first_model.brier_of_rule"
NAMED_PRECISION: Final = "named_baseline.precision_of_rule"
NAMED_BASE_RATE: Final = "named_baseline.base_rate"
NAMED_RULE_BRIER: Final = "named_baseline.brier_of_rule"

STRONG_P: Final = 0.01
MODERATE_P: Final = 0.05
FIRST_PRECISION_P: Final = 0.10
"""Precision has little power in three months, so the first model's test is at one in ten, beside two others."""

_GRADING: Final = (LOSS_ALL_ROWS, FIRST_PRECISION)


def is_graded(records: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the records hold a test that a grade can follow from."""
    return any(record.get("name") in _GRADING for record in records)


def evidence_grade(records: Sequence[Mapping[str, Any]], *, thresholds_passed: bool) -> str:
    """The grade that follows from the records.

    Parameters
    ----------
    records
        As made by `sqkit.research.evidence`; a test that is missing or undefined is not passed.
    thresholds_passed
        Whether the policy's uplift thresholds were reached.

    Returns
    -------
    str
        One of `sqkit.settings.GRADES`.
    """
    known = {str(record.get("name")): record for record in records}
    if not is_graded(records):
        return "none"
    level = _first_model(known) if FIRST_PRECISION in known else _against_incumbent(known)
    return level or ("weak" if thresholds_passed else "none")


def _against_incumbent(known: Mapping[str, Mapping[str, Any]]) -> str:
    """Uplift that appears only on rows that never trade earns nothing here."""
    if NAMED_PRECISION in known and not _beats_rule(known):
        return ""
    p = _p_value(known, LOSS_ALL_ROWS)
    trades = _p_value(known, LOSS_ACTED_ON) <= MODERATE_P and _number(known, PRECISION_ACTED_ON) > 0.0
    if not trades or p > MODERATE_P:
        return ""
    strong = p <= STRONG_P and _lower_bound(known, PRECISION_ALL_ROWS) > 0.0
    return "strong" if strong else "moderate"


def _beats_rule(known: Mapping[str, Mapping[str, Any]]) -> bool:
    """A baseline that somebody named may be a bad model: who beats it must beat the rule as well."""
    briers = max(_p_value(known, NAMED_BASE_RATE), _p_value(known, NAMED_RULE_BRIER))
    return _p_value(known, NAMED_PRECISION) <= FIRST_PRECISION_P and briers <= MODERATE_P


def _first_model(known: Mapping[str, Mapping[str, Any]]) -> str:
    precision = _p_value(known, FIRST_PRECISION)
    not_worse = _number(known, FIRST_DAILY_PNL) >= 0.0
    calibrated = max(_p_value(known, FIRST_BRIER), _p_value(known, FIRST_RULE_BRIER)) <= MODERATE_P
    if precision > FIRST_PRECISION_P or not not_worse or not calibrated:
        return ""
    return "strong" if precision <= STRONG_P else "moderate"


def _p_value(known: Mapping[str, Mapping[str, Any]], name: str) -> float:
    """One-sided p of a test; 1 where it is missing, undefined or no probability."""
    p = _usable(known.get(name, {}), "p_value", otherwise=1.0)
    return p if 0.0 <= p <= 1.0 else 1.0


def _number(known: Mapping[str, Mapping[str, Any]], name: str) -> float:
    """Estimate of a record; minus infinity where it is missing or undefined."""
    return _usable(known.get(name, {}), "estimate", otherwise=-math.inf)


def _lower_bound(known: Mapping[str, Mapping[str, Any]], name: str) -> float:
    record = known.get(name, {})
    interval = record.get("ci")
    low = interval[0] if isinstance(interval, list | tuple) and len(interval) == 2 else None
    return _usable({**record, "low": low}, "low", otherwise=-math.inf)


def _usable(record: Mapping[str, Any], key: str, *, otherwise: float) -> float:
    """A number of a record whose test was defined; anything else says nothing."""
    value: Any = record.get(key)
    defined = record.get("status") in ("pass", "fail")
    return float(value) if defined and is_number(value) else otherwise
