"""Teacher and student: honest soft labels, whole files, the same bytes for the same seed."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from sqkit.bars import BarArrays, make_bar_arrays
from sqkit.errors import (
    ArtifactChanged,
    ConflictError,
    OutputError,
    TrainingDataTooSmall,
    UsageError,
)
from sqkit.features import feature_matrix, student_set, teacher_set
from sqkit.files import sha256_file
from sqkit.model_file import MODEL_TYPES
from sqkit.records import DOWN, UP, iso_date, iso_instant, session_day
from sqkit.research.distil import STUDENT_FILE, train_student
from sqkit.research.folds import BLOCKS, block_folds
from sqkit.research.labels import TrainingTable, label_bars, training_table
from sqkit.research.learners import steady_threads
from sqkit.research.teacher import fit_teacher, label_out_of_fold, train_teacher
from sqkit.research.teacher_folder import read_teacher
from sqkit.sessions import load_sessions
from sqkit.student import StudentModel
from tests.synthetic_bars import FIRST_DAY, synthetic_bars

VERSION = "20250112_143000"
LAST = FIRST_DAY + 2000
WINDOW: dict[str, Any] = {
    "strategy": "swing",
    "market": "us",
    "interval": "1d",
    "first_day": FIRST_DAY + 200,
    "last_day": LAST,
    "horizon_bars": 5,
}
REQUEST: dict[str, Any] = {**WINDOW, "seed": 11, "version": VERSION, "bars_location": "data/bars/1d"}


@pytest.fixture(scope="module")
def bars() -> dict[str, BarArrays]:
    """Two daily series that go on after the training end."""
    return {name: synthetic_bars(name, seed=seed, sessions=1600) for seed, name in enumerate(("AAA", "BBB"))}


@pytest.fixture(scope="module")
def teacher_dir(bars: dict[str, BarArrays], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained teacher."""
    folder = tmp_path_factory.mktemp("models") / VERSION / "teacher"
    train_teacher(bars, output_dir=folder, **REQUEST)
    return folder


@pytest.fixture(scope="module")
def table(bars: dict[str, BarArrays]) -> TrainingTable:
    """The teacher's rows."""
    return training_table(
        bars,
        teacher_set("swing"),
        first_day=WINDOW["first_day"],
        last_day=LAST,
        horizon_bars=5,
        dead_zone=0.5,
        within_session=False,
    )


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


class TestSoftLabels:
    @pytest.mark.slow
    def test_no_label_knows_its_own_answer(self, table: TrainingTable) -> None:
        """Whatever the outcomes in and near a block are, the block's soft labels stay the same bits."""
        table = table.rows(np.arange(700))
        with steady_threads(len(table)):
            plain = label_out_of_fold(table, kind="hist_gradient_boosting", seed=1)
            for number, fold in enumerate(block_folds(table)):
                outcome = np.where(table.outcome == UP, DOWN, UP).astype(np.int8)
                outcome[fold.train] = table.outcome[fold.train]
                assert not np.any(outcome[fold.test] == table.outcome[fold.test])
                flipped = label_out_of_fold(
                    dataclasses.replace(table, outcome=outcome), kind="hist_gradient_boosting", seed=1
                )
                inside = plain["block"] == number
                assert np.array_equal(plain["soft_label"][inside], flipped["soft_label"][inside])
                assert not np.array_equal(plain["soft_label"][~inside], flipped["soft_label"][~inside])
                if number == BLOCKS - 1:  # labels for the comparison know nothing of the last block at all
                    assert np.array_equal(
                        plain["comparison_soft_label"], flipped["comparison_soft_label"], equal_nan=True
                    )

    def test_noise_is_not_memorised(self, table: TrainingTable) -> None:
        """On coin-toss outcomes and noise features a fitted teacher shines on its rows; soft labels do not."""
        generator = np.random.default_rng(0)
        noise = dataclasses.replace(
            table,
            features=generator.standard_normal(table.features.shape).astype(np.float32),
            outcome=np.where(generator.random(len(table)) < 0.5, UP, DOWN).astype(np.int8),
        )
        with steady_threads(len(table)):
            soft = label_out_of_fold(noise, kind="hist_gradient_boosting", seed=1)["soft_label"]
            seen = fit_teacher("hist_gradient_boosting", noise.features, noise.up, seed=1)
            assert roc_auc_score(noise.up, seen.probability_up(noise.features)) > 0.85
        assert abs(roc_auc_score(noise.up, soft) - 0.5) < 0.06

    def test_every_row_is_labelled(self, teacher_dir: Path) -> None:
        """Every row has a soft label; for the comparison the last block and its neighbours have none."""
        labels = read_teacher(teacher_dir).soft_labels
        assert np.all((labels["soft_label"] > 0) & (labels["soft_label"] < 1))
        without = np.isnan(labels["comparison_soft_label"])
        assert without[labels["block"] == BLOCKS - 1].all()
        assert 0 < without[labels["block"] < BLOCKS - 1].sum() <= 2 * 2 * 5


