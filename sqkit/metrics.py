"""Outcomes and metrics, defined once: notebook, gate and monitor all measure with these.

`horizon_outcomes` says what the market did after each bar; training labels and metrics both
come from it. `accuracy_metrics` judges calls against outcomes, `financial_metrics` judges
daily net returns and closed trades. Arrays go in, plain numbers come out; a figure that is
not defined is None, with the reason under ``undefined``, never NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from sqkit.errors import UsageError
from sqkit.records import DOWN, FLAT, INSIDE, LONG, SHORT, UNKNOWN, UP

METRIC_KEYS: Final = (
    "precision_long",
    "hit_ratio",
    "accuracy",
    "sharpe_ratio",
    "total_return",
    "max_drawdown",
    "win_rate",
)
"""The seven metrics of a checklist, in the order in which they are printed."""

DEFAULT_DEAD_ZONE: Final = 0.5
VOLATILITY_BARS: Final = 20
TRADING_DAYS_PER_YEAR: Final = 252
CALIBRATION_BINS: Final = 10

_CONSTANT: Final = 1e-12
"""A standard deviation below this share of the largest value is rounding: the series is constant."""


@dataclass(frozen=True)
class Outcomes:
    """What the market did over the horizon after each bar.

    Attributes
    ----------
    move
        float64 (n,), ``log(close[t + h] / close[t])``; NaN where the outcome is not known.
    volatility
        float64 (n,), standard deviation (ddof 0) of the last 20 one-bar log returns at t;
        NaN for the first 20 bars.
    outcome
        int8 (n,), `sqkit.records.OUTCOMES`.
    label_end
        int64 (n,), position of the last bar the outcome uses (t + h); -1 where it is not known.
    """

    move: np.ndarray
    volatility: np.ndarray
    outcome: np.ndarray
    label_end: np.ndarray


def horizon_outcomes(
    close: np.ndarray,
    session_days: np.ndarray,
    horizon: int,
    *,
    dead_zone: float = DEFAULT_DEAD_ZONE,
    within_session: bool,
) -> Outcomes:
    """Realised move over the next `horizon` bars of one symbol, and whether it was decisive.

    A move is decisive when ``|move| > dead_zone x volatility x sqrt(horizon)``.

    Parameters
    ----------
    close
        float (n,), closing prices in time order.
    session_days
        int (n,), session date of each bar as days since 1970-01-01.
    horizon
        Bars ahead, at least 1.
    dead_zone
        Multiple of the expected move inside which nothing happened, not negative.
    within_session
        True (intraday): an outcome never crosses a session, so a session's last `horizon`
        bars have none.

    Raises
    ------
    UsageError
        A horizon below 1, a dead zone that is not a number of at least 0, or arrays of
        different lengths.
    """
    if horizon < 1:
        raise UsageError(f"horizon {horizon}: give at least 1 bar", horizon=horizon)
    if not 0.0 <= dead_zone < np.inf:
        raise UsageError(f"dead zone {dead_zone}: give a number of at least 0", dead_zone=dead_zone)
    prices = np.asarray(close, dtype=np.float64)
    days = np.asarray(session_days)
    _same_length(close=prices, session_days=days)

    bars = len(prices)
    move = np.full(bars, np.nan)
    ahead = max(bars - horizon, 0)
    with np.errstate(all="ignore"):  # a price of zero has no return; its outcome is unknown
        move[:ahead] = np.log(prices[bars - ahead :] / prices[:ahead])
        volatility = _trailing_volatility(prices)
    known = np.isfinite(move) & np.isfinite(volatility)
    if within_session:
        known[:ahead] &= days[bars - ahead :] == days[:ahead]
    move[~known] = np.nan

    outcome = np.full(bars, UNKNOWN, dtype=np.int8)
    outcome[known] = INSIDE
    bound = dead_zone * volatility * np.sqrt(horizon)
    outcome[known & (move > bound)] = UP
    outcome[known & (move < -bound)] = DOWN
    label_end = np.where(known, np.arange(bars, dtype=np.int64) + horizon, -1)
    return Outcomes(move, volatility, outcome, label_end)


def accuracy_metrics(
    calls: np.ndarray, outcomes: np.ndarray, probability_up: np.ndarray | None = None
) -> dict[str, Any]:
    """How often the calls were right, over the rows whose outcome is known.

    A directional call is right when the move has its sign and is decisive; inside the dead
    zone it is wrong. FLAT is right only inside the dead zone.

    Parameters
    ----------
    calls
        int (n,), LONG, FLAT or SHORT.
    outcomes
        int (n,), UP, INSIDE, DOWN or UNKNOWN; unknown rows are left out.
    probability_up
        float (n,), P(up | decisive move), NaN where not scored; None for a rule.

    Returns
    -------
    dict
        ``precision_long``, ``precision_short``, ``hit_ratio``, ``accuracy``, ``coverage``,
        ``always_flat_accuracy`` (shares or None); ``brier`` and ``calibration`` (ten bins) on
        decisive scored rows, None for a rule; ``counts`` of ``rows``, ``calls``,
        ``calls_long``, ``calls_short``, ``right_long``, ``right_short``, ``decisive``,
        ``scored_decisive``; ``undefined`` (name: reason).

    Raises
    ------
    UsageError
        Arrays of different lengths, a value that is no code, a probability outside [0, 1].
    """
    calls, outcomes = np.asarray(calls), np.asarray(outcomes)
    _same_length(calls=calls, outcomes=outcomes)
    _only_codes("calls", calls, (LONG, FLAT, SHORT))
    _only_codes("outcomes", outcomes, (UP, INSIDE, DOWN, UNKNOWN))

    counts = call_counts(calls, outcomes)
    shares, undefined = call_shares(counts)
    scored_decisive, brier, calibration = _probability_metrics(outcomes, probability_up, undefined)
    kept = ("rows", "calls", "calls_long", "calls_short", "right_long", "right_short", "decisive")
    return {
        **shares,
        "brier": brier,
        "calibration": calibration,
        "counts": {name: counts[name] for name in kept} | {"scored_decisive": scored_decisive},
        "undefined": undefined,
    }


def call_counts(calls: np.ndarray, outcomes: np.ndarray) -> dict[str, int]:
    """What the shares of `accuracy_metrics` are counted from: counts of a part add up to those of the whole.

    Parameters
    ----------
    calls, outcomes
        As `accuracy_metrics` takes them, codes that are valid; rows of unknown outcome are left out.

    Returns
    -------
    dict
        ``rows``, ``right``, ``calls``, ``calls_long``, ``calls_short``, ``right_long``, ``right_short``,
        ``decisive``.
    """
    known = outcomes != UNKNOWN
    call, outcome = calls[known], outcomes[known]
    right, long, short = call == outcome, call == LONG, call == SHORT
    return {
        "rows": len(call),
        "right": _count(right),
        "calls": _count(call != FLAT),
        "calls_long": _count(long),
        "calls_short": _count(short),
        "right_long": _count(right & long),
        "right_short": _count(right & short),
        "decisive": _count(outcome != INSIDE),
    }


def call_shares(counts: Mapping[str, int]) -> tuple[dict[str, float | None], dict[str, str]]:
    """The shares of `accuracy_metrics` from counts, and why one is None."""
    undefined: dict[str, str] = {}
    rows, calls = counts["rows"], counts["calls"]

    def share(name: str, part: int, whole: int, reason: str) -> float | None:
        return _share(part, whole, name, reason, undefined)

    right = counts["right_long"] + counts["right_short"]
    shares = {
        "precision_long": share("precision_long", counts["right_long"], counts["calls_long"], "no LONG call"),
        "precision_short": share(
            "precision_short", counts["right_short"], counts["calls_short"], "no SHORT call"
        ),
        "hit_ratio": share("hit_ratio", right, calls, "no directional call"),
        "accuracy": share("accuracy", counts["right"], rows, _NO_ROWS),
        "coverage": share("coverage", calls, rows, _NO_ROWS),
        "always_flat_accuracy": share("always_flat_accuracy", rows - counts["decisive"], rows, _NO_ROWS),
    }
    return shares, undefined


def financial_metrics(daily_returns: np.ndarray, trade_net_pnls: np.ndarray) -> dict[str, Any]:
    """Sharpe ratio, total return, drawdown and win rate of one account.

    Parameters
    ----------
    daily_returns
        float (d,), net return of each session, zero on idle ones.
    trade_net_pnls
        float (k,), net profit of each closed trade; exactly zero is no win.

    Returns
    -------
    dict
        ``sharpe_ratio`` mean / std (ddof 1) x sqrt(252); ``total_return`` prod(1 + r) - 1;
        ``max_drawdown`` largest fall from the running peak (the start counts) as a positive
        fraction; ``win_rate`` winning / closed trades; each a float or None, with the
        reason under ``undefined``; ``counts`` of ``session_days``, ``closed_trades``,
        ``winning_trades``.
    """
    returns = np.asarray(daily_returns, dtype=np.float64)
    pnls = np.asarray(trade_net_pnls, dtype=np.float64)
    undefined: dict[str, str] = {}
    winning = _count(pnls > 0.0)
    result: dict[str, Any] = {
        "sharpe_ratio": _sharpe_ratio(returns, undefined),
        **_growth(returns, undefined),
    }
    if np.isfinite(pnls).all():
        result["win_rate"] = _share(winning, len(pnls), "win_rate", "no closed trade", undefined)
    else:
        result["win_rate"] = None
        undefined["win_rate"] = "a trade's net profit is not finite"
    result["counts"] = {"session_days": len(returns), "closed_trades": len(pnls), "winning_trades": winning}
    result["undefined"] = undefined
    return result


def seven_metrics(accuracy: dict[str, Any], financial: dict[str, Any]) -> dict[str, float | None]:
    """The seven metrics of a checklist, picked from the two families above."""
    both = {**accuracy, **financial}
    return {name: both[name] for name in METRIC_KEYS}


def adequacy_counts(
    session_days: np.ndarray, candidate_calls: np.ndarray, baseline_calls: np.ndarray
) -> dict[str, int]:
    """How much a validation holds, counted on the rows that both sides are judged on.

    Parameters
    ----------
    session_days
        int (n,), session date of each row.
    candidate_calls, baseline_calls
        int (n,), LONG, FLAT or SHORT of either side on the same rows.

    Returns
    -------
    dict
        ``session_days``; ``day_clusters``, the session days with a directional call, of the
        side that has fewer; ``candidate_calls`` and ``baseline_calls``, directional ones.
    """
    days = np.asarray(session_days)
    candidate, baseline = np.asarray(candidate_calls) != FLAT, np.asarray(baseline_calls) != FLAT
    _same_length(session_days=days, candidate_calls=candidate, baseline_calls=baseline)
    return {
        "session_days": len(np.unique(days)),
        "day_clusters": min(len(np.unique(days[candidate])), len(np.unique(days[baseline]))),
        "candidate_calls": _count(candidate),
        "baseline_calls": _count(baseline),
    }


def probability_bin(predicted: np.ndarray, bins: int = CALIBRATION_BINS) -> np.ndarray:
    """Number of each probability's bin, int (n,): equal widths ``(low, high]``, zero in the first."""
    place: np.ndarray = np.searchsorted(np.linspace(0.0, 1.0, bins + 1)[1:-1], predicted, side="left")
    return place


