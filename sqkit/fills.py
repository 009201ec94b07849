"""From wanted positions to fills, trades and daily P&L: one compiled step per bar.

The backtest loops the step (`simulate_fills`, `buy_and_hold`), a live host that trades on
paper calls it once a bar (`FillStream`). A decision on bar t becomes a market order of
floor(strength x capital / close of t) whole shares, filled at the open of bar t+1, slippage
against us and fees in. The size stays fixed until the exit; an order of no shares is no trade.

A trade begins when the target's side changes, so a target that was there before the window,
or whose order came to no shares, is not entered late. In the intraday strategy an order never
opens a position in a later session, and a position found at a session's first bar is closed
at that open: `missed_square_off`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from sqkit import fillstep
from sqkit.bars import OPEN, SESSION, BarArrays
from sqkit.costs import FeeSchedule, fee_schedule
from sqkit.errors import UsageError
from sqkit.records import FLAT, TRADE_FIELDS
from sqkit.strategy import StrategyParameters


@dataclass(frozen=True)
class Fills:
    """What a run of fills left behind, in the market's currency.

    Attributes
    ----------
    session_days
        int32 (d,), every session of the window that has a bar.
    net_pnl
        float64 (d,), change of equity from one session's close to the next, fees in.
    trades
        One array per `records.TRADE_FIELDS`, in order of entry; a position still open stands
        last, with exit_time 0, exit_price NaN and its mark so far as net_pnl.
    capital
        Equity at the start.
    cash, open_quantity, position_value
        At the end; signed shares and their value at the last close.
    """

    session_days: np.ndarray
    net_pnl: np.ndarray
    trades: dict[str, np.ndarray]
    capital: float
    cash: float
    open_quantity: int
    position_value: float

    @property
    def closed(self) -> np.ndarray:
        """bool (trades,), false for a position that is still open."""
        finished: np.ndarray = self.trades["exit_time"] != 0
        return finished

    @property
    def equity(self) -> float:
        """Cash and position together, at the end."""
        return self.cash + self.position_value


def simulate_fills(
    bars: BarArrays,
    targets: np.ndarray,
    strength: np.ndarray,
    student_direction: np.ndarray,
    exit_reason: np.ndarray,
    *,
    start: int,
    stop: int,
    capital: float,
    slippage_bps: float,
    schedule: FeeSchedule | str,
    parameters: StrategyParameters,
) -> Fills:
    """Trade the targets over the bars from `start` to `stop` (exclusive), flat at the start.

    Parameters
    ----------
    bars
        A symbol's series; the arrays beside it are by position in it and reach at least to `stop`.
    targets, strength, student_direction, exit_reason
        Columns of the strategy step: side of the wanted position, strength that sizes an entry,
        and what a trade's record says about entry and exit.
    capital
        What strength 1 buys shares for; also the cash at the start.
    slippage_bps
        Basis points of the open paid on each side.
    schedule
        Fees, or the name of their schedule.
    parameters
        Only the strategy matters here: ``intraday`` keeps nothing over a session's end.
    """
    state = np.zeros(fillstep.STATE_SIZE)
    state[fillstep.CASH] = capital
    if start > 0:
        state[fillstep.SIDE] = np.sign(targets[start - 1])
        state[fillstep.DAY] = bars.rows[start - 1, SESSION]
    window = slice(start, stop)
    return _trade_window(
        bars.slice(start, stop),
        np.require(targets[window], np.float64, ["C", "W"]),
        np.require(strength[window], np.float64, ["C", "W"]),
        np.require(student_direction[window], np.int8, ["C", "W"]),
        np.require(exit_reason[window], np.int8, ["C", "W"]),
        state,
        _book(capital, slippage_bps, parameters.strategy),
        _schedule(schedule),
    )


def buy_and_hold(
    bars: BarArrays,
    start: int,
    stop: int,
    *,
    capital: float,
    slippage_bps: float,
    schedule: FeeSchedule | str,
) -> Fills:
    """Whole shares for the capital at the window's first open, held and marked to its end.

    Nothing is decided before the window, so the size comes from the open itself.
    """
    part = bars.slice(start, stop)
    state = np.zeros(fillstep.STATE_SIZE)
    state[fillstep.CASH] = capital
    state[fillstep.SIDE] = 1.0
    state[fillstep.ORDERED_STRENGTH] = 1.0
    if len(part):
        state[fillstep.ORDERED] = math.floor(capital / part.rows[0, OPEN])
    held, nothing = np.ones(len(part)), np.zeros(len(part), dtype=np.int8)
    return _trade_window(
        part, held, held, nothing, nothing, state, _book(capital, slippage_bps, "swing"), _schedule(schedule)
    )


class FillStream:
    """The step for a host that trades on paper: one symbol, one bar at a time."""

    def __init__(
        self,
        *,
        capital: float,
        slippage_bps: float,
        schedule: FeeSchedule | str,
        parameters: StrategyParameters,
    ) -> None:
        self.capital = capital
        self.schedule = _schedule(schedule)
        self._step = fillstep.fill_step()
        self._book = _book(capital, slippage_bps, parameters.strategy)
        self._state = np.zeros(fillstep.STATE_SIZE)
        self._state[fillstep.CASH] = capital
        self._trade = np.zeros(fillstep.TRADE_WIDTH)
        self._rates = self.schedule.rates[0]
        self._entry_ns = 0
        self.opened = False

    @property
    def cash(self) -> float:
        """Cash now."""
        return float(self._state[fillstep.CASH])

    @property
    def quantity(self) -> int:
        """Signed shares held now."""
        return int(self._state[fillstep.QUANTITY])

    @property
    def equity(self) -> float:
        """Cash and position at the last close."""
        return float(self._state[fillstep.CASH] + self._state[fillstep.QUANTITY] * self._state[fillstep.MARK])

    def update(
        self,
        timestamp_ns: int,
        row: np.ndarray,
        target: float,
        strength: float,
        student: int,
        exit_reason: int,
    ) -> dict[str, Any] | None:
        """Advance by one bar and what the strategy step said about it.

        Returns
        -------
        dict or None
            The trade that was closed at this bar's open, fields `records.TRADE_FIELDS`. Whether one was
            opened there is then in `opened`, and `open_trade` gives it.
        """
        if row[SESSION] != self._state[fillstep.DAY] or self._state[fillstep.BAR] == 0.0:
            self._rates = self.schedule.rates_on(int(row[SESSION]))
        bar, entered_ns = self._state[fillstep.BAR], self._entry_ns
        closed = self._step(
            self._state, row, target, strength, student, exit_reason, self._rates, self._book, self._trade
        )
        self.opened = self._state[fillstep.QUANTITY] != 0.0 and self._state[fillstep.ENTRY_BAR] == bar
        if self.opened:
            self._entry_ns = timestamp_ns
        if not closed:
            return None
        columns = _trade_columns(self._trade[np.newaxis], np.array([entered_ns]), np.array([timestamp_ns]))
        return {name: column[0].item() for name, column in columns.items()}

    @property
    def orders(self) -> tuple[bool, int]:
        """What waits for the next bar's open: whether the position is closed, and signed shares to open."""
        return bool(self._state[fillstep.CLOSING]), int(self._state[fillstep.ORDERED])

    @property
    def leaving(self) -> int:
        """Exit reason of the order to close that waits; 0 where none does."""
        return int(self._state[fillstep.CLOSING_REASON]) if self._state[fillstep.CLOSING] else 0

    @property
    def open_trade(self) -> dict[str, Any] | None:
        """The position held, as a trade that is not closed: marked at the last close; None when flat."""
        if self._state[fillstep.QUANTITY] == 0.0:
            return None
        row = _open_trade(self._state)
        columns = _trade_columns(row[np.newaxis], np.array([self._entry_ns]), np.array([0]))
        return {name: column[0].item() for name, column in columns.items()}

    def adopt(self, quantity: int, at_ns: int, *, leaving: int = 0) -> None:
        """Hold so many signed shares from the last bar's close on: a host says what is real.

        Nothing is ordered but, where an exit reason is given, that they are closed at the next open: then it is the
        position that was held before, and keeps its entry.

        Parameters
        ----------
        at_ns
            When a position of another side was entered, as far as anybody knows; no student and no strength are.
        """
        state, held = self._state, float(quantity)
        before = state[fillstep.QUANTITY]
        state[fillstep.ORDERED] = 0.0
        state[fillstep.CLOSING] = leaving > 0
        state[fillstep.CLOSING_REASON] = leaving
        state[fillstep.SIDE] = 0.0 if leaving else np.sign(held)
        state[fillstep.QUANTITY] = held
        if held != before and not leaving:
            state[fillstep.ENTRY_PRICE] = state[fillstep.MARK]
            state[fillstep.ENTRY_DAY] = state[fillstep.DAY]
            state[fillstep.ENTRY_FEES] = 0.0
            if np.sign(held) != np.sign(before):
                self._entry_ns = at_ns
                state[fillstep.ENTRY_STRENGTH] = 0.0
                state[fillstep.ENTRY_STUDENT] = FLAT

    def snapshot(self) -> np.ndarray:
        """float64 (`fillstep.STATE_SIZE` + 1,), everything a restarted process needs for `restore`."""
        return np.append(self._state, np.array([self._entry_ns]).view(np.float64))

    def restore(self, snapshot: np.ndarray) -> None:
        """Go on from a snapshot."""
        self._state[:] = snapshot[:-1]
        self._entry_ns = int(snapshot[-1:].view(np.int64)[0])
        if self._state[fillstep.BAR] > 0.0:
            self._rates = self.schedule.rates_on(int(self._state[fillstep.DAY]))


