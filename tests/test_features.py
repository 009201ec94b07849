"""Feature sets: stream and batch agree to the bit, warm-up, degenerate bars, digests, users' own sets."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqkit import features as registry
from sqkit.bars import CLOSE, HIGH, LOW, OPEN, SESSION, VOLUME
from sqkit.errors import FeatureSetMismatch, FeatureSetRefused, FeatureSetUnknown, UsageError
from sqkit.features import (
    FeatureSet,
    FeatureStream,
    feature_matrix,
    feature_set,
    feature_sets,
    get_feature_set,
    student_set,
    teacher_set,
)
from sqkit.fingerprint import fingerprint
from sqkit.indicators import kernel
from sqkit.steptrial import try_step

SHIPPED = ("intraday_v1", "swing_v1", "intraday_teacher_v1", "swing_teacher_v1")
ROOT = Path(__file__).resolve().parents[1]


def made_bars(seed: int, bars: int, *, daily: bool = False) -> np.ndarray:
    """Random bars on a tick of 0.05 with missing minutes, null volumes and bars without range."""
    random = np.random.default_rng(seed)
    ticks = 2000 + np.cumsum(random.integers(-3, 4, bars))
    close = 0.05 * np.maximum(ticks, 2)
    rows = np.empty((bars, 9))
    rows[:, CLOSE] = close
    rows[:, OPEN] = np.concatenate((close[:1], close[:-1])) + 0.05 * random.integers(0, 2, bars)
    rows[:, HIGH] = np.maximum(rows[:, OPEN], close) + 0.05 * random.integers(0, 3, bars)
    rows[:, LOW] = np.minimum(rows[:, OPEN], close) - 0.05 * random.integers(0, 2, bars)
    rows[:, VOLUME] = np.where(random.random(bars) < 0.05, np.nan, random.integers(0, 500, bars))
    if daily:
        rows[:, SESSION] = 15_000 + np.cumsum(random.integers(1, 4, bars))
        rows[:, 6:] = (0.0, 375.0, 375.0)
        return rows
    minutes = np.flatnonzero(random.random(3 * bars) < 0.6)[:bars]
    rows = rows[: len(minutes)]
    rows[:, SESSION] = 15_000 + minutes // 60
    rows[:, 6] = minutes % 60
    rows[:, 7:] = (60.0, 1.0)
    return rows


def streamed(features: FeatureSet, rows: np.ndarray) -> np.ndarray:
    """Every row through `FeatureStream`, one at a time."""
    stream = FeatureStream(features)
    return np.array([stream.update(row).copy() for row in rows]).reshape(len(rows), len(features.columns))


def same_bits(first: np.ndarray, second: np.ndarray) -> bool:
    """Equal shape and equal bits."""
    return first.shape == second.shape and first.tobytes() == second.tobytes()


@pytest.fixture
def own_sets(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sets registered by a test are gone after it."""
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    return


@pytest.mark.parametrize("strategy", ["intraday", "swing"])
def test_shipped_sets_have_the_promised_columns(strategy: str) -> None:
    """A student has at least 16 columns; its teacher has them first and at least 12 more."""
    student, teacher = student_set(strategy), teacher_set(strategy)
    assert len(student.columns) >= 16
    assert teacher.columns[: len(student.columns)] == student.columns
    assert len(teacher.columns) >= len(student.columns) + 12
    for features in (student, teacher):
        assert len(set(features.columns)) == len(features.columns)
        assert features.strategy == strategy
        assert features.name in feature_sets()


@pytest.mark.parametrize("name", SHIPPED)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), bars=st.integers(0, 420), cut=st.integers(0, 420))
def test_stream_batch_and_prefix_give_the_same_bits(name: str, seed: int, bars: int, cut: int) -> None:
    """Stream equals batch, and features of a prefix equal the prefix of the features, to the bit."""
    features = get_feature_set(name)
    rows = made_bars(seed, bars, daily=features.strategy == "swing")
    whole = feature_matrix(features, rows)
    assert same_bits(whole, streamed(features, rows))
    assert same_bits(whole[:cut], feature_matrix(features, rows[:cut]))


