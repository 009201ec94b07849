"""What a dashboard shows of a slot, read once: store, engines' own files, log and archive, as plain values.

Called from ``notebooks/05_monitor.ipynb``. Nothing is written, no lock is taken; what cannot be read is said in ``problem``
and the rest is shown.
"""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from sqkit.errors import SqkitError, UsageError
from sqkit.monitoring_baseline import SECTION, MonitoringBaseline, MonitoringRules
from sqkit.production.audit import AuditLog
from sqkit.production.bar_clock import HOURS_PER_DAY, BarClock
from sqkit.production.monitor_report import beside, by_symbol
from sqkit.production.monitor_store import MONITORING_FOLDER, STATE_FILE, MonitorStore
from sqkit.production.release_baselines import released_checklist
from sqkit.production.served_log import EngineRun, engine_runs
from sqkit.production.slots import all_slots, models_folder, slot_named
from sqkit.production.status import status as live_status
from sqkit.production.telemetry import TELEMETRY_FOLDER
from sqkit.records import instant_ns
from sqkit.sessions import load_sessions
from sqkit.settings import Settings

_NS_PER_DAY: Final = 86_400_000_000_000
_STEPS_SHOWN: Final = 15


def slots_to_show(settings: Settings, slot: str = "", root: Path = Path()) -> list[str]:
    """The slot asked for; else those of which monitoring or an engine knows anything; else all of the settings.

    Raises
    ------
    UsageError
        Nobody knows a slot of that name.
    """
    place = _store_path(settings, root)
    known = {run.slot for run in engine_runs(root / settings.data_dir / TELEMETRY_FOLDER)}
    configured = [one.name for one in all_slots(settings, root)]
    if place.is_file():
        try:
            store = MonitorStore(place, read_only=True)
            try:
                known |= set(store.slots())
            finally:
                store.close()
        except (SqkitError, sqlite3.Error):
            known |= set(configured)  # the page of each says what is wrong
    if slot and slot not in known | set(configured):
        raise UsageError(
            f"slot {slot!r}: choose one of {', '.join(sorted(known | set(configured)))}", slot=slot
        )
    return [slot] if slot else sorted(known) or configured


def read_slot(
    settings: Settings, slot: str, *, days: int, now: dt.datetime, root: Path = Path()
) -> dict[str, Any]:
    """Everything a page shows of one slot.

    Parameters
    ----------
    days
        Session days of figures and tables, counted back from the last bar.
    now
        UTC.

    Returns
    -------
    dict
        ``slot``, ``read_at``, ``problem`` (a line; empty); ``status`` as monitoring kept it, None where it watches
        nothing; ``live``, ``halted``, ``engines``, ``differences``, ``notes`` as ``sqkit status`` has them, and
        ``last_engine``; ``baseline``, ``implies`` of the watched model's decision, ``rules`` of the settings;
        ``days_in_state`` and ``waited_hours`` in session time; ``bars``, ``steps``, ``by_symbol``, ``beside``, ``acknowledged``.
    """
    runs = [run for run in engine_runs(root / settings.data_dir / TELEMETRY_FOLDER) if run.slot == slot]
    found: dict[str, Any] = {
        "slot": slot,
        "read_at": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "problem": "",
        "rules": MonitoringRules.from_settings(settings).to_dict(),
        "last_engine": _last_engine(runs),
        **_live(settings, root, slot, now),
        **_stored(_store_path(settings, root), slot, days),
    }
    status = found["status"] or {}
    checklist = _checklist_of(settings, root, slot, status.get("model_digest") or "")
    baseline = MonitoringBaseline.of_checklist(checklist)
    section = (checklist or {}).get(SECTION)
    return {
        **found,
        "baseline": asdict(baseline) if baseline else None,
        "implies": section.get("implies") if isinstance(section, Mapping) else None,
        "days_in_state": _days_in_state(runs, status),
    }


def _store_path(settings: Settings, root: Path) -> Path:
    return root / settings.data_dir / MONITORING_FOLDER / STATE_FILE


