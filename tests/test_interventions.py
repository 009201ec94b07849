"""Halt, resume, ratify, release from quarantine: what a person does at once, and what keeps nobody from it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sqkit.audit_log import HALT, QUARANTINE_RELEASE, RATIFY, RESUME, ROLLBACK
from sqkit.chain import Entry, head_file
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
from sqkit.production.halting import HALT_LEVELS, NO_NEW_ENTRIES, STUDENT_OFF, read_halt, read_level
from sqkit.production.interventions import halt, halt_slots, ratify, release_quarantine, resume
from sqkit.production.signing import has_ssh_keygen
from sqkit.production.slot_check import halt_problems
from sqkit.settings import Settings
from tests.audited import Audited
from tests.policies import accept, usual
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


def flag_in(slotted: Slotted) -> dict[str, Any]:
    """What the flag says."""
    return json.loads(slotted.slot.halt_path.read_text())  # type: ignore[no-any-return]


def test_a_halt_is_a_flag_and_a_line(slotted: Slotted) -> None:
    """What an engine looks at, and what stays: how far, who, when, why."""
    entry = halt(slotted.production, "default", "feed looks wrong")

    assert entry == slotted.entries[-1] == slotted.state.halted
    assert (entry["kind"], entry["level"], entry["reason"]) == (HALT, STUDENT_OFF, "feed looks wrong")
    assert flag_in(slotted) == {
        "at": entry["at"],
        "by": ASHA.to_dict(),
        "level": STUDENT_OFF,
        "reason": "feed looks wrong",
    }
    assert read_halt(slotted.slot.halt_path) == (STUDENT_OFF, entry["at"], "Asha", "feed looks wrong")
    assert slotted.served.halt_level == STUDENT_OFF
    assert slotted.live == 1


@pytest.mark.parametrize("level", [None, *HALT_LEVELS])
def test_halting_twice_is_halting_once(slotted: Slotted, level: str | None) -> None:
    """The first flag and the first line stay, whatever the second reason says."""
    halt(slotted.production, "default", "feed", level)
    before = files_below(slotted.root)

    assert halt(slotted.production, "default", "still the feed", level) is None
    assert files_below(slotted.root) == before
    assert slotted.said == []


@pytest.mark.parametrize(("first", "then"), [HALT_LEVELS, HALT_LEVELS[::-1]])
def test_halting_at_another_level_changes_the_level(slotted: Slotted, first: str, then: str) -> None:
    """Further or less far, as asked: a flag and a line of its own, with the second reason."""
    halt(slotted.production, "default", "feed", first)
    slotted.on("")
    entry = halt(slotted.production, "default", "prices", then)

    assert entry == slotted.state.halted == slotted.entries[-1]
    assert (entry["level"], entry["reason"]) == (then, "prices")
    assert (flag_in(slotted)["level"], flag_in(slotted)["at"]) == (then, entry["at"])
    assert slotted.served.halt_level == then
    assert slotted.said == []


def test_a_halt_that_names_no_level_never_lets_entries_in_again(slotted: Slotted) -> None:
    """Somebody in doubt halts what a colleague has halted further: that stays, whether flag or log says so."""
    halt(slotted.production, "default", "prices", NO_NEW_ENTRIES)
    flag = slotted.slot.halt_path.read_bytes()

    assert halt(slotted.production, "default", "in doubt") is None
    assert slotted.slot.halt_path.read_bytes() == flag
    slotted.slot.halt_path.unlink()
    assert halt(slotted.production, "default", "in doubt") is None
    assert read_level(slotted.slot.halt_path) == NO_NEW_ENTRIES
    assert len(slotted.entries) == 2


@pytest.mark.parametrize("level", ["", "Student_off", "everything"])
def test_an_unknown_level_is_refused(slotted: Slotted, level: str) -> None:
    """One line that lists both; nothing is written."""
    before = files_below(slotted.root)

    with pytest.raises(UsageError, match="choose one of student_off, no_new_entries"):
        halt(slotted.production, "default", "feed", level)
    assert files_below(slotted.root) == before


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


def test_a_halt_by_the_log_alone_can_be_resumed(tmp_path: Path) -> None:
    """Also where the slot has no folder yet."""
    project = Slotted(tmp_path)
    project.production.append(project.slot, HALT, CONTENTS[HALT])
    assert project.served.halted

    assert resume(project.production, "default") is not None
    assert not project.served.halted
    assert not project.slot.folder.exists()


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


def test_a_halt_of_a_strategy_without_a_slot_says_which_slot_it_halts(slotted: Slotted) -> None:
    """The default slot serves swing; whoever meant intraday stops that one, at once, and reads so."""
    halt(slotted.production, "intraday", "feed")

    assert slotted.served.halted
    assert slotted.said == [
        "intraday has no slot of its own: this is about the default slot, which serves swing"
    ]
    halt(slotted.production, "swing", "feed")
    halt(slotted.production, "default", "feed")
    assert len(slotted.said) == 1


def test_an_unknown_slot_is_refused(slotted: Slotted) -> None:
    """One line that lists the slots."""
    with pytest.raises(UsageError, match="choose one of default"):
        halt(slotted.production, "futures", "feed")


def both_slots(root: Path) -> Audited:
    """A project with a default and a swing slot, a release in each."""
    project = Audited(root)
    project.promote(1)
    Audited(root, slot_name="swing").promote(11)
    return project


def test_every_slot_is_halted_by_one_call(tmp_path: Path) -> None:
    """Each with a flag and a line of its own, and what came of each."""
    project = both_slots(tmp_path)
    halt(project.production, "swing", "earlier", NO_NEW_ENTRIES)
    default, swing = halt_slots(project.production, ["default", "swing"], "feed")

    assert (default.slot, default.before, default.level) == ("default", None, STUDENT_OFF)
    assert default.entry == project.state.halted
    assert (swing.slot, swing.before, swing.level, swing.entry) == ("swing", *[NO_NEW_ENTRIES] * 2, None)
    assert default.refusal is swing.refusal is None


def test_no_slot_waits_for_the_line_of_another(tmp_path: Path) -> None:
    """Every flag is raised before the first line: a log that another process holds keeps nobody trading."""
    production = both_slots(tmp_path).production
    flags = [production.slot(name).halt_path for name in ("default", "swing")]
    raised = []
    append = production.append

    def appending(*words: Any) -> Entry:
        raised.append([read_level(flag) for flag in flags])
        return append(*words)

    production.append = appending  # type: ignore[method-assign]
    halt_slots(production, ["default", "swing"], "feed")

    assert raised == [[STUDENT_OFF, STUDENT_OFF]] * 2


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


def lay_symlink(place: Path) -> None:
    """A symlink that leads nowhere."""
    place.symlink_to("nowhere")


@pytest.mark.parametrize("lay", [Path.touch, lay_symlink, os.mkfifo], ids=["empty file", "symlink", "pipe"])
def test_a_halt_without_its_line_can_be_resumed(slotted: Slotted, lay: Callable[[Path], None]) -> None:
    """Whatever is called halt.json halts, and resuming ends it with a line."""
    lay(slotted.slot.halt_path)
    assert slotted.served.halt_level == NO_NEW_ENTRIES
    assert resume(slotted.production, "default") is not None
    assert not slotted.served.halted


@pytest.mark.parametrize("lay", [Path.touch, lay_symlink, os.mkfifo], ids=["empty file", "symlink", "pipe"])
@pytest.mark.parametrize("level", HALT_LEVELS)
def test_what_lies_in_the_flags_place_gives_way_to_a_flag(
    slotted: Slotted, lay: Callable[[Path], None], level: str
) -> None:
    """A halt replaces it at once, and neither waits for a pipe nor writes through a symlink."""
    lay(slotted.slot.halt_path)
    halt(slotted.production, "default", "feed", level)

    assert not slotted.slot.halt_path.is_symlink()
    assert flag_in(slotted)["level"] == level
    assert not (slotted.slot.folder / "nowhere").exists()
    assert slotted.said == []


def test_a_folder_in_the_flags_place_halts_and_is_said(slotted: Slotted) -> None:
    """It cannot be replaced: the strictest level holds until somebody moves it away."""
    slotted.slot.halt_path.mkdir()
    halt(slotted.production, "default", "feed", STUDENT_OFF)

    assert slotted.served.halt_level == NO_NEW_ENTRIES
    assert "slot default is halted at no_new_entries" in slotted.said[0]
    assert "a folder lies where a file belongs" in slotted.said[0]
    with pytest.raises(OutputError, match="a folder lies where a file belongs"):
        resume(slotted.production, "default")
    assert slotted.served.halted


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
from tests.crash_driver import limit_file_size
from tests.releases import Slotted
project = Slotted(Path(sys.argv[1]))
if sys.argv[3:]:
    limit_file_size(int(sys.argv[3]), fatal=False)
try:
    halt(project.production, "default", "feed", sys.argv[2] if len(sys.argv) > 2 else None)
except SqkitError as problem:
    print(type(problem).__name__, problem)
print(*project.said, sep="\\n")
"""


