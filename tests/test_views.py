"""What a report shows is what the artifacts say; what is not known is shown as n/a, never as a crash."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sqkit.artifacts import ACCURACY_FILE, COMPARISON_FILE, RESULTS_FILE
from sqkit.checklist import generate_promotion_checklist
from sqkit.features import feature_matrix, student_set
from sqkit.files import read_json
from sqkit.metrics import METRIC_KEYS
from sqkit.records import REASON_CODES, iso_date
from sqkit.research import training_views, views
from sqkit.research.accuracy import AccuracyAnalyzer
from sqkit.research.distil import train_student
from sqkit.research.labels import label_bars
from sqkit.research.marketdata import load_symbol
from tests.market import DECIDED_AT, VERSION, Market, policy_of, settings_of, validate, verdict

NOTHING = "n/a"


@pytest.fixture(scope="module")
def results(validated: Path) -> dict[str, Any]:
    """``validation_results.json`` of a real validation."""
    return read_json(validated / RESULTS_FILE)


@pytest.fixture(scope="module")
def accuracy(validated: Path) -> dict[str, Any]:
    """``validation_accuracy.json`` of a real validation."""
    return read_json(validated / ACCURACY_FILE)


@pytest.fixture(scope="module")
def comparison(validated: Path) -> dict[str, Any]:
    """``comparison_baseline.json`` of a real validation."""
    return read_json(validated / COMPARISON_FILE)


@pytest.fixture(scope="module")
def checklist(validated: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The checklist of a real validation."""
    return verdict(validated, tmp_path_factory.mktemp("decided"), min_evidence="none")


