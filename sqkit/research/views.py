"""Artifacts as a reader wants them: rows for tables, arrays for figures, the first line of a report.

The notebooks show what comes from here; every number is read from an artifact, none is typed.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from sqkit.checklist import Policy
from sqkit.checklist_markdown import compare
from sqkit.checklist_rules import criteria_of
from sqkit.checklist_tables import evidence_row, p_text
from sqkit.evidence_grade import PRECISION_ALL_ROWS
from sqkit.research.accuracy import AccuracyAnalyzer
from sqkit.research.paired_evidence import HIT_RATIO_ALL_ROWS

Row = dict[str, Any]
NOTHING: Final = "n/a"
_PERCENT: Final = {
    "precision_long",
    "hit_ratio",
    "accuracy",
    "total_return",
    "max_drawdown",
    "win_rate",
    "coverage",
}
ROW_METRICS: Final = ("precision_long", "hit_ratio", "accuracy")
TITLES: Final = {
    "precision_long": "Precision (LONG)",
    "hit_ratio": "Hit ratio",
    "accuracy": "Overall accuracy",
    "sharpe_ratio": "Sharpe ratio",
    "total_return": "Total return",
    "max_drawdown": "Max drawdown",
    "win_rate": "Win rate",
}


def shown(name: str, value: float | None) -> str:
    """A metric as text: a percentage, or a plain number with two decimals."""
    if value is None:
        return NOTHING
    return f"{value:.1%}" if name in _PERCENT else f"{value:.2f}"


def lead_line(checklist: dict[str, Any]) -> str:
    """The first line of every page of a report: the verdict and which gate decided it, by how much."""
    return f"{checklist['recommendation']}: {checklist['reason']}"


def opponents_line(results: dict[str, Any]) -> str:
    """Whom the candidate was compared with, and what is in production."""
    strategy = results["runtime"]["strategy"]
    baseline = results["baseline_model"] or f"baseline rule ({strategy})"
    incumbent = results["incumbent_model"] or "none"
    return f"Compared with {baseline}. In production at validation time: {incumbent}."


def facts_rows(results: dict[str, Any]) -> list[Row]:
    """What was run: model, window, symbols, rules, costs."""
    period, runtime = results["validation_period"], results["runtime"]
    facts = {
        "Model version": results["model_version"],
        "Candidate": results["candidate_model"],
        "Baseline": results["baseline_model"] or f"baseline rule ({runtime['strategy']})",
        "Incumbent": results["incumbent_model"] or "none",
        "Training window": f"{results['training_window']['start']} to {results['training_window']['end']}",
        "Validation window": f"{period['start']} to {period['end']} (session dates, {runtime['zone']})",
        "Symbols": ", ".join(period["symbols"]),
        "Strategy": runtime["strategy"],
        "Confidence threshold": f"{runtime['confidence_threshold']:g}",
        "Costs": f"{runtime['cost_schedule']}, slippage {runtime['slippage_bps']:g} bps a side",
        "Capital per symbol": f"{runtime['capital_per_symbol']:,.0f} {runtime['currency']}",
    }
    return [{"": name, "value": value} for name, value in facts.items()]


def remark_rows(results: dict[str, Any]) -> list[Row]:
    """Symbols with a short history, symbols validated untrained, anything the data said."""
    rows = [
        {"what": symbol, "remark": f"short history: {sessions} scored sessions"}
        for symbol, sessions in results["short_history"].items()
    ]
    rows += [{"what": symbol, "remark": "validated untrained"} for symbol in results["untrained_symbols"]]
    if not results["tradable"]:
        rows.append({"what": "market", "remark": "an index is not tradable; costed as given"})
    rows += [{"what": "bars", "remark": note} for note in results["notes"]]
    return rows or [{"what": "data", "remark": "nothing to remark"}]


def metric_rows(comparison: dict[str, Any], rows: str = "all_rows") -> list[Row]:
    """The seven metrics side by side; on acted-on rows only those that judge rows."""
    part, held = comparison[rows], comparison["buy_and_hold"]
    titles = TITLES if rows == "all_rows" else {name: TITLES[name] for name in ROW_METRICS}
    return [
        {
            "metric": title,
            "candidate": shown(name, part["candidate"][name]),
            "baseline": shown(name, part["baseline"][name]),
            "difference": _signed(name, part["difference"][name]),
            "buy and hold": shown(name, held.get(name)) if name in held else NOTHING,
        }
        for name, title in titles.items()
    ]


def _signed(name: str, value: float | None) -> str:
    if value is None:
        return NOTHING
    return f"{100 * value:+.1f} pp" if name in _PERCENT else f"{value:+.2f}"


def symbol_rows(results: dict[str, Any], accuracy: dict[str, Any]) -> list[Row]:
    """One line a symbol: sessions, calls, hit ratio and P&L of candidate and baseline."""
    rows = []
    for symbol, about in results["symbols"].items():
        ours, theirs = accuracy["candidate"]["by_symbol"][symbol], accuracy["baseline"]["by_symbol"][symbol]
        rows.append(
            {
                "symbol": symbol,
                "sessions": about["sessions"],
                "calls": ours["counts"]["calls_long"] + ours["counts"]["calls_short"],
                "hit ratio": shown("hit_ratio", ours["hit_ratio"]),
                "baseline hit ratio": shown("hit_ratio", theirs["hit_ratio"]),
                "trades": about["candidate"]["closed_trades"],
                "net P&L": f"{about['candidate']['net_pnl']:,.0f}",
                "baseline P&L": f"{about['baseline']['net_pnl']:,.0f}",
                "buy and hold": f"{about['buy_and_hold']['net_pnl']:,.0f}",
            }
        )
    return rows


def criteria_rows(checklist: dict[str, Any]) -> list[Row]:
    """The three thresholds: reached, asked, passed; with as many decimals as tell the two apart."""
    criteria = criteria_of(checklist["evidence"]["deltas"], Policy.from_dict(checklist["policy"]))
    passed = checklist["validation_results"]
    rows = []
    for criterion, key in zip(criteria, ("precision_pass", "hit_ratio_pass", "sharpe_pass"), strict=True):
        known = criterion.threshold if criterion.reached is None else criterion.reached
        sides = compare(known, criterion.threshold, absolute=criterion.absolute).split(" ")
        rows.append(
            {
                "criterion": criterion.title + (" (absolute)" if criterion.absolute else ""),
                "reached": NOTHING if criterion.reached is None else sides[0],
                "asked": sides[2],
                "": "✅ PASS" if passed[key] else "❌ FAIL",
            }
        )
    return rows


def adequacy_rows(checklist: dict[str, Any]) -> list[Row]:
    """How much data there is and how much the policy asks for."""
    counts, policy = checklist["evidence"].get("adequacy"), checklist["policy"]
    if counts is None:
        return [{"count": "no predictions: adequacy is waived", "found": NOTHING, "asked": NOTHING}]
    asked = {
        "session_days": policy["min_days"],
        "day_clusters": policy["min_day_clusters"],
        "candidate_calls": policy["min_calls"],
        "baseline_calls": policy["min_calls"],
    }
    return [
        {
            "count": name.replace("_", " "),
            "found": counts[name],
            "asked": limit,
            "": "✅" if counts[name] >= limit else "❌",
        }
        for name, limit in asked.items()
    ]


def integrity_rows(checklist: dict[str, Any]) -> list[Row]:
    """Every integrity item that was checked."""
    return [
        {
            "item": item["name"],
            "status": item["status"],
            "kind": "blocking" if item["blocking"] else "advisory",
            "note": item["note"],
        }
        for item in checklist["integrity"]
    ]


def reason_rows(accuracy: dict[str, Any]) -> list[Row]:
    """How often the student spoke and why it did not, as shares of all bars of the window."""
    counts = accuracy["reasons"]
    total = sum(counts.values())
    return [
        {"reason": name, "bars": count, "share": f"{count / total:.1%}"}
        for name, count in sorted(counts.items(), key=lambda pair: -pair[1])
    ]


def scored(analyzer: AccuracyAnalyzer, role: str) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and outcomes of the judged rows of a model, for the calibration figure."""
    rows = analyzer.pooled(role)
    return rows["probability_up"], rows["outcomes"]


