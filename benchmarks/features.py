"""What features cost: ``.venv/bin/python benchmarks/features.py [--bars N]`` prints JSON.

Batch nanoseconds and stream microseconds a bar of processor time (best of three; one core,
compilation left out) for every shipped set; and how long a second process takes from its first line to its first
feature row with the compiled code on disk.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

from sqkit.bars import ROW_WIDTH
from sqkit.features import FeatureSet, FeatureStream, feature_matrix, feature_sets, get_feature_set

SECOND_START = """
import time
begun = time.perf_counter()
import numpy as np
from sqkit.features import FeatureStream, student_set
FeatureStream(student_set("intraday")).update(np.ones(9))
print(time.perf_counter() - begun)
"""


def minute_bars(bars: int) -> np.ndarray:
    """A random walk in sessions of 375 one-minute bars."""
    random = np.random.default_rng(0)
    close = 100.0 * np.exp(np.cumsum(random.normal(0.0, 3e-4, bars)))
    place = np.arange(bars)
    rows = np.empty((bars, ROW_WIDTH))
    rows[:, 0] = np.concatenate((close[:1], close[:-1]))
    rows[:, 1] = np.maximum(rows[:, 0], close) * (1.0 + 1e-4 * random.random(bars))
    rows[:, 2] = np.minimum(rows[:, 0], close) * (1.0 - 1e-4 * random.random(bars))
    rows[:, 3] = close
    rows[:, 4] = random.integers(0, 1000, bars)
    rows[:, 5] = 15_000 + place // 375
    rows[:, 6] = place % 375
    rows[:, 7:] = (375.0, 1.0)
    return rows


def best_seconds(run: Callable[[], object], times: int = 3) -> float:
    """Least processor time of a few runs; other work on the machine does not count."""
    taken = []
    for _ in range(times):
        begun = time.process_time()
        run()
        taken.append(time.process_time() - begun)
    return min(taken)


def measure(features: FeatureSet, rows: np.ndarray) -> dict[str, float | int]:
    """Batch and stream cost of one set."""
    feature_matrix(features, rows[:1000])
    stream, some = FeatureStream(features), rows[:50_000]
    batch = best_seconds(lambda: feature_matrix(features, rows)) / len(rows)
    live = best_seconds(lambda: [stream.update(row) for row in some]) / len(some)
    return {
        "columns": len(features.columns),
        "batch_ns_per_bar": round(batch * 1e9, 1),
        "batch_seconds_per_million_bars": round(batch * 1e6, 3),
        "stream_us_per_bar": round(live * 1e6, 3),
    }


def second_start() -> float:
    """Seconds until a fresh process, its cache warm, has its first feature row."""
    command = [sys.executable, "-c", SECOND_START]
    subprocess.run(command, check=True, capture_output=True)
    return best_seconds_printed(command)


def best_seconds_printed(command: list[str], times: int = 3) -> float:
    """Shortest time that the command itself printed."""
    runs = [subprocess.run(command, check=True, capture_output=True, text=True) for _ in range(times)]
    return min(float(done.stdout) for done in runs)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object (the only form there is)")
    parser.add_argument("--bars", type=int, default=1_000_000)
    bars = parser.parse_args().bars
    rows = minute_bars(bars)
    sets = {
        name: measure(get_feature_set(name), rows) for name in feature_sets() if get_feature_set(name).shipped
    }
    print(
        json.dumps({"bars": bars, "sets": sets, "second_start_seconds": round(second_start(), 3)}, indent=2)
    )


if __name__ == "__main__":
    main()
