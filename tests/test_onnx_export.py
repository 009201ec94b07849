"""An exported model is the trained model: thresholds, trees, layers, and the proof of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from scipy.special import expit
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPRegressor
from sklearn.preprocessing import StandardScaler

from sqkit.errors import ExportMismatch
from sqkit.model_file import graph_digest
from sqkit.research import onnx_export
from sqkit.student import INPUT_NAME, OUTPUT_NAME, open_session

COLUMNS = 7


def run(data: bytes, rows: np.ndarray) -> np.ndarray:
    """Both columns of the exported model's answer."""
    (answer,) = open_session(data).run([OUTPUT_NAME], {INPUT_NAME: np.asarray(rows, dtype=np.float32)})
    return np.asarray(answer)


@pytest.fixture(scope="module")
def sample() -> tuple[np.ndarray, np.ndarray]:
    """Float32 features and a noisy target that some of them move."""
    generator = np.random.default_rng(3)
    rows = generator.standard_normal((6000, COLUMNS)).astype(np.float32)
    target = 0.4 * rows[:, 0] - 0.2 * rows[:, 1] * rows[:, 2] + 0.5 * generator.standard_normal(len(rows))
    return rows, target


class TestThresholds:
    @given(st.floats(-1e38, 1e38), st.integers(-3, 3))
    def test_float32_asks_the_same_question(self, threshold: float, steps: int) -> None:
        """For every float32 x around a float64 threshold, x <= t keeps its answer after rounding."""
        rounded = onnx_export.threshold_float32(np.array([threshold]))[0]
        value = np.float32(threshold)
        for _ in range(abs(steps)):
            value = np.nextafter(value, np.float32(np.copysign(np.inf, steps)))
        assert (float(value) <= threshold) == bool(value <= rounded)

    def test_nearest_rounding_would_be_wrong(self) -> None:
        """The trap this guards against is real: rounding to nearest lets a larger float32 through."""
        threshold = 0.1  # float32(0.1) is above 0.1
        assert float(np.float32(threshold)) > threshold
        assert np.float32(threshold) <= threshold  # NumPy 2 rounds the Python float first: always true
        assert onnx_export.threshold_float32(np.array([threshold]))[0] < np.float32(threshold)

    def test_beyond_float32(self) -> None:
        """A threshold no float32 reaches keeps every finite value on its left."""
        assert onnx_export.threshold_float32(np.array([1e39]))[0] == np.finfo(np.float32).max


def boundary_rows(rows: np.ndarray, trees: list[onnx_export.Tree]) -> np.ndarray:
    """Rows with one feature on a threshold, or one float32 below or above it."""
    made = []
    for tree in trees[:20]:
        for node in np.flatnonzero(~tree.leaf):
            nearest = np.float32(tree.threshold[node])
            for value in (
                nearest,
                np.nextafter(nearest, np.float32(9)),
                np.nextafter(nearest, np.float32(-9)),
            ):
                row = rows[len(made) % len(rows)].copy()
                row[tree.feature[node]] = value
                made.append(row)
    return np.array(made)


class TestTrees:
    def test_histogram_boosting_on_its_own_thresholds(self, sample: Any) -> None:
        """Rows on and next to every threshold take the same branch as in scikit-learn."""
        rows, target = sample
        model = HistGradientBoostingRegressor(max_iter=40, max_depth=4, random_state=0).fit(rows, target)
        trees, base = onnx_export.trees_of_histogram_boosting(model)
        data = onnx_export.model_bytes(onnx_export.tree_graph(trees, base, features=COLUMNS, link="sigmoid"))
        edge = boundary_rows(rows, trees)
        assert len(edge) > 500
        np.testing.assert_allclose(run(data, edge)[:, 1], expit(model.predict(edge)), atol=1e-6)

    def test_forest_on_its_own_thresholds(self, sample: Any) -> None:
        """The same for a forest's mean, clipped to a probability."""
        rows, target = sample
        share = np.clip(0.5 + target, 0.0, 1.0)
        model = RandomForestRegressor(20, max_depth=6, max_samples=2000, random_state=0, n_jobs=1)
        model.fit(rows, share)
        trees, base = onnx_export.trees_of_forest(model)
        data = onnx_export.model_bytes(onnx_export.tree_graph(trees, base, features=COLUMNS, link="clip"))
        edge = boundary_rows(rows, trees)
        np.testing.assert_allclose(run(data, edge)[:, 1], model.predict(edge), atol=1e-6)

    def test_lightgbm(self, sample: Any) -> None:
        """A LightGBM booster goes through the same writer and scores the same."""
        lightgbm = pytest.importorskip("lightgbm", reason="LightGBM is an optional teacher")
        rows, target = sample
        options = {"objective": "binary", "verbosity": -1, "num_threads": 1, "deterministic": True}
        booster = lightgbm.train(options, lightgbm.Dataset(rows, target > 0), num_boost_round=30)
        trees, base = onnx_export.trees_of_lightgbm(booster)
        data = onnx_export.model_bytes(onnx_export.tree_graph(trees, base, features=COLUMNS, link="sigmoid"))
        edge = boundary_rows(rows, trees)
        np.testing.assert_allclose(run(data, edge)[:, 1], booster.predict(edge), atol=1e-6)

    def test_a_model_without_a_split(self) -> None:
        """A constant target makes trees of one leaf; they export as the constant."""
        rows = np.random.default_rng(0).standard_normal((200, 3)).astype(np.float32)
        model = HistGradientBoostingRegressor(max_iter=3).fit(rows, np.full(200, 0.3))
        trees, base = onnx_export.trees_of_histogram_boosting(model)
        data = onnx_export.model_bytes(onnx_export.tree_graph(trees, base, features=3, link="sigmoid"))
        np.testing.assert_allclose(run(data, rows)[:, 1], expit(0.3), atol=1e-7)


