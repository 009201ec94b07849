"""The checks of a verification: each computes one stored file again and returns what differs.

A check may raise whatever reading a damaged file ends in; `sqkit.research.verification` runs
them all and turns that into a difference too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np

from sqkit.artifacts import (
    ACCURACY_FILE,
    CHECKLIST_FILE,
    COMPARISON_FILE,
    EARLIER_FOLDER,
    EVIDENCE_FILE,
    RESULTS_FILE,
    TELEMETRY_FOLDER,
)
from sqkit.checklist import Policy, differences
from sqkit.errors import ArtifactChanged, FeatureSetError
from sqkit.files import read_json, sha256_file, sha256_json
from sqkit.metrics import financial_metrics
from sqkit.model_file import STUDENT_FILE
from sqkit.monitoring_baseline import MonitoringRules
from sqkit.research.accuracy import AccuracyAnalyzer
from sqkit.research.decision import judge
from sqkit.research.integrity import model_facts
from sqkit.research.stored_values import Difference, value_differences
from sqkit.research.telemetry import file_name, read_records
from sqkit.research.validation import compare_with_baseline
from sqkit.student import StudentModel

_ROLES: Final = ("candidate", "baseline")


@dataclass
class Notes:
    """What a reader is told beside the differences.

    Attributes
    ----------
    lines
        What could not be checked, in words.
    unchecked
        Witnesses outside of the folder, and a computation, that were not asked: ``behaviour`` (the model's
        behaviour digest, where its feature set is not registered), ``ledger`` (no trial ledger lies
        above), ``policy`` (no audit log lies above that could know the policy in force), ``report`` (no
        manifest names the folder). Each counts as unchecked until its check was made.
    """

    lines: list[str] = field(default_factory=list)
    unchecked: set[str] = field(default_factory=lambda: {"behaviour", "ledger", "policy", "report"})

    def checked(self, word: str) -> None:
        """This witness was asked."""
        self.unchecked.discard(word)


@dataclass(frozen=True)
class Stored:
    """What lies in a student's folder; an object is empty where its file cannot be read.

    Attributes
    ----------
    root
        The project's root, to which a manifest's folders are relative.
    """

    folder: Path
    reports_dir: Path
    root: Path
    checklist: dict[str, Any]
    results: dict[str, Any]

    @property
    def student(self) -> Path:
        """Where the model lies: the folder itself, or for ``validations/v<n>`` the student's own."""
        return self.folder.parent.parent if self.folder.parent.name == EARLIER_FOLDER else self.folder

    @property
    def in_force(self) -> Any:
        """What the checklist keeps of the policy in force; None where none was accepted."""
        evidence = self.checklist.get("evidence")
        return evidence.get("policy_in_force") if isinstance(evidence, dict) else None

    @cached_property
    def analyzer(self) -> AccuracyAnalyzer:
        """The stored predictions and trades, held against their digests."""
        return AccuracyAnalyzer(self.folder)

    @cached_property
    def accuracy(self) -> dict[str, Any]:
        """Accuracy of both runs, computed from the stored predictions."""
        return self.analyzer.analyze()


Check = Callable[[Stored, Notes], list[Difference]]
"""Stored files and notes to add to; returns differences."""


def check_records(stored: Stored, notes: Notes) -> list[Difference]:
    """Every prediction and trade file against its digest, and no file that is not listed."""
    telemetry, listed, found = stored.folder / TELEMETRY_FOLDER, set(), []
    for entry in stored.results["files"]:
        name = file_name(entry["symbol"], entry["role"], entry["kind"])
        listed.add(name)
        try:
            record = read_records(telemetry / name, expected_digest=entry["digest"])
        except ArtifactChanged as problem:
            found.append({"what": problem.message})
        else:
            rows = len(next(iter(record.columns.values())))
            found += value_differences(entry["rows"], rows, f"{TELEMETRY_FOLDER}/{name}: rows")
    present = {path.name for path in telemetry.iterdir() if not path.name.startswith(".")}
    return found + [
        {"what": f"{TELEMETRY_FOLDER}/{name}: not listed in {RESULTS_FILE}"}
        for name in sorted(present - listed)
    ]


