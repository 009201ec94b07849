"""Power and planning: closed forms against published and simulated values, and lines that promise nothing absurd."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sqkit.checklist_inputs import Policy
from sqkit.errors import UsageError
from sqkit.evidence_grade import FIRST_BRIER, FIRST_PRECISION, LOSS_ACTED_ON, LOSS_ALL_ROWS
from sqkit.research.evidence_records import evidence_record
from sqkit.research.paired_statistics import loss_differential
from sqkit.research.power import (
    LONGEST_DAYS,
    memmel_power,
    memmel_years,
    power_of,
    shortest_window,
    symbols_factor,
    times_needed,
    would_suffice_line,
)
from sqkit.research.window_plan import plan_lines, plan_window
from sqkit.settings import Settings


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy.from_settings(Settings(_env_file=None))


def record(name: str = LOSS_ALL_ROWS, estimate: float | None = 0.0021, **values: Any) -> dict[str, Any]:
    """A blocking record that failed over 63 days."""
    given = {"status": "fail", "se": 0.0015, "n": {"clusters": 63, "rows": 3900}} | values
    return evidence_record(name, kind="blocking", method="test", estimate=estimate, **given)


# --- closed forms


@pytest.mark.parametrize(
    ("sharpe", "correlation", "years"), [(2, 0.90, 126), (2, 0.95, 63), (2, 0.99, 12.6), (3, 0.99, 5.7)]
)
def test_memmel_years_are_those_of_the_facts(sharpe: float, correlation: float, years: float) -> None:
    """Years for a 5 % Sharpe uplift, power .80, one-sided 5 %: the table of the gate's statistics."""
    assert memmel_years(sharpe, 0.05, correlation) == pytest.approx(years, rel=0.01)


def test_power_at_the_needed_size_is_the_power_asked_for() -> None:
    """`times_needed` and `power_of` are inverse; without an effect the power is the level."""
    times = times_needed(0.002, 0.0015, 0.05)
    assert times is not None
    assert power_of(0.002, 0.0015, 0.05, times=times) == pytest.approx(0.80)
    assert power_of(0.0, 0.0015, 0.05) == pytest.approx(0.05)
    assert times_needed(0.0, 0.0015, 0.05) is None
    assert times_needed(math.nan, 0.0015, 0.05) is None


def test_power_agrees_with_simulated_tests() -> None:
    """The closed form is what the day-clustered test rejects on simulated days."""
    generator, days, effect = np.random.default_rng(3), 120, 0.2
    rejected = 0
    for _ in range(400):
        daily = generator.normal(effect, 1.0, days)
        found = loss_differential(daily, np.zeros(days), np.arange(days))
        assert found.p_one_sided is not None
        rejected += found.p_one_sided <= 0.05
    expected = power_of(effect, 1.0 / math.sqrt(days), 0.05)
    assert rejected / 400 == pytest.approx(expected, abs=0.06)


def test_power_grows_with_data_effect_and_level() -> None:
    """More days, a larger effect and a laxer level give more power; more noise gives less."""
    assert power_of(0.002, 0.002, 0.05) < power_of(0.002, 0.002, 0.05, times=2.0)
    assert power_of(0.002, 0.002, 0.05) < power_of(0.003, 0.002, 0.05)
    assert power_of(0.002, 0.002, 0.05) < power_of(0.002, 0.002, 0.10)
    assert power_of(0.002, 0.002, 0.05) > power_of(0.002, 0.003, 0.05)
    now, later = (memmel_power(2.0, 0.05, 0.99, days) for days in (63, 630))
    assert now is not None
    assert later is not None
    assert now < later


@pytest.mark.parametrize(
    "given",
    [
        {"se": 0.0},
        {"se": math.nan},
        {"alpha": 0.0},
        {"alpha": 1.0},
        {"times": 0.0},
        {"times": math.inf},
        {"effect": math.nan},
    ],
)
def test_bad_input_is_one_line(given: dict[str, float]) -> None:
    """A number outside its range is refused by name."""
    values = {"effect": 0.1, "se": 0.1, "alpha": 0.05, "times": 1.0} | given
    with pytest.raises(UsageError, match=next(iter(given))):
        power_of(values["effect"], values["se"], values["alpha"], times=values["times"])


def test_memmel_is_undefined_without_uplift() -> None:
    """No uplift, a negative baseline or a correlation outside its range: None, never a number of years."""
    assert memmel_years(2.0, 0.0, 0.9) is None
    assert memmel_years(-1.0, 0.05, 0.9) is None
    assert memmel_years(2.0, 0.05, 1.5) is None
    assert memmel_power(2.0, 0.05, 0.9, 1) is None


