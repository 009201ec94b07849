"""Verification: an untouched folder verifies, every tampering is named, nothing ends in a traceback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sqkit.artifacts import (
    ACCURACY_FILE,
    CHECKLIST_FILE,
    CHECKLIST_PAGE,
    COMPARISON_FILE,
    EVIDENCE_FILE,
    PARITY_FILE,
    RESULTS_FILE,
    TELEMETRY_FOLDER,
    VERIFICATION_FILE,
)
from sqkit.checklist import Policy, generate_promotion_checklist, render_markdown
from sqkit.errors import UsageError
from sqkit.files import read_json, sha256_file, write_json
from sqkit.metrics import METRIC_KEYS
from sqkit.model_file import STUDENT_FILE
from sqkit.policy_in_force import held_against, policy_digest
from sqkit.research.decision import decide
from sqkit.research.manifest import SUMMARY_KEYS, NotebookRun, write_manifest
from sqkit.research.verification import verification_lines, verify, write_verification
from tests.market import DECIDED_AT, VERSION, Market, copy_validation, settings_of, validate, verdict
from tests.policies import accept, usual
from tests.project import STUDENT, TEACHER, Project, planted_project
from tests.small_student import write_student

Edit = Callable[[Any], None]


@pytest.fixture(scope="session")
def decided(planted: Market, validated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student's folder as a validation leaves it: model, artifacts, decision; read only."""
    folder = copy_validation(validated, tmp_path_factory.mktemp("decided") / "student")
    shutil.copy(planted.students["gradient_boosting"], folder / STUDENT_FILE)
    verdict(folder, folder)
    return folder


@pytest.fixture
def folder(decided: Path, tmp_path: Path) -> Path:
    """A copy of it that may be changed."""
    return Path(shutil.copytree(decided, tmp_path / "student"))


def _edit(path: Path, edit: Edit) -> None:
    value = read_json(path)
    edit(value)
    write_json(path, value)


def _found(folder: Path) -> list[str]:
    """The differences of a folder, as printed; the outcome's parts agree with each other."""
    outcome = verify(folder, reports_dir=folder / "no reports")
    lines = verification_lines(folder, outcome)
    assert outcome["status"] == ("differs" if outcome["differences"] else "verified")
    assert not any(str(folder) in difference["what"] for difference in outcome["differences"])
    return lines[: len(outcome["differences"])]


def test_an_untouched_folder_verifies(folder: Path) -> None:
    """No difference; every file of model, validation and decision is read but the page, and nothing else."""
    (folder / "approvals.json").write_text("of a later step")
    outcome = verify(folder, reports_dir=folder / "no reports")

    assert (outcome["status"], outcome["differences"]) == ("verified", [])
    expected = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert set(outcome["read"]) == expected - {"approvals.json", CHECKLIST_PAGE}
    assert outcome["read"][RESULTS_FILE] == sha256_file(folder / RESULTS_FILE)


def test_the_same_folder_gives_the_same_bytes(folder: Path) -> None:
    """Verifying again, with verification.json there, writes the same file, and it names no place."""
    places = [folder, folder.parent / "other"]
    shutil.copytree(folder, places[1])
    written = []
    for place in (*places, *places):
        assert write_verification(place, verify(place, reports_dir=Path("nowhere"))) == ""
        written.append((place / VERIFICATION_FILE).read_bytes())

    assert len(set(written)) == 1
    assert str(folder.parent).encode() not in written[0]


def test_the_kept_trial_count_is_used(folder: Path) -> None:
    """The count is the one the validation kept, not one that is counted now."""
    kept = read_json(folder / RESULTS_FILE)["trials"]

    said = verify(folder)["trials"]
    assert said == {name: kept[name] for name in ("n_trials", "looks", "ledger_lines", "ledger_head")}

    _edit(folder / RESULTS_FILE, lambda r: r["trials"].update(n_trials=kept["n_trials"] + 5))
    assert any(
        "promotion_checklist.json: evidence: trials: n_trials: stored" in line for line in _found(folder)
    )


