"""`AccuracyAnalyzer` judges what is stored, row by row, and refuses what is not what was stored."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sqkit.artifacts import RESULTS_FILE, TELEMETRY_FOLDER
from sqkit.errors import ArtifactChanged
from sqkit.files import read_json, write_json
from sqkit.metrics import accuracy_metrics
from sqkit.records import (
    DOWN,
    FLAT,
    INSIDE,
    LONG,
    PREDICTION_FIELDS,
    REASON_CODES,
    SHORT,
    TRADE_FIELDS,
    UNKNOWN,
    UP,
)
from sqkit.research.accuracy import RULE, AccuracyAnalyzer, directional_calls, scored_rows
from sqkit.research.telemetry import RecordFile, write_predictions, write_trades
from tests.market import Market, copy_validation

NAN = float("nan")
SCORED, LOW, OUTSIDE = (REASON_CODES[name] for name in ("scored", "low_confidence", "out_of_distribution"))
WARM_UP, NOT_FINITE, GAP, DISABLED = (
    REASON_CODES[name] for name in ("warm_up", "non_finite_feature", "gap", "disabled")
)

# Eight rows of a hand-made validation: what the student said, what the rule said, what happened.
HAND = {
    "reason": [WARM_UP, NOT_FINITE, SCORED, SCORED, LOW, OUTSIDE, SCORED, SCORED],
    "student_prediction": [FLAT, FLAT, LONG, LONG, FLAT, FLAT, SHORT, LONG],
    "student_probability_up": [NAN, NAN, 0.9, 0.8, 0.55, NAN, 0.2, 0.7],
    "baseline_direction": [LONG, LONG, LONG, SHORT, LONG, FLAT, FLAT, LONG],
    "baseline_strength": [0.9, 0.9, 0.9, 0.5, 0.4, 0.1, 0.9, 0.9],
    "outcome": [UP, UP, UP, INSIDE, INSIDE, DOWN, DOWN, UNKNOWN],
}
"""Judged are rows 2 to 6: rows 0 and 1 had no features, the outcome of row 7 is not known."""


def columns_of(**given: Any) -> dict[str, np.ndarray]:
    """Prediction columns with the given ones filled in."""
    rows = len(next(iter(given.values())))
    columns = {name: np.zeros(rows, dtype=kind) for name, kind in PREDICTION_FIELDS.items()}
    columns |= {name: np.array(values, dtype=PREDICTION_FIELDS[name]) for name, values in given.items()}
    columns["bar_time"] = np.arange(rows, dtype=np.int64) * 10**9
    columns["session_date"] = np.arange(rows, dtype=np.int32) // 2
    columns["student_confidence"] = np.maximum(
        columns["student_probability_up"], 1.0 - columns["student_probability_up"]
    )
    return columns


def rule_columns(candidate: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The rule on the same bars: it needs no features and says no probability."""
    rows = len(candidate["bar_time"])
    return candidate | {
        "reason": np.full(rows, DISABLED, dtype=np.int8),
        "student_prediction": np.zeros(rows, dtype=np.int8),
        "student_probability_up": np.full(rows, NAN),
        "student_confidence": np.full(rows, NAN),
    }


