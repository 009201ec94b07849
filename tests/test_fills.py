"""Fills and the books they leave: closed forms, invariants, and the live stream against the batch."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqkit.bars import (
    BAR_MINUTES,
    CLOSE,
    HIGH,
    LOW,
    MINUTE,
    OPEN,
    ROW_WIDTH,
    SESSION,
    SESSION_MINUTES,
    BarArrays,
)
from sqkit.costs import BUY, SELL, fee_schedule, fees
from sqkit.errors import UsageError
from sqkit.fills import Fills, FillStream, buy_and_hold, simulate_fills
from sqkit.records import EXIT_REASON_CODES, LONG, SHORT, TRADE_FIELDS
from sqkit.strategy import StrategyParameters, run_strategy

INTRADAY = StrategyParameters("intraday")
SWING = StrategyParameters("swing", allow_short=True)
FIRST_DAY = 20_000  # 2024-10-04
MINUTE_NS = 60_000_000_000


def bars_of(opens: list[float], closes: list[float], session_bars: int = 1) -> BarArrays:
    """Bars with the given opens and closes, `session_bars` to a session."""
    count = len(opens)
    rows = np.zeros((count, ROW_WIDTH))
    rows[:, OPEN], rows[:, CLOSE] = opens, closes
    rows[:, HIGH], rows[:, LOW] = np.maximum(opens, closes), np.minimum(opens, closes)
    rows[:, SESSION] = FIRST_DAY + np.arange(count) // session_bars
    rows[:, MINUTE] = np.arange(count) % session_bars
    rows[:, SESSION_MINUTES], rows[:, BAR_MINUTES] = 375.0, 1.0
    stamps = (rows[:, SESSION] * 1440 + 225 + rows[:, MINUTE]).astype(np.int64) * MINUTE_NS
    return BarArrays("ANY", "1m", "nse", stamps, stamps + MINUTE_NS, rows)


def trade(
    bars: BarArrays,
    targets: list[float] | np.ndarray,
    *,
    capital: float = 10_000.0,
    slippage_bps: float = 0.0,
    schedule: str = "flat_bps:0",
    parameters: StrategyParameters = SWING,
    start: int = 0,
    stop: int | None = None,
    exit_reason: np.ndarray | None = None,
) -> Fills:
    """Trade hand-made targets."""
    wanted = np.asarray(targets, dtype=float)
    nothing = np.zeros(len(wanted), dtype=np.int8)
    return simulate_fills(
        bars,
        wanted,
        np.abs(wanted),
        nothing,
        nothing if exit_reason is None else exit_reason,
        start=start,
        stop=len(bars) if stop is None else stop,
        capital=capital,
        slippage_bps=slippage_bps,
        schedule=schedule,
        parameters=parameters,
    )


def wandering(seed: int, count: int = 1500, session_bars: int = 75) -> BarArrays:
    """A random price whose opens differ from the closes before."""
    rng = np.random.default_rng(seed)
    closes = 100.0 * np.exp(np.cumsum(np.repeat(rng.normal(0, 0.003, count // 15 + 1), 15)[:count]))
    closes *= np.exp(rng.normal(0.0, 0.004, count))
    opens = np.concatenate([[100.0], closes[:-1]]) * np.exp(rng.normal(0.0, 0.002, count))
    return bars_of(list(opens), list(closes), session_bars)


def rule_trades(
    bars: BarArrays,
    *,
    student: np.ndarray | None = None,
    parameters: StrategyParameters = INTRADAY,
    capital: float = 100_000.0,
    slippage_bps: float = 2.0,
    schedule: str = "nse_mis",
) -> Fills:
    """What the real rule trades on these bars."""
    said = np.zeros(len(bars), dtype=np.int8) if student is None else student
    steps = run_strategy(bars.rows, said, parameters)
    return simulate_fills(
        bars,
        steps.target,
        steps.strength,
        said,
        steps.exit_reason,
        start=0,
        stop=len(bars),
        capital=capital,
        slippage_bps=slippage_bps,
        schedule=schedule,
        parameters=parameters,
    )


def test_a_decision_fills_at_the_next_open() -> None:
    """Entry and exit decided on bars 1 and 3 fill at the opens of bars 2 and 4, sized by bar 1's close."""
    bars = bars_of([10, 11, 12, 13, 14, 15], [10.5, 11.5, 12.5, 13.5, 14.5, 15.5])
    fills = trade(bars, [0, 0.6, 0.6, 0, 0, 0])
    assert {name: column.dtype.name for name, column in fills.trades.items()} == TRADE_FIELDS
    (one,) = [
        dict(zip(fills.trades, values, strict=True)) for values in zip(*fills.trades.values(), strict=True)
    ]
    assert one["quantity"] == 521  # floor(0.6 x 10,000 / 11.5)
    assert (one["entry_price"], one["exit_price"]) == (12.0, 14.0)
    assert (one["entry_time"], one["exit_time"]) == (bars.timestamp_ns[2], bars.timestamp_ns[4])
    assert (one["entry_session_date"], one["exit_session_date"]) == (FIRST_DAY + 2, FIRST_DAY + 4)
    assert (one["direction"], one["entry_strength"]) == (LONG, 0.6)
    assert one["net_pnl"] == 521 * 2.0
    assert fills.net_pnl.tolist() == [0.0, 0.0, 521 * 0.5, 521 * 1.0, 521 * 0.5, 0.0]
    assert fills.cash == fills.equity == 10_000.0 + 521 * 2.0


