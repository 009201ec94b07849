"""The backtest trades what the model says, on the window's bars only, and its money adds up."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqkit.bars import CLOSE, HIGH, LOW, OPEN, BarArrays
from sqkit.costs import BUY, fee_schedule, fees
from sqkit.errors import WindowTooShort
from sqkit.metrics import financial_metrics, horizon_outcomes
from sqkit.records import (
    EXIT_REASON_CODES,
    FLAT,
    INSIDE,
    PREDICTION_FIELDS,
    REASON_CODES,
    SOURCES,
    STUDENT_MODEL,
    TRADE_FIELDS,
    UNKNOWN,
)
from sqkit.research.backtest import (
    SHORT_HISTORY_SESSIONS,
    PortfolioRun,
    SymbolRun,
    Window,
    backtest_symbol,
    run_validation_backtest,
)
from sqkit.research.planted import planted_market
from sqkit.sessions import MARKETS
from sqkit.trading_rules import TradingRules
from tests.market import Market, arrays_of, build_market, rules_of, settings_of

ALMOST_CERTAIN = float(np.nextafter(1.0, 0.0))


@pytest.fixture(scope="module")
def minutes(tmp_path_factory: pytest.TempPathFactory) -> Market:
    """A planted intraday market of five-minute bars with one student."""
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


def trades_of(run: PortfolioRun) -> list[tuple[object, ...]]:
    """Every trade of a run as one tuple, for comparing runs."""
    return [
        (symbol, *(column[row].item() for name, column in one.fills.trades.items() if name != "exit_price"))
        for symbol, one in run.symbols.items()
        for row in range(len(one.fills.trades["entry_time"]))
    ]


def pnl_of(run: PortfolioRun) -> float:
    """Net P&L of a run over all symbols."""
    return float(sum(one.fills.net_pnl.sum() for one in run.symbols.values()))


def same_records(
    ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], *, but: tuple[str, ...] = ()
) -> bool:
    """Whether two sets of columns agree to the bit, some columns left out."""
    return ours.keys() == theirs.keys() and all(
        np.array_equal(column, theirs[name], equal_nan=column.dtype.kind == "f")
        for name, column in ours.items()
        if name not in but
    )


def same_money(ours: SymbolRun, theirs: SymbolRun) -> bool:
    """Whether two runs traded the same and earned the same, to the bit."""
    return same_records(ours.fills.trades, theirs.fills.trades) and np.array_equal(
        ours.fills.net_pnl, theirs.fills.net_pnl
    )


def with_prices(bars: BarArrays, rows: slice, factor: np.ndarray | float) -> BarArrays:
    """The same bars with the prices of some rows multiplied."""
    changed = bars.rows.copy()
    changed[rows, OPEN : CLOSE + 1] *= np.asarray(factor)[..., None] if np.ndim(factor) else factor
    return replace(bars, rows=changed)


def first_bars_of(bars: BarArrays, keep: np.ndarray) -> BarArrays:
    """The chosen bars of a series."""
    return replace(
        bars,
        timestamp_ns=bars.timestamp_ns[keep],
        available_ns=bars.available_ns[keep],
        rows=np.ascontiguousarray(bars.rows[keep]),
    )


class TestTheModelTrades:
    """Predictions reach the trades, and nothing else does."""

    def test_another_kind_of_model_trades_and_earns_otherwise(self, planted: Market) -> None:
        """Swapping in a really trained model of another kind changes trades and P&L, not the rows."""
        trees, line = (
            run_validation_backtest(planted.model(kind), planted.bars, planted.window, rules_of(planted))
            for kind in ("gradient_boosting", "logistic")
        )
        assert trades_of(trees.candidate) != trades_of(line.candidate)
        assert pnl_of(trees.candidate) != pnl_of(line.candidate)
        assert trees.candidate.metrics["sharpe_ratio"] != line.candidate.metrics["sharpe_ratio"]
        assert trades_of(trees.baseline) == trades_of(line.baseline)
        for symbol in planted.bars:
            assert np.array_equal(
                trees.candidate.symbols[symbol].predictions["bar_time"],
                line.candidate.symbols[symbol].predictions["bar_time"],
            )

    @pytest.mark.parametrize("alone", ["agree_factor", "disagree_factor"])
    def test_each_factor_alone_changes_a_trade(self, planted: Market, alone: str) -> None:
        """1.2 for an agreeing student and 0.5 for a disagreeing one each change trades and P&L by themselves."""
        other = {"agree_factor": "disagree_factor", "disagree_factor": "agree_factor"}[alone]
        run = run_validation_backtest(
            planted.model(), planted.bars, planted.window, rules_of(planted, **{other: 1.0})
        )
        changed = set(trades_of(run.candidate)) ^ set(trades_of(run.baseline))
        assert changed, f"no trade was touched by {alone} alone"
        assert pnl_of(run.candidate) != pnl_of(run.baseline)

    def test_factors_of_one_are_no_model(self, planted: Market) -> None:
        """With both factors 1 the student changes nothing: same trades, same daily returns, no source of its own."""
        rules = rules_of(planted, agree_factor=1.0, disagree_factor=1.0)
        run = run_validation_backtest(planted.model(), planted.bars, planted.window, rules)
        assert np.array_equal(run.candidate.daily_returns, run.baseline.daily_returns)
        for symbol, one in run.candidate.symbols.items():
            theirs = run.baseline.symbols[symbol].fills.trades
            assert same_records(one.fills.trades, theirs, but=("student_at_entry",))
            assert not np.any(one.predictions["prediction_source"] == STUDENT_MODEL)

    def test_a_model_that_always_abstains_is_no_model(self, planted: Market) -> None:
        """At a threshold just under 1 the student never speaks: strategy columns, trades and P&L are the rule's."""
        rules = rules_of(planted, threshold=ALMOST_CERTAIN)
        for bars in planted.bars.values():
            silent = backtest_symbol(bars, planted.model(), planted.window, rules)
            rule = backtest_symbol(bars, None, planted.window, rules)
            assert set(silent.predictions["reason"]) <= {
                REASON_CODES["low_confidence"],
                REASON_CODES["out_of_distribution"],
            }
            assert same_money(silent, rule)
            own = ("student_probability_up", "student_confidence", "reason")
            assert same_records(silent.predictions, rule.predictions, but=own)

    def test_what_the_model_says_is_recorded_as_it_acts(self, planted: Market) -> None:
        """The source is `student_model` exactly where strength differs from the rule's by a factor that is not 1."""
        rules = rules_of(planted)
        seen = set()
        for bars in planted.bars.values():
            columns = backtest_symbol(bars, planted.model(), planted.window, rules).predictions
            said, side = columns["student_prediction"], columns["baseline_direction"]
            factor = np.where(said * side > 0, 1.2, np.where(said * side < 0, 0.5, 1.0))
            assert np.array_equal(columns["prediction_source"] == STUDENT_MODEL, factor != 1.0)
            np.testing.assert_allclose(
                columns["strength"], np.clip(columns["baseline_strength"] * factor, 0.0, 1.0), rtol=1e-12
            )
            confident = columns["student_confidence"] >= rules.threshold  # a NaN is not
            assert np.array_equal(said != FLAT, confident)
            assert np.array_equal(columns["reason"] == REASON_CODES["scored"], said != FLAT)
            seen |= set(factor.tolist())
        assert seen == {1.2, 0.5, 1.0}

    def test_the_model_never_originates_or_reverses(self, planted: Market) -> None:
        """No trade begins on the strength of a student alone: its side is the rule's side of the bar before."""
        for bars in planted.bars.values():
            run = backtest_symbol(bars, planted.model("logistic"), planted.window, rules_of(planted))
            before = np.searchsorted(run.predictions["bar_time"], run.fills.trades["entry_time"]) - 1
            assert np.array_equal(
                run.predictions["baseline_direction"][before], run.fills.trades["direction"]
            )

    def test_swing_is_long_or_flat(self, planted: Market) -> None:
        """Without `swing_allow_short` no trade is short; with it some are."""
        bars, window, model = planted.bars, planted.window, planted.model()
        long_only = run_validation_backtest(model, bars, window, rules_of(planted)).candidate
        both = run_validation_backtest(model, bars, window, rules_of(planted, allow_short=True)).candidate
        sides = [
            {int(side) for one in run.symbols.values() for side in one.fills.trades["direction"]}
            for run in (long_only, both)
        ]
        assert sides == [{1}, {1, -1}]


