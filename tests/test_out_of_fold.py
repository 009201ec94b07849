"""Soft labels that are not out of fold are refused before a student learns from them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import KFold

from sqkit.bars import BarArrays
from sqkit.errors import ArtifactChanged, LabelsInFold, UsageError
from sqkit.features import teacher_set
from sqkit.files import sha256_columns
from sqkit.records import session_day
from sqkit.research.distil import train_student
from sqkit.research.folds import BLOCKS, Fold, session_blocks
from sqkit.research.labels import TrainingTable, training_table
from sqkit.research.learners import steady_threads
from sqkit.research.out_of_fold import OTHER_LIBRARIES, TOLERANCE, verify_out_of_fold
from sqkit.research.teacher import fit_teacher, out_of_fold, train_teacher
from sqkit.research.teacher_folder import SOFT_LABELS_FILE, StoredTeacher, publish_teacher, read_teacher
from tests.market import VERSION, Market, files_below

KIND = "hist_gradient_boosting"
SEEDS = range(BLOCKS)
"""The seed chooses the block that is fitted again: these choose each block once."""


@pytest.fixture(scope="module")
def teacher(planted: Market) -> StoredTeacher:
    """The planted market's teacher as it was stored."""
    return read_teacher(planted.teacher)


@pytest.fixture(scope="module")
def table(planted: Market, teacher: StoredTeacher) -> TrainingTable:
    """Every row the teacher labelled, with its answer."""
    return rows_of(planted, teacher)


@pytest.fixture(scope="module")
def shuffled(table: TrainingTable) -> tuple[np.ndarray, np.ndarray]:
    """Labels as scikit-learn's shuffled five-fold split makes them, and the fold of each row."""
    return from_shuffled_split(table)


@pytest.fixture(scope="module")
def seen(table: TrainingTable) -> np.ndarray:
    """Labels of the stored teacher itself, which was fitted on the very rows it labels."""
    return in_sample(table)


@pytest.fixture(scope="module")
def unpurged(table: TrainingTable) -> np.ndarray:
    """Labels by the right blocks, but learned from neighbours whose labels reach into the block too."""
    return without_purging(table)


def rows_of(market: Market, teacher: StoredTeacher) -> TrainingTable:
    """The rows of a teacher, made again from bars and metadata."""
    about = teacher.metadata
    first, last = (
        session_day(dt.date.fromisoformat(about["training_window"][end])) for end in ("start", "end")
    )
    table = training_table(
        market.bars,
        teacher_set(about["strategy"]),
        first_day=first,
        last_day=last,
        horizon_bars=about["horizon_bars"],
        dead_zone=about["dead_zone"],
        within_session=False,
    )
    assert np.array_equal(table.bar_time_ns, teacher.soft_labels["bar_time"])
    return table


def with_labels(teacher: StoredTeacher, **columns: np.ndarray) -> StoredTeacher:
    """The same teacher with columns of its soft labels replaced."""
    return replace(teacher, soft_labels=teacher.soft_labels | columns)


def verified(teacher: StoredTeacher, bars: dict[str, BarArrays], seed: int) -> dict[str, Any]:
    """`verify_out_of_fold` on one thread a fit, as `train_student` calls it."""
    with steady_threads(len(teacher.soft_labels["block"])):
        return verify_out_of_fold(teacher, bars, block=seed % BLOCKS)


def in_sample(table: TrainingTable, kind: str = KIND) -> np.ndarray:
    """Labels of the stored teacher itself: it was fitted on the very rows it labels."""
    with steady_threads(len(table)):
        return fit_teacher(kind, table.features, table.up, seed=0).probability_up(table.features)


def from_shuffled_split(table: TrainingTable) -> tuple[np.ndarray, np.ndarray]:
    """Labels as scikit-learn's shuffled five-fold split makes them, and the fold of each row."""
    folds = [
        Fold(train, test) for train, test in KFold(BLOCKS, shuffle=True, random_state=0).split(table.features)
    ]
    number = np.empty(len(table), dtype=np.int8)
    for place, fold in enumerate(folds):
        number[fold.test] = place
    with steady_threads(len(table)):
        return out_of_fold(table, folds, kind=KIND, seed=0), number


