"""Time and memory of the evidence: ``.venv/bin/python benchmarks/evidence.py [--json] [--symbols N]``.

Judges a made-up validation of 63 days x 100 symbols x 375 bars on one core: every record of a
checklist, from arrays to the plain line. Prints seconds and the process's peak memory; the bounds
are 15 s and 1 GB.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import json
import resource
import time
from typing import Any

import numpy as np

from sqkit.records import DOWN, FLAT, INSIDE, LONG, SHORT, UP
from sqkit.research.evidence import PairedReturns, PairedRows, Trials, gather_evidence

BOUND_SECONDS, BOUND_GIGABYTES = 15.0, 1.0


def made_up_rows(days: int, symbols: int, bars: int, seed: int) -> PairedRows:
    """Calibrated student and baseline whose rows share the day's move."""
    generator = np.random.default_rng(seed)
    per_symbol, rows = days * bars, days * symbols * bars
    day = np.tile(np.repeat(np.arange(days, dtype=np.int32), bars), symbols)
    move = 0.3 * generator.standard_normal(days)[day] + generator.standard_normal(rows)
    outcomes = np.where(move > 0.5, UP, np.where(move < -0.5, DOWN, INSIDE)).astype(np.int8)
    probabilities = []
    for knowledge in (0.20, 0.15):
        signal = knowledge * move + np.sqrt(1.0 - knowledge**2) * generator.standard_normal(rows)
        probabilities.append(1.0 / (1.0 + np.exp(-3.0 * knowledge * signal)))
    calls = [np.where(p >= 0.6, LONG, np.where(p <= 0.4, SHORT, FLAT)).astype(np.int8) for p in probabilities]
    return PairedRows(
        session_days=day + 20_000,
        symbols=np.repeat(np.arange(symbols, dtype=np.int32), per_symbol),
        symbol_names=tuple(f"S{number:03d}" for number in range(symbols)),
        acted_on=generator.random(rows) < 0.5,
        outcomes=outcomes,
        calls_student=calls[0],
        calls_baseline=calls[1],
        probability_student=probabilities[0],
        probability_baseline=probabilities[1],
    )


def made_up_returns(days: int, seed: int) -> PairedReturns:
    """Highly correlated daily returns of two accounts."""
    generator = np.random.default_rng(seed)
    common = 0.004 * generator.standard_normal(days)
    return PairedReturns(
        session_days=np.arange(days) + 20_000,
        student=common + 0.001 * generator.standard_normal(days) + 0.0005,
        baseline=common,
        student_costs=np.full(days, 0.0003),
        baseline_costs=np.full(days, 0.0003),
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--days", type=int, default=63)
    parser.add_argument("--symbols", type=int, default=100)
    parser.add_argument("--bars", type=int, default=375)
    arguments = parser.parse_args()
    rows = made_up_rows(arguments.days, arguments.symbols, arguments.bars, seed=0)
    returns = made_up_returns(arguments.days, seed=1)
    started = time.perf_counter()
    found = gather_evidence(
        rows,
        returns,
        base_rate=None,
        overlap=1,
        trials=Trials("candidate", 1, {}),
        thresholds_passed=True,
        sharpe_uplift=0.05,
    )
    seconds = time.perf_counter() - started
    result: dict[str, Any] = {
        "rows": len(rows),
        "records": len(found.records),
        "grade": found.grade,
        "seconds": round(seconds, 2),
        "peak_gigabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3),
        "bounds": {"seconds": BOUND_SECONDS, "gigabytes": BOUND_GIGABYTES},
    }
    if arguments.json:
        print(json.dumps(result, sort_keys=True))
        return
    print(found.summary)
    print(
        f"{result['rows']:,} rows: {result['seconds']} s of {BOUND_SECONDS:g}, "
        f"{result['peak_gigabytes']} GB of {BOUND_GIGABYTES:g}"
    )


if __name__ == "__main__":
    main()
