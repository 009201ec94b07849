"""The trial ledger: what counts as a trial, who can change the count, what a crash leaves behind."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqkit.errors import ConflictError, LedgerBroken, OutputError, UsageError
from sqkit.files import canonical_json, sha256_bytes, sha256_json
from sqkit.research.trials import (
    ChainHead,
    ChainWitness,
    Look,
    TrialLedger,
    open_ledger,
    witnesses_in,
)

DAYS = ["2024-01-02", "2024-01-03", "2024-01-04"]
RETURNS = [0.01, -0.002, 0.0]


def look(
    behaviour: str = "a",
    first: str = "2024-01-01",
    last: str = "2024-03-31",
    symbols: tuple[str, ...] = ("X", "Y"),
) -> Look:
    """A look at the first quarter by student `behaviour`."""
    return Look(
        strategy="swing",
        market="nse",
        interval="1d",
        first_day=first,
        last_day=last,
        symbols=symbols,
        behaviour=behaviour,
        model_digest=f"model {behaviour}",
        model_version="20240401_000000",
        baseline=None,
    )


@pytest.fixture
def ledger(tmp_path: Path) -> TrialLedger:
    """An empty ledger in a folder that does not exist yet."""
    return TrialLedger(tmp_path / "models" / "trials.jsonl")


def with_lines(ledger: TrialLedger, lines: int = 4) -> TrialLedger:
    """The ledger after looks of that many students."""
    for number in range(lines):
        ledger.record_look(look(f"student {number}"))
    return ledger


def quarter(ledger: TrialLedger, *symbols: str) -> int:
    """Trials of the first quarter."""
    return ledger.trials("2024-01-01", "2024-03-31", symbols or ("X", "Y")).n_trials


# --- what a trial is


def test_nothing_recorded_is_no_trial(ledger: TrialLedger) -> None:
    """Without a file there are no entries, no head and no trial, and reading makes no file."""
    assert ledger.entries() == []
    assert ledger.head() == ChainHead(0, None)
    count = ledger.trials("2024-01-01", "2024-03-31", ["X"])
    assert count.describe() == {"n_trials": 0, "looks": 0, "ledger_lines": 0, "ledger_head": None}
    assert not ledger.path.parent.exists()


def test_every_other_behaviour_is_a_trial(ledger: TrialLedger) -> None:
    """Three students on one window are three trials, the one that is judged included."""
    counts = [ledger.record_look(look(name)) for name in "abc"]

    assert [count.n_trials for count in counts] == [1, 2, 3]
    assert [count.looks for count in counts] == [1, 2, 3]
    assert counts[-1].head == ledger.head()


def test_retraining_the_same_thing_adds_nothing(ledger: TrialLedger) -> None:
    """Another version, digest, baseline and time of the same behaviour add no trial and no line."""
    first = ledger.record_look(look())
    again = ledger.record_look(
        replace(look(), model_version="20250101_000000", model_digest="b", baseline="b.onnx")
    )

    assert again == first
    assert len(ledger.entries()) == 1


def test_symbols_count_as_a_set(ledger: TrialLedger) -> None:
    """The same symbols in another order are the same window."""
    ledger.record_look(look(symbols=("X", "Y")))

    assert ledger.record_look(look(symbols=("Y", "X"))).looks == 1


@pytest.mark.parametrize(
    ("first", "last", "symbols", "trials"),
    [
        ("2024-03-31", "2024-06-30", ("X",), 1),  # one day and one symbol
        ("2023-01-01", "2024-01-01", ("Z", "Y"), 1),  # the other end
        ("2024-02-01", "2024-02-01", ("X",), 1),  # inside
        ("2020-01-01", "2030-01-01", ("X", "Y", "Z"), 1),  # around
        ("2024-04-01", "2024-06-30", ("X", "Y"), 0),  # the day after
        ("2023-10-01", "2023-12-31", ("X", "Y"), 0),  # the day before
        ("2024-01-01", "2024-03-31", ("Z",), 0),  # the same days, no symbol
        ("2024-01-01", "2024-03-31", ("x",), 0),  # a symbol is what it is called
    ],
)
def test_windows_meet_in_days_and_symbols(
    ledger: TrialLedger, first: str, last: str, symbols: tuple[str, ...], trials: int
) -> None:
    """One shared day with one shared symbol is enough, days or symbols alone are not."""
    ledger.record_look(look())

    assert ledger.trials(first, last, symbols).n_trials == trials


def test_another_window_of_the_same_behaviour_counts_there_only_once(ledger: TrialLedger) -> None:
    """A shifted window adds a line for its new days, and no trial to the days that had it."""
    ledger.record_look(look(last="2024-02-15"))
    shifted = ledger.record_look(look(first="2024-02-01", last="2024-05-31"))

    assert (shifted.n_trials, shifted.looks) == (1, 2)
    assert ledger.trials("2024-05-01", "2024-05-31", ["X"]).n_trials == 1
    assert len(ledger.entries()) == 2


def test_windows_meet_directly_not_in_a_row(ledger: TrialLedger) -> None:
    """January does not count March because both meet February."""
    ledger.record_look(look("a", "2024-01-01", "2024-02-10"))
    ledger.record_look(look("b", "2024-02-01", "2024-03-10"))
    ledger.record_look(look("c", "2024-03-01", "2024-04-10"))

    assert ledger.trials("2024-01-01", "2024-02-10", ["X"]).n_trials == 2


MONTHS = [("2024-01-01", "2024-02-10"), ("2024-02-01", "2024-03-10"), ("2024-02-10", "2024-02-10")]
LOOKS = st.lists(
    st.builds(
        lambda name, days, symbols: look(name, days[0], days[1], tuple(symbols)),
        st.sampled_from("abcd"),
        st.sampled_from([*MONTHS, ("2024-04-01", "2024-04-30")]),
        st.lists(st.sampled_from("XYZ"), min_size=1, unique=True),
    ),
    max_size=7,
)
ASKED = [(first, last, symbol) for first, last in [*MONTHS, ("2024-01-01", "2024-12-31")] for symbol in "XYZ"]


def counted(looks: list[Look]) -> list[list[int]]:
    """Trials of every asked window, after every look, in a ledger of its own."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = TrialLedger(Path(folder) / "trials.jsonl")
        rows = []
        for one in looks:
            ledger.record_look(one)
            rows.append([ledger.trials(first, last, [symbol]).n_trials for first, last, symbol in ASKED])
    return rows or [[0] * len(ASKED)]


