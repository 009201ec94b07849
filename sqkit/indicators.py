"""Indicators and the shipped feature steps, compiled; the only file their machine code comes from.

Two layers. First the kernels: the recursions and windows everybody shares (EMA, Wilder's ATR
and RSI, rings, window means), each advancing a few slots of a float64 state array that starts
as zeros. Then the four shipped steps built from them. `sqkit.features` registers the steps
and runs them; `sqkit.strategy` calls the kernels.

All of it lies in this one file because numba's cache notices an edit of the file a function
is defined in and of nothing else: a kernel imported from elsewhere could change while the
cached machine code went on with the old one.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from sqkit.bars import (
    BAR_MINUTES,
    CLOSE,
    HIGH,
    LOW,
    MINUTE,
    OPEN,
    SESSION,
    SESSION_MINUTES,
    VOLUME,
)

# Intel's vector mathematics would give other last bits than the plain library on other machines.
os.environ.setdefault("NUMBA_DISABLE_INTEL_SVML", "1")

import numba
import numpy as np

# Cached machine code has the row's columns frozen in; whoever moves them must edit this file too.
assert (OPEN, HIGH, LOW, CLOSE, VOLUME) == (0, 1, 2, 3, 4)
assert (SESSION, MINUTE, SESSION_MINUTES, BAR_MINUTES) == (5, 6, 7, 8)

Function = TypeVar("Function", bound=Callable[..., Any])

EMA_SLOTS: Final = 2
ATR_SLOTS: Final = 3
RSI_SLOTS: Final = 4
RING_BARS: Final = 128
RING_SLOTS: Final = 2 * RING_BARS

NOTHING: Final = 1e-10
"""A scale (volatility, range over price) at or below this is no movement: what is left is rounding."""


def kernel(function: Function) -> Function:
    """Compile on first use: IEEE division (x/0 is inf, no exception), no fast-math, no cache of its own."""
    return cast(Function, numba.njit(error_model="numpy")(function))


def kernel_source_digest() -> str:
    """SHA-256 of this file, as 64 hexadecimal digits: put it into whatever else caches these kernels."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


@kernel
def ema_update(state: np.ndarray, offset: int, value: float, period: int) -> float:
    """Advance an exponential moving average by one value.

    Seeded by the mean of the first `period` values, then ``ema += (value - ema) * 2 / (period + 1)``
    (TA-Lib's EMA). NaN for the first ``period - 1`` values. Uses `EMA_SLOTS` slots of `state`
    from `offset`: count of values, sum while seeding and the average afterwards.
    """
    count = state[offset] + 1.0
    state[offset] = count
    if count < period:
        state[offset + 1] += value
        return math.nan
    average: float = state[offset + 1]
    if count == period:
        average = (average + value) / period
    else:
        average = (value - average) * (2.0 / (period + 1.0)) + average
    state[offset + 1] = average
    return average


@kernel
def atr_update(state: np.ndarray, offset: int, high: float, low: float, close: float, period: int) -> float:
    """Advance Wilder's average true range by one bar.

    Seeded by the mean of the first `period` true ranges, then ``(atr * (period - 1) + range) / period``
    (TA-Lib's ATR). The first bar has no close before it and gives no range, so the result is NaN
    for the first `period` bars. Uses `ATR_SLOTS` slots: count of bars, last close, sum or average.
    """
    count = state[offset] + 1.0
    last = state[offset + 1]
    state[offset] = count
    state[offset + 1] = close
    if count == 1.0:
        return math.nan
    true_range = max(high - low, abs(high - last), abs(low - last))
    if high != high or low != low or close != close:
        true_range = math.nan  # max() may drop it
    if count <= period:
        state[offset + 2] += true_range
        return math.nan
    average: float = state[offset + 2]
    if count == period + 1.0:
        average = (average + true_range) / period
    else:
        average = (average * (period - 1.0) + true_range) / period
    state[offset + 2] = average
    return average


