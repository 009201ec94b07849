"""Everything beside the model that decides what is traded and what it costs.

A validation records these rules under ``runtime``; the promoter and the live engine hold today's
settings against them: a decision made under other rules says nothing about what would trade now.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqkit.costs import fee_schedule
from sqkit.files import sha256_columns, sha256_json
from sqkit.records import iso_date, session_day
from sqkit.sessions import MARKETS, load_sessions
from sqkit.settings import PREFIX, Settings
from sqkit.strategy import StrategyParameters


@dataclass(frozen=True)
class TradingRules:
    """Everything beside the model that decides what a backtest trades and what it costs.

    Attributes
    ----------
    parameters
        The strategy step's parameters.
    threshold
        Confidence from which a student's direction counts.
    horizon_bars, dead_zone
        What an outcome is.
    cost_schedule, slippage_bps, capital
        Fees by name, slippage per side in basis points, capital per symbol in the market's currency.
    market
        Name of the market.
    costs_digest, sessions_digest
        SHA-256 of the fee schedule and of the session table up to the window's last day; None where
        no window is known. What a later date adds to either changes no decision.
    """

    parameters: StrategyParameters
    threshold: float
    horizon_bars: int
    dead_zone: float
    cost_schedule: str
    slippage_bps: float
    capital: float
    market: str
    costs_digest: str | None = None
    sessions_digest: str | None = None

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        *,
        strategy: str,
        market: str,
        horizon_bars: int,
        dead_zone: float,
        last_day: int | None = None,
    ) -> TradingRules:
        """The rules that `settings` give for a strategy in a market.

        Parameters
        ----------
        last_day
            Last session date of the window, as days since 1970-01-01; None where there is none.

        Raises
        ------
        SettingsError, SessionsError
            No fee schedule has that name; the sessions file cannot be used.
        """
        place = MARKETS[market]
        by_market = place.intraday_cost_schedule if strategy == "intraday" else place.swing_cost_schedule
        cost_schedule = settings.cost_schedule or by_market
        fee_schedule(cost_schedule)  # an unknown name is refused here, not in the middle of a run
        return cls(
            parameters=StrategyParameters.from_settings(settings, strategy),
            threshold=settings.student_model_confidence_threshold,
            horizon_bars=horizon_bars,
            dead_zone=dead_zone,
            cost_schedule=cost_schedule,
            slippage_bps=settings.slippage_bps(strategy),
            capital=settings.backtest_capital_per_symbol,
            market=market,
            costs_digest=None if last_day is None else _costs_digest(cost_schedule, last_day),
            sessions_digest=None
            if last_day is None
            else _sessions_digest(market, settings.sessions_file, last_day),
        )

    def describe(self) -> dict[str, Any]:
        """What the checklist records under ``runtime``."""
        place = MARKETS[self.market]
        return {
            "capital_per_symbol": self.capital,
            "confidence_threshold": self.threshold,
            "cost_schedule": self.cost_schedule,
            "costs_digest": self.costs_digest,
            "currency": place.currency,
            "dead_zone": self.dead_zone,
            "horizon_bars": self.horizon_bars,
            "market": self.market,
            "sessions": place.calendar,
            "sessions_digest": self.sessions_digest,
            "slippage_bps": self.slippage_bps,
            "strategy": self.parameters.strategy,
            "strategy_parameters": self.parameters.describe(),
            "tradable": place.tradable,
            "zone": place.zone,
        }


def runtime_differences(decided: Mapping[str, Any], today: Mapping[str, Any]) -> list[str]:
    """What today's rules have otherwise than a decision's ``runtime``, one line each, naming the setting.

    Parameters
    ----------
    decided
        As a checklist records it.
    today
        `TradingRules.describe` of today's settings; without a last day its digests are not compared.
    """
    strategy = today["strategy"]
    before, now = _flat(decided), _flat(today)
    lines = []
    for name in sorted({*before, *now}):
        said, given = before.get(name), now.get(name)
        unused = name == "square_off_minutes" and strategy == "swing"
        unknown = name in _BEHIND and given is None
        if said != given and not unused and not unknown:
            lines.append(_difference_line(name, said, given, strategy))
    return lines


def decision_differences(
    settings: Settings, about: Mapping[str, Any], checklist: Mapping[str, Any]
) -> list[str]:
    """What today's settings have otherwise than the decision about a model, one line each.

    Parameters
    ----------
    about
        The model's metadata.
    checklist
        The decision: its ``runtime`` and the last day of its ``validation_period`` count.
    """
    last_day = session_day(dt.date.fromisoformat(checklist["validation_period"]["end"]))
    today = TradingRules.from_settings(
        settings,
        strategy=about["strategy"],
        market=about["market"],
        horizon_bars=about["horizon_bars"],
        dead_zone=about["dead_zone"],
        last_day=last_day,
    )
    return runtime_differences(checklist["runtime"], today.describe())


_SETTINGS: Final = {
    "capital_per_symbol": "backtest_capital_per_symbol",
    "confidence_threshold": "student_model_confidence_threshold",
    "cost_schedule": "cost_schedule",
    "ema_fast": "strategy_ema_fast",
    "ema_slow": "strategy_ema_slow",
    "atr_bars": "strategy_atr_bars",
    "rsi_bars": "strategy_rsi_bars",
    "rsi_high": "strategy_rsi_high",
    "rsi_low": "strategy_rsi_low",
    "entry_strength": "strategy_entry_strength",
    "exit_strength": "strategy_exit_strength",
    "square_off_minutes": "square_off_minutes",
    "max_holding_sessions": "swing_max_holding_days",
    "allow_short": "swing_allow_short",
}
"""What a recorded rule is called among the settings."""

_BEHIND: Final = {
    "costs_digest": ("rates", "cost_schedule"),
    "sessions_digest": ("sessions", "sessions_file"),
}


def _difference_line(name: str, said: Any, given: Any, strategy: str) -> str:
    if name in _BEHIND:
        what, setting = _BEHIND[name]
        if said is None:
            return f"the decision does not say which {what} {PREFIX}{setting.upper()} stood for"
        return f"the {what} behind {PREFIX}{setting.upper()} are others than in the validated window"
    setting = f"slippage_bps_{strategy}" if name == "slippage_bps" else _SETTINGS.get(name, "")
    if setting:
        return f"{PREFIX}{setting.upper()} is {given}, decided under {said}"
    return f"{name} is {given} in this version of sqkit, decided under {said}"


def _flat(runtime: Mapping[str, Any]) -> dict[str, Any]:
    """Rules and strategy parameters side by side; a broken form stays one value and differs."""
    parameters = runtime.get("strategy_parameters")
    if not isinstance(parameters, Mapping):
        return dict(runtime)
    return {name: value for name, value in runtime.items() if name != "strategy_parameters"} | dict(
        parameters
    )


def _costs_digest(name: str, last_day: int) -> str:
    rows = fee_schedule(name).describe()["rows"]
    known = [row for row in rows if row["effective_from"] <= iso_date(last_day)]
    return sha256_json(known or rows[:1])


def _sessions_digest(market: str, sessions_file: str, last_day: int) -> str:
    table = load_sessions(market, sessions_file)
    days = table.session_days(table.first_day, min(last_day, table.horizon_day))
    opens, closes = table.open_close_ns(days)
    return sha256_columns(day=days, opens=opens, closes=closes)
