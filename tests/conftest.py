"""Fixtures that more than one test file needs."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.market import Market

ROOT = Path(__file__).resolve().parents[1]

# A suite started as a shell's background job ignores Ctrl-C, and so would every process it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


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


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Market:
    """A planted swing market with a teacher and two students; read only."""
    from tests.market import build_market  # only tests that need the chain pay for its imports

    return build_market(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="session")
def validated(planted: Market, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a whole validation of the planted market's student against the rule; read only."""
    from tests.market import validate

    folder = tmp_path_factory.mktemp("validated")
    validate(planted, folder)
    return folder
