"""A validation that was planned is run here: backtests, prediction files, every artifact but the checklist.

`run_validation` is what notebook 03 calls; it writes into a folder that the runner publishes
only when the notebooks are whole. `sqkit.research.decision` judges what it wrote.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sqkit.artifacts import ACCURACY_FILE, COMPARISON_FILE, PARITY_FILE, RESULTS_FILE, TELEMETRY_FOLDER
from sqkit.files import make_folder, sha256_json, write_json
from sqkit.metrics import METRIC_KEYS, seven_metrics
from sqkit.records import iso_date
from sqkit.research.accuracy import RULE, AccuracyAnalyzer
from sqkit.research.backtest import (
    PortfolioRun,
    ValidationBacktest,
    run_validation_backtest,
)
from sqkit.research.holdout import record_opening
from sqkit.research.integrity import model_facts, prefix_invariance
from sqkit.research.ledger_check import candidate_predictions_digest
from sqkit.research.parity import NOT_RUN, Asked, Replay, replay_validation
from sqkit.research.telemetry import RecordFile, write_predictions, write_trades
from sqkit.research.trials import TrialCount
from sqkit.research.validation_plan import ValidationPlan
from sqkit.sessions import MARKETS
from sqkit.versions import decision_time


def run_validation(
    plan: ValidationPlan, output_dir: Path, *, replay: Replay | None = None, full: bool = False
) -> ValidationBacktest:
    """Count the look, run the backtests, write results, predictions, accuracy, comparison and parity.

    The look is counted before anything is known of its result: a validation that breaks off was a
    look as well.

    Parameters
    ----------
    replay
        Gives what the live engine does, `sqkit.production.replay.replay_model`. Without it ``parity.json``
        says ``not_run``, which no promotion passes.
    full
        Whether every bar is replayed, instead of a share chosen by seed.
    """
    look = plan.look
    record_opening(
        plan.ledger,
        look.strategy,
        look.first_day,
        look.last_day,
        reason=f"validation of {plan.model.version}",
        what="sqkit validate",
        at=decision_time(),
    )
    plan.ledger.record_look(look)
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
    days = [iso_date(day) for day in run.candidate.session_days]
    plan.ledger.record_returns(
        look,
        days,
        run.candidate.daily_returns.tolist(),
        predictions=candidate_predictions_digest(files),
    )
    trials = plan.ledger.trials(look.first_day, look.last_day, look.symbols)
    write_json(output_dir / RESULTS_FILE, _results(plan, run, files, trials))
    analyzer = AccuracyAnalyzer(output_dir)
    accuracy = analyzer.analyze()
    write_json(output_dir / ACCURACY_FILE, accuracy)
    write_json(output_dir / COMPARISON_FILE, compare_with_baseline(_metrics(run), accuracy))
    asked = Asked(plan.model, plan.bars, plan.window, plan.settings, full)
    parity = replay_validation(asked, run.candidate.symbols, replay) if replay else NOT_RUN
    write_json(output_dir / PARITY_FILE, parity)
    return run


def _results(
    plan: ValidationPlan, run: ValidationBacktest, files: list[dict[str, Any]], trials: TrialCount
) -> dict[str, Any]:
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
        "interval": plan.model.metadata["interval"],
        "metrics": _metrics(run),
        "model_version": plan.model.version,
        "models": {
            "baseline": model_facts(plan.baseline_model, plan.rules.threshold)
            if plan.baseline_model
            else None,
            "candidate": model_facts(plan.model, plan.rules.threshold),
        },
        "notes": plan.notes,
        "prefix_invariance": prefix_invariance(
            plan.model, plan.bars, plan.window, plan.rules, seed=plan.model.metadata["seed"]
        ),
        "runtime": plan.rules.describe(),
        "short_history": run.short_history,
        "symbols": {symbol: _symbol_summary(run, symbol) for symbol in plan.bars},
        "teacher_disagrees": plan.teacher_disagrees,
        "tradable": MARKETS[plan.rules.market].tradable,
        "training_window": plan.model.metadata["training_window"],
        "trials": trials.describe() | {"returns": _other_trials(plan, trials)},
        "untrained_symbols": plan.untrained,
        "validation_period": {**plan.window.describe(), "symbols": list(plan.bars)},
    }


def _other_trials(plan: ValidationPlan, trials: TrialCount) -> dict[str, dict[str, Any]]:
    """Daily returns of the other trials of this window, as far as the ledger has them."""
    own = plan.model.behaviour_digest(plan.rules.threshold)
    return {
        behaviour: {"days": list(days), "returns": list(returns)}
        for behaviour, (days, returns) in trials.returns.items()
        if behaviour != own
    }


def _runs(run: ValidationBacktest) -> dict[str, PortfolioRun]:
    return {"baseline": run.baseline, "buy_and_hold": run.buy_and_hold, "candidate": run.candidate}


def _metrics(run: ValidationBacktest) -> dict[str, dict[str, float | None]]:
    return {name: part.metrics for name, part in _runs(run).items()}


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


def compare_with_baseline(financial: dict[str, Any], accuracy: dict[str, Any]) -> dict[str, Any]:
    """Candidate, baseline and the plain differences, on all rows and on acted-on rows.

    Parameters
    ----------
    financial
        `sqkit.metrics.financial_metrics` of ``candidate``, ``baseline`` and ``buy_and_hold``.
    accuracy
        As ``validation_accuracy.json`` holds it.
    """
    comparison: dict[str, Any] = {"buy_and_hold": financial["buy_and_hold"]}
    for rows in ("all_rows", "acted_on_rows"):
        candidate = seven_metrics(accuracy["candidate"][rows], financial["candidate"])
        baseline = seven_metrics(accuracy["baseline"][rows], financial["baseline"])
        comparison[rows] = {
            "baseline": baseline,
            "candidate": candidate,
            "difference": {key: _difference(candidate[key], baseline[key]) for key in METRIC_KEYS},
        }
    return comparison


def _difference(candidate: float | None, baseline: float | None) -> float | None:
    return None if candidate is None or baseline is None else candidate - baseline
