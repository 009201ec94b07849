"""Ways around a promotion that were tried once and led somewhere; each is refused now."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from sqkit.audit_log import HALT, PROMOTE, require_content
from sqkit.errors import ConflictError, DecisionStale, SettingsError, SlotMismatch, UsageError
from sqkit.files import exclusive, write_text
from sqkit.production.env_file import ENABLED
from sqkit.production.promotion import promote
from sqkit.production.slots import all_slots
from sqkit.settings import Settings
from tests.releases import ASHA, Slotted, promotion_of


@pytest.mark.parametrize(
    "path",
    [
        "data/models/audit.jsonl",
        "data/models/student_model.onnx",
        "data/models/archive/x/student_model.onnx",
        "data/models/20250101_000000/student/student_model.onnx",
        "data/models/production/release.json",
    ],
)
def test_a_production_path_on_something_else_of_ours_is_refused(path: str, tmp_path: Path) -> None:
    """A variable must not have the log, the archive or a candidate overwritten by a model."""
    with pytest.raises(SettingsError, match="a folder of its own"):
        all_slots(Settings(_env_file=None, student_model_path=path), tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        "SENSEQUANT_A=$(touch PWNED)",
        "SENSEQUANT_STUDENT_MODEL_PATH=$(touch PWNED)",
        "SENSEQUANT_STUDENT_MODEL_PATH='a'; touch PWNED; 'b'",
        "SENSEQUANT_STUDENT_MODEL_ENABLED=maybe",
        "PATH=/tmp",
    ],
)
def test_a_log_line_sets_nothing_but_the_four_variables(line: str, tmp_path: Path) -> None:
    """What a repair writes into an env file can run nothing when it is sourced."""
    slotted = Slotted(tmp_path)
    entry = slotted.promote(1)
    content = {name: value for name, value in entry.items() if name not in ("kind", "previous", "digest")} | {
        "environment": {"file": ".env", "lines": [line]}
    }

    with pytest.raises(UsageError, match="environment"):
        require_content(PROMOTE, content)


def test_a_repair_never_enables_scoring(tmp_path: Path) -> None:
    """A person switched it off since; that a record beside the model got lost must not switch it on again."""
    slotted = Slotted(tmp_path)
    promotion = promotion_of(1)
    lines = [f"{ENABLED}=true", "SENSEQUANT_STUDENT_MODEL_VERSION=20240102_000001"]
    content: dict[str, Any] = {**promotion.content, "environment": {"file": ".env", "lines": lines}}
    promote(slotted.place, type(promotion)(promotion.files, content))
    assert f"{ENABLED}=true" in (tmp_path / ".env").read_text()

    write_text(tmp_path / ".env", f"{ENABLED}=false\n")
    slotted.slot.release_path.unlink()
    slotted.production.recover()

    assert f"{ENABLED}=false" in (tmp_path / ".env").read_text()
    assert slotted.live == 1


def test_what_came_between_examining_and_committing_is_not_overwritten(tmp_path: Path) -> None:
    """Compare and swap: the log is asked again under its own lock."""
    slotted = Slotted(tmp_path)
    slotted.promote(1)
    examined = len(slotted.entries)
    slotted.promote(2)

    with pytest.raises(DecisionStale, match="recorded meanwhile by Asha"):
        promote(slotted.place, promotion_of(3), examined=examined)
    assert slotted.live == 2
    production = slotted.production
    examined = len(slotted.entries)
    production.append(slotted.slot, HALT, {"level": "student_off", "reason": "feed"}, actor=ASHA)
    slotted.on("")
    assert promote(slotted.place, promotion_of(3), examined=examined)["kind"] == PROMOTE


def test_a_slot_is_not_given_another_slots_folder(tmp_path: Path) -> None:
    """Remapped paths would take a release over, and leave its quarantine behind."""
    default = Slotted(tmp_path)
    default.promote(1)
    settings = Settings(
        _env_file=None,
        market="us",
        student_model_path="elsewhere/student_model.onnx",
        student_model_paths={"swing": default.settings.student_model_path},
    )
    remapped = type(default.production)(settings, tmp_path, clock=lambda: default.now, actor=ASHA)

    with pytest.raises(SlotMismatch, match="holds the release of slot default"):
        with remapped.changing(remapped.slot("swing")):
            pass


def test_a_folder_is_held_by_one_at_a_time_also_while_its_lock_is_removed(tmp_path: Path) -> None:
    """Holding and leaving a folder that is made and removed each time, from many threads: never two inside."""
    inside: list[int] = []
    most: list[int] = []

    def work() -> None:
        for _ in range(500):
            try:
                with exclusive(tmp_path / "made", "test"):
                    inside.append(1)
                    most.append(len(inside))
                    inside.pop()
            except ConflictError:
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert max(most) == 1


def test_a_pipe_in_a_models_place_keeps_nobody_waiting(tmp_path: Path) -> None:
    """A pipe or a folder is no model: a rollback goes on and puts the release there."""
    slotted = Slotted(tmp_path)
    slotted.promote(1)
    slotted.promote(2)
    slotted.slot.model_path.unlink()
    os.mkfifo(slotted.slot.model_path)
    slotted.roll_back()
    assert slotted.live == 1

    slotted.slot.model_path.unlink()
    slotted.slot.model_path.mkdir()
    slotted.roll_back("none")
    slotted.promote(3)
    assert slotted.live == 3
