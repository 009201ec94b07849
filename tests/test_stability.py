"""Stability of an uplift: by hand, symmetries, false alarms of worthless portfolios, and what is undefined."""

from __future__ import annotations

import datetime
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal, stats

from sqkit.errors import UsageError
from sqkit.files import canonical_json
from sqkit.metrics import financial_metrics
from sqkit.research.stability import cost_stress, weekly_stability, without_best_days
from sqkit.research.symbol_stability import symbol_stability

MONDAY = (datetime.date(2025, 1, 6) - datetime.date(1970, 1, 1)).days
SEEDS = st.integers(0, 10_000)


def weekdays(weeks: int) -> np.ndarray:
    """Monday to Friday of some weeks, as days since 1970-01-01."""
    return (MONDAY + 7 * np.arange(weeks)[:, None] + np.arange(5)).ravel()


def returns(seed: int, days: int = 63, mean: float = 0.0) -> np.ndarray:
    """Daily returns of one per cent volatility."""
    return np.random.default_rng(seed).normal(mean, 0.01, days)


Portfolio = tuple[dict[str, np.ndarray], dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]]


def portfolio(seed: int, symbols: int = 20, days: int = 63, a_day: int = 10, lift: float = 0.0) -> Portfolio:
    """Day counts and Brier losses of two models; the student's are better by `lift`, days share a shock."""
    rng = np.random.default_rng(seed)
    shock = rng.normal(0.0, 0.05, days)
    counts, losses = {}, {}
    for number in range(symbols):
        up = rng.random((days, a_day)) < 0.5 + shock[:, None]
        columns, probabilities = [], []
        for edge in (lift, 0.0):
            p = np.clip(0.5 + rng.normal(0.0, 0.1, (days, a_day)) + edge * np.where(up, 1, -1), 0.01, 0.99)
            call = np.abs(p - 0.5) > 0.05
            columns += [(call & ((p > 0.5) == up)).sum(axis=1), call.sum(axis=1)]
            probabilities.append(((p - up) ** 2).ravel())
        counts[f"S{number:02d}"] = np.column_stack(columns)
        losses[f"S{number:02d}"] = (probabilities[1], probabilities[0], np.repeat(np.arange(days), a_day))
    return counts, losses


def swapped(both: Portfolio) -> Portfolio:
    """The same with student and baseline exchanged."""
    counts, losses = both
    return (
        {symbol: table[:, [2, 3, 0, 1]] for symbol, table in counts.items()},
        {symbol: (ours, theirs, days) for symbol, (theirs, ours, days) in losses.items()},
    )


# --- weeks


def test_weeks_are_iso_weeks() -> None:
    """One value a day for two years: as many weeks as the calendar of datetime counts, year ends included."""
    days = MONDAY + np.arange(3, 733)
    dates = [datetime.date(1970, 1, 1) + datetime.timedelta(days=int(day)) for day in days]
    found = weekly_stability(np.ones(len(days)), days)
    assert found["n"]["weeks"] == len({date.isocalendar()[:2] for date in dates})
    assert found["estimate"] == 1.0


def test_weeks_by_hand() -> None:
    """Seven of ten weeks with a positive mean, each with two lost days: share .7 with Wilson's interval."""
    day = np.tile([-1.0, -1.0, 2.0, 1.0, 1.0], (10, 1))
    day[[2, 5]] = [1.0, 1.0, -2.0, -1.0, -1.0]
    day[8] = 0.0
    found = weekly_stability(day.ravel() * 1e-3, weekdays(10))
    assert (found["status"], found["estimate"], found["n"]) == ("pass", 0.7, {"days": 50, "weeks": 10})
    assert found["ci"] == pytest.approx([0.3968, 0.8922], abs=5e-5)
    assert found["ci"] == pytest.approx(list(stats.binomtest(7, 10).proportion_ci(method="wilson")))
    assert (found["params"]["positive"], found["params"]["negative"]) == (7, 2)


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(4, 20))
def test_order_of_weeks_and_days_does_not_matter_and_swap_mirrors(seed: int, weeks: int) -> None:
    """Whole weeks permuted, or the days within them, change nothing; swapped models mirror the share."""
    rng = np.random.default_rng(seed)
    uplift, days = rng.normal(size=5 * weeks), weekdays(weeks)
    found = weekly_stability(uplift, days)
    moved = uplift.reshape(weeks, 5)[rng.permutation(weeks)]
    assert weekly_stability(moved[:, rng.permutation(5)].ravel(), days) == found
    order = rng.permutation(5 * weeks)
    assert weekly_stability(uplift[order], days[order]) == found
    mirrored = weekly_stability(-uplift, days)["estimate"]
    assert mirrored == pytest.approx(1 - found["estimate"])


