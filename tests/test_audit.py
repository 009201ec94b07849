"""The audit log: strict lines, in order of time, shared by processes, and what is lost from it shows."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sqkit.audit_log import (
    ATTEST,
    DRILL,
    HALT,
    OBJECTION,
    PROMOTE,
    RATIFY,
    RESUME,
    ROLLBACK,
    is_release_name,
    read_audit,
)
from sqkit.chain import Entry, head_file
from sqkit.errors import AuditBroken, UsageError
from sqkit.files import canonical_json, sha256_json
from sqkit.people import Actor, one_line
from sqkit.production.audit import AuditLog, date_in
from tests.releases import ASHA, CONTENTS, START, Slotted, files_below, machine_zone

NEW_YORK = "America/New_York"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A models folder that does not exist yet."""
    return tmp_path / "data/models"


@pytest.fixture
def slotted(tmp_path: Path) -> Slotted:
    """A scratch project."""
    return Slotted(tmp_path)


def append(log: AuditLog, kind: str = HALT, now: dt.datetime = START, **said: Any) -> Entry:
    """A line of that kind."""
    return log.append(kind, {**CONTENTS[kind], **said}, slot="default", actor=ASHA, now=now, zone=NEW_YORK)


# --- what a line may say


@pytest.mark.parametrize("kind", CONTENTS)
def test_each_kind_is_written_and_read_back(models: Path, kind: str) -> None:
    """What is appended is what any reader gets, with what every line has."""
    entry = append(AuditLog(models), kind)

    assert read_audit(models) == [entry]
    assert {name: entry[name] for name in CONTENTS[kind]} == CONTENTS[kind]
    assert (entry["kind"], entry["slot"], entry["actor"]) == (kind, "default", ASHA.to_dict())
    assert (entry["at"], entry["date"]) == ("2025-01-01T15:00:00Z", "2025-01-01")


@pytest.mark.parametrize(("kind", "field"), [(kind, field) for kind in CONTENTS for field in CONTENTS[kind]])
def test_a_line_without_one_of_its_fields_is_refused(models: Path, kind: str, field: str) -> None:
    """Nothing is written, not even a file."""
    content = {name: value for name, value in CONTENTS[kind].items() if name != field}

    with pytest.raises(UsageError, match="no kind of line"):
        AuditLog(models).append(kind, content, slot="default", actor=ASHA, now=START, zone=NEW_YORK)
    assert not (models / "audit.jsonl").exists()


@pytest.mark.parametrize("kind", CONTENTS)
def test_a_line_with_a_field_of_no_meaning_is_refused(models: Path, kind: str) -> None:
    """Strict both ways: what nobody reads is not written."""
    with pytest.raises(UsageError, match="no kind of line"):
        append(AuditLog(models), kind, note_to_self="x")
    assert not (models / "audit.jsonl").exists()


