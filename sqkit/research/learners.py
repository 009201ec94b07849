"""The four kinds of student: how each is fitted to soft labels, and its graph.

`distil.py` calls this. In: float32 features and P(up) per row. Out: a fitted student that can
score and that brings its ONNX graph. scikit-learn's classifiers take no soft labels, so the
logistic student is fitted here by Newton's method and the others are regressors: on the
teacher's log-odds with a sigmoid behind them, or, for the forest, on the probability itself.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from scipy.special import expit, logit
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestRegressor,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier, MLPRegressor
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from sqkit.errors import TrainingDataTooSmall, TrainingError
from sqkit.research import onnx_export

Score = Callable[[np.ndarray], np.ndarray]

_CLIP: Final = 0.01  # log-odds of a soft label end at logit(0.99)
_RIDGE: Final = 1.0
_NEWTON_STEPS: Final = 50
_NEWTON_TOLERANCE: Final = 1e-10
_LAYERS: Final = (32, 16)
_MLP_SAMPLES: Final = 2_000_000  # rows shown in all: few rows many times, many rows a few times
_FOREST_ROWS: Final = 10_000
_FOREST_TREES: Final = 60
_MIN_ROWS: Final = 100
_ROWS_FOR_THREADS: Final = 500_000


@dataclass(frozen=True)
class FittedStudent:
    """A trained student: float32 (n, k) to float64 (n,) P(up), and its graph."""

    probability_up: Score
    graph: onnx.ModelProto


@contextlib.contextmanager
def steady_threads(rows: int) -> Iterator[None]:
    """Training inside gives the same bytes on any number of cores, and small jobs stay quick.

    BLAS sums in another order with another number of threads, so it gets one. OpenMP changes no
    result here, but its threads wait by spinning: on a busy machine a second one made fits of
    a few thousand rows a hundred times slower.
    """
    limits = {"blas": 1} | ({"openmp": 1} if rows < _ROWS_FOR_THREADS else {})
    with threadpool_limits(limits):
        yield


def smallest_leaf(rows: int) -> int:
    """Rows a leaf must hold: five per cent, between 20 and 500; market data are mostly noise."""
    return int(np.clip(rows // 20, 20, 500))


def fit_student(model_type: str, features: np.ndarray, soft: np.ndarray, *, seed: int) -> FittedStudent:
    """Fit one student to soft labels.

    Parameters
    ----------
    features
        float32 (n, k).
    soft
        float64 (n,), P(up) in [0, 1].

    Raises
    ------
    TrainingDataTooSmall
        Fewer than 100 rows.
    """
    if len(soft) < _MIN_ROWS:
        raise TrainingDataTooSmall(
            f"{len(soft)} decisive rows, at least {_MIN_ROWS} are needed; train on a longer window",
            rows=len(soft),
        )
    if model_type == "logistic":
        return _fit_logistic(features, soft)
    if model_type == "mlp":
        return _fit_mlp(features, soft, seed)
    if model_type == "gradient_boosting":
        return _fit_gradient_boosting(features, soft, seed)
    return _fit_random_forest(features, soft, seed)


def fit_hard_labels(model_type: str, features: np.ndarray, up: np.ndarray, *, seed: int) -> Score:
    """The same kind of model on the outcomes themselves, for comparison only; never exported."""
    target = up.astype(np.float64)
    if model_type == "logistic":
        return _fit_logistic(features, target).probability_up
    if model_type == "random_forest":
        return _fit_random_forest(features, target, seed).probability_up
    if model_type == "gradient_boosting":
        boosting = HistGradientBoostingClassifier(**_boosting_options(len(up), seed)).fit(features, up)
        return lambda rows: np.asarray(boosting.predict_proba(rows)[:, 1])
    mean, scale = _scaler(features)
    network = MLPClassifier(**_mlp_options(len(up), seed))
    _fit_quietly(network, (features - mean) / scale, up)
    return lambda rows: np.asarray(network.predict_proba((rows - mean) / scale)[:, 1])


def newton_logistic(inputs: np.ndarray, soft: np.ndarray, ridge: float) -> tuple[np.ndarray, float]:
    """Logistic regression on soft labels: minimises cross-entropy + ridge/2 x |weights|².

    Parameters
    ----------
    inputs
        float64 (n, k), standardised.
    soft
        float64 (n,), target probabilities.
    ridge
        Penalty on the weights; the intercept is free.

    Returns
    -------
    weights, intercept
        float64 (k,) and float.

    Raises
    ------
    TrainingError
        The iteration did not converge.
    """
    design = np.hstack([inputs, np.ones((len(inputs), 1))])
    penalty = np.diag(np.append(np.full(inputs.shape[1], ridge), 0.0))
    solution = np.zeros(design.shape[1])
    for _ in range(_NEWTON_STEPS):
        predicted = expit(design @ solution)
        gradient = design.T @ (predicted - soft) + penalty @ solution
        curvature = (design * (predicted * (1.0 - predicted))[:, None]).T @ design + penalty
        step = np.linalg.solve(curvature, gradient)
        solution = solution - step
        if np.max(np.abs(step)) < _NEWTON_TOLERANCE:
            return solution[:-1], float(solution[-1])
    raise TrainingError("the logistic student did not converge; train another kind with --model-type")


def _fit_logistic(features: np.ndarray, soft: np.ndarray) -> FittedStudent:
    mean, scale = _scaler(features)
    weights, intercept = newton_logistic((features - mean) / scale, soft, _RIDGE)
    graph = onnx_export.dense_graph([(weights[:, None], np.array([intercept]))], mean=mean, scale=scale)
    return FittedStudent(lambda rows: expit((rows - mean) / scale @ weights + intercept), graph)


def _fit_mlp(features: np.ndarray, soft: np.ndarray, seed: int) -> FittedStudent:
    mean, scale = _scaler(features)
    network = MLPRegressor(**_mlp_options(len(soft), seed))
    _fit_quietly(network, (features - mean) / scale, _log_odds(soft))
    layers = list(zip(network.coefs_, network.intercepts_, strict=True))
    graph = onnx_export.dense_graph(layers, mean=mean, scale=scale)
    return FittedStudent(lambda rows: expit(network.predict((rows - mean) / scale)), graph)


def _fit_gradient_boosting(features: np.ndarray, soft: np.ndarray, seed: int) -> FittedStudent:
    model = HistGradientBoostingRegressor(**_boosting_options(len(soft), seed))
    model.fit(features, _log_odds(soft))
    trees, base = onnx_export.trees_of_histogram_boosting(model)
    graph = onnx_export.tree_graph(trees, base, features=features.shape[1], link="sigmoid")
    return FittedStudent(lambda rows: expit(model.predict(rows)), graph)


def _fit_random_forest(features: np.ndarray, soft: np.ndarray, seed: int) -> FittedStudent:
    drawn = min(len(soft), _FOREST_ROWS)
    model = RandomForestRegressor(
        n_estimators=_FOREST_TREES,
        max_depth=8,
        max_features=1.0 / 3.0,
        min_samples_leaf=smallest_leaf(drawn),
        max_samples=drawn,
        random_state=seed,
        n_jobs=1,  # with threads the mean is summed in whatever order they finish
    ).fit(features, soft)
    trees, base = onnx_export.trees_of_forest(model)
    graph = onnx_export.tree_graph(trees, base, features=features.shape[1], link="clip")
    return FittedStudent(lambda rows: np.clip(model.predict(rows), 0.0, 1.0), graph)


def _boosting_options(rows: int, seed: int) -> dict[str, Any]:
    return {
        "max_iter": 100,
        "max_depth": 4,
        "learning_rate": 0.1,
        "min_samples_leaf": smallest_leaf(rows),
        "early_stopping": False,
        "random_state": seed,
    }


def _mlp_options(rows: int, seed: int) -> dict[str, Any]:
    return {
        "hidden_layer_sizes": _LAYERS,
        "alpha": 1e-3,
        "max_iter": int(np.clip(_MLP_SAMPLES // rows, 8, 100)),
        "random_state": seed,
    }


def _fit_quietly(network: Any, inputs: np.ndarray, target: np.ndarray) -> None:
    with warnings.catch_warnings():
        # The number of passes is chosen above; reaching it is the plan, not a failure.
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit(inputs, target)


def _scaler(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean = features.mean(axis=0, dtype=np.float64)
    scale = features.std(axis=0, dtype=np.float64)
    return mean, np.where(scale > 0.0, scale, 1.0)


def _log_odds(soft: np.ndarray) -> np.ndarray:
    return np.asarray(logit(np.clip(soft, _CLIP, 1.0 - _CLIP)))
