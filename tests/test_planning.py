"""The plan of a window before training: what is counted, who is the opponent, when it is said."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sqkit.errors import SqkitError, UsageError, WindowEmpty
from sqkit.research.backtest import Window
from sqkit.research.planning import lines_before_training, plan_job
from sqkit.research.requests import Thresholds, ValidationRequest
from sqkit.research.sources import parse_day
from sqkit.research.window_plan import plan_lines
from sqkit.settings import Settings
from tests.project import TEACHER, Project, clean_environment, planted_project, refused

H1 = {"start": "2014-01-02", "end": "2014-06-30"}
"""The first half of 2014: 124 sessions of the New York Stock Exchange."""
METADATA = {
    "strategy": "swing",
    "symbols": ["AAA", "BBB", "CCC"],
    "market": "us",
    "interval": "1d",
    "horizon_bars": 5,
}
"""What a plan takes of a teacher."""
WINDOW = Window(parse_day(H1["start"], "start"), parse_day(H1["end"], "end"))
PRODUCTION = "data/models/production/student_model.onnx"
OUTPUT = "data/models/20200102_000000/student"


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No .env and no production model of somebody else's."""
    monkeypatch.chdir(tmp_path)


def plan(**changes: Any) -> dict[str, Any]:
    """A plan of two symbols over the first half of 2014."""
    asked = {"strategy": "swing", "symbols": ["AAA", "BBB"], "market": "us", **H1}
    return plan_job(**(asked | changes))


# --- what is counted


@pytest.mark.parametrize(
    ("market", "interval", "start", "end", "sessions", "bars"),
    [
        ("us", "1d", "2014-01-02", "2014-06-30", 124, 1),
        ("us", "1m", "2014-01-02", "2014-01-31", 21, 390),
        ("us", "5m", "2014-01-02", "2014-01-31", 21, 78),
        # with an early close among five days a usual session is still a whole one
        ("us", "1m", "2014-11-24", "2014-11-28", 4, 390),
        ("nse", "1m", "2019-01-01", "2019-03-31", 62, 375),
        ("nse", "5m", "2019-01-01", "2019-03-31", 62, 75),
    ],
)
def test_sessions_and_bars_are_the_calendars(
    market: str, interval: str, start: str, end: str, sessions: int, bars: int
) -> None:
    """Published numbers of sessions of both markets, both ends included, and bars of a usual session."""
    found = plan(strategy="intraday", market=market, interval=interval, start=start, end=end)

    assert (found["sessions"], found["bars_per_session"]) == (sessions, bars)
    assert found["adequacy"]["session_days"] == sessions
    assert (found["market"], found["interval"]) == (market, interval)


def test_defaults_are_those_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Interval and horizon by strategy, market by setting; what is given wins."""
    monkeypatch.setenv("SENSEQUANT_MARKET", "us")
    swing = plan(market=None)
    intraday = plan(strategy="intraday", market=None, end="2014-01-31")
    given = plan(horizon_bars=12)

    assert (swing["market"], swing["interval"], swing["horizon_bars"], swing["label_sessions"]) == (
        "us",
        "1d",
        5,
        5,
    )
    assert (intraday["interval"], intraday["horizon_bars"], intraday["label_sessions"]) == ("1m", 15, 1)
    assert (given["horizon_bars"], given["label_sessions"]) == (12, 12)
    assert swing["names"] == ["AAA", "BBB"]
    assert swing["window"] == H1


def test_a_users_session_file_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A day closed by the user's own file is no session of the window."""
    (tmp_path / "closed.json").write_text(json.dumps({"holidays": ["2014-01-03", "2014-01-06"]}))
    monkeypatch.setenv("SENSEQUANT_SESSIONS_FILE", "closed.json")

    assert plan()["sessions"] == 122


def test_the_policy_is_that_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least days and calls and the grade asked for come from the settings."""
    monkeypatch.setenv("SENSEQUANT_PROMOTION_MIN_DAYS", "125")
    monkeypatch.setenv("SENSEQUANT_PROMOTION_MIN_CALLS", "7")
    monkeypatch.setenv("SENSEQUANT_PROMOTION_MIN_EVIDENCE", "none")
    found = plan()

    assert found["adequacy"]["min_session_days"] == 125
    assert found["adequacy"]["min_directional_calls"] == 7
    assert found["adequacy"]["enough"] is False
    assert found["min_evidence"] == "none"
    monkeypatch.delenv("SENSEQUANT_PROMOTION_MIN_EVIDENCE")
    assert found["equal_models"]["with_evidence"] > plan()["equal_models"]["with_evidence"]


# --- against whom


@pytest.mark.slow
def test_the_opponent_is_what_is_in_production(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a production model the rule, with one that model; another slot's model is no opponent."""
    nothing = plan()
    assert nothing["incumbent"] is False
    assert "against the baseline rule (no incumbent)" in plan_lines(nothing)[0]

    (tmp_path / PRODUCTION).parent.mkdir(parents=True)
    (tmp_path / PRODUCTION).write_bytes(b"")
    produced = plan()
    assert produced["incumbent"] is True
    assert "against an incumbent model" in plan_lines(produced)[0]

    monkeypatch.setenv("SENSEQUANT_STUDENT_MODEL_PATHS", json.dumps({"swing": "swing.onnx"}))
    assert plan()["incumbent"] is False


