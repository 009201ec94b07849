"""The command line: names and exit codes as designed, one-line refusals, metrics from elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sqkit.metrics import METRIC_KEYS
from sqkit.research.planted import planted_market, write_market
from tests.project import Project

CANDIDATE = dict(zip(METRIC_KEYS, (0.712, 0.668, 0.687, 1.85, 0.142, 0.083, 0.583), strict=True))
BASELINE = dict(zip(METRIC_KEYS, (0.685, 0.632, 0.654, 1.72, 0.118, 0.091, 0.557), strict=True))
COMMANDS = {
    *("train-teacher", "train-student", "validate", "checklist", "report", "inspect", "doctor", "data"),
    *("verify", "policy", "lookahead", "holdout", "plan", "monitor"),
    *(
        "ack",
        "approve",
        "attest",
        "promote",
        "rollback",
        "halt",
        "resume",
        "ratify",
        "quarantine",
        "status",
        "history",
    ),
    *("replay", "explain"),
}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """An empty folder with the user's own metrics as two files."""
    (tmp_path / "candidate.json").write_text(json.dumps(CANDIDATE))
    (tmp_path / "baseline.json").write_text(json.dumps(BASELINE))
    return Project(tmp_path)


def _checklist(project: Project, *words: str, **environment: str) -> tuple[int, str]:
    run = project.sqkit(
        *("checklist", "--candidate-metrics", "candidate.json", "--baseline-metrics", "baseline.json"),
        *("--output-dir", "out", *words),
        environment=environment,
    )
    return run.returncode, run.stdout + run.stderr


def test_help_names_every_command(project: Project) -> None:
    """``sqkit --help`` lists what there is and nothing else."""
    run = project.sqkit("--help")
    listed = {
        line.split()[1] for line in run.stdout.splitlines() if line.startswith("│ ") and line[2] not in " -"
    }

    assert run.returncode == 0
    assert listed == COMMANDS


def test_metrics_from_elsewhere_carry_no_evidence(project: Project) -> None:
    """The given metrics pass their thresholds; without predictions that is exit 3 under the default."""
    code, said = _checklist(
        project, "--start", "2024-07-01", "--end", "2024-09-30", "--symbols", "ALPHA", "BETA"
    )
    checklist = json.loads((project.root / "out/promotion_checklist.json").read_text())

    assert (code, said.splitlines()[0]) == (3, "INSUFFICIENT_EVIDENCE")
    assert checklist["validation_results"]["all_criteria_pass"] is True
    assert checklist["validation_period"]["symbols"] == ["ALPHA", "BETA"]
    assert checklist["digests"]["model"] is None
    assert checklist["candidate_model"] is None


def test_metrics_from_elsewhere_are_promoted_only_when_no_evidence_is_asked(project: Project) -> None:
    """With promotion_min_evidence=none the same numbers exit 0; no model digest makes them unpromotable."""
    assert _checklist(project, SENSEQUANT_PROMOTION_MIN_EVIDENCE="none")[0] == 0
    assert "sqkit promote" not in (project.root / "out/promotion_checklist.md").read_text()


def test_missed_thresholds_are_rejected_either_way(project: Project) -> None:
    """A threshold above what was reached is REJECT, exit 1, whatever evidence is asked."""
    words = ("--precision-uplift-threshold", "0.03")

    assert _checklist(project, *words)[0] == 1
    assert _checklist(project, *words, SENSEQUANT_PROMOTION_MIN_EVIDENCE="none")[0] == 1


def test_an_undefined_metric_is_never_a_pass(project: Project) -> None:
    """null is allowed and means undefined: exit 3 even without evidence asked."""
    (project.root / "candidate.json").write_text(json.dumps(CANDIDATE | {"win_rate": None}))

    code, said = _checklist(project, SENSEQUANT_PROMOTION_MIN_EVIDENCE="none")

    assert code == 3
    assert "win_rate" in said


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (json.dumps({key: value for key, value in CANDIDATE.items() if key != "accuracy"}), "accuracy"),
        (json.dumps(CANDIDATE | {"profit": 1.0}), "profit"),
        (json.dumps(CANDIDATE).replace("0.712", "NaN"), "NaN"),
        (json.dumps(CANDIDATE).replace("0.712", "1e999"), "precision_long"),
        ("{", "candidate.json"),
        ("[]", "candidate.json"),
    ],
)
def test_metrics_that_cannot_be_used_are_exit_two(project: Project, text: str, line: str) -> None:
    """A missing or unknown key, NaN, or no JSON: one line that names it, and no file is written."""
    (project.root / "candidate.json").write_text(text)

    code, said = _checklist(project)

    assert code == 2
    assert line in said
    assert "Traceback" not in said
    assert not (project.root / "out").exists()


