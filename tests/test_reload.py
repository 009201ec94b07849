"""A release that changes under a running engine: when it takes effect, and what happens when it cannot."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sqkit.bars import Bar
from sqkit.production.engine import Config, Engine
from sqkit.production.engine_time import SetClock
from sqkit.production.interventions import halt, resume
from tests.engines import SYMBOL, Bench, Trading, pairs, read_lines, series

MINUTES = pairs(series("intraday"))
NEXT_SESSION = 390


class Desk(Trading):
    """An intraday slot with release 1, and an engine that serves it."""

    strategy: str = "intraday"

    def engine(self, **changes: Any) -> Bench:
        """An engine whose slot is looked at when the test says so."""
        return Bench(self.root, "intraday", settings=self.enabled(**changes), keep_state=False)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """Release 1 is live before the first bar."""
    project = Desk(tmp_path, strategy="intraday")
    project.promote(1, "2003-01-02T10:00:00+00:00")
    return project


def versions(bench: Bench) -> list[str]:
    """Last digits of the version that decided, record by record."""
    return [one["student_model_version"][-1:] for one in bench.predictions()]


def look(bench: Bench) -> bool:
    """What the watch's thread does every fifth of a second."""
    return bench.engine._watch.check()


@pytest.mark.parametrize(
    ("when", "expected"),
    [("session", [1, 1, 2]), ("immediate", [1, 2, 2])],
)
def test_a_promotion_takes_effect_when_the_setting_says(desk: Desk, when: str, expected: list[int]) -> None:
    """Before the next open, or at the next tick."""
    bench = desk.engine(student_model_reload=when)
    bench.feed(MINUTES[:200])
    desk.promote(2)
    assert look(bench)
    bench.feed(MINUTES[200:NEXT_SESSION])
    bench.feed(MINUTES[NEXT_SESSION:500])
    found = versions(bench)

    assert [found[100], found[300], found[450]] == [str(one) for one in expected]
    reload = next(one for one in bench.events() if one["event"] == "reload")
    assert reload["model_version"].endswith("2")
    assert reload["release"] == desk.state.live.name  # type: ignore[union-attr]


def test_a_restart_serves_what_is_live(desk: Desk) -> None:
    """Promoted within a session: the engine that runs goes on, one that starts takes the new release at once."""
    bench = desk.engine()
    bench.feed(MINUTES[:150])
    desk.promote(2)
    look(bench)
    bench.feed(MINUTES[150:160])
    again = desk.engine()

    assert set(versions(bench)) == {"1"}
    assert again.engine.student_model_version.endswith("2")


def test_a_pinned_engine_takes_a_promotion_that_moves_its_pin(desk: Desk) -> None:
    """`promote --env-file` rewrote the file that the engine read when it started."""
    pinned = desk.state.live.model_version  # type: ignore[union-attr]
    bench = desk.engine(student_model_version=pinned)
    bench.feed(MINUTES[:200])
    desk.environment = {"file": ".env", "lines": ["SENSEQUANT_STUDENT_MODEL_VERSION=20240103_000002"]}
    desk.promote(2)
    look(bench)
    bench.feed(MINUTES[200:500])

    assert [versions(bench)[at] for at in (150, 300, 450)] == ["1", "1", "2"]


def test_flat_waits_for_the_end_of_the_position(desk: Desk) -> None:
    """The student changes at the first tick before which nothing is held, wanted or ordered."""
    bench = desk.engine(student_model_reload="flat")
    count = 0
    while not bench.engine.quantity(SYMBOL):
        bench.feed(MINUTES[count : count + 1])
        count += 1
    desk.promote(2)
    look(bench)
    held = []
    for pair in MINUTES[count:NEXT_SESSION]:
        held.append(bench.engine.quantity(SYMBOL))
        bench.feed([pair])
    found = versions(bench)[count:]
    changed = found.index("2")

    assert changed > 0
    assert all(held[:changed])
    assert held[changed] == 0


def test_a_rollback_never_waits(desk: Desk) -> None:
    """Whatever the setting: from the next tick on the restored release decides."""
    desk.promote(2)
    bench = desk.engine(student_model_reload="session")
    bench.feed(MINUTES[:200])
    desk.roll_back()
    assert look(bench)
    bench.feed(MINUTES[200:210])
    found = versions(bench)

    assert found[199:201] == ["2", "1"]


