"""What a validation hands to monitoring, computed again from its stored predictions."""

from __future__ import annotations

from typing import Any

import numpy as np

from sqkit.bars import INTERVAL_MINUTES, NANOSECONDS_PER_MINUTE
from sqkit.monitoring_baseline import MonitoringBaseline, Rate
from sqkit.records import FLAT, LONG
from sqkit.research.accuracy import AccuracyAnalyzer
from sqkit.research.usual_behaviour import SaidRows, usual_behaviour
from sqkit.sessions import SessionTable, load_sessions


def live_baseline(results: dict[str, Any], analyzer: AccuracyAnalyzer) -> MonitoringBaseline:
    """How good the candidate was on the gate's judged rows, how well that is known, and how it behaved on all rows.

    Parameters
    ----------
    results
        ``validation_results.json``.
    analyzer
        Of the same folder.

    Notes
    -----
    Sessions are those of the shipped table: the results name no sessions file.
    """
    runtime, interval = results["runtime"], results["interval"]
    sessions, bar_minutes = load_sessions(runtime["market"]), INTERVAL_MINUTES[interval]
    rows = analyzer.pooled("candidate")
    right, calls = rows["calls"] == rows["outcomes"], rows["calls"]
    days, day = np.unique(rows["session_days"], return_inverse=True)

    def rate(of: np.ndarray) -> Rate | None:
        counts = (np.bincount(day, weights=part, minlength=len(days)) for part in (right & of, of))
        return Rate.of_days(*(part.astype(np.int64) for part in counts))

    bar_time = np.concatenate(
        [analyzer.said(symbol)["bar_time"][analyzer.judged_rows(symbol)] for symbol in analyzer.symbols]
    )
    return MonitoringBaseline(
        hit_ratio=rate(calls != FLAT),
        precision_long=rate(calls == LONG),
        accuracy=rate(np.ones(len(calls), dtype=bool)),
        horizon_bars=runtime["horizon_bars"],
        dead_zone=runtime["dead_zone"],
        interval=interval,
        market=runtime["market"],
        strategy=runtime["strategy"],
        bars_per_session=bars_per_session(sessions, days, bar_minutes),
        session_days=len(days),
        symbols=len(analyzer.symbols),
        called_bars=len(np.unique(bar_time[calls != FLAT])),
        long_called_bars=len(np.unique(bar_time[calls == LONG])),
        behaviour=usual_behaviour(
            _said(analyzer, sessions, bar_minutes), bar_minutes=bar_minutes, symbols=len(analyzer.symbols)
        ),
    )


def bars_per_session(sessions: SessionTable, days: np.ndarray, bar_minutes: int) -> int:
    """Bars that one symbol has in a regular session: the most common length of these days by the table.

    Parameters
    ----------
    days
        int (d,), days since 1970-01-01; those that the table knows no session on are left out.
    bar_minutes
        0 for daily bars, which are one a session.
    """
    known = days[sessions.is_session(days)]
    if not bar_minutes or not len(known):
        return 1
    opens, closes = sessions.open_close_ns(known)
    lengths, times = np.unique(closes - opens, return_counts=True)
    return int(-(-lengths[np.argmax(times)] // (bar_minutes * NANOSECONDS_PER_MINUTE)))


def _said(analyzer: AccuracyAnalyzer, sessions: SessionTable, bar_minutes: int) -> SaidRows:
    """Every row of the candidate, of all symbols."""
    parts = [analyzer.said(symbol) for symbol in analyzer.symbols]
    columns = {
        name: np.concatenate([part[name] for part in parts])
        for name in ("bar_time", "session_date", "student_prediction", "student_probability_up", "reason")
    }
    in_session = _bar_in_session(columns["bar_time"], columns["session_date"], sessions, bar_minutes)
    return SaidRows(
        session_day=columns["session_date"],
        bar_in_session=in_session,
        direction=columns["student_prediction"],
        probability_up=columns["student_probability_up"],
        reason=columns["reason"],
    )


def _bar_in_session(
    bar_time: np.ndarray, session_date: np.ndarray, sessions: SessionTable, bar_minutes: int
) -> np.ndarray:
    """Number of each bar in its session; on a day of other hours than the table's, from that day's first bar."""
    if not bar_minutes:
        return np.zeros(len(bar_time), dtype=np.int64)
    days, day = np.unique(session_date, return_inverse=True)
    first = np.full(len(days), np.iinfo(np.int64).max)
    np.minimum.at(first, day, bar_time)
    known = sessions.is_session(days)
    opens, closes = first.copy(), first + 1
    if np.any(known):
        opens[known], closes[known] = sessions.open_close_ns(days[known])
    fits = (first >= opens) & (first < closes)
    begins = np.where(fits, opens, first)
    number: np.ndarray = (bar_time - begins[day]) // (bar_minutes * NANOSECONDS_PER_MINUTE)
    return number
