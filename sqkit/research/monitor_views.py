"""The live model as a reader wants it: rows and lines for the dashboard, from plain values.

In: what `sqkit.production.monitor_reading.read_slot` gives, handed over by the notebook; nothing of production is
imported here. Out: rows for `sqkit.research.display.show_table` and lines. Where nothing is known, that is what is said.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqkit.records import iso_date
from sqkit.research.paired_statistics import wilson_interval
from sqkit.research.views import NOTHING, TITLES

Row = dict[str, Any]
Reading = Mapping[str, Any]

SAMPLES: Final = {"hit_ratio": "calls", "precision_long": "calls_long", "accuracy": "rows"}
"""Metrics in the order in which they are shown, each with the count behind it."""

SYMBOLS_SHOWN: Final = 20
_DIGITS: Final = 12
_UNCOUNTED: Final = 1e6
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


def read_line(readings: Sequence[Reading]) -> str:
    """When the page was read, and what to do where nothing is monitored."""
    at = moment(readings[0]["read_at"]) if readings else "never"
    if any(known["status"] for known in readings):
        return f"Read at {at}."
    return (
        f"Read at {at}. Nothing is monitored yet: no outcome was judged here. Start an engine with "
        "`SENSEQUANT_STUDENT_MONITORING_ENABLED=true`, or see `sqkit monitor --help`."
    )


def states(readings: Sequence[Reading]) -> dict[str, str | None]:
    """Slot to its state; None where it is not monitored."""
    return {known["slot"]: known["status"]["state"] if known["status"] else None for known in readings}


def with_bars(readings: Sequence[Reading]) -> list[Reading]:
    """Those of which there is something to draw."""
    return [known for known in readings if known["bars"]]


def slot_line(known: Reading) -> str:
    """The slot and its state in one line, for the top of its part of a page."""
    status = known["status"]
    if known["problem"]:
        return f"Slot **{known['slot']}**: {known['problem']}"
    if status is None:
        return f"Slot **{known['slot']}**: **NOT MONITORED**, nothing is monitored yet: no outcome of this slot was judged"
    return f"Slot **{known['slot']}** ({status['strategy']}): **{status['state']}**, {status['reason'] or 'no bar was judged yet'}"


def has_differences(known: Reading) -> bool:
    """Whether an engine proves to serve something else than the log has live."""
    return bool(known["differences"])


def served_line(known: Reading) -> str:
    """The model that engines prove to serve, with their hosts."""
    by_model: dict[tuple[str, str], list[str]] = {}
    for one in known["engines"]:
        name = model_name(one["model_version"], one["model"], one["refusal"])
        by_model.setdefault((name, one["model"] or ""), []).append(f"{one['host']} (pid {one['pid']})")
    if by_model:
        return "; ".join(f"{name} on {', '.join(hosts)}" for (name, _), hosts in by_model.items())
    last = known["last_engine"]
    if last is None:
        return "no engine has run here"
    name = model_name(last["model_version"], last["model"], last["refusal"])
    return f"no engine runs; the last one was {last['host']}, until {moment(last['heard'])}, with {name}"


def panel_rows(known: Reading) -> list[tuple[str, str, str]]:
    """The status panel: what, its value, and ``bad``, ``warn`` or nothing."""
    status, live = known["status"], known["live"]
    rows = [("served, by the engines' own files", served_line(known), "")]
    rows += [("NOT WHAT THE LOG HAS", line, "bad") for line in known["differences"]]
    said = model_name(live["model_version"], live["model"], None) if live else "no student"
    rows.append(("live, by the audit log", said, ""))
    rows += [("to know", line, "warn") for line in known["notes"]]
    if known["halted"]:
        rows.append(("halted", f"at level {known['halted']}: see sqkit status", "bad"))
    if status is None:
        return rows
    return [*rows, *_judged(known, status), *_state_rows(known, status)]


def _judged(known: Reading, status: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    digest = status["model_digest"]
    served = {str(one["model"]) for one in known["engines"] if one["model"]}
    other = bool(digest) and bool(served) and not any(model.startswith(digest) for model in served)
    later = "; engines serve another one, whose outcomes are not known yet" if other else ""
    judged = model_name(status["model_version"], digest, None) if digest else "no model yet"
    rows = [("judged by monitoring", judged + later, "warn" if other else "")]
    if digest and not status["validated"]:
        said = "its release says nothing of a validation, so it cannot be judged"
        rows.append(("validated at", said, "bad"))
    return rows


def _state_rows(known: Reading, status: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    rows = [("in this state", in_state(known), "")]
    for row in metric_rows(known):
        tone = "bad" if row[""].startswith("❌") else ""
        said = f"{row['live']} of {row['of']:,} (95 % interval {row['live, 95 %']}), validated {row['validated']}"
        rows.append((_within(row["metric"]), said, tone))
    for name, one in status["detectors"].items():
        tone = "bad" if one["level"] >= one["threshold"] else ""
        said = f"{large(one['level'])} of {one['threshold']:g} session days"
        rows.append((f"evidence of a loss, {_within(TITLES[name])}", said, tone))
    rows.append(("a loss would be seen", delay_line(known["implies"]), ""))
    pending = f"{status['pending_outcomes']:,} pending; last bar {moment(status['last_bar_time'])}"
    rows.append(("outcomes", pending, ""))
    wills = list(dict.fromkeys(alert["will"] for alert in status["alerts"]))
    rows += [("what happens next", will, "warn") for will in wills[:1]]
    return rows


def in_state(known: Reading) -> str:
    """Since when the slot is in its state, and for how many session days."""
    since, days = known["status"]["since"], known["days_in_state"]
    if since is None:
        return "from the beginning"
    return f"since {moment(since)}" + ("" if days is None else f", for {days:.1f} session days")


def metric_rows(known: Reading) -> list[Row]:
    """Rolling metrics with Wilson intervals, against the validated ones with theirs."""
    status = known["status"] or {"rolling": {}}
    least = known["rules"]["min_samples"]
    rows = []
    for name in (name for name in SAMPLES if name in status["rolling"]):
        one = status["rolling"][name]
        live, count = one["value"], one["count"]
        bounds = _interval(live, count)
        rows.append(
            {
                "metric": TITLES[name],
                "live": percent(live),
                "live, 95 %": _span(bounds),
                "of": count,
                "validated": percent(one["baseline"]),
                "validated, 95 %": _span(_validated(known["baseline"], name)),
                "difference": _points(live, one["baseline"]),
                "": _word(bounds, one["baseline"], count, least),
            }
        )
    return rows


def _word(bounds: tuple[float, float] | None, validated: float | None, count: int, least: int) -> str:
    if bounds is None or validated is None:
        return "not comparable"
    if count < least:
        return f"too few, {least:,} are asked"
    return "❌ below" if bounds[1] < validated else "✅ not below"


def _validated(baseline: Mapping[str, Any] | None, name: str) -> tuple[float, float] | None:
    rate = (baseline or {}).get(name)
    return wilson_interval(rate["rate"] * rate["effective"], rate["effective"]) if rate else None


def _interval(share: float | None, count: int) -> tuple[float, float] | None:
    return None if share is None else wilson_interval(round(share * count), count)


def window_line(known: Reading) -> str:
    """What the rolling metrics count."""
    return f"Slot {known['slot']}, over {window_words(known)} with a judged bar"


def window_words(known: Reading) -> str:
    """Length of the rolling window; 24 of its hours are a session day."""
    return f"the last {known['rules']['window_hours']:g} session hours"


def validated_hit_ratio(known: Reading) -> float | None:
    """The hit ratio that the judged model was validated at."""
    rate = (known["baseline"] or {}).get("hit_ratio")
    return rate["rate"] if rate else None


def alert_rows(known: Reading) -> list[Row]:
    """What fires, then what fired lately; who has seen it."""
    status = known["status"] or {"alerts": [], "recent_alerts": []}
    listed = {
        (one["fingerprint"], one["since"]): one for one in [*status["alerts"], *status["recent_alerts"]]
    }
    seen = known["acknowledged"]
    return [
        {
            "alert": one["name"].replace("_", " "),
            "severity": one["severity"],
            "since": moment(one["since"]),
            "ended": moment(one["resolved"]) if one["resolved"] else "❌ fires",
            "what": _readable(one["summary"].removeprefix(f"slot {known['slot']}: ")),
            "seen by": _seen(seen.get(one["fingerprint"])),
        }
        for one in sorted(
            listed.values(), key=lambda one: (one["resolved"] is not None, one["resolved"] or "")
        )
    ]


def _seen(said: Mapping[str, Any] | None) -> str:
    return "nobody yet" if said is None else str(said["by"]["name"])


def command_lines(known: Reading) -> str:
    """What somebody may type now, from the alerts that fire."""
    alerts = (known["status"] or {"alerts": []})["alerts"]
    typed = list(dict.fromkeys(command for alert in alerts for command in alert["commands"]))
    return "To type: " + ", ".join(f"`{command}`" for command in typed) + "." if typed else ""


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
            else f"the nearest detector, {_within(TITLES[nearest[0]])}, stands at {large(nearest[1]['level'])} of "
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
        {"condition": what, "now": now, "needed": asked, "": "✅" if holds else "❌"}
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
            "hit ratio, 95 %": _span(_interval(one["hit_ratio"], one["calls"])),
            "LONG calls": one["calls_long"],
            "precision (LONG)": percent(one["precision_long"]),
            "precision, 95 %": _span(_interval(one["precision_long"], one["calls_long"])),
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
                "asked beside": f"{one['role']} {one['model'][:_DIGITS]}",
                "common rows": other["rows"],
                "hit ratio, served": percent(served["hit_ratio"]),
                "hit ratio, other": percent(other["hit_ratio"]),
                "other - served": _points(other["hit_ratio"], served["hit_ratio"]),
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
            "why": _readable(step["reason"]),
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


def model_name(version: str | None, digest: str | None, refusal: str | None) -> str:
    """A model for a person: its version and the first digits of its digest."""
    if not digest:
        return f"no student ({refusal})" if refusal else "no student"
    return f"{version or 'no version'} · {digest[:_DIGITS]}"


def moment(instant: str | None) -> str:
    """An instant to the minute, UTC."""
    if not instant:
        return "none"
    return dt.datetime.fromisoformat(instant).astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M UTC")


def large(value: float) -> str:
    """Evidence for a person: beyond a million nobody counts."""
    if value >= _UNCOUNTED:
        return "over a million"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def percent(share: float | None) -> str:
    """A share with one decimal."""
    return NOTHING if share is None else f"{share:.1%}"


def _span(bounds: tuple[float, float] | None) -> str:
    return NOTHING if bounds is None else f"{100 * bounds[0]:.1f}–{100 * bounds[1]:.1f}%"


def _within(title: str) -> str:
    """A title inside a sentence; LONG stays LONG."""
    return title[:1].lower() + title[1:]


def _points(one: float | None, other: float | None) -> str:
    return NOTHING if one is None or other is None else f"{100 * (one - other):+.1f} pp"


def _readable(text: str) -> str:
    """A sentence without numbers of fifty digits."""
    return re.sub(r"\d{10,}", "over a million", text)
