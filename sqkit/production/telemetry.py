"""Live telemetry: one JSON object a line, one file per process and session date, one write per record.

``data/telemetry/<session date>/<host>-<pid>.jsonl`` holds what an engine decided on every bar and every trade
it opened or closed; the fields and words are those of `sqkit.records`. A line is in the kernel's hands when
`write` returns, so killing the process loses nothing. A disk that fails is counted and said once; it never
raises. ``data/telemetry/engines/`` holds one small file an engine: when it started, what it served, when it
stopped (`sqkit.production.served_log`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import orjson

from sqkit.records import iso_date

TELEMETRY_FOLDER: Final = "telemetry"
ENGINES_FOLDER: Final = "engines"

logger = logging.getLogger("sqkit.production.engine")
COMPONENT: Final = {"component": "engine"}
"""Whose log lines these are, for ``extra``."""

_RETRY_NS: Final = 1_000_000_000
_OPTIONS: Final = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE


def host_name() -> str:
    """The machine's name, fit for a file's."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", socket.gethostname()) or "unknown"


class LineFile:
    """A file that lines are appended to, whatever becomes of the disk.

    Attributes
    ----------
    lost
        Lines that could not be written.
    size
        Bytes in the file; nobody else writes to it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lost = 0
        self.size = 0
        self._handle = -1
        self._torn = False
        self._said: set[int | None] = set()
        self._retry_at_ns = 0

    def append(self, line: bytes) -> bool:
        """Write one line, newline included, in one call; False where it was lost."""
        if self._handle < 0 and not self._open():
            self.lost += 1
            return False
        try:
            data = b"\n" + line if self._torn else line
            written = os.write(self._handle, data)
            self.size += written
            self._torn = written != len(data)
            if self._torn:  # the disk filled in the middle of a line; the next one begins anew
                raise OSError(28, "the line is torn", str(self.path))
            if self._said:
                self._said.clear()
        except OSError as problem:
            self._failed(problem)
            return False
        return True

    def close(self) -> None:
        """Give the file back."""
        if self._handle >= 0:
            with contextlib.suppress(OSError):
                os.close(self._handle)
            self._handle = -1

    def _open(self) -> bool:
        now = time.monotonic_ns()
        if now < self._retry_at_ns:
            return False
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(
                self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644
            )
            self.size = os.fstat(self._handle).st_size
        except OSError as problem:
            self._retry_at_ns = now + _RETRY_NS
            self._say(problem)
            return False
        return True

    def _failed(self, problem: OSError) -> None:
        self.lost += 1
        self._say(problem)
        if not self._torn:
            self.close()
            self._retry_at_ns = time.monotonic_ns() + _RETRY_NS

    def _say(self, problem: OSError) -> None:
        if problem.errno not in self._said:
            self._said.add(problem.errno)
            logger.warning(
                "telemetry cannot be written (%s: %s); trading goes on, lines are lost",
                self.path,
                problem.strerror,
                extra=COMPONENT,
            )


class TelemetryWriter:
    """The records of one engine.

    Parameters
    ----------
    folder
        ``data/telemetry``.
    name
        Of the engine, for its own file.
    started_ns
        When it started, UTC nanoseconds.

    Attributes
    ----------
    heard
        Told of every record that was written: file below the folder, bytes before and with it, the line. It
        must not wait.
    """

    def __init__(self, folder: Path, name: str, started_ns: int) -> None:
        self.folder = folder
        self._file_name = f"{host_name()}-{os.getpid()}.jsonl"
        self._day, self._date = -1, ""
        self._records: LineFile | None = None
        own = f"{host_name()}-{os.getpid()}-{name}-{started_ns // 1_000_000}.jsonl"
        self._events = LineFile(folder / ENGINES_FOLDER / own)
        self._lost_before = 0
        self.heard: Callable[[str, int, int, bytes], None] | None = None

    @property
    def lost(self) -> int:
        """Records that could not be written."""
        return self._lost_before + self._events.lost + (self._records.lost if self._records else 0)

    def write(self, session_day: int, record: dict[str, Any]) -> bool:
        """Append a record to the file of a session date; False where it was lost."""
        if session_day != self._day or self._records is None:
            self._turn(session_day)
        file = self._records
        assert file is not None
        line, begins = encoded(record), file.size
        kept = file.append(line)
        if kept and self.heard is not None:
            self.heard(f"{self._date}/{self._file_name}", begins, file.size, line)
        return kept

    def event(self, record: dict[str, Any]) -> bool:
        """Append a record to the engine's own file."""
        return self._events.append(encoded(record, _OPTIONS | orjson.OPT_SORT_KEYS))

    def close(self) -> None:
        """Give the files back."""
        self._events.close()
        if self._records is not None:
            self._records.close()

    def _turn(self, session_day: int) -> None:
        if self._records is not None:
            self._lost_before += self._records.lost
            self._records.close()
        self._day, self._date = session_day, iso_date(session_day)
        self._records = LineFile(self.folder / self._date / self._file_name)


def encoded(record: Mapping[str, Any], options: int = _OPTIONS) -> bytes:
    """A record as one line; a bar in a host's own kind of numbers goes as floats."""
    try:
        return orjson.dumps(record, option=options)
    except orjson.JSONEncodeError:
        bar = [None if one is None else float(one) for one in record.get("bar") or ()]
        return orjson.dumps({**record, "bar": bar}, option=options, default=str)


class InstantText:
    """UTC instants as ISO text with microseconds; quick while they lie in the same minute."""

    def __init__(self) -> None:
        self._minute = self._day = -1
        self._text = self._date = ""

    def of(self, nanoseconds: int) -> str:
        """``YYYY-MM-DDTHH:MM:SS.ffffffZ``."""
        minute, rest = divmod(nanoseconds, 60_000_000_000)
        if minute != self._minute:
            self._minute = minute
            day, of_day = divmod(minute, 1440)
            if day != self._day:
                self._day, self._date = day, iso_date(day)
            self._text = f"{self._date}T{of_day // 60:02d}:{of_day % 60:02d}:"
        second, rest = divmod(rest // 1000, 1_000_000)
        return f"{self._text}{second:02d}.{rest:06d}Z"

    def whole(self, nanoseconds: int) -> str:
        """As `sqkit.records.iso_instant` writes it: without a fraction where there is none."""
        text = self.of(nanoseconds)
        return f"{text[:19]}Z" if nanoseconds % 1_000_000_000 < 1000 else text
