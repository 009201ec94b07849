"""Is the market open and no bar comes? The one question of monitoring that only a clock can answer.

It decides nothing: a state neither ends nor goes on for want of bars.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from sqkit.production.alerts import Alert, AlertBook
from sqkit.production.bar_clock import BarClock
from sqkit.production.model_watch import ModelWatch
from sqkit.records import iso_instant

FEED_STALE = "feed_stale"


class FeedWatch:
    """How long no bar came while the market was open.

    Parameters
    ----------
    stale_seconds
        Beyond the length of a bar.
    now_ns
        The present, UTC nanoseconds.
    """

    def __init__(self, slot: str, strategy: str, stale_seconds: float, now_ns: Callable[[], int]) -> None:
        self._slot = slot
        self._strategy = strategy
        self._stale_ns = int(stale_seconds * 1e9)
        self._now_ns = now_ns
        self._book = AlertBook()
        self._open = False
        self._age_ns: int | None = None

    def look(self, clock: BarClock, newest_ns: int, watch: ModelWatch | None) -> Alert | None:
        """An alert, or its end, where one is to be sent now.

        Parameters
        ----------
        newest_ns
            When a bar was last decided on; 0 where never.
        """
        now = self._now_ns()
        _, open_ns, _, inside = clock.table.locate(np.array([now], dtype=np.int64))
        self._open = bool(inside[0])
        self._age_ns = now - newest_ns if newest_ns else None
        since = max(newest_ns, int(open_ns[0]))
        stale = self._open and not clock.daily and now - since > clock.bar_ns + self._stale_ns
        alert = self._alert(since, now, watch)
        if stale and newest_ns:
            return alert if self._book.raise_(alert, now, 0.0) else None
        firing = self._book.firing()
        return self._book.resolve(firing[0].fingerprint, iso_instant(now)) if firing and not stale else None

    def firing(self) -> list[Alert]:
        """The alert, while it fires."""
        return self._book.firing()

    def figures(self) -> dict[str, Any]:
        """For a status: whether the market is open, and how long ago a bar was decided on."""
        age = None if self._age_ns is None else self._age_ns / 1e9
        return {"feed_age_seconds": age, "session_open": self._open}

    def _alert(self, since_ns: int, now_ns: int, watch: ModelWatch | None) -> Alert:
        minutes = (now_ns - since_ns) / 60e9
        return Alert(
            name=FEED_STALE,
            slot=self._slot,
            strategy=self._strategy,
            model=watch.model if watch else "",
            model_version=watch.version if watch else "",
            severity="warning",
            since=iso_instant(since_ns),
            summary=f"slot {self._slot}: the market is open and no bar came for {minutes:.0f} minutes",
            will="nothing: missing data neither clears an alert nor advances it",
            commands=(f"sqkit monitor --slot {self._slot}", f"sqkit status --slot {self._slot}"),
            evidence={"seconds": (now_ns - since_ns) / 1e9},
        )
