"""Does a ``release.json`` prove itself? Every part of it against the audit lines that it embeds.

A host without ``audit.jsonl`` has nothing else to go by. In: the parsed record. Out: one problem, or none.
"""

from __future__ import annotations

from typing import Any, Final

from sqkit.artifacts import APPROVALS_FILE, CHECKLIST_FILE, SIGNERS_FILE
from sqkit.audit_log import PROMOTE, ROLLBACK, UNMANAGED, require_content
from sqkit.chain import Entry
from sqkit.errors import UsageError
from sqkit.files import canonical_json, sha256_bytes
from sqkit.production.audit import has_own_digest

LIVE: Final = "live"
NO_STUDENT: Final = "none"

_FIELDS: Final = {
    *(
        "approvals",
        "checklist",
        "log_lines",
        "model",
        "model_version",
        "placed_by",
        "promotion",
        "release",
        "replaces",
    ),
    *("schema_version", "signers", "slot", "state"),
}


def contradiction(record: Any) -> str:
    """What in a record does not follow from its audit lines; empty where it proves itself."""
    if not isinstance(record, dict) or set(record) != _FIELDS:
        return "is not the record of a release as sqkit writes it"
    placed_by, promotion = record["placed_by"], record["promotion"]
    if not _sound(placed_by, PROMOTE, ROLLBACK, UNMANAGED):
        return "placed_by is no audit line, or was edited"
    if promotion is not None and not _sound(promotion, PROMOTE, UNMANAGED):
        return "promotion is no audit line, or was edited"
    if not _belongs(placed_by, promotion):
        return "placed_by and promotion are lines of two different releases"
    said = {
        "approvals": _file_digest(promotion, APPROVALS_FILE),
        "checklist": _file_digest(promotion, CHECKLIST_FILE),
        "log_lines": True,
        "model": _model_of(promotion),
        "model_version": promotion.get("model_version", "") if promotion else None,
        "release": placed_by["release"],
        "replaces": placed_by.get("replaces"),
        "schema_version": 1,
        "signers": _file_digest(promotion, SIGNERS_FILE),
        "slot": placed_by["slot"],
        "state": LIVE if promotion else NO_STUDENT,
    }
    found = {
        **{name: record[name] for name in said},
        "approvals": _json_digest(record["approvals"]),
        "checklist": _json_digest(record["checklist"]),
        "log_lines": _in_order(record["log_lines"], placed_by == promotion, promotion is not None),
        "signers": _text_digest(record["signers"]),
    }
    wrong = [
        name
        for name, one in said.items()
        if type(found[name]) is not type(one) or found[name] != one  # 1 is not true
    ]
    return f"{wrong[0]} is not what its audit lines say" if wrong else ""


def _sound(line: Any, *kinds: str) -> bool:
    """Whether an embedded audit line is one of these kinds, well formed, and has its own digest."""
    if not isinstance(line, dict) or line.get("kind") not in kinds or not has_own_digest(line):
        return False
    try:
        require_content(
            line["kind"], {name: line[name] for name in line if name not in ("kind", "previous", "digest")}
        )
    except UsageError:
        return False
    return isinstance(line.get("previous"), str)


def _belongs(placed_by: Entry, promotion: Entry | None) -> bool:
    """Whether one line put into production what the other made."""
    if promotion is None:
        return placed_by["kind"] == ROLLBACK and placed_by["release"] is None
    if placed_by["kind"] != ROLLBACK:
        return placed_by == promotion
    return (placed_by["slot"], placed_by["release"], placed_by["model"]) == (
        promotion["slot"],
        promotion["release"],
        _model_of(promotion),
    )


def _model_of(promotion: Entry | None) -> str | None:
    if promotion is None:
        return None
    return str(promotion["digests"]["model"] if promotion["kind"] == PROMOTE else promotion["model"])


def _file_digest(promotion: Entry | None, name: str) -> str | None:
    """The digest that a line has for a file of the release; None where it names none."""
    return promotion["files"].get(name) if promotion else None


def _json_digest(embedded: Any) -> str | None:
    """The digest of a file of which the value is embedded: sqkit writes it in one way only."""
    try:
        return None if embedded is None else sha256_bytes(canonical_json(embedded).encode())
    except ValueError:  # a number that is not finite, text that is no Unicode
        return ""


def _text_digest(embedded: Any) -> str | None:
    """The digest of a file of which the text is embedded."""
    if not isinstance(embedded, str):
        return None if embedded is None else ""
    return sha256_bytes(embedded.encode("utf-8", "replace"))


def _in_order(lines: Any, same: bool, promoted: bool) -> bool:
    """Whether the numbers of the two lines can be theirs."""
    if not isinstance(lines, dict) or set(lines) != {"placed_by", *(["promotion"] if promoted else [])}:
        return False
    if not all(type(number) is int and number > 0 for number in lines.values()):
        return False
    if not promoted:
        return True
    return bool(lines["promotion"] == lines["placed_by"] if same else lines["promotion"] < lines["placed_by"])
