"""What a prediction and a trade record hold: the fields, their types and their codes, once.

The backtest writes predictions as Parquet columns, the engine writes them as JSON lines;
both take names and codes from here; `decode` makes words of codes, `encode` codes of words. This module knows
no file format.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

LONG: Final = 1
FLAT: Final = 0
SHORT: Final = -1
DIRECTIONS: Final[dict[int, str]] = {LONG: "LONG", FLAT: "FLAT", SHORT: "SHORT"}

UP: Final = 1
INSIDE: Final = 0
DOWN: Final = -1
UNKNOWN: Final = -128
OUTCOMES: Final[dict[int, str | None]] = {UP: "UP", INSIDE: "INSIDE", DOWN: "DOWN", UNKNOWN: None}
"""Realised horizon move: beyond the dead zone up or down, inside it, or not known."""

BASELINE_STRATEGY: Final = 0
STUDENT_MODEL: Final = 1
SOURCES: Final[dict[int, str]] = {BASELINE_STRATEGY: "baseline_strategy", STUDENT_MODEL: "student_model"}

REASONS: Final[dict[int, str]] = {
    0: "scored",
    1: "warm_up",
    2: "gap",
    3: "low_confidence",
    4: "stale_model",
    5: "out_of_session",
    6: "out_of_distribution",
    7: "strategy_mismatch",
    8: "unknown_symbol",
    9: "settings_differ",
    10: "version_mismatch",
    11: "halted",
    12: "disabled",
    13: "error",
    14: "non_finite_feature",
    15: "out_of_scope",
    16: "no_student",
    17: "clock_jump",
}
"""Why the student said nothing about a bar (0: it spoke).

