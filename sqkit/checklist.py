"""The promotion gate: thresholds, criteria, recommendation. Pure: no file, no clock, no random number.

`generate_promotion_checklist` takes plain values and returns the checklist as a plain dict;
`render_markdown` is the same dict for a reader. Everything derived in a checklist follows
from its recorded metrics, policy, evidence and integrity: `rederive` repeats the decision
from a stored checklist and `differences` names what does not follow. Called by the command
line, the checklist notebook and, later, by ``verify`` and the promoter.

Recommendation, first match wins:

=====================================================  ======================  ====
a blocking integrity item has not passed               REJECT                  4
too little data, or a metric undefined                 INSUFFICIENT_EVIDENCE   3
thresholds, minimum Sharpe or no-harm missed           REJECT                  1
evidence grade below the policy's                      INSUFFICIENT_EVIDENCE   3
otherwise                                              PROMOTE                 0
=====================================================  ======================  ====
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqkit.checklist_inputs import (
    Adequacy,
    Policy,
    metrics_from_elsewhere,
    named_items,
    parse_metrics,
    plain_json,
    utc_timestamp,
)
from sqkit.checklist_markdown import render_markdown
from sqkit.checklist_rules import (
    INSUFFICIENT_EVIDENCE,
    PROMOTE,
    REJECT,
    Verdict,
    criteria_of,
    recommend,
    thresholds_passed,
    unrounded_deltas,
)
from sqkit.errors import ChecklistInputError
from sqkit.evidence_grade import evidence_grade, is_graded
from sqkit.monitoring_baseline import SECTION
from sqkit.policy_in_force import not_promotable, policy_digest
from sqkit.settings import GRADES

__all__ = [
    "INSUFFICIENT_EVIDENCE",
    "PROMOTE",
    "REJECT",
    "Adequacy",
    "Policy",
    "Verdict",
    "differences",
    "exit_code",
    "generate_promotion_checklist",
    "metrics_from_elsewhere",
    "parse_metrics",
    "recommend",
    "rederive",
    "render_markdown",
]


def generate_promotion_checklist(
    *,
    timestamp: str,
    candidate_model: str | None,
    baseline_model: str | None,
    start: str | None,
    end: str | None,
    symbols: Sequence[str] | None,
    candidate_metrics: Mapping[str, float | None],
    baseline_metrics: Mapping[str, float | None],
    policy: Policy,
    adequacy: Adequacy | None,
    integrity: Sequence[Mapping[str, Any]] = (),
    evidence: Mapping[str, Any] | None = None,
    runtime: Mapping[str, Any] | None = None,
    digests: Mapping[str, Any] | None = None,
    monitoring: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The promotion checklist as plain JSON values.

    Parameters
    ----------
    timestamp
        ISO 8601 with a zone; stored in UTC, ``2025-01-12T15:30:00Z``.
    candidate_model, baseline_model
        Paths as typed; None for a baseline that is a rule, or a model that has no name.
    start, end, symbols
        The validation window, session dates, both ends included; None where not known.
    candidate_metrics, baseline_metrics
        Exactly the seven `METRIC_KEYS`; None where undefined.
    policy
        Every threshold; see `Policy.from_settings`.
    adequacy
        How much the window holds (`sqkit.metrics.adequacy_counts`). None only where there are
        no predictions at all: adequacy is then waived.
    integrity
        ``{"name", "status", "blocking", "note"}`` each; a blocking item passes with status
        ``pass`` only.
    evidence
        ``records``, each with at least ``name``; one named ``no_harm...`` rejects when its
        status is ``fail`` or its ``ci`` lies below zero. The grade follows from them
        (`sqkit.evidence_grade`); without predictions there is none.
        It may also hold ``summary`` (a line printed under the verdict), ``would_suffice`` (a
        line said when the grade is too low), ``notes`` (lines that decide nothing, added to
        ``verdict_reasons``), ``incumbent_model`` (a path), ``context`` (rows
        ``{"figure", "candidate", "baseline"}`` printed beside the metrics) and
        ``policy_in_force`` (`sqkit.policy_in_force.held_against`; null where none was accepted).
    runtime
        Confidence threshold, factors, strategy parameters, sessions, costs, dead zone.
    digests
        SHA-256 of ``model``, ``baseline``, ``incumbent``, ``data``, ``predictions``; those of
        ``policy`` and ``policy_in_force`` follow.
    monitoring
        ``baseline``, ``rules`` and ``implies``: what the live model is held against, by which rules, and what these
        imply (`sqkit.monitoring_baseline`, `sqkit.monitoring_rates`). Nothing of it decides; None leaves it out.

    Raises
    ------
    ChecklistInputError
        A metric is missing, unknown or not finite, adequacy is absent although there are
        predictions, or any other value is not plain finite JSON.
    """
    candidate, baseline = metrics_from_elsewhere(candidate_metrics, baseline_metrics)
    inputs = {
        "timestamp": utc_timestamp(timestamp),
        "candidate_model": candidate_model,
        "baseline_model": baseline_model,
        "validation_period": {"start": start, "end": end, "symbols": symbols},
        "candidate_metrics": candidate,
        "baseline_metrics": baseline,
        "evidence": {"grade": "none", "policy_in_force": None, "records": []}
        | dict(evidence or {})
        | ({"adequacy": adequacy.to_dict()} if adequacy else {}),
        "integrity": list(integrity),
        "policy": policy.to_dict(),
        "runtime": dict(runtime or {}),
        "digests": dict.fromkeys(_DIGESTS) | dict(digests or {}),
        **({} if monitoring is None else {SECTION: monitoring}),
    }
    plain = plain_json(inputs, "checklist")
    derived = _derive(plain)
    plain["evidence"]["deltas"] = derived.pop("evidence_deltas")
    plain["evidence"]["grade"] = derived.pop("evidence_grade")
    plain["digests"] |= derived.pop("policy_digests")
    head = {name: plain.pop(name) for name in _HEAD}
    return {**head, **derived, **plain}


