"""Records that earn a grade, for tests of the gate that need one without a validation."""

from __future__ import annotations

from typing import Any

from sqkit.evidence_grade import LOSS_ACTED_ON, LOSS_ALL_ROWS, PRECISION_ACTED_ON, PRECISION_ALL_ROWS

_P_VALUES = {"weak": 0.5, "moderate": 0.03, "strong": 0.001}


def graded_records(grade: str) -> list[dict[str, Any]]:
    """Records of a comparison with an incumbent that earn this grade where the thresholds pass."""
    if grade == "none":
        return []
    shared = {"kind": "blocking", "status": "pass", "estimate": 0.03, "ci": [0.01, 0.05]}
    return [
        {**shared, "name": name, "p_value": _P_VALUES[grade]}
        for name in (LOSS_ALL_ROWS, LOSS_ACTED_ON, PRECISION_ALL_ROWS, PRECISION_ACTED_ON)
    ]
