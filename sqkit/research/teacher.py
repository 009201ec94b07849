"""The teacher: a model on the wide feature set, and soft labels it never saw the answers to.

The command ``train-teacher`` and the notebook `02_train` call `train_teacher`. In: bars, a
window, a seed. Out: a folder with ``teacher_model.onnx``, ``metadata.json`` and
``soft_labels.parquet``, published in one rename. Each soft label comes from a teacher fitted
on the other blocks only; the stored teacher is refitted on all. `read_teacher` reads such a
folder back and refuses one that changed.
"""

from __future__ import annotations

import importlib
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version as library_version
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.special import expit
from sklearn.ensemble import HistGradientBoostingClassifier

from sqkit import __version__
from sqkit.bars import BarArrays
from sqkit.errors import ArtifactChanged, ConflictError, TrainingDataTooSmall, UsageError
from sqkit.features import student_set, teacher_set
from sqkit.files import (
    output_errors,
    publish,
    read_json,
    sha256_bytes,
    sha256_columns,
    sha256_file,
    sha256_json,
    staging_folder,
    write_bytes,
    write_json,
)
from sqkit.model_file import CLASS_ORDER
from sqkit.records import iso_date, iso_instant
from sqkit.research import onnx_export
from sqkit.research.folds import BLOCKS, Fold, block_folds, session_blocks
from sqkit.research.labels import TrainingTable, cut_bars, training_table
from sqkit.research.learners import smallest_leaf, steady_threads

TEACHER_KINDS: Final = ("hist_gradient_boosting", "lightgbm")

MODEL_FILE: Final = "teacher_model.onnx"
METADATA_FILE: Final = "metadata.json"
SOFT_LABELS_FILE: Final = "soft_labels.parquet"

_TREES: Final = 150
_LEAVES: Final = 31
_LEARNING_RATE: Final = 0.05
_RIDGE: Final = 1.0
_MIN_ROWS_PER_CLASS: Final = 50
_SOFT_LABEL_COLUMNS: Final = (
    "symbol_index",
    "bar_time",
    "session_date",
    "outcome",
    "block",
    "soft_label",
    "comparison_soft_label",
)


@dataclass(frozen=True)
class StoredTeacher:
    """A teacher's folder, verified.

    Attributes
    ----------
    metadata
        Content of ``metadata.json``.
    soft_labels
        Columns of ``soft_labels.parquet``, each (n,): ``symbol_index`` into the metadata's
        symbols, ``bar_time`` (int64 ns), ``session_date``, ``outcome``, ``block``,
        ``soft_label`` (P(up), out of fold over five blocks), ``comparison_soft_label``
        (out of fold within the first four blocks; NaN in the last one and where purged).
    """

    metadata: dict[str, Any]
    soft_labels: dict[str, np.ndarray]


@dataclass(frozen=True)
class FittedTeacher:
    """A trained teacher: its scores (float32 (n, k) to float64 (n,)) and its trees."""

    probability_up: Callable[[np.ndarray], np.ndarray]
    trees: list[onnx_export.Tree]
    base: float


