"""Telemetry files as they grow: lines that are whole, each once, of every engine that writes to a folder.

How far each file was read is the reader's to keep; a restart goes on from there. A torn last line is read when it is whole.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from sqkit.files import open_plain

_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_CHUNK_BYTES: Final = 8 << 20


class Line(NamedTuple):
    """One record with its place.

    Attributes
    ----------
    path
        Of its file, relative to the telemetry folder.
    begins, ends
        Bytes before it, and with it, in that file.
    """

    path: str
    begins: int
    ends: int
    record: dict[str, Any]


class TelemetryTail:
    """The records of one slot below a telemetry folder.

    Parameters
    ----------
    folder
        ``data/telemetry``.
    slot, strategy
        Whose records.
    read
        How far files were read before.

    Attributes
    ----------
    read
        File to the bytes that were taken so far.
    broken
        Lines that are no records.
    """

    def __init__(self, folder: Path, slot: str, strategy: str, read: Mapping[str, int] | None = None) -> None:
        self._folder = folder
        self._whose = slot, strategy
        self.read = dict(read or {})
        self.broken = 0

    def days(self) -> list[str]:
        """Folders of session dates that may hold something new, oldest first."""
        if not self._folder.is_dir():
            return []
        return sorted(
            one.name for one in self._folder.iterdir() if _DATE.fullmatch(one.name) and one.is_dir()
        )

    def new(self, day: str) -> Iterator[list[Line]]:
        """What came to the files of a session date since the last look, in order of decision, in portions.

        A portion ends where the first of the files that hold more was read to, so that none runs ahead of another.
        """
        while True:
            portion: list[Line] = []
            limits, unread = [], False
            for path in sorted((self._folder / day).glob("*.jsonl")):
                lines, more = self._portion(f"{day}/{path.name}")
                portion += lines
                unread |= more
                if more and lines:
                    limits.append(_order(lines[-1]))
            if not portion:
                if unread:
                    continue
                return
            limit = min(limits, default=None)
            for line in reversed(portion):  # what lies beyond is read again with the next portion
                if limit is not None and _order(line) > limit:
                    self.read[line.path] = min(self.read[line.path], line.begins)
            yield sorted((line for line in portion if limit is None or _order(line) <= limit), key=_order)

    def take(self, path: str, begins: int, ends: int, data: bytes) -> list[Line]:
        """A line that its writer hands over; what was missed before it is read from the file.

        Returns
        -------
        list of Line
            Empty where it was taken before, or is of another slot.
        """
        at = self.read.get(path, 0)
        if begins < at:
            return []
        if begins > at:
            return sorted(self._portion(path)[0], key=_order)
        self.read[path] = ends
        return list(self._parsed(path, begins, data))

    def _portion(self, path: str) -> tuple[list[Line], bool]:
        """Whole lines from where the file was read to, and whether it holds more of them."""
        at = self.read.get(path, 0)
        try:
            with open_plain(self._folder / path, follow=False) as stream:
                if os.fstat(stream.fileno()).st_size < at:
                    at = 0  # another file lies there now; what was read before is known by its bars
                stream.seek(at)
                data = stream.read(_CHUNK_BYTES)
        except OSError:
            return [], False
        whole = data[: data.rfind(b"\n") + 1]
        if not whole and len(data) == _CHUNK_BYTES:
            whole = data  # no record is that long: it is passed over
        self.read[path] = at + len(whole)
        return list(self._parsed(path, at, whole)), len(data) == _CHUNK_BYTES

    def _parsed(self, path: str, at: int, data: bytes) -> Iterator[Line]:
        for line in data.splitlines(keepends=True):
            begins, at = at, at + len(line)
            try:
                record = orjson.loads(line)
                if (record["slot"], record["strategy"]) == self._whose:
                    yield Line(path, begins, at, record)
            except (ValueError, KeyError, TypeError):
                self.broken += bool(line.strip())


def _order(line: Line) -> tuple[str, str, int]:
    return str(line.record.get("decision_time", "")), line.path, line.begins
