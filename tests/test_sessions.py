"""The session table: which dates trade, when, and whose calendar counts."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
import warnings
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqkit.errors import SessionsError
from sqkit.sessions import MARKETS, SessionHorizonWarning, load_sessions

# Published trading holidays, none of them a weekend.
# fmt: off
NSE_HOLIDAYS = [
    "2008-03-21", "2010-01-26", "2011-08-15", "2012-10-02", "2013-05-01", "2014-04-14", "2014-10-02",
    "2015-01-26", "2015-04-03", "2016-08-15", "2017-08-15", "2018-08-15", "2018-10-02", "2019-04-19",
    "2019-04-29", "2019-08-12", "2019-10-21", "2020-02-21", "2020-03-10", "2020-04-10", "2020-10-02",
    "2020-12-25", "2021-01-26", "2021-03-29", "2021-05-13", "2022-08-31", "2023-01-26", "2023-06-29",
    "2024-01-22", "2024-05-20", "2024-11-20", "2025-02-26", "2025-03-31", "2013-11-15",
]
US_HOLIDAYS = [
    "2001-09-11", "2001-09-12", "2001-09-13", "2001-09-14", "2004-06-11", "2007-01-02", "2010-01-01",
    "2010-01-18", "2010-04-02", "2011-07-04", "2011-11-24", "2011-12-26", "2012-01-02", "2012-02-20",
    "2012-05-28", "2012-09-03", "2012-10-29", "2012-10-30", "2012-11-22", "2012-12-25", "2018-12-05",
    "2022-06-20", "2023-06-19", "2025-01-09",
]
# fmt: on
NSE_MUHURAT = [
    ("2012-11-13", "15:45", "17:00"),
    ("2018-11-07", "17:30", "18:30"),
    ("2019-10-27", "18:15", "19:15"),
    ("2020-11-14", "18:15", "19:15"),
    ("2021-11-04", "18:15", "19:15"),
    ("2024-11-01", "18:00", "19:00"),
    ("2025-10-21", "13:45", "14:45"),
]


def days(*dates: str) -> np.ndarray:
    """Session dates as the table counts them."""
    return np.array(dates, dtype="datetime64[D]").astype(np.int32)


def instant(text: str, zone: str) -> int:
    """UTC nanoseconds of a wall-clock time."""
    return int(dt.datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()) * 1_000_000_000


@pytest.mark.parametrize(("market", "holidays"), [("nse", NSE_HOLIDAYS), ("us", US_HOLIDAYS)])
def test_real_holidays_on_weekdays_are_closed(market: str, holidays: list[str]) -> None:
    """At least twenty published weekday holidays of each market are no sessions."""
    asked = days(*holidays)
    assert len(set(holidays)) >= 20
    assert ((asked + 3) % 7 < 5).all()
    assert not load_sessions(market).is_session(asked).any()


@pytest.mark.parametrize(
    ("market", "year", "count"),
    [("us", 2011, 252), ("us", 2012, 250), ("nse", 2019, 245), ("nse", 2020, 252)],
)
def test_published_number_of_sessions_in_a_year(market: str, year: int, count: int) -> None:
    """A year has as many sessions as the exchange counted (Muhurat and budget Saturday included)."""
    first, last = days(f"{year}-01-01", f"{year}-12-31")
    assert len(load_sessions(market).session_days(first, last)) == count


@pytest.mark.parametrize(("date", "opens", "closes"), NSE_MUHURAT)
def test_muhurat_evenings_are_sessions_with_their_own_hours(date: str, opens: str, closes: str) -> None:
    """Bars of the hour are in session; the usual morning of that date is not."""
    table = load_sessions("nse")
    times = [f"{date} {opens}", f"{date} {closes}", f"{date} 10:00"]
    located, _, _, inside = table.locate([instant(time, "Asia/Kolkata") for time in times])
    assert inside.tolist() == [True, False, False]
    assert (located == days(date)[0]).all()


def test_saturdays_and_sundays_that_traded() -> None:
    """Budget days, recovery-site Saturdays and Sunday Muhurats are sessions, their neighbours are not."""
    table = load_sessions("nse")
    traded = days(
        "2015-02-28", "2020-02-01", "2025-02-01", "2012-03-03", "2014-03-22", "2024-05-18", "2016-10-30"
    )
    assert table.is_session(traded).all()
    assert not table.is_session(traded + 7).any()
    assert table.is_session(days("2013-11-14"))[0]
    assert not table.is_session(days("2013-11-15"))[0]


def test_no_real_bar_is_called_out_of_session(shared_data: Path) -> None:
    """Every bar of every file of the shared NSE data lies in a session."""
    table = load_sessions("nse")
    files = sorted((shared_data / "nse").glob("*/*.parquet"))
    assert len(files) > 300
    for file in files:
        column = parquet.read_table(file, columns=["timestamp"])["timestamp"]
        stamps = column.to_numpy().astype("datetime64[ns]").astype(np.int64)
        if "daily" in file.parent.name:
            inside = table.is_session(table.local_days(stamps))
        else:
            inside = table.locate(stamps)[3]
        assert inside.all(), (file.name, stamps[~inside][:3].astype("datetime64[ns]"))


def test_daily_bars_have_no_session_too_many(shared_data: Path) -> None:
    """A company listed throughout has a bar on every session the table names from 2000 to 2021."""
    table = load_sessions("nse")
    folder = shared_data / "nse" / "daily_unadjusted_2000_2021"
    seen: set[int] = set()
    for file in sorted(folder.glob("*.parquet")):
        stamps = parquet.read_table(file, columns=["timestamp"])["timestamp"].to_numpy()
        seen |= set(table.local_days(stamps.astype("datetime64[ns]").astype(np.int64)).tolist())
    assert seen == set(table.session_days(min(seen), max(seen)).tolist())


@pytest.mark.parametrize("market", list(MARKETS))
@given(second=st.integers(0, 4_102_444_800))
@settings(max_examples=150, deadline=None)
def test_local_days_agree_with_the_zone_database(market: str, second: int) -> None:
    """The calendar date of any instant from 1970 to 2099 is the zone's own, also around clock changes."""
    zone = ZoneInfo(MARKETS[market].zone)
    expected = (dt.datetime.fromtimestamp(second, zone).date() - dt.date(1970, 1, 1)).days
    assert load_sessions(market).local_days(second * 1_000_000_000) == expected