@kernel
def rsi_update(state: np.ndarray, offset: int, close: float, period: int) -> float:
    """Advance Wilder's relative strength index by one close; result in 0..100.

    Gains and losses are averaged like the ATR (TA-Lib's RSI). NaN for the first `period` closes.
    Closes that never moved give 50, the neutral reading (TA-Lib gives 0, its most oversold one).
    Uses `RSI_SLOTS` slots: count of closes, last close, gain and loss (sums, then averages).
    """
    count = state[offset] + 1.0
    change = close - state[offset + 1]
    state[offset] = count
    state[offset + 1] = close
    if count == 1.0:
        return math.nan
    gain = change if change > 0.0 else 0.0
    loss = -change if change < 0.0 else 0.0
    if change != change:
        gain = change
    gains: float = state[offset + 2]
    losses: float = state[offset + 3]
    if count <= period + 1.0:
        gains += gain
        losses += loss
        if count == period + 1.0:
            gains /= period
            losses /= period
    else:
        gains = (gains * (period - 1.0) + gain) / period
        losses = (losses * (period - 1.0) + loss) / period
    state[offset + 2] = gains
    state[offset + 3] = losses
    if count <= period:
        return math.nan
    moved = gains + losses
    if moved == 0.0:
        return 50.0
    return 100.0 * (gains / moved)


@kernel
def ring_push(state: np.ndarray, offset: int, bar: int, value: float) -> int:
    """Store the value of bar number `bar` (from 0); the last `RING_BARS` values stay readable.

    Every value is written twice, `RING_BARS` apart, so that a window never wraps: the value of
    k bars ago is ``state[offset + at - k]`` with the returned `at`. Uses `RING_SLOTS` slots.
    """
    at = bar % RING_BARS
    state[offset + at] = value
    at += RING_BARS
    state[offset + at] = value
    return at


@kernel
def window_moments(state: np.ndarray, last: int, bars: int) -> tuple[float, float]:
    """Mean less last value, and standard deviation (ddof 0), of ``state[last - bars + 1 : last + 1]``.

    Recomputed from the window each time, so nothing drifts. Taking every value relative to the
    last one makes equal values give exactly (0, 0) and keeps one pass accurate: the mean lies at
    most sqrt(bars - 1) deviations from a member of its window. Four sums run side by side
    because one would wait for each addition.
    """
    origin = state[last]
    first = last - bars + 1
    sum0 = sum1 = sum2 = sum3 = 0.0
    square0 = square1 = square2 = square3 = 0.0
    fours = first + bars // 4 * 4
    for i in range(first, fours, 4):
        a = state[i] - origin
        b = state[i + 1] - origin
        c = state[i + 2] - origin
        d = state[i + 3] - origin
        sum0 += a
        sum1 += b
        sum2 += c
        sum3 += d
        square0 += a * a
        square1 += b * b
        square2 += c * c
        square3 += d * d
    for i in range(fours, last + 1):
        a = state[i] - origin
        sum0 += a
        square0 += a * a
    mean = ((sum0 + sum1) + (sum2 + sum3)) / bars
    variance = ((square0 + square1) + (square2 + square3)) / bars - mean * mean
    if variance < 0.0:
        variance = 0.0
    return mean, math.sqrt(variance)


@kernel
def window_highest(state: np.ndarray, last: int, bars: int) -> float:
    """Largest of ``state[last - bars + 1 : last + 1]``."""
    first = last - bars + 1
    best0: float = state[last]
    best1 = best0
    fours = first + bars // 4 * 4
    for i in range(first, fours, 4):
        best0 = max(best0, max(state[i], state[i + 1]))
        best1 = max(best1, max(state[i + 2], state[i + 3]))
    for i in range(fours, last + 1):
        best0 = max(best0, state[i])
    return max(best0, best1)


