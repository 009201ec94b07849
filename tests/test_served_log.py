"""What engines served, beside what was promoted: a difference is said in status and history."""

from __future__ import annotations

import datetime as dt
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sqkit.production.as_of import as_of, as_of_lines
from sqkit.production.engine_time import SetClock
from sqkit.production.moment import moment
from sqkit.production.served_log import engine_runs, served_at
from sqkit.production.status import status
from sqkit.production.status_words import status_lines
from sqkit.production.telemetry import host_name
from tests.engines import Bench, Trading, pairs, series

NOON = dt.datetime(2025, 1, 2, 17, tzinfo=dt.UTC)


class Floor(Trading):
    """A swing slot, and engines that ran at a time of one's choice."""

    def engine(self, at: dt.datetime, **changes: Any) -> Bench:
        """An engine that starts at an instant."""
        clock = SetClock(int(at.timestamp()) * 10**9)
        return Bench(self.root, settings=self.enabled(**changes), clock=clock, keep_state=False)

    @property
    def found(self) -> dict[str, Any]:
        """What status says of the slot now."""
        slot: dict[str, Any] = status(self.settings, self.root, now=self.now)["slots"][0]
        return slot

    @property
    def telemetry(self) -> Path:
        """``data/telemetry``."""
        return self.root / "data/telemetry"


@pytest.fixture
def floor(tmp_path: Path) -> Floor:
    """Release 1 is live from noon in New York of 2 January 2025."""
    project = Floor(tmp_path)
    project.promote(1, "2025-01-02")
    project.on("2025-01-02T20:00:00+00:00")
    return project


def later(hours: float) -> dt.datetime:
    return NOON + dt.timedelta(hours=hours)


def test_an_engine_that_serves_what_is_live(floor: Floor) -> None:
    """It is listed with its process, and nothing differs."""
    floor.engine(later(1))
    (engine,) = floor.found["engines"]

    assert floor.found["served"] == []
    assert (engine["engine"], engine["host"], engine["pid"]) == ("swing", host_name(), os.getpid())
    assert engine["model"] == floor.found["live"]["model"]
    assert engine["running"]
    text = "\n".join(status_lines(status(floor.settings, floor.root, now=floor.now)))
    assert f"served by   swing on {host_name()} (pid {os.getpid()}): 20240102_000001" in text


def test_a_promotion_that_waits_is_a_note(floor: Floor) -> None:
    """Promoted after the engine's session began: it takes effect before the next one."""
    floor.engine(later(1))
    floor.promote(2, "2025-01-02T19:00:00+00:00")

    assert floor.found["served"] == []
    assert "until the next open" in floor.found["served_notes"][0]


def test_an_engine_that_stayed_behind_differs(floor: Floor) -> None:
    """Its session began after the promotion, and it serves the old release: a red line, and exit 1."""
    floor.promote(2, "2025-01-02T17:30:00+00:00")
    stuck = floor.engine(later(1), student_model_version="20240102_000001")
    floor.on("2025-01-02T20:00:00+00:00")

    (line,) = floor.found["served"]
    assert "serves no student (version_mismatch), but the log has 20240103_000002" in line
    assert f"(pid {os.getpid()})" in line
    text = status_lines(status(floor.settings, floor.root, now=floor.now))
    assert any(one.split()[0] == "DIFFERS" for one in text if one.strip())
    stuck.engine.close()
    floor.on("2025-01-02T21:00:00+00:00")
    assert floor.found["served"] == [], "an engine that stopped differs from nothing"


def test_a_rollback_is_no_promotion_that_waits(floor: Floor) -> None:
    """An engine that still serves what was rolled back differs at once."""
    floor.promote(2, "2025-01-02T17:30:00+00:00")
    floor.engine(later(1))
    floor.roll_back(day="2025-01-02T19:00:00+00:00")

    assert "serves 20240103_000002, but the log has 20240102_000001" in floor.found["served"][0]


def test_scoring_that_is_disabled_is_a_note(floor: Floor) -> None:
    """Nobody expects a model there."""
    floor.engine(later(1), student_model_enabled=False)

    assert floor.found["served"] == []
    assert "scoring is disabled there" in floor.found["served_notes"][0]


