"""Going back: to the release that left, whole, at once, and the same however often it is asked."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqkit.artifacts import RELEASE_FILE, STUDENT_FILE
from sqkit.audit_log import PROMOTE, ROLLBACK, UNMANAGED
from sqkit.errors import ArchiveAmbiguous, ArchiveUnknown, Quarantined, ReleaseDamaged, SqkitError, UsageError
from sqkit.files import sha256_bytes
from sqkit.production.interventions import halt, release_quarantine
from sqkit.production.promoter import StudentModelPromoter
from sqkit.production.release import read_release
from sqkit.production.rollback import find_target, planned_rollback, rollback_content
from tests.releases import ASHA, Slotted, files_below, machine_zone, model_bytes

ZONES = ["UTC", "Asia/Kolkata", "America/New_York"]


@pytest.fixture
def slotted(tmp_path: Path) -> Slotted:
    """A scratch project."""
    return Slotted(tmp_path)


def of_january_and_march(slotted: Slotted) -> Slotted:
    """A promoted 1 January, B 1 March."""
    slotted.promote(1, "2025-01-01")
    slotted.promote(2, "2025-03-01")
    slotted.on("2025-03-10")
    return slotted


def spoil(place: Path, data: bytes = b"torn") -> None:
    """Damage a file of an archived release."""
    place.chmod(0o644)
    place.write_bytes(data)


def model_of(slotted: Slotted, line: int) -> Path:
    """The archived model of the release that a line made."""
    return slotted.archived(slotted.entries[line]) / STUDENT_FILE


# --- the date a release left


def test_the_date_is_that_on_which_a_release_left(slotted: Slotted) -> None:
    """A promoted 1 January, B 1 March: 20250301 restores A."""
    of_january_and_march(slotted)
    promoter = StudentModelPromoter(
        slotted.settings, root=slotted.root, clock=lambda: slotted.now, actor=ASHA
    )

    done = promoter.rollback_model("20250301")

    assert slotted.live == 1
    assert done.target.release == slotted.state.live
    assert done.entry == slotted.entries[-1]


@pytest.mark.parametrize("to", ["20250101", "2025-01-01", "20250302", "19990101", "20259999"])
def test_a_date_on_which_nothing_left_lists_those_that_are_known(slotted: Slotted, to: str) -> None:
    """A came on 1 January and left on 1 March; nothing else ever left."""
    of_january_and_march(slotted)
    before = files_below(slotted.root)

    with pytest.raises(ArchiveUnknown, match=r"releases left on 20250301 \(20240102_000001"):
        slotted.roll_back(to)
    assert files_below(slotted.root) == before


@pytest.mark.parametrize("to", ["20250230", "2025-02-30", "20259999"])
def test_what_looks_like_a_date_and_is_none_is_called_so(slotted: Slotted, to: str) -> None:
    """Nothing can have left on the thirtieth of February; a digest that looks so would still be found."""
    of_january_and_march(slotted)

    with pytest.raises(ArchiveUnknown, match=f"{to} is no date; releases left on 20250301"):
        slotted.roll_back(to)


@pytest.mark.parametrize("machine", ZONES)
@pytest.mark.parametrize(
    ("market", "left", "date", "day_before"),
    [
        ("nse", "2025-03-01T18:29:00+00:00", "20250301", "20250228"),  # 23:59 in Mumbai
        ("nse", "2025-03-01T18:31:00+00:00", "20250302", "20250301"),  # 00:01
        ("us", "2025-03-02T04:59:00+00:00", "20250301", "20250302"),  # 23:59 in New York
        ("us", "2025-03-02T05:01:00+00:00", "20250302", "20250301"),  # 00:01
    ],
)
def test_a_date_is_the_markets_own(
    tmp_path: Path, machine: str, market: str, left: str, date: str, day_before: str
) -> None:
    """Around midnight, and whatever zone this machine is in."""
    with machine_zone(machine):
        slotted = Slotted(tmp_path, market=market)
        slotted.promote(1, "2025-01-01")
        slotted.promote(2, left)
        with pytest.raises(ArchiveUnknown):
            slotted.roll_back(day_before)
        assert slotted.roll_back(date) is not None
        assert slotted.live == 1


def test_several_that_left_on_a_day_are_listed(slotted: Slotted) -> None:
    """A, B and C on one day: which one is for a person to say, and its name is enough."""
    slotted.promote(1, "2025-01-01")
    slotted.promote(2, "2025-03-01")
    slotted.promote(3)
    slotted.promote(4, "2025-04-01")
    names = [entry["release"] for entry in slotted.entries]

    with pytest.raises(ArchiveAmbiguous) as caught:
        slotted.roll_back("20250301")

    assert caught.value.values["releases"] == [names[1], names[0]]
    assert all(name in str(caught.value) for name in names[:2])
    slotted.roll_back(names[0])
    assert slotted.live == 1


def test_the_live_release_is_no_candidate(slotted: Slotted) -> None:
    """A left on the day on which B came and went; A is live again: there is nothing to go back to that day."""
    slotted.promote(1, "2025-01-01")
    slotted.promote(2, "2025-03-01")
    slotted.roll_back()

    assert slotted.roll_back("20250301") is None
    assert slotted.live == 1


def test_the_live_bytes_are_no_candidate_under_another_name(slotted: Slotted) -> None:
    """A, B, and A once more: going back to the first A would bar the very bytes that are served."""
    slotted.promote(1, "2025-01-01")
    slotted.promote(2, "2025-02-01")
    slotted.promote(1, "2025-03-01")
    first = slotted.entries[0]["release"]

    assert slotted.roll_back("20250201") is None
    assert slotted.roll_back(first) is None
    assert slotted.roll_back() is not None
    assert slotted.live == 2


# --- again and again


@pytest.mark.parametrize("to", ["20250301", "2025-03-01", ""])
@pytest.mark.parametrize("day", ["2025-03-01", "2025-03-10"])
def test_rolling_back_twice_is_rolling_back_once(slotted: Slotted, to: str, day: str) -> None:
    """By the same date, or by none; also on the very day on which the release left."""
    of_january_and_march(slotted)
    if day == "2025-03-01":
        slotted.now = dt.datetime(2025, 3, 1, 18, 0, tzinfo=dt.UTC)
    slotted.roll_back(to)
    before = files_below(slotted.root)

    for _ in range(3):
        assert slotted.roll_back(to) is None
    assert files_below(slotted.root) == before
    assert slotted.live == 1


def test_a_rollback_without_a_name_after_a_rollback_says_how_to_go_further(slotted: Slotted) -> None:
    """It stays where it is: a script that runs twice must not walk back through the years."""
    for number in (1, 2, 3):
        slotted.promote(number)
    slotted.roll_back()
    target = find_target(slotted.models, slotted.state)

    assert target.already
    assert "name the release with --to" in target.notes[0]
    slotted.roll_back(slotted.entries[0]["release"])
    assert slotted.live == 1


def test_what_was_rolled_back_stays_barred(slotted: Slotted) -> None:
    """A, B, back to A, C, back: it is A again; B has been in quarantine since, and says so."""
    of_january_and_march(slotted)
    slotted.roll_back()
    slotted.promote(3, "2025-04-01")
    slotted.roll_back("", "2025-04-02")
    assert slotted.live == 1
    second = slotted.entries[1]

    for to in (second["release"], second["model_version"], second["digests"]["model"][:12]):
        with pytest.raises(Quarantined) as caught:
            slotted.roll_back(to)
        assert f"sqkit quarantine release {second['digests']['model'][:12]} --reason" in str(caught.value)
        assert "rolled back on 2025-03-10" in str(caught.value)


def test_a_released_model_may_be_gone_back_to(slotted: Slotted) -> None:
    """After somebody said so, by name."""
    of_january_and_march(slotted)
    slotted.roll_back()
    second = slotted.entries[1]
    release_quarantine(slotted.production, "default", second["digests"]["model"], "it was the feed")

    slotted.roll_back(second["release"])
    assert slotted.live == 2


# --- no student


def test_without_an_earlier_release_it_ends_at_no_student(slotted: Slotted) -> None:
    """The model is gone, the record says none, the log says who and why, and the engine runs its baseline."""
    slotted.promote(1)
    entry = slotted.roll_back()

    assert entry is not None
    assert (entry["kind"], entry["release"], entry["model"], entry["reason"]) == (
        ROLLBACK,
        None,
        None,
        "test",
    )
    assert not slotted.slot.model_path.exists()
    assert read_release(slotted.slot.release_path)["state"] == "none"
    assert slotted.live is None
    assert slotted.served.model is None
    assert set(slotted.state.quarantined) == {slotted.entries[0]["digests"]["model"]}


@pytest.mark.parametrize("to", ["", "none"])
def test_no_student_stays_no_student(slotted: Slotted, to: str) -> None:
    """Asked again, by name or without: nothing is done."""
    slotted.promote(1)
    slotted.roll_back("none")
    before = files_below(slotted.root)

    assert slotted.roll_back(to) is None
    assert files_below(slotted.root) == before


def test_where_nothing_was_ever_promoted_nothing_is_rolled_back(slotted: Slotted) -> None:
    """Not even a folder is made."""
    assert slotted.roll_back() is None
    assert slotted.roll_back("none") is None
    assert files_below(slotted.root) == {}
    with pytest.raises(ArchiveUnknown, match="none has left production yet"):
        slotted.roll_back("20250301")


def test_from_no_student_a_promotion_works(slotted: Slotted) -> None:
    """And the state before it is no release that a rollback could miss."""
    slotted.promote(1)
    slotted.roll_back()
    slotted.promote(2)
    assert slotted.live == 2
    assert slotted.entries[-1]["replaces"] is None
    slotted.roll_back()
    assert slotted.live is None


def test_no_student_can_be_asked_for_by_name(slotted: Slotted) -> None:
    """With an earlier release there, too; that one can be gone back to afterwards."""
    of_january_and_march(slotted)
    slotted.roll_back("none")
    assert slotted.live is None
    slotted.roll_back("20250301")
    assert slotted.live == 1


# --- damage


def by_a_promotion(slotted: Slotted) -> int:
    """Release 2 was promoted over 1; the line that made it."""
    of_january_and_march(slotted)
    return 1


def by_a_rollback(slotted: Slotted) -> int:
    """Release 3 was promoted over 2 and rolled back; the line that made 2."""
    slotted.promote(1, "2025-01-01")
    slotted.promote(2, "2025-02-01")
    slotted.promote(3, "2025-03-01")
    slotted.roll_back("", "2025-03-10")
    return 1


@pytest.mark.parametrize("got_there", [by_a_promotion, by_a_rollback])
@pytest.mark.parametrize("production", ["whole", "torn", "gone"])
@pytest.mark.parametrize("archive", ["whole", "torn", "gone", "no folder"])
def test_the_live_release_may_be_corrupt(
    slotted: Slotted, production: str, archive: str, got_there: Callable[[Slotted], int]
) -> None:
    """In production, in the archive, or in both, and however it got there: the earlier one comes back.

    Whole in the archive it is restored from there; what a rollback put there then stays.
    """
    line = got_there(slotted)
    if archive == "torn":
        spoil(model_of(slotted, line))
    elif archive == "gone":
        model_of(slotted, line).unlink()
    elif archive == "no folder":
        shutil.rmtree(model_of(slotted, line).parent)
    if production == "torn":
        slotted.slot.model_path.write_bytes(b"torn")
    elif production == "gone":
        slotted.slot.model_path.unlink()
    stays = got_there is by_a_rollback and archive == "whole"

    assert (slotted.roll_back() is None) is stays
    assert slotted.live == (2 if stays else 1)


def test_that_what_is_live_is_damaged_is_said(slotted: Slotted) -> None:
    """A rollback put it there and it cannot be served any more: one goes on, and reads why; by its name it is refused."""
    line = by_a_rollback(slotted)
    spoil(model_of(slotted, line))
    target = find_target(slotted.models, slotted.state)

    assert target.release is not None
    assert target.release.name == slotted.entries[0]["release"]
    assert not target.already
    assert "what is live, 20240103_000002" in target.notes[0]
    assert "changed since it was archived" in target.notes[0]
    with pytest.raises(ReleaseDamaged, match="changed since it was archived"):
        slotted.roll_back(slotted.entries[line]["release"])


def test_where_nothing_earlier_is_left_a_damaged_live_release_leaves_no_student(slotted: Slotted) -> None:
    """Rolled back to the first release, which is damaged since: the baseline is better than nothing."""
    of_january_and_march(slotted)
    slotted.roll_back()
    spoil(model_of(slotted, 0))
    slotted.slot.model_path.write_bytes(b"torn")

    assert slotted.roll_back() is not None
    assert slotted.live is None


@pytest.mark.parametrize("archive", ["whole", "torn"])
def test_over_a_corrupt_release_one_can_promote(slotted: Slotted, archive: str) -> None:
    """A new release is another way out, and the damage is said."""
    of_january_and_march(slotted)
    slotted.slot.model_path.write_bytes(b"torn")
    if archive == "torn":
        spoil(model_of(slotted, 1))
    slotted.promote(3)

    assert slotted.live == 3
    assert any("cannot be repaired" in line for line in slotted.said) is (archive == "torn")


def test_a_corrupt_record_does_not_stand_in_the_way(slotted: Slotted) -> None:
    """release.json beside the model, torn or gone, is written anew."""
    of_january_and_march(slotted)
    slotted.slot.release_path.write_text("{")
    slotted.roll_back()
    assert slotted.live == 1
    slotted.slot.release_path.unlink()
    slotted.promote(3)
    assert slotted.live == 3


def test_a_damaged_earlier_release_is_passed_over_and_said(slotted: Slotted) -> None:
    """The one before it comes back; named explicitly the damaged one is refused, and nothing changes."""
    for number in (1, 2, 3):
        slotted.promote(number)
    spoil(model_of(slotted, 1))
    target = find_target(slotted.models, slotted.state)
    assert target.release is not None
    assert target.release.name == slotted.entries[0]["release"]
    assert len(target.notes) == 1
    assert "passed over 20240103_000002" in target.notes[0]
    assert "changed since it was archived" in target.notes[0]

    before = files_below(slotted.root)
    with pytest.raises(ReleaseDamaged, match="changed since it was archived") as caught:
        slotted.roll_back(slotted.entries[1]["release"])
    assert "name another release with --to" in str(caught.value)
    assert files_below(slotted.root) == before


def test_a_release_that_does_not_load_here_is_damaged(slotted: Slotted) -> None:
    """Whole to the byte, but trained with another definition of its features: it is asked a row first."""
    from sqkit.production.promotion import Promotion, promote
    from tests.releases import promotion_of

    slotted.on("")
    promotion = promotion_of(1)
    model = model_bytes(1, model_version="20240102_000001", feature_set_digest="f" * 64)
    content = promotion.content | {"digests": {**promotion.content["digests"], "model": sha256_bytes(model)}}
    production = slotted.production
    with production.changing(production.slot("default")):
        promote(slotted.place, Promotion({**promotion.files, STUDENT_FILE: model}, content))
    slotted.promote(2)
    target = find_target(slotted.models, slotted.state)

    assert target.release is None
    assert "does not load here" in target.notes[0]


def test_other_damage_in_the_archive_does_not_stand_in_the_way(slotted: Slotted) -> None:
    """A release that was cleared away, and one without its seal and with edited approvals: neither has to do with
    where production goes."""
    for number in (1, 2, 3, 4):
        slotted.promote(number)
    shutil.rmtree(slotted.archived(slotted.entries[0]))
    (slotted.archived(slotted.entries[1]) / RELEASE_FILE).unlink()
    spoil(slotted.archived(slotted.entries[1]) / "approvals.json")

    slotted.roll_back()
    assert slotted.live == 3
    slotted.promote(5)
    assert slotted.live == 5
    assert not slotted.archived(slotted.entries[0]).exists()


# --- to the byte


def test_the_whole_release_comes_back(slotted: Slotted) -> None:
    """Model, approvals and signers are those of its own promotion, to the byte."""
    slotted.promote(1)
    record = read_release(slotted.slot.release_path)
    model = slotted.slot.model_path.read_bytes()
    slotted.promote(2)
    slotted.roll_back()
    back = read_release(slotted.slot.release_path)

    assert slotted.slot.model_path.read_bytes() == model == model_of(slotted, 0).read_bytes()
    for name in ("approvals", "signers", "promotion", "model", "model_version", "release"):
        assert back[name] == record[name]
    assert back["placed_by"] == slotted.entries[-1]
    assert back["replaces"] == {
        "release": slotted.entries[1]["release"],
        "model": slotted.entries[1]["digests"]["model"],
    }


def test_the_archive_is_not_changed_by_going_back(slotted: Slotted) -> None:
    """Not a byte of it and not a time."""
    of_january_and_march(slotted)
    before = files_below(slotted.models / "archive")
    slotted.roll_back()

    assert files_below(slotted.models / "archive") == before


def test_the_other_slot_is_untouched(tmp_path: Path) -> None:
    """Promoting and rolling back in one slot leaves the other's folder as it is, byte and time, and its state."""
    default, swing = Slotted(tmp_path), Slotted(tmp_path, slot_name="swing")
    default.promote(1)
    default.promote(2)
    halt(default.production, "default", "feed")
    before, state = files_below(default.slot.folder), default.state
    swing.promote(3)
    swing.promote(4)
    swing.copy_in(model_bytes(9))
    swing.roll_back()
    swing.roll_back("none")

    assert files_below(default.slot.folder) == before
    assert default.state == state


