"""Killed anywhere: production is the old release or the new one, and the next promoter start finishes the job.

Every change to production is made by real processes that die by a real SIGKILL: before each step, before
each single call that touches the disk, in the middle of a write, and at random moments. After each kill
a reader looks first, then a new process recovers, then the person types the same command again.
"""

from __future__ import annotations

import functools
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest

from sqkit.artifacts import APPROVALS_FILE, ARCHIVE_FOLDER, HALT_FILE, STUDENT_FILE
from sqkit.audit_log import AUDIT_FILE
from sqkit.files import canonical_json, sha256_bytes
from sqkit.production.approval_book import Book
from sqkit.production.audit_check import check_audit
from sqkit.production.interventions import halt, resume
from sqkit.production.promotion import Promotion, promote
from sqkit.production.release import production_bytes, served_release
from sqkit.production.rollback import find_target, roll_back, rollback_content
from sqkit.settings import Settings
from tests.crash_driver import (
    Points,
    Warm,
    copied,
    die,
    ended,
    fork,
    kill_at,
    limit_file_size,
    quick_folder,
    tree,
)
from tests.releases import Slotted, promotion_of

DAY: Final = "2025-04-01"
RANDOM_SECONDS: Final = 10.0
ENV_FILE: Final = ".env"
ENV_LINES: Final = ("SENSEQUANT_STUDENT_MODEL_VERSION=20240104_000003", "SENSEQUANT_STUDENT_MODEL_ENABLED=true")


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    """A process in which everything is imported."""
    with Warm() as process:
        yield process


# --- a project that is cheap to build again and again, and what people do to it


@functools.cache
def _settings(slot: str) -> Settings:
    paths = {} if slot == "default" else {slot: f"data/models/{slot}/student_model.onnx"}
    return Settings(_env_file=None, market="us", student_model_paths=paths)


@functools.cache
def release(number: int, strategy: str = "swing") -> Promotion:
    """Release number so-and-so, with a book of approvals that holds none."""
    made = promotion_of(number, strategy)
    book = canonical_json(Book(_statement(made.files[STUDENT_FILE])).to_dict()).encode()
    files = {**made.files, APPROVALS_FILE: book}
    digests = {**made.content["digests"], "approvals": sha256_bytes(book)}
    return Promotion(files, {**made.content, "digests": digests})


def _statement(model: bytes) -> dict[str, Any]:
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": STUDENT_FILE, "digest": {"sha256": sha256_bytes(model)}}],
        "predicateType": "https://sqkit.invalid/promotion-approval/v1",
        "predicate": {"symbols": ["AAA"]},
    }


class Project(Slotted):
    """`Slotted` whose settings and releases are made once."""

    @property
    def settings(self) -> Settings:
        return _settings(self.slot_name)

    def put(self, number: int, environment: Mapping[str, Any] | None = None) -> None:
        """What `sqkit promote` does below its checks: what is live already is not promoted again."""
        made, production = release(number, self.strategy), self.production
        slot = production.slot(self.slot_name)
        with production.changing(slot):
            live = production.state(slot).live
            if live is None or live.model != made.model:
                content = {**made.content, "environment": environment}
                promote(production.place(slot, "us"), replace(made, content=content))

    def back(self, to: str = "", environment: Mapping[str, Any] | None = None) -> None:
        """What `sqkit rollback` does."""
        production = self.production
        slot = production.slot(self.slot_name)
        with production.changing(slot):
            place = production.place(slot, "us")
            target = find_target(place.models_dir, place.state(), to)
            if not target.already:
                content = rollback_content(
                    place.state(), target, reason="test", automatic=False, alert=None, environment=environment
                )
                roll_back(place, content)


def _set(lines: tuple[str, ...]) -> dict[str, Any]:
    return {"file": ENV_FILE, "lines": list(lines)}


def _nothing(project: Project) -> None:
    pass


def _one(project: Project) -> None:
    project.on("2025-01-01")
    project.put(1)


def _two(project: Project) -> None:
    _one(project)
    project.on("2025-03-01")
    project.put(2)


def _copied_by_hand(project: Project) -> None:
    place = project.root / project.settings.student_model_path
    place.parent.mkdir(parents=True)
    place.write_bytes(release(7).files[STUDENT_FILE])


