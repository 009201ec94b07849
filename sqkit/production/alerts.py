"""Alerts of monitoring: what one says, how others have it, and which were said already.

`Alert` is a plain record with a stable fingerprint; `webhook_event` and `posted` are its forms for a webhook and for an
Alertmanager. `AlertBook` remembers what fires, what was said and when, and
whom it reached; its memory is plain JSON. Nothing here sends, reads a clock or a file.
"""

from __future__ import annotations

import datetime as dt
import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from sqkit.files import canonical_json, sha256_json

ENDED_KEPT: Final = 20
"""Alerts that ended and are still shown."""

_OVER: Final = "nothing: it is over"
_FINGERPRINT_DIGITS: Final = 16
_NS_PER_HOUR: Final = 3_600_000_000_000


@dataclass(frozen=True)
class Alert:
    """One thing that is wrong with a slot's model.

    Attributes
    ----------
    name
        Which thing, such as ``precision_drop``.
    slot, strategy
        Where.
    model, model_version
        Digest (12 digits or all) and version of the model that is served.
    severity
        ``critical``, ``warning`` or ``info``.
    since
        UTC, ISO.
    summary
        One line for a person.
    will
        What sqkit does next by itself, and when.
    commands
        What the person may type now.
    evidence
        The figures behind it, plain JSON.
    resolved
        When it ended, UTC, ISO; None while it fires.
    """

    name: str
    slot: str
    strategy: str
    model: str
    model_version: str
    severity: str
    since: str
    summary: str
    will: str
    commands: tuple[str, ...]
    evidence: Mapping[str, Any]
    resolved: str | None = None

    @property
    def fingerprint(self) -> str:
        """Sixteen digits that name it: the same thing at the same place about the same model, however it is worded."""
        return sha256_json([self.name, self.slot, self.strategy, self.model])[:_FINGERPRINT_DIGITS]

    def labels(self) -> dict[str, str]:
        """What an Alertmanager groups and routes by; a label without a value is left out, as it would do."""
        labels = {
            "alertname": self.name,
            "model": self.model,
            "severity": self.severity,
            "slot": self.slot,
            "strategy": self.strategy,
        }
        return {name: value for name, value in labels.items() if value}

    def annotations(self) -> dict[str, str]:
        """What a person reads, all of it text."""
        return {
            "commands": "\n".join(self.commands),
            "evidence": canonical_json(_finite(self.evidence), indent=None).strip(),
            "fingerprint": self.fingerprint,
            "model_version": self.model_version,
            "summary": self.summary,
            "will": self.will,
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values and the fingerprint; a figure that is not finite is None."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            **values,
            "commands": list(self.commands),
            "evidence": _finite(self.evidence),
            "fingerprint": self.fingerprint,
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Alert:
        """The alert that `to_dict` gave.

        Raises
        ------
        KeyError
            A part is missing.
        """
        values = {field.name: stored[field.name] for field in fields(cls)}
        return cls(**{**values, "commands": tuple(values["commands"])})


def _finite(value: Any) -> Any:
    """The same plain value, with None for numbers that JSON has no word for: an alert must not fail on its figures."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return value


def webhook_event(alert: Alert) -> dict[str, Any]:
    """What a webhook gets of an alert or of its end."""
    return {
        "data": alert.to_dict(),
        "timestamp": alert.resolved or alert.since,
        "type": "monitoring.resolved" if alert.resolved else "monitoring.alert",
    }


def webhook_id(alert: Alert) -> str:
    """Names one telling: a receiver that gets it twice can know; an end is another one."""
    since = "".join(letter for letter in alert.since if letter.isalnum())
    return f"alert_{alert.fingerprint}_{since}{'_resolved' if alert.resolved else ''}"


def posted(alert: Alert, now: dt.datetime, expires: dt.timedelta) -> dict[str, Any]:
    """An alert as version 2 of the Alertmanager's API has it.

    What fires ends so long from now unless it is posted again. An end in the future would not be one, and
    a beginning after the end is refused: a clock of bars that is ahead is held to ours.
    """
    since = min(dt.datetime.fromisoformat(alert.since), now)
    ends = min(dt.datetime.fromisoformat(alert.resolved), now) if alert.resolved else now + expires
    return {
        "annotations": alert.annotations(),
        "endsAt": max(since, ends).isoformat(),
        "labels": alert.labels(),
        "startsAt": since.isoformat(),
    }


@dataclass(frozen=True)
class _Firing:
    """An alert that fires, and whether it was said since it began."""

    alert: Alert
    said: bool


class AlertBook:
    """Which alerts fire, and which were said.

    A thing that is wrong is said once while it lasts. Where it ends and comes back within the cooldown it is
    said again only after that, if it is still wrong then; an end is told only of what was said.
    """

    def __init__(self) -> None:
        self._firing: dict[str, _Firing] = {}
        self._ended: deque[Alert] = deque(maxlen=ENDED_KEPT)
        self._said_ns: dict[str, int] = {}

    def raise_(self, alert: Alert, now_ns: int, cooldown_hours: float) -> bool:
        """Take note of a thing that is wrong; whether it is to be sent.

        Parameters
        ----------
        alert
            As it is now; what fires already keeps its ``since`` and takes the rest.
        now_ns
            UTC nanoseconds.
        cooldown_hours
            Least time between two sendings of the same fingerprint.
        """
        name = alert.fingerprint
        known = self._firing.get(name)
        if known is not None:
            alert = replace(alert, since=known.alert.since)
        said = known is not None and known.said
        last = self._said_ns.get(name)
        cooled = last is None or now_ns - last >= cooldown_hours * _NS_PER_HOUR
        to_send = cooled and not said
        self._firing[name] = _Firing(alert, said or to_send)
        if to_send:
            self._forget_cooled(now_ns, cooldown_hours)
            self._said_ns[name] = now_ns
        return to_send

    def _forget_cooled(self, now_ns: int, cooldown_hours: float) -> None:
        """Drop sendings that hold nothing back any more, so that many models leave no long memory."""
        earliest = now_ns - cooldown_hours * _NS_PER_HOUR
        self._said_ns = {
            name: at for name, at in self._said_ns.items() if at > earliest or name in self._firing
        }

    def resolve(self, fingerprint: str, at: str) -> Alert | None:
        """Take note of an end.

        Parameters
        ----------
        at
            UTC, ISO.

        Returns
        -------
        Alert or None
            The ended alert where its end is to be sent; None where nothing of that name fires, or nobody
            was told that it did.
        """
        known = self._firing.pop(fingerprint, None)
        if known is None:
            return None
        ended = replace(known.alert, resolved=at, will=_OVER, commands=())
        self._ended.append(ended)
        return ended if known.said else None

    def firing(self) -> list[Alert]:
        """What is wrong now, in the order in which it began."""
        return [one.alert for one in self._firing.values()]

    def recent(self, n: int) -> list[Alert]:
        """The newest `n`, firing and ended, the newest first."""
        known = [*self._ended, *self.firing()]
        return sorted(known, key=lambda one: one.resolved or one.since, reverse=True)[:n]

    def state(self) -> dict[str, Any]:
        """Everything that is remembered, plain JSON."""
        return {
            "ended": [alert.to_dict() for alert in self._ended],
            "firing": [{"alert": one.alert.to_dict(), "said": one.said} for one in self._firing.values()],
            "said_ns": dict(self._said_ns),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._ended = deque((Alert.from_dict(one) for one in state["ended"]), maxlen=ENDED_KEPT)
        alerts = [(Alert.from_dict(one["alert"]), one) for one in state["firing"]]
        self._firing = {alert.fingerprint: _Firing(alert, one["said"]) for alert, one in alerts}
        self._said_ns = dict(state["said_ns"])