def test_an_opposite_entry_closes_and_opens_at_the_same_open() -> None:
    """Turning from LONG to SHORT gives two fills at one open, each trade with its own size and reason."""
    bars = bars_of([10, 10, 20, 30, 40], [10, 10, 20, 32, 40])
    fills = trade(bars, [0.5, 0.5, -0.8, 0, 0])
    assert fills.trades["direction"].tolist() == [LONG, SHORT]
    assert fills.trades["exit_time"][0] == fills.trades["entry_time"][1] == bars.timestamp_ns[3]
    assert fills.trades["quantity"].tolist() == [500, 400]
    assert fills.trades["exit_reason"].tolist() == [
        EXIT_REASON_CODES["opposite_signal"],
        EXIT_REASON_CODES["strength_below_exit"],
    ]
    assert fills.trades["net_pnl"].tolist() == [500 * 20.0, -400 * 10.0]


def test_slippage_in_closed_form() -> None:
    """A buy pays the open plus the basis points, a sale gets the open minus them, both ways round."""
    bars = bars_of([100.0] * 6, [100.0] * 6)
    for side in (1.0, -1.0):
        fills = trade(bars, [0, side, side, 0, 0, 0], slippage_bps=25.0)
        entry, exit_ = 100.0 * (1 + side * 0.0025), 100.0 * (1 - side * 0.0025)
        assert fills.trades["entry_price"][0] == pytest.approx(entry, rel=1e-15)
        assert fills.trades["exit_price"][0] == pytest.approx(exit_, rel=1e-15)
        assert fills.net_pnl.sum() == pytest.approx(-100 * 0.5)


def test_fees_are_those_of_the_fills_session_date() -> None:
    """Each leg is charged by the rates of its own date: in and out across 2024-10-01."""
    bars = bars_of([100.0] * 8, [100.0] * 8)
    rows = bars.rows.copy()
    rows[:, SESSION] -= 7  # the fills fall on 2024-09-29 and 2024-10-02
    bars = BarArrays(bars.symbol, bars.interval, bars.market, bars.timestamp_ns, bars.available_ns, rows)
    fills = trade(bars, [0, 1, 1, 1, 0, 0, 0, 0], capital=500_000.0, schedule="nse_cnc")
    epoch = dt.date(1970, 1, 1)
    days = [
        epoch + dt.timedelta(days=int(fills.trades[f"{leg}_session_date"][0])) for leg in ("entry", "exit")
    ]
    assert days == [dt.date(2024, 9, 29), dt.date(2024, 10, 2)]
    schedule = fee_schedule("nse_cnc")
    expected = fees(schedule, BUY, 100.0, 5000, days[0]) + fees(schedule, SELL, 100.0, 5000, days[1])
    assert fills.trades["fees"][0] == expected
    assert expected != 2 * fees(schedule, SELL, 100.0, 5000, days[1]) + 75.0
    assert fills.net_pnl.sum() == pytest.approx(-expected)