@pytest.mark.parametrize(("kind", "field"), [(kind, field) for kind in CONTENTS for field in CONTENTS[kind]])
def test_a_value_of_another_type_is_refused(models: Path, kind: str, field: str) -> None:
    """A number, a list of numbers, a nested list: no field takes any of them, but for a count of milliseconds."""
    log = AuditLog(models)
    for value in (-1, 1.5, [1], [["a"]], [{}]):
        with pytest.raises(UsageError, match=f"cannot say {field}="):
            append(log, kind, **{field: value})
    assert not (models / "audit.jsonl").exists()


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        *((HALT, "reason", value) for value in ("", " ", "two\nlines", "bell\a", None)),
        *((HALT, "level", value) for value in ("", "STUDENT_OFF", "student_off ", "everything", None, True)),
        *((RESUME, "reason", value) for value in ("two\nlines", None)),
        *((PROMOTE, "release", value) for value in ("../../tmp/x", "", "20250101_120000", None)),
        (PROMOTE, "release", "20250101_120000_aaaaaaaa\n"),
        (PROMOTE, "release", "20250101_120000_bbbbbbbb"),  # of another model than the line names
        (PROMOTE, "release", "٢٠٢٥٠١٠١_120000_aaaaaaaa"),
        *(
            (PROMOTE, "files", {"student_model.onnx": "a" * 64, name: "b" * 64})
            for name in ("../x", "a/b", ".hidden", "", "a\nb", "..", "/etc/passwd", "x" * 101)
        ),
        (PROMOTE, "files", {}),
        (PROMOTE, "files", {"student_model.onnx": "b" * 64}),  # not the model that the digests name
        (PROMOTE, "files", {"student_model.onnx": "a" * 64, "promotion_checklist.json": "A" * 64}),
        (PROMOTE, "digests", {"policy": "b" * 64}),
        (PROMOTE, "digests", {"model": "a" * 64 + "\n"}),
        (PROMOTE, "symbols", ["AAA", ""]),
        (PROMOTE, "approvals", {"ml_lead": "Asha"}),
        (PROMOTE, "approvals", {"ml_lead": {"name": "Asha"}}),
        (PROMOTE, "approvals", {"ml_lead": {"name": None, "signed": False}}),
        (PROMOTE, "approvals", {"ml_lead": {"name": "Asha", "signed": "yes"}}),
        (PROMOTE, "boxes", {"criteria-met": True}),
        (PROMOTE, "replaces", {"release": None, "model": "a" * 64}),
        (PROMOTE, "replaces", {"release": "../x", "model": "a" * 64}),
        (PROMOTE, "environment", {"file": "", "lines": []}),
        (PROMOTE, "environment", {"file": 1, "lines": []}),
        (PROMOTE, "environment", {"file": ".profile", "lines": ["PATH=/tmp"]}),
        (PROMOTE, "reduced_control", "no"),
        (ROLLBACK, "release", "none"),
        (ROLLBACK, "model", None),  # names a release and no model
        (ROLLBACK, "model", "b" * 64),
        (ROLLBACK, "release", None),  # names a model and no release
        (ROLLBACK, "automatic", 1),
        (RATIFY, "rollback", "a" * 63),
        (DRILL, "milliseconds", True),
        (DRILL, "milliseconds", -1),
        (DRILL, "passed", 1),
        (ATTEST, "release", "x"),
        (OBJECTION, "fact", "0123456789AB"),
        (OBJECTION, "what", "approve"),
        (OBJECTION, "model", None),
    ],
)
def test_values_that_nobody_writes_are_refused(models: Path, kind: str, field: str, value: Any) -> None:
    """Names lead nowhere but into the archive, digests are digests, a line agrees with itself, texts are one line."""
    with pytest.raises(UsageError) as caught:
        append(AuditLog(models), kind, **{field: value})

    assert "\n" not in str(caught.value)
    assert not (models / "audit.jsonl").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("actor", value) for value in ({}, None, {"name": "x"}, ASHA.to_dict() | {"host": 1})),
        *(("actor", ASHA.to_dict() | {name: "two\nlines"}) for name in ("name", "user", "principal")),
        *(("at", value) for value in ("yesterday", "2025-01-01", "2025-01-01T15:00:00+00:00", "", None)),
        *(("at", value) for value in ("2025-01-01T15:00Z", "20250101T150000Z", "2025-13-01T15:00:00Z")),
        *(("date", value) for value in ("20250101", "2025-02-30", "", None)),
        *(("slot", value) for value in ("", None, "two\nlines")),
        ("sqkit_version", None),
    ],
)
def test_what_every_line_has_is_strict_too(models: Path, name: str, value: Any) -> None:
    """Somebody who writes a whole chain anew, digests and all, still cannot say what sqkit never says."""
    entry = append(AuditLog(models))
    content = {key: value for key, value in (entry | {name: value}).items() if key != "digest"}
    line = canonical_json(content | {"digest": sha256_json(content)}, indent=None)
    (models / "audit.jsonl").write_text(line)
    head_file(models / "audit.jsonl").unlink()

    with pytest.raises(AuditBroken, match="line 1 is no line of this version"):
        read_audit(models)


def test_an_unknown_kind_is_refused(models: Path) -> None:
    """Nobody writes, and nobody reads, a kind that sqkit does not know."""
    with pytest.raises(UsageError, match="'delete'"):
        AuditLog(models).append("delete", {}, slot="default", actor=ASHA, now=START, zone=NEW_YORK)


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("20250101_120000_a1b2c3d4", True),
        *(
            (name, False)
            for name in ("20250101_120000_A1B2C3D4", "x/20250101_120000_a1b2c3d4", "..", None, 7)
        ),
    ],
)
def test_a_release_name_is_no_path(name: Any, *, fits: bool) -> None:
    """Time and eight digits of the model, and nothing else."""
    assert is_release_name(name) is fits


# --- time


