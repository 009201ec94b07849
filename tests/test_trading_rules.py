"""The rules beside the model: what a decision records of them, and what is named when they change."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest

from sqkit.errors import SessionsError, SettingsError
from sqkit.files import canonical_json
from sqkit.records import session_day
from sqkit.settings import PREFIX, Settings
from sqkit.trading_rules import TradingRules, runtime_differences

LAST_DAY = session_day(dt.date(2024, 9, 30))


def runtime(
    strategy: str = "swing", market: str = "us", last_day: int | None = LAST_DAY, **settings: Any
) -> dict[str, Any]:
    """What a decision under these settings records."""
    rules = TradingRules.from_settings(
        Settings(_env_file=None, **settings),
        strategy=strategy,
        market=market,
        horizon_bars=5,
        dead_zone=0.5,
        last_day=last_day,
    )
    return json.loads(canonical_json(rules.describe()))  # type: ignore[no-any-return]


CHANGED = {
    "student_model_confidence_threshold": 0.7,
    "strategy_ema_fast": 5,
    "strategy_ema_slow": 60,
    "strategy_atr_bars": 40,
    "strategy_rsi_bars": 3,
    "strategy_rsi_high": 60.0,
    "strategy_rsi_low": 45.0,
    "strategy_entry_strength": 0.8,
    "strategy_exit_strength": 0.5,
    "swing_max_holding_days": 3,
    "swing_allow_short": True,
    "slippage_bps_swing": 9.0,
    "cost_schedule": "flat_bps:25",
    "backtest_capital_per_symbol": 1_000_000.0,
}


@pytest.mark.parametrize("setting", sorted(CHANGED))
def test_a_changed_setting_is_named_by_its_variable(setting: str) -> None:
    """The line says which variable, what it is now and what was decided under."""
    lines = runtime_differences(runtime(), runtime(**{setting: CHANGED[setting]}))

    named = [line for line in lines if f"{PREFIX}{setting.upper()} is" in line]
    assert len(named) == 1
    assert str(CHANGED[setting]) in named[0]
    assert "decided under" in named[0]
    assert len(lines) == (2 if setting == "cost_schedule" else 1), lines  # its rates are others as well


def test_the_same_settings_make_no_difference() -> None:
    """Nothing is named when today trades as the decision did, in either strategy."""
    for strategy in ("swing", "intraday"):
        assert runtime_differences(runtime(strategy), runtime(strategy)) == []


def test_a_setting_of_the_other_strategy_makes_no_difference() -> None:
    """The intraday slippage and the square-off say nothing about swing trades."""
    assert runtime_differences(runtime(), runtime(slippage_bps_intraday=9.0, square_off_minutes=60)) == []
    lines = runtime_differences(runtime("intraday"), runtime("intraday", square_off_minutes=60))
    assert lines == [f"{PREFIX}SQUARE_OFF_MINUTES is 60, decided under 20"]


def test_other_factors_are_named_although_no_variable_sets_them() -> None:
    """Another version of sqkit with other factors would trade otherwise: it is said so."""
    decided = runtime()
    decided["strategy_parameters"]["agree_factor"] = 1.5

    assert runtime_differences(decided, runtime()) == [
        "agree_factor is 1.2 in this version of sqkit, decided under 1.5"
    ]


def test_sessions_of_the_window_count_and_later_ones_do_not(tmp_path: Path) -> None:
    """A holiday inside the window is a difference; one that is announced for later is none."""
    past, future = tmp_path / "past.json", tmp_path / "future.json"
    past.write_text('{"holidays": ["2024-08-01"]}')
    future.write_text('{"holidays": ["2024-12-31"]}')

    assert runtime_differences(runtime(), runtime(sessions_file=str(future))) == []
    assert runtime_differences(runtime(), runtime(sessions_file=str(past))) == [
        f"the sessions behind {PREFIX}SESSIONS_FILE are others than in the validated window"
    ]


def test_rates_of_the_window_are_kept_by_digest() -> None:
    """A fee schedule of one name is the same up to a day whatever later rows it has."""
    early, late = session_day(dt.date(2020, 1, 2)), session_day(dt.date(2025, 1, 2))

    digests = {runtime(market="nse", last_day=day)["costs_digest"] for day in (early, early + 1, late)}
    assert len(digests) == 2


def test_without_a_window_there_are_no_digests_and_they_are_not_compared() -> None:
    """A training plan knows no last day; whoever compares without one compares everything else."""
    plain = runtime(last_day=None)

    assert plain["sessions_digest"] is None
    assert plain["costs_digest"] is None
    assert runtime_differences(runtime(), plain) == []


def test_a_decision_that_does_not_record_its_sessions_and_rates_differs() -> None:
    """What is not recorded is not known to be the same."""
    assert runtime_differences(runtime(last_day=None), runtime()) == [
        f"the decision does not say which rates {PREFIX}COST_SCHEDULE stood for",
        f"the decision does not say which sessions {PREFIX}SESSIONS_FILE stood for",
    ]


@pytest.mark.parametrize(
    "broken", [{}, {"strategy_parameters": 3}, {"strategy_parameters": {"ema_fast": [1]}}]
)
def test_a_record_of_another_form_differs(broken: dict[str, Any]) -> None:
    """What is no record of rules is never equal to today's."""
    assert runtime_differences(broken, runtime())


def test_what_cannot_be_used_is_refused_at_once() -> None:
    """A fee schedule or sessions file that does not exist is refused by its own error."""
    with pytest.raises(SettingsError, match="no such fee schedule"):
        runtime(cost_schedule="free")
    with pytest.raises(SessionsError, match="cannot be read"):
        runtime(sessions_file="/nowhere/sessions.json")
