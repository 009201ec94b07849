"""How much data would suffice: power of a test in closed form, and what a found effect would need.

`would_suffice_line` reads the records of a validation whose grade is too low; the window planned before
training is `sqkit.research.window_plan`. All tests are one-sided normal approximations to the day-clustered
t tests of `sqkit.research.paired_statistics`; sizes are session days, or symbols at the same days.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from scipy.special import ndtr, ndtri

from sqkit.errors import UsageError
from sqkit.evidence_grade import (
    FIRST_BRIER,
    FIRST_PRECISION,
    FIRST_PRECISION_P,
    FIRST_RULE_BRIER,
    LOSS_ACTED_ON,
    LOSS_ALL_ROWS,
    MODERATE_P,
    NAMED_BASE_RATE,
    NAMED_PRECISION,
    NAMED_RULE_BRIER,
    STRONG_P,
)
from sqkit.metrics import TRADING_DAYS_PER_YEAR
from sqkit.research.gate_calibration import brier_improvement
from sqkit.research.gate_world import World

POWER: Final = 0.80
LONGEST_YEARS: Final = 10
LONGEST_DAYS: Final = LONGEST_YEARS * TRADING_DAYS_PER_YEAR
INTRA_DAY_CORRELATION: Final = 0.02
"""Assumed correlation of two rows' contributions on one day, where nothing better is known; the paired Brier
differences of the gate's simulated world have .018."""

_MOST_TIMES_THE_SYMBOLS: Final = 20.0
_LEVELS: Final = {
    LOSS_ALL_ROWS: MODERATE_P,
    LOSS_ACTED_ON: MODERATE_P,
    FIRST_PRECISION: FIRST_PRECISION_P,
    FIRST_BRIER: MODERATE_P,
    NAMED_PRECISION: FIRST_PRECISION_P,
    NAMED_BASE_RATE: MODERATE_P,
    NAMED_RULE_BRIER: MODERATE_P,
    FIRST_RULE_BRIER: MODERATE_P,
}
_STRONG_LEVELS: Final = {LOSS_ALL_ROWS: STRONG_P, FIRST_PRECISION: STRONG_P}
_NOUNS: Final = {
    LOSS_ALL_ROWS: "Brier improvement",
    LOSS_ACTED_ON: "Brier improvement on acted-on rows",
    FIRST_PRECISION: "precision uplift on acted-on rows",
    FIRST_BRIER: "Brier improvement on the base rate",
    NAMED_PRECISION: "precision uplift on the rule, on acted-on rows",
    NAMED_BASE_RATE: "Brier improvement on the base rate",
    NAMED_RULE_BRIER: "Brier improvement on the rule's hit rates",
    FIRST_RULE_BRIER: "Brier improvement on the rule's hit rates",
}


@dataclass(frozen=True)
class Window:
    """What is expected to suffice for one test.

    Attributes
    ----------
    effect, measured
        The true effect it is computed for; whether that is the measured one, or the policy's minimum
        because the measured one is not positive, or None where neither is known.
    session_days
        Shortest window with the asked power; None when it is longer than ten years or nothing is known.
    power_then
        Power of that window; None with `session_days`.
    times_symbols
        Times the symbols at the same days; None where more symbols alone do not suffice.
    power_now
        Power of the window as it is.
    """

    effect: float | None
    measured: bool
    session_days: int | None
    power_then: float | None
    times_symbols: float | None
    power_now: float | None


def power_of(effect: float, se: float, alpha: float, *, times: float = 1.0) -> float:
    """Power of a one-sided test of a mean when the data grow `times` fold.

    ``Phi(effect sqrt(times) / se - z_alpha)``.

    Parameters
    ----------
    effect
        True effect, positive for better.
    se
        Standard error at the present size, above 0.
    alpha
        One-sided level inside (0, 1).
    times
        New number of clusters over the present one, above 0.

    Raises
    ------
    UsageError
        A number outside its range or not finite.
    """
    for name, value in (("se", se), ("times", times)):
        if not 0.0 < value < math.inf:
            raise UsageError(f"{name} {value}: give a number above 0")
    if not 0.0 < alpha < 1.0:
        raise UsageError(f"alpha {alpha}: give a level inside (0, 1)")
    if not math.isfinite(effect):
        raise UsageError(f"effect {effect}: give a finite number")
    return float(ndtr(effect * math.sqrt(times) / se + ndtri(alpha)))


