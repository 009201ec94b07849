"""What the look-ahead check costs: ``.venv/bin/python benchmarks/lookahead.py --json`` prints JSON.

Seconds of wall and processor time (best of three, compilation left out) for 100,000 one-minute bars:
every shipped set, a pandas function of 16 honest rolling features, and the same with one column of
each kind that knows the future. A case counts only when it says what it must: the honest pass, and
every planted column, no other, is found with its cause.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import pandas as pd

from sqkit.bars import BarArrays, make_bar_arrays
from sqkit.features import feature_sets, get_feature_set
from sqkit.research.lookahead import LookAheadReport, feature_look_ahead
from sqkit.research.planted import planted_market
from sqkit.sessions import load_sessions

LIMIT_SECONDS = 3.0
MINUTES_A_SESSION = 390
CAUSES = {
    "centred": "centred_window",
    "ahead": "negative_shift",
    "scored": "global_statistic",
    "filled": "back_fill",
    "day_high": "resample_label",
}


def minute_bars(bars: int) -> BarArrays:
    """So many one-minute bars of a planted market."""

    frame = planted_market(1, ["PLANT"], bars // MINUTES_A_SESSION + 20, "1m", 0.0)["PLANT"].iloc[:bars]
    stamps = frame["timestamp"].dt.as_unit("ns").astype("int64").to_numpy()
    ohlcv = frame[["open", "high", "low", "close", "volume"]].to_numpy()
    return make_bar_arrays("PLANT", "1m", "us", stamps, ohlcv, load_sessions("us"))[0]


def honest(frame: pd.DataFrame) -> pd.DataFrame:
    """Sixteen rolling features."""
    close, returns = frame["close"], np.log(frame["close"]).diff()
    columns = {}
    for window in (10, 20, 60, 120):
        columns[f"mean_{window}"] = close.rolling(window).mean() / close - 1.0
        columns[f"deviation_{window}"] = returns.rolling(window).std()
        columns[f"high_{window}"] = frame["high"].rolling(window).max() / close - 1.0
        columns[f"volume_{window}"] = frame["volume"].rolling(window).mean()
    return pd.DataFrame(columns)


def biased(frame: pd.DataFrame) -> pd.DataFrame:
    """Eleven of them, and five that know the future."""
    close, made = frame["close"], honest(frame).iloc[:, :11]
    made["centred"] = close.rolling(21, center=True).mean() / close
    made["ahead"] = close.shift(-5) / close - 1.0
    made["scored"] = (close - close.mean()) / close.std()
    made["filled"] = close.rolling(50).mean().bfill()
    made["day_high"] = frame.groupby(frame["timestamp"].dt.date)["high"].transform("max")
    return made


def measure(check: Callable[[], LookAheadReport], causes: dict[str, str]) -> dict[str, object]:
    """Cost of one case, after its answer was found right."""
    report = check()
    found = {finding.column: finding.cause for finding in report.findings}
    wall, processor = [], []
    for _ in range(3):
        began, busy = time.perf_counter(), time.process_time()
        check()
        wall.append(time.perf_counter() - began)
        processor.append(time.process_time() - busy)
    return {
        "columns": len(report.columns),
        "status": report.status,
        "right": found == causes and report.ok == (not causes),
        "seconds": round(min(wall), 3),
        "processor_seconds": round(min(processor), 3),
        "within_limit": min(wall) <= LIMIT_SECONDS,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object (the only form there is)")
    parser.add_argument("--bars", type=int, default=100_000)
    count = parser.parse_args().bars
    bars = minute_bars(count)
    cases: dict[str, dict[str, object]] = {}
    for name in feature_sets():
        features = get_feature_set(name)
        cases[name] = measure(lambda features=features: feature_look_ahead(features, bars), {})
    cases["pandas_16_rolling"] = measure(lambda: feature_look_ahead(honest, bars), {})
    cases["pandas_11_rolling_5_biased"] = measure(lambda: feature_look_ahead(biased, bars), CAUSES)
    print(json.dumps({"bars": len(bars), "limit_seconds": LIMIT_SECONDS, "cases": cases}, indent=2))


if __name__ == "__main__":
    main()
