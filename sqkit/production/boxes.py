"""The pre-deployment boxes: which are ticked, by what or whom, and what would tick the others.

What the program can verify it ticks itself, with the evidence; the rest a named person ticks with
``sqkit attest``. Four must be ticked before a promotion. Pure but for ssh-keygen, which verifies
who attested where signatures are asked for.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sqkit.chain import Entry
from sqkit.checklist_signoffs import (
    ALERTS_CONFIGURED,
    BASELINE_ARCHIVED,
    BOX_TITLES,
    CONFIG_UPDATED,
    CRITERIA_MET,
    METADATA_VERIFIED,
    PERIOD_REPRESENTATIVE,
    ROLLBACK_TESTED,
    all_symbols,
)
from sqkit.errors import UsageError
from sqkit.files import sha256_json
from sqkit.production.approval_book import Book
from sqkit.production.approval_facts import ATTEST, Fact, Statement, made_at
from sqkit.production.approval_voices import hear
from sqkit.production.audit import CLOCK_TOLERANCE, date_in
from sqkit.sessions import MARKETS
from sqkit.settings import Settings

BOXES: Final = tuple(BOX_TITLES)
REQUIRED: Final = (CRITERIA_MET, PERIOD_REPRESENTATIVE, METADATA_VERIFIED, ROLLBACK_TESTED)
"""Without these nothing is promoted."""

OF_THE_LIVE_RELEASE: Final = (CONFIG_UPDATED, ALERTS_CONFIGURED)
"""May stay open at the promotion and be ticked while the release is live."""

DRILL_DAYS: Final = 30


@dataclass(frozen=True)
class BoxState:
    """One box.

    Attributes
    ----------
    box, title
        Its id, and the user's words.
    ticked
        Whether it is.
    by
        Who or what ticked it; empty while it is open.
    required
        Whether a promotion needs it.
    open_because
        Why it is open and what would tick it; empty when it is ticked.
    attestable
        Whether a person may tick it.
    """

    box: str
    title: str
    ticked: bool
    by: str
    required: bool
    open_because: str = ""
    attestable: bool = False


@dataclass(frozen=True)
class _Case:
    """What the boxes are judged by."""

    checklist: Mapping[str, Any]
    statement: Statement
    drill: Entry | None
    promotion: Entry | None
    now: dt.datetime
    settings: Settings
    zone: str


@dataclass(frozen=True)
class _Found:
    """What the program says of a box: ticked by something, or open and perhaps for a person to tick."""

    by: str = ""
    open_because: str = ""
    attestable: bool = False


def box_states(
    checklist: Mapping[str, Any],
    book: Book | None,
    statement: Statement,
    *,
    drill_entry: Entry | None,
    now: dt.datetime,
    settings: Settings,
    signers: str | None,
    promotion: Entry | None = None,
    attested: Mapping[str, Entry] | None = None,
) -> tuple[BoxState, ...]:
    """Every box of a candidate, in the order of the checklist's page.

    Parameters
    ----------
    checklist, statement
        Of the candidate as it lies there now.
    book
        What people attested; None where nobody said anything.
    drill_entry
        The audit line of the newest rollback drill: one that failed opens the box again.
    signers
        Contents of the allowed signers file; None where typed names do.
    promotion, attested
        For a candidate that was promoted: its audit line, and what was attested since, by box.
    """
    zone = MARKETS[statement["predicate"]["market"]].zone
    case = _Case(checklist, statement, drill_entry, promotion, now, settings, zone)
    decided = dt.datetime.fromisoformat(checklist["timestamp"])
    by_people = _attested(book, statement, signers, zone, decided) if book else _Attested()
    lines = {box: _attested_live(entry) for box, entry in (attested or {}).items()}
    return tuple(_state(box, _JUDGES[box](case), by_people, lines.get(box, "")) for box in BOXES)


def require_attestable(state: BoxState) -> None:
    """Refuse to have a person tick what only the program ticks.

    Raises
    ------
    UsageError
        It is ticked already, or nobody's word can tick it.
    """
    if state.attestable:
        return
    why = (
        f"is ticked already: {state.by}" if state.ticked else f"nobody's word ticks it: {state.open_because}"
    )
    raise UsageError(f"box {state.box}: {why}", box=state.box)


def require_known(box: str) -> None:
    """Refuse (UsageError) a box that does not exist."""
    if box not in BOXES:
        raise UsageError(f"box {box!r}: give one of {', '.join(BOXES)}", box=box)


def _state(box: str, found: _Found, by_people: _Attested, live: str) -> BoxState:
    """The program's word first; a person's only where the program leaves the box to one."""
    said = by_people.ticked.get(box, "") if found.attestable else ""
    by = found.by or live or said
    because = ""
    if not by:
        because = by_people.refused.get(box, "") if found.attestable else ""
        because = because or found.open_because
    return BoxState(box, BOX_TITLES[box], bool(by), by, box in REQUIRED, because, found.attestable)


@dataclass(frozen=True)
class _Attested:
    """Box to who attested it; box to why an attestation does not count."""

    ticked: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)


def _attested(
    book: Book, statement: Statement, signers: str | None, zone: str, decided: dt.datetime
) -> _Attested:
    current, ticked, refused = sha256_json(statement), {}, {}
    for fact in book.facts:
        if fact["kind"] != ATTEST or fact["id"] in book.revoked:
            continue
        if fact["statement"] != current:
            refused[fact["box"]] = "attested before something changed; attest it again"
            continue
        if made_at(fact) < decided - CLOCK_TOLERANCE:
            refused[fact["box"]] = "attested before the decision it is about; attest it again"
            continue
        voice = hear(fact, signers)
        if voice.problem is not None:
            refused[fact["box"]] = voice.problem.message
        else:
            ticked[fact["box"]] = attested_words(fact, voice.principal, zone)
    return _Attested(ticked, refused)


def attested_words(fact: Fact, principal: str | None, zone: str) -> str:
    """Who attested a box, when, and their note."""
    proof = f"signed, {principal}" if principal else "typed name, not authenticated"
    return f"attested by {fact['name']} ({proof}) on {date_in(fact['at'], zone)}: {fact['note']}"


def _attested_live(entry: Entry) -> str:
    actor = entry["actor"]
    proof = f"signed, {actor['principal']}" if actor["principal"] else "typed name, not authenticated"
    return f"attested by {actor['name']} ({proof}) on {entry['date']}: {entry['note']}"


def _criteria_met(case: _Case) -> _Found:
    record = all_symbols(case.checklist["evidence"])
    status = record.get("status") if record else None
    if status == "pass":
        return _Found(by="the evidence: no symbol is significantly worse")
    if status == "fail":
        note = str((record or {}).get("note") or "a symbol is significantly worse")
        return _Found(open_because=f"the evidence says otherwise ({note}); train another student")
    return _Found(
        open_because="the evidence could not test the symbols; look at them and attest it",
        attestable=True,
    )


def _period_representative(case: _Case) -> _Found:
    return _Found(open_because="look at the validation window and attest it", attestable=True)


def _metadata_verified(case: _Case) -> _Found:
    said = case.statement["predicate"]
    bound = case.statement["subject"][0]["digest"]["sha256"]
    if case.checklist["digests"].get("model") != bound:
        return _Found(open_because="the checklist is about another model; validate this one again")
    items = {item["name"]: item["status"] for item in case.checklist["integrity"]}
    failed = [name for name in ("time_order", "teacher_agrees") if items.get(name) == "fail"]
    if failed:
        return _Found(open_because=f"integrity {failed[0]} failed; train another student")
    seen = "" if items.get("teacher_agrees") == "pass" else ", the teacher's own folder was not compared"
    return _Found(
        by=f"the model's metadata: teacher {said['teacher'][:12]}, trained {said['training_window']}{seen}"
    )


def _baseline_archived(case: _Case) -> _Found:
    if case.promotion is not None:
        return _Found(by=str(case.promotion["boxes"].get(BASELINE_ARCHIVED) or "the promotion"))
    return _Found(open_because="the promotion archives what it replaces and ticks this itself")


def _config_updated(case: _Case) -> _Found:
    environment = case.promotion.get("environment") if case.promotion else None
    if environment:
        return _Found(by=f"the promotion, which wrote {environment['file']}")
    return _Found(open_because="set the printed environment lines and attest it", attestable=True)


def _alerts_configured(case: _Case) -> _Found:
    if case.settings.student_monitoring_enabled:
        return _Found(by="the settings: monitoring is enabled")
    return _Found(
        open_because="set SENSEQUANT_STUDENT_MONITORING_ENABLED=true, or attest that others watch",
        attestable=True,
    )


def _rollback_tested(case: _Case) -> _Found:
    drill = case.drill
    if drill is None:
        return _Found(open_because=f"no rollback drill was made; run {_drill_command(case)}")
    if not drill["passed"]:
        why = drill["steps"][-1] if drill["steps"] else "failed"
        return _Found(
            open_because=f"the last drill, of {drill['date']}, did not pass ({why}); mend that and run "
            f"{_drill_command(case)}"
        )
    age = case.now - dt.datetime.fromisoformat(drill["at"])
    if age > dt.timedelta(days=DRILL_DAYS):
        return _Found(
            open_because=f"the last drill passed on {drill['date']}, more than {DRILL_DAYS} days ago; "
            f"run {_drill_command(case)}"
        )
    return _Found(by=f"the rollback drill of {drill['date']}")


def _drill_command(case: _Case) -> str:
    slot = case.statement["predicate"]["slot"]
    return "sqkit rollback --drill" if slot == "default" else f"sqkit rollback --drill --slot {slot}"


_JUDGES: Final = {
    CRITERIA_MET: _criteria_met,
    PERIOD_REPRESENTATIVE: _period_representative,
    METADATA_VERIFIED: _metadata_verified,
    BASELINE_ARCHIVED: _baseline_archived,
    CONFIG_UPDATED: _config_updated,
    ALERTS_CONFIGURED: _alerts_configured,
    ROLLBACK_TESTED: _rollback_tested,
}
