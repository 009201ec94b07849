"""The plan of a validation: everything it needs, and every refusal, before a kernel starts.

Commands plan to refuse early, notebook 03 plans to run. In: a model's path and what a person
typed. Out: a `ValidationPlan` that may run, or one line that says why not.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqkit.bars import BarArrays
from sqkit.errors import IntegrityError, UsageError, WindowEmpty, WindowOverlap
from sqkit.files import sha256_file
from sqkit.records import iso_date, session_day
from sqkit.research.accuracy import RULE
from sqkit.research.backtest import Window, require_scorable
from sqkit.research.ledger_check import refuse_other_ledger
from sqkit.research.sources import default_bars, load_bars, parse_day, teacher_of
from sqkit.research.trials import Look, TrialLedger, open_ledger
from sqkit.settings import Settings
from sqkit.student import StudentModel
from sqkit.trading_rules import TradingRules


@dataclass(frozen=True)
class ValidationPlan:
    """A validation that may run: every refusal is behind it.

    Attributes
    ----------
    model_path, baseline_path
        As typed; `baseline_path` is None when the baseline is the rule.
    incumbent
        Path and digest of what is in production now, or None.
    settings
        Those the rules follow from; a replay gives them to the live engine.
    untrained
        Symbols validated that the model was not trained on.
    ledger
        Where this look at the window will be counted; verified.
    teacher_disagrees
        What the student says of its training that its teacher's folder says otherwise; None where the
        teacher was not found.
    """

    model_path: str
    model: StudentModel
    baseline_path: str | None
    baseline_model: StudentModel | None
    incumbent: dict[str, str] | None
    bars_location: str
    bars: dict[str, BarArrays]
    notes: list[str]
    window: Window
    rules: TradingRules
    settings: Settings
    untrained: list[str]
    ledger: TrialLedger
    teacher_disagrees: list[str] | None

    @property
    def look(self) -> Look:
        """What the trial ledger keeps of this validation; no clock, so that a repeated one is the same."""
        about, days = self.model.metadata, self.window.describe()
        return Look(
            strategy=about["strategy"],
            market=about["market"],
            interval=about["interval"],
            first_day=days["start"],
            last_day=days["end"],
            symbols=list(self.bars),
            behaviour=self.model.behaviour_digest(self.rules.threshold),
            model_digest=self.model.digest,
            model_version=self.model.version,
            baseline=self.baseline_path,
        )


def plan_validation(
    model_path: str,
    *,
    bars: str = "",
    symbols: list[str] | None = None,
    start: str = "",
    end: str = "",
    baseline_model: str = "",
    settings: Settings | None = None,
) -> ValidationPlan:
    """Load everything a validation needs and refuse what must not be judged.

    Parameters
    ----------
    model_path
        The candidate's ONNX file.
    bars
        Folder or URL of the bars; by default where the teacher was trained.
    symbols
        By default the symbols of training.
    start, end
        Session dates, both included; by default everything after the training window.
    baseline_model
        A student to compare with, or ``rule`` for the baseline rule; by default what is in
        production in the strategy's slot, else the rule.

    Raises
    ------
    WindowOverlap
        The window overlaps what the candidate has seen.
    IntegrityError
        The baseline is the candidate itself, or a model of another strategy or interval.
    LedgerBroken
        The trial ledger was edited, cut or deleted: the number of looks is not known.
    BarsNotFound, WindowEmpty, WindowTooShort, ModelFileError, UsageError
        Something is missing or cannot be meant.
    """
    settings = settings or Settings()
    ledger = open_ledger(settings.data_dir, settings.reports_dir)
    ledger.entries()
    model = StudentModel.load(Path(model_path))
    about = model.metadata
    refuse_other_ledger(Path(model_path), ledger)
    teacher = teacher_of(Path(model_path), about["teacher_digest"], settings)
    location = bars or (teacher or {}).get("bars_location") or default_bars(settings, about["interval"])
    symbols = symbols or about["symbols"]
    loaded, notes, window = load_window(about, location, symbols, start, end)
    baseline_path, baseline, remarks = _baseline(baseline_model, settings, model)
    rules = TradingRules.from_settings(
        settings,
        strategy=about["strategy"],
        market=about["market"],
        horizon_bars=about["horizon_bars"],
        dead_zone=about["dead_zone"],
        last_day=window.last_day,
    )
    for series in loaded.values():
        require_scorable(series, window, [model, baseline], rules)
    return ValidationPlan(
        model_path=model_path,
        model=model,
        baseline_path=baseline_path,
        baseline_model=baseline,
        incumbent=_incumbent(settings, about["strategy"]),
        bars_location=location,
        bars=loaded,
        notes=[*notes, *remarks],
        window=window,
        rules=rules,
        settings=settings,
        untrained=[symbol for symbol in symbols if symbol not in about["symbols"]],
        ledger=ledger,
        teacher_disagrees=None if teacher is None else _disagreements(about, teacher),
    )


def _disagreements(student: dict[str, Any], teacher: dict[str, Any]) -> list[str]:
    """A student inherits what it was trained on; a file that says otherwise was changed afterwards."""
    names = ("training_window", "last_label_end", "symbols", "data_digest", "horizon_bars", "dead_zone")
    return [
        f"{name}: the student says {student[name]}, its teacher {teacher.get(name)}"
        for name in (*names, "strategy", "interval", "market")
        if student[name] != teacher.get(name)
    ]


def load_window(
    seen: dict[str, Any], location: str, symbols: list[str], start: str, end: str
) -> tuple[dict[str, BarArrays], list[str], Window]:
    """The bars of a validation and its window, refused when they cannot be judged.

    Parameters
    ----------
    seen
        Metadata of the student, or of the teacher when the student is not trained yet.
    location, symbols
        Where the bars lie and which are asked.
    start, end
        Session dates as typed; empty means the first allowed and the last stored.

    Returns
    -------
    bars, notes, window
        Series by symbol, a line for everything dropped or doubtful, and the window.
    """
    symbols = distinct(symbols)
    window = _window(seen, start, end)
    loaded, notes = load_bars(location, symbols, interval=seen["interval"], market=seen["market"])
    for symbol, series in loaded.items():
        first, stop = series.window(window.first_day, window.last_day)
        if first == stop:
            asked = (
                f"between {iso_date(window.first_day)} and {iso_date(window.last_day)}"
                if end
                else (f"from {iso_date(window.first_day)} on")
            )
            raise WindowEmpty(
                f"{symbol}: no bar {asked}, the stored bars run {_range_of(series)}; "
                "choose another window or import the missing bars",
                symbol=symbol,
            )
    if not end:
        last_stored = max(int(series.session_days[-1]) for series in loaded.values())
        window = Window(window.first_day, last_stored)
    return loaded, notes, window


def distinct(symbols: list[str]) -> list[str]:
    """Symbols as given; one that is named twice is refused."""
    repeated = sorted({symbol for symbol in symbols if symbols.count(symbol) > 1})
    if repeated:
        raise UsageError(f"symbols named twice: {' '.join(repeated)}; name each once", symbols=repeated)
    return list(symbols)


def refuse_seen(seen: dict[str, Any], start: str) -> int:
    """The first day a model or its teacher has not seen; a window that starts earlier is refused.

    The last training decision lies `horizon_bars` before the last label end, so a window that
    begins on a later session keeps an embargo of the whole horizon.

    Parameters
    ----------
    seen
        Metadata of a student or a teacher.
    start
        First session date of the window as typed; empty means the first that is allowed.

    Raises
    ------
    WindowOverlap
        The window overlaps what was seen.
    """
    until = max(
        session_day(dt.date.fromisoformat(seen["training_window"]["end"])),
        session_day(dt.date.fromisoformat(seen["last_label_end"][:10])),
    )
    first = parse_day(start, "start") if start else until + 1
    if first <= until:
        raise WindowOverlap(
            f"the validation window starts {iso_date(first)} but the candidate has seen bars up to {iso_date(until)} "
            f"(training end, last label end and embargo of {seen['horizon_bars']} bars); "
            f"start on {iso_date(until + 1)} or later",
            start=iso_date(first),
            seen_until=iso_date(until),
        )
    return first


def _window(about: dict[str, Any], start: str, end: str) -> Window:
    first = refuse_seen(about, start)
    last = parse_day(end, "end") if end else session_day(dt.date(2200, 1, 1))
    if first > last:
        raise UsageError(
            f"the window starts {iso_date(first)} and ends {end}: start must not be after end", end=end
        )
    return Window(first, last)


def _range_of(bars: BarArrays) -> str:
    days = bars.session_days
    return f"from {iso_date(days[0])} to {iso_date(days[-1])}" if len(days) else "nowhere"


def _baseline(
    given: str, settings: Settings, model: StudentModel
) -> tuple[str | None, StudentModel | None, list[str]]:
    """The baseline's path and model, None for the rule, and a note where the default had to give way."""
    if given == RULE:
        return None, None, []
    if given:
        return given, load_baseline(given, model.metadata, candidate=model), []
    production = production_baseline(settings, model.metadata["strategy"])
    if production is None:
        return None, None, []
    try:
        return production, load_baseline(production, model.metadata, candidate=model), []
    except IntegrityError as problem:
        return None, None, [f"compared with the rule, production is no baseline here ({problem})"]


