"""The pre-deployment boxes: the program ticks what it can verify, a named person the rest."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest

from sqkit.audit_log import DRILL
from sqkit.chain import Entry
from sqkit.checklist_signoffs import BOX_TITLES
from sqkit.errors import ArchiveUnknown, SignatureRefused, UsageError
from sqkit.files import write_json
from sqkit.people import Actor
from sqkit.production.approval_book import new_fact
from sqkit.production.approval_desk import audit_log, open_desk
from sqkit.production.approval_facts import ATTEST
from sqkit.production.approvals import Recorded, Signer, approve, attest, revoke
from sqkit.production.audit import instant
from sqkit.production.audit_check import check_audit
from sqkit.production.boxes import BOXES, REQUIRED, BoxState, box_states
from sqkit.production.changes import Production
from sqkit.production.live_boxes import attest_live
from sqkit.production.promoter import StudentModelPromoter
from sqkit.production.slot_state import fold
from sqkit.settings import Settings
from tests.small_candidate import small_candidate
from tests.ssh_keys import make_key, signers_line

NOW = dt.datetime(2025, 1, 10, 12, tzinfo=dt.UTC)
VERSION = "20250101_000000"
MODEL = f"data/models/{VERSION}/student/student_model.onnx"
ZONE = "America/New_York"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with one candidate."""
    small_candidate(tmp_path, VERSION)
    return tmp_path


def settings_of(**changes: Any) -> Settings:
    """Default settings with changes."""
    return Settings(_env_file=None, **changes)


def boxes(root: Path, now: dt.datetime = NOW, **changes: Any) -> dict[str, BoxState]:
    """Every box by its id."""
    found = open_desk(MODEL, settings=settings_of(**changes), root=root, now=now).boxes()
    assert [state.box for state in found] == list(BOXES)
    return {state.box: state for state in found}


def tick(root: Path, box: str, name: str = "Asha", key: Path | None = None, **changes: Any) -> Recorded:
    """Attest a box."""
    signer = Signer(name, key)
    return attest(MODEL, box, "looked at it", signer, settings=settings_of(**changes), root=root, now=NOW)


def log_line(root: Path, kind: str, content: dict[str, Any], now: dt.datetime = NOW) -> Entry:
    """One more line in the audit log."""
    log = audit_log(settings_of(), root)
    return log.append(kind, content, slot="default", actor=Actor.here("Asha"), now=now, zone=ZONE)


def drilled(root: Path, now: dt.datetime = NOW, *, passed: bool = True) -> None:
    """A rollback drill in the audit log."""
    log_line(root, DRILL, {"passed": passed, "steps": ["restored"], "milliseconds": 5}, now)


def promoted(root: Path, env_file: str | None = None) -> None:
    """The candidate in production, by the real promoter."""
    settings = settings_of()
    for role, name in (("ml_lead", "Asha"), ("quant_lead", "Bo"), ("risk_manager", "Chen")):
        approve(MODEL, role, Signer(name), settings=settings, root=root, now=NOW)
    tick(root, "period-representative")
    drilled(root)
    promoter = StudentModelPromoter(settings, root=root, clock=lambda: NOW, environ={})
    promoter.promote_model(MODEL, env_file=env_file)


def test_the_boxes_are_the_users() -> None:
    """Seven, in the user's words and order; four of them are needed."""
    assert list(BOX_TITLES.values()) == [
        "Validation criteria met for all symbols",
        "Out-of-sample period representative (recent 3 months)",
        "Model metadata verified (teacher hash, training window)",
        "Baseline model archived with timestamp",
        "Config updated with new model path/version",
        "Telemetry monitoring alerts configured",
        "Rollback procedure documented and tested",
    ]
    assert REQUIRED == ("criteria-met", "period-representative", "metadata-verified", "rollback-tested")


