"""The decision: stored artifacts of a validation in, the promotion checklist out.

Notebook 04 calls `decide`; so does the command that rebuilds a checklist. The prediction
and trade files are read back and held against their digests, and every metric is computed again
from what is stored, so a checklist never rests on numbers nobody can recompute.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sqkit.artifacts import (
    ACCURACY_FILE,
    CHECKLIST_FILE,
    CHECKLIST_PAGE,
    COMPARISON_FILE,
    EVIDENCE_FILE,
    PARITY_FILE,
    RESULTS_FILE,
)
from sqkit.checklist import Adequacy, Policy, generate_promotion_checklist, render_markdown
from sqkit.checklist_inputs import plain_json
from sqkit.checklist_rules import thresholds_passed, unrounded_deltas
from sqkit.errors import ArtifactChanged, UsageError
from sqkit.files import read_json, sha256_json, write_json, write_text
from sqkit.metrics import adequacy_counts, financial_metrics, seven_metrics
from sqkit.monitoring_baseline import MonitoringRules
from sqkit.monitoring_rates import implied
from sqkit.research.accuracy import AccuracyAnalyzer, read_results
from sqkit.research.evidence import gather_evidence
from sqkit.research.evidence_inputs import evidence_inputs, is_named_baseline
from sqkit.research.integrity import integrity_items
from sqkit.research.live_baseline import live_baseline
from sqkit.research.power import would_suffice_line
from sqkit.research.stored_values import same_values
from sqkit.settings import GRADES


def validated_folder(model: str, staging: Path) -> Path:
    """Where a student's validation lies: in the staging folder of this run, else beside the model.

    Raises
    ------
    UsageError
        The student has not been validated.
    """
    for folder in (staging, Path(model).parent):
        if (folder / RESULTS_FILE).is_file():
            return folder
    raise UsageError(f"{model}: has not been validated; run sqkit validate --model {model}", model=model)


def checklist_page(folder: Path) -> str:
    """The checklist's Markdown as it was written."""
    return (folder / CHECKLIST_PAGE).read_text(encoding="utf-8")


def decide(
    validated: Path,
    output: Path,
    policy: Policy,
    timestamp: str,
    in_force: dict[str, Any] | None = None,
    rules: MonitoringRules | None = None,
) -> dict[str, Any]:
    """Judge the stored artifacts of a validation and write the checklist's two forms and the evidence.

    Parameters
    ----------
    validated
        Folder of ``validation_results.json`` and the prediction files.
    output
        Where the checklist goes.
    policy, timestamp, in_force, rules
        What to judge by, and when; see `sqkit.research.run_policy.JudgedBy`.

    Raises
    ------
    ArtifactChanged
        A stored artifact is missing or differs from its digest.
    """
    judged = judge(validated, policy, timestamp, in_force, rules)
    write_json(output / CHECKLIST_FILE, judged.checklist)
    write_text(output / CHECKLIST_PAGE, render_markdown(judged.checklist))
    write_json(output / EVIDENCE_FILE, judged.evidence)
    return judged.checklist


@dataclass(frozen=True)
class Judgement:
    """A decision before it is written: the checklist, and everything ``evidence.json`` holds."""

    checklist: dict[str, Any]
    evidence: dict[str, Any]


def judge(
    validated: Path,
    policy: Policy,
    timestamp: str,
    in_force: dict[str, Any] | None = None,
    rules: MonitoringRules | None = None,
) -> Judgement:
    """Everything a decision says, computed again from stored predictions, returns and policy.

    Nothing is written: `decide` keeps it, a verification compares it with what was kept.

    Raises
    ------
    ArtifactChanged
        A stored artifact is missing or differs from its digest.
    """
    results = read_results(validated)
    parity = read_json(validated / PARITY_FILE)
    analyzer = AccuracyAnalyzer(validated)
    _require_unchanged(validated, results, analyzer)
    candidate, baseline = analyzer.pooled("candidate"), analyzer.pooled("baseline")
    accuracy = {role: analyzer.metrics(role) for role in ("candidate", "baseline")}
    sevens = {role: seven_metrics(accuracy[role], results["metrics"][role]) for role in accuracy}
    inputs = evidence_inputs(results, analyzer)
    uplift = unrounded_deltas(sevens["candidate"], sevens["baseline"], policy)["sharpe_uplift"]
    found = gather_evidence(
        inputs.rows,
        inputs.returns,
        base_rate=inputs.base_rate,
        overlap=inputs.overlap,
        trials=inputs.trials,
        thresholds_passed=thresholds_passed(sevens["candidate"], sevens["baseline"], policy),
        sharpe_uplift=uplift,
        has_incumbent=results["incumbent_model"] is not None,
        named_baseline=inputs.named_baseline,
    )
    counts = adequacy_counts(candidate["session_days"], candidate["calls"], baseline["calls"])
    would_suffice = ""
    if GRADES.index(found.grade) < GRADES.index(policy.min_evidence):
        would_suffice = would_suffice_line(
            found.records,
            session_days=counts["session_days"],
            symbols=len(results["validation_period"]["symbols"]),
            min_precision_uplift=policy.min_precision_uplift,
            min_evidence=policy.min_evidence,
        )
    kept = {name: results["trials"][name] for name in ("n_trials", "looks", "ledger_lines", "ledger_head")}
    period = results["validation_period"]
    checklist = generate_promotion_checklist(
        timestamp=timestamp,
        candidate_model=results["candidate_model"],
        baseline_model=results["baseline_model"],
        start=period["start"],
        end=period["end"],
        symbols=period["symbols"],
        candidate_metrics=sevens["candidate"],
        baseline_metrics=sevens["baseline"],
        policy=policy,
        adequacy=Adequacy(**counts),
        integrity=integrity_items(results, analyzer, parity),
        evidence={
            "records": found.records,
            "summary": found.summary,
            "would_suffice": would_suffice,
            "trials": kept,
            "context": _context(analyzer, accuracy),
            "incumbent_model": results["incumbent_model"],
            "notes": _notes(results),
            "policy_in_force": in_force,
        },
        runtime=results["runtime"],
        digests=results["digests"],
        monitoring=_monitoring(results, analyzer, rules),
    )
    evidence = {
        "calibration": found.calibration,
        "grade": checklist["evidence"]["grade"],
        "records": found.records,
        "summary": found.summary,
        "symbols": found.symbols,
        "trials": kept,
    }
    return Judgement(checklist, plain_json(evidence, EVIDENCE_FILE))