def _overwritten_by_hand(project: Project) -> None:
    _two(project)
    place = project.root / project.settings.student_model_path
    place.write_bytes(release(7).files[STUDENT_FILE])


def _halted(project: Project) -> None:
    _two(project)
    halt(project.production, "default", "feed looks wrong")


def _with_env_file(project: Project) -> None:
    _two(project)
    (project.root / ENV_FILE).write_text("# ours\nOTHER=1\nSENSEQUANT_STUDENT_MODEL_VERSION=20240103_000002\n")


def _other_slot(project: Project) -> None:
    _one(Project(project.root))
    project.on("2025-03-01")
    project.put(2)


def _killed_before(step: str, command: Callable[[Project], object]) -> Callable[[Project], None]:
    """A project whose slot was left by a kill before the step that begins so."""

    def prepare(project: Project) -> None:
        _two(project)
        assert ended(_run, project.root, command, _at_step(step)).killed

    return prepare


def _at_step(begins: str) -> Callable[[str], None]:
    def before(step: str) -> None:
        if step.startswith(begins):
            die()

    return before


def _put_three(project: Project) -> None:
    project.put(3)


@dataclass(frozen=True)
class Change:
    """One thing that people do to production.

    Attributes
    ----------
    prepare
        What was before.
    do
        Doing it again after it is done changes nothing.
    """

    prepare: Callable[[Project], object]
    do: Callable[[Project], object]
    slot: str = "default"


CHANGES: Final[dict[str, Change]] = {
    "first promotion": Change(_nothing, _put_three),
    "promotion": Change(_two, _put_three),
    "promotion over a model copied there by hand": Change(_copied_by_hand, _put_three),
    "promotion over a release overwritten by hand": Change(_overwritten_by_hand, _put_three),
    "promotion with an env file": Change(_with_env_file, lambda project: project.put(3, _set(ENV_LINES))),
    "promotion in a slot of its own": Change(_other_slot, _put_three, "swing"),
    "rollback": Change(_two, lambda project: project.back()),
    "rollback with an env file": Change(_with_env_file, lambda project: project.back("", _set(ENV_LINES))),
    "rollback to no student": Change(_two, lambda project: project.back("none")),
    "rollback of the only release": Change(_one, lambda project: project.back()),
    "halt": Change(_two, lambda project: halt(project.production, "default", "feed looks wrong")),
    "resume": Change(_halted, lambda project: resume(project.production, "default", "feed is back")),
    "recovery of a promotion that counts": Change(
        _killed_before("seal", _put_three), lambda project: project.production.recover()
    ),
    "recovery of a promotion that never counted": Change(
        _killed_before("append", _put_three), lambda project: project.production.recover()
    ),
    "recovery of a rollback": Change(
        _killed_before("write release.json", lambda project: project.back()),
        lambda project: project.production.recover(),
    ),
}


def _project(root: Path, name: str) -> Project:
    project = Project(root, slot_name=CHANGES[name].slot)
    project.on(DAY)
    return project


def _nothing_before(step: str) -> None:
    pass


def _run(
    root: Path,
    do: Callable[[Project], object],
    before: Callable[[str], None] = _nothing_before,
    slot: str = "default",
) -> None:
    project = Project(root, before=before, slot_name=slot)
    project.on(DAY)
    do(project)


# --- what is looked at after a kill


@dataclass(frozen=True)
class Seen:
    """What a reader sees of a slot: the digest it serves, whether it is halted, and the file's own digest."""

    served: str | None
    halted: bool
    lying: str | None


def _seen(project: Project) -> Seen:
    production = project.production
    slot = production.slot(project.slot_name)
    served = served_release(production.models_dir, slot)
    given = None if served.model is None else sha256_bytes(served.model)
    assert given == served.digest, f"serves {given}, and calls it {served.digest}"
    if given is not None:
        assert served.placed_by in production.log.entries(), f"no line of the log placed {given}"
    lying = production_bytes(slot)
    return Seen(given, served.halted, None if lying is None else sha256_bytes(lying))


def _state_of(root: Path) -> dict[str, str]:
    """The tree, but for folders outside the archive, and a log that holds nothing: that is none."""
    log = f"data/models/{AUDIT_FILE}"
    return {
        name: about
        for name, about in tree(root).items()
        if (about != "folder" or ARCHIVE_FOLDER in Path(name).parent.parts)
        and not (name == log and (root / log).stat().st_size == 0)
    }


