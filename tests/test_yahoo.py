"""Fetching from Yahoo, on frames shaped as yfinance returns them (names and values our own)."""

from __future__ import annotations

import datetime as dt
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sqkit.errors import BarsError, BarsNotFound, BarsUnusable, UsageError
from sqkit.research.marketdata import fetch_and_store, load_symbol
from sqkit.research.yahoo import fetch_yahoo, yahoo_market
from tests.test_marketdata import bar_frame


def yahoo_frame(market: str, interval: str, ticker: str, flat: bool = False) -> pd.DataFrame:
    """Bars as `yfinance.download` returns them: price by ticker, UTC stamps, naive dates for daily bars."""
    bars = bar_frame(market, interval)
    zone = "Asia/Kolkata" if market == "nse" else "America/New_York"
    index = pd.DatetimeIndex(bars["timestamp"], name="Datetime")
    if interval == "1d":
        index = index.tz_convert(zone).tz_localize(None).rename("Date")
    fields = ["Close", "High", "Low", "Open", "Volume"]
    frame = bars[[field.lower() for field in fields]].set_axis(index)
    frame.columns = (
        fields if flat else pd.MultiIndex.from_product([fields, [ticker]], names=["Price", "Ticker"])
    )
    return frame


class Recorded:
    """Stands in for yfinance.download: gives a recorded frame and keeps what it was asked."""

    def __init__(self, answer: Any) -> None:
        self.answer, self.asked = answer, {}

    def __call__(self, ticker: str, **asked: Any) -> Any:
        self.asked = {"ticker": ticker, **asked}
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize(("market", "ticker", "name"), [("nse", "W&W.NS", "W&W"), ("us", "GLP", "GLP")])
@pytest.mark.parametrize("interval", ["1d", "5m", "1m"])
def test_fetched_bars_are_the_recorded_ones(
    flat: bool, market: str, ticker: str, name: str, interval: str
) -> None:
    """Every shape yfinance gives becomes canonical bars with the market's session dates."""
    download = Recorded(yahoo_frame(market, interval, ticker, flat))
    loaded = fetch_yahoo(ticker, interval=interval, start="2019-03-01", end="2019-03-20", download=download)
    expected = bar_frame(market, interval)
    assert (loaded.report.symbol, loaded.report.market, loaded.report.ok) == (name, market, True)
    assert (loaded.frame["timestamp"].array == expected["timestamp"].array).all()
    np.testing.assert_array_equal(loaded.frame["close"], expected["close"])
    assert download.asked["end"] == "2019-03-21"  # Yahoo's end is excluded, ours is not
    assert download.asked["auto_adjust"] is True


@pytest.mark.parametrize(
    ("start", "end", "asked"),
    [
        ("", "", {"period": "max"}),
        ("2019-03-01", "", {"start": "2019-03-01"}),
        ("", dt.date(2019, 3, 5), {"start": "1970-01-02", "end": "2019-03-06"}),
    ],
)
def test_open_windows(start: str, end: str | dt.date, asked: dict[str, str]) -> None:
    """A window may be open on either side; without one Yahoo gives all it has."""
    download = Recorded(yahoo_frame("us", "1d", "GLP"))
    fetch_yahoo("GLP", start=start, end=end, download=download)
    assert {key: download.asked[key] for key in ("period", "start", "end") if key in download.asked} == asked


def test_rows_without_any_price_are_dropped_and_counted() -> None:
    """Yahoo's empty holiday rows go and are counted; a half-empty row is refused."""
    frame = yahoo_frame("us", "1d", "GLP")
    frame.iloc[4] = np.nan
    loaded = fetch_yahoo("GLP", download=Recorded(frame))
    assert loaded.report.dropped == {"rows without any price": 1}
    frame.iloc[6, 2] = np.nan
    with pytest.raises(BarsUnusable, match="low is not a number"):
        fetch_yahoo("GLP", download=Recorded(frame))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "has no 1d bars of GLP from the beginning to now"),
        (pd.DataFrame(), "check the spelling"),
        (ConnectionError("no route\nto host"), "GLP: no route; check the network"),
        (yahoo_frame("us", "1d", "GLP").drop(columns="Low", level=0), "lacks low"),
        (yahoo_frame("us", "1d", "GLP") * np.nan, "without any price only"),
    ],
)
def test_what_yahoo_does_not_give_is_one_clear_line(answer: Any, said: str) -> None:
    """No bars, no network and an odd answer each name the symbol and what to do."""
    with pytest.raises(BarsNotFound, match=said) as refused:
        fetch_yahoo("GLP", download=Recorded(answer))
    assert "\n" not in refused.value.message


def test_bad_windows_and_intervals_are_refused_before_asking() -> None:
    """Nothing is asked for a window or interval that cannot be meant."""
    download = Recorded(None)
    for wrong in (
        {"start": "2019-03-20", "end": "2019-03-01"},
        {"start": "yesterday"},
        {"interval": "1h"},
    ):
        with pytest.raises(UsageError):
            fetch_yahoo("GLP", download=download, **wrong)  # type: ignore[arg-type]
    assert download.asked == {}


def test_without_yfinance_the_way_to_install_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named."""
    monkeypatch.setitem(sys.modules, "yfinance", None)
    with pytest.raises(BarsError, match=r"pip install 'sqkit\[yahoo\]'"):
        fetch_yahoo("GLP")


def test_the_real_download_takes_the_arguments_given() -> None:
    """The keyword names are those of the installed yfinance."""
    yfinance = pytest.importorskip("yfinance", reason="the extra sqkit[yahoo] is not installed")
    import inspect

    download = Recorded(yahoo_frame("us", "1d", "GLP"))
    fetch_yahoo("GLP", start="2019-03-01", end="2019-03-20", download=download)
    inspect.signature(yfinance.download).bind(download.asked.pop("ticker"), **download.asked)


def test_fetch_and_store(tmp_path: Path) -> None:
    """A fetched symbol lies where training finds it."""
    download = Recorded(yahoo_frame("nse", "5m", "W&W.NS"))
    stored = fetch_and_store("W&W.NS", interval="5m", data_dir=tmp_path, download=download)
    assert stored.path == tmp_path / "bars" / "5m" / "W&W.parquet"
    bars, _ = load_symbol(tmp_path / "bars" / "5m", "W&W", interval="5m", market="nse")
    assert len(bars) == stored.report.bars


@pytest.mark.parametrize(
    ("symbol", "market"), [("AB.NS", "nse"), ("^NSEI", "nse_index"), ("^GSPC", "us_index"), ("AB", "us")]
)
def test_market_by_spelling(symbol: str, market: str) -> None:
    """Yahoo's suffixes and carets name the market."""
    assert yahoo_market(symbol) == market
