"""What the detectors of a live model catch and cost: ``.venv/bin/python benchmarks/monitor.py [--json] [--short]``.

False alarms without a change, delays after one, with the baseline known or estimated from so many outcomes; the same
with symbols that move together and labels that overlap; what a confirmation decides where both models broke and where
only the live one did; how many outcomes a verification takes. Simulated with fixed seeds, many runs at once, by a
recursion that `tests/test_detectors.py` holds against the production classes. Then updates a second of the classes
themselves, and the memory that five million of them add.

Targets: from .60 to .50 at most 260 outcomes with a baseline of 5,000 or more; a regime break is rolled back in at most
5 % of runs, a live model alone that broke in all; 100,000 updates a second; no growth. One core, about one minute;
``--short`` leaves out what is timed and runs little.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[variable] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the tests' simulations

import numpy as np

from sqkit.production.detectors import (
    BernoulliCusum,
    MixtureEvidence,
    MixtureShiryaevRoberts,
    RiskAdjustedCusum,
    Sprt,
)
from tests import arl

GOOD = 0.4
"""Miss rate of a model whose hit ratio is .60."""

SYMBOLS = 20
UPDATES = 5_000_000

DETECTORS: dict[str, tuple[Callable[[int], Any], float]] = {
    "mixture_1e4": (lambda runs: arl.MixtureRuns(GOOD, runs), 1e4),
    "mixture_1e5": (lambda runs: arl.MixtureRuns(GOOD, runs), 1e5),
    "cusum_5.159": (lambda runs: arl.CusumRuns(GOOD, 0.5, runs), 5.159),
    "cusum_7.436": (lambda runs: arl.CusumRuns(GOOD, 0.5, runs), 7.436),
}


def rng(seed: int) -> np.random.Generator:
    """Its own stream of numbers for every figure."""
    return np.random.default_rng([21, seed])


def detectors(runs: int) -> dict[str, Any]:
    """False alarms without a change, and delays after a loss of 5 and of 10 points, baseline known."""
    table = {}
    for name, (build, threshold) in DETECTORS.items():
        fair = arl.independent(rng(1), GOOD, runs)
        first = arl.first_alarms(build(runs), fair, threshold, 3000)
        again = arl.alarms_per_bar(build(runs), arl.independent(rng(2), GOOD, runs), threshold, 10_000)
        row: dict[str, Any] = {
            "false_alarms_per_10000": round(again * 1e4, 3),
            "share_false_in_3000": round(float(np.mean(first <= 3000)), 4),
        }
        if name.startswith("mixture"):
            row["share_false_in_3000_target"] = 3000 / threshold
        for bad in (0.45, 0.5):
            row[f"hit_ratio_to_{1 - bad:.2f}"] = delay(build(runs), threshold, bad, runs)
        table[name] = row
    return table


def delay(detector: Any, threshold: float, bad: float, runs: int) -> dict[str, Any]:
    """Outcomes from change to alarm, of the runs without an alarm before it."""
    found = arl.detection_delays(
        rng(3), detector, threshold, runs=runs, good=GOOD, bad=bad, before=2000, allowed=4000
    )
    caught = found[np.isfinite(found)]
    return {
        "alarmed_before": round(1.0 - len(found) / runs, 4),
        "mean": round(float(np.mean(caught)), 1),
        "median": round(float(np.median(caught)), 1),
        "missed_in_4000": round(1.0 - len(caught) / len(found), 4),
    }


def detection_delay(runs: int) -> dict[str, Any]:
    """From .60 to .50 at A = 1e4, with the baseline taken from so many validated outcomes."""
    table = {}
    for outcomes in (500, 1000, 5000, None):
        rates = arl.validated_rates(rng(4), GOOD, outcomes, runs)
        row = delay(arl.MixtureRuns(rates, runs), 1e4, 0.5, runs)
        target = {500: 374, 1000: 312}.get(outcomes or 0)
        row |= {"prototype": target} if target else {"target": 260}
        table[f"n_val_{outcomes or 'none'}"] = row
    return table


def correlated(runs: int, bars: int) -> dict[str, Any]:
    """False alarms per 10,000 outcomes of twenty symbols that move together; one is promised."""
    table = {}
    for correlation in (0.0, 0.1, 0.3):
        counts = list(_take(arl.correlated(rng(5), GOOD, runs, SYMBOLS, correlation), bars))
        one_by_one = _outcomes(counts, runs)
        by_outcome = arl.alarms_per_bar(
            arl.CusumRuns(GOOD, 0.5, runs), one_by_one, DETECTORS["cusum_5.159"][1], bars * SYMBOLS
        )
        means = (count / SYMBOLS for count in counts)
        by_bar = arl.alarms_per_bar(arl.MixtureRuns(GOOD, runs), means, 1e4 / SYMBOLS, bars) / SYMBOLS
        table[f"correlation_{correlation}"] = {
            "cusum_over_outcomes": round(by_outcome * 1e4, 2),
            "mixture_over_bars": round(by_bar * 1e4, 3),
            "target": 1.0,
        }
    return table


def overlapping(runs: int, bars: int) -> dict[str, Any]:
    """False alarms per 10,000 bars of persistent calls on overlapping labels; one is promised."""
    table = {}
    for horizon, persistence in ((5, 0.9), (10, 0.95), (20, 0.95)):
        row: dict[str, float] = {"target": 1.0}
        for name, streams in (("one_stream", 1), ("streams", horizon)):
            misses = arl.overlapping(rng(6), runs, bars, horizon, persistence)
            detector = arl.MixtureRuns(0.5, runs, streams=streams)
            found = arl.alarms_per_bar(detector, misses, 1e4, bars, streams=streams)
            row[name] = round(found * 1e4, 3)
        detector = arl.MixtureRuns(0.5, runs, streams=horizon)
        misses = arl.overlapping(rng(7), runs, 3000, horizon, persistence)
        first = arl.first_alarms(detector, misses, 1e4, 3000, streams=horizon)
        row["share_false_in_3000"] = round(float(np.mean(first <= 3000)), 4)
        row["share_false_in_3000_target"] = 0.3
        table[f"labels_of_{horizon}_persistence_{persistence}"] = row
    return table


def confirmation(runs: int) -> dict[str, Any]:
    """What follows an alert; baseline from 5,000 outcomes, alpha .05."""
    cases = {
        "regime_break": (0.5, 0.5, 0.05),
        "only_live_broken": (0.5, 0.4, 1.0),
        "only_live_broken_5_points": (0.45, 0.4, None),
        "nothing_broken": (0.4, 0.4, 0.05),
    }
    table = {}
    for name, (live, archived, target) in cases.items():
        rates = arl.validated_rates(rng(8), GOOD, 5000, runs)
        found = arl.verdicts(rng(9), live=live, archived=archived, runs=runs, outcomes=5000, baseline=rates)
        table[name] = {**found, "share_rolled_back": round(found["roll_back"] / runs, 4), "target": target}
    return table


def verification(runs: int) -> dict[str, Any]:
    """Outcomes that Wald's test takes, beside his formula, and its errors."""
    random, table = rng(10), {}
    for good, bad, formula in ((0.4, 0.5, (132, 130)), (0.4, 0.45, (520, 515)), (0.45, 0.5, (529, 527))):
        row: dict[str, Any] = {"error_target": 0.05}
        for true, right, wald in ((good, "good", formula[0]), (bad, "bad", formula[1])):
            said, lengths = zip(*(_verify(random, good, bad, true) for _ in range(runs)), strict=True)
            row[f"if_{right}"] = {
                "error": round(1.0 - said.count(right) / runs, 4),
                "mean": round(float(np.mean(lengths)), 1),
                "wald": wald,
            }
        table[f"{1 - good:.2f}_or_{1 - bad:.2f}"] = row
    return table


