"""The evidence as a whole: symmetries of every record, bad input, the line a person reads first, determinism."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqkit.artifacts import CHECKLIST_PAGE, COMPARISON_FILE, EVIDENCE_FILE, RESULTS_FILE
from sqkit.checklist import rederive, render_markdown
from sqkit.errors import ArtifactChanged, UsageError
from sqkit.evidence_grade import FIRST_BRIER, FIRST_PRECISION, FIRST_RULE_BRIER, LOSS_ALL_ROWS
from sqkit.files import canonical_json, read_json, write_json
from sqkit.metrics import METRIC_KEYS, financial_metrics
from sqkit.records import DOWN, FLAT, INSIDE, UP, iso_date
from sqkit.research.accuracy import AccuracyAnalyzer
from sqkit.research.evidence import PairedReturns, PairedRows, Trials, gather_evidence, summary_line
from sqkit.research.evidence_inputs import evidence_inputs, label_overlap
from sqkit.research.evidence_records import evidence_record
from tests.market import copy_validation, verdict
from tests.paired import (
    CANDIDATE,
    by_name,
    gathered,
    judged,
    made_returns,
    made_rows,
    problems_of,
    session_days,
    swapped,
    with_days,
    with_rows,
)

Sides = tuple[PairedRows, PairedReturns]
Damage = Callable[[PairedRows, PairedReturns], Sides]

BETTER: dict[str, Any] = {"student": 0.9, "baseline": 0.2, "symbols": 8}
RICHER = {"student": 0.004, "baseline": 0.001}
NAN = float("nan")


def better(rule: bool) -> Sides:
    """A validation that is promoted under the default policy."""
    return made_rows(rule=rule, **BETTER), made_returns(**RICHER)


def assert_alike(here: Any, there: Any, where: str = "") -> None:
    """Equal JSON values, floats up to the order in which they were added."""
    if isinstance(here, dict):
        assert here.keys() == there.keys(), where
        for key in here:
            assert_alike(here[key], there[key], f"{where}.{key}")
    elif isinstance(here, list):
        assert len(here) == len(there), where
        for at, (one, other) in enumerate(zip(here, there, strict=True)):
            assert_alike(one, other, f"{where}[{at}]")
    elif isinstance(here, float):
        assert there == pytest.approx(here, rel=1e-9, abs=1e-12), where
    else:
        assert here == there, where


@pytest.mark.parametrize("rule", [False, True])
def test_the_sound_case_is_promoted(rule: bool) -> None:
    """What every damaged case below starts from: a better student, PROMOTE under the default policy."""
    found, checklist = judged(*better(rule))
    assert found.grade == "strong"
    assert (checklist["recommendation"], rederive(checklist)[1]) == ("PROMOTE", 0)
    assert [problem for record in found.records for problem in problems_of(record)] == []


# --- symmetries of the whole


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_the_order_of_rows_and_symbols_changes_nothing(seed: int, rule: bool) -> None:
    """Not one record, bin or table row, advisory ones and their random draws included."""
    rows, returns = made_rows(seed, rule=rule), made_returns(seed)
    generator = np.random.default_rng(seed)
    order, numbers = generator.permutation(len(rows)), generator.permutation(len(rows.symbol_names))
    moved = with_rows(rows, order)
    names = [""] * len(numbers)
    for old, new in enumerate(numbers):
        names[new] = rows.symbol_names[old]
    moved = replace(moved, symbols=numbers[moved.symbols], symbol_names=tuple(names))
    here, there = gathered(rows, returns), gathered(moved, returns)
    assert_alike(dataclasses.asdict(here), dataclasses.asdict(there))


def test_swapping_the_models_turns_the_advice_too() -> None:
    """Calibrations change sides, weeks are counted from the other end, Sharpe and costs change sign."""
    rows, returns = made_rows(2), made_returns(2)
    here = by_name(gathered(rows, returns).records)
    there = by_name(gathered(*swapped(rows, returns)).records)
    for one, other in (("student", "baseline"), ("baseline", "student")):
        mine, theirs = here[f"calibration.{one}"], there[f"calibration.{other}"]
        assert_alike(mine | {"name": ""}, theirs | {"name": ""})
    weeks, back = here["stability.weeks"], there["stability.weeks"]
    assert weeks["params"]["positive"] == back["params"]["negative"]
    assert weeks["estimate"] == pytest.approx(1.0 - back["estimate"])
    for name in ("sharpe_difference", "stability.costs"):
        assert here[name]["estimate"] == pytest.approx(-there[name]["estimate"], rel=1e-9)


# --- bad input


def without_rows(rows: PairedRows, returns: PairedReturns) -> Sides:
    return with_rows(rows, np.arange(0)), returns


def without_days(rows: PairedRows, returns: PairedReturns) -> Sides:
    return rows, with_days(returns, np.arange(0))


def empty(rows: PairedRows, returns: PairedReturns) -> Sides:
    return without_rows(rows, returns)[0], without_days(rows, returns)[1]


def one_day(rows: PairedRows, returns: PairedReturns) -> Sides:
    return with_rows(rows, np.flatnonzero(rows.day_index == 0)), with_days(returns, np.arange(1))


def one_row(rows: PairedRows, returns: PairedReturns) -> Sides:
    chosen = np.flatnonzero((rows.calls_student == UP) & (rows.calls_baseline == UP))[:1]
    return with_rows(rows, chosen), with_days(returns, np.arange(1))


def nine_days(rows: PairedRows, returns: PairedReturns) -> Sides:
    return with_rows(rows, np.flatnonzero(rows.day_index < 9)), with_days(returns, np.arange(9))


def silent(rows: PairedRows, returns: PairedReturns) -> Sides:
    half = np.full(len(rows), 0.5)
    return replace(rows, calls_student=np.zeros_like(rows.calls_student), probability_student=half), returns


def outcome(code: int) -> Damage:
    def damage(rows: PairedRows, returns: PairedReturns) -> Sides:
        return replace(rows, outcomes=np.full_like(rows.outcomes, code)), returns

    return damage


def no_probability(rows: PairedRows, returns: PairedReturns) -> Sides:
    return replace(rows, probability_student=np.full(len(rows), NAN)), returns


def never_trading(rows: PairedRows, returns: PairedReturns) -> Sides:
    return replace(rows, acted_on=np.zeros(len(rows), dtype=bool)), returns


def earning(student: Any, baseline: Any = None) -> Damage:
    """Constant returns of a side, or one day's value that is none."""

    def changed(series: np.ndarray, value: Any) -> np.ndarray:
        if value is None:
            return series
        if np.isfinite(value) and abs(value) < 1e300:
            return np.full(len(series), value)
        return np.where(np.arange(len(series)) == 5, value, series)

    def damage(rows: PairedRows, returns: PairedReturns) -> Sides:
        student_, baseline_ = changed(returns.student, student), changed(returns.baseline, baseline)
        return rows, replace(returns, student=student_, baseline=baseline_)

    return damage


