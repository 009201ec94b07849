"""A promotion checklist for a reader: Markdown from the checklist's plain dict, and its numbers as text.

Called by `sqkit.checklist`, which also words its reasons with `compare` and `shortfall`, so
that a figure reads the same in the verdict, the JSON's reason and the Markdown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from sqkit.checklist_commands import promotion_commands, rollback_procedure
from sqkit.checklist_monitoring import monitoring_section
from sqkit.checklist_signoffs import SignOffs, boxes_section, signatures_section
from sqkit.checklist_tables import digest_section, evidence_section, inline, integrity_section, table
from sqkit.monitoring_baseline import SECTION

TOLERANCE: Final = 1e-12
"""Rounding error that still counts as having reached a threshold."""

_MOST_PLACES: Final = 15
_METRIC_LINES: Final = (
    ("Precision (LONG)", "precision_long"),
    ("Hit Ratio", "hit_ratio"),
    ("Overall Accuracy", "accuracy"),
    ("Sharpe Ratio", "sharpe_ratio"),
    ("Total Return", "total_return"),
    ("Max Drawdown", "max_drawdown"),
    ("Win Rate", "win_rate"),
)


def render_markdown(checklist: Mapping[str, Any], signoffs: SignOffs | None = None) -> str:
    """The checklist as Markdown; ends with one newline.

    Parameters
    ----------
    checklist
        As returned by `sqkit.checklist.generate_promotion_checklist`, or read back from its JSON.
    signoffs
        Boxes and signatures of today; None for the page as the decision leaves it.
    """
    sections = (
        _header(checklist),
        _performance(checklist),
        _criteria_section(checklist),
        _verdict_section(checklist),
        evidence_section(checklist["evidence"]),
        integrity_section(checklist["integrity"]),
        *([monitoring_section(checklist[SECTION])] if SECTION in checklist else []),
        boxes_section(checklist["evidence"], signoffs),
        signatures_section(checklist["policy"]["required_approvals"], signoffs),
        promotion_commands(checklist),
        rollback_procedure(checklist),
        digest_section(checklist["digests"]),
    )
    return "\n\n".join("\n".join(lines) for lines in sections) + "\n"


def compare(reached: float, threshold: float, *, absolute: bool) -> str:
    """``1.2% < 2.0%`` or ``2.7% ≥ 2.0%``, with as many decimals as tell the two apart.

    Parameters
    ----------
    reached, threshold
        Fractions (0.012 prints 1.2%), or plain numbers when `absolute`.
    absolute
        Plain numbers of two decimals: ``+0.14 ≥ 0.10 absolute``.
    """
    places, passed = _places(reached, threshold, absolute), _passes(reached, threshold)
    left = _number(reached, places, absolute, signed=absolute)
    right = _number(threshold, places, absolute)
    return f"{left} {'≥' if passed else '<'} {right}{' absolute' if absolute else ''}"


def shortfall(reached: float, threshold: float, *, absolute: bool) -> str:
    """By how much a threshold was missed, from the two numbers as `compare` prints them."""
    places = _places(reached, threshold, absolute)
    left, right = (_number(value, places, absolute).rstrip("%") for value in (reached, threshold))
    return f"{Decimal(right) - Decimal(left):f}{'' if absolute else ' points'}"


def _header(checklist: Mapping[str, Any]) -> list[str]:
    period, evidence = checklist["validation_period"], checklist["evidence"]
    zone = checklist["runtime"].get("zone")
    return [
        "# Student Model Promotion Checklist",
        "",
        f"**Recommendation**: {checklist['recommendation']} — {inline(checklist['reason'])}",
        "",
        *([inline(evidence["summary"]), ""] if evidence.get("summary") else []),
        f"**Model**: {_code(checklist['candidate_model'])}",
        f"**Generated**: {checklist['timestamp'].replace('T', ' ').removesuffix('Z')}",
        f"**Validation Period**: {inline(period['start'])} to {inline(period['end'])}",
        f"**Baseline**: {_baseline(checklist)}",
        "",
        f"- Incumbent (in production when this was validated): {_incumbent(checklist)}",
        f"- Symbols: {inline(', '.join(period['symbols'])) if period['symbols'] else 'n/a'}",
        f"- Dates are the market's session dates{f' ({zone})' if zone else ''}, both ends included; "
        "the time above is UTC.",
    ]


def _baseline(checklist: Mapping[str, Any]) -> str:
    runtime = checklist["runtime"]
    strategy = runtime.get("strategy") or runtime.get("strategy_parameters", {}).get("strategy")
    if checklist["baseline_model"] is None and strategy:
        return f"baseline rule ({inline(strategy)})"
    return _code(checklist["baseline_model"])


def _incumbent(checklist: Mapping[str, Any]) -> str:
    digests, model = checklist["digests"], checklist["evidence"].get("incumbent_model")
    if not digests.get("model"):
        return "n/a"
    if not digests.get("incumbent"):
        return "none"
    same = digests["incumbent"] == digests.get("baseline")
    return f"{_code(model or digests['incumbent'])}, {'the baseline itself' if same else 'not the baseline'}"


def _performance(checklist: Mapping[str, Any]) -> list[str]:
    lines = ["## Performance Summary"]
    for title, side in (("Candidate", "candidate_metrics"), ("Baseline", "baseline_metrics")):
        lines += ["", f"### {title} Model Performance"]
        for words, name in _METRIC_LINES:
            absolute = name == "sharpe_ratio"
            lines.append(f"- **{words}**: {_optional(checklist[side][name], absolute)}")
    deltas = checklist["deltas"]
    lines += ["", "### Delta (Candidate - Baseline)"]
    for title, shown, reached, threshold, absolute, passed in _criteria(checklist):
        places = _places(reached, threshold, absolute)
        asked = _number(threshold, places, absolute, signed=True) + (" absolute" if absolute else "")
        value = "n/a" if shown is None else _number(shown, places, absolute, signed=True)
        lines.append(f"- **{title}**: {value} {_mark(passed)} (threshold: {asked})")
    for words, name in (
        ("Return Uplift", "return_uplift"),
        ("Drawdown Improvement", "drawdown_improvement"),
        ("Win Rate Uplift", "win_rate_uplift"),
    ):
        lines.append(f"- **{words}**: {_optional(deltas[name], absolute=False, signed=True)}")
    context = checklist["evidence"].get("context")
    if context:
        lines += ["", "### Beside These Figures", "", *table(context, ("figure", "candidate", "baseline"))]
    return lines


def _criteria_section(checklist: Mapping[str, Any]) -> list[str]:
    lines = ["## Validation Criteria", ""]
    for title, _, reached, threshold, absolute, passed in _criteria(checklist):
        if reached is None:
            asked = _number(threshold, _places(None, threshold, absolute), absolute)
            text = f"n/a, threshold {asked}"
        else:
            text = compare(reached, threshold, absolute=absolute)
        lines.append(f"{_mark(passed)} **{title}**: {text} ({'PASS' if passed else 'FAIL'})")
    all_pass = checklist["validation_results"]["all_criteria_pass"]
    required = str(checklist["policy"]["require_all_criteria"]).lower()
    lines.append(
        f"{_mark(all_pass)} **All Criteria**: {'PASS' if all_pass else 'FAIL'} (require_all_criteria={required})"
    )
    return lines


def _criteria(
    checklist: Mapping[str, Any],
) -> list[tuple[str, float | None, float | None, float, bool, bool]]:
    """Title, uplift as shown, value compared, threshold, absolute, passed; a null Sharpe uplift is absolute."""
    deltas, policy, results = (
        checklist["evidence"]["deltas"],
        checklist["policy"],
        checklist["validation_results"],
    )
    relative, difference = deltas["sharpe_uplift"], deltas["sharpe_difference"]
    absolute = relative is None and difference is not None
    rows: list[tuple[str, float | None, float | None, float, bool, bool]] = [
        (
            f"{words} Uplift",
            deltas[f"{name}_uplift"],
            deltas[f"{name}_uplift"],
            policy[f"min_{name}_uplift"],
            False,
            results[f"{name}_pass"],
        )
        for words, name in (("Precision", "precision"), ("Hit Ratio", "hit_ratio"))
    ]
    threshold = policy["min_sharpe_uplift_absolute" if absolute else "min_sharpe_uplift"]
    reached = difference if absolute else relative
    rows.append(("Sharpe Uplift", relative, reached, threshold, absolute, results["sharpe_pass"]))
    return rows


def _verdict_section(checklist: Mapping[str, Any]) -> list[str]:
    said = [f"- {inline(line)}" for line in checklist["verdict_reasons"]]
    return ["## Verdict Reasons", "", *(said or ["Nothing beside the recommendation above."])]


def _mark(passed: bool) -> str:
    return "✅" if passed else "❌"


def _optional(value: float | None, absolute: bool, signed: bool = False) -> str:
    return "n/a" if value is None else _number(value, 2 if absolute else 1, absolute, signed=signed)


def _passes(reached: float, threshold: float) -> bool:
    return reached >= threshold - TOLERANCE


def _places(reached: float | None, threshold: float, absolute: bool) -> int:
    """Decimals that show the threshold exactly and, where it is missed, differ on the two sides."""
    exact = Decimal(repr(float(threshold))).scaleb(0 if absolute else 2).normalize()
    exponent = exact.as_tuple().exponent
    places = max(2 if absolute else 1, -exponent if isinstance(exponent, int) else 0)
    places = min(places, _MOST_PLACES)
    if reached is None or _passes(reached, threshold):
        return places
    while places < _MOST_PLACES and _number(reached, places, absolute) == _number(
        threshold, places, absolute
    ):
        places += 1
    return places


def _number(value: float, places: int, absolute: bool, signed: bool = False) -> str:
    """Fixed decimals; a fraction as percent unless `absolute`. Rounds the binary value once."""
    shift = 0 if absolute else 2
    exact = Decimal(repr(round(float(value), places + shift) + 0.0)).scaleb(shift)
    return f"{exact:{'+' if signed else ''}.{places}f}{'' if absolute else '%'}"


def _code(text: str | None) -> str:
    """A path as inline code; a backtick inside cannot end it."""
    if text is None:
        return "n/a"
    plain = " ".join(text.split())
    longest = max((len(run) for run in re.findall("`+", plain)), default=0)
    fence, pad = "`" * (longest + 1), " " if longest else ""
    return f"{fence}{pad}{plain}{pad}{fence}"
