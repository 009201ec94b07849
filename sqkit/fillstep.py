"""The compiled fill step: orders of the bar before meet this bar's open, then this bar's decision makes orders.

`sqkit.fills` loops it over a window or calls it bar by bar, and says there what the rules are.
In: a float64 state of the slots below, a bar row, what the strategy step said, the rates of the
session date and the book (capital, slippage, kind of strategy). Out: the state, and a trade's row
when one was finished.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Final, cast

import numpy as np

from sqkit.bars import CLOSE, OPEN, SESSION
from sqkit.costs import BUY, SELL, fees_source_digest, fill_fees
from sqkit.features import compile_kernel as compiled
from sqkit.files import sha256_bytes
from sqkit.indicators import kernel_source_digest
from sqkit.records import EXIT_REASON_CODES

from numba import types  # isort: skip  (after sqkit.indicators, which sets how numba compiles)

CASH = 0
QUANTITY = 1  # signed shares held
SIDE = 2  # side of the last target
CLOSING = 3  # 1: an order to close waits for the next open
CLOSING_REASON = 4
ORDERED = 5  # signed shares to open at the next open
ORDERED_STRENGTH = 6
ORDERED_STUDENT = 7
MARK = 8  # last close
DAY = 9  # session date of the last bar
BAR = 10  # bars seen
ENTRY_BAR = 11
ENTRY_DAY = 12
ENTRY_PRICE = 13
ENTRY_FEES = 14
ENTRY_STRENGTH = 15
ENTRY_STUDENT = 16
STATE_SIZE: Final = 17

# A finished trade, as the step writes it; times are bar numbers here and become instants outside.
(
    TRADE_ENTRY_BAR,
    TRADE_EXIT_BAR,
    TRADE_ENTRY_DAY,
    TRADE_EXIT_DAY,
    TRADE_QUANTITY,
    TRADE_ENTRY_PRICE,
    TRADE_EXIT_PRICE,
) = range(7)
TRADE_FEES, TRADE_NET_PNL, TRADE_REASON, TRADE_STRENGTH, TRADE_STUDENT = range(7, 12)
TRADE_WIDTH: Final = 12

CAPITAL, SLIPPAGE, INTRADAY = range(3)

_OPPOSITE = EXIT_REASON_CODES["opposite_signal"]
_WEAK = EXIT_REASON_CODES["strength_below_exit"]
_MISSED = EXIT_REASON_CODES["missed_square_off"]


Step = Callable[..., bool]


def _make_step(source: int) -> Step:
    """The step in Python; `source` identifies what it calls and imports, which numba's cache does not look at."""

    def step(
        state: np.ndarray,
        row: np.ndarray,
        target: float,
        strength: float,
        student: int,
        exit_reason: int,
        rates: np.ndarray,
        p: np.ndarray,
        trade: np.ndarray,
    ) -> bool:
        if source < 0:
            return False
        closed = False
        if p[INTRADAY] > 0.0 and row[SESSION] != state[DAY]:
            state[ORDERED] = 0.0
            state[SIDE] = 0.0
            if state[QUANTITY] != 0.0:
                state[CLOSING] = 1.0
                state[CLOSING_REASON] = _MISSED

        # Orders of the bar before meet this bar's open.
        if state[CLOSING] > 0.0:
            held = state[QUANTITY]
            side = SELL if held > 0.0 else BUY
            price = row[OPEN] * (1.0 + side * p[SLIPPAGE])
            charged = fill_fees(side, price, abs(held), rates)
            state[CASH] += held * price - charged
            trade[TRADE_ENTRY_BAR] = state[ENTRY_BAR]
            trade[TRADE_EXIT_BAR] = state[BAR]
            trade[TRADE_ENTRY_DAY] = state[ENTRY_DAY]
            trade[TRADE_EXIT_DAY] = row[SESSION]
            trade[TRADE_QUANTITY] = held
            trade[TRADE_ENTRY_PRICE] = state[ENTRY_PRICE]
            trade[TRADE_EXIT_PRICE] = price
            trade[TRADE_FEES] = state[ENTRY_FEES] + charged
            trade[TRADE_NET_PNL] = held * (price - state[ENTRY_PRICE]) - trade[TRADE_FEES]
            trade[TRADE_REASON] = state[CLOSING_REASON]
            trade[TRADE_STRENGTH] = state[ENTRY_STRENGTH]
            trade[TRADE_STUDENT] = state[ENTRY_STUDENT]
            state[QUANTITY] = 0.0
            state[CLOSING] = 0.0
            closed = True
        if state[ORDERED] != 0.0:
            ordered = state[ORDERED]
            side = BUY if ordered > 0.0 else SELL
            price = row[OPEN] * (1.0 + side * p[SLIPPAGE])
            charged = fill_fees(side, price, abs(ordered), rates)
            state[CASH] -= ordered * price + charged
            state[QUANTITY] = ordered
            state[ENTRY_BAR] = state[BAR]
            state[ENTRY_DAY] = row[SESSION]
            state[ENTRY_PRICE] = price
            state[ENTRY_FEES] = charged
            state[ENTRY_STRENGTH] = state[ORDERED_STRENGTH]
            state[ENTRY_STUDENT] = state[ORDERED_STUDENT]
            state[ORDERED] = 0.0

        # The decision at this bar's close.
        side_wanted = 1.0 if target > 0.0 else -1.0 if target < 0.0 else 0.0
        if side_wanted != state[SIDE]:
            state[SIDE] = side_wanted
            if state[QUANTITY] != 0.0:
                state[CLOSING] = 1.0
                state[CLOSING_REASON] = exit_reason
                if exit_reason == 0:
                    state[CLOSING_REASON] = _OPPOSITE if side_wanted != 0.0 else _WEAK
            state[ORDERED] = side_wanted * math.floor(strength * p[CAPITAL] / row[CLOSE])
            state[ORDERED_STRENGTH] = strength
            state[ORDERED_STUDENT] = student
        state[MARK] = row[CLOSE]
        state[DAY] = row[SESSION]
        state[BAR] += 1.0
        return closed

    return step


