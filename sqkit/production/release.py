"""The record beside a production model: which release it is, who said so, and the proof.

``release.json`` embeds the approvals, the signers file and the audit lines that made the release and
put it there, so that a host without ``audit.jsonl`` can verify it. `served_release` says what an
engine is to serve: what the log names or, without a log, what the record names.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqkit.artifacts import APPROVALS_FILE, CHECKLIST_FILE, SIGNERS_FILE
from sqkit.audit_log import AUDIT_FILE, UNMANAGED
from sqkit.chain import Entry
from sqkit.errors import ApprovalVoid, ArtifactChanged, ReleaseDamaged, SignatureRefused
from sqkit.files import parse_json, read_json, read_plain, sha256_bytes
from sqkit.production.approval_book import parse_book
from sqkit.production.approval_voices import verified_later
from sqkit.production.archive import archived_file, archived_model
from sqkit.production.audit import AuditLog
from sqkit.production.halting import read_level, stricter
from sqkit.production.release_proof import LIVE, NO_STUDENT, contradiction
from sqkit.production.slot_state import ReleaseFact, SlotState
from sqkit.production.slots import Slot

_SWAP_SECONDS: Final = 2.0
_POLL_SECONDS: Final = 0.005


def release_record(
    models_dir: Path, slot: str, release: ReleaseFact | None, placed_by: Entry, entries: Sequence[Entry]
) -> dict[str, Any]:
    """What ``release.json`` says of a release, or of a slot without a student.

    Parameters
    ----------
    release
        Archived under `models_dir`; None for the state without a student.
    placed_by
        The line that puts it there.
    entries
        The whole log, in which both lines stand.
    """
    numbers = {entry["digest"]: number for number, entry in enumerate(entries, 1)}
    lines = {"placed_by": numbers[placed_by["digest"]]}
    if release is not None:
        lines["promotion"] = numbers[release.entry["digest"]]
    return {
        "approvals": _archived_json(models_dir, release, APPROVALS_FILE),
        "checklist": _archived_json(models_dir, release, CHECKLIST_FILE),
        "log_lines": lines,
        "model": release.model if release else None,
        "model_version": release.model_version if release else None,
        "placed_by": placed_by,
        "promotion": release.entry if release else None,
        "release": release.name if release else None,
        "replaces": placed_by.get("replaces"),
        "schema_version": 1,
        "signers": _archived_text(models_dir, release, SIGNERS_FILE),
        "slot": slot,
        "state": LIVE if release else NO_STUDENT,
    }


def _archived_json(models_dir: Path, release: ReleaseFact | None, name: str) -> Any:
    text = _archived_text(models_dir, release, name)
    return None if text is None else parse_json(text.encode(), Path(name))


def _archived_text(models_dir: Path, release: ReleaseFact | None, name: str) -> str | None:
    if release is None or name not in release.files:
        return None
    return archived_file(models_dir, release.name, name, release.files[name]).decode("utf-8")


@dataclass(frozen=True)
class ServedRelease:
    """What an engine serves.

    Attributes
    ----------
    model
        Bytes of the model; None: no student, the baseline trades.
    digest, model_version, release
        Of the model and its archived release.
    placed_by, promotion
        The audit lines that put it there, and that made the release.
    symbols
        What the approvals allow it to trade; None where no promotion says so.
    checklist
        The decision: under which rules it was validated.
    halt_level
        How far a person halted the slot, by flag or log; None where nobody did.
    note
        Something that a person should know, such as that the production file is not the release's.
    """

    model: bytes | None
    digest: str | None = None
    model_version: str | None = None
    release: str | None = None
    placed_by: Mapping[str, Any] | None = None
    promotion: Mapping[str, Any] | None = None
    symbols: tuple[str, ...] | None = None
    checklist: Mapping[str, Any] | None = None
    halt_level: str | None = None
    note: str = ""

    @property
    def halted(self) -> bool:
        """Whether a person halted the slot."""
        return self.halt_level is not None


def served_release(models_dir: Path, slot: Slot, log: AuditLog | None = None) -> ServedRelease:
    """What is to be served in a slot; nothing is written.

    With an audit log: the release that it names, from the production path or, where another file
    lies there, from the archive. Without one: the model that ``release.json`` names.

    Parameters
    ----------
    log
        The audit log as this process has read it before: then only what is new in it is verified.

    Raises
    ------
    AuditBroken
        The log does not hold.
    ReleaseDamaged
        The bytes are nowhere, or the record does not hold.
    """
    level = read_level(slot.halt_path)
    if (models_dir / AUDIT_FILE).exists():
        state = (log or AuditLog(models_dir, (slot.release_path,))).state(slot.name)
        return _named_by_log(models_dir, slot, state, stricter(level, state.halt_level))
    if slot.release_path.exists():
        return _named_by_record(slot, level)
    return ServedRelease(None, halt_level=level, note=f"{slot.folder}: nothing was ever promoted here")


def _named_by_log(models_dir: Path, slot: Slot, state: SlotState, level: str | None) -> ServedRelease:
    live = state.live
    if live is None:
        return ServedRelease(None, placed_by=state.placed_by, halt_level=level)
    if live.unmanaged:
        return ServedRelease(None, placed_by=state.placed_by, halt_level=level, note=_nobody_promoted(slot))
    data, note = production_bytes(slot), ""
    if data is None or sha256_bytes(data) != live.model:
        note = f"{slot.model_path}: is not the live release {live.described}; served from the archive, run sqkit doctor --fix"
        data = archived_model(models_dir, live.name, live.model)
    if SIGNERS_FILE in live.files or _says_signed(live.entry):
        approvals = _archived_json(models_dir, live, APPROVALS_FILE)
        signers = _archived_text(models_dir, live, SIGNERS_FILE)
        note = _joined(note, _signed(approvals, signers, live.entry))
    symbols = live.entry.get("symbols")
    return ServedRelease(
        data,
        live.model,
        live.model_version,
        live.name,
        state.placed_by,
        live.entry,
        None if symbols is None else tuple(symbols),
        _archived_json(models_dir, live, CHECKLIST_FILE),
        level,
        note,
    )


def _named_by_record(slot: Slot, level: str | None) -> ServedRelease:
    """Model and record are two files: a reader between the two renames of a swap looks again."""
    until = time.monotonic() + _SWAP_SECONDS
    while True:
        data = production_bytes(slot)
        record = read_release(slot.release_path)
        if record["state"] != NO_STUDENT and record["promotion"]["kind"] == UNMANAGED:
            note = _nobody_promoted(slot)
            return ServedRelease(None, placed_by=record["placed_by"], halt_level=level, note=note)
        if record["state"] == NO_STUDENT:
            return ServedRelease(None, placed_by=record["placed_by"], halt_level=level)
        if data is not None and sha256_bytes(data) == record["model"]:
            promotion = record["promotion"]
            note = ""
            if record["signers"] or _says_signed(promotion):
                note = _signed(record["approvals"], record["signers"], promotion)
            return ServedRelease(
                data,
                record["model"],
                record["model_version"],
                record["release"],
                record["placed_by"],
                promotion,
                tuple(promotion["symbols"]) if "symbols" in promotion else None,
                record["checklist"],
                level,
                note,
            )
        if time.monotonic() >= until:
            raise ReleaseDamaged(
                f"{slot.model_path}: is not the model that {slot.release_path.name} names; copy both files again "
                "from where the release was promoted",
                path=str(slot.model_path),
                expected=record["model"],
            )
        time.sleep(_POLL_SECONDS)


def _nobody_promoted(slot: Slot) -> str:
    return f"{slot.model_path}: nobody promoted this model, it is not served; promote one with sqkit promote"


def _says_signed(promotion: Entry) -> bool:
    return any(said["signed"] for said in promotion.get("approvals", {}).values())


def _signed(approvals: Any, signers: str | None, promotion: Entry) -> str:
    """Verify the approvals of a release again, at the time they were given; what could not be verified."""
    model = promotion["digests"]["model"]
    try:
        if signers is None:
            raise SignatureRefused("its approvals are called signed, and it holds no signers file")
        notes = verified_later(parse_book(approvals), signers, model=model, roles=promotion["approvals"])
        return "; ".join(notes)
    except (ApprovalVoid, ArtifactChanged, SignatureRefused) as problem:
        raise ReleaseDamaged(f"the release was not approved as it says: {problem}", model=model) from None


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)


def read_release(path: Path) -> dict[str, Any]:
    """A ``release.json`` that proves itself: every part follows from the audit lines in it.

    Only ``log_lines`` cannot be proved without the log; their order is.

    Raises
    ------
    ArtifactChanged
        It cannot be read or is not strict JSON.
    ReleaseDamaged
        Its parts contradict each other.
    """
    record = read_json(path)
    wrong = contradiction(record)
    if wrong:
        raise ReleaseDamaged(
            f"{path}: {wrong}; copy it again from where the release was promoted, or run sqkit doctor --fix there",
            path=str(path),
        )
    return record  # type: ignore[no-any-return]


def production_bytes(slot: Slot) -> bytes | None:
    """The plain file at the production path; None where there is none: a link, a pipe or a folder is no model."""
    try:
        return read_plain(slot.model_path, follow=False)
    except OSError as problem:
        if problem.errno in (errno.ENOENT, errno.EINVAL, errno.ENXIO, errno.ELOOP, errno.ENOTDIR):
            return None
        raise ReleaseDamaged(
            f"{slot.model_path}: cannot be read ({problem.strerror}); correct its rights",
            path=str(slot.model_path),
        ) from None
