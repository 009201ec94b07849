"""The rules of the gate: deltas, criteria and the recommendation table.

Called by `sqkit.checklist` only, with inputs that `sqkit.checklist_inputs` has read. Every
finding is a line that names what was missed and by how much.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqkit.checklist_inputs import Adequacy, Policy, is_number, metrics_from_elsewhere
from sqkit.checklist_markdown import TOLERANCE, compare, shortfall
from sqkit.errors import ChecklistInputError
from sqkit.metrics import METRIC_KEYS
from sqkit.settings import GRADES, Settings

PROMOTE: Final = "PROMOTE"
REJECT: Final = "REJECT"
INSUFFICIENT_EVIDENCE: Final = "INSUFFICIENT_EVIDENCE"

ALL_PASSED: Final = (
    "All validation criteria passed. Candidate model shows consistent improvement across accuracy and "
    "financial metrics."
)

NO_HARM: Final = "no_harm"
"""Evidence records whose name starts so reject: status ``fail``, or an interval wholly below zero."""

_USUAL: Final[dict[str, float]] = {
    name: Settings.model_fields[f"promotion_{name}"].default
    for name in (
        "min_precision_uplift",
        "min_hit_ratio_uplift",
        "min_sharpe_uplift",
        "min_sharpe_uplift_absolute",
        "min_sharpe",
        "min_days",
        "min_calls",
    )
}
"""What the settings ask for by default: whoever signs is told where a policy asks for less."""

_SUFFICES: Final = {
    "precision_long": "at least one LONG call with a known outcome",
    "hit_ratio": "at least one directional call with a known outcome",
    "accuracy": "at least one row with a known outcome",
    "sharpe_ratio": "at least two session days whose net returns differ",
    "total_return": "at least one session day with a finite net return",
    "max_drawdown": "at least one session day with a finite net return",
    "win_rate": "at least one closed trade",
}


@dataclass(frozen=True)
class Criterion:
    """One promotion threshold: what was reached, what was asked, and in which unit."""

    title: str
    reached: float | None
    threshold: float
    absolute: bool = False

    @property
    def passed(self) -> bool:
        """Reached on unrounded values, up to rounding error; an undefined value never passes."""
        return self.reached is not None and self.reached >= self.threshold - TOLERANCE

    def missed(self) -> str:
        """``Precision uplift 1.2% < 2.0%, short by 0.8 points`` for a failed criterion."""
        if self.reached is None:
            return f"{self.title} is undefined"
        return (
            f"{self.title} {compare(self.reached, self.threshold, absolute=self.absolute)}, "
            f"short by {shortfall(self.reached, self.threshold, absolute=self.absolute)}"
        )


@dataclass(frozen=True)
class Verdict:
    """A recommendation, its exit code, one sentence why, and everything else worth saying."""

    recommendation: str
    exit_code: int
    reason: str
    verdict_reasons: tuple[str, ...]


def recommend(
    *,
    candidate: Mapping[str, float | None],
    baseline: Mapping[str, float | None],
    policy: Policy,
    adequacy: Adequacy | None,
    integrity: Sequence[Mapping[str, Any]],
    grade: str,
    records: Sequence[Mapping[str, Any]] = (),
    would_suffice: str = "",
) -> Verdict:
    """The table of `sqkit.checklist`, first match wins; later findings are still said.

    Raises
    ------
    ChecklistInputError
        A metric is missing, unknown or not finite, or the grade is unknown.
    """
    candidate, baseline = metrics_from_elsewhere(candidate, baseline)
    if grade not in GRADES:
        raise ChecklistInputError(f"evidence grade {grade!r}: give one of {', '.join(GRADES)}")
    criteria = criteria_of(unrounded_deltas(candidate, baseline, policy), policy)
    findings = [
        (REJECT, 4, _integrity_failures(integrity)),
        (
            INSUFFICIENT_EVIDENCE,
            3,
            _too_little_data(adequacy, policy)
            + _undefined_metrics("candidate", candidate)
            + _undefined_metrics("baseline", baseline)
            + _undefined_criteria(criteria, candidate, baseline)
            + _undecided_harm(records),
        ),
        (
            REJECT,
            1,
            _missed_criteria(criteria, policy) + _sharpe_too_low(candidate, policy) + _harm(records),
        ),
        (INSUFFICIENT_EVIDENCE, 3, _grade_too_low(grade, policy, adequacy, would_suffice)),
    ]
    said = tuple(line for _, _, lines in findings for line in lines)
    said += tuple(_remarks(criteria, baseline, policy, adequacy, grade))
    for recommendation, exit_code, lines in findings:
        if lines:
            return Verdict(recommendation, exit_code, _sentence(lines), said)
    if all(criterion.passed for criterion in criteria):
        return Verdict(PROMOTE, 0, ALL_PASSED, said)
    missed = [criterion.missed() for criterion in criteria if not criterion.passed]
    reason = _sentence(
        ["One passed criterion is enough (require_all_criteria=false), although " + "; ".join(missed)]
    )
    return Verdict(PROMOTE, 0, reason, said)


def unrounded_deltas(
    candidate: Mapping[str, float | None], baseline: Mapping[str, float | None], policy: Policy
) -> dict[str, float | None]:
    """Candidate minus baseline; `sharpe_uplift` relative, and None below the policy's floor."""

    def difference(name: str) -> float | None:
        ours, theirs = candidate[name], baseline[name]
        return None if ours is None or theirs is None else _finite(ours - theirs)

    sharpe_difference, reference = difference("sharpe_ratio"), baseline["sharpe_ratio"]
    relative = None
    if sharpe_difference is not None and reference is not None and reference >= policy.relative_sharpe_floor:
        relative = _finite(sharpe_difference / reference)
        if relative is None:  # too large to compute with: no criterion at all, not the absolute one
            sharpe_difference = None
    return {
        "precision_uplift": difference("precision_long"),
        "hit_ratio_uplift": difference("hit_ratio"),
        "sharpe_uplift": relative,
        "return_uplift": difference("total_return"),
        "drawdown_improvement": difference("max_drawdown"),
        "win_rate_uplift": difference("win_rate"),
        "sharpe_difference": sharpe_difference,
    }


