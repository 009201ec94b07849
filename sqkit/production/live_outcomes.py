"""Predictions of a slot and what became of them, from the bars in their own records.

The outcome of a prediction is known when the label horizon has passed, by the definition the gate uses
(`sqkit.metrics.horizon_outcomes`). Predictions are judged bar by bar, all symbols of a bar together, in order of the
bars, whatever order records come in: the first record of a symbol's bar counts, a second one (another host, the same
tick) is a duplicate, one that comes after its bar was closed is late. What a bar's outcome is follows from
the records alone, never from when they were read.

In: telemetry records. Out: `ClosedBar` after `ClosedBar`.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final, NamedTuple

import numpy as np

from sqkit.metrics import VOLATILITY_BARS, horizon_outcomes
from sqkit.production.bar_clock import BarClock
from sqkit.records import (
    FLAT,
    HISTORY,
    JUDGED_REASONS,
    LONG,
    PREDICTION,
    SHORT,
    UNKNOWN,
    instant_ns,
    session_day_of,
)

_LATEST_AHEAD_NS: Final = 86_400_000_000_000
"""No engine decides on a bar that begins so much later: daily bars are stamped by their date."""

GRACE_BARS: Final = {False: 30, True: 3}
"""So many bars beyond its horizon a symbol's outcome is waited for; by whether bars are daily."""

LATER_BARS: Final = {False: 5, True: 0}
"""So many bars later an outcome is looked at: engines on several hosts do not write at one instant."""

PREVIOUS: Final = "previous"
"""Role of a shadow: the production release before the one that is served."""

_CALLS: Final = {"LONG": LONG, "SHORT": SHORT, "FLAT": FLAT}


class Contract(NamedTuple):
    """How predictions of a model are judged: bars ahead, and the dead zone in volatilities."""

    horizon_bars: int
    dead_zone: float


class Voice(NamedTuple):
    """What one model said of one bar.

    Attributes
    ----------
    model
        First digits of its digest; empty where none spoke.
    call
        LONG, FLAT or SHORT.
    probability_up
        None where the row was not scored.
    reason
        A word of `sqkit.records.REASONS`.
    """

    model: str
    call: int
    probability_up: float | None
    reason: str

    @property
    def judged(self) -> bool:
        """Whether the row counts in its metrics."""
        return self.reason in JUDGED_REASONS


@dataclass
class Row:
    """One symbol's bar: what was said of it, and its close.

    Attributes
    ----------
    number, left
        The bar's place; see `sqkit.production.bar_clock.BarPlace`.
    shadows
        What the models beside the served one said, by role and number.
    outcome, why_unknown
        None while it is not known whether it will be known; UNKNOWN where it never will, and why. Both follow from
        the bars, so they are not kept.
    """

    start_ns: int
    day: int
    number: int
    left: int
    close: float
    decided_ns: int
    version: str
    said: Voice
    shadows: tuple[tuple[str, Voice], ...]
    latency_us: float | None = None
    outcome: int | None = None
    why_unknown: str = ""

    def to_list(self) -> list[Any]:
        """Plain JSON values."""
        return [
            self.start_ns,
            self.day,
            self.number,
            self.left,
            self.close,
            self.decided_ns,
            self.version,
            list(self.said),
            [[role, list(voice)] for role, voice in self.shadows],
            self.latency_us,
        ]

    @property
    def precedence(self) -> tuple[Any, ...]:
        """The lowest of several hosts' records counts, in whatever order they are read."""
        return (self.decided_ns, self.said.model, self.said.call, self.close, self.latency_us or 0.0)

    @classmethod
    def from_list(cls, stored: list[Any]) -> Row:
        """The row that `to_list` gave."""
        *about, said, shadows, latency_us = stored
        start_ns, day, number, left, close, decided_ns, version = about
        spoken = tuple((role, Voice(*voice)) for role, voice in shadows)
        return cls(start_ns, day, number, left, close, decided_ns, version, Voice(*said), spoken, latency_us)


