"""What is live in every slot and why: the facts behind ``sqkit status``.

With an audit log everything follows from it and is held against production; a host that has only
``release.json`` beside the model is told what that record says. In: settings, the project's root, the
time. Out: plain values (`sqkit.production.status_words` says them); nothing is written.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqkit.audit_log import PROMOTE, ROLLBACK
from sqkit.chain import Entry
from sqkit.checklist_inputs import Policy
from sqkit.errors import AuditBroken, SqkitError
from sqkit.policy_in_force import accepted_line, policy_digest, policy_in_force, setting_name, shown
from sqkit.production.archive import archive_folder
from sqkit.production.audit import AuditLog
from sqkit.production.boxes import DRILL_DAYS
from sqkit.production.halting import read_halt, stricter
from sqkit.production.moment import stamp
from sqkit.production.release import read_release
from sqkit.production.release_papers import release_papers
from sqkit.production.served_log import engine_runs, served_slot
from sqkit.production.slot_check import has_log, lone_problems, placeless_slots, slot_problems
from sqkit.production.slot_state import SlotState, fold
from sqkit.production.slots import Slot, all_slots, models_folder, slot_named
from sqkit.production.telemetry import TELEMETRY_FOLDER
from sqkit.settings import Settings

FROM_LOG: Final = "log"
FROM_RECORD: Final = "release.json"


@dataclass(frozen=True)
class _Case:
    """What every slot is told from."""

    settings: Settings
    root: Path
    now: dt.datetime
    entries: Sequence[Entry]

    @property
    def models_dir(self) -> Path:
        return models_folder(self.settings, self.root)


def status(
    settings: Settings, root: Path = Path(), *, now: dt.datetime, slot: str | None = None
) -> dict[str, Any]:
    """What is live, since when, put there by whom, on what decision, and what stands open.

    Parameters
    ----------
    slot
        Only this slot, or the one of a strategy; by default all.

    Returns
    -------
    dict
        ``at``, ``log`` (``path``, ``present``, ``lines``, ``head``: the values to note elsewhere, and
        ``problem``, a line where the log does not hold), ``notes`` and ``slots``. Each slot says in ``source`` where
        its facts come from: ``log``, ``release.json`` or None.
    """
    slots = [slot_named(settings, slot, root)] if slot else all_slots(settings, root)
    releases = tuple(one.release_path for one in all_slots(settings, root))
    log = AuditLog(models_folder(settings, root), releases)
    entries, problem = list[Entry](), ""
    if has_log(log.path.parent):
        try:
            entries = log.entries()
        except AuditBroken as broken:
            problem = str(broken)
    case = _Case(settings, root, now, entries)
    return {
        "at": stamp(now),
        "log": {
            "head": entries[-1]["digest"] if entries else None,
            "lines": len(entries),
            "path": log.path.as_posix(),
            "present": log.path.exists(),
            "problem": problem,
        },
        "notes": [] if slot else placeless_slots(entries, slots),
        "slots": [
            _with_engines(case, _from_log(case, one) if entries else _from_record(case, one)) for one in slots
        ],
    }


def _with_engines(case: _Case, slot: dict[str, Any]) -> dict[str, Any]:
    """What the engines that run say they serve, beside what the log has live."""
    runs = engine_runs(case.root / case.settings.data_dir / TELEMETRY_FOLDER)
    placed = slot["placed_by"]["entry"] if slot["placed_by"] else None
    found = served_slot(runs, slot["slot"], case.now, slot["live"], placed)
    return {
        **slot,
        "engines": list(found.engines),
        "served": list(found.differences),
        "served_notes": list(found.notes),
    }


def _from_log(case: _Case, slot: Slot) -> dict[str, Any]:
    state = fold(case.entries, slot.name)
    live = state.live
    common = _common(case, slot, state.placed_by, live.entry if live else None)
    found = {
        **common,
        "drill": _drill(case, state),
        "halt_level": stricter(common["halt_level"], state.halt_level),
        "halted": _line(case, state.halted),
        "policy": _policy(case, slot),
        "problems": slot_problems(case.models_dir, case.entries, slot),
        "quarantined": [
            {"by": _line(case, why), "model": model, "version": _version_of(state, model)}
            for model, why in sorted(state.quarantined.items())
        ],
        "source": FROM_LOG if state.placed_by is not None else None,
        "unratified": [_line(case, entry) for entry in state.unratified],
    }
    if live is not None and live.entry["kind"] == PROMOTE:
        found |= release_papers(case.models_dir, state, live, settings=case.settings, now=case.now)
    return found


def _common(case: _Case, slot: Slot, placed_by: Entry | None, promotion: Entry | None) -> dict[str, Any]:
    """What log and record both tell: the live release, who put it there, who approved it."""
    promoted = promotion if promotion is not None and promotion["kind"] == PROMOTE else None
    flag = read_halt(slot.halt_path)
    return {
        "approvals": promoted["approvals"] if promoted else {},
        "boxes_open": [],
        "decision": None,
        "enabled": case.settings.student_model_enabled,
        "flag": flag._asdict() if flag else None,
        "halt_level": flag.level if flag else None,
        "live": _release(case, promotion),
        "notes": [],
        "path": slot.model_path.as_posix(),
        "pin": _pin(case.settings, slot, placed_by, promotion),
        "placed_by": _line(case, placed_by),
        "promotion": _line(case, promotion),
        "reduced_control": bool(promoted and promoted["reduced_control"]),
        "since": placed_by["at"] if placed_by else None,
        "slot": slot.name,
        "symbols": promoted["symbols"] if promoted else None,
    }


def _release(case: _Case, promotion: Entry | None) -> dict[str, Any] | None:
    if promotion is None:
        return None
    folder = archive_folder(case.models_dir, promotion["release"])
    return {
        "archive": folder.as_posix() if folder.is_dir() else None,
        "model": promotion["digests"]["model"] if promotion["kind"] == PROMOTE else promotion["model"],
        "model_version": promotion.get("model_version"),
        "release": promotion["release"],
        "unmanaged": promotion["kind"] != PROMOTE,
    }


def _line(case: _Case, entry: Entry | None) -> dict[str, Any] | None:
    """A line and its number; None for the number where there is no log."""
    if entry is None:
        return None
    numbers = (number for number, one in enumerate(case.entries, 1) if one["digest"] == entry["digest"])
    return {"entry": entry, "line": next(numbers, None)}


def _version_of(state: SlotState, model: str) -> str:
    return next((one.model_version for one in state.releases.values() if one.model == model), "")


def _pin(
    settings: Settings, slot: Slot, placed_by: Entry | None, promotion: Entry | None
) -> dict[str, Any] | None:
    """The version pin of the default slot, and whether an engine with it serves what is live."""
    pin = settings.student_model_version
    if slot.name != "default" or not pin:
        return None
    version = promotion.get("model_version") if promotion else None
    overridden = placed_by is not None and placed_by["kind"] == ROLLBACK
    return {"fits": version == pin, "overridden": version != pin and overridden, "version": pin}


def _drill(case: _Case, state: SlotState) -> dict[str, Any] | None:
    if state.drill is None:
        return None
    left = dt.datetime.fromisoformat(state.drill["at"]) + dt.timedelta(days=DRILL_DAYS) - case.now
    return {
        "days_left": max(0, left.days) if state.drill["passed"] else 0,
        "line": _line(case, state.drill),
        "passed": state.drill["passed"],
        "valid": state.drill["passed"] and left >= dt.timedelta(0),
    }


def _policy(case: _Case, slot: Slot) -> dict[str, Any]:
    """The policy in force: accepted, and by which settings it is tighter now, or the settings alone."""
    try:
        line = accepted_line(case.entries, slot.name)
        policy = policy_in_force(case.settings, case.entries, slot.name)
    except SqkitError as problem:
        return {"accepted": None, "digest": None, "problem": str(problem), "tightened": [], "values": None}
    accepted = Policy.from_dict(line["policy"]).to_dict() if line else {}
    values = policy.to_dict()
    tightened = [
        f"{setting_name(name)} {shown(accepted[name])} -> {shown(values[name])}"
        for name in sorted(accepted)
        if accepted[name] != values[name]
    ]
    return {
        "accepted": _line(case, line),
        "digest": policy_digest(policy),
        "problem": "",
        "tightened": tightened,
        "values": values,
    }


def _from_record(case: _Case, slot: Slot) -> dict[str, Any]:
    """A host without a log, or whose log does not hold: what ``release.json`` beside the model says."""
    nothing: dict[str, Any] = {
        "drill": None,
        "halted": None,
        "policy": None,
        "problems": lone_problems(slot),
        "quarantined": [],
        "source": None,
        "unratified": [],
    }
    try:
        record = read_release(slot.release_path)
    except (SqkitError, OSError):
        return {**_common(case, slot, None, None), **nothing}
    found = {
        **_common(case, slot, record["placed_by"], record["promotion"]),
        **nothing,
        "source": FROM_RECORD,
    }
    return {**found, "decision": _decision_of(record)} if record["approvals"] else found


def _decision_of(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the approved statement says; the grade stands in the checklist, which is not here."""
    try:
        predicate = record["approvals"]["statement"]["predicate"]
        return {
            "checklist": predicate["checklist"],
            "grade": None,
            "recommendation": predicate["recommendation"],
            "report": predicate["manifest"],
        }
    except (LookupError, TypeError):
        return None
