"""Which column of a file plays which part, and its cells as numbers.

`barformats.py` calls this for text and Parquet alike: `roles` goes by the header's names,
`roles_by_content` by what the columns of a file without header hold, `numbers` turns
written cells into float64.
"""

from __future__ import annotations

import re
from typing import Final

import numpy as np
import pandas as pd

from sqkit.errors import BarsFormatRefused
from sqkit.research.barstamps import TIME_ONLY, looks_like_date

PRICES: Final = ("open", "high", "low", "close")
NAMES: Final[dict[str, tuple[str, ...]]] = {
    "timestamp": ("timestamp", "datetime", "ts", "bartime", "date", "tradedate", "tradingdate", "date1", "day", "time"),
    "time": ("time", "tradetime", "bartime"),
    "symbol": ("symbol", "ticker", "tradingsymbol", "tckrsymb", "scrip", "instrument"),
    "open": ("open", "o", "openprice", "opnpric"),
    "high": ("high", "h", "highprice", "hghpric"),
    "low": ("low", "l", "lowprice", "lwpric"),
    "close": ("close", "c", "closeprice", "clspric"),
    "volume": ("volume", "vol", "v", "totaltradedquantity", "tottrdqty", "ttltradgvol", "ttltrdqnty", "quantity", "qty"),
}  # fmt: skip
_DATE_ONLY: Final = ("date", "tradedate", "tradingdate", "date1", "day")
_THOUSANDS: Final = re.compile(r"-?\d{1,3}(?:,\d{2,3})*,\d{3}(?:\.\d+)?")
_SAMPLE_ROWS: Final = 500
_SHAPE_SHARE: Final = 0.99


def roles(names: list[str], place: str) -> tuple[dict[str, int], list[str]]:
    """Position of the column that plays each part, by its name, and notes.

    Raises
    ------
    BarsFormatRefused
        There is no time column, or a price is missing.
    """
    shortened = [plain(name) for name in names]
    found: dict[str, int] = {}
    for role, known in NAMES.items():
        for name in known:
            if name in shortened and shortened.index(name) not in found.values():
                found[role] = shortened.index(name)
                break
    if "timestamp" not in found:
        nameless = [i for i, name in enumerate(shortened) if name in {"", "unnamed0", "index", "indexlevel0"}]
        if nameless:
            found["timestamp"] = nameless[0]
    if "time" in found and shortened[found["timestamp"]] not in _DATE_ONLY:
        del found["time"]
    missing = [role for role in ("timestamp", *PRICES) if role not in found]
    if missing:
        shown = ", ".join(name for name in names if name) or "nothing"
        if missing == ["open", "high", "low"]:
            raise BarsFormatRefused(
                f"{place}: holds closing prices only (columns {shown}); bars need open, high, low and close, "
                "use a file with all four"
            )
        raise BarsFormatRefused(
            f"{place}: no column for {', '.join(missing)} (found {shown}); "
            "rename columns to timestamp, open, high, low, close, volume"
        )
    ignored = [name for at, name in enumerate(names) if name and at not in found.values()]
    return found, [f"columns not used: {', '.join(ignored)}"] if ignored else []


def roles_by_content(table: pd.DataFrame, place: str) -> tuple[dict[str, int], list[str]]:
    """Columns of a file without header: [symbol,] date [, time], then open, high, low, close, more."""
    sample = table.head(_SAMPLE_ROWS)
    found: dict[str, int] = {}
    numeric: list[int] = []
    for column in range(table.shape[1]):
        cells = sample[column].str.strip()
        if "timestamp" not in found and looks_like_date(cells):
            found["timestamp"] = column
        elif "time" not in found and not numeric and cells.map(TIME_ONLY.match).notna().all():
            found["time"] = column
        elif cells.map(is_number).all():
            numeric.append(column)
        elif "symbol" not in found and not cells.map(is_number).any() and cells.ne("").all():
            found["symbol"] = column
    advice = "add a header line: timestamp,open,high,low,close,volume"
    if "timestamp" not in found or len(numeric) < 4:
        raise BarsFormatRefused(f"{place}: no header, and not a date with four prices; {advice}")
    found.update(zip(PRICES, numeric[:4], strict=True))
    opens, highs, lows, closes = (sample[column].astype(float) for column in numeric[:4])
    shaped = (highs >= np.maximum(opens, closes)) & (lows <= np.minimum(opens, closes))
    if shaped.mean() < _SHAPE_SHARE:
        raise BarsFormatRefused(
            f"{place}: no header, and columns {[n + 1 for n in numeric[:4]]} are not open, high, low, close; {advice}"
        )
    notes = [f"no header: columns {[n + 1 for n in numeric[:4]]} read as open, high, low, close"]
    volume, why = _volume_column(sample, numeric[4:], (highs + lows) / 2)
    if volume is not None:
        found["volume"] = volume
        notes.append(f"column {volume + 1} read as volume{why}")
    return found, notes


def _volume_column(sample: pd.DataFrame, extras: list[int], price: pd.Series) -> tuple[int | None, str]:
    """The traded quantity among the numbers after the prices; a turnover (quantity x price) gives it away."""
    for turnover in extras:
        for quantity in extras:
            traded = sample[quantity].astype(float)
            ratio = sample[turnover].astype(float) / traded.where(traded > 0)
            if turnover != quantity and ratio.notna().any() and abs((ratio / price).median() - 1) < 0.02:
                return quantity, f", since column {turnover + 1} is price times it"
    return (extras[0], "") if extras else (None, "")


def numbers(values: pd.Series, role: str, place: str, row_word: str, first_row: int) -> np.ndarray:
    """Cells as float64, NaN where empty; thousands separators are understood, anything else refused."""
    if pd.api.types.is_numeric_dtype(values):
        return values.to_numpy(dtype=np.float64, na_value=np.nan)
    written = values.astype("str").str.strip()
    grouped = written.str.contains(",", regex=False)
    if grouped.any():
        ungrouped = written[grouped].map(
            lambda cell: cell.replace(",", "") if _THOUSANDS.fullmatch(cell) else cell
        )
        written = written.where(~grouped, ungrouped)
    empty = written.str.lower().isin({"", "nan", "na", "n/a", "null", "none", "-"})
    values_read = pd.to_numeric(written.where(~empty, "nan"), errors="coerce")
    wrong = values_read.isna() & ~empty
    if wrong.any():
        at = int(np.argmax(wrong.to_numpy()))
        raise BarsFormatRefused(
            f"{place}, {row_word} {first_row + at}: {role} is {written.iloc[at]!r}, no number; "
            "correct it (decimal point, no unit)",
            row=first_row + at,
        )
    return values_read.to_numpy(dtype=np.float64)


def no_bars(place: str) -> BarsFormatRefused:
    """The refusal of a file without a single bar."""
    return BarsFormatRefused(f"{place}: holds no bars, at most a header; fetch or export it again")


def plain(name: str) -> str:
    """A column name in lower-case letters and digits only."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def is_number(cell: str) -> bool:
    """Whether a cell reads as a number."""
    try:
        float(cell)
    except ValueError:
        return False
    return True