def without_purging(table: TrainingTable) -> np.ndarray:
    """Labels by the right blocks, each from all other rows: those whose labels reach into the block too."""
    block = session_blocks(table.session_day)
    folds = [Fold(np.flatnonzero(block != number), np.flatnonzero(block == number)) for number in SEEDS]
    with steady_threads(len(table)):
        return out_of_fold(table, folds, kind=KIND, seed=0)


def refused(teacher: StoredTeacher, market: Market, seed: int, said: str) -> LabelsInFold:
    """The labels are refused in one line, with the exit code of integrity."""
    with pytest.raises(LabelsInFold, match=said) as refusal:
        verified(teacher, market.bars, seed)
    assert refusal.value.exit_code == 4
    assert "\n" not in refusal.value.message
    assert "train the teacher again" in refusal.value.message
    return refusal.value


class TestSoundLabels:
    """What `train_teacher` writes is proved, whichever block is chosen."""

    @pytest.mark.parametrize("seed", [*SEEDS, 5, 123456])
    def test_every_block_is_given_again(self, planted: Market, teacher: StoredTeacher, seed: int) -> None:
        """The teacher of the chosen block, fitted again without it, gives the stored labels."""
        proof = verified(teacher, planted.bars, seed)
        assert proof["blocks"] == BLOCKS
        assert proof["refitted_block"] == seed % BLOCKS
        assert 0.0 <= proof["largest_difference"] <= TOLERANCE

    def test_the_student_carries_the_proof(self, planted: Market, teacher: StoredTeacher) -> None:
        """What the check found stands in the metadata of every student of this teacher."""
        proof = verify_out_of_fold(teacher, planted.bars)
        for kind in planted.students:
            assert planted.model(kind).metadata["out_of_fold"] == proof

    def test_bars_after_the_training_window_do_not_matter(
        self, planted: Market, teacher: StoredTeacher
    ) -> None:
        """The check sees the training window only, and only the symbols of training."""
        cut = {
            name: bars.slice(0, bars.window(0, planted.training_end)[1])
            for name, bars in planted.bars.items()
        }
        more = cut | {"OTHER": cut["PLANT01"]}
        proofs = [verified(teacher, bars, 2) for bars in (planted.bars, cut, more)]
        assert proofs[0] == proofs[1] == proofs[2]

    def test_other_versions_of_the_learner(self, planted: Market, teacher: StoredTeacher) -> None:
        """Labels of another version of the learner may lie a little off, and sound ones pass."""
        older = replace(
            teacher,
            metadata=teacher.metadata
            | {"library_versions": teacher.metadata["library_versions"] | {"numpy": "1"}},
        )
        generator = np.random.default_rng(0)
        soft = older.soft_labels["soft_label"]
        near = np.clip(soft + generator.normal(0.0, 0.2 * OTHER_LIBRARIES, len(soft)), 0.0, 1.0)
        proof = verified(with_labels(older, soft_label=near), planted.bars, 1)
        assert proof["largest_difference"] > TOLERANCE
        refused(with_labels(teacher, soft_label=near), planted, 1, "differ by up to")


