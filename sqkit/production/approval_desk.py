"""Everything that lies before a person who signs off a candidate, read once.

Used where facts are added (`sqkit.production.approvals`) and where the page is drawn
(`sqkit.production.approval_view`). Nothing is written.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sqkit.artifacts import CHECKLIST_FILE, STUDENT_FILE
from sqkit.audit_log import PROMOTE
from sqkit.chain import Entry
from sqkit.checklist_inputs import Policy
from sqkit.policy_in_force import policy_in_force
from sqkit.production.approval_book import Book, read_book
from sqkit.production.approval_facts import Statement, decision_time, statement_of
from sqkit.production.approval_standing import Rules, Standing, standing
from sqkit.production.audit import AuditLog
from sqkit.production.boxes import BoxState, box_states
from sqkit.production.candidate import Candidate, read_candidate
from sqkit.production.signed_facts import signers_in_force
from sqkit.production.slot_state import fold
from sqkit.production.slots import Slot, all_slots, models_folder, slot_named
from sqkit.sessions import MARKETS
from sqkit.settings import Settings


@dataclass(frozen=True)
class Desk:
    """A candidate, what people said about it, and what it is held against.

    Attributes
    ----------
    slot
        Where the candidate's strategy goes.
    entries
        The verified audit log.
    policy
        The one in force in the slot.
    signers
        Contents of the allowed signers file; None where typed names do.
    now
        UTC.
    """

    candidate: Candidate
    settings: Settings
    root: Path
    slot: Slot
    entries: Sequence[Entry]
    policy: Policy
    signers: str | None
    now: dt.datetime

    @cached_property
    def statement(self) -> Statement:
        """What is signed."""
        return statement_of(self.candidate, self.slot.name)

    @cached_property
    def book(self) -> Book:
        """What people said so far; empty where nobody said anything."""
        return read_book(self.candidate) or Book(self.statement)

    @property
    def zone(self) -> str:
        """The market's zone."""
        return MARKETS[self.statement["predicate"]["market"]].zone

    @property
    def rules(self) -> Rules:
        """What approvals are held against."""
        author = self.statement["predicate"]["created_by"]
        decided = decision_time(self.candidate)
        return Rules(self.policy, self.signers, author, self.now, self.zone, decided)

    @property
    def promotion(self) -> Entry | None:
        """The audit line that promoted these very bytes; None where none did."""
        digests = {
            "model": self.candidate.digest(STUDENT_FILE),
            "checklist": self.candidate.digest(CHECKLIST_FILE),
        }
        found = [
            entry
            for entry in self.entries
            if entry["kind"] == PROMOTE
            and entry["slot"] == self.slot.name
            and all(entry["digests"][name] == digest for name, digest in digests.items())
        ]
        return found[-1] if found else None

    def standing(self, book: Book | None = None) -> Standing:
        """Whether the candidate is approved, by this book or the one that was read."""
        rules = self.rules
        return standing(
            self.book if book is None else book,
            self.statement,
            policy=rules.policy,
            signers=rules.signers,
            author=rules.author,
            now=rules.now,
            zone=rules.zone,
            decided_at=rules.decided_at,
        )

    def boxes(self, book: Book | None = None) -> tuple[BoxState, ...]:
        """Every box, by this book or the one that was read."""
        state, promotion = fold(self.entries, self.slot.name), self.promotion
        is_live = state.live is not None and promotion is not None and state.live.entry == promotion
        return box_states(
            self.candidate.json(CHECKLIST_FILE),
            self.book if book is None else book,
            self.statement,
            drill_entry=state.drill,
            now=self.now,
            settings=self.settings,
            signers=self.signers,
            promotion=promotion,
            attested=state.attested if is_live else None,
        )


def open_desk(model_path: str | Path, *, settings: Settings, root: Path = Path(), now: dt.datetime) -> Desk:
    """Read a candidate and everything it is held against.

    Raises
    ------
    ModelFileError, ArtifactChanged
        The candidate cannot be read.
    AuditBroken
        The audit log does not hold, so that nobody knows which policy is in force.
    SigningFailed, SignatureRefused
        The signers file that is set cannot be used, or is not the one that was accepted with the policy.
    """
    models_dir = models_folder(settings, root)
    candidate = read_candidate(model_path, settings=settings, models_dir=models_dir, root=root)
    slot = slot_named(settings, candidate.about["strategy"], root)
    entries = audit_log(settings, root).entries()
    return Desk(
        candidate=candidate,
        settings=settings,
        root=root,
        slot=slot,
        entries=entries,
        policy=policy_in_force(settings, entries, slot.name),
        signers=signers_in_force(settings, root, entries, slot.name),
        now=now,
    )


def audit_log(settings: Settings, root: Path = Path()) -> AuditLog:
    """The project's audit log, with what its releases say about it."""
    releases = tuple(slot.release_path for slot in all_slots(settings, root))
    return AuditLog(models_folder(settings, root), releases)