def test_a_checklist_needs_one_of_its_two_forms(project: Project) -> None:
    """Neither a model nor metrics is a usage error."""
    assert project.sqkit("checklist").returncode == 2


def test_an_unknown_command_says_where_help_is(project: Project) -> None:
    """A typing mistake is one line with exit code 2."""
    run = project.sqkit("validat")

    assert run.returncode == 2
    assert len(run.stderr.splitlines()) == 1
    assert "--help" in run.stderr


def test_a_bad_setting_is_one_line(project: Project) -> None:
    """A bad variable stops a command with exit 2 and names the variable."""
    code, said = _checklist(project, SENSEQUANT_PROMOTION_MIN_DAYS="soon")

    assert code == 2
    assert "SENSEQUANT_PROMOTION_MIN_DAYS" in said
    assert len(said.splitlines()) == 1


def test_doctor_exits_one_when_something_does_not_fit(project: Project) -> None:
    """Scoring enabled without a model is a problem; a fresh checkout has none."""
    assert project.sqkit("doctor").returncode == 0
    run = project.sqkit("doctor", environment={"SENSEQUANT_STUDENT_MODEL_ENABLED": "true"})

    assert run.returncode == 1
    assert "does not exist" in run.stdout


def test_data_check_and_import_take_a_plain_file(project: Project) -> None:
    """A CSV is checked, stored under its place, and checked again from there."""
    lines = ["Date,Open,High,Low,Close,Volume"]
    lines += [f"2023-05-0{day},{10 + day},{11 + day},{9 + day},{10.5 + day},1000" for day in (1, 2, 3, 4, 5)]
    (project.root / "ALPHA.csv").write_text("\n".join(lines) + "\n")

    checked = project.sqkit("data", "check", "ALPHA.csv", "--market", "us", "--json")
    stored = project.sqkit(
        "data", "import", "ALPHA.csv", "--symbol", "ALPHA", "--interval", "1d", "--market", "us"
    )
    folder = project.sqkit("data", "check", "data/bars/1d", "--market", "us")

    assert json.loads(checked.stdout)["bars"] == 5
    assert stored.stdout.splitlines()[-1] == "stored data/bars/1d/ALPHA.parquet"
    assert folder.returncode == 0, folder.stdout


def test_a_failing_check_exits_one(project: Project) -> None:
    """A file whose bars are not usable as they are makes data check exit 1."""
    rows = ["date,open,high,low,close,volume", "2023-05-01,10,9,11,10,5", "2023-05-02,10,11,9,10,5"]
    (project.root / "BETA.csv").write_text("\n".join(rows) + "\n")

    assert project.sqkit("data", "check", "BETA.csv", "--market", "us").returncode == 1


def test_training_without_bars_says_how_to_get_some(project: Project) -> None:
    """An empty data folder is one line that names the import command."""
    run = project.sqkit("train-teacher", "--strategy", "swing")

    assert run.returncode == 2
    assert "sqkit data import" in run.stderr


def test_version_tags_that_disagree_are_refused(project: Project) -> None:
    """A tag and a folder with another tag: exit 2."""
    words = ("--version-tag", "20200101_000000", "--output-dir", "data/models/20210101_000000/teacher")

    run = project.sqkit("train-teacher", *words)

    assert run.returncode == 2
    assert "20210101_000000" in run.stderr


@pytest.mark.parametrize("epoch", ["garbage", "-1", "99999999999999999999"])
def test_a_bad_clock_is_one_line(project: Project, epoch: str) -> None:
    """SOURCE_DATE_EPOCH that is no count of seconds is refused by name before any library stumbles over it."""
    code, said = _checklist(project, SOURCE_DATE_EPOCH=epoch)

    assert (code, len(said.splitlines())) == (2, 1)
    assert "SOURCE_DATE_EPOCH" in said


def test_an_empty_clock_counts_as_unset(project: Project) -> None:
    """An empty SOURCE_DATE_EPOCH means now."""
    assert _checklist(project, SOURCE_DATE_EPOCH="")[0] == 3


def test_a_full_standard_output_is_one_line(project: Project) -> None:
    """When nothing can be printed the command says so and does not look like a verdict."""
    import subprocess
    import sys

    from tests.project import clean_environment

    with open("/dev/full", "w") as full:
        run = subprocess.run(
            [sys.executable, "-m", "sqkit.cli", "report", "--json"],
            cwd=project.root,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env=clean_environment(),
        )

    assert run.returncode == 2
    assert "Traceback" not in run.stderr
    assert "standard output" in run.stderr


