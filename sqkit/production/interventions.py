"""What a person may do to production at once: halt, resume, ratify a rollback, release a quarantine.

A halt needs nobody's permission and no sound log: its flag is written before its line. Each function
takes a `Production` and returns the audit line, None where nothing was to be done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqkit.audit_log import HALT, QUARANTINE_RELEASE, RATIFY, RESUME
from sqkit.chain import Entry
from sqkit.errors import ArchiveAmbiguous, ArchiveUnknown, OutputError, SelfApproval, SqkitError, UsageError
from sqkit.files import canonical_json, fsync_folder, output_errors, write_json
from sqkit.people import one_line
from sqkit.production.audit import instant
from sqkit.production.changes import Production
from sqkit.production.signed_facts import signature_of
from sqkit.production.signing import RATIFY as RATIFY_NAMESPACE
from sqkit.production.slots import Slot
from sqkit.settings import PREFIX


def halt(production: Production, slot: str, reason: str) -> Entry | None:
    """Stop the student of a slot: the engine runs its baseline. Halting again changes nothing.

    The flag beside the model comes first, so that a broken log or a full disk for the log does not keep
    the student trading. Either of the two halts; `say` is told where the other could not be written.

    Raises
    ------
    OutputError
        Neither flag nor line can be written.
    """
    reason = _reason(reason, "halt")
    place = production.slot(slot)
    unflagged = _raise_flag(production, place, reason)
    entry = None
    try:
        if production.state(place).halted is None:
            entry = production.append(place, HALT, {"reason": reason})
    except (SqkitError, OSError) as problem:
        if unflagged:
            raise OutputError(
                f"slot {place.name} is NOT halted: {unflagged}; {problem}; set {PREFIX}STUDENT_MODEL_ENABLED=false and "
                "restart the engine",
                slot=place.name,
            ) from None
        production.say(f"slot {place.name} is halted, but that is not in the audit log: {problem}")
    else:
        if unflagged:
            production.say(f"slot {place.name} is halted by the audit log alone: {unflagged}")
    return entry


def _raise_flag(production: Production, place: Slot, reason: str) -> str:
    """Write ``halt.json`` unless it is there; why that was not possible, or nothing."""
    flag = {"at": instant(production.now()), "by": production.actor.to_dict(), "reason": reason}
    try:
        if not place.halt_path.exists():
            write_json(place.halt_path, flag)
    except (SqkitError, OSError) as problem:
        return str(problem)
    return ""


def resume(production: Production, slot: str, reason: str = "") -> Entry | None:
    """End a halt. Resuming what is not halted changes nothing."""
    place = production.slot(slot)
    halted = production.state(place).halted is not None
    if not halted and not place.halt_path.exists():
        return None
    entry = production.append(place, RESUME, {"reason": one_line(reason)})
    with output_errors(place.halt_path):
        place.halt_path.unlink(missing_ok=True)
        fsync_folder(place.folder)
    return entry


def ratify(
    production: Production, slot: str, comment: str = "", *, key: Path | None = None, terminal: bool = False
) -> Entry:
    """Agree to the newest rollback that a person made without approval; signed where signers are set.

    Raises
    ------
    UsageError
        No rollback waits for it.
    SelfApproval
        Whoever rolled back ratifies it.
    SignatureRefused, SigningFailed
        Signers are set, and nobody of them signed.
    """
    place, comment = production.place(production.slot(slot)), one_line(comment)
    waiting = production.state(place.slot).unratified
    if waiting is None:
        raise UsageError(
            f"slot {place.slot.name}: no rollback waits to be ratified; see sqkit history",
            slot=place.slot.name,
        )
    said = {"comment": comment, "kind": RATIFY, "rollback": waiting["digest"], "slot": place.slot.name}
    signed, principal = signature_of(
        canonical_json(said, indent=None).strip(),
        settings=production.settings,
        root=production.root,
        namespace=RATIFY_NAMESPACE,
        key=key,
        now=place.now,
        what=f"slot {place.slot.name}: ratifying a rollback",
        terminal=terminal,
        entries=production.log.entries(),
        slot=place.slot.name,
    )
    actor = replace(production.actor, principal=principal)
    same = sorted(_names(waiting["actor"]) & _names(actor.to_dict()))
    if same and not production.settings.promotion_allow_self_approval:
        raise SelfApproval(
            f"slot {place.slot.name}: {waiting['actor']['name']} rolled back, somebody else has to ratify it; name "
            "yourself with --as",
            name=same[0],
        )
    return production.append(
        place.slot, RATIFY, {"rollback": waiting["digest"], "comment": comment, **signed}, actor=actor
    )


def _names(actor: Mapping[str, Any]) -> set[str]:
    """What a person goes by, in one case: typed, and of a principal also what stands before the ``@``."""
    names = {name.casefold() for name in (actor["name"], actor["principal"]) if name}
    return names | {name.partition("@")[0] for name in names}


def release_quarantine(production: Production, slot: str, digest: str, reason: str) -> Entry:
    """Let bytes that were rolled back be promoted, or be gone back to, again.

    Parameters
    ----------
    digest
        At least 8 digits of the model's SHA-256.

    Raises
    ------
    ArchiveUnknown, ArchiveAmbiguous
        None, or more than one, of the quarantined models begins so.
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
    return production.append(place, QUARANTINE_RELEASE, {"model": found[0], "reason": reason})


def _reason(reason: str, command: str) -> str:
    reason = one_line(reason)
    if not reason:
        raise UsageError(f"{command}: say why, in one line, with --reason")
    return reason