@pytest.mark.parametrize("name", SHIPPED)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_warm_up_is_a_bar_count(name: str, seed: int) -> None:
    """All NaN before the bar number warmup_bars, all finite from it on, whatever gaps and nulls there are."""
    features = get_feature_set(name)
    values = feature_matrix(features, made_bars(seed, 400, daily=features.strategy == "swing"))
    assert np.isnan(values[: features.warmup_bars - 1]).all()
    assert np.isfinite(values[features.warmup_bars - 1 :]).all()


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_steps_pass_the_trial_of_users_steps(name: str) -> None:
    """They too write every column, stay inside their arrays and depend on state and bar alone."""
    made = get_feature_set(name)
    checked = registry.compile_kernel(registry._STEP, made.function, boundscheck=True)
    try_step(made.name, made.columns, made.warmup_bars, made.state_size, made.strategy, made.step, checked)


@pytest.mark.parametrize("strategy", ["intraday", "swing"])
def test_teacher_sees_the_students_bits(strategy: str) -> None:
    """The columns both have are bit-identical once the teacher is warm too."""
    student, teacher = student_set(strategy), teacher_set(strategy)
    rows = made_bars(3, 700, daily=strategy == "swing")
    shared = feature_matrix(teacher, rows)[teacher.warmup_bars - 1 :, : len(student.columns)]
    assert same_bits(np.ascontiguousarray(shared), feature_matrix(student, rows)[teacher.warmup_bars - 1 :])


