"""Every threshold at, just below and far below its edge: by the gate, by each flag, by each setting.

The recommendation table of the design is written out once more here, as `by_the_table`, and everything is
held against it: verdict and exit code follow from it and from nothing else.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqkit.checklist import Adequacy, Policy, exit_code, generate_promotion_checklist, rederive
from sqkit.cli import main
from sqkit.errors import ChecklistInputError
from sqkit.metrics import METRIC_KEYS
from sqkit.research.decision import decide
from sqkit.research.evidence_records import evidence_record
from sqkit.research.run_policy import policy_with
from sqkit.settings import GRADES, Settings
from tests.graded import graded_records
from tests.market import DECIDED_AT, policy_of

Metrics = dict[str, float | None]

BASELINE: Metrics = dict(zip(METRIC_KEYS, (0.5, 0.5, 0.5, 1.0, 0.1, 0.1, 0.5), strict=True))
CANDIDATE: Metrics = dict(zip(METRIC_KEYS, (0.6, 0.6, 0.6, 2.0, 0.2, 0.1, 0.6), strict=True))
ENOUGH = {"session_days": 63, "day_clusters": 60, "candidate_calls": 400, "baseline_calls": 400}
INSIDE_ROUNDING, JUST, FAR = 1e-13, 1e-9, 0.3
EDGE = [(0.0, True), (JUST, True), (-INSIDE_ROUNDING, True), (-JUST, False), (-FAR, False)]
PROMOTE, REJECT, INSUFFICIENT = ("PROMOTE", 0), ("REJECT", 1), ("INSUFFICIENT_EVIDENCE", 3)


def policy(**changes: Any) -> Policy:
    """The default policy, without asking for evidence unless told."""
    return Policy.from_settings(Settings(_env_file=None), **{"min_evidence": "none"} | changes)


def gate(
    candidate: Metrics | None = None,
    baseline: Metrics | None = None,
    *,
    asked: Policy | None = None,
    counts: dict[str, int] | None = ENOUGH,
    grade: str = "none",
    upper: float | None = 0.1,
) -> dict[str, Any]:
    """A checklist; `upper` is the upper bound of a no-harm record, None leaves it undefined."""
    record = evidence_record(
        "no_harm.sharpe",
        kind="blocking",
        status="undefined" if upper is None else "fail" if upper < 0.0 else "pass",
        method="by hand",
        ci=None if upper is None else [-5.0, upper],
    )
    return generate_promotion_checklist(
        timestamp=DECIDED_AT,
        candidate_model="a.onnx",
        baseline_model="b.onnx",
        start=None,
        end=None,
        symbols=None,
        candidate_metrics=CANDIDATE | (candidate or {}),
        baseline_metrics=BASELINE | (baseline or {}),
        policy=asked or policy(),
        adequacy=None if counts is None else Adequacy(**ENOUGH | counts),
        evidence={"records": [] if counts is None else [record, *graded_records(grade)]},
        digests={} if counts is None else {"predictions": "b" * 64},
    )


def verdict(*arguments: Any, **more: Any) -> tuple[str, int]:
    """Recommendation and exit code, as made and as derived again."""
    made = gate(*arguments, **more)
    assert rederive(made)[:2] == (made["recommendation"], exit_code(made))
    return made["recommendation"], exit_code(made)


def by_the_table(
    candidate: Metrics,
    baseline: Metrics,
    asked: Policy,
    counts: dict[str, int],
    grade: str,
    upper: float | None,
) -> tuple[str, int]:
    """The design's table without integrity, first match wins; written from its text."""
    numbers = [*candidate.values(), *baseline.values()]
    short = (
        counts["session_days"] < asked.min_days
        or counts["day_clusters"] < 40
        or min(counts["candidate_calls"], counts["baseline_calls"]) < asked.min_calls
    )
    if short or upper is None or any(number is None for number in numbers):
        return INSUFFICIENT
    c, b = candidate, baseline
    uplift = c["sharpe_ratio"] - b["sharpe_ratio"]  # type: ignore[operator]
    if b["sharpe_ratio"] >= 0.25:  # type: ignore[operator]
        sharpe = uplift / b["sharpe_ratio"] >= asked.min_sharpe_uplift - 1e-12
    else:
        sharpe = uplift >= asked.min_sharpe_uplift_absolute - 1e-12
    passed = [
        c["precision_long"] - b["precision_long"] >= asked.min_precision_uplift - 1e-12,  # type: ignore[operator]
        c["hit_ratio"] - b["hit_ratio"] >= asked.min_hit_ratio_uplift - 1e-12,  # type: ignore[operator]
        sharpe,
    ]
    enough = all(passed) if asked.require_all_criteria else any(passed)
    if not enough or upper < 0.0 or c["sharpe_ratio"] < asked.min_sharpe - 1e-12:  # type: ignore[operator]
        return REJECT
    return INSUFFICIENT if GRADES.index(grade) < GRADES.index(asked.min_evidence) else PROMOTE