@kernel
def window_lowest(state: np.ndarray, last: int, bars: int) -> float:
    """Smallest of ``state[last - bars + 1 : last + 1]``."""
    first = last - bars + 1
    best0: float = state[last]
    best1 = best0
    fours = first + bars // 4 * 4
    for i in range(first, fours, 4):
        best0 = min(best0, min(state[i], state[i + 1]))
        best1 = min(best1, min(state[i + 2], state[i + 3]))
    for i in range(fours, last + 1):
        best0 = min(best0, state[i])
    return min(best0, best1)


@kernel
def over(value: float, scale: float) -> float:
    """``value / scale``, and 0 where the scale says that nothing moved; NaN goes through."""
    if scale <= NOTHING:
        return value - value
    return value / scale


# The shipped sets. Slots of their common state:
_BARS: Final = 0  # bars seen
_LAST_CLOSE: Final = 1
_SESSION_DAY: Final = 2
_SESSION_OPEN: Final = 3
_PREVIOUS_CLOSE: Final = 4  # close of the session before; 0 while there is none
_PREVIOUS_OPEN: Final = 5
_SESSION_HIGH: Final = 6
_SESSION_LOW: Final = 7
_SESSION_VALUE: Final = 8  # sum of typical price x volume
_SESSION_VOLUME: Final = 9
_RSI_NOW: Final = 10
_ATR_NOW: Final = 11
_HISTOGRAM_NOW: Final = 12
_SLOW_RSI_NOW: Final = 13
_GAP: Final = 14  # log of the session's open over the close before it; 0 while there is none
_EMA_12: Final = 16
_EMA_26: Final = 18
_EMA_50: Final = 20
_SIGNAL: Final = 22
_ATR: Final = 24
_RSI: Final = 28
_SLOW_RSI: Final = 32
_LOGS: Final = 40  # log close
_RETURNS: Final = _LOGS + RING_SLOTS
_CLOSES: Final = _RETURNS + RING_SLOTS
_HIGHS: Final = _CLOSES + RING_SLOTS
_LOWS: Final = _HIGHS + RING_SLOTS
_VOLUMES: Final = _LOWS + RING_SLOTS
STATE_SIZE: Final = _VOLUMES + RING_SLOTS

STUDENT_WARMUP: Final = 101  # 100 returns for the long volatility
TEACHER_WARMUP: Final = 121

_COMMON: Final = (
    "return_1",
    "return_2",
    "return_3",
    "return_5",
    "return_10",
    "return_20",
    "return_60",
    "rsi_14",
    "ema_spread",
    "macd_histogram",
    "atr_percent",
    "band_z_20",
    "volume_z_20",
    "range_position",
    "range_size",
    "volatility_ratio",
    "distance_high_60",
    "distance_low_60",
    "gap",
)
INTRADAY_COLUMNS: Final = (*_COMMON, "vwap_distance", "session_sine", "session_cosine")
SWING_COLUMNS: Final = _COMMON
_WIDER: Final = (
    "return_30",
    "return_120",
    "rsi_28",
    "close_over_ema_50",
    "band_z_60",
    "channel_position_20",
    "channel_position_60",
    "distance_high_120",
    "distance_low_120",
    "body",
    "upper_shadow",
    "lower_shadow",
    "efficiency_20",
    "up_share_20",
    "return_skew_20",
    "return_autocorrelation_20",
    "volume_z_60",
)
INTRADAY_TEACHER_COLUMNS: Final = (
    *INTRADAY_COLUMNS,
    *_WIDER,
    "session_return",
    "session_channel_position",
    "previous_session_return",
)
SWING_TEACHER_COLUMNS: Final = (*SWING_COLUMNS, *_WIDER, "volatility_ratio_60", "weekday")
_FIRST_SESSION_COLUMN: Final = len(_COMMON)
_FIRST_WIDER_INTRADAY: Final = len(INTRADAY_COLUMNS)
_FIRST_WIDER_SWING: Final = len(SWING_COLUMNS)
_FIRST_OWN_INTRADAY: Final = len(INTRADAY_COLUMNS) + len(_WIDER)
_FIRST_OWN_SWING: Final = len(SWING_COLUMNS) + len(_WIDER)