def _recover(root: Path, name: str) -> list[str]:
    return _project(root, name).production.recover()


def _again(root: Path, name: str) -> None:
    CHANGES[name].do(_project(root, name))


class Ground:
    """One change, prepared: what is before it, what is after it undisturbed, and what was found wrong."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.change, self.folder = name, CHANGES[name], folder
        self.before, self.here = folder / "before", folder / "here"
        self.before.mkdir()
        self.change.prepare(Project(self.before, slot_name=self.change.slot))
        self.change.do(_project(copied(self.before, folder / "warm-up"), name))
        undisturbed = copied(self.before, folder / "after")
        self.steps: list[str] = []
        watched = ended(self._watched, undisturbed)
        self.points, self.steps = watched.value["points"], watched.value["steps"]
        started = time.perf_counter()
        ended(_run, copied(self.before, self.here), self.change.do, _nothing_before, self.change.slot)
        self.seconds = time.perf_counter() - started
        self.old, self.new = self._look(self.before), self._look(undisturbed)
        self.after = _state_of(undisturbed)
        settled = copied(self.before, folder / "settled")
        ended(_recover, settled, name)
        self.settled, self.mended = _state_of(settled), self._look(settled)
        self.kills, self.wrong = 0, list[str]()

    def _watched(self, root: Path) -> dict[str, list[str]]:
        points, steps = Points(), list[str]()
        points.watch()
        _run(root, self.change.do, steps.append, self.change.slot)
        return {"points": points.names, "steps": steps}

    def _look(self, root: Path) -> Seen:
        return _seen(_project(root, self.name))

    def fresh(self) -> Path:
        """The project as it was before, again."""
        return copied(self.before, self.here)

    def judge(self, where: str) -> None:
        """Look at a killed project, recover it, go on; note what is not as it must be."""
        self.kills += 1
        for problem in self._problems():
            self.wrong.append(f"{self.name}, killed {where}: {problem}")

    def _problems(self) -> Iterator[str]:
        torn = _state_of(self.here)
        try:
            seen = self._look(self.here)
        except Exception as problem:  # noqa: BLE001 - whatever it is, a reader must not see it
            yield f"a reader meets {type(problem).__name__}: {problem}"
            return
        for what in ("served", "halted"):
            if getattr(seen, what) not in (getattr(self.old, what), getattr(self.new, what)):
                yield f"a reader sees {what} {getattr(seen, what)}"
        if seen.lying not in (self.old.lying, self.new.lying, self.mended.lying):
            yield f"a reader finds {seen.lying} in production"
        for path in self.here.rglob(f".{HALT_FILE}.*.tmp"):
            os.utime(path, (0, 0))  # an hour passes: a halt takes no lock, so what is new may be at work
        recovery = ended(_recover, self.here, self.name)
        if recovery.error:
            yield f"recovery refuses: {recovery.message}"
            return
        state = _state_of(self.here)
        if bool(recovery.value) != (state != torn):
            yield f"recovery says {recovery.value}, and changed {_difference(torn, state)}"
        yield from self._not_whole(state)
        again = ended(_again, self.here, self.name)
        if again.error:
            yield f"the same command again is refused: {again.message}"
            return
        if self.name != "resume":
            final = _state_of(self.here)
            if final != self.after:
                yield f"the same command again ends elsewhere: {_difference(self.after, final)}"
        if self._look(self.here) != self.new:
            yield f"at the end a reader sees {self._look(self.here)}, not {self.new}"
        audit = check_audit(_settings(self.change.slot), self.here)
        if audit["differences"]:
            yield f"verify --audit at the end: {audit['differences']}"

    def _not_whole(self, state: Mapping[str, str]) -> Iterator[str]:
        """Once recovered, it is as if nothing had been done, or everything."""
        if state in (self.settled, self.after) or self.name in ("halt", "resume"):
            return
        found = self._look(self.here)
        audit = check_audit(_settings(self.change.slot), self.here)
        if "by hand" in self.name and found == self.old and not audit["differences"]:
            return  # what was copied there is archived by now, and nothing else happened
        yield f"recovered to neither: {_difference(self.settled, state)}; {audit['differences']}"


def _difference(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))


# --- jobs


def kill_everywhere(name: str) -> dict[str, Any]:
    """Kill one change before each step and before each call that touches the disk."""
    with quick_folder() as folder:
        ground = Ground(name, folder)
        for number, step in enumerate(ground.steps):
            steps = iter(range(number + 1))

            def before(said: str, steps: Iterator[int] = steps, last: int = number) -> None:
                if next(steps) == last:
                    die()

            assert ended(_run, ground.fresh(), ground.change.do, before, ground.change.slot).killed
            ground.judge(f"before step {number}, {step}")
        for number, call in enumerate(ground.points):
            assert ended(_killed_at, ground.fresh(), name, number).killed
            ground.judge(f"before call {number}, {call}")
        return {"kills": ground.kills, "wrong": ground.wrong, "steps": len(ground.steps)}


def _killed_at(root: Path, name: str, point: int) -> None:
    project = _project(root, name)
    Points(kill_at(point)).watch()
    CHANGES[name].do(project)


def torn_everywhere(name: str) -> dict[str, Any]:
    """Kill one change in the middle of a write: each file that it makes longer is cut at many lengths."""
    with quick_folder() as folder:
        ground = Ground(name, folder)
        sizes = [(len(data), path) for path, data in _contents(folder / "after").items()]
        log = next(size for size, path in sizes if path.endswith(AUDIT_FILE))
        begins = (ground.before / "data/models" / AUDIT_FILE).stat().st_size
        limits = {1, *(size - 1 for size, _ in sizes), *range(begins + 1, log, (log - begins) // 40)}
        for limit in sorted(limits):
            if ended(_torn_at, ground.fresh(), name, limit).killed:
                ground.judge(f"where a file reaches {limit} bytes")
        return {"kills": ground.kills, "wrong": ground.wrong}


def _contents(root: Path) -> dict[str, bytes]:
    return {path.as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file() and path.stat().st_size}


def _torn_at(root: Path, name: str, limit: int) -> None:
    project = _project(root, name)
    limit_file_size(limit, fatal=True)
    CHANGES[name].do(project)


def kill_at_random(seconds: float, seed: int) -> dict[str, Any]:
    """Kill changes from outside, at random moments, for so long."""
    chance, kills, wrong = random.Random(seed), 0, []
    until = time.monotonic() + seconds
    with quick_folder() as folder:
        grounds = []
        for number, name in enumerate(CHANGES):
            (folder / str(number)).mkdir()
            grounds.append(Ground(name, folder / str(number)))
        while time.monotonic() < until:
            ground = chance.choice(grounds)
            child = fork(_run, ground.fresh(), ground.change.do, _nothing_before, ground.change.slot)
            time.sleep(chance.uniform(0.0, ground.seconds))
            child.kill()
            if child.wait().killed:
                ground.judge("from outside")
    for ground in grounds:
        kills, wrong = kills + ground.kills, wrong + ground.wrong
    return {"kills": kills, "wrong": wrong}


# --- what must hold


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGES)
def test_killed_at_any_point_production_is_old_or_new_and_the_next_start_finishes(warm: Warm, name: str) -> None:
    """Before each step and each call that touches the disk: see `Ground` for what is asked after the kill."""
    started = time.perf_counter()

    report = warm.run(kill_everywhere, name)

    print(f"{name}: {report['kills']} kills, {report['steps']} steps, {time.perf_counter() - started:.1f} s")
    assert report["wrong"] == []
    assert report["kills"] >= report["steps"] + 6


@pytest.mark.slow
@pytest.mark.parametrize("name", ["promotion", "rollback", "halt"])
def test_killed_in_the_middle_of_a_write_the_same_holds(warm: Warm, name: str) -> None:
    """The kernel kills the process where a file reaches a length: audit lines are torn at forty places."""
    report = warm.run(torn_everywhere, name)

    assert report["wrong"] == []
    assert report["kills"] > 40


@pytest.mark.slow
def test_killed_at_random_moments_the_same_holds(warm: Warm) -> None:
    """SIGKILL from outside, anywhere in any of the changes."""
    seed = 20250112

    report = warm.run(kill_at_random, RANDOM_SECONDS, seed)

    print(f"{report['kills']} random kills in {RANDOM_SECONDS} s")
    assert report["wrong"] == []
    assert report["kills"] > 0
