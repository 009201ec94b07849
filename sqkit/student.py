"""The student: one ONNX file, loaded, verified, and asked about bars.

The backtest calls `StudentModel.score_rows` with a matrix, the live engine `RowScorer` with one
row: the compiled decision of `sqkit.scoring` and one graph, so the same bits. In: features as float64.
Out: probability, confidence, direction and the reason for every silence. Only onnxruntime reads the file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime

from sqkit.errors import FeatureSetError, FeatureSetMismatch, ModelFileInvalid, UsageError
from sqkit.features import FeatureSet, get_feature_set
from sqkit.files import sha256_bytes, sha256_json
from sqkit.model_file import METADATA_KEY, graph_digest, parse_metadata, read_model_bytes
from sqkit.records import FLAT, REASON_CODES
from sqkit.scoring import NO_PROBABILITY, call, call_one, screen, screen_row

INPUT_NAME: Final = "features"
OUTPUT_NAME: Final = "probabilities"
BLOCK_ROWS: Final = 65_536

_SCORED: Final = REASON_CODES["scored"]
_LOW_CONFIDENCE: Final = REASON_CODES["low_confidence"]
_WARM_UP: Final = REASON_CODES["warm_up"]


@dataclass(frozen=True)
class Scores:
    """What the student said about each row.

    Attributes
    ----------
    probability_up
        float64 (n,), P(up | decisive move); NaN where the row was not scored.
    confidence
        float64 (n,), ``max(p, 1 - p)`` in [0.5, 1]; NaN where the row was not scored.
    direction
        int8 (n,), LONG, SHORT or FLAT.
    reason
        int8 (n,), `sqkit.records.REASONS`; 0 where the student spoke.
    """

    probability_up: np.ndarray
    confidence: np.ndarray
    direction: np.ndarray
    reason: np.ndarray


class StudentModel:
    """A verified student; made by `StudentModel.load`.

    Attributes
    ----------
    path
        The file it was read from.
    metadata
        What the file says about itself; keys as in `sqkit.model_file.StudentMetadata`.
    version
        Version tag ``YYYYMMDD_HHMMSS``.
    feature_set
        The set it scores, of the same digest as at training.
    digest
        SHA-256 of exactly the bytes that score.
    """

    def __init__(self, data: bytes, path: Path) -> None:
        session = open_session(data, path)
        properties: dict[str, str] = session.get_modelmeta().custom_metadata_map
        self.path = path
        self.digest = sha256_bytes(data)
        self.metadata: dict[str, Any] = parse_metadata(properties.get(METADATA_KEY), path)
        self.version: str = self.metadata["model_version"]
        self.feature_set = _require_feature_set(self.metadata, path)
        self._graph_digest = graph_digest(data)
        self._session = session
        self._column = self.metadata["class_order"].index("UP")
        ranges = np.array(self.metadata["feature_ranges"], dtype=np.float32)
        self._lowest, self._highest = ranges[:, 0].copy(), ranges[:, 1].copy()
        self._require_scores(path)

    @classmethod
    def load(cls, path: str | Path) -> StudentModel:
        """Read, verify and open a model file.

        Raises
        ------
        ModelFileMissing, PickleRefused, ModelFileInvalid
            There is no file, it is a pickle, or it is no usable ONNX model.
        ModelMetadataInvalid
            It carries no metadata of sqkit's, or broken metadata.
        FeatureSetUnknown, FeatureSetMismatch
            Its feature set is not registered here, or has another definition here.
        """
        return cls(read_model_bytes(Path(path)), Path(path))

    def behaviour_digest(self, threshold: float) -> str:
        """Identifies a trial: the same digest means the same answers, whatever the version tag.

        Over the graph, the class order, the feature set, the training ranges (outside them the
        model abstains) and the confidence threshold; not over version, author and time.
        """
        return sha256_json(
            {
                "graph": self._graph_digest,
                "class_order": self.metadata["class_order"],
                "feature_set_digest": self.metadata["feature_set_digest"],
                "feature_ranges": self.metadata["feature_ranges"],
                "threshold": float(threshold),
            }
        )

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """P(up | decisive move) of each row, computed in float32.

        Parameters
        ----------
        features
            Finite floats (n, k), columns as `feature_set.columns`.

        Returns
        -------
        np.ndarray
            float64 (n,) in [0, 1]; a row has the same bits alone and in any batch.

        Raises
        ------
        UsageError
            The number of columns is not the feature set's.
        ModelFileInvalid
            The model answered with something that is no probability.
        """
        return self._ask(self._as_rows(features))

    def score_rows(self, features: np.ndarray, threshold: float, *, warm_up_rows: int = 0) -> Scores:
        """What the student says about each row, and why it says nothing where it does not.

        LONG when ``p >= threshold``, else SHORT when ``1 - p >= threshold``, else FLAT with
        reason ``low_confidence``. A row with a feature that is not finite, or outside the range
        seen in training, is not scored.

        Parameters
        ----------
        features
            Floats (n, k), columns as `feature_set.columns`; NaN while the set warms up.
        threshold
            Confidence from which a direction is named, at least 0.5 and below 1.
        warm_up_rows
            How many rows at the start belong to the warm-up: their reason is ``warm_up``.

        Raises
        ------
        UsageError
            A threshold outside [0.5, 1), or a wrong number of columns.
        """
        require_threshold(threshold)
        self._require_columns(features)
        wide = np.ascontiguousarray(features, dtype=np.float64)
        narrow = np.empty(wide.shape, dtype=np.float32)
        reason = np.empty(len(wide), dtype=np.int8)
        screen()(wide, self._lowest, self._highest, narrow, reason)
        reason[:warm_up_rows] = _WARM_UP
        usable = reason == _SCORED
        if usable.all():
            probability = self._ask(narrow)
        else:
            probability = np.full(len(wide), np.nan)
            probability[usable] = self._ask(narrow[usable])
        direction = np.empty(len(wide), dtype=np.int8)
        call()(probability, threshold, direction, reason)
        return Scores(probability, np.maximum(probability, 1.0 - probability), direction, reason)

    def row_scorer(self, threshold: float) -> RowScorer:
        """The same, one row at a time and without a matrix being made: for an engine.

        Raises
        ------
        UsageError
            A threshold outside [0.5, 1).
        """
        require_threshold(threshold)
        return RowScorer(self, threshold)

    def _ask(self, rows: np.ndarray) -> np.ndarray:
        probability = np.empty(len(rows))
        for start in range(0, len(rows), BLOCK_ROWS):
            block = rows[start : start + BLOCK_ROWS]
            (answer,) = self._session.run([OUTPUT_NAME], {INPUT_NAME: block})
            probability[start : start + BLOCK_ROWS] = answer[:, self._column]
        # One comparison each way refuses NaN too.
        if len(rows) and not (probability.min() >= 0.0 and probability.max() <= 1.0):
            raise _no_probability(self.path)
        return probability

    def _as_rows(self, features: np.ndarray) -> np.ndarray:
        self._require_columns(features)
        with np.errstate(over="ignore"):  # beyond float32 is infinity, and that is outside every range
            return np.ascontiguousarray(features, dtype=np.float32)

    def _require_columns(self, features: np.ndarray) -> None:
        columns = len(self._lowest)
        if features.ndim != 2 or features.shape[1] != columns:
            raise UsageError(
                f"features of shape {features.shape}: {self.path} scores {columns} columns "
                f"of {self.metadata['feature_set']}",
                shape=features.shape,
            )

    def _require_scores(self, path: Path) -> None:
        """One row through the graph: names, types and shapes are as this module expects."""
        inputs = [(entry.name, entry.type) for entry in self._session.get_inputs()]
        outputs = [entry.name for entry in self._session.get_outputs()]
        middle = (self._lowest / 2 + self._highest / 2)[None, :]
        problem = ""
        if inputs != [(INPUT_NAME, "tensor(float)")] or OUTPUT_NAME not in outputs:
            problem = f"takes {inputs} and gives {outputs}"
        else:
            try:
                (answer,) = self._session.run([OUTPUT_NAME], {INPUT_NAME: middle})
            except Exception as refusal:  # noqa: BLE001 - onnxruntime has no error class of its own
                problem = _first_line(refusal)
            else:
                if np.shape(answer) != (1, len(self.metadata["class_order"])):
                    problem = f"answers one row with shape {np.shape(answer)}"
        if problem:
            raise ModelFileInvalid(
                f"{path}: is no student ({problem}); train again with sqkit train-student", path=str(path)
            )
        self.probabilities(middle)


class RowScorer:
    """A student asked about one row at a time; made by `StudentModel.row_scorer`.

    The buffers are bound to the graph once. What it says of a row has the bits that
    `StudentModel.score_rows` gives the row in any matrix.
    """

    def __init__(self, model: StudentModel, threshold: float) -> None:
        columns = len(model._lowest)
        self.model = model
        self.threshold = float(threshold)
        self._columns = (columns,)
        self._narrow = np.zeros(columns, dtype=np.float32)
        self._answer = np.zeros(len(model.metadata["class_order"]), dtype=np.float32)
        self._lowest, self._highest, self._column = model._lowest, model._highest, model._column
        self._screen = screen_row()
        session = model._session
        self._binding = session.io_binding()
        self._binding.bind_input(INPUT_NAME, "cpu", 0, np.float32, (1, columns), self._narrow.ctypes.data)
        self._binding.bind_output(
            OUTPUT_NAME, "cpu", 0, np.float32, (1, len(self._answer)), self._answer.ctypes.data
        )
        self._run = session.run_with_iobinding

    def score(self, features: np.ndarray) -> tuple[float, int, int]:
        """Probability of up (NaN where not scored), direction and reason code of one row.

        Parameters
        ----------
        features
            float64 (k,), contiguous.

        Raises
        ------
        UsageError
            The number of features is not the feature set's.
        ModelFileInvalid
            The model answered with something that is no probability.
        """
        if features.shape != self._columns:
            raise UsageError(
                f"features of shape {features.shape}: {self.model.path} scores {self._columns[0]} of "
                f"{self.model.metadata['feature_set']}",
                shape=features.shape,
            )
        reason = self._screen(features, self._lowest, self._highest, self._narrow)
        if reason != _SCORED:
            return math.nan, FLAT, reason
        self._run(self._binding)
        probability = float(self._answer[self._column])
        direction = call_one(probability, self.threshold)
        if direction == NO_PROBABILITY:
            raise _no_probability(self.model.path)
        return probability, direction, _SCORED if direction else _LOW_CONFIDENCE


def require_threshold(threshold: float) -> None:
    """Refuse (UsageError) a confidence threshold outside [0.5, 1)."""
    if not 0.5 <= threshold < 1.0:
        raise UsageError(f"confidence threshold {threshold}: give at least 0.5 and below 1")


def _no_probability(path: Path) -> ModelFileInvalid:
    return ModelFileInvalid(
        f"{path}: answers with values outside [0, 1]; train again with sqkit train-student", path=str(path)
    )


def open_session(data: bytes, path: Path | None = None) -> onnxruntime.InferenceSession:
    """An onnxruntime session over these bytes, one thread, silent.

    Raises
    ------
    ModelFileInvalid
        onnxruntime cannot make a session of them.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised; nothing else belongs on stderr
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as problem:  # noqa: BLE001 - onnxruntime has no error class of its own
        raise ModelFileInvalid(
            f"{path or 'model'}: onnxruntime cannot load it ({_first_line(problem)}); "
            "train again with sqkit train-student",
            path=str(path),
        ) from None


