"""``sqkit replay`` and ``sqkit explain`` as a stranger runs them, on planted bars."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sqkit.research.planted import planted_market, write_market
from sqkit.research.sources import load_bars
from sqkit.research.telemetry import read_predictions, read_trades
from tests.engines import Bench, Trading, settings_of, student_bytes
from tests.project import Project

pytestmark = pytest.mark.slow

BARS = "data/bars/1d"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Two planted symbols of daily bars, a candidate's file, and a release in the swing slot."""
    root = tmp_path_factory.mktemp("replay")
    write_market(planted_market(3, 2, 260, "1d", 0.3), root / BARS)
    (root / "candidate.onnx").write_bytes(student_bytes(bias=0.1, symbols=["PLANT01"]))
    desk = Trading(root)
    desk.symbols = ("PLANT01",)
    desk.promote(1, "2025-01-02")
    return Project(root)


def test_a_candidate_is_replayed(project: Project) -> None:
    """Live telemetry of every bar of the window, apart from what engines write; what an engine in process says."""
    run = project.sqkit(
        *("replay", "--bars", BARS, "--strategy", "swing", "--symbols", "PLANT01"),
        *("--model", "candidate.onnx", "--start", "2012-09-03", "--telemetry", "elsewhere", "--json"),
    )
    assert run.returncode == 0, run.stderr
    said = json.loads(run.stdout)
    found = read_predictions(project.root / "elsewhere").symbols["PLANT01"]
    trades = read_trades(project.root / "elsewhere").symbols["PLANT01"]
    bars, _ = load_bars(str(project.root / BARS), ["PLANT01"], interval="1d", market="us")
    start = int(np.searchsorted(bars["PLANT01"].session_days, found["session_date"][0]))

    assert said["bars"] == len(found["bar_time"]) == len(bars["PLANT01"]) - start
    assert said["student_model_version"] == "20030101_000000"
    assert said["closed_trades"] == int(np.sum(trades["exit_time"] != 0))
    assert said["net_pnl"] == pytest.approx(float(trades["net_pnl"][trades["exit_time"] != 0].sum()))
    assert not (project.root / "data/telemetry").exists()
    assert not (project.root / "data/engine").exists()


def test_what_the_slot_serves_is_replayed(project: Project) -> None:
    """With scoring enabled the release decides, within its scope; its age is that at its decision."""
    words = ("replay", "--bars", BARS, "--strategy", "swing", "--market", "us")
    enabled = {"SENSEQUANT_STUDENT_MODEL_ENABLED": "true", "SENSEQUANT_MARKET": "us"}
    run = project.sqkit(*words, environment=enabled)
    assert run.returncode == 0, run.stderr
    records = [
        json.loads(line)
        for path in sorted((project.root / "data/replay/telemetry").glob("2*/*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    by_symbol = {
        name: {one["reason"] for one in records if one.get("symbol") == name and one["event"] == "prediction"}
        for name in ("PLANT01", "PLANT02")
    }

    assert "student: 20240102_000001" in run.stdout
    assert by_symbol["PLANT01"] == {"warm_up", "scored", "low_confidence"}
    assert by_symbol["PLANT02"] == {"warm_up", "out_of_scope"}


def test_without_a_student_the_baseline_is_replayed(project: Project) -> None:
    """It is said which, and the trades are those of an engine without one."""
    words = ("replay", "--bars", BARS, "--strategy", "swing", "--market", "us", "--telemetry", "plain")
    run = project.sqkit(*words, "--symbols", "PLANT02")
    bench = Bench(
        project.root / "bench", settings=settings_of(), config={"symbols": ("PLANT02",)}, keep_state=False
    )
    bars, _ = load_bars(str(project.root / BARS), ["PLANT02"], interval="1d", market="us")
    bench.feed(bars["PLANT02"])
    mine = read_trades(project.root / "bench/data/telemetry").symbols["PLANT02"]
    theirs = read_trades(project.root / "plain").symbols["PLANT02"]

    assert "student: none (disabled: scoring is disabled)" in run.stdout
    assert all(
        np.array_equal(mine[name], theirs[name], equal_nan=mine[name].dtype.kind == "f") for name in mine
    )


def test_a_speed_is_kept(project: Project) -> None:
    """So many times as fast as the market: two days in half a second at 172,800, and no less."""
    import time

    words = ("replay", "--bars", BARS, "--strategy", "swing", "--market", "us", "--telemetry", "paced")
    window = ("--start", "2012-09-04", "--end", "2012-09-07", "--symbols", "PLANT01")
    begun = time.monotonic()
    quick = project.sqkit(*words, *window)
    between = time.monotonic()
    paced = project.sqkit(*words, *window, "--speed", "86400")

    assert quick.returncode == paced.returncode == 0, paced.stderr
    assert time.monotonic() - between >= 3.0
    assert between - begun > 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--speed", "0"), "--speed 0: max, or a number above 0"),
        (("--speed", "fast"), "--speed fast"),
        (("--symbols", "NOBODY"), "NOBODY"),
        (("--start", "2013-09-04", "--end", "2012-09-07"), "lies after --end"),
        (("--model", "nowhere.onnx"), "no such model file"),
    ],
)
def test_what_cannot_be_meant_is_one_line(project: Project, words: tuple[str, ...], said: str) -> None:
    """Exit 2, on standard error, nothing written."""
    run = project.sqkit(
        *("replay", "--bars", BARS, "--strategy", "swing", "--market", "us", "--telemetry", "never"), *words
    )

    assert run.returncode == 2
    assert said in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1
    assert not (Path(project.root) / "never").exists()


def test_a_decision_is_explained(project: Project) -> None:
    """The id of a record, in; everything behind it, out; exit 0 as the model says the same again."""
    (project.root / "data/models/candidate").mkdir()
    (project.root / "data/models/candidate/student_model.onnx").write_bytes(
        (project.root / "candidate.onnx").read_bytes()
    )
    project.sqkit(
        *("replay", "--bars", BARS, "--strategy", "swing", "--symbols", "PLANT01"),
        *("--model", "candidate.onnx", "--telemetry", "told"),
    )
    scored = [
        json.loads(line)
        for path in sorted((project.root / "told").glob("2*/*.jsonl"))
        for line in path.read_text().splitlines()
        if '"reason":"scored"' in line
    ]
    run = project.sqkit("explain", scored[-1]["id"], "--telemetry", "told")
    lost = project.sqkit("explain", "swing/NOBODY/2012-01-03T05:00:00Z", "--telemetry", "told")

    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "scored again: the same to the bit"
    for part in ("bars up to it:", "return_1", "threshold 0.6", "rule:", "release: none"):
        assert part in run.stdout
    assert (lost.returncode, len(lost.stderr.strip().splitlines())) == (2, 1)