@pytest.mark.parametrize("name", SHIPPED)
def test_no_column_knows_the_price_level(name: str) -> None:
    """Prices times 40 and volumes times 7 leave every feature where it was: symbols can be mixed."""
    features = get_feature_set(name)
    rows = made_bars(11, 600, daily=features.strategy == "swing")
    scaled = rows.copy()
    scaled[:, :VOLUME] *= 40.0
    scaled[:, VOLUME] *= 7.0
    np.testing.assert_allclose(
        feature_matrix(features, scaled), feature_matrix(features, rows), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("name", SHIPPED)
def test_every_column_varies(name: str) -> None:
    """No column is constant on ordinary bars: a slot that is never filled would be."""
    features = get_feature_set(name)
    rows = np.nan_to_num(made_bars(5, 900, daily=features.strategy == "swing"))
    values = feature_matrix(features, rows)
    assert (values[features.warmup_bars :].std(axis=0) > 1e-6).all()


@pytest.mark.parametrize("name", SHIPPED)
def test_prices_that_never_move_give_zero(name: str) -> None:
    """One price for ever: every column about movement is 0, RSI reads its neutral 50, all is finite."""
    features = get_feature_set(name)
    rows = made_bars(1, 500, daily=features.strategy == "swing")
    rows[:, :VOLUME] = 123.45
    rows[:, VOLUME] = 10.0
    values = pd.DataFrame(feature_matrix(features, rows)[features.warmup_bars :], columns=features.columns)
    neutral = values.filter(regex="^rsi_")
    assert (neutral == 50.0).all(axis=None)
    moving = values.drop(columns=[*neutral, *values.filter(regex="^session_(sine|cosine)$|^weekday$")])
    assert (moving.abs() < 1e-4).all(axis=None)  # rounding in VWAP's sums is all that may be left
    assert (moving.drop(columns="vwap_distance", errors="ignore") == 0.0).all(axis=None)


def test_a_bar_without_range_stands_in_the_middle() -> None:
    """high == low gives range position and range size 0, while the other bars keep theirs."""
    features = student_set("swing")
    rows = made_bars(2, 300, daily=True)
    rows[250, :VOLUME] = rows[250, CLOSE]
    values = dict(zip(features.columns, feature_matrix(features, rows)[250], strict=True))
    assert values["range_position"] == 0.0
    assert values["range_size"] == 0.0
    assert values["return_1"] != 0.0


def test_volume_features_are_zero_without_volume() -> None:
    """Exactly 0 where volume is null or its window has no variance; VWAP distance 0 with no volume at all."""
    features = teacher_set("intraday")
    columns = [features.columns.index(name) for name in ("volume_z_20", "volume_z_60", "vwap_distance")]
    rows = made_bars(4, 400)
    rows[:, VOLUME] = np.nan
    assert (feature_matrix(features, rows)[200:, columns] == 0.0).all()
    rows[:, VOLUME] = 0.0
    assert (feature_matrix(features, rows)[200:, columns] == 0.0).all()
    rows[:, VOLUME] = 700.0
    constant = feature_matrix(features, rows)[200:, columns]
    assert (constant[:, :2] == 0.0).all()
    assert (constant[:, 2] != 0.0).any()
    rows[:, VOLUME] = np.arange(400.0)
    rows[300, VOLUME] = np.nan
    one_null = feature_matrix(features, rows)[:, columns[0]]
    assert (one_null[300:320] == 0.0).all()
    assert (one_null[[299, 320]] > 0.0).all()


def test_session_features_start_anew_with_the_session_date() -> None:
    """The VWAP forgets the day before, whatever its volume was; the gap is open over the last close."""
    features = student_set("intraday")
    rows = made_bars(8, 300)
    rows[:, VOLUME] = 100.0
    other = rows.copy()
    first = int(np.flatnonzero(rows[:, SESSION] == rows[250, SESSION])[0])
    other[:first, VOLUME] = np.arange(first) * 1e4
    vwap, gap = features.columns.index("vwap_distance"), features.columns.index("gap")
    one, two = feature_matrix(features, rows)[:, vwap], feature_matrix(features, other)[:, vwap]
    assert one[first - 1] != two[first - 1]
    assert same_bits(one[first:].copy(), two[first:].copy())
    rows[first, OPEN] = rows[first - 1, CLOSE]
    assert feature_matrix(features, rows)[first, gap] == 0.0


def test_time_of_session_tells_open_from_close() -> None:
    """Sine and cosine lie on the unit circle, and the cosine falls all through the session."""
    features = student_set("intraday")
    rows = made_bars(9, 400)
    values = feature_matrix(features, rows)[features.warmup_bars :]
    sine = values[:, features.columns.index("session_sine")]
    cosine = values[:, features.columns.index("session_cosine")]
    np.testing.assert_allclose(sine**2 + cosine**2, 1.0, rtol=1e-12)
    same_session = np.diff(rows[features.warmup_bars :, SESSION]) == 0
    assert (np.diff(cosine)[same_session] < 0.0).all()


@pytest.mark.parametrize("broken", [np.nan, 0.0, -1.0])
def test_a_broken_price_is_passed_on(broken: float) -> None:
    """A close that is no positive number after warm-up makes its row non-finite instead of being hidden."""
    features = student_set("swing")
    rows = made_bars(6, 300, daily=True)
    rows[200, CLOSE] = broken
    values = feature_matrix(features, rows)
    assert np.isfinite(values[199]).all()
    assert not np.isfinite(values[200]).all()
    assert same_bits(values, streamed(features, rows))


def test_a_snapshot_goes_on_to_the_bit() -> None:
    """A restored stream continues exactly; another set's snapshot and a damaged one are refused."""
    features = student_set("intraday")
    rows = made_bars(12, 500)
    whole = feature_matrix(features, rows)
    stream = FeatureStream(features)
    for row in rows[:333]:
        stream.update(row)
    kept = stream.snapshot()
    restarted = FeatureStream(features)
    restarted.restore(kept)
    assert restarted.bars_seen == 333
    assert restarted.warm
    assert same_bits(np.array([restarted.update(row).copy() for row in rows[333:]]), whole[333:])
    for wrong in (kept[:-8], b"", FeatureStream(student_set("swing")).snapshot()):
        with pytest.raises(FeatureSetMismatch, match="snapshot"):
            restarted.restore(wrong)


def test_rows_of_any_memory_layout_are_taken() -> None:
    """Read-only, Fortran-ordered and integer rows give the same features; a wrong width is refused."""
    features = student_set("swing")
    rows = np.round(made_bars(13, 200, daily=True))
    rows[:, VOLUME] = 5.0
    plain = feature_matrix(features, rows)
    frozen = rows.copy()
    frozen.flags.writeable = False
    for other in (frozen, np.asfortranarray(rows), rows.astype(np.int64)):
        assert same_bits(feature_matrix(features, other), plain)
        assert same_bits(streamed(features, other), plain)
    with pytest.raises(UsageError, match=r"\(n, 9\)"):
        feature_matrix(features, rows[:, :8])


def test_unknown_names_say_what_there_is() -> None:
    """An unknown set suggests the nearest name, an unknown strategy the two that exist."""
    with pytest.raises(FeatureSetUnknown, match="did you mean intraday_v1"):
        get_feature_set("intraday_v11")
    with pytest.raises(UsageError, match="intraday or swing"):
        student_set("scalping")


def test_a_set_travels_to_another_process_by_name() -> None:
    """Pickling keeps the name, so a worker gets its own compiled step."""
    features = student_set("swing")
    assert pickle.loads(pickle.dumps(features)) is features


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "strategy"),
    [
        ("index_minute_2012_2021/NIFTY", "intraday"),
        ("minute_2021/RELIANCE", "intraday"),
        ("daily_adjusted_2008_2021/RELIANCE", "swing"),
    ],
)
def test_real_bars_give_the_same_bits_in_stream_and_batch(
    shared_data: Path, place: str, strategy: str
) -> None:
    """On real bars with outages and null or meaningless volume: same bits, and finite once warm."""
    frame = pd.read_parquet(shared_data / "nse" / f"{place}.parquet").tail(40_000)
    local = frame["timestamp"].dt.tz_convert("Asia/Kolkata").dt.tz_localize(None)
    rows = np.empty((len(frame), 9))
    for column, name in enumerate(("open", "high", "low", "close", "volume")):
        rows[:, column] = frame[name].astype("float64")
    rows[:, SESSION] = (local.dt.normalize() - pd.Timestamp(0)).dt.days
    rows[:, 6] = local.dt.hour * 60 + local.dt.minute - 555 if strategy == "intraday" else 0
    rows[:, 7:] = (375.0, 1.0 if strategy == "intraday" else 375.0)
    for features in (student_set(strategy), teacher_set(strategy)):
        values = feature_matrix(features, rows)
        assert same_bits(values, streamed(features, rows))
        assert np.isfinite(values[features.warmup_bars - 1 :]).all()