@pytest.mark.parametrize(
    ("uplift", "days", "status", "reason"),
    [
        ([], [], "insufficient", "0 weeks"),
        ([1.0], [MONDAY], "insufficient", "1 weeks"),
        (np.ones(15), weekdays(3), "insufficient", "3 weeks"),
        (np.zeros(50), weekdays(10), "undefined", "do not differ"),
        (np.where(np.arange(50) == 7, np.nan, 1.0), weekdays(10), "undefined", "not finite"),
        (np.full(50, -1e308), weekdays(10), "fail", "0 of 10"),
    ],
)
def test_weeks_that_cannot_be_judged(uplift: Any, days: Any, status: str, reason: str) -> None:
    """Empty, one day, too few weeks, no difference, NaN: status and reason, and never a pass."""
    found = weekly_stability(uplift, np.asarray(days, dtype=np.int64))
    assert (found["status"], reason in found["note"]) == (status, True)
    canonical_json(found)


def test_weeks_refuse_what_is_no_date() -> None:
    """Lengths that differ and days that are no whole numbers are refused."""
    with pytest.raises(UsageError, match="one value a day"):
        weekly_stability([1.0, 2.0], [1])
    with pytest.raises(UsageError, match="whole days"):
        weekly_stability([1.0, 2.0], [1.5, 2.0])


# --- symbols


def test_holm_by_hand() -> None:
    """Two symbols, four tests: p-values of scipy's t, sorted, times 4, 3, 2, 1, running maximum, at most 1."""
    counts, losses = portfolio(3, symbols=2)
    record, rows = symbol_stability(counts, losses, pool_passes=True)
    table = counts["S01"].astype(float)
    (right_s, calls_s, right_b, calls_b), total = table.T, table.sum(axis=0)
    share_s, share_b = total[0] / total[1], total[2] / total[3]
    psi = (right_s - share_s * calls_s) / total[1] - (right_b - share_b * calls_b) / total[3]
    t = (share_s - share_b) / math.sqrt(63 / 62 * np.sum(psi**2))
    assert rows[1]["hit_ratio_p_worse"] == pytest.approx(stats.t.cdf(t, 62))
    theirs, ours, days = losses["S01"]
    means = [np.mean((theirs - ours)[days == day]) for day in range(63)]
    assert rows[1]["brier_p_worse"] == pytest.approx(stats.ttest_1samp(means, 0, alternative="less").pvalue)

    names = [(row, name) for row in rows for name in ("hit_ratio_p_worse", "brier_p_worse")]
    adjusted = [row[f"{name}_holm"] for row, name in names]
    largest = 0.0
    for place, (row, name) in enumerate(sorted(names, key=lambda item: item[0][item[1]])):
        largest = max(largest, min(1.0, (4 - place) * row[name]))
        assert row[f"{name}_holm"] == pytest.approx(largest)
    assert record["p_value"] == min(adjusted)


def test_holm_is_that_of_statsmodels() -> None:
    """Thirty symbols, sixty tests: the adjusted p-values of statsmodels."""
    from statsmodels.stats.multitest import multipletests

    _, rows = symbol_stability(*portfolio(11, symbols=30, lift=-0.01), pool_passes=False)
    names = ("hit_ratio_p_worse", "brier_p_worse")
    ours = [row[f"{name}_holm"] for row in rows for name in names]
    theirs = multipletests([row[name] for row in rows for name in names], method="holm")[1]
    assert ours == pytest.approx(theirs)
    assert 0.0 < min(ours) < 0.5 < max(ours)


