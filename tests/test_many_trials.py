"""Many trials: alignment, block lengths, worthless searches against planted ones, and what is undefined."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sqkit.errors import UsageError
from sqkit.files import canonical_json
from sqkit.research.many_trials import (
    AlignedTrials,
    align_trials,
    block_length,
    overfitting,
    step_multiple,
    superior_predictive_ability,
)
from sqkit.research.overfitting import probability_of_backtest_overfitting

TESTS = (superior_predictive_ability, step_multiple, overfitting)


def search(
    seed: int, days: int = 250, edges: Sequence[float] = (0.0,) * 6, noise: float = 0.004
) -> AlignedTrials:
    """Trials that earn what the baseline earns, plus noise, plus their edge a day."""
    rng = np.random.default_rng(seed)
    baseline = rng.normal(0.0, 0.01, days)
    returns = baseline[:, None] + rng.normal(0.0, noise, (days, len(edges))) + np.asarray(edges)
    names = tuple(f"t{number:02d}" for number in range(len(edges)))
    return AlignedTrials(names, (), np.arange(days), baseline, returns)


# --- alignment


def test_trials_meet_on_their_common_days() -> None:
    """Only days that all have stay, each return at its day, whatever the order; a short trial is left out."""
    days = np.arange(100, 120)
    value = days / 1000.0
    order = np.random.default_rng(0).permutation(20)
    found = align_trials(
        {
            "b": (days[order], value[order] + 2),
            "a": (days[1:], value[1:] + 1),
            "late": (days[10:], value[10:]),
            "longer": (np.arange(90, 130), np.arange(90, 130) / 1000.0 + 3),
        },
        (days[:-1], value[:-1]),
    )
    assert (found.names, found.left_out) == (("a", "b", "longer"), ("late",))
    assert found.days.tolist() == list(range(101, 119))
    assert found.baseline == pytest.approx(found.days / 1000)
    assert found.returns == pytest.approx(found.days[:, None] / 1000 + [1, 2, 3])


def test_nothing_to_align_is_no_error() -> None:
    """No trial, an empty baseline, no common day: an empty table that every test calls insufficient."""
    days, values = np.arange(5), np.zeros(5)
    for trials, baseline in (
        ({}, (days, values)),
        ({"a": (days, values)}, ([], [])),
        ({"a": (days + 50, values)}, (days, values)),
    ):
        found = align_trials(trials, baseline)  # type: ignore[arg-type]
        assert found.returns.shape == (len(found.days), 0)
        for test in TESTS:
            assert test(found)["status"] == "insufficient"


def test_alignment_refuses_what_is_no_series_of_days() -> None:
    """Lengths that differ, a day twice, days that are no whole numbers, a cover of nothing."""
    good = (np.arange(3), np.zeros(3))
    with pytest.raises(UsageError, match="one return a day"):
        align_trials({"a": (np.arange(3), np.zeros(2))}, good)
    with pytest.raises(UsageError, match="trial a: day 1 occurs twice"):
        align_trials({"a": ([0, 1, 1], np.zeros(3))}, good)
    with pytest.raises(UsageError, match="whole days"):
        align_trials({}, ([0.5, 1.0, 2.0], np.zeros(3)))
    with pytest.raises(UsageError, match="cover 0"):
        align_trials({}, good, cover=0)


# --- blocks


def test_block_length_of_published_series() -> None:
    """The AR(1) series of arch's own tests: 13.64 and 15.61, one more after rounding up."""
    noise = np.random.RandomState(0).standard_normal(10100)
    series = np.zeros(10100)
    for at in range(1, 10100):
        series[at] = 0.3 * series[at - 1] + noise[at]
    assert block_length(series[100:], bootstrap="stationary") == 14
    assert block_length(series[100:]) == 16
    assert block_length(series[100:], horizon_days=20) == 20


def test_block_length_is_the_median_of_both() -> None:
    """With two series the median of their lengths counts, at least one day, at most a quarter."""
    rng = np.random.default_rng(0)
    noise, slow = rng.normal(size=400), np.cumsum(rng.normal(size=400))
    one, other = block_length(noise), block_length(slow)
    assert one < other <= 100
    assert one <= block_length(noise, slow) <= other
    assert block_length(slow[:40]) <= 10
    assert block_length(noise[:63], horizon_days=40) == 15