``out_of_scope``: the approvals do not allow it this symbol. ``no_student``: nothing is in production, or
it was refused. ``clock_jump``: nobody knows what time it is, so nobody knows whether the bar is due.
"""
REASON_CODES: Final[dict[str, int]] = {name: code for code, name in REASONS.items()}
JUDGED_REASONS: Final = frozenset({"scored", "low_confidence", "out_of_distribution"})
"""Under these a student was asked about a row: it counts in every metric, FLAT where it abstained."""

EXIT_REASONS: Final[dict[int, str]] = {
    0: "open",
    1: "opposite_signal",
    2: "strength_below_exit",
    3: "square_off",
    4: "max_holding",
    5: "missed_square_off",
    6: "flat_signal",
}
"""Why a trade was closed (0: still open at the window's end).

``flat_signal``: the rule turned FLAT for its RSI although its strength would have held.
"""
EXIT_REASON_CODES: Final[dict[str, int]] = {name: code for code, name in EXIT_REASONS.items()}

BAR_STATUSES: Final[dict[int, str]] = {
    0: "ok",
    1: "gap",
    2: "missing_open_bar",
    3: "late",
    4: "frozen_quotes",
    10: "duplicate",
    11: "revised",
    12: "out_of_order",
    13: "unfinished",
    14: "bad_price",
    15: "out_of_session",
    16: "unknown_symbol",
    17: "naive_timestamp",
    18: "end_stamped",
    19: "strategy_mismatch",
    20: "not_a_bar",
}
"""What an engine found of an incoming bar: below 10 it was used, from 10 on it was refused.

``gap``: bars of this session are missing before it. ``revised``: the last bar again with other values.
"""
BAR_STATUS_CODES: Final[dict[str, int]] = {name: code for code, name in BAR_STATUSES.items()}
FIRST_REFUSED: Final = 10

ENTRY_LOCKS: Final[dict[int, str | None]] = {
    0: None,
    1: "halted",
    2: "not_synced",
    3: "position_mismatch",
    4: "late_bar",
    5: "feed_stale",
    6: "no_student",
    7: "end_stamped",
}
"""Why no position could be entered on a bar; exits go on under every one of them."""
ENTRY_LOCK_CODES: Final[dict[str | None, int]] = {name: code for code, name in ENTRY_LOCKS.items()}

PREDICTION: Final = "prediction"
BAR_REFUSED: Final = "bar_refused"
HISTORY: Final = "history"
TRADE_OPENED: Final = "trade_opened"
TRADE_CLOSED: Final = "trade_closed"
"""The events of live records."""

PREDICTION_FIELDS: Final[dict[str, str]] = {
    "bar_time": "int64",  # UTC nanoseconds, start of the bar; with the symbol the record's id
    "session_date": "int32",  # days since 1970-01-01, the market's session date
    "student_prediction": "int8",  # DIRECTIONS
    "student_probability_up": "float64",  # P(up | decisive move), NaN when not scored
    "student_confidence": "float64",  # max(p, 1 - p), NaN when not scored
    "reason": "int8",  # REASONS
    "prediction_source": "int8",  # SOURCES
    "baseline_direction": "int8",  # DIRECTIONS, of the rule before the student
    "baseline_strength": "float64",
    "strength": "float64",  # after the student's factor, clipped to [0, 1]
    "target": "float64",  # signed position wanted after this bar, in [-1, 1]
    "outcome": "int8",  # OUTCOMES
}
"""Columns of a validation prediction file; the live record has them too (plus features and latency)."""

TRADE_FIELDS: Final[dict[str, str]] = {
    "entry_time": "int64",
    "exit_time": "int64",  # 0 while open
    "entry_session_date": "int32",
    "exit_session_date": "int32",
    "direction": "int8",
    "quantity": "int64",  # whole shares, positive
    "entry_price": "float64",  # after slippage
    "exit_price": "float64",  # after slippage; NaN while open
    "fees": "float64",  # both legs, in the market's currency
    "net_pnl": "float64",  # in the market's currency
    "exit_reason": "int8",  # EXIT_REASONS
    "entry_strength": "float64",
    "student_at_entry": "int8",  # DIRECTIONS of the student when the entry was decided
}

_CODED: Final[dict[str, dict[int, Any]]] = {
    "student_prediction": DIRECTIONS,
    "baseline_direction": DIRECTIONS,
    "direction": DIRECTIONS,
    "student_at_entry": DIRECTIONS,
    "reason": REASONS,
    "prediction_source": SOURCES,
    "outcome": OUTCOMES,
    "exit_reason": EXIT_REASONS,
}
_CODE_OF: Final[dict[str, dict[Any, int]]] = {
    name: {word: code for code, word in codes.items()} for name, codes in _CODED.items()
}
_INSTANTS: Final = ("bar_time", "entry_time", "exit_time")
_DATES: Final = ("session_date", "entry_session_date", "exit_session_date")
_EPOCH: Final = dt.date(1970, 1, 1)
_EPOCH_UTC: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def iso_date(session_day: int) -> str:
    """A session date as ``YYYY-MM-DD`` from its count of days since 1970-01-01."""
    return (_EPOCH + dt.timedelta(days=int(session_day))).isoformat()


def session_day(date: dt.date) -> int:
    """A date as its count of days since 1970-01-01."""
    return (date - _EPOCH).days


def iso_instant(nanoseconds: int) -> str:
    """A UTC instant as ``YYYY-MM-DDTHH:MM:SS[.ffffff]Z``."""
    instant = _EPOCH_UTC + dt.timedelta(microseconds=int(nanoseconds) // 1000)
    return instant.isoformat().replace("+00:00", "Z")


def decode(record: dict[str, Any]) -> dict[str, Any]:
    """A record in words: codes become names, instants and dates ISO text, NaN becomes None.

    A value that is text already (the live form) stays as it is, so both forms decode alike.
    """
    plain: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, str) or value is None:
            plain[name] = value
        elif name in _CODED:
            plain[name] = _CODED[name][int(value)]
        elif name in _INSTANTS:
            plain[name] = iso_instant(value) if value else None
        elif name in _DATES:
            plain[name] = iso_date(value)
        elif isinstance(value, float) and value != value:
            plain[name] = None
        else:
            plain[name] = value
    return plain


def encode(record: Mapping[str, Any], fields: Mapping[str, str]) -> tuple[int | float, ...]:
    """The numbers that `decode` made words of, in the order of `fields`.

    Parameters
    ----------
    fields
        `PREDICTION_FIELDS` or `TRADE_FIELDS`; an outcome that is absent is not known yet.

    Raises
    ------
    KeyError, OverflowError, TypeError, ValueError
        A field is absent, of another type or size, or a word that no code has.
    """
    return tuple(_encoded(name, record, kind) for name, kind in fields.items())


def _encoded(name: str, record: Mapping[str, Any], kind: str) -> int | float:
    if name == "outcome":
        return _CODE_OF[name][record.get(name)]
    value = record[name]
    if name in _CODE_OF:
        return _CODE_OF[name][value]
    if name in _INSTANTS:
        return 0 if value is None else instant_ns(value)
    if name in _DATES:
        return session_day_of(value)
    if value is None and kind == "float64":
        return float("nan")
    if isinstance(value, bool) or not isinstance(value, int if kind == "int64" else (int, float)):
        raise TypeError(f"{name}: {value!r} is no number of its kind")
    return _int64(value) if isinstance(value, int) and kind == "int64" else float(value)


def instant_ns(instant: str) -> int:
    """UTC nanoseconds of an instant as `iso_instant` writes it."""
    since = dt.datetime.fromisoformat(instant) - _EPOCH_UTC
    return _int64((since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1_000)


def _int64(value: int) -> int:
    if not -(2**63) <= value < 2**63:
        raise OverflowError(f"{value} has more than 64 bits")
    return value


@lru_cache(maxsize=4096)
def session_day_of(date: str) -> int:
    """A session date as its count of days since 1970-01-01, from ``YYYY-MM-DD``."""
    return session_day(dt.date.fromisoformat(date))


def code_dictionary() -> dict[str, dict[str, Any]]:
    """Codes and names of every coded column, for a file's schema metadata."""
    return {name: {str(code): word for code, word in codes.items()} for name, codes in sorted(_CODED.items())}
