"""The rule and the student's adjustment: against TA-Lib, by property, and stream against batch."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import talib
from hypothesis import given, settings
from hypothesis import strategies as st

import sqkit
from sqkit.bars import BAR_MINUTES, CLOSE, HIGH, LOW, MINUTE, ROW_WIDTH, SESSION, SESSION_MINUTES
from sqkit.errors import UsageError
from sqkit.records import BASELINE_STRATEGY, EXIT_REASON_CODES, FLAT, LONG, SHORT, STUDENT_MODEL
from sqkit.settings import Settings
from sqkit.strategy import (
    StrategyColumns,
    StrategyParameters,
    StrategyStream,
    rule_calls,
    run_strategy,
)
from sqkit.strategystep import RULE_MIN_STRENGTH, TRADING, WARMING

INTRADAY = StrategyParameters("intraday")
SWING = StrategyParameters("swing", max_holding_sessions=10, allow_short=False)
SESSION_BARS = 75
COLUMNS = list(StrategyColumns.__dataclass_fields__)


def minute_rows(seed: int, sessions: int = 12) -> np.ndarray:
    """Five-minute bars of a wandering price, 75 a session."""
    return _rows(_wander(seed, sessions * SESSION_BARS), session_bars=SESSION_BARS, bar_minutes=5.0)


def daily_rows(seed: int, sessions: int = 600) -> np.ndarray:
    """Daily bars of a wandering price."""
    return _rows(_wander(seed, sessions), session_bars=1, bar_minutes=375.0)


def _wander(seed: int, bars: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    drift = np.repeat(rng.normal(0.0, 0.004, bars // 15 + 1), 15)[:bars]
    return 100.0 * np.exp(np.cumsum(drift + rng.normal(0.0, 0.004, bars)))


def _rows(close: np.ndarray, *, session_bars: int, bar_minutes: float) -> np.ndarray:
    position = np.arange(len(close))
    before = np.concatenate([close[:1], close[:-1]])
    wick = 0.002 * close
    rows = np.empty((len(close), ROW_WIDTH))
    rows[:, 0] = before
    rows[:, HIGH] = np.maximum(before, close) + wick
    rows[:, LOW] = np.minimum(before, close) - wick
    rows[:, CLOSE] = close
    rows[:, 4] = 1000.0
    rows[:, SESSION] = 18_000 + position // session_bars
    rows[:, MINUTE] = (position % session_bars) * bar_minutes
    rows[:, SESSION_MINUTES] = 375.0
    rows[:, BAR_MINUTES] = bar_minutes
    return rows


def students(seed: int, bars: int) -> np.ndarray:
    """A student that says anything."""
    return np.random.default_rng(seed).integers(-1, 2, bars).astype(np.int8)


def silent(rows: np.ndarray) -> np.ndarray:
    """A student that always abstains."""
    return np.zeros(len(rows), dtype=np.int8)


def restated(rows: np.ndarray, student: np.ndarray, p: StrategyParameters) -> dict[str, np.ndarray]:
    """The rule once more, from TA-Lib's indicators and plain Python."""
    high, low, close = (np.ascontiguousarray(rows[:, column]) for column in (HIGH, LOW, CLOSE))
    spread = talib.EMA(close, p.ema_fast) - talib.EMA(close, p.ema_slow)
    raw = np.minimum(np.abs(spread) / (2.0 * talib.ATR(high, low, close, p.atr_bars)), 1.0)
    rsi = talib.RSI(close, p.rsi_bars)
    direction = np.sign(spread)
    direction[(raw < 0.25) | np.isnan(raw) | ((direction > 0) & (rsi > p.rsi_high))] = 0.0
    direction[(direction < 0) & (rsi < p.rsi_low)] = 0.0
    direction = np.nan_to_num(direction)
    factor = np.where(direction * student > 0, 1.2, np.where(direction * student < 0, 0.5, 1.0))
    strength = np.clip(np.nan_to_num(raw) * factor, 0.0, 1.0)
    held, entered, target, reason = 0.0, 0, np.zeros(len(rows)), np.zeros(len(rows), dtype=int)
    day = rows[:, SESSION]
    for i in range(len(rows)):
        closing = False
        if p.strategy == "intraday":
            if held and day[i] != day[i - 1]:
                held, reason[i] = 0.0, 5
            closing = (
                rows[i, MINUTE] + rows[i, BAR_MINUTES] >= rows[i, SESSION_MINUTES] - p.square_off_minutes
            )
        signal = direction[i] * strength[i] if strength[i] >= p.entry_strength else 0.0
        allowed = signal if signal > 0 or p.allow_short else 0.0
        if not held:
            if not closing and allowed:
                held, entered = allowed, day[i]
        elif closing:
            held, reason[i] = 0.0, 3
        elif signal * held < 0:
            held, entered, reason[i] = allowed, day[i], 1
        elif p.max_holding_sessions and day[i] - entered >= p.max_holding_sessions:
            held, reason[i] = 0.0, 4
        elif np.sign(held) * direction[i] * strength[i] < p.exit_strength:
            held, reason[i] = 0.0, 6 if direction[i] == 0 and strength[i] >= p.exit_strength else 2
        target[i] = held
    return {
        "baseline_direction": direction,
        "baseline_strength": np.nan_to_num(raw),
        "strength": strength,
        "target": target,
        "exit_reason": reason,
    }


