"""A model file is refused with its reason unless it is whole, self-contained and described."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from sqkit.errors import ModelFileInvalid, ModelFileMissing, ModelMetadataInvalid, PickleRefused
from sqkit.model_file import MAX_MODEL_BYTES, parse_metadata, read_model_bytes
from sqkit.student import StudentModel
from tests.small_student import small_metadata, small_student, write_student


class Hostile:
    """Unpickling this creates the canary file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.canary),))


def zipped(data: bytes) -> bytes:
    """The archive that torch.save makes around a pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", data)
    return buffer.getvalue()


WRAPPERS = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "zlib": zlib.compress,
    "zlib fast": lambda data: zlib.compress(data, 1),
    "bz2": bz2.compress,
    "lzma": lzma.compress,
    "archive": zipped,
}


class TestPickles:
    @pytest.mark.parametrize("protocol", range(6))
    @pytest.mark.parametrize("wrapper", WRAPPERS)
    def test_a_hostile_pickle_named_onnx_runs_nothing(
        self, tmp_path: Path, protocol: int, wrapper: str
    ) -> None:
        """Whatever its protocol and wrapping, a pickle is named as one, and its code does not run."""
        canary = tmp_path / "canary"
        data = WRAPPERS[wrapper](pickle.dumps(Hostile(canary), protocol=protocol))
        path = tmp_path / "student_model.onnx"
        path.write_bytes(data)
        with pytest.raises(PickleRefused, match="sqkit train-student"):
            StudentModel.load(path)
        assert not canary.exists()
        pickle.loads(pickle.dumps(Hostile(canary), protocol=protocol))
        assert canary.exists()  # the canary works

    @pytest.mark.parametrize("name", ["m.pkl", "m.PKL", "m.pickle", "m.joblib"])
    def test_a_pickle_by_name_is_refused_unread(self, tmp_path: Path, name: str) -> None:
        """The name alone suffices: even a good model under it, or no file at all."""
        with pytest.raises(PickleRefused, match="sqkit train-student"):
            read_model_bytes(tmp_path / name)
        (tmp_path / name).write_bytes(small_student())
        with pytest.raises(PickleRefused, match="sqkit train-student"):
            read_model_bytes(tmp_path / name)


class TestBytes:
    @pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.99])
    def test_a_truncated_file(self, tmp_path: Path, share: float) -> None:
        """A file cut anywhere is refused, in one line that names it."""
        whole = small_student()
        path = tmp_path / "cut.onnx"
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(ModelFileInvalid, match=r"cut\.onnx") as refusal:
            StudentModel.load(path)
        assert "\n" not in str(refusal.value)

    @pytest.mark.parametrize(
        "data", [b"hello world\n", b'{"a": 1}', b"\x00" * 100, b"PK\x03\x04rest", b"\x08\x08"]
    )
    def test_something_else(self, tmp_path: Path, data: bytes) -> None:
        """Text, JSON, zeros, an archive, a message without a graph: none is ONNX."""
        path = tmp_path / "other.onnx"
        path.write_bytes(data)
        with pytest.raises(ModelFileInvalid, match="not a whole ONNX file"):
            StudentModel.load(path)

    def test_weights_in_another_file(self, tmp_path: Path) -> None:
        """A model that keeps weights beside itself is refused even while that file is there."""
        path = tmp_path / "outside.onnx"
        model = onnx.load_model_from_string(small_student())
        onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
        assert (tmp_path / "weights.bin").exists()
        with pytest.raises(ModelFileInvalid, match="another file"):
            StudentModel.load(path)

    def test_an_enormous_file(self, tmp_path: Path) -> None:
        """A file above the limit is refused before it is read."""
        path = tmp_path / "huge.onnx"
        with open(path, "wb") as stream:
            stream.truncate(MAX_MODEL_BYTES + 1)
        with pytest.raises(ModelFileInvalid, match="larger than 512 MB"):
            read_model_bytes(path)

    def test_no_file_or_a_folder(self, tmp_path: Path) -> None:
        """A missing file and a folder are told apart from a bad file."""
        with pytest.raises(ModelFileMissing, match="no such model file"):
            read_model_bytes(tmp_path / "none.onnx")
        with pytest.raises(ModelFileMissing, match="is a folder"):
            read_model_bytes(tmp_path)

    def test_a_graph_that_is_no_student(self, tmp_path: Path) -> None:
        """Whole metadata on a graph with another input is refused."""
        model = onnx.load_model_from_string(small_student())
        model.graph.input[0].name = "other"
        model.graph.node[0].input[0] = "other"
        path = tmp_path / "other.onnx"
        path.write_bytes(model.SerializeToString())
        with pytest.raises(ModelFileInvalid, match="is no student"):
            StudentModel.load(path)


BROKEN: dict[str, Any] = {
    "schema_version": 2,
    "model_version": "v1",
    "created_by": 3,
    "market": "",
    "strategy": "scalping",
    "interval": "2h",
    "feature_set": 5,
    "feature_set_digest": "abc",
    "feature_names": "close",
    "feature_ranges": [[1.0, 0.0]],
    "horizon_bars": 0,
    "dead_zone": "half",
    "class_order": ["UP", "UP"],
    "teacher_digest": None,
    "training_window": {"start": "2010-01-02", "end": "2009-12-31"},
    "last_label_end": "2009-12-31",
    "training_base_rate": 1.0,
    "out_of_fold": {"blocks": 5, "refitted_block": 0},
    "symbols": [],
    "data_digest": 1,
    "seed": 1.5,
    "model_type": "oracle",
    "library_versions": ["numpy"],
}


class TestMetadata:
    def test_whole_metadata_is_read_back(self, tmp_path: Path) -> None:
        """What was written is what is read."""
        assert StudentModel.load(write_student(tmp_path)).metadata == small_metadata()

    def test_every_key_is_checked(self) -> None:
        """The table of broken values below covers every key there is."""
        assert set(BROKEN) == set(small_metadata())

    @pytest.mark.parametrize("key", BROKEN)
    def test_a_missing_key(self, tmp_path: Path, key: str) -> None:
        """Each key must be there."""
        with pytest.raises(ModelMetadataInvalid, match=key):
            StudentModel.load(write_student(tmp_path, **{key: ...}))

    @pytest.mark.parametrize("key", BROKEN)
    def test_a_wrong_value(self, tmp_path: Path, key: str) -> None:
        """Each key has a type and a meaning, and a value without them is refused in one line."""
        with pytest.raises(ModelMetadataInvalid) as refusal:
            StudentModel.load(write_student(tmp_path, **{key: BROKEN[key]}))
        assert "\n" not in str(refusal.value)

    def test_an_unknown_key(self, tmp_path: Path) -> None:
        """A key this version does not know is refused rather than ignored."""
        with pytest.raises(ModelMetadataInvalid, match="surprise"):
            StudentModel.load(write_student(tmp_path, surprise=1))

    @pytest.mark.parametrize(
        "text", [None, "", "[]", "{", json.dumps(small_metadata()).replace("0.5", "NaN")]
    )
    def test_no_metadata_at_all(self, text: str | None) -> None:
        """ONNX of foreign origin, broken JSON and NaN are refused."""
        with pytest.raises(ModelMetadataInvalid):
            parse_metadata(text, Path("m.onnx"))

    def test_ranges_are_numbers(self, tmp_path: Path) -> None:
        """An infinite training range would switch the abstention off; it is refused."""
        text = json.dumps(small_metadata()).replace("3.0", "Infinity")
        with pytest.raises(ModelMetadataInvalid):
            parse_metadata(text, Path("m.onnx"))
        assert np.isfinite(small_metadata()["feature_ranges"]).all()