def read_metadata(data: bytes, path: Path) -> dict[str, Any]:
    """What a model says about itself, its feature set known here or not; `path` is for the message only.

    Raises
    ------
    ModelFileInvalid, ModelMetadataInvalid
        It is no student at all.
    """
    properties: dict[str, str] = open_session(data, path).get_modelmeta().custom_metadata_map
    return parse_metadata(properties.get(METADATA_KEY), path)


def inspect_model(path: str | Path) -> dict[str, Any]:
    """Everything a person wants to know about a model file, as plain values.

    A model whose feature set is unknown or different here is still described: ``loadable``
    is then false and ``problem`` says why.

    Raises
    ------
    ModelFileMissing, PickleRefused, ModelFileInvalid, ModelMetadataInvalid
        It is no student at all.
    """
    place = Path(path)
    data = read_model_bytes(place)
    metadata = read_metadata(data, place)
    problem = None
    try:
        StudentModel(data, place)
    except FeatureSetError as refusal:
        problem = refusal.message
    return {
        "path": str(path),
        "bytes": len(data),
        "digest": sha256_bytes(data),
        "graph_digest": graph_digest(data),
        "loadable": problem is None,
        "problem": problem,
        "metadata": metadata,
    }


def _require_feature_set(metadata: dict[str, Any], path: Path) -> FeatureSet:
    feature_set = get_feature_set(metadata["feature_set"])
    same_names = tuple(metadata["feature_names"]) == tuple(feature_set.columns)
    if feature_set.digest != metadata["feature_set_digest"] or not same_names:
        raise FeatureSetMismatch(
            f"{path}: was trained with another definition of {feature_set.name}; "
            "train again, or use the sqkit version it was trained with",
            path=str(path),
            expected=metadata["feature_set_digest"],
            found=feature_set.digest,
        )
    return feature_set


def _first_line(problem: Exception) -> str:
    lines = str(problem).strip().splitlines()
    return lines[0] if lines else type(problem).__name__
