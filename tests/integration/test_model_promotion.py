"""The promotion workflow of the user's text, end to end on the real chain: real commands, real notebooks."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sqkit.artifacts import ARCHIVE_FOLDER, CHECKLIST_FILE, CHECKLIST_PAGE, EVIDENCE_FILE, RELEASE_FILE
from sqkit.audit_log import read_audit
from sqkit.checklist import differences, rederive
from sqkit.errors import ArtifactChanged
from sqkit.people import Actor
from sqkit.production.promoter import StudentModelPromoter
from sqkit.settings import GRADES, Settings
from sqkit.student import StudentModel
from tests.factory import APPROVERS, FIRST, SECOND, clock_of, make_candidate
from tests.project import MODEL, STUDENT, TEACHER, Project, clean_environment, planted_project

pytestmark = pytest.mark.slow


def test_promotion_checklist_generation(tmp_path: Path) -> None:
    """Train a student, run the validation backtest, get the checklist in both forms with judged criteria.

    The command is the given one, spaces between symbols included.
    """
    project = planted_project(tmp_path)
    run = project.sqkit(
        *("train-student", "--teacher-dir", TEACHER, "--output-dir", STUDENT, "--model-type", "logistic"),
        *("--validate", "--validation-symbols", "PLANT01", "PLANT02", "PLANT03", "PLANT04"),
        *("--validation-start", "2014-01-02", "--validation-end", "2014-09-30", "--strategy", "swing"),
        *("--generate-checklist", "--precision-uplift-threshold", "0.02"),
        *("--hit-ratio-uplift-threshold", "0.02", "--sharpe-uplift-threshold", "0.05"),
    )

    student = tmp_path / STUDENT
    checklist = json.loads((student / "promotion_checklist.json").read_text())
    page = (student / "promotion_checklist.md").read_text()
    recommendation, exit_code, _ = rederive(checklist)

    assert run.returncode == exit_code, run.stderr
    assert run.stdout.splitlines()[0] == recommendation == checklist["recommendation"]
    assert differences(checklist) == []
    assert checklist["candidate_model"] == MODEL
    assert checklist["validation_period"] == {
        "start": "2014-01-02",
        "end": "2014-09-30",
        "symbols": ["PLANT01", "PLANT02", "PLANT03", "PLANT04"],
    }
    assert checklist["validation_thresholds"] == {
        "min_precision_uplift": 0.02,
        "min_hit_ratio_uplift": 0.02,
        "min_sharpe_uplift": 0.05,
        "require_all_criteria": True,
    }
    assert set(checklist["validation_results"]) == {
        "precision_pass",
        "hit_ratio_pass",
        "sharpe_pass",
        "all_criteria_pass",
    }
    evidence = json.loads((student / "evidence.json").read_text())
    assert evidence["records"] == checklist["evidence"]["records"]
    assert evidence["grade"] in GRADES
    assert evidence["summary"] in page
    assert project.sqkit("verify", STUDENT).returncode == 0
    for heading in ("## Performance Summary", "## Validation Criteria", "## Approval Sign-offs"):
        assert heading in page
    assert checklist["candidate_metrics"] != checklist["baseline_metrics"], "the backtest must use the model"


LIVE = Path("data/models/production/student_model.onnx")


def promoter_at(root: Path, now: dt.datetime) -> StudentModelPromoter:
    """The promoter of a project under default settings, at a time."""
    return StudentModelPromoter(
        Settings(_env_file=None), root=root, clock=lambda: now, actor=Actor("Dana", "dana", "desk4")
    )


def everything(root: Path) -> dict[str, tuple[int, bytes]]:
    """Every folder and file below a root, locks included, with its bytes and the time of its last change."""
    return {
        path.relative_to(root).as_posix(): (
            path.lstat().st_mtime_ns,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in root.rglob("*")
    }


def test_promotion_workflow_validation(tmp_path: Path) -> None:
    """Load the candidate, validate its promotion, see each safety check and the recommendation confirmed.

    The dry run then shows every step and writes nothing, the promotion takes exactly those steps, and the
    rollback ends where it began.
    """
    model = make_candidate(tmp_path, FIRST)
    typed = model.relative_to(tmp_path).as_posix()
    candidate, promoter = StudentModel.load(model), promoter_at(tmp_path, clock_of(FIRST))
    before = everything(tmp_path)

    result = promoter.validate_promotion(typed)

    said = {check.name: check.detail for check in result.checks}
    assert result.can_promote, result.reasons
    assert {check.status for check in result.checks} <= {"pass", "advisory"}
    assert candidate.metadata["teacher_digest"][:12] in said["metadata_complete"]
    assert candidate.metadata["training_window"]["end"] in said["metadata_complete"]
    assert said["artifacts"]
    assert "PROMOTE" in said["recommendation"]
    assert all(f"{role} {name}" in said["approvals"] for role, name in APPROVERS.items())

    project = Project(tmp_path)
    day = {"SOURCE_DATE_EPOCH": str(int(clock_of(FIRST).timestamp()))}
    shown = project.sqkit("promote", "--model", typed, "--dry-run", environment=day)
    plan = promoter.plan_promotion(typed)

    assert shown.returncode == 0, shown.stderr
    assert plan.steps
    assert all(step in shown.stdout for step in plan.steps)
    assert shown.stdout.splitlines()[-1].endswith("nothing was written")
    assert everything(tmp_path) == before, "neither validation nor dry run writes"

    done = promoter.promote_model(typed)
    live = json.loads((tmp_path / LIVE.with_name(RELEASE_FILE)).read_text())

    assert done.steps == plan.steps
    assert (tmp_path / LIVE).read_bytes() == model.read_bytes()
    assert live["model_version"] == FIRST

    promoted = everything(tmp_path)
    planned = project.sqkit("rollback", "--dry-run", environment=day)
    assert planned.returncode == 0, planned.stderr
    assert "no student" in planned.stdout
    assert everything(tmp_path) == promoted
    promoter.rollback(reason="the workflow is tested")
    assert not (tmp_path / LIVE).exists()
    assert json.loads((tmp_path / LIVE.with_name(RELEASE_FILE)).read_text())["state"] == "none"
    assert (tmp_path / "data/models" / ARCHIVE_FOLDER / live["release"] / LIVE.name).is_file()


def test_promotion_workflow_refuses_what_is_not_whole(tmp_path: Path) -> None:
    """A candidate that lost a file, was edited after its approval or was never approved is not promoted."""
    model = make_candidate(tmp_path, FIRST)
    promoter, folder = promoter_at(tmp_path, clock_of(FIRST)), model.parent
    evidence, checklist, approvals = (
        folder / name for name in (EVIDENCE_FILE, CHECKLIST_FILE, "approvals.json")
    )

    def reasons_without(path: Path, text: str | None) -> str:
        kept = path.read_bytes()
        path.unlink()
        if text is not None:
            path.write_text(text)
        result = promoter.validate_promotion(model)
        path.write_bytes(kept)
        assert not result.can_promote
        return result.reasons[0]

    assert EVIDENCE_FILE in reasons_without(evidence, None)
    weakened = json.loads(checklist.read_text())
    weakened["candidate_metrics"]["hit_ratio"] -= 0.2
    assert CHECKLIST_FILE in reasons_without(checklist, json.dumps(weakened))
    assert "sqkit approve" in reasons_without(approvals, None)
    assert promoter.validate_promotion(model).can_promote
    evidence.unlink()
    with pytest.raises(ArtifactChanged, match=EVIDENCE_FILE):
        promoter.promote_model(model)
    assert not (tmp_path / LIVE).exists()


def test_the_printed_commands_are_the_real_ones(tmp_path: Path) -> None:
    """What promotion_checklist.md prints, line by line through bash: B replaces A, and A comes back."""
    first = make_candidate(tmp_path, FIRST)
    promoter_at(tmp_path, clock_of(FIRST)).promote_model(first)
    second = make_candidate(tmp_path, SECOND, seed=1, approved=False)
    page = (second.parent / CHECKLIST_PAGE).read_text()
    promotion, rollback = (
        [line for line in block.splitlines() if line and not line.startswith("#")]
        for block in re.findall(r"^```bash\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    )
    approvers = iter(APPROVERS.values())

    def run(line: str) -> str:
        name = next(approvers) if line.startswith("sqkit approve ") else "Dana"
        return run_line(tmp_path, line, name, clock_of(SECOND))

    said = {line: run(line) for line in promotion}
    assert (tmp_path / LIVE).read_bytes() == second.read_bytes()
    assert SECOND in said["sqkit status"]

    back = [run(line) for line in rollback]
    assert (tmp_path / LIVE).read_bytes() == first.read_bytes()
    assert FIRST in back[-1]
    assert [entry["kind"] for entry in read_audit(tmp_path / "data/models")][-3:] == [
        "halt",
        "rollback",
        "resume",
    ]


def run_line(root: Path, line: str, name: str, now: dt.datetime) -> str:
    """Run a line in bash, in a project, under an account's name, with `sqkit` on the PATH; what it printed."""
    commands = root.with_name(f"{root.name}-bin")
    commands.mkdir(exist_ok=True)
    command = commands / "sqkit"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m sqkit.cli "$@"\n')
    command.chmod(0o755)
    bash = shutil.which("bash")
    assert bash is not None
    done = subprocess.run(
        [bash, "-c", line],
        cwd=root,
        env=clean_environment()
        | {
            "LOGNAME": name,
            "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
            "SOURCE_DATE_EPOCH": str(int(now.timestamp())),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout
