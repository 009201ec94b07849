"""The book of approvals is only ever added to, by sqkit; whatever else happened to it is refused."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sqkit.artifacts import APPROVALS_FILE
from sqkit.errors import (
    ArtifactChanged,
    ClockBackwards,
    ConflictError,
    UsageError,
)
from sqkit.files import exclusive
from sqkit.production.approval_facts import id_of
from sqkit.production.approvals import (
    attest,
    parse_book,
    revoke,
)
from sqkit.settings import Settings
from tests.sign_offs import NOW, ROLES, VERSION, Case, rewrite
from tests.small_candidate import small_candidate


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """Nobody has said anything yet."""
    small_candidate(tmp_path, VERSION)
    return Case(tmp_path, Settings(_env_file=None))


# --- the book


def _fact(number: int, **change: Any) -> Callable[[dict[str, Any]], None]:
    return lambda book: book["facts"][number].update(change)


_EDITS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a name": (_fact(0, name="Somebody"), "fact 1 was edited"),
    "a role": (_fact(1, role="risk_manager"), "fact 2 was edited"),
    "a time": (_fact(0, at="2025-01-10T11:00:00Z"), "fact 1 was edited"),
    "an id": (_fact(0, id="0" * 12), "fact 1 was edited"),
    "no id": (
        lambda book: book["facts"][0].pop("id"),
        "fact 1 does not say what a fact of kind approve says",
    ),
    "a key too many": (_fact(0, admin=True), "fact 1 does not say"),
    "another kind": (_fact(0, kind="promote"), "fact 1 is of no known kind"),
    "a kind that is a list": (_fact(0, kind=["approve"]), "fact 1 is of no known kind"),
    "a time that is none": (_fact(0, at="yesterday"), "fact 1 cannot say at='yesterday'"),
    "an empty scope": (_fact(0, symbols=[]), "fact 1 cannot say symbols"),
    "a fact that is text": (lambda book: book["facts"].insert(0, "approved"), "fact 1 is of no known kind"),
    "a removed fact": (lambda book: book["facts"].pop(0), "fact 1 does not follow the one before it"),
    "two facts swapped": (lambda book: book["facts"].reverse(), "does not follow the one before it"),
    "a fact given twice": (
        lambda book: book["facts"].append(book["facts"][0]),
        "has the id .* of an earlier one",
    ),
    "a signer without a signature": (
        _fact(0, principal="asha@example.com"),
        "names a signer without a signature",
    ),
    "another statement": (
        lambda book: book["statement"]["predicate"].update(slot="swing"),
        "fact 1 is about a statement that is not in the file",
    ),
    "no statement": (lambda book: book.update(statement=None), "holds no statement"),
    "a statement of nothing": (lambda book: book["statement"].update(subject=[]), "holds no statement"),
    "an older schema": (lambda book: book.update(schema_version=0), "is no book of approvals of schema 1"),
    "another key": (lambda book: book.update(approved=True), "is no book of approvals"),
    "facts that are none": (lambda book: book.update(facts={}), "holds no statement"),
}


@pytest.mark.parametrize("name", _EDITS)
def test_a_book_that_was_edited_by_hand_is_refused(case: Case, name: str) -> None:
    """Nobody can build on it, nothing is promoted by it; the line says which fact and what to do."""
    edit, line = _EDITS[name]
    case.approve_all(("ml_lead", "quant_lead"))
    book = case.book
    edit(book)
    (case.folder / APPROVALS_FILE).write_text(json.dumps(book))

    for attempt in (case.standing, lambda: case.approve("risk_manager", "Chen")):
        with pytest.raises(ArtifactChanged, match=line) as refusal:
            attempt()
        assert "restore the file from a backup" in refusal.value.message
        assert "\n" not in refusal.value.message


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"\xff", b'{"facts":NaN}', b'{"facts":[],"facts":[]}', b"[" * 100_000]
)
def test_a_book_that_is_no_book(case: Case, data: bytes) -> None:
    """Truncated, doubled or foreign content is one clear refusal."""
    (case.folder / APPROVALS_FILE).write_bytes(data)

    with pytest.raises(ArtifactChanged, match=r"approvals\.json"):
        case.standing()


def test_a_revocation_of_nothing_is_an_edit(case: Case) -> None:
    """A book in which a fact takes back what is not there was put together by hand."""
    case.revoke(case.approve("ml_lead", "Asha").fact["id"])
    book = case.book
    book["facts"][1]["revokes"] = "0" * 12
    book["facts"][1]["id"] = id_of(book["facts"][1])

    with pytest.raises(ArtifactChanged, match="fact 2 takes back a fact that is not there"):
        parse_book(book)


def test_facts_are_dated_in_their_order(case: Case) -> None:
    """A fact that claims to be older than the one before it was put there by hand."""
    case.approve_all()
    rewrite(case, lambda fact: fact | {"at": f"2025-01-10T11:0{9 - ROLES.index(fact['role'])}:00Z"})

    with pytest.raises(ArtifactChanged, match="fact 2 is dated before the one it follows"):
        case.standing()


def test_a_clock_that_went_backwards(case: Case) -> None:
    """A fact from the future is refused when somebody approves and at the promotion; five minutes are not."""
    case.approve("ml_lead", "Asha")

    early = case.at(NOW - dt.timedelta(minutes=6))
    with pytest.raises(
        ClockBackwards, match=r"is of 2025-01-10T12:00:00Z, but the clock says 2025-01-10T11:54:00Z"
    ):
        early.approve("quant_lead", "Bo")
    assert isinstance(early.problems()[0], ClockBackwards)

    close = case.at(NOW - dt.timedelta(minutes=4))
    assert close.approve("quant_lead", "Bo").fact["at"] == "2025-01-10T12:00:00Z"


def test_two_people_at_once(case: Case) -> None:
    """Whoever comes second is told to wait; the book stays as it was."""
    case.approve("ml_lead", "Asha")
    before = (case.folder / APPROVALS_FILE).read_bytes()

    with exclusive(case.folder, "approval", name=".approvals.lock"):
        with pytest.raises(ConflictError):
            case.approve("quant_lead", "Bo")
    assert (case.folder / APPROVALS_FILE).read_bytes() == before


@pytest.mark.parametrize("text", ["", "  ", "two\nlines", "x" * 2001, "\x07"])
def test_only_plain_text_is_kept(case: Case, text: str) -> None:
    """Names, comments, notes and reasons are one line of plain text."""
    tries = [
        lambda: case.approve("ml_lead", "Asha", comment=text or "\n"),
        lambda: case.approve("ml_lead", text or "\n"),
        lambda: attest(
            case.model, "period-representative", text, settings=case.settings, root=case.root, now=NOW
        ),
        lambda: revoke(case.model, "0" * 12, text, settings=case.settings, root=case.root, now=NOW),
    ]
    for attempt in tries:
        with pytest.raises(UsageError, match="one line of text"):
            attempt()
