"""Bars as the compiled steps see them: one row of float64 per bar, stamped with its start.

A row carries what a step may know when the bar has closed: prices, volume, the session
date and where in the session the bar lies. `BarArrays` is a symbol's whole series; live
code makes one row at a time from a `Bar`. Both use `bar_rows`, so both see the same bits.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from sqkit.errors import BarsUnusable
from sqkit.files import sha256_columns

if TYPE_CHECKING:
    from sqkit.sessions import SessionTable

OPEN: Final = 0
HIGH: Final = 1
LOW: Final = 2
CLOSE: Final = 3
VOLUME: Final = 4  # NaN where the source has none
SESSION: Final = 5  # session date as days since 1970-01-01
MINUTE: Final = 6  # minutes from the session's open to the bar's start; 0 for a daily bar
SESSION_MINUTES: Final = 7  # length of this session
BAR_MINUTES: Final = 8  # length of the bar; a daily bar has the session's length
ROW_WIDTH: Final = 9

INTERVAL_MINUTES: Final[dict[str, int]] = {"1m": 1, "5m": 5, "1d": 0}
NANOSECONDS_PER_MINUTE: Final = 60_000_000_000


@dataclass(frozen=True, slots=True)
class Bar:
    """One finished bar as a feed delivers it; `timestamp` is the bar's START and knows its zone."""

    symbol: str
    timestamp: dt.datetime
    open: float
    high: float
    low: float
    close: float
    volume: float | None = None


@dataclass(frozen=True)
class BarArrays:
    """A symbol's bars in time order, all inside sessions.

    Attributes
    ----------
    symbol, interval, market
        What the bars are of; interval is one of ``1d``, ``1m``, ``5m``.
    timestamp_ns
        int64 (n,), UTC nanoseconds of each bar's start.
    available_ns
        int64 (n,), UTC nanoseconds at which the bar is finished and may be used; a daily
        bar is available at its session's close.
    rows
        float64 (n, 9), C-contiguous, columns as named by this module.
    """

    symbol: str
    interval: str
    market: str
    timestamp_ns: np.ndarray
    available_ns: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.timestamp_ns)

    @property
    def session_days(self) -> np.ndarray:
        """int32 (n,), session date of each bar as days since 1970-01-01."""
        return self.rows[:, SESSION].astype(np.int32)

    def slice(self, start: int, stop: int) -> BarArrays:
        """Bars ``start`` to ``stop`` (exclusive) by position."""
        part = slice(start, stop)
        return BarArrays(
            self.symbol,
            self.interval,
            self.market,
            self.timestamp_ns[part],
            self.available_ns[part],
            self.rows[part],
        )

    def window(self, first_day: int, last_day: int) -> tuple[int, int]:
        """Positions ``(start, stop)`` of the bars whose session date lies in the window, ends included."""
        days = self.rows[:, SESSION]
        return int(np.searchsorted(days, first_day, "left")), int(np.searchsorted(days, last_day, "right"))

    def digest(self) -> str:
        """SHA-256 over the canonical columns (int64 nanoseconds, float64 prices and volume)."""
        return sha256_columns(
            timestamp=self.timestamp_ns,
            open=self.rows[:, OPEN],
            high=self.rows[:, HIGH],
            low=self.rows[:, LOW],
            close=self.rows[:, CLOSE],
            volume=self.rows[:, VOLUME],
        )


def bar_rows(
    interval: str, timestamp_ns: np.ndarray, ohlcv: np.ndarray, sessions: SessionTable
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, availability and a mask of the bars that lie inside a session.

    Parameters
    ----------
    interval
        ``1d``, ``1m`` or ``5m``.
    timestamp_ns
        int64 (n,), bar starts in UTC nanoseconds; for daily bars midnight of the session
        date in the market's zone.
    ohlcv
        float64 (n, 5), open, high, low, close, volume.

    Returns
    -------
    rows, available_ns, in_session
        float64 (m, 9), int64 (m,), and bool (n,) with m true values.
    """
    if interval == "1d":
        days = sessions.local_days(timestamp_ns)
        in_session = sessions.is_session(days)
        open_ns, close_ns = sessions.open_close_ns(days[in_session])
        days, minute = days[in_session], np.zeros(int(in_session.sum()))
        available_ns = close_ns
    else:
        days, open_ns, close_ns, in_session = sessions.locate(timestamp_ns)
        days, open_ns, close_ns = days[in_session], open_ns[in_session], close_ns[in_session]
        minute = (timestamp_ns[in_session] - open_ns) / NANOSECONDS_PER_MINUTE
        available_ns = timestamp_ns[in_session] + INTERVAL_MINUTES[interval] * NANOSECONDS_PER_MINUTE
    rows = np.empty((len(days), ROW_WIDTH))
    rows[:, : VOLUME + 1] = ohlcv[in_session]
    rows[:, SESSION] = days
    rows[:, MINUTE] = minute
    rows[:, SESSION_MINUTES] = (close_ns - open_ns) / NANOSECONDS_PER_MINUTE
    rows[:, BAR_MINUTES] = rows[:, SESSION_MINUTES] if interval == "1d" else INTERVAL_MINUTES[interval]
    return rows, available_ns, in_session


def make_bar_arrays(
    symbol: str,
    interval: str,
    market: str,
    timestamp_ns: np.ndarray,
    ohlcv: np.ndarray,
    sessions: SessionTable,
) -> tuple[BarArrays, int]:
    """A symbol's series and the number of bars left out because no session holds them.

    Raises
    ------
    BarsUnusable
        Not in time order, duplicated, or a price that is not finite.
    """
    timestamp_ns = np.ascontiguousarray(timestamp_ns, dtype=np.int64)
    if np.any(np.diff(timestamp_ns) <= 0):
        at = int(np.argmax(np.diff(timestamp_ns) <= 0)) + 1
        raise BarsUnusable(
            f"{symbol}: bars are not in time order or repeat at row {at}; sort and deduplicate", row=at
        )
    broken = ~np.isfinite(ohlcv[:, : CLOSE + 1]).all(axis=1)
    if broken.any():
        at = int(np.argmax(broken))
        raise BarsUnusable(
            f"{symbol}: a price at row {at} ({np.datetime64(int(timestamp_ns[at]), 'ns')}Z) is not a number; "
            "correct the file or delete the row",
            symbol=symbol,
            row=at,
        )
    rows, available_ns, in_session = bar_rows(interval, timestamp_ns, ohlcv, sessions)
    left_out = int((~in_session).sum())
    return BarArrays(symbol, interval, market, timestamp_ns[in_session], available_ns, rows), left_out
