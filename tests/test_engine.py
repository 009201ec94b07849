"""The engine: baseline untouched, the student's factors, halt, fallback, and no exception out of a tick."""

from __future__ import annotations

import datetime as dt
import json
import logging
import math
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sqkit.bars import Bar, BarArrays
from sqkit.errors import UsageError
from sqkit.features import feature_matrix, student_set
from sqkit.production.engine import Config, Engine
from sqkit.production.engine_time import EngineClock, SetClock
from sqkit.records import PREDICTION_FIELDS, TRADE_FIELDS
from sqkit.strategy import run_strategy
from tests.engines import SYMBOL, Bench, pairs, scorer_of, series, settings_of, student, student_bytes

STRATEGIES = ("swing", "intraday")


def plain_baseline(bench: Bench, bars: BarArrays) -> list[tuple[str, float, float]]:
    """Side, strength and target of the bare rule over a series, as the batch says them."""
    rules = bench.engine.config.rules(bench.settings)
    steps = run_strategy(bars.rows, np.zeros(len(bars), dtype=np.int8), rules.parameters)
    words = {1: "LONG", 0: "FLAT", -1: "SHORT"}
    return [
        (words[int(side)], strength, target)
        for side, strength, target in zip(
            steps.baseline_direction, steps.baseline_strength, steps.target, strict=True
        )
    ]


def said(bench: Bench) -> list[Any]:
    """What the signals say of the rule."""
    return [one and (one.direction, one.strength, one.target) for one in bench.signals]


def what_trades(bench: Bench) -> list[Any]:
    """Everything of the signals that a host acts on."""
    return [
        one and (one.direction, one.baseline_strength, one.strength, one.target, one.orders)
        for one in bench.signals
    ]


# --- the baseline


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_without_scoring_every_signal_is_the_baselines(strategy: str, tmp_path: Path) -> None:
    """Over more than a year of days, or a thousand minutes, scoring that is off changes nothing at all."""
    bars = series(strategy)
    bench = Bench(tmp_path, strategy, keep_state=False)
    bench.feed(bars)
    rule = plain_baseline(bench, bars)
    warm = bench.engine.config.rules(bench.settings).parameters.warmup_bars

    assert said(bench)[: warm - 1] == [None] * (warm - 1)
    assert said(bench)[warm - 1 :] == rule[warm - 1 :]
    assert {one.reason for one in bench.signals if one} == {"disabled"}
    assert {one.prediction_source for one in bench.signals if one} == {"baseline_strategy"}
    assert any(one.orders for one in bench.signals if one)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_student_multiplies_and_never_originates(strategy: str, tmp_path: Path) -> None:
    """Agreeing 1.2, disagreeing 0.5, clipped at 1; FLAT stays FLAT; the source says where a factor was applied."""
    bench = Bench(tmp_path, strategy, model=student(strategy), keep_state=False)
    bench.feed(series(strategy))
    factors = {"same": 0, "opposite": 0}
    for one in filter(None, bench.signals):
        acts = one.student_prediction != "FLAT" and one.direction != "FLAT"
        if not acts:
            assert one.strength == one.baseline_strength
            assert one.prediction_source == "baseline_strategy"
            continue
        same = one.student_prediction == one.direction
        factors["same" if same else "opposite"] += 1
        assert one.strength == min(one.baseline_strength * (1.2 if same else 0.5), 1.0)
        assert one.prediction_source == "student_model"
    assert min(factors.values()) > 10


def test_a_student_changes_trades_and_profit(tmp_path: Path) -> None:
    """Both factors reach the orders: with and without a student other trades are made."""
    bars = series("intraday")
    with_student = Bench(tmp_path / "a", "intraday", model=student("intraday"), keep_state=False)
    without = Bench(tmp_path / "b", "intraday", keep_state=False)
    with_student.feed(bars)
    without.feed(bars)

    trades = [
        [record for record in bench.records() if record["event"] == "trade_closed"]
        for bench in (with_student, without)
    ]
    assert trades[0]
    assert trades[1]
    assert [one["net_pnl"] for one in trades[0]] != [one["net_pnl"] for one in trades[1]]


# --- the user's log messages


def records_of(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, record.getMessage()) for record in caplog.records]


