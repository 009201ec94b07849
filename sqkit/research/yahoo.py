"""Bars from Yahoo through yfinance, an optional extra.

`sqkit data fetch SYMBOL` calls `fetch_yahoo` and then `store_bars`. yfinance is imported on
the first call only; tests hand in recorded frames instead of its `download`.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import pandas as pd

from sqkit.bars import INTERVAL_MINUTES
from sqkit.errors import BarsError, BarsNotFound, UsageError
from sqkit.research.barchecks import PRICES
from sqkit.research.barformats import RawBars
from sqkit.research.barstamps import Stamps
from sqkit.research.bartidy import Loaded, tidy
from sqkit.sessions import SessionTable, load_sessions

_SUFFIX: Final = ".NS"
_REACH: Final = {"1d": "any date", "5m": "the last 60 days", "1m": "the last 30 days, at most 8 at a time"}

_LONGEST: Final = {"1d": "max", "5m": "60d", "1m": "7d"}
_BEGINNING: Final = "1970-01-02"


def yahoo_market(symbol: str) -> str:
    """The market a Yahoo symbol belongs to, by its spelling."""
    if symbol.upper().endswith(_SUFFIX):
        return "nse"
    if symbol.startswith("^"):
        return "nse_index" if symbol.upper().startswith(("^NSE", "^CNX")) else "us_index"
    return "us"


def fetch_yahoo(
    symbol: str,
    *,
    interval: str = "1d",
    start: str | dt.date = "",
    end: str | dt.date = "",
    market: str = "",
    download: Callable[..., Any] | None = None,
    sessions: SessionTable | None = None,
) -> Loaded:
    """Fetch split- and dividend-adjusted bars.

    Parameters
    ----------
    symbol
        Yahoo's spelling; the suffix of the NSE is left off in the result.
    start, end
        First and last session date, both included; all that Yahoo has where neither is given.
    market
        By the symbol's spelling when empty.
    download
        Stands in for ``yfinance.download``.

    Raises
    ------
    BarsNotFound
        Yahoo has no bars for that symbol and window, or cannot be reached.
    """
    if interval not in INTERVAL_MINUTES:
        raise UsageError(f"interval {interval!r} is unknown; choose one of {', '.join(INTERVAL_MINUTES)}")
    first, last = _date(start), _date(end)
    if first and last and last < first:
        raise UsageError(f"the window ends ({last}) before it starts ({first}); swap the two dates")
    market = market or yahoo_market(symbol)
    frame = _ask(download or _yfinance_download(), symbol, interval, first, last)
    name = symbol[: -len(_SUFFIX)] if symbol.upper().endswith(_SUFFIX) else symbol
    raw, empty = _raw_bars(frame, symbol)
    loaded = tidy(
        raw,
        source=f"Yahoo {symbol}",
        symbol=name,
        interval=interval,
        market=market,
        sessions=sessions or load_sessions(market),
    )
    loaded.report.notes.append("adjusted for splits and dividends by Yahoo")
    if empty:
        loaded.report.dropped["rows without any price"] = empty
    return loaded


def _yfinance_download() -> Callable[..., Any]:
    try:
        import yfinance
    except ImportError:
        raise BarsError("fetching from Yahoo needs yfinance; run: pip install 'sqkit[yahoo]'") from None
    download: Callable[..., Any] = yfinance.download
    return download


def _ask(
    download: Callable[..., Any], symbol: str, interval: str, first: dt.date | None, last: dt.date | None
) -> Any:
    window: dict[str, str] = {"start": first.isoformat()} if first else {}
    if last:  # Yahoo's end is excluded
        window = {"start": _BEGINNING, **window, "end": (last + dt.timedelta(days=1)).isoformat()}
    try:
        with _quiet():
            frame = download(
                symbol,
                **(window or {"period": _LONGEST[interval]}),
                interval=interval,
                auto_adjust=True,
                progress=False,
                threads=False,
            )
    except Exception as problem:  # noqa: BLE001 - yfinance lets every network library's errors through
        reason = str(problem).strip().splitlines()[0] if str(problem).strip() else type(problem).__name__
        raise BarsNotFound(f"Yahoo, {symbol}: {reason}; check the network and try again") from None
    if frame is None or not len(frame):
        span = f"from {first or 'the beginning'} to {last or 'now'}"
        raise BarsNotFound(
            f"Yahoo has no {interval} bars of {symbol} {span}, or cannot be reached; check the spelling, the "
            f"window and the network ({interval} bars reach back to {_REACH[interval]})"
        )
    return frame


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """yfinance logs and warns about what is then said in one line of ours."""
    logger = logging.getLogger("yfinance")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _raw_bars(frame: pd.DataFrame, symbol: str) -> tuple[RawBars, int]:
    """A frame of yfinance as raw bars, and the number of rows Yahoo left without any price."""
    table = frame.copy()
    if isinstance(table.columns, pd.MultiIndex):
        table.columns = table.columns.get_level_values(
            0 if "Close" in table.columns.get_level_values(0) else 1
        )
    table.columns = [str(name).lower() for name in table.columns]
    missing = [name for name in PRICES if name not in table.columns]
    if missing:
        raise BarsNotFound(f"Yahoo, {symbol}: the answer lacks {', '.join(missing)}; try again later")
    empty = table[list(PRICES)].isna().all(axis=1)
    table = table[~empty]
    if table.empty:
        raise BarsNotFound(f"Yahoo, {symbol}: rows without any price only; choose another window")
    index = pd.DatetimeIndex(table.index)
    wall = np.asarray(index.tz_localize(None).as_unit("ns").asi8)
    offset = None if index.tz is None else wall - index.tz_convert("UTC").tz_localize(None).as_unit("ns").asi8
    volume = table["volume"] if "volume" in table.columns else np.nan
    ohlcv = table[list(PRICES)].assign(volume=volume).to_numpy(np.float64)
    return RawBars(Stamps(wall, offset), ohlcv, None, "row", 0), int(empty.sum())


def _date(value: str | dt.date) -> dt.date | None:
    if not value or isinstance(value, dt.date):
        return value or None
    try:
        return dt.date.fromisoformat(value)
    except ValueError:
        raise UsageError(f"{value!r} is no date; write it as YYYY-MM-DD") from None
