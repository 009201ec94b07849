"""A time as a person types it: an instant, or a day or month of the market's calendar.

``sqkit history --at`` reads it here. In: text and the market's zone. Out: a `Moment`, or one line that
says what to give.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from zoneinfo import ZoneInfo

from sqkit.audit_log import PROMOTE
from sqkit.chain import Entry
from sqkit.errors import UsageError
from sqkit.sessions import MARKETS
from sqkit.settings import Settings

_DAY: Final = re.compile(r"^(\d{4})-?(\d{2})-?(\d{2})$")
_MONTH: Final = re.compile(r"^(\d{4})-(\d{2})$")
_SECOND: Final = dt.timedelta(seconds=1)


@dataclass(frozen=True)
class Moment:
    """A time as asked: an instant, or a day or month of the market, whose end then counts.

    Attributes
    ----------
    asked
        As typed.
    start, end
        UTC; the same for an instant.
    zone
        IANA name of the market's zone.
    span
        ``day`` or ``month``; empty for an instant.
    """

    asked: str
    start: dt.datetime
    end: dt.datetime
    zone: str
    span: str = ""

    @property
    def described(self) -> str:
        """For a person, with the zone."""
        local = self.end.astimezone(ZoneInfo(self.zone))
        words = (
            f"the end of {self.asked} in {self.zone}"
            if self.span
            else f"{local:%Y-%m-%d %H:%M:%S} {self.zone}"
        )
        return f"{words} ({stamp(self.end)})"


def moment(text: str, zone: str) -> Moment:
    """The time that a person means.

    Parameters
    ----------
    text
        An instant in ISO 8601 with its zone; or a date, YYYY-MM-DD or YYYYMMDD, or a month, YYYY-MM,
        of the market's calendar.
    zone
        IANA name of the market's zone.

    Raises
    ------
    UsageError
        It is none of these, or an instant without a zone.
    """
    try:
        if day := _DAY.match(text):
            first = dt.date(*(int(part) for part in day.groups()))
            return Moment(text, _midnight(first, zone), _before(first + dt.timedelta(1), zone), zone, "day")
        if month := _MONTH.match(text):
            first = dt.date(int(month[1]), int(month[2]), 1)
            after = (first + dt.timedelta(31)).replace(day=1)
            return Moment(text, _midnight(first, zone), _before(after, zone), zone, "month")
        at = dt.datetime.fromisoformat(text)
        if at.tzinfo is None:
            raise UsageError(
                f"--at {text}: a time needs its zone; add Z for UTC or an offset such as +05:30", at=text
            )
        return Moment(text, at.astimezone(dt.UTC), at.astimezone(dt.UTC), zone)
    except (ValueError, OverflowError):
        raise UsageError(
            f"--at {text[:40]!r}: give a date as YYYY-MM-DD, a month as YYYY-MM, or a time with its zone such as "
            "2025-03-14T09:15:00+05:30",
            at=text,
        ) from None


def _midnight(day: dt.date, zone: str) -> dt.datetime:
    return dt.datetime.combine(day, dt.time(), ZoneInfo(zone)).astimezone(dt.UTC)


def _before(day: dt.date, zone: str) -> dt.datetime:
    return _midnight(day, zone) - _SECOND  # the log keeps whole seconds


def stamp(at: dt.datetime) -> str:
    """An instant as the audit log writes it: UTC, whole seconds."""
    return at.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def zone_of(settings: Settings, entries: Iterable[Entry], slot: str | None = None) -> str:
    """IANA name of the market's zone: of what was promoted last, else of the settings' market.

    Parameters
    ----------
    slot
        Only what was promoted there counts.
    """
    markets = [
        entry["market"]
        for entry in entries
        if entry["kind"] == PROMOTE and slot in (None, entry["slot"]) and entry["market"] in MARKETS
    ]
    return MARKETS[markets[-1] if markets else settings.market].zone
