"""Slots: each strategy's own production place, and two slots that never share one."""

from __future__ import annotations

from pathlib import Path

import pytest

from sqkit.errors import SettingsError, UsageError
from sqkit.production.slots import all_slots, models_folder, slot_named
from sqkit.settings import Settings
from tests.releases import Slotted, files_below

SWING = "data/models/swing/student_model.onnx"


def settings(**values: object) -> Settings:
    """Settings by default, but for these."""
    return Settings(_env_file=None, **values)  # type: ignore[arg-type]


def test_there_is_always_the_default_slot(tmp_path: Path) -> None:
    """It is where student_model_path says, and everything of it lies in one folder."""
    (slot,) = all_slots(settings(), tmp_path)

    assert slot.name == "default"
    assert slot.model_path == tmp_path / "data/models/production/student_model.onnx"
    assert {slot.release_path.parent, slot.halt_path.parent, slot.folder} == {slot.model_path.parent}
    assert (slot.release_path.name, slot.halt_path.name) == ("release.json", "halt.json")


def test_a_strategy_may_have_its_own(tmp_path: Path) -> None:
    """The default slot comes first; a strategy without a place of its own means the default one."""
    given = settings(student_model_paths={"swing": SWING})

    assert [slot.name for slot in all_slots(given, tmp_path)] == ["default", "swing"]
    assert slot_named(given, "swing", tmp_path).model_path == tmp_path / SWING
    assert slot_named(given, "intraday", tmp_path).name == "default"
    assert slot_named(given, "default", tmp_path).name == "default"


@pytest.mark.parametrize("name", ["", "futures", "Swing", "../swing", "production"])
def test_an_unknown_slot_is_refused(name: str) -> None:
    """The refusal lists those there are."""
    with pytest.raises(UsageError, match="choose one of default, swing"):
        slot_named(settings(student_model_paths={"swing": SWING}), name)


@pytest.mark.parametrize(
    "path",
    [
        "data/models/production/swing.onnx",
        "data/models/swing/../production/swing.onnx",
        "data/models/./production/student_model.onnx",
    ],
)
def test_two_slots_in_one_folder_are_refused(tmp_path: Path, path: str) -> None:
    """Their release.json would be one file; however the path is written."""
    with pytest.raises(SettingsError, match="slots default and swing share the folder"):
        all_slots(settings(student_model_paths={"swing": path}), tmp_path)


def test_two_slots_in_one_folder_behind_a_link_are_refused(tmp_path: Path) -> None:
    """A symlink to the other slot's folder is that folder."""
    (tmp_path / "data/models/production").mkdir(parents=True)
    (tmp_path / "data/models/swing").symlink_to("production")

    with pytest.raises(SettingsError, match="share the folder"):
        all_slots(settings(student_model_paths={"swing": SWING}), tmp_path)


def test_log_and_archive_are_shared(tmp_path: Path) -> None:
    """All slots of a project write one history, below its data folder."""
    default, swing = Slotted(tmp_path), Slotted(tmp_path, slot_name="swing")
    default.promote(1)
    swing.promote(2)

    assert models_folder(default.settings, tmp_path) == tmp_path / "data/models" == swing.models
    assert [entry["slot"] for entry in default.entries] == ["default", "swing"]
    assert len(list((default.models / "archive").iterdir())) == 2
    assert models_folder(settings(data_dir="elsewhere"), tmp_path) == tmp_path / "elsewhere/models"


def test_naming_a_slot_makes_nothing(tmp_path: Path) -> None:
    """Only a change to production makes its folder."""
    all_slots(settings(student_model_paths={"swing": SWING}), tmp_path)

    assert files_below(tmp_path) == {}
    assert list(tmp_path.iterdir()) == []
