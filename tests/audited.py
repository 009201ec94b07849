"""A project with a past: promotions, a halt, a rollback, an accepted policy, for tests of the audit views.

`Audited` works as `tests.releases.Slotted` does, on the promoter's own functions below its checks, with
what the views read besides: a checklist with a recommendation and a book of approvals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from sqkit.artifacts import APPROVALS_FILE, CHECKLIST_FILE, SIGNERS_FILE, STUDENT_FILE
from sqkit.audit_log import DRILL
from sqkit.chain import Entry
from sqkit.checklist_inputs import Policy
from sqkit.checklist_signoffs import ALL_SYMBOLS
from sqkit.files import canonical_json, sha256_bytes
from sqkit.people import Actor
from sqkit.policy_in_force import policy_digest
from sqkit.production.approval_book import Book
from sqkit.production.changes import Production
from sqkit.production.interventions import halt, ratify, release_quarantine, resume
from sqkit.production.policy_acceptance import accept_policy
from sqkit.production.promotion import Promotion, promote
from sqkit.report_manifest import MANIFEST
from sqkit.settings import Settings
from tests.releases import ASHA, Slotted, promotion_of

BELA: Final = Actor("Bela", "bela", "desk2")
SWING: Final = "data/models/swing/student_model.onnx"


class Audited(Slotted):
    """A scratch project with two slots, default and swing."""

    actor: Actor = ASHA
    signers: str | None = None
    variables: Mapping[str, Any] = {}

    @property
    def settings(self) -> Settings:
        """Two slots; every place is below the root."""
        values = {"market": "us", "student_model_paths": {"swing": SWING}} | dict(self.variables)
        return Settings(_env_file=None, **values)

    @property
    def production(self) -> Production:
        """The real thing, with this clock and whoever acts."""
        return Production(
            self.settings, self.root, clock=lambda: self.now, actor=self.actor, on_step=self.before
        )

    @property
    def models(self) -> Path:
        """``data/models``."""
        return self.root / "data/models"

    @property
    def log(self) -> Path:
        """``audit.jsonl``."""
        return self.models / "audit.jsonl"

    def promote(self, number: int, day: str = "", book: Mapping[str, Any] | None = None) -> Entry:
        """Put release number so-and-so into the slot, with a book of approvals."""
        self.on(day)
        production = self.production
        with production.changing(production.slot(self.slot_name)):
            return promote(self.place, _with_papers(promotion_of(number, self.strategy), book, self.signers))

    def do(self, what: str, day: str, *, by: Actor = ASHA) -> Entry | None:
        """Something a person does to a slot."""
        self.on(day)
        self.actor, slot = by, self.slot_name
        try:
            if what == "halt":
                return halt(self.production, slot, "feed looks wrong")
            if what == "resume":
                return resume(self.production, slot, "feed is back")
            if what == "ratify":
                return ratify(self.production, slot, "agreed")[0]
            if what == "quarantine":
                barred = next(iter(self.state.quarantined))
                return release_quarantine(self.production, slot, barred, "it was the feed")
            if what == "drill":
                return self._drill()
            assert what == "policy"
            policy = replace(Policy.from_settings(self.settings), min_days=90)
            return accept_policy(self.production, slot, policy, reason="longer windows").entry
        finally:
            self.actor = ASHA

    def _drill(self) -> Entry:
        production = self.production
        content = {"passed": True, "steps": ["promote", "roll back"], "milliseconds": 84}
        return production.append(production.slot(self.slot_name), DRILL, content)


def book_about(number: int) -> Book:
    """An empty book of approvals about release number so-and-so."""
    return Book(_statement(promotion_of(number).files[STUDENT_FILE]))


def _with_papers(promotion: Promotion, book: Mapping[str, Any] | None, signers: str | None) -> Promotion:
    """The same promotion with a checklist and approvals as the views read them."""
    model = promotion.files[STUDENT_FILE]
    files = {
        **promotion.files,
        CHECKLIST_FILE: canonical_json(_checklist(model)).encode(),
        APPROVALS_FILE: canonical_json(book or Book(_statement(model)).to_dict()).encode(),
    }
    if signers is not None:
        files[SIGNERS_FILE] = signers.encode()
    named = {"checklist": CHECKLIST_FILE, "manifest": MANIFEST, "approvals": APPROVALS_FILE}
    digests = {word: sha256_bytes(files[name]) for word, name in named.items()}
    policy = {"policy": policy_digest(Policy.from_settings(Settings(_env_file=None)))}
    said = {"ml_lead": {"name": "Asha", "signed": signers is not None}}
    content = {
        **promotion.content,
        "approvals": said,
        "digests": {**promotion.content["digests"], **digests, **policy},
    }
    return Promotion(files, content)


def _checklist(model: bytes) -> dict[str, Any]:
    return {
        "digests": {"model": sha256_bytes(model)},
        "evidence": {"grade": "moderate", "records": [{"name": ALL_SYMBOLS, "status": "pass"}]},
        "integrity": [],
        "recommendation": "PROMOTE",
        "timestamp": "2025-01-01T00:00:00Z",
    }


def _statement(model: bytes) -> dict[str, Any]:
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": STUDENT_FILE, "digest": {"sha256": sha256_bytes(model)}}],
        "predicateType": "https://sqkit.invalid/promotion-approval/v1",
        "predicate": {
            "checklist": "1" * 64,
            "manifest": "2" * 64,
            "market": "us",
            "recommendation": "PROMOTE",
            "symbols": ["AAA"],
            "teacher": "3" * 64,
            "training_window": "2020-01-01 to 2023-12-31",
        },
    }


def with_a_past(root: Path) -> Audited:
    """A promoted on 1 January, B on 1 March, rolled back to A on 5 March; swing on its own; twelve lines."""
    project = Audited(root)
    project.promote(1, "2025-01-01")
    project.do("halt", "2025-01-15", by=BELA)
    project.do("resume", "2025-01-16")
    project.do("policy", "2025-02-01", by=BELA)
    swing = Audited(root, slot_name="swing")
    swing.promote(11, "2025-02-10")
    project.promote(2, "2025-03-01")
    project.roll_back("", "2025-03-05")
    project.do("ratify", "2025-03-06", by=BELA)
    project.do("quarantine", "2025-03-10")
    project.do("drill", "2025-03-11")
    swing.promote(12, "2025-04-01")
    project.do("halt", "2025-04-02", by=BELA)
    return project
