"""Integrity: a clean comparison passes every item, and each kind of dirt fails its own, whatever the figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sqkit.artifacts import PARITY_FILE, RESULTS_FILE, TELEMETRY_FOLDER
from sqkit.bars import BarArrays
from sqkit.checklist import exit_code
from sqkit.errors import ArtifactChanged
from sqkit.features import feature_matrix, student_set
from sqkit.files import read_json, sha256_json, write_json
from sqkit.production.replay import replay_model
from sqkit.records import iso_date
from sqkit.research.accuracy import AccuracyAnalyzer
from sqkit.research.backtest import Window
from sqkit.research.integrity import CHECKED_SYMBOLS, integrity_items, prefix_invariance
from sqkit.research.onnx_export import dense_graph, model_bytes
from sqkit.research.telemetry import RecordFile, read_records, write_predictions
from sqkit.research.validation import run_validation
from sqkit.research.validation_plan import plan_validation
from sqkit.student import Scores, StudentModel
from sqkit.trading_rules import TradingRules
from tests.market import Market, copy_validation, rules_of, settings_of, validate, verdict
from tests.small_student import small_metadata
from tests.synthetic_bars import synthetic_bars
from tests.test_validation import with_metadata

Edit = Callable[[dict[str, Any]], None]

BLOCKING = (
    "time_order",
    "prefix_invariance",
    "identical_rows",
    "distinct_models",
    "out_of_fold_teacher",
    "teacher_agrees",
    "model_fits_run",
    "trial_ledger",
    "parity",
)
GENEROUS: dict[str, Any] = {
    "min_evidence": "none",
    "min_precision_uplift": -1.0,
    "min_hit_ratio_uplift": -1.0,
    "min_sharpe_uplift": -100.0,
    "min_sharpe_uplift_absolute": -100.0,
    "min_sharpe": -100.0,
}
"""A policy that nobody misses: what is refused under it is refused for its integrity."""


@pytest.fixture(scope="module")
def compared(planted: Market, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A validation of one student against another; read only."""
    folder = tmp_path_factory.mktemp("compared") / "out"
    validate(planted, folder, baseline_model=str(planted.students["logistic"]))
    return folder


@pytest.fixture
def copy(compared: Path, tmp_path: Path) -> Path:
    """A copy of it that may be changed."""
    return copy_validation(compared, tmp_path / "copy")


def items_of(folder: Path) -> dict[str, dict[str, Any]]:
    """The items of a stored validation, by name."""
    found = integrity_items(
        read_json(folder / RESULTS_FILE), AccuracyAnalyzer(folder), read_json(folder / PARITY_FILE)
    )
    assert len({item["name"] for item in found}) == len(found)
    return {item["name"]: item for item in found}


def edit_results(folder: Path, edit: Edit) -> None:
    """Change what a validation stored."""
    results = read_json(folder / RESULTS_FILE)
    edit(results)
    write_json(folder / RESULTS_FILE, results)


class TestClean:
    """Nothing is wrong: every item says so, and what it looked at."""

    @pytest.mark.parametrize("against", ["the rule", "a model"])
    def test_every_item_passes(self, validated: Path, compared: Path, against: str) -> None:
        """All blocking items pass with a line each."""
        items = items_of(validated if against == "the rule" else compared)
        advisory = {"baseline_time_order"} if against == "a model" else set()
        assert set(items) == {*BLOCKING, *advisory}
        for name, item in items.items():
            assert item["blocking"] is (name in BLOCKING)
            assert item["status"] == "pass"
            assert item["note"]
            assert "\n" not in item["note"]

    def test_a_generous_policy_promotes_it(self, validated: Path, compared: Path, tmp_path: Path) -> None:
        """The premise of every refusal below: without the defect this policy says PROMOTE."""
        for folder in (validated, compared):
            checklist = verdict(folder, tmp_path / folder.name, **GENEROUS)
            assert (checklist["recommendation"], exit_code(checklist)) == ("PROMOTE", 0)


