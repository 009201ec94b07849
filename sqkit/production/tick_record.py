"""The telemetry records of an engine: a decision on a bar, a bar that was refused, a trade.

Words and fields are those of `sqkit.records`, so one decoder reads them and a validation's files alike.
"""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

import numpy as np

from sqkit.bars import CLOSE, Bar, BarArrays
from sqkit.metrics import VOLATILITY_BARS
from sqkit.production.telemetry import InstantText
from sqkit.records import BAR_REFUSED, HISTORY, PREDICTION, decode, iso_date, iso_instant

HISTORY_BARS: Final = VOLATILITY_BARS + 1
"""Closes before a bar that its volatility needs."""


class TickRecords:
    """Makes records for one engine; what many bars share is worked out once.

    Parameters
    ----------
    instants
        Writes decision times.
    """

    def __init__(self, strategy: str, slot: str, instants: InstantText) -> None:
        self._strategy = strategy
        self._slot = slot
        self._instants = instants
        self._bar_texts = InstantText()
        self._bar_ns = -1
        self._bar_time = ""
        self._day = -1
        self._date = ""

    def bar_time(self, start_ns: int) -> str:
        """Start of a bar as ISO text; the symbols of one minute share it."""
        if start_ns != self._bar_ns:
            self._bar_ns = start_ns
            self._bar_time = self._bar_texts.whole(start_ns)
        return self._bar_time

    def date(self, day: int) -> str:
        """A session date as ISO text."""
        if day != self._day:
            self._day, self._date = day, iso_date(day)
        return self._date

    def prediction_id(self, symbol: str, start_ns: int) -> str:
        """Names a decision: the same on every host, and for every model that was asked."""
        return f"{self._strategy}/{symbol}/{self.bar_time(start_ns)}"

    def prediction(
        self,
        prediction_id: str,
        symbol: str,
        start_ns: int,
        day: int,
        decided_ns: int,
        said: tuple[str, str, str, float, str],
        rule: tuple[str, float, float, float, str],
        features: np.ndarray | None,
        bar: Bar,
        about_bar: tuple[str, int, str | None],
    ) -> dict[str, Any]:
        """What was decided on a bar; the caller adds ``latency_us`` last.

        Parameters
        ----------
        said
            Version and digest of the student, its direction, probability of up, reason.
        rule
            Direction and strength of the rule, strength after the student, target, source.
        about_bar
            Status of the bar, how many are missing before it, why nothing may be entered.
        """
        version, digest, direction, probability, reason = said
        baseline, baseline_strength, strength, target, source = rule
        status, missing, lock = about_bar
        return {
            "event": PREDICTION,
            "id": prediction_id,
            "slot": self._slot,
            "strategy": self._strategy,
            "symbol": symbol,
            "bar_time": self.bar_time(start_ns),
            "session_date": self.date(day),
            "decision_time": self._instants.of(decided_ns),
            "student_model_version": version,
            "student_model_digest": digest,
            "student_prediction": direction,
            "student_confidence": probability if probability >= 0.5 else 1.0 - probability,
            "student_probability_up": probability,
            "prediction_source": source,
            "reason": reason,
            "baseline_direction": baseline,
            "baseline_strength": baseline_strength,
            "strength": strength,
            "target": target,
            "features": features,
            "bar": (bar.open, bar.high, bar.low, bar.close, bar.volume),
            "bar_status": status,
            "missing_bars": missing,
            "entry_lock": lock,
        }

    def refused(self, bar: Any, status: str, decided_ns: int) -> dict[str, Any]:
        """A bar that was not used."""
        stamp = getattr(bar, "timestamp", None)
        return {
            "event": BAR_REFUSED,
            "slot": self._slot,
            "strategy": self._strategy,
            "symbol": str(getattr(bar, "symbol", ""))[:64],
            "bar_time": stamp.isoformat() if isinstance(stamp, dt.datetime) else str(stamp)[:64],
            "decision_time": self._instants.of(decided_ns),
            "bar_status": status,
        }

    def history(self, symbol: str, bars: BarArrays, decided_ns: int) -> dict[str, Any]:
        """The last bars that an engine was warmed with: what outcomes of the first live bars are measured by."""
        last = bars.slice(max(len(bars) - HISTORY_BARS, 0), len(bars))
        rows = zip(last.timestamp_ns, last.session_days, last.rows[:, CLOSE], strict=True)
        return {
            "event": HISTORY,
            "slot": self._slot,
            "strategy": self._strategy,
            "symbol": symbol,
            "decision_time": self._instants.of(decided_ns),
            "bars": [[iso_instant(int(at)), iso_date(int(day)), float(close)] for at, day, close in rows],
        }

    def trade(self, event: str, symbol: str, trade: dict[str, Any], version: str) -> dict[str, Any]:
        """A trade that was opened or closed, with the columns of a backtest's trades."""
        return {
            "event": event,
            "slot": self._slot,
            "strategy": self._strategy,
            "symbol": symbol,
            "student_model_version": version,
            **decode(trade),
        }


def shadow(
    role: str, version: str, digest: str, direction: str, probability: float, reason: str
) -> dict[str, Any]:
    """What a challenger, or the release before the one that is served, said beside the decision."""
    return {
        "role": role,
        "student_model_version": version,
        "student_model_digest": digest,
        "student_prediction": direction,
        "student_probability_up": probability,
        "reason": reason,
    }
