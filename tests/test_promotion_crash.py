"""Killed anywhere: production is the old release or the new one, and the next promoter start finishes the job.

Every change to production is made by real processes that die by a real SIGKILL: before each step, before
each single call that touches the disk, in the middle of a write, and at random moments. What must hold
after each kill is what `tests.crash_ground.Ground` asks.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from sqkit.artifacts import ARCHIVE_FOLDER
from sqkit.audit_log import AUDIT_FILE
from sqkit.chain import head_file
from sqkit.errors import AuditBroken, ConflictError
from sqkit.files import sha256_file
from sqkit.production.promoter import StudentModelPromoter
from tests.crash_driver import Points, Warm, copied, die, ended, fork, kill_at, limit_file_size, quick_folder
from tests.crash_ground import (
    CHANGES,
    ENV_BEFORE,
    ENV_FILE,
    ENV_LINES,
    Change,
    Ground,
    Project,
    asked_of_env_file,
    at_step,
    run,
    two,
    with_env_file,
)
from tests.factory import FIRST, SECOND, make_candidate
from tests.releases import ASHA

RANDOM_SECONDS: Final = 10.0
LOG: Final = f"data/models/{AUDIT_FILE}"
SEED: Final = 20250112


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    """A process in which everything is imported."""
    with Warm() as process:
        yield process


# --- jobs of the warm process


def kill_everywhere(name: str) -> dict[str, Any]:
    """Kill one change before each step and before each call that touches the disk."""
    with quick_folder() as folder:
        ground = Ground(name, folder)
        for number, step in enumerate(ground.steps):
            for _ in range(2):  # `Ground.judge` recovers, and lets the command itself recover, in turn
                assert ended(_killed_at_step, ground, number).killed
                ground.judge(f"before step {number}, {step}")
        for number in ground.disturbed:
            assert ended(_killed_at_point, ground, number).killed
            ground.judge(f"before call {number}, {ground.points[number]}")
        return {"kills": ground.kills, "wrong": ground.wrong, "steps": len(ground.steps)}


def _killed_at_step(ground: Ground, last: int) -> None:
    steps: list[str] = []

    def before(step: str) -> None:
        if len(steps) == last:
            die()
        steps.append(step)

    ground.made(ground.fresh(), before)


def _killed_at_point(ground: Ground, point: int) -> None:
    root = ground.fresh()
    Points(kill_at(point)).watch()
    ground.made(root)


def tear_everywhere(name: str) -> dict[str, Any]:
    """Kill one change in the middle of a write: each file that it makes longer is cut at many lengths."""
    with quick_folder() as folder:
        ground = Ground(name, folder)
        begins, ends = (ground.before / LOG).stat().st_size, ground.sizes[LOG]
        line = range(begins + 1, ends, max(1, (ends - begins) // 40))
        for limit in sorted({1, ends - 1, *(size - 1 for size in ground.sizes.values() if size), *line}):
            if ended(_torn_at, ground, limit).killed:
                ground.judge(f"where a file reaches {limit} bytes")
        return {"kills": ground.kills, "wrong": ground.wrong}


def _torn_at(ground: Ground, limit: int) -> None:
    root = ground.fresh()
    limit_file_size(limit, fatal=True)
    ground.made(root)


def kill_at_random(seconds: float, seed: int) -> dict[str, Any]:
    """Kill changes from outside, at random moments, for so long."""
    chance = random.Random(seed)
    with quick_folder() as folder:
        grounds = [Ground(name, folder / str(number)) for number, name in enumerate(CHANGES)]
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            ground = chance.choice(grounds)
            child = fork(ground.made, ground.fresh())
            time.sleep(chance.uniform(0.0, ground.seconds))
            child.kill()
            if child.wait().killed:
                ground.judge("from outside")
    wrong = [problem for ground in grounds for problem in ground.wrong]
    return {"kills": sum(ground.kills for ground in grounds), "wrong": wrong}


def kill_the_promoter(template: str, typed: str, what: str) -> dict[str, Any]:
    """Kill `StudentModelPromoter` before each step, and before every third call that touches the disk."""
    changes = {
        "promote_model": Change(
            lambda project: copied(Path(template), project.root),
            lambda project: _promote_model(project, typed),
            day="2025-03-02",
        ),
        "rollback_model": Change(
            lambda project: _promote_model(_on(copied(Path(template), project.root), "2025-03-02"), typed),
            lambda project: _promoter(project).rollback_model("20250302"),
        ),
    }
    with quick_folder() as folder:
        ground = Ground(what, folder, changes[what])
        for number, step in enumerate(ground.steps):
            assert ended(_killed_at_step, ground, number).killed
            ground.judge(f"before step {number}, {step}")
        for number in range(0, len(ground.points), 3):
            assert ended(_killed_at_point, ground, number).killed
            ground.judge(f"before call {number}, {ground.points[number]}")
        return {"kills": ground.kills, "wrong": ground.wrong, "steps": len(ground.steps)}


def _on(root: Path, day: str) -> Project:
    project = Project(root)
    project.on(day)
    return project


def _promoter(project: Project) -> StudentModelPromoter:
    return StudentModelPromoter(
        project.settings,
        root=project.root,
        clock=lambda: project.now,
        actor=ASHA,
        on_step=lambda step: project.before(step),
        say=project.said.append,
        environ={},
    )


def _promote_model(project: Project, typed: str) -> None:
    """`sqkit promote`; that it is live already is no reason to stop."""
    try:
        _promoter(project).promote_model(typed)
    except ConflictError:
        live = project.state.live
        if live is None or live.model != sha256_file(project.root / typed):
            raise


def kill_before_the_env_file(root: str) -> list[str]:
    """Kill a promotion with ``--enable`` after its line, before it rewrites the env file."""
    project, asked = Project(Path(root)), asked_of_env_file("SENSEQUANT_STUDENT_MODEL_ENABLED=true")
    with_env_file(project)
    assert ended(run, project.root, lambda project: project.put(3, asked), at_step("set SENSEQUANT")).killed
    return [(project.root / ENV_FILE).read_text()]


# --- what must hold


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGES)
def test_killed_at_any_point_production_is_old_or_new_and_the_next_start_finishes(
    warm: Warm, name: str
) -> None:
    """Before each step, and before each call that opens, writes, flushes, renames, makes or removes a file."""
    started = time.perf_counter()

    report = warm.run(kill_everywhere, name)

    print(f"{name}: {report['kills']} kills, {report['steps']} steps, {time.perf_counter() - started:.1f} s")
    assert report["wrong"] == []
    assert report["kills"] > 2 * report["steps"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["promotion", "rollback", "halt"])
def test_killed_in_the_middle_of_a_write_the_same_holds(warm: Warm, name: str) -> None:
    """The kernel kills the process where a file reaches a length: the audit line is torn at forty places."""
    report = warm.run(tear_everywhere, name)

    assert report["wrong"] == []
    assert report["kills"] > 40


@pytest.mark.slow
def test_killed_at_random_moments_the_same_holds(warm: Warm) -> None:
    """SIGKILL from outside, anywhere in any of the changes."""
    report = warm.run(kill_at_random, RANDOM_SECONDS, SEED)

    print(f"{report['kills']} random kills in {RANDOM_SECONDS:g} s")
    assert report["wrong"] == []
    assert report["kills"] > 0


@pytest.fixture(scope="module")
def two_candidates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A project in which the first candidate is live and the second is approved; read only."""
    root = tmp_path_factory.mktemp("candidates")
    first = make_candidate(root, FIRST, seed=0).relative_to(root)
    _promote_model(_on(root, "2025-01-02"), first.as_posix())
    return root, make_candidate(root, SECOND, seed=1).relative_to(root).as_posix()