def exit_code(checklist: Mapping[str, Any]) -> int:
    """The exit code of a checklist's recommendation, derived again from its inputs."""
    return rederive(checklist)[1]


def rederive(checklist: Mapping[str, Any]) -> tuple[str, int, list[str]]:
    """Recommendation, exit code and reasons from a stored checklist's metrics, policy and evidence.

    What the checklist says about its own deltas, criteria and recommendation is not read.

    Raises
    ------
    ChecklistInputError
        A part is missing, unknown or not finite.
    """
    verdict = _verdict(plain_json(checklist, "checklist"))
    return verdict.recommendation, verdict.exit_code, [verdict.reason, *verdict.verdict_reasons]


def differences(checklist: Mapping[str, Any]) -> list[str]:
    """What a stored checklist says that does not follow from its own inputs, one line each.

    Raises
    ------
    ChecklistInputError
        A part is missing, unknown or not finite.
    """
    plain = plain_json(checklist, "checklist")
    derived = _derive(plain)
    stored = plain["evidence"]
    said = {
        **plain,
        "evidence_deltas": stored.get("deltas"),
        "evidence_grade": stored.get("grade"),
        "policy_digests": {name: plain["digests"].get(name) for name in derived["policy_digests"]},
    }
    return [
        f"{name}: the checklist says {json.dumps(said.get(name))}, its inputs give {json.dumps(value)}"
        for name, value in derived.items()
        if said.get(name) != value
    ]


_DIGESTS: Final = ("model", "baseline", "incumbent", "data", "predictions")
_HEAD: Final = (
    "timestamp",
    "candidate_model",
    "baseline_model",
    "validation_period",
    "candidate_metrics",
    "baseline_metrics",
)


