"""Boxes that may be ticked while a release is live: configuration and alerts, kept in the audit log.

A candidate's boxes lie in its book of approvals (`sqkit.production.approvals`); the live release is
archived and never changes, so what is attested of it is a line of the log.
"""

from __future__ import annotations

from dataclasses import replace

from sqkit.audit_log import ATTEST
from sqkit.chain import Entry
from sqkit.checklist_signoffs import ALERTS_CONFIGURED, CONFIG_UPDATED, ROLLBACK_TESTED
from sqkit.errors import ArchiveUnknown, SignatureRefused, UsageError
from sqkit.production.approval_voices import agrees
from sqkit.production.approval_writing import Signer, require_text
from sqkit.production.boxes import OF_THE_LIVE_RELEASE, require_known
from sqkit.production.changes import Production
from sqkit.production.signed_facts import signed_line
from sqkit.production.slot_state import SlotState
from sqkit.settings import Settings


def attest_live(
    production: Production, box: str, note: str, signer: Signer | None = None, *, slot: str
) -> Entry:
    """Tick a box of the release that is live in a slot, signed where signers are set; returns the audit line.

    Parameters
    ----------
    box
        ``config-updated`` or ``alerts-configured``.
    signer
        Who; by default the account, which `production` names.
    slot
        Its name, or a strategy.

    Raises
    ------
    UsageError
        Another box, or one that is ticked already.
    ArchiveUnknown
        No release is live there.
    SignatureRefused, SigningFailed
        A signature is asked for, and this is none of somebody allowed, or not of whom it names.
    """
    signer = signer or Signer()
    require_known(box)
    require_text(note, "--note", needed=True)
    require_text(signer.name, "--as", needed=False)
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
    place = production.slot(slot)
    state = production.state(place)
    if state.live is None:
        raise ArchiveUnknown(f"slot {place.name}: no release is live, there is nothing to attest of it")
    by = _ticked_already(box, state, production.settings)
    if by:
        raise UsageError(f"box {box}: is ticked already by {by}", box=box)
    content, actor = signed_line(
        production,
        place,
        ATTEST,
        {"box": box, "note": note, "release": state.live.name},
        key=signer.key,
        what=f"ticking the box {box}",
        terminal=signer.terminal,
    )
    if actor.principal is not None and not agrees(actor.name, actor.principal):
        if signer.name:
            raise SignatureRefused(
                f"--as {signer.name}: the key {signer.key} is that of {actor.principal}; leave --as out, or sign with "
                "your own key",
                principal=actor.principal,
            )
        actor = replace(actor, name=actor.principal)
    return production.append(place, ATTEST, content, actor=actor)


def _ticked_already(box: str, state: SlotState, settings: Settings) -> str:
    """What the program ticked the box by; a person may attest again what a person attested."""
    if box == ALERTS_CONFIGURED and settings.student_monitoring_enabled:
        return "the settings: monitoring is enabled"
    written = state.live.entry.get("environment") if state.live else None
    if box == CONFIG_UPDATED and written:
        return f"the promotion, which wrote {written['file']}"
    return ""
