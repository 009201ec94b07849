"""Is the student worse on any symbol? The checklist's "all symbols" box and its table.

The evidence of a validation asks this module. Day counts and losses a symbol go in, an advisory record
(`sqkit.research.evidence_records`) and one row a symbol come out. Among many symbols some look worse by
luck; only what is left after Holm's adjustment counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtr

from sqkit.errors import UsageError
from sqkit.research.evidence_records import FAIL, INSUFFICIENT, PASS, evidence_record, finite
from sqkit.research.paired_statistics import (
    PairedDifference,
    loss_differential,
    precision_difference,
    wilson_interval,
)

SIGNIFICANCE: Final = 0.05
"""Family-wise: the chance that a portfolio without a worse symbol shows one."""

FEWEST_DAYS: Final = 20
"""A symbol with fewer days with calls is not tested: day-clustered tests over-reject there."""

FEWEST_CALLS: Final = 30
"""Of either side; likewise rows with both losses."""

BETTER: Final = "better"
WEAK: Final = "weak"
WORSE: Final = "significantly worse"
NOT_TESTED: Final = "undefined"


def symbol_stability(
    day_counts: Mapping[str, ArrayLike],
    losses: Mapping[str, tuple[ArrayLike, ArrayLike, ArrayLike]] | None = None,
    *,
    pool_passes: bool,
    overlap: int = 1,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The checklist's "all symbols": none is significantly worse than the baseline, and the pool passes.

    Per symbol a day-clustered test that the student is worse in hit ratio and, where both sides give
    probabilities, in Brier score. Holm's (1979) step-down adjustment runs over all these tests at once,
    so that a portfolio without a worse symbol shows one in at most 5 % of cases, whatever their dependence.

    Parameters
    ----------
    day_counts
        Symbol to counts (g, 4) as `precision_difference` takes them, of all directional calls.
    losses
        Symbol to (loss of the baseline, loss of the student, day of each row) as `loss_differential`
        takes them; None, or a symbol left out, where a side gives no probabilities.
    pool_passes
        Whether the thresholds are reached over all symbols together.
    overlap
        Days a label reaches over.

    Returns
    -------
    record : dict
        ``stability.symbols``: the estimate is the share of tested symbols with a positive uplift, the
        p-value the smallest adjusted one for "worse"; params name the ``significantly_worse``, the
        ``weak`` (uplift not above zero) and the ``undefined`` symbols (too little data). Insufficient
        when fewer than half of the symbols could be tested.
    rows : list of dict
        One a symbol in order of name: counts, both hit ratios, uplifts, p-values for "worse" before and
        after the adjustment, verdict and note.

    Raises
    ------
    UsageError
        Losses of a symbol without counts, or arrays that the tests refuse.
    """
    stray = sorted(set(losses or {}) - set(day_counts))
    if stray:
        raise UsageError(f"losses of {stray[0]} without its day counts: give both", symbol=stray[0])
    rows = [
        _tested_symbol(symbol, day_counts[symbol], (losses or {}).get(symbol), overlap)
        for symbol in sorted(day_counts)
    ]
    smallest = _adjust(rows)
    for row in rows:
        row["verdict"] = _verdict(row)

    named = {
        verdict: [row["symbol"] for row in rows if row["verdict"] == verdict]
        for verdict in (BETTER, WEAK, WORSE, NOT_TESTED)
    }
    tested = len(rows) - len(named[NOT_TESTED])
    positive = sum(_is_positive(row) for row in rows if row["verdict"] != NOT_TESTED)
    if named[WORSE]:
        status, note = FAIL, f"significantly worse: {', '.join(named[WORSE])}"
    elif not pool_passes:
        status, note = FAIL, "the thresholds over all symbols are not reached"
    elif not rows or tested < len(rows) / 2:
        status, note = (
            INSUFFICIENT,
            f"{tested} of {len(rows)} symbols have enough calls and days to be tested",
        )
    else:
        status, note = PASS, f"no symbol of {tested} is significantly worse"
    record = evidence_record(
        "stability.symbols",
        kind="advisory",
        status=status,
        method="day-clustered tests a symbol (hit ratio, Brier score), Holm over all of them",
        estimate=positive / tested if tested else None,
        ci=wilson_interval(positive, tested),
        p_value=smallest,
        alternative="student<baseline",
        params={
            "significantly_worse": named[WORSE],
            "weak": named[WEAK],
            "undefined": named[NOT_TESTED],
            "share_positive": positive / tested if tested else None,
            "pool_passes": bool(pool_passes),
            "adjustment": "Holm",
            "overlap": overlap,
            "cluster": "day",
            "fewest_days": FEWEST_DAYS,
            "fewest_calls": FEWEST_CALLS,
        },
        n={"symbols": len(rows), "tested": tested},
        threshold=SIGNIFICANCE,
        unit="share of symbols",
        note=note,
    )
    return record, rows


