"""Probability of backtest overfitting: by hand, closed forms, and what is undefined."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqkit.errors import UsageError
from sqkit.research.overfitting import probability_of_backtest_overfitting as pbo


def waves() -> np.ndarray:
    """Ten trials over 240 periods without a random number."""
    t, n = np.arange(1, 241)[:, None], np.arange(1, 11)[None, :]
    series: np.ndarray = 0.01 * np.sin(1.37 * n * t + 0.7 * n**2) + 0.004 * np.sin(0.11 * n * t)
    return series


def test_by_hand() -> None:
    """A trial that is always best never disappoints; one that alternates always does."""
    assert pbo([[1, 0]] * 4, 4, metric="mean", rows_per_block=1).probability == 0.0
    assert pbo([[1, -1], [-1, 1]], 2, metric="mean", rows_per_block=1).probability == 1.0


def test_closed_forms() -> None:
    """Published values of the waves: .83333 with 4 blocks, .97143 with 8, 0 once a trial has an edge."""
    assert pbo(waves(), 4).probability == pytest.approx(0.83333, abs=5e-6)
    assert pbo(waves(), 8).probability == pytest.approx(0.97143, abs=5e-6)
    edge = waves()
    edge[:, 3] += 0.01
    assert pbo(edge, 8).probability == 0.0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 8), st.integers(120, 150))
def test_order_and_stake_of_trials_do_not_matter(seed: int, trials: int, rows: int) -> None:
    """Columns in any order, each with its own positive stake, give the same probability."""
    generator = np.random.default_rng(seed)
    returns = generator.normal(0.0, 0.01, (rows, trials))
    found = pbo(returns, 8)
    other = pbo(returns[:, generator.permutation(trials)] * 2.0, 8)
    assert found.splits == 70
    assert 0.0 <= found.probability <= 1.0  # type: ignore[operator]
    assert found.probability == other.probability


def test_short_records_use_eight_blocks() -> None:
    """Fewer than 15 rows a block: eight blocks instead of 16, and below 120 rows nothing."""
    returns = np.random.default_rng(0).normal(size=(240, 5))
    assert pbo(returns).blocks == 16
    assert pbo(returns[:239]).blocks == 8
    assert pbo(returns[:119]).status == "undefined"


def test_idle_trial_ranks_as_zero() -> None:
    """A trial that never trades is ranked with a Sharpe ratio of zero."""
    returns = np.random.default_rng(0).normal(0.2, 1.0, (240, 3))
    returns[:, 1] = 0.0
    assert pbo(returns, 8).status == "ok"


@pytest.mark.parametrize(
    ("returns", "reason"),
    [
        ([], "0 rows"),
        (np.zeros((0, 5)), "0 rows"),
        (np.ones((1, 5)), "1 rows"),
        (np.ones((240, 1)), "fewer than two"),
        (np.ones((240, 5)), "same returns"),
        (np.zeros((240, 5)), "same returns"),
        (np.ones((240, 1)) * [1.0, 2.0], "constant"),
        (np.where(np.arange(480).reshape(240, 2) == 7, np.nan, 1.0), "not finite"),
        (np.random.default_rng(0).normal(size=(240, 2)) * 1e300, "too large"),
    ],
)
def test_search_that_cannot_be_judged_says_why(returns: object, reason: str) -> None:
    """Empty, one day, one trial, constant, NaN: a reason and no probability."""
    found = pbo(returns)  # type: ignore[arg-type]
    assert found.status == "undefined"
    assert reason in found.reason
    assert found.probability is None


def test_calls_that_cannot_be_meant_are_refused() -> None:
    """Odd blocks, an unknown metric and a single series are refused in one line."""
    for blocks in (7, 0, -2, 22):
        with pytest.raises(UsageError, match="blocks"):
            pbo(waves(), blocks)
    with pytest.raises(UsageError, match="metric"):
        pbo(waves(), 8, metric="calmar")
    with pytest.raises(UsageError, match="two dimensions"):
        pbo(waves()[:, 0], 8)
