"""The section of the checklist's page that says how the live model would be watched, and what that implies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqkit.checklist_tables import inline, table

_RULES: Final = {
    "precision_drop": "precision drop",
    "hit_ratio_drop": "hit-ratio drop",
    "accuracy_floor": "accuracy floor",
    "sequential_precision_long": "sequential, precision (LONG)",
    "sequential_hit_ratio": "sequential, hit ratio",
}
_FAULTS: Final = {
    "all_long": "calls all LONG",
    "ten_times_the_calls": "calls ten times too often",
    "never_calls": "never calls",
    "never_scored": "is never scored",
}
_LOSSES: Final = {"5_points": "a loss of 5 points is seen in", "10_points": "of 10 points in"}


def monitoring_section(monitoring: Mapping[str, Any]) -> list[str]:
    """Rules, how often they alert by chance, how soon they see a loss, and the warnings.

    Parameters
    ----------
    monitoring
        As `sqkit.checklist.generate_promotion_checklist` takes it.
    """
    implies = monitoring["implies"]
    rows = [_row(name, implies["rules"][name]) for name in _in_order(implies["rules"], _RULES)]
    lines = [
        "## Live Monitoring",
        "",
        "What the settings imply, by simulation: false alerts in a quarter of 63 session days if the model is as good as "
        "validated, and session days until half of such losses are seen.",
        "",
        *table(rows, list(rows[0])),
    ]
    if implies["behaviour"] is not None:
        lines += ["", _behaviour(implies["behaviour"])]
    if implies["warnings"]:
        lines += ["", *(f"- {inline(line)}" for line in implies["warnings"])]
    return lines


def _in_order(found: Mapping[str, Any], known: Mapping[str, str]) -> list[str]:
    """Known names first, then any other: the same page from memory and from the file."""
    return [*(name for name in known if name in found), *sorted(set(found) - set(known))]


def _row(name: str, said: Mapping[str, Any]) -> dict[str, str]:
    if not said["can_fire"]:
        return {
            "rule": _RULES.get(name, name),
            "false alerts a quarter": "cannot fire",
            **dict.fromkeys(_LOSSES.values(), "never"),
        }
    return {
        "rule": _RULES.get(name, name),
        "false alerts a quarter": f"{said['false_alerts_per_quarter']:.2f}",
        **{words: _days(said["delay_days"][loss]) for loss, words in _LOSSES.items()},
    }


def _days(days: float | None) -> str:
    return "over 252 days" if days is None else f"{days:g} days"


def _behaviour(behaviour: Mapping[str, Any]) -> str:
    """How soon faults of behaviour are seen, without any outcome."""
    seen = behaviour["bars_until_seen"]
    said = [
        f"{_FAULTS.get(name, name)}: {'not seen by this' if seen[name] is None else f'{seen[name]} bars'}"
        for name in _in_order(seen, _FAULTS)
    ]
    often = 1.0 / behaviour["false_alarms_per_day"]
    return f"Without outcomes, at one false alarm in {often:g} days, a model that {'; '.join(said)}."
