"""The bundled sample: five US equities, daily, 2000 to 2013, from the `bokeh_sampledata` package.

`make demo` writes it to ``data/bars/1d`` and trains on it. The package's prices and volumes
are as traded; `adj_close` carries every later split and dividend. Each day's open, high,
low and close are multiplied by ``adj_close / close`` and its volume divided by it, so the
traded value, close times volume, stays what it was. Nothing of the package is copied into
sqkit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from sqkit.errors import BarsNotFound
from sqkit.research.barformats import RawBars
from sqkit.research.barstamps import Stamps
from sqkit.research.bartidy import Loaded, tidy
from sqkit.research.marketdata import store_bars
from sqkit.sessions import load_sessions

SAMPLE_SYMBOLS: Final = ("MSFT", "AAPL", "IBM", "GOOG", "FB")
SAMPLE_MARKET: Final = "us"
SAMPLE_INTERVAL: Final = "1d"


def bundled_sample() -> dict[str, pd.DataFrame]:
    """Canonical columns of each of `SAMPLE_SYMBOLS`, split- and dividend-adjusted.

    Raises
    ------
    BarsNotFound
        The package `bokeh_sampledata` is not installed.
    """
    return {symbol: loaded.frame for symbol, loaded in _loaded_sample().items()}


def write_bundled_sample(data_dir: str | Path) -> list[Path]:
    """Store the sample under ``<data_dir>/bars/1d``; the files written."""
    return [store_bars(loaded, data_dir) for loaded in _loaded_sample().values()]


def _loaded_sample() -> dict[str, Loaded]:
    try:
        from bokeh_sampledata import stocks
    except ImportError:
        raise BarsNotFound(
            "the bundled sample needs the package bokeh_sampledata; run: pip install 'sqkit[research]'"
        ) from None
    sessions = load_sessions(SAMPLE_MARKET)
    return {
        symbol: tidy(
            adjusted(getattr(stocks, symbol)),
            source="bokeh_sampledata",
            symbol=symbol,
            interval=SAMPLE_INTERVAL,
            market=SAMPLE_MARKET,
            sessions=sessions,
        )
        for symbol in SAMPLE_SYMBOLS
    }


def adjusted(series: dict[str, Any]) -> RawBars:
    """Bars as traded, with an `adj_close` beside them, made comparable over time."""
    ratio = np.asarray(series["adj_close"], dtype=np.float64) / np.asarray(series["close"], dtype=np.float64)
    prices = [np.asarray(series[name], dtype=np.float64) * ratio for name in ("open", "high", "low", "close")]
    volume = np.asarray(series["volume"], dtype=np.float64) / ratio
    dates = np.asarray(series["date"], dtype="datetime64[D]").astype("datetime64[ns]").astype(np.int64)
    note = "prices times adj_close / close, volume divided by it"
    return RawBars(Stamps(dates, None), np.column_stack([*prices, volume]), None, "row", 0, [note])
