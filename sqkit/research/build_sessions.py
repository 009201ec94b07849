"""Write the session tables of `sqkit/data_files` from exchange_calendars and dated overrides.

Run as ``python -m sqkit.research.build_sessions`` when a new year's holidays are known;
only dates and hours are written. exchange_calendars has no table for the NSE: the one of
its neighbour in Mumbai (XBOM) is the base, and `NSE_SPECIAL` corrects it. XBOM keeps
Muhurat evenings and Saturday sessions closed, some Muhurat evenings as whole days, and
has two days of November 2013 the wrong way round.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from sqkit.files import write_text

_TARGET: Final = Path(__file__).resolve().parent.parent / "data_files"
NSE_FIRST: Final = "1997-01-01"
NSE_HORIZON: Final = "2026-12-31"
XNYS_FIRST: Final = "1990-01-01"
XNYS_HORIZON: Final = "2030-12-31"

BARS: Final = "traded in daily bars of more than 20 large companies"
THIN: Final = "volume of an evening hour in daily bars (under a third of a usual day)"
NSE_HOURS: Final = [
    {
        "from": NSE_FIRST,
        "open": "09:55",
        "close": "15:30",
        "source": "press, 2009-12-17: 'current 9.55 to 3.30'",
    },
    {
        "from": "2010-01-04",
        "open": "09:00",
        "close": "15:30",
        "source": "press, December 2009: from 4 January",
    },
    {
        "from": "2010-10-18",
        "open": "09:15",
        "close": "15:30",
        "source": "pre-open call auction from that day",
    },
]
XNYS_HOURS: Final = [
    {"from": XNYS_FIRST, "open": "09:30", "close": "16:00", "source": "exchange_calendars XNYS"}
]

# date, open, close, source. Empty hours are the regular ones of that time.
_USUAL_EVENING: Final = f"Muhurat; {THIN}; hours not printed, the usual 18:15 to 19:15 assumed"
NSE_SPECIAL: Final[list[tuple[str, str, str, str]]] = [
    ("2000-10-26", "18:15", "19:15", _USUAL_EVENING),
    ("2001-01-01", "", "", f"{BARS}; XBOM has it closed"),
    ("2001-11-14", "18:15", "19:15", _USUAL_EVENING),
    ("2002-11-04", "18:15", "19:15", _USUAL_EVENING),
    ("2003-03-22", "", "", f"Saturday session; {BARS}; hours not known, regular assumed"),
    ("2003-10-25", "18:15", "19:15", f"Muhurat on a Saturday; {_USUAL_EVENING}"),
    ("2003-11-15", "", "", f"Saturday session; {BARS}; hours not known, regular assumed"),
    ("2004-01-01", "", "", f"{BARS}; XBOM has it closed"),
    ("2004-04-17", "", "", f"Saturday session; {BARS}; hours not known, regular assumed"),
    ("2004-10-09", "", "", f"Saturday session; {BARS}; hours not known, regular assumed"),
    ("2004-11-12", "18:15", "19:15", _USUAL_EVENING),
    ("2005-06-04", "", "", f"Saturday session; {BARS}; hours not known, regular assumed"),
    ("2005-11-01", "18:15", "19:15", _USUAL_EVENING),
    ("2005-11-26", "", "", f"Saturday session; {BARS}; hours not known, regular assumed"),
    ("2006-04-29", "", "", f"Saturday session; {BARS}; hours not known, regular assumed"),
    ("2006-06-25", "", "", f"Sunday session; {BARS}; hours not known, regular assumed"),
    ("2006-10-21", "18:15", "19:15", f"Muhurat on a Saturday; {_USUAL_EVENING}"),
    ("2007-11-09", "18:15", "19:15", _USUAL_EVENING),
    ("2008-10-28", "18:15", "19:15", _USUAL_EVENING),
    ("2009-10-17", "18:15", "19:15", f"Muhurat on a Saturday; {_USUAL_EVENING}"),
    ("2010-02-06", "", "", f"Saturday session; {BARS}; hours not known, regular assumed"),
    ("2010-11-05", "18:00", "19:15", f"Muhurat; {THIN}; announced from 18:00 or 18:15"),
    ("2011-10-26", "16:45", "18:00", f"Muhurat; {THIN}; press of November 2012: 'last year 4.45 to 6 p.m.'"),
    ("2012-01-07", "11:00", "12:50", f"Saturday system session; {BARS}; hours as on 2012-04-28"),
    ("2012-03-03", "11:00", "12:50", f"Saturday system session; {BARS}; hours as on 2012-04-28"),
    (
        "2012-04-28",
        "11:00",
        "12:50",
        f"Saturday system session; {BARS}; circular: pre-open 11:00, market 11:15 to 12:45",
    ),
    ("2012-09-08", "11:00", "12:50", f"Saturday system session; {BARS}; hours as on 2012-04-28"),
    ("2012-11-13", "15:45", "17:00", f"Muhurat; {THIN}; press: '3.45 p.m. to 5 p.m.'"),
    (
        "2013-05-11",
        "11:00",
        "12:50",
        f"Saturday recovery-site session; {BARS}; minute bars 11:07, 11:15 to 12:49",
    ),
    ("2013-11-03", "18:15", "19:30", f"Muhurat on a Sunday; {THIN}; hours as remembered, not printed"),
    ("2013-11-14", "", "", f"{BARS}; XBOM has it closed and the 15th open"),
    (
        "2014-03-22",
        "11:00",
        "12:50",
        f"Saturday recovery-site session; {BARS}; minute bars 11:07, 11:15 to 12:46",
    ),
    ("2014-10-23", "18:15", "19:30", f"Muhurat; {THIN}; hours as remembered, not printed"),
    ("2015-02-28", "", "", f"Saturday, Union Budget; {BARS}; minute bars 09:15 to 15:29"),
    ("2015-11-11", "17:45", "18:45", f"Muhurat; {THIN}; hours as remembered, not printed"),
    ("2016-10-30", "18:30", "19:30", f"Muhurat on a Sunday; {THIN}; hours as remembered, not printed"),
    ("2017-10-19", "18:30", "19:30", f"Muhurat; {THIN}; hours as remembered, not printed"),
    ("2018-11-07", "17:30", "18:30", f"Muhurat; {THIN}; press: '5:30 pm to 6:30 pm'"),
    ("2019-10-27", "18:15", "19:15", f"Muhurat on a Sunday; {THIN}; press: 'at 6.15 pm for an hour'"),
    ("2020-02-01", "", "", f"Saturday, Union Budget; {BARS}; minute bars 09:15 to 15:29"),
    ("2020-11-14", "18:15", "19:15", f"Muhurat on a Saturday; {THIN}; press: 'normal market 18:15 to 19:15'"),
    (
        "2021-02-24",
        "09:15",
        "17:00",
        "halted from 11:40 by an outage, close moved to 17:00; hours as remembered, not printed",
    ),
    ("2021-11-04", "18:15", "19:15", "Muhurat; press: '6:15 PM to 7:15 PM'"),
    ("2022-10-24", "18:15", "19:15", "Muhurat; exchange's circular in the press: '6:15 PM to 7:15 PM'"),
    (
        "2023-11-12",
        "18:15",
        "19:15",
        "Muhurat on a Sunday; broker's copy of the circular: normal market 6:15 to 7:15 pm",
    ),
    ("2024-01-20", "", "", "Saturday, whole session in exchange for Monday 22 January; press, 2024-03-01"),
    (
        "2024-03-02",
        "09:15",
        "12:30",
        "Saturday recovery-site session, 09:15 to 10:00 and 11:30 to 12:30; circular in the press",
    ),
    (
        "2024-05-18",
        "09:15",
        "12:40",
        "Saturday recovery-site session, 09:15 to 10:00 and from 11:45 (or 11:30) to 12:40; press",
    ),
    ("2024-11-01", "18:00", "19:00", "Muhurat; circular in the press: '6:00 p.m. to 7:00 p.m.'"),
    ("2025-02-01", "", "", "Saturday, Union Budget; press: standard market timings"),
    ("2025-10-21", "13:45", "14:45", "Muhurat; circular in the press: '1:45 pm to 2:45 pm'"),
    ("2026-02-01", "", "", "Sunday, Union Budget; circular in the press: '9:15 am to 3:30 pm'"),
]
NSE_CLOSED: Final = [
    ("2013-11-15", "no daily or minute bar of any company; XBOM has the 14th closed instead")
]


def build(target: Path = _TARGET) -> list[Path]:
    """Write both tables; the files written."""
    nse = _base("XBOM", NSE_FIRST, NSE_HORIZON)
    special: list[dict[str, Any]] = [
        {"date": date, **({"open": opens, "close": closes} if opens else {}), "source": source}
        for date, opens, closes, source in NSE_SPECIAL
    ]
    special += [{"date": date, "closed": True, "source": source} for date, source in NSE_CLOSED]
    nse.update(calendar="XNSE", hours=NSE_HOURS, special=sorted(special, key=lambda one: str(one["date"])))
    us = _base("XNYS", XNYS_FIRST, XNYS_HORIZON)
    us.update(calendar="XNYS", hours=XNYS_HOURS)
    return [_write(target / "sessions_xnse.json", nse), _write(target / "sessions_xnys.json", us)]


def _base(name: str, first: str, horizon: str) -> dict[str, Any]:
    import exchange_calendars

    calendar = exchange_calendars.get_calendar(name, start=first, end=horizon)
    schedule = calendar.schedule
    sessions = {stamp.date() for stamp in schedule.index}
    weekdays = [day for day in _days(first, horizon) if day.weekday() < 5]
    special = []
    zone = calendar.tz
    usual = (calendar.open_times[-1][1], calendar.close_times[-1][1])
    for stamp, opens, closes in zip(schedule.index, schedule["open"], schedule["close"], strict=True):
        hours = (opens.tz_convert(zone).time(), closes.tz_convert(zone).time())
        if hours != usual:
            clock = [hour.strftime("%H:%M") for hour in hours]
            source = f"exchange_calendars {name}"
            special.append(
                {"date": stamp.date().isoformat(), "open": clock[0], "close": clock[1], "source": source}
            )
    return {
        "zone": str(zone),
        "first": first,
        "horizon": horizon,
        "source": f"exchange_calendars {exchange_calendars.__version__}, {name}",
        "holidays": [day.isoformat() for day in weekdays if day not in sessions],
        "special": special,
    }


def _days(first: str, last: str) -> Iterable[dt.date]:
    start, stop = dt.date.fromisoformat(first), dt.date.fromisoformat(last)
    return (start + dt.timedelta(days=n) for n in range((stop - start).days + 1))


def _write(path: Path, table: dict[str, Any]) -> Path:
    """One line for each hour, year of holidays and special session, so that a change reads well in a diff."""
    import json

    def one_a_line(values: Iterable[Any]) -> str:
        lines = [json.dumps(value, ensure_ascii=False) for value in values]
        return "[\n    " + ",\n    ".join(lines) + "\n  ]"

    by_year: dict[str, list[str]] = {}
    for date in table["holidays"]:
        by_year.setdefault(date[:4], []).append(json.dumps(date))
    holidays = "[\n    " + ",\n    ".join(", ".join(dates) for dates in by_year.values()) + "\n  ]"
    head = [
        f'  "{key}": {json.dumps(table[key], ensure_ascii=False)}'
        for key in ("calendar", "zone", "first", "horizon", "source")
    ]
    body = [
        f'  "hours": {one_a_line(table["hours"])}',
        f'  "holidays": {holidays}',
        f'  "special": {one_a_line(table["special"])}',
    ]
    write_text(path, "{\n" + ",\n".join(head + body) + "\n}\n")
    return path


if __name__ == "__main__":
    for written in build():
        print(written)
