"""Many at once: promoters, slots, and readers while production changes; real processes throughout.

Eight promoters of one candidate, two slots at the same time, a halt in the middle of a promotion, and
readers that poll production through ten thousand swaps by the very steps a promotion and a rollback end with.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from sqkit.artifacts import STUDENT_FILE
from sqkit.audit_log import AUDIT_FILE, PROMOTE
from sqkit.chain import Entry
from sqkit.errors import SqkitError
from sqkit.files import sha256_bytes
from sqkit.production.audit import AuditLog
from sqkit.production.placement import finishing
from sqkit.production.promoter import StudentModelPromoter
from sqkit.production.release import served_release
from sqkit.production.slot_state import SlotState, fold
from sqkit.production.slots import Slot
from sqkit.production.steps import run_steps
from tests.crash_driver import Child, Warm, copied, ended, fork, quick_folder
from tests.crash_ground import CHANGES, Project, made, project_of, release, two, unannounced
from tests.factory import FIRST, make_candidate
from tests.releases import ASHA

PROMOTERS: Final = 8
SWAPS: Final = 10_000
CHANGES_UNDER_READERS: Final = 120


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    """A process in which everything is imported."""
    with Warm() as process:
        yield process


def _kinds(root: Path) -> list[str]:
    lines = (root / "data/models" / AUDIT_FILE).read_text().splitlines()
    return [json.loads(line)["kind"] for line in lines]


# --- eight promoters


class Gate:
    """Opens for everybody at once, when the last has arrived."""

    def __init__(self, arrivals: int) -> None:
        self._arrivals = arrivals
        self._arrived, self._opened = os.pipe(), os.pipe()

    def wait(self) -> None:
        """Arrive, and wait for the others."""
        os.write(self._arrived[1], b"x")
        os.read(self._opened[0], 1)

    def open(self) -> None:
        """Wait until everybody has arrived, then let them go."""
        for _ in range(self._arrivals):
            os.read(self._arrived[0], 1)
        os.write(self._opened[1], b"x" * self._arrivals)


def promote_together(template: str, typed: str) -> dict[str, Any]:
    """Eight processes promote one candidate, each with every check."""
    with quick_folder() as folder:
        root, gate = copied(Path(template), folder / "project"), Gate(PROMOTERS)
        children = [fork(_promote_candidate, root, typed, gate) for _ in range(PROMOTERS)]
        gate.open()
        ends = [child.wait() for child in children]
        project = _at_noon(root)
        return {
            "codes": sorted(one.exit_code for one in ends),
            "refusals": sorted(one.message for one in ends if one.error),
            "promotions": _kinds(root).count(PROMOTE),
            "left": project.recover(),
            "archived": len(list((root / "data/models/archive").iterdir())),
        }


def _at_noon(root: Path) -> Project:
    project = Project(root)
    project.on("2025-01-02")
    return project


def _promote_candidate(root: Path, typed: str, gate: Gate) -> None:
    project = _at_noon(root)
    promoter = StudentModelPromoter(
        project.settings, root=root, clock=lambda: project.now, actor=ASHA, environ={}
    )
    gate.wait()
    promoter.promote_model(typed)


def promote_while_one_is_at_it() -> list[list[Any]]:
    """One process stops in the middle of its promotion; seven others try meanwhile; then it goes on."""
    with quick_folder() as folder:
        project = Project(folder)
        two(project)
        arrived, go_on = Gate(1), Gate(1)

        def wait_before_the_line(step: str) -> None:
            if step.startswith("append"):
                arrived.wait()
                go_on.wait()

        winner = fork(made, CHANGES["promotion"], folder, wait_before_the_line)
        arrived.open()
        others = [ended(_put, folder, number) for number in range(4, 3 + PROMOTERS)]
        rolled_back = ended(made, CHANGES["rollback"], folder)
        halted = fork(made, CHANGES["halt"], folder)
        flag = folder / "data/models/production/halt.json"
        until = time.monotonic() + 10
        while not flag.exists() and time.monotonic() < until:
            time.sleep(0.001)
        flagged = flag.exists()
        go_on.open()
        won, stopped = winner.wait(), halted.wait()
        log = _kinds(folder)
        return [
            [one.exit_code for one in (*others, rolled_back)],
            [won.exit_code, stopped.exit_code],
            [flagged, log],
        ]


def _put(root: Path, number: int) -> None:
    project = project_of(CHANGES["promotion"], root)
    project.put(number)


def two_slots_together() -> list[Any]:
    """Two processes promote at once, each into a slot of its own; one is in the middle while the other does it all."""
    with quick_folder() as folder:
        two(Project(folder))
        arrived, go_on = Gate(1), Gate(1)

        def wait_after_the_line(step: str) -> None:
            if step.startswith("seal"):
                arrived.wait()
                go_on.wait()

        first = fork(_put_into, "default", 3, folder, wait_after_the_line)
        arrived.open()
        second = ended(_put_into, "swing", 4, folder)
        go_on.open()
        gate = Gate(2)
        ends = [first.wait(), second]
        together = [
            fork(_put_at, gate, slot, number, folder) for slot, number in (("default", 5), ("swing", 6))
        ]
        gate.open()
        ends += [child.wait() for child in together]
        live = [Project(folder, slot_name=slot).state.live for slot in ("default", "swing")]
        return [
            [one.exit_code for one in ends],
            [one.model for one in live if one is not None],
            _kinds(folder),
        ]


def _put_into(slot: str, number: int, root: Path, before: Callable[[str], None] = unannounced) -> None:
    project = Project(root, slot_name=slot, before=before)
    project.on("2025-04-01")
    project.put(number)


def _put_at(gate: Gate, slot: str, number: int, root: Path) -> None:
    gate.wait()
    _put_into(slot, number, root)


@pytest.fixture(scope="module")
def candidate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A project with a real candidate that may be promoted; read only."""
    root = tmp_path_factory.mktemp("candidate")
    return root, make_candidate(root, FIRST).relative_to(root).as_posix()