@pytest.mark.parametrize(("rows", "parameters"), [(minute_rows(1), INTRADAY), (daily_rows(2), SWING)])
def test_the_rule_is_what_the_design_says(rows: np.ndarray, parameters: StrategyParameters) -> None:
    """Direction, strength, target and exit reasons equal an independent restatement on TA-Lib."""
    student = students(3, len(rows))
    columns, expected = run_strategy(rows, student, parameters), restated(rows, student, parameters)
    for name, values in expected.items():
        np.testing.assert_allclose(getattr(columns, name), values, rtol=0, atol=1e-9, err_msg=name)
    assert np.count_nonzero(expected["exit_reason"]) > 10


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), strategy=st.sampled_from(["intraday", "swing"]), broken=st.booleans())
def test_stream_and_batch_are_bit_identical(seed: int, strategy: str, broken: bool) -> None:
    """One bar at a time or all at once, a warm-up before the start and a NaN bar included: the same bits."""
    rows = minute_rows(seed, sessions=4) if strategy == "intraday" else daily_rows(seed, sessions=300)
    parameters = INTRADAY if strategy == "intraday" else SWING
    if broken:
        rows[137, CLOSE] = np.nan
    student = students(seed + 1, len(rows))
    columns = run_strategy(rows, student, parameters, start=60)
    stream = StrategyStream(parameters)
    outs = np.array(
        [
            stream.update(row, int(said), TRADING if i >= 60 else WARMING).copy()
            for i, (row, said) in enumerate(zip(rows, student, strict=True))
        ]
    )
    for position, name in enumerate(COLUMNS):
        assert np.array_equal(outs[:, position], getattr(columns, name)), name


def test_a_stream_goes_on_from_its_snapshot() -> None:
    """A restored stream gives the same bits as one that never stopped."""
    rows = minute_rows(4)
    whole, first = StrategyStream(INTRADAY), StrategyStream(INTRADAY)
    for row in rows[:300]:
        whole.update(row, LONG)
        first.update(row, LONG)
    second = StrategyStream(INTRADAY)
    second.restore(first.snapshot())
    for row in rows[300:]:
        assert np.array_equal(whole.update(row, SHORT), second.update(row, SHORT))
    assert second.bars_seen == len(rows)


def test_nothing_is_wanted_until_warm() -> None:
    """Before `warmup_bars` the rule is FLAT with strength 0; on that bar it can speak."""
    columns = run_strategy(minute_rows(5), students(1, 12 * SESSION_BARS), INTRADAY)
    unready = slice(0, INTRADAY.warmup_bars - 1)
    assert INTRADAY.warmup_bars == 26
    for name in ("baseline_direction", "baseline_strength", "target", "prediction_source"):
        assert not getattr(columns, name)[unready].any(), name
    assert columns.baseline_strength[INTRADAY.warmup_bars - 1] > 0.0


def test_weak_moves_are_flat_but_keep_their_strength() -> None:
    """Below 0.25 the direction is FLAT, and the strength is still told."""
    columns = run_strategy(daily_rows(6), silent(daily_rows(6)), SWING)
    weak = (columns.baseline_strength > 0.0) & (columns.baseline_strength < RULE_MIN_STRENGTH)
    assert weak.any()
    assert not columns.baseline_direction[weak].any()
    assert np.array_equal(columns.strength[weak], columns.baseline_strength[weak])


