"""Past decisions under another policy: which would have come out otherwise, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from sqkit.checklist import Adequacy, Policy, generate_promotion_checklist
from sqkit.errors import SettingsError, UsageError
from sqkit.files import write_json
from sqkit.metrics import METRIC_KEYS
from sqkit.research.policy_diff import policy_changes, policy_diff
from sqkit.settings import Settings
from tests.market import files_below
from tests.project import Project

CANDIDATE = dict(zip(METRIC_KEYS, (0.712, 0.668, 0.687, 1.85, 0.142, 0.083, 0.583), strict=True))
BASELINE = dict(zip(METRIC_KEYS, (0.685, 0.632, 0.654, 1.72, 0.118, 0.091, 0.557), strict=True))
NEWEST, EARLIER = "20250101_000000/student", "20250101_000000/student/validations/v1"
DIFF = ("policy", "diff", "--set")


def _checklist(
    candidate: dict[str, float] | None = None, baseline: dict[str, float] | None = None, **policy: Any
) -> dict[str, Any]:
    """A decision on the metrics of the user's text, without evidence unless the policy asks for it."""
    thresholds: dict[str, Any] = {"min_evidence": "none"} | policy
    return generate_promotion_checklist(
        timestamp="2025-01-12T15:30:00Z",
        candidate_model="data/models/20250101_000000/student/student_model.onnx",
        baseline_model=None,
        start="2024-07-01",
        end="2024-09-30",
        symbols=["ALPHA"],
        candidate_metrics=CANDIDATE | (candidate or {}),
        baseline_metrics=BASELINE | (baseline or {}),
        policy=Policy.from_settings(Settings(_env_file=None), **thresholds),
        adequacy=Adequacy(session_days=64, day_clusters=60, candidate_calls=300, baseline_calls=400),
    )


