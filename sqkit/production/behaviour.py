"""Does the live model behave as it did in its validation? Bars in, alarms out, no outcome needed.

What it says over the last five bars, pooled over symbols, is held against the minute of the session; the statistics
are those of `sqkit.behaviour_windows`, the limits those of `sqkit.behaviour_limits`, both also the validation's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from sqkit.behaviour_limits import ALARMS, SIDES, SILENT, detectable, limits_of
from sqkit.behaviour_windows import (
    CALLS,
    WINDOW_BARS,
    Usual,
    bar_counts,
    bucket_of,
    silence_after,
    standardised,
)
from sqkit.errors import UsageError
from sqkit.records import DIRECTIONS

__all__ = ["ALARMS", "UNASKED", "BehaviourWatch", "Row", "detectable"]

Row = tuple[str, float | None, str, str]
"""Direction, probability up (None: not scored), reason and symbol, in words."""

UNASKED: Final = frozenset({"disabled", "halted", "out_of_scope"})
"""Reasons of rows that count nowhere: the model is silent because people decided so."""

_CODES: Final = {word: code for code, word in DIRECTIONS.items()}
_MENDED: Final = 0.5
"""An alarm ends below this share of its limit."""


class BehaviourWatch:
    """Watches what one model says.

    Parameters
    ----------
    profile
        ``behaviour`` of its `sqkit.monitoring_baseline.MonitoringBaseline`.
    false_alarms_per_day
        Session days with a false alarm, as a share, in (0, 1); all alarms together.
    symbols
        That are watched.

    Attributes
    ----------
    limits
        Alarm to limit.
    firing
        Names of the alarms that have begun and not ended.

    Raises
    ------
    UsageError
        A value lies outside its range.

    Notes
    -----
    Few symbols cannot be decided in five bars; `detectable` says what can.
    """

    def __init__(self, profile: Mapping[str, Any], *, false_alarms_per_day: float, symbols: int) -> None:
        if not 0.0 < false_alarms_per_day < 1.0 or symbols < 1:
            raise UsageError(
                f"{false_alarms_per_day} false alarms a day, {symbols} symbols: give a share of days between 0 and 1, "
                "and at least one symbol"
            )
        self._bar_minutes = int(profile["bar_minutes"])
        self._buckets = len(profile["buckets"])
        self._usual = Usual.of_buckets(profile["buckets"])
        self.limits = limits_of(profile, false_alarms_per_day, symbols)
        self.firing: set[str] = set()
        self._window: deque[tuple[list[float], int]] = deque(maxlen=WINDOW_BARS)
        self._last = -1
        self._silence = 0.0

    def update(self, bar_number_of_session: int, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """Take one bar with all its symbols; bars come in time order.

        Parameters
        ----------
        bar_number_of_session
            From 0; always 0 for daily bars.

        Returns
        -------
        list of dict
            Alarms that begin or end now: ``event`` (``begins``, ``ends``), ``name``, ``z``, ``limit``,
            ``observed``, ``expected``. Of ``silent`` they are in calls: z is how many were expected since the
            last one.
        """
        asked = [row for row in rows if row[2] not in UNASKED]
        if self._bar_minutes and bar_number_of_session <= self._last:
            self._window.clear()  # a window lies in one session
        self._last = bar_number_of_session
        if not asked:
            return []
        counts = _counts(asked)
        bucket = int(bucket_of(bar_number_of_session, self._bar_minutes, self._buckets))
        self._window.append((counts.tolist(), bucket))
        expected = float(self._usual.expected_calls(counts[None], np.array([bucket]))[0])
        self._silence = silence_after(self._silence, float(counts[CALLS]), expected)
        judged = self._judged_windows() if len(self._window) == WINDOW_BARS else {}
        judged[SILENT] = (self._silence, 0.0, self._silence)
        return [change for name, found in judged.items() for change in self._change(name, *found)]

    def _judged_windows(self) -> dict[str, tuple[float, float, float]]:
        """Alarm to z, observed and expected of the window that ends now."""
        counts = np.array([[one for one, _ in self._window]])
        bucket = np.array([[number for _, number in self._window]])
        z, observed, expected = (part[0].tolist() for part in standardised(counts, bucket, self._usual))
        return {
            name: (sign * z[column], observed[column], expected[column])
            for name, (column, sign) in SIDES.items()
        }

    def _change(self, name: str, z: float, observed: float, expected: float) -> list[dict[str, Any]]:
        """The alarm's beginning or end, where it is either."""
        limit = self.limits[name]
        if name not in self.firing and z > limit:
            event = "begins"
            self.firing.add(name)
        elif name in self.firing and z <= _MENDED * limit:
            event = "ends"
            self.firing.discard(name)
        else:
            return []
        return [
            {
                "event": event,
                "expected": expected,
                "limit": limit,
                "name": name,
                "observed": observed,
                "z": z,
            }
        ]

    def state(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "firing": sorted(self.firing),
            "last": self._last,
            "silence": self._silence,
            "window": [[counts, bucket] for counts, bucket in self._window],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.firing = set(state["firing"])
        self._last = state["last"]
        self._silence = state["silence"]
        self._window = deque(((list(counts), bucket) for counts, bucket in state["window"]), WINDOW_BARS)


def _counts(rows: Sequence[Row]) -> np.ndarray:
    """The counts of one bar's rows, float64 (5,)."""
    direction = np.array([_CODES[row[0]] for row in rows], dtype=np.int8)
    probability = np.array([np.nan if row[1] is None else row[1] for row in rows], dtype=np.float64)
    counts: np.ndarray = bar_counts(np.zeros(len(rows), dtype=np.int64), direction, probability, 1)[0]
    return counts