HARM = "no_harm.sharpe"
TEST = "the deciding test"
"""`LOSS_ALL_ROWS` against a model, `FIRST_PRECISION` against the rule."""

# What is damaged; which record says so, in which words; the highest grade that is left.
BAD: dict[str, tuple[Damage, dict[str, str], str]] = {
    "empty": (empty, {TEST: "no ", HARM: "0 observations"}, "weak"),
    "no row": (without_rows, {TEST: "no "}, "weak"),
    "no day of returns": (without_days, {HARM: "student: 0 observations"}, "strong"),
    "one day": (one_day, {TEST: "1 day, fewer than two", HARM: "1 observations"}, "weak"),
    "one row": (one_row, {TEST: "", HARM: "1 observations"}, "weak"),
    "nine days": (nine_days, {HARM: "9 common days, fewer than 10"}, "strong"),
    "a student that is always FLAT": (silent, {"no_harm.precision": "the student makes no call"}, "weak"),
    "only UP": (outcome(UP), {"no_harm.precision": "does not vary"}, "weak"),
    "only DOWN": (outcome(DOWN), {"no_harm.precision": "does not vary"}, "weak"),
    "only INSIDE": (outcome(INSIDE), {"no_harm.precision": "does not vary"}, "weak"),
    "no probability": (no_probability, {LOSS_ALL_ROWS: "no row", FIRST_BRIER: "no row"}, "weak"),
    "no row that can trade": (never_trading, {"precision_difference.acted_on_rows": "no call"}, "weak"),
    "a constant student": (earning(0.001), {HARM: "student: the returns do not vary"}, "strong"),
    "a constant baseline": (earning(None, 0.0), {HARM: "baseline: the returns do not vary"}, "strong"),
    "constant returns": (earning(0.002, 0.001), {HARM: "do not vary"}, "strong"),
    "no trade at all": (earning(0.0, 0.0), {"sharpe_difference": "do not vary"}, "strong"),
    "a return that is NaN": (earning(NAN), {HARM: "student: a return is not finite"}, "strong"),
    "a return that is infinite": (earning(np.inf, np.inf), {HARM: "not finite"}, "strong"),
    "a return that is minus infinite": (earning(None, -np.inf), {HARM: "baseline"}, "strong"),
    "returns beyond floats": (earning(1e308, -1e308), {HARM: ""}, "strong"),
}