def test_a_release_of_another_slot_is_none_of_this_one(tmp_path: Path) -> None:
    """Neither by name nor by default."""
    default, swing = Slotted(tmp_path), Slotted(tmp_path, slot_name="swing")
    other = swing.promote(3)
    default.promote(1)

    with pytest.raises(ArchiveUnknown):
        default.roll_back(other["release"])
    default.roll_back()
    assert default.live is None


def test_a_halt_stays_a_halt(slotted: Slotted) -> None:
    """Going back does not resume."""
    of_january_and_march(slotted)
    halt(slotted.production, "default", "feed")
    slotted.roll_back()

    assert slotted.served.halted
    assert slotted.slot.halt_path.exists()


# --- somebody used cp


def unmanaged(slotted: Slotted) -> list[dict[str, Any]]:
    """The lines on models that were found."""
    return [entry for entry in slotted.entries if entry["kind"] == UNMANAGED]


def test_a_copied_model_is_archived_before_the_first_promotion_replaces_it(slotted: Slotted) -> None:
    """It is kept, but nobody judged it: no rollback puts it back, by whatever name."""
    mine = model_bytes(7, model_version="20240108_000007")
    slotted.copy_in(mine)
    slotted.promote(1, "2025-03-01")
    found = unmanaged(slotted)[0]

    assert [entry["kind"] for entry in slotted.entries] == [UNMANAGED, PROMOTE]
    assert (slotted.archived(found) / STUDENT_FILE).read_bytes() == mine
    for to in ("20250301", found["release"], found["model"][:12]):
        with pytest.raises(ArchiveUnknown, match="never promoted: nobody judged it"):
            slotted.roll_back(to, "2025-03-02")
    slotted.roll_back("", "2025-03-02")
    assert slotted.served.model is None


