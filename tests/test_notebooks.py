"""The notebooks run as a person opens them: top to bottom, from their own folder, with default cells."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sqkit.research.notebooks import check_stored
from tests.conftest import ROOT
from tests.project import STUDENT, TEACHER, clean_environment, planted_project

NOTEBOOKS = sorted((ROOT / "notebooks").glob("0[1-5]_*.ipynb"))


def test_there_are_the_notebooks_that_the_readme_names() -> None:
    """Explore, train, validate, checklist, monitor."""
    names = [path.stem for path in NOTEBOOKS]

    assert names == ["01_explore", "02_train", "03_validate", "04_checklist", "05_monitor"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_clean(path: Path) -> None:
    """No outputs, meaningful cell ids, typed parameters, no functions, no results typed into prose."""
    assert check_stored(path) == []


@pytest.mark.slow
def test_nbmake_runs_them_in_any_order(tmp_path: Path) -> None:
    """Each notebook passes under nbmake on one small planted student, whatever ran before it."""
    home = ROOT / "build" / "nbmake"
    shutil.rmtree(home, ignore_errors=True)
    project = planted_project(tmp_path)
    words = ("--teacher-dir", TEACHER, "--output-dir", STUDENT, "--validate")
    run = project.sqkit("train-student", *words)
    assert run.returncode == 0, run.stderr
    home.parent.mkdir(exist_ok=True)
    shutil.copytree(tmp_path / "data", home)
    environment = clean_environment() | {
        "SENSEQUANT_DATA_DIR": "build/nbmake",
        "SENSEQUANT_REPORTS_DIR": "build/nbmake/reports",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }

    result = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "--nbmake", "--nbmake-timeout=300", "-q"),
            *("-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts=", "-o", "filterwarnings=ignore"),
            *(str(path) for path in reversed(NOTEBOOKS)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )

    assert result.returncode == 0, result.stdout[-3000:]
    assert "5 passed" in result.stdout
