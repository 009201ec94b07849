"""Live telemetry with a known truth: real bars by arithmetic, and models that are right as often as they are told.

Calls are made on rows whose move is decisive, with knowledge of the outcome, so a hit rate is exactly what was asked for;
monitoring sees only the records.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson

from sqkit.bars import CLOSE
from sqkit.metrics import horizon_outcomes
from sqkit.monitoring_baseline import MonitoringBaseline, MonitoringRules, Rate
from sqkit.records import DIRECTIONS, DOWN, FLAT, INSIDE, REASON_CODES, UNKNOWN, UP, iso_date, iso_instant
from sqkit.research.usual_behaviour import SaidRows, usual_behaviour
from sqkit.settings import Settings
from tests.synthetic_bars import synthetic_bars

LIVE: Final = "aaaaaaaaaaaa"
EARLIER: Final = "bbbbbbbbbbbb"
VERSIONS: Final = {LIVE: "20240201_000000", EARLIER: "20240101_000000"}
HIT_RATE: Final = 0.6
MINUTE_NS: Final = 60_000_000_000

BASELINE: Final = MonitoringBaseline(
    hit_ratio=Rate(HIT_RATE, 20_000, 20_000.0),
    precision_long=Rate(HIT_RATE, 10_000, 10_000.0),
    accuracy=Rate(0.7, 30_000, 30_000.0),
    horizon_bars=1,
    dead_zone=0.5,
    interval="1m",
    market="us",
    strategy="intraday",
    bars_per_session=390,
    session_days=60,
    symbols=3,
    called_bars=3_000,
    long_called_bars=1_500,
)
RULES: Final = MonitoringRules.from_settings(Settings(_env_file=None))


def baseline_of(model: str) -> MonitoringBaseline | None:
    """Both models were validated alike; a third one nobody knows."""
    return BASELINE if model in VERSIONS else None


def rules(**changes: Any) -> MonitoringRules:
    """The default rules with some changed."""
    return replace(RULES, **changes)


class Market:
    """Symbols whose every decisive move is called by the live model and by the earlier one.

    Parameters
    ----------
    hit_rates
        Session number to the hit rates, live and earlier, from that session on.
    """

    def __init__(
        self,
        sessions: int,
        hit_rates: Mapping[int, tuple[float, float]],
        *,
        symbols: int = 3,
        seed: int = 1,
        interval: str = "1m",
        horizon: int = 1,
    ) -> None:
        self.bars = {
            f"SYM{number}": synthetic_bars(
                f"SYM{number}", seed=seed * 100 + number, sessions=sessions, interval=interval, drift=0.0
            )
            for number in range(symbols)
        }
        generator = np.random.default_rng(seed)
        self.calls = {
            name: [self._calls(bars, which, hit_rates, horizon, generator) for which in (0, 1)]
            for name, bars in self.bars.items()
        }
        self.length_ns = MINUTE_NS if interval == "1m" else 390 * MINUTE_NS

    @staticmethod
    def _calls(
        bars: Any,
        which: int,
        hit_rates: Mapping[int, tuple[float, float]],
        horizon: int,
        generator: np.random.Generator,
    ) -> np.ndarray:
        outcome = horizon_outcomes(
            bars.rows[:, CLOSE],
            bars.session_days,
            horizon,
            dead_zone=0.5,
            within_session=bars.interval != "1d",
        ).outcome
        session = np.searchsorted(np.unique(bars.session_days), bars.session_days)
        rate = np.zeros(len(outcome))
        for begins, rates in sorted(hit_rates.items()):
            rate[session >= begins] = rates[which]
        right = generator.random(len(outcome)) < rate
        truth = np.where(np.isin(outcome, (UP, DOWN)), outcome, FLAT)
        return np.where(np.isin(outcome, (UNKNOWN, INSIDE)), FLAT, np.where(right, truth, -truth)).astype(
            np.int8
        )

    def records(
        self, sessions: range, *, model: str = LIVE, previous: str | None = EARLIER, reason: str = "scored"
    ) -> Iterator[dict[str, Any]]:
        """Prediction records of some sessions in order of time, as an engine that serves `model` writes them."""
        days = np.unique(next(iter(self.bars.values())).session_days)[sessions.start : sessions.stop]
        one = next(iter(self.bars.values()))
        for at in np.flatnonzero(np.isin(one.session_days, days)):
            for name, bars in self.bars.items():
                yield self._record(name, bars, int(at), model, previous, reason)

    def _record(
        self, name: str, bars: Any, at: int, model: str, previous: str | None, reason: str
    ) -> dict[str, Any]:
        start, day = int(bars.timestamp_ns[at]), int(bars.session_days[at])
        said = {which: self.calls[name][0 if which == LIVE else 1][at] for which in (LIVE, EARLIER)}
        spoke = reason == "scored"
        shadows = (
            []
            if previous is None
            else [{"role": "previous", **_words(previous, said[previous], spoke=True, reason="scored")}]
        )
        return {
            "event": "prediction",
            "id": f"intraday/{name}/{iso_instant(start)}",
            "slot": "default",
            "strategy": "intraday",
            "symbol": name,
            "bar_time": iso_instant(start),
            "session_date": iso_date(day),
            "decision_time": iso_instant(start + self.length_ns),
            **_words(model, said.get(model, 0), spoke=spoke, reason=reason),
            "bar": [float(one) for one in bars.rows[at][:5]],
            "bar_status": "ok",
            "latency_us": 20.0,
            "prediction_source": "baseline_strategy",
            "challengers": shadows,
        }


def _words(model: str, call: int, *, spoke: bool, reason: str) -> dict[str, Any]:
    confident = spoke and call != FLAT
    return {
        "student_model_digest": model,
        "student_model_version": VERSIONS[model],
        "student_prediction": DIRECTIONS[int(call) if spoke else FLAT],
        "student_probability_up": {1: 0.7, -1: 0.3}.get(int(call), 0.55) if spoke else None,
        "reason": "low_confidence" if spoke and not confident else reason,
    }


def behaviour_of(market: Market, sessions: range) -> dict[str, Any]:
    """What the live model usually says, measured as a validation does."""
    parts = []
    for name, bars in market.bars.items():
        days = np.unique(bars.session_days)[sessions.start : sessions.stop]
        rows = np.isin(bars.session_days, days)
        calls = market.calls[name][0][rows]
        said = np.where(calls == 1, 0.7, np.where(calls == -1, 0.3, 0.55))
        reason = np.where(calls == FLAT, REASON_CODES["low_confidence"], REASON_CODES["scored"])
        number = np.arange(len(bars.session_days))[rows] % 390
        parts.append((bars.session_days[rows], number, calls, said, reason))
    profile = usual_behaviour(
        SaidRows(*(np.concatenate(column) for column in zip(*parts, strict=True))),
        bar_minutes=1,
        symbols=len(market.bars),
    )
    assert profile is not None
    return profile


def write_telemetry(folder: Path, records: Iterator[dict[str, Any]], name: str = "host-1.jsonl") -> None:
    """Append records to the files in which an engine of that name would write them."""
    for record in records:
        place = folder / record["session_date"] / name
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("ab") as stream:
            stream.write(orjson.dumps(record) + b"\n")


def instant(text: str) -> dt.datetime:
    """A UTC instant."""
    return dt.datetime.fromisoformat(text)
