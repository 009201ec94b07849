"""May this candidate go into production: each check, what it lets through, and what it refuses with."""

from __future__ import annotations

import datetime as dt
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sqkit.artifacts import (
    ACCURACY_FILE,
    APPROVALS_FILE,
    CHECKLIST_FILE,
    CHECKLIST_PAGE,
    COMPARISON_FILE,
    EVIDENCE_FILE,
    PARITY_FILE,
    RESULTS_FILE,
    VERIFICATION_FILE,
)
from sqkit.audit_log import HALT, POLICY, QUARANTINE_RELEASE
from sqkit.checklist_inputs import Policy
from sqkit.errors import (
    ApprovalExpired,
    ApprovalsMissing,
    ApprovalVoid,
    ArtifactChanged,
    BoxOpen,
    ChecklistEdited,
    ChecklistInputError,
    ChecklistOfAnother,
    ClockBackwards,
    DecisionStale,
    IntegrityError,
    ModelMetadataInvalid,
    NotRecommended,
    PinBlocks,
    PolicyWeaker,
    Quarantined,
    SelfApproval,
    SettingsError,
    SlotMismatch,
    SqkitError,
)
from sqkit.files import canonical_json, sha256_bytes, sha256_file
from sqkit.model_file import model_age_days
from sqkit.policy_in_force import policy_digest
from sqkit.production.approvals import Signer, approve
from sqkit.production.doctor import find_problems
from sqkit.production.env_file import PIN
from sqkit.production.promoter import StudentModelPromoter
from sqkit.production.promotion_checks import PromotionCheck, PromotionValidationResult
from sqkit.report_manifest import MANIFEST
from sqkit.settings import Settings
from tests.promotable import NOW, VERSION, Promotable, promotable
from tests.releases import ASHA, CONTENTS, Slotted, model_bytes
from tests.small_candidate import small_candidate