def test_an_order_of_no_shares_is_no_trade() -> None:
    """Capital below one share trades nothing, also not later when the price has fallen under it."""
    bars = bars_of([500, 500, 90, 90, 90], [500, 500, 90, 90, 90])
    fills = trade(bars, [0.5, 0.5, 0.5, 0.5, 0.5], capital=900.0)
    assert len(fills.closed) == 0
    assert not fills.net_pnl.any()
    again = trade(bars, [0.5, 0.0, 0.5, 0.5, 0.5], capital=900.0)
    assert again.trades["quantity"].tolist() == [5]


def test_an_open_position_is_marked_and_not_closed() -> None:
    """At the window's end the position stays, marked at the last close, and counts as no closed trade."""
    bars = bars_of([10, 10, 12, 13], [10, 10, 12.5, 14])
    fills = trade(bars, [0.5, 0.5, 0.5, 0.5], schedule="flat_bps:10")
    assert fills.closed.tolist() == [False]
    assert fills.open_quantity == 500
    assert fills.position_value == 500 * 14.0
    assert fills.trades["exit_time"].tolist() == [0]
    assert np.isnan(fills.trades["exit_price"][0])
    assert fills.trades["exit_reason"][0] == EXIT_REASON_CODES["open"]
    assert fills.trades["net_pnl"][0] == pytest.approx(500 * 4.0 - 5.0)
    assert fills.net_pnl.sum() == pytest.approx(500 * 4.0 - 5.0)


def test_a_decision_on_the_last_bar_is_not_filled() -> None:
    """What is decided on the window's last bar would fill outside it."""
    bars = bars_of([10.0] * 6, [10.0] * 6)
    fills = trade(bars, [0, 0, 0, 0.9, 0.9, 0.9], stop=4)
    assert len(fills.closed) == 0
    assert fills.session_days.tolist() == [FIRST_DAY + i for i in range(4)]


def test_a_target_from_before_the_window_is_not_entered_late() -> None:
    """Flat at the start: an old target is left alone until its side changes."""
    bars = bars_of([10.0] * 8, [10.0] * 8)
    fills = trade(bars, [0, 0.7, 0.7, 0.7, 0.0, 0.7, 0.7, 0.7], start=2)
    assert fills.trades["entry_time"].tolist() == [bars.timestamp_ns[6]]


def test_an_intraday_entry_never_waits_for_the_next_session() -> None:
    """An order of a session's last bar is cancelled in intraday and filled in swing."""
    bars = bars_of([10.0] * 6, [10.0] * 6, session_bars=3)
    targets = [0, 0, 0.5, 0.5, 0.5, 0.5]
    swing = trade(bars, targets)
    assert swing.trades["entry_time"].tolist() == [bars.timestamp_ns[3]]
    # In intraday the strategy would have reset; a same-sided target is a new decision of the new session.
    intraday = trade(bars, targets, parameters=INTRADAY)
    assert intraday.trades["entry_time"].tolist() == [bars.timestamp_ns[4]]
    assert len(trade(bars, [0, 0, 0.5, 0, 0, 0], parameters=INTRADAY).closed) == 0


def test_an_intraday_position_left_over_is_closed_at_the_next_open() -> None:
    """A session that ends while a position is held: out at the next session's first open, and said so."""
    bars = bars_of([10, 10, 11, 20, 21, 22], [10, 10, 12, 20, 21, 22], session_bars=3)
    fills = trade(bars, [0.5, 0.5, 0.5, 0, 0, 0], parameters=INTRADAY)
    assert fills.trades["exit_reason"].tolist() == [EXIT_REASON_CODES["missed_square_off"]]
    assert fills.trades["exit_price"].tolist() == [20.0]
    assert fills.trades["exit_session_date"].tolist() == [FIRST_DAY + 1]
    assert fills.net_pnl.tolist() == [500 * 2.0, 500 * 8.0]
    # An exit ordered on the last bar comes too late just the same.
    late = trade(
        bars,
        [0.5, 0.5, 0, 0, 0, 0],
        parameters=INTRADAY,
        exit_reason=np.array([0, 0, EXIT_REASON_CODES["square_off"], 0, 0, 0], dtype=np.int8),
    )
    assert late.trades["exit_reason"].tolist() == [EXIT_REASON_CODES["missed_square_off"]]


