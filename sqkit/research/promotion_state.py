"""What people and production say of a checklist, read only: approvals beside it, the audit log above it.

The index of reports shows it, and a checklist that became a release is never overwritten. Research
reads here what production wrote: plain JSON, and the log by `sqkit.audit_log.read_audit`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sqkit.artifacts import APPROVALS_FILE
from sqkit.audit_log import AUDIT_FILE, PROMOTE, ROLLBACK, UNMANAGED, read_audit
from sqkit.chain import Entry
from sqkit.errors import AuditBroken, SqkitError
from sqkit.files import read_json, sha256_file, sha256_json

_PLACING = (PROMOTE, ROLLBACK, UNMANAGED)


Logs = dict[Path, list[Entry]]
"""Audit logs that were read already, by their folder: a list of many checklists asks for one again and again."""


def audit_above(folder: Path, known: Logs | None = None) -> list[Entry] | None:
    """The audit log of the models folder that `folder` lies in; None where there is none.

    Raises
    ------
    AuditBroken
        The log does not hold.
    """
    logs = {} if known is None else known
    for parent in folder.absolute().parents:
        if (parent / AUDIT_FILE).is_file():
            if parent not in logs:
                logs[parent] = read_audit(parent)
            return logs[parent]
    return None


def release_of_checklist(checklist: Path) -> str:
    """Name of the newest release that a stored checklist belongs to; empty where it belongs to none.

    Raises
    ------
    AuditBroken
        The log does not hold.
    """
    entries = audit_above(checklist.parent)
    if not entries or not checklist.is_file():
        return ""
    digest = sha256_file(checklist)
    return next((str(entry["release"]) for entry in reversed(entries) if _promotes(entry, digest)), "")


def _promotes(entry: Entry, checklist_digest: str) -> bool:
    """Whether a line promoted what this checklist decided."""
    return bool(entry["kind"] == PROMOTE and entry["digests"].get("checklist") == checklist_digest)


def state_words(folder: Path, checklist_digest: str, roles: Sequence[str], known: Logs | None = None) -> str:
    """Approvals and production of a checklist in a few words; empty where nobody said or did anything.

    Parameters
    ----------
    folder
        The student's folder, in which ``approvals.json`` lies.
    checklist_digest
        SHA-256 of ``promotion_checklist.json``.
    roles
        Whose approval the policy requires; empty where that is not known, or nobody's.
    known
        Audit logs read before.
    """
    words = [_approval_words(folder / APPROVALS_FILE, checklist_digest, roles)]
    try:
        words += _production_words(audit_above(folder, known) or [], checklist_digest)
    except AuditBroken:
        words.append("the audit log is broken")
    return "; ".join(word for word in words if word)


def _approval_words(place: Path, checklist_digest: str, roles: Sequence[str]) -> str:
    """``2 of 3 approved``, or who rejected; a fact about another checklist counts for nothing."""
    if not place.is_file():
        return ""
    try:
        newest = _newest_words(read_json(place), checklist_digest)
    except (SqkitError, AttributeError, KeyError, TypeError, ValueError):
        return f"{APPROVALS_FILE} cannot be read"
    rejecting = sorted({role for (role, _), kind in newest.items() if kind == "reject"})
    if rejecting:
        return f"rejected by {', '.join(rejecting)}"
    if not newest:
        return ""
    approving = {role for role, _ in newest}
    return (
        f"{len(approving & set(roles))} of {len(roles)} approved" if roles else f"{len(approving)} approved"
    )


def _newest_words(book: Any, checklist_digest: str) -> dict[tuple[str, str], str]:
    """Role and person to the newest they said of this checklist and did not take back: approve or reject."""
    statements = {
        sha256_json(statement)
        for statement in (book["statement"], *book.get("earlier", ()))
        if statement["predicate"]["checklist"] == checklist_digest
    }
    revoked = {fact["revokes"] for fact in book["facts"] if fact["kind"] == "revoke"}
    return {
        (str(fact["role"]), str(fact["name"]).casefold()): str(fact["kind"])
        for fact in book["facts"]
        if fact["kind"] in ("approve", "reject")
        and fact["statement"] in statements
        and fact["id"] not in revoked
    }


def _production_words(entries: Iterable[Entry], checklist_digest: str) -> list[str]:
    """``live in swing``, or until when it was, for each slot that a release of this checklist was put in."""
    live: dict[str, Any] = {}
    ours: dict[str, list[str]] = {}
    left: dict[str, str] = {}
    for entry in entries:
        slot = entry["slot"]
        if entry["kind"] not in _PLACING or (entry["kind"] == UNMANAGED and slot in live):
            continue  # a file found beside a live release was never served
        if _promotes(entry, checklist_digest):
            ours.setdefault(slot, []).append(entry["release"])
        if live.get(slot) in ours.get(slot, ()) and entry["release"] != live[slot]:
            left[slot] = entry["date"]
        live[slot] = entry["release"]
    return [
        f"live in {slot}" if live[slot] in names else f"was live until {left[slot]}"
        for slot, names in ours.items()
    ]