def criteria_of(deltas: Mapping[str, float | None], policy: Policy) -> tuple[Criterion, Criterion, Criterion]:
    """Precision, hit ratio and Sharpe; the last as a difference where the relative uplift is None."""
    if deltas["sharpe_uplift"] is None and deltas["sharpe_difference"] is not None:
        sharpe = Criterion(
            "Sharpe uplift", deltas["sharpe_difference"], policy.min_sharpe_uplift_absolute, absolute=True
        )
    else:
        sharpe = Criterion("Sharpe uplift", deltas["sharpe_uplift"], policy.min_sharpe_uplift)
    return (
        Criterion("Precision uplift", deltas["precision_uplift"], policy.min_precision_uplift),
        Criterion("Hit ratio uplift", deltas["hit_ratio_uplift"], policy.min_hit_ratio_uplift),
        sharpe,
    )


def _integrity_failures(integrity: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        f"integrity {item['name']} is {item['status']}" + (f" ({item['note']})" if item["note"] else "")
        for item in integrity
        if item["blocking"] is not False and item["status"] != "pass"
    ]


def _too_little_data(adequacy: Adequacy | None, policy: Policy) -> list[str]:
    """Every count that is too low, and the window that would hold enough at the same rate."""
    if adequacy is None:
        return []
    asked = (
        (adequacy.session_days, policy.min_days, "session days", False),
        (adequacy.day_clusters, policy.min_day_clusters, "session days with a directional call", False),
        (adequacy.candidate_calls, policy.min_calls, "directional calls of the candidate", True),
        (adequacy.baseline_calls, policy.min_calls, "directional calls of the baseline", True),
    )
    short = [(have, need, what, is_calls) for have, need, what, is_calls in asked if have < need]
    if not short:
        return []
    line = "too little data: " + ", ".join(
        f"{have} {what} (at least {need})" for have, need, what, _ in short
    )
    silent = [what for have, _, what, _ in short if not have]
    if silent:
        return [line, f"what would suffice cannot be estimated: the window holds no {silent[0]}"]
    days = max(math.ceil(adequacy.session_days * need / have) for have, need, _, _ in short)
    suffices = f"about {days} session days would suffice at this rate"
    if all(is_calls for *_, is_calls in short):
        times = max(need / have for have, need, _, _ in short)
        suffices += f", or {math.ceil(10 * times) / 10:g} times the symbols"
    return [line, suffices]


