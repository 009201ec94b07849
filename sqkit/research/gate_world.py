"""Made-up validations with a known answer: two arms on the same rows, equal, better or worthless.

`World` says how large a validation is and how its rows hang together; the functions here draw moves
and signals, and trade. `sqkit.research.gate_calibration` solves for what a world states, and
`sqkit.research.gate_attempts` makes whole validations.

Assumptions:

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
  both arms equal: it calls as well as the rule and earns nothing by it. An "echo" is as often right but
  knows nothing beyond the rule: the rule's signal, blurred.
- With `horizon_sessions` above 1 (swing) moves and noise are moving sums over as many sessions: labels
  of neighbouring days overlap and opinions last.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import ndtr

from sqkit.metrics import DEFAULT_DEAD_ZONE
from sqkit.records import FLAT, LONG, SHORT
from sqkit.strategy import AGREE_FACTOR, DISAGREE_FACTOR
from sqkit.strategystep import RULE_MIN_STRENGTH

RULE_STRENGTH: Final = 0.37
ENTRY_STRENGTH: Final = 0.5


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
    shared_noise: float = 0.20
    rule_noise: float = 0.20
    drift: float = 0.05
    coverage: float = 0.10
    annual_sharpe: float = 2.0
    uplift: float = 0.025
    threshold: float = 0.6
    dead_zone: float = DEFAULT_DEAD_ZONE


def probability_up(signal: np.ndarray, knowledge: float, world: World) -> np.ndarray:
    """P(up | decisive move, signal) of a model whose signal has this correlation with the move."""
    spread = math.sqrt(1.0 - knowledge**2)
    mean = knowledge * signal + world.drift
    up, down = ndtr((mean - world.dead_zone) / spread), ndtr((-mean - world.dead_zone) / spread)
    probability: np.ndarray = up / (up + down)
    return probability


def draw_signals(
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
        lasting_noise(world, generator) if incumbent or number != 1 else np.zeros_like(move)
        for number in range(3)
    ]
    signals = []
    for row, r in zip(mix, knowledge, strict=True):
        noise = sum(weight * part for weight, part in zip(row, noises, strict=True) if weight)
        signals.append(r * (move - world.drift) + math.sqrt(1.0 - r * r) * noise)
    return move, today, signals


def lasting_noise(world: World, generator: np.random.Generator) -> np.ndarray:
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


def directions(probability: np.ndarray, threshold: float) -> np.ndarray:
    calls = np.full(probability.shape, FLAT, dtype=np.int8)
    calls[probability >= threshold] = LONG
    calls[1.0 - probability >= threshold] = SHORT
    return calls


def rule_view(signal: np.ndarray, lean: float) -> tuple[np.ndarray, np.ndarray]:
    """The rule's strength and its side, FLAT where it is too weak."""
    leaning = signal + lean
    strength = np.minimum(RULE_STRENGTH * np.abs(leaning), 1.0)
    side = np.where(strength >= RULE_MIN_STRENGTH, np.sign(leaning), FLAT).astype(np.int8)
    return strength, side


@dataclass(frozen=True)
class Traded:
    """Daily net return and cost (d,), net P&L of each position, and positions (d, r)."""

    daily: np.ndarray
    costs: np.ndarray
    trades: np.ndarray
    position: np.ndarray


def traded(
    strength: np.ndarray, side: np.ndarray, calls: np.ndarray, today: np.ndarray, cost: float
) -> Traded:
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
    return Traded(net.mean(axis=1), charged.mean(axis=1) / 100.0, net[position != 0.0], position)