ONLY_EVIDENCE = ("no probability", "no row that can trade")
"""Metrics and returns are sound here: a policy that asks for no evidence asks nothing of them."""


@pytest.mark.parametrize("rule", [False, True], ids=["incumbent", "first"])
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_said_and_never_promoted(case: str, rule: bool) -> None:
    """A defined status with its reason in every record, no warning, and no PROMOTE whatever grade is asked."""
    damage, said, highest = BAD[case]
    rows, returns = damage(*better(rule))
    base_rate = 0.5 if rule else None
    grades = ("none", "weak", "moderate", "strong")
    for asked in ("moderate", "strong") if case in ONLY_EVIDENCE else ("moderate", "none"):
        with np.errstate(divide="raise", over="raise", invalid="raise"):
            found, checklist = judged(
                rows,
                returns,
                policy={"min_evidence": asked, "min_days": 0, "min_calls": 0, "min_day_clusters": 0},
                base_rate=base_rate,
            )
        assert [problem for record in found.records for problem in problems_of(record)] == []
        assert checklist["recommendation"] != "PROMOTE"
        assert rederive(checklist)[1] in (1, 3)
        assert grades.index(found.grade) <= grades.index(highest)
    records = by_name(found.records)
    for name, words in said.items():
        deciding = FIRST_PRECISION if rule else LOSS_ALL_ROWS
        record = records.get(deciding if name == TEST else name)
        if record is not None:
            assert record["status"] == "undefined"
            assert words in record["note"]
    assert "\n" not in found.summary


@pytest.mark.parametrize("rule", [False, True], ids=["incumbent", "first"])
@pytest.mark.parametrize("case", [name for name, (*_, highest) in BAD.items() if highest == "weak"])
def test_bad_rows_stay_weak_even_where_thresholds_passed(case: str, rule: bool) -> None:
    """Told that the thresholds were reached, the grade is WEAK: no test was passed."""
    rows, returns = BAD[case][0](*better(rule))
    with np.errstate(all="raise"):
        found = gathered(rows, returns, base_rate=0.5 if rule else None)
        missed = gathered(rows, returns, base_rate=0.5 if rule else None, thresholds_passed=False)
    assert (found.grade, missed.grade) == ("weak", "none")


def test_a_baseline_model_without_probabilities_is_undefined() -> None:
    """NaN from a model that should have had them is no "first model"."""
    rows, returns = better(rule=True)
    found, checklist = judged(rows, returns, base_rate=None)
    record = by_name(found.records)[LOSS_ALL_ROWS]
    assert (record["status"], record["note"]) == ("undefined", "no row")
    assert found.grade == "weak"
    assert rederive(checklist)[1] == 3


def test_an_unusable_base_rate_is_undefined() -> None:
    """NaN in the model's metadata is no number a record could keep."""
    found, checklist = judged(*better(rule=True), base_rate=NAN)
    record = by_name(found.records)[FIRST_BRIER]
    assert (record["status"], record["params"]["base_rate"]) == ("undefined", None)
    assert problems_of(record) == []
    assert checklist["recommendation"] == "INSUFFICIENT_EVIDENCE"


