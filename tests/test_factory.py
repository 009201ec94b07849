"""Candidates of the factory: real, whole, fit for promotion, and cheap the second time."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sqkit.artifacts import APPROVALS_FILE, CHECKLIST_FILE, VERIFICATION_FILE
from sqkit.audit_log import read_audit
from sqkit.checklist import differences
from sqkit.files import sha256_file, sha256_json
from sqkit.report_manifest import run_naming, verify_manifest
from sqkit.student import StudentModel
from tests.conftest import ROOT
from tests.factory import (
    FIRST,
    SECOND,
    approve_candidate,
    clock_of,
    inputs_of,
    keep,
    kept_files,
    make_candidate,
    restore,
)


def files_of(root: Path) -> dict[str, bytes]:
    """Every file but locks, with its bytes."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not path.name.endswith(".lock")
    }


def test_a_candidate_is_made_an_hour_after_its_tag() -> None:
    """The clock follows from the tag, so that a story of two candidates can be told in dates."""
    assert clock_of("20250301_150000") == dt.datetime(2025, 3, 1, 16, tzinfo=dt.UTC)


@pytest.mark.slow
def test_a_candidate_is_whole_and_worth_promoting(tmp_path: Path) -> None:
    """PROMOTE with strong evidence, verified, its report whole; in another project the same, not made again."""
    model = make_candidate(tmp_path, FIRST, approved=False)
    checklist = json.loads((model.parent / CHECKLIST_FILE).read_text())
    verification = json.loads((model.parent / VERIFICATION_FILE).read_text())
    report = run_naming(
        tmp_path / "reports",
        model.parent.relative_to(tmp_path).as_posix(),
        sha256_file(model.parent / CHECKLIST_FILE),
    )

    assert model == tmp_path / f"data/models/{FIRST}/student/student_model.onnx"
    assert StudentModel.load(model).version == FIRST
    assert (checklist["recommendation"], checklist["evidence"]["grade"]) == ("PROMOTE", "strong")
    assert checklist["timestamp"] == "2025-01-01T16:00:00Z"
    assert differences(checklist) == []
    assert verification["differences"] == []
    assert report is not None
    assert verify_manifest(report, tmp_path) == []
    assert not (model.parent / APPROVALS_FILE).exists()

    elsewhere = tmp_path.with_name(f"{tmp_path.name}-again")
    elsewhere.mkdir()
    again = make_candidate(elsewhere, FIRST, approved=False)

    assert files_of(elsewhere) == files_of(tmp_path)
    assert again.stat().st_mtime == pytest.approx(model.stat().st_mtime, abs=0.01), "it was not made again"


@pytest.mark.slow
def test_approvals_are_made_afresh(tmp_path: Path) -> None:
    """A drill that passed, an attested period and three roles, all of the time that is given."""
    model = make_candidate(tmp_path, FIRST, approved=False)
    later = clock_of(FIRST) + dt.timedelta(days=2)

    approve_candidate(tmp_path, model, later)

    facts = json.loads((model.parent / APPROVALS_FILE).read_text())["facts"]
    audit = read_audit(tmp_path / "data/models")
    assert [(fact["kind"], fact["name"]) for fact in facts] == [
        ("attest", "Asha"),
        ("approve", "Asha"),
        ("approve", "Bela"),
        ("approve", "Chen"),
    ]
    assert {fact["at"] for fact in facts} == {"2025-01-03T16:00:00Z"} == {entry["at"] for entry in audit}
    assert [(entry["kind"], entry["passed"]) for entry in audit] == [("drill", True)]


def test_what_is_kept_is_for_these_inputs_only(tmp_path: Path) -> None:
    """Tag, seed, settings, ledger, bars, what is live and the policy in force each make another candidate."""
    asked = {"SOURCE_DATE_EPOCH": "1577840400"}
    seen = [inputs_of(tmp_path, FIRST, 0, asked), inputs_of(tmp_path, FIRST, 1, asked)]
    seen += [inputs_of(tmp_path, SECOND, 0, asked), inputs_of(tmp_path, FIRST, 0, {"SOURCE_DATE_EPOCH": "0"})]
    policy = {"kind": "policy", "slot": "default", "policy_digest": "ab"}
    for name, text in (
        (".env", "SENSEQUANT_PROMOTION_MIN_DAYS=61\n"),
        ("data/models/trials.jsonl", "{}\n"),
        ("data/bars/1d/PLANT01.parquet", "bars"),
        ("data/models/production/student_model.onnx", "live"),
        ("data/models/audit.jsonl", json.dumps(policy) + "\n"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        seen.append(inputs_of(tmp_path, FIRST, 0, asked))

    assert len({sha256_json(one) for one in seen}) == len(seen) == 9
    assert inputs_of(tmp_path, FIRST, 0, asked) == seen[-1]


def test_of_several_processes_one_makes_what_is_kept(tmp_path: Path) -> None:
    """Whoever asks while another makes the same thing waits, and then finds it whole."""
    program = (
        "import sys, time; from pathlib import Path; from tests.factory import keep, kept_files, restore\n"
        "home, root = Path(sys.argv[1]), Path(sys.argv[2])\n"
        "root.mkdir()\n"
        "with kept_files('ab' * 32, home) as kept:\n"
        "    if not restore(kept, root):\n"
        "        time.sleep(0.2)\n"
        "        (root / 'made').write_text(root.name)\n"
        "        keep(kept, root, ['made'])\n"
        "        print('made')\n"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "home"), str(tmp_path / f"root{number}")],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    said = [process.communicate(timeout=60)[0] for process in started]

    assert sorted(said) == ["", "", "", "made\n"]
    assert len({(tmp_path / f"root{number}/made").read_text() for number in range(4)}) == 1


def test_what_was_unused_longest_is_dropped(tmp_path: Path) -> None:
    """The folder of kept candidates does not grow for ever; using one keeps it."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "file").write_text("kept")
    for digest in ("aa", "bb", "cc", "dd"):
        with kept_files(digest, tmp_path / "home") as kept:
            keep(kept, root, ["file"], most=3)
        if digest == "cc":
            with kept_files("aa", tmp_path / "home") as used:
                assert restore(used, root)
        time.sleep(0.01)

    assert sorted(path.stem for path in (tmp_path / "home").glob("*.tar")) == ["aa", "cc", "dd"]


def test_a_maker_that_fails_keeps_nothing(tmp_path: Path) -> None:
    """An archive appears whole or not at all, and nothing half made stays."""
    home = tmp_path / "home"
    with pytest.raises(FileNotFoundError):
        with kept_files("aa", home) as kept:
            keep(kept, tmp_path, ["absent"])

    assert [path.name for path in home.iterdir()] == ["aa.lock"]
    with kept_files("aa", home) as kept:
        assert not restore(kept, tmp_path)
