"""What a fill costs: fee schedules whose rates change on dates, as charged in their market.

A schedule is a table of rates with the session date from which each row holds. One
compiled function charges one fill; the backtest, the live book and `fees` all call it.
Slippage is no fee: `sqkit.fills` puts it into the price.

``nse_mis`` (intraday product) and ``nse_cnc`` (delivery product) are what a discount
broker's contract note shows in rupees; ``us_flat`` and ``flat_bps:<n>`` charge basis
points of the value on each side.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final, cast

import numpy as np

from sqkit.errors import SettingsError
from sqkit.features import compile_kernel as compiled
from sqkit.files import sha256_file
from sqkit.indicators import kernel
from sqkit.records import iso_date, session_day

BUY: Final = 1
SELL: Final = -1

BROKERAGE: Final = 0  # share of the value ...
BROKERAGE_CAP: Final = 1  # ... but never more than this per fill
TRANSACTION: Final = 2  # the exchange, its investor protection fund included
REGULATOR: Final = 3  # SEBI turnover fee
STAMP_BUY: Final = 4
STAMP_SELL: Final = 5
TAX_BUY: Final = 6  # securities transaction tax
TAX_SELL: Final = 7
SERVICE_TAX: Final = 8  # GST, before it service tax: on brokerage, transaction and regulator
ROUNDED: Final = 9  # 1: tax to the whole rupee, the fill's total to the paisa
RATE_NAMES: Final = (
    "brokerage",
    "brokerage_cap",
    "transaction",
    "regulator",
    "stamp_buy",
    "stamp_sell",
    "transaction_tax_buy",
    "transaction_tax_sell",
    "service_tax",
    "rounded",
)

_FILL_FEES: Final = "float64(int64, float64, float64, float64[::1])"

_CRORE = 1e7
# What lies this close below a half is a half: 0.00025 x 2,000 must not depend on binary fractions.
_HALF = 0.5 + 1e-9

_History = tuple[tuple[str, float], ...]

# Rupees a crore of turnover, in turn: 325; +6 % for the investor protection fund (IPFT); rolled back, with
# 10 for the fund charged beside it; -1 %; one rate for every member, 297 + 10.
_TRANSACTION: _History = (
    ("1970-01-01", 325 / _CRORE),
    ("2021-01-01", 345 / _CRORE),
    ("2023-04-01", 335 / _CRORE),
    ("2024-04-01", 332 / _CRORE),
    ("2024-10-01", 307 / _CRORE),
)
# SEBI (Payment of Fees) regulations and their amendments; halved from June 2020 to March 2021.
_REGULATOR: _History = (
    ("1970-01-01", 20 / _CRORE),
    ("2017-04-01", 15 / _CRORE),
    ("2019-04-01", 10 / _CRORE),
    ("2020-06-01", 5 / _CRORE),
    ("2021-04-01", 10 / _CRORE),
)
# Service tax with its cesses, then GST.
_SERVICE_TAX: _History = (
    ("1970-01-01", 0.1236),
    ("2009-02-24", 0.1030),
    ("2012-04-01", 0.1236),
    ("2015-06-01", 0.14),
    ("2015-11-15", 0.145),
    ("2016-06-01", 0.15),
    ("2017-07-01", 0.18),
)
# Stamp duty was a state's until 2020-06-30: Maharashtra's rates, both sides. Then one rate, buyer only.
_INTRADAY: dict[int, _History] = {
    BROKERAGE: (("1970-01-01", 0.0003),),
    BROKERAGE_CAP: (("1970-01-01", 20.0),),
    STAMP_BUY: (("1970-01-01", 0.00002), ("2020-07-01", 0.00003)),
    STAMP_SELL: (("1970-01-01", 0.00002), ("2020-07-01", 0.0)),
    TAX_SELL: (("1970-01-01", 0.00025),),
}
_DELIVERY: dict[int, _History] = {
    STAMP_BUY: (("1970-01-01", 0.0001), ("2020-07-01", 0.00015)),
    STAMP_SELL: (("1970-01-01", 0.0001), ("2020-07-01", 0.0)),
    TAX_BUY: (("1970-01-01", 0.00125), ("2012-07-01", 0.001)),
    TAX_SELL: (("1970-01-01", 0.00125), ("2012-07-01", 0.001)),
}
_NSE: dict[int, _History] = {
    TRANSACTION: _TRANSACTION,
    REGULATOR: _REGULATOR,
    SERVICE_TAX: _SERVICE_TAX,
    ROUNDED: (("1970-01-01", 1.0),),
}
_NSE_NOTES: Final = (
    "brokerage of a discount broker, at every date",
    "transaction charges as charged, the investor protection fund's contribution included",
    "stamp duty before 2020-07-01 was a state's: Maharashtra's rates on both sides are used",
    "the transaction charge of 2009 to 2020 and the tax rates of 2006 stand for every earlier date too",
    "transaction tax rounded to the rupee and each fill's total to the paisa",
)
_US_FLAT_BPS = 1.0


@dataclass(frozen=True)
class FeeSchedule:
    """Rates by date.

    Attributes
    ----------
    name
        As `fee_schedule` takes it.
    effective_days
        int32 (r,), session dates (days since 1970-01-01) from which each row holds, ascending;
        the first row also holds before its date.
    rates
        float64 (r, 10), columns `RATE_NAMES`.
    notes
        Choices a reader of the figures must know.
    """

    name: str
    effective_days: np.ndarray = field(repr=False)
    rates: np.ndarray = field(repr=False)
    notes: tuple[str, ...] = ()

    def rows_on(self, session_days: np.ndarray) -> np.ndarray:
        """int64, for every session date the row of `rates` that holds on it."""
        rows = np.searchsorted(self.effective_days, session_days, "right") - 1
        return np.maximum(rows, 0).astype(np.int64)

    def rates_on(self, day: int) -> np.ndarray:
        """float64 (10,), the rates of a session date."""
        rates: np.ndarray = self.rates[self.rows_on(np.array([day]))[0]]
        return rates

    def describe(self) -> dict[str, Any]:
        """Name, notes and every row, ready for JSON; an absent brokerage cap is None."""
        return {
            "name": self.name,
            "notes": list(self.notes),
            "rows": [
                {"effective_from": iso_date(day)}
                | {
                    name: None if math.isinf(rate) else float(rate)
                    for name, rate in zip(RATE_NAMES, row, strict=True)
                }
                for day, row in zip(self.effective_days, self.rates, strict=True)
            ],
        }


@kernel
def fill_fees(side: int, price: float, quantity: float, rates: np.ndarray) -> float:
    """All charges of one fill, in the market's currency; `rates` is one row of a schedule."""
    value = price * quantity
    brokerage: float = min(value * rates[BROKERAGE], rates[BROKERAGE_CAP])
    transaction: float = value * rates[TRANSACTION]
    regulator: float = value * rates[REGULATOR]
    services: float = rates[SERVICE_TAX] * (brokerage + transaction + regulator)
    stamp: float = value * (rates[STAMP_BUY] if side > 0 else rates[STAMP_SELL])
    tax: float = value * (rates[TAX_BUY] if side > 0 else rates[TAX_SELL])
    if rates[ROUNDED] == 0.0:
        return brokerage + transaction + regulator + services + stamp + tax
    total = brokerage + transaction + regulator + services + stamp + math.floor(tax + _HALF)
    return math.floor(total * 100.0 + _HALF) / 100.0


