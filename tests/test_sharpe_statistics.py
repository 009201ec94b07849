"""Sharpe ratios against luck: published values, symmetries, and what is undefined."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqkit.errors import UsageError
from sqkit.research.sharpe_difference import sharpe_difference
from sqkit.research.sharpe_statistics import (
    annualisation_factor,
    deflated_sharpe_ratio,
    expected_max_z,
    min_backtest_length,
    min_track_record_length,
    probabilistic_sharpe_ratio,
    return_moments,
    sharpe_standard_error,
)

NAN, INF = float("nan"), float("inf")


def pair(days: int, seed: int = 0, edge: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Daily returns of two correlated models, the first better by `edge` standard deviations a day."""
    generator = np.random.default_rng(seed)
    common = generator.normal(0.0005, 0.01, days)
    return common + generator.normal(edge * 0.01, 0.004, days), common + generator.normal(0.0, 0.004, days)


# --- published values


def test_confidence_of_the_2012_paper() -> None:
    """Bailey and Lopez de Prado (2012): .982 for normal returns, .913 for the fat-tailed record."""
    assert probabilistic_sharpe_ratio(0.458, 24, 0, 3) == pytest.approx(0.982, abs=5e-4)
    assert probabilistic_sharpe_ratio(0.458, 24, -2.448, 10.164) == pytest.approx(0.913, abs=5e-4)


def test_track_record_lengths_of_the_2012_paper() -> None:
    """Figure 8 and the two hedge funds, in years: also the weekly and the non-normal monthly case."""
    for annual, periods, skew, kurt, years in (
        ((2, 1), 250, 0, 3, 2.73),
        ((2, 1), 52, 0, 3, 2.83),
        ((2, 1), 12, 0, 3, 3.24),
        ((2, 1), 12, -0.72, 5.78, 4.99),
    ):
        sr, sr0 = (value / np.sqrt(periods) for value in annual)
        length = min_track_record_length(sr, skew, kurt, sr0)
        assert length is not None
        assert length / periods == pytest.approx(years, abs=5e-3)
    assert min_track_record_length(0.7079, -0.225, 2.957) == pytest.approx(12 * 0.7152, abs=12 * 5e-5)
    assert min_track_record_length(0.8183, -1.4455, 7.0497) == pytest.approx(12 * 1.1593, abs=12 * 5e-5)


def test_deflated_ratio_of_the_2014_paper() -> None:
    """Bailey and Lopez de Prado (2014), pages 9-10: .9004 after 100 trials, .9505 after 46."""
    sr, variance = 2.5 / np.sqrt(250), 0.5 / 250
    assert deflated_sharpe_ratio(sr, 1250, -3, 10, variance, 100) == pytest.approx(0.9004, abs=5e-5)
    assert deflated_sharpe_ratio(sr, 1250, -3, 10, variance, 46) == pytest.approx(0.9505, abs=5e-5)
    assert deflated_sharpe_ratio(sr, 1250, 0, 3, variance, 88) == pytest.approx(0.9505, abs=5e-5)


def test_five_years_allow_45_trials() -> None:
    """Bailey et al. (2014): with five years of data no more than 45 trials at a Sharpe ratio of 1."""
    assert min_backtest_length(45, 1.0) == pytest.approx(4.9980870044434038, abs=1e-12)
    assert min_backtest_length(46, 1.0) > 5.0  # type: ignore[operator]


def test_autocorrelation_lowers_the_annual_factor() -> None:
    """Lo (2002): 14.365 instead of sqrt(252) at an autocorrelation of .1."""
    assert annualisation_factor(252, 0.1) == pytest.approx(14.365, abs=5e-4)
    assert annualisation_factor(252) == pytest.approx(np.sqrt(252))


# --- what follows from the definitions


def test_one_trial_deflates_nothing() -> None:
    """With a single trial the deflated ratio is the plain confidence against zero."""
    assert expected_max_z(1) == 0.0
    assert deflated_sharpe_ratio(0.1, 100, -0.5, 5, 0.3, 1) == probabilistic_sharpe_ratio(0.1, 100, -0.5, 5)


