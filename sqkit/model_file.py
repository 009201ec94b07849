"""A model file as bytes: read once, refused with a reason, its metadata checked.

`student.py` loads models through here and `research/distil.py` writes the metadata whose
schema stands here. In: a path. Out: bytes that are ONNX, carry their own weights and are no
pickle; the digest of their graph; their metadata. Nothing here runs or unpickles anything.
"""

from __future__ import annotations

import datetime as dt
import io
import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sqkit.errors import (
    ExternalWeights,
    ModelFileInvalid,
    ModelFileMissing,
    ModelMetadataInvalid,
    ModelTooLarge,
    ModelTruncated,
    PickleRefused,
)
from sqkit.files import sha256_bytes

STUDENT_FILE: Final = "student_model.onnx"
METADATA_KEY: Final = "sqkit"
SCHEMA_VERSION: Final = 1
MODEL_TYPES: Final = ("logistic", "mlp", "gradient_boosting", "random_forest")
CLASS_ORDER: Final = ("DOWN", "UP")
VERSION_PATTERN: Final = r"^\d{8}_\d{6}$"
MAX_MODEL_BYTES: Final = 512 * 1024 * 1024

_WAY_OUT: Final = "train again with sqkit train-student, which writes ONNX"
_PICKLE_SUFFIXES: Final = (".pkl", ".pickle", ".joblib")
_COMPRESSED: Final = (
    b"\x1f\x8b",
    b"\x78\x01",
    b"\x78\x5e",
    b"\x78\x9c",
    b"\x78\xda",
    b"BZh",
    b"\xfd7zXZ",
    b"\x04\x22\x4d\x18",
)
_SMALL_PICKLE_BYTES: Final = 1 << 20  # a whole pickle of protocol 0 or 1 is parsed up to here

# The fields of ONNX's ModelProto: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
_IR_VERSION_FIELD: Final = 1
_GRAPH_FIELD: Final = 7
_METADATA_FIELD: Final = 14
_MODEL_FIELDS: Final = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26})

