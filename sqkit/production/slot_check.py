"""Is a slot as the log says: the model in its place, the record beside it, the halt flag?

The audit check, ``sqkit status`` and ``sqkit doctor`` ask here. In: lines of the log, the models folder and a
slot. Out: one line for each difference, none when all is well; nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from sqkit.artifacts import ARCHIVE_FOLDER
from sqkit.audit_log import AUDIT_FILE
from sqkit.chain import Entry
from sqkit.errors import SqkitError
from sqkit.files import sha256_bytes
from sqkit.production.halting import read_level
from sqkit.production.release import production_bytes, read_release, release_record
from sqkit.production.slot_state import ReleaseFact, SlotState, fold
from sqkit.production.slots import Slot
from sqkit.settings import PREFIX

STRAY: Final = "move it away, or validate again with --baseline-model rule"
"""What to do about a production file that nobody promoted where no release is live; a promotion then archives it."""

_PLURAL: Final = ("approvals", "signers")
_WORDS: Final = {
    "placed_by": "the line that put it there",
    "promotion": "the line that made the release",
}


def has_log(models_dir: Path) -> bool:
    """Whether an audit log belongs here; a host with neither log nor archive only has its records."""
    return (models_dir / AUDIT_FILE).exists() or (models_dir / ARCHIVE_FOLDER).is_dir()


def slot_problems(models_dir: Path, entries: Sequence[Entry], slot: Slot) -> list[str]:
    """Every difference between a slot and the log."""
    state = fold(entries, slot.name)
    return [
        *model_problems(slot, state),
        *_placed_record_problems(models_dir, entries, slot, state),
        *halt_problems(slot, state),
    ]


def model_problems(slot: Slot, state: SlotState) -> list[str]:
    """What is different between the production model and the live release."""
    live = state.live
    try:
        present = production_bytes(slot)
    except SqkitError as problem:
        return [str(problem)]
    digest = None if present is None else sha256_bytes(present)
    if digest == (live.model if live else None):
        return []
    if present is None and live is not None:
        return [f"{slot.model_path}: missing, but the log has {live.described} live in slot {slot.name}"]
    known = {release.model: release for release in state.releases.values()}
    what = known[digest].described if digest in known else "a model that no line names"
    said = live.described if live else "no student"
    return [f"{slot.model_path}: holds {what}, but the log has {said} in slot {slot.name}"]


def _placed_record_problems(
    models_dir: Path, entries: Sequence[Entry], slot: Slot, state: SlotState
) -> list[str]:
    placed_by, shown = state.placed_by, str(slot.release_path)
    if not slot.release_path.exists():
        nobody = placed_by is None or (
            state.live is not None and placed_by is state.live.entry and state.live.unmanaged
        )
        return (
            []
            if nobody or placed_by is None
            else [f"{shown}: missing since {placed_by['at']}, when the log put a release there"]
        )
    if placed_by is None:
        return [f"{shown}: no line of the log put a release into slot {slot.name}"]
    return record_problems(
        slot.release_path,
        shown,
        models_dir=models_dir,
        slot=slot.name,
        release=state.live,
        placed_by=placed_by,
        entries=entries,
    )


def record_problems(
    place: Path,
    shown: str,
    *,
    models_dir: Path,
    slot: str,
    release: ReleaseFact | None,
    placed_by: Mapping[str, object],
    entries: Sequence[Entry],
) -> list[str]:
    """A ``release.json`` against the one that log and archive give, but for line numbers: those are witnesses.

    Parameters
    ----------
    place, shown
        Where it lies, and how messages call it.
    release, placed_by
        What it is the record of, and the line that put it there.
    """
    try:
        record = read_release(place)
    except (SqkitError, OSError) as problem:
        return [f"{shown}: {str(problem).removeprefix(f'{place}: ')}"]
    try:
        expected = release_record(models_dir, slot, release, dict(placed_by), entries)
    except (SqkitError, OSError, LookupError, UnicodeDecodeError):
        return []  # its source in the archive is damaged, and named there
    return [
        f"{shown}: {_WORDS.get(name, name)} {'are' if name in _PLURAL else 'is'} not what log and archive say"
        for name in sorted({*record, *expected} - {"log_lines"})
        if record.get(name) != expected.get(name)
    ]


def halt_problems(slot: Slot, state: SlotState) -> list[str]:
    """What is different between the halt flag of a slot and the log."""
    flag, said, shown = read_level(slot.halt_path), state.halt_level, str(slot.halt_path)
    if flag == said:
        return []
    if flag is None and state.halted is not None:
        return [f"{shown}: missing, but slot {slot.name} was halted at {state.halted['at']} ({said})"]
    if said is None:
        return [f"{shown}: halts slot {slot.name}, but no line of the log does ({flag})"]
    return [
        f"{shown}: halts slot {slot.name} at {flag}, the log at {said}; the stricter one holds, sqkit halt --level "
        "LEVEL settles it"
    ]


def lone_problems(slot: Slot) -> list[str]:
    """What is wrong with a slot on a host without a log, whose record has to prove itself."""
    if not slot.release_path.exists():
        stray = f"{slot.model_path}: nobody promoted this model: {STRAY} and promote"
        return [stray] if slot.model_path.exists() else []
    try:
        record, present = read_release(slot.release_path), production_bytes(slot)
    except (SqkitError, OSError) as problem:
        return [str(problem)]
    if (None if present is None else sha256_bytes(present)) == record["model"]:
        return []
    return [f"{slot.model_path}: is not the model that {slot.release_path.name} names"]


def placeless_slots(entries: Sequence[Entry], slots: Sequence[Slot]) -> list[str]:
    """Slots that the log has something live in, and for which the settings name no place."""
    names = {entry["slot"] for entry in entries} - {slot.name for slot in slots}
    live = {name: fold(entries, name).live for name in sorted(names)}
    return [
        f"slot {name}: the log has {release.described} live, but the settings name no place for this slot; set "
        f"{PREFIX}STUDENT_MODEL_PATHS, or its production files stay unseen"
        for name, release in live.items()
        if release is not None
    ]
