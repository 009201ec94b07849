"""Ways to make an engine trade what it must not, that were found once and stay closed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sqkit.features import feature_set, get_feature_set, student_set
from sqkit.files import sha256_file
from sqkit.production.scorer import StudentScorer
from tests.engines import SYMBOL, Bench, Trading, pairs, series, settings_of, student, student_bytes
from tests.test_engine_restart import abandon
from tests.test_live_positions import Broker
from tests.test_reload import Desk, look, versions

MINUTES = pairs(series("intraday"))


def test_a_damaged_restored_release_ends_the_demoted_one(tmp_path: Path) -> None:
    """After a rollback to bytes that are gone the baseline trades; the model that was rolled back never goes on."""
    desk = Desk(tmp_path, strategy="intraday")
    desk.promote(1, "2003-01-02T10:00:00+00:00")
    desk.promote(2)
    bench = desk.engine()
    bench.feed(MINUTES[:150])
    desk.roll_back()
    desk.slot.model_path.write_bytes(b"torn")
    for model in (desk.models / "archive").glob("*/student_model.onnx"):
        model.write_bytes(b"torn")
    look(bench)
    bench.feed(MINUTES[150:160])

    assert {one["reason"] for one in bench.predictions()[150:]} == {"error"}


def test_a_rollback_while_the_engine_starts_is_seen(tmp_path: Path) -> None:
    """Between the decision what to serve and the first look at the slot."""
    desk = Desk(tmp_path, strategy="intraday")
    desk.promote(1, "2003-01-02T10:00:00+00:00")
    desk.promote(2)
    stale = desk.scorer(now_ns=0)
    desk.roll_back()
    bench = Bench(desk.root, "intraday", settings=desk.enabled(), scorer=stale, keep_state=False)
    look(bench)
    bench.feed(MINUTES[:120])

    assert versions(bench)[-1] == "1"


def test_nothing_is_ordered_before_a_sync_after_a_restart(tmp_path: Path) -> None:
    """Fills of the last seconds may be unknown: neither a tick nor the time sends an exit of what is perhaps gone."""
    config = {"dry_run": False}
    first = Bench(tmp_path, "intraday", config=config)
    first.engine.sync_positions({})
    stop = Broker(first).feed_until_held(MINUTES, 100)
    abandon(first)
    second = Bench(tmp_path, "intraday", config=config)
    said = second.feed(MINUTES[stop:380])

    assert not any(one.orders for one in said if one)
    assert second.engine.on_time() == []


def test_a_position_of_yesterday_is_left_after_a_restart(tmp_path: Path) -> None:
    """Restarted the next day, warmed into it, synced: the order comes with the next bar."""
    config = {"dry_run": False}
    first = Bench(tmp_path, "intraday", config=config)
    first.engine.sync_positions({})
    broker = Broker(first)
    broker.feed_until_held(MINUTES, 100)
    abandon(first)
    second = Bench(tmp_path, "intraday", config=config)
    second.engine.warm_up({SYMBOL: series("intraday").slice(0, 400)})
    second.engine.sync_positions({SYMBOL: broker.held})
    other = Broker(second)
    other.held = broker.held
    other.feed(MINUTES[400:402])

    assert [(one.quantity, one.reason) for one in other.sent][:1] == [(abs(broker.held), "missed_square_off")]
    assert other.held == 0


def test_a_lock_and_an_open_trade_outlast_a_restart(tmp_path: Path) -> None:
    """Nobody has looked since; and the trade that is closed afterwards is recorded with its own entry."""
    config = {"dry_run": False}
    first = Bench(tmp_path, "intraday", config=config)
    first.engine.sync_positions({})
    first.feed(MINUTES[:2])
    first.engine.on_fill(SYMBOL, 100, 50.0, fees=2.0)
    first.engine.sync_positions({SYMBOL: 120})
    first.engine.close()
    second = Bench(tmp_path, "intraday", config=config)
    second.clock.set_ns = MINUTES[2][1]

    assert second.engine.health()["locked"] == [SYMBOL]
    second.engine.sync_positions({SYMBOL: 120})
    assert second.engine.health()["locked"] == [SYMBOL]
    second.engine.on_fill(SYMBOL, -120, 60.0, fees=3.0)
    closed = [one for one in second.records() if one["event"] == "trade_closed"]
    assert [(one["entry_price"], one["fees"]) for one in closed] == [(50.0, 5.0)]


def test_a_square_off_by_time_is_no_mismatch(tmp_path: Path) -> None:
    """What the time closed and the host filled is flat for the engine too, also when bars come again."""
    bench = Bench(tmp_path, "intraday", config={"dry_run": False}, keep_state=False)
    bench.engine.sync_positions({})
    broker = Broker(bench)
    broker.feed_until_held(MINUTES, 100)
    bench.clock.set_ns = MINUTES[375][1]
    (signal,) = bench.engine.on_time()
    broker.waiting = signal.orders
    broker.feed(MINUTES[376:389])

    assert broker.held == bench.engine.quantity(SYMBOL) == 0
    assert bench.engine.health()["locked"] == []


def test_five_minute_bars_are_not_silence(tmp_path: Path) -> None:
    """A feed is silent when its next bar is overdue, not while that bar is under way."""
    from tests.synthetic_bars import synthetic_bars

    bars = pairs(synthetic_bars(SYMBOL, seed=1, sessions=2, interval="5m"))
    bench = Bench(tmp_path, "intraday", config={"interval": "5m"}, keep_state=False)
    for pair in bars:
        bench.feed([pair])
        bench.clock.set_ns += 299 * 10**9
        bench.engine.on_time()

    assert {one["entry_lock"] for one in bench.predictions()} == {None}


def test_a_stream_that_is_made_under_way_sees_each_bar_once(tmp_path: Path) -> None:
    """The features after a reload to another set are those of the set over the remembered bars."""
    bars = series("intraday")
    bench = Bench(tmp_path, "intraday", model=student("intraday"), keep_state=False)
    bench.feed(MINUTES[:200])
    lane = bench.engine._lanes[SYMBOL]
    lane.streams, lane.serves = {}, None
    bench.feed(MINUTES[200:201])

    assert bench.predictions()[-1]["features"] == last_features(bars.rows[:201])


def last_features(rows: np.ndarray) -> list[float]:
    from sqkit.features import feature_matrix

    found: list[float] = feature_matrix(student_set("intraday"), rows)[-1].tolist()
    return found


def test_a_listener_that_fails_loses_no_fill(tmp_path: Path) -> None:
    """A host's `on_trade` may raise: the position is what was filled."""

    def broken(*said: Any) -> None:
        raise RuntimeError("no room")

    bench = Bench(tmp_path, "intraday", config={"dry_run": False}, on_trade=broken, keep_state=False)
    bench.feed(MINUTES[:1])
    bench.engine.on_fill(SYMBOL, 100, 10.0)

    assert bench.engine.quantity(SYMBOL) == 100


