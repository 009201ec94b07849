"""Our fills against backtesting.py: it gets bars and targets, never a price or fill of ours.

Order sizes, cancelled entries, missed square-offs and the fee formula are stated here once
more, from the design and the exchange's published rates, in other words and other arithmetic
(exact decimals) than the package's.
"""

from __future__ import annotations

import datetime as dt
import math
import warnings
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its plotting libraries warn while they load
    from backtesting import Backtest, Strategy

from sqkit.bars import CLOSE, HIGH, LOW, OPEN, BarArrays, make_bar_arrays
from sqkit.fills import Fills, simulate_fills
from sqkit.records import EXIT_REASON_CODES, LONG, SHORT
from sqkit.sessions import load_sessions
from sqkit.strategy import StrategyColumns, StrategyParameters, run_strategy

EPOCH = dt.date(1970, 1, 1)
INTRADAY = StrategyParameters("intraday")
CRORE = Decimal(10_000_000)


def since(day: dt.date, *history: tuple[str, str]) -> Decimal:
    """The last value whose date has come."""
    return Decimal([value for date, value in history if dt.date.fromisoformat(date) <= day][-1])


def published_charges(product: str, buys: bool, price: float, shares: int, day: dt.date) -> float:
    """A contract note's charges for one order of a discount broker's client in Mumbai."""
    value = Decimal(repr(float(price))) * shares
    delivery = product == "nse_cnc"
    brokerage = Decimal(0) if delivery else min(value * 3 / 10_000, Decimal(20))
    exchange = (
        value
        / CRORE
        * since(
            day,
            ("1990-01-01", "325"),
            ("2021-01-01", "345"),
            ("2023-04-01", "335"),
            ("2024-04-01", "332"),
            ("2024-10-01", "307"),
        )
    )
    sebi = (
        value
        / CRORE
        * since(
            day,
            ("1990-01-01", "20"),
            ("2017-04-01", "15"),
            ("2019-04-01", "10"),
            ("2020-06-01", "5"),
            ("2021-04-01", "10"),
        )
    )
    percent = since(
        day,
        ("1990-01-01", "12.36"),
        ("2009-02-24", "10.3"),
        ("2012-04-01", "12.36"),
        ("2015-06-01", "14"),
        ("2015-11-15", "14.5"),
        ("2016-06-01", "15"),
        ("2017-07-01", "18"),
    )
    service_tax = (brokerage + exchange + sebi) * percent / 100
    if day < dt.date(2020, 7, 1):
        stamp = value * (1000 if delivery else 200) / CRORE
    else:
        stamp = value * (1500 if delivery else 300) / CRORE if buys else Decimal(0)
    if delivery:
        tax = value * since(day, ("1990-01-01", "0.125"), ("2012-07-01", "0.1")) / 100
    else:
        tax = Decimal(0) if buys else value * 25 / 100_000
    rupees = tax.quantize(Decimal(1), ROUND_HALF_UP)
    return float(
        (brokerage + exchange + sebi + service_tax + stamp + rupees).quantize(Decimal("0.01"), ROUND_HALF_UP)
    )


class ContractNote:
    """backtesting.py's commission callable; it asks with a trade's size, so the leg is told from its books.

    When a trade closes, the engine moves it to the closed trades and asks twice: for the exit,
    then once more for the entry. Every other question is about an entry on the present bar.
    """

    def __init__(self, product: str, dates: list[dt.date]) -> None:
        self.product, self.dates = product, dates
        self.broker: Any = None
        self.settled, self.exit_told = 0, False

    def __call__(self, size: float, price: float) -> float:
        closed = self.broker.closed_trades
        buys, bar = size > 0, self.broker._i
        if len(closed) > self.settled:
            if self.exit_told:
                bar = closed[-1].entry_bar
                self.settled, self.exit_told = len(closed), False
            else:
                buys, self.exit_told = not buys, True
        return published_charges(self.product, buys, price, int(abs(size)), self.dates[bar])