def halt_with_rights(slotted: Slotted, read_only: list[Path], rights: list[str], *level: str) -> str:
    """What a halt says where some folders are read-only."""
    for folder in read_only:
        folder.chmod(0o555)
    try:
        words = [*rights, sys.executable, "-c", HALTS, str(slotted.root), *level]
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

    assert said.startswith(f"{OutputError.__name__} slot default is NOT halted: ")
    assert f"touch {slotted.slot.halt_path} as an account that may, or " in said
    assert "set SENSEQUANT_STUDENT_MODEL_ENABLED=false and restart the engine" in said
    assert len(said.splitlines()) == 1
    assert not slotted.served.halted


def halt_without_room(slotted: Slotted, level: str) -> list[str]:
    """What a halt says where no file may grow by a byte, as on a disk or a quota that is used up."""
    words = [sys.executable, "-c", HALTS, str(slotted.root), level, "0"]
    run = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


@pytest.mark.parametrize("level", HALT_LEVELS)
def test_a_halt_works_where_no_file_can_grow(slotted: Slotted, level: str) -> None:
    """An empty flag is written, which halts at the strictest level; that is said, and that no line could be written."""
    log = slotted.log.read_bytes()
    unlogged, unworded = halt_without_room(slotted, level)

    assert slotted.slot.halt_path.read_bytes() == b""
    assert slotted.served.halt_level == NO_NEW_ENTRIES
    assert slotted.log.read_bytes() == log
    assert unlogged.startswith("slot default is halted, but that is not in the audit log: ")
    assert unworded.startswith("slot default is halted at no_new_entries: ")
    assert "until then the flag is empty" in unworded
    assert ("sqkit halt --level student_off lowers it then" in unworded) == (level == STUDENT_OFF)
    assert [path.name for path in slotted.slot.folder.iterdir() if path.suffix == ".tmp"] == []


