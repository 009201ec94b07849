"""Approvals: named people sign off exactly these bytes, and nothing else counts as that."""

from __future__ import annotations

import datetime as dt
import json
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import sqkit.cli.approving
from sqkit.artifacts import APPROVALS_FILE, CHECKLIST_PAGE
from sqkit.cli import main
from sqkit.errors import (
    ApprovalExpired,
    ApprovalsMissing,
    ApprovalVoid,
    ArtifactChanged,
    ClockBackwards,
    ConflictError,
    NotRecommended,
    SelfApproval,
    SignatureRefused,
    SigningFailed,
    SqkitError,
    UnknownRole,
    UsageError,
)
from sqkit.files import exclusive, sha256_file, sha256_json
from sqkit.policy_in_force import policy_digest, policy_in_force
from sqkit.production.approval_desk import open_desk
from sqkit.production.approval_facts import id_of, signed_text
from sqkit.production.approvals import (
    Recorded,
    Signer,
    Standing,
    approve,
    attest,
    parse_book,
    render_view,
    revoke,
    verified_later,
)
from sqkit.production.signing import sign
from sqkit.report_manifest import MANIFEST
from sqkit.settings import Settings
from tests.small_candidate import SYMBOLS, small_candidate
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


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """Nobody has said anything yet."""
    small_candidate(tmp_path, VERSION)
    return Case(tmp_path, Settings(_env_file=None))


# --- what is signed


def test_approvals_of_every_role_complete_a_candidate(case: Case) -> None:
    """Nobody in the way, the validated symbols in scope, and typed names are said to be no more than that."""
    case.approve_all()
    stands = case.standing()

    assert stands.problems == ()
    assert [(one.role, one.name, one.principal) for one in stands.roles] == [
        (role, PEOPLE[role], None) for role in ROLES
    ]
    assert stands.symbols == SYMBOLS
    assert stands.unsigned
    assert not stands.reduced_control


def test_the_statement_names_every_byte_and_the_scope(case: Case) -> None:
    """An in-toto statement: the model by digest; checklist, manifest, policy, slot and symbols beside it."""
    case.approve("ml_lead", "Asha")
    statement = case.book["statement"]
    said = statement["predicate"]
    policy = policy_in_force(case.settings, [], "default")

    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["subject"] == [
        {"name": "student_model.onnx", "digest": {"sha256": sha256_file(case.root / case.model)}}
    ]
    assert said["checklist"] == sha256_file(case.folder / "promotion_checklist.json")
    assert said["manifest"] == sha256_file(case.root / f"reports/{VERSION}-v1" / MANIFEST)
    assert said["policy"] == policy_digest(policy)
    assert (said["slot"], said["strategy"], said["market"]) == ("default", "swing", "us")
    assert (said["recommendation"], said["symbols"]) == ("PROMOTE", list(SYMBOLS))


def test_what_a_person_signs_holds_everything_they_said(case: Case) -> None:
    """The signed text names statement, role, name, time, scope, expiry and comment; the id follows from it."""
    case.approve("ml_lead", "Asha", comment="good", expires="2025-01-12", symbols=["AAA"])
    fact = case.book["facts"][0]
    said = json.loads(signed_text(fact))

    assert said["statement"] == sha256_json(case.book["statement"])
    assert (said["role"], said["name"], said["at"]) == ("ml_lead", "Asha", "2025-01-10T12:00:00Z")
    assert (said["symbols"], said["expires"], said["comment"]) == (["AAA"], "2025-01-12", "good")
    assert fact["id"] == id_of(fact)
    assert not {"id", "signature", "principal"} & set(said)


_CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"bias": 0.5}, "model"),
    ({"grade": "strong"}, "checklist"),
    ({"policy": {"min_days": 50}}, "policy"),
    ({"symbols": ("AAA", "BBB", "CCC")}, "validated symbols"),
    ({"teacher_digest": "9" * 64}, "teacher digest"),
]