def calibration_bins(
    predicted: np.ndarray, happened: np.ndarray, bins: int = CALIBRATION_BINS
) -> list[dict[str, Any]]:
    """What was predicted and what happened, bin by bin as scikit-learn cuts them.

    Parameters
    ----------
    predicted
        float (n,), probabilities.
    happened
        (n,), 1 where it did, else 0.

    Returns
    -------
    list of dict
        ``low``, ``high``, ``count``, ``mean_predicted``, ``observed_share``; the last two are None in
        an empty bin.
    """
    edges = np.linspace(0.0, 1.0, bins + 1)
    place = probability_bin(predicted, bins)
    count = np.bincount(place, minlength=bins)
    sum_predicted = np.bincount(place, weights=predicted, minlength=bins)
    sum_happened = np.bincount(place, weights=happened, minlength=bins)
    return [
        {
            "low": round(float(edges[bin_]), 12),
            "high": round(float(edges[bin_ + 1]), 12),
            "count": int(count[bin_]),
            "mean_predicted": float(sum_predicted[bin_] / count[bin_]) if count[bin_] else None,
            "observed_share": float(sum_happened[bin_] / count[bin_]) if count[bin_] else None,
        }
        for bin_ in range(bins)
    ]


_NO_ROWS: Final = "no row with a known outcome"