def _tested_symbol(
    symbol: str, counts: ArrayLike, loss: tuple[ArrayLike, ArrayLike, ArrayLike] | None, overlap: int
) -> dict[str, Any]:
    """One row of the table, before the adjustment; a test that is not defined leaves its fields None."""
    hit = precision_difference(counts, overlap=overlap)
    calls = np.asarray(counts, dtype=np.float64).reshape(-1, 4)[:, [1, 3]].sum(axis=0)
    brier = None if loss is None else loss_differential(*loss, overlap=overlap)
    hit_problem = _too_little(hit, "calls", [float(side) for side in calls])
    brier_problem = "" if brier is None else _too_little(brier, "rows", [brier.rows])
    hit_found = None if hit_problem else hit
    brier_found = None if brier_problem else brier
    problems = [("hit ratio", hit_problem), ("Brier score", brier_problem)]
    return {
        "symbol": symbol,
        "days": hit.clusters,
        "calls_student": int(calls[0]) if np.isfinite(calls[0]) else None,
        "calls_baseline": int(calls[1]) if np.isfinite(calls[1]) else None,
        "hit_ratio_student": finite(hit.student),
        "hit_ratio_baseline": finite(hit.baseline),
        "hit_ratio_uplift": hit_found.difference if hit_found else None,
        "hit_ratio_p_worse": _p_worse(hit_found),
        "hit_ratio_p_worse_holm": None,
        "brier_uplift": brier_found.difference if brier_found else None,
        "brier_p_worse": _p_worse(brier_found),
        "brier_p_worse_holm": None,
        "note": "; ".join(f"{what}: {problem}" for what, problem in problems if problem),
    }


def _too_little(found: PairedDifference, what: str, sizes: Sequence[float]) -> str:
    if found.status != "ok":
        return found.reason
    if found.clusters < FEWEST_DAYS:
        return f"{found.clusters} days, fewer than {FEWEST_DAYS}"
    if min(sizes) < FEWEST_CALLS:
        return f"{min(sizes):.0f} {what}, fewer than {FEWEST_CALLS}"
    return ""


def _p_worse(found: PairedDifference | None) -> float | None:
    if found is None or found.df is None or found.t is None:
        return None
    return float(stdtr(found.df, found.t))


def _adjust(rows: Sequence[dict[str, Any]]) -> float | None:
    """Write Holm's adjusted p-values into the rows; the smallest of them, None without a test.

    Own lines, because statsmodels' function collects the garbage of the whole process at every call (a
    fifth of a second in a notebook's kernel); the tests compare with it.
    """
    tests = [
        (row[name], row, name)
        for row in rows
        for name in ("hit_ratio_p_worse", "brier_p_worse")
        if row[name] is not None
    ]
    largest = 0.0
    for left, (p, row, name) in zip(range(len(tests), 0, -1), sorted(tests, key=itemgetter(0)), strict=True):
        largest = max(largest, min(1.0, left * p))
        row[f"{name}_holm"] = largest
    return min(row[f"{name}_holm"] for _, row, name in tests) if tests else None


def _verdict(row: Mapping[str, Any]) -> str:
    adjusted = [
        row[name] for name in ("hit_ratio_p_worse_holm", "brier_p_worse_holm") if row[name] is not None
    ]
    if not adjusted:
        return NOT_TESTED
    if min(adjusted) <= SIGNIFICANCE:
        return WORSE
    return BETTER if _is_positive(row) else WEAK


def _is_positive(row: Mapping[str, Any]) -> bool:
    """The uplift in hit ratio, which the thresholds speak of; in Brier score where that is not defined."""
    uplift = row["hit_ratio_uplift"]
    return bool((row["brier_uplift"] if uplift is None else uplift) > 0.0)
