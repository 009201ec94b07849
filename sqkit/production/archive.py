"""The archive: one folder for every release that ever was in production, never changed again.

A folder gets its name by rename when it is whole, before the audit line that names it; it is sealed
with ``release.json`` after that line. An archived folder without a seal that no line names never
counted and may be cleared away. Nothing is read or written through a symlink.
"""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from sqkit.artifacts import ARCHIVE_FOLDER, RELEASE_FILE, STUDENT_FILE
from sqkit.audit_log import is_release_name
from sqkit.errors import ConflictError, OutputError, ReleaseDamaged
from sqkit.files import (
    fsync_folder,
    make_folder,
    output_errors,
    sha256_bytes,
    sha256_file,
    write_bytes,
    write_json,
)
from sqkit.production.steps import Step

_DIGITS: Final = 8
_STAGING: Final = ".staging"
SET_ASIDE: Final = ".set-aside-"
"""Begins the name of a folder that `set_aside` put out of the way."""


def archive_name(at: dt.datetime, zone: str, model_digest: str) -> str:
    """``<YYYYMMDD_HHMMSS>_<digest8>``: the instant in the market's zone, and the model."""
    return f"{at.astimezone(ZoneInfo(zone)):%Y%m%d_%H%M%S}_{model_digest[:_DIGITS]}"


def archive_folder(models_dir: Path, name: str) -> Path:
    """Where the release of that name lies."""
    return models_dir / ARCHIVE_FOLDER / name


def astray(models_dir: Path, name: str = "") -> str:
    """Why the archive, or a release in it, is not a folder of its own here; empty where it is, or is not there."""
    archive = models_dir / ARCHIVE_FOLDER
    if archive.is_symlink() and models_dir.resolve() not in archive.resolve().parents:
        return f"{archive}: leads out of {models_dir}; make it a folder there"
    if name and not is_release_name(name):
        return f"{archive}/{name}: is no name of an archived release"
    if name and (archive / name).is_symlink():
        return f"{archive / name}: is a symlink, and no archived release"
    return ""


def storing(models_dir: Path, name: str, files: Mapping[str, bytes]) -> list[Step]:
    """Steps that store the files of a release: written and flushed aside, then named by one rename.

    Doing them raises ConflictError where a release of that name is there, OutputError where the disk
    is full or read-only; `clear_leftover` removes what a failure leaves.
    """
    final = archive_folder(models_dir, name)
    staging = staging_place(models_dir, name)
    return [
        Step(f"make {ARCHIVE_FOLDER}/{staging.name}", lambda: _make_staging(final, staging)),
        *(
            Step(f"write {ARCHIVE_FOLDER}/{staging.name}/{file}", partial(_store, staging / file, data))
            for file, data in files.items()
        ),
        Step(f"rename it to {ARCHIVE_FOLDER}/{name}", lambda: _name(staging, final)),
    ]


def staging_place(models_dir: Path, name: str) -> Path:
    """Where a release is written before it has its name."""
    return models_dir / ARCHIVE_FOLDER / f".{name}{_STAGING}"


def _make_staging(final: Path, staging: Path) -> None:
    problem = astray(final.parent.parent)
    if problem:
        raise OutputError(problem, path=str(final.parent))
    if final.exists():
        raise ConflictError(
            f"{final}: a release of this second and model is archived already; run again in a second",
            path=str(final),
        )
    make_folder(final.parent)
    with output_errors(staging):
        staging.mkdir()


def _store(place: Path, data: bytes) -> None:
    write_bytes(place, data)
    with output_errors(place):
        place.chmod(0o444)  # an archived release never changes


def _name(staging: Path, final: Path) -> None:
    with output_errors(final):
        fsync_folder(staging)
        staging.rename(final)
        fsync_folder(final.parent)


def seal(models_dir: Path, name: str, record: Mapping[str, Any]) -> None:
    """Write ``release.json`` into an archived release; sealing again with the same record changes nothing."""
    problem = astray(models_dir, name)
    if problem:
        raise ReleaseDamaged(f"{problem}; restore it from a backup", release=name)
    place = archive_folder(models_dir, name) / RELEASE_FILE
    if not place.exists():
        write_json(place, record, alone=True)


