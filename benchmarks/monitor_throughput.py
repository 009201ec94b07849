"""How many judged predictions a second the whole monitor takes, and whether its memory stays flat.

From telemetry records to outcomes, rules, detectors, states and SQLite, in one process: 500 symbols of minute bars,
predictions of a model that is as good as validated. ``--json`` prints one object; ``--short`` runs little.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from sqkit.production.bar_clock import BarClock
from sqkit.production.monitor_store import MonitorStore
from sqkit.production.slot_monitor import SlotMonitor
from sqkit.records import DIRECTIONS, iso_date, iso_instant
from sqkit.sessions import load_sessions
from tests.monitored import BASELINE, LIVE, RULES
from tests.synthetic_bars import FIRST_DAY

SYMBOLS = 500


def records(symbols: int, bars: int) -> Iterator[list[dict[str, Any]]]:
    """The records of bar after bar, all symbols of one together; random walks, random calls."""
    random, table = np.random.default_rng(5), load_sessions("us")
    close = np.full(symbols, 100.0)
    names = [f"SYM{number:03d}" for number in range(symbols)]
    days = table.session_days(FIRST_DAY, FIRST_DAY + bars // 390 * 2 + 10)
    for number in range(bars):
        day = int(days[number // 390])
        opened = int(table.open_close_ns(np.array([day]))[0][0])
        start, date = opened + number % 390 * 60_000_000_000, iso_date(day)
        at, decided = iso_instant(start), iso_instant(start + 60_000_000_000)
        close *= np.exp(0.001 * random.standard_normal(symbols))
        said = random.choice((-1, 0, 1), symbols, p=(0.15, 0.7, 0.15))
        yield [
            {
                "event": "prediction",
                "slot": "default",
                "strategy": "intraday",
                "symbol": name,
                "bar_time": at,
                "session_date": date,
                "decision_time": decided,
                "student_model_digest": LIVE,
                "student_model_version": "20240201_000000",
                "student_prediction": DIRECTIONS[int(call)],
                "student_probability_up": 0.5 + 0.2 * int(call),
                "reason": "scored" if call else "low_confidence",
                "bar": (price, price, price, price, 0.0),
                "latency_us": 30.0,
            }
            for name, price, call in zip(names, close.tolist(), said, strict=True)
        ]


def measure(symbols: int = SYMBOLS, bars: int = 10_000) -> dict[str, Any]:
    """Records a second over all bars, and what the last nine tenths of them add to the resident memory."""
    baseline = replace(BASELINE, horizon_bars=15, symbols=symbols)
    with tempfile.TemporaryDirectory() as folder:
        store = MonitorStore(Path(folder) / "state.sqlite")
        clock = BarClock(load_sessions("us"), "1m")
        monitor = SlotMonitor("default", "intraday", clock, RULES, lambda model: baseline, store)
        seconds, before = 0.0, 0.0
        for number, of_bar in enumerate(records(symbols, bars)):
            if number == bars // 10:
                gc.collect()
                before = resident_mb()
            began = time.perf_counter()
            monitor.take(of_bar, {})
            seconds += time.perf_counter() - began
        gc.collect()
        grown = resident_mb() - before
        size = (Path(folder) / "state.sqlite").stat().st_size / 2**20
        store.close()
    judged = monitor.book.counts["predictions"] - monitor.book.counts["session_end"]
    return {
        "bars": bars,
        "grown_mb": round(grown, 1),
        "milliseconds_a_bar": round(1000 * seconds / bars, 1),
        "outcomes": judged,
        "records_per_second": round(symbols * bars / seconds),
        "state_mb": round(size, 1),
        "symbols": symbols,
        "target_per_second": 100_000,
    }


def resident_mb() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object (the only form there is)")
    parser.add_argument("--short", action="store_true", help="one session of 50 symbols")
    arguments = parser.parse_args()
    print(json.dumps(measure(50, 390) if arguments.short else measure(), indent=2, sort_keys=True))


if __name__ == "__main__":
    main()