def _verify(random: np.random.Generator, good: float, bad: float, true: float) -> tuple[str, int]:
    test, taken = Sprt(good, bad), 0
    while True:
        for miss in (random.random(512) < true).tolist():
            taken += 1
            verdict = test.update(miss)
            if verdict is not None:
                return verdict, taken


def _outcomes(counts: list[np.ndarray], runs: int) -> Iterator[np.ndarray]:
    """The outcomes of each bar one by one, in any order."""
    random, places = rng(11), np.tile(np.arange(SYMBOLS), (runs, 1))
    for count in counts:
        for place in random.permuted(places, axis=1).T:
            yield (place < count).astype(float)


def _take(misses: Iterator[np.ndarray], bars: int) -> Iterator[np.ndarray]:
    return (next(misses) for _ in range(bars))


CLASSES: dict[str, Callable[[], Callable[[int, float], Any]]] = {
    "mixture": lambda: _unstreamed(MixtureShiryaevRoberts(GOOD)),
    "mixture_10_streams": lambda: _streamed(MixtureShiryaevRoberts(GOOD, 10)),
    "evidence": lambda: _unstreamed(MixtureEvidence.of_misses(GOOD)),
    "evidence_of_pairs": lambda: _unstreamed(MixtureEvidence.of_pairs()),
    "sprt": lambda: _unstreamed(Sprt(GOOD, 0.5)),
    "cusum": lambda: _unstreamed(BernoulliCusum(GOOD, 0.5)),
    "risk_adjusted_cusum": lambda: _adjusted(RiskAdjustedCusum()),
}


