"""The jobs behind the commands and make targets: train, validate, decide, report.

A job refuses what must not run before a kernel starts, lets the notebooks do the work in a
staging folder, and publishes artifacts and reports by rename only when they are whole.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from sqkit.checklist import Policy, exit_code, generate_promotion_checklist, parse_metrics, render_markdown
from sqkit.errors import BarsNotFound, ConflictError, UsageError
from sqkit.files import (
    exclusive,
    make_folder,
    output_errors,
    publish,
    read_json,
    sha256_file,
    staging_folder,
    write_json,
    write_text,
)
from sqkit.research.accuracy import RESULTS_FILE
from sqkit.research.decision import (
    CHECKLIST_FILE,
    CHECKLIST_PAGE,
    DECISION_ARTIFACTS,
    decision_time,
    policy_with,
)
from sqkit.research.distil import STUDENT_FILE
from sqkit.research.marketdata import available_symbols
from sqkit.research.progress import say
from sqkit.research.report_index import build_index
from sqkit.research.reporting import REQUIRED_RECORDS, ReportRun, StagedReport
from sqkit.research.sources import (
    HORIZON_BARS,
    INTERVALS,
    as_typed,
    author,
    default_bars,
    load_bars,
    open_teacher,
    parse_day,
    version_of,
)
from sqkit.research.teacher import train_teacher
from sqkit.research.validation import VALIDATION_ARTIFACTS, load_window, plan_validation
from sqkit.settings import Settings
from sqkit.student import StudentModel

APPROVALS_FILE: Final = "approvals.json"
EARLIER_FOLDER: Final = "validations"


@dataclass(frozen=True)
class Thresholds:
    """Promotion thresholds given as flags; None leaves the settings' value."""

    precision_uplift: float | None = None
    hit_ratio_uplift: float | None = None
    sharpe_uplift: float | None = None

    def policy(self) -> Policy:
        """The policy of the settings with these thresholds in place."""
        return policy_with(self.precision_uplift, self.hit_ratio_uplift, self.sharpe_uplift)

    def parameters(self) -> dict[str, float]:
        """As parameters of the checklist notebook."""
        given = {
            "precision_uplift_threshold": self.precision_uplift,
            "hit_ratio_uplift_threshold": self.hit_ratio_uplift,
            "sharpe_uplift_threshold": self.sharpe_uplift,
        }
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class ValidationRequest:
    """What a person asked to validate; empty means the default."""

    model: str
    bars: str = ""
    symbols: list[str] | None = None
    start: str = ""
    end: str = ""
    baseline_model: str = ""
    thresholds: Thresholds = field(default_factory=Thresholds)

    def parameters(self) -> dict[str, Any]:
        """As parameters of the validation notebook."""
        return {
            "model": self.model,
            "bars": self.bars,
            "symbols": self.symbols or [],
            "start": self.start,
            "end": self.end,
            "baseline_model": self.baseline_model,
        }


@dataclass(frozen=True)
class Decision:
    """How a validation ended and where its papers lie."""

    recommendation: str
    reason: str
    exit_code: int
    checklist: str
    report: str | None

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "checklist": self.checklist,
            "exit_code": self.exit_code,
            "reason": self.reason,
            "recommendation": self.recommendation,
            "report": self.report,
        }

    def lines(self) -> list[str]:
        """Verdict, reason and report path, the path last."""
        return [self.recommendation, self.reason, self.report or self.checklist]


