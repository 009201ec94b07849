"""People who sign off a small candidate, by typed names and by real keys: for tests of approvals."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqkit.artifacts import APPROVALS_FILE, CHECKLIST_PAGE
from sqkit.errors import SqkitError
from sqkit.files import canonical_json
from sqkit.production.approval_desk import open_desk
from sqkit.production.approval_facts import id_of
from sqkit.production.approvals import Recorded, Signer, Standing, approve, revoke
from sqkit.settings import Settings
from tests.ssh_keys import make_key, signers_line

NOW = dt.datetime(2025, 1, 10, 12, tzinfo=dt.UTC)
VERSION = "20250101_000000"
ROLES = ("ml_lead", "quant_lead", "risk_manager")
PEOPLE = {"ml_lead": "Asha", "quant_lead": "Bo", "risk_manager": "Chen"}
DAY = dt.timedelta(days=1)


@dataclass(frozen=True)
class Case:
    """A scratch project with one candidate, and people who sign it off."""

    root: Path
    settings: Settings
    now: dt.datetime = NOW

    @property
    def model(self) -> str:
        return f"data/models/{VERSION}/student/student_model.onnx"

    @property
    def folder(self) -> Path:
        return (self.root / self.model).parent

    @property
    def book(self) -> dict[str, Any]:
        return json.loads((self.folder / APPROVALS_FILE).read_text())  # type: ignore[no-any-return]

    @property
    def page(self) -> str:
        return (self.folder / CHECKLIST_PAGE).read_text()

    def at(self, now: dt.datetime) -> Case:
        return replace(self, now=now)

    def under(self, **settings: Any) -> Case:
        return replace(self, settings=Settings(_env_file=None, **settings))

    def approve(self, role: str, name: str = "", key: Path | None = None, **more: Any) -> Recorded:
        signer = Signer(name, key)
        return approve(self.model, role, signer, settings=self.settings, root=self.root, now=self.now, **more)

    def reject(self, role: str, name: str = "", key: Path | None = None, comment: str = "no") -> Recorded:
        return self.approve(role, name, key, comment=comment, reject=True)

    def revoke(self, fact: str, name: str = "Dana", key: Path | None = None) -> Recorded:
        signer = Signer(name, key)
        return revoke(
            self.model, fact, "a mistake", signer, settings=self.settings, root=self.root, now=self.now
        )

    def approve_all(self, roles: tuple[str, ...] = ROLES) -> None:
        for role in roles:
            self.approve(role, PEOPLE[role])

    def standing(self) -> Standing:
        return open_desk(self.model, settings=self.settings, root=self.root, now=self.now).standing()

    def problems(self) -> list[SqkitError]:
        return list(self.standing().problems)


def rewrite(case: Case, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Edit facts as somebody would who knows how ids and links are made."""
    book, previous, renamed = case.book, None, dict[str, str]()
    facts = []
    for fact in book["facts"]:
        edited = change(fact) | {"previous": previous}
        edited = {**edited, **({"revokes": renamed[edited["revokes"]]} if "revokes" in edited else {})}
        edited["id"] = previous = renamed[fact["id"]] = id_of(edited)
        facts.append(edited)
    (case.folder / APPROVALS_FILE).write_text(canonical_json(book | {"facts": facts}))


@dataclass(frozen=True)
class Keys:
    """A key for each person, and the line of the signers file that names them."""

    folder: Path
    lines: dict[str, str]

    def key(self, name: str) -> Path:
        return self.folder / name


def sign_all(case: Case, keys: Keys) -> None:
    """Everybody whom the policy asks for signs."""
    for role, name in PEOPLE.items():
        case.approve(role, key=keys.key(name.lower()))


def make_keys(folder: Path) -> Keys:
    """A key for everybody who appears in these tests."""
    names = ("asha", "bo", "chen", "dana", "trainer")
    return Keys(folder, {name: signers_line(f"{name}@example.com", make_key(folder, name)) for name in names})
