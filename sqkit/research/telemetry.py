"""Telemetry, of a validation and of an engine, as the same columns.

The backtest writes Parquet files, one a symbol and a run; their digest is that of their canonical columns, so
it does not move with a Parquet library's version. An engine writes lines of JSON. `read_predictions` and
`read_trades` read both. Nothing here unpickles.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sqkit.errors import ArtifactChanged, TelemetryMixed, TelemetryNotFound
from sqkit.files import canonical_json, sha256_columns, symbol_file_name, write_bytes
from sqkit.records import PREDICTION_FIELDS, TRADE_FIELDS, TRADE_OPENED, code_dictionary
from sqkit.research.telemetry_lines import (
    Found,
    Row,
    line_files,
    read_predictions_of,
    read_trades_of,
)

METADATA_KEY = b"sqkit"


@dataclass(frozen=True)
class RecordFile:
    """Columns of one stored file and what its metadata says of them."""

    symbol: str
    role: str  # candidate or baseline
    version: str  # model version, or "rule"
    columns: dict[str, np.ndarray]

    def digest(self) -> str:
        """SHA-256 of the canonical columns."""
        return sha256_columns(**self.columns)


def file_name(symbol: str, role: str, kind: str) -> str:
    """``<SYMBOL>.parquet`` for the candidate's predictions, ``<SYMBOL>@<what>.parquet`` for the rest.

    No symbol has an ``@`` in it, so no symbol can take another one's file.
    """
    what = _what(role, kind)
    return symbol_file_name(symbol, f"@{what}.parquet" if what else ".parquet")


def _what(role: str, kind: str) -> str:
    return "-".join(word for word in (role, kind) if word not in ("candidate", "predictions"))


def write_predictions(folder: Path, record: RecordFile) -> dict[str, Any]:
    """Write one symbol's predictions; returns the entry for ``validation_results.json``."""
    return _write(
        folder / file_name(record.symbol, record.role, "predictions"),
        record,
        PREDICTION_FIELDS,
        "predictions",
    )


def write_trades(folder: Path, record: RecordFile) -> dict[str, Any]:
    """Write one symbol's trades; returns the entry for ``validation_results.json``."""
    return _write(folder / file_name(record.symbol, record.role, "trades"), record, TRADE_FIELDS, "trades")


def _write(path: Path, record: RecordFile, fields: dict[str, str], kind: str) -> dict[str, Any]:
    columns = {
        name: np.ascontiguousarray(record.columns[name], dtype=kind_) for name, kind_ in fields.items()
    }
    stored = RecordFile(record.symbol, record.role, record.version, columns)
    about = {
        "codes": {name: words for name, words in code_dictionary().items() if name in fields},
        "kind": kind,
        "role": record.role,
        "student_model_version": record.version,
        "symbol": record.symbol,
    }
    table = pa.table({name: pa.array(column) for name, column in columns.items()})
    table = table.replace_schema_metadata({METADATA_KEY: canonical_json(about, indent=None).encode()})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", row_group_size=1 << 16)
    write_bytes(path, buffer.getvalue())
    return {
        "digest": stored.digest(),
        "file": path.name,
        "kind": kind,
        "role": record.role,
        "rows": len(table),
        "symbol": record.symbol,
    }


def read_records(path: Path, *, expected_digest: str | None = None) -> RecordFile:
    """Read a prediction or trade file back and hold it against its recorded digest.

    Raises
    ------
    ArtifactChanged
        The file is missing, is no file of sqkit's, or its columns differ from the digest.
    """
    if not path.is_file():
        raise ArtifactChanged(f"{path}: is missing; validate again with sqkit validate", path=str(path))
    try:
        table = pq.read_table(path, partitioning=None)
        about = json.loads((table.schema.metadata or {})[METADATA_KEY])
        columns = {name: table.column(name).to_numpy() for name in table.column_names}
        record = RecordFile(about["symbol"], about["role"], about["student_model_version"], columns)
        found = record.digest()
    except (pa.ArrowException, KeyError, TypeError, ValueError, OSError) as problem:
        raise ArtifactChanged(
            f"{path}: cannot be read as sqkit records ({' '.join(str(problem).split())}); validate again",
            path=str(path),
        ) from None
    if expected_digest is not None and found != expected_digest:
        raise ArtifactChanged(
            f"{path}: its columns differ from the digest in validation_results.json; validate again",
            path=str(path),
            expected=expected_digest,
            found=found,
        )
    return record


LIVE_FIELDS: Final = (
    "id",
    "student_model_version",
    "decision_time",
    "latency_us",
    "entry_lock",
    "bar_status",
    "features",
)
"""What only a live prediction has: texts, UTC nanoseconds, microseconds, codes of `records`, lists."""


@dataclass(frozen=True)
class Telemetry:
    """What was read from one place.

    Attributes
    ----------
    symbols
        Columns by symbol, in order of time: names and types of `records.PREDICTION_FIELDS` or `TRADE_FIELDS`.
    live
        Columns of `LIVE_FIELDS` beside them, where they were asked for and the place is an engine's.
    duplicates
        Records of a decision or trade that was read already; the first one counts.
    broken
        Lines that are no records: torn, no JSON, or of another form.
    notes
        What a reader should know, in words; empty when all was whole.
    """

    symbols: dict[str, dict[str, np.ndarray]]
    live: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    duplicates: int = 0
    broken: int = 0
    notes: tuple[str, ...] = ()