@pytest.mark.parametrize("then", ["promote", "roll_back", "recover"])
def test_a_model_copied_over_a_live_release_is_archived_before_it_is_replaced(
    slotted: Slotted, then: str
) -> None:
    """Whatever comes next, even a mere repair: the bytes are kept, and it is said."""
    of_january_and_march(slotted)
    mine = model_bytes(7)
    slotted.copy_in(mine)
    if then == "promote":
        slotted.promote(3)
    elif then == "roll_back":
        slotted.roll_back()
    else:
        slotted.said += slotted.production.recover()
    found = unmanaged(slotted)

    assert [(slotted.archived(entry) / STUDENT_FILE).read_bytes() for entry in found] == [mine]
    assert any("put into production by hand" in line for line in slotted.said)
    assert slotted.live == {"promote": 3, "roll_back": 1, "recover": 2}[then]


def test_a_model_copied_to_where_no_student_is_is_archived_before_it_is_removed(slotted: Slotted) -> None:
    """The log says none, so none is served; what was copied is kept."""
    slotted.promote(1)
    slotted.roll_back("none")
    mine = model_bytes(7)
    slotted.copy_in(mine)
    assert slotted.served.model is None
    slotted.promote(2)

    assert (slotted.archived(unmanaged(slotted)[0]) / STUDENT_FILE).read_bytes() == mine
    assert slotted.live == 2


