"""`StudentScorer`: the released model of a slot, asked about one row at a time; no exception leaves it.

An engine of one's own needs nothing else::

    scorer = StudentScorer(Settings(), "intraday")
    score = scorer.score(features, symbol="MSFT")

Loading never raises either: a scorer that may not speak says why in `refusal`, and every score it gives is
FLAT with that reason. What it loads is decided in `sqkit.production.admission`. It looks for a halt of the slot
at every row; a promotion or rollback reaches it by `StudentScorer.refresh`, called between two bars.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from sqkit.artifacts import HALT_FILE, RELEASE_FILE
from sqkit.production.admission import Admission, admit
from sqkit.production.audit import AuditLog
from sqkit.production.halt_watch import HaltWatch
from sqkit.production.slots import models_folder
from sqkit.production.telemetry import COMPONENT, logger
from sqkit.records import DIRECTIONS, FLAT, REASON_CODES, REASONS
from sqkit.settings import Settings
from sqkit.versions import is_version, version_ns

_HALTED: Final = REASON_CODES["halted"]
_WARM_UP: Final = REASON_CODES["warm_up"]
_NON_FINITE: Final = REASON_CODES["non_finite_feature"]
_ERROR: Final = REASON_CODES["error"]
_STALE: Final = REASON_CODES["stale_model"]
_OUT_OF_SCOPE: Final = REASON_CODES["out_of_scope"]
_DAY_NS: Final = 86_400_000_000_000
_MOST_CAUSES: Final = 100


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
    interval, market
        Of the bars it will see; empty: not asked.
    root
        The project's root; relative paths of the settings are below it.
    now_ns
        Gives the present, UTC nanoseconds, for the model's age. A replay gives the time of the validation.
    admission
        What was decided about the slot's model already; by default it is decided here.
    log
        The audit log as this process has read it before.

    Attributes
    ----------
    ready
        Whether it may speak.
    refusal, note
        Why it may not, as a reason and in words.
    version, digest, short_digest
        Of the model; empty without one.
    feature_set
        What it has to be asked with; None without a model.
    symbols
        What the approvals allow it; None where nothing restricts it.
    failures
        Predictions that failed.
    """

    def __init__(
        self,
        settings: Settings,
        strategy: str,
        *,
        interval: str = "",
        market: str = "",
        root: Path = Path(),
        now_ns: Callable[[], int] = time.time_ns,
        admission: Admission | None = None,
        log: AuditLog | None = None,
    ) -> None:
        root = root.absolute()  # a host may change its folder
        self._now_ns = now_ns
        self._threshold = settings.student_model_confidence_threshold
        self._max_age_days = settings.student_model_max_age_days
        log = log or slot_log(settings, strategy, root)
        self._admit: Callable[[], Admission] = partial(
            admit, settings, strategy, root=root, interval=interval, market=market, log=log
        )
        self.failures = 0
        self._said: set[str] = set()
        self._take(admission or self._admit())
        self._halts = HaltWatch(self.admission.path.with_name(HALT_FILE), log, self.admission.slot)
        self._halts.read_log()

    def score(self, features: np.ndarray | Mapping[str, float], symbol: str) -> Score:
        """Direction and confidence of one row; FLAT with a reason wherever it must not speak.

        A halt of the slot is looked for every time.

        Parameters
        ----------
        features
            Floats (k,) in the order of ``feature_set.columns``, or by their names; NaN throughout while the
            feature set warms up.
        symbol
            Held against the approved symbols.
        """
        try:
            if self._halts.level() is not None:
                probability, direction, reason = math.nan, FLAT, _HALTED
            else:
                row = self._ordered(features) if isinstance(features, Mapping) else features
                row = np.ascontiguousarray(row, dtype=np.float64)
                probability, direction, reason = self.score_codes(row, symbol)
        except Exception as problem:  # noqa: BLE001 - nothing leaves a scorer, whatever it was given
            self._failed(problem)
            probability, direction, reason = math.nan, FLAT, _ERROR
        if reason == _NON_FINITE and _all_nan(features):
            reason = _WARM_UP
        return Score(
            DIRECTIONS[direction],
            max(probability, 1.0 - probability),
            probability,
            self.version,
            REASONS[reason],
        )

    def score_codes(self, features: np.ndarray, symbol: str) -> tuple[float, int, int]:
        """The same as probability, direction and reason code, for an engine that looks for halts itself.

        Parameters
        ----------
        features
            float64 (k,), contiguous.
        """
        rows = self._rows
        if rows is None:
            return math.nan, FLAT, REASON_CODES[self.refusal]
        try:
            if self.symbols is not None and symbol not in self.symbols:
                return math.nan, FLAT, _OUT_OF_SCOPE
            if self._is_stale():
                return math.nan, FLAT, _STALE
            return rows.score(features)
        except Exception as problem:  # noqa: BLE001 - nothing leaves a scorer
            self._failed(problem)
            return math.nan, FLAT, _ERROR

    def refresh(self) -> bool:
        """Look at the slot again, between two bars: whether another model, or none, is served now.

        A promoted model that may not be served leaves the old one; what a rollback put there never does.
        An engine does this by itself, beside its ticks.
        """
        self._halts.read_log()
        self._halts.look()
        found = self._admit()
        same = found.model is not None and found.model.digest == self.digest
        if (
            same
            and found.refusal == self.admission.refusal
            and found.release_name == self.admission.release_name
        ):
            return False
        if self.ready and found.refusal and not found.ends_service:
            return False
        self._take(found)
        return True

    def days_left(self) -> int | None:
        """Calendar days until the model is too old, negative when it is; None without a model."""
        return None if self._made_day is None else self._max_age_days - self._age_days(self._now_ns())

    def _age_days(self, now_ns: int) -> int:
        """Days from the date in the version to the date of an instant, both in UTC; 0 where it lies ahead."""
        assert self._made_day is not None
        return max(0, now_ns // _DAY_NS - self._made_day)

    def _take(self, admission: Admission) -> None:
        model = admission.model
        self.admission = admission
        self.refusal, self.note = admission.refusal, admission.note
        self.symbols = admission.symbols
        self.version: str = model.version if model else ""
        self.digest: str = model.digest if model else ""
        self.short_digest = self.digest[:12]
        self.feature_set = model.feature_set if model else None
        self._places = {name: i for i, name in enumerate(model.feature_set.columns)} if model else {}
        self._vector = np.full(len(self._places), np.nan)
        self._age_known_until_ns, self._stale = 0, False
        self._made_day = version_ns(self.version) // _DAY_NS if is_version(self.version) else None
        if model is not None and self._made_day is None and not self.refusal:
            self.refusal, self.note = (
                "error",
                f"version {self.version}: no date and time, so its age is not known",
            )
        self._rows = model.row_scorer(self._threshold) if model is not None and not self.refusal else None
        self.ready = self._rows is not None

    def _failed(self, problem: Exception) -> None:
        """Count a failure of prediction; each cause is logged once."""
        self.failures += 1
        said = " ".join(str(problem).split()) or type(problem).__name__
        if said not in self._said and len(self._said) < _MOST_CAUSES:
            self._said.add(said)
            logger.warning("Student prediction failed: %s", said, extra=COMPONENT)

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
            self._stale = self._age_days(now) > self._max_age_days
            self._age_known_until_ns = (now // _DAY_NS + 1) * _DAY_NS
        return self._stale


def slot_log(settings: Settings, strategy: str, root: Path) -> AuditLog:
    """The audit log as whoever serves a strategy's slot reads it."""
    beside = root / settings.production_path(strategy).with_name(RELEASE_FILE)
    return AuditLog(models_folder(settings, root), (beside,))


def _all_nan(features: object) -> bool:
    try:
        values = features.values() if isinstance(features, Mapping) else features
        return bool(np.isnan(np.array(list(values), dtype=np.float64)).all())  # type: ignore[call-overload]
    except (TypeError, ValueError):
        return False
