"""Trained models written as ONNX, with our own few operators, and proof that nothing was lost.

`teacher.py` and `distil.py` call this. In: weights of dense layers, or trees of
scikit-learn and LightGBM. Out: a graph from float32 ``features`` (n, k) to float32
``probabilities`` (n, 2), columns DOWN and UP, and the bytes of the file. An export counts
only after `check_export`: it scores like the trained model, and a row scored alone has the
bits it has in a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from sqkit.errors import ExportMismatch
from sqkit.files import canonical_json
from sqkit.model_file import METADATA_KEY
from sqkit.student import INPUT_NAME, OUTPUT_NAME, open_session

CHECK_ROWS: Final = 10_000
CHECK_TOLERANCE: Final = 1e-6
# Old enough for every onnxruntime we allow; nothing newer is used.
_IR_VERSION: Final = 8
_OPSETS: Final = (("", 15), ("ai.onnx.ml", 3))
_BLOCK_ROWS: Final = 37  # neither a divisor of the batch nor a multiple of any vector width


@dataclass(frozen=True)
class Tree:
    """One binary regression tree; a row goes left when ``x[feature] <= threshold``.

    Attributes
    ----------
    feature, left, right
        int64 (nodes,); node 0 is the root, children are node numbers.
    threshold, value
        float64 (nodes,); a leaf's value is what it adds.
    missing_left
        bool (nodes,), where a NaN goes.
    leaf
        bool (nodes,).
    """

    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    missing_left: np.ndarray
    value: np.ndarray
    leaf: np.ndarray


def threshold_float32(thresholds: np.ndarray) -> np.ndarray:
    """The largest float32 not above each float64 threshold.

    For a float32 ``x``, ``x <= threshold`` and ``x <= threshold_float32(threshold)`` are then
    the same question. Rounding to nearest is not enough, and under NumPy 2
    ``np.float32(v) <= v`` rounds ``v`` first and is always true, so both sides are compared
    as float64 here.
    """
    exact = np.asarray(thresholds, dtype=np.float64)
    with np.errstate(over="ignore"):
        rounded = exact.astype(np.float32)
    above = rounded.astype(np.float64) > exact
    return np.where(above, np.nextafter(rounded, np.float32(-np.inf)), rounded)


def trees_of_histogram_boosting(model: Any) -> tuple[list[Tree], float]:
    """Trees and baseline of a fitted scikit-learn HistGradientBoosting model of one output."""
    trees = []
    for (predictor,) in model._predictors:
        nodes = predictor.nodes
        trees.append(
            Tree(
                feature=nodes["feature_idx"].astype(np.int64),
                threshold=nodes["num_threshold"].astype(np.float64),
                left=nodes["left"].astype(np.int64),
                right=nodes["right"].astype(np.int64),
                missing_left=nodes["missing_go_to_left"].astype(bool),
                value=nodes["value"].astype(np.float64),
                leaf=nodes["is_leaf"].astype(bool),
            )
        )
    return trees, float(np.ravel(model._baseline_prediction)[0])


def trees_of_forest(model: Any) -> tuple[list[Tree], float]:
    """Trees of a fitted RandomForestRegressor; each leaf carries its share of the mean."""
    count = len(model.estimators_)
    trees = []
    for estimator in model.estimators_:
        inner = estimator.tree_
        trees.append(
            Tree(
                feature=inner.feature.astype(np.int64),
                threshold=inner.threshold.astype(np.float64),
                left=inner.children_left.astype(np.int64),
                right=inner.children_right.astype(np.int64),
                missing_left=np.zeros(inner.node_count, dtype=bool),
                value=inner.value[:, 0, 0] / count,
                leaf=inner.children_left < 0,
            )
        )
    return trees, 0.0


def trees_of_lightgbm(booster: Any) -> tuple[list[Tree], float]:
    """Trees of a fitted LightGBM booster on numeric features."""
    return [_lightgbm_tree(entry["tree_structure"]) for entry in booster.dump_model()["tree_info"]], 0.0


def _lightgbm_tree(root: dict[str, Any]) -> Tree:
    nodes: list[dict[str, Any]] = [root]
    left, right = [], []
    for node in nodes:  # grows while it is walked: breadth first
        if "leaf_value" in node:
            left.append(0)
            right.append(0)
            continue
        left.append(len(nodes))
        right.append(len(nodes) + 1)
        nodes += [node["left_child"], node["right_child"]]
    return Tree(
        feature=np.array([node.get("split_feature", 0) for node in nodes], dtype=np.int64),
        threshold=np.array([node.get("threshold", 0.0) for node in nodes], dtype=np.float64),
        left=np.array(left, dtype=np.int64),
        right=np.array(right, dtype=np.int64),
        missing_left=np.array([node.get("default_left", False) for node in nodes], dtype=bool),
        value=np.array([node.get("leaf_value", 0.0) for node in nodes], dtype=np.float64),
        leaf=np.array(["leaf_value" in node for node in nodes], dtype=bool),
    )


def tree_graph(
    trees: Sequence[Tree], base: float, *, features: int, link: Literal["sigmoid", "clip"]
) -> onnx.ModelProto:
    """Sum of trees plus `base`, as log-odds through a sigmoid or as a probability through a clip."""
    sizes = [len(tree.leaf) for tree in trees]
    tree_ids = np.repeat(np.arange(len(trees)), sizes)
    node_ids = np.concatenate([np.arange(size) for size in sizes])
    leaf = np.concatenate([tree.leaf for tree in trees])
    column = {
        name: np.concatenate([getattr(tree, name) for tree in trees])
        for name in ("feature", "threshold", "left", "right", "missing_left", "value")
    }

    def inner(name: str) -> np.ndarray:
        return np.where(leaf, 0, column[name])

    ensemble = helper.make_node(
        "TreeEnsembleRegressor",
        [INPUT_NAME],
        ["score"],
        domain="ai.onnx.ml",
        n_targets=1,
        aggregate_function="SUM",
        post_transform="NONE",
        base_values=[float(np.float32(base))],
        nodes_treeids=tree_ids.tolist(),
        nodes_nodeids=node_ids.tolist(),
        nodes_modes=["LEAF" if at_end else "BRANCH_LEQ" for at_end in leaf],
        nodes_featureids=inner("feature").tolist(),
        nodes_values=threshold_float32(inner("threshold")).tolist(),
        nodes_truenodeids=inner("left").tolist(),
        nodes_falsenodeids=inner("right").tolist(),
        nodes_missing_value_tracks_true=inner("missing_left").astype(np.int64).tolist(),
        target_treeids=tree_ids[leaf].tolist(),
        target_nodeids=node_ids[leaf].tolist(),
        target_ids=np.zeros(int(leaf.sum()), dtype=np.int64).tolist(),
        target_weights=column["value"][leaf].astype(np.float32).tolist(),
    )
    signs = _tensor("signs", [[-1.0, 1.0]])
    if link == "sigmoid":
        link_nodes = [
            helper.make_node("Mul", ["score", "signs"], ["both"]),
            helper.make_node("Sigmoid", ["both"], [OUTPUT_NAME]),
        ]
        return _model([ensemble, *link_nodes], [signs], features)
    constants = [signs, _tensor("shift", [[1.0, 0.0]]), _tensor("zero", 0.0), _tensor("one", 1.0)]
    link_nodes = [
        helper.make_node("Clip", ["score", "zero", "one"], ["share"]),
        helper.make_node("Mul", ["share", "signs"], ["signed"]),
        helper.make_node("Add", ["signed", "shift"], [OUTPUT_NAME]),
    ]
    return _model([ensemble, *link_nodes], constants, features)


def dense_graph(
    layers: Sequence[tuple[np.ndarray, np.ndarray]], *, mean: np.ndarray, scale: np.ndarray
) -> onnx.ModelProto:
    """Dense layers with ReLU between them, the last one log-odds; the scaler is folded into the first.

    Parameters
    ----------
    layers
        (weights (inputs, outputs), bias (outputs,)) in float64; the last has one output.
    mean, scale
        float64 (k,): the layers expect ``(x - mean) / scale``.
    """
    first_weights, first_bias = layers[0]
    folded = first_weights / scale[:, None]
    dense = [(folded, first_bias - mean @ folded), *layers[1:]]
    last_weights, last_bias = dense[-1]
    dense[-1] = (np.hstack([-last_weights, last_weights]), np.concatenate([-last_bias, last_bias]))
    nodes, constants, below = [], [], INPUT_NAME
    for number, (weights, bias) in enumerate(dense):
        constants += [_tensor(f"weights{number}", weights), _tensor(f"bias{number}", bias)]
        nodes.append(helper.make_node("Gemm", [below, f"weights{number}", f"bias{number}"], [f"sum{number}"]))
        last = number == len(dense) - 1
        below = OUTPUT_NAME if last else f"layer{number}"
        nodes.append(helper.make_node("Sigmoid" if last else "Relu", [f"sum{number}"], [below]))
    return _model(nodes, constants, len(mean))


def model_bytes(graph: onnx.ModelProto, metadata: dict[str, Any] | None = None) -> bytes:
    """The file: the graph and, for a student, its metadata as one JSON property."""
    model = onnx.ModelProto()
    model.CopyFrom(graph)
    if metadata is not None:
        entry = model.metadata_props.add()
        entry.key = METADATA_KEY
        entry.value = canonical_json(metadata, indent=None)
    return bytes(model.SerializeToString(deterministic=True))


def check_export(
    data: bytes, reference: Callable[[np.ndarray], np.ndarray], training_rows: np.ndarray, *, seed: int
) -> float:
    """Prove that the file scores like the trained model, and each row alone as in a batch.

    Parameters
    ----------
    data
        The ONNX file's bytes.
    reference
        The trained model: float32 (n, k) to float64 (n,), P(up).
    training_rows
        float32 (n, k); fewer than 10,000 are resampled with jitter.

    Returns
    -------
    float
        The largest difference between both, at most 1e-6.

    Raises
    ------
    ExportMismatch
        The file must not be used.
    """
    rows = _check_rows(training_rows, seed)
    session = open_session(data)
    batch = _run(session, rows)
    largest = float(np.max(np.abs(batch[:, 1].astype(np.float64) - reference(rows))))
    if not largest <= CHECK_TOLERANCE:
        raise ExportMismatch(
            f"the exported model differs from the trained one by {largest:.3g} on {len(rows)} rows "
            f"(at most {CHECK_TOLERANCE:g}); nothing was kept, report this with the model type and seed",
            largest=largest,
        )
    alone = np.concatenate([_run(session, rows[at : at + 1]) for at in range(len(rows))])
    blocks = [_run(session, rows[at : at + _BLOCK_ROWS]) for at in range(0, len(rows), _BLOCK_ROWS)]
    for name, scored in (("alone", alone), (f"in blocks of {_BLOCK_ROWS}", np.concatenate(blocks))):
        different = int(np.any(scored.view(np.uint32) != batch.view(np.uint32), axis=1).sum())
        if different:
            raise ExportMismatch(
                f"{different} of {len(rows)} rows scored {name} differ from the same rows scored in one "
                "batch; nothing was kept, report this with the model type and the onnxruntime version",
                different=different,
            )
    return largest


def _check_rows(training_rows: np.ndarray, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    count = len(training_rows)
    if count >= CHECK_ROWS:
        chosen = np.sort(generator.choice(count, CHECK_ROWS, replace=False))
        return np.ascontiguousarray(training_rows[chosen], dtype=np.float32)
    resampled = training_rows[generator.integers(0, count, CHECK_ROWS - count)].astype(np.float64)
    spread = 0.05 * training_rows.astype(np.float64).std(axis=0)
    jittered = resampled + spread * generator.standard_normal(resampled.shape)
    return np.ascontiguousarray(np.concatenate([training_rows, jittered]), dtype=np.float32)


def _run(session: onnxruntime.InferenceSession, rows: np.ndarray) -> np.ndarray:
    (probabilities,) = session.run([OUTPUT_NAME], {INPUT_NAME: rows})
    return np.asarray(probabilities, dtype=np.float32)


def _tensor(name: str, values: Any) -> onnx.TensorProto:
    return onnx.numpy_helper.from_array(np.asarray(values, dtype=np.float32), name)


def _model(nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto], features: int) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "sqkit",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, ["rows", features])],
        [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, ["rows", 2])],
        constants,
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in _OPSETS]
    model = helper.make_model(graph, producer_name="sqkit", opset_imports=opsets, ir_version=_IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    return model
