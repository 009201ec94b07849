"""The drill of docs/rollback.md: its blocks run in bash, as printed, in a project with two real releases."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from sqkit.audit_log import read_audit
from sqkit.files import sha256_file
from sqkit.production.promoter import StudentModelPromoter
from sqkit.production.slot_state import fold
from sqkit.settings import Settings
from tests.factory import FIRST, PROJECT, SECOND, clock_of, make_candidate
from tests.shell import in_bash as pasted

pytestmark = pytest.mark.slow

PAGE = PROJECT / "docs/rollback.md"
MODELS = Path("data/models")


def drill_blocks() -> list[str]:
    """The bash blocks of the page's section on the drill, in order."""
    section = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[-1]
    assert section.startswith("9. Drill")
    return re.findall(r"^```bash\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which B replaced A."""
    root = tmp_path_factory.mktemp("drilled") / "project"
    root.mkdir()
    for tag, seed in ((FIRST, 0), (SECOND, 1)):
        model = make_candidate(root, tag, seed=seed)
        promoter = StudentModelPromoter(
            Settings(_env_file=None), root=root, clock=lambda tag=tag: clock_of(tag), environ={}
        )
        promoter.promote_model(model)
    return root


@pytest.fixture
def copied(project: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of the project for one test."""
    root = tmp_path / "project"
    shutil.copytree(project, root)
    yield root
    for folder in (tmp_path, *tmp_path.rglob("*")):
        if folder.is_dir():
            folder.chmod(0o755)


def in_bash(block: str, root: Path) -> str:
    """Run a block in a project as a person would paste it, on the day of the second release; what it printed."""
    return pasted(block, root, clock_of(SECOND))


def digests(root: Path) -> dict[str, str]:
    """Every file of a project but locks."""
    files = [path for path in root.rglob("*") if path.is_file() and not path.name.endswith(".lock")]
    return {path.relative_to(root).as_posix(): sha256_file(path) for path in files}


def test_the_monthly_drill_passes_and_adds_one_line(copied: Path) -> None:
    """The first block verifies, names the earlier release, passes the drill, and leaves one line in the log."""
    before = digests(copied)

    said = in_bash(drill_blocks()[0], copied)

    after = digests(copied)
    changed = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    assert "audit: verified" in said
    assert f"would go back to {FIRST}" in said
    assert f"rolled back to {SECOND}" in said
    assert f"rolled back to {FIRST}" in said
    assert "rollback drill passed" in said
    assert changed == {"data/models/audit.jsonl", "data/models/audit.head"}
    assert read_audit(copied / MODELS)[-1]["kind"] == "drill"
    assert list(copied.with_name("scratch").iterdir()) == []


def test_the_quarterly_drill_goes_back_and_forth_on_a_copy(copied: Path) -> None:
    """The second block leaves the project alone; in its copy A was live, was ratified, and B is live again."""
    before = digests(copied)

    said = in_bash(drill_blocks()[1], copied)

    (copy,) = copied.with_name("scratch").iterdir()
    entries = read_audit(copy / MODELS)
    live = fold(entries, "default").live
    assert digests(copied) == before
    assert [entry["kind"] for entry in entries[-6:]] == [
        *("halt", "rollback", "resume", "ratify", "quarantine_release", "rollback")
    ]
    assert entries[-5]["model_version"] == FIRST
    assert live is not None
    assert live.model_version == SECOND
    assert sha256_file(copy / "data/models/production/student_model.onnx") == live.model
    assert "audit: verified" in said


def test_a_copy_with_settings_of_the_real_project_stays_a_copy(copied: Path) -> None:
    """Even where .env names the real place by its whole path, the second block touches nothing there."""
    place = copied / MODELS / "production/student_model.onnx"
    (copied / ".env").write_text(
        f"SENSEQUANT_DATA_DIR={copied / 'data'}\nSENSEQUANT_STUDENT_MODEL_PATH={place}\n"
    )
    exported = f"export SENSEQUANT_DATA_DIR={copied / 'data'} SENSEQUANT_STUDENT_MODEL_PATH={place}\n"
    before = digests(copied)

    in_bash(exported + drill_blocks()[1], copied)

    assert digests(copied) == before