def test_a_rollback_to_nothing_leaves_the_baseline(desk: Desk) -> None:
    """No student: the baseline trades from the next tick on, and it is recorded why."""
    bench = desk.engine()
    bench.feed(MINUTES[:200])
    desk.roll_back("none")
    look(bench)
    bench.feed(MINUTES[200:210])

    assert [one["reason"] for one in bench.predictions()][200:] == ["no_student"] * 10
    assert bench.engine.student_model is None


def test_the_old_student_stays_when_the_new_one_cannot_be_served(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    """Decided under other settings: it is said, the event keeps it, and release 1 goes on after the open."""
    bench = desk.engine()
    bench.feed(MINUTES[:200])
    desk.promote(2, square_off_minutes=60)
    look(bench)
    bench.feed(MINUTES[200:500])
    failed = [one for one in bench.events() if one["event"] == "reload_failed"]

    assert set(versions(bench)) == {"1"}
    assert [one["refusal"] for one in failed] == ["settings_differ"]
    assert "Failed to load student model" in caplog.text


def test_a_rollback_to_what_cannot_be_served_leaves_the_baseline(desk: Desk) -> None:
    """The demoted student never goes on."""
    desk.promote(2, square_off_minutes=60)
    desk.promote(3)
    bench = desk.engine()
    bench.feed(MINUTES[:200])
    desk.roll_back()
    look(bench)
    bench.feed(MINUTES[200:210])

    assert {one["reason"] for one in bench.predictions()[200:]} == {"settings_differ"}


def test_a_deleted_model_file_changes_nothing_under_way(desk: Desk) -> None:
    """The bytes are in memory and in the archive; a new engine serves them from there."""
    bench = desk.engine()
    bench.feed(MINUTES[:200])
    desk.slot.model_path.unlink()
    look(bench)
    bench.feed(MINUTES[200:500])

    assert set(versions(bench)) == {"1"}
    assert desk.engine().engine.scorer.ready


def test_a_deleted_slot_and_archive_leave_the_baseline_of_a_new_engine(desk: Desk) -> None:
    """An engine that starts without a file trades the baseline's signals, and says why."""
    baseline = Bench(desk.root / "baseline", "intraday", keep_state=False)
    baseline.feed(MINUTES[:300])
    desk.slot.model_path.unlink()
    for model in (desk.models / "archive").glob("*/student_model.onnx"):
        model.unlink()
    bench = desk.engine()
    bench.feed(MINUTES[:300])

    assert [one and (one.strength, one.target, one.orders) for one in bench.signals] == [
        one and (one.strength, one.target, one.orders) for one in baseline.signals
    ]
    assert {one["reason"] for one in bench.predictions()} == {"error"}


def test_a_halt_and_its_end_by_command(desk: Desk) -> None:
    """`sqkit halt` and `sqkit resume`, as the engine sees them: before the next tick, without a look."""
    bench = desk.engine()
    bench.feed(MINUTES[:150])
    halt(desk.production, "default", "calls look wrong")
    bench.feed(MINUTES[150:160])
    resume(desk.production, "default", "the feed was wrong")
    look(bench)
    bench.feed(MINUTES[160:170])
    reasons = [one["reason"] for one in bench.predictions()]

    assert set(reasons[150:160]) == {"halted"}
    assert "halted" not in reasons[160:]


def test_a_halt_that_stands_in_the_log_alone_holds(desk: Desk) -> None:
    """Where the flag could not be written: from the next look at the log on, and after a restart."""
    halt(desk.production, "default", "calls look wrong")
    desk.slot.halt_path.unlink()
    bench = desk.engine()
    bench.feed(MINUTES[:150])

    assert {one["reason"] for one in bench.predictions()} == {"halted"}


def test_the_watch_looks_by_itself(desk: Desk) -> None:
    """On its own thread: a promotion is prepared within a second, and served at the next tick where allowed."""
    bench = Bench(
        desk.root,
        "intraday",
        settings=desk.enabled(student_model_reload="immediate"),
        watch=True,
        keep_state=False,
    )
    bench.feed(MINUTES[:120])
    desk.promote(2)
    until = time.monotonic() + 20
    while bench.engine._watch.ready is None and time.monotonic() < until:
        time.sleep(0.02)
    bench.feed(MINUTES[120:121])
    bench.engine.close()

    assert versions(bench)[-2:] == ["1", "2"]


def while_it_is_taken(bench: Bench, act: Callable[[], Any]) -> None:
    """Do something, and let the watch look, at the moment at which the next release is taken."""
    loading = bench.engine.log.loading

    def meanwhile(*said: Any) -> None:
        bench.engine.log.loading = loading
        act()
        look(bench)
        loading(*said)

    bench.engine.log.loading = meanwhile


def test_a_release_that_comes_while_another_is_taken_is_not_lost(desk: Desk) -> None:
    """The watch may prepare release 3 at the very moment at which the tick takes release 2."""
    bench = desk.engine(student_model_reload="immediate")
    bench.feed(MINUTES[:120])
    desk.promote(2)
    look(bench)
    while_it_is_taken(bench, lambda: desk.promote(3))
    bench.feed(MINUTES[120:123])

    assert versions(bench)[-4:] == ["1", "2", "3", "3"]


def test_a_rollback_that_crosses_its_promotion_is_not_lost(desk: Desk) -> None:
    """The watch finds release 1 live again while the tick takes release 2: it looks again, and 1 is back."""
    bench = desk.engine(student_model_reload="immediate")
    bench.feed(MINUTES[:120])
    desk.promote(2)
    look(bench)
    while_it_is_taken(bench, desk.roll_back)
    bench.feed(MINUTES[120:121])
    assert versions(bench)[-1] == "2"
    assert look(bench)
    bench.feed(MINUTES[121:122])

    assert versions(bench)[-1] == "1"
    look(bench)
    assert bench.engine._watch.ready is None or not look(bench), "and then it rests"


def test_two_strategies_in_one_process(tmp_path: Path) -> None:
    """Swing is rolled back; the telemetry of intraday is as if nothing had happened, to the byte."""

    def run(root: Path, *, rolled_back: bool) -> list[dict[str, Any]]:
        paths = {"swing": "data/models/swing/student_model.onnx"}
        intraday = Desk(root, strategy="intraday")
        swing = Trading(root, slot_name="swing", strategy="swing")
        intraday_settings = intraday.enabled(student_model_paths=paths)
        intraday.promote(1, "2003-01-02T10:00:00+00:00")
        swing.promote(3)
        swing.promote(4)
        clock = SetClock()
        days = pairs(series("swing", sessions=120))
        with (
            Engine(
                Config("intraday", (SYMBOL,)),
                intraday_settings,
                root=root,
                clock=clock,
                keep_state=False,
                watch=False,
            ) as fast,
            Engine(
                Config("swing", (SYMBOL,)),
                swing.enabled(),
                root=root,
                clock=clock,
                keep_state=False,
                watch=False,
            ) as slow,
        ):
            feed(fast, clock, MINUTES[:250])
            feed(slow, clock, days[:60])
            if rolled_back:
                swing.roll_back()
                slow._watch.check()
                fast._watch.check()
            feed(fast, clock, MINUTES[250:600])
            feed(slow, clock, days[60:])
        records = read_lines(sorted((root / "data/telemetry").glob("2*/*.jsonl")))
        return [{k: v for k, v in one.items() if k != "latency_us"} for one in records]

    plain, changed = run(tmp_path / "a", rolled_back=False), run(tmp_path / "b", rolled_back=True)

    def of(records: list[dict[str, Any]], strategy: str) -> list[str]:
        return [json.dumps(one) for one in records if one["strategy"] == strategy]

    assert of(plain, "intraday") == of(changed, "intraday")
    assert of(plain, "swing") != of(changed, "swing")


def feed(engine: Engine, clock: SetClock, bars: list[tuple[Bar, int]]) -> None:
    for bar, available in bars:
        clock.set_ns = available
        engine.process_tick(bar)


@pytest.mark.slow
def test_swaps_under_way_lose_no_tick(desk: Desk) -> None:
    """Promotions and rollbacks again and again while bars come: every bar has one record of a release that was live."""
    bench = Bench(
        desk.root,
        "intraday",
        settings=desk.enabled(student_model_reload="immediate"),
        watch=True,
        keep_state=False,
    )
    bars = pairs(series("intraday", sessions=6))
    for swaps, at in enumerate(range(0, len(bars), 100)):
        bench.feed(bars[at : at + 100])
        desk.promote(2 + swaps)
        time.sleep(0.25)
    bench.engine.close()
    found = bench.predictions()
    served = {one["student_model_version"] for one in found}

    assert len(found) == len(bars)
    assert len(served) > 10
    assert not {one["reason"] for one in found} & {"error", "no_student"}
    assert bench.engine.health()["counts"] == {}
