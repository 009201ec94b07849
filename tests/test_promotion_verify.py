"""The decision is computed again before a promotion where that can be done, and that outcome counts.

Candidates are made by the real chain, or by hand where they must not hold; ``sqkit verify`` is the real one.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sqkit.artifacts import VERIFICATION_FILE
from sqkit.audit_log import PROMOTE
from sqkit.errors import ArtifactChanged
from sqkit.files import read_json, write_json
from sqkit.production.audit import AuditLog
from sqkit.production.promoter import StudentModelPromoter
from sqkit.research.verification import verify
from sqkit.settings import Settings
from tests.factory import FIRST, clock_of, make_candidate
from tests.project import clean_environment
from tests.promotable import Promotable, promotable, snapshot
from tests.releases import ASHA

WITHOUT_RESEARCH = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"pandas", "pyarrow", "sklearn", "matplotlib", "papermill"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
"""
"""A host on which the research extra is not installed."""

RUN = """
import sys
from sqkit.cli import main
main(sys.argv[1:])
"""


# --- a decision that does not follow from its files


@pytest.fixture
def made_by_hand(tmp_path: Path) -> Promotable:
    """A candidate whose stored outcome says verified, every digest in order; its numbers come from nowhere."""
    return promotable(tmp_path)


def promoter_of(project: Promotable, verifying: Any = None) -> StudentModelPromoter:
    """The promoter of its project, at its time."""
    return StudentModelPromoter(
        project.settings,
        root=project.root,
        clock=lambda: project.now,
        actor=ASHA,
        environ={},
        verify=verifying,
    )


def test_a_difference_refuses_whatever_is_stored(made_by_hand: Promotable) -> None:
    """The stored outcome alone would let it through; computed again it does not hold, and nothing is written."""
    again = partial(
        verify, reports_dir=made_by_hand.root / made_by_hand.settings.reports_dir, root=made_by_hand.root
    )
    assert promoter_of(made_by_hand).validate_promotion(made_by_hand.typed).can_promote
    before = snapshot(made_by_hand.root)
    promoter = promoter_of(made_by_hand, again)

    result = promoter.validate_promotion(made_by_hand.typed)
    assert not result.can_promote
    (reason,) = result.reasons
    assert reason.startswith("verification: ")
    assert "status differs" in reason
    assert "see them with sqkit verify" in reason
    assert promoter.plan_promotion(made_by_hand.typed).steps == ()
    assert snapshot(made_by_hand.root) == before
    with pytest.raises(ArtifactChanged, match="status differs") as refused:
        promoter.promote_model(made_by_hand.typed)
    assert refused.value.exit_code == 4
    assert made_by_hand.log.entries()[-1]["kind"] != PROMOTE


# --- a candidate of the real chain


@pytest.fixture(scope="module")
def approved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a candidate that may be promoted; read only."""
    root = tmp_path_factory.mktemp("approved")
    make_candidate(root, FIRST)
    return root


@pytest.fixture
def ready(approved: Path, tmp_path: Path) -> Path:
    """A copy of it, whose stored outcome has a note that no verification would give."""
    root = tmp_path / "project"
    shutil.copytree(approved, root)
    place = root / STUDENT / VERIFICATION_FILE
    write_json(place, read_json(place) | {"notes": ["written by hand"]})
    return root


STUDENT = Path(f"data/models/{FIRST}/student")


def sqkit(root: Path, *words: str, without_research: bool = False) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, an hour after the candidate was made."""
    code = (WITHOUT_RESEARCH if without_research else "") + RUN
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        env=clean_environment() | {"SOURCE_DATE_EPOCH": str(int(clock_of(FIRST).timestamp()))},
    )


def archived_outcome(root: Path) -> dict[str, Any]:
    """The verification that lies in the archive of the one release."""
    (place,) = (root / "data/models/archive").glob(f"*/{VERIFICATION_FILE}")
    return json.loads(place.read_text())  # type: ignore[no-any-return]


@pytest.mark.slow
def test_what_was_computed_again_is_what_is_archived(ready: Path) -> None:
    """The stored file is left alone; the archive holds today's outcome, and the audit line its digest."""
    stored = (ready / STUDENT / VERIFICATION_FILE).read_bytes()
    run = sqkit(ready, "promote", "--model", f"{STUDENT}/student_model.onnx")

    assert run.returncode == 0, run.stderr
    assert "research extra" not in run.stderr
    assert "; it may trade PLANT01 PLANT02 PLANT03 PLANT04" in run.stdout
    (folder,) = (ready / "data/models/archive").iterdir()
    assert f"archived as data/models/archive/{folder.name}; audit line" in run.stdout
    kept = archived_outcome(ready)
    assert (kept["status"], kept["differences"]) == ("verified", [])
    assert "written by hand" not in kept["notes"]
    assert (ready / STUDENT / VERIFICATION_FILE).read_bytes() == stored
    assert sqkit(ready, "verify", "--audit").returncode == 0


@pytest.mark.slow
def test_without_the_research_extra_the_stored_outcome_counts_and_that_is_said(ready: Path) -> None:
    """One line on standard error; the stored file is what is archived."""
    run = sqkit(ready, "promote", "--model", f"{STUDENT}/student_model.onnx", without_research=True)

    assert run.returncode == 0, run.stderr
    assert (
        "sqkit: the research extra is not installed; verification.json is taken as it is"
        in run.stderr.splitlines()
    )
    assert archived_outcome(ready)["notes"] == ["written by hand"]


@pytest.mark.slow
def test_without_the_research_extra_what_was_verified_is_hashed_again(ready: Path) -> None:
    """Taken as it is does not mean unseen: a prediction changed since is refused, and nothing is promoted."""
    place = next((ready / STUDENT).glob("validation_telemetry/*.parquet"))
    place.write_bytes(place.read_bytes() + b"\0")
    run = sqkit(ready, "promote", "--model", f"{STUDENT}/student_model.onnx", without_research=True)

    assert run.returncode == 4
    assert "is not the file that was verified" in run.stderr
    settings = Settings(_env_file=None)
    log = AuditLog(ready / settings.data_dir / "models")
    assert PROMOTE not in {entry["kind"] for entry in log.entries()}