class TestTheWindow:
    """Bars after the window tell outcomes, bars before it warm; neither is traded."""

    @given(seed=st.integers(0, 2**32 - 1), tail=st.sampled_from([0, 1, 3, 20, 60]))
    @settings(max_examples=15, deadline=None)
    def test_the_future_changes_nothing_but_the_last_outcomes(
        self, planted: Market, seed: int, tail: int
    ) -> None:
        """Other bars after the window, or fewer of them, leave predictions, trades and P&L the same to the bit."""
        bars, rules = planted.bars["PLANT01"], rules_of(planted)
        window = Window(planted.window.first_day, int(bars.session_days[-80]))
        _, stop = bars.window(window.first_day, window.last_day)
        factor = np.exp(np.random.default_rng(seed).normal(0.0, 0.5, len(bars) - stop))
        other = with_prices(bars, slice(stop, None), factor).slice(0, stop + tail)
        ours, theirs = (backtest_symbol(series, planted.model(), window, rules) for series in (bars, other))
        assert same_records(ours.predictions, theirs.predictions, but=("outcome",))
        assert same_money(ours, theirs)
        known = len(ours.predictions["outcome"]) - rules.horizon_bars
        assert np.array_equal(ours.predictions["outcome"][:known], theirs.predictions["outcome"][:known])

    def test_outcomes_come_from_the_whole_series(self, planted: Market) -> None:
        """The last rows' outcomes use bars after the window; at the end of the data they are unknown."""
        bars, rules = planted.bars["PLANT02"], rules_of(planted)
        days = bars.session_days
        inner = Window(planted.window.first_day, int(days[-20]))
        for window, unknown in ((inner, 0), (planted.window, rules.horizon_bars)):
            run = backtest_symbol(bars, planted.model(), window, rules)
            start, stop = bars.window(window.first_day, window.last_day)
            expected = horizon_outcomes(
                bars.rows[:, CLOSE], days, rules.horizon_bars, dead_zone=0.5, within_session=False
            ).outcome[start:stop]
            assert np.array_equal(run.predictions["outcome"], expected)
            assert np.sum(run.predictions["outcome"] == UNKNOWN) == unknown

    def test_the_position_is_flat_at_the_start(self, planted: Market) -> None:
        """A window that begins in the middle of a trade does not inherit it: the first fill is its second bar."""
        rules, inherited = rules_of(planted), 0
        for bars in planted.bars.values():
            long_run = backtest_symbol(bars, planted.model(), planted.window, rules)
            trades = long_run.fills.trades
            for entry, exit_ in zip(trades["entry_session_date"], trades["exit_session_date"], strict=True):
                held = bars.session_days[(bars.session_days > entry) & (bars.session_days < exit_)]
                if not len(held):
                    continue
                window = Window(int(held[0]), planted.last_day)
                run = backtest_symbol(bars, planted.model(), window, rules)
                start, _ = bars.window(window.first_day, window.last_day)
                assert run.fills.net_pnl[0] == 0.0
                assert not np.any(run.fills.trades["entry_time"] <= bars.timestamp_ns[start])
                if abs(run.predictions["target"][0]) > 0.0:
                    inherited += 1
                    assert run.fills.trades["entry_time"][0] == bars.timestamp_ns[start + 1]
        assert inherited, "no window began where the rule wanted a position"

    def test_bars_before_the_window_only_warm(self, planted: Market) -> None:
        """The rows are the window's; what the model and the rule say of a bar does not move with the window's start."""
        bars, rules = planted.bars["PLANT03"], rules_of(planted)
        later = Window(planted.window.first_day + 60, planted.last_day)
        ours, part = (
            backtest_symbol(bars, planted.model(), window, rules) for window in (planted.window, later)
        )
        days = part.predictions["session_date"]
        assert days[0] >= later.first_day
        assert days[-1] <= later.last_day
        tail = {name: column[-len(days) :] for name, column in ours.predictions.items()}
        assert same_records(tail, part.predictions, but=("target",))

    def test_history_is_warmed_before_it_is_scored(self, planted: Market) -> None:
        """Where history begins inside the window the first rows say `warm_up`, until the feature set is warm."""
        model, bars = planted.model(), planted.bars["PLANT01"]
        start, _ = bars.window(planted.window.first_day, planted.last_day)
        warm_up = model.feature_set.warmup_bars - 1
        for before in (0, 40, warm_up, warm_up + 1):
            run = backtest_symbol(
                bars.slice(start - before, len(bars)), model, planted.window, rules_of(planted)
            )
            unready = run.predictions["reason"] == REASON_CODES["warm_up"]
            assert np.array_equal(np.flatnonzero(unready), np.arange(max(warm_up - before, 0)))
            assert np.all(np.isnan(run.predictions["student_probability_up"][unready]))
            assert np.all(run.predictions["student_prediction"][unready] == FLAT)

    def test_the_rule_has_a_warm_up_too(self, planted: Market) -> None:
        """Without a model the rows before the indicators are warm say `warm_up`, all others `disabled`."""
        rules, bars = rules_of(planted), planted.bars["PLANT01"]
        start, _ = bars.window(planted.window.first_day, planted.last_day)
        run = backtest_symbol(bars.slice(start, len(bars)), None, planted.window, rules)
        unready = rules.parameters.warmup_bars - 1
        assert np.all(run.predictions["reason"][:unready] == REASON_CODES["warm_up"])
        assert np.all(run.predictions["reason"][unready:] == REASON_CODES["disabled"])
        assert np.all(run.predictions["baseline_strength"][:unready] == 0.0)
        assert run.predictions["baseline_strength"][unready] > 0.0


