"""An engine's incoming bars: each has a defined result and a reason."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import replace
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from sqkit.bars import Bar, BarArrays
from sqkit.production.intake import BarIntake, start_ns
from sqkit.production.replay import delivered
from sqkit.records import BAR_STATUSES, FIRST_REFUSED
from sqkit.sessions import SessionCursor, load_sessions
from tests.engines import pairs, series

MINUTE = 60 * 10**9
STALE = 180 * 10**9
DAYS = series("swing", sessions=40)
MINUTES = series("intraday", sessions=2)


def intake(interval: str = "1m") -> BarIntake:
    """A fresh intake of the US market."""
    return BarIntake(interval, SessionCursor(load_sessions("us"), daily=interval == "1d"), STALE)


def take(one: BarIntake, bar: Bar, now_ns: int) -> str:
    """The status of a bar in words."""
    start = start_ns(bar.timestamp)
    assert start is not None
    return BAR_STATUSES[one.take(bar, start, now_ns)]


def feed(one: BarIntake, bars: list[tuple[Bar, int]]) -> list[str]:
    """The statuses of bars that come when they are finished."""
    return [take(one, bar, available) for bar, available in bars]


@pytest.mark.parametrize("bars", [DAYS, MINUTES], ids=["1d", "1m"])
def test_rows_are_those_of_the_batch(bars: BarArrays) -> None:
    """Every accepted bar gives the bits that `bar_rows` gives the series."""
    one = intake(bars.interval)
    for (bar, available), row in zip(pairs(bars), bars.rows, strict=True):
        assert take(one, bar, available) in ("ok", "missing_open_bar")
        assert one.row.tobytes() == row.tobytes()


def test_a_clean_feed_is_ok_from_open_to_close() -> None:
    """A session's bars in order, and the next session's, are ok."""
    assert set(feed(intake(), pairs(MINUTES))) == {"ok"}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no number": ({"close": math.nan}, "bad_price"),
    "infinite": ({"high": math.inf}, "bad_price"),
    "zero": ({"open": 0.0}, "bad_price"),
    "negative": ({"low": -1.0}, "bad_price"),
    "high below low": ({"high": 1.0, "low": 2.0}, "bad_price"),
    "a word": ({"open": "105.5"}, "not_a_bar"),
    "nothing": ({"close": None}, "not_a_bar"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_broken_bar_is_refused_and_forgotten(case: str) -> None:
    """It has a reason, and a correct bar of the same minute is taken afterwards."""
    changes, status = REFUSED[case]
    one, (first, second) = intake(), pairs(MINUTES, 0, 2)
    feed(one, [first])
    before = one.row.tobytes()

    assert take(one, replace(second[0], **changes), second[1]) == status
    assert one.row.tobytes() == before
    assert take(one, *second) == "ok"


def test_a_repeated_bar_is_a_duplicate_and_another_one_a_revision() -> None:
    """The same values again change nothing; other values for the last bar are not taken either."""
    one, first = intake(), pairs(MINUTES, 0, 1)[0]
    feed(one, [first])

    assert take(one, *first) == "duplicate"
    assert take(one, replace(first[0], close=first[0].close * 1.001), first[1]) == "revised"
    assert one.row[3] == first[0].close


def test_no_volume_twice_is_a_duplicate() -> None:
    """A source without volume delivers the same bar twice."""
    one, (bar, available) = intake(), pairs(MINUTES, 0, 1)[0]
    silent = replace(bar, volume=None)

    assert feed(one, [(silent, available), (silent, available)]) == ["ok", "duplicate"]
    assert math.isnan(one.row[4])


def test_an_older_bar_is_out_of_order() -> None:
    """What starts before the last bar is refused."""
    one, bars = intake(), pairs(MINUTES, 0, 3)
    feed(one, bars)

    assert take(one, *bars[0]) == "out_of_order"


def test_an_unfinished_bar_waits() -> None:
    """A bar whose end lies after the clock is refused, and taken when it is over."""
    one, (bar, available) = intake(), pairs(MINUTES, 0, 1)[0]

    assert take(one, bar, available - 1) == "unfinished"
    assert take(one, bar, available) == "ok"


def test_a_late_bar_says_so() -> None:
    """One that comes longer after its end than a feed may be silent is used, but late."""
    one, bars = intake(), pairs(MINUTES, 0, 2)

    assert take(one, bars[0][0], bars[0][1] + STALE) == "ok"
    assert take(one, bars[1][0], bars[1][1] + STALE + 1) == "late"


def test_a_daily_bar_is_late_from_the_next_open_on() -> None:
    """Until then its orders can still be filled where the backtest filled them."""
    one, bars = intake("1d"), pairs(DAYS, 0, 3)
    table = load_sessions("us")
    opens, _ = table.open_close_ns(DAYS.session_days[:3])

    assert take(one, bars[0][0], int(opens[1]) - 1) == "ok"
    assert take(one, bars[1][0], int(opens[2])) == "late"


def test_missing_bars_are_counted() -> None:
    """A gap inside a session, and a session that begins late, say how many bars are missing."""
    one, bars = intake(), pairs(MINUTES)
    assert feed(one, bars[2:3]) == ["missing_open_bar"]
    assert one.missing == 2
    assert feed(one, bars[7:8]) == ["gap"]
    assert one.missing == 4
    assert feed(one, bars[8:9]) == ["ok"]


def test_a_missing_session_is_a_gap_of_daily_bars() -> None:
    """Weekends and holidays are none."""
    one, bars = intake("1d"), pairs(DAYS)
    assert set(feed(one, bars[:20])) == {"ok"}
    assert feed(one, bars[22:23]) == ["gap"]
    assert one.missing == 2


def test_bars_outside_a_session_are_refused() -> None:
    """Before the open, after the close, at a weekend."""
    one, (bar, available) = intake(), pairs(MINUTES, 0, 1)[0]
    for shift in (-dt.timedelta(minutes=1), dt.timedelta(hours=7), dt.timedelta(days=2)):
        stray = replace(bar, timestamp=bar.timestamp + shift)
        assert take(one, stray, available + 10 * 24 * 3600 * 10**9) == "out_of_session"


def test_a_bar_at_the_close_shows_a_feed_stamped_by_ends() -> None:
    """Nothing starts when a session ends: the stamps are ends, and it is remembered."""
    one, bars = intake(), pairs(MINUTES, 0, 390)
    ends = [
        (replace(bar, timestamp=bar.timestamp + dt.timedelta(minutes=1)), at + MINUTE) for bar, at in bars
    ]

    statuses = feed(one, ends)

    assert statuses[0] == "missing_open_bar"
    assert statuses[-1] == "end_stamped"
    assert one.end_stamped


def test_bars_that_come_when_they_begin_show_a_feed_stamped_by_ends() -> None:
    """Live, an END-stamped bar seems to begin now; after three the feed is named."""
    one, bars = intake(), pairs(MINUTES, 0, 4)
    statuses = []
    for bar, available in bars:
        ended = replace(bar, timestamp=bar.timestamp + dt.timedelta(minutes=1))
        statuses.append(take(one, ended, available + 10**9))

    assert statuses == ["unfinished", "unfinished", "end_stamped", "end_stamped"]


def test_frozen_quotes_are_named() -> None:
    """Ten bars without any move at one price are used and named."""
    one, bars = intake(), pairs(MINUTES, 0, 20)
    price = bars[0][0].close
    frozen = [(replace(bar, open=price, high=price, low=price, close=price), at) for bar, at in bars[1:]]

    statuses = feed(one, [bars[0], *frozen])

    assert statuses[:10] == ["ok"] * 10
    assert set(statuses[10:]) == {"frozen_quotes"}


def test_instants_need_a_zone() -> None:
    """A naive timestamp is nobody's instant; every zone gives the same one."""
    moment = dt.datetime(2003, 1, 2, 14, 30, 0, 250_000, tzinfo=dt.UTC)

    assert start_ns(moment.replace(tzinfo=None)) is None
    assert start_ns(moment) == 1_041_517_800_250_000_000
    assert start_ns(moment.astimezone(ZoneInfo("Asia/Kolkata"))) == start_ns(moment)


