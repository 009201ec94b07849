"""What goes into a feature computation and what comes out, in the two forms either has.

`sqkit.research.lookahead` asks a `Series` for the same bars without their end, or with other prices
and volumes at some places; `TableOf` makes a user's function of a frame give numbers. Every call gives new memory: a computation may keep or overwrite
what it was given and harms nobody.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

import numpy as np
import pandas as pd

from sqkit.bars import VOLUME, BarArrays
from sqkit.errors import FeatureSetRefused, SqkitError, UsageError
from sqkit.records import iso_instant
from sqkit.research.bartidy import COLUMNS
from sqkit.sessions import load_sessions

PRICES_AND_VOLUME: Final = COLUMNS[2:]
_ROWS_AFTER_END: Final = 8


class Series(Protocol):
    """Bars of one symbol that can be cut and changed."""

    def __len__(self) -> int:
        """Number of bars."""

    def given(self) -> Any:
        """The bars as the computation takes them, in memory of their own."""

    def cut(self, stop: int) -> Series:
        """The first `stop` bars."""

    def changed(self, rows: np.ndarray, generator: np.random.Generator) -> Series:
        """Other prices and volumes at `rows`, int (m,); times and sessions stay."""

    def instant(self, row: int) -> str:
        """Start of a bar, ISO text."""

    def gaps(self) -> np.ndarray:
        """Rows at which a price or the volume is absent, int (m,)."""

    def breaks(self) -> np.ndarray:
        """Rows before which more time passes than usual, such as a night; int (m,)."""


def series_of(rows: BarArrays | pd.DataFrame | Series) -> Series:
    """Bars in the form they have.

    Raises
    ------
    UsageError
        A frame lacks a canonical column, its prices are no numbers, or its timestamps are not
        in order.
    """
    if isinstance(rows, BarArrays):
        return BarSeries(rows)
    if isinstance(rows, pd.DataFrame):
        return FrameSeries(_canonical(rows))
    return rows


@dataclass(frozen=True)
class BarSeries:
    """`BarArrays` that can be cut and changed."""

    bars: BarArrays

    def __len__(self) -> int:
        return len(self.bars)

    def given(self) -> BarArrays:
        """A copy whose memory goes on after the last bar: a compiled step that reads past its row finds NaN."""
        rows = np.full((len(self.bars) + _ROWS_AFTER_END, self.bars.rows.shape[1]), np.nan)
        rows[: len(self.bars)] = self.bars.rows
        return replace(self.bars, rows=rows[: len(self.bars)])

    def cut(self, stop: int) -> BarSeries:
        """The first `stop` bars."""
        return BarSeries(self.bars.slice(0, stop))

    def changed(self, rows: np.ndarray, generator: np.random.Generator) -> BarSeries:
        """Other prices and volumes at `rows`."""
        values = self.bars.rows.copy()
        values[rows, : VOLUME + 1] = _other_bars(values[rows, : VOLUME + 1], generator)
        return BarSeries(replace(self.bars, rows=values))

    def instant(self, row: int) -> str:
        """Start of a bar."""
        return iso_instant(int(self.bars.timestamp_ns[row]))

    def gaps(self) -> np.ndarray:
        """Rows without a price or volume."""
        return np.flatnonzero(np.isnan(self.bars.rows[:, : VOLUME + 1]).any(axis=1))

    def breaks(self) -> np.ndarray:
        """Rows after a night or a hole."""
        return _after_breaks(self.bars.timestamp_ns)


@dataclass(frozen=True)
class FrameSeries:
    """A pandas frame of canonical bars that can be cut and changed."""

    frame: pd.DataFrame

    def __len__(self) -> int:
        return len(self.frame)

    def given(self) -> pd.DataFrame:
        """A deep copy."""
        return self.frame.copy(deep=True)

    def cut(self, stop: int) -> FrameSeries:
        """The first `stop` bars."""
        return FrameSeries(self.frame.iloc[:stop])

    def changed(self, rows: np.ndarray, generator: np.random.Generator) -> FrameSeries:
        """Other prices and volumes at `rows`; integer columns stay integer."""
        names = list(PRICES_AND_VOLUME)
        values = self.frame[names].to_numpy(np.float64, na_value=np.nan).copy()
        values[rows] = _other_bars(values[rows], generator)
        frame = self.frame.copy(deep=True)
        for place, name in enumerate(names):
            changed = pd.Series(values[:, place], index=frame.index)
            whole = pd.api.types.is_integer_dtype(frame[name].dtype)
            frame[name] = changed.round().astype(frame[name].dtype) if whole else changed
        return FrameSeries(frame)

    def instant(self, row: int) -> str:
        """Start of a bar, in UTC."""
        stamp = pd.Timestamp(self.frame["timestamp"].iloc[row])
        return iso_instant(stamp.tz_convert("UTC").as_unit("ns").value)

    def gaps(self) -> np.ndarray:
        """Rows without a price or volume."""
        return np.flatnonzero(self.frame[list(PRICES_AND_VOLUME)].isna().to_numpy().any(axis=1))

    def breaks(self) -> np.ndarray:
        """Rows after a night or a hole."""
        return _after_breaks(pd.DatetimeIndex(self.frame["timestamp"]).as_unit("ns").asi8)


def frame_of(bars: BarArrays) -> pd.DataFrame:
    """Canonical columns of a series; timestamps in the market's zone, so that a calendar day is a session."""
    stamps = pd.DatetimeIndex(bars.timestamp_ns.astype("datetime64[ns]")).tz_localize("UTC")
    return pd.DataFrame(
        {
            "timestamp": stamps.tz_convert(load_sessions(bars.market).zone),
            "symbol": bars.symbol,
            **{name: bars.rows[:, place] for place, name in enumerate(PRICES_AND_VOLUME)},
        },
        columns=list(COLUMNS),
    )


