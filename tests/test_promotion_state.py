"""What the index of reports says of approvals and production, read from what production really wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sqkit.artifacts import APPROVALS_FILE, CHECKLIST_FILE
from sqkit.errors import AuditBroken, ConflictError
from sqkit.files import canonical_json, sha256_bytes, write_json
from sqkit.production.approval_book import Book, new_fact
from sqkit.production.approval_facts import PREDICATE_TYPE, STATEMENT_TYPE
from sqkit.report_manifest import MANIFEST
from sqkit.research.promotion_state import audit_above, release_of_checklist, state_words
from sqkit.research.report_index import build_index
from sqkit.research.validation_jobs import refuse_decided
from tests.releases import Slotted

ROLES = ("ml_lead", "quant_lead", "risk_manager")
STUDENT = "data/models/20250101_000000/student"


def digest_of(number: int) -> str:
    """SHA-256 of the checklist of release number so-and-so."""
    return sha256_bytes(canonical_json({"number": number}).encode())


def book_about(checklist: str) -> Book:
    """An empty book about a checklist."""
    predicate = {"checklist": checklist, "recommendation": "PROMOTE"}
    return Book(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": "student_model.onnx", "digest": {"sha256": "0" * 64}}],
            "predicateType": PREDICATE_TYPE,
            "predicate": predicate,
        }
    )


def said(book: Book, kind: str, who: str, role: str = "ml_lead", **more: Any) -> Book:
    """The book with one more fact."""
    what = {"role": role, "symbols": None, "expires": None, "comment": ""} if kind != "revoke" else {}
    fact = {
        "kind": kind,
        "at": "2025-01-13T10:00:00Z",
        "name": who,
        "user": who,
        "host": "desk",
        **what,
        **more,
    }
    return book.with_fact(new_fact(book, fact))


def words(folder: Path, book: Book | None, checklist: str = "c" * 64, roles: tuple[str, ...] = ROLES) -> str:
    """What is said of a checklist with this book beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    if book is not None:
        write_json(folder / APPROVALS_FILE, book.to_dict())
    return state_words(folder, checklist, roles)


class TestApprovals:
    """Who approved and who rejected, from the book beside the checklist."""

    @pytest.fixture
    def book(self) -> Book:
        """Two of three roles have approved."""
        return said(said(book_about("c" * 64), "approve", "Ann"), "approve", "Bob", "quant_lead")

    def test_nobody_said_anything(self, tmp_path: Path) -> None:
        """Without a book, and with an empty one, nothing is said."""
        assert words(tmp_path / "a", None) == ""
        assert words(tmp_path / "b", book_about("c" * 64)) == ""

    def test_two_of_three(self, book: Book, tmp_path: Path) -> None:
        """Roles that the policy asks for are counted, each once, whoever else approves."""
        assert words(tmp_path, book) == "2 of 3 approved"
        assert words(tmp_path, said(book, "approve", "Cleo")) == "2 of 3 approved"
        assert words(tmp_path, said(book, "approve", "Cleo", "cro")) == "2 of 3 approved"
        assert words(tmp_path, said(book, "approve", "Cleo", "risk_manager")) == "3 of 3 approved"
        assert words(tmp_path, book, roles=()) == "2 approved"

    def test_a_rejection_stands_until_its_author_turns(self, book: Book, tmp_path: Path) -> None:
        """One rejection is what is shown; somebody else's approval in the same role does not lift it."""
        rejected = said(book, "reject", "Cleo", "risk_manager", comment="too few days")
        assert words(tmp_path, rejected) == "rejected by risk_manager"
        assert words(tmp_path, said(rejected, "approve", "Dan", "risk_manager")) == "rejected by risk_manager"
        assert words(tmp_path, said(rejected, "approve", "cleo", "risk_manager")) == "3 of 3 approved"

    def test_what_was_revoked_does_not_count(self, book: Book, tmp_path: Path) -> None:
        """An approval, or a rejection, that was taken back is gone."""
        revoked = said(book, "revoke", "Ann", revokes=book.facts[0]["id"], reason="too early")
        assert words(tmp_path, revoked) == "1 of 3 approved"

    def test_facts_about_another_checklist_count_for_nothing(self, book: Book, tmp_path: Path) -> None:
        """Each fact is counted for the statement it names: of an earlier one, or of the newest."""
        later = said(book.about(book_about("d" * 64).statement), "approve", "Ann")
        assert words(tmp_path, later, "d" * 64) == "1 of 3 approved"
        assert words(tmp_path, later, "c" * 64) == "2 of 3 approved"
        assert words(tmp_path, later, "e" * 64) == ""

    @pytest.mark.parametrize("text", ["{", "[]", "{}", '{"facts": [], "statement": {}}', '{"facts": 5}'])
    def test_a_book_that_is_none(self, tmp_path: Path, text: str) -> None:
        """It is named, and nothing ends in a traceback."""
        (tmp_path / APPROVALS_FILE).write_text(text)
        assert words(tmp_path, None) == f"{APPROVALS_FILE} cannot be read"


