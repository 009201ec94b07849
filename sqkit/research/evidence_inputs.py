"""From a validation's stored artifacts to what the evidence is computed from.

The decision and the verification call `evidence_inputs`; both see the same rows, returns, costs and
the number of trials that was kept when the window was looked at.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from sqkit.artifacts import RESULTS_FILE
from sqkit.errors import ArtifactChanged
from sqkit.records import iso_date, session_day
from sqkit.research.accuracy import AccuracyAnalyzer
from sqkit.research.evidence import Trials
from sqkit.research.paired_evidence import NamedBaseline
from sqkit.research.paired_rows import PairedReturns, PairedRows
from sqkit.research.trade_costs import portfolio_costs

ROUNDING: Final = 1e-8
"""Share of the capital by which sums of daily and of trade P&L may differ."""


@dataclass(frozen=True)
class EvidenceInputs:
    """Arguments of `sqkit.research.evidence.gather_evidence`, by its names."""

    rows: PairedRows
    returns: PairedReturns
    base_rate: float | None
    overlap: int
    trials: Trials
    named_baseline: NamedBaseline | None


def evidence_inputs(results: Mapping[str, Any], analyzer: AccuracyAnalyzer) -> EvidenceInputs:
    """Rows, returns, costs, overlap and trials of a stored validation.

    Raises
    ------
    ArtifactChanged
        The daily returns of a side are not one for each session date of the predictions.
    """
    rows = analyzer.paired_rows()
    candidate = results["models"]["candidate"]
    return EvidenceInputs(
        rows=rows,
        returns=_returns(results, analyzer),
        base_rate=candidate["training_base_rate"] if analyzer.baseline_is_rule else None,
        overlap=label_overlap(results, rows),
        trials=Trials(
            candidate=results["digests"]["model_behaviour"],
            n_trials=max(
                1, results["trials"]["n_trials"]
            ),  # the look at hand; integrity says it is not counted
            others={
                behaviour: (_days(series["days"]), np.array(series["returns"], dtype=np.float64))
                for behaviour, series in results["trials"]["returns"].items()
            },
        ),
        named_baseline=NamedBaseline(candidate["training_base_rate"], analyzer.rule_calls())
        if is_named_baseline(results)
        else None,
    )


def is_named_baseline(results: Mapping[str, Any]) -> bool:
    """Whether the baseline is a model that is not in production: somebody chose it."""
    digests = results["digests"]
    return digests["baseline"] is not None and digests["baseline"] != digests["incumbent"]


def label_overlap(results: Mapping[str, Any], rows: PairedRows) -> int:
    """Session days a label reaches over: 1 intraday, the horizon on daily bars, else what it may cross."""
    horizon: int = results["runtime"]["horizon_bars"]
    if results["runtime"]["strategy"] == "intraday":
        return 1
    if results["interval"] == "1d":
        return horizon
    listed = len(np.unique(rows.symbols.astype(np.int64) * len(rows.days) + rows.day_index))
    return 1 + math.ceil(horizon * listed / max(len(rows), 1))


def _returns(results: Mapping[str, Any], analyzer: AccuracyAnalyzer) -> PairedReturns:
    listed = [analyzer.listed_days(symbol) for symbol in analyzer.symbols]
    days = np.unique(np.concatenate(listed)).astype(np.int64)
    dates, returns = [iso_date(day) for day in days], {}
    for role in ("candidate", "baseline"):
        series = results["daily_returns"][role]
        if sorted(series) != dates:
            raise ArtifactChanged(
                f"{RESULTS_FILE}: the daily returns of the {role} are not those of the {len(dates)} session "
                "dates of the predictions; validate again",
                role=role,
            )
        returns[role] = np.array([series[date] for date in dates], dtype=np.float64)
        _require_earned(role, returns[role], days, results["runtime"]["capital_per_symbol"], analyzer)
    costs = {role: portfolio_costs(analyzer, role, days, results["runtime"]) for role in returns}
    return PairedReturns(
        session_days=days,
        student=returns["candidate"],
        baseline=returns["baseline"],
        student_costs=costs["candidate"],
        baseline_costs=costs["baseline"],
    )


def _require_earned(
    role: str, returns: np.ndarray, days: np.ndarray, capital: float, analyzer: AccuracyAnalyzer
) -> None:
    """What the daily returns add up to is what the stored trades earned, open ones at their mark."""
    listed, earned = np.zeros(len(days)), 0.0
    for symbol in analyzer.symbols:
        listed[np.searchsorted(days, analyzer.listed_days(symbol))] += 1.0
        earned += float(np.sum(analyzer.trades(symbol, role)["net_pnl"]))
    claimed = float(np.sum(returns * listed)) * capital
    if not abs(claimed - earned) <= ROUNDING * capital * len(analyzer.symbols):
        raise ArtifactChanged(
            f"{RESULTS_FILE}: the daily returns of the {role} add up to {claimed:,.2f}, its stored trades earned "
            f"{earned:,.2f}; validate again",
            role=role,
        )


def _days(dates: list[str]) -> np.ndarray:
    return np.array([session_day(dt.date.fromisoformat(date)) for date in dates], dtype=np.int64)