def test_a_model_copied_over_a_live_one_is_no_target(slotted: Slotted) -> None:
    """It never was live by the log and nobody judged it; a rollback passes it over, and refuses its name."""
    of_january_and_march(slotted)
    slotted.copy_in(model_bytes(7, model_version="20240108_000007"))
    slotted.promote(3)
    found = unmanaged(slotted)[0]
    target = find_target(slotted.models, slotted.state)

    assert target.release is not None
    assert not target.release.unmanaged
    with pytest.raises(ArchiveUnknown, match="never promoted"):
        slotted.roll_back(found["release"])


def test_a_copied_file_that_is_no_model_is_kept_and_not_gone_back_to(slotted: Slotted) -> None:
    """Archived like any other; a rollback passes it over."""
    slotted.copy_in(b"no model at all")
    slotted.promote(1)
    slotted.roll_back()

    assert slotted.live is None
    assert (slotted.archived(unmanaged(slotted)[0]) / STUDENT_FILE).read_bytes() == b"no model at all"


def test_a_file_that_the_log_knows_is_not_archived_again(slotted: Slotted) -> None:
    """An archived model copied back over the live one: the log still names the live one, and production becomes it."""
    of_january_and_march(slotted)
    for _ in range(2):
        slotted.copy_in(model_of(slotted, 0).read_bytes())
        slotted.production.recover()
        assert slotted.live == 2
    assert unmanaged(slotted) == []