@pytest.mark.slow
@pytest.mark.parametrize("what", ["promote_model", "rollback_model"])
def test_the_promoter_itself_is_killed_on_a_real_candidate_and_the_same_holds(
    warm: Warm, two_candidates: tuple[Path, str], what: str
) -> None:
    """With every check, on a candidate that was trained, validated and approved."""
    started = time.perf_counter()

    report = warm.run(kill_the_promoter, *two_candidates, what)

    print(f"{what}: {report['kills']} kills, {report['steps']} steps, {time.perf_counter() - started:.1f} s")
    assert report["wrong"] == []
    assert report["steps"] > 1


# --- what a crash, or a person, leaves of the log


def test_half_a_line_at_the_end_of_the_log_is_dropped_and_said(tmp_path: Path) -> None:
    """Nobody counted it: the next start of a promoter drops it, says so, and production stays as it is."""
    project = _two_releases(tmp_path)
    log = tmp_path / LOG
    whole = log.read_bytes()
    log.write_bytes(whole + b'{"actor":{"host":"de')

    done = project.recover()

    assert [line.split(": ", 1)[1] for line in done] == [
        "line 3 was torn by a crash, nobody counted it; it is dropped"
    ]
    assert log.read_bytes() == whole


def test_half_a_line_does_not_keep_a_person_from_halting(tmp_path: Path) -> None:
    """A halt repairs nothing first; it writes its line in the place of the torn one, and says so."""
    project = _two_releases(tmp_path)
    with open(tmp_path / LOG, "ab") as stream:
        stream.write(b'{"actor":')

    project.halt()

    assert project.state.halted is not None
    assert ["torn by a crash" in line for line in project.said] == [True]


