"""Labels, and the table of rows that teachers and students learn from.

`teacher.py` and `distil.py` call `training_table`. In: bars of all symbols and a window. Out:
one stacked table in which every row is warm, finite and decisive, and whose labels end
inside the window. Bars after the window's end are cut off before anything is computed, so
no training code can see them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from sqkit.bars import CLOSE, BarArrays
from sqkit.errors import UsageError, WindowEmpty, WindowTooShort
from sqkit.features import FeatureSet, feature_matrix
from sqkit.metrics import Outcomes, horizon_outcomes
from sqkit.records import INSIDE, UNKNOWN, UP, iso_date


@dataclass(frozen=True)
class TrainingTable:
    """Decisive rows of all symbols, in the order of the symbols, each in time order.

    Attributes
    ----------
    symbols
        Names; `symbol_index` points into them.
    feature_names
        Columns of `features`.
    features
        float32 (n, k), what a model file will be asked with.
    symbol_index
        int32 (n,).
    bar_time_ns, decision_ns
        int64 (n,), UTC nanoseconds: start of the bar, and when it was finished.
    label_end_ns
        int64 (n,), when the last bar of the label was finished.
    embargo_ns
        int64 (n,), when the bar `horizon` bars earlier was finished: a row keeps its distance
        from a block of test rows when this instant lies after the block.
    session_day
        int32 (n,), days since 1970-01-01.
    outcome
        int8 (n,), UP or DOWN.
    counts
        How many bars of the window are what: ``bars``, ``warm_up``, ``non_finite``,
        ``unknown``, ``inside``, ``decisive``, ``up``, ``down``.
    last_day_seen
        The latest session date of any bar that was looked at.
    """

    symbols: tuple[str, ...]
    feature_names: tuple[str, ...]
    features: np.ndarray
    symbol_index: np.ndarray
    bar_time_ns: np.ndarray
    decision_ns: np.ndarray
    label_end_ns: np.ndarray
    embargo_ns: np.ndarray
    session_day: np.ndarray
    outcome: np.ndarray
    counts: dict[str, int]
    last_day_seen: int

    def __len__(self) -> int:
        return len(self.outcome)

    @property
    def up(self) -> np.ndarray:
        """bool (n,), whether the move went up."""
        return np.asarray(self.outcome == UP)

    def rows(self, chosen: np.ndarray) -> TrainingTable:
        """The table of some rows only; `counts` stays that of the whole window."""
        columns = {name: getattr(self, name)[chosen] for name in _ROW_COLUMNS}
        return replace(self, **columns)


_ROW_COLUMNS = (
    "features",
    "symbol_index",
    "bar_time_ns",
    "decision_ns",
    "label_end_ns",
    "embargo_ns",
    "session_day",
    "outcome",
)


def label_bars(bars: BarArrays, horizon: int, dead_zone: float, within_session: bool) -> Outcomes:
    """Outcome of every bar by the one definition of `sqkit.metrics.horizon_outcomes`.

    Parameters
    ----------
    horizon
        Bars ahead.
    dead_zone
        Multiple of volatility x sqrt(horizon) inside which a move is not decisive.
    within_session
        True when a label must not cross a session's end (intraday).
    """
    return horizon_outcomes(
        bars.rows[:, CLOSE], bars.session_days, horizon, dead_zone=dead_zone, within_session=within_session
    )


def cut_bars(bars: Mapping[str, BarArrays], first_day: int, last_day: int) -> dict[str, BarArrays]:
    """Every symbol's bars up to the training end; earlier bars stay, they warm the window.

    Raises
    ------
    UsageError
        No symbol was given, or the window ends before it begins.
    WindowEmpty
        A symbol has no bar inside the window.
    """
    if not bars:
        raise UsageError("no symbols to train on; name at least one")
    if first_day > last_day:
        raise UsageError(
            f"the training window {iso_date(first_day)} to {iso_date(last_day)} ends before it begins"
        )
    cut = {}
    for symbol in sorted(bars):
        series = bars[symbol]
        start, stop = series.window(first_day, last_day)
        if start == stop:
            held = (
                f"its bars run from {iso_date(int(series.session_days[0]))} "
                f"to {iso_date(int(series.session_days[-1]))}"
                if len(series)
                else "it has no bars at all"
            )
            raise WindowEmpty(
                f"{symbol}: no bar between {iso_date(first_day)} and {iso_date(last_day)}; {held}",
                symbol=symbol,
            )
        cut[symbol] = series.slice(0, stop)
    return cut


def training_table(
    bars: Mapping[str, BarArrays],
    feature_set: FeatureSet,
    *,
    first_day: int,
    last_day: int,
    horizon_bars: int,
    dead_zone: float,
    within_session: bool,
) -> TrainingTable:
    """All rows a model may learn from between two session dates, ends included.

    Raises
    ------
    WindowEmpty
        A symbol has no bar inside the window.
    WindowTooShort
        A symbol has fewer bars than warm-up and horizon need.
    """
    cut = cut_bars(bars, first_day, last_day)
    parts = [
        _symbol_table(
            series,
            feature_set,
            index,
            start=series.window(first_day, last_day)[0],
            horizon_bars=horizon_bars,
            dead_zone=dead_zone,
            within_session=within_session,
        )
        for index, series in enumerate(cut.values())
    ]
    counts = {name: sum(part.counts[name] for part in parts) for name in parts[0].counts}
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _ROW_COLUMNS}
    return TrainingTable(
        symbols=tuple(cut),
        feature_names=tuple(feature_set.columns),
        counts=counts,
        last_day_seen=max(part.last_day_seen for part in parts),
        **columns,
    )


def _symbol_table(
    bars: BarArrays,
    feature_set: FeatureSet,
    index: int,
    *,
    start: int,
    horizon_bars: int,
    dead_zone: float,
    within_session: bool,
) -> TrainingTable:
    needed = feature_set.warmup_bars + horizon_bars
    if len(bars) < needed:
        raise WindowTooShort(
            f"{bars.symbol}: {len(bars)} bars up to the training end, but {feature_set.name} warms up over "
            f"{feature_set.warmup_bars} and a label needs {horizon_bars} more; give earlier bars",
            symbol=bars.symbol,
            bars=len(bars),
            needed=needed,
        )
    labels = label_bars(bars, horizon_bars, dead_zone, within_session)
    with np.errstate(over="ignore"):  # beyond float32 is not finite, and such a row is left out
        features = feature_matrix(feature_set, bars).astype(np.float32)
    position = np.arange(len(bars))
    inside_window = position >= start
    warm = position >= feature_set.warmup_bars - 1
    finite = np.isfinite(features).all(axis=1)
    usable = inside_window & warm & finite
    known = usable & (labels.outcome != UNKNOWN)
    chosen = np.flatnonzero(known & (labels.outcome != INSIDE))
    up = int((labels.outcome[chosen] == UP).sum())
    counts = {
        "bars": int(inside_window.sum()),
        "warm_up": int((inside_window & ~warm).sum()),
        "non_finite": int((inside_window & warm & ~finite).sum()),
        "unknown": int((usable & ~known).sum()),
        "inside": int(known.sum()) - len(chosen),
        "decisive": len(chosen),
        "up": up,
        "down": len(chosen) - up,
    }
    return TrainingTable(
        symbols=(bars.symbol,),
        feature_names=tuple(feature_set.columns),
        features=features[chosen],
        symbol_index=np.full(len(chosen), index, dtype=np.int32),
        bar_time_ns=bars.timestamp_ns[chosen],
        decision_ns=bars.available_ns[chosen],
        label_end_ns=bars.available_ns[labels.label_end[chosen]],
        embargo_ns=bars.available_ns[np.maximum(chosen - horizon_bars, 0)],
        session_day=bars.session_days[chosen],
        outcome=labels.outcome[chosen],
        counts=counts,
        last_day_seen=int(bars.session_days.max()),
    )
