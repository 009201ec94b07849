"""A validation refuses what must not be judged, and what it writes is whole and repeatable."""

from __future__ import annotations

import datetime as dt
import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from sqkit.artifacts import ACCURACY_FILE, COMPARISON_FILE, PARITY_FILE, RESULTS_FILE, VALIDATION_ARTIFACTS
from sqkit.bars import CLOSE, OPEN
from sqkit.errors import (
    BarsNotFound,
    IntegrityError,
    ModelFileInvalid,
    ModelFileMissing,
    ModelMetadataInvalid,
    PickleRefused,
    SqkitError,
    UsageError,
    WindowEmpty,
    WindowOverlap,
    WindowTooShort,
)
from sqkit.files import read_json, sha256_bytes, sha256_file, sha256_json
from sqkit.metrics import METRIC_KEYS, financial_metrics, seven_metrics
from sqkit.production.replay import replay_model
from sqkit.records import iso_date, session_day
from sqkit.research.accuracy import AccuracyAnalyzer
from sqkit.research.onnx_export import dense_graph, model_bytes
from sqkit.research.planted import planted_market, write_market
from sqkit.research.telemetry import read_records
from sqkit.research.validation import run_validation
from sqkit.research.validation_plan import load_window, plan_validation, refuse_seen
from sqkit.student import StudentModel
from tests.market import Market, files_below, settings_of, validate


def day_after(market: Market, days: int = 1) -> str:
    """ISO date so many calendar days after the training window's end."""
    return iso_date(market.training_end + days)


def with_metadata(source: Path, target: Path, **changes: Any) -> Path:
    """A model file with some of its metadata changed."""
    model = onnx.load(source)
    (entry,) = (entry for entry in model.metadata_props if entry.key == "sqkit")
    entry.value = json.dumps(json.loads(entry.value) | changes)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(model.SerializeToString())
    return target


