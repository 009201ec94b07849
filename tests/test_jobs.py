"""The jobs, run as commands: everything in one go, every refusal in one line, nothing left half done."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sqkit.metrics import METRIC_KEYS
from sqkit.report_manifest import verify_manifest
from sqkit.research.notebooks import read_records
from tests.policies import accept, usual
from tests.project import (
    MODEL,
    STUDENT,
    SYMBOLS,
    TEACHER,
    VERSION,
    Project,
    clean_environment,
    planted_project,
    refused,
)

pytestmark = pytest.mark.slow

REPORT = f"reports/{VERSION}-v1"


@pytest.fixture(scope="module")
def validated(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project after ``train-student --validate``: every artifact and report in one go."""
    project = planted_project(tmp_path_factory.mktemp("validated"))
    run = project.sqkit(
        "train-student",
        "--teacher-dir",
        TEACHER,
        "--output-dir",
        STUDENT,
        "--validate",
        "--generate-checklist",
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[0] == "PROMOTE"
    return project


@pytest.fixture
def project(validated: Project, tmp_path: Path) -> Project:
    """A copy of the validated project that a test may spoil."""
    shutil.copytree(validated.root, tmp_path / "project")
    return Project(tmp_path / "project")


def test_one_command_leaves_every_artifact_and_report(validated: Project) -> None:
    """train-student --validate writes all files of the student's folder and both forms of each page."""
    files = validated.files()

    wanted = {
        *(f"{STUDENT}/{name}" for name in ("student_model.onnx", "validation_results.json", "parity.json")),
        *(f"{STUDENT}/{name}" for name in ("validation_accuracy.json", "comparison_baseline.json")),
        *(f"{STUDENT}/promotion_checklist.{kind}" for kind in ("json", "md")),
        f"{STUDENT}/evidence.json",
        f"{STUDENT}/validation_telemetry/PLANT01.parquet",
        *(
            f"{REPORT}/{page}.{kind}"
            for page in ("train", "validate", "checklist")
            for kind in ("html", "md", "ipynb")
        ),
        *(
            f"{REPORT}/figures/validate-{name}.png"
            for name in ("equity", "confidence", "calibration", "confusion")
        ),
        *(f"{REPORT}/figures/checklist-{name}.png" for name in ("uplifts", "symbols")),
        f"{REPORT}/manifest.json",
        "reports/index.html",
        "reports/index.md",
        *(f"data/models/trials.{kind}" for kind in ("jsonl", "head")),
    }
    assert wanted <= files
    assert not [name for name in files if "staging" in name or name.endswith(".tmp")]


def test_the_whole_evidence_is_in_the_checklist(validated: Project) -> None:
    """Every test of the gate has a status, every blocking one passed, the grade and the looks are everywhere."""
    checklist = validated.checklist()
    stored = json.loads((validated.root / STUDENT / "evidence.json").read_text())
    manifest = json.loads((validated.root / REPORT / "manifest.json").read_text())
    evidence = checklist["evidence"]
    status = {record["name"]: (record["kind"], record["status"]) for record in evidence["records"]}

    assert evidence["records"] == stored["records"]
    assert len(evidence["records"]) == len(status)
    assert {name for name, (kind, _) in status.items() if kind == "blocking"} == {
        *(f"first_model.{test}" for test in ("precision", "daily_pnl", "brier", "brier_of_rule")),
        *(f"no_harm.{metric}" for metric in ("precision", "hit_ratio", "sharpe")),
    }
    assert {said for kind, said in status.values() if kind == "blocking"} == {"pass"}
    assert {"sharpe_difference", "calibration.student", "stability.weeks", "dsr", "min_trl"} <= set(status)
    assert len(stored["symbols"]) == SYMBOLS
    assert {item["name"]: item["status"] for item in checklist["integrity"]} == dict.fromkeys(
        ("time_order", "prefix_invariance", "identical_rows", "distinct_models", "out_of_fold_teacher"),
        "pass",
    ) | {"model_fits_run": "pass", "teacher_agrees": "pass", "trial_ledger": "pass", "parity": "pass"}
    assert evidence["trials"] == stored["trials"] == manifest["summary"]["trials"]
    assert (evidence["trials"]["n_trials"], evidence["trials"]["ledger_lines"]) == (1, 2)
    assert evidence["grade"] == stored["grade"] == manifest["summary"]["grade"] == "moderate"


def test_the_plain_line_stands_under_the_verdict(validated: Project) -> None:
    """Sharpe with its interval, what it is worth, the deciding tests, the looks, the grade: in both pages."""
    line = validated.checklist()["evidence"]["summary"]
    written = (validated.root / STUDENT / "promotion_checklist.md").read_text().splitlines()
    page = (validated.root / REPORT / "checklist.md").read_text()

    assert re.match(r"Sharpe \+\d+\.\d % \(95 % CI [+-]\d+ % \.\. [+-]\d+ %\): .+ at \d+ days; ", line)
    assert "first model, no incumbent" in line
    assert line.endswith("; 1 look at this window; grade MODERATE")
    verdict = next(number for number, text in enumerate(written) if text.startswith("**Recommendation**"))
    assert written[verdict + 2] == line
    assert line in page.split("## ")[0], "before the first question"


def test_a_whole_validation_verifies(validated: Project) -> None:
    """sqkit verify computes metrics, evidence and verdict again and finds no difference, exit 0."""
    run = validated.sqkit("verify", STUDENT, "--json")
    outcome = json.loads(run.stdout)

    assert (run.returncode, outcome["status"], outcome["differences"]) == (0, "verified", [])
    assert (outcome["trials"]["n_trials"], outcome["unchecked"]) == (1, [])
    assert {"evidence.json", "promotion_checklist.json"} <= {Path(name).name for name in outcome["read"]}


def test_the_manifest_holds_over_everything_it_names(validated: Project) -> None:
    """Recomputing every digest of the report finds no difference, and an edited page is found."""
    assert verify_manifest(validated.root / REPORT, validated.root) == []


def test_the_manifest_leaves_out_the_page_that_approvals_draw_again(validated: Project) -> None:
    """promotion_checklist.json is named by digest, promotion_checklist.md is not."""
    manifest = json.loads((validated.root / REPORT / "manifest.json").read_text())
    named = {name for name in manifest["artifacts"]["files"] if name.startswith("promotion_checklist")}

    assert named == {"promotion_checklist.json"}


def test_an_edited_page_no_longer_matches_its_manifest(project: Project) -> None:
    """One more space in a signed page is named."""
    page = project.root / REPORT / "checklist.html"
    page.write_text(page.read_text() + " ")

    assert any("checklist.html" in line for line in verify_manifest(project.root / REPORT, project.root))


def test_what_the_notebooks_recorded_equals_what_the_gate_reads(validated: Project) -> None:
    """Recommendation and metrics in the executed notebooks are those of promotion_checklist.json."""
    checklist = json.loads((validated.root / STUDENT / "promotion_checklist.json").read_text())
    decided = read_records(validated.root / REPORT / "checklist.ipynb")
    measured = read_records(validated.root / REPORT / "validate.ipynb")

    assert decided["recommendation"] == checklist["recommendation"]
    assert decided["candidate_metrics"] == measured["candidate_metrics"] == checklist["candidate_metrics"]
    assert decided["baseline_metrics"] == measured["baseline_metrics"] == checklist["baseline_metrics"]


def test_scrapbook_reads_the_records_back(validated: Project) -> None:
    """The values are ordinary scraps for whoever uses scrapbook."""
    code = (
        "import warnings; warnings.simplefilter('ignore')\nimport scrapbook, sys\n"
        "print(scrapbook.read_notebook(sys.argv[1]).scraps['recommendation'].data)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(validated.root / REPORT / "checklist.ipynb")],
        capture_output=True,
        text=True,
        check=True,
    )

    assert run.stdout.strip() == "PROMOTE"


def test_every_page_opens_with_the_verdict_and_its_reason(validated: Project) -> None:
    """The first line of the Markdown says the verdict, and which gate decided."""
    reason = validated.checklist()["reason"]
    for page in ("validate", "checklist"):
        first = (validated.root / REPORT / f"{page}.md").read_text().splitlines()[0]
        assert first == f"**PROMOTE**: {reason}"


def test_a_grade_below_the_policy_is_not_enough(project: Project) -> None:
    """Asked for strong evidence the same validation is INSUFFICIENT_EVIDENCE, exit 3, saying what would suffice."""
    run = project.sqkit(
        "checklist", "--model", MODEL, environment={"SENSEQUANT_PROMOTION_MIN_EVIDENCE": "strong"}
    )

    assert (run.returncode, run.stdout.splitlines()[0]) == (3, "INSUFFICIENT_EVIDENCE"), run.stderr
    first, *_ = (project.root / f"reports/{VERSION}-v2/checklist.md").read_text().splitlines()
    assert first.startswith("**INSUFFICIENT_EVIDENCE**: ")
    assert "grade moderate is below strong (promotion_min_evidence)" in first
    evidence = project.checklist()["evidence"]
    assert re.search(r"\d+ session days", evidence["would_suffice"]), evidence["would_suffice"]
    assert verify_manifest(project.root / f"reports/{VERSION}-v2", project.root) == []


def test_paths_in_the_checklist_are_relative_to_the_project(validated: Project) -> None:
    """The checklist names the model as typed; no absolute path of the machine is in any page."""
    checklist = json.loads((validated.root / STUDENT / "promotion_checklist.json").read_text())

    assert checklist["candidate_model"] == MODEL
    for path in (validated.root / REPORT).rglob("*"):
        if path.suffix in {".html", ".md", ".ipynb", ".json"}:
            assert str(validated.root) not in path.read_text()


def test_validating_again_keeps_the_first_report_and_artifacts(project: Project) -> None:
    """A second validation is v2; v1 does not change by a byte and its artifacts move to validations/v1."""
    before = {path.name: path.read_bytes() for path in (project.root / REPORT).iterdir() if path.is_file()}
    first = (project.root / STUDENT / "promotion_checklist.json").read_bytes()

    run = project.sqkit("validate", "--model", MODEL, "--symbols", "PLANT01", "PLANT02", "PLANT03")

    assert run.returncode in (0, 1, 3), run.stderr
    assert {
        path.name: path.read_bytes() for path in (project.root / REPORT).iterdir() if path.is_file()
    } == before
    assert (project.root / STUDENT / "validations/v1/promotion_checklist.json").read_bytes() == first
    second = project.root / f"reports/{VERSION}-v2"
    assert (second / "train.html").read_bytes() == before["train.html"]
    assert verify_manifest(second, project.root) == []
    assert verify_manifest(project.root / REPORT, project.root) == []


def test_a_checklist_is_rebuilt_from_stored_artifacts_with_other_thresholds(project: Project) -> None:
    """--generate-checklist alone decides again; missed thresholds are REJECT with exit code 1."""
    words = ("--teacher-dir", TEACHER, "--output-dir", STUDENT, "--generate-checklist")

    run = project.sqkit("train-student", *words, "--precision-uplift-threshold", "0.9")

    assert run.returncode == 1, run.stderr
    assert run.stdout.startswith("REJECT\nPrecision uplift")
    for number in (1, 2):
        assert verify_manifest(project.root / f"reports/{VERSION}-v{number}", project.root) == []


def test_without_evidence_asked_thresholds_alone_promote(project: Project) -> None:
    """With promotion_min_evidence=none a run that passes its thresholds is PROMOTE and exits 0."""
    run = project.sqkit(
        "checklist", "--model", MODEL, environment={"SENSEQUANT_PROMOTION_MIN_EVIDENCE": "none"}
    )

    assert (run.returncode, run.stdout.splitlines()[0]) == (0, "PROMOTE"), run.stderr


def test_training_the_same_student_again_trains_nothing(project: Project) -> None:
    """A repeated command finds the same student and leaves model and report as they are."""
    model = (project.root / MODEL).stat().st_mtime_ns

    run = project.sqkit("train-student", "--teacher-dir", TEACHER, "--output-dir", STUDENT)

    assert run.returncode == 0, run.stderr
    assert "trained already" in run.stderr
    assert (project.root / MODEL).stat().st_mtime_ns == model


def test_metrics_from_elsewhere_never_replace_a_real_checklist(project: Project) -> None:
    """sqkit checklist --candidate-metrics into a validated student's folder is a conflict, exit 5."""
    metrics = json.dumps(dict.fromkeys(METRIC_KEYS, 0.5))
    (project.root / "metrics.json").write_text(metrics)
    words = ["checklist", "--candidate-metrics", "metrics.json", "--baseline-metrics", "metrics.json"]

    refused(project, 5, [*words, "--output-dir", STUDENT], "holds the validation of a student")


def test_a_checklist_is_never_rebuilt_for_another_model(project: Project) -> None:
    """With another model under the name of the validated one the rebuild is refused, exit 4."""
    shutil.move(project.root / MODEL, project.root / "first.onnx")
    trained = project.sqkit(
        *("train-student", "--teacher-dir", TEACHER, "--output-dir", f"data/models/{VERSION}/student"),
        *("--model-type", "logistic"),
        environment={"SENSEQUANT_REPORTS_DIR": "elsewhere"},
    )
    assert trained.returncode == 0, trained.stderr

    refused(project, 4, ["checklist", "--model", MODEL], "is not the model that was validated here")


def test_two_students_of_one_version_never_share_a_page(project: Project) -> None:
    """A second student of a validated version cannot take its report's name, exit 5, nothing is published."""
    other = f"data/models/{VERSION}/other"
    words = ["train-student", "--teacher-dir", TEACHER, "--output-dir", other, "--model-type", "logistic"]

    refused(project, 5, words, "has been validated")


def test_the_place_of_the_bars_is_in_no_page_and_no_digest(project: Project) -> None:
    """The same bars in another place give the same pages; the place itself is nowhere in the report."""
    shutil.copytree(project.root / "data/bars/1d", project.root / "somewhere-else")

    run = project.sqkit("validate", "--model", MODEL, "--bars", "somewhere-else")

    assert run.returncode == 0, run.stderr
    first, second = project.root / REPORT, project.root / f"reports/{VERSION}-v2"
    for name in ("validate.html", "validate.md", "validate.ipynb", "checklist.html", "manifest.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_bars_given_for_training_are_those_of_the_validation(project: Project) -> None:
    """A student outside the teacher's version folder is validated on the teacher's bars."""
    shutil.move(project.root / "data/bars/1d", project.root / "mybars")
    output = "elsewhere/20210101_000000/student"

    run = project.sqkit(
        *("train-student", "--teacher-dir", TEACHER, "--output-dir", output, "--validate", "--bars", "mybars")
    )

    assert run.returncode == 0, run.stderr
    assert (project.root / output / "promotion_checklist.json").is_file()


def test_a_broken_report_does_not_hide_the_others(project: Project) -> None:
    """The index lists a run whose manifest cannot be read as such."""
    broken = project.root / f"reports/{VERSION}-v7"
    broken.mkdir()
    (broken / "manifest.json").write_text("{}")

    run = project.sqkit("report")

    assert run.returncode == 0, run.stderr
    assert f"{VERSION}-v7: manifest.json or train.ipynb cannot be read" in run.stdout


def test_a_second_student_never_overwrites_the_first(project: Project) -> None:
    """Another kind in the same folder is a conflict, exit 5."""
    words = ["train-student", "--teacher-dir", TEACHER, "--output-dir", STUDENT, "--model-type", "logistic"]

    refused(project, 5, words, "never overwritten")


def test_a_signed_checklist_is_never_overwritten(project: Project) -> None:
    """With approvals beside it a student is not validated again, exit 5."""
    (project.root / STUDENT / "approvals.json").write_text("[]")

    refused(project, 5, ["validate", "--model", MODEL], "carries approvals")


def test_a_run_is_judged_by_the_accepted_policy(project: Project) -> None:
    """Once a policy is accepted a run that sets nothing is judged by it; a looser setting counts and is marked."""
    accept(project.root, usual(min_evidence="strong"))

    run = project.sqkit("checklist", "--model", MODEL)

    assert (run.returncode, run.stdout.splitlines()[0]) == (3, "INSUFFICIENT_EVIDENCE"), run.stderr
    checklist = project.checklist()
    assert checklist["policy"] == usual(min_evidence="strong").to_dict()
    assert checklist["digests"]["policy"] == checklist["digests"]["policy_in_force"]
    assert not [line for line in checklist["verdict_reasons"] if "not promotable" in line]

    weaker = {"SENSEQUANT_PROMOTION_MIN_EVIDENCE": "moderate"}
    run = project.sqkit("checklist", "--model", MODEL, environment=weaker)

    assert (run.returncode, run.stdout.splitlines()[0]) == (0, "PROMOTE"), run.stderr
    mark = "not promotable under this policy: SENSEQUANT_PROMOTION_MIN_EVIDENCE=moderate is looser than strong in force"
    assert mark in project.checklist()["verdict_reasons"]
    page = (project.root / f"reports/{VERSION}-v3/checklist.md").read_text()
    assert mark in page.split("## ")[0], "before the first question"
    assert verify_manifest(project.root / f"reports/{VERSION}-v3", project.root) == []
    outcome = project.json("verify", STUDENT)
    assert (outcome["status"], outcome["unchecked"]) == ("verified", [])


def test_a_broken_audit_log_stops_a_decision_before_it_starts(project: Project) -> None:
    """Which policy is in force is not known: exit 4, no kernel, no file."""
    accept(project.root, usual())
    log = project.root / "data/models/audit.jsonl"
    log.write_text(log.read_text().replace("Ann", "Eve"))

    for words in (["validate", "--model", MODEL], ["checklist", "--model", MODEL]):
        refused(project, 4, words, "line 1 was edited")


@pytest.mark.parametrize(
    ("code", "words", "line"),
    [
        (4, ["--start", "2012-06-01"], "has seen bars up to"),
        (2, ["--symbols", "PLANT01", "NOBODY"], "NOBODY"),
        (2, ["--start", "2031-01-01"], "no bar"),
        (2, ["--start", "2014-06-01", "--end", "2014-05-01"], "start must not be after end"),
        (2, ["--start", "yesterday"], "write YYYY-MM-DD"),
        (2, ["--bars", "nowhere"], "nowhere"),
        (2, ["--symbols", "PLANT01", "PLANT01"], "twice"),
        (2, ["--symbols", "../../etc/passwd"], "symbol"),
        (2, ["--baseline-model", "none.onnx"], "no such baseline model"),
        (4, ["--baseline-model", MODEL], "same file"),
        (2, ["--precision-uplift-threshold", "nan"], "nan"),
        (2, ["--unknown-flag"], "unknown-flag"),
        (2, ["--symbols", "X" * 300], "symbol"),
        (2, ["--bars", "s3://nowhere/bars"], "s3://nowhere/bars"),
    ],
)
def test_bad_input_is_one_clear_line_and_changes_nothing(
    project: Project, code: int, words: list[str], line: str
) -> None:
    """Refused before any kernel starts, with the right exit code, no traceback and no new file."""
    refused(project, code, ["validate", "--model", MODEL, *words], line)


def test_a_validation_that_overlaps_is_refused_before_training(project: Project) -> None:
    """train-student --validate does not train first and refuse later."""
    words = ["train-student", "--teacher-dir", TEACHER, "--output-dir", f"data/models/{VERSION}/other"]

    refused(project, 4, [*words, "--validate", "--validation-start", "2012-06-01"], "has seen bars up to")


def test_a_missing_baseline_is_refused_before_training(project: Project) -> None:
    """A typing mistake in --baseline-model costs no training."""
    words = ["train-student", "--teacher-dir", TEACHER, "--output-dir", f"data/models/{VERSION}/other"]

    refused(project, 2, [*words, "--validate", "--baseline-model", "none.onnx"], "no such baseline model")


def test_a_bad_threshold_or_fee_schedule_is_refused_before_training(project: Project) -> None:
    """What would be refused after training is refused before it."""
    words = [
        "train-student",
        "--teacher-dir",
        TEACHER,
        "--output-dir",
        f"data/models/{VERSION}/other",
        "--validate",
    ]

    refused(project, 2, [*words, "--precision-uplift-threshold", "nan"], "nan")
    refused(project, 2, words, "COST_SCHEDULE", environment={"SENSEQUANT_COST_SCHEDULE": "free"})


def test_a_symbol_with_less_history_than_the_warm_up_isrefused(project: Project) -> None:
    """The line says how many bars are missing; no kernel was started."""
    import pandas as pd

    path = project.root / "data/bars/1d/PLANT02.parquet"
    pd.read_parquet(path).iloc[-60:].to_parquet(path)

    refused(project, 2, ["validate", "--model", MODEL], "give 41 more bars")


def test_a_nan_price_is_refused_with_its_place(project: Project) -> None:
    """A price that is not a number stops the run and names symbol and row."""
    import pandas as pd

    path = project.root / "data/bars/1d/PLANT02.parquet"
    frame = pd.read_parquet(path)
    frame.loc[480, "close"] = float("nan")
    frame.to_parquet(path)

    refused(project, 2, ["validate", "--model", MODEL], "PLANT02")


class _Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.system, ("touch executed",))


@pytest.mark.parametrize("name", ["model.pkl", "model.onnx"])
def test_a_hostile_pickle_runs_nothing(project: Project, name: str) -> None:
    """Under whatever name: refused with the way out, and its code did not run."""
    (project.root / name).write_bytes(pickle.dumps(_Hostile()))

    refused(project, 2, ["validate", "--model", name], "pickle")
    refused(project, 2, ["inspect", name], "pickle")

    assert not (project.root / "executed").exists()


def test_a_file_that_is_not_onnx_isrefused(project: Project) -> None:
    """Text under the name of a model is not a model."""
    (project.root / "model.onnx").write_text("no model")

    refused(project, 2, ["validate", "--model", "model.onnx"], "model.onnx")


def test_changed_predictions_are_an_integrity_failure(project: Project) -> None:
    """A checklist is never rebuilt from prediction files that differ from their digests, exit 4."""
    telemetry = project.root / STUDENT / "validation_telemetry"
    shutil.copyfile(telemetry / "PLANT01.parquet", telemetry / "PLANT02.parquet")

    refused(project, 4, ["checklist", "--model", MODEL], "PLANT02.parquet")


def test_a_read_only_reports_folder_publishes_nothing(
    project: Project, without_root_rights: list[str]
) -> None:
    """Without rights the run ends in one line, exit 2, and the student's folder is unchanged."""
    (project.root / "reports").chmod(0o555)
    try:
        refused(
            project,
            2,
            ["validate", "--model", MODEL],
            "no permission to write here",
            prefix=without_root_rights,
        )
    finally:
        (project.root / "reports").chmod(0o755)


def test_a_disk_that_fills_up_publishes_nothing(project: Project) -> None:
    """A real limit on file size in the middle of the run: one line, exit 2, no half-written file."""
    limit = ["bash", "-c", 'trap "" XFSZ; ulimit -f 8; exec "$@"', "limited"]

    refused(project, 2, ["validate", "--model", MODEL], "file size limit", prefix=limit)


def test_an_interrupted_run_leaves_nothing(project: Project) -> None:
    """Ctrl-C while a notebook runs: exit 130, one line, no staging folder, no kernel left."""
    before = project.files()
    with subprocess.Popen(
        [sys.executable, "-m", "sqkit.cli", "validate", "--model", MODEL],
        cwd=project.root,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(),
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "out of sample" in line:
                break
        os.killpg(process.pid, signal.SIGINT)
        said = process.stderr.read()

    assert process.wait(timeout=60) == 130
    assert "interrupted" in said
    assert "Traceback" not in said
    assert project.files() == before
    time.sleep(0.5)
    kernels = subprocess.run(
        ["pgrep", "-f", f"ipykernel.*{project.root}"], capture_output=True, text=True, check=False
    )
    assert kernels.stdout == ""


def test_nothing_is_written_into_the_home_folder(project: Project, tmp_path: Path) -> None:
    """Loading and judging leaves no cache, no device id, no telemetry; whoever loads matplotlib has its font list."""
    fonts = (".cache/matplotlib/fontlist-",)
    home = tmp_path / "home"
    home.mkdir()

    for words, allowed in (
        (("inspect", MODEL), ()),
        (("verify", STUDENT), fonts),  # arch loads it
        (("checklist", "--model", MODEL), fonts),
    ):
        run = project.sqkit(*words, environment={"HOME": str(home)})

        assert run.returncode == 0, run.stderr
        left = [path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()]
        assert [name for name in left if not name.startswith(allowed)] == []


def test_two_runs_in_one_folder_do_not_mix(project: Project) -> None:
    """While one process holds the student's folder another is refused with exit 5."""
    import fcntl

    with open(project.root / STUDENT / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        refused(project, 5, ["validate", "--model", MODEL], "another process")
