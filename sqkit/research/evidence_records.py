"""One piece of evidence in the one shape that checklist, report and verification read.

Every test of `sqkit.research.evidence` ends in `evidence_record`: what was estimated, how sure it
is, by which method, on how much data. Numbers that are not finite become None here, so that
nothing undefined can be compared with a threshold later.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

PASS: Final = "pass"  # noqa: S105 - a status, no password
FAIL: Final = "fail"
UNDEFINED: Final = "undefined"
INSUFFICIENT: Final = "insufficient"

CI_LEVEL: Final = 0.95
BETTER: Final = "student>baseline"


def evidence_record(
    name: str,
    *,
    kind: Literal["blocking", "advisory"],
    status: str,
    method: str,
    estimate: float | None = None,
    se: float | None = None,
    ci: Sequence[float | None] | None = None,
    p_value: float | None = None,
    alternative: str | None = None,
    params: Mapping[str, Any] | None = None,
    n: Mapping[str, int] | None = None,
    threshold: float | None = None,
    unit: str = "",
    note: str = "",
) -> dict[str, Any]:
    """A record of the evidence.

    Parameters
    ----------
    name
        Such as ``loss_differential.all_rows``; names beginning with ``no_harm`` can reject.
    kind
        Whether the recommendation may rest on it.
    status
        ``pass``, ``fail``, ``undefined`` (with the reason in `note`) or ``insufficient``.
    ci
        Two-sided 95 % interval of `estimate`, or None.
    params, n
        Whatever repeats the computation (block, reps, seed, cluster), and how much data there was.
    """
    bounds = None if ci is None else [finite(bound) for bound in ci]
    return {
        "name": name,
        "kind": kind,
        "status": status,
        "estimate": finite(estimate),
        "se": finite(se),
        "ci": None if bounds is None or None in bounds else bounds,
        "ci_level": CI_LEVEL,
        "p_value": finite(p_value),
        "alternative": alternative,
        "method": method,
        "params": dict(params or {}),
        "n": dict(n or {}),
        "threshold": threshold,
        "unit": unit,
        "note": note,
    }


def finite(value: float | None) -> float | None:
    """A plain finite float, or None."""
    return float(value) if value is not None and math.isfinite(value) else None
