"""Whether a candidate is approved: the book of approvals held against policy, bytes and clock.

Asked when somebody approves, at promotion, and for the checklist's page, so that what one place refuses
all refuse. Nothing is written. What counts as one person, and which facts are in force, is said by
`sqkit.production.approval_voices`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from sqkit.checklist_inputs import Policy
from sqkit.errors import (
    ApprovalExpired,
    ApprovalsMissing,
    ApprovalVoid,
    ClockBackwards,
    SelfApproval,
    SqkitError,
)
from sqkit.files import sha256_json
from sqkit.production.approval_book import Book, require_clock
from sqkit.production.approval_facts import APPROVE, Fact, Statement, changed_parts, made_at, who_said
from sqkit.production.approval_voices import (
    Voice,
    approvals_in_force,
    is_author,
    rejections_in_force,
    same_person,
    voices_about,
)
from sqkit.production.audit import CLOCK_TOLERANCE, date_in, instant

FULL_CONTROL: Final = 3
"""So many roles are asked for by default; with fewer, control is reduced."""


@dataclass(frozen=True)
class RoleStanding:
    """What became of one role that the policy asks for.

    Attributes
    ----------
    fact
        The approval that fills it, or the newest one that does not count; None without any.
    name, principal
        Who gave it: as typed, and who signed. No principal: a typed name, not authenticated.
    at
        When, UTC; empty without a fact.
    problem
        Why the role is open; None where it is filled.
    """

    role: str
    fact: Fact | None
    name: str
    principal: str | None
    at: str
    problem: SqkitError | None


@dataclass(frozen=True)
class Standing:
    """Whether a candidate is approved.

    Attributes
    ----------
    roles
        In the order of the policy.
    rejections
        In force, of whatever role.
    symbols
        What every approval allows it to trade.
    problems
        Everything that stands in the way, the gravest first; empty: approved.
    reduced_control
        Whether the policy asks for fewer than three roles.
    unsigned
        Whether an approval rests on a typed name.
    """

    roles: tuple[RoleStanding, ...]
    rejections: tuple[Voice, ...]
    symbols: tuple[str, ...]
    problems: tuple[SqkitError, ...]
    reduced_control: bool
    unsigned: bool


@dataclass(frozen=True)
class Rules:
    """What approvals are held against.

    Attributes
    ----------
    policy
        The one in force in the slot.
    signers
        Contents of the allowed signers file; None where typed names do.
    author
        Who made the model, of its metadata.
    now, zone
        UTC, and the market's zone for calendar dates.
    decided_at
        When the decision was made, UTC: nobody can have approved it before.
    """

    policy: Policy
    signers: str | None
    author: str
    now: dt.datetime
    zone: str
    decided_at: str

    @property
    def today(self) -> str:
        """The calendar date in the market's zone."""
        return date_in(instant(self.now), self.zone)


def standing(
    book: Book | None,
    statement: Statement,
    *,
    policy: Policy,
    signers: str | None,
    author: str,
    now: dt.datetime,
    zone: str,
    decided_at: str,
) -> Standing:
    """Whether a candidate is approved, and what is missing.

    Parameters
    ----------
    book
        See `sqkit.production.approval_book.read_book`; None where nobody said anything.
    statement
        Of the candidate as it lies there now.
    policy, signers, author, now, zone, decided_at
        See `Rules`.
    """
    rules = Rules(policy, signers, author, now, zone, decided_at)
    known = book or Book(statement)
    voices = voices_about(known, statement, signers)
    rejections = rejections_in_force(known, voices, signers)
    approvals = approvals_in_force(known, voices)
    roles = [_role(role, approvals, known, statement, rules) for role in policy.required_approvals]
    symbols = _common_scope(roles, statement)
    problems = [
        *_clock_problems(known, now),
        *(_rejected(voice.fact, zone) for voice in rejections),
        *_role_problems(roles, {voice.fact["role"] for voice in rejections}),
    ]
    if not problems and not symbols:
        problems.append(_nothing_in_common(roles))
    return Standing(
        roles=tuple(roles),
        rejections=tuple(rejections),
        symbols=symbols,
        problems=tuple(problems),
        reduced_control=len(policy.required_approvals) < FULL_CONTROL,
        unsigned=any(one.problem is None and one.principal is None for one in roles),
    )


def approval_problem(voice: Voice, earlier: Iterable[Voice], rules: Rules) -> SqkitError | None:
    """Why an approval does not count, whoever else approves; None where it does.

    Parameters
    ----------
    earlier
        Approvals in force that were given before this one.
    """
    if voice.problem is not None:
        return voice.problem
    fact, who = voice.fact, who_said(voice.fact)
    if is_author(voice, rules.author) and not rules.policy.allow_self_approval:
        return SelfApproval(
            f"{who} is by {rules.author}, who made the model; somebody else must approve as {fact['role']}",
            role=fact["role"],
            author=rules.author,
        )
    for other in earlier:
        role = other.fact["role"]
        if role == fact["role"] or role not in rules.policy.required_approvals or other.problem is not None:
            continue
        if same_person(other, voice) and _ill_timed(other.fact, "", rules) is None:
            return SelfApproval(
                f"{who}: the same person approved as {role} (fact {other.fact['id']}), and one person fills one role; "
                f"have somebody else approve as {fact['role']}, or revoke that one first",
                role=fact["role"],
                other=role,
            )
    return _ill_timed(fact, who, rules)