def _book(capital: float, slippage_bps: float, strategy: str) -> np.ndarray:
    return np.array([capital, slippage_bps / 10_000.0, strategy == "intraday"], dtype=np.float64)


def _schedule(schedule: FeeSchedule | str) -> FeeSchedule:
    return fee_schedule(schedule) if isinstance(schedule, str) else schedule


def _trade_window(
    bars: BarArrays,
    targets: np.ndarray,
    strength: np.ndarray,
    student: np.ndarray,
    exit_reason: np.ndarray,
    state: np.ndarray,
    book: np.ndarray,
    schedule: FeeSchedule,
) -> Fills:
    if not len(bars) == len(targets) == len(strength) == len(student) == len(exit_reason):
        raise UsageError(
            f"{bars.symbol}: {len(bars)} bars in the window but columns of {len(targets)}, {len(strength)}, "
            f"{len(student)} and {len(exit_reason)}; give each up to the window's end"
        )
    days = bars.session_days
    first_bars = np.flatnonzero(np.diff(days, prepend=days[:1] - 1))
    session_days = days[first_bars]
    equity = np.empty(len(session_days))
    raw = fillstep.fill_loop()(
        fillstep.fill_step(),
        np.require(bars.rows, np.float64, ["C", "W"]),
        targets,
        strength,
        student,
        exit_reason,
        first_bars.astype(np.int64),
        schedule.rows_on(session_days),
        schedule.rates,
        book,
        state,
        equity,
    )
    entries, exits = (
        raw[:, fillstep.TRADE_ENTRY_BAR].astype(np.int64),
        raw[:, fillstep.TRADE_EXIT_BAR].astype(np.int64),
    )
    entry_ns, exit_ns = bars.timestamp_ns[entries], bars.timestamp_ns[exits]
    if state[fillstep.QUANTITY] != 0.0:
        raw = np.vstack([raw, _open_trade(state)])
        entry_ns = np.append(entry_ns, bars.timestamp_ns[int(state[fillstep.ENTRY_BAR])])
        exit_ns = np.append(exit_ns, 0)
    capital = float(book[fillstep.CAPITAL])
    fills = Fills(
        session_days=session_days,
        net_pnl=np.diff(equity, prepend=capital),
        trades=_trade_columns(raw, entry_ns, exit_ns),
        capital=capital,
        cash=float(state[fillstep.CASH]),
        open_quantity=int(state[fillstep.QUANTITY]),
        position_value=float(state[fillstep.QUANTITY] * state[fillstep.MARK]),
    )
    # Two ways to the same money, after every run: cash and position, and trade by trade.
    earned = fills.equity - capital
    assert abs(earned - fills.trades["net_pnl"].sum()) <= 1e-9 * capital, "cash + positions is not equity"
    assert abs(earned - fills.net_pnl.sum()) <= 1e-9 * capital, "daily P&L does not add up to equity"
    return fills