@dataclass(frozen=True)
class ClosedBar:
    """Every prediction of one bar, each with its outcome.

    Attributes
    ----------
    number, in_session, day, start_ns
        The bar.
    known_at_ns
        When the last of its outcomes was known, UTC; the bar itself where none was.
    rows
        Symbol to its row, sorted.
    """

    number: int
    in_session: int
    day: int
    start_ns: int
    known_at_ns: int
    rows: Mapping[str, Row]


class OutcomeBook:
    """Predictions of one slot that wait for their outcome.

    Parameters
    ----------
    clock
        Places bars.
    contract
        How a model's predictions are judged, by the first digits of its digest; None for one nobody knows.

    Attributes
    ----------
    counts
        ``predictions``, ``duplicate``, ``conflicting`` (another host said something else), ``late``, ``revised`` (an
        engine refused the bar's second version), ``missing`` (no bar came in time), ``session_end`` (no outcome by
        definition), ``no_history`` (too few bars before it).
    newest
        Number of the newest bar that any record was of; -1 before the first.
    changed
        Symbol and number of bars that are new or (None) are needed no longer; for whoever keeps them.
    """

    def __init__(self, clock: BarClock, contract: Callable[[str], Contract | None]) -> None:
        self._clock = clock
        self._contract = contract
        self._grace, self._later = GRACE_BARS[clock.daily], LATER_BARS[clock.daily]
        self.symbols: dict[str, list[Row]] = {}
        self.open: dict[int, dict[str, Row]] = {}
        self.closed_up_to = -1
        self.newest = -1
        self.newest_ns = self.newest_decision_ns = 0
        self.counts: Counter[str] = Counter()
        self.changed: dict[tuple[str, int], Row | None] = {}

    def add(self, record: Mapping[str, Any]) -> Row | None:
        """Take one telemetry record; the row it made, None where it made none."""
        if record["event"] == HISTORY:
            self._add_history(record)
            return None
        if record["event"] != PREDICTION:
            self.counts["revised"] += record.get("bar_status") == "revised"
            return None
        symbol, start = record["symbol"], instant_ns(record["bar_time"])
        day = session_day_of(record["session_date"])
        place = self._clock.place(start, day)
        _require_types(record)
        row = Row(
            start,
            day,
            place.number,
            place.left,
            float(record["bar"][3]),
            instant_ns(record["decision_time"]),
            record["student_model_version"],
            _voice(record),
            tuple((one.get("role", "challenger"), _voice(one)) for one in record.get("challengers", ())),
            record.get("latency_us"),
        )
        if start > row.decided_ns + _LATEST_AHEAD_NS:
            raise ValueError(f"{symbol}: a bar of {record['bar_time']} that was decided on long before it")
        known = self.symbols.setdefault(symbol, [])
        if self._is_there(symbol, known, row) or self._is_late(row):
            return None
        _insert(known, row)
        self.changed[symbol, row.number] = row
        self.open.setdefault(row.number, {})[symbol] = row
        self.counts["predictions"] += 1
        if row.number > self.newest:
            self.newest, self.newest_ns = row.number, start
        self.newest_decision_ns = max(self.newest_decision_ns, row.decided_ns)
        return row

    def _add_history(self, record: Mapping[str, Any]) -> None:
        """Bars that an engine was warmed with: nobody spoke on them, but outcomes need the moves before the first bar."""
        known = self.symbols.setdefault(record["symbol"], [])
        for bar_time, date, close in record["bars"]:
            start, day = instant_ns(bar_time), session_day_of(date)
            place = self._clock.place(start, day)
            row = Row(start, day, place.number, place.left, float(close), start, "", _NOBODY, ())
            at = _position(known, row.number)
            there = at < len(known) and known[at].number == row.number
            if not there and row.number > self.closed_up_to:
                known.insert(at, row)
                self.open.setdefault(row.number, {})[record["symbol"]] = row
                self.changed[record["symbol"], row.number] = row

    def _is_there(self, symbol: str, known: list[Row], row: Row) -> bool:
        """Whether the symbol's bar was there already: of several decisions the earliest counts."""
        at = _position(known, row.number)
        if at == len(known) or known[at].number != row.number:
            return False
        there = known[at]
        if there.said == _NOBODY and row.number > self.closed_up_to:
            del known[at]  # a bar that another engine was only warmed with
            return False
        self.counts["duplicate"] += 1
        self.counts["conflicting"] += (there.said, there.close) != (row.said, row.close)
        if (
            row.number > self.closed_up_to and row.precedence < there.precedence
        ):  # whoever decided first counts
            known[at] = self.open[row.number][symbol] = row
            self.changed[symbol, row.number] = row
        return True

    def _is_late(self, row: Row) -> bool:
        late = row.number <= self.closed_up_to
        self.counts["late"] += late
        return late

    def closed(self) -> Iterator[ClosedBar]:
        """The bars whose every outcome is known, or waited for no longer, in their order; each once."""
        for number in sorted(self.open):
            if self.newest < number + max(self._later, 1):
                return
            if not self._resolve(self.open[number]):
                return
            yield self._close(number)

    @property
    def pending(self) -> int:
        """Judged predictions whose outcome is not known yet."""
        return sum(
            row.outcome is None and row.said.judged for rows in self.open.values() for row in rows.values()
        )

    def _close(self, number: int) -> ClosedBar:
        rows = dict(sorted(self.open.pop(number).items()))
        self.closed_up_to = number
        known_at = 0
        for symbol, row in rows.items():
            if row.why_unknown:
                self.counts[row.why_unknown] += 1
            known_at = max(known_at, self._known_at(symbol, row))
            self._forget(symbol, number)
        first = next(iter(rows.values()))
        in_session = self._clock.place(first.start_ns, first.day).in_session
        return ClosedBar(number, in_session, first.day, first.start_ns, known_at, rows)

    def _known_at(self, symbol: str, row: Row) -> int:
        """When a row's outcome was known: at the end of its last bar, or of the bar itself where it has none."""
        end = row
        if row.outcome != UNKNOWN:
            history = self.symbols[symbol]
            contract = self._contract(row.said.model)
            assert contract is not None
            end = history[_position(history, row.number) + contract.horizon_bars]
        return self._clock.available_ns(end.start_ns, end.day)

    def _forget(self, symbol: str, number: int) -> None:
        """Drop bars that no open outcome needs for its volatility."""
        history = self.symbols[symbol]
        surplus = _position(history, number) - VOLATILITY_BARS
        if surplus > 0:
            for row in history[:surplus]:
                self.changed[symbol, row.number] = None
            del history[:surplus]

    def _resolve(self, rows: Mapping[str, Row]) -> bool:
        """Give every row of a bar its outcome, all or none: a bar that waits is judged by what is known when it closes."""
        known: dict[Contract, dict[str, Row]] = {}
        unknown: dict[str, str] = {}
        for symbol, row in rows.items():
            contract = self._contract(row.said.model) if row.said.judged else None
            if contract is None:  # nobody is judged by it: its bar stays as part of the symbol's history
                unknown[symbol] = ""
                continue
            verdict = self._standing(self.symbols[symbol], row, contract.horizon_bars)
            if verdict == "wait":
                return False
            if verdict == "known":
                known.setdefault(contract, {})[symbol] = row
            else:
                unknown[symbol] = verdict
        for symbol, why in unknown.items():
            _settle(rows[symbol], UNKNOWN, why)
        for contract, one_bar in known.items():
            outcomes = self._outcomes(one_bar, contract)
            for row, outcome in zip(one_bar.values(), outcomes, strict=True):
                _settle(row, outcome, "no_history" if outcome == UNKNOWN else "")
        return True

    def _outcomes(self, rows: Mapping[str, Row], contract: Contract) -> list[int]:
        """Outcomes of one bar of many symbols, by one call of the gate's definition.

        The bars that each symbol's outcome needs, `VOLATILITY_BARS` before it and the horizon after it, stand one
        symbol behind the other; what is read off is computed within one symbol's alone.
        """
        needed = VOLATILITY_BARS + 1 + contract.horizon_bars
        closes: list[float] = []
        for symbol, row in rows.items():
            history = self.symbols[symbol]
            at = _position(history, row.number)
            of_symbol = [
                one.close for one in history[max(at - VOLATILITY_BARS, 0) : at + 1 + contract.horizon_bars]
            ]
            closes += [math.nan] * (needed - len(of_symbol)) + of_symbol
        found = horizon_outcomes(
            np.array(closes),
            np.zeros(len(closes), dtype=np.int64),
            contract.horizon_bars,
            dead_zone=contract.dead_zone,
            within_session=False,  # a row whose horizon leaves its session was told apart before
        ).outcome
        said: list[int] = found[VOLATILITY_BARS::needed].tolist()
        return said

    def _standing(self, history: list[Row], row: Row, horizon: int) -> str:
        """Whether a row's outcome is ``known``, still to ``wait`` for, or why there never will be one."""
        if not self._clock.daily and row.left < horizon:
            return "session_end"
        settled = row.number + horizon + self._later
        if self.newest < (settled if self._clock.daily else min(settled, row.number + row.left)):
            return "wait"
        at = _position(history, row.number) + horizon
        latest = row.number + horizon + self._grace
        if at < len(history) and history[at].number <= latest:
            same_session = self._clock.daily or history[at].day == row.day
            return "known" if same_session else "missing"
        return "missing" if at < len(history) or self.newest >= latest else "wait"

    # --- state

    def state(self) -> dict[str, Any]:
        """Everything but the symbols' rows, plain JSON."""
        return {
            "closed_up_to": self.closed_up_to,
            "counts": dict(sorted(self.counts.items())),
            "newest": [self.newest, self.newest_ns, self.newest_decision_ns],
        }

    def restore(self, state: Mapping[str, Any], symbols: Mapping[str, list[list[Any]]]) -> None:
        """Go on from what `state` and the rows of `symbols` were."""
        self.closed_up_to = state["closed_up_to"]
        self.counts = Counter(state["counts"])
        self.newest, self.newest_ns, self.newest_decision_ns = state["newest"]
        self.symbols = {name: [Row.from_list(one) for one in rows] for name, rows in symbols.items()}
        self.open = {}
        for name, rows in self.symbols.items():
            for row in rows:
                if row.number > self.closed_up_to:
                    self.open.setdefault(row.number, {})[name] = row