NAMES = [
    "model_path",
    "model_loads",
    "metadata_complete",
    "artifacts",
    "checklist",
    "recommendation",
    "already_live",
    "incumbent",
    "verification",
    "report",
    "parity",
    "approvals",
    "boxes",
    "policy",
    "runtime",
    "age",
    "slot",
    "quarantine",
    "pin",
    "clock",
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Promotable:
    """A candidate that may be promoted, made once."""
    return promotable(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def ready(whole: Promotable, tmp_path: Path) -> Promotable:
    """A copy of a candidate that may be promoted."""
    return whole.copied(tmp_path)


def refused(project: Promotable, check: str, kind: type[SqkitError], code: int, *parts: str) -> str:
    """This check is the first that fails, with this class, exit code and one line that holds these parts."""
    result = project.examine()
    first = next((one for one in result.checks if one.status == "fail"), None)
    assert first is not None, result.lines()
    assert first.name == check, result.reasons
    assert not result.can_promote
    assert type(first.error) is kind, repr(first.error)
    with pytest.raises(kind) as raised:
        result.raise_refusal()
    message = raised.value.message
    assert raised.value is first.error
    assert raised.value.exit_code == code
    assert result.reasons[0] == f"{check}: {message}"
    assert message.isprintable(), message
    for part in parts:
        assert part in message, message
    return message


class TestTheResult:
    """What `examine` answers."""

    def test_a_whole_candidate_may_be_promoted(self, ready: Promotable) -> None:
        """Every check is made in the stated order, none fails, and raising refuses nothing."""
        result = ready.examine()

        assert [check.name for check in result.checks] == NAMES
        assert result.can_promote, result.reasons
        assert result.reasons == ()
        result.raise_refusal()
        assert {check.name for check in result.checks if check.status == "advisory"} == {
            "approvals",
        }

    def test_it_reads_as_one_line_a_check(self, ready: Promotable) -> None:
        """A mark, the name and what was found; the same as plain JSON."""
        result = ready.but(now=NOW + dt.timedelta(days=200)).examine()

        lines = result.lines()
        assert len(lines) == len(NAMES)
        assert lines[0] == f"✓ model_path: {ready.typed} lies in the models folder"
        assert lines[NAMES.index("parity")] == "✓ parity: the live engine did the same"
        assert ready.examine().lines()[NAMES.index("approvals")].startswith("· approvals: ")
        assert lines[NAMES.index("age")].startswith("✗ age: ")
        plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
        assert plain["can_promote"] is False
        assert plain["reasons"] == list(result.reasons)
        failed = next(check for check in plain["checks"] if check["name"] == "age")
        assert (failed["status"], failed["error"], failed["exit_code"]) == ("fail", "DecisionStale", 5)

    def test_every_reason_is_given_and_the_first_decides(self, ready: Promotable) -> None:
        """All failed checks are named at once; the refusal is that of the first in order."""
        (ready.student / APPROVALS_FILE).unlink()
        result = ready.but(now=NOW + dt.timedelta(days=200), promotion_min_days=90).examine()

        failed = [check.name for check in result.checks if check.status == "fail"]
        assert failed == ["approvals", "boxes", "policy", "age"]
        assert [reason.split(":")[0] for reason in result.reasons] == failed
        with pytest.raises(ApprovalsMissing):
            result.raise_refusal()

    def test_what_needs_a_broken_input_is_not_checked(self, ready: Promotable) -> None:
        """A missing checklist is one refusal, not twelve; what does not need it is still checked."""
        (ready.student / CHECKLIST_FILE).unlink()
        result = ready.examine()

        status = {check.name: check.status for check in result.checks}
        assert status["artifacts"] == "fail"
        assert [name for name in NAMES if status[name] == "not_checked"] == [
            "checklist",
            "recommendation",
            "incumbent",
            "verification",
            "report",
            "parity",
            "approvals",
            "boxes",
            "policy",
            "runtime",
            "age",
        ]
        assert len(result.reasons) == 1
        assert "– age: needs artifacts" in result.lines()

    def test_a_result_without_a_failure_but_unchecked_does_not_promote(self) -> None:
        """Only what was checked and found right is right."""
        result = PromotionValidationResult.of([PromotionCheck("age", "not_checked", "needs artifacts")])
        assert not result.can_promote

    def test_examining_gives_back_the_bytes_it_looked_at(self, ready: Promotable) -> None:
        """What is archived is what was examined: the candidate holds the model's own bytes."""
        assert ready.candidate.digest("student_model.onnx") == ready.model


class TestModelAndMetadata:
    """The model file and what it says about itself."""

    def test_a_model_without_an_author_is_refused(self, tmp_path: Path) -> None:
        """Nobody could tell whether an approver made it."""
        refused(
            promotable(tmp_path, created_by="  "),
            "metadata_complete",
            ModelMetadataInvalid,
            2,
            "created_by is empty",
            "sqkit train-student",
        )

    def test_a_version_that_is_no_time_is_refused(self, tmp_path: Path) -> None:
        """The tag has the right form but is no date: the model's age would not be known."""
        project = promotable(tmp_path, model_version="20251399_000000", approved=False)
        refused(project, "metadata_complete", ModelMetadataInvalid, 2, "20251399_000000", "no date and time")

    def test_an_unknown_market_is_refused(self, tmp_path: Path) -> None:
        """A market that this installation does not know has no sessions and no costs."""
        project = promotable(tmp_path)
        model = promotable(tmp_path / "other", slot="default", approved=False)
        data = (model.student / "student_model.onnx").read_bytes().replace(b'"market":"us"', b'"market":"xx"')
        (project.student / "student_model.onnx").write_bytes(data)
        refused(project, "metadata_complete", ModelMetadataInvalid, 2, "market 'xx'")

    def test_the_age_of_a_model_is_counted_from_its_version_in_utc(self) -> None:
        """Whole and part days; negative where the tag lies ahead of the clock."""
        assert model_age_days("20250101_120000", dt.datetime(2025, 1, 3, tzinfo=dt.UTC)) == 1.5
        assert model_age_days("20250101_120000", dt.datetime(2024, 12, 31, 12, tzinfo=dt.UTC)) == -1.0


class TestChecklistAndModel:
    """Checklist, results and model speak of each other."""

    def test_a_checklist_for_another_model_is_refused(self, ready: Promotable) -> None:
        """Both digests are named, and what to do."""
        ready.edit(CHECKLIST_FILE, lambda c: c["digests"].update(model="f" * 64))
        refused(
            ready,
            "checklist",
            ChecklistOfAnother,
            4,
            "another model (ffffffffffff)",
            ready.model[:12],
            "sqkit validate",
        )

    @pytest.mark.parametrize(
        ("name", "value"),
        [("strategy", "intraday"), ("market", "nse"), ("horizon_bars", 6), ("dead_zone", 0.4)],
    )
    def test_a_run_of_another_kind_of_model_is_refused(
        self, ready: Promotable, name: str, value: Any
    ) -> None:
        """The run must be what the model is made for."""
        ready.edit(CHECKLIST_FILE, lambda c: c["runtime"].update({name: value}))
        refused(ready, "checklist", ArtifactChanged, 4, f"ran with {name} {value!r}")

    def test_results_on_other_bars_are_refused(self, ready: Promotable) -> None:
        """The interval is known from the results alone."""
        ready.edit(RESULTS_FILE, lambda r: r.update(interval="1m"))
        refused(ready, "checklist", ArtifactChanged, 4, "ran with interval '1m'")

    @pytest.mark.parametrize(
        "change",
        [
            lambda r: r["digests"].update(data="0" * 64),
            lambda r: r["runtime"].update(slippage_bps=0.0),
            lambda r: r["validation_period"].update(end="2024-12-31"),
            lambda r: r.update(model_version="20240101_000000"),
        ],
        ids=["digests", "runtime", "validation_period", "model_version"],
    )
    def test_results_of_another_decision_are_refused(
        self, ready: Promotable, change: Callable[[Any], object], request: pytest.FixtureRequest
    ) -> None:
        """What the results and the checklist both say must be the same."""
        ready.edit(RESULTS_FILE, change)
        name = request.node.callspec.id
        refused(ready, "checklist", ArtifactChanged, 4, f"{RESULTS_FILE}: its {name} is not")

    def test_an_edited_runtime_is_refused_even_in_both_files(self, ready: Promotable) -> None:
        """The runtime has a digest of its own."""
        for name in (CHECKLIST_FILE, RESULTS_FILE):
            ready.edit(name, lambda c: c["runtime"].update(slippage_bps=0.0))
        refused(ready, "checklist", ArtifactChanged, 4, "its runtime differs from its digest")


class TestRecommendation:
    """The decision, derived again."""

    def test_a_recommendation_that_does_not_follow_is_refused(self, ready: Promotable) -> None:
        """A REJECT with its word changed to PROMOTE is an integrity matter, and the line says what differs."""
        ready.reseal_checklist(lambda c: c["candidate_metrics"].update(precision_long=0.5))
        refused(ready, "recommendation", ChecklistEdited, 4, "the checklist says", "its inputs give")

    def test_a_reject_is_refused_with_the_code_of_the_decision(self, tmp_path: Path) -> None:
        """REJECT exits 1 and gives the reason."""
        project = promotable(tmp_path, candidate_metrics={"precision_long": 0.69})
        refused(project, "recommendation", NotRecommended, 1, "REJECT", "train a better student")

    def test_too_little_evidence_is_refused_with_the_code_of_the_decision(self, tmp_path: Path) -> None:
        """INSUFFICIENT_EVIDENCE exits 3."""
        project = promotable(tmp_path, grade="weak")
        refused(project, "recommendation", NotRecommended, 3, "INSUFFICIENT_EVIDENCE")

    def test_a_failed_integrity_item_is_refused_with_the_code_of_the_decision(self, tmp_path: Path) -> None:
        """A blocking item that failed exits 4."""
        failed = [{"name": "time_order", "status": "fail", "blocking": True, "note": "overlaps"}]
        refused(promotable(tmp_path, integrity=failed), "recommendation", NotRecommended, 4, "REJECT")

    def test_a_checklist_without_integrity_can_never_be_promoted(self, tmp_path: Path) -> None:
        """Metrics from elsewhere carry neither integrity items nor predictions."""
        refused(
            promotable(tmp_path, integrity=[]), "recommendation", NotRecommended, 4, "metrics from elsewhere"
        )

    def test_a_checklist_without_predictions_can_never_be_promoted(self, ready: Promotable) -> None:
        """Nobody could compute such a decision again."""
        ready.edit(CHECKLIST_FILE, lambda c: c["digests"].update(predictions=None))
        ready.edit(RESULTS_FILE, lambda r: r["digests"].update(predictions=None))
        refused(ready, "recommendation", NotRecommended, 4, "metrics from elsewhere")

    def test_metrics_that_are_no_numbers_are_refused(self, ready: Promotable) -> None:
        """The gate's own refusal is the refusal."""
        ready.edit(CHECKLIST_FILE, lambda c: c["candidate_metrics"].update(precision_long="0.7"))
        refused(ready, "recommendation", ChecklistInputError, 2, "precision_long")


class TestIncumbent:
    """The decision was made against what is live now."""

    def test_the_incumbent_of_the_log_is_the_one(self, tmp_path: Path) -> None:
        """A decision made against the live release is let through."""
        Slotted(tmp_path).promote(1, "2024-12-01")
        project = promotable(tmp_path)
        assert project.check("incumbent").status == "pass"
        assert project.examine().can_promote

    def test_production_that_moved_makes_the_decision_stale(self, ready: Promotable) -> None:
        """Both models are named; exit code 5."""
        entry = Slotted(ready.root).promote(1, "2025-01-02")
        ready = ready.but(now=NOW + dt.timedelta(days=1))
        live = entry["digests"]["model"]
        refused(ready, "incumbent", DecisionStale, 5, "no student", live[:12], "sqkit validate")

    def test_a_model_that_somebody_copied_there_is_an_incumbent_too(self, ready: Promotable) -> None:
        """Without a log what lies there counts, by its bytes."""
        ready.production.parent.mkdir(parents=True)
        ready.production.write_bytes(b"anything")
        refused(ready, "incumbent", DecisionStale, 5, sha256_bytes(b"anything")[:12])

    @pytest.mark.parametrize("stray", ["garbage", "a real model"])
    def test_the_doctors_advice_on_a_stray_file_works(self, tmp_path: Path, stray: str) -> None:
        """Doctor and refusal say the same two ways out, and each leads to a promotion."""
        project = promotable(tmp_path)
        data = b"no model at all" if stray == "garbage" else model_bytes(7, model_version="20240108_000007")
        project.production.parent.mkdir(parents=True)
        project.production.write_bytes(data)
        ways = "move it away, or validate again with --baseline-model rule"

        lines = [problem.what for problem in find_problems(project.settings, tmp_path)]
        assert len([line for line in lines if ways in line]) == 1, lines
        refused(project, "incumbent", DecisionStale, 5, "an unmanaged file lies there", ways)
        away = project.copied(tmp_path / "away")
        away.production.unlink()
        assert away.examine().can_promote, away.examine().reasons
        assert find_problems(away.settings, away.root) == []
        again = promotable(tmp_path, version="20250102_000000", approved=False)
        again.approve(at=NOW)
        assert again.check("incumbent").status == "pass"
        promoter = StudentModelPromoter(
            again.settings, root=tmp_path, clock=lambda: NOW, actor=ASHA, environ={}
        )
        promoter.promote_model(again.typed)
        kept = [path.read_bytes() for path in tmp_path.glob("data/models/archive/*/student_model.onnx")]
        assert sorted(kept) == sorted([data, (again.student / "student_model.onnx").read_bytes()])
        assert find_problems(again.settings, tmp_path) == []

    def test_what_was_copied_over_a_live_release_is_no_incumbent(self, tmp_path: Path) -> None:
        """The log names what is live, whatever lies in its place for the moment."""
        Slotted(tmp_path).promote(1, "2024-12-01")
        project = promotable(tmp_path)
        project.production.write_bytes(b"anything")
        assert project.check("incumbent").status == "pass"

    def test_a_decision_against_a_copied_model_is_let_through(self, tmp_path: Path) -> None:
        """Nothing was ever promoted, but something was in production when it was validated."""
        place = tmp_path / Settings(_env_file=None).student_model_path
        place.parent.mkdir(parents=True)
        place.write_bytes(small_candidate(tmp_path / "elsewhere", bias=0.5).read_bytes())
        assert promotable(tmp_path).examine().can_promote

    def test_after_a_rollback_to_nothing_the_incumbent_is_nothing(self, tmp_path: Path) -> None:
        """No student is live: a decision against the rule is let through, one against the old release not."""
        slotted = Slotted(tmp_path)
        slotted.promote(1, "2024-12-01")
        stale = promotable(tmp_path)
        slotted.roll_back("none", "2024-12-02")
        refused(stale, "incumbent", DecisionStale, 5, "but no student is live")
        assert (
            promotable(tmp_path, version="20250102_000000", approved=False).check("incumbent").status
            == "pass"
        )

    def test_what_is_live_already_is_not_promoted_again(self, ready: Promotable) -> None:
        """The second of two promoters of one candidate gets exit code 5."""
        ready.production.parent.mkdir(parents=True)
        ready.production.write_bytes((ready.student / "student_model.onnx").read_bytes())
        refused(ready, "already_live", DecisionStale, 5, "live in slot default already")


VERIFICATIONS: dict[str, tuple[Callable[[Any], object], str]] = {
    "a status": (lambda v: v.update(status="differs"), "status differs, 0 differences"),
    "a difference": (lambda v: v.update(differences=[{"what": "x"}]), "1 difference;"),
    "another model": (
        lambda v: v["read"].update({"student_model.onnx": "0" * 64}),
        "is not the file that was verified",
    ),
    "an unread file": (lambda v: v["read"].pop(EVIDENCE_FILE), f"did not read {EVIDENCE_FILE}"),
    "no ledger": (lambda v: v.update(unchecked=["ledger"]), "ledger could not be checked"),
    "no report": (
        lambda v: v.update(unchecked=["report", "ledger"]),
        "ledger and report could not be checked",
    ),
    "silence": (lambda v: v.pop("unchecked"), "does not say what could not be checked"),
    "a vanished file": (
        lambda v: v["read"].update({"validation_telemetry/AAA.parquet": "0" * 64}),
        "AAA.parquet",
    ),
    "a file elsewhere": (
        lambda v: v["read"].update({"../../../passwd": "0" * 64}),
        "outside the student's folder",
    ),
    "a file at the root": (
        lambda v: v["read"].update({"/etc/hostname": "0" * 64}),
        "outside the student's folder",
    ),
}


class TestVerification:
    """``sqkit verify`` found no difference, in these very files."""

    @pytest.mark.parametrize("what", sorted(VERIFICATIONS))
    def test_what_was_not_verified_is_refused(self, ready: Promotable, what: str) -> None:
        """Whatever a verification leaves open or has seen otherwise."""
        change, said = VERIFICATIONS[what]
        ready.edit(VERIFICATION_FILE, change)
        refused(ready, "verification", ArtifactChanged, 4, said, "sqkit ver" if what != "a status" else "")

    def test_predictions_are_hashed_again(self, ready: Promotable) -> None:
        """A prediction file that was verified and then changed is named."""
        place = ready.student / "validation_telemetry" / "AAA.parquet"
        place.parent.mkdir()
        place.write_bytes(b"predictions")
        name = "validation_telemetry/AAA.parquet"
        ready.edit(VERIFICATION_FILE, lambda v: v["read"].update({name: sha256_file(place)}))
        assert ready.check("verification").status == "pass"

        place.write_bytes(b"Predictions")
        refused(ready, "verification", ArtifactChanged, 4, f"{name}: is not the file that was verified")

    def test_every_prediction_file_of_the_results_must_have_been_read(self, ready: Promotable) -> None:
        """A verification cannot leave the predictions out."""
        ready.edit(RESULTS_FILE, lambda r: r["files"].append({"file": "AAA.parquet"}))
        ready.seal()
        refused(ready, "verification", ArtifactChanged, 4, "did not read validation_telemetry/AAA.parquet")

    def test_the_page_may_show_new_signatures(self, ready: Promotable) -> None:
        """The Markdown is a view that is drawn again after each approval; it is not held to its digest."""
        page = ready.student / CHECKLIST_PAGE
        ready.edit(VERIFICATION_FILE, lambda v: v["read"].update({CHECKLIST_PAGE: sha256_file(page)}))
        page.write_text(page.read_text() + "signed\n")
        assert ready.examine().can_promote


class TestReport:
    """The report is whole and reports this decision."""

    def test_a_changed_page_is_named(self, ready: Promotable) -> None:
        """What people read is what the manifest names."""
        (ready.report / "checklist.html").write_text("all is well")
        refused(ready, "report", ArtifactChanged, 4, "checklist.html: changed since the report was made")

    def test_a_missing_page_is_named(self, ready: Promotable) -> None:
        """A page that is gone."""
        (ready.report / "validate.md").unlink()
        refused(ready, "report", ArtifactChanged, 4, "validate.md: missing")

    def test_an_added_page_is_named(self, ready: Promotable) -> None:
        """A page that nobody made a digest of."""
        (ready.report / "more.html").write_text("more")
        refused(ready, "report", ArtifactChanged, 4, "more.html: not in the manifest")

    def test_artifacts_that_were_changed_since_are_refused(self, ready: Promotable) -> None:
        """A file beside the model that is not the reported one, even when it was verified afterwards."""
        ready.edit(ACCURACY_FILE, lambda a: a.update(more=1))
        ready.edit(
            VERIFICATION_FILE,
            lambda v: v["read"].update({ACCURACY_FILE: sha256_file(ready.student / ACCURACY_FILE)}),
        )
        refused(ready, "report", ArtifactChanged, 4, ACCURACY_FILE)

    def test_an_earlier_run_does_not_speak_for_changed_artifacts(self, ready: Promotable) -> None:
        """A copy under validations/ satisfies a manifest, but what lies there now would be promoted."""
        kept = ready.student / "validations" / "v1"
        kept.mkdir(parents=True)
        for name in (
            ACCURACY_FILE,
            CHECKLIST_FILE,
            COMPARISON_FILE,
            EVIDENCE_FILE,
            PARITY_FILE,
            RESULTS_FILE,
        ):
            (kept / name).write_bytes((ready.student / name).read_bytes())
        ready.edit(ACCURACY_FILE, lambda a: a.update(more=1))
        ready.edit(
            VERIFICATION_FILE,
            lambda v: v["read"].update({ACCURACY_FILE: sha256_file(ready.student / ACCURACY_FILE)}),
        )
        refused(ready, "report", ArtifactChanged, 4, f"names another {ACCURACY_FILE}")

    def test_a_report_that_leaves_an_artifact_out_is_refused(self, ready: Promotable) -> None:
        """Each file of the decision is named."""
        ready.edit(MANIFEST, lambda m: m["artifacts"]["files"].pop(PARITY_FILE))
        refused(ready, "report", ArtifactChanged, 4, f"does not name {PARITY_FILE}")

    @pytest.mark.parametrize("page", ["validate.html", "checklist.ipynb"])
    def test_a_report_without_its_pages_is_refused(self, ready: Promotable, page: str) -> None:
        """Validation and decision pages in all three forms."""
        (ready.report / page).unlink()
        ready.edit(MANIFEST, lambda m: m["files"].pop(page))
        refused(ready, "report", ArtifactChanged, 4, f"the report lacks {page}")

    def test_a_report_without_the_decision_notebook_is_refused(self, ready: Promotable) -> None:
        """The run that decided is part of the manifest."""
        ready.edit(MANIFEST, lambda m: m["notebooks"].pop("checklist"))
        refused(ready, "report", ArtifactChanged, 4, "lacks the decision notebook")

    @pytest.mark.parametrize("name", ["recommendation", "reason"])
    def test_a_report_that_says_something_else_is_refused(self, ready: Promotable, name: str) -> None:
        """What the index shows is what the checklist says."""
        ready.edit(MANIFEST, lambda m: m["summary"].update({name: "REJECT"}))
        refused(ready, "report", ArtifactChanged, 4, f"its {name} is 'REJECT'")

    def test_a_report_on_another_version_is_refused(self, ready: Promotable) -> None:
        """Two students may share a folder's name."""
        ready.edit(MANIFEST, lambda m: m.update(model_version="20200101_000000"))
        refused(ready, "report", ArtifactChanged, 4, "version '20200101_000000'")

    def test_no_report_is_a_missing_artifact(self, tmp_path: Path) -> None:
        """Without a manifest there is nothing to sign."""
        project = promotable(tmp_path, reported=False, approved=False)
        refused(project, "report", ArtifactChanged, 4, "manifest.json: missing", "sqkit validate")
        assert project.check("approvals").detail == "needs report"

    def test_a_broken_report_of_another_model_is_no_obstacle(self, ready: Promotable) -> None:
        """Only the report of these artifacts has to be whole."""
        other = ready.report.with_name("20260101_000000-v1")
        other.mkdir()
        (other / MANIFEST).write_text('{"artifacts": []}')
        assert ready.examine().can_promote


class TestParity:
    """The live engine does what the backtest did."""

    @pytest.mark.parametrize(
        ("parity", "kind", "said"),
        [
            ({"status": "fail", "note": "3 decisions differ"}, IntegrityError, "3 decisions differ"),
            (
                {"status": "not_run", "note": ""},
                IntegrityError,
                "was not replayed through the live engine; validate",
            ),
            ({"status": "perhaps"}, ArtifactChanged, "'perhaps' is none of pass, fail, not_run"),
            ({}, ArtifactChanged, "the check parity reads has another form"),
        ],
    )
    def test_a_difference_is_refused(
        self, ready: Promotable, parity: dict[str, Any], kind: type[SqkitError], said: str
    ) -> None:
        """An engine that acts otherwise, one that was not asked, and a word that nobody knows."""
        (ready.student / PARITY_FILE).write_text(json.dumps(parity))
        ready.seal()
        refused(ready, "parity", kind, 4, said)

    def test_a_replay_that_agrees_passes(self, ready: Promotable) -> None:
        """No advisory remains."""
        (ready.student / PARITY_FILE).write_text('{"status": "pass"}')
        ready.seal()
        assert ready.check("parity").status == "pass"


class TestApprovalsAndBoxes:
    """Whom the policy asks, and the boxes that must be ticked."""

    def test_without_approvals_nothing_is_promoted(self, ready: Promotable) -> None:
        """Every open role is named, with the command."""
        (ready.student / APPROVALS_FILE).unlink()
        refused(ready, "approvals", ApprovalsMissing, 1, "ml_lead, quant_lead, risk_manager", "sqkit approve")

    def test_all_that_is_wrong_with_approvals_is_said_at_once(self, ready: Promotable) -> None:
        """Two roles with two faults give one line that names both; the gravest decides."""
        ready.approve({"ml_lead": "trainer", "quant_lead": "Bela", "risk_manager": "Bela"})
        refused(ready, "approvals", SelfApproval, 1, "who made the model", "one person fills one role")

    def test_an_old_approval_is_refused(self, tmp_path: Path) -> None:
        """Approvals age with the policy in force."""
        project = promotable(tmp_path)
        project.drill(NOW + dt.timedelta(days=20))
        late = project.but(now=NOW + dt.timedelta(days=20))
        refused(late, "approvals", ApprovalExpired, 5, "PROMOTION_APPROVAL_MAX_AGE_DAYS")

    def test_a_rejection_that_the_log_names_cannot_be_cut_from_the_book(self, tmp_path: Path) -> None:
        """Without the fact the book is refused as damaged; with it, by what it says."""
        project = promotable(tmp_path)
        approved = (project.student / APPROVALS_FILE).read_bytes()
        words: dict[str, Any] = {"settings": project.settings, "root": project.root, "now": project.now}
        approve(project.typed, "ml_lead", Signer("Asha"), comment="a leak", reject=True, **words)
        refused(project, "approvals", ApprovalsMissing, 1, "rejected by Asha", "a leak")
        (project.student / APPROVALS_FILE).write_bytes(approved)
        refused(project, "approvals", ApprovalVoid, 4, "lacks the rejection by Asha", "restore the file")
        (project.student / APPROVALS_FILE).unlink()
        refused(project, "approvals", ApprovalVoid, 4, "lacks the rejection by Asha")

    def test_fewer_roles_show_as_reduced_control(self, tmp_path: Path) -> None:
        """One role is allowed, and it is said."""
        settings = Settings(_env_file=None, promotion_required_approvals="risk_manager")
        project = promotable(tmp_path, settings=settings)
        found = project.check("approvals")
        assert found.status == "advisory"
        assert "reduced control" in found.detail

    def test_an_open_box_is_named_with_the_command_that_ticks_it(self, tmp_path: Path) -> None:
        """No drill has passed."""
        project = promotable(tmp_path, approved=False)
        project.approve()
        refused(project, "boxes", BoxOpen, 1, "box rollback-tested is open", "sqkit rollback --drill")

    def test_a_box_for_a_person_is_named_with_attest(self, tmp_path: Path) -> None:
        """The evidence could not test the symbols: somebody must look."""
        project = promotable(tmp_path, all_symbols=None)
        refused(
            project,
            "boxes",
            BoxOpen,
            1,
            "box criteria-met is open",
            f"sqkit attest criteria-met --model {project.typed} --note TEXT",
        )


class TestPolicy:
    """The decision's policy is no weaker than the one in force."""

    def test_a_weaker_policy_is_refused_by_the_name_of_the_setting(self, ready: Promotable) -> None:
        """Today's settings ask for more than the decision did."""
        refused(
            ready.but(promotion_min_precision_uplift=0.025),
            "policy",
            PolicyWeaker,
            1,
            "SENSEQUANT_PROMOTION_MIN_PRECISION_UPLIFT=0.02 is looser than 0.025",
            "sqkit validate",
        )

    def test_every_weaker_value_is_named(self, ready: Promotable) -> None:
        """All of them at once."""
        message = refused(
            ready.but(promotion_min_days=90, promotion_min_calls=300), "policy", PolicyWeaker, 1
        )
        assert "PROMOTION_MIN_DAYS=60" in message
        assert "PROMOTION_MIN_CALLS=200" in message

    def test_a_stricter_policy_passes(self, tmp_path: Path) -> None:
        """Whoever asked for more than is in force is let through."""
        assert promotable(tmp_path, policy={"min_precision_uplift": 0.025}).examine().can_promote

    def test_an_accepted_policy_is_in_force_whatever_the_settings_say(self, ready: Promotable) -> None:
        """Settings that are looser than what was accepted do not help."""
        policy = Policy.from_settings(ready.settings, min_days=80)
        ready.record(
            POLICY,
            policy=policy.to_dict(),
            policy_digest=policy_digest(policy),
            reason="longer windows",
            statement=None,
            signature=None,
            signers=None,
        )
        refused(ready, "policy", PolicyWeaker, 1, "PROMOTION_MIN_DAYS=60 is looser than 80")


class TestRuntime:
    """Today's settings trade as the decision's did."""

    @pytest.mark.parametrize(
        ("setting", "value"),
        [
            ("student_model_confidence_threshold", 0.55),
            ("slippage_bps_swing", 1.0),
            ("strategy_entry_strength", 0.6),
            ("cost_schedule", "flat_bps:3"),
            ("swing_allow_short", True),
            ("backtest_capital_per_symbol", 5e5),
        ],
    )
    def test_a_changed_setting_makes_the_decision_stale(
        self, ready: Promotable, setting: str, value: Any
    ) -> None:
        """It is named by its variable, with both values."""
        message = refused(ready.but(**{setting: value}), "runtime", DecisionStale, 5, "sqkit validate")
        assert f"SENSEQUANT_{setting.upper()} is {value}, decided under" in message

    def test_a_setting_of_the_other_strategy_does_not_matter(self, ready: Promotable) -> None:
        """The intraday slippage has no say in a swing model."""
        assert ready.but(slippage_bps_intraday=1.0, square_off_minutes=5).check("runtime").status == "pass"

    def test_a_setting_that_cannot_be_used_is_its_own_refusal(self, ready: Promotable) -> None:
        """An unknown fee schedule."""
        refused(ready.but(cost_schedule="free"), "runtime", SettingsError, 2, "SENSEQUANT_COST_SCHEDULE=free")


class TestAge:
    """Decision and model are of today."""

    def test_an_old_decision_is_refused(self, tmp_path: Path) -> None:
        """Thirty days by default; day 30 still counts."""
        project = promotable(tmp_path, approved=False)
        decided = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
        later = decided + dt.timedelta(days=30)
        project.approve(at=later - dt.timedelta(hours=1))
        project.drill(later - dt.timedelta(hours=1))
        assert project.but(now=later).examine().can_promote
        refused(
            project.but(now=later + dt.timedelta(seconds=1)),
            "age",
            DecisionStale,
            5,
            "2025-01-01 00:00:00 UTC",
            "30 days",
            "SENSEQUANT_PROMOTION_CHECKLIST_MAX_AGE_DAYS",
        )

    def test_the_maximum_age_is_that_of_the_policy_in_force(self, ready: Promotable) -> None:
        """A stricter setting bites at once; the decision's own policy asks for less and is refused for it too."""
        late = ready.but(promotion_checklist_max_age_days=1)
        result = late.examine()
        assert [check.name for check in result.checks if check.status == "fail"] == ["policy", "age"]

    def test_a_decision_from_the_future_is_refused(self, tmp_path: Path) -> None:
        """Five minutes are forgiven, more are a wrong clock."""
        project = promotable(tmp_path / "early", decided_at="2025-01-02T12:04:00Z")
        assert project.check("age").status == "pass"
        late = promotable(tmp_path / "late", decided_at="2025-01-02T12:06:00Z")
        age = late.check("age")
        assert isinstance(age.error, ClockBackwards)
        assert "2025-01-02 12:06:00 UTC" in age.detail
        assert "correct the clock" in age.detail
        refused(late, "approvals", ApprovalVoid, 4, "given before the decision")

    def test_an_old_model_is_refused(self, tmp_path: Path) -> None:
        """A young decision about an old model."""
        project = promotable(tmp_path, version="20240601_000000", decided_at="2025-01-01T00:00:00Z")
        refused(
            project,
            "age",
            DecisionStale,
            5,
            "version 20240601_000000 is 216 days old",
            "STUDENT_MODEL_MAX_AGE_DAYS",
        )
        assert project.but(student_model_max_age_days=217).examine().can_promote

    def test_a_version_from_the_future_does_not_buy_time(self, tmp_path: Path) -> None:
        """A tag may be a time of any zone, not of next year."""
        project = promotable(tmp_path, version="20250103_110000", decided_at="2025-01-01T00:00:00Z")
        assert project.check("age").status == "pass"
        ahead = promotable(tmp_path, version="20260101_000000", decided_at="2025-01-01T00:00:00Z")
        refused(ahead, "age", ClockBackwards, 5, "version 20260101_000000 lies ahead of the clock")


class TestSlot:
    """The model is made for what the slot serves."""

    def test_a_slot_of_a_strategy_takes_only_that(self, ready: Promotable) -> None:
        """A swing model does not go where intraday models are served."""
        paths = {"intraday": "data/models/production_intraday/student_model.onnx"}
        project = ready.but(slot="intraday", student_model_paths=paths)
        project.approve()
        found = project.check("slot")
        assert isinstance(found.error, SlotMismatch)
        assert "slot intraday serves intraday models, this one is made for swing" in found.detail

    def test_the_default_slot_keeps_to_its_strategy(self, tmp_path: Path) -> None:
        """An intraday release is live: a swing model needs a slot of its own, and the variable is named."""
        Slotted(tmp_path, strategy="intraday").promote(1, "2024-12-01")
        refused(
            promotable(tmp_path),
            "slot",
            SlotMismatch,
            1,
            "the default slot serves intraday",
            'SENSEQUANT_STUDENT_MODEL_PATHS=\'{"swing": ',
        )

    def test_a_copied_model_has_a_strategy_too(self, tmp_path: Path) -> None:
        """What lies there without a record says itself what it is for; what says nothing is no obstacle."""
        place = tmp_path / Settings(_env_file=None).student_model_path
        place.parent.mkdir(parents=True)
        place.write_bytes(small_candidate(tmp_path / "elsewhere", strategy="intraday").read_bytes())
        assert isinstance(promotable(tmp_path).check("slot").error, SlotMismatch)
        place.write_bytes(b"not a model")
        assert promotable(tmp_path).check("slot").status == "pass"

    def test_the_default_slot_is_not_where_a_strategy_with_a_slot_looks(self, ready: Promotable) -> None:
        """The engine of that strategy would never see it."""
        project = ready.but(slot="default", student_model_paths={"swing": "data/models/s/student_model.onnx"})
        found = project.check("slot")
        assert isinstance(found.error, SlotMismatch)
        assert "promote it into slot swing" in found.detail

    def test_a_halted_slot_is_said(self, ready: Promotable) -> None:
        """A promotion into a halted slot is allowed, but nothing is served before somebody resumes."""
        ready.record(HALT, level="student_off", reason="feed looks wrong")
        found = ready.check("slot")
        assert found.status == "advisory"
        assert "sqkit resume" in found.detail


class TestQuarantinePinAndClock:
    """Barred bytes, a pin in the way, a clock that went back."""

    def test_what_was_rolled_back_is_barred_until_it_is_released(self, tmp_path: Path) -> None:
        """The refusal gives the command; after it the candidate passes."""
        project = promotable(tmp_path)
        entries = [{"date": "2025-01-02", "reason": "it lost", "digest": "0" * 64}]
        state = project.state or Slotted(tmp_path).state
        barred = project.but(
            state=type(state)("default", drill=state.drill, quarantined={project.model: entries[0]})
        )
        refused(
            barred,
            "quarantine",
            Quarantined,
            1,
            "rolled back on 2025-01-02 (it lost)",
            f"sqkit quarantine release {project.model} --reason TEXT",
        )
        project.record(QUARANTINE_RELEASE, **CONTENTS[QUARANTINE_RELEASE] | {"model": project.model})
        assert project.examine().can_promote

    def test_a_pin_on_another_version_is_refused(self, ready: Promotable) -> None:
        """The engine would refuse the release, so the promotion refuses first."""
        pinned = ready.but(student_model_version="20240101_000000", environ={PIN: "20240101_000000"})
        refused(pinned, "pin", PinBlocks, 5, f"{PIN}=20240101_000000", VERSION)

    def test_a_pin_that_is_rewritten_in_the_same_step_is_none(self, ready: Promotable) -> None:
        """With --env-file the pin moves along."""
        (ready.root / "engine.env").write_text(f"{PIN}=20240101_000000\n")
        pinned = ready.but(student_model_version="20240101_000000", env_file="engine.env")
        assert pinned.check("pin").status == "pass"

    def test_before_anything_was_recorded_any_clock_will_do(self, tmp_path: Path) -> None:
        """The first promotion has no line to be behind."""
        assert promotable(tmp_path, approved=False).check("clock").status == "pass"

    def test_a_clock_behind_the_log_is_refused(self, ready: Promotable) -> None:
        """What is recorded last lies ahead by more than five minutes."""
        ready.drill(NOW + dt.timedelta(minutes=4))
        assert ready.examine().can_promote
        ready.drill(NOW + dt.timedelta(minutes=6))
        refused(
            ready, "clock", ClockBackwards, 5, "2025-01-02 12:00:00 UTC", "2025-01-02 12:06:00 UTC", "correct"
        )


ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    1e308,
    10**400,
    "x",
    "",
    [],
    {},
    [1],
    {"a": 1},
    "2025-13-45",
    "../../etc/passwd",
    "a\x00\nb",
    "\ud800",
]
GONE = object()


def places_in(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place of a JSON value, of a long list the first three."""
    found = [place]
    parts = (
        value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    )
    for key, part in parts:
        found += places_in(part, (*place, key))
    return found


def with_value(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    """A copy with another value, or none, at a place."""
    if not place:
        return new
    copy = json.loads(json.dumps(value))
    part = copy
    for key in place[:-1]:
        part = part[key]
    if new is GONE:
        del part[place[-1]]
    else:
        part[place[-1]] = new
    return copy


@pytest.mark.parametrize(
    "name",
    [CHECKLIST_FILE, RESULTS_FILE, VERIFICATION_FILE, PARITY_FILE, EVIDENCE_FILE, APPROVALS_FILE, MANIFEST],
)
def test_whatever_stands_in_a_file_ends_in_a_refusal_of_one_line(ready: Promotable, name: str) -> None:
    """At every place of every file: another type, a huge number, hostile text, nothing. Never a traceback.

    Nothing of what was decided, verified, reported or approved can be changed and still be promoted.
    """
    path = (ready.report if name == MANIFEST else ready.student) / name
    whole = path.read_bytes()
    value, choice = json.loads(whole), random.Random(0)
    for place in places_in(value):
        new = choice.choice([*ODD, *([GONE] if place else [])])
        changed = with_value(value, place, new)
        if changed == value:
            continue
        path.write_bytes(canonical_json(changed).encode("utf-8", "surrogatepass"))
        result = ready.examine()
        assert json.dumps(result.to_dict(), allow_nan=False)
        assert all(line.isprintable() for line in result.lines())
        if result.can_promote:
            assert place[:1] in UNBOUND[name], f"{name} at {place}: {new!r}"
    path.write_bytes(whole)
    assert ready.examine().can_promote


UNBOUND: dict[str, set[tuple[str, ...]]] = {
    CHECKLIST_FILE: set(),
    RESULTS_FILE: set(),
    PARITY_FILE: set(),
    EVIDENCE_FILE: set(),
    APPROVALS_FILE: set(),
    VERIFICATION_FILE: {("notes",), ("sqkit_version",), ("trials",), ("unchecked",)},
    MANIFEST: set(),
}
"""First keys whose value decides nothing: what verification notes beside its outcome."""
