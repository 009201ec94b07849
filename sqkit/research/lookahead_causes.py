"""Why does a column know the future? The pattern of the rows that changed names the likely cause.

`sqkit.research.lookahead` cut or changed the bars from a *stop* on and noted the earliest row
before it whose value changed. How that row moves with the stop tells the causes apart:

- it keeps a constant distance: a shift, or a centred window (one changed bar then moves the rows on
  both of its sides alike);
- it stays where it is while the stop moves inside a day or an hour, and jumps with the next: a
  bucket's value stamped at the bucket's start;
- it stays at the start of the series: a statistic over the whole series;
- only the first rows, all of one value, ever change: a back-filled warm-up.

Pure functions over small integer arrays; nothing is computed again here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

CENTRED_WINDOW: Final = "centred_window"
NEGATIVE_SHIFT: Final = "negative_shift"
GLOBAL_STATISTIC: Final = "global_statistic"
BACK_FILL: Final = "back_fill"
RESAMPLE_LABEL: Final = "resample_label"
NOT_REPEATABLE: Final = "not_repeatable"
UNKNOWN: Final = "unknown"

_MOST: Final = 0.6
_RARE: Final = 0.3
_FAR: Final = 0.25
_STANDS: Final = 0.1
_ABOUT: Final = 0.15


@dataclass(frozen=True)
class Cause:
    """A likely cause.

    Attributes
    ----------
    name
        One of the constants of this module.
    bars_ahead
        How many bars after its own the column reads, as far as seen; None where that has no number.
    meaning, mend
        What it is, and how to do without; half a line each.
    """

    name: str
    bars_ahead: int | None
    meaning: str
    mend: str


@dataclass(frozen=True)
class Sightings:
    """What runs with other bars from a stop on changed in one column.

    Attributes
    ----------
    stops
        int (m,), rows from which on bars were cut off or changed, in any order, repeats allowed.
    first
        int (m,), earliest row before the stop that changed; -1 where none did.
    changed
        int (m,), how many rows before the stop changed.
    """

    stops: np.ndarray
    first: np.ndarray
    changed: np.ndarray


@dataclass(frozen=True)
class Response:
    """Rows that moved when single bars were changed.

    Attributes
    ----------
    lags
        int (m,), distinct distances of a moved row from the changed bar, sorted; negative is earlier.
    endless
        Whether rows up to the end of the data moved, as those of an EMA do.
    """

    lags: np.ndarray
    endless: bool


def likely_cause(sightings: Sightings, values: np.ndarray, response: Response | None = None) -> Cause:
    """Name the cause of one column's look-ahead.

    Parameters
    ----------
    sightings
        At least one of them changed a row.
    values
        float (n,), the column over all bars.
    response
        Of single bars; without it a constant distance is taken for a shift.
    """
    stops, first, changed = _one_a_stop(sightings)
    seen = first >= 0
    stop, row = stops[seen], first[seen]
    filled = _leading_equal(values)
    if filled >= 2 and stop.max() < filled and np.any(stops[~seen] > stop.max()):
        return _back_fill(f"the first {filled - 1} rows hold a value that is known only later", filled - 1)
    if _stands_at_the_start(stop, row):
        return Cause(
            GLOBAL_STATISTIC,
            None,
            "a statistic over the whole series, such as a mean, z-score, minimum, maximum or rank",
            "use what is known at the bar: expanding() or rolling(), or numbers fitted on the training window "
            "and stored",
        )

    moving = row > row.min()  # earlier stops see the first row of all, whatever the cause
    ahead = int((stop - row).max())
    if np.mean(seen[stops > row.min()]) < _RARE and _holds_one_value(values, stop, row):
        return _back_fill("gaps are filled with the value that follows them", ahead)
    filling = changed[seen] >= _MOST * (stop - row)
    if _stands_while_stops_move(stop[moving & filling], row[moving & filling]):
        return Cause(
            RESAMPLE_LABEL,
            ahead,
            f"the value of a whole day, hour or other bucket (of {ahead + 1} bars or so) stands on its first rows",
            "stamp a bucket at its end, resample(..., label='right', closed='left') before ffill, or use the "
            "bucket before: shift(1); inside a bucket use cummax(), cummin(), cumsum()",
        )
    distance = (stop - row)[moving]
    if len(distance):
        if response is not None and _both_sides(response, distance):
            before, after = -int(response.lags.min()), int(response.lags.max())
            return Cause(
                CENTRED_WINDOW,
                before,
                f"a window of {before + after + 1} bars around the bar, {before} of them after it",
                f"use a window that ends at the bar (no center=True, no filter run both ways), or shift({before}) the result",
            )
        if np.mean(distance == distance.max()) >= 0.5:
            bars = int(distance.max())
            return Cause(
                NEGATIVE_SHIFT,
                bars,
                f"reads {bars} bar{'s' * (bars > 1)} ahead, as shift(-{bars}) does",
                f"shift the other way, shift({bars}); a move still to come is a label, never a feature",
            )
    return Cause(
        UNKNOWN,
        ahead,
        f"later bars change it, up to {ahead} bars ahead as far as seen",
        "compute it at a bar from that bar and those before it only; compare its last row on cut data with "
        "the same row on all data",
    )


def not_repeatable() -> Cause:
    """For a column that differs between two runs on the same bars."""
    return Cause(
        NOT_REPEATABLE,
        None,
        "two runs on the same bars give different values, so nothing about it can be checked",
        "seed its random numbers, and keep nothing between calls",
    )


def needs_no_profile(cause: Cause) -> bool:
    """Whether a few far stops suffice to name this cause."""
    return cause.name in (GLOBAL_STATISTIC, BACK_FILL)


def _back_fill(meaning: str, ahead: int) -> Cause:
    return Cause(
        BACK_FILL,
        ahead,
        f"back-filled: {meaning}",
        "leave NaN where nothing is known yet: drop bfill(), fill forward only",
    )


def _one_a_stop(sightings: Sightings) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct stops in order, each with the earliest row and the most rows that any of its runs changed."""
    distinct, place = np.unique(sightings.stops, return_inverse=True)
    never = np.iinfo(np.int64).max
    earliest = np.full(len(distinct), never)
    np.minimum.at(earliest, place, np.where(sightings.first < 0, never, sightings.first))
    most = np.zeros(len(distinct), np.int64)
    np.maximum.at(most, place, sightings.changed)
    return distinct, np.where(earliest == never, -1, earliest), most


