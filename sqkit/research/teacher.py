"""The teacher: a model on the wide feature set, and soft labels it never saw the answers to.

The command ``train-teacher`` and the notebook `02_train` call `train_teacher`. In: bars, a
window, a seed. Out: a folder with ``teacher_model.onnx``, ``metadata.json`` and
``soft_labels.parquet``, published in one rename. Each soft label comes from a teacher fitted
on the other blocks only; the stored teacher is refitted on all.
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
from scipy.special import expit
from sklearn.ensemble import HistGradientBoostingClassifier

from sqkit import __version__
from sqkit.bars import BarArrays
from sqkit.errors import TrainingDataTooSmall, UsageError
from sqkit.features import student_set, teacher_set
from sqkit.files import sha256_bytes, sha256_columns, sha256_json, staging_folder
from sqkit.model_file import CLASS_ORDER
from sqkit.records import iso_date, iso_instant
from sqkit.research import onnx_export
from sqkit.research.folds import BLOCKS, Fold, block_folds, session_blocks
from sqkit.research.labels import TrainingTable, cut_bars, training_table
from sqkit.research.learners import smallest_leaf, steady_threads
from sqkit.research.progress import progress_over
from sqkit.research.teacher_folder import METADATA_FILE, publish_teacher, refuse_other_teacher

__all__ = [
    "METADATA_FILE",
    "TEACHER_KINDS",
    "FittedTeacher",
    "fit_teacher",
    "label_out_of_fold",
    "library_versions",
    "out_of_fold",
    "train_teacher",
]

TEACHER_KINDS: Final = ("hist_gradient_boosting", "lightgbm")

_TREES: Final = 150
_LEAVES: Final = 31
_LEARNING_RATE: Final = 0.05
_RIDGE: Final = 1.0
_MIN_ROWS_PER_CLASS: Final = 50


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
    refuse_other_teacher(output_dir, request)
    with staging_folder(output_dir) as staging:  # first, so that a bad place is refused before training
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
            data, largest = _fit_and_export(table, kind, seed)
        metadata = request | {
            "last_label_end": iso_instant(int(table.label_end_ns.max())),
            "largest_session_date": iso_date(table.last_day_seen),
            "rows": table.counts,
            "block_rows": np.bincount(soft_labels["block"], minlength=BLOCKS).tolist(),
            "largest_export_difference": largest,
            "teacher_digest": sha256_bytes(data),
            "soft_labels_digest": sha256_columns(**soft_labels),
        }
        publish_teacher(staging, output_dir, data, metadata, soft_labels)
    return metadata


def label_out_of_fold(table: TrainingTable, *, kind: str, seed: int) -> dict[str, np.ndarray]:
    """Soft labels of every row, each by a teacher that saw neither the row nor its neighbours in time.

    Two columns: over five blocks for the student, and once more within the rows that may be known
    before the last block, so that distillation can be judged on the last block without having
    seen it.

    Returns
    -------
    dict
        Columns as in `sqkit.research.teacher_folder.StoredTeacher`.
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
    for fold in progress_over(folds, "teacher, out of fold"):
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


def _fit_and_export(table: TrainingTable, kind: str, seed: int) -> tuple[bytes, float]:
    fitted = fit_teacher(kind, table.features, table.up, seed=seed)
    graph = onnx_export.tree_graph(
        fitted.trees, fitted.base, features=len(table.feature_names), link="sigmoid"
    )
    data = onnx_export.model_bytes(graph)
    return data, onnx_export.check_export(data, fitted.probability_up, table.features, seed=seed)


def library_versions(kind: str = "") -> dict[str, str]:
    """Versions of what shapes a model's bytes; LightGBM's only for a teacher of that kind."""
    names = ["numpy", "scikit-learn", "onnx", "onnxruntime"]
    if kind == "lightgbm":
        _lightgbm()
        names.append(kind)
    versions = {name: library_version(name) for name in names}
    return versions | {"sqkit": __version__, "python": platform.python_version()}


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
