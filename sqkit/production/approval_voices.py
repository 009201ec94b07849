"""Who is behind a fact, as far as that is proved, and which facts are in force.

Of one person in one role the newest word counts. A rejection by anybody stands in the way until it is
taken back or the same person approves after all. Where signatures are asked for, what brings a candidate
closer to production needs one; what stops it does not.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqkit.errors import ApprovalVoid, SignatureRefused, SigningFailed, SqkitError
from sqkit.files import sha256_json
from sqkit.production.approval_book import Book
from sqkit.production.approval_facts import (
    APPROVE,
    REJECT,
    Fact,
    Statement,
    made_at,
    namespace_of,
    signed_text,
    who_said,
)
from sqkit.production.signing import has_ssh_keygen, key_of, principal_of


@dataclass(frozen=True)
class Voice:
    """A fact and who is behind it.

    Attributes
    ----------
    principal
        Who signed; None where nobody did, or no signers file says who may.
    key
        Fingerprint of the key; empty without a verified signature.
    problem
        Why a signature that was asked for does not hold.
    """

    fact: Fact
    principal: str | None = None
    key: str = ""
    problem: SqkitError | None = None

    @property
    def names(self) -> set[str]:
        """Every name this person goes by here, as they are compared."""
        found = {_plain(self.fact["name"])}
        if self.principal is not None:
            whole = _plain(self.principal)
            found |= {whole, whole.partition("@")[0]}
        return found


def hear(fact: Fact, signers: str | None) -> Voice:
    """Who is behind a fact; with a signers file its signature is verified at the time it was made."""
    if signers is None:
        return Voice(fact)
    if fact["signature"] is None:
        line = (
            f"{who_said(fact)} is a typed name without a signature, and SENSEQUANT_PROMOTION_ALLOWED_SIGNERS asks "
            "for one; say it again with --key"
        )
        return Voice(fact, problem=SignatureRefused(line, fact=fact["id"]))
    namespace = namespace_of(fact)
    try:
        principal = principal_of(signed_text(fact), fact["signature"], signers, namespace, made_at(fact))
    except (SignatureRefused, SigningFailed) as refusal:
        return Voice(fact, problem=type(refusal)(f"{who_said(fact)}: {refusal.message}", fact=fact["id"]))
    if principal != fact["principal"] or not agrees(fact["name"], principal):
        line = (
            f"{who_said(fact)} names {fact['principal']} as its signer, but the key is that of {principal}; have it "
            "said again"
        )
        return Voice(fact, problem=SignatureRefused(line, fact=fact["id"]))
    return Voice(fact, principal, key_of(fact["signature"]))


def voices_about(book: Book, statement: Statement, signers: str | None) -> list[Voice]:
    """Approvals and rejections of exactly this statement, oldest first; what is about other bytes is void."""
    current = sha256_json(statement)
    return [
        hear(fact, signers)
        for fact in book.facts
        if fact["kind"] in (APPROVE, REJECT) and fact["statement"] == current
    ]


def same_person(one: Voice, other: Voice) -> bool:
    """Whether two facts come from one person: the same signer or key, else the same name."""
    if one.principal is not None and other.principal is not None:
        return _plain(one.principal) == _plain(other.principal) or one.key == other.key
    return bool(one.names & other.names)


def agrees(name: str, principal: str) -> bool:
    """Whether a typed name is that of a principal: all of it, or what stands before the ``@``."""
    whole = _plain(principal)
    return _plain(name) in (whole, whole.partition("@")[0])


def is_author(voice: Voice, author: str) -> bool:
    """Whether a fact comes from who made the model."""
    return bool(author.strip()) and _plain(author) in voice.names


def approvals_in_force(book: Book, voices: Sequence[Voice]) -> list[Voice]:
    """The newest approval of each person in each role, unless taken back or followed by a rejection."""
    return [
        voice
        for place, voice in enumerate(voices, 1)
        if voice.fact["kind"] == APPROVE
        and voice.fact["id"] not in book.revoked
        and not any(_supersedes(later, voice) for later in voices[place:])
    ]


def rejections_in_force(book: Book, voices: Sequence[Voice], signers: str | None) -> list[Voice]:
    """Rejections that nobody took back and that no later approval of the same person in the role lifts."""
    return [
        voice
        for place, voice in enumerate(voices, 1)
        if voice.fact["kind"] == REJECT
        and revocation_of(book, voice.fact, signers) is None
        and not any(
            _supersedes(later, voice) and later.fact["kind"] == APPROVE
            for later in voices[place:]
            if later.problem is None and later.fact["id"] not in book.revoked
        )
    ]


def revocation_of(book: Book, fact: Fact, signers: str | None) -> Fact | None:
    """The fact that took this one back; a rejection is taken back by a good signature only."""
    found = [one for one in book.facts if one.get("revokes") == fact["id"]]
    if fact["kind"] == REJECT:
        found = [one for one in found if hear(one, signers).problem is None]
    return found[0] if found else None


def _supersedes(later: Voice, voice: Voice) -> bool:
    """A later word of the same person in the same role; one without its signature takes no good one back."""
    counts = later.problem is None or later.fact["kind"] == REJECT or voice.problem is not None
    return counts and later.fact["role"] == voice.fact["role"] and same_person(later, voice)


def verified_later(
    book: Book,
    signers: str | None,
    *,
    model: str | None = None,
    roles: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[str]:
    """Verify a running release's approvals again, at the time they were given, against the stored signers.

    A key that expired since takes nothing back, and a missing ssh-keygen never unloads a release.

    Parameters
    ----------
    book, signers
        As the release holds them.
    model
        SHA-256 of the model that is served.
    roles
        ``approvals`` of the promotion's line; who it says signed must have.

    Returns
    -------
    list
        What could not be verified, one line each; empty when everything holds.

    Raises
    ------
    ApprovalVoid
        The approvals are about another model.
    SignatureRefused
        A role rests on no good signature, though the promotion's line calls it signed.
    """
    named = book.statement["subject"][0]["digest"]["sha256"]
    if model is not None and named != model:
        raise ApprovalVoid(
            f"the release's approvals are about the model {named[:12]}, not about {model[:12]}; restore the release "
            "from the archive",
            approved=named,
            model=model,
        )
    signed = [role for role, said in (roles or {}).items() if said["signed"]]
    if signers is None:
        if signed:
            raise SignatureRefused(
                f"the approval as {signed[0]} was signed, but the signers file is not stored with it; restore the "
                "release from the archive",
                role=signed[0],
            )
        return []
    if not has_ssh_keygen():
        return ["the signatures of the approvals were not verified: ssh-keygen is not installed"]
    heard = approvals_in_force(book, voices_about(book, book.statement, signers))
    open_roles = {voice.fact["role"] for voice in heard} - {
        voice.fact["role"] for voice in heard if voice.problem is None
    }
    unverified = [voice.problem for voice in heard if voice.fact["role"] in open_roles and voice.problem]
    refused = [problem for problem in unverified if not isinstance(problem, SigningFailed)]
    if refused:
        raise refused[0]
    heard_roles = {voice.fact["role"] for voice in heard if voice.principal is not None}
    silent = [role for role in signed if role not in heard_roles | open_roles]
    if silent:
        raise SignatureRefused(
            f"the promotion's line says that {', '.join(silent)} signed, but no such approval is kept with the "
            "release; restore the release from the archive",
            roles=silent,
        )
    return [f"a signature was not verified: {problem.message}" for problem in unverified]


def _plain(name: str) -> str:
    """A name as it is compared: case, spacing and ways to write the same letter do not count."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())