@pytest.fixture
def slot(tmp_path: Path) -> Slotted:
    """A project in which release 1 was promoted and, two months later, release 2."""
    project = Slotted(tmp_path)
    project.promote(1, "2025-01-10")
    project.promote(2, "2025-03-01")
    return project


class TestProduction:
    """Whether it is or was live, from the audit log above it."""

    def said_of(self, slot: Slotted, number: int) -> str:
        """What is said of release number so-and-so."""
        return state_words(slot.root / STUDENT, digest_of(number), ROLES)

    def test_live_and_replaced(self, slot: Slotted) -> None:
        """The newest promotion is live in its slot, the one before it was until that day."""
        assert self.said_of(slot, 2) == "live in default"
        assert self.said_of(slot, 1) == "was live until 2025-03-01"
        assert self.said_of(slot, 3) == ""

    def test_rolled_back(self, slot: Slotted) -> None:
        """A rollback turns it round, and one to no student leaves nothing live."""
        slot.roll_back(day="2025-03-05")
        assert (self.said_of(slot, 1), self.said_of(slot, 2)) == (
            "live in default",
            "was live until 2025-03-05",
        )
        slot.roll_back("none", "2025-03-07")
        assert self.said_of(slot, 1) == "was live until 2025-03-07"

    def test_two_slots(self, slot: Slotted) -> None:
        """The same decision in two slots is said of each; one slot's change leaves the other alone."""
        other = Slotted(slot.root, slot_name="swing")
        other.promote(2, "2025-03-02")
        assert self.said_of(slot, 2) == "live in default; live in swing"
        other.promote(3, "2025-04-01")
        assert self.said_of(slot, 2) == "live in default; was live until 2025-04-01"

    def test_a_model_somebody_copied(self, slot: Slotted) -> None:
        """A file found in production beside a live release was never served: nothing changes for that one."""
        slot.production.slot("default").model_path.write_bytes(b"copied")
        slot.promote(3, "2025-03-09")
        assert self.said_of(slot, 2) == "was live until 2025-03-09"
        assert self.said_of(slot, 3) == "live in default"

    def test_a_broken_log_is_shown_as_such(self, slot: Slotted) -> None:
        """Approvals are still counted; of production nothing is claimed."""
        log = slot.root / "data/models/audit.jsonl"
        log.write_text(log.read_text().replace("Asha", "Eve"))
        book = said(book_about(digest_of(1)), "approve", "Ann")
        assert words(slot.root / STUDENT, book, digest_of(1)) == "1 of 3 approved; the audit log is broken"

    def test_no_log_above(self, tmp_path: Path) -> None:
        """Outside of a models folder with a log there is none, and it is not looked for in the folder itself."""
        assert audit_above(tmp_path / STUDENT) is None
        assert release_of_checklist(tmp_path / STUDENT / CHECKLIST_FILE) == ""