def _derive(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Everything in a checklist that follows from its inputs, in the order it is written."""
    verdict = _verdict(plain)
    policy = Policy.from_dict(plain["policy"])
    candidate, baseline = plain["candidate_metrics"], plain["baseline_metrics"]
    unrounded = unrounded_deltas(candidate, baseline, policy)
    precision, hit_ratio, sharpe = (criterion.passed for criterion in criteria_of(unrounded, policy))
    notes, in_force = plain["evidence"].get("notes", []), plain["evidence"].get("policy_in_force")
    marks = not_promotable(in_force)
    return {
        "deltas": {name: _rounded(unrounded[name]) for name in _DELTAS},
        "validation_thresholds": {
            "min_precision_uplift": policy.min_precision_uplift,
            "min_hit_ratio_uplift": policy.min_hit_ratio_uplift,
            "min_sharpe_uplift": policy.min_sharpe_uplift,
            "require_all_criteria": policy.require_all_criteria,
        },
        "validation_results": {
            "precision_pass": precision,
            "hit_ratio_pass": hit_ratio,
            "sharpe_pass": sharpe,
            "all_criteria_pass": precision and hit_ratio and sharpe,
        },
        "recommendation": verdict.recommendation,
        "reason": verdict.reason,
        "verdict_reasons": [*verdict.verdict_reasons, *marks, *notes],
        "evidence_deltas": unrounded,
        "evidence_grade": _grade(plain, policy),
        "policy_digests": {
            "policy": policy_digest(policy),
            "policy_in_force": in_force["digest"] if in_force else None,
        },
    }


def _grade(plain: Mapping[str, Any], policy: Policy) -> str:
    """The grade that the records earn under this policy; what is stated earns nothing."""
    evidence = plain["evidence"]
    records = named_items(evidence.get("records"), "evidence records", ())
    if not is_graded(records) or not plain["digests"].get("predictions"):
        return "none"
    passed = thresholds_passed(plain["candidate_metrics"], plain["baseline_metrics"], policy)
    return evidence_grade(records, thresholds_passed=passed)


def _verdict(plain: Mapping[str, Any]) -> Verdict:
    """Read a checklist's inputs strictly, then decide."""
    if not isinstance(plain, Mapping):
        raise ChecklistInputError("checklist: give an object; validate the model again")
    for name in ("candidate_metrics", "baseline_metrics", "evidence", "integrity", "policy", "digests"):
        if name not in plain:
            raise ChecklistInputError(f"checklist has no {name}; validate the model again", missing=name)
    evidence, digests = plain["evidence"], plain["digests"]
    if not isinstance(evidence, Mapping) or not isinstance(digests, Mapping):
        raise ChecklistInputError("checklist evidence and digests must be objects; validate the model again")
    stored = evidence.get("adequacy")
    adequacy = Adequacy.from_dict(stored) if stored is not None else None
    policy = Policy.from_dict(plain["policy"])
    candidate, baseline = metrics_from_elsewhere(plain["candidate_metrics"], plain["baseline_metrics"])
    grade = _grade({**plain, "candidate_metrics": candidate, "baseline_metrics": baseline}, policy)
    stated = evidence.get("grade")
    if stated is not None and stated not in GRADES:
        raise ChecklistInputError(f"evidence grade {stated!r}: give one of {', '.join(GRADES)}")
    tested = is_graded(named_items(evidence.get("records"), "evidence records", ()))
    if adequacy is None and (tested or digests.get("predictions")):
        raise ChecklistInputError(
            "evidence adequacy is absent although there are predictions; count session days and calls"
        )
    return recommend(
        candidate=candidate,
        baseline=baseline,
        policy=policy,
        adequacy=adequacy,
        integrity=named_items(plain["integrity"], "integrity", ("status", "blocking", "note")),
        grade=grade,
        records=named_items(evidence.get("records"), "evidence records", ()),
        would_suffice=str(evidence.get("would_suffice") or ""),
    )


_DELTAS: Final = (
    "precision_uplift",
    "hit_ratio_uplift",
    "sharpe_uplift",
    "return_uplift",
    "drawdown_improvement",
    "win_rate_uplift",
)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3) + 0.0  # -0.0 becomes 0.0
