"""What is wrong with bars: `check_bars` looks, counts and says, and never changes a bar.

`marketdata.py` runs it after loading and the command line on a user's file. A finding is
an *error* when results computed from the bars would be wrong, otherwise a *warning*.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pandas as pd

from sqkit.bars import INTERVAL_MINUTES, NANOSECONDS_PER_MINUTE
from sqkit.records import iso_date, iso_instant
from sqkit.research.barsplits import find_splits
from sqkit.sessions import SessionTable

PRICES: Final = ("open", "high", "low", "close")
_END_SHARE: Final = 0.8


@dataclass(frozen=True)
class Finding:
    """One kind of trouble: how often, where first, and a line for people."""

    kind: str
    severity: str
    count: int
    first: str
    message: str


@dataclass
class CheckReport:
    """What was read, what was dropped or assumed, and what is wrong.

    Attributes
    ----------
    dropped
        Reason and number of rows left out.
    notes
        What was assumed, renamed, sorted or shifted.
    problems
        Findings of `check_bars`.
    """

    source: str
    symbol: str
    interval: str
    market: str
    bars: int = 0
    first: str = ""
    last: str = ""
    dropped: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problems: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether there is no finding of severity error."""
        return all(finding.severity != "error" for finding in self.problems)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values for JSON."""
        return {
            "source": self.source,
            "symbol": self.symbol,
            "interval": self.interval,
            "market": self.market,
            "bars": self.bars,
            "first": self.first,
            "last": self.last,
            "ok": self.ok,
            "dropped": dict(self.dropped),
            "notes": list(self.notes),
            "problems": [vars(finding) for finding in self.problems],
        }

    def lines(self) -> list[str]:
        """The report for people, one line each."""
        if any(finding.kind == "refused" for finding in self.problems):
            return [f"refused: {finding.message}" for finding in self.problems]
        span = f", {self.first} to {self.last}" if self.bars else ""
        lines = [f"{self.source}: {self.symbol} {self.interval} ({self.market}), {self.bars:,} bars{span}"]
        lines += [f"  dropped {count:,} {reason}" for reason, count in self.dropped.items()]
        lines += [f"  note: {note}" for note in self.notes]
        lines += [f"  {finding.severity}: {finding.message}" for finding in self.problems]
        lines.append("  usable" if self.ok else "  not usable as it is")
        return lines


def check_bars(frame: pd.DataFrame, *, interval: str, market: str, sessions: SessionTable) -> CheckReport:
    """Look for everything that makes bars wrong or doubtful.

    Parameters
    ----------
    frame
        Columns ``timestamp`` (tz-aware), ``symbol``, ``open``, ``high``, ``low``, ``close``, ``volume``,
        in any order and state.
    interval
        ``1d``, ``1m`` or ``5m``.

    Returns
    -------
    CheckReport
        Findings of the kinds ``nan_price``, ``not_positive``, ``high_below_low``, ``outside_range``,
        ``mixed_symbols``, ``duplicates``, ``disorder``, ``interval``, ``end_stamped``,
        ``out_of_session``, ``gaps``, ``unadjusted_split``.
    """
    names = [str(name) for name in pd.unique(frame["symbol"])]
    report = CheckReport("bars", names[0] if names else "", interval, market, len(frame))
    if frame.empty:
        return report
    stamps = pd.DatetimeIndex(frame["timestamp"]).tz_convert("UTC").tz_localize(None).as_unit("ns").asi8
    prices = frame[list(PRICES)].to_numpy(dtype=np.float64)
    days = sessions.local_days(stamps)
    report.first, report.last = iso_date(days.min()), iso_date(days.max())
    where = _namer(stamps, days, interval)
    report.problems += _price_findings(prices, where)
    if len(names) > 1:
        changed = int(np.argmax(frame["symbol"].to_numpy() != frame["symbol"].iloc[0]))
        report.problems.append(
            Finding(
                "mixed_symbols",
                "error",
                len(names),
                where(changed),
                f"{len(names)} symbols in one series ({', '.join(names[:4])}); keep one a file",
            )
        )
    report.problems += _order_findings(stamps, days, interval, where)
    order = np.argsort(stamps, kind="stable")
    unique_ns = distinct(stamps[order])
    report.problems += _interval_findings(unique_ns, interval, sessions)
    report.problems += _session_findings(unique_ns, interval, sessions)
    volume = frame["volume"].to_numpy(np.float64)
    report.problems += _split_finding(find_splits(days[order], prices[order], volume[order]))
    return report


def _namer(stamps: np.ndarray, days: np.ndarray, interval: str) -> Callable[[int], str]:
    """Names the time of a row: its session date for daily bars, its UTC instant otherwise."""
    if interval == "1d":
        return lambda row: iso_date(days[row])
    return lambda row: iso_instant(int(stamps[row]))


def _price_findings(prices: np.ndarray, where: Callable[[int], str]) -> Iterator[Finding]:
    missing = ~np.isfinite(prices)
    opens, highs, lows, closes = prices.T
    outer_low, outer_high = np.minimum(opens, closes), np.maximum(opens, closes)
    slack = 1e-9 * np.abs(highs)  # rounding of adjusted prices
    for kind, severity, wrong, what in (
        ("nan_price", "error", missing.any(axis=1), "bars with a price that is not a number"),
        ("not_positive", "error", (prices <= 0).any(axis=1), "bars with a price of zero or below"),
        ("high_below_low", "error", highs < lows - slack, "bars whose high is below their low"),
        (
            "outside_range",
            "warning",
            (highs >= lows - slack) & ((outer_high > highs + slack) | (outer_low < lows - slack)),
            "bars whose open or close lies outside low to high",
        ),
    ):
        if wrong.any():
            first = where(int(np.argmax(wrong)))
            yield Finding(kind, severity, int(wrong.sum()), first, f"{wrong.sum():,} {what}, first {first}")


def _order_findings(
    stamps: np.ndarray, days: np.ndarray, interval: str, where: Callable[[int], str]
) -> Iterator[Finding]:
    keys = days if interval == "1d" else stamps
    repeated = pd.Series(keys).duplicated().to_numpy()
    if repeated.any():
        first = where(int(np.argmax(repeated)))
        unit = "session date" if interval == "1d" else "start"
        message = f"{repeated.sum():,} bars repeat the {unit} of another, first {first}"
        yield Finding("duplicates", "error", int(repeated.sum()), first, message)
    backwards = np.diff(stamps) < 0
    if backwards.any():
        first = where(int(np.argmax(backwards)) + 1)
        what = "newest first" if backwards.mean() > 0.5 else "not in time order"
        message = f"{what}: {backwards.sum():,} bars start before the one above them, first {first}"
        yield Finding("disorder", "error", int(backwards.sum()), first, message)


def _interval_findings(unique_ns: np.ndarray, interval: str, sessions: SessionTable) -> Iterator[Finding]:
    found = guess_interval(unique_ns, sessions)
    if found and found != interval:
        message = f"bars lie {found} apart, not {interval}; name the interval they have"
        yield Finding("interval", "error", len(unique_ns), iso_instant(int(unique_ns[0])), message)
    elif interval != "1d" and is_end_stamped(unique_ns, interval, sessions):
        first = iso_instant(int(unique_ns[0]))
        message = "bars are labelled by their END: sessions begin one bar late and have a bar at the close"
        yield Finding("end_stamped", "error", len(unique_ns), first, message)


def guess_interval(stamps: np.ndarray, sessions: SessionTable) -> str:
    """``1d``, ``1m``, ``5m`` or another distance such as ``15m`` or ``7d``; empty when unclear.

    Parameters
    ----------
    stamps
        int64 (n,), UTC nanoseconds, increasing.
    """
    if len(stamps) < 2:
        return ""
    days = sessions.local_days(stamps)
    dates, counts = _runs(days)
    if np.median(counts) <= 1:
        between = int(np.median(np.diff(dates))) if len(dates) > 1 else 1
        return "1d" if between < 5 else f"{between}d"
    steps = np.diff(stamps)[np.diff(days) == 0] // NANOSECONDS_PER_MINUTE
    return f"{int(np.argmax(np.bincount(steps)))}m" if len(steps) else ""


def distinct(ordered: np.ndarray) -> np.ndarray:
    """Different values of an increasing array (np.unique hashes, and is ten times slower here)."""
    return np.asarray(ordered[np.diff(ordered, prepend=ordered[:1] - 1) != 0])


def _runs(ordered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    starts = np.flatnonzero(np.diff(ordered, prepend=ordered[:1] - 1))
    return ordered[starts], np.diff(starts, append=len(ordered))


def _among(wanted: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    at = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
    return np.asarray(ordered[at] == wanted)


def is_end_stamped(stamps: np.ndarray, interval: str, sessions: SessionTable) -> bool:
    """Whether intraday bars carry the time they end at.

    A bar that starts at a session's close cannot be; when most sessions have one there and
    none at their open, the labels are ends.

    Parameters
    ----------
    stamps
        int64 (n,), UTC nanoseconds, increasing.
    """
    days = distinct(sessions.local_days(stamps))
    days = days[sessions.is_session(days)]
    if not len(days):
        return False
    open_ns, close_ns = sessions.open_close_ns(days)
    at_open, at_close = _among(open_ns, stamps), _among(close_ns, stamps)
    return bool(at_close.mean() >= _END_SHARE and at_open.mean() <= 1 - _END_SHARE)


def _session_findings(unique_ns: np.ndarray, interval: str, sessions: SessionTable) -> Iterator[Finding]:
    if interval == "1d":
        days = distinct(sessions.local_days(unique_ns))
        outside = days[~sessions.is_session(days)]
        if len(outside):
            yield Finding(
                "out_of_session",
                "warning",
                len(outside),
                iso_date(outside[0]),
                f"{len(outside):,} bars on dates that are no session ({_dates(outside)}); they are not used",
            )
        absent = np.setdiff1d(sessions.session_days(int(days[0]), int(days[-1])), days)
        if len(absent):
            message = f"{len(absent):,} sessions have no bar ({_dates(absent)})"
            yield Finding("gaps", "warning", len(absent), iso_date(absent[0]), message)
        return
    days, _, _, inside = sessions.locate(unique_ns)
    if not inside.all():
        first = iso_instant(int(unique_ns[np.argmin(inside)]))
        count = int((~inside).sum())
        message = f"{count:,} bars start outside every session, first {first}; they are not used"
        yield Finding("out_of_session", "warning", count, first, message)
    if not inside.any():
        return
    present, counts = _runs(days[inside])
    expected_days = sessions.session_days(int(present[0]), int(present[-1]))
    open_ns, close_ns = sessions.open_close_ns(expected_days)
    expected = (close_ns - open_ns) // (INTERVAL_MINUTES[interval] * NANOSECONDS_PER_MINUTE)
    have = np.zeros(len(expected_days), dtype=np.int64)
    have[np.searchsorted(expected_days, present)] = counts
    absent, short = have == 0, (have > 0) & (have < expected)
    if absent.any() or short.any():
        lacking = int((expected - have)[absent | short].sum())
        first = iso_date(expected_days[np.argmax(absent | short)])
        parts = []
        if absent.any():
            parts.append(f"{absent.sum():,} sessions have no bar ({_dates(expected_days[absent])})")
        if short.any():
            lost = int((expected - have)[short].sum())
            parts.append(f"{short.sum():,} sessions lack {lost:,} bars ({_dates(expected_days[short])})")
        yield Finding("gaps", "warning", lacking, first, "; ".join(parts))


def _split_finding(splits: list[str]) -> Iterator[Finding]:
    if splits:
        shown = ", ".join(splits[:6]) + (", ..." if len(splits) > 6 else "")
        message = f"{len(splits)} unadjusted splits or bonus issues: {shown}; use split-adjusted bars"
        yield Finding("unadjusted_split", "error", len(splits), splits[0][:10], message)


def _dates(days: np.ndarray) -> str:
    shown = ", ".join(iso_date(day) for day in days[:3])
    return shown + (f", ... {iso_date(days[-1])}" if len(days) > 3 else "")
