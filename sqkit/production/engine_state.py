"""An engine that was killed goes on: its checkpoint, and the bars behind it pass again.

Called by `sqkit.production.engine`. What the student said of a bar stands in the journal, so going on needs
no model; the compiled steps give the same bits again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from sqkit.production.journal import Journal, JournalEntry
from sqkit.production.lane import Captured, Lane, plain

SCHEMA: Final = 1

logger = logging.getLogger("sqkit.production.engine")

_SAME: Final = ("strategy", "interval", "calendar")


def lane_numbers(journal: Journal | None, symbols: tuple[str, ...]) -> dict[str, int]:
    """The place of each symbol in the journal: as it was before, new ones behind."""
    state = journal.read_state() if journal else None
    known: dict[str, int] = dict(state["numbers"]) if state and state.get("schema") == SCHEMA else {}
    for symbol in symbols:
        known.setdefault(symbol, len(known))
    return known


def capture(lanes: Mapping[str, Lane]) -> dict[str, Captured]:
    """Every lane's state, copied; quick, as it is done inside a tick."""
    return {symbol: lane.capture() for symbol, lane in lanes.items()}


def write_checkpoint(
    journal: Journal,
    captured: Mapping[str, Captured],
    numbers: Mapping[str, int],
    position: tuple[str, int],
    positions: Mapping[str, Any],
    engine: Mapping[str, Any],
) -> None:
    """Put a capture onto the disk, whole or not at all."""
    journal.write_state(
        {
            "engine": dict(engine),
            "lanes": {symbol: plain(one) for symbol, one in captured.items()},
            "numbers": dict(numbers),
            "position": list(position),
            "positions": dict(positions),
            "schema": SCHEMA,
        }
    )


def restore(
    journal: Journal,
    lanes: Mapping[str, Lane],
    apply: Callable[[Lane, JournalEntry], None],
    engine: Mapping[str, Any],
) -> int:
    """Bring every lane to where the engine was; how many bars passed again.

    Parameters
    ----------
    apply
        Does to a lane what a tick does, from its journal entry.
    engine
        Its configuration: a state that was kept for other bars or another strategy is not taken.
    """
    state = journal.read_state()
    if state is None or state.get("schema") != SCHEMA:
        return 0
    other = [name for name in _SAME if state["engine"].get(name) != engine[name]]
    if other:
        logger.warning(
            "%s: was kept under another %s; this engine begins anew, give it a Config.name of its own",
            journal.folder,
            ", ".join(other),
            extra={"component": "engine"},
        )
        return 0
    by_number = {number: lanes[symbol] for symbol, number in state["numbers"].items() if symbol in lanes}
    for symbol, kept in state["lanes"].items():
        if symbol in lanes:
            lanes[symbol].restore(kept)
    passed = 0
    date, count = state["position"]
    for entry in journal.entries((date, count)):
        lane = by_number.get(entry.lane)
        if lane is not None and lane.intake.retake(entry[4:9], entry.start_ns, entry.decided_ns):
            apply(lane, entry)
            passed += 1
    return passed
