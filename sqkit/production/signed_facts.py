"""What an audit line keeps of a signature: the text, the signature and who was allowed to sign.

Accepting a policy, ratifying a rollback, releasing a quarantine and ticking a box of the live release are signed
where a signers file is set, and only there.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqkit.audit_log import ATTEST, QUARANTINE_RELEASE, RATIFY
from sqkit.chain import Entry
from sqkit.errors import SignatureRefused, UsageError
from sqkit.files import canonical_json
from sqkit.people import Actor
from sqkit.policy_in_force import DEFAULT_SLOT, accepted_line
from sqkit.production import signing
from sqkit.production.signing import principal_of, read_signers, sign
from sqkit.settings import PREFIX, Settings

if TYPE_CHECKING:
    from sqkit.production.changes import Production
    from sqkit.production.slots import Slot

_STATED: Final = {
    ATTEST: ("box", "kind", "note", "release", "slot"),
    QUARANTINE_RELEASE: ("kind", "model", "reason", "rollback", "slot"),
    RATIFY: ("comment", "kind", "rollback", "slot"),
}
"""What of a line is signed; it names the release or rollback it is about, so that it fits no other."""

NAMESPACES: Final = {
    ATTEST: signing.ATTEST,
    QUARANTINE_RELEASE: signing.QUARANTINE,
    RATIFY: signing.RATIFY,
}


def stated(said: Mapping[str, Any]) -> str:
    """The text that whoever signs such a line signs.

    Parameters
    ----------
    said
        Its ``kind``, ``slot`` and content, or the line itself.
    """
    return canonical_json({name: said[name] for name in _STATED[said["kind"]]}, indent=None).strip()


def signed_line(
    production: Production,
    slot: Slot,
    kind: str,
    content: Mapping[str, Any],
    *,
    key: Path | None,
    what: str,
    terminal: bool = False,
) -> tuple[dict[str, Any], Actor]:
    """The content of a line with its signature, and who acts: both as without one where no signers are set.

    Parameters
    ----------
    what
        Such as ``ratifying a rollback``, for the message.

    Raises
    ------
    SignatureRefused, SigningFailed, UsageError
        See `signature_of`.
    """
    signed, principal = signature_of(
        stated({**content, "kind": kind, "slot": slot.name}),
        settings=production.settings,
        root=production.root,
        namespace=NAMESPACES[kind],
        key=key,
        now=production.now(),
        what=f"slot {slot.name}: {what}",
        terminal=terminal,
        entries=production.log.entries(),
        slot=slot.name,
    )
    return {**content, **signed}, replace(production.actor, principal=principal)


def signers_in_force(settings: Settings, root: Path, entries: Iterable[Entry], slot: str) -> str | None:
    """Who may sign in a slot: the text of the signers file; None where none is asked for.

    Once a policy was accepted with a signature, its signers file is part of what was accepted: a setting
    that names no file, or another one, changes nothing before that is accepted too.

    Raises
    ------
    SignatureRefused
        The signers file that is set, or that none is, differs from what was accepted with the policy.
    SigningFailed
        The file that is set cannot be used.
    AuditBroken
        The accepted policy does not hold.
    """
    signers = read_signers(settings.promotion_allowed_signers, root)
    line = accepted_line(entries, slot)
    if line is None or line["signers"] is None or line["signers"] == signers:
        return signers
    name = f"{PREFIX}PROMOTION_ALLOWED_SIGNERS"
    since = f"policy {line['policy_digest'][:12]} of slot {line['slot']}, accepted on {line['date']}"
    if signers is None:
        wrong = f"{name} is not set, but {since}, was signed"
    else:
        wrong = f"{name}={settings.promotion_allowed_signers} is not the signers file of {since}"
    raise SignatureRefused(
        f"{wrong}; put that signers file back, or accept the new one with sqkit policy accept FILE --key KEY, "
        "signed by somebody of the old one",
        slot=slot,
        line=line["digest"],
    )


def signature_of(
    statement: str,
    *,
    settings: Settings,
    root: Path,
    namespace: str,
    key: Path | None,
    now: dt.datetime,
    what: str,
    terminal: bool = False,
    entries: Iterable[Entry] = (),
    slot: str = DEFAULT_SLOT,
    replaces: Entry | None = None,
) -> tuple[dict[str, Any], str | None]:
    """The fields ``statement``, ``signature`` and ``signers`` of a line, and who signed.

    Parameters
    ----------
    statement
        Exactly what is signed.
    what
        Such as ``slot default: a policy``, for the message.
    terminal
        Whether a person sits at a terminal and may be asked for the key's passphrase.
    entries, slot
        The verified log, where who may sign is what was accepted in this slot.
    replaces
        A signed line that this one takes the place of: somebody whom that one let sign must have signed.

    Returns
    -------
    tuple
        All None where no signers file is set.

    Raises
    ------
    SignatureRefused, SigningFailed
        A signers file is set, and nobody of it signed.
    UsageError
        A key where no signers file is set.
    """
    signers = signers_in_force(settings, root, entries, slot)
    before = replaces["signers"] if replaces else None
    if signers is None:
        if before is not None:
            raise SignatureRefused(
                f"{what} takes the place of one that was signed, and {PREFIX}PROMOTION_ALLOWED_SIGNERS is not set; "
                "set it and sign with --key FILE",
            )
        if key is not None:
            raise UsageError(
                f"--key {key}: no signers file is set, so nobody could verify the signature; set "
                f"{PREFIX}PROMOTION_ALLOWED_SIGNERS, or leave --key out"
            )
        return dict.fromkeys(("statement", "signature", "signers")), None
    if key is None:
        raise SignatureRefused(
            f"{what} has to be signed here ({PREFIX}PROMOTION_ALLOWED_SIGNERS="
            f"{settings.promotion_allowed_signers}); give --key FILE"
        )
    signature = sign(statement, key, namespace, terminal=terminal)
    principal = principal_of(statement, signature, signers, namespace, now)
    if before is not None and before != signers:
        try:
            principal_of(statement, signature, before, namespace, now)
        except SignatureRefused as refusal:
            raise SignatureRefused(
                f"{what} changes the signers file, and by the one in force until now: {refusal.message}; somebody "
                "whom that one names has to sign",
                **refusal.values,
            ) from None
    return {"statement": statement, "signature": signature, "signers": signers}, principal
