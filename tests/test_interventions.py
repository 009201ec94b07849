"""Halt, resume, ratify, release from quarantine: what a person does at once, and what keeps nobody from it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sqkit.audit_log import HALT, QUARANTINE_RELEASE, RATIFY, RESUME, ROLLBACK
from sqkit.chain import head_file
from sqkit.errors import (
    ArchiveAmbiguous,
    ArchiveUnknown,
    AuditBroken,
    OutputError,
    SelfApproval,
    SignatureRefused,
    SqkitError,
    UsageError,
)
from sqkit.people import Actor
from sqkit.production.interventions import halt, ratify, release_quarantine, resume
from sqkit.production.signing import has_ssh_keygen
from sqkit.production.slot_check import halt_problems
from tests.releases import ASHA, CONTENTS, Slotted, files_below
from tests.ssh_keys import make_key, signers_line

BELA = Actor("Bela", "bela", "desk2")


@pytest.fixture
def slotted(tmp_path: Path) -> Slotted:
    """A scratch project with one release."""
    project = Slotted(tmp_path)
    project.promote(1, "2025-01-01")
    return project


def by(slotted: Slotted, actor: Actor) -> Slotted:
    """The same project, with somebody else at the keyboard."""
    slotted.actor = actor
    return slotted


# --- halt and resume


def test_a_halt_is_a_flag_and_a_line(slotted: Slotted) -> None:
    """What an engine looks at, and what stays: who, when, why."""
    entry = halt(slotted.production, "default", "feed looks wrong")
    flag = json.loads(slotted.slot.halt_path.read_text())

    assert entry == slotted.entries[-1] == slotted.state.halted
    assert (entry["kind"], entry["reason"]) == (HALT, "feed looks wrong")
    assert flag == {"at": entry["at"], "by": ASHA.to_dict(), "reason": "feed looks wrong"}
    assert slotted.served.halted
    assert slotted.live == 1


def test_halting_twice_is_halting_once(slotted: Slotted) -> None:
    """The first flag and the first line stay, whatever the second reason says."""
    halt(slotted.production, "default", "feed")
    before = files_below(slotted.root)

    assert halt(slotted.production, "default", "still the feed") is None
    assert files_below(slotted.root) == before
    assert slotted.said == []


def test_a_slot_without_a_student_can_be_halted(tmp_path: Path) -> None:
    """Nothing was ever promoted: what comes next starts halted."""
    project = Slotted(tmp_path)
    halt(project.production, "default", "month end")
    project.promote(1)

    assert project.served.halted
    resume(project.production, "default")
    assert not project.served.halted


def test_resuming_ends_a_halt(slotted: Slotted) -> None:
    """The flag goes once the line is written; resuming again changes nothing."""
    halt(slotted.production, "default", "feed")
    entry = resume(slotted.production, "default", "feed is back")

    assert entry is not None
    assert (entry["kind"], entry["reason"]) == (RESUME, "feed is back")
    assert not slotted.slot.halt_path.exists()
    assert not slotted.served.halted
    before = files_below(slotted.root)
    assert resume(slotted.production, "default") is None
    assert files_below(slotted.root) == before


def test_a_slot_is_halted_alone(tmp_path: Path) -> None:
    """The other one goes on; a strategy without a slot of its own names the default one."""
    default, swing = Slotted(tmp_path), Slotted(tmp_path, slot_name="swing")
    default.promote(1)
    swing.promote(2)
    halt(swing.production, "swing", "feed")
    assert (default.served.halted, swing.served.halted) == (False, True)
    halt(swing.production, "intraday", "feed")
    assert (default.served.halted, swing.served.halted) == (True, True)


@pytest.mark.parametrize("reason", ["", " ", "\n\t"])
def test_a_halt_needs_a_reason(slotted: Slotted, reason: str) -> None:
    """Somebody will ask; nothing is written without one."""
    before = files_below(slotted.root)

    with pytest.raises(UsageError, match="say why, in one line, with --reason"):
        halt(slotted.production, "default", reason)
    assert files_below(slotted.root) == before


def test_a_pasted_reason_becomes_one_line(slotted: Slotted) -> None:
    """Line breaks are no reason to let a student trade on."""
    entry = halt(slotted.production, "default", "  09:31 gap\n\t09:32 gap \a ")

    assert entry is not None
    assert entry["reason"] == "09:31 gap 09:32 gap ?"
    entry = resume(slotted.production, "default", "back\nagain")
    assert entry is not None
    assert entry["reason"] == "back again"


def test_an_unknown_slot_is_refused(slotted: Slotted) -> None:
    """One line that lists the slots."""
    with pytest.raises(UsageError, match="choose one of default"):
        halt(slotted.production, "futures", "feed")


def break_log(slotted: Slotted) -> None:
    """An edited line."""
    slotted.log.write_bytes(slotted.log.read_bytes().replace(b'"market":"us"', b'"market":"nse"'))


def test_a_halt_works_with_a_broken_log(slotted: Slotted) -> None:
    """The flag stops the student, and it is said that no line does; nothing else may be done meanwhile."""
    break_log(slotted)
    log = slotted.log.read_bytes()

    assert halt(slotted.production, "default", "feed") is None
    assert slotted.slot.halt_path.exists()
    assert slotted.log.read_bytes() == log
    assert len(slotted.said) == 1
    assert "is halted, but that is not in the audit log" in slotted.said[0]
    assert "line 1 was edited" in slotted.said[0]
    with pytest.raises(AuditBroken):
        resume(slotted.production, "default")
    assert slotted.slot.halt_path.exists()


def test_what_could_not_be_recorded_is_recorded_by_halting_again(slotted: Slotted) -> None:
    """With the log restored the halt gets its line; its flag is the first one."""
    sound = slotted.log.read_bytes()
    break_log(slotted)
    halt(slotted.production, "default", "feed")
    flag = slotted.slot.halt_path.read_bytes()
    slotted.log.write_bytes(sound)
    assert "no line of the log does" in halt_problems(slotted.slot, slotted.state)[0]

    slotted.on("")
    entry = halt(slotted.production, "default", "feed")
    assert entry is not None
    assert slotted.state.halted == entry
    assert slotted.slot.halt_path.read_bytes() == flag
    assert halt_problems(slotted.slot, slotted.state) == []


def test_a_halt_without_its_line_can_be_resumed(slotted: Slotted) -> None:
    """A flag that no line explains still halts, and resuming ends it with a line."""
    slotted.slot.halt_path.write_text("{}")
    assert slotted.served.halted
    assert resume(slotted.production, "default") is not None
    assert not slotted.served.halted


def test_a_flag_that_was_removed_is_put_back(slotted: Slotted) -> None:
    """The log halts all the same, and the next repair writes the flag again."""
    halt(slotted.production, "default", "feed")
    flag = slotted.slot.halt_path.read_bytes()
    slotted.slot.halt_path.unlink()
    assert "missing" in halt_problems(slotted.slot, slotted.state)[0]
    assert slotted.served.halted

    slotted.production.recover()
    assert slotted.slot.halt_path.read_bytes() == flag


HALTS = """
import sys
from pathlib import Path
from sqkit.errors import SqkitError
from sqkit.production.interventions import halt
from tests.releases import Slotted
project = Slotted(Path(sys.argv[1]))
try:
    halt(project.production, "default", "feed")