# Users' own sets

FACTOR = 0.5
WEIGHTS = (1.0, 2.0)
TABLE = np.array([1.0, 2.0])
SOMETHING = {"no": "digest"}


@kernel
def weighed(value: float) -> float:
    """A callee."""
    return value * FACTOR * WEIGHTS[1] + TABLE[0]


def momentum(state: np.ndarray, row: np.ndarray, out: np.ndarray) -> None:
    """Move since the last bar, and a function of it; warm from the second bar."""
    if state[1] == 0.0:
        out[:] = np.nan
    else:
        out[0] = row[3] / state[0] - 1.0
        out[1] = weighed(out[0])
    state[0] = row[3]
    state[1] = 1.0


def register(step: Callable[..., None], **changes: object) -> FeatureSet:
    """Register a step under ordinary values, some of them changed."""
    values = {"name": "own", "columns": ("a", "b"), "warmup_bars": 2, "state_size": 2, "strategy": "swing"}
    return feature_set(**(values | changes))(step)  # type: ignore[arg-type]


def test_a_users_set_works_like_a_shipped_one(own_sets: None) -> None:
    """It is found by name, stream and batch agree to the bit, registering it again gives the same set."""
    made = register(momentum)
    assert get_feature_set("own") is made
    rows = made_bars(14, 50, daily=True)
    values = feature_matrix(made, rows)
    assert same_bits(values, streamed(made, rows))
    np.testing.assert_allclose(values[1:, 0], rows[1:, CLOSE] / rows[:-1, CLOSE] - 1.0, rtol=1e-12)
    assert register(momentum) is made


