"""What trading cost, day by day, from the stored trades: fees and slippage of every fill.

The evidence asks how the result stands when costs double or treble. In: trades as stored, the
schedule and slippage they were made with. Out: a share of capital for each session date.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np

from sqkit.costs import BUY, SELL, FeeSchedule, fee_schedule, fees
from sqkit.records import LONG, iso_date
from sqkit.research.accuracy import AccuracyAnalyzer


def portfolio_costs(
    analyzer: AccuracyAnalyzer, role: str, session_days: np.ndarray, runtime: dict[str, Any]
) -> np.ndarray:
    """Mean over the symbols listed on a day of that day's costs / capital, float (d,).

    The costs are averaged as the daily returns of the portfolio are, so they can be taken off again.
    """
    schedule = fee_schedule(runtime["cost_schedule"])
    total, listed = np.zeros(len(session_days)), np.zeros(len(session_days))
    for symbol in analyzer.symbols:
        days, costs = fill_costs(analyzer.trades(symbol, role), schedule, runtime["slippage_bps"])
        np.add.at(total, np.searchsorted(session_days, days), costs / runtime["capital_per_symbol"])
        listed[np.searchsorted(session_days, analyzer.listed_days(symbol))] += 1.0
    return np.divide(total, listed, out=np.zeros(len(session_days)), where=listed > 0.0)


def fill_costs(
    trades: dict[str, np.ndarray], schedule: FeeSchedule, slippage_bps: float
) -> tuple[np.ndarray, np.ndarray]:
    """Session date and cost of every fill: the entries first, then the exits of closed trades.

    A trade stores the fees of both legs as one sum; the entry's are computed again by the schedule
    and the exit's are what is left.

    Returns
    -------
    tuple of arrays
        int (k,) session dates and float (k,) costs in the market's currency.
    """
    closed = trades["exit_time"] != 0
    is_long = trades["direction"] == LONG
    entry_fees = np.array(
        [
            fees(schedule, BUY if long else SELL, price, quantity, dt.date.fromisoformat(iso_date(day)))
            for long, price, quantity, day in zip(
                is_long,
                trades["entry_price"],
                trades["quantity"],
                trades["entry_session_date"],
                strict=True,
            )
        ],
        dtype=np.float64,
    )
    share = slippage_bps / 10_000.0
    against = np.where(is_long, share, -share)  # a buyer pays more than the open, a seller gets less
    entry_slippage = trades["quantity"] * trades["entry_price"] * share / (1.0 + against)
    exit_slippage = trades["quantity"] * trades["exit_price"] * share / (1.0 - against)
    exit_costs = trades["fees"] - entry_fees + exit_slippage
    days = np.concatenate([trades["entry_session_date"], trades["exit_session_date"][closed]])
    return days, np.concatenate([entry_fees + entry_slippage, exit_costs[closed]])
