"""The gate's simulation: its world is what it says, its verdicts are the gate's own, its rates are in bounds."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from sqkit.checklist_inputs import Policy
from sqkit.metrics import accuracy_metrics, financial_metrics
from sqkit.research.gate_attempts import Attempt, Student, attempts_of, swapped
from sqkit.research.gate_calibration import (
    brier_improvement,
    calibrate,
    model_quality,
    rule_quality,
)
from sqkit.research.gate_simulation import (
    PassRate,
    deciding_records,
    error_rates,
    judge_attempt,
    pass_rates,
    world_facts,
)
from sqkit.research.gate_world import World, draw_signals, probability_up, rule_view
from sqkit.settings import Settings

WORLD = World()
SMALL = replace(WORLD, days=40, symbols=20)


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy.from_settings(Settings(_env_file=None))


@pytest.fixture(scope="module")
def long_window() -> Attempt:
    """A better student against a model over 4,000 days: its averages are close to the truth."""
    return next(attempts_of(replace(WORLD, days=4000), "better", incumbent=True, attempts=1, seed=1))


@pytest.fixture(scope="module")
def long_first() -> Attempt:
    """An equal student against the rule over 4,000 days."""
    return next(attempts_of(replace(WORLD, days=4000), "equal", incumbent=False, attempts=1, seed=1))


# --- the world


@pytest.mark.parametrize("incumbent", [True, False])
def test_what_was_solved_for_holds(incumbent: bool) -> None:
    """Coverage, the better student's uplift and the rule's quality are what the world states."""
    solved = calibrate(WORLD, incumbent=incumbent)
    precision, hit_ratio, coverage = model_quality(solved.baseline, WORLD)
    better = model_quality(solved.better, WORLD)
    rule = rule_quality(solved.rule, solved.rule_lean, WORLD)
    assert coverage == pytest.approx(WORLD.coverage, abs=1e-8)
    assert (sum(better[:2]) - precision - hit_ratio) / 2 == pytest.approx(WORLD.uplift, abs=1e-8)
    assert rule[0] == pytest.approx(precision, abs=1e-6)
    if not incumbent:
        assert rule[1] == pytest.approx(hit_ratio, abs=1e-6)
    assert 0.0 < solved.cost < 1.0


def test_true_quality_agrees_with_simulated_quality(long_window: Attempt) -> None:
    """What quadrature says about both models is what the metrics measure on a very long window."""
    solved, rows = calibrate(WORLD, incumbent=True), long_window.rows
    for calls, precision, hit_ratio in (
        (rows.calls_baseline, solved.precision, solved.hit_ratio),
        (rows.calls_student, solved.better_precision, solved.better_hit_ratio),
    ):
        measured = accuracy_metrics(calls, rows.outcomes)
        assert measured["precision_long"] == pytest.approx(precision, abs=0.012)
        assert measured["hit_ratio"] == pytest.approx(hit_ratio, abs=0.012)


def test_models_are_calibrated(long_window: Attempt) -> None:
    """Within bins of its probability a model is right as often as it says."""
    rows = long_window.rows
    scored = rows.decisive(rows.everywhere)
    for probability in (rows.probability_student[scored], rows.probability_baseline[scored]):
        up = rows.outcomes[scored] == 1
        for low in (0.35, 0.45, 0.55, 0.65):
            inside = (probability >= low) & (probability < low + 0.1)
            if inside.sum() > 5000:
                assert up[inside].mean() == pytest.approx(probability[inside].mean(), abs=0.02)


def test_brier_improvement_by_quadrature_is_the_measured_one(long_window: Attempt) -> None:
    """The closed form of the better student's Brier improvement is what a long window shows."""
    rows = long_window.rows
    scored = rows.decisive(rows.everywhere)
    gain = rows.brier_losses(scored, rows.probability_baseline) - rows.brier_losses(
        scored, rows.probability_student
    )
    assert gain.mean() == pytest.approx(brier_improvement(WORLD), rel=0.12)


def test_costs_give_the_stated_sharpe_ratio(long_window: Attempt, long_first: Attempt) -> None:
    """The baseline earns the stated Sharpe ratio after costs, within its standard error of .25."""
    for attempt in (long_window, long_first):
        sharpe = financial_metrics(attempt.returns.baseline, attempt.trades_baseline)["sharpe_ratio"]
        assert sharpe == pytest.approx(WORLD.annual_sharpe, abs=0.8)


