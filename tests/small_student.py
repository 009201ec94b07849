"""A small student file made by hand, for tests that need a model and no training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sqkit.features import student_set
from sqkit.research.onnx_export import dense_graph, model_bytes

FEATURES = student_set("swing")
COLUMNS = len(FEATURES.columns)


def small_metadata(**changes: Any) -> dict[str, Any]:
    """Metadata that is whole; `changes` replace keys, a value of ``...`` removes one."""
    metadata: dict[str, Any] = {
        "schema_version": 1,
        "model_version": "20250112_143000",
        "created_by": "test",
        "market": "us",
        "strategy": "swing",
        "interval": "1d",
        "feature_set": FEATURES.name,
        "feature_set_digest": FEATURES.digest,
        "feature_names": list(FEATURES.columns),
        "feature_ranges": [[-3.0, 3.0]] * COLUMNS,
        "horizon_bars": 5,
        "dead_zone": 0.5,
        "class_order": ["DOWN", "UP"],
        "teacher_digest": "0" * 64,
        "training_window": {"start": "2003-01-02", "end": "2009-12-31"},
        "last_label_end": "2009-12-31T21:00:00Z",
        "training_base_rate": 0.5,
        "out_of_fold": {"blocks": 5, "refitted_block": 0, "largest_difference": 0.0},
        "symbols": ["AAA"],
        "data_digest": "1" * 64,
        "seed": 7,
        "model_type": "logistic",
        "library_versions": {"numpy": "2"},
    } | changes
    return {key: value for key, value in metadata.items() if value is not ...}


def small_student(bias: float = 0.0, slope: float = 1.0, **changes: Any) -> bytes:
    """A file whose log-odds are ``slope x first feature + bias``."""
    weights = np.zeros((COLUMNS, 1))
    weights[0] = slope
    graph = dense_graph([(weights, np.array([bias]))], mean=np.zeros(COLUMNS), scale=np.ones(COLUMNS))
    return model_bytes(graph, small_metadata(**changes))


def write_student(folder: Path, **arguments: Any) -> Path:
    """`small_student` as a file."""
    path = folder / "student_model.onnx"
    path.write_bytes(small_student(**arguments))
    return path