offs = st.sampled_from([0.0, 1e-9, -1e-13, -1e-9, -0.3, 0.3, None])
reference = st.sampled_from([-1.0, 0.0, 0.24, 0.25 - 1e-12, 0.25, 1.0])


@settings(max_examples=400, deadline=None)
@given(
    off=st.tuples(offs, offs, offs),
    sharpe=reference,
    changes=st.fixed_dictionaries(
        {
            "require_all_criteria": st.booleans(),
            "min_evidence": st.sampled_from(GRADES),
            "min_sharpe": st.sampled_from([-5.0, 0.0, 1.05, 1.05 + 1e-9, 9.0]),
            "min_precision_uplift": st.sampled_from([0.02, 0.0, -0.1, 0.35]),
            "min_days": st.sampled_from([0, 63, 64]),
            "min_calls": st.sampled_from([0, 400, 401]),
        }
    ),
    clusters=st.sampled_from([40, 39, 63, 0]),
    grade=st.sampled_from(GRADES),
    upper=st.sampled_from([0.5, 0.0, -1e-9, None]),
)
def test_the_gate_is_the_table(
    off: tuple[float | None, ...],
    sharpe: float,
    changes: dict[str, Any],
    clusters: int,
    grade: str,
    upper: float | None,
) -> None:
    """Any combination of edges gives the verdict and the exit code of the table."""
    asked = policy(**changes)
    precision, hit_ratio, ratio = off
    wanted = sharpe * (1 + asked.min_sharpe_uplift) if sharpe >= 0.25 else sharpe + 0.10
    candidate: Metrics = CANDIDATE | {
        "precision_long": None if precision is None else 0.5 + asked.min_precision_uplift + precision / 3,
        "hit_ratio": None if hit_ratio is None else 0.52 + hit_ratio,
        "sharpe_ratio": None if ratio is None else wanted + ratio,
    }
    baseline: Metrics = BASELINE | {"sharpe_ratio": sharpe}
    counts = ENOUGH | {"day_clusters": clusters}
    assert verdict(candidate, baseline, asked=asked, counts=counts, grade=grade, upper=upper) == by_the_table(
        candidate, baseline, asked, counts, grade, upper
    )


# --- each threshold alone

