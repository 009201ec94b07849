"""Commands that say what is live, what was, and what is wrong: ``sqkit status``, ``history`` and ``doctor``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sqkit.cli.words import Json, Switch, app, show

if TYPE_CHECKING:
    from sqkit.chain import Entry
    from sqkit.settings import Settings


@app.command
def status(*, slot: str | None = None, json: Json = False) -> int:
    """Say what is live in every slot, since when, by whom and on what decision; nothing is written.

    Ends with the head of the audit log: note it elsewhere, and nobody can cut the log unseen. Exit 1
    when production, or what an engine serves, is not what the log says, 4 when the log does not hold.

    Parameters
    ----------
    slot
        default, or a strategy; by default every slot.
    json
        Print everything as JSON.
    """
    from sqkit.production.status import status as state_of_production
    from sqkit.production.status_words import status_lines
    from sqkit.settings import Settings
    from sqkit.versions import run_time

    found = state_of_production(Settings(), now=run_time(os.environ), slot=slot)
    show(found, json, status_lines(found))
    if found["log"]["problem"]:
        return 4
    return 1 if any(one["problems"] or one["served"] for one in found["slots"]) else 0


@app.command
def history(*, at: str | None = None, slot: str | None = None, json: Json = False) -> int:
    """Tell every event of the audit log, newest last; or with --at what was live at a time and why.

    Parameters
    ----------
    at
        A date (YYYY-MM-DD) or month (YYYY-MM) of the market, whose end counts, or a time with its
        zone such as 2025-03-14T09:15:00+05:30.
    slot
        default, or a strategy; by default every slot.
    json
        Print everything as JSON.
    """
    from sqkit.production.history import event_lines, events
    from sqkit.production.moment import zone_of
    from sqkit.settings import Settings

    settings = Settings()
    entries = _entries(settings)
    elsewhere = "" if entries else _kept_elsewhere(settings)
    if elsewhere:
        print(f"sqkit: {elsewhere}", file=sys.stderr, flush=True)
    name = _slot_name(settings, entries, slot)
    zone = zone_of(settings, entries, name)
    if at is not None and not elsewhere:
        return _as_of(settings, entries, at, name, zone, as_json=json)
    found = events(entries, name)
    show({"events": found, "zone": zone}, json, [] if elsewhere else event_lines(found, zone))
    return 0


def _kept_elsewhere(settings: Settings) -> str:
    """Of a host that holds releases and never had a log: where the history is; else empty."""
    from sqkit.audit_log import AUDIT_FILE
    from sqkit.production.slot_check import has_log
    from sqkit.production.slots import all_slots, models_folder

    models_dir = models_folder(settings)
    if has_log(models_dir) or not any(slot.release_path.exists() for slot in all_slots(settings)):
        return ""
    return (
        f"no audit log here ({models_dir / AUDIT_FILE}): history is kept where releases are promoted; sqkit status says "
        "what the record beside the model says"
    )


def _as_of(
    settings: Settings, entries: list[Entry], at: str, slot: str | None, zone: str, *, as_json: bool
) -> int:
    from sqkit.production.as_of import as_of, as_of_lines
    from sqkit.production.moment import moment
    from sqkit.production.served_log import engine_runs
    from sqkit.versions import run_time

    asked = moment(at, zone)
    known = [*settings.slot_paths(), *(entry["slot"] for entry in entries)]
    slots = [slot] if slot else list(dict.fromkeys(known))
    answer = as_of(entries, asked, slots, run_time(os.environ), runs=engine_runs(_telemetry(settings)))
    show(answer, as_json, as_of_lines(answer, asked))
    return 0


def _telemetry(settings: Settings) -> Path:
    from sqkit.production.telemetry import TELEMETRY_FOLDER

    return Path(settings.data_dir) / TELEMETRY_FOLDER


def _entries(settings: Settings) -> list[Entry]:
    """Verified lines of the log; none on a host that has no log."""
    from sqkit.production.audit import AuditLog
    from sqkit.production.slot_check import has_log
    from sqkit.production.slots import all_slots, models_folder

    models_dir = models_folder(settings)
    releases = tuple(slot.release_path for slot in all_slots(settings))
    return AuditLog(models_dir, releases).entries() if has_log(models_dir) else []


def _slot_name(settings: Settings, entries: list[Entry], slot: str | None) -> str | None:
    """A slot that the log knows, also where the settings no longer do; else one of the settings."""
    from sqkit.production.slots import slot_named

    if slot is None or any(entry["slot"] == slot for entry in entries):
        return slot
    return slot_named(settings, slot).name


@app.command
def doctor(*, fix: Switch = False, json: Json = False) -> int:
    """List what is inconsistent in settings and production, one line each; exit 1 if anything is.

    Parameters
    ----------
    fix
        First finish what a crash left, as the next promotion would.
    json
        Print the problems as JSON.
    """
    from sqkit.production.doctor import doctor_lines, find_problems, mend
    from sqkit.settings import Settings

    settings = Settings()
    done = mend(settings) if fix else []
    problems = find_problems(settings)
    listed = [{"mends": problem.mends, "what": problem.what} for problem in problems]
    show({"mended": done, "problems": listed}, json, doctor_lines(done, problems))
    return 1 if problems else 0
