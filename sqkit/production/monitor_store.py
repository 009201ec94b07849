"""What monitoring knows, on disk: ``data/monitoring/state.sqlite``, one transaction for all that changes together.

Outcomes, detector values, state, alerts that wait to be sent, and how far each telemetry file was read are written at
once: killed anywhere and started again, monitoring goes on as if nothing had happened. Values are JSON; nothing
is unpickled. Tables are keyed by slot, so several slots share the file.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from sqkit.errors import ArtifactChanged, OutputError
from sqkit.files import make_folder
from sqkit.production.live_outcomes import Row
from sqkit.production.monitor_machine import Step

MONITORING_FOLDER: Final = "monitoring"
STATE_FILE: Final = "state.sqlite"
IN_MEMORY: Final = ":memory:"
"""In place of the file's path: nothing is kept."""

SCHEMA: Final = 1

_WAIT_SECONDS: Final = 30.0
_TABLES: Final = """
create table if not exists slots (slot text primary key, state text not null);
create table if not exists rows (
  slot text, symbol text, number integer, row text not null, primary key (slot, symbol, number)) without rowid;
create table if not exists sources (slot text, path text, bytes integer not null, primary key (slot, path));
create table if not exists outcomes (
  slot text, symbol text, bar_time integer, session_day integer, model text, call integer, probability_up real,
  outcome integer, shadows text not null, primary key (slot, symbol, bar_time)) without rowid;
create table if not exists bars (
  slot text, bar_time integer, session_day integer, model text, figures text not null,
  primary key (slot, bar_time)) without rowid;
create table if not exists steps (slot text, number integer, step text not null, primary key (slot, number));
create table if not exists outbox (slot text, number integer, alert text not null, primary key (slot, number));
create table if not exists implied (slot text primary key, of text not null, found text not null);
create table if not exists acknowledged (slot text, fingerprint text, said text, primary key (slot, fingerprint));
"""
_FOLLOWS: Final = ("slots", "rows", "sources", "outcomes", "bars", "steps", "outbox")
"""Tables that follow from telemetry. What a person acknowledged does not, nor what settings imply."""


@contextlib.contextmanager
def store_errors(path: Path | str) -> Iterator[None]:
    """Refusals of SQLite as sqkit's own.

    Raises
    ------
    OutputError
        The disk is full, the folder cannot be written, or another process writes for too long.
    ArtifactChanged
        It is no state of monitoring's, or damaged.
    """
    try:
        yield
    except sqlite3.OperationalError as problem:
        raise OutputError(
            f"{path}: cannot be read or written ({problem}); make room, correct the folder or wait, and run again",
            path=str(path),
        ) from None
    except sqlite3.DatabaseError as problem:
        raise ArtifactChanged(
            f"{path}: is no state of monitoring's, or damaged ({problem}); run sqkit monitor rebuild",
            path=str(path),
        ) from None


class StoredSlot(NamedTuple):
    """What is known of one slot.

    Attributes
    ----------
    state
        Of book, machine and alerts.
    symbols
        Rows of each symbol, as `sqkit.production.live_outcomes.Row.to_list` gives them.
    sources
        Telemetry file, relative to its folder, to the bytes that were read.
    """

    state: dict[str, Any]
    symbols: dict[str, list[list[Any]]]
    sources: dict[str, int]