@pytest.mark.parametrize("seed", ["-1", "99999999999"])
def test_a_seed_out_of_range_is_refused(project: Project, seed: str) -> None:
    """A seed that no generator takes is one line with exit 2."""
    run = project.sqkit("train-teacher", "--seed", seed)

    assert run.returncode == 2
    assert "seed" in run.stderr


def test_metrics_from_elsewhere_need_a_window_that_is_one(project: Project) -> None:
    """Start after end, and empty names, are refused."""
    assert _checklist(project, "--start", "2024-09-30", "--end", "2024-01-01")[0] == 2
    assert _checklist(project, "--baseline-model", "")[0] == 2


def test_importing_again_says_what_is_replaced(project: Project) -> None:
    """Stored bars are replaced only with a word about it."""
    rows = [f"2023-05-0{day},10,11,9,10,5" for day in (1, 2, 3, 4, 5)]
    (project.root / "A.csv").write_text("\n".join(["date,open,high,low,close,volume", *rows]) + "\n")
    words = ("data", "import", "A.csv", "--symbol", "A", "--market", "us")

    assert "replaces" not in project.sqkit(*words).stdout
    assert "replaces 5 stored bars" in project.sqkit(*words).stdout
    assert project.sqkit("data", "import", "A.csv", "--symbol", "", "--market", "us").returncode == 2


LOOKS_AHEAD = """
import pandas as pd

def centred(frame):
    return pd.DataFrame({"smooth": frame["close"].rolling(5, center=True).mean(), "move": frame["close"].diff()})

def honest(frame):
    return pd.DataFrame({"smooth": frame["close"].rolling(5).mean()})
"""


def test_lookahead_exits_four_when_a_column_knows_the_future(project: Project) -> None:
    """A user's own function on a user's own file: exit 4 and the column, exit 0, or exit 2 in one line."""
    write_market(planted_market(1, 1, 300, "1d", 0.0), project.root / "bars")
    (project.root / "mine.py").write_text(LOOKS_AHEAD)
    words = ("--bars", "bars", "--market", "us")

    biased = project.sqkit("lookahead", "mine:centred", *words)
    honest = project.sqkit("lookahead", "./mine.py:honest", *words, "--json")
    shipped = project.sqkit("lookahead", "swing_v1", *words)
    unknown = project.sqkit("lookahead", "mine:centered", *words)

    assert (biased.returncode, honest.returncode, shipped.returncode) == (4, 0, 0), biased.stderr
    assert "smooth" in biased.stdout
    assert "look-ahead in 1 of 2 columns" in biased.stdout
    assert json.loads(honest.stdout)["ok"] is True
    assert (unknown.returncode, len(unknown.stderr.splitlines())) == (2, 1)
    assert "centred" in unknown.stderr


def test_sealed_days_are_listed(project: Project) -> None:
    """Days are sealed once, listed for people and programs, and by strategy."""
    words = ("holdout", "set", "--strategy", "swing", "--start", "2024-01-01", "--end", "2024-03-31")

    assert project.sqkit("holdout", "list").stdout == "no sealed days\n"
    assert [project.sqkit(*words).returncode for _ in range(2)] == [0, 0]
    assert project.json("holdout", "list") == {
        "openings": [],
        "sealed": [{"strategy": "swing", "start": "2024-01-01", "end": "2024-03-31"}],
    }
    assert project.json("holdout", "list", "--strategy", "intraday")["sealed"] == []
    assert "2024-01-01 to 2024-03-31" in project.sqkit("holdout", "list").stdout


def test_days_that_cannot_be_sealed_are_refused(project: Project) -> None:
    """No dates, no such date and a window that ends before it starts: exit 2, and nothing is sealed."""
    sealing = ("holdout", "set", "--strategy", "swing")
    for words in (
        (),
        ("--start", "2024-02-30", "--end", "2024-03-31"),
        ("--start", "2024-04-01", "--end", "2024-03-31"),
    ):
        run = project.sqkit(*sealing, *words)
        assert (run.returncode, len(run.stderr.splitlines())) == (2, 1)
    assert project.files() == {"candidate.json", "baseline.json"}


def test_a_deleted_ledger_is_exit_four(project: Project) -> None:
    """Sealed days do not come free by deleting the file that remembers them."""
    project.sqkit("holdout", "set", "--strategy", "swing", "--start", "2024-01-01", "--end", "2024-03-31")
    (project.root / "data/models/trials.jsonl").unlink()
    run = project.sqkit("holdout", "list")

    assert (run.returncode, len(run.stderr.splitlines()), run.stdout) == (4, 1, "")
