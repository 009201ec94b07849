"""The scoring decision, compiled: is a row fit to be scored, and which direction is its probability.

`StudentModel.score_rows` runs the loops over a matrix, `RowScorer` the functions that they loop over one
row: one definition, so backtest and engine abstain on the same rows. In: features as float64. Out: what the
graph is given (float32), a reason for each row, and after the graph has answered a direction.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Final, cast

import numpy as np

from sqkit.features import compile_kernel
from sqkit.indicators import kernel
from sqkit.records import FLAT, LONG, REASON_CODES, SHORT

from numba import types  # isort: skip  (after sqkit.features, which sets how numba compiles)

_SCORED: Final = REASON_CODES["scored"]
_LOW_CONFIDENCE: Final = REASON_CODES["low_confidence"]
_OUT_OF_DISTRIBUTION: Final = REASON_CODES["out_of_distribution"]
_NON_FINITE: Final = REASON_CODES["non_finite_feature"]
# Cached machine code has these frozen in; whoever moves them must edit this file too.
assert (_SCORED, _LOW_CONFIDENCE, _OUT_OF_DISTRIBUTION, _NON_FINITE) == (0, 3, 6, 14)
assert (LONG, FLAT, SHORT) == (1, 0, -1)

_ROWS64: Final = types.float64[:, ::1]
_ROWS32: Final = types.float32[:, ::1]
_ROW64: Final = types.float64[::1]
_ROW32: Final = types.float32[::1]
_CODES: Final = types.int8[::1]
_SCREEN_ROW: Final = types.int64(_ROW64, _ROW32, _ROW32, _ROW32)
_SCREEN: Final = types.void(_ROWS64, _ROW32, _ROW32, _ROWS32, _CODES)
_CALL: Final = types.boolean(_ROW64, types.float64, _CODES, _CODES)

NO_PROBABILITY: Final = 2
"""What `call_one` says of a value outside [0, 1]."""


def _screen_row(features: np.ndarray, lowest: np.ndarray, highest: np.ndarray, narrow: np.ndarray) -> int:
    finite = True
    inside = True
    for j in range(len(features)):
        value = features[j]
        small = np.float32(value)
        narrow[j] = small
        if not math.isfinite(value):
            finite = False
        if not (lowest[j] <= small <= highest[j]):
            inside = False
    if not finite:
        return _NON_FINITE
    if not inside:
        return _OUT_OF_DISTRIBUTION
    return _SCORED


def call_one(probability: float, threshold: float) -> int:
    """The direction of one row; the compiled loop runs this very function.

    LONG when ``p >= threshold``, else SHORT when ``1 - p >= threshold``, else FLAT; `NO_PROBABILITY` for a
    value outside [0, 1].
    """
    if not 0.0 <= probability <= 1.0:
        return NO_PROBABILITY
    if probability >= threshold:
        return LONG
    if 1.0 - probability >= threshold:
        return SHORT
    return FLAT


_screen_row_kernel = kernel(_screen_row)
_call_one_kernel = kernel(call_one)


def _screen(
    features: np.ndarray, lowest: np.ndarray, highest: np.ndarray, narrow: np.ndarray, reason: np.ndarray
) -> None:
    for i in range(len(features)):
        reason[i] = _screen_row_kernel(features[i], lowest, highest, narrow[i])


def _call(probability: np.ndarray, threshold: float, direction: np.ndarray, reason: np.ndarray) -> bool:
    sound = True
    for i in range(len(probability)):
        direction[i] = FLAT
        if reason[i] != _SCORED:
            continue
        said = _call_one_kernel(probability[i], threshold)
        if said == NO_PROBABILITY:
            sound = False
        elif said == FLAT:
            reason[i] = _LOW_CONFIDENCE
        else:
            direction[i] = said
    return sound


@cache
def screen_row() -> Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], int]:
    """The compiled ``(features, lowest, highest, narrow) -> reason`` of one row.

    float64 (k,), float32 (k,) twice; fills float32 (k,), what the graph is given. ``scored`` where every
    feature is finite and inside the training ranges, ends included, else why not.
    """
    return cast(
        Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], int],
        compile_kernel(_SCREEN_ROW, _screen_row, cache=True),
    )


@cache
def screen() -> Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray], None]:
    """The compiled loop ``(features, lowest, highest, narrow, reason)`` of `screen_row` over a matrix."""
    return cast(
        Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray], None],
        compile_kernel(_SCREEN, _screen, cache=True),
    )


@cache
def call() -> Callable[[np.ndarray, float, np.ndarray, np.ndarray], bool]:
    """The compiled loop ``(probability, threshold, direction, reason) -> sound`` of `call_one`.

    Fills the direction of each row whose reason is ``scored``; FLAT gets the reason ``low_confidence``.
    False where a value is no probability.
    """
    return cast(
        Callable[[np.ndarray, float, np.ndarray, np.ndarray], bool],
        compile_kernel(_CALL, _call, cache=True),
    )