@pytest.mark.parametrize(("days", "a_day"), [(63, 5), (30, 4)])
def test_equal_models_rarely_show_a_worse_symbol(days: int, a_day: int) -> None:
    """Of 300 portfolios of 15 symbols without a worse one, at most 5 % (and noise) show one."""
    alarms = sum(
        symbol_stability(*portfolio(seed, 15, days, a_day), pool_passes=True)[0]["status"] == "fail"
        for seed in range(300)
    )
    assert alarms <= stats.binom.ppf(0.99, 300, 0.05)


def test_overlapping_labels_do_not_raise_false_alarms() -> None:
    """Labels of five days and lasting calls over 63 days: still at most 5 % (and noise) of 200 portfolios."""
    alarms = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        counts, losses = {}, {}
        for number in range(20):
            up = np.convolve(rng.normal(size=68), np.ones(5), "valid")[1:] > 0
            score = signal.lfilter([math.sqrt(0.19)], [1.0, -0.9], rng.normal(size=(113, 2)), axis=0)[50:]
            call, p = np.abs(score) > 0.5, 1 / (1 + np.exp(-0.4 * score))
            right, loss = call & ((score > 0) == up[:, None]), (p - up[:, None]) ** 2
            counts[f"S{number}"] = np.stack([right[:, 0], call[:, 0], right[:, 1], call[:, 1]], axis=1)
            losses[f"S{number}"] = (loss[:, 1], loss[:, 0], np.arange(63))
        record, _ = symbol_stability(counts, losses, pool_passes=True, overlap=5)
        assert record["n"]["tested"] >= 15
        alarms += record["status"] == "fail"
    assert alarms <= stats.binom.ppf(0.99, 200, 0.05)


def test_a_planted_worse_symbol_is_named() -> None:
    """One symbol on which the student is upside down fails the box, whatever the pool says."""
    counts, losses = portfolio(0, lift=0.02)
    bad_counts, bad_losses = swapped(portfolio(1, symbols=1, lift=0.06))
    counts["S07"], losses["S07"] = bad_counts["S00"], bad_losses["S00"]
    record, rows = symbol_stability(counts, losses, pool_passes=True)
    assert record["status"] == "fail"
    assert record["params"]["significantly_worse"] == ["S07"]
    assert record["note"] == "significantly worse: S07"
    assert rows[7]["verdict"] == "significantly worse"
    assert record["p_value"] <= record["threshold"]


def test_a_better_student_passes_and_weak_symbols_are_listed() -> None:
    """With a small edge no symbol is significantly worse; those with an uplift <= 0 are listed as weak."""
    record, rows = symbol_stability(*portfolio(5, lift=0.005), pool_passes=True)
    weak = [row["symbol"] for row in rows if row["hit_ratio_uplift"] <= 0]
    assert record["status"] == "pass"
    assert weak
    assert record["params"]["weak"] == weak
    assert record["params"]["share_positive"] == record["estimate"] == (20 - len(weak)) / 20
    assert record["ci"][0] < record["estimate"] < record["ci"][1]


def test_the_pool_must_pass_too() -> None:
    """The same portfolio fails when the thresholds are missed over all symbols."""
    record, _ = symbol_stability(*portfolio(5, lift=0.005), pool_passes=False)
    assert (record["status"], record["note"]) == ("fail", "the thresholds over all symbols are not reached")