def _unstreamed(detector: Any) -> Callable[[int, float], Any]:
    update = detector.update
    return lambda _, miss: update(miss)


def _streamed(detector: Any) -> Callable[[int, float], Any]:
    update = detector.update
    return lambda bar, miss: update(miss, weight=0.1, stream=bar % 10)


def _adjusted(detector: Any) -> Callable[[int, float], Any]:
    update = detector.update
    return lambda _, miss: update(miss, GOOD)


def updates_per_second(count: int = 200_000) -> dict[str, Any]:
    """Of each class, in plain Python; the best of three."""
    misses = (rng(12).random(count) < GOOD).astype(float).tolist()
    table: dict[str, Any] = {"target": 100_000}
    for name, build in CLASSES.items():
        seconds = math.inf
        for _ in range(3):
            update, began = build(), time.perf_counter()
            for bar, miss in enumerate(misses):
                update(bar, miss)
            seconds = min(seconds, time.perf_counter() - began)
        table[name] = round(count / seconds)
    return table


def memory_growth_mb(updates: int = UPDATES) -> dict[str, Any]:
    """Resident memory that so many updates of one detector add, after a warm-up."""
    misses = (rng(13).random(100_000) < GOOD).astype(float).tolist()
    update = CLASSES["mixture_10_streams"]()

    def run(count: int) -> None:
        for bar in range(count):
            update(bar, misses[bar % len(misses)])

    run(200_000)
    gc.collect()
    before = _resident_mb()
    run(updates)
    gc.collect()
    return {"grown": round(_resident_mb() - before, 2), "target": 1.0, "updates": updates}


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(*, short: bool = False) -> dict[str, Any]:
    """Everything, in one run; `short` leaves out what is timed and runs little."""
    runs = 40 if short else 2000
    bars = 200 if short else 5000
    result = {
        "confirmation": confirmation(runs),
        "correlated_symbols": correlated(runs // 4, bars),
        "detection_delay": detection_delay(runs),
        "detectors": detectors(runs),
        "overlapping_labels": overlapping(runs // 4, 2 * bars),
        "runs": runs,
        "verification": verification(runs),
    }
    if not short:
        result |= {"memory_growth_mb": memory_growth_mb(), "updates_per_second": updates_per_second()}
    return result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object (the only form there is)")
    parser.add_argument("--short", action="store_true", help="no timings, few runs")
    arguments = parser.parse_args()
    print(json.dumps(measure(short=arguments.short), indent=2, sort_keys=True))


if __name__ == "__main__":
    main()
