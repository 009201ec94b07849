"""One scoring decision: the compiled loops, a matrix and a row give the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqkit.errors import ModelFileInvalid, UsageError
from sqkit.records import FLAT, LONG, REASON_CODES, SHORT
from sqkit.scoring import NO_PROBABILITY, call, call_one, screen, screen_row
from tests.engines import student

K = 19


def plain_reason(row: np.ndarray, lowest: np.ndarray, highest: np.ndarray) -> int:
    """The rule in words: finite before range, range ends included, compared as float32."""
    with np.errstate(over="ignore"):
        narrow = row.astype(np.float32)
    if not np.isfinite(row).all():
        return REASON_CODES["non_finite_feature"]
    inside = (narrow >= lowest).all() and (narrow <= highest).all()
    return REASON_CODES["scored" if inside else "out_of_distribution"]


@given(
    st.lists(st.floats(width=64, allow_nan=True, allow_infinity=True), min_size=3, max_size=3),
    st.lists(st.floats(-10, 10, width=32), min_size=3, max_size=3),
)
@settings(max_examples=200, deadline=None)
def test_a_row_is_fit_when_finite_and_inside(row: list[float], lowest: list[float]) -> None:
    """The compiled screen says what the rule in words says, and hands the graph float32."""
    features = np.array([row])
    low = np.array(lowest, dtype=np.float32)
    high = low + np.float32(4.0)
    narrow, reason = np.empty((1, 3), dtype=np.float32), np.empty(1, dtype=np.int8)

    screen()(features, low, high, narrow, reason)

    assert reason[0] == plain_reason(features[0], low, high)
    assert screen_row()(features[0], low, high, narrow[0]) == reason[0]
    with np.errstate(over="ignore"):
        assert np.array_equal(narrow, features.astype(np.float32), equal_nan=True)


@pytest.mark.parametrize(
    ("probability", "threshold", "direction", "reason"),
    [
        (0.6, 0.6, LONG, "scored"),
        (0.4, 0.6, SHORT, "scored"),
        (0.55, 0.6, FLAT, "low_confidence"),
        (0.5, 0.5, LONG, "scored"),
        (0.0, 0.6, SHORT, "scored"),
        (1.0, 0.99, LONG, "scored"),
    ],
)
def test_a_probability_becomes_a_direction(
    probability: float, threshold: float, direction: int, reason: str
) -> None:
    """LONG from the threshold on, else SHORT from its mirror, else FLAT for low confidence."""
    said, why = np.empty(1, dtype=np.int8), np.zeros(1, dtype=np.int8)

    sound = call()(np.array([probability]), threshold, said, why)

    assert sound
    assert call_one(probability, threshold) == direction
    assert (said[0], why[0]) == (direction, REASON_CODES[reason])


@pytest.mark.parametrize("probability", [np.nan, -1e-9, 1.0 + 1e-9, np.inf])
def test_what_is_no_probability_is_noticed(probability: float) -> None:
    """A graph that answers outside [0, 1] is not believed."""
    said, why = np.empty(1, dtype=np.int8), np.zeros(1, dtype=np.int8)

    assert not call()(np.array([probability]), 0.6, said, why)
    assert call_one(probability, 0.6) == NO_PROBABILITY


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.5, 0.6, 0.75]))
@settings(max_examples=25, deadline=None)
def test_a_row_alone_has_the_bits_of_the_matrix(seed: int, threshold: float) -> None:
    """`RowScorer` and `score_rows` agree on every row: probability, direction and reason, to the bit."""
    model = student(feature_ranges=[[-2.0, 2.0]] * K)
    rows = np.random.default_rng(seed).normal(0.0, 1.0, (60, K))
    rows[3, 2], rows[5, 7], rows[7, 1] = np.nan, np.inf, 1e300
    scores, alone = model.score_rows(rows, threshold), model.row_scorer(threshold)

    for i, row in enumerate(rows):
        probability, direction, reason = alone.score(row)
        assert np.array_equal(probability, scores.probability_up[i], equal_nan=True)
        assert (direction, reason) == (scores.direction[i], scores.reason[i])


def test_a_row_scorer_refuses_what_it_cannot_score() -> None:
    """Another number of features, or a threshold that makes no sense, is an error with a reason."""
    model = student()

    with pytest.raises(UsageError, match=r"threshold 0\.4"):
        model.row_scorer(0.4)
    with pytest.raises(UsageError, match=r"scores 19 of swing_v1"):
        model.row_scorer(0.6).score(np.zeros(3))


def test_a_graph_that_lies_is_not_believed_row_by_row() -> None:
    """An answer outside [0, 1] raises, in a row as in a matrix."""
    alone = student().row_scorer(0.6)
    alone._run = lambda binding: alone._answer.fill(2.0)

    with pytest.raises(ModelFileInvalid, match="outside"):
        alone.score(np.zeros(K))