def test_first_equal_student_earns_nothing_more_than_the_rule(long_first: Attempt) -> None:
    """Without an incumbent an equal student calls as well as the rule and has its Sharpe ratio."""
    rows, returns = long_first.rows, long_first.returns
    student = accuracy_metrics(rows.calls_student, rows.outcomes)
    rule = accuracy_metrics(rows.calls_baseline, rows.outcomes)
    assert student["precision_long"] == pytest.approx(rule["precision_long"], abs=0.01)
    assert student["hit_ratio"] == pytest.approx(rule["hit_ratio"], abs=0.01)
    ours, theirs = (
        financial_metrics(series, np.empty(0))["sharpe_ratio"]
        for series in (returns.student, returns.baseline)
    )
    assert abs(ours - theirs) < 0.15
    assert np.isnan(rows.probability_baseline).all()


def test_an_echo_knows_nothing_beyond_the_rule() -> None:
    """Given the rule's signal, an echo's signal says nothing about the move; an equal student's does."""
    world = replace(WORLD, days=3000)
    solved = calibrate(world, incumbent=False)
    generator = np.random.default_rng(5)
    move, _, signals = draw_signals(
        world, (solved.rule, solved.baseline, solved.baseline), solved.rule_noise, False, generator
    )
    kept = solved.baseline / solved.rule
    echo = kept * signals[0] + np.sqrt(1.0 - kept**2) * generator.standard_normal(move.shape)
    for signal, knows_more in ((echo, False), (signals[2], True)):
        table = np.column_stack([signals[0].ravel(), signal.ravel()])
        of_rule, of_signal = np.linalg.lstsq(table, (move - world.drift).ravel(), rcond=None)[0]
        assert of_rule > 0.03
        assert bool(of_signal > 0.02) is knows_more


def test_rows_of_a_day_hang_together_as_stated(long_window: Attempt) -> None:
    """Rows of a day share the stated part of their moves, and the arms' daily P&L is highly correlated."""
    facts = world_facts(WORLD, attempts=20)["levels"]
    assert 0.03 < facts["intra_day_correlation_of_correctness"] < 0.12
    assert facts["daily_pnl_correlation"] > 0.9
    assert 0.42 < facts["acted_on_share"] < 0.56
    returns = long_window.returns
    assert np.corrcoef(returns.student, returns.baseline)[0, 1] > 0.85


def test_overlapping_labels_make_neighbouring_days_alike() -> None:
    """With a horizon of five sessions moves keep unit variance and neighbouring days share four fifths."""
    world = replace(WORLD, days=3000, symbols=30, horizon_sessions=5)
    generator = np.random.default_rng(2)
    move, today, _ = draw_signals(world, (0.1, 0.1, 0.1), 0.2, True, generator)
    assert move.std() == pytest.approx(1.0, abs=0.03)
    assert today.std() == pytest.approx(1.0 / np.sqrt(5.0), abs=0.02)
    centred = move - move.mean()
    for lag, expected in ((1, 0.8), (4, 0.2), (5, 0.0), (7, 0.0)):
        found = float(np.mean(centred[lag:] * centred[:-lag]))
        assert found == pytest.approx(expected, abs=0.05)


def test_probability_is_monotone_and_symmetric_without_drift() -> None:
    """More signal is more probability; without a drift P(up | s) + P(up | -s) = 1."""
    still, signal = replace(WORLD, drift=0.0), np.linspace(-4.0, 4.0, 101)
    probability = probability_up(signal, 0.2, still)
    assert np.all(np.diff(probability) > 0.0)
    assert probability + probability[::-1] == pytest.approx(np.ones(101))


def test_rule_is_flat_where_it_is_weak() -> None:
    """The rule takes no side below strength .25 and never exceeds strength 1."""
    strength, side = rule_view(np.linspace(-5.0, 5.0, 201), 0.0)
    assert strength.max() == 1.0
    assert np.array_equal(side == 0, strength < 0.25)


# --- verdicts


def test_attempts_repeat_and_do_not_depend_on_how_many_follow() -> None:
    """The n-th attempt is the same bits whatever the number of attempts; another seed gives others."""
    few = list(attempts_of(SMALL, "better", incumbent=True, attempts=2, seed=7))
    many = list(attempts_of(SMALL, "better", incumbent=True, attempts=4, seed=7))
    other = next(attempts_of(SMALL, "better", incumbent=True, attempts=1, seed=8))
    for one, same in zip(few, many, strict=False):
        assert np.array_equal(one.rows.probability_student, same.rows.probability_student)
        assert np.array_equal(one.returns.student, same.returns.student)
    assert not np.array_equal(few[0].returns.student, other.returns.student)


def test_swapping_two_models_flips_every_difference() -> None:
    """Student and baseline exchanged: every blocking estimate changes its sign."""
    attempt = next(attempts_of(SMALL, "better", incumbent=True, attempts=1, seed=3))
    forward, backward = deciding_records(attempt), deciding_records(swapped(attempt))
    for one, other in zip(forward, backward, strict=True):
        assert one["name"] == other["name"]
        assert one["estimate"] == pytest.approx(-other["estimate"], abs=1e-12)