def test_a_loaded_model_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """INFO, the version in text and in ``extra``."""
    caplog.set_level(logging.INFO)
    Bench(tmp_path, model=student(), keep_state=False)
    record = next(one for one in caplog.records if "loaded" in one.getMessage())

    assert record.getMessage() == "Student model loaded: version=20030101_000000"
    assert record.levelname == "INFO"
    assert (record.component, record.model_version) == ("engine", "20030101_000000")


def test_a_missing_model_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """WARNING with the path, and the baseline trades."""
    bench = Bench(tmp_path, settings=settings_of(student_model_enabled=True), keep_state=False)
    path = tmp_path / "data/models/production/student_model.onnx"

    assert records_of(caplog) == [("WARNING", f"Student model not found: {path}, falling back to baseline")]
    assert caplog.records[0].component == "engine"
    bench.feed(series("swing", sessions=60))
    assert {one.reason for one in bench.signals if one} == {"no_student"}


def test_a_model_that_cannot_be_loaded_is_an_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """ERROR with the problem and its traceback; a pickle is never opened."""
    place = tmp_path / "data/models/production/student_model.onnx"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"\x80\x04]q\x00.")
    settings = settings_of(student_model_enabled=True, student_model_require_release=False)
    bench = Bench(tmp_path, settings=settings, keep_state=False)
    (record,) = caplog.records

    assert record.levelname == "ERROR"
    assert record.getMessage().startswith("Failed to load student model: ")
    assert record.getMessage().endswith(", falling back to baseline")
    assert record.exc_info is not None
    assert bench.engine.student_model is None
    bench.feed(series("swing", sessions=60))
    assert {one.reason for one in bench.signals if one} == {"error"}


