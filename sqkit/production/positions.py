"""What is really held: a host's fills and positions, and whether entries may be made on them.

With a dry run there is no host and nothing to hold against. Else entries wait for `Positions.sync`, and a
symbol whose real position is another one than the engine's is locked until a person or a later sync clears it.
Exits always work on what is really held.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from sqkit.records import EXIT_REASON_CODES, TRADE_CLOSED, TRADE_OPENED


class Fill(NamedTuple):
    """One execution as a host reports it; `quantity` is signed, `fees` in the market's currency."""

    symbol: str
    quantity: int
    price: float
    time_ns: int
    session_day: int
    fees: float = 0.0


class Mismatch(NamedTuple):
    """A position that is not what the engine held it to be."""

    symbol: str
    expected: int
    real: int


class _Open:
    """A trade under way: the average of its entries, and of the exits so far."""

    def __init__(self, fill: Fill, strength: float, student: int) -> None:
        self.side = 1 if fill.quantity > 0 else -1
        self.entry_ns, self.entry_day = fill.time_ns, fill.session_day
        self.entered = self.left = 0
        self.entry_value = self.exit_value = self.fees = 0.0
        self.strength, self.student = strength, student

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> _Open:
        """What `vars` gave of one."""
        trade = cls.__new__(cls)
        trade.__dict__.update(kept)
        return trade

    @classmethod
    def adopted(cls, paper: Mapping[str, Any]) -> _Open:
        """A position that no fill of this process opened: as the paper book has it."""
        quantity = int(paper["quantity"])
        trade = cls(
            Fill(
                "", int(paper["direction"]) * quantity, 0.0, paper["entry_time"], paper["entry_session_date"]
            ),
            paper["entry_strength"],
            paper["student_at_entry"],
        )
        trade.entered, trade.entry_value = quantity, quantity * float(paper["entry_price"])
        return trade

    def record(self, exit_ns: int, exit_day: int, reason: int) -> dict[str, Any]:
        """Fields of `records.TRADE_FIELDS`; an exit instant of 0 for a trade that is open."""
        entry_price = self.entry_value / self.entered
        exit_price = self.exit_value / self.left if self.left else float("nan")
        net = self.side * (self.exit_value - self.left * entry_price) - self.fees
        return {
            "entry_time": self.entry_ns,
            "exit_time": exit_ns,
            "entry_session_date": self.entry_day,
            "exit_session_date": exit_day,
            "direction": self.side,
            "quantity": self.entered,
            "entry_price": entry_price,
            "exit_price": exit_price,
            "fees": self.fees,
            "net_pnl": net,
            "exit_reason": reason,
            "entry_strength": self.strength,
            "student_at_entry": self.student,
        }


class Positions:
    """The real positions of one engine.

    Attributes
    ----------
    synced
        Whether a host has said, or a person confirmed, what is held.
    locked
        Symbols that nothing may be entered in.
    """

    def __init__(self, *, dry_run: bool) -> None:
        self.synced = dry_run
        self.locked: set[str] = set()
        self._open: dict[str, _Open] = {}

    def sync(
        self, expected: Mapping[str, int], real: Mapping[str, int], confirmed: Collection[str] = ()
    ) -> list[Mismatch]:
        """Hold a host's positions against the engine's.

        Parameters
        ----------
        expected, real
            Signed shares by symbol; a symbol that `real` does not name is flat.
        confirmed
            Symbols that a person has looked at: what is real is right.
        """
        found = [
            Mismatch(symbol, held, real.get(symbol, 0))
            for symbol, held in expected.items()
            if real.get(symbol, 0) != held
        ]
        wrong = {one.symbol for one in found} - set(confirmed)
        settled = {symbol for symbol in expected if expected[symbol] == real.get(symbol, 0) == 0}
        self.locked = (self.locked | wrong) - settled - set(confirmed)
        # A trade whose shares are gone ended unseen; the next entry is another one.
        self._open = {
            symbol: trade for symbol, trade in self._open.items() if trade.side * real.get(symbol, 0) > 0
        }
        self.synced = True
        return found

    def snapshot(self) -> dict[str, Any]:
        """Plain values for `restore`."""
        return {
            "locked": sorted(self.locked),
            "open": {symbol: dict(vars(trade)) for symbol, trade in self._open.items()},
        }

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Go on from a snapshot; what is really held is for the host to say."""
        self.locked = set(kept["locked"])
        self._open = {symbol: _Open.of(one) for symbol, one in kept["open"].items()}

    def on_fill(
        self,
        fill: Fill,
        held: int,
        strength: float,
        student: int,
        reason: int,
        paper: Mapping[str, Any] | None = None,
    ) -> list[tuple[str, dict[str, Any]]]:
        """What a fill did to the trades of its symbol: ``trade_opened`` and ``trade_closed`` with their records.

        A fill that turns a position around closes one trade and opens another. `paper` is the paper book's
        trade, which stands for a position that no fill of this process opened.
        """
        if not fill.quantity:
            return []
        closing = -min(abs(held), abs(fill.quantity)) * (1 if held > 0 else -1) if held else 0
        closing = closing if closing * fill.quantity > 0 else 0
        opening = fill.quantity - closing
        share = fill.fees / abs(fill.quantity)
        events = []
        if closing and fill.symbol not in self._open and paper is not None:
            self._open[fill.symbol] = _Open.adopted(paper)
        trade = self._open.get(fill.symbol)
        if closing and trade is not None:
            trade.left += abs(closing)
            trade.exit_value += abs(closing) * fill.price
            trade.fees += share * abs(closing)
            if held + closing == 0:
                done = trade.record(
                    fill.time_ns, fill.session_day, reason or EXIT_REASON_CODES["opposite_signal"]
                )
                events.append((TRADE_CLOSED, done))
                del self._open[fill.symbol]
        if opening:
            fresh = fill.symbol not in self._open
            trade = self._open.setdefault(
                fill.symbol, _Open(fill._replace(quantity=opening), strength, student)
            )
            trade.entered += abs(opening)
            trade.entry_value += abs(opening) * fill.price
            trade.fees += share * abs(opening)
            if fresh:
                events.append((TRADE_OPENED, trade.record(0, 0, 0)))
        return events
