"""The known defects of an earlier gate, planted one by one: each is refused, or cannot happen here.

One class a defect. A test fails when the guard that it names is taken away.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pyarrow.parquet as pq
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import KFold

from sqkit.artifacts import (
    ACCURACY_FILE,
    CHECKLIST_FILE,
    COMPARISON_FILE,
    EVIDENCE_FILE,
    RESULTS_FILE,
    TELEMETRY_FOLDER,
)
from sqkit.bars import CLOSE, HIGH, LOW, OPEN, BarArrays
from sqkit.checklist import (
    Adequacy,
    differences,
    exit_code,
    generate_promotion_checklist,
    rederive,
)
from sqkit.errors import (
    ArtifactChanged,
    FeatureSetMismatch,
    IntegrityError,
    LabelsInFold,
    ModelMetadataInvalid,
    SettingsError,
    SqkitError,
    UsageError,
)
from sqkit.features import FeatureStream, feature_matrix, student_set
from sqkit.files import read_json, sha256_columns, sha256_file, sha256_json, write_json
from sqkit.fills import simulate_fills
from sqkit.metrics import TRADING_DAYS_PER_YEAR, accuracy_metrics, financial_metrics
from sqkit.model_file import STUDENT_FILE
from sqkit.production.replay import replay_model
from sqkit.records import DOWN, FLAT, UNKNOWN, UP
from sqkit.research import views
from sqkit.research.accuracy import AccuracyAnalyzer
from sqkit.research.backtest import run_validation_backtest
from sqkit.research.distil import train_student
from sqkit.research.folds import Fold, block_folds
from sqkit.research.integrity import prefix_invariance
from sqkit.research.labels import TrainingTable
from sqkit.research.learners import steady_threads
from sqkit.research.lookahead import feature_look_ahead
from sqkit.research.onnx_export import dense_graph, model_bytes
from sqkit.research.paired_evidence import HIT_RATIO_ALL_ROWS
from sqkit.research.planted import planted_market
from sqkit.research.policy_diff import policy_changes, policy_diff, policy_diff_lines
from sqkit.research.teacher import out_of_fold
from sqkit.research.teacher_folder import publish_teacher, read_teacher
from sqkit.research.telemetry import RecordFile, read_records, write_predictions
from sqkit.research.validation import run_validation
from sqkit.research.validation_plan import plan_validation
from sqkit.research.verification import verification_lines, verify
from sqkit.settings import Settings
from sqkit.strategy import StrategyParameters, run_strategy
from sqkit.student import StudentModel
from sqkit.trading_rules import TradingRules
from tests.market import (
    DECIDED_AT,
    VERSION,
    Market,
    arrays_of,
    copy_validation,
    policy_of,
    rules_of,
    settings_of,
    validate,
    verdict,
)
from tests.synthetic_bars import synthetic_bars
from tests.test_out_of_fold import rows_of
from tests.test_validation import with_metadata

DAY_NS = 86_400 * 10**9
GENEROUS: dict[str, Any] = {
    "min_evidence": "none",
    "min_precision_uplift": -1.0,
    "min_hit_ratio_uplift": -1.0,
    "min_sharpe_uplift": -100.0,
    "min_sharpe_uplift_absolute": -100.0,
    "min_sharpe": -100.0,
}
"""A policy that nobody misses: what is refused under it is refused for another reason."""


def turned(source: Path, target: Path) -> Path:
    """The same student with every probability turned into its opposite, inside the ONNX graph."""
    model = onnx.load(source)
    graph = model.graph
    (node,) = (node for node in graph.node if "probabilities" in node.output)
    node.output[list(node.output).index("probabilities")] = "as_trained"
    graph.initializer.append(onnx.numpy_helper.from_array(np.ones(1, dtype=np.float32), "whole"))
    graph.node.append(onnx.helper.make_node("Sub", ["whole", "as_trained"], ["probabilities"]))
    target.write_bytes(model.SerializeToString())
    return target


def constant(source: Path, target: Path, probability_up: float) -> Path:
    """A student with the metadata of another that says the same of every row."""
    metadata = StudentModel.load(source).metadata
    columns = len(metadata["feature_names"])
    bias = np.array([np.log(probability_up / (1.0 - probability_up))])
    graph = dense_graph([(np.zeros((columns, 1)), bias)], mean=np.zeros(columns), scale=np.ones(columns))
    target.write_bytes(model_bytes(graph, metadata))
    return target


def saved_again(source: Path, target: Path) -> Path:
    """The same graph as another tool would save it: other bytes, another graph digest, the same answers."""
    model = onnx.load(source)
    model.producer_name = "another tool"
    model.graph.doc_string = "the same model"
    model.graph.name = "renamed"
    target.write_bytes(model.SerializeToString())
    return target


def validated_file(market: Market, model: Path, folder: Path, **plan: Any) -> dict[str, Any]:
    """Validate any model file on the market's bars; the stored results."""
    asked = plan_validation(
        str(model), bars=str(market.location), settings=settings_of(folder.with_name("home")), **plan
    )
    run_validation(asked, folder, replay=replay_model)
    results: dict[str, Any] = read_json(folder / RESULTS_FILE)
    return results


def stored_columns(folder: Path, name: str) -> dict[str, np.ndarray]:
    """A Parquet file of a validation, read without sqkit."""
    table = pq.read_table(folder / TELEMETRY_FOLDER / name)
    return {column: table[column].to_numpy() for column in table.column_names}


