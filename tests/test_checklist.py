"""The gate: the recommendation table, each threshold at and below its edge, and what never passes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqkit.checklist import (
    INSUFFICIENT_EVIDENCE,
    PROMOTE,
    REJECT,
    Adequacy,
    Policy,
    differences,
    exit_code,
    generate_promotion_checklist,
    metrics_from_elsewhere,
    parse_metrics,
    recommend,
    rederive,
)
from sqkit.errors import ChecklistInputError, UsageError
from sqkit.files import canonical_json
from sqkit.metrics import METRIC_KEYS
from sqkit.settings import Settings
from tests.graded import graded_records

GIVEN_CANDIDATE = {
    "precision_long": 0.712,
    "hit_ratio": 0.668,
    "accuracy": 0.687,
    "sharpe_ratio": 1.85,
    "total_return": 0.142,
    "max_drawdown": 0.083,
    "win_rate": 0.583,
}
GIVEN_BASELINE = {
    "precision_long": 0.685,
    "hit_ratio": 0.632,
    "accuracy": 0.654,
    "sharpe_ratio": 1.72,
    "total_return": 0.118,
    "max_drawdown": 0.091,
    "win_rate": 0.557,
}
ENOUGH = {"session_days": 60, "day_clusters": 40, "candidate_calls": 200, "baseline_calls": 200}
USER_SENTENCE = (
    "All validation criteria passed. Candidate model shows consistent improvement across accuracy and "
    "financial metrics."
)


def policy(**overrides: Any) -> Policy:
    """The default policy, without asking for evidence unless told."""
    return Policy.from_settings(Settings(_env_file=None), **{"min_evidence": "none"} | overrides)


def checklist(
    candidate: dict[str, Any] | None = None,
    baseline: dict[str, Any] | None = None,
    counts: dict[str, int] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A checklist of a validated model: the given metrics and enough data with changes, grade none."""
    values: dict[str, Any] = {
        "timestamp": "2025-01-12T15:30:00Z",
        "candidate_model": "data/models/20250112_143000/student/student_model.onnx",
        "baseline_model": "data/models/baseline/student_model.onnx",
        "start": "2024-07-01",
        "end": "2024-09-30",
        "symbols": ["RELIANCE", "TCS"],
        "candidate_metrics": GIVEN_CANDIDATE | (candidate or {}),
        "baseline_metrics": GIVEN_BASELINE | (baseline or {}),
        "policy": policy(),
        "adequacy": Adequacy(**ENOUGH | (counts or {})),
        "digests": {"model": "a" * 64, "predictions": "b" * 64},
    }
    return generate_promotion_checklist(**values | more)


def verdict(*arguments: Any, **more: Any) -> tuple[str, int]:
    """Recommendation and exit code of such a checklist."""
    made = checklist(*arguments, **more)
    assert made["recommendation"] == rederive(made)[0]
    return made["recommendation"], exit_code(made)


# --- the given example


def test_the_given_metrics_give_the_given_json() -> None:
    """Every key and value the user printed comes out of the metrics the user printed."""
    made = checklist()
    given = {
        "timestamp": "2025-01-12T15:30:00Z",
        "candidate_model": "data/models/20250112_143000/student/student_model.onnx",
        "baseline_model": "data/models/baseline/student_model.onnx",
        "validation_period": {"start": "2024-07-01", "end": "2024-09-30", "symbols": ["RELIANCE", "TCS"]},
        "candidate_metrics": GIVEN_CANDIDATE,
        "baseline_metrics": GIVEN_BASELINE,
        "deltas": {
            "precision_uplift": 0.027,
            "hit_ratio_uplift": 0.036,
            "sharpe_uplift": 0.076,
            "return_uplift": 0.024,
            "drawdown_improvement": -0.008,
            "win_rate_uplift": 0.026,
        },
        "validation_thresholds": {
            "min_precision_uplift": 0.02,
            "min_hit_ratio_uplift": 0.02,
            "min_sharpe_uplift": 0.05,
            "require_all_criteria": True,
        },
        "validation_results": {
            "precision_pass": True,
            "hit_ratio_pass": True,
            "sharpe_pass": True,
            "all_criteria_pass": True,
        },
        "recommendation": "PROMOTE",
        "reason": USER_SENTENCE,
    }
    ours = {"evidence", "integrity", "policy", "runtime", "digests", "verdict_reasons"}

    assert {name: made[name] for name in given} == given
    assert set(made) == set(given) | ours


