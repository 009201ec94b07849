"""Whole made-up validations: what a student of known quality would leave behind.

`draw_attempt` takes a `World` and what the student truly is, and gives the `PairedRows` and
`PairedReturns` of a validation. `sqkit.research.gate_simulation` judges them with the gate's own code.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np

from sqkit.records import DOWN, FLAT, INSIDE, UP
from sqkit.research.gate_calibration import calibrate
from sqkit.research.gate_world import (
    ENTRY_STRENGTH,
    World,
    directions,
    draw_signals,
    lasting_noise,
    probability_up,
    rule_view,
    traded,
)
from sqkit.research.paired_rows import PairedReturns, PairedRows

Student = Literal["equal", "better", "noise", "echo"]

_CODES: Final[dict[Student, int]] = {"equal": 1, "better": 2, "noise": 3, "echo": 4}


@dataclass(frozen=True)
class Attempt:
    """One made-up validation.

    Attributes
    ----------
    base_rate
        None where the baseline is a model.
    trades_student, trades_baseline
        Net P&L of each position, for the win rate.
    """

    rows: PairedRows
    returns: PairedReturns
    base_rate: float | None
    trades_student: np.ndarray
    trades_baseline: np.ndarray


def attempts_of(
    world: World, student: Student, *, incumbent: bool, attempts: int, seed: int
) -> Iterator[Attempt]:
    """Independent attempts; the n-th depends on the seed and n only."""
    for number in range(attempts):
        generator = np.random.default_rng([seed, _CODES[student], int(incumbent), number])
        yield draw_attempt(world, student, incumbent=incumbent, generator=generator)


def draw_attempt(
    world: World, student: Student, *, incumbent: bool, generator: np.random.Generator
) -> Attempt:
    """A validation of a student that truly is `student`, against a model or (no incumbent) the rule."""
    solved = calibrate(world, incumbent=incumbent)
    knowledge = solved.better if student == "better" else solved.baseline
    move, today, signals = draw_signals(
        world, (solved.rule, solved.baseline, knowledge), solved.rule_noise, incumbent, generator
    )
    if student == "noise":
        signals[2] = lasting_noise(world, generator)
    elif student == "echo":
        kept = min(solved.baseline / solved.rule, 1.0)
        signals[2] = kept * signals[0] + math.sqrt(1.0 - kept**2) * lasting_noise(world, generator)
    probability = probability_up(signals[2], knowledge, world)
    calls = directions(probability, world.threshold)
    strength, side = rule_view(signals[0], solved.rule_lean)
    if incumbent:
        probability_baseline = probability_up(signals[1], solved.baseline, world)
        calls_baseline = directions(probability_baseline, world.threshold)
        base_rate, adjusting = None, calls_baseline
    else:
        probability_baseline = np.full_like(probability, np.nan)
        calls_baseline = np.where(strength >= ENTRY_STRENGTH, side, FLAT).astype(np.int8)
        base_rate, adjusting = solved.base_rate, np.zeros_like(calls)
    outcomes = np.full(move.shape, INSIDE, dtype=np.int8)
    outcomes[move > world.dead_zone] = UP
    outcomes[move < -world.dead_zone] = DOWN

    arms = [traded(strength, side, chosen, today, solved.cost) for chosen in (calls, adjusting)]
    symbols, days = _places(world)
    rows = PairedRows(
        session_days=days,
        symbols=symbols,
        symbol_names=tuple(f"S{number:03d}" for number in range(world.symbols)),
        acted_on=(side != FLAT).ravel(),
        outcomes=outcomes.ravel(),
        calls_student=calls.ravel(),
        calls_baseline=calls_baseline.ravel(),
        probability_student=probability.ravel(),
        probability_baseline=probability_baseline.ravel(),
    )
    returns = PairedReturns(
        session_days=np.arange(world.days),
        student=arms[0].daily,
        baseline=arms[1].daily,
        student_costs=arms[0].costs,
        baseline_costs=arms[1].costs,
    )
    return Attempt(rows, returns, base_rate, arms[0].trades, arms[1].trades)


def swapped(attempt: Attempt) -> Attempt:
    """The same validation with student and baseline model exchanged; there must be an incumbent."""
    rows, returns = attempt.rows, attempt.returns
    return Attempt(
        replace(
            rows,
            calls_student=rows.calls_baseline,
            calls_baseline=rows.calls_student,
            probability_student=rows.probability_baseline,
            probability_baseline=rows.probability_student,
        ),
        PairedReturns(
            returns.session_days,
            returns.baseline,
            returns.student,
            returns.baseline_costs,
            returns.student_costs,
        ),
        attempt.base_rate,
        attempt.trades_baseline,
        attempt.trades_student,
    )


def _places(world: World) -> tuple[np.ndarray, np.ndarray]:
    """Symbol and session day of each row."""
    rows = world.symbols * world.slots
    return np.tile(np.arange(rows) % world.symbols, world.days), np.repeat(np.arange(world.days), rows)