def store(
    folder: Path,
    candidate: dict[str, dict[str, np.ndarray]],
    baseline: dict[str, dict[str, np.ndarray]] | None = None,
    *,
    baseline_version: str = RULE,
    entry_strength: float = 0.5,
) -> Path:
    """Prediction files of several symbols and the parts of the results that the analyzer reads."""
    baseline = baseline or {symbol: rule_columns(columns) for symbol, columns in candidate.items()}
    nothing = {name: np.zeros(0, dtype=kind) for name, kind in TRADE_FIELDS.items()}
    files = []
    for role, version, run in (
        ("candidate", "20250112_143000", candidate),
        ("baseline", baseline_version, baseline),
    ):
        for symbol, columns in run.items():
            files.append(
                write_predictions(folder / TELEMETRY_FOLDER, RecordFile(symbol, role, version, columns))
            )
            files.append(write_trades(folder / TELEMETRY_FOLDER, RecordFile(symbol, role, version, nothing)))
    parts = (
        "daily_returns",
        "digests",
        "interval",
        "metrics",
        "models",
        "prefix_invariance",
        "short_history",
        "teacher_disagrees",
        "training_window",
        "trials",
    )
    results: dict[str, Any] = {name: {} for name in parts}
    results["models"] = {"baseline": None, "candidate": {}}
    results["prefix_invariance"] = {"findings": [], "symbols": [], "unjudged": []}
    results["trials"] = {"ledger_head": None, "ledger_lines": 0, "looks": 0, "n_trials": 0, "returns": {}}
    results |= {"baseline_model": None, "candidate_model": "m.onnx", "incumbent_model": None}
    results |= {"notes": [], "tradable": True, "untrained_symbols": [], "files": files}
    results["runtime"] = {"strategy_parameters": {"entry_strength": entry_strength}}
    results["validation_period"] = {"symbols": list(candidate)}
    write_json(folder / RESULTS_FILE, results)
    return folder


@pytest.fixture
def by_hand(tmp_path: Path) -> AccuracyAnalyzer:
    """The analyzer over the eight rows."""
    return AccuracyAnalyzer(store(tmp_path, {"AAA": columns_of(**HAND)}))


class TestWhichRowsCount:
    """Scored on both sides, outcome known."""

    def test_judged_rows(self, by_hand: AccuracyAnalyzer) -> None:
        """Rows without features and rows without an outcome are left out; every abstention stays in."""
        assert np.flatnonzero(by_hand.judged_rows("AAA")).tolist() == [2, 3, 4, 5, 6]

    def test_acted_on_rows(self, by_hand: AccuracyAnalyzer) -> None:
        """Rows on which the rule is FLAT cannot trade and are not acted on."""
        assert np.flatnonzero(by_hand.judged_rows("AAA", acted_on=True)).tolist() == [2, 3, 4]

    @pytest.mark.parametrize("name", list(REASON_CODES))
    def test_which_silences_are_unscored(self, name: str) -> None:
        """Only a missing feature or a gap takes a row out; low confidence and the like are FLAT calls."""
        rows = scored_rows({"reason": np.array([REASON_CODES[name]], dtype=np.int8)})
        assert rows.tolist() == [name not in {"warm_up", "gap", "non_finite_feature"}]

    def test_both_runs_must_have_scored(self, tmp_path: Path) -> None:
        """A row the baseline model could not score counts for neither side: the rows are identical."""
        candidate = columns_of(**HAND)
        baseline = candidate | {"reason": np.array([0, 0, GAP, 0, 0, 0, WARM_UP, 0], dtype=np.int8)}
        stored = store(tmp_path, {"AAA": candidate}, {"AAA": baseline}, baseline_version="20240101_000000")
        analyzer = AccuracyAnalyzer(stored)
        assert np.flatnonzero(analyzer.judged_rows("AAA")).tolist() == [3, 4, 5]
        for role in ("candidate", "baseline"):
            assert analyzer.metrics(role)["counts"]["rows"] == 3


