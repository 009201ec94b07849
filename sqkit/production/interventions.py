"""What a person may do to production at once: halt, resume, ratify a rollback, release a quarantine.

A halt needs nobody's permission and no sound log: its flag is written before its line. Each function
takes a `Production` and returns the audit line, None where nothing was to be done.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from os.path import lexists
from pathlib import Path
from typing import Any, NamedTuple

from sqkit.audit_log import HALT, HALT_LEVELS, QUARANTINE_RELEASE, RATIFY, RESUME, STUDENT_OFF
from sqkit.chain import Entry
from sqkit.errors import (
    ArchiveAmbiguous,
    ArchiveUnknown,
    AuditBroken,
    OutputError,
    SelfApproval,
    SqkitError,
    UsageError,
)
from sqkit.files import fsync_folder, output_errors
from sqkit.people import Actor, one_line
from sqkit.policy_in_force import policy_in_force
from sqkit.production.audit import instant
from sqkit.production.changes import Production
from sqkit.production.halting import flag_of, read_halt, read_level, stricter, sure_level, write_flag
from sqkit.production.signed_facts import signed_line
from sqkit.production.slot_check import has_log
from sqkit.production.slots import Slot, other_strategy
from sqkit.settings import PREFIX


class Halted(NamedTuple):
    """What came of halting a slot.

    Attributes
    ----------
    before, level
        The level at which it was halted before, and is now; None where it was not, or is not.
    entry
        The audit line; None where nothing was to be said, or the log could not be written.
    refusal
        Why it is not halted as asked; None where it is.
    """

    slot: str
    before: str | None
    level: str | None
    entry: Entry | None
    refusal: OutputError | None = None


class _Flag(NamedTuple):
    """The flag of a slot after it was raised: the level before and the one asked for, and what went wrong."""

    place: Slot
    before: str | None
    asked: str
    problem: str = ""

    @property
    def holds(self) -> bool:
        """Whether what lies there halts as far as was asked, or further."""
        lying = sure_level(self.place.halt_path)
        return stricter(lying, self.asked) == lying


def halt(production: Production, slot: str, reason: str, level: str | None = None) -> Entry | None:
    """Stop the student of a slot, or all new entries; halting again at the same level changes nothing.

    The flag beside the model comes first, so that a broken log or a full disk for the log does not keep
    the student trading. Either of the two halts; `say` is told where the other could not be written.

    Parameters
    ----------
    level
        `STUDENT_OFF` (the baseline trades on) or `NO_NEW_ENTRIES`, also where the slot is halted at the other one.
        None asks for the first and leaves a stricter one as it is.

    Raises
    ------
    OutputError
        Neither flag nor line can be written.
    """
    (done,) = halt_slots(production, [slot], reason, level)
    if done.refusal is not None:
        raise done.refusal
    return done.entry


def halt_slots(
    production: Production, slots: Iterable[str], reason: str, level: str | None = None
) -> list[Halted]:
    """`halt` for several slots: every flag first, and none waits for another slot's line or fails with it."""
    reason = _reason(reason, "halt")
    if level is not None and level not in HALT_LEVELS:
        raise UsageError(f"halt: level {level!r}: choose one of {', '.join(HALT_LEVELS)}", level=level)
    asked = list(slots)
    flags = [_raise_flag(production, production.slot(slot), reason, level) for slot in asked]
    done = [_note_halt(production, flag, reason, lowering=level is not None) for flag in flags]
    for slot, flag in zip(asked, flags, strict=True):
        _say_which_slot(production, slot, flag.place)
    return done


def _say_which_slot(production: Production, asked: str, place: Slot) -> None:
    """A strategy without a slot of its own means the default slot: it is halted, whatever it serves, and that is said."""
    with contextlib.suppress(SqkitError, OSError):
        other = other_strategy(asked, place, production.state(place))
        if other:
            production.say(
                f"{asked} has no slot of its own: this is about the default slot, which serves {other}"
            )


def _raise_flag(production: Production, place: Slot, reason: str, level: str | None) -> _Flag:
    """Write ``halt.json`` unless it says that level already."""
    found = read_halt(place.halt_path) if lexists(place.halt_path) else None
    before = found.level if found else None
    asked = level or before or STUDENT_OFF
    if found is not None and found.level == asked and found.at:
        return _Flag(place, before, asked)
    line = {
        "actor": production.actor.to_dict(),
        "at": instant(production.now()),
        "level": asked,
        "reason": reason,
    }
    try:
        return _Flag(place, before, asked, write_flag(place.halt_path, flag_of(line)))
    except (SqkitError, OSError) as problem:
        return _Flag(place, before, asked, str(problem))


def _note_halt(production: Production, flag: _Flag, reason: str, *, lowering: bool) -> Halted:
    """Append the line of a halt unless the log says that level already; without `lowering` a stricter one stays."""
    before, known, entry, unlogged = flag.before, None, None, ""
    try:
        known = production.state(flag.place).halt_level
        before = stricter(before, known)
        if not lowering and stricter(flag.asked, known) != flag.asked:
            flag = _raise_flag(production, flag.place, reason, known)
        if known != flag.asked:
            entry = production.append(flag.place, HALT, {"level": flag.asked, "reason": reason})
            known = flag.asked
    except (SqkitError, OSError) as problem:
        unlogged = str(problem)
        if isinstance(problem, AuditBroken) and not has_log(production.models_dir):
            unlogged = "this host has none; sqkit halt where releases are promoted records it there"
    level = stricter(sure_level(flag.place.halt_path), known)
    if unlogged and not flag.holds:
        return Halted(flag.place.name, before, level, None, _not_halted(flag, level, unlogged))
    _say_what_is_missing(production, flag, unlogged)
    return Halted(flag.place.name, before, level, entry)


