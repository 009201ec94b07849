"""The text of an env file: variables set in it, and nothing else changed.

What a text says is decided by python-dotenv's own parser, which also reads it for `Settings`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from dotenv.parser import parse_stream

from sqkit.errors import OutputError, SettingsError

_PLAIN: Final = re.compile(r"[A-Za-z0-9_./:@%+,=-]*")
_ASSIGNMENT: Final = re.compile(
    r"\s*(?:export[^\S\r\n]+)?(?:'[^']+'|[^=#\s]+)[^\S\r\n]*(?P<sign>=[^\S\r\n]*)?"
)
_QUOTED: Final = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\"""", re.DOTALL)
_UNQUOTED: Final = re.compile(r"[^\r\n]*?(?=\s+#|\s*$)")


def quoted(name: str, value: str) -> str:
    """A value as python-dotenv reads it back; plain and single-quoted values suit a shell as well.

    Raises
    ------
    SettingsError
        It has characters that no line of an env file can hold.
    """
    # python-dotenv fills in ${NAME} under any quotes, and reads a quote in quotes as no shell does
    if not value.isprintable() or "${" in value or "'" in value or "\\" in value:
        raise SettingsError(f"{name}: {value!r} cannot stand in an env file; rename that path", value=value)
    if _PLAIN.fullmatch(value):
        return value
    return f"'{value}'"


def changed(text: str, lines: Sequence[str], path: Path) -> str:
    """An env file's text with variables set.

    Every assignment of a variable is changed, also one written in another case, since Settings reads
    both; ``export``, comments, order and line ends stay. What is not there is added at the end.

    Parameters
    ----------
    lines
        ``NAME=value``, quoted as by `quoted`.
    path
        Of the file, for messages.

    Raises
    ------
    OutputError
        The text would not be read back as meant.
    """
    wanted = dict(line.split("=", 1) for line in lines)
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    new = mark + _assigned(text.removeprefix(mark), wanted)
    meant = dict(_assignments("\n".join(lines)))
    before = _assignments(text)
    after = [(name, meant.get(name.upper(), value)) for name, value in before]
    known = {name.upper() for name, _ in before}
    after += [(name, meant[name]) for name in wanted if name not in known]
    if _assignments(new) != after:
        raise OutputError(
            f"{path}: {', '.join(wanted)} cannot be set without changing what other lines mean; look for a quote that "
            "is never closed, or set the lines by hand",
            path=str(path),
        )
    return new


def _assigned(text: str, wanted: Mapping[str, str]) -> str:
    end = "\r\n" if "\r\n" in text else "\n"
    parts, missing = [], dict(wanted)
    for binding in parse_stream(io.StringIO(text)):
        name = (binding.key or "").upper()
        original = binding.original.string
        missing.pop(name, None)
        parts.append(_with_value(original, wanted[name]) if name in wanted else original)
    new = "".join(parts)
    if missing and new and not new.endswith(("\n", "\r")):
        new += end
    return new + "".join(f"{name}={value}{end}" for name, value in missing.items())


def _with_value(original: str, value: str) -> str:
    """One assignment with another value; its spacing, comment and line end stay."""
    start = _ASSIGNMENT.match(original)
    assert start is not None  # python-dotenv has just read it as one
    head, rest = original[: start.end()], original[start.end() :]
    if start["sign"] is None:
        head = head.rstrip() + "="
    if rest.startswith("#") and start["sign"] != "=":  # KEY= # comment
        head, tail = head.rstrip(), f" {rest}"
    else:
        old = _QUOTED.match(rest) or _UNQUOTED.match(rest)
        tail = rest[old.end() :] if old else rest
        if tail.startswith("#"):  # KEY='value'# comment
            tail = f" {tail}"
    return head + (value or ("''" if tail.strip() else "")) + tail


def values_in(text: str) -> dict[str, str | None]:
    """What python-dotenv reads in a text; None for a name without ``=``, the last of several values."""
    return dict(_assignments(text))


def _assignments(text: str) -> list[tuple[str, str | None]]:
    bindings = parse_stream(io.StringIO(text.removeprefix("\ufeff")))
    return [(binding.key, binding.value) for binding in bindings if binding.key is not None]
