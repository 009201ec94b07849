"""The record beside a production model proves itself, and says what an engine serves."""

from __future__ import annotations

import copy
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from sqkit.artifacts import APPROVALS_FILE, RELEASE_FILE, SIGNERS_FILE, STUDENT_FILE
from sqkit.chain import head_file
from sqkit.errors import ArtifactChanged, AuditBroken, ReleaseDamaged, SlotMismatch
from sqkit.files import canonical_json, sha256_bytes, sha256_json, write_json
from sqkit.production.candidate import Candidate
from sqkit.production.interventions import halt
from sqkit.production.promotion import Promotion, promote
from sqkit.production.release import read_release, release_record, served_release
from sqkit.production.release_proof import contradiction
from sqkit.production.slots import Slot
from sqkit.student import StudentModel
from tests.releases import Slotted, files_below, model_bytes, promotion_of

SIGNERS = "asha@example.com ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIexample\n"


@pytest.fixture
def slotted(tmp_path: Path) -> Slotted:
    """A scratch project."""
    return Slotted(tmp_path / "project")


def promote_signed(slotted: Slotted, number: int) -> None:
    """A release that keeps a signers file."""
    slotted.on("")
    promotion = promotion_of(number)
    files = {**promotion.files, SIGNERS_FILE: SIGNERS.encode()}
    production = slotted.production
    with production.changing(production.slot("default")):
        promote(slotted.place, Promotion(files, promotion.content))


def first_release(slotted: Slotted) -> None:
    """One release."""
    slotted.promote(1)


def first_with_signers(slotted: Slotted) -> None:
    """One release that keeps a signers file."""
    promote_signed(slotted, 1)


def replaced_release(slotted: Slotted) -> None:
    """One that replaced another."""
    slotted.promote(1)
    slotted.promote(2)


def rolled_back(slotted: Slotted) -> None:
    """One that came back."""
    replaced_release(slotted)
    slotted.roll_back()


def no_student(slotted: Slotted) -> None:
    """None: the only one was rolled back."""
    first_release(slotted)
    slotted.roll_back()


def over_unmanaged(slotted: Slotted) -> None:
    """None: before the only promotion lay a model that nobody promoted, and that is no release to go back to."""
    slotted.copy_in(model_bytes(7, model_version="20240101_000007"))
    slotted.promote(1)
    slotted.roll_back()


HISTORIES = [first_release, replaced_release, rolled_back, no_student, over_unmanaged]


@pytest.fixture(params=HISTORIES, ids=lambda history: history.__name__)
def serving(request: pytest.FixtureRequest, slotted: Slotted) -> Slotted:
    """A slot after each of the ways in which it gets where it is."""
    request.param(slotted)
    return slotted


@pytest.fixture(params=[*HISTORIES, first_with_signers], ids=lambda history: history.__name__)
def placed(request: pytest.FixtureRequest, slotted: Slotted) -> Slotted:
    """The same, and one with a signers file in its record."""
    request.param(slotted)
    return slotted


def elsewhere(slotted: Slotted, tmp_path: Path) -> Slot:
    """Another host: production's folder alone was copied there."""
    folder = tmp_path / "host"
    shutil.copytree(slotted.slot.folder, folder)
    return Slot("default", folder / STUDENT_FILE)


# --- the record


def test_the_record_says_what_the_log_says(placed: Slotted) -> None:
    """Every value of it follows from the log and the archived release."""
    record, state, entries = read_release(placed.slot.release_path), placed.state, placed.entries

    assert record["placed_by"] == state.placed_by
    assert record["promotion"] == (state.live.entry if state.live else None)
    assert record["replaces"] == state.placed_by["replaces"] if state.placed_by else None
    assert entries[record["log_lines"]["placed_by"] - 1] == record["placed_by"]
    assert record["state"] == ("live" if state.live else "none")
    for name, lines in record["log_lines"].items():
        assert entries[lines - 1] == record[name]
    if state.live and not state.live.unmanaged:
        archive = placed.archived(state.live.entry)
        assert canonical_json(record["approvals"]).encode() == (archive / APPROVALS_FILE).read_bytes()
        assert record["signers"] == (SIGNERS if (archive / SIGNERS_FILE).exists() else None)