CHECKLIST_EDITS: dict[str, tuple[Edit, str]] = {
    "a metric": (
        lambda c: c["candidate_metrics"].update(precision_long=0.9),
        "promotion_checklist.json: candidate_metrics: precision_long: stored 0.9, computed 0.",
    ),
    "a metric by a little": (
        lambda c: c["baseline_metrics"].update(sharpe_ratio=c["baseline_metrics"]["sharpe_ratio"] + 1e-6),
        "promotion_checklist.json: baseline_metrics: sharpe_ratio: stored",
    ),
    "an undefined metric": (
        lambda c: c["candidate_metrics"].update(win_rate=None),
        "promotion_checklist.json: candidate_metrics: win_rate: stored null, computed 0.",
    ),
    "the recommendation": (
        lambda c: c.update(recommendation="PROMOTE" if c["recommendation"] != "PROMOTE" else "REJECT"),
        "promotion_checklist.json: recommendation: stored",
    ),
    "the reason": (lambda c: c.update(reason="Because."), 'reason: stored "Because."'),
    "the reasons": (
        lambda c: c["verdict_reasons"].append("and more"),
        "promotion_checklist.json: verdict_reasons: stored",
    ),
    "a delta": (
        lambda c: c["deltas"].update(hit_ratio_uplift=0.5),
        "promotion_checklist.json: deltas: hit_ratio_uplift: stored 0.5, computed",
    ),
    "an unrounded delta": (
        lambda c: c["evidence"]["deltas"].update(hit_ratio_uplift=0.5),
        "promotion_checklist.json: evidence: deltas: hit_ratio_uplift: stored 0.5, computed",
    ),
    "a criterion": (
        lambda c: c["validation_results"].update(sharpe_pass=not c["validation_results"]["sharpe_pass"]),
        "promotion_checklist.json: validation_results: sharpe_pass: stored",
    ),
    "a threshold of the policy": (
        lambda c: c["policy"].update(min_precision_uplift=0.001),
        "promotion_checklist.json: validation_thresholds: min_precision_uplift: stored 0.02, computed 0.001",
    ),
    "the counts of data": (
        lambda c: c["evidence"]["adequacy"].update(candidate_calls=10**6),
        "promotion_checklist.json: evidence: adequacy: candidate_calls: stored 1000000, computed",
    ),
    "the grade": (
        lambda c: c["evidence"].update(grade="strong" if c["evidence"]["grade"] != "strong" else "weak"),
        "promotion_checklist.json: evidence: grade: stored",
    ),
    "a context row": (
        lambda c: c["evidence"]["context"][0].update(candidate=0.5),
        "promotion_checklist.json: evidence: context[0]: candidate: stored 0.5, computed",
    ),
    "the line under the verdict": (
        lambda c: c["evidence"].update(summary="Certain."),
        'promotion_checklist.json: evidence: summary: stored "Certain."',
    ),
    "an integrity item": (
        lambda c: c["integrity"][0].update(
            status="fail" if c["integrity"][0]["status"] == "pass" else "pass"
        ),
        "promotion_checklist.json: integrity[time_order]: status: stored",
    ),
    "an integrity item left out": (
        lambda c: c["integrity"].pop(0),
        "promotion_checklist.json: integrity: stored",
    ),
    "a digest": (
        lambda c: c["digests"].update(data="0" * 64),
        "promotion_checklist.json: digests: data: stored",
    ),
    "the window": (
        lambda c: c["validation_period"].update(start="2001-01-01"),
        'promotion_checklist.json: validation_period: start: stored "2001-01-01"',
    ),
    "the runtime": (
        lambda c: c["runtime"].update(confidence_threshold=0.5),
        "promotion_checklist.json: runtime: confidence_threshold: stored 0.5, computed 0.6",
    ),
    "a part added": (
        lambda c: c.update(signed=True),
        "promotion_checklist.json: signed: does not follow from the stored files: stored true",
    ),
    "a part missing": (lambda c: c.pop("deltas"), "promotion_checklist.json: deltas: missing"),
}


@pytest.mark.parametrize("case", CHECKLIST_EDITS)
def test_a_changed_checklist_is_named(folder: Path, case: str) -> None:
    """Each part of the checklist is held against what the stored predictions, returns and policy give."""
    edit, said = CHECKLIST_EDITS[case]
    checklist = read_json(folder / CHECKLIST_FILE)
    edit(checklist)
    (folder / CHECKLIST_FILE).write_text(json.dumps(checklist))
    outcome = verify(folder)

    assert any(said in line for line in verification_lines(folder, outcome)), outcome["differences"]
    assert write_verification(folder, outcome) == ""


def test_a_changed_policy_is_judged_by_and_named(folder: Path) -> None:
    """A threshold nobody reaches makes the stored verdict wrong, whatever it was."""
    _edit(folder / CHECKLIST_FILE, lambda c: c["policy"].update(min_sharpe=100.0))

    assert any('recommendation: stored "' in line and '"REJECT"' in line for line in _found(folder))


def test_every_record_of_the_evidence_is_computed_again(folder: Path) -> None:
    """A changed number in any record is named by the record and the number."""
    records = read_json(folder / CHECKLIST_FILE)["evidence"]["records"]
    numbers = {
        (record["name"], key)
        for record in records
        for key in ("estimate", "se", "p_value")
        if record[key] is not None
    }

    def edit(checklist: Any) -> None:
        for record in checklist["evidence"]["records"]:
            record.update({key: 0.0314 for key in ("estimate", "se", "p_value") if record[key] is not None})

    _edit(folder / CHECKLIST_FILE, edit)
    found = _found(folder)

    assert {name for name, _ in numbers} >= {"first_model.precision", "first_model.brier"}
    for name, key in numbers:
        place = f"promotion_checklist.json: evidence: records[{name}]: {key}: stored 0.0314, computed"
        assert any(line.startswith(place) for line in found), place


