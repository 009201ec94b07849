"""Dates and times as files write them, turned into wall-clock nanoseconds.

`barformats.py` calls `parse_stamps` for text and `epoch_stamps` for plain numbers. A date
that can be read two ways is decided by which reading is in order and on weekdays; when
that does not decide it, the file is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from sqkit.errors import BarsFormatRefused

_SECOND_NS: Final = 1_000_000_000
_DAY_NS: Final = 86_400 * _SECOND_NS
_TIME: Final = r"\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:\s*[AaPp][Mm])?"
_ZONE: Final = r"Z|UTC|GMT|[+-]\d{2}(?::?\d{2})?"
_STAMP: Final = rf"^\s*(?P<date>.+?)(?:[T\s]+(?P<time>{_TIME})\s*(?P<zone>{_ZONE})?)?\s*$"
_CLOCK: Final = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2})(?:\.(\d+))?)?\s*([AaPp][Mm])?$")
TIME_ONLY: Final = re.compile(rf"\s*{_TIME}\s*$")

_FORMATS: Final = (
    "%Y-%m-%d",
    "%Y/%m/%d",
    "%Y.%m.%d",
    "%d-%m-%Y",
    "%m-%d-%Y",
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%d.%m.%Y",
    "%d-%m-%y",
    "%m-%d-%y",
    "%d/%m/%y",
    "%m/%d/%y",
    "%d-%b-%Y",
    "%d-%b-%y",
    "%d %b %Y",
    "%d %B %Y",
    "%b %d, %Y",
    "%B %d, %Y",
)
_DIGIT_FORMATS: Final = {
    6: ("%d%m%y", "%y%m%d", "%m%d%y"),
    8: ("%Y%m%d", "%d%m%Y", "%m%d%Y"),
}
_EPOCH_UNITS: Final = {10: _SECOND_NS, 13: 1_000_000, 16: 1_000, 19: 1}
_READING_MARGIN: Final = 0.05


@dataclass(frozen=True)
class Stamps:
    """Wall-clock times as a file writes them.

    Attributes
    ----------
    wall_ns
        int64 (n,), the written clock time as nanoseconds since 1970-01-01 00:00 on that clock.
    offset_ns
        int64 (n,), what the clock is ahead of UTC; None where the file names no zone.
    note
        How the dates were read, when that was a choice.
    """

    wall_ns: np.ndarray
    offset_ns: np.ndarray | None
    note: str = ""


def parse_stamps(dates: pd.Series, times: pd.Series | None, place: str, first_line: int) -> Stamps:
    """Read a text column of dates (with or without time), and a column of times if there is one.

    Parameters
    ----------
    dates, times
        Text as written.
    place, first_line
        File name and line of the first row, for messages.

    Raises
    ------
    BarsFormatRefused
        A value is no date, the zone is written in some rows only, or dates can be read two ways.
    """
    written = dates.str.strip()
    if written.str.fullmatch(r"\d{10}|\d{13}|\d{16}|\d{19}").all():
        return epoch_stamps(written.astype("int64").to_numpy())
    parts = written.str.extract(_STAMP)
    date_ns, note = _dates(parts["date"].fillna(""), place, first_line)
    clock = parts["time"] if times is None else times.str.strip()
    wall_ns = date_ns + _by_unique(clock, _clock_ns, place, first_line)
    if times is not None or parts["zone"].isna().all():
        return Stamps(wall_ns, None, note)
    if parts["zone"].isna().any():
        at = int(np.argmax(parts["zone"].isna()))
        raise BarsFormatRefused(
            f"{place}, line {first_line + at}: {written.iloc[at]!r} has no zone but other lines have; "
            "write the offset in every line"
        )
    return Stamps(wall_ns, _by_unique(parts["zone"], _offset_ns, place, first_line), note)


def epoch_stamps(values: np.ndarray) -> Stamps:
    """Numbers of seconds, milliseconds, microseconds or nanoseconds since 1970, by their length."""
    digits = len(str(abs(int(np.max(values)))))
    unit = _EPOCH_UNITS.get(digits, _SECOND_NS)
    return Stamps(values.astype(np.int64) * unit, np.zeros(len(values), dtype=np.int64))


def looks_like_date(values: pd.Series) -> bool:
    """Whether a headerless column holds dates (or whole timestamps)."""
    written = values.str.strip()
    if written.str.fullmatch(r"\d+").all():
        lengths = set(written.str.len())
        return lengths <= {5, 6} or (len(lengths) == 1 and lengths <= {8, 10, 13, 16, 19})
    dated = r"\d{1,4}[-/. ](?:\d{1,2}|[A-Za-z]{3,9})[-/. ]\d{2,4}|[A-Za-z]{3,9} \d{1,2}, \d{4}"
    return bool(written.str.match(dated).all())


def _dates(written: pd.Series, place: str, first_line: int) -> tuple[np.ndarray, str]:
    codes, unique = pd.factorize(written)
    texts = pd.Series(unique, dtype="str")
    formats: tuple[str, ...] = _FORMATS
    if texts.str.fullmatch(r"\d{5,8}").all():
        longest = int(texts.str.len().max())
        longest += longest % 2  # 5 and 7 digits: a leading zero was lost
        texts, formats = texts.str.zfill(longest), _DIGIT_FORMATS[longest]
    readings: list[tuple[float, str, np.ndarray]] = []
    best_misses: pd.Series | None = None
    for form in formats:
        parsed = pd.to_datetime(texts, format=form, errors="coerce")
        misses = parsed.isna() | ~parsed.dt.year.between(1970, 2100)
        if best_misses is None or misses.sum() < best_misses.sum():
            best_misses = misses
        if not misses.any():
            day_ns = parsed.to_numpy().astype("datetime64[ns]").astype(np.int64)[codes]
            readings.append((_plausibility(day_ns), form, day_ns))
    if not readings:
        assert best_misses is not None
        at = int(np.argmax(best_misses.to_numpy()[codes]))
        raise BarsFormatRefused(
            f"{place}, line {first_line + at}: {written.iloc[at]!r} is no date; "
            "write dates as YYYY-MM-DD, or remove the line",
            line=first_line + at,
        )
    readings.sort(key=lambda reading: -reading[0])
    if len(readings) > 1:
        if readings[0][0] - readings[1][0] < _READING_MARGIN:
            raise BarsFormatRefused(
                f"{place}: dates like {written.iloc[0]!r} can be read as {readings[0][1]} and as "
                f"{readings[1][1]}; write them as YYYY-MM-DD"
            )
        return readings[0][2], f"dates like {written.iloc[0]!r} read as {readings[0][1]}"
    return readings[0][2], ""


def _plausibility(day_ns: np.ndarray) -> float:
    """0 to 2: how far the dates run in one direction and fall on weekdays."""
    steps = np.diff(day_ns)
    steps = steps[steps != 0]
    order = max((steps > 0).mean(), (steps < 0).mean()) if len(steps) else 0.0
    weekday = ((day_ns // _DAY_NS + 3) % 7 < 5).mean()
    return float(order + weekday)


def _by_unique(values: pd.Series, parse: object, place: str, first_line: int) -> np.ndarray:
    assert callable(parse)
    codes, unique = pd.factorize(values, use_na_sentinel=False)
    parsed = [parse(value) for value in unique]
    if None in parsed:
        at = int(np.argmax(codes == parsed.index(None)))
        raise BarsFormatRefused(
            f"{place}, line {first_line + at}: {values.iloc[at]!r} is no time of day; write it as HH:MM",
            line=first_line + at,
        )
    return np.asarray(parsed, dtype=np.int64)[codes]


def _clock_ns(text: object) -> int | None:
    if not isinstance(text, str):
        return 0
    found = _CLOCK.match(text.strip())
    if found is None:
        return None
    hour, minute, second = int(found[1]), int(found[2]), int(found[3] or 0)
    if found[5]:
        hour = hour % 12 + (12 if found[5].lower() == "pm" else 0)
    if hour > 23 or minute > 59 or second > 59:
        return None
    fraction = int((found[4] or "0").ljust(9, "0")[:9])
    return ((hour * 60 + minute) * 60 + second) * _SECOND_NS + fraction


def _offset_ns(text: object) -> int | None:
    if not isinstance(text, str):
        return None
    if text in {"Z", "UTC", "GMT"}:
        return 0
    digits = text[1:].replace(":", "").ljust(4, "0")
    minutes = int(digits[:2]) * 60 + int(digits[2:])
    return (-minutes if text[0] == "-" else minutes) * 60 * _SECOND_NS
