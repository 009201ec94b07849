"""A scratch project for tests that run the real commands: planted bars, a teacher, a student.

`Project` runs ``sqkit`` as a stranger would, in its own process and folder, with a fixed
version tag and SOURCE_DATE_EPOCH.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqkit.research.planted import planted_market, write_market

VERSION = "20200101_000000"
EPOCH = "1577836800"
SESSIONS, TRAINING_SESSIONS, SYMBOLS, EDGE = 700, 450, 8, 0.3
MODEL = f"data/models/{VERSION}/student/student_model.onnx"
STUDENT = f"data/models/{VERSION}/student"
TEACHER = f"data/models/{VERSION}/teacher"


@dataclass(frozen=True)
class Project:
    """A folder in which sqkit is run."""

    root: Path
    prefix: list[str] = field(default_factory=list)

    def sqkit(
        self, *words: str, environment: dict[str, str] | None = None, prefix: list[str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run ``sqkit`` and return what it printed and how it exited."""
        return subprocess.run(
            [*(prefix or self.prefix), sys.executable, "-m", "sqkit.cli", *words],
            cwd=self.root,
            capture_output=True,
            text=True,
            check=False,
            env=clean_environment() | (environment or {}),
        )

    def json(self, *words: str) -> dict[str, Any]:
        """The JSON that a command printed."""
        return json.loads(self.sqkit(*words, "--json").stdout)  # type: ignore[no-any-return]

    def checklist(self, student: str = "") -> dict[str, Any]:
        """The checklist of a student's folder, of the first student's without a name."""
        path = self.root / (student or STUDENT) / "promotion_checklist.json"
        return json.loads(path.read_text())  # type: ignore[no-any-return]

    def files(self) -> set[str]:
        """Every file below the folder, hidden ones too, but for locks."""
        return {
            path.relative_to(self.root).as_posix()
            for path in self.root.rglob("*")
            if path.is_file() and not path.name.endswith(".lock")
        }


def refused(project: Project, code: int, words: list[str], line: str, **more: Any) -> None:
    """The command ends with `code` and one line that holds `line`; no file came, went or was written."""
    before = {name: (project.root / name).stat().st_mtime_ns for name in project.files()}
    run = project.sqkit(*words, **more)
    said = [text for text in run.stderr.splitlines() if text.startswith("sqkit: ")]
    assert run.returncode == code, run.stderr
    assert len(said) == 1
    assert line in said[0], run.stderr
    assert "Traceback" not in run.stderr
    assert {name: (project.root / name).stat().st_mtime_ns for name in project.files()} == before


def clean_environment() -> dict[str, str]:
    """The caller's environment without settings of sqkit's, with a fixed time."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SENSEQUANT_")}
    return kept | {"SOURCE_DATE_EPOCH": EPOCH, "OMP_NUM_THREADS": "1"}


def planted_project(root: Path) -> Project:
    """A project with planted daily bars and a teacher."""
    frames = planted_market(3, SYMBOLS, SESSIONS, "1d", EDGE)
    write_market(frames, root / "data/bars/1d")
    dates = next(iter(frames.values()))["timestamp"].dt.tz_convert("America/New_York").dt.date
    project = Project(root)
    run = project.sqkit(
        "train-teacher",
        "--market",
        "us",
        "--end",
        str(dates.iloc[TRAINING_SESSIONS - 1]),
        "--output-dir",
        TEACHER,
    )
    assert run.returncode == 0, run.stderr
    return project
