"""Where things lie: bars, teachers, students, the project's root; and what a person's words mean.

Commands and notebooks ask here, so that both find the same files.
"""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path
from typing import Any, Final

import numpy as np

from sqkit.bars import BarArrays
from sqkit.errors import HoldoutSealed, UsageError
from sqkit.files import make_folder, read_json
from sqkit.model_file import STUDENT_FILE
from sqkit.people import account_name
from sqkit.records import iso_date, session_day
from sqkit.research.barchecks import CheckReport
from sqkit.research.display import STAGING_VARIABLE
from sqkit.research.holdout import sealed_windows
from sqkit.research.marketdata import load_symbol, load_symbols
from sqkit.research.progress import say
from sqkit.research.sample import write_bundled_sample
from sqkit.research.teacher_folder import METADATA_FILE, read_teacher
from sqkit.research.trials import open_ledger
from sqkit.sessions import load_sessions
from sqkit.settings import Settings
from sqkit.versions import is_version, resolve_version

BARS_VARIABLE: Final = "SQKIT_BARS"
INTERVALS: Final = {"intraday": "1m", "swing": "1d"}
HORIZON_BARS: Final = {"intraday": 15, "swing": 5}
TRAINING_SAMPLE: Final = ("AAPL", "GOOG", "IBM", "MSFT")
SAMPLE_SHORT_HISTORY: Final = "FB"
SAMPLE_TRAINING_END: Final = "2010-12-31"
SAMPLE_VALIDATION: Final = ("2011-01-01", "2012-12-31")


def enter_project() -> None:
    """Work from the project's root: JupyterLab starts a kernel in the notebook's own folder.

    Under the runner the working folder is the caller's and stays as it is.
    """
    if os.environ.get(STAGING_VARIABLE):
        return
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / "pyproject.toml").is_file():
            os.chdir(folder)
            return


def bars_given(parameter: str) -> str:
    """Where a notebook's bars lie: its own parameter, else what the runner said beside the parameters."""
    return parameter or os.environ.get(BARS_VARIABLE, "")


def as_typed(path: str) -> str:
    """A path as reports show it: tidied, and relative to the working folder where it lies inside it."""
    if "://" in path or not path:
        return path
    tidy = os.path.normpath(path)
    return os.path.relpath(tidy) if Path.cwd() in Path(tidy).parents else tidy


def parse_day(text: str, name: str) -> int:
    """A date a person typed, ``YYYY-MM-DD``, as days since 1970-01-01.

    Raises
    ------
    UsageError
        It is no date.
    """
    try:
        return session_day(dt.date.fromisoformat(text))
    except ValueError:
        raise UsageError(f"{name} {text!r}: no date; write YYYY-MM-DD", value=text) from None


def version_of(version_tag: str, output_dir: str) -> str:
    """The version tag of a run that starts now (see `sqkit.versions.resolve_version`)."""
    return resolve_version(version_tag, Path(output_dir or "."), os.environ, dt.datetime.now(dt.UTC))


def default_bars(settings: Settings, interval: str) -> str:
    """Where bars of an interval lie unless ``--bars`` says otherwise."""
    return f"{settings.data_dir}/bars/{interval}"


def teacher_of(model_path: Path, teacher_digest: str, settings: Settings) -> dict[str, Any] | None:
    """Metadata of the teacher a student names: the one beside it, else a stored one; None without one."""
    beside = model_path.parent.parent / "teacher" / METADATA_FILE
    stored = sorted((Path(settings.data_dir) / "models").glob(f"*/teacher/{METADATA_FILE}"))
    for metadata in (beside, *stored):
        teacher = read_json(metadata) if metadata.is_file() else {}
        if isinstance(teacher, dict) and teacher.get("teacher_digest") == teacher_digest:
            return teacher
    return None


def open_teacher(teacher_dir: str, *, bars: str = "") -> tuple[dict[str, Any], dict[str, BarArrays]]:
    """A teacher's metadata and the bars it was trained on.

    Raises
    ------
    UsageError
        The folder holds no teacher.
    ArtifactChanged
        What it holds differs from its digests.
    """
    teacher = read_teacher(Path(teacher_dir)).metadata
    loaded, _ = load_bars(
        bars or teacher["bars_location"],
        teacher["symbols"],
        interval=teacher["interval"],
        market=teacher["market"],
    )
    return teacher, loaded