@settings(max_examples=30, deadline=None)
@given(LOOKS, st.randoms(use_true_random=False))
def test_order_and_repetition_change_no_count(looks: list[Look], chance: Any) -> None:
    """Looks in any order, each repeated at will, give the same counts; a count never falls."""
    rows = counted(looks)
    shuffled = looks + [one for one in looks if chance.random() < 0.5]
    chance.shuffle(shuffled)

    assert counted(shuffled)[-1] == rows[-1]
    assert all(
        before <= after
        for earlier, later in pairwise(rows)
        for before, after in zip(earlier, later, strict=True)
    )


@settings(max_examples=30, deadline=None)
@given(LOOKS)
def test_count_is_the_number_of_behaviours_that_meet_the_window(looks: list[Look]) -> None:
    """Day by day and symbol by symbol, without intervals: the same number."""

    def cells(first: str, last: str, symbols: Any) -> set[tuple[int, int, str]]:
        days = [(month, day) for month in range(1, 13) for day in range(1, 32)]
        inside = [(m, d) for m, d in days if first <= f"2024-{m:02}-{d:02}" <= last]
        return {(m, d, symbol) for m, d in inside for symbol in symbols}

    expected = [
        len(
            {
                one.behaviour
                for one in looks
                if cells(one.first_day, one.last_day, one.symbols) & cells(first, last, [symbol])
            }
        )
        for first, last, symbol in ASKED
    ]

    assert counted(looks)[-1] == expected


# --- returns


def test_returns_come_back_to_the_bit_and_only_once(ledger: TrialLedger) -> None:
    """Recording the same returns again adds no line; they come back as they went in."""
    wild = [0.1 + 0.2, -1e-300, -0.0]
    for _ in range(3):
        ledger.record_look(look())
        ledger.record_returns(look(), DAYS, wild, predictions="p")

    count = ledger.trials("2024-01-01", "2024-03-31", ["X", "Y"])
    assert len(ledger.entries()) == 2
    assert count.returns == {"a": (DAYS, wild)}
    assert str(count.returns["a"][1]) == str(wild)
    assert (count.n_trials, count.looks) == (1, 1)


def test_returns_without_a_look_count_as_one(ledger: TrialLedger) -> None:
    """Nobody keeps returns of a window without having looked at it."""
    ledger.record_returns(look(), DAYS, RETURNS, predictions="p")

    assert quarter(ledger) == 1


