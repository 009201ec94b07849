"""Files of bars in whatever form they come, read into one plain record, `RawBars`.

`marketdata.py` calls `read_raw`. Parquet and delimited text are told apart by content;
headers are recognised by name (with yfinance's three header rows), and a file without a
header by what its columns hold. Nothing is sorted, dropped or shifted here. A pickle is
refused by name and by content; nothing is ever unpickled.
"""

from __future__ import annotations

import csv
import gzip
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from sqkit.errors import BarsFormatRefused, BarsNotFound
from sqkit.research.barcolumns import (
    NAMES,
    PRICES,
    is_number,
    no_bars,
    numbers,
    plain,
    roles,
    roles_by_content,
)
from sqkit.research.barstamps import Stamps, epoch_stamps, parse_stamps

_PICKLE_NAMES: Final = (".pkl", ".pickle", ".joblib", ".p")
_HEADER_SEARCH_ROWS: Final = 10


@dataclass
class RawBars:
    """Bars as a file has them, in the file's own order.

    Attributes
    ----------
    stamps
        Wall-clock times and, where the file names a zone, its offset.
    ohlcv
        float64 (n, 5); NaN where a cell is empty; volume all NaN where there is no such column.
    symbols
        One name a row, or None where the file names none.
    row_word, first_row
        How to name row i in a message: ``f"{row_word} {first_row + i}"``.
    notes
        What was assumed or left aside.
    """

    stamps: Stamps
    ohlcv: np.ndarray
    symbols: np.ndarray | None
    row_word: str
    first_row: int
    notes: list[str] = field(default_factory=list)


def read_raw(source: str | Path, symbol: str | None = None) -> RawBars:
    """Read a file or fsspec URL of any known form.

    Parameters
    ----------
    source
        Path, or URL with a protocol that fsspec knows.
    symbol
        Which ticker to take where a table holds several side by side.

    Raises
    ------
    BarsNotFound
        There is no such file.
    BarsFormatRefused
        The file cannot be read as bars; the message says what to change.
    """
    place = str(source)
    if place.lower().endswith(_PICKLE_NAMES):
        raise BarsFormatRefused(f"{place}: a pickle is never opened; save the bars as Parquet or CSV")
    content = read_content(place)
    if content[:2] == b"\x1f\x8b":
        content = _gunzip(content, place)
    if content[:4] == b"PAR1":
        return _read_parquet(content, place)
    for magic, what in (
        (b"\x80", "looks like a pickle, which is never opened"),
        (b"PK\x03\x04", "is a zip archive or an Excel workbook"),
        (b"\xd0\xcf\x11\xe0", "is an Excel workbook"),
        (b"\x89HDF", "is an HDF5 file"),
    ):
        if content.startswith(magic):
            raise BarsFormatRefused(f"{place}: {what}; save the bars as Parquet or CSV")
    return _read_text(content, place, symbol)


def read_content(place: str) -> bytes:
    """The bytes of a local file or an fsspec URL."""
    try:
        if "://" not in place:
            return Path(place).read_bytes()
        import fsspec

        with fsspec.open(place, "rb") as stream:
            return bytes(stream.read())
    except FileNotFoundError:
        raise BarsNotFound(f"{place}: no such file; check the path") from None
    except IsADirectoryError:
        raise BarsFormatRefused(f"{place}: is a folder; name one file in it") from None
    except ImportError as problem:
        raise BarsFormatRefused(f"{place}: {problem}; install that package or copy the file here") from None
    except Exception as problem:  # noqa: BLE001 - every protocol of fsspec has errors of its own
        raise BarsFormatRefused(
            f"{place}: cannot be read ({' '.join(str(problem).split())}); check the address and its rights"
        ) from None


def _gunzip(content: bytes, place: str) -> bytes:
    try:
        return gzip.decompress(content)
    except (OSError, EOFError) as problem:
        raise BarsFormatRefused(f"{place}: damaged gzip file ({problem}); fetch it again") from None


def _read_parquet(content: bytes, place: str) -> RawBars:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(io.BytesIO(content))
    except (pyarrow.ArrowException, OSError) as problem:
        reason = str(problem).splitlines()[0]
        raise BarsFormatRefused(f"{place}: damaged Parquet file ({reason}); fetch it again") from None
    columns, notes = roles([str(name) for name in table.column_names], place)
    if table.num_rows == 0:
        raise no_bars(place)
    dates = table.column(columns["timestamp"])
    times = table.column(columns["time"]).cast("string").to_pandas() if "time" in columns else None
    stamps = _arrow_stamps(dates, times, place)
    ohlcv = np.full((table.num_rows, 5), np.nan)
    for position, role in enumerate((*PRICES, "volume")):
        if role in columns:
            values = table.column(columns[role]).to_pandas()
            ohlcv[:, position] = numbers(values, role, place, "row", 0)
    symbols = table.column(columns["symbol"]).cast("string").to_pandas() if "symbol" in columns else None
    notes += [stamps.note] if stamps.note else []
    names = None if symbols is None else symbols.fillna("").to_numpy(dtype=object)
    return RawBars(stamps, ohlcv, names, "row", 0, notes)


def _arrow_stamps(dates: Any, times: pd.Series | None, place: str) -> Stamps:
    import pyarrow.types

    kind = dates.type
    if dates.null_count:
        at = int(np.argmax(dates.is_null().to_numpy()))
        raise BarsFormatRefused(f"{place}, row {at}: no timestamp; correct or delete the row", row=at)
    if pyarrow.types.is_timestamp(kind) or pyarrow.types.is_date(kind):
        index = pd.DatetimeIndex(dates.to_pandas())
        wall = index.tz_localize(None).as_unit("ns").asi8
        if index.tz is None:
            return Stamps(wall, None)
        return Stamps(wall, wall - index.tz_convert("UTC").tz_localize(None).as_unit("ns").asi8)
    if pyarrow.types.is_integer(kind):
        values = dates.to_numpy()
        if len(str(int(values.max()))) >= 10:
            return epoch_stamps(values)
    return parse_stamps(dates.cast("string").to_pandas().astype("str"), times, place, 0)


