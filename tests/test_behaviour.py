"""Usual behaviour and its alarms: faults are seen within five bars, clean days are quiet, calibration is run time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from sqkit.behaviour_limits import ALARMS, FAULTS, SILENT, gumbel_of, limits_of
from sqkit.behaviour_windows import STATISTICS, WINDOW_BARS, bar_counts
from sqkit.errors import UsageError
from sqkit.files import canonical_json
from sqkit.production.behaviour import UNASKED, BehaviourWatch, Row, detectable
from sqkit.records import DIRECTIONS, FLAT, LONG, REASON_CODES, REASONS, SHORT
from sqkit.research.usual_behaviour import FEWEST_DAYS, SaidRows, usual_behaviour

BARS = 375
WARM_UP = 4
THRESHOLD = 0.6
SYMBOLS = 30
RATE = 0.01
_QUIET = REASON_CODES["low_confidence"]


@dataclass(frozen=True)
class Stream:
    """What a model says on whole sessions of minute bars; arrays (days * BARS, symbols)."""

    direction: np.ndarray
    probability: np.ndarray
    reason: np.ndarray

    def rows(self, bar: int) -> list[Row]:
        """One bar as the live watch takes it."""
        return [
            (DIRECTIONS[int(call)], None if np.isnan(up) else float(up), REASONS[int(why)], f"S{number}")
            for number, (call, up, why) in enumerate(
                zip(self.direction[bar], self.probability[bar], self.reason[bar], strict=True)
            )
        ]

    def profile(self, bar_minutes: int = 1, bars: int = BARS) -> dict[str, Any]:
        """The usual behaviour of all of it, as read back from a file."""
        every, symbols = self.direction.shape
        said = SaidRows(
            session_day=np.repeat(np.arange(every) // bars, symbols),
            bar_in_session=np.repeat(np.arange(every) % bars, symbols),
            direction=self.direction.ravel(),
            probability_up=self.probability.ravel(),
            reason=self.reason.ravel(),
        )
        found = usual_behaviour(said, bar_minutes=bar_minutes, symbols=symbols)
        assert found is not None
        restored: dict[str, Any] = json.loads(canonical_json(found))
        return restored


@lru_cache(maxsize=8)
def stream(seed: int, symbols: int = SYMBOLS, days: int = 60, deviation: float = 0.35) -> Stream:
    """Log odds that persist (AR 0.9 by the minute), a fifth of their variance common to all symbols."""
    random, bars = np.random.default_rng(seed), days * BARS
    shocks = random.standard_normal((bars, symbols + 1))
    path = np.empty_like(shocks)
    path[0] = shocks[0]
    for bar in range(1, bars):
        path[bar] = 0.9 * path[bar - 1] + np.sqrt(0.19) * shocks[bar]
    odds = deviation * (np.sqrt(0.2) * path[:, :1] + np.sqrt(0.8) * path[:, 1:])
    probability = 1.0 / (1.0 + np.exp(-odds))
    probability[np.arange(bars) % BARS < WARM_UP] = np.nan
    return called(probability)


def called(probability: np.ndarray) -> Stream:
    """Directions and reasons that follow from probabilities."""
    direction = np.where(
        probability >= THRESHOLD, LONG, np.where(1.0 - probability >= THRESHOLD, SHORT, FLAT)
    )
    reason = np.where(np.isnan(probability), REASON_CODES["warm_up"], np.where(direction == FLAT, _QUIET, 0))
    return Stream(direction.astype(np.int8), probability, reason.astype(np.int8))


def faulty(clean: Stream, fault: str) -> Stream:
    """The same model with a fault from the first bar on."""
    scored = ~np.isnan(clean.probability)
    if fault == "all_long":
        return called(np.where(scored, 0.7, np.nan))
    if fault == "never_calls":
        return called(np.where(scored, 0.5, np.nan))
    if fault == "never_scored":
        broken = called(np.full_like(clean.probability, np.nan))
        return Stream(
            broken.direction,
            broken.probability,
            np.full_like(broken.reason, REASON_CODES["non_finite_feature"]),
        )
    share = 10.0 * np.mean(clean.direction != FLAT)
    random = np.random.default_rng(8)
    more = scored & (clean.direction == FLAT) & (random.random(scored.shape) < share)
    sides = np.where(random.random(scored.shape) < 0.5, 0.65, 0.35)
    return called(np.where(more, sides, clean.probability))


def bars_until_seen(
    profile: dict[str, Any], before: Stream, after: Stream, start: int, most: int
) -> int | None:
    """Bars from the fault's beginning to the first alarm; None where none came."""
    watch = BehaviourWatch(profile, false_alarms_per_day=RATE, symbols=before.direction.shape[1])
    for bar in range(start - 2 * WINDOW_BARS, start):
        watch.update(bar % BARS, before.rows(bar))
    for bar in range(start, start + most):
        if any(change["event"] == "begins" for change in watch.update(bar % BARS, after.rows(bar))):
            return bar - start + 1
    return None