def test_unrounded_deltas_and_the_grade_are_kept_as_evidence() -> None:
    """Stored deltas have three decimals; the unrounded ones stand under evidence, beside grade and records."""
    evidence = checklist()["evidence"]

    assert evidence["grade"] == "none"
    assert evidence["records"] == []
    assert evidence["deltas"]["sharpe_uplift"] == (1.85 - 1.72) / 1.72
    assert evidence["deltas"]["precision_uplift"] == 0.712 - 0.685


def test_the_checklist_is_strict_json_and_the_same_bytes_twice() -> None:
    """The checklist survives a round trip through canonical JSON and does not depend on anything else."""
    text = canonical_json(checklist())

    assert text == canonical_json(checklist())
    assert json.loads(text) == checklist()


def test_the_timestamp_is_stored_in_utc_and_needs_a_zone() -> None:
    """An instant in another zone is the same instant in UTC; one without a zone is refused."""
    assert checklist(timestamp="2025-01-12T21:00:00+05:30")["timestamp"] == "2025-01-12T15:30:00Z"
    for wrong in ("2025-01-12T15:30:00", "yesterday", ""):
        with pytest.raises(ChecklistInputError, match="zone"):
            checklist(timestamp=wrong)


# --- the table


def test_table_row_by_row_and_first_match_wins() -> None:
    """Integrity beats data, data beats thresholds, thresholds beat the grade; otherwise PROMOTE."""
    broken = {"integrity": [{"name": "time_order", "status": "fail", "blocking": True, "note": "overlap"}]}
    short = {"counts": {"session_days": 10, "day_clusters": 10}}
    missed = {"precision_long": 0.6}
    graded = {"policy": policy(min_evidence="moderate")}

    assert verdict(missed, **broken, **short, **graded) == (REJECT, 4)
    assert verdict(missed, **short, **graded) == (INSUFFICIENT_EVIDENCE, 3)
    assert verdict(missed, **graded) == (REJECT, 1)
    assert verdict(**graded) == (INSUFFICIENT_EVIDENCE, 3)
    assert verdict() == (PROMOTE, 0)


def test_every_finding_is_said_not_only_the_one_that_decides() -> None:
    """The reason names what decided; verdict_reasons also names what would have decided later."""
    made = checklist(
        {"precision_long": 0.697}, counts={"session_days": 41}, policy=policy(min_evidence="weak")
    )

    assert made["reason"].startswith("Too little data: 41 session days (at least 60)")
    said = " ".join(made["verdict_reasons"])
    assert "Precision uplift 1.2% < 2.0%, short by 0.8 points" in said
    assert "evidence grade none is below weak" in said


@pytest.mark.parametrize(
    ("status", "blocking", "expected"),
    [
        ("pass", True, (PROMOTE, 0)),
        ("fail", True, (REJECT, 4)),
        ("not_run", True, (REJECT, 4)),
        ("", True, (REJECT, 4)),
        ("fail", None, (REJECT, 4)),
        ("fail", False, (PROMOTE, 0)),
        ("not_run", False, (PROMOTE, 0)),
    ],
)
def test_a_blocking_item_passes_with_pass_only(status: str, blocking: Any, expected: tuple[str, int]) -> None:
    """Only ``pass`` passes a blocking item; an item is advisory only when it says so."""
    item = {"name": "parity", "status": status, "blocking": blocking, "note": ""}

    assert verdict(integrity=[item]) == expected


@pytest.mark.parametrize("name", sorted(ENOUGH))
def test_adequacy_at_and_just_below_each_count(name: str) -> None:
    """60 days, 40 day clusters and 200 calls of either side suffice; one less of any does not."""
    made = checklist(counts={name: ENOUGH[name] - 1})

    assert verdict() == (PROMOTE, 0)
    assert (made["recommendation"], exit_code(made)) == (INSUFFICIENT_EVIDENCE, 3)
    assert str(ENOUGH[name] - 1) in made["reason"]
    assert "would suffice" in made["reason"]


