"""Fixtures that more than one test file needs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real market bars beside the project; without it the test is skipped."""
    place = Path(os.environ.get("SQKIT_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not (place / "README.md").is_file():
        pytest.skip(f"no real bars at {place}; set SQKIT_SHARED_DATA")
    return place


@pytest.fixture(scope="session")
def without_root_rights() -> list[str]:
    """A command prefix under which file permissions count, also when the tests run as root."""
    if os.getuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("runs as root and setpriv (util-linux) is not installed")
    return ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