def test_time_never_runs_backwards_in_the_log(models: Path) -> None:
    """A clock that was set back dates a line like the one before it; when it has caught up it counts again."""
    log = AuditLog(models)
    clocks = [START, START - dt.timedelta(days=400), START + dt.timedelta(seconds=1), START]
    for now in clocks:
        append(log, now=now)

    told = [entry["at"] for entry in read_audit(models)]
    assert told == sorted(told)
    assert told == [
        *("2025-01-01T15:00:00Z", "2025-01-01T15:00:00Z", "2025-01-01T15:00:01Z", "2025-01-01T15:00:01Z")
    ]


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/New_York"])
@pytest.mark.parametrize(
    ("at", "market", "date"),
    [
        ("2025-02-28T18:29:59Z", "Asia/Kolkata", "2025-02-28"),
        ("2025-02-28T18:30:00Z", "Asia/Kolkata", "2025-03-01"),
        ("2025-03-01T04:59:59Z", "America/New_York", "2025-02-28"),
        ("2025-03-01T05:00:00Z", "America/New_York", "2025-03-01"),
        ("2025-07-01T03:59:59Z", "America/New_York", "2025-06-30"),  # summer time
    ],
)
def test_a_line_is_dated_in_the_markets_zone(zone: str, at: str, market: str, date: str) -> None:
    """Whatever zone the machine is in."""
    with machine_zone(zone):
        assert date_in(at, market) == date


# --- shared and torn


APPENDS = """
import sys
from pathlib import Path
from sqkit.audit_log import HALT
from sqkit.people import Actor
from sqkit.production.audit import AuditLog
from tests.releases import START
log = AuditLog(Path(sys.argv[1]))
for number in range(15):
    log.append(HALT, {"level": "student_off", "reason": f"{sys.argv[2]} {number}"}, slot=sys.argv[2],
               actor=Actor("A", "a", "h"), now=START, zone="UTC")
"""


def test_witnesses_in_one_folder_are_named_once(tmp_path: Path) -> None:
    """Each release.json says several lines; the refusal lists the folder, not each line."""
    slotted = Slotted(tmp_path)
    slotted.promote(1)
    slotted.promote(2)
    slotted.log.unlink()
    head_file(slotted.log).unlink()

    with pytest.raises(AuditBroken) as caught:
        slotted.production.log.entries()
    listed = str(caught.value).split("from a backup (")[1].split(" disagree")[0].split(", ")
    assert len(listed) == len(set(listed)) == 3


def test_two_processes_that_append_keep_one_chain(models: Path) -> None:
    """Every line of both is there, each process's own in order, and the chain holds."""
    started = [
        subprocess.Popen([sys.executable, "-c", APPENDS, str(models), slot]) for slot in ("default", "swing")
    ]
    assert [process.wait() for process in started] == [0, 0]
    entries = read_audit(models)

    assert len(entries) == 30
    for slot in ("default", "swing"):
        assert [entry["reason"] for entry in entries if entry["slot"] == slot] == [
            f"{slot} {number}" for number in range(15)
        ]


def test_another_process_does_not_write_between_the_lines_of_one(models: Path) -> None:
    """Who holds the log over several steps has it alone; whoever waits too long is told."""
    first, second = AuditLog(models), AuditLog(models)
    with first.writing() as write:
        for number in range(2):
            content = {"level": "student_off", "reason": f"{number}"}
            write(HALT, content, slot="default", actor=ASHA, now=START, zone="UTC")
        waiting = subprocess.Popen([sys.executable, "-c", APPENDS, str(models), "swing"])
    assert waiting.wait() == 0

    assert [entry["slot"] for entry in second.entries()] == ["default"] * 2 + ["swing"] * 15


def test_a_process_sees_what_another_wrote_meanwhile(models: Path) -> None:
    """Two logs open on one file: each goes on from what the other appended."""
    one, other = AuditLog(models), AuditLog(models)
    for number in range(3):
        append(one, reason=f"one {number}")
        append(other, reason=f"other {number}")

    assert [entry["reason"] for entry in one.entries()] == [
        f"{who} {number}" for number in range(3) for who in ("one", "other")
    ]


def test_a_torn_line_is_dropped_and_said(models: Path) -> None:
    """What a crash left of a line is removed by the next append, which says so."""
    said: list[str] = []
    append(AuditLog(models))
    with open(models / "audit.jsonl", "ab") as stream:
        stream.write(b'{"actor":{"host":"desk1","na')

    assert len(read_audit(models)) == 1
    append(AuditLog(models, say=said.append), RESUME)
    assert [entry["kind"] for entry in read_audit(models)] == [HALT, RESUME]
    assert [line for line in said if "line 2 was torn by a crash" in line] == said != []