def _store(models: Path, place: str, checklist: Any) -> Path:
    path = models / place / "promotion_checklist.json"
    write_json(path, checklist)
    return path


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Two decisions of one student: the newest PROMOTE, the first one REJECT."""
    models = tmp_path / "data/models"
    _store(models, NEWEST, _checklist())
    _store(models, EARLIER, _checklist({"precision_long": 0.69}))
    return Project(tmp_path)


def test_a_raised_threshold_names_the_decision_it_turns(project: Project) -> None:
    """Path, version, window, both recommendations and the first reason, for the one that changes."""
    run = project.sqkit(*DIFF, "promotion_min_precision_uplift=0.03")

    assert run.returncode == 0, run.stderr
    line, count = run.stdout.splitlines()
    assert line.startswith(
        f"data/models/{NEWEST}/promotion_checklist.json: 20250101_000000, 2024-07-01 to 2024-09-30: PROMOTE -> REJECT: "
    )
    assert "Precision uplift 2.7% < 3.0%" in line
    assert count == "1 of 2 decisions below data/models would have changed"


def test_several_thresholds_change_together(project: Project) -> None:
    """A lower and a higher threshold in one call turn both decisions, as JSON by path."""
    words = ("promotion_min_precision_uplift=0", "--set", "promotion_min_sharpe=1.86")
    lowered = project.json(*DIFF, words[0])
    both = project.json(*DIFF, *words)

    assert [(entry["old"], entry["new"]) for entry in lowered["changed"]] == [("REJECT", "PROMOTE")]
    assert lowered["changed"][0]["checklist"] == f"data/models/{EARLIER}/promotion_checklist.json"
    assert [(entry["checklist"], entry["new"]) for entry in both["changed"]] == [
        (f"data/models/{NEWEST}/promotion_checklist.json", "REJECT")
    ]
    assert both["changes"] == {"promotion_min_precision_uplift": 0.0, "promotion_min_sharpe": 1.86}


def test_nothing_is_written_and_the_same_policy_changes_nothing(project: Project) -> None:
    """The recorded thresholds give the recorded decisions; no file is touched."""
    before = files_below(project.root)

    assert project.json(*DIFF, "promotion_min_precision_uplift=0.02")["changed"] == []
    assert files_below(project.root) == before


def test_the_recorded_policy_counts_not_the_settings(project: Project) -> None:
    """The settings of today do not enter a decision of the past."""
    today = {"SENSEQUANT_PROMOTION_MIN_SHARPE": "9"}
    run = project.sqkit(*DIFF, "promotion_min_precision_uplift=0.02", "--json", environment=today)

    assert json.loads(run.stdout)["changed"] == []


TURNED: dict[str, tuple[str, dict[str, Any]]] = {
    "min_precision_uplift": ("0.03", {}),
    "min_hit_ratio_uplift": ("0.04", {}),
    "min_sharpe_uplift": ("0.1", {}),
    "min_sharpe_uplift_absolute": ("2.5", {"baseline": {"sharpe_ratio": 0.1}}),
    "min_sharpe": ("2", {}),
    "require_all_criteria": ("false", {"candidate": {"precision_long": 0.69}}),
    "min_evidence": ("strong", {}),
    "min_days": ("65", {}),
    "min_calls": ("301", {}),
}


@pytest.mark.parametrize("name", TURNED)
def test_every_threshold_of_a_decision_turns_one(name: str, tmp_path: Path) -> None:
    """Each setting that enters a decision, changed alone, changes a stored decision."""
    value, inputs = TURNED[name]
    _store(tmp_path, NEWEST, _checklist(**inputs))

    found = policy_diff(tmp_path, policy_changes([f"promotion_{name}={value}"]))

    assert len(found["changed"]) == 1


def test_every_setting_of_the_policy_is_either_deciding_or_refused() -> None:
    """A threshold added to the policy cannot be forgotten here."""
    known = {field.name for field in fields(Policy)} & {
        name.removeprefix("promotion_") for name in Settings.model_fields
    }
    refused = set()
    for name in known - set(TURNED):
        with pytest.raises(UsageError, match="does not enter a decision"):
            policy_changes([f"promotion_{name}=1"])
        refused.add(name)
    assert refused | set(TURNED) == known


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["promotion_min_precision_uplft=0.03"], "did you mean promotion_min_precision_uplift"),
        (["profit=1"], "is no setting of sqkit"),
        (["promotion_min_days"], "NAME=VALUE"),
        (["promotion_min_days=60", "SENSEQUANT_PROMOTION_MIN_DAYS=61"], "given twice"),
        (["promotion_required_approvals=ml_lead"], "does not enter a decision"),
        (["promotion_checklist_max_age_days=90"], "does not enter a decision"),
        (["promotion_allowed_signers=keys"], "does not enter a decision"),
        (["student_model_confidence_threshold=0.7"], "does not enter a decision"),
        ([], "nothing to change"),
    ],
)
def test_what_cannot_be_set_is_refused(words: list[str], said: str) -> None:
    """Unknown names, names that decide nothing, and words that are no assignment."""
    with pytest.raises(UsageError, match=said):
        policy_changes(words)


@pytest.mark.parametrize(
    "word",
    [
        "promotion_min_days=soon",
        "promotion_min_days=-1",
        "promotion_min_precision_uplift=nan",
        "promotion_min_precision_uplift=1e999",
        "promotion_min_precision_uplift=",
        "promotion_min_evidence=huge",
        "promotion_require_all_criteria=perhaps",
    ],
)
def test_values_that_the_settings_refuse_are_refused(word: str) -> None:
    """A value is read as its setting is, and the line names the setting."""
    with pytest.raises(SettingsError, match=word.split("=")[0].upper()):
        policy_changes([word])


def test_refusals_are_one_line_and_exit_two(project: Project) -> None:
    """At the command line: a bad name, a bad value and no assignment at all."""
    for words in ((*DIFF, "promotion_min_dayz=1"), (*DIFF, "promotion_min_days=x"), ("policy", "diff")):
        run = project.sqkit(*words)
        assert (run.returncode, len(run.stderr.splitlines()), run.stdout) == (2, 1, "")


def _edited(**changes: Any) -> str:
    return json.dumps(_checklist() | changes)


BROKEN: dict[str, tuple[Callable[[], str | bytes], str]] = {
    "no JSON": (lambda: "{", "not strict JSON"),
    "not text": (lambda: b"\xff\xfe\x00", "not strict JSON"),
    "too deep": (lambda: "[" * 200_000, "not"),
    "a list": (lambda: "[]", "not a checklist"),
    "a number": (lambda: "5", "not a checklist"),
    "a part missing": (lambda: '{"policy": {}}', "has no"),
    "another verdict": (lambda: _edited(recommendation="REJECT"), "does not follow from its own inputs"),
    "another metric": (
        lambda: _edited(candidate_metrics=CANDIDATE | {"hit_ratio": 0.9}),
        "does not follow from its own inputs",
    ),
    "no policy": (lambda: _edited(policy=None), "policy"),
    "evidence a word": (lambda: _edited(evidence="strong"), "must be objects"),
    "no window": (lambda: _edited(validation_period=None), "not a checklist"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_checklist_that_cannot_be_judged_is_named_and_skipped(project: Project, case: str) -> None:
    """The line names file and reason, and the others are still judged."""
    make, said = BROKEN[case]
    content = make()
    path = project.root / f"data/models/{NEWEST}/promotion_checklist.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())

    models = project.root / "data/models"

    found = policy_diff(models, policy_changes(["promotion_min_precision_uplift=0"]))

    assert [entry["checklist"] for entry in found["skipped"]] == [path.as_posix()]
    assert said in found["skipped"][0]["problem"]
    assert len(found["skipped"][0]["problem"].splitlines()) == 1
    assert [entry["new"] for entry in found["changed"]] == ["PROMOTE"]


def test_a_skipped_checklist_is_exit_one(project: Project) -> None:
    """The command lists what it could judge, names the rest, and does not look as if all were well."""
    (project.root / f"data/models/{NEWEST}/promotion_checklist.json").write_text("{")

    run = project.sqkit(*DIFF, "promotion_min_precision_uplift=0")

    assert (run.returncode, run.stderr) == (1, "")
    assert f"data/models/{NEWEST}/promotion_checklist.json: skipped: " in run.stdout
    assert "1 of 1 decisions" in run.stdout


def test_staging_folders_are_no_decisions(tmp_path: Path) -> None:
    """What an interrupted run left behind is not judged; a folder without models holds no decision."""
    _store(tmp_path, "20250101_000000/.student.abc.staging", {"broken": True})

    for models in (tmp_path, tmp_path / "nowhere"):
        found = policy_diff(models, policy_changes(["promotion_min_days=1"]))
        assert (found["decisions"], found["skipped"]) == (0, [])