def _read_text(content: bytes, place: str, symbol: str | None) -> RawBars:
    text, notes = _decode(content)
    lines = text.splitlines()
    if not any(line.strip() for line in lines):
        raise no_bars(place)
    delimiter = _delimiter(lines)
    head = list(csv.reader(lines[:_HEADER_SEARCH_ROWS], delimiter=delimiter, skipinitialspace=True))
    header = _header(head, place, symbol)
    table = _table(lines[header.lines :], delimiter, max(len(row) for row in head), place)
    if table.empty:
        raise no_bars(place)
    _refuse_wider_lines(table, header, place)
    columns, more = roles(header.names, place) if header.names else roles_by_content(table, place)
    return _text_bars(table, columns, header, place, notes + header.notes + more)


@dataclass(frozen=True)
class _Header:
    """Column names (empty without a header), lines before the first bar, and a ticker named there."""

    names: list[str]
    lines: int
    ticker: str
    notes: list[str]


def _text_bars(
    table: pd.DataFrame, columns: dict[str, int], header: _Header, place: str, notes: list[str]
) -> RawBars:
    first_line = header.lines + 1
    times = table[columns["time"]] if "time" in columns else None
    stamps = parse_stamps(table[columns["timestamp"]], times, place, first_line)
    ohlcv = np.full((len(table), 5), np.nan)
    for position, role in enumerate((*PRICES, "volume")):
        if role in columns:
            ohlcv[:, position] = numbers(table[columns[role]], role, place, "line", first_line)
    symbols = table[columns["symbol"]].str.strip().to_numpy(dtype=object) if "symbol" in columns else None
    if header.ticker:
        symbols = np.full(len(table), header.ticker, dtype=object)
    if stamps.note:
        notes.append(stamps.note)
    return RawBars(stamps, ohlcv, symbols, "line", first_line, notes)


def _refuse_wider_lines(table: pd.DataFrame, header: _Header, place: str) -> None:
    """More cells than the header names (an unquoted 1,234.5, say) would shift every price."""
    extra = table.iloc[:, len(header.names) :] if header.names else table.iloc[:, :0]
    wider = (extra.to_numpy() != "").any(axis=1)
    if wider.any():
        line = header.lines + 1 + int(np.argmax(wider))
        raise BarsFormatRefused(
            f"{place}: not a regular table (line {line} has more cells than the header); quote numbers with "
            "commas or correct that line",
            line=line,
        )


def _decode(content: bytes) -> tuple[str, list[str]]:
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16"), []
    try:
        return content.decode("utf-8-sig"), []
    except UnicodeDecodeError:
        return content.decode("latin-1"), ["not UTF-8: read as Latin-1"]


def _delimiter(lines: list[str]) -> str:
    sample = [line for line in lines[:_HEADER_SEARCH_ROWS] if line.strip()]
    return max(",;\t|", key=lambda mark: sorted(line.count(mark) for line in sample)[len(sample) // 2])


def _header(head: list[list[str]], place: str, symbol: str | None) -> _Header:
    """Find the header among the first lines; what stands above it is no bar."""
    known = {name for names in NAMES.values() for name in names}
    for at, row in enumerate(head):
        cells = [cell.strip() for cell in row]
        if any(is_number(cell) for cell in cells):
            break
        below = head[at + 1] if len(head) > at + 1 else []
        first_cells = {cells[0].lower(), below[0].strip().lower()} if cells and below else set()
        if first_cells == {"price", "ticker"}:
            return _yfinance_header(head, at, place, symbol)
        if len({plain(cell) for cell in cells} & known) >= 2:
            notes = [f"{at} line(s) above the header skipped"] if at else []
            return _Header(cells, at + 1, "", notes)
    return _Header([], 0, "", [])


def _yfinance_header(head: list[list[str]], at: int, place: str, symbol: str | None) -> _Header:
    """Two or three header rows: field names, tickers, and a row that names the time column only."""
    rows = {row[0].strip().lower(): [cell.strip() for cell in row[1:]] for row in head[at : at + 2]}
    third = head[at + 2] if len(head) > at + 2 else []
    has_third = bool(third) and not any(cell.strip() for cell in third[1:])
    tickers = sorted(set(rows["ticker"]) - {""})
    wanted = tickers[0] if len(tickers) == 1 else symbol
    if wanted not in tickers:
        raise BarsFormatRefused(
            f"{place}: holds {len(tickers)} symbols side by side ({', '.join(tickers[:5])}); name one as symbol"
        )
    pairs = zip(rows["price"], rows["ticker"], strict=False)
    names = ["timestamp", *(name if ticker == wanted else "" for name, ticker in pairs)]
    lines = at + (3 if has_third else 2)
    return _Header(names, lines, wanted, [f"header of {lines - at} rows, as yfinance writes it"])


def _table(lines: list[str], delimiter: str, width: int, place: str) -> pd.DataFrame:
    if not any(line.strip() for line in lines):
        return pd.DataFrame()
    try:
        return pd.read_csv(
            io.StringIO("\n".join(lines)),
            sep=delimiter,
            header=None,
            names=list(range(width)),
            dtype=str,
            keep_default_na=False,
            skipinitialspace=True,
            skip_blank_lines=True,
        ).fillna("")
    except pd.errors.ParserError as problem:
        reason = str(problem).strip().splitlines()[-1]
        raise BarsFormatRefused(f"{place}: not a regular table ({reason}); correct that line") from None
