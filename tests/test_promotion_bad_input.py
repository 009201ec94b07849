"""Bad input to a promotion: each a refusal of its own class and one clear line, and nothing on disk changes.

Everything here comes through `examine`, as the promoter asks it; `Promotable.examine` itself holds the
disk against what was there before.
"""

from __future__ import annotations

import datetime as dt
import os
import pickle
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from sqkit.artifacts import (
    ACCURACY_FILE,
    APPROVALS_FILE,
    CHECKLIST_FILE,
    COMPARISON_FILE,
    EVIDENCE_FILE,
    PARITY_FILE,
    RESULTS_FILE,
    STUDENT_FILE,
    VERIFICATION_FILE,
)
from sqkit.errors import (
    ApprovalExpired,
    ApprovalsMissing,
    ApprovalVoid,
    ArtifactChanged,
    ChecklistEdited,
    ChecklistOfAnother,
    ClockBackwards,
    ExternalWeights,
    FeatureSetMismatch,
    FeatureSetUnknown,
    ModelFileMissing,
    ModelIsSymlink,
    ModelMetadataInvalid,
    ModelOutside,
    ModelPathRefused,
    ModelTooLarge,
    ModelTruncated,
    PickleRefused,
)
from sqkit.report_manifest import MANIFEST
from tests.promotable import VERSION, Promotable, promotable
from tests.releases import Slotted
from tests.test_promotion_checks import refused

pytestmark = pytest.mark.timeout(60)

