"""Commands that judge a student: ``sqkit validate`` and ``sqkit checklist``."""

from __future__ import annotations

from pathlib import Path

from sqkit.cli.words import AS_SET, Json, Switch, ThresholdFlags, Words, app, report_verdict
from sqkit.errors import UsageError


@app.command
def validate(
    *,
    model: str,
    bars: str = "",
    symbols: Words = None,
    start: str = "",
    end: str = "",
    baseline_model: str = "",
    full: Switch = False,
    thresholds: ThresholdFlags = AS_SET,
    json: Json = False,
) -> int:
    """Validate a student out of sample: backtest, checklist, report.

    Parameters
    ----------
    model
        The student's ONNX file.
    bars
        Folder or URL of the bars; by default where its teacher was trained.
    symbols
        Symbols, separated by spaces; by default those of training.
    start
        First session date; by default the day after the training window.
    end
        Last session date, included; by default the last bar's.
    baseline_model
        Student to compare with, or rule; by default the production model, else the baseline rule.
    full
        Replay every bar through the live engine; by default at most 50,000, of symbols chosen by seed.
    json
        Print the outcome as JSON.
    """
    from sqkit.research.requests import ValidationRequest
    from sqkit.research.validation_jobs import validate_job

    request = ValidationRequest(model, bars, symbols, start, end, baseline_model, thresholds.given(), full)
    return report_verdict(validate_job(request), json)


@app.command
def checklist(
    *,
    model: str = "",
    candidate_metrics: str = "",
    baseline_metrics: str = "",
    output_dir: str = "",
    candidate_model: str | None = None,
    baseline_model: str | None = None,
    start: str | None = None,
    end: str | None = None,
    symbols: Words = None,
    thresholds: ThresholdFlags = AS_SET,
    json: Json = False,
) -> int:
    """Write a promotion checklist: of a validated student, or for metrics from elsewhere.

    Parameters
    ----------
    model
        A validated student's ONNX file: rebuild its checklist from the stored artifacts.
    candidate_metrics
        JSON file with the candidate's seven metrics, for numbers from elsewhere: precision_long,
        hit_ratio, accuracy, sharpe_ratio, total_return, max_drawdown, win_rate. Such a checklist
        names no model digest and can never be promoted.
    baseline_metrics
        JSON file with the baseline's seven metrics.
    output_dir
        Where promotion_checklist.json and .md go, for metrics from elsewhere.
    candidate_model
        What the checklist says of metrics from elsewhere; null when absent, as the next four.
    baseline_model
        The baseline's name or path.
    start
        First session date.
    end
        Last session date, included.
    symbols
        Symbols, separated by spaces.
    json
        Print the outcome as JSON.
    """
    said = [
        name for name in (candidate_model, baseline_model, start, end, symbols, output_dir or None) if name
    ]
    if model and said:
        raise UsageError(
            "--model rebuilds a checklist from stored artifacts; --output-dir, --start, --end, --symbols and the "
            "model names belong to metrics from elsewhere; leave them out"
        )
    if model and not (candidate_metrics or baseline_metrics):
        from sqkit.research.validation_jobs import rebuild_checklist_job

        return report_verdict(rebuild_checklist_job(str(Path(model).parent), thresholds.given()), json)
    if model or not (candidate_metrics and baseline_metrics and output_dir):
        raise UsageError(
            "give either --model, or --candidate-metrics, --baseline-metrics and --output-dir together"
        )
    from sqkit.research.validation_jobs import outside_checklist_job

    verdict = outside_checklist_job(
        candidate_metrics=Path(candidate_metrics),
        baseline_metrics=Path(baseline_metrics),
        output_dir=Path(output_dir),
        candidate_model=candidate_model,
        baseline_model=baseline_model,
        start=start,
        end=end,
        symbols=symbols,
        thresholds=thresholds.given(),
    )
    return report_verdict(verdict, json)
