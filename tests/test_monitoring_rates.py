"""What monitoring settings imply: against closed forms, against the live detector, and in plain words."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from sqkit.checklist_monitoring import monitoring_section
from sqkit.detector_rates import mixture_step
from sqkit.monitoring_baseline import MonitoringBaseline, MonitoringRules, Rate
from sqkit.monitoring_rates import RULES, implied
from sqkit.production import detectors
from sqkit.rule_figures import QUARTER_DAYS, YEAR_DAYS
from sqkit.sequential_bets import bets_of
from sqkit.settings import Settings
from sqkit.window_rates import alerts_begin

DEFAULTS = MonitoringRules.from_settings(Settings(_env_file=None))


def baseline(
    interval: str = "1d",
    *,
    symbols: int = 5,
    share_called: float = 1.0,
    horizon: int = 5,
    days: int = 120,
    independent: float = 1.0,
    hit_ratio: float = 0.6,
) -> MonitoringBaseline:
    """A validation whose calls are worth a share `independent` of their number."""
    bars = {"1d": 1, "5m": 75, "1m": 375}[interval]
    rows = symbols * days * (bars if bars == 1 else bars - horizon)
    calls = int(rows * share_called)

    def rate(value: float, count: int) -> Rate:
        return Rate(value, count, count * independent)

    return MonitoringBaseline(
        hit_ratio=rate(hit_ratio, calls),
        precision_long=rate(hit_ratio, calls // 2),
        accuracy=rate(0.5, rows),
        horizon_bars=horizon,
        dead_zone=0.5,
        interval=interval,
        market="nse",
        strategy="swing" if bars == 1 else "intraday",
        bars_per_session=bars,
        session_days=days,
        symbols=symbols,
        called_bars=min(rows // symbols, calls),
        long_called_bars=min(rows // symbols, calls // 2),
    )


def rule(name: str, of: MonitoringBaseline, **changes: Any) -> dict[str, Any]:
    """What one rule is said to do, default settings with changes."""
    said: dict[str, Any] = implied(of, replace(DEFAULTS, **changes))["rules"][name]
    return said


class TestTheLiveDetector:
    """The hall's copy of the recursion is the live detector's."""

    @pytest.mark.parametrize("miss_rate", [0.05, 0.4, 0.9])
    def test_the_same_path(self, miss_rate: float) -> None:
        """On a random path of misses and weights both have the same level after every outcome."""
        random = np.random.default_rng(3)
        live, bets = detectors.MixtureShiryaevRoberts(miss_rate), np.array(bets_of(miss_rate))
        levels = np.zeros((1, len(bets)))
        for miss, weight in zip(random.random(200), random.random(200), strict=True):
            live.update(miss, weight=weight)
            levels = mixture_step(levels, np.array([miss]), miss_rate, bets, weight)
            assert levels.mean() == pytest.approx(live.level, rel=1e-12)


class TestFalseAlerts:
    """How often a model as good as validated alerts."""

    def test_a_window_of_independent_days(self) -> None:
        """Days that share no label: an alert begins where a day lies below and the one before did not."""
        of = baseline(symbols=200, horizon=1, independent=0.1)
        deviation = np.sqrt(0.6 * 0.4 / 20)
        below = NormalDist().cdf(-0.10 / deviation)

        assert rule("hit_ratio_drop", of)["false_alerts_per_quarter"] == pytest.approx(
            QUARTER_DAYS * below * (1 - below), rel=0.05
        )

    def test_a_floor_of_one_day(self) -> None:
        """The same closed form for the accuracy floor of a single day."""
        of = baseline(symbols=20, horizon=1)
        below = NormalDist().cdf(-0.1 * 0.5 / np.sqrt(0.5 * 0.5 / 20))
        said = rule("accuracy_floor", of, accuracy_floor_days=1)
        assert said["false_alerts_per_quarter"] == pytest.approx(QUARTER_DAYS * below * (1 - below), rel=0.05)

    def test_detectors_keep_their_budget(self) -> None:
        """Calls that are independent but for their bar: at most one alert in 2 x 100 days each."""
        for of in (baseline(), baseline("5m", symbols=10, share_called=0.3)):
            for name in ("sequential_hit_ratio", "sequential_precision_long"):
                assert rule(name, of)["false_alerts_per_quarter"] <= QUARTER_DAYS / 200

    def test_less_information_more_alerts(self) -> None:
        """The fewer of the calls are independent, the more often a window falls by chance."""
        found = [
            rule("hit_ratio_drop", baseline(symbols=200, horizon=1, independent=share))[
                "false_alerts_per_quarter"
            ]
            for share in (1.0, 0.3, 0.1)
        ]
        assert found == sorted(found)
        assert found[0] < found[-1]

    def test_each_setting_counts(self) -> None:
        """A larger drop, a longer window, a lower floor, more days in a row, a longer budget: fewer false alerts."""
        of = baseline("5m", symbols=20, share_called=0.3, horizon=15, independent=0.02)
        for name, changes in (
            ("hit_ratio_drop", {"hit_ratio_drop_threshold": 0.2}),
            ("hit_ratio_drop", {"window_hours": 240.0}),
            ("precision_drop", {"precision_drop_threshold": 0.2}),
            ("accuracy_floor", {"accuracy_floor_ratio": 0.8}),
            ("accuracy_floor", {"accuracy_floor_days": 6}),
            ("sequential_hit_ratio", {"days_between_false_alerts": 1000.0}),
        ):
            before, after = rule(name, of), rule(name, of, **changes)
            assert after["false_alerts_per_quarter"] < before["false_alerts_per_quarter"], (name, changes)

    def test_an_alert_lasts_until_a_step_without_breach_after_its_cooldown(self) -> None:
        """A gap shorter than the cooldown, or one in which nothing was looked at, begins no new alert."""
        hours = np.array([0.0, 1.0, 2.0, 9.0, 24.0, 25.0])
        broken = np.array([[1, 0, 1, 0, 1, 0], [0, 0, 1, 1, 1, 1], [1, 0, 0, 0, 0, 1]], dtype=bool)
        assert alerts_begin(broken, hours, 6.0).tolist() == [
            [True, False, False, False, True, False],
            [False, False, True, False, False, False],
            [True, False, False, False, False, True],
        ]
        assert not alerts_begin(broken[:1, :5], np.array([0.0, 1.0, 2.0, 3.0, 24.0]), 6.0)[0, 4]


class TestDelays:
    """How soon a loss is seen."""

    def test_the_larger_loss_sooner(self) -> None:
        """Under every rule a loss of 10 points is seen no later than one of 5."""
        said = implied(baseline("5m", symbols=10, share_called=0.3), DEFAULTS)["rules"]
        for name in RULES:
            five, ten = (said[name]["delay_days"][loss] for loss in ("5_points", "10_points"))
            assert five is None or ten <= five, name

    def test_more_outcomes_sooner(self) -> None:
        """Detectors see a loss sooner where a day has more independent calls."""
        few, many = (
            rule("sequential_hit_ratio", baseline("5m", symbols=symbols))["delay_days"]["5_points"]
            for symbols in (1, 20)
        )
        assert many < few

    def test_not_within_a_year(self) -> None:
        """Where half of the paths see nothing in 252 session days, there is no delay to state."""
        said = rule("sequential_hit_ratio", baseline(symbols=1), days_between_false_alerts=10_000.0)
        assert said["delay_days"] == {"5_points": None, "10_points": None}
        assert said["can_fire"]


class TestWords:
    """Warnings, form and cost."""

    def test_five_daily_symbols_never_reach_a_hundred(self) -> None:
        """A window of one day holds five calls at most; the rule can never fire, and that is said."""
        said = implied(baseline(symbols=5), DEFAULTS)
        for name in ("precision_drop", "hit_ratio_drop"):
            assert said["rules"][name]["can_fire"] is False
            assert said["rules"][name]["false_alerts_per_quarter"] is None
            assert any(line.startswith(f"{name} can never fire: ") for line in said["warnings"])
        assert rule("hit_ratio_drop", baseline(symbols=5), window_hours=24.0 * 30)["can_fire"]

    def test_rarely_is_not_never(self) -> None:
        """A window that could hold enough, and usually does not, is not said to be unable."""
        said = rule("hit_ratio_drop", baseline(symbols=150, share_called=0.5))
        assert said["can_fire"] is False
        assert said["reason"].startswith("does not usually fire")

    def test_chance_alerts_are_said(self) -> None:
        """A rule that fires by chance more than once a quarter is named with its figure; others are not."""
        said = implied(baseline("5m", symbols=20, share_called=0.3, horizon=15, independent=0.02), DEFAULTS)
        for name, found in said["rules"].items():
            often = found["false_alerts_per_quarter"]
            line = f"{name} fires by chance {often:.3g} times a quarter"
            assert any(one.startswith(line) for one in said["warnings"]) == (often > 1.0), name

    def test_nothing_validated(self) -> None:
        """Without any call nothing can fire but the floor, and that no rule sees a loss is said where it is so."""
        of = replace(baseline(), hit_ratio=None, precision_long=None, accuracy=None)
        said = implied(replace(of, called_bars=0, long_called_bars=0), DEFAULTS)
        assert not any(found["can_fire"] for found in said["rules"].values())
        assert said["warnings"][-1].startswith("no rule sees a loss of 10 points")

    @pytest.mark.parametrize(
        "of",
        [
            baseline(hit_ratio=1.0),
            baseline(hit_ratio=0.0),
            baseline(days=1, symbols=1),
            baseline("1m", share_called=0.0005, symbols=1),
        ],
        ids=["always right", "never right", "one day", "next to no calls"],
    )
    def test_odd_validations(self, of: MonitoringBaseline) -> None:
        """Extreme rates and next to no data give figures, never an error; everything is plain JSON."""
        said = implied(of, DEFAULTS)
        assert json.loads(json.dumps(said, allow_nan=False)) == said
        assert set(said["rules"]) == set(RULES)

    def test_the_same_every_time_and_soon(self) -> None:
        """Two calls give the same figures; the largest usual baseline takes less than a second and a half."""
        of = baseline("1m", symbols=20, share_called=0.25, horizon=15, independent=0.05)
        began = time.process_time()
        said = implied(of, DEFAULTS)
        assert time.process_time() - began < 1.5
        assert implied(of, DEFAULTS) == said

    def test_on_the_page(self) -> None:
        """A row for each rule and a line for each warning; the order of the file's keys changes nothing."""
        said = implied(baseline(), DEFAULTS)
        turned = {**said, "rules": dict(sorted(said["rules"].items()))}
        lines = monitoring_section({"implies": said})

        assert lines[0] == "## Live Monitoring"
        assert sum(line.startswith("| ") for line in lines) == len(RULES) + 1
        assert lines[-len(said["warnings"]) :] == [f"- {line}" for line in said["warnings"]]
        assert monitoring_section({"implies": turned}) == lines
        assert f"over {YEAR_DAYS} days" in "\n".join(
            monitoring_section(
                {"implies": implied(baseline(symbols=1), replace(DEFAULTS, days_between_false_alerts=1e4))}
            )
        )