def _stored(place: Path, slot: str, days: int) -> dict[str, Any]:
    """What monitoring knows; empty where it knows nothing, with the problem where it cannot be read."""
    nothing: dict[str, Any] = {
        "status": None,
        "waited_hours": None,
        "bars": [],
        "steps": [],
        "by_symbol": [],
        "beside": [],
        "acknowledged": {},
    }
    if not place.is_file():
        return nothing
    try:
        store = MonitorStore(place, read_only=True)
        try:
            return nothing | _of_store(store, slot, days)
        finally:
            store.close()
    except (SqkitError, sqlite3.Error) as problem:
        said = getattr(problem, "message", "") or f"{place}: {problem}"
        return {**nothing, "problem": str(said)}


def _of_store(store: MonitorStore, slot: str, days: int) -> dict[str, Any]:
    known = store.load(slot)
    if known is None:
        return {}
    status = known.state["status"]
    newest = instant_ns(status["last_bar_time"]) if status["last_bar_time"] else 0
    # Twice as many days and two weeks hold so many sessions, whatever holidays there were.
    bars = store.bars(slot, max(newest - (2 * days + 14) * _NS_PER_DAY, 0))
    chosen = set(sorted({bar["session_day"] for bar in bars})[-days:])
    bars = [bar for bar in bars if bar["session_day"] in chosen]
    outcomes = store.outcomes(slot, bars[0]["bar_time"]) if bars else []
    model = status["model_digest"] or ""
    confirming = known.state["machine"]["confirmation"]
    return {
        "status": status,
        "waited_hours": known.state["machine"]["waited"][0] if confirming else None,
        "bars": bars,
        "steps": store.steps(slot)[-_STEPS_SHOWN:],
        "by_symbol": by_symbol(outcomes, model),
        "beside": beside(outcomes, model),
        "acknowledged": store.acknowledged(slot),
    }


def _live(settings: Settings, root: Path, slot: str, now: dt.datetime) -> dict[str, Any]:
    """What is live by the log, and what engines prove to serve."""
    try:
        (one,) = live_status(settings, root, now=now, slot=slot)["slots"]
    except (SqkitError, OSError) as problem:
        return {
            "live": None,
            "halted": None,
            "engines": [],
            "differences": [],
            "notes": [f"what is live cannot be read: {problem}"],
        }
    return {
        "live": one["live"],
        "halted": one["halt_level"],
        "engines": one["engines"],
        "differences": one["served"],
        "notes": one["served_notes"],
    }


def _last_engine(runs: Sequence[EngineRun]) -> dict[str, Any] | None:
    """Who served last, for a slot in which no engine runs."""
    served = [run for run in runs if run.spans]
    if not served:
        return None
    run = max(served, key=lambda run: run.heard)
    span = run.spans[-1]
    return {
        "heard": run.heard.isoformat(),
        "host": run.host,
        "model": span.digest,
        "model_version": span.version,
        "refusal": span.refusal,
    }


def _days_in_state(runs: Sequence[EngineRun], status: Mapping[str, Any]) -> float | None:
    """Session days from the last change of state to the last bar; None where nobody says of which market."""
    places = [(run.market, run.interval) for run in runs if run.market and run.interval]
    if not places or not status.get("since") or not status.get("last_bar_time"):
        return None
    try:
        clock = BarClock(load_sessions(places[-1][0]), places[-1][1])
        ends = [clock.hours(instant_ns(status[name])) for name in ("since", "last_bar_time")]
    except (SqkitError, KeyError):
        return None
    return max(ends[1] - ends[0], 0.0) / HOURS_PER_DAY


def _checklist_of(settings: Settings, root: Path, slot: str, model: str) -> dict[str, Any] | None:
    """The decision on a model of a slot, by the first digits of its digest; None where no release has it."""
    if not model:
        return None
    models_dir = models_folder(settings, root)
    try:
        log = AuditLog(models_dir, tuple(one.release_path for one in all_slots(settings, root)))
        return released_checklist(models_dir, slot_named(settings, slot, root), log, model)
    except (SqkitError, OSError):
        return None
