"""The commands that take a student out of production, stop it and settle that: as a person types them."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sqkit.artifacts import STUDENT_FILE
from sqkit.files import exclusive
from sqkit.production.slots import LOCK_FILE
from tests.project import Project, clean_environment, refused
from tests.releases import Slotted, files_below

APRIL = int(dt.datetime(2025, 4, 10, 16, tzinfo=dt.UTC).timestamp())
SETTINGS = {"SENSEQUANT_MARKET": "us", "SOURCE_DATE_EPOCH": str(APRIL)}


@dataclass(frozen=True)
class Desk:
    """A project in which commands are typed, and what lies in it."""

    project: Project
    slotted: Slotted

    def sqkit(self, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """A command, on 10 April 2025."""
        return self.project.sqkit(*words, environment=SETTINGS | settings)

    def said(self, *words: str, **settings: str) -> list[str]:
        """What a command that succeeds prints."""
        run = self.sqkit(*words, **settings)
        assert run.returncode == 0, run.stderr
        return run.stdout.splitlines()

    def json(self, *words: str) -> dict[str, Any]:
        """What it prints for a program; nothing else may stand on standard output."""
        return json.loads("\n".join(self.said(*words, "--json")))  # type: ignore[no-any-return]

    def refused(self, code: int, words: list[str], line: str, **settings: str) -> None:
        """One line, the exit code, and nothing written."""
        refused(self.project, code, words, line, environment=SETTINGS | settings)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A promoted 1 January, B 1 March."""
    slotted = Slotted(tmp_path)
    slotted.promote(1, "2025-01-01")
    slotted.promote(2, "2025-03-01")
    return Desk(Project(tmp_path), slotted)


# --- rollback


def test_a_rollback_prints_its_target_first_and_what_to_set_last(desk: Desk) -> None:
    """On standard error where it goes, before it goes; then the environment, what is barred, and who is to agree."""
    run = desk.sqkit("rollback", "--reason", "precision fell", "--as", "Asha")
    first, second, line = desk.slotted.entries

    assert run.returncode == 0
    assert run.stderr.splitlines() == [
        f"sqkit: slot default: going back to {first['model_version']} ({first['release']})"
    ]
    assert run.stdout.splitlines() == [
        "set in the engine's environment:",
        "  SENSEQUANT_STUDENT_MODEL_PATH=data/models/production/student_model.onnx",
        f"  SENSEQUANT_STUDENT_MODEL_VERSION={first['model_version']}",
        f"quarantined: {second['digests']['model'][:12]}",
        f"slot default: rolled back to {first['model_version']} ({first['release']}); audit line {line['digest'][:12]}",
        "nobody approved this: somebody else ratifies it with sqkit ratify",
    ]
    assert desk.slotted.live == 1
    assert (line["actor"]["name"], line["reason"]) == ("Asha", "precision fell")
    assert line["date"] == "2025-04-10"


def test_a_rollback_that_was_done_is_exit_zero(desk: Desk) -> None:
    """Again by the same date, and again by none: nothing to do, and nothing is written."""
    desk.said("rollback", "--to", "20250301", "--reason", "precision fell")
    before = files_below(desk.slotted.root)

    assert "nothing to do" in desk.said("rollback", "--to", "20250301", "--reason", "again")[-1]
    run = desk.sqkit("rollback", "--reason", "again")
    assert run.returncode == 0
    assert "was rolled back on 2025-04-10 already" in run.stderr
    assert files_below(desk.slotted.root) == before