@kernel
def _advance(state: np.ndarray, row: np.ndarray) -> int:
    """Take a bar into the state: session, recursions, rings. Returns where its values lie in the rings."""
    bar = int(state[_BARS])
    close = row[CLOSE]
    if bar == 0 or row[SESSION] != state[_SESSION_DAY]:
        state[_PREVIOUS_CLOSE] = state[_LAST_CLOSE]
        state[_PREVIOUS_OPEN] = state[_SESSION_OPEN]
        state[_SESSION_DAY] = row[SESSION]
        state[_SESSION_OPEN] = row[OPEN]
        state[_SESSION_HIGH] = row[HIGH]
        state[_SESSION_LOW] = row[LOW]
        state[_SESSION_VALUE] = 0.0
        state[_SESSION_VOLUME] = 0.0
        state[_GAP] = 0.0 if bar == 0 else math.log(row[OPEN] / state[_LAST_CLOSE])
    state[_SESSION_HIGH] = max(state[_SESSION_HIGH], row[HIGH])
    state[_SESSION_LOW] = min(state[_SESSION_LOW], row[LOW])
    if row[VOLUME] == row[VOLUME]:
        state[_SESSION_VALUE] += (row[HIGH] + row[LOW] + close) / 3.0 * row[VOLUME]
        state[_SESSION_VOLUME] += row[VOLUME]

    fast = ema_update(state, _EMA_12, close, 12)
    slow = ema_update(state, _EMA_26, close, 26)
    if bar >= 25:
        state[_HISTOGRAM_NOW] = fast - slow - ema_update(state, _SIGNAL, fast - slow, 9)
    state[_ATR_NOW] = atr_update(state, _ATR, row[HIGH], row[LOW], close, 14)
    state[_RSI_NOW] = rsi_update(state, _RSI, close, 14)

    at = ring_push(state, _LOGS, bar, math.log(close))
    log_return = state[_LOGS + at] - state[_LOGS + at - 1] if bar > 0 else 0.0
    ring_push(state, _RETURNS, bar, log_return)
    ring_push(state, _CLOSES, bar, close)
    ring_push(state, _HIGHS, bar, row[HIGH])
    ring_push(state, _LOWS, bar, row[LOW])
    ring_push(state, _VOLUMES, bar, row[VOLUME])
    state[_LAST_CLOSE] = close
    state[_BARS] = bar + 1.0
    return at


@kernel
def _advance_wider(state: np.ndarray, row: np.ndarray) -> None:
    """Take a bar into what only the teachers remember."""
    ema_update(state, _EMA_50, row[CLOSE], 50)
    state[_SLOW_RSI_NOW] = rsi_update(state, _SLOW_RSI, row[CLOSE], 28)


@kernel
def _volatility(state: np.ndarray, at: int, bars: int) -> float:
    """Standard deviation (ddof 0) of the last one-bar log returns."""
    return window_moments(state, _RETURNS + at, bars)[1]


@kernel
def _move(state: np.ndarray, at: int, bars: int, volatility: float) -> float:
    """Log return over `bars` bars in units of what a random walk of that volatility would do."""
    return over(state[_LOGS + at] - state[_LOGS + at - bars], volatility * math.sqrt(bars))


@kernel
def _band_z(state: np.ndarray, at: int, bars: int) -> float:
    """Close less its mean, over its standard deviation (Bollinger's, ddof 0)."""
    close = state[_CLOSES + at]
    mean, deviation = window_moments(state, _CLOSES + at, bars)
    return over(-mean / close, deviation / close)


@kernel
def _volume_z(state: np.ndarray, at: int, bars: int) -> float:
    """Volume less its mean over its standard deviation; 0 with a null in the window or no variance."""
    mean, deviation = window_moments(state, _VOLUMES + at, bars)
    if deviation == 0.0:
        return 0.0
    if mean != mean:
        for i in range(_VOLUMES + at - bars + 1, _VOLUMES + at + 1):
            if state[i] != state[i]:
                return 0.0
    return -mean / deviation


