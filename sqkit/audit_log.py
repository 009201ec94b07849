"""The audit log, read: what was done to production, by whom, when and why.

``data/models/audit.jsonl`` is a chain (`sqkit.chain`) of facts that are appended and never edited;
`sqkit.production.audit` writes them. Here stands what a line may say and how the log is read, which
both rooms need: validation asks which policy is in force.

Every line has ``kind``, ``at`` (UTC), ``date`` (calendar date in the market's zone), ``slot``,
``actor`` (`sqkit.people.Actor`) and ``sqkit_version``; what else it has follows from its kind.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from sqkit.artifacts import APPROVALS_FILE, CHECKLIST_FILE, STUDENT_FILE
from sqkit.chain import Chain, ChainForm, ChainWitness, Entry, read_chain
from sqkit.errors import AuditBroken, UsageError

AUDIT_FILE: Final = "audit.jsonl"

PROMOTE: Final = "promote"
ROLLBACK: Final = "rollback"
UNMANAGED: Final = "unmanaged"
HALT: Final = "halt"
RESUME: Final = "resume"
RATIFY: Final = "ratify"
QUARANTINE_RELEASE: Final = "quarantine_release"
POLICY: Final = "policy"
DRILL: Final = "drill"
ATTEST: Final = "attest"
OBJECTION: Final = "objection"
MONITOR: Final = "monitor"

STUDENT_OFF: Final = "student_off"
NO_NEW_ENTRIES: Final = "no_new_entries"
HALT_LEVELS: Final = (STUDENT_OFF, NO_NEW_ENTRIES)
"""How far a halt goes, the mildest first; exits and the square-off go on at every level."""

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_RELEASE: Final = re.compile(r"[0-9]{8}_[0-9]{6}_([0-9a-f]{8})")
_FACT: Final = re.compile(r"[0-9a-f]{12}")
_FILE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_INSTANT: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_VARIABLE: Final = re.compile(
    r"SENSEQUANT_STUDENT_MODEL_(ENABLED=true|(PATH|PATHS|VERSION)=([A-Za-z0-9_./:@%+,=-]*|'[^'\\]*'))"
)
_STORED: Final = {"model": STUDENT_FILE, "checklist": CHECKLIST_FILE, "approvals": APPROVALS_FILE}
_COMMON: Final = ("actor", "at", "date", "slot", "sqkit_version")


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()


def _note(value: Any) -> bool:
    return value == "" or _text(value)


def _digest(value: Any) -> bool:
    return isinstance(value, str) and bool(_DIGEST.fullmatch(value))


def is_release_name(value: Any) -> bool:
    """Whether a text is the name of an archived release, ``<YYYYMMDD_HHMMSS>_<digest8>``, and so no other path."""
    return isinstance(value, str) and bool(_RELEASE.fullmatch(value))


def _named_after(release: Any, model: Any) -> bool:
    return is_release_name(release) and _digest(model) and release.endswith(f"_{model[:8]}")


def _optional(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or fits(value)


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _words(value: Any) -> bool:
    return isinstance(value, list) and all(_text(word) for word in value)


def _digests(value: Any) -> bool:
    return isinstance(value, dict) and all(_text(name) and _digest(one) for name, one in value.items())


def _model_digests(value: Any) -> bool:
    return _digests(value) and "model" in value


def _files(value: Any) -> bool:
    """Plain names only: a line must not lead out of the archive."""
    return _digests(value) and STUDENT_FILE in value and all(_FILE.fullmatch(name) for name in value)


def _object(value: Any) -> bool:
    return isinstance(value, dict)


def _notes(value: Any) -> bool:
    return isinstance(value, dict) and all(_text(name) and _text(one) for name, one in value.items())


def _approvals(value: Any) -> bool:
    return isinstance(value, dict) and all(
        _text(role)
        and isinstance(one, dict)
        and set(one) == {"name", "signed"}
        and _text(one["name"])
        and _flag(one["signed"])
        for role, one in value.items()
    )


def _replaced(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == {"release", "model"}
        and _named_after(value["release"], value["model"])
    )


def _environment(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == {"file", "lines"}
        and _text(value["file"])
        and _words(value["lines"])
        and all(_VARIABLE.fullmatch(line) for line in value["lines"])
    )


def _fact_id(value: Any) -> bool:
    return isinstance(value, str) and bool(_FACT.fullmatch(value))


def _objection(value: Any) -> bool:
    return value in ("reject", "revoke")


def _level(value: Any) -> bool:
    return value in HALT_LEVELS


def _count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _actor(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == {"name", "user", "host", "principal"}
        and all(_text(value[name]) for name in ("name", "user", "host"))
        and _optional(_text)(value["principal"])
    )


_SIGNED: Final[dict[str, Callable[[Any], bool]]] = {
    "statement": _optional(_text),  # what was signed, exactly; null where no signers file was set
    "signature": _optional(lambda value: isinstance(value, str)),
    "signers": _optional(lambda value: isinstance(value, str)),
}

_KINDS: Final[dict[str, dict[str, Callable[[Any], bool]]]] = {
    PROMOTE: {
        "release": is_release_name,  # the archive folder
        "model_version": _text,
        "strategy": _text,
        "market": _text,
        "symbols": _words,  # what the approvals allow it to trade
        "digests": _model_digests,  # model, checklist, manifest, approvals, policy
        "files": _files,  # every file of the archived release but release.json
        "replaces": _optional(_replaced),
        "approvals": _approvals,  # role to {"name", "signed"}
        "boxes": _notes,  # box to what ticked it
        "environment": _optional(_environment),  # what was to be set in which env file
        "reduced_control": _flag,
    },
    ROLLBACK: {
        "release": _optional(is_release_name),  # None: no student, the engine runs its baseline
        "model_version": _optional(_text),
        "model": _optional(_digest),
        "replaces": _optional(_replaced),
        "quarantines": _optional(_digest),
        "automatic": _flag,
        "alert": _optional(_object),
        "reason": _text,
        "environment": _optional(_environment),
    },
    UNMANAGED: {"release": is_release_name, "model": _digest, "files": _files},
    HALT: {"level": _level, "reason": _text},
    RESUME: {"reason": _note},
    RATIFY: {"rollback": _digest, "comment": _note, **_SIGNED},  # the digest of the rollback's line
    QUARANTINE_RELEASE: {  # the digest of the line of the rollback that barred it
        "model": _digest,
        "reason": _text,
        "rollback": _digest,
        **_SIGNED,
    },
    POLICY: {
        "policy": _object,
        "policy_digest": _digest,
        "reason": _note,
        **_SIGNED,
    },
    DRILL: {"passed": _flag, "steps": _words, "milliseconds": _count},
    ATTEST: {"box": _text, "note": _note, "release": is_release_name, **_SIGNED},
    # A rejection of a candidate, or a fact taken back: the book beside the candidate must hold it.
    OBJECTION: {"model": _digest, "fact": _fact_id, "what": _objection, "reason": _text},
    # A change of state that monitoring saw, with its evidence; `model` is the first digits of a digest.
    MONITOR: {
        "step": _count,
        "before": _text,
        "after": _text,
        "model": _note,
        "known_at": _text,
        "reason": _text,
        "evidence": _object,
    },
}


def require_content(kind: Any, content: Mapping[str, Any]) -> None:
    """Refuse (UsageError) what no line of the audit log says; the same rules for writing and reading."""
    fields = _KINDS.get(kind) if isinstance(kind, str) else None
    if fields is None or {*fields, *_COMMON} != set(content):
        raise UsageError(f"{kind!r} with {', '.join(sorted(content))}: no kind of line of the audit log")
    unfit = [name for name, fits in fields.items() if not fits(content[name])]
    if not _is_instant(content["at"]):
        unfit.append("at")
    if not _is_date(content["date"]):
        unfit.append("date")
    if not _actor(content["actor"]):
        unfit.append("actor")
    unfit += [name for name in ("slot", "sqkit_version") if not _text(content[name])]
    if not unfit and not _agrees(kind, content):
        unfit.append("model" if "model" in content else "digests")
    if unfit:
        raise UsageError(f"a line of kind {kind} cannot say {unfit[0]}={content[unfit[0]]!r}", field=unfit[0])


def _agrees(kind: str, content: Mapping[str, Any]) -> bool:
    """Whether a line names one and the same model wherever it names it."""
    if kind == ROLLBACK and content["release"] is None:
        return content["model"] is None and content["model_version"] is None
    if kind in (PROMOTE, ROLLBACK, UNMANAGED):
        model = content["digests"]["model"] if kind == PROMOTE else content["model"]
        said = {word: digest for word, digest in content.get("digests", {}).items() if word in _STORED}
        files = content.get("files", {})
        stored = all(files.get(_STORED[word], one) == one for word, one in {**said, "model": model}.items())
        return stored and _named_after(content["release"], model)
    return True


def _is_instant(value: Any) -> bool:
    try:
        return (
            isinstance(value, str)
            and bool(_INSTANT.fullmatch(value))
            and dt.datetime.fromisoformat(value).tzinfo is not None
        )
    except ValueError:
        return False


def _is_date(value: Any) -> bool:
    try:
        return isinstance(value, str) and dt.date.fromisoformat(value).isoformat() == value
    except ValueError:
        return False


AUDIT_FORM: Final = ChainForm(
    begins="sqkit audit log 1",
    check=require_content,
    broken=AuditBroken,
    word="audit log",
    if_broken="restore {name} and {head} from a backup; until then nothing is promoted or rolled back, and "
    "sqkit halt still stops the model",
    if_cut="restore {name} and {head} from a backup ({witnesses} disagree with it); until then nothing is promoted "
    "or rolled back, and sqkit halt still stops the model",
)


def read_audit(
    models_dir: Path, witnesses: Iterable[ChainWitness] = (), known: Chain | None = None
) -> list[Entry]:
    """Every line of the verified log, oldest first; empty where nothing was ever recorded.

    Raises
    ------
    AuditBroken
        The chain does not hold, or ends before a line that a witness names.
    """
    return read_chain(models_dir / AUDIT_FILE, list(witnesses), AUDIT_FORM, known).entries
