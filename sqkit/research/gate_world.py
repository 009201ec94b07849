"""Made-up validations with a known answer: two arms on the same rows, equal, better or worthless.

`sqkit.research.gate_simulation` judges them with the gate's own code, `sqkit.research.power` plans
windows with them. A `World` (how large, how correlated) and a `Student` (what it truly is) go in,
an `Attempt` comes out: the `PairedRows` and `PairedReturns` that a real validation would leave.

Assumptions, each a field of `World` or a line of `draw_attempt`:

- One row is one symbol at one decision. Its move over the horizon, in standard deviations, is
  ``drift + sqrt(market_share) M + sqrt(1 - market_share) E``: M is the day's, E the row's own normal.
  Inside `dead_zone` of zero nothing happened, and any directional call there is wrong. The slots of
  a day all share M, as further symbols would: cautious.
- A model sees ``s = r move + sqrt(1 - r^2) noise``; r is how much it knows. A share
  `noise_day_share` of the noise's variance is common to the day (a model is too bullish on
  everything today), a share `shared_noise` is common to two models. Its probability is P(up | decisive,
  s), so every model is calibrated; a "noise" student claims the knowledge of an equal one and has none.
- The baseline model knows what gives `coverage`, the share of rows with confidence at or above the
  threshold: .06 to .13 on real bars at .6. An equal student knows as much; a better one as much as
  lifts precision and hit ratio by `uplift` on average. Solved by quadrature, nothing is set by hand.
- The rule sees such a signal too: strength .37 |s + lean|, FLAT below .25, a call from .5 on. On real NSE
  bars the rule is not FLAT on 42 to 56 % of rows and at or above .5 on 12 to 24 %; .37 gives 50 and 18 %.
  Its knowledge is solved so that its LONG calls are right as often as the baseline model's, and where
  the rule is itself the baseline a lean with the drift, so that all its calls are.
- Positions are the rule's side times its strength, times 1.2 or .5 where the student agrees or
  disagrees, clipped, none below .5, held for a session; so the arms' daily P&L is highly correlated.
  The cost of a position is solved so that the baseline's long-run Sharpe ratio is `annual_sharpe`
  with 100 symbols.
- Without an incumbent model the baseline is the rule alone. An equal student then has its precision
  and hit ratio, and its noise shares with the rule's as much as makes the long-run Sharpe ratio of
  both arms equal: it calls as well as the rule and earns nothing by it.
- With `horizon_sessions` above 1 (swing) moves and noise are moving sums over as many sessions: labels
  of neighbouring days overlap and opinions last.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, Literal

import numpy as np
from scipy.optimize import brentq, root
from scipy.special import ndtr

from sqkit.metrics import DEFAULT_DEAD_ZONE, TRADING_DAYS_PER_YEAR
from sqkit.records import DOWN, FLAT, INSIDE, LONG, SHORT, UP
from sqkit.research.paired_rows import PairedReturns, PairedRows
from sqkit.strategy import AGREE_FACTOR, DISAGREE_FACTOR
from sqkit.strategystep import RULE_MIN_STRENGTH

Student = Literal["equal", "better", "noise"]
STUDENTS: Final[tuple[Student, ...]] = ("equal", "better", "noise")

RULE_STRENGTH: Final = 0.37
ENTRY_STRENGTH: Final = 0.5

_CALIBRATION_SYMBOLS: Final = 100
_CALIBRATION_DAYS: Final = 2000
_TAIL: Final = 9.0
_NODES, _WEIGHTS = (0.5 * _TAIL * part for part in np.polynomial.legendre.leggauss(96))
_NODES = _NODES + 0.5 * _TAIL
"""Gauss-Legendre nodes on [0, 9] and their weights: the tail of a normal beyond a cut."""


@dataclass(frozen=True)
class World:
    """How large a validation is and how its rows hang together; see the module's assumptions.

    Attributes
    ----------
    days, symbols, slots
        Session days; symbols; decisions a symbol and day.
    horizon_sessions
        Sessions a label reaches over, 1 for labels that end on their day.
    market_share, noise_day_share, shared_noise
        Shares of variance in [0, 1]: of moves common to a day, of a model's noise common to a day,
        of a model's noise common to both models.
    rule_noise
        Share of a model's noise common with the rule's, where there is an incumbent model.
    drift
        Mean move, in standard deviations; .05 makes 53 % of decisive moves go up.
    coverage
        Share of rows on which the baseline model calls a direction.
    annual_sharpe
        The baseline's long-run Sharpe ratio after costs, with 100 symbols.
    uplift
        What "better" means, as a share.
    threshold, dead_zone
        Confidence from which a direction counts; move inside which nothing happened.
    """

    days: int = 63
    symbols: int = 100
    slots: int = 1
    horizon_sessions: int = 1
    market_share: float = 0.10
    noise_day_share: float = 0.15
    shared_noise: float = 0.0
    rule_noise: float = 0.30
    drift: float = 0.05
    coverage: float = 0.08
    annual_sharpe: float = 2.0
    uplift: float = 0.025
    threshold: float = 0.6
    dead_zone: float = DEFAULT_DEAD_ZONE


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


# --- one attempt


def draw_attempt(
    world: World, student: Student, *, incumbent: bool, generator: np.random.Generator
) -> Attempt:
    """A validation of a student that truly is `student`, against a model or (no incumbent) the rule."""
    solved = calibrate(world, incumbent=incumbent)
    knowledge = {"equal": solved.baseline, "better": solved.better, "noise": solved.baseline}[student]
    move, today, signals = _draw_signals(
        world, (solved.rule, solved.baseline, knowledge), solved.rule_noise, incumbent, generator
    )
    if student == "noise":
        signals[2] = _noise(world, generator)
    probability = probability_up(signals[2], knowledge, world)
    calls = _calls(probability, world.threshold)
    strength, side = _rule(signals[0], solved.rule_lean)
    if incumbent:
        probability_baseline = probability_up(signals[1], solved.baseline, world)
        calls_baseline = _calls(probability_baseline, world.threshold)
        base_rate, adjusting = None, calls_baseline
    else:
        probability_baseline = np.full_like(probability, np.nan)
        calls_baseline = np.where(strength >= ENTRY_STRENGTH, side, FLAT).astype(np.int8)
        base_rate, adjusting = solved.base_rate, np.zeros_like(calls)
    outcomes = np.full(move.shape, INSIDE, dtype=np.int8)
    outcomes[move > world.dead_zone] = UP
    outcomes[move < -world.dead_zone] = DOWN

    arms = [_trade(strength, side, chosen, today, solved.cost) for chosen in (calls, adjusting)]
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


def probability_up(signal: np.ndarray, knowledge: float, world: World) -> np.ndarray:
    """P(up | decisive move, signal) of a model whose signal has this correlation with the move."""
    spread = math.sqrt(1.0 - knowledge**2)
    mean = knowledge * signal + world.drift
    up, down = ndtr((mean - world.dead_zone) / spread), ndtr((-mean - world.dead_zone) / spread)
    probability: np.ndarray = up / (up + down)
    return probability


def _draw_signals(
    world: World,
    knowledge: tuple[float, float, float],
    rule_noise: float,
    incumbent: bool,
    generator: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Moves over the horizon, moves of the next session, signals of rule, baseline and student; each (d, r).

    Both moves are in standard deviations of the horizon's move.
    """
    h = world.horizon_sessions
    steps = _common_and_own(world, world.market_share, generator)
    move = world.drift + _moving_sum(steps, h)
    today = world.drift / h + steps[: world.days] / math.sqrt(h)

    share = np.eye(3)
    share[0, 2] = share[2, 0] = rule_noise
    if incumbent:
        share[0, 1] = share[1, 0] = rule_noise
        share[1, 2] = share[2, 1] = world.shared_noise
    mix = np.linalg.cholesky(share + 1e-12 * np.eye(3))
    noises = [
        _noise(world, generator) if incumbent or number != 1 else np.zeros_like(move) for number in range(3)
    ]
    signals = []
    for row, r in zip(mix, knowledge, strict=True):
        noise = sum(weight * part for weight, part in zip(row, noises, strict=True) if weight)
        signals.append(r * (move - world.drift) + math.sqrt(1.0 - r * r) * noise)
    return move, today, signals


