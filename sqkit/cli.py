"""The `sqkit` command. Every command imports its room only when it runs.

Standard output carries results, standard error progress and refusals. A refusal is one line
that says what to do next, and its exit code:

0 done or PROMOTE; 1 REJECT or verification failed; 2 usage or bad input;
3 INSUFFICIENT_EVIDENCE; 4 integrity; 5 conflict or stale; 6 a notebook failed. A bug of sqkit's
own exits with 70, an interrupted run with 130.
"""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter

import sqkit
from sqkit.errors import UNEXPECTED, SqkitError, UsageError, unexpected
from sqkit.files import canonical_json
from sqkit.leaving import leave
from sqkit.versions import tidy_clock

if TYPE_CHECKING:
    from sqkit.research.requests import Thresholds

Strategy = Literal["intraday", "swing"]
Interval = Literal["1d", "1m", "5m"]
Market = Literal["nse", "us", "nse_index", "us_index"]
ModelType = Literal["logistic", "mlp", "gradient_boosting", "random_forest"]
Words = Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())]
Json = Annotated[bool, Parameter(name="--json", negative=())]
Switch = Annotated[bool, Parameter(negative=())]

app = App(
    name="sqkit",
    help="May this model trade? Train, validate, report and decide.",
    version=sqkit.__version__,
    help_format="plaintext",
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)
data = App(name="data", help="Check, import and fetch bars.", result_action="return_value")
app.command(data)


@Parameter(name="*")
@dataclass(frozen=True)
class ThresholdFlags:
    """Promotion thresholds in place of the settings.

    Parameters
    ----------
    precision_uplift_threshold
        In place of SENSEQUANT_PROMOTION_MIN_PRECISION_UPLIFT.
    hit_ratio_uplift_threshold
        In place of SENSEQUANT_PROMOTION_MIN_HIT_RATIO_UPLIFT.
    sharpe_uplift_threshold
        In place of SENSEQUANT_PROMOTION_MIN_SHARPE_UPLIFT.
    """

    precision_uplift_threshold: float | None = None
    hit_ratio_uplift_threshold: float | None = None
    sharpe_uplift_threshold: float | None = None

    def given(self) -> Thresholds:
        """As the jobs take them."""
        from sqkit.research.requests import Thresholds

        return Thresholds(
            self.precision_uplift_threshold, self.hit_ratio_uplift_threshold, self.sharpe_uplift_threshold
        )


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; every way out is an exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given
    words = [word for word in given if word != "--debug"]
    try:
        tidy_clock(os.environ)
        code = app(words, exit_on_error=False, print_error=False)
    except CycloptsError as problem:
        said = " ".join(str(problem).split()).rstrip(".")
        _stop(f"{said}; see {' '.join(['sqkit', *_command(words)])} --help", 2)
    except SqkitError as problem:
        if debug:
            raise
        _stop(str(problem), problem.exit_code)
    except KeyboardInterrupt:
        logging.getLogger("asyncio").disabled = True  # what the stopped kernel's client still has to say
        _stop("interrupted; the step under way published nothing", 130)
    except ModuleNotFoundError as problem:
        if debug or (problem.name or "").startswith("sqkit"):
            raise
        _stop(f"{problem.name} is not installed; install it with: pip install 'sqkit[research]'", 2)
    except OSError as problem:
        if debug:
            raise
        _stop(f"{problem.filename or 'standard output'}: {problem.strerror or problem}", 2)
    except Exception as problem:
        if debug:
            raise
        _stop(unexpected(problem), UNEXPECTED)
    sys.exit(code if isinstance(code, int) else 0)


def _command(words: list[str]) -> list[str]:
    """The words of the command line that name a known command."""
    if words[:1] == ["data"]:
        return words[: 2 if words[1:2] and words[1] in data else 1]
    return words[: 1 if words[:1] and words[0] in app else 0]


def _stop(line: str, code: int) -> None:
    print(f"sqkit: {line}", file=sys.stderr)
    sys.exit(code)


def _show(value: dict[str, Any], as_json: bool, lines: list[str]) -> None:
    text = canonical_json(value) if as_json else "\n".join([*lines, ""])
    print(text, end="", flush=True)


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
    )
    _show(summary, json, [f"teacher {summary['version']}: {summary['output_dir']}"])
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
    generate_checklist: Switch = False,
    thresholds: ThresholdFlags = ThresholdFlags(),
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
        return _report_verdict(rebuild_checklist_job(student_dir, thresholds.given()), json)
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
        )
        if validate
        else None,
    )
    if trained.verdict is not None:
        return _report_verdict(trained.verdict, json)
    _show(
        trained.summary(), json, [f"student {trained.version}: {trained.model}", f"report: {trained.report}"]
    )
    return 0