def test_returns_are_kept_apart_by_window(ledger: TrialLedger) -> None:
    """A window gets the returns that were measured on it, not those of a neighbour."""
    wide = look(last="2024-06-30", symbols=("X", "Y", "Z"))
    ledger.record_returns(look(), DAYS, RETURNS, predictions="p")
    ledger.record_returns(wide, [*DAYS, "2024-05-02"], [0.5, 0.5, 0.5, 0.7], predictions="p")

    assert ledger.trials("2024-01-01", "2024-03-31", ["Y", "X"]).returns == {"a": (DAYS, RETURNS)}
    assert ledger.trials("2024-05-01", "2024-05-31", ["X"]).returns == {"a": (["2024-05-02"], [0.7])}
    assert ledger.trials("2024-01-01", "2024-06-30", ["X", "Y", "Z"]).returns["a"][1] == [0.5, 0.5, 0.5, 0.7]
    assert ledger.trials("2024-07-01", "2024-07-31", ["X"]).returns == {}


def test_returns_of_the_very_window_come_before_longer_ones(ledger: TrialLedger) -> None:
    """A neighbour with more days inside does not replace what was measured on the window itself."""
    ledger.record_returns(look(), DAYS[:2], RETURNS[:2], predictions="p")
    ledger.record_returns(look(last="2024-06-30"), DAYS, [0.5, 0.5, 0.5], predictions="p")

    assert ledger.trials("2024-01-01", "2024-03-31", ["X", "Y"]).returns == {"a": (DAYS[:2], RETURNS[:2])}


def test_returns_of_an_overlapping_window_are_cut_to_the_asked_days(ledger: TrialLedger) -> None:
    """A rival measured on other days is compared on the shared ones; without any there is no series."""
    ledger.record_returns(look("rival"), DAYS, RETURNS, predictions="p")

    assert ledger.trials("2024-01-03", "2024-01-31", ["X"]).returns == {"rival": (DAYS[1:], RETURNS[1:])}
    assert ledger.trials("2024-02-01", "2024-02-28", ["X"]).returns == {}
    assert ledger.trials("2024-02-01", "2024-02-28", ["X"]).n_trials == 1


def test_newest_returns_of_a_window_count(ledger: TrialLedger) -> None:
    """Other costs on the same window replace the returns, and going back replaces them again."""
    for values in (RETURNS, [0.0, 0.0, 0.0], RETURNS):
        ledger.record_returns(look(), DAYS, values, predictions="p")
        assert ledger.trials("2024-01-01", "2024-03-31", ["X", "Y"]).returns["a"][1] == values

    assert len(ledger.entries()) == 4


@pytest.mark.parametrize(
    ("days", "returns", "said"),
    [
        (DAYS, [0.0, float("nan"), 0.0], "not finite"),
        (DAYS, [0.0, 0.0, float("inf")], "not finite"),
        (DAYS, [0.0, 0.0], "one for each day"),
        ([], [], "at least one"),
        (DAYS[::-1], RETURNS, "ascending"),
        ([DAYS[0], DAYS[0], DAYS[1]], RETURNS, "ascending"),
        (["2024-01-02", "2024-01-03", "2024-04-01"], RETURNS, "outside the window"),
        (["2023-12-31", "2024-01-03", "2024-01-04"], RETURNS, "outside the window"),
        (["2024-01-02", "2024-01-03", "today"], RETURNS, "YYYY-MM-DD"),
    ],
)
def test_returns_that_mean_nothing_are_refused(
    ledger: TrialLedger, days: list[str], returns: list[float], said: str
) -> None:
    """NaN, other lengths, days out of order or outside: refused before anything is written."""
    with pytest.raises(UsageError, match=said):
        ledger.record_returns(look(), days, returns, predictions="p")

    assert not ledger.path.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"first_day": "2024-04-01"},
        {"first_day": "20240101"},
        {"last_day": "20240331"},
        {"last_day": "2024-02-30"},
        {"last_day": None},
        {"symbols": ()},
        {"symbols": ("",)},
        {"behaviour": ""},
        {"model_version": "a\nb"},
        {"baseline": "\ud800"},
        {"strategy": 3},
    ],
)
def test_a_look_that_cannot_be_meant_is_refused(ledger: TrialLedger, change: dict[str, Any]) -> None:
    """Dates that are none, no symbol, an empty or broken text: one line, nothing written."""
    with pytest.raises(UsageError):
        ledger.record_look(replace(look(), **change))

    assert not ledger.path.exists()


# --- the chain


