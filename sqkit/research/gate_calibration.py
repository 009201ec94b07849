"""Solve a made-up world for what it states: how much each side knows, and what a position costs.

`calibrate` is asked by `sqkit.research.gate_attempts`; the assumptions are those of
`sqkit.research.gate_world`. Shares of right calls come from quadrature, long-run Sharpe ratios from one
long simulation with a fixed seed whose mean is what the signals imply.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

import numpy as np
from scipy.optimize import brentq, root
from scipy.special import ndtr

from sqkit.metrics import TRADING_DAYS_PER_YEAR
from sqkit.research.gate_world import (
    ENTRY_STRENGTH,
    RULE_STRENGTH,
    World,
    directions,
    draw_signals,
    probability_up,
    rule_view,
    traded,
)

_CALIBRATION_SYMBOLS: Final = 100
_CALIBRATION_DAYS: Final = 2000
_TAIL: Final = 9.0
_NODES, _WEIGHTS = (0.5 * _TAIL * part for part in np.polynomial.legendre.leggauss(96))
_NODES = _NODES + 0.5 * _TAIL
"""Gauss-Legendre nodes on [0, 9] and their weights: the tail of a normal beyond a cut."""


@dataclass(frozen=True)
class Calibration:
    """What was solved for: correlations of signal and move, the rule's lean, shared noise, the cost.

    Attributes
    ----------
    baseline, better, rule
        Correlation of each signal with the move.
    rule_lean
        Added to the rule's signal: a trend rule may lean with the drift.
    rule_noise
        Share of the student's noise common with the rule's.
    cost
        Of a full position, in standard deviations of the horizon's move.
    precision, hit_ratio
        True values of the baseline model's calls.
    better_precision, better_hit_ratio
        True values of the better student's calls.
    base_rate
        Share of up moves among decisive ones: what training would have found.
    """

    baseline: float
    better: float
    rule: float
    rule_lean: float
    rule_noise: float
    cost: float
    precision: float
    hit_ratio: float
    better_precision: float
    better_hit_ratio: float
    base_rate: float


@lru_cache(maxsize=64)
def calibrate(world: World, *, incumbent: bool) -> Calibration:
    """Solve a world for what its assumptions state; the window's size does not matter here."""
    if (world.days, world.symbols, world.slots) != (_CALIBRATION_DAYS, _CALIBRATION_SYMBOLS, 1):
        reference = replace(world, days=_CALIBRATION_DAYS, symbols=_CALIBRATION_SYMBOLS, slots=1)
        return calibrate(reference, incumbent=incumbent)
    baseline = _root(lambda r: model_quality(r, world)[2] - world.coverage, 0.005, 0.7)
    precision, hit_ratio, _ = model_quality(baseline, world)
    asked = (precision + hit_ratio) / 2 + world.uplift
    better = _root(lambda r: sum(model_quality(r, world)[:2]) / 2 - asked, baseline, 0.95)
    better_precision, better_hit_ratio, _ = model_quality(better, world)
    rule, lean = _root(lambda r: rule_quality(r, 0.0, world)[0] - precision, 0.0, 0.95), 0.0
    if not incumbent:
        asked_of_rule = np.array([precision, hit_ratio])
        rule, lean = root(
            lambda pair: np.array(rule_quality(pair[0], pair[1], world)) - asked_of_rule,
            np.array([baseline, world.drift / baseline]),
            tol=1e-10,
        ).x
    up, down = ndtr(world.drift - world.dead_zone), ndtr(-world.drift - world.dead_zone)
    solved = Calibration(
        baseline=baseline,
        better=better,
        rule=float(rule),
        rule_lean=float(lean),
        rule_noise=world.rule_noise,
        cost=0.0,
        precision=precision,
        hit_ratio=hit_ratio,
        better_precision=better_precision,
        better_hit_ratio=better_hit_ratio,
        base_rate=float(up / (up + down)),
    )
    if incumbent:
        return replace(solved, cost=_cost(world, solved, incumbent=True))
    return _earning_nothing(world, solved)


def model_quality(knowledge: float, world: World) -> tuple[float, float, float]:
    """True precision of LONG calls, hit ratio and coverage of a calibrated model; by quadrature."""

    def surplus(mean: float) -> float:
        signal = np.array([(mean - world.drift) / knowledge])
        return float(probability_up(signal, knowledge, world)[0]) - world.threshold

    cut = _root(surplus, 0.0, 3.0)
    return _quality(knowledge, (cut - world.drift) / knowledge, (-cut - world.drift) / knowledge, world)


def rule_quality(knowledge: float, lean: float, world: World) -> tuple[float, float]:
    """True precision of LONG calls and hit ratio of the rule; by quadrature."""
    cut = ENTRY_STRENGTH / RULE_STRENGTH
    return _quality(knowledge, cut - lean, -cut - lean, world)[:2]