@pytest.mark.slow
def test_of_eight_promoters_at_once_one_wins_and_the_others_exit_with_5(
    warm: Warm, candidate: tuple[Path, str]
) -> None:
    """They are refused because another process is at it, or because the model is live by then; one line counts."""
    report = warm.run(promote_together, *candidate)

    assert report["codes"] == [0] + [5] * (PROMOTERS - 1)
    assert report["promotions"] == 1
    assert report["archived"] == 1
    assert report["left"] == []
    for line in report["refusals"]:
        assert "another process is busy here" in line or "is live in slot" in line, line


def test_while_a_promotion_is_at_work_others_exit_with_5_and_a_halt_goes_through(warm: Warm) -> None:
    """Promotions and rollbacks of the slot are refused at once; a halt's flag is there before the line can be."""
    others, (won, stopped), (flagged, kinds) = warm.run(promote_while_one_is_at_it)

    assert others == [5] * PROMOTERS
    assert (won, stopped) == (0, 0)
    assert flagged
    assert sorted(kinds[2:]) == ["halt", "promote"]


def test_two_slots_change_at_the_same_time(warm: Warm) -> None:
    """Every promotion succeeds; the log holds all, and each slot its own release."""
    codes, live, kinds = warm.run(two_slots_together)

    assert codes == [0] * 4
    assert live == [release(5).model, release(6).model]
    assert kinds == [PROMOTE] * 6


# --- readers through ten thousand swaps


class Swapping:
    """Production of a slot, swapped between two archived releases by the steps that every change ends with."""

    def __init__(self, root: Path) -> None:
        project = Project(root)
        two(project)
        project.on("2025-04-01")
        project.back("20250301")
        self.root, self.models_dir = root, project.production.models_dir
        self.slot = Slot("default", root / project.settings.student_model_path)
        entries = project.production.log.entries()
        self._states: list[tuple[SlotState, list[Entry]]] = [
            (fold(entries[:lines], "default"), entries[:lines]) for lines in (2, 3)
        ]

    def swap(self, number: int) -> None:
        """Bring production to one of the two states."""
        state, entries = self._states[number % 2]
        steps = finishing(self.models_dir, self.slot, state, entries, self.root)
        assert len(steps) == 2, [step.what for step in steps]
        run_steps(steps, unannounced)


def swap_and_read(swaps: int) -> dict[str, Any]:
    """Swap so many times while three readers poll, each in its own way."""
    with quick_folder() as folder:
        root, alone = folder / "project", folder / "alone"
        root.mkdir()
        swapping = Swapping(root)
        (alone / "production").parent.mkdir()
        (alone / "production").symlink_to(swapping.slot.folder)
        stop = folder / "stop"
        readers = {
            "bytes and log": fork(_poll, _bytes_named_by_log, swapping.models_dir, swapping.slot, stop),
            "served with the log": fork(_poll, _served, swapping.models_dir, swapping.slot, stop),
            "served by the record alone": fork(
                _poll, _served, alone, Slot("default", alone / "production" / STUDENT_FILE), stop
            ),
        }
        started = time.perf_counter()
        for number in range(swaps):
            swapping.swap(number)
        seconds = time.perf_counter() - started
        return {"seconds": seconds, "readers": _stopped(readers, stop)}