@pytest.mark.parametrize("rule", [False, True])
def test_one_symbol_is_enough_to_compute(rule: bool) -> None:
    """Fewer rows, the same records."""
    rows, returns = made_rows(symbols=1, rule=rule), made_returns()
    with np.errstate(all="raise"):
        found = gathered(rows, returns)
    assert [problem for record in found.records for problem in problems_of(record)] == []
    assert by_name(found.records)["stability.symbols"]["n"]["symbols"] == 1
    assert by_name(found.records).keys() == by_name(gathered(*better(rule)).records).keys()


@pytest.mark.parametrize(
    ("mean", "described"), [(0.0, "zero"), (-0.002, "negative"), (0.0001, "below a quarter")]
)
def test_a_low_baseline_sharpe_is_a_difference_and_not_undefined(mean: float, described: str) -> None:
    """A relative uplift that is null by the 0.25 rule leaves every test as it is, and can be promoted."""
    rows, returns = better(rule=False)
    returns = replace(returns, baseline=returns.baseline - returns.baseline.mean() + mean)
    if mean == 0.0:  # mirrored days: a mean of exactly zero
        half = returns.baseline[:31]
        returns = replace(returns, baseline=np.concatenate([half, -half, [0.0]]))
        assert returns.baseline.mean() == pytest.approx(0.0, abs=1e-18)
    found, checklist = judged(rows, returns)
    record = by_name(found.records)["sharpe_difference"]
    assert checklist["deltas"]["sharpe_uplift"] is None, described
    assert record["status"] in ("pass", "fail")
    assert found.summary.startswith(f"Sharpe {record['estimate']:+.2f} (95 % CI ")
    assert found.grade == "strong"
    assert checklist["recommendation"] == "PROMOTE"


def test_returns_too_small_or_too_large_are_said() -> None:
    """Denormal and huge returns: a defined status each, no warning but of underflow, which NumPy ignores too."""
    rows, returns = better(rule=True)
    for factor in (1e-300, 1e-150, 1e150, 1e300):
        scaled = replace(returns, student=returns.student * factor, baseline=returns.baseline * factor)
        with np.errstate(divide="raise", over="raise", invalid="raise"):
            found = gathered(rows, scaled)
        assert [problem for record in found.records for problem in problems_of(record)] == []


@settings(max_examples=40, deadline=None)
@given(data=st.data(), rule=st.booleans())
def test_whatever_is_measured_is_judged_without_an_accident(data: st.DataObject, rule: bool) -> None:
    """Random small validations of few values: full records, no exception, no warning."""
    size = data.draw(st.integers(0, 40), label="rows")
    days = data.draw(st.integers(0, 12), label="days")
    seed = data.draw(st.integers(0, 10_000), label="seed")
    generator = np.random.default_rng(seed)
    values = np.array(data.draw(st.lists(st.sampled_from([0.0, 0.3, 0.5, 1.0, NAN]), min_size=1, max_size=4)))
    money = np.array(
        data.draw(st.lists(st.sampled_from([0.0, 0.01, -0.01, NAN, np.inf]), min_size=1, max_size=3))
    )
    codes = np.array(
        data.draw(st.lists(st.sampled_from([UP, INSIDE, DOWN]), min_size=1, max_size=3)), np.int8
    )
    rows = PairedRows(
        session_days=np.sort(generator.integers(0, max(days, 1), size)),
        symbols=generator.integers(0, 2, size),
        symbol_names=("A", "B"),
        acted_on=generator.random(size) < 0.5,
        outcomes=generator.choice(codes, size),
        calls_student=generator.choice(codes, size),
        calls_baseline=generator.choice(codes, size),
        probability_student=generator.choice(values, size),
        probability_baseline=np.full(size, NAN) if rule else generator.choice(values, size),
    )
    returns = PairedReturns(
        session_days(days),
        generator.choice(money, days),
        generator.choice(money, days),
        np.zeros(days),
        np.zeros(days),
    )
    with np.errstate(all="raise"):
        found = gathered(rows, returns, base_rate=0.5 if rule else None)
    assert [problem for record in found.records for problem in problems_of(record)] == []
    assert canonical_json(dataclasses.asdict(found))


def test_probabilities_that_are_none_are_refused() -> None:
    """A probability of 1.5 is a broken model file, not a confident one."""
    rows, returns = better(rule=False)
    with pytest.raises(UsageError, match="outside"):
        gathered(replace(rows, probability_student=rows.probability_student + 1.0), returns)


