"""The policy in force: what a slot's candidates must reach since somebody accepted it.

``sqkit policy accept`` writes a policy into the audit log; from then on the environment and flags may
tighten it and never loosen it. Until then the settings are the policy. In: settings and the lines of
the log (`sqkit.audit_log.read_audit`). Out: a `Policy`, or what is looser, one line for each field.
Both rooms ask here: validation judges by it, the promoter holds a decision against it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace
from operator import gt, lt, ne
from typing import Any, Final

from sqkit.audit_log import POLICY
from sqkit.chain import Entry
from sqkit.checklist_inputs import Policy
from sqkit.errors import AuditBroken, ChecklistInputError, SqkitError
from sqkit.files import canonical_json, sha256_json
from sqkit.settings import GRADES, PREFIX, Settings

DEFAULT_SLOT: Final = "default"

_SECTION: Final = "promotion_"


def _lower_grade(value: str, than: str) -> bool:
    return GRADES.index(value) < GRADES.index(than)


def _role_missing(value: Iterable[str], than: Iterable[str]) -> bool:
    return not set(than) <= set(value)


_LOOSER: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "min_precision_uplift": lt,
    "min_hit_ratio_uplift": lt,
    "min_sharpe_uplift": lt,
    "min_sharpe_uplift_absolute": lt,
    "min_sharpe": lt,
    "require_all_criteria": lt,
    "min_evidence": _lower_grade,
    "min_days": lt,
    "min_calls": lt,
    "required_approvals": _role_missing,
    "allow_self_approval": gt,
    "approval_max_age_days": gt,
    "checklist_max_age_days": gt,
    "min_day_clusters": lt,
    "relative_sharpe_floor": ne,  # it parts two rules: either side can be the looser one
}
"""For every field of a policy, when one value is looser than another."""


def slot_of(settings: Settings, strategy: str) -> str:
    """Name of the slot that a strategy's model goes to: its own where it has one, else the default slot."""
    return strategy if strategy in settings.slot_paths() else DEFAULT_SLOT


def policy_digest(policy: Policy) -> str:
    """SHA-256 of a policy, as checklists and audit lines name it."""
    return sha256_json(policy.to_dict())


def own_line(entries: Iterable[Entry], slot: str) -> Entry | None:
    """The line that put this very slot's policy in force; None where none was ever accepted for it.

    Raises
    ------
    AuditBroken
        The line does not hold what was accepted, or what was signed was something else.
    """
    found: Entry | None = None
    for entry in entries:
        if entry["kind"] == POLICY and entry["slot"] == slot:
            _require_accepted(entry, found)
            found = entry
    return found


def accepted_line(entries: Iterable[Entry], slot: str) -> Entry | None:
    """The line whose policy is in force in a slot: its own, else the default slot's; None without any.

    A strategy that is given a place of its own by a setting stays under what was accepted before.

    Raises
    ------
    AuditBroken
        As `own_line`.
    """
    lines = list(entries)
    return own_line(lines, slot) or own_line(lines, DEFAULT_SLOT)


def accepted_policy(entries: Iterable[Entry], slot: str) -> Policy | None:
    """The policy last accepted for a slot; None where none was ever accepted.

    Raises
    ------
    AuditBroken
        As `accepted_line`.
    """
    line = accepted_line(entries, slot)
    return None if line is None else Policy.from_dict(line["policy"])


def policy_in_force(settings: Settings, entries: Iterable[Entry], slot: str, **overrides: Any) -> Policy:
    """What a promotion into a slot demands: the accepted policy, tightened by whatever was set.

    A setting or flag that is looser than the accepted policy has no effect. Before the first accept
    the settings are the policy.

    Parameters
    ----------
    overrides
        Flags, by field of `Policy`; None leaves the setting.
    """
    accepted = accepted_policy(entries, slot)
    if accepted is None:
        return Policy.from_settings(settings, **overrides)
    return replace(
        accepted,
        **{
            name: value
            for name, value in _given(settings, overrides, accepted).items()
            if not _LOOSER[name](value, getattr(accepted, name))
        },
    )


def policy_of_run(settings: Settings, entries: Iterable[Entry], slot: str, **overrides: Any) -> Policy:
    """What one run judges by: the accepted policy, with whatever was set in place, tighter or looser.

    Nobody is kept from trying a looser policy; `held_against` says what then cannot be promoted.
    Before the first accept the settings are the policy.
    """
    accepted = accepted_policy(entries, slot)
    if accepted is None:
        return Policy.from_settings(settings, **overrides)
    return replace(accepted, **_given(settings, overrides, None))


def looser(policy: Policy, than: Policy) -> list[str]:
    """Every field in which a policy asks for less than another, one line each that names the setting."""
    return [_compared(policy, name, "looser", than) for name in _less_asked(policy, than)]


def tighter(policy: Policy, than: Policy) -> list[str]:
    """Every field in which a policy asks for more and not also for less, as `looser`."""
    names = [name for name in _less_asked(than, policy) if name not in _less_asked(policy, than)]
    return [_compared(policy, name, "tighter", than) for name in names]


