"""What engines served: folded from their own files, ``data/telemetry/engines/*.jsonl``.

The audit log says what was promoted; this says what scored. Where they differ, somebody should look:
``sqkit status`` and ``sqkit history --at`` show both. In: the telemetry folder. Out: one `EngineRun` a file,
each a list of what it served from when to when. A line that cannot be read is left out and counted.
"""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from sqkit.audit_log import PROMOTE
from sqkit.files import read_plain
from sqkit.production.telemetry import ENGINES_FOLDER, host_name

_SERVING: Final = ("start", "reload", "session", "stop")


@dataclass(frozen=True)
class Served:
    """What one engine served from one instant to another.

    Attributes
    ----------
    since, until
        UTC; `until` is None for what it served last.
    digest, version, release
        Of the model; None while the baseline traded alone.
    refusal
        Why it did.
    """

    since: dt.datetime
    until: dt.datetime | None
    digest: str | None
    version: str | None
    release: str | None
    refusal: str | None


@dataclass(frozen=True)
class EngineRun:
    """One engine from its start to its end.

    Attributes
    ----------
    stopped
        When it said that it stopped; None for one that runs, or was killed.
    heard, opened
        When it last said anything, and when it last began a session or started.
    spans
        What it served, oldest first.
    halted
        The level at which it is halted, as it last said.
    unreadable
        Lines of its file that are no events.
    interval, market
        Of its bars.
    """

    engine: str
    slot: str
    strategy: str
    host: str
    pid: int
    started: dt.datetime
    stopped: dt.datetime | None
    heard: dt.datetime
    opened: dt.datetime
    session: str | None
    settings_digest: str
    spans: tuple[Served, ...]
    halted: str | None
    unreadable: int
    interval: str = ""
    market: str = ""

    @property
    def running(self) -> bool | None:
        """Whether it runs; None for one of another machine that has not said that it stopped."""
        if self.stopped is not None:
            return False
        if self.host != host_name():
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except OSError:
            return True
        return True

    def at(self, instant: dt.datetime) -> Served | None:
        """What it served then; None before it started and after it was last heard of."""
        end = self.stopped or (None if self.running else self.heard)
        if end is not None and instant >= end:
            return None
        found = [span for span in self.spans if span.since <= instant]
        return found[-1] if found else None


def engine_runs(telemetry: Path) -> list[EngineRun]:
    """Every engine that ever wrote here, by its start."""
    folder = telemetry / ENGINES_FOLDER
    if not folder.is_dir():
        return []
    runs = [_run(path) for path in sorted(folder.glob("*.jsonl"))]
    return sorted((run for run in runs if run is not None), key=lambda run: run.started)


def served_at(runs: Iterable[EngineRun], slot: str, instant: dt.datetime) -> list[tuple[EngineRun, Served]]:
    """Who served what in a slot at an instant."""
    found = ((run, run.at(instant)) for run in runs if run.slot == slot)
    return [(run, span) for run, span in found if span is not None]


@dataclass(frozen=True)
class ServedSlot:
    """Who serves what in a slot, held against what the log has live there.

    Attributes
    ----------
    engines
        One plain record an engine.
    notes
        What is no difference yet, such as a promotion that waits for the next open.
    differences
        One line for each engine that serves something else.
    """

    engines: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()


def served_slot(
    runs: Iterable[EngineRun],
    slot: str,
    instant: dt.datetime,
    live: Mapping[str, Any] | None,
    placed_by: Mapping[str, Any] | None,
) -> ServedSlot:
    """What engines served in a slot at an instant, against the log.

    Parameters
    ----------
    live
        ``model`` and ``model_version`` of the live release; None: no student.
    placed_by
        The audit line that put it there.
    """
    engines, notes, differences = [], [], []
    for run, span in served_at(runs, slot, instant):
        engines.append(
            {
                "engine": run.engine,
                "host": run.host,
                "model": span.digest,
                "model_version": span.version,
                "pid": run.pid,
                "refusal": span.refusal,
                "running": run.running,
                "since": span.since.isoformat(),
            }
        )
        who = f"engine {run.engine} on {run.host} (pid {run.pid})"
        serves = span.version or f"no student ({span.refusal})"
        if span.digest == (live["model"] if live else None):
            continue
        if span.refusal == "disabled":
            notes.append(f"{who} does not score: scoring is disabled there")
        elif _waits(run, placed_by):
            notes.append(f"{who} serves {serves} until the next open, then what was promoted meanwhile")
        else:
            said = (live["model_version"] or live["model"][:12]) if live else "no student"
            differences.append(f"{who} serves {serves}, but the log has {said}")
    return ServedSlot(tuple(engines), tuple(notes), tuple(differences))


def _waits(run: EngineRun, placed_by: Mapping[str, Any] | None) -> bool:
    """Whether a promotion came after the engine's session began: it takes effect before the next one."""
    return (
        placed_by is not None
        and placed_by["kind"] == PROMOTE
        and dt.datetime.fromisoformat(placed_by["at"]) >= run.opened.replace(microsecond=0)
    )


def _run(path: Path) -> EngineRun | None:
    try:
        lines = read_plain(path, follow=False).splitlines()
    except OSError:
        return None
    events, unreadable = [], 0
    for line in lines:
        event = _event(line)
        if event is None:
            unreadable += bool(line.strip())
        else:
            events.append(event)
    started = [event for event in events if event["event"] == "start"]
    if not started:
        return None
    first, last = started[0], events[-1]
    sessions = [event["session_date"] for event in events if event["event"] == "session"]
    halts = [event for event in events if event["event"] in ("halt", "resume")]
    try:
        return EngineRun(
            engine=first["engine"],
            slot=first["slot"],
            strategy=first["strategy"],
            host=first["host"],
            pid=int(first["pid"]),
            started=first["at"],
            stopped=last["at"] if last["event"] == "stop" else None,
            heard=last["at"],
            opened=[event["at"] for event in events if event["event"] in ("start", "session")][-1],
            session=sessions[-1] if sessions else None,
            settings_digest=first["settings_digest"],
            spans=_spans(events),
            halted=halts[-1].get("level") if halts else None,
            unreadable=unreadable,
            interval=str(first.get("interval", "")),
            market=str(first.get("market", "")),
        )
    except (KeyError, TypeError, ValueError):
        return None


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        event: dict[str, Any] = json.loads(line)
        event["at"] = dt.datetime.fromisoformat(event["at"])
        return event if isinstance(event["event"], str) else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _spans(events: list[dict[str, Any]]) -> tuple[Served, ...]:
    """What was served, each time from when to when; the same again is no new time."""
    spans: list[Served] = []
    for event in events:
        if event["event"] not in _SERVING:
            continue
        if event["event"] == "stop":
            break
        now = _served(event)
        if spans and _same(spans[-1], now):
            continue
        if spans:
            spans[-1] = replace(spans[-1], until=now.since)
        spans.append(now)
    if spans and events[-1]["event"] == "stop":
        spans[-1] = replace(spans[-1], until=events[-1]["at"])
    return tuple(spans)


def _served(event: Mapping[str, Any]) -> Served:
    return Served(
        event["at"],
        None,
        event.get("model_digest"),
        event.get("model_version"),
        event.get("release"),
        event.get("refusal"),
    )


def _same(one: Served, other: Served) -> bool:
    return (one.digest, one.release, one.refusal) == (other.digest, other.release, other.refusal)
