"""Bars, features, labels and trained models as rows and sentences for notebooks 01 and 02."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from sqkit.bars import BarArrays
from sqkit.features import FeatureSet
from sqkit.metrics import Outcomes
from sqkit.records import DOWN, INSIDE, UNKNOWN, UP, iso_date
from sqkit.research.barchecks import CheckReport
from sqkit.research.views import Row


def bars_line(bars: BarArrays) -> str:
    """How many bars there are, of what, from when to when."""
    days = bars.session_days
    return (
        f"**{bars.symbol}**: {len(bars):,} bars of {bars.interval}, {len(np.unique(days)):,} sessions "
        f"from {iso_date(days[0])} to {iso_date(days[-1])}."
    )


def finding_rows(check: CheckReport) -> list[Row]:
    """Every finding of the checks; one row saying so where there is none."""
    rows: list[Row] = [
        {"finding": found.kind, "severity": found.severity, "count": found.count, "first": found.first}
        for found in check.problems
    ]
    rows += [
        {"finding": reason, "severity": "dropped", "count": count, "first": None}
        for reason, count in check.dropped.items()
    ]
    return rows or [{"finding": "nothing", "severity": None, "count": 0, "first": None}]


def feature_rows(features: FeatureSet, matrix: np.ndarray) -> list[Row]:
    """Centre, spread and extremes of every feature after the warm-up, over its finite values."""
    warm = matrix[features.warmup_bars - 1 :]
    figures: dict[str, Callable[..., Any]] = {
        "mean": np.mean,
        "std": np.std,
        "smallest": np.min,
        "largest": np.max,
    }
    rows: list[Row] = []
    for name, column in zip(features.columns, warm.T, strict=True):
        finite = column[np.isfinite(column)]
        rows.append(
            {"feature": name}
            | {title: float(figure(finite)) if len(finite) else None for title, figure in figures.items()}
        )
    return rows


def label_rows(labels: Outcomes) -> list[Row]:
    """How many bars moved up, down, stayed inside the dead zone, or have no outcome."""
    names = {"up": UP, "down": DOWN, "inside the dead zone": INSIDE, "no outcome": UNKNOWN}
    total = len(labels.outcome)
    counts = {name: int(np.sum(labels.outcome == code)) for name, code in names.items()}
    return [
        {"label": name, "bars": count, "share": f"{count / max(total, 1):.1%}"}
        for name, count in counts.items()
    ]


def teacher_rows(teacher: dict[str, Any]) -> list[Row]:
    """What a teacher was trained on."""
    window = teacher["training_window"]
    facts = {
        "Version": teacher["model_version"],
        "Strategy": f"{teacher['strategy']}, {teacher['interval']} bars, market {teacher['market']}",
        "Symbols": ", ".join(teacher["symbols"]),
        "Training window": f"{window['start']} to {window['end']} (session dates)",
        "Last label ends": teacher["last_label_end"],
        "Horizon": f"{teacher['horizon_bars']} bars, dead zone {teacher['dead_zone']:g} volatilities",
        "Features": f"{len(teacher['feature_names'])} ({teacher['feature_set']})",
        "Seed": str(teacher["seed"]),
        "Teacher SHA-256": teacher["teacher_digest"],
    }
    return [{"": name, "value": value} for name, value in facts.items()]


def summary(teacher: dict[str, Any]) -> dict[str, Any]:
    """What the index of reports says about a run that is trained and not validated yet."""
    window = teacher["training_window"]
    return {
        "strategy": teacher["strategy"],
        "symbols": teacher["symbols"],
        "window": f"trained {window['start']} to {window['end']}",
    }


def student_rows(summary: dict[str, Any]) -> list[Row]:
    """What the student is."""
    about = summary["metadata"]
    facts = {
        "Version": summary["model_version"],
        "Kind": summary["model_type"],
        "Features": f"{len(about['feature_names'])} ({about['feature_set']})",
        "Trained by": about["created_by"],
        "Student SHA-256": summary["digest"],
        "Libraries": ", ".join(f"{name} {number}" for name, number in about["library_versions"].items()),
    }
    return [{"": name, "value": value} for name, value in facts.items()]


def distillation_line(summary: dict[str, Any]) -> str:
    """Whether the soft labels earned their place: a better Brier score and no worse hit rate, or unproven."""
    student, hard, teacher = summary["distillation"]
    if student["brier"] is None or hard["brier"] is None:
        return "**Distillation is unproven**: the last block has too few decisive rows to compare."
    better = student["brier"] < hard["brier"] and student["hit_rate"] >= hard["hit_rate"]
    word = "Distillation helped" if better else "Distillation is unproven"
    return (
        f"**{word}**: on {student['rows']:,} decisive rows of the last block the student has a Brier score of "
        f"{student['brier']:.4f} and a hit rate of {student['hit_rate']:.1%}, the same student on hard labels "
        f"{hard['brier']:.4f} and {hard['hit_rate']:.1%}, the teacher {teacher['brier']:.4f} and "
        f"{teacher['hit_rate']:.1%}."
    )


def distillation_series(summary: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """Hit rate, AUC and Brier score by model, for the figure."""
    return {
        row["model"].replace("_", " "): {name: row[name] for name in ("hit_rate", "auc", "brier")}
        for row in summary["distillation"]
    }


def count_rows(counts: dict[str, Any]) -> list[Row]:
    """Rows kept and left out, by reason."""
    return [{"rows": name.replace("_", " "), "count": count} for name, count in counts.items()]


def balance_rows(summary: dict[str, Any]) -> list[Row]:
    """Shares of the two directions among the training rows."""
    return [{"direction": name, "share": f"{share:.1%}"} for name, share in summary["class_balance"].items()]


def range_rows(summary: dict[str, Any]) -> list[Row]:
    """Smallest and largest value of every feature in training."""
    return [
        {"feature": name, "smallest": low, "largest": high}
        for name, (low, high) in summary["feature_ranges"].items()
    ]


def export_line(summary: dict[str, Any]) -> str:
    """How far the ONNX file is from the trained model."""
    export = summary["export"]
    return (
        f"On {export['rows']:,} rows the file and the trained model differ by at most "
        f"{export['largest_difference']:.1e}; rows scored alone equal the batch bit for bit."
    )