def change_and_read(changes: int) -> dict[str, Any]:
    """Roll back, promote and take out the student so many times while readers poll."""
    with quick_folder() as folder:
        project = Project(folder)
        two(project)
        slot = project.production.slot("default")
        stop = folder / "stop"
        readers = {
            "bytes and log": fork(_poll, _bytes_named_by_log, project.production.models_dir, slot, stop),
            "served with the log": fork(_poll, _served, project.production.models_dir, slot, stop),
        }
        started = time.perf_counter()
        for number in range(changes):
            project.on("")
            match number % 4:
                case 0:
                    project.back("20250301")
                case 1:
                    project.put(3 + number)
                case 2:
                    project.back("none")
                case 3:
                    project.put(3 + number)
        seconds = time.perf_counter() - started
        return {"seconds": seconds, "readers": _stopped(readers, stop)}


def _stopped(readers: dict[str, Child], stop: Path) -> dict[str, Any]:
    stop.touch()
    return {name: reader.wait().value for name, reader in readers.items()}


def _poll(read: Callable[[Path, Slot], str], models_dir: Path, slot: Slot, stop: Path) -> dict[str, Any]:
    """Read until told to stop: how often, what was seen, and what was wrong. The writer goes first."""
    os.nice(5)
    polls, found, wrong = 0, dict[str, int](), list[str]()
    while True:
        last = stop.exists()
        try:
            digest = read(models_dir, slot)
            found[digest] = found.get(digest, 0) + 1
        except (AssertionError, SqkitError, OSError) as problem:
            wrong.append(f"{type(problem).__name__}: {problem}")
        polls += 1
        if last:
            return {"polls": polls, "found": found, "wrong": wrong[:5], "wrongs": len(wrong)}


def _bytes_named_by_log(models_dir: Path, slot: Slot) -> str:
    """The production file as it lies there: whole, and of a digest that a line of the log put there."""
    try:
        data = slot.model_path.read_bytes()
    except FileNotFoundError:
        asked = fold(AuditLog(models_dir).entries(), slot.name).placed_by
        assert asked is not None, "production is empty"
        return "none"
    digest = sha256_bytes(data)
    models = {release.model for release in fold(AuditLog(models_dir).entries(), slot.name).releases.values()}
    assert digest in models, f"{len(data)} bytes of digest {digest[:12]} that no line of the log names"
    return digest[:8]


def _served(models_dir: Path, slot: Slot) -> str:
    """What an engine is served: bytes of the digest that is named, put there by a line."""
    served = served_release(models_dir, slot)
    if served.model is None:
        assert served.placed_by is not None, served.note
        return "none"
    assert sha256_bytes(served.model) == served.digest
    assert served.placed_by is not None
    assert served.placed_by["release"] == served.release
    return str(served.digest)[:8]


@pytest.mark.slow
def test_through_ten_thousand_swaps_a_reader_sees_one_release_or_the_other(warm: Warm) -> None:
    """Never empty, never torn, never a digest without a record, never an error; with a log and without one."""
    report = warm.run(swap_and_read, SWAPS)

    print(f"{SWAPS / report['seconds']:.0f} swaps/s in {report['seconds']:.1f} s; {report['readers']}")
    both = {release(1).model[:8], release(2).model[:8]}
    for name, reader in report["readers"].items():
        assert reader["wrong"] == [], name
        assert set(reader["found"]) <= both, name
        assert reader["polls"] > 100, name
    assert set(report["readers"]["bytes and log"]["found"]) == both
    assert set(report["readers"]["served by the record alone"]["found"]) == both


@pytest.mark.slow
def test_while_people_promote_and_roll_back_a_reader_sees_releases_and_nothing_else(warm: Warm) -> None:
    """Whole changes, with archive and log: what is served always has its line; no student is served as none."""
    report = warm.run(change_and_read, CHANGES_UNDER_READERS)

    print(f"{CHANGES_UNDER_READERS / report['seconds']:.0f} changes/s; {report['readers']}")
    for name, reader in report["readers"].items():
        assert reader["wrong"] == [], name
        assert len(reader["found"]) > 2, name
