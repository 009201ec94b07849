"""The training jobs behind commands and make targets: a teacher, and a student by notebook 02.

A job refuses what must not run before a kernel starts, lets the notebook do the work in a
staging folder, and publishes model and report by rename only when they are whole.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from sqkit.errors import BarsNotFound, ConflictError, UsageError
from sqkit.features import student_set
from sqkit.files import (
    exclusive,
    publish,
    sha256_file,
    staging_folder,
)
from sqkit.model_file import STUDENT_FILE
from sqkit.people import account_name
from sqkit.records import iso_date
from sqkit.report_manifest import run_folder
from sqkit.research.accuracy import RULE
from sqkit.research.backtest import Window, require_bars
from sqkit.research.holdout import refuse_sealed
from sqkit.research.ledger_check import refuse_other_ledger
from sqkit.research.manifest import page_records
from sqkit.research.marketdata import available_symbols
from sqkit.research.planning import lines_before_training
from sqkit.research.progress import say
from sqkit.research.reporting import ReportRun
from sqkit.research.requests import Trained, ValidationRequest
from sqkit.research.sources import (
    HORIZON_BARS,
    INTERVALS,
    as_typed,
    default_bars,
    load_bars,
    open_teacher,
    parse_day,
    version_of,
)
from sqkit.research.teacher import train_teacher
from sqkit.research.trials import open_ledger
from sqkit.research.validation_jobs import refuse_decided, validate_job
from sqkit.research.validation_plan import distinct, load_baseline, load_window
from sqkit.settings import Settings
from sqkit.student import StudentModel
from sqkit.trading_rules import TradingRules
from sqkit.versions import decision_time


def train_teacher_job(
    *,
    output_dir: str = "",
    strategy: str,
    market: str | None = None,
    interval: str | None = None,
    symbols: list[str] | None = None,
    start: str = "",
    end: str = "",
    bars: str = "",
    version_tag: str = "",
    seed: int = 0,
    horizon_bars: int | None = None,
    kind: str = "hist_gradient_boosting",
    open_holdout: bool = False,
    reason: str = "",
) -> dict[str, Any]:
    """Train a teacher into ``<output_dir>``, by default ``data/models/<version>/teacher``.

    Sealed days are refused before anything is trained, unless they are opened with a reason.
    """
    settings = Settings()
    version = version_of(version_tag, output_dir)
    folder = as_typed(output_dir or f"{settings.data_dir}/models/{version}/teacher")
    _require_seed(seed)
    market, interval = market or settings.market, interval or INTERVALS[strategy]
    location = as_typed(bars or default_bars(settings, interval))
    names = distinct(symbols or available_symbols(location))
    if not names:
        raise BarsNotFound(
            f"{location}: holds no bars; import some with sqkit data import FILE --symbol S --interval {interval}",
            location=location,
        )
    first = parse_day(start, "start") if start else None
    last = parse_day(end, "end") if end else None
    if first is not None and last is not None and first > last:
        raise UsageError(f"the training window starts {start} and ends {end}: start must not be after end")
    loaded, notes = load_bars(location, names, interval=interval, market=market)
    for note in notes:
        say(note)
    first_day = min(int(bars.session_days[0]) for bars in loaded.values()) if first is None else first
    last_day = max(int(bars.session_days[-1]) for bars in loaded.values()) if last is None else last
    _refuse_holdout(
        settings,
        strategy,
        {"start": iso_date(first_day), "end": iso_date(last_day)},
        f"training of teacher {version}",
        folder,
        open_holdout=open_holdout,
        reason=reason,
    )
    say(f"training a teacher for {strategy} on {', '.join(loaded)}")
    summary = train_teacher(
        loaded,
        strategy=strategy,
        market=market,
        interval=interval,
        first_day=first_day,
        last_day=last_day,
        horizon_bars=HORIZON_BARS[strategy] if horizon_bars is None else horizon_bars,
        seed=seed,
        output_dir=Path(folder),
        version=version,
        bars_location=location,
        created_by=account_name(),
        kind=kind,
    )
    return {**summary, "output_dir": folder, "version": version}


def train_student_job(
    *,
    teacher_dir: str,
    output_dir: str,
    model_type: str,
    bars: str = "",
    version_tag: str = "",
    seed: int | None = None,
    strategy: str | None = None,
    validation: ValidationRequest | None = None,
    open_holdout: bool = False,
    reason: str = "",
) -> Trained:
    """Distil a student by notebook 02 and, when asked, validate it by 03 and 04.

    What can be refused about the validation is refused before the student is trained.
    """
    settings = Settings()
    teacher_dir, student_dir = as_typed(teacher_dir), as_typed(output_dir)
    _require_seed(seed)
    teacher, _ = open_teacher(teacher_dir, bars=bars)
    if strategy and strategy != teacher["strategy"]:
        raise UsageError(
            f"--strategy {strategy}: the teacher in {teacher_dir} was trained for {teacher['strategy']}; "
            "leave the flag out or choose another teacher"
        )
    window = None
    if validation is not None:
        location = as_typed(validation.bars or bars or teacher["bars_location"])
        validation = replace(validation, model=f"{student_dir}/{STUDENT_FILE}", bars=location)
        window = _refuse_validation(validation, teacher, settings)
    version = version_of(version_tag, student_dir)
    _refuse_holdout(
        settings,
        teacher["strategy"],
        teacher["training_window"],
        f"training of student {version}",
        student_dir,
        open_holdout=open_holdout,
        reason=reason,
    )
    parameters = {
        "teacher_dir": teacher_dir,
        "model_type": model_type,
        "version_tag": version,
        "seed": teacher["seed"] if seed is None else seed,
    }
    model_path = f"{student_dir}/{STUDENT_FILE}"
    report = _trained_before(Path(model_path), teacher, parameters, Path(settings.reports_dir))
    if report is None:
        ReportRun.for_training(Path(settings.reports_dir), version)  # refused before the plan is worked out
    if validation is not None or report is None:
        for line in lines_before_training(validation, teacher, window, settings):
            say(line)
    if report is None:
        report = _train(Path(student_dir), version, parameters, Path(settings.reports_dir), as_typed(bars))
    trained = Trained(version, model_path, str(report))
    if validation is None:
        return trained
    verdict = validate_job(validation)
    return replace(trained, report=verdict.report or trained.report, verdict=verdict)


def _refuse_validation(validation: ValidationRequest, teacher: dict[str, Any], settings: Settings) -> Window:
    """Refuse before training what would be refused after it: thresholds, rules, baseline, bars; the window."""
    refuse_decided(Path(validation.model).parent)
    validation.thresholds.policy()
    rules = TradingRules.from_settings(
        settings,
        strategy=teacher["strategy"],
        market=teacher["market"],
        horizon_bars=teacher["horizon_bars"],
        dead_zone=teacher["dead_zone"],
    )
    if validation.baseline_model not in ("", RULE):
        load_baseline(validation.baseline_model, teacher)
    bars, _, window = load_window(
        teacher, validation.bars, validation.symbols or teacher["symbols"], validation.start, validation.end
    )
    needed = max(student_set(teacher["strategy"]).warmup_bars, rules.parameters.warmup_bars)
    for series in bars.values():
        require_bars(series, window, needed)
    return window


def _refuse_holdout(
    settings: Settings,
    strategy: str,
    window: dict[str, str],
    what: str,
    output_dir: str,
    *,
    open_holdout: bool,
    reason: str,
) -> None:
    ledger = open_ledger(settings.data_dir, settings.reports_dir)
    refuse_other_ledger(Path(output_dir), ledger)
    refuse_sealed(
        ledger,
        strategy,
        window["start"],
        window["end"],
        open_holdout=open_holdout,
        reason=reason,
        what=what,
        at=decision_time(),
    )


def _require_seed(seed: int | None) -> None:
    if seed is not None and not 0 <= seed < 2**32:
        raise UsageError(f"seed {seed}: give a whole number from 0 to {2**32 - 1}", seed=seed)


def _train(student_dir: Path, version: str, parameters: dict[str, Any], reports_dir: Path, bars: str) -> Path:
    run = ReportRun.for_training(reports_dir, version)
    with (
        exclusive(student_dir, "training"),
        staging_folder(student_dir / "training") as staging,
        run.staged() as pages,
    ):
        pages.run_notebook("train", parameters, workspace=staging, bars=bars)
        pages.require_same("train", "model_digest", sha256_file(staging / STUDENT_FILE))
        pages.refuse_other_training()
        pages.render()
        publish(staging / STUDENT_FILE, student_dir / STUDENT_FILE)
        pages.publish()
    return run.folder / "train.html"


def _trained_before(
    model_path: Path, teacher: dict[str, Any], parameters: dict[str, Any], reports_dir: Path
) -> Path | None:
    """The training report of a student that is there already and is the one asked for; None where there is none.

    Raises
    ------
    ConflictError
        Another student is in the folder: a model is never overwritten.
    """
    if not model_path.is_file():
        return None
    about = StudentModel.load(model_path).metadata
    asked = {
        "model_version": parameters["version_tag"],
        "model_type": parameters["model_type"],
        "seed": parameters["seed"],
        "teacher_digest": teacher["teacher_digest"],
    }
    different = [name for name, value in asked.items() if about[name] != value]
    if different:
        raise ConflictError(
            f"{model_path}: a student with another {' and '.join(different)} is there and is never overwritten; "
            "choose another --output-dir",
            path=str(model_path),
        )
    first = run_folder(reports_dir, about["model_version"], 1)
    if page_records(first, "train", ["model_digest"]) != {"model_digest": sha256_file(model_path)}:
        return None
    say(f"{model_path}: trained already, the same student is not trained again")
    return first / "train.html"