ALONE: dict[str, tuple[Callable[[float], tuple[Metrics, Metrics]], dict[str, Any]]] = {
    "precision": (lambda off: ({"precision_long": 0.52 + off}, {}), {}),
    "hit ratio": (lambda off: ({"hit_ratio": 0.52 + off}, {}), {}),
    "Sharpe, relative": (lambda off: ({"sharpe_ratio": 1.05 + off}, {}), {}),
    "Sharpe, relative, at the floor": (
        lambda off: ({"sharpe_ratio": 0.25 * (1.05 + off)}, {"sharpe_ratio": 0.25}),
        {"min_sharpe": -5.0},
    ),
    "Sharpe, below the floor": (
        lambda off: ({"sharpe_ratio": 0.34 + off}, {"sharpe_ratio": 0.24}),
        {"min_sharpe": -5.0},
    ),
    "Sharpe, baseline at zero": (
        lambda off: ({"sharpe_ratio": 0.10 + off}, {"sharpe_ratio": 0.0}),
        {"min_sharpe": -5.0},
    ),
    "Sharpe, losing baseline": (
        lambda off: ({"sharpe_ratio": -0.90 + off}, {"sharpe_ratio": -1.0}),
        {"min_sharpe": -5.0},
    ),
    "the candidate's own Sharpe": (
        lambda off: ({"sharpe_ratio": off}, {"sharpe_ratio": -2.0}),
        {},
    ),
    "the candidate's own Sharpe, asked for": (
        lambda off: ({"sharpe_ratio": 1.5 + off}, {}),
        {"min_sharpe": 1.5},
    ),
    "thresholds of zero": (
        lambda off: ({"precision_long": 0.5 + off}, {}),
        {"min_precision_uplift": 0.0},
    ),
    "a threshold below zero": (
        lambda off: ({"hit_ratio": 0.45 + off}, {}),
        {"min_hit_ratio_uplift": -0.05},
    ),
}


@pytest.mark.parametrize("name", ALONE)
@pytest.mark.parametrize(("off", "passes"), EDGE)
def test_each_threshold_at_just_below_and_far_below(name: str, off: float, passes: bool) -> None:
    """Everything else passes: PROMOTE at the edge and within rounding, REJECT 1e-9 below it and far below."""
    made_of, changes = ALONE[name]
    made = gate(*made_of(off), asked=policy(**changes))
    assert (made["recommendation"], exit_code(made)) == (PROMOTE if passes else REJECT)
    assert passes or "short by" in made["reason"]
    assert made["validation_results"]["all_criteria_pass"] is (passes or "own Sharpe" in name)


@pytest.mark.parametrize("name", ALONE)
@pytest.mark.parametrize(("off", "passes"), EDGE)
def test_one_missed_criterion_of_three_where_one_suffices(name: str, off: float, passes: bool) -> None:
    """require_all_criteria=False: two criteria still pass, so PROMOTE; the own Sharpe ratio is no criterion."""
    made_of, changes = ALONE[name]
    expected = PROMOTE if passes or "own Sharpe" not in name else REJECT
    assert verdict(*made_of(off), asked=policy(require_all_criteria=False, **changes)) == expected


@pytest.mark.parametrize("passing", range(8))
@pytest.mark.parametrize("require_all", [True, False])
def test_every_combination_of_criteria(passing: int, require_all: bool) -> None:
    """All three, or where one suffices any of them; none is REJECT either way."""
    reached = [bool(passing & bit) for bit in (1, 2, 4)]
    names = ("precision_long", "hit_ratio", "sharpe_ratio")
    candidate: Metrics = {
        name: value if passed else value - JUST
        for name, value, passed in zip(names, (0.52, 0.52, 1.05), reached, strict=True)
    }
    made = gate(candidate, asked=policy(require_all_criteria=require_all))
    enough = all(reached) if require_all else any(reached)
    assert (made["recommendation"], exit_code(made)) == (PROMOTE if enough else REJECT)
    assert made["validation_results"]["all_criteria_pass"] is all(reached)


@pytest.mark.parametrize(
    ("sharpe", "relative"), [(0.25, True), (0.25 - 1e-12, False), (0.0, False), (-1.0, False), (0.26, True)]
)
def test_a_null_sharpe_uplift_is_not_undefined(sharpe: float, relative: bool) -> None:
    """Below 0.25 the difference is judged instead: nothing is undefined, nothing passes for it alone."""
    asked = policy(min_sharpe=-5.0)
    high, low = ({"sharpe_ratio": sharpe + 0.2}, {"sharpe_ratio": sharpe + 0.001})
    made = gate(high, {"sharpe_ratio": sharpe}, asked=asked)
    assert (made["deltas"]["sharpe_uplift"] is not None) is relative
    assert (made["recommendation"], exit_code(made)) == PROMOTE
    assert not any("undefined" in line for line in made["verdict_reasons"])
    assert verdict(low, {"sharpe_ratio": sharpe}, asked=asked) == REJECT