def test_a_fresh_candidate(root: Path) -> None:
    """Evidence and metadata tick their own; each open box says what would tick it."""
    found = boxes(root)

    assert {box for box, state in found.items() if state.ticked} == {"criteria-met", "metadata-verified"}
    assert found["criteria-met"].by == "the evidence: no symbol is significantly worse"
    assert (
        found["metadata-verified"].by
        == "the model's metadata: teacher 000000000000, trained 2003-01-02 to 2023-12-29"
    )
    for state in found.values():
        assert bool(state.by) == state.ticked
        assert bool(state.open_because) != state.ticked


@pytest.mark.parametrize("status", ["insufficient", None])
def test_criteria_that_could_not_be_tested_are_for_a_person(root: Path, status: str | None) -> None:
    """Where the evidence says nothing of the symbols, somebody looks at them and says so."""
    small_candidate(root, VERSION, all_symbols=status)
    assert boxes(root)["criteria-met"].attestable

    tick(root, "criteria-met")
    assert boxes(root)["criteria-met"].by == (
        "attested by Asha (typed name, not authenticated) on 2025-01-10: looked at it"
    )


def test_criteria_that_failed_cannot_be_attested(root: Path) -> None:
    """Nobody's word stands against the evidence."""
    small_candidate(root, VERSION, all_symbols="fail")

    with pytest.raises(UsageError, match="nobody's word ticks it: the evidence says otherwise"):
        tick(root, "criteria-met")
    assert not boxes(root)["criteria-met"].ticked


@pytest.mark.parametrize(
    ("box", "line"),
    [
        ("criteria-met", "is ticked already: the evidence"),
        ("metadata-verified", "is ticked already: the model's metadata"),
        ("baseline-archived", "nobody's word ticks it: the promotion archives"),
        (
            "rollback-tested",
            "nobody's word ticks it: no rollback drill was made; run sqkit rollback --drill",
        ),
        ("no-such-box", "give one of criteria-met, period-representative, metadata-verified"),
    ],
)
def test_what_the_program_ticks_nobody_attests(root: Path, box: str, line: str) -> None:
    """The refusal says what ticks the box; nothing is written."""
    with pytest.raises(UsageError, match=line):
        tick(root, box)
    assert not (root / MODEL).with_name("approvals.json").exists()


def test_a_word_in_the_book_ticks_no_box_of_the_programs(root: Path) -> None:
    """Whoever writes an attestation of such a box by hand has written nothing."""
    desk = open_desk(MODEL, settings=settings_of(), root=root, now=NOW)
    said = {"kind": ATTEST, "box": "rollback-tested", "note": "trust me", "at": instant(NOW)}
    fact = new_fact(desk.book, {**said, "name": "Asha", "user": "asha", "host": "desk1"})
    write_json((root / MODEL).with_name("approvals.json"), desk.book.with_fact(fact).to_dict())

    assert not boxes(root)["rollback-tested"].ticked


def test_a_persons_box(root: Path) -> None:
    """Attested it is ticked with name, day and note; taken back it is open; a changed candidate opens it."""
    fact = tick(root, "period-representative").fact
    assert boxes(root)["period-representative"].ticked
    assert "- [x] Out-of-sample period representative (recent 3 months) — attested by Asha" in page(root)

    revoke(MODEL, fact["id"], "wrong window", Signer("Asha"), settings=settings_of(), root=root, now=NOW)
    assert boxes(root)["period-representative"].open_because == "look at the validation window and attest it"
    assert "- [ ] Out-of-sample period representative (recent 3 months)\n" in page(root)

    tick(root, "period-representative")
    small_candidate(root, VERSION, grade="strong")
    assert boxes(root)["period-representative"].open_because == (
        "attested before something changed; attest it again"
    )


def page(root: Path) -> str:
    """The candidate's page as it lies there."""
    return (root / MODEL).with_name("promotion_checklist.md").read_text()


