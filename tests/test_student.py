"""The student says what its file says, gives the reason for every silence, and is one model whoever asks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqkit.errors import FeatureSetMismatch, FeatureSetUnknown, ModelFileInvalid, UsageError
from sqkit.files import sha256_file
from sqkit.records import DIRECTIONS, FLAT, LONG, REASONS, SHORT
from sqkit.research.onnx_export import dense_graph, model_bytes
from sqkit.student import BLOCK_ROWS, StudentModel, inspect_model
from tests.small_student import COLUMNS, FEATURES, small_metadata, small_student, write_student


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> StudentModel:
    """Log-odds equal to the first feature; every feature was in [-3, 3] in training."""
    return StudentModel.load(write_student(tmp_path_factory.mktemp("student")))


def rows_of(*first: float) -> np.ndarray:
    """Rows of zeros but for the first feature."""
    rows = np.zeros((len(first), COLUMNS))
    rows[:, 0] = first
    return rows


def reasons(codes: np.ndarray) -> list[str]:
    """Reason codes in words."""
    return [REASONS[int(code)] for code in codes]


class TestLoading:
    def test_what_it_knows(self, tmp_path: Path) -> None:
        """Version, digest and feature set come from the very bytes that score."""
        path = write_student(tmp_path)
        model = StudentModel.load(str(path))
        assert model.version == "20250112_143000"
        assert model.digest == sha256_file(path)
        assert model.feature_set is FEATURES
        path.unlink()
        assert model.probabilities(rows_of(0.0))[0] == 0.5  # the file is not needed any more

    def test_another_feature_definition(self, tmp_path: Path) -> None:
        """A feature set with another digest or other names is refused; so is an unknown one."""
        with pytest.raises(FeatureSetMismatch, match="another definition"):
            StudentModel.load(write_student(tmp_path, feature_set_digest="f" * 64))
        names = small_metadata()["feature_names"]
        with pytest.raises(FeatureSetMismatch, match="another definition"):
            StudentModel.load(write_student(tmp_path, feature_names=[*names[1:], names[0]]))
        with pytest.raises(FeatureSetUnknown):
            StudentModel.load(write_student(tmp_path, feature_set="somebody_elses_v9"))

    def test_class_order(self, tmp_path: Path) -> None:
        """P(up) is taken from the column that the file calls UP."""
        rows = rows_of(-1.0, 0.5, 2.0)
        usual = StudentModel.load(write_student(tmp_path)).probabilities(rows)
        turned = StudentModel.load(write_student(tmp_path, class_order=["UP", "DOWN"])).probabilities(rows)
        np.testing.assert_allclose(usual, 1 / (1 + np.exp(-rows[:, 0])), atol=1e-7)
        np.testing.assert_allclose(turned, 1.0 - usual, atol=1e-7)

    def test_answers_that_are_no_probability(self, tmp_path: Path) -> None:
        """A graph whose output leaves [0, 1] or is NaN is refused when it is loaded."""
        model = onnx.load_model_from_string(small_student(bias=3.0))
        model.graph.node[-1].op_type = "Relu"
        path = tmp_path / "m.onnx"
        path.write_bytes(model.SerializeToString())
        with pytest.raises(ModelFileInvalid, match=r"outside \[0, 1\]"):
            StudentModel.load(path)
        path.write_bytes(small_student(bias=np.nan))
        with pytest.raises(ModelFileInvalid, match=r"outside \[0, 1\]"):
            StudentModel.load(path)

    def test_the_hall_stays_light(self) -> None:
        """Importing the student brings in no library of the research side."""
        heavy = ("pandas", "sklearn", "onnx", "pyarrow", "matplotlib")
        check = f"import sqkit.student, sys; print([name for name in {heavy} if name in sys.modules])"
        answer = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
        assert answer.stdout.strip() == "[]"


class TestProbabilities:
    def test_alone_and_in_any_batch(self, student: StudentModel) -> None:
        """A row has the same bits alone, in a batch, across a block border, and in float32 or float64."""
        rows = np.random.default_rng(1).uniform(-3, 3, (BLOCK_ROWS + 300, COLUMNS))
        batch = student.probabilities(rows)
        assert batch.dtype == np.float64
        for at in (0, 1, 17, BLOCK_ROWS - 1, BLOCK_ROWS, BLOCK_ROWS + 299):
            assert student.probabilities(rows[at : at + 1])[0] == batch[at]
        assert np.array_equal(student.probabilities(rows.astype(np.float32)), batch)
        assert np.array_equal(student.probabilities(np.asfortranarray(rows)), batch)
        assert np.array_equal(student.probabilities(rows[3:90:7]), batch[3:90:7])

    def test_no_rows(self, student: StudentModel) -> None:
        """An empty matrix has no answers."""
        assert len(student.probabilities(np.empty((0, COLUMNS)))) == 0
        assert len(student.score_rows(np.empty((0, COLUMNS)), 0.6).direction) == 0

    @pytest.mark.parametrize("shape", [(3, COLUMNS - 1), (3, COLUMNS + 1), (COLUMNS,)])
    def test_wrong_columns(self, student: StudentModel, shape: tuple[int, ...]) -> None:
        """A matrix of another width, or a bare row, is refused."""
        with pytest.raises(UsageError, match="columns"):
            student.probabilities(np.zeros(shape))


class TestScoring:
    @settings(max_examples=150, deadline=None)
    @given(
        st.lists(
            st.one_of(st.floats(-4, 4), st.sampled_from([np.nan, np.inf, -np.inf, 1e300, 3.0, -3.0, 0.0])),
            min_size=1,
            max_size=12,
        ),
        st.floats(0.5, 0.999),
        st.integers(0, 4),
    )
    def test_every_row_by_definition(
        self, student: StudentModel, first: list[float], threshold: float, warm_up_rows: int
    ) -> None:
        """Direction, confidence and reason follow the definition row by row, alone as in a batch."""
        rows = rows_of(*first)
        scores = student.score_rows(rows, threshold, warm_up_rows=warm_up_rows)
        for at, value in enumerate(first):
            with np.errstate(over="ignore"):
                inside = -3.0 <= np.float32(value) <= 3.0
            if at < warm_up_rows:
                expected, p = "warm_up", np.nan
            elif not np.isfinite(value):
                expected, p = "non_finite_feature", np.nan
            elif not inside:
                expected, p = "out_of_distribution", np.nan
            else:
                p = student.probabilities(rows[at : at + 1])[0]
                expected = "scored" if max(p, 1 - p) >= threshold else "low_confidence"
            direction = LONG if p >= threshold else SHORT if 1 - p >= threshold else FLAT
            assert REASONS[int(scores.reason[at])] == expected
            assert scores.direction[at] == direction
            np.testing.assert_equal(scores.probability_up[at], p)
            np.testing.assert_equal(scores.confidence[at], max(p, 1 - p))
            alone = student.score_rows(rows[at : at + 1], threshold, warm_up_rows=int(at < warm_up_rows))
            for column in ("probability_up", "confidence", "direction", "reason"):
                own = getattr(alone, column)
                assert own.dtype == getattr(scores, column).dtype
                np.testing.assert_array_equal(own[0], getattr(scores, column)[at])

    def test_the_threshold_itself_counts(self, student: StudentModel) -> None:
        """p equal to the threshold is LONG, 1 - p equal to it is SHORT, one step below is neither."""
        p = student.probabilities(rows_of(0.7, -0.7))
        up, down = float(p[0]), float(1.0 - p[1])
        rows = rows_of(0.7, -0.7)
        assert student.score_rows(rows, up).direction[0] == LONG
        assert student.score_rows(rows, np.nextafter(up, 1.0)).direction[0] == FLAT
        assert student.score_rows(rows, down).direction[1] == SHORT
        assert student.score_rows(rows, np.nextafter(down, 1.0)).direction[1] == FLAT

    def test_the_edge_of_the_training_range(self, tmp_path: Path) -> None:
        """A value seen in training is scored although its float64 is wider; the next float32 is not."""
        edge = float(np.float32(0.1))
        model = StudentModel.load(write_student(tmp_path, feature_ranges=[[-edge, edge]] * COLUMNS))
        outside = float(np.nextafter(np.float32(edge), np.float32(1.0)))
        scores = model.score_rows(rows_of(edge, -edge, 0.1, outside, -outside), 0.6)
        assert reasons(scores.reason) == ["low_confidence"] * 3 + ["out_of_distribution"] * 2

    def test_any_column_can_silence_a_row(self, student: StudentModel) -> None:
        """One feature out of range or not finite suffices, whichever it is."""
        for column in range(COLUMNS):
            rows = np.zeros((2, COLUMNS))
            rows[0, column], rows[1, column] = 3.5, np.nan
            scores = student.score_rows(rows, 0.5)
            assert reasons(scores.reason) == ["out_of_distribution", "non_finite_feature"]
            assert [DIRECTIONS[int(code)] for code in scores.direction] == ["FLAT", "FLAT"]

    @pytest.mark.parametrize("threshold", [0.49, 1.0, np.nan, -1.0])
    def test_a_threshold_that_means_nothing(self, student: StudentModel, threshold: float) -> None:
        """Below one half every row would be LONG and SHORT at once; it is refused."""
        with pytest.raises(UsageError, match="threshold"):
            student.score_rows(rows_of(0.0), threshold)


class TestIdentity:
    def load(self, folder: Path, **changes: object) -> StudentModel:
        """A student that differs in some way."""
        return StudentModel.load(write_student(folder, **changes))

    def test_the_version_is_no_behaviour(self, tmp_path: Path) -> None:
        """Version, author and libraries change the file's digest, not the behaviour's."""
        one = self.load(tmp_path)
        two = self.load(tmp_path, model_version="20260101_000000", created_by="b", library_versions={})
        assert one.digest != two.digest
        assert one.behaviour_digest(0.6) == two.behaviour_digest(0.6)

    def test_what_changes_answers_is_behaviour(self, tmp_path: Path) -> None:
        """Threshold, weights, training ranges and class order each make another behaviour."""
        plain = self.load(tmp_path)
        digests = {
            plain.behaviour_digest(0.6),
            plain.behaviour_digest(0.61),
            self.load(tmp_path, bias=0.01).behaviour_digest(0.6),
            self.load(tmp_path, feature_ranges=[[-2.0, 2.0]] * COLUMNS).behaviour_digest(0.6),
            self.load(tmp_path, class_order=["UP", "DOWN"]).behaviour_digest(0.6),
        }
        assert len(digests) == 5

    def test_the_graph_digest_is_of_the_graph_in_the_file(self, tmp_path: Path) -> None:
        """A changed weight cannot keep the behaviour's digest, whatever the metadata say."""
        path = write_student(tmp_path)
        before = StudentModel.load(path).behaviour_digest(0.6)
        model = onnx.load_model_from_string(path.read_bytes())
        model.graph.initializer[1].CopyFrom(
            onnx.numpy_helper.from_array(np.array([0.0, 1e-3], dtype=np.float32), "bias0")
        )
        path.write_bytes(model.SerializeToString())
        assert StudentModel.load(path).behaviour_digest(0.6) != before


class TestInspect:
    def test_a_good_file(self, tmp_path: Path) -> None:
        """Everything is shown, and the digest is the file's."""
        path = write_student(tmp_path)
        shown = inspect_model(path)
        assert shown["metadata"] == small_metadata()
        assert shown["digest"] == sha256_file(path)
        assert shown["bytes"] == path.stat().st_size
        assert shown["loadable"] is True

    def test_a_file_of_another_feature_definition(self, tmp_path: Path) -> None:
        """It cannot be loaded but it can be looked at, and the reason is said."""
        shown = inspect_model(write_student(tmp_path, feature_set_digest="e" * 64))
        assert shown["loadable"] is False
        assert "another definition" in shown["problem"]

    def test_a_file_without_metadata(self, tmp_path: Path) -> None:
        """A foreign ONNX file is refused with the way out."""
        graph = dense_graph(
            [(np.ones((COLUMNS, 1)), np.zeros(1))], mean=np.zeros(COLUMNS), scale=np.ones(COLUMNS)
        )
        path = tmp_path / "teacher_model.onnx"
        path.write_bytes(model_bytes(graph))
        with pytest.raises(Exception, match="without sqkit's metadata"):
            inspect_model(path)