class TestLayers:
    def test_logistic_with_folded_scaler(self, sample: Any) -> None:
        """Gemm and sigmoid with the scaler inside equal scikit-learn's scaler and regression."""
        rows, target = sample
        shifted = rows * np.float32(30.0) + np.float32(200.0)
        scaler = StandardScaler().fit(shifted.astype(np.float64))
        model = LogisticRegression().fit(scaler.transform(shifted.astype(np.float64)), target > 0)
        graph = onnx_export.dense_graph(
            [(model.coef_.T, model.intercept_)], mean=scaler.mean_, scale=scaler.scale_
        )
        expected = model.predict_proba(scaler.transform(shifted.astype(np.float64)))
        np.testing.assert_allclose(run(onnx_export.model_bytes(graph), shifted), expected, atol=1e-6)

    def test_hidden_layers(self, sample: Any) -> None:
        """Dense layers with ReLU equal scikit-learn's network; the columns are DOWN and UP."""
        rows, target = sample
        network = MLPRegressor(hidden_layer_sizes=(8, 4), max_iter=200, random_state=0).fit(
            rows.astype(np.float64), target
        )
        layers = list(zip(network.coefs_, network.intercepts_, strict=True))
        graph = onnx_export.dense_graph(layers, mean=np.zeros(COLUMNS), scale=np.ones(COLUMNS))
        answer = run(onnx_export.model_bytes(graph), rows)
        np.testing.assert_allclose(answer[:, 1], expit(network.predict(rows.astype(np.float64))), atol=1e-6)
        np.testing.assert_allclose(answer.sum(axis=1), 1.0, atol=1e-6)


class TestProof:
    def logistic(self) -> tuple[bytes, Any]:
        """A small exported model and the formula behind it."""
        weights = np.linspace(-1.0, 1.0, COLUMNS)
        graph = onnx_export.dense_graph(
            [(weights[:, None], np.array([0.1]))], mean=np.zeros(COLUMNS), scale=np.ones(COLUMNS)
        )
        return onnx_export.model_bytes(graph), lambda rows: expit(rows.astype(np.float64) @ weights + 0.1)

    def test_an_equal_model_passes(self, sample: Any) -> None:
        """An honest export passes, with few rows and with more than are checked."""
        data, reference = self.logistic()
        assert onnx_export.check_export(data, reference, sample[0], seed=1) <= 1e-6
        assert onnx_export.check_export(data, reference, np.tile(sample[0], (3, 1)), seed=1) <= 1e-6

    def test_ten_thousand_rows_are_compared(self, sample: Any) -> None:
        """Few training rows are resampled: the reference is asked about exactly 10,000 rows."""
        data, reference = self.logistic()
        asked: list[int] = []

        def counting(rows: np.ndarray) -> np.ndarray:
            asked.append(len(np.unique(rows, axis=0)))
            return reference(rows)

        onnx_export.check_export(data, counting, sample[0][:300], seed=1)
        assert asked == [10_000]

    @pytest.mark.parametrize("error", [2e-6, np.nan])
    def test_another_model_is_refused(self, sample: Any, error: float) -> None:
        """A difference above 1e-6, or one that is not a number, keeps the export out."""
        data, reference = self.logistic()
        with pytest.raises(ExportMismatch, match="differs from the trained one"):
            onnx_export.check_export(data, lambda rows: reference(rows) + error, sample[0], seed=1)

    def test_rows_that_depend_on_their_batch_are_refused(self, sample: Any) -> None:
        """A graph whose answer for a row depends on the rows beside it is refused, however slightly."""
        nodes = [
            helper.make_node("ReduceMean", [INPUT_NAME], ["mean"], axes=[0, 1], keepdims=1),
            helper.make_node("Mul", ["mean", "tiny"], ["nudge"]),
            helper.make_node("Add", ["half", "nudge"], ["level"]),
            helper.make_node("ReduceMean", [INPUT_NAME], ["own"], axes=[1], keepdims=1),
            helper.make_node("Mul", ["own", "zero"], ["nothing"]),
            helper.make_node("Add", ["nothing", "level"], [OUTPUT_NAME]),
        ]
        constants = [
            onnx.numpy_helper.from_array(np.array(value, dtype=np.float32), name)
            for name, value in (("tiny", [[1e-7]]), ("half", [[0.5, 0.5]]), ("zero", [[0.0]]))
        ]
        graph = helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, ["rows", COLUMNS])],
            [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, ["rows", 2])],
            constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
        wide = sample[0] * np.float32(10.0)
        with pytest.raises(ExportMismatch, match="scored alone"):
            onnx_export.check_export(
                model.SerializeToString(), lambda rows: np.full(len(rows), 0.5), wide, seed=1
            )

    def test_metadata_leaves_the_graph_alone(self) -> None:
        """Two exports that differ in metadata only have one graph digest and other bytes."""
        weights = [(np.ones((COLUMNS, 1)), np.zeros(1))]
        graph = onnx_export.dense_graph(weights, mean=np.zeros(COLUMNS), scale=np.ones(COLUMNS))
        plain = onnx_export.model_bytes(graph)
        tagged = onnx_export.model_bytes(graph, {"model_version": "a"})
        assert plain != tagged
        assert graph_digest(plain) == graph_digest(tagged)
