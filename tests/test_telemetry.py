"""Prediction and trade files: what is written comes back, and nothing else is believed."""

from __future__ import annotations

import ast
import inspect
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sqkit import records
from sqkit.errors import ArtifactChanged, UsageError
from sqkit.files import sha256_columns
from sqkit.records import PREDICTION_FIELDS, TRADE_FIELDS, decode
from sqkit.research import telemetry
from sqkit.research.telemetry import METADATA_KEY, RecordFile, read_records, write_predictions, write_trades

DAY = 15_000  # 2011-01-26


def predictions(rows: int = 6) -> dict[str, np.ndarray]:
    """Columns with every direction, a silent row, and numbers that have no short decimal form."""
    number = np.arange(rows)
    probability = 1.0 / (3.0 + number)
    probability[0] = np.nan
    return {
        "bar_time": (DAY + number) * 86_400 * 10**9,
        "session_date": DAY + number,
        "student_prediction": number % 3 - 1,
        "student_probability_up": probability,
        "student_confidence": np.maximum(probability, 1.0 - probability),
        "reason": np.where(number == 0, 1, 0),
        "prediction_source": number % 2,
        "baseline_direction": (number + 1) % 3 - 1,
        "baseline_strength": number / 7.0,
        "strength": number / 9.0,
        "target": -number / 11.0,
        "outcome": np.where(number == rows - 1, records.UNKNOWN, number % 3 - 1),
    }


def trades() -> dict[str, np.ndarray]:
    """One closed trade and one that is open."""
    return {
        "entry_time": np.array([DAY, DAY + 3]) * 86_400 * 10**9,
        "exit_time": np.array([(DAY + 2) * 86_400 * 10**9, 0]),
        "entry_session_date": np.array([DAY, DAY + 3]),
        "exit_session_date": np.array([DAY + 2, 0]),
        "direction": np.array([1, -1]),
        "quantity": np.array([100, 7]),
        "entry_price": np.array([10.1, 11.3]),
        "exit_price": np.array([10.7, np.nan]),
        "fees": np.array([0.3, 0.1]),
        "net_pnl": np.array([59.7, -2.0]),
        "exit_reason": np.array([1, 0]),
        "entry_strength": np.array([0.9, 0.5]),
        "student_at_entry": np.array([0, -1]),
    }


def record(columns: dict[str, np.ndarray] | None = None, **changes: str) -> RecordFile:
    """A candidate's predictions."""
    about = {"symbol": "AAA", "role": "candidate", "version": "20250112_143000"} | changes
    return RecordFile(**about, columns=predictions() if columns is None else columns)


def path_of(folder: Path, entry: dict[str, Any]) -> Path:
    """Where the file of an entry lies."""
    return folder / entry["file"]


class TestRoundTrip:
    """What is written comes back."""

    @pytest.mark.parametrize(
        ("write", "columns", "fields"),
        [(write_predictions, predictions(), PREDICTION_FIELDS), (write_trades, trades(), TRADE_FIELDS)],
        ids=["predictions", "trades"],
    )
    def test_columns_come_back(
        self, tmp_path: Path, write: Any, columns: dict[str, np.ndarray], fields: dict[str, str]
    ) -> None:
        """Names, order, types and every bit are those of `records`; the entry tells file, rows and digest."""
        entry = write(tmp_path, record(columns))
        stored = read_records(path_of(tmp_path, entry), expected_digest=entry["digest"])
        assert (stored.symbol, stored.role, stored.version) == ("AAA", "candidate", "20250112_143000")
        assert {name: column.dtype.name for name, column in stored.columns.items()} == fields
        for name, column in columns.items():
            np.testing.assert_array_equal(stored.columns[name], column)
        assert entry["rows"] == len(next(iter(columns.values())))
        assert (entry["symbol"], entry["role"]) == ("AAA", "candidate")
        assert stored.digest() == entry["digest"]

    def test_no_rows(self, tmp_path: Path) -> None:
        """A symbol without a trade has a file without rows, and it reads back."""
        empty = {name: column[:0] for name, column in trades().items()}
        entry = write_trades(tmp_path, record(empty))
        assert entry["rows"] == 0
        assert len(read_records(path_of(tmp_path, entry)).columns["fees"]) == 0

    @pytest.mark.parametrize("symbol", ["M&M", "BAJAJ-AUTO", "^NSEI", "BRK.B", "ES=F"])
    def test_symbols_as_the_exchange_writes_them(self, tmp_path: Path, symbol: str) -> None:
        """Symbols with &, -, ^, . and = keep their name in file name, entry and metadata."""
        entries = [
            write(tmp_path, record(columns, symbol=symbol, role=role))
            for role in ("candidate", "baseline")
            for write, columns in ((write_predictions, predictions()), (write_trades, trades()))
        ]
        assert len({entry["file"] for entry in entries}) == 4
        assert all(entry["file"].startswith(symbol) for entry in entries)
        for entry in entries:
            stored = read_records(path_of(tmp_path, entry), expected_digest=entry["digest"])
            assert (stored.symbol, stored.role) == (symbol, entry["role"])

    @pytest.mark.parametrize("symbol", ["../AAA", "A/B", "", "A B", ".AAA"])
    def test_a_symbol_that_could_leave_its_folder(self, tmp_path: Path, symbol: str) -> None:
        """A symbol that is no plain file name is refused, and nothing is written."""
        with pytest.raises(UsageError):
            write_predictions(tmp_path / "inside", record(symbol=symbol))
        assert not list(tmp_path.rglob("*.parquet"))

    def test_no_two_files_share_a_name(self, tmp_path: Path) -> None:
        """Role and kind are part of the name, so one symbol has four files."""
        names = {
            write(tmp_path, record(columns, role=role))["file"]
            for role in ("candidate", "baseline")
            for write, columns in ((write_predictions, predictions()), (write_trades, trades()))
        }
        assert names == {
            "AAA.parquet",
            "AAA@trades.parquet",
            "AAA@baseline.parquet",
            "AAA@baseline-trades.parquet",
        }