class TestLabelsInFold:
    """A teacher that knew the answers is found out, whichever block is chosen."""

    @pytest.mark.parametrize("seed", SEEDS)
    @pytest.mark.parametrize("versions", ["the same", "other"])
    def test_labels_from_a_teacher_that_saw_them(
        self,
        planted: Market,
        teacher: StoredTeacher,
        seen: np.ndarray,
        shuffled: tuple[np.ndarray, np.ndarray],
        seed: int,
        versions: str,
    ) -> None:
        """In sample, or from a shuffled split: refused, also where another version of the learner excuses some."""
        if versions == "other":
            teacher = replace(teacher, metadata=teacher.metadata | {"library_versions": {"numpy": "1"}})
        for labels in (seen, shuffled[0]):
            problem = refused(
                with_labels(teacher, soft_label=labels), planted, seed, f"of block {seed + 1} of 5 are not"
            )
            assert problem.values["largest_difference"] > 0.1

    def test_such_labels_do_flatter(
        self,
        teacher: StoredTeacher,
        table: TrainingTable,
        seen: np.ndarray,
        shuffled: tuple[np.ndarray, np.ndarray],
    ) -> None:
        """The premise of the refusals: both kinds know far more of the answers than honest labels do."""
        three = (teacher.soft_labels["soft_label"], shuffled[0], seen)
        right = [float(np.mean((soft >= 0.5) == table.up)) for soft in three]
        assert right[0] + 0.05 < right[1] < right[2]
        assert right[2] > 0.95

    @pytest.mark.parametrize("seed", SEEDS)
    def test_labels_without_purging(
        self, planted: Market, teacher: StoredTeacher, unpurged: np.ndarray, seed: int
    ) -> None:
        """The right blocks, but neighbours whose labels reach into the block were learned from."""
        refused(with_labels(teacher, soft_label=unpurged), planted, seed, "differ by up to")

    @pytest.mark.parametrize("seed", [0, 3])
    @pytest.mark.parametrize(
        "edit",
        [lambda soft: soft + 1e-6, lambda soft: 1.0 - soft, lambda soft: soft * np.nan],
        ids=["one label a little off", "one label turned", "one label that is no number"],
    )
    def test_one_label_of_the_block(
        self,
        planted: Market,
        teacher: StoredTeacher,
        seed: int,
        edit: Callable[[np.ndarray], np.ndarray],
    ) -> None:
        """A single changed label is found when its block is fitted again, and only then: one block is promised."""
        soft = teacher.soft_labels["soft_label"].copy()
        row = np.flatnonzero(teacher.soft_labels["block"] == seed)[7:8]
        soft[row] = edit(soft[row])
        changed = with_labels(teacher, soft_label=soft)
        refused(changed, planted, seed, f"of block {seed + 1} of 5")
        assert verified(changed, planted.bars, seed + 1)["refitted_block"] != seed

    def test_no_label_at_all(self, planted: Market, teacher: StoredTeacher) -> None:
        """Labels that are all NaN differ from everything, under any version of the learner."""
        nothing = np.full(len(teacher.soft_labels["block"]), np.nan)
        other = replace(teacher, metadata=teacher.metadata | {"library_versions": {}})
        for one in (teacher, other):
            refused(with_labels(one, soft_label=nothing), planted, 0, "are not those of a teacher")


RELABELLED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "two blocks exchanged": lambda block: np.where(block < 2, 1 - block, block),
    "counted backwards": lambda block: BLOCKS - 1 - block,
    "counted from one": lambda block: block + 1,
    "one block only": lambda block: np.zeros_like(block),
    "dealt like cards": lambda block: np.arange(len(block)) % BLOCKS,
    "cut by rows and not by dates": lambda block: np.arange(len(block)) * BLOCKS // len(block),
    "one row moved to the next block": lambda block: np.where(
        np.arange(len(block)) == np.flatnonzero(block == 0)[-1], 1, block
    ),
}


class TestBlocks:
    """Blocks are five runs of session dates over all symbols, or nothing is proved."""

    @pytest.mark.parametrize("case", RELABELLED)
    def test_relabelled(self, planted: Market, teacher: StoredTeacher, case: str) -> None:
        """Other numbers than those of the five runs are refused, the soft labels themselves being sound."""
        block = teacher.soft_labels["block"]
        other = RELABELLED[case](block).astype(block.dtype)
        assert not np.array_equal(other, block)
        refused(with_labels(teacher, block=other), planted, 0, "not five runs of session dates")

    def test_the_folds_of_a_shuffled_split(
        self, planted: Market, teacher: StoredTeacher, shuffled: tuple[np.ndarray, np.ndarray]
    ) -> None:
        """Labels and fold numbers of a shuffled split, as it would honestly store them."""
        soft, number = shuffled
        refused(with_labels(teacher, soft_label=soft, block=number), planted, 0, "not five runs")


