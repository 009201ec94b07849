"""The trading side of an engine: strategy step, paper book, orders, real positions, trades.

A bar's decision becomes the orders for the next open. With a dry run they fill on paper; else a host
executes them and says what it holds, and the paper book, which sizes orders, is corrected to that.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from sqkit.production.halting import NO_NEW_ENTRIES
from sqkit.production.intake import LATE
from sqkit.production.lane import Lane
from sqkit.production.positions import Fill, Mismatch, Positions
from sqkit.production.signals import Order
from sqkit.records import (
    ENTRY_LOCK_CODES,
    EXIT_REASON_CODES,
    EXIT_REASONS,
    FLAT,
    REASON_CODES,
    TRADE_CLOSED,
    TRADE_OPENED,
)
from sqkit.strategystep import WARMING

_UNAVAILABLE: Final = frozenset(
    REASON_CODES[name]
    for name in (
        "error",
        "no_student",
        "settings_differ",
        "stale_model",
        "strategy_mismatch",
        "version_mismatch",
    )
)
"""Reasons under which the student is missing or has failed, though it is enabled."""

_MISSED: Final = EXIT_REASON_CODES["missed_square_off"]

Record = Callable[[str, str, dict[str, Any]], None]


class Desk:
    """What one engine wants and holds.

    Parameters
    ----------
    dry_run
        Whether orders fill on paper.
    without_student
        Whether entries go on where the student is missing or has failed.
    record
        Told of every trade that was opened or closed: event, symbol, fields of ``records.TRADE_FIELDS``.
    warn
        Told of every position that is not what it should be.
    """

    def __init__(
        self, *, dry_run: bool, without_student: bool, record: Record, warn: Callable[[Mismatch], None]
    ) -> None:
        self.positions = Positions(dry_run=dry_run)
        self.silent: set[str] = set()
        self.recording = True
        self._dry_run = dry_run
        self._without_student = without_student
        self._record = record
        self._warn = warn
        self._squared_off: dict[str, int] = {}

    def lock(self, lane: Lane, status: int, reason: int, halt: str | None) -> int:
        """Why nothing may be entered on this bar, a code of ``records.ENTRY_LOCKS``; 0 where it may."""
        positions, was_silent = self.positions, lane.symbol in self.silent
        if was_silent:  # whatever else locks this bar: it ended the silence
            self.silent.discard(lane.symbol)
        if halt == NO_NEW_ENTRIES:
            return ENTRY_LOCK_CODES["halted"]
        if not positions.synced:
            return ENTRY_LOCK_CODES["not_synced"]
        if positions.locked and lane.symbol in positions.locked:
            return ENTRY_LOCK_CODES["position_mismatch"]
        if status == LATE:
            return ENTRY_LOCK_CODES["late_bar"]
        if was_silent:
            return ENTRY_LOCK_CODES["feed_stale"]
        if lane.intake.end_stamped:
            return ENTRY_LOCK_CODES["end_stamped"]
        if reason in _UNAVAILABLE and not self._without_student:
            return ENTRY_LOCK_CODES["no_student"]
        return 0

    def advance(self, lane: Lane, start_ns: int, direction: int, mode: int) -> list[float]:
        """Strategy step and paper book after the bar in the lane; columns of `sqkit.strategystep`."""
        row = lane.intake.row
        said: list[float] = lane.strategy.update(row, direction, mode).tolist()
        _, _, strength, target, _, exit_reason = said
        fills = lane.fills
        closed = fills.update(start_ns, row, target, strength, direction, int(exit_reason))
        if closed is not None or fills.opened:
            self._paper_trades(lane, closed)
        if target:
            lane.strategy_said = (strength, direction, int(exit_reason))
        elif exit_reason:
            lane.strategy_said = (*lane.strategy_said[:2], int(exit_reason))
        if (
            self._dry_run or not self.recording
        ):  # gone through again after a restart: a sync says what is real
            lane.quantity = fills.quantity
        elif fills.quantity != lane.quantity:
            if closed is not None and not lane.quantity:
                pass  # a host closed it before paper could
            elif closed is not None and closed["exit_reason"] == _MISSED:
                # Paper closed it at this very open, which a host learns only now: its order is for the next one.
                fills.adopt(lane.quantity, lane.intake.end_ns, leaving=_MISSED)
            else:
                self._diverged(lane)
        if lane.next_strategy is not None:
            lane.next_strategy.update(row, FLAT, WARMING)
            lane.change_rules()
        if not lane.warm:
            lane.look_warm()
        return said

    def orders(self, lane: Lane, exit_reason: int) -> tuple[Order, ...]:
        """What to send for the next open; an exit is of what is really held."""
        if not self.positions.synced:
            return ()  # what is held is not known: an order could open a position nobody wants
        closing, opening = lane.fills.orders
        if not closing and not opening:
            return ()
        orders = []
        if closing and lane.quantity:
            side = "SELL" if lane.quantity > 0 else "BUY"
            reason = exit_reason or lane.fills.leaving
            orders.append(Order(lane.symbol, side, abs(lane.quantity), EXIT_REASONS[reason]))
        if opening:
            orders.append(Order(lane.symbol, "BUY" if opening > 0 else "SELL", abs(opening), "entry"))
        return tuple(orders)

    def sync(
        self, lanes: Mapping[str, Lane], real: Mapping[str, int], confirmed: Collection[str]
    ) -> list[Mismatch]:
        """Hold a host's positions against the engine's, and go on with what is real."""
        found = self.positions.sync({name: lane.quantity for name, lane in lanes.items()}, real, confirmed)
        for one in found:
            lanes[one.symbol].adopt(one.real)
            if one.symbol in self.positions.locked:
                self._warn(one)
        return found

    def fill(self, lane: Lane, fill: Fill) -> None:
        """A host's execution."""
        strength, student, reason = lane.strategy_said
        held, lane.quantity = lane.quantity, lane.quantity + fill.quantity
        for event, trade in self.positions.on_fill(
            fill, held, strength, student, reason, lane.fills.open_trade
        ):
            self._record(event, lane.symbol, trade)

    def overdue(self, lane: Lane, day: int, now_ns: int, stale_ns: int) -> Order | None:
        """The order that closes a position past its square-off which no bar will close; once a session."""
        quantity = lane.quantity
        if (
            not quantity
            or self._squared_off.get(lane.symbol) == day
            or now_ns - lane.intake.end_ns <= stale_ns
        ):
            return None
        self._squared_off[lane.symbol] = day
        reason = "square_off" if lane.intake.last_day == day else "missed_square_off"
        lane.strategy.hold(0.0)
        lane.fills.adopt(quantity, now_ns, leaving=EXIT_REASON_CODES[reason])
        lane.strategy_said = (*lane.strategy_said[:2], EXIT_REASON_CODES[reason])
        return Order(lane.symbol, "SELL" if quantity > 0 else "BUY", abs(quantity), reason)

    def _paper_trades(self, lane: Lane, closed: dict[str, Any] | None) -> None:
        if not self._dry_run or not self.recording:
            return
        if closed is not None:
            self._record(TRADE_CLOSED, lane.symbol, closed)
        opened = lane.fills.open_trade if lane.fills.opened else None
        if opened is not None:
            self._record(TRADE_OPENED, lane.symbol, opened)

    def _diverged(self, lane: Lane) -> None:
        """What is held is not what was ordered: go on with it, and enter nothing until somebody has looked."""
        if lane.symbol not in self.positions.locked:
            self.positions.locked.add(lane.symbol)
            self._warn(Mismatch(lane.symbol, lane.fills.quantity, lane.quantity))
        lane.adopt(lane.quantity)