RESULT_EDITS: dict[str, tuple[Edit, str]] = {
    "one daily return": (
        lambda r: r["daily_returns"]["candidate"].update({min(r["daily_returns"]["candidate"]): 0.05}),
        "validation_results.json: metrics: candidate: sharpe_ratio: stored",
    ),
    "one daily return of the baseline": (
        lambda r: r["daily_returns"]["baseline"].update({min(r["daily_returns"]["baseline"]): -0.05}),
        "validation_results.json: metrics: baseline: total_return: stored",
    ),
    "one daily return of buy and hold": (
        lambda r: r["daily_returns"]["buy_and_hold"].update({min(r["daily_returns"]["buy_and_hold"]): 0.5}),
        "validation_results.json: metrics: buy_and_hold: total_return: stored",
    ),
    "a stored Sharpe ratio": (
        lambda r: r["metrics"]["candidate"].update(sharpe_ratio=9.0),
        "validation_results.json: metrics: candidate: sharpe_ratio: stored 9.0, computed",
    ),
    "the runtime": (
        lambda r: r["runtime"].update(dead_zone=0.1),
        "validation_results.json: digests: runtime: stored",
    ),
    "a digest of a file": (
        lambda r: r["files"][0].update(digest="0" * 64),
        "its columns differ from the digest",
    ),
    "a count of rows": (
        lambda r: r["files"][0].update(rows=7),
        "rows: stored 7, computed",
    ),
    "a symbol's fees": (
        lambda r: r["symbols"]["PLANT01"]["candidate"].update(fees=0.0),
        "validation_results.json: symbols: PLANT01: candidate: fees: stored 0.0, computed",
    ),
    "a symbol's sessions": (
        lambda r: r["symbols"]["PLANT02"].update(sessions=1),
        "validation_results.json: symbols: PLANT02: sessions: stored 1, computed",
    ),
    "a symbol's summary left out": (
        lambda r: r["symbols"].pop("PLANT03"),
        "validation_results.json: symbols: stored",
    ),
    "a file left out": (lambda r: r["files"].pop(0), "not listed in validation_results.json"),
    "the model's digest": (
        lambda r: r["digests"].update(model="0" * 64),
        "student_model.onnx: digest: stored",
    ),
    "the model's behaviour": (
        lambda r: r["digests"].update(model_behaviour="0" * 64),
        "student_model.onnx: behaviour: stored",
    ),
    "what the results say of the model": (
        lambda r: r["models"]["candidate"].update(training_base_rate=0.123),
        "student_model.onnx: facts: training_base_rate: stored 0.123, computed",
    ),
    "the model's training window": (
        lambda r: r["training_window"].update(end="2001-01-01"),
        "student_model.onnx: training_window: end: stored",
    ),
}


@pytest.mark.parametrize("case", RESULT_EDITS)
def test_changed_results_are_named(folder: Path, case: str) -> None:
    """Each stored result is held against the returns, files and model that it follows from."""
    edit, said = RESULT_EDITS[case]
    _edit(folder / RESULTS_FILE, edit)

    assert any(said in line for line in _found(folder)), _found(folder)


def _swap(folder: Path) -> None:
    first, second = sorted(path for path in (folder / TELEMETRY_FOLDER).iterdir() if "@" not in path.name)[:2]
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


def _flip_a_call(folder: Path) -> None:
    path = min(path for path in (folder / TELEMETRY_FOLDER).iterdir() if "@" not in path.name)
    table = pq.read_table(path, partitioning=None)
    place = table.column_names.index("student_prediction")
    calls = table.column(place).to_numpy().copy()
    calls[np.argmax(calls != 0)] *= -1
    pq.write_table(table.set_column(place, "student_prediction", pa.array(calls)), path)


def _other_model(folder: Path) -> None:
    (folder / STUDENT_FILE).write_bytes((folder / STUDENT_FILE).read_bytes()[:-1])


