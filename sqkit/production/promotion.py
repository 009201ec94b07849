"""The promotion itself: a candidate that passed every check becomes a release.

Order: the files are stored in the archive and named by one rename; one audit line is appended, and
from that line on the release counts; then `sqkit.production.placement` brings production there. Called by the
promoter, with the slot locked.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqkit.artifacts import (
    APPROVALS_FILE,
    CHECKLIST_FILE,
    SIGNERS_FILE,
    STUDENT_FILE,
)
from sqkit.audit_log import AUDIT_FILE, POLICY, PROMOTE, ROLLBACK, UNMANAGED
from sqkit.chain import Entry
from sqkit.errors import ArtifactChanged, DecisionStale
from sqkit.files import canonical_json, parse_json, sha256_bytes
from sqkit.people import Actor
from sqkit.production.archive import archive_folder, archive_name, clear_leftover, staging_place, storing
from sqkit.production.audit import AuditLog, Write, date_in, instant
from sqkit.production.candidate import Candidate
from sqkit.production.placement import IMAGINED, finishing, unrecorded_model
from sqkit.production.slot_state import SlotState, fold
from sqkit.production.slots import Slot
from sqkit.production.steps import run_steps
from sqkit.report_manifest import MANIFEST


@dataclass(frozen=True)
class Place:
    """Where a change happens and who makes it: what every change to a slot needs.

    Attributes
    ----------
    zone
        Of the market, for calendar dates and archive names.
    before
        Told of each step before it is done.
    """

    models_dir: Path
    root: Path
    slot: Slot
    zone: str
    now: dt.datetime
    actor: Actor
    log: AuditLog
    before: Callable[[str], None]

    def state(self) -> SlotState:
        """The slot as the log says it is now."""
        return self.log.state(self.slot.name)

    def write(self, write: Write, kind: str, content: Mapping[str, Any]) -> Entry:
        """One line of the log about this slot."""
        return write(kind, content, slot=self.slot.name, actor=self.actor, now=self.now, zone=self.zone)

    def imagined(self, kind: str, content: Mapping[str, Any]) -> Entry:
        """The line that `write` would add, without its place in the chain."""
        at = instant(self.now)
        return {
            **content,
            "actor": self.actor.to_dict(),
            "at": at,
            "date": date_in(at, self.zone),
            "digest": IMAGINED,
            "kind": kind,
            "slot": self.slot.name,
        }


@dataclass(frozen=True)
class Promotion:
    """A change to be made: which files become the release, and what the log is to say of it.

    Attributes
    ----------
    files
        Name to bytes, as they were examined; with the signers file where signatures are asked for.
    content
        Of the audit line, but for ``release``, ``files`` and ``replaces``, which follow.
    """

    files: Mapping[str, bytes]
    content: Mapping[str, Any]

    @classmethod
    def of(cls, candidate: Candidate, signers: str | None, content: Mapping[str, Any]) -> Promotion:
        """The promotion of a candidate; digests of what the line names come from the bytes themselves.

        Raises
        ------
        ArtifactChanged
            The approvals are not written as sqkit writes them: what ``release.json`` embeds could not be
            held against their digest.
        """
        approvals = candidate.files.get(APPROVALS_FILE, b"")
        if canonical_json(parse_json(approvals, Path(APPROVALS_FILE))).encode() != approvals:
            place = candidate.folder / APPROVALS_FILE
            raise ArtifactChanged(
                f"{place}: was written by something else than sqkit; restore it, or remove it and approve again",
                path=str(place),
            )
        files = dict(candidate.files) | ({SIGNERS_FILE: signers.encode()} if signers is not None else {})
        names = {
            "model": STUDENT_FILE,
            "checklist": CHECKLIST_FILE,
            "manifest": MANIFEST,
            "approvals": APPROVALS_FILE,
        }
        digests = {word: sha256_bytes(files[name]) for word, name in names.items()}
        return cls(files, {**content, "digests": {**content["digests"], **digests}})

    @property
    def model(self) -> str:
        """SHA-256 of the model."""
        return str(self.content["digests"]["model"])


def promote(place: Place, promotion: Promotion, *, examined: int = -1) -> Entry:
    """Make the release: store, commit, place. Returns the audit line.

    Parameters
    ----------
    examined
        How many lines the log had when the candidate was examined; by default nothing was examined.

    Raises
    ------
    DecisionStale
        Since then something was put into the slot, or another policy into force.
    OutputError
        The disk is full or read-only: before the line nothing has changed, after it the next promoter
        goes on.
    """
    keep_unrecorded(place)
    with place.log.writing() as write:
        _require_as_examined(place, examined)
        name = archive_name(place.now, place.zone, promotion.model)
        content = _content(place.state(), name, promotion)
        entry = _commit(place, write, PROMOTE, content, promotion.files)
    finish(place)
    return entry


def _require_as_examined(place: Place, examined: int) -> None:
    """Compare and swap: under the log's lock nothing may have come between examining and committing."""
    if examined < 0:
        return
    for entry in place.log.entries()[examined:]:
        here = entry["slot"] == place.slot.name and entry["kind"] in (PROMOTE, ROLLBACK)
        if here or entry["kind"] == POLICY:
            raise DecisionStale(
                f"slot {place.slot.name}: a line of kind {entry['kind']} was recorded meanwhile by "
                f"{entry['actor']['name']}; look at sqkit status and try again",
                line=entry["digest"],
            )


