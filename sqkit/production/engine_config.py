"""What an engine is told before it starts, and what it needs of the outside world."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from sqkit.bars import INTERVAL_MINUTES
from sqkit.errors import UsageError
from sqkit.sessions import MARKETS
from sqkit.settings import Settings
from sqkit.trading_rules import TradingRules


@dataclass(frozen=True)
class Config:
    """What an engine trades.

    Attributes
    ----------
    strategy
        ``intraday`` or ``swing``.
    symbols
        What it trades; a bar of another symbol is refused.
    interval
        Length of a bar: ``1m``, ``5m`` or ``1d``; empty: ``1m`` for intraday, ``1d`` for swing.
    calendar
        Market whose sessions count; empty: the settings' market.
    capital
        What strength 1 buys shares for, per symbol; None: the settings' ``backtest_capital_per_symbol``.
    dry_run
        Trade on paper: orders fill at the next open. Otherwise a host executes the orders, reports its
        fills (`Engine.on_fill`), and nothing is entered before `Engine.sync_positions`.
    name
        Of this engine among others on the machine: its state lies in ``data/engine/<name>``. Empty: the
        strategy.
    stamp
        Whether the feed stamps a bar by its ``start`` or by its ``end``.
    """

    strategy: str
    symbols: tuple[str, ...]
    interval: str = ""
    calendar: str = ""
    capital: float | None = None
    dry_run: bool = True
    name: str = ""
    stamp: Literal["start", "end"] = "start"

    def __post_init__(self) -> None:
        if self.strategy not in ("intraday", "swing"):
            raise UsageError(f"strategy {self.strategy!r}: choose intraday or swing")
        if (
            not isinstance(self.symbols, tuple)
            or not self.symbols
            or len(set(self.symbols)) < len(self.symbols)
        ):
            raise UsageError(f"symbols {self.symbols!r}: give a tuple of names, each once")
        if self.interval not in ("", *INTERVAL_MINUTES):
            raise UsageError(f"interval {self.interval!r}: choose one of {', '.join(INTERVAL_MINUTES)}")
        if self.calendar not in ("", *MARKETS):
            raise UsageError(f"calendar {self.calendar!r}: choose one of {', '.join(MARKETS)}")
        if self.stamp not in ("start", "end"):
            raise UsageError(f"stamp {self.stamp!r}: a feed stamps its bars by their start or end")
        if self.capital is not None and not 0.0 < self.capital < float("inf"):
            raise UsageError(f"capital {self.capital}: give a positive amount, or None for the settings'")
        if self.name and (not self.name.replace("-", "").replace("_", "").isalnum() or len(self.name) > 64):
            raise UsageError(f"name {self.name!r}: letters, digits, - and _")

    def filled(self, settings: Settings) -> Config:
        """The same with everything that was left to the settings."""
        return replace(
            self,
            interval=self.interval or ("1m" if self.strategy == "intraday" else "1d"),
            calendar=self.calendar or settings.market,
            name=self.name or self.strategy,
        )

    def rules(self, settings: Settings) -> TradingRules:
        """Today's rules of a config that is filled; horizon and dead zone decide nothing here."""
        rules = TradingRules.from_settings(
            settings, strategy=self.strategy, market=self.calendar, horizon_bars=1, dead_zone=0.0
        )
        return rules if self.capital is None else replace(rules, capital=self.capital)


class Sink(Protocol):
    """Where records and events go."""

    @property
    def lost(self) -> int:
        """What could not be written."""

    def write(self, session_day: int, record: dict[str, Any]) -> bool:
        """Keep a record of a session date; it is the sink's only until the call returns."""

    def event(self, record: dict[str, Any]) -> bool:
        """Keep an event of the engine."""

    def close(self) -> None:
        """Nothing more comes."""