FILE_EDITS: dict[str, tuple[Callable[[Path], object], str]] = {
    "two prediction files swapped": (_swap, "its columns differ from the digest"),
    "one call turned": (_flip_a_call, "its columns differ from the digest"),
    "a prediction file that is none": (
        lambda f: min((f / TELEMETRY_FOLDER).iterdir()).write_bytes(b"PAR1"),
        "cannot be read as sqkit records",
    ),
    "a prediction file missing": (lambda f: min((f / TELEMETRY_FOLDER).iterdir()).unlink(), "is missing"),
    "a file beside the predictions": (
        lambda f: (f / TELEMETRY_FOLDER / "more.parquet").write_bytes(b""),
        "validation_telemetry/more.parquet: not listed in validation_results.json",
    ),
    "no predictions at all": (
        lambda f: shutil.rmtree(f / TELEMETRY_FOLDER),
        "validation_telemetry: missing",
    ),
    "another model file": (_other_model, "student_model.onnx: digest: stored"),
    "no model file": (lambda f: (f / STUDENT_FILE).unlink(), "student_model.onnx: missing"),
    "accuracy edited": (
        lambda f: _edit(f / ACCURACY_FILE, lambda a: a["candidate"]["all_rows"].update(accuracy=0.99)),
        "validation_accuracy.json: candidate: all_rows: accuracy: stored 0.99, computed",
    ),
    "comparison edited": (
        lambda f: _edit(
            f / COMPARISON_FILE, lambda c: c["acted_on_rows"]["candidate"].update(hit_ratio=0.99)
        ),
        "comparison_baseline.json: acted_on_rows: candidate: hit_ratio: stored 0.99, computed",
    ),
    "parity edited": (
        lambda f: _edit(
            f / PARITY_FILE, lambda p: p.update(status="pass" if p["status"] != "pass" else "fail")
        ),
        "promotion_checklist.json: integrity[parity]: status: stored",
    ),
    "the evidence edited": (
        lambda f: _edit(f / EVIDENCE_FILE, lambda e: e["records"][0].update(p_value=0.0314)),
        "]: p_value: stored 0.0314, computed",
    ),
    "the evidence's grade": (
        lambda f: _edit(f / EVIDENCE_FILE, lambda e: e.update(grade="certain")),
        'evidence.json: grade: stored "certain", computed',
    ),
    "the evidence's line": (
        lambda f: _edit(f / EVIDENCE_FILE, lambda e: e.update(summary="Certain.")),
        'evidence.json: summary: stored "Certain."',
    ),
    "a Markdown line edited": (
        lambda f: (f / CHECKLIST_PAGE).write_text(
            (f / CHECKLIST_PAGE).read_text().replace("Candidate", "Favourite", 1)
        ),
        "promotion_checklist.md: line ",
    ),
    "a Markdown line added": (
        lambda f: (f / CHECKLIST_PAGE).write_text((f / CHECKLIST_PAGE).read_text() + "Promote it.\n"),
        'stored "Promote it."',
    ),
    "Markdown that is no text": (
        lambda f: (f / CHECKLIST_PAGE).write_bytes(b"\xff"),
        "another form than sqkit",
    ),
    "the checklist cut": (
        lambda f: (f / CHECKLIST_FILE).write_text('{"policy":'),
        "promotion_checklist.json",
    ),
    "the checklist a list": (lambda f: (f / CHECKLIST_FILE).write_text("[]"), "is no checklist"),
    "the checklist endless": (lambda f: (f / CHECKLIST_FILE).write_text("[" * 200_000), "not strict JSON"),
    "the checklist no text": (lambda f: (f / CHECKLIST_FILE).write_bytes(b"\xff\xfe"), "not strict JSON"),
    "a number out of range": (
        lambda f: (f / CHECKLIST_FILE).write_text(
            (f / CHECKLIST_FILE).read_text().replace('"recommendation"', '"x": 1e999, "recommendation"', 1)
        ),
        "promotion_checklist.json: x: does not follow from the stored files",
    ),
    "the results empty": (lambda f: (f / RESULTS_FILE).write_text("{}"), "validation_results.json: lacks"),
    "results of another form": (
        lambda f: _edit(
            f / RESULTS_FILE, lambda r: r.update(daily_returns=[1], files={"a": 1}, runtime=None)
        ),
        "another form than sqkit writes",
    ),
    "returns that are words": (
        lambda f: _edit(
            f / RESULTS_FILE, lambda r: r["daily_returns"].update(candidate={"2020-01-01": "much"})
        ),
        "another form than sqkit writes",
    ),
    "returns beyond all numbers": (
        lambda f: _edit(
            f / RESULTS_FILE,
            lambda r: r["daily_returns"].update(
                candidate=dict.fromkeys(r["daily_returns"]["candidate"], 1e308)
            ),
        ),
        "validation_results.json: metrics: candidate",
    ),
} | {
    f"{name} missing": (lambda f, name=name: (f / name).unlink(), f"{name}: missing")  # type: ignore[misc]
    for name in (
        RESULTS_FILE,
        ACCURACY_FILE,
        COMPARISON_FILE,
        PARITY_FILE,
        CHECKLIST_FILE,
        CHECKLIST_PAGE,
        EVIDENCE_FILE,
    )
}