def load_bars(
    location: str, symbols: list[str], *, interval: str, market: str
) -> tuple[dict[str, BarArrays], list[str]]:
    """Bars of several symbols under the settings' session table, and a line for all that is doubtful.

    Raises
    ------
    BarsError
        Bars are missing or must not be used.
    """
    return load_symbols(
        location, symbols, interval=interval, market=market, sessions_file=Settings().sessions_file
    )


def explore_symbol(symbol: str, *, bars: str, strategy: str, market: str) -> tuple[BarArrays, CheckReport]:
    """One symbol's bars and what the checks say; without a place, the bundled sample is stored and used.

    Bars from the strategy's first sealed day on are left out, and that is said.
    """
    settings = Settings()
    location = bars or str(store_sample(settings))
    sessions = load_sessions(market, settings.sessions_file)
    series, report = load_symbol(
        location, symbol, interval=INTERVALS[strategy], market=market, sessions=sessions
    )
    return _unsealed(series, strategy, settings), report


def _unsealed(series: BarArrays, strategy: str, settings: Settings) -> BarArrays:
    """The bars before the first sealed day that the series reaches."""
    ledger = open_ledger(settings.data_dir, settings.reports_dir)
    days = series.session_days
    sealed = [
        parse_day(one.start, "start")
        for one in sealed_windows(ledger, strategy)
        if len(days) and one.touches(iso_date(days[0]), iso_date(days[-1]))
    ]
    if not sealed:
        return series
    stop = int(np.searchsorted(days, min(sealed)))
    if not stop:
        raise HoldoutSealed(
            f"{series.symbol}: every bar lies on or after the sealed day {iso_date(min(sealed))} of {strategy}; "
            "look at earlier bars",
            symbol=series.symbol,
        )
    say(f"{series.symbol}: bars from {iso_date(min(sealed))} on are sealed for {strategy} and left out")
    return series.slice(0, stop)


def store_sample(settings: Settings) -> Path:
    """The bundled sample as files under ``data/bars/1d``, written where they are absent."""
    location = Path(default_bars(settings, "1d"))
    names = (*TRAINING_SAMPLE, SAMPLE_SHORT_HISTORY)
    if not all((location / f"{symbol}.parquet").is_file() for symbol in names):
        write_bundled_sample(settings.data_dir)
    return location


def sample_teacher() -> str:
    """A teacher for exploring: the newest that is stored, else one trained on the bundled sample."""
    settings = Settings()
    stored = _newest(settings, f"teacher/{METADATA_FILE}")
    if stored is not None:
        return str(stored.parent)
    from sqkit.research.teacher import train_teacher  # scikit-learn, only where something is trained

    location = store_sample(settings)
    version = version_of("", "")
    folder = f"{settings.data_dir}/models/{version}/teacher"
    train_teacher(
        load_bars(str(location), list(TRAINING_SAMPLE), interval="1d", market="us")[0],
        strategy="swing",
        market="us",
        interval="1d",
        first_day=parse_day("2000-03-01", "start"),
        last_day=parse_day(SAMPLE_TRAINING_END, "end"),
        horizon_bars=HORIZON_BARS["swing"],
        seed=0,
        output_dir=Path(folder),
        version=version,
        bars_location=str(location),
        created_by=account_name(),
    )
    return folder


def student_folder(teacher_dir: str) -> Path:
    """Where a teacher's student goes unless told otherwise."""
    return Path(teacher_dir).parent / "student"


def newest_student() -> str:
    """The newest student under the models folder.

    Raises
    ------
    UsageError
        There is none.
    """
    settings = Settings()
    stored = _newest(settings, f"student/{STUDENT_FILE}")
    if stored is None:
        raise UsageError(
            f"{settings.data_dir}/models: holds no student; run make train, or notebook 02_train, first"
        )
    return str(stored)


def _newest(settings: Settings, inside_version: str) -> Path | None:
    models = Path(settings.data_dir) / "models"
    versions = (
        sorted(path.name for path in models.glob("*") if is_version(path.name)) if models.is_dir() else []
    )
    found = [
        models / version / inside_version
        for version in versions
        if (models / version / inside_version).is_file()
    ]
    return found[-1] if found else None


def exploration_folder(purpose: str) -> Path:
    """Where a notebook that is run by hand leaves its files: never in a student's folder."""
    folder = Path(Settings().data_dir) / "exploration" / purpose
    return folder if os.environ.get(STAGING_VARIABLE) else make_folder(folder)
