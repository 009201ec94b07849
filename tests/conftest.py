"""Fixtures that more than one test file needs."""

from __future__ import annotations

import os
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
