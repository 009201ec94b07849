"""``sqkit lookahead MODULE:FEATURE_SET --bars PATH``: a user's own set on a user's own bars.

In: the name of a registered set, or ``module:name`` where the module is importable from here or a
path of a .py file; and a file or folder of bars in any form `sqkit.research.marketdata` reads. Out:
plain values for ``--json``, and lines for people. The command line decides the exit code.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
import pandas as pd

from sqkit.bars import BarArrays, make_bar_arrays
from sqkit.errors import BarsNotFound, FeatureSetUnknown, SqkitError, UsageError, WindowTooShort
from sqkit.features import FeatureSet, get_feature_set
from sqkit.research.bartidy import COLUMNS
from sqkit.research.lookahead import LookAheadReport, feature_look_ahead
from sqkit.research.marketdata import available_symbols, read_bars
from sqkit.research.progress import progress_over
from sqkit.research.sources import as_typed
from sqkit.sessions import load_sessions
from sqkit.settings import Settings

RESEARCH_ONLY: Final = (
    "a function of a frame serves research only; a model can use it once it is a FeatureSet "
    "(sqkit.features.feature_set), which cannot see later bars live"
)

_SYMBOLS: Final = 3
_MOST_BARS: Final = 200_000
_NO_BARS: Final = {".md", ".json", ".py", ".ipynb"}

Features = FeatureSet | Callable[[pd.DataFrame], Any]


def lookahead_job(
    target: str, *, bars: str, symbol: str | None, market: str | None, interval: str | None, seed: int = 0
) -> dict[str, Any]:
    """Check a feature set for look-ahead.

    Parameters
    ----------
    target
        ``module:name``, ``./my_features.py:name``, or the name of a registered set.
    bars
        A file, or a folder or fsspec URL of files. Of a folder without `symbol` three files are
        taken: the first, the middle and the last by name. Of a long series its last 200,000 bars.
    symbol
        The symbol to take of a folder, or what a file is of.
    market, interval
        By default the settings' market, and the interval the bars show.
    seed
        Of the sampled places.

    Returns
    -------
    dict
        ``ok`` (something was judged, nothing found), ``columns`` (their number), ``findings`` (one
        a symbol and column), ``checked`` (what was done, by symbol) and what was asked.

    Raises
    ------
    UsageError, FeatureSetUnknown
        The target cannot be imported, or is neither a set nor a function.
    FeatureSetRefused
        It raises, or gives other than one row a bar of numbers.
    BarsError
        No bars, bars that cannot be used, or so few that no column could be judged.
    """
    settings = Settings()
    asked_market = market or settings.market
    sessions = load_sessions(asked_market, settings.sessions_file)
    # What a user's code prints must not mix with the result.
    with _importable(Path.cwd()), contextlib.redirect_stdout(sys.stderr):
        features = _features(target)
        reports: dict[str, LookAheadReport] = {}
        notes = [] if isinstance(features, FeatureSet) else [RESEARCH_ONLY]
        sources, files = _sources(bars, symbol)
        for source in progress_over(sources, "look-ahead"):
            loaded = read_bars(
                source, symbol=symbol, interval=interval, market=asked_market, sessions=sessions
            )
            stamps = pd.DatetimeIndex(loaded.frame["timestamp"]).tz_localize(None).as_unit("ns").asi8
            ohlcv = loaded.frame[list(COLUMNS[2:])].to_numpy(np.float64)
            name, found_interval = loaded.report.symbol, loaded.report.interval
            series, outside = make_bar_arrays(name, found_interval, asked_market, stamps, ohlcv, sessions)
            if outside:
                notes.append(f"{name}: {outside:,} bars outside every session of {asked_market} left out")
            notes += _unlike_strategy(features, series)
            if len(series) > _MOST_BARS:
                notes.append(f"{name}: the last {_MOST_BARS:,} of {len(series):,} bars were looked at")
                series = series.slice(len(series) - _MOST_BARS, len(series))
            reports[name] = feature_look_ahead(features, series, seed=seed)
    if all(report.status == "undefined" for report in reports.values()):
        name, report = next(iter(reports.items()))
        raise WindowTooShort(f"{bars}: {name}: {report.reason}; nothing could be judged, give more bars")
    if files > len(sources):
        notes.append(f"{files - len(sources)} of {files} files were not checked; name one with --symbol")
    return {
        "target": target,
        "kind": "feature_set" if isinstance(features, FeatureSet) else "function",
        "bars": as_typed(bars),
        "market": asked_market,
        "seed": seed,
        "symbols": list(reports),
        "columns": len(next(iter(reports.values())).columns),
        "findings": [
            {"symbol": name} | finding
            for name, report in reports.items()
            for finding in report.to_dict()["findings"]
        ],
        "checked": [
            {
                "symbol": name,
                "status": report.status,
                "reason": report.reason,
                "rows": report.rows,
                "cuts": len(report.cuts),
                "changed_futures": len(report.changes),
                "not_judged": report.not_judged,
                "notes": list(report.notes),
            }
            for name, report in reports.items()
        ],
        "notes": list(dict.fromkeys(notes)),
        "ok": not any(report.status == "fail" for report in reports.values()),
    }


def lookahead_lines(result: dict[str, Any]) -> list[str]:
    """The result for people: the verdict first, then one line a column that knows the future."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for finding in result["findings"]:
        found.setdefault((finding["column"], finding["cause"]), []).append(finding)
    columns = {column for column, _ in found}
    verdict = (
        f"look-ahead in {len(columns)} of {result['columns']} columns" if found else "no look-ahead found"
    )
    lines = [f"{result['target']}: {verdict}"]
    for (column, cause), findings in found.items():
        first = findings[0]
        also = f" (also in {', '.join(one['symbol'] for one in findings[1:])})" if findings[1:] else ""
        lines.append(
            f"  {column}: {cause}, from bar {first['first_row']} of {first['symbol']} "
            f"({first['first_instant']}) on{also}: {first['meaning']}"
        )
        lines.append(f"    way out: {first['mend']}")
    lines += [
        f"  {one['symbol']}: {one['rows']:,} bars, {one['cuts']} cuts, {one['changed_futures']} changed futures"
        + (f"; not judged: {one['reason']}" if one["status"] == "undefined" else "")
        for one in result["checked"]
    ]
    silent: dict[str, str] = {}
    for one in result["checked"]:
        if one["status"] != "undefined":
            silent |= one["not_judged"]
            lines += [f"  note: {note}" for note in one["notes"]]
    lines += [f"  not judged: {column}: {why}" for column, why in silent.items()]
    lines += [f"  note: {note}" for note in result["notes"]]
    if not found:
        lines.append("  places are sampled: finding nothing is no proof")
    return lines


