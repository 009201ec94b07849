"""What is live and why: from the log, or from the record beside the model where there is no log."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from sqkit.artifacts import STUDENT_FILE
from sqkit.audit_log import ATTEST, DRILL
from sqkit.chain import head_file
from sqkit.files import write_bytes
from sqkit.production.interventions import halt
from sqkit.production.status import status
from sqkit.production.status_words import status_lines
from tests.audited import Audited, with_a_past
from tests.project import Project
from tests.promotable import NOW as PROMOTED
from tests.promotable import promotable
from tests.releases import CONTENTS

NOW = dt.datetime(2025, 4, 5, tzinfo=dt.UTC)
A, B = "20240102_000001", "20240103_000002"
PATHS = '{"swing": "data/models/swing/student_model.onnx"}'


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a past; never changed."""
    return with_a_past(tmp_path_factory.mktemp("past")).root


@pytest.fixture
def project(past: Path, tmp_path: Path) -> Audited:
    """A copy of it that may go on."""
    shutil.copytree(past, tmp_path / "project")
    return Audited(tmp_path / "project")


def found(project: Audited, slot: str = "default", now: dt.datetime = NOW) -> dict[str, Any]:
    """What is said of one slot; nothing is written."""
    before = {path: path.stat().st_mtime_ns for path in project.root.rglob("*")}
    said = status(project.settings, project.root, now=now, slot=slot)["slots"][0]
    assert {path: path.stat().st_mtime_ns for path in project.root.rglob("*")} == before
    return said  # type: ignore[no-any-return]


def text(project: Audited, slot: str | None = None, now: dt.datetime = NOW) -> str:
    """The same for a person."""
    return "\n".join(status_lines(status(project.settings, project.root, now=now, slot=slot)))


# --- what is live


def test_the_live_release_and_who_put_it_there(project: Audited) -> None:
    """Version, digest, folder, since when, by which line; after a rollback that line, not the promotion."""
    said = found(project)

    assert said["source"] == "log"
    assert said["live"]["model_version"] == A
    assert said["live"]["model"] == project.state.live.model  # type: ignore[union-attr]
    assert Path(said["live"]["archive"]).is_dir()
    assert (said["since"], said["placed_by"]["line"]) == ("2025-03-05T17:00:00Z", 7)
    assert said["promotion"]["line"] == 1
    assert said["problems"] == []
    assert "rollback by Asha (asha@desk1), line 7" in text(project)


def test_the_decision_behind_it(project: Audited) -> None:
    """Recommendation and grade from the archived checklist, approvals by role, scope, reduced control."""
    said = found(project)

    assert (said["decision"]["recommendation"], said["decision"]["grade"]) == ("PROMOTE", "moderate")
    assert said["approvals"] == {"ml_lead": {"name": "Asha", "signed": False}}
    assert said["symbols"] == ["AAA"]
    assert said["reduced_control"] is True
    assert "approved by ml_lead Asha (typed); reduced control" in text(project)


def test_boxes_that_are_still_open(project: Audited) -> None:
    """Config and alerts may be ticked while it is live; monitoring that runs ticks the second by itself."""
    project.on("2025-04-03")
    boxes = {box["box"] for box in found(project)["boxes_open"]}
    assert boxes == {"period-representative", "config-updated", "alerts-configured"}

    live = project.state.live
    assert live is not None
    content = CONTENTS[ATTEST] | {"note": "deployed", "release": live.name}
    production = project.production
    production.append(production.slot("default"), ATTEST, content)
    project.variables = {"student_monitoring_enabled": True}
    assert {box["box"] for box in found(project)["boxes_open"]} == {"period-representative"}


def test_a_damaged_checklist_keeps_nothing_else_from_being_said(project: Audited) -> None:
    """A note, and the rest."""
    folder = Path(found(project)["live"]["archive"])
    (folder / "promotion_checklist.json").chmod(0o644)
    (folder / "promotion_checklist.json").write_text("{}")

    said = found(project)
    assert said["decision"] is None
    assert "was changed since it was archived" in said["notes"][0]
    assert said["live"]["model_version"] == A


def test_the_head_of_the_log_is_there_to_note_elsewhere(project: Audited) -> None:
    """Number of lines and whole digest."""
    last = project.production.log.entries()[-1]["digest"]

    assert text(project).splitlines()[-1].endswith(f"12 lines; head, to note elsewhere: {last}")


# --- what stands in the way


def test_a_halt_is_said_first(project: Audited) -> None:
    """How far, who, when and why."""
    assert (
        text(project).splitlines()[0] == f"slot default: HALTED (student_off), {found_name(project)} is live"
    )
    assert (
        "student_off, 2025-04-02T17:00:00Z by Bela (bela@desk2), line 12; reason: feed looks wrong"
        in text(project)
    )
    assert found(project)["flag"]["by_name"] == "Bela"
    assert "HALTED" not in text(project, "swing")
    assert (found(project, "swing")["halt_level"], found(project, "swing")["flag"]) == (None, None)