def test_what_would_suffice_scales_with_the_rate() -> None:
    """Half the calls in 60 days need 120 days or twice the symbols; no call at all cannot be scaled."""
    half = checklist(counts={"candidate_calls": 100})["reason"]
    silent = checklist(counts={"candidate_calls": 0})["reason"]

    assert "about 120 session days would suffice at this rate, or 2 times the symbols" in half
    assert "what would suffice cannot be estimated" in silent


def test_the_counts_asked_for_are_the_policys() -> None:
    """min_days and min_calls of the policy are used, in both directions."""
    strict, lax = policy(min_days=61, min_calls=200), policy(min_days=5, min_calls=10)
    little = {"session_days": 5, "candidate_calls": 10, "baseline_calls": 10}

    assert verdict(policy=strict) == (INSUFFICIENT_EVIDENCE, 3)
    assert verdict(policy=lax, counts=little) == (PROMOTE, 0)


def test_adequacy_is_waived_only_without_predictions() -> None:
    """Without counts and predictions the gate goes on; with predictions or a grade, counts must be there."""
    waived = checklist(adequacy=None, digests={})

    assert (waived["recommendation"], exit_code(waived)) == (PROMOTE, 0)
    assert any("adequacy is waived" in line for line in waived["verdict_reasons"])
    with pytest.raises(ChecklistInputError, match="adequacy"):
        checklist(adequacy=None)
    with pytest.raises(ChecklistInputError, match="adequacy"):
        checklist(adequacy=None, digests={}, evidence={"records": graded_records("strong")})
    with pytest.raises(ChecklistInputError, match="baseline_calls"):
        checklist(counts={"baseline_calls": -1})


def test_metrics_from_elsewhere_carry_no_evidence() -> None:
    """Under the default grade they are at best exit 3; a missed threshold is REJECT either way."""
    elsewhere: dict[str, Any] = {"adequacy": None, "digests": {}, "candidate_model": None}
    default = policy(min_evidence="moderate")

    assert verdict(**elsewhere, policy=default) == (INSUFFICIENT_EVIDENCE, 3)
    assert verdict({"hit_ratio": 0.64}, **elsewhere, policy=default) == (REJECT, 1)
    assert verdict({"hit_ratio": 0.64}, **elsewhere) == (REJECT, 1)
    assert verdict({"hit_ratio": None}, **elsewhere) == (INSUFFICIENT_EVIDENCE, 3)


@pytest.mark.parametrize("side", ["candidate", "baseline"])
@pytest.mark.parametrize("name", METRIC_KEYS)
@pytest.mark.parametrize("require_all", [True, False])
def test_an_undefined_metric_is_insufficient_evidence(side: str, name: str, require_all: bool) -> None:
    """Any of the seven undefined on either side gives exit 3 and says what would suffice."""
    made = checklist(
        **{side + "_metrics": (GIVEN_CANDIDATE if side == "candidate" else GIVEN_BASELINE) | {name: None}},
        policy=policy(require_all_criteria=require_all),
    )

    assert (made["recommendation"], exit_code(made)) == (INSUFFICIENT_EVIDENCE, 3)
    assert f"the {side}'s {name} is undefined".lower() in made["reason"].lower()
    assert "would suffice" in made["reason"]
    assert None in made["deltas"].values() or name == "accuracy"


@pytest.mark.parametrize("grade", ["none", "weak", "moderate", "strong"])
@pytest.mark.parametrize("asked", ["none", "weak", "moderate", "strong"])
def test_grade_against_the_policys(grade: str, asked: str) -> None:
    """A grade passes when it is at least the one asked for."""
    order = ["none", "weak", "moderate", "strong"]
    expected = (PROMOTE, 0) if order.index(grade) >= order.index(asked) else (INSUFFICIENT_EVIDENCE, 3)

    assert verdict(evidence={"records": graded_records(grade)}, policy=policy(min_evidence=asked)) == expected