@pytest.mark.parametrize(
    "series",
    [[], [0.1], np.arange(5.0), np.ones(63), np.zeros(63), np.full(63, np.nan), [0.0] * 62 + [1e300]],
)
def test_block_length_never_fails(series: Any) -> None:
    """Empty, one, five, constant, NaN, one huge day: the horizon, capped, never NaN and never an error."""
    length = block_length(series, np.zeros(len(series)), horizon_days=5)
    assert isinstance(length, int)
    assert length == max(1, min(5, len(series) // 4))


def test_block_length_refuses_what_cannot_be_meant() -> None:
    """No series, different lengths, a horizon below one."""
    for arguments in ((), ([1.0], [1.0, 2.0])):
        with pytest.raises(UsageError, match="same days"):
            block_length(*arguments)
    with pytest.raises(UsageError, match="horizon_days"):
        block_length([1.0], horizon_days=0)


# --- superior predictive ability


def test_worthless_searches_are_rarely_superior() -> None:
    """Of 100 searches of eight worthless trials with unequal noise about 5 % are found superior."""
    noise = np.geomspace(0.002, 0.04, 8)
    found = [search(seed, edges=(0.0,) * 8, noise=noise) for seed in range(100)]  # type: ignore[arg-type]
    allowed = stats.binom.ppf(0.999, 100, 0.05)
    assert sum(superior_predictive_ability(one, reps=199)["status"] == "pass" for one in found) <= allowed
    assert sum(bool(step_multiple(one, reps=199)["params"]["superior"]) for one in found) <= allowed


def test_a_planted_trial_is_found_and_named() -> None:
    """One trial with an edge among worthless ones: the search is superior, and StepM names that trial."""
    trials = search(3, edges=(0, 0, 0.0015, 0, 0, 0))
    record, named = superior_predictive_ability(trials), step_multiple(trials, candidate="t02")
    assert (record["status"], record["params"]["best"]) == ("pass", "t02")
    assert record["p_value"] == 1 / 1000  # arch says 0 where no draw reaches the observed value
    assert record["estimate"] == pytest.approx(np.mean(trials.returns[:, 2] - trials.baseline))
    assert (named["status"], named["params"]["superior"]) == ("pass", ["t02"])
    assert step_multiple(trials, candidate="t01")["status"] == "fail"
    assert step_multiple(trials)["status"] == "pass"


def test_arch_alone_gives_the_same_p_value() -> None:
    """Trials whose differences have one standard deviation: our p-value is that of arch on plain losses."""
    from arch.bootstrap import SPA

    trials = search(2, edges=(0.0, 0.0002, 0.0004, 0.0, 0.0))
    difference = trials.returns - trials.baseline[:, None]
    middle = difference.mean(axis=0)
    even = trials.baseline[:, None] + middle + (difference - middle) / difference.std(axis=0) * 0.004
    record = superior_predictive_ability(replace(trials, returns=even), seed=5)
    plain = SPA(-trials.baseline, -even, block_size=record["params"]["block"], reps=999, seed=5)
    plain.compute()
    assert 0.01 < record["p_value"] < 0.99
    assert record["p_value"] == pytest.approx(plain.pvalues["consistent"], abs=2e-3)


def test_a_wild_trial_does_not_hide_a_good_one() -> None:
    """The good trial of above beside one with fifty times the noise is still found (arch alone: p > .1)."""
    from arch.bootstrap import SPA

    trials = search(3, edges=(0, 0, 0.0015, 0, 0, 0))
    returns = trials.returns.copy()
    returns[:, 5] = trials.baseline + np.random.default_rng(9).normal(0.0, 0.2, 250)
    wild = replace(trials, returns=returns)
    assert superior_predictive_ability(wild)["params"]["best"] == "t02"
    assert superior_predictive_ability(wild)["p_value"] <= 0.01
    assert step_multiple(wild)["params"]["superior"] == ["t02"]
    plain = SPA(-wild.baseline, -wild.returns, block_size=2, reps=199, seed=0)
    plain.compute()
    assert plain.pvalues["consistent"] > 0.1


def test_all_trials_superior_in_two_steps() -> None:
    """Two strong trials are found first, the rest once they are out: all are named (arch alone raises)."""
    edges = (0.004, 0.004, 0.00055, 0.00055, 0.00055)
    trials = search(6, days=300, edges=edges)
    assert step_multiple(trials)["params"]["superior"] == list(trials.names)
    strong = search(6, days=300, edges=(0.004,) * 5)
    assert step_multiple(strong)["params"]["superior"] == list(strong.names)


def test_worse_than_the_baseline_is_not_superior() -> None:
    """Trials that all lose against the baseline: no evidence for any, nobody is named."""
    trials = search(4, edges=(-0.002,) * 6)
    assert superior_predictive_ability(trials)["p_value"] > 0.3  # Hansen's recentring leaves it at one half
    assert superior_predictive_ability(trials)["params"]["p_upper"] > 0.99
    assert step_multiple(trials)["params"]["superior"] == []
    assert step_multiple(trials)["status"] == "fail"


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 1000), st.floats(-0.01, 0.01))
def test_stake_and_a_constant_for_all_change_nothing(seed: int, constant: float) -> None:
    """A constant added to trials and baseline, and every stake doubled, leave both answers as they were."""
    trials = search(seed, 60, edges=(0.0, 0.0, 0.001, 0.002, 0.0))
    moved = replace(trials, baseline=trials.baseline + constant, returns=trials.returns + constant)
    doubled = replace(trials, baseline=trials.baseline * 2, returns=trials.returns * 2)
    for other in (moved, doubled):
        for test in (superior_predictive_ability, step_multiple):
            here, there = test(trials, reps=99), test(other, reps=99)
            assert here["params"] == there["params"]
            assert here["p_value"] == there["p_value"]