def test_an_attestation_is_signed_where_signatures_are_asked_for(root: Path, tmp_path: Path) -> None:
    """A typed name ticks nothing then; the box says why it is open."""
    tick(root, "period-representative")
    key = make_key(tmp_path, "asha")
    (root / "signers").write_text(signers_line("asha@example.com", key))
    asked = {"promotion_allowed_signers": "signers"}

    assert "without a signature" in boxes(root, **asked)["period-representative"].open_because
    with pytest.raises(SignatureRefused):
        tick(root, "period-representative", **asked)
    tick(root, "period-representative", key=key, **asked)
    by = boxes(root, **asked)["period-representative"].by
    assert by == "attested by Asha (signed, asha@example.com) on 2025-01-10: looked at it"


def test_a_drill_counts_for_thirty_days(root: Path) -> None:
    """Only a drill that passed ticks the box, and only while it is recent."""
    drilled(root, passed=False)
    assert not boxes(root)["rollback-tested"].ticked
    drilled(root)

    assert boxes(root)["rollback-tested"].by == "the rollback drill of 2025-01-10"
    assert boxes(root, NOW + dt.timedelta(days=30))["rollback-tested"].ticked
    late = boxes(root, NOW + dt.timedelta(days=30, seconds=1))["rollback-tested"]
    assert late.open_because.startswith("the last drill passed on 2025-01-10, more than 30 days ago")


def test_metadata_of_another_model_is_not_verified(root: Path) -> None:
    """The box is about the bytes that lie there, and about what integrity found out about their training."""
    other = (root / MODEL).with_name("promotion_checklist.json")
    checklist = json.loads(other.read_text())
    states = open_desk(MODEL, settings=settings_of(), root=root, now=NOW)

    def verified(changed: dict[str, Any]) -> BoxState:
        found = box_states(
            checklist | changed,
            None,
            states.statement,
            drill_entry=None,
            now=NOW,
            settings=settings_of(),
            signers=None,
        )
        return next(state for state in found if state.box == "metadata-verified")

    assert verified({}).ticked
    assert "about another model" in verified({"digests": {"model": "0" * 64}}).open_because
    failed = [{"name": "teacher_agrees", "status": "fail", "blocking": True, "note": ""}]
    assert "integrity teacher_agrees failed" in verified({"integrity": failed}).open_because
    assert "was not compared" in verified({"integrity": []}).by


def test_alerts_and_configuration_may_stay_open(root: Path) -> None:
    """Neither is needed; monitoring that is enabled ticks the alerts, an env file the promotion wrote the rest."""
    found = boxes(root)
    assert not any(
        found[box].required for box in ("config-updated", "alerts-configured", "baseline-archived")
    )

    assert boxes(root, student_monitoring_enabled=True)["alerts-configured"].by == (
        "the settings: monitoring is enabled"
    )
    with pytest.raises(UsageError, match="is ticked already: the settings"):
        tick(root, "alerts-configured", student_monitoring_enabled=True)
    tick(root, "config-updated")
    assert boxes(root)["config-updated"].ticked


def test_a_promotion_ticks_its_own_boxes(root: Path) -> None:
    """What was archived and which environment file was written stand on the page afterwards."""
    promoted(root, env_file=".env")
    found = boxes(root)

    assert found["baseline-archived"].by == "no earlier release"
    assert found["config-updated"].by == "the promotion, which wrote .env"
    assert "- [x] Baseline model archived with timestamp — no earlier release\n" in page(root)

    small_candidate(root, VERSION, grade="strong")
    assert not boxes(root)["baseline-archived"].ticked


def test_boxes_of_the_live_release_are_lines_of_the_log(root: Path) -> None:
    """``attest --slot`` ticks what may be ticked while a release is live, in the log and on its page."""
    with pytest.raises(ArchiveUnknown, match="no release is live"):
        live(root, "config-updated")
    promoted(root)

    line = live(root, "alerts-configured")
    assert (line["box"], line["note"], line["date"]) == ("alerts-configured", "others watch", "2025-01-10")
    assert line["release"].startswith("20250110_070000_")
    state = fold(audit_log(settings_of(), root).entries(), "default")
    assert set(state.attested) == {"alerts-configured"}
    assert boxes(root)["alerts-configured"].by == (
        "attested by Chen (typed name, not authenticated) on 2025-01-10: others watch"
    )