class TestMoney:
    """Cash, positions, costs and returns."""

    def test_cash_and_positions_are_equity(self, planted: Market) -> None:
        """After every run equity, rebuilt from the list of trades and the last close, is cash plus position."""
        rules = rules_of(planted)
        run = run_validation_backtest(
            planted.model(), planted.bars, planted.window, rules, baseline_model=planted.model("logistic")
        )
        checked = 0
        for part in (run.candidate, run.baseline, run.buy_and_hold):
            for symbol, one in part.symbols.items():
                fills, trades = one.fills, one.fills.trades
                last = planted.bars[symbol].rows[-1, CLOSE]
                signed = trades["direction"].astype(float) * trades["quantity"]
                is_open = trades["exit_time"] == 0
                cash = rules.capital - np.sum(signed * trades["entry_price"]) - np.sum(trades["fees"])
                cash += np.sum((signed * trades["exit_price"])[~is_open])
                held = np.sum(signed[is_open])
                assert fills.cash == pytest.approx(cash, abs=1e-6)
                assert fills.open_quantity == held
                assert fills.position_value == pytest.approx(held * last, abs=1e-6)
                assert fills.cash + fills.position_value == pytest.approx(
                    rules.capital + fills.net_pnl.sum(), abs=1e-6
                )
                assert trades["net_pnl"].sum() == pytest.approx(fills.net_pnl.sum(), abs=1e-6)
                checked += len(signed)
        assert checked > 50

    def test_open_positions_are_marked_and_are_no_closed_trades(self, planted: Market) -> None:
        """A trade open at the window's end counts in daily P&L, not in the win rate."""
        rules = rules_of(planted, cost_schedule="flat_bps:0", slippage_bps=0.0)
        run = run_validation_backtest(planted.model(), planted.bars, planted.window, rules)
        held = run.buy_and_hold
        assert held.metrics["win_rate"] is None
        assert held.metrics["counts"]["closed_trades"] == 0
        trades = [one.fills.trades for one in run.candidate.symbols.values()]
        closed = np.concatenate([part["net_pnl"][part["exit_time"] != 0] for part in trades])
        assert run.candidate.metrics["win_rate"] == pytest.approx(np.mean(closed > 0.0))

    def test_buy_and_hold(self, planted: Market) -> None:
        """Whole shares at the window's first open with slippage and one fee, worth the last close at the end."""
        rules = rules_of(planted, cost_schedule="flat_bps:7", slippage_bps=11.0)
        held = run_validation_backtest(planted.model(), planted.bars, planted.window, rules).buy_and_hold
        for symbol, bars in planted.bars.items():
            start, stop = bars.window(planted.window.first_day, planted.last_day)
            first_open, last_close = bars.rows[start, OPEN], bars.rows[stop - 1, CLOSE]
            shares = np.floor(rules.capital / first_open)
            price = first_open * 1.0011
            charged = fees(
                fee_schedule("flat_bps:7"),
                BUY,
                price,
                int(shares),
                dt.date(1970, 1, 1) + dt.timedelta(days=int(bars.session_days[start])),
            )
            fills = held.symbols[symbol].fills
            assert fills.open_quantity == shares
            assert fills.net_pnl.sum() == pytest.approx(shares * (last_close - price) - charged)

    @pytest.mark.parametrize(
        ("dear", "cheap"),
        [
            ({"slippage_bps": 20.0}, {"slippage_bps": 0.0}),
            ({"cost_schedule": "flat_bps:20"}, {"cost_schedule": "flat_bps:0"}),
        ],
        ids=["slippage", "fees"],
    )
    def test_costs_lower_every_trade(
        self, planted: Market, dear: dict[str, object], cheap: dict[str, object]
    ) -> None:
        """Higher fees or slippage leave the same trades, each of which earns less; so does buy-and-hold."""
        runs = [
            run_validation_backtest(planted.model(), planted.bars, planted.window, rules_of(planted, **costs))
            for costs in (dear, cheap)
        ]
        for part in ("candidate", "baseline", "buy_and_hold"):
            costly, free = (getattr(run, part) for run in runs)
            for symbol in planted.bars:
                paid, unpaid = costly.symbols[symbol].fills.trades, free.symbols[symbol].fills.trades
                assert np.array_equal(paid["entry_time"], unpaid["entry_time"])
                assert np.array_equal(paid["quantity"], unpaid["quantity"])
                assert np.all(paid["net_pnl"] < unpaid["net_pnl"])
            assert pnl_of(costly) < pnl_of(free)

    def test_the_portfolio_is_the_mean_over_listed_symbols(self, planted: Market) -> None:
        """By hand: an idle symbol counts 0, a symbol without a bar that session is absent from the mean.

        Capital 1,000, no costs, buy-and-hold over four sessions. ALL has a bar on each: 100 shares
        from 10, closes 10, 11, 11, 9. GAPS has bars on the second and fourth: 50 shares from 20,
        closes 22, 25. POOR cannot afford a share and stays idle.
        """
        bars = planted.bars["PLANT01"]
        four = slice(len(bars) - 4, None)

        def series(name: str, opens: list[float], closes: list[float]) -> BarArrays:
            rows = bars.rows.copy()
            rows[four, OPEN], rows[four, CLOSE] = opens, closes
            rows[four, HIGH], rows[four, LOW] = np.maximum(opens, closes), np.minimum(opens, closes)
            return replace(bars, symbol=name, rows=rows)

        whole = series("ALL", [10, 10, 11, 11], [10, 11, 11, 9])
        gaps = series("GAPS", [20, 20, 20, 22], [20, 22, 20, 25])
        keep = np.ones(len(bars), dtype=bool)
        keep[[-4, -2]] = False
        poor = series("POOR", [5000, 5000, 5000, 5000], [5000, 5000, 5000, 5000])
        run = run_validation_backtest(
            planted.model(),
            {"ALL": whole, "GAPS": first_bars_of(gaps, keep), "POOR": poor},
            Window(int(bars.session_days[-4]), int(bars.session_days[-1])),
            rules_of(planted, capital=1000.0, slippage_bps=0.0, cost_schedule="flat_bps:0"),
        )
        expected = [0.0, (0.1 + 0.1 + 0.0) / 3, 0.0, (-0.2 + 0.15 + 0.0) / 3]
        assert run.buy_and_hold.session_days.tolist() == bars.session_days[-4:].tolist()
        np.testing.assert_allclose(run.buy_and_hold.daily_returns, expected, atol=1e-12)
        assert run.buy_and_hold.metrics["total_return"] == pytest.approx(
            (1 + expected[1]) * (1 + expected[3]) - 1
        )

    def test_daily_returns_follow_from_the_symbols(self, planted: Market) -> None:
        """Portfolio returns and metrics are what a plain loop over the symbols' daily P&L gives, late listing included."""
        rules = rules_of(planted)
        bars = dict(planted.bars)
        late = bars["PLANT02"]
        bars["PLANT02"] = late.slice(len(late) - 150, len(late))  # listed inside the window
        run = run_validation_backtest(planted.model(), bars, planted.window, rules)
        by_day: dict[int, list[float]] = {}
        for one in run.candidate.symbols.values():
            for day, earned in zip(one.fills.session_days, one.fills.net_pnl, strict=True):
                by_day.setdefault(int(day), []).append(earned / rules.capital)
        assert {len(returns) for returns in by_day.values()} == {len(bars) - 1, len(bars)}
        assert run.candidate.session_days.tolist() == sorted(by_day)
        expected = np.array([np.mean(by_day[day]) for day in sorted(by_day)])
        np.testing.assert_allclose(run.candidate.daily_returns, expected, rtol=1e-12, atol=1e-15)
        metrics = financial_metrics(expected, np.array([]))
        for name in ("sharpe_ratio", "total_return", "max_drawdown"):
            assert run.candidate.metrics[name] == pytest.approx(metrics[name])


