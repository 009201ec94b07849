"""Bringing production to where the log says it is: what a promotion does last and a repair does again.

Everything after the audit line is here and follows from the log and the disk alone, so that a
promotion, a rollback and whoever comes after a crash do the very same.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from sqkit.artifacts import ARCHIVE_FOLDER, RELEASE_FILE, STUDENT_FILE
from sqkit.audit_log import UNMANAGED
from sqkit.chain import Entry
from sqkit.errors import ReleaseDamaged, SqkitError
from sqkit.files import (
    canonical_json,
    fsync_folder,
    output_errors,
    sha256_bytes,
    temporaries,
    write_bytes,
    write_json,
)
from sqkit.production.archive import archived_model, is_sealed, is_stored, seal
from sqkit.production.env_file import ENABLED, env_path, rewrite
from sqkit.production.halting import flag_of, read_level
from sqkit.production.release import production_bytes, read_release, release_record
from sqkit.production.slot_state import ReleaseFact, SlotState
from sqkit.production.slots import Slot
from sqkit.production.steps import Step

_LONG_SECONDS: Final = 60.0

IMAGINED: Final = "imagined"
"""Digest of a line that a dry run only imagines."""


def finishing(
    models_dir: Path,
    slot: Slot,
    state: SlotState,
    entries: Sequence[Entry],
    root: Path,
    *,
    repairing: bool = False,
) -> list[Step]:
    """What is still to be done so that archive, env file and production are as the log says.

    Parameters
    ----------
    state, entries
        The slot's state and the whole log that it follows from.
    root
        The project's root, below which the env file lies.
    repairing
        Nobody asked for this just now: scoring is not enabled in the env file.

    Returns
    -------
    list
        Steps in order; empty when everything is in place. Doing a step again changes nothing.
    """
    placed_by, live = state.placed_by, state.live
    steps = [
        Step(
            f"seal {ARCHIVE_FOLDER}/{release.name} with {RELEASE_FILE}",
            partial(_seal, models_dir, slot, release, entries),
        )
        for release in state.releases.values()
        if not is_sealed(models_dir, release.name)
        and (is_stored(models_dir, release.name) or release.entry["digest"] == IMAGINED)
    ]
    if state.halted is not None and read_level(slot.halt_path) is None:
        flag = flag_of(state.halted)
        steps.append(Step(f"write {slot.halt_path.name} again", lambda: write_json(slot.halt_path, flag)))
    steps += [
        Step(f"remove {path.name}, left by a process that was killed", partial(_remove, path))
        for path in temporaries(slot.halt_path)
        if _is_old(path)
    ]
    if placed_by is None or placed_by["kind"] == UNMANAGED:
        return steps  # nobody put it there: there is nothing to bring about
    if _recorded(slot) != placed_by["digest"]:
        steps += _environment(placed_by, root, repairing=repairing)
        steps.append(
            Step(
                f"write {slot.release_path.name} beside the model of slot {slot.name}",
                lambda: _put(
                    slot.release_path,
                    canonical_json(release_record(models_dir, slot.name, live, placed_by, entries)).encode(),
                ),
            )
        )
    return [*steps, *_model(models_dir, slot, live)]


def _seal(models_dir: Path, slot: Slot, release: ReleaseFact, entries: Sequence[Entry]) -> None:
    """A release that was damaged since stays unsealed: what is live does not hang on it."""
    with contextlib.suppress(ReleaseDamaged):
        record = release_record(models_dir, slot.name, release, release.entry, entries)
        seal(models_dir, release.name, record)


def _is_old(path: Path) -> bool:
    """A halt takes no lock: a flag that is being written now is left alone."""
    try:
        return time.time() - path.stat().st_mtime > _LONG_SECONDS
    except OSError:
        return False


def _recorded(slot: Slot) -> str:
    """Digest of the line that the record beside the model names; empty where there is no sound record."""
    try:
        return str(read_release(slot.release_path)["placed_by"]["digest"])
    except SqkitError:
        return ""


def _environment(placed_by: Entry, root: Path, *, repairing: bool) -> list[Step]:
    asked: dict[str, Any] | None = placed_by.get("environment")
    if asked is None:
        return []
    lines = [line for line in asked["lines"] if not (repairing and line.startswith(f"{ENABLED}="))]
    path = env_path(root, asked["file"])
    return [Step(f"set {', '.join(lines)} in {asked['file']}", lambda: rewrite(path, lines))]


def _model(models_dir: Path, slot: Slot, live: ReleaseFact | None) -> list[Step]:
    try:
        present = production_bytes(slot)
    except SqkitError:
        present = b""
    if live is None:
        if present is None:
            return []
        return [Step(f"remove {slot.model_path.name} of slot {slot.name}", lambda: _remove(slot.model_path))]
    if present is not None and sha256_bytes(present) == live.model:
        return []
    return [
        Step(
            f"put {ARCHIVE_FOLDER}/{live.name}/{STUDENT_FILE} in place of the model of slot {slot.name}",
            lambda: _put(slot.model_path, archived_model(models_dir, live.name, live.model)),
        )
    ]


def _put(path: Path, data: bytes) -> None:
    _clear_folder(path)
    write_bytes(path, data, alone=True)


def _clear_folder(path: Path) -> None:
    """Move a folder aside that lies where a file belongs: it must not keep a person from going back."""
    if path.is_dir() and not path.is_symlink():
        with output_errors(path):
            aside = Path(tempfile.mkdtemp(prefix=f"{path.name}.aside-", dir=path.parent))
            path.rename(aside / path.name)


def _remove(path: Path) -> None:
    _clear_folder(path)
    with output_errors(path):
        path.unlink(missing_ok=True)
        fsync_folder(path.parent)


def unrecorded_model(slot: Slot, state: SlotState) -> bytes | None:
    """The production file where no line ever named its bytes: somebody copied it there; else None."""
    present = production_bytes(slot)
    if present is None:
        return None
    known = {release.model for release in state.releases.values()}
    return None if sha256_bytes(present) in known else present