def _noise(world: World, generator: np.random.Generator) -> np.ndarray:
    """A model's error, unit variance, lasting as long as a label; (d, r)."""
    return _moving_sum(_common_and_own(world, world.noise_day_share, generator), world.horizon_sessions)


def _common_and_own(world: World, common: float, generator: np.random.Generator) -> np.ndarray:
    """Independent sessions of unit variance, of which a share is the same for all rows; (d + h - 1, r)."""
    days = world.days + world.horizon_sessions - 1
    day = generator.standard_normal(days)
    own = generator.standard_normal((days, world.symbols * world.slots))
    own *= math.sqrt(1.0 - common)
    own += math.sqrt(common) * day[:, None]
    return own


def _moving_sum(steps: np.ndarray, sessions: int) -> np.ndarray:
    if sessions == 1:
        return steps
    total = np.cumsum(steps, axis=0)
    total[sessions:] -= total[:-sessions].copy()
    summed: np.ndarray = total[sessions - 1 :] / math.sqrt(sessions)
    return summed


def _calls(probability: np.ndarray, threshold: float) -> np.ndarray:
    calls = np.full(probability.shape, FLAT, dtype=np.int8)
    calls[probability >= threshold] = LONG
    calls[1.0 - probability >= threshold] = SHORT
    return calls


