"""The rollback drill: a real rollback, of a slot's real log and releases, in a scratch folder.

A release whose model is damaged is put on top of what is live, and rolled back: production must come
back to what is live now. Where an earlier release exists, going back to that is tried too. The real
production is only read; the outcome becomes one audit line, which ticks the box "rollback tested".
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqkit.artifacts import ARCHIVE_FOLDER, RELEASE_FILE, STUDENT_FILE
from sqkit.audit_log import DRILL
from sqkit.chain import Entry, head_file
from sqkit.errors import OutputError, ReleaseDamaged, SqkitError
from sqkit.files import output_errors, sha256_bytes
from sqkit.people import one_line
from sqkit.production.archive import archive_folder, is_stored
from sqkit.production.changes import Production
from sqkit.production.promotion import Place, Promotion, promote
from sqkit.production.release import served_release
from sqkit.production.rollback import find_target, roll_back, rollback_content
from sqkit.production.slot_state import ReleaseFact, SlotState
from sqkit.production.slots import Slot, models_folder

_DAMAGED: Final = b"a model file that is damaged on purpose, for the drill\n"
_REASON: Final = "rollback drill"


@dataclass(frozen=True)
class Drilled:
    """Outcome of a drill.

    Attributes
    ----------
    steps
        What was tried, in words; the last says what failed, if anything did.
    milliseconds
        The slowest rollback, target found and probed, production in place.
    entry
        The audit line.
    """

    passed: bool
    steps: tuple[str, ...]
    milliseconds: int
    entry: Entry


def drill(production: Production, slot_name: str) -> Drilled:
    """Try the rollback of a slot and record the outcome.

    Raises
    ------
    AuditBroken
        The log does not hold: nothing can be tried.
    OutputError
        There is no room for a scratch copy.
    """
    slot = production.slot(slot_name)
    production.log.entries()
    steps: list[str] = []
    slowest, passed = 0.0, True
    for trial in (_back_from_damage, _back_to_earlier):
        with _scratch_folder() as scratch:
            place = _scratch_place(production, slot, scratch)
            try:
                slowest = max(slowest, trial(place, steps))
            except OutputError:
                raise
            except SqkitError as problem:
                passed = False
                steps.append(_said(place, f"failed: {problem}"))
                break
    took = round(1000 * slowest)
    entry = production.append(slot, DRILL, {"passed": passed, "steps": steps, "milliseconds": took})
    return Drilled(passed, tuple(steps), took, entry)


def rehearsed_rollback(production: Production, slot: Slot, to: str) -> tuple[str, tuple[str, ...]]:
    """Roll a slot back to a release in a scratch folder, and see that what comes back is served; nothing is recorded.

    Parameters
    ----------
    to
        First digits of the model's digest, 8 at least.

    Returns
    -------
    tuple
        Digest of the model that is live then, empty for none; and what was done, in words.

    Raises
    ------
    SqkitError
        What would have refused it.
    """
    steps: list[str] = []
    with _scratch_folder() as scratch:
        place = _scratch_place(production, slot, scratch)
        target = find_target(place.models_dir, place.state(), to)
        expected = target.release.model if target.release else ""
        if target.already:
            steps.append(f"{target.described} is what is live today: there was nothing to restore")
        else:
            _roll_back(place, expected, steps, to=to)
    return expected, tuple(steps)


def _back_from_damage(place: Place, steps: list[str]) -> float:
    before = place.state()
    promote(place, _stand_in(before))
    steps.append("a release with a damaged model took the slot, in a scratch folder")
    if before.live is None or before.live.unmanaged:  # nothing that was promoted has to come back
        found = find_target(place.models_dir, place.state()).release
        return _roll_back(place, found.model if found else None, steps)
    return _roll_back(place, before.live.model, steps)


def _back_to_earlier(place: Place, steps: list[str]) -> float:
    state = place.state()
    if state.live is None or len(state.stays) == 1:
        return 0.0
    found = find_target(place.models_dir, state)
    if found.already:
        steps.append(
            f"going back to an earlier release was not tried: a rollback put {state.live.described} there, and one "
            "without --to stays where it is"
        )
        return 0.0
    return _roll_back(place, found.release.model if found.release else None, steps)


def _roll_back(place: Place, expected: str | None, steps: list[str], *, to: str = "") -> float:
    """A rollback in the scratch folder, held against where it must end; seconds it took."""
    started = time.perf_counter()
    state = place.state()
    target = find_target(place.models_dir, state, to)
    steps += [_said(place, note) for note in target.notes]
    roll_back(
        place,
        rollback_content(state, target, reason=_REASON, automatic=False, alert=None, environment=None),
    )
    seconds = time.perf_counter() - started
    served = served_release(place.models_dir, place.slot)
    lying = sha256_bytes(place.slot.model_path.read_bytes()) if place.slot.model_path.exists() else None
    if served.digest != expected or lying != expected:
        raise ReleaseDamaged(
            f"the rollback ended at {target.described}, and not at {expected[:12] if expected else 'no student'}; "
            "mend what sqkit verify --audit names",
            expected=expected,
            found=served.digest,
        )
    steps.append(f"rolled back to {target.described}: probed, in place, served")
    return seconds


def _said(place: Place, text: str) -> str:
    """As a line of the log keeps it: without the scratch folder, which is gone by then."""
    return one_line(text.replace(f"{place.models_dir}/", ""))


def _stand_in(state: SlotState) -> Promotion:
    content: dict[str, Any] = {
        "approvals": {},
        "boxes": {},
        "digests": {"model": sha256_bytes(_DAMAGED)},
        "environment": None,
        "market": state.live.entry.get("market", "nse") if state.live else "nse",
        "model_version": "drill",
        "reduced_control": True,
        "strategy": "drill",
        "symbols": [],
    }
    return Promotion({STUDENT_FILE: _DAMAGED}, content)


@contextlib.contextmanager
def _scratch_folder() -> Iterator[Path]:
    with output_errors(Path(tempfile.gettempdir())):
        folder = Path(tempfile.mkdtemp(prefix="sqkit-drill-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _scratch_place(production: Production, slot: Slot, scratch: Path) -> Place:
    """The slot copied aside: its log, the releases it may go back to, and what lies in production."""
    settings = production.settings.model_copy(
        update={
            "data_dir": "data",
            "student_model_path": f"production/{slot.model_path.name}",
            "student_model_paths": {},
            "webhook_url": "",
        }
    )
    models_dir = models_folder(settings, scratch)
    aside = Slot(slot.name, scratch / settings.student_model_path)
    copy = Production(settings, scratch, clock=production.now, actor=production.actor)
    here = production.place(slot)
    with output_errors(scratch):
        (models_dir / ARCHIVE_FOLDER).mkdir(parents=True)
        aside.folder.mkdir(parents=True)
        log = production.log.path
        for path in (head_file(log), log):  # what says more last: somebody may append meanwhile
            _copy(path, models_dir)
        for release in copy.state(aside).releases.values():
            _copy_release(production.models_dir, models_dir, release)
        for path in (slot.model_path, slot.release_path):
            _copy(path, aside.folder)
    return Place(models_dir, scratch, aside, here.zone, here.now, here.actor, copy.log, lambda step: None)


def _copy_release(models_dir: Path, scratch_models: Path, release: ReleaseFact) -> None:
    if not is_stored(models_dir, release.name):
        return
    folder = archive_folder(scratch_models, release.name)
    folder.mkdir()
    for file in (*release.files, RELEASE_FILE):
        path = archive_folder(models_dir, release.name) / file
        if not path.is_symlink():
            _copy(path, folder)


def _copy(path: Path, folder: Path) -> None:
    """Copy a file; one that is not there, or cannot be read, is missing in the copy."""
    try:
        data = path.read_bytes()
    except OSError:
        return
    (folder / path.name).write_bytes(data)
