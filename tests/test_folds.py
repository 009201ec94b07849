"""Folds keep their distance: no label of a training row touches the block it helps to label."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import KFold

from sqkit.errors import TrainingDataTooSmall
from sqkit.records import DOWN, UP
from sqkit.research.folds import BLOCKS, block_folds, session_blocks
from sqkit.research.labels import TrainingTable
from sqkit.research.learners import steady_threads

DAY_NS = 86_400_000_000_000


def table_of(
    positions: list[np.ndarray], horizon: int, bars_per_day: int, features: np.ndarray | None = None
) -> TrainingTable:
    """A table of rows at bar positions of a common clock, one list per symbol."""
    bar_ns = DAY_NS // bars_per_day
    position = np.concatenate(positions)
    count = len(position)
    return TrainingTable(
        symbols=tuple(f"S{number}" for number in range(len(positions))),
        feature_names=("a",),
        features=np.zeros((count, 1), dtype=np.float32) if features is None else features,
        symbol_index=np.repeat(np.arange(len(positions)), [len(own) for own in positions]),
        bar_time_ns=position * bar_ns,
        decision_ns=(position + 1) * bar_ns,
        label_end_ns=(position + 1 + horizon) * bar_ns,
        embargo_ns=(np.maximum(position - horizon, 0) + 1) * bar_ns,
        session_day=(position // bars_per_day).astype(np.int32),
        outcome=np.where(position % 2, UP, DOWN).astype(np.int8),
        counts={},
        last_day_seen=0,
    )


@st.composite
def tables(draw: st.DrawFn) -> tuple[TrainingTable, int, int]:
    """One to three symbols with gaps, daily or several bars a session, several horizons."""
    horizon = draw(st.integers(1, 6))
    bars_per_day = draw(st.sampled_from([1, 4]))
    days = draw(st.integers(60, 120))
    seed = draw(st.integers(0, 2**32 - 1))
    generator = np.random.default_rng(seed)
    positions = [
        np.sort(generator.choice(days * bars_per_day, size=days * bars_per_day * 2 // 3, replace=False))
        for _ in range(draw(st.integers(1, 3)))
    ]
    return table_of(positions, horizon, bars_per_day), horizon, bars_per_day


class TestFolds:
    @settings(max_examples=80, deadline=None)
    @given(tables())
    def test_no_training_label_meets_the_block(self, case: tuple[TrainingTable, int, int]) -> None:
        """Every training label ends before the block's first decision, or starts h bars after its end."""
        table, horizon, bars_per_day = case
        bar_ns = DAY_NS // bars_per_day
        for fold in block_folds(table):
            start = table.decision_ns[fold.test].min()
            end = table.label_end_ns[fold.test].max()
            before = table.decision_ns[fold.train] < start
            assert np.all(table.label_end_ns[fold.train][before] < start)
            assert np.all(table.decision_ns[fold.train][~before] > end + (horizon - 1) * bar_ns)

    @settings(max_examples=40, deadline=None)
    @given(tables())
    def test_nothing_is_purged_without_need(self, case: tuple[TrainingTable, int, int]) -> None:
        """Rows of other blocks are left out only near the block, and every row is labelled once."""
        table, horizon, bars_per_day = case
        bar_ns = DAY_NS // bars_per_day
        folds = block_folds(table)
        assert np.array_equal(np.sort(np.concatenate([fold.test for fold in folds])), np.arange(len(table)))
        for fold in folds:
            left_out = np.setdiff1d(np.arange(len(table)), np.concatenate([fold.train, fold.test]))
            start = table.decision_ns[fold.test].min() - horizon * bar_ns
            end = table.label_end_ns[fold.test].max() + horizon * bar_ns
            assert np.all(table.decision_ns[left_out] >= start)
            assert np.all(table.decision_ns[left_out] <= end)

    @settings(max_examples=40, deadline=None)
    @given(tables())
    def test_blocks_are_contiguous_dates(self, case: tuple[TrainingTable, int, int]) -> None:
        """Over all symbols a date lies in one block, blocks follow each other, none is empty."""
        table = case[0]
        block = session_blocks(table.session_day)
        assert set(block) == set(range(BLOCKS))
        for number in range(BLOCKS - 1):
            earlier, later = table.session_day[block == number], table.session_day[block == number + 1]
            assert earlier.max() < later.min()

    def test_the_last_fold_only_looks_back(self) -> None:
        """What labels the last block was all known before it."""
        table = table_of([np.arange(300)], 5, 1)
        fold = block_folds(table)[-1]
        assert table.label_end_ns[fold.train].max() < table.decision_ns[fold.test].min()

    def test_too_few_sessions(self) -> None:
        """Fewer dates than blocks, or a horizon that swallows everything, is refused in one line."""
        with pytest.raises(TrainingDataTooSmall, match="4 session dates"):
            block_folds(table_of([np.arange(4)], 1, 1))
        with pytest.raises(TrainingDataTooSmall, match="nothing to label block"):
            block_folds(table_of([np.arange(10)], 30, 1))


def test_a_random_walk_has_no_edge_in_our_folds() -> None:
    """Leak canary: shuffled folds find an edge in a random walk, purged blocks do not.

    Labels are the sign of the next ten bars, features are slow functions of the path, so
    neighbours share label and features; only keeping a distance removes that.
    """
    horizon, count = 10, 6000
    scores: dict[str, list[float]] = {"shuffled": [], "ours": []}
    for seed in range(2):
        walk = np.cumsum(np.random.default_rng(seed).standard_normal(count + 200 + horizon))
        position = np.arange(count)
        now = walk[200 : 200 + count]
        features = np.column_stack([now - walk[200 - lag : 200 - lag + count] for lag in (20, 60, 120, 200)])
        up = walk[200 + horizon : 200 + horizon + count] > now
        table = table_of([position], horizon, 1, features.astype(np.float32))
        for name, folds in (
            ("shuffled", list(KFold(5, shuffle=True, random_state=seed).split(features))),
            ("ours", [(fold.train, fold.test) for fold in block_folds(table)]),
        ):
            answer = np.empty(count)
            for train, test in folds:
                model = HistGradientBoostingClassifier(max_iter=60, random_state=0, early_stopping=False)
                with steady_threads(count):
                    answer[test] = model.fit(features[train], up[train]).predict_proba(features[test])[:, 1]
            scores[name].append(roc_auc_score(up, answer))
    assert min(scores["shuffled"]) > 0.6
    assert max(abs(score - 0.5) for score in scores["ours"]) < 0.06