def test_lines_are_canonical_and_chained(ledger: TrialLedger) -> None:
    """Each line names the SHA-256 of the bytes before it and the digest of its own content."""
    with_lines(ledger)

    lines = ledger.path.read_bytes().splitlines()
    entries = [json.loads(line) for line in lines]
    assert [canonical_json(entry, indent=None).encode() for entry in entries] == [
        line + b"\n" for line in lines
    ]
    assert [entry["previous"] for entry in entries[1:]] == [sha256_bytes(line) for line in lines[:-1]]
    assert all(entry.pop("digest") == sha256_json(entry) for entry in entries)
    assert ledger.head().lines == 4


Tamper = Callable[[list[bytes]], list[bytes]]


def _edit(lines: list[bytes]) -> list[bytes]:
    return [lines[0], lines[1].replace(b"student 1", b"student 7"), *lines[2:]]


def _forge(place: int) -> Tamper:
    """Edit a line and give it a fresh digest of its own."""

    def forged(lines: list[bytes]) -> list[bytes]:
        entry = json.loads(lines[place])
        entry["behaviour"] = "another"
        del entry["digest"]
        entry["digest"] = sha256_json(entry)
        return [*lines[:place], canonical_json(entry, indent=None).encode(), *lines[place + 1 :]]

    return forged


@pytest.mark.parametrize(
    ("tamper", "line"),
    [
        (_edit, 2),
        (_forge(1), 3),
        (lambda lines: [lines[0], *lines[2:]], 2),
        (lambda lines: lines[1:], 1),
        (lambda lines: [lines[1], lines[0], *lines[2:]], 1),
        (lambda lines: [lines[0], lines[0], *lines[1:]], 2),
        (lambda lines: [lines[0], b"", *lines[1:]], 2),
        (lambda lines: [lines[0], b"not JSON", *lines[1:]], 2),
        (lambda lines: [lines[0], b"[1]", *lines[1:]], 2),
        (lambda lines: [lines[0], lines[1] + b" ", *lines[2:]], 2),
        (lambda lines: [lines[0], lines[1].replace(b'"baseline":null', b'"baseline":NaN'), *lines[2:]], 2),
        (lambda lines: [lines[0], lines[1].replace(b'"baseline":null', b'"baseline":1e999'), *lines[2:]], 2),
        (lambda lines: [lines[0], lines[1].replace(b"20240401", b"\\ud800"), *lines[2:]], 2),
        (lambda lines: [lines[0], lines[1].replace(b"20240401", b"\xff"), *lines[2:]], 2),
        (lambda lines: [lines[0], b"[" * 100_000, *lines[1:]], 2),
    ],
)
@pytest.mark.parametrize("with_head", [True, False])
def test_a_line_that_does_not_fit_is_named(
    ledger: TrialLedger, tamper: Tamper, line: int, with_head: bool
) -> None:
    """Edited, forged, dropped, swapped, doubled, emptied: refused with the line and the way out."""
    with_lines(ledger)
    ledger.path.write_bytes(b"\n".join(tamper(ledger.path.read_bytes().splitlines())) + b"\n")
    damaged = ledger.path.read_bytes()
    if not with_head:
        ledger.path.with_suffix(".head").unlink()

    with pytest.raises(LedgerBroken, match=r"restore trials\.jsonl from a backup") as refused:
        ledger.entries()
    with pytest.raises(LedgerBroken):
        ledger.record_look(look("new"))

    assert refused.value.exit_code == 4
    assert f"line {line} " in str(refused.value)
    assert "\n" not in str(refused.value)
    assert ledger.path.read_bytes() == damaged


@pytest.mark.parametrize(
    "change",
    [{"kind": "other"}, {"kind": []}, {"extra": 1}, {"symbols": "XY"}, {"symbols": []}, {"strategy": 5}],
)
def test_a_whole_chain_of_strange_lines_is_refused(ledger: TrialLedger, change: dict[str, Any]) -> None:
    """A line with the right digests and content that sqkit never writes is refused, not counted."""
    with_lines(ledger, 1)
    entry = {**ledger.entries()[0], **change}
    del entry["digest"]
    entry["digest"] = sha256_json(entry)
    ledger.path.write_text(canonical_json(entry, indent=None))
    ledger.path.with_suffix(".head").unlink()

    with pytest.raises(LedgerBroken, match="line 1 is no line of this version"):
        ledger.entries()


