"""The compiled strategy step: from a bar, the student's direction and a few slots of memory to a target.

`sqkit.strategy` loops it over a series or calls it bar by bar, and says there what the rule is.
The float64 state starts as zeros: the indicators' slots, then the target in force.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Final, cast

import numpy as np

from sqkit.bars import BAR_MINUTES, CLOSE, HIGH, LOW, MINUTE, SESSION, SESSION_MINUTES
from sqkit.features import compile_kernel as compiled
from sqkit.files import sha256_bytes
from sqkit.indicators import (
    ATR_SLOTS,
    EMA_SLOTS,
    RSI_SLOTS,
    atr_update,
    ema_update,
    kernel_source_digest,
    rsi_update,
)
from sqkit.records import BASELINE_STRATEGY, EXIT_REASON_CODES, STUDENT_MODEL

from numba import types  # isort: skip  (after sqkit.indicators, which sets how numba compiles)

RULE_MIN_STRENGTH: Final = 0.25
"""Below this strength the rule says FLAT."""
RULE_ATR_MULTIPLE: Final = 2.0
"""An EMA spread of this many ATRs is full strength."""

BASELINE_DIRECTION: Final = 0  # columns of the step's out row
BASELINE_STRENGTH: Final = 1
STRENGTH: Final = 2
TARGET: Final = 3
PREDICTION_SOURCE: Final = 4
EXIT_REASON: Final = 5
OUT_WIDTH: Final = 6

_FAST = 0
_SLOW = _FAST + EMA_SLOTS
_ATR = _SLOW + EMA_SLOTS
_RSI = _ATR + ATR_SLOTS
WANTED: Final = _RSI + RSI_SLOTS  # the target in force
HELD: Final = WANTED + 1  # session changes since it was entered
_DAY = HELD + 1  # session date of the last bar
BARS_SEEN: Final = _DAY + 1
STATE_SIZE: Final = BARS_SEEN + 1

_OPPOSITE = EXIT_REASON_CODES["opposite_signal"]
_WEAK = EXIT_REASON_CODES["strength_below_exit"]
_FLAT = EXIT_REASON_CODES["flat_signal"]
_SQUARE_OFF = EXIT_REASON_CODES["square_off"]
_MAX_HOLDING = EXIT_REASON_CODES["max_holding"]
_MISSED = EXIT_REASON_CODES["missed_square_off"]

# Positions in the parameters' values, in the order of StrategyParameters' attributes
_INTRADAY, _EMA_FAST, _EMA_SLOW, _ATR_BARS, _RSI_BARS, _RSI_HIGH, _RSI_LOW = range(7)
_ENTRY, _EXIT, _SQUARE_OFF_MINUTES, _MAX_SESSIONS, _ALLOW_SHORT, _AGREE, _DISAGREE = range(7, 14)


WARMING: Final = 0
"""The bar only warms the indicators; no position is wanted after it."""
TRADING: Final = 1
"""Positions may be entered and left."""
EXITS_ONLY: Final = 2
"""Positions may be left, none is entered; an opposite signal closes and opens nothing."""

Step = Callable[[np.ndarray, np.ndarray, int, int, np.ndarray, np.ndarray], None]


def _make_step(source: int) -> Step:
    """The step in Python; `source` identifies what it calls and imports.

    numba's cache looks at this file and at the values a function encloses, not at the functions
    it calls: the enclosed number makes the step with an edited indicator another function.
    """

    def step(
        state: np.ndarray,
        row: np.ndarray,
        student_direction: int,
        mode: int,
        p: np.ndarray,
        out: np.ndarray,
    ) -> None:
        if source < 0:
            return
        high, low, close = row[HIGH], row[LOW], row[CLOSE]
        side = 0.0
        rule_strength = 0.0
        if math.isfinite(high) and math.isfinite(low) and math.isfinite(close):
            fast = ema_update(state, _FAST, close, p[_EMA_FAST])
            slow = ema_update(state, _SLOW, close, p[_EMA_SLOW])
            atr = atr_update(state, _ATR, high, low, close, p[_ATR_BARS])
            rsi = rsi_update(state, _RSI, close, p[_RSI_BARS])
            spread = fast - slow
            if atr > 0.0 and math.isfinite(spread) and math.isfinite(rsi):
                rule_strength = min(abs(spread) / (RULE_ATR_MULTIPLE * atr), 1.0)
                if rule_strength >= RULE_MIN_STRENGTH:
                    if spread > 0.0 and rsi <= p[_RSI_HIGH]:
                        side = 1.0
                    elif spread < 0.0 and rsi >= p[_RSI_LOW]:
                        side = -1.0

        factor = 1.0
        if side * student_direction > 0.0:
            factor = p[_AGREE]
        elif side * student_direction < 0.0:
            factor = p[_DISAGREE]
        strength = min(max(rule_strength * factor, 0.0), 1.0)

        wanted = state[WANTED]
        reason = 0
        if state[BARS_SEEN] > 0.0 and row[SESSION] != state[_DAY]:
            state[HELD] += 1.0
            if p[_INTRADAY] > 0.0 and wanted != 0.0:
                wanted = 0.0
                reason = _MISSED
        closing = p[_INTRADAY] > 0.0 and (
            row[MINUTE] + row[BAR_MINUTES] >= row[SESSION_MINUTES] - p[_SQUARE_OFF_MINUTES]
        )
        entry = 0.0
        if side != 0.0 and strength >= p[_ENTRY]:
            entry = side * strength
        taken = 0.0
        if mode == TRADING and (entry > 0.0 or p[_ALLOW_SHORT] > 0.0):
            taken = entry
        if wanted != 0.0:
            held_side = 1.0 if wanted > 0.0 else -1.0
            if closing:
                wanted = 0.0
                reason = _SQUARE_OFF
            elif entry * held_side < 0.0:
                wanted = taken
                state[HELD] = 0.0
                reason = _OPPOSITE
            elif p[_MAX_SESSIONS] > 0.0 and state[HELD] >= p[_MAX_SESSIONS]:
                wanted = 0.0
                reason = _MAX_HOLDING
            elif held_side * side * strength < p[_EXIT]:
                wanted = 0.0
                reason = _FLAT if side == 0.0 and strength >= p[_EXIT] else _WEAK
        elif not closing:
            wanted = taken
            state[HELD] = 0.0
        if mode == WARMING:
            wanted = 0.0
            reason = 0
        state[WANTED] = wanted
        state[_DAY] = row[SESSION]
        state[BARS_SEEN] += 1.0

        out[BASELINE_DIRECTION] = side
        out[BASELINE_STRENGTH] = rule_strength
        out[STRENGTH] = strength
        out[TARGET] = wanted
        out[PREDICTION_SOURCE] = STUDENT_MODEL if factor != 1.0 else BASELINE_STRATEGY
        out[EXIT_REASON] = reason

    return step


_COLUMNS = (HIGH, LOW, CLOSE, SESSION, MINUTE, SESSION_MINUTES, BAR_MINUTES)
_CODES = (
    WARMING,
    TRADING,
    STUDENT_MODEL,
    BASELINE_STRATEGY,
    _OPPOSITE,
    _WEAK,
    _SQUARE_OFF,
    _MAX_HOLDING,
    _MISSED,
    _FLAT,
)
_ARRAY: Final = types.float64[::1]
_STEP: Final = types.void(_ARRAY, _ARRAY, types.int64, types.int64, _ARRAY, _ARRAY)
_LOOP: Final = types.void(
    types.FunctionType(_STEP),
    types.float64[:, ::1],
    types.int8[::1],
    types.int64,
    _ARRAY,
    _ARRAY,
    types.float64[:, ::1],
)


@cache
def strategy_step() -> Step:
    """The compiled step ``(state, bar_row, student_direction, mode, values, out)``: one bar, in place.

    float64 state (`STATE_SIZE`,) that starts as zeros, bar row (9,), direction -1, 0 or 1, mode
    `WARMING`, `TRADING` or `EXITS_ONLY`, `StrategyParameters.values`, out (`OUT_WIDTH`,). Compiled, or
    read from numba's cache, when first asked for.
    """
    frozen = repr((kernel_source_digest(), _COLUMNS, _CODES))
    return cast(Step, compiled(_STEP, _make_step(int(sha256_bytes(frozen.encode())[:15], 16)), cache=True))


@cache
def strategy_loop() -> Callable[..., None]:
    """The compiled loop ``(step, rows, student_directions, start, values, state, out)``."""
    return cast(Callable[..., None], compiled(_LOOP, _loop, cache=True))


def _loop(
    step: Step,
    rows: np.ndarray,
    student_directions: np.ndarray,
    start: int,
    values: np.ndarray,
    state: np.ndarray,
    out: np.ndarray,
) -> None:
    for i in range(len(rows)):
        step(state, rows[i], int(student_directions[i]), TRADING if i >= start else WARMING, values, out[i])