def test_no_harm_rejects_by_status_or_by_interval() -> None:
    """An upper bound below zero, or a failed no-harm record, rejects; an undecided blocking one is exit 3."""
    below = {"name": "no_harm.precision", "kind": "blocking", "status": "pass", "ci": [-0.05, -0.001]}
    failed = {"name": "no_harm.sharpe", "kind": "blocking", "status": "fail", "ci": [None, None]}
    unknown = {"name": "no_harm.sharpe", "kind": "blocking", "status": "undefined", "ci": None}
    fine = {"name": "no_harm.precision", "kind": "blocking", "status": "pass", "ci": [-0.05, 0.02]}
    other = {"name": "sharpe_diff", "kind": "advisory", "status": "fail", "ci": [-0.05, -0.001]}

    def judged(*records: dict[str, Any]) -> tuple[str, int]:
        evidence = {"records": [*graded_records("strong"), *records]}
        return verdict(evidence=evidence, policy=policy(min_evidence="moderate"))

    assert judged(below) == (REJECT, 1)
    assert judged(failed) == (REJECT, 1)
    assert judged(unknown) == (INSUFFICIENT_EVIDENCE, 3)
    assert judged(fine, other) == (PROMOTE, 0)


# --- thresholds at their edges

EDGES = {
    "precision_long": (0.5, 0.02, "precision_pass"),
    "hit_ratio": (0.5, 0.02, "hit_ratio_pass"),
    "sharpe_ratio": (1.0, 0.05, "sharpe_pass"),
}


@pytest.mark.parametrize("name", sorted(EDGES))
@pytest.mark.parametrize(("off", "passes"), [(0.0, True), (-1e-9, False), (-0.3, False), (1e-9, True)])
def test_each_threshold_at_just_below_and_far_below(name: str, off: float, passes: bool) -> None:
    """A threshold passes when it is reached to the bit of rounding, and fails 1e-9 below it."""
    start, threshold, flag = EDGES[name]
    made = checklist({name: start + threshold + off}, {name: start})

    assert made["validation_results"][flag] is passes
    assert made["validation_results"]["all_criteria_pass"] is passes
    assert (made["recommendation"], exit_code(made)) == ((PROMOTE, 0) if passes else (REJECT, 1))
    assert passes or "short by" in made["reason"]


@pytest.mark.parametrize("baseline", [0.2499999999, 0.1, 0.0, -1.0])
@pytest.mark.parametrize(("off", "passes"), [(0.0, True), (-1e-9, False), (0.04, True)])
def test_a_low_baseline_sharpe_turns_the_criterion_absolute(
    baseline: float, off: float, passes: bool
) -> None:
    """Below 0.25 the uplift is null and the difference must reach 0.10, said in verdict_reasons."""
    made = checklist(
        {"sharpe_ratio": baseline + 0.10 + off}, {"sharpe_ratio": baseline}, policy=policy(min_sharpe=-5.0)
    )

    assert made["deltas"]["sharpe_uplift"] is None
    assert made["validation_results"]["sharpe_pass"] is passes
    assert any("relative uplift says nothing" in line for line in made["verdict_reasons"])
    assert (made["recommendation"] == PROMOTE) is passes


def test_at_a_baseline_sharpe_of_a_quarter_the_uplift_is_relative() -> None:
    """0.25 is high enough: the uplift is (c - b) / b."""
    made = checklist({"sharpe_ratio": 0.26}, {"sharpe_ratio": 0.25})

    assert made["deltas"]["sharpe_uplift"] == 0.04
    assert made["validation_results"]["sharpe_pass"] is False


@pytest.mark.parametrize(
    ("minimum", "expected"), [(1.85, (PROMOTE, 0)), (1.85 + 1e-9, (REJECT, 1)), (3.0, (REJECT, 1))]
)
@pytest.mark.parametrize("require_all", [True, False])
def test_the_candidates_own_sharpe(minimum: float, expected: tuple[str, int], require_all: bool) -> None:
    """promotion_min_sharpe must be reached whatever the criteria say."""
    assert verdict(policy=policy(min_sharpe=minimum, require_all_criteria=require_all)) == expected


def test_a_losing_candidate_is_rejected_however_bad_the_baseline() -> None:
    """A Sharpe ratio below zero misses the default minimum although it beats the baseline."""
    assert verdict({"sharpe_ratio": -0.5}, {"sharpe_ratio": -2.0}) == (REJECT, 1)


