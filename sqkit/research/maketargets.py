"""What ``make demo``, ``make train``, ``make validate`` and the like run: ``python -m sqkit.research.maketargets``.

Choices come in the variables VERSION, SYMBOLS, START, END, MODEL_TYPE, REASON, SLOT and DAYS, as given to make.
Every verdict exits 0, because make turns any other code into its own; verdict, reason and
path are printed last. A pipeline that wants the codes calls `sqkit`, which alone changes production.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from sqkit.artifacts import ARCHIVE_FOLDER
from sqkit.errors import UNEXPECTED, SqkitError, UsageError, unexpected
from sqkit.files import parse_json, read_json
from sqkit.leaving import leave
from sqkit.model_file import MODEL_TYPES, STUDENT_FILE
from sqkit.research.dashboard import voila_command, write_dashboard
from sqkit.research.distil import DEFAULT_MODEL_TYPE
from sqkit.research.progress import say
from sqkit.research.requests import Thresholds, ValidationRequest
from sqkit.research.sources import (
    SAMPLE_SHORT_HISTORY,
    SAMPLE_TRAINING_END,
    SAMPLE_VALIDATION,
    TRAINING_SAMPLE,
    newest_student,
    store_sample,
    version_of,
)
from sqkit.research.training_jobs import train_student_job, train_teacher_job
from sqkit.research.validation_jobs import rebuild_checklist_job, report_job, validate_job
from sqkit.settings import Settings
from sqkit.versions import tidy_clock

_VERDICT_CODES: Final = (1, 3, 4, 5)
_SAYS: Final = "sqkit: "


def demo() -> list[str]:
    """Train on the bundled US equities up to 2010, validate on 2011 and 2012, and decide."""
    settings = Settings()
    location = store_sample(settings)
    say(f"bundled bars: {location}")
    kind, version = _model_type(), version_of(_given("VERSION"), "")
    teacher = train_teacher_job(
        strategy="swing",
        market="us",
        symbols=list(TRAINING_SAMPLE),
        end=SAMPLE_TRAINING_END,
        bars=str(location),
        version_tag=version,
    )
    start, end = SAMPLE_VALIDATION
    trained = train_student_job(
        teacher_dir=teacher["output_dir"],
        output_dir=f"{settings.data_dir}/models/{version}/student",
        model_type=kind,
        validation=ValidationRequest(
            model="", symbols=[*TRAINING_SAMPLE, SAMPLE_SHORT_HISTORY], start=start, end=end
        ),
    )
    assert trained.verdict is not None
    return trained.verdict.lines()


def train() -> list[str]:
    """Train a teacher and a student: on the given symbols and dates, else on the bundled sample."""
    settings = Settings()
    symbols, start, end = _given("SYMBOLS").split(), _given("START"), _given("END")
    kind, version = _model_type(), version_of(_given("VERSION"), "")
    sample = not symbols
    teacher = train_teacher_job(
        strategy="swing",
        market="us" if sample else None,
        symbols=list(TRAINING_SAMPLE) if sample else symbols,
        start=start,
        end=end or (SAMPLE_TRAINING_END if sample else ""),
        bars=str(store_sample(settings)) if sample else "",
        version_tag=version,
    )
    trained = train_student_job(
        teacher_dir=teacher["output_dir"],
        output_dir=f"{settings.data_dir}/models/{version}/student",
        model_type=kind,
    )
    return [trained.model, trained.report]


def validate() -> list[str]:
    """Validate the student of VERSION, else the newest, which is trained first if there is none."""
    model = _student()
    if model is None:
        train()
        model = newest_student()
    request = ValidationRequest(
        model=model, symbols=_given("SYMBOLS").split() or None, start=_given("START"), end=_given("END")
    )
    return validate_job(request).lines()


def checklist() -> list[str]:
    """Decide again from the stored artifacts of the student of VERSION, else of the newest."""
    model = _student() or newest_student()
    return rebuild_checklist_job(str(Path(model).parent), Thresholds()).lines()


def report() -> list[str]:
    """Rebuild the index and say what the newest report decided."""
    listing = report_job()
    newest = next((run for run in listing["runs"] if run["recommendation"]), None)
    if newest is None:
        return ["no validation yet; run make validate", listing["index"]]
    folder = Path(listing["index"]).parent / newest["folder"]
    summary = read_json(folder / "manifest.json")["summary"]
    return [summary["recommendation"], summary["reason"], str(folder / "checklist.html")]


def dashboard_static() -> list[str]:
    """Draw the dashboard of SLOT, else of every slot, over DAYS session days."""
    days = _given("DAYS")
    if days and not (days.isdecimal() and int(days)):
        raise UsageError(f"DAYS={days}: give a number of session days")
    done = write_dashboard(_given("SLOT"), int(days) if days else None)
    states = [f"{slot}: {state or 'NOT MONITORED'}" for slot, state in done["states"].items()]
    return [*states, done["page"], done["markdown"]]


def dashboard() -> list[str]:
    """Serve the dashboard live until interrupted."""
    with subprocess.Popen(voila_command()) as process:
        try:
            served = process.wait()
        except KeyboardInterrupt:  # Voila hears it as well, and ends its kernels first
            process.wait()
            served = 0
    if served:
        raise UsageError(f"the dashboard could not be served; voila ended with {served}")
    return ["the dashboard is not served any more"]


def promote() -> list[str]:
    """Put the student of VERSION, else the newest, into production, if everything allows it."""
    model = _student()
    if model is None:
        raise UsageError("there is no student to promote; run make validate, then have it approved")
    done = _sqkit("promote", "--model", model)
    if isinstance(done, str):
        return ["REFUSED", done, model]
    entry = done["promotion"]
    return [
        "set in the engine's environment:",
        *done["environment"],
        "PROMOTED",
        f"{entry['model_version']} is live in slot {entry['slot']}",
        _archived(entry["release"]),
    ]


def rollback() -> list[str]:
    """Go back to the release before the present one, for REASON."""
    reason = _given("REASON")
    if not reason:
        raise UsageError('a rollback says why; run make rollback REASON="..."')
    done = _sqkit("rollback", "--reason", reason)
    if isinstance(done, str):
        return ["REFUSED", done, Settings().student_model_path]
    target, slot = done["target"], done["slot"]
    if done["rollback"] is None:
        return ["NOTHING TO DO", f"slot {slot} was there already", Settings().student_model_path]
    now = f"runs {target['version'] or 'an unmanaged model'}" if target else "has no student"
    return [
        "set in the engine's environment:",
        *done["environment"],
        "ROLLED BACK",
        f"slot {slot} {now}; somebody else ratifies it with sqkit ratify",
        _archived(target["release"]) if target else Settings().student_model_path,
    ]


def _sqkit(*words: str) -> dict[str, Any] | str:
    """What a command of `sqkit` printed as JSON, or its refusal; what it said on the way is passed on."""
    said = ""
    with tempfile.TemporaryFile() as printed:
        command = [sys.executable, "-m", "sqkit.cli", *words, "--json"]
        with subprocess.Popen(command, stdout=printed, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            for line in process.stderr:
                print(said, end="", file=sys.stderr, flush=True)
                said = line
        if process.returncode == 0:
            print(said, end="", file=sys.stderr, flush=True)
            printed.seek(0)
            return parse_json(printed.read(), Path("sqkit"))  # type: ignore[no-any-return]
    reason = said.strip().removeprefix(_SAYS)
    if process.returncode not in _VERDICT_CODES:
        raise UsageError(reason or f"sqkit {words[0]} ended with {process.returncode}")
    return reason


def _archived(release: str) -> str:
    return str(Path(Settings().data_dir) / "models" / ARCHIVE_FOLDER / release)


def _model_type() -> str:
    """The kind of student asked for, refused before anything is trained."""
    kind = _given("MODEL_TYPE") or DEFAULT_MODEL_TYPE
    if kind not in MODEL_TYPES:
        raise UsageError(f"MODEL_TYPE={kind}: give one of {', '.join(MODEL_TYPES)}", kind=kind)
    return kind


def _student() -> str | None:
    """The student asked for: that of VERSION, else the newest, else None."""
    if version := _given("VERSION"):
        path = Path(Settings().data_dir) / "models" / version / "student" / STUDENT_FILE
        if not path.is_file():
            raise UsageError(
                f"VERSION={version}: there is no {path}; run make train VERSION={version}", path=str(path)
            )
        return str(path)
    try:
        return newest_student()
    except UsageError:
        return None


def _given(name: str) -> str:
    return os.environ.get(name, "").strip()


TARGETS = {
    "demo": demo,
    "train": train,
    "validate": validate,
    "checklist": checklist,
    "report": report,
    "dashboard-static": dashboard_static,
    "dashboard": dashboard,
    "promote": promote,
    "rollback": rollback,
}


def main(arguments: list[str]) -> int:
    """Run one target; 0 for every verdict, the error's own code for an error."""
    try:
        tidy_clock(os.environ)
        print("\n".join(TARGETS[arguments[0]]()))
    except SqkitError as problem:
        print(f"sqkit: {problem}", file=sys.stderr)
        return problem.exit_code
    except Exception as problem:  # noqa: BLE001 - a bug of ours still is one line
        print(f"sqkit: {unexpected(problem)}", file=sys.stderr)
        return UNEXPECTED
    except KeyboardInterrupt:
        logging.getLogger("asyncio").disabled = True  # what the stopped kernel's client still has to say
        print("sqkit: interrupted; the step under way published nothing", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
