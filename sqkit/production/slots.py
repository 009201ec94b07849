"""Slots: the places where a production model lies, one for each strategy that has its own.

A slot's folder holds the model, ``release.json``, ``halt.json`` while it is halted, and the lock.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqkit.artifacts import ARCHIVE_FOLDER, HALT_FILE, RELEASE_FILE
from sqkit.errors import SettingsError, UsageError
from sqkit.production.slot_state import SlotState
from sqkit.settings import PREFIX, Settings
from sqkit.versions import is_version

LOCK_FILE = ".promotion.lock"


@dataclass(frozen=True)
class Slot:
    """One production place.

    Attributes
    ----------
    name
        ``default``, ``intraday`` or ``swing``.
    model_path
        Where the engine looks for the model.
    """

    name: str
    model_path: Path

    @property
    def folder(self) -> Path:
        """Where everything of the slot lies."""
        return self.model_path.parent

    @property
    def release_path(self) -> Path:
        """``release.json`` beside the model."""
        return self.folder / RELEASE_FILE

    @property
    def halt_path(self) -> Path:
        """``halt.json`` beside the model."""
        return self.folder / HALT_FILE


def all_slots(settings: Settings, root: Path = Path()) -> list[Slot]:
    """Every slot of the settings, the default one first.

    Raises
    ------
    SettingsError
        Two slots share a folder: their release.json would be one file; or a slot's model would lie where
        the log, the archive or a student lies.
    """
    slots = [Slot(name, root / path) for name, path in settings.slot_paths().items()]
    models_dir = models_folder(settings, root).resolve()
    taken: dict[Path, str] = {}
    for slot in slots:
        _require_place(slot, models_dir)
        other = taken.setdefault(slot.folder.resolve(), slot.name)
        if other != slot.name:
            raise SettingsError(
                f"slots {other} and {slot.name} share the folder {slot.folder}; give each its own in "
                f"{PREFIX}STUDENT_MODEL_PATHS",
                slots=[other, slot.name],
            )
    return slots


def _require_place(slot: Slot, models_dir: Path) -> None:
    """Refuse a production path on which something else of sqkit's lies, or no model can."""
    folder, problem = slot.folder.resolve(), ""
    inner = folder.relative_to(models_dir).parts if folder.is_relative_to(models_dir) else ("",)
    if slot.model_path.suffix != ".onnx":
        problem = "is no .onnx file"
    elif not inner:
        problem = "lies beside the audit log"
    elif inner[0] == ARCHIVE_FOLDER:
        problem = "lies in the archive"
    elif is_version(inner[0]):
        problem = "lies among the candidates"
    if problem:
        raise SettingsError(
            f"slot {slot.name}: {slot.model_path} {problem}; give the production model a folder of its own, such as "
            f"{models_dir.name}/production/student_model.onnx, in {PREFIX}STUDENT_MODEL_PATH or "
            f"{PREFIX}STUDENT_MODEL_PATHS",
            slot=slot.name,
            path=str(slot.model_path),
        )


def slot_named(settings: Settings, name: str, root: Path = Path()) -> Slot:
    """The slot of a name, or of a strategy that has none of its own: then the default slot.

    Raises
    ------
    UsageError
        No slot and no strategy is called so.
    """
    slots = {slot.name: slot for slot in all_slots(settings, root)}
    if name in slots:
        return slots[name]
    if name in ("intraday", "swing"):
        return slots["default"]
    raise UsageError(f"slot {name!r}: choose one of {', '.join(slots)}", slot=name)


def other_strategy(asked: str, slot: Slot, state: SlotState) -> str:
    """What the live release of a slot trades, where a strategy was asked for that only falls back to this slot.

    Empty where the slot was named itself, where nothing is live, and where it trades what was asked for.
    """
    if asked == slot.name or state.live is None or state.live.unmanaged:
        return ""
    strategy = str(state.live.entry["strategy"])
    return "" if strategy == asked else strategy


def models_folder(settings: Settings, root: Path = Path()) -> Path:
    """``data/models``: candidates, archive and audit log lie below it."""
    return root / settings.data_dir / "models"