class TestThreeRuns:
    """Candidate, baseline and buy-and-hold share their rows."""

    def test_identical_rows(self, planted: Market) -> None:
        """All three runs cover the same bars and sessions, with the columns that `records` names."""
        run = run_validation_backtest(planted.model(), planted.bars, planted.window, rules_of(planted))
        for symbol, bars in planted.bars.items():
            start, stop = bars.window(planted.window.first_day, planted.last_day)
            ours, theirs = (part.symbols[symbol] for part in (run.candidate, run.baseline))
            assert list(ours.predictions) == list(theirs.predictions) == list(PREDICTION_FIELDS)
            assert list(ours.fills.trades) == list(theirs.fills.trades) == list(TRADE_FIELDS)
            assert np.array_equal(ours.predictions["bar_time"], bars.timestamp_ns[start:stop])
            for name in ("bar_time", "session_date", "baseline_direction", "baseline_strength", "outcome"):
                assert np.array_equal(ours.predictions[name], theirs.predictions[name])
            held = run.buy_and_hold.symbols[symbol].fills.session_days
            assert np.array_equal(ours.fills.session_days, theirs.fills.session_days)
            assert np.array_equal(ours.fills.session_days, held)

    def test_a_baseline_model_is_backtested_like_a_candidate(self, planted: Market) -> None:
        """Swapping candidate and baseline swaps the results; a model against itself differs in nothing."""
        trees, line = planted.model("gradient_boosting"), planted.model("logistic")
        rules = rules_of(planted)
        ours, swapped, equal = (
            run_validation_backtest(first, planted.bars, planted.window, rules, baseline_model=second)
            for first, second in ((trees, line), (line, trees), (trees, trees))
        )
        assert ours.candidate.metrics == swapped.baseline.metrics
        assert ours.baseline.metrics == swapped.candidate.metrics
        assert ours.candidate.metrics != ours.baseline.metrics
        assert equal.candidate.metrics == equal.baseline.metrics
        assert trades_of(equal.candidate) == trades_of(equal.baseline)

    def test_short_history(self, planted: Market) -> None:
        """A symbol with fewer than 60 scored sessions is listed with their number, one with 60 is not."""
        model, warm_up = planted.model(), planted.model().feature_set.warmup_bars
        bars = dict(planted.bars)
        for symbol, scored in (("PLANT01", SHORT_HISTORY_SESSIONS - 1), ("PLANT02", SHORT_HISTORY_SESSIONS)):
            whole = bars[symbol]
            bars[symbol] = whole.slice(len(whole) - (warm_up - 1 + scored), len(whole))
        run = run_validation_backtest(model, bars, planted.window, rules_of(planted))
        assert run.short_history == {"PLANT01": SHORT_HISTORY_SESSIONS - 1}

    def test_no_scored_row(self, planted: Market) -> None:
        """A symbol with one bar too few for its features is refused with the number of bars missing."""
        model = planted.model()
        warm_up = model.feature_set.warmup_bars
        whole = planted.bars["PLANT04"]
        for missing in (1, 30):
            short = whole.slice(len(whole) - (warm_up - missing), len(whole))
            with pytest.raises(WindowTooShort, match=f"PLANT04: .*give {missing} more bars") as refusal:
                run_validation_backtest(
                    model, planted.bars | {"PLANT04": short}, planted.window, rules_of(planted)
                )
            assert refusal.value.values["needed"] == warm_up
            assert refusal.value.values["found"] == warm_up - missing
        enough = whole.slice(len(whole) - warm_up, len(whole))
        run = run_validation_backtest(
            model, planted.bars | {"PLANT04": enough}, planted.window, rules_of(planted)
        )
        assert run.short_history == {"PLANT04": 1}

    def test_too_short_for_another_reason(self, planted: Market) -> None:
        """Bars enough but no finite feature: the refusal does not ask for more bars."""
        whole = planted.bars["PLANT04"]
        rows = whole.rows.copy()
        rows[planted.bars["PLANT04"].session_days >= planted.window.first_day, HIGH] = np.nan
        broken = planted.bars | {"PLANT04": replace(whole, rows=rows)}
        with pytest.raises(WindowTooShort, match=r"PLANT04: .*features are not finite") as refusal:
            run_validation_backtest(planted.model(), broken, planted.window, rules_of(planted))
        assert "more bars" not in refusal.value.message