class TestCalls:
    """What is judged: a student's direction, or what the rule would trade."""

    def test_a_student_is_judged_on_its_direction(self, by_hand: AccuracyAnalyzer) -> None:
        """By hand: LONG right, LONG inside the zone wrong, FLAT inside right, FLAT on a fall wrong, SHORT right."""
        ours = by_hand.metrics("candidate")
        assert ours["counts"]["rows"] == 5
        assert ours["precision_long"] == 1 / 2
        assert ours["precision_short"] == 1 / 1
        assert ours["hit_ratio"] == 2 / 3
        assert ours["accuracy"] == 3 / 5
        assert ours["coverage"] == 3 / 5
        assert ours["always_flat_accuracy"] == 2 / 5
        # Decisive and scored: rows 2 (up, 0.9) and 6 (down, 0.2); row 5 has no probability.
        assert ours["brier"] == pytest.approx((0.1**2 + 0.2**2) / 2)
        assert (ours["counts"]["decisive"], ours["counts"]["scored_decisive"]) == (3, 2)

    def test_the_rule_is_judged_on_what_it_would_trade(self, by_hand: AccuracyAnalyzer) -> None:
        """Its direction at or above the entry strength, else FLAT; no Brier score and no calibration."""
        theirs = by_hand.metrics("baseline")
        assert by_hand.pooled("baseline")["calls"].tolist() == [LONG, SHORT, FLAT, FLAT, FLAT]
        assert theirs["precision_long"] == 1.0
        assert theirs["hit_ratio"] == 1 / 2
        assert theirs["accuracy"] == 2 / 5  # the LONG, and FLAT inside the zone
        assert theirs["brier"] is None
        assert theirs["calibration"] is None
        assert "brier" not in theirs["undefined"]

    @pytest.mark.parametrize(("entry", "calls"), [(0.4, 3), (0.5, 2), (0.50001, 1), (0.95, 0)])
    def test_the_entry_strength_decides_the_rules_calls(
        self, tmp_path: Path, entry: float, calls: int
    ) -> None:
        """The entry strength that the run was made with, as stored, decides; equality is a call."""
        analyzer = AccuracyAnalyzer(store(tmp_path, {"AAA": columns_of(**HAND)}, entry_strength=entry))
        assert analyzer.metrics("baseline")["counts"]["calls"] == calls

    def test_a_baseline_model_is_judged_like_a_candidate(self, tmp_path: Path) -> None:
        """A baseline that is a model is judged on its own directions, with Brier score."""
        columns = columns_of(**HAND)
        other = columns | {"student_prediction": -columns["student_prediction"]}
        analyzer = AccuracyAnalyzer(
            store(tmp_path, {"AAA": columns}, {"AAA": other}, baseline_version="20240101_000000")
        )
        assert analyzer.pooled("baseline")["calls"].tolist() == [SHORT, SHORT, FLAT, FLAT, LONG]
        assert analyzer.metrics("baseline")["hit_ratio"] == 0.0
        assert analyzer.metrics("baseline")["brier"] == analyzer.metrics("candidate")["brier"]

    def test_acted_on_metrics(self, by_hand: AccuracyAnalyzer) -> None:
        """On acted-on rows the same definitions over fewer rows: one right of two LONG calls, FLAT right."""
        ours = by_hand.metrics("candidate", acted_on=True)
        assert ours["counts"]["rows"] == 3
        assert (ours["hit_ratio"], ours["accuracy"]) == (1 / 2, 2 / 3)