def test_a_dry_run_shows_every_step_and_writes_nothing(desk: Desk) -> None:
    """It asks for no reason, and what it shows is what is done then."""
    before = files_below(desk.slotted.root)
    shown = desk.json("rollback", "--dry-run")
    assert "nothing was written" in desk.said("rollback", "--dry-run")[-1]
    assert files_below(desk.slotted.root) == before
    done = desk.json("rollback", "--reason", "precision fell")

    assert shown["rollback"] is None
    assert {**shown, "rollback": done["rollback"]} == done
    assert done["rollback"] == desk.slotted.entries[-1]
    assert done["target"]["release"] == desk.slotted.entries[0]["release"]


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        ((), 2, "rollback: say why, in one line, with --reason"),
        (("--to", "20250101", "--reason", "x"), 2, "releases left on 20250301 (20240102_000001"),
        (("--to", "yesterday", "--reason", "x"), 2, "give the date a release left production (YYYYMMDD)"),
        (("--slot", "futures", "--reason", "x"), 2, "choose one of default"),
        (("--drill", "--dry-run"), 2, "leave out --to, --env-file and --dry-run"),
        (("--drill", "--to", "none"), 2, "leave out --to, --env-file and --dry-run"),
        (("--yes",), 2, "sqkit rollback --help"),
    ],
)
def test_what_cannot_be_meant_is_refused(desk: Desk, words: tuple[str, ...], code: int, line: str) -> None:
    """One line each, and nothing is touched."""
    desk.refused(code, ["rollback", *words], line)


def test_a_barred_release_and_a_damaged_one_are_refused_by_name(desk: Desk) -> None:
    """Exit 1 with the command that releases it, exit 4 with what is wrong."""
    desk.slotted.roll_back()
    first, second = desk.slotted.entries[:2]
    desk.refused(
        *(1, ["rollback", "--to", second["release"], "--reason", "x"]),
        f"sqkit quarantine release {second['digests']['model'][:12]} --reason TEXT",
    )
    desk.slotted.promote(3)
    place = desk.slotted.archived(first) / STUDENT_FILE
    place.chmod(0o644)
    place.write_bytes(b"torn")
    desk.refused(4, ["rollback", "--to", first["release"], "--reason", "x"], "changed since it was archived")


def test_a_passed_over_release_is_said(desk: Desk) -> None:
    """On standard error, before anything is done."""
    place = desk.slotted.archived(desk.slotted.entries[0]) / STUDENT_FILE
    place.unlink()
    run = desk.sqkit("rollback", "--reason", "precision fell")

    assert run.returncode == 0
    assert "passed over 20240102_000001" in run.stderr.splitlines()[0]
    assert "going back to no student (the engine runs its baseline)" in run.stderr.splitlines()[1]


def test_no_student_empties_the_pin(desk: Desk) -> None:
    """--to none: what is printed suits what is live."""
    said = desk.said("rollback", "--to", "none", "--reason", "month end")

    assert "  SENSEQUANT_STUDENT_MODEL_VERSION=" in said
    assert desk.slotted.live is None


def test_an_env_file_is_brought_in_line(desk: Desk) -> None:
    """In the same step, and everything else in it stays."""
    env = desk.slotted.root / "engine.env"
    env.write_text("# the engine\nSENSEQUANT_STUDENT_MODEL_VERSION=20240103_000002\nOTHER=1\n")
    desk.said("rollback", "--reason", "precision fell", "--env-file", "engine.env")

    assert env.read_text().splitlines()[:3] == [
        *("# the engine", "SENSEQUANT_STUDENT_MODEL_VERSION=20240102_000001", "OTHER=1")
    ]


