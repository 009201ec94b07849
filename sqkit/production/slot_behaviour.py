"""What a slot's model says while its outcomes are not known yet: bar by bar, as soon as the next bar is there.

Alarms come within minutes. They warn; by themselves they never roll back.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from sqkit.monitoring_baseline import MonitoringBaseline
from sqkit.production.bar_clock import BarClock
from sqkit.production.behaviour import BehaviourWatch
from sqkit.production.live_outcomes import Row
from sqkit.records import DIRECTIONS

BEHAVIOUR: Final = "behaviour_"
"""Before the alarm's name: the alert."""

LATENCY: Final = "latency"
SLOW_US: Final = 5_000.0
SLOW_BARS: Final = 5
"""Decisions whose median takes so many microseconds on so many bars in a row are slow."""


class SlotBehaviour:
    """Feeds one slot's rows to the watch of the model that spoke.

    Parameters
    ----------
    clock
        Places its bars.
    baseline_of
        What a model was validated at; one without a known behaviour is not watched.
    false_alarms_per_day
        Share of session days with a false alarm.

    Attributes
    ----------
    alarms
        Alarm to its figures and since when, UTC nanoseconds.
    """

    def __init__(
        self,
        clock: BarClock,
        baseline_of: Callable[[str], MonitoringBaseline | None],
        false_alarms_per_day: float,
    ) -> None:
        self._clock = clock
        self._baseline_of = baseline_of
        self._rate = false_alarms_per_day
        self._waiting: dict[int, dict[str, Row]] = {}
        self._up_to = -1
        self._watch: BehaviourWatch | None = None
        self._of = ("", 0)
        self._slow_bars = 0
        self.alarms: dict[str, dict[str, Any]] = {}

    def add(self, symbol: str, row: Row) -> None:
        """Take a row; one of a bar that was judged already is too late for that."""
        if row.number > self._up_to:
            self._waiting.setdefault(row.number, {})[symbol] = row

    def advance(self, newest: int, symbols: int) -> list[dict[str, Any]]:
        """Judge every bar before the newest one; the alarms that begin or end, each with ``at_ns`` and ``model``.

        Parameters
        ----------
        symbols
            So many are traded in the slot.
        """
        changes: list[dict[str, Any]] = []
        for number in sorted(one for one in self._waiting if one < newest):
            rows = self._waiting.pop(number)
            self._up_to = number
            changes += self._judge(rows, symbols)
        return changes

    def _judge(self, rows: Mapping[str, Row], symbols: int) -> list[dict[str, Any]]:
        said = {name: row for name, row in sorted(rows.items()) if row.said.model}
        if not said:
            return []
        models = sorted(row.said.model for row in said.values())
        model = models[len(models) // 2]
        self._follow(model, symbols)
        first = next(iter(said.values()))
        found = self._time(said.values())
        if self._watch is not None:
            found += self._watch.update(*self._words(said, model, first))
        at_ns = self._clock.available_ns(first.start_ns, first.day)
        about = {"at_ns": at_ns, "bar": first.number, "model": model}
        changes = [{**change, **about} for change in found]
        for change in changes:
            if change["event"] == "begins":
                self.alarms[change["name"]] = change
            else:
                self.alarms.pop(change["name"], None)
        return changes

    def _words(
        self, said: Mapping[str, Row], model: str, first: Row
    ) -> tuple[int, list[tuple[str, float | None, str, str]]]:
        """Number of the bar in its session, and the rows of one model."""
        in_session = self._clock.place(first.start_ns, first.day).in_session
        words = [
            (DIRECTIONS[row.said.call], row.said.probability_up, row.said.reason, name)
            for name, row in said.items()
            if row.said.model == model
        ]
        return in_session, words

    def _time(self, rows: Iterable[Row]) -> list[dict[str, Any]]:
        """Whether decisions take too long, bar after bar; the usual is tens of microseconds."""
        taken = [row.latency_us for row in rows if row.latency_us is not None]
        median = statistics.median(taken) if taken else 0.0
        self._slow_bars = self._slow_bars + 1 if median > SLOW_US else 0
        slow, known = self._slow_bars >= SLOW_BARS, LATENCY in self.alarms
        if slow == known or (known and self._slow_bars):
            return []
        return [
            {
                "event": "begins" if slow else "ends",
                "expected": 0.0,
                "limit": SLOW_US,
                "name": LATENCY,
                "observed": median,
                "z": median,
            }
        ]

    def _follow(self, model: str, symbols: int) -> None:
        """Another model, or more symbols: another watch; a model's alarms end with it."""
        if self._of == (model, symbols):
            return
        baseline = self._baseline_of(model)
        before, same = self._watch, self._of[0] == model
        self._of = (model, symbols)
        if baseline is None or baseline.behaviour is None:
            self._watch = None
            self.alarms = {name: said for name, said in self.alarms.items() if name == LATENCY}
            return
        self._watch = BehaviourWatch(baseline.behaviour, false_alarms_per_day=self._rate, symbols=symbols)
        if same and before is not None:
            self._watch.restore(before.state())
        else:
            self.alarms = {name: said for name, said in self.alarms.items() if name == LATENCY}

    def state(self) -> dict[str, Any]:
        """Plain JSON values; rows that wait are the slot's open ones."""
        return {
            "alarms": self.alarms,
            "of": list(self._of),
            "slow_bars": self._slow_bars,
            "up_to": self._up_to,
            "watch": self._watch.state() if self._watch else None,
        }

    def restore(self, state: Mapping[str, Any], symbols: Mapping[str, list[Row]]) -> None:
        """Go on from there, with the rows that the slot's symbols still have."""
        model, count = state["of"]
        if model:
            self._follow(model, count)
        if self._watch is not None and state["watch"] is not None:
            self._watch.restore(state["watch"])
        self.alarms = {name: dict(said) for name, said in state["alarms"].items()}
        self._up_to, self._slow_bars = state["up_to"], state["slow_bars"]
        for name, rows in symbols.items():
            for row in rows:
                self.add(name, row)