class TestPooling:
    """Several symbols."""

    @given(data=st.data())
    @settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_pooled_metrics_are_those_of_the_rows(self, tmp_path: Path, data: st.DataObject) -> None:
        """Metrics over symbols equal `sqkit.metrics` on the concatenated rows that a plain loop picks."""
        rows = st.integers(1, 30)
        seed = data.draw(st.integers(0, 2**32 - 1))
        generator = np.random.default_rng(seed)
        run = {}
        for symbol in ("AAA", "BBB"):
            count = data.draw(rows)
            probability = generator.random(count)
            run[symbol] = columns_of(
                reason=generator.choice([SCORED, LOW, WARM_UP, NOT_FINITE, GAP], count),
                student_prediction=generator.choice([LONG, FLAT, SHORT], count),
                student_probability_up=np.where(generator.random(count) < 0.2, NAN, probability),
                baseline_direction=generator.choice([LONG, FLAT, SHORT], count),
                baseline_strength=generator.random(count),
                outcome=generator.choice([UP, INSIDE, DOWN, UNKNOWN], count),
            )
        analyzer = AccuracyAnalyzer(store(tmp_path / str(seed), run))
        picked: dict[str, list[Any]] = {"ours": [], "theirs": [], "outcome": [], "probability": []}
        for columns in run.values():
            for row in range(len(columns["reason"])):
                silent = columns["reason"][row] in {WARM_UP, NOT_FINITE, GAP}
                if silent or columns["outcome"][row] == UNKNOWN:
                    continue
                strong = columns["baseline_strength"][row] >= 0.5
                picked["ours"].append(columns["student_prediction"][row])
                picked["theirs"].append(columns["baseline_direction"][row] if strong else FLAT)
                picked["outcome"].append(columns["outcome"][row])
                picked["probability"].append(columns["student_probability_up"][row])
        ours, theirs, outcome = (
            np.array(picked[name], dtype=np.int8) for name in ("ours", "theirs", "outcome")
        )
        probability = np.array(picked["probability"])
        assert analyzer.metrics("candidate") == accuracy_metrics(ours, outcome, probability)
        assert analyzer.metrics("baseline") == accuracy_metrics(theirs, outcome)

    def test_by_symbol(self, tmp_path: Path) -> None:
        """Counts of the symbols add up to the whole, and `analyze` holds both roles and the reasons."""
        columns = columns_of(**HAND)
        shorter = {name: column[:5] for name, column in columns.items()}
        report = AccuracyAnalyzer(store(tmp_path, {"AAA": columns, "M&M": shorter})).analyze()
        for role in ("candidate", "baseline"):
            parts = report[role]["by_symbol"]
            assert set(parts) == {"AAA", "M&M"}
            for name, count in report[role]["all_rows"]["counts"].items():
                assert count == sum(part["counts"][name] for part in parts.values())
        assert report["reasons"] == {
            "scored": 6,
            "warm_up": 2,
            "low_confidence": 2,
            "out_of_distribution": 1,
            "non_finite_feature": 2,
        }
        json.dumps(report, allow_nan=False)

    def test_nothing_judged(self, tmp_path: Path) -> None:
        """Where no outcome is known every share is None, never NaN and never a crash."""
        given_ = HAND | {"outcome": [UNKNOWN] * 8}
        report = AccuracyAnalyzer(store(tmp_path, {"AAA": columns_of(**given_)})).analyze()
        assert report["candidate"]["all_rows"]["counts"]["rows"] == 0
        assert report["candidate"]["all_rows"]["hit_ratio"] is None
        json.dumps(report, allow_nan=False)


class TestTheRealChain:
    """The files of a real validation."""

    def test_it_reads_what_the_validation_wrote(self, planted: Market, validated: Path) -> None:
        """Every bar of the window is a row of the files, and the student's calls are its directions."""
        analyzer = AccuracyAnalyzer(validated)
        assert analyzer.symbols == list(planted.bars)
        results = read_json(validated / RESULTS_FILE)
        for symbol, bars in planted.bars.items():
            start, stop = bars.window(planted.window.first_day, planted.last_day)
            assert results["symbols"][symbol]["bars"] == stop - start
            judged = analyzer.judged_rows(symbol)
            assert len(judged) == stop - start
            assert judged.sum() == stop - start - 5  # warm since long; the last five have no outcome
        assert read_json(validated / "validation_accuracy.json") == analyzer.analyze()

    def test_directional_calls_of_a_rule_need_its_version(self) -> None:
        """Whether a record is the rule's is told by its version, not by its role."""
        columns = columns_of(**HAND)
        rule = directional_calls(RecordFile("AAA", "candidate", RULE, columns), 0.5)
        model = directional_calls(RecordFile("AAA", "baseline", "20250101_000000", columns), 0.5)
        assert rule.tolist() == [LONG, LONG, LONG, SHORT, FLAT, FLAT, FLAT, LONG]
        assert model.tolist() == HAND["student_prediction"]