TAIL: list[tuple[str, Callable[[Path], Any], str]] = [
    (
        "cut",
        lambda path: path.write_bytes(b"".join(path.read_bytes().splitlines(True)[:-1])),
        "ends at line 3",
    ),
    ("torn", lambda path: path.write_bytes(path.read_bytes()[:-9]), "ends at line 3"),
    (
        "forged",
        lambda path: path.write_bytes(b"\n".join(_forge(3)(path.read_bytes().splitlines())) + b"\n"),
        "line 4 is not the one",
    ),
    ("emptied", lambda path: path.write_bytes(b""), "is missing or empty"),
    ("deleted", lambda path: path.unlink(), "is missing or empty"),
]


@pytest.mark.parametrize(("tamper", "said"), [case[1:] for case in TAIL], ids=[case[0] for case in TAIL])
def test_the_head_file_alone_shows_a_lost_end(
    ledger: TrialLedger, tamper: Callable[[Path], None], said: str
) -> None:
    """Without any validation: the end cut, torn, forged, or the whole ledger gone."""
    with_lines(ledger)
    tamper(ledger.path)
    existed = ledger.path.exists()

    with pytest.raises(LedgerBroken, match=said) as refused:
        TrialLedger(ledger.path).record_look(look("new"))

    assert "trials.head" in str(refused.value)
    assert ledger.path.exists() == existed


@pytest.mark.parametrize(("tamper", "said"), [case[1:] for case in TAIL], ids=[case[0] for case in TAIL])
def test_a_witness_alone_shows_a_lost_end(
    ledger: TrialLedger, tamper: Callable[[Path], None], said: str
) -> None:
    """With the head file gone, too, the validation that counted the last line says so."""
    count = with_lines(ledger).head()
    tamper(ledger.path)
    ledger.path.with_suffix(".head").unlink()
    witness = ChainWitness(Path("student/validation_results.json"), count.lines, str(count.digest))

    with pytest.raises(LedgerBroken, match=said) as refused:
        TrialLedger(ledger.path, witnesses=lambda: [witness]).entries()

    assert "student/validation_results.json" in str(refused.value)
    assert "move student out of" in str(refused.value)


def test_a_new_chain_of_the_same_length_does_not_satisfy_a_witness(ledger: TrialLedger) -> None:
    """Who deletes the ledger and looks again under other names is found out."""
    old = with_lines(ledger).head()
    shutil.rmtree(ledger.path.parent)
    for name in "abcd":
        ledger.record_look(look(name))

    with pytest.raises(LedgerBroken, match="line 4 is not the one"):
        TrialLedger(ledger.path, witnesses=lambda: [ChainWitness(Path("x/y"), 4, str(old.digest))]).entries()


@pytest.mark.parametrize("lines", [0, -1, 5])
def test_a_line_that_cannot_be_satisfies_no_witness(ledger: TrialLedger, lines: int) -> None:
    """The digest of the last line under an impossible number is no proof of anything."""
    head = with_lines(ledger).head()

    with pytest.raises(LedgerBroken):
        TrialLedger(
            ledger.path, witnesses=lambda: [ChainWitness(Path("x/y"), lines, str(head.digest))]
        ).entries()


def test_many_witnesses_are_named_in_one_line(ledger: TrialLedger) -> None:
    """A hundred validations that miss their ledger are one readable line."""
    missing = [ChainWitness(Path(f"student{n}/validation_results.json"), 1, "x") for n in range(100)]

    with pytest.raises(LedgerBroken, match="student0, student1, student2 and 97 more") as refused:
        TrialLedger(ledger.path, witnesses=lambda: missing).entries()

    assert len(refused.value.values["witnesses"]) == 100


def test_a_restored_ledger_may_lack_its_head_file(ledger: TrialLedger) -> None:
    """The ledger alone from a backup is whole; the next append notes its end again."""
    head = with_lines(ledger).head()
    ledger.path.with_suffix(".head").unlink()

    assert TrialLedger(ledger.path).head() == head
    ledger.record_look(look("student 0"))
    assert json.loads(ledger.path.with_suffix(".head").read_text())["lines"] == 4


def test_a_head_file_one_line_behind_is_a_crash_not_a_fraud(ledger: TrialLedger) -> None:
    """A process that died between line and head file leaves nothing to repair."""
    with_lines(ledger, 3)
    before = ledger.path.with_suffix(".head").read_bytes()
    with_lines(ledger, 4)
    ledger.path.with_suffix(".head").write_bytes(before)

    assert TrialLedger(ledger.path).record_look(look("new")).n_trials == 5
    assert json.loads(ledger.path.with_suffix(".head").read_text())["lines"] == 5


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"lines": "4", "digest": 3}', "\x00"])
def test_a_damaged_head_file_is_refused(ledger: TrialLedger, text: str) -> None:
    """A head file that names no line is an error with a way out, not a free pass."""
    with_lines(ledger)
    ledger.path.with_suffix(".head").write_text(text)

    with pytest.raises(LedgerBroken, match=r"trials\.head: does not name"):
        ledger.entries()