def test_us_hours_follow_daylight_saving_and_half_days() -> None:
    """09:30 New York is 14:30 UTC in winter and 13:30 in summer; the day after Thanksgiving ends at 13:00."""
    opens, closes = load_sessions("us").open_close_ns(
        days("2012-01-03", "2012-07-03", "2012-11-23", "2012-03-12")
    )
    written = [
        str(np.datetime64(int(value), "ns").astype("datetime64[m]"))[11:] for value in (*opens, *closes)
    ]
    assert written == ["14:30", "13:30", "14:30", "13:30", "21:00", "17:00", "18:00", "20:00"]


def test_regular_hours_by_era() -> None:
    """The NSE opened at 09:55, from January 2010 at 09:00, and from 18 October 2010 at 09:15."""
    opens, _ = load_sessions("nse").open_close_ns(
        days("2009-12-31", "2010-01-04", "2010-10-15", "2010-10-18")
    )
    local = (opens + int(5.5 * 3600e9)) // 60_000_000_000 % 1440
    assert local.tolist() == [9 * 60 + 55, 9 * 60, 9 * 60, 9 * 60 + 15]


def test_session_bounds_are_start_inclusive_end_exclusive() -> None:
    """A bar that starts at the open belongs to the session, one that starts at the close does not."""
    table = load_sessions("nse")
    times = ["2024-07-01 09:14:59", "2024-07-01 09:15", "2024-07-01 15:29", "2024-07-01 15:30"]
    assert table.locate([instant(time, "Asia/Kolkata") for time in times])[3].tolist() == [
        False,
        True,
        True,
        False,
    ]


def test_locate_of_a_date_without_session() -> None:
    """A Sunday has a date but no open and no close."""
    table = load_sessions("nse")
    located, opens, closes, inside = table.locate([instant("2024-07-07 10:00", "Asia/Kolkata")])
    assert (located[0], opens[0], closes[0], inside[0]) == (days("2024-07-07")[0], 0, 0, False)
    with pytest.raises(SessionsError, match="2024-07-07 is no session"):
        table.open_close_ns(days("2024-07-07"))


@given(day=st.integers(int(days("2001-01-01")[0]), int(days("2025-01-01")[0])), steps=st.integers(-60, 60))
@settings(max_examples=150, deadline=None)
def test_shift_counts_sessions(day: int, steps: int) -> None:
    """Between a date and the session n sessions away lie exactly n sessions."""
    table = load_sessions("nse")
    target = table.shift(day, steps)
    assert table.is_session(target)
    if steps > 0:
        assert len(table.session_days(day + 1, target)) == steps
    elif steps < 0:
        assert len(table.session_days(target, day - 1)) == -steps
    else:
        assert target >= day
        assert len(table.session_days(day, target)) == 1


def test_beyond_the_horizon_weekdays_count_and_one_warning_says_so(tmp_path: Path) -> None:
    """Outside the table every weekday is a session; the first such answer warns, later ones do not."""
    other = tmp_path / "s.json"  # a file of its own: its table has not warned yet
    other.write_text('{"holidays": ["2020-01-01"]}')
    table = load_sessions("nse", str(other))
    week = days("2040-01-02") + np.arange(7)  # Monday to Sunday
    with pytest.warns(SessionHorizonWarning, match="2026-12-31"):
        answer = table.is_session(week)
    assert answer.tolist() == [True] * 5 + [False] * 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert table.is_session(week).sum() == 5


