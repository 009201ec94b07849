"""The doctor: each problem in one line, finding writes nothing, mending finishes what was interrupted."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from sqkit.artifacts import STUDENT_FILE
from sqkit.chain import head_file
from sqkit.files import write_bytes, write_json
from sqkit.production.audit_check import check_audit
from sqkit.production.doctor import doctor_lines, find_problems, mend
from tests.audited import Audited, with_a_past
from tests.project import Project


class Killed(BaseException):
    """The process ends here; no clean-up that catches exceptions sees it."""


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a past; never changed."""
    return with_a_past(tmp_path_factory.mktemp("past")).root


@pytest.fixture
def project(past: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Audited:
    """A copy of it to do harm to, in which the doctor is called."""
    shutil.copytree(past, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    project = Audited(Path())
    project.on("2025-04-03")
    return project


def lines(project: Audited) -> list[str]:
    """What the doctor says; nothing is written."""
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*")}
    found = [problem.what for problem in find_problems(project.settings)]
    assert {path: path.stat().st_mtime_ns for path in Path().rglob("*")} == before
    assert all("\n" not in line for line in found)
    return found


def only(project: Audited, *words: str, mends: bool) -> str:
    """The one problem, which has these words."""
    found = find_problems(project.settings)
    assert len(found) == 1, found
    assert all(word in found[0].what for word in words), found
    assert found[0].mends is mends
    return found[0].what


def test_a_project_in_order_has_no_problems(project: Audited) -> None:
    """Neither one with a past nor an empty one."""
    assert lines(project) == []
    assert doctor_lines([], []) == ["no problems"]


def test_an_empty_folder_has_no_problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was ever promoted; mending does and makes nothing."""
    monkeypatch.chdir(tmp_path)
    project = Audited(Path())

    assert lines(project) == []
    assert mend(project.settings) == []
    assert list(tmp_path.iterdir()) == []


# --- settings


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"student_auto_rollback_enabled": True}, "STUDENT_AUTO_ROLLBACK_ENABLED=true needs"),
        ({"webhook_url": "ftp://example.invalid"}, "SENSEQUANT_WEBHOOK_URL"),
        ({"student_model_paths": {"swing": "data/models/production/swing.onnx"}}, "share the folder"),
        ({"student_model_version": "20240101_000000"}, "does not fit the live release 20240103_000002"),
    ],
)
def test_settings_that_do_not_fit_are_listed(project: Audited, values: dict[str, Any], said: str) -> None:
    """Inconsistent settings, an impossible webhook, slots in one folder, a pin that blocks what was promoted."""
    project.promote(2, "2025-04-03")
    project.variables = values

    assert any(said in line for line in lines(project))


def test_shared_folders_are_said_once(project: Audited) -> None:
    """They keep everything else from being examined, and mending from starting."""
    project.variables = {"student_model_paths": {"swing": "data/models/production/swing.onnx"}}

    assert len([line for line in lines(project) if "share the folder" in line]) == 1
    assert mend(project.settings) == ["nothing was mended"]


def test_a_pin_that_a_rollback_overrode_is_no_problem(project: Audited) -> None:
    """A release that a rollback restored is served despite the pin."""
    project.variables = {"student_model_version": "20240103_000002"}

    assert lines(project) == []


def test_a_live_slot_without_a_place_is_listed(project: Audited) -> None:
    """The log has something live where the settings look nowhere."""
    project.variables = {"student_model_paths": {}}

    assert only(project, "slot swing", "name no place", mends=False)


# --- interrupted work


def interrupted(project: Audited, what: str, step: int) -> bool:
    """Do something and be killed before that step; whether there was such a step."""
    seen: list[str] = []

    def before(said: str) -> None:
        seen.append(said)
        if len(seen) == step:
            raise Killed

    project.before = before
    try:
        project.promote(3, "2025-04-03") if what == "promote" else project.roll_back("none", "2025-04-03")
    except Killed:
        return True
    finally:
        project.before = lambda said: None
    return False


@pytest.mark.parametrize("what", ["promote", "roll back"])
def test_what_was_interrupted_at_any_step_is_found_and_mended(past: Path, tmp_path: Path, what: str) -> None:
    """Killed before each step in turn: every problem says it can be mended, and afterwards there is none."""
    here, found_any = Path.cwd(), 0
    for step in range(1, 30):
        shutil.copytree(past, tmp_path / str(step))
        os.chdir(tmp_path / str(step))
        try:
            project = Audited(Path())
            if not interrupted(project, what, step):
                assert step > 3
                assert find_problems(project.settings) == []
                break
            problems = find_problems(project.settings)
            assert all(problem.mends for problem in problems), problems
            done = mend(project.settings)
            assert bool(done) == bool(problems), (step, done, problems)
            assert find_problems(project.settings) == []
            assert check_audit(project.settings)["differences"] == []
            found_any += bool(problems)
        finally:
            os.chdir(here)
    assert found_any >= 2


def test_a_halt_whose_flag_is_gone_is_mended(project: Audited) -> None:
    """The log says halted: the flag is written again."""
    flag = project.models / "production/halt.json"
    flag.unlink()

    assert only(project, "halt.json: missing, but slot default was halted", mends=True)
    assert mend(project.settings)
    assert flag.is_file()
    assert lines(project) == []


def test_between_two_levels_a_person_decides(project: Audited) -> None:
    """Nobody knows whether flag or line is the newer word: neither is changed, and the stricter one holds."""
    flag = project.models / "production/halt.json"
    write_bytes(flag, b"")

    assert only(project, "at no_new_entries, the log at student_off", "sqkit halt --level", mends=False)
    mend(project.settings)
    assert flag.read_bytes() == b""


def test_a_halt_that_the_log_does_not_know_is_for_a_person(project: Audited) -> None:
    """The doctor never ends a halt."""
    write_bytes(project.models / "swing/halt.json", b"{}")

    assert only(project, "halts slot swing, but no line", "sqkit resume", mends=False)
    mend(project.settings)
    assert (project.models / "swing/halt.json").exists()


def test_a_head_that_is_behind_is_noted(project: Audited) -> None:
    """A process that was killed between its line and the head."""
    digest = project.production.log.entries()[10]["digest"]
    write_json(head_file(project.log), {"digest": digest, "lines": 11})

    assert only(project, "audit.head: does not name line 12", mends=True)
    assert any("noted line 12" in line for line in mend(project.settings))
    assert lines(project) == []


def test_a_torn_line_is_dropped(project: Audited) -> None:
    """It never counted; nor did a head that was being written."""
    with project.log.open("ab") as log:
        log.write(b'{"actor":{"ho')
    (project.models / ".audit.head.4711.tmp").write_text("")

    said = lines(project)
    assert any("line 13 was torn" in line for line in said)
    assert any("left by a process that was killed" in line for line in said)
    assert mend(project.settings)
    assert lines(project) == []


def test_a_model_that_somebody_copied_there_is_archived_and_replaced(project: Audited) -> None:
    """What nobody promoted is kept, and production is the live release again."""
    place = project.models / "swing" / STUDENT_FILE
    live = place.read_bytes()
    place.write_bytes(b"copied by hand")

    assert only(project, "holds a model that no line names", mends=True)
    done = mend(project.settings)
    assert any("archived as" in line for line in done)
    assert place.read_bytes() == live
    assert lines(project) == []
    kept = [path.read_bytes() for path in (project.models / "archive").glob(f"*/{STUDENT_FILE}")]
    assert b"copied by hand" in kept


def test_a_damaged_record_is_written_again(project: Audited) -> None:
    """Beside the model, from log and archive."""
    place = project.models / "production/release.json"
    whole = place.read_bytes()
    place.write_bytes(b"{")

    assert only(project, "release.json", mends=True)
    mend(project.settings)
    assert place.read_bytes() == whole


# --- what only a person mends


def test_a_broken_log_is_one_line_and_nothing_is_touched(project: Audited) -> None:
    """Where to look further is said; mending leaves everything as it is."""
    project.log.write_bytes(project.log.read_bytes().replace(b"Bela", b"Mela", 1))
    (project.models / "production" / STUDENT_FILE).unlink()

    assert "line 2 was edited" in only(project, "sqkit verify --audit", mends=False)
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*")}
    assert mend(project.settings) == ["nothing was mended"]
    assert {path: path.stat().st_mtime_ns for path in Path().rglob("*")} == before


def test_a_damaged_live_release_is_for_a_person(project: Audited) -> None:
    """Restore it, or roll back; one slot that cannot be mended keeps no other from it."""
    archived = project.models / "archive" / str(project.state.live and project.state.live.name) / STUDENT_FILE
    archived.chmod(0o644)
    archived.write_bytes(b"torn")
    (project.models / "production" / STUDENT_FILE).unlink()
    (project.models / "swing" / STUDENT_FILE).unlink()

    found = {problem.what: problem.mends for problem in find_problems(project.settings)}
    assert any("changed since it was archived; it is live in slot default" in what for what in found)
    assert any("slot default cannot be repaired" in line for line in mend(project.settings))
    left = [problem.what for problem in find_problems(project.settings)]
    assert all("swing" not in line for line in left)
    assert len(left) == 2


def test_a_host_with_a_foreign_model_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No log, no record, but a model: nobody promoted it."""
    monkeypatch.chdir(tmp_path)
    write_bytes(tmp_path / "data/models/production" / STUDENT_FILE, b"copied by hand")

    assert only(Audited(Path()), "nobody promoted this model", mends=False)


# --- the command


def test_the_command_exits_one_until_it_is_mended(project: Audited) -> None:
    """``sqkit doctor`` lists and changes nothing; with --fix it mends and exits 0."""
    (project.models / "production/halt.json").unlink()
    run, environment = (
        Project(Path.cwd()),
        {"SENSEQUANT_MARKET": "us", "SENSEQUANT_STUDENT_MODEL_PATHS": PATHS},
    )

    listed = run.sqkit("doctor", environment=environment)
    mended = run.sqkit("doctor", "--fix", environment=environment)

    assert listed.returncode == 1
    assert listed.stdout.splitlines()[-1] == "1 problem; sqkit doctor --fix mends it"
    assert mended.returncode == 0
    assert mended.stdout.splitlines()[-1] == "no problems"


PATHS = '{"swing": "data/models/swing/student_model.onnx"}'
