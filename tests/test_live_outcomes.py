"""Predictions and what became of them: the gate's definition, whatever order and portions records come in."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from sqkit.bars import CLOSE, BarArrays
from sqkit.metrics import horizon_outcomes
from sqkit.production.bar_clock import BarClock
from sqkit.production.live_outcomes import GRACE_BARS, ClosedBar, Contract, OutcomeBook
from sqkit.production.monitor_store import IN_MEMORY
from sqkit.production.monitoring import MonitoringService
from sqkit.records import INSIDE, UNKNOWN, iso_date, iso_instant
from sqkit.sessions import load_sessions
from tests.engines import INTERVALS, Bench, pairs, series, settings_of, student

HORIZON = {"intraday": 15, "swing": 5}
MODEL = "0123456789ab"


def book_of(strategy: str, horizon: int | None = None) -> OutcomeBook:
    """An empty book of a slot whose models are judged as usual."""
    clock = BarClock(load_sessions("us"), INTERVALS[strategy])
    contract = Contract(horizon or HORIZON[strategy], 0.5)
    return OutcomeBook(clock, lambda model: contract if model else None)


def records_of(bars: BarArrays, reason: str = "scored", **more: Any) -> list[dict[str, Any]]:
    """A prediction record for each bar, as an engine writes them."""
    return [
        {
            "event": "prediction",
            "symbol": bars.symbol,
            "bar_time": iso_instant(int(start)),
            "session_date": iso_date(int(day)),
            "decision_time": iso_instant(int(start) + 60_000_000_000),
            "student_model_version": "20030101_000000",
            "student_model_digest": MODEL,
            "student_prediction": ("LONG", "SHORT", "FLAT")[at % 3],
            "student_probability_up": 0.7,
            "reason": reason,
            "bar": row.tolist()[:5],
            **more,
        }
        for at, (start, day, row) in enumerate(
            zip(bars.timestamp_ns, bars.session_days, bars.rows, strict=True)
        )
    ]


def closed(book: OutcomeBook, records: list[dict[str, Any]]) -> list[ClosedBar]:
    """What a book closes when records come one by one."""
    found: list[ClosedBar] = []
    for record in records:
        book.add(record)
        found += book.closed()
    return found


def outcomes_of(bars: list[ClosedBar]) -> dict[tuple[str, int], int | None]:
    """Symbol and bar to its outcome."""
    return {(symbol, row.start_ns): row.outcome for bar in bars for symbol, row in bar.rows.items()}


@pytest.mark.parametrize("strategy", ["swing", "intraday"])
def test_outcomes_are_the_gates(strategy: str) -> None:
    """Bar by bar, from the bars in the records alone: the same outcomes as the gate computes over the whole series."""
    bars = series(strategy)
    found = outcomes_of(closed(book_of(strategy), records_of(bars)))
    expected = horizon_outcomes(
        bars.rows[:, CLOSE],
        bars.session_days,
        HORIZON[strategy],
        dead_zone=0.5,
        within_session=strategy == "intraday",
    ).outcome

    assert len(found) > len(bars) - HORIZON[strategy] - 6
    for at, start in enumerate(bars.timestamp_ns):
        if (bars.symbol, int(start)) in found:
            assert found[bars.symbol, int(start)] == expected[at]
    assert {UNKNOWN, INSIDE} < set(found.values())


def test_what_an_engine_writes_is_judged(tmp_path: Path) -> None:
    """Records of a real engine: scored rows have outcomes, warm-up has none and counts in no metric."""
    bench = Bench(tmp_path, "intraday", model=student("intraday"))
    bench.feed(pairs(series("intraday")))
    book = book_of("intraday")
    rows = [row for bar in closed(book, bench.predictions()) for row in bar.rows.values()]

    judged = [row for row in rows if row.said.judged and row.outcome != UNKNOWN]
    assert len(judged) > 500
    assert all(row.said.probability_up is not None for row in judged)
    assert {row.said.reason for row in rows if not row.said.judged} == {"warm_up"}


def test_a_warmed_engine_leaves_no_row_without_outcome(tmp_path: Path) -> None:
    """The closes it was warmed with stand in telemetry: outcomes of its first bars are the gate's, and no bar is counted for them."""
    bars = series("swing")
    bench = Bench(
        tmp_path,
        "swing",
        model=student("swing"),
        monitor=MonitoringService(
            settings_of(), strategy="swing", market="us", interval="1d", root=tmp_path, state=IN_MEMORY
        ),
    )
    bench.engine.warm_up({bars.symbol: bars.slice(0, 150)})
    bench.feed(pairs(bars, 150))
    book = book_of("swing")
    found = outcomes_of(closed(book, bench.records()))
    expected = horizon_outcomes(
        bars.rows[:, CLOSE], bars.session_days, HORIZON["swing"], dead_zone=0.5, within_session=False
    ).outcome

    assert book.counts["no_history"] == 0
    assert book.counts["predictions"] == len(bars) - 150
    for at in range(150, len(bars) - HORIZON["swing"]):
        assert found[bars.symbol, int(bars.timestamp_ns[at])] == expected[at]