@kernel
def beyond(values: np.ndarray, place: int) -> None:
    """Write wherever it is told to."""
    values[place] = 1.0


def writes_past_out(state: np.ndarray, row: np.ndarray, out: np.ndarray) -> None:
    momentum_like(state, row, out)
    out[2] = 0.0


def writes_past_state(state: np.ndarray, row: np.ndarray, out: np.ndarray) -> None:
    momentum_like(state, row, out)
    state[2] = 0.0


def writes_past_state_in_a_callee(state: np.ndarray, row: np.ndarray, out: np.ndarray) -> None:
    momentum_like(state, row, out)
    beyond(state, 7)


def reads_the_next_bar(state: np.ndarray, row: np.ndarray, out: np.ndarray) -> None:
    momentum_like(state, row, out)
    out[0] += row[9]


def leaves_a_column(state: np.ndarray, row: np.ndarray, out: np.ndarray) -> None:
    momentum_like(state, row, out)
    out[0] = out[0] + 0.0


def forgets_a_column_sometimes(state: np.ndarray, row: np.ndarray, out: np.ndarray) -> None:
    before = out[1]
    momentum_like(state, row, out)
    if row[3] > row[0]:
        out[1] = before


def throws_dice(state: np.ndarray, row: np.ndarray, out: np.ndarray) -> None:
    momentum_like(state, row, out)
    out[1] += np.random.random()  # noqa: NPY002


def is_early(state: np.ndarray, row: np.ndarray, out: np.ndarray) -> None:
    out[:] = row[3]


def is_late(state: np.ndarray, row: np.ndarray, out: np.ndarray) -> None:
    state[0] += 1.0
    out[:] = np.nan if state[0] < 5.0 else 1.0


def divides_by_nothing(state: np.ndarray, row: np.ndarray, out: np.ndarray) -> None:
    momentum_like(state, row, out)
    out[1] /= row[1] - row[2]


def raises(state: np.ndarray, row: np.ndarray, out: np.ndarray) -> None:
    raise ValueError("no thanks")


def changes_the_bar(state: np.ndarray, row: np.ndarray, out: np.ndarray) -> None:
    momentum_like(state, row, out)
    row[3] = 1.0


def does_not_compile(state: np.ndarray, row: np.ndarray, out: np.ndarray) -> None:
    out[0] = row.no_such_method()


@kernel
def momentum_like(state: np.ndarray, row: np.ndarray, out: np.ndarray) -> None:
    """A correct step to spoil."""
    if state[1] == 0.0:
        out[0] = np.nan
        out[1] = np.nan
    else:
        out[0] = row[3] / state[0] - 1.0
        out[1] = out[0]
    state[0] = row[3]
    state[1] = 1.0


