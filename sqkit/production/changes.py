"""What every change to production shares: the slot's lock, repair before work, the log, who and when.

The promoter and the interventions of a person work through one `Production`. In: settings, root, clock, actor.
Out: a `Place` for each slot. Nothing is printed; what a person should read on the way goes to `say`.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqkit.audit_log import AUDIT_FILE, UNMANAGED
from sqkit.chain import Entry, json_of
from sqkit.errors import OutputError, ReleaseDamaged, SlotMismatch, SqkitError
from sqkit.files import exclusive
from sqkit.people import Actor
from sqkit.production.archive import leftovers, set_aside
from sqkit.production.audit import AuditLog
from sqkit.production.promotion import Place, finish, keep_unrecorded
from sqkit.production.slot_state import SlotState, fold
from sqkit.production.slots import LOCK_FILE, Slot, all_slots, models_folder, slot_named
from sqkit.production.webhook import announce
from sqkit.sessions import MARKETS
from sqkit.settings import Settings
from sqkit.versions import run_time

logger = logging.getLogger(__name__)


class Production:
    """The production places of a project.

    Parameters
    ----------
    settings, root
        Settings, and the project's root below which their relative paths lie.
    clock
        Gives the present, UTC; by default ``SOURCE_DATE_EPOCH`` where it is set, else the clock.
    actor
        Who acts; by default whoever runs this process.
    on_step
        Told of each step before it is done.
    say
        Where lines go that a person should read.
    """

    def __init__(
        self,
        settings: Settings,
        root: Path = Path(),
        *,
        clock: Callable[[], dt.datetime] | None = None,
        actor: Actor | None = None,
        on_step: Callable[[str], None] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.settings = settings
        self.root = root
        self.models_dir = models_folder(settings, root)
        self.actor = actor or Actor.here()
        self.say = say or (lambda line: None)
        self.now = clock or (lambda: run_time(os.environ))
        self._on_step = on_step or (lambda step: None)
        releases = tuple(slot.release_path for slot in all_slots(settings, root))
        self.log = AuditLog(self.models_dir, releases, self.say)

    def slot(self, name: str) -> Slot:
        """The slot of a name or of a strategy."""
        return slot_named(self.settings, name, self.root)

    def state(self, slot: Slot) -> SlotState:
        """What the log says of a slot now."""
        return self.log.state(slot.name)

    def place(self, slot: Slot, market: str = "") -> Place:
        """A slot as a change needs it; the market is that of its newest promotion unless given."""
        stays = self.state(slot).stays
        known = market or next(
            (stay.release.entry["market"] for stay in reversed(stays) if not stay.release.unmanaged), ""
        )
        return Place(
            self.models_dir,
            self.root,
            slot,
            MARKETS[known if known in MARKETS else self.settings.market].zone,
            self.now(),
            self.actor,
            self.log,
            self._on_step,
        )

    @contextlib.contextmanager
    def changing(self, slot: Slot) -> Iterator[None]:
        """Hold a slot; what a crash left in it is finished first, and said.

        Raises
        ------
        ConflictError
            Another process changes this slot.
        """
        with exclusive(slot.folder, f"promotion or rollback in slot {slot.name}", name=LOCK_FILE):
            self._require_own(slot)
            try:
                for line in self._recovered(slot):
                    self.say(f"finished what was interrupted: {line}")
            except ReleaseDamaged as problem:  # a promotion or rollback is the way out of it
                self.say(f"slot {slot.name} cannot be repaired: {problem}")
            yield

    @contextlib.contextmanager
    def committed(self, slot: Slot) -> Iterator[None]:
        """Where a step fails after the promotion or rollback in a slot that is held counts, the refusal says so."""
        before = self.state(slot).placed_by
        try:
            yield
        except (SqkitError, OSError) as problem:
            entries = self.log.entries()
            after = fold(entries, slot.name).placed_by
            said = "line" in getattr(problem, "values", {})
            if said or after is None or after == before or after["kind"] == UNMANAGED:
                raise
            refusal = type(problem) if isinstance(problem, SqkitError) else OutputError
            raise refusal(
                f"{problem}; line {entries.index(after) + 1} of {AUDIT_FILE} counts already: mend that and run sqkit "
                "doctor --fix",
                **getattr(problem, "values", {}),
            ) from None

    def recover(self) -> list[str]:
        """Finish what a crash left in any slot; one line for each thing done."""
        done = self.log.settle()
        for slot in all_slots(self.settings, self.root):
            if slot.folder.exists() or self.state(slot).placed_by is not None:
                with exclusive(slot.folder, f"repair of slot {slot.name}", name=LOCK_FILE):
                    self._require_own(slot)
                    done += self._recovered(slot)
        return done

    def _require_own(self, slot: Slot) -> None:
        """Refuse a folder that is another slot's: a setting was changed under the two.

        A record that was merely copied here, while the other slot has its own, is written anew.
        """
        other = _named_slot(slot)
        if other in ("", slot.name):
            return
        places = {known.name: known for known in all_slots(self.settings, self.root)}
        if other not in places or _named_slot(places[other]) != other:
            raise SlotMismatch(
                f"{slot.folder}: holds the release of slot {other}, not of slot {slot.name}; give slot {slot.name} a "
                "folder of its own, or put the paths back as they were",
                slot=slot.name,
                other=other,
            )

    def leftovers(self) -> list[Path]:
        """Archive folders of promotions that never counted."""
        return leftovers(self.models_dir, self.log.archived())

    def _recovered(self, slot: Slot) -> list[str]:
        done = self.log.settle()
        if self.leftovers():
            with self.log.writing():  # nobody else is between storing and committing
                done += [set_aside(path) for path in self.leftovers()]
        kept = keep_unrecorded(self.place(slot)) if self.state(slot).placed_by is not None else None
        if kept is not None:
            self.announce(kept)
            done.append(f"archived as {kept['release']} a model that somebody put into production by hand")
        return done + finish(self.place(slot), repairing=True)

    def append(
        self, slot: Slot, kind: str, content: Mapping[str, Any], *, actor: Actor | None = None
    ) -> Entry:
        """One line about a slot that changes no file of production; announced."""
        place = self.place(slot)
        entry = self.log.append(
            kind, content, slot=slot.name, actor=actor or place.actor, now=place.now, zone=place.zone
        )
        self.announce(entry)
        return entry

    def announce(self, entry: Entry) -> None:
        """Tell the log of this process, and whoever listens, what was recorded; never fails."""
        logger.info(
            "%s in slot %s by %s",
            entry["kind"],
            entry["slot"],
            entry["actor"]["name"],
            extra={"component": "promoter", "audit_line": entry["digest"]},
        )
        announce(self.settings, entry, root=self.root)


def _named_slot(slot: Slot) -> str:
    """Whose release the record beside the model is; empty where there is none that can be read."""
    record = json_of(slot.release_path)
    named = record.get("slot") if isinstance(record, dict) else None
    return named if isinstance(named, str) else ""


def noting(place: Place, steps: list[str]) -> Place:
    """The same place, whose steps are also noted in a list."""

    def before(step: str) -> None:
        steps.append(step)
        place.before(step)

    return replace(place, before=before)