def _undefined_metrics(side: str, metrics: Mapping[str, float | None]) -> list[str]:
    absent = [name for name in METRIC_KEYS if metrics[name] is None]
    if not absent:
        return []
    needed = dict.fromkeys(_SUFFICES[name] for name in absent)
    verb = "is" if len(absent) == 1 else "are"
    return [f"the {side}'s {', '.join(absent)} {verb} undefined; {', '.join(needed)} would suffice"]


def _undefined_criteria(
    criteria: Sequence[Criterion],
    candidate: Mapping[str, float | None],
    baseline: Mapping[str, float | None],
) -> list[str]:
    """A difference of two finite metrics that is not finite itself."""
    if any(metrics[name] is None for metrics in (candidate, baseline) for name in METRIC_KEYS):
        return []
    return [f"{criterion.title} is undefined" for criterion in criteria if criterion.reached is None]


def thresholds_passed(
    candidate: Mapping[str, float | None], baseline: Mapping[str, float | None], policy: Policy
) -> bool:
    """Whether the uplift thresholds are reached, as the policy combines them; undefined is not reached."""
    criteria = criteria_of(unrounded_deltas(candidate, baseline, policy), policy)
    return all(c.reached is not None for c in criteria) and not _missed_criteria(criteria, policy)


def _missed_criteria(criteria: Sequence[Criterion], policy: Policy) -> list[str]:
    passed = [criterion.passed for criterion in criteria]
    if all(passed) if policy.require_all_criteria else any(passed):
        return []
    return [c.missed() for c in criteria if c.reached is not None and not c.passed]


def _sharpe_too_low(candidate: Mapping[str, float | None], policy: Policy) -> list[str]:
    own = Criterion(
        "the candidate's Sharpe ratio", candidate["sharpe_ratio"], policy.min_sharpe, absolute=True
    )
    return [] if own.passed or own.reached is None else [own.missed()]


def _harm(records: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    for record in records:
        if not str(record["name"]).startswith(NO_HARM):
            continue
        upper = _upper_bound(record)
        if upper is not None and upper < 0.0:
            lines.append(
                f"{record['name']}: significantly worse than the baseline (upper bound {upper:.4g} < 0)"
            )
        elif record.get("status") == "fail":
            lines.append(f"{record['name']}: fail")
    return lines


def _undecided_harm(records: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        f"{record['name']} is {record.get('status')}; a longer window would suffice"
        for record in records
        if str(record["name"]).startswith(NO_HARM)
        and record.get("kind") == "blocking"
        and record.get("status") not in ("pass", "fail")
    ]


def _upper_bound(record: Mapping[str, Any]) -> float | None:
    interval = record.get("ci")
    if isinstance(interval, Sequence) and len(interval) == 2 and is_number(interval[1]):
        return float(interval[1])
    return None


def _grade_too_low(grade: str, policy: Policy, adequacy: Adequacy | None, would_suffice: str) -> list[str]:
    if GRADES.index(grade) >= GRADES.index(policy.min_evidence):
        return []
    line = f"evidence grade {grade} is below {policy.min_evidence} (promotion_min_evidence)"
    if adequacy is None:
        would_suffice = "metrics from elsewhere carry no evidence; validate the model itself"
    return [line, would_suffice] if would_suffice else [line]


def _remarks(
    criteria: Sequence[Criterion],
    baseline: Mapping[str, float | None],
    policy: Policy,
    adequacy: Adequacy | None,
    grade: str,
) -> list[str]:
    """What decides nothing by itself but must be known by whoever signs."""
    lines = []
    if criteria[2].absolute:
        lines.append(
            f"the baseline's Sharpe ratio {baseline['sharpe_ratio']:.2f} is below "
            f"{policy.relative_sharpe_floor:.2f}, so a relative uplift says nothing: the criterion is the "
            f"difference, {compare(criteria[2].reached or 0.0, criteria[2].threshold, absolute=True)}"
        )
    if adequacy is None:
        lines.append("adequacy is waived: these metrics come from elsewhere, without predictions")
    if policy.min_evidence == "none":
        lines.append(f"the policy asks for no evidence (promotion_min_evidence=none); the grade is {grade}")
    lowered = [
        f"{name} {getattr(policy, name):g} instead of {usual:g}"
        for name, usual in _USUAL.items()
        if getattr(policy, name) < usual
    ]
    if lowered:
        lines.append(f"the policy asks for less than the defaults: {', '.join(lowered)}")
    return lines


def _sentence(lines: Sequence[str]) -> str:
    text = "; ".join(lines)
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
