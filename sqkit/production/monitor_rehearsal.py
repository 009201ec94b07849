"""Monitoring over past telemetry: rebuilt from the start, or tried out as if it had been allowed to act.

`rebuild` replaces what a slot's state file knows by what telemetry and audit log say; `dry_run` tells what would have
happened, restores included, and changes nothing.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqkit.audit_log import read_audit
from sqkit.errors import ArtifactChanged, ConflictError, SqkitError
from sqkit.files import lock_file
from sqkit.monitoring_baseline import MonitoringRules
from sqkit.production.bar_clock import BarClock
from sqkit.production.changes import Production
from sqkit.production.drill import rehearsed_rollback
from sqkit.production.live_outcomes import PREVIOUS
from sqkit.production.monitor_actions import RecordedActions
from sqkit.production.monitor_machine import (
    REFUSED,
    ROLL_BACK,
    ROLLED_BACK,
    STUDENT_HALTED,
    Done,
    Request,
)
from sqkit.production.monitor_store import IN_MEMORY, MONITORING_FOLDER, STATE_FILE, MonitorStore
from sqkit.production.release_baselines import ReleaseBaselines
from sqkit.production.slot_monitor import Act, BaselineOf, SlotMonitor
from sqkit.production.slots import models_folder, slot_named
from sqkit.production.telemetry import TELEMETRY_FOLDER
from sqkit.production.telemetry_tail import TelemetryTail
from sqkit.sessions import load_sessions
from sqkit.settings import Settings

_DIGITS = 12


@dataclass(frozen=True)
class Watched:
    """Which slot of which project, and what its bars are.

    Attributes
    ----------
    baseline_of
        What a model was validated at; None: as its release says.
    """

    settings: Settings
    strategy: str
    market: str
    interval: str
    root: Path = field(default_factory=Path)
    baseline_of: BaselineOf | None = None

    @property
    def production(self) -> Production:
        """The project's production places."""
        return Production(self.settings, self.root)

    @property
    def slot(self) -> str:
        """Name of the slot."""
        return slot_named(self.settings, self.strategy, self.root).name

    @property
    def folder(self) -> Path:
        """Where monitoring keeps its state."""
        return self.root / self.settings.data_dir / MONITORING_FOLDER

    @property
    def telemetry(self) -> Path:
        """Where engines write."""
        return self.root / self.settings.data_dir / TELEMETRY_FOLDER

    def monitor(self, store: MonitorStore, act: Act | None, *, rehearses: bool = False) -> SlotMonitor:
        """A monitor of the slot that keeps what it finds in a store; one that rehearses may do what the settings forbid."""
        production = self.production
        place = slot_named(self.settings, self.strategy, self.root)
        baselines = self.baseline_of or ReleaseBaselines(production.models_dir, place, production.log)
        clock = BarClock(load_sessions(self.market, self.settings.sessions_file), self.interval)
        rules = MonitoringRules.from_settings(self.settings)
        return SlotMonitor(
            self.slot,
            self.strategy,
            clock,
            rules,
            baselines,
            store,
            act=act,
            rolls_back=self.settings.student_auto_rollback_enabled or rehearses,
            behaviour_halts=self.settings.student_behaviour_halt_enabled,
        )


def rebuild(watched: Watched) -> dict[str, Any]:
    """Make a slot's state anew from all its telemetry; what was done by itself is taken from the audit log.

    Returns
    -------
    dict
        ``records`` that were read, ``differs``: tables that are not as they were, and the ``status``.

    Raises
    ------
    ConflictError
        Somebody monitors the slot now.
    """
    lock = watched.folder / f"{watched.slot}.lock"
    held = lock_file(lock)
    if held is None:
        raise ConflictError(
            f"slot {watched.slot}: it is monitored by a running process; stop that engine and run again"
        )
    try:
        with tempfile.TemporaryDirectory(dir=watched.folder) as beside:
            return _rebuilt(watched, Path(beside) / STATE_FILE)
    finally:
        os.close(held)


def _rebuilt(watched: Watched, place: Path) -> dict[str, Any]:
    entries = read_audit(models_folder(watched.settings, watched.root))
    settings = watched.settings
    acts = settings.student_auto_rollback_enabled or settings.student_behaviour_halt_enabled
    state = watched.folder / STATE_FILE
    aside = _set_aside(state)
    fresh = MonitorStore(place)
    monitor = watched.monitor(fresh, RecordedActions(entries, watched.slot) if acts else None)
    records = sum(_fed(watched, monitor))
    now = fresh.contents(watched.slot)
    fresh.close()
    store = MonitorStore(watched.folder / STATE_FILE)
    try:
        before = store.contents(watched.slot)
        store.take_over(watched.slot, place)
    finally:
        store.close()
    differs = [table for table, rows in now.items() if rows != before[table]]
    return {"aside": aside, "differs": differs, "records": records, "status": monitor.status()}


