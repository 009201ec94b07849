"""What monitoring does to production, through the promoter and by a named account; and what it did, for a rebuild.

Monitoring itself knows neither: it asks with a `Request` and is told with a `Done`. A request that was carried out before
a crash is found in the audit log and not carried out again.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from sqkit.audit_log import MONITOR, ROLLBACK
from sqkit.chain import Entry
from sqkit.errors import SqkitError
from sqkit.people import AUTOMATIC, Actor
from sqkit.production.changes import Production
from sqkit.production.interventions import halt
from sqkit.production.monitor_log import COMPONENT, logger
from sqkit.production.monitor_machine import (
    HALTED,
    INCONCLUSIVE,
    OK,
    REFUSED,
    ROLL_BACK,
    ROLLED_BACK,
    ROLLING_BACK,
    STUDENT_HALTED,
    VERIFYING,
    Done,
    Request,
    Step,
)
from sqkit.production.outcomes import DegradationAlert
from sqkit.production.promoter import StudentModelPromoter
from sqkit.settings import Settings

_DIGITS: Final = 12
_QUIET: Final = (OK, INCONCLUSIVE)


class PromoterActions:
    """Carries out what monitoring of one slot asks for, and keeps its steps in the audit log.

    Parameters
    ----------
    slot
        Its name.
    settings, root, clock
        As `sqkit.production.promoter.StudentModelPromoter` takes them.
    """

    def __init__(
        self,
        slot: str,
        settings: Settings,
        root: Path = Path(),
        clock: Callable[[], dt.datetime] | None = None,
    ) -> None:
        self._settings = settings
        self._root = root
        self._clock = clock
        self._actor = Actor.here(AUTOMATIC)
        self._production = Production(settings, root, clock=clock, actor=self._actor, say=self._say)
        self._slot = self._production.slot(slot)

    def __call__(self, request: Request) -> Done:
        """Roll back or halt; a refusal says why, and nothing has changed then."""
        try:
            return self._roll_back(request) if request.kind == ROLL_BACK else self._halt(request)
        except (SqkitError, OSError) as problem:
            return Done(REFUSED, reason=" ".join(str(problem).split()))

    def _roll_back(self, request: Request) -> Done:
        slot = self._slot
        for entry in self._production.log.entries():
            if entry["kind"] == ROLLBACK and entry["slot"] == slot.name and _asked_by(entry) == request.id:
                return Done(ROLLED_BACK, str(entry["model"] or "")[:_DIGITS], str(entry["reason"]))
        live = self._production.state(slot).live
        if live is None or not live.model.startswith(request.model):
            return Done(REFUSED, reason=f"{request.model} is not live any more")
        alert = DegradationAlert(
            slot.name,
            live.model,
            dt.datetime.fromisoformat(request.raised_at),
            confirmed=True,
            reason=request.reason,
            evidence={**request.evidence, "request": request.id},
            restores=request.restores,
        )
        promoter = StudentModelPromoter(
            self._settings,
            root=self._root,
            clock=self._clock,
            actor=self._actor,
            alerts=lambda name: alert if name == slot.name else None,
            say=self._say,
        )
        done = promoter.execute_auto_rollback(slot.name)
        model = done.target.release.model if done.target.release else ""
        return Done(ROLLED_BACK, model[:_DIGITS], done.target.described)

    def _halt(self, request: Request) -> Done:
        halt(self._production, request.slot, f"monitoring: {request.reason}")
        return Done(STUDENT_HALTED, reason=request.reason)

    def keep_steps(self, steps: Iterable[Step]) -> None:
        """Append changes of state to the audit log, each once; all but the coming and going of enough samples.

        A log that cannot be written is said; monitoring goes on.
        """
        told = [step for step in steps if not (step.before in _QUIET and step.after in _QUIET)]
        try:
            if told and self._production.log.path.exists():
                self._append(told)
        except (SqkitError, OSError) as problem:
            logger.warning("a step of monitoring is not in the audit log: %s", problem, extra=COMPONENT)

    def _append(self, steps: list[Step]) -> None:
        kept = {_named(entry) for entry in _monitor_lines(self._production.log.entries(), self._slot.name)}
        for step in steps:
            content = {
                "after": step.after,
                "before": step.before,
                "evidence": dict(step.evidence),
                "known_at": step.at,
                "model": step.model,
                "reason": step.reason,
                "step": step.number,
            }
            if _named(content) not in kept:
                self._production.append(self._slot, MONITOR, content, actor=self._actor)

    def _say(self, line: str) -> None:
        logger.warning("%s", line, extra=COMPONENT)


class RecordedActions:
    """What came of requests, from the audit log: a rebuild asks here and changes nothing."""

    def __init__(self, entries: Iterable[Entry], slot: str) -> None:
        self._lines = {
            (entry["step"], entry["before"]): entry
            for entry in _monitor_lines(entries, slot)
            if entry["before"] == ROLLING_BACK
        }

    def __call__(self, request: Request) -> Done:
        """As it was done then; refused where the log does not tell."""
        number = int(request.id.rpartition("/")[2]) + 1
        line = self._lines.get((number, ROLLING_BACK))
        if line is None:
            return Done(REFUSED, reason="the audit log does not say what came of it")
        said = str(line["evidence"].get("said", ""))
        if line["after"] == VERIFYING and not line["reason"].startswith("refused"):
            return Done(ROLLED_BACK, line["model"], said)
        if line["after"] == HALTED:
            return Done(STUDENT_HALTED, reason=said)
        return Done(REFUSED, reason=said)


def _monitor_lines(entries: Iterable[Entry], slot: str) -> list[Entry]:
    return [entry for entry in entries if entry["kind"] == MONITOR and entry["slot"] == slot]


def _named(step: Any) -> tuple[int, str, str, str]:
    """What makes a step the same one."""
    return step["step"], step["known_at"], step["before"], step["after"]


def _asked_by(entry: Entry) -> str:
    alert = entry["alert"]
    return str(alert.get("request", "")) if alert else ""
