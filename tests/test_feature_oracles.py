"""Indicators against TA-Lib, and every shipped column against a second, slow way to compute it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import talib
from hypothesis import given, settings
from hypothesis import strategies as st

from sqkit.bars import CLOSE, HIGH, LOW, OPEN, SESSION, VOLUME
from sqkit.features import feature_matrix, teacher_set
from sqkit.indicators import (
    ATR_SLOTS,
    EMA_SLOTS,
    RING_BARS,
    RING_SLOTS,
    RSI_SLOTS,
    atr_update,
    ema_update,
    ring_push,
    rsi_update,
    window_highest,
    window_lowest,
    window_moments,
)

SEEDS = st.integers(0, 2**32)
PERIODS = st.integers(2, 60)


def walk(seed: int, bars: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Open, high, low and close of a random walk."""
    random = np.random.default_rng(seed)
    close = 300.0 * np.exp(np.cumsum(random.normal(0.0, 0.01, bars)))
    opened = np.concatenate((close[:1], close[:-1])) * np.exp(random.normal(0.0, 0.004, bars))
    high = np.maximum(opened, close) * np.exp(random.exponential(0.004, bars))
    low = np.minimum(opened, close) * np.exp(-random.exponential(0.004, bars))
    return opened, high, low, close


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, period=PERIODS)
def test_ema_is_talibs(seed: int, period: int) -> None:
    """Same NaN rows, same values to 1e-9 relative."""
    close = walk(seed)[3]
    state = np.zeros(EMA_SLOTS)
    ours = [ema_update(state, 0, value, period) for value in close]
    np.testing.assert_allclose(ours, talib.EMA(close, period), rtol=1e-9)


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, period=PERIODS)
def test_rsi_is_talibs(seed: int, period: int) -> None:
    """Same NaN rows, same values to 1e-9 relative."""
    close = walk(seed)[3]
    state = np.zeros(RSI_SLOTS)
    ours = [rsi_update(state, 0, value, period) for value in close]
    np.testing.assert_allclose(ours, talib.RSI(close, period), rtol=1e-9)


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, period=PERIODS)
def test_atr_is_talibs(seed: int, period: int) -> None:
    """Same NaN rows, same values to 1e-9 relative."""
    _, high, low, close = walk(seed)
    state = np.zeros(ATR_SLOTS)
    ours = [atr_update(state, 0, *bar, period) for bar in zip(high, low, close, strict=True)]
    np.testing.assert_allclose(ours, talib.ATR(high, low, close, period), rtol=1e-9)


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, period=PERIODS)
def test_windows_are_talibs_bands_and_extremes(seed: int, period: int) -> None:
    """Bollinger bands from `window_moments`, highest and lowest, long after the ring has gone round."""
    _, high, low, close = walk(seed)
    upper, middle, lower = talib.BBANDS(close, period, 2.0, 2.0)
    highest, lowest = talib.MAX(high, period), talib.MIN(low, period)
    assert len(close) > 3 * RING_BARS
    state = np.zeros(3 * RING_SLOTS)
    for bar in range(len(close)):
        at = ring_push(state, 0, bar, close[bar])
        ring_push(state, RING_SLOTS, bar, high[bar])
        ring_push(state, 2 * RING_SLOTS, bar, low[bar])
        if bar < period - 1:
            continue
        mean, deviation = window_moments(state, at, period)
        mean += close[bar]
        np.testing.assert_allclose(
            (mean, mean + 2 * deviation, mean - 2 * deviation),
            (middle[bar], upper[bar], lower[bar]),
            rtol=1e-9,
        )
        assert window_highest(state, RING_SLOTS + at, period) == highest[bar]
        assert window_lowest(state, 2 * RING_SLOTS + at, period) == lowest[bar]


@pytest.mark.parametrize("level", [1e-3, 1.0, 1e9])
def test_a_window_of_one_value_has_exactly_no_deviation(level: float) -> None:
    """Equal values give exactly (0, 0), which a sum of squares about zero would not."""
    state = np.full(100, level / 3.0)
    assert window_moments(state, 99, 20) == (0.0, 0.0)


def test_rsi_is_neutral_where_nothing_ever_moved() -> None:
    """Constant closes read 50; TA-Lib's 0 would veto every short entry of a halted symbol."""
    state = np.zeros(RSI_SLOTS)
    assert [rsi_update(state, 0, 7.0, 14) for _ in range(20)][14:] == [50.0] * 6
    assert talib.RSI(np.full(20, 7.0), 14)[-1] == 0.0


@pytest.mark.parametrize("strategy", ["intraday", "swing"])
@pytest.mark.parametrize("seed", [1, 2])
def test_every_column_equals_its_definition(strategy: str, seed: int) -> None:
    """pandas and TA-Lib, written from the definitions, give every column of the teacher's set (and so
    of the student's) to 1e-7."""
    rows = session_bars(seed, daily=strategy == "swing")
    features = teacher_set(strategy)
    ours = pd.DataFrame(feature_matrix(features, rows), columns=features.columns)
    expected = reference(rows, strategy)
    assert set(expected) == set(features.columns)
    for name in features.columns:
        np.testing.assert_allclose(
            ours[name][features.warmup_bars - 1 :],
            expected[name][features.warmup_bars - 1 :],
            rtol=1e-7,
            atol=1e-9,
            err_msg=name,
        )


