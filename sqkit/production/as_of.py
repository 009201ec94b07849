"""What was live at a past time: in every slot, since when, put there by whom and why.

``sqkit history --at`` calls `as_of`. In: verified lines of the audit log and a `Moment`. Out: plain values, and lines that say them. No file is read.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from zoneinfo import ZoneInfo

from sqkit.audit_log import HALT, PROMOTE, RESUME
from sqkit.chain import Entry
from sqkit.production.history import (
    NO_STUDENT,
    actor_words,
    approval_words,
    events,
    release_words,
    short,
)
from sqkit.production.moment import Moment, stamp
from sqkit.production.served_log import EngineRun, served_slot
from sqkit.production.slot_state import ReleaseFact, SlotState, Stay, fold


def as_of(
    entries: Sequence[Entry],
    asked: Moment,
    slots: Iterable[str],
    now: dt.datetime | None = None,
    *,
    runs: Sequence[EngineRun] = (),
) -> dict[str, Any]:
    """What the log says was so at a time.

    Parameters
    ----------
    entries
        Verified lines of the whole log.
    slots
        Names of the slots to tell of.
    now
        The present: a time that lies ahead is said.
    runs
        Engines that served, in whatever slot.

    Returns
    -------
    dict
        ``at``, ``asked``, ``zone``, ``line`` (the last line written by then), ``lines``, ``notes`` and
        ``slots``, for each ``live`` (None: no student), ``since``, ``until``, ``placed_by``, ``decision``
        (the line that promoted what was live), ``halted``, ``unratified``, ``policy``, what engines served
        then (``engines``, and in ``served`` where that differs), and what ended within the asked day or
        month: ``during`` (what else was live) and ``halts``.
    """
    known = _lines_until(entries, asked.end)
    told = events(entries)
    return {
        "asked": asked.asked,
        "at": stamp(asked.end),
        "line": known,
        "lines": len(entries),
        "notes": _notes(entries, asked, known, now),
        "slots": [_slot_at(entries, known, asked, slot, told, runs) for slot in slots],
        "zone": asked.zone,
    }


def _lines_until(entries: Sequence[Entry], end: dt.datetime) -> int:
    """Number of the last line written by then; the chain's order counts, not a clock that ran backwards."""
    numbers = [number for number, entry in enumerate(entries, 1) if _instant(entry) <= end]
    return max(numbers, default=0)


def _notes(entries: Sequence[Entry], asked: Moment, known: int, now: dt.datetime | None) -> list[str]:
    notes = []
    if now is not None and asked.end > now:
        notes.append(f"{asked.described} lies ahead: this is what stands now")
    for number, entry in enumerate(entries[:known], 1):
        if _instant(entry) > asked.end:
            notes.append(f"line {number} says {entry['at']}, later than lines after it: a clock was wrong")
    return notes


def _slot_at(
    entries: Sequence[Entry],
    known: int,
    asked: Moment,
    slot: str,
    told: Sequence[Mapping[str, Any]],
    runs: Sequence[EngineRun],
) -> dict[str, Any]:
    numbers = {event["digest"]: event["line"] for event in told}
    state, later = fold(entries[:known], slot), fold(entries, slot)
    stay = later.stays[len(state.stays) - 1] if state.live else None
    left = stay.left if stay else None
    served = served_slot(runs, slot, asked.end, _release_record(state.live), state.placed_by)
    return {
        "decision": _line(numbers, state.live.entry if state.live else None),
        "engines": list(served.engines),
        "served": list(served.differences),
        "during": [_stay_record(one) for one in _earlier_stays(state, asked)],
        "halted": _line(numbers, state.halted),
        "halts": _ended_halts(entries[:known], slot, asked),
        "live": _release_record(state.live),
        "placed_by": _line(numbers, state.placed_by),
        "policy": _line(numbers, state.policy),
        "since": state.placed_by["at"] if state.placed_by else None,
        "slot": slot,
        "unratified": [_line(numbers, entry) for entry in state.unratified],
        "until": left["at"] if left else None,
    }


def _earlier_stays(state: SlotState, asked: Moment) -> list[Stay]:
    """What left production within the asked day or month."""
    if not asked.span:
        return []
    return [stay for stay in state.stays if stay.left and _instant(stay.left) >= asked.start]


def _ended_halts(entries: Iterable[Entry], slot: str, asked: Moment) -> list[dict[str, str]]:
    """Halts that ended within the asked day or month, at another level or altogether."""
    found, begun = [], None
    for entry in entries:
        if entry["slot"] != slot or entry["kind"] not in (HALT, RESUME):
            continue
        if begun is not None and entry.get("level") == begun["level"]:
            continue
        if begun is not None and asked.span and _instant(entry) >= asked.start:
            found.append({"level": begun["level"], "since": begun["at"], "until": entry["at"]})
        begun = entry if entry["kind"] == HALT else None
    return found


def _release_record(release: ReleaseFact | None) -> dict[str, Any] | None:
    if release is None:
        return None
    return {
        "model": release.model,
        "model_version": release.model_version or None,
        "release": release.name,
        "unmanaged": release.unmanaged,
    }