@given(st.floats(1.0, 1e6), st.floats(1.0, 1e6))
def test_more_trials_never_expect_less(first: float, second: float) -> None:
    """The expected best of more trials is at least that of fewer, and never negative."""
    low, high = sorted((first, second))
    assert 0.0 <= expected_max_z(low) <= expected_max_z(high)


def test_minimum_track_record_is_where_the_confidence_is_reached() -> None:
    """At that many observations the confidence equals the asked one."""
    length = min_track_record_length(0.12, -0.8, 6.0, 0.02, 0.9)
    assert length is not None
    assert probabilistic_sharpe_ratio(0.12, length, -0.8, 6.0, 0.02) == pytest.approx(0.9, abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(10, 90), st.integers(1, 30))
def test_swapped_models_flip_signs(seed: int, days: int, block: int) -> None:
    """Difference, z and interval change sign; standard errors and two-sided p-values stay."""
    first, second = pair(days, seed)
    here = sharpe_difference(first, second, block=block, reps=99)
    there = sharpe_difference(second, first, block=block, reps=99)

    assert here.status == there.status == "ok"
    assert here.block == min(block, days // 4)
    assert here.difference == -there.difference  # type: ignore[operator]
    assert here.memmel_z == pytest.approx(-there.memmel_z, rel=1e-9)  # type: ignore[operator]
    for name in ("memmel_se", "hac_se", "hac_prewhitened_se", "memmel_p", "hac_p", "hac_prewhitened_p"):
        assert getattr(here, name) == pytest.approx(getattr(there, name), rel=1e-6)
    assert here.bootstrap_p == pytest.approx(there.bootstrap_p, abs=0.011)
    if here.bootstrap_ci95 is not None and there.bootstrap_ci95 is not None:
        low, high = there.bootstrap_ci95
        assert here.bootstrap_ci95 == pytest.approx((-high, -low), rel=1e-6)


def test_other_unit_of_one_model_changes_the_closed_form_nothing() -> None:
    """A Sharpe ratio has no unit: a model with twice the stake has the same difference and Memmel test."""
    first, second = pair(63)
    plain = sharpe_difference(first, second, reps=19)
    doubled = sharpe_difference(first, 2 * second, reps=19)
    for name in ("difference", "correlation", "memmel_se", "memmel_p"):
        assert getattr(doubled, name) == pytest.approx(getattr(plain, name), rel=1e-9)


def test_p_values_are_never_zero_and_interval_agrees_with_test() -> None:
    """An overwhelming edge gives 1 / (reps + 1); zero lies outside the interval just when p <= .05."""
    strong = sharpe_difference(*pair(252, edge=1.5), reps=999)
    assert strong.bootstrap_p == strong.bootstrap_p_one_sided == 1 / 1000
    for seed in range(12):
        found = sharpe_difference(*pair(63, seed, edge=0.3 * (seed % 2)), reps=199, seed=seed)
        assert found.bootstrap_p is not None
        assert found.bootstrap_ci95 is not None
        low, high = found.bootstrap_ci95
        assert (low > 0 or high < 0) == (found.bootstrap_p <= 0.05)


def test_bootstrap_keeps_its_size_on_equal_models() -> None:
    """At 63 days with equal models and blocks of one day about one test in twenty rejects."""
    rejected = sum(sharpe_difference(*pair(63, seed), reps=199).bootstrap_p <= 0.05 for seed in range(300))  # type: ignore[operator]
    assert 3 <= rejected <= 30


def test_same_seed_same_numbers() -> None:
    """Every figure repeats with its seed, and another seed draws other blocks."""
    first, second = pair(63)
    again = sharpe_difference(first, second, block=3, reps=499, seed=7)
    assert again == sharpe_difference(first, second, block=3, reps=499, seed=7)
    assert again.bootstrap_ci95 != sharpe_difference(first, second, block=3, reps=499, seed=8).bootstrap_ci95


# --- undefined, and refused


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        ([], [], "fewer than two"),
        ([0.1], [0.2], "fewer than two"),
        ([0.0] * 30, list(pair(30)[0]), "r1: the returns do not vary"),
        (list(pair(30)[0]), [0.01] * 30, "r2: the returns do not vary"),
        ([NAN, *pair(29)[0]], list(pair(30)[1]), "not finite"),
        ([INF, *pair(29)[0]], list(pair(30)[1]), "not finite"),
        (list(pair(9)[0]), list(pair(9)[1]), "fewer than 10"),
        (list(pair(30)[0]), list(pair(30)[0]), "the same"),
        (list(pair(30)[0]), list(3 * pair(30)[0]), "the same"),
        (list(1e300 * pair(30)[0]), list(pair(30)[1]), "too large or too small"),
        (list(1e-300 * pair(30)[0]), list(pair(30)[1]), "too small"),
    ],
)
def test_difference_that_does_not_exist_says_why(
    first: list[float], second: list[float], reason: str
) -> None:
    """Unusable returns give a reason and no p-value, interval or warning."""
    found = sharpe_difference(first, second, reps=19)
    assert found.status == "undefined"
    assert reason in found.reason
    tests = [name for name in dataclasses.asdict(found) if name.endswith(("_p", "_se", "_ci95", "one_sided"))]
    assert len(tests) == 9
    assert all(getattr(found, name) is None for name in tests)


