"""The life of a student: trained, validated, approved, promoted, served, replaced, brought back.

One story: A is promoted on 1 January, B on 1 March. It is told in process by `StudentModelPromoter` and
on the command line; every candidate is real (`tests.factory`). What happens when the process is killed
on the way stands in the tests of crashes.
"""

from __future__ import annotations

import datetime as dt
import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from sqkit.artifacts import ARCHIVE_FOLDER, CHECKLIST_FILE, RELEASE_FILE
from sqkit.errors import ArchiveUnknown, DecisionStale, Quarantined
from sqkit.files import sha256_file
from sqkit.people import Actor
from sqkit.production.promoter import StudentModelPromoter
from sqkit.settings import Settings
from sqkit.student import StudentModel
from tests.factory import FIRST, SECOND, clock_of, make_candidate
from tests.project import Project

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
