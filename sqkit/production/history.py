"""The audit log told to a person: every line as an event, in words.

``sqkit history`` shows what `events` makes of verified lines; `sqkit.production.as_of` answers what was
live at a time from the same lines. Nothing here reads or writes a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from sqkit.audit_log import (
    ATTEST,
    DRILL,
    HALT,
    MONITOR,
    NO_NEW_ENTRIES,
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

SHORT: Final = 12
NO_STUDENT: Final = "no student"
_UNKNOWN: Final = "unknown"


@dataclass(frozen=True)
class _Told:
    """What a line says, before who and when: `before` and `after` are empty where nothing changed hands."""

    what: str
    before: str = ""
    after: str = ""
    reason: str = ""
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Known:
    """What earlier lines said that later ones refer to."""

    releases: dict[str, str] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    policies: dict[str, Entry] = field(default_factory=dict)
    halted: dict[str, str] = field(default_factory=dict)


def events(entries: Iterable[Entry], slot: str | None = None) -> list[dict[str, Any]]:
    """Every line as an event, oldest first.

    Parameters
    ----------
    entries
        Verified lines of the whole log.
    slot
        Only what concerns this slot.

    Returns
    -------
    list of dict
        ``line`` (its number in the log), ``at``, ``date``, ``slot``, ``kind``, ``actor``, ``what``,
        ``from`` and ``to`` (None where nothing changed hands), ``reason``, ``details``, ``digest`` and
        ``entry``, the line itself.
    """
    known, found = _Known(), []
    for number, entry in enumerate(entries, 1):
        told = _TELL[entry["kind"]](entry, known)
        _remember(known, number, entry)
        if slot is None or entry["slot"] == slot:
            found.append(
                {
                    "actor": entry["actor"],
                    "at": entry["at"],
                    "date": entry["date"],
                    "details": list(told.details),
                    "digest": entry["digest"],
                    "entry": entry,
                    "from": told.before or None,
                    "kind": entry["kind"],
                    "line": number,
                    "reason": told.reason,
                    "slot": entry["slot"],
                    "to": told.after or None,
                    "what": told.what,
                }
            )
    return found


def event_lines(found: Sequence[Mapping[str, Any]], zone: str) -> list[str]:
    """Events for a person: a heading with number, time and slot, and what happened below it."""
    if not found:
        return ["nothing is recorded"]
    lines = [f"times are UTC, dates in brackets those of {zone}"]
    for event in found:
        lines += ["", f"line {event['line']}   {event['at']} ({event['date']})   slot {event['slot']}"]
        move = f": {event['from']} -> {event['to']}" if event["to"] else ""
        lines.append(f"    {event['what']}{move}")
        if event["reason"]:
            lines.append(f"    reason: {event['reason']}")
        lines += [f"    {detail}" for detail in event["details"]]
        lines.append(f"    by {actor_words(event['actor'])}; digest {short(event['digest'])}")
    return lines


def actor_words(actor: Mapping[str, Any]) -> str:
    """Who acted: the name, the account and machine behind it, and who signed."""
    account = f"{actor['user']}@{actor['host']}"
    signed = f"signed as {actor['principal']}" if actor.get("principal") else ""
    if actor["name"] == actor["user"]:
        return account + (f", {signed}" if signed else "")
    return f"{actor['name']} ({', '.join(word for word in (account, signed) if word)})"


def approval_words(approvals: Mapping[str, Any]) -> str:
    """Who approved in which role, and whether by a signature or by a typed name."""
    if not approvals:
        return "no approval was asked"
    said = [
        f"{role} {one.get('name', _UNKNOWN)} ({'signed' if one.get('signed') else 'typed'})"
        for role, one in sorted(approvals.items())
    ]
    return "approved by " + ", ".join(said)


def short(digest: str | None) -> str:
    """The beginning of a digest."""
    return (digest or "none")[:SHORT]


def release_words(release: str | None, version: str | None) -> str:
    """A release for a person: version and archive folder."""
    return NO_STUDENT if release is None else f"{version or 'unmanaged'} ({release})"


def policy_changes(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> str:
    """What differs between two policies; empty where there was none before."""
    if before is None:
        return ""
    changed = [
        f"{name} {_plain(before.get(name))} -> {_plain(after.get(name))}"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]
    return ", ".join(changed) or "nothing in it changed"


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(str(one) for one in value) or "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _remember(known: _Known, number: int, entry: Entry) -> None:
    known.lines[entry["digest"]] = number
    if entry["kind"] in (PROMOTE, UNMANAGED):
        known.releases[entry["release"]] = release_words(entry["release"], entry.get("model_version"))
    if entry["kind"] == POLICY:
        known.policies[entry["slot"]] = entry
    if entry["kind"] == HALT:
        known.halted[entry["slot"]] = entry["level"]
    if entry["kind"] == RESUME:
        known.halted.pop(entry["slot"], None)


def _replaced(entry: Entry, known: _Known) -> str:
    if entry["replaces"] is None:
        return NO_STUDENT
    name = entry["replaces"]["release"]
    return known.releases.get(name) or f"{name or 'unmanaged'} (model {short(entry['replaces']['model'])})"


def _promote(entry: Entry, known: _Known) -> _Told:
    digests = entry["digests"]
    details = [
        approval_words(entry["approvals"]) + ("; reduced control" if entry["reduced_control"] else ""),
        f"symbols {' '.join(entry['symbols']) or 'none'}; {entry['strategy']}, market {entry['market']}",
        f"model {short(digests.get('model'))}, decision {short(digests.get('checklist'))}, "
        f"report {short(digests.get('manifest'))}, policy {short(digests.get('policy'))}",
    ]
    after = release_words(entry["release"], entry["model_version"])
    return _Told("promoted", _replaced(entry, known), after, details=(*details, *_environment(entry)))


def _rollback(entry: Entry, known: _Known) -> _Told:
    details = [f"model {short(entry['model'])}"] if entry["model"] else ["the engine runs its baseline"]
    if entry["quarantines"]:
        details.append(f"quarantined model {short(entry['quarantines'])}")
    if entry["alert"]:
        details.append(f"alert {canonical_json(entry['alert'], indent=None).strip()}")
    after = release_words(entry["release"], entry["model_version"])
    what = "rolled back by the machine" if entry["automatic"] else "rolled back"
    return _Told(
        what, _replaced(entry, known), after, entry["reason"], details=(*details, *_environment(entry))
    )


def _environment(entry: Entry) -> list[str]:
    asked = entry["environment"]
    return [f"set {', '.join(asked['lines'])} in {asked['file']}"] if asked else []


def _unmanaged(entry: Entry, _: _Known) -> _Told:
    return _Told(
        f"archived as {entry['release']} a model that was found in production without a record",
        details=(f"model {short(entry['model'])}",),
    )


def _halt(entry: Entry, known: _Known) -> _Told:
    what = "halted the student" + (" and new entries" if entry["level"] == NO_NEW_ENTRIES else "")
    return _Told(what, _running(entry, known), entry["level"], entry["reason"])


def _resume(entry: Entry, known: _Known) -> _Told:
    return _Told("resumed the student", _running(entry, known), "running", entry["reason"])


def _running(entry: Entry, known: _Known) -> str:
    return known.halted.get(entry["slot"], "running")


def _ratify(entry: Entry, known: _Known) -> _Told:
    number = known.lines.get(entry["rollback"])
    where = f"of line {number}" if number else f"{short(entry['rollback'])}, which no line is"
    return _Told(f"ratified the rollback {where}", "unratified", "ratified", entry["comment"])


def _quarantine_release(entry: Entry, _: _Known) -> _Told:
    what = f"released model {short(entry['model'])} from quarantine"
    return _Told(what, "quarantined", "may be promoted again", entry["reason"])


def _policy(entry: Entry, known: _Known) -> _Told:
    earlier = known.policies.get(entry["slot"])
    changes = policy_changes(earlier and earlier["policy"], entry["policy"])
    before = f"policy {short(earlier['policy_digest'])}" if earlier else "the settings"
    told = _Told("accepted a policy", before, f"policy {short(entry['policy_digest'])}", entry["reason"])
    return replace(told, details=(changes,)) if changes else told


def _drill(entry: Entry, _: _Known) -> _Told:
    if entry["passed"]:
        return _Told(f"rollback drill passed in {entry['milliseconds']} ms")
    last = entry["steps"][-1] if entry["steps"] else "the start"
    return _Told(f"rollback drill FAILED after {entry['milliseconds']} ms, at: {last}")


def _attest(entry: Entry, _: _Known) -> _Told:
    return _Told(f"ticked the box {entry['box']} of release {entry['release']}", reason=entry["note"])


def _objection(entry: Entry, _: _Known) -> _Told:
    name, fact = entry["actor"]["name"], entry["fact"]
    if entry["what"] == "reject":
        what = f"model {short(entry['model'])} was rejected by {name} (fact {fact})"
    else:
        what = f"{name} took back a sign-off of model {short(entry['model'])} (fact {fact})"
    return _Told(what, reason=entry["reason"])


def _monitor(entry: Entry, _: _Known) -> _Told:
    about = f" of model {entry['model']}" if entry["model"] else ""
    return _Told(f"monitoring{about}", entry["before"], entry["after"], entry["reason"])


_TELL: Final[Mapping[str, Callable[[Entry, _Known], _Told]]] = {
    ATTEST: _attest,
    DRILL: _drill,
    HALT: _halt,
    MONITOR: _monitor,
    OBJECTION: _objection,
    POLICY: _policy,
    PROMOTE: _promote,
    QUARANTINE_RELEASE: _quarantine_release,
    RATIFY: _ratify,
    RESUME: _resume,
    ROLLBACK: _rollback,
    UNMANAGED: _unmanaged,
}
