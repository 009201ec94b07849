"""A file of JSON lines that hold together: each names the digest of the one before it.

The trial ledger and the audit log are kept so. In: a path, the form of its lines, and what others
say about the chain (witnesses). Out: verified entries, or one line naming what is wrong. The last
line is noted beside the file, so that a lost end shows; a line torn by a crash is dropped.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from sqkit.errors import ConflictError, IntegrityError, UsageError
from sqkit.files import (
    canonical_json,
    fsync_folder,
    output_errors,
    read_plain,
    sha256_bytes,
    sha256_json,
    temporaries,
    write_json,
)

_POLL_SECONDS: Final = 0.02
_NAMED: Final = 3

Entry = dict[str, Any]


@dataclass(frozen=True)
class ChainForm:
    """What one kind of chain is like.

    Attributes
    ----------
    begins
        Text whose SHA-256 the first line names as its previous one.
    check
        Called with a line's kind and content; raises UsageError for what nobody writes.
    broken
        The refusal of a chain that does not hold.
    word
        What its messages call it.
    if_broken, if_cut
        What to do; ``{name}``, ``{head}`` and ``{witnesses}`` are filled in.
    """

    begins: str
    check: Callable[[Any, Mapping[str, Any]], Any]
    broken: type[IntegrityError]
    word: str
    if_broken: str
    if_cut: str

    @property
    def genesis(self) -> str:
        """What stands for the line before the first."""
        return sha256_bytes(self.begins.encode())

    def advice(self, text: str, path: Path, witnesses: str = "") -> str:
        """`if_broken` or `if_cut` for a file."""
        return text.format(name=path.name, head=head_file(path).name, witnesses=witnesses)


@dataclass(frozen=True)
class ChainHead:
    """A place in the chain: the number of lines up to it, and the digest of the last (None without one)."""

    lines: int
    digest: str | None


@dataclass(frozen=True)
class ChainWitness:
    """A file that says which digest a line of the ledger has."""

    path: Path
    lines: int
    digest: str


@dataclass
class Chain:
    """Verified entries, the bytes they take, whether those end a line, and whether torn bytes follow."""

    previous: str
    entries: list[Entry] = field(default_factory=list)
    size: int = 0
    ended: bool = True
    torn: bool = False
    seen: Any = field(default_factory=hashlib.sha256)
    """A running SHA-256 of those bytes."""


def read_chain(
    path: Path, expected: Sequence[ChainWitness], form: ChainForm, known: Chain | None = None
) -> Chain:
    """The verified chain of a file, refused unless it holds what its head file and the witnesses say.

    `known` is a chain read before from the same file: where the file still begins with those very
    bytes only what follows is verified.
    """
    kept = kept_head(path, form)  # a process may append meanwhile: what says more is read last
    try:
        raw = read_plain(path)
    except FileNotFoundError:
        raw = b""
    except OSError as problem:
        raise form.broken(
            f"{path}: cannot be read ({problem.strerror}); mend that and run again", path=str(path)
        ) from None
    chain = _chain_of(raw, path, form, known)
    if kept is not None and kept.digest is not None:
        expected = [ChainWitness(head_file(path), kept.lines, kept.digest), *expected]
    _require_witnessed(chain.entries, expected, path, form)
    return chain


def _chain_of(raw: bytes, path: Path, form: ChainForm, known: Chain | None) -> Chain:
    """Verify every line; bytes at the end that are no JSON are a torn line."""
    chain = Chain(form.genesis)
    if known and known.ended and sha256_bytes(raw[: known.size]) == known.seen.hexdigest():
        chain = replace(known, entries=list(known.entries), torn=False, seen=hashlib.sha256())
    lines = raw[chain.size :].split(b"\n")
    ended = not lines[-1]
    if ended:
        lines.pop()
    first = len(chain.entries) + 1
    for number, line in enumerate(lines, first):
        last = number == first + len(lines) - 1
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            if last:
                chain.torn = True
                break
            raise _broken(path, number, "is not JSON", form) from None
        problem = _line_problem(entry, line, chain.previous, number, form)
        if problem:
            raise _broken(path, number, problem, form)
        chain.entries.append(entry)
        chain.previous = sha256_bytes(line)
        chain.ended = ended or not last
        chain.size += len(line) + (1 if chain.ended else 0)
    chain.seen = hashlib.sha256(raw[: chain.size])
    return chain


def _line_problem(entry: Any, line: bytes, previous: str, number: int, form: ChainForm) -> str:
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
        before = f"line {number - 1}" if number > 1 else f"the {form.word}'s beginning"
        return f"does not follow {before}: a line was edited, removed or moved"
    try:
        form.check(content.pop("kind", None), content)
    except UsageError as problem:
        return f"is no line of this version of sqkit ({problem})"
    return ""


def _broken(path: Path, number: int, problem: str, form: ChainForm) -> IntegrityError:
    return form.broken(
        f"{path}: line {number} {problem}; {form.advice(form.if_broken, path)}",
        path=str(path),
        line=number,
    )


def _require_witnessed(
    entries: list[Entry], expected: Sequence[ChainWitness], path: Path, form: ChainForm
) -> None:
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
    away = list(dict.fromkeys(str(w.path if w.path == head_file(path) else w.path.parent) for w in unmet))
    named = ", ".join(away[:_NAMED]) + (f" and {len(away) - _NAMED} more" if len(away) > _NAMED else "")
    raise form.broken(
        f"{path}: {problem}; {form.advice(form.if_cut, path, named)}",
        path=str(path),
        line=first.lines,
        witnesses=[str(witness.path) for witness in unmet],
    )


def next_entry(chain: Chain, content: Entry) -> Entry:
    """The entry that this content becomes when it is written next."""
    entry = {**content, "previous": chain.previous}
    return {**entry, "digest": sha256_json(entry)}


def torn_line(path: Path, chain: Chain) -> str:
    """What to say of a line that a crash tore; empty where none was."""
    if not chain.torn:
        return ""
    return f"{path}: line {len(chain.entries) + 1} was torn by a crash, nobody counted it; it is dropped"


def write_line(path: Path, chain: Chain, content: Entry) -> Entry:
    """Add an entry to the file and to the chain that was read from it; durable when this returns."""
    entry = next_entry(chain, content)
    raw = (("" if chain.ended else "\n") + canonical_json(entry, indent=None)).encode()
    with output_errors(path), open(path, "ab", buffering=0) as stream:
        stream.truncate(chain.size)
        try:
            left = raw
            while left:
                left = left[stream.write(left) :]
            os.fsync(stream.fileno())
        except OSError:  # a full disk leaves the file as it was
            stream.truncate(chain.size)
            raise
        fsync_folder(path.parent)
    chain.entries.append(entry)
    chain.previous = sha256_bytes(raw.strip())
    chain.seen.update(raw)
    chain.size, chain.ended, chain.torn = chain.size + len(raw), True, False
    return entry


def is_settled(path: Path, chain: Chain, form: ChainForm) -> bool:
    """Whether no crash left anything to `settle`."""
    noted = not chain.entries or kept_head(path, form) == head_of(chain.entries)
    return noted and chain.ended and not chain.torn and not temporaries(head_file(path))


def settle(path: Path, chain: Chain, form: ChainForm) -> list[str]:
    """Finish what a crash left of a chain that is held; one line for each thing done.

    A torn line is dropped. A last line that was not noted may not be on the disk yet: it is flushed, then noted.
    """
    done = [torn_line(path, chain)] if chain.torn else []
    with output_errors(path), open(path, "ab", buffering=0) as stream:
        stream.truncate(chain.size)
        if not chain.ended:
            stream.write(b"\n")
            done.append(f"ended line {len(chain.entries)} of {path.name}, whose last byte a crash cut off")
        os.fsync(stream.fileno())
        fsync_folder(path.parent)
    if chain.entries and kept_head(path, form) != head_of(chain.entries):
        done.append(f"noted line {len(chain.entries)} of {path.name} in {head_file(path).name}")
    for leftover in temporaries(head_file(path)):
        done.append(f"removed {leftover.name}, left by a process that was killed")
        leftover.unlink(missing_ok=True)
    write_head(path, chain.entries, form)
    return done


def head_file(path: Path) -> Path:
    return path.with_suffix(".head")


def write_head(path: Path, entries: list[Entry], form: ChainForm) -> None:
    """Note the last line beside the file, unless it is noted already."""
    head = head_of(entries)
    if head.lines and kept_head(path, form) != head:
        write_json(head_file(path), {"digest": head.digest, "lines": head.lines})


def kept_head(path: Path, form: ChainForm) -> ChainHead | None:
    """What was noted beside the file after the last append; None where nothing was."""
    place = head_file(path)
    if not place.exists():
        return None
    kept = head_in(json_of(place), "lines", "digest")
    if kept is None:
        raise form.broken(
            f"{place}: does not name the {form.word}'s last line; restore it and {path.name} from a backup, or move it "
            f"away if {path.name} is known to be whole",
            path=str(place),
        )
    return kept


def head_of(entries: list[Entry]) -> ChainHead:
    return ChainHead(len(entries), entries[-1]["digest"] if entries else None)


def head_in(said: Any, lines: str, digest: str) -> ChainHead | None:
    """A head that a file names; None where there is none."""
    if (
        not isinstance(said, dict)
        or type(said.get(lines)) is not int
        or not isinstance(said.get(digest), str)
    ):
        return None
    return ChainHead(said[lines], said[digest])


def json_of(path: Path) -> Any:
    try:
        return json.loads(read_plain(path))
    except (OSError, ValueError, RecursionError):
        return None


@contextlib.contextmanager
def held(lock: Path, file: Path, seconds: float) -> Iterator[None]:
    """Hold a chain for one append; unlike `sqkit.files.exclusive` this waits for its turn."""
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
                        f"{file}: another process has held it for {seconds:g} seconds; wait for it and run again",
                        path=str(file),
                    ) from None
                time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(handle)
