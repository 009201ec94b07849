"""The rules that the user's settings give: rolling metrics against the validated ones, and the accuracy floor.

They alert; alone they never roll back (`sqkit.production.monitor_machine`). Metrics are those of
`sqkit.metrics`, over the judged predictions of one model. Windows count days with a session only.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np

from sqkit.metrics import call_counts, call_shares
from sqkit.monitoring_baseline import MonitoringBaseline, MonitoringRules
from sqkit.production.live_outcomes import Row
from sqkit.records import DOWN, UNKNOWN, UP

PRECISION_DROP: Final = "precision_drop"
HIT_RATIO_DROP: Final = "hit_ratio_drop"
ACCURACY_FLOOR: Final = "accuracy_floor"

DROPS: Final = {PRECISION_DROP: "precision_long", HIT_RATIO_DROP: "hit_ratio"}
"""Rule to the metric that it holds against the validated one."""

SAMPLES: Final = {"precision_long": "calls_long", "hit_ratio": "calls", "accuracy": "rows"}
"""What a metric's sample is: the count of `sqkit.metrics.accuracy_metrics` behind it."""

TITLES: Final = {"precision_long": "precision (LONG)", "hit_ratio": "hit ratio", "accuracy": "accuracy"}
"""What a person calls a metric."""

CALIBRATION_DRIFT: Final = "calibration_drift"
CALIBRATION_DAYS: Final = 20
"""Session days over which calibration is looked at."""

_COUNTED: Final = tuple(call_counts(np.zeros(0, dtype=np.int8), np.zeros(0, dtype=np.int8)))
_FEWEST_OBSERVATIONS: Final = 20
_DRIFT_Z: Final = 4.0
_DRIFT_GAP: Final = 0.05
_TOLERANCE: Final = 1e-12


def counts_of(rows: Iterable[Row]) -> dict[str, int]:
    """The counts of `sqkit.metrics.accuracy_metrics` over rows with a known outcome."""
    known = [row for row in rows if row.outcome not in (None, UNKNOWN)]
    calls = np.array([row.said.call for row in known], dtype=np.int8)
    return call_counts(calls, np.array([row.outcome for row in known], dtype=np.int8))


class RollingMetrics:
    """Counts of the last so many hours of session days.

    Parameters
    ----------
    window_hours
        Of session days, 24 a day.
    """

    def __init__(self, window_hours: float) -> None:
        self._hours = window_hours
        self._bars: deque[tuple[float, dict[str, int]]] = deque()
        self.counts: Counter[str] = Counter()

    def add(self, hours: float, counts: Mapping[str, int]) -> None:
        """Take a bar's counts at its place on the time line, and let go what is older than the window."""
        self._bars.append((hours, dict(counts)))
        self.counts.update(counts)
        while self._bars[0][0] <= hours - self._hours:
            self.counts.subtract(self._bars.popleft()[1])

    def metrics(self) -> dict[str, float | None]:
        """Precision of LONG calls, hit ratio, accuracy; None where undefined."""
        shares = call_shares(self.counts)[0]
        return {name: shares[name] for name in SAMPLES}

    def state(self) -> list[Any]:
        """Plain JSON values."""
        return [[hours, [counts[name] for name in _COUNTED]] for hours, counts in self._bars]

    def restore(self, state: Iterable[Any]) -> None:
        """Go on from there."""
        self._bars = deque((hours, dict(zip(_COUNTED, counts, strict=True))) for hours, counts in state)
        self.counts = Counter()
        for _, counts in self._bars:
            self.counts.update(counts)


class AccuracyFloor:
    """Accuracy below a share of the validated one on so many session days in a row; days without rows do not count."""

    def __init__(self, floor: float, days: int) -> None:
        self._floor = floor
        self._days = days
        self._day = -1
        self._rows = self._right = 0
        self.below: list[tuple[int, float]] = []

    def add(self, day: int, counts: Mapping[str, int]) -> None:
        """Take a bar's counts; a day ends with the first bar of the next one."""
        if day != self._day:
            self._end_day()
            self._day, self._rows, self._right = day, 0, 0
        self._rows += counts["rows"]
        self._right += counts["right"]

    def _end_day(self) -> None:
        if not self._rows:
            return
        accuracy = self._right / self._rows
        if accuracy < self._floor - _TOLERANCE:
            self.below = [*self.below, (self._day, accuracy)][-self._days :]
            return
        self.below = []

    @property
    def breached(self) -> bool:
        """Whether the last so many days all lay below."""
        return len(self.below) >= self._days

    def state(self) -> list[Any]:
        """Plain JSON values."""
        return [self._day, self._rows, self._right, [list(one) for one in self.below]]

    def restore(self, state: list[Any]) -> None:
        """Go on from there."""
        self._day, self._rows, self._right, below = state
        self.below = [(day, accuracy) for day, accuracy in below]


