"""The bundled sample: adjusted so that its figures are comparable over time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sqkit.research.marketdata import available_symbols, load_symbol
from sqkit.research.sample import SAMPLE_SYMBOLS, bundled_sample, write_bundled_sample

stocks = pytest.importorskip("bokeh_sampledata.stocks", reason="bokeh_sampledata is not installed")


def test_sample_loads_without_an_error_and_with_every_bar(tmp_path: Path) -> None:
    """Five symbols, no bar lost, no split left, the short history as long as it is known to be."""
    folder = write_bundled_sample(tmp_path)[0].parent
    assert available_symbols(folder) == sorted(SAMPLE_SYMBOLS)
    for symbol in SAMPLE_SYMBOLS:
        bars, report = load_symbol(folder, symbol, interval="1d", market="us")
        assert len(bars) == len(getattr(stocks, symbol)["date"])
        assert report.ok
        assert not report.problems
        assert not report.dropped
        first = str(bars.session_days[:1].astype("datetime64[D]")[0])
        assert first == getattr(stocks, symbol)["date"][0]
    start, stop = bars.window(14975, 15705)  # FB, 2011-01-01 to 2012-12-31
    assert (len(bars), stop - start) == (196, 155)


def test_prices_follow_the_adjusted_close_and_traded_value_is_kept() -> None:
    """close = adj_close, the bar keeps its shape, and close x volume is what was really traded."""
    for symbol, frame in bundled_sample().items():
        raw = pd.DataFrame(getattr(stocks, symbol))
        np.testing.assert_allclose(frame["close"], raw["adj_close"], rtol=1e-12)
        np.testing.assert_allclose(frame["close"] * frame["volume"], raw["close"] * raw["volume"], rtol=1e-12)
        np.testing.assert_allclose(frame["high"] / frame["low"], raw["high"] / raw["low"], rtol=1e-12)


def test_sample_is_written_with_the_same_bytes_each_time(tmp_path: Path) -> None:
    """Two writes give identical files."""
    one, two = write_bundled_sample(tmp_path / "a"), write_bundled_sample(tmp_path / "b")
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
