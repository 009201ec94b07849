"""`StudentModelPromoter`: may this model trade, put it there, take it back.

The one door to production. Every change takes the slot's lock, first finishes what a crash left, and
counts from one line of the audit log. In: settings, the project's root, a clock. Out: results and audit
lines; nothing is printed, what a person should know on the way goes to `say`.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqkit.artifacts import APPROVALS_FILE
from sqkit.checklist_inputs import Policy, plain_json
from sqkit.checklist_signoffs import BASELINE_ARCHIVED
from sqkit.errors import AutoRollbackRefused, ConflictError, SlotMismatch, SqkitError
from sqkit.people import AUTOMATIC, Actor
from sqkit.policy_in_force import policy_digest
from sqkit.production.approvals import render_view
from sqkit.production.changes import Production, noting
from sqkit.production.env_file import env_path, environment_lines, pin_after_rollback, require_rewritable
from sqkit.production.outcomes import DegradationAlert, Promoted, RollbackAdvice, RolledBack
from sqkit.production.promotion import Place, Promotion, planned, promote
from sqkit.production.promotion_case import Case
from sqkit.production.promotion_checks import PromotionValidationResult, check_case
from sqkit.production.rollback import Target, find_target, planned_rollback, roll_back, rollback_content
from sqkit.production.slot_state import SlotState, fold
from sqkit.production.slots import Slot, other_strategy, slot_named
from sqkit.settings import Settings
from sqkit.student import inspect_model

logger = logging.getLogger(__name__)


class StudentModelPromoter:
    """Safe promotion of a student to production, and back.

    Parameters
    ----------
    settings
        See `sqkit.settings.Settings`.
    root
        The project's root; relative paths of the settings are below it.
    clock
        Gives the present, UTC; by default ``SOURCE_DATE_EPOCH`` where it is set, else the clock.
    actor
        Who acts; by default whoever runs this process.
    on_step
        Told of each step before it is done.
    alerts
        Slot name to what monitoring says of it; by default there is no monitoring.
    say
        Where lines go that a person should read.
    environ
        The process environment, in which a version pin may stand.
    verify
        Computes a decision again from a student's folder, as ``sqkit verify`` does; by default the stored
        ``verification.json`` counts.

    Usage::

        promoter = StudentModelPromoter(Settings())
        result = promoter.validate_promotion("data/models/20250112_143000/student/student_model.onnx")
        if result.can_promote:
            promoter.promote_model("data/models/20250112_143000/student/student_model.onnx")
    """

    def __init__(
        self,
        settings: Settings,
        *,
        root: Path = Path(),
        clock: Callable[[], dt.datetime] | None = None,
        actor: Actor | None = None,
        on_step: Callable[[str], None] | None = None,
        alerts: Callable[[str], DegradationAlert | None] | None = None,
        say: Callable[[str], None] | None = None,
        environ: Mapping[str, str] | None = None,
        verify: Callable[[Path], Mapping[str, Any]] | None = None,
    ) -> None:
        self.settings = settings
        self.root = root
        self.production = Production(settings, root, clock=clock, actor=actor, on_step=on_step, say=say)
        self._alerts = alerts or (lambda slot: None)
        self._environ = os.environ if environ is None else environ
        self._verify = verify

    def recover(self) -> list[str]:
        """Finish what a crash left in any slot; one line for each thing done."""
        return self.production.recover()

    # --- promotion

    def validate_promotion(self, model_path: str | Path) -> PromotionValidationResult:
        """Whether a candidate may be promoted: every check with its outcome; nothing is written.

        Raises
        ------
        AuditBroken
            The audit log does not hold, so that nobody knows what is live.
        """
        return check_case(self._case(model_path, None))

    def plan_promotion(
        self, model_path: str | Path, *, enable: bool = False, env_file: str | None = None
    ) -> Promoted:
        """What `promote_model` would do, step by step; nothing is written."""
        case = self._case(model_path, env_file)
        result = check_case(case)
        if not result.can_promote:
            return Promoted(result, None, (), ())
        place = self.production.place(case.slot, case.read.about["market"])
        promotion, lines = self._promotion(place, case, enable=enable)
        steps = [f"remove archive/{path.name}, left by a crash" for path in self.production.leftovers()]
        return Promoted(result, None, (*steps, *planned(place, promotion)), tuple(lines))

    def promote_model(
        self, model_path: str | Path, *, enable: bool = False, env_file: str | None = None
    ) -> Promoted:
        """Put a candidate into production; validated again, under the lock. There is no force.

        Parameters
        ----------
        model_path
            The candidate's ONNX file, below the models folder.
        enable
            Also say, and write where `env_file` is given, that scoring is enabled.
        env_file
            File of environment variables to bring in line, relative to the root.

        Raises
        ------
        SqkitError
            Of the class of the first check that failed; nothing has changed.
        ConflictError
            Another process is promoting or rolling back in this slot.
        OutputError
            The disk is full or read-only; the message says whether the release counts already.
        """
        slot = self._slot_of(model_path)
        with self.production.changing(slot):
            case = self._case(model_path, env_file)
            if case.slot != slot:
                raise ConflictError(
                    f"{model_path}: changed while it was read; wait until it is copied and run again",
                    path=str(model_path),
                )
            result = check_case(case)
            result.raise_refusal()
            place = self.production.place(slot, case.read.about["market"])
            promotion, lines = self._promotion(place, case, enable=enable)
            steps: list[str] = []
            with self.production.committed(slot):
                entry = promote(noting(place, steps), promotion, examined=len(case.entries))
        self.production.announce(entry)
        with contextlib.suppress(SqkitError, OSError):  # a view; the release does not hang on it
            render_view(case.read.folder, settings=self.settings, root=self.root, now=place.now)
        return Promoted(result, entry, tuple(steps), tuple(lines))

    def _case(self, model_path: str | Path, env_file: str | None) -> Case:
        """The candidate before its slot, as things stand now."""
        slot = self._slot_of(model_path)
        entries = self.production.log.entries()
        return Case(
            str(model_path),
            self.settings,
            self.root,
            self.production.now().astimezone(dt.UTC),
            entries,
            fold(entries, slot.name),
            slot,
            env_file,
            self._environ,
            self._verify,
        )

    def _promotion(self, place: Place, case: Case, *, enable: bool) -> tuple[Promotion, list[str]]:
        """What becomes the release, what the log is to say of it, and the environment it needs."""
        about, live = case.read.about, place.state().live
        boxes = {box.box: box.by for box in case.boxes if box.ticked}
        boxes[BASELINE_ARCHIVED] = f"{live.name} is archived" if live else "no earlier release"
        lines = self._environment(place, about["model_version"], case.env_file, enable=enable)
        content = {
            "approvals": {
                one.role: {"name": one.name, "signed": one.principal is not None}
                for one in case.standing.roles
            },
            "boxes": boxes,
            "digests": {"policy": policy_digest(Policy.from_dict(case.checklist["policy"]))},
            "environment": {"file": str(case.env_file), "lines": lines} if case.env_file else None,
            "market": about["market"],
            "model_version": about["model_version"],
            "reduced_control": case.standing.reduced_control,
            "strategy": about["strategy"],
            "symbols": list(case.standing.symbols),
        }
        return Promotion.of(case.examined, case.signers, content), lines

    def _environment(
        self, place: Place, version: str, env_file: str | Path | None, *, enable: bool
    ) -> list[str]:
        """What the engine's environment needs; a file that cannot be changed is refused before anything is."""
        lines = environment_lines(self.settings, place.slot, version, enable)
        if env_file:
            require_rewritable(env_path(self.root, env_file), lines)
        return lines

    def _slot_of(self, model_path: str | Path) -> Slot:
        """The slot of a model's strategy; the default one for a file that says nothing."""
        try:
            strategy = inspect_model(self.root / model_path)["metadata"]["strategy"]
        except (SqkitError, OSError, ValueError):
            strategy = "default"
        return slot_named(self.settings, strategy, self.root)

    # --- rollback

    def rollback_model(self, archive_date: str, *, slot: str = "default", reason: str = "") -> RolledBack:
        """Restore the release that left production on a date; the whole release, probed first.

        Parameters
        ----------
        archive_date
            ``YYYYMMDD``, the market's calendar date on which the release LEFT production.
        slot
            Name of the slot, or a strategy.
        reason
            Kept in the audit log.

        Raises
        ------
        ArchiveUnknown, ArchiveAmbiguous, Quarantined, ReleaseDamaged
            See `sqkit.production.rollback.find_target`; nothing has changed.
        """
        return self.rollback(archive_date, slot=slot, reason=reason or f"rollback to {archive_date}")

    def rollback(
        self,
        to: str = "",
        *,
        slot: str = "default",
        reason: str,
        env_file: str | None = None,
        alert: DegradationAlert | None = None,
        shown: Target | None = None,
    ) -> RolledBack:
        """Go back to an earlier release, or to no student; see `find_target` for `to`.

        Doing it again changes nothing. Needs no approval, evidence, network or research extra.

        Parameters
        ----------
        alert
            What monitoring says of the live release, where the machine asks and not a person.
        shown
            Where a person was told that it goes; nothing is done where it would go elsewhere by now.

        Raises
        ------
        SlotMismatch
            A strategy without a slot of its own was named, and the default slot serves another one.
        ConflictError
            The target is not what was `shown`.
        AutoRollbackRefused
            The alert is not about what is live, or nothing is to be done about it.
        """
        place = self.production.place(slot_named(self.settings, slot, self.root))
        if alert is not None:
            place = replace(place, actor=replace(place.actor, name=AUTOMATIC))
        with self.production.changing(place.slot):
            state = place.state()
            _require_about_live(state, alert)
            target = self._target(state, place.slot, slot, to, alert)
            _require_as_shown(state.slot, target, shown)
            if target.already:
                return RolledBack(place.slot.name, target, None, (), ())
            content, lines = self._rollback_content(place, target, reason, env_file, alert)
            steps: list[str] = []
            with self.production.committed(place.slot):
                entry = roll_back(noting(place, steps), content)
        self.production.announce(entry)
        return RolledBack(
            place.slot.name, self._with_pin(place, target, env_file), entry, tuple(steps), tuple(lines)
        )

    def plan_rollback(
        self, to: str = "", *, slot: str = "default", reason: str, env_file: str | None = None
    ) -> RolledBack:
        """What `rollback` would do; nothing is written."""
        place = self.production.place(slot_named(self.settings, slot, self.root))
        target = self._target(place.state(), place.slot, slot, to, None)
        if target.already:
            return RolledBack(place.slot.name, target, None, (), ())
        content, lines = self._rollback_content(place, target, reason, env_file, None)
        steps = planned_rollback(place, content)
        return RolledBack(
            place.slot.name, self._with_pin(place, target, env_file), None, tuple(steps), tuple(lines)
        )

    def _target(
        self, state: SlotState, slot: Slot, asked: str, to: str, alert: DegradationAlert | None
    ) -> Target:
        other = other_strategy(asked, slot, state)
        if other:
            raise SlotMismatch(
                f"slot {asked}: {asked} has no slot of its own, and the default slot serves {other}; if that is meant, "
                "say --slot default",
                slot=slot.name,
                asked=asked,
                live=other,
            )
        target = find_target(self.production.models_dir, state, to, automatic=alert is not None)
        if alert is not None and target.already:
            raise AutoRollbackRefused(
                f"slot {state.slot}: the alert ({alert.reason}) is about {target.described}, and that is where the "
                "rollback would go; nothing is rolled back",
                slot=state.slot,
                model=alert.model,
            )
        goes = target.release.model if target.release else ""
        if alert is not None and not goes.startswith(alert.restores):
            raise AutoRollbackRefused(
                f"slot {state.slot}: {alert.restores} did better on the same bars, but the rollback would go to "
                f"{target.described}; nothing is rolled back",
                slot=state.slot,
                model=alert.model,
                restores=alert.restores,
            )
        return target

    def _rollback_content(
        self,
        place: Place,
        target: Target,
        reason: str,
        env_file: str | None,
        alert: DegradationAlert | None,
    ) -> tuple[dict[str, Any], list[str]]:
        version = target.release.model_version if target.release else ""
        lines = self._environment(place, version, env_file, enable=False)
        content = rollback_content(
            place.state(),
            target,
            reason=reason,
            automatic=alert is not None,
            alert=None if alert is None else plain_json({**alert.evidence, "reason": alert.reason}, "alert"),
            environment={"file": env_file, "lines": lines} if env_file else None,
        )
        return content, lines

    def _with_pin(self, place: Place, target: Target, env_file: str | None) -> Target:
        """The target, with a note on a version pin that the rollback overrides."""
        version = target.release.model_version if target.release else ""
        note = pin_after_rollback(self.settings, place.slot, version, env_file, self._environ, root=self.root)
        return replace(target, notes=(*target.notes, note)) if note else target

    def should_rollback(self, slot: str = "default") -> RollbackAdvice:
        """Whether monitoring asks for a rollback of what is live now."""
        name = slot_named(self.settings, slot, self.root).name
        state, alert = fold(self.production.log.entries(), name), self._alerts(name)
        if state.live is None:
            return RollbackAdvice(False, f"slot {name}: no student is live, there is nothing to roll back")
        if alert is None or alert.model != state.live.model:
            return RollbackAdvice(False, f"slot {name}: no alert about {state.live.described}")
        waited = self.production.now() - alert.raised_at
        hours = self.settings.student_auto_rollback_confirmation_hours
        if not alert.confirmed or waited < dt.timedelta(hours=hours):
            said = "is not confirmed" if not alert.confirmed else f"is younger than {hours:g} hours"
            return RollbackAdvice(False, f"slot {name}: the alert ({alert.reason}) {said} yet", alert)
        return RollbackAdvice(True, f"slot {name}: {alert.reason}", alert)

    def execute_auto_rollback(self, slot: str = "default") -> RolledBack:
        """Roll back because monitoring asks for it.

        Raises
        ------
        AutoRollbackRefused
            Automatic rollback is disabled, or nothing asks for it.
        """
        if not self.settings.student_auto_rollback_enabled:
            raise AutoRollbackRefused(
                f"slot {slot}: automatic rollback is disabled; set SENSEQUANT_STUDENT_AUTO_ROLLBACK_ENABLED=true, or "
                "roll back yourself with sqkit rollback",
                slot=slot,
            )
        advice = self.should_rollback(slot)
        if not advice.should or advice.alert is None:
            raise AutoRollbackRefused(f"{advice.reason}; nothing is rolled back", slot=slot)
        return self.rollback(slot=slot, reason=advice.alert.reason, alert=advice.alert)


def _require_about_live(state: SlotState, alert: DegradationAlert | None) -> None:
    """Between an alert and the lock somebody may have changed what is live."""
    if alert is not None and (state.live is None or state.live.model != alert.model):
        raise AutoRollbackRefused(
            f"slot {state.slot}: the alert is about {alert.model[:12]}, which is not live any more; nothing is rolled "
            "back",
            slot=state.slot,
            model=alert.model,
        )


def _require_as_shown(slot: str, target: Target, shown: Target | None) -> None:
    """Between what a person read and the lock somebody may have changed what is live."""
    if shown is None or (target.release == shown.release and (target.already or not shown.already)):
        return
    raise ConflictError(
        f"slot {slot}: what is live changed meanwhile: this would go to {target.described} now, not to "
        f"{shown.described} as shown; nothing was rolled back, look at sqkit status and run again",
        slot=slot,
    )


__all__ = [
    "APPROVALS_FILE",
    "DegradationAlert",
    "Promoted",
    "PromotionValidationResult",
    "RollbackAdvice",
    "RolledBack",
    "StudentModelPromoter",
]