def _trailing_volatility(prices: np.ndarray) -> np.ndarray:
    """Standard deviation of the last 20 returns, each window summed in the same order.

    Whole-array steps over the 20 lags: no running sum that drifts, and a prefix of the
    prices gives the same bits.
    """
    volatility = np.full(len(prices), np.nan)
    if len(prices) <= VOLATILITY_BARS:
        return volatility
    returns = np.log(prices[1:] / prices[:-1])
    windows = len(returns) - VOLATILITY_BARS + 1
    mean = np.zeros(windows)
    for lag in range(VOLATILITY_BARS):
        mean += returns[lag : lag + windows]
    mean /= VOLATILITY_BARS
    variance = np.zeros(windows)
    for lag in range(VOLATILITY_BARS):
        variance += (returns[lag : lag + windows] - mean) ** 2
    volatility[VOLATILITY_BARS:] = np.sqrt(variance / VOLATILITY_BARS)
    return volatility


def _probability_metrics(
    outcomes: np.ndarray, probability_up: np.ndarray | None, undefined: dict[str, str]
) -> tuple[int, float | None, list[dict[str, Any]] | None]:
    """Decisive scored rows, their Brier score and their calibration bins."""
    if probability_up is None:
        return 0, None, None
    probability = np.asarray(probability_up, dtype=np.float64)
    _same_length(outcomes=outcomes, probability_up=probability)
    scored = np.isfinite(probability)
    if np.any((probability[scored] < 0.0) | (probability[scored] > 1.0)):
        raise UsageError("probability_up: a value lies outside [0, 1]; give probabilities")
    chosen = scored & ((outcomes == UP) | (outcomes == DOWN))
    predicted, up = probability[chosen], (outcomes[chosen] == UP).astype(np.float64)
    if not len(predicted):
        undefined["brier"] = undefined["calibration"] = "no scored row with a decisive outcome"
        return 0, None, None
    return len(predicted), float(np.mean((predicted - up) ** 2)), calibration_bins(predicted, up)