@pytest.mark.parametrize("case", FILE_EDITS)
def test_a_changed_file_is_named(folder: Path, case: str) -> None:
    """Swapped, damaged, edited, added and missing files are differences, each with its name."""
    edit, said = FILE_EDITS[case]
    edit(folder)

    assert any(said in line for line in _found(folder)), _found(folder)
    assert write_verification(folder, verify(folder)) == ""


def test_a_pickle_is_never_loaded(folder: Path, tmp_path: Path) -> None:
    """A pickle under the model's name is a difference, and what it would run does not run."""
    trap = tmp_path / "ran"
    code = f"cos\nsystem\n(S'touch {trap}'\ntR."
    for name in (STUDENT_FILE, RESULTS_FILE, CHECKLIST_FILE):
        copy = tmp_path / f"with {name}"
        shutil.copytree(folder, copy)
        (copy / name).write_bytes(code.encode())
        assert _found(copy)
    assert not trap.exists()


def _from_elsewhere() -> dict[str, Any]:
    metrics = dict(zip(METRIC_KEYS, (0.7, 0.7, 0.7, 1.0, 0.1, 0.1, 0.6), strict=True))
    return generate_promotion_checklist(
        timestamp=DECIDED_AT,
        candidate_model=None,
        baseline_model=None,
        start=None,
        end=None,
        symbols=None,
        candidate_metrics=metrics,
        baseline_metrics=metrics,
        policy=usual(),
        adequacy=None,
    )


def test_metrics_from_elsewhere_are_verified_as_far_as_they_go(tmp_path: Path) -> None:
    """Without predictions the checklist itself is verified, and the outcome says so."""
    checklist = _from_elsewhere()
    write_json(tmp_path / CHECKLIST_FILE, checklist)
    (tmp_path / CHECKLIST_PAGE).write_text(render_markdown(checklist))
    outcome = verify(tmp_path)
    assert outcome["status"] == "verified"
    assert "metrics from elsewhere" in outcome["notes"][0]

    _edit(tmp_path / CHECKLIST_FILE, lambda c: c["candidate_metrics"].update(accuracy=0.8, hit_ratio=0.9))
    assert any("deltas" in line for line in _found(tmp_path))


def test_a_validation_whose_results_were_taken_away_is_not_from_elsewhere(folder: Path) -> None:
    """A checklist that names a model or predictions needs them."""
    (folder / RESULTS_FILE).unlink()
    shutil.rmtree(folder / TELEMETRY_FOLDER)

    assert f"{RESULTS_FILE}: missing" in _found(folder)


@pytest.fixture
def reported(folder: Path) -> Path:
    """The project of a student's folder that a report names: its root; the report has one page."""
    root = folder.parent
    run = root / "reports" / f"{VERSION}-v1"
    run.mkdir(parents=True)
    for suffix in ("html", "ipynb", "md"):
        (run / f"checklist.{suffix}").write_text("a page")
    decided = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.name != STUDENT_FILE]
    write_manifest(
        run,
        version=VERSION,
        notebooks={"checklist": NotebookRun(run / "checklist.ipynb", {})},
        artifacts_folder=folder,
        artifacts_name="student",
        artifacts=[name for name in decided if (folder / name).is_file()],
        summary=dict.fromkeys(SUMMARY_KEYS, "") | {"symbols": []},
    )
    return root


def _against_the_report(root: Path, name: str = "student") -> dict[str, Any]:
    return verify(root / name, reports_dir=root / "reports", root=root)


NO_LEDGER = "no trial ledger lies above this folder; nothing there could be asked"


