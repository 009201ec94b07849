"""The same inputs give the same bytes, in another process, another folder, another time zone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.project import STUDENT, TEACHER, Project, planted_project

pytestmark = pytest.mark.slow


def _whole_job(root: Path, environment: dict[str, str]) -> Project:
    project = planted_project(root)
    words = ("--teacher-dir", TEACHER, "--output-dir", STUDENT, "--validate")
    run = project.sqkit("train-student", *words, environment=environment)
    assert run.returncode == 0, run.stderr
    return project


def test_the_whole_job_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    """Model, predictions, checklist, HTML, Markdown, figures and manifest are equal, byte for byte."""
    first = _whole_job(tmp_path / "first", {"TZ": "UTC", "PYTHONHASHSEED": "1"})
    second = _whole_job(tmp_path / "elsewhere" / "second", {"TZ": "Asia/Kolkata", "PYTHONHASHSEED": "2"})

    assert first.files() == second.files()
    different = [
        name
        for name in sorted(first.files())
        if (first.root / name).read_bytes() != (second.root / name).read_bytes()
    ]
    assert different == []