@settings(max_examples=8, deadline=None)
@given(SEEDS)
def test_days_and_symbols_in_any_order_and_swap_flips(seed: int) -> None:
    """Permuted days and symbols change nothing; swapped models flip uplifts and mirror p-values."""
    counts, losses = portfolio(seed, symbols=3, days=30, a_day=6)
    record, rows = symbol_stability(counts, losses, pool_passes=True)
    order = np.random.default_rng(seed).permutation(30)
    moved_counts = {symbol: counts[symbol][order] for symbol in reversed(counts)}
    moved_losses = {s: (a[::-1], b[::-1], order[days][::-1]) for s, (a, b, days) in losses.items()}
    moved, moved_rows = symbol_stability(moved_counts, moved_losses, pool_passes=True)
    _, mirrored = symbol_stability(*swapped((counts, losses)), pool_passes=True)
    assert moved["params"] == record["params"]
    assert moved["p_value"] == pytest.approx(record["p_value"], rel=1e-9)
    for row, same, other in zip(rows, moved_rows, mirrored, strict=True):
        for name in ("hit_ratio", "brier"):
            uplift, p = row[f"{name}_uplift"], row[f"{name}_p_worse"]
            assert same[f"{name}_uplift"] == pytest.approx(uplift, abs=1e-12)
            assert same[f"{name}_p_worse"] == pytest.approx(p, abs=1e-9)
            assert other[f"{name}_uplift"] == pytest.approx(-uplift, abs=1e-12)
            assert other[f"{name}_p_worse"] == pytest.approx(1 - p, abs=1e-9)


def test_without_probabilities_the_hit_ratio_is_tested_alone() -> None:
    """A rule has no Brier score: half of the tests, and the table says nothing about it."""
    counts, _ = portfolio(2)
    record, rows = symbol_stability(counts, pool_passes=True)
    assert all(row["brier_p_worse"] is None and row["note"] == "" for row in rows)
    assert record["n"] == {"symbols": 20, "tested": 20}
    smallest = min(row["hit_ratio_p_worse"] for row in rows)
    assert record["p_value"] == pytest.approx(min(1.0, 20 * smallest))


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ([], "the student makes no call"),
        (np.zeros((63, 4)), "the student makes no call"),
        (np.tile([[0, 0, 1, 3]], (63, 1)), "the student makes no call"),
        ([[2, 3, 1, 3]], "1 day"),
        (np.tile([[2, 3, 1, 3], [1, 3, 2, 4]], (9, 1)), "18 days, fewer than 20"),
        (np.tile([[1, 1, 1, 3], [0, 0, 2, 4]], (12, 1)), "12 calls, fewer than 30"),
        (np.tile([[2, 3, 2, 3]], (63, 1)), "does not vary"),
        (np.full((63, 4), np.nan), "not finite"),
    ],
)
def test_a_symbol_without_enough_data_is_undefined_not_weak(counts: Any, reason: str) -> None:
    """Empty, all FLAT, one day, few days, few calls, constant, NaN: undefined with a reason, others stand."""
    others, losses = portfolio(5, symbols=3, lift=0.03)
    record, rows = symbol_stability({**others, "A": counts}, losses, pool_passes=True)
    assert (rows[0]["symbol"], rows[0]["verdict"]) == ("A", "undefined")
    assert reason in rows[0]["note"]
    assert record["params"]["undefined"] == ["A"]
    assert "A" not in record["params"]["weak"]
    assert record["n"] == {"symbols": 4, "tested": 3}
    assert record["status"] == "pass"
    canonical_json([record, rows])


def test_mostly_untested_symbols_are_no_pass() -> None:
    """No symbol, and more untested than tested ones, are insufficient."""
    counts, losses = portfolio(5, symbols=1, lift=0.03)
    silent = {"A": np.zeros((63, 4)), "B": np.zeros((63, 4))}
    assert symbol_stability({}, pool_passes=True)[0]["status"] == "insufficient"
    record, _ = symbol_stability({**counts, **silent}, losses, pool_passes=True)
    assert (record["status"], record["n"]["tested"]) == ("insufficient", 1)


def test_symbols_refuse_losses_without_counts() -> None:
    """Losses of a symbol that has no day counts, and losses of different lengths, are refused."""
    counts, losses = portfolio(5, symbols=2)
    with pytest.raises(UsageError, match="losses of S01 without"):
        symbol_stability({"S00": counts["S00"]}, losses, pool_passes=True)
    with pytest.raises(UsageError, match="one length"):
        symbol_stability(counts, {"S00": ([1.0], [1.0, 2.0], [1])}, pool_passes=True)


