"""What monitoring says to people: one alert for each thing that is wrong, what will happen, what to type.

From the state of a slot's machine alone; nothing here decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from sqkit.production.alerts import Alert
from sqkit.production.confirmation import in_words
from sqkit.production.monitor_machine import (
    ALERTING,
    CONFIRMING,
    HALTED,
    ROLLING_BACK,
    SEQUENTIAL,
    VERIFYING,
    SlotMachine,
)
from sqkit.production.monitor_rules import ACCURACY_FLOOR, CALIBRATION_DRIFT, DROPS, TITLES
from sqkit.production.slot_behaviour import BEHAVIOUR
from sqkit.records import iso_date, iso_instant
from sqkit.settings import PREFIX

RESTORED: Final = "rolled_back"
STOPPED: Final = "student_halted"


class Wrong(NamedTuple):
    """One thing that is wrong: the alert's name, how bad it is, what is said of it, and the figures."""

    name: str
    severity: str
    summary: str
    evidence: dict[str, Any]


def wrong_now(machine: SlotMachine, alarms: Mapping[str, Mapping[str, Any]]) -> list[Wrong]:
    """Everything that is wrong in a slot now, by name.

    Parameters
    ----------
    alarms
        Of its behaviour; see `sqkit.production.slot_behaviour.SlotBehaviour`.
    """
    found = [_rule(name, said) for name, said in sorted(machine.broken.items())]
    found += [_behaviour(name, said) for name, said in sorted(alarms.items())]
    if machine.watch is not None and machine.watch.calibration.drifts():
        figures = machine.watch.calibration.figures() or {}
        said = f"P(up) is off by {figures['gap']:+.1%} on average over the last session days, {figures['z']:+.1f} standard errors"
        found.append(Wrong(CALIBRATION_DRIFT, "warning", said, figures))
    if machine.state == VERIFYING:
        model = machine.watch.model if machine.watch else ""
        said = f"the student was rolled back to {model} by monitoring; it is being verified"
        found.append(Wrong(RESTORED, "critical", said, {}))
    if machine.state == HALTED:
        found.append(Wrong(STOPPED, "critical", f"the student is halted: {machine.reason}", {}))
    return found


def _rule(name: str, said: dict[str, Any]) -> Wrong:
    if name.startswith(SEQUENTIAL):
        metric = name.removeprefix(SEQUENTIAL)
        level, threshold = in_words(said.get("level", 0.0)), said.get("threshold", 0.0)
        text = f"{TITLES[metric]}: evidence of a loss, level {level} of {threshold:g} days"
        return Wrong(name, "critical", text, said)
    if name == ACCURACY_FLOOR:
        days = ", ".join(f"{iso_date(day)} {accuracy:.1%}" for day, accuracy in said["days"])
        text = f"accuracy below {said['floor']:.0%} of the validated {said['validated']:.1%} on {days}"
        return Wrong(name, "warning", text, said)
    metric = TITLES[DROPS[name]]
    text = (
        f"{metric} {said['live']:.1%} over {said['samples']} samples, validated {said['validated']:.1%}: "
        f"{said['validated'] - said['live']:.1%} lower, {said['threshold']:.1%} alert"
    )
    return Wrong(name, "warning", text, said)


def _behaviour(name: str, said: Mapping[str, Any]) -> Wrong:
    text = f"{name}: {said['observed']:.3g} where {said['expected']:.3g} is usual, {said['z']:.1f} of {said['limit']:.1f}"
    return Wrong(BEHAVIOUR + name, "warning", text, dict(said))


def alert_of(
    wrong: Wrong, machine: SlotMachine, strategy: str, since_ns: int, *, behaviour_halts: bool = False
) -> Alert:
    """The alert about one thing that is wrong."""
    watch = machine.watch
    return Alert(
        name=wrong.name,
        slot=machine.slot,
        strategy=strategy,
        model=watch.model if watch else "",
        model_version=watch.version if watch else "",
        severity=wrong.severity,
        since=iso_instant(since_ns),
        summary=f"slot {machine.slot}: {wrong.summary}",
        will=_of_behaviour(behaviour_halts)
        if wrong.name.startswith((BEHAVIOUR, CALIBRATION_DRIFT))
        else what_will_happen(machine),
        commands=next_commands(machine),
        evidence=wrong.evidence,
    )


def _of_behaviour(halts: bool) -> str:
    if halts:
        return "halts the student now; the baseline trades on"
    return f"nothing by itself: behaviour never rolls back ({PREFIX}STUDENT_BEHAVIOUR_HALT_ENABLED is false)"


def what_will_happen(machine: SlotMachine) -> str:
    """What monitoring does next by itself, and when."""
    confirmation = machine.confirmation
    if machine.state == CONFIRMING and confirmation is not None:
        figures = confirmation.figures()
        proof = f"fresh evidence {in_words(figures['live'])} of {figures['needed']:.0f}"
        if not machine.acts:
            return f"nothing by itself ({PREFIX}STUDENT_AUTO_ROLLBACK_ENABLED is false); it goes on to confirm ({proof})"
        if machine.refused:
            return f"tries again with the next session: {machine.refused}"
        hours, calls = machine.rules.confirmation_hours, machine.rules.min_samples
        after = f"not before {hours:g} session hours and {calls} calls after the alert ({figures['calls']} so far)"
        previous = figures["previous"] or machine.previous
        if not previous:
            return f"halts the student once that is confirmed ({proof}), {after}: there is no earlier release"
        return (
            f"rolls back to {previous} once that is confirmed ({proof}) and it does better on the same bars "
            f"(evidence {in_words(figures['pair'])} of {figures['needed']:.0f}), or halts the student where both are bad; {after}"
        )
    if machine.state == ALERTING:
        return "nothing by itself: a rollback needs the sequential evidence, and that is below its threshold"
    if machine.state == ROLLING_BACK:
        return "is being done now"
    if machine.state == VERIFYING:
        return (
            "halts the student if the restored release fails as well; there is no second automatic rollback"
        )
    if machine.state == HALTED:
        return "nothing: a person resumes or promotes; the baseline trades on"
    return "nothing"


def next_commands(machine: SlotMachine) -> tuple[str, ...]:
    """What a person may type now."""
    slot = machine.slot
    look = f"sqkit monitor --slot {slot}"
    if machine.state == HALTED:
        return (look, f"sqkit history --slot {slot}", f"sqkit resume --slot {slot} --reason TEXT")
    if machine.state == VERIFYING:
        return (look, f"sqkit halt --slot {slot} --reason TEXT")
    return (
        look,
        f"sqkit rollback --slot {slot} --reason TEXT",
        f"sqkit halt --slot {slot} --reason TEXT",
    )
