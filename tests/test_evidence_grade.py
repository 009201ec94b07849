"""The grade: every boundary to the bit, what never counts, and records nobody should have written."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqkit.checklist import rederive
from sqkit.evidence_grade import (
    FIRST_BRIER,
    FIRST_DAILY_PNL,
    FIRST_PRECISION,
    FIRST_RULE_BRIER,
    LOSS_ACTED_ON,
    LOSS_ALL_ROWS,
    PRECISION_ACTED_ON,
    PRECISION_ALL_ROWS,
    evidence_grade,
    is_graded,
)
from sqkit.files import canonical_json
from sqkit.research.evidence_records import evidence_record
from sqkit.settings import GRADES
from tests.paired import judged, made_returns, made_rows

Records = list[dict[str, Any]]

INCUMBENT = (LOSS_ALL_ROWS, LOSS_ACTED_ON, PRECISION_ALL_ROWS, PRECISION_ACTED_ON)
FIRST = (FIRST_PRECISION, FIRST_DAILY_PNL, FIRST_BRIER, FIRST_RULE_BRIER)


def above(p: float) -> float:
    """The next larger float."""
    return math.nextafter(p, math.inf)


def record(name: str, **changes: Any) -> dict[str, Any]:
    """A test that could not be better, with changes."""
    best = {"estimate": 0.05, "se": 0.01, "ci": [0.03, 0.07], "p_value": 1e-6, "status": "pass"}
    found = evidence_record(name, kind="blocking", status="pass", method="by hand")
    return found | best | changes


def records(names: tuple[str, ...], **changes: dict[str, Any]) -> Records:
    """The best record of each name; `changes` by the name with its dot written as two underscores."""
    given_ = {name.replace("__", "."): change for name, change in changes.items()}
    return [record(name, **given_.get(name, {})) for name in names]


def grade(found: Records, thresholds_passed: bool = True) -> str:
    """The grade, which must not depend on the order of the records."""
    level = evidence_grade(found, thresholds_passed=thresholds_passed)
    assert evidence_grade(found[::-1], thresholds_passed=thresholds_passed) == level
    return level


# --- against an incumbent


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        (0.0, "strong"),
        (0.01, "strong"),
        (above(0.01), "moderate"),
        (0.05, "moderate"),
        (above(0.05), "weak"),
        (0.10, "weak"),
        (1.0, "weak"),
    ],
)
def test_the_loss_differential_sets_the_level(p: float, expected: str) -> None:
    """STRONG to .01, MODERATE to .05, both ends included; above that only the thresholds are left."""
    found = records(INCUMBENT, loss_differential__all_rows={"p_value": p})
    assert grade(found) == expected
    assert grade(found, thresholds_passed=False) == ("none" if expected == "weak" else expected)


@pytest.mark.parametrize(
    ("low", "expected"), [(0.0, "moderate"), (above(0.0), "strong"), (-1e-12, "moderate"), (-0.2, "moderate")]
)
def test_strong_needs_an_interval_above_zero(low: float, expected: str) -> None:
    """The precision difference's interval must lie above zero, not on it."""
    assert grade(records(INCUMBENT, precision_difference__all_rows={"ci": [low, 0.2]})) == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"p_value": 0.05}, "strong"),
        ({"p_value": above(0.05)}, "weak"),
        ({"p_value": 0.9}, "weak"),
    ],
)
def test_the_loss_on_rows_that_trade_must_pass_too(change: dict[str, Any], expected: str) -> None:
    """However sure the loss differential is over all rows."""
    assert grade(records(INCUMBENT, loss_differential__acted_on_rows=change)) == expected


@pytest.mark.parametrize(("estimate", "expected"), [(above(0.0), "strong"), (0.0, "weak"), (-0.01, "weak")])
def test_precision_on_rows_that_trade_must_be_higher(estimate: float, expected: str) -> None:
    """An uplift in precision that appears only on rows that never trade cannot be above WEAK."""
    found = records(INCUMBENT, precision_difference__acted_on_rows={"estimate": estimate})
    assert grade(found) == expected


@pytest.mark.parametrize("name", INCUMBENT)
@pytest.mark.parametrize("status", ["undefined", "insufficient", "", None, "PASS", ["pass"]])
def test_an_undefined_test_never_counts(name: str, status: Any) -> None:
    """Whatever numbers stand beside its status; without the interval MODERATE is left, without the rest WEAK."""
    found = [record(one, **({"status": status} if one == name else {})) for one in INCUMBENT]
    missing = [record(one) for one in INCUMBENT if one != name]
    expected = "moderate" if name == PRECISION_ALL_ROWS else "weak"
    assert grade(found) == expected
    assert grade(missing) == ("none" if name == LOSS_ALL_ROWS else expected)


def test_a_failed_status_alone_changes_no_number() -> None:
    """The grade rests on p-values and intervals; "fail" is a test that was made."""
    assert grade([record(name, status="fail") for name in INCUMBENT]) == "strong"


def test_nothing_to_grade_is_none() -> None:
    """Without predictions there is no grade, however well the thresholds are passed."""
    for found in ([], [record("sharpe_difference")], [record(PRECISION_ALL_ROWS)], [record(FIRST_BRIER)]):
        assert not is_graded(found)
        assert grade(found) == "none"


# --- the first model


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        (0.01, "strong"),
        (above(0.01), "moderate"),
        (0.05, "moderate"),
        (0.10, "moderate"),
        (above(0.10), "weak"),
        (0.5, "weak"),
    ],
)
def test_first_model_precision(p: float, expected: str) -> None:
    """The tests together earn MODERATE, STRONG with precision p <= .01; precision passes to .10."""
    found = records(FIRST, first_model__precision={"p_value": p})
    assert grade(found) == expected
    assert grade(found, thresholds_passed=False) == ("none" if expected == "weak" else expected)


