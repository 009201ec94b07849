"""Values of monitoring as text: models, moments, evidence, shares with their intervals."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from typing import Any, Final

from sqkit.research.paired_statistics import wilson_interval
from sqkit.research.views import NOTHING

Row = dict[str, Any]
Reading = Mapping[str, Any]
"""What `sqkit.production.monitor_reading.read_slot` gives."""

DIGITS: Final = 12
_UNCOUNTED: Final = 1e6


def model_name(version: str | None, digest: str | None, refusal: str | None) -> str:
    """A model for a person: its version and the first digits of its digest."""
    if not digest:
        return f"no student ({refusal})" if refusal else "no student"
    return f"{version or 'no version'} · {digest[:DIGITS]}"


def moment(instant: str | None) -> str:
    """An instant to the minute, UTC."""
    if not instant:
        return "none"
    return dt.datetime.fromisoformat(instant).astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M UTC")


def large(value: float) -> str:
    """Evidence for a person: beyond a million nobody counts."""
    if value >= _UNCOUNTED:
        return "over a million"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def percent(share: float | None) -> str:
    """A share with one decimal."""
    return NOTHING if share is None else f"{share:.1%}"


def span(bounds: tuple[float, float] | None) -> str:
    """An interval of a share."""
    return NOTHING if bounds is None else f"{100 * bounds[0]:.1f}–{100 * bounds[1]:.1f}%"


def points(one: float | None, other: float | None) -> str:
    """A difference of shares, in points."""
    return NOTHING if one is None or other is None else f"{100 * (one - other):+.1f} pp"


def interval(share: float | None, count: int) -> tuple[float, float] | None:
    """Wilson 95 % interval of a share of so many; None where there is none."""
    return None if share is None else wilson_interval(round(share * count), count)


def within(title: str) -> str:
    """A title inside a sentence; LONG stays LONG."""
    return title[:1].lower() + title[1:]


def readable(text: str) -> str:
    """A sentence without numbers of fifty digits."""
    return re.sub(r"\d{10,}", "over a million", text)