class FollowTargets(Strategy):
    """Sends market orders for what the targets ask, as the design words it."""

    targets: np.ndarray
    first: np.ndarray
    last: np.ndarray
    intraday: bool
    capital: float
    note: ContractNote

    def init(self) -> None:
        """Nothing is wanted yet."""
        self.note.broker = self._broker
        self.side = 0
        self.rejected = 0

    def next(self) -> None:
        """One bar has closed: turn a new side into orders."""
        i = len(self.data) - 1
        if self.intraday and self.first[i]:
            self.side = 0
        if self.intraday and self.last[i]:
            self.position.close()  # too late for this session: it goes out at the next one's open
            return
        wanted = int(np.sign(self.targets[i]))
        if wanted == self.side:
            return
        self.side = wanted
        self.position.close()
        shares = math.floor(abs(self.targets[i]) * self.capital / self.data.Close[-1])
        if wanted and not shares:
            type(self).rejected_orders += 1
        elif wanted > 0:
            self.buy(size=shares)
        elif wanted < 0:
            self.sell(size=shares)


def oracle(
    bars: BarArrays, targets: np.ndarray, *, intraday: bool, capital: float, product: str
) -> tuple[pd.DataFrame, float, int]:
    """Closed trades, profit including the open mark, and orders of no shares, by backtesting.py."""
    frame = pd.DataFrame(
        bars.rows[:, [OPEN, HIGH, LOW, CLOSE]],
        columns=["Open", "High", "Low", "Close"],
        index=pd.to_datetime(bars.timestamp_ns),
    )
    day = bars.session_days
    changes = day[1:] != day[:-1]
    note = ContractNote(product, [EPOCH + dt.timedelta(days=int(one)) for one in day])
    follow = type(
        "Follow",
        (FollowTargets,),
        {
            "targets": targets,
            "first": np.concatenate([[True], changes]),
            "last": np.concatenate([changes, [False]]),
            "intraday": intraday,
            "capital": capital,
            "note": note,
            "rejected_orders": 0,
        },
    )
    cash = 10_000_000.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its statistics use what pandas deprecates
        warnings.filterwarnings("error", message=".*Broker canceled")
        stats = Backtest(frame, follow, cash=cash, commission=note, trade_on_close=False).run()
    return stats._trades, float(stats["Equity Final [$]"]) - cash, follow.rejected_orders  # type: ignore[attr-defined]


def load(path: Path, interval: str, first: str, last: str) -> BarArrays:
    """Real bars of a window, ends included."""
    frame = pd.read_parquet(path)
    stamps = frame["timestamp"].dt.tz_convert("UTC").astype("datetime64[ns, UTC]").astype("int64").to_numpy()
    prices = frame[["open", "high", "low", "close", "volume"]].to_numpy(dtype=float)
    bars, _ = make_bar_arrays(path.stem, interval, "nse", stamps, prices, load_sessions("nse"))
    days = [(dt.date.fromisoformat(date) - EPOCH).days for date in (first, last)]
    return bars.slice(*bars.window(*days))