@pytest.mark.parametrize("bar", [None, "bar", 5, object()])
def test_whatever_is_no_bar_is_refused(bar: Any, tmp_path: Path) -> None:
    """With a record, and without the name of a Python error."""
    bench = Bench(tmp_path, keep_state=False)
    bench.feed(pairs(series("swing", sessions=2)))

    assert bench.engine.process_tick(bar) is None
    assert [one["bar_status"] for one in bench.records()][-1] == "not_a_bar"


def test_a_corrected_feed_is_free_again(tmp_path: Path) -> None:
    """Stamped by ends yesterday, by starts since the restart: entries are made."""
    bench = Bench(tmp_path, "intraday")
    bench.feed(MINUTES[:390])
    bench.engine._lanes[SYMBOL].intake.end_stamped = True
    bench.engine.close()
    again = Bench(tmp_path, "intraday")
    again.feed(MINUTES[390:500])

    assert {one["entry_lock"] for one in again.predictions()[390:]} == {None}


def test_the_names_that_this_file_leans_on_are_real(tmp_path: Path) -> None:
    """The released model is the file that was promoted."""
    project = Trading(tmp_path)
    project.promote(1)

    assert project.scorer().digest == sha256_file(project.slot.model_path)
    assert get_feature_set("swing_v1") is student_set("swing")
    assert settings_of().market == "us"
    assert callable(feature_set)