class Calibration:
    """Mean gap between P(up) and what happened on decisive rows, bar by bar over the last session days: it only warns.

    Labels that overlap count as one: so many bars are worth bars / horizon observations.
    """

    def __init__(self, horizon_bars: int) -> None:
        self._horizon = horizon_bars
        self._days: deque[list[float]] = deque(maxlen=CALIBRATION_DAYS)
        """Of each session day: its date, number of bars, sum of their gaps and of the squares."""

    def add(self, day: int, rows: Iterable[Row]) -> None:
        """Take a bar's judged rows."""
        gaps = [
            row.said.probability_up - (row.outcome == UP)
            for row in rows
            if row.outcome in (UP, DOWN) and row.said.probability_up is not None
        ]
        if not gaps:
            return
        if not self._days or self._days[-1][0] != day:
            self._days.append([day, 0, 0.0, 0.0])
        gap, of_day = math.fsum(gaps) / len(gaps), self._days[-1]
        of_day[1:] = [of_day[1] + 1, of_day[2] + gap, of_day[3] + gap * gap]

    def figures(self) -> dict[str, float] | None:
        """The gap and how many standard errors it is; None for too few bars."""
        bars, total, squares = (math.fsum(day[place] for day in self._days) for place in (1, 2, 3))
        worth = bars / self._horizon
        if worth < _FEWEST_OBSERVATIONS:
            return None
        mean = total / bars
        variance = max(squares / bars - mean * mean, 0.0)
        return {"gap": mean, "z": mean / math.sqrt(variance / worth) if variance else 0.0}

    def drifts(self) -> bool:
        """Whether the gap is large, and no chance."""
        said = self.figures()
        return said is not None and abs(said["z"]) >= _DRIFT_Z and abs(said["gap"]) >= _DRIFT_GAP

    def state(self) -> list[Any]:
        """Plain JSON values."""
        return [list(one) for one in self._days]

    def restore(self, state: Iterable[Any]) -> None:
        """Go on from there."""
        self._days = deque((list(one) for one in state), maxlen=CALIBRATION_DAYS)


class ThresholdRules:
    """The three given rules over one model's closed bars.

    Attributes
    ----------
    rolling
        The window's metrics.
    """

    def __init__(self, baseline: MonitoringBaseline, rules: MonitoringRules) -> None:
        self._baseline = baseline
        self._rules = rules
        accuracy = baseline.accuracy.rate if baseline.accuracy else 0.0
        self.rolling = RollingMetrics(rules.window_hours)
        self._been_enough = False
        self.floor = AccuracyFloor(rules.accuracy_floor_ratio * accuracy, rules.accuracy_floor_days)

    def add(self, hours: float, day: int, counts: Mapping[str, int]) -> None:
        """Take a closed bar's counts."""
        self.rolling.add(hours, counts)
        self._been_enough |= self.enough()
        self.floor.add(day, counts)

    def enough(self) -> bool:
        """Whether the window holds samples enough to say that all is well."""
        return self.rolling.counts["calls"] >= self._rules.min_samples

    def thinned(self) -> bool:
        """Whether it held enough of them once, and does not any more."""
        return self._been_enough and not self.enough()

    def breaches(self) -> dict[str, dict[str, Any]]:
        """Rules that are broken now, with their figures; a rule without samples enough says nothing."""
        found = {}
        thresholds = {
            PRECISION_DROP: self._rules.precision_drop_threshold,
            HIT_RATIO_DROP: self._rules.hit_ratio_drop_threshold,
        }
        for name, threshold in thresholds.items():
            metric = DROPS[name]
            validated = getattr(self._baseline, metric)
            live, samples = self.rolling.metrics()[metric], self.rolling.counts[SAMPLES[metric]]
            if validated is None or live is None or samples < self._rules.min_samples:
                continue
            if validated.rate - live >= threshold - _TOLERANCE:
                found[name] = {
                    "live": live,
                    "samples": samples,
                    "threshold": threshold,
                    "validated": validated.rate,
                }
        if self.floor.breached:
            found[ACCURACY_FLOOR] = {
                "days": [list(one) for one in self.floor.below],
                "floor": self._rules.accuracy_floor_ratio,
                "validated": self._baseline.accuracy.rate if self._baseline.accuracy else None,
            }
        return found

    def undecided(self) -> set[str]:
        """Rules that say neither broken nor mended: too few samples. They clear no alert."""
        unknown = set()
        for name, metric in DROPS.items():
            if self.rolling.counts[SAMPLES[metric]] < self._rules.min_samples:
                unknown.add(name)
        return unknown

    def state(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "been_enough": self._been_enough,
            "floor": self.floor.state(),
            "rolling": self.rolling.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.rolling.restore(state["rolling"])
        self._been_enough = state["been_enough"]
        self.floor.restore(state["floor"])