class TestNeverOverwritten:
    """A checklist that belongs to a release stays, whoever removed the approvals."""

    def decided(self, slot: Slotted, number: int) -> Path:
        """A student's folder with the checklist of a release."""
        write_json(slot.root / STUDENT / CHECKLIST_FILE, {"number": number})
        return slot.root / STUDENT

    def test_of_a_release(self, slot: Slotted) -> None:
        """Live or not, the refusal names the release; exit 5."""
        for number in (1, 2):
            with pytest.raises(ConflictError, match="belongs to release 2025") as refusal:
                refuse_decided(self.decided(slot, number))
            assert refusal.value.exit_code == 5

    def test_of_none(self, slot: Slotted) -> None:
        """Another checklist, or none, may be written."""
        refuse_decided(self.decided(slot, 3))
        refuse_decided(slot.root / "data/models/elsewhere")

    def test_with_approvals(self, slot: Slotted) -> None:
        """As before: a checklist that people have signed."""
        folder = self.decided(slot, 3)
        (folder / APPROVALS_FILE).write_text("{}")
        with pytest.raises(ConflictError, match="carries approvals"):
            refuse_decided(folder)

    def test_under_a_broken_log(self, slot: Slotted) -> None:
        """Nobody knows whether it was released: nothing is overwritten, exit 4."""
        folder, log = self.decided(slot, 3), slot.root / "data/models/audit.jsonl"
        log.write_text(log.read_text()[:-30] + "\n")
        with pytest.raises(AuditBroken):
            refuse_decided(folder)


class TestIndex:
    """The table of all reports shows it for each run."""

    def run(self, root: Path, number: int, artifacts: Any) -> None:
        """A run folder with a manifest that names these artifacts."""
        manifest = {"summary": {"strategy": "swing", "symbols": ["ALPHA"]}, "artifacts": artifacts}
        write_json(root / "reports" / f"20250101_000000-v{number}" / MANIFEST, manifest)

    @pytest.fixture
    def reported(self, slot: Slotted) -> Slotted:
        """Two runs of one student: the first decision was released and moved away, the second was approved once."""
        write_json(slot.root / STUDENT / "validations/v1" / CHECKLIST_FILE, {"number": 1})
        decision = {"policy": {"required_approvals": ["ml_lead", "cro"]}}
        write_json(slot.root / STUDENT / CHECKLIST_FILE, decision)
        ours = sha256_bytes(canonical_json(decision).encode())
        write_json(
            slot.root / STUDENT / APPROVALS_FILE, said(book_about(ours), "approve", "Ann <b>").to_dict()
        )
        for number, digest in ((1, digest_of(1)), (2, ours)):
            self.run(slot.root, number, {"folder": STUDENT, "files": {CHECKLIST_FILE: digest}})
        return slot

    def test_each_run_has_its_own_state(self, reported: Slotted) -> None:
        """In the rows, the HTML and the Markdown, in a column of its own; the same files give the same bytes."""
        reports = reported.root / "reports"
        rows = build_index(reports, reported.root)
        pages = [(reports / name).read_text() for name in ("index.html", "index.md")]

        assert [row["approvals"] for row in rows] == ["1 of 2 approved", "was live until 2025-03-01"]
        assert "<th>Approvals</th>" in pages[0]
        assert "<td>1 of 2 approved</td>" in pages[0]
        assert "| Evidence | Approvals | Why |" in pages[1]
        assert "| was live until 2025-03-01 |" in pages[1]
        build_index(reports, reported.root)
        assert pages == [(reports / name).read_text() for name in ("index.html", "index.md")]

    @pytest.mark.parametrize(
        ("spoil", "expected"),
        [
            (lambda root: (root / STUDENT / APPROVALS_FILE).write_text("{"), "approvals.json cannot be read"),
            (
                lambda root: (root / "data/models/audit.jsonl").write_text("{}\n"),
                "1 of 2 approved; the audit log is broken",
            ),
            (
                lambda root: (root / "data/models/audit.head").write_text("[]"),
                "1 of 2 approved; the audit log is broken",
            ),
        ],
    )
    def test_damage_is_shown_and_hides_nothing_else(
        self, reported: Slotted, spoil: Callable[[Path], object], expected: str
    ) -> None:
        """What cannot be read is said in its cell; the summary of the run stays."""
        spoil(reported.root)
        row = build_index(reported.root / "reports", reported.root)[0]
        assert (row["approvals"], row["strategy"]) == (expected, "swing")

    def test_a_student_that_is_gone(self, reported: Slotted) -> None:
        """What the audit log says of it is still shown; a manifest without a decision shows nothing."""
        (reported.root / STUDENT).rename(reported.root / "data/models/20250101_000000/gone")
        self.run(reported.root, 3, {"folder": STUDENT, "files": {}})
        rows = build_index(reported.root / "reports", reported.root)
        assert [row["approvals"] for row in rows] == ["", "", "was live until 2025-03-01"]