def keep_unrecorded(place: Place) -> Entry | None:
    """Archive a production model that nobody promoted, with a line of its own, before it is replaced."""
    data = unrecorded_model(place.slot, place.state())
    if data is None:
        return None
    with place.log.writing() as write:
        return _commit(place, write, UNMANAGED, _unrecorded(place, data), {STUDENT_FILE: data})


def _commit(
    place: Place, write: Write, kind: str, content: Mapping[str, Any], files: Mapping[str, bytes]
) -> Entry:
    """Store the files of a release, then append its line; where that fails nothing stays behind."""
    name = content["release"]
    try:
        run_steps(storing(place.models_dir, name, files), place.before)
        place.before(_SAID[kind].format(name=name))
        return place.write(write, kind, content)
    except Exception:
        clear_leftover(staging_place(place.models_dir, name))
        if name not in place.log.archived():
            clear_leftover(archive_folder(place.models_dir, name))
        raise


def finish(place: Place, *, repairing: bool = False) -> list[str]:
    """Bring archive, env file and production to where the log says they are; what was done."""
    entries = place.log.entries()
    state = fold(entries, place.slot.name)
    steps = finishing(place.models_dir, place.slot, state, entries, place.root, repairing=repairing)
    run_steps(steps, place.before)
    return [step.what for step in steps]


def planned(place: Place, promotion: Promotion) -> list[str]:
    """Every step of `promote` in words; nothing is written."""
    said, entries = planned_keeping(place)
    name = archive_name(place.now, place.zone, promotion.model)
    content = _content(fold(entries, place.slot.name), name, promotion)
    said += _said(place, PROMOTE, content, promotion.files)
    return [*said, *planned_after(place, [*entries, place.imagined(PROMOTE, content)])]


def planned_keeping(place: Place) -> tuple[list[str], list[Entry]]:
    """The steps of `keep_unrecorded` in words, and the log as it would be after them."""
    entries = place.log.entries()
    data = unrecorded_model(place.slot, fold(entries, place.slot.name))
    if data is None:
        return [], entries
    content = _unrecorded(place, data)
    said = _said(place, UNMANAGED, content, {STUDENT_FILE: data})
    return said, [*entries, place.imagined(UNMANAGED, content)]


def _said(place: Place, kind: str, content: Mapping[str, Any], files: Mapping[str, bytes]) -> list[str]:
    name = content["release"]
    steps = [step.what for step in storing(place.models_dir, name, files)]
    return [*steps, _SAID[kind].format(name=name)]


_SAID: Final = {
    PROMOTE: f"append the promotion to {AUDIT_FILE}: from here on it counts",
    UNMANAGED: f"append to {AUDIT_FILE} that {{name}} was found in production without a record",
}


def planned_after(place: Place, entries: Sequence[Entry]) -> list[str]:
    """The steps after a line that was only imagined, in words."""
    state = fold(entries, place.slot.name)
    return [step.what for step in finishing(place.models_dir, place.slot, state, entries, place.root)]


def _content(state: SlotState, name: str, promotion: Promotion) -> dict[str, Any]:
    live = state.live
    return {
        **promotion.content,
        "files": {file: sha256_bytes(data) for file, data in sorted(promotion.files.items())},
        "release": name,
        "replaces": {"release": live.name, "model": live.model} if live else None,
    }


def _unrecorded(place: Place, data: bytes) -> dict[str, Any]:
    digest = sha256_bytes(data)
    name = archive_name(place.now, place.zone, digest)
    return {"release": name, "model": digest, "files": {STUDENT_FILE: digest}}
