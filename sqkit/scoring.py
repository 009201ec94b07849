"""The scoring decision, compiled: is a row fit to be scored, and which direction is its probability.

`StudentModel.score_rows` runs these loops over a matrix, `RowScorer` over a matrix of one row: one
definition, so backtest and engine abstain on the same rows. In: features as float64. Out: what the
graph is given (float32), a reason for each row, and after the graph has answered a direction.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Final, cast

import numpy as np

from sqkit.features import compile_kernel
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
_LIMITS: Final = types.float32[::1]
_CODES: Final = types.int8[::1]
_NUMBERS: Final = types.float64[::1]
_SCREEN: Final = types.int64(_ROWS64, _LIMITS, _LIMITS, _ROWS32, _CODES)
_CALL: Final = types.boolean(_NUMBERS, types.float64, _CODES, _CODES)


def _screen(
    features: np.ndarray, lowest: np.ndarray, highest: np.ndarray, narrow: np.ndarray, reason: np.ndarray
) -> int:
    usable = 0
    for i in range(len(features)):
        finite = True
        inside = True
        for j in range(features.shape[1]):
            value = features[i, j]
            small = np.float32(value)
            narrow[i, j] = small
            if not math.isfinite(value):
                finite = False
            if not (lowest[j] <= small <= highest[j]):
                inside = False
        if not finite:
            reason[i] = _NON_FINITE
        elif not inside:
            reason[i] = _OUT_OF_DISTRIBUTION
        else:
            reason[i] = _SCORED
            usable += 1
    return usable


def _call(probability: np.ndarray, threshold: float, direction: np.ndarray, reason: np.ndarray) -> bool:
    sound = True
    for i in range(len(probability)):
        direction[i] = FLAT
        if reason[i] != _SCORED:
            continue
        p = probability[i]
        if not 0.0 <= p <= 1.0:
            sound = False
        elif p >= threshold:
            direction[i] = LONG
        elif 1.0 - p >= threshold:
            direction[i] = SHORT
        else:
            reason[i] = _LOW_CONFIDENCE
    return sound


@cache
def screen() -> Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray], int]:
    """The compiled loop ``(features, lowest, highest, narrow, reason) -> usable``.

    float64 (n, k), float32 (k,) twice; fills float32 (n, k), what the graph is given, and int8 (n,):
    ``scored`` where every feature is finite and inside the training ranges, ends included, else why not.
    """
    return cast(
        Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray], int],
        compile_kernel(_SCREEN, _screen, cache=True),
    )


@cache
def call() -> Callable[[np.ndarray, float, np.ndarray, np.ndarray], bool]:
    """The compiled loop ``(probability, threshold, direction, reason) -> sound``.

    Fills the direction of each row whose reason is ``scored``, LONG when ``p >= threshold``, else SHORT
    when ``1 - p >= threshold``, else FLAT with the reason ``low_confidence``. False where a value is no
    probability.
    """
    return cast(
        Callable[[np.ndarray, float, np.ndarray, np.ndarray], bool],
        compile_kernel(_CALL, _call, cache=True),
    )
