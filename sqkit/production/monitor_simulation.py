"""What each rule would have said of one's own outcomes, and what it says by chance: ``sqkit monitor simulate``.

A rule is judged three times on the judged predictions of one model: as they came; as they would come if the model were
as good as validated (the null); and with a loss of 5 and of 10 points.

The null, exactly: whole session days are put into random order, so that a day keeps its bars and a bar its symbols, which
move together. The share of right calls is brought to the validated one, LONG and SHORT each: where it lies below,
misses become right calls, where above, right calls misses, one by one at random; rows without a call alike, for the
accuracy. So what the symbols of a bar have in common is weakened a little where live and validated rate differ, and what
neighbouring days have in common is lost. A loss then turns right calls into misses, one by one at random, from the first
day on, while every rule starts with no evidence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from sqkit.errors import UsageError
from sqkit.monitoring_baseline import MonitoringBaseline, MonitoringRules
from sqkit.production.bar_clock import HOURS_PER_DAY, BarClock
from sqkit.production.simulated_rules import ROLLING, ROLLING_CALLS, ROLLING_DROP, Path, Rule, rules_of
from sqkit.records import DOWN, FLAT, LONG, SHORT, UP, iso_date, iso_instant
from sqkit.rule_figures import LOSSES, QUARTER_DAYS, median_delay

SHUFFLES: Final = 200
_FEWEST_DAYS: Final = 2
_MOST_ROWS: Final = 5_000_000

Outcome = tuple[Any, ...]


class OutcomeLog:
    """Judged predictions of one model, as they came.

    Parameters
    ----------
    outcomes
        As `sqkit.production.monitor_store.MonitorStore.outcomes` gives them, of one model.

    Attributes
    ----------
    path
        Them, in their order.
    starts_ns
        int64 (m,), start of each bar.
    days
        int (d,), session days.
    """

    def __init__(self, outcomes: Sequence[Outcome], clock: BarClock, horizon_bars: int) -> None:
        symbols, start, day, _, call, up, outcome, _ = zip(*outcomes, strict=True)
        order = np.lexsort((np.array(symbols), np.array(start)))
        calls, outcomes_ = np.array(call)[order], np.array(outcome)[order]
        probability = np.array([0.5 if one is None else one for one in up])[order]
        self.starts_ns, first, bar = np.unique(np.array(start)[order], return_index=True, return_inverse=True)
        self.days, number = np.unique(np.array(day)[order][first], return_inverse=True)
        places = [
            clock.place(int(at), int(self.days[one])) for at, one in zip(self.starts_ns, number, strict=True)
        ]
        in_order = [place.number if clock.daily else place.in_session for place in places]
        self._daily, self._horizon = clock.daily, horizon_bars
        self.path = Path(
            bar=bar,
            call=calls,
            right=calls == outcomes_,
            decisive=np.isin(outcomes_, (UP, DOWN)),
            claimed_miss=np.minimum(probability, 1.0 - probability),
            day=number,
            hours=np.array(
                [
                    clock.hours(clock.available_ns(int(at), int(self.days[one])))
                    for at, one in zip(self.starts_ns, number, strict=True)
                ]
            ),
            stream=np.array(in_order) % horizon_bars,
        )
        self._row_of_day = np.searchsorted(number[bar], np.arange(len(self.days) + 1))
        self._bar_of_day = np.searchsorted(number, np.arange(len(self.days) + 1))

    def shuffled(self, order: np.ndarray) -> Path:
        """The session days in another order; the n-th day of the log is where the n-th of the order was."""
        rows = np.concatenate([np.arange(*self._row_of_day[day : day + 2]) for day in order])
        bars = np.concatenate([np.arange(*self._bar_of_day[day : day + 2]) for day in order])
        path = self.path
        place = np.empty(len(bars), dtype=np.int64)
        place[bars] = np.arange(len(bars))
        sizes = np.diff(self._bar_of_day)[order]
        day = np.repeat(np.arange(len(order)), sizes)
        midnight = np.floor(path.hours / HOURS_PER_DAY) * HOURS_PER_DAY
        of_place = midnight[self._bar_of_day[:-1]]
        return Path(
            bar=place[path.bar[rows]],
            call=path.call[rows],
            right=path.right[rows],
            decisive=path.decisive[rows],
            claimed_miss=path.claimed_miss[rows],
            day=day,
            hours=of_place[day] + (path.hours - midnight)[bars],
            stream=np.arange(len(bars)) % self._horizon if self._daily else path.stream[bars],
        )


def simulate(
    outcomes: Sequence[Outcome],
    baseline: MonitoringBaseline,
    rules: MonitoringRules,
    clock: BarClock,
    *,
    shuffles: int = SHUFFLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Every rule over a log as it was, over the null and over two losses; the same seed, the same figures.

    Parameters
    ----------
    outcomes
        Of one model; see `OutcomeLog`.
    baseline, rules
        What it was validated at, and the settings.
    clock
        Places its bars.
    shuffles
        Orders of the days.

    Returns
    -------
    dict
        ``log``: what there is; ``rules``: for each its ``alerts`` and ``first`` bar in the log, ``per_quarter``,
        ``false_alerts_per_quarter`` under the null, and ``delay_days``, the median session days until a loss is seen
        (None where half of the orders end before that).

    Raises
    ------
    UsageError
        Fewer than two session days, or no shuffle.
    """
    log = OutcomeLog(outcomes, clock, baseline.horizon_bars)
    length = len(log.days)
    if length < _FEWEST_DAYS or shuffles < 1:
        raise UsageError(
            f"{length} session days, {shuffles} shuffles: at least two days and one shuffle are needed"
        )
    every = rules_of(baseline, rules, log.path)
    by_chance = dict.fromkeys(every, 0)
    days: dict[str, dict[str, list[float]]] = {name: {loss: [] for loss in LOSSES} for name in every}
    for paths in _portions(log, baseline, shuffles, seed):
        for name, rule in every.items():
            by_chance[name] += sum(len(alerts) for alerts in rule(paths["null"]))
            for loss in LOSSES:
                days[name][loss] += _first_days(rule(paths[loss]), paths[loss])
    calls = log.path.call != FLAT
    return {
        "log": {
            "bars": len(log.starts_ns),
            "calls": int(np.count_nonzero(calls)),
            "days": length,
            "first_day": iso_date(int(log.days[0])),
            "hit_ratio": float(np.mean(log.path.right[calls])) if calls.any() else None,
            "last_day": iso_date(int(log.days[-1])),
            "validated_hit_ratio": baseline.hit_ratio.rate if baseline.hit_ratio else None,
        },
        "rules": {
            name: _logged(rule, log)
            | {
                "delay_days": {loss: _median(found) for loss, found in days[name].items()},
                "false_alerts_per_quarter": round(by_chance[name] / shuffles * QUARTER_DAYS / length, 2),
            }
            for name, rule in every.items()
        },
        "seed": seed,
        "shuffles": shuffles,
    }