# --- the line a person reads first


def line(
    *,
    estimate: float | None = 1.2,
    interval: list[float] | None = None,
    note: str = "",
    p: float | None = 0.004,
    looks: int = 12,
    grade: str = "moderate",
    uplift: float | None = 0.076,
    first: bool = False,
    days: int = 63,
    has_incumbent: bool = False,
) -> str:
    """The summary of records that hold these numbers."""

    def record(name: str, **numbers: Any) -> dict[str, Any]:
        return evidence_record(name, kind="blocking", status="pass", method="by hand", **numbers)

    sharpe = record("sharpe_difference", estimate=estimate, ci=interval, n={"days": days}, note=note)
    names = (FIRST_PRECISION, FIRST_BRIER, FIRST_RULE_BRIER) if first else (LOSS_ALL_ROWS,)
    tests = [record(name, p_value=p) for name in names]
    return summary_line(
        [sharpe, *tests], grade, n_trials=looks, sharpe_uplift=uplift, has_incumbent=has_incumbent
    )


def test_the_line_of_the_specification() -> None:
    """Relative Sharpe with its interval, noise, Brier p, looks and grade, word for word."""
    made = line(estimate=0.13, interval=[-0.13 * 41 / 7.6, 0.13 * 58 / 7.6])
    assert made == (
        "Sharpe +7.6 % (95 % CI -41 % .. +58 %): noise at 63 days; Brier p = .004; "
        "12 looks at this window; grade MODERATE"
    )


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({"interval": [0.6, 1.8]}, "Sharpe +7.6 % (95 % CI +4 % .. +11 %): more than noise at 63 days; "),
        ({"interval": [0.0, 2.4]}, "Sharpe +7.6 % (95 % CI +0.0 % .. +15 %): noise at 63 days; "),
        ({"interval": [-0.01, 2.4]}, "Sharpe +7.6 % (95 % CI -0.1 % .. +15 %): noise at 63 days; "),
        (
            {"interval": [0.6, 1.8], "uplift": None},
            "Sharpe +1.20 (95 % CI +0.60 .. +1.80): more than noise at 63 days; ",
        ),
        (
            {"interval": [-1.8, -0.6], "estimate": -1.2, "uplift": -0.5, "days": 70},
            "Sharpe -50.0 % (95 % CI -75 % .. -25 %): more than noise at 70 days; ",
        ),
        (
            {"interval": [-0.4, 0.4], "estimate": 0.0, "uplift": 0.0},
            "Sharpe +0.00 (95 % CI -0.40 .. +0.40): noise at 63 days; ",
        ),
        (
            {"interval": [-0.004, 0.4], "estimate": 0.2, "uplift": None},
            "Sharpe +0.20 (95 % CI -0.004 .. +0.40): noise at 63 days; ",
        ),
        (
            {"estimate": None, "note": "student: the returns do not vary"},
            "Sharpe difference undefined (student: the returns do not vary); ",
        ),
        (
            {"note": "9 common days, fewer than 10"},
            "Sharpe +1.20 (no interval: 9 common days, fewer than 10); ",
        ),
    ],
)
def test_the_sharpe_part(numbers: dict[str, Any], said: str) -> None:
    """Relative where the baseline allows it, else a difference; without an interval the reason."""
    assert line(**numbers).startswith(said)


@pytest.mark.parametrize(
    ("p", "said"),
    [
        (0.0, "p < .001"),
        (0.0009, "p < .001"),
        (0.001, "p = .001"),
        (0.004, "p = .004"),
        (0.05, "p = .050"),
        (0.3249, "p = .32"),
        (1.0, "p = 1.00"),
        (None, "p undefined"),
    ],
)
def test_how_a_p_value_is_printed(p: float | None, said: str) -> None:
    """Three decimals where it matters, two elsewhere, never a zero."""
    assert f"Brier {said};" in line(p=p)
    assert f"first model, no incumbent: precision {said}, Brier {said} against the base rate" in line(
        p=p, first=True
    )


def test_a_rule_as_baseline_beside_an_incumbent() -> None:
    """Judged against the rule although a model is in production: not called a first model."""
    made = line(interval=[0.6, 1.8], first=True, has_incumbent=True)
    assert "against the rule, not the incumbent: precision p = .004" in made
    assert "first model" not in made