@app.command
def validate(
    *,
    model: str,
    bars: str = "",
    symbols: Words = None,
    start: str = "",
    end: str = "",
    baseline_model: str = "",
    thresholds: ThresholdFlags = ThresholdFlags(),
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
    json
        Print the outcome as JSON.
    """
    from sqkit.research.requests import ValidationRequest
    from sqkit.research.validation_jobs import validate_job

    request = ValidationRequest(model, bars, symbols, start, end, baseline_model, thresholds.given())
    return _report_verdict(validate_job(request), json)


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
    thresholds: ThresholdFlags = ThresholdFlags(),
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

        return _report_verdict(rebuild_checklist_job(str(Path(model).parent), thresholds.given()), json)
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
    return _report_verdict(verdict, json)


@app.command
def report(*, json: Json = False) -> int:
    """Rebuild reports/index.html and index.md from the stored runs.

    Parameters
    ----------
    json
        Print the list of runs as JSON.
    """
    from sqkit.research.validation_jobs import report_job

    listing = report_job()
    lines = [f"{run['folder']}: {run['recommendation'] or run['reason']}" for run in listing["runs"]]
    _show(listing, json, [*lines, listing["index"]])
    return 0


@app.command
def inspect(file: str, /, *, json: Json = False) -> int:
    """Show what a model file says of itself.

    Parameters
    ----------
    file
        An ONNX file written by sqkit.
    json
        Print everything as JSON.
    """
    from sqkit.student import inspect_model

    about = inspect_model(Path(file))
    said = {name: value for name, value in about.items() if name != "metadata"} | (about["metadata"] or {})
    lines = [f"{name:20} {_short(value)}" for name, value in said.items()]
    _show(about, json, lines)
    return 0


def _short(value: Any) -> str:
    text = canonical_json(value, indent=None).strip() if isinstance(value, (dict, list)) else str(value)
    return text if len(text) <= 100 else text[:97] + "..."


@app.command
def doctor(*, json: Json = False) -> int:
    """List what is inconsistent in the settings; exit 1 if anything is.

    Parameters
    ----------
    json
        Print the problems as JSON.
    """
    from sqkit.settings import Settings

    problems = Settings().startup_problems()
    _show({"problems": problems}, json, problems or ["no problems"])
    return 1 if problems else 0


@data.command(name="check")
def data_check(
    path: str,
    /,
    *,
    symbol: str | None = None,
    interval: Interval | None = None,
    market: Market | None = None,
    json: Json = False,
) -> int:
    """Read bars in any known format and say what is wrong with them; exit 1 on errors.

    Parameters
    ----------
    path
        A file, a folder of files, or a URL.
    symbol
        The symbol, where the file does not name it.
    interval
        1d, 1m or 5m; by default guessed from the bars.
    market
        By default SENSEQUANT_MARKET.
    json
        Print the report as JSON.
    """
    from sqkit.research.marketdata import check_file, check_files
    from sqkit.settings import Settings

    settings = Settings()
    market_name, sessions_file = market or settings.market, settings.sessions_file
    if not Path(path).is_dir():
        report = check_file(path, interval, market_name, symbol, sessions_file)
        _show(report.to_dict(), json, report.lines())
        return 0 if report.ok else 1
    reports = check_files(path, interval, market_name, sessions_file)
    lines = [line for report in reports for line in report.lines()]
    _show({"files": [report.to_dict() for report in reports]}, json, lines)
    return 0 if all(report.ok for report in reports) else 1


@data.command(name="import")
def data_import(
    path: str,
    /,
    *,
    symbol: str,
    interval: Interval = "1d",
    market: Market | None = None,
) -> int:
    """Store bars as data/bars/<interval>/<SYMBOL>.parquet.

    Parameters
    ----------
    path
        A file or URL in any known format.
    symbol
        The symbol to store them under.
    interval
        1d, 1m or 5m.
    market
        By default SENSEQUANT_MARKET.
    """
    from sqkit.research.marketdata import import_bars
    from sqkit.settings import Settings

    settings = Settings()
    stored = import_bars(
        path,
        symbol=symbol,
        interval=interval,
        market=market or settings.market,
        data_dir=settings.data_dir,
        sessions_file=settings.sessions_file,
    )
    print("\n".join([*stored.report.lines(), f"stored {stored.path}"]))
    return 0


@data.command(name="fetch")
def data_fetch(
    symbol: str,
    /,
    *,
    interval: Interval = "1d",
    start: str = "",
    end: str = "",
    market: Market | None = None,
) -> int:
    """Fetch bars from Yahoo (needs pip install 'sqkit[yahoo]') and store them.

    Parameters
    ----------
    symbol
        Yahoo's name of the symbol.
    interval
        1d, 1m or 5m.
    start
        First session date.
    end
        Last session date, included.
    market
        By default told by the symbol's spelling (.NS and .BO are nse).
    """
    from sqkit.research.marketdata import fetch_and_store
    from sqkit.settings import Settings

    stored = fetch_and_store(
        symbol, interval=interval, start=start, end=end, market=market or "", data_dir=Settings().data_dir
    )
    print("\n".join([*stored.report.lines(), f"stored {stored.path}"]))
    return 0


def _report_verdict(verdict: Any, as_json: bool) -> int:
    """Print verdict, reason and report path last; the exit code is the verdict's."""
    _show(verdict.to_dict(), as_json, verdict.lines())
    return int(verdict.exit_code)


def run() -> None:
    """The command itself: `main`, then an exit that no library's thread can turn into a crash."""
    try:
        main()
    except SystemExit as leaving:
        leave(leaving.code if isinstance(leaving.code, int) else 1)


if __name__ == "__main__":
    run()
