"""``make tour``, taken once: the real loop up to an automatic rollback, in a folder of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sqkit.audit_log import PROMOTE, ROLLBACK, read_audit
from sqkit.cli.tour_market import plant
from sqkit.production.monitor_store import MONITORING_FOLDER, STATE_FILE, MonitorStore
from sqkit.records import iso_date
from tests.project import clean_environment

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]


def written(*folders: Path) -> dict[Path, int]:
    """Every file below some folders with the time of its last change."""
    return {path: path.lstat().st_mtime_ns for folder in folders for path in folder.rglob("*")}


@dataclass(frozen=True)
class Taken:
    """A tour that was taken."""

    root: Path
    said: str
    elsewhere: tuple[dict[Path, int], dict[Path, int]]

    @property
    def steps(self) -> list[dict[str, Any]]:
        """Every change of state that monitoring kept."""
        store = MonitorStore(self.root / "data" / MONITORING_FOLDER / STATE_FILE, read_only=True)
        try:
            return store.steps("default")
        finally:
            store.close()


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> Taken:
    """As make runs it, but for the folder; settings of the caller's would spoil it."""
    here, root = tmp_path_factory.mktemp("here"), tmp_path_factory.mktemp("tour") / "folder"
    (here / ".env").write_text("SENSEQUANT_MARKET=nse\n")
    places = (here, ROOT / "data", ROOT / "reports")
    before = written(*places)
    run = subprocess.run(
        [sys.executable, "-m", "sqkit.cli.tour", str(root)],
        cwd=here,
        env=clean_environment() | {"PYTHONPATH": str(ROOT), "SENSEQUANT_STUDENT_MODEL_ENABLED": "false"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, f"{run.stdout[-3000:]}\n{run.stderr[-3000:]}"
    return Taken(root, run.stdout, (before, written(*places)))


def test_the_states_come_in_their_order(taken: Taken, tmp_path: Path) -> None:
    """OK before the market turns; after it alert, confirmation, rollback and verification, then OK again."""
    turned = iso_date(plant(tmp_path).breaks_on)
    before = [step["after"] for step in taken.steps if step["at"][:10] < turned]
    after = [step["after"] for step in taken.steps if step["at"][:10] >= turned]

    assert before[-1] == "OK"
    assert after[after.index("CONFIRMING") :] == ["CONFIRMING", "ROLLING_BACK", "VERIFYING", "OK"]


def test_the_rollback_is_a_decision_with_evidence(taken: Taken) -> None:
    """Two promotions with three approvals each, then the first model back, by the machine, on confirmed evidence."""
    entries = read_audit(taken.root / "data/models")
    first, second = (entry for entry in entries if entry["kind"] == PROMOTE)
    (back,) = (entry for entry in entries if entry["kind"] == ROLLBACK)

    assert len(first["approvals"]) == len(second["approvals"]) == 3
    assert back["model"] == first["digests"]["model"]
    assert back["quarantines"] == second["digests"]["model"]
    assert back["actor"]["name"] == "automatic"
    assert back["alert"]["confirmed"]
    assert min(back["alert"]["live"], back["alert"]["pair"]) >= back["alert"]["needed"] == 20.0


def test_each_step_is_told(taken: Taken) -> None:
    """Both verdicts, the commands as typed, every change of state with its date, the history, the folder."""
    commands = re.findall(r"^\$ sqkit ([a-z-]+)", taken.said, re.MULTILINE)

    assert len(re.findall(r"^ +PROMOTE$", taken.said, re.MULTILINE)) == 2
    assert commands.count("approve") == 6
    assert commands.count("promote") == 2
    assert commands[-1] == "history"
    for step in taken.steps:
        assert f"{step['at'][:10]}  {step['before']} -> {step['after']}" in taken.said
    assert "rolled back by the machine" in taken.said
    assert str(taken.root) in taken.said.split("== Where to look")[1]


def test_nothing_is_written_elsewhere(taken: Taken) -> None:
    """Neither where it was started nor in the project's data and reports."""
    before, after = taken.elsewhere

    assert after == before


def test_a_folder_with_something_in_it_is_left_alone(taken: Taken) -> None:
    """A second tour in the same folder is refused before anything is done."""
    before = written(taken.root)
    run = subprocess.run(
        [sys.executable, "-m", "sqkit.cli.tour", str(taken.root)],
        env=clean_environment() | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 2
    assert "is not empty" in run.stderr
    assert written(taken.root) == before