def some_moments() -> Iterator[int]:
    """Bars at which a fault may begin, at different times of different days, after the warm-up's bucket."""
    for day in range(0, 60, 4):
        yield day * BARS + 20 + 23 * (day // 4)


@pytest.fixture(scope="module")
def profile() -> dict[str, Any]:
    """Of 60 days of 30 symbols; a call on every fourth row."""
    return stream(1).profile()


class TestFaults:
    """What must be seen within five minutes, on a market with enough symbols."""

    @pytest.mark.parametrize("fault", FAULTS)
    def test_within_five_bars(self, profile: dict[str, Any], fault: str) -> None:
        """On days that were not in the calibration each fault is seen within five bars, nearly whenever it begins."""
        clean = stream(2)
        broken = faulty(clean, fault)
        seen = [bars_until_seen(profile, clean, broken, start, WINDOW_BARS) for start in some_moments()]
        assert sum(bars is not None for bars in seen) >= len(seen) - 1, seen

    def test_what_is_said_to_be_detectable_is(self, profile: dict[str, Any]) -> None:
        """`detectable` names no more bars than five here, and the median fault is seen about then."""
        clean = stream(2)
        for fault, bars in detectable(profile, RATE).items():
            assert bars is not None
            assert bars <= WINDOW_BARS
            seen = [
                bars_until_seen(profile, clean, faulty(clean, fault), at, 30) or 30 for at in some_moments()
            ]
            assert abs(float(np.median(seen)) - bars) <= 1.0, fault

    def test_few_symbols_cannot_be_decided(self) -> None:
        """With two symbols all LONG for five bars is usual, and is not said to be seen; silence is seen later."""
        found = detectable(stream(3, symbols=2).profile(), RATE)
        assert found["all_long"] is None
        assert found["ten_times_the_calls"] is None
        assert found["never_calls"] is not None
        assert found["never_calls"] > WINDOW_BARS

    def test_few_of_many_are_watched(self, profile: dict[str, Any]) -> None:
        """Watching two of the thirty validated symbols decides no more than two symbols can."""
        assert detectable(profile, RATE, symbols=2)["all_long"] is None


class TestCleanDays:
    """False alarms at the set rate, at most."""

    @pytest.mark.parametrize("rate", [0.01, 0.05])
    def test_no_more_than_the_rate(self, profile: dict[str, Any], rate: float) -> None:
        """Over 60 new days no more of them alarm than the rate allows (one-sided, 1 %)."""
        clean = stream(4)
        watch = BehaviourWatch(profile, false_alarms_per_day=rate, symbols=SYMBOLS)
        alarmed = set()
        for bar in range(60 * BARS):
            if any(one["event"] == "begins" for one in watch.update(bar % BARS, clean.rows(bar))):
                alarmed.add(bar // BARS)
        assert len(alarmed) <= {0.01: 3, 0.05: 8}[rate]  # Poisson of mean 0.6 and 3

    def test_validated_days_alarm_nobody(self, profile: dict[str, Any]) -> None:
        """Run-time windows are those of the calibration: on its own days nothing fires at any rate."""
        watch = BehaviourWatch(profile, false_alarms_per_day=0.999, symbols=SYMBOLS)
        own = stream(1)
        watch.limits = {name: law["largest"] + 1e-3 for name, law in profile["daily_maxima"].items()}
        for bar in range(60 * BARS):
            assert watch.update(bar % BARS, own.rows(bar)) == []

    def test_the_largest_seen_is_reached(self, profile: dict[str, Any]) -> None:
        """A limit just below the largest value of the validation is passed on the validation's own days."""
        watch = BehaviourWatch(profile, false_alarms_per_day=RATE, symbols=SYMBOLS)
        watch.limits = {name: law["largest"] - 1e-3 for name, law in profile["daily_maxima"].items()}
        own, fired = stream(1), set()
        for bar in range(60 * BARS):
            fired |= {one["name"] for one in watch.update(bar % BARS, own.rows(bar))}
        assert fired == set(ALARMS)

    def test_a_morning_warm_up_is_expected(self, profile: dict[str, Any]) -> None:
        """The first bars are not scored on any day; that raises nothing and stands in the first bucket."""
        first, later = profile["buckets"][0], profile["buckets"][5]
        assert first["abstentions"]["warm_up"] == pytest.approx(WARM_UP / 15, abs=1e-4)
        assert "warm_up" not in later["abstentions"]
        watch = BehaviourWatch(profile, false_alarms_per_day=RATE, symbols=SYMBOLS)
        clean = stream(2)
        assert [watch.update(bar, clean.rows(bar)) for bar in range(10)] == [[]] * 10


class TestWatch:
    """Beginnings, ends, sessions, restarts."""

    def test_an_alarm_begins_once_and_ends(self, profile: dict[str, Any]) -> None:
        """All LONG for twenty bars, then as usual: each alarm begins once, with its figures, and ends once."""
        clean = stream(2)
        broken = faulty(clean, "all_long")
        watch = BehaviourWatch(profile, false_alarms_per_day=RATE, symbols=SYMBOLS)
        changes = []
        for bar in range(100, 160):
            changes += watch.update(bar, (broken if 110 <= bar < 130 else clean).rows(bar))
        events = [(one["name"], one["event"]) for one in changes]

        assert ("long_more", "begins") in events
        assert len(set(events)) == len(events)
        assert {name for name, event in events if event == "begins"} == {
            name for name, event in events if event == "ends"
        }
        for one in changes:
            assert (one["z"] > one["limit"]) == (one["event"] == "begins")
        assert watch.firing == set()

    def test_a_restart_changes_nothing(self, profile: dict[str, Any]) -> None:
        """State through JSON in the middle of a fault: the same changes follow as without the restart."""
        broken = faulty(stream(2), "never_calls")
        straight = BehaviourWatch(profile, false_alarms_per_day=RATE, symbols=SYMBOLS)
        restarted = BehaviourWatch(profile, false_alarms_per_day=RATE, symbols=SYMBOLS)
        for bar in range(100, 130):
            again = BehaviourWatch(profile, false_alarms_per_day=RATE, symbols=SYMBOLS)
            again.restore(json.loads(json.dumps(restarted.state())))
            restarted = again
            assert restarted.update(bar, broken.rows(bar)) == straight.update(bar, broken.rows(bar))
        assert restarted.firing == straight.firing != set()

    @pytest.mark.parametrize("reason", sorted(UNASKED))
    def test_silence_that_was_decided(self, profile: dict[str, Any], reason: str) -> None:
        """Rows of a halted, disabled or unapproved student count nowhere."""
        watch = BehaviourWatch(profile, false_alarms_per_day=RATE, symbols=SYMBOLS)
        rows: list[Row] = [("FLAT", None, reason, f"S{number}") for number in range(SYMBOLS)]
        assert all(watch.update(bar, rows) == [] for bar in range(100, 200))

    def test_a_window_lies_in_one_session(self, profile: dict[str, Any]) -> None:
        """Four faulty bars before a close and none after the open are no window."""
        clean, broken = stream(2), faulty(stream(2), "all_long")
        watch = BehaviourWatch(profile, false_alarms_per_day=RATE, symbols=SYMBOLS)
        for bar in range(BARS - 2, BARS):
            watch.update(bar, broken.rows(bar))
        watch.update(0, clean.rows(0))
        assert len(watch.state()["window"]) == 1

    @pytest.mark.parametrize(("rate", "symbols"), [(0.0, 1), (1.0, 1), (float("nan"), 1), (0.01, 0)])
    def test_bad_values(self, profile: dict[str, Any], rate: float, symbols: int) -> None:
        """A rate that is no share of days, and no symbols, are refused."""
        with pytest.raises(UsageError, match="give a share"):
            BehaviourWatch(profile, false_alarms_per_day=rate, symbols=symbols)

    def test_beyond_the_last_bucket(self, profile: dict[str, Any]) -> None:
        """A session longer than any validated one is held against its last quarter of an hour."""
        watch, clean = BehaviourWatch(profile, false_alarms_per_day=RATE, symbols=SYMBOLS), stream(2)
        assert [watch.update(bar, clean.rows(bar - 100)) for bar in range(400, 410)] == [[]] * 10


class TestProfile:
    """What is kept, and how limits follow."""

    def test_it_is_compact_and_complete(self, profile: dict[str, Any]) -> None:
        """One bucket a quarter of an hour, shares that add up, at most 30 KB as the checklist writes it."""
        assert len(profile["buckets"]) == BARS // 15
        assert len(canonical_json(profile)) < 30_000
        assert set(profile["daily_maxima"]) == set(ALARMS)
        assert sum(one["rows"] for one in profile["buckets"]) == 60 * BARS * SYMBOLS
        for one in profile["buckets"]:
            assert sum(one["confidence"]) == pytest.approx(1.0, abs=1e-4)
            assert one["calls"] + sum(one["abstentions"].values()) == pytest.approx(1.0, abs=1e-4)
            assert one["long"] <= one["calls"]
            assert set(one["window_deviations"]) == set(STATISTICS)

    def test_shares_are_those_of_the_rows(self, profile: dict[str, Any]) -> None:
        """A bucket's figures, counted again by hand."""
        own = stream(1)
        rows = np.flatnonzero((np.arange(60 * BARS) % BARS) // 15 == 7)
        assert profile["buckets"][7]["calls"] == pytest.approx(np.mean(own.direction[rows] != 0), abs=1e-5)
        assert profile["buckets"][7]["long"] == pytest.approx(np.mean(own.direction[rows] == 1), abs=1e-5)
        assert profile["buckets"][7]["probability_up"] == pytest.approx(
            np.mean(own.probability[rows]), abs=1e-5
        )

    def test_daily_bars(self) -> None:
        """One bucket; windows are of five session days; a model that falls silent is seen, halts of days are none."""
        minute = stream(5, days=2)
        daily = Stream(*(part[WARM_UP:700] for part in (minute.direction, minute.probability, minute.reason)))
        profile = daily.profile(bar_minutes=0, bars=1)
        watch = BehaviourWatch(profile, false_alarms_per_day=RATE, symbols=SYMBOLS)
        silent = faulty(daily, "never_calls")
        changes = [change for bar in range(100, 160) for change in watch.update(0, silent.rows(bar))]

        assert len(profile["buckets"]) == 1
        assert profile["bar_minutes"] == 0
        assert SILENT in {one["name"] for one in changes}

    def test_too_few_days(self) -> None:
        """A law from fewer days would say nothing: there is no profile."""
        few = stream(6, symbols=3, days=FEWEST_DAYS - 1)
        said = SaidRows(
            np.repeat(np.arange(len(few.direction)) // BARS, 3),
            np.repeat(np.arange(len(few.direction)) % BARS, 3),
            few.direction.ravel(),
            few.probability.ravel(),
            few.reason.ravel(),
        )
        assert usual_behaviour(said, bar_minutes=1, symbols=3) is None

    def test_a_model_that_never_spoke(self) -> None:
        """Neither calls nor probabilities in the whole validation: a profile, limits, and no error."""
        nothing = called(np.full((20 * BARS, 2), np.nan))
        profile = nothing.profile()
        watch = BehaviourWatch(profile, false_alarms_per_day=RATE, symbols=2)
        assert all(watch.update(bar, nothing.rows(bar)) == [] for bar in range(50))
        assert detectable(profile, RATE)["never_calls"] is None

    def test_the_law_is_found_again(self) -> None:
        """The method of moments finds location and scale of a large Gumbel sample."""
        found = gumbel_of(np.random.default_rng(1).gumbel(3.0, 0.5, 20_000))
        assert found["location"] == pytest.approx(3.0, abs=0.02)
        assert found["scale"] == pytest.approx(0.5, abs=0.02)

    def test_limits_follow_the_rate(self, profile: dict[str, Any]) -> None:
        """Fewer false alarms, higher limits; never below the largest value seen."""
        often, rarely = (limits_of(profile, rate, SYMBOLS) for rate in (0.2, 0.001))
        for name in ALARMS:
            assert profile["daily_maxima"][name]["largest"] <= often[name] <= rarely[name]
        assert rarely["long_more"] > often["long_more"]

    def test_counts_of_bars(self) -> None:
        """Rows, calls, LONG calls, rows without a probability and the sum of probabilities, by bar."""
        counts = bar_counts(
            np.array([0, 0, 1, 1]), np.array([1, -1, 0, 0]), np.array([0.7, 0.2, np.nan, 0.5]), 3
        )
        assert counts.tolist() == [[2, 2, 1, 0, pytest.approx(0.9)], [2, 0, 0, 1, 0.5], [0, 0, 0, 0, 0]]