def test_same_seed_same_record() -> None:
    """Twice the same record; another seed gives another p-value, and seed, reps and block are stored."""
    trials = search(2)
    first = superior_predictive_ability(trials, horizon_days=5)
    assert superior_predictive_ability(trials, horizon_days=5) == first
    assert superior_predictive_ability(trials, horizon_days=5, seed=1)["p_value"] != first["p_value"]
    assert (first["params"]["seed"], first["params"]["reps"], first["params"]["block"]) == (0, 999, 5)


# --- overfitting


def test_pbo_record() -> None:
    """The record holds what the function of the same name finds; above one half it fails."""
    trials = search(0, 240)
    found = probability_of_backtest_overfitting(trials.returns)
    record = overfitting(trials)
    assert record["estimate"] == found.probability
    assert record["params"] == {"blocks": 16, "splits": 12870}
    assert record["status"] == ("pass" if found.probability <= 0.5 else "fail")  # type: ignore[operator]
    lasting = search(0, 240, edges=(0, 0, 0.005, 0, 0, 0))
    assert (overfitting(lasting)["status"], overfitting(lasting)["estimate"]) == ("pass", 0.0)
    flips = np.where(np.arange(240)[:, None] // 30 % 6 == np.arange(6), 0.02, -0.004)
    fooled = overfitting(replace(trials, returns=trials.returns + flips))
    assert (fooled["status"], fooled["estimate"] > 0.5) == ("fail", True)


# --- what is not defined


@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize(
    ("returns", "baseline", "status", "reason"),
    [
        (np.zeros((250, 0)), np.zeros(250), "insufficient", "0 trials"),
        (search(0).returns[:, :4], search(0).baseline, "insufficient", "4 trials"),
        (np.zeros((0, 6)), np.zeros(0), "insufficient", "0 common days"),
        (np.zeros((1, 6)), np.zeros(1), "insufficient", "1 common days"),
        (search(0).returns[:19], search(0).baseline[:19], "insufficient", "19 common days"),
        (np.full((250, 6), 0.01), np.zeros(250), "undefined", "same returns"),
        (np.zeros((250, 6)), search(0).baseline, "undefined", "same returns"),
        (
            np.where(np.arange(1500).reshape(250, 6) == 7, np.nan, 0.1),
            np.ones(250),
            "undefined",
            "not finite",
        ),
        (search(0).returns * 1e308, search(0).baseline, "undefined", "too large"),
    ],
)
def test_searches_that_cannot_be_judged(
    test: Any, returns: np.ndarray, baseline: np.ndarray, status: str, reason: str
) -> None:
    """None, few trials, few days, constant, identical, NaN, huge: a status and a reason, no warning, no pass."""
    names = tuple(f"t{number}" for number in range(returns.shape[1]))
    record = test(AlignedTrials(names, (), np.arange(len(returns)), baseline, returns))
    assert (record["status"], record["estimate"], record["p_value"]) == (status, None, None)
    assert reason in record["note"]
    canonical_json(record)


def test_trials_equal_to_the_baseline_are_left_out() -> None:
    """A copy of the baseline cannot be tested; with fewer than five others nothing can (arch alone: p = 0)."""
    trials = search(0, edges=(0.0,) * 6)
    copies = trials.returns.copy()
    copies[:, 0] = trials.baseline
    record = superior_predictive_ability(replace(trials, returns=copies))
    assert (record["n"]["trials"], record["n"]["tested"]) == (6, 5)
    assert "1 trials that do not differ" in record["note"]
    copies[:, 1] = trials.baseline
    for test in (superior_predictive_ability, step_multiple):
        record = test(replace(trials, returns=copies))
        assert (record["status"], "do not differ" in record["note"]) == ("undefined", True)


def test_an_untested_candidate_is_undefined() -> None:
    """A candidate without returns on these days is no pass, and the record says so."""
    record = step_multiple(search(3, edges=(0, 0, 0.0015, 0, 0)), candidate="unknown")
    assert record["status"] == "undefined"
    assert "unknown could not be tested" in record["note"]


@pytest.mark.parametrize("test", TESTS[:2])
def test_unusable_parameters_are_refused(test: Any) -> None:
    """Too few draws or a horizon below one day, also where the trials are too few."""
    for arguments in ({"reps": 18}, {"horizon_days": 0}, {"horizon_days": math.nan}):
        with pytest.raises(UsageError):
            test(search(0, edges=(0.0,)), **arguments)