class TestReport:
    """What no file of the folder can tell by itself, the manifest of its report tells."""

    def test_an_untouched_report(self, reported: Path) -> None:
        """Folder and report agree, and no note says that the report was not found."""
        outcome = _against_the_report(reported)
        assert (outcome["differences"], outcome["notes"]) == ([], [NO_LEDGER])

    def test_no_report(self, folder: Path) -> None:
        """Without a report that names the folder the outcome says so."""
        notes = verify(folder, reports_dir=folder / "no reports")["notes"]
        assert notes[0] == NO_LEDGER
        assert "names these artifacts" in notes[1]

    def test_a_decision_made_up_consistently(self, reported: Path) -> None:
        """Deciding again under a lower bar, every file of it, differs from what the report says."""
        verdict(reported / "student", reported / "student", min_evidence="none", min_precision_uplift=-1.0)
        found = [difference["what"] for difference in _against_the_report(reported)["differences"]]

        assert "student/promotion_checklist.json: changed since the report was made" in found
        assert all("changed since the report was made" in line for line in found)

    def test_an_edited_page(self, reported: Path) -> None:
        """The report's own pages are held against it as well."""
        (reported / "reports" / f"{VERSION}-v1" / "checklist.html").write_text("another page")
        found = [difference["what"] for difference in _against_the_report(reported)["differences"]]

        assert found == [f"{VERSION}-v1/checklist.html: changed since the report was made"]

    def test_an_edited_manifest(self, reported: Path) -> None:
        """A manifest that is none any more is a difference."""
        (reported / "reports" / f"{VERSION}-v1" / "manifest.json").write_text("{")
        assert _against_the_report(reported)["status"] == "differs"

    def test_an_earlier_validation(self, reported: Path) -> None:
        """An earlier validation is held against its own run, with the model of the student's folder."""
        student, earlier = reported / "student", reported / "student/validations/v1"
        earlier.mkdir(parents=True)
        for path in list(student.iterdir()):
            if path.name not in (STUDENT_FILE, "validations"):
                path.rename(earlier / path.name)
        clean = _against_the_report(reported, "student/validations/v1")
        place = earlier / PARITY_FILE
        place.write_text(place.read_text() + "\n")
        touched = _against_the_report(reported, "student/validations/v1")

        assert (clean["differences"], clean["notes"]) == ([], [NO_LEDGER])
        assert any("changed since the report was made" in one["what"] for one in touched["differences"])

    def test_the_page_is_a_view(self, reported: Path) -> None:
        """Approvals draw the page again: the manifest does not name it, so that a report stays as it was signed."""
        named = read_json(reported / "reports" / f"{VERSION}-v1" / "manifest.json")["artifacts"]["files"]
        assert CHECKLIST_FILE in named
        assert CHECKLIST_PAGE not in named


SIGNED_PAGE: dict[str, tuple[str, str, bool]] = {
    "a box that was ticked": ("- [ ] Config updated", "- [x] Config updated, by Ann", True),
    "a signature": ("- [ ] **ML Lead**: ___", "- [x] **ML Lead**: Ann", True),
    "a remark more": ("## Approval Sign-offs\n", "## Approval Sign-offs\n\nUnsigned names.\n", True),
    "a part below the boxes": ("## Approval Sign-offs", "### Open\n\n## Approval Sign-offs", True),
    "the verdict": ("**Recommendation**: ", "**Recommendation**: PROMOTE, not ", False),
    "a criterion": ("❌ **", "✅ **", False),
    "the commands": ("sqkit promote --model", "sqkit promote --other", False),
    "the line after the signatures": ("## Promotion Commands", "## Promotion Orders", False),
    "a heading of the boxes": ("## Pre-Deployment Checklist", "## Pre-Deployment", False),
    "the boxes a second time": (
        "## Evidence",
        "## Pre-Deployment Checklist\n\n- [x] all\n\n## Evidence",
        False,
    ),
    "a title among the signatures": ("## Approval Sign-offs\n", "## Approval Sign-offs\n# PROMOTE\n", False),
    "the end": ("## Digests", "## Digest", False),
}
"""A text of the page, what stands there instead, and whether approvals explain it."""


class TestSignedPage:
    """Beside approvals the page may differ where they draw it again, and nowhere else."""

    @pytest.mark.parametrize("case", SIGNED_PAGE)
    @pytest.mark.parametrize("signed", [False, True])
    def test_what_approvals_explain(self, folder: Path, case: str, *, signed: bool) -> None:
        """Boxes and signatures with an approvals.json beside; without one they are as bare as anything else."""
        old, new, explained = SIGNED_PAGE[case]
        page = folder / CHECKLIST_PAGE
        text = page.read_text().replace("✅", "❌") if case == "a criterion" else page.read_text()
        assert old in text
        page.write_text(text.replace(old, new, 1))
        if signed:
            (folder / "approvals.json").write_text("{}")
        found = _found(folder)
        assert (found == []) == (signed and explained)
        assert all(line.startswith("promotion_checklist.md: line ") for line in found)

    def test_a_signed_page_that_is_gone_or_cut(self, folder: Path) -> None:
        """No page, and half a page, are differences with approvals as without."""
        (folder / "approvals.json").write_text("{}")
        page = folder / CHECKLIST_PAGE
        page.write_text(page.read_text()[: page.read_text().index("## Approval Sign-offs")])
        assert len(_found(folder)) == 1
        page.unlink()
        assert _found(folder) == [f"{CHECKLIST_PAGE}: missing"]


