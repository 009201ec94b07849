"""The validation jobs behind commands and make targets: judge by notebooks 03 and 04, decide again, list.

A job refuses what must not run before a kernel starts, lets the notebooks do the work in a
staging folder, and publishes artifacts and reports by rename only when they are whole.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqkit.artifacts import (
    APPROVALS_FILE,
    CHECKLIST_FILE,
    CHECKLIST_PAGE,
    DECISION_ARTIFACTS,
    EARLIER_FOLDER,
    RESULTS_FILE,
    VALIDATION_ARTIFACTS,
    VERIFICATION_FILE,
)
from sqkit.checklist import exit_code, generate_promotion_checklist, parse_metrics, render_markdown
from sqkit.errors import ArtifactChanged, ConflictError, UsageError
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
from sqkit.model_file import STUDENT_FILE
from sqkit.report_manifest import MANIFEST, run_folder, run_of_artifacts
from sqkit.research.accuracy import read_results
from sqkit.research.ledger_check import ledger_contradictions
from sqkit.research.promotion_state import release_of_checklist
from sqkit.research.report_index import build_index
from sqkit.research.reporting import REQUIRED_RECORDS, ReportRun, StagedReport
from sqkit.research.requests import Decision, Thresholds, ValidationRequest
from sqkit.research.sources import (
    as_typed,
    parse_day,
)
from sqkit.research.trials import open_ledger
from sqkit.research.validation_plan import plan_validation
from sqkit.settings import Settings
from sqkit.student import StudentModel
from sqkit.versions import decision_time


def validate_job(request: ValidationRequest) -> Decision:
    """Validate a student by notebooks 03 and 04 and publish artifacts and report together."""
    settings = Settings()
    request = replace(
        request,
        model=as_typed(request.model),
        bars=as_typed(request.bars),
        baseline_model=as_typed(request.baseline_model),
    )
    if not request.model:
        raise UsageError("--model is empty; name a student's ONNX file")
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
        pages.carry_over("train", model_digest=plan.model.digest)
        pages.run_notebook("validate", request.parameters(), workspace=staging, bars=request.bars)
        pages.run_notebook("checklist", decision, workspace=staging)
        checklist = read_json(staging / CHECKLIST_FILE)
        for name in ("candidate_metrics", "baseline_metrics"):
            pages.require_same("validate", name, checklist[name])
        _finish(pages, checklist, staging, student_dir)
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
    model, results = StudentModel.load(folder / STUDENT_FILE), read_results(folder)
    if results["digests"]["model"] != model.digest:
        raise ArtifactChanged(
            f"{folder / STUDENT_FILE}: is not the model that was validated here; validate it with sqkit validate",
            path=str(folder / STUDENT_FILE),
        )
    _refuse_other_artifacts(folder, results, settings)
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
        pages.carry_over("train", model_digest=model.digest)
        pages.carry_over(
            "validate",
            candidate_model=results["candidate_model"],
            predictions_digest=results["digests"]["predictions"],
        )
        for name in VALIDATION_ARTIFACTS:
            _copy(folder / name, staging / name)
        pages.run_notebook("checklist", parameters, workspace=staging)
        checklist = read_json(staging / CHECKLIST_FILE)
        _finish(pages, checklist, staging, folder)
    return _decision(checklist, folder, str(run.folder / "checklist.html"))


def _refuse_other_artifacts(folder: Path, results: dict[str, Any], settings: Settings) -> None:
    """A decision is repeated only on what was validated: the report's manifest and the ledger say so."""
    found = ledger_contradictions(open_ledger(settings.data_dir, settings.reports_dir), results)
    reports, version = Path(settings.reports_dir), results["model_version"]
    number = run_of_artifacts(reports, version, folder.as_posix(), folder / CHECKLIST_FILE)
    if number is not None:
        named = read_json(run_folder(reports, version, number) / MANIFEST)["artifacts"]["files"]
        found += [
            f"{name} is not the file that report v{number} names"
            for name, digest in sorted(named.items())
            if name.split("/")[0] in VALIDATION_ARTIFACTS
            and not ((folder / name).is_file() and sha256_file(folder / name) == digest)
        ]
    if found:
        raise ArtifactChanged(
            f"{folder}: its artifacts were changed since it was validated ({'; '.join(found[:3])}); validate again "
            "with sqkit validate",
            folder=str(folder),
        )


