"""Are the stored signatures still good? Each against the signers file stored with it, at the time it was made.

Part of `sqkit.production.audit_check`. A key that expired later, or was taken out of today's signers file,
takes nothing back. A machine without ``ssh-keygen`` notes that nothing was verified.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sqkit.artifacts import APPROVALS_FILE, SIGNERS_FILE
from sqkit.audit_log import AUDIT_FILE, POLICY
from sqkit.chain import Entry
from sqkit.errors import AuditBroken, SigningFailed, SqkitError
from sqkit.files import parse_json, sha256_bytes
from sqkit.policy_in_force import own_line
from sqkit.production.approval_book import parse_book
from sqkit.production.approval_voices import approvals_in_force, verified_later, voices_about
from sqkit.production.log_walk import Walk
from sqkit.production.signed_facts import NAMESPACES, stated
from sqkit.production.signing import POLICY as POLICY_NAMESPACE
from sqkit.production.signing import principal_of
from sqkit.production.slot_state import ReleaseFact

_NAMESPACES: Final = {POLICY: POLICY_NAMESPACE, **NAMESPACES}


@dataclass
class Signatures:
    """What was found of them.

    Attributes
    ----------
    verified
        How many are good.
    typed
        Releases that somebody approved without a signature.
    unverified
        Why they could not be verified here; empty where they could.
    """

    verified: int = 0
    problems: list[str] = field(default_factory=list)
    typed: int = 0
    unverified: str = ""

    def notes(self) -> list[str]:
        """What a person should know."""
        notes = [self.unverified] if self.unverified else []
        if self.typed:
            notes.append(
                f"{self.typed} release{'s were' if self.typed > 1 else ' was'} approved by typed names, which is no "
                "authentication"
            )
        return notes

    def look_at(
        self, shown: str, stored: Any, signers: str | None, promotion: Mapping[str, Any], model: str
    ) -> None:
        """A stored book of approvals.

        Parameters
        ----------
        shown
            Where it lies, for messages.
        signers
            The signers file stored with it; None where typed names had to do.
        promotion, model
            The audit line that names who approved, and the digest of the model.
        """
        if stored is None:
            return
        try:
            book = parse_book(stored, Path(shown))
            said: dict[str, Mapping[str, Any]] = promotion.get("approvals", {})
            unverified = verified_later(book, signers, model=model, roles=said)
        except SqkitError as problem:
            self.problems.append(f"{shown}: {str(problem).removeprefix(f'{shown}: ')}")
            return
        if unverified:
            self.unverified = unverified[0]
        elif signers is not None:
            heard = approvals_in_force(book, voices_about(book, book.statement, signers))
            self.verified += sum(voice.principal is not None for voice in heard)
        if any(not one["signed"] for one in said.values()):
            self.typed += 1

    def require(
        self,
        where: str,
        text: str,
        signature: str,
        signers: str,
        namespace: str,
        at: dt.datetime,
        principal: Any,
    ) -> None:
        """One signature is of this text and of whom it is said to be."""
        try:
            found = principal_of(text, signature, signers, namespace, at)
        except SigningFailed as problem:
            self.unverified = f"a signature was not verified: {problem}"
        except SqkitError as problem:
            self.problems.append(f"{where}: {problem}")
        else:
            if found == principal:
                self.verified += 1
            else:
                self.problems.append(f"{where}: signed by {found}, not by {principal}")


def release_signatures(folder: Path, release: ReleaseFact, found: Signatures) -> None:
    """The approvals of an archived release; files that are not what the log names were named already."""
    if release.unmanaged or APPROVALS_FILE not in release.files:
        return
    shown = f"{folder.parent.name}/{folder.name}/{APPROVALS_FILE}"
    book, signers = (_archived(folder, release, name) for name in (APPROVALS_FILE, SIGNERS_FILE))
    if book is None:
        return
    try:
        stored = parse_json(book, Path(shown))
        text = None if signers is None else signers.decode("utf-8")
    except (SqkitError, UnicodeDecodeError) as problem:
        found.problems.append(f"{shown}: cannot be read ({problem})")
        return
    found.look_at(shown, stored, text, release.entry, release.model)


def _archived(folder: Path, release: ReleaseFact, name: str) -> bytes | None:
    try:
        data = (folder / name).read_bytes()
    except OSError:
        return None
    return data if sha256_bytes(data) == release.files.get(name) else None


def line_signatures(log: Walk, found: Signatures) -> None:
    """Lines that are signed where signers are set: each is what was signed, and by whom the line says."""
    broken: set[str] = set()
    for place, (number, entry) in enumerate(zip(log.numbers, log.entries, strict=True), 1):
        if entry["kind"] not in _NAMESPACES:
            continue
        where = f"{AUDIT_FILE}: line {number}"
        problem = _other_statement(log.entries[:place], entry, broken)
        if problem:
            found.problems.append(f"{where}: {problem}")
        elif entry["signature"] and entry["slot"] not in broken:
            signed = (entry["statement"], entry["signature"], entry["signers"])
            namespace, principal = _NAMESPACES[entry["kind"]], entry["actor"]["principal"]
            found.require(where, *signed, namespace, _signed_at(entry), principal)


def _other_statement(until: Sequence[Entry], entry: Entry, broken: set[str]) -> str:
    """What the newest of these lines has signed that is not what it says."""
    if entry["kind"] != POLICY:
        return "" if entry["statement"] in (None, stated(entry)) else "is not what was signed for it"
    if entry["slot"] in broken:  # each policy is signed as the successor of the one before it
        return ""
    try:
        own_line(until, entry["slot"])
    except AuditBroken as problem:
        broken.add(entry["slot"])
        return str(problem)
    return ""


def _signed_at(entry: Entry) -> dt.datetime:
    """A policy's statement says when; a line may be dated later, never before the line it follows."""
    return dt.datetime.fromisoformat(json.loads(entry["statement"]).get("at", entry["at"]))
