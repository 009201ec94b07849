"""Going back: which release, and putting it there.

A rollback needs no approval and no evidence: it is one audit line, after the target was found whole
and was asked a row. Dates are those on which a release LEFT production. The release that is rolled back is
quarantined: its bytes are not promoted again until somebody says so.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqkit.artifacts import STUDENT_FILE
from sqkit.audit_log import AUDIT_FILE, ROLLBACK
from sqkit.chain import Entry
from sqkit.errors import ArchiveAmbiguous, ArchiveUnknown, Quarantined, ReleaseDamaged, SqkitError, UsageError
from sqkit.people import one_line
from sqkit.production.archive import archive_differences, archive_folder, archived_model
from sqkit.production.promotion import Place, finish, keep_unrecorded, planned_after, planned_keeping
from sqkit.production.slot_state import ReleaseFact, SlotState, Stay
from sqkit.student import StudentModel

NONE: Final = "none"
"""What ``--to`` says for no student: the engine runs its baseline."""

_DATE: Final = re.compile(r"[0-9]{8}|[0-9]{4}-[0-9]{2}-[0-9]{2}")
_NAME: Final = re.compile(r"[0-9]{8}_[0-9]{6}(_[0-9a-f]{0,8})?")
_DIGEST: Final = re.compile(r"[0-9a-f]{8,64}")
_LISTED: Final = 5


@dataclass(frozen=True)
class Target:
    """Where a rollback goes.

    Attributes
    ----------
    release
        None: no student.
    already
        Production is there already; nothing is to be done.
    notes
        What a person should know, such as that a damaged release was passed over.
    """

    release: ReleaseFact | None
    already: bool = False
    notes: tuple[str, ...] = ()

    @property
    def described(self) -> str:
        """For a person."""
        return self.release.described if self.release else "no student (the engine runs its baseline)"


def find_target(models_dir: Path, state: SlotState, to: str = "", *, automatic: bool = False) -> Target:
    """The release that a rollback restores.

    Parameters
    ----------
    to
        ``YYYYMMDD`` (the date a release left production), the name of an archived release or its
        beginning, a model version, the beginning of a model's digest, or ``none``. Empty: the newest release
        that was live before, is not quarantined and is whole; where there is none, no student. A slot that
        was rolled back already stays where it is while what is live there is whole. A model that somebody
        copied into production is archived, but nobody judged it: it is no target.
    automatic
        An alert about the very release that is live asks for it: that a rollback put it there is no
        reason to stay.

    Raises
    ------
    ArchiveUnknown, ArchiveAmbiguous
        Nothing, or more than one release, is called so.
    Quarantined
        The release that is named is barred.
    ReleaseDamaged
        The release that is named is not whole, or does not load.
    UsageError
        ``to`` has none of the forms.
    """
    if to == NONE:
        return Target(None, already=state.live is None)
    if to:
        return _named(models_dir, state, to)
    if state.placed_by is None or state.placed_by["kind"] != ROLLBACK or automatic:
        return _newest(models_dir, state)
    damage = _damage(models_dir, state.live)
    if state.live is not None and damage:
        return _newest(models_dir, state, f"what is live, {state.live.described}, is damaged: {damage}")
    note = (
        f"slot {state.slot} was rolled back on {state.placed_by['date']} already; to go further back name the "
        "release with --to"
    )
    return Target(state.live, already=True, notes=(note,))


def _damage(models_dir: Path, release: ReleaseFact | None) -> str:
    """What is wrong with a release; empty where nothing is, or there is none."""
    if release is not None:
        try:
            probe(models_dir, release)
        except SqkitError as problem:
            return str(problem)
    return ""


def _newest(models_dir: Path, state: SlotState, *said: str) -> Target:
    notes = list(said)
    for release in candidates(state):
        damage = _damage(models_dir, release)
        if not damage:
            return Target(release, notes=tuple(notes))
        notes.append(f"passed over {release.described}: {damage}")
    return Target(None, already=state.live is None, notes=tuple(notes))


def candidates(state: SlotState) -> list[ReleaseFact]:
    """Where a rollback may go unasked: releases that were live and left, newest departure first.

    Neither the live bytes nor quarantined ones, nor what nobody promoted.
    """
    seen: dict[str, ReleaseFact] = {}
    for stay in reversed(state.stays):
        release = stay.release
        live = state.live is not None and release.model == state.live.model
        barred = release.unmanaged or release.model in state.quarantined
        if stay.left is not None and not live and not barred:
            seen.setdefault(release.name, release)
    return list(seen.values())


def _named(models_dir: Path, state: SlotState, to: str) -> Target:
    found = _called(state, to)
    if not found:
        none = f"no release {_meant(to, 'is')}"
        if _DATE.fullmatch(to) and not _is_date(to):
            none = f"{to} is no date"
        raise ArchiveUnknown(f"slot {state.slot}: {none}; {_known(state)}", to=to, slot=state.slot)
    found = [release for release in found if not release.unmanaged]
    if not found:
        raise ArchiveUnknown(
            f"slot {state.slot}: what is meant by {to} was copied into production and never promoted: nobody judged it; "
            "have it validated and promote it, or take the student out with --to none",
            to=to,
            slot=state.slot,
        )
    live = [release for release in found if state.live is not None and release.model == state.live.model]
    free = [release for release in found if release not in live and release.model not in state.quarantined]
    if len(free) > 1:
        raise ArchiveAmbiguous(
            f"slot {state.slot}: {len(free)} releases {_meant(to, 'are')}: "
            f"{', '.join(release.name for release in free)}; name one with --to",
            to=to,
            releases=[release.name for release in free],
        )
    if free:
        probe(models_dir, free[0])
        return Target(free[0])
    if live and state.live is not None:
        probe(models_dir, state.live)
        return Target(state.live, already=True)
    barred = found[0]
    raise Quarantined(
        f"slot {state.slot}: {barred.described} is quarantined since it was rolled back on "
        f"{state.quarantined[barred.model]['date']}; release it first with sqkit quarantine release "
        f"{barred.model[:12]} --reason TEXT, or name another release",
        model=barred.model,
    )


def _called(state: SlotState, to: str) -> list[ReleaseFact]:
    """Every release that a text may mean, each once, newest first."""
    if _is_date(to):
        stays = [stay for stay in state.stays if _left_on(stay) == to.replace("-", "")]
        return list({stay.release.name: stay.release for stay in reversed(stays)}.values())
    if _NAME.fullmatch(to):
        found = [
            release
            for release in state.releases.values()
            if release.name.startswith(to) or release.model_version == to
        ]
    elif _DIGEST.fullmatch(to.lower()) or _DATE.fullmatch(to):
        found = [release for release in state.releases.values() if release.model.startswith(to.lower())]
    else:
        raise UsageError(
            f"--to {to[:40]!r}: give the date a release left production (YYYYMMDD), the name of its archive folder, "
            "a model version, at least 8 digits of a model's SHA-256, or none",
            to=to,
        )
    return found[::-1]


def _is_date(to: str) -> bool:
    try:
        return bool(_DATE.fullmatch(to)) and bool(dt.date.fromisoformat(to))
    except ValueError:
        return False


def _left_on(stay: Stay) -> str:
    return stay.left["date"].replace("-", "") if stay.left else ""


def _meant(to: str, verb: str) -> str:
    return f"left production on {to}" if _is_date(to) else f"{verb} called {to}"


def _known(state: SlotState) -> str:
    left = [
        f"{_left_on(stay)} ({stay.release.described})"
        for stay in reversed(state.stays)
        if stay.left is not None
    ]
    if not left:
        return "none has left production yet; sqkit rollback --to none takes the live one out"
    more = f" and {len(left) - _LISTED} more, see sqkit history" if len(left) > _LISTED else ""
    return f"releases left on {', '.join(left[:_LISTED])}{more}"


def probe(models_dir: Path, release: ReleaseFact) -> None:
    """Refuse a release that is not whole, or whose model does not load and score a row.

    Raises
    ------
    ReleaseDamaged
        What is wrong with it first.
    """
    found = archive_differences(models_dir, release.name, release.files)
    if found:
        raise ReleaseDamaged(
            f"{found[0]}; restore it from a backup or name another release with --to", release=release.name
        )
    place = archive_folder(models_dir, release.name) / STUDENT_FILE
    try:
        StudentModel(archived_model(models_dir, release.name, release.model), place)
    except SqkitError as problem:
        raise ReleaseDamaged(
            f"{release.name}: does not load here ({problem}); name another release with --to",
            release=release.name,
        ) from None


def rollback_content(
    state: SlotState,
    target: Target,
    *,
    reason: str,
    automatic: bool,
    alert: Mapping[str, Any] | None,
    environment: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What the audit line of a rollback says.

    Raises
    ------
    UsageError
        There is no reason.
    """
    live, release, reason = state.live, target.release, one_line(reason)
    if not reason:
        raise UsageError("rollback: say why, in one line, with --reason")
    return {
        "alert": dict(alert) if alert is not None else None,
        "automatic": automatic,
        "environment": dict(environment) if environment is not None else None,
        "model": release.model if release else None,
        "model_version": (release.model_version or None) if release else None,
        "quarantines": live.model if live else None,
        "reason": reason,
        "release": release.name if release else None,
        "replaces": {"release": live.name, "model": live.model} if live else None,
    }


def roll_back(place: Place, content: Mapping[str, Any]) -> Entry:
    """Commit a rollback and bring production there. Returns the audit line."""
    keep_unrecorded(place)
    with place.log.writing() as write:
        place.before(f"append the rollback to {AUDIT_FILE}: from here on it counts")
        entry = place.write(write, ROLLBACK, content)
    finish(place)
    return entry


def planned_rollback(place: Place, content: Mapping[str, Any]) -> list[str]:
    """Every step of `roll_back` in words; nothing is written."""
    said, entries = planned_keeping(place)
    return [
        *said,
        f"append the rollback to {AUDIT_FILE}: from here on it counts",
        *planned_after(place, [*entries, place.imagined(ROLLBACK, content)]),
    ]
