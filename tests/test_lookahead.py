"""Look-ahead: every kind of it is found, named and dated; honest columns and the shipped sets pass."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.signal import fftconvolve, filtfilt

from sqkit import features as registry
from sqkit.bars import BarArrays
from sqkit.errors import (
    BarsNotFound,
    FeatureSetRefused,
    FeatureSetUnknown,
    UsageError,
    WindowTooShort,
)
from sqkit.features import FeatureSet, feature_matrix, feature_set, get_feature_set
from sqkit.files import canonical_json
from sqkit.research.lookahead import (
    PREDICTION_COLUMNS,
    LookAheadFinding,
    LookAheadReport,
    feature_look_ahead,
    find_look_ahead,
    prediction_look_ahead,
)
from sqkit.research.lookahead_job import lookahead_job, lookahead_lines
from sqkit.research.planted import planted_market, write_market
from sqkit.student import StudentModel
from tests.market import arrays_of
from tests.small_student import write_student
from tests.synthetic_bars import synthetic_bars

Columns = dict[str, Callable[[pd.DataFrame], Any]]
MINUTES = planted_market(3, 1, 14, "1m", 0.3)["PLANT01"]
DAYS = planted_market(3, 1, 900, "1d", 0.3)["PLANT01"]
SESSION = 390


def day(frame: pd.DataFrame) -> pd.Series:
    """Calendar day of every bar; a session of New York is one day in UTC as well."""
    return frame["timestamp"].dt.floor("D")


def bucket(frame: pd.DataFrame, length: str, how: str) -> np.ndarray:
    """The careless resample: a bucket's value under its first instant, then filled forward."""
    close = pd.Series(frame["close"].to_numpy(), index=pd.DatetimeIndex(frame["timestamp"]))
    return close.resample(length).agg(how).reindex(close.index, method="ffill").to_numpy()


def causal_fft_mean(frame: pd.DataFrame) -> np.ndarray:
    """An honest mean of 20 bars, every value of which carries rounding from the whole series."""
    return fftconvolve(frame["close"].to_numpy(), np.ones(20) / 20.0)[: len(frame)]


def previous_day_high(frame: pd.DataFrame) -> pd.Series:
    """The honest daily bucket: the day before."""
    return day(frame).map(frame.groupby(day(frame))["high"].max().shift(1))


HONEST: Columns = {
    "mean_20": lambda f: f.close.rolling(20).mean() / f.close - 1,
    "deviation_20": lambda f: f.close.pct_change().rolling(20).std(),
    "deviation_of_price": lambda f: f.close.rolling(30).std(),
    "skew": lambda f: f.close.pct_change().rolling(60).skew(),
    "ema": lambda f: f.close.ewm(span=26).mean(),
    "ema_deviation": lambda f: f.close.ewm(span=26).std(),
    "expanding_mean": lambda f: f.close.expanding().mean(),
    "expanding_score": lambda f: (f.close - f.close.expanding().mean()) / f.close.expanding().std(),
    "day_high_so_far": lambda f: f.high.groupby(day(f)).cummax(),
    "previous_day_high": previous_day_high,
    "shifted": lambda f: f.close.shift(3) / f.close,
    "volume_share": lambda f: f.volume / f.volume.rolling(50).sum(),
    "place_in_range": lambda f: (f.close - f.low) / (f.high - f.low),
    "fft_mean": causal_fft_mean,
    "above_mean": lambda f: f.close > f.close.rolling(10).mean(),
}