class TestUnchecked:
    """A folder that only agrees with itself says what it could not be held against."""

    def test_the_report_was_asked(self, reported: Path) -> None:
        """With its report the ledger alone is missing; the model's behaviour was computed."""
        assert _against_the_report(reported)["unchecked"] == ["ledger"]

    def test_nobody_was_asked(self, folder: Path) -> None:
        """Without report and ledger both are named; it verifies all the same."""
        outcome = verify(folder, reports_dir=folder / "no reports")
        assert (outcome["status"], outcome["unchecked"]) == ("verified", ["ledger", "report"])

    def test_a_ledger_above(self, planted: Market, tmp_path: Path) -> None:
        """Where the validation's own trial ledger lies above it was asked."""
        home = tmp_path / "data/models"
        validate(planted, home / "student", settings=settings_of(tmp_path))
        shutil.copy(planted.students["gradient_boosting"], home / "student" / STUDENT_FILE)
        verdict(home / "student", home / "student")
        outcome = verify(home / "student", reports_dir=tmp_path / "reports")
        assert (outcome["differences"], outcome["unchecked"]) == ([], ["report"])

    def test_a_feature_set_that_is_not_registered(self, folder: Path) -> None:
        """The behaviour of a model whose set this process does not know is not computed, and that is said."""
        path = write_student(folder, feature_set="somebody_s_own")
        _edit(folder / RESULTS_FILE, lambda r: r["digests"].update(model=sha256_file(path)))
        outcome = verify(folder, reports_dir=folder / "no reports")
        assert "behaviour" in outcome["unchecked"]
        assert any("behaviour digest was not computed again" in note for note in outcome["notes"])

    def test_a_check_that_could_not_finish_counts_as_not_made(self, folder: Path) -> None:
        """Damage that ends a check early leaves its witness unchecked."""
        (folder / STUDENT_FILE).write_bytes(b"no model")
        outcome = verify(folder)
        assert outcome["status"] == "differs"
        assert "behaviour" in outcome["unchecked"]

    def test_metrics_from_elsewhere(self, tmp_path: Path) -> None:
        """They have no witness at all."""
        write_json(tmp_path / CHECKLIST_FILE, _from_elsewhere())
        assert verify(tmp_path)["unchecked"] == ["behaviour", "ledger", "report"]


class TestPolicyInForce:
    """A checklist that names an accepted policy is held against the audit log above it."""

    ASKED = usual(min_days=90, min_sharpe=0.5)

    def judged(self, folder: Path, policy: Policy, *, accepted: bool = True) -> Path:
        """The folder below a models folder, judged by this policy while `ASKED` is in force."""
        if accepted:
            accept(folder.parent, self.ASKED)
        student = Path(shutil.move(folder, folder.parent / "data/models/student"))
        decide(student, student, policy, DECIDED_AT, held_against(policy, self.ASKED))
        return student

    def test_it_is_repeated_with_what_was_in_force(self, folder: Path) -> None:
        """A loosened run verifies: its mark and both digests follow from what the checklist keeps."""
        (folder.parent / "data/models").mkdir(parents=True)
        student = self.judged(folder, usual(min_sharpe=0.5, min_evidence="none"))
        outcome = verify(student, reports_dir=folder.parent / "reports")
        checklist = read_json(student / CHECKLIST_FILE)

        assert outcome["differences"] == []
        assert "policy" not in outcome["unchecked"]
        assert checklist["digests"]["policy_in_force"] == policy_digest(self.ASKED)
        assert [line for line in checklist["verdict_reasons"] if "not promotable" in line] == [
            "not promotable under this policy: SENSEQUANT_PROMOTION_MIN_EVIDENCE=none is looser than moderate in force",
            "not promotable under this policy: SENSEQUANT_PROMOTION_MIN_DAYS=60 is looser than 90 in force",
        ]

    def test_a_mark_taken_away_consistently(self, folder: Path) -> None:
        """Decided again as if nothing were looser, every file of it: the audit log knows better."""
        (folder.parent / "data/models").mkdir(parents=True)
        policy = usual(min_sharpe=0.5)
        student = self.judged(folder, policy)
        tidy = {"digest": policy_digest(self.ASKED), "looser": []}
        decide(student, student, policy, DECIDED_AT, tidy)
        assert [line.split(": stored")[0] for line in _found(student)] == [
            "promotion_checklist.json: evidence: policy_in_force: looser"
        ]

    def test_a_policy_nobody_accepted(self, folder: Path) -> None:
        """A digest that no line of the log has is a difference."""
        (folder.parent / "data/models").mkdir(parents=True)
        student = self.judged(folder, self.ASKED)
        strange = {"digest": "0" * 64, "looser": []}
        decide(student, student, self.ASKED, DECIDED_AT, strange)
        assert any("the audit log knows no accepted policy 000" in line for line in _found(student))

    def test_no_log_above(self, folder: Path) -> None:
        """Nobody could be asked: unchecked, and said."""
        (folder.parent / "data/models").mkdir(parents=True)
        student = self.judged(folder, self.ASKED, accepted=False)
        outcome = verify(student, reports_dir=folder.parent / "reports")
        assert (outcome["differences"], outcome["unchecked"]) == ([], ["ledger", "policy", "report"])
        assert any("no audit log lies above" in note for note in outcome["notes"])

    @pytest.mark.parametrize("kept", [[], {"digest": 1}, "x"])
    def test_another_form(self, folder: Path, kept: Any) -> None:
        """What nobody writes is a difference, never a traceback."""
        _edit(folder / CHECKLIST_FILE, lambda c: c["evidence"].update(policy_in_force=kept))
        assert _found(folder)


