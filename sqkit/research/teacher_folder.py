"""A teacher's folder: written whole in one rename, read back only as it was written.

`teacher.py` publishes here, `distil.py` and the commands read. In and out: the bytes of
``teacher_model.onnx``, ``metadata.json`` and the columns of ``soft_labels.parquet``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sqkit.errors import ArtifactChanged, ConflictError, UsageError
from sqkit.files import (
    output_errors,
    publish,
    read_json,
    sha256_columns,
    sha256_file,
    write_bytes,
    write_json,
)

MODEL_FILE: Final = "teacher_model.onnx"
METADATA_FILE: Final = "metadata.json"
SOFT_LABELS_FILE: Final = "soft_labels.parquet"

_SOFT_LABEL_COLUMNS: Final = (
    "symbol_index",
    "bar_time",
    "session_date",
    "outcome",
    "block",
    "soft_label",
    "comparison_soft_label",
)


@dataclass(frozen=True)
class StoredTeacher:
    """A teacher's folder, verified.

    Attributes
    ----------
    metadata
        Content of ``metadata.json``.
    soft_labels
        Columns of ``soft_labels.parquet``, each (n,): ``symbol_index`` into the metadata's
        symbols, ``bar_time`` (int64 ns), ``session_date``, ``outcome``, ``block``,
        ``soft_label`` (P(up), out of fold over five blocks), ``comparison_soft_label``
        (out of fold within the first four blocks; NaN in the last one and where purged).
    """

    metadata: dict[str, Any]
    soft_labels: dict[str, np.ndarray]


def read_teacher(teacher_dir: Path) -> StoredTeacher:
    """A teacher's folder, with both digests verified.

    Raises
    ------
    UsageError
        There is no teacher.
    ArtifactChanged
        A file is missing or differs from its digest.
    """
    if not (teacher_dir / METADATA_FILE).is_file():
        raise UsageError(
            f"{teacher_dir}: no teacher here ({METADATA_FILE} is missing); train one with sqkit train-teacher",
            path=str(teacher_dir),
        )
    metadata = read_json(teacher_dir / METADATA_FILE)
    wanted = {"symbols", "teacher_digest", "soft_labels_digest", "data_digests", "training_window"}
    wanted |= {"bars_location", "horizon_bars", "interval", "last_label_end", "market", "seed", "strategy"}
    if not isinstance(metadata, dict) or not wanted <= set(metadata):
        raise _changed(teacher_dir / METADATA_FILE, "is not a teacher's metadata")
    model_path = teacher_dir / MODEL_FILE
    if not model_path.is_file() or sha256_file(model_path) != metadata["teacher_digest"]:
        raise _changed(model_path, "is missing or differs from its digest")
    soft_labels = _read_soft_labels(teacher_dir / SOFT_LABELS_FILE, metadata["symbols"])
    if sha256_columns(**soft_labels) != metadata["soft_labels_digest"]:
        raise _changed(teacher_dir / SOFT_LABELS_FILE, "differs from its digest")
    return StoredTeacher(metadata, soft_labels)


def refuse_other_teacher(output_dir: Path, request: dict[str, Any]) -> None:
    """Before long training: a folder with anything but this very teacher in it is left alone.

    Parameters
    ----------
    request
        What is known of the metadata before training.

    Raises
    ------
    ConflictError
        Another teacher, or other files, are there.
    """
    if not output_dir.exists() or (output_dir.is_dir() and not any(output_dir.iterdir())):
        return
    if (output_dir / METADATA_FILE).is_file():
        stored = read_json(output_dir / METADATA_FILE)
        if isinstance(stored, dict) and all(stored.get(key) == value for key, value in request.items()):
            return
    raise _conflict(output_dir)


def publish_teacher(
    staging: Path,
    output_dir: Path,
    data: bytes,
    metadata: dict[str, Any],
    soft_labels: dict[str, np.ndarray],
) -> None:
    """Write the three files into `staging` and rename them, together, to `output_dir`.

    The same teacher may be there already and is then only verified.

    Raises
    ------
    ConflictError
        Another teacher is there.
    ArtifactChanged
        The same teacher is there, and is not whole.
    OutputError
        The folder cannot be written.
    """
    if (output_dir / METADATA_FILE).is_file():
        if read_json(output_dir / METADATA_FILE) != metadata:
            raise _conflict(output_dir)
        read_teacher(output_dir)  # the same teacher is here already: only prove that it is whole
        return
    folder = staging / output_dir.name
    write_bytes(folder / MODEL_FILE, data)
    write_json(folder / METADATA_FILE, metadata)
    _write_soft_labels(folder / SOFT_LABELS_FILE, metadata["symbols"], soft_labels)
    publish(folder, output_dir)


def _conflict(output_dir: Path) -> ConflictError:
    return ConflictError(
        f"{output_dir}: holds another teacher or other files; choose another folder or version tag",
        path=str(output_dir),
    )


def _write_soft_labels(path: Path, symbols: list[str], columns: dict[str, np.ndarray]) -> None:
    names = pa.DictionaryArray.from_arrays(pa.array(columns["symbol_index"]), pa.array(symbols))
    arrays = {"symbol": names} | {name: pa.array(columns[name]) for name in _SOFT_LABEL_COLUMNS[1:]}
    with output_errors(path):
        pq.write_table(pa.table(arrays), path, compression="zstd")


def _read_soft_labels(path: Path, symbols: list[str]) -> dict[str, np.ndarray]:
    try:
        table = pq.read_table(path)
        number = {symbol: index for index, symbol in enumerate(symbols)}
        names = table.column("symbol").to_pylist()
        columns = {"symbol_index": np.array([number[name] for name in names], dtype=np.int32)}
        for name in _SOFT_LABEL_COLUMNS[1:]:
            columns[name] = table.column(name).to_numpy()
    except (OSError, pa.ArrowException, KeyError) as problem:
        raise _changed(path, f"cannot be read ({type(problem).__name__})") from None
    return columns


def _changed(path: Path, what: str) -> ArtifactChanged:
    return ArtifactChanged(f"{path}: {what}; train the teacher again", path=str(path))