def test_the_same_copied_file_twice_is_archived_once(slotted: Slotted) -> None:
    """Its bytes are known from then on."""
    slotted.promote(1)
    for _ in range(2):
        slotted.copy_in(model_bytes(7))
        slotted.on("")
        slotted.production.recover()
    assert len(unmanaged(slotted)) == 1
    assert slotted.live == 1


# --- what a name may be


@pytest.mark.parametrize(
    "to",
    [
        "../x",
        "yesterday",
        "2025",
        "1234567",
        "20250101_12",
        "*",
        " ",
        "a" * 65,
        "20250301\n",
        "٢٠٢٥٠٣٠١",
        "-1",
    ],
)
def test_what_is_no_name_is_refused(slotted: Slotted, to: str) -> None:
    """One line that says which forms there are."""
    of_january_and_march(slotted)

    with pytest.raises(UsageError, match="give the date a release left production") as caught:
        slotted.roll_back(to)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        lambda entry: entry["release"],
        lambda entry: entry["release"][:-3],
        lambda entry: entry["release"][:15],
        lambda entry: entry["model_version"],
        lambda entry: entry["digests"]["model"],
        lambda entry: entry["digests"]["model"][:9],
        lambda entry: entry["digests"]["model"][:12].upper(),
    ],
)
def test_a_release_has_many_names(slotted: Slotted, name: Callable[[dict[str, Any]], str]) -> None:
    """Its archive folder or the beginning of it, its version, the beginning of its digest."""
    for number in (1, 2, 3):
        slotted.promote(number)

    slotted.roll_back(name(slotted.entries[0]))
    assert slotted.live == 1


