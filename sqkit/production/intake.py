"""An engine's incoming bars: each is used or refused, and it is said why.

One `BarIntake` a symbol. What is wrong with a bar is a status of `sqkit.records.BAR_STATUSES`; nothing is
repaired, nothing raises. An accepted bar becomes the row that the compiled steps see, the same bits as
`sqkit.bars.bar_rows` gives a series.
"""

from __future__ import annotations

import datetime as dt
import math
import struct
from typing import Any, Final

import numpy as np

from sqkit.bars import INTERVAL_MINUTES, NANOSECONDS_PER_MINUTE, ROW_WIDTH, Bar
from sqkit.records import BAR_STATUS_CODES
from sqkit.sessions import SessionCursor

OK: Final = BAR_STATUS_CODES["ok"]
GAP: Final = BAR_STATUS_CODES["gap"]
MISSING_OPEN: Final = BAR_STATUS_CODES["missing_open_bar"]
LATE: Final = BAR_STATUS_CODES["late"]
FROZEN: Final = BAR_STATUS_CODES["frozen_quotes"]
DUPLICATE: Final = BAR_STATUS_CODES["duplicate"]
REVISED: Final = BAR_STATUS_CODES["revised"]
OUT_OF_ORDER: Final = BAR_STATUS_CODES["out_of_order"]
UNFINISHED: Final = BAR_STATUS_CODES["unfinished"]
BAD_PRICE: Final = BAR_STATUS_CODES["bad_price"]
OUT_OF_SESSION: Final = BAR_STATUS_CODES["out_of_session"]
END_STAMPED: Final = BAR_STATUS_CODES["end_stamped"]
NOT_A_BAR: Final = BAR_STATUS_CODES["not_a_bar"]

FROZEN_BARS: Final = 10
"""So many bars in a row without any range at one price are called frozen quotes."""
END_STAMPED_BARS: Final = 3
"""So many bars in a row that arrive when they begin carry the time they end at."""

_PRICES: Final = struct.Struct("<5d")
_REST: Final = struct.Struct(f"<{ROW_WIDTH - 5}d")
_SLACK: Final = 1e-9  # rounding of adjusted prices, as in the checks of stored bars


def start_ns(timestamp: dt.datetime) -> int | None:
    """UTC nanoseconds of an instant that knows its zone; None for one that does not."""
    zone = timestamp.tzinfo
    if zone is not dt.UTC and (zone is None or timestamp.utcoffset() is None):
        return None
    return math.floor(timestamp.timestamp()) * 1_000_000_000 + timestamp.microsecond * 1_000


