"""Accuracy from stored predictions: `AccuracyAnalyzer` reads the Parquet files back.

The validation writes prediction and trade files and this module judges them; a missing or
changed file is refused. Which rows count, and what a call is, is defined here once for candidate,
baseline model and baseline rule.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from sqkit.artifacts import RESULTS_FILE, TELEMETRY_FOLDER
from sqkit.errors import ArtifactChanged
from sqkit.files import read_json
from sqkit.metrics import accuracy_metrics
from sqkit.records import FLAT, REASON_CODES, UNKNOWN
from sqkit.research.paired_rows import PairedRows
from sqkit.research.telemetry import RecordFile, file_name, read_records
from sqkit.strategy import rule_calls

RULE: Final = "rule"
_RESULT_PARTS: Final = (
    "baseline_model",
    "candidate_model",
    "daily_returns",
    "digests",
    "files",
    "incumbent_model",
    "interval",
    "metrics",
    "models",
    "notes",
    "prefix_invariance",
    "runtime",
    "short_history",
    "teacher_disagrees",
    "tradable",
    "training_window",
    "trials",
    "untrained_symbols",
    "validation_period",
)
_JUDGED: Final = (
    "bar_time",
    "session_date",
    "student_prediction",
    "student_probability_up",
    "reason",
    "baseline_direction",
    "baseline_strength",
    "outcome",
)
"""Columns of a prediction file that judging needs; the others are not kept in memory."""

_NESTED: Final = {
    "models": ("baseline", "candidate"),
    "prefix_invariance": ("findings", "symbols", "unjudged"),
    "trials": ("ledger_head", "ledger_lines", "looks", "n_trials", "returns"),
    "validation_period": ("symbols",),
}
_UNSCORED: Final = (REASON_CODES["warm_up"], REASON_CODES["non_finite_feature"], REASON_CODES["gap"])


def read_results(folder: Path) -> dict[str, Any]:
    """What a validation left in ``validation_results.json``.

    Raises
    ------
    ArtifactChanged
        The file is missing, is not strict JSON, or lacks a part.
    """
    results = read_json(folder / RESULTS_FILE)
    missing = [name for name in _RESULT_PARTS if not isinstance(results, dict) or name not in results]
    missing += [
        f"{part}.{name}"
        for part, names in _NESTED.items()
        for name in names
        if part not in missing and (not isinstance(results[part], dict) or name not in results[part])
    ]
    if missing:
        raise ArtifactChanged(
            f"{folder / RESULTS_FILE}: lacks {', '.join(missing)}; validate again", missing=missing
        )
    return dict(results)


def scored_rows(*runs: dict[str, np.ndarray]) -> np.ndarray:
    """Rows on which every run had its features and indicators; bool (n,).

    An abstention (low confidence, outside the training ranges) is a scored row whose call is FLAT.
    """
    scored: np.ndarray = np.logical_and.reduce([~np.isin(run["reason"], _UNSCORED) for run in runs])
    return scored


def directional_calls(record: RecordFile, entry_strength: float) -> np.ndarray:
    """The calls that are judged, int8 (n,): a student's direction, or what the rule would trade."""
    columns = record.columns
    if record.version == RULE:
        return rule_calls(columns["baseline_direction"], columns["baseline_strength"], entry_strength)
    return columns["student_prediction"]