def _quality(knowledge: float, long_from: float, short_to: float, world: World) -> tuple[float, float, float]:
    """Precision of LONG calls, hit ratio and share of calls, for calls outside two cuts of the signal."""
    spread = math.sqrt(1.0 - knowledge**2)
    calls, right = [], []
    for edge, side in ((long_from, 1.0), (short_to, -1.0)):
        signal = edge + side * _NODES
        weight = _WEIGHTS * np.exp(-0.5 * signal**2) / math.sqrt(2.0 * math.pi)
        beyond = (side * (knowledge * signal + world.drift) - world.dead_zone) / spread
        calls.append(float(weight.sum()))
        right.append(float(weight @ ndtr(beyond)))
    return right[0] / calls[0], sum(right) / sum(calls), sum(calls)


def _earning_nothing(world: World, solved: Calibration) -> Calibration:
    """Choose how much noise an equal student shares with the rule so that it adds nothing to its Sharpe ratio."""

    def advantage(shared: float) -> float:
        trial = replace(solved, rule_noise=shared)
        student, rule = _long_run(world, trial, incumbent=False)
        cost = _cost_of(rule, world.annual_sharpe)
        return _sharpe(student, cost) - _sharpe(rule, cost)

    found = replace(solved, rule_noise=_root(advantage, 0.0, 0.95, tolerance=1e-3))
    return replace(found, cost=_cost(world, found, incumbent=False))


def _cost(world: World, solved: Calibration, *, incumbent: bool) -> float:
    return _cost_of(_long_run(world, solved, incumbent=incumbent)[1], world.annual_sharpe)


@dataclass(frozen=True)
class _LongRun:
    """An arm before costs: expected daily gross return, daily gross returns and daily exposure (d,)."""

    expected: float
    gross: np.ndarray
    exposure: np.ndarray


def _long_run(world: World, solved: Calibration, *, incumbent: bool) -> tuple[_LongRun, _LongRun]:
    """Student and baseline over many days; the mean from what the signals imply, not from luck."""
    generator = np.random.default_rng(20_120_102)
    known = (solved.rule, solved.baseline, solved.baseline)
    _, today, signals = draw_signals(world, known, solved.rule_noise, incumbent, generator)
    strength, side = rule_view(signals[0], solved.rule_lean)
    calls = directions(probability_up(signals[2], solved.baseline, world), world.threshold)
    across = solved.rule * solved.baseline + solved.rule_noise * math.sqrt(
        (1.0 - solved.rule**2) * (1.0 - solved.baseline**2)
    )
    of_rule, of_student = np.linalg.solve(
        np.array([[1.0, across], [across, 1.0]]), np.array([solved.rule, solved.baseline])
    )
    implied = (world.drift + of_rule * signals[0] + of_student * signals[2]) / world.horizon_sessions
    arms = []
    for chosen in (calls, calls if incumbent else np.zeros_like(calls)):
        position = traded(strength, side, chosen, today, 0.0).position
        arms.append(
            _LongRun(
                float(np.mean(position * implied)),
                np.mean(position * today, axis=1),
                np.mean(np.abs(position), axis=1),
            )
        )
    return arms[0], arms[1]


def _sharpe(arm: _LongRun, cost: float) -> float:
    """Annualised long-run Sharpe ratio at a cost of a full position."""
    spread = float(np.std(arm.gross - cost * arm.exposure))
    mean = arm.expected - cost * float(arm.exposure.mean())
    return mean / spread * math.sqrt(TRADING_DAYS_PER_YEAR)


def _cost_of(arm: _LongRun, annual_sharpe: float) -> float:
    """Cost of a full position at which the arm has this Sharpe ratio; 0 where it earns less without any."""
    return _root(lambda cost: _sharpe(arm, cost) - annual_sharpe, 0.0, 2.0, tolerance=1e-9)


def _root(function: Callable[[float], float], low: float, high: float, *, tolerance: float = 1e-10) -> float:
    """Root in [low, high]; the nearer end where the function does not change its sign."""
    at_low, at_high = function(low), function(high)
    if at_low * at_high > 0.0:
        return low if abs(at_low) < abs(at_high) else high
    return float(brentq(function, low, high, xtol=tolerance))


def brier_improvement(world: World) -> float:
    """How much lower the better student's true Brier score is on decisive rows; by quadrature."""
    solved = calibrate(world, incumbent=True)
    signal = np.concatenate([-_NODES, _NODES])
    density = np.concatenate([_WEIGHTS, _WEIGHTS]) * np.exp(-0.5 * signal**2)
    scores = []
    for knowledge in (solved.baseline, solved.better):
        spread = math.sqrt(1.0 - knowledge**2)
        mean = knowledge * signal + world.drift
        decisive = ndtr((mean - world.dead_zone) / spread) + ndtr((-mean - world.dead_zone) / spread)
        probability = probability_up(signal, knowledge, world)
        weight = density * decisive
        scores.append(float(weight @ (probability * (1.0 - probability)) / weight.sum()))
    return scores[0] - scores[1]
