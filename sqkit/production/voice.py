"""What the student says of a bar, inside an engine: features, the question, the answer or why there is none.

Where the student must not speak it is FLAT with a reason; nothing here raises. Challengers are asked beside it.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from sqkit.production.engine_log import EngineLog
from sqkit.production.engine_time import Clock
from sqkit.production.lane import Lane
from sqkit.production.serving import Serving
from sqkit.production.tick_record import shadow
from sqkit.records import DIRECTIONS, FLAT, REASON_CODES, REASONS

_HALTED: Final = REASON_CODES["halted"]
_WARM_UP: Final = REASON_CODES["warm_up"]
_CLOCK_JUMP: Final = REASON_CODES["clock_jump"]
_ERROR: Final = REASON_CODES["error"]


class Voice:
    """The student and its challengers, asked about lanes."""

    def __init__(self, serving: Serving, clock: Clock, log: EngineLog) -> None:
        self._serving = serving
        self._clock = clock
        self._log = log

    def observe(self, lane: Lane) -> np.ndarray | None:
        """The served model's features after this bar; None where none are needed or their step failed."""
        if lane.serves is not self._serving.scorer:
            lane.fit(self._serving.feature_sets(), self._serving.scorer)
        return lane.observe(self._step_failed)

    def _step_failed(self, problem: Exception) -> None:
        self._log.once(f"features {problem}", "Student prediction failed: %s", problem)

    def ask(self, lane: Lane, features: np.ndarray | None, halt: str | None) -> tuple[float, int, int]:
        """Probability, direction and reason of the student; FLAT wherever it must not speak."""
        scorer = self._serving.scorer
        if halt is not None:
            return math.nan, FLAT, _HALTED
        if not scorer.ready:
            ruled = scorer.refusal != "disabled" or lane.rule_due
            return math.nan, FLAT, REASON_CODES[scorer.refusal] if ruled else _WARM_UP
        if self._clock.jumped:
            self._log.once(
                "clock", "the machine's clock jumped; the student is silent until it is right again"
            )
            return math.nan, FLAT, _CLOCK_JUMP
        if features is None:
            return math.nan, FLAT, _ERROR
        if not lane.main_warm:
            lane.look_warm()
            if not lane.main_warm:
                return math.nan, FLAT, _WARM_UP
        return scorer.score_codes(features, lane.symbol)

    def shadows(self, lane: Lane) -> list[dict[str, Any]]:
        """What the challengers and the earlier release say; they are recorded and trade nothing."""
        said = []
        for role, one in self._serving.beside:
            stream = lane.streams.get(one.feature_set.digest) if one.feature_set is not None else None
            if one.ready and (stream is None or not stream.warm):
                probability, direction, reason = math.nan, FLAT, _WARM_UP
            else:
                latest = np.empty(0) if stream is None else stream.latest
                probability, direction, reason = one.score_codes(latest, lane.symbol)
            words = DIRECTIONS[direction], probability, REASONS[reason]
            said.append(shadow(role, one.version, one.short_digest, *words))
        return said