def session_bars(seed: int, *, daily: bool) -> np.ndarray:
    """600 bars of a walk, in sessions of 50 or 30 one-minute bars or in days."""
    opened, high, low, close = walk(seed, 600)
    rows = np.empty((600, 9))
    rows[:, OPEN], rows[:, HIGH], rows[:, LOW], rows[:, CLOSE] = opened, high, low, close
    rows[:, VOLUME] = np.random.default_rng(seed).integers(1, 1000, 600)
    place = np.arange(600)
    if daily:
        rows[:, SESSION] = 16_000 + place // 5 * 7 + place % 5
        rows[:, 6:] = (0.0, 375.0, 375.0)
    else:
        session, minute = place // 80 * 2 + (place % 80 >= 50), place % 80
        rows[:, SESSION] = 16_000 + session
        rows[:, 6] = np.where(minute >= 50, minute - 50, minute)
        rows[:, 7] = np.where(minute >= 50, 30.0, 50.0)
        rows[:, 8] = 1.0
    return rows


def reference(rows: np.ndarray, strategy: str) -> pd.DataFrame:
    """The teacher's columns by pandas and TA-Lib, from their definitions."""
    opened, high, low, close, volume = (pd.Series(rows[:, column].copy()) for column in range(5))
    returns = np.log(close / close.shift())
    vol = {bars: returns.rolling(bars).std(ddof=0) for bars in (20, 60, 100)}
    atr = pd.Series(talib.ATR(high.to_numpy(), low.to_numpy(), close.to_numpy(), 14))
    ema = {bars: pd.Series(talib.EMA(close.to_numpy(), bars)) for bars in (12, 26, 50)}
    spread = ema[12] - ema[26]
    signal = pd.Series(np.nan, index=close.index)
    signal[25:] = talib.EMA(spread[25:].to_numpy(), 9)
    day = pd.Series(rows[:, SESSION])
    session = day.ne(day.shift()).cumsum()
    session_open = opened.groupby(session).transform("first")
    last_close = close.groupby(session).last().shift()
    last_open = opened.groupby(session).first().shift()
    bars_in_session = rows[:, 7] / rows[:, 8]

    table: dict[str, pd.Series] = {}
    for bars, scale in (
        (1, 20),
        (2, 20),
        (3, 20),
        (5, 20),
        (10, 20),
        (20, 20),
        (30, 100),
        (60, 100),
        (120, 100),
    ):
        table[f"return_{bars}"] = np.log(close / close.shift(bars)) / (vol[scale] * np.sqrt(bars))
    for bars in (14, 28):
        table[f"rsi_{bars}"] = pd.Series(talib.RSI(close.to_numpy(), bars))
    table["ema_spread"] = spread / atr
    table["macd_histogram"] = (spread - signal) / atr
    table["close_over_ema_50"] = (close - ema[50]) / atr
    table["atr_percent"] = 100 * atr / close
    for bars in (20, 60):
        table[f"band_z_{bars}"] = (close - close.rolling(bars).mean()) / close.rolling(bars).std(ddof=0)
        table[f"volume_z_{bars}"] = (volume - volume.rolling(bars).mean()) / volume.rolling(bars).std(ddof=0)
        table[f"channel_position_{bars}"] = position(close, low.rolling(bars).min(), high.rolling(bars).max())
    for bars in (60, 120):
        reach = vol[100] * np.sqrt(bars)
        table[f"distance_high_{bars}"] = np.log(close / high.rolling(bars).max()) / reach
        table[f"distance_low_{bars}"] = np.log(close / low.rolling(bars).min()) / reach
    table["range_position"] = position(close, low, high)
    table["range_size"] = (high - low) / close / vol[20]
    table["volatility_ratio"] = vol[20] / vol[100]
    table["gap"] = np.log(session_open / session.map(last_close)) / (vol[100] * np.sqrt(bars_in_session))
    table["body"] = (close - opened) / atr
    table["upper_shadow"] = (high - np.maximum(opened, close)) / atr
    table["lower_shadow"] = (np.minimum(opened, close) - low) / atr
    table["efficiency_20"] = np.log(close / close.shift(20)) / returns.abs().rolling(20).sum()
    table["up_share_20"] = (returns > 0).rolling(20).mean()
    standard = returns.rolling(20).apply(lambda part: (((part - part.mean()) / part.std(ddof=0)) ** 3).mean())
    table["return_skew_20"] = standard
    table["return_autocorrelation_20"] = returns.rolling(20).apply(autocorrelation, raw=True)
    if strategy == "swing":
        table["volatility_ratio_60"] = vol[20] / vol[60]
        table["weekday"] = pd.to_datetime(day, unit="D").dt.day_of_week.astype(float)
        return pd.DataFrame(table)
    value = ((high + low + close) / 3 * volume).groupby(session).cumsum()
    vwap = value / volume.groupby(session).cumsum()
    angle = np.pi * (rows[:, 6] + rows[:, 8]) / rows[:, 7]
    table["vwap_distance"] = np.log(close / vwap) / (vol[100] * np.sqrt(60))
    table["session_sine"], table["session_cosine"] = pd.Series(np.sin(angle)), pd.Series(np.cos(angle))
    reach = vol[100] * np.sqrt(bars_in_session)
    table["session_return"] = np.log(close / session_open) / reach
    table["session_channel_position"] = position(
        close, low.groupby(session).cummin(), high.groupby(session).cummax()
    )
    table["previous_session_return"] = session.map(np.log(last_close / last_open)) / reach
    return pd.DataFrame(table)


def position(value: pd.Series, low: pd.Series, high: pd.Series) -> pd.Series:
    """From -1 at low to 1 at high."""
    return 2 * (value - low) / (high - low) - 1


def autocorrelation(part: np.ndarray) -> float:
    """Lag-1 autocorrelation with the window's own mean and variance."""
    centred = part - part.mean()
    return float((centred[1:] * centred[:-1]).sum() / (centred**2).sum())
