"""The audit log, written: one line for every fact about production, durable before anything follows.

`AuditLog.append` adds a fact; a promotion or rollback holds the log over several steps with
`AuditLog.writing` and its line is the point from which it counts. Reading is in `sqkit.audit_log`.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import sqkit
from sqkit.artifacts import ARCHIVE_FOLDER, RELEASE_FILE
from sqkit.audit_log import AUDIT_FILE, AUDIT_FORM, is_release_name, require_content
from sqkit.chain import (
    Chain,
    ChainWitness,
    Entry,
    held,
    is_settled,
    json_of,
    read_chain,
    settle,
    torn_line,
    write_head,
    write_line,
)
from sqkit.errors import OutputError
from sqkit.files import make_folder, sha256_json
from sqkit.people import Actor
from sqkit.production.archive import astray
from sqkit.production.slot_state import SlotState, fold

WAIT_SECONDS: Final = 30.0
CLOCK_TOLERANCE: Final = dt.timedelta(minutes=5)
"""Two machines' clocks may differ by so much."""

Say = Callable[[str], None]
Write = Callable[..., Entry]
Seen = dict[str, tuple[tuple[int, ...], list[ChainWitness]]]


class AuditLog:
    """``audit.jsonl`` of a models folder; append-only, hash-chained, shared by processes.

    Parameters
    ----------
    models_dir
        ``data/models``.
    releases
        Production ``release.json`` files: what they name must be in the log, as must what the
        archived releases name.
    say
        Where a line goes that a person should read, such as that a torn line was dropped.

    Every method raises AuditBroken when the log was edited, cut or deleted.
    """

    def __init__(self, models_dir: Path, releases: tuple[Path, ...] = (), say: Say | None = None) -> None:
        self.path = models_dir / AUDIT_FILE
        self._models_dir = models_dir
        self._releases = releases
        self._say = say or (lambda line: None)
        self._known: Chain | None = None
        self._seen: Seen = {}
        self._states: dict[str, tuple[int, str, SlotState | None]] = {}  # lines folded, the last one's digest

    def entries(self) -> list[Entry]:
        """Every line of the verified log, oldest first; empty where nothing was ever recorded."""
        return list(self._read().entries)

    def state(self, slot: str) -> SlotState:
        """What the log says of a slot now."""
        entries = self._read().entries
        lines, last, before = self._states.get(slot, (0, "", None))
        if lines > len(entries) or (lines and entries[lines - 1]["digest"] != last):
            lines, before = 0, None  # another log lies there now
        state = fold(entries[lines:], slot, before)
        self._states[slot] = (len(entries), entries[-1]["digest"] if entries else "", state)
        return state

    def archived(self) -> set[str]:
        """Names of every archived release that a line made, in whatever slot."""
        return {entry["release"] for entry in self._read().entries if "files" in entry}

    def append(
        self,
        kind: str,
        content: Mapping[str, Any],
        *,
        slot: str,
        actor: Actor,
        now: dt.datetime,
        zone: str,
    ) -> Entry:
        """Add one fact, durably.

        Parameters
        ----------
        kind, content
            See `sqkit.audit_log`; `content` without what every line has.
        now
            UTC. A line is never dated before the one it follows.
        zone
            IANA name of the market's zone, for the calendar date.

        Raises
        ------
        UsageError
            The content is none of this kind.
        ConflictError
            Another process held the log for too long.
        OutputError
            The disk is full or the folder cannot be written; the log is as it was.
        """
        with self.writing() as write:
            return write(kind, content, slot=slot, actor=actor, now=now, zone=zone)

    @contextlib.contextmanager
    def writing(self) -> Iterator[Write]:
        """Hold the log; what it yields adds a line as `append` does and may be called more than once."""
        make_folder(self.path.parent)
        with self._held():
            chain = self._read()
            if chain.torn:
                self._say(torn_line(self.path, chain))

            def write(
                kind: str,
                content: Mapping[str, Any],
                *,
                slot: str,
                actor: Actor,
                now: dt.datetime,
                zone: str,
            ) -> Entry:
                at = max(self._dated(now), chain.entries[-1]["at"] if chain.entries else "")
                line = {
                    **content,
                    "actor": actor.to_dict(),
                    "at": at,
                    "date": date_in(at, zone),
                    "slot": slot,
                    "sqkit_version": sqkit.__version__,
                }
                require_content(kind, line)
                return self._written(chain, {**line, "kind": kind})

            yield write
            try:
                write_head(self.path, chain.entries, AUDIT_FORM)
            except OutputError as problem:  # the line is durable and counts
                self._say(f"{problem}; line {len(chain.entries)} of {AUDIT_FILE} counts all the same")

    def _written(self, chain: Chain, line: Entry) -> Entry:
        """Add a line; a refusal after the whole line is in the file says that it counts."""
        number = len(chain.entries) + 1
        try:
            return write_line(self.path, chain, line)
        except OutputError as problem:
            if len(self._read().entries) < number:
                raise
            raise OutputError(
                f"{problem}; line {number} of {AUDIT_FILE} counts already: mend that and run sqkit doctor --fix",
                **problem.values | {"line": number},
            ) from None

    def _dated(self, now: dt.datetime) -> str:
        """The instant of a line: a time ahead of this machine's clock would date every later line with it."""
        latest = dt.datetime.now(dt.UTC)
        if now <= latest + CLOCK_TOLERANCE:
            return instant(now)
        self._say(f"{instant(now)} lies ahead of this machine's clock; the line is dated {instant(latest)}")
        return instant(latest)

    def settle(self) -> list[str]:
        """Finish what a crash left of the log itself; one line for each thing done."""
        if not self.path.exists() or is_settled(self.path, self._read(), AUDIT_FORM):
            return []
        with self._held():  # whoever was at work has noted its line by now
            chain = self._read()
            return [] if is_settled(self.path, chain, AUDIT_FORM) else settle(self.path, chain, AUDIT_FORM)

    def _held(self) -> contextlib.AbstractContextManager[None]:
        return held(self.path.with_name(f".{self.path.stem}.lock"), self.path, WAIT_SECONDS)

    def _read(self) -> Chain:
        witnesses = release_witnesses(self._models_dir, self._releases, self._seen)
        self._known = read_chain(self.path, witnesses, AUDIT_FORM, self._known)
        return self._known


