"""Paired differences by day and calibration: published values, symmetries, and what is undefined."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sqkit.errors import UsageError
from sqkit.research.paired_statistics import (
    calibration,
    loss_differential,
    precision_difference,
    wilson_interval,
)

NAN = float("nan")
SIX_DAYS = np.array([[6, 10, 4, 9], [3, 6, 4, 8], [8, 12, 6, 11], [2, 5, 3, 6], [5, 7, 4, 8], [4, 9, 5, 10]])
NUMBERS = ("student", "baseline", "difference", "se", "t", "p_two_sided", "p_one_sided")


def day_counts(days: int, seed: int, lift: float = 0.0) -> np.ndarray:
    """Right calls and calls of two models, some days without any call."""
    generator = np.random.default_rng(seed)
    calls = generator.integers(0, 30, (days, 2))
    right = generator.binomial(calls, [0.5 + lift, 0.5])
    return np.column_stack([right[:, 0], calls[:, 0], right[:, 1], calls[:, 1]])


# --- precision


def test_six_days_by_hand() -> None:
    """The exhaustive example: difference .0714286, se .0460801, t 1.550095 with p .181810."""
    found = precision_difference(SIX_DAYS)
    assert found.difference == pytest.approx(0.0714286, abs=5e-8)
    assert found.se == pytest.approx(0.0460801, abs=5e-8)
    assert found.t == pytest.approx(1.550095, abs=5e-7)
    assert found.p_two_sided == pytest.approx(0.181810, abs=5e-7)
    assert found.p_one_sided == pytest.approx(0.181810 / 2, abs=5e-7)
    assert (found.clusters, found.df, found.rows) == (6, 5, int(SIX_DAYS[:, [1, 3]].sum()))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(4, 80))
def test_swap_flips_and_order_of_days_does_not_matter(seed: int, days: int) -> None:
    """Swapped models change signs only; shuffled days and days without calls change nothing."""
    counts = day_counts(days, seed)
    here, there = precision_difference(counts), precision_difference(counts[:, [2, 3, 0, 1]])
    shuffled = np.random.default_rng(seed).permutation(np.vstack([counts, np.zeros((3, 4), int)]))
    moved = precision_difference(shuffled)
    assert here.status == "ok"
    assert here.difference == pytest.approx(-there.difference, abs=1e-15)  # type: ignore[operator]
    assert here.t == pytest.approx(-there.t, rel=1e-9, abs=1e-12)  # type: ignore[operator]
    assert here.p_two_sided == pytest.approx(there.p_two_sided, rel=1e-9)
    assert here.p_one_sided == pytest.approx(1 - there.p_one_sided, rel=1e-9)  # type: ignore[operator]
    assert (moved.clusters, moved.rows) == (here.clusters, here.rows)
    for name in NUMBERS:
        assert getattr(moved, name) == pytest.approx(getattr(here, name), rel=1e-9, abs=1e-12)


def test_day_shocks_widen_the_interval() -> None:
    """Repeating every call of a day adds rows but no evidence: se stays, unlike a binomial one."""
    once = precision_difference(SIX_DAYS)
    repeated = precision_difference(SIX_DAYS * 100)
    assert repeated.se == pytest.approx(once.se, rel=1e-12)
    assert repeated.rows == 100 * once.rows


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ([], "the student makes no call"),
        (np.zeros((0, 4)), "the student makes no call"),
        ([[6, 10, 4, 9]], "fewer than two"),
        ([[0, 0, 4, 9], [0, 0, 4, 8]], "the student makes no call"),
        ([[4, 9, 0, 0], [4, 8, 0, 0]], "the baseline makes no call"),
        ([[6, 10, 4, 9], [6, 10, NAN, 9]], "not finite"),
        ([[9, 9, 9, 9], [8, 8, 8, 8]], "does not vary"),
        ([[9, 9, 0, 9], [8, 8, 0, 8]], "does not vary"),
        ([[6, 10, 4, 9], [6, 10, 4, 9]], "does not vary"),
    ],
)
def test_precision_without_evidence_says_why(counts: object, reason: str) -> None:
    """No calls, one day, NaN or no variation: a reason, and neither p-value nor interval."""
    found = precision_difference(counts)  # type: ignore[arg-type]
    assert found.status == "undefined"
    assert reason in found.reason
    assert (found.se, found.t, found.p_one_sided, found.p_two_sided, found.ci95) == (None,) * 5


def test_impossible_counts_are_refused() -> None:
    """Wrong shapes, negative counts and more right calls than calls are refused in one line."""
    for counts, said in (
        ([[1, 2, 3]], "four columns"),
        ([1, 2, 3, 4], "four columns"),
        ([[1, 2, 1, 2], [3, 2, 1, 2]], "row 1"),
        ([[-1, 2, 1, 2]], "row 0"),
    ):
        with pytest.raises(UsageError, match=said):
            precision_difference(counts)


# --- loss


def test_one_row_a_day_is_the_one_sample_t_test() -> None:
    """SciPy's t test on the daily differences, and the published Diebold-Mariano example p .160415."""
    d = np.array([0.02, -0.01, 0.03, 0.015, -0.005, 0.01, 0.025, -0.02, 0.005, 0.02, 0.01, -0.015])
    found = loss_differential(d, np.zeros(12), np.arange(12))
    known = stats.ttest_1samp(d, 0.0)
    interval = known.confidence_interval()
    assert found.t == pytest.approx(known.statistic, rel=1e-12)
    assert found.p_two_sided == pytest.approx(0.160415329625, abs=1e-11)
    assert found.p_one_sided == pytest.approx(stats.ttest_1samp(d, 0.0, alternative="greater").pvalue)
    assert found.ci95 == pytest.approx((interval.low, interval.high), rel=1e-10)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(-5, 5))
