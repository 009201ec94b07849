"""The book of approvals: facts that are added and never edited or removed, beside the candidate.

``approvals.json`` holds them with the statements they are about, and each names the fact before it. A fact
about other bytes than those that lie there now stays in the book and counts for nothing
(`sqkit.production.approval_standing`). Read strictly: what sqkit did not write is refused.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from sqkit.artifacts import APPROVALS_FILE
from sqkit.errors import ArtifactChanged, ClockBackwards
from sqkit.files import canonical_json, parse_json, sha256_json
from sqkit.production.approval_facts import (
    REVOKE,
    Fact,
    Statement,
    fact_problem,
    id_of,
    is_statement,
    made_at,
)
from sqkit.production.audit import CLOCK_TOLERANCE, instant
from sqkit.production.candidate import Candidate

_SCHEMA_VERSION: Final = 1


@dataclass(frozen=True)
class Book:
    """The facts about one candidate, oldest first, and the statements they were made about.

    Attributes
    ----------
    statement
        The one that the newest facts are about.
    earlier
        Statements of facts that were made before something changed, oldest first.
    """

    statement: Statement
    earlier: tuple[Statement, ...] = ()
    facts: tuple[Fact, ...] = ()

    def statement_named(self, digest: str) -> Statement:
        """The statement of this digest."""
        return next(one for one in (self.statement, *self.earlier) if sha256_json(one) == digest)

    def fact(self, fact_id: str) -> Fact | None:
        """The fact of this id; None where there is none."""
        return next((fact for fact in self.facts if fact["id"] == fact_id), None)

    @property
    def revoked(self) -> dict[str, Fact]:
        """Id of a fact to the one that took it back."""
        return {fact["revokes"]: fact for fact in self.facts if fact["kind"] == REVOKE}

    def about(self, statement: Statement) -> Book:
        """The same facts, ready for new ones about this statement."""
        if statement == self.statement:
            return self
        kept = [one for one in (*self.earlier, self.statement) if one != statement]
        return replace(self, statement=statement, earlier=tuple(kept))

    def with_fact(self, fact: Fact) -> Book:
        """The book with one more fact."""
        return replace(self, facts=(*self.facts, fact))

    def to_dict(self) -> dict[str, Any]:
        """As ``approvals.json`` holds it."""
        return {
            "earlier": list(self.earlier),
            "facts": list(self.facts),
            "schema_version": _SCHEMA_VERSION,
            "statement": self.statement,
        }


def new_fact(book: Book, said: Mapping[str, Any]) -> Fact:
    """A fact that follows on the newest of the book, unsigned.

    Parameters
    ----------
    said
        ``kind``, ``at``, ``name``, ``user``, ``host`` and what its kind has.
    """
    fact = {
        **said,
        "previous": book.facts[-1]["id"] if book.facts else None,
        "statement": sha256_json(book.statement),
    }
    return {**fact, "id": id_of(fact), "principal": None, "signature": None}


def read_book(candidate: Candidate) -> Book | None:
    """The facts about a candidate, from the bytes that were read with it; None where nobody said anything.

    Raises
    ------
    ArtifactChanged
        See `parse_book`.
    """
    data = candidate.files.get(APPROVALS_FILE)
    if data is None:
        return None
    place = Path(candidate.typed).parent / APPROVALS_FILE
    stored = parse_json(data, place)
    book = parse_book(stored, place)
    # Else release.json, which embeds it, could not be held against its digest.
    if canonical_json(stored).encode() != data:
        raise _edited(place, "has another form than sqkit writes")
    return book


def parse_book(stored: Any, place: Path = Path(APPROVALS_FILE)) -> Book:
    """A stored book, read strictly: of ``approvals.json``, or embedded in a ``release.json``.

    Raises
    ------
    ArtifactChanged
        It is not what sqkit writes: a fact was edited, removed, moved or added by hand.
    """
    keys = {"earlier", "facts", "schema_version", "statement"}
    if not isinstance(stored, dict) or set(stored) != keys or stored["schema_version"] != _SCHEMA_VERSION:
        raise _edited(place, f"is no book of approvals of schema {_SCHEMA_VERSION}")
    statements = [
        stored["statement"],
        *(stored["earlier"] if isinstance(stored["earlier"], list) else [None]),
    ]
    if not all(is_statement(one) for one in statements) or not isinstance(stored["facts"], list):
        raise _edited(place, "holds no statement that anybody could have approved")
    known = {sha256_json(one) for one in statements}
    previous: Fact | None = None
    seen: set[str] = set()
    for number, fact in enumerate(stored["facts"], 1):
        problem = fact_problem(fact, previous, known, seen)
        if problem:
            raise _edited(place, f"fact {number} {problem}")
        seen.add(fact["id"])
        previous = fact
    return Book(stored["statement"], tuple(stored["earlier"]), tuple(stored["facts"]))


def require_clock(book: Book | None, now: dt.datetime, place: str = APPROVALS_FILE) -> None:
    """A fact from the future means that this clock, or the one before it, is wrong.

    Raises
    ------
    ClockBackwards
        The newest fact is more than five minutes ahead of `now`.
    """
    if book is None or not book.facts:
        return
    newest = book.facts[-1]
    if made_at(newest) > now + CLOCK_TOLERANCE:
        raise ClockBackwards(
            f"{place}: fact {newest['id']} is of {newest['at']}, but the clock says {instant(now)}; "
            "set the clock right and run again",
            recorded=newest["at"],
            now=instant(now),
        )


def _edited(place: Path, problem: str) -> ArtifactChanged:
    return ArtifactChanged(
        f"{place}: {problem}; facts are only ever added by sqkit approve and sqkit attest: restore the file from a "
        "backup, or move it away and have everybody approve again",
        path=str(place),
    )
