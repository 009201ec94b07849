"""Training rows are warm, finite and decisive, and nothing after the training end is ever looked at."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from sqkit.bars import CLOSE, BarArrays
from sqkit.errors import UsageError, WindowEmpty, WindowTooShort
from sqkit.features import feature_matrix, student_set
from sqkit.metrics import horizon_outcomes
from sqkit.records import DOWN, INSIDE, UNKNOWN, UP
from sqkit.research.labels import TrainingTable, cut_bars, label_bars, training_table
from tests.synthetic_bars import FIRST_DAY, synthetic_bars

HORIZON = 5
FIRST, LAST = FIRST_DAY + 400, FIRST_DAY + 900


@pytest.fixture(scope="module")
def bars() -> dict[str, BarArrays]:
    """Two daily series that go on well after the training end."""
    return {name: synthetic_bars(name, seed=seed, sessions=900) for seed, name in enumerate(("BBB", "AAA"))}


def table_of(bars: dict[str, BarArrays], first: int = FIRST, last: int = LAST) -> TrainingTable:
    """The swing table with the usual definition."""
    return training_table(
        bars,
        student_set("swing"),
        first_day=first,
        last_day=last,
        horizon_bars=HORIZON,
        dead_zone=0.5,
        within_session=False,
    )


def same(one: TrainingTable, two: TrainingTable) -> bool:
    """Whether two tables agree in every field."""
    pairs = ((getattr(one, f.name), getattr(two, f.name)) for f in dataclasses.fields(TrainingTable))
    return all(np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b for a, b in pairs)


def test_labels_are_the_metrics_outcomes(bars: dict[str, BarArrays]) -> None:
    """Training and metrics use one definition of what happened."""
    series = bars["AAA"]
    mine = label_bars(series, HORIZON, 0.5, False)
    theirs = horizon_outcomes(
        series.rows[:, CLOSE], series.session_days, HORIZON, dead_zone=0.5, within_session=False
    )
    assert np.array_equal(mine.outcome, theirs.outcome)
    assert np.array_equal(mine.label_end, theirs.label_end)
    assert {UP, DOWN, INSIDE, UNKNOWN} == set(mine.outcome.tolist())


class TestTable:
    def test_rows_are_what_they_claim(self, bars: dict[str, BarArrays]) -> None:
        """Features, outcome, times and label end of every row are those of its bar."""
        table = table_of(bars)
        assert table.symbols == ("AAA", "BBB")
        for index, name in enumerate(table.symbols):
            series = bars[name]
            own = table.symbol_index == index
            at = np.searchsorted(series.timestamp_ns, table.bar_time_ns[own])
            assert np.array_equal(series.timestamp_ns[at], table.bar_time_ns[own])
            expected = feature_matrix(student_set("swing"), series)[at].astype(np.float32)
            assert np.array_equal(table.features[own], expected)
            assert np.array_equal(table.decision_ns[own], series.available_ns[at])
            assert np.array_equal(table.label_end_ns[own], series.available_ns[at + HORIZON])
            assert np.array_equal(table.embargo_ns[own], series.available_ns[at - HORIZON])
            close = series.rows[:, CLOSE]
            assert np.array_equal(table.up[own], close[at + HORIZON] > close[at])

    def test_rows_lie_in_the_window(self, bars: dict[str, BarArrays]) -> None:
        """Decision and label end are inside the window, all rows are decisive, counts add up."""
        table = table_of(bars)
        assert table.session_day.min() >= FIRST
        last_instant = max(
            series.slice(*series.window(FIRST, LAST)).available_ns[-1] for series in bars.values()
        )
        assert table.label_end_ns.max() <= last_instant
        assert set(table.outcome.tolist()) == {UP, DOWN}
        counts = table.counts
        assert counts["decisive"] == len(table) == counts["up"] + counts["down"]
        parts = ("warm_up", "non_finite", "unknown", "inside", "decisive")
        assert counts["bars"] == sum(counts[name] for name in parts)
        assert counts["unknown"] == HORIZON * len(bars)
        assert counts["bars"] == sum(
            np.subtract(*series.window(FIRST, LAST)[::-1]) for series in bars.values()
        )

    def test_the_future_is_not_looked_at(self, bars: dict[str, BarArrays]) -> None:
        """Bars after the end may be there, absent or nonsense: the table is the same to the bit."""
        table = table_of(bars)
        assert table.last_day_seen <= LAST
        assert max(series.session_days[-1] for series in bars.values()) > LAST + 100
        short = cut_bars(bars, FIRST, LAST)
        assert same(table, table_of(short))
        nonsense = {}
        for name, series in bars.items():
            rows = series.rows.copy()
            rows[len(short[name]) :, : CLOSE + 1] *= -7.0
            nonsense[name] = dataclasses.replace(series, rows=rows)
        assert same(table, table_of(nonsense))

    def test_earlier_bars_warm_the_window(self, bars: dict[str, BarArrays]) -> None:
        """With history before the window no bar of it is lost to warm-up; without, some are."""
        assert table_of(bars).counts["warm_up"] == 0
        late = {
            name: series.slice(series.window(FIRST, LAST)[0], len(series)) for name, series in bars.items()
        }
        lost = table_of(late).counts["warm_up"]
        assert lost == (student_set("swing").warmup_bars - 1) * len(bars)

    def test_a_row_that_is_not_finite_is_counted(self, bars: dict[str, BarArrays]) -> None:
        """A broken price after warm-up takes its rows out, and they are counted."""
        series = bars["AAA"]
        rows = series.rows.copy()
        start, stop = series.window(FIRST, LAST)
        rows[(start + stop) // 2, CLOSE] = 0.0
        broken = table_of({"AAA": dataclasses.replace(series, rows=rows)})
        assert broken.counts["non_finite"] > 0
        assert np.isfinite(broken.features).all()

    def test_intraday_labels_stay_in_their_session(self) -> None:
        """No label of a five-minute series ends on another date than it began."""
        series = synthetic_bars("AAA", seed=4, sessions=30, interval="5m")
        table = training_table(
            {"AAA": series},
            student_set("intraday"),
            first_day=FIRST_DAY,
            last_day=FIRST_DAY + 60,
            horizon_bars=15,
            dead_zone=0.5,
            within_session=True,
        )
        end = np.searchsorted(series.available_ns, table.label_end_ns)
        assert len(table) > 300
        assert np.array_equal(series.session_days[end], table.session_day)


class TestRefusals:
    def test_a_symbol_without_bars_in_the_window(self, bars: dict[str, BarArrays]) -> None:
        """It is named, with the dates it does have."""
        late = FIRST_DAY + 20_000
        with pytest.raises(WindowEmpty, match=r"AAA: no bar .* its bars run from 2003-01-02"):
            table_of(bars, late, late + 10)

    def test_a_history_shorter_than_warm_up(self, bars: dict[str, BarArrays]) -> None:
        """Too few bars for features and label are refused, with the number needed."""
        few = {"AAA": bars["AAA"].slice(0, student_set("swing").warmup_bars + HORIZON - 1)}
        with pytest.raises(WindowTooShort, match="warms up over"):
            table_of(few, FIRST_DAY, LAST)

    def test_windows_that_cannot_be_meant(self, bars: dict[str, BarArrays]) -> None:
        """No symbols, or an end before the start."""
        with pytest.raises(UsageError, match="no symbols"):
            table_of({})
        with pytest.raises(UsageError, match="ends before it begins"):
            table_of(bars, LAST, FIRST)
