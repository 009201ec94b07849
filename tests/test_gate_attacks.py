"""Ways around the gate that somebody tried: each must end in a refusal, or below PROMOTE.

One planted market without an edge: no student of it should ever be promoted.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from sqkit.artifacts import RESULTS_FILE, TELEMETRY_FOLDER
from sqkit.checklist import Adequacy, generate_promotion_checklist
from sqkit.errors import ArtifactChanged, IntegrityError
from sqkit.files import read_json, sha256_json, write_json
from sqkit.metrics import financial_metrics
from sqkit.model_file import METADATA_KEY
from sqkit.research.accuracy import AccuracyAnalyzer
from sqkit.research.ledger_check import candidate_predictions_digest, ledger_contradictions
from sqkit.research.requests import Thresholds
from sqkit.research.telemetry import RecordFile, read_records, write_trades
from sqkit.research.trials import open_ledger
from sqkit.research.validation_jobs import rebuild_checklist_job
from sqkit.research.validation_plan import plan_validation
from sqkit.research.verification import verify
from tests.graded import graded_records
from tests.market import DECIDED_AT, Market, build_market, policy_of, settings_of, validate, verdict

pytestmark = pytest.mark.slow

CANDIDATE = {
    "precision_long": 0.7,
    "hit_ratio": 0.7,
    "accuracy": 0.6,
    "sharpe_ratio": 2.0,
    "total_return": 0.2,
    "max_drawdown": 0.05,
    "win_rate": 0.6,
}
BASELINE = CANDIDATE | {"precision_long": 0.6, "hit_ratio": 0.6, "sharpe_ratio": 1.0}


@pytest.fixture(scope="module")
def edgeless(tmp_path_factory: pytest.TempPathFactory) -> Market:
    """Ten symbols without an edge, 300 sessions to validate."""
    return build_market(
        tmp_path_factory.mktemp("edgeless"),
        seed=2,
        symbols=10,
        sessions=900,
        training=600,
        edge=0.0,
        kinds=("gradient_boosting",),
    )


def with_metadata(source: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of a model file whose metadata were rewritten by somebody else's tool."""
    model = onnx.load(str(source))
    for entry in model.metadata_props:
        if entry.key == METADATA_KEY:
            told = json.loads(entry.value)
            change(told)
            entry.value = json.dumps(told)
    target.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(target))
    return target


def test_a_junk_baseline_earns_nothing(edgeless: Market, tmp_path: Path) -> None:
    """Beating a model that calls the wrong way round is no evidence while the rule is not beaten as well."""
    junk = with_metadata(
        edgeless.students["gradient_boosting"],
        tmp_path / "junk/student_model.onnx",
        lambda told: told.update(class_order=told["class_order"][::-1]),
    )
    validate(edgeless, tmp_path / "validated", baseline_model=str(junk))
    checklist = verdict(tmp_path / "validated", tmp_path / "out")

    records = {record["name"]: record for record in checklist["evidence"]["records"]}
    assert records["loss_differential.all_rows"]["p_value"] < 0.01
    assert records["named_baseline.precision_of_rule"]["kind"] == "blocking"
    assert checklist["evidence"]["grade"] in ("none", "weak")
    assert checklist["recommendation"] != "PROMOTE"
    assert any("is not in production" in line for line in checklist["verdict_reasons"])
    assert "against a named baseline, not an incumbent" in checklist["evidence"]["summary"]


def test_the_incumbent_needs_no_second_opponent(edgeless: Market, tmp_path: Path) -> None:
    """Against the model in production the paired loss decides; no record of the rule is asked for."""
    settings = settings_of(tmp_path)
    production = Path(settings.student_model_path)
    with_metadata(
        edgeless.students["gradient_boosting"],
        production,
        lambda told: told.update(class_order=told["class_order"][::-1]),
    )
    validate(edgeless, tmp_path / "validated", settings=settings)
    checklist = verdict(tmp_path / "validated", tmp_path / "out")

    assert checklist["baseline_model"] == str(production)
    assert not any(r["name"].startswith("named_baseline") for r in checklist["evidence"]["records"])


def _smoother(validated: Path) -> None:
    """Make the candidate's returns better, and everything the folder says of itself follow from it."""
    results = read_json(validated / RESULTS_FILE)
    series = results["daily_returns"]["candidate"]
    capital, symbol = results["runtime"]["capital_per_symbol"], results["validation_period"]["symbols"][0]
    path = validated / TELEMETRY_FOLDER / f"{symbol}@trades.parquet"
    record = read_records(path)
    earned = 0.002 * capital * len(results["validation_period"]["symbols"]) * len(series)
    record.columns["net_pnl"] = record.columns["net_pnl"].copy()
    record.columns["net_pnl"][0] += earned
    entry = write_trades(path.parent, RecordFile(symbol, record.role, record.version, dict(record.columns)))
    results["files"] = [
        entry if (one["file"], one["role"]) == (entry["file"], entry["role"]) else one
        for one in results["files"]
    ]
    results["daily_returns"]["candidate"] = {day: value + 0.002 for day, value in series.items()}
    listed = {f"{one['role']}/{one['file']}": one["digest"] for one in results["files"]}
    results["digests"]["predictions"] = sha256_json(listed)
    write_json(validated / RESULTS_FILE, results)
    returns = np.array(list(results["daily_returns"]["candidate"].values()))
    pnls = AccuracyAnalyzer(validated).closed_net_pnls("candidate")
    results["metrics"]["candidate"] = financial_metrics(returns, pnls)
    write_json(validated / RESULTS_FILE, results)