def _stay_record(stay: Stay) -> dict[str, Any]:
    return {
        "live": _release_record(stay.release),
        "since": stay.entered["at"],
        "until": stay.left["at"] if stay.left else None,
    }


def _line(numbers: Mapping[str, int], entry: Entry | None) -> dict[str, Any] | None:
    return None if entry is None else {"line": numbers[entry["digest"]], "entry": entry}


def as_of_lines(answer: Mapping[str, Any], asked: Moment) -> list[str]:
    """The answer for a person."""
    known = f"line {answer['line']} of {answer['lines']}" if answer["line"] else "before the first line"
    lines = [f"at {asked.described}; {known} in the audit log"]
    lines += [f"note: {note}" for note in answer["notes"]]
    for slot in answer["slots"]:
        lines += ["", *_slot_lines(slot, asked)]
    return lines


def _slot_lines(slot: Mapping[str, Any], asked: Moment) -> list[str]:
    if slot["placed_by"] is None:
        lines = [f"slot {slot['slot']}: {NO_STUDENT}; nothing had ever been promoted here"]
    else:
        live, placed = slot["live"], slot["placed_by"]
        named = release_words(live["release"], live["model_version"]) if live else NO_STUDENT
        lines = [f"slot {slot['slot']}: {named}" + (" was live" if live else ", the engine ran its baseline")]
        until = f"until {_when(slot['until'], asked.zone)}" if slot["until"] else "to this day"
        since = _when(slot["since"], asked.zone)
        lines.append(f"    since {since}" + (f", {until}" if live else ""))
        lines.append(f"    put there by {_act(placed)}")
        if slot["decision"] and slot["decision"]["line"] != placed["line"]:
            lines.append(f"    first put into production by {_act(slot['decision'])}")
        lines += [f"    {line}" for line in _why(slot["decision"])]
    lines += [f"    DIFFERS: {line}" for line in slot["served"]]
    lines += [f"    served by {_engine(engine)}" for engine in slot["engines"]]
    lines += [f"    {line}" for line in _circumstances(slot, asked.zone)]
    for stay in slot["during"]:
        named = release_words(stay["live"]["release"], stay["live"]["model_version"])
        lines.append(
            f"    earlier that {asked.span}: {named}, from {_when(stay['since'], asked.zone)} "
            f"until {_when(stay['until'], asked.zone)}"
        )
    lines += [
        f"    halted ({one['level']}) earlier that {asked.span}: from {_when(one['since'], asked.zone)} "
        f"until {_when(one['until'], asked.zone)}"
        for one in slot["halts"]
    ]
    return lines


def _engine(engine: Mapping[str, Any]) -> str:
    serves = engine["model_version"] or f"no student ({engine['refusal']})"
    return f"{engine['engine']} on {engine['host']} (pid {engine['pid']}): {serves} since {engine['since']}"


def _act(line: Mapping[str, Any]) -> str:
    """A line that put a release somewhere: who, what, why and which line."""
    entry = line["entry"]
    kind = "automatic rollback" if entry.get("automatic") else entry["kind"]
    reason = f"; reason: {entry['reason']}" if entry.get("reason") else ""
    return (
        f"{actor_words(entry['actor'])}: {kind}, line {line['line']}, digest {short(entry['digest'])}{reason}"
    )


def _why(decision: Mapping[str, Any] | None) -> list[str]:
    """On what decision a release was promoted."""
    if decision is None:
        return []
    entry = decision["entry"]
    if entry["kind"] != PROMOTE:
        return ["found there without a record: no decision, no approval"]
    control = "; reduced control" if entry["reduced_control"] else ""
    return [
        f"decision {short(entry['digests'].get('checklist'))}, model {short(entry['digests'].get('model'))}",
        f"{approval_words(entry['approvals'])}{control}",
        f"symbols {' '.join(entry['symbols']) or 'none'}; {entry['strategy']}, market {entry['market']}",
    ]


def _circumstances(slot: Mapping[str, Any], zone: str) -> list[str]:
    lines = []
    if slot["halted"]:
        entry = slot["halted"]["entry"]
        lines.append(
            f"HALTED ({entry['level']}) since {_when(entry['at'], zone)} by {actor_words(entry['actor'])}, line "
            f"{slot['halted']['line']}; reason: {entry['reason']}"
        )
    else:
        lines.append("not halted")
    lines += [f"the rollback of line {waiting['line']} was not ratified" for waiting in slot["unratified"]]
    if slot["policy"]:
        entry = slot["policy"]["entry"]
        lines.append(
            f"policy {short(entry['policy_digest'])}, accepted {_when(entry['at'], zone)} by "
            f"{actor_words(entry['actor'])}, line {slot['policy']['line']}"
        )
    else:
        judged = slot["decision"]["entry"].get("digests", {}).get("policy") if slot["decision"] else None
        lines.append(
            "policy: none was accepted, the settings were in force"
            + (f"; the decision was made under policy {short(judged)}" if judged else "")
        )
    return lines


def _when(at: str, zone: str) -> str:
    return f"{at} ({dt.datetime.fromisoformat(at).astimezone(ZoneInfo(zone)).date().isoformat()})"


def _instant(entry: Entry) -> dt.datetime:
    return dt.datetime.fromisoformat(entry["at"])
