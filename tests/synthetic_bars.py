"""Bars made by arithmetic, for tests that need bars but no market."""

from __future__ import annotations

import datetime as dt

import numpy as np

from sqkit.bars import NANOSECONDS_PER_MINUTE, BarArrays, make_bar_arrays
from sqkit.records import session_day
from sqkit.sessions import load_sessions

FIRST_DAY = session_day(dt.date(2003, 1, 2))


def synthetic_bars(
    symbol: str, *, seed: int, sessions: int, interval: str = "1d", drift: float = 0.25
) -> BarArrays:
    """A US series whose drift is a slow hidden process; `drift` is its share of a bar's volatility."""
    table = load_sessions("us")
    days = table.session_days(FIRST_DAY, FIRST_DAY + 2 * sessions + 30)[:sessions]
    opens, closes = table.open_close_ns(days)
    if interval == "1d":
        zone_midnight = [
            dt.datetime.combine(dt.date(1970, 1, 1) + dt.timedelta(days=int(day)), dt.time(), table.zone)
            for day in days
        ]
        times = np.array([int(instant.timestamp()) * 10**9 for instant in zone_midnight], dtype=np.int64)
    else:
        step = {"1m": 1, "5m": 5}[interval] * NANOSECONDS_PER_MINUTE
        times = np.concatenate(
            [np.arange(start, stop, step) for start, stop in zip(opens, closes, strict=True)]
        ).astype(np.int64)
    generator = np.random.default_rng(seed)
    count = len(times)
    noise, innovation = generator.standard_normal(count), generator.standard_normal(count)
    hidden = np.empty(count)
    level = 0.0
    for at in range(count):
        level = 0.97 * level + np.sqrt(1.0 - 0.97**2) * innovation[at]
        hidden[at] = level
    moves = 0.01 * (drift * hidden + noise)
    close = 100.0 * np.exp(np.cumsum(moves))
    opening = np.concatenate([[100.0], close[:-1]]) * np.exp(0.002 * generator.standard_normal(count))
    wick = 0.004 * np.abs(generator.standard_normal((2, count)))
    high = np.maximum(opening, close) * np.exp(wick[0])
    low = np.minimum(opening, close) * np.exp(-wick[1])
    volume = np.round(1e5 * np.exp(0.3 * generator.standard_normal(count)))
    bars, _ = make_bar_arrays(
        symbol, interval, "us", times, np.column_stack([opening, high, low, close, volume]), table
    )
    return bars