@pytest.mark.parametrize(
    ("missed", "all_required", "one_suffices"),
    [
        ({}, PROMOTE, PROMOTE),
        ({"precision_long": 0.6}, REJECT, PROMOTE),
        ({"precision_long": 0.6, "hit_ratio": 0.6}, REJECT, PROMOTE),
        ({"precision_long": 0.6, "hit_ratio": 0.6, "sharpe_ratio": 1.0}, REJECT, REJECT),
    ],
)
def test_require_all_criteria(missed: dict[str, float], all_required: str, one_suffices: str) -> None:
    """With the flag every criterion must pass, without it one; all_criteria_pass stays the plain AND."""
    for flag, expected in ((True, all_required), (False, one_suffices)):
        made = checklist(missed, policy=policy(require_all_criteria=flag))
        assert made["recommendation"] == expected
        assert made["validation_results"]["all_criteria_pass"] is (not missed)
        assert (made["reason"] == USER_SENTENCE) is (not missed)


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("min_precision_uplift", 0.03),
        ("min_hit_ratio_uplift", 0.04),
        ("min_sharpe_uplift", 0.08),
        ("min_sharpe", 2.0),
    ],
)
def test_each_flag_overrides_its_setting(flag: str, value: float) -> None:
    """A stricter flag turns the given example into REJECT; None leaves the setting."""
    assert verdict(policy=policy(**{flag: value})) == (REJECT, 1)
    assert verdict(policy=policy(**{flag: None})) == (PROMOTE, 0)
    assert getattr(policy(**{flag: value}), flag) == value


def test_the_absolute_sharpe_flag() -> None:
    """min_sharpe_uplift_absolute is used where the baseline's Sharpe is low."""
    sharpes: tuple[dict[str, Any], dict[str, Any]] = ({"sharpe_ratio": 0.3}, {"sharpe_ratio": 0.1})

    assert verdict(*sharpes) == (PROMOTE, 0)
    assert verdict(*sharpes, policy=policy(min_sharpe_uplift_absolute=0.21)) == (REJECT, 1)


# --- what never passes

odd = st.sampled_from([float("nan"), float("inf"), float("-inf"), np.float64("nan"), np.float32("inf")])


@settings(deadline=None)
@given(
    side=st.sampled_from(["candidate_metrics", "baseline_metrics"]),
    name=st.sampled_from(METRIC_KEYS),
    value=odd,
)
def test_a_metric_that_is_not_finite_never_promotes(side: str, name: str, value: float) -> None:
    """NaN and infinity in any metric are refused with exit 2, by the gate and by its inner rule alike."""
    metrics = {"candidate_metrics": GIVEN_CANDIDATE, "baseline_metrics": GIVEN_BASELINE}
    metrics[side] = metrics[side] | {name: value}

    with pytest.raises(ChecklistInputError, match=name) as refusal:
        checklist(**metrics)
    assert refusal.value.exit_code == 2
    with pytest.raises(ChecklistInputError, match=name):
        recommend(
            candidate=metrics["candidate_metrics"],
            baseline=metrics["baseline_metrics"],
            policy=policy(),
            adequacy=None,
            integrity=[],
            grade="none",
        )


@settings(deadline=None)
@given(
    name=st.sampled_from(
        [
            "min_precision_uplift",
            "min_hit_ratio_uplift",
            "min_sharpe_uplift",
            "min_sharpe_uplift_absolute",
            "min_sharpe",
            "min_days",
            "min_calls",
            "min_day_clusters",
            "relative_sharpe_floor",
        ]
    ),
    value=odd,
)
def test_a_threshold_that_is_not_finite_is_refused(name: str, value: float) -> None:
    """A policy with a NaN or infinite threshold cannot be built."""
    with pytest.raises(UsageError, match=name):
        policy(**{name: value})


def test_numbers_too_large_to_subtract_are_undefined() -> None:
    """Two finite Sharpe ratios whose difference or quotient overflows give exit 3, not a pass."""
    assert verdict({"sharpe_ratio": 1.7e308}, {"sharpe_ratio": -1.7e308}) == (INSUFFICIENT_EVIDENCE, 3)
    assert verdict({"sharpe_ratio": 1.7e308}, {"sharpe_ratio": 0.3}) == (INSUFFICIENT_EVIDENCE, 3)