def _open_trade(state: np.ndarray) -> np.ndarray:
    trade = np.zeros(fillstep.TRADE_WIDTH)
    trade[fillstep.TRADE_ENTRY_BAR] = state[fillstep.ENTRY_BAR]
    trade[fillstep.TRADE_ENTRY_DAY] = state[fillstep.ENTRY_DAY]
    trade[fillstep.TRADE_QUANTITY] = state[fillstep.QUANTITY]
    trade[fillstep.TRADE_ENTRY_PRICE] = state[fillstep.ENTRY_PRICE]
    trade[fillstep.TRADE_EXIT_PRICE] = np.nan
    trade[fillstep.TRADE_FEES] = state[fillstep.ENTRY_FEES]
    trade[fillstep.TRADE_NET_PNL] = (
        state[fillstep.QUANTITY] * (state[fillstep.MARK] - state[fillstep.ENTRY_PRICE])
        - state[fillstep.ENTRY_FEES]
    )
    trade[fillstep.TRADE_STRENGTH] = state[fillstep.ENTRY_STRENGTH]
    trade[fillstep.TRADE_STUDENT] = state[fillstep.ENTRY_STUDENT]
    return trade


def _trade_columns(raw: np.ndarray, entry_ns: np.ndarray, exit_ns: np.ndarray) -> dict[str, np.ndarray]:
    columns = {
        "entry_time": entry_ns,
        "exit_time": exit_ns,
        "entry_session_date": raw[:, fillstep.TRADE_ENTRY_DAY],
        "exit_session_date": raw[:, fillstep.TRADE_EXIT_DAY],
        "direction": np.sign(raw[:, fillstep.TRADE_QUANTITY]),
        "quantity": np.abs(raw[:, fillstep.TRADE_QUANTITY]),
        "entry_price": raw[:, fillstep.TRADE_ENTRY_PRICE],
        "exit_price": raw[:, fillstep.TRADE_EXIT_PRICE],
        "fees": raw[:, fillstep.TRADE_FEES],
        "net_pnl": raw[:, fillstep.TRADE_NET_PNL],
        "exit_reason": raw[:, fillstep.TRADE_REASON],
        "entry_strength": raw[:, fillstep.TRADE_STRENGTH],
        "student_at_entry": raw[:, fillstep.TRADE_STUDENT],
    }
    return {name: columns[name].astype(kind) for name, kind in TRADE_FIELDS.items()}