def test_where_there_is_room_again_halting_again_writes_all_of_it(slotted: Slotted) -> None:
    """Without a level the strictest stays; the one that was meant has to be named."""
    halt_without_room(slotted, STUDENT_OFF)
    halt(slotted.production, "default", "feed")
    assert (flag_in(slotted)["level"], flag_in(slotted)["reason"]) == (NO_NEW_ENTRIES, "feed")

    halt(slotted.production, "default", "feed", STUDENT_OFF)
    assert [entry["level"] for entry in slotted.entries[1:]] == [NO_NEW_ENTRIES, STUDENT_OFF]
    assert slotted.served.halt_level == STUDENT_OFF
    assert halt_problems(slotted.slot, slotted.state) == []


def test_a_halt_goes_further_where_no_file_can_grow(slotted: Slotted) -> None:
    """From the student to new entries: the flag is emptied by a rename, never half of one."""
    halt(slotted.production, "default", "feed")
    halt_without_room(slotted, NO_NEW_ENTRIES)

    assert slotted.slot.halt_path.read_bytes() == b""
    assert slotted.served.halt_level == NO_NEW_ENTRIES


def test_a_flag_that_halts_further_keeps_its_words_where_no_file_can_grow(slotted: Slotted) -> None:
    """Nothing is lost for a milder halt that cannot be written."""
    halt(slotted.production, "default", "prices", NO_NEW_ENTRIES)
    flag = slotted.slot.halt_path.read_bytes()
    said = halt_without_room(slotted, STUDENT_OFF)

    assert slotted.slot.halt_path.read_bytes() == flag
    assert "slot default is halted at no_new_entries: " in said[1]