@pytest.mark.parametrize(
    ("estimate", "expected"), [(0.0, "strong"), (-math.ulp(0.0), "weak"), (-0.001, "weak"), (1e-9, "strong")]
)
def test_first_model_daily_pnl(estimate: float, expected: str) -> None:
    """Not worse means not below zero; equal is not worse."""
    assert grade(records(FIRST, first_model__daily_pnl={"estimate": estimate})) == expected


@pytest.mark.parametrize("name", [FIRST_BRIER, FIRST_RULE_BRIER])
@pytest.mark.parametrize(("p", "expected"), [(0.05, "strong"), (above(0.05), "weak"), (0.10, "weak")])
def test_first_model_brier(name: str, p: float, expected: str) -> None:
    """Better than the training base rate, and than the rule's own hit rates, at one in twenty."""
    assert grade(records(FIRST, **{name: {"p_value": p}})) == expected


@pytest.mark.parametrize("name", FIRST)
@pytest.mark.parametrize("status", ["undefined", "insufficient", None])
def test_first_model_needs_all_of_them(name: str, status: Any) -> None:
    """One that is undefined or not there leaves WEAK."""
    found = [record(one, **({"status": status} if one == name else {})) for one in FIRST]
    assert grade(found) == "weak"
    missing = [record(one) for one in FIRST if one != name]
    assert grade(missing) == ("none" if name == FIRST_PRECISION else "weak")


def test_other_records_do_not_help_the_first_model() -> None:
    """Without an incumbent a loss differential says nothing, even where one is written down."""
    found = records((*FIRST, *INCUMBENT), first_model__brier={"p_value": 0.5})
    assert grade(found) == "weak"


# --- what must never happen

garbage = st.sampled_from(
    [
        *("0.001", "", None, True, False, float("nan"), float("inf"), float("-inf"), -0.5, -1, 1.5),
        *(
            10**400,
            -(10**400),
            [],
            [0.001],
            {},
            {"p": 0.001},
            [None, None],
            [0.01],
            "ab",
            [float("nan"), 1.0],
        ),
        *(["0.1", "0.2"], [True, True], [0.01, 0.02, 0.03], (10**400, 10**400)),
    ]
)
place = st.sampled_from(["p_value", "estimate", "ci", "status", "name"])


@settings(max_examples=300, deadline=None)
@given(names=st.sampled_from([INCUMBENT, FIRST]), at=st.integers(0, 3), key=place, value=garbage)
def test_a_malformed_record_never_raises_the_grade(
    names: tuple[str, ...], at: int, key: str, value: Any
) -> None:
    """Text, NaN, null, a bool or a number no float holds, anywhere: no exception, and no better grade.

    A one-sided p-value outside [0, 1] is malformed too. An estimate or an interval may be any finite
    number, so only p-values are tried with those.
    """
    at %= len(names)
    if key != "p_value" and isinstance(value, float | int) and not isinstance(value, bool):
        value = str(value)
    best = [record(name) for name in names]
    missed = record(names[at], p_value=0.6, estimate=-0.05, ci=[-0.1, 0.2], status="fail")
    one_missed = [missed if place_ == at else one for place_, one in enumerate(best)]
    for found in (best, one_missed):
        ceiling = evidence_grade(found, thresholds_passed=True)
        damaged = [one | ({key: value} if place_ == at else {}) for place_, one in enumerate(found)]
        after = evidence_grade(damaged, thresholds_passed=True)
        assert GRADES.index(after) <= GRADES.index(ceiling)


def test_records_without_a_name_are_passed_over() -> None:
    """They can be no test; the others count."""
    assert grade([{"status": "pass", "p_value": 0.0}, *records(INCUMBENT)]) == "strong"
    assert grade([{}]) == "none"


ps = st.floats(0.0, 1.0)


@settings(deadline=None)
@given(
    names=st.sampled_from([INCUMBENT, FIRST]),
    p=st.lists(ps, min_size=4, max_size=4),
    estimates=st.lists(st.floats(-0.2, 0.2), min_size=4, max_size=4),
    at=st.integers(0, 3),
    better=ps,
    rise=st.floats(0.0, 0.2),
)
def test_better_numbers_never_lower_the_grade(
    names: tuple[str, ...], p: list[float], estimates: list[float], at: int, better: float, rise: float
) -> None:
    """A smaller p-value and a higher estimate with its interval never cost a level."""

    def at_level(p: list[float], estimates: list[float]) -> int:
        found = [
            record(name, p_value=one, estimate=level, ci=[level - 0.05, level + 0.05])
            for name, one, level in zip(names, p, estimates, strict=False)
        ]
        return GRADES.index(evidence_grade(found, thresholds_passed=True))

    smaller = [min(one, better) if place_ == at else one for place_, one in enumerate(p)]
    higher = [level + rise if place_ == at else level for place_, level in enumerate(estimates)]
    assert at_level(smaller, higher) >= at_level(p, estimates)


def test_the_grade_of_a_stored_checklist_follows_from_its_records() -> None:
    """Another grade written beside the records, or numbers of no size at all, do not promote it."""
    _, checklist = judged(made_rows(student=0.2, baseline=0.2), made_returns(), policy={"min_days": 1})
    assert checklist["recommendation"] != "PROMOTE"
    checklist["evidence"]["grade"] = "strong"
    for one in checklist["evidence"]["records"]:
        if one["name"] in INCUMBENT:
            one["p_value"] = -(10**400)
    assert rederive(checklist)[0] != "PROMOTE"
    assert canonical_json(checklist)