def times_needed(effect: float, se: float, alpha: float, *, power: float = POWER) -> float | None:
    """How many times the clusters give this power: ``((z_alpha + z_power) se / effect)^2``; None without effect."""
    if not effect > 0.0:
        return None
    power_of(effect, se, alpha)  # refuses what is out of range
    return ((float(ndtri(1.0 - alpha)) + float(ndtri(power))) * se / effect) ** 2


def symbols_factor(needed: float, *, rows_a_day: float, intra_day_correlation: float) -> float | None:
    """How many times the symbols do what `needed` times the days would; None where they cannot.

    The variance of a day's mean over m rows with correlation c is proportional to ``c + (1 - c) / m``: more
    symbols shrink only the second part.

    Parameters
    ----------
    needed
        Factor by which the variance must fall, at least 1 to be of interest.
    rows_a_day
        Rows that count, a day.
    intra_day_correlation
        Between two rows of a day, in [0, 1].
    """
    if not 0.0 <= intra_day_correlation <= 1.0 or not 0.0 < rows_a_day < math.inf:
        raise UsageError(
            f"intra-day correlation {intra_day_correlation} with {rows_a_day} rows a day: "
            "give a share in [0, 1] and a number above 0"
        )
    common, own = intra_day_correlation, (1.0 - intra_day_correlation) / rows_a_day
    left = (common + own) / needed - common
    return own / left if left > 0.0 else None


def shortest_window(
    record: Mapping[str, Any],
    *,
    session_days: int,
    alpha: float,
    effect: float | None = None,
    minimum: float | None = None,
    intra_day_correlation: float = INTRA_DAY_CORRELATION,
    power: float = POWER,
) -> Window:
    """The window that gives a record's test this power.

    Parameters
    ----------
    record
        Evidence with ``estimate``, ``se`` and ``n`` (``clusters``, ``rows``).
    session_days
        Days of the window it was measured on.
    alpha
        One-sided level of its test.
    effect
        The true effect; None takes the measured one as true.
    minimum
        The policy's smallest uplift, taken where the measured one is not positive.
    """
    se, estimate = record.get("se"), record.get("estimate")
    measured = effect is None
    if measured and estimate is not None and estimate > 0.0:
        effect = float(estimate)
    elif measured:
        effect, measured = minimum, False
    if se is None or not se > 0.0 or effect is None or not effect > 0.0:
        return Window(effect, measured, None, None, None, None)
    now = power_of(effect, se, alpha)
    times = times_needed(effect, se, alpha, power=power)
    assert times is not None
    days = max(math.ceil(session_days * times), 1)
    if now >= power:
        return Window(effect, measured, session_days, now, 1.0, now)
    known = record.get("n") or {}
    clusters, rows = known.get("clusters") or 0, known.get("rows") or 0
    more = None
    if clusters and rows:
        more = symbols_factor(times, rows_a_day=rows / clusters, intra_day_correlation=intra_day_correlation)
    if more is not None and more > _MOST_TIMES_THE_SYMBOLS:
        more = None
    if days > LONGEST_DAYS:
        return Window(effect, measured, None, None, more, now)
    return Window(effect, measured, days, power_of(effect, se, alpha, times=days / session_days), more, now)


