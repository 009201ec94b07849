"""Approvals: named people sign off exactly these bytes, and nothing else counts as that."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest

from sqkit.artifacts import APPROVALS_FILE, CHECKLIST_FILE, CHECKLIST_PAGE
from sqkit.errors import (
    ApprovalExpired,
    ApprovalsMissing,
    ApprovalVoid,
    ArtifactChanged,
    NotRecommended,
    SelfApproval,
    SqkitError,
    UnknownRole,
    UsageError,
)
from sqkit.files import sha256_file, sha256_json
from sqkit.people import Actor
from sqkit.policy_in_force import policy_digest, policy_in_force
from sqkit.production.approval_desk import audit_log
from sqkit.production.approval_facts import id_of, signed_text
from sqkit.production.audit import instant
from sqkit.production.slot_state import SlotState, fold
from sqkit.report_manifest import MANIFEST
from sqkit.settings import Settings
from tests.sign_offs import DAY, NOW, PEOPLE, ROLES, VERSION, Case, rewrite
from tests.small_candidate import SYMBOLS, small_candidate


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


def test_an_approval_that_no_longer_counts_keeps_nobody_from_another_role(case: Case) -> None:
    """A person whose approval grew too old may fill another role instead."""
    case.approve("ml_lead", "Asha")
    late = case.at(NOW + 15 * DAY)

    late.approve("quant_lead", "Asha")
    assert late.standing().roles[1].problem is None


def test_two_roles_of_one_person_are_also_refused_at_the_promotion(case: Case) -> None:
    """A book that was put together by hand counts such a person once, in the role they took first."""
    case.approve_all()
    chen = case.book["facts"][2]

    def as_asha(fact: dict[str, Any]) -> dict[str, Any]:
        return fact | {"name": "asha"} if fact["id"] == chen["id"] else fact

    rewrite(case, as_asha)
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


def test_the_newest_approval_that_counts_fills_a_role(case: Case) -> None:
    """Several people may approve in one role; the last of them whose approval counts is named."""
    case.approve("ml_lead", "Asha")
    case.at(NOW + DAY).approve("ml_lead", "Dana", expires="2025-01-12")

    assert case.at(NOW + DAY).standing().roles[0].name == "Dana"
    assert case.at(NOW + 5 * DAY).standing().roles[0].name == "Asha"


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
    instead = case.reject("ml_lead", "Asha")  # of a role that is rejected nobody says that it is open
    assert len(case.problems()) == 2
    case.revoke(instead.fact["id"])
    case.approve("ml_lead", "Asha")
    assert any("rejected by trainer" in p.message for p in case.at(NOW + 400 * DAY).problems())
    case.revoke(rejection.fact["id"])
    assert case.problems() == []


def test_a_rejection_needs_a_reason_and_no_end(case: Case) -> None:
    """Whoever says no says why; an expiry or a scope would make it a maybe."""
    with pytest.raises(UsageError, match="a rejection needs a reason; give --comment TEXT"):
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
    with pytest.raises(UsageError, match=r"no such fact|no fact is in force"):
        case.revoke(revocation)


# --- what cannot be unsaid


def test_a_rejection_and_a_revocation_are_named_in_the_log(case: Case) -> None:
    """Who, about which model, which fact and why; an approval is no line."""
    approval = case.approve("ml_lead", "Asha").fact
    rejection = case.reject("quant_lead", "Bo", comment="the costs").fact
    revocation = case.revoke(approval["id"], "Dana").fact

    lines = audit_log(case.settings, case.root).entries()
    model = sha256_file(case.root / case.model)
    assert [(line["kind"], line["what"], line["fact"], line["reason"]) for line in lines] == [
        ("objection", "reject", rejection["id"], "the costs"),
        ("objection", "revoke", revocation["id"], "a mistake"),
    ]
    assert [(line["model"], line["actor"]["name"]) for line in lines] == [(model, "Bo"), (model, "Dana")]
    assert fold(lines, "default") == SlotState("default")


def test_a_fact_stands_where_the_log_cannot_be_written(case: Case) -> None:
    """It is written first; the refusal says that it counts all the same."""
    audit_log(case.settings, case.root).append(
        "halt",
        {"level": "student_off", "reason": "x"},
        slot="default",
        actor=Actor.here("Asha"),
        now=NOW,
        zone="America/New_York",
    )
    lock = case.root / "data/models/.audit.lock"
    lock.unlink(missing_ok=True)
    lock.mkdir()
    with pytest.raises(SqkitError, match=r"stands in approvals\.json and counts, but the audit log does not"):
        case.reject("ml_lead", "Asha")

    assert [fact["kind"] for fact in case.book["facts"]] == ["reject"]
    assert "rejected by Asha" in case.problems()[0].message


def test_nobody_approves_before_the_decision(case: Case) -> None:
    """A clock set back, or a date written by hand: such an approval counts for nothing."""
    decided = dt.datetime.fromisoformat(json.loads((case.folder / CHECKLIST_FILE).read_text())["timestamp"])
    early = case.at(decided - dt.timedelta(minutes=6))
    with pytest.raises(ApprovalVoid, match="was given before the decision it is about"):
        early.approve("ml_lead", "Asha")
    case.at(decided - dt.timedelta(minutes=4)).approve("ml_lead", "Asha")
    assert case.standing().roles[0].problem is None

    rewrite(case, lambda fact: fact | {"at": instant(decided - DAY)})
    (problem, *_) = case.problems()
    assert isinstance(problem, ApprovalVoid)
    assert "before the decision" in problem.message