@pytest.mark.parametrize(("change", "part"), _CHANGES, ids=[part for _, part in _CHANGES])
def test_a_changed_candidate_voids_every_approval(case: Case, change: dict[str, Any], part: str) -> None:
    """The refusal names what changed; the facts stay in the book, and new ones count again."""
    case.approve_all()
    small_candidate(case.root, VERSION, **change)

    problems = case.problems()
    assert [type(problem) for problem in problems] == [ApprovalVoid] * 3
    assert part in problems[0].values["changed"]
    assert part in problems[0].message

    case.approve_all()
    assert case.problems() == []
    assert len(case.book["facts"]) == 6
    assert len(case.book["earlier"]) == 1


def test_one_changed_byte_of_the_manifest_voids(case: Case) -> None:
    """The manifest names every page of the report: a report that changes takes its approvals along."""
    case.approve_all()
    manifest = case.root / f"reports/{VERSION}-v1" / MANIFEST
    manifest.write_bytes(manifest.read_bytes() + b" ")

    assert [problem.values["changed"] for problem in case.problems()] == [["report manifest"]] * 3


def test_another_slot_is_another_scope(case: Case) -> None:
    """What was approved for one production place is not approved for another."""
    case.approve_all()
    elsewhere = case.under(student_model_paths={"swing": "data/models/production-swing/student_model.onnx"})

    assert [problem.values["changed"] for problem in elsewhere.problems()] == [["slot"]] * 3


def test_the_checklists_page_is_a_view(case: Case) -> None:
    """Whatever stands in promotion_checklist.md, no approval hangs on it."""
    case.approve_all()
    (case.folder / CHECKLIST_PAGE).write_text("scribbled over")

    assert case.problems() == []


# --- who may approve


def test_nothing_but_a_promotion_can_be_approved(case: Case) -> None:
    """A rejected candidate is refused with the decision's own exit code; rejecting it is still allowed."""
    small_candidate(case.root, VERSION, candidate_metrics={"hit_ratio": 0.1})

    with pytest.raises(NotRecommended, match="the decision is REJECT") as refusal:
        case.approve("ml_lead", "Asha")
    assert refusal.value.exit_code == 1
    case.reject("ml_lead", "Asha")

    small_candidate(case.root, VERSION, grade="none")
    with pytest.raises(NotRecommended) as refusal:
        case.approve("ml_lead", "Asha")
    assert refusal.value.exit_code == 3


def test_without_a_whole_report_nobody_can_approve(case: Case) -> None:
    """A missing manifest, and a page that is not the one that was written, are refusals."""
    page = case.root / f"reports/{VERSION}-v1/validate.html"
    page.write_text("better numbers")
    with pytest.raises(
        ArtifactChanged, match=r"validate.html: changed since the report was made; what you read"
    ):
        case.approve("ml_lead", "Asha")

    page.with_name(MANIFEST).unlink()
    with pytest.raises(ArtifactChanged, match="no report in the reports folder names these artifacts"):
        case.approve("ml_lead", "Asha")
    assert not (case.folder / APPROVALS_FILE).exists()


def test_an_unknown_role_lists_the_roles(case: Case) -> None:
    """Only the roles of the policy can approve."""
    with pytest.raises(UnknownRole, match="give one of ml_lead, quant_lead, risk_manager"):
        case.approve("cto", "Asha")
    alone = case.under(promotion_required_approvals="desk_head")
    with pytest.raises(UnknownRole, match="give one of desk_head"):
        alone.approve("ml_lead", "Asha")


def test_one_person_fills_one_role(case: Case) -> None:
    """However the name is written; after a revocation the other role is theirs."""
    first = case.approve("ml_lead", "Asha Rao")

    for name in ("Asha Rao", "asha rao", " ASHA  RAO "):
        with pytest.raises(SelfApproval, match="approved as ml_lead"):
            case.approve("quant_lead", name)
    case.approve("ml_lead", "Asha Rao", comment="again in the same role")
    case.revoke(case.book["facts"][-1]["id"])
    case.approve("quant_lead", "Asha Rao")
    assert first.fact["role"] == "ml_lead"
    assert [one.name for one in case.standing().roles] == ["", "Asha Rao", ""]