def test_a_busy_slot_and_a_broken_log_have_their_codes(desk: Desk) -> None:
    """Somebody promotes here right now: 5. The log does not hold: 4, and it says what still works."""
    with exclusive(desk.slotted.slot.folder, "test", name=LOCK_FILE):
        run = desk.sqkit("rollback", "--reason", "x")
    assert (run.returncode, "another process is busy here" in run.stderr) == (5, True)

    desk.slotted.log.write_bytes(desk.slotted.log.read_bytes()[: len(desk.slotted.log.read_bytes()) // 2])
    desk.refused(4, ["rollback", "--reason", "x"], "sqkit halt still stops the model")


def test_an_interrupted_change_is_finished_first_and_said(desk: Desk) -> None:
    """What a crash left in production is repaired before anything else."""
    desk.slotted.slot.model_path.unlink()
    run = desk.sqkit("rollback", "--reason", "x", "--to", "20250301")

    assert run.returncode == 0
    assert "finished what was interrupted: put archive/" in run.stderr
    assert desk.slotted.live == 1


def test_a_drill_says_what_it_tried_and_its_exit_code_is_its_verdict(desk: Desk) -> None:
    """0 when it passed, 1 when it failed; a line of the log either way."""
    said = desk.said("rollback", "--drill", "--as", "Bela")
    assert said[0] == "a release with a damaged model took the slot, in a scratch folder"
    assert said[-1].startswith("rollback drill passed (")
    assert desk.slotted.entries[-1]["actor"]["name"] == "Bela"

    place = desk.slotted.archived(desk.slotted.entries[1]) / STUDENT_FILE
    place.unlink()
    run = desk.sqkit("rollback", "--drill", "--json")
    drilled = json.loads(run.stdout)["drill"]
    assert run.returncode == 1
    assert drilled == desk.slotted.entries[-1]
    assert drilled["passed"] is False


# --- halt and resume


STUDENT_OFF = "student_off (the baseline trades on)"
NO_NEW_ENTRIES = "no_new_entries (exits and the square-off go on)"
TWO_SLOTS = {"SENSEQUANT_STUDENT_MODEL_PATHS": '{"swing": "data/models/swing/student_model.onnx"}'}


def test_halt_and_resume(desk: Desk) -> None:
    """Each says what holds now, and how it ends; again it says that nothing changed."""
    assert desk.said("halt", "--reason", "feed looks wrong", "--as", "Asha") == [
        f"slot default: halted, {STUDENT_OFF}; sqkit resume ends it"
    ]
    assert desk.slotted.served.halted
    before = files_below(desk.slotted.root)
    assert desk.said("halt", "--reason", "feed") == [
        f"slot default: is halted already, {STUDENT_OFF}; sqkit resume ends it"
    ]
    assert files_below(desk.slotted.root) == before
    assert desk.said("resume", "--reason", "feed is back") == ["slot default: resumed"]
    assert desk.said("resume") == ["slot default: is not halted; nothing to do"]
    assert not desk.slotted.served.halted
    assert [entry["kind"] for entry in desk.slotted.entries[2:]] == ["halt", "resume"]


def test_a_halt_goes_further_and_back(desk: Desk) -> None:
    """--level says how far; the line says what it was before. Without it what goes further stays."""
    desk.said("halt", "--reason", "feed")
    assert desk.said("halt", "--level", "no_new_entries", "--reason", "prices") == [
        "slot default: halted, no_new_entries, before student_off (exits and the square-off go on); sqkit resume ends it"
    ]
    assert desk.said("halt", "--reason", "in doubt") == [
        f"slot default: is halted already, {NO_NEW_ENTRIES}; sqkit resume ends it"
    ]
    assert desk.json("halt", "--level", "student_off", "--reason", "prices are back")["slots"] == [
        {
            "before": "no_new_entries",
            "halt": desk.slotted.state.halted,
            "level": "student_off",
            "problem": "",
            "slot": "default",
        }
    ]
    assert desk.slotted.served.halt_level == "student_off"
    desk.refused(2, ["halt", "--level", "everything", "--reason", "x"], "no_new_entries")


def test_all_halts_and_resumes_every_slot(desk: Desk) -> None:
    """One line each, with the command that ends it; a slot without a student too."""
    words = ("halt", "--all", "--level", "no_new_entries", "--reason", "exchange halted")
    assert desk.said(*words, **TWO_SLOTS) == [
        f"slot default: halted, {NO_NEW_ENTRIES}; sqkit resume ends it",
        f"slot swing: halted, {NO_NEW_ENTRIES}; sqkit resume --slot swing ends it",
    ]
    assert (desk.slotted.models / "swing/halt.json").is_file()
    assert [entry["slot"] for entry in desk.slotted.entries[2:]] == ["default", "swing"]
    desk.said("resume", "--slot", "swing", **TWO_SLOTS)
    assert desk.said("resume", "--all", **TWO_SLOTS) == [
        *("slot default: resumed", "slot swing: is not halted; nothing to do")
    ]
    assert not list(desk.slotted.models.rglob("halt.json"))


@pytest.mark.parametrize("word", ["halt", "resume"])
def test_one_slot_or_all(desk: Desk, word: str) -> None:
    """Not both."""
    desk.refused(2, [word, "--all", "--slot", "default", "--reason", "x"], "give one of them")


def test_each_slot_is_tried_though_another_fails(desk: Desk, without_root_rights: list[str]) -> None:
    """The one that can be halted neither by flag nor by log is named, and the exit code is not 0."""
    desk.said("halt", "--slot", "swing", "--reason", "x", **TWO_SLOTS)
    desk.said("resume", "--slot", "swing", **TWO_SLOTS)
    locked = [desk.slotted.log, desk.slotted.models / ".audit.lock", desk.slotted.slot.folder]
    for place in locked:
        place.chmod(place.stat().st_mode & 0o555)
    words = ("halt", "--all", "--reason", "feed", "--json")
    run = desk.project.sqkit(*words, environment=SETTINGS | TWO_SLOTS, prefix=without_root_rights)
    for place in locked:
        place.chmod(place.stat().st_mode | 0o200)

    assert run.returncode == 2
    default, swing = json.loads(run.stdout)["slots"]
    assert (default["level"], swing["level"], swing["problem"]) == (None, "student_off", "")
    assert default["problem"].startswith("slot default is NOT halted: ")
    assert f"sqkit: {default['problem']}" in run.stderr.splitlines()
    assert "slot swing is halted, but that is not in the audit log" in run.stderr
    assert (desk.slotted.models / "swing/halt.json").is_file()


def test_each_slot_is_resumed_though_another_cannot_be(desk: Desk) -> None:
    """A folder lies where the flag of one should: that one stays halted, and is named."""
    desk.said("halt", "--all", "--reason", "feed", **TWO_SLOTS)
    desk.slotted.slot.halt_path.unlink()
    desk.slotted.slot.halt_path.mkdir()
    run = desk.sqkit("resume", "--all", **TWO_SLOTS)

    assert run.returncode == 2
    assert run.stdout.splitlines() == ["slot swing: resumed"]
    assert "sqkit: slot default is not resumed: " in run.stderr
    assert desk.slotted.served.halted


def test_all_slots_are_never_fewer_than_there_are(desk: Desk) -> None:
    """Where the setting that names them cannot be read, nobody is told that all are halted."""
    words = ["halt", "--all", "--reason", "feed"]
    desk.refused(2, words, "SENSEQUANT_STUDENT_MODEL_PATHS", SENSEQUANT_STUDENT_MODEL_PATHS="{swing}")


@pytest.mark.parametrize("words", [(), ("--reason",), ("--reason", ""), ("--reason", " ")])
def test_a_halt_asks_why(desk: Desk, words: tuple[str, ...]) -> None:
    """One line with exit 2."""
    desk.refused(2, ["halt", *words], "--reason")


def test_a_halt_of_a_slot_of_its_own_says_how_that_one_is_resumed(desk: Desk) -> None:
    """The command that it prints is the one to type."""
    said = desk.said("halt", "--slot", "swing", "--reason", "feed", **TWO_SLOTS)

    assert said == [f"slot swing: halted, {STUDENT_OFF}; sqkit resume --slot swing ends it"]
    assert not desk.slotted.served.halted


def test_a_halt_with_a_broken_log_is_exit_zero_and_says_so(desk: Desk) -> None:
    """The student stops; a program gets null for the line that could not be written."""
    desk.slotted.log.unlink()
    run = desk.sqkit("halt", "--reason", "feed", "--json")

    assert run.returncode == 0
    (slot,) = json.loads(run.stdout)["slots"]
    assert (slot["halt"], slot["level"], slot["problem"]) == (None, "student_off", "")
    assert "is halted, but that is not in the audit log" in run.stderr
    assert desk.slotted.slot.halt_path.exists()


def test_a_pasted_reason_is_kept_as_one_line(desk: Desk) -> None:
    """Line breaks and bytes that are no text do not stop a halt."""
    run = desk.sqkit("halt", "--reason", "09:31 gap\n09:32 gap \udcff")

    assert run.returncode == 0, run.stderr
    assert desk.slotted.entries[-1]["reason"] == "09:31 gap 09:32 gap ?"


def test_a_host_that_never_had_a_log_is_told_so(desk: Desk, tmp_path: Path) -> None:
    """Only the production folder was copied there: history is elsewhere, and a halt is its flag alone."""
    host = tmp_path / "host"
    shutil.copytree(desk.slotted.slot.folder, host / "data/models/production")
    there = Desk(Project(host), Slotted(host))

    for words in (["history"], ["history", "--at", "2025-03-14"]):
        run = there.sqkit(*words)
        assert (run.returncode, run.stdout.strip()) == (0, "")
        assert "no audit log here (data/models/audit.jsonl): history is kept where releases are" in run.stderr
    assert there.json("history")["events"] == []
    run = there.sqkit("halt", "--reason", "feed")
    assert run.returncode == 0
    assert "is halted, but that is not in the audit log: this host has none; sqkit halt where" in run.stderr
    assert there.slotted.served.halted
    assert not there.slotted.log.exists()


def test_with_an_env_file_it_says_that_the_file_was_rewritten(desk: Desk) -> None:
    """Nobody is told to set what is set already."""
    first = desk.slotted.entries[0]
    lines = desk.said("rollback", "--reason", "precision fell", "--env-file", "engine.env")

    assert lines[:3] == [
        "rewritten: engine.env says now",
        "  SENSEQUANT_STUDENT_MODEL_PATH=data/models/production/student_model.onnx",
        f"  SENSEQUANT_STUDENT_MODEL_VERSION={first['model_version']}",
    ]
    assert lines[1].strip() in (desk.slotted.root / "engine.env").read_text().splitlines()


# --- ratify and quarantine


def test_somebody_else_ratifies(desk: Desk) -> None:
    """Not whoever rolled back, and not twice."""
    desk.slotted.roll_back()
    desk.refused(1, ["ratify", "--as", "asha"], "somebody else has to ratify it; name yourself with --as")
    assert desk.said("ratify", "--as", "Bela", "--comment", "agreed") == [
        "slot default: the rollback of 2025-03-01T17:01:00Z (line 3) is ratified by Bela"
    ]
    desk.refused(2, ["ratify", "--as", "Bela"], "no rollback waits to be ratified")


def test_what_still_waits_is_said(desk: Desk) -> None:
    """The newest is ratified, the others are named with the command for them; with --all nothing is left."""
    desk.slotted.promote(3, "2025-04-01")
    desk.slotted.roll_back("", "2025-04-02")
    desk.slotted.roll_back("none", "2025-04-03")

    assert desk.said("ratify", "--as", "Bela") == [
        "slot default: the rollback of 2025-04-03T17:00:00Z (line 5) is ratified by Bela",
        "slot default: the rollback of 2025-04-02T17:00:00Z (line 4) still waits; sqkit ratify again, or with --all",
    ]
    found = desk.json("ratify", "--as", "Bela", "--all")
    assert [line["rollback"] for line in found["ratify"]] == [desk.slotted.entries[3]["digest"]]
    assert found["waiting"] == []


def test_a_slot_that_is_meant_by_mistake_is_not_rolled_back(desk: Desk) -> None:
    """Intraday has no slot, the default one serves swing: exit 1; a halt goes on and says so."""
    words = ["rollback", "--slot", "intraday", "--reason", "x"]
    desk.refused(1, words, "the default slot serves swing; if that is meant, say --slot default")
    desk.refused(1, [*words, "--to", "none"], "the default slot serves swing")
    run = desk.sqkit("halt", "--slot", "intraday", "--reason", "x")

    assert run.returncode == 0
    assert "intraday has no slot of its own: this is about the default slot, which serves swing" in run.stderr
    assert desk.slotted.served.halted


def test_ratifying_is_signed_where_signers_are_set(desk: Desk) -> None:
    """A key without signers, and signers without a key: one line each."""
    desk.slotted.roll_back()
    signer = (
        "bela@example.com ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKHEChJWS7ybnTNSFqMFGOSxsuyJRKQQJ0GgCZmQ1WKz"
    )
    (desk.slotted.root / "signers").write_text(f"{signer}\n")

    desk.refused(2, ["ratify", "--as", "Bela", "--key", "id_ed25519"], "no signers file is set")
    desk.refused(
        *(4, ["ratify", "--as", "Bela"], "give --key FILE"),
        SENSEQUANT_PROMOTION_ALLOWED_SIGNERS="signers",
    )


def test_a_quarantine_is_released_by_digest(desk: Desk) -> None:
    """Eight digits at least, and a reason; an unknown one lists what is barred."""
    barred = desk.slotted.entries[1]["digests"]["model"]
    desk.slotted.roll_back()
    desk.refused(2, ["quarantine", "release", barred[:7], "--reason", "x"], f"quarantined: {barred[:12]}")
    desk.refused(2, ["quarantine", "release", barred], "--reason")
    said = desk.said("quarantine", "release", barred[:8], "--reason", "it was the feed")

    assert said == [
        f"slot default: model {barred[:12]} is released from quarantine; it may be promoted or gone back to"
    ]
    assert desk.said("rollback", "--to", barred[:8], "--reason", "it was the feed")
    assert desk.slotted.live == 2


# --- all of them


COMMANDS = [
    *(("rollback",), ("halt",), ("resume",), ("ratify",), ("quarantine", "release")),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_explains_every_option(desk: Desk, command: tuple[str, ...]) -> None:
    """Each option has its words, and none shows an empty default."""
    run = desk.sqkit(*command, "--help")

    assert run.returncode == 0
    assert '""' not in run.stdout
    for option in ("--slot", "--as", "--json"):
        assert option in run.stdout
    assert "default, or a strategy" in run.stdout


@pytest.mark.parametrize("word", ["resume", "ratify"])
def test_a_bad_setting_is_named(desk: Desk, word: str) -> None:
    """It is one line for these commands too."""
    desk.refused(2, [word], "SENSEQUANT_PROMOTION_MIN_DAYS", SENSEQUANT_PROMOTION_MIN_DAYS="soon")


@pytest.mark.parametrize(
    "wrong", [{"SENSEQUANT_PROMOTION_MIN_DAYS": "soon"}, {"SOURCE_DATE_EPOCH": "tomorrow"}]
)
@pytest.mark.parametrize("words", [["halt", "--reason", "x"], ["rollback", "--reason", "x"]])
def test_nothing_unrelated_keeps_a_person_from_stopping_a_model(
    desk: Desk, words: list[str], wrong: dict[str, str]
) -> None:
    """A typing error in another setting, or in the time, is said, and the model is stopped."""
    run = desk.sqkit(*words, **wrong)

    assert run.returncode == 0, run.stderr
    assert next(iter(wrong)) in run.stderr


RESEARCH = {"pandas", "sklearn", "pyarrow", "onnx", "matplotlib", "papermill", "IPython"}
LOADED = """
import sys
from sqkit.cli import main
try:
    main({words!r})
except SystemExit:
    pass
print(*sorted({{name.split(".")[0] for name in sys.modules}}))
"""


@pytest.mark.parametrize(
    ("words", "without"),
    [
        (["halt", "--reason", "x"], RESEARCH | {"scipy", "numba", "onnxruntime"}),
        (["rollback", "--reason", "x"], RESEARCH),  # numba brings SciPy in where that is installed
        (["rollback", "--help"], RESEARCH | {"scipy", "numba", "pydantic", "onnxruntime"}),
    ],
    ids=["halt", "rollback", "help"],
)
def test_these_commands_load_no_research_library(desk: Desk, words: list[str], without: set[str]) -> None:
    """A rollback and a halt work where only the base install is; a halt does not even score, and help is quick."""
    run = subprocess.run(
        [sys.executable, "-c", LOADED.format(words=words)],
        cwd=desk.slotted.root,
        env=clean_environment() | SETTINGS,
        capture_output=True,
        text=True,
        check=True,
    )

    assert not without & set(run.stdout.splitlines()[-1].split())