def test_a_silence_ends_with_its_first_bar_whatever_locks_it(tmp_path: Path) -> None:
    """Halted when the bars came back: after the resume nothing is called silent, and the next silence is said."""
    bench = Bench(tmp_path, "intraday", config={"dry_run": False}, keep_state=False)
    bench.feed(MINUTES[:100])
    bench.clock.set_ns = MINUTES[99][1] + 260 * 10**9
    bench.engine.on_time()
    bench.feed(MINUTES[104:110])
    bench.engine.sync_positions({})
    bench.feed(MINUTES[110:112])
    bench.clock.set_ns = MINUTES[111][1] + 260 * 10**9
    bench.engine.on_time()

    assert [one["entry_lock"] for one in bench.predictions()[106:]] == [None, None]
    assert sum(one["event"] == "feed_stale" for one in bench.events()) == 2


def test_a_warm_up_outlasts_a_kill(tmp_path: Path) -> None:
    """Its bars are in no journal: they are on the disk when `warm_up` returns."""
    bars = series("swing")
    whole = Bench(tmp_path / "whole", keep_state=False)
    whole.engine.warm_up({SYMBOL: bars.slice(0, 200)})
    whole.feed(pairs(bars, 200))
    first = Bench(tmp_path / "cut")
    first.engine.warm_up({SYMBOL: bars.slice(0, 200)})
    first.feed(pairs(bars, 200, 230))
    abandon(first)
    second = Bench(tmp_path / "cut")
    second.feed(pairs(bars, 230))

    assert second.signals == whole.signals[30:]


def test_a_history_that_ends_too_early_leaves_no_hole(tmp_path: Path) -> None:
    """Features over yesterday's bars and tomorrow's, without today's, are of no market: the set stays silent."""
    model, other = student("intraday"), student("intraday", bias=0.5)
    first = Bench(tmp_path, "intraday", model=model)
    first.feed(MINUTES[:390])
    first.engine.checkpoint()
    first.engine._watch.do_task()
    first.feed(MINUTES[390:395])
    abandon(first)
    second = Bench(tmp_path, "intraday", model=other)
    lane = second.engine._lanes[SYMBOL]
    lane.begin_again(lane.main.features.digest)  # type: ignore[union-attr]
    second.engine.warm_up({SYMBOL: series("intraday").slice(0, 390)})
    second.feed(MINUTES[395:396])
    assert [one["reason"] for one in second.predictions()[395:]] == ["warm_up"]
    second.engine.warm_up({SYMBOL: series("intraday").slice(0, 396)})
    second.feed(MINUTES[396:397])

    assert second.predictions()[-1]["features"] == last_features(series("intraday").rows[:397])


def test_locks_of_another_strategy_are_not_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A state that is refused is refused whole, and it is said once."""
    first = Bench(tmp_path, config={"name": "desk", "dry_run": False})
    first.engine.sync_positions({SYMBOL: 40})
    first.engine.close()
    second = Bench(tmp_path, "intraday", config={"name": "desk", "dry_run": False})

    assert second.engine.health()["locked"] == []
    assert caplog.text.count("begins anew") == 1


class BrokenSink:
    """A host's own, with a mistake in it."""

    lost = 0

    def write(self, session_day: int, record: dict[str, Any]) -> bool:
        raise RuntimeError("no connection")

    def event(self, record: dict[str, Any]) -> bool:
        return True

    def close(self) -> None:
        return None


def test_no_sink_raises_whichever_tick_a_bar_comes_by(tmp_path: Path) -> None:
    """What a sink raises is counted, also for a bar that the wrong strategy's tick refuses."""
    bench = Bench(tmp_path, "intraday", keep_state=False, sink=BrokenSink())
    ticks = (bench.engine.process_tick, bench.engine.intraday_tick, bench.engine.swing_tick)

    assert [tick(bar) for tick, (bar, _) in zip(ticks, MINUTES, strict=False)] == [None, None, None]
    assert bench.engine.health()["counts"]["tick RuntimeError"] == 3


def test_a_refused_version_is_refused_once(tmp_path: Path) -> None:
    """Looking again at a model whose version is no date changes nothing."""
    path = tmp_path / "data/models/production/student_model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(student_bytes("intraday", model_version="20240101_000060"))
    settings = settings_of(student_model_enabled=True, student_model_require_release=False)
    scorer = StudentScorer(settings, "intraday", root=tmp_path)

    assert scorer.refusal == "error"
    assert not scorer.refresh()