# column, cause, first bar, bars ahead; None where the number is not part of the promise
BIASED: list[tuple[str, Callable[[pd.DataFrame], Any], str, int | None, int | None]] = [
    ("centred_21", lambda f: f.close.rolling(21, center=True).mean(), "centred_window", 10, 10),
    ("centred_10_high", lambda f: f.high.rolling(10, center=True).max(), "centred_window", 5, 4),
    (
        "centred_at_once",
        lambda f: f.close.rolling(11, center=True, min_periods=1).std(),
        "centred_window",
        0,
        5,
    ),
    ("detrended", lambda f: f.close - f.close.rolling(31, center=True).mean(), "centred_window", 15, 15),
    ("pivot", lambda f: f.high == f.high.rolling(11, center=True).max(), "centred_window", None, 5),
    ("next_return", lambda f: f.close.shift(-1) / f.close - 1, "negative_shift", 0, 1),
    ("change_5_ahead", lambda f: f.close.pct_change(5).shift(-5), "negative_shift", 0, 5),
    ("up_in_3", lambda f: (f.close.shift(-3) > f.close).astype(float), "negative_shift", None, 3),
    ("mean_ahead", lambda f: f.close.rolling(10).mean().shift(-5), "negative_shift", 4, 5),
    ("high_ahead", lambda f: f.high.rolling(10).max().shift(-10), "negative_shift", 0, 10),
    ("ema_ahead", lambda f: f.close.ewm(span=10).mean().shift(-3), "negative_shift", 0, 3),
    ("volume_ahead", lambda f: f.volume.shift(-2), "negative_shift", 0, 2),
    ("score", lambda f: (f.close - f.close.mean()) / f.close.std(), "global_statistic", 0, None),
    (
        "min_max",
        lambda f: (f.close - f.close.min()) / (f.close.max() - f.close.min()),
        "global_statistic",
        0,
        None,
    ),
    (
        "score_of_mean",
        lambda f: (f.close.rolling(20).mean() - f.close.mean()) / f.close.std(),
        "global_statistic",
        19,
        None,
    ),
    ("rank", lambda f: f.close.rank(pct=True), "global_statistic", 0, None),
    ("deciles", lambda f: pd.qcut(f.close, 10, labels=False, duplicates="drop"), "global_statistic", 0, None),
    (
        "filled_with_mean",
        lambda f: f.close.rolling(20).mean().fillna(f.close.mean()),
        "global_statistic",
        0,
        None,
    ),
    ("from_the_end", lambda f: np.arange(len(f)) / len(f), "global_statistic", 1, None),
    ("filled", lambda f: f.close.rolling(20).mean().bfill(), "back_fill", 0, 19),
    ("filled_50", lambda f: (f.close.rolling(50).mean() / f.close).bfill(), "back_fill", 0, 49),
]
BIASED_BY_CLOCK: list[tuple[str, Callable[[pd.DataFrame], Any], str, int | None, int | None]] = [
    ("day_high", lambda f: f.high.groupby(day(f)).transform("max"), "resample_label", 0, None),
    ("day_close", lambda f: f.close.groupby(day(f)).transform("last"), "resample_label", 0, None),
    (
        "day_score",
        lambda f: f.close - f.close.groupby(day(f)).transform("mean"),
        "resample_label",
        0,
        None,
    ),
    ("half_hour_mean", lambda f: bucket(f, "30min", "mean"), "resample_label", 0, None),
    ("five_minutes_last", lambda f: bucket(f, "5min", "last"), "resample_label", 0, 4),
]
ALL_BIASED = BIASED + BIASED_BY_CLOCK


def table(columns: Columns) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """A user's function that gives these columns."""

    def computed(frame: pd.DataFrame) -> pd.DataFrame:
        made = {name: np.asarray(column(frame), dtype=float) for name, column in columns.items()}
        return pd.DataFrame(made, index=frame.index)

    return computed


def only(report: LookAheadReport) -> LookAheadFinding:
    """The one finding of a report."""
    assert len(report.findings) == 1, report.lines()
    return report.findings[0]


def checked(
    *columns: Callable[[pd.DataFrame], Any], bars: pd.DataFrame = DAYS, seed: int = 0
) -> LookAheadReport:
    """The report on columns named a, b, and so on."""
    return feature_look_ahead(table(dict(zip("abcdef", columns, strict=False))), bars, seed=seed)


@pytest.fixture(scope="module")
def mixed() -> LookAheadReport:
    """Every honest and every biased column of this file in one function, on minute bars."""
    return feature_look_ahead(table(HONEST | {name: made for name, made, *_ in ALL_BIASED}), MINUTES)