class AccuracyAnalyzer:
    """Judges the predictions of one validation.

    Parameters
    ----------
    folder
        The student's folder, holding ``validation_results.json`` and ``validation_telemetry/``.

    Raises
    ------
    ArtifactChanged
        A prediction or trade file is missing, or differs from the digest in ``validation_results.json``,
        or candidate and baseline were not judged on identical rows.
    """

    def __init__(self, folder: Path) -> None:
        results = read_results(folder)
        self.entry_strength: float = results["runtime"]["strategy_parameters"]["entry_strength"]
        self.symbols: list[str] = results["validation_period"]["symbols"]
        self._records: dict[tuple[str, str], RecordFile] = {}
        self._trades: dict[tuple[str, str], RecordFile] = {}
        for entry in results["files"]:
            path = folder / TELEMETRY_FOLDER / file_name(entry["symbol"], entry["role"], entry["kind"])
            record = read_records(path, expected_digest=entry["digest"])
            if (record.symbol, record.role, path.name) != (entry["symbol"], entry["role"], entry["file"]):
                raise ArtifactChanged(
                    f"{entry['file']}: holds the {record.role} of {record.symbol}, but is listed as the "
                    f"{entry['role']} of {entry['symbol']}; validate again",
                    path=entry["file"],
                )
            if entry["kind"] == "predictions":
                columns = {name: record.columns[name] for name in _JUDGED}
                self._records[record.symbol, record.role] = replace(record, columns=columns)
            else:
                self._trades[record.symbol, record.role] = record
        for symbol in self.symbols:
            self._require_identical_rows(symbol)

    def _require_identical_rows(self, symbol: str) -> None:
        for kind, kept in (("prediction", self._records), ("trade", self._trades)):
            for role in ("candidate", "baseline"):
                if (symbol, role) not in kept:
                    raise ArtifactChanged(f"{symbol}: no {kind} file is listed for {role}", symbol=symbol)
        if not self.has_identical_rows(symbol):
            raise ArtifactChanged(
                f"{symbol}: candidate and baseline were not run on identical rows", symbol=symbol
            )

    def has_identical_rows(self, symbol: str) -> bool:
        """Whether candidate and baseline were run over the same bars of a symbol."""
        candidate, baseline = (self._records[symbol, role].columns for role in ("candidate", "baseline"))
        return np.array_equal(candidate["bar_time"], baseline["bar_time"])

    def judged_rows(self, symbol: str, *, acted_on: bool = False) -> np.ndarray:
        """Rows that count for a symbol, bool (n,): scored for both runs, outcome known.

        With `acted_on` only those on which the baseline rule is not FLAT: rows that can trade.
        """
        candidate, baseline = (self._records[symbol, role].columns for role in ("candidate", "baseline"))
        rows: np.ndarray = scored_rows(candidate, baseline) & (candidate["outcome"] != UNKNOWN)
        if acted_on:
            rows &= candidate["baseline_direction"] != FLAT
        return rows

    def said(self, symbol: str) -> dict[str, np.ndarray]:
        """What the candidate said about every bar of a symbol, judged or not; `records.PREDICTION_FIELDS` in part."""
        return self._records[symbol, "candidate"].columns

    def pooled(
        self, role: str, *, symbols: list[str] | None = None, acted_on: bool = False
    ) -> dict[str, np.ndarray]:
        """Calls, outcomes, probabilities and session dates of the judged rows of several symbols."""
        parts: dict[str, list[np.ndarray]] = {
            "calls": [],
            "outcomes": [],
            "probability_up": [],
            "session_days": [],
        }
        for symbol in self.symbols if symbols is None else symbols:
            record, rows = self._records[symbol, role], self.judged_rows(symbol, acted_on=acted_on)
            parts["calls"].append(directional_calls(record, self.entry_strength)[rows])
            parts["outcomes"].append(record.columns["outcome"][rows])
            parts["probability_up"].append(record.columns["student_probability_up"][rows])
            parts["session_days"].append(record.columns["session_date"][rows])
        return {name: np.concatenate(arrays) for name, arrays in parts.items()}

    def paired_rows(self) -> PairedRows:
        """Both runs on their common judged rows, symbol after symbol; what the evidence is computed from."""
        student, baseline = self.pooled("candidate"), self.pooled("baseline")
        acted_on, numbers = [], []
        for number, symbol in enumerate(self.symbols):
            rows = self.judged_rows(symbol)
            direction = self._records[symbol, "candidate"].columns["baseline_direction"]
            acted_on.append(direction[rows] != FLAT)
            numbers.append(np.full(np.count_nonzero(rows), number, dtype=np.int32))
        nothing = np.full(len(student["calls"]), np.nan) if self.baseline_is_rule else None
        return PairedRows(
            session_days=student["session_days"],
            symbols=np.concatenate(numbers),
            symbol_names=tuple(self.symbols),
            acted_on=np.concatenate(acted_on),
            outcomes=student["outcomes"],
            calls_student=student["calls"],
            calls_baseline=baseline["calls"],
            probability_student=student["probability_up"],
            probability_baseline=baseline["probability_up"] if nothing is None else nothing,
        )

    def rule_calls(self) -> np.ndarray:
        """What the baseline rule calls on the rows of `paired_rows`; int8 (n,)."""
        parts = []
        for symbol in self.symbols:
            columns, rows = self._records[symbol, "candidate"].columns, self.judged_rows(symbol)
            direction, strength = columns["baseline_direction"][rows], columns["baseline_strength"][rows]
            parts.append(rule_calls(direction, strength, self.entry_strength))
        return np.concatenate(parts)

    @property
    def baseline_is_rule(self) -> bool:
        """Whether the baseline is the rule, which has no probabilities."""
        return self._records[self.symbols[0], "baseline"].version == RULE

    def trades(self, symbol: str, role: str) -> dict[str, np.ndarray]:
        """Columns of a run's trades, `records.TRADE_FIELDS`."""
        return self._trades[symbol, role].columns

    def listed_days(self, symbol: str) -> np.ndarray:
        """Session dates of the window on which a symbol has a bar; int (d,)."""
        return np.unique(self._records[symbol, "candidate"].columns["session_date"])

    def metrics(
        self, role: str, *, symbols: list[str] | None = None, acted_on: bool = False
    ) -> dict[str, Any]:
        """`sqkit.metrics.accuracy_metrics` of one run over the judged rows."""
        rows = self.pooled(role, symbols=symbols, acted_on=acted_on)
        is_rule = self._records[self.symbols[0], role].version == RULE
        return accuracy_metrics(rows["calls"], rows["outcomes"], None if is_rule else rows["probability_up"])

    def closed_net_pnls(self, role: str) -> np.ndarray:
        """Net P&L of every closed trade of a run, float64 (k,)."""
        trades = [self._trades[symbol, role].columns for symbol in self.symbols]
        return np.concatenate([part["net_pnl"][part["exit_time"] != 0] for part in trades])

    def abstentions(self) -> dict[str, int]:
        """How often the candidate said nothing, by reason."""
        reasons = np.concatenate(
            [self._records[name, "candidate"].columns["reason"] for name in self.symbols]
        )
        return {
            name: int(np.sum(reasons == code))
            for name, code in REASON_CODES.items()
            if np.any(reasons == code)
        }

    def analyze(self) -> dict[str, Any]:
        """Everything ``validation_accuracy.json`` holds."""
        return {
            role: {
                "acted_on_rows": self.metrics(role, acted_on=True),
                "all_rows": self.metrics(role),
                "by_symbol": {symbol: self.metrics(role, symbols=[symbol]) for symbol in self.symbols},
            }
            for role in ("candidate", "baseline")
        } | {"reasons": self.abstentions()}