def _set_aside(state: Path) -> str | None:
    """Move a state file away that cannot be used; its new name. Other slots' knowledge, and what was acknowledged, go with it."""
    try:
        store = MonitorStore(state)
        store.slots()
        store.close()
        return None
    except (ArtifactChanged, sqlite3.DatabaseError):
        number = 1
        while (aside := state.with_name(f"{state.name}.unusable-{number}")).exists():
            number += 1
        state.rename(aside)
        return str(aside)


def _fed(watched: Watched, monitor: SlotMonitor) -> Iterator[int]:
    """Feed a monitor all telemetry; how many records each portion had."""
    tail = TelemetryTail(watched.telemetry, watched.slot, watched.strategy)
    for day in tail.days():
        for lines in tail.new(day):
            monitor.take((line.record for line in lines), tail.read)
            yield len(lines)


class Rehearsal:
    """Plays what a machine asks for in a scratch folder, and goes on as if it had been done.

    After a rollback the earlier release is the served one: what it said in shadow counts from then on.

    Attributes
    ----------
    told
        What would have been done, in order.
    """

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        self._served = ""
        self._halted = False
        self.told: list[dict[str, Any]] = []

    def __call__(self, request: Request) -> Done:
        """Restore in a scratch folder, or halt in thought."""
        return self._roll_back(request) if request.kind == ROLL_BACK else self._halt(request)

    def _roll_back(self, request: Request) -> Done:
        watched = self._watched
        tried: dict[str, Any] = {"asked": request.kind, "at": request.raised_at, "reason": request.reason}
        try:
            production = watched.production
            model, steps = rehearsed_rollback(production, production.slot(watched.slot), request.restores)
            tried |= {"restored": model[:_DIGITS], "steps": list(steps)}
        except (SqkitError, OSError) as problem:  # it is about the past: today's log may go elsewhere
            tried |= {"restored": None, "steps": [f"refused: {' '.join(str(problem).split())}"]}
            self.told.append(tried)
            return Done(REFUSED, reason=str(problem))
        self.told.append(tried)
        self._served = request.restores
        return Done(ROLLED_BACK, request.restores, "in a scratch folder")

    def _halt(self, request: Request) -> Done:
        self.told.append({"asked": request.kind, "at": request.raised_at, "reason": request.reason})
        self._halted = True
        return Done(STUDENT_HALTED, reason=request.reason)

    def as_served(self, record: Mapping[str, Any]) -> Mapping[str, Any]:
        """A record as an engine would have written it after what was done so far."""
        if record["event"] != "prediction":
            return record
        if self._halted:
            return {
                **record,
                "reason": "halted",
                "student_prediction": "FLAT",
                "student_probability_up": None,
            }
        shadows = record.get("challengers") or []
        now = next((one for one in shadows if one["student_model_digest"] == self._served), None)
        if now is None:
            return record
        others = [one for one in shadows if one is not now and one.get("role") != PREVIOUS]
        return {
            **record,
            **{name: value for name, value in now.items() if name != "role"},
            "challengers": others,
        }


def dry_run(watched: Watched, on_portion: Callable[[int], None] = lambda records: None) -> dict[str, Any]:
    """What monitoring, allowed to act, would have done over all telemetry of a slot; nothing is changed.

    Parameters
    ----------
    on_portion
        Told how many records were gone through.

    Returns
    -------
    dict
        ``steps``: every change of state; ``done``: what would have been rolled back or halted, with what a restore
        in a scratch folder did; ``status`` at the end.
    """
    store = MonitorStore(IN_MEMORY)
    rehearsal = Rehearsal(watched)
    monitor = watched.monitor(store, rehearsal, rehearses=True)
    tail = TelemetryTail(watched.telemetry, watched.slot, watched.strategy)
    records = 0
    for day in tail.days():
        for lines in tail.new(day):
            bar: list[Mapping[str, Any]] = []
            for line in lines:  # bar by bar: what was done counts for the next one
                if bar and line.record.get("bar_time") != bar[-1].get("bar_time"):
                    monitor.take(bar, {})
                    bar = []
                bar.append(rehearsal.as_served(line.record))
            monitor.take(bar, {})
            records += len(lines)
            on_portion(records)
    return {
        "done": rehearsal.told,
        "records": records,
        "status": monitor.status(),
        "steps": store.steps(monitor.slot),
    }
