"""What monitoring does to production, through the promoter and by a named account; and what it did, for a rebuild.

Monitoring itself knows neither: it asks with a `Request` and is told with a `Done`. A request that was carried out before
a crash is found in the audit log and not carried out again.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from sqkit.audit_log import HALT, MONITOR, PROMOTE, RESUME, ROLLBACK
from sqkit.chain import Entry
from sqkit.errors import SqkitError
from sqkit.people import AUTOMATIC, Actor
from sqkit.production.audit import instant
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
            entries = self._production.log.entries()
            done = RecordedActions(entries, self._slot.name).found(request) or self._done_before(
                entries, request
            )
            if done is not None:
                return done
            refusal = self._overtaken(entries, request)
            if refusal:
                return Done(REFUSED, reason=refusal)
            return self._roll_back(request) if request.kind == ROLL_BACK else self._halt(request)
        except (SqkitError, OSError) as problem:
            return Done(REFUSED, reason=" ".join(str(problem).split()))

    def _done_before(self, entries: Iterable[Entry], request: Request) -> Done | None:
        """What came of the request before a crash, from the line of the deed itself."""
        for entry in entries:
            if entry["slot"] != self._slot.name:
                continue
            if entry["kind"] == ROLLBACK and _asked_by(entry) == request.id:
                return Done(
                    ROLLED_BACK, str(entry["model"] or "")[:_DIGITS], str(entry["reason"]), entry["at"]
                )
            if entry["kind"] == HALT and entry["reason"].endswith(_mark(request)):
                return Done(STUDENT_HALTED, reason=request.reason, at=entry["at"])
        return None

    def _overtaken(self, entries: Iterable[Entry], request: Request) -> str:
        """Why the request is out of date: another model is live, or a person acted since the alert."""
        live = self._production.state(self._slot).live
        if live is None or not live.model.startswith(request.model):
            return f"{request.model} is not live any more"
        for entry in entries:
            by_person = entry["kind"] in (PROMOTE, RESUME) or (
                entry["kind"] == ROLLBACK and not entry["automatic"]
            )
            if entry["slot"] == self._slot.name and by_person and entry["at"] > request.raised_at:
                return f"{entry['actor']['name']} acted after the alert ({entry['kind']} at {entry['at']})"
        return ""

    def _roll_back(self, request: Request) -> Done:
        slot = self._slot
        live = self._production.state(slot).live
        assert live is not None
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
        return Done(ROLLED_BACK, model[:_DIGITS], done.target.described, self._at(done.entry))

    def _halt(self, request: Request) -> Done:
        entry = halt(self._production, request.slot, f"monitoring: {request.reason} {_mark(request)}")
        return Done(STUDENT_HALTED, reason=request.reason, at=self._at(entry))

    def _at(self, entry: Entry | None) -> str:
        """When something was done: as its line says, else now."""
        return str(entry["at"]) if entry is not None else instant(self._production.now())

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
            entry["evidence"].get("request"): entry
            for entry in _monitor_lines(entries, slot)
            if entry["before"] == ROLLING_BACK
        }

    def __call__(self, request: Request) -> Done:
        """As it was done then; refused where the log does not tell."""
        return self.found(request) or Done(REFUSED, reason="the audit log does not say what came of it")

    def found(self, request: Request) -> Done | None:
        """What the log says came of it; None where it says nothing."""
        line = self._lines.get(request.id)
        if line is None:
            return None
        said, at = (str(line["evidence"].get(name, "")) for name in ("said", "done_at"))
        if line["reason"].startswith("refused"):
            return Done(REFUSED, reason=said)
        if line["after"] == HALTED:
            return Done(STUDENT_HALTED, reason=said, at=at)
        return Done(ROLLED_BACK, line["model"], said, at)


def _mark(request: Request) -> str:
    """Names the request in the reason of its halt."""
    return f"[{request.id}]"


def _monitor_lines(entries: Iterable[Entry], slot: str) -> list[Entry]:
    return [entry for entry in entries if entry["kind"] == MONITOR and entry["slot"] == slot]


def _named(step: Any) -> tuple[int, str, str, str]:
    """What makes a step the same one."""
    return step["step"], step["known_at"], step["before"], step["after"]


def _asked_by(entry: Entry) -> str:
    alert = entry["alert"]
    return str(alert.get("request", "")) if alert else ""
