"""One symbol of an engine: its bars, features, strategy step and paper book.

The streams are the compiled steps of the backtest, called once a bar. The paper book sizes orders and says
when a position is to be closed; with a dry run it is the position, else a host's fills correct it. A position
keeps the rules it was opened under: under other rules the lane runs both until it is flat.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Final, NamedTuple

import numpy as np

from sqkit.bars import ROW_WIDTH, BarArrays
from sqkit.errors import FeatureSetMismatch
from sqkit.features import FeatureSet, FeatureStream
from sqkit.fills import FillStream
from sqkit.production.intake import BarIntake
from sqkit.strategy import StrategyParameters, StrategyStream
from sqkit.strategystep import EXITS_ONLY

RECENT_BARS: Final = 512
"""So many bars are remembered, for a model that needs other features than the one before it."""


class Captured(NamedTuple):
    """A lane's whole state, copied; `Lane.restore` goes on from it."""

    intake: dict[str, Any]
    features: dict[str, bytes]
    strategy: np.ndarray
    parameters: StrategyParameters
    fills: np.ndarray
    quantity: int
    strategy_said: tuple[float, int, int]


class Lane:
    """One symbol.

    Parameters
    ----------
    symbol, number
        Its name, and its place in the engine's journal.
    parameters
        Today's rules.
    fills
        The paper book, empty.

    Attributes
    ----------
    streams
        One `FeatureStream` for each feature set that a model of the engine needs, by the set's digest.
    main
        The one of the model that is served; None where no features are needed.
    serves
        Whom `main` was chosen for.
    quantity
        Signed shares really held.
    warm, main_warm
        Whether the rule, and the served model's features, can speak after the last bar.
    strategy_said
        Strength and student's direction of the newest wanted position, and the newest exit reason.
    """

    def __init__(
        self,
        symbol: str,
        number: int,
        intake: BarIntake,
        parameters: StrategyParameters,
        fills: FillStream,
    ) -> None:
        self.symbol = symbol
        self.number = number
        self.intake = intake
        self.parameters = parameters
        self.strategy = StrategyStream(parameters)
        self.next_strategy: StrategyStream | None = None
        self.fills = fills
        self.streams: dict[str, FeatureStream] = {}
        self.main: FeatureStream | None = None
        self.serves: object = None
        self.warm = self.main_warm = False
        self.quantity = 0
        self.strategy_said = (0.0, 0, 0)
        self.bars_used = 0
        self._recent = np.full((RECENT_BARS, ROW_WIDTH), np.nan)

    @property
    def rule_due(self) -> bool:
        """Whether the rule can speak on the next bar."""
        return self.warm or self.strategy.bars_seen >= self.strategy.parameters.warmup_bars - 1

    @property
    def flat(self) -> bool:
        """Whether no position is held, wanted or ordered."""
        return not (self.quantity or self.fills.quantity or self.strategy.target or any(self.fills.orders))

    def fit(self, wanted: Sequence[FeatureSet], serves: object) -> None:
        """Keep the streams of these feature sets and no other; a new one is warmed with what is remembered.

        Parameters
        ----------
        wanted
            The served model's set first; none where no features are needed.
        """
        kept = {}
        for features in wanted:
            stream = self.streams.get(features.digest)
            if stream is None:
                stream = _warmed(features, self.recent())
            kept[features.digest] = stream
        self.streams = kept
        self.main = kept[wanted[0].digest] if wanted else None
        self.serves = serves
        self.look_warm()

    def look_warm(self) -> None:
        """Bring `warm` and `main_warm` up to date: asked on every bar until both are."""
        strategy, main = self.strategy, self.main
        self.warm = strategy.bars_seen >= strategy.parameters.warmup_bars
        self.main_warm = main is not None and main.warm

    def begin_again(self, digest: str) -> None:
        """Throw away a stream whose step failed: it is warmed anew by live bars."""
        self._put(digest, FeatureStream(self.streams[digest].features))

    def _put(self, digest: str, fresh: FeatureStream) -> None:
        """A stream in place of the one that was there."""
        if self.main is self.streams[digest]:
            self.main, self.main_warm = fresh, False
        self.streams[digest] = fresh

    def observe(self, failed: Callable[[Exception], None]) -> np.ndarray | None:
        """The served model's features after the bar in the intake; None where none are needed or their step failed.

        Parameters
        ----------
        failed
            Told what a step raised; its stream begins again.
        """
        row = self.intake.row
        self._recent[self.bars_used % RECENT_BARS] = row
        self.bars_used += 1
        features = None
        for digest, stream in self.streams.items():
            try:
                found = stream.update(row)
            except Exception as problem:  # noqa: BLE001 - a user's step may raise anything
                failed(problem)
                self.begin_again(digest)
                continue
            if stream is self.main:
                features = found
        return features

    def recent(self) -> np.ndarray:
        """float64 (n, 9), the bars that are remembered, oldest first."""
        at = self.bars_used % RECENT_BARS
        if self.bars_used < RECENT_BARS:
            return self._recent[:at].copy()
        return np.concatenate((self._recent[at:], self._recent[:at]))

    def warm_up(self, history: BarArrays) -> int:
        """Let a history pass that no position came of; how many bars it had that are new here.

        A lane that was restored has seen its own bars: with them only what is new here is warmed.
        """
        new = int(np.searchsorted(history.timestamp_ns, self.intake.last_ns, "right"))
        reaches = new and history.timestamp_ns[new - 1] == self.intake.last_ns
        if reaches and new >= self.bars_used:  # one that ends earlier would leave a hole before today's bars
            self._warm_what_is_new(history.rows[:new])
        rows = history.rows[new:]
        if not len(rows):
            return 0
        for digest, stream in self.streams.items():
            try:
                stream.warm_up(rows)
            except Exception:  # noqa: BLE001 - a user's step may raise anything
                self.begin_again(digest)
        if self.strategy.target:
            for row in rows:  # a position is open: its exit rules go on, nothing is entered
                self.strategy.update(row, 0, EXITS_ONLY)
        else:
            self.strategy.warm(rows)
        if self.next_strategy is not None:
            self.next_strategy.warm(rows)
        self._remember_all(rows)
        self.intake.seed(int(history.timestamp_ns[-1]), rows[-1])
        self.look_warm()
        return len(rows)

    def _warm_what_is_new(self, rows: np.ndarray) -> None:
        """Bars that the lane has seen before it was restored, for what was not there then."""
        if self.next_strategy is not None:
            self.next_strategy = StrategyStream(self.parameters)
            self.next_strategy.warm(rows)
        for digest, stream in self.streams.items():
            if not stream.warm:
                self._put(digest, _warmed(stream.features, rows))
        self.bars_used = 0
        self._remember_all(rows)

    def _remember_all(self, rows: np.ndarray) -> None:
        for row in rows[-RECENT_BARS:]:
            self._recent[self.bars_used % RECENT_BARS] = row
            self.bars_used += 1

    def change_rules(self) -> None:
        """Take today's rules where others were kept for a position that is closed now."""
        if self.next_strategy is not None and self.flat:
            self.strategy, self.next_strategy = self.next_strategy, None
            self.look_warm()

    def adopt(self, quantity: int) -> None:
        """Hold what a host says is held; exits work on it."""
        self.quantity = quantity
        if quantity != self.fills.quantity:
            self.fills.adopt(quantity, self.intake.end_ns)
        side = (quantity > 0) - (quantity < 0)
        target = self.strategy.target
        if side != (target > 0) - (target < 0):
            self.strategy.hold(float(side))

    # --- what a restart needs

    def capture(self) -> Captured:
        """A copy of everything."""
        return Captured(
            self.intake.snapshot(),
            {digest: stream.snapshot() for digest, stream in self.streams.items()},
            self.strategy.snapshot(),
            self.strategy.parameters,
            self.fills.snapshot(),
            self.quantity,
            self.strategy_said,
        )

    def restore(self, kept: dict[str, Any]) -> None:
        """Go on from what `plain` made of a capture.

        What is new here, other rules or another feature set, is warmed by a history or by live bars.
        """
        self.intake.restore(kept["intake"])
        self.quantity = kept["quantity"]
        strength, student, reason = kept["strategy_said"]
        self.strategy_said = (strength, student, reason)
        self.fills.restore(_numbers(kept["fills"]))
        parameters = StrategyParameters(**kept["parameters"])
        if parameters != self.parameters:
            self.next_strategy = StrategyStream(self.parameters)
            self.strategy = StrategyStream(parameters)
        self.strategy.restore(_numbers(kept["strategy"]))
        for digest, stream in self.streams.items():
            try:
                stream.restore(base64.b64decode(kept["features"][digest]))
            except (KeyError, FeatureSetMismatch):
                self.begin_again(digest)  # a history, or live bars, warm it
        self.change_rules()
        self.look_warm()


def _warmed(features: FeatureSet, rows: np.ndarray) -> FeatureStream:
    """A stream that has seen these rows; a cold one where a user's step raises on them."""
    stream = FeatureStream(features)
    try:
        stream.warm_up(rows)
    except Exception:  # noqa: BLE001 - a user's step may raise anything; live bars warm it again
        stream = FeatureStream(features)
    return stream


def plain(captured: Captured) -> dict[str, Any]:
    """A capture as plain JSON values."""
    return {
        "features": {digest: base64.b64encode(one).decode() for digest, one in captured.features.items()},
        "fills": _text(captured.fills),
        "intake": captured.intake,
        "parameters": asdict(captured.parameters),
        "quantity": captured.quantity,
        "strategy": _text(captured.strategy),
        "strategy_said": list(captured.strategy_said),
    }


def _text(numbers: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(numbers, dtype="<f8").tobytes()).decode()


def _numbers(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype="<f8").copy()