@pytest.mark.parametrize("said", ["", "{}", "torn {", '{"level": "no_new_entries"}'])
def test_a_flag_that_no_line_explains_is_said_with_its_level(project: Audited, said: str) -> None:
    """Also one that cannot be read: it halts at the strictest level, and is a problem until somebody settles it."""
    (project.models / "swing/halt.json").write_text(said)

    assert found(project, "swing")["halt_level"] == "no_new_entries"
    assert "slot swing: HALTED (no_new_entries), " in text(project, "swing")
    assert "no_new_entries, nobody knows when; reason: none given" in text(project, "swing")
    assert "halts slot swing, but no line of the log does" in found(project, "swing")["problems"][0]


def test_the_stricter_of_flag_and_log_is_shown(project: Audited) -> None:
    """That one holds, and the difference is a problem."""
    (project.models / "production/halt.json").write_bytes(b"")

    assert found(project)["halt_level"] == "no_new_entries"
    assert "halts slot default at no_new_entries, the log at student_off" in found(project)["problems"][0]


def test_a_slot_without_a_student_shows_its_halt_too(tmp_path: Path) -> None:
    """Its baseline does not enter either."""
    project = Audited(tmp_path)
    halt(project.production, "default", "month end", "no_new_entries")

    assert text(project).splitlines()[0].startswith("slot default: HALTED (no_new_entries), no student")


def found_name(project: Audited) -> str:
    """Version and folder of what is live."""
    live = project.state.live
    assert live is not None
    return live.described


def test_no_student_is_said_with_its_reason(project: Audited) -> None:
    """Rolled back to none: since when and why, unratified, the model that is barred now."""
    model = found(project)["live"]["model"]
    project.roll_back("none", "2025-04-03")
    said = found(project)

    assert said["live"] is None
    assert said["placed_by"]["entry"]["reason"] == "test"
    assert [waiting["line"] for waiting in said["unratified"]] == [13]
    assert [(one["model"], one["version"]) for one in said["quarantined"]] == [(model, A)]
    assert "no student; the engine runs its baseline" in text(project)
    assert "UNRATIFIED" in text(project)


def test_an_empty_slot_is_no_student_without_a_reason(tmp_path: Path) -> None:
    """Nothing was ever promoted here."""
    lines = text(Audited(tmp_path)).splitlines()

    assert lines[0] == "slot default: no student; nothing was ever promoted here"
    assert lines[-1].startswith("no audit log here")


@pytest.mark.parametrize(
    ("pin", "rolled_back", "said"),
    [
        (B, False, f"pin         {B} fits"),
        (A, False, f"PIN         {A} does not fit: the engine refuses what is live"),
        (B, True, f"pin         {B} does not fit; a rollback overrides it"),
    ],
)
def test_the_pin(tmp_path: Path, pin: str, rolled_back: bool, said: str) -> None:
    """It fits, it blocks what was promoted, or a rollback overrides it."""
    project = Audited(tmp_path)
    project.promote(1, "2025-01-01")
    project.promote(2, "2025-03-01")
    if rolled_back:
        project.roll_back("", "2025-03-05")
    project.variables = {"student_model_version": pin}

    assert said in text(project)


def test_the_policy_in_force(project: Audited) -> None:
    """Accepted when and by whom, what the settings tighten; a slot without its own is under the default's."""
    project.variables = {"promotion_min_days": 120, "promotion_min_calls": 10}
    said, swing = found(project)["policy"], found(project, "swing")["policy"]

    assert said["accepted"]["line"] == 4
    assert said["values"]["min_days"] == 120
    assert said["tightened"] == ["SENSEQUANT_PROMOTION_MIN_DAYS 90 -> 120"]
    assert swing["accepted"]["line"] == 4
    assert swing["values"]["min_days"] == 120
    assert "accepted 2025-02-01T17:00:00Z by Bela (bela@desk2), line 4" in text(project)


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ("2025-03-11T18:00:00+00:00", "passed 2025-03-11, counts for 29 days more"),
        ("2025-04-09T18:00:00+00:00", "passed 2025-03-11, counts for 0 days more"),
        ("2025-04-10T17:00:01+00:00", "passed 2025-03-11, too long ago"),
    ],
)
def test_the_drill_counts_for_thirty_days(project: Audited, now: str, said: str) -> None:
    """To the second."""
    assert said in text(project, "default", dt.datetime.fromisoformat(now))
    assert "none was made yet" in text(project, "swing")


def test_a_drill_that_failed_is_told_with_its_reason(project: Audited) -> None:
    """Whatever passed before it; the box is open again until one passes."""
    content = {"passed": False, "steps": ["one", "failed: no room"], "milliseconds": 3}
    project.on("2025-04-03")
    entry = project.production.append(project.production.slot("default"), DRILL, content)
    said = found(project)["drill"]

    assert (said["passed"], said["valid"], said["days_left"]) == (False, False, 0)
    assert said["line"]["entry"] == entry
    assert "DRILL       did not pass on 2025-04-03: failed: no room; mend that" in text(project)