def live(root: Path, box: str, *, key: Path | None = None, name: str = "Chen", **changes: Any) -> Entry:
    """Attest a box of the live release."""
    production = Production(settings_of(**changes), root, clock=lambda: NOW, actor=Actor.here(name))
    return attest_live(production, box, "others watch", Signer(name, key), slot="swing")


def test_a_box_of_the_live_release_is_signed_where_signers_are_set(root: Path, tmp_path: Path) -> None:
    """As every other attestation: by somebody who may, under their own name, and verified again later."""
    promoted(root)
    key, other = make_key(tmp_path, "chen"), make_key(tmp_path, "dana")
    (root / "signers").write_text(
        signers_line("chen@example.org", key, 'namespaces="sqkit-attest"')
        + signers_line("dana@example.org", other, 'namespaces="sqkit-ratify"')
    )
    wants = {"promotion_allowed_signers": "signers"}

    with pytest.raises(
        SignatureRefused, match=r"ticking the box alerts-configured has to be signed here.*--key"
    ):
        live(root, "alerts-configured", **wants)
    with pytest.raises(SignatureRefused, match="does not let this key sign as sqkit-attest"):
        live(root, "alerts-configured", key=other, name="dana", **wants)
    with pytest.raises(SignatureRefused, match=r"the key .* is that of chen@example.org"):
        live(root, "alerts-configured", key=key, name="Bela", **wants)
    assert not fold(audit_log(settings_of(), root).entries(), "default").attested

    line = live(root, "alerts-configured", key=key, **wants)
    assert line["actor"]["principal"] == "chen@example.org"
    assert boxes(root, **wants)["alerts-configured"].by == (
        "attested by Chen (signed, chen@example.org) on 2025-01-10: others watch"
    )
    assert [
        one for one in check_audit(settings_of(**wants), root)["differences"] if "line" in one["what"]
    ] == []


def test_a_key_without_signers_is_refused_for_the_live_release_too(root: Path, tmp_path: Path) -> None:
    """Nobody could verify what it signs."""
    promoted(root)

    with pytest.raises(UsageError, match="no signers file is set"):
        live(root, "alerts-configured", key=make_key(tmp_path, "chen"))


def test_a_drill_that_failed_opens_the_box_again(root: Path) -> None:
    """The newest drill decides: what passed before it says nothing of today."""
    log = audit_log(settings_of(), root)
    for passed, last in ((True, "in place"), (False, "failed: the rollback ended at no student")):
        content = {"passed": passed, "steps": [last], "milliseconds": 3}
        log.append(DRILL, content, slot="default", actor=Actor.here("Asha"), now=NOW, zone=ZONE)
        box = boxes(root)["rollback-tested"]
        assert box.ticked is passed

    assert box.open_because == (
        "the last drill, of 2025-01-10, did not pass (failed: the rollback ended at no student); mend that and run "
        "sqkit rollback --drill"
    )


def test_a_drill_ticks_its_box_and_nobody_else(root: Path) -> None:
    """Whoever attests that rolling back was tested is told to test it."""
    with pytest.raises(
        UsageError, match="nobody's word ticks it, a drill that passed does; run sqkit rollback"
    ):
        live(root, "rollback-tested")


def test_other_boxes_are_no_business_of_the_live_release(root: Path) -> None:
    """A candidate's boxes, and what is ticked already, are refused."""
    promoted(root, env_file=".env")

    with pytest.raises(UsageError, match="belongs to a candidate"):
        live(root, "period-representative")
    with pytest.raises(UsageError, match=r"ticked already by the promotion, which wrote \.env"):
        live(root, "config-updated")
    with pytest.raises(UsageError, match="ticked already by the settings"):
        live(root, "alerts-configured", student_monitoring_enabled=True)