def test_looks_and_grade() -> None:
    """One look, two looks; the grade in capitals ends the line."""
    assert "; 1 look at this window; grade NONE" in line(looks=1, grade="none")
    assert line(looks=2, grade="strong").endswith("; 2 looks at this window; grade STRONG")


@pytest.mark.parametrize("rule", [False, True])
def test_the_numbers_of_the_line_are_the_checklists(rule: bool) -> None:
    """The percentage is the checklist's own uplift; its interval is that of the difference over the baseline."""
    found, checklist = judged(*better(rule))
    record, sharpe = (
        by_name(found.records)["sharpe_difference"],
        checklist["baseline_metrics"]["sharpe_ratio"],
    )
    uplift = checklist["evidence"]["deltas"]["sharpe_uplift"]
    low, high = (100.0 * bound / sharpe for bound in record["ci"])
    assert found.summary.startswith(
        f"Sharpe {100 * uplift:+.1f} % (95 % CI {low:+z.0f} % .. {high:+z.0f} %): "
    )
    assert ("first model, no incumbent" in found.summary) is rule


def test_the_line_stands_directly_under_the_verdict(validated: Path, tmp_path: Path) -> None:
    """Third paragraph of the page: title, recommendation, the line; the same in JSON and evidence.json."""
    checklist = verdict(validated, tmp_path)
    summary = checklist["evidence"]["summary"]
    for page in (render_markdown(checklist), (tmp_path / CHECKLIST_PAGE).read_text(encoding="utf-8")):
        title, recommendation, said = page.split("\n\n")[:3]
        assert title == "# Student Model Promotion Checklist"
        assert recommendation.startswith(f"**Recommendation**: {checklist['recommendation']} — ")
        assert said == summary
    assert f'"summary": "{summary}"' in (tmp_path / EVIDENCE_FILE).read_text(encoding="utf-8")
    assert re.fullmatch(
        r"Sharpe [-+]\d+\.\d %? ?\(95 % CI .+\): (noise|more than noise) at \d+ days; first model, no incumbent: "
        r"precision p [=<] \S+, Brier p [=<] \S+ against the base rate.*; \d+ looks? at this window; grade [A-Z]+",
        summary,
    )


# --- determinism


def searched() -> tuple[PairedRows, PairedReturns, Trials]:
    """A window at which seven models looked, so that every random draw is made."""
    rows, returns = made_rows(7), made_returns(7)
    others = {f"{number:064x}": (session_days(63), made_returns(number).student) for number in range(6)}
    return rows, returns, Trials(CANDIDATE, 7, others)


def test_the_same_input_gives_the_same_bytes() -> None:
    """Twice, whatever NumPy's global generator was doing, which is left alone."""
    rows, returns, trials = searched()
    np.random.seed(1)  # noqa: NPY002  (the point: nothing may depend on it)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = canonical_json(dataclasses.asdict(gathered(rows, returns, trials=trials)))
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    np.random.seed(2)  # noqa: NPY002
    assert canonical_json(dataclasses.asdict(gathered(rows, returns, trials=trials))) == first


def test_another_seed_changes_random_draws_only() -> None:
    """What was drawn, and what says so; every other number and record stays to the bit."""
    rows, returns, trials = searched()
    arguments: dict[str, Any] = {
        "base_rate": None,
        "overlap": 1,
        "trials": trials,
        "thresholds_passed": True,
        "sharpe_uplift": 0.2,
    }
    here = by_name(gather_evidence(rows, returns, **arguments, seed=1).records)
    there = by_name(gather_evidence(rows, returns, **arguments, seed=2).records)
    drawn = {
        "no_harm.sharpe",
        "sharpe_difference",
        "calibration.student",
        "calibration.baseline",
        "spa",
        "stepm",
    }
    assert {name for name in here if here[name] != there[name]} == drawn
    for name in drawn:
        mine, theirs = here[name], there[name]
        assert (mine["params"]["seed"], theirs["params"]["seed"]) == (1, 2)
        fields = {key for key in mine if mine[key] != theirs[key]}
        assert fields <= {"params", "p_value", "ci", "threshold", "status", "note"}
        params = {key for key in mine["params"] if mine["params"][key] != theirs["params"][key]}
        assert params <= {"seed", "ece_null_95", "p_lower", "p_upper", "superior"}


