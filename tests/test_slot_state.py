"""What the log says of a slot: one release or none is live, and everything else follows from the lines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqkit.audit_log import (
    ATTEST,
    DRILL,
    HALT,
    HALT_LEVELS,
    OBJECTION,
    POLICY,
    PROMOTE,
    QUARANTINE_RELEASE,
    RATIFY,
    RESUME,
    ROLLBACK,
    UNMANAGED,
)
from sqkit.chain import Entry
from sqkit.production.rollback import candidates
from sqkit.production.slot_state import SlotState, fold
from tests.releases import Lines

SLOTS: Final = ("default", "swing")

Act = tuple[str, str, int]


@dataclass
class Told:
    """What a person would note on paper while the lines are written: names and digests only."""

    lines: Lines = field(default_factory=Lines)
    live: dict[str, str | None] = field(default_factory=dict)
    archived: dict[str, list[str]] = field(default_factory=dict)
    barred: dict[str, set[str]] = field(default_factory=dict)
    halted: dict[str, str | None] = field(default_factory=dict)
    waiting: dict[str, list[str]] = field(default_factory=dict)
    ticked: dict[str, set[str]] = field(default_factory=dict)
    touched: set[str] = field(default_factory=set)

    def do(self, act: Act) -> None:
        """One thing that happens to a slot."""
        kind, slot, number = act
        done: Callable[[str, int], None] = getattr(self, kind)
        done(slot, number)

    def promote(self, slot: str, number: int) -> None:
        entry = self.lines.promote(number, slot, replaces=self._replaces(slot))
        self._put(slot, entry["release"])
        self.waiting[slot] = []
        self.archived.setdefault(slot, []).append(entry["release"])

    def unmanaged(self, slot: str, number: int) -> None:
        entry = self.lines.unmanaged(number, slot)
        self.archived.setdefault(slot, []).append(entry["release"])
        if slot not in self.touched:
            self._put(slot, entry["release"])

    def rollback(self, slot: str, number: int) -> None:
        known: list[str | None] = [None, *self.archived.get(slot, [])]
        name = known[number % len(known)]
        live = self.live.get(slot)
        entry = self.lines.roll_back(name, slot, replaces=self._replaces(slot), automatic=number % 3 == 0)
        if live is not None:
            self.barred.setdefault(slot, set()).add(self.lines.models[live])
        self._put(slot, name)
        if not entry["automatic"]:
            self.waiting.setdefault(slot, []).append(entry["digest"])

    def halt(self, slot: str, number: int) -> None:
        level = HALT_LEVELS[number % 2]
        self.lines.add(HALT, slot, level=level, reason="test")
        self.halted[slot] = level

    def resume(self, slot: str, _: int) -> None:
        self.lines.add(RESUME, slot, reason="")
        self.halted[slot] = None

    def ratify(self, slot: str, number: int) -> None:
        waiting = self.waiting.get(slot, [])
        named = waiting[number % len(waiting)] if waiting and number % 2 else "e" * 64
        self.lines.ratify(named, slot)
        if named in waiting:
            waiting.remove(named)

    def quarantine(self, slot: str, number: int) -> None:
        barred = sorted(self.barred.get(slot, set())) or ["d" * 64]
        model = barred[number % len(barred)]
        self.lines.add(QUARANTINE_RELEASE, slot, model=model, reason="test")
        self.barred.setdefault(slot, set()).discard(model)

    def drill(self, slot: str, number: int) -> None:
        self.lines.add(DRILL, slot, passed=bool(number % 2), steps=["one"], milliseconds=1)

    def attest(self, slot: str, number: int) -> None:
        live = self.live.get(slot)
        name = live if live and number % 2 else "20200101_000000_00000000"
        self.lines.add(ATTEST, slot, box=f"box{number}", note="", release=name)
        if name == live:
            self.ticked.setdefault(slot, set()).add(f"box{number}")

    def _put(self, slot: str, name: str | None) -> None:
        self.live[slot], self.ticked[slot] = name, set()
        self.touched.add(slot)

    def _replaces(self, slot: str) -> dict[str, str] | None:
        live = self.live.get(slot)
        return {"release": live, "model": self.lines.models[live]} if live else None


KINDS: Final = (
    *("promote", "promote", "rollback", "rollback", "unmanaged", "halt", "resume", "ratify", "quarantine"),
    *("drill", "attest"),
)
ACTS: Final = st.lists(
    st.tuples(st.sampled_from(KINDS), st.sampled_from(SLOTS), st.integers(0, 11)), max_size=25
)


def told(acts: list[Act]) -> Told:
    """The notes and the lines of what happened."""
    notes = Told()
    for act in acts:
        notes.do(act)
    return notes


def held_against(notes: Told, slot: str, state: SlotState) -> None:
    """The state says what the notes say."""
    assert (state.live.name if state.live else None) == notes.live.get(slot)
    assert list(state.releases) == notes.archived.get(slot, [])
    assert set(state.quarantined) == notes.barred.get(slot, set())
    assert state.halt_level == notes.halted.get(slot)
    assert [entry["digest"] for entry in state.unratified] == notes.waiting.get(slot, [])
    assert set(state.attested) == notes.ticked.get(slot, set())
    assert (state.placed_by is not None) == (slot in notes.touched)


@given(acts=ACTS)
@settings(max_examples=300, deadline=None)
def test_whatever_happens_the_state_is_what_was_noted(acts: list[Act]) -> None:
    """Live, archived, quarantined, halted, unratified and ticked follow from the lines, for each slot alone."""
    notes = told(acts)

    for slot in SLOTS:
        held_against(notes, slot, fold(notes.lines.entries, slot))


@given(acts=ACTS)
@settings(max_examples=200, deadline=None)
def test_stays_alternate(acts: list[Act]) -> None:
    """At most one release is live at a time: a stay ends before, or with, the line that begins the next."""
    entries = told(acts).lines.entries
    places = {entry["digest"]: number for number, entry in enumerate(entries)}
    for slot in SLOTS:
        state = fold(entries, slot)
        stays = state.stays
        for stay in stays:
            assert stay.left is None or places[stay.entered["digest"]] < places[stay.left["digest"]]
        for earlier, later in pairwise(stays):
            assert earlier.left is not None
            assert places[earlier.left["digest"]] <= places[later.entered["digest"]]
        still = [stay.release for stay in stays if stay.left is None]
        assert still == ([state.live] if state.live else [])
        assert stays[-1:] == tuple(stay for stay in stays if stay.left is None) or state.live is None


@given(acts=ACTS)
@settings(max_examples=200, deadline=None)
def test_neither_the_live_release_nor_a_quarantined_one_is_a_candidate(acts: list[Act]) -> None:
    """Where a rollback goes unasked: a release that left, newest departure first, each once."""
    entries = told(acts).lines.entries
    places = {entry["digest"]: number for number, entry in enumerate(entries)}
    for slot in SLOTS:
        state = fold(entries, slot)
        found = candidates(state)
        left = {
            stay.release.name: places[stay.left["digest"]] for stay in state.stays if stay.left is not None
        }
        assert state.live is None or state.live.model not in {release.model for release in found}
        assert not {release.model for release in found} & set(state.quarantined)
        assert [left[release.name] for release in found] == sorted(
            (left[release.name] for release in found), reverse=True
        )
        assert len({release.name for release in found}) == len(found)


@given(acts=ACTS, data=st.data())
@settings(max_examples=200, deadline=None)
def test_a_beginning_and_then_the_rest_is_the_whole(acts: list[Act], data: st.DataObject) -> None:
    """Folding some lines and then those that follow gives what folding all of them gives."""
    entries = told(acts).lines.entries
    cut = data.draw(st.integers(0, len(entries)))
    for slot in SLOTS:
        assert fold(entries[cut:], slot, fold(entries[:cut], slot)) == fold(entries, slot)


@given(acts=ACTS)
@settings(max_examples=100, deadline=None)
def test_a_slot_knows_nothing_of_the_others(acts: list[Act]) -> None:
    """Without the lines of the other slots the state is the same."""
    entries = told(acts).lines.entries
    for slot in SLOTS:
        alone = [entry for entry in entries if entry["slot"] == slot]
        assert fold(alone, slot) == fold(entries, slot)


# --- in words


@pytest.fixture
def lines() -> Lines:
    """An empty log."""
    return Lines()


def test_nothing_recorded_is_no_student(lines: Lines) -> None:
    """An empty log: nothing is live, nothing was, nothing is barred."""
    assert fold(lines.entries, "default") == SlotState("default")


def test_a_quarantine_lasts_until_it_is_released(lines: Lines) -> None:
    """Further promotions and rollbacks do not lift it; the line that names the digest does."""
    first, second = lines.promote(1), lines.promote(2)
    lines.roll_back(first["release"])
    lines.promote(3)
    barred = second["digests"]["model"]
    assert set(fold(lines.entries, "default").quarantined) == {barred}

    lines.add(QUARANTINE_RELEASE, model="f" * 64, reason="another one")
    assert set(fold(lines.entries, "default").quarantined) == {barred}
    lines.add(QUARANTINE_RELEASE, model=barred, reason="it was the feed")
    assert not fold(lines.entries, "default").quarantined


def test_a_model_found_on_the_first_promotion_was_live(lines: Lines) -> None:
    """Nothing was promoted before it: what somebody copied there was what ran, and left when the first came."""
    lines.unmanaged(7)
    lines.promote(1)
    state = fold(lines.entries, "default")

    assert [stay.release.unmanaged for stay in state.stays] == [True, False]
    assert state.stays[0].left == lines.entries[1]


@pytest.mark.parametrize("live", [True, False])
def test_a_model_found_later_was_never_live(lines: Lines, *, live: bool) -> None:
    """Beside a live release, or beside none that was rolled back: the log names what is served, not the file."""
    lines.promote(1)
    if not live:
        lines.roll_back(None)
    before = fold(lines.entries, "default")
    found = lines.unmanaged(7)
    state = fold(lines.entries, "default")

    assert (state.live, state.stays, state.placed_by) == (before.live, before.stays, before.placed_by)
    assert found["release"] in state.releases


def test_a_promotion_settles_a_rollback_that_nobody_ratified(lines: Lines) -> None:
    """What is live now was approved: there is nothing left to agree to."""
    first = lines.promote(1)
    lines.promote(2)
    lines.roll_back(first["release"])
    assert fold(lines.entries, "default").unratified
    lines.promote(3)
    assert fold(lines.entries, "default").unratified == ()


def test_every_rollback_by_a_person_waits_until_it_is_ratified(lines: Lines) -> None:
    """A second one hides the first no more than a rollback by machine does; each is ratified by its own digest."""
    names = [lines.promote(number)["release"] for number in (1, 2, 3, 4)]
    first, second = lines.roll_back(names[2]), lines.roll_back(names[1])
    lines.roll_back(names[0], automatic=True)
    assert fold(lines.entries, "default").unratified == (first, second)

    lines.ratify(second["digest"])
    assert fold(lines.entries, "default").unratified == (first,)
    lines.ratify(first["digest"])
    assert fold(lines.entries, "default").unratified == ()


def test_a_rollback_by_machine_waits_for_nobody(lines: Lines) -> None:
    """It has its evidence; only what a person did without approval is unratified."""
    lines.promote(1)
    lines.roll_back(None, automatic=True)

    assert fold(lines.entries, "default").unratified == ()


def test_a_halt_outlasts_promotions_and_rollbacks(lines: Lines) -> None:
    """Only resuming ends it, and resuming twice is resuming."""
    first = lines.promote(1)
    lines.add(HALT, reason="feed")
    lines.promote(2)
    lines.roll_back(first["release"])
    assert fold(lines.entries, "default").halted == lines.entries[1]
    for _ in range(2):
        lines.add(RESUME, reason="")
        assert fold(lines.entries, "default").halted is None


def test_the_newest_drill_decides(lines: Lines) -> None:
    """One that failed counts against one that passed before it, until another passes."""
    for passed in (True, False, True):
        drill = lines.add(DRILL, passed=passed, steps=["one"], milliseconds=3)
        assert fold(lines.entries, "default").drill == drill


def test_the_newest_accepted_policy_is_in_force(lines: Lines) -> None:
    """Each acceptance replaces the one before it, in its slot."""
    for slot, days in (("default", 60), ("swing", 70), ("default", 80)):
        lines.policy({"min_days": days}, slot)

    assert _days(fold(lines.entries, "default")) == 80
    assert _days(fold(lines.entries, "swing")) == 70


def _days(state: SlotState) -> Any:
    assert state.policy is not None
    return state.policy["policy"]["min_days"]


def test_a_tick_counts_for_the_release_it_names(lines: Lines) -> None:
    """A box ticked for what is live is gone when something else is."""
    first = lines.promote(1)
    lines.add(ATTEST, box="config-updated", note="", release=first["release"])
    assert set(fold(lines.entries, "default").attested) == {"config-updated"}
    lines.promote(2)
    lines.add(ATTEST, box="config-updated", note="", release=first["release"])
    assert not fold(lines.entries, "default").attested


def test_every_kind_is_folded(lines: Lines) -> None:
    """The state knows each kind of line that the log may hold."""
    first: Entry = lines.promote(1)
    lines.unmanaged(2)
    for kind in (HALT, RESUME, QUARANTINE_RELEASE, DRILL, ATTEST, OBJECTION):
        lines.add(kind)
    lines.policy({}, "default")
    lines.roll_back(first["release"])
    lines.ratify("a" * 64)

    kinds = {entry["kind"] for entry in lines.entries}
    assert kinds == {
        *(PROMOTE, ROLLBACK, UNMANAGED, HALT, RESUME, RATIFY, QUARANTINE_RELEASE, POLICY, DRILL, ATTEST),
        OBJECTION,
    }
    assert fold(lines.entries, "default").live is not None