@pytest.fixture
def own_sets(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sets registered by a test are gone after it."""
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    return


# --- every kind, by column, first bar and cause


def test_exactly_the_biased_columns_are_accused(mixed: LookAheadReport) -> None:
    """Among honest columns the biased are found, all of them and no other, in the order of the columns."""
    assert [finding.column for finding in mixed.findings] == [name for name, *_ in ALL_BIASED]
    assert mixed.status == "fail"
    assert not mixed.ok
    assert mixed.not_judged == {}


@pytest.mark.parametrize(
    ("name", "made", "cause", "first", "ahead"), ALL_BIASED, ids=[b[0] for b in ALL_BIASED]
)
def test_cause_first_bar_and_distance_are_named(
    mixed: LookAheadReport, name: str, made: object, cause: str, first: int | None, ahead: int | None
) -> None:
    """Each biased column has its cause, its first bar with the instant, and how far it looks ahead."""
    finding = next(one for one in mixed.findings if one.column == name)
    assert finding.cause == cause, finding.line()
    assert finding.mend
    if first is not None:
        assert finding.first_row == first
    instant = MINUTES["timestamp"].iloc[finding.first_row].strftime("%Y-%m-%dT%H:%M:%SZ")
    assert finding.first_instant == instant
    if ahead is not None:
        assert finding.bars_ahead == ahead
    assert "\n" not in finding.line()


@pytest.mark.parametrize(("name", "made", "cause", "first", "ahead"), BIASED, ids=[b[0] for b in BIASED])
def test_the_same_on_daily_bars_alone(
    name: str, made: Callable[[pd.DataFrame], Any], cause: str, first: int | None, ahead: int | None
) -> None:
    """A column alone, on daily bars and with another seed, is named alike."""
    finding = only(checked(made, bars=DAYS, seed=11))
    assert finding.cause == cause, finding.line()
    if first is not None:
        assert finding.first_row == first
    if ahead is not None:
        assert finding.bars_ahead == ahead


def test_a_week_stamped_at_its_start_is_a_bucket() -> None:
    """Weekly values on daily bars: buckets of five bars and less."""
    weekly = checked(lambda f: f.close.groupby(f.timestamp.dt.strftime("%G-%V")).transform("last"))
    assert only(weekly).cause == "resample_label"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 4))
def test_any_seed_names_the_causes(seed: int) -> None:
    """Sampled places may differ, what is said may not."""
    wanted = {name: cause for name, _, cause, *_ in ALL_BIASED}
    report = feature_look_ahead(table({name: made for name, made, *_ in ALL_BIASED}), MINUTES, seed=seed)
    assert {finding.column: finding.cause for finding in report.findings} == wanted


@pytest.mark.slow
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(bars=st.integers(1, 120), seed=st.integers(0, 1000))
def test_a_shift_of_any_length_is_counted(bars: int, seed: int) -> None:
    """shift(-k) is a negative shift by k bars, from bar 0 on."""
    finding = only(checked(lambda f: f.close.shift(-bars), seed=seed))
    assert (finding.cause, finding.bars_ahead, finding.first_row) == ("negative_shift", bars, 0)


@pytest.mark.slow
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(window=st.integers(3, 120), seed=st.integers(0, 1000))
def test_a_centred_window_of_any_length_is_measured(window: int, seed: int) -> None:
    """A centred window of w bars reads (w - 1) // 2 of them ahead."""
    finding = only(checked(lambda f: f.close.rolling(window, center=True).mean(), seed=seed))
    assert (finding.cause, finding.bars_ahead) == ("centred_window", (window - 1) // 2), finding.line()
    assert finding.first_row == window - 1 - (window - 1) // 2


def test_a_filter_run_both_ways_is_found() -> None:
    """filtfilt reads ahead as far as its memory; its cause is a window around the bar."""
    finding = only(
        checked(lambda f: filtfilt([0.1], [1.0, -0.9], f.close) if len(f) > 12 else f.close * np.nan)
    )
    assert finding.cause == "centred_window"


def test_look_ahead_that_begins_late_is_dated() -> None:
    """A column honest for 700 bars is found, and dated to the bar."""

    def late(frame: pd.DataFrame) -> Any:
        return frame.close.where(np.arange(len(frame)) < 700, frame.close.shift(-1))

    finding = only(checked(late))
    assert (finding.cause, finding.first_row) == ("negative_shift", 700)


def test_look_ahead_over_night_only_is_found() -> None:
    """Only each session's last bar knows the next morning: one row in 390, found because nights are tried."""

    def overnight(frame: pd.DataFrame) -> Any:
        last = day(frame) != day(frame).shift(-1)
        return frame.close.where(~last, frame.open.shift(-1).fillna(frame.close))

    report = checked(overnight, bars=MINUTES)
    assert only(report).first_row == SESSION - 1


def test_gaps_filled_backwards_are_found() -> None:
    """A back-fill in the middle of the series is found where the source has gaps."""
    gappy = DAYS.copy()
    gappy.loc[300:339, "volume"] = np.nan
    finding = only(checked(lambda f: f.volume.bfill(), bars=gappy))
    assert (finding.cause, finding.first_row) == ("back_fill", 300)


# --- honest ones pass


@pytest.mark.parametrize("bars", [MINUTES, DAYS], ids=["minutes", "days"])
@pytest.mark.parametrize("seed", [0, 5])
def test_honest_columns_pass(bars: pd.DataFrame, seed: int) -> None:
    """Rolling, expanding and exponential columns pass, rounding and all."""
    report = feature_look_ahead(table(HONEST), bars, seed=seed)
    assert report.ok, report.lines()


@pytest.mark.parametrize("interval", ["1m", "1d"])
@pytest.mark.parametrize("name", ["intraday_v1", "intraday_teacher_v1", "swing_v1", "swing_teacher_v1"])
def test_shipped_sets_pass(name: str, interval: str) -> None:
    """The four shipped sets know nothing of later bars, on planted minutes and days."""
    frame = MINUTES if interval == "1m" else DAYS
    report = feature_look_ahead(get_feature_set(name), arrays_of({"PLANT01": frame}, interval)["PLANT01"])
    assert report.ok, report.lines()
    assert len(report.cuts) >= 5


def test_constant_prices_are_judged() -> None:
    """On a flat series the honest still pass and the biased are still found: the futures are made up."""
    flat = DAYS.assign(open=100.0, high=100.0, low=100.0, close=100.0, volume=5000.0)
    report = checked(lambda f: f.close.ewm(span=9).mean(), lambda f: f.close.shift(-2), bars=flat)
    assert (only(report).column, only(report).cause) == ("b", "negative_shift")


def test_a_zero_price_series_and_infinities_are_compared() -> None:
    """Infinite values are values: an honest log of zero passes, one that appears only later does not."""
    zeros = DAYS.assign(volume=0)
    report = checked(lambda f: np.log(f.volume), lambda f: np.log(f.volume).shift(-1), bars=zeros)
    assert only(report).column == "b"


# --- what cannot be judged is no pass


@pytest.mark.parametrize("bars", [0, 1])
def test_no_future_is_undefined(bars: int) -> None:
    """Without a second bar there is nothing to look at: undefined, with the reason."""
    report = feature_look_ahead(table({"a": lambda f: f.close}), DAYS.iloc[:bars])
    assert (report.status, report.ok) == ("undefined", False)
    assert "future" in report.reason


@pytest.mark.parametrize("bars", [2, 3, 30])
def test_fewer_bars_than_warm_up_are_undefined(bars: int) -> None:
    """A set that never warms up was not judged."""
    arrays = synthetic_bars("AAA", seed=1, sessions=bars)
    report = feature_look_ahead(get_feature_set("swing_v1"), arrays)
    assert (report.status, report.ok) == ("undefined", False)
    assert "no value" in report.reason


def test_columns_without_value_or_reaction_are_said() -> None:
    """An empty column and one of the calendar are listed, each with its reason; the rest is judged."""
    report = checked(lambda f: f.close * np.nan, lambda f: f.timestamp.dt.day, lambda f: f.close)
    assert report.ok
    assert list(report.not_judged) == ["a", "b"]
    assert "no value" in report.not_judged["a"]
    assert "calendar" in report.not_judged["b"]


def test_values_remembered_from_outside_are_no_pass() -> None:
    """A function that answers from a stored table never reacts to the bars: not judged, not passed."""
    stored = DAYS["close"].shift(-5)
    report = checked(lambda f: stored.loc[f.index])
    assert (report.status, report.ok) == ("undefined", False)
    assert "elsewhere" in report.reason


def test_random_numbers_are_not_repeatable() -> None:
    """An unseeded column is accused as such, and its neighbours are judged all the same."""
    unseeded = np.random.default_rng()
    report = checked(lambda f: unseeded.normal(size=len(f)), lambda f: f.close.shift(-1), lambda f: f.close)
    assert {finding.column: finding.cause for finding in report.findings} == {
        "a": "not_repeatable",
        "b": "negative_shift",
    }


def test_seeded_random_numbers_pass_as_unmoved() -> None:
    """Numbers that are the same for the same bar do no harm, but say nothing about the bars."""
    report = checked(lambda f: np.random.default_rng(1).normal(size=len(f)), lambda f: f.close)
    assert report.ok
    assert list(report.not_judged) == ["a"]


# --- compiled sets


def test_a_compiled_step_that_reads_the_next_bar_is_caught(own_sets: None) -> None:
    """A step that passed its trial and later reads past its row into the next one is dated to the bar."""

    def step(state: np.ndarray, row: np.ndarray, out: np.ndarray) -> None:
        state[0] += 1.0
        out[0] = row[3] / row[0]
        out[1] = row[3] / row[1]
        if state[0] > 1000.0:
            out[1] = row[12 + int(state[1])] / row[3]  # close of the next row in memory

    made = feature_set(name="peeks", columns=["fair", "peek"], warmup_bars=1, state_size=2, strategy="swing")(
        step
    )
    finding = only(feature_look_ahead(made, synthetic_bars("AAA", seed=1, sessions=2500)))
    assert (finding.column, finding.cause, finding.first_row, finding.bars_ahead) == (
        "peek",
        "negative_shift",
        1000,
        1,
    )


def test_a_compiled_step_with_hidden_memory_is_caught() -> None:
    """A step that counts in Python's memory, past its registration, is not repeatable."""
    seen: list[float] = []

    def count(value: float) -> float:
        seen.append(value)
        return float(len(seen))

    def step(state: np.ndarray, row: np.ndarray, out: np.ndarray) -> None:
        with numba.objmode(number="float64"):
            number = count(row[3])
        out[0] = number

    hidden = FeatureSet("hidden", ("counted",), 1, 1, "swing", step)
    assert (
        only(feature_look_ahead(hidden, synthetic_bars("AAA", seed=1, sessions=60))).cause == "not_repeatable"
    )


# --- predictions


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> StudentModel:
    """A small real student of the swing set."""
    everywhere = [[-1e9, 1e9]] * len(get_feature_set("swing_v1").columns)
    return StudentModel.load(write_student(tmp_path_factory.mktemp("student"), feature_ranges=everywhere))


def predictions(student: StudentModel, features: np.ndarray) -> np.ndarray:
    """Probability, confidence and direction of every row."""
    scores = student.score_rows(features, 0.6, warm_up_rows=student.feature_set.warmup_bars - 1)
    return np.column_stack([scores.probability_up, scores.confidence, scores.direction])


def test_predictions_of_a_student_pass(student: StudentModel) -> None:
    """Features and scoring in one: nothing in a prediction comes from later bars."""
    bars = synthetic_bars("AAA", seed=2, sessions=900)
    report = prediction_look_ahead(
        lambda given: predictions(student, feature_matrix(student.feature_set, given)), bars, 300
    )
    assert report.ok, report.lines()
    assert report.columns == PREDICTION_COLUMNS


def test_predictions_from_globally_scaled_features_are_caught(student: StudentModel) -> None:
    """Scaling with the whole window's mean before scoring is a statistic over the whole series."""

    def score(bars: BarArrays) -> np.ndarray:
        features = feature_matrix(student.feature_set, bars)
        return predictions(student, features - np.nanmean(features, axis=0))

    report = prediction_look_ahead(score, synthetic_bars("AAA", seed=2, sessions=900), 300)
    found = {finding.column: finding.cause for finding in report.findings}
    assert found["probability_up"] == found["confidence"] == "global_statistic"


def test_predictions_one_bar_late_are_caught(student: StudentModel) -> None:
    """A table of predictions that slipped by one bar is found: negative shift by 1."""

    def score(bars: BarArrays) -> np.ndarray:
        made = predictions(student, feature_matrix(student.feature_set, bars))
        return np.vstack([made[1:], np.full((min(1, len(made)), 3), np.nan)])

    report = prediction_look_ahead(score, synthetic_bars("AAA", seed=2, sessions=900), 300)
    finding = next(one for one in report.findings if one.column == "probability_up")
    assert (finding.cause, finding.bars_ahead) == ("negative_shift", 1)


# --- functions that misbehave


def test_a_function_that_changes_its_frame_harms_nobody() -> None:
    """Columns written into the given frame, or rows blanked in it, reach neither the caller nor other runs."""
    before = DAYS.copy(deep=True)

    def rude(frame: pd.DataFrame) -> pd.DataFrame:
        frame["mean"] = frame["close"].rolling(5).mean()
        frame.loc[:, "close"] = 0.0
        return frame[["mean"]]

    assert feature_look_ahead(rude, DAYS).ok
    pd.testing.assert_frame_equal(DAYS, before)


def test_one_buffer_for_all_answers_harms_nobody() -> None:
    """A computation that returns the same array each time is still compared with itself as it was."""
    bars = synthetic_bars("AAA", seed=1, sessions=200)
    buffer = np.empty((200, 1))

    def reuse(given: BarArrays) -> np.ndarray:
        close = given.rows[:, 3]
        buffer[: len(close), 0] = np.append(close[1:], np.nan)
        return buffer[: len(close)]

    assert only(find_look_ahead(reuse, bars, ["next"])).bars_ahead == 1


def test_warnings_of_a_function_on_short_data_stay_inside() -> None:
    """NumPy's and pandas' warnings about data we cut do not leave the check."""

    def warns(frame: pd.DataFrame) -> Any:
        warnings.warn("short", RuntimeWarning, stacklevel=1)
        return np.log(-frame["close"].to_numpy()) + frame["close"] / 0.0 + frame["close"]

    assert checked(warns, lambda f: f.close).ok


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda f: f[["close"]].rolling(20).mean().dropna(), "dropna"),
        (lambda f: f[["close"]].iloc[:5], "one row a bar"),
        (lambda f: f["no_such_column"], "KeyError"),
        (lambda f: 7, "not a pandas DataFrame"),
        (lambda f: f[["symbol"]], "no column"),
        (lambda f: f.assign(word="up"), "not numbers"),
        (lambda f: pd.DataFrame(index=f.index), "no column"),
        (lambda f: pd.concat([f.close, f.close], axis=1), "two of one name"),
        (lambda f: pd.get_dummies(pd.cut(f.close, 50).astype(str)), "must not depend on the data"),
        (lambda f: f[["close"]] if len(f) > 899 else 1 / 0, "ZeroDivisionError"),
        (lambda f: f[["close"]] if len(f) > 899 else f[["close"]].iloc[1:], "one row a bar"),
        (lambda f: f.assign(extra=1.0)[["close"] + ["extra"] * (len(f) > 899)], "extra"),
    ],
)
def test_a_function_that_breaks_the_contract_is_refused_in_one_line(
    function: Callable[[pd.DataFrame], Any], said: str
) -> None:
    """Raising, dropping rows, text, no columns, columns that come and go: one line that says so."""
    with pytest.raises(FeatureSetRefused) as refused:
        feature_look_ahead(function, DAYS)
    assert said in refused.value.message
    assert "\n" not in refused.value.message