def test_a_log_without_the_note_of_its_last_line_holds(tmp_path: Path) -> None:
    """``audit.head`` may be lost: the log is read without it, and the next start writes it again."""
    project = _two_releases(tmp_path)
    note = head_file(tmp_path / LOG)
    noted = note.read_bytes()
    note.unlink()

    assert project.state.live is not None
    assert project.recover() == ["noted line 2 of audit.jsonl in audit.head"]
    assert note.read_bytes() == noted


@pytest.mark.parametrize("noted", [True, False], ids=["with audit.head", "without audit.head"])
def test_a_deleted_log_is_refused_and_its_witnesses_are_named(tmp_path: Path, noted: bool) -> None:
    """Nothing is promoted, rolled back or repaired where releases say that there was a log; halting works."""
    project = _two_releases(tmp_path)
    (tmp_path / LOG).unlink()
    if not noted:
        head_file(tmp_path / LOG).unlink()
    witness = head_file(tmp_path / LOG).name if noted else ARCHIVE_FOLDER

    for change in (lambda: project.put(3), project.back, project.recover):
        with pytest.raises(AuditBroken, match=f"is missing or empty, but .*{witness}.* counted [12] lines"):
            change()
    project.halt()

    assert (tmp_path / "data/models/production/halt.json").is_file()
    assert not (tmp_path / LOG).exists()
    assert "is not in the audit log" in project.said[-1]


@pytest.mark.parametrize("change", [Project.back, Project.halt], ids=["rollback", "halt"])
def test_a_clock_that_went_backwards_keeps_nobody_from_stopping_a_model(tmp_path: Path, change: Any) -> None:
    """Rolling back and halting work, and are not dated before the line they follow."""
    project = _two_releases(tmp_path)
    last = project.production.log.entries()[-1]
    project.on("2020-01-01")

    change(project)

    lines = project.production.log.entries()
    assert len(lines) == 3
    assert (lines[-1]["at"], lines[-1]["date"]) == (last["at"], last["date"])


def test_an_env_file_is_rewritten_once_after_a_kill_and_then_left_to_people(
    warm: Warm, tmp_path: Path
) -> None:
    """The next start of a promoter sets what the promotion asked for; a pin that a person changes later stays.

    It enables no scoring: whoever asked for that may have thought better of it.
    """
    left = warm.run(kill_before_the_env_file, tmp_path)
    project = Project(tmp_path)
    env_file = tmp_path / ENV_FILE

    done = project.recover()

    assert left == [ENV_BEFORE]
    assert sum(ENV_FILE in line for line in done) == 1
    path, pin = ENV_LINES
    assert env_file.read_text().splitlines() == ["# ours", "OTHER=1", pin, path]
    env_file.write_text("SENSEQUANT_STUDENT_MODEL_VERSION=20240103_000002\n")
    assert project.recover() == []
    project.halt()
    project.resume()
    project.back()
    assert env_file.read_text() == "SENSEQUANT_STUDENT_MODEL_VERSION=20240103_000002\n"


def _two_releases(root: Path) -> Project:
    project = Project(root)
    two(project)
    project.on("2025-03-02")
    return project