# --- counts and grades

COUNTS = {"session_days": "min_days", "day_clusters": "min_day_clusters"} | dict.fromkeys(
    ("candidate_calls", "baseline_calls"), "min_calls"
)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize(
    ("off", "expected"), [(0, PROMOTE), (1, PROMOTE), (-1, INSUFFICIENT), (-39, INSUFFICIENT)]
)
@pytest.mark.parametrize("missed", [False, True])
def test_each_count_at_just_below_and_far_below(
    count: str, off: int, expected: tuple[str, int], missed: bool
) -> None:
    """Too little data is exit 3, before and whatever the thresholds say."""
    asked = policy()
    counts = {count: getattr(asked, COUNTS[count]) + off}
    candidate: Metrics = {"precision_long": 0.1} if missed else {}
    assert verdict(candidate, counts=counts, asked=asked) == (
        REJECT if missed and expected == PROMOTE else expected
    )


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("least", [0, 7])
def test_each_count_is_the_policys(count: str, least: int) -> None:
    """Asked for less, less is enough; one less than that is not."""
    asked = policy(**{COUNTS[count]: least})
    assert verdict(counts={count: least}, asked=asked) == PROMOTE
    if least:
        assert verdict(counts={count: least - 1}, asked=asked) == INSUFFICIENT


@pytest.mark.parametrize("asked", GRADES)
@pytest.mark.parametrize("grade", GRADES)
@pytest.mark.parametrize("missed", [False, True])
def test_each_grade_against_each_asked_for(asked: str, grade: str, missed: bool) -> None:
    """A grade below what is asked for is exit 3, but a missed threshold is REJECT with any grade."""
    enough = GRADES.index(grade) >= GRADES.index(asked)
    candidate: Metrics = {"hit_ratio": 0.51} if missed else {}
    expected = REJECT if missed else PROMOTE if enough else INSUFFICIENT
    assert verdict(candidate, grade=grade, asked=policy(min_evidence=asked)) == expected


# --- what is not a number


@pytest.mark.parametrize("side", ["candidate", "baseline"])
@pytest.mark.parametrize("name", METRIC_KEYS)
@pytest.mark.parametrize("require_all", [True, False])
@pytest.mark.parametrize("missed", [False, True])
def test_none_in_each_metric(side: str, name: str, require_all: bool, missed: bool) -> None:
    """Undefined is exit 3, with or without a missed threshold beside it."""
    metrics: dict[str, Metrics] = {"candidate": {"precision_long": 0.3} if missed else {}, "baseline": {}}
    metrics[side] = metrics[side] | {name: None}
    asked = policy(require_all_criteria=require_all)
    assert verdict(metrics["candidate"], metrics["baseline"], asked=asked, grade="strong") == INSUFFICIENT


@pytest.mark.parametrize("side", ["candidate", "baseline"])
@pytest.mark.parametrize("name", METRIC_KEYS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), "0.7", True])
def test_nan_in_each_metric(side: str, name: str, value: Any) -> None:
    """What is no finite number is refused with exit 2 and its name; no checklist comes of it."""
    metrics: dict[str, Metrics] = {"candidate": {}, "baseline": {}}
    metrics[side] = {name: value}
    with pytest.raises(ChecklistInputError, match=f"{side} metrics: {name}") as refusal:
        gate(metrics["candidate"], metrics["baseline"])
    assert refusal.value.exit_code == 2