@kernel
def _position(value: float, low: float, high: float) -> float:
    """Where a value lies between low (-1) and high (1); 0 where both are the same."""
    return over((value - low + (value - high)) / high, (high - low) / high)


@kernel
def _common_columns(state: np.ndarray, row: np.ndarray, at: int, long: float, out: np.ndarray) -> None:
    """`_COMMON`, in its order; `long` is the volatility of 100 bars."""
    close = row[CLOSE]
    short = _volatility(state, at, 20)
    atr = state[_ATR_NOW] / close
    reach = long * math.sqrt(60.0)
    out[0] = _move(state, at, 1, short)
    out[1] = _move(state, at, 2, short)
    out[2] = _move(state, at, 3, short)
    out[3] = _move(state, at, 5, short)
    out[4] = _move(state, at, 10, short)
    out[5] = _move(state, at, 20, short)
    out[6] = _move(state, at, 60, long)
    out[7] = state[_RSI_NOW]
    out[8] = over((state[_EMA_12 + 1] - state[_EMA_26 + 1]) / close, atr)
    out[9] = over(state[_HISTOGRAM_NOW] / close, atr)
    out[10] = 100.0 * atr
    out[11] = _band_z(state, at, 20)
    out[12] = _volume_z(state, at, 20)
    out[13] = _position(close, row[LOW], row[HIGH])
    out[14] = over((row[HIGH] - row[LOW]) / close, short)
    out[15] = over(short, long)
    out[16] = over(math.log(close / window_highest(state, _HIGHS + at, 60)), reach)
    out[17] = over(math.log(close / window_lowest(state, _LOWS + at, 60)), reach)
    out[18] = over(state[_GAP], long * math.sqrt(row[SESSION_MINUTES] / row[BAR_MINUTES]))


@kernel
def _session_columns(state: np.ndarray, row: np.ndarray, long: float, out: np.ndarray) -> None:
    """Distance to the session's VWAP, and the time of session on a half circle.

    Half, because a session's end is not followed by its beginning: the cosine falls from 1 to -1
    and the sine is the same at both ends.
    """
    distance = 0.0
    if state[_SESSION_VOLUME] != 0.0:
        distance = math.log(row[CLOSE] * state[_SESSION_VOLUME] / state[_SESSION_VALUE])
    angle = math.pi * (row[MINUTE] + row[BAR_MINUTES]) / row[SESSION_MINUTES]
    out[_FIRST_SESSION_COLUMN] = over(distance, long * math.sqrt(60.0))
    out[_FIRST_SESSION_COLUMN + 1] = math.sin(angle)
    out[_FIRST_SESSION_COLUMN + 2] = math.cos(angle)


@kernel
def _wider_columns(
    state: np.ndarray, row: np.ndarray, at: int, long: float, first: int, out: np.ndarray
) -> None:
    """`_WIDER`, in its order, from column `first`."""
    close = row[CLOSE]
    atr = state[_ATR_NOW] / close
    reach = long * math.sqrt(120.0)
    out[first] = _move(state, at, 30, long)
    out[first + 1] = _move(state, at, 120, long)
    out[first + 2] = state[_SLOW_RSI_NOW]
    out[first + 3] = over((close - state[_EMA_50 + 1]) / close, atr)
    out[first + 4] = _band_z(state, at, 60)
    high_20, low_20 = window_highest(state, _HIGHS + at, 20), window_lowest(state, _LOWS + at, 20)
    high_60, low_60 = window_highest(state, _HIGHS + at, 60), window_lowest(state, _LOWS + at, 60)
    out[first + 5] = _position(close, low_20, high_20)
    out[first + 6] = _position(close, low_60, high_60)
    out[first + 7] = over(math.log(close / window_highest(state, _HIGHS + at, 120)), reach)
    out[first + 8] = over(math.log(close / window_lowest(state, _LOWS + at, 120)), reach)
    out[first + 9] = over((close - row[OPEN]) / close, atr)
    out[first + 10] = over((row[HIGH] - max(row[OPEN], close)) / close, atr)
    out[first + 11] = over((min(row[OPEN], close) - row[LOW]) / close, atr)
    _path_columns(state, at, first + 12, out)
    out[first + 16] = _volume_z(state, at, 60)