def test_no_target_no_money() -> None:
    """Zero targets leave the capital as it was, on every session."""
    bars = wandering(1)
    fills = trade(bars, np.zeros(len(bars)), schedule="nse_mis", slippage_bps=5.0)
    assert fills.equity == fills.cash == fills.capital
    assert not fills.net_pnl.any()
    assert len(fills.net_pnl) == len(np.unique(bars.session_days))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), swing=st.booleans())
def test_the_books_agree(seed: int, swing: bool) -> None:
    """Cash + position = equity = capital + daily P&L = capital + closed trades + the open mark."""
    bars = wandering(seed, 600)
    parameters = SWING if swing else INTRADAY
    student = np.random.default_rng(seed).integers(-1, 2, len(bars)).astype(np.int8)
    fills = rule_trades(bars, student=student, parameters=parameters)
    assert fills.equity == pytest.approx(fills.capital + fills.net_pnl.sum(), abs=1e-6)
    assert fills.equity == pytest.approx(fills.capital + fills.trades["net_pnl"].sum(), abs=1e-6)
    assert fills.position_value == pytest.approx(fills.open_quantity * bars.rows[-1, CLOSE])
    signed = np.where(fills.closed, 0, fills.trades["quantity"] * fills.trades["direction"])
    assert signed.sum() == fills.open_quantity
    # A third way: every fill by hand, from the trades alone.
    cash = fills.capital
    for i, closed in enumerate(fills.closed):
        size = fills.trades["quantity"][i] * fills.trades["direction"][i]
        cash -= size * fills.trades["entry_price"][i] + fills.trades["fees"][i]
        if closed:
            cash += size * fills.trades["exit_price"][i]
    assert fills.cash == pytest.approx(cash, abs=1e-6)


def test_mirrored_prices_and_sides_earn_the_same() -> None:
    """Reflecting prices and sides leaves every gross profit as it was (same sizes, no costs)."""
    bars = wandering(3)
    targets = np.repeat(np.sign(np.random.default_rng(3).normal(size=150)), 10)
    rows = bars.rows.copy()
    rows[:, [OPEN, HIGH, LOW, CLOSE]] = 400.0 - bars.rows[:, [OPEN, LOW, HIGH, CLOSE]]
    mirror = BarArrays("ANY", "1m", "nse", bars.timestamp_ns, bars.available_ns, rows)
    up, down = trade(bars, targets), trade(mirror, -targets)
    assert np.array_equal(up.trades["direction"], -down.trades["direction"])
    np.testing.assert_allclose(
        up.trades["net_pnl"] / up.trades["quantity"],
        down.trades["net_pnl"] / down.trades["quantity"],
        atol=1e-9,
    )


def test_costs_only_ever_take() -> None:
    """Dearer slippage or dearer fees: the same trades, less money."""
    bars = wandering(4)
    slipped = [rule_trades(bars, slippage_bps=bps, schedule="flat_bps:0") for bps in (0.0, 2.0, 10.0)]
    charged = [rule_trades(bars, slippage_bps=0.0, schedule=f"flat_bps:{bps}") for bps in (0, 3, 9)]
    for runs in (slipped, charged):
        assert runs[0].equity > runs[1].equity > runs[2].equity
        for run in runs:
            assert np.array_equal(run.trades["entry_time"], runs[0].trades["entry_time"])
            assert np.array_equal(run.trades["quantity"], runs[0].trades["quantity"])


