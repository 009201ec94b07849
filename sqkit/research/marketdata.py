"""Bars from anywhere into `BarArrays`: read, tidy, check, store, load.

The notebooks, the command line and training call this. `read_bars` takes any file, URL or
form (`barformats.py`), makes it one series of bars stamped with their START in UTC
nanoseconds, and reports everything it dropped, shifted, sorted or assumed. `import_bars`
stores it, `load_symbol` reads it back as `BarArrays`. Prices are never repaired.
"""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from sqkit.bars import INTERVAL_MINUTES, BarArrays, make_bar_arrays
from sqkit.errors import BarsError, BarsFormatRefused, BarsNotFound, BarsUnusable, UsageError
from sqkit.files import symbol_file_name, write_bytes
from sqkit.research.barchecks import CheckReport, Finding, check_bars
from sqkit.research.barformats import read_raw
from sqkit.research.bartidy import COLUMNS, Loaded, tidy
from sqkit.sessions import SessionTable, load_sessions

__all__ = [
    "COLUMNS",
    "CheckReport",
    "Finding",
    "Loaded",
    "Stored",
    "available_symbols",
    "bar_path",
    "check_bars",
    "check_file",
    "check_files",
    "fetch_and_store",
    "import_bars",
    "load_symbol",
    "load_symbols",
    "read_bars",
    "store_bars",
]

_SHOWN: Final = 12


def read_bars(
    source: str | Path,
    *,
    symbol: str | None = None,
    interval: str | None = None,
    market: str,
    sessions: SessionTable | None = None,
) -> Loaded:
    """Read a file or fsspec URL of bars and check it.

    Parameters
    ----------
    source
        Parquet or delimited text, with or without header; a path or URL.
    symbol
        What the bars are of; from the file or its name when not given.
    interval
        ``1d``, ``1m`` or ``5m``; found from the bars when not given.
    market
        One of `MARKETS`; dates without a zone are in its zone.
    sessions
        The session table; the market's own when not given.

    Raises
    ------
    BarsNotFound, BarsFormatRefused
        The file is absent or cannot be read as bars.
    BarsUnusable
        A price is not a number, bars contradict each other, symbols are mixed, or the
        interval is another one than asked.
    """
    table = sessions or load_sessions(market)
    raw = read_raw(source, symbol)
    return tidy(
        raw, source=str(source), symbol=symbol, interval=interval or "", market=market, sessions=table
    )


def check_file(
    path: str | Path,
    interval: str | None = None,
    market: str = "nse",
    symbol: str | None = None,
    sessions_file: str = "",
) -> CheckReport:
    """What `sqkit data check FILE` prints: the report of a file, which is left as it is."""
    sessions = load_sessions(market, sessions_file)
    return read_bars(path, symbol=symbol, interval=interval, market=market, sessions=sessions).report


def check_files(
    path: str | Path, interval: str | None = None, market: str = "nse", sessions_file: str = ""
) -> list[CheckReport]:
    """`check_file` for a file or for every file of a folder; a refused file is a finding, not an exception."""
    folder = Path(path)
    if folder.is_dir():
        files = sorted(one for one in folder.iterdir() if one.is_file() and not one.name.startswith("."))
        if not files:
            raise BarsNotFound(
                f"{path}: no files lie in this folder itself; name a file or a folder of files"
            )
    else:
        files = [path]  # type: ignore[list-item]
    reports = []
    for file in files:
        try:
            reports.append(check_file(file, interval, market, None, sessions_file))
        except (BarsError, UsageError) as problem:
            report = CheckReport(str(file), "", interval or "", market)
            report.problems.append(Finding("refused", "error", 1, "", problem.message))
            reports.append(report)
    return reports


def bar_path(data_dir: str | Path, interval: str, symbol: str) -> Path:
    """Where the bars of a symbol lie: ``<data_dir>/bars/<interval>/<SYMBOL>.parquet``."""
    return Path(data_dir) / "bars" / interval / symbol_file_name(symbol)


@dataclass(frozen=True)
class Stored:
    """Where bars were stored, and what was said about them on the way."""

    path: Path
    report: CheckReport


def import_bars(
    source: str | Path,
    *,
    symbol: str,
    interval: str | None = None,
    market: str = "nse",
    data_dir: str | Path = "data",
    sessions_file: str = "",
) -> Stored:
    """What `sqkit data import` does: read any file of bars and store it in its place."""
    sessions = load_sessions(market, sessions_file)
    if not symbol:
        raise UsageError("--symbol is empty; name what the bars are of")
    loaded = read_bars(source, symbol=symbol, interval=interval, market=market, sessions=sessions)
    stored = bar_path(data_dir, loaded.report.interval, loaded.report.symbol)
    if stored.is_file():
        earlier = check_file(stored, loaded.report.interval, market, symbol, sessions_file)
        loaded.report.notes.append(
            f"replaces {earlier.bars:,} stored bars, {earlier.first} to {earlier.last}"
        )
    return Stored(store_bars(loaded, data_dir), loaded.report)


def fetch_and_store(
    symbol: str,
    *,
    interval: str = "1d",
    start: str | dt.date = "",
    end: str | dt.date = "",
    market: str = "",
    data_dir: str | Path = "data",
    download: Callable[..., Any] | None = None,
) -> Stored:
    """What `sqkit data fetch` does: `yahoo.fetch_yahoo`, then store."""
    from sqkit.research.yahoo import fetch_yahoo

    loaded = fetch_yahoo(symbol, interval=interval, start=start, end=end, market=market, download=download)
    return Stored(store_bars(loaded, data_dir), loaded.report)