@settings(deadline=None)
@given(value=odd, place=st.sampled_from(["runtime", "digests", "evidence", "integrity"]))
def test_nothing_in_a_checklist_is_not_finite(value: float, place: str) -> None:
    """A NaN anywhere else is refused with the place that holds it."""
    item = {"name": "no_harm.x", "status": "pass", "blocking": True, "note": "", "estimate": value}
    given_ = {
        "runtime": {"estimate": value},
        "digests": {"estimate": value},
        "evidence": {"grade": "none", "records": [item]},
        "integrity": [item],
    }

    with pytest.raises(ChecklistInputError, match="estimate"):
        checklist(**{place: given_[place]})


share = st.floats(0.0, 1.0)
sharpe = st.one_of(st.floats(-5.0, 5.0), st.floats(allow_nan=False, allow_infinity=False))
side_metrics = st.fixed_dictionaries(
    {
        "precision_long": share,
        "hit_ratio": share,
        "accuracy": share,
        "sharpe_ratio": sharpe,
        "total_return": st.floats(-1.0, 10.0),
        "max_drawdown": share,
        "win_rate": share,
    }
)


@settings(deadline=None)
@given(
    candidate=side_metrics,
    baseline=side_metrics,
    rise=st.floats(0.0, 1.0),
    require_all=st.booleans(),
    name=st.sampled_from(
        ["precision_long", "hit_ratio", "accuracy", "sharpe_ratio", "total_return", "win_rate"]
    ),
)
def test_a_better_candidate_never_falls_from_promote_to_reject(
    candidate: dict[str, float], baseline: dict[str, float], rise: float, require_all: bool, name: str
) -> None:
    """Raising one of the candidate's metrics never turns PROMOTE into REJECT."""
    asked = policy(require_all_criteria=require_all)
    raised = candidate[name] + rise
    better = candidate | {name: raised if name in ("sharpe_ratio", "total_return") else min(raised, 1.0)}
    before = checklist(candidate, baseline, policy=asked)["recommendation"]
    after = checklist(better, baseline, policy=asked)["recommendation"]

    assert not (before == PROMOTE and after == REJECT)


@settings(deadline=None)
@given(candidate=side_metrics, baseline=side_metrics, require_all=st.booleans())
def test_promote_means_what_it_says(
    candidate: dict[str, float], baseline: dict[str, float], require_all: bool
) -> None:
    """The recommendation follows from the flags and the candidate's Sharpe as the table says."""
    made = checklist(candidate, baseline, policy=policy(require_all_criteria=require_all))
    flags = [made["validation_results"][f"{name}_pass"] for name in ("precision", "hit_ratio", "sharpe")]

    if made["recommendation"] == PROMOTE:
        assert all(flags) if require_all else any(flags)
        assert candidate["sharpe_ratio"] >= -1e-12
    assert made["validation_results"]["all_criteria_pass"] == all(flags)
    assert differences(json.loads(canonical_json(made))) == []


# --- derived again from the file


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("recommendation",), PROMOTE),
        (("reason",), USER_SENTENCE),
        (("validation_results", "precision_pass"), True),
        (("deltas", "precision_uplift"), 0.03),
        (("validation_thresholds", "min_precision_uplift"), 0.001),
        (("evidence", "deltas", "precision_uplift"), 0.03),
        (("verdict_reasons",), []),
    ],
)
def test_an_edited_conclusion_is_found_and_changes_nothing(path: tuple[str, ...], value: Any) -> None:
    """Whatever a stored checklist says of itself, the derived verdict stays, and the edit is named."""
    stored = json.loads(canonical_json(checklist({"precision_long": 0.69})))
    part = stored
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = value

    assert rederive(stored)[:2] == (REJECT, 1)
    assert len(differences(stored)) == 1
    assert (path[0] if path[0] != "evidence" else "evidence_deltas") in differences(stored)[0]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("candidate_metrics", "hit_ratio"), float("nan")),
        (("policy", "min_sharpe_uplift"), None),
        (("policy", "min_precision_uplift"), float("-inf")),
        (("policy", "min_evidence"), "any"),
        (("evidence", "grade"), "superb"),
        (("evidence", "adequacy", "session_days"), -1),
        (("evidence", "records"), None),
        (("integrity",), [{"name": "parity"}]),
        (("baseline_metrics",), []),
        (("digests",), None),
    ],
)
def test_a_damaged_checklist_is_refused(path: tuple[str, ...], value: Any) -> None:
    """A stored checklist with a part that cannot be used is refused with one line, never judged."""
    stored = json.loads(canonical_json(checklist()))
    part = stored
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = value

    with pytest.raises(ChecklistInputError) as refusal:
        rederive(stored)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "name", ["candidate_metrics", "baseline_metrics", "evidence", "integrity", "policy", "digests"]
)
def test_a_checklist_without_a_part_is_refused(name: str) -> None:
    """Every input of the decision must be there."""
    stored = checklist()
    del stored[name]

    with pytest.raises(ChecklistInputError, match=name):
        rederive(stored)