def train_teacher(
    bars: Mapping[str, BarArrays],
    *,
    strategy: str,
    market: str,
    interval: str,
    first_day: int,
    last_day: int,
    horizon_bars: int,
    seed: int,
    output_dir: Path,
    version: str,
    bars_location: str,
    created_by: str = "",
    dead_zone: float = 0.5,
    kind: str = "hist_gradient_boosting",
) -> dict[str, Any]:
    """Train a teacher and publish its folder.

    Parameters
    ----------
    bars
        Series by symbol; bars before the window warm it, bars after it are never looked at.
    first_day, last_day
        The window as days since 1970-01-01, ends included; what is stored are the first and the
        last session in it.
    horizon_bars, dead_zone
        Definition of a decisive move, as in `sqkit.metrics.horizon_outcomes`.
    bars_location
        Where the bars lie, as typed; kept in the metadata for later steps, in no digest.
    kind
        ``lightgbm`` needs that package installed.

    Returns
    -------
    dict
        The content of ``metadata.json``.

    Raises
    ------
    UsageError
        Arguments that do not go together, or LightGBM is not installed.
    WindowEmpty, WindowTooShort, TrainingDataTooSmall
        The bars do not suffice.
    ExportMismatch
        The exported teacher does not score like the trained one.
    ConflictError
        Another teacher is in the folder.
    """
    _require_consistent(bars, strategy=strategy, market=market, interval=interval)
    if kind not in TEACHER_KINDS:
        raise UsageError(f"teacher kind {kind}: give one of {', '.join(TEACHER_KINDS)}")
    cut = cut_bars(bars, first_day, last_day)
    wide, narrow = teacher_set(strategy), student_set(strategy)
    data_digests = {symbol: series.digest() for symbol, series in cut.items()}
    request: dict[str, Any] = {
        "schema_version": 1,
        "model_version": version,
        "created_by": created_by,
        "market": market,
        "strategy": strategy,
        "interval": interval,
        "bars_location": bars_location,
        "symbols": sorted(cut),
        "data_digests": data_digests,
        "data_digest": sha256_json(data_digests),
        "training_window": _sessions_in_window(cut, first_day),
        "horizon_bars": horizon_bars,
        "dead_zone": float(dead_zone),
        "seed": seed,
        "model_type": kind,
        "class_order": list(CLASS_ORDER),
        "feature_set": wide.name,
        "feature_set_digest": wide.digest,
        "feature_names": list(wide.columns),
        "student_feature_set": narrow.name,
        "student_feature_set_digest": narrow.digest,
        "library_versions": library_versions(kind),
    }
    _refuse_other_teacher(output_dir, request)

    table = training_table(
        cut,
        wide,
        first_day=first_day,
        last_day=last_day,
        horizon_bars=horizon_bars,
        dead_zone=dead_zone,
        within_session=strategy == "intraday",
    )
    with steady_threads(len(table)):
        soft_labels = label_out_of_fold(table, kind=kind, seed=seed)
        fitted = fit_teacher(kind, table.features, table.up, seed=seed)
        graph = onnx_export.tree_graph(
            fitted.trees, fitted.base, features=len(table.feature_names), link="sigmoid"
        )
        data = onnx_export.model_bytes(graph)
        largest = onnx_export.check_export(data, fitted.probability_up, table.features, seed=seed)

    metadata = request | {
        "last_label_end": iso_instant(int(table.label_end_ns.max())),
        "largest_session_date": iso_date(table.last_day_seen),
        "rows": table.counts,
        "block_rows": np.bincount(soft_labels["block"], minlength=BLOCKS).tolist(),
        "largest_export_difference": largest,
        "teacher_digest": sha256_bytes(data),
        "soft_labels_digest": sha256_columns(**soft_labels),
    }
    _publish_teacher(output_dir, data, metadata, soft_labels)
    return metadata


def label_out_of_fold(table: TrainingTable, *, kind: str, seed: int) -> dict[str, np.ndarray]:
    """Soft labels of every row, each by a teacher that saw neither the row nor its neighbours in time.

    Two columns: over five blocks for the student, and once more within the rows that may be known
    before the last block, so that distillation can be judged on the last block without having
    seen it.

    Returns
    -------
    dict
        Columns as in `StoredTeacher.soft_labels`.
    """
    folds = block_folds(table)
    before_last = folds[-1].train
    comparison = np.full(len(table), np.nan)
    earlier = table.rows(before_last)
    comparison[before_last] = out_of_fold(earlier, block_folds(earlier, BLOCKS - 1), kind=kind, seed=seed)
    return {
        "symbol_index": table.symbol_index,
        "bar_time": table.bar_time_ns,
        "session_date": table.session_day,
        "outcome": table.outcome,
        "block": session_blocks(table.session_day),
        "soft_label": out_of_fold(table, folds, kind=kind, seed=seed),
        "comparison_soft_label": comparison,
    }


