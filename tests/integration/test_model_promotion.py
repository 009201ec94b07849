"""The promotion workflow of the user's text, end to end on the real chain: real commands, real notebooks."""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sqkit.artifacts import (
    ARCHIVE_FOLDER,
    CHECKLIST_FILE,
    CHECKLIST_PAGE,
    EVIDENCE_FILE,
    RELEASE_FILE,
    TELEMETRY_FOLDER,
)
from sqkit.audit_log import read_audit
from sqkit.checklist import differences, rederive
from sqkit.errors import ArtifactChanged
from sqkit.files import sha256_file
from sqkit.people import AUTOMATIC, Actor
from sqkit.production.promoter import StudentModelPromoter
from sqkit.records import session_day
from sqkit.research.planted import planted_market, write_market
from sqkit.research.telemetry import read_predictions
from sqkit.settings import GRADES, Settings
from sqkit.student import StudentModel
from tests import watched
from tests.engines import read_lines
from tests.factory import APPROVERS, EDGE, FIRST, MARKET_SEED, SECOND, SYMBOLS, clock_of, make_candidate
from tests.live import LiveProject
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


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which a real candidate is live; its engine state and telemetry are each test's own."""
    root = tmp_path_factory.mktemp("promoted")
    model = make_candidate(root, FIRST)
    promoter_at(root, clock_of(FIRST)).promote_model(model)
    return root


