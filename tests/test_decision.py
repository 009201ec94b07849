"""The decision rests on the stored artifacts, follows from them, and refuses what was touched."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from sqkit.artifacts import (
    ACCURACY_FILE,
    CHECKLIST_FILE,
    CHECKLIST_PAGE,
    COMPARISON_FILE,
    DECISION_ARTIFACTS,
    PARITY_FILE,
    RESULTS_FILE,
    TELEMETRY_FOLDER,
)
from sqkit.checklist import differences, exit_code, rederive
from sqkit.errors import ArtifactChanged, UsageError
from sqkit.files import read_json, sha256_json, write_json
from sqkit.metrics import adequacy_counts
from sqkit.policy_in_force import held_against, policy_digest
from sqkit.research.accuracy import AccuracyAnalyzer
from sqkit.research.decision import checklist_page, decide, validated_folder
from sqkit.research.run_policy import judged_by, policy_with, strategy_of
from sqkit.versions import decision_time
from tests.market import (
    DECIDED_AT,
    Market,
    copy_validation,
    files_below,
    policy_of,
    settings_of,
    validate,
    verdict,
)
from tests.policies import accept, usual

Edit = Callable[[dict[str, Any]], None]


@pytest.fixture
def copy(validated: Path, tmp_path: Path) -> Path:
    """A validation that may be changed."""
    return copy_validation(validated, tmp_path / "copy")


class TestRecommendation:
    """The table of the design, reached on the real chain."""

    def test_promote(self, validated: Path, tmp_path: Path) -> None:
        """A planted edge passes its thresholds: PROMOTE where the policy asks for no evidence."""
        checklist = verdict(validated, tmp_path, min_evidence="none")
        assert checklist["recommendation"] == "PROMOTE"
        assert exit_code(checklist) == 0
        assert checklist["validation_results"]["all_criteria_pass"]

    def test_thresholds_alone_are_weak(self, validated: Path, tmp_path: Path) -> None:
        """The same run under the default policy is INSUFFICIENT_EVIDENCE: its precision is not proven."""
        checklist = verdict(validated, tmp_path)
        assert checklist["recommendation"] == "INSUFFICIENT_EVIDENCE"
        assert exit_code(checklist) == 3
        assert checklist["validation_results"]["all_criteria_pass"]
        assert "evidence grade weak is below moderate" in checklist["reason"].lower()

    @pytest.mark.parametrize("min_evidence", ["none", "moderate"])
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("min_precision_uplift", 0.9),
            ("min_hit_ratio_uplift", 0.9),
            ("min_sharpe_uplift", 50.0),
            ("min_sharpe", 100.0),
        ],
    )
    def test_reject(
        self, validated: Path, tmp_path: Path, name: str, value: float, min_evidence: str
    ) -> None:
        """A missed threshold is REJECT with or without evidence, and the reason says which and by how much."""
        checklist = verdict(validated, tmp_path, min_evidence=min_evidence, **{name: value})
        assert checklist["recommendation"] == "REJECT"
        assert exit_code(checklist) == 1
        words = {"min_precision_uplift": "Precision uplift", "min_hit_ratio_uplift": "Hit ratio uplift"}
        assert words.get(name, "Sharpe") in checklist["reason"]
        assert "short by" in checklist["reason"]

    @pytest.mark.parametrize("thresholds", [{}, {"min_precision_uplift": 0.9, "min_sharpe": 100.0}])
    def test_a_short_window(self, planted: Market, tmp_path: Path, thresholds: dict[str, float]) -> None:
        """Thirty sessions are INSUFFICIENT_EVIDENCE whatever the thresholds, and it says how much would suffice."""
        folder = tmp_path / "short"
        validate(planted, folder, settings=settings_of(tmp_path), end=planted.session(29))
        checklist = verdict(folder, tmp_path / "out", min_evidence="none", **thresholds)
        assert checklist["recommendation"] == "INSUFFICIENT_EVIDENCE"
        assert exit_code(checklist) == 3
        assert checklist["evidence"]["adequacy"]["session_days"] == 30
        assert "30 session days (at least 60)" in checklist["reason"]
        assert "would suffice" in checklist["reason"]

    def test_too_few_calls(self, validated: Path, tmp_path: Path) -> None:
        """Calls are counted on judged rows, of either side; one too few is INSUFFICIENT_EVIDENCE."""
        analyzer = AccuracyAnalyzer(validated)
        ours, theirs = analyzer.pooled("candidate"), analyzer.pooled("baseline")
        counts = adequacy_counts(ours["session_days"], ours["calls"], theirs["calls"])
        fewest = min(counts["candidate_calls"], counts["baseline_calls"])
        enough = verdict(validated, tmp_path, min_evidence="none", min_calls=fewest)
        short = verdict(validated, tmp_path, min_evidence="none", min_calls=fewest + 1)
        assert enough["evidence"]["adequacy"] == counts
        assert (enough["recommendation"], short["recommendation"]) == ("PROMOTE", "INSUFFICIENT_EVIDENCE")

    def test_an_undefined_metric(self, planted: Market, tmp_path: Path) -> None:
        """A model that never speaks has no precision and no hit ratio: INSUFFICIENT_EVIDENCE, never a pass."""
        folder = tmp_path / "silent"
        silent = settings_of(tmp_path, student_model_confidence_threshold=float(np.nextafter(1.0, 0.0)))
        validate(planted, folder, settings=silent)
        checklist = verdict(folder, tmp_path / "out", min_evidence="none", min_calls=0, min_days=0)
        assert checklist["candidate_metrics"]["hit_ratio"] is None
        assert checklist["recommendation"] == "INSUFFICIENT_EVIDENCE"
        assert "hit_ratio" in checklist["reason"] or "calls of the candidate" in checklist["reason"]
        assert checklist["validation_results"]["hit_ratio_pass"] is False


class TestWhatItSays:
    """The checklist and the artifacts agree."""

    def test_it_follows_from_itself(self, validated: Path, tmp_path: Path) -> None:
        """Nothing in the checklist differs from what its own inputs give, in memory and on disk."""
        checklist = verdict(validated, tmp_path, min_evidence="none")
        assert differences(checklist) == []
        assert read_json(tmp_path / CHECKLIST_FILE) == checklist
        assert differences(read_json(tmp_path / CHECKLIST_FILE)) == []
        assert rederive(checklist)[0] == checklist["recommendation"]

    def test_numbers_come_from_the_artifacts(self, planted: Market, validated: Path, tmp_path: Path) -> None:
        """Metrics, period, paths, runtime and digests are those of the stored validation."""
        checklist = verdict(validated, tmp_path)
        results, compared = read_json(validated / RESULTS_FILE), read_json(validated / COMPARISON_FILE)
        for role in ("candidate", "baseline"):
            assert checklist[f"{role}_metrics"] == compared["all_rows"][role]
        assert checklist["validation_period"] == results["validation_period"]
        assert checklist["candidate_model"] == str(planted.students["gradient_boosting"])
        assert checklist["baseline_model"] is None
        assert checklist["runtime"] == results["runtime"]
        assert checklist["digests"] == results["digests"] | {
            "policy": sha256_json(checklist["policy"]),
            "policy_in_force": None,
        }
        assert checklist["timestamp"] == DECIDED_AT
        assert checklist["policy"] == policy_of().to_dict()

    def test_integrity_holds_only_what_was_checked(self, validated: Path, tmp_path: Path) -> None:
        """Every item of the gate was checked, blocks, and passes."""
        items = {item["name"]: item for item in verdict(validated, tmp_path)["integrity"]}
        assert set(items) == {
            "time_order",
            "prefix_invariance",
            "identical_rows",
            "distinct_models",
            "out_of_fold_teacher",
            "teacher_agrees",
            "model_fits_run",
            "trial_ledger",
            "parity",
        }
        assert all(item["status"] == "pass" and item["blocking"] for item in items.values())

    def test_evidence(self, validated: Path, tmp_path: Path) -> None:
        """Records and their plain line, the unrounded deltas beside, and figures of acted-on rows as context."""
        evidence = verdict(validated, tmp_path)["evidence"]
        accuracy = read_json(validated / ACCURACY_FILE)
        records = {record["name"]: record for record in evidence["records"]}
        assert len(records) == len(evidence["records"])
        assert records["first_model.precision"]["kind"] == "blocking"
        assert records["precision_difference.all_rows"]["estimate"] == pytest.approx(
            evidence["deltas"]["precision_uplift"]
        )
        assert "first model, no incumbent" in evidence["summary"]
        assert evidence["summary"].endswith(f"grade {evidence['grade'].upper()}")
        assert evidence["deltas"]["hit_ratio_uplift"] == pytest.approx(
            accuracy["candidate"]["all_rows"]["hit_ratio"] - accuracy["baseline"]["all_rows"]["hit_ratio"]
        )
        context = {row["figure"]: row for row in evidence["context"]}
        assert (
            context["hit ratio on acted-on rows"]["candidate"]
            == accuracy["candidate"]["acted_on_rows"]["hit_ratio"]
        )
        assert context["Brier score on decisive rows"]["baseline"] is None

    def test_short_and_untrained_symbols_are_said(self, planted: Market, tmp_path: Path) -> None:
        """What the data said against itself stands among the reasons."""
        folder = tmp_path / "short"
        validate(planted, folder, settings=settings_of(tmp_path), end=planted.session(29))
        reasons = verdict(folder, tmp_path / "out")["verdict_reasons"]
        assert "PLANT01: short history, 30 scored sessions" in reasons

    def test_both_forms_are_written_and_nothing_else(
        self, validated: Path, copy: Path, tmp_path: Path
    ) -> None:
        """JSON and Markdown go to the output folder; the validation itself is not touched."""
        verdict(copy, tmp_path / "out")
        assert {path.name for path in (tmp_path / "out").iterdir()} == set(DECISION_ARTIFACTS)
        assert files_below(copy) == files_below(validated)
        page = checklist_page(tmp_path / "out")
        assert page == (tmp_path / "out" / CHECKLIST_PAGE).read_text()
        assert "baseline rule (swing)" in page
        assert "INSUFFICIENT_EVIDENCE" in page

    def test_the_same_artifacts_give_the_same_bytes(
        self, validated: Path, copy: Path, tmp_path: Path
    ) -> None:
        """Decided twice from copies in other folders, both forms are the same to the byte."""
        verdict(validated, tmp_path / "a")
        verdict(copy, tmp_path / "b")
        assert files_below(tmp_path / "a") == files_below(tmp_path / "b")


def _better_sharpe(results: dict[str, Any]) -> None:
    results["metrics"]["candidate"]["sharpe_ratio"] += 1.0


def _better_win_rate(results: dict[str, Any]) -> None:
    results["metrics"]["candidate"]["win_rate"] = 0.99


def _worse_baseline(results: dict[str, Any]) -> None:
    results["metrics"]["baseline"]["total_return"] -= 0.5


def _better_return(results: dict[str, Any]) -> None:
    day = next(iter(results["daily_returns"]["candidate"]))
    results["daily_returns"]["candidate"][day] += 0.1


def _other_threshold(results: dict[str, Any]) -> None:
    results["runtime"]["confidence_threshold"] = 0.5


def _other_entry(results: dict[str, Any]) -> None:
    results["runtime"]["strategy_parameters"]["entry_strength"] = 0.9


def _other_digest(results: dict[str, Any]) -> None:
    results["digests"]["predictions"] = "0" * 64


def _no_digests(results: dict[str, Any]) -> None:
    del results["digests"]


class TestTampering:
    """An artifact that was touched is refused with exit code 4, and no checklist is written."""

    def refused(self, validated: Path, output: Path, said: str) -> None:
        """The decision is refused and leaves nothing."""
        with pytest.raises(ArtifactChanged, match=said) as refusal:
            verdict(validated, output, min_evidence="none")
        assert refusal.value.exit_code == 4
        assert "\n" not in refusal.value.message
        assert not output.exists()

    @pytest.mark.parametrize(
        "edit",
        [
            _better_sharpe,
            _better_win_rate,
            _worse_baseline,
            _better_return,
            _other_threshold,
            _other_entry,
            _other_digest,
            _no_digests,
        ],
    )
    def test_results(self, copy: Path, tmp_path: Path, edit: Edit) -> None:
        """A better metric, another return, threshold or digest in the results does not reach a checklist."""
        results = read_json(copy / RESULTS_FILE)
        edit(results)
        write_json(copy / RESULTS_FILE, results)
        self.refused(copy, tmp_path / "out", RESULTS_FILE)

    @pytest.mark.parametrize("name", [ACCURACY_FILE, COMPARISON_FILE])
    def test_derived_files(self, copy: Path, tmp_path: Path, name: str) -> None:
        """The accuracy and the comparison that a report shows are those the gate reads, or nothing is decided."""
        path = copy / name
        value = read_json(path)
        part = value["candidate"]["all_rows"] if name == ACCURACY_FILE else value["all_rows"]["candidate"]
        part["hit_ratio"] += 0.01
        write_json(path, value)
        self.refused(copy, tmp_path / "out", name)
        path.unlink()
        self.refused(copy, tmp_path / "out", name)

    @pytest.mark.parametrize(
        "name", ["PLANT02.parquet", "PLANT02@trades.parquet", "PLANT02@baseline.parquet"]
    )
    def test_prediction_and_trade_files(self, copy: Path, tmp_path: Path, name: str) -> None:
        """One value in a Parquet file, or the file gone."""
        path = copy / TELEMETRY_FOLDER / name
        table = pq.read_table(path)
        column = "net_pnl" if "trades" in name else "strength"
        at = table.schema.get_field_index(column)
        values = table[column].to_numpy().copy()
        values[-1] += 0.001
        pq.write_table(table.set_column(at, table.schema.field(at), [values]), path)
        self.refused(copy, tmp_path / "out", name)
        path.unlink()
        self.refused(copy, tmp_path / "out", name)

    def test_a_rewritten_digest_is_not_enough(self, copy: Path, tmp_path: Path) -> None:
        """Trades edited together with their listed digest still do not give the stored metrics."""
        from sqkit.research.telemetry import RecordFile, read_records, write_trades

        results = read_json(copy / RESULTS_FILE)
        path = copy / TELEMETRY_FOLDER / "PLANT02@trades.parquet"
        stored = read_records(path)
        columns = stored.columns | {"net_pnl": np.abs(stored.columns["net_pnl"])}
        entry = write_trades(path.parent, RecordFile("PLANT02", "candidate", stored.version, columns))
        results["files"] = [entry if old["file"] == entry["file"] else old for old in results["files"]]
        listed = {f"{one['role']}/{one['file']}": one["digest"] for one in results["files"]}
        results["digests"]["predictions"] = sha256_json(listed)
        write_json(copy / RESULTS_FILE, results)
        self.refused(copy, tmp_path / "out", "metrics")

    @pytest.mark.parametrize("name", [RESULTS_FILE, PARITY_FILE])
    def test_broken_json(self, copy: Path, tmp_path: Path, name: str) -> None:
        """JSON that is cut, or holds NaN, or is gone."""
        path = copy / name
        text = path.read_text()
        for broken in (text[:-3], text.replace('": "', '": NaN, "x": "', 1)):
            path.write_text(broken)
            self.refused(copy, tmp_path / "out", "not strict JSON")
        path.unlink()
        self.refused(copy, tmp_path / "out", name)


class TestPolicyAndTime:
    """Flags, settings and the clock."""

    def test_flags_override_settings(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """A threshold given as a flag wins over the setting; the others stay the settings'."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("SENSEQUANT_PROMOTION_MIN_PRECISION_UPLIFT", "0.07")
        monkeypatch.setenv("SENSEQUANT_PROMOTION_MIN_SHARPE_UPLIFT", "0.3")
        monkeypatch.setenv("SENSEQUANT_PROMOTION_MIN_EVIDENCE", "weak")
        plain = policy_with()
        assert (plain.min_precision_uplift, plain.min_hit_ratio_uplift, plain.min_sharpe_uplift) == (
            0.07,
            0.02,
            0.3,
        )
        flags = policy_with(0.01, 0.0, None)
        assert (flags.min_precision_uplift, flags.min_hit_ratio_uplift, flags.min_sharpe_uplift) == (
            0.01,
            0.0,
            0.3,
        )
        assert flags.min_evidence == plain.min_evidence == "weak"

    def test_the_accepted_policy_of_the_strategys_slot_is_judged_by(
        self, validated: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """A run that sets nothing is judged by what was accepted for its slot; a flag may loosen it, and is said."""
        monkeypatch.chdir(tmp_path)
        own = {"student_model_paths": {"swing": "data/models/swing/student_model.onnx"}}
        monkeypatch.setenv("SENSEQUANT_STUDENT_MODEL_PATHS", json.dumps(own["student_model_paths"]))
        before = judged_by(strategy_of(validated))
        accept(tmp_path, usual(min_days=90), **own)
        accept(tmp_path, usual(min_days=75, min_precision_uplift=0.04), "swing", **own)
        swing, intraday = judged_by(strategy_of(validated)), judged_by("intraday")

        assert (before.policy, before.in_force) == (usual(), None)
        assert strategy_of(validated) == "swing"
        assert (swing.policy.min_days, intraday.policy.min_days, judged_by().policy.min_days) == (75, 90, 90)
        assert policy_with() == usual(min_days=90)
        assert swing.in_force == {"digest": policy_digest(swing.policy), "looser": []}
        flagged = judged_by("swing", precision_uplift=0.03, sharpe_uplift=0.9)
        assert (flagged.policy.min_precision_uplift, flagged.policy.min_sharpe_uplift) == (0.03, 0.9)
        assert flagged.in_force == {
            "digest": policy_digest(swing.policy),
            "looser": ["SENSEQUANT_PROMOTION_MIN_PRECISION_UPLIFT=0.03 is looser than 0.04"],
        }

    def test_a_loosened_run_is_marked_in_both_forms(self, validated: Path, tmp_path: Path) -> None:
        """The mark and both digests stand in the JSON and on the page; the recommendation is the run's own."""
        policy, in_force = usual(min_evidence="none"), usual()
        made = decide(validated, tmp_path, policy, DECIDED_AT, held_against(policy, in_force))
        page = (tmp_path / CHECKLIST_PAGE).read_text()
        mark = "not promotable under this policy: SENSEQUANT_PROMOTION_MIN_EVIDENCE=none is looser than moderate in force"

        assert made["recommendation"] == "PROMOTE"
        assert mark in made["verdict_reasons"]
        assert f"- {mark}" in page
        for digest in (policy_digest(policy), policy_digest(in_force)):
            assert digest in made["digests"].values()
            assert digest in page
        assert differences(read_json(tmp_path / CHECKLIST_FILE)) == []

    @pytest.mark.parametrize(
        "edit", [lambda r: r.pop("runtime"), lambda r: r.update(runtime={"strategy": 1})]
    )
    def test_results_that_name_no_strategy(self, copy: Path, edit: Edit) -> None:
        """Without a strategy no slot and no policy is known: refused by name."""
        results = read_json(copy / RESULTS_FILE)
        edit(results)
        write_json(copy / RESULTS_FILE, results)
        with pytest.raises(ArtifactChanged, match=RESULTS_FILE):
            strategy_of(copy)

    def test_the_policy_reaches_the_checklist(self, validated: Path, tmp_path: Path) -> None:
        """What it was judged by is written into the checklist, thresholds and all."""
        checklist = verdict(validated, tmp_path, min_hit_ratio_uplift=0.033, min_days=70)
        assert checklist["validation_thresholds"]["min_hit_ratio_uplift"] == 0.033
        assert checklist["policy"]["min_days"] == 70

    def test_the_clock(self) -> None:
        """`SOURCE_DATE_EPOCH` pins the time; without it the time is now, UTC, whole seconds."""
        assert decision_time({"SOURCE_DATE_EPOCH": "1736695800"}) == "2025-01-12T15:30:00Z"
        assert decision_time({"SOURCE_DATE_EPOCH": "0"}) == "1970-01-01T00:00:00Z"
        now = decision_time({})
        assert len(now) == len(DECIDED_AT)
        assert now.endswith("Z")

    @pytest.mark.parametrize("epoch", ["yesterday", "-1", "1.5", "1e9", "²", "9" * 20])
    def test_a_clock_that_is_none(self, epoch: str) -> None:
        """A `SOURCE_DATE_EPOCH` that is no count of seconds is refused by name."""
        with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH"):
            decision_time({"SOURCE_DATE_EPOCH": epoch})


class TestPlaces:
    """Where a validation is looked for."""

    def test_staging_first_then_beside_the_model(self, validated: Path, tmp_path: Path) -> None:
        """This run's staging folder wins over what lies beside the model; with neither it says what to run."""
        model, staging = tmp_path / "student" / "student_model.onnx", tmp_path / "staging"
        model.parent.mkdir()
        staging.mkdir()
        with pytest.raises(UsageError, match="sqkit validate --model"):
            validated_folder(str(model), staging)
        shutil.copy(validated / RESULTS_FILE, model.parent)
        assert validated_folder(str(model), staging) == model.parent
        shutil.copy(validated / RESULTS_FILE, staging)
        assert validated_folder(str(model), staging) == staging

    def test_it_needs_no_notebook(self, validated: Path, tmp_path: Path) -> None:
        """Deciding loads neither papermill nor nbconvert, Jupyter or our notebook runner (arch loads matplotlib)."""
        script = (
            "import sys, json\n"
            "from pathlib import Path\n"
            "from sqkit.checklist import Policy\n"
            "from sqkit.research.decision import decide\n"
            "from sqkit.settings import Settings\n"
            f"decide(Path({str(validated)!r}), Path({str(tmp_path)!r}), "
            f"Policy.from_settings(Settings(_env_file=None)), {DECIDED_AT!r})\n"
            "print(json.dumps(sorted(sys.modules)))\n"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        loaded = set(json.loads(done.stdout))
        strangers = ("papermill", "nbconvert", "nbformat", "nbclient", "IPython", "scrapbook")
        assert not loaded & {*strangers, "sqkit.research.notebooks", "sqkit.research.reports", "sqkit.cli"}
        assert read_json(tmp_path / CHECKLIST_FILE) == decide(
            validated, tmp_path / "here", policy_of(), DECIDED_AT
        )