def is_sealed(models_dir: Path, name: str) -> bool:
    """Whether an archived release has its ``release.json``."""
    return (archive_folder(models_dir, name) / RELEASE_FILE).is_file()


def is_stored(models_dir: Path, name: str) -> bool:
    """Whether an archived release has a folder of its own."""
    return not astray(models_dir, name) and archive_folder(models_dir, name).is_dir()


def archive_differences(models_dir: Path, name: str, files: Mapping[str, str]) -> list[str]:
    """What in an archived release is not as the log names it; one line each, empty when it is whole."""
    folder, found = archive_folder(models_dir, name), []
    elsewhere = astray(models_dir, name)
    if elsewhere:
        return [elsewhere]
    if not folder.is_dir():
        return [f"{ARCHIVE_FOLDER}/{name}: the archived release is missing"]
    for file, digest in sorted(files.items()):
        place = folder / file
        try:
            known = sha256_file(place) if place.is_file() and not place.is_symlink() else ""
        except OSError as problem:
            found.append(f"{ARCHIVE_FOLDER}/{name}/{file}: cannot be read ({problem.strerror})")
            continue
        if not known:
            found.append(f"{ARCHIVE_FOLDER}/{name}/{file}: missing")
        elif known != digest:
            found.append(f"{ARCHIVE_FOLDER}/{name}/{file}: changed since it was archived")
    return found


def archived_model(models_dir: Path, name: str, digest: str) -> bytes:
    """The bytes of an archived model, refused unless they have the digest that the log names.

    Raises
    ------
    ReleaseDamaged
        It is missing, cannot be read or was changed.
    """
    return archived_file(models_dir, name, STUDENT_FILE, digest)


def archived_file(models_dir: Path, name: str, file: str, digest: str) -> bytes:
    """`archived_model` for any file of a release."""
    place = archive_folder(models_dir, name) / file
    problem = astray(models_dir, name) or (f"{place}: is a symlink" if place.is_symlink() else "")
    data = b""
    if not problem:
        try:
            data = place.read_bytes()
        except OSError as unread:
            problem = f"{place}: cannot be read ({unread.strerror})"
    if not problem and sha256_bytes(data) != digest:
        problem = f"{place}: is not what the audit log names ({digest[:12]})"
    if problem:
        raise ReleaseDamaged(
            f"{problem}; restore it from a backup, or roll back to another release with sqkit rollback --to",
            path=str(place),
            expected=digest,
        )
    return data


def leftovers(models_dir: Path, named: set[str]) -> list[Path]:
    """Folders of promotions that never counted: staged ones, and unsealed ones that no line names."""
    archive = models_dir / ARCHIVE_FOLDER
    if not archive.is_dir() or astray(models_dir):
        return []
    return [
        path
        for path in sorted(archive.iterdir())
        if path.is_dir() and _never_counted(models_dir, path.name, named)
    ]


def _never_counted(models_dir: Path, name: str, named: set[str]) -> bool:
    if name.startswith(".") and name.endswith(_STAGING):
        return is_release_name(name[1 : -len(_STAGING)])
    return is_release_name(name) and name not in named and not is_sealed(models_dir, name)


def set_aside(path: Path) -> str:
    """Put a leftover out of the way; what was done.

    A staging folder is removed. A folder with a release's name is only renamed: where the log lost its
    line, it is the evidence.
    """
    if path.name.endswith(_STAGING) or path.is_symlink():
        clear_leftover(path)
        return f"removed {path.name}, left by a promotion that never counted"
    aside = path.with_name(f"{SET_ASIDE}{path.name}")
    earlier = len(
        list(path.parent.glob(f"{aside.name}*"))
    )  # one of this second and model was set aside before
    aside = aside.with_name(f"{aside.name}-{earlier + 1}") if earlier else aside
    with output_errors(path):
        path.rename(aside)
        fsync_folder(path.parent)
    return f"set {path.name} aside as {aside.name}, of a promotion that never counted by the log"


def clear_leftover(path: Path) -> None:
    """Remove the folder of a promotion that never counted."""
    with output_errors(path):
        if path.is_symlink():
            path.unlink()  # where it leads is nobody's leftover
        elif path.is_dir():
            shutil.rmtree(path)
