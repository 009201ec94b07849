"""Tables of the checklist's page: evidence, integrity and digests, each value harmless on its one line.

Called by `sqkit.checklist_markdown`. What a verdict may rest on stands in a table of its own; a reader
must not have to sort it out from what is only advice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

_COUNTS: Final = (
    ("session_days", "session days"),
    ("day_clusters", "session days with a directional call"),
    ("candidate_calls", "directional calls of the candidate"),
    ("baseline_calls", "directional calls of the baseline"),
)
_DIGESTS: Final = ("model", "baseline", "incumbent", "data", "predictions", "policy", "policy_in_force")
_AMOUNTS: Final[Mapping[Any, tuple[float, str]]] = {
    "share": (100.0, "{:+.1f}%"),
    "total return": (100.0, "{:+.1f}%"),
    "daily net return": (10_000.0, "{:+.2f} bp"),
    "return a day": (10_000.0, "{:+.2f} bp"),
    "annualised Sharpe ratio": (1.0, "{:+.2f}"),
    "Brier score": (1.0, "{:+.4f}"),
    "confidence": (1.0, "{:.2f}"),
    "share of weeks": (100.0, "{:.0f}%"),
    "share of symbols": (100.0, "{:.0f}%"),
    "share of splits": (100.0, "{:.0f}%"),
    "superior trials": (1.0, "{:.0f}"),
    "observations": (1.0, "{:.0f}"),
    "years": (1.0, "{:.1f}"),
}
"""Factor and form of a number by the unit of its record."""

_KINDS: Final = (
    ("blocking", "The verdict may rest on these. Estimates are student minus baseline; p is one-sided."),
    ("advisory", "Advice: none of these changes the verdict."),
)


def evidence_section(evidence: Mapping[str, Any]) -> list[str]:
    """Grade, counts of data, and the records in two tables."""
    lines = ["## Evidence", "", f"Grade: **{inline(evidence['grade'])}**", ""]
    adequacy = evidence.get("adequacy")
    if adequacy is None:
        lines.append("Adequacy: waived, there are no predictions.")
    else:
        rows = [{"counted on the window": words, "count": adequacy[name]} for name, words in _COUNTS]
        lines += table(rows, ("counted on the window", "count"))
    for kind, words in _KINDS:
        rows = [evidence_row(record) for record in evidence["records"] if record.get("kind") == kind]
        if rows:
            lines += ["", words, "", *table(rows, list(rows[0]))]
    return lines


def evidence_row(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as a reader wants it: shares in percent, an interval in one cell, how much data there was."""
    unit, interval, counts = record.get("unit"), record.get("ci"), record.get("n") or {}
    data = next((f"{counts[name]} {name}" for name in ("clusters", "days", "rows") if name in counts), None)
    if data is not None:
        data = data.replace("clusters", "days")
    return {
        "check": record["name"],
        "status": record.get("status"),
        "estimate": _amount(record.get("estimate"), unit),
        "95 % interval": " .. ".join(str(_amount(bound, unit)) for bound in interval) if interval else None,
        "p": p_text(record.get("p_value")),
        "unit": unit or None,
        "data": data,
        "note": record.get("note") or "",
    }


def _amount(value: Any, unit: Any) -> str | None:
    """A number in its unit; daily returns in basis points, differences with their sign."""
    if value is None:
        return None
    if unit in _AMOUNTS:
        factor, form = _AMOUNTS[unit]
        return form.format(factor * value)
    return f"{value:+.4g}"


def p_text(p: Any) -> str | None:
    """A p-value as statisticians print it: ``.004``, ``.32``, ``< .001``; None stays None."""
    if p is None:
        return None
    if p < 0.001:
        return "< .001"
    text = f"{p:.{3 if p < 0.10 else 2}f}"
    return text.removeprefix("0")


def integrity_section(integrity: Sequence[Mapping[str, Any]]) -> list[str]:
    """Every item that was checked."""
    if not integrity:
        return ["## Integrity", "", "No item was checked."]
    rows = [
        {**item, "item": item["name"], "kind": "advisory" if item["blocking"] is False else "blocking"}
        for item in integrity
    ]
    return ["## Integrity", "", *table(rows, ("item", "status", "kind", "note"))]


def digest_section(digests: Mapping[str, Any]) -> list[str]:
    """The named ones first, then any other by name: the same page from memory and from the file."""
    rows: list[dict[str, Any]] = []
    for name in [*_DIGESTS, *sorted(set(digests) - set(_DIGESTS))]:
        value = digests.get(name)
        if isinstance(value, Mapping):
            rows += [{"of": f"{name}: {part}", "SHA-256": value[part]} for part in sorted(value)]
        else:
            rows.append({"of": name, "SHA-256": value})
    return ["## Digests", "", *table(rows, ("of", "SHA-256"))]


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[str]:
    """Rows as a Markdown table; null prints n/a."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return lines + ["| " + " | ".join(inline(row.get(name)) for name in columns) + " |" for row in rows]


def inline(value: Any) -> str:
    """Any value on one line, harmless inside a table or a paragraph."""
    if value is None:
        return "n/a"
    if isinstance(value, float):
        return f"{value:.4g}"
    text = " ".join(str(value).split())
    text = re.sub(r"&(?=#?\w+;)", "&amp;", text)
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text).replace("|", "\\|")