def _label_into_window(results: dict[str, Any]) -> None:
    results["models"]["candidate"]["last_label_end"] = f"{results['validation_period']['start']}T20:00:00Z"


def _training_into_window(results: dict[str, Any]) -> None:
    results["models"]["candidate"]["training_window"]["end"] = results["validation_period"]["start"]


def _training_after_window(results: dict[str, Any]) -> None:
    results["models"]["candidate"]["training_window"]["end"] = results["validation_period"]["end"]


def _prefix_finding(results: dict[str, Any]) -> None:
    results["prefix_invariance"]["findings"] = ["PLANT01: feature rsi_14: from bar 3 on; likely back_fill"]


def _prefix_unjudged(results: dict[str, Any]) -> None:
    results["prefix_invariance"]["unjudged"] = ["PLANT01: 1 bar; there is no future to look at"]


def _prefix_of_nothing(results: dict[str, Any]) -> None:
    results["prefix_invariance"]["symbols"] = []


def _same_file(results: dict[str, Any]) -> None:
    results["digests"]["baseline"] = results["digests"]["model"]


def _same_behaviour(results: dict[str, Any]) -> None:
    results["models"]["baseline"]["behaviour"] = results["models"]["candidate"]["behaviour"]


def _one_block(results: dict[str, Any]) -> None:
    results["models"]["candidate"]["out_of_fold"] |= {"blocks": 1, "refitted_block": 0}


def _no_such_block(results: dict[str, Any]) -> None:
    results["models"]["candidate"]["out_of_fold"]["refitted_block"] = 5


def _model_says(role: str, key: str, value: Any) -> Edit:
    def edit(results: dict[str, Any]) -> None:
        results["models"][role][key] = value

    return edit


def _not_counted(results: dict[str, Any]) -> None:
    results["trials"]["n_trials"] = 0


def _no_ledger(results: dict[str, Any]) -> None:
    results["trials"]["ledger_head"] = None


DIRT: dict[str, tuple[str, Edit, str]] = {
    "a label ends in the window": ("time_order", _label_into_window, "the last label"),
    "training ends in the window": ("time_order", _training_into_window, "training ended"),
    "training ends after the window": ("time_order", _training_after_window, "training ended"),
    "a feature looked ahead": ("prefix_invariance", _prefix_finding, "rsi_14: from bar 3 on"),
    "features that cannot be judged": ("prefix_invariance", _prefix_unjudged, "no future to look at"),
    "no symbol was recomputed": ("prefix_invariance", _prefix_of_nothing, "no symbol"),
    "one file twice": ("distinct_models", _same_file, "the same file"),
    "one behaviour twice": ("distinct_models", _same_behaviour, "behave alike"),
    "labels of one block": ("out_of_fold_teacher", _one_block, "soft labels of 1 blocks"),
    "a block that is none": ("out_of_fold_teacher", _no_such_block, "soft labels of 5 blocks"),
    "another strategy": ("model_fits_run", _model_says("candidate", "strategy", "intraday"), "strategy"),
    "another interval": ("model_fits_run", _model_says("candidate", "interval", "5m"), "interval is 5m"),
    "another market": ("model_fits_run", _model_says("candidate", "market", "nse"), "market is nse"),
    "another horizon": ("model_fits_run", _model_says("candidate", "horizon_bars", 9), "horizon_bars is 9"),
    "another dead zone": ("model_fits_run", _model_says("candidate", "dead_zone", 0.1), "dead_zone is 0.1"),
    "a baseline of another interval": (
        "model_fits_run",
        _model_says("baseline", "interval", "1m"),
        "baseline's interval is 1m",
    ),
    "a look without a ledger": ("trial_ledger", _no_ledger, "not in the trial ledger"),
}