def test_symbols_shrink_only_the_rows_own_part() -> None:
    """Independent rows: symbols do what days do; fully common ones: no number of symbols does."""
    assert symbols_factor(2.5, rows_a_day=60, intra_day_correlation=0.0) == pytest.approx(2.5)
    assert symbols_factor(1.5, rows_a_day=60, intra_day_correlation=1.0) is None
    some = symbols_factor(1.2, rows_a_day=60, intra_day_correlation=0.01)
    assert some is not None
    assert some > 1.2
    assert symbols_factor(1.2, rows_a_day=60, intra_day_correlation=0.5) is None


# --- what would suffice


def test_the_window_has_the_power_it_promises() -> None:
    """The named window reaches power .80 for the measured effect, one day less does not."""
    window = shortest_window(record(), session_days=63, alpha=0.05)
    assert window.measured
    assert window.session_days is not None
    assert window.power_then is not None
    assert window.power_then >= 0.80
    assert power_of(0.0021, 0.0015, 0.05, times=(window.session_days - 1) / 63) < 0.80
    assert window.power_now == pytest.approx(power_of(0.0021, 0.0015, 0.05))


def test_a_smaller_effect_or_stricter_level_needs_a_longer_window() -> None:
    """Windows grow as the effect shrinks and as the level falls, and are capped at ten years."""
    days = [
        shortest_window(record(estimate=effect), session_days=63, alpha=0.05).session_days
        for effect in (0.003, 0.002, 0.001)
    ]
    assert days == sorted(days)
    assert shortest_window(record(), session_days=63, alpha=0.01).session_days > days[0]
    capped = shortest_window(record(estimate=1e-6), session_days=63, alpha=0.05)
    assert capped.session_days is None
    assert max(days) <= LONGEST_DAYS


def test_the_line_says_days_symbols_power_and_effect() -> None:
    """One line with the window, the number of symbols, the power then and what it assumes."""
    line = would_suffice_line([record()], session_days=63, symbols=20, intra_day_correlation=0.0)
    assert line == (
        "about 199 session days (or 64 symbols at 63 days) are expected to suffice: power .80 if the true "
        "Brier improvement is the measured 0.0021"
    )
    alone = would_suffice_line([record()], session_days=63, symbols=20, intra_day_correlation=0.3)
    assert "symbols at" not in alone
    assert "more symbols alone are not" in alone


def test_the_test_that_needs_most_is_named() -> None:
    """Of two failed tests the slower one decides; a passed one is no matter."""
    slow = record(LOSS_ACTED_ON, estimate=0.0012)
    line = would_suffice_line([record(), slow], session_days=63, symbols=20)
    assert "acted-on rows is the measured 0.0012" in line
    assert would_suffice_line([record(status="pass")], session_days=63, symbols=20) == ""
    assert would_suffice_line([], session_days=63, symbols=20) == ""


def test_a_stronger_grade_needs_a_longer_window() -> None:
    """A test that passed at 5 % but not at 1 % is missing for STRONG only."""
    passed = record(status="pass", se=0.0012, p_value=0.04)
    assert would_suffice_line([passed], session_days=63, symbols=20) == ""
    line = would_suffice_line([passed], session_days=63, symbols=20, min_evidence="strong")
    assert line.startswith("about ")


def test_an_effect_that_is_not_positive_is_replaced_by_the_policys_uplift() -> None:
    """A measured effect at or below zero: the policy's smallest uplift is assumed, and the line says so."""
    precision = record(FIRST_PRECISION, estimate=-0.004, se=0.02)
    line = would_suffice_line([precision], session_days=63, symbols=20, min_precision_uplift=0.02)
    assert "is 0.0200, that of a student 2 points more precise (the measured one is -0.0040)" in line
    brier = would_suffice_line(
        [record(estimate=-0.001)], session_days=63, symbols=20, min_precision_uplift=0.02
    )
    assert "2 points more precise" in brier
    for name in (LOSS_ALL_ROWS, FIRST_BRIER):
        line = would_suffice_line([record(name, estimate=-0.001)], session_days=63, symbols=20)
        assert line.startswith("no window is expected to suffice")