def test_a_name_of_several_releases_lists_them(slotted: Slotted) -> None:
    """The same version was archived twice, and neither is live."""
    for number in (1, 2, 1, 3):
        slotted.promote(number)
    twice = slotted.entries[0]

    with pytest.raises(ArchiveAmbiguous, match="2 releases are called"):
        slotted.roll_back(twice["model_version"])


def test_an_unknown_name_lists_what_left(slotted: Slotted) -> None:
    """With the dates a person would look for."""
    of_january_and_march(slotted)

    with pytest.raises(
        ArchiveUnknown, match=r"no release is called 20240101_000000; releases left on 20250301"
    ):
        slotted.roll_back("20240101_000000")


def test_a_long_past_is_not_listed_whole(slotted: Slotted) -> None:
    """The newest five, and how many more there are."""
    for number in range(1, 9):
        slotted.promote(number)

    with pytest.raises(ArchiveUnknown, match="and 2 more, see sqkit history") as caught:
        slotted.roll_back("19990101")
    assert str(caught.value).count("20250101 (") == 5


# --- the line and the plan


def test_the_line_says_what_was_done(slotted: Slotted) -> None:
    """From where to where, by whom, why, and what is barred since."""
    of_january_and_march(slotted)
    entry = slotted.roll_back()
    first, second = slotted.entries[:2]

    assert entry is not None
    assert entry["actor"] == ASHA.to_dict()
    assert (entry["release"], entry["model"]) == (first["release"], first["digests"]["model"])
    assert entry["replaces"] == {"release": second["release"], "model": second["digests"]["model"]}
    assert entry["quarantines"] == second["digests"]["model"]
    assert (entry["automatic"], entry["alert"]) == (False, None)
    assert slotted.state.unratified == (entry,)


