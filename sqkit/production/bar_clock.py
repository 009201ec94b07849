"""Where a bar stands in its market's time: its number among all bars, in its session, and in hours of session days.

Monitoring counts in these: labels overlap by bars, windows and confirmation count days with a session only.
"""

from __future__ import annotations

import datetime as dt
from typing import Final, NamedTuple

import numpy as np

from sqkit.bars import INTERVAL_MINUTES, NANOSECONDS_PER_MINUTE
from sqkit.records import session_day
from sqkit.sessions import SessionTable

HOURS_PER_DAY: Final = 24.0


class BarPlace(NamedTuple):
    """Where one bar stands.

    Attributes
    ----------
    number
        Among all bars of the market since 1970; the bars of consecutive sessions are not consecutive.
    in_session
        Number of the bar in its session, 0 for the first.
    left
        Bars that come after it in its session.
    """

    number: int
    in_session: int
    left: int


class BarClock:
    """Places bars of one market and interval.

    Parameters
    ----------
    table
        The market's sessions.
    interval
        ``1m``, ``5m`` or ``1d``.
    """

    def __init__(self, table: SessionTable, interval: str) -> None:
        self.table = table
        self.daily = interval == "1d"
        self.bar_ns = INTERVAL_MINUTES[interval] * NANOSECONDS_PER_MINUTE
        self._per_day = 1 if self.daily else 1440 // INTERVAL_MINUTES[interval]
        self._day = -1
        self._session = self._open_ns = self._close_ns = 0

    def place(self, start_ns: int, day: int) -> BarPlace:
        """The place of a bar that starts then, in the session of that date."""
        self._turn_to(day)
        if self.daily:
            return BarPlace(self._session, 0, 0)
        in_session = (start_ns - self._open_ns) // self.bar_ns
        last = (self._close_ns - 1 - self._open_ns) // self.bar_ns
        return BarPlace(self._session * self._per_day + in_session, in_session, last - in_session)

    def available_ns(self, start_ns: int, day: int) -> int:
        """When a bar is over: at its end, a daily one at its session's close; UTC nanoseconds."""
        self._turn_to(day)
        return self._close_ns if self.daily else start_ns + self.bar_ns

    def hours(self, at_ns: int) -> float:
        """An instant on a time line on which only days with a session pass, in hours.

        24 hours back from a session day is the same time of the session day before it, whatever lies between.
        """
        local = dt.datetime.fromtimestamp(at_ns // 1_000_000_000, self.table.zone)
        day = session_day(local.date())
        passed = self.table.number(day) * HOURS_PER_DAY
        if not self.table.is_session(day):
            return passed  # the end of the last session day
        return passed + local.hour + local.minute / 60.0 + local.second / 3600.0

    def _turn_to(self, day: int) -> None:
        if day == self._day:
            return
        open_ns, close_ns = self.table.open_close_ns(np.array([day]))
        self._session = self.table.number(day)
        self._open_ns, self._close_ns = int(open_ns[0]), int(close_ns[0])
        self._day = day