def would_suffice_line(
    records: Sequence[Mapping[str, Any]],
    *,
    session_days: int,
    symbols: int,
    min_precision_uplift: float | None = None,
    min_evidence: str = "moderate",
    intra_day_correlation: float = INTRA_DAY_CORRELATION,
) -> str:
    """One line: which window or number of symbols is expected to suffice for the grade, and the power then.

    Of the tests that failed the one that needs most is named. A test that already has power .80 for the
    effect it measured is not what is missing.

    Parameters
    ----------
    records
        The blocking records of a validation.
    session_days, symbols
        Its size.
    min_precision_uplift
        The policy's: assumed when a measured effect is not positive, for a Brier score by what such a student
        gains in the gate's simulated world.
    min_evidence
        The grade asked for; ``strong`` asks for p <= .01.

    Returns
    -------
    str
        Empty when no known test failed.
    """
    levels = _LEVELS | (_STRONG_LEVELS if min_evidence == "strong" else {})
    failed = [record for record in records if _misses(record, levels)]
    if not failed:
        return ""
    windows = [
        (
            record,
            shortest_window(
                record,
                session_days=session_days,
                alpha=levels[record["name"]],
                minimum=_smallest_effect(record["name"], min_precision_uplift),
                intra_day_correlation=intra_day_correlation,
            ),
        )
        for record in failed
    ]
    unknown = [record for record, window in windows if window.effect is None or window.power_now is None]
    if unknown:
        return _unknown(max(unknown, key=_surely_worse))
    record, window = max(windows, key=lambda pair: pair[1].session_days or math.inf)
    noun, effect = _NOUNS[record["name"]], window.effect
    assumed = f"if the true {noun} is the measured {effect:.4f}"
    if not window.measured:
        points = 100.0 * (min_precision_uplift or 0.0)
        assumed = (
            f"if the true {noun} is {effect:.4f}, that of a student {points:g} points more precise "
            f"(the measured one is {record['estimate']:.4f})"
        )
    more = None if window.times_symbols is None else math.ceil(window.times_symbols * symbols)
    at_days = f"{more} symbols at {session_days} days" if more else ""
    if window.session_days is None:
        line = f"more than {LONGEST_YEARS} years of session days would be needed"
        return f"{line}{f' (or {at_days})' if more else ''} for power {_two(POWER)} {assumed}"
    either, alone = (f" (or {at_days})", "") if more else ("", " (more symbols alone are not)")
    return (
        f"about {window.session_days} session days{either} are expected to suffice{alone}: "
        f"power {_two(window.power_then or 0.0)} {assumed}"
    )


def _misses(record: Mapping[str, Any], levels: Mapping[str, float]) -> bool:
    """Whether a test that a grade asks for is not passed at its level."""
    if record["name"] not in levels:
        return False
    p = record.get("p_value")
    return record.get("status") != "pass" or (p is not None and p > levels[record["name"]])


def _smallest_effect(name: str, min_precision_uplift: float | None) -> float | None:
    """What the policy's smallest uplift comes to in the unit of a test; None where it says nothing."""
    if min_precision_uplift is None or not min_precision_uplift > 0.0:
        return None
    if name in (FIRST_PRECISION, NAMED_PRECISION):
        return min_precision_uplift
    if name in (LOSS_ALL_ROWS, LOSS_ACTED_ON):
        return brier_improvement(replace(World(), uplift=min_precision_uplift))
    return None


def _unknown(record: Mapping[str, Any]) -> str:
    """Why no window is named; that more data would not help is said only of what is surely worse."""
    noun, estimate = _NOUNS[record["name"]], record.get("estimate")
    if estimate is None or record.get("se") is None:
        return f"what would suffice cannot be estimated: the {noun} is undefined"
    if _surely_worse(record):
        return (
            f"no window is expected to suffice: the measured {noun} is {estimate:.4f}, its 95 % interval wholly "
            "below zero; a better student is needed, not more data"
        )
    return f"no window can be named: the measured {noun} is {estimate:.4f}, not above zero"


def _surely_worse(record: Mapping[str, Any]) -> bool:
    interval = record.get("ci")
    return interval is not None and interval[1] is not None and bool(interval[1] < 0.0)


def _two(share: float) -> str:
    """``.80``, as statisticians print it; never rounded up to 1."""
    return f"{min(math.floor(share * 100.0 + 1e-9) / 100.0, 0.99):.2f}".removeprefix("0")