def test_an_overdone_move_is_flat() -> None:
    """A straight rise has RSI 100: FLAT at the usual limit, LONG when the limit is 100; mirrored for a fall."""
    rise = np.linspace(100.0, 200.0, 80)
    for close, side in ((rise, LONG), (rise[::-1].copy(), SHORT)):
        rows = _rows(close, session_bars=1, bar_minutes=375.0)
        limited = run_strategy(rows, silent(rows), SWING)
        free = run_strategy(rows, silent(rows), replace(SWING, rsi_high=100.0, rsi_low=0.0))
        assert not limited.baseline_direction.any()
        assert set(free.baseline_direction[26:]) == {side}


def test_the_student_scales_the_strength() -> None:
    """Agreement is x 1.2, disagreement x 0.5, silence x 1, clipped to 1; the source says which."""
    rows = minute_rows(7)
    student = students(8, len(rows))
    columns = run_strategy(rows, student, INTRADAY)
    side, base = columns.baseline_direction, columns.baseline_strength
    agree, disagree = side * student > 0, side * student < 0
    assert agree.any() and disagree.any()  # noqa: PT018
    np.testing.assert_array_equal(columns.strength[agree], np.minimum(base[agree] * 1.2, 1.0))
    np.testing.assert_array_equal(columns.strength[disagree], base[disagree] * 0.5)
    np.testing.assert_array_equal(columns.strength[side * student == 0], base[side * student == 0])
    np.testing.assert_array_equal(
        columns.prediction_source, np.where(side * student != 0, STUDENT_MODEL, BASELINE_STRATEGY)
    )


def test_a_factor_of_one_is_not_the_students_work() -> None:
    """With both factors 1 the source stays the baseline and every column equals a silent student's."""
    rows = minute_rows(9)
    plain = replace(INTRADAY, agree_factor=1.0, disagree_factor=1.0)
    told, untold = run_strategy(rows, students(1, len(rows)), plain), run_strategy(rows, silent(rows), plain)
    for name in COLUMNS:
        assert np.array_equal(getattr(told, name), getattr(untold, name)), name


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_student_never_originates_or_reverses(seed: int) -> None:
    """Whatever the student says, a position is entered only on the rule's own side of that bar."""
    rows = minute_rows(seed, sessions=5)
    columns = run_strategy(rows, students(seed, len(rows)), INTRADAY)
    side = np.sign(columns.target)
    entered = (side != 0) & (side != np.concatenate([[0.0], side[:-1]]))
    assert np.array_equal(side[entered], columns.baseline_direction[entered].astype(float))
    quiet = run_strategy(rows, silent(rows), INTRADAY)
    assert np.array_equal(columns.baseline_direction, quiet.baseline_direction)


@pytest.mark.parametrize("factor", ["agree_factor", "disagree_factor"])
def test_each_factor_alone_changes_targets(factor: str) -> None:
    """With the other factor at 1, this one still moves entries or exits."""
    rows = minute_rows(10)
    other = "disagree_factor" if factor == "agree_factor" else "agree_factor"
    alone: dict[str, Any] = {other: 1.0}
    columns = run_strategy(rows, students(11, len(rows)), replace(INTRADAY, **alone))
    quiet = run_strategy(rows, silent(rows), INTRADAY)
    assert np.any(np.sign(columns.target) != np.sign(quiet.target))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), swing=st.booleans())
def test_a_target_is_fixed_from_entry_to_exit(seed: int, swing: bool) -> None:
    """While the side stays, the target keeps its entry value; every change of side has its reason."""
    rows = daily_rows(seed, 300) if swing else minute_rows(seed, sessions=5)
    columns = run_strategy(rows, students(seed, len(rows)), SWING if swing else INTRADAY)
    target = columns.target
    before = np.concatenate([[0.0], target[:-1]])
    stays = (np.sign(target) == np.sign(before)) & (columns.exit_reason == 0)
    assert np.array_equal(target[stays], before[stays])
    left = (before != 0) & (np.sign(target) != np.sign(before))
    assert np.all(columns.exit_reason[left] != 0)
    assert np.all(before[columns.exit_reason != 0] != 0)
    entered = (target != 0) & ((before == 0) | left)
    assert np.array_equal(np.abs(target[entered]), columns.strength[entered])
    assert np.all(columns.strength[entered] >= 0.5)


def test_intraday_is_flat_before_the_close() -> None:
    """From the bar that ends 20 minutes before the close nothing is wanted, on every session."""
    rows = minute_rows(12)
    columns = run_strategy(rows, silent(rows), INTRADAY)
    closing = rows[:, MINUTE] + rows[:, BAR_MINUTES] >= 355.0
    assert not columns.target[closing].any()
    squared = columns.exit_reason == EXIT_REASON_CODES["square_off"]
    assert squared.any()
    assert np.all(rows[squared, MINUTE] == 350.0)


