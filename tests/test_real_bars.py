"""The whole job on real bars: two NSE shares daily, and an index by the minute.

Whatever the recommendation is, it must be honest: these tests ask that the job ends with a
verdict, that every figure and every test of the gate is there, that the comparison was clean, that
it verifies, and that the report's first line says why. They ask for no particular verdict.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sqkit.checklist import differences, exit_code
from sqkit.metrics import METRIC_KEYS
from sqkit.report_manifest import verify_manifest
from sqkit.settings import GRADES
from tests.project import Project

pytestmark = pytest.mark.slow

VERSION = "20250112_143000"
DECIDING = {
    *(f"first_model.{test}" for test in ("precision", "daily_pnl", "brier", "brier_of_rule")),
    *(f"no_harm.{metric}" for metric in ("precision", "hit_ratio", "sharpe")),
}
STUDENT = f"data/models/{VERSION}/student"


def _job(root: Path, teacher: list[str], student: list[str]) -> tuple[Project, dict[str, Any]]:
    """Train, validate, decide; returns the project and its checklist."""
    project = Project(root)
    trained = project.sqkit("train-teacher", "--output-dir", f"data/models/{VERSION}/teacher", *teacher)
    assert trained.returncode == 0, trained.stderr
    run = project.sqkit(
        *("train-student", "--teacher-dir", f"data/models/{VERSION}/teacher", "--output-dir", STUDENT),
        *("--validate", *student),
    )
    checklist = json.loads((root / STUDENT / "promotion_checklist.json").read_text())
    assert run.returncode == exit_code(checklist), run.stderr
    return project, checklist


def _is_an_honest_report(project: Project, checklist: dict[str, Any]) -> None:
    assert differences(checklist) == []
    assert all(checklist["candidate_metrics"][key] is not None for key in METRIC_KEYS)
    first = (project.root / f"reports/{VERSION}-v1/checklist.md").read_text().splitlines()[0]
    assert first.startswith(f"**{checklist['recommendation']}**: ")
    assert len(first) > 40
    assert verify_manifest(project.root / f"reports/{VERSION}-v1", project.root) == []
    _has_whole_evidence(project, checklist["evidence"])
    clean = {item["name"]: item["status"] for item in checklist["integrity"]}
    assert set(clean.values()) == {"pass"}, checklist["integrity"]
    verified = project.sqkit("verify", STUDENT)
    assert verified.returncode == 0, verified.stdout


def _has_whole_evidence(project: Project, evidence: dict[str, Any]) -> None:
    """Every record has a status and its reason or its numbers; grade, looks and the plain line are there."""
    names = [record["name"] for record in evidence["records"]]
    assert len(names) == len(set(names))
    assert set(names) >= DECIDING
    for record in evidence["records"]:
        assert record["status"] in ("pass", "fail", "undefined", "insufficient"), record
        assert record["status"] in ("pass", "fail") or record["note"], record
        assert record["status"] in ("undefined", "insufficient") or record["estimate"] is not None, record
    assert evidence["grade"] in GRADES
    assert evidence["trials"]["n_trials"] == 1
    page = (project.root / f"reports/{VERSION}-v1/checklist.md").read_text()
    assert evidence["summary"] in page
    assert evidence["summary"].endswith(f"1 look at this window; grade {evidence['grade'].upper()}")


def test_two_shares_daily(tmp_path: Path, shared_data: Path) -> None:
    """Swing on RELIANCE and TCS, trained to 2018, validated on 2019, with the given command."""
    bars = str(shared_data / "nse" / "daily_adjusted_2008_2021")
    project, checklist = _job(
        tmp_path,
        [
            *("--strategy", "swing", "--market", "nse", "--symbols", "RELIANCE", "TCS"),
            "--end",
            "2018-12-31",
            "--bars",
            bars,
        ],
        [
            *("--model-type", "logistic", "--validation-symbols", "RELIANCE", "TCS"),
            *("--validation-start", "2019-01-01", "--validation-end", "2019-12-31", "--strategy", "swing"),
        ],
    )

    _is_an_honest_report(project, checklist)
    assert checklist["validation_period"]["symbols"] == ["RELIANCE", "TCS"]
    assert checklist["runtime"]["zone"] == "Asia/Kolkata"
    assert (
        480
        < sum(
            entry["rows"]
            for entry in json.loads((tmp_path / STUDENT / "validation_results.json").read_text())["files"]
            if entry["kind"] == "predictions" and entry["role"] == "candidate"
        )
        < 500
    ), "two symbols and the sessions of one year"


def test_an_index_by_the_minute(tmp_path: Path, shared_data: Path) -> None:
    """Intraday on NIFTY, trained 2016-11 to 2018-12, validated 2019-01 to 2019-03; an index is not tradable."""
    bars = str(shared_data / "nse" / "index_minute_2012_2021")
    project, checklist = _job(
        tmp_path,
        [
            *("--strategy", "intraday", "--market", "nse_index", "--symbols", "NIFTY", "--bars", bars),
            *("--start", "2016-11-01", "--end", "2018-12-31"),
        ],
        ["--validation-start", "2019-01-01", "--validation-end", "2019-03-31", "--strategy", "intraday"],
    )

    _is_an_honest_report(project, checklist)
    results = json.loads((tmp_path / STUDENT / "validation_results.json").read_text())
    assert results["tradable"] is False
    assert "not tradable" in (tmp_path / f"reports/{VERSION}-v1/validate.md").read_text()
    rows = results["symbols"]["NIFTY"]
    assert (rows["bars"], rows["sessions"]) == (23_250, 62)
    assert checklist["evidence"]["adequacy"]["session_days"] == 62
