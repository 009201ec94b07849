"""When a market trades: the session table, and the markets that use it.

A *session date* is the market's own calendar date, held everywhere as days since
1970-01-01. The table says which dates are sessions and when each opens and closes; it is
package data (`data_files/sessions_*.json`, written by `research/build_sessions.py`), a
user's own file wins over it. `bars.py` places bars with it, windows and reports take
their dates from it. Everything is vectorised; no pandas here.
"""

from __future__ import annotations

import csv
import datetime as dt
import functools
import io
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np

from sqkit.errors import SessionsError

_EPOCH: Final = dt.date(1970, 1, 1)
_LAST_DAY: Final = (dt.date(2100, 12, 31) - _EPOCH).days
_DAY_NS: Final = 86_400_000_000_000
_MINUTE_NS: Final = 60_000_000_000
_CLOSED: Final = -1


class SessionHorizonWarning(UserWarning):
    """A date lies outside the session table; every weekday there counts as a session."""


@dataclass(frozen=True)
class Market:
    """What is fixed about a market.

    Attributes
    ----------
    calendar
        Name of the session table.
    zone
        IANA name of the zone whose calendar date is the session date.
    intraday_cost_schedule, swing_cost_schedule
        Names known to `costs.py`.
    tradable
        False for an index: nobody can buy it, results on it are labelled so.
    """

    name: str
    calendar: str
    zone: str
    currency: str
    intraday_cost_schedule: str
    swing_cost_schedule: str
    tradable: bool


MARKETS: Final[Mapping[str, Market]] = MappingProxyType(
    {
        "nse": Market("nse", "XNSE", "Asia/Kolkata", "INR", "nse_mis", "nse_cnc", tradable=True),
        "us": Market("us", "XNYS", "America/New_York", "USD", "us_flat", "us_flat", tradable=True),
        "nse_index": Market("nse_index", "XNSE", "Asia/Kolkata", "INR", "nse_mis", "nse_cnc", tradable=False),
        "us_index": Market(
            "us_index", "XNYS", "America/New_York", "USD", "us_flat", "us_flat", tradable=False
        ),
    }
)