# --- from stored artifacts


@pytest.mark.parametrize("roles", [("candidate",), ("baseline",), ("candidate", "baseline")])
@pytest.mark.parametrize("date", [None, "1999-01-04", "yesterday"])
def test_returns_of_other_days_are_refused(
    validated: Path, tmp_path: Path, roles: tuple[str, ...], date: str | None
) -> None:
    """A day left out, or moved, with every metric made to fit: the predictions say which days there were."""
    folder = copy_validation(validated, tmp_path / "copy")
    results, compared = read_json(folder / RESULTS_FILE), read_json(folder / COMPARISON_FILE)
    analyzer = AccuracyAnalyzer(folder)
    for role in roles:
        series = results["daily_returns"][role]
        worst = min(series, key=series.__getitem__)
        value = series.pop(worst)
        if date is not None:
            series[date] = value
        financial = financial_metrics(np.array(list(series.values())), analyzer.closed_net_pnls(role))
        results["metrics"][role] = financial
        compared["all_rows"][role] |= {name: financial[name] for name in METRIC_KEYS if name in financial}
    write_json(folder / RESULTS_FILE, results)
    write_json(folder / COMPARISON_FILE, compared)
    with pytest.raises(
        ArtifactChanged, match=f"returns of the {roles[0]} are not those of the 200"
    ) as refusal:
        verdict(folder, tmp_path / "out")
    assert refusal.value.exit_code == 4
    assert "\n" not in refusal.value.message


def test_the_inputs_are_those_of_the_artifacts(validated: Path) -> None:
    """Judged rows of both sides, returns by date, the base rate of training, the digest of the behaviour."""
    results, analyzer = read_json(validated / RESULTS_FILE), AccuracyAnalyzer(validated)
    inputs = evidence_inputs(results, analyzer)
    for role, calls, series in (
        ("candidate", inputs.rows.calls_student, inputs.returns.student),
        ("baseline", inputs.rows.calls_baseline, inputs.returns.baseline),
    ):
        pooled = analyzer.pooled(role)
        assert np.array_equal(calls, pooled["calls"])
        assert np.array_equal(inputs.rows.outcomes, pooled["outcomes"])
        by_date = dict(zip(map(iso_date, inputs.returns.session_days), series.tolist(), strict=True))
        assert by_date == results["daily_returns"][role]
    acted_on = analyzer.pooled("candidate", acted_on=True)
    assert np.array_equal(inputs.rows.calls_student[inputs.rows.acted_on], acted_on["calls"])
    assert np.isnan(inputs.rows.probability_baseline).all()
    assert inputs.base_rate == results["models"]["candidate"]["training_base_rate"]
    assert (inputs.overlap, inputs.trials.candidate) == (5, results["digests"]["model_behaviour"])
    counted = [analyzer.pooled("candidate", symbols=[name])["calls"].size for name in analyzer.symbols]
    assert np.bincount(inputs.rows.symbols).tolist() == counted


# --- how far a label reaches


@pytest.mark.parametrize(
    ("strategy", "interval", "horizon", "days"),
    [
        ("intraday", "1m", 15, 1),
        ("intraday", "5m", 400, 1),
        ("swing", "1d", 5, 5),
        ("swing", "1d", 1, 1),
        ("swing", "5m", 4, 2),
        ("swing", "5m", 5, 3),
        ("swing", "5m", 40, 11),
    ],
)
def test_label_overlap(strategy: str, interval: str, horizon: int, days: int) -> None:
    """1 within a session; the horizon on daily bars; on smaller bars the sessions that many bars may touch."""
    results = {"runtime": {"horizon_bars": horizon, "strategy": strategy}, "interval": interval}
    assert label_overlap(results, made_rows(bars=4)) == days
    assert label_overlap(results, with_rows(made_rows(), np.arange(0))) >= 1


def test_flat_codes_are_what_the_tests_say() -> None:
    """The damage above speaks of codes; these are they."""
    assert (UP, INSIDE, DOWN, FLAT) == (1, 0, -1, 0)