class MonitorStore:
    """The file, opened.

    Parameters
    ----------
    path
        Made where it is missing; `IN_MEMORY` for a rehearsal.
    read_only
        Open what is there; nothing can be written.

    Raises
    ------
    OutputError
        It cannot be opened.
    ArtifactChanged
        It is no state of monitoring's, or one of another version.
    """

    def __init__(self, path: Path | str, *, read_only: bool = False) -> None:
        self.path = path
        with store_errors(path):
            if isinstance(path, Path) and not read_only:
                make_folder(path.parent)
            where = f"{Path(path).absolute().as_uri()}?mode=ro" if read_only else str(path)
            self._base = sqlite3.connect(
                where, timeout=_WAIT_SECONDS, uri=read_only, isolation_level=None, check_same_thread=False
            )
            # A rollback journal, not a write-ahead log: it works on shared storage too.
            self._base.execute("pragma synchronous = full")
            found = self._base.execute("pragma user_version").fetchone()[0]
            if found not in (0, SCHEMA):
                raise ArtifactChanged(
                    f"{path}: written by another version of sqkit (schema {found}, not {SCHEMA}); run sqkit monitor rebuild",
                    path=str(path),
                )
            if not read_only:
                self._base.executescript(_TABLES)
                self._base.execute(f"pragma user_version = {SCHEMA}")

    def close(self) -> None:
        """Give the file back."""
        self._base.close()

    # --- one slot

    def load(self, slot: str) -> StoredSlot | None:
        """What is known of a slot; None where nothing is."""
        found = self._base.execute("select state from slots where slot = ?", (slot,)).fetchone()
        if found is None:
            return None
        symbols: dict[str, list[list[Any]]] = {}
        kept = self._base.execute(
            "select symbol, row from rows where slot = ? order by symbol, number", (slot,)
        )
        for name, row in kept:
            symbols.setdefault(name, []).append(json.loads(row))
        sources = self._base.execute("select path, bytes from sources where slot = ?", (slot,))
        return StoredSlot(json.loads(found[0]), symbols, dict(sources.fetchall()))

    def begin(self) -> None:
        """Begin a transaction."""
        self._base.execute("begin immediate")

    def commit(self) -> None:
        """Make it durable."""
        self._base.execute("commit")

    def abandon(self) -> None:
        """Undo it."""
        if self._base.in_transaction:
            self._base.execute("rollback")

    def save(
        self,
        slot: str,
        state: Mapping[str, Any],
        rows: Mapping[tuple[str, int], Row | None],
        sources: Mapping[str, int],
    ) -> None:
        """Keep state, rows that changed (None: gone) by symbol and bar, and how far files were read."""
        self._base.execute("insert or replace into slots values (?, ?)", (slot, _text(state)))
        self._base.executemany(
            "insert or replace into rows values (?, ?, ?, ?)",
            [
                (slot, symbol, number, orjson.dumps(row.to_list()).decode())
                for (symbol, number), row in sorted(rows.items(), key=_place)
                if row is not None
            ],
        )
        self._base.executemany(
            "delete from rows where slot = ? and symbol = ? and number = ?",
            [(slot, *place) for place, row in rows.items() if row is None],
        )
        self._base.executemany(
            "insert or replace into sources values (?, ?, ?)",
            [(slot, path, read) for path, read in sorted(sources.items())],
        )

    def add_outcomes(self, slot: str, rows: Iterable[tuple[Any, ...]]) -> None:
        """Keep judged predictions with their outcome; the first one of a symbol's bar stays.

        Parameters
        ----------
        rows
            As `outcomes` gives them.
        """
        self._base.executemany(
            "insert or ignore into outcomes values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [(slot, *row[:-1], _text(row[-1])) for row in rows],
        )

    def add_bar(self, slot: str, bar_time: int, day: int, model: str, figures: Mapping[str, Any]) -> None:
        """Keep the figures after a closed bar, for plots."""
        self._base.execute(
            "insert or replace into bars values (?, ?, ?, ?, ?)", (slot, bar_time, day, model, _text(figures))
        )

    def add_steps(self, slot: str, steps: Iterable[Step]) -> None:
        """Keep changes of state."""
        self._base.executemany(
            "insert or replace into steps values (?, ?, ?)",
            [(slot, step.number, _text(step.to_dict())) for step in steps],
        )

    # --- alerts on their way

    def queue(self, slot: str, alerts: Iterable[Mapping[str, Any]]) -> None:
        """Keep alerts that are to be sent."""
        (last,) = self._base.execute(
            "select coalesce(max(number), 0) from outbox where slot = ?", (slot,)
        ).fetchone()
        self._base.executemany(
            "insert into outbox values (?, ?, ?)",
            [(slot, number, _text(alert)) for number, alert in enumerate(alerts, last + 1)],
        )

    def queued(self, slot: str) -> list[tuple[int, dict[str, Any]]]:
        """Alerts that wait to be sent, in order."""
        rows = self._base.execute("select number, alert from outbox where slot = ? order by number", (slot,))
        return [(number, json.loads(alert)) for number, alert in rows]

    def sent(self, slot: str, number: int) -> None:
        """An alert is on its way and needs no other try."""
        self._base.execute("delete from outbox where slot = ? and number = ?", (slot, number))

    def acknowledge(self, slot: str, fingerprint: str, said: Mapping[str, Any]) -> None:
        """Keep that a person has seen an alert."""
        self._base.execute(
            "insert or replace into acknowledged values (?, ?, ?)", (slot, fingerprint, _text(said))
        )

    def forget_acknowledged(self, slot: str, fingerprint: str) -> None:
        """An alert has ended: its next beginning is news again."""
        self._base.execute("delete from acknowledged where slot = ? and fingerprint = ?", (slot, fingerprint))

    def acknowledged(self, slot: str) -> dict[str, dict[str, Any]]:
        """Fingerprint to who has seen the alert, when, and what they said."""
        rows = self._base.execute("select fingerprint, said from acknowledged where slot = ?", (slot,))
        return {fingerprint: json.loads(said) for fingerprint, said in rows}

    # --- what the settings imply for the model that is watched

    def keep_implied(self, slot: str, of: str, found: Mapping[str, Any]) -> None:
        """Keep what takes seconds to work out, with the digest of what it was worked out from."""
        self._base.execute("insert or replace into implied values (?, ?, ?)", (slot, of, _text(found)))

    def implied(self, slot: str, of: str = "") -> dict[str, Any] | None:
        """What was kept; None where nothing was, or from something else than `of`."""
        row = self._base.execute("select of, found from implied where slot = ?", (slot,)).fetchone()
        return None if row is None or of not in ("", row[0]) else json.loads(row[1])

    # --- for pages

    def slots(self) -> list[str]:
        """Slots of which anything is known."""
        return [name for (name,) in self._base.execute("select slot from slots order by slot")]

    def steps(self, slot: str) -> list[dict[str, Any]]:
        """Every change of state, oldest first."""
        rows = self._base.execute("select step from steps where slot = ? order by number", (slot,))
        return [json.loads(step) for (step,) in rows]

    def steps_of(self, slot: str) -> list[Step]:
        """The same as `steps`, as they were."""
        return [Step(**step) for step in self.steps(slot)]

    def bars(self, slot: str, since_ns: int = 0) -> list[dict[str, Any]]:
        """Figures after each closed bar, oldest first."""
        rows = self._base.execute(
            "select bar_time, session_day, model, figures from bars where slot = ? and bar_time >= ? order by bar_time",
            (slot, since_ns),
        )
        return [
            {"bar_time": at, "model": model, "session_day": day, **json.loads(figures)}
            for at, day, model, figures in rows
        ]

    def outcomes(self, slot: str, since_ns: int = 0) -> list[tuple[Any, ...]]:
        """Judged predictions: symbol, bar time, session day, model, call, P(up), outcome, and what was said beside it.

        The last is a list of role, model, call.
        """
        rows = self._base.execute(
            "select symbol, bar_time, session_day, model, call, probability_up, outcome, shadows "
            "from outcomes where slot = ? and bar_time >= ? order by bar_time, symbol",
            (slot, since_ns),
        )
        return [(*row[:-1], json.loads(row[-1])) for row in rows]

    def contents(self, slot: str) -> dict[str, list[tuple[Any, ...]]]:
        """Every row of a slot that follows from telemetry, sorted; two states are the same where these are.

        What waits to be sent is left out: it follows from when somebody looked.
        """
        return {
            table: sorted(
                self._base.execute(f"select * from {table} where slot = ?", (slot,)).fetchall(),  # noqa: S608
                key=repr,
            )
            for table in _FOLLOWS
            if table != "outbox"
        }

    def take_over(self, slot: str, other: Path) -> None:
        """Have another file's knowledge of a slot in place of one's own, at once; what waits to be sent there is dropped."""
        self._base.execute("attach database ? as other", (str(other),))
        try:
            self.begin()
            self.forget(slot)
            for table in _FOLLOWS:
                if table != "outbox":
                    self._base.execute(
                        f"insert into main.{table} select * from other.{table} where slot = ?",  # noqa: S608
                        (slot,),
                    )
            self.commit()
        finally:
            self.abandon()
            self._base.execute("detach database other")

    def forget(self, slot: str) -> None:
        """Drop what is known of a slot, but not what a person acknowledged."""
        for table in _FOLLOWS:
            self._base.execute(f"delete from {table} where slot = ?", (slot,))  # noqa: S608


def _place(item: tuple[tuple[str, int], Row | None]) -> tuple[str, int]:
    return item[0]


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":"))