class TestRefusals:
    """A missing, changed or foreign file makes it refuse."""

    @pytest.fixture
    def copy(self, validated: Path, tmp_path: Path) -> Path:
        """A validation that may be damaged."""
        return copy_validation(validated, tmp_path / "copy")

    @pytest.mark.parametrize(
        "name",
        [
            "PLANT01.parquet",
            "PLANT02@baseline.parquet",
            "PLANT03@trades.parquet",
            "PLANT04@baseline-trades.parquet",
        ],
    )
    @pytest.mark.parametrize("damage", ["missing", "truncated", "edited", "pickled"])
    def test_a_damaged_file(self, copy: Path, name: str, damage: str) -> None:
        """Predictions or trades, candidate or baseline: one damaged file and nothing is judged."""
        path = copy / TELEMETRY_FOLDER / name
        if damage == "missing":
            path.unlink()
        elif damage == "truncated":
            path.write_bytes(path.read_bytes()[:-20])
        elif damage == "pickled":
            path.write_bytes(pickle.dumps([1, 2]))
        else:
            table = pq.read_table(path)
            column = "outcome" if "trades" not in name else "net_pnl"
            values = table[column].to_numpy().copy()
            values[0] = 1 if values[0] != 1 else -1
            at = table.schema.get_field_index(column)
            pq.write_table(table.set_column(at, table.schema.field(at), [values]), path)
        with pytest.raises(ArtifactChanged, match=name) as refusal:
            AccuracyAnalyzer(copy)
        assert refusal.value.exit_code == 4
        assert "\n" not in refusal.value.message

    def test_no_results(self, copy: Path) -> None:
        """Without `validation_results.json`, or with half of it, there is nothing to hold files against."""
        path = copy / RESULTS_FILE
        text = path.read_text()
        path.unlink()
        with pytest.raises(ArtifactChanged, match=RESULTS_FILE):
            AccuracyAnalyzer(copy)
        for broken, said in (
            (text[: len(text) // 2], "not strict JSON"),
            ("[]", "lacks"),
            ('{"files": []}', "lacks"),
            (text.replace('"win_rate": ', '"win_rate": NaN, "x": ', 1), "NaN"),
        ):
            path.write_text(broken)
            with pytest.raises(ArtifactChanged, match=said):
                AccuracyAnalyzer(copy)

    def test_a_file_listed_as_another(self, copy: Path) -> None:
        """Candidate and baseline exchanged in the list are noticed: a file's name says whose it is."""
        results = read_json(copy / RESULTS_FILE)
        other = {"candidate": "baseline", "baseline": "candidate"}
        for entry in results["files"]:
            entry["role"] = other[entry["role"]]
        write_json(copy / RESULTS_FILE, results)
        with pytest.raises(ArtifactChanged, match="differ from the digest"):
            AccuracyAnalyzer(copy)

    def test_a_file_name_that_leads_elsewhere(self, copy: Path) -> None:
        """A listed name with a path in it is never followed."""
        results = read_json(copy / RESULTS_FILE)
        results["files"][0]["file"] = f"../{TELEMETRY_FOLDER}/{results['files'][0]['file']}"
        write_json(copy / RESULTS_FILE, results)
        with pytest.raises(ArtifactChanged, match="is listed as"):
            AccuracyAnalyzer(copy)

    @pytest.mark.parametrize("kind", ["predictions", "trades"])
    @pytest.mark.parametrize("role", ["candidate", "baseline"])
    def test_a_file_that_is_not_listed(self, copy: Path, role: str, kind: str) -> None:
        """A symbol of the window without a listed file is refused by name."""
        results = read_json(copy / RESULTS_FILE)
        results["files"] = [
            entry
            for entry in results["files"]
            if (entry["symbol"], entry["role"], entry["kind"]) != ("PLANT05", role, kind)
        ]
        write_json(copy / RESULTS_FILE, results)
        with pytest.raises(ArtifactChanged, match=f"PLANT05: no .* file is listed for {role}"):
            AccuracyAnalyzer(copy)

    def test_other_rows(self, tmp_path: Path) -> None:
        """Candidate and baseline on different bars are never compared."""
        columns = columns_of(**HAND)
        later = rule_columns(columns) | {"bar_time": columns["bar_time"] + 1}
        with pytest.raises(
            ArtifactChanged, match="AAA: candidate and baseline were not run on identical rows"
        ):
            AccuracyAnalyzer(store(tmp_path, {"AAA": columns}, {"AAA": later}))