@pytest.mark.parametrize(
    ("step", "changes", "says"),
    [
        (writes_past_out, {}, "outside state .* or out"),
        (writes_past_state, {}, "outside state"),
        (writes_past_state_in_a_callee, {}, "writes outside state"),
        (reads_the_next_bar, {}, "outside"),
        (momentum, {"columns": ("a",)}, "outside"),
        (leaves_a_column, {"columns": ("a", "b", "c")}, "column c is never written"),
        (forgets_a_column_sometimes, {}, "not the same twice"),
        (throws_dice, {}, "not the same twice"),
        (is_early, {}, "before its warm-up"),
        (is_late, {}, "raise warmup_bars"),
        (divides_by_nothing, {}, "not finite at bar 17"),
        (raises, {}, "ValueError: no thanks"),
        (changes_the_bar, {}, "changed by the step"),
        (does_not_compile, {}, "numba cannot compile the step"),
        (momentum, {"name": "Own"}, "lower-case"),
        (momentum, {"columns": ("a", "a")}, "each once"),
        (momentum, {"columns": ()}, "each once"),
        (momentum, {"warmup_bars": 0}, "at least 1"),
        (momentum, {"strategy": "scalping"}, "intraday or swing"),
        (momentum, {"name": "swing_v1"}, "another set has this name"),
    ],
)
def test_a_set_that_breaks_the_contract_is_refused(
    own_sets: None, step: Callable[..., None], changes: dict[str, object], says: str
) -> None:
    """The refusal names the set and the fault in one line, and nothing is registered."""
    before = feature_sets()
    with pytest.raises(FeatureSetRefused, match=says) as refusal:
        register(step, **changes)
    assert "\n" not in refusal.value.message
    assert feature_sets() == before


def test_a_changed_set_needs_a_new_name(own_sets: None) -> None:
    """The same name with another warm-up is a clash."""
    register(momentum)
    with pytest.raises(FeatureSetRefused, match="own_2"):
        register(momentum, warmup_bars=3)


def test_a_step_that_raises_live_raises_out_of_stream_and_batch(own_sets: None) -> None:
    """An exception on an unusual bar reaches the caller, who can send the symbol to its baseline."""

    def refuses_high_prices(state: np.ndarray, row: np.ndarray, out: np.ndarray) -> None:
        if row[3] > 1e6:
            raise ValueError("too high")
        out[0] = row[3]
        out[1] = row[3]

    made = register(refuses_high_prices, warmup_bars=1)
    rows = made_bars(1, 10, daily=True)
    rows[5, CLOSE] = 2e6
    with pytest.raises(ValueError, match="too high"):
        feature_matrix(made, rows)
    with pytest.raises(ValueError, match="too high"):
        streamed(made, rows)


# Digests

SOURCE = '''
import math
from sqkit.indicators import kernel
from sqkit.steptrial import try_step

SHIFT = {shift}
TABLE = ({table}, 2.0)

@kernel
def inner(value):
    return {inner}

@kernel
def outer(value):
    """{words}"""
    return inner(value) + SHIFT

def step(state, row, out):
    {comment}
    out[0] = outer(row[3]) * {literal}
'''
PLAIN = {
    "shift": "3",
    "table": "0.5",
    "inner": "value * TABLE[0] + math.sqrt(abs(value))",
    "words": "Adds.",
    "comment": "# a remark",
    "literal": "2.0",
}


def digest_of(folder: Path, **changes: str) -> str:
    """Digest of the step in a file of its own."""
    name = f"made_{next(_numbers)}"
    place = folder / f"{name}.py"
    place.write_text(SOURCE.format(**(PLAIN | changes)))
    scope: dict[str, object] = {"__name__": name}
    exec(compile(place.read_text(), str(place), "exec"), scope)
    step = scope["step"]
    assert callable(step)
    return fingerprint(step)


_numbers = itertools.count()


@pytest.mark.parametrize(
    "changes",
    [
        {"shift": "4"},
        {"shift": "3.0"},
        {"table": "0.25"},
        {"inner": "value * TABLE[1] + math.sqrt(abs(value))"},
        {"inner": "value * TABLE[0] + math.log(abs(value))"},
        {"literal": "2.5"},
    ],
)
def test_the_digest_follows_code_callees_and_constants(tmp_path: Path, changes: dict[str, str]) -> None:
    """Editing the step, a function two calls away, or a constant it freezes changes the digest."""
    assert digest_of(tmp_path, **changes) != digest_of(tmp_path)