@kernel
def _path_columns(state: np.ndarray, at: int, first: int, out: np.ndarray) -> None:
    """How the last 20 returns went: efficiency (Kaufman), share of rises, skewness, lag-1 autocorrelation."""
    last = _RETURNS + at
    mean, deviation = window_moments(state, last, 20)
    mean += state[last]
    travelled = rises = cubes = products = 0.0
    before = 0.0
    for i in range(last - 19, last + 1):
        value = state[i]
        travelled += abs(value)
        if value > 0.0:
            rises += 1.0
        part = over(value - mean, deviation)
        cubes += part * part * part
        products += part * before
        before = part
    out[first] = over(state[_LOGS + at] - state[_LOGS + at - 20], travelled)
    out[first + 1] = rises / 20.0
    out[first + 2] = cubes / 20.0
    out[first + 3] = products / 20.0


def intraday_step(state: np.ndarray, row: np.ndarray, out: np.ndarray) -> None:
    """One bar of `INTRADAY_COLUMNS`."""
    at = _advance(state, row)
    if state[_BARS] < STUDENT_WARMUP:
        out[:] = math.nan
        return
    long = _volatility(state, at, 100)
    _common_columns(state, row, at, long, out)
    _session_columns(state, row, long, out)


def swing_step(state: np.ndarray, row: np.ndarray, out: np.ndarray) -> None:
    """One bar of `SWING_COLUMNS`."""
    at = _advance(state, row)
    if state[_BARS] < STUDENT_WARMUP:
        out[:] = math.nan
        return
    long = _volatility(state, at, 100)
    _common_columns(state, row, at, long, out)


def intraday_teacher_step(state: np.ndarray, row: np.ndarray, out: np.ndarray) -> None:
    """One bar of `INTRADAY_TEACHER_COLUMNS`: the student's, then what only the teacher sees."""
    at = _advance(state, row)
    _advance_wider(state, row)
    if state[_BARS] < TEACHER_WARMUP:
        out[:] = math.nan
        return
    long = _volatility(state, at, 100)
    _common_columns(state, row, at, long, out)
    _session_columns(state, row, long, out)
    _wider_columns(state, row, at, long, _FIRST_WIDER_INTRADAY, out)
    reach = long * math.sqrt(row[SESSION_MINUTES] / row[BAR_MINUTES])
    before = 0.0
    if state[_PREVIOUS_OPEN] != 0.0:
        before = math.log(state[_PREVIOUS_CLOSE] / state[_PREVIOUS_OPEN])
    out[_FIRST_OWN_INTRADAY] = over(math.log(row[CLOSE] / state[_SESSION_OPEN]), reach)
    out[_FIRST_OWN_INTRADAY + 1] = _position(row[CLOSE], state[_SESSION_LOW], state[_SESSION_HIGH])
    out[_FIRST_OWN_INTRADAY + 2] = over(before, reach)


def swing_teacher_step(state: np.ndarray, row: np.ndarray, out: np.ndarray) -> None:
    """One bar of `SWING_TEACHER_COLUMNS`: the student's, then what only the teacher sees."""
    at = _advance(state, row)
    _advance_wider(state, row)
    if state[_BARS] < TEACHER_WARMUP:
        out[:] = math.nan
        return
    long = _volatility(state, at, 100)
    _common_columns(state, row, at, long, out)
    _wider_columns(state, row, at, long, _FIRST_WIDER_SWING, out)
    out[_FIRST_OWN_SWING] = over(_volatility(state, at, 20), _volatility(state, at, 60))
    out[_FIRST_OWN_SWING + 1] = (row[SESSION] + 3.0) % 7.0
