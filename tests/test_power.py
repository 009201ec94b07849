"""Power and planning: closed forms against published and simulated values, and lines that promise nothing absurd."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from sqkit.checklist_inputs import Policy
from sqkit.errors import UsageError
from sqkit.evidence_grade import FIRST_BRIER, FIRST_PRECISION, LOSS_ACTED_ON, LOSS_ALL_ROWS
from sqkit.research import window_plan
from sqkit.research.evidence_records import evidence_record
from sqkit.research.paired_statistics import loss_differential
from sqkit.research.power import (
    LONGEST_DAYS,
    power_of,
    shortest_window,
    symbols_factor,
    times_needed,
    would_suffice_line,
)
from sqkit.research.sharpe_power import memmel_power, memmel_years
from sqkit.research.window_plan import plan_lines, plan_window
from sqkit.research.window_scaling import first_enough
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


@pytest.mark.parametrize("name", [LOSS_ALL_ROWS, FIRST_BRIER])
def test_a_better_student_is_asked_for_only_when_this_one_is_surely_worse(name: str) -> None:
    """An estimate not above zero names no window; "not more data" needs an interval wholly below zero."""

    def line(*records: dict[str, Any]) -> str:
        return would_suffice_line(records, session_days=36, symbols=2)

    noun = "Brier improvement" + (" on the base rate" if name == FIRST_BRIER else "")
    for estimate, interval in ((-0.001, [-0.004, 0.002]), (-0.001, None), (0.0, [-0.003, 0.003])):
        said = line(record(name, estimate=estimate, ci=interval))
        assert said == f"no window can be named: the measured {noun} is {estimate:.4f}, not above zero"
    worse = record(name, estimate=-0.005, ci=[-0.008, -0.002])
    assert line(worse) == (
        f"no window is expected to suffice: the measured {noun} is -0.0050, its 95 % interval wholly below zero; "
        "a better student is needed, not more data"
    )
    assert line(record(LOSS_ACTED_ON, estimate=-0.001, ci=[-0.004, 0.002]), worse) == line(worse)


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


def swing(symbols: int, sessions: int, policy: Policy, **changes: Any) -> dict[str, Any]:
    """The plan of a first model on daily bars with labels of five sessions."""
    return plan_window(
        "swing", symbols, sessions, policy=policy, **({"horizon_bars": 5, "incumbent": False} | changes)
    )


NOISE = 0.08
"""About two binomial standard errors of a rate from 100 to 250 attempts."""


@pytest.mark.slow
def test_more_days_give_more_power_and_ask_for_the_same_window(policy: Policy) -> None:
    """Across the size from which windows are computed power grows, and all name the same days for power .80."""
    plans = [swing(100, days, policy, attempts=100) for days in (64, 120, 124, 744)]
    assert [plan["computed"] for plan in plans] == [False, False, True, True]
    for rate in ("thresholds_only", "with_evidence"):
        power = [plan["better_student"][rate] for plan in plans]
        assert all(more >= less - NOISE for less, more in pairwise(power))
        assert power[2] < power[3]
    days = [plan["suffices"]["session_days"] for plan in plans]
    assert days[-1] > 744
    assert days == pytest.approx([days[-1]] * len(days), rel=0.01)
    clusters = [plan["adequacy"]["day_clusters"] for plan in plans]
    assert clusters == pytest.approx([64, 120, 124, 744], rel=0.01)


@pytest.mark.slow
def test_more_symbols_never_hurt(policy: Policy) -> None:
    """At the same days more symbols give no less power, no fewer days with a call, and need no more days."""
    plans = [swing(symbols, 248, policy, attempts=100) for symbols in (20, 100, 400)]
    assert [plan["computed"] for plan in plans] == [False, True, True]
    for one, more in pairwise(plans):
        for rate in ("thresholds_only", "with_evidence"):
            assert more["better_student"][rate] >= one["better_student"][rate] - NOISE
        assert more["adequacy"]["day_clusters"] >= one["adequacy"]["day_clusters"]
    assert plans[0]["better_student"]["with_evidence"] + 0.2 < plans[-1]["better_student"]["with_evidence"]
    assert plans[-1]["suffices"]["session_days"] < plans[1]["suffices"]["session_days"]


@pytest.mark.slow
def test_a_computed_window_agrees_with_its_simulation(
    policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """240 sessions of 20 symbols, computed from 120 sessions: rates, days with a call and what suffices."""
    given: dict[str, Any] = {"attempts": 200, "horizon_bars": 1, "uplift": 0.04}
    simulated = swing(20, 240, policy, **given)
    monkeypatch.setattr(window_plan, "_ROWS_AN_ATTEMPT", 2400)
    computed = swing(20, 240, policy, **given)
    assert (simulated["computed"], computed["computed"]) == (False, True)
    assert (simulated["world"]["days"], computed["world"]["days"]) == (240, 120)
    for arm in ("equal_models", "better_student"):
        for rate in ("thresholds_only", "with_evidence"):
            assert computed[arm][rate] == pytest.approx(simulated[arm][rate], abs=NOISE)
    for count in ("day_clusters", "directional_calls"):
        assert computed["adequacy"][count] == pytest.approx(simulated["adequacy"][count], rel=0.03)
    assert computed["suffices"]["session_days"] == pytest.approx(
        simulated["suffices"]["session_days"], rel=0.25
    )


@pytest.mark.slow
def test_computed_symbols_agree_with_their_simulation(
    policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """100 symbols, computed from 25 rows a day, pass about as often as simulated ones."""
    simulated = swing(100, 120, policy, attempts=200, incumbent=True)
    monkeypatch.setattr(window_plan, "_ROWS_A_DAY", 25)
    monkeypatch.setattr(window_plan, "_ROWS_AN_ATTEMPT", 1)
    computed = swing(100, 120, policy, attempts=200, incumbent=True)
    assert (simulated["world"]["symbols"], computed["world"]["symbols"]) == (100, 25)
    for arm in ("equal_models", "better_student"):
        for rate in ("thresholds_only", "with_evidence"):
            assert computed[arm][rate] == pytest.approx(simulated[arm][rate], abs=NOISE)
    assert computed["adequacy"]["day_clusters"] == simulated["adequacy"]["day_clusters"]


def test_a_higher_grade_is_no_easier(policy: Policy) -> None:
    """In a computed window power falls with the grade asked for; without evidence both rates are equal."""
    rates = {}
    for grade in ("none", "moderate", "strong"):
        for incumbent in (False, True):
            plan = swing(100, 248, replace(policy, min_evidence=grade), attempts=15, incumbent=incumbent)
            assert plan["computed"]
            rates[grade, incumbent] = plan["better_student"]
    for incumbent in (False, True):
        none, moderate, strong = (rates[grade, incumbent] for grade in ("none", "moderate", "strong"))
        assert none["with_evidence"] == none["thresholds_only"] == moderate["thresholds_only"]
        assert strong["with_evidence"] < moderate["with_evidence"] < none["with_evidence"]


def test_a_computed_window_too_short_for_its_tests_shows_nothing(policy: Policy) -> None:
    """Two sessions of 200 symbols pass no test, since none is defined, and the plan says where it comes from."""
    plan = swing(200, 2, policy, attempts=20)
    assert plan["better_student"]["with_evidence"] == plan["equal_models"]["with_evidence"] == 0.0
    assert plan["adequacy"]["enough"] is False
    assert "computed from simulated windows of 120 sessions with 100 rows a day" in plan_lines(plan)[0]


def test_a_window_that_suffices_is_called_so(policy: Policy) -> None:
    """With power .80 in the asked window no other size is named."""
    plan = swing(100, 1000, policy, uplift=0.06, attempts=30)
    assert plan["better_student"]["with_evidence"] >= 0.80
    assert plan["suffices"]["session_days"] == 1000
    assert any(line.endswith("this window suffices") for line in plan_lines(plan))


def test_the_first_size_that_is_enough() -> None:
    """The smallest size from which on the chance stays high; none where the largest is too small."""
    assert first_enough(lambda size: float(size >= 100.0), 10, 1000) == pytest.approx(100, rel=1e-3)
    assert first_enough(lambda size: 1.0, 10, 1000) == pytest.approx(10)
    assert first_enough(lambda size: 0.79, 10, 1000) is None
    assert first_enough(lambda size: 1.0, 3000, 2520) == 3000
    dips = first_enough(lambda size: float(size < 50.0 or size > 400.0), 10, 1000)
    assert dips == pytest.approx(400, rel=1e-3)


@pytest.mark.slow
def test_the_windows_a_plan_names_suffice(policy: Policy) -> None:
    """A window of the size the plan names promotes the better student about four times in five."""
    given: dict[str, Any] = {"policy": policy, "horizon_bars": 1, "uplift": 0.04, "attempts": 100}
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
        plan_window("intraday", 100, 63, policy=policy, horizon_bars=1, uplift=uplift, attempts=60)[
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
