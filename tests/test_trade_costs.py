"""What trading cost: fills by hand, and returns that come out again when costs are put back."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqkit.artifacts import RESULTS_FILE
from sqkit.costs import BUY, SELL, fee_schedule, fees
from sqkit.files import read_json
from sqkit.records import LONG, SHORT, TRADE_FIELDS, session_day
from sqkit.research.accuracy import AccuracyAnalyzer
from sqkit.research.backtest import PortfolioRun, run_validation_backtest
from sqkit.research.evidence_inputs import evidence_inputs
from sqkit.research.paired_rows import PairedReturns
from sqkit.research.trade_costs import fill_costs, portfolio_costs
from tests.market import Market, build_market, rules_of, settings_of, validate

ENTERED, LEFT = (session_day(dt.date(2025, 1, day)) for day in (10, 13))
NO_COSTS: dict[str, Any] = {"slippage_bps": 0.0, "cost_schedule": "flat_bps:0"}


def trades(*rows: dict[str, Any]) -> dict[str, np.ndarray]:
    """Stored trades: closed, LONG, entered and left on the days above, with changes."""
    usual: dict[str, Any] = dict.fromkeys(TRADE_FIELDS, 0) | {
        "entry_time": 1,
        "exit_time": 2,
        "entry_session_date": ENTERED,
        "exit_session_date": LEFT,
        "direction": LONG,
    }
    return {
        name: np.array([(usual | row)[name] for row in rows], dtype=kind)
        for name, kind in TRADE_FIELDS.items()
    }


def stored_trade(
    schedule: str, bps: float, side: int, opened: float, closed: float | None, quantity: int
) -> dict[str, Any]:
    """A trade as the fill step stores it, from the opens it met; no exit for a position still open."""
    rates, share = fee_schedule(schedule), bps / 1e4
    entry = opened * (1 + side * share)
    paid = fees(rates, BUY if side == LONG else SELL, entry, quantity, dt.date(2025, 1, 10))
    row: dict[str, Any] = {"direction": side, "quantity": quantity, "entry_price": entry, "fees": paid}
    if closed is None:
        return row | {"exit_time": 0, "exit_session_date": 0, "exit_price": np.nan}
    left = closed * (1 - side * share)
    paid += fees(rates, SELL if side == LONG else BUY, left, quantity, dt.date(2025, 1, 13))
    return row | {"exit_price": left, "fees": paid}


# --- by hand


def test_delivery_trade_by_hand() -> None:
    """5,000 shares bought and sold at 1,000: 5,937.03 on the day of the entry, 5,187.03 on that of the exit."""
    row = {"quantity": 5000, "entry_price": 1000.0, "exit_price": 1000.0, "fees": 11124.06}
    days, costs = fill_costs(trades(row), fee_schedule("nse_cnc"), 0.0)
    assert days.tolist() == [ENTERED, LEFT]
    assert costs == pytest.approx([5937.03, 5187.03], abs=1e-9)


def test_intraday_round_trip_with_slippage_by_hand() -> None:
    """1,000 shares at an open of 100, 2 bps a side: 20 of slippage each way, and the published charges."""
    row = {"quantity": 1000, "entry_price": 100.02, "exit_price": 99.98, "exit_session_date": ENTERED}
    schedule = fee_schedule("nse_mis")
    bought, sold = (
        fees(schedule, side, price, 1000, dt.date(2025, 1, 10))
        for side, price in ((BUY, 100.02), (SELL, 99.98))
    )
    assert bought + sold == pytest.approx(82.68, abs=0.02)
    days, costs = fill_costs(trades(row | {"fees": bought + sold}), schedule, 2.0)
    assert days.tolist() == [ENTERED, ENTERED]
    assert costs == pytest.approx([bought + 20.0, sold + 20.0], abs=1e-9)


def test_a_short_trade_sells_first_by_hand() -> None:
    """Sold at 99.98 of an open of 100, bought back at 90.018 of 90; the seller's charges come first."""
    schedule = fee_schedule("nse_mis")
    sold = fees(schedule, SELL, 99.98, 1000, dt.date(2025, 1, 10))
    bought = fees(schedule, BUY, 90.018, 1000, dt.date(2025, 1, 13))
    row = {"direction": SHORT, "quantity": 1000, "entry_price": 99.98, "exit_price": 90.018}
    days, costs = fill_costs(trades(row | {"fees": sold + bought}), schedule, 2.0)
    assert days.tolist() == [ENTERED, LEFT]
    assert costs == pytest.approx([sold + 20.0, bought + 18.0], abs=1e-9)
    assert sold > bought  # the transaction tax is the seller's