# --- best days


def test_best_days_by_hand() -> None:
    """Twenty days, five of them carry the whole uplift: without them the student is behind."""
    baseline = np.tile([0.01, -0.01], 10)
    difference = np.full(20, -0.001)
    difference[[0, 4, 9, 13, 19]] = 0.02
    student = baseline + difference
    uplift, own = without_best_days(student, baseline)
    assert uplift["params"]["all_days"] == pytest.approx((5 * 0.02 - 15 * 0.001) / 20)
    assert uplift["estimate"] == pytest.approx(-0.001)
    assert (uplift["status"], own["status"]) == ("fail", "fail")
    kept = np.delete(np.arange(20), [0, 4, 9, 13, 19])
    sharpe = financial_metrics(student[kept], np.empty(0))["sharpe_ratio"]
    assert uplift["params"]["sharpe_student"] == pytest.approx(sharpe)
    worst_fifteen = np.sort(student)[:15]
    assert own["estimate"] == pytest.approx(np.prod(1 + worst_fifteen) - 1)
    lasting, _ = without_best_days(baseline + 0.001 + difference / 100, baseline)
    assert lasting["status"] == "pass"


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.floats(-0.05, 0.05))
def test_a_constant_added_to_both_changes_no_difference(seed: int, constant: float) -> None:
    """The difference without its best days stays, and so does its sign, in any order of days."""
    student, baseline = returns(seed), returns(seed + 1)
    found = without_best_days(student, baseline)[0]
    moved = without_best_days(student + constant, baseline + constant)[0]
    order = np.random.default_rng(seed).permutation(63)
    shuffled = without_best_days(student[order], baseline[order])
    assert moved["estimate"] == pytest.approx(found["estimate"], abs=1e-12)
    assert moved["status"] == found["status"]
    assert shuffled[0]["estimate"] == pytest.approx(found["estimate"], abs=1e-15)
    assert shuffled[1]["estimate"] == pytest.approx(without_best_days(student, baseline)[1]["estimate"])


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_dropping_the_best_days_only_lowers_an_uplift(seed: int) -> None:
    """Without its best days an uplift is smaller; of two models at most one keeps one."""
    student, baseline = returns(seed), returns(seed + 1)
    ours, theirs = without_best_days(student, baseline)[0], without_best_days(baseline, student)[0]
    assert ours["params"]["all_days"] == pytest.approx(-theirs["params"]["all_days"])
    assert ours["estimate"] < ours["params"]["all_days"]
    assert "fail" in (ours["status"], theirs["status"])


@pytest.mark.parametrize(
    ("student", "baseline", "statuses", "reason"),
    [
        ([], [], ("insufficient", "insufficient"), "0 sessions"),
        ([0.1], [0.2], ("insufficient", "insufficient"), "1 sessions"),
        (returns(0, 19), returns(1, 19), ("insufficient", "insufficient"), "19 sessions"),
        (np.full(63, np.nan), returns(1), ("undefined", "undefined"), "not finite"),
        (np.zeros(63), np.zeros(63), ("undefined", "fail"), "same returns"),
        (np.full(63, 1e308), np.full(63, -1e308), ("undefined", "undefined"), "too large"),
    ],
)
def test_best_days_that_cannot_be_judged(
    student: Any, baseline: Any, statuses: tuple[str, str], reason: str
) -> None:
    """Empty, one day, few days, NaN, equal series, huge ones: status and reason, never a pass."""
    found = without_best_days(student, baseline)
    assert tuple(record["status"] for record in found) == statuses
    assert reason in found[0]["note"]
    canonical_json(found)


def test_best_days_refuse_lengths_that_differ() -> None:
    """Series of different lengths, and no day to drop, are refused."""
    with pytest.raises(UsageError, match="same sessions"):
        without_best_days([0.1, 0.2], [0.1])
    with pytest.raises(UsageError, match="at least 1"):
        without_best_days(returns(0), returns(1), days=0)


