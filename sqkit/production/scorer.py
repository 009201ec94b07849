"""`StudentScorer`: the released model of a slot, asked about one row at a time; no exception leaves it.

An engine of one's own needs nothing else::

    scorer = StudentScorer(Settings(), "intraday")
    score = scorer.score(features, symbol="MSFT")

Loading never raises either: a scorer that may not speak says why in `refusal`, and every score it gives is
FLAT with that reason. What it loads is decided in `sqkit.production.admission`.
"""

from __future__ import annotations

import datetime as dt
import logging
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from sqkit.production.admission import Admission, admit
from sqkit.records import DIRECTIONS, FLAT, REASON_CODES, REASONS
from sqkit.settings import Settings

logger = logging.getLogger("sqkit.production.engine")
EXTRA: Final = {"component": "engine"}

SCORED: Final = REASON_CODES["scored"]
_ERROR: Final = REASON_CODES["error"]
_STALE: Final = REASON_CODES["stale_model"]
_OUT_OF_SCOPE: Final = REASON_CODES["out_of_scope"]
_DAY_NS: Final = 86_400_000_000_000


class Score(NamedTuple):
    """What the student said of one row.

    Attributes
    ----------
    direction
        ``LONG``, ``SHORT`` or ``FLAT``.
    confidence, probability_up
        ``max(p, 1 - p)`` and p; NaN where the row was not scored.
    version
        Of the model; empty without one.
    reason
        ``scored``, or why it says nothing (`sqkit.records.REASONS`).
    """

    direction: str
    confidence: float
    probability_up: float
    version: str
    reason: str


class StudentScorer:
    """The model that a slot serves, verified, with today's threshold.

    Parameters
    ----------
    settings
        See `sqkit.settings.Settings`.
    strategy
        ``intraday`` or ``swing``: decides the slot.
    root
        The project's root; relative paths of the settings are below it.
    now_ns
        Gives the present, UTC nanoseconds, for the model's age. A replay gives the time of the validation.
    admission
        What was decided about the slot's model already; by default it is decided here.

    Attributes
    ----------
    ready
        Whether it may speak.
    refusal, note
        Why it may not, as a reason and in words.
    version, digest, short_digest
        Of the model; empty without one.
    symbols
        What the approvals allow it; None where nothing restricts it.
    """

    def __init__(
        self,
        settings: Settings,
        strategy: str,
        *,
        root: Path = Path(),
        now_ns: Callable[[], int] = time.time_ns,
        admission: Admission | None = None,
    ) -> None:
        self.admission = admission or admit(settings, strategy, root=root, now_ns=now_ns())
        model = self.admission.model
        self.refusal = self.admission.refusal
        self.note = self.admission.note
        self.version: str = model.version if model else ""
        self.digest: str = model.digest if model else ""
        self.short_digest = self.digest[:12]
        self.feature_set = model.feature_set if model else None
        self.symbols = self.admission.symbols
        self.failures = 0
        self._now_ns = now_ns
        self._places = {name: i for i, name in enumerate(model.feature_set.columns)} if model else {}
        self._vector = np.full(len(self._places), np.nan)
        self._max_age_days = settings.student_model_max_age_days
        self._age_known_until_ns = 0
        self._stale = False
        self._said: set[str] = set()
        self._rows = None
        if model is not None and not self.refusal:
            self._rows = model.row_scorer(settings.student_model_confidence_threshold)

    @property
    def ready(self) -> bool:
        """Whether it may speak."""
        return self._rows is not None

    def score(self, features: np.ndarray | Mapping[str, float], symbol: str = "") -> Score:
        """Direction and confidence of one row; FLAT with a reason wherever it must not speak.

        Parameters
        ----------
        features
            Floats (k,) in the order of ``feature_set.columns``, or by their names.
        symbol
            Held against the approved symbols; empty: not asked.
        """
        probability, direction, reason = self.score_codes(features, symbol)
        return Score(
            DIRECTIONS[direction],
            max(probability, 1.0 - probability),
            probability,
            self.version,
            REASONS[reason],
        )

    def score_codes(
        self, features: np.ndarray | Mapping[str, float], symbol: str = ""
    ) -> tuple[float, int, int]:
        """The same as probability, direction and reason code, for an engine."""
        rows = self._rows
        if rows is None:
            return math.nan, FLAT, REASON_CODES[self.refusal]
        if self.symbols is not None and symbol and symbol not in self.symbols:
            return math.nan, FLAT, _OUT_OF_SCOPE
        if self._is_stale():
            return math.nan, FLAT, _STALE
        try:
            if isinstance(features, Mapping):
                features = self._ordered(features)
            return rows.score(features)
        except Exception as problem:  # noqa: BLE001 - nothing leaves a scorer
            self._failed(problem)
            return math.nan, FLAT, _ERROR

    def explain(self, problem: str) -> None:
        """Count a failure of prediction; each cause is logged once."""
        self.failures += 1
        if problem not in self._said:
            self._said.add(problem)
            logger.warning("Student prediction failed: %s", problem, extra=EXTRA)

    def days_left(self) -> int | None:
        """Calendar days until the model is too old, negative when it is; None without a model."""
        if not self.version:
            return None
        return self._max_age_days - age_days(self.version, self._now_ns())

    def _failed(self, problem: Exception) -> None:
        self.explain(" ".join(str(problem).split()) or type(problem).__name__)

    def _ordered(self, features: Mapping[str, float]) -> np.ndarray:
        missing = [name for name in self._places if name not in features]
        if missing:
            raise ValueError(f"features lack {', '.join(missing[:3])}")
        for name, place in self._places.items():
            self._vector[place] = features[name]
        return self._vector

    def _is_stale(self) -> bool:
        now = self._now_ns()
        if not self._age_known_until_ns - _DAY_NS <= now < self._age_known_until_ns:
            self._stale = age_days(self.version, now) > self._max_age_days
            self._age_known_until_ns = (now // _DAY_NS + 1) * _DAY_NS
        return self._stale


def age_days(version: str, now_ns: int) -> int:
    """Days from the date in a version tag to the date of an instant, both in UTC; 0 where it lies ahead."""
    made = dt.datetime.strptime(version, "%Y%m%d_%H%M%S").replace(tzinfo=dt.UTC).date()
    return max(0, now_ns // _DAY_NS - (made - dt.date(1970, 1, 1)).days)