def test_an_open_trade_has_paid_its_entry_only() -> None:
    """Nothing is charged for an exit that has not been; entries of all trades come first, then the exits."""
    rows = [
        stored_trade("nse_cnc", 5.0, LONG, 1000.0, 1010.0, 100),
        stored_trade("nse_cnc", 5.0, LONG, 500.0, None, 40),
        stored_trade("nse_cnc", 5.0, LONG, 200.0, 190.0, 7),
    ]
    days, costs = fill_costs(trades(*rows), fee_schedule("nse_cnc"), 5.0)
    assert days.tolist() == [ENTERED] * 3 + [LEFT] * 2
    schedule = fee_schedule("nse_cnc")
    entries = [
        fees(schedule, BUY, price * 1.0005, quantity, dt.date(2025, 1, 10)) + price * quantity * 0.0005
        for price, quantity in ((1000.0, 100), (500.0, 40), (200.0, 7))
    ]
    exits = [
        fees(schedule, SELL, price * 0.9995, quantity, dt.date(2025, 1, 13)) + price * quantity * 0.0005
        for price, quantity in ((1010.0, 100), (190.0, 7))
    ]
    assert costs == pytest.approx([*entries, *exits], rel=1e-12)


def test_no_trade_costs_nothing() -> None:
    """An account that never traded."""
    days, costs = fill_costs(trades(), fee_schedule("us_flat"), 5.0)
    assert (len(days), len(costs)) == (0, 0)


@settings(max_examples=60, deadline=None)
@given(
    schedule=st.sampled_from(["nse_mis", "nse_cnc", "us_flat", "flat_bps:7", "flat_bps:0"]),
    bps=st.sampled_from([0.0, 2.0, 5.0, 50.0]),
    side=st.sampled_from([LONG, SHORT]),
    opened=st.floats(0.5, 20_000.0),
    closed=st.one_of(st.none(), st.floats(0.5, 20_000.0)),
    quantity=st.integers(1, 5_000),
)
def test_costs_are_all_that_lies_between_gross_and_net(
    schedule: str, bps: float, side: int, opened: float, closed: float | None, quantity: int
) -> None:
    """Profit at the opens less the costs is the stored net profit; no cost is negative."""
    row = stored_trade(schedule, bps, side, opened, closed, quantity)
    _, costs = fill_costs(trades(row), fee_schedule(schedule), bps)
    assert (costs >= 0.0).all()
    if closed is not None:
        net = side * quantity * (row["exit_price"] - row["entry_price"]) - row["fees"]
        gross = side * quantity * (closed - opened)
        assert gross - costs.sum() == pytest.approx(net, rel=1e-9, abs=1e-9 * quantity * max(opened, closed))


# --- against the backtest


@pytest.fixture(scope="module")
def minutes(tmp_path_factory: pytest.TempPathFactory) -> Market:
    """A planted intraday market of five-minute bars, which trades both ways."""
    return build_market(
        tmp_path_factory.mktemp("minutes"),
        symbols=2,
        sessions=45,
        training=30,
        strategy="intraday",
        interval="5m",
        horizon_bars=15,
        kinds=("logistic",),
    )


def stored_returns(folder: Path) -> PairedReturns:
    """Returns and costs as the evidence takes them from stored artifacts."""
    return evidence_inputs(read_json(folder / RESULTS_FILE), AccuracyAnalyzer(folder)).returns


def backtested(market: Market, kind: str, **rules: Any) -> dict[str, PortfolioRun]:
    """The same window traded again under other costs."""
    run = run_validation_backtest(market.model(kind), market.bars, market.window, rules_of(market, **rules))
    return {"student": run.candidate, "baseline": run.baseline}


def gross_less_costs(folder: Path, market: Market, kind: str) -> None:
    """A backtest without fees and slippage, less the costs, is the stored one.

    Orders are whole shares of strength x capital at the close before the fill, whatever the fill costs:
    quantities are the same in both, so the two agree to the rounding of floats (1e-12 of the capital).
    """
    returns = stored_returns(folder)
    for side, run in backtested(market, kind, **NO_COSTS).items():
        costs = getattr(returns, f"{side}_costs")
        assert (costs >= 0.0).all()
        assert np.count_nonzero(costs) > 3
        assert run.session_days.tolist() == returns.session_days.tolist()
        np.testing.assert_allclose(run.daily_returns - costs, getattr(returns, side), rtol=0.0, atol=1e-12)