except SqkitError as problem:
    print(type(problem).__name__, problem)
print(*project.said, sep="\\n")
"""


def halt_with_rights(slotted: Slotted, read_only: list[Path], rights: list[str]) -> str:
    """What a halt says where some folders are read-only."""
    for folder in read_only:
        folder.chmod(0o555)
    try:
        words = [*rights, sys.executable, "-c", HALTS, str(slotted.root)]
        run = subprocess.run(words, capture_output=True, text=True, check=False)
    finally:
        for folder in read_only:
            folder.chmod(0o755)
    assert run.returncode == 0, run.stderr
    return run.stdout


def lock(slotted: Slotted) -> None:
    """Take the right to write the log itself, and its lock."""
    for name in ("audit.jsonl", ".audit.lock"):
        (slotted.models / name).chmod(0o444)


def test_a_halt_works_where_the_log_cannot_be_written(
    slotted: Slotted, without_root_rights: list[str]
) -> None:
    """A read-only models folder: the flag is what stops the student, and that is said."""
    lock(slotted)
    said = halt_with_rights(slotted, [slotted.models], without_root_rights)

    assert "is halted, but that is not in the audit log" in said
    assert "no permission" in said
    assert slotted.served.halted
    assert slotted.state.halted is None


def test_a_halt_works_where_the_flag_cannot_be_written(
    slotted: Slotted, without_root_rights: list[str]
) -> None:
    """A read-only production folder: the line is what stops the student, and that is said."""
    said = halt_with_rights(slotted, [slotted.slot.folder], without_root_rights)

    assert "is halted by the audit log alone" in said
    assert slotted.served.halted
    assert slotted.state.halted is not None


def test_a_halt_that_halts_nothing_says_so(slotted: Slotted, without_root_rights: list[str]) -> None:
    """Neither flag nor line: one line that says NOT, and what stops the student then."""
    lock(slotted)
    said = halt_with_rights(slotted, [slotted.models, slotted.slot.folder], without_root_rights).strip()

    assert said.startswith(f"{OutputError.__name__} slot default is NOT halted")
    assert "set SENSEQUANT_STUDENT_MODEL_ENABLED=false and restart the engine" in said
    assert len(said.splitlines()) == 1
    assert not slotted.served.halted


def test_a_deleted_log_does_not_keep_from_halting(slotted: Slotted) -> None:
    """Not even that."""
    slotted.log.unlink()
    head_file(slotted.log).unlink()

    assert halt(slotted.production, "default", "feed") is None
    assert slotted.slot.halt_path.exists()


# --- ratify


def rolled_back(slotted: Slotted) -> Slotted:
    """Asha went back from B to A."""
    slotted.promote(2, "2025-03-01")
    slotted.roll_back()
    return slotted


def test_somebody_else_ratifies(slotted: Slotted) -> None:
    """The line names the rollback; nothing of production changes."""
    rolled_back(slotted)
    waiting = slotted.state.unratified
    assert waiting is not None
    before = files_below(slotted.slot.folder)
    entry = ratify(by(slotted, BELA).production, "default", "agreed\nfully")

    assert (entry["kind"], entry["rollback"], entry["comment"]) == (RATIFY, waiting["digest"], "agreed fully")
    assert slotted.state.unratified is None
    assert files_below(slotted.slot.folder) == before


@pytest.mark.parametrize("name", ["Asha", "ASHA", "asha", " Asha "])
def test_whoever_rolled_back_does_not_ratify(slotted: Slotted, name: str) -> None:
    """However the name is written; the refusal says how somebody else does it."""
    rolled_back(slotted)

    with pytest.raises(SelfApproval, match=r"somebody else has to ratify it; .*--as"):
        ratify(by(slotted, Actor.here(name)).production, "default")
    assert slotted.state.unratified is not None


def test_a_signature_does_not_hide_the_name(slotted: Slotted, tmp_path: Path) -> None:
    """Signed as somebody of the signers file, but under the name that rolled back: the same person twice."""
    if not has_ssh_keygen():
        pytest.skip("ssh-keygen is not installed")
    key = make_key(tmp_path, "bela")
    (tmp_path / "signers").write_text(signers_line("bela@example.com", key))
    rolled_back(slotted)
    for actor in (ASHA, BELA):
        production = by(slotted, actor).production
        production.settings = production.settings.model_copy(
            update={"promotion_allowed_signers": str(tmp_path / "signers")}
        )
        if actor == ASHA:
            with pytest.raises(SelfApproval, match="Asha rolled back"):
                ratify(production, "default", key=key)
            continue
        with pytest.raises(SignatureRefused, match="--key"):
            ratify(production, "default")
        entry = ratify(production, "default", key=key)
        assert entry["actor"] == BELA.to_dict() | {"principal": "bela@example.com"}
    assert slotted.state.unratified is None


def test_where_self_approval_is_allowed_one_may_ratify_oneself(slotted: Slotted) -> None:
    """A desk of one person says so in its settings."""
    rolled_back(slotted)
    production = slotted.production
    production.settings = production.settings.model_copy(update={"promotion_allow_self_approval": True})

    assert ratify(production, "default")["kind"] == RATIFY


@pytest.mark.parametrize("slot", ["default", "swing"])
def test_where_nothing_waits_there_is_nothing_to_ratify(slotted: Slotted, slot: str) -> None:
    """Never rolled back, ratified already, or promoted since."""
    with pytest.raises(UsageError, match="no rollback waits to be ratified"):
        ratify(by(slotted, BELA).production, slot)
    rolled_back(by(slotted, ASHA))
    ratify(by(slotted, BELA).production, "default")
    with pytest.raises(UsageError, match="no rollback waits"):
        ratify(slotted.production, slot)


def test_a_rollback_to_no_student_waits_too(slotted: Slotted) -> None:
    """Nobody approved that either."""
    slotted.roll_back("none")
    ratify(by(slotted, BELA).production, "default")

    assert slotted.state.unratified is None


# --- quarantine


def barred(slotted: Slotted) -> str:
    """The digest that a rollback barred."""
    return next(iter(rolled_back(slotted).state.quarantined))


@pytest.mark.parametrize("digits", [8, 12, 64])
def test_a_quarantine_is_released_by_the_digests_beginning(slotted: Slotted, digits: int) -> None:
    """Eight digits are enough, in either case."""
    digest = barred(slotted)
    entry = release_quarantine(slotted.production, "default", digest[:digits].upper(), "it was the feed")

    assert (entry["kind"], entry["model"], entry["reason"]) == (QUARANTINE_RELEASE, digest, "it was the feed")
    assert slotted.state.quarantined == {}


@pytest.mark.parametrize("digest", ["", "abc", "f" * 64, "none", "%s"])
def test_what_is_not_quarantined_cannot_be_released(slotted: Slotted, digest: str) -> None:
    """The refusal lists what is."""
    known = barred(slotted)

    with pytest.raises(ArchiveUnknown, match=f"quarantined: {known[:12]}"):
        release_quarantine(slotted.production, "default", digest or known[:7], "it was the feed")
    assert set(slotted.state.quarantined) == {known}


def test_a_beginning_of_two_digests_is_ambiguous(slotted: Slotted) -> None:
    """More digits are asked for."""
    models = ["a" * 63 + ending for ending in "01"]
    for model in models:
        said = {"release": None, "model": None, "model_version": None, "quarantines": model, "replaces": None}
        slotted.production.append(slotted.slot, ROLLBACK, CONTENTS[ROLLBACK] | said)

    with pytest.raises(ArchiveAmbiguous, match="give more digits") as caught:
        release_quarantine(slotted.production, "default", "a" * 10, "it was the feed")
    assert caught.value.values["models"] == models
    assert release_quarantine(slotted.production, "default", models[1], "it was the feed")
    assert set(slotted.state.quarantined) == {models[0]}


def test_a_quarantine_is_released_for_a_reason(slotted: Slotted) -> None:
    """And once."""
    digest = barred(slotted)
    with pytest.raises(UsageError, match="quarantine release: say why"):
        release_quarantine(slotted.production, "default", digest, " ")
    release_quarantine(slotted.production, "default", digest, "it was the feed")
    with pytest.raises(ArchiveUnknown, match="quarantined: none"):
        release_quarantine(slotted.production, "default", digest, "it was the feed")


# --- all of them


@pytest.mark.parametrize("name", ["halt", "resume", "ratify", "quarantine"])
def test_refusals_are_one_line_and_leave_nothing(slotted: Slotted, name: str) -> None:
    """With a log that does not hold only a halt does anything."""
    rolled_back(slotted)
    halted = halt(slotted.production, "default", "feed")
    assert halted is not None
    break_log(slotted)
    before = files_below(slotted.root)
    acts = {
        "halt": lambda: halt(slotted.production, "default", "feed"),
        "resume": lambda: resume(slotted.production, "default"),
        "ratify": lambda: ratify(by(slotted, BELA).production, "default"),
        "quarantine": lambda: release_quarantine(slotted.production, "default", "a" * 8, "x"),
    }
    try:
        acts[name]()
    except SqkitError as problem:
        said = str(problem)
    else:
        said = slotted.said[-1]
    assert "line 1 was edited" in said
    assert "\n" not in said
    assert files_below(slotted.root) == before