class TestRewrittenArtifacts:
    """Predictions, returns, metrics and digests changed consistently contradict what was written before."""

    @pytest.fixture
    def home(self, edgeless: Market, tmp_path: Path) -> tuple[Path, Path]:
        """A student's folder below the data folder whose ledger counted its validation, and that data folder."""
        folder = tmp_path / "data/models/20120101_000000/student"
        folder.mkdir(parents=True)
        shutil.copy(edgeless.students["gradient_boosting"], folder)
        moved = Market(**{**vars(edgeless), "students": {"gradient_boosting": folder / "student_model.onnx"}})
        validate(moved, folder, settings=settings_of(tmp_path), bars=str(edgeless.location))
        verdict(folder, folder)
        return folder, tmp_path

    def test_untouched(self, home: tuple[Path, Path]) -> None:
        """The ledger agrees with what the validation left."""
        folder, root = home
        results = read_json(folder / RESULTS_FILE)
        assert ledger_contradictions(open_ledger(root / "data", root / "reports"), results) == []
        assert verify(folder, reports_dir=root / "reports")["differences"] == []

    def test_the_ledger_contradicts(self, home: tuple[Path, Path]) -> None:
        """`verify` names the predictions and the returns that the ledger has not seen."""
        folder, root = home
        _smoother(folder)
        said = [one["what"] for one in verify(folder, reports_dir=root / "reports")["differences"]]
        assert any("predictions are not those that the trial ledger has seen" in line for line in said)
        assert any("daily returns are not those that the trial ledger has seen" in line for line in said)

    def test_a_decision_is_not_repeated_on_them(
        self, home: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """``sqkit checklist --model`` refuses, so no new report can cover them up."""
        folder, root = home
        monkeypatch.chdir(root)
        _smoother(folder)
        before = sorted(path.name for path in folder.iterdir())
        with pytest.raises(ArtifactChanged, match="were changed since it was validated"):
            rebuild_checklist_job("data/models/20120101_000000/student", Thresholds())
        assert sorted(path.name for path in folder.iterdir()) == before
        assert not (root / "reports").exists()

    def test_a_smaller_count_of_trials(self, home: tuple[Path, Path]) -> None:
        """The number of trials is the one of the ledger's lines, not the one somebody wrote."""
        folder, root = home
        results = read_json(folder / RESULTS_FILE)
        results["trials"]["n_trials"] = 0
        found = ledger_contradictions(open_ledger(root / "data", root / "reports"), results)
        assert found == ["the trial ledger counts 1 trials of this window, the results 0"]

    def test_the_digest_is_of_the_candidate_alone(self, home: tuple[Path, Path]) -> None:
        """Another baseline changes nothing that the ledger keeps of the candidate."""
        files = read_json(home[0] / RESULTS_FILE)["files"]
        other = [{**one, "digest": "0"} if one["role"] == "baseline" else one for one in files]
        assert candidate_predictions_digest(other) == candidate_predictions_digest(files)

    def test_another_data_folder_does_not_reset_the_count(self, home: tuple[Path, Path]) -> None:
        """A student beside a ledger is not judged under another one."""
        folder, root = home
        elsewhere = settings_of(root, data_dir=str(root / "elsewhere"))
        with pytest.raises(IntegrityError, match="lies beside the trial ledger"):
            plan_validation(str(folder / "student_model.onnx"), settings=elsewhere)


def test_a_student_that_lies_about_its_training(edgeless: Market, tmp_path: Path) -> None:
    """The teacher's folder knows the window: a file that says otherwise is REJECT, exit code 4."""
    folder = tmp_path / "models/20120101_000000"
    shutil.copytree(edgeless.teacher, folder / "teacher")

    def earlier(told: dict[str, Any]) -> None:
        told["training_window"]["end"] = "2013-12-31"
        told["last_label_end"] = "2013-12-30T21:00:00Z"

    liar = with_metadata(
        edgeless.students["gradient_boosting"], folder / "student/student_model.onnx", earlier
    )
    moved = Market(**{**vars(edgeless), "students": {"gradient_boosting": liar}})
    validate(moved, tmp_path / "validated", start="2014-01-02")
    checklist = verdict(tmp_path / "validated", tmp_path / "out", min_evidence="none")
    items = {item["name"]: item for item in checklist["integrity"]}

    assert items["time_order"]["status"] == "pass"
    assert items["teacher_agrees"]["status"] == "fail"
    assert "training_window" in items["teacher_agrees"]["note"]
    assert checklist["recommendation"] == "REJECT"


def test_a_checklist_written_by_hand_carries_no_evidence() -> None:
    """Stated counts, a stated grade and made-up records earn nothing without predictions."""
    for records in ([], graded_records("strong")):
        checklist = generate_promotion_checklist(
            timestamp=DECIDED_AT,
            candidate_model="a.onnx",
            baseline_model=None,
            start="2024-07-01",
            end="2024-09-30",
            symbols=["X"],
            candidate_metrics=CANDIDATE,
            baseline_metrics=BASELINE,
            policy=policy_of(),
            adequacy=Adequacy(300, 300, 3000, 3000),
            evidence={"grade": "strong", "records": records},
        )
        assert checklist["evidence"]["grade"] == "none"
        assert checklist["recommendation"] == "INSUFFICIENT_EVIDENCE"
