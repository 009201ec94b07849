"""What a validation hands to monitoring: how good the model was, and how well that is known.

A validation writes this into the checklist (``monitoring.baseline``), the release embeds the checklist, and
whoever watches the live model reads it from there. The rules of watching are the settings', kept as
`MonitoringRules`. No file is read here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

import numpy as np

from sqkit.settings import Settings

SECTION: Final = "monitoring"
"""Key of the checklist under which baseline, rules and what they imply stand."""


@dataclass(frozen=True)
class Rate:
    """A validated share.

    Attributes
    ----------
    rate
        In [0, 1].
    count
        Calls or rows behind it.
    effective
        Independent ones that would know it as well: calls of one day move together.
    """

    rate: float
    count: int
    effective: float

    @classmethod
    def of_days(cls, right: np.ndarray, of: np.ndarray) -> Rate | None:
        """A share with its effective count from day clusters; None where nothing was called.

        Parameters
        ----------
        right, of
            int (d,), right ones and all of each session day.

        Notes
        -----
        With the linearised variance of a ratio over day clusters, ``sum((r_d - p n_d)^2) / n^2``, the effective
        count is ``p (1 - p) / variance``, at most n.
        """
        count = int(np.sum(of))
        if not count:
            return None
        rate = float(np.sum(right) / count)
        variance = float(np.sum((right - rate * of) ** 2)) / count**2
        spread = rate * (1.0 - rate)
        effective = min(float(count), spread / variance) if variance > 0.0 and spread > 0.0 else float(count)
        return cls(rate, count, effective)


@dataclass(frozen=True)
class MonitoringBaseline:
    """What the live model is held against.

    Attributes
    ----------
    hit_ratio, precision_long, accuracy
        As the gate measured them on all judged rows; None where undefined.
    horizon_bars, dead_zone
        Of the outcome.
    interval, market, strategy
        Of the bars.
    bars_per_session
        Most bars that a regular session has.
    session_days, symbols
        Of the validation.
    called_bars, long_called_bars
        Bars on which at least one symbol had a directional, or a LONG, call.
    behaviour
        What the model usually does, by minute of the session; see `sqkit.behaviour_windows`. None where it is
        not known.
    """

    hit_ratio: Rate | None
    precision_long: Rate | None
    accuracy: Rate | None
    horizon_bars: int
    dead_zone: float
    interval: str
    market: str
    strategy: str
    bars_per_session: int
    session_days: int
    symbols: int
    called_bars: int
    long_called_bars: int
    behaviour: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> MonitoringBaseline:
        """The baseline that `to_dict` gave.

        Raises
        ------
        KeyError, TypeError
            A part is missing, or of another kind.
        """
        values = {field.name: stored[field.name] for field in fields(cls)}
        for name in ("hit_ratio", "precision_long", "accuracy"):
            values[name] = None if values[name] is None else Rate(**values[name])
        return cls(**values)

    @classmethod
    def of_checklist(cls, checklist: Mapping[str, Any] | None) -> MonitoringBaseline | None:
        """The baseline that a decision carries; None where it carries none that can be read."""
        try:
            return cls.from_dict((checklist or {})[SECTION]["baseline"])
        except (KeyError, TypeError):
            return None


@dataclass(frozen=True)
class MonitoringRules:
    """The settings by which a live model is watched; names as there, without their prefix."""

    window_hours: float
    min_samples: int
    precision_drop_threshold: float
    hit_ratio_drop_threshold: float
    alert_cooldown_hours: float
    accuracy_floor_ratio: float
    accuracy_floor_days: int
    days_between_false_alerts: float
    confirmation_hours: float
    alpha: float

    @classmethod
    def from_settings(cls, settings: Settings) -> MonitoringRules:
        """As the settings say."""
        prefixes = {"confirmation_hours": "student_auto_rollback_", "alpha": "student_auto_rollback_"}
        return cls(
            **{
                field.name: getattr(settings, prefixes.get(field.name, "student_monitoring_") + field.name)
                for field in fields(cls)
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> MonitoringRules:
        """The rules that `to_dict` gave.

        Raises
        ------
        KeyError, TypeError
            A rule is missing, or no finite number.
        """
        values = {field.name: stored[field.name] for field in fields(cls)}
        for name, value in values.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
                raise TypeError(f"{SECTION}: {name}={value!r} is no number")
        return cls(**values)

    @classmethod
    def of_checklist(cls, checklist: Mapping[str, Any] | None) -> MonitoringRules | None:
        """The rules that a decision states; None where it has no such section.

        Raises
        ------
        KeyError, TypeError
            As `from_dict`; the section is of another form.
        """
        section = (checklist or {}).get(SECTION)
        return None if section is None else cls.from_dict(section["rules"])