def test_every_archived_release_is_sealed_with_a_record_that_proves_itself(placed: Slotted) -> None:
    """As it was when it was made, whatever happened since."""
    seals = sorted(placed.models.glob(f"archive/*/{RELEASE_FILE}"))

    assert len(seals) == len([entry for entry in placed.entries if "files" in entry])
    for place in seals:
        record = read_release(place)
        assert record["promotion"] == record["placed_by"]
        assert place.parent.name == record["release"]


def test_a_host_without_the_log_can_verify_its_release(serving: Slotted, tmp_path: Path) -> None:
    """Production's folder alone, on another machine: the same model is served, for the same symbols."""
    here = serving.served
    there = served_release(tmp_path / "host/models", elsewhere(serving, tmp_path))

    assert (there.model, there.digest, there.release) == (here.model, here.digest, here.release)
    assert (there.model_version, there.symbols) == (here.model_version, here.symbols)
    assert there.placed_by == here.placed_by


# --- edits


def paths_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of every value in JSON, containers too."""
    if path:
        yield path
    if isinstance(value, dict):
        for name in value:
            yield from paths_in(value[name], (*path, name))
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from paths_in(one, (*path, number))


def others(value: Any) -> Iterator[Any]:
    """Values that somebody may put in the place of one."""
    yield None if value is not None else "x"
    yield [value]
    yield {"x": value}
    yield not value
    yield 1.5
    yield ""
    if isinstance(value, str):
        yield value + " "
        yield value[:-1]
        yield value.swapcase()
    if isinstance(value, bool):
        yield int(value)
    if type(value) is int:
        yield value + 1
        yield -value
        yield float(value)
        yield str(value)
        yield 10**30


def changed(record: Any, path: tuple[Any, ...], value: Any) -> Any:
    """The same record with one value in another's place."""
    copied = copy.deepcopy(record)
    place = copied
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    return copied


def removed(record: Any, path: tuple[Any, ...]) -> Any:
    """The same record without one of its values."""
    copied = copy.deepcopy(record)
    place = copied
    for name in path[:-1]:
        place = place[name]
    del place[path[-1]]
    return copied


def test_no_single_edit_is_taken(placed: Slotted) -> None:
    """Each value in the record, at any depth: changed, retyped or removed, the record no longer proves itself.

    Only the numbers of its lines cannot be proved without the log, and there each is held against the other.
    """
    record = json.loads(placed.slot.release_path.read_text())
    assert contradiction(record) == ""
    taken = []
    for path in paths_in(record):
        was = record
        for name in path:
            was = was[name]
        edits = [changed(record, path, value) for value in others(was) if not same(value, was)]
        taken += [
            (path, edit)
            for edit in [*edits, removed(record, path), added(record, path)]
            if not contradiction(json.loads(json.dumps(edit)))
        ]
    assert {path for path, _ in taken} <= {("log_lines", "placed_by"), ("log_lines", "promotion")}
    for _, edit in taken:
        lines = edit["log_lines"]
        assert lines.get("promotion", 1) <= lines["placed_by"]
        if record["promotion"] == record["placed_by"]:
            assert lines["promotion"] == lines["placed_by"]


def test_an_edited_record_is_one_line(placed: Slotted) -> None:
    """The refusal names the file, and what in it does not follow from its lines."""
    place = placed.slot.release_path
    write_json(place, json.loads(place.read_text()) | {"slot": "swing"})

    with pytest.raises(ReleaseDamaged, match="slot is not what its audit lines say") as caught:
        read_release(place)
    assert str(caught.value).startswith(f"{place}: ")
    assert "\n" not in str(caught.value)