def test_a_function_may_need_some_bars() -> None:
    """One that raises below 60 bars is judged on longer data, and the report says so."""

    def needs_60(frame: pd.DataFrame) -> pd.DataFrame:
        if len(frame) < 60:
            raise ValueError("too short")
        return pd.DataFrame({"fair": frame["close"], "next": frame["close"].shift(-1)})

    report = feature_look_ahead(needs_60, DAYS)
    assert only(report).column == "next"
    assert "does not run on" in report.notes[0]


def test_a_function_may_stay_empty_on_short_data() -> None:
    """One that gives only NaN below 100 bars sees no future; a look-ahead in the same rows is still dated."""

    def quiet(frame: pd.DataFrame) -> pd.DataFrame:
        made = pd.DataFrame({"fair": frame["close"].diff(), "next": frame["close"].shift(-1)})
        return made if len(frame) >= 100 else made * np.nan

    report = feature_look_ahead(quiet, DAYS)
    assert (only(report).column, only(report).first_row) == ("next", 0)


def test_frames_in_other_shapes_are_taken() -> None:
    """Integer volumes, another index, a named series, bars beside features, nullable numbers."""
    frame = DAYS.assign(volume=DAYS["volume"].astype("int64")).set_index(DAYS["timestamp"].rename("when"))
    assert feature_look_ahead(lambda f: f["close"].rolling(3).mean().rename("mean"), frame).columns == (
        "mean",
    )
    report = feature_look_ahead(
        lambda f: f.assign(next=f["volume"].shift(-1), whole=f["volume"].astype("Int64")), frame
    )
    assert only(report).column == "next"
    assert "timestamp" not in report.columns