@pytest.mark.parametrize(
    ("baseline", "produced", "against"),
    [
        ("", False, "the baseline rule"),
        ("", True, "an incumbent model"),
        ("rule", True, "the baseline rule"),
        ("by-hand.onnx", False, "an incumbent model"),
    ],
)
def test_before_training_the_opponent_is_the_one_the_validation_will_have(
    tmp_path: Path, baseline: str, produced: bool, against: str
) -> None:
    """--baseline-model decides, else production; symbols and window are those of the request."""
    if produced:
        (tmp_path / PRODUCTION).parent.mkdir(parents=True)
        (tmp_path / PRODUCTION).write_bytes(b"")
    lines = lines_before_training(
        ValidationRequest(model="", symbols=["AAA"], baseline_model=baseline), METADATA, WINDOW, Settings()
    )

    assert all(line.startswith("plan: ") for line in lines)
    assert lines[0].startswith("plan: 1 symbols, 124 session days, swing, against " + against)


def test_before_training_the_symbols_are_the_teachers_unless_named() -> None:
    """A request without symbols is planned for all that the teacher knows, judged by the request's thresholds."""
    thresholds = Thresholds(precision_uplift=0.9)
    request = ValidationRequest(model="", baseline_model="rule", thresholds=thresholds)

    lines = lines_before_training(request, METADATA, WINDOW, Settings())

    assert lines[0].startswith("plan: 3 symbols, 124 session days")
    assert any("better: 0.0 % by thresholds alone" in line for line in lines), lines


# --- refusals


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"symbols": []}, UsageError, "--symbols is empty"),
        ({"symbols": None}, UsageError, "--symbols is empty"),
        ({"symbols": ["AAA", "AAA"]}, UsageError, "twice"),
        ({"start": "1st May"}, UsageError, "write YYYY-MM-DD"),
        ({"start": "2014-07-01"}, UsageError, "start must not be after end"),
        ({"horizon_bars": 0}, UsageError, "horizon_bars 0"),
        ({"start": "2014-01-04", "end": "2014-01-05"}, WindowEmpty, "has 0 sessions"),
        ({"start": "2014-01-03", "end": "2014-01-05"}, WindowEmpty, "has 1 sessions"),
    ],
)
def test_what_cannot_be_planned_is_one_line(
    changes: dict[str, Any], error: type[SqkitError], said: str
) -> None:
    """Every refusal is an error of ours with exit code 2 that says what to do."""
    with pytest.raises(error, match=said) as refusal:
        plan(**changes)

    assert refusal.value.exit_code == 2
    assert "\n" not in str(refusal.value)


# --- the command


WORDS = ["plan", "--strategy", "swing", "--market", "us", "--symbols", "AAA", "BBB"]


@pytest.mark.slow
def test_the_command_prints_the_same_plan(tmp_path: Path) -> None:
    """--json is plan_job's answer, without it the lines are plan_lines'; either exits 0 and writes nothing."""
    project = Project(tmp_path)
    words = [*WORDS, "--start", H1["start"], "--end", H1["end"]]

    as_json, as_lines = project.sqkit(*words, "--json"), project.sqkit(*words)

    assert (as_json.returncode, as_lines.returncode) == (0, 0), as_json.stderr
    planned = plan()
    assert json.loads(as_json.stdout) == planned
    assert as_lines.stdout.splitlines() == plan_lines(planned)
    assert project.files() == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([*WORDS[:-2], "--start", "2014-01-02", "--end", "2014-06-30"], "symbols"),
        ([*WORDS, "AAA", "--start", "2014-01-02", "--end", "2014-06-30"], "twice"),
        ([*WORDS, "--start", "2014-06-30", "--end", "2014-01-02"], "start must not be after end"),
        ([*WORDS, "--start", "2014-01-04", "--end", "2014-01-05"], "choose a longer window"),
        ([*WORDS, "--start", "2014-01-02"], "--end"),
    ],
)
def test_the_command_refuses_in_one_line(tmp_path: Path, words: list[str], said: str) -> None:
    """Exit 2, one line, nothing written."""
    refused(Project(tmp_path), 2, words, said)


# --- before training


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with a teacher."""
    return planted_project(tmp_path_factory.mktemp("planned"))


@pytest.mark.slow
def test_the_plan_is_said_before_anything_is_trained(trained: Project) -> None:
    """train-student --validate prints the plan of its window, then trains; stopped there it has trained nothing."""
    words = ["train-student", "--teacher-dir", TEACHER, "--output-dir", OUTPUT, "--validate"]
    window = ["--validation-start", H1["start"], "--validation-end", H1["end"]]
    before, said = trained.files(), []
    with subprocess.Popen(
        [sys.executable, "-m", "sqkit.cli", *words, *window, "--validation-symbols", "PLANT01", "PLANT02"],
        cwd=trained.root,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(),
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line.rstrip("\n"))
            if "running 02_train" in line:
                break
        os.killpg(process.pid, signal.SIGINT)
        process.stderr.read()

    assert process.wait(timeout=60) == 130
    expected = plan_lines(plan(symbols=["PLANT01", "PLANT02"]))
    assert said == [*(f"plan: {line}" for line in expected), "running 02_train.ipynb"]
    assert trained.files() == before


@pytest.mark.slow
def test_without_a_validation_the_next_three_months_are_planned(trained: Project) -> None:
    """train-student alone says first what the 63 sessions after its training could show, then trains."""
    run = trained.sqkit("train-student", "--teacher-dir", TEACHER, "--output-dir", OUTPUT)

    assert run.returncode == 0, run.stderr
    said = run.stderr.splitlines()
    assert "63 session days" in said[0]
    assert [line.startswith("plan: ") for line in said].index(False) == said.index("running 02_train.ipynb")
