"""Commands that sign a candidate off: ``sqkit approve`` and ``sqkit attest``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from sqkit.cli.words import Switch, Words, app
from sqkit.errors import UsageError

if TYPE_CHECKING:
    from sqkit.production.approvals import Signer

As = Annotated[str, Parameter(name="--as", negative=())]


@app.command
def approve(
    *,
    model: str,
    role: str = "",
    name: As = "",
    key: str = "",
    comment: str = "",
    expires: str = "",
    symbols: Words = None,
    reject: Switch = False,
    revoke: str = "",
    reason: str = "",
) -> int:
    """Approve a student in a role, reject it, or take back what was said.

    Bound to exactly these bytes of model, checklist and report: change one and it is void.

    Parameters
    ----------
    model
        The student's ONNX file, below data/models.
    role
        One that the policy asks for, such as ml_lead; a rejection may come as any.
    name
        Who approves; by default whom the key belongs to, else the account.
    key
        SSH key to sign with; needed where SENSEQUANT_PROMOTION_ALLOWED_SIGNERS is set.
    comment
        Kept with the approval; a rejection needs one.
    expires
        Last day it counts, YYYY-MM-DD in the market's zone.
    symbols
        What it allows to be traded, separated by spaces; by default every validated symbol.
    reject
        Reject instead: nothing is promoted until it is revoked, or the same person approves.
    revoke
        Id of a fact to take back, with --reason.
    reason
        Why it is taken back.
    """
    from sqkit.production.approvals import approve as sign_off
    from sqkit.production.approvals import revoke as take_back
    from sqkit.settings import Settings
    from sqkit.versions import run_time

    settings, now, signer = Settings(), run_time(os.environ), _signer(name, key)
    if revoke:
        if role or comment or expires or symbols or reject:
            raise UsageError(
                "--revoke takes --reason and no --role, --comment, --expires, --symbols or --reject"
            )
        outcome = take_back(model, revoke, reason, signer, settings=settings, now=now)
    else:
        if reason or not role:
            raise UsageError(
                "give --role ROLE to approve, or --revoke ID --reason TEXT to take something back"
            )
        outcome = sign_off(
            model,
            role,
            signer,
            settings=settings,
            now=now,
            comment=comment,
            expires=expires,
            symbols=symbols or (),
            reject=reject,
        )
    print("\n".join(outcome.lines()), flush=True)
    return 0


@app.command
def attest(
    box: str,
    /,
    *,
    model: str = "",
    slot: str = "",
    note: str,
    name: As = "",
    key: str = "",
) -> int:
    """Tick a box of a student's checklist that only a person can tick.

    Parameters
    ----------
    box
        Such as period-representative; a wrong one lists them.
    model
        The student's ONNX file, below data/models.
    slot
        In place of --model: a box of the release that is live there, config-updated or alerts-configured.
    note
        What was looked at.
    name
        Who; by default whom the key belongs to, else the account.
    key
        SSH key to sign with; needed where SENSEQUANT_PROMOTION_ALLOWED_SIGNERS is set.
    """
    from sqkit.production.approvals import attest as tick
    from sqkit.production.live_boxes import attest_live
    from sqkit.settings import Settings
    from sqkit.versions import run_time

    settings, now = Settings(), run_time(os.environ)
    if bool(model) == bool(slot):
        raise UsageError("give --model for a candidate, or --slot for the release that is live there")
    if slot:
        from sqkit.people import Actor
        from sqkit.production.changes import Production

        production = Production(settings, clock=lambda: now, actor=Actor.here(name), say=_say)
        line = attest_live(production, box, note, _signer(name, key), slot=slot)
        who, principal = line["actor"]["name"], line["actor"]["principal"]
        proof = f"signed, {principal}" if principal else "typed name, not authenticated"
        print(f"box {box} of {line['release']} ticked by {who} ({proof}): {note}", flush=True)
        return 0
    outcome = tick(model, box, note, _signer(name, key), settings=settings, now=now)
    print("\n".join(outcome.lines()), flush=True)
    return 0


def _say(line: str) -> None:
    print(f"sqkit: {line}", file=sys.stderr, flush=True)


def _signer(name: str, key: str) -> Signer:
    from sqkit.production.approvals import Signer

    return Signer(
        name, Path(key).expanduser() if key else None, terminal=sys.stdin is not None and sys.stdin.isatty()
    )
