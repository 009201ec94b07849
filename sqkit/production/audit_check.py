"""Does everything still say the same: audit log, archive, production, halts and signatures?

``sqkit verify --audit`` calls `check_audit`. In: settings and the project's root. Out: every difference in
one line that names the file and the line of the log. Nothing is written, and the check goes on past what
it finds. The log itself is walked by `sqkit.production.log_walk`, signatures by
`sqkit.production.signature_check`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sqkit.artifacts import ARCHIVE_FOLDER, RELEASE_FILE
from sqkit.audit_log import AUDIT_FILE
from sqkit.errors import AuditBroken, SqkitError
from sqkit.files import temporaries
from sqkit.production.archive import SET_ASIDE, archive_differences, archive_folder, is_sealed, leftovers
from sqkit.production.audit import AuditLog
from sqkit.production.log_sense import sense_problems
from sqkit.production.log_walk import Walk, walk, witness_problems
from sqkit.production.release import read_release
from sqkit.production.signature_check import Signatures, line_signatures, release_signatures
from sqkit.production.slot_check import lone_problems, placeless_slots, record_problems, slot_problems
from sqkit.production.slot_state import ReleaseFact, fold
from sqkit.production.slots import Slot, all_slots, models_folder
from sqkit.settings import Settings

VERIFIED: Final = "verified"
DIFFERS: Final = "differs"


@dataclass
class _Check:
    """What is looked at, and what was found."""

    models_dir: Path
    slots: list[Slot]
    log: Walk
    differences: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    signatures: Signatures = field(default_factory=Signatures)
    releases: int = 0


def check_audit(settings: Settings, root: Path = Path()) -> dict[str, Any]:
    """Hold log, archive and production against each other and name every difference.

    Returns
    -------
    dict
        ``status`` (``verified`` or ``differs``), ``differences`` (each with ``what``), ``notes`` (what
        could not be checked, and what a person should know), ``lines`` and ``head`` of the log: the values
        to note elsewhere, and ``releases`` and ``signatures``, how many were looked at.
    """
    models_dir, slots = models_folder(settings, root), all_slots(settings, root)
    raw, unread = _raw(models_dir / AUDIT_FILE)
    check = _Check(models_dir, slots, walk(raw), [unread] if unread else [])
    if not raw and not unread and not (models_dir / ARCHIVE_FOLDER).is_dir():
        _check_without_log(check)
    elif not unread:
        _check_log(check)
        _check_archive(check)
        for slot in slots:
            check.differences += slot_problems(check.models_dir, check.log.entries, slot)
        check.notes += placeless_slots(check.log.entries, slots)
    found, signatures = check.differences + check.signatures.problems, check.signatures
    return {
        "differences": [{"what": what} for what in found],
        "head": check.log.digests[-1] if check.log.digests else None,
        "lines": len(check.log.digests),
        "notes": check.notes + signatures.notes(),
        "releases": check.releases,
        "signatures": signatures.verified,
        "status": DIFFERS if found else VERIFIED,
    }


def audit_lines(outcome: Mapping[str, Any]) -> list[str]:
    """The outcome for a person: every difference, then notes, the status last."""
    lines = [difference["what"] for difference in outcome["differences"]]
    lines += [f"note: {note}" for note in outcome["notes"]]
    count = len(outcome["differences"])
    if count:
        places = f"{count} place{'s' if count > 1 else ''}"
        return [*lines, f"audit: differs in {places}; sqkit doctor says what can be mended by itself"]
    if not outcome["lines"] and not outcome["releases"]:
        return [*lines, "audit: nothing was ever promoted here"]
    said = f"{_counted(outcome['lines'], 'line')}, {_counted(outcome['releases'], 'release')}"
    if outcome["head"]:
        lines.append(f"head of the log, to note elsewhere: line {outcome['lines']}, {outcome['head']}")
    return [*lines, f"audit: verified; {said}, {_counted(outcome['signatures'], 'signature')} agree"]


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def _raw(path: Path) -> tuple[bytes, str]:
    try:
        return path.read_bytes(), ""
    except FileNotFoundError:
        return b"", ""
    except OSError as problem:
        return b"", f"{path.name}: cannot be read ({problem.strerror})"


def _check_log(check: _Check) -> None:
    releases = [slot.release_path for slot in check.slots]
    problems = check.log.problems + sense_problems(check.log)
    check.differences += [f"{AUDIT_FILE}: {problem}" for problem in problems]
    witnessed = witness_problems(check.models_dir, check.log, releases)
    check.differences += witnessed
    if not problems and not witnessed:
        check.differences += _refused(check.models_dir, releases)
    if check.log.torn:
        number = len(check.log.digests) + 1
        check.notes.append(
            f"{AUDIT_FILE}: line {number} was torn by a crash and never counted; it will be dropped"
        )
    line_signatures(check.log, check.signatures)


def _refused(models_dir: Path, releases: list[Path]) -> list[str]:
    """Whatever else keeps the promoter from reading the log."""
    try:
        AuditLog(models_dir, tuple(releases)).entries()
    except AuditBroken as problem:
        return [str(problem)]
    return []


def _check_archive(check: _Check) -> None:
    """Every archived release against its line, and whatever else lies in the archive."""
    named = [
        (release, slot)
        for slot in sorted({entry["slot"] for entry in check.log.entries})
        for release in fold(check.log.entries, slot).releases.values()
    ]
    for release, slot in named:
        check.releases += 1
        check.differences += archive_differences(check.models_dir, release.name, release.files)
        _unnamed_files(check, release)
        check.differences += _seal_problems(check, release, slot)
        release_signatures(archive_folder(check.models_dir, release.name), release, check.signatures)
    check.differences += _unnamed_releases(check.models_dir, {release.name for release, _ in named})
    check.notes += [
        f"{ARCHIVE_FOLDER}/{path.name}: set aside, of a promotion that never counted by the log; look at it, then remove it"
        for path in sorted((check.models_dir / ARCHIVE_FOLDER).glob(f"{SET_ASIDE}*"))
    ]


def _unnamed_files(check: _Check, release: ReleaseFact) -> None:
    folder = archive_folder(check.models_dir, release.name)
    unfinished = temporaries(folder / RELEASE_FILE)
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        shown = f"{ARCHIVE_FOLDER}/{release.name}/{name}"
        if path in unfinished:
            check.notes.append(f"{shown}: left by a process that was killed")
        elif name not in release.files and name != RELEASE_FILE:
            check.differences.append(f"{shown}: no line of the log names it")


def _unnamed_releases(models_dir: Path, named: set[str]) -> Iterator[str]:
    archive = models_dir / ARCHIVE_FOLDER
    unfinished = {path.name for path in leftovers(models_dir, named)}
    for path in sorted(archive.iterdir()) if archive.is_dir() else []:
        if path.name in unfinished:
            yield (
                f"{ARCHIVE_FOLDER}/{path.name}: no line of the log names it; a promotion is under way or was "
                "interrupted before it counted"
            )
        elif path.name not in named and not path.name.startswith(SET_ASIDE):
            yield f"{ARCHIVE_FOLDER}/{path.name}: no line of the log names it"


def _seal_problems(check: _Check, release: ReleaseFact, slot: str) -> list[str]:
    shown = f"{ARCHIVE_FOLDER}/{release.name}/{RELEASE_FILE}"
    place = archive_folder(check.models_dir, release.name) / RELEASE_FILE
    if not place.parent.is_dir():
        return []
    if not is_sealed(check.models_dir, release.name):
        return [f"{shown}: missing; a promotion was interrupted"]
    return record_problems(
        place,
        shown,
        models_dir=check.models_dir,
        slot=slot,
        release=release,
        placed_by=release.entry,
        entries=check.log.entries,
    )


def _check_without_log(check: _Check) -> None:
    """A host that only has the record beside the model: the record proves itself, or does not."""
    for slot in check.slots:
        check.differences += lone_problems(slot)
        if not slot.release_path.exists():
            continue
        check.releases += 1
        check.notes.append(
            f"no {AUDIT_FILE} here: slot {slot.name} was held against its {RELEASE_FILE} alone"
        )
        with contextlib.suppress(SqkitError, OSError):  # named already
            record, shown = read_release(slot.release_path), str(slot.release_path)
            if record["promotion"] is not None:
                signed = (record["approvals"], record["signers"], record["promotion"], record["model"])
                check.signatures.look_at(shown, *signed)