def same(one: Any, other: Any) -> bool:
    """Whether two values are written alike."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def added(record: Any, path: tuple[Any, ...]) -> Any:
    """The same record with one value more, where there is room for one."""
    value = record
    for name in path:
        value = value[name]
    if isinstance(value, dict):
        return changed(record, path, {**value, "more": "x"})
    if isinstance(value, list):
        return changed(record, path, [*value, "x"])
    return {**record, "more": "x"}


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "7", '{"schema_version": NaN}', '{"slot": "a", "slot": "b"}', "\udcff"],
)
def test_what_is_no_record_is_one_line(slotted: Slotted, text: str) -> None:
    """No JSON, no object, a key twice, no UTF-8: refused by name."""
    first_release(slotted)
    slotted.slot.release_path.write_bytes(text.encode("utf-8", "surrogateescape"))

    with pytest.raises((ReleaseDamaged, ArtifactChanged)) as caught:
        read_release(slotted.slot.release_path)
    assert "\n" not in str(caught.value)


def test_approvals_of_another_release_are_refused(slotted: Slotted) -> None:
    """Whole and well formed, but not those that the promotion names."""
    first_release(slotted)
    first = read_release(slotted.slot.release_path)
    slotted.promote(2)
    record = read_release(slotted.slot.release_path)
    write_json(slotted.slot.release_path, record | {"approvals": first["approvals"]})

    with pytest.raises(ReleaseDamaged, match="approvals is not what its audit lines say"):
        read_release(slotted.slot.release_path)


def test_parts_of_two_records_make_no_third(slotted: Slotted) -> None:
    """Lines that are genuine each, but of two different releases."""
    replaced_release(slotted)
    second = read_release(slotted.slot.release_path)
    slotted.roll_back()
    back = read_release(slotted.slot.release_path)

    for mixed in (
        back | {"promotion": second["promotion"]},
        second | {"promotion": back["promotion"]},
        back | {"placed_by": second["placed_by"]},
        second | dict.fromkeys(("promotion", "model", "release")) | {"state": "none"},
        back | {name: second[name] for name in ("placed_by", "release", "replaces")},
        second | {name: back[name] for name in ("promotion", "model", "model_version", "approvals")},
    ):
        write_json(slotted.slot.release_path, mixed)
        with pytest.raises(ReleaseDamaged):
            read_release(slotted.slot.release_path)


def test_a_line_of_a_form_that_nobody_writes_proves_nothing(slotted: Slotted) -> None:
    """With a digest of its own, as somebody makes it who knows how: the line still has to be one of sqkit's."""
    first_release(slotted)
    record = read_release(slotted.slot.release_path)
    for change in ({"symbols": "AAA"}, {"files": {}}, {"release": "../x"}, {"kind": "halt"}, {"previous": 1}):
        line = {name: value for name, value in (record["promotion"] | change).items() if name != "digest"}
        line |= {"digest": sha256_json(line)}
        write_json(
            slotted.slot.release_path,
            record | {"promotion": line, "placed_by": line, "release": line["release"]},
        )
        with pytest.raises(ReleaseDamaged, match="no audit line"):
            read_release(slotted.slot.release_path)


def test_a_damaged_archive_gives_no_record(slotted: Slotted) -> None:
    """What would be embedded is held against the log first."""
    first_with_signers(slotted)
    state, entries = slotted.state, slotted.entries
    assert state.live is not None
    for name in (APPROVALS_FILE, SIGNERS_FILE):
        place = slotted.archived(entries[0]) / name
        kept = place.read_bytes()
        place.chmod(0o644)
        place.write_bytes(kept + b" ")
        with pytest.raises(ReleaseDamaged, match=name):
            release_record(slotted.models, "default", state.live, state.live.entry, entries)
        place.write_bytes(kept)
    assert release_record(slotted.models, "default", state.live, state.live.entry, entries)


