"""Two runs of one symbol held against each other, bar by bar and trade by trade: where do they first part?

In: what a replay says, the backtest's run, the backtest's features. Out: the first `Divergence`, or None. Bits
count, but for probabilities and confidences, which may differ by `TOLERANCE`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from sqkit.records import TRADE_FIELDS
from sqkit.research.backtest import SymbolRun

TOLERANCE: Final = 1e-6

_TOLERATED: Final = ("student_probability_up", "student_confidence")
_IN_ORDER: Final = (
    "session_date",
    *_TOLERATED,
    "reason",
    "student_prediction",
    "baseline_direction",
    "baseline_strength",
    "prediction_source",
    "strength",
    "target",
)
"""Columns of a bar in the order in which one follows from the other; features come before them."""

_AT_ENTRY: Final = (
    "entry_time",
    "entry_session_date",
    "direction",
    "quantity",
    "entry_price",
    "entry_strength",
    "student_at_entry",
)
_AT_EXIT: Final = ("exit_time", *(name for name in TRADE_FIELDS if name not in (*_AT_ENTRY, "exit_time")))


class Replayed(Protocol):
    """What a replay says of one symbol; `sqkit.production.replay.Replayed` has this form."""

    @property
    def features(self) -> np.ndarray:
        """float64 (bars, k), what the student was asked with."""

    @property
    def predictions(self) -> dict[str, np.ndarray]:
        """Columns of `records.PREDICTION_FIELDS` but the outcome."""

    @property
    def trades(self) -> dict[str, np.ndarray]:
        """Columns of `records.TRADE_FIELDS`; a position still open stands last."""

    @property
    def cash(self) -> float:
        """Of the book, at the end."""

    @property
    def quantity(self) -> int:
        """Signed shares held at the end."""

    @property
    def refused(self) -> Mapping[int, str]:
        """Bars that were not used: start in UTC nanoseconds, and why."""


@dataclass(frozen=True)
class Divergence:
    """Where two runs part.

    Attributes
    ----------
    bar_time
        Start of the bar, UTC nanoseconds.
    field
        A name of `records`, ``features``, ``bar`` (one run has it, the other not), ``trade``, ``cash`` or
        ``quantity``.
    column
        Which feature, by position; None for any other field.
    """

    bar_time: int
    field: str
    backtest: Any
    engine: Any
    column: int | None = None


def first_divergence(
    replayed: Replayed, run: SymbolRun, features: np.ndarray, *, bars: int, whole: bool
) -> Divergence | None:
    """The first bar on which a replay is not the backtest; None where they agree to the end.

    Parameters
    ----------
    features
        float64 (bars, k), the backtest's.
    bars
        How many bars of the window were replayed.
    whole
        Whether these are all: only then money and position at the end are compared. Else trades are compared
        as far as they were closed by then, and what a position still open was entered with.
    """
    times = run.predictions["bar_time"][:bars]
    if not len(times):
        return None
    candidates = [
        _in_bars(replayed, run, features, times),
        _in_trades(replayed, run, int(times[-1]), whole=whole),
        _at_the_end(replayed, run, int(times[-1])) if whole else None,
    ]
    found = [one for one in candidates if one is not None]
    return min(found, key=lambda one: one.bar_time) if found else None  # of one bar, causes come first


def _in_bars(
    replayed: Replayed, run: SymbolRun, features: np.ndarray, times: np.ndarray
) -> Divergence | None:
    theirs = replayed.predictions["bar_time"]
    common = min(len(times), len(theirs))
    apart = np.flatnonzero(times[:common] != theirs[:common])
    rows = int(apart[0]) if len(apart) else common
    at, found = rows, None
    unequal = ~_same_bits(features[:rows], replayed.features[:rows])
    if unequal.any():
        at, column = (int(part) for part in np.argwhere(unequal)[0])
        values = float(features[at, column]), float(replayed.features[at, column])
        found = Divergence(int(times[at]), "features", *values, column=column)
    for name in _IN_ORDER:
        ours, other = run.predictions[name][:at], replayed.predictions[name][:at]
        same = _close(ours, other) if name in _TOLERATED else _same_bits(ours, other)
        if not same.all():
            at = int(np.argmin(same))
            found = Divergence(int(times[at]), name, ours[at].item(), other[at].item())
    if found is None and rows < max(len(times), len(theirs)):
        return _bar_apart(replayed, times[rows:], theirs[rows:])
    return found


def _bar_apart(replayed: Replayed, ours: np.ndarray, theirs: np.ndarray) -> Divergence:
    """One run has a bar that the other does not have."""
    missing = len(theirs) == 0 or (len(ours) > 0 and ours[0] < theirs[0])
    if missing:
        at = int(ours[0])
        return Divergence(at, "bar", "used", replayed.refused.get(at, "missing"))
    return Divergence(int(theirs[0]), "bar", "missing", "used")


def _in_trades(replayed: Replayed, run: SymbolRun, end: int, *, whole: bool) -> Divergence | None:
    theirs = replayed.trades
    ours = run.fills.trades if whole else _until(run.fills.trades, end)
    counts = len(ours["entry_time"]), len(theirs["entry_time"])
    found = list(_trade_differences(ours, theirs, min(counts), end, whole=whole))
    if counts[0] != counts[1]:
        longer = ours if counts[0] > counts[1] else theirs
        values = ("opened", "none") if counts[0] > counts[1] else ("none", "opened")
        found.append(Divergence(int(longer["entry_time"][min(counts)]), "trade", *values))
    return min(found, key=lambda one: one.bar_time) if found else None


def _until(trades: dict[str, np.ndarray], end: int) -> dict[str, np.ndarray]:
    """The trades entered by a bar; one closed later is open then."""
    kept = {name: column[trades["entry_time"] <= end] for name, column in trades.items()}
    return kept | {"exit_time": np.where(kept["exit_time"] <= end, kept["exit_time"], 0)}


def _trade_differences(
    ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], count: int, end: int, *, whole: bool
) -> Iterator[Divergence]:
    """The first trade that differs, field by field; a position still open at a cut has no exit to compare."""
    entered = np.minimum(ours["entry_time"][:count], theirs["entry_time"][:count])
    left = ours["exit_time"][:count], theirs["exit_time"][:count]
    closed = np.minimum(*(np.where(part != 0, part, end) for part in left))
    compared = np.ones(count, dtype=bool) if whole else left[0] != 0
    for name in (*_AT_ENTRY, *_AT_EXIT):
        same = _same_bits(ours[name][:count], theirs[name][:count])
        if name in _AT_EXIT and name != "exit_time":
            same = same | ~compared
        if not same.all():
            at = int(np.argmin(same))
            when = entered if name in _AT_ENTRY else closed
            yield Divergence(int(when[at]), name, ours[name][at].item(), theirs[name][at].item())


def _at_the_end(replayed: Replayed, run: SymbolRun, end: int) -> Divergence | None:
    if run.fills.cash != replayed.cash:
        return Divergence(end, "cash", run.fills.cash, replayed.cash)
    if run.fills.open_quantity != replayed.quantity:
        return Divergence(end, "quantity", run.fills.open_quantity, replayed.quantity)
    return None


def _same_bits(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Where two columns have the same bits; one NaN is like another."""
    same: np.ndarray = np.equal(ours, theirs)
    if ours.dtype == np.float64:
        same &= np.signbit(ours) == np.signbit(theirs)  # 0.0 and -0.0 are equal and have other bits
        same |= np.isnan(ours) & np.isnan(theirs)
    return same


def _close(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    same: np.ndarray = np.isclose(ours, theirs, rtol=0.0, atol=TOLERANCE, equal_nan=True)
    return same