@dataclass(frozen=True)
class Trained:
    """A trained student and, where it was asked for, its validation."""

    version: str
    model: str
    report: str
    verdict: Decision | None = None

    def summary(self) -> dict[str, Any]:
        """For ``--json``."""
        return {"model": self.model, "report": self.report, "version": self.version}


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
) -> dict[str, Any]:
    """Train a teacher into ``<output_dir>``, by default ``data/models/<version>/teacher``."""
    settings = Settings()
    version = version_of(version_tag, output_dir)
    folder = as_typed(output_dir or f"{settings.data_dir}/models/{version}/teacher")
    market, interval = market or settings.market, interval or INTERVALS[strategy]
    location = as_typed(bars or default_bars(settings, interval))
    names = symbols or available_symbols(location)
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
    say(f"training a {strategy} teacher on {', '.join(loaded)}")
    summary = train_teacher(
        loaded,
        strategy=strategy,
        market=market,
        interval=interval,
        first_day=min(int(bars.session_days[0]) for bars in loaded.values()) if first is None else first,
        last_day=max(int(bars.session_days[-1]) for bars in loaded.values()) if last is None else last,
        horizon_bars=HORIZON_BARS[strategy] if horizon_bars is None else horizon_bars,
        seed=seed,
        output_dir=Path(folder),
        version=version,
        bars_location=location,
        created_by=author(),
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
) -> Trained:
    """Distil a student by notebook 02 and, when asked, validate it by 03 and 04.

    What can be refused about the validation is refused before the student is trained.
    """
    settings = Settings()
    teacher_dir, student_dir = as_typed(teacher_dir), as_typed(output_dir)
    teacher, _ = open_teacher(teacher_dir, bars=bars)
    if strategy and strategy != teacher["strategy"]:
        raise UsageError(
            f"--strategy {strategy}: the teacher in {teacher_dir} was trained for {teacher['strategy']}; "
            "leave the flag out or choose another teacher"
        )
    if validation is not None:
        refuse_decided(Path(student_dir))
        load_window(
            teacher,
            validation.bars or bars or teacher["bars_location"],
            validation.symbols or teacher["symbols"],
            validation.start,
            validation.end,
        )
    version = version_of(version_tag, student_dir)
    parameters = {
        "teacher_dir": teacher_dir,
        "model_type": model_type,
        "bars": as_typed(bars),
        "version_tag": version,
        "seed": teacher["seed"] if seed is None else seed,
    }
    model_path = f"{student_dir}/{STUDENT_FILE}"
    report = _trained_before(Path(model_path), teacher, parameters, Path(settings.reports_dir))
    if report is None:
        report = _train(Path(student_dir), version, parameters, Path(settings.reports_dir))
    trained = Trained(version, model_path, str(report))
    if validation is None:
        return trained
    verdict = validate_job(replace(validation, model=model_path))
    return replace(trained, report=verdict.report or trained.report, verdict=verdict)


def _train(student_dir: Path, version: str, parameters: dict[str, Any], reports_dir: Path) -> Path:
    run = ReportRun.for_training(reports_dir, version)
    with (
        exclusive(student_dir, "training"),
        staging_folder(student_dir / "training") as staging,
        run.staged() as pages,
    ):
        pages.run_notebook("train", parameters, workspace=staging)
        pages.require_same("train", "model_digest", sha256_file(staging / STUDENT_FILE))
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
    report = reports_dir / f"{about['model_version']}-v1" / "train.html"
    if not report.is_file():
        return None
    say(f"{model_path}: trained already, the same student is not trained again")
    return report


def validate_job(request: ValidationRequest) -> Decision:
    """Validate a student by notebooks 03 and 04 and publish artifacts and report together."""
    settings = Settings()
    request = replace(
        request,
        model=as_typed(request.model),
        bars=as_typed(request.bars),
        baseline_model=as_typed(request.baseline_model),
    )
    student_dir = Path(request.model).parent
    refuse_decided(student_dir)
    request.thresholds.policy()
    plan = plan_validation(
        request.model,
        bars=request.bars,
        symbols=request.symbols,
        start=request.start,
        end=request.end,
        baseline_model=request.baseline_model,
        settings=settings,
    )
    run = ReportRun.for_validation(Path(settings.reports_dir), plan.model.version)
    decision = {"model": request.model, "timestamp": decision_time(), **request.thresholds.parameters()}
    with (
        exclusive(student_dir, "validation"),
        staging_folder(student_dir / "validation") as staging,
        run.staged() as pages,
    ):
        pages.carry_over("train")
        pages.run_notebook("validate", request.parameters(), workspace=staging)
        pages.run_notebook("checklist", decision, workspace=staging)
        checklist = read_json(staging / CHECKLIST_FILE)
        for name in ("candidate_metrics", "baseline_metrics"):
            pages.require_same("validate", name, checklist[name])
        _finish(pages, checklist, staging, student_dir)
        _keep_earlier(student_dir)
        for name in (*VALIDATION_ARTIFACTS, *DECISION_ARTIFACTS):
            publish(staging / name, student_dir / name)
        pages.publish()
    return _decision(checklist, student_dir, str(run.folder / "checklist.html"))