class TestDigest:
    """The digest is that of the columns."""

    def test_it_does_not_depend_on_the_file(self, tmp_path: Path) -> None:
        """Another compression or row group size gives other bytes and the same digest."""
        entry = write_predictions(tmp_path, record())
        path = path_of(tmp_path, entry)
        before = path.read_bytes()
        pq.write_table(pq.read_table(path), path, compression="snappy", row_group_size=2)
        assert path.read_bytes() != before
        assert read_records(path, expected_digest=entry["digest"]).digest() == entry["digest"]

    def test_the_same_records_give_the_same_bytes(self, tmp_path: Path) -> None:
        """Written twice, a file is the same to the byte."""
        paths = [path_of(tmp_path / name, write_predictions(tmp_path / name, record())) for name in "ab"]
        assert paths[0].read_bytes() == paths[1].read_bytes()

    def test_it_is_that_of_the_canonical_columns(self, tmp_path: Path) -> None:
        """The digest is `sha256_columns` of the columns as given, whatever integer type they come in."""
        assert write_predictions(tmp_path, record())["digest"] == sha256_columns(**predictions())

    @pytest.mark.parametrize("name", list(PREDICTION_FIELDS))
    def test_every_column_counts(self, tmp_path: Path, name: str) -> None:
        """One value changed in any column is another digest."""
        columns = predictions()
        columns[name] = columns[name].copy()
        columns[name][2] += 1
        entries = [write_predictions(tmp_path, record(given)) for given in (predictions(), columns)]
        assert entries[0]["digest"] != entries[1]["digest"]


class TestDecoding:
    """Codes and words."""

    def test_schema_metadata_explains_the_codes(self, tmp_path: Path) -> None:
        """The file carries symbol, role, version and the dictionary of every coded column: a reader needs no sqkit."""
        for write, columns, coded in (
            (
                write_predictions,
                predictions(),
                {"student_prediction", "baseline_direction", "reason", "prediction_source", "outcome"},
            ),
            (write_trades, trades(), {"direction", "student_at_entry", "exit_reason"}),
        ):
            path = path_of(tmp_path, write(tmp_path, record(columns)))
            about = json.loads(pq.read_schema(path).metadata[METADATA_KEY])
            assert about["symbol"] == "AAA"
            assert about["student_model_version"] == "20250112_143000"
            assert set(about["codes"]) == coded
            table = pq.read_table(path)
            for name in coded:
                words = [about["codes"][name][str(code)] for code in table[name].to_pylist()]
                assert words == [decode({name: code})[name] for code in table[name].to_pylist()]

    def test_one_decoder_for_both_forms(self, tmp_path: Path) -> None:
        """A row of the file and the same row as a live line of words decode to the same record."""
        stored = read_records(path_of(tmp_path, write_predictions(tmp_path, record())))
        for row in range(6):
            coded = {name: column[row].item() for name, column in stored.columns.items()}
            words = decode(coded)
            assert decode(json.loads(json.dumps(words))) == words
            assert words["session_date"] == np.datetime64(DAY + row, "D").astype(str)
            assert words["student_prediction"] == ("SHORT", "FLAT", "LONG")[row % 3]
            assert words["prediction_source"] == ("baseline_strategy", "student_model")[row % 2]
        first = decode({name: column[0].item() for name, column in stored.columns.items()})
        assert first["reason"] == "warm_up"
        assert first["student_probability_up"] is None

    def test_the_given_fields_are_there(self) -> None:
        """The telemetry fields of the user's text are in the record: version in the metadata, three as columns."""
        assert {"student_prediction", "student_confidence", "prediction_source"} <= set(PREDICTION_FIELDS)