@pytest.mark.parametrize("reason", ["", "  ", "\n"])
def test_a_rollback_without_a_reason_is_refused(slotted: Slotted, reason: str) -> None:
    """Before anything is touched."""
    of_january_and_march(slotted)
    target = find_target(slotted.models, slotted.state)

    with pytest.raises(UsageError, match="--reason"):
        rollback_content(slotted.state, target, reason=reason, automatic=False, alert=None, environment=None)


@pytest.mark.parametrize("copied", [True, False])
@pytest.mark.parametrize("to", ["", "none"])
def test_the_plan_is_what_is_done(slotted: Slotted, to: str, *, copied: bool) -> None:
    """Every step of a rollback is known before; planning writes nothing."""
    of_january_and_march(slotted)
    if copied:
        slotted.copy_in(model_bytes(7))
    place = slotted.place
    target = find_target(slotted.models, slotted.state, to)
    content = rollback_content(
        slotted.state, target, reason="test", automatic=False, alert=None, environment=None
    )
    before = files_below(slotted.root)
    plan = planned_rollback(place, content)
    assert files_below(slotted.root) == before

    done: list[str] = []
    from sqkit.production.rollback import roll_back

    roll_back(Slotted(slotted.root, slotted.now, before=done.append).place, content)
    assert plan == done
    assert any("rollback" in step for step in plan)


NAMES = st.sampled_from(["", "none", "first", "date"])


@given(acts=st.lists(st.one_of(st.integers(1, 4), NAMES), max_size=7))
@settings(max_examples=12, deadline=None)
def test_whatever_is_promoted_and_rolled_back_log_archive_and_production_agree(
    tmp_path_factory: pytest.TempPathFactory, acts: list[int | str]
) -> None:
    """After each act, or refusal, the file, the record and the log name one release, and its bytes are archived."""
    slotted = Slotted(tmp_path_factory.mktemp("acts"))
    for act in acts:
        try:
            if isinstance(act, int):
                slotted.promote(act)
            else:
                first = slotted.entries[0]["release"] if slotted.entries else "none"
                slotted.roll_back({"first": first, "date": "20250101"}.get(act, act))
        except SqkitError:
            continue
        finally:
            if slotted.state.placed_by is not None:
                number = slotted.live
                assert number is None or slotted.slot.model_path.read_bytes() == model_bytes(
                    number, model_version=f"202401{number % 28 + 1:02d}_{number:06d}"
                )