def test_a_missed_square_off_resets_at_the_next_session() -> None:
    """Where a session breaks off early, the next session's first bar starts flat and says why."""
    rows = minute_rows(13)
    held = run_strategy(rows, silent(rows), INTRADAY).target
    day = rows[:, SESSION]
    at = next(i for i in range(100, len(rows)) if held[i] and rows[i, MINUTE] < 300.0)
    cut = np.delete(rows, np.flatnonzero((day == day[at]) & (np.arange(len(rows)) > at)), axis=0)
    columns = run_strategy(cut, silent(cut), INTRADAY)
    assert columns.target[at] != 0.0
    assert columns.exit_reason[at + 1] == EXIT_REASON_CODES["missed_square_off"]


def test_swing_holds_no_longer_than_its_limit() -> None:
    """In an endless rise the position is given up after ten sessions and taken again."""
    close = 100.0 * 1.01 ** np.arange(90) * (1.0 + 0.004 * (-1.0) ** np.arange(90))
    rows = _rows(close, session_bars=1, bar_minutes=375.0)
    endless = replace(SWING, rsi_high=100.0)
    columns = run_strategy(rows, silent(rows), endless)
    exits = np.flatnonzero(columns.exit_reason == EXIT_REASON_CODES["max_holding"])
    assert exits[0] - np.flatnonzero(columns.target)[0] == 10
    assert np.all(np.diff(exits) == 11)
    unlimited = run_strategy(rows, silent(rows), replace(endless, max_holding_sessions=0))
    assert not unlimited.exit_reason.any()


def test_swing_is_long_or_flat_unless_shorts_are_allowed() -> None:
    """Without shorts an opposite entry signal only closes; with them it turns the position at once."""
    rows = daily_rows(14)
    flat_only = run_strategy(rows, silent(rows), SWING)
    both = run_strategy(rows, silent(rows), replace(SWING, allow_short=True))
    assert flat_only.target.min() == 0.0
    assert both.target.min() < 0.0 < both.target.max()


def test_an_opposite_entry_turns_the_position_at_once() -> None:
    """A crash inside an uptrend: with a low exit bar the side changes from one bar to the next."""
    close = np.concatenate([100.0 * 1.01 ** np.arange(60), 181.0 * 0.9 ** np.arange(1, 15)])
    rows = _rows(close, session_bars=1, bar_minutes=375.0)
    never_leave = replace(
        SWING, rsi_high=100.0, rsi_low=0.0, max_holding_sessions=0, exit_strength=-1.0, allow_short=True
    )
    columns = run_strategy(rows, silent(rows), never_leave)
    turned = np.flatnonzero(columns.exit_reason == EXIT_REASON_CODES["opposite_signal"])
    assert len(turned) == 1
    assert columns.target[turned[0] - 1] > 0.0 > columns.target[turned[0]]
    long_only = run_strategy(rows, silent(rows), replace(never_leave, allow_short=False))
    assert long_only.exit_reason[turned[0]] == EXIT_REASON_CODES["opposite_signal"]
    assert long_only.target[turned[0]] == 0.0


def test_a_mirrored_price_gives_mirrored_positions() -> None:
    """Reflecting the price turns every LONG into a SHORT of the same strength."""
    rows = minute_rows(15)
    mirror = rows.copy()
    for column, source in ((0, 0), (HIGH, LOW), (LOW, HIGH), (CLOSE, CLOSE)):
        mirror[:, column] = 400.0 - rows[:, source]
    student = students(16, len(rows))
    up, down = run_strategy(rows, student, INTRADAY), run_strategy(mirror, -student, INTRADAY)
    np.testing.assert_array_equal(up.baseline_direction, -down.baseline_direction)
    np.testing.assert_allclose(up.target, -down.target, atol=1e-9)
    assert np.array_equal(up.exit_reason, down.exit_reason)


def test_bars_before_the_start_only_warm() -> None:
    """Nothing is wanted before the start; the rule's own columns do not depend on it."""
    rows = minute_rows(17)
    student = students(18, len(rows))
    whole, late = run_strategy(rows, student, INTRADAY), run_strategy(rows, student, INTRADAY, start=400)
    assert whole.target[:400].any()
    assert not late.target[:400].any()
    assert not late.exit_reason[:400].any()
    assert np.array_equal(whole.baseline_strength, late.baseline_strength)
    assert late.target[400:].any()


