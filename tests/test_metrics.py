"""Outcomes and metrics: definitions, published values, and what is undefined."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sqkit.errors import UsageError
from sqkit.metrics import (
    METRIC_KEYS,
    accuracy_metrics,
    adequacy_counts,
    financial_metrics,
    horizon_outcomes,
    seven_metrics,
)
from sqkit.records import DOWN, FLAT, INSIDE, LONG, SHORT, UNKNOWN, UP

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import empyrical


def walk(bars: int, seed: int = 0, scale: float = 1e-3) -> np.ndarray:
    """A random walk of prices."""
    return 100.0 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0.0, scale, bars)))


# --- outcomes


def test_outcome_is_the_move_against_the_dead_zone() -> None:
    """Every known outcome follows from the written definition, computed one bar at a time."""
    close, horizon, dead_zone = walk(300), 5, 0.5
    found = horizon_outcomes(close, np.zeros(300, int), horizon, dead_zone=dead_zone, within_session=False)

    for t in range(20, 300 - horizon):
        move = np.log(close[t + horizon] / close[t])
        volatility = np.std(np.diff(np.log(close[t - 20 : t + 1])))
        bound = dead_zone * volatility * np.sqrt(horizon)
        expected = UP if move > bound else DOWN if move < -bound else INSIDE
        assert found.outcome[t] == expected
        assert found.move[t] == pytest.approx(move, abs=1e-15)
        assert found.volatility[t] == pytest.approx(volatility, rel=1e-9)
        assert found.label_end[t] == t + horizon


def test_outcome_needs_twenty_returns_before_and_the_horizon_after() -> None:
    """The first 20 and the last h bars are unknown, with no label end and no move."""
    found = horizon_outcomes(walk(60), np.zeros(60, int), 7, within_session=False)
    unknown = np.r_[0:20, 53:60]

    assert (found.outcome[unknown] == UNKNOWN).all()
    assert (found.label_end[unknown] == -1).all()
    assert np.isnan(found.move[unknown]).all()
    assert (found.outcome[20:53] != UNKNOWN).all()


@pytest.mark.parametrize("bars", [0, 1, 5, 20, 21, 25])
def test_short_series_have_no_outcome_and_no_warning(bars: int) -> None:
    """A series shorter than volatility and horizon need gives unknown outcomes of the right length."""
    found = horizon_outcomes(walk(bars), np.zeros(bars, int), 5, within_session=True)

    assert (
        found.outcome.shape == found.move.shape == found.volatility.shape == found.label_end.shape == (bars,)
    )
    assert (found.outcome == UNKNOWN).all()


def test_an_intraday_outcome_never_crosses_a_session() -> None:
    """Within sessions the last h bars of each session are unknown; across sessions they are not."""
    days = np.repeat([100, 101, 103], [50, 30, 4])
    inside = horizon_outcomes(walk(84), days, 6, within_session=True)
    across = horizon_outcomes(walk(84), days, 6, within_session=False)

    expected = np.zeros(84, bool)
    expected[20:44] = expected[50:74] = True
    np.testing.assert_array_equal(inside.outcome != UNKNOWN, expected)
    assert (across.outcome[20:78] != UNKNOWN).all()
    assert all(days[t] == days[end] for t, end in enumerate(inside.label_end) if end >= 0)


@settings(deadline=None)
@given(cut=st.integers(1, 200), seed=st.integers(0, 50))
def test_outcomes_look_ahead_only_through_the_label(cut: int, seed: int) -> None:
    """Cutting the series at n changes no bit of an outcome whose label ends before n, nor any volatility."""
    close, days = walk(200, seed), np.arange(200) // 40
    whole = horizon_outcomes(close, days, 4, within_session=True)
    part = horizon_outcomes(close[:cut], days[:cut], 4, within_session=True)
    settled = (whole.label_end[:cut] >= 0) & (whole.label_end[:cut] < cut)

    np.testing.assert_array_equal(whole.volatility[:cut], part.volatility)
    np.testing.assert_array_equal(whole.outcome[:cut][settled], part.outcome[settled])
    np.testing.assert_array_equal(whole.move[:cut][settled], part.move[settled])
    assert (part.outcome[~settled] == UNKNOWN).all()


def test_a_wider_dead_zone_only_moves_outcomes_inside() -> None:
    """With a larger dead zone a decisive outcome stays or becomes INSIDE; none flips, none appears."""
    close, days = walk(500), np.zeros(500, int)
    narrow = horizon_outcomes(close, days, 5, dead_zone=0.2, within_session=False).outcome
    wide = horizon_outcomes(close, days, 5, dead_zone=1.0, within_session=False).outcome

    assert set(wide[narrow == UP]) == {UP, INSIDE}
    assert set(wide[narrow == DOWN]) == {DOWN, INSIDE}
    assert set(wide[narrow == INSIDE]) == {INSIDE}


def test_a_constant_price_is_inside_and_a_zero_price_unknown() -> None:
    """No move is INSIDE even without volatility; a price without a logarithm gives UNKNOWN, no warning."""
    flat = horizon_outcomes(np.full(40, 7.0), np.zeros(40, int), 3, within_session=False)
    broken = walk(80)
    broken[40] = 0.0
    around = horizon_outcomes(broken, np.zeros(80, int), 3, within_session=False).outcome

    assert (flat.outcome[20:37] == INSIDE).all()
    touched = [37, *range(40, 61)]  # the label ends on it, starts on it, or the volatility sees it
    assert (around[touched] == UNKNOWN).all()
    assert (np.delete(around, touched)[20:55] != UNKNOWN).all()


@pytest.mark.parametrize(
    ("horizon", "dead_zone", "days"),
    [(0, 0.5, 40), (5, -0.1, 40), (5, np.nan, 40), (5, np.inf, 40), (5, 0.5, 39)],
)
def test_what_cannot_be_meant_is_refused(horizon: int, dead_zone: float, days: int) -> None:
    """A horizon below 1, a dead zone that is no number of at least 0, and unequal lengths are refused."""
    with pytest.raises(UsageError):
        horizon_outcomes(walk(40), np.zeros(days, int), horizon, dead_zone=dead_zone, within_session=False)


# --- accuracy


def test_accuracy_counts_on_a_written_example() -> None:
    """A directional call is right only beyond the dead zone, FLAT only inside; unknown rows do not count."""
    calls = np.array([LONG, LONG, LONG, SHORT, SHORT, FLAT, FLAT, LONG], np.int8)
    outcomes = np.array([UP, INSIDE, DOWN, DOWN, INSIDE, INSIDE, UP, UNKNOWN], np.int8)
    found = accuracy_metrics(calls, outcomes)

    assert found["precision_long"] == pytest.approx(1 / 3)
    assert found["precision_short"] == pytest.approx(1 / 2)
    assert found["hit_ratio"] == pytest.approx(2 / 5)
    assert found["accuracy"] == pytest.approx(3 / 7)
    assert found["coverage"] == pytest.approx(5 / 7)
    assert found["always_flat_accuracy"] == pytest.approx(3 / 7)
    assert found["counts"] == {
        "rows": 7,
        "calls": 5,
        "calls_long": 3,
        "calls_short": 2,
        "right_long": 1,
        "right_short": 1,
        "decisive": 4,
        "scored_decisive": 0,
    }
    assert found["brier"] is None
    assert found["calibration"] is None
    assert found["undefined"] == {}


def test_always_flat_scores_the_always_flat_accuracy() -> None:
    """An all-FLAT student's accuracy is the always-FLAT accuracy; its precisions and hit ratio are undefined."""
    outcomes = horizon_outcomes(walk(400), np.zeros(400, int), 5, within_session=False).outcome
    found = accuracy_metrics(np.zeros(400, np.int8), outcomes)

    assert found["accuracy"] == found["always_flat_accuracy"]
    assert found["coverage"] == 0.0
    for name in ("precision_long", "precision_short", "hit_ratio"):
        assert found[name] is None
        assert found["undefined"][name]


