"""Commands about the live model: ``sqkit monitor`` with what it can rehearse, and ``sqkit ack``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from sqkit.cli.words import Json, Switch, app, group, show
from sqkit.errors import UsageError

if TYPE_CHECKING:
    from sqkit.production.monitor_rehearsal import Watched
    from sqkit.production.monitor_store import MonitorStore
    from sqkit.settings import Settings

monitor = group("monitor", "Watch the live model: how good it is, what is wrong, what will happen.")

_FEWEST_DIGITS = 4

Seconds = Annotated[float, Parameter(name="--every")]


@monitor.default
def status(
    *,
    slot: str = "",
    follow: Switch = False,
    every: Seconds = 5.0,
    challenger: Switch = False,
    json: Json = False,
) -> int:
    """Take in what engines have written and show each slot's state; exit 1 while anything alerts.

    Where an engine monitors the slot already, what that one knows is shown. Otherwise this process does: with
    SENSEQUANT_STUDENT_MONITORING_ENABLED=true it keeps the state, sends alerts and acts as the settings allow;
    without it, it only looks.

    Parameters
    ----------
    slot
        One slot; by default every one of which engines have written.
    follow
        Go on until interrupted.
    every
        With --follow: seconds from one look to the next.
    challenger
        Compare the served model with those that were asked beside it, on the same rows.
    json
        Print everything as JSON, with --follow one object a line.
    """
    from sqkit.files import canonical_json
    from sqkit.production.monitor_report import beside, beside_lines, status_lines
    from sqkit.settings import Settings

    settings = Settings()
    services = [_service(settings, one) for one in _watched(settings, slot)]
    try:
        while True:
            found, lines = [], list[str]()
            for service in services:
                service.poll()
                known = service.status() | {"implies": service.implies()}
                lines += status_lines(known)
                if challenger:
                    rows = beside(service.outcomes(), known.get("model_digest") or "")
                    known, lines = known | {"beside": rows}, [*lines, *beside_lines(rows)]
                found.append(known)
            alerting = any(one.get("alerts") for one in found)
            if not services:
                lines = ["no engine has written telemetry yet; start one, or try sqkit replay"]
            if not follow:
                show({"slots": found}, json, lines)
                return 1 if alerting else 0
            if json:
                print(canonical_json({"slots": found}, indent=None), end="", flush=True)
            else:
                show({}, False, [time.strftime("%H:%M:%S"), *lines, ""])
            time.sleep(every)
    finally:
        for service in services:
            service.close()


@monitor.command(name="dry-run")
def dry_run(*, slot: str = "", json: Json = False) -> int:
    """Tell what monitoring, allowed to act, would have done over all telemetry, restores into a scratch folder included.

    Nothing is changed, kept or sent.

    Parameters
    ----------
    slot
        One slot; by default every one of which engines have written.
    json
        Print everything as JSON.
    """
    from sqkit.production.monitor_rehearsal import dry_run as rehearse
    from sqkit.settings import Settings

    settings = Settings()
    done, lines = {}, list[str]()
    for watched in _watched(settings, slot):
        told = rehearse(watched)
        done[watched.slot] = told
        lines += [f"slot {watched.slot}: {told['records']:,} records"]
        lines += [f"  {step['at']}  {_move(step)}: {step['reason']}" for step in told["steps"]]
        for one in told["done"]:
            lines.append(f"  would have been asked: {one['asked']}, {one['reason']}")
            lines += [f"    {step}" for step in one.get("steps", ())]
        if not told["done"]:
            lines.append("  nothing would have been rolled back or halted")
    show({"slots": done}, json, lines or ["no engine has written telemetry yet"])
    return 0


@monitor.command
def rebuild(*, slot: str = "", json: Json = False) -> int:
    """Make the state anew from all telemetry; exit 1 when it is not what was there.

    Parameters
    ----------
    slot
        One slot; by default every one of which engines have written.
    json
        Print everything as JSON.
    """
    from sqkit.production.monitor_rehearsal import rebuild as make_anew
    from sqkit.settings import Settings

    settings = Settings()
    done, lines, differs = {}, list[str](), False
    for watched in _watched(settings, slot):
        told = make_anew(watched)
        done[watched.slot] = told
        differs |= bool(told["differs"])
        if told["aside"]:
            lines.append(f"slot {watched.slot}: the state could not be used; it lies in {told['aside']} now")
        what = (
            f"other than before: {', '.join(told['differs'])}" if told["differs"] else "the same to the bit"
        )
        lines.append(f"slot {watched.slot}: rebuilt from {told['records']:,} records, {what}")
    show({"slots": done}, json, lines or ["no engine has written telemetry yet"])
    return 1 if differs else 0


@app.command
def ack(
    fingerprint: str,
    /,
    *,
    note: str = "",
    as_: Annotated[str, Parameter(name="--as")] = "",
    json: Json = False,
) -> int:
    """Say that an alert was seen: it is not sent again until it has ended.

    Parameters
    ----------
    fingerprint
        Its first digits, as the alert has them.
    note
        Kept beside it.
    as_
        Your name; by default the account's.
    json
        Print what was kept as JSON.
    """
    import datetime as dt

    from sqkit.people import Actor, one_line
    from sqkit.production.monitor_store import MONITORING_FOLDER, STATE_FILE, MonitorStore
    from sqkit.settings import Settings

    place = Path(Settings().data_dir) / MONITORING_FOLDER / STATE_FILE
    if not place.is_file():
        raise UsageError(f"{place}: nothing is monitored here yet, so there is no alert to acknowledge")
    store = MonitorStore(place)
    try:
        firing = [(name, alert) for name in store.slots() for alert in _firing(store, name)]
        found = [one for one in firing if one[1]["fingerprint"].startswith(fingerprint)]
        if len(found) != 1 or len(fingerprint) < _FEWEST_DIGITS:
            known = ", ".join(alert["fingerprint"] for _, alert in firing) or "none"
            raise UsageError(
                f"{fingerprint}: {len(found)} firing alerts begin so (give at least {_FEWEST_DIGITS} digits); firing: "
                f"{known}",
                fingerprint=fingerprint,
            )
        name, alert = found[0]
        by = Actor.here(as_)
        said = {
            "at": dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "by": by.to_dict(),
            "note": one_line(note),
        }
        store.acknowledge(name, alert["fingerprint"], said)
    finally:
        store.close()
    show(
        {"alert": alert, **said},
        json,
        [f"slot {name}: {alert['name']} is acknowledged by {by.name}; it is not sent again until it ended"],
    )
    return 0


def _move(step: dict[str, Any]) -> str:
    before, after = step["before"], step["after"]
    return after if before == after else f"{before} -> {after}"


def _firing(store: MonitorStore, slot: str) -> list[dict[str, Any]]:
    stored = store.load(slot)
    return list(stored.state["status"]["alerts"]) if stored else []


def _watched(settings: Settings, slot: str) -> list[Watched]:
    """Each slot of which engines have written, as the newest engine that served it says."""
    from sqkit.production.monitor_rehearsal import Watched
    from sqkit.production.served_log import engine_runs
    from sqkit.production.telemetry import TELEMETRY_FOLDER

    runs = engine_runs(Path(settings.data_dir) / TELEMETRY_FOLDER)
    newest = {run.slot: run for run in runs if run.interval and run.market and _judged(run)}
    if slot and slot not in newest:
        known = ", ".join(sorted(newest)) or "none"
        raise UsageError(f"slot {slot}: no engine has written of it; known: {known}", slot=slot)
    return [
        Watched(settings, run.strategy, run.market, run.interval)
        for name, run in sorted(newest.items())
        if slot in ("", name)
    ]


def _judged(run: Any) -> bool:
    """Whether an engine's strategy was its slot's: another one's bars are of another length."""
    return not run.spans or any(span.refusal != "strategy_mismatch" for span in run.spans)


def _service(settings: Settings, watched: Watched) -> Any:
    from sqkit.production.monitor_wiring import monitoring_service

    return monitoring_service(
        settings,
        strategy=watched.strategy,
        market=watched.market,
        interval=watched.interval,
        keeps=settings.student_monitoring_enabled,
    )
