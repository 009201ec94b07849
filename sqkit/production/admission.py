"""May the model of a slot be served here, under today's settings? Decided once, when it is loaded.

`StudentScorer` and the engine's reload ask here. In: settings, a strategy, the time. Out: an `Admission`: the
verified model, or the reason why there is none. Nothing raises and nothing is written.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqkit.artifacts import RELEASE_FILE
from sqkit.audit_log import PROMOTE, ROLLBACK
from sqkit.errors import ModelFileMissing, SqkitError
from sqkit.production.audit import AuditLog
from sqkit.production.env_file import PIN
from sqkit.production.release import ServedRelease, served_release
from sqkit.production.slots import Slot, models_folder, slot_named
from sqkit.settings import Settings
from sqkit.student import StudentModel
from sqkit.trading_rules import decision_differences


@dataclass(frozen=True)
class Admission:
    """What may be served in a slot.

    Attributes
    ----------
    model
        Loaded and verified; it may be there and yet be refused.
    refusal
        Why it must not speak, a reason of `sqkit.records.REASONS`; empty when it may.
    note
        The same in words, or something a person should know.
    slot, path
        Name of the slot and its production path.
    release
        What the log, or the record beside the model, says is live; None where none was asked.
    problem
        The error behind a refusal, for a traceback.
    """

    model: StudentModel | None
    refusal: str
    note: str
    slot: str
    path: Path
    release: ServedRelease | None = None
    problem: Exception | None = None

    @property
    def symbols(self) -> frozenset[str] | None:
        """What the approvals allow it to trade; None where nothing restricts it."""
        allowed = self.release.symbols if self.release else None
        return None if allowed is None else frozenset(allowed)

    @property
    def by_rollback(self) -> bool:
        """Whether a rollback put the slot into this state."""
        placed = self.release.placed_by if self.release else None
        return placed is not None and placed["kind"] == ROLLBACK

    @property
    def ends_service(self) -> bool:
        """Whether a refusal ends the service of the model before it.

        After a rollback, where nothing is live, and where nobody can say what put the slot where it is: only a
        promotion that cannot be served leaves the old model.
        """
        placed = self.release.placed_by if self.release else None
        promoted = placed is not None and placed["kind"] == PROMOTE
        return not promoted or self.refusal in ("no_student", "disabled")

    @property
    def release_name(self) -> str:
        """Of the archived release; empty without one."""
        return (self.release.release if self.release else None) or ""


def admit(
    settings: Settings,
    strategy: str,
    *,
    root: Path = Path(),
    interval: str = "",
    market: str = "",
    log: AuditLog | None = None,
) -> Admission:
    """The model of a strategy's slot, or why it must not be served.

    Parameters
    ----------
    strategy
        ``intraday`` or ``swing``.
    interval, market
        Of the bars it will see; empty: not asked.
    log
        The audit log as this process has read it before.
    """
    try:
        slot = slot_named(settings, strategy, root)
    except SqkitError as problem:
        path = root / settings.production_path(strategy)
        return Admission(None, "error", str(problem), strategy, path, problem=problem)
    if not settings.student_model_enabled:
        return Admission(None, "disabled", "scoring is disabled", slot.name, slot.model_path)
    try:
        return _admitted(settings, strategy, slot, models_folder(settings, root), interval, market, log)
    except ModelFileMissing as problem:
        return Admission(None, "no_student", str(problem), slot.name, slot.model_path)
    except Exception as problem:  # noqa: BLE001 - a model that cannot be loaded never stops trading
        said = " ".join(str(problem).split()) or type(problem).__name__
        return Admission(None, "error", said, slot.name, slot.model_path, _placed(slot, log), problem)


def _placed(slot: Slot, log: AuditLog | None) -> ServedRelease | None:
    """What put the slot where it is, where its model cannot be had; None where nobody can say."""
    try:
        return None if log is None else ServedRelease(None, placed_by=log.state(slot.name).placed_by)
    except (SqkitError, OSError):
        return None


def _admitted(
    settings: Settings,
    strategy: str,
    slot: Slot,
    models_dir: Path,
    interval: str,
    market: str,
    log: AuditLog | None,
) -> Admission:
    if not settings.student_model_require_release:
        model = StudentModel.load(slot.model_path)
        refusal, note = _misfit(model.metadata, strategy, interval, market)
        return Admission(model, refusal, note or "served without a release", slot.name, slot.model_path)
    release = served_release(models_dir, slot, log)
    if not slot.model_path.exists() and not slot.release_path.exists():
        # Neither model nor record: the path is wrong, or somebody cleared it; the log alone brings nothing there.
        note = f"{slot.model_path}: neither a model nor {RELEASE_FILE} lies there; correct the path, or run sqkit doctor"
        return Admission(None, "no_student", note, slot.name, slot.model_path, release)
    if release.model is None:
        return Admission(None, "no_student", release.note, slot.name, slot.model_path, release)
    model = StudentModel(release.model, slot.model_path)
    refusal, note = _misfit(model.metadata, strategy, interval, market)
    if not refusal:
        refusal, note = _pinned(settings, slot, release)
    if not refusal:
        different = _different(settings, model.metadata, release.checklist)
        refusal, note = ("settings_differ", different) if different else ("", note)
    said = "; ".join(text for text in (note, release.note) if text)
    return Admission(model, refusal, said, slot.name, slot.model_path, release)


def _misfit(about: Mapping[str, Any], strategy: str, interval: str, market: str) -> tuple[str, str]:
    asked = {"strategy": strategy, "interval": interval, "market": market}
    wrong = [
        f"made for {name} {about[name]}, not {one}"
        for name, one in asked.items()
        if one and about[name] != one
    ]
    return ("strategy_mismatch", "; ".join(wrong)) if wrong else ("", "")


def _pinned(settings: Settings, slot: Slot, release: ServedRelease) -> tuple[str, str]:
    pin = settings.student_model_version if slot.name == "default" else ""
    if not pin or pin == release.model_version:
        return "", ""
    said = f"{PIN}={pin} pins another version than {release.model_version}"
    placed = release.placed_by or {"kind": "", "environment": None}
    if placed["kind"] == ROLLBACK:
        return "", f"{said}; it was restored by a rollback, which overrides the pin"
    rewritten = placed["environment"] or {"lines": [], "file": ""}
    if f"{PIN}={release.model_version}" in rewritten["lines"] and PIN not in os.environ:
        # This process read the file before the promotion rewrote it.
        return "", f"{said}; its promotion rewrote the pin in {rewritten['file']}"
    return "version_mismatch", said


def _different(settings: Settings, about: Mapping[str, Any], checklist: Mapping[str, Any] | None) -> str:
    if checklist is None:
        return "the release holds no decision, so nobody knows under which settings it was validated"
    return "; ".join(decision_differences(settings, about, checklist))
