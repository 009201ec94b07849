"""`sqkit monitor simulate`: the rules as they are live, what chance does to them, and how soon they see a loss."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sqkit.production.bar_clock import BarClock
from sqkit.production.detectors import BernoulliCusum, RiskAdjustedCusum
from sqkit.production.live_outcomes import ClosedBar, Contract, OutcomeBook
from sqkit.production.model_watch import ModelWatch
from sqkit.production.monitor_simulation import OutcomeLog, as_validated, lines, simulate, with_loss
from sqkit.production.run_lengths import cusum_threshold
from sqkit.production.simulated_rules import rules_of
from sqkit.production.slot_monitor import _outcomes_of
from sqkit.records import FLAT, LONG, UNKNOWN
from sqkit.sequential_bets import miss_rate_bound
from sqkit.sessions import load_sessions
from tests import watched
from tests.monitored import BASELINE, HIT_RATE, LIVE, Market, rules
from tests.project import Project

SESSIONS = 10
CLOCK = BarClock(load_sessions("us"), "1m")


def closed_bars(market: Market, sessions: int) -> list[ClosedBar]:
    """Every bar of a market as monitoring closes it."""
    book = OutcomeBook(CLOCK, lambda model: Contract(1, 0.5))
    for record in market.records(range(sessions)):
        book.add(record)
    return list(book.closed())


def outcomes_of(bars: Sequence[ClosedBar]) -> list[tuple[Any, ...]]:
    """What the store keeps of them."""
    return [row for bar in bars for row in _outcomes_of(bar)]


@pytest.fixture(scope="module")
def good() -> list[ClosedBar]:
    """A model that is as good as validated."""
    return closed_bars(Market(SESSIONS, {0: (HIT_RATE, HIT_RATE)}), SESSIONS)


@pytest.fixture(scope="module")
def failed() -> list[ClosedBar]:
    """A model that fails from the third session on."""
    return closed_bars(Market(6, {0: (HIT_RATE, HIT_RATE), 2: (0.45, HIT_RATE)}), 6)


@pytest.fixture(scope="module")
def told(good: list[ClosedBar]) -> dict[str, Any]:
    """The simulation on the good model."""
    return simulate(outcomes_of(good), BASELINE, rules(days_between_false_alerts=10.0), CLOCK, shuffles=40)


def test_the_rules_are_those_that_watch_live(failed: list[ClosedBar]) -> None:
    """Bar for bar the given rules and the detectors of `ModelWatch`, begun again after an alert, alert at the same ones."""
    asked = rules(
        days_between_false_alerts=2.0,
        alert_cooldown_hours=0.0,
        accuracy_floor_days=2,
        accuracy_floor_ratio=1.0,
    )
    outcomes = outcomes_of(failed)
    log = OutcomeLog(outcomes, CLOCK, 1)
    known = {row[1] for row in outcomes}
    live = ModelWatch(LIVE, "", BASELINE, asked, daily=False)
    expected: dict[str, list[int]] = {}
    before: set[str] = set()
    for number, bar in enumerate(bar for bar in failed if bar.start_ns in known):
        rows = {name: row for name, row in bar.rows.items() if row.outcome != UNKNOWN}
        live.add(
            ClosedBar(bar.number, bar.in_session, bar.day, bar.start_ns, bar.known_at_ns, rows),
            CLOCK.hours(CLOCK.available_ns(bar.start_ns, bar.day)),
        )
        assert live.rules is not None
        broken = set(live.rules.breaches())
        for name in broken - before:
            expected.setdefault(name, []).append(number)
        before = broken
        for detector in live.alarms():
            expected.setdefault(f"sequential_{detector.metric}", []).append(number)
            detector.reset()
    found = {name: rule([log.path])[0].tolist() for name, rule in rules_of(BASELINE, asked, log.path).items()}

    assert set(expected) >= {"hit_ratio_drop", "accuracy_floor", "sequential_hit_ratio"}
    for name in ("precision_drop", "hit_ratio_drop", "accuracy_floor"):
        assert found[name] == expected.get(name, []), name
    for name in ("sequential_hit_ratio", "sequential_precision_long"):
        assert found[name] == expected.get(name, []), name


def test_the_cumulative_sums_are_those_of_the_detectors(failed: list[ClosedBar]) -> None:
    """Per outcome and risk-adjusted: where `BernoulliCusum` and `RiskAdjustedCusum` reach their thresholds."""
    asked = rules(days_between_false_alerts=2.0)
    log = OutcomeLog(outcomes_of(failed), CLOCK, 1)
    path = log.path
    calls = np.flatnonzero(path.call != FLAT)
    bound = miss_rate_bound(BASELINE.hit_ratio)
    assert bound is not None
    plain = BernoulliCusum(bound, bound + 0.1)
    threshold = cusum_threshold(4.0 * len(calls) / 6, bound, bound + 0.1)
    decisive = calls[path.decisive[calls]]
    claimed = float(np.mean(path.claimed_miss[decisive]))
    adjusted = RiskAdjustedCusum(2.0)
    other = cusum_threshold(4.0 * len(decisive) / 6, claimed, 2.0 * claimed / (1.0 + claimed))
    expected: dict[str, list[int]] = {"cusum_outcome": [], "risk_adjusted_cusum": []}
    for row in calls:
        if plain.update(float(not path.right[row])) >= threshold:
            expected["cusum_outcome"].append(int(path.bar[row]))
            plain.level = 0.0
    for row in decisive:
        if adjusted.update(float(not path.right[row]), float(path.claimed_miss[row])) >= other:
            expected["risk_adjusted_cusum"].append(int(path.bar[row]))
            adjusted.level = 0.0

    found = rules_of(BASELINE, asked, path)
    for name, bars in expected.items():
        assert bars
        assert found[name]([path])[0].tolist() == bars, name


def test_a_rolling_window_alerts_by_chance_more_often_than_a_detector(told: dict[str, Any]) -> None:
    """200 calls and 5 points: many times a quarter; the e-detector seldom, as set."""
    by_chance = {name: rule["false_alerts_per_quarter"] for name, rule in told["rules"].items()}

    assert by_chance["rolling_200"] > 10.0 * max(by_chance["sequential_hit_ratio"], 0.5)
    assert by_chance["sequential_hit_ratio"] <= 63 / 20


def test_a_larger_loss_is_seen_sooner(told: dict[str, Any]) -> None:
    """10 points before 5, by every rule that sees both."""
    for name, rule in told["rules"].items():
        small, large = (rule["delay_days"][loss] for loss in ("5_points", "10_points"))
        assert large is not None or small is None, name
        assert small is None or large <= small, name
    assert told["rules"]["sequential_hit_ratio"]["delay_days"]["10_points"] is not None


def test_the_null_is_what_it_says(failed: list[ClosedBar]) -> None:
    """Days in another order with all their rows, calls as they were, right as often as validated; a loss takes its points."""
    log = OutcomeLog(outcomes_of(failed), CLOCK, 1)
    random = np.random.default_rng(1)
    order = np.array([3, 1, 5, 0, 4, 2])
    path = log.shuffled(order)
    null = as_validated(path, BASELINE, random)
    worse = with_loss(null, 0.1 / HIT_RATE, random)
    calls = path.call != FLAT
    day = log.path.day[log.path.bar]

    for place, original in enumerate(order):
        rows, was = path.day[path.bar] == place, day == original
        assert np.array_equal(path.call[rows], log.path.call[was])
        assert np.array_equal(path.right[rows], log.path.right[was])
    assert np.all(np.diff(path.bar) >= 0)
    assert np.all(np.diff(path.hours) > 0)
    assert np.mean(path.right[calls]) < 0.55
    assert np.mean(null.right[calls]) == pytest.approx(HIT_RATE, abs=0.02)
    assert np.mean(null.right[path.call == LONG]) == pytest.approx(HIT_RATE, abs=0.03)
    assert np.mean(null.right[calls]) - np.mean(worse.right[calls]) == pytest.approx(0.1, abs=0.02)


def test_the_same_seed_gives_the_same_figures(good: list[ClosedBar]) -> None:
    """To the last digit, in whatever order the rows come; another seed gives others."""
    rows = outcomes_of(good)[:3000]
    first = simulate(rows, BASELINE, rules(), CLOCK, shuffles=5, seed=3)

    assert simulate(rows[::-1], BASELINE, rules(), CLOCK, shuffles=5, seed=3) == first
    assert simulate(rows, BASELINE, rules(), CLOCK, shuffles=5, seed=4)["rules"] != first["rules"]


def test_it_reads_well(told: dict[str, Any]) -> None:
    """What is measured in words, a row for every rule, no line without end."""
    text = lines(told)

    assert "session days" in text[0]
    assert "by chance" in text[1]
    for name in told["rules"]:
        assert any(line.startswith(f"{name} ") for line in text), name


def test_on_the_command_line(tmp_path: Path) -> None:
    """An empty project says so; a monitored slot gets its table, twice the same; an unknown model is refused."""
    market = {"SENSEQUANT_MARKET": "us"}
    empty = Project(tmp_path / "empty")
    empty.root.mkdir()
    said = empty.sqkit("monitor", "simulate", environment=market)
    assert said.returncode == 0, said.stderr
    assert "nothing is monitored here yet" in said.stdout

    desk = watched.Desk(watched.project(tmp_path / "project"), student_auto_rollback_enabled=False)
    desk.feed(watched.feed_of([watched.REVERSING] * 2 + [watched.PERSISTING]))
    desk.close()
    project = Project(tmp_path / "project")
    words = ("monitor", "simulate", "--shuffles", "5", "--json")
    first, second = (project.sqkit(*words, environment=market) for _ in range(2))
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout
    assert json.loads(first.stdout)["slots"]["default"]["rules"]["sequential_hit_ratio"]["alerts"] >= 1
    refused = project.sqkit(*words, "--model", "ffff", environment=market)
    assert refused.returncode == 2
    assert "known:" in refused.stderr