def out_of_fold(table: TrainingTable, folds: Sequence[Fold], *, kind: str, seed: int) -> np.ndarray:
    """P(up) of every row by the teacher of its fold, float64 (n,)."""
    soft = np.full(len(table), np.nan)
    for fold in folds:
        fitted = fit_teacher(kind, table.features[fold.train], table.up[fold.train], seed=seed)
        soft[fold.test] = fitted.probability_up(table.features[fold.test])
    return soft


def fit_teacher(kind: str, features: np.ndarray, up: np.ndarray, *, seed: int) -> FittedTeacher:
    """Fit one teacher.

    Parameters
    ----------
    features
        float32 (n, k).
    up
        bool (n,).

    Raises
    ------
    TrainingDataTooSmall
        Too few rows of a class.
    UsageError
        LightGBM is asked for and not installed.
    """
    fewer = int(min(up.sum(), len(up) - up.sum()))
    if fewer < _MIN_ROWS_PER_CLASS:
        raise TrainingDataTooSmall(
            f"only {fewer} decisive rows of the rarer direction among {len(up)}, at least "
            f"{_MIN_ROWS_PER_CLASS} are needed in each fit; train on a longer window or on more symbols",
            rows=len(up),
            fewer=fewer,
        )
    if kind == "lightgbm":
        return _fit_lightgbm(features, up, seed)
    model = HistGradientBoostingClassifier(
        max_iter=_TREES,
        max_leaf_nodes=_LEAVES,
        learning_rate=_LEARNING_RATE,
        min_samples_leaf=smallest_leaf(len(up)),
        l2_regularization=_RIDGE,
        early_stopping=False,
        random_state=seed,
    ).fit(features, up)
    trees, base = onnx_export.trees_of_histogram_boosting(model)
    return FittedTeacher(lambda rows: np.asarray(model.predict_proba(rows)[:, 1]), trees, base)


def library_versions(kind: str = "") -> dict[str, str]:
    """Versions of what shapes a model's bytes; LightGBM's only for a teacher of that kind."""
    names = ["numpy", "scikit-learn", "onnx", "onnxruntime"]
    if kind == "lightgbm":
        _lightgbm()
        names.append(kind)
    versions = {name: library_version(name) for name in names}
    return versions | {"sqkit": __version__, "python": platform.python_version()}


def read_teacher(teacher_dir: Path) -> StoredTeacher:
    """A teacher's folder, with both digests verified.

    Raises
    ------
    UsageError
        There is no teacher.
    ArtifactChanged
        A file is missing or differs from its digest.
    """
    if not (teacher_dir / METADATA_FILE).is_file():
        raise UsageError(
            f"{teacher_dir}: no teacher here ({METADATA_FILE} is missing); train one with sqkit train-teacher",
            path=str(teacher_dir),
        )
    metadata = read_json(teacher_dir / METADATA_FILE)
    wanted = {"symbols", "teacher_digest", "soft_labels_digest", "data_digests", "training_window"}
    if not isinstance(metadata, dict) or not wanted <= set(metadata):
        raise _changed(teacher_dir / METADATA_FILE, "is not a teacher's metadata")
    model_path = teacher_dir / MODEL_FILE
    if not model_path.is_file() or sha256_file(model_path) != metadata["teacher_digest"]:
        raise _changed(model_path, "is missing or differs from its digest")
    soft_labels = _read_soft_labels(teacher_dir / SOFT_LABELS_FILE, metadata["symbols"])
    if sha256_columns(**soft_labels) != metadata["soft_labels_digest"]:
        raise _changed(teacher_dir / SOFT_LABELS_FILE, "differs from its digest")
    return StoredTeacher(metadata, soft_labels)


def _require_consistent(bars: Mapping[str, BarArrays], *, strategy: str, market: str, interval: str) -> None:
    if strategy not in ("intraday", "swing"):
        raise UsageError(f"strategy {strategy}: give intraday or swing", strategy=strategy)
    if strategy == "intraday" and interval == "1d":
        raise UsageError("strategy intraday needs bars within the session; give --interval 1m or 5m")
    for symbol, series in sorted(bars.items()):
        if (series.interval, series.market) != (interval, market):
            raise UsageError(
                f"{symbol}: bars are {series.interval} of {series.market}, asked for {interval} of {market}",
                symbol=symbol,
            )