@pytest.fixture
def live(promoted: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(promoted, tmp_path, dirs_exist_ok=True)
    return tmp_path


def enabled(**changes: object) -> Settings:
    """Default settings with scoring enabled."""
    return Settings(_env_file=None, student_model_enabled=True, **changes)


def test_engine_student_model_loading(live: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The engine loads the promoted model at its start: the promoted bytes, the version in the log."""
    caplog.set_level(logging.INFO)
    engine = LiveProject(live, enabled()).engine
    record = next(one for one in caplog.records if one.getMessage().startswith("Student model loaded"))

    assert engine.config.dry_run
    assert engine.student_model is not None
    assert engine.student_model.digest == sha256_file(live / LIVE)
    assert engine.student_model_version == FIRST
    assert record.getMessage() == f"Student model loaded: version={FIRST}"
    assert (record.levelname, record.component, record.model_version) == ("INFO", "engine", FIRST)


def test_engine_student_prediction_telemetry(live: Path) -> None:
    """A bar is scored; version, prediction, confidence and source stand in its record."""
    project = LiveProject(live, enabled())
    project.warm_up()
    signals = [one for one in project.feed(130, 180) if one]
    records = project.predictions()
    spoken = [one for one in records if one["reason"] == "scored"]

    assert len(records) == len(signals) == 50 * len(project.bars)
    assert spoken
    assert {one["student_model_version"] for one in records} == {FIRST}
    assert {one["prediction_source"] for one in records} == {"student_model", "baseline_strategy"}
    for record, signal in zip(records, signals, strict=True):
        assert record["id"] == signal.prediction_id
        assert record["student_prediction"] == signal.student_prediction
        assert record["strength"] == signal.strength
    assert all(one["student_confidence"] >= 0.6 for one in spoken)
    assert all(one["student_prediction"] in ("LONG", "SHORT") for one in spoken)


def test_promotion_fallback_behavior(live: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With an invalid path the engine starts, warns, and its signals are the baseline's."""
    wrong = LiveProject(live, enabled(student_model_path="data/models/nowhere/student_model.onnx"))
    shutil.rmtree(live / "data/engine")
    off = LiveProject(live, Settings(_env_file=None))
    path = live / "data/models/nowhere/student_model.onnx"
    warning = f"Student model not found: {path}, falling back to baseline"

    assert [one.levelname for one in caplog.records if one.getMessage() == warning] == ["WARNING"]
    assert wrong.engine.student_model is None
    acts = [
        [one and (one.direction, one.strength, one.target, one.orders) for one in project.feed(0, 300)]
        for project in (wrong, off)
    ]
    assert acts[0] == acts[1]
    assert any(one and one[3] for one in acts[0])
    reasons = {one["reason"] for one in project_records(live)}
    assert reasons == {"no_student", "disabled", "warm_up"}


def project_records(root: Path) -> list[dict[str, object]]:
    return [
        one
        for one in read_lines(sorted((root / "data/telemetry").glob("2*/*.jsonl")))
        if one["event"] == "prediction"
    ]


def test_end_to_end_promotion_workflow(tmp_path: Path) -> None:
    """Train, validate, judge, approve, promote with the environment brought in line, start the engine: it is active.

    What the engine then decides over the validation window is what the validation recorded, to the bit.
    """
    model = make_candidate(tmp_path, FIRST)
    typed = model.relative_to(tmp_path).as_posix()
    words = ("promote", "--model", typed, "--enable", "--env-file", ".env")
    day = {"SOURCE_DATE_EPOCH": str(int(clock_of(FIRST).timestamp()))}
    run = Project(tmp_path).sqkit(*words, environment=day)
    assert run.returncode == 0, run.stderr
    settings = Settings(_env_file=tmp_path / ".env")
    assert settings.student_model_enabled
    assert settings.student_model_version == FIRST

    project = LiveProject(tmp_path, settings)
    assert project.engine.student_model_version == FIRST
    checklist = json.loads((model.parent / CHECKLIST_FILE).read_text())
    first = session_day(dt.date.fromisoformat(checklist["validation_period"]["start"]))
    start = min(series.window(first, first + 9999)[0] for series in project.bars.values())
    project.warm_up(start)
    project.feed(start, 9999)
    project.engine.close()
    lived, validated = (
        read_predictions(tmp_path / "data/telemetry").symbols,
        read_predictions(model.parent / TELEMETRY_FOLDER).symbols,
    )

    assert set(lived) == set(validated) == set(project.bars)
    for symbol, was in validated.items():
        for name, column in was.items():
            if name != "outcome":
                assert np.array_equal(lived[symbol][name], column, equal_nan=column.dtype.kind == "f"), name
    assert {one["student_model_version"] for one in project.predictions()} == {FIRST}
    said = Project(tmp_path).json("status")["slots"][0]
    assert said["served"] == []


def test_degradation_is_detected(live: Path) -> None:
    """The market turns against the promoted model: rolling metrics fall below its validation, then the evidence alerts.

    The baseline is what its own validation wrote into the checklist that the release carries.
    """
    write_market(
        planted_market(MARKET_SEED + 1, SYMBOLS, 330, "1d", EDGE, break_at=250), live / "data/bars/turned"
    )
    settings = enabled(
        student_monitoring_enabled=True,
        student_monitoring_min_samples=30,
        student_monitoring_window_hours=24.0 * 20,
        student_monitoring_days_between_false_alerts=10.0,
    )
    project = LiveProject(live, settings, bars="data/bars/turned", monitored=True)
    project.warm_up()
    project.feed(130, 330)
    assert project.monitor is not None
    status = project.monitor.status()
    steps = [step["after"] for step in project.monitor.steps()]
    project.monitor.close()
    checklist = json.loads((live / f"data/models/{FIRST}/student" / CHECKLIST_FILE).read_text())

    hit_ratio = status["rolling"]["hit_ratio"]
    assert hit_ratio["baseline"] == checklist["candidate_metrics"]["hit_ratio"]
    assert hit_ratio["value"] < hit_ratio["baseline"] - 0.05
    assert steps[0] == "INCONCLUSIVE"
    assert steps[-1] == "CONFIRMING"
    alert = next(one for one in status["alerts"] if one["name"].startswith("sequential_"))
    assert alert["model_version"] == FIRST
    assert any(command.startswith("sqkit rollback") for command in alert["commands"])
    kinds = [entry["kind"] for entry in read_audit(live / "data/models")]
    assert "rollback" not in kinds
    assert "monitor" in kinds


def test_automatic_rollback_is_executed_and_recorded(tmp_path: Path) -> None:
    """Alert, confirmation, rollback, verification: the engine scores the earlier release, the log says who and why."""
    made = watched.project(tmp_path)
    earlier = made.entries[0]["digests"]["model"]
    desk = watched.Desk(made)
    desk.feed(watched.feed_of(watched.LOST))
    status = desk.service.status()
    desk.close()
    run = Project(tmp_path).json("history")

    assert desk.engine.scorer.digest == earlier
    assert status["state"] == "OK"
    told = [event for event in run["events"] if event["kind"] in ("monitor", "rollback")]
    assert [event["kind"] for event in told].count("rollback") == 1
    assert {event["actor"]["name"] for event in told} == {AUTOMATIC}


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