def test_nothing_known_is_undefined_with_reasons() -> None:
    """Without a known outcome every share is None with its reason, never NaN."""
    for calls in (np.array([], np.int8), np.array([LONG, FLAT], np.int8)):
        found = accuracy_metrics(calls, np.full(len(calls), UNKNOWN, np.int8), np.full(len(calls), 0.7))

        for name in ("precision_long", "hit_ratio", "accuracy", "coverage", "always_flat_accuracy", "brier"):
            assert found[name] is None
            assert found["undefined"][name]


@settings(deadline=None)
@given(seed=st.integers(0, 1000), rows=st.integers(1, 200))
def test_accuracy_ignores_row_order_and_mirrors_with_the_market(seed: int, rows: int) -> None:
    """Shuffled rows change nothing; with calls, outcomes and probabilities mirrored LONG and SHORT swap."""
    rng = np.random.default_rng(seed)
    calls = rng.integers(-1, 2, rows).astype(np.int8)
    outcomes = rng.choice(np.array([UP, INSIDE, DOWN, UNKNOWN], np.int8), rows)
    probability = rng.integers(0, 65, rows) / 64
    found = accuracy_metrics(calls, outcomes, probability)
    order = rng.permutation(rows)
    shuffled = accuracy_metrics(calls[order], outcomes[order], probability[order])
    flipped = np.where(outcomes == UNKNOWN, UNKNOWN, -outcomes).astype(np.int8)
    mirrored = accuracy_metrics(-calls, flipped, 1.0 - probability)

    assert shuffled["counts"] == found["counts"]
    assert shuffled["brier"] == pytest.approx(found["brier"]) if found["brier"] is not None else True
    for ours, theirs in (
        ("precision_long", "precision_short"),
        ("hit_ratio", "hit_ratio"),
        ("accuracy",) * 2,
    ):
        assert mirrored[ours] == found[theirs]
    assert mirrored["brier"] == pytest.approx(found["brier"]) if found["brier"] is not None else True