def test_evidence_never_turns_a_refusal_into_a_promotion(policy: Policy) -> None:
    """Whatever passes with evidence passes the thresholds too."""
    for incumbent in (True, False):
        for attempt in attempts_of(WORLD, "better", incumbent=incumbent, attempts=25, seed=4):
            judged = judge_attempt(attempt, policy)
            assert judged.thresholds_only or not judged.with_evidence


def test_too_little_data_is_never_promoted(policy: Policy) -> None:
    """Below the policy's session days nothing passes, however good the student."""
    short = replace(WORLD, days=policy.min_days - 1)
    rates = pass_rates(short, "better", policy, incumbent=True, attempts=15)
    assert rates["thresholds_only"].one_attempt == rates["with_evidence"].one_attempt == 0.0


def test_a_lenient_policy_asks_for_thresholds_alone(policy: Policy) -> None:
    """Under promotion_min_evidence=none both verdicts are the same."""
    lenient = replace(policy, min_evidence="none")
    for attempt in attempts_of(WORLD, "equal", incumbent=True, attempts=30, seed=5):
        judged = judge_attempt(attempt, lenient)
        assert judged.thresholds_only == judged.with_evidence


def test_ten_attempts_are_one_chance_each() -> None:
    """Grouped in tens: a group passes when one attempt does; fewer than ten attempts make no group."""
    passed = np.zeros(25, dtype=bool)
    passed[[3, 4, 24]] = True
    rate = PassRate.of(passed)
    assert (rate.one_attempt, rate.ten_attempts) == (3 / 25, 1 / 2)
    assert PassRate.of(passed[:9]).ten_attempts is None


# --- rates


@pytest.mark.slow
def test_equal_models_pass_thresholds_often_and_evidence_seldom(policy: Policy) -> None:
    """Two equal models: thresholds alone promote some in ten, evidence at most 3 %; swapping them changes nothing."""
    judged, back = [], []
    for attempt in attempts_of(WORLD, "equal", incumbent=True, attempts=800, seed=11):
        judged.append(judge_attempt(attempt, policy))
        back.append(judge_attempt(swapped(attempt), policy))
    thresholds = np.mean([one.thresholds_only for one in judged])
    evidence = np.mean([one.with_evidence for one in judged])
    assert 0.07 < thresholds < 0.25
    assert evidence < 0.03
    assert abs(np.mean([one.thresholds_only for one in back]) - thresholds) < 0.05
    assert np.mean([one.with_evidence for one in back]) < 0.03


@pytest.mark.slow
@pytest.mark.parametrize("student", ["equal", "echo"])
def test_a_first_model_no_better_than_the_rule_is_seldom_promoted(policy: Policy, student: Student) -> None:
    """Without an incumbent a student that is as good as the rule, or its echo, passes in at most 3 %."""
    rates = pass_rates(WORLD, student, policy, incumbent=False, attempts=600, seed=14)
    assert rates["with_evidence"].one_attempt < 0.03


@pytest.mark.slow
@pytest.mark.parametrize("incumbent", [True, False])
def test_a_better_student_loses_little_by_the_evidence(policy: Policy, incumbent: bool) -> None:
    """A real +2.5 points student passes with evidence within five points (two standard errors allowed)."""
    rates = pass_rates(WORLD, "better", policy, incumbent=incumbent, attempts=600, seed=12)
    without, with_evidence = rates["thresholds_only"].one_attempt, rates["with_evidence"].one_attempt
    assert without > 0.35
    assert 0.0 <= without - with_evidence < 0.05 + 0.018


@pytest.mark.slow
def test_a_worthless_student_is_never_promoted(policy: Policy) -> None:
    """Probabilities that are noise pass with evidence in no attempt, with and without an incumbent."""
    for incumbent in (True, False):
        rates = pass_rates(WORLD, "noise", policy, incumbent=incumbent, attempts=300, seed=13)
        assert rates["with_evidence"].one_attempt == 0.0


def test_error_rates_have_the_promised_shape(policy: Policy) -> None:
    """The benchmark's object has every promised key, plain finite numbers, and the same bits twice."""
    first = error_rates(WORLD, policy, attempts=10, seed=1)
    assert first == error_rates(WORLD, policy, attempts=10, seed=1)
    json.dumps(first, allow_nan=False)
    for arms in (first, first["no_incumbent"]):
        for name in ("thresholds_only", "with_evidence"):
            assert 0.0 <= arms["equal_models"][name]["one_attempt"] <= 1.0
            assert arms["equal_models"][name]["ten_attempts"] in (0.0, 1.0)
            assert 0.0 <= arms["better_student"][name] <= 1.0