@pytest.mark.parametrize("seed", range(6))
def test_order_and_portions_change_nothing(seed: int) -> None:
    """Two symbols of two hosts, delivered in any order within the horizon and in portions of any size."""
    one, two = series("intraday"), series("intraday", seed=2, symbol="BBB")
    records = sorted(records_of(one) + records_of(two), key=lambda record: record["decision_time"])
    whole = closed(book_of("intraday"), records)

    generator = random.Random(seed)
    shaken = sorted(
        enumerate(records), key=lambda pair: pair[0] + generator.uniform(0, 8)
    )  # up to four bars too late
    book, found, waiting = book_of("intraday"), list[ClosedBar](), [record for _, record in shaken]
    while waiting:
        portion = generator.randint(1, 200)
        for record in waiting[:portion]:
            book.add(record)
        del waiting[:portion]
        found += book.closed()

    assert [bar.number for bar in found] == [bar.number for bar in whole]
    assert found == whole
    assert book.counts["late"] == 0


def test_the_same_prediction_on_two_hosts_counts_once() -> None:
    """The second record of a symbol's bar is a duplicate; one that says something else is counted as conflicting."""
    records = records_of(series("swing"))
    twice = [one for record in records for one in (record, {**record})]
    other = {**records[-1], "student_prediction": "FLAT", "student_probability_up": 0.51}
    book = book_of("swing")

    assert closed(book, twice) == closed(book_of("swing"), records)
    assert book.counts["duplicate"] == len(records)
    assert book.counts["conflicting"] == 0
    book.add(other)
    assert book.counts["conflicting"] == 1
    assert book.counts["predictions"] == len(records)


def test_a_record_after_its_bar_was_closed_is_late() -> None:
    """It is counted and changes nothing."""
    one, two = series("intraday"), series("intraday", seed=2, symbol="BBB")
    book = book_of("intraday")
    before = closed(book, records_of(one))
    late = records_of(two)[50]

    assert closed(book, [late]) == []
    assert book.counts["late"] == 1
    assert "BBB" not in {symbol for bar in before for symbol in bar.rows}


def test_a_revised_bar_changes_no_outcome() -> None:
    """First label wins: the engine refused the second version, and monitoring counts it."""
    records = records_of(series("intraday"))
    refused = {"event": "bar_refused", "symbol": "AAA", "bar_status": "revised", "bar_time": "?"}
    book = book_of("intraday")

    assert closed(book, [one for record in records for one in (record, refused)]) == closed(
        book_of("intraday"), records
    )
    assert book.counts["revised"] == len(records)


def test_an_outcome_is_waited_for_so_long_and_then_missing() -> None:
    """A symbol that falls silent holds the others up for the grace at most, by bars and not by a clock."""
    one, two = series("intraday"), series("intraday", seed=2, symbol="BBB")
    records = records_of(one) + records_of(two.slice(0, 100))
    records.sort(key=lambda record: record["decision_time"])
    book = book_of("intraday")
    found = []
    for record in records:
        book.add(record)
        found += book.closed()
        if found:
            behind = book.newest - found[-1].number
            assert behind <= HORIZON["intraday"] + GRACE_BARS[False] or found[-1].rows["AAA"].left == 0

    outcomes = outcomes_of(found)
    assert all(outcomes["BBB", int(start)] == UNKNOWN for start in two.timestamp_ns[90:100])
    assert book.counts["missing"] == HORIZON["intraday"]


def test_no_outcome_crosses_a_session() -> None:
    """The last bars of an intraday session have none, and that is known at once."""
    bars = series("intraday")
    book = book_of("intraday")
    found = outcomes_of(closed(book, records_of(bars)))
    first_day = bars.session_days == bars.session_days[0]
    last = bars.timestamp_ns[first_day][-HORIZON["intraday"] :]

    assert all(found[bars.symbol, int(start)] == UNKNOWN for start in last)
    assert book.counts["session_end"] >= 2 * HORIZON["intraday"]


@pytest.mark.parametrize("cut", [1, 60, 377, 700])
def test_state_goes_on_to_the_bit(cut: int) -> None:
    """Kept after any record and restored: the same bars are closed, with the same rows."""
    records = records_of(series("intraday"))
    book = book_of("intraday")
    closed(book, records[:cut])
    rows = {name: [row.to_list() for row in kept] for name, kept in book.symbols.items()}
    again = book_of("intraday")
    again.restore(book.state(), rows)

    assert closed(again, records[cut:]) == closed(book, records[cut:])
    assert again.state() == book.state()


def test_memory_does_not_grow_with_the_outcomes() -> None:
    """A symbol keeps the bars that its open outcomes and their volatility need."""
    book = book_of("intraday")
    closed(book, records_of(series("intraday", sessions=6)))

    assert len(book.symbols["AAA"]) <= 20 + HORIZON["intraday"] + GRACE_BARS[False]
    assert len(book.open) <= HORIZON["intraday"] + GRACE_BARS[False]
