"""From a validation's stored artifacts to what the evidence is computed from.

The decision and the verification call `evidence_inputs`; both see the same rows, returns, costs and
the number of trials that was kept when the window was looked at.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sqkit.records import session_day
from sqkit.research.accuracy import AccuracyAnalyzer
from sqkit.research.evidence import Trials
from sqkit.research.paired_rows import PairedReturns, PairedRows
from sqkit.research.trade_costs import portfolio_costs


@dataclass(frozen=True)
class EvidenceInputs:
    """Arguments of `sqkit.research.evidence.gather_evidence`, by its names."""

    rows: PairedRows
    returns: PairedReturns
    base_rate: float | None
    overlap: int
    trials: Trials


def evidence_inputs(results: Mapping[str, Any], analyzer: AccuracyAnalyzer) -> EvidenceInputs:
    """Rows, returns, costs, overlap and trials of a stored validation."""
    rows = analyzer.paired_rows()
    candidate = results["models"]["candidate"]
    return EvidenceInputs(
        rows=rows,
        returns=_returns(results, analyzer),
        base_rate=candidate["training_base_rate"] if analyzer.baseline_is_rule else None,
        overlap=label_overlap(results, rows),
        trials=Trials(
            candidate=results["digests"]["model_behaviour"],
            n_trials=results["trials"]["n_trials"],
            others={
                behaviour: (_days(series["days"]), np.array(series["returns"], dtype=np.float64))
                for behaviour, series in results["trials"]["returns"].items()
            },
        ),
    )


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
    series = results["daily_returns"]
    dates = sorted(series["candidate"])
    days = _days(dates)
    returns = {
        role: np.array([series[role][date] for date in dates], dtype=np.float64)
        for role in ("candidate", "baseline")
    }
    costs = {role: portfolio_costs(analyzer, role, days, results["runtime"]) for role in returns}
    return PairedReturns(
        session_days=days,
        student=returns["candidate"],
        baseline=returns["baseline"],
        student_costs=costs["candidate"],
        baseline_costs=costs["baseline"],
    )


def _days(dates: list[str]) -> np.ndarray:
    return np.array([session_day(dt.date.fromisoformat(date)) for date in dates], dtype=np.int64)