def _rule(signal: np.ndarray, lean: float) -> tuple[np.ndarray, np.ndarray]:
    """The rule's strength and its side, FLAT where it is too weak."""
    leaning = signal + lean
    strength = np.minimum(RULE_STRENGTH * np.abs(leaning), 1.0)
    side = np.where(strength >= RULE_MIN_STRENGTH, np.sign(leaning), FLAT).astype(np.int8)
    return strength, side


@dataclass(frozen=True)
class _Traded:
    """Daily net return and cost (d,), net P&L of each position, and positions (d, r)."""

    daily: np.ndarray
    costs: np.ndarray
    trades: np.ndarray
    position: np.ndarray


def _trade(
    strength: np.ndarray, side: np.ndarray, calls: np.ndarray, today: np.ndarray, cost: float
) -> _Traded:
    """The rule's positions as the calls adjust them, over the next session's move.

    Returns are in hundredths of the move's standard deviation, so that 1 + r stays positive.
    """
    agreement = calls * side
    factor = np.ones_like(strength)
    factor[agreement > 0] = AGREE_FACTOR
    factor[agreement < 0] = DISAGREE_FACTOR
    wanted = np.minimum(strength * factor, 1.0)
    position = np.where(wanted >= ENTRY_STRENGTH, wanted * side, 0.0)
    charged = cost * np.abs(position)
    net = (position * today - charged) / 100.0
    return _Traded(net.mean(axis=1), charged.mean(axis=1) / 100.0, net[position != 0.0], position)


def _places(world: World) -> tuple[np.ndarray, np.ndarray]:
    """Symbol and session day of each row."""
    rows = world.symbols * world.slots
    return np.tile(np.arange(rows) % world.symbols, world.days), np.repeat(np.arange(world.days), rows)


# --- what the world's numbers must be


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
    _, today, signals = _draw_signals(world, known, solved.rule_noise, incumbent, generator)
    strength, side = _rule(signals[0], solved.rule_lean)
    calls = _calls(probability_up(signals[2], solved.baseline, world), world.threshold)
    across = solved.rule * solved.baseline + solved.rule_noise * math.sqrt(
        (1.0 - solved.rule**2) * (1.0 - solved.baseline**2)
    )
    of_rule, of_student = np.linalg.solve(
        np.array([[1.0, across], [across, 1.0]]), np.array([solved.rule, solved.baseline])
    )
    implied = (world.drift + of_rule * signals[0] + of_student * signals[2]) / world.horizon_sessions
    arms = []
    for chosen in (calls, calls if incumbent else np.zeros_like(calls)):
        position = _trade(strength, side, chosen, today, 0.0).position
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
