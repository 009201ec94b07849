"""The state of a slot: what is live, what was, what is barred, folded from the audit log.

Nothing else says what is live. In: the log's lines. Out: one `SlotState`; no file is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from sqkit.audit_log import (
    ATTEST,
    DRILL,
    HALT,
    MONITOR,
    OBJECTION,
    POLICY,
    PROMOTE,
    QUARANTINE_RELEASE,
    RATIFY,
    ROLLBACK,
    UNMANAGED,
)
from sqkit.chain import Entry


@dataclass(frozen=True)
class ReleaseFact:
    """An archived release, as the log names it.

    Attributes
    ----------
    name
        Of its folder in the archive.
    model
        SHA-256 of the model.
    model_version
        Its version tag; empty for a model that was found in production without a record.
    entry
        The line that made it: of kind promote or unmanaged.
    """

    name: str
    model: str
    model_version: str
    entry: Entry

    @property
    def unmanaged(self) -> bool:
        """Whether somebody put it into production without a promotion."""
        return bool(self.entry["kind"] == UNMANAGED)

    @property
    def files(self) -> Mapping[str, str]:
        """Name of each archived file to its SHA-256."""
        return self.entry["files"]  # type: ignore[no-any-return]

    @property
    def described(self) -> str:
        """For a person: version and where it lies."""
        return f"{self.model_version or 'unmanaged'} ({self.name})"


@dataclass(frozen=True)
class Stay:
    """One time that a release was live."""

    release: ReleaseFact
    entered: Entry
    left: Entry | None = None


@dataclass(frozen=True)
class SlotState:
    """What the log says of one slot.

    Attributes
    ----------
    live
        The release that is served; None: no student.
    placed_by
        The line that put the slot into this state; None where nothing ever did.
    stays
        Every time a release was live, oldest first.
    quarantined
        Digest of a model to the rollback that barred it.
    halted, policy, drill
        The line in force: the halt; the accepted policy; the newest drill, passed or not.
    unratified
        Rollbacks by a person that nobody ratified and no promotion settled, oldest first.
    attested
        Box to the line that ticked it for the live release.
    """

    slot: str
    live: ReleaseFact | None = None
    placed_by: Entry | None = None
    releases: Mapping[str, ReleaseFact] = field(default_factory=dict)
    stays: tuple[Stay, ...] = ()
    quarantined: Mapping[str, Entry] = field(default_factory=dict)
    halted: Entry | None = None
    unratified: tuple[Entry, ...] = ()
    policy: Entry | None = None
    drill: Entry | None = None
    attested: Mapping[str, Entry] = field(default_factory=dict)

    @property
    def halt_level(self) -> str | None:
        """The level of the halt in force; None where the log does not halt the slot."""
        return None if self.halted is None else self.halted["level"]


def fold(entries: Iterable[Entry], slot: str, before: SlotState | None = None) -> SlotState:
    """The state of a slot after these lines, which follow on those that led to the state `before`."""
    state = before or SlotState(slot)
    for entry in entries:
        if entry["slot"] == slot:
            state = _after(state, entry)
    return state


def _after(state: SlotState, entry: Entry) -> SlotState:
    kind = entry["kind"]
    if kind == PROMOTE:
        release = ReleaseFact(entry["release"], entry["digests"]["model"], entry["model_version"], entry)
        known = replace(state, releases={**state.releases, release.name: release}, unratified=())
        return _placed(known, release, entry)
    if kind == UNMANAGED:
        release = ReleaseFact(entry["release"], entry["model"], "", entry)
        known = replace(state, releases={**state.releases, release.name: release})
        # Found beside a live release it was never served: the log names what is.
        return _placed(known, release, entry) if state.placed_by is None else known
    if kind == ROLLBACK:
        barred = {entry["quarantines"]: entry} if entry["quarantines"] else {}
        target = state.releases.get(entry["release"]) if entry["release"] else None
        back = _placed(replace(state, quarantined={**state.quarantined, **barred}), target, entry)
        return back if entry["automatic"] else replace(back, unratified=(*back.unratified, entry))
    if kind == QUARANTINE_RELEASE:
        kept = {digest: why for digest, why in state.quarantined.items() if digest != entry["model"]}
        return replace(state, quarantined=kept)
    if kind == RATIFY:
        left = tuple(waiting for waiting in state.unratified if waiting["digest"] != entry["rollback"])
        return replace(state, unratified=left)
    if kind == ATTEST:
        live = state.live is not None and state.live.name == entry["release"]
        return replace(state, attested={**state.attested, entry["box"]: entry}) if live else state
    if kind == DRILL:
        return replace(state, drill=entry)
    if kind == POLICY:
        return replace(state, policy=entry)
    if kind in (OBJECTION, MONITOR):  # to a candidate, or what was seen: the slot is as it was
        return state
    return replace(state, halted=entry if kind == HALT else None)  # the only other kind resumes


def _placed(state: SlotState, release: ReleaseFact | None, entry: Entry) -> SlotState:
    """The slot after this line put a release there, or none."""
    stays = state.stays
    if state.live is not None:
        stays = (*stays[:-1], replace(stays[-1], left=entry))
    if release is not None:
        stays = (*stays, Stay(release, entry))
    return replace(state, live=release, placed_by=entry, stays=stays, attested={})
