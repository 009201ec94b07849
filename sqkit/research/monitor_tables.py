"""Tables of the dashboard: what would roll back, detectors, symbols, models beside the served one, history, counts.

In: what `sqkit.production.monitor_reading.read_slot` gives, handed over by the notebook. Out: rows for
`sqkit.research.display.show_table`, empty where nothing is known, and the lines above them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqkit.records import iso_date
from sqkit.research.monitor_text import (
    DIGITS,
    Reading,
    Row,
    interval,
    large,
    moment,
    percent,
    points,
    readable,
    span,
    within,
)
from sqkit.research.views import NOTHING, TITLES

SYMBOLS_SHOWN: Final = 20
_RULES: Final = {
    "sequential_hit_ratio": "detector, hit ratio",
    "sequential_precision_long": "detector, precision (LONG)",
    "hit_ratio_drop": "hit ratio drop",
    "precision_drop": "precision drop",
    "accuracy_floor": "accuracy floor",
}
_COUNTS: Final = {
    "predictions": "predictions read",
    "duplicate": "a bar's prediction came twice (several hosts, or a restart); the first one counts",
    "conflicting": "the second one said something else",
    "late": "came after the bar was closed; left out",
    "revised": "bars that the feed corrected later",
    "broken": "records of another form; left out",
    "session_end": "no outcome: the session ended before the horizon",
    "no_history": "no outcome: too few bars before it",
    "missing": "no outcome: a bar that it needs never came",
}


def window_words(known: Reading) -> str:
    """Length of the rolling window; 24 of its hours are a session day."""
    return f"the last {known['rules']['window_hours']:g} session hours"


def rollback_line(known: Reading) -> str:
    """What stands between now and a rollback or halt by the machine, in one sentence."""
    status = known["status"]
    if status is None:
        return "nothing would be rolled back: nothing is monitored yet"
    allowed = "" if status["acts"] else "; automatic rollback is off, so a person would have to act"
    if status["confirmation"] is None:
        nearest = max(
            status["detectors"].items(),
            key=lambda pair: pair[1]["level"] / pair[1]["threshold"],
            default=None,
        )
        reached = (
            "no detector watches it"
            if nearest is None
            else f"the nearest detector, {within(TITLES[nearest[0]])}, stands at {large(nearest[1]['level'])} of "
            f"{nearest[1]['threshold']:g} session days"
        )
        return f"nothing would be rolled back now: {reached}{allowed}"
    if status["refused"]:
        return f"a rollback was refused: {status['refused']}{allowed}"
    return f"a rollback is being considered; it happens when every line holds{allowed}"


def rollback_rows(known: Reading) -> list[Row]:
    """Each condition of an automatic rollback, and whether it holds; empty where none is considered."""
    status, rules = known["status"], known["rules"]
    confirmation = status["confirmation"] if status else None
    if confirmation is None:
        return []
    needed, previous = confirmation["needed"], confirmation["previous"]
    waited = known["waited_hours"]
    conditions = [
        ("automatic rollback is allowed", "yes" if status["acts"] else "no", "yes", status["acts"]),
        ("an earlier release ran beside it", previous or "none: halts instead", "one", bool(previous)),
        _reaches("fresh outcomes: it is worse than validated", confirmation["live"], needed),
        _reaches("the earlier release is better on the same bars", confirmation["pair"], needed),
        (
            "the earlier release does not fail as well (else it halts)",
            large(confirmation["archived"]),
            f"below {needed:g}",
            confirmation["archived"] < needed,
        ),
        _reaches("calls since the alert", confirmation["calls"], rules["min_samples"]),
        (
            "session hours since the alert",
            NOTHING if waited is None else f"{waited:.1f}",
            f"{rules['confirmation_hours']:g}",
            waited is not None and waited >= rules["confirmation_hours"],
        ),
    ]
    return [
        {"condition": what, "now": now, "needed": asked, "": "✅ holds" if holds else "❌ not yet"}
        for what, now, asked, holds in conditions
    ]


def _reaches(what: str, value: float, needed: float) -> tuple[str, str, str, bool]:
    return what, large(value), f"{needed:g}", value >= needed


def detector_rows(known: Reading) -> list[Row]:
    """Level and threshold of each detector."""
    return [
        {
            "detector": TITLES[name],
            "level, session days": large(one["level"]),
            "threshold": f"{one['threshold']:g}",
            "": "❌ reached" if one["level"] >= one["threshold"] else "✅ below",
        }
        for name, one in (known["status"] or {"detectors": {}})["detectors"].items()
    ]


def rule_rows(known: Reading) -> list[Row]:
    """For each rule: false alerts a quarter, and session days until half of such losses are seen."""
    rules = (known["implies"] or {}).get("rules", {})
    return [
        {
            "rule": title,
            "false alerts a quarter": _false_alerts(rules[name]),
            "5 points lost": _days(rules[name], "5_points"),
            "10 points lost": _days(rules[name], "10_points"),
        }
        for name, title in _RULES.items()
        if name in rules
    ]


def delay_line(implies: Mapping[str, Any] | None) -> str:
    """After how many session days a loss would be seen by the detector of the hit ratio."""
    said = (implies or {}).get("rules", {}).get("sequential_hit_ratio")
    if said is None:
        return "not known: the release's decision does not say"
    if not said["can_fire"]:
        return f"not by the detector of the hit ratio: {said['reason']}"
    return (
        f"of 5 points after {_days(said, '5_points')}, of 10 points after {_days(said, '10_points')} "
        "(session days, median)"
    )


def _false_alerts(said: Mapping[str, Any]) -> str:
    return f"{said['false_alerts_per_quarter']:.2f}" if said["can_fire"] else "cannot fire"


def _days(said: Mapping[str, Any], loss: str) -> str:
    if not said["can_fire"]:
        return "never"
    days = said["delay_days"][loss]
    return "over 252" if days is None else f"{days:g}"


def symbol_rows(known: Reading) -> list[Row]:
    """The worst symbols first, with intervals."""
    return [
        {
            "symbol": one["symbol"],
            "calls": one["calls"],
            "hit ratio": percent(one["hit_ratio"]),
            "hit ratio, 95 %": span(interval(one["hit_ratio"], one["calls"])),
            "LONG calls": one["calls_long"],
            "precision (LONG)": percent(one["precision_long"]),
            "precision, 95 %": span(interval(one["precision_long"], one["calls_long"])),
        }
        for one in known["by_symbol"][:SYMBOLS_SHOWN]
    ]


def symbols_line(known: Reading) -> str:
    """Which symbols the table shows, and over which session days."""
    count = len(known["by_symbol"])
    shown = f"the worst {SYMBOLS_SHOWN} of {count:,} symbols" if count > SYMBOLS_SHOWN else "all symbols"
    return f"Slot {known['slot']}, {shown}, {span_words(known)}"


def span_words(known: Reading) -> str:
    """The session days that figures and tables cover."""
    days = sorted({bar["session_day"] for bar in known["bars"]})
    if not days:
        return "no session day"
    return f"{iso_date(days[0])} to {iso_date(days[-1])} ({len(days)} session days)"


def beside_rows(known: Reading) -> list[Row]:
    """Each model that was asked beside the served one, on their common rows."""
    rows = []
    for one in known["beside"]:
        served, other = one["served"], one["shadow"]
        rows.append(
            {
                "asked beside": f"{one['role']} {one['model'][:DIGITS]}",
                "common rows": other["rows"],
                "hit ratio, served": percent(served["hit_ratio"]),
                "hit ratio, other": percent(other["hit_ratio"]),
                "other - served": points(other["hit_ratio"], served["hit_ratio"]),
                "precision, served": percent(served["precision_long"]),
                "precision, other": percent(other["precision_long"]),
            }
        )
    return rows


def step_rows(known: Reading) -> list[Row]:
    """Changes of state, newest first."""
    return [
        {
            "at": moment(step["at"]),
            "state": f"{step['before']} → {step['after']}",
            "model": step["model"],
            "why": readable(step["reason"]),
        }
        for step in reversed(known["steps"])
    ]


def count_rows(known: Reading) -> list[Row]:
    """What was read, and what of it does not count; names of later versions are shown as they are."""
    counts = (known["status"] or {"counts": {}})["counts"]
    if not counts:
        return []
    names = [*(name for name in _COUNTS if name in counts), *sorted(set(counts) - set(_COUNTS))]
    always = [name for name in ("duplicate", "late") if name not in counts]
    return [
        {"what": name.replace("_", " "), "count": counts.get(name, 0), "meaning": _COUNTS.get(name, "")}
        for name in [*names, *always]
    ]
