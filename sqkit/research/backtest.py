"""The backtest: bars to predictions, trades and daily returns, for a model or the bare rule.

Per symbol: features -> scores -> strategy step -> fills at the next open -> fees and
slippage -> daily net P&L. The strategy and fill steps are the compiled ones that the live
engine runs. `run_validation_backtest` puts candidate, baseline and buy-and-hold on identical
rows; `sqkit.research.validation` writes what comes out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sqkit.bars import CLOSE, BarArrays
from sqkit.errors import WindowTooShort
from sqkit.features import feature_matrix
from sqkit.fills import Fills, buy_and_hold, simulate_fills
from sqkit.metrics import financial_metrics, horizon_outcomes
from sqkit.records import REASON_CODES, iso_date
from sqkit.research.accuracy import scored_rows
from sqkit.research.compute import map_symbols
from sqkit.strategy import run_strategy
from sqkit.student import StudentModel
from sqkit.trading_rules import TradingRules

SHORT_HISTORY_SESSIONS = 60


@dataclass(frozen=True)
class Window:
    """A window of session dates, both ends included, as days since 1970-01-01."""

    first_day: int
    last_day: int

    def describe(self) -> dict[str, str]:
        """The window as ISO dates."""
        return {"start": iso_date(self.first_day), "end": iso_date(self.last_day)}


@dataclass(frozen=True)
class SymbolRun:
    """One symbol under one model or the rule, over the window's bars.

    Attributes
    ----------
    predictions
        Columns named by `sqkit.records.PREDICTION_FIELDS`, one row a bar of the window.
    fills
        Trades and daily net P&L.
    """

    symbol: str
    predictions: dict[str, np.ndarray]
    fills: Fills


def backtest_symbol(
    bars: BarArrays, model: StudentModel | None, window: Window, rules: TradingRules
) -> SymbolRun:
    """Run one symbol through the window; without a model the rule trades alone.

    Bars before the window warm features and indicators, bars after it only serve to know
    the outcomes of the window's last rows. The position is flat at the window's start.
    """
    start, stop = bars.window(window.first_day, window.last_day)
    known, rows = bars.slice(0, stop), slice(start, stop)
    if model is None:
        probability = np.full(stop - start, np.nan)
        direction = np.zeros(stop, dtype=np.int8)
        unready = np.arange(start, stop) < rules.parameters.warmup_bars - 1
        reason = np.where(unready, REASON_CODES["warm_up"], REASON_CODES["disabled"]).astype(np.int8)
    else:
        features = feature_matrix(model.feature_set, known)
        warm_up_rows = min(max(model.feature_set.warmup_bars - 1 - start, 0), stop - start)
        scores = model.score_rows(features[rows], rules.threshold, warm_up_rows=warm_up_rows)
        probability, reason = scores.probability_up, scores.reason
        direction = np.zeros(stop, dtype=np.int8)
        direction[rows] = scores.direction
    steps = run_strategy(known.rows, direction, rules.parameters, start=start)
    fills = simulate_fills(
        bars,
        steps.target,
        steps.strength,
        direction,
        steps.exit_reason,
        start=start,
        stop=stop,
        capital=rules.capital,
        slippage_bps=rules.slippage_bps,
        schedule=rules.cost_schedule,
        parameters=rules.parameters,
    )
    outcome = horizon_outcomes(
        bars.rows[:, CLOSE],
        bars.session_days,
        rules.horizon_bars,
        dead_zone=rules.dead_zone,
        within_session=rules.parameters.strategy == "intraday",
    ).outcome[rows]
    predictions = {
        "bar_time": bars.timestamp_ns[rows],
        "session_date": bars.session_days[rows],
        "student_prediction": direction[rows],
        "student_probability_up": probability,
        "student_confidence": np.maximum(probability, 1.0 - probability),
        "reason": reason,
        "prediction_source": steps.prediction_source[rows],
        "baseline_direction": steps.baseline_direction[rows],
        "baseline_strength": steps.baseline_strength[rows],
        "strength": steps.strength[rows],
        "target": steps.target[rows],
        "outcome": outcome,
    }
    return SymbolRun(bars.symbol, predictions, fills)


@dataclass(frozen=True)
class PortfolioRun:
    """All symbols under one model or the rule.

    Attributes
    ----------
    session_days
        int32 (d,), every session on which at least one symbol has a bar.
    daily_returns
        float64 (d,), mean over the symbols listed that session of net P&L / capital.
    metrics
        The financial metrics of `sqkit.metrics.financial_metrics`.
    """

    symbols: dict[str, SymbolRun]
    session_days: np.ndarray
    daily_returns: np.ndarray
    metrics: dict[str, float | None]


@dataclass(frozen=True)
class ValidationBacktest:
    """Candidate, baseline and buy-and-hold over the same bars.

    Attributes
    ----------
    short_history
        Symbols with fewer than 60 scored sessions, with their number.
    """

    window: Window
    rules: TradingRules
    candidate: PortfolioRun
    baseline: PortfolioRun
    buy_and_hold: PortfolioRun
    short_history: dict[str, int]


def run_validation_backtest(
    model: StudentModel,
    bars: dict[str, BarArrays],
    window: Window,
    rules: TradingRules,
    *,
    baseline_model: StudentModel | None = None,
) -> ValidationBacktest:
    """Backtest candidate, baseline (a model, or the rule) and buy-and-hold on identical rows.

    Raises
    ------
    WindowTooShort
        A symbol has no row that could be scored; the message says how many bars are missing.
    """
    symbols = list(bars)
    for name in symbols:
        require_scorable(bars[name], window, [model, baseline_model], rules)
    candidate = map_symbols(
        lambda name: backtest_symbol(bars[name], model, window, rules), symbols, label="candidate"
    )
    baseline = map_symbols(
        lambda name: backtest_symbol(bars[name], baseline_model, window, rules), symbols, label="baseline"
    )
    held = map_symbols(lambda name: _hold(bars[name], window, rules), symbols, label="buy and hold")
    short_history = {}
    for name in symbols:
        warm = scored_rows(candidate[name].predictions, baseline[name].predictions)
        days = candidate[name].predictions["session_date"][warm]
        if not len(days):
            raise WindowTooShort(
                f"{name}: no bar between {iso_date(window.first_day)} and {iso_date(window.last_day)} can be scored; "
                "its features are not finite there",
                symbol=name,
            )
        if (scored_sessions := len(np.unique(days))) < SHORT_HISTORY_SESSIONS:
            short_history[name] = scored_sessions
    return ValidationBacktest(
        window,
        rules,
        _portfolio(candidate, rules.capital),
        _portfolio(baseline, rules.capital),
        _portfolio(held, rules.capital),
        short_history,
    )


def _hold(bars: BarArrays, window: Window, rules: TradingRules) -> SymbolRun:
    start, stop = bars.window(window.first_day, window.last_day)
    fills = buy_and_hold(
        bars,
        start,
        stop,
        capital=rules.capital,
        slippage_bps=rules.slippage_bps,
        schedule=rules.cost_schedule,
    )
    return SymbolRun(bars.symbol, {}, fills)


def require_scorable(
    bars: BarArrays, window: Window, models: Sequence[StudentModel | None], rules: TradingRules
) -> None:
    """Refuse a symbol of which no bar of the window can have features and indicators.

    Raises
    ------
    WindowTooShort
        The message says how many bars are missing.
    """
    warmups = [model.feature_set.warmup_bars for model in models if model is not None]
    require_bars(bars, window, max(rules.parameters.warmup_bars, *warmups))


def require_bars(bars: BarArrays, window: Window, needed: int) -> None:
    """Refuse a symbol with fewer than `needed` bars up to the window's end (`WindowTooShort`)."""
    _, stop = bars.window(window.first_day, window.last_day)
    if stop < needed:
        raise WindowTooShort(
            f"{bars.symbol}: no bar up to {iso_date(window.last_day)} can be scored, features and indicators need "
            f"{needed} bars and there are {stop}; give {needed - stop} more bars or leave the symbol out",
            symbol=bars.symbol,
            needed=needed,
            found=stop,
        )


def _portfolio(runs: dict[str, SymbolRun], capital: float) -> PortfolioRun:
    """Equal capital per symbol; a symbol without a bar that session is absent, an idle one counts 0."""
    days = np.unique(np.concatenate([run.fills.session_days for run in runs.values()]))
    total, listed = np.zeros(len(days)), np.zeros(len(days))
    for run in runs.values():
        at = np.searchsorted(days, run.fills.session_days)
        total[at] += run.fills.net_pnl / capital
        listed[at] += 1.0
    returns = total / listed
    closed = [run.fills.trades["net_pnl"][run.fills.trades["exit_time"] != 0] for run in runs.values()]
    return PortfolioRun(
        runs, days.astype(np.int32), returns, financial_metrics(returns, np.concatenate(closed))
    )
