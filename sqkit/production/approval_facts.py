"""What people sign off, and what a fact in the book of approvals may say.

A statement freezes what is approved: model, checklist, report, policy and scope, by digest. A fact is what
one person said about a statement: approved, rejected, took back, or ticked a box. Its id is taken from
exactly the text that was, or would be, signed. `sqkit.production.approval_book` keeps the facts.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from sqkit.artifacts import CHECKLIST_FILE, STUDENT_FILE
from sqkit.checklist import rederive
from sqkit.errors import ArtifactChanged, ModelMetadataInvalid
from sqkit.files import canonical_json, sha256_bytes, sha256_json
from sqkit.production.candidate import Candidate
from sqkit.production.signing import ATTEST as ATTEST_NAMESPACE
from sqkit.production.signing import REVOKE as REVOKE_NAMESPACE
from sqkit.production.signing import role_namespace
from sqkit.report_manifest import MANIFEST
from sqkit.sessions import MARKETS

APPROVE: Final = "approve"
REJECT: Final = "reject"
REVOKE: Final = "revoke"
ATTEST: Final = "attest"

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "https://sqkit.invalid/promotion-approval/v1"
_ID_DIGITS: Final = 12
_UNSIGNED: Final = ("id", "principal", "signature")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}\Z")
_INSTANT: Final = "%Y-%m-%dT%H:%M:%SZ"

Fact = dict[str, Any]
Statement = dict[str, Any]


def statement_of(candidate: Candidate, slot: str) -> Statement:
    """What people sign off: an in-toto statement about exactly these bytes and this scope.

    Parameters
    ----------
    slot
        Name of the production slot the candidate is for.

    Raises
    ------
    ArtifactChanged, ModelFileError, ChecklistInputError
        The model, its checklist or its report cannot be read.
    """
    checklist, about = candidate.json(CHECKLIST_FILE), candidate.about
    recommendation, _, _ = rederive(checklist)
    window = about["training_window"]
    if about["market"] not in MARKETS:
        raise ModelMetadataInvalid(
            f"{candidate.typed}: made for the market {about['market']}, which this version of sqkit does not know; "
            "train it with this version",
            market=about["market"],
        )
    try:
        symbols = [str(symbol) for symbol in checklist["validation_period"]["symbols"]]
    except (KeyError, TypeError):
        raise ArtifactChanged(
            f"{Path(candidate.typed).parent / CHECKLIST_FILE}: names no validated symbols; validate the model again "
            "with sqkit validate"
        ) from None
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": STUDENT_FILE, "digest": {"sha256": candidate.digest(STUDENT_FILE)}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "checklist": candidate.digest(CHECKLIST_FILE),
            "created_by": about["created_by"],
            "manifest": candidate.digest(MANIFEST),
            "market": about["market"],
            "model_version": about["model_version"],
            "policy": sha256_json(checklist["policy"]),
            "recommendation": recommendation,
            "slot": slot,
            "strategy": about["strategy"],
            "symbols": symbols,
            "teacher": about["teacher_digest"],
            "training_window": f"{window['start']} to {window['end']}",
        },
    }


def decision_time(candidate: Candidate) -> str:
    """When the decision that people sign off was made, UTC.

    Raises
    ------
    ArtifactChanged
        The checklist does not say.
    """
    said = candidate.json(CHECKLIST_FILE).get("timestamp")
    if not _is_instant(said):
        raise ArtifactChanged(
            f"{Path(candidate.typed).parent / CHECKLIST_FILE}: does not say when it was decided; validate the model "
            "again with sqkit validate"
        )
    return str(said)


def changed_parts(before: Statement, now: Statement) -> list[str]:
    """What differs between two statements, in words."""
    found = ["model"] if before["subject"] != now["subject"] else []
    old, new = before["predicate"], now["predicate"]
    names = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    return found + [_PARTS.get(name, name.replace("_", " ")) for name in names]


_PARTS: Final = {"manifest": "report manifest", "symbols": "validated symbols", "teacher": "teacher digest"}


def signed_text(fact: Mapping[str, Any]) -> str:
    """Exactly what a person signs: the fact without id, signature and the name found for the key."""
    said = {name: value for name, value in fact.items() if name not in _UNSIGNED}
    return canonical_json(said, indent=None).rstrip("\n")


def namespace_of(fact: Mapping[str, Any]) -> str:
    """What the signature of a fact is made for."""
    if fact["kind"] in (APPROVE, REJECT):
        return role_namespace(fact["role"])
    return REVOKE_NAMESPACE if fact["kind"] == REVOKE else ATTEST_NAMESPACE


def id_of(fact: Mapping[str, Any]) -> str:
    """The id that follows from what a fact says."""
    return sha256_bytes(signed_text(fact).encode())[:_ID_DIGITS]


def made_at(fact: Mapping[str, Any]) -> dt.datetime:
    """When a fact was made."""
    return dt.datetime.fromisoformat(fact["at"])


def is_text(value: Any) -> bool:
    """One line of plain text that is not empty."""
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()


def is_note(value: Any) -> bool:
    """As `is_text`, or empty."""
    return value == "" or is_text(value)


def _optional(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or fits(value)


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and len(value) == _ID_DIGITS


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and bool(_DIGEST.match(value))


def _is_date(value: Any) -> bool:
    try:
        return isinstance(value, str) and dt.date.fromisoformat(value).isoformat() == value
    except ValueError:
        return False


def _is_instant(value: Any) -> bool:
    try:
        return isinstance(value, str) and dt.datetime.strptime(value, _INSTANT).strftime(_INSTANT) == value  # noqa: DTZ007 - only the form
    except ValueError:
        return False


def _is_scope(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(is_text(word) for word in value)


_COMMON: Final[dict[str, Callable[[Any], bool]]] = {
    "id": _is_id,
    "kind": is_text,
    "at": _is_instant,
    "name": is_text,
    "user": is_text,
    "host": is_text,
    "statement": _is_digest,
    "previous": _optional(_is_id),
    "principal": _optional(is_text),
    "signature": _optional(lambda value: isinstance(value, str)),
}
_DECISION: Final[dict[str, Callable[[Any], bool]]] = {
    "role": is_text,
    "symbols": _optional(_is_scope),  # None: every validated symbol
    "expires": _optional(_is_date),  # the last day it counts
    "comment": is_note,
}
_KINDS: Final[dict[str, dict[str, Callable[[Any], bool]]]] = {
    APPROVE: _DECISION,
    REJECT: _DECISION,
    REVOKE: {"revokes": _is_id, "reason": is_text},
    ATTEST: {"box": is_text, "note": is_text},
}


def who_said(fact: Mapping[str, Any]) -> str:
    """A fact as a message names it."""
    kind = {APPROVE: "approval", REJECT: "rejection", REVOKE: "revocation"}.get(fact["kind"], "attestation")
    what = f" as {fact['role']}" if "role" in fact else f" of {fact['box']}" if "box" in fact else ""
    return f"the {kind} by {fact['name']}{what} (fact {fact['id']})"


def fact_problem(fact: Any, previous: Fact | None, statements: set[str], seen: set[str]) -> str:
    """Why a stored fact cannot be one that sqkit wrote after `previous`; empty where it can."""
    if not isinstance(fact, dict) or not isinstance(fact.get("kind"), str) or fact["kind"] not in _KINDS:
        return "is of no known kind"
    fields = _COMMON | _KINDS[fact["kind"]]
    if set(fact) != set(fields):
        return f"does not say what a fact of kind {fact['kind']} says"
    unfit = [name for name, fits in fields.items() if not fits(fact[name])]
    if unfit:
        return f"cannot say {unfit[0]}={fact[unfit[0]]!r}"
    if fact["id"] in seen:
        return f"has the id {fact['id']} of an earlier one"
    if fact["id"] != id_of(fact):
        return "was edited: its id does not follow from what it says"
    if fact["previous"] != (previous["id"] if previous else None):
        return "does not follow the one before it: a fact was removed or moved"
    if previous and fact["at"] < previous["at"]:
        return "is dated before the one it follows"
    if fact["statement"] not in statements:
        return "is about a statement that is not in the file"
    if (fact["principal"] is None) != (fact["signature"] is None):
        return "names a signer without a signature, or the other way round"
    if fact["kind"] == REVOKE and fact["revokes"] not in seen:
        return "takes back a fact that is not there"
    return ""


def is_statement(value: Any) -> bool:
    """Whether a stored value has the form that `statement_of` gives."""
    keys = {"_type", "subject", "predicateType", "predicate"}
    if not isinstance(value, dict) or set(value) != keys or not isinstance(value["predicate"], dict):
        return False
    try:
        (subject,) = value["subject"]
        named = _is_digest(subject["digest"]["sha256"])
    except (KeyError, TypeError, ValueError):
        return False
    return named and (value["_type"], value["predicateType"]) == (STATEMENT_TYPE, PREDICATE_TYPE)
