"""Degrade, alert, confirm, roll back, verify: with the real engine, promoter and audit log, and one clock."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sqkit.audit_log import HALT, MONITOR, PROMOTE, ROLLBACK
from sqkit.errors import Quarantined
from sqkit.people import AUTOMATIC
from sqkit.production.monitor_machine import (
    ALERTING,
    CONFIRMING,
    HALTED,
    INCONCLUSIVE,
    OK,
    ROLLING_BACK,
    VERIFYING,
)
from sqkit.production.monitor_rehearsal import Watched as Rehearsed
from sqkit.production.monitor_rehearsal import dry_run, rebuild
from sqkit.production.promotion import promote
from sqkit.production.rollback import find_target
from tests.watched import LOST, PERSISTING, RANDOM, REVERSING, Desk, Watched, feed_of, project

ROOT = Path(__file__).resolve().parents[1]


def kinds(entries: list[dict[str, Any]]) -> list[str]:
    """What the audit log holds, in order, promotions aside."""
    return [entry["kind"] for entry in entries if entry["kind"] != PROMOTE]


def told(entries: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """States that the log has, alerts of the given rules aside: a restart looks at other moments."""
    return [
        (entry["before"], entry["after"])
        for entry in entries
        if entry["kind"] == MONITOR and ALERTING not in (entry["before"], entry["after"])
    ]


def test_a_model_that_fails_is_taken_back(tmp_path: Path) -> None:
    """The engine scores the restored release at once, the log has every step with its evidence, the demoted digest is barred."""
    made = project(tmp_path)
    first, second = (entry["digests"]["model"] for entry in made.entries)
    desk = Desk(made)
    desk.feed(feed_of(LOST))

    path = [state for state in desk.states() if state != ALERTING]
    assert path == [INCONCLUSIVE, OK, CONFIRMING, ROLLING_BACK, VERIFYING, OK]
    assert made.state.live is not None
    assert made.state.live.model == first
    assert desk.engine.scorer.digest == first
    assert second in made.state.quarantined
    (rollback,) = (entry for entry in made.entries if entry["kind"] == ROLLBACK)
    assert rollback["automatic"]
    assert rollback["actor"]["name"] == AUTOMATIC
    assert rollback["alert"]["pair"] >= 20
    assert rollback["alert"]["previous"] == first[:12]
    steps = [entry for entry in made.entries if entry["kind"] == MONITOR]
    assert {entry["actor"]["name"] for entry in steps} == {AUTOMATIC}
    assert [entry["after"] for entry in steps if entry["after"] != ALERTING] == path[2:]
    desk.close()


def test_where_the_market_broke_for_both_the_student_is_halted(tmp_path: Path) -> None:
    """Going back would not help: the baseline trades on, and the log says why."""
    made = project(tmp_path)
    desk = Desk(made)
    desk.feed(feed_of([REVERSING] * 2 + [RANDOM] * 5))

    assert list(desk.states())[-1] == HALTED
    assert ROLLBACK not in kinds(made.entries)
    (halt,) = (entry for entry in made.entries if entry["kind"] == HALT)
    assert "so is the release before it" in halt["reason"]
    assert halt["actor"]["name"] == AUTOMATIC
    assert desk.engine.health()["halted"] == "student_off"
    desk.close()


def test_the_last_archived_is_not_the_last_production(tmp_path: Path) -> None:
    """A release that was rolled back stays in the archive as the newest, and is not what comes back."""
    made = project(tmp_path, releases=3)
    made.roll_back()
    assert made.live == 2
    desk = Desk(made)
    desk.feed(feed_of(LOST))

    assert made.live == 1
    assert {made.entries[number - 1]["digests"]["model"] for number in (2, 3)} == set(made.state.quarantined)
    desk.close()


def test_what_was_taken_back_is_not_promoted_again(tmp_path: Path) -> None:
    """The demoted bytes are barred until somebody says otherwise; a rollback never goes there."""
    made = project(tmp_path)
    desk = Desk(made)
    desk.feed(feed_of(LOST))
    desk.close()
    barred = made.entries[1]["release"]

    with pytest.raises(Quarantined):
        find_target(made.models, made.state, barred)
    assert find_target(made.models, made.state, automatic=True).release is None


def test_without_leave_nothing_is_rolled_back(tmp_path: Path) -> None:
    """Automatic rollback is off by default: the alert says what a person may type."""
    made = project(tmp_path)
    before = [entry["digest"] for entry in made.entries]
    desk = Desk(made, student_auto_rollback_enabled=False)
    desk.feed(feed_of(LOST))
    status = desk.service.status()
    desk.close()

    assert status["state"] == CONFIRMING
    assert made.live == 2
    assert [entry["digest"] for entry in made.entries if entry["kind"] != MONITOR] == before
    alert = next(one for one in status["alerts"] if one["name"] == "sequential_hit_ratio")
    assert "SENSEQUANT_STUDENT_AUTO_ROLLBACK_ENABLED is false" in alert["will"]


def test_somebody_else_was_quicker(tmp_path: Path) -> None:
    """Rolled back by a person before the machine could: it is told so, and what is live stays."""
    made = project(tmp_path)
    desk = Desk(made)
    feed = feed_of(LOST)
    desk.feed(feed[: 2 * 780 + 200])
    made.roll_back()
    desk.feed(feed)

    assert made.live == 1
    assert [entry["automatic"] for entry in made.entries if entry["kind"] == ROLLBACK] == [False]
    desk.close()


@pytest.fixture(scope="module")
def uncut(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """The story without a kill."""
    made = project(tmp_path_factory.mktemp("uncut"))
    desk = Desk(made)
    desk.feed(feed_of(LOST))
    desk.close()
    return made


@pytest.mark.slow
@pytest.mark.parametrize("state", [CONFIRMING, ROLLING_BACK, VERIFYING, OK])
def test_killed_at_each_state_it_ends_the_same(state: str, uncut: Watched, tmp_path: Path) -> None:
    """SIGKILL when a state is kept and not yet told: the restart does what was asked for, once, and the log has all."""
    cut = tmp_path
    made = project(cut)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.watched", str(cut)]
    killed = subprocess.run([*command, state], cwd=ROOT, env=environment, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    again = subprocess.run([*command, ""], cwd=ROOT, env=environment, capture_output=True, check=True)
    assert again.stdout == b"done\n"

    assert made.live == uncut.live == 1
    assert kinds(made.entries) == kinds(uncut.entries)
    assert told(made.entries) == told(uncut.entries)


def test_a_rebuild_takes_from_the_log_what_was_done(tmp_path: Path) -> None:
    """From telemetry and audit log, without acting: the same state to the bit, also over a rollback."""
    made = project(tmp_path)
    desk = Desk(made)
    desk.feed(feed_of(LOST))
    desk.close()
    before = [entry["digest"] for entry in made.entries]
    done = rebuild(Rehearsed(made.monitored(), "intraday", "us", "1m", tmp_path))

    assert done["differs"] == []
    assert done["status"]["state"] == OK
    assert [entry["digest"] for entry in made.entries] == before


def test_a_dry_run_tells_what_would_have_happened(tmp_path: Path) -> None:
    """Recorded with automatic rollback off: alert, confirmation, a restore in a scratch folder, verification; nothing is changed."""
    made = project(tmp_path)
    desk = Desk(made, student_auto_rollback_enabled=False)
    desk.feed(feed_of(LOST))
    desk.close()
    before = {path: path.read_bytes() for path in made.models.rglob("*") if path.is_file()}
    found = dry_run(Rehearsed(made.monitored(), "intraday", "us", "1m", tmp_path))

    states = [step["after"] for step in found["steps"] if step["after"] != ALERTING]
    assert states == [INCONCLUSIVE, OK, CONFIRMING, ROLLING_BACK, VERIFYING, OK]
    (done,) = found["done"]
    assert done["restored"] == made.entries[0]["digests"]["model"][:12]
    assert "served" in done["steps"][-1]
    assert {path: path.read_bytes() for path in made.models.rglob("*") if path.is_file()} == before


def test_a_person_may_promote_over_it(tmp_path: Path) -> None:
    """A new release after the rollback: monitoring begins afresh, and may roll back again."""
    made = project(tmp_path)
    desk = Desk(made)
    feed = feed_of([*LOST, PERSISTING, PERSISTING])
    sessions = 2 * 390
    desk.feed(feed[: 6 * sessions])
    production = made.production
    with production.changing(production.slot("default")):
        promote(made.place, made.promotion(3))
    desk.look()
    desk.feed(feed)

    assert made.live == 3
    watch = desk.service.monitor
    assert watch is not None
    assert watch.machine.watch is not None
    (promoted,) = (entry for entry in made.entries if entry.get("release") == made.state.live.name)  # type: ignore[union-attr]
    assert promoted["digests"]["model"].startswith(watch.machine.watch.model)
    desk.close()