def test_a_price_that_is_no_number_is_flat_for_one_bar() -> None:
    """A broken bar gives FLAT and leaves the indicators as they were; the next bar speaks again."""
    rows = minute_rows(19)
    whole = run_strategy(np.delete(rows, 200, axis=0), silent(rows)[1:], INTRADAY)
    rows[200, CLOSE] = np.nan
    broken = run_strategy(rows, silent(rows), INTRADAY)
    assert broken.baseline_direction[200] == FLAT
    assert broken.target[200] == 0.0
    assert np.array_equal(broken.baseline_strength[201:], whole.baseline_strength[200:])


def test_rule_calls() -> None:
    """The rule's call is its direction from the entry strength on, else FLAT."""
    direction = np.array([1, 1, -1, -1, 0], dtype=np.int8)
    strength = np.array([0.5, 0.4999, 0.7, 0.3, 0.9])
    calls = rule_calls(direction, strength, 0.5)
    assert calls.dtype == np.int8
    assert calls.tolist() == [1, 0, -1, 0, 0]


@pytest.mark.parametrize(
    ("name", "value", "strategy"),
    [
        ("strategy_ema_fast", 5, "swing"),
        ("strategy_ema_slow", 40, "swing"),
        ("strategy_atr_bars", 5, "swing"),
        ("strategy_rsi_bars", 5, "swing"),
        ("strategy_rsi_high", 60.0, "swing"),
        ("strategy_rsi_low", 40.0, "intraday"),
        ("strategy_entry_strength", 0.8, "swing"),
        ("strategy_exit_strength", 0.45, "swing"),
        ("square_off_minutes", 60, "intraday"),
        ("swing_max_holding_days", 3, "swing"),
        ("swing_allow_short", True, "swing"),
    ],
)
def test_every_setting_of_the_rule_changes_targets(name: str, value: Any, strategy: str) -> None:
    """Each setting reaches the step."""
    rows = daily_rows(20) if strategy == "swing" else minute_rows(21)
    usual = StrategyParameters.from_settings(Settings(_env_file=None), strategy)
    changed = StrategyParameters.from_settings(Settings(_env_file=None, **{name: value}), strategy)
    before, after = (run_strategy(rows, silent(rows), p).target for p in (usual, changed))
    assert not np.array_equal(before, after)


def test_parameters_say_what_they_are() -> None:
    """Described for the record with the rule's constants; an unknown strategy or a short column is refused."""
    described = INTRADAY.describe()
    assert described["rule_min_strength"] == 0.25
    assert described["agree_factor"] == 1.2
    assert len(INTRADAY.values) == len(StrategyParameters.__dataclass_fields__)
    with pytest.raises(UsageError, match="intraday or swing"):
        StrategyParameters("scalping")
    with pytest.raises(UsageError, match="student directions"):
        run_strategy(minute_rows(1), np.zeros(3, dtype=np.int8), INTRADAY)


@pytest.mark.slow
def test_an_edited_indicator_is_not_served_from_the_cache(tmp_path: Path) -> None:
    """numba's cache does not see an edit in another file; the step must be compiled again all the same."""
    package = tmp_path / "sqkit"
    shutil.copytree(Path(sqkit.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    script = (
        "import numpy as np\n"
        "from sqkit.strategy import StrategyParameters, run_strategy\n"
        "from sqkit.strategystep import strategy_step\n"
        "rows = np.ones((60, 9)); rows[:, 1] = 3 + np.arange(60); rows[:, 2] = 1; rows[:, 3] = 2 + np.sin(np.arange(60))\n"
        "columns = run_strategy(rows, np.zeros(60, dtype=np.int8), StrategyParameters('swing'))\n"
        "print(columns.baseline_strength.sum(), sum(strategy_step().stats.cache_hits.values()))\n"
    )

    def run() -> list[str]:
        environment = dict(os.environ, PYTHONPATH=str(tmp_path), NUMBA_CACHE_DIR=str(tmp_path / "cache"))
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.split()

    first, second = run(), run()
    assert second == [first[0], "1"]
    indicators = package / "indicators.py"
    text = indicators.read_text()
    edited = text.replace("(2.0 / (period + 1.0))", "(2.5 / (period + 1.0))")
    assert edited != text
    indicators.write_text(edited)
    third = run()
    assert third[1] == "0"
    assert third[0] != first[0]
