"""The halt flag of a slot: ``halt.json`` beside the model, at which an engine looks before every tick.

Reading never raises and never waits. What lies there and says no level that is known halts at the strictest one, so an
empty file is a whole halt, and needs no room on a full disk. In: the flag's path. Out: a level, or who halted and why.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from sqkit.audit_log import HALT_LEVELS, NO_NEW_ENTRIES, STUDENT_OFF
from sqkit.errors import OutputError
from sqkit.files import open_plain, parse_json, write_bytes, write_json
from sqkit.people import one_line

__all__ = [
    "HALT_LEVELS",
    "MEANING",
    "NO_NEW_ENTRIES",
    "STUDENT_OFF",
    "Halt",
    "flag_of",
    "read_halt",
    "read_level",
    "stricter",
    "sure_level",
    "write_flag",
]

MEANING: Final = {STUDENT_OFF: "the baseline trades on", NO_NEW_ENTRIES: "exits and the square-off go on"}
"""What happens at a level, for a person."""

_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_FILE: Final = (errno.ELOOP, errno.EINVAL, errno.ENXIO)
"""What opening a symlink, a pipe or folder, and a socket says to whoever tries."""

_LONGEST_BYTES: Final = 1 << 20


class Halt(NamedTuple):
    """A halt as its flag tells it; what the flag does not say is empty."""

    level: str
    at: str = ""
    by_name: str = ""
    reason: str = ""


def read_level(path: Path) -> str | None:
    """The level at which a flag halts; None where there is none. Never raises.

    A flag that is empty, torn, unknown, a symlink, a pipe or not to be read halts at `NO_NEW_ENTRIES`.
    """
    found = read_halt(path)
    return None if found is None else found.level


def read_halt(path: Path) -> Halt | None:
    """What a flag says; None where there is none. Never raises, and halts as `read_level` does."""
    try:
        return _read(path) if _lies(path) else None
    except FileNotFoundError:  # resumed since we looked
        return None
    except Exception:  # noqa: BLE001 - whatever is wrong with it, it halts
        return Halt(NO_NEW_ENTRIES)


def _lies(path: Path) -> bool:
    """Whether something has that name; asked first, as a process without free handles could not open even nothing."""
    try:
        os.lstat(path)  # every tick asks this: half a microsecond less than by way of the path
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _read(path: Path) -> Halt:
    with open_plain(path, follow=False) as stream:
        said = parse_json(stream.read(_LONGEST_BYTES), path)
    flag = said if isinstance(said, dict) else {}
    by = flag.get("by")
    words = (flag.get("at"), by.get("name") if isinstance(by, dict) else None, flag.get("reason"))
    level = flag["level"] if flag.get("level") in HALT_LEVELS else NO_NEW_ENTRIES
    return Halt(level, *(one_line(word) if isinstance(word, str) else "" for word in words))


def sure_level(path: Path) -> str | None:
    """The level at which a flag halts every reader at least, also one who may read what we may not.

    For whoever halts: what cannot be looked at may be a milder flag, or none.
    """
    if not os.path.lexists(path):
        return None
    try:
        return _read(path).level
    except OSError as problem:
        return NO_NEW_ENTRIES if problem.errno in _NO_FILE else STUDENT_OFF
    except Exception:  # noqa: BLE001 - it says nothing to anybody
        return NO_NEW_ENTRIES


def stricter(one: str | None, other: str | None) -> str | None:
    """The stricter of two levels, None being no halt: of flag and audit log that one holds."""
    return max(one, other, key=(None, *HALT_LEVELS).index)


def flag_of(line: Mapping[str, Any]) -> dict[str, Any]:
    """What the flag of a halt says, from the audit line of the halt."""
    return {"at": line["at"], "by": line["actor"], "level": line["level"], "reason": line["reason"]}


def write_flag(path: Path, flag: Mapping[str, Any]) -> str:
    """Write a flag atomically; where the disk has no room for it, an empty one.

    Parameters
    ----------
    flag
        As `flag_of` gives it.

    Returns
    -------
    str
        Why the flag is empty; nothing where it says everything.

    Raises
    ------
    OutputError
        It cannot be written, and what lay there lies there still.
    """
    try:
        write_json(path, flag)
    except OutputError as problem:
        lying = sure_level(path)
        if problem.values.get("errno") not in _NO_ROOM or stricter(lying, flag["level"]) == lying:
            raise
        write_bytes(path, b"")
        return f"{problem}; until then the flag is empty, which means {NO_NEW_ENTRIES}"
    return ""