_NOBODY: Final = Voice("", FLAT, None, "warm_up")


def _require_types(record: Mapping[str, Any]) -> None:
    """Refuse a record whose parts are of another kind than an engine writes."""
    said = [record, *record.get("challengers", ())]
    texts = [record["symbol"], record["student_model_version"]]
    texts += [one[name] for one in said for name in ("student_model_digest", "reason")]
    numbers = [record.get("latency_us"), *(one["student_probability_up"] for one in said)]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("a text of the record is none")
    if not all(one is None or (isinstance(one, int | float) and math.isfinite(one)) for one in numbers):
        raise TypeError("a number of the record is none")


def _settle(row: Row, outcome: int, why_unknown: str) -> None:
    row.outcome, row.why_unknown = outcome, why_unknown


def _voice(said: Mapping[str, Any]) -> Voice:
    return Voice(
        said["student_model_digest"],
        _CALLS[said["student_prediction"]],
        said["student_probability_up"],
        said["reason"],
    )


def _insert(history: list[Row], row: Row) -> None:
    if not history or history[-1].number < row.number:
        history.append(row)
    else:
        history.insert(bisect_left(history, row.number, key=_number), row)


def _position(history: list[Row], number: int) -> int:
    """Where a symbol's bar lies."""
    return bisect_left(history, number, key=_number)


_number: Final = attrgetter("number")