BESIDE = (
    CHECKLIST_FILE,
    EVIDENCE_FILE,
    RESULTS_FILE,
    ACCURACY_FILE,
    COMPARISON_FILE,
    PARITY_FILE,
    VERIFICATION_FILE,
)
TWO_GIGABYTES = 2 << 30


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Promotable:
    """A candidate that may be promoted, made once."""
    return promotable(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def ready(whole: Promotable, tmp_path: Path) -> Promotable:
    """A copy of a candidate that may be promoted, before its input goes bad."""
    return whole.copied(tmp_path)


class TestTheModelFile:
    """Bytes that are no student."""

    def test_a_truncated_file(self, ready: Promotable) -> None:
        """Half a copy."""
        path = ready.student / STUDENT_FILE
        path.write_bytes(path.read_bytes()[:-100])
        refused(
            ready, "model_loads", ModelTruncated, 2, STUDENT_FILE, "not a whole ONNX file", "copy it again"
        )

    def test_weights_in_another_file(self, ready: Promotable) -> None:
        """No digest would cover them, so they are refused even while they lie there."""
        path = ready.student / STUDENT_FILE
        model = onnx.load_model_from_string(path.read_bytes())
        onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
        assert (ready.student / "weights.bin").exists()
        refused(ready, "model_loads", ExternalWeights, 2, "keeps weights in another file")

    def test_two_gigabytes(self, ready: Promotable) -> None:
        """Refused by its size, before it is read."""
        os.truncate(ready.student / STUDENT_FILE, TWO_GIGABYTES)
        refused(ready, "model_loads", ModelTooLarge, 2, "larger than 512 MB")

    def test_an_empty_file(self, ready: Promotable) -> None:
        """A copy that never began."""
        (ready.student / STUDENT_FILE).write_bytes(b"")
        refused(ready, "model_loads", ModelTruncated, 2, "not a whole ONNX file")

    def test_no_file(self, ready: Promotable) -> None:
        """The path leads nowhere."""
        (ready.student / STUDENT_FILE).unlink()
        refused(ready, "model_path", ModelFileMissing, 2, "no such model file", "sqkit train-student")

    def test_onnx_of_somebody_else(self, ready: Promotable) -> None:
        """A whole ONNX file without our metadata."""
        path = ready.student / STUDENT_FILE
        model = onnx.load_model_from_string(path.read_bytes())
        del model.metadata_props[:]
        path.write_bytes(model.SerializeToString())
        refused(ready, "model_loads", ModelMetadataInvalid, 2, "ONNX without sqkit's metadata")

    def test_a_feature_set_that_is_not_here(self, tmp_path: Path) -> None:
        """Made with somebody's own features, which this installation does not know."""
        project = promotable(tmp_path, feature_set="their_own", approved=False)
        refused(project, "model_loads", FeatureSetUnknown, 2, "their_own")

    def test_a_feature_set_of_another_definition(self, tmp_path: Path) -> None:
        """The same name, other features: the model would be fed something else."""
        project = promotable(tmp_path, feature_set_digest="0" * 64, approved=False)
        refused(project, "model_loads", FeatureSetMismatch, 2, "another definition of swing_v1")

    @pytest.mark.parametrize("content", ["text", "zeros", "json"])
    def test_something_else_under_the_name(self, ready: Promotable, content: str) -> None:
        """Whatever it is, it does not load."""
        data = {"text": b"hello\n", "zeros": bytes(4096), "json": b"{}"}[content]
        (ready.student / STUDENT_FILE).write_bytes(data)
        refused(ready, "model_loads", ModelTruncated, 2, STUDENT_FILE)


class Hostile:
    """Leaves a marker when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


class TestHostilePickles:
    """A pickle under whatever name runs nothing."""

    @pytest.mark.parametrize("protocol", range(6))
    def test_named_onnx(self, ready: Promotable, protocol: int) -> None:
        """Every protocol is known for what it is, and is not opened."""
        marker = ready.root / "ran"
        data = pickle.dumps(Hostile(marker), protocol)
        (ready.student / STUDENT_FILE).write_bytes(data)
        refused(ready, "model_loads", PickleRefused, 2, "is a pickle and is never loaded", "writes ONNX")
        assert not marker.exists()
        pickle.loads(data)
        assert marker.exists(), "the pickle of this test is harmless"

    def test_named_pkl(self, ready: Promotable) -> None:
        """The name of the old days is refused with the way out."""
        marker = ready.root / "ran"
        (ready.student / "student_model.pkl").write_bytes(pickle.dumps(Hostile(marker)))
        old = ready.but(typed=ready.typed.replace(".onnx", ".pkl"))
        refused(old, "model_path", PickleRefused, 2, "a pickle is never loaded", "sqkit train-student")
        assert not marker.exists()

    @pytest.mark.parametrize("name", BESIDE)
    def test_named_like_an_artifact(self, ready: Promotable, name: str) -> None:
        """The files beside the model are JSON and nothing else."""
        marker = ready.root / "ran"
        (ready.student / name).write_bytes(pickle.dumps(Hostile(marker)))
        refused(ready, "artifacts", ArtifactChanged, 4, name, "not strict JSON")
        assert not marker.exists()


class TestThePath:
    """Where a candidate may lie."""

    def test_a_link_to_a_model(self, ready: Promotable) -> None:
        """What it points to could change between looking and copying."""
        path = ready.student / STUDENT_FILE
        path.rename(ready.root / "elsewhere.onnx")
        path.symlink_to(ready.root / "elsewhere.onnx")
        refused(ready, "model_path", ModelIsSymlink, 2, "is a symlink")

    def test_a_link_to_a_folder(self, ready: Promotable) -> None:
        """The student's folder is the folder itself."""
        linked = ready.student.with_name("linked")
        linked.symlink_to(ready.student)
        project = ready.but(typed=ready.typed.replace("/student/", "/linked/"))
        refused(project, "model_path", ModelIsSymlink, 2, "is a symlink")

    def test_a_link_further_up(self, ready: Promotable, tmp_path_factory: pytest.TempPathFactory) -> None:
        """A version folder that leads out of the models folder."""
        away = tmp_path_factory.mktemp("away") / VERSION
        shutil.move(ready.student.parent, away)
        ready.student.parent.symlink_to(away)
        refused(ready, "model_path", ModelIsSymlink, 2, "is a symlink, or lies behind one")

    def test_a_link_above_the_project(
        self, ready: Promotable, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        """A home that is a link to another disk: how one gets to the project is no matter, what lies in it is."""
        home = tmp_path_factory.mktemp("home") / "ours"
        home.symlink_to(ready.root, target_is_directory=True)
        away = ready.but(typed=f"{home}/{ready.typed}")
        assert away.examine().can_promote, away.examine().reasons
        linked = ready.student.with_name("linked")
        linked.symlink_to(ready.student)
        inside = ready.but(typed=f"{home}/{ready.typed}".replace("/student/", "/linked/"))
        refused(inside, "model_path", ModelIsSymlink, 2, "is a symlink")

    def test_a_models_folder_on_another_disk(
        self, ready: Promotable, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        """The models folder itself may be a link; a version in it may not."""
        away = tmp_path_factory.mktemp("disk") / "models"
        models = ready.student.parents[1]
        shutil.move(models, away)
        models.symlink_to(away)
        assert ready.check("model_path").status == "pass"
        (away / VERSION).rename(away / "moved")
        (away / VERSION).symlink_to("moved")
        refused(ready, "model_path", ModelIsSymlink, 2, "lies behind one")

    def test_a_link_inside_the_project_that_leads_out(
        self, ready: Promotable, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        """Not below the models folder at all, and a link: it is called a link."""
        away = tmp_path_factory.mktemp("away") / "student"
        shutil.copytree(ready.student, away)
        (ready.root / "mine").symlink_to(away)
        refused(ready.but(typed=f"mine/{STUDENT_FILE}"), "model_path", ModelIsSymlink, 2, "is a symlink")

    def test_outside_the_models_folder(self, ready: Promotable) -> None:
        """A whole candidate in another place."""
        shutil.copytree(ready.student, ready.root / "student")
        refused(ready.but(typed=f"student/{STUDENT_FILE}"), "model_path", ModelOutside, 2, "data/models")

    @pytest.mark.parametrize(
        "typed",
        [
            f"data/models/{VERSION}/../../../student/{STUDENT_FILE}",
            f"data/models/../student/{STUDENT_FILE}",
            f"data/models/{VERSION}/../{VERSION}/student/{STUDENT_FILE}",
        ],
    )
    def test_back_by_dots(self, ready: Promotable, typed: str) -> None:
        """Neither out of the models folder nor around inside it: a path says plainly where it leads."""
        shutil.copytree(ready.student, ready.root / "student")
        refused(ready.but(typed=typed), "model_path", ModelPathRefused, 2, typed)

    @pytest.mark.parametrize("version", ["..", "../..", "20250101_00000", "20250101_000000/x", ""])
    def test_a_version_that_is_none(self, tmp_path: Path, version: str) -> None:
        """A version names folders and releases: nothing but a date and time can be one."""
        project = promotable(tmp_path, model_version=version, approved=False)
        refused(project, "model_loads", ModelMetadataInvalid, 2, "model_version")

    def test_an_archived_release(self, tmp_path: Path) -> None:
        """What was released once comes back by a rollback, not by a promotion."""
        entry = Slotted(tmp_path).promote(1, "2024-12-01")
        project = promotable(tmp_path).but(typed=f"data/models/archive/{entry['release']}/{STUDENT_FILE}")
        refused(project, "model_path", ModelPathRefused, 2, "lies in the archive", "sqkit rollback --to")

    def test_the_production_place(self, tmp_path: Path) -> None:
        """What is live is not promoted from where it is live."""
        Slotted(tmp_path).promote(1, "2024-12-01")
        project = promotable(tmp_path)
        here = project.but(typed=project.production.relative_to(tmp_path).as_posix())
        refused(here, "model_path", ModelPathRefused, 2, "is a production place")

    def test_another_file_of_the_folder(self, ready: Promotable) -> None:
        """A release has one model, under one name."""
        (ready.student / "other.onnx").write_bytes((ready.student / STUDENT_FILE).read_bytes())
        other = ready.but(typed=ready.typed.replace(STUDENT_FILE, "other.onnx"))
        refused(other, "model_path", ModelFileMissing, 2, f"is called {STUDENT_FILE}")

    @pytest.mark.parametrize(
        "typed", ["data/models/a\0b.onnx", f"data/models/{'x' * 300}/student_model.onnx"]
    )
    def test_a_path_that_no_file_system_takes(self, ready: Promotable, typed: str) -> None:
        """Refused as a path, in one line."""
        result = ready.but(typed=typed).examine()
        first = result.checks[0]
        assert first.status == "fail"
        assert isinstance(first.error, ModelPathRefused | ModelFileMissing)
        assert first.detail.isprintable()

    @pytest.mark.parametrize("typed", ["", ".", "data/models", "data/models/none/student/student_model.onnx"])
    def test_no_model_at_all(self, ready: Promotable, typed: str) -> None:
        """A folder, or nothing: the path is refused and nothing else is asked."""
        result = ready.but(typed=typed).examine()
        assert isinstance(result.checks[0].error, ModelPathRefused | ModelFileMissing)
        assert [check.name for check in result.checks if check.status == "fail"] == ["model_path"]

    def test_a_name_of_several_lines(self, ready: Promotable) -> None:
        """What is typed stands in the line, which stays one."""
        result = ready.but(typed="data/models/a\nb/student_model.onnx").examine()
        assert all(line.isprintable() for line in [*result.lines(), *result.reasons])


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda data: b"", "not strict JSON"),
    "cut": (lambda data: data[: len(data) // 2], "not strict JSON"),
    "NaN": (lambda data: b'{"status": NaN}', "NaN is not a JSON number"),
    "infinity": (lambda data: b'{"status": -Infinity}', "-Infinity is not a JSON number"),
    "deep": (lambda data: b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "not strict JSON"),
    "deep list": (lambda data: b"[" * 100_000, "not strict JSON"),
    "twins": (lambda data: b'{"status": "verified", "status": "differs"}', "status is given twice"),
    "a huge number": (lambda data: b'{"status": ' + b"9" * 10_000 + b"}", "not strict JSON"),
    "no text": (lambda data: b"\xff\xfe\x00", "not strict JSON"),
    "a list": (lambda data: b"[]", "is no JSON object"),
    "a word": (lambda data: b'"verified"', "is no JSON object"),
    "null": (lambda data: b"null", "is no JSON object"),
}


@pytest.mark.parametrize("name", BESIDE)
class TestAFileBesideTheModel:
    """Each file of the decision, damaged in each way."""

    @pytest.mark.parametrize("damage", sorted(DAMAGE))
    def test_damaged(self, ready: Promotable, name: str, damage: str) -> None:
        """Named, with what is wrong with it, and no traceback however deep or large it is."""
        change, said = DAMAGE[damage]
        path = ready.student / name
        path.write_bytes(change(path.read_bytes()))
        refused(ready, "artifacts", ArtifactChanged, 4, f"student/{name}", said)

    def test_missing(self, ready: Promotable, name: str) -> None:
        """A missing artifact is a refusal that says how to make it again."""
        (ready.student / name).unlink()
        command = "sqkit verify" if name == VERIFICATION_FILE else "sqkit validate"
        refused(ready, "artifacts", ArtifactChanged, 4, f"student/{name}: missing", command)

    @pytest.mark.parametrize("thing", ["pipe", "folder", "socket", "link", "broken link", "device"])
    def test_no_plain_file(self, ready: Promotable, name: str, thing: str) -> None:
        """A pipe would block for ever, a link could lead anywhere: neither is opened."""
        path = ready.student / name
        path.rename(ready.root / "kept.json")
        put_there(path, thing, ready.root / "kept.json")
        refused(ready, "artifacts", ArtifactChanged, 4, name, "no plain file")

    def test_two_gigabytes(self, ready: Promotable, name: str) -> None:
        """Refused by its size, before it is read."""
        os.truncate(ready.student / name, TWO_GIGABYTES)
        refused(ready, "artifacts", ArtifactChanged, 4, name, "larger than 256 MB")


def put_there(path: Path, thing: str, target: Path) -> None:
    """Something that is no plain file."""
    if thing == "pipe":
        os.mkfifo(path)
    elif thing == "folder":
        path.mkdir()
    elif thing == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            there = Path.cwd()
            os.chdir(path.parent)  # a socket's path is short
            try:
                made.bind(path.name)
            finally:
                os.chdir(there)
    elif thing == "device":
        path.symlink_to("/dev/zero")
    else:
        path.symlink_to(target if thing == "link" else "nowhere.json")


class TestOtherPlacesOfAPipe:
    """Wherever a pipe or folder stands for a file, nothing waits for it."""

    def test_as_the_model(self, ready: Promotable) -> None:
        """The model is no pipe."""
        (ready.student / STUDENT_FILE).unlink()
        os.mkfifo(ready.student / STUDENT_FILE)
        refused(ready, "model_path", ModelFileMissing, 2, STUDENT_FILE)

    def test_as_the_approvals(self, ready: Promotable) -> None:
        """Approvals are read like every other file."""
        (ready.student / APPROVALS_FILE).unlink()
        os.mkfifo(ready.student / APPROVALS_FILE)
        refused(ready, "artifacts", ArtifactChanged, 4, APPROVALS_FILE, "no plain file")

    @pytest.mark.parametrize("name", [MANIFEST, "checklist.html"])
    def test_in_the_report(self, ready: Promotable, name: str) -> None:
        """The report's files are plain ones too."""
        (ready.report / name).unlink()
        os.mkfifo(ready.report / name)
        refused(ready, "report", ArtifactChanged, 4, f"{name}: missing")

    def test_among_what_was_verified(self, ready: Promotable) -> None:
        """A verification that names a pipe."""
        os.mkfifo(ready.student / "validation_telemetry")
        ready.edit(VERIFICATION_FILE, lambda v: v["read"].update({"validation_telemetry": "0" * 64}))
        refused(ready, "verification", ArtifactChanged, 4, "validation_telemetry: is not the file")

    def test_as_the_production_model(self, ready: Promotable) -> None:
        """A pipe in production is no incumbent."""
        ready.production.parent.mkdir(parents=True)
        os.mkfifo(ready.production)
        assert ready.check("incumbent").status == "pass"


class TestDecisionAndApprovals:
    """Files that are whole and belong to something else, or came too late."""

    def test_a_checklist_for_another_model(self, ready: Promotable) -> None:
        """Somebody else's decision, put beside this model."""
        other = promotable(ready.root / "other", bias=0.5)
        for name in BESIDE:
            (ready.student / name).write_bytes((other.student / name).read_bytes())
        refused(
            ready,
            "checklist",
            ChecklistOfAnother,
            4,
            "judges another model",
            other.model[:12],
            ready.model[:12],
        )

    def test_a_whole_candidate_in_another_folder(self, ready: Promotable) -> None:
        """A report names the folder it is about."""
        shutil.copytree(ready.student, ready.student.with_name("copy"))
        copy = ready.but(typed=ready.typed.replace("/student/", "/copy/"))
        refused(copy, "report", ArtifactChanged, 4, "no report in the reports folder names these artifacts")

    def test_a_checklist_edited_after_approval(self, ready: Promotable) -> None:
        """A number changed by hand no longer follows, or is not what was verified."""
        ready.edit(CHECKLIST_FILE, lambda c: c["candidate_metrics"].update(precision_long=0.72))
        refused(ready, "recommendation", ChecklistEdited, 4, "its inputs give")

    def test_a_remark_edited_after_approval(self, ready: Promotable) -> None:
        """A part that decides nothing is bound as well."""
        ready.edit(CHECKLIST_FILE, lambda c: c["evidence"].update(summary="made by foot"))
        refused(
            ready, "verification", ChecklistEdited, 4, f"{CHECKLIST_FILE}: is not the file that was verified"
        )

    def test_a_checklist_edited_after_approval_and_sealed_again(self, ready: Promotable) -> None:
        """Verified and reported anew, but the people approved something else: their approvals are void."""
        approvals = (ready.student / APPROVALS_FILE).read_bytes()
        ready.reseal_checklist(lambda c: c["evidence"].update(summary="made by foot"))
        assert ready.examine().can_promote
        (ready.student / APPROVALS_FILE).write_bytes(approvals)
        refused(ready, "approvals", ApprovalVoid, 4, "was given before something changed", "approve again")

    def test_approvals_of_another_candidate(self, ready: Promotable) -> None:
        """A book copied from elsewhere counts for nothing."""
        other = promotable(ready.root / "other", bias=0.5)
        (ready.student / APPROVALS_FILE).write_bytes((other.student / APPROVALS_FILE).read_bytes())
        refused(ready, "approvals", ApprovalVoid, 4, "model")

    def test_an_edited_approval(self, ready: Promotable) -> None:
        """A fact's id follows from what it says."""
        ready.edit(APPROVALS_FILE, lambda a: a["facts"][1].update(name="Zoe"))
        refused(ready, "approvals", ArtifactChanged, 4, APPROVALS_FILE, "was edited")

    def test_an_expired_approval(self, ready: Promotable) -> None:
        """It counted up to a day, and that day is over."""
        ready.approve(expires="2025-01-01")
        refused(ready, "approvals", ApprovalExpired, 5, "2025-01-01", "approve again")
        ready.approve(expires="2025-01-02")
        assert ready.examine().can_promote

    def test_an_unknown_role(self, ready: Promotable) -> None:
        """A role that the policy does not ask for fills none that it does ask for."""
        ready.approve({"ml_lead": "Asha", "quant_lead": "Bela", "office_cat": "Chen"})
        refused(ready, "approvals", ApprovalsMissing, 1, "nobody has approved as risk_manager")

    @pytest.mark.parametrize("role", [7, None, ["ml_lead"], "", "ml_lead\n"])
    def test_a_role_that_is_none(self, ready: Promotable, role: Any) -> None:
        """A fact that sqkit never wrote voids the whole book."""
        ready.edit(APPROVALS_FILE, lambda a: a["facts"][1].update(role=role))
        refused(ready, "approvals", ArtifactChanged, 4, APPROVALS_FILE)

    @pytest.mark.parametrize("damage", sorted(DAMAGE))
    def test_damaged_approvals(self, ready: Promotable, damage: str) -> None:
        """The book of approvals is read as strictly as the rest."""
        change, _ = DAMAGE[damage]
        path = ready.student / APPROVALS_FILE
        path.write_bytes(change(path.read_bytes()))
        refused(ready, "approvals", ArtifactChanged, 4, APPROVALS_FILE)

    def test_a_clock_that_went_backwards(self, ready: Promotable) -> None:
        """Before the approvals, before the decision, before the last line of the log: each says so."""
        back = ready.but(now=dt.datetime(2024, 12, 31, tzinfo=dt.UTC))
        failed = {check.name: check.error for check in back.examine().checks if check.status == "fail"}
        assert set(failed) == {"approvals", "age", "clock"}
        assert all(isinstance(error, ClockBackwards) for error in failed.values())
        refused(back, "approvals", ClockBackwards, 5, "2024-12-31")

    def test_a_present_far_away(self, ready: Promotable) -> None:
        """A clock at the end of days is too late for everything, and breaks nothing."""
        late = ready.but(now=dt.datetime(9999, 12, 31, 23, 59, tzinfo=dt.UTC))
        failed = [check.name for check in late.examine().checks if check.status == "fail"]
        assert failed == ["approvals", "boxes", "age"]


class TestTheReport:
    """Reports that cannot be read."""

    @pytest.mark.parametrize("damage", sorted(DAMAGE))
    def test_a_damaged_manifest(self, ready: Promotable, damage: str) -> None:
        """Whatever is wrong with it, it is no manifest that names these artifacts."""
        change, _ = DAMAGE[damage]
        path = ready.report / MANIFEST
        path.write_bytes(change(path.read_bytes()))
        result = ready.examine()
        assert all(line.isprintable() for line in result.lines())
        with pytest.raises(ArtifactChanged):
            result.raise_refusal()

    def test_a_manifest_that_names_files_elsewhere(self, ready: Promotable) -> None:
        """Its names stay inside the report."""
        ready.edit(MANIFEST, lambda m: m["files"].update({"../../../../../etc/hostname": "0" * 64}))
        refused(ready, "report", ArtifactChanged, 4)

    def test_no_reports_folder(self, ready: Promotable) -> None:
        """Somebody tidied up."""
        shutil.rmtree(ready.report.parent)
        refused(ready, "report", ArtifactChanged, 4, "manifest.json: missing", "sqkit validate")