def test_approvals_that_were_reformatted_are_not_promoted(tmp_path: Path) -> None:
    """The record embeds the value and the log names the bytes: both must stay one thing."""
    folder = tmp_path / "data/models/20240101_000001/student"
    content = {name: value for name, value in promotion_of(1).content.items() if name != "digests"}
    for text, fits in ((canonical_json({"facts": []}), True), ('{"facts":[]}\n', False), ("[", False)):
        files = {**promotion_of(1).files, APPROVALS_FILE: text.encode()}
        candidate = Candidate(folder / STUDENT_FILE, f"{folder}/{STUDENT_FILE}", files, None)
        with nullcontext() if fits else pytest.raises(ArtifactChanged, match=APPROVALS_FILE):
            made = Promotion.of(candidate, None, {**content, "digests": {}})
            assert made.content["digests"]["approvals"] == sha256_bytes(text.encode())


# --- what is served


def test_nothing_there_is_the_baseline(slotted: Slotted) -> None:
    """No log, no record: no model, and a word about it; looking makes no file."""
    served = slotted.served

    assert (served.model, served.digest, served.halted) == (None, None, False)
    assert "nothing was ever promoted here" in served.note
    assert not slotted.models.exists()


def test_the_release_that_the_log_names_is_served(slotted: Slotted) -> None:
    """From production, where it lies; it loads, and says for which symbols it was approved."""
    slotted.promote(1)
    served = slotted.served

    assert served.model is not None
    assert StudentModel(served.model, slotted.slot.model_path).version == served.model_version
    assert served.symbols == ("AAA",)
    assert (served.note, served.halted) == ("", False)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda place: place.unlink(),
        lambda place: place.write_bytes(b"torn"),
        lambda place: place.write_bytes(model_bytes(9)),
    ],
    ids=["gone", "torn", "another"],
)
def test_another_file_in_production_is_not_served(slotted: Slotted, spoil: Callable[[Path], None]) -> None:
    """The release comes from the archive then, with a note, and nothing is written."""
    slotted.promote(1)
    right = slotted.served.model
    spoil(slotted.slot.model_path)
    before = files_below(slotted.root)
    served = slotted.served

    assert served.model == right
    assert "served from the archive, run sqkit doctor --fix" in served.note
    assert files_below(slotted.root) == before


def test_bytes_that_are_nowhere_are_refused(slotted: Slotted) -> None:
    """Damaged in production and in the archive: no model is better than another one."""
    slotted.promote(1)
    place = slotted.archived(slotted.entries[0]) / STUDENT_FILE
    place.chmod(0o644)
    place.write_bytes(b"torn")
    slotted.slot.model_path.write_bytes(b"torn")

    with pytest.raises(ReleaseDamaged, match="restore it from a backup"):
        slotted.served  # noqa: B018


def test_without_a_sound_log_nothing_is_served(slotted: Slotted) -> None:
    """Nobody knows what is live: the engine is told so, and runs its baseline."""
    replaced_release(slotted)
    slotted.log.write_bytes(slotted.log.read_bytes().splitlines(keepends=True)[0])
    with pytest.raises(AuditBroken):
        slotted.served  # noqa: B018

    head_file(slotted.log).unlink()
    for folder in (slotted.models / "archive").iterdir():
        shutil.rmtree(folder)
    with pytest.raises(AuditBroken, match="counted 2 lines"):  # the record beside the model is a witness too
        slotted.served  # noqa: B018


def test_a_record_of_another_model_is_not_served(slotted: Slotted, tmp_path: Path) -> None:
    """Without a log: the file is not the one that the record names. A reader looks again before it refuses."""
    replaced_release(slotted)
    slot = elsewhere(slotted, tmp_path)
    slot.model_path.write_bytes(model_bytes(9))

    started = time.monotonic()
    with pytest.raises(ReleaseDamaged, match=r"is not the model that release\.json names"):
        served_release(tmp_path / "host/models", slot)
    assert time.monotonic() - started > 1


