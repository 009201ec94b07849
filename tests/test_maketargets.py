"""What make runs to change production: a verdict, its reason and a path last; exit 0 for every verdict."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sqkit.artifacts import STUDENT_FILE
from tests.project import clean_environment
from tests.releases import Slotted
from tests.small_candidate import small_candidate

ROOT = Path(__file__).resolve().parents[1]


def _make(root: Path, target: str, **given: str) -> subprocess.CompletedProcess[str]:
    """What the Makefile runs, in a project's folder."""
    return subprocess.run(
        [sys.executable, "-m", "sqkit.research.maketargets", target],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        env=clean_environment() | {"SOURCE_DATE_EPOCH": "1735772400", "SENSEQUANT_MARKET": "us"} | given,
    )


def test_every_target_of_the_makefile_is_one_of_ours() -> None:
    """No target of the Makefile calls something that is not there, and none of ours is left out."""
    from sqkit.research.maketargets import TARGETS

    called = {
        line.split()[-1]
        for line in (ROOT / "Makefile").read_text().splitlines()
        if line.startswith("\t@$(TARGET)")
    }

    assert called == set(TARGETS)


def test_a_candidate_that_nobody_approved_is_refused_and_make_goes_on(tmp_path: Path) -> None:
    """Verdict, reason and model last on standard output; nothing went into production."""
    model = small_candidate(tmp_path).relative_to(tmp_path)

    run = _make(tmp_path, "promote", VERSION=model.parts[-3])

    assert run.returncode == 0, run.stderr
    verdict, reason, path = run.stdout.splitlines()[-3:]
    assert verdict == "REFUSED"
    assert reason
    assert not reason.startswith("sqkit: ")
    assert path == str(model)
    assert not (tmp_path / "data/models/production" / STUDENT_FILE).exists()


@pytest.mark.parametrize(
    ("target", "given", "words"),
    [
        ("promote", {}, "there is no student to promote"),
        ("promote", {"VERSION": "20990101_000000"}, "VERSION=20990101_000000: there is no"),
        ("rollback", {}, 'make rollback REASON="..."'),
    ],
)
def test_what_cannot_be_meant_fails(target: str, given: dict[str, str], words: str, tmp_path: Path) -> None:
    """A missing reason, or a student that is not there, is an error and no verdict."""
    run = _make(tmp_path, target, **given)

    assert run.returncode == 2
    assert words in run.stderr
    assert run.stdout == ""


def test_a_rollback_goes_back_and_says_where(tmp_path: Path) -> None:
    """The earlier release is in production; verdict, what runs now, and its archive folder last."""
    slotted = Slotted(tmp_path)
    first = slotted.promote(1)
    slotted.promote(2)

    run = _make(tmp_path, "rollback", REASON="drawdown on 3 March")

    assert run.returncode == 0, run.stderr
    verdict, reason, path = run.stdout.splitlines()[-3:]
    assert verdict == "ROLLED BACK"
    assert reason.startswith(f"slot default runs {first['model_version']}")
    assert path == f"data/models/archive/{first['release']}"
    assert slotted.state.live is not None
    assert slotted.state.live.name == first["release"]
    assert slotted.production.log.entries()[-1]["reason"] == "drawdown on 3 March"
