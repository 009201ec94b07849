"""A candidate that every check lets through, and a way to examine it: for tests of the promoter's checks.

Made by hand (`tests.small_candidate`), approved in three roles by typed names, its box attested, a drill
in the audit log. `Promotable` changes one thing of it and asks again.
"""

from __future__ import annotations

import datetime as dt
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from sqkit.artifacts import APPROVALS_FILE, CHECKLIST_FILE, STUDENT_FILE, VERIFICATION_FILE
from sqkit.audit_log import DRILL
from sqkit.files import sha256_file, write_json
from sqkit.people import Actor
from sqkit.production.approval_book import Book, new_fact
from sqkit.production.approval_facts import APPROVE, ATTEST, statement_of
from sqkit.production.audit import AuditLog
from sqkit.production.candidate import Candidate, read_candidate
from sqkit.production.promotion_checks import PromotionCheck, PromotionValidationResult, examine
from sqkit.production.slot_state import SlotState, fold
from sqkit.production.slots import slot_named
from sqkit.report_manifest import MANIFEST
from sqkit.settings import Settings
from tests.small_candidate import small_candidate

VERSION: Final = "20250101_000000"
DECIDED: Final = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
APPROVED: Final = dt.datetime(2025, 1, 1, 12, tzinfo=dt.UTC)
NOW: Final = dt.datetime(2025, 1, 2, 12, tzinfo=dt.UTC)
WHO: Final = Actor("Asha", "asha", "desk1")
APPROVERS: Final = {"ml_lead": "Asha", "quant_lead": "Bela", "risk_manager": "Chen"}
ZONE: Final = "America/New_York"

Facts = list[dict[str, Any]]