def test_days_without_trades_are_data() -> None:
    """A model that trades on few days has a difference; draws without its trades widen the interval."""
    first, second = pair(63)
    rare = np.where(np.arange(63) % 31 == 0, second, 0.0)
    found = sharpe_difference(first, rare, reps=199)
    assert found.status == "ok"
    assert 0.0 < found.bootstrap_p <= 1.0  # type: ignore[operator]


def test_scalars_that_cannot_be_used_give_none() -> None:
    """NaN, one observation, impossible moments, and a Sharpe ratio that beats nothing."""
    assert probabilistic_sharpe_ratio(NAN, 24, 0, 3) is None
    assert probabilistic_sharpe_ratio(0.1, 1, 0, 3) is None
    assert probabilistic_sharpe_ratio(0.1, NAN, 0, 3) is None
    assert probabilistic_sharpe_ratio(0.1, 24, 0, 3, NAN) is None
    assert sharpe_standard_error(2.0, 24, 5.0, 1.0) is None
    assert sharpe_standard_error(1e200, 24, 0.0, 3.0) is None
    assert min_track_record_length(0.1, 0, 3, 0.1) is None
    assert min_track_record_length(-0.1, 0, 3) is None
    assert min_track_record_length(INF, 0, 3) is None
    assert deflated_sharpe_ratio(0.1, 24, 0, 3, NAN, 5) is None
    assert deflated_sharpe_ratio(0.1, 24, 0, 3, -1.0, 5) is None
    assert min_backtest_length(10, 0.0) is None
    assert min_backtest_length(10, NAN) is None
    assert annualisation_factor(252, 1.0) is None
    assert annualisation_factor(252, NAN) is None


def test_moments_of_unusable_returns_say_why() -> None:
    """Empty, single, constant and non-finite returns have no moments; two returns have."""
    for returns in ([], [0.1], [0.1, 0.1, 0.1], [0.0] * 5, [0.1, NAN]):
        found = return_moments(returns)
        assert (found.status, found.sr, found.n) == ("undefined", None, len(returns))
        assert found.reason
    assert return_moments([0.0, 2.0]).sr == pytest.approx(1 / np.sqrt(2))


def test_calls_that_cannot_be_meant_are_refused() -> None:
    """Wrong shapes and impossible arguments are refused in one line."""
    first, second = pair(30)
    with pytest.raises(UsageError, match="same days"):
        sharpe_difference(first, second[1:])
    with pytest.raises(UsageError, match="one-dimensional"):
        sharpe_difference(first[:, None], second)
    with pytest.raises(UsageError, match="block 0"):
        sharpe_difference(first, second, block=0)
    with pytest.raises(UsageError, match="draws"):
        sharpe_difference(first, second, reps=18)
    for trials in (0, -3, NAN, INF):
        with pytest.raises(UsageError, match="trials"):
            expected_max_z(trials)
    for confidence in (0.4, 1.0, NAN):
        with pytest.raises(UsageError, match="confidence"):
            min_track_record_length(0.1, 0, 3, confidence=confidence)
    with pytest.raises(UsageError, match="periods"):
        annualisation_factor(0)