def compare(
    bars: BarArrays, parameters: StrategyParameters, *, capital: float, product: str, seed: int
) -> tuple[Fills, StrategyColumns, int]:
    """Trade the rule with a talkative student in both engines and demand the same trades."""
    student = np.repeat(np.random.default_rng(seed).integers(-1, 2, len(bars) // 7 + 1), 7)[
        : len(bars)
    ].astype(np.int8)
    steps = run_strategy(bars.rows, student, parameters)
    ours = simulate_fills(
        bars,
        steps.target,
        steps.strength,
        student,
        steps.exit_reason,
        start=0,
        stop=len(bars),
        capital=capital,
        slippage_bps=0.0,
        schedule=product,
        parameters=parameters,
    )
    theirs, profit, rejected = oracle(
        bars, steps.target, intraday=parameters.strategy == "intraday", capital=capital, product=product
    )
    theirs = theirs.sort_values("EntryBar")
    mine = {name: column[ours.closed] for name, column in ours.trades.items()}
    assert len(theirs) == len(mine["quantity"])
    stamps = bars.timestamp_ns
    assert np.array_equal(stamps[theirs["EntryBar"].to_numpy()], mine["entry_time"])
    assert np.array_equal(stamps[theirs["ExitBar"].to_numpy()], mine["exit_time"])
    assert np.array_equal(theirs["Size"].to_numpy(), mine["quantity"] * mine["direction"])
    assert np.array_equal(theirs["EntryPrice"].to_numpy(), mine["entry_price"])
    assert np.array_equal(theirs["ExitPrice"].to_numpy(), mine["exit_price"])
    np.testing.assert_allclose(theirs["Commission"].to_numpy(), mine["fees"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(theirs["PnL"].to_numpy(), mine["net_pnl"], rtol=0, atol=1e-6)
    assert ours.equity - ours.capital == pytest.approx(profit, abs=1e-5)
    return ours, steps, rejected


def test_intraday_long_and_short_with_square_off(shared_data: Path) -> None:
    """Minute bars across two changes of rates: hundreds of LONG and SHORT trades, some squared off."""
    bars = load(shared_data / "nse/index_minute_2012_2021/NIFTY.parquet", "1m", "2020-05-20", "2020-07-10")
    ours, _, _ = compare(bars, INTRADAY, capital=100_000.0, product="nse_mis", seed=1)
    assert len(ours.closed) >= 200
    assert {LONG, SHORT} == set(ours.trades["direction"].tolist())
    squared = ours.trades["exit_reason"] == EXIT_REASON_CODES["square_off"]
    assert squared.any()
    opens = np.searchsorted(bars.timestamp_ns, ours.trades["exit_time"][squared])
    assert set(bars.rows[opens, 6].tolist()) == {355.0}


def test_intraday_sessions_that_break_off(shared_data: Path) -> None:
    """A feed that stops in mid-session leaves positions over: both engines close them at the next open."""
    bars = load(shared_data / "nse/minute_2021/RELIANCE.parquet", "1m", "2021-03-30", "2021-06-11")
    late = np.random.default_rng(5).choice(np.unique(bars.session_days), 12, replace=False)
    keep = ~(np.isin(bars.session_days, late) & (bars.rows[:, 6] > 200.0))
    broken = BarArrays(
        bars.symbol,
        bars.interval,
        bars.market,
        bars.timestamp_ns[keep],
        bars.available_ns[keep],
        bars.rows[keep],
    )
    ours, _, _ = compare(broken, INTRADAY, capital=250_000.0, product="nse_mis", seed=2)
    assert np.any(ours.trades["exit_reason"] == EXIT_REASON_CODES["missed_square_off"])
    assert len(ours.closed) >= 200


@pytest.mark.parametrize("symbol", ["RELIANCE", "TCS", "SHREECEM"])
def test_swing_on_daily_bars(shared_data: Path, symbol: str) -> None:
    """Thirteen years of daily bars through every change of rates, delivery charges, long and flat."""
    bars = load(
        shared_data / f"nse/daily_adjusted_2008_2021/{symbol}.parquet", "1d", "2008-01-01", "2021-06-02"
    )
    parameters = StrategyParameters("swing", max_holding_sessions=10, allow_short=False)
    ours, _, rejected = compare(bars, parameters, capital=15_000.0, product="nse_cnc", seed=3)
    assert len(ours.closed) >= 30
    assert set(ours.trades["direction"].tolist()) == {LONG}
    assert np.any(ours.trades["exit_reason"] == EXIT_REASON_CODES["max_holding"])
    if symbol == "SHREECEM":
        assert rejected > 0  # strength x 15,000 does not buy one share of the years above that price


def test_swing_with_shorts(shared_data: Path) -> None:
    """Shorts held over sessions: the same fills, sizes, fees and profits."""
    bars = load(shared_data / "nse/daily_adjusted_2008_2021/TCS.parquet", "1d", "2008-01-01", "2021-06-02")
    # Only an opposite entry ends a trade here: always in the market, LONG or SHORT.
    parameters = StrategyParameters(
        "swing", allow_short=True, exit_strength=-1.0, rsi_high=100.0, rsi_low=0.0
    )
    ours, _, _ = compare(bars, parameters, capital=100_000.0, product="nse_cnc", seed=4)
    assert {LONG, SHORT} == set(ours.trades["direction"].tolist())
    turned = ours.trades["exit_reason"] == EXIT_REASON_CODES["opposite_signal"]
    assert turned.any()
