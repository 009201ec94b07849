"""What monitoring settings imply for a validated model: how often they alert by chance, how soon they see a loss.

Simulated with fixed seeds (`sqkit.window_rates`, `sqkit.detector_rates`). A quarter has 63 session days. Delays are
medians.
"""

from __future__ import annotations

from typing import Any, Final

from sqkit.behaviour_limits import detectable
from sqkit.detector_rates import sequential_detector
from sqkit.monitoring_baseline import MonitoringBaseline, MonitoringRules
from sqkit.rule_figures import YEAR_DAYS
from sqkit.window_rates import accuracy_floor, rolling_window

RULES: Final = (
    "precision_drop",
    "hit_ratio_drop",
    "accuracy_floor",
    "sequential_precision_long",
    "sequential_hit_ratio",
)

_ADVICE: Final = {
    "precision_drop": "ask for a larger drop or a longer window",
    "hit_ratio_drop": "ask for a larger drop or a longer window",
    "accuracy_floor": "set a lower floor or more days",
    "sequential_precision_long": "set more days between false alerts",
    "sequential_hit_ratio": "set more days between false alerts",
}


def implied(baseline: MonitoringBaseline, rules: MonitoringRules) -> dict[str, Any]:
    """What the rules do with a model as good as validated, and with a worse one.

    Parameters
    ----------
    baseline
        Of the model.
    rules
        The settings.

    Returns
    -------
    dict
        ``rules``: for each of `RULES` ``can_fire``, ``reason`` (None where it can), ``false_alerts_per_quarter``, and
        ``delay_days``: session days until half of such losses are seen, ``5_points`` and ``10_points``; None beyond
        252. ``behaviour``: what `sqkit.behaviour_limits.detectable` says at one false alarm in as many days.
        ``warnings``: lines for a person.
    """
    found = {
        "precision_drop": rolling_window(
            baseline, rules, "precision_long", baseline.precision_long, rules.precision_drop_threshold
        ),
        "hit_ratio_drop": rolling_window(
            baseline, rules, "hit_ratio", baseline.hit_ratio, rules.hit_ratio_drop_threshold
        ),
        "accuracy_floor": accuracy_floor(baseline, rules),
        "sequential_precision_long": sequential_detector(
            baseline, rules, baseline.precision_long, baseline.long_called_bars
        ),
        "sequential_hit_ratio": sequential_detector(
            baseline, rules, baseline.hit_ratio, baseline.called_bars
        ),
    }
    behaviour = None
    if baseline.behaviour is not None:
        rate = min(1.0 / rules.days_between_false_alerts, 0.5)
        behaviour = {
            "bars_until_seen": detectable(baseline.behaviour, rate),
            "false_alarms_per_day": rate,
        }
    return {"behaviour": behaviour, "rules": found, "warnings": _warnings(found)}


def _warnings(found: dict[str, dict[str, Any]]) -> list[str]:
    """What a person should know of the settings, one line each."""
    lines = []
    for name, said in found.items():
        often = said["false_alerts_per_quarter"]
        if not said["can_fire"]:
            lines.append(f"{name} {said['reason']}")
        elif often > 1.0:
            lines.append(f"{name} fires by chance {often:.3g} times a quarter: {_ADVICE[name]}")
    if all(said["delay_days"]["10_points"] is None for said in found.values()):
        lines.append(f"no rule sees a loss of 10 points within {YEAR_DAYS} session days in half of the cases")
    return lines