def test_a_session_is_known_before_its_bar_is_taken() -> None:
    """The date of a bar that is over; -1 for one that is not, or that lies in no session."""
    one, (bar, available) = intake(), pairs(MINUTES, 0, 1)[0]
    start = start_ns(bar.timestamp)
    assert start is not None

    assert one.session_of(start, available) == MINUTES.session_days[0]
    assert one.session_of(start, available - 1) == -1
    assert one.session_of(start - 3600 * 10**9, available) == -1


def test_a_snapshot_goes_on() -> None:
    """A restored intake says of the next bars what the first one says."""
    one, bars = intake(), pairs(MINUTES)
    feed(one, bars[:50])
    other = intake()
    other.restore(one.snapshot())

    assert other.row.tobytes() == one.row.tobytes()
    assert feed(other, bars[49:60]) == feed(one, bars[49:60]) == ["duplicate", *["ok"] * 10]


def test_statuses_below_ten_are_used() -> None:
    """The border between used and refused is one number."""
    used = [word for code, word in BAR_STATUSES.items() if code < FIRST_REFUSED]

    assert used == ["ok", "gap", "missing_open_bar", "late", "frozen_quotes"]


def test_a_feed_delivers_in_the_order_of_time() -> None:
    """Bars of several symbols come by the instant at which they are finished, symbols in their order."""
    other = series("intraday", sessions=2, symbol="BBB", seed=2)
    bars = list(delivered({"BBB": other, "AAA": MINUTES}))

    assert [bar.symbol for bar, _ in bars[:4]] == ["BBB", "AAA", "BBB", "AAA"]
    assert np.all(np.diff([available for _, available in bars]) >= 0)
    assert len(bars) == len(other) + len(MINUTES)