def test_years_beyond_reason_are_not_numbered() -> None:
    """An absurd window is "more than 10 years"; an undefined test promises nothing."""
    line = would_suffice_line([record(estimate=0.00002)], session_days=63, symbols=20)
    assert line.startswith("more than 10 years")
    undefined = record(estimate=None, se=None, status="undefined")
    assert "cannot be estimated" in would_suffice_line([undefined], session_days=63, symbols=20)


# --- the plan


def test_a_plan_is_plain_json_and_repeats(policy: Policy) -> None:
    """Same arguments, same plan; no NaN; every line says something."""
    given: dict[str, Any] = {"policy": policy, "horizon_bars": 5, "attempts": 20}
    first = plan_window("swing", 10, 63, **given)
    assert first == plan_window("swing", 10, 63, **given)
    json.dumps(first, allow_nan=False)
    lines = plan_lines(first)
    assert all(line.strip() for line in lines)
    assert any("10 symbols, 63 session days, swing" in line for line in lines)
    assert any("labels reach over 5 sessions" in line for line in lines)


def test_a_plan_says_when_data_is_too_little(policy: Policy) -> None:
    """Three days or two symbols of daily bars are too little, and the plan says so; 100 symbols are not."""
    for symbols, sessions, enough in ((20, 3, False), (2, 63, False), (100, 63, True)):
        plan = plan_window("swing", symbols, sessions, policy=policy, horizon_bars=1, attempts=20)
        assert plan["adequacy"]["enough"] is enough
        assert any("too little" in line for line in plan_lines(plan)) is not enough


@pytest.mark.slow
def test_more_days_and_more_symbols_give_more_power(policy: Policy) -> None:
    """The pass rate of a really better student grows with the window and with the symbols."""

    def power(symbols: int, sessions: int) -> float:
        plan = plan_window("intraday", symbols, sessions, policy=policy, horizon_bars=1, attempts=150)
        return float(plan["better_student"]["with_evidence"])

    assert power(10, 63) < power(100, 63) < power(100, 400) + 0.02


@pytest.mark.slow
def test_the_windows_a_plan_names_suffice(policy: Policy) -> None:
    """A window of the size the plan names promotes the better student about four times in five."""
    given: dict[str, Any] = {"policy": policy, "horizon_bars": 1, "uplift": 0.04, "attempts": 150}
    plan = plan_window("intraday", 100, 63, **given)
    days = plan["suffices"]["session_days"]
    assert days is not None
    assert 63 < days < LONGEST_DAYS
    then = plan_window("intraday", 100, days, **given)
    assert then["better_student"]["with_evidence"] == pytest.approx(0.80, abs=0.15)


@pytest.mark.slow
def test_a_larger_uplift_needs_no_longer_window(policy: Policy) -> None:
    """A student six points better needs fewer days than one four points better, and both can be shown."""
    days = [
        plan_window("intraday", 100, 63, policy=policy, horizon_bars=1, uplift=uplift, attempts=100)[
            "suffices"
        ]["session_days"]
        for uplift in (0.06, 0.04)
    ]
    assert None not in days
    assert 63 <= days[0] < days[1]


def test_a_policy_without_evidence_is_planned_as_such(policy: Policy) -> None:
    """Under promotion_min_evidence=none evidence costs nothing: both rates are equal."""
    lenient = replace(policy, min_evidence="none")
    plan = plan_window("swing", 20, 63, policy=lenient, horizon_bars=5, attempts=40, incumbent=False)
    for arm in ("equal_models", "better_student"):
        assert plan[arm]["thresholds_only"] == plan[arm]["with_evidence"]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"strategy": "scalping"}, "scalping"),
        ({"symbols": 0}, "symbols 0"),
        ({"sessions": 1}, "sessions 1"),
        ({"horizon_bars": 0}, "horizon_bars 0"),
        ({"bars_per_session": 0}, "bars_per_session 0"),
    ],
)
def test_an_impossible_plan_is_refused_by_name(policy: Policy, given: dict[str, Any], named: str) -> None:
    """A size below its least, or an unknown strategy, is one line."""
    values = {
        "strategy": "swing",
        "symbols": 5,
        "sessions": 63,
        "horizon_bars": 5,
        "bars_per_session": 1,
    } | given
    with pytest.raises(UsageError, match=named):
        plan_window(**values, policy=policy)


def test_one_symbol_for_two_days_is_planned_without_an_error(policy: Policy) -> None:
    """The smallest window there is gives a plan that promises nothing."""
    plan = plan_window("swing", 1, 2, policy=policy, horizon_bars=5, attempts=5)
    assert plan["better_student"]["with_evidence"] == 0.0
    assert plan_lines(plan)
