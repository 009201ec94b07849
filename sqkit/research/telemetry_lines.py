"""Live telemetry files read back: lines of JSON become rows of numbers, whatever else stands between them.

An engine writes one JSON object a line; a killed process or a full disk can leave a torn one. Lines that are
no records are counted and said, never fatal. Called by `sqkit.research.telemetry`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from sqkit.records import (
    BAR_STATUS_CODES,
    ENTRY_LOCK_CODES,
    PREDICTION,
    PREDICTION_FIELDS,
    TRADE_CLOSED,
    TRADE_FIELDS,
    TRADE_OPENED,
    encode,
    instant_ns,
)

_SESSION_FOLDER: Final = re.compile(r"^\d{4}-\d{2}-\d{2}$")


class Row(NamedTuple):
    """One record.

    Attributes
    ----------
    values
        Numbers in the order of the fields.
    live
        What only a live record has; empty for a trade.
    """

    event: str
    strategy: str
    symbol: str
    values: tuple[int | float, ...]
    live: tuple[Any, ...]


@dataclass
class Found:
    """What the lines of some files hold.

    Attributes
    ----------
    broken
        Lines that are no records of the form asked for.
    notes
        A line for each file with such lines, or that could not be read.
    """

    rows: list[Row] = field(default_factory=list)
    broken: int = 0
    notes: list[str] = field(default_factory=list)


def line_files(place: Path) -> list[Path]:
    """The telemetry files of a file, a session's folder, or the folder of all sessions, in order of name."""
    if place.suffix == ".jsonl":
        return [place] if place.is_file() else []
    if not place.is_dir():
        return []
    sessions = sorted(one for one in place.iterdir() if one.is_dir() and _SESSION_FOLDER.match(one.name))
    return [file for folder in [place, *sessions] for file in sorted(folder.glob("*.jsonl"))]


def read_predictions_of(files: Iterable[Path]) -> Found:
    """Every decision that stands in telemetry files."""
    return _read(files, {PREDICTION: _prediction})


def read_trades_of(files: Iterable[Path]) -> Found:
    """Every trade that was opened or closed."""
    return _read(files, {TRADE_OPENED: _trade, TRADE_CLOSED: _trade})


def _read(files: Iterable[Path], parsers: dict[str, Callable[[dict[str, Any]], Row]]) -> Found:
    found = Found()
    for file in files:
        broken: list[int] = []
        try:
            found.rows.extend(_rows(file, parsers, broken))
        except OSError as problem:
            found.notes.append(f"{file}: cannot be read ({problem.strerror})")
        if broken:
            found.broken += len(broken)
            found.notes.append(f"{file}: {len(broken)} torn or foreign lines, the first is line {broken[0]}")
    return found


def _rows(
    file: Path, parsers: dict[str, Callable[[dict[str, Any]], Row]], broken: list[int]
) -> Iterator[Row]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.isspace():
                continue
            try:
                record = orjson.loads(line)
                parser = parsers.get(record["event"])
                row = parser(record) if parser else None
            except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
                broken.append(number)
                continue
            if row is not None:
                yield row


def _prediction(record: dict[str, Any]) -> Row:
    features = record["features"]
    live = (
        str(record["id"]),
        str(record["student_model_version"]),
        instant_ns(record["decision_time"]),
        float(record["latency_us"]),
        ENTRY_LOCK_CODES[record["entry_lock"]],
        BAR_STATUS_CODES[record["bar_status"]],
        None if features is None else [float("nan") if one is None else float(one) for one in features],
    )
    return Row(
        PREDICTION, str(record["strategy"]), str(record["symbol"]), encode(record, PREDICTION_FIELDS), live
    )


def _trade(record: dict[str, Any]) -> Row:
    return Row(
        record["event"], str(record["strategy"]), str(record["symbol"]), encode(record, TRADE_FIELDS), ()
    )