@dataclass(frozen=True)
class TableOf:
    """A function of a frame as a computation of numbers, its columns always in the same order."""

    function: Callable[[pd.DataFrame], Any]
    names: list[str] = field(default_factory=list)

    def column_names(self, series: Series) -> list[str]:
        """What the function computes, from a run on all bars."""
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                made = self._features(series.given())
        except SqkitError:
            raise
        except Exception as problem:
            said = " ".join(str(problem).split())[:200]
            raise FeatureSetRefused(
                f"look-ahead check: the function raises {type(problem).__name__} on {len(series)} bars: {said}; "
                "mend it there first"
            ) from problem
        self.names.extend(str(name) for name in made.columns)
        return self.names

    def __call__(self, frame: pd.DataFrame) -> np.ndarray:
        made = self._features(frame)
        if list(map(str, made.columns)) != self.names:
            absent = sorted(set(self.names) ^ set(map(str, made.columns))) or self.names[:1]
            raise FeatureSetRefused(
                f"look-ahead check: on {len(frame)} bars column {absent[0]!r} is not where it is on all bars; "
                "the columns must not depend on the data"
            )
        return made.to_numpy(np.float64, na_value=np.nan)

    def _features(self, frame: pd.DataFrame) -> pd.DataFrame:
        index, bars = frame.index, len(frame)
        made = self.function(frame)
        if isinstance(made, pd.Series):
            made = made.to_frame(str(made.name or "feature"))
        if not isinstance(made, pd.DataFrame):
            raise FeatureSetRefused(
                f"look-ahead check: the function gives {type(made).__name__}, not a pandas DataFrame"
            )
        if len(made) != bars:
            raise FeatureSetRefused(
                f"look-ahead check: the function gives {len(made)} rows for {bars} bars; give one row a bar "
                "and leave NaN in place (no dropna())"
            )
        if made.index.is_unique and not made.index.equals(index) and made.index.isin(index).all():
            made = made.reindex(index)
        made = made.drop(columns=[name for name in ("timestamp", "symbol") if name in made.columns])
        if made.columns.has_duplicates or not len(made.columns):
            raise FeatureSetRefused(
                "look-ahead check: the function gives no column, or two of one name; name each column once"
            )
        for name, kind in made.dtypes.items():
            if not (pd.api.types.is_numeric_dtype(kind) or pd.api.types.is_bool_dtype(kind)):
                raise FeatureSetRefused(
                    f"look-ahead check: column {name!r} holds {kind}, not numbers; leave it out or make it numbers"
                )
        return made


def _canonical(frame: pd.DataFrame) -> pd.DataFrame:
    absent = [name for name in COLUMNS if name not in frame.columns]
    if absent:
        raise UsageError(f"bars: column {absent[0]!r} is absent; give the columns {', '.join(COLUMNS)}")
    if not isinstance(frame["timestamp"].dtype, pd.DatetimeTZDtype):
        raise UsageError("bars: timestamp has no zone; make it with pandas.to_datetime(..., utc=True)")
    if not frame["timestamp"].is_monotonic_increasing:
        raise UsageError("bars: timestamps are not in order; sort by timestamp, one symbol at a time")
    for name in PRICES_AND_VOLUME:
        if not pd.api.types.is_numeric_dtype(frame[name].dtype):
            raise UsageError(f"bars: column {name!r} holds {frame[name].dtype}, not numbers")
    return frame


def _after_breaks(stamps_ns: np.ndarray) -> np.ndarray:
    steps = np.diff(stamps_ns)
    return np.flatnonzero(steps > 1.5 * np.median(steps)) + 1 if len(steps) else np.empty(0, np.int64)


def _other_bars(ohlcv: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Bars as different as they can be and still be bars: other level, body, wicks and volume; (m, 5)."""
    count = len(ohlcv)
    level = np.exp(generator.choice([-1.0, 1.0], count) * generator.uniform(0.05, 0.4, count))
    body = ohlcv[:, [0, 3]] * level[:, None] * np.exp(generator.uniform(-0.03, 0.03, (count, 2)))
    other = np.empty_like(ohlcv)
    other[:, 0], other[:, 3] = body[:, 0], body[:, 1]
    other[:, 1] = np.fmax(body[:, 0], body[:, 1]) * np.exp(generator.uniform(0.0, 0.03, count))
    other[:, 2] = np.fmin(body[:, 0], body[:, 1]) * np.exp(-generator.uniform(0.0, 0.03, count))
    other[:, 4] = np.round(ohlcv[:, 4] * np.exp(generator.uniform(-1.5, 1.5, count))) + 1.0
    other[:, 4] += generator.integers(0, 1000, count)
    other[np.isnan(ohlcv)] = np.nan  # what the source lacks stays absent
    return other
