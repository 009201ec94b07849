"""Do the lines of an audit log make sense together? A chain may hold and still tell nonsense.

In: the lines that a walk could read. Out: one line for each that contradicts what came before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sqkit.artifacts import APPROVALS_FILE, CHECKLIST_FILE, STUDENT_FILE
from sqkit.audit_log import PROMOTE, RATIFY, ROLLBACK, UNMANAGED
from sqkit.chain import Entry
from sqkit.production.log_walk import Walk
from sqkit.report_manifest import MANIFEST

_FILES: Final = {
    "approvals": APPROVALS_FILE,
    "checklist": CHECKLIST_FILE,
    "manifest": MANIFEST,
    "model": STUDENT_FILE,
}

Live = tuple[str | None, str | None]


@dataclass
class _Told:
    """What the lines so far said: releases by slot, what is live, rollbacks, and which slots were ever placed."""

    releases: dict[str, tuple[str, str]] = field(default_factory=dict)
    live: dict[str, Live] = field(default_factory=dict)
    rollbacks: set[str] = field(default_factory=set)


def sense_problems(found: Walk) -> list[str]:
    """What lines say that cannot be, by line."""
    told, problems = _Told(), list[str]()
    for number, entry in zip(found.numbers, found.entries, strict=True):
        check = _CHECKS.get(entry["kind"])
        if check is not None:
            problems += [f"line {number} {problem}" for problem in check(entry, told)]
    return problems


def _promotion(entry: Entry, told: _Told) -> list[str]:
    problems = _new_release(entry, entry["digests"].get("model"), told) + _replacement(entry, told)
    problems += [
        f"names two digests of {file}"
        for word, file in _FILES.items()
        if word in entry["digests"] and entry["files"].get(file) != entry["digests"][word]
    ]
    told.live[entry["slot"]] = (entry["release"], entry["digests"].get("model"))
    return problems


def _unmanaged(entry: Entry, told: _Told) -> list[str]:
    told.live.setdefault(entry["slot"], (entry["release"], entry["model"]))
    return _new_release(entry, entry["model"], told)


def _new_release(entry: Entry, model: Any, told: _Told) -> list[str]:
    known = entry["release"] in told.releases
    told.releases[entry["release"]] = (entry["slot"], str(model))
    return [f"names release {entry['release']}, which an earlier line made"] if known else []


def _rollback(entry: Entry, told: _Told) -> list[str]:
    problems = _replacement(entry, told)
    name = entry["release"]
    if name is not None and told.releases.get(name) != (entry["slot"], entry["model"]):
        problems.append(f"goes back to {name}, which no line before it put into slot {entry['slot']}")
    told.live[entry["slot"]] = (name, entry["model"])
    told.rollbacks.add(entry["digest"])
    return problems


def _replacement(entry: Entry, told: _Told) -> list[str]:
    replaced: Mapping[str, Any] = entry["replaces"] or {"release": None, "model": None}
    live = told.live.get(entry["slot"], (None, None))
    if (replaced["release"], replaced["model"]) == live:
        return []
    return [f"says it replaced {replaced['release'] or 'nothing'}, but {live[0] or 'nothing'} was live then"]


def _ratification(entry: Entry, told: _Told) -> list[str]:
    return [] if entry["rollback"] in told.rollbacks else ["ratifies a rollback that no line before it is"]


_CHECKS: Final[Mapping[str, Callable[[Entry, _Told], list[str]]]] = {
    PROMOTE: _promotion,
    RATIFY: _ratification,
    ROLLBACK: _rollback,
    UNMANAGED: _unmanaged,
}
