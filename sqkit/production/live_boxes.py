"""Boxes that may be ticked while a release is live: configuration and alerts, kept in the audit log.

A candidate's boxes lie in its book of approvals (`sqkit.production.approvals`); the live release is
archived and never changes, so what is attested of it is a line of the log.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from sqkit.audit_log import ATTEST
from sqkit.chain import Entry
from sqkit.checklist_signoffs import ALERTS_CONFIGURED, CONFIG_UPDATED, ROLLBACK_TESTED
from sqkit.errors import ArchiveUnknown, UsageError
from sqkit.people import Actor
from sqkit.production.approval_desk import audit_log
from sqkit.production.approval_writing import require_text
from sqkit.production.boxes import OF_THE_LIVE_RELEASE, require_known
from sqkit.production.slot_state import SlotState, fold
from sqkit.production.slots import slot_named
from sqkit.production.webhook import announce
from sqkit.sessions import MARKETS
from sqkit.settings import Settings


def attest_live(
    box: str,
    note: str,
    name: str = "",
    *,
    slot: str,
    settings: Settings,
    root: Path = Path(),
    now: dt.datetime,
) -> Entry:
    """Tick a box of the release that is live in a slot; returns the audit line.

    Parameters
    ----------
    box
        ``config-updated`` or ``alerts-configured``.
    name
        As typed; empty: the account.
    slot
        Its name, or a strategy.

    Raises
    ------
    UsageError
        Another box, or one that is ticked already.
    ArchiveUnknown
        No release is live there.
    """
    require_known(box)
    require_text(note, "--note", needed=True)
    require_text(name, "--as", needed=False)
    if box == ROLLBACK_TESTED:
        raise UsageError(
            f"box {box}: nobody's word ticks it, a drill that passed does; run sqkit rollback --drill",
            box=box,
        )
    if box not in OF_THE_LIVE_RELEASE:
        raise UsageError(
            f"box {box}: belongs to a candidate and is ticked before a promotion; give --model, or one of "
            f"{', '.join(OF_THE_LIVE_RELEASE)}",
            box=box,
        )
    place, log = slot_named(settings, slot, root), audit_log(settings, root)
    state = fold(log.entries(), place.name)
    if state.live is None:
        raise ArchiveUnknown(f"slot {place.name}: no release is live, there is nothing to attest of it")
    by = _ticked_already(box, state, settings)
    if by:
        raise UsageError(f"box {box}: is ticked already by {by}", box=box)
    market = str(state.live.entry.get("market") or settings.market)
    zone = MARKETS[market if market in MARKETS else settings.market].zone
    content = {"box": box, "note": note, "release": state.live.name}
    entry = log.append(ATTEST, content, slot=place.name, actor=Actor.here(name), now=now, zone=zone)
    announce(settings, entry, root=root)
    return entry


def _ticked_already(box: str, state: SlotState, settings: Settings) -> str:
    """What the program ticked the box by; a person may attest again what a person attested."""
    if box == ALERTS_CONFIGURED and settings.student_monitoring_enabled:
        return "the settings: monitoring is enabled"
    written = state.live.entry.get("environment") if state.live else None
    if box == CONFIG_UPDATED and written:
        return f"the promotion, which wrote {written['file']}"
    return ""
