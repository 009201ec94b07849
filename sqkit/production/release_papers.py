"""What the papers of the live release say: on which decision it rests, and which boxes are still open.

Read from its archive, each file held against the audit line that names it; for ``sqkit status``.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqkit.artifacts import APPROVALS_FILE, CHECKLIST_FILE, SIGNERS_FILE
from sqkit.errors import ReleaseDamaged, SqkitError
from sqkit.files import parse_json, sha256_bytes
from sqkit.production.approval_book import parse_book
from sqkit.production.archive import archive_folder
from sqkit.production.boxes import OF_THE_LIVE_RELEASE, box_states
from sqkit.production.slot_state import ReleaseFact, SlotState
from sqkit.settings import Settings


def release_papers(
    models_dir: Path, state: SlotState, live: ReleaseFact, *, settings: Settings, now: dt.datetime
) -> dict[str, Any]:
    """Decision and open boxes of what is live; a note instead where the papers cannot be read.

    Parameters
    ----------
    state
        Of the slot, in which `live` was promoted.
    """
    try:
        checklist = parse_json(_archived(models_dir, live, CHECKLIST_FILE), Path(CHECKLIST_FILE))
        decision = {
            "checklist": live.files[CHECKLIST_FILE],
            "grade": checklist["evidence"]["grade"],
            "recommendation": checklist["recommendation"],
            "report": live.entry["digests"].get("manifest"),
        }
        boxes = _boxes_open(models_dir, state, live, checklist, settings, now)
    except (SqkitError, OSError, LookupError, TypeError, ValueError) as problem:
        said = str(problem) if isinstance(problem, SqkitError) else "the archived papers cannot be read"
        return {"notes": [f"decision and boxes are not known: {said}"]}
    return {"boxes_open": boxes, "decision": decision}


def _archived(models_dir: Path, live: ReleaseFact, name: str) -> bytes:
    data = (archive_folder(models_dir, live.name) / name).read_bytes()
    if sha256_bytes(data) != live.files[name]:
        raise ReleaseDamaged(f"archive/{live.name}/{name} was changed since it was archived")
    return data


def _boxes_open(
    models_dir: Path,
    state: SlotState,
    live: ReleaseFact,
    checklist: Mapping[str, Any],
    settings: Settings,
    now: dt.datetime,
) -> list[dict[str, str]]:
    """What nobody ticked, at the promotion or since. A drill that is too old now is told of by itself."""
    book = parse_book(parse_json(_archived(models_dir, live, APPROVALS_FILE), Path(APPROVALS_FILE)))
    signed = SIGNERS_FILE in live.files
    states = box_states(
        checklist,
        book,
        book.statement,
        drill_entry=state.drill,
        now=now,
        settings=settings,
        signers=_archived(models_dir, live, SIGNERS_FILE).decode("utf-8") if signed else None,
        promotion=live.entry,
        attested=state.attested,
    )
    ticked = live.entry["boxes"]
    return [
        {"because": one.open_because, "box": one.box, "title": one.title}
        for one in states
        if not one.ticked and (one.box in OF_THE_LIVE_RELEASE or one.box not in ticked)
    ]