def rebuild_checklist_job(student_dir: str, thresholds: Thresholds) -> Decision:
    """Decide again from the stored artifacts of a validation, by notebook 04 alone.

    The training and validation pages are carried over unchanged into a run of their own: an
    earlier report never changes.
    """
    settings = Settings()
    folder = Path(as_typed(student_dir))
    if not is_validated(str(folder)):
        raise UsageError(f"{folder}: holds no validation; run sqkit validate first", folder=str(folder))
    refuse_decided(folder)
    thresholds.policy()
    model = StudentModel.load(folder / STUDENT_FILE)
    run = ReportRun.for_validation(Path(settings.reports_dir), model.version)
    parameters = {
        "model": str(folder / STUDENT_FILE),
        "timestamp": decision_time(),
        **thresholds.parameters(),
    }
    with (
        exclusive(folder, "checklist"),
        staging_folder(folder / "checklist") as staging,
        run.staged() as pages,
    ):
        pages.carry_over("train", "validate")
        for name in VALIDATION_ARTIFACTS:
            _copy(folder / name, staging / name)
        pages.run_notebook("checklist", parameters, workspace=staging)
        checklist = read_json(staging / CHECKLIST_FILE)
        _finish(pages, checklist, staging, folder)
        for name in DECISION_ARTIFACTS:
            publish(staging / name, folder / name)
        pages.publish()
    return _decision(checklist, folder, str(run.folder / "checklist.html"))


def _finish(pages: StagedReport, checklist: dict[str, Any], staging: Path, student_dir: Path) -> None:
    """Hold the decision page against the checklist file, draw the pages, seal the run."""
    for name in REQUIRED_RECORDS["checklist"]:
        pages.require_same("checklist", name, checklist[name])
    pages.render(checklist=checklist)
    files = [path.relative_to(staging).as_posix() for path in sorted(staging.rglob("*")) if path.is_file()]
    pages.seal(
        checklist=checklist, artifacts_folder=staging, artifacts_name=student_dir.as_posix(), artifacts=files
    )


def _copy(source: Path, target: Path) -> None:
    with output_errors(target):
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copyfile(source, target)


def outside_checklist_job(
    *,
    candidate_metrics: Path,
    baseline_metrics: Path,
    output_dir: Path,
    candidate_model: str | None,
    baseline_model: str | None,
    start: str | None,
    end: str | None,
    symbols: list[str] | None,
    thresholds: Thresholds,
) -> Decision:
    """A checklist for metrics from elsewhere; it names no model digest and can never be promoted."""
    policy = thresholds.policy()
    for name, text in (("start", start), ("end", end)):
        if text is not None:
            parse_day(text, name)
    checklist = generate_promotion_checklist(
        timestamp=decision_time(),
        candidate_model=candidate_model,
        baseline_model=baseline_model,
        start=start,
        end=end,
        symbols=symbols,
        candidate_metrics=_metrics_of(candidate_metrics),
        baseline_metrics=_metrics_of(baseline_metrics),
        policy=policy,
        adequacy=None,
    )
    make_folder(output_dir)
    write_json(output_dir / CHECKLIST_FILE, checklist)
    write_text(output_dir / CHECKLIST_PAGE, render_markdown(checklist))
    return _decision(checklist, output_dir, None)


def _metrics_of(path: Path) -> dict[str, float | None]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise UsageError(
            f"{path}: cannot be read ({problem}); give a JSON file with the seven metrics"
        ) from None
    return parse_metrics(text, str(path))


def report_job() -> dict[str, Any]:
    """Rebuild the index of all runs."""
    reports_dir = Path(Settings().reports_dir)
    runs = build_index(reports_dir)
    return {"index": str(reports_dir / "index.html"), "runs": runs}


def is_validated(student_dir: str) -> bool:
    """Whether a student's folder holds the results of a validation."""
    return (Path(student_dir) / RESULTS_FILE).is_file()


def refuse_decided(student_dir: Path) -> None:
    """A checklist that people have signed is never overwritten."""
    if (student_dir / APPROVALS_FILE).is_file():
        raise ConflictError(
            f"{student_dir}: its checklist carries approvals and is never overwritten; "
            "train a new student, or validate a copy of the model in another folder",
            folder=str(student_dir),
        )


def _keep_earlier(student_dir: Path) -> None:
    """Move the artifacts of an earlier validation to ``validations/v<n>`` before new ones take their names."""
    present = [name for name in (*VALIDATION_ARTIFACTS, *DECISION_ARTIFACTS) if (student_dir / name).exists()]
    if not present:
        return
    earlier = make_folder(student_dir / EARLIER_FOLDER)
    number = 1 + max(
        (int(folder.name[1:]) for folder in earlier.glob("v*") if folder.name[1:].isdigit()), default=0
    )
    with staging_folder(earlier / f"v{number}") as staging:
        for name in present:
            publish(student_dir / name, staging / name)
        publish(staging, earlier / f"v{number}")


def _decision(checklist: dict[str, Any], folder: Path, report: str | None) -> Decision:
    return Decision(
        checklist["recommendation"],
        checklist["reason"],
        exit_code(checklist),
        str(folder / CHECKLIST_FILE),
        report,
    )