Text = Annotated[str, Field(min_length=1)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Date = Annotated[str, Field(pattern=r"^(19|20|21)\d{2}-\d{2}-\d{2}$")]


class TrainingWindow(BaseModel):
    """Session dates of the first and last training session, ends included."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    start: Date
    end: Date


class OutOfFold(BaseModel):
    """How it was checked that no soft label came from a teacher that had seen the row's answer."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    blocks: Annotated[int, Field(ge=2)]
    refitted_block: Annotated[int, Field(ge=0)]
    largest_difference: Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class StudentMetadata(BaseModel):
    """What a student's file says about itself; every key must be there and none beside them."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, protected_namespaces=())

    schema_version: Literal[1]
    model_version: Annotated[str, Field(pattern=VERSION_PATTERN)]
    created_by: str
    market: Text
    strategy: Literal["intraday", "swing"]
    interval: Literal["1d", "1m", "5m"]
    feature_set: Text
    feature_set_digest: Digest
    feature_names: Annotated[tuple[Text, ...], Field(min_length=1)]
    feature_ranges: tuple[tuple[Finite, Finite], ...]
    horizon_bars: Annotated[int, Field(ge=1)]
    dead_zone: Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
    class_order: tuple[Literal["DOWN", "UP"], Literal["DOWN", "UP"]]
    teacher_digest: Digest
    training_window: TrainingWindow
    last_label_end: Text
    training_base_rate: Annotated[float, Field(gt=0.0, lt=1.0, allow_inf_nan=False)]
    out_of_fold: OutOfFold
    symbols: Annotated[tuple[Text, ...], Field(min_length=1)]
    data_digest: Digest
    seed: Annotated[int, Field(ge=0)]
    model_type: Literal["logistic", "mlp", "gradient_boosting", "random_forest"]
    library_versions: dict[str, str]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.feature_ranges) != len(self.feature_names):
            raise ValueError("feature_ranges and feature_names differ in length")
        if set(self.class_order) != set(CLASS_ORDER):
            raise ValueError("class_order names one class twice")
        if any(low > high for low, high in self.feature_ranges):
            raise ValueError("a feature range ends before it begins")
        window = self.training_window
        if dt.date.fromisoformat(window.start) > dt.date.fromisoformat(window.end):
            raise ValueError("the training window ends before it begins")
        if not self.last_label_end.endswith("Z"):
            raise ValueError("last_label_end is not an instant in UTC")
        dt.datetime.fromisoformat(self.last_label_end)
        return self


def read_model_bytes(path: Path) -> bytes:
    """The whole file, read once; a pickle, a foreign file or a truncated one is refused.

    Raises
    ------
    ModelFileMissing
        There is no such file.
    PickleRefused
        A pickle by its name or by its content.
    ModelTruncated, ExternalWeights, ModelTooLarge
        Not a whole ONNX file, weights outside the file, or larger than 512 MB.
    ModelFileInvalid
        It cannot be read.
    """
    refuse_pickle_name(path)
    if path.is_dir():
        raise ModelFileMissing(f"{path}: is a folder; give the model file inside it", path=str(path))
    if not path.is_file():
        raise ModelFileMissing(f"{path}: no such model file; {_WAY_OUT}", path=str(path))
    try:
        if path.stat().st_size > MAX_MODEL_BYTES:
            raise _too_large(path)
        with open(path, "rb") as stream:
            data = stream.read(MAX_MODEL_BYTES + 1)
    except OSError as problem:
        raise ModelFileInvalid(
            f"{path}: cannot be read ({problem.strerror}); correct its rights", path=str(path)
        ) from None
    check_model_bytes(data, path)
    return data


def refuse_pickle_name(path: Path) -> None:
    """Refuse (PickleRefused) a file that is called like a pickle, whatever it holds."""
    if path.suffix.lower() in _PICKLE_SUFFIXES:
        raise PickleRefused(f"{path}: a pickle is never loaded; {_WAY_OUT}", path=str(path))


def check_model_bytes(data: bytes, path: Path) -> None:
    """Refuse bytes that are no self-contained ONNX model; `path` is for the message only."""
    if len(data) > MAX_MODEL_BYTES:
        raise _too_large(path)
    kind = _pickle_kind(data)
    if kind:
        raise PickleRefused(f"{path}: is {kind} and is never loaded; {_WAY_OUT}", path=str(path))
    try:
        graph = graph_bytes(data)
    except ValueError as problem:
        raise ModelTruncated(
            f"{path}: not a whole ONNX file ({problem}); copy it again or {_WAY_OUT}", path=str(path)
        ) from None
    # A tensor kept in another file names it under the key "location"; without that word there is none.
    if b"location" in graph:
        raise ExternalWeights(
            f"{path}: keeps weights in another file, which no digest covers; {_WAY_OUT}", path=str(path)
        )


def graph_bytes(data: bytes) -> bytes:
    """The file without its metadata properties: what two exports of one model have in common.

    Raises
    ------
    ValueError
        The bytes are no ONNX ``ModelProto``.
    """
    kept, seen = [], set()
    for field, start, stop in _fields(data):
        seen.add(field)
        if field not in _MODEL_FIELDS:
            raise ValueError(f"unknown field {field}")
        if field != _METADATA_FIELD:
            kept.append(data[start:stop])
    if not {_IR_VERSION_FIELD, _GRAPH_FIELD} <= seen:
        raise ValueError("it holds no graph")
    return b"".join(kept)


def graph_digest(data: bytes) -> str:
    """SHA-256 of the file without its metadata properties."""
    return sha256_bytes(graph_bytes(data))


def parse_metadata(text: str | None, path: Path) -> dict[str, Any]:
    """Metadata as plain values, after its schema was checked.

    Raises
    ------
    ModelMetadataInvalid
        There is none, or a key is missing, unknown or of the wrong type.
    """
    if text is None:
        raise ModelMetadataInvalid(
            f"{path}: ONNX without sqkit's metadata; {_WAY_OUT} and metadata", path=str(path)
        )
    try:
        return StudentMetadata.model_validate_json(text).model_dump(mode="json")
    except ValidationError as problem:
        first = problem.errors(include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "metadata"
        raise ModelMetadataInvalid(
            f"{path}: metadata is broken at {where} ({first['msg']}); {_WAY_OUT}", path=str(path), key=where
        ) from None


def model_age_days(version: str, now: dt.datetime) -> float:
    """Days from a model's version tag, a time in UTC, to `now`; negative where the tag lies ahead.

    Raises
    ------
    ModelMetadataInvalid
        The tag has the form of a time but is none.
    """
    try:
        made = dt.datetime.strptime(version, "%Y%m%d_%H%M%S").replace(tzinfo=dt.UTC)
    except ValueError:
        raise ModelMetadataInvalid(
            f"model version {version}: no date and time YYYYMMDD_HHMMSS; {_WAY_OUT}", version=version
        ) from None
    return (now - made).total_seconds() / 86_400


def _too_large(path: Path) -> ModelTooLarge:
    return ModelTooLarge(
        f"{path}: larger than {MAX_MODEL_BYTES >> 20} MB, no student is that large; {_WAY_OUT}",
        path=str(path),
    )


def _pickle_kind(data: bytes) -> str:
    if len(data) > 1 and data[0] == 0x80 and data[1] <= 5:
        return "a pickle"
    if data.startswith(_COMPRESSED):
        return "a compressed pickle"
    if data.startswith(b"PK") and _zip_holds_pickle(data):
        return "an archive with a pickle inside"
    if data.endswith(b".") and len(data) <= _SMALL_PICKLE_BYTES and _parses_as_pickle(data):
        return "a pickle"
    return ""


def _zip_holds_pickle(data: bytes) -> bool:
    try:
        names = zipfile.ZipFile(io.BytesIO(data)).namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return False
    return any(name.lower().endswith(_PICKLE_SUFFIXES) for name in names)


def _parses_as_pickle(data: bytes) -> bool:
    try:
        for _ in pickletools.genops(data):  # names the opcodes; runs none of them
            pass
    except Exception:  # noqa: BLE001 - anything at all means that it is not one
        return False
    return True


def _fields(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Field number, start and stop of every top-level field of a protobuf message."""
    position = 0
    while position < len(data):
        start = position
        tag, position = _varint(data, position)
        wire = tag & 7
        if wire == 0:
            _, position = _varint(data, position)
        elif wire == 1:
            position += 8
        elif wire == 2:
            length, position = _varint(data, position)
            position += length
        elif wire == 5:
            position += 4
        else:
            raise ValueError("not a protobuf message")
        if position > len(data):
            raise ValueError("it ends too early")
        yield tag >> 3, start, position


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for count in range(10):
        if position + count >= len(data):
            raise ValueError("it ends too early")
        byte = data[position + count]
        value |= (byte & 0x7F) << (7 * count)
        if not byte & 0x80:
            return value, position + count + 1
    raise ValueError("not a protobuf message")