def test_a_head_that_cannot_be_written_does_not_take_the_line_back(
    models: Path, without_root_rights: list[str]
) -> None:
    """The line is durable before its number is noted beside the log: it counts, and that is said."""
    append(AuditLog(models))
    models.chmod(0o555)
    try:
        words = [sys.executable, "-c", ONE_MORE, str(models)]
        run = subprocess.run([*without_root_rights, *words], capture_output=True, text=True, check=False)
    finally:
        models.chmod(0o755)

    assert run.returncode == 0, run.stderr
    assert "line 2 of audit.jsonl counts all the same" in run.stdout
    assert [entry["kind"] for entry in read_audit(models)] == [HALT, RESUME]


ONE_MORE = """
import sys
from pathlib import Path
from sqkit.audit_log import RESUME
from tests.test_audit import append
from sqkit.production.audit import AuditLog
append(AuditLog(Path(sys.argv[1]), say=print), RESUME)
"""


# --- what is lost or changed


@pytest.fixture
def promoted(slotted: Slotted) -> Slotted:
    """Two slots' worth of facts: A, a halt, a resume, B, back to A, a drill."""
    from sqkit.production.drill import drill
    from sqkit.production.interventions import halt, resume

    slotted.promote(1, "2025-01-01")
    halt(slotted.production, "default", "feed")
    resume(slotted.production, "default", "feed is back")
    slotted.promote(2, "2025-03-01")
    slotted.roll_back("20250301")
    drill(slotted.production, "default")
    return slotted


def cut(slotted: Slotted, lines: int) -> None:
    """Take that many lines off the end."""
    kept = slotted.log.read_bytes().splitlines(keepends=True)
    slotted.log.write_bytes(b"".join(kept[: len(kept) - lines]))


@pytest.mark.parametrize("lines", range(1, 7))
def test_lines_cut_off_the_end_show(promoted: Slotted, lines: int) -> None:
    """With the head in place, however many they are."""
    cut(promoted, lines)

    with pytest.raises(AuditBroken, match=r"audit\.head counted 6 lines"):
        promoted.entries  # noqa: B018


@pytest.mark.parametrize("lines", range(1, 7))
@pytest.mark.parametrize("head", ["gone", "older"])
def test_a_lost_promotion_shows_by_the_releases_themselves(promoted: Slotted, lines: int, head: str) -> None:
    """Without its head, or with one from a backup: each archived release counts its own line, production's record
    the line that put it there; only facts after the newest of them can be lost unseen."""
    cut(promoted, lines)
    counted = len(promoted.log.read_bytes().splitlines())
    if head == "gone" or counted == 0:
        head_file(promoted.log).unlink()
    else:
        last = json.loads(promoted.log.read_bytes().splitlines()[-1])
        head_file(promoted.log).write_text(json.dumps({"lines": counted, "digest": last["digest"]}))

    if counted >= 5:  # only the drill is lost
        assert len(promoted.entries) == counted
        return
    with pytest.raises(AuditBroken) as caught:
        promoted.entries  # noqa: B018
    witnesses = [Path(path) for path in caught.value.values["witnesses"]]
    assert promoted.slot.release_path in witnesses
    assert any("archive" in path.parts for path in witnesses) is (counted < 4)
    assert "restore audit.jsonl" in str(caught.value)
    assert "sqkit halt still stops the model" in str(caught.value)


def test_a_deleted_log_shows(promoted: Slotted) -> None:
    """No log is the beginning only where no release was ever archived."""
    promoted.log.unlink()
    head_file(promoted.log).unlink()

    with pytest.raises(AuditBroken, match="is missing or empty"):
        promoted.entries  # noqa: B018
    with pytest.raises(AuditBroken):
        promoted.promote(3)


def test_a_process_that_runs_on_sees_the_loss_too(slotted: Slotted) -> None:
    """A log that was read before any promotion, and is deleted after one: its reader does not start anew."""
    production = slotted.production
    assert production.log.entries() == []
    slotted.promote(1)
    slotted.log.unlink()
    head_file(slotted.log).unlink()

    with pytest.raises(AuditBroken):
        production.log.entries()


def test_a_record_that_changed_since_it_was_read_is_read_again(slotted: Slotted) -> None:
    """A process that runs on, production put on another line by another process, the log cut back: it shows."""
    slotted.promote(1)
    production = slotted.production
    assert len(production.log.entries()) == 1
    second = slotted.archived(slotted.promote(2))
    cut(slotted, 1)
    head_file(slotted.log).unlink()
    shutil.rmtree(second)

    with pytest.raises(AuditBroken) as caught:
        production.log.entries()
    assert caught.value.values["witnesses"] == [str(slotted.slot.release_path)] * 2


