"""A synthetic market with a known answer: a trend the baseline rule lives on, and a planted signal.

Used by tests, benchmarks and the tour wherever a real PROMOTE or a real degradation is
needed. The signal exists in the price path only: a hidden flow tilts where each bar closes
inside its range and, when `edge` is above zero, what the following bars do. Feature and
label code know nothing of it; a student has to find it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from sqkit.bars import INTERVAL_MINUTES, NANOSECONDS_PER_MINUTE
from sqkit.errors import UsageError
from sqkit.files import symbol_file_name, write_bytes
from sqkit.records import session_day
from sqkit.research.marketdata import parquet_bytes
from sqkit.sessions import load_sessions

FIRST_SESSION: Final = "2012-01-02"
BAR_VOLATILITY: Final[dict[str, float]] = {"1d": 0.015, "5m": 0.0016, "1m": 0.0008}
TREND_PER_VOLATILITY: Final = 0.16  # drift of a trend, in volatilities per bar
TREND_BARS: Final = 80.0  # mean length of a trend
FLOW_PERSISTENCE: Final = 0.9
FLOW_IN_CLOSE: Final = 2.0  # how plainly the flow shows in the close's place inside the range


def planted_market(
    seed: int,
    symbols: int | Sequence[str],
    sessions: int,
    interval: str,
    edge: float,
    break_at: int | None = None,
    break_baseline: bool = False,
    *,
    shown_from: int = 0,
    market: str = "us",
) -> dict[str, pd.DataFrame]:
    """Simulate bars of a planted market.

    Parameters
    ----------
    seed
        The same arguments give the same bits.
    symbols
        A number of symbols (named ``PLANT01`` and so on) or their names.
    sessions
        Number of sessions from 2012-01-02 on.
    interval
        ``1d``, ``5m`` or ``1m``.
    edge
        Drift of the next bar, in volatilities per unit of hidden flow; 0 plants nothing.
    break_at
        Session number from which the planted signal points the wrong way.
    break_baseline
        With `break_at`: the trends end there as well.
    shown_from
        Session number from which the flow shows inside the bar; before it another series does, which says nothing.
    market
        Whose calendar the bars follow.

    Returns
    -------
    dict of DataFrame
        Canonical bars (tz-aware ``timestamp`` of the bar's start, ``symbol``, OHLC, ``volume``).
    """
    if interval not in BAR_VOLATILITY:
        raise UsageError(f"interval {interval!r}: one of {', '.join(BAR_VOLATILITY)}", interval=interval)
    names = (
        [f"PLANT{number + 1:02d}" for number in range(symbols)] if isinstance(symbols, int) else list(symbols)
    )
    starts_ns, session_number = _bar_starts(sessions, interval, market)
    broken = session_number >= (sessions if break_at is None else break_at)
    generator = np.random.default_rng([seed, sessions, INTERVAL_MINUTES[interval]])
    frames = {}
    for name in names:
        ohlcv = _simulate(
            generator,
            len(starts_ns),
            BAR_VOLATILITY[interval],
            edge,
            broken,
            break_baseline,
            session_number < shown_from,
        )
        frame = pd.DataFrame(ohlcv, columns=["open", "high", "low", "close", "volume"])
        frame.insert(0, "timestamp", pd.to_datetime(starts_ns, utc=True))
        frame.insert(1, "symbol", name)
        frames[name] = frame
    return frames


def write_market(frames: dict[str, pd.DataFrame], location: Path) -> Path:
    """Store a planted market as ``<location>/<SYMBOL>.parquet``, ready for ``--bars``."""
    for symbol, frame in frames.items():
        write_bytes(location / symbol_file_name(symbol), parquet_bytes(frame))
    return location


def _bar_starts(sessions: int, interval: str, market: str) -> tuple[np.ndarray, np.ndarray]:
    table = load_sessions(market)
    first = session_day(pd.Timestamp(FIRST_SESSION).date())
    days = table.session_days(first, min(first + 30 + sessions * 3 // 2, table.horizon_day))[:sessions]
    if len(days) < sessions:
        raise UsageError(
            f"{sessions} sessions: the calendar holds {len(days)} from {FIRST_SESSION}", sessions=sessions
        )
    if interval == "1d":
        midnights = pd.to_datetime(days, unit="D").tz_localize(str(table.zone)).tz_convert("UTC")
        return midnights.as_unit("ns").asi8, np.arange(sessions)
    open_ns, close_ns = table.open_close_ns(days)
    step = INTERVAL_MINUTES[interval] * NANOSECONDS_PER_MINUTE
    starts = [np.arange(opened, closed, step) for opened, closed in zip(open_ns, close_ns, strict=True)]
    numbers = np.repeat(np.arange(sessions), [len(part) for part in starts])
    return np.concatenate(starts).astype(np.int64), numbers


def _simulate(
    generator: np.random.Generator,
    bars: int,
    volatility: float,
    edge: float,
    broken: np.ndarray,
    break_baseline: bool,
    hidden: np.ndarray,
) -> np.ndarray:
    """One symbol's OHLCV: trend and flow drive the returns, the flow shows inside the bar."""
    flow = _persistent(generator, bars)
    trend = TREND_PER_VOLATILITY * _switching(generator, bars)
    if break_baseline:
        trend = np.where(broken, 0.0, trend)
    pull = np.where(broken, -edge, edge) * np.concatenate([[0.0], flow[:-1]])
    returns = volatility * (trend + pull + generator.standard_normal(bars))
    close = 100.0 * np.exp(np.cumsum(returns))
    opened = np.concatenate([[100.0], close[:-1]]) * np.exp(
        0.05 * volatility * generator.standard_normal(bars)
    )

    # The close stands high in its range when the flow is strong: the body is given, so the wicks carry it.
    shown = np.where(hidden, _persistent(generator, bars), flow) if hidden.any() else flow
    place = 1.0 / (1.0 + np.exp(-FLOW_IN_CLOSE * shown - 0.5 * generator.standard_normal(bars)))
    wick = close * volatility * (0.6 + 0.4 * generator.random(bars))
    high = np.maximum(np.maximum(opened, close) + 0.02 * wick, close + wick * (1.0 - place))
    low = np.minimum(np.minimum(opened, close) - 0.02 * wick, close - wick * place)
    volume = np.round(1e5 * np.exp(0.3 * generator.standard_normal(bars)))
    return np.column_stack([opened, high, low, close, volume])


def _persistent(generator: np.random.Generator, bars: int) -> np.ndarray:
    """A stationary AR(1) series with unit variance."""
    shocks = generator.standard_normal(bars) * np.sqrt(1.0 - FLOW_PERSISTENCE**2)
    series = np.empty(bars)
    level = generator.standard_normal()
    for position in range(bars):
        level = FLOW_PERSISTENCE * level + shocks[position]
        series[position] = level
    return series


def _switching(generator: np.random.Generator, bars: int) -> np.ndarray:
    """+1 while a trend goes up, -1 while it goes down; lengths are geometric."""
    switches = generator.random(bars) < 1.0 / TREND_BARS
    first = 1.0 if generator.random() < 0.5 else -1.0
    return np.where(np.cumsum(switches) % 2 == 0, first, -first)
