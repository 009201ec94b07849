"""Commands that train: ``sqkit train-teacher`` and ``sqkit train-student``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from sqkit.cli.words import (
    AS_SET,
    SEALED,
    HoldoutFlags,
    Interval,
    Json,
    Market,
    ModelType,
    Strategy,
    Switch,
    ThresholdFlags,
    Words,
    app,
    report_verdict,
    show,
)
from sqkit.errors import UsageError


@app.command(name="train-teacher")
def train_teacher(
    *,
    output_dir: str = "",
    strategy: Strategy = "swing",
    market: Market | None = None,
    interval: Interval | None = None,
    symbols: Words = None,
    start: str = "",
    end: str = "",
    bars: str = "",
    version_tag: str = "",
    seed: int = 0,
    horizon_bars: int | None = None,
    teacher_type: Literal["hist_gradient_boosting", "lightgbm"] = "hist_gradient_boosting",
    holdout: HoldoutFlags = SEALED,
    json: Json = False,
) -> int:
    """Train a teacher and its out-of-fold soft labels.

    Parameters
    ----------
    output_dir
        Where the teacher goes; by default data/models/<version>/teacher.
    strategy
        intraday or swing.
    market
        Calendar, zone, currency and costs: nse, us, nse_index, us_index; by default SENSEQUANT_MARKET.
    interval
        Bar length; by default 1d for swing and 1m for intraday.
    symbols
        Symbols to train on, separated by spaces; by default all that are stored.
    start
        First session date of the training window; by default the first bar's.
    end
        Last session date of the training window, included; by default the last bar's.
    bars
        Folder or URL of the bars; by default data/bars/<interval>.
    version_tag
        YYYYMMDD_HHMMSS; by default the parent folder's name, SOURCE_DATE_EPOCH, or now (UTC).
    seed
        Seed of everything random.
    horizon_bars
        Bars a label looks ahead; by default 5 for swing and 15 for intraday.
    teacher_type
        hist_gradient_boosting or lightgbm.
    json
        Print the summary as JSON.
    """
    from sqkit.research.training_jobs import train_teacher_job

    summary = train_teacher_job(
        output_dir=output_dir,
        strategy=strategy,
        market=market,
        interval=interval,
        symbols=symbols,
        start=start,
        end=end,
        bars=bars,
        version_tag=version_tag,
        seed=seed,
        horizon_bars=horizon_bars,
        kind=teacher_type,
        open_holdout=holdout.open_holdout,
        reason=holdout.reason,
    )
    show(summary, json, [f"teacher {summary['version']}: {summary['output_dir']}"])
    return 0


@app.command(name="train-student")
def train_student(
    *,
    teacher_dir: str,
    output_dir: str = "",
    model_type: ModelType = "gradient_boosting",
    bars: str = "",
    version_tag: str = "",
    seed: int | None = None,
    strategy: Strategy | None = None,
    validate: Switch = False,
    validation_symbols: Words = None,
    validation_start: str = "",
    validation_end: str = "",
    baseline_model: str = "",
    full: Switch = False,
    generate_checklist: Switch = False,
    thresholds: ThresholdFlags = AS_SET,
    holdout: HoldoutFlags = SEALED,
    json: Json = False,
) -> int:
    """Distil a student from a teacher; with --validate also judge it out of sample.

    Bars, symbols and windows of training come from the teacher.

    Parameters
    ----------
    teacher_dir
        Folder of the teacher.
    output_dir
        Where the student goes; by default the folder student beside the teacher.
    model_type
        logistic, mlp, gradient_boosting or random_forest.
    bars
        Folder or URL of the bars; by default where the teacher found them.
    version_tag
        YYYYMMDD_HHMMSS; by default the version folder's name.
    seed
        Seed; by default the teacher's.
    strategy
        Checked against the teacher's.
    validate
        Validate and write every artifact and report.
    validation_symbols
        Symbols to validate on; by default those of training.
    validation_start
        First session date; by default the day after the training window.
    validation_end
        Last session date, included; by default the last bar's.
    baseline_model
        Student to compare with, or rule; by default the production model, else the baseline rule.
    full
        Replay every validated bar through the live engine; by default at most 50,000, of symbols chosen by seed.
    generate_checklist
        Alone: rebuild the checklist from the stored artifacts, without training.
    json
        Print the outcome as JSON.
    """
    from sqkit.research.requests import ValidationRequest
    from sqkit.research.training_jobs import train_student_job
    from sqkit.research.validation_jobs import is_validated, rebuild_checklist_job

    student_dir = output_dir or str(Path(teacher_dir).parent / "student")
    if generate_checklist and not validate and is_validated(student_dir):
        return report_verdict(rebuild_checklist_job(student_dir, thresholds.given()), json)
    if generate_checklist and not validate:
        raise UsageError(
            f"{student_dir}: there is no validation to make a checklist of; add --validate",
            folder=student_dir,
        )
    trained = train_student_job(
        teacher_dir=teacher_dir,
        output_dir=student_dir,
        model_type=model_type,
        bars=bars,
        version_tag=version_tag,
        seed=seed,
        strategy=strategy,
        validation=ValidationRequest(
            model="",
            bars=bars,
            symbols=validation_symbols,
            start=validation_start,
            end=validation_end,
            baseline_model=baseline_model,
            thresholds=thresholds.given(),
            full=full,
        )
        if validate
        else None,
        open_holdout=holdout.open_holdout,
        reason=holdout.reason,
    )
    if trained.verdict is not None:
        return report_verdict(trained.verdict, json)
    show(
        trained.summary(), json, [f"student {trained.version}: {trained.model}", f"report: {trained.report}"]
    )
    return 0