class TestIntraday:
    """Five-minute bars: nothing is held over a session's end."""

    def test_no_position_over_a_sessions_end(self, minutes: Market) -> None:
        """Every trade ends in the session it began, squared off in the last 20 minutes at the latest."""
        rules = rules_of(minutes)
        run = run_validation_backtest(minutes.model("logistic"), minutes.bars, minutes.window, rules)
        reasons = set()
        for symbol, one in run.candidate.symbols.items():
            trades = one.fills.trades
            assert len(trades["entry_time"]) > 10
            assert np.array_equal(trades["entry_session_date"], trades["exit_session_date"])
            assert one.fills.open_quantity == 0
            bars = minutes.bars[symbol]
            last_of_session = np.flatnonzero(np.diff(bars.session_days, append=0))
            close_ns = dict(
                zip(bars.session_days[last_of_session], bars.available_ns[last_of_session], strict=True)
            )
            before_close = (
                np.array([close_ns[day] for day in trades["exit_session_date"]]) - trades["exit_time"]
            )
            assert before_close.min() >= rules.parameters.square_off_minutes * 60 * 10**9
            reasons |= set(trades["exit_reason"].tolist())
        assert EXIT_REASON_CODES["square_off"] in reasons
        assert EXIT_REASON_CODES["missed_square_off"] not in reasons
        assert EXIT_REASON_CODES["max_holding"] not in reasons

    def test_both_directions_and_the_student_count(self, minutes: Market) -> None:
        """Intraday trades go both ways and the student changes some of them."""
        run = run_validation_backtest(
            minutes.model("logistic"), minutes.bars, minutes.window, rules_of(minutes)
        )
        sides = {
            int(side) for one in run.candidate.symbols.values() for side in one.fills.trades["direction"]
        }
        assert sides == {1, -1}
        assert trades_of(run.candidate) != trades_of(run.baseline)
        assert pnl_of(run.candidate) != pnl_of(run.baseline)

    def test_outcomes_never_cross_a_session(self, minutes: Market) -> None:
        """The last 15 bars of every session have no outcome, all others do."""
        bars = minutes.bars["PLANT01"]
        run = backtest_symbol(bars, minutes.model("logistic"), minutes.window, rules_of(minutes))
        days = run.predictions["session_date"]
        for day in np.unique(days):
            outcome = run.predictions["outcome"][days == day]
            assert np.all(outcome[-15:] == UNKNOWN)
            assert not np.any(outcome[:-15] == UNKNOWN)

    def test_a_session_that_stops_early(self, minutes: Market) -> None:
        """Where a session ends with no further bar the exit is at the next open there is, and says so."""
        rules, model = rules_of(minutes), minutes.model("logistic")
        bars = minutes.bars["PLANT01"]
        whole = backtest_symbol(bars, model, minutes.window, rules).fills.trades
        day = int(whole["entry_session_date"][2])
        keep = (bars.session_days != day) | (bars.timestamp_ns <= whole["entry_time"][2])
        halted = first_bars_of(bars, keep)
        trades = backtest_symbol(halted, model, minutes.window, rules).fills.trades
        (at,) = np.flatnonzero(trades["exit_reason"] == EXIT_REASON_CODES["missed_square_off"])
        assert trades["entry_time"][at] == whole["entry_time"][2]
        next_bar = halted.timestamp_ns[halted.session_days > day][0]
        assert trades["exit_time"][at] == next_bar
        assert trades["exit_session_date"][at] > day