@pytest.fixture(scope="module")
def others(planted: Market, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Validations of the other student, of the student turned round, and of two that always say the same."""
    folder = tmp_path_factory.mktemp("others")
    source = planted.students["gradient_boosting"]
    files = {
        "logistic": planted.students["logistic"],
        "turned": turned(source, folder / "turned.onnx"),
        "classes exchanged": with_metadata(source, folder / "exchanged.onnx", class_order=["UP", "DOWN"]),
        "always up": constant(source, folder / "up.onnx", 0.9),
        "always down": constant(source, folder / "down.onnx", 0.1),
    }
    places = {name: folder / name / "out" for name in files}
    for name, path in files.items():
        validated_file(planted, path, places[name])
    return places


class TestValidationThatNeverUsesTheModel:
    """The backtest asks the candidate's ONNX file; another model is another validation, down to the verdict."""

    def test_no_two_models_predict_alike(self, validated: Path, others: dict[str, Path]) -> None:
        """Digests of the predictions are all different, but for the two ways of turning the same student."""
        digests = {
            name: read_json(folder / RESULTS_FILE)["digests"]["predictions"]
            for name, folder in {"student": validated, **others}.items()
        }
        turned_ways = {digests.pop("turned"), digests.pop("classes exchanged")}
        assert len(set(digests.values())) == len(digests) == 4
        assert not turned_ways & set(digests.values())

    @pytest.mark.parametrize("name", ["turned", "classes exchanged", "always up", "always down", "logistic"])
    def test_another_model_changes_everything(
        self, validated: Path, others: dict[str, Path], tmp_path: Path, name: str
    ) -> None:
        """Predictions, trades, every metric a model can move, and the verdict, follow the model; the rule stays."""
        folder = others[name]
        ours, theirs = stored_columns(validated, "PLANT01.parquet"), stored_columns(folder, "PLANT01.parquet")
        assert not np.array_equal(ours["student_probability_up"], theirs["student_probability_up"])
        assert not np.array_equal(ours["student_prediction"], theirs["student_prediction"])
        same_trades = [
            sha256_file(validated / TELEMETRY_FOLDER / f"{symbol}@trades.parquet")
            == sha256_file(folder / TELEMETRY_FOLDER / f"{symbol}@trades.parquet")
            for symbol in read_json(folder / RESULTS_FILE)["validation_period"]["symbols"]
        ]
        assert not all(same_trades)
        first, second = (read_json(place / COMPARISON_FILE)["all_rows"] for place in (validated, folder))
        assert first["baseline"] == second["baseline"]
        for metric in ("precision_long", "hit_ratio", "accuracy", "sharpe_ratio", "total_return"):
            assert first["candidate"][metric] != second["candidate"][metric]
        if name != "logistic":
            asked = {"min_evidence": "none"}
            codes = [
                exit_code(verdict(place, tmp_path / str(number), **asked))
                for number, place in enumerate((validated, folder))
            ]
            assert codes[0] == 0
            assert codes[1] in (1, 3)

    @pytest.mark.parametrize("name", ["turned", "classes exchanged"])
    def test_a_model_turned_round_is_the_mirror(
        self, validated: Path, others: dict[str, Path], tmp_path: Path, name: str
    ) -> None:
        """Each call becomes its opposite, right becomes wrong, and the gate says so."""
        for symbol in ("PLANT01", "PLANT04"):
            ours = stored_columns(validated, f"{symbol}.parquet")
            theirs = stored_columns(others[name], f"{symbol}.parquet")
            np.testing.assert_array_equal(theirs["student_prediction"], -ours["student_prediction"])
            np.testing.assert_allclose(
                theirs["student_probability_up"], 1.0 - ours["student_probability_up"], atol=1e-6
            )
        before, after = (read_json(place / COMPARISON_FILE) for place in (validated, others[name]))
        assert (
            after["all_rows"]["difference"]["hit_ratio"] < 0.0 < before["all_rows"]["difference"]["hit_ratio"]
        )
        checklist = verdict(others[name], tmp_path)
        assert (checklist["recommendation"], exit_code(checklist)) == ("REJECT", 1)

    def test_every_stored_probability_is_the_files(self, planted: Market, validated: Path) -> None:
        """A bare onnxruntime session over the file, fed bar by bar as live, gives each stored probability's bits."""
        session = onnxruntime.InferenceSession(
            planted.students["gradient_boosting"].read_bytes(), providers=["CPUExecutionProvider"]
        )
        checked = 0
        for symbol in ("PLANT02", "PLANT05"):
            bars, stored = planted.bars[symbol], stored_columns(validated, f"{symbol}.parquet")
            stream, said = FeatureStream(student_set("swing")), {}
            for row, stamp in zip(bars.rows, bars.timestamp_ns, strict=True):
                features = stream.update(row).astype(np.float32)
                if np.isfinite(features).all():
                    (answer,) = session.run(["probabilities"], {"features": features[np.newaxis]})
                    said[int(stamp)] = float(answer[0, 1])
            for stamp, probability in zip(stored["bar_time"], stored["student_probability_up"], strict=True):
                if np.isfinite(probability):
                    assert probability == said[int(pd.Timestamp(stamp).value)]
                    checked += 1
        assert checked > 250

    def test_the_file_is_asked_when_it_is_validated(self, planted: Market, tmp_path: Path) -> None:
        """Another model put under the same path is what the next validation judges: nothing is remembered."""
        place = tmp_path / "student_model.onnx"
        shutil.copy(planted.students["gradient_boosting"], place)
        first = validated_file(planted, place, tmp_path / "first" / "out")
        turned(planted.students["gradient_boosting"], place)
        second = validated_file(planted, place, tmp_path / "second" / "out")
        assert first["candidate_model"] == second["candidate_model"]
        assert first["digests"]["predictions"] != second["digests"]["predictions"]
        assert first["digests"]["model_behaviour"] != second["digests"]["model_behaviour"]


class TestCandidateComparedWithItself:
    """A candidate is never its own baseline, under whatever name; such a comparison is REJECT with exit code 4."""

    @pytest.mark.parametrize("way", ["itself", "a copy", "a link"])
    def test_the_same_file(self, planted: Market, tmp_path: Path, way: str) -> None:
        """The same bytes are refused before anything runs."""
        model = planted.students["gradient_boosting"]
        other = tmp_path / "baseline.onnx"
        if way == "a copy":
            shutil.copy(model, other)
        elif way == "a link":
            other.symlink_to(model)
        baseline = model if way == "itself" else other
        with pytest.raises(IntegrityError, match="the same file") as refusal:
            validate(planted, tmp_path / "out", baseline_model=str(baseline))
        assert refusal.value.exit_code == 4
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("disguise", "said"),
        [
            (
                lambda source, target: with_metadata(source, target, model_version="20110101_000000"),
                "behave alike",
            ),
            (lambda source, target: with_metadata(source, target, seed=8, created_by="me"), "behave alike"),
            (saved_again, "every row the same probability"),
        ],
        ids=["another version tag", "another seed and author", "saved again"],
    )
    def test_the_same_model_in_another_file(
        self, planted: Market, tmp_path: Path, disguise: Callable[[Path, Path], Path], said: str
    ) -> None:
        """Another name, another tag, another tool: no policy promotes what differs from nothing."""
        twin = disguise(planted.students["gradient_boosting"], tmp_path / "twin.onnx")
        validate(planted, tmp_path / "out", baseline_model=str(twin))
        digests = read_json(tmp_path / "out" / RESULTS_FILE)["digests"]
        assert digests["baseline"] != digests["model"]
        for number, policy in enumerate(({}, GENEROUS)):
            checklist = verdict(tmp_path / "out", tmp_path / str(number), **policy)
            assert (checklist["recommendation"], exit_code(checklist)) == ("REJECT", 4)
            assert said in checklist["reason"]

    def test_the_same_model_in_production(self, planted: Market, tmp_path: Path) -> None:
        """A twin that lies in production and so becomes the baseline by default is found just the same."""
        settings = settings_of(tmp_path)
        production = settings.production_path("swing")
        with_metadata(planted.students["logistic"], production, model_version="20110101_000000")
        validate(planted, tmp_path / "out", kind="logistic", settings=settings)
        checklist = verdict(tmp_path / "out", tmp_path / "decided", **GENEROUS)
        assert checklist["baseline_model"] == str(production)
        assert exit_code(checklist) == 4

    def test_a_model_a_hair_away(self, planted: Market, tmp_path: Path) -> None:
        """A real other model with no uplift at all is a fair comparison, and no PROMOTE by default."""
        ranges = planted.model().metadata["feature_ranges"]
        narrower = [[low, high - 0.02 * (high - low)] for low, high in ranges]
        other = with_metadata(
            planted.students["gradient_boosting"], tmp_path / "other.onnx", feature_ranges=narrower
        )
        validate(planted, tmp_path / "out", baseline_model=str(other))
        checklist = verdict(tmp_path / "out", tmp_path / "decided")
        assert all(item["status"] == "pass" for item in checklist["integrity"] if item["blocking"])
        assert exit_code(checklist) in (1, 3)


