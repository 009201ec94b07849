"""The archive: whole releases, never changed again, and nothing outside of it read, written or removed."""

from __future__ import annotations

import datetime as dt
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sqkit.artifacts import RELEASE_FILE, STUDENT_FILE
from sqkit.errors import ConflictError, OutputError, ReleaseDamaged
from sqkit.files import sha256_bytes
from sqkit.production.archive import (
    archive_differences,
    archive_folder,
    archive_name,
    archived_model,
    clear_leftover,
    is_sealed,
    is_stored,
    leftovers,
    seal,
    storing,
)
from sqkit.production.steps import run_steps
from tests.releases import Slotted, files_below, model_bytes

NOON = dt.datetime(2025, 1, 1, 17, 0, tzinfo=dt.UTC)
FILES = {STUDENT_FILE: b"a model", "manifest.json": b"{}\n"}
NAMED = {name: sha256_bytes(data) for name, data in FILES.items()}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A models folder."""
    return tmp_path / "data/models"


@pytest.fixture
def slotted(tmp_path: Path) -> Slotted:
    """A scratch project with one release."""
    project = Slotted(tmp_path)
    project.promote(1, "2025-01-01")
    return project


def store(models: Path, digest: str = "a" * 64, files: dict[str, bytes] = FILES) -> str:
    """Store a release; its name."""
    name = archive_name(NOON, "America/New_York", digest)
    run_steps(storing(models, name, files), lambda step: None)
    return name


# --- storing


@pytest.mark.parametrize(
    ("zone", "name"),
    [
        ("America/New_York", "20241231_233000_abcdef01"),
        ("Asia/Kolkata", "20250101_100000_abcdef01"),
        ("UTC", "20250101_043000_abcdef01"),
    ],
)
def test_a_release_is_named_after_the_markets_clock_and_its_model(zone: str, name: str) -> None:
    """Half past four in the morning UTC is another day in New York."""
    at = dt.datetime(2025, 1, 1, 4, 30, tzinfo=dt.UTC)

    assert archive_name(at, zone, "abcdef0123456789") == name


def test_a_release_is_stored_whole_and_read_only(models: Path) -> None:
    """Every file is there to the byte, nobody may write to them, and nothing else is left."""
    name = store(models)
    folder = archive_folder(models, name)

    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o444}
    assert [path.name for path in folder.parent.iterdir()] == [name]
    assert archive_differences(models, name, NAMED) == []


@pytest.mark.parametrize("killed_before", range(4))
def test_a_release_has_its_name_only_when_it_is_whole(models: Path, killed_before: int) -> None:
    """Stopped before any of its steps there is no release of that name, and what is left counts as leftover."""
    name = archive_name(NOON, "UTC", "a" * 64)
    done: list[str] = []

    def stop(step: str) -> None:
        if len(done) == killed_before:
            raise KeyboardInterrupt
        done.append(step)

    with pytest.raises(KeyboardInterrupt):
        run_steps(storing(models, name, FILES), stop)

    assert not is_stored(models, name)
    left = leftovers(models, set())
    assert [path.name for path in left] == ([f".{name}.staging"] if killed_before else [])
    for path in left:
        clear_leftover(path)
    assert store(models, "a" * 64)


def test_a_name_is_given_once(models: Path) -> None:
    """The same model twice in a second is a conflict; what is archived stays as it is."""
    name = store(models)
    before = files_below(models)

    with pytest.raises(ConflictError, match="run again in a second"):
        store(models, files={STUDENT_FILE: b"another"})
    assert files_below(models) == before
    assert archive_differences(models, name, NAMED) == []


def test_the_same_model_twice_in_a_second_takes_nothing_away(tmp_path: Path) -> None:
    """Two slots, the very same file in both at the very same second: the second change is refused, and the release
    that the first made is still there."""
    swing = Slotted(tmp_path, slot_name="swing")
    default = Slotted(tmp_path)
    for project in (default, swing):
        project.copy_in(model_bytes(7))
    default.promote(1, "2025-01-01")
    whole = files_below(default.models / "archive")

    with pytest.raises(ConflictError, match="run again in a second"):
        swing.promote(2, "2025-01-01")
    assert files_below(default.models / "archive") == whole
    swing.promote(2)
    assert (default.live, swing.live) == (1, 2)


def test_a_sealed_release_is_not_sealed_anew(models: Path) -> None:
    """The first record stays; a release that is not there is not made by sealing it."""
    name = store(models)
    seal(models, name, {"first": True})
    seal(models, name, {"second": True})

    assert (archive_folder(models, name) / RELEASE_FILE).read_text() == '{\n  "first": true\n}\n'
    assert is_sealed(models, name)


# --- what is wrong with a release


def _remove(place: Path) -> None:
    place.unlink()


def _edit(place: Path) -> None:
    place.chmod(0o644)
    place.write_bytes(place.read_bytes() + b" ")


def _empty(place: Path) -> None:
    place.chmod(0o644)
    place.write_bytes(b"")


def _link(place: Path) -> None:
    """The very same bytes, elsewhere, behind a link."""
    place.rename(place.parents[3] / "elsewhere.onnx")
    place.symlink_to(place.parents[3] / "elsewhere.onnx")


def _folder(place: Path) -> None:
    place.unlink()
    place.mkdir()


@pytest.mark.parametrize(
    ("damage", "said"),
    [(_remove, "missing"), (_edit, "changed"), (_empty, "changed"), (_link, "missing"), (_folder, "missing")],
)
def test_damage_is_named_and_never_served(models: Path, damage: Callable[[Path], None], said: str) -> None:
    """A file that is gone, edited, emptied, a link or a folder: one line names it, and its bytes are refused."""
    name = store(models, NAMED[STUDENT_FILE])
    damage(archive_folder(models, name) / STUDENT_FILE)

    found = archive_differences(models, name, NAMED)
    assert len(found) == 1
    assert f"archive/{name}/{STUDENT_FILE}: {said}" in found[0]
    with pytest.raises(ReleaseDamaged, match="restore it from a backup") as caught:
        archived_model(models, name, NAMED[STUDENT_FILE])
    assert "\n" not in str(caught.value)


def test_a_file_that_may_not_be_read_is_named(models: Path, without_root_rights: list[str]) -> None:
    """Rights are said, and are no traceback."""
    name = store(models, NAMED[STUDENT_FILE])
    (archive_folder(models, name) / STUDENT_FILE).chmod(0)
    script = f"""
