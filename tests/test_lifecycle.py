"""The life of a student: trained, validated, approved, promoted, served, replaced, brought back.

One story: A is promoted on 1 January, B on 1 March. It is told in process by `StudentModelPromoter`, on
the command line, and once more with the process killed at each step and started again; every candidate is real
(`tests.factory`). Kills at every single call stand in the tests of crashes.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sqkit.artifacts import (
    APPROVALS_FILE,
    ARCHIVE_FOLDER,
    CHECKLIST_FILE,
    CHECKLIST_PAGE,
    RELEASE_FILE,
    STUDENT_FILE,
)
from sqkit.audit_log import AUDIT_FILE, PROMOTE, ROLLBACK, read_audit
from sqkit.cli import main
from sqkit.errors import ArchiveUnknown, DecisionStale, Quarantined
from sqkit.files import sha256_file
from sqkit.people import Actor
from sqkit.production.audit_check import check_audit
from sqkit.production.promoter import StudentModelPromoter
from sqkit.production.served_log import engine_runs
from sqkit.settings import Settings
from sqkit.student import StudentModel
from tests.crash_driver import Warm, die, ended
from tests.factory import APPROVERS, FIRST, PROJECT, SECOND, clock_of, make_candidate
from tests.live import LiveProject
from tests.project import Project
from tests.shell import in_bash, started

pytestmark = pytest.mark.slow

MODELS = Path("data/models")
LIVE = MODELS / "production/student_model.onnx"
APRIL = dt.datetime(2025, 4, 1, 16, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Story:
    """A project in which A is live and B is approved."""

    root: Path
    first: Path
    second: Path

    def promoter(self, now: dt.datetime) -> StudentModelPromoter:
        """The promoter in process, at a time."""
        return StudentModelPromoter(
            Settings(_env_file=None), root=self.root, clock=lambda: now, actor=Actor("Dana", "dana", "desk4")
        )

    def sqkit(self, now: dt.datetime, *words: str) -> subprocess.CompletedProcess[str]:
        """A command in its own process, at a time; it must succeed."""
        done = Project(self.root).sqkit(*words, environment={"SOURCE_DATE_EPOCH": str(int(now.timestamp()))})
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done

    def live(self) -> StudentModel:
        """What lies in production, loaded."""
        return StudentModel.load(self.root / LIVE)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """A promoted on 1 January in an empty project, then B made beside it; read only."""
    root = tmp_path_factory.mktemp("story")
    first = make_candidate(root, FIRST, seed=0)
    Story(root, first, first).promoter(clock_of(FIRST)).promote_model(first)
    return Story(root, first, make_candidate(root, SECOND, seed=1))


@pytest.fixture
def story(told: Story, tmp_path: Path) -> Story:
    """A copy of the story for a test that goes on with it."""
    root = tmp_path / "project"
    shutil.copytree(told.root, root)
    return Story(root, root / told.first.relative_to(told.root), root / told.second.relative_to(told.root))


def test_the_promoted_bytes_are_served_and_archived(told: Story) -> None:
    """Production, archive, release.json and audit line are of one model, and it scores."""
    release = json.loads((told.root / LIVE.with_name(RELEASE_FILE)).read_text())
    archived = told.root / MODELS / ARCHIVE_FOLDER / release["release"]

    assert told.live().version == FIRST
    assert sha256_file(told.root / LIVE) == sha256_file(told.first) == release["model"]
    assert release["release"] == f"20250101_110000_{release['model'][:8]}", "the time in New York"
    assert (archived / told.first.name).read_bytes() == told.first.read_bytes()
    assert (archived / CHECKLIST_FILE).read_bytes() == (told.first.parent / CHECKLIST_FILE).read_bytes()
    assert {role: one["name"] for role, one in release["promotion"]["approvals"].items()} == {
        "ml_lead": "Asha",
        "quant_lead": "Bela",
        "risk_manager": "Chen",
    }


def test_the_next_candidate_is_judged_against_what_is_live(told: Story) -> None:
    """B answers differently, was compared with the rule, and its decision names A as the incumbent."""
    checklist = json.loads((told.second.parent / CHECKLIST_FILE).read_text())
    behaviours = {StudentModel.load(path).behaviour_digest(0.6) for path in (told.first, told.second)}

    assert len(behaviours) == checklist["evidence"]["trials"]["n_trials"] == 2
    assert checklist["recommendation"] == "PROMOTE"
    assert checklist["baseline_model"] is None
    assert checklist["digests"]["incumbent"] == sha256_file(told.first)
    assert told.promoter(clock_of(SECOND)).validate_promotion(told.second).reasons == ()


def test_the_date_on_which_a_release_left_brings_it_back(story: Story) -> None:
    """A promoted 1 January, B 1 March: ``rollback_model("20250301")`` restores A, and doing it again changes nothing."""
    story.promoter(clock_of(SECOND)).promote_model(story.second)
    replaced = story.live().digest
    done = story.promoter(APRIL).rollback_model("20250301")
    again = story.promoter(APRIL).rollback_model("20250301")

    assert replaced == sha256_file(story.second)
    assert story.live().digest == sha256_file(story.first)
    assert json.loads((story.root / LIVE.with_name(RELEASE_FILE)).read_text())["model_version"] == FIRST
    assert done.entry is not None
    assert (done.entry["replaces"]["model"], done.entry["quarantines"]) == (replaced, replaced)
    assert again.target.already
    assert again.entry is None


def test_the_story_ends_in_the_engine(story: Story) -> None:
    """A is scored tick by tick; B from the next session on; A again from the very tick after the rollback.

    What scored stands in the telemetry beside what the log had live, and they agree.
    """
    settings = Settings(_env_file=None, student_model_enabled=True)
    project = LiveProject(story.root, settings)
    project.warm_up()
    project.feed(130, 150)
    story.promoter(clock_of(SECOND)).promote_model(story.second)
    assert project.engine._watch.check()
    project.feed(150, 170)
    story.promoter(APRIL).rollback_model("20250301")
    assert project.engine._watch.check()
    project.feed(170, 190)
    project.engine.close()
    by_bar: dict[str, set[str]] = {}
    for one in project.predictions():
        by_bar.setdefault(one["bar_time"], set()).add(one["student_model_version"])

    assert list(by_bar.values()) == [{FIRST}] * 20 + [{SECOND}] * 20 + [{FIRST}] * 20
    (run,) = engine_runs(story.root / "data/telemetry")
    models = [sha256_file(path) for path in (story.first, story.second, story.first)]
    assert [span.digest for span in run.spans] == models
    assert story.live().digest == models[-1]


def test_a_date_on_which_nothing_left_is_refused(story: Story) -> None:
    """Neither the day on which A came, replacing nothing, nor one on which A is still live names a release."""
    for date in ("20250101", "20250301"):
        with pytest.raises(ArchiveUnknown, match="left production on"):
            story.promoter(APRIL).rollback_model(date)

    assert story.live().digest == sha256_file(story.first)


def test_a_rolled_back_model_does_not_come_back_unseen(story: Story) -> None:
    """B is quarantined by its rollback; what is live needs no promotion."""
    story.promoter(clock_of(SECOND)).promote_model(story.second)
    story.promoter(clock_of(SECOND)).rollback_model("20250301")

    with pytest.raises(Quarantined):
        story.promoter(clock_of(SECOND)).promote_model(story.second)
    with pytest.raises(DecisionStale, match="already"):
        story.promoter(clock_of(SECOND)).promote_model(story.first)


def test_the_story_on_the_command_line(story: Story) -> None:
    """promote and rollback do the same there; status and history say what was live when."""
    model = story.second.relative_to(story.root).as_posix()

    assert f"promoted {SECOND}" in story.sqkit(clock_of(SECOND), "promote", "--model", model).stdout
    assert story.live().digest == sha256_file(story.second)
    back = story.sqkit(APRIL, "rollback", "--to", "20250301", "--reason", "worse live", "--as", "Dana")
    assert FIRST in back.stderr, "the target is named before anything is done"
    assert story.live().digest == sha256_file(story.first)

    assert FIRST in story.sqkit(APRIL, "status").stdout
    for then, version in (("2025-02", FIRST), ("2025-03-15", SECOND), ("2025-04-01", FIRST)):
        assert version in story.sqkit(APRIL, "history", "--at", then).stdout

    story.sqkit(APRIL, "rollback", "--to", "none", "--reason", "stop")
    assert not (story.root / LIVE).exists()
    assert "no student" in story.sqkit(APRIL, "status").stdout


# --- killed and started again

NEW_YEAR = clock_of(FIRST)
AGAIN = MODELS / f"{FIRST}b/student"
"""Where docs/promotion.md has a candidate decided again that people have signed."""

STEPS: list[tuple[list[str], str, int]] = [
    (["rollback", "--slot", "swing", "--drill"], AUDIT_FILE, 0),
    (
        ["attest", "period-representative", "--model", f"{AGAIN}/{STUDENT_FILE}", "--note", "looked"],
        APPROVALS_FILE,
        0,
    ),
    *(
        (["approve", "--model", f"{AGAIN}/{STUDENT_FILE}", "--role", role, "--as", name], APPROVALS_FILE, 0)
        for role, name in APPROVERS.items()
    ),
    (["promote", "--model", f"{AGAIN}/{STUDENT_FILE}"], AUDIT_FILE, DecisionStale.exit_code),
    (["rollback", "--reason", "worse live"], AUDIT_FILE, 0),
]
"""A command, the file in which its fact stands, and how it exits when it is run again though the fact counts."""


def deciding_again() -> str:
    """The block of docs/promotion.md on another decision about what was signed, for the first candidate."""
    page = (PROJECT / "docs/promotion.md").read_text(encoding="utf-8")
    found = re.search(r"^### Deciding again\n.*?^```\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert found is not None
    assert found[1].count(SECOND) == 5
    return found[1].replace(SECOND, FIRST)


def kill_at(file: str, *, counts: bool) -> Callable[[str, tuple[Any, ...]], None]:
    """An audit hook that kills the process where a fact is about to stand in a file, or stands there.

    In the log: before the line is written, before ``audit.head`` names it. In the book: before it gets its name,
    before the page is drawn again.
    """
    if file == AUDIT_FILE:
        event, begins = ("os.rename", "audit.head") if counts else ("open", AUDIT_FILE)
    else:
        event, begins = ("open", f".{CHECKLIST_PAGE}.") if counts else ("os.rename", APPROVALS_FILE)

    def hook(what: str, arguments: tuple[Any, ...]) -> None:
        if what != event or not isinstance(arguments[0], str | os.PathLike):
            return
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
            return
        place = Path(arguments[1] if event == "os.rename" else arguments[0]).absolute()
        if place.is_relative_to(Path.cwd()) and place.name.startswith(begins):
            die()

    return hook


def kill_and_go_on(root: str) -> list[dict[str, Any]]:
    """Each command killed before its fact counts, killed after it, and run to its end: what it left each time."""
    os.chdir(root)
    os.environ["SOURCE_DATE_EPOCH"] = str(int(NEW_YEAR.timestamp()))
    found = []
    for words, file, again in STEPS:
        facts = [_facts(file)]
        for counts in (False, True):
            killed = ended(_command, words, file, counts).killed
            facts.append(_facts(file))
            assert killed, f"{words} was not killed"
        code, said = ended(_command, words, "", False).value
        found.append({"words": words, "facts": facts, "again": again, "code": code, "said": said})
    return found


def _facts(file: str) -> int:
    if file == AUDIT_FILE:
        return len((MODELS / file).read_text().splitlines())
    place = AGAIN / file
    return len(json.loads(place.read_text())["facts"]) if place.exists() else 0


def _command(words: list[str], file: str, counts: bool) -> tuple[int, str]:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        if file:
            sys.addaudithook(kill_at(file, counts=counts))
        try:
            main(words)
        except SystemExit as leaving:
            return int(leaving.code or 0), said.getvalue()
    return 0, said.getvalue()


def test_killed_at_each_step_and_started_again_the_story_ends_as_it_should(tmp_path: Path) -> None:
    """Decided again, signed, promoted and rolled back, each by a process that was killed and whose command was repeated.

    Before its fact counts a killed command left nothing that counts; after it, the fact is there once, and the next
    command finishes the rest.
    """
    root = tmp_path / "project"
    root.mkdir()
    model = make_candidate(root, FIRST, seed=0)
    story = Story(root, model, root / AGAIN / STUDENT_FILE)
    assert json.loads((model.parent / APPROVALS_FILE).read_text())["facts"], "people have signed"
    process = started(deciding_again(), root, NEW_YEAR)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("running 04_checklist"):
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    half = story.promoter(NEW_YEAR).validate_promotion(story.second)
    assert not half.can_promote, "a decision that was never finished is none"

    said = in_bash(deciding_again(), root, NEW_YEAR)
    assert "PROMOTE" in said
    assert f"{AGAIN}: verified" in said
    checklist = json.loads((root / AGAIN / CHECKLIST_FILE).read_text())
    assert checklist["evidence"]["trials"]["n_trials"] == 1, "another look, and no new trial"

    before = len(read_audit(root / MODELS))
    with Warm() as warm:
        for step in warm.run(kill_and_go_on, root):
            start, *after = step["facts"]
            assert after == [start, start + 1], step
            assert step["code"] == step["again"], step

    entries = read_audit(root / MODELS)[before:]
    assert [entry["kind"] for entry in entries if entry["kind"] in (PROMOTE, ROLLBACK)] == [PROMOTE, ROLLBACK]
    assert not (root / LIVE).exists()
    assert check_audit(Settings(_env_file=None), root)["differences"] == []
    with pytest.raises(Quarantined):
        story.promoter(NEW_YEAR).promote_model(story.second)
    assert all((path / RELEASE_FILE).is_file() for path in (root / MODELS / ARCHIVE_FOLDER).iterdir())