def test_a_witness_that_was_damaged_is_no_evidence(promoted: Slotted) -> None:
    """A release.json whose line was edited says nothing about the log; the log holds."""
    for place in [*promoted.models.glob("archive/*/release.json"), promoted.slot.release_path]:
        record = json.loads(place.read_text())
        for name in ("placed_by", "promotion"):
            record[name]["digest"] = "f" * 64
        place.write_text(json.dumps(record))

    assert len(promoted.entries) == 6


@pytest.mark.parametrize(
    ("change", "number"),
    [
        (lambda lines: [*lines[:2], lines[2].replace(b"feed is back", b"feed was off"), *lines[3:]], 3),
        (lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]], 3),
        (lambda lines: [*lines[:3], lines[1], *lines[3:]], 4),
        (lambda lines: [*lines[:2], *lines[3:]], 3),
    ],
    ids=["edited", "reordered", "inserted", "removed"],
)
def test_a_changed_line_is_named(
    promoted: Slotted, change: Callable[[list[bytes]], list[bytes]], number: int
) -> None:
    """Edited, reordered, inserted, removed: the refusal says at which line, and changes to production stop."""
    lines = promoted.log.read_bytes().splitlines(keepends=True)
    promoted.log.write_bytes(b"".join(change(lines)))
    before = files_below(promoted.root)

    with pytest.raises(AuditBroken, match=f"line {number} "):
        promoted.entries  # noqa: B018
    for change_it in (lambda: promoted.promote(3), lambda: promoted.roll_back("none")):
        with pytest.raises(AuditBroken):
            change_it()
    assert files_below(promoted.root) == before


def test_a_release_name_that_leads_elsewhere_is_never_followed(promoted: Slotted, tmp_path: Path) -> None:
    """A line appended with the right digests that names another place: refused, and nothing there is touched."""
    outside = tmp_path / "outside"
    shutil.copytree(promoted.archived(promoted.entries[0]), outside)
    before = files_below(outside)
    lines = promoted.log.read_bytes().splitlines()
    last = json.loads(lines[-1])
    doctored = {
        **{name: value for name, value in promoted.entries[4].items() if name != "digest"},
        "release": "../../../outside",
        "previous": _line_digest(lines[-1]),
        "at": last["at"],
    }
    with open(promoted.log, "ab") as stream:
        stream.write(canonical_json(doctored | {"digest": sha256_json(doctored)}, indent=None).encode())

    for read in (lambda: promoted.entries, lambda: promoted.roll_back(), lambda: promoted.served):
        with pytest.raises(AuditBroken, match="line 7 is no line of this version"):
            read()
    assert files_below(outside) == before


def _line_digest(line: bytes) -> str:
    from sqkit.files import sha256_bytes

    return sha256_bytes(line)


def test_a_witness_behind_a_symlink_is_not_read(promoted: Slotted, tmp_path: Path) -> None:
    """A folder of the archive that is a link to another place says nothing about this log."""
    elsewhere = Slotted(tmp_path / "elsewhere")
    for number in range(3, 6):
        elsewhere.promote(number)
    for folder in elsewhere.models.glob("archive/2*"):
        (promoted.models / "archive" / folder.name).symlink_to(folder)

    assert len(promoted.entries) == 6


# --- who


def test_an_actor_is_who_the_system_says_under_the_name_that_was_typed() -> None:
    """The typed name is kept beside account and machine; without one it is the account's."""
    here = Actor.here("Asha")

    assert (here.name, here.principal) == ("Asha", None)
    assert here.user
    assert here.host
    assert Actor.here().name


@pytest.mark.parametrize("name", ["", "  ", "\n"])
def test_an_empty_name_is_the_accounts(name: str) -> None:
    """Nobody acts without a name."""
    assert Actor.here(name) == Actor.here()


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        (" a  b ", "a b"),
        ("a\nb\tc", "a b c"),
        ("bell\a", "bell?"),
        ("\udcff", "?"),
        ("Zoë", "Zoë"),
        ("\n", ""),
    ],
)
def test_a_typed_text_becomes_one_line(typed: str, kept: str) -> None:
    """A pasted reason with line breaks is kept as one line and never a reason to refuse a halt."""
    assert one_line(typed) == kept