def check_results(stored: Stored, notes: Notes) -> list[Difference]:
    """Financial metrics from daily returns and closed trades; the digests of predictions and runtime."""
    results, computed = stored.results, {}
    for role, returns in results["daily_returns"].items():
        closed = (
            stored.analyzer.closed_net_pnls(role) if role in _ROLES else np.empty(0)
        )  # held, never closed
        computed[role] = financial_metrics(np.array(list(returns.values()), dtype=np.float64), closed)
    digests = {
        "predictions": sha256_json(
            {f"{entry['role']}/{entry['file']}": entry["digest"] for entry in results["files"]}
        ),
        "runtime": sha256_json(results["runtime"]),
    }
    said = {name: results["digests"][name] for name in digests}
    return [
        *value_differences(results["metrics"], computed, f"{RESULTS_FILE}: metrics"),
        *value_differences(said, digests, f"{RESULTS_FILE}: digests"),
    ]


def check_symbols(stored: Stored, notes: Notes) -> list[Difference]:
    """Each symbol's bars, sessions, closed trades and fees, from its prediction and trade files.

    Net P&L is marked at every close, and buy and hold leaves no trade file: both need the bars.
    """
    said, computed = {}, {}
    for symbol, summary in stored.results["symbols"].items():
        own = {"bars": summary["bars"], "sessions": summary["sessions"]}
        again: dict[str, Any] = {
            "bars": len(stored.analyzer.judged_rows(symbol)),
            "sessions": len(stored.analyzer.listed_days(symbol)),
        }
        for role in _ROLES:
            trades = stored.analyzer.trades(symbol, role)
            own[role] = {name: summary[role][name] for name in ("closed_trades", "fees")}
            again[role] = {
                "closed_trades": int(np.count_nonzero(trades["exit_time"])),
                "fees": float(np.sum(trades["fees"])),
            }
        said[symbol], computed[symbol] = own, again
    listed = stored.results["validation_period"]["symbols"]
    return [
        *value_differences(sorted(said), sorted(listed), f"{RESULTS_FILE}: symbols"),
        *value_differences(said, computed, f"{RESULTS_FILE}: symbols"),
    ]


def check_accuracy(stored: Stored, notes: Notes) -> list[Difference]:
    """``validation_accuracy.json`` from the predictions."""
    return value_differences(read_json(stored.folder / ACCURACY_FILE), stored.accuracy, ACCURACY_FILE)


def check_comparison(stored: Stored, notes: Notes) -> list[Difference]:
    """``comparison_baseline.json`` from the predictions and the stored financial metrics."""
    computed = compare_with_baseline(stored.results["metrics"], stored.accuracy)
    return value_differences(read_json(stored.folder / COMPARISON_FILE), computed, COMPARISON_FILE)


def check_model(stored: Stored, notes: Notes) -> list[Difference]:
    """The model file is the one that was validated, and says of itself what the results say."""
    path, digests = stored.student / STUDENT_FILE, stored.results["digests"]
    place = f"{STUDENT_FILE}: digest"
    if not path.is_file():
        return [{"what": f"{STUDENT_FILE}: missing"}]
    different = value_differences(digests["model"], sha256_file(path), place)
    if different:
        return different
    try:
        model = StudentModel.load(path)
    except FeatureSetError as problem:  # a user's own set, not registered in this process
        notes.lines.append(f"the model's behaviour digest was not computed again: {problem.message}")
        return []
    facts = model_facts(model, stored.results["runtime"]["confidence_threshold"])
    notes.checked("behaviour")
    said = {
        "behaviour": digests["model_behaviour"],
        "facts": stored.results["models"]["candidate"],
        "training_window": stored.results["training_window"],
        "version": stored.results["model_version"],
    }
    own = {
        "behaviour": facts["behaviour"],
        "facts": facts,
        "training_window": facts["training_window"],
        "version": model.version,
    }
    return value_differences(said, own, STUDENT_FILE)


def check_decision(stored: Stored, notes: Notes) -> list[Difference]:
    """Checklist and evidence, judged again under the checklist's own policy, rules of monitoring and timestamp."""
    if not stored.checklist:
        return []
    policy, in_force = Policy.from_dict(stored.checklist["policy"]), stored.in_force
    rules = MonitoringRules.of_checklist(stored.checklist)
    computed = judge(stored.folder, policy, stored.checklist["timestamp"], in_force, rules)
    kept = stored.folder / EVIDENCE_FILE
    return [
        *value_differences(stored.checklist, computed.checklist, CHECKLIST_FILE),
        *(value_differences(read_json(kept), computed.evidence, EVIDENCE_FILE) if kept.is_file() else ()),
    ]


def check_consistency(stored: Stored, notes: Notes) -> list[Difference]:
    """What the checklist says follows from its own inputs."""
    if not stored.checklist:
        return []
    return [{"what": f"{CHECKLIST_FILE}: {line}"} for line in differences(stored.checklist)]