class TestTeacher:
    def test_its_folder(self, teacher_dir: Path, bars: dict[str, BarArrays], table: TrainingTable) -> None:
        """Three files; the metadata name the bars, the window and the digests of what lies there."""
        assert set(contents(teacher_dir)) == {"teacher_model.onnx", "metadata.json", "soft_labels.parquet"}
        metadata = json.loads((teacher_dir / "metadata.json").read_text())
        assert metadata["teacher_digest"] == sha256_file(teacher_dir / "teacher_model.onnx")
        assert metadata["bars_location"] == "data/bars/1d"
        assert metadata["symbols"] == ["AAA", "BBB"]
        assert metadata["training_window"]["end"] <= iso_date(LAST)
        assert metadata["largest_session_date"] == metadata["training_window"]["end"]
        for name, series in bars.items():
            seen = series.slice(0, series.window(FIRST_DAY, LAST)[1])
            assert metadata["data_digests"][name] == seen.digest()
        assert metadata["last_label_end"] == iso_instant(table.label_end_ns.max())
        assert table.label_end_ns.max() <= seen.available_ns[-1]
        frame = pd.read_parquet(teacher_dir / "soft_labels.parquet")
        assert len(frame) == metadata["rows"]["decisive"] == sum(metadata["block_rows"])
        assert set(frame["symbol"]) == {"AAA", "BBB"}

    def test_the_place_of_the_bars_is_in_no_digest(self, bars: dict[str, BarArrays], tmp_path: Path) -> None:
        """The same bars from another folder make the same model, labels and digests."""
        request = {**REQUEST, "first_day": LAST - 1200}
        one = train_teacher(bars, output_dir=tmp_path / "a", **request)
        two = train_teacher(bars, output_dir=tmp_path / "b", **{**request, "bars_location": "s3://x/y"})
        assert [key for key in one if one[key] != two[key]] == ["bars_location"]
        for name in ("teacher_model.onnx", "soft_labels.parquet"):
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()

    def test_bars_after_the_end_change_nothing(
        self, bars: dict[str, BarArrays], teacher_dir: Path, tmp_path: Path
    ) -> None:
        """Without the later bars teacher and student are the same bytes; the largest date seen says why."""
        short = {name: series.slice(0, series.window(0, LAST)[1]) for name, series in bars.items()}
        assert all(len(short[name]) < len(bars[name]) for name in bars)
        train_teacher(short, output_dir=tmp_path / "teacher", **REQUEST)
        assert contents(tmp_path / "teacher") == contents(teacher_dir)
        summaries = [
            train_student(teacher_dir, source, output_dir=tmp_path / name, version=VERSION, seed=3)
            for name, source in (("with", bars), ("without", short))
        ]
        assert summaries[0] == summaries[1]
        assert summaries[0]["largest_session_date"] <= iso_date(LAST)
        assert contents(tmp_path / "with") == contents(tmp_path / "without")

    def test_the_same_teacher_twice_another_never(
        self, bars: dict[str, BarArrays], teacher_dir: Path
    ) -> None:
        """The same request leaves the folder as it is; another seed is a conflict, exit 5."""
        before = contents(teacher_dir)
        train_teacher(bars, output_dir=teacher_dir, **REQUEST)
        with pytest.raises(ConflictError, match="another teacher") as refusal:
            train_teacher(bars, output_dir=teacher_dir, **{**REQUEST, "seed": 12})
        assert refusal.value.exit_code == 5
        assert contents(teacher_dir) == before
        assert list(teacher_dir.parent.iterdir()) == [teacher_dir]

    def test_a_folder_with_other_things(self, bars: dict[str, BarArrays], tmp_path: Path) -> None:
        """Somebody's notes are not replaced by a teacher."""
        (tmp_path / "notes.txt").write_text("mine")
        with pytest.raises(ConflictError, match="other files"):
            train_teacher(bars, output_dir=tmp_path, **REQUEST)
        assert contents(tmp_path) == {"notes.txt": b"mine"}

    def test_a_place_that_is_a_file(self, bars: dict[str, BarArrays], tmp_path: Path) -> None:
        """An output folder below a file is one clear line."""
        (tmp_path / "file").write_text("")
        with pytest.raises(OutputError, match="a file is in the way"):
            train_teacher(
                bars, output_dir=tmp_path / "file" / "teacher", **{**REQUEST, "first_day": LAST - 1000}
            )

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"strategy": "intraday"}, "needs bars within the session"),
            ({"strategy": "carry"}, "give intraday or swing"),
            ({"market": "nse"}, "asked for 1d of nse"),
            ({"interval": "5m"}, "asked for 5m of us"),
            ({"kind": "oracle"}, "teacher kind oracle"),
            ({"first_day": LAST, "last_day": LAST - 10}, "ends before it begins"),
        ],
    )
    def test_what_cannot_be_meant(
        self, bars: dict[str, BarArrays], tmp_path: Path, change: dict[str, Any], message: str
    ) -> None:
        """Arguments that do not go together are refused before anything is written."""
        with pytest.raises(UsageError, match=message):
            train_teacher(bars, output_dir=tmp_path / "teacher", **{**REQUEST, **change})
        assert not list(tmp_path.iterdir())

    def test_too_little_to_learn_from(self, bars: dict[str, BarArrays], tmp_path: Path) -> None:
        """A window of weeks is refused and leaves nothing behind."""
        with pytest.raises(TrainingDataTooSmall, match="longer window"):
            train_teacher(bars, output_dir=tmp_path / "teacher", **{**REQUEST, "first_day": LAST - 60})
        assert not list(tmp_path.iterdir())

    def test_lightgbm(self, bars: dict[str, BarArrays], tmp_path: Path) -> None:
        """The optional teacher trains, exports and distils like the usual one."""
        pytest.importorskip("lightgbm", reason="LightGBM is an optional teacher")
        request = {**REQUEST, "kind": "lightgbm", "first_day": LAST - 1200}
        metadata = train_teacher(bars, output_dir=tmp_path / "teacher", **request)
        assert "lightgbm" in metadata["library_versions"]
        train_student(tmp_path / "teacher", bars, output_dir=tmp_path / "student", version=VERSION, seed=1)
        assert StudentModel.load(tmp_path / "student" / STUDENT_FILE).version == VERSION

    def test_lightgbm_is_not_installed(
        self, bars: dict[str, BarArrays], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Asking for it without having it says what to install."""
        monkeypatch.setitem(sys.modules, "lightgbm", None)
        with pytest.raises(UsageError, match="pip install lightgbm"):
            train_teacher(bars, output_dir=tmp_path / "teacher", **{**REQUEST, "kind": "lightgbm"})


def test_intraday(tmp_path: Path) -> None:
    """Five-minute bars train an intraday student whose labels end in the session they began in."""
    bars = {"AAA": synthetic_bars("AAA", seed=2, sessions=80, interval="5m")}
    request = {
        **REQUEST,
        "strategy": "intraday",
        "interval": "5m",
        "horizon_bars": 15,
        "first_day": FIRST_DAY + 5,
        "last_day": FIRST_DAY + 90,
    }
    metadata = train_teacher(bars, output_dir=tmp_path / "teacher", **request)
    sessions = len(
        np.unique(bars["AAA"].session_days[slice(*bars["AAA"].window(FIRST_DAY + 5, FIRST_DAY + 90))])
    )
    assert metadata["rows"]["unknown"] == sessions * 15
    train_student(tmp_path / "teacher", bars, output_dir=tmp_path / "student", version=VERSION, seed=1)
    model = StudentModel.load(tmp_path / "student" / STUDENT_FILE)
    assert (model.metadata["strategy"], model.feature_set.name) == ("intraday", student_set("intraday").name)


class TestStudent:
    @pytest.mark.parametrize("model_type", MODEL_TYPES)
    def test_each_kind(
        self, bars: dict[str, BarArrays], teacher_dir: Path, tmp_path: Path, model_type: str
    ) -> None:
        """Every kind trains, loads, finds the planted drift out of sample, and trains to the same bytes."""
        summaries = [
            train_student(
                teacher_dir,
                bars,
                model_type=model_type,
                output_dir=tmp_path / folder,
                version=VERSION,
                seed=5,
                created_by="test",
            )
            for folder in ("one", "two")
        ]
        assert summaries[0] == summaries[1]
        assert contents(tmp_path / "one") == contents(tmp_path / "two")
        model = StudentModel.load(tmp_path / "one" / STUDENT_FILE)
        summary = summaries[0]
        assert model.digest == summary["digest"]
        assert model.metadata == summary["metadata"]
        assert summary["export"]["largest_difference"] <= 1e-6

        answers, ups = [], []
        for series in bars.values():
            outcome = label_bars(series, 5, 0.5, False).outcome
            later = (series.session_days > LAST + 10) & np.isin(outcome, (UP, DOWN))
            answers.append(model.probabilities(feature_matrix(model.feature_set, series)[later]))
            ups.append(outcome[later] == UP)
        assert roc_auc_score(np.concatenate(ups), np.concatenate(answers)) > 0.54

    def test_its_metadata(self, bars: dict[str, BarArrays], teacher_dir: Path, tmp_path: Path) -> None:
        """The file names its teacher, its data, its window and its classes, and the ranges of its rows."""
        summary = train_student(
            teacher_dir,
            bars,
            model_type="logistic",
            output_dir=tmp_path,
            version=VERSION,
            seed=5,
            created_by="me",
        )
        metadata = StudentModel.load(tmp_path / STUDENT_FILE).metadata
        teacher = read_teacher(teacher_dir)
        for key in (
            "data_digest",
            "teacher_digest",
            "training_window",
            "symbols",
            "market",
            "last_label_end",
        ):
            assert metadata[key] == teacher.metadata[key]
        block = int(teacher.metadata["soft_labels_digest"][:8], 16) % 5
        assert metadata["out_of_fold"] == {"blocks": 5, "refitted_block": block, "largest_difference": 0.0}
        assert (metadata["created_by"], metadata["model_type"], metadata["seed"]) == ("me", "logistic", 5)
        assert metadata["class_order"] == ["DOWN", "UP"]
        features = student_set("swing")
        assert metadata["feature_names"] == list(features.columns)
        labels = teacher.soft_labels
        assert metadata["training_base_rate"] == np.mean(labels["outcome"] == UP)
        seen = []
        for index, name in enumerate(teacher.metadata["symbols"]):
            at = np.isin(bars[name].timestamp_ns, labels["bar_time"][labels["symbol_index"] == index])
            seen.append(feature_matrix(features, bars[name])[at].astype(np.float32))
        rows = np.concatenate(seen)
        assert len(rows) == summary["rows"]["decisive"]
        expected = np.column_stack([rows.min(axis=0), rows.max(axis=0)])
        np.testing.assert_array_equal(metadata["feature_ranges"], expected)
        assert summary["feature_ranges"][features.columns[0]] == metadata["feature_ranges"][0]

    def test_distillation_is_measured(
        self, bars: dict[str, BarArrays], teacher_dir: Path, tmp_path: Path
    ) -> None:
        """Three models on the last block's rows, fitted on the four before; the teacher's figures are its own."""
        summary = train_student(teacher_dir, bars, output_dir=tmp_path, version=VERSION, seed=5)
        figures = {row["model"]: row for row in summary["distillation"]}
        assert list(figures) == ["student", "student_hard_labels", "teacher"]
        labels = read_teacher(teacher_dir).soft_labels
        last = labels["block"] == BLOCKS - 1
        answer, up = labels["soft_label"][last], labels["outcome"][last] == UP
        assert figures["teacher"]["rows"] == last.sum()
        assert figures["teacher"]["hit_rate"] == np.mean((answer >= 0.5) == up)
        assert figures["teacher"]["brier"] == pytest.approx(np.mean((answer - up) ** 2))
        assert figures["teacher"]["auc"] == pytest.approx(roc_auc_score(up, answer))
        assert {row["training_rows"] for row in figures.values()} == {
            np.isfinite(labels["comparison_soft_label"]).sum()
        }
        assert all(0.45 < row["auc"] < 0.85 for row in figures.values())
        assert figures["student"]["brier"] != figures["student_hard_labels"]["brier"]

    def test_the_version_changes_no_behaviour(
        self, bars: dict[str, BarArrays], teacher_dir: Path, tmp_path: Path
    ) -> None:
        """Two version tags of one training: other files, one behaviour digest."""
        models = []
        for version in (VERSION, "20260101_000000"):
            train_student(teacher_dir, bars, output_dir=tmp_path / version, version=version, seed=5)
            models.append(StudentModel.load(tmp_path / version / STUDENT_FILE))
        assert models[0].digest != models[1].digest
        assert models[0].behaviour_digest(0.6) == models[1].behaviour_digest(0.6)

    def test_another_student_is_not_replaced(
        self, bars: dict[str, BarArrays], teacher_dir: Path, tmp_path: Path
    ) -> None:
        """The same student twice is fine, another one in its place is a conflict."""
        arguments: dict[str, Any] = {"model_type": "logistic", "output_dir": tmp_path, "version": VERSION}
        train_student(teacher_dir, bars, seed=5, **arguments)
        before = contents(tmp_path)
        train_student(teacher_dir, bars, seed=5, **arguments)
        with pytest.raises(ConflictError, match="another student"):
            train_student(teacher_dir, bars, seed=6, **arguments)
        assert contents(tmp_path) == before

    def test_other_bars_than_the_teachers(
        self, bars: dict[str, BarArrays], teacher_dir: Path, tmp_path: Path
    ) -> None:
        """A changed price, or a missing symbol, is refused and named."""
        rows = bars["BBB"].rows.copy()
        rows[5, 4] += 1.0
        changed = {**bars, "BBB": dataclasses.replace(bars["BBB"], rows=rows)}
        with pytest.raises(ArtifactChanged, match="BBB"):
            train_student(teacher_dir, changed, output_dir=tmp_path, version=VERSION, seed=1)
        with pytest.raises(UsageError, match="BBB"):
            train_student(teacher_dir, {"AAA": bars["AAA"]}, output_dir=tmp_path, version=VERSION, seed=1)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("name", ["teacher_model.onnx", "metadata.json", "soft_labels.parquet"])
    def test_a_teacher_that_changed(
        self, bars: dict[str, BarArrays], teacher_dir: Path, tmp_path: Path, name: str
    ) -> None:
        """A byte more in any of the teacher's files and nothing is distilled from it."""
        for file, data in contents(teacher_dir).items():
            (tmp_path / file).write_bytes(data + b"x" * (file == name))
        with pytest.raises(ArtifactChanged, match=name.replace(".", r"\.")):
            train_student(tmp_path, bars, output_dir=tmp_path / "s", version=VERSION, seed=1)

    def test_no_teacher_or_kind(self, bars: dict[str, BarArrays], teacher_dir: Path, tmp_path: Path) -> None:
        """An empty teacher folder and an unknown kind each say what to do."""
        with pytest.raises(UsageError, match="sqkit train-teacher"):
            train_student(tmp_path, bars, output_dir=tmp_path, version=VERSION, seed=1)
        with pytest.raises(UsageError, match="logistic, mlp, gradient_boosting, random_forest"):
            train_student(teacher_dir, bars, model_type="svm", output_dir=tmp_path, version=VERSION, seed=1)


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_training as t
bars = {n: t.synthetic_bars(n, seed=s, sessions=1600) for s, n in enumerate(("AAA", "BBB"))}
out = Path(sys.argv[1])
t.train_teacher(bars, output_dir=out / "teacher", **t.REQUEST)
for kind in t.MODEL_TYPES:
    t.train_student(out / "teacher", bars, model_type=kind, output_dir=out / kind, version=t.VERSION, seed=2)
"""


@pytest.mark.slow
def test_processes_and_threads_make_no_difference(tmp_path: Path) -> None:
    """Two processes with other thread counts and hash seeds write the same bytes, every kind."""
    for name, threads in (("a", "1"), ("b", "2")):
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": threads,
            "OPENBLAS_NUM_THREADS": threads,
            "PYTHONHASHSEED": threads,
        }
        subprocess.run(
            [sys.executable, "-c", SCRIPT, str(tmp_path / name), str(Path(__file__).parent)],
            env=environment,
            check=True,
        )
    for folder in ("teacher", *MODEL_TYPES):
        assert contents(tmp_path / "a" / folder) == contents(tmp_path / "b" / folder)


@pytest.mark.slow
def test_real_bars(shared_data: Path, tmp_path: Path) -> None:
    """On real daily bars every kind trains on at most 30,000 rows and names the last date it saw."""
    place = shared_data / "nse" / "daily_adjusted_2008_2021"
    sessions = load_sessions("nse")
    bars = {}
    for symbol in ("RELIANCE", "TCS"):
        frame = pd.read_parquet(place / f"{symbol}.parquet")
        times = frame["timestamp"].dt.tz_convert("UTC").astype("datetime64[ns, UTC]").astype("int64")
        prices = frame[["open", "high", "low", "close", "volume"]].astype("float64").to_numpy()
        bars[symbol], _ = make_bar_arrays(symbol, "1d", "nse", times.to_numpy(), prices, sessions)
    end = session_day(dt.date(2018, 12, 31))
    metadata = train_teacher(
        bars,
        **{**REQUEST, "market": "nse", "first_day": session_day(dt.date(2008, 1, 1)), "last_day": end},
        output_dir=tmp_path / "teacher",
    )
    assert 2000 < metadata["rows"]["decisive"] < 30_000
    for model_type in MODEL_TYPES:
        summary = train_student(
            tmp_path / "teacher",
            bars,
            model_type=model_type,
            output_dir=tmp_path / model_type,
            version=VERSION,
            seed=1,
        )
        assert summary["largest_session_date"] == "2018-12-31"
        model = StudentModel.load(tmp_path / model_type / STUDENT_FILE)
        first, stop = bars["TCS"].window(end + 1, end + 365)
        scores = model.score_rows(feature_matrix(model.feature_set, bars["TCS"])[first:stop], 0.5)
        assert np.mean(scores.reason == 0) > 0.9