@dataclass(frozen=True)
class Promotable:
    """A scratch project with a candidate, and how it is examined.

    Attributes
    ----------
    typed
        The candidate's path as given.
    state
        In place of what the audit log says.
    """

    root: Path
    settings: Settings
    typed: str
    slot: str = "swing"
    now: dt.datetime = NOW
    env_file: str | None = None
    environ: Mapping[str, str] | None = None
    state: SlotState | None = None

    @property
    def student(self) -> Path:
        """The student's folder."""
        return (self.root / self.typed).parent

    @property
    def model(self) -> str:
        """SHA-256 of the model."""
        return sha256_file(self.student / STUDENT_FILE)

    @property
    def report(self) -> Path:
        """The report's folder."""
        return self.root / self.settings.reports_dir / f"{VERSION}-v1"

    @property
    def log(self) -> AuditLog:
        """The audit log."""
        return AuditLog(self.root / self.settings.data_dir / "models")

    @property
    def production(self) -> Path:
        """Where the slot's model lies."""
        return slot_named(self.settings, self.slot, self.root).model_path

    @property
    def candidate(self) -> Candidate:
        """The candidate, read."""
        models = self.root / self.settings.data_dir / "models"
        return read_candidate(self.typed, settings=self.settings, models_dir=models, root=self.root)

    def but(self, **changes: Any) -> Promotable:
        """The same project, examined otherwise; other names are settings."""
        ours = {name: changes[name] for name in changes if name in {field.name for field in fields(self)}}
        settings = {name: value for name, value in changes.items() if name not in ours}
        known = self.settings.model_dump(include=self.settings.model_fields_set)
        return replace(self, settings=Settings(_env_file=None, **(known | settings)), **ours)

    def copied(self, root: Path) -> Promotable:
        """The same project in another folder."""
        shutil.copytree(self.root, root, dirs_exist_ok=True)
        return replace(self, root=root)

    def examine(self) -> PromotionValidationResult:
        """Every check; what was on disk is there to the byte afterwards."""
        before = snapshot(self.root)
        slot = slot_named(self.settings, self.slot, self.root)
        entries = self.log.entries()
        result, _ = examine(
            self.typed,
            settings=self.settings,
            root=self.root,
            now=self.now,
            entries=entries,
            state=self.state or fold(entries, slot.name),
            slot=slot,
            env_file=self.env_file,
            environ=self.environ or {},
        )
        assert snapshot(self.root) == before, "examining changed the disk"
        return result

    def check(self, name: str) -> PromotionCheck:
        """The outcome of one check."""
        return next(check for check in self.examine().checks if check.name == name)

    def edit(self, name: str, change: Callable[[Any], object]) -> None:
        """Change a JSON file of the student's folder, or the manifest, in place."""
        path = (self.report if name == MANIFEST else self.student) / name
        value = json.loads(path.read_text())
        change(value)
        write_json(path, value)

    def seal(self) -> None:
        """Bring verification, manifest and approvals in line with the files as they lie there: a forger's work."""
        self.edit(
            VERIFICATION_FILE,
            lambda v: v["read"].update({n: sha256_file(self.student / n) for n in v["read"]}),
        )
        self.edit(
            MANIFEST,
            lambda m: (
                m["artifacts"]["files"].update(
                    {n: sha256_file(self.student / n) for n in m["artifacts"]["files"]}
                ),
                m["files"].update({n: sha256_file(self.report / n) for n in m["files"]}),
            ),
        )
        (self.student / APPROVALS_FILE).unlink(missing_ok=True)
        self.approve()

    def reseal_checklist(self, change: Callable[[Any], object]) -> None:
        """Change the checklist and seal everything again."""
        self.edit(CHECKLIST_FILE, change)
        self.edit(
            MANIFEST,
            lambda m: m["artifacts"]["files"].update(
                {CHECKLIST_FILE: sha256_file(self.student / CHECKLIST_FILE)}
            ),
        )
        self.seal()

    def approve(self, approvers: Mapping[str, str] = APPROVERS, **changes: Any) -> None:
        """Write the book of approvals: a box attested, each role filled by a typed name."""
        said: Facts = [
            {"kind": ATTEST, "box": "period-representative", "note": "the last quarter", "name": "Asha"}
        ]
        said += [
            {"kind": APPROVE, "role": role, "symbols": None, "expires": None, "comment": "", "name": name}
            for role, name in approvers.items()
        ]
        book = Book(statement_of(self.candidate, slot_named(self.settings, self.slot, self.root).name))
        at = changes.pop("at", APPROVED)
        for one in said:
            who = {"at": at.strftime("%Y-%m-%dT%H:%M:%SZ"), "user": "asha", "host": "desk1"}
            ours = {name: value for name, value in changes.items() if name in one}
            book = book.with_fact(new_fact(book, {**one, **who, **ours}))
        write_json(self.student / APPROVALS_FILE, book.to_dict())

    def record(self, kind: str, at: dt.datetime = APPROVED, **content: Any) -> dict[str, Any]:
        """A line of the audit log about the slot."""
        slot = slot_named(self.settings, self.slot, self.root).name
        return self.log.append(kind, content, slot=slot, actor=WHO, now=at, zone=ZONE)

    def drill(self, at: dt.datetime = APPROVED) -> None:
        """A rollback drill that passed."""
        self.record(DRILL, at, passed=True, steps=["promoted", "rolled back"], milliseconds=40)


def promotable(root: Path, *, slot: str = "", approved: bool = True, **changes: Any) -> Promotable:
    """A candidate that may be promoted; `changes` as `small_candidate` takes them."""
    settings = changes.setdefault("settings", Settings(_env_file=None))
    changes.setdefault("version", VERSION)
    model = small_candidate(root, **changes)
    project = Promotable(
        root, settings, model.relative_to(root).as_posix(), slot or changes.get("strategy", "swing")
    )
    if (project.student / VERIFICATION_FILE).is_file():
        project.edit(VERIFICATION_FILE, lambda v: v.setdefault("unchecked", []))
    if approved:
        project.approve()
        project.drill()
    return project


def snapshot(root: Path) -> dict[str, tuple[int, int, int]]:
    """Everything below a folder with its kind, size and time of last change; pipes and links stay unopened."""
    found = {}
    for path in root.rglob("*"):
        about = path.lstat()
        found[path.relative_to(root).as_posix()] = (about.st_mode, about.st_size, about.st_mtime_ns)
    return found