def test_twice_the_capital_buys_twice_the_shares() -> None:
    """Up to the one share that whole numbers take."""
    bars = wandering(5)
    single, double = rule_trades(bars), rule_trades(bars, capital=200_000.0)
    extra = double.trades["quantity"] - 2 * single.trades["quantity"]
    assert set(extra.tolist()) <= {0, 1}
    assert len(extra) > 10


@pytest.mark.parametrize("factor", ["agree", "disagree"])
def test_each_factor_alone_changes_trades_and_money(factor: str) -> None:
    """With the other factor at 1, the student still changes at least one trade and the P&L."""
    bars = wandering(6)
    student = np.random.default_rng(7).integers(-1, 2, len(bars)).astype(np.int8)
    parameters = StrategyParameters(
        "intraday", **{f"{'disagree' if factor == 'agree' else 'agree'}_factor": 1.0}
    )
    with_student, alone = rule_trades(bars, student=student, parameters=parameters), rule_trades(bars)
    assert with_student.equity != alone.equity
    assert with_student.trades["entry_time"].tolist() != alone.trades["entry_time"].tolist()


def test_what_the_student_said_at_the_entry_is_recorded() -> None:
    """`student_at_entry` is the student's direction on the decision bar, not on the fill bar."""
    bars = wandering(8)
    student = np.random.default_rng(9).integers(-1, 2, len(bars)).astype(np.int8)
    fills = rule_trades(bars, student=student)
    filled = np.searchsorted(bars.timestamp_ns, fills.trades["entry_time"])
    assert np.array_equal(fills.trades["student_at_entry"], student[filled - 1])


def test_buy_and_hold() -> None:
    """Whole shares at the first open, one buy's costs, marked every session to the end."""
    bars = bars_of([30, 33, 36], [32, 34, 40])
    fills = buy_and_hold(bars, 0, 3, capital=1000.0, slippage_bps=10.0, schedule="flat_bps:10")
    price = 30 * 1.001
    assert fills.open_quantity == 33
    assert fills.trades["entry_price"].tolist() == [pytest.approx(price)]
    paid = 33 * price * 0.001
    assert fills.net_pnl.tolist() == pytest.approx([33 * (32 - price) - paid, 33 * 2.0, 33 * 6.0])
    assert buy_and_hold(bars, 1, 2, capital=1000.0, slippage_bps=0, schedule="flat_bps:0").open_quantity == 30
    assert buy_and_hold(bars, 0, 3, capital=20.0, slippage_bps=0, schedule="flat_bps:0").equity == 20.0
    assert len(buy_and_hold(bars, 2, 2, capital=1000.0, slippage_bps=0, schedule="us_flat").net_pnl) == 0


@pytest.mark.parametrize("parameters", [INTRADAY, SWING])
def test_the_stream_gives_the_batchs_trades_bit_for_bit(parameters: StrategyParameters) -> None:
    """One bar at a time the same trades, cash and equity come out as from the whole window."""
    bars = wandering(10)
    student = np.random.default_rng(11).integers(-1, 2, len(bars)).astype(np.int8)
    steps = run_strategy(bars.rows, student, parameters)
    batch = rule_trades(bars, student=student, parameters=parameters)
    stream = FillStream(capital=100_000.0, slippage_bps=2.0, schedule="nse_mis", parameters=parameters)
    closed = []
    for i in range(len(bars)):
        done = stream.update(
            int(bars.timestamp_ns[i]),
            bars.rows[i],
            float(steps.target[i]),
            float(steps.strength[i]),
            int(student[i]),
            int(steps.exit_reason[i]),
        )
        if done is not None:
            closed.append(done)
    assert len(closed) == np.count_nonzero(batch.closed) > 10
    for name, column in batch.trades.items():
        assert [one[name] for one in closed] == column[batch.closed].tolist(), name
    assert (stream.cash, stream.quantity, stream.equity) == (batch.cash, batch.open_quantity, batch.equity)


def test_columns_that_do_not_reach_the_window_are_refused() -> None:
    """Short columns are a mistake of the caller, said in one line."""
    with pytest.raises(UsageError, match="window"):
        trade(bars_of([1.0] * 5, [1.0] * 5), [0.0, 0.0])
