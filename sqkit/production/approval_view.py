"""``promotion_checklist.md`` with today's boxes and signatures: a view, never hashed for an approval."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Final

from sqkit.artifacts import CHECKLIST_FILE, CHECKLIST_PAGE, STUDENT_FILE
from sqkit.checklist import render_markdown
from sqkit.checklist_signoffs import Signature, SignOffs
from sqkit.files import write_text
from sqkit.production.approval_desk import Desk, open_desk
from sqkit.production.approval_standing import FULL_CONTROL, RoleStanding, Standing
from sqkit.production.approval_voices import Voice
from sqkit.production.audit import date_in
from sqkit.settings import Settings

TYPED_NAMES: Final = (
    "a typed name is not authentication; set SENSEQUANT_PROMOTION_ALLOWED_SIGNERS to ask for SSH signatures"
)


def render_view(folder: Path, *, settings: Settings, root: Path = Path(), now: dt.datetime) -> None:
    """Draw the page of a student's folder again.

    Raises
    ------
    SqkitError
        The candidate or the audit log cannot be read, or the page cannot be written; it is as it was.
    """
    place = folder.relative_to(root) if folder.is_relative_to(root) else folder
    desk = open_desk(place / STUDENT_FILE, settings=settings, root=root, now=now)
    page = render_markdown(desk.candidate.json(CHECKLIST_FILE), signoffs_of(desk))
    write_text(desk.candidate.folder / CHECKLIST_PAGE, page)


def signoffs_of(desk: Desk) -> SignOffs:
    """Boxes and signatures as the page shows them."""
    stands = desk.standing()
    lines = [_rejection(voice, desk.zone) for voice in stands.rejections]
    signatures: list[Signature] = []
    for one in stands.roles:
        rejected = [line for line in lines if line.role == one.role]
        if one.problem is None or not rejected:
            signatures.append(_signature(one, desk.zone))
        signatures += rejected
    asked = {one.role for one in stands.roles}
    return SignOffs(
        ticked={box.box: box.by for box in desk.boxes() if box.ticked},
        signatures=(*signatures, *(line for line in lines if line.role not in asked)),
        remarks=tuple(_remarks(stands, desk)),
    )


def control_line(roles: int) -> str:
    """What to say where fewer roles are asked for than usual."""
    asked = f"{roles} role{'' if roles == 1 else 's'}" if roles else "nobody"
    return f"reduced control: the policy asks {asked}, not {FULL_CONTROL} roles"


def _signature(one: RoleStanding, zone: str) -> Signature:
    if one.fact is None:
        return Signature(one.role)
    if one.problem is not None:
        return Signature(one.role, note=one.problem.message)
    limits = [f"only {', '.join(one.fact['symbols'])}"] if one.fact["symbols"] is not None else []
    limits += [f"up to {one.fact['expires']}"] if one.fact["expires"] is not None else []
    note = "; ".join([*([one.fact["comment"]] if one.fact["comment"] else []), *limits])
    date = date_in(one.at, zone)
    return Signature(one.role, one.name, one.principal, date, approved=True, note=note)


def _rejection(voice: Voice, zone: str) -> Signature:
    fact = voice.fact
    return Signature(
        fact["role"],
        fact["name"],
        voice.principal,
        date_in(fact["at"], zone),
        rejected=True,
        note=fact["comment"],
    )


def _remarks(stands: Standing, desk: Desk) -> list[str]:
    validated = desk.statement["predicate"]["symbols"]
    remarks = []
    if list(stands.symbols) != validated:
        remarks.append(f"The approvals allow {', '.join(stands.symbols) or 'no symbol'}.")
    if stands.unsigned:
        remarks.append(f"{TYPED_NAMES[:1].upper()}{TYPED_NAMES[1:]}.")
    if stands.reduced_control:
        line = control_line(len(stands.roles))
        remarks.append(f"{line[:1].upper()}{line[1:]}.")
    return remarks