def _require_unchanged(validated: Path, results: dict[str, Any], analyzer: AccuracyAnalyzer) -> None:
    """Every stored number the gate or a report shows must follow from the files it is said to follow from.

    Raises
    ------
    ArtifactChanged
        One does not.
    """
    digests, financial = results["digests"], {}
    for role in ("candidate", "baseline"):
        try:
            returns = np.array(list(results["daily_returns"][role].values()), dtype=np.float64)
        except (AttributeError, TypeError, ValueError):
            raise ArtifactChanged(
                f"{validated / RESULTS_FILE}: a daily return of the {role} is no number; validate again",
                path=str(validated),
            ) from None
        financial[role] = financial_metrics(returns, analyzer.closed_net_pnls(role))
    accuracy = analyzer.analyze()
    sevens = {role: seven_metrics(accuracy[role]["all_rows"], financial[role]) for role in financial}
    compared = read_json(validated / COMPARISON_FILE)["all_rows"]
    listed = {f"{entry['role']}/{entry['file']}": entry["digest"] for entry in results["files"]}
    checks = {
        f"{RESULTS_FILE}: metrics": same_values(
            {role: results["metrics"][role] for role in financial}, financial
        ),
        f"{RESULTS_FILE}: digest of the predictions": digests["predictions"] == sha256_json(listed),
        f"{RESULTS_FILE}: digest of the runtime": digests["runtime"] == sha256_json(results["runtime"]),
        ACCURACY_FILE: same_values(read_json(validated / ACCURACY_FILE), accuracy),
        COMPARISON_FILE: same_values({role: compared[role] for role in sevens}, sevens),
    }
    for what, follows in checks.items():
        if not follows:
            raise ArtifactChanged(
                f"{validated / what}: does not follow from the stored predictions and returns; validate again",
                path=str(validated),
            )


def _monitoring(
    results: dict[str, Any], analyzer: AccuracyAnalyzer, rules: MonitoringRules | None
) -> dict[str, Any] | None:
    """What the live model is held against, the rules it would be watched by, and what they imply."""
    if rules is None:
        return None
    baseline = live_baseline(results, analyzer)
    return {
        "baseline": baseline.to_dict(),
        "implies": implied(baseline, rules),
        "rules": rules.to_dict(),
    }


def _context(analyzer: AccuracyAnalyzer, accuracy: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Figures that stand beside the seven metrics: coverage, always-FLAT accuracy, acted-on rows, Brier."""
    acted_on = {role: analyzer.metrics(role, acted_on=True) for role in ("candidate", "baseline")}
    rows = [
        ("coverage (share of rows called)", accuracy, "coverage"),
        ("always-FLAT accuracy", accuracy, "always_flat_accuracy"),
        ("Brier score on decisive rows", accuracy, "brier"),
        ("precision (LONG) on acted-on rows", acted_on, "precision_long"),
        ("hit ratio on acted-on rows", acted_on, "hit_ratio"),
        ("accuracy on acted-on rows", acted_on, "accuracy"),
    ]
    return [
        {"figure": title, "candidate": source["candidate"][key], "baseline": source["baseline"][key]}
        for title, source, key in rows
    ]


def _notes(results: dict[str, Any]) -> list[str]:
    notes = [
        f"{symbol}: short history, {sessions} scored sessions"
        for symbol, sessions in results["short_history"].items()
    ]
    if results["untrained_symbols"]:
        notes.append(f"validated untrained: {', '.join(results['untrained_symbols'])}")
    if results["baseline_model"] is None:
        incumbent = results["incumbent_model"]
        notes.append(
            f"the baseline is the rule, although {incumbent} is in production"
            if incumbent
            else "first model, no incumbent: the baseline is the rule, which has no probabilities"
        )
    if is_named_baseline(results):
        incumbent = results["incumbent_model"]
        notes.append(
            f"the baseline {results['baseline_model']} is not in production "
            f"({f'{incumbent} is' if incumbent else 'no model is'}): it was named by whoever validated, so the student "
            "must beat the rule as well"
        )
    if not results["tradable"]:
        notes.append("an index is not tradable: its costs and P&L are as if it were")
    return [*notes, *results["notes"]]