def _ill_timed(fact: Fact, who: str, rules: Rules) -> SqkitError | None:
    decided = dt.datetime.fromisoformat(rules.decided_at)
    if made_at(fact) < decided - CLOCK_TOLERANCE:
        return ApprovalVoid(
            f"{who}, of {fact['at']}, was given before the decision it is about ({instant(decided)}); correct the "
            "clock and approve again",
            role=fact["role"],
            at=fact["at"],
            decided=instant(decided),
        )
    days = rules.policy.approval_max_age_days
    if rules.now - made_at(fact) > dt.timedelta(days=days):
        return ApprovalExpired(
            f"{who} is of {date_in(fact['at'], rules.zone)}, more than {days} days ago "
            "(SENSEQUANT_PROMOTION_APPROVAL_MAX_AGE_DAYS); approve again",
            role=fact["role"],
            at=fact["at"],
        )
    if fact["expires"] is not None and rules.today > fact["expires"]:
        return ApprovalExpired(
            f"{who} counted up to {fact['expires']} and today is {rules.today} ({rules.zone}); approve again",
            role=fact["role"],
            expires=fact["expires"],
        )
    return None


def _role(
    role: str, approvals: Sequence[Voice], book: Book, statement: Statement, rules: Rules
) -> RoleStanding:
    """The newest approval of a role that counts, else the newest with what is wrong with it."""
    judged = [
        (voice, approval_problem(voice, approvals[:place], rules))
        for place, voice in enumerate(approvals)
        if voice.fact["role"] == role
    ]
    counting = [voice for voice, problem in judged if problem is None]
    if counting:
        return _said(role, counting[-1], None)
    if judged:
        return _said(role, *judged[-1])
    void = _newest_void(role, book, statement)
    if void is not None:
        return _said(role, Voice(void), _void(void, book, statement))
    return RoleStanding(role, None, "", None, "", _nobody([role]))


def _said(role: str, voice: Voice, problem: SqkitError | None) -> RoleStanding:
    return RoleStanding(role, voice.fact, voice.fact["name"], voice.principal, voice.fact["at"], problem)


def _newest_void(role: str, book: Book, statement: Statement) -> Fact | None:
    current = sha256_json(statement)
    found = [
        fact
        for fact in book.facts
        if fact["kind"] == APPROVE and fact["role"] == role and fact["statement"] != current
    ]
    return found[-1] if found and found[-1]["id"] not in book.revoked else None


def _void(fact: Fact, book: Book, statement: Statement) -> SqkitError:
    parts = changed_parts(book.statement_named(fact["statement"]), statement)
    return ApprovalVoid(
        f"{who_said(fact)} was given before something changed ({', '.join(parts)}) and is void; review the candidate "
        "as it is now and approve again",
        role=fact["role"],
        changed=parts,
    )


def _role_problems(roles: Sequence[RoleStanding], rejected: set[str]) -> list[SqkitError]:
    """One line for each approval that does not count, and one for all roles in which nobody said anything."""
    found = [one.problem for one in roles if one.fact is not None and one.problem is not None]
    missing = [one.role for one in roles if one.fact is None and one.role not in rejected]
    return [*found, _nobody(missing)] if missing else found


def _nobody(roles: Sequence[str]) -> SqkitError:
    more = ", and so on for each role" if len(roles) > 1 else ""
    return ApprovalsMissing(
        f"nobody has approved as {', '.join(roles)}; run sqkit approve --model MODEL --role {roles[0]}{more}",
        roles=list(roles),
    )


def _rejected(fact: Fact, zone: str) -> SqkitError:
    return ApprovalsMissing(
        f"rejected by {fact['name']} as {fact['role']} on {date_in(fact['at'], zone)}: {fact['comment']}; settle it, "
        f"then they approve after all, or run sqkit approve --model MODEL --revoke {fact['id']} --reason TEXT",
        rejection=fact["id"],
        role=fact["role"],
    )


def _common_scope(roles: Sequence[RoleStanding], statement: Statement) -> tuple[str, ...]:
    allowed = list(statement["predicate"]["symbols"])
    for one in roles:
        if one.fact is not None and one.problem is None and one.fact["symbols"] is not None:
            allowed = [symbol for symbol in allowed if symbol in one.fact["symbols"]]
    return tuple(allowed)


def _nothing_in_common(roles: Sequence[RoleStanding]) -> SqkitError:
    scopes = {one.role: one.fact["symbols"] for one in roles if one.fact is not None}
    return ApprovalsMissing(
        "no symbol is allowed by every approval; agree on --symbols and approve again", scopes=scopes
    )


def _clock_problems(book: Book, now: dt.datetime) -> list[SqkitError]:
    try:
        require_clock(book, now)
    except ClockBackwards as problem:
        return [problem]
    return []