class TestDirt:
    """Each kind fails its own item alone, and REJECTs with exit code 4 whatever else was reached."""

    @pytest.mark.parametrize("case", DIRT)
    def test_rejected_for_its_own_reason(self, copy: Path, tmp_path: Path, case: str) -> None:
        """The item does not pass and says why, all others pass, and no policy and no figure outweighs it."""
        name, edit, said = DIRT[case]
        edit_results(copy, edit)
        items = items_of(copy)
        failed = [item for item in items.values() if item["status"] not in ("pass", "not_run")]
        assert [item["name"] for item in failed] == [name]
        assert said in failed[0]["note"]
        assert "\n" not in failed[0]["note"]
        checklist = verdict(copy, tmp_path / "out", **GENEROUS)
        assert (checklist["recommendation"], exit_code(checklist)) == ("REJECT", 4)
        assert f"ntegrity {name} is {failed[0]['status']}" in checklist["reason"]
        assert said in checklist["reason"]

    def test_a_look_that_was_not_counted(self, copy: Path, tmp_path: Path) -> None:
        """No trial at all: the item fails, and with it the decision, REJECT with exit code 4."""
        edit_results(copy, _not_counted)
        assert items_of(copy)["trial_ledger"]["status"] == "fail"
        checklist = verdict(copy, tmp_path / "out", **GENEROUS)
        assert (checklist["recommendation"], exit_code(checklist)) == ("REJECT", 4)

    def test_the_last_label_may_end_on_the_day_before(self, planted: Market, copy: Path) -> None:
        """The bound itself: a label that ended the day before the window passes, one on its first day does not."""
        for days, status in ((-1, "pass"), (0, "fail"), (1, "fail")):
            ended = iso_date(planted.window.first_day + days)
            edit_results(copy, _model_says("candidate", "last_label_end", f"{ended}T21:00:00Z"))
            assert items_of(copy)["time_order"]["status"] == status

    def test_a_baseline_that_saw_the_window(self, copy: Path, tmp_path: Path) -> None:
        """It is flattered, which is no fault of the candidate: said, but it does not reject."""
        start = read_json(copy / RESULTS_FILE)["validation_period"]["start"]
        edit_results(copy, _model_says("baseline", "last_label_end", f"{start}T20:00:00Z"))
        items = items_of(copy)
        assert (items["baseline_time_order"]["status"], items["time_order"]["status"]) == ("fail", "pass")
        checklist = verdict(copy, tmp_path / "out", **GENEROUS)
        assert checklist["recommendation"] == "PROMOTE"
        assert items["baseline_time_order"] in checklist["integrity"]

    def test_dirt_outweighs_everything_else(self, copy: Path, tmp_path: Path) -> None:
        """Integrity comes first: too little data and missed thresholds are said after it, under exit code 4."""
        edit_results(copy, _no_ledger)
        checklist = verdict(copy, tmp_path / "out", min_days=10_000, min_sharpe=100.0)
        assert (checklist["recommendation"], exit_code(checklist)) == ("REJECT", 4)
        assert checklist["reason"].startswith("Integrity trial_ledger is fail")
        assert any("10000" in line for line in checklist["verdict_reasons"])


class _OtherRowsAllowed(AccuracyAnalyzer):
    """The analyzer without its own refusal, to ask the item alone."""

    def _require_identical_rows(self, symbol: str) -> None:
        pass