def test_a_reader_between_the_two_renames_of_a_swap_waits_for_the_second(
    slotted: Slotted, tmp_path: Path
) -> None:
    """The record is new and the model still the old one: a moment later both are."""
    first_release(slotted)
    old = slotted.slot.model_path.read_bytes()
    slotted.promote(2)
    slot = elsewhere(slotted, tmp_path)
    new = slot.model_path.read_bytes()
    slot.model_path.write_bytes(old)
    swap = threading.Timer(0.2, lambda: slot.model_path.write_bytes(new))
    swap.start()

    assert served_release(tmp_path / "host/models", slot).model == new
    swap.join()


def test_a_record_says_no_student_whatever_lies_beside_it(slotted: Slotted, tmp_path: Path) -> None:
    """Without a log, after the only release was rolled back: somebody's copy beside it is not served."""
    no_student(slotted)
    slot = elsewhere(slotted, tmp_path)
    slot.model_path.write_bytes(model_bytes(1))

    assert served_release(tmp_path / "host/models", slot).model is None


@pytest.mark.parametrize("log", [True, False])
def test_a_release_with_a_signers_file_needs_its_signatures(
    slotted: Slotted, tmp_path: Path, *, log: bool
) -> None:
    """Who was allowed to sign is stored with it; approvals that nobody signed are no approvals then."""
    first_with_signers(slotted)

    with pytest.raises(ReleaseDamaged, match="was not approved as it says"):
        served_release(
            slotted.models if log else tmp_path / "host/models",
            slotted.slot if log else elsewhere(slotted, tmp_path),
        )


@pytest.mark.parametrize("log", [True, False])
@pytest.mark.parametrize("flag", [True, False])
def test_a_halt_shows_by_its_flag_or_by_the_log(
    slotted: Slotted, tmp_path: Path, *, log: bool, flag: bool
) -> None:
    """Either is enough; the model is named all the same, for whoever resumes."""
    slotted.promote(1)
    halt(slotted.production, "default", "feed")
    slot = slotted.slot if log else elsewhere(slotted, tmp_path)
    if not flag:
        slot.halt_path.unlink()
    served = served_release(slotted.models if log else tmp_path / "host/models", slot)

    assert served.halted is (log or flag)
    assert served.halt_level == ("student_off" if log or flag else None)
    assert served.model is not None


def test_of_flag_and_log_the_stricter_halt_holds(slotted: Slotted) -> None:
    """Whichever it is."""
    slotted.promote(1)
    halt(slotted.production, "default", "feed")
    slotted.slot.halt_path.write_bytes(b"")
    assert slotted.served.halt_level == "no_new_entries"

    halt(slotted.production, "default", "feed", "no_new_entries")
    slotted.slot.halt_path.write_text('{"level": "student_off"}')
    assert slotted.served.halt_level == "no_new_entries"


def test_a_model_that_nobody_promoted_is_not_served(slotted: Slotted) -> None:
    """Found and archived, but before anything was promoted: no decision names it, and no person put it there."""
    from sqkit.production.promotion import keep_unrecorded

    slotted.copy_in(model_bytes(7))
    keep_unrecorded(slotted.place)

    assert slotted.state.live is not None
    assert slotted.served.model is None
    assert "nobody promoted this model" in slotted.served.note


def test_a_slot_serves_its_own(tmp_path: Path) -> None:
    """Two slots of one log, each with its own release."""
    default, swing = Slotted(tmp_path), Slotted(tmp_path, slot_name="swing")
    default.promote(1)
    swing.promote(2)

    assert (default.live, swing.live) == (1, 2)
    assert default.served.model != swing.served.model


def test_a_record_of_another_slot_is_no_record_of_this_one(tmp_path: Path) -> None:
    """The log's own slot is served; a change is refused until the paths of the settings are put right."""
    default, swing = Slotted(tmp_path), Slotted(tmp_path, slot_name="swing")
    default.promote(1)
    swing.promote(2)
    shutil.copy(swing.slot.release_path, default.slot.release_path)

    assert default.state.live is not None
    assert default.served.digest == default.state.live.model
    with pytest.raises(SlotMismatch, match="holds the release of slot swing"):
        default.promote(3)
