"""Whatever a feed delivers, engine and batch agree over the bars that were used: to the bit."""

from __future__ import annotations

import math
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sqkit.bars import Bar, make_bar_arrays
from sqkit.production.intake import start_ns
from sqkit.records import FIRST_REFUSED, TRADE_FIELDS, decode
from sqkit.research.backtest import Window, backtest_symbol
from sqkit.sessions import load_sessions
from tests.engines import SYMBOL, Bench, pairs, series, student
from tests.test_engine_restart import abandon

WHOLE = {strategy: pairs(series(strategy)) for strategy in ("swing", "intraday")}
Delivery = list[tuple[Bar, int]]


def mangled(bars: Delivery, seed: int) -> tuple[Delivery, list[int]]:
    """Gaps, a halt of the market, repeats, revisions, disorder, NaN, extreme and broken prices; and where to restart."""
    random = np.random.default_rng(seed)
    kept: Delivery = []
    gap_until = 0
    for place, (bar, available) in enumerate(bars):
        dice = random.random()
        if place < gap_until:
            continue
        if dice < 0.004:
            gap_until = place + int(random.integers(1, 60))
        elif dice < 0.010 and kept:
            kept.append((kept[int(random.integers(len(kept)))][0], available))
        elif dice < 0.014:
            kept.append((replace(bar, close=math.nan), available))
            continue
        elif dice < 0.018:
            kept.append((replace(bar, low=0.0), available))
        elif dice < 0.026:
            factor = float(10.0 ** random.uniform(-4, 4))
            prices = {name: getattr(bar, name) * factor for name in ("open", "high", "low", "close")}
            bar = replace(bar, **prices)
        elif dice < 0.030:
            bar = replace(bar, high=bar.close, low=bar.close, open=bar.close, volume=None)
        kept.append((bar, available))
        if dice > 0.99:
            kept.append((replace(bar, close=bar.close * 1.01, high=bar.high * 1.02), available))
    cuts = sorted(int(one) for one in random.integers(0, len(kept), 3))
    return kept, cuts


@pytest.mark.parametrize("strategy", ["swing", "intraday"])
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_engine_and_batch_agree(strategy: str, seed: int) -> None:
    """Features, scores, decisions, targets and trades are those of a backtest over the bars that were used."""
    delivery, cuts = mangled(WHOLE[strategy], seed)
    model, root = (
        student(strategy, feature_ranges=[[-50.0, 200.0]] * len(student(strategy).feature_set.columns)),
        Path(tempfile.mkdtemp()),
    )
    try:
        for start, stop in zip([0, *cuts], [*cuts, len(delivery)], strict=True):
            bench = Bench(root, strategy, model=model)
            bench.feed(delivery[start:stop])
            abandon(bench)
        hold_against_batch(bench, strategy, delivery)
    finally:
        shutil.rmtree(root)


def hold_against_batch(bench: Bench, strategy: str, delivery: Delivery) -> None:
    """The records of an engine against a backtest over the bars that they say were used."""
    found: dict[str, dict[str, Any]] = {}
    for one in bench.predictions():
        assert one["id"] not in found, "one decision a bar, also after restarts"
        found[one["id"]] = one
    records = list(found.values())
    stamps = np.array([np.datetime64(one["bar_time"][:-1], "ns").astype(np.int64) for one in records])
    ohlcv = np.array([[np.nan if v is None else v for v in one["bar"]] for one in records])
    interval = bench.engine.config.interval
    bars, outside = make_bar_arrays(SYMBOL, interval, "us", stamps, ohlcv, load_sessions("us"))
    assert outside == 0
    days = bars.session_days
    window = Window(int(days[0]), int(days[-1]))
    rules = bench.engine.config.rules(bench.settings)
    model = bench.engine.student_model
    batch = backtest_symbol(bars, model, window, rules)

    for at, one in enumerate(records):
        expected = decode(
            {name: column[at] for name, column in batch.predictions.items() if name != "outcome"}
        )
        assert {name: one[name] for name in expected} == expected, one["id"]
    closed = [one for one in bench.records() if one["event"] == "trade_closed"]
    whole = [
        decode({name: column[at].item() for name, column in batch.fills.trades.items()})
        for at in np.flatnonzero(batch.fills.closed)
    ]
    assert [{name: one[name] for name in TRADE_FIELDS} for one in closed] == whole
    assert bench.engine.paper_book(SYMBOL).cash == batch.fills.cash
    used = {start_ns(bar.timestamp) for bar, _ in delivery}
    assert set(stamps.tolist()) <= used
    assert len(records) > 100
    assert FIRST_REFUSED == 10
