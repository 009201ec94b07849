"""What the releases of a slot were validated at: read from the checklist that each archived release holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqkit.artifacts import CHECKLIST_FILE
from sqkit.errors import SqkitError
from sqkit.files import parse_json
from sqkit.monitoring_baseline import MonitoringBaseline
from sqkit.production.archive import archived_file
from sqkit.production.audit import AuditLog
from sqkit.production.release import read_release
from sqkit.production.slots import Slot


class ReleaseBaselines:
    """Baselines by the first digits of a model's digest, each read once.

    Parameters
    ----------
    models_dir
        ``data/models``.
    slot
        Whose releases; ``release.json`` beside its model tells where there is no audit log.
    log
        The audit log.
    """

    def __init__(self, models_dir: Path, slot: Slot, log: AuditLog) -> None:
        self._models_dir = models_dir
        self._slot = slot
        self._log = log
        self._known: dict[str, MonitoringBaseline | None] = {}

    def __call__(self, model: str) -> MonitoringBaseline | None:
        """What a model was validated at; None where no release says so."""
        if model and self._known.get(model) is None:
            try:
                decision = released_checklist(self._models_dir, self._slot, self._log, model)
            except (SqkitError, OSError):
                decision = None
            self._known[model] = MonitoringBaseline.of_checklist(decision)
        return self._known.get(model)


def released_checklist(models_dir: Path, slot: Slot, log: AuditLog, model: str) -> dict[str, Any] | None:
    """The decision on a model, by the first digits of its digest; None where no release of the slot has it.

    Raises
    ------
    SqkitError
        Log, release or record do not hold.
    """
    if not log.path.exists():
        record = read_release(slot.release_path)
        return record["checklist"] if str(record["model"] or "").startswith(model) else None
    for release in log.state(slot.name).releases.values():
        if release.model.startswith(model) and CHECKLIST_FILE in release.files:
            name, digest = release.name, release.files[CHECKLIST_FILE]
            data = archived_file(models_dir, name, CHECKLIST_FILE, digest)
            decided: dict[str, Any] = parse_json(data, Path(name) / CHECKLIST_FILE)
            return decided
    return None