def instant(now: dt.datetime) -> str:
    """An instant as the log keeps it: UTC, whole seconds, ``2025-01-12T15:30:00Z``."""
    return now.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def date_in(at: str, zone: str) -> str:
    """The calendar date of an instant in a market's zone."""
    return dt.datetime.fromisoformat(at).astimezone(ZoneInfo(zone)).date().isoformat()


def release_witnesses(
    models_dir: Path, releases: tuple[Path, ...] = (), seen: Seen | None = None
) -> list[ChainWitness]:
    """What archived and live releases say about the log; one that cannot be read says nothing.

    A line counts as a witness only where it has its own digest: damage is no evidence.

    Parameters
    ----------
    seen
        What was read before; a file that is the same one since is not read again.
    """
    seen = {} if seen is None else seen
    found = []
    for place in (*_archived_records(models_dir), *map(str, releases)):
        try:
            now = os.stat(place)  # noqa: PTH116 - a few hundred of them, several times in a rollback
        except OSError:
            continue
        mark = (now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns)
        if place not in seen or seen[place][0] != mark:
            seen[place] = (mark, _witnesses_in(Path(place)))
        found += seen[place][1]
    return found


def _archived_records(models_dir: Path) -> list[str]:
    """Where the records of archived releases lie; none is reached through a symlink."""
    archive = models_dir / ARCHIVE_FOLDER
    try:
        with os.scandir(archive) as found:
            own = [one.name for one in found if is_release_name(one.name) and not one.is_symlink()]
    except OSError:
        return []
    return [] if astray(models_dir) else [f"{archive}/{name}/{RELEASE_FILE}" for name in sorted(own)]


def _witnesses_in(path: Path) -> list[ChainWitness]:
    record, found = json_of(path), []
    if isinstance(record, dict):
        for name, number in _numbered(record.get("log_lines")):
            entry = record.get(name)
            if isinstance(entry, dict) and has_own_digest(entry):
                found.append(ChainWitness(path, number, entry["digest"]))
    return found


def has_own_digest(entry: Mapping[str, Any]) -> bool:
    """Whether an audit line that is embedded elsewhere is still what it was."""
    content = {name: value for name, value in entry.items() if name != "digest"}
    try:
        return bool(entry.get("digest") == sha256_json(content))
    except (TypeError, ValueError, RecursionError):
        return False


def _numbered(lines: Any) -> list[tuple[str, int]]:
    if not isinstance(lines, dict):
        return []
    return [(name, number) for name, number in lines.items() if type(number) is int and number > 0]