def test_a_ledger_that_is_a_folder_is_one_clear_line(ledger: TrialLedger) -> None:
    """What cannot be read is no empty ledger."""
    ledger.path.mkdir(parents=True)

    with pytest.raises(LedgerBroken, match="cannot be read"):
        ledger.entries()


# --- witnesses on disk


def keep(path: Path, value: Any) -> None:
    """Write a JSON file and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


@pytest.mark.parametrize(
    "place",
    [
        "data/models/20240401_000000/student/validation_results.json",
        "data/models/20240401_000000/student/validations/v1/validation_results.json",
        "data/models/20240401_000000/student/validations/before-20240401_000000-v2/validation_results.json",
        "reports/20240401_000000-v1/manifest.json",
    ],
)
def test_every_kept_validation_is_a_witness(tmp_path: Path, place: str) -> None:
    """Results, earlier results and a report's manifest each show that the ledger was deleted."""
    data, reports, file = tmp_path / "data", tmp_path / "reports", tmp_path / place
    said = open_ledger(data, reports).record_look(look()).describe()
    folder = {"artifacts": {"folder": "data/models/20240401_000000/student"}}
    keep(file, {**folder, "summary": {"trials": said}} if "reports" in place else {"trials": said})
    assert open_ledger(data, reports).record_look(look("b")).n_trials == 2

    for name in ("trials.jsonl", "trials.head"):
        (data / "models" / name).unlink()

    with pytest.raises(LedgerBroken) as refused:
        open_ledger(data, reports).record_look(look("c"))
    assert str(file) in str(refused.value)


def test_moving_the_named_folder_away_is_the_way_out(tmp_path: Path) -> None:
    """A ledger that is lost for good can be begun anew once its validations are moved away."""
    data = tmp_path / "data"
    said = open_ledger(data, tmp_path).record_look(look()).describe()
    folder = data / "models" / "20240401_000000"
    keep(folder / "student" / "validation_results.json", {"trials": said})
    for name in ("trials.jsonl", "trials.head"):
        (data / "models" / name).unlink()

    folder.rename(tmp_path / "aside")

    assert open_ledger(data, tmp_path).record_look(look()).n_trials == 1


def test_files_that_say_nothing_are_no_witnesses(tmp_path: Path) -> None:
    """Older results, other JSON, half files, staging folders and folders in the way are passed over."""
    student = tmp_path / "models" / "v"
    said = {"n_trials": 1, "ledger_lines": 1, "ledger_head": "x"}
    nothing: list[Any] = [{}, [], None, {"trials": None}, {"trials": {**said, "ledger_lines": "1"}}]
    nothing += [{"trials": {"n_trials": 0, "ledger_lines": 0, "ledger_head": None}}]
    for number, value in enumerate(nothing):
        keep(student / f"s{number}" / "validation_results.json", value)
        keep(tmp_path / f"r{number}" / "manifest.json", value)
        keep(tmp_path / f"q{number}" / "manifest.json", {"summary": value, "artifacts": {"folder": "f"}})
    keep(
        tmp_path / ".r-v1.staging" / "manifest.json",
        {"summary": {"trials": said}, "artifacts": {"folder": "f"}},
    )
    (student / "half" / "validation_results.json").parent.mkdir()
    (student / "half" / "validation_results.json").write_text('{"trials": {"ledger_')
    (student / "way" / "validation_results.json").mkdir(parents=True)

    assert witnesses_in(tmp_path, tmp_path) == []
    assert witnesses_in(tmp_path / "absent", tmp_path / "absent") == []


