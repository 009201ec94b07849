"""A host that really trades: entries wait for its positions, exits work on what is really held."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from sqkit.errors import UsageError
from sqkit.production.engine import Order
from sqkit.production.positions import Fill, Positions
from sqkit.records import EXIT_REASON_CODES, iso_instant
from tests.engines import SYMBOL, Bench, pairs, series
from tests.test_engine_restart import abandon

OPPOSITE = EXIT_REASON_CODES["opposite_signal"]


class Broker:
    """Executes orders at the next open, as a host does; `fills` says how much of an order is filled."""

    def __init__(self, bench: Bench, filled: float = 1.0) -> None:
        self.bench = bench
        self.filled = filled
        self.waiting: tuple[Order, ...] = ()
        self.sent: list[Order] = []
        self.held = 0

    def feed(self, bars: list[Any]) -> list[Any]:
        """Bars, each after the fills at its open."""
        said = []
        for bar, available in bars:
            self.bench.clock.set_ns = available - 30 * 10**9
            for order in self.waiting:
                shares = int(order.quantity * (self.filled if order.reason == "entry" else 1.0))
                signed = shares if order.side == "BUY" else -shares
                if signed:
                    self.held += signed
                    self.bench.engine.on_fill(order.symbol, signed, bar.open, fees=1.0)
            self.bench.clock.set_ns = available
            signal = self.bench.engine.process_tick(bar)
            said.append(signal)
            self.waiting = signal.orders if signal else ()
            self.sent += self.waiting
        return said

    def feed_until_held(self, bars: list[Any], start: int) -> int:
        """Bars from a place on until something is held; where to go on."""
        while not self.held:
            self.feed(bars[start : start + 1])
            start += 1
        return start


def live(root: Path, **config: Any) -> Bench:
    """An engine of a host that trades."""
    return Bench(root, "intraday", config={"dry_run": False, **config}, keep_state=False)


def test_nothing_is_entered_before_the_positions_are_known(tmp_path: Path) -> None:
    """Entries wait for the first sync; then they are those of the paper run."""
    bars = pairs(series("intraday"))
    bench = live(tmp_path)
    broker = Broker(bench)
    broker.feed(bars[:200])
    assert not broker.sent
    assert {one["entry_lock"] for one in bench.predictions()} == {"not_synced"}
    assert bench.engine.sync_positions({}) == []
    broker.feed(bars[200:])

    assert broker.sent
    assert {one["entry_lock"] for one in bench.predictions()[200:]} == {None}


def test_a_host_that_fills_everything_trades_what_paper_trades(tmp_path: Path) -> None:
    """Same orders, same sizes, same trades but for slippage and the fees that the host reports."""
    bars = pairs(series("intraday"))
    paper = Bench(tmp_path / "paper", "intraday", keep_state=False)
    paper.feed(bars)
    bench = live(tmp_path / "live")
    bench.engine.sync_positions({})
    said = Broker(bench).feed(bars)
    names = ("direction", "quantity", "entry_session_date", "exit_reason", "entry_strength")

    def closed(one: Bench) -> list[Any]:
        return [[r[name] for name in names] for r in one.records() if r["event"] == "trade_closed"]

    assert [one and one.orders for one in said] == [one and one.orders for one in paper.signals]
    assert closed(bench) == closed(paper)
    assert not bench.engine.health()["locked"]
    live_trade = next(one for one in bench.records() if one["event"] == "trade_closed")
    assert live_trade["fees"] == 2.0


def test_a_partial_fill_locks_entries_and_the_exit_is_of_what_is_held(tmp_path: Path) -> None:
    """Half an order filled: the position is closed with half the shares, and nothing new is entered."""
    bars = pairs(series("intraday"))
    bench = live(tmp_path)
    bench.engine.sync_positions({})
    broker = Broker(bench, filled=0.5)
    broker.feed(bars)
    entry, leave = broker.sent[0], broker.sent[1]

    assert entry.reason == "entry"
    assert leave.reason != "entry"
    assert leave.quantity == entry.quantity // 2
    assert len(broker.sent) == 2, "entries are locked until somebody has looked"
    assert bench.engine.health()["locked"] == [SYMBOL]
    assert broker.held == 0


def test_a_lock_ends_when_both_are_flat_or_a_person_has_looked(tmp_path: Path) -> None:
    """A later sync with both flat frees the symbol; `confirmed` frees it at once."""
    bench = live(tmp_path)
    assert [one.real for one in bench.engine.sync_positions({SYMBOL: 40})] == [40]
    assert bench.engine.health()["locked"] == [SYMBOL]
    bench.engine.sync_positions({SYMBOL: 40})
    assert bench.engine.health()["locked"] == [SYMBOL], "agreeing on a surprise does not explain it"
    bench.engine.sync_positions({SYMBOL: 40}, confirmed=[SYMBOL])
    assert bench.engine.health()["locked"] == []

    other = live(tmp_path / "other")
    other.engine.sync_positions({SYMBOL: 40})
    other.engine.sync_positions({})
    assert other.engine.health()["locked"] == [SYMBOL], "it changed again"
    other.engine.sync_positions({})
    assert other.engine.health()["locked"] == []


def test_an_unknown_position_is_left_by_its_rules(tmp_path: Path) -> None:
    """Shares that the engine did not buy are sold when the rules say so, all of them, and no more."""
    bars = pairs(series("intraday"))
    bench = live(tmp_path)
    Broker(bench).feed(bars[:100])
    bench.engine.sync_positions({SYMBOL: 37})
    broker = Broker(bench)
    broker.held = 37
    broker.feed(bars[100:390])

    assert [(one.side, one.quantity) for one in broker.sent] == [("SELL", 37)]
    assert broker.held == 0


def test_a_host_that_never_fills_is_noticed(tmp_path: Path) -> None:
    """An entry that nobody executed is no position: no exit is sent for it, and entries are locked."""
    bars = pairs(series("intraday"))
    bench = live(tmp_path)
    bench.engine.sync_positions({})
    broker = Broker(bench, filled=0.0)
    broker.feed(bars)

    assert [one.reason for one in broker.sent] == ["entry"]
    assert bench.engine.health()["locked"] == [SYMBOL]
    assert bench.engine.quantity(SYMBOL) == 0


def test_the_square_off_comes_without_bars(tmp_path: Path) -> None:
    """When the feed is silent at the square-off, the time brings the order: once, of what is held."""
    bars = pairs(series("intraday"))
    bench = live(tmp_path)
    bench.engine.sync_positions({})
    broker = Broker(bench)
    stop = next(i for i in range(100, 360) if broker.feed([bars[i]]) and broker.held)
    square_off = bars[369][1]
    bench.clock.set_ns = square_off - 60 * 10**9
    assert bench.engine.on_time() == []
    bench.clock.set_ns = square_off
    (signal,) = bench.engine.on_time()
    held = bench.engine.quantity(SYMBOL)

    assert stop < 355
    assert signal.orders == (Order(SYMBOL, "SELL" if held > 0 else "BUY", abs(held), "square_off"),)
    assert bench.engine.on_time() == [], "once a session"
    assert [one["reason"] for one in bench.events() if one["event"] == "square_off"] == ["square_off"]


def test_a_position_of_yesterday_is_a_missed_square_off(tmp_path: Path) -> None:
    """Silent from before the square-off to the next session: the first bar closes it, as missed."""
    bars = pairs(series("intraday"))
    bench = live(tmp_path)
    bench.engine.sync_positions({})
    broker = Broker(bench)
    for i in range(100, 360):
        broker.feed([bars[i]])
        if broker.held:
            break
    held = broker.held
    broker.waiting = ()
    (signal,) = broker.feed([bars[390]])
    broker.feed([bars[391]])
    closed = [one for one in bench.records() if one["event"] == "trade_closed"]

    assert held
    assert signal.orders[0].quantity == abs(held)
    assert closed[-1]["exit_reason"] == "missed_square_off"


def test_a_fill_of_nobody_is_refused(tmp_path: Path) -> None:
    """Another symbol, or a time without a zone, is the host's mistake."""
    bench = live(tmp_path)

    with pytest.raises(UsageError, match="no symbol of this engine"):
        bench.engine.on_fill("ZZZ", 5, 10.0)
    with pytest.raises(UsageError, match="without a zone"):
        bench.engine.on_fill(SYMBOL, 5, 10.0, at=dt.datetime(2003, 1, 2))  # noqa: DTZ001 - that is the point


