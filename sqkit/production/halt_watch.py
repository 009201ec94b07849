"""Is the slot halted? Asked before every tick: the flag beside the model, and the audit log behind it."""

from __future__ import annotations

import os
from pathlib import Path

from sqkit.errors import SqkitError
from sqkit.production.audit import AuditLog
from sqkit.production.halting import read_level, stricter


class HaltWatch:
    """The halt of one slot, for one engine.

    Parameters
    ----------
    flag
        ``halt.json`` beside the model; looked at every time.
    log, slot
        The audit log, in which a halt stands whose flag could not be written.

    Attributes
    ----------
    logged
        The level at which the log halts, as it was last read.
    """

    def __init__(self, flag: Path, log: AuditLog, slot: str) -> None:
        self._flag = str(flag)
        self._path = flag
        self._log = log
        self._slot = slot
        self._mark: tuple[int, ...] | None = None
        self._read: str | None = None
        self._unseen: str | None = None
        self.logged: str | None = None
        self.look()

    def level(self) -> str | None:
        """``student_off`` or ``no_new_entries``; None where nobody has halted the slot.

        Quick: what `os.access` cannot see, `look` does.
        """
        if os.access(self._flag, os.F_OK):
            return stricter(self._flagged(), self.logged)
        if self._unseen is None:
            return self.logged
        return stricter(self._unseen, self.logged)

    def look(self) -> None:
        """Look for a flag that is there and cannot be followed, or a folder that was closed: beside the ticks."""
        self._unseen = None if os.access(self._flag, os.F_OK) else read_level(self._path)

    def read_log(self) -> None:
        """Read the log again: done beside the ticks, when it changes."""
        try:
            level = self._log.state(self._slot).halt_level
        except (SqkitError, OSError):
            return  # it says nothing new; what it said before goes on
        self.logged = level

    def _flagged(self) -> str | None:
        """The flag's level; it is read again when it is another file."""
        try:
            about = self._path.stat()
        except OSError:  # resumed meanwhile, or nobody knows
            self._mark = None
            return read_level(self._path)
        mark = (about.st_ino, about.st_ctime_ns, about.st_mtime_ns, about.st_size)
        if mark != self._mark:
            self._read, self._mark = read_level(self._path), mark
        return self._read