class TestRefusals:
    """One clear line, the right exit code, nothing written."""

    @pytest.mark.parametrize(
        ("given", "refusal", "said", "code"),
        [
            ({"start": 0}, WindowOverlap, "start on {first} or later", 4),
            ({"start": -30}, WindowOverlap, "seen bars up to {end}", 4),
            ({"start": -2000, "end": -1900}, WindowOverlap, "seen bars up to {end}", 4),
            ({"start": 30, "end": 20}, UsageError, "start must not be after end", 2),
            ({"end": -10}, UsageError, "start must not be after end", 2),
            ({"start": 20_000}, WindowEmpty, "PLANT01: no bar from .* the stored bars run from .* to", 2),
            ({"start": 3000, "end": 3010}, WindowEmpty, "PLANT01: no bar between", 2),
            ({"symbols": ["PLANT01", "PLANT02", "PLANT01"]}, UsageError, "symbols named twice: PLANT01", 2),
            ({"symbols": ["PLANT01", "NOSUCH"]}, BarsNotFound, "NOSUCH.*PLANT01.*PLANT06", 2),
            ({"symbols": ["../PLANT01"]}, SqkitError, "PLANT01", 2),
        ],
        ids=[
            "starts on the training end",
            "starts in the training window",
            "lies in the training window",
            "end before start",
            "end before the first allowed start",
            "after the last bar",
            "between bars and nowhere",
            "a symbol twice",
            "an unknown symbol",
            "a symbol that leaves the folder",
        ],
    )
    def test_windows_and_symbols(
        self,
        planted: Market,
        tmp_path: Path,
        given: dict[str, Any],
        refusal: type[SqkitError],
        said: str,
        code: int,
    ) -> None:
        """Windows the model has seen, windows without bars and symbols that cannot be meant are refused."""
        asked = {
            name: day_after(planted, value) if isinstance(value, int) else value
            for name, value in given.items()
        }
        before = files_below(planted.folder)
        said = said.format(end=iso_date(planted.training_end), first=day_after(planted))
        with pytest.raises(refusal, match=said) as raised:
            plan_validation(
                str(planted.students["gradient_boosting"]), settings=settings_of(tmp_path), **asked
            )
        assert raised.value.exit_code == code
        assert "\n" not in raised.value.message
        assert files_below(planted.folder) == before
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("text", ["2013-13-01", "yesterday", "01.02.2013", "2013-02-30"])
    def test_dates_that_are_none(self, planted: Market, tmp_path: Path, text: str) -> None:
        """A start or end that is no date is refused with the form to write."""
        for name in ("start", "end"):
            with pytest.raises(UsageError, match=f"{name} .*write YYYY-MM-DD"):
                plan_validation(
                    str(planted.students["logistic"]), settings=settings_of(tmp_path), **{name: text}
                )

    def test_the_first_day_after_training_is_allowed(self, planted: Market, tmp_path: Path) -> None:
        """The window may start on the day after training ended, typed or by default."""
        plans = [
            plan_validation(str(planted.students["logistic"]), settings=settings_of(tmp_path), **asked)
            for asked in ({}, {"start": day_after(planted)})
        ]
        assert plans[0].window == plans[1].window == planted.window

    def test_the_last_label_counts_as_seen(self) -> None:
        """A label that ends after the training window moves the first allowed day."""
        seen = {
            "training_window": {"start": "2012-01-03", "end": "2013-01-31"},
            "last_label_end": "2013-02-07T00:00:00Z",
            "horizon_bars": 5,
        }
        with pytest.raises(WindowOverlap, match="start on 2013-02-08 or later"):
            refuse_seen(seen, "2013-02-07")
        first = session_day(dt.date(2013, 2, 8))
        assert refuse_seen(seen, "") == refuse_seen(seen, "2013-02-08") == first

    def test_candidates_that_are_no_student(self, planted: Market, tmp_path: Path) -> None:
        """A missing file, a folder, a pickle by name or content, foreign bytes and bare ONNX are refused."""
        pickled = pickle.dumps({"weights": [1, 2, 3]})
        onnx_without = model_bytes(
            dense_graph([(np.zeros((3, 1)), np.zeros(1))], mean=np.zeros(3), scale=np.ones(3))
        )
        whole = planted.students["gradient_boosting"].read_bytes()
        cases = {
            "student.pkl": (whole, PickleRefused),
            "student.joblib": (pickled, PickleRefused),
            "renamed.onnx": (pickled, PickleRefused),
            "bare.onnx": (onnx_without, ModelMetadataInvalid),
            "text.onnx": (b"not a model", ModelFileInvalid),
            "empty.onnx": (b"", ModelFileInvalid),
            "half.onnx": (whole[: len(whole) // 2], ModelFileInvalid),
        }
        folder = tmp_path / "models"
        folder.mkdir()
        for name, (data, _) in cases.items():
            (folder / name).write_bytes(data)
        before = files_below(tmp_path)
        cases |= {"nowhere.onnx": (b"", ModelFileMissing), ".": (b"", ModelFileMissing)}
        for name, (_, refusal) in cases.items():
            for model, baseline in (
                (str(folder / name), ""),
                (str(planted.students["logistic"]), str(folder / name)),
            ):
                # A baseline that is not there is a flag that cannot be meant: its refusal names the flag.
                expected = UsageError if baseline and refusal is ModelFileMissing else refusal
                with pytest.raises(expected) as raised:
                    plan_validation(model, settings=settings_of(tmp_path), baseline_model=baseline)
                assert raised.value.exit_code == 2, name
                assert "\n" not in raised.value.message
        assert files_below(tmp_path) == before

    def test_the_candidate_is_no_baseline(self, planted: Market, tmp_path: Path) -> None:
        """The same bytes as candidate and baseline are refused, also under another name."""
        model = planted.students["gradient_boosting"]
        copy = tmp_path / "other_name.onnx"
        shutil.copy(model, copy)
        for baseline in (model, copy):
            with pytest.raises(IntegrityError, match="the same file") as raised:
                plan_validation(str(model), settings=settings_of(tmp_path), baseline_model=str(baseline))
            assert raised.value.exit_code == 4

    @pytest.mark.parametrize(
        ("key", "value"), [("strategy", "intraday"), ("interval", "5m"), ("market", "nse")]
    )
    def test_a_baseline_of_another_kind(self, planted: Market, tmp_path: Path, key: str, value: str) -> None:
        """A baseline of another strategy, interval or market is refused, and the message names which."""
        other = with_metadata(planted.students["logistic"], tmp_path / "other.onnx", **{key: value})
        with pytest.raises(IntegrityError, match=f"the baseline's {key} is {value}"):
            plan_validation(
                str(planted.students["gradient_boosting"]),
                settings=settings_of(tmp_path),
                baseline_model=str(other),
            )

    def test_missing_bars(self, planted: Market, tmp_path: Path) -> None:
        """A bars folder that is empty or not there is refused by name."""
        (tmp_path / "empty").mkdir()
        for place in ("empty", "nowhere"):
            with pytest.raises(BarsNotFound, match="PLANT01"):
                plan_validation(
                    str(planted.students["logistic"]),
                    settings=settings_of(tmp_path),
                    bars=str(tmp_path / place),
                )

    def test_a_period_shorter_than_the_warm_up(self, planted: Market, tmp_path: Path) -> None:
        """A symbol listed so late that nothing can be scored fails the run, and no file is written."""
        plan = plan_validation(str(planted.students["logistic"]), settings=settings_of(tmp_path))
        late = plan.bars["PLANT06"]
        plan = replace(plan, bars=plan.bars | {"PLANT06": late.slice(len(late) - 50, len(late))})
        with pytest.raises(WindowTooShort, match=r"PLANT06.*51 more bars") as raised:
            run_validation(plan, tmp_path / "out", replay=replay_model)
        assert raised.value.exit_code == 2
        assert not (tmp_path / "out").exists()


class TestPlan:
    """What a plan decides by default."""

    def test_defaults_come_from_the_model(self, planted: Market, tmp_path: Path) -> None:
        """Bars, symbols, horizon and market are those of training; without production the baseline is the rule."""
        model = planted.students["gradient_boosting"]
        plan = plan_validation(str(model), settings=settings_of(tmp_path))
        about = plan.model.metadata
        assert plan.bars_location == str(planted.location)
        assert list(plan.bars) == about["symbols"] == sorted(planted.bars)
        assert (plan.rules.horizon_bars, plan.rules.dead_zone) == (about["horizon_bars"], about["dead_zone"])
        assert plan.rules.market == "us"
        assert (plan.baseline_path, plan.baseline_model, plan.incumbent) == (None, None, None)
        assert plan.untrained == []

    def test_bars_without_a_teacher_beside(self, planted: Market, tmp_path: Path) -> None:
        """A student alone in a folder finds its bars under the data folder, or says which are missing."""
        alone = tmp_path / "alone" / "student_model.onnx"
        alone.parent.mkdir()
        shutil.copy(planted.students["logistic"], alone)
        with pytest.raises(BarsNotFound):
            plan_validation(str(alone), settings=settings_of(tmp_path))
        shutil.copytree(planted.location, tmp_path / "data" / "bars" / "1d")
        plan = plan_validation(str(alone), settings=settings_of(tmp_path))
        assert plan.bars_location == f"{tmp_path}/data/bars/1d"

    def test_production_is_the_default_baseline_and_the_incumbent(
        self, planted: Market, tmp_path: Path
    ) -> None:
        """What is in production is compared with and recorded; another baseline may be named beside it."""
        settings = settings_of(tmp_path)
        production = settings.production_path("swing")
        production.parent.mkdir(parents=True)
        shutil.copy(planted.students["logistic"], production)
        model = str(planted.students["gradient_boosting"])
        plan = plan_validation(model, settings=settings)
        assert plan.baseline_path == str(production)
        assert plan.baseline_model is not None
        assert plan.baseline_model.digest == sha256_file(production)
        assert plan.incumbent == {"digest": sha256_file(production), "model": str(production)}
        named = with_metadata(planted.students["logistic"], tmp_path / "kept.onnx", seed=8)
        other = plan_validation(model, settings=settings, baseline_model=str(named))
        assert other.baseline_path == str(named)
        assert other.incumbent == plan.incumbent

    def test_the_model_in_production_is_judged_against_the_rule(
        self, planted: Market, tmp_path: Path
    ) -> None:
        """Revalidating what is live: it is no baseline of itself, the rule steps in and the notes say so."""
        settings = settings_of(tmp_path)
        production = settings.production_path("swing")
        production.parent.mkdir(parents=True)
        shutil.copy(planted.students["logistic"], production)

        def plan(**more: str) -> Any:
            return plan_validation(
                str(planted.students["logistic"]), bars=str(planted.location), settings=settings, **more
            )

        assert plan().baseline_path is None
        assert any("compared with the rule" in note for note in plan().notes)
        assert plan(baseline_model="rule").notes == []
        with pytest.raises(IntegrityError, match="or rule"):
            plan(baseline_model=str(production))

    def test_every_slot_has_its_own_production(self, planted: Market, tmp_path: Path) -> None:
        """A swing candidate meets the model of the swing slot, not the default slot's."""
        place = tmp_path / "swing" / "student_model.onnx"
        place.parent.mkdir()
        shutil.copy(planted.students["logistic"], place)
        settings = settings_of(tmp_path, student_model_paths={"swing": str(place)})
        plan = plan_validation(str(planted.students["gradient_boosting"]), settings=settings)
        assert plan.baseline_path == str(place)
        elsewhere = settings_of(tmp_path, student_model_paths={"intraday": str(place)})
        plan = plan_validation(str(planted.students["gradient_boosting"]), settings=elsewhere)
        assert plan.baseline_path is None

    def test_settings_reach_the_rules(self, planted: Market, tmp_path: Path) -> None:
        """Threshold, costs, capital and strategy settings are what the plan runs with."""
        settings = settings_of(
            tmp_path,
            student_model_confidence_threshold=0.7,
            slippage_bps_swing=9.0,
            cost_schedule="flat_bps:4",
            backtest_capital_per_symbol=5e4,
            strategy_entry_strength=0.6,
            swing_max_holding_days=3,
        )
        rules = plan_validation(str(planted.students["logistic"]), settings=settings).rules
        assert (rules.threshold, rules.slippage_bps, rules.cost_schedule, rules.capital) == (
            0.7,
            9.0,
            "flat_bps:4",
            5e4,
        )
        assert (rules.parameters.entry_strength, rules.parameters.max_holding_sessions) == (0.6, 3)

    def test_an_untrained_symbol_is_told(self, planted: Market, tmp_path: Path) -> None:
        """A symbol the model never saw may be validated, and the plan and the results say so."""
        bars = tmp_path / "bars"
        shutil.copytree(planted.location, bars)
        write_market(planted_market(99, ["NEWCOMER"], 600, "1d", 0.5), bars)
        output = tmp_path / "out"
        asked = {"bars": str(bars), "symbols": ["NEWCOMER", "PLANT01"]}
        validate(planted, output, settings=settings_of(tmp_path), **asked)
        results = read_json(output / RESULTS_FILE)
        assert results["untrained_symbols"] == ["NEWCOMER"]
        assert results["validation_period"]["symbols"] == ["NEWCOMER", "PLANT01"]

    def test_an_open_end_is_the_last_stored_session(self, planted: Market) -> None:
        """Without an end the window closes with the last bar; a typed end is kept as typed."""
        about = planted.model().metadata
        names = list(planted.bars)[:2]
        for end, last in (("", planted.last_day), (iso_date(planted.last_day - 30), planted.last_day - 30)):
            bars, _, window = load_window(about, str(planted.location), names, "", end)
            assert window.last_day == last
            assert list(bars) == names


class TestWhatIsWritten:
    """The artifacts of one validation."""

    def test_every_artifact_exists(self, validated: Path) -> None:
        """All artifacts are there, four telemetry files a symbol, and nothing else."""
        assert {path.name for path in validated.iterdir()} == set(VALIDATION_ARTIFACTS)
        results = read_json(validated / RESULTS_FILE)
        listed = {entry["file"] for entry in results["files"]}
        stored = {path.name for path in (validated / "validation_telemetry").iterdir()}
        assert listed == stored
        assert len(stored) == 4 * len(results["validation_period"]["symbols"])

    def test_json_is_strict_and_canonical(self, validated: Path) -> None:
        """Every JSON file is strict, sorted and free of NaN."""
        for name in (RESULTS_FILE, ACCURACY_FILE, COMPARISON_FILE, PARITY_FILE):
            text = (validated / name).read_text()
            value = read_json(validated / name)
            assert (
                json.dumps(value, sort_keys=True, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
                == text
            )

    def test_digests(self, planted: Market, validated: Path) -> None:
        """Model, bars, predictions and runtime are named by digests that can be recomputed."""
        results = read_json(validated / RESULTS_FILE)
        digests = results["digests"]
        assert digests["model"] == sha256_file(planted.students["gradient_boosting"])
        assert digests["model_behaviour"] == planted.model().behaviour_digest(0.6)
        assert digests["data"] == sha256_json({name: bars.digest() for name, bars in planted.bars.items()})
        assert digests["runtime"] == sha256_json(results["runtime"])
        assert (digests["baseline"], digests["incumbent"]) == (None, None)
        for entry in results["files"]:
            read_records(validated / "validation_telemetry" / entry["file"], expected_digest=entry["digest"])

    def test_numbers_agree_with_each_other(self, validated: Path) -> None:
        """Metrics follow from daily returns and stored trades, the comparison from accuracy and metrics."""
        results, accuracy = read_json(validated / RESULTS_FILE), read_json(validated / ACCURACY_FILE)
        comparison, analyzer = read_json(validated / COMPARISON_FILE), AccuracyAnalyzer(validated)
        for role in ("candidate", "baseline"):
            returns = np.array(list(results["daily_returns"][role].values()))
            money = financial_metrics(returns, analyzer.closed_net_pnls(role))
            assert results["metrics"][role] == money
            for rows in ("all_rows", "acted_on_rows"):
                assert comparison[rows][role] == seven_metrics(accuracy[role][rows], money)
        for rows in ("all_rows", "acted_on_rows"):
            for name in METRIC_KEYS:
                ours, theirs = comparison[rows]["candidate"][name], comparison[rows]["baseline"][name]
                assert comparison[rows]["difference"][name] == ours - theirs
        held = results["metrics"]["buy_and_hold"]
        assert comparison["buy_and_hold"] == held

    def test_symbol_summary(self, validated: Path) -> None:
        """Per symbol: bars, sessions, closed trades, fees and P&L, as in the trade files."""
        results = read_json(validated / RESULTS_FILE)
        for entry in results["files"]:
            if entry["kind"] != "trades":
                continue
            trades = read_records(validated / "validation_telemetry" / entry["file"]).columns
            about = results["symbols"][entry["symbol"]][entry["role"]]
            assert about["closed_trades"] == np.sum(trades["exit_time"] != 0)
            assert about["net_pnl"] == pytest.approx(trades["net_pnl"].sum())
            assert about["fees"] == pytest.approx(trades["fees"].sum())

    def test_paths_stay_as_typed(
        self, planted: Market, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A relative model path stands in the results as it was typed."""
        monkeypatch.chdir(planted.folder)
        typed = str(planted.students["logistic"].relative_to(planted.folder))
        plan = plan_validation(typed, settings=settings_of(tmp_path))
        run_validation(plan, tmp_path / "out", replay=replay_model)
        assert read_json(tmp_path / "out" / RESULTS_FILE)["candidate_model"] == typed

    def test_parity_without_a_replay_was_not_run(
        self, planted: Market, validated: Path, tmp_path: Path
    ) -> None:
        """Whoever gives no replay gets a validation that says so and how to run it; all else is the same."""
        plan = plan_validation(str(planted.students["gradient_boosting"]), settings=settings_of(tmp_path))
        run_validation(plan, tmp_path / "out")
        parity = read_json(tmp_path / "out" / PARITY_FILE)
        assert parity["status"] == "not_run"
        assert "sqkit validate" in parity["note"]
        without, whole = files_below(tmp_path / "out"), files_below(validated)
        assert {name for name in whole if without[name] != whole[name]} == {PARITY_FILE}

    def test_the_same_inputs_give_the_same_bytes(
        self, planted: Market, validated: Path, tmp_path: Path
    ) -> None:
        """A second run writes the same bytes, file by file; another student does not."""
        validate(planted, tmp_path / "again", settings=settings_of(tmp_path))
        validate(planted, tmp_path / "other", settings=settings_of(tmp_path), kind="logistic")
        assert files_below(tmp_path / "again") == files_below(validated)
        assert files_below(tmp_path / "other")[RESULTS_FILE] != files_below(validated)[RESULTS_FILE]

    def test_the_future_stays_out_of_the_results(self, planted: Market, tmp_path: Path) -> None:
        """Bars after the window change no stored trade and no prediction but the outcomes of its last rows."""
        plan = plan_validation(
            str(planted.students["gradient_boosting"]),
            settings=settings_of(tmp_path),
            end=planted.session(99),
        )
        other = {}
        for symbol, bars in plan.bars.items():
            _, stop = bars.window(plan.window.first_day, plan.window.last_day)
            rows = bars.rows.copy()
            rows[stop:, OPEN : CLOSE + 1] *= 3.0
            other[symbol] = replace(bars, rows=rows)
        run_validation(plan, tmp_path / "a", replay=replay_model)
        run_validation(replace(plan, bars=other), tmp_path / "b", replay=replay_model)
        entries = [
            {entry["file"]: entry["digest"] for entry in read_json(tmp_path / name / RESULTS_FILE)["files"]}
            for name in "ab"
        ]
        trades = [{name: digest for name, digest in part.items() if "trades" in name} for part in entries]
        assert trades[0] == trades[1]
        returns = [read_json(tmp_path / name / RESULTS_FILE)["daily_returns"] for name in "ab"]
        assert returns[0] == returns[1]
        for name in entries[0].keys() - trades[0].keys():
            ours, theirs = (
                read_records(tmp_path / part / "validation_telemetry" / name).columns for part in "ab"
            )
            for column in ours:
                upto = -5 if column == "outcome" else None
                np.testing.assert_array_equal(ours[column][:upto], theirs[column][:upto])

    def test_a_baseline_model_is_recorded(self, planted: Market, tmp_path: Path) -> None:
        """With a baseline model results name its path and digest, and its files carry its version."""
        baseline = with_metadata(
            planted.students["logistic"],
            tmp_path / "kept" / "student_model.onnx",
            model_version="20110101_000000",
        )
        validate(planted, tmp_path / "out", settings=settings_of(tmp_path), baseline_model=str(baseline))
        results = read_json(tmp_path / "out" / RESULTS_FILE)
        assert results["baseline_model"] == str(baseline)
        assert results["digests"]["baseline"] == sha256_bytes(baseline.read_bytes())
        stored = read_records(tmp_path / "out" / "validation_telemetry" / "PLANT01@baseline.parquet")
        assert stored.version == StudentModel.load(baseline).version == "20110101_000000"
        accuracy = read_json(tmp_path / "out" / ACCURACY_FILE)
        assert accuracy["baseline"]["all_rows"]["brier"] is not None