def test_brier_counts_decisive_scored_rows_only() -> None:
    """Rows inside the dead zone, unknown or unscored do not enter Brier; both counts are stored."""
    outcomes = np.array([UP, DOWN, INSIDE, UNKNOWN, UP, UP], np.int8)
    probability = np.array([0.8, 0.3, 0.9, 0.9, np.nan, 0.5])
    found = accuracy_metrics(np.zeros(6, np.int8), outcomes, probability)

    assert found["brier"] == pytest.approx((0.2**2 + 0.3**2 + 0.5**2) / 3)
    assert found["counts"]["decisive"] == 4
    assert found["counts"]["scored_decisive"] == 3


def test_calibration_bins_hold_every_row_once() -> None:
    """Ten bins (low, high], zero in the first; an empty bin has no mean; the means rebuild the totals."""
    probability = np.array([0.0, 0.1, 0.1000001, 0.55, 0.6, 1.0])
    outcomes = np.array([DOWN, UP, UP, DOWN, UP, UP], np.int8)
    bins = accuracy_metrics(np.zeros(6, np.int8), outcomes, probability)["calibration"]

    assert [bin_["count"] for bin_ in bins] == [2, 1, 0, 0, 0, 2, 0, 0, 0, 1]
    assert bins[0] == {"low": 0.0, "high": 0.1, "count": 2, "mean_predicted": 0.05, "observed_share": 0.5}
    assert bins[2]["mean_predicted"] is None
    assert bins[2]["observed_share"] is None
    assert sum(b["count"] * b["mean_predicted"] for b in bins if b["count"]) == pytest.approx(
        probability.sum()
    )


