"""A webhook for every line of the audit log, as standard-webhooks has it (https://www.standardwebhooks.com).

`announce` is called once a line is durable. It starts a process of its own that sends the event
(`sqkit.production.webhook_delivery`) and returns: whatever the receiver does, a promotion, rollback or
halt neither waits for it nor fails. Each event names the log's line, so a receiver is a witness of it.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from sqkit.audit_log import (
    ATTEST,
    AUDIT_FILE,
    DRILL,
    HALT,
    MONITOR,
    OBJECTION,
    POLICY,
    PROMOTE,
    QUARANTINE_RELEASE,
    RATIFY,
    RESUME,
    ROLLBACK,
    UNMANAGED,
)
from sqkit.chain import Entry
from sqkit.files import canonical_json
from sqkit.production.slots import models_folder
from sqkit.production.webhook_delivery import BACK_OFF_SECONDS, TIMEOUT_SECONDS, signing_key, split_url
from sqkit.settings import PREFIX, Settings

logger = logging.getLogger(__name__)

DELIVERIES_FILE: Final = "webhooks.jsonl"

_EVENTS: Final = {
    PROMOTE: "release.promoted",
    ROLLBACK: "release.rolled_back",
    UNMANAGED: "release.found_unmanaged",
    HALT: "slot.halted",
    RESUME: "slot.resumed",
    RATIFY: "rollback.ratified",
    QUARANTINE_RELEASE: "quarantine.released",
    POLICY: "policy.accepted",
    DRILL: "drill.passed",
    ATTEST: "box.attested",
    OBJECTION: "candidate.objected",
    MONITOR: "monitoring.step",
}
_MORE: Final = {
    PROMOTE: ("reduced_control",),
    ROLLBACK: ("automatic", "quarantines"),
    HALT: ("level",),
    RATIFY: ("rollback",),
    QUARANTINE_RELEASE: ("model",),
    POLICY: ("policy_digest",),
    DRILL: ("milliseconds",),
    ATTEST: ("box", "release"),
    OBJECTION: ("fact", "model", "what"),
    MONITOR: ("after", "before", "evidence", "known_at", "model", "step"),
}
_LONGEST_TEXT: Final = 1000


def webhook_problems(settings: Settings) -> list[str]:
    """Why no event could be sent, one line each without any secret; empty where none is asked for."""
    if not settings.webhook_url:
        return []
    problems = []
    try:
        split_url(settings.webhook_url)
    except ValueError as problem:
        problems.append(f"{PREFIX}WEBHOOK_URL: {problem}; no event is sent until it is corrected")
    try:
        signing_key(settings.webhook_secret.get_secret_value())
    except ValueError as problem:
        problems.append(f"{PREFIX}WEBHOOK_SECRET: {problem}; no event is sent until it is corrected")
    return problems


def announce(
    settings: Settings, entry: Entry, *, root: Path, previous: Mapping[str, Any] | None = None
) -> None:
    """Send the event of an audit line, if a webhook is set; returns at once and never raises.

    The result of the delivery goes to ``data/models/webhooks.jsonl``. Where it cannot even be started,
    one warning is logged.

    Parameters
    ----------
    entry
        As appended to the audit log.
    root
        The project's root.
    previous
        What was live before, as ``release``, ``model`` and ``model_version``; by default as the log says.
    """
    if not settings.webhook_url:
        return
    try:
        problems = webhook_problems(settings)
        if problems:
            logger.warning("no webhook was sent: %s", problems[0])
            return
        models_dir = models_folder(settings, root).resolve()
        log = (models_dir / AUDIT_FILE).read_bytes().splitlines()
        line = line_number(log, entry["digest"])
        event = event_of(entry, line=line, previous={**_replaced(log, entry), **(previous or {})})
        start_delivery(
            {
                "back_off_seconds": BACK_OFF_SECONDS,
                "body": canonical_json(event, indent=None).strip(),
                "id": f"audit_{entry['digest']}",
                "line": line,
                "log": str(models_dir / DELIVERIES_FILE),
                "secret": settings.webhook_secret.get_secret_value(),
                "timeout_seconds": TIMEOUT_SECONDS,
                "type": event["type"],
                "url": settings.webhook_url,
            }
        )
    except Exception as problem:  # noqa: BLE001 - a webhook never stops what it tells of
        logger.warning("no webhook was sent: its process could not be started (%s)", type(problem).__name__)


def event_of(entry: Entry, *, line: int | None, previous: Mapping[str, Any] | None) -> dict[str, Any]:
    """The event of an audit line: type, time, and what a receiver needs to know.

    ``previous`` and ``new`` are null unless the line changed what is live; a rollback to no student
    has a ``new`` of nulls. ``decision`` is the digest of the checklist that a promotion rests on.
    """
    kind = entry["kind"]
    moves = kind in (PROMOTE, ROLLBACK)
    data = {
        "actor": entry["actor"],
        "audit": {"digest": entry["digest"], "line": line},
        "decision": entry.get("digests", {}).get("checklist"),
        "new": _release(entry) if moves else None,
        "previous": _release(previous) if moves and previous else None,
        "reason": entry.get("reason") or entry.get("comment") or entry.get("note") or "",
        "slot": entry["slot"],
        "sqkit_version": entry["sqkit_version"],
        **{name: entry.get(name) for name in _MORE.get(kind, ())},
    }
    event = {"data": data, "timestamp": entry["at"], "type": _type(entry)}
    return _bounded(event)  # type: ignore[no-any-return]


def _type(entry: Entry) -> str:
    if entry["kind"] == DRILL and not entry["passed"]:
        return "drill.failed"
    return _EVENTS.get(entry["kind"], f"audit.{entry['kind']}")


def _release(said: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "model": said.get("model") or said.get("digests", {}).get("model"),
        "model_version": said.get("model_version"),
        "release": said.get("release"),
    }


def _bounded(value: Any) -> Any:
    """The same value with texts cut that a person made too long: an event stays small."""
    if isinstance(value, dict):
        return {name: _bounded(one) for name, one in value.items()}
    if isinstance(value, str) and len(value) > _LONGEST_TEXT:
        return value[: _LONGEST_TEXT - 1] + "…"
    return value


def line_number(log: Sequence[bytes], digest: str) -> int | None:
    """Number of the line of this digest, counted from 1; None where the log has none."""
    named = f'"digest":"{digest}"'.encode()
    return next((number for number, line in enumerate(log, 1) if named in line), None)


def _replaced(log: Sequence[bytes], entry: Entry) -> Mapping[str, Any]:
    """What the line replaced, with the version that the line of its promotion names; empty for nothing."""
    replaced: Mapping[str, Any] = entry.get("replaces") or {}
    if not replaced:
        return {}
    named = canonical_json({"release": replaced["release"]}, indent=None).strip()[1:-1].encode()
    for line in log:
        if named in line:
            said = json.loads(line)
            if said["kind"] == PROMOTE and said["release"] == replaced["release"]:
                return {**replaced, "model_version": said["model_version"]}
    return replaced


def start_delivery(job: Mapping[str, Any]) -> None:
    """Start a process that delivers this and outlives ours; secret and event go through its standard input."""
    environment = {name: value for name, value in os.environ.items() if not name.upper().startswith(PREFIX)}
    environment["PYTHONPATH"] = os.pathsep.join(os.path.abspath(place) for place in sys.path)  # noqa: PTH100
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "sqkit.production.webhook_delivery"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        cwd="/",
        env=environment,
        start_new_session=True,
    )
    threading.Thread(target=process.wait, name="webhook", daemon=True).start()  # leaves no zombie behind
    assert process.stdin is not None
    data = json.dumps(job).encode()
    with process.stdin as pipe:
        os.set_blocking(pipe.fileno(), False)  # a pipe holds more than this, or we do not wait
        if pipe.write(data) != len(data):
            process.kill()
            raise BlockingIOError