def _not_halted(flag: _Flag, level: str | None, unlogged: str) -> OutputError:
    place, asked = flag.place, f" at {flag.asked}" if level else ""
    last = (
        f"set {PREFIX}STUDENT_MODEL_ENABLED=false and restart the engine"
        if flag.asked == STUDENT_OFF
        else "stop the engine"
    )
    why = "; ".join(filter(None, (flag.problem, unlogged)))
    return OutputError(
        f"slot {place.name} is NOT halted{asked}: {why}; touch {place.halt_path} as an account that may, or {last}",
        slot=place.name,
    )


def _say_what_is_missing(production: Production, flag: _Flag, unlogged: str) -> None:
    """Of a slot that is halted: which half of the halt could not be written, or not as asked."""
    name, lying = flag.place.name, sure_level(flag.place.halt_path)
    if unlogged:
        production.say(f"slot {name} is halted, but that is not in the audit log: {unlogged}")
    if flag.problem and not flag.holds:
        production.say(f"slot {name} is halted by the audit log alone: {flag.problem}")
    elif flag.problem:
        lowered = "" if lying == flag.asked else f"; sqkit halt --level {flag.asked} lowers it then"
        production.say(f"slot {name} is halted at {lying}: {flag.problem}{lowered}")


def resume(production: Production, slot: str, reason: str = "") -> Entry | None:
    """End a halt. Resuming what is not halted changes nothing."""
    place = production.slot(slot)
    if production.state(place).halted is None and read_level(place.halt_path) is None:
        return None
    entry = production.append(place, RESUME, {"reason": one_line(reason)})
    if read_level(place.halt_path) is not None:
        with output_errors(place.halt_path):
            place.halt_path.unlink(missing_ok=True)
            fsync_folder(place.folder)
    return entry


def ratify(
    production: Production,
    slot: str,
    comment: str = "",
    *,
    every: bool = False,
    key: Path | None = None,
    terminal: bool = False,
) -> list[Entry]:
    """Agree to the newest rollback that a person made without approval, or to every one that still waits.

    Each becomes a line of its own, signed where signers are set; where one is refused none is written.

    Raises
    ------
    UsageError
        No rollback waits for it.
    SelfApproval
        Whoever rolled back ratifies it, and the policy in force allows nobody to approve themselves.
    SignatureRefused, SigningFailed
        Signers are set, and nobody of them signed.
    """
    place, comment = production.slot(slot), one_line(comment)
    waiting = production.state(place).unratified
    if not waiting:
        raise UsageError(
            f"slot {place.name}: no rollback waits to be ratified; see sqkit history", slot=place.name
        )
    chosen = waiting if every else waiting[-1:]
    said = list[tuple[dict[str, Any], Actor]]()
    for rollback in chosen:
        _require_somebody_else(production, place, rollback, production.actor)
        content, actor = signed_line(
            production,
            place,
            RATIFY,
            {"rollback": rollback["digest"], "comment": comment},
            key=key,
            what="ratifying a rollback",
            terminal=terminal,
        )
        _require_somebody_else(production, place, rollback, actor)
        said.append((content, actor))
    return [production.append(place, RATIFY, content, actor=actor) for content, actor in said]


def _require_somebody_else(production: Production, slot: Slot, rollback: Entry, actor: Actor) -> None:
    same = sorted(_names(rollback["actor"]) & _names(actor.to_dict()))
    entries = production.log.entries()
    if same and not policy_in_force(production.settings, entries, slot.name).allow_self_approval:
        raise SelfApproval(
            f"slot {slot.name}: {rollback['actor']['name']} rolled back on {rollback['date']} (line "
            f"{entries.index(rollback) + 1}), somebody else has to ratify it; name yourself with --as",
            name=same[0],
        )


def _names(actor: Mapping[str, Any]) -> set[str]:
    """What a person goes by, in one case: typed, and of a principal also what stands before the ``@``."""
    names = {name.casefold() for name in (actor["name"], actor["principal"]) if name}
    return names | {name.partition("@")[0] for name in names}


def release_quarantine(
    production: Production,
    slot: str,
    digest: str,
    reason: str,
    *,
    key: Path | None = None,
    terminal: bool = False,
) -> Entry:
    """Let bytes that were rolled back be promoted, or be gone back to, again; signed where signers are set.

    Parameters
    ----------
    digest
        At least 8 digits of the model's SHA-256.

    Raises
    ------
    ArchiveUnknown, ArchiveAmbiguous
        None, or more than one, of the quarantined models begins so.
    SignatureRefused, SigningFailed
        Signers are set, and nobody of them signed.
    """
    reason = _reason(reason, "quarantine release")
    place = production.slot(slot)
    barred = production.state(place).quarantined
    found = [model for model in barred if len(digest) >= 8 and model.startswith(digest.lower())]
    if not found:
        listed = ", ".join(model[:12] for model in barred) or "none"
        raise ArchiveUnknown(
            f"slot {place.name}: no quarantined model begins with {digest!r} (give at least 8 digits); quarantined: "
            f"{listed}",
            digest=digest,
        )
    if len(found) > 1:
        raise ArchiveAmbiguous(
            f"slot {place.name}: {len(found)} quarantined models begin with {digest}; give more digits",
            digest=digest,
            models=found,
        )
    content, actor = signed_line(
        production,
        place,
        QUARANTINE_RELEASE,
        {"model": found[0], "reason": reason, "rollback": barred[found[0]]["digest"]},
        key=key,
        what="releasing a quarantine",
        terminal=terminal,
    )
    return production.append(place, QUARANTINE_RELEASE, content, actor=actor)


def _reason(reason: str, command: str) -> str:
    reason = one_line(reason)
    if not reason:
        raise UsageError(f"{command}: say why, in one line, with --reason")
    return reason