@pytest.mark.slow
def test_what_the_jobs_leave_verifies(tmp_path: Path) -> None:
    """After train-student --validate the whole chain verifies, from results to the report's manifest."""
    project = planted_project(tmp_path)
    trained = project.sqkit(
        "train-student",
        "--teacher-dir",
        TEACHER,
        "--output-dir",
        STUDENT,
        "--validate",
        "--model-type",
        "logistic",
    )
    assert trained.returncode in (0, 1, 3), trained.stderr
    run = project.sqkit("verify", STUDENT, "--json")
    outcome = json.loads(run.stdout)

    assert (run.returncode, outcome["differences"], outcome["notes"]) == (0, [], []), run.stderr
    assert outcome["trials"]["n_trials"] == 1


class TestCommand:
    """Exit codes and what is printed and written, through the real command."""

    def test_verified(self, folder: Path) -> None:
        """Exit 0, verification.json in the folder, the same as --json prints."""
        run = Project(folder.parent).sqkit("verify", "student")
        again = Project(folder.parent).sqkit("verify", "student", "--json")

        assert (run.returncode, again.returncode, run.stderr) == (0, 0, ""), run.stdout
        assert run.stdout.splitlines()[-1].startswith("student: verified")
        assert again.stdout == (folder / VERIFICATION_FILE).read_text()

    def test_differs(self, folder: Path) -> None:
        """Exit 1, the difference in words, and in verification.json."""
        _edit(folder / CHECKLIST_FILE, lambda c: c["candidate_metrics"].update(precision_long=0.99))
        run = Project(folder.parent).sqkit("verify", "student")

        assert run.returncode == 1
        assert "candidate_metrics: precision_long: stored 0.99" in run.stdout
        assert json.loads((folder / VERIFICATION_FILE).read_text())["status"] == "differs"

    def test_nothing_to_verify(self, tmp_path: Path) -> None:
        """A missing or empty folder, and a file, are exit 2 in one line."""
        (tmp_path / "empty").mkdir()
        (tmp_path / "file").write_text("")
        for name in ("nowhere", "empty", "file"):
            run = Project(tmp_path).sqkit("verify", name)
            assert (run.returncode, len(run.stderr.splitlines()), run.stdout) == (2, 1, "")
        with pytest.raises(UsageError, match="nowhere"):
            verify(tmp_path / "nowhere")

    def test_the_audit_log(self, folder: Path) -> None:
        """--audit alone, or beside a folder; exit 1 and a line when the log was edited, and no file is written."""
        project = Project(folder.parent)
        accept(folder.parent, usual(min_days=90))
        alone, both = project.sqkit("verify", "--audit"), project.json("verify", "student", "--audit")
        log = folder.parent / "data/models/audit.jsonl"
        log.write_text(log.read_text().replace('"min_days":90', '"min_days":10'))
        before = project.files()
        edited = project.sqkit("verify", "--audit", "--json")

        assert (alone.returncode, alone.stderr) == (0, ""), alone.stdout
        assert (both["status"], both["audit"]["status"]) == ("verified", "verified")
        assert (edited.returncode, json.loads(edited.stdout)["status"]) == (1, "differs")
        assert project.sqkit("verify", "student", "--audit").returncode == 1
        assert project.files() == before

    def test_neither_folder_nor_log(self, tmp_path: Path) -> None:
        """Exit 2: it says what can be given."""
        run = Project(tmp_path).sqkit("verify")
        assert (run.returncode, len(run.stderr.splitlines())) == (2, 1)
        assert "--audit" in run.stderr

    def test_a_folder_that_cannot_be_read(self, folder: Path, without_root_rights: list[str]) -> None:
        """No permission is exit 2 in one line."""
        folder.chmod(0o000)
        try:
            run = Project(folder.parent).sqkit("verify", "student", prefix=without_root_rights)
        finally:
            folder.chmod(0o755)
        assert (run.returncode, len(run.stderr.splitlines())) == (2, 1)

    def test_a_folder_that_cannot_be_written(self, folder: Path, without_root_rights: list[str]) -> None:
        """The outcome is printed, the exit code stays, and a line says that it was not written."""
        folder.chmod(0o555)
        try:
            run = Project(folder.parent).sqkit("verify", "student", prefix=without_root_rights)
        finally:
            folder.chmod(0o755)
        assert run.returncode == 0, run.stdout
        assert "verified" in run.stdout
        assert "verification.json was not written" in run.stderr
        assert not (folder / VERIFICATION_FILE).exists()