def test_costs_put_back_give_the_gross_returns(validated: Path, planted: Market) -> None:
    """On the planted swing market, student and rule, day by day."""
    gross_less_costs(validated, planted, "gradient_boosting")


def test_costs_put_back_give_the_gross_returns_of_minutes(minutes: Market, tmp_path: Path) -> None:
    """On five-minute bars with Indian intraday charges, LONG and SHORT trades."""
    dear = settings_of(tmp_path, cost_schedule="nse_mis", slippage_bps_intraday=3.0)
    validate(minutes, tmp_path / "run", kind="logistic", settings=dear)
    analyzer = AccuracyAnalyzer(tmp_path / "run")
    directions = np.concatenate(
        [analyzer.trades(name, "candidate")["direction"] for name in analyzer.symbols]
    )
    assert {LONG, SHORT} == set(directions.tolist())
    gross_less_costs(tmp_path / "run", minutes, "logistic")


@pytest.mark.parametrize("multiple", [2.0, 3.0])
def test_returns_at_a_multiple_of_the_costs_are_those_of_a_dearer_market(
    validated: Path, planted: Market, multiple: float
) -> None:
    """What the stress says without a backtest is what a backtest at these rates gives.

    Fees are charged on a price that slippage has moved, so of doubled costs there is a product of the
    two: relative to the costs themselves no more than a few times the slippage rate.
    """
    returns = stored_returns(validated)
    rules = rules_of(planted)
    assert rules.cost_schedule == "us_flat"  # one basis point a side
    dearer = {"slippage_bps": multiple * rules.slippage_bps, "cost_schedule": f"flat_bps:{multiple}"}
    for side, run in backtested(planted, "gradient_boosting", **dearer).items():
        costs, stored = getattr(returns, f"{side}_costs"), getattr(returns, side)
        stressed = stored - (multiple - 1.0) * costs
        second_order = 2.0 * multiple**2 * rules.slippage_bps / 1e4 * costs
        assert (np.abs(run.daily_returns - stressed) <= second_order + 1e-12).all()
        assert np.abs(run.daily_returns - stored).max() > 100.0 * second_order.max()


def test_a_day_on_which_a_symbol_is_not_listed_is_averaged_without_it(validated: Path) -> None:
    """Costs are averaged over the symbols that have a bar, as the returns are."""
    results, analyzer = read_json(validated / RESULTS_FILE), AccuracyAnalyzer(validated)
    runtime = results["runtime"]
    days = analyzer.listed_days(analyzer.symbols[0])
    whole = portfolio_costs(analyzer, "candidate", days, runtime)
    first, *others = analyzer.symbols
    listed = analyzer.listed_days

    class Late(AccuracyAnalyzer):
        """All symbols but the first come to the market halfway; their earlier trades are none."""

        def listed_days(self, symbol: str) -> np.ndarray:
            return listed(symbol) if symbol == first else listed(symbol)[len(days) // 2 :]

        def trades(self, symbol: str, role: str) -> dict[str, np.ndarray]:
            kept = super().trades(symbol, role)
            if symbol == first:
                return kept
            late = kept["entry_session_date"] >= days[len(days) // 2]
            return {name: column[late] for name, column in kept.items()}

    half = portfolio_costs(Late(validated), "candidate", days, runtime)
    alone = replace_symbols(AccuracyAnalyzer(validated), [first])
    early = slice(0, len(days) // 2)
    np.testing.assert_allclose(
        half[early], portfolio_costs(alone, "candidate", days, runtime)[early], rtol=1e-12
    )
    assert len(others) > 0
    assert half[early].sum() > 0.0
    assert not np.allclose(half[early], whole[early])


def replace_symbols(analyzer: AccuracyAnalyzer, symbols: list[str]) -> AccuracyAnalyzer:
    """The analyzer of some symbols only."""
    analyzer.symbols = symbols
    return analyzer


def test_days_are_one_cost_each(validated: Path) -> None:
    """As many costs as returns, none of them more than the capital, and each side its own."""
    returns = stored_returns(validated)
    assert len(returns.student_costs) == len(returns.session_days) == len(returns.student)
    assert (returns.student_costs < 0.05).all()
    assert not np.array_equal(returns.student_costs, returns.baseline_costs)