def _leading_equal(values: np.ndarray) -> int:
    """How many rows from the first on hold the first's value; 0 where that is no number."""
    if not len(values) or not np.isfinite(values[0]):
        return 0
    other = np.flatnonzero(values != values[0])
    return int(other[0]) if len(other) else len(values)


def _stands_at_the_start(stop: np.ndarray, row: np.ndarray) -> bool:
    """Far stops lie far apart, and yet change the same early rows."""
    far = stop >= _FAR * stop.max()
    between = int(stop[far].max() - stop[far].min())
    if np.count_nonzero(far) < 2 or between < _FAR * stop.max():
        return False
    moved = int(row[far].max() - row[far].min())
    return moved <= _STANDS * between or bool(np.median(row[far]) <= _STANDS * np.median(stop[far]))


def _stands_while_stops_move(stop: np.ndarray, row: np.ndarray) -> bool:
    """Of two neighbouring stops both mostly change the same first row."""
    neighbours = np.flatnonzero(np.diff(stop) == 1)
    if len(neighbours) < 3:
        return False
    return bool(np.mean(row[neighbours + 1] == row[neighbours]) >= _MOST)


def _holds_one_value(values: np.ndarray, stop: np.ndarray, row: np.ndarray) -> bool:
    one = [
        bool(np.all(values[begin : end + 1] == values[begin])) for begin, end in zip(row, stop, strict=True)
    ]
    return float(np.mean(one)) > 1.0 - _RARE


def _both_sides(response: Response, distance: np.ndarray) -> bool:
    """One bar moves an unbroken stretch of rows that reaches about as far back as forward."""
    if response.endless or not len(response.lags):
        return False
    before, after = -int(response.lags.min()), int(response.lags.max())
    alone = before >= (1.0 - _ABOUT) * distance.max()  # single bars explain how far it was seen to read
    alike = before <= after <= before + 1 or abs(after - before) <= _ABOUT * before
    stretch = len(response.lags) / (before + after + 1)
    whole = stretch >= _MOST and (before > 1 or 0 in response.lags)
    return bool(before >= 1 and after >= 1 and alone and alike and whole)
