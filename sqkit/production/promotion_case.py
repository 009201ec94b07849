"""What the checks of one promotion look at: the candidate's bytes, the settings, the log, the clock.

Each check is a function of a `Case`: it returns one line for a person, or raises the refusal. What is
read or computed for one check is kept for the next.
"""

from __future__ import annotations

import datetime as dt
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from sqkit.artifacts import CHECKLIST_FILE, RESULTS_FILE, STUDENT_FILE, VERIFICATION_FILE
from sqkit.chain import Entry
from sqkit.checklist_inputs import Policy
from sqkit.errors import ArtifactChanged, ModelFileError, SqkitError
from sqkit.files import canonical_json
from sqkit.policy_in_force import policy_in_force
from sqkit.production.approval_book import Book, read_book
from sqkit.production.approval_facts import Statement, decision_time, statement_of
from sqkit.production.approval_standing import Standing, standing
from sqkit.production.boxes import BoxState, box_states
from sqkit.production.candidate import MAX_ARTIFACT_BYTES, RELEASE_FILES, Candidate, read_candidate
from sqkit.production.signed_facts import signers_in_force
from sqkit.production.slot_state import SlotState
from sqkit.production.slots import Slot, models_folder
from sqkit.report_manifest import MANIFEST
from sqkit.sessions import MARKETS
from sqkit.settings import Settings
from sqkit.student import StudentModel


class Unread(Exception):
    """A check asked for something that another check, named here, has refused."""


class Advisory(str):
    """What a check that does not refuse wants a person to read."""

    __slots__ = ()


@dataclass(frozen=True)
class Case:
    """One candidate before one slot.

    Attributes
    ----------
    typed
        The model's path as given.
    now
        UTC.
    entries, state
        The verified audit log, and what it says of the slot.
    env_file, environ
        Where a version pin may stand.
    verify
        Computes the decision again from a student's folder; None where that cannot be done here.
    """

    typed: str
    settings: Settings
    root: Path
    now: dt.datetime
    entries: Sequence[Entry]
    state: SlotState
    slot: Slot
    env_file: str | Path | None
    environ: Mapping[str, str]
    verify: Callable[[Path], Mapping[str, Any]] | None = None

    @cached_property
    def verification(self) -> Mapping[str, Any]:
        """What came of computing the decision again: now, where that can be done here, else as stored."""
        if self.verify is None:
            return self.read.json(VERIFICATION_FILE)
        return self.verify(self.read.folder)

    @property
    def examined(self) -> Candidate:
        """The candidate as it was examined: with the verification that counted."""
        if self.verify is None:
            return self.read
        outcome = canonical_json(self.verification).encode()
        return replace(self.read, files={**self.read.files, VERIFICATION_FILE: outcome})

    @property
    def models_dir(self) -> Path:
        """Candidates and archive lie below it."""
        return models_folder(self.settings, self.root)

    @cached_property
    def _reading(self) -> Candidate | SqkitError:
        """The candidate, or what refused it; read once, whatever is asked of it."""
        try:
            _refuse_odd_files((self.root / self.typed).parent)
            return read_candidate(
                self.typed, settings=self.settings, models_dir=self.models_dir, root=self.root
            )
        except SqkitError as refusal:
            return refusal
        except (AttributeError, KeyError, OSError, TypeError, ValueError) as problem:
            return ArtifactChanged(
                f"{Path(self.typed).parent}: cannot be read ({type(problem).__name__}: {problem}); validate the "
                "model again with sqkit validate",
                path=self.typed,
            )

    @property
    def candidate(self) -> Candidate | None:
        """What was read; None where reading was refused."""
        return self._reading if isinstance(self._reading, Candidate) else None

    @property
    def refusal_of_model(self) -> ModelFileError | None:
        """Why the model file could not be read; None where it could."""
        return self._reading if isinstance(self._reading, ModelFileError) else None

    @property
    def refusal_of_artifacts(self) -> SqkitError | None:
        """Why a file beside the model could not be read; None where all could."""
        if isinstance(self._reading, ModelFileError | Candidate):
            return None
        return self._reading

    @property
    def read(self) -> Candidate:
        """The candidate.

        Raises
        ------
        Unread
            There is none: another check says why.
        """
        if self.candidate is None:
            raise Unread("artifacts")
        return self.candidate

    @cached_property
    def model(self) -> StudentModel:
        """The model of the very bytes that were read; opened, and asked about a probe row."""
        return StudentModel(self.read.files[STUDENT_FILE], Path(self.typed))

    @property
    def model_digest(self) -> str:
        """SHA-256 of the model."""
        return self.model.digest

    @property
    def checklist(self) -> dict[str, Any]:
        """The decision."""
        return self.read.json(CHECKLIST_FILE)

    @property
    def results(self) -> dict[str, Any]:
        """What the validation left."""
        return self.read.json(RESULTS_FILE)

    @cached_property
    def policy(self) -> Policy:
        """The policy in force in the slot."""
        return policy_in_force(self.settings, self.entries, self.slot.name)

    @cached_property
    def signers(self) -> str | None:
        """Contents of the allowed signers file; None where typed names do."""
        return signers_in_force(self.settings, self.root, self.entries, self.slot.name)

    @cached_property
    def statement(self) -> Statement:
        """What approvals must be about: without a report there is nothing to approve."""
        if MANIFEST not in self.read.files:
            raise Unread("report")
        return statement_of(self.read, self.slot.name)

    @cached_property
    def book(self) -> Book | None:
        """What people said of the candidate."""
        return read_book(self.read)

    @cached_property
    def standing(self) -> Standing:
        """Who approved, and what stands in the way."""
        about = self.model.metadata
        return standing(
            self.book,
            self.statement,
            policy=self.policy,
            signers=self.signers,
            author=about["created_by"],
            now=self.now,
            zone=MARKETS[about["market"]].zone,
            decided_at=decision_time(self.read),
        )

    @cached_property
    def boxes(self) -> tuple[BoxState, ...]:
        """Every box of the checklist."""
        return box_states(
            self.checklist,
            self.book,
            self.statement,
            drill_entry=self.state.drill,
            now=self.now,
            settings=self.settings,
            signers=self.signers,
        )

    def folder_name(self, name: str) -> str:
        """A file of the student's folder as messages name it."""
        return (Path(self.typed).parent / name).as_posix()


def _refuse_odd_files(folder: Path) -> None:
    """Files are opened only where they are plain ones of a usable size: a pipe would block for ever."""
    for name in RELEASE_FILES:
        place = folder / name
        try:
            about = place.lstat()
        except OSError:
            continue
        if name != STUDENT_FILE and not stat.S_ISREG(about.st_mode):
            raise ArtifactChanged(
                f"{place}: is no plain file; put the file itself there, or validate the model again",
                path=str(place),
            )
        if name != STUDENT_FILE and about.st_size > MAX_ARTIFACT_BYTES:
            raise ArtifactChanged(
                f"{place}: larger than {MAX_ARTIFACT_BYTES >> 20} MB, sqkit writes none of that size; validate the "
                "model again",
                path=str(place),
            )
