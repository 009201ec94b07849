"""The student: distilled from a teacher's soft labels, exported, proved, written with its metadata.

The command ``train-student`` and the notebook `02_train` call `train_student`. In: a teacher's
folder, the bars it was trained on, a kind of student. Out: ``student_model.onnx`` and the
figures of the training report. Whether distillation helped is measured, not assumed: student,
the same student on hard labels and teacher stand side by side on the last block, all three
fitted on the four blocks before it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from sklearn.metrics import roc_auc_score

from sqkit.bars import BarArrays
from sqkit.errors import ArtifactChanged, ConflictError, FeatureSetMismatch, UsageError
from sqkit.features import FeatureSet, student_set
from sqkit.files import sha256_bytes, write_bytes
from sqkit.model_file import CLASS_ORDER, MODEL_TYPES, SCHEMA_VERSION, STUDENT_FILE
from sqkit.records import iso_date, iso_instant, session_day
from sqkit.research import onnx_export
from sqkit.research.folds import BLOCKS
from sqkit.research.labels import TrainingTable, cut_bars, training_table
from sqkit.research.learners import fit_hard_labels, fit_student, steady_threads
from sqkit.research.out_of_fold import verify_out_of_fold
from sqkit.research.teacher import library_versions
from sqkit.research.teacher_folder import StoredTeacher, read_teacher
from sqkit.student import StudentModel

DEFAULT_MODEL_TYPE: Final = "gradient_boosting"


def train_student(
    teacher_dir: Path,
    bars: Mapping[str, BarArrays],
    *,
    output_dir: Path,
    version: str,
    seed: int,
    created_by: str = "",
    model_type: str = DEFAULT_MODEL_TYPE,
) -> dict[str, Any]:
    """Train a student on a teacher's soft labels and write ``student_model.onnx``.

    Symbols, window, horizon and dead zone come from the teacher's metadata.

    Parameters
    ----------
    bars
        The bars the teacher was trained on; later bars are never looked at.
    model_type
        One of ``logistic``, ``mlp``, ``gradient_boosting``, ``random_forest``.

    Returns
    -------
    dict
        What the training report shows: ``digest``, ``rows``, ``class_balance``,
        ``distillation`` (hit rate, Brier score and AUC of student, hard-label student and
        teacher), ``feature_ranges``, ``export``, ``largest_session_date``, ``metadata``.

    Raises
    ------
    UsageError
        An unknown kind, no teacher in the folder, or a symbol's bars are not given.
    ArtifactChanged
        The teacher's folder or the bars changed since the teacher was trained.
    FeatureSetMismatch
        The student's feature set changed since the teacher was trained.
    LabelsInFold
        The soft labels are not those of teachers that had not seen the rows.
    ExportMismatch
        The file does not score like the trained student.
    ConflictError
        Another student is in the folder.
    """
    if model_type not in MODEL_TYPES:
        raise UsageError(f"model type {model_type}: give one of {', '.join(MODEL_TYPES)}")
    teacher = read_teacher(teacher_dir)
    feature_set = _require_same_features(teacher, teacher_dir)
    table = _student_table(teacher, bars, feature_set)
    soft = teacher.soft_labels["soft_label"]

    with steady_threads(len(table)):
        proof = verify_out_of_fold(teacher, bars)
        metadata = _metadata(teacher, table, feature_set, model_type, version, seed, created_by)
        metadata["out_of_fold"] = proof
        fitted = fit_student(model_type, table.features, soft, seed=seed)
        data = onnx_export.model_bytes(fitted.graph, metadata)
        largest = onnx_export.check_export(data, fitted.probability_up, table.features, seed=seed)
        distillation = compare_distillation(model_type, table, teacher.soft_labels, seed=seed)
    path = output_dir / STUDENT_FILE
    StudentModel(data, path)  # what is written will load
    _write_once(path, data)
    return {
        "model_type": model_type,
        "model_version": version,
        "digest": sha256_bytes(data),
        "teacher_digest": metadata["teacher_digest"],
        "rows": table.counts,
        "class_balance": {"up": float(table.up.mean()), "down": float(1.0 - table.up.mean())},
        "distillation": distillation,
        "feature_ranges": {
            name: list(ends)
            for name, ends in zip(table.feature_names, metadata["feature_ranges"], strict=True)
        },
        "export": {"rows": onnx_export.CHECK_ROWS, "largest_difference": largest},
        "largest_session_date": iso_date(table.last_day_seen),
        "metadata": metadata,
    }


def compare_distillation(
    model_type: str, table: TrainingTable, soft_labels: Mapping[str, np.ndarray], *, seed: int
) -> list[dict[str, Any]]:
    """Student, the same student on hard labels, and teacher, on the last block's decisive rows.

    All three were fitted on rows of the first four blocks that do not touch the last one; the
    student's soft labels there come from teachers that did not see the last block either.

    Returns
    -------
    list of dict
        ``model``, ``hit_rate``, ``brier``, ``auc`` (None when one direction is absent),
        ``rows``, ``training_rows``.
    """
    comparison = soft_labels["comparison_soft_label"]
    train = np.flatnonzero(np.isfinite(comparison))
    test = np.flatnonzero(soft_labels["block"] == BLOCKS - 1)
    rows, up = table.features[test], table.up[test]
    soft = fit_student(model_type, table.features[train], comparison[train], seed=seed)
    hard = fit_hard_labels(model_type, table.features[train], table.up[train], seed=seed)
    answers = {
        "student": soft.probability_up(rows),
        "student_hard_labels": hard(rows),
        "teacher": soft_labels["soft_label"][test],
    }
    return [
        {
            "model": name,
            "hit_rate": float(((answer >= 0.5) == up).mean()),
            "brier": float(np.mean((answer - up) ** 2)),
            "auc": float(roc_auc_score(up, answer)) if 0 < up.sum() < len(up) else None,
            "rows": len(test),
            "training_rows": len(train),
        }
        for name, answer in answers.items()
    ]


def _require_same_features(teacher: StoredTeacher, teacher_dir: Path) -> FeatureSet:
    feature_set = student_set(teacher.metadata["strategy"])
    if feature_set.digest != teacher.metadata["student_feature_set_digest"]:
        raise FeatureSetMismatch(
            f"{teacher_dir}: {feature_set.name} has changed since this teacher was trained; "
            "train the teacher again",
            path=str(teacher_dir),
        )
    return feature_set


def _student_table(
    teacher: StoredTeacher, bars: Mapping[str, BarArrays], feature_set: FeatureSet
) -> TrainingTable:
    """The rows that have a soft label, with the student's columns, in the soft labels' order."""
    metadata, labels = teacher.metadata, teacher.soft_labels
    missing = sorted(set(metadata["symbols"]) - set(bars))
    if missing:
        raise UsageError(f"the teacher was trained on {', '.join(missing)} too; give their bars")
    first_day, last_day = (
        session_day(dt.date.fromisoformat(metadata["training_window"][end])) for end in ("start", "end")
    )
    cut = cut_bars({symbol: bars[symbol] for symbol in metadata["symbols"]}, first_day, last_day)
    for symbol, series in cut.items():
        if series.digest() != metadata["data_digests"][symbol]:
            raise _bars_changed(symbol)
    whole = training_table(
        cut,
        feature_set,
        first_day=first_day,
        last_day=last_day,
        horizon_bars=metadata["horizon_bars"],
        dead_zone=metadata["dead_zone"],
        within_session=metadata["strategy"] == "intraday",
    )
    labelled = np.zeros(len(whole), dtype=bool)
    for index in range(len(whole.symbols)):
        own = whole.symbol_index == index
        times = labels["bar_time"][labels["symbol_index"] == index]
        labelled[own] = np.isin(whole.bar_time_ns[own], times)
    table = whole.rows(np.flatnonzero(labelled))
    for mine, theirs in (
        (table.symbol_index, labels["symbol_index"]),
        (table.bar_time_ns, labels["bar_time"]),
        (table.outcome, labels["outcome"]),
    ):
        if not np.array_equal(mine, theirs):
            raise _bars_changed("soft labels")
    return table


def _bars_changed(what: str) -> ArtifactChanged:
    return ArtifactChanged(
        f"{what}: these are not the bars the teacher was trained on; train the teacher again", what=what
    )


def _metadata(
    teacher: StoredTeacher,
    table: TrainingTable,
    feature_set: FeatureSet,
    model_type: str,
    version: str,
    seed: int,
    created_by: str,
) -> dict[str, Any]:
    inherited = (
        "market",
        "strategy",
        "interval",
        "horizon_bars",
        "dead_zone",
        "teacher_digest",
        "training_window",
        "symbols",
        "data_digest",
    )
    lowest, highest = table.features.min(axis=0), table.features.max(axis=0)
    return {key: teacher.metadata[key] for key in inherited} | {
        "schema_version": SCHEMA_VERSION,
        "model_version": version,
        "created_by": created_by,
        "feature_set": feature_set.name,
        "feature_set_digest": feature_set.digest,
        "feature_names": list(feature_set.columns),
        "feature_ranges": [[float(low), float(high)] for low, high in zip(lowest, highest, strict=True)],
        "class_order": list(CLASS_ORDER),
        "last_label_end": iso_instant(int(table.label_end_ns.max())),
        "training_base_rate": float(table.up.mean()),
        "seed": seed,
        "model_type": model_type,
        "library_versions": library_versions(),
    }


def _write_once(path: Path, data: bytes) -> None:
    if path.is_file():
        if path.read_bytes() == data:
            return
        raise ConflictError(
            f"{path}: another student is here already; choose another folder or version tag", path=str(path)
        )
    write_bytes(path, data)