def _portions(
    log: OutcomeLog, baseline: MonitoringBaseline, shuffles: int, seed: int
) -> Iterator[dict[str, list[Path]]]:
    """Orders of the days under the null and under each loss, as many at once as fit into memory; each has its own seed."""
    size = max(_MOST_ROWS // len(log.path.call), 1)
    hit_ratio = baseline.hit_ratio.rate if baseline.hit_ratio else 1.0
    for first in range(0, shuffles, size):
        paths: dict[str, list[Path]] = {name: [] for name in ("null", *LOSSES)}
        for number in range(first, min(first + size, shuffles)):
            random = np.random.default_rng([seed, number])
            null = as_validated(log.shuffled(random.permutation(len(log.days))), baseline, random)
            paths["null"].append(null)
            for name, loss in LOSSES.items():
                paths[name].append(with_loss(null, loss / hit_ratio, random))
        yield paths


def _logged(rule: Rule, log: OutcomeLog) -> dict[str, Any]:
    """What a rule said of the log as it was."""
    (alerts,) = rule([log.path])
    return {
        "alerts": len(alerts),
        "first": iso_instant(int(log.starts_ns[alerts[0]])) if len(alerts) else None,
        "per_quarter": round(len(alerts) * QUARTER_DAYS / len(log.days), 2),
    }


def _first_days(alerts: Sequence[np.ndarray], paths: Sequence[Path]) -> list[float]:
    """Session days up to the first alert, that of the alert included; infinite where there is none."""
    return [
        float(path.day[one[0]]) + 1.0 if len(one) else np.inf for one, path in zip(alerts, paths, strict=True)
    ]


def _median(days: Sequence[float]) -> int | None:
    middle = median_delay(np.array(days))
    return None if middle is None else int(middle)


def as_validated(path: Path, baseline: MonitoringBaseline, random: np.random.Generator) -> Path:
    """The same calls, right as often as validated."""
    drawn = random.random(len(path.call))
    right = path.right.copy()
    for call, target in _targets(path, baseline).items():
        of = path.call == call
        share = float(np.mean(path.right[of]))
        if target > share:
            right |= of & (drawn < (target - share) / (1.0 - share))
        elif target < share:
            right &= ~(of & (drawn < (share - target) / share))
    return replace(path, right=right, decisive=_decisive(path, right))


def with_loss(path: Path, share: float, random: np.random.Generator) -> Path:
    """The same, with such a share of the right calls missed."""
    missed = (path.call != FLAT) & (random.random(len(path.call)) < share)
    right = path.right & ~missed
    return replace(path, right=right, decisive=_decisive(path, right))


def _decisive(path: Path, right: np.ndarray) -> np.ndarray:
    """A miss that became a right call had a move, and a right call that is missed now has the opposite one."""
    decisive: np.ndarray = path.decisive | ((path.call != FLAT) & right)
    return decisive


def _targets(path: Path, baseline: MonitoringBaseline) -> dict[int, float]:
    """For each direction that was called the share of right rows that makes all three metrics as validated."""
    count = {call: int(np.count_nonzero(path.call == call)) for call in (LONG, SHORT, FLAT)}
    hit, long, accuracy = baseline.hit_ratio, baseline.precision_long, baseline.accuracy
    found: dict[int, float] = {}
    calls = count[LONG] + count[SHORT]
    if long is not None:
        found[LONG] = long.rate
    if hit is not None:
        found.setdefault(LONG, hit.rate)
        found[SHORT] = (hit.rate * calls - found[LONG] * count[LONG]) / max(count[SHORT], 1)
        if accuracy is not None:
            rows = calls + count[FLAT]
            found[FLAT] = (accuracy.rate * rows - hit.rate * calls) / max(count[FLAT], 1)
    return {call: min(max(target, 0.0), 1.0) for call, target in found.items() if count[call]}


def lines(told: Mapping[str, Any]) -> list[str]:
    """For a reader."""
    log = told["log"]
    live = "n/a" if log["hit_ratio"] is None else f"{log['hit_ratio']:.1%}"
    validated = "n/a" if log["validated_hit_ratio"] is None else f"{log['validated_hit_ratio']:.1%}"
    found = [
        f"{log['first_day']} .. {log['last_day']}: {log['days']} session days, {log['bars']:,} bars, {log['calls']:,} "
        f"calls; hit ratio {live}, validated {validated}",
        f"by chance: alerts a quarter ({QUARTER_DAYS} session days) were the model as good as validated, over "
        f"{told['shuffles']} random orders of these days (seed {told['seed']})",
        "-5, -10: median session days until a loss of so many points, from the first day on, is seen; never: half of the "
        "orders end first",
        "",
        f"{'rule':26} {'alerts':>6} {'a quarter':>9} {'by chance':>9} {'-5':>6} {'-10':>6}  first alert",
    ]
    for name, rule in told["rules"].items():
        delays = [rule["delay_days"][loss] for loss in LOSSES]
        words = ["never" if one is None else str(one) for one in delays]
        found.append(
            f"{name:26} {rule['alerts']:6,} {rule['per_quarter']:9.2f} {rule['false_alerts_per_quarter']:9.2f} "
            f"{words[0]:>6} {words[1]:>6}  {rule['first'] or 'none'}"
        )
    return [
        *found,
        "",
        f"{ROLLING}: the last {ROLLING_CALLS} calls lie {100 * ROLLING_DROP:.0f} points under the validated hit ratio. The "
        "cumulative sums are set to as",
        "many false alerts as a sequential detector if outcomes were independent: where chance brings more, they are not.",
    ]
