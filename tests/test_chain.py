"""The chain of lines under ledger and audit log: what is appended stays, and what is changed is located."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqkit.chain import (
    Chain,
    ChainForm,
    ChainWitness,
    head_file,
    held,
    kept_head,
    read_chain,
    torn_line,
    write_head,
    write_line,
)
from sqkit.errors import AuditBroken, ConflictError, OutputError, UsageError
from sqkit.files import canonical_json, sha256_json


def only_numbers(kind: Any, content: Mapping[str, Any]) -> None:
    """The lines of this file's chains: a number each."""
    if kind != "number" or set(content) != {"number"} or type(content["number"]) is not int:
        raise UsageError(f"{kind!r} is no number")


FORM = ChainForm(
    begins="numbers",
    check=only_numbers,
    broken=AuditBroken,
    word="list of numbers",
    if_broken="mend {name}",
    if_cut="mend {name} ({witnesses} disagree)",
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a chain may lie."""
    return tmp_path / "numbers.jsonl"


def read(path: Path, *witnesses: ChainWitness, known: Chain | None = None) -> Chain:
    """The verified chain."""
    return read_chain(path, list(witnesses), FORM, known)


def add(path: Path, number: int) -> Chain:
    """Append a number and note it."""
    chain = read(path)
    write_line(path, chain, {"kind": "number", "number": number})
    write_head(path, chain.entries, FORM)
    return chain


def filled(path: Path, lines: int = 4) -> Path:
    """A chain of the first few numbers."""
    for number in range(1, lines + 1):
        add(path, number)
    return path


def numbers(chain: Chain) -> list[int]:
    """What a chain says."""
    return [entry["number"] for entry in chain.entries]


def lines_of(path: Path) -> list[bytes]:
    """The lines as they lie there."""
    return path.read_bytes().splitlines()


def put(path: Path, lines: list[bytes]) -> None:
    """Other lines in their place."""
    path.write_bytes(b"".join(line + b"\n" for line in lines))


def forged(content: dict[str, Any]) -> bytes:
    """A line with its own digest, as somebody writes it who knows how."""
    return canonical_json(content | {"digest": sha256_json(content)}, indent=None).strip().encode()


# --- what holds


def test_what_is_appended_is_read_back(path: Path) -> None:
    """Lines come back in order, each naming the one before it; no file at all is an empty chain."""
    assert numbers(read(path)) == []
    chain = read(filled(path))

    assert numbers(chain) == [1, 2, 3, 4]
    assert [entry["previous"] for entry in chain.entries[:1]] == [FORM.genesis]
    assert chain.size == path.stat().st_size
    assert kept_head(path, FORM) is not None


def test_a_chain_kept_in_memory_goes_on_as_one_read_anew(path: Path) -> None:
    """After each append the chain in memory is what a reader of the file gets."""
    chain = read(path)
    for number in range(5):
        write_line(path, chain, {"kind": "number", "number": number})
        again = read(path)
        assert (again.entries, again.previous, again.size) == (chain.entries, chain.previous, chain.size)
        assert again.seen.hexdigest() == chain.seen.hexdigest()


def test_a_last_line_without_its_end_counts_and_the_next_follows_it(path: Path) -> None:
    """Only the newline was lost: the line is whole, and appending puts the newline back."""
    path = filled(path)
    path.write_bytes(path.read_bytes()[:-1])

    assert numbers(read(path)) == [1, 2, 3, 4]
    assert numbers(add(path, 5)) == [1, 2, 3, 4, 5]
    assert numbers(read(path)) == [1, 2, 3, 4, 5]


@given(cut=st.integers(min_value=1, max_value=10_000))
@settings(max_examples=60, deadline=None)
def test_a_line_torn_anywhere_is_dropped_and_said(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    """A killed append leaves any beginning of its line: nobody counted it; the next append takes its place."""
    path = filled(tmp_path_factory.mktemp("torn") / "numbers.jsonl", 2)
    before = path.read_bytes()
    head = head_file(path).read_bytes()
    add(path, 3)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(before) + cut % (len(whole) - len(before) - 1)])
    head_file(path).write_bytes(head)

    chain = read(path)
    torn = path.read_bytes() != before

    assert numbers(chain) == [1, 2]
    assert chain.torn is torn
    assert ("line 3 was torn" in torn_line(path, chain)) is torn
    assert numbers(add(path, 4)) == [1, 2, 4]
    assert numbers(read(path)) == [1, 2, 4]


def test_a_torn_line_that_was_counted_is_a_lost_line(path: Path) -> None:
    """Tearing the last line after it was noted is no crash: the head knows better."""
    path = filled(path)
    path.write_bytes(path.read_bytes()[:-20])

    with pytest.raises(AuditBroken, match=r"ends at line 3, but .*numbers\.head counted 4 lines"):
        read(path)


# --- what does not hold


def edited(lines: list[bytes], number: int) -> list[bytes]:
    """One value changed, the digest left as it was."""
    entry = json.loads(lines[number - 1]) | {"number": 9}
    return [*lines[: number - 1], canonical_json(entry, indent=None).strip().encode(), *lines[number:]]


def rewritten(lines: list[bytes], number: int) -> list[bytes]:
    """One value changed, and the digest with it."""
    entry = json.loads(lines[number - 1]) | {"number": 9}
    entry.pop("digest")
    return [*lines[: number - 1], forged(entry), *lines[number:]]


def inserted(lines: list[bytes], number: int) -> list[bytes]:
    """A line of its own before another."""
    entry = {"kind": "number", "number": 9, "previous": json.loads(lines[number - 1])["previous"]}
    return [*lines[: number - 1], forged(entry), *lines[number - 1 :]]


def removed(lines: list[bytes], number: int) -> list[bytes]:
    """A line left out."""
    return [*lines[: number - 1], *lines[number:]]


def swapped(lines: list[bytes], number: int) -> list[bytes]:
    """Two lines in each other's place."""
    return [*lines[: number - 1], lines[number], lines[number - 1], *lines[number + 1 :]]


def spaced(lines: list[bytes], number: int) -> list[bytes]:
    """The same JSON, written in another way."""
    entry = json.loads(lines[number - 1])
    return [*lines[: number - 1], json.dumps(entry, sort_keys=True).encode(), *lines[number:]]


def broken_up(lines: list[bytes], number: int) -> list[bytes]:
    """A line that is no JSON."""
    return [*lines[: number - 1], lines[number - 1][:-5], *lines[number:]]


@pytest.mark.parametrize(
    ("change", "found_at"),
    [(edited, 2), (rewritten, 3), (inserted, 3), (removed, 2), (swapped, 2), (spaced, 2), (broken_up, 2)],
)
@pytest.mark.parametrize("head", [True, False])
def test_a_changed_line_is_located(
    path: Path, change: Callable[[list[bytes], int], list[bytes]], found_at: int, *, head: bool
) -> None:
    """Whatever is done to line 2: the refusal names the first line that does not hold, with or without the head."""
    path = filled(path)
    if not head:
        head_file(path).unlink()
    put(path, change(lines_of(path), 2))

    with pytest.raises(AuditBroken) as caught:
        read(path)

    assert caught.value.values["line"] == found_at
    assert f"line {found_at} " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_line_of_a_kind_nobody_writes_is_refused(path: Path) -> None:
    """A line with its own digest that says something else is no line of this chain."""
    path = filled(path, 1)
    chain = read(path)
    put(path, [*lines_of(path), forged({"kind": "letter", "letter": "a", "previous": chain.previous})])

    with pytest.raises(AuditBroken, match="line 2 is no line of this version"):
        read(path)


@pytest.mark.parametrize("kept", range(4))
def test_lines_cut_off_the_end_show_by_the_head(path: Path, kept: int) -> None:
    """However many lines are cut off, the head noted more."""
    path = filled(path)
    put(path, lines_of(path)[:kept])

    with pytest.raises(AuditBroken, match=r"numbers\.head counted 4 lines"):
        read(path)


def test_a_deleted_file_shows_by_the_head(path: Path) -> None:
    """No file is an empty chain only where nothing says otherwise."""
    filled(path).unlink()

    with pytest.raises(AuditBroken, match="is missing or empty"):
        read(path)


@pytest.mark.parametrize("said", ["", "{", "[]", '{"lines": 4}', '{"lines": "4", "digest": "x"}', "null"])
def test_a_damaged_head_is_refused(path: Path, said: str) -> None:
    """A head that names no last line is not taken for no head."""
    head_file(filled(path)).write_text(said)

    with pytest.raises(AuditBroken, match=r"numbers\.head: does not name"):
        read(path)


@pytest.mark.parametrize("line", [1, 3, 4])
def test_a_witness_is_believed(path: Path, line: int) -> None:
    """A file that names a line and its digest holds for the whole chain up to there."""
    entries = read(filled(path)).entries
    witness = ChainWitness(path.with_name("release.json"), line, entries[line - 1]["digest"])
    assert numbers(read(path, witness)) == [1, 2, 3, 4]

    head_file(path).unlink()
    put(path, lines_of(path)[: line - 1])
    with pytest.raises(AuditBroken) as caught:
        read(path, witness)

    assert str(witness.path) in caught.value.values["witnesses"]


@pytest.mark.parametrize("line", [0, -1, 5, 10**9])
def test_a_witness_of_a_line_that_is_not_there_breaks_the_chain(path: Path, line: int) -> None:
    """A witness with an impossible number does not count as met, and never as a Python error."""
    entries = read(filled(path)).entries

    with pytest.raises(AuditBroken):
        read(path, ChainWitness(path.with_name("release.json"), line, entries[-1]["digest"]))


# --- what was verified before


@pytest.mark.parametrize("change", [edited, rewritten, inserted, removed, swapped, spaced, broken_up])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_having_verified_a_beginning_never_hides_a_change_in_it(
    path: Path, change: Callable[[list[bytes], int], list[bytes]], number: int
) -> None:
    """A process that read the chain before sees an edit in what it read as any other does."""
    known = read(filled(path))
    add(path, 5)
    put(path, change(lines_of(path), number))

    with pytest.raises(AuditBroken) as fresh:
        read(path)
    with pytest.raises(AuditBroken) as again:
        read(path, known=known)

    assert again.value.values == fresh.value.values


def test_what_follows_on_a_verified_beginning_is_verified(path: Path) -> None:
    """Of a known beginning only what follows is read again, and it is read strictly."""
    known = read(filled(path, 2))
    filled_up = add(path, 3)
    assert numbers(read(path, known=known)) == [1, 2, 3]

    head_file(path).unlink()
    put(path, edited(lines_of(path), 3))
    with pytest.raises(AuditBroken, match="line 3 was edited"):
        read(path, known=known)
    put(path, lines_of(path)[:1])
    assert numbers(read(path, known=filled_up)) == [1]


def test_a_known_chain_is_not_changed_by_reading_on(path: Path) -> None:
    """Two readings from the same beginning give the same chain."""
    known = read(filled(path, 2))
    add(path, 3)
    first, second = read(path, known=known), read(path, known=known)

    assert numbers(known) == [1, 2]
    assert first.entries == second.entries
    assert first.seen.hexdigest() == second.seen.hexdigest()


# --- more than one process, and a disk that will not


APPENDS = """
import sys
from pathlib import Path
from sqkit.chain import held, read_chain, write_head, write_line
from tests.test_chain import FORM
path = Path(sys.argv[1])
for number in range(20):
    with held(path.with_suffix(".lock"), path, 30.0):
        chain = read_chain(path, [], FORM)
        write_line(path, chain, {"kind": "number", "number": int(sys.argv[2]) + number})
        write_head(path, chain.entries, FORM)
"""


def test_processes_that_append_at_once_keep_one_chain(path: Path) -> None:
    """Three processes with twenty lines each: sixty lines that hold, each process's own in order."""
    words = [sys.executable, "-c", APPENDS, str(path)]
    started = [subprocess.Popen([*words, str(first)]) for first in (100, 200, 300)]

    assert [process.wait() for process in started] == [0, 0, 0]
    said = numbers(read(path))
    assert len(said) == 60
    for first in (100, 200, 300):
        assert [number for number in said if number // 100 == first // 100] == [*range(first, first + 20)]


def test_who_waits_too_long_for_its_turn_is_told(path: Path) -> None:
    """A lock that is held longer than one waits is a conflict; afterwards it is free again."""
    lock = path.with_suffix(".lock")
    with held(lock, path, 1.0), pytest.raises(ConflictError, match="another process has held it"):
        with held(lock, path, 0.05):
            pass
    with held(lock, path, 0.05):
        pass


def test_a_line_that_cannot_be_written_changes_nothing(path: Path) -> None:
    """With no room for the line the file is as it was, and so is the chain in memory."""
    chain = read(filled(path))
    size = path.stat().st_size
    wanted = "x" * 64
    with pytest.raises(OutputError, match="limit"):
        _with_limit(
            size + 10, lambda: write_line(path, chain, {"kind": "number", "number": 5, "pad": wanted})
        )

    assert path.stat().st_size == size
    assert numbers(chain) == numbers(read(path)) == [1, 2, 3, 4]


def _with_limit(size: int, act: Callable[[], object]) -> None:
    """Do something while no file may grow beyond a size."""
    import resource
    import signal

    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        act()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_file_that_cannot_be_read_is_one_line(path: Path) -> None:
    """A folder in the file's place is a refusal that names it."""
    path.mkdir()

    with pytest.raises(AuditBroken, match="cannot be read") as caught:
        read(path)
    assert os.linesep not in str(caught.value)