def test_rows_in_another_order_are_put_back() -> None:
    """A function that returns its rows sorted otherwise, under the frame's index, is compared bar by bar."""
    report = feature_look_ahead(lambda f: f[["close"]].sort_values("close"), DAYS)
    assert report.ok


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f.drop(columns="close"), "'close' is absent"),
        (lambda f: f.assign(timestamp=f["timestamp"].dt.tz_localize(None)), "no zone"),
        (lambda f: f.iloc[::-1], "not in order"),
        (lambda f: f.assign(close="1"), "not numbers"),
    ],
)
def test_bars_that_are_none_are_refused(change: Callable[[pd.DataFrame], pd.DataFrame], said: str) -> None:
    """A frame without canonical bars is refused with what is missing."""
    with pytest.raises(UsageError, match=said):
        feature_look_ahead(table({"a": lambda f: f.iloc[:, -1]}), change(DAYS))


def test_wrong_calls_are_refused() -> None:
    """Names that repeat, a tolerance of nothing, a set with a frame, something that is no function."""
    bars = synthetic_bars("AAA", seed=1, sessions=50)
    with pytest.raises(UsageError, match="repeat"):
        find_look_ahead(lambda given: given.rows[:, :2], bars, ["a", "a"])
    with pytest.raises(UsageError, match="tolerance"):
        find_look_ahead(lambda given: given.rows[:, :1], bars, ["a"], tolerance=0.0)
    with pytest.raises(UsageError, match="needs BarArrays"):
        feature_look_ahead(get_feature_set("swing_v1"), DAYS)
    with pytest.raises(UsageError, match="neither"):
        feature_look_ahead(3, DAYS)  # type: ignore[arg-type]
    with pytest.raises(FeatureSetRefused, match=r"shape \(50, 2\), not \(50, 1\)"):
        find_look_ahead(lambda given: given.rows[:, :2], bars, ["a"])


