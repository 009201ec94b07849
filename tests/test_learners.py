"""Each kind of student learns from soft labels what it should."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from sqkit.errors import TrainingDataTooSmall
from sqkit.model_file import MODEL_TYPES
from sqkit.research.learners import fit_hard_labels, fit_student, newton_logistic, steady_threads
from sqkit.research.onnx_export import check_export, model_bytes


def sample(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features of unlike scales, one of them constant, and a probability that two of them move."""
    generator = np.random.default_rng(seed)
    features = generator.standard_normal((rows, 5)) * [1.0, 0.01, 50.0, 1.0, 0.0] + [0, 0, 100, -2, 7]
    soft = expit(0.8 * features[:, 0] - 60.0 * features[:, 1])
    return features.astype(np.float32), soft


def test_newton_is_logistic_regression_on_doubled_rows() -> None:
    """Cross-entropy on soft labels equals each row twice, UP with weight p and DOWN with 1 - p."""
    features, soft = sample(1500)
    inputs = features[:, :4].astype(np.float64)
    inputs = (inputs - inputs.mean(axis=0)) / inputs.std(axis=0)
    soft = np.clip(soft + 0.1 * np.sin(np.arange(len(soft))), 0.02, 0.98)
    weights, intercept = newton_logistic(inputs, soft, 2.0)
    oracle = LogisticRegression(C=1 / 2.0, tol=1e-10, max_iter=1000).fit(
        np.vstack([inputs, inputs]),
        np.repeat([1, 0], len(soft)),
        sample_weight=np.concatenate([soft, 1 - soft]),
    )
    np.testing.assert_allclose(weights, oracle.coef_[0], atol=1e-5)
    np.testing.assert_allclose(intercept, oracle.intercept_[0], atol=1e-5)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
class TestEveryKind:
    def test_it_learns_and_exports(self, model_type: str) -> None:
        """The student finds the probability, and its file agrees with it row by row."""
        features, soft = sample(6000)
        with steady_threads(len(soft)):
            fitted = fit_student(model_type, features, soft, seed=1)
            fresh, truth = sample(3000, seed=1)
            answer = fitted.probability_up(fresh)
            assert np.mean((answer - truth) ** 2) < 0.35 * np.var(truth)
            assert answer.min() >= 0.0
            assert answer.max() <= 1.0
            assert check_export(model_bytes(fitted.graph), fitted.probability_up, features, seed=2) <= 1e-6

    def test_the_same_seed_the_same_graph(self, model_type: str) -> None:
        """Training twice gives the same bytes."""
        features, soft = sample(2000)
        with steady_threads(len(soft)):
            one, two = (model_bytes(fit_student(model_type, features, soft, seed=3).graph) for _ in range(2))
        assert one == two

    def test_hard_labels(self, model_type: str) -> None:
        """The comparison model on outcomes ranks rows by their probability as well."""
        features, soft = sample(4000)
        up = np.random.default_rng(5).random(len(soft)) < soft
        with steady_threads(len(soft)):
            score = fit_hard_labels(model_type, features, up, seed=1)
            fresh, truth = sample(2000, seed=1)
            assert roc_auc_score(truth > 0.5, score(fresh)) > 0.9

    def test_too_few_rows(self, model_type: str) -> None:
        """A handful of rows trains nothing."""
        features, soft = sample(60)
        with pytest.raises(TrainingDataTooSmall, match="60 decisive rows"):
            fit_student(model_type, features, soft, seed=1)