from pathlib import Path
from sqkit.production.archive import archive_differences
print(archive_differences(Path({str(models)!r}), {name!r}, {NAMED!r}))
"""
    run = subprocess.run(
        [*without_root_rights, sys.executable, "-c", script], capture_output=True, text=True, check=False
    )

    assert "cannot be read (Permission denied)" in run.stdout, run.stderr


def test_a_missing_release_is_named(models: Path) -> None:
    """Not file by file: the folder is gone."""
    assert archive_differences(models, "20250101_120000_aaaaaaaa", NAMED) == [
        "archive/20250101_120000_aaaaaaaa: the archived release is missing"
    ]


# --- nothing outside


def outside(tmp_path: Path, slotted: Slotted) -> Path:
    """A folder elsewhere that holds exactly the files of the live release."""
    place = tmp_path / "outside"
    shutil.copytree(slotted.archived(slotted.entries[0]), place)
    return place


def test_an_archived_release_behind_a_symlink_is_damaged(slotted: Slotted, tmp_path: Path) -> None:
    """Even with the very same bytes: what lies elsewhere is not the archive."""
    slotted.promote(2)
    first = slotted.archived(slotted.entries[0])
    place = outside(tmp_path, slotted)
    shutil.rmtree(first)
    first.symlink_to(place)
    before = files_below(place)

    assert not is_stored(slotted.models, first.name)
    with pytest.raises(ReleaseDamaged, match="is a symlink"):
        slotted.roll_back(first.name)
    assert slotted.roll_back() is not None
    assert slotted.live is None
    assert files_below(place) == before


def test_a_release_is_never_sealed_through_a_symlink(slotted: Slotted, tmp_path: Path) -> None:
    """A link in the place of an unsealed release: repairing writes nothing where it leads."""
    first = slotted.archived(slotted.entries[0])
    place = outside(tmp_path, slotted)
    (place / RELEASE_FILE).unlink()
    shutil.rmtree(first)
    first.symlink_to(place)
    before = files_below(place)

    with pytest.raises(ReleaseDamaged, match="is a symlink"):
        seal(slotted.models, first.name, {})
    slotted.production.recover()
    slotted.promote(2)
    assert files_below(place) == before
    assert slotted.live == 2


@pytest.mark.parametrize("file", ["approvals.json", "promotion_checklist.json", STUDENT_FILE])
def test_a_file_behind_a_symlink_is_not_taken(slotted: Slotted, tmp_path: Path, file: str) -> None:
    """A file of an earlier release that is a link: the release is passed over, whatever lies behind it."""
    slotted.promote(2)
    place = slotted.archived(slotted.entries[0]) / file
    place.rename(tmp_path / file)
    place.symlink_to(tmp_path / file)

    assert slotted.roll_back() is not None
    assert slotted.live is None
    with pytest.raises(ReleaseDamaged, match=file):
        slotted.roll_back(place.parent.name)


def test_an_archive_that_leads_out_of_the_models_folder_is_refused(tmp_path: Path) -> None:
    """The archive as a link to another place: nothing is stored there, and the refusal says what to do."""
    (tmp_path / "elsewhere").mkdir()
    project = Slotted(tmp_path / "project")
    project.models.mkdir(parents=True)
    (project.models / "archive").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(OutputError, match="leads out of"):
        project.promote(1)
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert project.entries == []


@pytest.mark.parametrize("name", ["..", "../..", "20250101_120000_aaaaaaaa/..", ".", "/tmp", ""])
def test_a_name_that_is_no_release_is_never_followed(slotted: Slotted, name: str) -> None:
    """Whoever asks: a name out of a doctored line leads nowhere."""
    before = files_below(slotted.root)
    if name:
        assert archive_differences(slotted.models, name, NAMED) == [
            f"{slotted.models}/archive/{name}: is no name of an archived release"
        ]
        with pytest.raises(ReleaseDamaged, match="no name of an archived release"):
            archived_model(slotted.models, name, "a" * 64)
        with pytest.raises(ReleaseDamaged, match="no name of an archived release"):
            seal(slotted.models, name, {})
    assert files_below(slotted.root) == before


# --- leftovers


def test_only_what_a_promotion_left_is_cleared(slotted: Slotted) -> None:
    """Whatever a person keeps in the archive stays, also under a name that begins with a digit.

    A staging folder is removed; a whole one that no line names is only set aside: should the log have lost
    its line, it is the evidence.
    """
    archive = slotted.models / "archive"
    name = "20250101_130000_aaaaaaaa"
    for kept in (
        "2024",
        "20250101",
        "20250101_backup",
        "notes",
        ".notes.staging",
        "20250101_130000_aaaaaaaa_old",
    ):
        (archive / kept).mkdir()
        (archive / kept / "mine.txt").write_text("mine")
    (archive / "20250101_130000_bbbbbbbb").write_text("a file of this name")
    for left in (name, f".{name}.staging"):
        (archive / left).mkdir()
        (archive / left / STUDENT_FILE).write_bytes(b"half")

    assert [path.name for path in leftovers(slotted.models, set())] == [f".{name}.staging", name]
    slotted.promote(2)
    assert len(slotted.said) == 2
    assert all("a promotion that never counted" in line for line in slotted.said)
    assert (archive / f".set-aside-{name}" / STUDENT_FILE).read_bytes() == b"half"
    shutil.rmtree(archive / f".set-aside-{name}")
    assert sorted(
        path.name for path in archive.iterdir() if not re.match(r"2025.*_[0-9a-f]{8}$", path.name)
    ) == [*(".notes.staging", "2024", "20250101", "20250101_130000_aaaaaaaa_old", "20250101_backup", "notes")]
    assert (archive / "20250101_130000_bbbbbbbb").read_text() == "a file of this name"


def test_a_sealed_release_is_never_a_leftover(slotted: Slotted) -> None:
    """Sealed means that it counted, even where this log does not name it."""
    release = slotted.archived(slotted.entries[0])

    assert leftovers(slotted.models, set()) == []
    (release / RELEASE_FILE).unlink()
    assert leftovers(slotted.models, set()) == [release]
    assert leftovers(slotted.models, {release.name}) == []


def test_of_a_leftover_that_is_a_symlink_only_the_link_goes(slotted: Slotted, tmp_path: Path) -> None:
    """What it leads to is somebody's own."""
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / STUDENT_FILE).write_bytes(b"mine")
    for name in ("20250101_130000_aaaaaaaa", ".20250101_130000_aaaaaaaa.staging"):
        (slotted.models / "archive" / name).symlink_to(mine)

    slotted.promote(2)
    assert (mine / STUDENT_FILE).read_bytes() == b"mine"
    assert not [path for path in (slotted.models / "archive").iterdir() if path.is_symlink()]
    assert slotted.live == 2


def test_leftovers_of_a_models_folder_that_is_not_there(models: Path) -> None:
    """Nothing, and nothing is made by looking."""
    assert leftovers(models, set()) == []
    assert not models.exists()
    assert os.path.lexists(models) is False
