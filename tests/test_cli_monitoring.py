"""``sqkit monitor`` and ``sqkit ack`` as a person types them, over telemetry of a real engine."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import watched
from tests.project import Project, clean_environment

ON = {
    "SENSEQUANT_STUDENT_MODEL_ENABLED": "true",
    "SENSEQUANT_STUDENT_MONITORING_ENABLED": "true",
    "SENSEQUANT_MARKET": "us",
}


@pytest.fixture(scope="module")
def lost(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose live model failed; automatic rollback was off, and its engine is gone."""
    root = tmp_path_factory.mktemp("lost")
    desk = watched.Desk(watched.project(root), student_auto_rollback_enabled=False)
    desk.feed(watched.feed_of(watched.LOST))
    desk.service.implies()  # kept: the commands need not work it out again
    desk.close()
    return root


@pytest.fixture
def project(lost: Path, tmp_path: Path) -> Project:
    """A copy of it."""
    shutil.copytree(lost, tmp_path, dirs_exist_ok=True)
    return Project(tmp_path)


def test_the_state_is_shown_with_what_to_type(project: Project) -> None:
    """State and since when, model, rolling metrics beside the validated ones, each alert with its commands; exit 1."""
    run = project.sqkit("monitor", environment=ON)

    assert run.returncode == 1, run.stderr
    assert "slot default (intraday): CONFIRMING since 2003-01-06T" in run.stdout
    assert "validated 50.0%" in run.stdout
    assert "ALERT sequential_hit_ratio" in run.stdout
    assert "sqkit rollback --slot default --reason TEXT" in run.stdout
    assert "over a million" in run.stdout


def test_without_the_setting_it_only_looks(project: Project) -> None:
    """The same figures from telemetry alone; no state is made, nothing is sent."""
    shutil.rmtree(project.root / "data/monitoring")
    run = project.sqkit("monitor", "--json", environment={"SENSEQUANT_MARKET": "us"})

    assert run.returncode == 1, run.stderr
    (slot,) = json.loads(run.stdout)["slots"]
    assert slot["state"] == "CONFIRMING"
    assert not (project.root / "data/monitoring").exists()


def test_the_challenger_is_compared_on_the_same_rows(project: Project) -> None:
    """The earlier release, asked beside the served one, and both on their common rows."""
    run = project.sqkit("monitor", "--challenger", "--json", environment=ON)
    (slot,) = json.loads(run.stdout)["slots"]
    (row,) = slot["beside"]

    assert row["role"] == "previous"
    assert row["shadow"]["rows"] == row["served"]["rows"] > 1000
    assert row["shadow"]["hit_ratio"] > row["served"]["hit_ratio"]


def test_an_acknowledged_alert_is_not_sent_again(project: Project) -> None:
    """By the first digits of its fingerprint; an unknown or short one is refused with those that fire."""
    (slot,) = json.loads(project.sqkit("monitor", "--json", environment=ON).stdout)["slots"]
    fingerprint = slot["alerts"][0]["fingerprint"]
    run = project.sqkit("ack", fingerprint[:8], "--as", "Asha", "--note", "looking", environment=ON)

    assert run.returncode == 0, run.stderr
    assert "is acknowledged by Asha" in run.stdout
    refused = project.sqkit("ack", "zzzz", environment=ON)
    assert refused.returncode == 2
    assert fingerprint in refused.stderr


def test_a_dry_run_tells_the_whole_chain(project: Project) -> None:
    """Steps, what would have been asked, and what a restore in a scratch folder did."""
    run = project.sqkit("monitor", "dry-run", environment=ON)

    assert run.returncode == 0, run.stderr
    assert "CONFIRMING -> ROLLING_BACK" in run.stdout
    assert "would have been asked: roll_back" in run.stdout
    assert "rolled back to 20240102_000001" in run.stdout
    assert "VERIFYING -> OK" in run.stdout


def test_a_rebuild_says_whether_it_is_the_same(project: Project) -> None:
    """The same to the bit: exit 0; a state that somebody edited: exit 1, and it is put right."""
    run = project.sqkit("monitor", "rebuild", environment=ON)
    assert run.returncode == 0, run.stderr + run.stdout
    assert "the same to the bit" in run.stdout

    import sqlite3

    with sqlite3.connect(project.root / "data/monitoring/state.sqlite") as base:
        base.execute("update outcomes set outcome = -outcome where symbol = 'AAA'")
    base.close()
    edited = project.sqkit("monitor", "rebuild", environment=ON)
    again = project.sqkit("monitor", "rebuild", environment=ON)

    assert edited.returncode == 1
    assert "other than before: outcomes" in edited.stdout
    assert again.returncode == 0


def test_it_follows_until_interrupted(project: Project) -> None:
    """One object a line with --json; Ctrl-C ends it, and the slot is free."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sqkit.cli", "monitor", "--follow", "--every", "0.2", "--json"],
        cwd=project.root,
        env=clean_environment() | ON,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(2)]
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)

    assert [json.loads(line)["slots"][0]["state"] for line in lines] == ["CONFIRMING"] * 2
    assert process.returncode == 130
    until = time.monotonic() + 10
    while (again := project.sqkit("monitor", "--json", environment=ON)).returncode != 1:
        assert time.monotonic() < until, again.stderr
    assert json.loads(again.stdout)["slots"][0]["holder"]


def test_before_anything_was_written_it_says_so(tmp_path: Path) -> None:
    """No telemetry: one plain line and exit 0; an unknown slot is refused."""
    empty = Project(tmp_path)
    run = empty.sqkit("monitor", environment=ON)

    assert run.returncode == 0
    assert "no engine has written telemetry yet" in run.stdout
    refused = empty.sqkit("monitor", "--slot", "swing", environment=ON)
    assert refused.returncode == 2
    assert "no engine has written of it" in refused.stderr
