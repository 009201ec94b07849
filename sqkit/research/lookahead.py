"""Does a feature or a prediction know the future? Cut the data, change the future, compare.

A column is honest when its value at bar t stays the same whatever comes after t. So it is computed
once on all bars, then again on bars cut at sampled places (some inside the warm-up) and with other
prices and volumes from sampled bars on; rows before that place must not change. For every column that
fails, further runs on a short stretch find the first row concerned and the likely cause
(`sqkit.research.lookahead_causes`).

In: a computation and a symbol's bars. Out: `LookAheadReport`. The integrity checks of the gate and
``sqkit lookahead`` (`sqkit.research.lookahead_job`) call this. Places are sampled: a pass is no proof.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from sqkit.bars import BarArrays
from sqkit.errors import UsageError
from sqkit.features import FeatureSet, feature_matrix
from sqkit.research.lookahead_causes import Cause, needs_no_profile, not_repeatable
from sqkit.research.lookahead_search import STRETCH, Compute, Search
from sqkit.research.lookahead_series import Series, TableOf, frame_of, series_of

TOLERANCE: Final = 1e-9
PREDICTION_TOLERANCE: Final = 1e-6  # a model file computes in float32
PREDICTION_COLUMNS: Final = ("probability_up", "confidence", "direction")

_NEAR_CUTS: Final = 12
_FAR_CUTS: Final = (0.55, 0.85)
_FAR_CHANGES: Final = (0.3, 0.6, 0.95)
_NEAR_CHANGES: Final = 12


@dataclass(frozen=True)
class LookAheadFinding:
    """A column that knows the future.

    Attributes
    ----------
    column
        Its name.
    cause
        ``centred_window``, ``negative_shift``, ``global_statistic``, ``back_fill``, ``resample_label``,
        ``not_repeatable`` or ``unknown``.
    first_row, first_instant
        The earliest bar found whose value changes with later bars, and its start (UTC).
    bars_ahead
        How many bars ahead it reads, as far as seen; None where that has no number.
    meaning, mend
        What the cause is, and how to do without.
    """

    column: str
    cause: str
    first_row: int
    first_instant: str
    bars_ahead: int | None
    meaning: str
    mend: str

    def line(self) -> str:
        """The finding for people."""
        return (
            f"{self.column}: from bar {self.first_row} ({self.first_instant}) on; "
            f"likely {self.cause}: {self.meaning}; way out: {self.mend}"
        )


@dataclass(frozen=True)
class LookAheadReport:
    """What was checked and what was found.

    Attributes
    ----------
    status
        ``pass``, ``fail``, or ``undefined`` when no column could be judged: that is no pass.
    reason
        Why it is undefined.
    columns, rows
        All columns, and the number of bars.
    findings
        In the order of the columns.
    not_judged
        Columns about which nothing can be said, with the reason.
    cuts, changes
        Rows at which the bars were cut, and from which they were changed, in the search.
    notes
        What else should be known.
    """

    status: str
    reason: str
    columns: tuple[str, ...]
    rows: int
    findings: tuple[LookAheadFinding, ...]
    not_judged: dict[str, str]
    cuts: tuple[int, ...]
    changes: tuple[int, ...]
    notes: tuple[str, ...]
    seed: int
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether something was judged and nothing found."""
        return self.status == "pass"

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        plain = asdict(self)
        plain |= {name: list(plain[name]) for name in ("columns", "findings", "cuts", "changes", "notes")}
        return plain | {"ok": self.ok}

    def lines(self) -> list[str]:
        """The report for people, the verdict first."""
        head = {
            "pass": f"no look-ahead found in {len(self.columns) - len(self.not_judged)} columns",
            "fail": f"look-ahead in {len(self.findings)} of {len(self.columns)} columns",
            "undefined": f"not judged: {self.reason}",
        }[self.status]
        tried = f"{self.rows:,} bars, {len(self.cuts)} cuts, {len(self.changes)} changed futures"
        return [
            f"{head} ({tried})",
            *(f"  {finding.line()}" for finding in self.findings),
            *(f"  not judged: {column}: {why}" for column, why in self.not_judged.items()),
            *(f"  note: {note}" for note in self.notes),
        ]


