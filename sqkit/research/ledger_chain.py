"""A file of JSON lines that hold together: each names the digest of the one before it.

`sqkit.research.trials` keeps its ledger so. In: a path, a rule for what a line may say, and what
others say about the chain (witnesses). Out: verified entries, or one line naming what is wrong. The
last line is noted beside the file, so that a lost end shows; a line torn by a crash is dropped.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqkit.errors import ConflictError, LedgerBroken, UsageError
from sqkit.files import canonical_json, fsync_folder, output_errors, sha256_bytes, sha256_json
from sqkit.research.progress import say

_GENESIS: Final = sha256_bytes(b"sqkit trial ledger 1")
_POLL_SECONDS: Final = 0.02
_NAMED: Final = 3

Entry = dict[str, Any]
Check = Callable[[Any, Mapping[str, Any]], Any]


@dataclass(frozen=True)
class LedgerHead:
    """A place in the chain: the number of lines up to it, and the digest of the last (None without one)."""

    lines: int
    digest: str | None


@dataclass(frozen=True)
class LedgerWitness:
    """A file that says which digest a line of the ledger has."""

    path: Path
    lines: int
    digest: str


@dataclass
class Chain:
    """Verified entries, the bytes they take, whether those end a line, and whether torn bytes follow."""

    entries: list[Entry]
    size: int = 0
    ended: bool = True
    torn: bool = False
    previous: str = _GENESIS


def read_chain(path: Path, expected: Sequence[LedgerWitness], check: Check) -> Chain:
    """The verified chain of a file, refused unless it holds what its head file and the witnesses say.

    `check` raises UsageError for a kind and a content that nobody writes.
    """
    kept = kept_head(path)  # a process may append meanwhile: what says more is read last
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raw = b""
    except OSError as problem:
        raise LedgerBroken(
            f"{path}: cannot be read ({problem.strerror}); mend that and run again", path=str(path)
        ) from None
    chain = _chain_of(raw, path, check)
    if kept is not None and kept.digest is not None:
        expected = [LedgerWitness(head_file(path), kept.lines, kept.digest), *expected]
    _require_witnessed(chain.entries, expected, path)
    return chain


def _chain_of(raw: bytes, path: Path, check: Check) -> Chain:
    """Verify every line; bytes at the end that are no JSON are a torn line."""
    chain = Chain([])
    lines = raw.split(b"\n")
    ended = not lines[-1]
    if ended:
        lines.pop()
    for number, line in enumerate(lines, 1):
        last = number == len(lines)
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            if last:
                chain.torn = True
                break
            raise _broken(path, number, "is not JSON") from None
        problem = _line_problem(entry, line, chain.previous, number, check)
        if problem:
            raise _broken(path, number, problem)
        chain.entries.append(entry)
        chain.previous = sha256_bytes(line)
        chain.ended = ended or not last
        chain.size += len(line) + (1 if chain.ended else 0)
    return chain


def _line_problem(entry: Any, line: bytes, previous: str, number: int, check: Check) -> str:
    if not isinstance(entry, dict):
        return "is no entry"
    content = {name: value for name, value in entry.items() if name != "digest"}
    try:
        whole = line + b"\n" == canonical_json(entry, indent=None).encode()
        if not whole or entry.get("digest") != sha256_json(content):
            return "was edited: it does not have its own digest"
    except (ValueError, RecursionError):  # a number that is not finite, text that is no Unicode
        return "was edited: it is not strict JSON"
    if content.pop("previous", None) != previous:
        before = f"line {number - 1}" if number > 1 else "the ledger's beginning"
        return f"does not follow {before}: a line was edited, removed or moved"
    try:
        check(content.pop("kind", None), content)
    except UsageError as problem:
        return f"is no line of this version of sqkit ({problem})"
    return ""


def _broken(path: Path, number: int, problem: str) -> LedgerBroken:
    return LedgerBroken(
        f"{path}: line {number} {problem}; restore {path.name} from a backup; if it is lost for good, move it, "
        f"{path.with_suffix('.head').name} and the validations and reports it counted away",
        path=str(path),
        line=number,
    )


def _require_witnessed(entries: list[Entry], expected: Sequence[LedgerWitness], path: Path) -> None:
    unmet = [
        witness
        for witness in expected
        if not (0 < witness.lines <= len(entries) and entries[witness.lines - 1]["digest"] == witness.digest)
    ]
    if not unmet:
        return
    first = unmet[0]
    if not entries:
        problem = f"is missing or empty, but {first.path} counted {first.lines} lines"
    elif first.lines > len(entries):
        problem = f"ends at line {len(entries)}, but {first.path} counted {first.lines} lines"
    else:
        problem = f"line {first.lines} is not the one that {first.path} counted"
    away = [str(w.path if w.path == head_file(path) else w.path.parent) for w in unmet]
    named = ", ".join(away[:_NAMED]) + (f" and {len(away) - _NAMED} more" if len(away) > _NAMED else "")
    raise LedgerBroken(
        f"{path}: {problem}; restore {path.name} from a backup; if it is lost for good, move {named} "
        "out of the models and reports",
        path=str(path),
        line=first.lines,
        witnesses=[str(witness.path) for witness in unmet],
    )


def write_line(path: Path, chain: Chain, content: Entry) -> None:
    """Add an entry to the file and to the chain that was read from it; durable when this returns."""
    if chain.torn:
        say(f"{path}: line {len(chain.entries) + 1} was torn by a crash, nobody counted it; it is dropped")
    entry = {**content, "previous": chain.previous}
    entry["digest"] = sha256_json(entry)
    raw = (("" if chain.ended else "\n") + canonical_json(entry, indent=None)).encode()
    with output_errors(path), open(path, "ab", buffering=0) as stream:
        stream.truncate(chain.size)
        try:
            while raw:
                raw = raw[stream.write(raw) :]
            os.fsync(stream.fileno())
        except OSError:  # a full disk leaves the file as it was
            stream.truncate(chain.size)
            raise
        fsync_folder(path.parent)
    chain.entries.append(entry)


def head_file(path: Path) -> Path:
    return path.with_suffix(".head")


def kept_head(path: Path) -> LedgerHead | None:
    """What was noted beside the ledger after the last append; None where nothing was."""
    place = head_file(path)
    if not place.exists():
        return None
    kept = head_in(json_of(place), "lines", "digest")
    if kept is None:
        raise LedgerBroken(
            f"{place}: does not name the ledger's last line; restore it and {path.name} from a backup, or move it "
            f"away if {path.name} is known to be whole",
            path=str(place),
        )
    return kept


def head_of(entries: list[Entry]) -> LedgerHead:
    return LedgerHead(len(entries), entries[-1]["digest"] if entries else None)


def head_in(said: Any, lines: str, digest: str) -> LedgerHead | None:
    """A head that a file names; None where there is none."""
    if (
        not isinstance(said, dict)
        or type(said.get(lines)) is not int
        or not isinstance(said.get(digest), str)
    ):
        return None
    return LedgerHead(said[lines], said[digest])


def json_of(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


@contextlib.contextmanager
def held(lock: Path, ledger: Path, seconds: float) -> Iterator[None]:
    """Hold the ledger for one append; unlike `sqkit.files.exclusive` this waits for its turn."""
    with output_errors(lock):
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        until = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise ConflictError(
                        f"{ledger}: another process has held it for {seconds:g} seconds; wait for it and run again",
                        path=str(ledger),
                    ) from None
                time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(handle)