class TestTraining:
    """`train_student` refuses, and leaves nothing."""

    def store(self, planted: Market, teacher: StoredTeacher, folder: Path) -> Path:
        """A whole teacher's folder, digests and all, as somebody's own labelling code would leave it."""
        metadata = teacher.metadata | {"soft_labels_digest": sha256_columns(**teacher.soft_labels)}
        model = (planted.teacher / "teacher_model.onnx").read_bytes()
        staging = folder / "staging"
        staging.mkdir(parents=True)
        publish_teacher(staging, folder / "teacher", model, metadata, teacher.soft_labels)
        return folder / "teacher"

    def train(self, teacher: Path, market: Market, output: Path) -> dict[str, Any]:
        """A student of a teacher's folder."""
        return train_student(
            teacher,
            market.bars,
            output_dir=output,
            version=VERSION,
            seed=0,
            created_by="test",
            model_type="logistic",
        )

    @pytest.mark.parametrize("case", ["in sample", "shuffled", "shuffled, with its folds", "unpurged"])
    def test_no_student_of_labels_in_fold(
        self,
        planted: Market,
        teacher: StoredTeacher,
        seen: np.ndarray,
        unpurged: np.ndarray,
        shuffled: tuple[np.ndarray, np.ndarray],
        tmp_path: Path,
        case: str,
    ) -> None:
        """A teacher's folder that is whole by its digests, but whose labels knew the answers, trains nobody."""
        soft, number = shuffled
        columns = {
            "in sample": {"soft_label": seen},
            "shuffled": {"soft_label": soft},
            "shuffled, with its folds": {"soft_label": soft, "block": number},
            "unpurged": {"soft_label": unpurged},
        }[case]
        folder = self.store(planted, with_labels(teacher, **columns), tmp_path)
        before = files_below(tmp_path)
        with pytest.raises(LabelsInFold):
            self.train(folder, planted, tmp_path / "student")
        assert files_below(tmp_path) == before
        assert not (tmp_path / "student").exists()

    def test_the_sound_folder_trains(self, planted: Market, teacher: StoredTeacher, tmp_path: Path) -> None:
        """The same way of storing, with sound labels, gives the very student of the market."""
        trained = self.train(self.store(planted, teacher, tmp_path), planted, tmp_path / "student")
        assert trained["digest"] == planted.model("logistic").digest

    def test_labels_edited_in_place(self, planted: Market, teacher: StoredTeacher, tmp_path: Path) -> None:
        """Labels that no longer have their digest are refused before anything is fitted."""
        honest = self.store(planted, teacher, tmp_path / "honest")
        turned = with_labels(teacher, soft_label=1.0 - teacher.soft_labels["soft_label"])
        other = self.store(planted, turned, tmp_path / "other")
        (honest / SOFT_LABELS_FILE).write_bytes((other / SOFT_LABELS_FILE).read_bytes())
        with pytest.raises(ArtifactChanged, match="differs from its digest"):
            self.train(honest, planted, tmp_path / "student")

    def test_symbols_that_are_missing(self, planted: Market, tmp_path: Path) -> None:
        """Without the bars of every training symbol nothing can be proved, and the message names them."""
        fewer = replace(planted, bars={"PLANT01": planted.bars["PLANT01"]})
        with pytest.raises(UsageError, match=r"PLANT02.*PLANT06"):
            self.train(planted.teacher, fewer, tmp_path / "student")


@pytest.fixture(scope="module")
def lightgbm(planted: Market, tmp_path_factory: pytest.TempPathFactory) -> StoredTeacher:
    """A LightGBM teacher of the planted market."""
    pytest.importorskip("lightgbm", reason="LightGBM is an optional teacher")
    about = read_teacher(planted.teacher).metadata
    folder = tmp_path_factory.mktemp("lightgbm") / "teacher"
    train_teacher(
        planted.bars,
        strategy="swing",
        market="us",
        interval="1d",
        first_day=session_day(dt.date.fromisoformat(about["training_window"]["start"])),
        last_day=planted.training_end,
        horizon_bars=5,
        seed=0,
        output_dir=folder,
        version=VERSION,
        bars_location=str(planted.location),
        kind="lightgbm",
    )
    return read_teacher(folder)


class TestLightGBM:
    """The other kind of teacher is proved with its own learner."""

    @pytest.mark.parametrize("seed", [0, 3])
    def test_sound_and_in_sample(self, planted: Market, lightgbm: StoredTeacher, seed: int) -> None:
        """Its labels are given again by LightGBM; its labels in sample, and the other learner's, are refused."""
        assert verified(lightgbm, planted.bars, seed)["largest_difference"] <= TOLERANCE
        known = in_sample(rows_of(planted, lightgbm), "lightgbm")
        refused(with_labels(lightgbm, soft_label=known), planted, seed, "differ by up to")
        others = read_teacher(planted.teacher).soft_labels["soft_label"]
        refused(with_labels(lightgbm, soft_label=others), planted, seed, "differ by up to")
