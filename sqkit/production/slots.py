"""Slots: the places where a production model lies, one for each strategy that has its own.

A slot's folder holds the model, ``release.json``, ``halt.json`` while it is halted, and the lock.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqkit.artifacts import HALT_FILE, RELEASE_FILE
from sqkit.errors import SettingsError, UsageError
from sqkit.settings import PREFIX, Settings

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
        Two slots share a folder: their release.json would be one file.
    """
    slots = [Slot(name, root / path) for name, path in settings.slot_paths().items()]
    taken: dict[Path, str] = {}
    for slot in slots:
        other = taken.setdefault(slot.folder.resolve(), slot.name)
        if other != slot.name:
            raise SettingsError(
                f"slots {other} and {slot.name} share the folder {slot.folder}; give each its own in "
                f"{PREFIX}STUDENT_MODEL_PATHS",
                slots=[other, slot.name],
            )
    return slots


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


def models_folder(settings: Settings, root: Path = Path()) -> Path:
    """``data/models``: candidates, archive and audit log lie below it."""
    return root / settings.data_dir / "models"