def test_what_was_served_at_a_past_time(floor: Floor) -> None:
    """History tells for an instant what was live, who served what, and where that differed."""
    first = floor.engine(later(1))
    floor.promote(2, "2025-01-03T12:00:00+00:00")
    first.clock.set_ns = int(later(26).timestamp()) * 10**9
    first.engine.close()
    floor.engine(later(27))
    runs = engine_runs(floor.telemetry)

    def told(at: str) -> str:
        asked = moment(at, "America/New_York")
        return "\n".join(as_of_lines(as_of(floor.entries, asked, ["default"], runs=runs), asked))

    assert "served by swing" in told("2025-01-02T19:00:00+00:00")
    assert "20240102_000001 since 2025-01-02T18:00" in told("2025-01-02T19:00:00+00:00")
    assert "served by" not in told("2025-01-02T17:30:00+00:00")
    assert "served by" not in told("2025-01-03T19:30:00+00:00")
    assert "20240103_000002 since 2025-01-03T20:00" in told("2025-01-03T21:00:00+00:00")
    assert "DIFFERS" not in told("2025-01-03T21:00:00+00:00")


def test_reloads_are_spans(floor: Floor) -> None:
    """What one engine served, one after the other, each until the next."""
    bench = floor.engine(later(1), student_model_reload="immediate")
    floor.promote(2)
    bench.clock.set_ns += 3600 * 10**9
    bench.engine._watch.check()
    bench.feed([(pairs(series("swing", sessions=3))[0][0], bench.clock.set_ns)])
    bench.engine.close()
    (run,) = engine_runs(floor.telemetry)

    assert [span.version for span in run.spans] == ["20240102_000001", "20240103_000002"]
    assert run.spans[0].until == run.spans[1].since
    assert run.spans[1].until == run.stopped
    assert served_at([run], "default", run.started)[0][1] == run.spans[0]
    assert served_at([run], "swing", run.started) == []


def test_a_killed_engine_ends_where_it_was_last_heard(floor: Floor) -> None:
    """No stop, and no such process: it served until its last word."""
    floor.engine(later(1)).engine.close()
    (path,) = (floor.telemetry / "engines").glob("*.jsonl")
    lines = [json.loads(line) | {"pid": 2**22 - 3} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines[:1]) + '{"torn')
    (run,) = engine_runs(floor.telemetry)

    assert run.running is False
    assert run.unreadable == 1
    assert run.at(later(5)) is None


def test_whatever_lies_there_is_no_engine(floor: Floor) -> None:
    """Foreign files, empty ones, ones without a start: nothing raises, nothing is listed."""
    folder = floor.telemetry / "engines"
    folder.mkdir(parents=True)
    (folder / "a.jsonl").write_text("")
    (folder / "b.jsonl").write_bytes(b"\xff\xfe{}\n[]\n5\n")
    (folder / "c.jsonl").write_text('{"event": "start", "at": "2025-01-02T00:00:00Z"}\n')
    (folder / "d.jsonl").symlink_to(folder / "a.jsonl")

    assert engine_runs(floor.telemetry) == []
    assert engine_runs(floor.root / "nowhere") == []


@pytest.mark.slow
def test_a_difference_is_red_on_a_terminal_and_exit_1(floor: Floor) -> None:
    """The command itself, on a terminal: the line is red; in a pipe it is plain."""
    floor.promote(2, "2025-01-02T17:30:00+00:00")
    floor.engine(later(1), student_model_version="20240102_000001")
    words = [sys.executable, "-m", "sqkit.cli", "status"]
    environment = {**os.environ, "SENSEQUANT_MARKET": "us", "PYTHONPATH": str(Path(__file__).parents[1])}
    outer, inner = pty.openpty()
    run = subprocess.run(words, cwd=floor.root, env=environment, stdout=inner, stderr=inner, check=False)
    os.close(inner)
    shown = os.read(outer, 65_536).decode()
    os.close(outer)
    piped = subprocess.run(
        words, cwd=floor.root, env=environment, capture_output=True, text=True, check=False
    )

    assert run.returncode == piped.returncode == 1
    assert "\033[31m  DIFFERS" in shown
    assert "  DIFFERS" in piped.stdout
    assert "\033" not in piped.stdout
