"""Sealed days and counted looks, through the real commands: who is refused, who may open, what is remembered."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sqkit.errors import HoldoutSealed
from sqkit.report_manifest import verify_manifest
from sqkit.research.notebooks import run_notebook
from sqkit.research.sources import explore_symbol
from tests.conftest import ROOT
from tests.project import (
    MODEL,
    STUDENT,
    TEACHER,
    TRAINING_SESSIONS,
    VERSION,
    Project,
    planted_project,
    refused,
)

pytestmark = pytest.mark.slow

SEALED = ("2014-04-01", "2014-10-14")
"""The last half of the days after training."""
SEAL = ("holdout", "set", "--strategy", "swing", "--start", SEALED[0], "--end", SEALED[1])
LEDGER, HEAD = "data/models/trials.jsonl", "data/models/trials.head"
OTHER = "20200102_000000"
OTHER_STUDENT = f"data/models/{OTHER}/student"
TEACHER_WORDS = (
    *("train-teacher", "--market", "us", "--symbols", "PLANT01", "PLANT02"),
    *("--output-dir", f"data/models/{OTHER}/teacher"),
)
STUDENT_WORDS = ("train-student", "--teacher-dir", TEACHER)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with a teacher, before any day was sealed or looked at."""
    return planted_project(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def validated(trained: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The same after the last half of the days was sealed and a student was validated on all of them."""
    project = _copy_of(trained, tmp_path_factory.mktemp("validated"))
    sealed = project.sqkit(*SEAL)
    assert sealed.returncode == 0, sealed.stderr
    run = project.sqkit(*STUDENT_WORDS, "--output-dir", STUDENT, "--validate")
    assert run.returncode == 0, run.stderr
    return project


@pytest.fixture
def bare(trained: Project, tmp_path: Path) -> Project:
    """A copy of the trained project that a test may change."""
    return _copy_of(trained, tmp_path)


@pytest.fixture
def sealed(bare: Project) -> Project:
    """The same with the last half of its days sealed."""
    run = bare.sqkit(*SEAL)
    assert (run.returncode, run.stdout) == (0, "sealed for swing: 2014-04-01 to 2014-10-14\n"), run.stderr
    return bare


@pytest.fixture
def looked(validated: Project, tmp_path: Path) -> Project:
    """A copy of the validated project that a test may change."""
    return _copy_of(validated, tmp_path)


def _copy_of(project: Project, folder: Path) -> Project:
    shutil.copytree(project.root, folder / "project")
    return Project(folder / "project")


def _ledger(project: Project) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (project.root / LEDGER).read_text().splitlines()]


def _kinds(project: Project) -> list[str]:
    return [entry["kind"] for entry in _ledger(project)]


def _openings(project: Project) -> list[dict[str, Any]]:
    return project.json("holdout", "list")["openings"]  # type: ignore[no-any-return]


def _trials(project: Project, student: str = STUDENT, report: str = f"{VERSION}-v1") -> int:
    """How many trials a decision rests on; results, evidence, checklist and manifest must say the same."""
    folder = project.root / student
    manifest = json.loads((project.root / "reports" / report / "manifest.json").read_text())
    results = json.loads((folder / "validation_results.json").read_text())
    kept = project.checklist(student)["evidence"]["trials"]
    assert kept == manifest["summary"]["trials"]
    assert kept == json.loads((folder / "evidence.json").read_text())["trials"]
    assert kept == {name: results["trials"][name] for name in kept}
    return int(kept["n_trials"])


# --- training on sealed days


def test_a_teacher_that_would_see_sealed_days_is_refused(sealed: Project) -> None:
    """Exit 4 in one line that names the days and the way out; nothing is trained, nothing is recorded."""
    days = "touches sealed days of swing (2014-04-01 to 2014-10-14)"
    refused(
        sealed, 4, [*TEACHER_WORDS], f"{days}; use days outside, or open them with --open-holdout --reason"
    )
    refused(sealed, 4, [*TEACHER_WORDS, "--end", "2014-04-01"], days)

    assert not (sealed.root / f"data/models/{OTHER}").exists()
    assert _kinds(sealed) == ["seal"]


@pytest.mark.parametrize("reason", [(), ("--reason", " ")])
def test_sealed_days_are_not_opened_without_a_reason(sealed: Project, reason: tuple[str, ...]) -> None:
    """--open-holdout alone, or with an empty reason, is refused like no flag at all."""
    refused(sealed, 4, [*TEACHER_WORDS, "--open-holdout", *reason], "--open-holdout needs --reason TEXT")

    assert _openings(sealed) == []


def test_a_reason_alone_opens_nothing(sealed: Project) -> None:
    """--reason without --open-holdout is no opening."""
    refused(sealed, 4, [*TEACHER_WORDS, "--reason", "last model before the audit"], "--open-holdout")

    assert _openings(sealed) == []


def test_who_opens_sealed_days_is_remembered(sealed: Project) -> None:
    """With flag and reason the teacher is trained, and the ledger says who opened which days, when and why."""
    run = sealed.sqkit(*TEACHER_WORDS, "--open-holdout", "--reason", "last model before the audit")

    assert run.returncode == 0, run.stderr
    assert (sealed.root / f"data/models/{OTHER}/teacher/teacher_model.onnx").is_file()
    (opening,) = _openings(sealed)
    first, last = _dates(sealed)[[0, -1]]
    assert opening == {
        "strategy": "swing",
        "first_session_date": first,
        "last_session_date": last,
        "reason": "last model before the audit",
        "by": f"training of teacher {OTHER}",
        "at": "2020-01-01T00:00:00Z",
    }
    lines = sealed.sqkit("holdout", "list").stdout.splitlines()
    assert lines[0] == "swing  2014-04-01 to 2014-10-14  sealed, opened once"
    assert "last model before the audit" in lines[1]

    again = [*STUDENT_WORDS[:-1], f"data/models/{OTHER}/teacher", "--output-dir", OTHER_STUDENT]
    refused(sealed, 4, again, f"training of student {OTHER}")
    assert not (sealed.root / OTHER_STUDENT).exists(), "a student needs a reason of its own"


def test_a_development_window_is_free(sealed: Project) -> None:
    """Up to the day before the seal, whatever is sealed for another strategy, nobody asks, nothing is recorded."""
    other = sealed.sqkit(
        *("holdout", "set", "--strategy", "intraday", "--start", "2012-01-01", "--end", "2013-12-31")
    )
    assert other.returncode == 0, other.stderr
    before = (sealed.root / LEDGER).read_bytes()

    run = sealed.sqkit(*TEACHER_WORDS, "--end", "2014-03-31")

    assert run.returncode == 0, run.stderr
    assert (sealed.root / LEDGER).read_bytes() == before


def test_a_seal_set_after_training_holds_for_the_student(bare: Project) -> None:
    """Days that the teacher saw and that were sealed since are not distilled without a reason."""
    start, end = _dates(bare)[TRAINING_SESSIONS - 5], _dates(bare)[TRAINING_SESSIONS - 1]
    run = bare.sqkit("holdout", "set", "--strategy", "swing", "--start", start, "--end", end)
    assert run.returncode == 0, run.stderr

    refused(bare, 4, [*STUDENT_WORDS, "--output-dir", STUDENT], f"({start} to {end})")

    assert not (bare.root / STUDENT).exists()


def _dates(project: Project) -> Any:
    """ISO dates (n,) of the planted sessions, read from the bars themselves."""
    frame = pd.read_parquet(project.root / "data/bars/1d/PLANT01.parquet")
    return frame["timestamp"].dt.tz_convert("America/New_York").dt.strftime("%Y-%m-%d").to_numpy()


# --- looking at bars


def test_exploring_leaves_sealed_days_out(
    sealed: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """explore_symbol gives every bar before the first sealed day and says so; other strategies see all."""
    monkeypatch.chdir(sealed.root)
    dates = _dates(sealed)
    open_days = int((dates < SEALED[0]).sum())

    series, _ = explore_symbol("PLANT01", bars="data/bars/1d", strategy="swing", market="us")

    assert (len(series), len(dates)) == (open_days, 700)
    assert "bars from 2014-04-01 on are sealed for swing and left out" in capsys.readouterr().err
    whole = sealed.sqkit("holdout", "set", "--strategy", "swing", "--start", "2000-01-01", "--end", SEALED[1])
    assert whole.returncode == 0, whole.stderr
    with pytest.raises(HoldoutSealed, match="look at earlier bars"):
        explore_symbol("PLANT01", bars="data/bars/1d", strategy="swing", market="us")


def test_notebook_01_shows_no_sealed_day(sealed: Project, tmp_path: Path) -> None:
    """The notebook itself loads the bars before the seal and no other."""
    said: list[str] = []
    recorded = run_notebook(
        ROOT / "notebooks" / "01_explore.ipynb",
        tmp_path / "explored.ipynb",
        {"bars": "data/bars/1d", "symbol": "PLANT01"},
        cwd=sealed.root,
        required_records=["bars"],
        staging=tmp_path,
        progress=said.append,
    )

    assert recorded["bars"] == int((_dates(sealed) < SEALED[0]).sum())
    assert "PLANT01: bars from 2014-04-01 on are sealed for swing and left out" in "\n".join(said)
    assert "2014-10-14" not in (tmp_path / "explored.ipynb").read_text()


# --- validations open and are counted


def test_a_validation_opens_sealed_days_and_says_so(validated: Project) -> None:
    """No flag is needed: the validation is what the days were kept for; its opening comes before its look."""
    period = validated.checklist()["validation_period"]
    (opening,) = _openings(validated)

    assert (opening["first_session_date"], opening["last_session_date"]) == (period["start"], period["end"])
    assert opening["by"] == "sqkit validate"
    assert opening["reason"] == f"validation of {VERSION}"
    assert _kinds(validated) == ["seal", "opened", "look", "returns"]
    assert _trials(validated) == 1


def test_a_deleted_ledger_is_refused_until_it_is_restored(looked: Project) -> None:
    """Without the ledger, or with a shortened one, no validation and no sealing: exit 4, with the way out."""
    ledger, head = looked.root / LEDGER, looked.root / HEAD
    kept, lines = ledger.read_bytes(), ledger.read_bytes().splitlines(keepends=True)
    words = ["validate", "--model", MODEL]

    ledger.unlink()
    refused(looked, 4, words, "restore trials.jsonl from a backup; if it is lost for good, move")
    refused(looked, 4, list(SEAL), "trials.jsonl")
    refused(looked, 4, [*TEACHER_WORDS, "--end", "2014-03-31"], "trials.jsonl")
    noted = head.read_bytes()
    head.unlink()  # who deletes the note beside it as well has not deleted the validation that counted
    refused(looked, 4, words, "validation_results.json counted 4 lines")
    head.write_bytes(noted)
    ledger.write_bytes(b"".join(lines[:2]))
    refused(looked, 4, words, "ends at line 2")

    ledger.write_bytes(kept)
    before = (looked.root / STUDENT / "promotion_checklist.json").read_bytes()
    again = looked.sqkit(*words)

    assert again.returncode == 0, again.stderr
    assert ledger.read_bytes() == kept, "the same student on the same window is the same trial and opening"
    assert _trials(looked, report=f"{VERSION}-v2") == 1
    assert (looked.root / STUDENT / "promotion_checklist.json").read_bytes() == before
    assert looked.sqkit("verify", STUDENT).returncode == 0
    assert looked.sqkit("verify", f"{STUDENT}/validations/v1").returncode == 0


def test_the_same_student_under_another_version_adds_nothing(looked: Project) -> None:
    """Retrained with another version tag it is another file with the same behaviour: still one trial."""
    before = (looked.root / LEDGER).read_bytes()

    run = looked.sqkit(*STUDENT_WORDS, "--output-dir", OTHER_STUDENT, "--validate")

    assert run.returncode == 0, run.stderr
    first, second = (
        looked.root / f"data/models/{name}/student/student_model.onnx" for name in (VERSION, OTHER)
    )
    assert first.read_bytes() != second.read_bytes()
    assert [kind for kind in _kinds(looked) if kind in ("look", "returns")] == ["look", "returns"]
    assert (looked.root / LEDGER).read_bytes().startswith(before)
    assert _trials(looked, OTHER_STUDENT, f"{OTHER}-v1") == 1
    assert "; 1 look at this window;" in looked.checklist(OTHER_STUDENT)["evidence"]["summary"]


def test_another_student_on_an_overlapping_window_is_a_second_trial(looked: Project) -> None:
    """Its decision counts two looks and says so; the first one, made when there was one, still verifies as such."""
    before = (looked.root / STUDENT / "promotion_checklist.json").read_bytes()

    run = looked.sqkit(
        *(*STUDENT_WORDS, "--output-dir", OTHER_STUDENT, "--model-type", "logistic", "--validate"),
        *("--validation-start", "2014-02-03", "--validation-end", "2014-08-29"),
        *("--validation-symbols", "PLANT01", "PLANT02", "PLANT03"),
    )

    assert run.returncode in (0, 1, 3), run.stderr
    assert _trials(looked, OTHER_STUDENT, f"{OTHER}-v1") == 2
    evidence = looked.checklist(OTHER_STUDENT)["evidence"]
    assert "; 2 looks at this window; " in evidence["summary"]
    deflated = next(record for record in evidence["records"] if record["name"] == "dsr")
    assert deflated["n"]["trials"] == 2
    assert "2 looks at this window" in (looked.root / f"reports/{OTHER}-v1/checklist.md").read_text()
    assert verify_manifest(looked.root / f"reports/{OTHER}-v1", looked.root) == []

    assert (looked.root / STUDENT / "promotion_checklist.json").read_bytes() == before
    for student, trials in ((STUDENT, 1), (OTHER_STUDENT, 2)):
        verified = looked.sqkit("verify", student, "--json")
        assert verified.returncode == 0, verified.stdout
        assert json.loads(verified.stdout)["trials"]["n_trials"] == trials
    assert _trials(looked) == 1