def fees(schedule: FeeSchedule, side: int, price: float, quantity: int, date: dt.date) -> float:
    """All charges of one fill.

    Parameters
    ----------
    schedule
        From `fee_schedule`.
    side
        `BUY` or `SELL`.
    price
        Price of the fill, slippage included.
    quantity
        Shares, positive.
    date
        The fill's session date.
    """
    return _fill_fees()(side, float(price), float(quantity), schedule.rates_on(session_day(date)))


@cache
def _fill_fees() -> Callable[[int, float, float, np.ndarray], float]:
    function = fill_fees.py_func  # type: ignore[attr-defined]
    return cast(Callable[[int, float, float, np.ndarray], float], compiled(_FILL_FEES, function, cache=True))


def fees_source_digest() -> str:
    """SHA-256 of this file: for whoever caches machine code that contains `fill_fees`."""
    return sha256_file(Path(__file__))


@lru_cache(maxsize=64)
def fee_schedule(name: str) -> FeeSchedule:
    """The schedule of a name: ``nse_mis``, ``nse_cnc``, ``us_flat`` or ``flat_bps:<n>``.

    Raises
    ------
    SettingsError
        No schedule has this name, or its basis points are no number of at least 0.
    """
    if name == "nse_mis":
        return _dated(name, _NSE | _INTRADAY)
    if name == "nse_cnc":
        return _dated(name, _NSE | _DELIVERY)
    if name == "us_flat":
        return _flat(name, _US_FLAT_BPS)
    kind, _, number = name.partition(":")
    try:
        bps = float(number)
    except ValueError:
        bps = math.nan
    if kind != "flat_bps" or not (0.0 <= bps < 10_000.0):
        raise SettingsError(
            f"SENSEQUANT_COST_SCHEDULE={name}: no such fee schedule; use nse_mis, nse_cnc, us_flat or "
            "flat_bps:<basis points a side>, or leave it empty for the market's own",
            name=name,
        )
    return _flat(name, bps)


def _dated(name: str, histories: dict[int, _History]) -> FeeSchedule:
    dates = sorted({date for history in histories.values() for date, _ in history})
    rates = np.zeros((len(dates), len(RATE_NAMES)))
    for column, history in histories.items():
        for date, rate in history:
            rates[dates.index(date) :, column] = rate
    days = [session_day(dt.date.fromisoformat(date)) for date in dates]
    return FeeSchedule(name, np.array(days, dtype=np.int32), rates, _NSE_NOTES)


def _flat(name: str, bps: float) -> FeeSchedule:
    rates = np.zeros((1, len(RATE_NAMES)))
    rates[0, BROKERAGE] = bps / 10_000.0
    rates[0, BROKERAGE_CAP] = np.inf
    return FeeSchedule(
        name, np.zeros(1, dtype=np.int32), rates, (f"{bps:g} basis points of the value a side",)
    )
