"""A policy put in force: an audited fact of a slot, signed where signers are set.

``sqkit policy accept`` calls `parse_policy` and `accept_policy`, ``sqkit policy show`` calls
`policy_about`. Accepting is the only way to a looser policy (`sqkit.policy_in_force`), so whoever
accepts is told each field that becomes looser.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from sqkit.audit_log import POLICY
from sqkit.chain import Entry
from sqkit.checklist_inputs import Policy
from sqkit.errors import ChecklistInputError, ConflictError, UsageError
from sqkit.files import refuse_constant, refuse_twins
from sqkit.policy_in_force import (
    accepted_line,
    accepted_policy,
    looser,
    own_line,
    policy_digest,
    policy_in_force,
    policy_of_run,
    policy_statement,
    tighter,
)
from sqkit.production.audit import instant
from sqkit.production.changes import Production
from sqkit.production.signed_facts import signature_of
from sqkit.production.signing import POLICY as NAMESPACE

_AGES: Final = ("approval_max_age_days", "checklist_max_age_days")


@dataclass(frozen=True)
class Accepted:
    """What accepting a policy did.

    Attributes
    ----------
    entry
        The audit line in force now.
    new
        False where this very policy was in force already and nothing was written.
    looser, tighter
        Fields that ask for less, and for more, than what was in force until now; one line each.
    """

    slot: str
    entry: Entry
    new: bool
    looser: tuple[str, ...] = ()
    tighter: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """For a person: what changed, who stands for it, the digest."""
        digest, principal = self.entry["policy_digest"][:12], self.entry["actor"]["principal"]
        if not self.new:
            return [
                f"slot {self.slot}: policy {digest} is in force since {self.entry['at']}; nothing to accept"
            ]
        by = f"signed by {principal}" if principal else "unsigned: a typed name is not authentication"
        return [
            *self.looser,
            *self.tighter,
            f"slot {self.slot}: policy {digest} is in force, accepted by {self.entry['actor']['name']} ({by})",
        ]


def parse_policy(text: str, source: str) -> Policy:
    """A policy from JSON text with exactly the fields of `Policy`, read strictly.

    Parameters
    ----------
    source
        Where the text came from, for the message.

    Raises
    ------
    ChecklistInputError
        Not strict JSON, a field is missing, unknown or cannot be used, a role is given twice or
        cannot be named in a setting, or an age is under a day.
    """
    try:
        stored = json.loads(text, parse_constant=refuse_constant, object_pairs_hook=refuse_twins)
    except (ValueError, RecursionError) as problem:
        raise ChecklistInputError(
            f"{source}: not strict JSON ({problem}); start from what sqkit policy show prints", source=source
        ) from None
    try:
        policy = Policy.from_dict(stored)
    except ChecklistInputError as problem:
        raise ChecklistInputError(f"{source}: {problem.message}", **problem.values) from None
    for name in _AGES:
        if getattr(policy, name) < 1:
            raise ChecklistInputError(
                f"{source}: {name}={getattr(policy, name)}: give at least 1 day", name=name
            )
    roles = policy.required_approvals
    unfit = [
        role for role in roles if not role.isprintable() or role != role.strip() or not role or "," in role
    ]
    if unfit or len(set(roles)) < len(roles):
        raise ChecklistInputError(
            f"{source}: required_approvals={list(roles)!r}: give each role once, a word without a comma",
            name="required_approvals",
        )
    numbers: dict[str, Any] = {
        field.name: float(getattr(policy, field.name))
        for field in fields(Policy)
        if str(field.type) == "float"
    }
    return replace(policy, **numbers)  # 1 and 1.0 are one policy with one digest


def accept_policy(
    production: Production,
    slot: str,
    policy: Policy,
    *,
    key: Path | None = None,
    reason: str = "",
    terminal: bool = False,
) -> Accepted:
    """Put a slot's policy in force.

    Parameters
    ----------
    slot
        Its name, or a strategy's.
    key
        SSH key to sign with; needed where ``promotion_allowed_signers`` is set.
    terminal
        Whether a person sits at a terminal and may be asked for the key's passphrase.

    Raises
    ------
    SignatureRefused, SigningFailed
        Signers are set, and nobody of them signed; or what this takes the place of was signed, and
        nobody of its own signers file signed.
    UsageError
        A key where no signers are set, or a reason of more than one line.
    ConflictError
        Another policy was accepted meanwhile.
    """
    if not reason.isprintable():
        raise UsageError("sqkit policy accept: give the reason in one line", reason=reason)
    entries, place = production.log.entries(), production.place(production.slot(slot))
    name = place.slot.name
    line, present = own_line(entries, name), policy_in_force(production.settings, entries, name)
    statement = policy_statement(
        policy,
        slot=name,
        name=production.actor.name,
        reason=reason,
        at=instant(place.now),
        replaces=line["digest"] if line else None,
    )
    signed, principal = signature_of(
        statement,
        settings=production.settings,
        root=production.root,
        namespace=NAMESPACE,
        key=key,
        now=place.now,
        what=f"slot {name}: a policy",
        terminal=terminal,
        replaces=accepted_line(entries, name),
    )
    same = line is not None and line["policy_digest"] == policy_digest(policy)
    if line is not None and same and line["signers"] == signed["signers"]:
        return Accepted(name, line, new=False)
    content = {"policy": policy.to_dict(), "policy_digest": policy_digest(policy), "reason": reason, **signed}
    with production.log.writing() as write:
        if own_line(production.log.entries(), name) != line:
            raise ConflictError(
                f"slot {name}: another policy was accepted meanwhile; look at it with sqkit policy show",
                slot=name,
            )
        signing = replace(place, actor=replace(place.actor, principal=principal))
        entry = signing.write(write, POLICY, content)
    production.announce(entry)
    return Accepted(name, entry, True, tuple(looser(policy, present)), tuple(tighter(policy, present)))


def policy_about(production: Production, slot: str) -> dict[str, Any]:
    """The policy in force in a slot, and where it comes from; plain JSON values.

    Returns
    -------
    dict
        ``slot``; ``policy`` and its ``digest``; ``accepted`` (``at``, ``actor``, ``reason`` and
        ``policy_digest`` of the line; null where none was ever accepted and the settings are the
        policy); ``tightened`` (settings that tighten the accepted policy) and ``without_effect``
        (settings that are looser than it).
    """
    name, entries = production.slot(slot).name, production.log.entries()
    line, accepted = accepted_line(entries, name), accepted_policy(entries, name)
    present = policy_in_force(production.settings, entries, name)
    asked = policy_of_run(production.settings, entries, name)
    if accepted and present.required_approvals != accepted.required_approvals:
        asked = replace(
            asked, required_approvals=present.required_approvals
        )  # roles that were set were added
    return {
        "accepted": {part: line[part] for part in ("actor", "at", "policy_digest", "reason")}
        if line
        else None,
        "digest": policy_digest(present),
        "policy": present.to_dict(),
        "slot": name,
        "tightened": tighter(present, accepted) if accepted else [],
        "without_effect": looser(asked, accepted) if accepted else [],
    }


def source_lines(about: dict[str, Any]) -> list[str]:
    """Where the policy of `policy_about` comes from, for a person."""
    line = about["accepted"]
    if line is None:
        return [f"slot {about['slot']}: no policy was accepted yet, the settings are the policy"]
    principal = line["actor"]["principal"]
    by = f"signed by {principal}" if principal else "unsigned"
    why = f": {line['reason']}" if line["reason"] else ""
    return [
        f"slot {about['slot']}: policy {line['policy_digest'][:12]} accepted at {line['at']} by "
        f"{line['actor']['name']} ({by}){why}",
        *(f"set beside it: {said}" for said in about["tightened"]),
        *(f"without effect on a promotion: {said}" for said in about["without_effect"]),
    ]
