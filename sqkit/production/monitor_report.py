"""What monitoring knows of a slot, for a reader: lines, tables by symbol and by model. From the store alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from sqkit.metrics import call_counts, call_shares
from sqkit.production.confirmation import in_words
from sqkit.production.monitor_rules import SAMPLES, TITLES

Outcome = tuple[Any, ...]


def status_lines(status: Mapping[str, Any]) -> list[str]:
    """The state of a slot in a few lines."""
    if not status:
        return ["nothing is known yet: no engine has written telemetry of this slot"]
    since = f" since {status['since']}" if status["since"] else ""
    lines = [
        f"slot {status['slot']} ({status['strategy']}): {status['state']}{since}: {status['reason']}",
        f"  model            {status['model_version'] or 'none'} ({status['model_digest'] or 'none was asked'})",
    ]
    if not status["validated"]:
        lines.append(
            "  baseline         none: its release says nothing of its validation, so it cannot be judged"
        )
    for name, one in status["rolling"].items():
        live, validated = _percent(one["value"]), _percent(one["baseline"])
        lines.append(f"  {TITLES[name]:16} {live:>6} of {one['count']:,}, validated {validated}")
    for name, one in status["detectors"].items():
        lines.append(
            f"  detector         {TITLES[name]}: level {in_words(one['level'])} of {one['threshold']:g} days"
        )
    lines += _confirmation(status["confirmation"])
    pending, last = status["pending_outcomes"], status["last_bar_time"]
    lines.append(f"  outcomes         {pending} pending; last bar {last or 'none'}")
    odd = {name: count for name, count in status["counts"].items() if count and name not in _USUAL}
    if odd:
        lines.append("  remarked         " + ", ".join(f"{name} {count:,}" for name, count in odd.items()))
    lines += [f"  settings         {line}" for line in (status.get("implies") or {}).get("warnings", ())]
    return lines + _alerts(status["alerts"])


def _confirmation(said: Mapping[str, Any] | None) -> list[str]:
    if not said:
        return []
    return [
        f"  confirmation     fresh evidence {in_words(said['live'])}, of the earlier release being better "
        f"{in_words(said['pair'])}, of its failing {in_words(said['archived'])}; {said['needed']:g} is enough; "
        f"{said['calls']:,} calls"
    ]


def _alerts(alerts: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is wrong, a line each; then what will happen and what to type, each once."""
    if not alerts:
        return ["  alerts           none"]
    lines = [
        f"  ALERT {one['name']} since {one['since']} ({one['fingerprint'][:8]}): {one['summary']}"
        for one in alerts
    ]
    lines += [f"  will: {text}" for text in dict.fromkeys(one["will"] for one in alerts)]
    commands = dict.fromkeys(command for one in alerts for command in one["commands"])
    return [*lines, "  to act:", *(f"    {command}" for command in commands)]


_USUAL = ("predictions", "session_end", "no_history")


def by_symbol(outcomes: Iterable[Outcome], model: str) -> list[dict[str, Any]]:
    """Metrics of a model for each symbol, the one with the lowest hit ratio first."""
    found: dict[str, list[tuple[int, int]]] = {}
    for symbol, _, _, said_by, call, _, outcome, _ in outcomes:
        if said_by == model:
            found.setdefault(symbol, []).append((call, outcome))
    rows = [{"symbol": symbol, **measured(pairs)} for symbol, pairs in sorted(found.items())]
    return sorted(rows, key=lambda row: (row["hit_ratio"] is None, row["hit_ratio"] or 0.0, row["symbol"]))


def beside(outcomes: Iterable[Outcome], model: str) -> list[dict[str, Any]]:
    """Each model that was asked beside the served one, and the served one on the very same rows."""
    found: dict[tuple[str, str], list[tuple[int, int, int]]] = {}
    for _, _, _, said_by, call, _, outcome, shadows in outcomes:
        for role, other, other_call in shadows if said_by == model else ():
            found.setdefault((role, other), []).append((call, other_call, outcome))
    return [
        {
            "model": other,
            "role": role,
            "served": measured((call, outcome) for call, _, outcome in rows),
            "shadow": measured((call, outcome) for _, call, outcome in rows),
        }
        for (role, other), rows in sorted(found.items())
    ]


def measured(pairs: Iterable[tuple[int, int]]) -> dict[str, Any]:
    """The monitored metrics of calls and outcomes, with the counts behind them."""
    listed = list(pairs)
    calls = np.array([call for call, _ in listed], dtype=np.int8)
    counts = call_counts(calls, np.array([outcome for _, outcome in listed], dtype=np.int8))
    shares = call_shares(counts)[0]
    return {name: shares[name] for name in SAMPLES} | {
        "calls": counts["calls"],
        "calls_long": counts["calls_long"],
        "rows": counts["rows"],
    }


def beside_lines(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The comparison, a line a model."""
    lines = []
    for row in rows:
        lines.append(f"  {row['role']} {row['model']}, on {row['shadow']['rows']:,} common rows:")
        for name in SAMPLES:
            shadow, served = row["shadow"][name], row["served"][name]
            lines.append(f"    {TITLES[name]:16} {_percent(shadow):>7}, served {_percent(served):>7}")
    return lines or ["  no model was asked beside it"]


def _percent(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.1%}"