class BarIntake:
    """What one symbol's feed delivers.

    Parameters
    ----------
    interval
        ``1d``, ``1m`` or ``5m``.
    cursor
        The session of the time; symbols of one engine share it.
    stale_ns
        A bar that comes so long after its end is late; a daily one only from the next session's open on.

    Attributes
    ----------
    row
        float64 (9,), columns of `sqkit.bars`: the last bar that was used.
    prices
        Open to volume of that bar, as five float64.
    last_ns, end_ns
        Start and end of the last bar that was used, UTC nanoseconds.
    bar_ns
        Length of a bar, nanoseconds; 0 for a daily one.
    missing
        How many bars are missing before it in its session (daily bars: how many sessions).
    end_stamped
        Whether the feed has shown that its stamps are ends.
    """

    def __init__(self, interval: str, cursor: SessionCursor, stale_ns: int) -> None:
        self._buffer = bytearray(_PRICES.size + _REST.size)
        self.row = np.frombuffer(self._buffer, dtype=np.float64)
        self.prices = bytes(_PRICES.size)
        self._cursor = cursor
        self._daily = interval == "1d"
        self._minutes = float(INTERVAL_MINUTES[interval])
        self.bar_ns = INTERVAL_MINUTES[interval] * NANOSECONDS_PER_MINUTE
        self._stale_ns = stale_ns
        self.last_ns = -1
        self.end_ns = 0
        self.last_day = -1
        self.missing = 0
        self.end_stamped = False
        self._unfinished = 0
        self._flat = 0
        self._last_close = math.nan

    def take(self, bar: Bar, bar_start_ns: int, now_ns: int) -> int:
        """The status of a bar; below ``FIRST_REFUSED`` it is now in `row`."""
        try:
            volume = math.nan if bar.volume is None else bar.volume
            packed = _PRICES.pack(bar.open, bar.high, bar.low, bar.close, volume)
        except (struct.error, TypeError, OverflowError):
            return NOT_A_BAR
        values = _PRICES.unpack(packed)  # plain floats, whatever a host's numbers are
        opened, high, low, close, _ = values
        if not (
            0.0 < opened < math.inf
            and 0.0 < high < math.inf
            and 0.0 < close < math.inf
            and 0.0 < low < math.inf
            and high >= low - _SLACK * high
        ):
            return BAD_PRICE
        if bar_start_ns <= self.last_ns:
            if bar_start_ns < self.last_ns:
                return OUT_OF_ORDER
            return DUPLICATE if _alike(values, self.row) else REVISED
        cursor = self._cursor
        if not cursor.find(bar_start_ns):
            return self._outside(bar_start_ns)
        end = self._end_ns(bar_start_ns)
        if end > now_ns:
            return self._too_early(bar_start_ns, now_ns)
        return self._use(values, packed, bar_start_ns, end, now_ns)

    def session_of(self, bar_start_ns: int, now_ns: int) -> int:
        """Session date of a bar that is over; -1 for one that is not, or lies in no session."""
        cursor = self._cursor
        if not cursor.find(bar_start_ns):
            return -1
        end = self._end_ns(bar_start_ns)
        return cursor.day if end <= now_ns else -1

    def _use(
        self, values: tuple[float, ...], packed: bytes, bar_start_ns: int, end_ns: int, now_ns: int
    ) -> int:
        cursor = self._cursor
        length = (cursor.close_ns - cursor.open_ns) / NANOSECONDS_PER_MINUTE
        if self._daily:
            minute, minutes = 0.0, length
        else:
            minute, minutes = (bar_start_ns - cursor.open_ns) / NANOSECONDS_PER_MINUTE, self._minutes
        self._unfinished = 0
        if bar_start_ns == cursor.open_ns:
            self.end_stamped = False  # a bar that begins with the session is stamped by its start
        status = self._continuity(bar_start_ns)
        self.prices = packed
        self._buffer[: len(packed)] = packed
        _REST.pack_into(self._buffer, len(packed), cursor.day, minute, length, minutes)
        opened, high, low, close, _ = values
        self._flat = self._flat + 1 if high == low == opened == self._last_close else 0
        self._last_close = close
        self.last_ns, self.end_ns, self.last_day = bar_start_ns, end_ns, cursor.day
        if now_ns - end_ns > self._stale_ns and (not self._daily or now_ns >= self._next_open_ns()):
            return LATE
        return FROZEN if self._flat >= FROZEN_BARS else status

    def _end_ns(self, bar_start_ns: int) -> int:
        """When a bar of the cursor's session is over."""
        return self._cursor.close_ns if self._daily else bar_start_ns + self.bar_ns

    def _next_open_ns(self) -> int:
        """When the session after the last bar's opens: until then a daily bar may still be acted on."""
        table = self._cursor.table
        opens, _ = table.open_close_ns(np.array([table.shift(self.last_day, 1)]))
        return int(opens[0])

    def _continuity(self, bar_start_ns: int) -> int:
        """Whether bars are missing before this one."""
        cursor = self._cursor
        self.missing = 0
        if self._daily:
            if self.last_day >= 0:
                self.missing = len(cursor.table.session_days(self.last_day + 1, cursor.day - 1))
            return GAP if self.missing else OK
        if cursor.day == self.last_day:
            expected = self.last_ns + self.bar_ns
            if bar_start_ns == expected:
                return OK
            self.missing = max(0, (bar_start_ns - expected) // self.bar_ns)
            return GAP if self.missing else OK
        self.missing = (bar_start_ns - cursor.open_ns) // self.bar_ns
        return MISSING_OPEN if self.missing else OK

    def _outside(self, bar_start_ns: int) -> int:
        if not self._daily and bar_start_ns == self._cursor.close_ns and self.last_day == self._cursor.day:
            self.end_stamped = True  # nothing starts at a close: the stamp is an end
            return END_STAMPED
        return OUT_OF_SESSION

    def _too_early(self, bar_start_ns: int, now_ns: int) -> int:
        """A bar that is not over: one of them is a feed in a hurry, several that begin now are stamped by their end."""
        begins_now = not self._daily and 0 <= now_ns - bar_start_ns < self.bar_ns // 2
        self._unfinished = self._unfinished + 1 if begins_now else 0
        if self._unfinished >= END_STAMPED_BARS:
            self.end_stamped = True
            return END_STAMPED
        return UNFINISHED

    # --- what a restart needs

    def snapshot(self) -> dict[str, Any]:
        """Plain values for `restore`."""
        return {
            "end_ns": self.end_ns,
            "flat": self._flat,
            "last_close": None if math.isnan(self._last_close) else self._last_close,
            "last_day": self.last_day,
            "last_ns": self.last_ns,
            "row": self._buffer.hex(),
        }

    def restore(self, kept: dict[str, Any]) -> None:
        """Go on from a snapshot."""
        self.end_ns, self.last_ns, self.last_day = kept["end_ns"], kept["last_ns"], kept["last_day"]
        self._flat = kept["flat"]  # whether its stamps are ends a restarted engine sees for itself
        self._last_close = math.nan if kept["last_close"] is None else kept["last_close"]
        self._buffer[:] = bytes.fromhex(kept["row"])

    def retake(self, values: tuple[float, ...], bar_start_ns: int, now_ns: int) -> bool:
        """Take a bar from the journal as it was taken then; False for one that is in already."""
        if bar_start_ns <= self.last_ns or not self._cursor.find(bar_start_ns):
            return False
        end = self._end_ns(bar_start_ns)
        self._use(values, _PRICES.pack(*values), bar_start_ns, end, now_ns)
        return True

    def seed(self, bar_start_ns: int, row: np.ndarray) -> None:
        """The last bar of a history that was let pass otherwise."""
        self._buffer[:] = row.tobytes()
        self._cursor.find(bar_start_ns)
        self.last_ns, self.last_day = bar_start_ns, int(row[5])
        self.end_ns = self._end_ns(bar_start_ns)
        self._last_close = float(row[3])


def _alike(values: tuple[float, ...], row: np.ndarray) -> bool:
    """Whether prices and volume are those of the row; no volume is like no volume."""
    return all(a == b or (a != a and b != b) for a, b in zip(values, row[:5].tolist(), strict=True))
