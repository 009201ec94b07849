"""What is wrong with settings and production, one line each, and what can be mended without a person.

``sqkit doctor`` calls `find_problems` and, with ``--fix``, `mend`. Finding never writes. Mending does what the next
promotion would do first: finish what a crash left, under the slots' locks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqkit.artifacts import ARCHIVE_FOLDER, RELEASE_FILE
from sqkit.audit_log import AUDIT_FILE, AUDIT_FORM, PROMOTE, UNMANAGED
from sqkit.chain import Entry, head_file, head_of, kept_head, read_chain
from sqkit.errors import AuditBroken, SettingsError, SqkitError
from sqkit.files import temporaries
from sqkit.production.alert_channels import channel_problems
from sqkit.production.archive import archive_differences, is_sealed, leftovers
from sqkit.production.audit import AuditLog
from sqkit.production.changes import Production
from sqkit.production.halting import read_level
from sqkit.production.slot_check import (
    STRAY,
    halt_problems,
    has_log,
    lone_problems,
    placeless_slots,
    slot_problems,
)
from sqkit.production.slot_state import SlotState, fold
from sqkit.production.slots import Slot, all_slots, models_folder
from sqkit.settings import PREFIX, Settings


@dataclass(frozen=True)
class Problem:
    """Something that is not as it should be.

    Attributes
    ----------
    what
        One line: what, where, and what to do.
    mends
        Whether `mend` puts it right.
    """

    what: str
    mends: bool = False


def find_problems(settings: Settings, root: Path = Path()) -> list[Problem]:
    """Settings, channels of alerts, audit log, interrupted work, production and halts; nothing is written."""
    said = [*settings.startup_problems(), *channel_problems(settings)]
    try:
        slots = all_slots(settings, root)
    except SettingsError as shared:
        said += [] if any("share the folder" in line for line in said) else [str(shared)]
        return [Problem(line) for line in said]
    found = [Problem(line) for line in said]
    models_dir = models_folder(settings, root)
    if not has_log(models_dir):
        return found + [Problem(line) for slot in slots for line in lone_problems(slot)]
    try:
        entries = AuditLog(models_dir, tuple(slot.release_path for slot in slots)).entries()
    except AuditBroken as broken:
        return [*found, Problem(f"{broken}; sqkit verify --audit names every place")]
    found += _unsettled(models_dir / AUDIT_FILE)
    found += _leftover_problems(models_dir, entries)
    for slot in slots:
        found += _slot_problems(models_dir, entries, slot)
        found += _pin_problem(settings, fold(entries, slot.name))
    found += [Problem(line) for line in placeless_slots(entries, slots)]
    return found


def _unsettled(log: Path) -> Iterator[Problem]:
    """What a crash left at the end of the log."""
    chain = read_chain(log, [], AUDIT_FORM)
    lines = len(chain.entries)
    if chain.torn:
        yield Problem(f"{log}: line {lines + 1} was torn by a crash and never counted", mends=True)
    elif not chain.ended:
        yield Problem(f"{log}: the last byte of line {lines} was cut off by a crash", mends=True)
    if chain.entries and kept_head(log, AUDIT_FORM) != head_of(chain.entries):
        yield Problem(
            f"{head_file(log)}: does not name line {lines}, the last of {AUDIT_FILE}; whoever wrote that was "
            "interrupted, look at it with sqkit history",
            mends=True,
        )
    for leftover in temporaries(head_file(log)):
        yield Problem(f"{leftover}: left by a process that was killed", mends=True)


def _leftover_problems(models_dir: Path, entries: Sequence[Entry]) -> Iterator[Problem]:
    named = {entry["release"] for entry in entries if "files" in entry}
    for path in leftovers(models_dir, named):
        yield Problem(
            f"{path}: stored by a promotion that never counted, was interrupted or is under way", mends=True
        )


def _slot_problems(models_dir: Path, entries: Sequence[Entry], slot: Slot) -> Iterator[Problem]:
    state = fold(entries, slot.name)
    for release in state.releases.values():
        if not is_sealed(models_dir, release.name) and not archive_differences(
            models_dir, release.name, release.files
        ):
            yield Problem(
                f"{ARCHIVE_FOLDER}/{release.name}: has no {RELEASE_FILE}; the promotion was interrupted after it counted",
                mends=True,
            )
    damaged = archive_differences(models_dir, state.live.name, state.live.files) if state.live else []
    for line in damaged:
        yield Problem(f"{line}; it is live in slot {slot.name}: restore it from a backup, or roll back")
    managed = state.placed_by is not None and state.placed_by["kind"] != UNMANAGED
    halts = halt_problems(slot, state)
    for line in slot_problems(models_dir, entries, slot):
        if line in halts:
            yield _halt_problem(line, slot, state)
        elif managed:
            yield Problem(line, mends=not damaged)
        else:
            yield Problem(f"{line}; {STRAY} and promote, which archives it as unmanaged")
    for leftover in temporaries(slot.halt_path):
        yield Problem(f"{leftover}: left by a process that was killed, or being written now", mends=True)


def _halt_problem(line: str, slot: Slot, state: SlotState) -> Problem:
    """A flag that is gone is written again; between two levels, and where no line halts, a person decides."""
    if state.halted is not None:
        return Problem(line, mends=read_level(slot.halt_path) is None)
    return Problem(f"{line}; sqkit halt puts it into the log, sqkit resume ends it")


def _pin_problem(settings: Settings, state: SlotState) -> Iterator[Problem]:
    """A pin of the default slot that names another version than the one that was promoted."""
    pin, live, placed_by = settings.student_model_version, state.live, state.placed_by
    promoted = placed_by is not None and placed_by["kind"] == PROMOTE
    if state.slot == "default" and pin and live is not None and promoted and live.model_version != pin:
        yield Problem(
            f"{PREFIX}STUDENT_MODEL_VERSION={pin} does not fit the live release {live.described}: the engine refuses it "
            f"(version_mismatch); set it to {live.model_version}"
        )


def mend(settings: Settings, root: Path = Path()) -> list[str]:
    """Finish what was interrupted, slot by slot; what was done and what could not be, one line each.

    Raises
    ------
    OutputError
        The log itself cannot be written.
    """
    done: list[str] = []
    try:
        production = Production(settings, root, say=done.append)
        done += production.log.settle()
        entries = production.log.entries()
    except (SettingsError, AuditBroken):  # both are problems that no machine mends
        return ["nothing was mended"]
    for slot in all_slots(settings, root):
        if not slot.folder.exists() and fold(entries, slot.name).placed_by is None:
            continue
        try:
            with production.changing(slot):
                pass
        except SqkitError as problem:
            done.append(f"slot {slot.name} could not be mended: {problem}")
    return done


def doctor_lines(done: Sequence[str], problems: Sequence[Problem]) -> list[str]:
    """For a person: what was mended, what is wrong, and what to do about it, the count last."""
    lines = [*done, *(problem.what for problem in problems)]
    if not problems:
        return [*lines, "no problems"]
    mends = sum(problem.mends for problem in problems)
    count = f"{len(problems)} problem{'' if len(problems) == 1 else 's'}"
    return [
        *lines,
        f"{count}; sqkit doctor --fix mends {'it' if len(problems) == 1 else mends}" if mends else count,
    ]