def read_predictions(
    place: Path, *, role: str = "candidate", strategy: str = "", live: bool = False
) -> Telemetry:
    """Predictions of a validation or of engines, as the same columns.

    An engine's words become the codes of `records`; it does not know outcomes.

    Parameters
    ----------
    place
        A ``validation_telemetry`` folder or one of its Parquet files; ``data/telemetry``, the folder of one
        session, or one ``.jsonl`` file.
    role
        In a validation's folder: ``candidate`` or ``baseline``.
    strategy
        In an engine's: whose records; needed where a symbol has those of two.
    live
        Whether `Telemetry.live` is filled.

    Raises
    ------
    TelemetryNotFound
        The place holds no predictions.
    TelemetryMixed
        A symbol was traded by two strategies and none was chosen.
    ArtifactChanged
        A Parquet file cannot be read.
    """
    files = _parquet_files(place, role, "predictions")
    if files:
        return Telemetry(_columns_of(files, PREDICTION_FIELDS, place))
    return _of_lines(
        read_predictions_of(_lines_of(place, "predictions")), PREDICTION_FIELDS, strategy, live=live
    )


def read_trades(place: Path, *, role: str = "candidate", strategy: str = "") -> Telemetry:
    """Trades of a validation or of engines, as the same columns; parameters as of `read_predictions`.

    In order of entry. A trade that an engine opened and has not closed has exit_time 0, and for fees and P&L
    what they were when it was opened.
    """
    files = _parquet_files(place, role, "trades")
    if files:
        return Telemetry(_columns_of(files, TRADE_FIELDS, place))
    return _of_lines(read_trades_of(_lines_of(place, "trades")), TRADE_FIELDS, strategy, live=False)


def _parquet_files(place: Path, role: str, kind: str) -> list[Path]:
    if place.suffix == ".parquet":
        return [place]
    what = _what(role, kind)
    return sorted(file for file in place.glob("*.parquet") if file.stem.partition("@")[2] == what)


def _columns_of(
    files: Iterable[Path], fields: Mapping[str, str], place: Path
) -> dict[str, dict[str, np.ndarray]]:
    symbols = {}
    for file in files:
        record = read_records(file)
        if set(record.columns) != set(fields):
            raise TelemetryNotFound(
                f"{place}: holds other records than were asked for; read_predictions reads predictions, read_trades "
                "trades",
                place=str(place),
            )
        symbols[record.symbol] = record.columns
    return symbols


def _lines_of(place: Path, kind: str) -> list[Path]:
    files = line_files(place)
    if not files:
        raise TelemetryNotFound(
            f"{place}: holds no {kind}; give a validation_telemetry folder, data/telemetry, a session's folder in it, "
            "or one file",
            place=str(place),
        )
    return files


def _of_lines(found: Found, fields: Mapping[str, str], strategy: str, *, live: bool) -> Telemetry:
    by_symbol: dict[str, dict[int, Row]] = {}
    strategies: dict[str, str] = {}
    duplicates = 0
    for row in sorted(found.rows, key=_when):
        if strategy and row.strategy != strategy:
            continue
        if strategies.setdefault(row.symbol, row.strategy) != row.strategy:
            raise TelemetryMixed(
                f"{row.symbol}: was traded by {strategies[row.symbol]} and {row.strategy}; choose one with strategy",
                symbol=row.symbol,
            )
        kept, key = by_symbol.setdefault(row.symbol, {}), int(row.values[0])
        before = kept.setdefault(key, row)
        if before is row:
            continue
        if before.event == TRADE_OPENED != row.event:
            kept[key] = row  # it was closed since
        else:
            duplicates += 1
    notes = list(found.notes)
    if duplicates:
        notes.append(f"{duplicates} records repeat one that was read already; the first one counts")
    symbols = {symbol: _columns(kept, fields) for symbol, kept in sorted(by_symbol.items())}
    beside = {symbol: _live(kept) for symbol, kept in sorted(by_symbol.items())} if live else {}
    return Telemetry(symbols, beside, duplicates, found.broken, tuple(notes))


def _when(row: Row) -> tuple[int | float, bool, int]:
    """By bar or entry, an opening before its closing, then by when it was decided; a tie keeps the files' order."""
    return row.values[0], row.event != TRADE_OPENED, row.live[2] if row.live else 0


def _columns(rows: dict[int, Row], fields: Mapping[str, str]) -> dict[str, np.ndarray]:
    columns = zip(*(row.values for row in rows.values()), strict=True)
    return {
        name: np.array(column, dtype=kind)
        for (name, kind), column in zip(fields.items(), columns, strict=True)
    }


def _live(rows: dict[int, Row]) -> dict[str, list[Any]]:
    columns = zip(*(row.live for row in rows.values()), strict=True)
    return {name: list(column) for name, column in zip(LIVE_FIELDS, columns, strict=True)}