class TestRefusals:
    """A file that is not what was written is not read."""

    def test_missing(self, tmp_path: Path) -> None:
        """A missing file is refused by name."""
        with pytest.raises(ArtifactChanged, match=r"AAA\.parquet: is missing"):
            read_records(tmp_path / "AAA.parquet")

    def test_changed(self, tmp_path: Path) -> None:
        """A file with one other value does not match the recorded digest."""
        entry = write_predictions(tmp_path, record())
        columns = predictions()
        columns["outcome"] = np.where(np.arange(6) == 3, 1, columns["outcome"])
        write_predictions(tmp_path, record(columns))
        with pytest.raises(ArtifactChanged, match="differ from the digest"):
            read_records(path_of(tmp_path, entry), expected_digest=entry["digest"])

    @pytest.mark.parametrize("change", ["dropped row", "dropped column", "added column", "reordered rows"])
    def test_changed_shape(self, tmp_path: Path, change: str) -> None:
        """Rows or columns that went, came or moved change the digest."""
        entry = write_predictions(tmp_path, record())
        path = path_of(tmp_path, entry)
        table = pq.read_table(path)
        changed = {
            "dropped row": lambda: table.slice(1),
            "dropped column": lambda: table.drop_columns(["strength"]),
            "added column": lambda: table.append_column("extra", pa.array(np.zeros(len(table)))),
            "reordered rows": lambda: table.take(pa.array([1, 0, 2, 3, 4, 5])),
        }[change]()
        pq.write_table(changed, path)
        with pytest.raises(ArtifactChanged, match="differ from the digest"):
            read_records(path, expected_digest=entry["digest"])

    @pytest.mark.parametrize(
        "about",
        [None, b"not json", b"[1]", b"{}", b'{"symbol": "AAA"}'],
        ids=["none", "no JSON", "a list", "empty", "half"],
    )
    def test_foreign_parquet(self, tmp_path: Path, about: bytes | None) -> None:
        """Parquet without sqkit's metadata, or with broken metadata, is refused in one line."""
        path = tmp_path / "AAA.parquet"
        table = pa.table({"close": [1.0, 2.0]})
        pq.write_table(table.replace_schema_metadata({METADATA_KEY: about} if about else None), path)
        with pytest.raises(ArtifactChanged, match="cannot be read as sqkit records") as refusal:
            read_records(path)
        assert "\n" not in refusal.value.message

    def test_columns_without_a_canonical_form(self, tmp_path: Path) -> None:
        """Sqkit's metadata over columns of text is refused too."""
        entry = write_predictions(tmp_path, record())
        path = path_of(tmp_path, entry)
        metadata = pq.read_schema(path).metadata
        pq.write_table(pa.table({"reason": ["scored"]}).replace_schema_metadata(metadata), path)
        with pytest.raises(ArtifactChanged, match="cannot be read as sqkit records"):
            read_records(path, expected_digest=entry["digest"])

    @pytest.mark.parametrize("damage", ["truncated", "empty", "overwritten"])
    def test_damaged(self, tmp_path: Path, damage: str) -> None:
        """A truncated, empty or overwritten file is refused in one line."""
        path = path_of(tmp_path, write_predictions(tmp_path, record()))
        data = path.read_bytes()
        path.write_bytes({"truncated": data[:-100], "empty": b"", "overwritten": b"\0" * len(data)}[damage])
        with pytest.raises(ArtifactChanged, match="cannot be read as sqkit records") as refusal:
            read_records(path)
        assert "\n" not in refusal.value.message

    def test_a_pickle_is_never_run(self, tmp_path: Path) -> None:
        """A pickle under a Parquet file's name is refused and its code does not run."""
        path, trace = tmp_path / "AAA.parquet", tmp_path / "ran"
        path.write_bytes(pickle.dumps(_Trap(str(trace))))
        with pytest.raises(ArtifactChanged):
            read_records(path)
        assert not trace.exists()

    def test_nothing_here_unpickles(self) -> None:
        """The module imports no pickle and asks numpy for none."""
        tree = ast.parse(inspect.getsource(telemetry))
        imported = {
            alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
        } | {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not imported & {"pickle", "joblib", "dill", "cloudpickle", "shelve"}
        assert "allow_pickle" not in inspect.getsource(telemetry)


class _Trap:
    """Pickled, it creates a file when it is loaded."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (self.path, "w"))
