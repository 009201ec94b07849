"""Chaos: processes that promote, roll back, halt and resume in two slots, killed at random, while a reader polls.

Not part of ``make test``; ``make chaos`` runs it for CHAOS_SECONDS (default 300) with the seed CHAOS_SEED
(default: the time). In rounds: each begins with an empty project and ends with a recovery, after which log,
archive and production must agree and nothing be left over.
"""

from __future__ import annotations

import datetime as dt
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from sqkit.artifacts import HALT_FILE
from sqkit.errors import (
    ArchiveAmbiguous,
    ArchiveUnknown,
    ConflictError,
    Quarantined,
    SqkitError,
)
from sqkit.production.archive import SET_ASIDE
from sqkit.production.audit_check import check_audit
from sqkit.production.interventions import release_quarantine
from tests.crash_driver import Child, Ended, Warm, ended, fork, quick_folder
from tests.crash_ground import Project, release, seen

SECONDS: Final = float(os.environ.get("CHAOS_SECONDS", "300"))
SEED: Final = int(os.environ.get("CHAOS_SEED", str(int(time.time()))))
ROUND_SECONDS: Final = 10.0
WORKERS: Final = 4
RELEASES: Final = 12
SLOTS: Final = ("default", "swing")

EXPECTED: Final = (ArchiveAmbiguous, ArchiveUnknown, ConflictError, Quarantined)
"""What an honest process may hear when others are at work."""


class Both(Project):
    """A project with a default slot and one for swing; the clock is the real one."""

    @property
    def settings(self) -> Any:
        """The same for both slots."""
        return Project(self.root, slot_name="swing").settings


def _project(root: Path, slot: str) -> Both:
    return Both(root, slot_name=slot, now=dt.datetime.now(dt.UTC))


def chaos(seconds: float, seed: int) -> dict[str, Any]:
    """Rounds for so long; what was done, how often it was killed, and what was wrong."""
    for number in range(RELEASES):
        release(number)
    chance = random.Random(seed)
    total: Counter[str] = Counter()
    wrong: list[str] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until and not wrong:
        with quick_folder() as root:
            wrong += _round(root, chance, min(ROUND_SECONDS, until - time.monotonic()), total)
    return {"counts": dict(total), "wrong": wrong}


def _round(root: Path, chance: random.Random, seconds: float, total: Counter[str]) -> list[str]:
    (root / "data/models").mkdir(parents=True)
    stop, wrong = root / "stop", list[str]()
    reader = fork(_read, root, stop)
    workers = [_worker(root, chance) for _ in range(WORKERS)]
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(chance.uniform(0.0, 0.06))
        number = chance.randrange(WORKERS)
        workers[number].kill()
        wrong += _end(workers[number].wait(), total)
        workers[number] = _worker(root, chance)
    for worker in workers:
        worker.kill()
        worker.wait()
    stop.touch()
    total["rounds"] += 1
    return [*wrong, *_end(reader.wait(), total), *_settled(root, total)]


def _worker(root: Path, chance: random.Random) -> Child:
    return fork(_work, root, chance.getrandbits(64))


def _work(root: Path, seed: int) -> Any:
    """One thing after the other, until killed; ends only with what should not have happened."""
    chance = random.Random(seed)
    for _ in range(1000):
        project = _project(root, chance.choice(SLOTS))
        what = chance.choices(ACTIONS, WEIGHTS)[0]
        try:
            _do(project, what, chance)
        except EXPECTED:
            continue
        except SqkitError as problem:
            return {"wrong": [f"{what} in slot {project.slot_name}: {type(problem).__name__}: {problem}"]}
    return None


ACTIONS: Final = (
    "promote",
    "back",
    "back to none",
    "halt",
    "halt entries",
    "resume",
    "recover",
    "release",
    "copy",
)
WEIGHTS: Final = (40, 20, 5, 7, 3, 10, 5, 8, 2)


def _do(project: Both, what: str, chance: random.Random) -> None:
    match what:
        case "promote":
            project.put(chance.randrange(RELEASES))
        case "back":
            live = project.state.live
            named = [name for name in project.state.releases if live is None or name != live.name]
            project.back(chance.choice(["", *named]))
        case "back to none":
            project.back("none")
        case "halt":
            project.halt()
        case "halt entries":
            project.halt_entries()
        case "resume":
            project.resume()
        case "recover":
            project.recover()
        case "release":
            barred = list(project.state.quarantined)
            if barred:
                release_quarantine(project.production, project.slot_name, chance.choice(barred), "chaos")
        case "copy":
            place = project.production.slot(project.slot_name).model_path
            if place.parent.is_dir():
                aside = place.with_name(f"by-hand-{os.getpid()}")
                aside.write_bytes(release(chance.randrange(RELEASES)).files[place.name])
                aside.replace(place)


def _read(root: Path, stop: Path) -> dict[str, Any]:
    """Poll both slots until told to stop."""
    polls, wrong = 0, list[str]()
    while not stop.exists() and not wrong:
        for slot in SLOTS:
            try:
                seen(_project(root, slot))
            except (AssertionError, SqkitError, OSError) as problem:
                wrong.append(f"a reader of slot {slot} meets {type(problem).__name__}: {problem}")
        polls += 1
    return {"wrong": wrong, "polls": polls}


def _end(one: Ended, total: Counter[str]) -> list[str]:
    total["kills"] += one.killed
    if one.error:
        return [f"{one.error}: {one.message}"]
    said = one.value or {}
    total["polls"] += said.get("polls", 0)
    return list(said.get("wrong", []))


def _settled(root: Path, total: Counter[str]) -> list[str]:
    """After a recovery log, archive and production agree, but for what only people end: halts, what is set aside."""
    for path in root.rglob("*"):
        if path.name.startswith("by-hand-"):
            path.unlink()
        if path.name.startswith(f".{HALT_FILE}."):
            os.utime(path, (0, 0))
    project = _project(root, "default")
    recovery = ended(project.recover)
    if recovery.error:
        return [f"recovery refuses: {recovery.message}"]
    again = project.recover()
    total["lines"] += len(project.production.log.entries())
    total["releases"] += len(list((root / "data/models/archive").glob("[0-9]*")))
    aside = list(root.rglob(f"{SET_ASIDE}*"))
    left = [path.name for path in root.rglob(".*") if path.suffix != ".lock" and path not in aside]
    total["set aside"] += len(aside)
    found = [one["what"] for one in check_audit(project.settings, root)["differences"]]
    return [
        *(f"a second recovery does more: {line}" for line in again),
        *(f"left over: {name}" for name in left),
        *(f"verify --audit: {line}" for line in found if HALT_FILE not in line),
    ]


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    """A process in which everything is imported."""
    with Warm() as process:
        yield process


@pytest.mark.timeout(SECONDS * 2 + 120)
def test_whatever_happens_production_is_a_release_that_the_log_names(warm: Warm) -> None:
    """Several processes, two slots, random kills; a reader never meets an error, and in the end all agrees."""
    report = warm.run(chaos, SECONDS, SEED)

    print(f"seed {SEED}, {SECONDS:g} s: {report['counts']}")
    assert report["wrong"] == [], f"seed {SEED}"
