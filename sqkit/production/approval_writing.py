"""Adding a fact to the book of approvals: under a lock, signed, written durably, the page drawn again.

Shared by everything that signs off (`sqkit.production.approvals`, `sqkit.production.live_boxes`).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqkit.artifacts import APPROVALS_FILE, CHECKLIST_PAGE, STUDENT_FILE
from sqkit.audit_log import OBJECTION
from sqkit.errors import OutputError, SignatureRefused, SqkitError, UsageError
from sqkit.files import exclusive, read_json, write_json
from sqkit.people import Actor
from sqkit.production.approval_book import Book, new_fact, require_clock
from sqkit.production.approval_desk import Desk, audit_log, open_desk
from sqkit.production.approval_facts import Fact, is_note, is_text, made_at, namespace_of, signed_text
from sqkit.production.approval_standing import FULL_CONTROL, Standing
from sqkit.production.approval_view import TYPED_NAMES, control_line, render_view
from sqkit.production.approval_voices import agrees
from sqkit.production.audit import instant
from sqkit.production.boxes import BoxState
from sqkit.production.signing import likely_principal, principal_of, sign
from sqkit.production.webhook import announce
from sqkit.settings import Settings

_LOCK: Final = ".approvals.lock"
_MOST_CHARACTERS: Final = 2000


@dataclass(frozen=True)
class Signer:
    """Who speaks.

    Attributes
    ----------
    name
        As typed; empty: whom the key belongs to, else the account.
    key
        SSH key to sign with; needed where a signers file is set.
    terminal
        Whether a person sits at a terminal and may be asked for a passphrase.
    """

    name: str = ""
    key: Path | None = None
    terminal: bool = False


@dataclass(frozen=True)
class Recorded:
    """A fact that was added, and how the candidate stands now.

    Attributes
    ----------
    model
        Path of the model as typed.
    done
        What was done, for a person.
    notes
        What they should know beside.
    """

    model: str
    fact: Fact
    done: str
    standing: Standing
    boxes: tuple[BoxState, ...]
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """For a person: what was done, what is missing, what to know."""
        model = shlex.quote(self.model)
        lines = [f"{self.done} (fact {self.fact['id']})"]
        lines += [
            f"missing: {problem.message.replace('--model MODEL', f'--model {model}')}"
            for problem in self.standing.problems
        ]
        lines += [
            f"open box: {box.title} ({box.box}): {box.open_because}"
            for box in self.boxes
            if box.required and not box.ticked
        ]
        if len(lines) == 1:
            lines.append(f"nothing is missing: sqkit promote --model {model} --dry-run")
        return [*lines, *self.notes]


@contextlib.contextmanager
def writing(model_path: str | Path, settings: Settings, root: Path, now: dt.datetime) -> Iterator[Desk]:
    """The candidate, read again while nobody else adds a fact."""
    desk = open_desk(model_path, settings=settings, root=root, now=now)
    with exclusive(desk.candidate.folder, "approval", name=_LOCK):
        desk = open_desk(model_path, settings=settings, root=root, now=now)
        require_clock(desk.book, now, str(Path(model_path).parent / APPROVALS_FILE))
        yield desk


def made_fact(desk: Desk, book: Book, said: Mapping[str, Any], signer: Signer, *, key_needed: bool) -> Fact:
    """The fact, signed where signatures are asked for; its name is then that of whom the key belongs to."""
    require_text(signer.name, "--as", needed=False)
    who = Actor.here(signer.name)
    newest = book.facts[-1]["at"] if book.facts else ""
    common = {**said, "at": max(instant(desk.now), newest), "user": who.user, "host": who.host}
    if desk.signers is None and signer.key is not None:
        raise UsageError(
            f"--key {signer.key}: no signers file is set, so nobody could verify the signature; set "
            "SENSEQUANT_PROMOTION_ALLOWED_SIGNERS, or leave --key out"
        )
    if desk.signers is None or (signer.key is None and not key_needed):
        return new_fact(book, {**common, "name": who.name})
    if signer.key is None:
        raise SignatureRefused(
            f"a sign-off has to be signed here (SENSEQUANT_PROMOTION_ALLOWED_SIGNERS={desk.settings.promotion_allowed_signers}); "
            "give --key the path of your SSH key"
        )
    owner = likely_principal(signer.key, desk.signers)
    name = signer.name or (who.name if agrees(who.name, owner) else owner or who.name)
    signed = _signed(new_fact(book, {**common, "name": name}), signer, desk.signers)
    if agrees(name, signed["principal"]):
        return signed
    if signer.name:
        raise SignatureRefused(
            f"--as {signer.name}: the key {signer.key} is that of {signed['principal']}; leave --as out, or sign with "
            "your own key",
            principal=signed["principal"],
        )
    return _signed(new_fact(book, {**common, "name": signed["principal"]}), signer, desk.signers)


def _signed(fact: Fact, signer: Signer, signers: str) -> Fact:
    """The fact with its signature, which is verified at once."""
    assert signer.key is not None
    text, namespace = signed_text(fact), namespace_of(fact)
    signature = sign(text, signer.key, namespace, terminal=signer.terminal)
    try:
        principal = principal_of(text, signature, signers, namespace, made_at(fact))
    except SignatureRefused as refusal:
        raise SignatureRefused(f"--key {signer.key}: {refusal.message}", **refusal.values) from None
    return {**fact, "principal": principal, "signature": signature}


def recorded(desk: Desk, book: Book, fact: Fact, done: str) -> Recorded:
    """Write the book, draw the page again, and say how the candidate stands."""
    folder, notes = desk.candidate.folder, list[str]()
    _write_book(folder / APPROVALS_FILE, book, fact)
    if fact["principal"] is None:
        notes.append(TYPED_NAMES)
    if len(desk.policy.required_approvals) < FULL_CONTROL:
        notes.append(control_line(len(desk.policy.required_approvals)))
    try:
        render_view(folder, settings=desk.settings, root=desk.root, now=desk.now)
    except (SqkitError, OSError) as problem:  # a view; the fact is on disk
        notes.append(f"{CHECKLIST_PAGE} was not drawn again: {problem}")
    return Recorded(
        str(desk.candidate.typed), fact, done, desk.standing(book), desk.boxes(book), tuple(notes)
    )


def _write_book(place: Path, book: Book, fact: Fact) -> None:
    """Write the book, whose lock is held; a refusal after it lies there says that the fact counts."""
    try:
        write_json(place, book.to_dict(), alone=True)
    except OutputError as problem:
        try:
            stands = read_json(place) == book.to_dict()
        except SqkitError:
            stands = False
        if not stands:
            raise
        raise OutputError(
            f"{problem}; fact {fact['id']} stands in {APPROVALS_FILE} and counts already: mend that",
            **problem.values,
        ) from None


def objected(desk: Desk, fact: Fact, reason: str) -> None:
    """Name a rejection or revocation in the audit log: cut from the book, it is missed at the promotion.

    Raises
    ------
    SqkitError
        The log cannot be written; the fact is in the book all the same.
    """
    content = {
        "fact": fact["id"],
        "model": desk.candidate.digest(STUDENT_FILE),
        "reason": reason,
        "what": fact["kind"],
    }
    who = Actor(fact["name"], fact["user"], fact["host"], fact["principal"])
    try:
        entry = audit_log(desk.settings, desk.root).append(
            OBJECTION, content, slot=desk.slot.name, actor=who, now=desk.now, zone=desk.zone
        )
    except SqkitError as problem:
        raise type(problem)(
            f"{problem.message}; fact {fact['id']} stands in {APPROVALS_FILE} and counts, but the audit log does not "
            "name it: keep a copy of the file",
            **problem.values,
        ) from None
    announce(desk.settings, entry, root=desk.root)


def proof_words(word: str, fact: Fact) -> str:
    """Who did something, and whether that is proved."""
    proof = f"signed, {fact['principal']}" if fact["principal"] else "typed name, not authenticated"
    return f"{word} by {fact['name']} ({proof})"


def require_text(value: str, flag: str, *, needed: bool) -> None:
    """Refuse (UsageError) what is not one line of text of a usable length."""
    fits = is_text(value) if needed else is_note(value)
    if not fits or len(value) > _MOST_CHARACTERS:
        asked = "one line of text" if needed else "one line of text, or leave it out"
        raise UsageError(f"{flag}: give {asked}, at most {_MOST_CHARACTERS} characters", flag=flag)