_FROZEN = (OPEN, CLOSE, SESSION, BUY, SELL, _OPPOSITE, _WEAK, _MISSED)
_ARRAY: Final = types.float64[::1]
_TABLE: Final = types.float64[:, ::1]
_STEP: Final = types.boolean(
    _ARRAY, _ARRAY, types.float64, types.float64, types.int64, types.int64, _ARRAY, _ARRAY, _ARRAY
)
_LOOP: Final = _TABLE(
    types.FunctionType(_STEP),
    _TABLE,
    _ARRAY,
    _ARRAY,
    types.int8[::1],
    types.int8[::1],
    types.int64[::1],
    types.int64[::1],
    _TABLE,
    _ARRAY,
    _ARRAY,
    _ARRAY,
)


@cache
def fill_step() -> Step:
    """The compiled step: one bar, in place.

    ``(state, bar_row, target, strength, student, exit_reason, rates, book, trade)``; returns whether
    a trade was finished at this bar's open, whose row is then in `trade`. Compiled, or read from
    numba's cache, when first asked for.
    """
    frozen = repr((kernel_source_digest(), fees_source_digest(), _FROZEN))
    return cast(Step, compiled(_STEP, _make_step(int(sha256_bytes(frozen.encode())[:15], 16)), cache=True))


@cache
def fill_loop() -> Callable[..., np.ndarray]:
    """The compiled loop over a window; fills `equity` (one value a session) and returns the trades' rows."""
    return cast(Callable[..., np.ndarray], compiled(_LOOP, _loop, cache=True))


def _loop(
    step: Step,
    rows: np.ndarray,
    targets: np.ndarray,
    strength: np.ndarray,
    student: np.ndarray,
    exit_reason: np.ndarray,
    first_bars: np.ndarray,
    rate_rows: np.ndarray,
    rates: np.ndarray,
    book: np.ndarray,
    state: np.ndarray,
    equity: np.ndarray,
) -> np.ndarray:
    trades = np.empty((16, TRADE_WIDTH))
    count = 0
    session = 0
    for i in range(len(rows)):
        if session + 1 < len(first_bars) and i == first_bars[session + 1]:
            session += 1
        if count == len(trades):
            longer = np.empty((2 * count, TRADE_WIDTH))
            longer[:count] = trades
            trades = longer
        if step(
            state,
            rows[i],
            targets[i],
            strength[i],
            int(student[i]),
            int(exit_reason[i]),
            rates[rate_rows[session]],
            book,
            trades[count],
        ):
            count += 1
        equity[session] = state[CASH] + state[QUANTITY] * state[MARK]
    return trades[:count].copy()