def test_metrics_from_elsewhere_carry_no_evidence() -> None:
    """Without predictions: exit 3 at best, REJECT where a threshold is missed, PROMOTE where none is asked."""
    for asked in GRADES:
        expected = PROMOTE if asked == "none" else INSUFFICIENT
        assert verdict(asked=policy(min_evidence=asked), counts=None) == expected
        missed: Metrics = {"precision_long": 0.51}
        assert verdict(missed, asked=policy(min_evidence=asked), counts=None) == REJECT
        assert verdict({"win_rate": None}, asked=policy(min_evidence=asked), counts=None) == INSUFFICIENT


# --- the command, each flag and each setting


class Outside:
    """``sqkit checklist`` on metrics from elsewhere, in this process."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch
        for name in list(os.environ):
            if name.startswith("SENSEQUANT_"):
                monkeypatch.delenv(name)
        monkeypatch.setenv("SOURCE_DATE_EPOCH", "1577836800")
        monkeypatch.chdir(folder)

    def run(self, *flags: str, candidate: Metrics | None = None, baseline: Metrics | None = None) -> int:
        """The exit code; 0, 1 and 3 leave a checklist that says the same."""
        (self.folder / "c.json").write_text(json.dumps(CANDIDATE | (candidate or {})))
        (self.folder / "b.json").write_text(json.dumps(BASELINE | (baseline or {})))
        command = ["checklist", "--candidate-metrics", "c.json", "--baseline-metrics", "b.json"]
        with pytest.raises(SystemExit) as leaving:
            main([*command, "--output-dir", "out", *flags])
        assert isinstance(leaving.value.code, int)
        if leaving.value.code != 2:
            assert exit_code(self.stored()) == leaving.value.code
        return leaving.value.code

    def stored(self) -> dict[str, Any]:
        """The checklist that was written."""
        text = (self.folder / "out" / "promotion_checklist.json").read_text(encoding="utf-8")
        return json.loads(text)  # type: ignore[no-any-return]

    def set(self, name: str, value: str) -> None:
        """A setting from the environment."""
        self.monkeypatch.setenv(f"SENSEQUANT_PROMOTION_{name.upper()}", value)


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Outside:
    """The command in an empty folder, without settings of the caller's."""
    return Outside(tmp_path, monkeypatch)


# flag, setting, and what the metrics above reach: .1, .1 and 1 (from Sharpe 1 to 2)
FLAGS = {
    "--precision-uplift-threshold": ("min_precision_uplift", 0.6 - 0.5),
    "--hit-ratio-uplift-threshold": ("min_hit_ratio_uplift", 0.6 - 0.5),
    "--sharpe-uplift-threshold": ("min_sharpe_uplift", 1.0),
}
AROUND = [(0.0, 0), (INSIDE_ROUNDING, 0), (-0.2, 0), (JUST, 1), (0.3, 1)]


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize(("off", "code"), AROUND)
def test_each_flag(outside: Outside, flag: str, off: float, code: int) -> None:
    """A threshold at what is reached passes, 1e-9 above it is REJECT; without evidence a pass is exit 3."""
    name, reached = FLAGS[flag]
    words = (flag, repr(reached + off))
    assert outside.run(*words) == (1 if code else 3)
    assert outside.stored()["validation_thresholds"][name] == reached + off
    outside.set("min_evidence", "none")
    assert outside.run(*words) == code
    others = {other for other, _ in FLAGS.values()} - {name}
    stored = outside.stored()["policy"]
    assert {other: stored[other] for other in others} == {other: getattr(policy(), other) for other in others}