def test_two_roles_of_one_person_are_also_refused_at_the_promotion(case: Case) -> None:
    """A book that was put together by hand counts such a person once, in the role they took first."""
    case.approve_all()
    chen = case.book["facts"][2]

    def as_asha(fact: dict[str, Any]) -> dict[str, Any]:
        return fact | {"name": "asha"} if fact["id"] == chen["id"] else fact

    _rewrite(case, as_asha)
    (problem,) = case.problems()
    assert isinstance(problem, SelfApproval)
    assert problem.values == {"role": "risk_manager", "other": "ml_lead"}


def test_the_author_approves_nothing(case: Case) -> None:
    """Whoever made the model counts for no role, unless the policy says otherwise."""
    for name in ("trainer", "Trainer"):
        with pytest.raises(SelfApproval, match="who made the model"):
            case.approve("ml_lead", name)

    small = case.under(promotion_allow_self_approval=True, promotion_required_approvals="ml_lead")
    small.approve("ml_lead", "trainer")
    stands = small.standing()
    assert stands.problems == ()
    assert stands.reduced_control
    (strict,) = case.under(promotion_required_approvals="ml_lead").problems()
    assert isinstance(strict, SelfApproval)


def test_fewer_than_three_roles_is_reduced_control(case: Case) -> None:
    """Allowed, and said every time."""
    small = case.under(promotion_required_approvals="ml_lead,risk_manager")

    assert any(line.startswith("reduced control: ") for line in small.approve("ml_lead", "Asha").lines())
    assert small.standing().reduced_control
    assert not any("reduced control" in line for line in case.approve("quant_lead", "Bo").lines())