def test_loss_symmetries(seed: int, constant: float) -> None:
    """A swap flips signs; a constant on both losses, the order of rows and the days' names do not matter."""
    generator = np.random.default_rng(seed)
    days = generator.integers(0, 20, 200)
    base, student = generator.random(200), generator.random(200)
    here = loss_differential(base, student, days)
    there = loss_differential(student, base, days)
    order = generator.permutation(200)
    renamed = generator.permutation(50)[days]
    moved = loss_differential(base[order] + constant, student[order] + constant, renamed[order])
    assert here.status == "ok"
    assert here.difference == pytest.approx(-there.difference, abs=1e-15)  # type: ignore[operator]
    assert here.p_one_sided == pytest.approx(1 - there.p_one_sided, rel=1e-9)  # type: ignore[operator]
    for name in ("difference", "se", "t", "p_two_sided", "p_one_sided"):
        assert getattr(moved, name) == pytest.approx(getattr(here, name), rel=1e-7, abs=1e-10)


def test_every_day_weighs_alike() -> None:
    """The difference is the mean of day means, however many rows a day has."""
    found = loss_differential([3.0, 1.0, 1.0, 1.0], [0.0] * 4, [1, 2, 2, 2])
    assert found.difference == 2.0
    assert (found.clusters, found.rows) == (2, 4)


@pytest.mark.parametrize(
    ("base", "student", "days", "reason"),
    [
        ([], [], [], "no row"),
        ([0.2, 0.3], [0.1, 0.1], [5, 5], "fewer than two"),
        ([0.2, NAN], [0.1, 0.1], [5, 6], "not finite"),
        ([0.2, 0.2], [0.1, 0.1], [5, NAN], "day is not finite"),
        ([0.2, 0.2], [0.2, 0.2], [5, 6], "does not vary"),
        ([0.3, 0.4], [0.2, 0.3], [5, 6], "does not vary"),
        ([1e308, -1e308], [-1e308, 1e308], [5, 6], "too large"),
    ],
)
def test_loss_without_evidence_says_why(
    base: list[float], student: list[float], days: list[float], reason: str
) -> None:
    """Empty, one day, NaN or a constant lead: a reason and no test, even where the student is better."""
    found = loss_differential(base, student, days)
    assert found.status == "undefined"
    assert reason in found.reason
    assert (found.se, found.p_one_sided, found.ci95) == (None, None, None)


def test_mismatched_rows_are_refused() -> None:
    """Losses of different rows are never compared."""
    with pytest.raises(UsageError, match="one length"):
        loss_differential([0.1, 0.2], [0.1], [1, 2])
    with pytest.raises(UsageError, match="one length"):
        calibration([0.1, 0.2], [1])


# --- one model


