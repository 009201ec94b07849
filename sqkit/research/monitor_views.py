"""The live model as a reader wants it: the rows of its status panel, its metrics and its alerts.

In: what `sqkit.production.monitor_reading.read_slot` gives, handed over by the notebook; nothing of production is
imported here. Out: rows for `sqkit.research.display.show_table` and lines. Where nothing is known, that is what is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqkit.research.monitor_tables import delay_line, window_words
from sqkit.research.monitor_text import (
    Reading,
    Row,
    interval,
    large,
    model_name,
    moment,
    percent,
    points,
    readable,
    span,
    within,
)
from sqkit.research.paired_statistics import wilson_interval
from sqkit.research.views import TITLES

SAMPLES: Final = {"hit_ratio": "calls", "precision_long": "calls_long", "accuracy": "rows"}
"""Metrics in the order in which they are shown, each with the count behind it."""


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
        rows.append((within(row["metric"]), said, tone))
    for name, one in status["detectors"].items():
        tone = "bad" if one["level"] >= one["threshold"] else ""
        said = f"{large(one['level'])} of {one['threshold']:g} session days"
        rows.append((f"evidence of a loss, {within(TITLES[name])}", said, tone))
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
        bounds = interval(live, count)
        rows.append(
            {
                "metric": TITLES[name],
                "live": percent(live),
                "live, 95 %": span(bounds),
                "of": count,
                "validated": percent(one["baseline"]),
                "validated, 95 %": span(_validated(known["baseline"], name)),
                "difference": points(live, one["baseline"]),
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


def window_line(known: Reading) -> str:
    """What the rolling metrics count."""
    return f"Slot {known['slot']}, over {window_words(known)} with a judged bar"


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
            "what": readable(one["summary"].removeprefix(f"slot {known['slot']}: ")),
            "seen by": _seen(seen.get(one["fingerprint"])),
        }
        for one in sorted(
            listed.values(), key=lambda one: (one["resolved"] is not None, one["resolved"] or "")
        )
    ]


def _seen(said: Mapping[str, Any] | None) -> str:
    return "nobody" if said is None else str(said["by"]["name"])


def command_lines(known: Reading) -> str:
    """What somebody may type now, from the alerts that fire."""
    alerts = (known["status"] or {"alerts": []})["alerts"]
    typed = list(dict.fromkeys(command for alert in alerts for command in alert["commands"]))
    return "To type: " + ", ".join(f"`{command}`" for command in typed) + "." if typed else ""
