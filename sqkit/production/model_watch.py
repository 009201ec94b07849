"""What is counted of one model while it is served: the given rules, and the sequential detectors.

A bar is one observation, whatever number of symbols it has, because symbols move together; labels that overlap go to
streams of their own. The detectors measure in session days: every bar slot on which the model was asked adds its
share of a day, so a level of D comes by chance once in D days or less often, however often the model calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqkit.monitoring_baseline import MonitoringBaseline, MonitoringRules
from sqkit.production.detectors import MixtureShiryaevRoberts
from sqkit.production.live_outcomes import ClosedBar, Row
from sqkit.production.monitor_rules import SAMPLES, Calibration, ThresholdRules, counts_of
from sqkit.records import FLAT, LONG, UNKNOWN
from sqkit.sequential_bets import DETECTED, miss_rate_bound

HIT_RATIO, PRECISION = DETECTED


def stream_of(bar: ClosedBar, horizon_bars: int, *, daily: bool) -> int:
    """Which of the streams a bar belongs to: labels within one stream do not overlap."""
    return (bar.number if daily else bar.in_session) % horizon_bars


def missed(metric: str, calls: Iterable[tuple[int, int | None]]) -> float | None:
    """Mean miss of a bar's calls under a metric; None where it has none.

    Parameters
    ----------
    calls
        Call and outcome of each judged row.
    """
    judged = [
        call != outcome
        for call, outcome in calls
        if outcome not in (None, UNKNOWN) and (call == LONG if metric == PRECISION else call != FLAT)
    ]
    return sum(judged) / len(judged) if judged else None


class Detector:
    """The e-detector of one metric, fed with a model's closed bars."""

    def __init__(
        self, metric: str, miss_rate: float, streams: int, bars_per_session: int, days: float
    ) -> None:
        self.metric = metric
        self.threshold = days * len(DETECTED)
        self._share = 1.0 / bars_per_session
        self._weight = 0.0
        self._detector = MixtureShiryaevRoberts(miss_rate, streams)

    @property
    def level(self) -> float:
        """Evidence of a loss, in session days."""
        return self._detector.level

    @property
    def alarms(self) -> bool:
        """Whether the level has reached its threshold."""
        return self.level >= self.threshold

    def add(self, rows: Sequence[Row], stream: int) -> None:
        """Take a bar on which the model was asked."""
        self._weight += self._share
        miss = missed(self.metric, ((row.said.call, row.outcome) for row in rows))
        if miss is not None:
            self._detector.update(miss, weight=self._weight, stream=stream)
            self._weight = 0.0

    def reset(self) -> None:
        """Forget all evidence."""
        self._weight = 0.0
        self._detector.reset()

    def state(self) -> list[Any]:
        """Plain JSON values."""
        return [self._weight, self._detector.state()]

    def restore(self, state: Sequence[Any]) -> None:
        """Go on from there."""
        self._weight = state[0]
        self._detector.restore(state[1])


class ModelWatch:
    """One model since it is served.

    Parameters
    ----------
    model, version
        First digits of its digest; its version.
    baseline
        As validated; None where the release carries none: then nothing can be said of it.

    Attributes
    ----------
    bars
        Closed bars on which it was asked.
    """

    def __init__(
        self,
        model: str,
        version: str,
        baseline: MonitoringBaseline | None,
        rules: MonitoringRules,
        *,
        daily: bool,
    ) -> None:
        self.model = model
        self.version = version
        self.baseline = baseline
        self.bars = 0
        self._daily = daily
        self.rules = ThresholdRules(baseline, rules) if baseline else None
        self.calibration = Calibration(baseline.horizon_bars if baseline else 1)
        self.detectors: dict[str, Detector] = {}
        for metric in DETECTED if baseline else ():
            assert baseline is not None
            bound = miss_rate_bound(getattr(baseline, metric))
            if bound is not None:
                self.detectors[metric] = Detector(
                    metric,
                    bound,
                    baseline.horizon_bars,
                    baseline.bars_per_session,
                    rules.days_between_false_alerts,
                )

    def rows_of(self, bar: ClosedBar) -> list[Row]:
        """Its judged rows of a bar."""
        return [row for row in bar.rows.values() if row.said.model == self.model and row.said.judged]

    def add(self, bar: ClosedBar, hours: float) -> None:
        """Take a closed bar; one on which it was not asked changes nothing."""
        rows = self.rows_of(bar)
        if not rows or self.baseline is None or self.rules is None:
            return
        self.bars += 1
        self.rules.add(hours, bar.day, counts_of(rows))
        self.calibration.add(bar.day, rows)
        stream = stream_of(bar, self.baseline.horizon_bars, daily=self._daily)
        for detector in self.detectors.values():
            detector.add(rows, stream)

    def alarms(self) -> list[Detector]:
        """Detectors that have reached their threshold."""
        return [one for one in self.detectors.values() if one.alarms]

    def begin_again(self) -> None:
        """Forget the detectors' evidence: an alert on it was not confirmed."""
        for detector in self.detectors.values():
            detector.reset()

    def figures(self) -> dict[str, Any]:
        """Rolling metrics beside the validated ones, and the detectors' levels."""
        rolling = {}
        if self.rules is not None and self.baseline is not None:
            live, counts = self.rules.rolling.metrics(), self.rules.rolling.counts
            for name, sample in SAMPLES.items():
                validated = getattr(self.baseline, name)
                rolling[name] = {
                    "baseline": validated.rate if validated else None,
                    "count": counts[sample],
                    "value": live[name],
                }
        detectors = {
            name: {"level": one.level, "threshold": one.threshold} for name, one in self.detectors.items()
        }
        return {"calibration": self.calibration.figures(), "detectors": detectors, "rolling": rolling}

    def state(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "bars": self.bars,
            "calibration": self.calibration.state(),
            "detectors": {name: one.state() for name, one in self.detectors.items()},
            "model": self.model,
            "rules": self.rules.state() if self.rules else None,
            "version": self.version,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from there; afresh where its baseline could not be read then and can be now, or the other way round."""
        if (state["rules"] is None) != (self.rules is None):
            return
        self.bars = state["bars"]
        self.calibration.restore(state["calibration"])
        for name, one in self.detectors.items():
            one.restore(state["detectors"][name])
        if self.rules is not None:
            self.rules.restore(state["rules"])