def test_every_rollback_that_waits_is_listed(project: Audited) -> None:
    """The newest first, with the command for all of them."""
    project.promote(4, "2025-04-03")
    project.roll_back("", "2025-04-04")
    project.roll_back("none", "2025-04-05")
    lines = [line for line in text(project, "default").splitlines() if "UNRATIFIED" in line]

    assert [waiting["line"] for waiting in found(project)["unratified"]] == [14, 15]
    assert lines == [
        "  UNRATIFIED  rollback of 2025-04-05T17:00:00Z (line 15); somebody else runs sqkit ratify --all",
        "  UNRATIFIED  rollback of 2025-04-04T17:00:00Z (line 14)",
    ]


def test_scoring_is_enabled_or_not(project: Audited) -> None:
    """As the settings say."""
    assert found(project)["enabled"] is False
    project.variables = {"student_model_enabled": True}
    assert found(project)["enabled"] is True


# --- production against the log


def test_a_production_file_that_is_not_the_release_is_a_problem(project: Audited) -> None:
    """What lies there and what the log says."""
    (project.models / "production" / STUDENT_FILE).write_bytes(b"copied by hand")

    assert "holds a model that no line names" in found(project)["problems"][0]
    assert "PROBLEM" in text(project)


def test_a_live_slot_that_the_settings_do_not_name_is_noted(project: Audited) -> None:
    """It would go unseen."""
    project.variables = {"student_model_paths": {}}

    assert "note: slot swing: the log has" in text(project)


def test_a_broken_log_leaves_what_the_records_say(project: Audited) -> None:
    """Said as such, with the line that is broken."""
    project.log.write_bytes(project.log.read_bytes().replace(b"Bela", b"Mela", 1))
    said = found(project)

    assert (said["source"], said["live"]["model_version"]) == ("release.json", A)
    assert "line 2 was edited" in text(project)
    assert "HALTED" in text(project)


@pytest.mark.parametrize("what", ["log", "log and head"])
def test_a_deleted_log_is_a_problem_and_not_an_empty_one(project: Audited, what: str) -> None:
    """The archive knows that there was one."""
    project.log.unlink()
    if what == "log and head":
        head_file(project.log).unlink()

    assert "is missing or empty" in text(project)


# --- a host with the record alone


@pytest.fixture
def host(project: Audited, tmp_path: Path) -> Audited:
    """Model and record of the swing slot on another machine."""
    shutil.copytree(project.models / "swing", tmp_path / "host/data/models/swing")
    return Audited(tmp_path / "host")


def test_a_host_without_a_log_is_told_from_the_record(host: Audited) -> None:
    """What is live, since when, who approved; the recommendation from the approved statement."""
    said = found(host, "swing")

    assert said["source"] == "release.json"
    assert said["live"]["model_version"] == "20240113_000012"
    assert said["since"] == "2025-04-01T17:00:00Z"
    assert said["decision"]["recommendation"] == "PROMOTE"
    assert said["problems"] == []
    assert "it was not held against an audit log" in text(host, "swing")


def test_a_host_is_held_against_its_record(host: Audited) -> None:
    """Another model, or a record that does not prove itself."""
    (host.models / "swing" / STUDENT_FILE).write_bytes(b"other")
    assert "is not the model that release.json names" in found(host, "swing")["problems"][0]

    write_bytes(host.models / "swing/release.json", b"{}")
    assert "is not the record of a release" in found(host, "swing")["problems"][0]


# --- after the real promoter, and from the command line


def test_after_a_real_promotion_everything_agrees(tmp_path: Path) -> None:
    """Approved by three typed names, boxes ticked by drill and attestation: promoted, verified, told."""
    from sqkit.production.audit_check import check_audit
    from sqkit.production.promoter import StudentModelPromoter

    project = promotable(tmp_path)
    StudentModelPromoter(project.settings, root=tmp_path, clock=lambda: PROMOTED, environ={}).promote_model(
        project.typed
    )

    outcome = check_audit(project.settings, tmp_path)
    told = status(project.settings, tmp_path, now=PROMOTED)["slots"][0]
    assert outcome["differences"] == []
    assert told["decision"]["recommendation"] == "PROMOTE"
    assert sorted(told["approvals"]) == ["ml_lead", "quant_lead", "risk_manager"]
    assert told["reduced_control"] is False
    assert [box["box"] for box in told["boxes_open"]] == ["config-updated", "alerts-configured"]
    assert told["problems"] == []


def test_the_command_says_by_its_exit_code_whether_all_is_well(project: Audited) -> None:
    """0; 1 when production is not what the log says; 4 when the log does not hold."""
    run, paths = Project(project.root), {"SENSEQUANT_STUDENT_MODEL_PATHS": PATHS}
    assert run.sqkit("status", environment=paths).returncode == 0

    (project.models / "swing" / STUDENT_FILE).write_bytes(b"other")
    assert run.sqkit("status", environment=paths).returncode == 1
    assert run.sqkit("status", "--slot", "default", environment=paths).returncode == 0

    project.log.write_bytes(project.log.read_bytes().replace(b"Bela", b"Mela", 1))
    told = run.sqkit("status", "--json", environment=paths)
    assert told.returncode == 4
    assert "line 2 was edited" in json.loads(told.stdout)["log"]["problem"]