def find_look_ahead(
    compute: Compute,
    rows: BarArrays | pd.DataFrame | Series,
    names: Sequence[str],
    *,
    warmup_rows: int = 0,
    seed: int = 0,
    tolerance: float = TOLERANCE,
) -> LookAheadReport:
    """Look for columns whose values change with bars that come after them.

    Parameters
    ----------
    compute
        Takes bars in the form of `rows` and gives numbers of shape (n, k), one row a bar. It gets a
        copy each time. It may refuse 512 bars or fewer; such cuts are left out and noted.
    rows
        One symbol's bars: `BarArrays`, or a frame of canonical bars.
    names
        Names of the k columns.
    warmup_rows
        Rows without values at the start; cuts are made inside and just after.
    seed
        Of the sampled places and the changed bars; the same seed gives the same report.
    tolerance
        A difference up to this share of the value, or of the column's usual size where the value is
        smaller, is rounding. NaN equals NaN.

    Raises
    ------
    FeatureSetRefused
        The computation raises, or gives another shape than (n, k).
    UsageError
        `rows` is no series of bars; names that repeat; a tolerance that is not a small positive number.
    """
    names = tuple(names)
    if len(set(names)) != len(names) or not names:
        raise UsageError("names of columns are absent or repeat; name each column once")
    if not 0.0 < tolerance < 1.0:
        raise UsageError(f"tolerance {tolerance}: give a small positive number such as 1e-9")
    search = Search(compute, series_of(rows), names, tolerance, np.random.default_rng(seed))
    count = len(search.series)
    if count < 2:
        return _report(search, {}, seed, f"{count} bar{'s' * (count != 1)}; there is no future to look at")

    search.run_all_bars_twice()
    for stop in _cut_places(search, warmup_rows):
        search.cut(stop)
    for start, bars in _change_places(search, warmup_rows):
        search.change(start, bars)
    offending = search.offending()
    search.pin_down_first_row(offending)
    causes = {column: search.cause(column) for column in offending}
    unclear = [column for column, cause in causes.items() if not needs_no_profile(cause)]
    if unclear:
        responses = search.look_closer(unclear)
        causes |= {column: search.cause(column, responses[column]) for column in unclear}
    causes |= {int(column): not_repeatable() for column in np.flatnonzero(search.unsteady)}
    return _report(search, causes, seed)


def feature_look_ahead(
    features: FeatureSet | Callable[[pd.DataFrame], Any], bars: BarArrays | pd.DataFrame, *, seed: int = 0
) -> LookAheadReport:
    """`find_look_ahead` for features.

    Parameters
    ----------
    features
        A `FeatureSet`, or a function of a frame with the columns timestamp, symbol, open, high, low,
        close, volume that returns a frame (or one named series) with a row for every bar.
    bars
        One symbol's bars; a `FeatureSet` needs `BarArrays`. A function given `BarArrays` sees
        timestamps in the market's zone.

    Raises
    ------
    FeatureSetRefused
        The function raises, drops rows, or gives columns that are no numbers or come and go.
    UsageError
        Neither of both forms, or a `FeatureSet` with a frame.
    """
    if isinstance(features, FeatureSet):
        if not isinstance(bars, BarArrays):
            raise UsageError(
                f"feature set {features.name}: needs BarArrays, not a frame; load them with sqkit.research.marketdata"
            )
        made = features
        return find_look_ahead(
            lambda given: feature_matrix(made, given),
            bars,
            made.columns,
            warmup_rows=made.warmup_bars - 1,
            seed=seed,
        )
    if not callable(features):
        raise UsageError(f"{features!r}: neither a FeatureSet nor a function of a frame of bars")
    frame = frame_of(bars) if isinstance(bars, BarArrays) else bars
    table = TableOf(features)
    names = table.column_names(series_of(frame))
    return find_look_ahead(table, frame, names, seed=seed)