def test_the_digest_ignores_words_and_layout(tmp_path: Path) -> None:
    """Docstrings, comments and spacing are not part of what a step does."""
    told = digest_of(tmp_path, words="Something else.", comment="# another remark", literal="(2.0  )")
    assert told == digest_of(tmp_path)


def test_the_digest_is_the_same_under_every_python(tmp_path: Path) -> None:
    """The value that Python 3.11, 3.12 and 3.13 gave for this source."""
    assert digest_of(tmp_path) == "3b26cf739f6bafd2409587ff5e85ad2974d3e2fe5a393a07845f1dac95e86d9b"


def test_names_and_sizes_enter_a_sets_digest() -> None:
    """Sets that differ in a column's name, warm-up or state only have different digests."""
    made = [
        FeatureSet("own", columns, warmup, size, "swing", momentum)
        for columns in (("a", "b"), ("b", "a"))
        for warmup in (2, 3)
        for size in (2, 3)
    ]
    assert len({features.digest for features in made}) == len(made)
    assert len({get_feature_set(name).digest for name in SHIPPED}) == len(SHIPPED)


def test_what_no_digest_can_cover_is_refused() -> None:
    """A global that is neither number, tuple, array nor function, and a lambda, are refused."""

    def looks_up(state: np.ndarray, row: np.ndarray, out: np.ndarray) -> None:
        out[0] = SOMETHING["no"]

    with pytest.raises(FeatureSetRefused, match="SOMETHING: a dict"):
        fingerprint(looks_up)
    with pytest.raises(FeatureSetRefused, match="with def"):
        fingerprint(lambda state, row, out: None)


# The cache on disk

PROGRAM = """
import json, logging
logging.basicConfig(format="%(message)s")
import numpy as np
from sqkit import features
teacher = features.teacher_set("intraday")
rows = np.random.default_rng(0).uniform(90.0, 110.0, (400, 9))
values = features.feature_matrix(teacher, rows)
hits = [sum(step.stats.cache_hits.values()) for step in (teacher.step, features._batch_loop())]
print(json.dumps({"hits": hits, "values": values[120:].tobytes().hex()}))
"""


def run_fresh(**environment: str) -> tuple[dict[str, object], str]:
    """The program in a process of its own: what it printed, and its standard error."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        env=os.environ | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout), done.stderr


@pytest.mark.slow
def test_a_second_process_takes_the_compiled_code_from_disk(tmp_path: Path) -> None:
    """The first start writes the cache, the second reads it and writes nothing; damage only costs time."""
    first, _ = run_fresh(NUMBA_CACHE_DIR=str(tmp_path))
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb?")}
    second, said = run_fresh(NUMBA_CACHE_DIR=str(tmp_path))
    assert first["hits"] == [0, 0]
    assert second["hits"] == [1, 1]
    assert said == ""
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb?")} == written
    for path in written:
        path.write_bytes(path.read_bytes()[:100])
    third, said = run_fresh(NUMBA_CACHE_DIR=str(tmp_path))
    assert "NUMBA_CACHE_DIR" in said
    assert first["values"] == second["values"] == third["values"]


@pytest.mark.slow
def test_no_writable_cache_folder_only_costs_time() -> None:
    """Where no folder can take the cache, features are compiled without it and the log says so."""
    answer, said = run_fresh(
        NUMBA_CACHE_DIR="/proc/no/such/folder", NUMBA_CACHE_LOCATOR_CLASSES="UserProvidedCacheLocator"
    )
    assert answer["hits"] == [0, 0]
    assert "not cached" in said


@pytest.mark.slow
def test_the_shipped_kernels_stay_inside_their_arrays(tmp_path: Path) -> None:
    """With numba's bounds checks forced on everywhere, also inside kernels, the values are the same."""
    plain, _ = run_fresh(NUMBA_CACHE_DIR=str(tmp_path / "plain"))
    checked, _ = run_fresh(NUMBA_CACHE_DIR=str(tmp_path / "checked"), NUMBA_BOUNDSCHECK="1")
    assert checked["values"] == plain["values"]