def test_a_report_of_another_data_folder_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two data folders may share one folder of reports; each ledger answers for its own."""
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        said = open_ledger(name, "reports").record_look(look(name)).describe()
        artifacts = {"folder": f"{name}/models/20240401_000000/student"}
        keep(Path(f"reports/{name}-v1/manifest.json"), {"artifacts": artifacts, "summary": {"trials": said}})

    assert open_ledger("one", "reports").head().lines == 1
    assert [one.path.parent.name for one in witnesses_in("two", "reports")] == ["two-v1"]


def test_repeating_a_validation_keeps_the_same_words(ledger: TrialLedger) -> None:
    """Looks elsewhere and seals change no byte of what a repeated validation keeps; a new rival does."""

    def validated() -> dict[str, Any]:
        ledger.record_look(look())
        ledger.record_returns(look(), DAYS, RETURNS, predictions="p")
        return ledger.trials("2024-01-01", "2024-03-31", ["X", "Y"]).describe()

    first = validated()
    ledger.record_look(look("elsewhere", symbols=("Z",)))
    assert validated() == first
    ledger.record_look(look("rival"))

    assert validated() == {"n_trials": 2, "looks": 2, "ledger_lines": 4, "ledger_head": ledger.head().digest}


# --- crashes and neighbours

APPEND = """
    import sys
    from pathlib import Path
    from tests.test_trials import look
    from sqkit.research.trials import TrialLedger
    ledger = TrialLedger(Path(sys.argv[1]))
    print("ready", flush=True)
    for number in range(int(sys.argv[3])):
        ledger.record_look(look(f"{sys.argv[2]} {number}"))
        print(number, flush=True)
    """
ROOT = Path(__file__).resolve().parents[1]


def child(path: Path, name: str, looks: int) -> subprocess.Popen[str]:
    """A process that records looks, saying the number of each one that is safe."""
    code = [sys.executable, "-c", textwrap.dedent(APPEND), str(path), name, str(looks)]
    return subprocess.Popen(code, stdout=subprocess.PIPE, text=True, cwd=ROOT)


@pytest.mark.parametrize("attempt", range(3))
def test_a_killed_process_loses_no_look_that_was_counted(ledger: TrialLedger, attempt: int) -> None:
    """After a real kill -9 in the middle of appending, every look that was answered is there."""
    process = child(ledger.path, "a", 100_000)
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(5 + attempt)]
    time.sleep(0.003 * attempt)
    process.send_signal(signal.SIGKILL)
    said += process.stdout.readlines()
    process.wait()
    process.stdout.close()
    answered = int(said[-1]) + 1

    kept = quarter(ledger)
    assert answered <= kept <= answered + 1
    assert ledger.record_look(look("after")).n_trials == kept + 1


def test_a_line_torn_by_a_killed_write_is_dropped_and_said(
    ledger: TrialLedger, capfd: pytest.CaptureFixture[str]
) -> None:
    """A process killed with half a line on disk: readers pass over it, the next append says so."""
    with_lines(ledger, 2)
    code = """
        import builtins, os, signal, sys
        from pathlib import Path
        from sqkit.research.trials import TrialLedger
        from tests.test_trials import look

        class Dying:
            def __init__(self, stream): self.stream = stream
            def __enter__(self): return self
            def __exit__(self, *_): return None
            def truncate(self, size): return self.stream.truncate(size)
            def write(self, raw):
                self.stream.write(raw[: len(raw) // 2])
                os.kill(os.getpid(), signal.SIGKILL)

        def dying(path, mode="r", *words, real=open, **more):
            stream = real(path, mode, *words, **more)
            return Dying(stream) if mode == "ab" else stream

        builtins.open = dying
        TrialLedger(Path(sys.argv[1])).record_look(look("torn"))
        """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(ledger.path)], cwd=ROOT, check=False
    )
    assert run.returncode == -signal.SIGKILL
    assert not ledger.path.read_bytes().endswith(b"\n")

    assert quarter(ledger) == 2
    assert ledger.record_look(look("after")).n_trials == 3
    assert "line 3 was torn by a crash" in capfd.readouterr().err
    assert quarter(TrialLedger(ledger.path)) == 3


@pytest.mark.parametrize("keep_bytes", range(1, 60, 7))
@pytest.mark.parametrize("end", [b"", b"\n", b"\x00\x00"])
def test_any_part_of_a_line_is_recovered(ledger: TrialLedger, keep_bytes: int, end: bytes) -> None:
    """Wherever a crash cut the last line, also with zeros after it, the ledger goes on without it."""
    with_lines(ledger, 2)
    head = ledger.path.with_suffix(".head").read_bytes()
    ledger.record_look(look("torn"))
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    ledger.path.write_bytes(b"".join([*lines[:2], lines[2][:keep_bytes], end]))
    ledger.path.with_suffix(".head").write_bytes(head)

    assert ledger.record_look(look("after")).n_trials == 3
    assert ledger.path.read_bytes().count(b"\n") == 3


def test_a_first_line_torn_is_an_empty_ledger(ledger: TrialLedger) -> None:
    """A crash in the very first append leaves nothing that blocks the second."""
    ledger.path.parent.mkdir()
    ledger.path.write_bytes(b'{"at":"2024')

    assert ledger.entries() == []
    assert ledger.record_look(look()).n_trials == 1
    assert len(ledger.entries()) == 1


def test_a_whole_line_that_lacks_its_newline_counts(ledger: TrialLedger) -> None:
    """An editor that strips the last newline, or a crash just before it, loses no look."""
    with_lines(ledger, 2)
    ledger.path.write_bytes(ledger.path.read_bytes()[:-1])

    assert quarter(ledger) == 2
    assert ledger.record_look(look("after")).n_trials == 3
    assert len(ledger.path.read_bytes().splitlines()) == 3


def test_processes_at_once_are_all_counted(ledger: TrialLedger) -> None:
    """Three processes on one ledger, two of them with the same looks: nothing lost, nothing twice."""
    processes = [child(ledger.path, name, 40) for name in "aab"]
    for process in processes:
        process.communicate(timeout=300)

    assert [process.returncode for process in processes] == [0, 0, 0]
    assert quarter(ledger) == 80
    assert len(TrialLedger(ledger.path).entries()) == 80


def test_waiting_for_another_process_ends(ledger: TrialLedger) -> None:
    """A ledger that is held for too long is a conflict with a clear line, and free afterwards."""
    with_lines(ledger, 1)
    impatient = TrialLedger(ledger.path, wait_seconds=0.1)
    with open(ledger.path.with_name(".trials.lock"), "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConflictError, match="another process has held it"):
            impatient.record_look(look("b"))
        assert quarter(impatient) == 1  # reading waits for nobody

    assert impatient.record_look(look("b")).n_trials == 2


def test_an_append_waits_for_its_turn(ledger: TrialLedger) -> None:
    """A process that finds the ledger held gets in when the other is done."""
    with_lines(ledger, 1)
    with open(ledger.path.with_name(".trials.lock"), "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = child(ledger.path, "waiting", 1)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert quarter(ledger) == 1
    process.communicate(timeout=300)

    assert process.returncode == 0
    assert quarter(ledger) == 2


# --- disks


def test_an_unwritable_folder_is_one_clear_line(
    tmp_path: Path, ledger: TrialLedger, without_root_rights: list[str]
) -> None:
    """A process without rights gets OutputError; what was there stays and can be read."""
    with_lines(ledger, 2)
    tmp_path.chmod(0o755)
    for path in ledger.path.parent.iterdir():
        path.chmod(0o444)
    ledger.path.parent.chmod(0o555)
    code = """
        import sys
        from pathlib import Path
        from sqkit.errors import OutputError
        from sqkit.research.trials import TrialLedger
        from tests.test_trials import look
        ledger = TrialLedger(Path(sys.argv[1]))
        print(len(ledger.entries()))
        try:
            ledger.record_look(look("new"))
        except OutputError as problem:
            print(problem)
        """
    run = subprocess.run(
        [*without_root_rights, sys.executable, "-c", textwrap.dedent(code), str(ledger.path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    ledger.path.parent.chmod(0o755)

    assert run.stdout.startswith("2\n")
    assert "no permission to write here" in run.stdout
    assert len(ledger.entries()) == 2


def test_a_full_disk_leaves_the_ledger_whole(ledger: TrialLedger) -> None:
    """With a real limit on file size a line that does not fit leaves no half of itself."""
    with_lines(ledger, 2)
    before = ledger.path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    signals = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 50, hard))
    try:
        with pytest.raises(OutputError, match="file size limit"):
            ledger.record_look(look("new"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, signals)

    assert ledger.path.read_bytes() == before
    assert ledger.record_look(look("new")).n_trials == 3


def test_a_file_in_the_way_of_the_folder_is_one_clear_line(tmp_path: Path) -> None:
    """The folder of the ledger cannot be made where a file is."""
    (tmp_path / "models").write_text("")

    with pytest.raises(OutputError):
        TrialLedger(tmp_path / "models" / "deeper" / "trials.jsonl").record_look(look())


def test_the_ledger_names_no_place_of_this_machine(ledger: TrialLedger) -> None:
    """The same looks in another folder give the same bytes."""
    with_lines(ledger)
    with tempfile.TemporaryDirectory() as folder:
        other = with_lines(TrialLedger(Path(folder) / "trials.jsonl"))

        for suffix in (".jsonl", ".head"):
            assert other.path.with_suffix(suffix).read_bytes() == ledger.path.with_suffix(suffix).read_bytes()
    assert os.fsencode(ledger.path.parent) not in ledger.path.read_bytes()
