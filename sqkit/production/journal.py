"""What an engine needs to go on after it was killed: every bar it used, and now and then its whole state.

``bars-<session date>.journal`` gets one fixed-size entry a bar, written into memory that the kernel keeps: no
call, nothing lost when the process is killed. ``state.json`` is a checkpoint that names how far the journals
went. To go on: restore the checkpoint, then let the bars behind it pass again, with what the student said
then. The folder is one engine's; `Journal.open` holds it.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from sqkit.errors import SqkitError
from sqkit.files import canonical_json, lock_file, parse_json, read_plain, sha256_bytes, write_bytes
from sqkit.production.telemetry import COMPONENT, logger
from sqkit.records import iso_date

STATE_FILE: Final = "state.json"

_BAR: Final = struct.Struct("<IIqq")  # lane, status, start, decided
_SAID: Final = struct.Struct("<dbbbb")  # probability, direction, reason, mode, lock
_FIELDS: Final = struct.Struct("<IIqqdddddd4b")  # the two around five prices
_BODY: Final = _FIELDS.size
_SIZE: Final = _BODY + 4  # and its check
_GROWTH: Final = 4096 * _SIZE
_NAME: Final = re.compile(r"bars-(\d{4}-\d{2}-\d{2})\.journal")


class JournalEntry(NamedTuple):
    """One bar as it was used, and what was said of it."""

    lane: int
    status: int
    start_ns: int
    decided_ns: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    probability: float
    direction: int
    reason: int
    mode: int
    lock: int


class Journal:
    """The journals of one engine; made by `Journal.open`."""

    def __init__(self, folder: Path, lock: int) -> None:
        self.folder = folder
        self.lost = 0
        self._lock = lock
        self._day = -1
        self._map: mmap.mmap | None = None
        self._at = 0
        self._size = 0
        self._broken = False

    @classmethod
    def open(cls, folder: Path) -> Journal | None:
        """The journal in a folder; None where another engine holds it, or nothing can be written there."""
        try:
            handle = lock_file(folder / ".lock")
        except (SqkitError, OSError) as problem:
            _warn("%s: no state can be kept here (%s); a restart begins anew", folder, problem)
            return None
        if handle is None:
            _warn(
                "%s: another engine keeps its state here; this one keeps none, give it a Config.name", folder
            )
            return None
        return cls(folder, handle)

    def append(
        self,
        day: int,
        lane: int,
        status: int,
        start_ns: int,
        decided_ns: int,
        prices: bytes,
        said: tuple[float, int, int, int, int],
    ) -> None:
        """Keep one bar; one that is lost is counted.

        Parameters
        ----------
        prices
            Open to volume as five little-endian float64.
        said
            Probability, direction, reason, mode and lock.
        """
        if day != self._day:
            self._turn(day)
        if self._at + _SIZE > self._size and not self._grow():
            self.lost += 1
            return
        memory, at = self._map, self._at
        assert memory is not None
        body = _BAR.pack(lane, status, start_ns, decided_ns) + prices + _SAID.pack(*said)
        # The check comes with the entry: half of one never looks whole.
        memory[at : at + _SIZE] = body + zlib.crc32(body).to_bytes(4, "little")
        self._at = at + _SIZE

    @property
    def position(self) -> tuple[str, int]:
        """Session date of the newest journal, and how many entries it has."""
        if self._day >= 0:
            return iso_date(self._day), self._at // _SIZE
        journals = self._journals()
        if not journals:
            return "", 0
        date, path = journals[-1]
        return date, sum(1 for _ in read_journal(path))

    def write_state(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint.

        Raises
        ------
        OutputError
            The disk is full or read-only; the old checkpoint is untouched.
        """
        body = canonical_json(state, indent=None)
        checked = {"digest": sha256_bytes(body.encode()), "state": state}
        write_bytes(self.folder / STATE_FILE, canonical_json(checked, indent=None).encode(), alone=True)

    def read_state(self) -> dict[str, Any] | None:
        """The checkpoint; None where there is none, or a damaged one."""
        place = self.folder / STATE_FILE
        if not place.exists():
            return None
        try:
            kept = parse_json(read_plain(place), place)
            state: dict[str, Any] = kept["state"]
            if kept["digest"] != sha256_bytes(canonical_json(state, indent=None).encode()):
                raise ValueError("its digest differs")
        except (SqkitError, OSError, ValueError, KeyError, TypeError) as problem:
            _warn("%s: cannot be read (%s); this engine begins anew", place, problem)
            return None
        return state

    def entries(self, position: tuple[str, int] = ("", 0)) -> Iterator[JournalEntry]:
        """Every bar behind a position, oldest first."""
        date, count = position
        for found, path in self._journals():
            if found >= date:
                yield from read_journal(path, count if found == date else 0)

    def close(self) -> None:
        """Cut the journal to its length and let go of the folder."""
        self._release()
        os.close(self._lock)

    def _journals(self) -> list[tuple[str, Path]]:
        """Every journal with its session date, oldest first."""
        names = (_NAME.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted((name[1], self.folder / name[0]) for name in names if name)

    def _path(self) -> Path:
        """The newest session's."""
        return self.folder / f"bars-{iso_date(self._day)}.journal"

    def _turn(self, day: int) -> None:
        self._release()
        self._day = day
        self._broken = False
        path = self._path()
        self._at = sum(_SIZE for _ in read_journal(path)) if path.exists() else 0
        self._size = 0

    def _grow(self) -> bool:
        """Reserve room on the disk and map it: memory without room behind it would kill the process."""
        if self._broken:
            return False
        path = self._path()
        size = self._at + _GROWTH
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            try:
                _reserve(handle, size)
                memory = mmap.mmap(handle, size)
            finally:
                os.close(handle)
        except (OSError, ValueError) as problem:
            self._broken = True
            _warn("%s: no room for bars (%s); a restart knows none from here on", path, problem)
            return False
        if self._map is not None:
            self._map.close()
        self._map, self._size = memory, size
        return True

    def _release(self) -> None:
        if self._map is None:
            return
        self._map.close()
        self._map = None
        with contextlib.suppress(OSError):
            os.truncate(self._path(), self._at)


def _reserve(handle: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)
    else:
        there = os.fstat(handle).st_size
        os.pwrite(handle, bytes(max(0, size - there)), there)


def read_journal(path: Path, skip: int = 0) -> Iterator[JournalEntry]:
    """The whole entries of one journal from number `skip` on; what a kill left unwritten is no entry."""
    data = read_plain(path, follow=False)
    for at in range(skip * _SIZE, len(data) - _SIZE + 1, _SIZE):
        body = data[at : at + _BODY]
        if zlib.crc32(body).to_bytes(4, "little") != data[at + _BODY : at + _SIZE] or not any(body):
            return
        yield JournalEntry(*_FIELDS.unpack(body))


def _warn(message: str, *values: Any) -> None:
    logger.warning(message, *values, extra=COMPONENT)