def test_a_restart_waits_for_the_host(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A persisted book is no knowledge: nothing is entered before a sync, and an exit is of what that says."""
    bars = pairs(series("intraday"))
    config = {"dry_run": False}
    first = Bench(tmp_path, "intraday", config=config)
    first.engine.sync_positions({})
    broker = Broker(first)
    stop = 100
    while not broker.held:
        broker.feed(bars[stop : stop + 1])
        stop += 1
    abandon(first)
    second = Bench(tmp_path, "intraday", config=config)

    assert second.engine.quantity(SYMBOL) == broker.held
    assert not caplog.records
    other = Broker(second)
    other.held = broker.held
    other.feed(bars[stop : stop + 1])
    assert second.predictions()[-1]["entry_lock"] == "not_synced"
    assert second.engine.sync_positions({SYMBOL: broker.held}) == []
    other.feed(bars[stop + 1 : 390])
    leaving = next(one for one in other.sent if one.reason != "entry")
    assert leaving.quantity == abs(broker.held)


def fill(quantity: int, price: float, minute: int = 0, fees: float = 0.0) -> Fill:
    return Fill(SYMBOL, quantity, price, minute * 60 * 10**9, 12_000, fees)


def test_fills_add_up_to_trades() -> None:
    """Averages, both fees, P&L after costs; a fill that turns the position closes one trade and opens another."""
    book = Positions(dry_run=False)

    assert [name for name, _ in book.on_fill(fill(60, 10.0, fees=1.0), 0, 0.7, 1, 0)] == ["trade_opened"]
    assert book.on_fill(fill(40, 11.0, 1, fees=1.0), 60, 0.7, 1, 0) == []
    assert book.on_fill(fill(-30, 12.0, 2), 100, 0.7, 1, OPPOSITE) == []
    (closed, trade), (opened, reverse) = book.on_fill(fill(-90, 13.0, 3, fees=9.0), 70, 0.6, -1, OPPOSITE)

    assert (closed, opened) == ("trade_closed", "trade_opened")
    assert trade["quantity"] == 100
    assert trade["entry_price"] == pytest.approx(10.4)
    assert trade["exit_price"] == pytest.approx((30 * 12 + 70 * 13) / 100)
    assert trade["fees"] == pytest.approx(2.0 + 7.0)
    assert trade["net_pnl"] == pytest.approx(30 * 12 + 70 * 13 - 1040 - 9)
    assert (trade["exit_reason"], trade["student_at_entry"]) == (OPPOSITE, 1)
    assert (reverse["direction"], reverse["quantity"], reverse["fees"]) == (-1, 20, 2.0)
    assert reverse["student_at_entry"] == -1


def closed_trades(bench: Bench) -> list[dict[str, Any]]:
    """The records of trades that were closed."""
    return [one for one in bench.records() if one["event"] == "trade_closed"]


def test_a_trade_that_ended_unseen_is_not_the_next_one(tmp_path: Path) -> None:
    """Its shares were gone at a sync: the next entry opens a trade of its own, with its own price."""
    bench = live(tmp_path)
    bench.feed(pairs(series("intraday"))[:2])
    bench.engine.sync_positions({})
    bench.engine.on_fill(SYMBOL, 100, 50.0)
    bench.engine.sync_positions({})
    bench.engine.sync_positions({})
    bench.engine.on_fill(SYMBOL, 80, 60.0)
    bench.engine.on_fill(SYMBOL, -80, 61.0)

    assert sum(one["event"] == "trade_opened" for one in bench.records()) == 2
    assert [(one["quantity"], one["entry_price"], one["net_pnl"]) for one in closed_trades(bench)] == [
        (80, 60.0, 80.0)
    ]


def test_a_position_that_was_found_was_entered_when_it_was_found(tmp_path: Path) -> None:
    """Its closed trade names the end of the last bar and no student, not the entry of a trade before it."""
    bars = pairs(series("intraday"))
    bench = live(tmp_path)
    bench.engine.sync_positions({})
    broker = Broker(bench)
    broker.feed_until_held(bars, 100)
    broker.feed(bars[378:388])
    before = closed_trades(bench)
    bench.engine.sync_positions({SYMBOL: 37})
    bench.engine.on_fill(SYMBOL, -37, 50.0)
    found = closed_trades(bench)[len(before) :]

    assert [(one["quantity"], one["entry_time"], one["entry_strength"]) for one in found] == [
        (37, iso_instant(bars[387][1]), 0.0)
    ]
    assert found[0]["student_at_entry"] == "FLAT"


def test_nothing_is_said_to_be_locked_that_is_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A difference that a person has looked at locks nothing, so no warning says it does."""
    bench = live(tmp_path)
    bench.engine.sync_positions({SYMBOL: 40}, confirmed=[SYMBOL])

    assert bench.engine.health()["locked"] == []
    assert "locked" not in caplog.text