# --- costs


def test_costs_by_hand() -> None:
    """Costs of 5 bp a day: a mean of 8 bp survives twice the costs, one of 4 bp does not."""
    noise = returns(0, 250)
    noise -= noise.mean()
    costs, idle = np.full(250, 5e-4), np.zeros(250)
    found = cost_stress(noise + 8e-4, costs, noise * 1.1, idle)
    rows = found["params"]["at"]
    assert [row["multiple"] for row in rows] == [1.0, 2.0, 3.0]
    for row, mean in zip(rows, (8e-4, 3e-4, -2e-4), strict=True):
        wanted = mean / np.std(noise, ddof=1) * math.sqrt(252)
        assert row["sharpe_student"] == pytest.approx(wanted)
        assert row["total_return_student"] == pytest.approx(np.prod(1 + noise + mean) - 1)
    assert found["status"] == "pass"
    assert found["estimate"] == pytest.approx(rows[1]["sharpe_student"] - rows[1]["sharpe_baseline"])
    assert cost_stress(noise + 4e-4, costs, noise * 1.1 - 5e-4, costs)["status"] == "fail"  # own mean below 0
    assert cost_stress(noise + 8e-4, costs, noise + 4e-4, idle)["status"] == "fail"  # behind at x2


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_swapped_models_flip_the_sign_of_the_costs_record(seed: int) -> None:
    """Student and baseline exchanged: the same differences with the other sign, in any order of days."""
    student, baseline = returns(seed), returns(seed + 1)
    costs = np.abs(returns(seed + 2)) / 20, np.abs(returns(seed + 3)) / 20
    ours = cost_stress(student, costs[0], baseline, costs[1])
    theirs = cost_stress(baseline, costs[1], student, costs[0])
    order = np.random.default_rng(seed).permutation(63)
    moved = cost_stress(student[order], costs[0][order], baseline[order], costs[1][order])
    assert ours["estimate"] == pytest.approx(-theirs["estimate"])
    assert moved["estimate"] == pytest.approx(ours["estimate"])
    assert [ours["status"], theirs["status"]].count("pass") <= 1


@pytest.mark.parametrize(
    ("student", "baseline", "status", "reason"),
    [
        ([], [], "insufficient", "fewer than two"),
        ([0.1], [0.2], "insufficient", "fewer than two"),
        (
            np.full(63, 0.01),
            returns(1),
            "undefined",
            "the student's Sharpe ratio: the daily returns do not vary",
        ),
        (returns(1), np.zeros(63), "undefined", "the baseline's Sharpe ratio"),
        (np.full(63, np.nan), returns(1), "undefined", "not finite"),
        (returns(0) * 1e308, returns(1), "undefined", "too large"),
    ],
)
def test_costs_that_cannot_be_judged(student: Any, baseline: Any, status: str, reason: str) -> None:
    """Empty, one day, constant, idle, NaN, huge: status and reason, never a pass."""
    costs = np.zeros(len(student))
    found = cost_stress(student, costs, baseline, costs)
    assert (found["status"], reason in found["note"]) == (status, True)
    canonical_json(found)


def test_costs_that_are_not_finite_are_undefined() -> None:
    """A NaN among the costs is never a pass."""
    costs = np.where(np.arange(63) == 3, np.nan, 0.0)
    assert cost_stress(returns(0, mean=0.01), costs, returns(1), np.zeros(63))["status"] == "undefined"


def test_costs_refuse_what_cannot_be_meant() -> None:
    """Different lengths, negative costs, multiples without the judged one are refused."""
    r, c = returns(0), np.zeros(63)
    with pytest.raises(UsageError, match="same sessions"):
        cost_stress(r, c[1:], r, c)
    with pytest.raises(UsageError, match=r"costs_baseline\[0\] is negative"):
        cost_stress(r, c, r, c - 1e-4)
    for multiples in ((1, 3), (2, math.nan)):
        with pytest.raises(UsageError, match="finite numbers"):
            cost_stress(r, c, r, c, multiples)