def calls_and_outcomes(analyzer: AccuracyAnalyzer, role: str) -> tuple[np.ndarray, np.ndarray]:
    """Calls and outcomes of the judged rows, for the confusion matrix."""
    rows = analyzer.pooled(role)
    return rows["calls"], rows["outcomes"]


def equity(results: dict[str, Any]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Session dates and daily net returns of the three runs, for the equity figure."""
    series = results["daily_returns"]
    dates = np.array(sorted(series["candidate"]), dtype="datetime64[D]")
    names = {"candidate": "candidate", "baseline": "baseline", "buy and hold": "buy_and_hold"}
    return dates, {
        title: np.array([series[name][str(date)] for date in dates], dtype=float)
        for title, name in names.items()
    }


def confidences(analyzer: AccuracyAnalyzer) -> np.ndarray:
    """Confidence of every judged row the candidate scored."""
    probability = analyzer.pooled("candidate")["probability_up"]
    probability = probability[np.isfinite(probability)]
    confidence: np.ndarray = np.maximum(probability, 1.0 - probability)
    return confidence


def evidence_line(checklist: dict[str, Any]) -> str:
    """The plain line of the evidence, and which grade the policy asks for."""
    evidence, asked = checklist["evidence"], checklist["policy"]["min_evidence"]
    return f"{evidence.get('summary', '')}. The policy asks for at least **{asked}**."


def record_rows(checklist: dict[str, Any], kind: str) -> list[Row]:
    """Records of the evidence that a verdict may rest on (``blocking``), or that are ``advisory``."""
    return [evidence_row(record) for record in checklist["evidence"]["records"] if record["kind"] == kind]


def uplift_thresholds(checklist: dict[str, Any]) -> dict[str, float]:
    """The policy's thresholds by the record they belong to, for the figure."""
    policy = checklist["policy"]
    return {
        PRECISION_ALL_ROWS: policy["min_precision_uplift"],
        HIT_RATIO_ALL_ROWS: policy["min_hit_ratio_uplift"],
    }


def symbol_evidence_rows(evidence: dict[str, Any]) -> list[Row]:
    """One line a symbol: hit ratios, uplift, and the p-value for worse after the adjustment."""
    return [
        {
            "symbol": row["symbol"],
            "calls": row["calls_student"],
            "hit ratio": shown("hit_ratio", row["hit_ratio_student"]),
            "baseline": shown("hit_ratio", row["hit_ratio_baseline"]),
            "uplift": _signed("hit_ratio", row["hit_ratio_uplift"]),
            "p for worse (Holm)": p_text(_smallest(row)) or NOTHING,
            "verdict": row["verdict"],
            "note": row["note"],
        }
        for row in evidence["symbols"]
    ]


def _smallest(row: dict[str, Any]) -> float | None:
    known = [row[name] for name in ("hit_ratio_p_worse_holm", "brier_p_worse_holm") if row[name] is not None]
    return min(known) if known else None


def cost_rows(evidence: dict[str, Any]) -> list[Row]:
    """Sharpe ratio and total return of both sides at one, two and three times the costs."""
    record = next(record for record in evidence["records"] if record["name"] == "stability.costs")
    return [
        {
            "costs": f"x{row['multiple']:g}",
            "Sharpe": shown("sharpe_ratio", row["sharpe_student"]),
            "baseline Sharpe": shown("sharpe_ratio", row["sharpe_baseline"]),
            "difference": _signed("sharpe_ratio", row["sharpe_difference"]),
            "return": shown("total_return", row["total_return_student"]),
            "baseline return": shown("total_return", row["total_return_baseline"]),
        }
        for row in record["params"]["at"]
    ]


def trials_line(checklist: dict[str, Any]) -> str:
    """How often the window was looked at, and what that does to the record."""
    records = {record["name"]: record for record in checklist["evidence"]["records"]}
    deflated, trials = records["dsr"]["estimate"], checklist["evidence"]["trials"]
    models, looks = trials["n_trials"], trials["looks"]
    times = "once, by this model" if looks == 1 else f"{looks} times, by {models} different models"
    said = "undefined" if deflated is None else f"{deflated:.2f}"
    return (
        f"The window was looked at {times}. Confidence that the Sharpe ratio is above what the best of so many "
        f"worthless trials would show (deflated Sharpe ratio): {said}."
    )


def digest_rows(checklist: dict[str, Any]) -> list[Row]:
    """SHA-256 of model, baseline, incumbent, data and predictions."""
    return [{"of": name, "SHA-256": digest or NOTHING} for name, digest in checklist["digests"].items()]
