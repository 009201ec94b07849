"""The baseline rule and the student's adjustment: one compiled step from a bar to a wanted position.

The backtest loops the step over a whole series (`run_strategy`), a live engine calls it once
a bar (`StrategyStream`): the same machine code, so the same bits. The step wants a position
between -1 and 1 and holds no money; `sqkit.fills` turns what it wants into fills.

The rule: side = sign(fast EMA - slow EMA), strength = min(abs(fast - slow) / (2 x ATR), 1);
FLAT below strength 0.25, and where the RSI says the move is overdone. A student that agrees
multiplies the strength by 1.2, one that disagrees by 0.5; it never originates or reverses a trade.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sqkit.errors import UsageError
from sqkit.records import FLAT
from sqkit.strategystep import (
    BARS_SEEN,
    BASELINE_DIRECTION,
    BASELINE_STRENGTH,
    EXIT_REASON,
    HELD,
    OUT_WIDTH,
    PREDICTION_SOURCE,
    RULE_ATR_MULTIPLE,
    RULE_MIN_STRENGTH,
    STATE_SIZE,
    STRENGTH,
    TARGET,
    TRADING,
    WANTED,
    strategy_loop,
    strategy_step,
)

if TYPE_CHECKING:
    from sqkit.settings import Settings

AGREE_FACTOR: Final = 1.2
DISAGREE_FACTOR: Final = 0.5


@dataclass(frozen=True)
class StrategyParameters:
    """What the step needs to know; recorded with every result.

    Attributes
    ----------
    strategy
        ``intraday`` (never holds over a session's end) or ``swing``.
    ema_fast, ema_slow, atr_bars, rsi_bars
        Periods in bars.
    rsi_high, rsi_low
        No LONG above, no SHORT below.
    entry_strength, exit_strength
        A position is taken at the first and left below the second.
    square_off_minutes
        Intraday: how long before the session's end the position is given up.
    max_holding_sessions
        Swing: sessions a position may last; 0 is no limit.
    allow_short
        Whether SHORT positions are taken.
    agree_factor, disagree_factor
        What an agreeing and a disagreeing student multiply the strength by.
    """

    strategy: str
    ema_fast: int = 12
    ema_slow: int = 26
    atr_bars: int = 14
    rsi_bars: int = 14
    rsi_high: float = 80.0
    rsi_low: float = 20.0
    entry_strength: float = 0.5
    exit_strength: float = 0.25
    square_off_minutes: int = 20
    max_holding_sessions: int = 0
    allow_short: bool = True
    agree_factor: float = AGREE_FACTOR
    disagree_factor: float = DISAGREE_FACTOR

    def __post_init__(self) -> None:
        if self.strategy not in {"intraday", "swing"}:
            raise UsageError(f"{self.strategy}: no such strategy; use intraday or swing")

    @classmethod
    def from_settings(cls, settings: Settings, strategy: str) -> StrategyParameters:
        """The parameters that `settings` give; intraday may go short and has no holding limit."""
        swing = strategy == "swing"
        return cls(
            strategy=strategy,
            ema_fast=settings.strategy_ema_fast,
            ema_slow=settings.strategy_ema_slow,
            atr_bars=settings.strategy_atr_bars,
            rsi_bars=settings.strategy_rsi_bars,
            rsi_high=settings.strategy_rsi_high,
            rsi_low=settings.strategy_rsi_low,
            entry_strength=settings.strategy_entry_strength,
            exit_strength=settings.strategy_exit_strength,
            square_off_minutes=settings.square_off_minutes,
            max_holding_sessions=settings.swing_max_holding_days if swing else 0,
            allow_short=settings.swing_allow_short if swing else True,
        )

    @property
    def warmup_bars(self) -> int:
        """Bars until the rule can speak: the last of them is the first with a strength."""
        return max(self.ema_fast, self.ema_slow, self.atr_bars + 1, self.rsi_bars + 1)

    @property
    def values(self) -> np.ndarray:
        """float64 (14,), the parameters in the order of the attributes; intraday is 1, swing 0."""
        return np.array([self.strategy == "intraday", *list(asdict(self).values())[1:]], dtype=np.float64)

    def describe(self) -> dict[str, Any]:
        """Every parameter and constant of the rule, ready for JSON."""
        return asdict(self) | {"rule_atr_multiple": RULE_ATR_MULTIPLE, "rule_min_strength": RULE_MIN_STRENGTH}


@dataclass(frozen=True)
class StrategyColumns:
    """What the step said about every bar.

    Attributes
    ----------
    baseline_direction
        int8 (n,), the rule's side before the student; FLAT until the rule is warm, below
        `RULE_MIN_STRENGTH`, and where the RSI forbids the side.
    baseline_strength
        float64 (n,) in [0, 1], the rule's strength whatever the direction; 0 until warm.
    strength
        float64 (n,), after the student's factor, clipped to [0, 1].
    target
        float64 (n,) in [-1, 1], the position wanted after this bar; fixed from entry to exit.
    prediction_source
        int8 (n,), `records.SOURCES`.
    exit_reason
        int8 (n,), `records.EXIT_REASONS`: why the target left a position on this bar; 0 elsewhere.
    """

    baseline_direction: np.ndarray
    baseline_strength: np.ndarray
    strength: np.ndarray
    target: np.ndarray
    prediction_source: np.ndarray
    exit_reason: np.ndarray


def run_strategy(
    rows: np.ndarray, student_directions: np.ndarray, parameters: StrategyParameters, *, start: int = 0
) -> StrategyColumns:
    """The step over a whole series.

    Parameters
    ----------
    rows
        float64 (n, 9), bar rows in time order.
    student_directions
        int8 (n,), LONG, FLAT or SHORT; FLAT wherever the student abstained.
    parameters
        The rule's parameters.
    start
        Bars before this position only warm the indicators: their target is 0.
    """
    if len(rows) != len(student_directions):
        raise UsageError(
            f"{len(rows)} bars but {len(student_directions)} student directions; give one for each bar"
        )
    out = np.empty((len(rows), OUT_WIDTH))
    strategy_loop()(
        strategy_step(),
        np.require(rows, np.float64, ["C", "W"]),
        np.require(student_directions, np.int8, ["C", "W"]),
        start,
        parameters.values,
        np.zeros(STATE_SIZE),
        out,
    )
    return StrategyColumns(
        out[:, BASELINE_DIRECTION].astype(np.int8),
        out[:, BASELINE_STRENGTH].copy(),
        out[:, STRENGTH].copy(),
        out[:, TARGET].copy(),
        out[:, PREDICTION_SOURCE].astype(np.int8),
        out[:, EXIT_REASON].astype(np.int8),
    )


class StrategyStream:
    """The step for a live engine: one symbol, one bar at a time."""

    def __init__(self, parameters: StrategyParameters) -> None:
        self.parameters = parameters
        self._step = strategy_step()
        self._values = parameters.values
        self._state = np.zeros(STATE_SIZE)
        self._out = np.zeros(OUT_WIDTH)

    @property
    def bars_seen(self) -> int:
        """Bars the step has been given."""
        return int(self._state[BARS_SEEN])

    @property
    def target(self) -> float:
        """Signed position wanted after the last bar, in [-1, 1]."""
        return float(self._state[WANTED])

    def update(self, row: np.ndarray, student_direction: int, mode: int = TRADING) -> np.ndarray:
        """Advance by one bar; float64 (6,), columns named by `sqkit.strategystep`, valid until the next call.

        Parameters
        ----------
        row
            float64 (9,), columns of `sqkit.bars`.
        student_direction
            LONG, FLAT or SHORT; FLAT where the student abstains.
        mode
            ``strategystep.WARMING``, ``TRADING`` or ``EXITS_ONLY``.
        """
        self._step(self._state, row, student_direction, mode, self._values, self._out)
        return self._out

    def warm(self, rows: np.ndarray) -> None:
        """Let bars pass that only warm the indicators, float64 (n, 9); the same bits as one by one."""
        rows = np.require(rows, np.float64, ["C", "W"])
        nothing = np.zeros(len(rows), dtype=np.int8)
        out = np.empty((len(rows), OUT_WIDTH))
        strategy_loop()(self._step, rows, nothing, len(rows), self._values, self._state, out)

    def hold(self, target: float) -> None:
        """Let the step believe that this position is held since the last bar: a host says what is real."""
        self._state[WANTED] = target
        self._state[HELD] = 0.0

    def snapshot(self) -> np.ndarray:
        """float64 (`STATE_SIZE`,), a copy of the state for `restore`."""
        return self._state.copy()

    def restore(self, state: np.ndarray) -> None:
        """Go on from a snapshot."""
        self._state[:] = state


def rule_calls(
    baseline_direction: np.ndarray, baseline_strength: np.ndarray, entry_strength: float
) -> np.ndarray:
    """int8 (n,), the rule's directional calls: its direction at or above the entry strength, else FLAT."""
    return np.where(baseline_strength >= entry_strength, baseline_direction, FLAT).astype(np.int8)