def production_baseline(settings: Settings, strategy: str) -> str | None:
    """The production model of a strategy's slot, the baseline unless one is named; None without one."""
    production = settings.production_path(strategy)
    return str(production) if production.is_file() else None


def _incumbent(settings: Settings, strategy: str) -> dict[str, str] | None:
    production = settings.production_path(strategy)
    if not production.is_file():
        return None
    return {"digest": sha256_file(production), "model": str(production)}


def load_baseline(path: str, seen: dict[str, Any], *, candidate: StudentModel | None = None) -> StudentModel:
    """A baseline model, refused unless it can be compared.

    Parameters
    ----------
    seen
        Metadata of the candidate, or of its teacher before it is trained.

    Raises
    ------
    UsageError
        There is no such file.
    IntegrityError
        It is the candidate itself, or made for another strategy, interval or market.
    """
    if not Path(path).is_file():
        raise UsageError(
            f"{path}: there is no such baseline model; name another with --baseline-model, or leave it out "
            "to compare with the production model or the rule",
            path=path,
        )
    baseline = StudentModel.load(Path(path))
    if candidate is not None and baseline.digest == candidate.digest:
        raise IntegrityError(
            f"{path}: baseline and candidate are the same file; name another with --baseline-model, or rule"
        )
    for key in ("strategy", "interval", "market"):
        if baseline.metadata[key] != seen[key]:
            raise IntegrityError(
                f"{path}: the baseline's {key} is {baseline.metadata[key]}, the candidate's {seen[key]}; "
                "give a baseline of the same kind with --baseline-model"
            )
    return baseline
