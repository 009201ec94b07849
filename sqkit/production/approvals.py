"""Sign-offs: a person approves or rejects a candidate, takes that back, or ticks a box.

``sqkit approve`` and ``sqkit attest`` call these. Each adds one fact to ``approvals.json`` under a lock,
refuses what a promotion would refuse, and draws the checklist's page again. The rest of the room takes
`standing`, `statement_of`, `read_book` and `render_view` from here.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqkit.artifacts import CHECKLIST_FILE, CHECKLIST_PAGE
from sqkit.checklist import PROMOTE, rederive
from sqkit.errors import (
    ArtifactChanged,
    NotRecommended,
    UnknownRole,
    UsageError,
)
from sqkit.production.approval_book import Book, parse_book, read_book
from sqkit.production.approval_desk import Desk
from sqkit.production.approval_facts import (
    APPROVE,
    ATTEST,
    REJECT,
    REVOKE,
    Fact,
    made_at,
    statement_of,
    who_said,
)
from sqkit.production.approval_standing import (
    RoleStanding,
    Standing,
    approval_problem,
    standing,
)
from sqkit.production.approval_view import render_view
from sqkit.production.approval_voices import (
    approvals_in_force,
    hear,
    revocation_of,
    verified_later,
    voices_about,
)
from sqkit.production.approval_writing import (
    Recorded,
    Signer,
    made_fact,
    objected,
    proof_words,
    recorded,
    require_text,
    writing,
)
from sqkit.production.audit import date_in, instant
from sqkit.production.boxes import require_attestable, require_known
from sqkit.report_manifest import verify_manifest
from sqkit.settings import Settings

__all__ = [
    "Book",
    "Recorded",
    "RoleStanding",
    "Signer",
    "Standing",
    "approve",
    "attest",
    "parse_book",
    "read_book",
    "render_view",
    "revoke",
    "standing",
    "statement_of",
    "verified_later",
]


def approve(
    model_path: str | Path,
    role: str,
    signer: Signer | None = None,
    *,
    settings: Settings,
    root: Path = Path(),
    now: dt.datetime,
    comment: str = "",
    expires: str = "",
    symbols: Sequence[str] = (),
    reject: bool = False,
) -> Recorded:
    """Approve a candidate in a role, or reject it.

    Parameters
    ----------
    role
        One the policy asks for; a rejection may come as any.
    signer
        Who; by default the account, with a typed name.
    now
        UTC.
    comment
        Kept with the fact; a rejection needs one.
    expires
        ``YYYY-MM-DD``, the last day the approval counts, in the market's zone; empty: until it is too old.
    symbols
        What it allows to be traded; empty: every validated symbol.
    reject
        Reject instead.

    Raises
    ------
    NotRecommended
        The decision is not PROMOTE: there is nothing to approve.
    UnknownRole, SelfApproval, UsageError
        This role, person or scope cannot approve.
    SignatureRefused, SigningFailed
        A signature is asked for, and this is none of somebody allowed.
    ClockBackwards
        The clock is behind the newest fact.
    ConflictError
        Another process is writing here.
    """
    if reject and not comment.strip():
        raise UsageError("--reject: a rejection needs a reason; give --comment TEXT")
    require_text(comment, "--comment", needed=reject)
    if reject and (expires or symbols):
        raise UsageError("--reject takes neither --expires nor --symbols: it stands until it is revoked")
    said: dict[str, Any] = {"kind": REJECT if reject else APPROVE, "role": role, "comment": comment}
    with writing(model_path, settings, root, now) as desk:
        if reject:
            require_text(role, "--role", needed=True)
        else:
            _require_approvable(desk, role)
        scope = _scope(desk, symbols)
        said = {**said, "expires": _last_day(desk, expires), "symbols": scope}
        book = desk.book.about(desk.statement)
        fact = made_fact(desk, book, said, signer or Signer(), key_needed=not reject)
        if not reject:
            _require_counts(desk, book, fact)
        done = proof_words("rejected" if reject else "approved", fact) + f" as {role}"
        if not reject:
            done += f" for {', '.join(scope or desk.statement['predicate']['symbols'])}, up to {_ends(desk, fact)}"
        added = recorded(desk, book.with_fact(fact), fact, done)
        if reject:
            objected(desk, fact, comment)
        return added


def revoke(
    model_path: str | Path,
    fact_id: str,
    reason: str,
    signer: Signer | None = None,
    *,
    settings: Settings,
    root: Path = Path(),
    now: dt.datetime,
) -> Recorded:
    """Take a fact back: an approval, a rejection or a ticked box.

    Taking back an approval or a box needs no signature: stopping is free.

    Raises
    ------
    UsageError
        There is no such fact, or it was taken back already.
    """
    require_text(reason, "--reason", needed=True)
    with writing(model_path, settings, root, now) as desk:
        target = desk.book.fact(fact_id)
        if target is None or target["kind"] == REVOKE:
            raise UsageError(f"--revoke {fact_id}: {_revocable(desk)}", fact=fact_id)
        before = revocation_of(desk.book, target, desk.signers)
        if before is not None:
            raise UsageError(
                f"--revoke {fact_id}: {before['name']} took it back already on {date_in(before['at'], desk.zone)}",
                fact=fact_id,
            )
        said = {"kind": REVOKE, "revokes": fact_id, "reason": reason}
        fact = made_fact(desk, desk.book, said, signer or Signer(), key_needed=target["kind"] == REJECT)
        done = f"{proof_words('revoked', fact)}: {who_said(target)}"
        added = recorded(desk, desk.book.with_fact(fact), fact, done)
        objected(desk, fact, reason)
        return added


def attest(
    model_path: str | Path,
    box: str,
    note: str,
    signer: Signer | None = None,
    *,
    settings: Settings,
    root: Path = Path(),
    now: dt.datetime,
) -> Recorded:
    """Tick a box that no program can tick.

    Raises
    ------
    UsageError
        There is no such box, the program ticks it, or the evidence speaks against it.
    """
    require_known(box)
    require_text(note, "--note", needed=True)
    with writing(model_path, settings, root, now) as desk:
        require_attestable(next(state for state in desk.boxes() if state.box == box))
        book = desk.book.about(desk.statement)
        said = {"kind": ATTEST, "box": box, "note": note}
        fact = made_fact(desk, book, said, signer or Signer(), key_needed=True)
        return recorded(desk, book.with_fact(fact), fact, f"{proof_words('attested', fact)}: box {box}")


def _require_approvable(desk: Desk, role: str) -> None:
    """There is something to approve, it is whole, and this role is asked for."""
    recommendation, code, reasons = rederive(desk.candidate.json(CHECKLIST_FILE))
    if recommendation != PROMOTE:
        raise NotRecommended(
            f"{desk.candidate.typed}: the decision is {recommendation}, there is nothing to approve: {reasons[0]}",
            decision_exit_code=code,
            recommendation=recommendation,
        )
    roles = desk.policy.required_approvals
    if role not in roles:
        asked = f"give one of {', '.join(roles)}" if roles else "the policy asks for no approval"
        raise UnknownRole(
            f"--role {role}: no role of the policy of slot {desk.slot.name}; {asked}", role=role
        )
    report = desk.candidate.report
    assert report is not None, "the statement names its manifest"
    page = f"/{CHECKLIST_PAGE}: "  # a view, which every sign-off draws again
    changed = [line for line in verify_manifest(report, desk.root) if page not in line]
    if changed:
        raise ArtifactChanged(
            f"{changed[0]}; what you read is not what was validated: validate the model again with sqkit validate",
            changed=changed,
        )


def _scope(desk: Desk, symbols: Sequence[str]) -> list[str] | None:
    validated = desk.statement["predicate"]["symbols"]
    unknown = [symbol for symbol in symbols if symbol not in validated]
    if unknown:
        raise UsageError(
            f"--symbols {' '.join(unknown)}: not validated; give some of {', '.join(validated)}",
            unknown=unknown,
        )
    return [symbol for symbol in validated if symbol in symbols] or None


def _last_day(desk: Desk, expires: str) -> str | None:
    if not expires:
        return None
    try:
        fits = dt.date.fromisoformat(expires).isoformat() == expires
    except ValueError:
        fits = False
    if not fits:
        raise UsageError(f"--expires {expires}: give a date as YYYY-MM-DD", expires=expires)
    today = desk.rules.today
    if expires < today:
        raise UsageError(f"--expires {expires}: is past; today is {today} ({desk.zone})", expires=expires)
    return expires


def _require_counts(desk: Desk, book: Book, fact: Fact) -> None:
    """What would not count at the promotion is refused now."""
    heard = voices_about(book, desk.statement, desk.signers)
    problem = approval_problem(hear(fact, desk.signers), approvals_in_force(book, heard), desk.rules)
    if problem is not None:  # the fact is nowhere yet, so its id says nothing
        message = problem.message.replace(f" (fact {fact['id']})", "")
        raise type(problem)(message, **problem.values)


def _revocable(desk: Desk) -> str:
    """What could be taken back, for a message."""
    known = [
        who_said(fact)
        for fact in desk.book.facts
        if fact["kind"] != REVOKE and revocation_of(desk.book, fact, desk.signers) is None
    ]
    return f"no such fact; there are {'; '.join(known)}" if known else "no fact is in force here"


def _ends(desk: Desk, fact: Fact) -> str:
    """The last calendar day an approval counts."""
    oldest = made_at(fact) + dt.timedelta(days=desk.policy.approval_max_age_days)
    aged: str = date_in(instant(oldest), desk.zone)
    return min(aged, fact["expires"] or aged)