def prediction_look_ahead(
    score: Callable[[BarArrays], Any],
    bars: BarArrays,
    first_row: int,
    *,
    names: Sequence[str] = PREDICTION_COLUMNS,
    seed: int = 0,
) -> LookAheadReport:
    """`find_look_ahead` for a model's predictions, features and scoring in one.

    Parameters
    ----------
    score
        Takes bars and gives numbers of shape (n, k), one row a bar, NaN where nothing is predicted;
        directions as their codes.
    first_row
        First row of `bars` with a prediction.
    """
    return find_look_ahead(
        score, bars, names, warmup_rows=first_row, seed=seed, tolerance=PREDICTION_TOLERANCE
    )


# --- where to cut and where to change; what to say


def _cut_places(search: Search, warmup_rows: int) -> list[int]:
    """Every doubling from the first bar on, around the warm-up, some near the start, some far, at a gap and after nights."""
    count, generator = len(search.series), search.generator
    ladder = [int(2.0**step * generator.uniform(1.0, 1.9)) for step in range(int(np.log2(count)) + 1)]
    warm = [warmup_rows // 2, warmup_rows - 1, warmup_rows, warmup_rows + 1, warmup_rows + 7]
    near = generator.integers(1, min(count, STRETCH), _NEAR_CUTS)
    far = [int(count * (share + generator.uniform(0.0, 0.1))) for share in _FAR_CUTS]
    gaps, breaks = search.series.gaps(), search.series.breaks()
    gap = [int(generator.choice(gaps)) + 1] if len(gaps) else []
    night = [int(breaks[0]), int(generator.choice(breaks[: len(breaks) // 4 + 1]))] if len(breaks) else []
    return sorted({int(stop) for stop in (*ladder, *warm, *near, *far, *gap, *night) if 0 < stop < count})


def _change_places(search: Search, warmup_rows: int) -> list[tuple[int, int]]:
    """Rows from which the future changes, with the number of bars of that run: few on all, more on a stretch."""
    count, generator = len(search.series), search.generator
    stretch = min(count, max(STRETCH, 2 * warmup_rows))
    far = [(int((count - 1) * share) + 1, count) for share in _FAR_CHANGES]
    near = [(int(start), stretch) for start in generator.integers(1, stretch, _NEAR_CHANGES)]
    return [(start, bars) for start, bars in (*far, *near) if start < bars]


def _report(search: Search, causes: dict[int, Cause], seed: int, undefined: str = "") -> LookAheadReport:
    findings = tuple(
        LookAheadFinding(
            search.names[column],
            causes[column].name,
            int(search.first_row[column]),
            search.series.instant(int(search.first_row[column])),
            causes[column].bars_ahead,
            causes[column].meaning,
            causes[column].mend,
        )
        for column in sorted(causes)
    )
    judged = [] if undefined else [column for column in range(len(search.names)) if column not in causes]
    not_judged = {search.names[column]: why for column in judged if (why := _not_judged(search, column))}
    if not findings and not undefined and len(not_judged) == len(search.names):
        undefined = f"no column could be judged; {search.names[0]}: {not_judged[search.names[0]]}"
    notes = []
    if search.refused_below:
        notes.append(
            f"it does not run on {search.refused_below} bars or fewer: what its first rows are on short data was not seen"
        )
    return LookAheadReport(
        "fail" if findings else "undefined" if undefined else "pass",
        "" if findings else undefined,
        search.names,
        len(search.series),
        findings,
        not_judged,
        tuple(sorted(search.cuts)),
        tuple(sorted(search.changes)),
        tuple(notes),
        seed,
        search.tolerance,
    )


def _not_judged(search: Search, column: int) -> str:
    if not np.isfinite(search.values[:, column]).any():
        return f"it has no value in {len(search.series)} bars; give more bars"
    if not search.moved[column]:
        return "it does not change with prices and volume: made of the calendar, or of data from elsewhere"
    return ""