def test_calibration_agrees_with_scikit_learn() -> None:
    """On non-empty bins mean prediction and observed share are scikit-learn's uniform calibration curve."""
    calibration_curve = pytest.importorskip("sklearn.calibration").calibration_curve
    rng = np.random.default_rng(3)
    probability = rng.beta(2, 2, 4000).round(2)
    up = rng.random(4000) < probability
    outcomes = np.where(up, UP, DOWN).astype(np.int8)
    found = accuracy_metrics(np.zeros(4000, np.int8), outcomes, probability)
    share, mean = calibration_curve(up, probability, n_bins=10)

    filled = [bin_ for bin_ in found["calibration"] if bin_["count"]]
    np.testing.assert_allclose([bin_["mean_predicted"] for bin_ in filled], mean)
    np.testing.assert_allclose([bin_["observed_share"] for bin_ in filled], share)


@pytest.mark.parametrize(
    ("calls", "outcomes", "probability"),
    [
        ([2], [UP], None),
        ([LONG], [5], None),
        ([LONG, FLAT], [UP], None),
        ([LONG], [UP], [1.1]),
        ([LONG], [UP], [0.5, 0.5]),
    ],
)
def test_values_that_are_no_codes_are_refused(
    calls: list[int], outcomes: list[int], probability: Any
) -> None:
    """A call or outcome that is no code, unequal lengths and a probability outside [0, 1] are refused."""
    with pytest.raises(UsageError):
        accuracy_metrics(np.array(calls), np.array(outcomes), probability and np.array(probability))


# --- finance


@settings(deadline=None)
@given(
    hnp.arrays(np.float64, st.integers(2, 80), elements=st.floats(-0.2, 0.2, allow_subnormal=False)).filter(
        lambda returns: np.std(returns) > 1e-6
    )
)
def test_financial_metrics_are_empyricals_where_defined(returns: np.ndarray) -> None:
    """Sharpe and total return equal empyrical's; the drawdown is its drawdown with the sign turned."""
    found = financial_metrics(returns, np.array([]))

    assert found["sharpe_ratio"] == pytest.approx(empyrical.sharpe_ratio(returns), rel=1e-9, abs=1e-9)
    assert found["total_return"] == pytest.approx(empyrical.cum_returns_final(returns), rel=1e-9, abs=1e-12)
    assert found["max_drawdown"] == pytest.approx(-empyrical.max_drawdown(returns), rel=1e-9, abs=1e-12)


def test_financial_metrics_of_the_published_cases(shared_data: Path) -> None:
    """Sharpe and drawdown of the facts file's metric cases, empyrical's own published tests among them."""
    tables = shared_data.parent / "facts" / "stat_tables.json"
    if not tables.is_file():
        pytest.skip(f"no published cases at {tables}")
    cases = json.loads(tables.read_text())["cases"]
    daily = [case for case in cases if case["id"].startswith("metrics.") and "returns_pct" in case["inputs"]]

    assert len(daily) >= 3
    for case in daily:
        found = financial_metrics(np.array(case["inputs"]["returns_pct"]) / 100, np.array([]))
        assert found["sharpe_ratio"] == pytest.approx(case["expected"]["sharpe"], abs=case["abs_tol"])
        assert found["max_drawdown"] == pytest.approx(-case["expected"]["max_drawdown"], abs=case["abs_tol"])


def test_brier_of_the_published_cases(shared_data: Path) -> None:
    """The Brier scores of the facts file come out when UP is the positive class."""
    tables = shared_data.parent / "facts" / "stat_tables.json"
    if not tables.is_file():
        pytest.skip(f"no published cases at {tables}")
    cases = [case for case in json.loads(tables.read_text())["cases"] if "brier" in case["expected"]]

    assert len(cases) >= 2
    for case in cases:
        outcomes = np.where(np.array(case["inputs"]["y"]) == 1, UP, DOWN).astype(np.int8)
        found = accuracy_metrics(np.zeros(len(outcomes), np.int8), outcomes, np.array(case["inputs"]["p"]))
        assert found["brier"] == pytest.approx(case["expected"]["brier"], abs=case["abs_tol"])