@pytest.mark.parametrize("flag", FLAGS)
def test_a_flag_wins_over_its_setting(outside: Outside, flag: str) -> None:
    """In both directions, and only over its own."""
    name, reached = FLAGS[flag]
    outside.set("min_evidence", "none")
    outside.set(name, repr(reached + 0.1))
    assert outside.run() == 1
    assert outside.run(flag, repr(reached)) == 0
    outside.set(name, repr(reached))
    assert outside.run() == 0
    assert outside.run(flag, repr(reached + JUST)) == 1


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "much", ""])
def test_a_flag_that_is_no_threshold(
    outside: Outside, flag: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 2, one line, nothing written."""
    assert outside.run(f"{flag}={value}") == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (outside.folder / "out").exists()


SETTINGS: dict[str, tuple[str, str, Metrics, Metrics]] = {
    "min_sharpe": ("2.0", "2.000000001", {}, {}),
    "min_sharpe_uplift_absolute": ("0.4", "0.400000001", {"sharpe_ratio": 0.5}, {"sharpe_ratio": 0.1}),
    "require_all_criteria": ("false", "true", {"hit_ratio": 0.5}, {}),
    "min_precision_uplift": ("0.0", "0.2", {}, {}),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_each_setting(outside: Outside, name: str) -> None:
    """At its edge the metrics pass, beyond it they are REJECT, whatever evidence is asked for."""
    passing, failing, candidate, baseline = SETTINGS[name]
    for evidence, code in (("none", 0), ("moderate", 3)):
        outside.set("min_evidence", evidence)
        outside.set(name, passing)
        assert outside.run(candidate=candidate, baseline=baseline) == code
        outside.set(name, failing)
        assert outside.run(candidate=candidate, baseline=baseline) == 1


@pytest.mark.parametrize("name", METRIC_KEYS)
def test_null_and_nan_in_a_file(outside: Outside, name: str) -> None:
    """null is undefined, exit 3 whatever is asked; NaN is no JSON, exit 2 and no checklist."""
    outside.set("min_evidence", "none")
    assert outside.run(candidate={name: float("nan")}) == 2
    assert outside.run(baseline={name: float("inf")}) == 2
    assert not (outside.folder / "out").exists()
    assert outside.run(candidate={name: None}) == 3
    assert outside.run(baseline={name: None}) == 3
    assert outside.run() == 0


# --- a real validation


def reached_by(validated: Path, tmp_path: Path) -> dict[str, float]:
    """Unrounded uplifts and Sharpe ratio of the stored validation."""
    made = decide(validated, tmp_path / "reached", policy_of(min_evidence="none"), DECIDED_AT)
    assert (made["recommendation"], exit_code(made)) == PROMOTE
    deltas = made["evidence"]["deltas"]
    return {
        "min_precision_uplift": deltas["precision_uplift"],
        "min_hit_ratio_uplift": deltas["hit_ratio_uplift"],
        "min_sharpe_uplift": deltas["sharpe_uplift"],
        "min_sharpe": made["candidate_metrics"]["sharpe_ratio"],
    }


@pytest.mark.slow
def test_a_stored_validation_at_each_threshold(validated: Path, tmp_path: Path) -> None:
    """Judged by exactly what it reached it passes; 1e-9 more is REJECT; evidence that is too weak exit 3."""
    for name, reached in reached_by(validated, tmp_path).items():
        for off, evidence, expected in (
            (0.0, "none", PROMOTE),
            (JUST, "none", REJECT),
            (0.0, "strong", INSUFFICIENT),
            (JUST, "strong", REJECT),
        ):
            asked = policy_of(min_evidence=evidence, **{name: reached + off})
            made = decide(validated, tmp_path / "out", asked, DECIDED_AT)
            assert (made["recommendation"], exit_code(made)) == expected, (name, off, evidence)


def test_flags_reach_the_decision(validated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`policy_with` is what the commands pass on: each flag alone turns the verdict."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SENSEQUANT_PROMOTION_MIN_EVIDENCE", "none")
    reached = list(reached_by(validated, tmp_path).values())[:3]
    assert exit_code(decide(validated, tmp_path / "out", policy_with(*reached), DECIDED_AT)) == 0
    for at in range(3):
        flags: list[float | None] = [None, None, None]
        flags[at] = reached[at] + JUST
        made = decide(validated, tmp_path / "out", policy_with(*flags), DECIDED_AT)
        assert exit_code(made) == 1
        results = made["validation_results"]
        assert [results[f"{name}_pass"] for name in ("precision", "hit_ratio", "sharpe")].count(False) == 1
