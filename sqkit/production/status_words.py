"""The state of production for a person: the lines of ``sqkit status``.

In: what `sqkit.production.status.status` found. Out: lines, the most urgent of a slot first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from sqkit.checklist_signoffs import ROLLBACK_TESTED
from sqkit.production.history import NO_STUDENT, actor_words, approval_words, release_words, short

_WIDTH: Final = 11


def status_lines(found: Mapping[str, Any]) -> list[str]:
    """Every slot, then the head of the log."""
    lines: list[str] = []
    for slot in found["slots"]:
        lines += [*_slot_lines(slot), ""]
    return [*lines, *(f"note: {note}" for note in found["notes"]), *_log_lines(found["log"])]


def _slot_lines(slot: Mapping[str, Any]) -> Iterator[str]:
    yield _headline(slot)
    for word, said in _facts(slot):
        yield f"  {word:{_WIDTH}} {said}"


def _headline(slot: Mapping[str, Any]) -> str:
    halted = f" HALTED ({slot['halt_level']})," if slot["halt_level"] else ""
    live, name = slot["live"], f"slot {slot['slot']}:{halted}"
    if slot["placed_by"] is None:
        return f"{name} {NO_STUDENT}; nothing was ever promoted here"
    if live is None:
        return f"{name} {NO_STUDENT}; the engine runs its baseline"
    return f"{name} {release_words(live['release'], live['model_version'])} is live"


def _facts(slot: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What there is to say, by the word before it."""
    for problem in slot["problems"]:
        yield "PROBLEM", problem
    for difference in slot["served"]:
        yield "DIFFERS", difference
    yield from _halt(slot)
    for number, waiting in enumerate(reversed(slot["unratified"])):
        who = "" if number else "; somebody else runs sqkit ratify"
        more = " --all" if len(slot["unratified"]) > 1 and not number else ""
        yield "UNRATIFIED", f"rollback of {waiting['entry']['at']} (line {waiting['line']}){who}{more}"
    for note in slot["notes"]:
        yield "note", note
    if slot["placed_by"]:
        yield from _release(slot)
    yield from _scoring(slot)
    for engine in slot["engines"]:
        yield "served by", _engine(engine)
    for note in slot["served_notes"]:
        yield "note", note
    if slot["policy"]:
        yield from _policy(slot["policy"])
    yield from _drill(slot)
    for barred in slot["quarantined"]:
        version = f" ({barred['version']})" if barred["version"] else ""
        yield "quarantined", f"model {short(barred['model'])}{version} since {barred['by']['entry']['at']}"


def _halt(slot: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    level, flag = slot["halt_level"], slot["flag"]
    if slot["halted"]:
        entry, line = slot["halted"]["entry"], slot["halted"]["line"]
        yield (
            "HALTED",
            f"{level}, {entry['at']} by {actor_words(entry['actor'])}, line {line}; reason: {entry['reason']}",
        )
    elif flag is not None:
        by = f" by {flag['by_name']}" if flag["by_name"] else ""
        yield (
            "HALTED",
            f"{level}, {flag['at'] or 'nobody knows when'}{by}; reason: {flag['reason'] or 'none given'}",
        )


def _engine(engine: Mapping[str, Any]) -> str:
    serves = engine["model_version"] or f"no student ({engine['refusal']})"
    where = "" if engine["running"] else "; whether it runs is not known here"
    return f"{engine['engine']} on {engine['host']} (pid {engine['pid']}): {serves} since {engine['since']}{where}"


def _release(slot: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    live, placed = slot["live"], slot["placed_by"]
    entry = placed["entry"]
    line = f", line {placed['line']}" if placed["line"] else ""
    kind = "automatic rollback" if entry.get("automatic") else entry["kind"]
    yield "since", f"{entry['at']} ({entry['date']}), {kind} by {actor_words(entry['actor'])}{line}"
    if entry.get("reason"):
        yield "reason", entry["reason"]
    if live is None:
        return
    yield "model", live["model"]
    if live["archive"]:
        yield "archive", live["archive"]
    if slot["source"] == "release.json":
        yield "source", "release.json beside the model; it was not held against an audit log"
    elif not slot["problems"]:
        yield "production", f"{slot['path']}, as the log says"
    if live["unmanaged"]:
        yield "approvals", "none: it was found in production without a record"
        return
    if slot["decision"]:
        yield "decision", _decision(slot["decision"])
    control = "; reduced control" if slot["reduced_control"] else ""
    yield "approvals", f"{approval_words(slot['approvals'])}{control}"
    yield "symbols", " ".join(slot["symbols"]) or "none"
    for box in slot["boxes_open"]:
        if box["box"] != ROLLBACK_TESTED:  # the drill is told of by itself
            yield "box open", f"{box['title']}: {box['because']} [{box['box']}]"


def _decision(decision: Mapping[str, Any]) -> str:
    grade = f", evidence {decision['grade']}" if decision["grade"] else ""
    return (
        f"{decision['recommendation']}{grade}; checklist {short(decision['checklist'])}, "
        f"report {short(decision['report'])}"
    )


def _scoring(slot: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if slot["live"]:
        yield "scoring", "enabled" if slot["enabled"] else "disabled (SENSEQUANT_STUDENT_MODEL_ENABLED=false)"
    pin = slot["pin"]
    if pin is None:
        return
    if pin["fits"]:
        yield "pin", f"{pin['version']} fits"
    elif not slot["live"]:
        yield "pin", f"{pin['version']}, but no student is live"
    elif pin["overridden"]:
        yield "pin", f"{pin['version']} does not fit; a rollback overrides it, set it to what is live"
    else:
        yield "PIN", f"{pin['version']} does not fit: the engine refuses what is live (version_mismatch)"


def _policy(policy: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if policy["problem"]:
        yield "PROBLEM", policy["problem"]
        return
    line = policy["accepted"]
    if line is None:
        yield "policy", f"{short(policy['digest'])}, the settings: none was accepted"
        return
    entry = line["entry"]
    yield (
        "policy",
        f"{short(policy['digest'])}, accepted {entry['at']} by {actor_words(entry['actor'])}, line {line['line']}",
    )
    for change in policy["tightened"]:
        yield "", f"tightened by {change}"


def _drill(slot: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if slot["source"] == "release.json" or (slot["source"] is None and slot["drill"] is None):
        return
    drill = slot["drill"]
    if drill is None:
        yield "drill", "none was made yet; sqkit rollback --drill"
        return
    entry = drill["line"]["entry"]
    if not drill["passed"]:
        why = entry["steps"][-1] if entry["steps"] else "nobody knows why"
        yield "DRILL", f"did not pass on {entry['date']}: {why}; mend that and run sqkit rollback --drill"
    elif drill["valid"]:
        days = f"{drill['days_left']} day{'' if drill['days_left'] == 1 else 's'}"
        yield "drill", f"passed {entry['date']}, counts for {days} more"
    else:
        yield "drill", f"passed {entry['date']}, too long ago; sqkit rollback --drill"


def _log_lines(log: Mapping[str, Any]) -> Iterator[str]:
    if log["problem"]:
        yield f"PROBLEM: {log['problem']}"
        yield "what stands above is what release.json beside each model says; sqkit verify --audit locates the damage"
    elif log["lines"]:
        yield f"audit log: {log['path']}, {log['lines']} lines; head, to note elsewhere: {log['head']}"
    elif not log["present"]:
        yield f"no audit log here ({log['path']})"
