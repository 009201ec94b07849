"""One slot, watched: records in, state and alerts out, every change in one transaction.

`SlotMonitor` joins records to outcomes, feeds the machine bar by bar, keeps everything in the store and does what the
machine asks for. What it knows follows from telemetry and from what came of its requests; the order and size of
the portions in which records arrive change nothing.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from sqkit.errors import SessionsError
from sqkit.monitoring_baseline import MonitoringBaseline, MonitoringRules
from sqkit.production.alerts import Alert, AlertBook
from sqkit.production.bar_clock import BarClock
from sqkit.production.live_outcomes import ClosedBar, Contract, OutcomeBook
from sqkit.production.monitor_machine import REFUSED, Done, Request, SlotMachine, Step
from sqkit.production.monitor_store import MonitorStore
from sqkit.production.monitor_words import alert_of, wrong_now
from sqkit.production.outcomes import DegradationAlert
from sqkit.production.slot_behaviour import SlotBehaviour
from sqkit.records import UNKNOWN, iso_instant

Act = Callable[[Request], Done]
BaselineOf = Callable[[str], MonitoringBaseline | None]


_MOST_FALSE_ALARMS = 0.5
"""A share of days; the setting may ask for false alerts more often than any limit can be set for."""


class SlotMonitor:
    """Watches one slot.

    Parameters
    ----------
    slot, strategy
        Whose records.
    clock
        Places its bars.
    rules
        The settings by which it is watched.
    baseline_of
        What a model was validated at.
    store
        Where everything is kept; what it knows of the slot is gone on from.
    act
        Does what the machine asks for; None: nothing is done by itself.
    rolls_back, behaviour_halts
        What may be asked for: a rollback or halt on evidence, a halt on behaviour.
    on_steps
        Told of changes of state once they are kept.

    Attributes
    ----------
    read
        Telemetry file to the bytes that were taken.
    """

    def __init__(
        self,
        slot: str,
        strategy: str,
        clock: BarClock,
        rules: MonitoringRules,
        baseline_of: BaselineOf,
        store: MonitorStore,
        *,
        act: Act | None = None,
        rolls_back: bool = True,
        behaviour_halts: bool = False,
        on_steps: Callable[[Iterable[Step]], None] | None = None,
    ) -> None:
        self.slot = slot
        self.strategy = strategy
        self.rules = rules
        self._baseline_of = baseline_of
        self._clock = clock
        self._store = store
        self._act = act
        self._rolls_back = rolls_back and act is not None
        self._behaviour_halts = behaviour_halts and act is not None
        self._on_steps = on_steps or (lambda steps: None)
        self.read: dict[str, int] = {}
        self._open()

    def _open(self) -> None:
        """Go on from what the store knows; afresh where it knows nothing."""
        self.book = OutcomeBook(self._clock, self._contract)
        self.machine = SlotMachine(
            self.slot, self._clock, self.rules, self._baseline_of, acts=self._rolls_back
        )
        rate = min(1.0 / self.rules.days_between_false_alerts, _MOST_FALSE_ALARMS)
        self.behaviour = SlotBehaviour(self._clock, self._baseline_of, rate)
        self.alerts = AlertBook()
        self._last: ClosedBar | None = None
        stored = self._store.load(self.slot)
        if stored is None:
            return
        self.book.restore(stored.state["book"], stored.symbols)
        self.machine.restore(stored.state["machine"])
        self.behaviour.restore(stored.state["behaviour"], self.book.symbols)
        self.alerts.restore(stored.state["alerts"])
        self._last = _last_of(stored.state["last"])
        self.read = stored.sources

    def _contract(self, model: str) -> Contract | None:
        baseline = self._baseline_of(model)
        return None if baseline is None else Contract(baseline.horizon_bars, baseline.dead_zone)

    def take(self, records: Iterable[Mapping[str, Any]], read: Mapping[str, int]) -> None:
        """Take records, with how far their files were read; whatever follows from them is kept at once.

        Should anything fail, nothing of it was taken.
        """
        for record in records:
            try:
                row = self.book.add(record)
                if row is not None:
                    self.behaviour.add(record["symbol"], row)
            except (KeyError, TypeError, ValueError, IndexError, OverflowError, SessionsError):
                self.book.counts["broken"] += 1  # a record of another form stops nobody
        self.go_on(read)

    def go_on(self, read: Mapping[str, int] | None = None) -> None:
        """Close what can be closed, and do what is asked for, until nothing is left."""
        changed = {path: at for path, at in (read or {}).items() if self.read.get(path) != at}
        if not changed and not self.book.changed and self.machine.request is None:
            return
        self._transact(lambda: self._close_bars(), changed)
        while self.machine.request is not None:
            request = self.machine.request
            done = (
                self._act(request) if self._act else Done(REFUSED, reason="nothing may be done by itself now")
            )
            self._transact(lambda done=done: self._answered(done), {})  # type: ignore[misc]

    def _answered(self, done: Done) -> list[Step]:
        assert self._last is not None
        steps = self.machine.acted(done, self._last)
        self._store.add_steps(self.slot, steps)
        self._tell(self._last.known_at_ns)
        return [*steps, *self._close_bars()]

    def _transact(self, change: Callable[[], list[Step]], read: Mapping[str, int]) -> None:
        self._store.begin()
        try:
            steps = change()
            self._save(read)
            self._store.commit()
        except BaseException:
            self._store.abandon()
            self._open()  # memory is as the disk
            raise
        self.read.update(read)
        if steps:
            self._on_steps(steps)

    def _close_bars(self) -> list[Step]:
        """Feed the machine what has its outcomes, until it asks for something."""
        steps = self._watch_behaviour()
        closed = self.book.closed()
        while self.machine.request is None and (bar := next(closed, None)) is not None:
            self._last = bar
            new = self.machine.add(bar)
            steps += new
            self._store.add_steps(self.slot, new)
            self._store.add_outcomes(self.slot, _outcomes_of(bar))
            watch = self.machine.watch
            if watch is not None:
                figures = watch.figures() | {"state": self.machine.state}
                self._store.add_bar(self.slot, bar.start_ns, bar.day, watch.model, figures)
            self._tell(bar.known_at_ns)
        return steps

    def _watch_behaviour(self) -> list[Step]:
        """Judge what was said up to the last bar but one."""
        if self.machine.request is not None:
            return []
        steps: list[Step] = []
        for change in self.behaviour.advance(self.book.newest, len(self.book.symbols)):
            self._tell(change["at_ns"])
            if change["event"] == "begins" and self._behaviour_halts and self.machine.request is None:
                steps += self.machine.ask_halt(change["name"], change, self._last_or(change))
        self._store.add_steps(self.slot, steps)
        return steps

    def _last_or(self, change: Mapping[str, Any]) -> ClosedBar:
        """The bar at which a halt is asked for: that of the alarm, in place of the last closed one."""
        last = self._last or ClosedBar(0, 0, 0, 0, 0, {})
        self._last = replace(last, number=change["bar"], known_at_ns=change["at_ns"], rows={})
        return self._last

    def _tell(self, at_ns: int) -> None:
        """Raise what is wrong now, resolve what is not any more; both go out after they are kept."""
        queued: list[Alert] = []
        firing = set()
        for wrong in wrong_now(self.machine, self.behaviour.alarms):
            alert = alert_of(wrong, self.machine, self.strategy, at_ns, behaviour_halts=self._behaviour_halts)
            firing.add(alert.fingerprint)
            if self.alerts.raise_(alert, at_ns, self.rules.alert_cooldown_hours):
                queued.append(alert)
        at = iso_instant(at_ns)
        for alert in self.alerts.firing():
            if alert.fingerprint not in firing:
                ended = self.alerts.resolve(alert.fingerprint, at)
                self._store.forget_acknowledged(self.slot, alert.fingerprint)
                if ended is not None:
                    queued.append(ended)
        if queued:
            self._store.queue(self.slot, [alert.to_dict() for alert in queued])

    def _save(self, read: Mapping[str, int]) -> None:
        last = self._last
        state = {
            "alerts": self.alerts.state(),
            "behaviour": self.behaviour.state(),
            "book": self.book.state(),
            "last": None
            if last is None
            else [last.number, last.in_session, last.day, last.start_ns, last.known_at_ns],
            "machine": self.machine.to_state(),
            "status": self.status(),
        }
        self._store.save(self.slot, state, self.book.changed, read)
        self.book.changed = {}

    def degradation(self) -> DegradationAlert | None:
        """What the sequential evidence says against the served model; None where it says nothing."""
        machine = self.machine
        if machine.confirmation is None or machine.watch is None:
            return None
        figures = machine.confirmation.figures()
        return DegradationAlert(
            self.slot,
            machine.watch.model,
            dt.datetime.fromisoformat(iso_instant(machine.raised_ns)),
            machine.confirmation.confirmed,
            machine.reason,
            figures,
            figures["previous"] or "",
        )

    def status(self) -> dict[str, Any]:
        """What a page, a scrape and ``sqkit monitor`` show of the slot; plain JSON."""
        book = self.book
        return {
            "alerts": [alert.to_dict() for alert in self.alerts.firing()],
            "behaviour": dict(sorted(self.behaviour.alarms.items())),
            "counts": dict(sorted(book.counts.items())),
            "last_bar_time": iso_instant(book.newest_ns) if book.newest_ns else None,
            "last_decision_time": iso_instant(book.newest_decision_ns) if book.newest_decision_ns else None,
            "pending_outcomes": book.pending,
            "recent_alerts": [alert.to_dict() for alert in self.alerts.recent(10)],
            "slot": self.slot,
            "strategy": self.strategy,
            **self.machine.figures(),
        }


def _last_of(stored: list[int] | None) -> ClosedBar | None:
    """The last closed bar as it is kept: without its rows."""
    if stored is None:
        return None
    number, in_session, day, start_ns, known_at_ns = stored
    return ClosedBar(number, in_session, day, start_ns, known_at_ns, {})


def _outcomes_of(bar: ClosedBar) -> Iterable[tuple[Any, ...]]:
    """Judged rows with a known outcome, as the store keeps them."""
    for symbol, row in bar.rows.items():
        if row.said.judged and row.outcome != UNKNOWN:
            shadows = [[role, voice.model, voice.call] for role, voice in row.shadows if voice.judged]
            said = row.said
            yield (
                symbol,
                row.start_ns,
                row.day,
                said.model,
                said.call,
                said.probability_up,
                row.outcome,
                shadows,
            )