class TestIdenticalRows:
    """Candidate and baseline on other bars are compared by nobody."""

    @pytest.fixture
    def shifted(self, copy: Path) -> Path:
        """A validation whose baseline, on one symbol, names each row by the bar after it."""
        results = read_json(copy / RESULTS_FILE)
        stored = read_records(copy / TELEMETRY_FOLDER / "PLANT02@baseline.parquet")
        later = stored.columns | {"bar_time": np.roll(stored.columns["bar_time"], -1)}
        later["bar_time"][-1] = stored.columns["bar_time"][-1] + 86_400 * 10**9
        entry = write_predictions(
            copy / TELEMETRY_FOLDER, RecordFile("PLANT02", "baseline", stored.version, later)
        )
        results["files"] = [entry if old["file"] == entry["file"] else old for old in results["files"]]
        listed = {f"{one['role']}/{one['file']}": one["digest"] for one in results["files"]}
        results["digests"]["predictions"] = sha256_json(listed)
        write_json(copy / RESULTS_FILE, results)
        return copy

    def test_the_item(self, shifted: Path) -> None:
        """The item fails and names the symbol; the others do not mind."""
        items = {
            item["name"]: item
            for item in integrity_items(
                read_json(shifted / RESULTS_FILE),
                _OtherRowsAllowed(shifted),
                read_json(shifted / PARITY_FILE),
            )
        }
        assert items["identical_rows"]["status"] == "fail"
        assert "PLANT02" in items["identical_rows"]["note"]
        assert "PLANT01" not in items["identical_rows"]["note"]
        assert {item["status"] for name, item in items.items() if name != "identical_rows"} == {"pass"}

    def test_the_decision(self, shifted: Path, tmp_path: Path) -> None:
        """Nothing is decided at all: exit code 4, and no checklist."""
        with pytest.raises(ArtifactChanged, match=r"PLANT02.*identical rows") as refusal:
            verdict(shifted, tmp_path / "out", **GENEROUS)
        assert refusal.value.exit_code == 4
        assert not (tmp_path / "out").exists()


class TestDistinctModels:
    """The same model under two names, on the real chain."""

    def test_another_version_tag(self, planted: Market, tmp_path: Path) -> None:
        """The same graph with another tag and author: another file, the same behaviour, rejected."""
        twin = with_metadata(
            planted.students["gradient_boosting"],
            tmp_path / "twin.onnx",
            model_version="20110101_000000",
            created_by="somebody else",
        )
        validate(planted, tmp_path / "out", baseline_model=str(twin))
        digests = read_json(tmp_path / "out" / RESULTS_FILE)["digests"]
        assert digests["baseline"] != digests["model"]
        checklist = verdict(tmp_path / "out", tmp_path / "decided", **GENEROUS)
        assert (checklist["recommendation"], exit_code(checklist)) == ("REJECT", 4)
        assert "behave alike" in checklist["reason"]

    def test_models_that_never_spoke(self, planted: Market, tmp_path: Path) -> None:
        """Two models that scored no row said nothing alike: that is left to the metrics."""
        about = planted.model().metadata
        nowhere = {"feature_ranges": [[1e9, 2e9]] * len(about["feature_names"])}
        files = [
            with_metadata(source, tmp_path / f"{kind}.onnx", **nowhere)
            for kind, source in planted.students.items()
        ]
        plan = plan_validation(
            str(files[0]),
            baseline_model=str(files[1]),
            bars=str(planted.location),
            settings=settings_of(tmp_path),
        )
        run_validation(plan, tmp_path / "out", replay=replay_model)
        assert items_of(tmp_path / "out")["distinct_models"]["status"] == "pass"
        checklist = verdict(tmp_path / "out", tmp_path / "decided", **GENEROUS)
        assert checklist["recommendation"] == "INSUFFICIENT_EVIDENCE"


class TestParity:
    """The live engine must have replayed the validation of this very model, and done the same."""

    @pytest.mark.parametrize(
        ("change", "status", "said"),
        [
            ({"status": "not_run", "note": "was not asked"}, "not_run", "was not asked"),
            ({"status": "fail", "note": "parts at bar 3"}, "fail", "parts at bar 3"),
            ({"model_digest": "0" * 64}, "fail", "another model was replayed"),
        ],
    )
    def test_what_was_not_shown_is_rejected(
        self, copy: Path, tmp_path: Path, change: dict[str, Any], status: str, said: str
    ) -> None:
        """Not run, another outcome and another model: the item blocks, with exit code 4 whatever the figures."""
        write_json(copy / PARITY_FILE, read_json(copy / PARITY_FILE) | change)
        item = items_of(copy)["parity"]
        assert (item["status"], item["blocking"]) == (status, True)
        assert said in item["note"]
        checklist = verdict(copy, tmp_path / "decided", **GENEROUS)
        assert (checklist["recommendation"], exit_code(checklist)) == ("REJECT", 4)
        assert f"parity is {status}" in checklist["reason"]