@pytest.fixture(scope="module")
def promoted(planted: Market, validated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student's folder whose checklist says PROMOTE; read only."""
    folder = tmp_path_factory.mktemp("promoted") / "models" / VERSION / "student"
    copy_validation(validated, folder)
    shutil.copy(planted.students["gradient_boosting"], folder / STUDENT_FILE)
    assert exit_code(verdict(folder, folder, min_evidence="none")) == 0
    return folder


class TestMissingChecklist:
    """What is not there is no pass.

    This covers whoever reads a checklist today: the functions that decide again, ``verify`` and
    ``policy diff``. The promoter comes with a later issue and brings its own test.
    """

    @pytest.fixture
    def folder(self, promoted: Path, tmp_path: Path) -> Path:
        """A copy of it that may be damaged."""
        target = tmp_path / "models" / VERSION / "student"
        shutil.copytree(promoted, target)
        return target

    def test_the_whole_one_passes(self, folder: Path) -> None:
        """The premise: undamaged it promotes, follows from itself and verifies."""
        checklist = read_json(folder / CHECKLIST_FILE)
        assert rederive(checklist)[:2] == ("PROMOTE", 0)
        assert differences(checklist) == []
        assert verify(folder)["status"] == "verified"

    @pytest.mark.parametrize(
        ("missing", "how"),
        [
            *(
                (name, how)
                for name in ("candidate_metrics", "baseline_metrics", "evidence", "policy")
                for how in ("gone", "null", "empty")
            ),
            *((name, how) for name in ("integrity", "digests") for how in ("gone", "null")),
        ],
    )
    def test_a_part_is_missing(self, promoted: Path, missing: str, how: str) -> None:
        """Without any one of its inputs a checklist decides nothing, whatever it says of itself."""
        checklist = read_json(promoted / CHECKLIST_FILE)
        if how == "gone":
            del checklist[missing]
        else:
            checklist[missing] = None if how == "null" else type(checklist[missing])()
        for read in (rederive, exit_code, differences):
            with pytest.raises(SqkitError) as refusal:
                read(checklist)
            assert refusal.value.exit_code != 0
            assert "\n" not in refusal.value.message

    @pytest.mark.parametrize("value", [{}, [], None, "PROMOTE", 0, {"recommendation": "PROMOTE"}])
    def test_nothing_that_looks_like_one(self, folder: Path, value: Any) -> None:
        """An empty checklist, another kind of value, or the bare word, is refused and no verified decision."""
        for read in (rederive, exit_code, differences):
            with pytest.raises((SqkitError, TypeError, AttributeError)):
                read(value)
        write_json(folder / CHECKLIST_FILE, value)
        self.is_no_decision(folder)

    @pytest.mark.parametrize("share", [0.0, 0.2, 0.9, 0.999])
    def test_truncated(self, folder: Path, share: float) -> None:
        """A file cut short by a crash, down to nothing."""
        path = folder / CHECKLIST_FILE
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(SqkitError):
            read_json(path)
        self.is_no_decision(folder)

    def test_gone(self, folder: Path) -> None:
        """No file at all: `verify` says that it is missing, `policy diff` counts no decision."""
        (folder / CHECKLIST_FILE).unlink()
        outcome = verify(folder)
        assert outcome["status"] == "differs"
        assert {"what": f"{CHECKLIST_FILE}: missing"} in outcome["differences"]
        assert self.changed_by_a_looser_policy(folder) == ([], 0)

    @pytest.mark.parametrize("missing", ["integrity", "digests", "evidence", "policy"])
    def test_an_emptied_part_is_no_verified_decision(self, folder: Path, missing: str) -> None:
        """`verify` holds every part against the stored predictions and names the one that was emptied."""
        checklist = read_json(folder / CHECKLIST_FILE)
        checklist[missing] = type(checklist[missing])()
        write_json(folder / CHECKLIST_FILE, checklist)
        outcome = verify(folder)
        assert outcome["status"] == "differs"
        assert any(missing in line for line in verification_lines(folder, outcome))

    def test_a_stated_grade_in_place_of_the_records(self, folder: Path) -> None:
        """A checklist that drops its tests, states a grade and promotes itself follows from itself: not from the files."""
        checklist = read_json(folder / CHECKLIST_FILE)
        checklist["policy"]["min_evidence"] = "strong"
        checklist["evidence"] |= {"grade": "strong", "records": []}
        write_json(folder / CHECKLIST_FILE, checklist)
        outcome = verify(folder)
        assert outcome["status"] == "differs"
        lines = verification_lines(folder, outcome)
        assert any("recommendation: stored" in line for line in lines)
        assert any("records" in line for line in lines)

    @pytest.mark.parametrize("evidence", [None, {}, {"records": []}, {"grade": "none", "records": []}])
    @pytest.mark.parametrize("counted", [True, False])
    def test_no_evidence_is_no_promotion(
        self, promoted: Path, evidence: dict[str, Any] | None, counted: bool
    ) -> None:
        """Perfect metrics without evidence, with adequacy or without: at best exit 3 under the default policy."""
        whole = read_json(promoted / CHECKLIST_FILE)
        enough = Adequacy(session_days=500, day_clusters=400, candidate_calls=9000, baseline_calls=9000)
        checklist = generate_promotion_checklist(
            timestamp=DECIDED_AT,
            candidate_model=whole["candidate_model"],
            baseline_model=None,
            start=whole["validation_period"]["start"],
            end=whole["validation_period"]["end"],
            symbols=whole["validation_period"]["symbols"],
            candidate_metrics=dict.fromkeys(whole["candidate_metrics"], 0.99) | {"sharpe_ratio": 9.0},
            baseline_metrics=dict.fromkeys(whole["baseline_metrics"], 0.5),
            policy=policy_of(),
            adequacy=enough if counted else None,
            evidence=evidence,
        )
        assert (checklist["recommendation"], exit_code(checklist)) == ("INSUFFICIENT_EVIDENCE", 3)

    def test_predictions_without_adequacy(self, promoted: Path) -> None:
        """A checklist of predictions that lost its counts is refused, not waved through."""
        checklist = read_json(promoted / CHECKLIST_FILE)
        del checklist["evidence"]["adequacy"]
        with pytest.raises(SqkitError, match="adequacy is absent"):
            exit_code(checklist)

    def is_no_decision(self, folder: Path) -> None:
        """`verify` does not verify it, and no policy turns it into a PROMOTE."""
        assert verify(folder)["status"] == "differs"
        assert self.changed_by_a_looser_policy(folder) == ([], 1)

    def changed_by_a_looser_policy(self, folder: Path) -> tuple[list[Any], int]:
        """What a policy that asks for nothing would change, and how many checklists were skipped."""
        asked = policy_changes(["promotion_min_evidence=none", "promotion_min_precision_uplift=0"])
        found = policy_diff(folder.parents[1], asked)
        assert not any("PROMOTE" in line for line in policy_diff_lines(found)[:-1] if "skipped" not in line)
        assert found["decisions"] == 0
        return found["changed"], len(found["skipped"])


class TestConfidenceThatNeverReachesTheThreshold:
    """Confidence lies in [0.5, 1], so the default threshold is reached; one that is not reached is no pass."""

    @pytest.mark.parametrize("kind", ["gradient_boosting", "logistic"])
    def test_the_default_threshold_is_reached(self, planted: Market, kind: str) -> None:
        """Real students speak on a good part of the rows at the setting's default, and stay silent on others."""
        threshold = Settings(_env_file=None).student_model_confidence_threshold
        assert threshold == 0.6
        run = run_validation_backtest(planted.model(kind), planted.bars, planted.window, rules_of(planted))
        columns = [one.predictions for one in run.candidate.symbols.values()]
        confidence = np.concatenate([part["student_confidence"] for part in columns])
        calls = np.concatenate([part["student_prediction"] for part in columns])
        scored = np.isfinite(confidence)
        assert scored.mean() > 0.8
        assert confidence[scored].min() >= 0.5
        assert confidence[scored].max() <= 1.0
        assert 0.2 < np.mean(confidence[scored] >= threshold) < 1.0
        np.testing.assert_array_equal(calls != FLAT, confidence >= threshold)

    def test_confidence_is_not_the_distance_from_a_half(self, planted: Market) -> None:
        """The old definition |p - 0.5| would never reach the threshold on the same answers; ours is max(p, 1 - p)."""
        model = planted.model()
        features = feature_matrix(model.feature_set, planted.bars["PLANT03"])[-150:]
        scores = model.score_rows(features, 0.6)
        scored = np.isfinite(scores.probability_up)
        assert scored.sum() > 100
        probability = scores.probability_up[scored]
        np.testing.assert_array_equal(scores.confidence[scored], np.maximum(probability, 1.0 - probability))
        assert np.abs(probability - 0.5).max() < 0.6 < scores.confidence[scored].max()
        assert np.any(scores.direction != FLAT)

    @pytest.mark.parametrize(
        "policy", [{}, {"min_evidence": "none"}, GENEROUS], ids=["default", "none", "generous"]
    )
    @pytest.mark.parametrize("silenced", ["by the model", "by the threshold"])
    def test_a_threshold_no_row_reaches(
        self, planted: Market, tmp_path: Path, silenced: str, policy: dict[str, Any]
    ) -> None:
        """A student that never speaks trades like the rule and is INSUFFICIENT_EVIDENCE, never PROMOTE."""
        settings = settings_of(tmp_path)
        model = planted.students["gradient_boosting"]
        if silenced == "by the model":
            model = constant(model, tmp_path / "unsure.onnx", 0.59)
        else:
            settings = settings_of(tmp_path, student_model_confidence_threshold=1.0 - 1e-12)
        plan = plan_validation(str(model), bars=str(planted.location), settings=settings)
        run_validation(plan, tmp_path / "out", replay=replay_model)
        checklist = verdict(tmp_path / "out", tmp_path / "decided", **policy)
        assert (checklist["recommendation"], exit_code(checklist)) == ("INSUFFICIENT_EVIDENCE", 3)
        assert "0 directional calls of the candidate" in checklist["reason"]
        assert checklist["candidate_metrics"]["hit_ratio"] is None

    @pytest.mark.parametrize("threshold", [0.0, 0.1, 0.49, 1.0, 1.5, float("nan")])
    def test_a_threshold_that_means_nothing(self, planted: Market, threshold: float) -> None:
        """Thresholds below 0.5 (always reached) or from 1 on (never) are refused by settings and student alike."""
        with pytest.raises(SettingsError, match="STUDENT_MODEL_CONFIDENCE_THRESHOLD"):
            Settings(_env_file=None, student_model_confidence_threshold=threshold)
        rows = np.zeros((1, len(student_set("swing").columns)))
        with pytest.raises(UsageError, match="confidence threshold"):
            planted.model().score_rows(rows, threshold)


RENAMES: dict[str, Callable[[list[str]], list[str]]] = {
    "two exchanged": lambda names: [names[1], names[0], *names[2:]],
    "in order of the alphabet": sorted,
    "without the underscore": lambda names: [names[0].replace("_", ""), *names[1:]],
    "another case": lambda names: [*names[:-1], names[-1].upper()],
    "one renamed": lambda names: ["sma_fast", *names[1:]],
    "one twice": lambda names: [names[1], *names[1:]],
}


class TestFeatureNamesThatDiffer:
    """A model is asked with the features of its training, by name, order and definition, or not loaded."""

    @pytest.mark.parametrize("case", RENAMES)
    def test_other_names_are_refused_at_load(self, planted: Market, tmp_path: Path, case: str) -> None:
        """A permuted or renamed feature is refused as candidate and as baseline, before a bar is scored."""
        source = planted.students["logistic"]
        names = planted.model("logistic").metadata["feature_names"]
        other = RENAMES[case](list(names))
        assert other != names
        path = with_metadata(source, tmp_path / "renamed.onnx", feature_names=other)
        with pytest.raises(FeatureSetMismatch, match="another definition of swing") as refusal:
            StudentModel.load(path)
        assert refusal.value.exit_code != 0
        for candidate, baseline in ((path, ""), (planted.students["gradient_boosting"], str(path))):
            with pytest.raises(FeatureSetMismatch):
                plan_validation(
                    str(candidate),
                    bars=str(planted.location),
                    baseline_model=baseline,
                    settings=settings_of(tmp_path),
                )

    def test_a_name_too_few(self, planted: Market, tmp_path: Path) -> None:
        """Fewer names than ranges is broken metadata; fewer of both is another feature set."""
        about = planted.model("logistic").metadata
        fewer = about["feature_names"][:-1]
        path = with_metadata(planted.students["logistic"], tmp_path / "a.onnx", feature_names=fewer)
        with pytest.raises(ModelMetadataInvalid):
            StudentModel.load(path)
        path = with_metadata(path, tmp_path / "b.onnx", feature_ranges=about["feature_ranges"][:-1])
        with pytest.raises(FeatureSetMismatch):
            StudentModel.load(path)

    def test_the_same_names_of_another_definition(self, planted: Market, tmp_path: Path) -> None:
        """Names alone do not suffice: a set that computes something else has another digest."""
        path = with_metadata(
            planted.students["logistic"], tmp_path / "other.onnx", feature_set_digest="0" * 64
        )
        with pytest.raises(FeatureSetMismatch):
            StudentModel.load(path)

    def test_training_and_live_have_one_definition(self, planted: Market) -> None:
        """Names in the file are those of the live stream, and bar by bar it gives the training matrix's bits."""
        model, bars = planted.model(), planted.bars["PLANT01"]
        assert tuple(model.metadata["feature_names"]) == student_set("swing").columns
        stream = FeatureStream(model.feature_set)
        live = np.array([stream.update(row).copy() for row in bars.rows])
        np.testing.assert_array_equal(live, feature_matrix(model.feature_set, bars))


class TestShuffledSplitOnOverlappingLabels:
    """Rows that share their label's bars are never on both sides of a split."""

    HORIZON = 10

    def random_walk(self, seed: int, count: int = 2000) -> TrainingTable:
        """Rows of a random walk: past changes as features, the sign of the next ten bars as label."""
        lags, warm = (5, 10, 20, 40, 80), 100
        walk = np.cumsum(np.random.default_rng(seed).standard_normal(count + warm + self.HORIZON))
        now = walk[warm : warm + count]
        features = np.column_stack([now - walk[warm - lag : warm - lag + count] for lag in lags])
        up = walk[warm + self.HORIZON :] > now
        day = np.arange(count, dtype=np.int64)
        return TrainingTable(
            symbols=("WALK",),
            feature_names=tuple(f"change_{lag}" for lag in lags),
            features=features.astype(np.float32),
            symbol_index=np.zeros(count, dtype=np.int32),
            bar_time_ns=day * DAY_NS,
            decision_ns=(day + 1) * DAY_NS,
            label_end_ns=(day + 1 + self.HORIZON) * DAY_NS,
            embargo_ns=(day + 1 - self.HORIZON) * DAY_NS,
            session_day=day.astype(np.int32),
            outcome=np.where(up, UP, DOWN).astype(np.int8),
            counts={},
            last_day_seen=count - 1,
        )

    def hit_rate(self, table: TrainingTable, folds: list[Fold]) -> float:
        """Share of rows that a random forest gets right out of the folds."""
        answers = np.empty(len(table), dtype=bool)
        for fold in folds:
            forest = RandomForestClassifier(60, random_state=0, n_jobs=1)
            forest.fit(table.features[fold.train], table.up[fold.train])
            answers[fold.test] = forest.predict(table.features[fold.test])
        return float(np.mean(answers == table.up))

    @pytest.mark.slow
    def test_the_canary(self) -> None:
        """Nothing can be known of a random walk: shuffled folds pretend an edge on every seed, our blocks do not."""
        shuffled, ours = [], []
        for seed in range(3):
            table = self.random_walk(seed)
            split = KFold(5, shuffle=True, random_state=seed).split(table.features)
            shuffled.append(self.hit_rate(table, [Fold(train, test) for train, test in split]))
            ours.append(self.hit_rate(table, block_folds(table)))
        assert min(shuffled) > 0.6
        assert np.mean(shuffled) > 0.62
        assert abs(np.mean(ours) - 0.5) < 0.03
        assert max(ours) < min(shuffled) - 0.05

    def test_no_label_reaches_into_another_block(self) -> None:
        """The reason: no row is learned from whose label's bars meet those of the block it helps to label."""
        table = self.random_walk(0, count=300)
        for fold in block_folds(table):
            first, last = table.decision_ns[fold.test].min(), table.label_end_ns[fold.test].max()
            meets = (table.label_end_ns[fold.train] >= first) & (table.decision_ns[fold.train] <= last)
            assert not meets.any()
            assert len(fold.train) > 0

    @pytest.mark.parametrize("case", ["a shuffled split", "in fold"])
    def test_labels_of_such_a_split_train_nobody(self, planted: Market, tmp_path: Path, case: str) -> None:
        """Soft labels made that way, stored whole with their digest, are refused with exit code 4."""
        teacher = read_teacher(planted.teacher)
        table = rows_of(planted, teacher)
        rows = np.arange(len(table))
        if case == "in fold":
            folds = [Fold(rows, rows)]
        else:
            split = KFold(5, shuffle=True, random_state=0).split(table.features)
            folds = [Fold(train, test) for train, test in split]
        with steady_threads(len(table)):
            labels = out_of_fold(table, folds, kind="hist_gradient_boosting", seed=0)
        columns = teacher.soft_labels | {"soft_label": labels}
        metadata = teacher.metadata | {"soft_labels_digest": sha256_columns(**columns)}
        (tmp_path / "staging").mkdir()
        model = (planted.teacher / "teacher_model.onnx").read_bytes()
        publish_teacher(tmp_path / "staging", tmp_path / "teacher", model, metadata, columns)
        with pytest.raises(LabelsInFold) as refusal:
            train_student(
                tmp_path / "teacher",
                planted.bars,
                output_dir=tmp_path / "student",
                version=VERSION,
                seed=0,
                model_type="logistic",
            )
        assert refusal.value.exit_code == 4
        assert not (tmp_path / "student").exists()


def swing_high(frame: pd.DataFrame, left: int, right: int) -> pd.Series:
    """Marks a bar whose high is the highest of `left` bars before and `right` bars after it, on that very bar."""
    high = frame["high"].to_numpy()
    marks = np.zeros(len(high))
    for row in range(left, len(high) - right):
        marks[row] = float(high[row] == high[row - left : row + right + 1].max())
    return pd.Series(marks, index=frame.index)


class TestPivotWithoutConfirmationLag:
    """A pivot is known only when the bars that confirm it are there; marked earlier it is found."""

    @pytest.mark.parametrize(
        ("right", "cause"), [(1, "negative_shift"), (2, "centred_window"), (5, "centred_window")]
    )
    def test_marked_on_its_own_bar(self, right: int, cause: str) -> None:
        """The check names the column, how far it reads ahead, the first bar concerned and the likely cause."""
        bars = synthetic_bars("AAA", seed=2, sessions=900)

        def features(frame: pd.DataFrame) -> pd.DataFrame:
            return pd.DataFrame(
                {
                    "mean_20": frame["close"].rolling(20).mean(),
                    "swing_high": swing_high(frame, 5, right),
                }
            )

        report = feature_look_ahead(features, bars)
        assert report.status == "fail"
        (finding,) = report.findings
        assert (finding.column, finding.cause, finding.bars_ahead) == ("swing_high", cause, right)
        assert (
            5 <= finding.first_row < 60
        )  # the earliest pivots of 900 bars, nothing before `left` bars are there
        assert finding.first_instant.endswith("Z")
        assert f"swing_high: from bar {finding.first_row}" in finding.line()

    def test_marked_when_confirmed(self) -> None:
        """The same pivot marked `right` bars later passes."""
        bars = synthetic_bars("AAA", seed=2, sessions=900)
        report = feature_look_ahead(
            lambda frame: swing_high(frame, 5, 5).shift(5).rename("swing_high").to_frame(), bars
        )
        assert report.ok


def equity_by_bar(bars: BarArrays, fills: Any) -> np.ndarray:
    """Change of equity on each bar, positions marked at the close; fees where the trade ends."""
    earned, close = np.zeros(len(bars)), bars.rows[:, CLOSE]
    trades = fills.trades
    for number in range(len(trades["entry_time"])):
        entry = int(np.searchsorted(bars.timestamp_ns, trades["entry_time"][number]))
        leave = int(np.searchsorted(bars.timestamp_ns, trades["exit_time"][number]))
        path = np.concatenate(
            [[trades["entry_price"][number]], close[entry:leave], [trades["exit_price"][number]]]
        )
        shares = int(trades["direction"][number]) * int(trades["quantity"][number])
        earned[entry : leave + 1] += shares * np.diff(path)
        earned[leave] -= trades["fees"][number]
    return earned


@pytest.fixture(scope="module")
def cut() -> dict[str, tuple[BarArrays, Any]]:
    """One and the same trading day after day, on bars of five minutes and of one; with its fills."""
    frames = planted_market(7, 1, 60, "1m", 0.0)
    fine = frames["PLANT01"].reset_index(drop=True)
    groups = fine.groupby(np.arange(len(fine)) // 5)
    coarse = groups.agg(
        {
            "timestamp": "first",
            "symbol": "first",
            "open": "first",
            "high": "max",
            "low": "min",
            "close": "last",
            "volume": "sum",
        }
    )
    minutes, fives = arrays_of({"A": fine}, "1m")["A"], arrays_of({"A": coarse}, "5m")["A"]
    parameters = StrategyParameters.from_settings(Settings(_env_file=None), "intraday")
    steps = run_strategy(fives.rows, np.zeros(len(fives), dtype=np.int8), parameters)
    said = (steps.target, steps.strength, np.zeros(len(fives), dtype=np.int8), steps.exit_reason)
    # What was decided at the end of a five-minute bar is decided at the end of its last minute.
    known = (np.arange(len(minutes)) + 1) // 5 - 1
    finer = tuple(np.where(known >= 0, column[known], 0).astype(column.dtype) for column in said)
    money: dict[str, Any] = {
        "capital": 1e5,
        "slippage_bps": 1.0,
        "schedule": "flat_bps:0.5",
        "parameters": parameters,
    }
    return {
        "5m": (fives, simulate_fills(fives, *said, start=0, stop=len(fives), **money)),
        "1m": (minutes, simulate_fills(minutes, *finer, start=0, stop=len(minutes), **money)),
    }


class TestPerBarSharpe:
    """Sharpe is of daily returns: how finely a day is cut into bars does not enter."""

    def test_the_premise(self, cut: dict[str, tuple[BarArrays, Any]]) -> None:
        """Both trade the same, at the same prices, and end each day with the same money, on five times the bars."""
        (fives, coarse), (minutes, fine) = cut["5m"], cut["1m"]
        assert len(minutes) == 5 * len(fives)
        assert len(coarse.trades["entry_price"]) > 40
        for column in ("entry_price", "exit_price", "quantity", "fees", "net_pnl"):
            np.testing.assert_allclose(fine.trades[column], coarse.trades[column], rtol=1e-12)
        np.testing.assert_allclose(fine.net_pnl, coarse.net_pnl, atol=1e-6)

    def test_it_does_not_depend_on_the_bars(self, cut: dict[str, tuple[BarArrays, Any]]) -> None:
        """The same trading has the same Sharpe ratio on either bars; annualised from bars it has another on each."""
        ours, by_bar, scaled = {}, {}, {}
        for name, (bars, fills) in cut.items():
            daily = fills.net_pnl / 1e5
            ours[name] = financial_metrics(daily, np.array([]))["sharpe_ratio"]
            earned = equity_by_bar(bars, fills) / 1e5
            assert earned.sum() == pytest.approx(daily.sum(), abs=1e-9)
            bars_a_day = {"5m": 78, "1m": 390}[name]
            by_bar[name] = earned.mean() / earned.std(ddof=1) * np.sqrt(252)
            scaled[name] = by_bar[name] * np.sqrt(bars_a_day)
            assert ours[name] == pytest.approx(daily.mean() / daily.std(ddof=1) * np.sqrt(252))
        assert ours["5m"] == pytest.approx(ours["1m"], rel=1e-6)
        for name in ours:
            assert abs(by_bar[name] / ours[name] - 1.0) > 0.3
            assert abs(scaled[name] / ours[name] - 1.0) > 0.02
        assert abs(by_bar["1m"] / by_bar["5m"] - 1.0) > 0.3
        assert scaled["1m"] != pytest.approx(scaled["5m"], rel=0.005)

    def test_the_portfolios_ratio_is_of_days(self, planted: Market, validated: Path) -> None:
        """The gate's figure follows from one return a session date, idle days in, whatever the trades."""
        results = read_json(validated / RESULTS_FILE)
        dates = np.unique(
            np.concatenate(
                [
                    bars.session_days[bars.session_days >= planted.window.first_day]
                    for bars in planted.bars.values()
                ]
            )
        )
        compared = read_json(validated / COMPARISON_FILE)["all_rows"]
        for role in ("candidate", "baseline"):
            daily = np.array(list(results["daily_returns"][role].values()))
            assert len(daily) == len(dates) == results["metrics"][role]["counts"]["session_days"]
            assert np.any(daily == 0.0)
            expected = daily.mean() / daily.std(ddof=1) * np.sqrt(TRADING_DAYS_PER_YEAR)
            assert compared[role]["sharpe_ratio"] == pytest.approx(expected, rel=1e-12)
        assert TRADING_DAYS_PER_YEAR == 252


@pytest.fixture(scope="module")
def hits(planted: Market, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A validation of one student against another, decided; read only."""
    folder = tmp_path_factory.mktemp("hits") / "out"
    validate(planted, folder, baseline_model=str(planted.students["logistic"]))
    verdict(folder, folder)
    return folder


class TestThreeDefinitionsOfHitRatio:
    """One definition: right directional calls over directional calls, on the judged rows, everywhere."""

    def by_hand(self, folder: Path) -> dict[str, dict[str, list[int]]]:
        """Right directional calls, directional calls and judged rows by role and symbol, counted in the Parquet files."""
        counts: dict[str, dict[str, list[int]]] = {"candidate": {}, "baseline": {}}
        for symbol in read_json(folder / RESULTS_FILE)["validation_period"]["symbols"]:
            runs = {
                "candidate": stored_columns(folder, f"{symbol}.parquet"),
                "baseline": stored_columns(folder, f"{symbol}@baseline.parquet"),
            }
            unscored = np.logical_or.reduce([np.isin(run["reason"], (1, 2, 14)) for run in runs.values()])
            judged = ~unscored & (runs["candidate"]["outcome"] != UNKNOWN)
            for role, run in runs.items():
                call, outcome = run["student_prediction"][judged], run["outcome"][judged]
                counts[role][symbol] = [
                    int(np.sum((call == outcome) & (call != FLAT))),
                    int(np.sum(call != FLAT)),
                    int(np.sum(judged)),
                ]
        return counts

    def test_all_of_them_agree(self, hits: Path) -> None:
        """Accuracy, comparison, checklist, evidence, symbol table and notebook say the hit ratio of the files."""
        counts = self.by_hand(hits)
        results, accuracy = read_json(hits / RESULTS_FILE), read_json(hits / ACCURACY_FILE)
        comparison, evidence = read_json(hits / COMPARISON_FILE), read_json(hits / EVIDENCE_FILE)
        checklist, analyzer = read_json(hits / CHECKLIST_FILE), AccuracyAnalyzer(hits)
        records = {record["name"]: record for record in evidence["records"]}
        rows = {row["symbol"]: row for row in evidence["symbols"]}
        for role, side in (("candidate", "student"), ("baseline", "baseline")):
            right, called, judged_rows = np.sum(list(counts[role].values()), axis=0).tolist()
            assert 0 < right < called
            expected = right / called
            pooled = analyzer.pooled(role)
            judged = accuracy_metrics(pooled["calls"], pooled["outcomes"], pooled["probability_up"])
            assert judged["hit_ratio"] == expected
            assert accuracy[role]["all_rows"]["hit_ratio"] == expected
            assert accuracy[role]["all_rows"]["counts"]["rows"] == judged_rows
            assert comparison["all_rows"][role]["hit_ratio"] == expected
            assert checklist[f"{role}_metrics"]["hit_ratio"] == expected
            assert records[HIT_RATIO_ALL_ROWS]["params"][side] == pytest.approx(expected, rel=1e-12)
            shown = next(row for row in views.metric_rows(comparison) if row["metric"] == "Hit ratio")
            assert shown[role] == f"{100 * expected:.1f}%"

            by_symbol = accuracy[role]["by_symbol"]
            for symbol, (right_ones, calls, _) in counts[role].items():
                assert by_symbol[symbol]["hit_ratio"] == right_ones / calls
                assert rows[symbol][f"hit_ratio_{side}"] == pytest.approx(right_ones / calls, rel=1e-12)
            parts = [by_symbol[symbol]["counts"] for symbol in counts[role]]
            assert sum(part["right_long"] + part["right_short"] for part in parts) == right
            assert sum(part["calls"] for part in parts) == called
        estimate = records[HIT_RATIO_ALL_ROWS]["estimate"]
        assert estimate == pytest.approx(comparison["all_rows"]["difference"]["hit_ratio"], rel=1e-9)
        assert checklist["evidence"]["deltas"]["hit_ratio_uplift"] == pytest.approx(estimate, rel=1e-9)
        titles = {row["symbol"]: row["hit ratio"] for row in views.symbol_rows(results, accuracy)}
        assert titles == {
            symbol: f"{100 * right_ones / calls:.1f}%"
            for symbol, (right_ones, calls, _) in counts["candidate"].items()
        }

    def test_it_is_none_of_the_others(self, hits: Path) -> None:
        """Accuracy over all rows and the trades' win rate are other figures under other names, and differ here."""
        compared = read_json(hits / COMPARISON_FILE)["all_rows"]["candidate"]
        assert len({compared["hit_ratio"], compared["accuracy"], compared["win_rate"]}) == 3
        pooled = AccuracyAnalyzer(hits).pooled("candidate")
        assert compared["accuracy"] == pytest.approx(np.mean(pooled["calls"] == pooled["outcomes"]))


class TestOneBarShift:
    """Nothing is merged by position one bar off: not features, not decisions, not records."""

    def test_features_of_the_next_bar_are_found(
        self, planted: Market, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Planted in the chain: the features of t + 1 reach the row of t, and the validation is rejected."""

        def one_bar_off(features: Any, bars: Any) -> np.ndarray:
            honest = feature_matrix(features, bars)
            return np.vstack([honest[1:], honest[-1:]])

        for module in ("backtest", "integrity", "lookahead"):
            monkeypatch.setattr(f"sqkit.research.{module}.feature_matrix", one_bar_off)
        found = prefix_invariance(planted.model(), planted.bars, planted.window, rules_of(planted), seed=0)
        columns = set(planted.model().feature_set.columns)
        lines = [line.split(": ", 2)[1] for line in found["findings"] if "likely negative_shift" in line]
        named = {line.split(" ")[1] for line in lines if line.startswith("feature ")}
        assert len(named & columns) > len(columns) / 2
        assert "prediction probability_up" in lines
        validate(planted, tmp_path / "out")
        monkeypatch.undo()
        checklist = verdict(tmp_path / "out", tmp_path / "decided", **GENEROUS)
        assert (checklist["recommendation"], exit_code(checklist)) == ("REJECT", 4)
        assert "prefix_invariance" in checklist["reason"]

    def test_decisions_one_bar_earlier_trade_otherwise(
        self, planted: Market, validated: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A backtest that moves what the student says by one bar gives other trades, returns and outcomes."""
        honest = run_validation_backtest(planted.model(), planted.bars, planted.window, rules_of(planted))
        score = StudentModel.score_rows

        def early(
            self: StudentModel, features: np.ndarray, threshold: float, *, warm_up_rows: int = 0
        ) -> Any:
            said = score(self, features, threshold, warm_up_rows=warm_up_rows)
            return replace(said, direction=np.append(said.direction[1:], said.direction[-1:]))

        monkeypatch.setattr(StudentModel, "score_rows", early)
        shifted = run_validation_backtest(planted.model(), planted.bars, planted.window, rules_of(planted))
        assert not np.array_equal(honest.candidate.daily_returns, shifted.candidate.daily_returns)
        np.testing.assert_array_equal(honest.baseline.daily_returns, shifted.baseline.daily_returns)
        stored = read_json(validated / RESULTS_FILE)["daily_returns"]["candidate"]
        np.testing.assert_array_equal(list(stored.values()), honest.candidate.daily_returns)

    def test_records_one_row_off_are_refused(self, validated: Path, tmp_path: Path) -> None:
        """Prediction files whose calls stand one row early, listed with their new digests, decide nothing."""
        copy = copy_validation(validated, tmp_path / "copy")
        results = read_json(copy / RESULTS_FILE)
        entries = {entry["file"]: entry for entry in results["files"]}
        for symbol in results["validation_period"]["symbols"]:
            stored = read_records(copy / TELEMETRY_FOLDER / f"{symbol}.parquet")
            said = ("student_prediction", "student_probability_up", "student_confidence", "reason")
            moved = {name: np.roll(stored.columns[name], -1) for name in said}
            entry = write_predictions(
                copy / TELEMETRY_FOLDER,
                RecordFile(symbol, "candidate", stored.version, stored.columns | moved),
            )
            entries[entry["file"]] = entry
        results["files"] = [entries[entry["file"]] for entry in results["files"]]
        listed = {f"{entry['role']}/{entry['file']}": entry["digest"] for entry in results["files"]}
        results["digests"]["predictions"] = sha256_json(listed)
        write_json(copy / RESULTS_FILE, results)
        with pytest.raises(ArtifactChanged, match="does not follow from the stored predictions") as refusal:
            verdict(copy, tmp_path / "out", **GENEROUS)
        assert refusal.value.exit_code == 4

    def test_fills_come_after_the_decision(self, planted: Market) -> None:
        """Every trade of the market is entered and left at the open of the bar after its decision, slippage aside."""
        rules, trades_seen = rules_of(planted), 0
        run = run_validation_backtest(planted.model(), planted.bars, planted.window, rules)
        for symbol, one in run.candidate.symbols.items():
            bars, columns, trades = planted.bars[symbol], one.predictions, one.fills.trades
            target = columns["target"]
            slip = rules.slippage_bps / 1e4
            for number in range(len(trades["entry_time"])):
                entry = int(np.searchsorted(columns["bar_time"], trades["entry_time"][number]))
                assert target[entry - 1] * trades["direction"][number] > 0.0
                assert entry == 1 or target[entry - 2] != target[entry - 1]
                at = int(np.searchsorted(bars.timestamp_ns, trades["entry_time"][number]))
                side = int(trades["direction"][number])
                price = trades["entry_price"][number]
                assert price == pytest.approx(bars.rows[at, OPEN] * (1.0 + side * slip), rel=1e-12)
                before = bars.rows[at - 1]
                assert price not in (before[OPEN], before[HIGH], before[LOW], before[CLOSE])
                if trades["exit_time"][number]:
                    left = int(np.searchsorted(bars.timestamp_ns, trades["exit_time"][number]))
                    expected = bars.rows[left, OPEN] * (1.0 - side * slip)
                    assert trades["exit_price"][number] == pytest.approx(expected, rel=1e-12)
                trades_seen += 1
        assert trades_seen > 20

    def test_a_bars_own_move_cannot_be_earned(self) -> None:
        """Whoever wants at its end what a bar just did earns nothing on a random walk; one bar off it is riches."""
        generator = np.random.default_rng(5)
        bars = synthetic_bars("AAA", seed=5, sessions=1500, drift=0.0)
        move = np.sign(bars.rows[:, CLOSE] - bars.rows[:, OPEN])
        move[move == 0.0] = generator.choice([-1.0, 1.0])
        strength, silent = np.ones(len(bars)), np.zeros(len(bars), dtype=np.int8)
        rules = TradingRules.from_settings(
            Settings(_env_file=None), strategy="swing", market="us", horizon_bars=5, dead_zone=0.5
        )
        ratio = {}
        for name, wanted in (("honest", move), ("one bar early", np.append(move[1:], 1.0))):
            fills = simulate_fills(
                bars,
                wanted,
                strength,
                silent,
                silent,
                start=0,
                stop=len(bars),
                capital=1e6,
                slippage_bps=0.0,
                schedule="flat_bps:0",
                parameters=rules.parameters,
            )
            ratio[name] = financial_metrics(fills.net_pnl / 1e6, np.array([]))["sharpe_ratio"]
        assert abs(ratio["honest"]) < 1.5
        assert ratio["one bar early"] > 10.0