def store_bars(loaded: Loaded, data_dir: str | Path) -> Path:
    """Write bars atomically to `bar_path`; the same bars give the same bytes.

    Raises
    ------
    BarsUnusable
        Prices are zero, negative, or a high lies below its low.
    """
    _refuse_broken_prices(loaded.report)
    path = bar_path(data_dir, loaded.report.interval, loaded.report.symbol)
    write_bytes(path, parquet_bytes(loaded.frame))
    return path


def parquet_bytes(frame: pd.DataFrame) -> bytes:
    """Canonical columns as Parquet (zstd), without pandas' own metadata."""
    import pyarrow
    import pyarrow.parquet

    stamps = pd.DatetimeIndex(frame["timestamp"]).tz_convert("UTC").tz_localize(None).as_unit("ns").asi8
    columns = [
        pyarrow.array(stamps, type=pyarrow.timestamp("ns", tz="UTC")),
        pyarrow.array(frame["symbol"].astype("object"), type=pyarrow.string()),
        *(pyarrow.array(frame[name].to_numpy(np.float64), from_pandas=True) for name in COLUMNS[2:]),
    ]
    stream = io.BytesIO()
    table = pyarrow.Table.from_arrays(columns, names=list(COLUMNS))
    pyarrow.parquet.write_table(table, stream, compression="zstd")
    return stream.getvalue()


def available_symbols(location: str | Path) -> list[str]:
    """Symbols with a file in a folder or fsspec URL, sorted; empty where there is no such folder."""
    place = str(location)
    if "://" not in place:
        folder = Path(place)
        return sorted(file.stem for file in folder.glob("*.parquet") if not file.name.startswith("."))
    import fsspec

    try:
        system, root = fsspec.core.url_to_fs(place)
        names = [str(name).rsplit("/", 1)[-1] for name in system.ls(root, detail=False)]
    except FileNotFoundError:
        return []
    except (ImportError, ValueError, OSError) as problem:
        raise BarsFormatRefused(f"{place}: cannot be listed ({problem}); check the address") from None
    return sorted(name.removesuffix(".parquet") for name in names if name.endswith(".parquet"))


def load_symbol(
    bars_location: str | Path,
    symbol: str,
    *,
    interval: str,
    market: str,
    sessions: SessionTable | None = None,
) -> tuple[BarArrays, CheckReport]:
    """A symbol's stored bars as arrays, with the report of what was left out or doubtful.

    Parameters
    ----------
    bars_location
        Folder or fsspec URL that holds ``<SYMBOL>.parquet``.

    Raises
    ------
    BarsNotFound
        There is no such file; the message lists what is there.
    BarsUnusable
        The bars must not be used, see `read_bars`; or no bar lies inside a session.
    """
    if interval not in INTERVAL_MINUTES:
        raise UsageError(f"interval {interval!r} is unknown; choose one of {', '.join(INTERVAL_MINUTES)}")
    table = sessions or load_sessions(market)
    name = symbol_file_name(symbol)
    place = str(bars_location)
    source = f"{place.rstrip('/')}/{name}" if "://" in place else str(Path(place) / name)
    try:
        loaded = read_bars(source, symbol=symbol, interval=interval, market=market, sessions=table)
    except BarsNotFound:
        raise _not_there(place, symbol, interval, market) from None
    _refuse_broken_prices(loaded.report)
    stamps = pd.DatetimeIndex(loaded.frame["timestamp"]).tz_localize(None).as_unit("ns").asi8
    ohlcv = loaded.frame[list(COLUMNS[2:])].to_numpy(np.float64)
    bars, outside = make_bar_arrays(symbol, interval, market, stamps, ohlcv, table)
    if outside:
        loaded.report.dropped["bars outside every session"] = outside
    if not len(bars):
        raise BarsUnusable(
            f"{source}: no bar lies inside a session of {market}; check the market and the times"
        )
    return bars, loaded.report


def load_symbols(
    bars_location: str | Path, symbols: list[str], *, interval: str, market: str, sessions_file: str = ""
) -> tuple[dict[str, BarArrays], list[str]]:
    """`load_symbol` for several symbols in the order given, and a line for all that was dropped or doubtful."""
    table = load_sessions(market, sessions_file)
    loaded: dict[str, BarArrays] = {}
    lines: list[str] = []
    for symbol in symbols:
        loaded[symbol], report = load_symbol(
            bars_location, symbol, interval=interval, market=market, sessions=table
        )
        lines += [f"{symbol}: dropped {count:,} {reason}" for reason, count in report.dropped.items()]
        lines += [f"{symbol}: {finding.message}" for finding in report.problems]
    return loaded, lines


def _refuse_broken_prices(report: CheckReport) -> None:
    for finding in report.problems:
        if finding.kind in {"not_positive", "high_below_low"}:
            raise BarsUnusable(
                f"{report.source}: {finding.message}; correct or delete these rows", first=finding.first
            )


def _not_there(place: str, symbol: str, interval: str, market: str) -> BarsNotFound:
    there = available_symbols(place)
    shown = ", ".join(there[:_SHOWN]) + (f" and {len(there) - _SHOWN} more" if len(there) > _SHOWN else "")
    missing = "://" not in place and not Path(place).is_dir()
    have = f"there are {shown}" if there else "no such folder here" if missing else "there are no bars at all"
    return BarsNotFound(
        f"no bars of {symbol} in {place} ({have}); import them with: "
        f"sqkit data import FILE --symbol '{symbol}' --interval {interval} --market {market}",
        symbol=symbol,
        available=there,
    )