class Peeking(StudentModel):
    """A student that answers each bar with what it would say of the next one."""

    def score_rows(self, features: np.ndarray, threshold: float, *, warm_up_rows: int = 0) -> Scores:
        """The next row's answer; the last row keeps its own."""
        honest = super().score_rows(features, threshold, warm_up_rows=warm_up_rows)
        later = np.minimum(np.arange(len(features)) + 1, len(features) - 1)
        return Scores(*(getattr(honest, name)[later] for name in Scores.__dataclass_fields__))


class Ranking(StudentModel):
    """A student whose probabilities are ranks over everything it was asked at once."""

    def score_rows(self, features: np.ndarray, threshold: float, *, warm_up_rows: int = 0) -> Scores:
        """Ranks in place of probabilities."""
        honest = super().score_rows(features, threshold, warm_up_rows=warm_up_rows)
        known = np.isfinite(honest.probability_up)
        ranks = np.full(len(known), np.nan)
        ranks[known] = np.argsort(np.argsort(honest.probability_up[known])) / max(known.sum() - 1, 1)
        return replace(honest, probability_up=ranks)


def biased(kind: type[StudentModel], path: Path) -> StudentModel:
    """A model file, asked in a way that knows the future."""
    return kind(path.read_bytes(), path)


class TestPrefixInvariance:
    """Features and predictions are recomputed on cut and perturbed data."""

    @pytest.mark.parametrize("kind", ["gradient_boosting", "logistic"])
    def test_an_honest_student_passes(self, planted: Market, kind: str) -> None:
        """On the planted market nothing is found, three symbols are named, the seed chooses them."""
        found = [
            prefix_invariance(planted.model(kind), planted.bars, planted.window, rules_of(planted), seed=seed)
            for seed in (0, 0, 1)
        ]
        assert found[0] == found[1]
        assert found[0]["symbols"] != found[2]["symbols"]
        for one in found:
            assert (one["findings"], one["unjudged"]) == ([], [])
            assert len(one["symbols"]) == CHECKED_SYMBOLS
            assert one["symbols"] == sorted(set(one["symbols"]) & set(planted.bars))

    @pytest.mark.parametrize(
        ("strategy", "interval"), [("swing", "1d"), ("intraday", "5m"), ("intraday", "1m")]
    )
    def test_the_shipped_sets_pass(self, tmp_path: Path, strategy: str, interval: str) -> None:
        """Both student sets, at every interval they are made for, in a model's hands."""
        sessions = {"1d": 700, "5m": 20, "1m": 6}[interval]
        bars = {"AAA": synthetic_bars("AAA", seed=4, sessions=sessions, interval=interval)}
        model = model_on(bars["AAA"], strategy, tmp_path / "student_model.onnx")
        days = bars["AAA"].session_days
        rules = TradingRules.from_settings(
            settings_of(tmp_path), strategy=strategy, market="us", horizon_bars=5, dead_zone=0.5
        )
        found = prefix_invariance(
            model, bars, Window(int(days[len(days) // 2]), int(days[-1])), rules, seed=0
        )
        assert found == {"findings": [], "seed": 0, "symbols": ["AAA"], "unjudged": []}

    @pytest.mark.parametrize(
        ("kind", "cause"),
        [(Peeking, "negative_shift"), (Ranking, "global_statistic")],
        ids=["peeking", "ranking"],
    )
    def test_a_biased_student_is_found(self, planted: Market, kind: type[StudentModel], cause: str) -> None:
        """A score that knows the next bar, or the whole series, is found on every symbol with its cause."""
        model = biased(kind, planted.students["gradient_boosting"])
        found = prefix_invariance(model, planted.bars, planted.window, rules_of(planted), seed=0)
        for symbol in found["symbols"]:
            lines = [line for line in found["findings"] if line.startswith(f"{symbol}: prediction ")]
            assert any(f"likely {cause}" in line and "probability_up: from bar" in line for line in lines)
        assert not any(": feature " in line for line in found["findings"])

    def test_a_biased_student_is_rejected(self, planted: Market, tmp_path: Path) -> None:
        """Through the whole chain: better figures than honesty gives, and REJECT with exit code 4."""
        path = planted.students["gradient_boosting"]
        plan = plan_validation(str(path), settings=settings_of(tmp_path))
        plan = replace(plan, model=biased(Peeking, path))
        run_validation(plan, tmp_path / "out", replay=replay_model)
        checklist = verdict(tmp_path / "out", tmp_path / "decided", **GENEROUS)
        assert (checklist["recommendation"], exit_code(checklist)) == ("REJECT", 4)
        assert "prefix_invariance is fail" in checklist["reason"]
        failed = [item["name"] for item in checklist["integrity"] if item["status"] == "fail"]
        assert failed == ["prefix_invariance", "parity"], "the live engine sees no next row"

    def test_bars_after_the_window_are_not_read(self, planted: Market) -> None:
        """The check is of the window's bars and those before: what comes later changes nothing."""
        window = Window(planted.window.first_day, planted.last_day - 60)
        cut = {
            name: bars.slice(0, bars.window(window.first_day, window.last_day)[1])
            for name, bars in planted.bars.items()
        }
        both = [
            prefix_invariance(
                biased(Peeking, planted.students["logistic"]), bars, window, rules_of(planted), seed=3
            )
            for bars in (planted.bars, cut)
        ]
        assert both[0] == both[1]
        assert both[0]["findings"]

    def test_what_cannot_be_judged_is_no_pass(self, planted: Market, copy: Path, tmp_path: Path) -> None:
        """Fewer bars than the features' warm-up: no finding, but no pass either."""
        few = {name: bars.slice(0, 40) for name, bars in planted.bars.items()}
        days = few["PLANT01"].session_days
        found = prefix_invariance(
            planted.model(), few, Window(int(days[20]), int(days[-1])), rules_of(planted), seed=0
        )
        assert found["findings"] == []
        assert len(found["unjudged"]) == CHECKED_SYMBOLS
        edit_results(copy, lambda results: results.update(prefix_invariance=found))
        assert items_of(copy)["prefix_invariance"]["status"] == "undefined"
        assert exit_code(verdict(copy, tmp_path / "out", **GENEROUS)) == 4


def model_on(bars: BarArrays, strategy: str, path: Path) -> StudentModel:
    """A small student of a shipped set whose ranges hold every row of these bars."""
    features = student_set(strategy)
    values = feature_matrix(features, bars)
    warm = values[np.isfinite(values).all(axis=1)]
    mean, scale = warm.mean(axis=0), warm.std(axis=0) + 1e-6
    weights = np.random.default_rng(0).normal(0.0, 0.3, (len(features.columns), 1))
    ranges = [
        [float(low) - 1.0, float(high) + 1.0]
        for low, high in zip(warm.min(axis=0), warm.max(axis=0), strict=True)
    ]
    metadata = small_metadata(
        strategy=strategy,
        interval=bars.interval,
        feature_set=features.name,
        feature_set_digest=features.digest,
        feature_names=list(features.columns),
        feature_ranges=ranges,
    )
    graph = dense_graph([(weights, np.zeros(1))], mean=mean, scale=scale)
    path.write_bytes(model_bytes(graph, metadata))
    return StudentModel.load(path)