def test_published_wilson_intervals() -> None:
    """DTComPair's README: 397 of 481 and 341 of 394; SciPy agrees at another level."""
    assert wilson_interval(397, 481) == pytest.approx((0.7889, 0.8567), abs=5e-5)
    assert wilson_interval(341, 394) == pytest.approx((0.8282, 0.8957), abs=5e-5)
    known = stats.binomtest(7, 31).proportion_ci(0.8, method="wilson")
    assert wilson_interval(7, 31, 0.8) == pytest.approx((known.low, known.high), rel=1e-12)
    assert wilson_interval(0, 0) is None
    assert wilson_interval(NAN, 3) is None
    for arguments in ((4, 3), (-1, 3), (1, -3), (1, 3, 1.0)):
        with pytest.raises(UsageError):
            wilson_interval(*arguments)


def test_published_calibration_errors() -> None:
    """torchmetrics' docstring: .2900, root mean square .2918, largest .3167."""
    found = calibration([0.25, 0.25, 0.55, 0.75, 0.75], [0, 0, 1, 1, 1], bins=2)
    assert found.ece == pytest.approx(0.2900, abs=5e-5)
    assert found.ece_rms == pytest.approx(0.2918, abs=5e-5)
    assert found.ece_max == pytest.approx(0.3167, abs=5e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 300), st.integers(1, 20))
def test_parts_add_up_to_the_brier_score(seed: int, rows: int, bins: int) -> None:
    """Reliability - resolution + uncertainty + the rest within bins is the Brier score."""
    generator = np.random.default_rng(seed)
    p = generator.random(rows)
    y = np.r_[0, 1, generator.random(rows - 2) < 0.5]
    found = calibration(p, y, bins)
    assert found.status == "ok"
    assert found.brier == pytest.approx(np.mean((p - y) ** 2), rel=1e-12)
    parts = found.reliability - found.resolution + found.uncertainty + found.within_bins  # type: ignore[operator]
    assert parts == pytest.approx(found.brier, abs=1e-12)
    assert sum(part["count"] for part in found.bins) == rows


def test_perfect_model_lies_within_its_own_null() -> None:
    """About one honest model in twenty exceeds its null; shifted probabilities do nearly always."""
    honest = shifted = 0
    for seed in range(100):
        generator = np.random.default_rng(seed)
        p = np.clip(generator.normal(0.53, 0.05, 500), 0.01, 0.85)
        y = generator.random(500) < p
        found, moved = calibration(p, y, seed=seed), calibration(p + 0.12, y, seed=seed)
        honest += found.ece > found.ece_null_95  # type: ignore[operator]
        shifted += moved.ece > moved.ece_null_95  # type: ignore[operator]
    assert honest <= 13
    assert shifted >= 95


def test_large_bins_have_the_null_of_their_parts() -> None:
    """The normal limit that large bins use agrees with exact draws of the same probabilities."""
    generator = np.random.default_rng(3)
    p = np.repeat(0.55, 1001)
    limit = calibration(p, generator.random(1001) < p).ece_null_95
    exact = np.quantile(np.abs(generator.binomial(1001, 0.55, 20_000) / 1001 - 0.55), 0.95)
    assert limit == pytest.approx(exact, rel=0.12)


@pytest.mark.parametrize(
    ("p", "y", "reason"),
    [
        ([], [], "no row"),
        ([0.5, NAN], [0, 1], "not finite"),
        ([0.5, 0.5], [0, NAN], "not finite"),
        ([0.5, 0.6], [1, 1], "one class"),
        ([0.5], [0], "one class"),
    ],
)
def test_calibration_without_evidence_says_why(p: list[float], y: list[float], reason: str) -> None:
    """Empty, NaN and outcomes of one class: a reason and no calibration error."""
    found = calibration(p, y)
    assert found.status == "undefined"
    assert reason in found.reason
    assert (found.ece, found.ece_null_95, found.ece_p) == (None, None, None)


def test_values_that_are_no_probabilities_are_refused() -> None:
    """A probability outside [0, 1], an outcome that is neither 0 nor 1, and no bin are refused."""
    for arguments in (([1.2], [1]), ([0.5], [0.5]), ([0.5], [1], 0)):
        with pytest.raises(UsageError):
            calibration(*arguments)