def test_a_level_that_can_be_written_nowhere_is_said_to_be_missing(
    slotted: Slotted, without_root_rights: list[str]
) -> None:
    """Read-only folders: the student stays halted, new entries do not, and the line says what does stop them."""
    halt(slotted.production, "default", "feed")
    lock(slotted)
    said = halt_with_rights(
        slotted, [slotted.models, slotted.slot.folder], without_root_rights, NO_NEW_ENTRIES
    )

    assert said.startswith("OutputError slot default is NOT halted at no_new_entries: ")
    assert said.strip().endswith(f"touch {slotted.slot.halt_path} as an account that may, or stop the engine")
    assert slotted.served.halt_level == STUDENT_OFF


def test_what_cannot_be_looked_at_is_not_taken_for_a_halt(
    slotted: Slotted, without_root_rights: list[str]
) -> None:
    """A folder that this account may not enter: an engine that may finds no flag in it, so nothing is halted."""
    lock(slotted)
    slotted.models.chmod(0o555)
    slotted.slot.folder.chmod(0)
    said = halt_with_rights(slotted, [slotted.models], without_root_rights)
    slotted.slot.folder.chmod(0o755)

    assert said.startswith("OutputError slot default is NOT halted: ")
    assert not slotted.served.halted


def test_a_flag_that_only_others_may_read_is_not_taken_for_the_strictest(
    slotted: Slotted, without_root_rights: list[str]
) -> None:
    """It halts, nobody here knows how far: new entries are not said to be stopped."""
    halt(slotted.production, "default", "feed")
    lock(slotted)
    slotted.slot.halt_path.chmod(0)
    said = halt_with_rights(
        slotted, [slotted.models, slotted.slot.folder], without_root_rights, NO_NEW_ENTRIES
    )

    assert said.startswith("OutputError slot default is NOT halted at no_new_entries: ")


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
    (waiting,) = slotted.state.unratified
    before = files_below(slotted.slot.folder)
    (entry,) = ratify(by(slotted, BELA).production, "default", "agreed\nfully")

    assert (entry["kind"], entry["rollback"], entry["comment"]) == (RATIFY, waiting["digest"], "agreed fully")
    assert slotted.state.unratified == ()
    assert files_below(slotted.slot.folder) == before


@pytest.mark.parametrize("name", ["Asha", "ASHA", "asha", " Asha "])
def test_whoever_rolled_back_does_not_ratify(slotted: Slotted, name: str) -> None:
    """However the name is written; the refusal says how somebody else does it."""
    rolled_back(slotted)

    with pytest.raises(SelfApproval, match=r"somebody else has to ratify it; .*--as"):
        ratify(by(slotted, Actor.here(name)).production, "default")
    assert slotted.state.unratified


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
        (entry,) = ratify(production, "default", key=key)
        assert entry["actor"] == BELA.to_dict() | {"principal": "bela@example.com"}
    assert slotted.state.unratified == ()


def test_where_self_approval_is_allowed_one_may_ratify_oneself(slotted: Slotted) -> None:
    """A desk of one person says so in its settings."""
    rolled_back(slotted)
    production = slotted.production
    production.settings = production.settings.model_copy(update={"promotion_allow_self_approval": True})

    assert [entry["kind"] for entry in ratify(production, "default")] == [RATIFY]


