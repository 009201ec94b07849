"""Sealed days: session dates that only a validation, or a person with a reason, may open.

In: a strategy's days as ISO dates and the trial ledger that remembers them. Out: a refusal, or an
opening that the ledger keeps. `sqkit holdout` seals and lists, training and exploring ask
`refuse_sealed`, a validation calls `record_opening`. A seal is a line of the chain: nothing here
shortens or lifts one. Days that no seal covers are free.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqkit.errors import HoldoutSealed, UsageError
from sqkit.research.trials import OPENED, SEAL, Entry, TrialLedger, require_date

STRATEGIES: Final = ("intraday", "swing")


@dataclass(frozen=True, order=True)
class Seal:
    """Session dates, ISO, both included, that are sealed for a strategy."""

    strategy: str
    start: str
    end: str

    def touches(self, first_day: str, last_day: str) -> bool:
        """Whether one of these days is sealed."""
        return self.start <= last_day and first_day <= self.end


def seal(ledger: TrialLedger, strategy: str, start: str, end: str) -> Seal:
    """Seal days of a strategy for good; sealing the same days again adds nothing.

    Raises
    ------
    UsageError
        An unknown strategy, a date that is none, or a start after the end.
    LedgerBroken, ConflictError, OutputError
        The ledger cannot be trusted, is held by another process, or cannot be written.
    """
    _require_window(strategy, start, end)
    line = {"strategy": strategy, "first_session_date": start, "last_session_date": end}
    ledger.append(SEAL, line, unless=lambda entries: Seal(strategy, start, end) in _seals(entries))
    return Seal(strategy, start, end)


def sealed_windows(ledger: TrialLedger, strategy: str | None = None) -> list[Seal]:
    """Every seal of a strategy (of all without one), by strategy and date."""
    return sorted(one for one in _seals(ledger.entries()) if strategy in (None, one.strategy))


def refuse_sealed(
    ledger: TrialLedger,
    strategy: str,
    first_day: str,
    last_day: str,
    *,
    open_holdout: bool = False,
    reason: str = "",
    what: str,
    at: str,
) -> None:
    """Refuse work on sealed days, unless a person opens them and says why; the opening is kept.

    Parameters
    ----------
    first_day, last_day
        Session dates the work would see, ISO, both included.
    open_holdout, reason
        Both are needed to open.
    what, at
        The work, such as ``training of 20250101_000000``, and when, as the ledger will say it.

    Raises
    ------
    HoldoutSealed
        A day is sealed and was not opened with a reason.
    UsageError
        An unknown strategy, a date that is none, or a start after the end.
    LedgerBroken, ConflictError, OutputError
        As for `seal`.
    """
    touched = _touched(ledger, strategy, first_day, last_day)
    if not touched:
        return
    if open_holdout and reason.strip():
        record_opening(ledger, strategy, first_day, last_day, reason=reason, what=what, at=at)
        return
    days = ", ".join(f"{one.start} to {one.end}" for one in touched)
    wanted = "--open-holdout needs --reason TEXT" if open_holdout else "use days outside"
    otherwise = "or use days outside" if open_holdout else "or open them with --open-holdout --reason TEXT"
    raise HoldoutSealed(
        f"{what}: {first_day} to {last_day} touches sealed days of {strategy} ({days}); {wanted}, {otherwise}",
        strategy=strategy,
        sealed=[(one.start, one.end) for one in touched],
    )


def record_opening(
    ledger: TrialLedger,
    strategy: str,
    first_day: str,
    last_day: str,
    *,
    reason: str,
    what: str,
    at: str,
) -> list[Seal]:
    """Keep that these days were opened, where they touch a seal; the same opening again adds nothing.

    Returns
    -------
    list
        The seals that were touched; empty when the days are free, and then nothing is kept.

    Raises
    ------
    UsageError
        As for `refuse_sealed`, or an empty reason.
    LedgerBroken, ConflictError, OutputError
        As for `seal`.
    """
    touched = _touched(ledger, strategy, first_day, last_day)
    if touched:
        same = {
            "strategy": strategy,
            "first_session_date": first_day,
            "last_session_date": last_day,
            "reason": reason.strip(),
            "by": what,
        }
        ledger.append(
            OPENED,
            {**same, "at": at},
            unless=lambda entries: any(
                same.items() <= entry.items() for entry in entries if entry["kind"] == OPENED
            ),
        )
    return touched


def holdout_lines(ledger: TrialLedger, strategy: str | None = None) -> list[str]:
    """Every seal with its openings, one printable line each; one line saying so when nothing is sealed."""
    entries = ledger.entries()
    lines = []
    for one in sorted(_seals(entries)):
        if strategy not in (None, one.strategy):
            continue
        openings = [
            entry
            for entry in entries
            if entry["kind"] == OPENED
            and entry["strategy"] == one.strategy
            and one.touches(entry["first_session_date"], entry["last_session_date"])
        ]
        times = {0: "never opened", 1: "opened once"}.get(len(openings), f"opened {len(openings)} times")
        lines.append(f"{one.strategy}  {one.start} to {one.end}  sealed, {times}")
        lines += [
            f"  {entry['at']}  {entry['by']}, {entry['first_session_date']} to {entry['last_session_date']}: "
            f"{entry['reason']}"
            for entry in openings
        ]
    return lines or [f"no sealed days{f' of {strategy}' if strategy else ''}"]


def _seals(entries: list[Entry]) -> set[Seal]:
    return {
        Seal(entry["strategy"], entry["first_session_date"], entry["last_session_date"])
        for entry in entries
        if entry["kind"] == SEAL
    }


def _touched(ledger: TrialLedger, strategy: str, first_day: str, last_day: str) -> list[Seal]:
    _require_window(strategy, first_day, last_day)
    return [one for one in sealed_windows(ledger, strategy) if one.touches(first_day, last_day)]


def _require_window(strategy: str, start: str, end: str) -> None:
    if strategy not in STRATEGIES:
        raise UsageError(f"strategy {strategy!r}: give one of {', '.join(STRATEGIES)}", strategy=strategy)
    require_date(start, "start")
    require_date(end, "end")
    if start > end:
        raise UsageError(f"the days start {start} and end {end}: start must not be after end", start=start)
