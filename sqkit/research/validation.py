"""A validation that was planned is run here: backtests, prediction files, every artifact but the checklist.

`run_validation` is what notebook 03 calls; it writes into a folder that the runner publishes
only when the notebooks are whole. `sqkit.research.decision` judges what it wrote.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from sqkit.files import make_folder, sha256_json, write_json
from sqkit.metrics import METRIC_KEYS, seven_metrics
from sqkit.records import iso_date
from sqkit.research.accuracy import RESULTS_FILE, RULE, TELEMETRY_FOLDER, AccuracyAnalyzer
from sqkit.research.backtest import (
    PortfolioRun,
    ValidationBacktest,
    run_validation_backtest,
)
from sqkit.research.telemetry import RecordFile, write_predictions, write_trades
from sqkit.research.validation_plan import ValidationPlan
from sqkit.sessions import MARKETS

ACCURACY_FILE: Final = "validation_accuracy.json"
COMPARISON_FILE: Final = "comparison_baseline.json"
PARITY_FILE: Final = "parity.json"
VALIDATION_ARTIFACTS: Final = (RESULTS_FILE, ACCURACY_FILE, COMPARISON_FILE, PARITY_FILE, TELEMETRY_FOLDER)


def run_validation(plan: ValidationPlan, output_dir: Path) -> ValidationBacktest:
    """Run the backtests and write results, predictions, accuracy, comparison and parity."""
    run = run_validation_backtest(
        plan.model, plan.bars, plan.window, plan.rules, baseline_model=plan.baseline_model
    )
    telemetry = make_folder(output_dir / TELEMETRY_FOLDER)
    files = [
        entry
        for role, portfolio, version in (
            ("candidate", run.candidate, plan.model.version),
            ("baseline", run.baseline, plan.baseline_model.version if plan.baseline_model else RULE),
        )
        for symbol, one in portfolio.symbols.items()
        for entry in (
            write_predictions(telemetry, RecordFile(symbol, role, version, one.predictions)),
            write_trades(telemetry, RecordFile(symbol, role, version, one.fills.trades)),
        )
    ]
    write_json(output_dir / RESULTS_FILE, _results(plan, run, files))
    analyzer = AccuracyAnalyzer(output_dir)
    accuracy = analyzer.analyze()
    write_json(output_dir / ACCURACY_FILE, accuracy)
    write_json(output_dir / COMPARISON_FILE, compare_with_baseline(run, accuracy))
    write_json(
        output_dir / PARITY_FILE,
        {
            "status": "not_run",
            "note": "the live engine that replays the validation is not part of this version",
        },
    )
    return run


def _results(plan: ValidationPlan, run: ValidationBacktest, files: list[dict[str, Any]]) -> dict[str, Any]:
    settings_digest = sha256_json(plan.rules.describe())
    predictions = {f"{entry['role']}/{entry['file']}": entry["digest"] for entry in files}
    return {
        "baseline_model": plan.baseline_path,
        "candidate_model": plan.model_path,
        "daily_returns": {
            name: dict(
                zip((iso_date(day) for day in part.session_days), part.daily_returns.tolist(), strict=True)
            )
            for name, part in _runs(run).items()
        },
        "digests": {
            "baseline": plan.baseline_model.digest if plan.baseline_model else None,
            "data": sha256_json({symbol: bars.digest() for symbol, bars in plan.bars.items()}),
            "incumbent": plan.incumbent["digest"] if plan.incumbent else None,
            "model": plan.model.digest,
            "model_behaviour": plan.model.behaviour_digest(plan.rules.threshold),
            "predictions": sha256_json(predictions),
            "runtime": settings_digest,
        },
        "files": files,
        "incumbent_model": plan.incumbent["model"] if plan.incumbent else None,
        "metrics": {name: part.metrics for name, part in _runs(run).items()},
        "model_version": plan.model.version,
        "baseline_training_window": plan.baseline_model.metadata["training_window"]
        if plan.baseline_model
        else None,
        "notes": plan.notes,
        "runtime": plan.rules.describe(),
        "short_history": run.short_history,
        "symbols": {symbol: _symbol_summary(run, symbol) for symbol in plan.bars},
        "tradable": MARKETS[plan.rules.market].tradable,
        "training_window": plan.model.metadata["training_window"],
        "untrained_symbols": plan.untrained,
        "validation_period": {**plan.window.describe(), "symbols": list(plan.bars)},
    }


def _runs(run: ValidationBacktest) -> dict[str, PortfolioRun]:
    return {"baseline": run.baseline, "buy_and_hold": run.buy_and_hold, "candidate": run.candidate}


def _symbol_summary(run: ValidationBacktest, symbol: str) -> dict[str, Any]:
    summary: dict[str, Any] = {
        "bars": len(run.candidate.symbols[symbol].predictions["bar_time"]),
        "sessions": len(run.candidate.symbols[symbol].fills.session_days),
    }
    for name, part in _runs(run).items():
        fills = part.symbols[symbol].fills
        summary[name] = {
            "closed_trades": int(np.sum(fills.trades["exit_time"] != 0)),
            "fees": float(np.sum(fills.trades["fees"])),
            "net_pnl": float(np.sum(fills.net_pnl)),
        }
    return summary


def compare_with_baseline(run: ValidationBacktest, accuracy: dict[str, Any]) -> dict[str, Any]:
    """Candidate, baseline and the plain differences, on all rows and on acted-on rows."""
    comparison: dict[str, Any] = {"buy_and_hold": run.buy_and_hold.metrics}
    for rows in ("all_rows", "acted_on_rows"):
        candidate = seven_metrics(accuracy["candidate"][rows], run.candidate.metrics)
        baseline = seven_metrics(accuracy["baseline"][rows], run.baseline.metrics)
        comparison[rows] = {
            "baseline": baseline,
            "candidate": candidate,
            "difference": {key: _difference(candidate[key], baseline[key]) for key in METRIC_KEYS},
        }
    return comparison


def _difference(candidate: float | None, baseline: float | None) -> float | None:
    return None if candidate is None or baseline is None else candidate - baseline