def test_the_same_seed_gives_the_same_bytes() -> None:
    """Places, findings and everything else repeat with the seed; the JSON is plain."""
    function = table({name: made for name, made, *_ in BIASED[::4]})
    first, again, other = (feature_look_ahead(function, DAYS, seed=seed).to_dict() for seed in (4, 4, 5))
    assert canonical_json(first) == canonical_json(again)
    assert first["cuts"] != other["cuts"]


# --- the command's job

OWN_SETS = """
import numpy as np
from sqkit.features import feature_set

print("a user's module may talk")

@feature_set(name="{name}", columns=["body"], warmup_bars=1, state_size=0, strategy="swing")
def my_set(state, row, out):
    out[0] = row[3] / row[0] - 1.0

def fair(frame):
    return (frame["close"] / frame["open"]).to_frame("body")

def unfair(frame):
    out = fair(frame)
    out["next"] = frame["close"].shift(-1)
    return out

number = 3
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_sets: None) -> Path:
    """A user's folder: a module, a folder of five symbols' daily bars, one file of them as CSV."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SENSEQUANT_MARKET", "us")
    write_market(planted_market(5, 5, 400, "1d", 0.3), tmp_path / "bars")
    planted_market(5, 1, 400, "1d", 0.3)["PLANT01"].to_csv(tmp_path / "one.csv", index=False)
    (tmp_path / "my_features.py").write_text(OWN_SETS.format(name="my_bodies"))
    return tmp_path