@pytest.fixture(scope="module")
def silent(planted: Market, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A validation whose model never speaks, and its checklist: metrics are null."""
    folder = tmp_path_factory.mktemp("silent")
    never = float(np.nextafter(1.0, 0.0))
    validate(planted, folder, settings=settings_of(folder, student_model_confidence_threshold=never))
    return folder, verdict(folder, folder / "decided", min_evidence="none")


@pytest.fixture(scope="module")
def summary(planted: Market, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `train_student` says of a student."""
    return train_student(
        planted.teacher,
        planted.bars,
        model_type="logistic",
        output_dir=tmp_path_factory.mktemp("student"),
        version=VERSION,
        seed=0,
        created_by="test",
    )


def checklist_from(candidate: dict[str, float | None], baseline: dict[str, float | None]) -> dict[str, Any]:
    """A checklist for numbers from elsewhere."""
    return generate_promotion_checklist(
        timestamp=DECIDED_AT,
        candidate_model=None,
        baseline_model=None,
        start=None,
        end=None,
        symbols=None,
        candidate_metrics=candidate,
        baseline_metrics=baseline,
        policy=policy_of(),
        adequacy=None,
    )


def metrics(**given: float | None) -> dict[str, float | None]:
    """Seven metrics, the same on both sides but for those given."""
    plain: dict[str, float | None] = dict.fromkeys(METRIC_KEYS, 0.5)
    return plain | given


class TestValidationPages:
    """Rows of notebook 03 and 04 on real artifacts."""

    def test_first_lines(self, results: dict[str, Any], checklist: dict[str, Any]) -> None:
        """The lead line is verdict and reason; the next says whom it was compared with and what is in production."""
        assert views.lead_line(checklist) == f"PROMOTE: {checklist['reason']}"
        line = views.opponents_line(results)
        assert "baseline rule (swing)" in line
        assert line.endswith("In production at validation time: none.")
        other = results | {"baseline_model": "kept/m.onnx", "incumbent_model": "production/m.onnx"}
        assert "kept/m.onnx" in views.opponents_line(other)
        assert "production/m.onnx" in views.opponents_line(other)

    def test_facts(self, planted: Market, results: dict[str, Any]) -> None:
        """Window, zone, symbols, threshold, costs and capital are those of the run."""
        facts = {row[""]: row["value"] for row in views.facts_rows(results)}
        assert facts["Model version"] == VERSION
        assert facts["Baseline"] == "baseline rule (swing)"
        assert facts["Incumbent"] == "none"
        assert facts["Symbols"] == ", ".join(planted.bars)
        window = f"{iso_date(planted.window.first_day)} to {iso_date(planted.last_day)}"
        assert facts["Validation window"] == f"{window} (session dates, America/New_York)"
        assert facts["Confidence threshold"] == "0.6"
        assert facts["Capital per symbol"] == "100,000 USD"
        assert "slippage 5 bps a side" in facts["Costs"]

    def test_metrics_side_by_side(self, comparison: dict[str, Any]) -> None:
        """The seven metrics in order, as in the comparison; those that judge rows again on acted-on rows."""
        rows = views.metric_rows(comparison)
        assert [row["metric"] for row in rows] == list(views.TITLES.values())
        assert list(views.TITLES) == list(METRIC_KEYS)
        hit = rows[1]
        ours, theirs = (comparison["all_rows"][role]["hit_ratio"] for role in ("candidate", "baseline"))
        assert hit["candidate"] == f"{ours:.1%}"
        assert hit["difference"] == f"{100 * (ours - theirs):+.1f} pp"
        assert hit["buy and hold"] == NOTHING
        assert rows[3]["buy and hold"] == f"{comparison['buy_and_hold']['sharpe_ratio']:.2f}"
        acted_on = views.metric_rows(comparison, "acted_on_rows")
        assert [row["metric"] for row in acted_on] == [views.TITLES[name] for name in views.ROW_METRICS]

    def test_a_line_a_symbol(
        self, planted: Market, results: dict[str, Any], accuracy: dict[str, Any]
    ) -> None:
        """One row a symbol, calls adding up to the whole."""
        rows = views.symbol_rows(results, accuracy)
        assert [row["symbol"] for row in rows] == list(planted.bars)
        counts = accuracy["candidate"]["all_rows"]["counts"]
        assert sum(row["calls"] for row in rows) == counts["calls"]
        assert (
            sum(row["trades"] for row in rows) == results["metrics"]["candidate"]["counts"]["closed_trades"]
        )

    def test_criteria(self, checklist: dict[str, Any]) -> None:
        """Three criteria with their marks, as stored."""
        rows = views.criteria_rows(checklist)
        assert [row["criterion"] for row in rows] == ["Precision uplift", "Hit ratio uplift", "Sharpe uplift"]
        assert {row[""] for row in rows} == {"✅ PASS"}
        assert rows[0]["asked"] == "2.0%"
        assert rows[0]["reached"] == f"{checklist['evidence']['deltas']['precision_uplift']:.1%}"

    def test_a_near_miss_is_told_apart(self) -> None:
        """Reached and asked never print alike when one is missed: as many decimals as make the sides differ."""
        near = checklist_from(metrics(precision_long=0.51999, sharpe_ratio=0.6), metrics())
        first, _, sharpe = views.criteria_rows(near)
        assert (first["reached"], first["asked"], first[""]) == ("1.999%", "2.000%", "❌ FAIL")
        assert sharpe["criterion"] == "Sharpe uplift"

    def test_an_absolute_sharpe_criterion(self) -> None:
        """Below the floor the Sharpe criterion is a difference and says so; both sides null is no absolute one."""
        low = views.criteria_rows(checklist_from(metrics(sharpe_ratio=0.24), metrics(sharpe_ratio=0.1)))[2]
        assert low["criterion"] == "Sharpe uplift (absolute)"
        assert (low["reached"], low["asked"], low[""]) == ("+0.14", "0.10", "✅ PASS")
        null = views.criteria_rows(checklist_from(metrics(sharpe_ratio=None), metrics()))[2]
        assert (null["criterion"], null["reached"], null["asked"]) == ("Sharpe uplift", NOTHING, "5.0%")
        assert null[""] == "❌ FAIL"

    def test_how_much_data(self, checklist: dict[str, Any]) -> None:
        """Found beside asked, a mark each; a checklist without predictions says that adequacy is waived."""
        rows = {row["count"]: row for row in views.adequacy_rows(checklist)}
        assert rows["session days"]["found"] == checklist["evidence"]["adequacy"]["session_days"]
        assert (rows["session days"]["asked"], rows["candidate calls"]["asked"]) == (60, 200)
        assert {row[""] for row in rows.values()} == {"✅"}
        (waived,) = views.adequacy_rows(checklist_from(metrics(), metrics()))
        assert "waived" in waived["count"]

    def test_integrity_reasons_and_digests(self, checklist: dict[str, Any], accuracy: dict[str, Any]) -> None:
        """Items with their kind, reasons as shares of all bars, digests with n/a where there is none."""
        kinds = {row["item"]: row["kind"] for row in views.integrity_rows(checklist)}
        assert kinds["parity"] == "blocking"
        assert kinds["time_order"] == "blocking"
        reasons = views.reason_rows(accuracy)
        assert sum(row["bars"] for row in reasons) == sum(accuracy["reasons"].values())
        assert {row["reason"] for row in reasons} <= set(REASON_CODES)
        assert [row["bars"] for row in reasons] == sorted((row["bars"] for row in reasons), reverse=True)
        digests = {row["of"]: row["SHA-256"] for row in views.digest_rows(checklist)}
        assert digests["baseline"] == digests["incumbent"] == NOTHING
        assert len(digests["model"]) == 64
        line = views.evidence_line(checklist)
        assert line == f"{checklist['evidence']['summary']}. The policy asks for at least **none**."

    def test_remarks(self, results: dict[str, Any]) -> None:
        """Short history, untrained symbols, an index and what the data said each have a line; nothing, a line that says so."""
        assert views.remark_rows(results) == [{"what": "data", "remark": "nothing to remark"}]
        noted = copy.deepcopy(results) | {
            "short_history": {"AAA": 40},
            "untrained_symbols": ["AAA"],
            "tradable": False,
            "notes": ["AAA: gap, 2 times, first 2012-01-03"],
        }
        said = [f"{row['what']}: {row['remark']}" for row in views.remark_rows(noted)]
        assert said[0] == "AAA: short history: 40 scored sessions"
        assert said[1] == "AAA: validated untrained"
        assert "not tradable" in said[2]
        assert "gap" in said[3]

    def test_arrays_for_figures(self, validated: Path, results: dict[str, Any]) -> None:
        """Equity, calibration, confusion and confidence get arrays of one length, all of them of judged rows."""
        dates, series = views.equity(results)
        assert list(series) == ["candidate", "baseline", "buy and hold"]
        assert all(len(returns) == len(dates) for returns in series.values())
        assert np.all(np.diff(dates) > np.timedelta64(0, "D"))
        analyzer = AccuracyAnalyzer(validated)
        rows = analyzer.metrics("candidate")["counts"]["rows"]
        probability, outcomes = views.scored(analyzer, "candidate")
        calls, same = views.calls_and_outcomes(analyzer, "candidate")
        assert len(probability) == len(outcomes) == len(calls) == len(same) == rows
        confidence = views.confidences(analyzer)
        assert 0 < len(confidence) <= rows
        assert confidence.min() >= 0.5
        assert confidence.max() <= 1.0


class TestNothingKnown:
    """Null metrics are shown, not computed with."""

    @pytest.mark.parametrize("name", METRIC_KEYS)
    def test_a_null_metric(self, name: str) -> None:
        """Each metric alone may be null on either side: it prints n/a."""
        assert views.shown(name, None) == NOTHING
        empty: dict[str, Any] = dict.fromkeys(METRIC_KEYS)
        part = {"candidate": metrics(), "baseline": metrics(**{name: None}), "difference": empty}
        rows = views.metric_rows({"all_rows": part, "buy_and_hold": empty})
        (row,) = [row for row in rows if row["metric"] == views.TITLES[name]]
        assert (row["baseline"], row["difference"], row["buy and hold"]) == (NOTHING, NOTHING, NOTHING)
        assert row["candidate"] != NOTHING

    def test_all_null(self) -> None:
        """A checklist whose every metric is null has three failed criteria, all n/a, and a verdict."""
        empty: dict[str, float | None] = dict.fromkeys(METRIC_KEYS)
        checklist = checklist_from(empty, empty)
        assert [row["reached"] for row in views.criteria_rows(checklist)] == [NOTHING] * 3
        assert {row[""] for row in views.criteria_rows(checklist)} == {"❌ FAIL"}
        assert views.lead_line(checklist).startswith("INSUFFICIENT_EVIDENCE: ")

    def test_a_model_that_never_speaks(self, silent: tuple[Path, dict[str, Any]]) -> None:
        """Every view of a real validation without a single call works, and says n/a where nothing is defined."""
        folder, checklist = silent
        results, accuracy, comparison = (
            read_json(folder / name) for name in (RESULTS_FILE, ACCURACY_FILE, COMPARISON_FILE)
        )
        shown = {row["metric"]: row["candidate"] for row in views.metric_rows(comparison)}
        assert shown["Hit ratio"] == shown["Precision (LONG)"] == NOTHING
        assert {row["hit ratio"] for row in views.symbol_rows(results, accuracy)} == {NOTHING}
        assert [row["reached"] for row in views.criteria_rows(checklist)][:2] == [NOTHING, NOTHING]
        assert {row["reason"] for row in views.reason_rows(accuracy)} <= {
            "low_confidence",
            "out_of_distribution",
        }
        calls, _ = views.calls_and_outcomes(AccuracyAnalyzer(folder), "candidate")
        assert not np.any(calls)
        assert "INSUFFICIENT_EVIDENCE" in views.lead_line(checklist)

    def test_a_rule_has_no_probability(self, validated: Path) -> None:
        """The rule's side of the calibration figure is all NaN."""
        probability, _ = views.scored(AccuracyAnalyzer(validated), "baseline")
        assert np.isnan(probability).all()


class TestTrainingPages:
    """Rows of notebooks 01 and 02."""

    def test_bars(self, planted: Market) -> None:
        """A line on the bars and the findings of the checks; where there is none it says nothing was found."""
        bars, check = load_symbol(str(planted.location), "PLANT01", interval="1d", market="us")
        line = training_views.bars_line(bars)
        assert line.startswith("**PLANT01**: 600 bars of 1d, 600 sessions from 2012-01-03")
        assert [row["finding"] for row in training_views.finding_rows(check)] == ["nothing"]
        check.dropped["bars with a NaN price"] = 3
        (row,) = training_views.finding_rows(check)
        assert (row["severity"], row["count"]) == ("dropped", 3)

    def test_features_and_labels(self, planted: Market) -> None:
        """A row a feature over warm bars; labels of all bars, shares adding up to one."""
        bars, features = planted.bars["PLANT01"], student_set("swing")
        matrix = feature_matrix(features, bars)
        rows = training_views.feature_rows(features, matrix)
        assert [row["feature"] for row in rows] == list(features.columns)
        assert all(row["smallest"] <= row["mean"] <= row["largest"] for row in rows)
        labels = training_views.label_rows(label_bars(bars, 5, 0.5, False))
        assert sum(row["bars"] for row in labels) == len(bars)

    def test_features_that_are_not_there(self, planted: Market) -> None:
        """A series shorter than the warm-up, or a value that is not finite, gives rows without NaN and no crash."""
        bars, features = planted.bars["PLANT01"], student_set("swing")
        short = feature_matrix(features, bars.slice(0, 20))
        assert {row["mean"] for row in training_views.feature_rows(features, short)} == {None}
        matrix = feature_matrix(features, bars)
        matrix[200, 3] = np.nan
        row = training_views.feature_rows(features, matrix)[3]
        assert row["mean"] is not None
        assert np.isfinite(row["largest"])
        empty = training_views.label_rows(label_bars(bars.slice(0, 0), 5, 0.5, False))
        assert {row["share"] for row in empty} == {"0.0%"}

    def test_teacher_and_student(self, planted: Market, summary: dict[str, Any]) -> None:
        """Version, window, horizon and digest are those of the artifacts."""
        teacher = read_json(planted.teacher / "metadata.json")
        facts = {row[""]: row["value"] for row in training_views.teacher_rows(teacher)}
        assert facts["Training window"].endswith(f"{iso_date(planted.training_end)} (session dates)")
        assert facts["Horizon"] == "5 bars, dead zone 0.5 volatilities"
        student = {row[""]: row["value"] for row in training_views.student_rows(summary)}
        assert student["Student SHA-256"] == planted.model("logistic").digest
        assert student["Kind"] == "logistic"
        assert training_views.summary(teacher)["symbols"] == list(planted.bars)

    def test_distillation(self, summary: dict[str, Any]) -> None:
        """It helped where the Brier score is better and the hit rate no worse, else it is unproven."""
        better = copy.deepcopy(summary)
        student, hard, _ = better["distillation"]
        student |= {"brier": 0.2, "hit_rate": 0.6}
        hard |= {"brier": 0.21, "hit_rate": 0.6}
        assert training_views.distillation_line(better).startswith("**Distillation helped**")
        hard["hit_rate"] = 0.61
        assert training_views.distillation_line(better).startswith("**Distillation is unproven**")
        hard |= {"brier": 0.19, "hit_rate": 0.6}
        assert training_views.distillation_line(better).startswith("**Distillation is unproven**")
        student["brier"] = None
        assert "unproven" in training_views.distillation_line(better)
        series = training_views.distillation_series(summary)
        assert list(series) == ["student", "student hard labels", "teacher"]

    def test_counts_and_export(self, summary: dict[str, Any]) -> None:
        """Rows kept and left out, the balance of directions, ranges and the export's largest difference."""
        assert training_views.count_rows(summary["rows"])
        assert {row["direction"] for row in training_views.balance_rows(summary)} == {"up", "down"}
        assert len(training_views.range_rows(summary)) == len(student_set("swing").columns)
        assert training_views.export_line(summary).startswith("On 10,000 rows")