class TestRules:
    """What a backtest is told."""

    @pytest.mark.parametrize(
        ("strategy", "market", "schedule", "slippage"),
        [
            ("intraday", "nse", "nse_mis", 2.0),
            ("swing", "nse", "nse_cnc", 5.0),
            ("swing", "us", MARKETS["us"].swing_cost_schedule, 5.0),
        ],
    )
    def test_costs_by_market_and_strategy(
        self, tmp_path: Path, strategy: str, market: str, schedule: str, slippage: float
    ) -> None:
        """Without a setting the market and the strategy give the schedule; `cost_schedule` overrides it."""
        usual, flat = (
            TradingRules.from_settings(
                settings_of(tmp_path, **changes),
                strategy=strategy,
                market=market,
                horizon_bars=5,
                dead_zone=0.5,
            )
            for changes in ({}, {"cost_schedule": "flat_bps:3"})
        )
        assert (usual.cost_schedule, usual.slippage_bps) == (schedule, slippage)
        assert flat.cost_schedule == "flat_bps:3"

    def test_every_rule_is_described(self, planted: Market) -> None:
        """The description moves with every rule and every strategy parameter: nothing trades unrecorded."""
        rules = rules_of(planted)
        plain = rules.describe()
        changes = {
            "threshold": 0.7,
            "horizon_bars": 6,
            "dead_zone": 0.4,
            "cost_schedule": "flat_bps:1",
            "slippage_bps": 1.0,
            "capital": 5.0,
            "market": "nse",
        }
        for name, value in changes.items():
            assert replace(rules, **{name: value}).describe() != plain, name
        for name, value in rules.parameters.describe().items():
            if hasattr(rules.parameters, name) and name != "strategy":
                other = not value if isinstance(value, bool) else value + 1
                assert (
                    replace(rules, parameters=replace(rules.parameters, **{name: other})).describe() != plain
                )
        assert plain["zone"] == MARKETS["us"].zone
        assert set(SOURCES.values()) == {"baseline_strategy", "student_model"}


def test_a_dead_market_earns_nothing(planted: Market) -> None:
    """On a market that never moves beyond its noise floor nothing is decisive and the rule stays out."""
    frames = planted_market(3, 1, 400, "1d", 0.0)
    (bars,) = arrays_of(frames).values()
    rows = bars.rows.copy()
    wobble = 1.0 + 0.001 * (np.arange(len(bars)) % 2)
    for column in (OPEN, HIGH, LOW, CLOSE):
        rows[:, column] = 100.0 * wobble
    rows[:, HIGH] *= 1.002
    rows[:, LOW] *= 0.998
    run = backtest_symbol(
        replace(bars, rows=rows),
        None,
        Window(int(bars.session_days[200]), int(bars.session_days[-1])),
        rules_of(planted),
    )
    assert not len(run.fills.trades["entry_time"])
    assert not np.any(run.fills.net_pnl)
    known = run.predictions["outcome"] != UNKNOWN
    assert np.all(run.predictions["outcome"][known] == INSIDE)
