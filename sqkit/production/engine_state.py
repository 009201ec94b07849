"""An engine that was killed goes on: its checkpoint, and the bars behind it pass again.

Called by `sqkit.production.engine`. What the student said of a bar stands in the journal, so going on needs
no model; the compiled steps give the same bits again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from sqkit.production.engine_config import Config
from sqkit.production.journal import Journal, JournalEntry
from sqkit.production.lane import Lane, plain
from sqkit.production.positions import Positions
from sqkit.production.telemetry import COMPONENT, logger

SCHEMA: Final = 2

_SAME: Final = ("strategy", "interval", "calendar")


class EngineState:
    """What one engine keeps on the disk; made by `EngineState.open`.

    Attributes
    ----------
    journal
        Gets every bar that was used.
    numbers
        The place of each symbol in the journal: as it was before, new ones behind.
    """

    def __init__(self, journal: Journal, config: Config) -> None:
        self.journal = journal
        self._about = asdict(config)
        self._kept = _usable(journal, self._about)
        self.numbers: dict[str, int] = dict(self._kept["numbers"]) if self._kept else {}
        for symbol in config.symbols:
            self.numbers.setdefault(symbol, len(self.numbers))

    @classmethod
    def open(cls, folder: Path, config: Config) -> EngineState | None:
        """The state in a folder; None where another engine holds it, or nothing can be written there."""
        journal = Journal.open(folder)
        return None if journal is None else cls(journal, config)

    def restore(
        self, lanes: Mapping[str, Lane], positions: Positions, apply: Callable[[Lane, JournalEntry], None]
    ) -> int:
        """Bring lanes and positions to where the engine was; how many bars passed again.

        Parameters
        ----------
        apply
            Does to a lane what a tick does, from its journal entry.
        """
        kept, self._kept = self._kept, None
        if kept is None:
            return 0
        for symbol, one in kept["lanes"].items():
            if symbol in lanes:
                lanes[symbol].restore(one)
        positions.restore(kept["positions"])
        by_number = {number: lanes[symbol] for symbol, number in kept["numbers"].items() if symbol in lanes}
        passed = 0
        date, count = kept["position"]
        for entry in self.journal.entries((date, count)):
            lane = by_number.get(entry.lane)
            if lane is not None and lane.intake.retake(entry[4:9], entry.start_ns, entry.decided_ns):
                apply(lane, entry)
                passed += 1
        return passed

    def captured(self, lanes: Mapping[str, Lane], positions: Positions) -> Callable[[], None]:
        """Copies everything now, which is quick; what it returns puts the copy onto the disk, whole or not at all.

        Raises
        ------
        OutputError
            From the writing: the disk is full or read-only; the checkpoint before stays.
        """
        captures = {symbol: lane.capture() for symbol, lane in lanes.items()}
        position, held = self.journal.position, positions.snapshot()

        def write() -> None:
            self.journal.write_state(
                {
                    "engine": self._about,
                    "lanes": {symbol: plain(one) for symbol, one in captures.items()},
                    "numbers": self.numbers,
                    "position": list(position),
                    "positions": held,
                    "schema": SCHEMA,
                }
            )

        return write


def _usable(journal: Journal, about: Mapping[str, Any]) -> dict[str, Any] | None:
    """The checkpoint; None for one that was kept for other bars, another strategy, or by another sqkit."""
    state = journal.read_state()
    if state is None:
        return None
    if state.get("schema") != SCHEMA:
        other = ["version of sqkit"]
    else:
        other = [name for name in _SAME if state["engine"].get(name) != about[name]]
    if not other:
        return state
    logger.warning(
        "%s: was kept under another %s; this engine begins anew%s",
        journal.folder,
        ", ".join(other),
        ", give it a Config.name of its own" if state.get("schema") == SCHEMA else "",
        extra=COMPONENT,
    )
    return None