def test_each_prediction_is_said_where_somebody_listens(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """DEBUG with direction and confidence in text and in ``extra``; silent above DEBUG."""
    bars = series("swing", sessions=150)
    quiet = Bench(tmp_path / "a", model=student(), keep_state=False)
    quiet.feed(bars)
    assert not [one for one in caplog.records if one.levelname == "DEBUG"]
    caplog.set_level(logging.DEBUG, logger="sqkit.production.engine")
    bench = Bench(tmp_path / "b", model=student(), keep_state=False)
    bench.feed(bars)
    lines = [one for one in caplog.records if one.levelname == "DEBUG"]
    scored = [one for one in bench.signals if one and one.reason == "scored"]

    assert len(lines) == len(scored) > 5
    first = scored[0]
    assert lines[0].getMessage() == (
        f"Student prediction: {first.student_prediction} (confidence={first.student_confidence:.3f})"
    )
    assert lines[0].student_direction == first.student_prediction
    assert lines[0].student_confidence == first.student_confidence
    assert lines[0].model_version == "20030101_000000"
    assert lines[0].component == "engine"


def test_a_failing_prediction_is_said_once_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A scorer that raises on every bar: one warning, every failure counted, the baseline's signals."""
    bars = series("swing", sessions=200)
    baseline = Bench(tmp_path / "a", keep_state=False)
    baseline.feed(bars)
    bench = Bench(tmp_path / "b", model=student(), keep_state=False)

    def broken(features: np.ndarray) -> Any:
        raise RuntimeError("the graph is gone")

    bench.engine.scorer._rows.score = broken
    bench.feed(bars)

    assert what_trades(bench) == what_trades(baseline)
    assert records_of(caplog).count(("WARNING", "Student prediction failed: the graph is gone")) == 1
    assert bench.engine.health()["prediction_failures"] == 200 - 100
    assert {one["reason"] for one in bench.predictions()} == {"warm_up", "error"}


# --- telemetry


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_bar_leaves_one_record(strategy: str, tmp_path: Path) -> None:
    """With every field of a validation's record, features, decision time, latency; strict JSON, words for codes."""
    bars = series(strategy)
    bench = Bench(tmp_path, strategy, model=student(strategy), keep_state=False)
    bench.feed(bars)
    found = bench.predictions()
    features = feature_matrix(student_set(strategy), bars)

    assert len(found) == len(bars)
    assert {*PREDICTION_FIELDS} - {"outcome"} <= set(found[0])
    assert len({one["id"] for one in found}) == len(found)
    at = len(bars) - 1
    last = found[at]
    assert last["features"] == features[at].tolist()
    assert last["symbol"] == SYMBOL
    assert last["bar"] == [*bars.rows[at, :5].tolist()]
    assert last["student_model_version"] == "20030101_000000"
    assert last["latency_us"] > 0
    assert last["id"] == f"{strategy}/{SYMBOL}/{last['bar_time']}"
    assert dt.datetime.fromisoformat(last["decision_time"]).timestamp() * 1e9 == bars.available_ns[at]
    assert found[0]["reason"] == "warm_up"
    assert found[0]["student_confidence"] is None


def test_trades_have_the_columns_of_a_backtest(tmp_path: Path) -> None:
    """Every opened and closed trade is a record: entry, exit, size, costs, P&L, reason, version."""
    bench = Bench(tmp_path, "intraday", model=student("intraday"), keep_state=False)
    bench.feed(series("intraday"))
    trades = [one for one in bench.records() if one["event"].startswith("trade_")]
    closed = [one for one in trades if one["event"] == "trade_closed"]

    assert closed
    assert set(TRADE_FIELDS) <= set(closed[0])
    assert {one["student_model_version"] for one in trades} == {"20030101_000000"}
    assert {one["exit_reason"] for one in closed} & {"square_off"}
    assert all(one["exit_price"] is None for one in trades if one["event"] == "trade_opened")
    assert len(trades) - len(closed) - len(closed) in (0, 1)


def test_refused_bars_leave_a_record_with_the_reason(tmp_path: Path) -> None:
    """Unknown symbol, naive time, the wrong strategy, and whatever is no bar: none of them has a signal."""
    bench = Bench(tmp_path, keep_state=False)
    bar, available = pairs(series("swing", sessions=30))[0]
    bench.clock.set_ns = available
    engine = bench.engine

    assert engine.process_tick(replace(bar, symbol="ZZZ")) is None
    assert engine.process_tick(replace(bar, timestamp=bar.timestamp.replace(tzinfo=None))) is None
    assert engine.intraday_tick(bar) is None
    assert engine.process_tick(replace(bar, close=math.nan)) is None
    assert engine.process_tick("no bar") is None  # type: ignore[arg-type]
    assert engine.swing_tick(bar) is None  # the rule is not warm yet
    assert [one.get("bar_status") for one in bench.records()] == [
        "unknown_symbol",
        "naive_timestamp",
        "strategy_mismatch",
        "bad_price",
        "not_a_bar",
        "ok",
    ]
    assert engine.health()["counts"]["not_a_bar"] == 1


def test_a_hosts_own_numbers_cost_no_signal(tmp_path: Path) -> None:
    """NumPy's floats, decimals and fractions as prices: the same signals, and a line for every bar."""
    bars = pairs(series("swing", sessions=60))
    bars[5] = (replace(bars[5][0], volume=2.0**70), bars[5][1])
    plain = Bench(tmp_path / "plain", keep_state=False)
    plain.feed(bars)
    kinds = (np.float64, lambda one: Decimal(repr(one)), np.float64)
    odd = [
        (
            replace(
                bar, close=kinds[at % 3](bar.close), volume=2**70 if at == 5 else np.int64(bar.volume or 0)
            ),
            available,
        )
        for at, (bar, available) in enumerate(bars)
    ]
    bench = Bench(tmp_path / "odd", keep_state=False)
    bench.feed(odd)

    assert bench.signals == plain.signals
    assert len(bench.predictions()) == 60


# --- halt, fallback, locks


def halt_at(bench: Bench, level: str) -> Path:
    flag = Path(bench.engine._halts._flag)
    flag.parent.mkdir(parents=True, exist_ok=True)
    flag.write_text(json.dumps({"at": "2003-06-01T00:00:00Z", "by": {}, "level": level, "reason": "test"}))
    return flag


def test_a_halted_student_is_silent_before_the_next_tick(tmp_path: Path) -> None:
    """From the flag on the baseline trades alone; without it the student speaks again."""
    bars = pairs(series("swing", sessions=200))
    bench = Bench(tmp_path, model=student(), keep_state=False)
    bench.feed(bars[:150])
    flag = halt_at(bench, "student_off")
    bench.feed(bars[150:180])
    flag.unlink()
    bench.feed(bars[180:])
    reasons = [one["reason"] for one in bench.predictions()]

    assert set(reasons[150:180]) == {"halted"}
    assert "halted" not in reasons[:150] + reasons[180:]
    assert [one["event"] for one in bench.events() if one["event"] in ("halt", "resume")] == [
        "halt",
        "resume",
    ]


def test_no_new_entries_lets_exits_go_on(tmp_path: Path) -> None:
    """At the stricter level nothing is entered, and what is held is left as its rules say."""
    bars = pairs(series("intraday", sessions=3))
    free = Bench(tmp_path / "a", "intraday", keep_state=False)
    free.feed(bars)
    held = next(i for i, one in enumerate(free.signals) if one and one.target and i > 500)
    bench = Bench(tmp_path / "b", "intraday", keep_state=False)
    bench.feed(bars[: held + 1])
    assert bench.engine.quantity(SYMBOL) or bench.signals[-1].orders
    halt_at(bench, "no_new_entries")
    bench.feed(bars[held + 1 :])

    assert bench.engine.quantity(SYMBOL) == 0
    assert not any(
        order.reason == "entry" for one in bench.signals[held + 1 :] if one for order in one.orders
    )
    assert {one["entry_lock"] for one in bench.predictions()[held + 1 :]} == {"halted"}


def test_a_torn_flag_halts_at_the_strictest(tmp_path: Path) -> None:
    """An empty flag is a whole halt."""
    bars = pairs(series("swing", sessions=60))
    bench = Bench(tmp_path, keep_state=False)
    halt_at(bench, "student_off").write_text("")
    bench.feed(bars)

    assert {one["entry_lock"] for one in bench.predictions()} == {"halted"}


@pytest.mark.parametrize(("fallback", "lock"), [("baseline", None), ("no_new_entries", "no_student")])
def test_a_missing_model_means_what_the_setting_says(fallback: str, lock: str | None, tmp_path: Path) -> None:
    """The baseline goes on, or nothing new is entered."""
    settings = settings_of(student_model_enabled=True, student_fallback=fallback)
    bench = Bench(tmp_path, settings=settings, keep_state=False)
    bench.feed(series("swing"))

    assert {one["entry_lock"] for one in bench.predictions()} == {lock}
    assert any(one.orders for one in bench.signals if one) == (lock is None)


def test_scoring_that_is_off_is_no_missing_model(tmp_path: Path) -> None:
    """``no_new_entries`` speaks of a student that should be there."""
    bench = Bench(tmp_path, settings=settings_of(student_fallback="no_new_entries"), keep_state=False)
    bench.feed(series("swing"))

    assert any(one.orders for one in bench.signals if one)


def test_late_bars_enter_nothing(tmp_path: Path) -> None:
    """What comes too late still warms and closes, and opens nothing."""
    bars = [(bar, at + 3600 * 10**9) for bar, at in pairs(series("intraday"))]
    bench = Bench(tmp_path, "intraday", keep_state=False)
    bench.feed(bars)

    assert {one["bar_status"] for one in bench.predictions()} == {"late"}
    assert {one["entry_lock"] for one in bench.predictions()} == {"late_bar"}
    assert not any(one.orders for one in bench.signals if one)


def test_a_silent_feed_is_said_and_the_next_bar_enters_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No bar for ``feed_stale_seconds``: one warning, an event, one locked bar."""
    bars = pairs(series("intraday"))
    bench = Bench(tmp_path, "intraday", keep_state=False)
    bench.feed(bars[:100])
    bench.clock.set_ns = bars[99][1] + 239 * 10**9
    assert bench.engine.on_time() == []
    bench.clock.set_ns = bars[99][1] + 260 * 10**9
    bench.engine.on_time()
    bench.engine.on_time()
    bench.feed(bars[104:107])

    assert [one["silent_seconds"] for one in bench.events() if one["event"] == "feed_stale"] == [200.0]
    assert [text for _, text in records_of(caplog)].count(f"{SYMBOL}: no bar for 200 seconds") == 1
    assert [one["entry_lock"] for one in bench.predictions()[100:]] == ["feed_stale", None, None]
    assert bench.predictions()[100]["bar_status"] == "gap"


# --- features, clocks, scope


def test_a_symbol_outside_the_scope_is_not_scored(tmp_path: Path) -> None:
    """The approvals allow it other symbols: the baseline trades this one, and the reason is there."""
    settings = settings_of()
    scorer = scorer_of(student(), settings, symbols=("OTHER",))
    bench = Bench(tmp_path, settings=settings, scorer=scorer, keep_state=False)
    bench.feed(series("swing", sessions=150))

    assert {one["reason"] for one in bench.predictions()[100:]} == {"out_of_scope"}


def test_features_outside_the_training_ranges_are_an_abstention(tmp_path: Path) -> None:
    """No zero, no guess: FLAT with its reason."""
    model = student(feature_ranges=[[100.0, 101.0]] * 19)
    bench = Bench(tmp_path, model=model, keep_state=False)
    bench.feed(series("swing", sessions=150))
    last = bench.predictions()[-1]

    assert last["reason"] == "out_of_distribution"
    assert last["student_prediction"] == "FLAT"
    assert last["student_confidence"] is None


def test_a_stale_model_is_silent_from_its_day_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Counted from the date in its version; said up to ten sessions before."""
    settings = settings_of(student_model_max_age_days=200)
    bars = series("swing", sessions=300)
    clock = SetClock()
    scorer = scorer_of(student(), settings)
    scorer._now_ns = clock.now_ns
    bench = Bench(tmp_path, settings=settings, scorer=scorer, clock=clock, keep_state=False)
    bench.feed(bars)
    silent = [one["session_date"] for one in bench.predictions() if one["reason"] == "stale_model"]
    warned = [text for level, text in records_of(caplog) if "too old in" in text]

    assert silent[0] == "2003-07-21"  # 200 days after 1 January is 20 July, a Sunday
    assert silent == [one["session_date"] for one in bench.predictions() if one["session_date"] >= silent[0]]
    assert 8 <= len(warned) <= 11
    assert warned[-1].startswith("Student model 20030101_000000 is too old in 2 days")


def test_a_clock_that_jumps_silences_the_student_only(tmp_path: Path) -> None:
    """The baseline's signals go on, the reason is in the telemetry, and it ends with the jump."""
    bars = pairs(series("intraday"))
    wall, steady = [0], [0]
    clock = EngineClock(lambda: wall[0], lambda: steady[0])
    clock._offset_ns = 0

    def feed(bench: Bench, part: list[tuple[Bar, int]], jump_ns: int = 0) -> None:
        for bar, available in part:
            steady[0], wall[0] = available, available + jump_ns
            bench.signals.append(bench.engine.process_tick(bar))

    bench = Bench(tmp_path / "a", "intraday", model=student("intraday"), clock=clock, keep_state=False)
    feed(bench, bars[:300])
    feed(bench, bars[300:400], jump_ns=-3600 * 10**9)
    feed(bench, bars[400:500], jump_ns=200 * 86_400 * 10**9)
    feed(bench, bars[500:600])
    reasons = [one["reason"] for one in bench.predictions()]

    assert len(reasons) == 600, "no bar was refused"
    assert set(reasons[300:500]) == {"clock_jump"}
    assert "clock_jump" not in reasons[:300] + reasons[500:]
    assert all(
        one.strength == one.baseline_strength and one.prediction_source == "baseline_strategy"
        for one in bench.signals[300:500]
        if one
    )


def test_end_stamped_feeds_are_shifted_where_they_are_said_to_be(tmp_path: Path) -> None:
    """``stamp="end"`` takes the interval off: the same signals as from a feed stamped by starts."""
    bars = pairs(series("intraday", sessions=2))
    plain = Bench(tmp_path / "a", "intraday", keep_state=False)
    plain.feed(bars)
    ended = [(replace(bar, timestamp=bar.timestamp + dt.timedelta(minutes=1)), at) for bar, at in bars]
    shifted = Bench(tmp_path / "b", "intraday", config={"stamp": "end"}, keep_state=False)
    shifted.feed(ended)

    assert shifted.signals == plain.signals


def test_end_stamped_feeds_that_are_not_said_to_be_enter_nothing(tmp_path: Path) -> None:
    """Once a bar at the close has shown it, entries are locked."""
    bars = pairs(series("intraday", sessions=2))
    ended = [
        (replace(bar, timestamp=bar.timestamp + dt.timedelta(minutes=1)), at + 60 * 10**9) for bar, at in bars
    ]
    bench = Bench(tmp_path, "intraday", keep_state=False)
    bench.feed(ended)

    assert {one["entry_lock"] for one in bench.predictions()[389:]} == {"end_stamped"}
    assert bench.engine.health()["counts"][f"end_stamped {SYMBOL}"] == 2


# --- configuration


def test_a_config_that_cannot_be_meant_is_refused() -> None:
    """Before anything starts, with the value that is wrong."""
    for given, said in (
        ({"strategy": "scalping"}, "strategy 'scalping'"),
        ({"symbols": "AAA"}, "symbols 'AAA'"),
        ({"symbols": ("AAA", "AAA")}, "each once"),
        ({"interval": "15m"}, "interval '15m'"),
        ({"calendar": "mars"}, "calendar 'mars'"),
        ({"stamp": "middle"}, "stamp 'middle'"),
        ({"capital": -5.0}, "capital -5"),
        ({"name": "../x"}, "name '../x'"),
    ):
        with pytest.raises(UsageError, match=said):
            Config(**({"strategy": "swing", "symbols": ("AAA",)} | given))


def test_warm_up_makes_the_first_live_bar_ready(tmp_path: Path) -> None:
    """A history passes first: the first bar is scored, and equals what an engine that saw all says."""
    bars = series("intraday", sessions=3)
    whole = Bench(tmp_path / "a", "intraday", model=student("intraday"), keep_state=False)
    whole.feed(bars)
    bench = Bench(tmp_path / "b", "intraday", model=student("intraday"), keep_state=False)
    assert bench.engine.warm_up({SYMBOL: bars.slice(0, 390), "ZZZ": bars}) == {SYMBOL: 390}
    bench.feed(pairs(bars, 390))
    names = ("features", "student_probability_up", "reason", "baseline_strength")

    assert [[one[name] for name in names] for one in bench.predictions()] == [
        [one[name] for name in names] for one in whole.predictions()[390:]
    ]
    assert bench.signals[0].reason in ("scored", "low_confidence")


def test_challengers_are_recorded_and_trade_nothing(tmp_path: Path) -> None:
    """Two shadows on the same ticks: their answers stand in the record, the signals are as without them."""
    bars, settings = series("swing", sessions=200), settings_of()
    alone = Bench(tmp_path / "a", model=student(), keep_state=False)
    alone.feed(bars)
    others = [student(bias=2.0, model_version="20030201_000000"), student(slope=-0.7)]
    bench = Bench(
        tmp_path / "b",
        model=student(),
        challengers=[scorer_of(one, settings) for one in others],
        keep_state=False,
    )
    bench.feed(bars)
    last = bench.predictions()[-1]
    features = np.array([last["features"]])

    assert bench.signals == alone.signals
    assert [one["student_model_digest"] for one in last["challengers"]] == [one.digest[:12] for one in others]
    for one, model in zip(last["challengers"], others, strict=True):
        assert one["student_probability_up"] == model.score_rows(features, 0.6).probability_up[0]
    assert bench.predictions()[5]["challengers"][0]["reason"] == "warm_up"


def test_challengers_come_from_the_setting(tmp_path: Path) -> None:
    """One or more paths; one that cannot be loaded says so in the records and stops nothing."""
    (tmp_path / "one.onnx").write_bytes(student_bytes())
    (tmp_path / "broken.onnx").write_bytes(b"nothing")
    settings = settings_of(student_challenger_path="one.onnx, broken.onnx")
    bench = Bench(tmp_path, settings=settings, keep_state=False)
    bench.feed(series("swing", sessions=110))
    last = bench.predictions()[-1]

    assert last["student_prediction"] == "FLAT"
    assert last["reason"] == "disabled"
    assert [one["reason"] for one in last["challengers"]] in (
        ["scored", "error"],
        ["low_confidence", "error"],
    )


def test_an_engine_leaves_start_and_stop(tmp_path: Path) -> None:
    """Its own file says what was served from start to stop, under which settings, where."""
    with Bench(tmp_path, model=student(), keep_state=False).engine as engine:
        assert isinstance(engine, Engine)
        digest = engine.scorer.digest
    bench_events = [
        json.loads(line)
        for path in (tmp_path / "data/telemetry/engines").glob("*.jsonl")
        for line in path.read_text().splitlines()
    ]

    assert [one["event"] for one in bench_events] == ["start", "stop"]
    assert {one["model_digest"] for one in bench_events} == {digest}
    assert set(bench_events[0]) >= {
        "settings_digest",
        "host",
        "pid",
        "slot",
        "engine",
        "symbols",
        "sqkit_version",
    }
