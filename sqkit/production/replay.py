"""Stored bars through the live engine, one after the other as a feed would deliver them.

``sqkit replay`` and the validation call this. In: series, a window, what to score with. Out: for each
symbol what the engine saw and did, in the form in which a backtest keeps it, so that both can be held
against each other (`sqkit.research.parity`).
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from sqkit.bars import CLOSE, HIGH, LOW, OPEN, VOLUME, Bar, BarArrays
from sqkit.production.admission import Admission
from sqkit.production.engine import Config, Engine
from sqkit.production.engine_time import SetClock
from sqkit.production.scorer import StudentScorer
from sqkit.records import (
    BAR_REFUSED,
    PREDICTION,
    PREDICTION_FIELDS,
    TRADE_CLOSED,
    TRADE_FIELDS,
    encode,
    instant_ns,
)
from sqkit.settings import Settings
from sqkit.student import StudentModel

COMPARED: Final = {name: kind for name, kind in PREDICTION_FIELDS.items() if name != "outcome"}


@dataclass(frozen=True)
class Replayed:
    """What the engine did with one symbol.

    Attributes
    ----------
    bars
        How many of the window's bars the engine decided on.
    features
        float64 (bars, k), what the student was asked with; NaN where their step failed.
    predictions
        Columns of `records.PREDICTION_FIELDS` but the outcome.
    trades
        Columns of `records.TRADE_FIELDS`; a position still open stands last.
    cash, quantity
        Of the paper book, at the end.
    refused
        Bars that the engine did not use: start in UTC nanoseconds, and the status that says why.
    """

    symbol: str
    bars: int
    features: np.ndarray
    predictions: dict[str, np.ndarray]
    trades: dict[str, np.ndarray]
    cash: float
    quantity: int
    refused: dict[int, str] = field(default_factory=dict)


class _Collected:
    """Keeps records in memory instead of writing them."""

    lost = 0

    def __init__(self, symbols: Mapping[str, BarArrays]) -> None:
        self.decisions: dict[str, list[tuple[Any, ...]]] = {symbol: [] for symbol in symbols}
        self.features: dict[str, list[np.ndarray | None]] = {symbol: [] for symbol in symbols}
        self.refused: list[dict[str, Any]] = []

    def write(self, session_day: int, record: dict[str, Any]) -> bool:
        if record["event"] == PREDICTION:
            symbol = record["symbol"]
            features = record["features"]
            self.features[symbol].append(None if features is None else features.copy())
            self.decisions[symbol].append(encode(record, COMPARED))
        elif record["event"] == BAR_REFUSED:
            self.refused.append(record)
        return True

    def event(self, record: dict[str, Any]) -> bool:
        return True

    def close(self) -> None:
        return None


def replay_model(
    model: StudentModel,
    bars: Mapping[str, BarArrays],
    first_day: int,
    last_day: int,
    settings: Settings,
    *,
    now_ns: int,
    most_bars: int | None = None,
    root: Path = Path(),
) -> dict[str, Replayed]:
    """A model that needs no release, over the bars of a window; nothing is written.

    Parameters
    ----------
    bars
        Series by symbol; bars before the window warm the engine.
    now_ns
        The time for the model's age, UTC nanoseconds: that of the validation.
    most_bars
        Each symbol ends after so many bars of the window; None: all.
    """
    about = model.metadata
    config = Config(
        about["strategy"], tuple(bars), interval=about["interval"], calendar=about["market"], name="replay"
    )
    admission = Admission(model, "", "", "replay", root / "replay" / "student_model.onnx")
    scorer = StudentScorer(settings, about["strategy"], now_ns=lambda: now_ns, admission=admission)
    sink, clock = _Collected(bars), SetClock()
    trades: dict[str, list[dict[str, Any]]] = {symbol: [] for symbol in bars}
    engine = Engine(
        config,
        settings,
        root=root,
        clock=clock,
        scorer=scorer,
        challengers=(),
        sink=sink,
        on_trade=lambda event, symbol, trade: trades[symbol].append(trade) if event == TRADE_CLOSED else None,
        keep_state=False,
        watch=False,
    )
    before, within = {}, {}
    for symbol, series in bars.items():
        start, stop = series.window(first_day, last_day)
        before[symbol] = series.slice(0, start)
        within[symbol] = series.slice(start, stop if most_bars is None else min(stop, start + most_bars))
    engine.warm_up(before)
    replay_feed(engine, clock, within)
    width = len(model.feature_set.columns)
    done = {symbol: _gathered(symbol, sink, width, trades[symbol], engine) for symbol in bars}
    engine.close()
    return done


def delivered(bars: Mapping[str, BarArrays]) -> Iterator[tuple[Bar, int]]:
    """Bars of several series as a feed delivers them, each with the instant at which it is finished.

    In order of that instant; bars of one instant in the order of the symbols.
    """
    symbols = list(bars)
    which = np.concatenate([np.full(len(bars[name]), i) for i, name in enumerate(symbols)])
    where = np.concatenate([np.arange(len(bars[name])) for name in symbols])
    instants = np.concatenate([bars[name].available_ns for name in symbols])
    stamp_ns, stamp = -1, dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    for place in np.lexsort((which, instants)):
        series, at = bars[symbols[which[place]]], int(where[place])
        if series.timestamp_ns[at] != stamp_ns:
            stamp_ns = int(series.timestamp_ns[at])
            stamp = dt.datetime.fromtimestamp(stamp_ns // 1_000_000_000, dt.UTC) + dt.timedelta(
                microseconds=stamp_ns % 1_000_000_000 // 1000
            )
        row = series.rows[at].tolist()
        volume = None if row[VOLUME] != row[VOLUME] else row[VOLUME]
        bar = Bar(series.symbol, stamp, row[OPEN], row[HIGH], row[LOW], row[CLOSE], volume)
        yield bar, int(instants[place])


def _gathered(
    symbol: str, sink: _Collected, width: int, closed: list[dict[str, Any]], engine: Engine
) -> Replayed:
    decisions = sink.decisions[symbol]
    columns = list(zip(*decisions, strict=True)) if decisions else [() for _ in COMPARED]
    predictions = {
        name: np.array(column, dtype=kind)
        for (name, kind), column in zip(COMPARED.items(), columns, strict=True)
    }
    features = np.full((len(decisions), width), np.nan)
    for row, found in zip(features, sink.features[symbol], strict=True):
        if found is not None:
            row[:] = found
    book = engine.paper_book(symbol)
    trades = [*closed, *([book.open_trade] if book.open_trade else [])]
    return Replayed(
        symbol,
        len(decisions),
        features,
        predictions,
        {name: np.array([one[name] for one in trades], dtype=kind) for name, kind in TRADE_FIELDS.items()},
        book.cash,
        book.quantity,
        {instant_ns(one["bar_time"]): one["bar_status"] for one in sink.refused if one["symbol"] == symbol},
    )


def replay_feed(
    engine: Engine,
    clock: SetClock,
    bars: Mapping[str, BarArrays],
    *,
    speed: float | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Deliver series to an engine as a live feed would; how many bars it took.

    Parameters
    ----------
    speed
        So many times as fast as the market; None: as fast as possible.
    """
    count, last = 0, None
    for bar, available in delivered(bars):
        if speed and last is not None and available > last:
            sleep((available - last) / 1e9 / speed)
        last = available
        clock.set_ns = available
        engine.process_tick(bar)
        count += 1
    return count