def test_without_a_name_the_account_speaks(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is the account's as the environment gives it; user and machine are kept beside it."""
    monkeypatch.setenv("LOGNAME", "asha")
    fact = case.approve("ml_lead").fact

    assert fact["name"] == "asha"
    assert fact["user"]
    assert fact["host"]


# --- scope, expiry and age


def test_the_scope_is_what_every_approval_allows(case: Case) -> None:
    """--symbols narrows; the release may trade what nobody left out; nothing in common is a refusal."""
    case.approve("ml_lead", "Asha", symbols=["BBB", "AAA"])
    case.approve("quant_lead", "Bo", symbols=["BBB"])
    case.approve("risk_manager", "Chen")
    assert case.standing().symbols == ("BBB",)

    case.approve("ml_lead", "Asha", symbols=["AAA"])
    assert case.standing().symbols == ()
    (problem,) = case.problems()
    assert isinstance(problem, ApprovalsMissing)
    assert "no symbol is allowed by every approval" in problem.message

    with pytest.raises(UsageError, match="--symbols CCC DDD: not validated; give some of AAA, BBB"):
        case.approve("ml_lead", "Asha", symbols=["AAA", "CCC", "DDD"])


def test_an_approval_counts_through_its_last_day_in_the_markets_zone(case: Case) -> None:
    """--expires is a calendar date in New York for a US model, whatever day it is in UTC."""
    case.approve_all(("ml_lead", "quant_lead"))
    case.approve("risk_manager", "Chen", expires="2025-01-12")
    last = dt.datetime(2025, 1, 13, 4, 59, tzinfo=dt.UTC)  # 23:59 on the 12th in New York

    assert case.at(last).problems() == []
    (problem,) = case.at(last + dt.timedelta(minutes=1)).problems()
    assert isinstance(problem, ApprovalExpired)
    assert problem.exit_code == 5
    assert "counted up to 2025-01-12 and today is 2025-01-13 (America/New_York)" in problem.message


def test_an_expiry_must_be_a_date_to_come(case: Case) -> None:
    """A past day and anything but YYYY-MM-DD are refused; today still counts."""
    with pytest.raises(UsageError, match=r"--expires 2025-01-09: is past; today is 2025-01-10"):
        case.approve("ml_lead", "Asha", expires="2025-01-09")
    for text in ("tomorrow", "20250112", "2025-13-01"):
        with pytest.raises(UsageError, match="give a date as YYYY-MM-DD"):
            case.approve("ml_lead", "Asha", expires=text)
    case.approve("ml_lead", "Asha", expires="2025-01-10")


def test_an_approval_grows_too_old(case: Case) -> None:
    """After promotion_approval_max_age_days it must be given again; doing that suffices."""
    case.approve_all()

    assert case.at(NOW + 14 * DAY).problems() == []
    late = case.at(NOW + 14 * DAY + dt.timedelta(seconds=1))
    assert [type(problem) for problem in late.problems()] == [ApprovalExpired] * 3
    assert "more than 14 days ago" in late.problems()[0].message
    late.approve_all()
    assert late.problems() == []


# --- rejections and revocations


def test_a_rejection_blocks_until_its_person_approves(case: Case) -> None:
    """Who and why are named; another person's approval in that role does not lift it, their own does."""
    case.approve_all()
    case.reject("risk_manager", "Dana", comment="drawdown in July")

    (problem,) = case.problems()
    assert isinstance(problem, ApprovalsMissing)
    assert "rejected by Dana as risk_manager on 2025-01-10: drawdown in July" in problem.message
    case.approve("risk_manager", "Chen")
    assert len(case.problems()) == 1
    case.approve("risk_manager", "Dana")
    assert case.problems() == []


def test_anybody_may_reject_and_it_does_not_age(case: Case) -> None:
    """Also in a role that nobody asks for, also the author; taken back, it is gone."""
    case.approve_all()
    rejection = case.reject("compliance", "trainer", comment="do not use my model")

    assert len(case.problems()) == 1
    assert any("rejected by trainer" in p.message for p in case.at(NOW + 400 * DAY).problems())
    case.revoke(rejection.fact["id"])
    assert case.problems() == []


def test_a_rejection_needs_a_reason_and_no_end(case: Case) -> None:
    """Whoever says no says why; an expiry or a scope would make it a maybe."""
    with pytest.raises(UsageError, match="--comment: give one line of text"):
        case.approve("ml_lead", "Asha", reject=True)
    with pytest.raises(UsageError, match="--reject takes neither"):
        case.approve("ml_lead", "Asha", reject=True, comment="no", expires="2025-02-01")


def test_the_newest_word_of_a_person_counts(case: Case) -> None:
    """Approving twice and taking the second back leaves no approval; a rejection does come back."""
    case.approve_all(("ml_lead", "quant_lead"))
    case.approve("risk_manager", "Chen")
    again = case.approve("risk_manager", "Chen", comment="seen again")
    case.revoke(again.fact["id"])
    (problem,) = case.problems()
    assert "nobody has approved as risk_manager" in problem.message

    case.reject("risk_manager", "Chen", comment="no")
    after_all = case.approve("risk_manager", "Chen")
    assert case.problems() == []
    case.revoke(after_all.fact["id"])
    assert "rejected by Chen" in case.problems()[0].message


def test_only_what_is_there_can_be_taken_back(case: Case) -> None:
    """An unknown id lists what is in force; twice, or taking a revocation back, is refused."""
    with pytest.raises(UsageError, match="no fact is in force here"):
        case.revoke("0" * 12)
    approval = case.approve("ml_lead", "Asha").fact["id"]
    with pytest.raises(UsageError, match=f"there are the approval by Asha as ml_lead .fact {approval}."):
        case.revoke("0" * 12)

    revocation = case.revoke(approval, "Asha").fact["id"]
    with pytest.raises(UsageError, match="Asha took it back already on 2025-01-10"):
        case.revoke(approval)
    with pytest.raises(UsageError, match="no such fact|no fact is in force"):
        case.revoke(revocation)


# --- the book


def _rewrite(case: Case, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Edit facts as somebody would who knows how ids and links are made."""
    book, previous, renamed = case.book, None, dict[str, str]()
    facts = []
    for fact in book["facts"]:
        edited = change(fact) | {"previous": previous}
        edited = {**edited, **({"revokes": renamed[edited["revokes"]]} if "revokes" in edited else {})}
        edited["id"] = previous = renamed[fact["id"]] = id_of(edited)
        facts.append(edited)
    (case.folder / APPROVALS_FILE).write_text(json.dumps(book | {"facts": facts}))


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


# --- signatures


@dataclass(frozen=True)
class Keys:
    """A key for each person, and the line of the signers file that names them."""

    folder: Path
    lines: dict[str, str]

    def key(self, name: str) -> Path:
        return self.folder / name


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """Made once; read only."""
    folder = tmp_path_factory.mktemp("keys")
    names = ("asha", "bo", "chen", "dana", "trainer")
    return Keys(folder, {name: signers_line(f"{name}@example.com", make_key(folder, name)) for name in names})


@pytest.fixture
def signed(case: Case, keys: Keys) -> Case:
    """Signatures are asked for."""
    (case.root / "signers").write_text("".join(keys.lines.values()))
    return case.under(promotion_allowed_signers="signers")


def _sign_all(case: Case, keys: Keys) -> None:
    for role, name in PEOPLE.items():
        case.approve(role, key=keys.key(name.lower()))


def test_signed_approvals_complete_a_candidate(signed: Case, keys: Keys) -> None:
    """Everybody is who the signers file says, and the facts hold the signatures."""
    _sign_all(signed, keys)
    stands = signed.standing()

    assert stands.problems == ()
    assert not stands.unsigned
    assert [one.principal for one in stands.roles] == [
        "asha@example.com",
        "bo@example.com",
        "chen@example.com",
    ]
    assert all(fact["signature"].startswith("-----BEGIN SSH") for fact in signed.book["facts"])
    assert "authentication" not in "".join(signed.approve("ml_lead", key=keys.key("asha")).lines())


def test_the_name_is_the_principals_unless_the_typed_one_agrees(
    signed: Case, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A typed name that is not the key's is refused; the account's name gives way to the principal."""
    monkeypatch.setenv("LOGNAME", "root")
    assert signed.approve("ml_lead", key=keys.key("asha")).fact["name"] == "asha@example.com"
    assert signed.approve("ml_lead", "Asha", keys.key("asha")).fact["name"] == "Asha"
    monkeypatch.setenv("LOGNAME", "asha")
    assert signed.approve("ml_lead", key=keys.key("asha")).fact["name"] == "asha"

    with pytest.raises(SignatureRefused, match="--as Bo: the key .* is that of asha@example.com"):
        signed.approve("ml_lead", "Bo", keys.key("asha"))


def test_a_signature_that_is_asked_for_must_be_there(signed: Case, keys: Keys) -> None:
    """Without --key nobody approves or attests; with a key where nobody asks, that is said too."""
    with pytest.raises(SignatureRefused, match="has to be signed here .*; give --key"):
        signed.approve("ml_lead", "Asha")
    with pytest.raises(SignatureRefused, match="give --key"):
        attest(
            signed.model,
            "period-representative",
            "seen",
            Signer("Asha"),
            settings=signed.settings,
            root=signed.root,
            now=NOW,
        )
    with pytest.raises(UsageError, match="nobody could verify the signature"):
        signed.under().approve("ml_lead", "Asha", keys.key("asha"))
    assert not (signed.folder / APPROVALS_FILE).exists()


def test_typed_names_stop_counting_when_signatures_are_asked_for(
    case: Case, signed: Case, keys: Keys
) -> None:
    """Approvals from before do not count; signing suffices."""
    case.under().approve_all()

    problems = signed.problems()
    assert [type(problem) for problem in problems] == [SignatureRefused] * 3
    assert "is a typed name without a signature" in problems[0].message
    _sign_all(signed, keys)
    assert signed.problems() == []


def test_who_is_taken_out_of_the_signers_file_counts_no_more(signed: Case, keys: Keys) -> None:
    """At the promotion the signers file of that day decides."""
    _sign_all(signed, keys)
    (signed.root / "signers").write_text(keys.lines["asha"] + keys.lines["chen"])

    (problem,) = signed.problems()
    assert isinstance(problem, SignatureRefused)
    assert "approval by bo" in problem.message
    assert "not in the signers file" in problem.message


def test_a_key_that_expires_later_takes_nothing_back(signed: Case, keys: Keys) -> None:
    """A signature is verified at the time it was made."""
    _sign_all(signed, keys)
    expired = "".join(
        signers_line(f"{name.lower()}@example.com", keys.key(name.lower()), 'valid-before="20250112"')
        for name in PEOPLE.values()
    )
    (signed.root / "signers").write_text(expired)

    assert signed.at(NOW + 5 * DAY).problems() == []
    with pytest.raises(SignatureRefused, match="was not valid on 2025-01-15"):
        signed.at(NOW + 5 * DAY).approve("ml_lead", key=keys.key("asha"))


def test_a_key_may_be_limited_to_its_role(signed: Case, keys: Keys) -> None:
    """``namespaces=`` keeps a risk manager's key from approving as the ML lead."""
    line = signers_line("chen@example.com", keys.key("chen"), 'namespaces="sqkit-risk_manager"')
    (signed.root / "signers").write_text(line)

    with pytest.raises(SignatureRefused, match="does not let this key sign as sqkit-ml_lead"):
        signed.approve("ml_lead", key=keys.key("chen"))
    signed.approve("risk_manager", key=keys.key("chen"))


def test_edited_facts_lose_their_signature(signed: Case, keys: Keys) -> None:
    """Whoever edits a fact and mends every id still has no signature over it."""
    _sign_all(signed, keys)
    _rewrite(signed, lambda fact: fact | {"comment": "also for other symbols"})

    assert [type(problem) for problem in signed.problems()] == [SignatureRefused] * 3
    assert "changed after it was signed" in signed.problems()[0].message


def test_a_signature_is_of_whom_the_fact_names(signed: Case, keys: Keys) -> None:
    """A fact cannot carry another name than its signer's, neither beside nor inside the signed text."""
    _sign_all(signed, keys)
    _rewrite(signed, lambda fact: fact | {"principal": "dana@example.com"})
    assert all("but the key is that of" in problem.message for problem in signed.problems())

    def by_asha(fact: dict[str, Any]) -> dict[str, Any]:
        named = fact | {"name": "Bo"}
        return named | {"principal": "asha@example.com"}

    (signed.folder / APPROVALS_FILE).unlink()
    signed.approve("quant_lead", key=keys.key("asha"))
    _rewrite(signed, by_asha)
    book = signed.book
    text = signed_text(book["facts"][0])
    book["facts"][0]["signature"] = sign(text, keys.key("asha"), "sqkit-quant_lead")
    (signed.folder / APPROVALS_FILE).write_text(json.dumps(book))
    assert any("but the key is that of asha@example.com" in problem.message for problem in signed.problems())


def test_one_key_under_two_names_is_one_person(signed: Case, keys: Keys) -> None:
    """A second line for the same key makes no second person."""
    signed.approve("ml_lead", key=keys.key("asha"))
    twice = signers_line("asha@example.com", keys.key("asha"), 'valid-before="20250111"')
    twice += signers_line("other@example.com", keys.key("asha"), 'valid-after="20250111"')
    (signed.root / "signers").write_text(twice)

    with pytest.raises(SelfApproval, match="one person fills one role"):
        signed.at(NOW + DAY).approve("quant_lead", key=keys.key("asha"))


def test_the_author_cannot_sign_either(signed: Case, keys: Keys) -> None:
    """The principal counts as the author, whole or before the ``@``."""
    with pytest.raises(SelfApproval, match="who made the model"):
        signed.approve("ml_lead", key=keys.key("trainer"))
    small_candidate(signed.root, VERSION, created_by="Asha@Example.com")
    with pytest.raises(SelfApproval, match="who made the model"):
        signed.approve("ml_lead", key=keys.key("asha"))


def test_stopping_is_free_and_starting_is_not(signed: Case, keys: Keys) -> None:
    """Rejecting and taking an approval back need no key; taking a rejection back does."""
    _sign_all(signed, keys)
    rejection = signed.reject("compliance", "Somebody", comment="wait")
    assert "rejected by Somebody" in signed.problems()[0].message

    with pytest.raises(SignatureRefused, match="give --key"):
        signed.revoke(rejection.fact["id"], "Dana")
    signed.revoke(rejection.fact["id"], "", keys.key("dana"))
    assert signed.problems() == []
    signed.revoke(signed.book["facts"][0]["id"], "Somebody")
    assert "nobody has approved as ml_lead" in signed.problems()[0].message


def test_a_typed_revocation_frees_no_rejection(case: Case, signed: Case, keys: Keys) -> None:
    """What was taken back by a typed name, before signatures were asked for, is in force again."""
    plain = case.under()
    plain.revoke(plain.reject("ml_lead", "Asha").fact["id"])
    _sign_all(signed.under(promotion_allowed_signers="signers"), keys)

    assert plain.standing().rejections == ()
    assert signed.problems() == []  # Asha approved after all
    other = plain.reject("risk_manager", "Dana")
    plain.revoke(other.fact["id"])
    assert len(signed.problems()) == 1


def test_without_ssh_keygen_nothing_is_promoted(
    signed: Case, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the promotion a signature that cannot be verified does not count."""
    _sign_all(signed, keys)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert [type(problem) for problem in signed.problems()] == [SigningFailed] * 3


def test_a_running_release_is_verified_later(
    signed: Case, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the stored signers: nothing to say when all holds; another model or a bad signature is refused;
    a missing ssh-keygen is only said."""
    _sign_all(signed, keys)
    book, signers = parse_book(signed.book), (signed.root / "signers").read_text()
    digest = sha256_file(signed.root / signed.model)

    assert verified_later(book, signers, model=digest) == []
    assert verified_later(book, None, model=digest) == []
    with pytest.raises(ApprovalVoid, match="not about 000000000000"):
        verified_later(book, signers, model="0" * 64)
    with pytest.raises(SignatureRefused):
        verified_later(book, keys.lines["asha"] + keys.lines["bo"])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert verified_later(book, signers) == [
        "the signatures of the approvals were not verified: ssh-keygen is not installed"
    ]


# --- the page and the commands


def test_the_page_shows_who_signed(signed: Case, keys: Keys) -> None:
    """Signed, typed, rejected and void approvals each read as what they are."""
    plain = signed.under()
    plain.approve("ml_lead", "Asha")
    assert "- [x] **ML Lead**: Asha (typed name, not authenticated) Date: 2025-01-10\n" in plain.page
    assert "- [ ] **Quant Team Lead**: _______________ Date: ___________\n" in plain.page
    assert "A typed name is not authentication" in plain.page

    signed.approve("ml_lead", "Asha", keys.key("asha"))
    signed.approve("quant_lead", "Bo", keys.key("bo"), symbols=["AAA"], comment="small first")
    signed.reject("risk_manager", "Chen", comment="too thin")
    assert "- [x] **ML Lead**: Asha (signed, asha@example.com) Date: 2025-01-10\n" in signed.page
    assert "(signed, bo@example.com) Date: 2025-01-10: small first; only AAA\n" in signed.page
    assert (
        "- [ ] **Risk Manager**: ❌ rejected by Chen (typed name, not authenticated) Date: 2025-01-10: too thin"
        in signed.page
    )
    assert "The approvals allow AAA." in signed.page

    small_candidate(signed.root, VERSION, grade="strong")
    render_view(signed.folder, settings=signed.settings, root=signed.root, now=NOW)
    assert re.search(r"- \[ \] \*\*ML Lead\*\*: _+ Date: _+ \(.*something changed .*is void", signed.page)


def test_a_page_that_cannot_be_drawn_takes_no_approval_back(case: Case) -> None:
    """The fact is on disk; the command says that the page is not."""
    (case.folder / CHECKLIST_PAGE).unlink()
    (case.folder / CHECKLIST_PAGE).mkdir()

    lines = case.approve("ml_lead", "Asha").lines()

    assert any("promotion_checklist.md was not drawn again" in line for line in lines)
    assert case.standing().roles[0].problem is None


def _run(words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    assert sqkit.cli.approving
    with pytest.raises(SystemExit) as leaving:
        main(shlex.split(words))
    said = capsys.readouterr()
    return int(str(leaving.value.code)), said.out, said.err


@pytest.fixture
def at_home(case: Case, monkeypatch: pytest.MonkeyPatch) -> Case:
    """Commands run in the project's folder, at a fixed time."""
    monkeypatch.chdir(case.root)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(int(NOW.timestamp())))
    return case


def test_the_printed_approvals_run_as_printed(
    at_home: Case, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each person copies their line from the page; afterwards every role is filled."""
    lines = re.findall(r"^sqkit (?:approve|attest) .*$", at_home.page, flags=re.MULTILINE)
    assert len(lines) == 4

    for number, line in enumerate(lines):
        monkeypatch.setenv("LOGNAME", f"person{number}")
        code, _, said = _run(line.removeprefix("sqkit "), capsys)
        assert (code, said) == (0, "")
    assert at_home.problems() == []
    assert "- [x] Out-of-sample period representative" in at_home.page


def test_approve_at_the_command_line(at_home: Case, capsys: pytest.CaptureFixture[str]) -> None:
    """It says what was done, what is missing with the very command, and that a typed name proves nothing."""
    code, out, _ = _run(f"approve --model {at_home.model} --role ml_lead --as Asha --symbols AAA", capsys)
    assert code == 0
    first, missing, *rest = out.splitlines()
    assert re.fullmatch(
        r"approved by Asha \(typed name, not authenticated\) as ml_lead for AAA, up to 2025-01-24 \(fact \w{12}\)",
        first,
    )
    assert f"run sqkit approve --model {at_home.model} --role quant_lead" in missing
    assert any("a typed name is not authentication" in line for line in rest)

    fact = first[-13:-1]
    code, out, _ = _run(f"approve --model {at_home.model} --revoke {fact} --reason oops --as Asha", capsys)
    assert code == 0
    assert f"the approval by Asha as ml_lead (fact {fact})" in out


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        ("approve --model {model} --role cto --as A", 2, "give one of ml_lead"),
        ("approve --model {model} --as A", 2, "give --role ROLE"),
        ("approve --model {model} --role ml_lead --reason x", 2, "give --role ROLE"),
        ("approve --model {model} --revoke 1 --role ml_lead --reason x", 2, "--revoke takes --reason"),
        ("approve --model {model} --role ml_lead --as trainer", 1, "who made the model"),
        ("approve --model data/models/x/student_model.onnx --role ml_lead", 2, "no such model file"),
        ("approve --model ../student_model.onnx --role ml_lead", 2, "outside the models folder"),
        ("attest no-such-box --model {model} --note x", 2, "give one of criteria-met, period-representative"),
        ("attest rollback-tested --model {model} --note x", 2, "nobody's word ticks it: no rollback drill"),
        ("attest period-representative --note x", 2, "give --model for a candidate, or --slot"),
        ("attest config-updated --slot swing --note x", 2, "no release is live"),
        ("attest config-updated --slot forex --note x", 2, "slot 'forex'"),
    ],
)
def test_refusals_at_the_command_line(
    at_home: Case, capsys: pytest.CaptureFixture[str], words: str, code: int, line: str
) -> None:
    """One line on standard error, the right exit code, and nothing written."""
    before = sorted(path for path in at_home.folder.iterdir() if not path.name.endswith(".lock"))

    found, out, said = _run(words.format(model=at_home.model), capsys)

    assert (found, out) == (code, "")
    assert line in said
    assert len(said.splitlines()) == 1
    assert sorted(path for path in at_home.folder.iterdir() if not path.name.endswith(".lock")) == before
