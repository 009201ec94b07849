"""The promotion workflow of the user's text, end to end on the real chain: real commands, real notebooks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sqkit.checklist import differences, rederive
from sqkit.settings import GRADES
from tests.project import MODEL, STUDENT, TEACHER, planted_project

pytestmark = pytest.mark.slow


def test_promotion_checklist_generation(tmp_path: Path) -> None:
    """Train a student, run the validation backtest, get the checklist in both forms with judged criteria.

    The command is the given one, spaces between symbols included.
    """
    project = planted_project(tmp_path)
    run = project.sqkit(
        *("train-student", "--teacher-dir", TEACHER, "--output-dir", STUDENT, "--model-type", "logistic"),
        *("--validate", "--validation-symbols", "PLANT01", "PLANT02", "PLANT03", "PLANT04"),
        *("--validation-start", "2014-01-02", "--validation-end", "2014-09-30", "--strategy", "swing"),
        *("--generate-checklist", "--precision-uplift-threshold", "0.02"),
        *("--hit-ratio-uplift-threshold", "0.02", "--sharpe-uplift-threshold", "0.05"),
    )

    student = tmp_path / STUDENT
    checklist = json.loads((student / "promotion_checklist.json").read_text())
    page = (student / "promotion_checklist.md").read_text()
    recommendation, exit_code, _ = rederive(checklist)

    assert run.returncode == exit_code, run.stderr
    assert run.stdout.splitlines()[0] == recommendation == checklist["recommendation"]
    assert differences(checklist) == []
    assert checklist["candidate_model"] == MODEL
    assert checklist["validation_period"] == {
        "start": "2014-01-02",
        "end": "2014-09-30",
        "symbols": ["PLANT01", "PLANT02", "PLANT03", "PLANT04"],
    }
    assert checklist["validation_thresholds"] == {
        "min_precision_uplift": 0.02,
        "min_hit_ratio_uplift": 0.02,
        "min_sharpe_uplift": 0.05,
        "require_all_criteria": True,
    }
    assert set(checklist["validation_results"]) == {
        "precision_pass",
        "hit_ratio_pass",
        "sharpe_pass",
        "all_criteria_pass",
    }
    evidence = json.loads((student / "evidence.json").read_text())
    assert evidence["records"] == checklist["evidence"]["records"]
    assert evidence["grade"] in GRADES
    assert evidence["summary"] in page
    assert project.sqkit("verify", STUDENT).returncode == 0
    for heading in ("## Performance Summary", "## Validation Criteria", "## Approval Sign-offs"):
        assert heading in page
    assert checklist["candidate_metrics"] != checklist["baseline_metrics"], "the backtest must use the model"