def _less_asked(policy: Policy, than: Policy) -> list[str]:
    names = [field.name for field in fields(Policy)]
    return [name for name in names if _LOOSER[name](getattr(policy, name), getattr(than, name))]


def _compared(policy: Policy, name: str, word: str, than: Policy) -> str:
    value, asked = shown(getattr(policy, name)), shown(getattr(than, name))
    return f"{setting_name(name)}={value} is {word} than {asked}"


def held_against(policy: Policy, accepted: Policy | None) -> dict[str, Any] | None:
    """What a checklist keeps of the policy in force: its digest and what is looser; None without one."""
    if accepted is None:
        return None
    return {"digest": policy_digest(accepted), "looser": looser(policy, accepted)}


def not_promotable(kept: Any) -> list[str]:
    """The mark on a run whose policy is looser than the one in force, from what `held_against` gave.

    Raises
    ------
    ChecklistInputError
        It is not of that form.
    """
    if kept is None:
        return []
    fits = (
        isinstance(kept, Mapping)
        and set(kept) == {"digest", "looser"}
        and isinstance(kept["digest"], str)
        and isinstance(kept["looser"], list)
        and all(isinstance(line, str) for line in kept["looser"])
    )
    if not fits:
        raise ChecklistInputError("checklist evidence: policy_in_force must be null, or a digest and a list")
    return [f"not promotable under this policy: {line} in force" for line in kept["looser"]]


def setting_name(field: str) -> str:
    """The variable that sets a field of the policy; a field that none sets goes by its own name."""
    name = f"{_SECTION}{field}"
    return PREFIX + name.upper() if name in Settings.model_fields else field


def shown(value: Any) -> str:
    """A value as its variable would be written."""
    if isinstance(value, tuple):
        return ",".join(value) or "nobody"
    return str(value).lower() if isinstance(value, bool) else str(value)


def policy_statement(
    policy: Policy, *, slot: str, name: str, reason: str, at: str, replaces: str | None
) -> str:
    """What a person signs who accepts a policy.

    Parameters
    ----------
    replaces
        Digest of the line in force until now, so that an old signature fits no other place of the log.
    """
    return canonical_json(
        {
            "at": at,
            "kind": POLICY,
            "name": name,
            "policy": policy.to_dict(),
            "policy_digest": policy_digest(policy),
            "reason": reason,
            "replaces": replaces,
            "slot": slot,
        },
        indent=None,
    ).rstrip("\n")


def _given(settings: Settings, overrides: Mapping[str, Any], accepted: Policy | None) -> dict[str, Any]:
    """Fields somebody set: a flag that was given, else a setting that does not rest on its default.

    With an accepted policy, roles that were set are added to its own: asking one more person is tighter,
    whoever else was left out.
    """
    asked = Policy.from_settings(settings, **overrides)
    names = {name.removeprefix(_SECTION) for name in settings.model_fields_set}
    names |= {name for name, value in overrides.items() if value is not None}
    given = {field.name: getattr(asked, field.name) for field in fields(Policy) if field.name in names}
    if accepted is not None and "required_approvals" in given:
        roles = (*accepted.required_approvals, *given["required_approvals"])
        given["required_approvals"] = tuple(dict.fromkeys(roles))
    return given


def _require_accepted(entry: Entry, before: Entry | None) -> None:
    """The policy of a line has its own digest, can be used, and is the one that was signed."""
    place = f"audit log: the policy of slot {entry['slot']} accepted on {entry['date']}"
    advice = "restore the log from a backup"
    try:
        policy = Policy.from_dict(entry["policy"])
    except SqkitError as problem:
        raise AuditBroken(f"{place} cannot be used ({problem.message}); {advice}") from None
    if policy_digest(policy) != entry["policy_digest"]:
        raise AuditBroken(f"{place} differs from its digest; {advice}", digest=entry["policy_digest"])
    signed = entry["statement"], entry["signature"], entry["signers"]
    if any(part is None for part in signed) and signed != (None, None, None):
        raise AuditBroken(f"{place} is signed in part; {advice}", digest=entry["digest"])
    if before is not None and before["signers"] is not None and entry["signers"] is None:
        raise AuditBroken(
            f"{place} is unsigned and takes the place of a signed one; {advice}", digest=entry["digest"]
        )
    if entry["statement"] is not None:
        said = policy_statement(
            policy,
            slot=entry["slot"],
            name=entry["actor"]["name"],
            reason=entry["reason"],
            at=_said_at(entry["statement"]),
            replaces=before["digest"] if before else None,
        )
        if said != entry["statement"]:
            raise AuditBroken(f"{place} is not what was signed for it; {advice}", digest=entry["digest"])


def _said_at(statement: str) -> str:
    """When it was signed: the line itself may be dated later, never before the line it follows."""
    try:
        return str(json.loads(statement)["at"])
    except (KeyError, RecursionError, TypeError, ValueError):
        return ""
