"""The runs behind the look-ahead check: on all bars, on cut bars, on bars with another future.

`sqkit.research.lookahead` decides where to cut and change; `Search` runs the computation there,
compares it with the run on all bars and remembers what moved. Where columns fail, it looks closer:
the first row concerned, neighbouring stops, single changed bars.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from sqkit.errors import FeatureSetRefused, SqkitError
from sqkit.research.lookahead_causes import Cause, Response, Sightings, likely_cause
from sqkit.research.lookahead_series import Series

SHORT: Final = 512
"""A computation may refuse to run on this many bars or fewer."""

STRETCH: Final = 4096
"""Bars of the cheap runs."""

_ANCHORS: Final = 4
_NEIGHBOURS: Final = 8
_PROBE_RUNS: Final = 4
_SCALE_ROWS: Final = 20_000

Compute = Callable[[Any], Any]


@dataclass
class Search:
    """Runs of one computation on one series, and what each of them changed.

    Attributes
    ----------
    compute, series, names, tolerance
        As `sqkit.research.lookahead.find_look_ahead` takes them.
    generator
        Of places and changed bars.
    values
        float64 (n, k), the run on all bars.
    unsteady
        bool (k,), columns that differ between two runs on all bars.
    moved
        bool (k,), columns that follow prices or volume at all.
    first_row
        int (k,), earliest row found whose value changes with later bars; n where none does.
    refused_below
        Most bars on which the computation did not run, 0 where it always did.
    cuts, changes
        Where bars were cut off, and from where on they were changed.
    """

    compute: Compute
    series: Series
    names: tuple[str, ...]
    tolerance: float
    generator: np.random.Generator
    values: np.ndarray = field(init=False)
    unsteady: np.ndarray = field(init=False)
    moved: np.ndarray = field(init=False)
    first_row: np.ndarray = field(init=False)
    refused_below: int = 0
    cuts: set[int] = field(default_factory=set)
    changes: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        width = len(self.names)
        self.values = np.empty((0, width))
        self.unsteady, self.moved = np.zeros(width, bool), np.zeros(width, bool)
        self.first_row = np.full(width, len(self.series))
        self._scale = np.zeros(width)
        self._stops: list[int] = []
        self._first: list[np.ndarray] = []
        self._changed: list[np.ndarray] = []
        self._bases: dict[int, np.ndarray] = {}

    def run_all_bars_twice(self) -> None:
        """The reference; a column that differs between two runs is out of the search."""
        self.values = self._bases[len(self.series)] = self._run(self.series)
        sizes = np.abs(self.values[:: max(1, len(self.values) // _SCALE_ROWS)])
        sizes[~np.isfinite(sizes)] = 0.0
        self._scale = np.quantile(sizes, 0.9, axis=0)
        first, _ = self._differences(self.values, self._run(self.series))
        self.unsteady = first >= 0
        self.first_row = np.where(self.unsteady, first, self.first_row)

    def cut(self, stop: int) -> None:
        """Compare with a run on the first `stop` bars alone."""
        if stop in self.cuts:
            return
        self.cuts.add(stop)
        may_refuse = stop <= min(SHORT, len(self.series) // 2)
        try:
            shorter = self._run(self.series.cut(stop))
        except FeatureSetRefused:
            if not may_refuse:
                raise
            self.refused_below = max(self.refused_below, stop)
            return
        # A column left empty because the data is short looks like one whose later bars are gone; changing them tells.
        empty = np.isnan(shorter).all(axis=0) & np.isfinite(self.values[:stop]).any(axis=0)
        if may_refuse and empty.any():
            shorter[:, empty] = self.values[:stop, empty]
            self.change(stop, self._bars_for(stop))
        self._note(stop, self.values[:stop], shorter)

    def change(self, start: int, bars: int) -> None:
        """Compare when the first `bars` bars are changed from `start` on."""
        self.changes.add(start)
        base = self._base(bars)
        other = self._run(self.series.cut(bars).changed(np.arange(start, bars), self.generator))
        self._note(start, base[:start], other[:start])
        self.moved |= np.any(base[start:].view(np.int64) != other[start:].view(np.int64), axis=0)

    def offending(self) -> list[int]:
        """Columns of which an earlier row changed."""
        return [
            int(column) for column in np.flatnonzero((self.first_row < len(self.series)) & ~self.unsteady)
        ]

    def pin_down_first_row(self, columns: Iterable[int]) -> None:
        """Bisect for the earliest stop that shows each column's look-ahead."""
        for column in columns:
            tried = sorted(zip(self._stops, (int(first[column]) for first in self._first), strict=True))
            high = next(stop for stop, first in tried if first >= 0)
            low = max((stop for stop, _ in tried if stop < high), default=0)
            while high - low > 1:
                middle, runs_before = (low + high) // 2, len(self._first)
                self.cut(middle)
                self.change(middle, self._bars_for(middle))
                seen = any(first[column] >= 0 for first in self._first[runs_before:])
                low, high = (low, middle) if seen else (middle, high)

    def look_closer(self, columns: list[int]) -> dict[int, Response]:
        """Stop at neighbouring bars and change single ones, on a stretch that holds several of the distances seen."""
        begin = int(self.first_row[columns].max())
        reach = {column: self.cause(column).bars_ahead or 1 for column in columns}
        bars = min(len(self.series), max(self._bars_for(2 * begin), begin + 6 * max(reach.values())))
        room = max(1, bars - begin - _NEIGHBOURS - 1)
        for anchor in range(_ANCHORS):
            place = begin + 1 + int(room * (anchor + self.generator.uniform(0.0, 1.0)) / _ANCHORS)
            for stop in range(place, min(place + _NEIGHBOURS, bars)):
                self.cut(stop)
                self.change(stop, bars)
        alike: dict[int, list[int]] = {}  # by the distance at which changed bars cannot meet
        for column in columns:
            alike.setdefault(_spacing(reach[column]), []).append(column)
        responses: dict[int, Response] = {}
        for spacing, group in sorted(alike.items()):
            responses |= self._responses(group, bars, spacing)
        return responses

    def cause(self, column: int, response: Response | None = None) -> Cause:
        """The likely cause by what was seen so far."""
        sightings = Sightings(
            np.array(self._stops),
            np.array([first[column] for first in self._first]),
            np.array([changed[column] for changed in self._changed]),
        )
        return likely_cause(sightings, self.values[:, column], response)

    def _responses(self, columns: list[int], bars: int, spacing: int) -> dict[int, Response]:
        """Which rows move when single bars far from each other are changed."""
        part, base = self.series.cut(bars), self._base(bars)
        spacing = max(2, min(spacing, bars // 2))
        lags: dict[int, set[int]] = {column: set() for column in columns}
        for _ in range(_PROBE_RUNS):
            begin = int(self.generator.integers(spacing // 2, spacing))
            places = np.arange(min(begin, bars - 1), bars, spacing)
            other = self._run(part.changed(places, self.generator))
            for column in columns:
                rows = np.flatnonzero(self._differs(column, base[:, column], other[:, column]))
                nearest = np.rint((rows - places[0]) / spacing).astype(np.int64)
                lags[column].update((rows - places[np.clip(nearest, 0, len(places) - 1)]).tolist())
        return {
            column: Response(
                np.array(sorted(found), dtype=np.int64), bool(found) and max(found) >= spacing // 2 - 1
            )
            for column, found in lags.items()
        }

    def _note(self, stop: int, base: np.ndarray, other: np.ndarray) -> None:
        first, changed = self._differences(base, other)
        first[self.unsteady] = -1
        self._stops.append(stop)
        self._first.append(first)
        self._changed.append(changed)
        self.first_row = np.where(first >= 0, np.minimum(self.first_row, first), self.first_row)

    def _differences(self, base: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Earliest changed row and number of changed rows by column; -1 and 0 for none."""
        first, changed = np.full(len(self.names), -1), np.zeros(len(self.names), np.int64)
        # Honest columns mostly keep their bits; only the others are worth a comparison of numbers.
        for column in np.flatnonzero((base.view(np.int64) != other.view(np.int64)).any(axis=0)).tolist():
            rows = self._differs(column, base[:, column], other[:, column])
            if rows.any():
                first[column], changed[column] = int(np.argmax(rows)), int(np.count_nonzero(rows))
        return first, changed

    def _differs(self, column: int, base: np.ndarray, other: np.ndarray) -> np.ndarray:
        both = np.isfinite(base) & np.isfinite(other)
        same: np.ndarray = (base == other) | (np.isnan(base) & np.isnan(other))
        gap = np.abs(base[both] - other[both])
        size = np.maximum(np.maximum(np.abs(base[both]), np.abs(other[both])), self._scale[column])
        same[both] |= gap <= self.tolerance * size
        return ~same

    def _bars_for(self, stop: int) -> int:
        """Length of a cheap run in which `stop` has a future: one of few lengths, so that few references are run."""
        return min(len(self.series), STRETCH * (1 + (stop + STRETCH // 2) // STRETCH))

    def _base(self, bars: int) -> np.ndarray:
        if bars not in self._bases:
            self._bases[bars] = self._run(self.series.cut(bars))
        return self._bases[bars]

    def _run(self, series: Series) -> np.ndarray:
        """The computation on a copy of the bars, float64 (n, k), in memory of our own."""
        where = f"on the first {len(series)} of {len(self.series)} bars"
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")  # about data we cut or changed
                values = np.array(self.compute(series.given()), dtype=np.float64, order="C", copy=True)
        except SqkitError:
            raise
        except Exception as problem:
            said = " ".join(str(problem).split())[:200]
            raise FeatureSetRefused(
                f"look-ahead check: the computation raises {type(problem).__name__} {where}: {said}; "
                "it must run on any number of bars, with NaN where it has too few"
            ) from problem
        if values.shape != (len(series), len(self.names)):
            raise FeatureSetRefused(
                f"look-ahead check: {where} the computation gives the shape {values.shape}, not "
                f"{(len(series), len(self.names))}; give one row a bar and always the same columns"
            )
        return values


def _spacing(reach: int) -> int:
    """Bars between single changed bars for columns that read so far ahead; few different ones."""
    spacing = 64
    while spacing < 8 * reach:
        spacing *= 8
    return spacing