def _sessions_in_window(cut: Mapping[str, BarArrays], first_day: int) -> dict[str, str]:
    days = np.concatenate([series.session_days for series in cut.values()])
    inside = days[days >= first_day]
    return {"start": iso_date(inside.min()), "end": iso_date(inside.max())}


def _lightgbm() -> Any:
    try:
        return importlib.import_module("lightgbm")
    except ImportError:
        raise UsageError(
            "teacher kind lightgbm: the package is not installed; pip install lightgbm -c constraints.txt, "
            "or leave the kind out"
        ) from None


def _fit_lightgbm(features: np.ndarray, up: np.ndarray, seed: int) -> FittedTeacher:
    lightgbm = _lightgbm()
    options = {
        "objective": "binary",
        "num_leaves": _LEAVES,
        "learning_rate": _LEARNING_RATE,
        "min_data_in_leaf": smallest_leaf(len(up)),
        "lambda_l2": _RIDGE,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
        "verbosity": -1,
    }
    data = lightgbm.Dataset(features, up.astype(np.float64), free_raw_data=True)
    booster = lightgbm.train(options, data, num_boost_round=_TREES)
    trees, base = onnx_export.trees_of_lightgbm(booster)
    return FittedTeacher(lambda rows: expit(booster.predict(rows, raw_score=True)), trees, base)


def _refuse_other_teacher(output_dir: Path, request: dict[str, Any]) -> None:
    """Before hours of training: a folder with anything but this very teacher in it is left alone."""
    if not output_dir.exists() or (output_dir.is_dir() and not any(output_dir.iterdir())):
        return
    if (output_dir / METADATA_FILE).is_file():
        stored = read_json(output_dir / METADATA_FILE)
        if isinstance(stored, dict) and all(stored.get(key) == value for key, value in request.items()):
            return
    raise _conflict(output_dir)


def _conflict(output_dir: Path) -> ConflictError:
    return ConflictError(
        f"{output_dir}: holds another teacher or other files; choose another folder or version tag",
        path=str(output_dir),
    )


def _publish_teacher(
    output_dir: Path, data: bytes, metadata: dict[str, Any], soft_labels: dict[str, np.ndarray]
) -> None:
    if (output_dir / METADATA_FILE).is_file():
        if read_json(output_dir / METADATA_FILE) != metadata:
            raise _conflict(output_dir)
        read_teacher(output_dir)  # the same teacher is here already: only prove that it is whole
        return
    with staging_folder(output_dir) as staging:
        folder = staging / output_dir.name
        write_bytes(folder / MODEL_FILE, data)
        write_json(folder / METADATA_FILE, metadata)
        _write_soft_labels(folder / SOFT_LABELS_FILE, metadata["symbols"], soft_labels)
        publish(folder, output_dir)


def _write_soft_labels(path: Path, symbols: list[str], columns: dict[str, np.ndarray]) -> None:
    names = pa.DictionaryArray.from_arrays(pa.array(columns["symbol_index"]), pa.array(symbols))
    arrays = {"symbol": names} | {name: pa.array(columns[name]) for name in _SOFT_LABEL_COLUMNS[1:]}
    with output_errors(path):
        pq.write_table(pa.table(arrays), path, compression="zstd")


def _read_soft_labels(path: Path, symbols: list[str]) -> dict[str, np.ndarray]:
    try:
        table = pq.read_table(path)
        number = {symbol: index for index, symbol in enumerate(symbols)}
        names = table.column("symbol").to_pylist()
        columns = {"symbol_index": np.array([number[name] for name in names], dtype=np.int32)}
        for name in _SOFT_LABEL_COLUMNS[1:]:
            columns[name] = table.column(name).to_numpy()
    except (OSError, pa.ArrowException, KeyError) as problem:
        raise _changed(path, f"cannot be read ({type(problem).__name__})") from None
    return columns


def _changed(path: Path, what: str) -> ArtifactChanged:
    return ArtifactChanged(f"{path}: {what}; train the teacher again", path=str(path))