def test_adequacy_cannot_be_deleted_from_a_stored_checklist() -> None:
    """Removing the counts does not waive them while predictions are named."""
    stored = checklist(counts={"session_days": 3})
    del stored["evidence"]["adequacy"]

    with pytest.raises(ChecklistInputError, match="adequacy"):
        rederive(stored)


def test_the_policy_survives_its_dict() -> None:
    """A stored policy gives the same policy; an unknown or missing threshold is refused."""
    stored = json.loads(json.dumps(policy().to_dict()))

    assert Policy.from_dict(stored) == policy()
    with pytest.raises(ChecklistInputError, match="min_luck"):
        Policy.from_dict(stored | {"min_luck": 1})
    with pytest.raises(ChecklistInputError, match="min_days"):
        Policy.from_dict({name: value for name, value in stored.items() if name != "min_days"})
    with pytest.raises(UsageError, match="min_luck"):
        policy(min_luck=1.0)


# --- metrics from elsewhere


def test_metrics_from_json_text() -> None:
    """Seven finite numbers or nulls are read; whole numbers too."""
    text = json.dumps(GIVEN_CANDIDATE | {"win_rate": None, "sharpe_ratio": 2})

    assert parse_metrics(text, "C.json") == GIVEN_CANDIDATE | {"win_rate": None, "sharpe_ratio": 2.0}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "strict JSON"),
        ("[1, 2]", "give an object"),
        ("{", "strict JSON"),
        (json.dumps(GIVEN_CANDIDATE | {"hit_ratio": float("nan")}), "NaN"),
        (json.dumps(GIVEN_CANDIDATE | {"hit_ratio": float("inf")}), "Infinity"),
        (json.dumps(GIVEN_CANDIDATE).replace("1.85", "1e999"), "sharpe_ratio"),
        (json.dumps(GIVEN_CANDIDATE).replace("1.85", "1" + "0" * 400), "sharpe_ratio"),
        (json.dumps(GIVEN_CANDIDATE).replace("1.85", '"1.85"'), "sharpe_ratio"),
        (json.dumps(GIVEN_CANDIDATE).replace("1.85", "true"), "sharpe_ratio"),
        (json.dumps(GIVEN_CANDIDATE | {"luck": 1.0}), "unknown luck"),
        (json.dumps({name: GIVEN_CANDIDATE[name] for name in METRIC_KEYS[1:]}), "missing precision_long"),
        (json.dumps(GIVEN_CANDIDATE).replace("{", '{"accuracy": 0.9, ', 1), "accuracy is given twice"),
        (json.dumps(GIVEN_CANDIDATE | {"hit_ratio": 66.8}), "hit_ratio"),
        (json.dumps(GIVEN_CANDIDATE | {"max_drawdown": -0.083}), "positive fraction"),
    ],
)
def test_bad_metrics_are_refused_in_one_line(text: str, says: str) -> None:
    """Missing and unknown keys, NaN, text for a number, percent for a share: exit 2, naming file and key."""
    with pytest.raises(ChecklistInputError, match=says) as refusal:
        parse_metrics(text, "C.json")
    assert str(refusal.value).startswith("C.json: ")
    assert "\n" not in str(refusal.value)
    assert refusal.value.exit_code == 2


def test_both_sides_are_checked() -> None:
    """The side with the fault is named."""
    with pytest.raises(ChecklistInputError, match="baseline metrics: missing win_rate"):
        metrics_from_elsewhere(GIVEN_CANDIDATE, {name: GIVEN_BASELINE[name] for name in METRIC_KEYS[:-1]})
    assert metrics_from_elsewhere(GIVEN_CANDIDATE, GIVEN_BASELINE) == (GIVEN_CANDIDATE, GIVEN_BASELINE)