def test_the_policy_in_force_says_who_may_ratify_oneself(slotted: Slotted) -> None:
    """A setting is looser than what was accepted and has no effect; an accepted policy that allows it does."""
    accept(slotted.root, usual(allow_self_approval=False), market="us")
    rolled_back(slotted)
    production = slotted.production
    production.settings = Settings(_env_file=None, market="us", promotion_allow_self_approval=True)

    with pytest.raises(SelfApproval, match="somebody else has to ratify it"):
        ratify(production, "default")
    accept(slotted.root, usual(allow_self_approval=True), market="us")
    assert ratify(slotted.production, "default")


def twice_rolled_back(slotted: Slotted) -> Slotted:
    """Asha went back from C to B, and Bela from B to A."""
    slotted.promote(2, "2025-03-01")
    slotted.promote(3, "2025-03-02")
    slotted.roll_back("", "2025-03-03")
    by(slotted, BELA).roll_back(slotted.entries[0]["release"], "2025-03-04")
    slotted.actor = Actor("Chen", "chen", "desk3")
    return slotted


def test_the_newest_rollback_is_ratified_and_the_others_still_wait(slotted: Slotted) -> None:
    """Agreeing to what was done last says nothing of what was done before it."""
    twice_rolled_back(slotted)
    first, second = slotted.state.unratified

    assert [entry["rollback"] for entry in ratify(slotted.production, "default")] == [second["digest"]]
    assert slotted.state.unratified == (first,)
    assert [entry["rollback"] for entry in ratify(slotted.production, "default")] == [first["digest"]]
    assert not slotted.state.unratified


def test_all_that_wait_are_ratified_at_once(slotted: Slotted) -> None:
    """A line for each; where one of them is one's own, none is written."""
    twice_rolled_back(slotted)
    lines = len(slotted.entries)

    with pytest.raises(SelfApproval, match=r"Asha rolled back on 2025-03-03 \(line 4\)"):
        ratify(by(slotted, ASHA).production, "default", every=True)
    assert len(slotted.entries) == lines
    said = ratify(by(slotted, Actor("Chen", "chen", "desk3")).production, "default", "both", every=True)
    assert [entry["comment"] for entry in said] == ["both", "both"]
    assert slotted.state.unratified == ()


def test_a_rollback_by_machine_ratifies_nothing(slotted: Slotted) -> None:
    """What a person did without approval still waits after it."""
    twice_rolled_back(slotted)
    waiting = slotted.state.unratified
    slotted.production.append(slotted.slot, ROLLBACK, AUTOMATIC_TO_NONE)

    assert slotted.state.unratified == waiting


AUTOMATIC_TO_NONE = CONTENTS[ROLLBACK] | {
    "automatic": True,
    "model": None,
    "model_version": None,
    "quarantines": None,
    "release": None,
    "replaces": None,
}


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

    assert slotted.state.unratified == ()


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


def test_a_release_from_quarantine_is_signed_where_signers_are_set(slotted: Slotted, tmp_path: Path) -> None:
    """As a ratification is: what may come back unseen else is said by somebody who may say it."""
    if not has_ssh_keygen():
        pytest.skip("ssh-keygen is not installed")
    key = make_key(tmp_path, "bela")
    (tmp_path / "signers").write_text(signers_line("bela@example.com", key, 'namespaces="sqkit-quarantine"'))
    digest = barred(slotted)
    production = by(slotted, BELA).production
    production.settings = production.settings.model_copy(
        update={"promotion_allowed_signers": str(tmp_path / "signers")}
    )

    with pytest.raises(SignatureRefused, match=r"releasing a quarantine has to be signed here.*--key"):
        release_quarantine(production, "default", digest, "it was the feed")
    assert set(slotted.state.quarantined) == {digest}
    entry = release_quarantine(production, "default", digest, "it was the feed", key=key)
    assert entry["actor"]["principal"] == "bela@example.com"
    assert entry["rollback"] == slotted.entries[2]["digest"]
    assert slotted.state.quarantined == {}


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
