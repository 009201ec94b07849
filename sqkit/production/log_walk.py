"""A walk through an audit log that may be damaged: every line looked at, every break named by its line.

`sqkit.audit_log.read_audit` stops at the first line that does not hold, because nothing may be done
then. Here the question is what happened to the log, so the walk goes on: in come the file's bytes, out
come what is wrong with which line, and the lines that can still be read.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sqkit.audit_log import AUDIT_FILE, AUDIT_FORM, require_content
from sqkit.chain import ChainWitness, Entry, head_file, head_in, json_of
from sqkit.errors import UsageError
from sqkit.files import canonical_json, sha256_bytes, sha256_json
from sqkit.production.audit import release_witnesses

_LONG: Final = 200


@dataclass(frozen=True)
class Walk:
    """What a walk found.

    Attributes
    ----------
    entries
        The lines that are lines of an audit log, in order, whether or not the chain holds there.
    numbers
        For each of them its place in the file.
    digests
        Digest that each line of the file has by its own content; empty for one that is no entry.
    problems
        What is wrong, by line.
    torn
        Whether bytes of a line that a crash tore follow the last line.
    """

    entries: list[Entry] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    torn: bool = False


def walk(raw: bytes) -> Walk:
    """Look at every line of a log."""
    lines = raw.split(b"\n")
    if not lines[-1]:
        lines.pop()
    torn = bool(lines) and raw[-1:] != b"\n" and not _is_json(lines[-1])
    if torn:
        lines.pop()
    found = Walk(torn=torn)
    places = {sha256_bytes(line): number for number, line in reversed(list(enumerate(lines, 1)))}
    before, sound = AUDIT_FORM.genesis, True
    for number, line in enumerate(lines, 1):
        entry = _parsed(line)
        edited = _edited(entry, line)
        placed = (
            "" if edited or entry is None else _out_of_place(entry["previous"], before, number, places, sound)
        )
        said = "" if edited or entry is None else _content_problem(entry)
        found.problems.extend(f"line {number} {problem}" for problem in (edited, placed, said) if problem)
        _keep(found, entry, number)
        before, sound = sha256_bytes(line), not edited
    _require_time(found)
    return found


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _parsed(line: bytes) -> Entry | None:
    entry = json.loads(line) if _is_json(line) else None
    return entry if isinstance(entry, dict) else None


def _edited(entry: Entry | None, line: bytes) -> str:
    if entry is None:
        return "was edited: it is no entry of an audit log"
    content = {name: value for name, value in entry.items() if name != "digest"}
    try:
        whole = line + b"\n" == canonical_json(entry, indent=None).encode()
        if (
            not whole
            or entry.get("digest") != sha256_json(content)
            or not isinstance(entry.get("previous"), str)
        ):
            return "was edited: it does not have its own digest"
    except (ValueError, RecursionError):
        return "was edited: it is not strict JSON"
    return ""


def _content_problem(entry: Entry) -> str:
    said = {name: value for name, value in entry.items() if name not in ("kind", "previous", "digest")}
    try:
        require_content(entry.get("kind"), said)
    except UsageError as problem:
        return f"is no line of this version of sqkit ({str(problem)[:_LONG]})"
    except RecursionError:
        return "is no line of this version of sqkit"
    return ""


def _out_of_place(previous: str, before: str, number: int, places: Mapping[str, int], sound: bool) -> str:
    """A line that does not follow the one above it: where it belongs says what was done.

    Parameters
    ----------
    previous, before
        What the line names, and what the line above it is.
    places
        Digest of each line as it lies there to its number.
    sound
        Whether the line above has its own digest; an edited one is blamed itself.
    """
    if previous == before:
        return ""
    above = f"line {number - 1}" if number > 1 else "the beginning of the log"
    where = 0 if previous == AUDIT_FORM.genesis else places.get(previous)
    if where is None:
        blamed = f"{above} was edited, or " if number > 1 else ""
        return f"does not follow {above}: {blamed}lines were removed between them" if sound else ""
    if where >= number:
        return f"follows line {where}, which stands below it: lines were reordered"
    after = f"line {where}" if where else "the beginning of the log"
    between = f"line {number - 1} was" if where == number - 2 else f"lines {where + 1} to {number - 1} were"
    return f"follows {after}, not {above}: {between} inserted or moved"


def _keep(found: Walk, entry: Entry | None, number: int) -> None:
    found.digests.append(entry["digest"] if entry and isinstance(entry.get("digest"), str) else "")
    if entry is not None and not _content_problem(entry):
        found.entries.append(entry | {"digest": found.digests[-1]})
        found.numbers.append(number)


def _require_time(found: Walk) -> None:
    latest, line = "", 0
    for number, entry in zip(found.numbers, found.entries, strict=True):
        if latest and dt.datetime.fromisoformat(entry["at"]) < dt.datetime.fromisoformat(latest):
            found.problems.append(
                f"line {number} says {entry['at']}, but line {line} before it {latest}: sqkit dates no line "
                "before the one it follows"
            )
        else:
            latest, line = entry["at"], number


def witness_problems(models_dir: Path, found: Walk, releases: Sequence[Path]) -> list[str]:
    """What the noted head and the releases know of the log that it no longer says.

    Parameters
    ----------
    releases
        Production ``release.json`` files.
    """
    head = head_file(models_dir / AUDIT_FILE)
    lines, problems, witnesses = (
        len(found.digests),
        list[str](),
        release_witnesses(models_dir, tuple(releases)),
    )
    kept = head_in(json_of(head), "lines", "digest") if head.exists() else None
    if kept is not None and kept.digest is not None:
        witnesses.append(ChainWitness(head, kept.lines, kept.digest))
    if head.exists() and kept is None:
        problems.append(f"{head.name} is damaged: it does not name the last line")
    elif not head.exists() and lines:
        problems.append(
            f"{head.name} is missing: whether lines were cut off the end is known from releases only"
        )
    elif kept is not None and kept.lines < lines:
        problems.append(
            f"{head.name} ends at line {kept.lines}, {AUDIT_FILE} at line {lines}: what follows was added by a "
            "process that was interrupted, or by hand"
        )
    return [
        *problems,
        *_cut(witnesses, found.digests, models_dir),
        *_contradicted(witnesses, found, models_dir),
    ]


def _cut(witnesses: Sequence[ChainWitness], digests: Sequence[str], models_dir: Path) -> list[str]:
    lines = len(digests)
    more = [witness for witness in witnesses if witness.lines > lines]
    if not more:
        return []
    most = max(more, key=lambda witness: witness.lines)
    if most.digest in digests:
        return [
            f"{AUDIT_FILE} has {lines} lines, but {_shown(most.path, models_dir)} counted {most.lines} lines up to the one "
            f"that is line {digests.index(most.digest) + 1} now: lines above it are missing"
            + _others(len(more) - 1)
        ]
    gone = f"line {most.lines} is" if most.lines == lines + 1 else f"lines {lines + 1} to {most.lines} are"
    there = f"ends at line {lines}" if lines else "is missing or empty"
    return [
        f"{AUDIT_FILE} {there}, but {_shown(most.path, models_dir)} counted {most.lines} lines: {gone} cut off"
        + _others(len(more) - 1)
    ]


def _contradicted(witnesses: Sequence[ChainWitness], found: Walk, models_dir: Path) -> list[str]:
    """Lines that are not those that were counted: the log shifted there or was written anew."""
    digests = found.digests
    here = sorted((one for one in witnesses if one.lines <= len(digests)), key=lambda one: one.lines)
    unmet = [one for one in here if digests[one.lines - 1] != one.digest]
    if not unmet:
        return []
    if not found.problems:
        first = unmet[0]
        agreed = max((one.lines for one in here if one not in unmet and one.lines < first.lines), default=0)
        where = (
            f"line {first.lines} was"
            if agreed + 1 == first.lines
            else f"lines {agreed + 1} to {first.lines} were"
        )
        counted = f"{_shown(first.path, models_dir)} counted another line {first.lines}"
        return [
            f"{AUDIT_FILE}: {where} written anew, with all that follows: {counted}" + _others(len(unmet) - 1)
        ]
    numbers = {one.lines: one for one in reversed(unmet)}
    return [
        f"{AUDIT_FILE}: line {number} is not the one that {_shown(one.path, models_dir)} counted"
        + _moved(one.digest, digests)
        for number, one in sorted(numbers.items())
    ]


def _moved(digest: str, digests: Sequence[str]) -> str:
    if digest in digests:
        return f": that one is line {digests.index(digest) + 1} now"
    return ": that one is no longer in the log"


def _others(count: int) -> str:
    return f" ({count} more file{'s' if count > 1 else ''} agree)" if count else ""


def _shown(path: Path, models_dir: Path) -> Any:
    return path.relative_to(models_dir) if models_dir in path.parents else path