def job(target: str, bars: str = "bars", **asked: Any) -> dict[str, Any]:
    """The job with nothing asked for but target and bars."""
    return lookahead_job(target, bars=bars, **({"symbol": None, "market": None, "interval": None} | asked))


def test_a_users_set_is_judged_by_path(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """./FILE.py:NAME is imported and judged on three of the folder's files; the search path stays as it was."""
    before = list(sys.path)
    result = job("./my_features.py:my_set")
    assert result["ok"]
    assert (result["kind"], result["columns"], result["findings"]) == ("feature_set", 1, [])
    assert result["symbols"] == ["PLANT01", "PLANT03", "PLANT05"]
    assert "2 of 5 files were not checked" in result["notes"][0]
    assert sys.path == before
    assert capsys.readouterr().out == ""
    canonical_json(result)


def test_a_function_with_look_ahead_is_shown(project: Path) -> None:
    """The findings carry symbol, column, cause and mend; the lines name them once, and say it is for research only."""
    result = job("my_features:unfair")
    assert not result["ok"]
    assert [(one["symbol"], one["column"], one["cause"]) for one in result["findings"]] == [
        (symbol, "next", "negative_shift") for symbol in ("PLANT01", "PLANT03", "PLANT05")
    ]
    lines = lookahead_lines(result)
    assert lines[0] == "my_features:unfair: look-ahead in 1 of 2 columns"
    assert "next: negative_shift, from bar 0 of PLANT01 (2012-01-03T05:00:00Z)" in lines[1]
    assert "also in PLANT03, PLANT05" in lines[1]
    assert "way out" in lines[2]
    assert any("FeatureSet" in line for line in lines)


@pytest.mark.parametrize("bars", ["one.csv", "bars/PLANT02.parquet"])
def test_one_file_in_any_form(project: Path, bars: str) -> None:
    """A CSV or Parquet file by itself; a registered set by its bare name."""
    result = job("swing_v1", bars)
    assert result["ok"]
    assert len(result["symbols"]) == 1
    assert "places are sampled" in lookahead_lines(result)[-1]


def test_a_long_series_is_bounded(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more bars than the bound the last are taken, and that is said."""
    monkeypatch.setattr("sqkit.research.lookahead_job._MOST_BARS", 150)
    result = job("swing_v1", "one.csv")
    assert result["checked"][0]["rows"] == 150
    assert "the last 150 of 400 bars" in result["notes"][0]


def test_one_symbol_of_a_folder(project: Path) -> None:
    """--symbol takes that one; a set made for other bars is noted."""
    result = job("intraday_v1", symbol="PLANT04")
    assert result["symbols"] == ["PLANT04"]
    assert "made for intraday bars; these are 1d bars" in result["notes"][0]


@pytest.mark.parametrize(
    ("target", "bars", "refusal", "said"),
    [
        ("my_features:fare", "bars", FeatureSetUnknown, "did you mean fair"),
        ("my_features:number", "bars", UsageError, "is int"),
        ("my_features:", "bars", FeatureSetUnknown, "it has my_set, fair, unfair"),
        ("./my_features.py", "bars", UsageError, "NAME"),
        ("./not_there.py:x", "bars", UsageError, "no such file"),
        ("not_there_at_all:x", "bars", UsageError, "no such module"),
        ("broken:x", "bars", UsageError, "raises ZeroDivisionError"),
        ("leaves:x", "bars", UsageError, "raises SystemExit"),
        ("swing_v9", "bars", FeatureSetUnknown, "swing_v1"),
        ("swing_v1", "no_folder", BarsNotFound, "no_folder"),
        ("swing_v1", "empty", BarsNotFound, "no files"),
        ("swing_v1", "", UsageError, "--bars"),
        ("swing_v1", "short.csv", WindowTooShort, "no value in 20 bars"),
    ],
)
def test_what_cannot_be_checked_is_refused(
    project: Path, target: str, bars: str, refusal: type[Exception], said: str
) -> None:
    """Every wrong target or place is one line that says what to do."""
    (project / "broken.py").write_text("1 / 0\n")
    (project / "leaves.py").write_text("raise SystemExit(0)\n")
    (project / "empty").mkdir()
    pd.read_csv("one.csv").iloc[:20].to_csv("short.csv", index=False)
    with pytest.raises(refusal) as refused:
        job(target, bars)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_unknown_symbol_is_refused(project: Path) -> None:
    """A symbol without a file: the message lists what is there."""
    with pytest.raises(BarsNotFound, match="PLANT01, PLANT02"):
        job("swing_v1", symbol="AAPL")