class SessionTable:
    """The sessions of one market.

    Parameters
    ----------
    zone
        The market's zone.
    first_day, horizon_day
        First and last date the table knows, as days since 1970-01-01. Outside of them
        every weekday is a session with the nearest regular hours, and the first answer
        about such a date warns.
    open_minute, close_minute
        int16 arrays over the days 1970-01-01 to 2100-12-31, minutes after local
        midnight; -1 where there is no session.
    """

    def __init__(
        self,
        zone: ZoneInfo,
        first_day: int,
        horizon_day: int,
        open_minute: np.ndarray,
        close_minute: np.ndarray,
    ) -> None:
        self.zone = zone
        self.first_day = first_day
        self.horizon_day = horizon_day
        self._is_session = open_minute >= 0
        self._sessions = np.flatnonzero(self._is_session).astype(np.int32)
        self._changes_ns, self._offsets_ns = _zone_offsets(zone.key)
        self._open_ns = self._instants(open_minute)
        self._close_ns = self._instants(close_minute)
        self._warned = False

    def __repr__(self) -> str:
        return f"SessionTable({self.zone.key}, {_iso(self.first_day)} to {_iso(self.horizon_day)})"

    def is_session(self, days: Any) -> np.ndarray:
        """Whether each date is a session, bool array of the shape of `days`."""
        known, index = self._index(days)
        return np.asarray(self._is_session[index] & known)

    def local_days(self, timestamp_ns: Any) -> np.ndarray:
        """Calendar date in the market's zone of each instant (int64 UTC nanoseconds), int32."""
        instants = np.asarray(timestamp_ns, dtype=np.int64)
        if len(self._offsets_ns) == 1:
            local = instants + self._offsets_ns[0]
        else:
            local = instants + self._offsets_ns[np.searchsorted(self._changes_ns, instants, "right")]
        return np.asarray(local // _DAY_NS, dtype=np.int32)

    def open_close_ns(self, days: Any) -> tuple[np.ndarray, np.ndarray]:
        """Open and close of sessions as int64 UTC nanoseconds.

        Raises
        ------
        SessionsError
            One of the dates is no session.
        """
        known, index = self._index(days)
        closed = ~(self._is_session[index] & known)
        if np.any(closed):
            day = int(np.asarray(days)[closed].flat[0])
            raise SessionsError(
                f"{_iso(day)} is no session in {self.zone.key}; choose a session date", day=day
            )
        return self._open_ns[index], self._close_ns[index]

    def locate(self, timestamp_ns: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Place bar starts in their sessions.

        Returns
        -------
        days
            int32, calendar date in the market's zone.
        open_ns, close_ns
            int64, that date's session, 0 where the date has none.
        in_session
            bool, whether the bar starts at or after the open and before the close.
        """
        instants = np.asarray(timestamp_ns, dtype=np.int64)
        days = self.local_days(instants)
        known, index = self._index(days)
        open_ns, close_ns = self._open_ns[index], self._close_ns[index]
        in_session = (instants >= open_ns) & (instants < close_ns) & known
        return days, open_ns, close_ns, in_session

    def session_days(self, first: int, last: int) -> np.ndarray:
        """Session dates from `first` to `last`, both included, int32."""
        self._warn_outside(first, last)
        start, stop = np.searchsorted(self._sessions, [first, last + 1])
        return self._sessions[start:stop].copy()

    def shift(self, day: int, sessions: int) -> int:
        """The session `sessions` sessions after `day` (before it when negative).

        `day` need not be a session: one session after a Sunday is the next Monday. With 0
        the answer is `day` itself or, where it is no session, the next one.

        Raises
        ------
        SessionsError
            The answer would lie outside 1970 to 2100.
        """
        side = np.searchsorted(self._sessions, day, "right" if sessions > 0 else "left")
        at = int(side) + (sessions - 1 if sessions > 0 else sessions)
        if not 0 <= at < len(self._sessions):
            raise SessionsError(
                f"{_iso(day)}: {sessions} sessions from there is beyond the years 1970 to 2100"
            )
        answer = int(self._sessions[at])
        self._warn_outside(min(day, answer), max(day, answer))
        return answer

    def number(self, day: int) -> int:
        """How many sessions lie before a date since 1970-01-01: consecutive sessions have consecutive numbers."""
        return int(np.searchsorted(self._sessions, day))

    def _index(self, days: Any) -> tuple[Any, np.ndarray]:
        asked = np.asarray(days)
        if asked.size == 0:
            return np.ones(asked.shape, dtype=bool), asked.astype(np.intp)
        first, last = int(asked.min()), int(asked.max())
        self._warn_outside(first, last)
        if first >= 0 and last <= _LAST_DAY:
            return True, asked
        return (asked >= 0) & (asked <= _LAST_DAY), np.clip(asked, 0, _LAST_DAY)

    def _warn_outside(self, first: int, last: int) -> None:
        if self._warned or (first >= self.first_day and last <= self.horizon_day):
            return
        self._warned = True
        warnings.warn(
            f"the session table of {self.zone.key} covers {_iso(self.first_day)} to {_iso(self.horizon_day)}; "
            "outside of it every weekday counts as a session (give a sessions file to correct this)",
            SessionHorizonWarning,
            stacklevel=4,
        )

    def _instants(self, minutes: np.ndarray) -> np.ndarray:
        local = np.arange(len(minutes), dtype=np.int64) * _DAY_NS + minutes.astype(np.int64) * _MINUTE_NS
        # Zones change at night: the offset in force at the wall time read as UTC, less the
        # offset, is the session's own.
        guess = local - self._offsets_ns[np.searchsorted(self._changes_ns, local, "right")]
        utc = local - self._offsets_ns[np.searchsorted(self._changes_ns, guess, "right")]
        return np.where(minutes >= 0, utc, 0)


class SessionCursor:
    """The session of one instant after another: quick while they lie in the same one.

    Attributes
    ----------
    day, open_ns, close_ns
        Session date and hours of the last instant that was found in a session.
    first_ns, after_ns
        Instants from the first to before the second are known to lie in that session.
    """

    def __init__(self, table: SessionTable, *, daily: bool) -> None:
        self.table = table
        self._daily = daily
        self.day = self.open_ns = self.close_ns = 0
        self.first_ns = self.after_ns = 0

    def find(self, start_ns: int) -> bool:
        """Whether a bar that starts then lies in a session; by its date where the bars are daily."""
        if self.first_ns <= start_ns < self.after_ns:
            return True
        instant = np.array([start_ns], dtype=np.int64)
        days, open_ns, close_ns, inside = self.table.locate(instant)
        found = bool(self.table.is_session(days)[0]) if self._daily else bool(inside[0])
        if found:
            self.day, self.open_ns, self.close_ns = int(days[0]), int(open_ns[0]), int(close_ns[0])
            self.first_ns, self.after_ns = self.open_ns, self.close_ns
            if self._daily:  # any other instant of the date is looked up again
                self.first_ns, self.after_ns = start_ns, start_ns + 1
        return found


def load_sessions(market: str, sessions_file: str = "") -> SessionTable:
    """The session table of a market.

    Parameters
    ----------
    market
        One of `MARKETS`.
    sessions_file
        A user's JSON or CSV file whose lines win over the shipped table; see docs/data.md.

    Raises
    ------
    SessionsError
        The market is unknown, or the file cannot be read.
    """
    if market not in MARKETS:
        raise SessionsError(
            f"market {market!r} is unknown; choose one of {', '.join(MARKETS)}", market=market
        )
    text = ""
    if sessions_file:
        try:
            text = Path(sessions_file).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as problem:
            raise SessionsError(
                f"sessions file {sessions_file}: cannot be read ({problem}); correct the path or empty it"
            ) from None
    return _build(MARKETS[market].calendar, sessions_file, text)


@functools.lru_cache(maxsize=16)
def _build(calendar: str, sessions_file: str, text: str) -> SessionTable:
    shipped = resources.files("sqkit").joinpath("data_files", f"sessions_{calendar.lower()}.json")
    record = json.loads(shipped.read_text(encoding="utf-8"))
    first_day, horizon_day = _day(record["first"]), _day(record["horizon"])
    days = np.arange(_LAST_DAY + 1)
    regular_open = np.empty(len(days), dtype=np.int16)
    regular_close = np.empty(len(days), dtype=np.int16)
    for position, era in enumerate(record["hours"]):
        start = 0 if position == 0 else _day(era["from"])
        regular_open[start:], regular_close[start:] = _minute(era["open"]), _minute(era["close"])
    weekend = (days + 3) % 7 >= 5  # 1970-01-01 was a Thursday
    open_minute = np.where(weekend, _CLOSED, regular_open)
    close_minute = np.where(weekend, _CLOSED, regular_close)
    for changes in [record, _read_user_file(sessions_file, text)] if text else [record]:
        _apply(changes, open_minute, close_minute, regular_open, regular_close)
        horizon_day = max(horizon_day, _day(changes["horizon"])) if changes.get("horizon") else horizon_day
    return SessionTable(ZoneInfo(record["zone"]), first_day, horizon_day, open_minute, close_minute)


def _apply(
    changes: dict[str, Any],
    open_minute: np.ndarray,
    close_minute: np.ndarray,
    regular_open: np.ndarray,
    regular_close: np.ndarray,
) -> None:
    for date in changes.get("holidays", []):
        open_minute[_day(date)] = close_minute[_day(date)] = _CLOSED
    for special in changes.get("special", []):
        day = _day(special["date"])
        if special.get("closed"):
            open_minute[day] = close_minute[day] = _CLOSED
            continue
        opens = _minute(special["open"]) if special.get("open") else int(regular_open[day])
        closes = _minute(special["close"]) if special.get("close") else int(regular_close[day])
        if closes <= opens:
            raise ValueError(f"{special['date']}: the session closes before it opens")
        open_minute[day], close_minute[day] = opens, closes


def _read_user_file(name: str, text: str) -> dict[str, Any]:
    """A user's file as one record: ``holidays``, ``special`` and ``horizon``, every value checked."""
    try:
        record = json.loads(text) if text.lstrip().startswith("{") else _read_user_csv(text)
        unknown = sorted(set(record) - {"holidays", "special", "horizon"})
        if unknown:
            raise ValueError(f"unknown key {unknown[0]!r}; keys are holidays, special, horizon")
        # A rehearsal on scratch arrays checks every date and hour before any is used.
        scratch = [np.full(_LAST_DAY + 1, minute, dtype=np.int16) for minute in (0, 1440, 0, 1440)]
        _apply(record, *scratch)
        if record.get("horizon"):
            _day(record["horizon"])
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise SessionsError(
            f"sessions file {name}: {_plain(problem)}; docs/data.md shows the form", file=name
        ) from None
    return record


def _read_user_csv(text: str) -> dict[str, Any]:
    reader = csv.DictReader(io.StringIO(text))
    if not {"date", "kind"} <= set(reader.fieldnames or ()):
        raise ValueError("neither JSON nor a CSV with the columns date,kind,open,close,note")
    record: dict[str, Any] = {"holidays": [], "special": []}
    for line in reader:
        kind = (line["kind"] or "").strip().lower()
        date = (line["date"] or "").strip()
        if kind == "closed":
            record["holidays"].append(date)
        elif kind == "open":
            hours = {side: (line.get(side) or "").strip() for side in ("open", "close")}
            record["special"].append({"date": date, **hours})
        elif kind == "horizon":
            record["horizon"] = date
        else:
            raise ValueError(f"line {reader.line_num}: kind {kind!r} is not open, closed or horizon")
    return record


def _plain(problem: Exception) -> str:
    return f"{problem} is missing" if isinstance(problem, KeyError) else str(problem)


def _day(date: str) -> int:
    day = (dt.date.fromisoformat(date) - _EPOCH).days
    if not 0 <= day <= _LAST_DAY:
        raise ValueError(f"{date} is not between 1970 and 2100")
    return day


def _minute(time: str) -> int:
    clock = dt.time.fromisoformat(time)
    return clock.hour * 60 + clock.minute


def _iso(day: int) -> str:
    return (_EPOCH + dt.timedelta(days=day)).isoformat()


@functools.lru_cache(maxsize=16)
def _zone_offsets(key: str) -> tuple[np.ndarray, np.ndarray]:
    """Instants (UTC ns) at which a zone's offset changes, and the offsets (ns) between them.

    Found by walking the years 1970 to 2100 in steps of a week and halving the week of each change.
    """
    zone = ZoneInfo(key)

    def offset(second: int) -> int:
        delta = dt.datetime.fromtimestamp(second, zone).utcoffset()
        assert delta is not None
        return int(delta.total_seconds())

    week = 7 * 86_400
    changes: list[int] = []
    offsets = [offset(0)]
    for start in range(0, (_LAST_DAY + 1) * 86_400, week):
        low, high = start, start + week
        if offset(high) == offsets[-1]:
            continue
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if offset(middle) == offsets[-1] else (low, middle)
        changes.append(high)
        offsets.append(offset(high))
    return np.array(changes, dtype=np.int64) * 1_000_000_000, np.array(
        offsets, dtype=np.int64
    ) * 1_000_000_000