def _sharpe_ratio(returns: np.ndarray, undefined: dict[str, str]) -> float | None:
    if not np.isfinite(returns).all():
        undefined["sharpe_ratio"] = _NOT_FINITE
    elif len(returns) < 2:
        undefined["sharpe_ratio"] = "fewer than two session days"
    else:
        with np.errstate(all="ignore"):
            deviation = np.std(returns, ddof=1)
            ratio = np.mean(returns) / deviation * np.sqrt(TRADING_DAYS_PER_YEAR)
        if deviation <= _CONSTANT * np.max(np.abs(returns)):
            undefined["sharpe_ratio"] = "the daily returns do not vary"
        elif not np.isfinite(deviation) or not np.isfinite(ratio):
            undefined["sharpe_ratio"] = "the daily returns are too large or too small to compute with"
        else:
            return float(ratio)
    return None


def _growth(returns: np.ndarray, undefined: dict[str, str]) -> dict[str, float | None]:
    """Total return and maximum drawdown, from the path of one unit of capital."""
    with np.errstate(all="ignore"):
        wealth = np.concatenate([[1.0], np.cumprod(1.0 + returns)])
    problem = None
    if not np.isfinite(returns).all():
        problem = _NOT_FINITE
    elif not len(returns):
        problem = "no session day"
    elif np.any(returns < -1.0):
        problem = "a session lost more than the whole capital"
    elif not np.isfinite(wealth).all():
        problem = "the daily returns are too large to compound"
    if problem:
        undefined["total_return"] = undefined["max_drawdown"] = problem
        return {"total_return": None, "max_drawdown": None}
    peak = np.maximum.accumulate(wealth)
    return {"total_return": float(wealth[-1] - 1.0), "max_drawdown": float(np.max(1.0 - wealth / peak))}


_NOT_FINITE: Final = "a daily return is not finite"


def _count(mask: np.ndarray) -> int:
    return int(np.count_nonzero(mask))


def _share(part: int, whole: int, name: str, reason: str, undefined: dict[str, str]) -> float | None:
    if whole:
        return part / whole
    undefined[name] = reason
    return None


def _same_length(**arrays: np.ndarray) -> None:
    if len({array.shape for array in arrays.values()}) > 1 or any(
        array.ndim != 1 for array in arrays.values()
    ):
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise UsageError(f"{shapes}: give one-dimensional arrays of one length, one value a row")


def _only_codes(name: str, values: np.ndarray, codes: tuple[int, ...]) -> None:
    strange = ~np.isin(values, codes)
    if strange.any():
        at = int(np.argmax(strange))
        raise UsageError(f"{name}: {values[at]} at row {at} is none of {', '.join(map(str, codes))}", row=at)