# --- what was named


def _features(target: str) -> Features:
    module_name, _, name = target.rpartition(":")
    if not module_name:
        if target.endswith(".py") or "/" in target:
            raise UsageError(f"{target}: name what to check in it, {target}:NAME")
        return get_feature_set(target)
    module = _module(module_name)
    found = getattr(module, name, None) if name else None
    if isinstance(found, FeatureSet) or callable(found):
        return found
    if found is not None:
        raise UsageError(
            f"{target}: is {type(found).__name__}, neither a FeatureSet nor a function of a frame"
        )
    own = [
        key
        for key, value in vars(module).items()
        if isinstance(value, FeatureSet)
        or (callable(value) and getattr(value, "__module__", None) == module.__name__ and key[:1] != "_")
    ]
    close = difflib.get_close_matches(name, own, n=1)
    hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(own)}" if own else "it has none"
    raise FeatureSetUnknown(f"{target}: {module_name} has no {name or 'empty name'}; {hint}")


def _module(name: str) -> ModuleType:
    """A module by its name, or by the path of its file."""
    is_file = name.endswith(".py") or "/" in name
    if is_file and not Path(name).is_file():
        raise UsageError(f"{name}: no such file; write MODULE:NAME or ./FILE.py:NAME")
    try:
        return _from_file(Path(name)) if is_file else importlib.import_module(name)
    except SqkitError:
        raise
    except (Exception, SystemExit) as problem:
        if isinstance(problem, ModuleNotFoundError) and problem.name in (name, name.split(".")[0]):
            raise UsageError(
                f"{name}: no such module here or installed; for a file write ./{name.replace('.', '/')}.py:NAME"
            ) from None
        said = " ".join(str(problem).split())[:200]
        raise UsageError(
            f"{name}: importing it raises {type(problem).__name__}: {said}; mend it first"
        ) from problem


def _from_file(path: Path) -> ModuleType:
    sys.path.insert(0, str(path.resolve().parent))  # `_importable` takes it away again
    spec = importlib.util.spec_from_file_location(path.stem, path.resolve())
    if spec is None or spec.loader is None:
        raise UsageError(f"{path}: no Python file; write ./FILE.py:NAME")
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(path.stem)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    finally:
        if before is not None:
            sys.modules[path.stem] = before
    return module


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """A folder's modules can be imported; afterwards the search path is as it was."""
    before = list(sys.path)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path[:] = before


# --- where the bars lie


def _sources(bars: str, symbol: str | None) -> tuple[list[str], int]:
    """Files to read, and how many there were to choose from."""
    if not bars:
        raise UsageError("--bars is empty; name a file or folder of bars")
    if "://" in bars:
        names = available_symbols(bars)
        files = {name: f"{bars.rstrip('/')}/{name}.parquet" for name in names}
    elif Path(bars).is_dir():
        inside = [file for file in sorted(Path(bars).iterdir()) if file.is_file() and file.name[0] != "."]
        files = {file.stem: str(file) for file in inside if file.suffix not in _NO_BARS}
        if not files:
            raise BarsNotFound(
                f"{bars}: no files of bars lie in this folder itself; name a file or another folder"
            )
    else:
        files = {}
    if not files:
        return [bars], 1
    if symbol is not None:
        if symbol not in files:
            shown = ", ".join(sorted(files)[:12])
            raise BarsNotFound(f"{bars}: no bars of {symbol}; there are {shown}", symbol=symbol)
        return [files[symbol]], 1
    places = np.unique(np.linspace(0, len(files) - 1, min(_SYMBOLS, len(files))).round().astype(int))
    return [list(files.values())[place] for place in places], len(files)


def _unlike_strategy(features: Features, series: BarArrays) -> list[str]:
    if not isinstance(features, FeatureSet) or (features.strategy == "intraday") == (series.interval != "1d"):
        return []
    return [f"{features.name} is made for {features.strategy} bars; these are {series.interval} bars"]