@pytest.mark.parametrize("form", ["json", "csv"])
def test_a_users_file_wins(tmp_path: Path, form: str) -> None:
    """A user's holiday closes, a user's session opens with its hours, and the horizon can be moved."""
    path = tmp_path / f"mine.{form}"
    if form == "json":
        path.write_text(
            '{"holidays": ["2024-07-01"], "special": [{"date": "2024-07-06", "open": "10:00", "close": "11:30"},'
            ' {"date": "2013-11-15"}], "horizon": "2027-12-31"}'
        )
    else:
        path.write_text(
            "date,kind,open,close,note\n2024-07-01,closed,,,bank holiday\n2024-07-06,open,10:00,11:30,drill\n"
            "2013-11-15,open,,,was open after all\n2027-12-31,horizon,,,\n"
        )
    table = load_sessions("nse", str(path))
    assert table.is_session(days("2024-07-01", "2024-07-06", "2013-11-15")).tolist() == [False, True, True]
    opens, closes = table.open_close_ns(days("2024-07-06", "2013-11-15"))
    assert (closes - opens).tolist() == [90 * 60_000_000_000, 375 * 60_000_000_000]
    assert table.horizon_day == days("2027-12-31")[0]
    assert load_sessions("nse").is_session(days("2024-07-01"))[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"holidays": ["2024-13-01"]}', "month"),
        ('{"special": [{"open": "10:00"}]}', "'date' is missing"),
        (
            '{"special": [{"date": "2024-07-06", "open": "16:00", "close": "10:00"}]}',
            "closes before it opens",
        ),
        ('{"holiday": []}', "unknown key 'holiday'"),
        ("date,open\n2024-01-01,10:00\n", "neither JSON nor a CSV"),
        ("date,kind\n2024-01-01,shut\n", "kind 'shut' is not"),
        ('{"holidays": [', "Expecting value"),
    ],
)
def test_a_users_file_that_is_wrong_is_one_clear_line(tmp_path: Path, text: str, said: str) -> None:
    """A mistake in a user's file is named, with the file."""
    path = tmp_path / "mine.txt"
    path.write_text(text)
    with pytest.raises(SessionsError, match=said) as refused:
        load_sessions("nse", str(path))
    assert str(path) in refused.value.message
    assert "\n" not in refused.value.message


def test_unknown_market_and_missing_file() -> None:
    """An unknown market lists the known ones; a missing file is named."""
    with pytest.raises(SessionsError, match="nse, us, nse_index, us_index"):
        load_sessions("moon")
    with pytest.raises(SessionsError, match=r"/nowhere/s\.json"):
        load_sessions("nse", "/nowhere/s.json")


def test_indices_are_not_tradable() -> None:
    """Two of the four markets are indices."""
    assert {name for name, market in MARKETS.items() if not market.tradable} == {"nse_index", "us_index"}


def test_shipped_specials_have_a_source_each() -> None:
    """Every hour and special session of both tables says where it comes from."""
    import json
    from importlib import resources

    for name in ("xnse", "xnys"):
        text = resources.files("sqkit").joinpath("data_files", f"sessions_{name}.json").read_text("utf-8")
        record = json.loads(text)
        assert all(line["source"] for line in (*record["special"], *record["hours"]))


# exchange_calendars 4.13 still reads Series.values, which pandas 3.1 deprecates.
@pytest.mark.filterwarnings("ignore:Series.values returning")
def test_tables_are_what_their_builder_writes(tmp_path: Path) -> None:
    """`python -m sqkit.research.build_sessions` gives the files that are shipped, whatever version it names."""
    import json

    from sqkit.research import build_sessions

    for file in build_sessions.build(tmp_path):
        shipped = Path(build_sessions.__file__).parent.parent / "data_files" / file.name
        fresh, kept = json.loads(file.read_text()), json.loads(shipped.read_text())
        fresh.pop("source"), kept.pop("source")
        assert fresh == kept


_ZONE_SCRIPT = """
import numpy as np
from sqkit.sessions import load_sessions
stamps = np.arange(1_262_304_000, 1_400_000_000, 4999 * 60, dtype=np.int64) * 1_000_000_000
for market in ("nse", "us"):
    table = load_sessions(market)
    days, opens, closes, inside = table.locate(stamps)
    print(market, days.sum(), opens.sum(), closes.sum(), inside.sum(), table.shift(15000, 7))
"""


def test_the_machines_own_zone_changes_nothing() -> None:
    """The same output under TZ=UTC, Asia/Kolkata and America/New_York."""
    outputs = set()
    for zone in ("UTC", "Asia/Kolkata", "America/New_York"):
        done = subprocess.run(
            [sys.executable, "-c", _ZONE_SCRIPT],
            env={**os.environ, "TZ": zone},
            capture_output=True,
            text=True,
            check=True,
        )
        outputs.add(done.stdout)
    assert len(outputs) == 1
    assert "nse" in outputs.pop()