def test_drawdown_counts_the_start_and_is_positive() -> None:
    """A loss on the first day is a drawdown from the starting capital."""
    assert financial_metrics(np.array([-0.1, 0.05]), np.array([]))["max_drawdown"] == pytest.approx(0.1)
    assert financial_metrics(np.array([0.1, -0.2, 0.5]), np.array([]))["max_drawdown"] == pytest.approx(0.2)
    assert financial_metrics(np.array([0.1, 0.0]), np.array([]))["max_drawdown"] == 0.0


def test_a_trade_that_earns_nothing_is_no_win() -> None:
    """Win rate is winning over closed trades; zero is no win; without trades it is undefined."""
    assert financial_metrics(np.zeros(2), np.array([5.0, 0.0, -1.0, 2.0]))["win_rate"] == 0.5
    nothing = financial_metrics(np.zeros(2), np.array([]))
    assert nothing["win_rate"] is None
    assert nothing["undefined"]["win_rate"] == "no closed trade"


@pytest.mark.parametrize(
    ("returns", "undefined"),
    [
        ([], {"sharpe_ratio", "total_return", "max_drawdown"}),
        ([0.01], {"sharpe_ratio"}),
        ([0.0] * 63, {"sharpe_ratio"}),
        ([0.01] * 63, {"sharpe_ratio"}),
        ([0.1 + 0.2, 0.3] * 30, {"sharpe_ratio"}),
        ([0.01, np.nan, 0.02], {"sharpe_ratio", "total_return", "max_drawdown"}),
        ([0.01, np.inf, 0.02], {"sharpe_ratio", "total_return", "max_drawdown"}),
        ([0.01, -1.5, 0.02], {"total_return", "max_drawdown"}),
        ([1e300, 2e300, 1.0], {"sharpe_ratio", "total_return", "max_drawdown"}),
        ([1e-300, 3e-300], {"sharpe_ratio"}),
    ],
)
def test_undefined_financial_metrics_have_a_reason(returns: list[float], undefined: set[str]) -> None:
    """Empty, single, constant, broken and extreme series give None with a reason and no warning."""
    found = financial_metrics(np.array(returns), np.array([1.0]))

    assert set(found["undefined"]) == undefined
    for name in ("sharpe_ratio", "total_return", "max_drawdown"):
        assert (found[name] is None) == (name in undefined)


@settings(deadline=None)
@given(
    hnp.arrays(np.float64, st.integers(0, 20), elements=st.floats(width=64)),
    hnp.arrays(np.float64, st.integers(0, 5), elements=st.floats(width=64)),
)
def test_financial_metrics_never_return_a_number_that_is_none(returns: np.ndarray, pnls: np.ndarray) -> None:
    """Whatever goes in, out come finite numbers or None with a reason, and no NumPy warning."""
    found = financial_metrics(returns, pnls)

    for name in ("sharpe_ratio", "total_return", "max_drawdown", "win_rate"):
        if found[name] is None:
            assert found["undefined"][name]
        else:
            assert np.isfinite(found[name])


def test_seven_metrics_are_the_checklists_keys_in_order() -> None:
    """The two families together hold exactly the seven metrics of a checklist."""
    accuracy = accuracy_metrics(np.array([LONG], np.int8), np.array([UP], np.int8))
    both = seven_metrics(accuracy, financial_metrics(np.array([0.1, -0.1]), np.array([1.0])))

    assert tuple(both) == METRIC_KEYS
    assert both["precision_long"] == 1.0
    assert both["win_rate"] == 1.0


def test_adequacy_counts_days_with_a_call_of_the_quieter_side() -> None:
    """Day clusters are session days with a directional call, of the side that has fewer."""
    days = np.array([1, 1, 2, 2, 3, 3])
    candidate = np.array([LONG, FLAT, FLAT, SHORT, LONG, LONG])
    baseline = np.array([FLAT, FLAT, SHORT, FLAT, FLAT, FLAT])

    assert adequacy_counts(days, candidate, baseline) == {
        "session_days": 3,
        "day_clusters": 1,
        "candidate_calls": 4,
        "baseline_calls": 1,
    }
