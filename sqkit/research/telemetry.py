"""Prediction files: the live record's fields as Parquet columns, one file a symbol and a run.

The backtest writes them, `AccuracyAnalyzer` reads them back. The digest of a file is that
of its canonical columns, so it does not move with a Parquet library's version. Parquet is
data; nothing here unpickles.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sqkit.errors import ArtifactChanged
from sqkit.files import canonical_json, sha256_columns, symbol_file_name, write_bytes
from sqkit.records import PREDICTION_FIELDS, TRADE_FIELDS, code_dictionary

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
    what = "-".join(word for word in (role, kind) if word not in ("candidate", "predictions"))
    return symbol_file_name(symbol, f"@{what}.parquet" if what else ".parquet")


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