def _finish(pages: StagedReport, checklist: dict[str, Any], staging: Path, student_dir: Path) -> None:
    """Hold the decision page against the checklist file, draw the pages, seal the run, publish everything."""
    evidence = checklist["evidence"]
    stored = checklist | {
        "evidence_grade": evidence["grade"],
        "evidence_summary": evidence["summary"],
        "trials": evidence["trials"],
    }
    for name in REQUIRED_RECORDS["checklist"]:
        pages.require_same("checklist", name, stored[name])
    pages.render(checklist=checklist)
    files = [path.relative_to(staging).as_posix() for path in sorted(staging.rglob("*")) if path.is_file()]
    pages.seal(
        checklist=checklist, artifacts_folder=staging, artifacts_name=student_dir.as_posix(), artifacts=files
    )
    _keep_earlier(student_dir, pages.run)
    for name in (*VALIDATION_ARTIFACTS, *DECISION_ARTIFACTS):
        publish(staging / name, student_dir / name)
    pages.publish()


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
    judged = thresholds.judged_by()
    empty = [name for name in (candidate_model, baseline_model, *(symbols or ())) if name == ""]
    if empty:
        raise UsageError("a model's or symbol's name is empty; leave the flag out to say nothing")
    days = [parse_day(text, name) for name, text in (("start", start), ("end", end)) if text is not None]
    if days != sorted(days):
        raise UsageError(f"the window starts {start} and ends {end}: start must not be after end")
    refuse_decided(output_dir)
    if is_validated(str(output_dir)):
        raise ConflictError(
            f"{output_dir}: holds the validation of a student, its checklist is not replaced by metrics from "
            "elsewhere; choose another --output-dir",
            folder=str(output_dir),
        )
    checklist = generate_promotion_checklist(
        timestamp=decision_time(),
        candidate_model=candidate_model,
        baseline_model=baseline_model,
        start=start,
        end=end,
        symbols=symbols,
        candidate_metrics=_metrics_of(candidate_metrics),
        baseline_metrics=_metrics_of(baseline_metrics),
        policy=judged.policy,
        adequacy=None,
        evidence={"policy_in_force": judged.in_force},
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
    """A checklist that people have signed, or that belongs to a release, is never overwritten.

    Raises
    ------
    ConflictError
        It is one.
    AuditBroken
        The audit log does not hold: whether it is one is not known.
    """
    release = release_of_checklist(student_dir / CHECKLIST_FILE)
    if release or (student_dir / APPROVALS_FILE).is_file():
        what = f"belongs to release {release}" if release else "carries approvals"
        raise ConflictError(
            f"{student_dir}: its checklist {what} and is never overwritten; "
            "train a new student, or validate a copy of the model in another folder",
            folder=str(student_dir),
        )


def _keep_earlier(student_dir: Path, run: ReportRun) -> None:
    """Move the artifacts of an earlier run to ``validations/v<its number>`` before new ones take their names."""
    ours = (*VALIDATION_ARTIFACTS, *DECISION_ARTIFACTS, VERIFICATION_FILE)
    present = [name for name in ours if (student_dir / name).exists()]
    if not present:
        return
    number = run_of_artifacts(
        run.reports_dir, run.version, student_dir.as_posix(), student_dir / CHECKLIST_FILE
    )
    kept = student_dir / EARLIER_FOLDER / (f"v{number}" if number else f"before-{run.folder.name}")
    with staging_folder(kept) as staging:
        for name in present:
            publish(student_dir / name, staging / name)
        publish(staging, kept)


def _decision(checklist: dict[str, Any], folder: Path, report: str | None) -> Decision:
    return Decision(
        checklist["recommendation"],
        checklist["reason"],
        exit_code(checklist),
        str(folder / CHECKLIST_FILE),
        report,
    )
