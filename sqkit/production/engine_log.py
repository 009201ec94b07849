"""What an engine says: log lines through stdlib logging, each cause once, and the events of its own file.

Messages, levels and ``extra`` fields of loading and predicting are the user's (`docs/us-021.md`, FR-4). An
event says what happened to the engine as a whole: started, served, reloaded, halted, stopped; trades and
decisions on bars are telemetry records.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from typing import Any, Final

import sqkit
from sqkit.files import sha256_json
from sqkit.production.admission import Admission
from sqkit.production.engine_config import Sink
from sqkit.production.positions import Mismatch
from sqkit.production.scorer import StudentScorer
from sqkit.production.telemetry import COMPONENT, InstantText, host_name, logger
from sqkit.settings import Settings

_MOST_CAUSES: Final = 5_000


def settings_digest(settings: Settings) -> str:
    """SHA-256 over every setting but secrets."""
    return sha256_json(settings.model_dump(mode="json", exclude={"webhook_secret"}))


class EngineLog:
    """Log lines and events of one engine.

    Parameters
    ----------
    about
        What every event says of the engine: name, strategy, slot.
    sink
        Where events go.

    Attributes
    ----------
    counts
        How often each thing happened that is logged once.
    """

    def __init__(self, about: dict[str, Any], sink: Sink) -> None:
        self.about = {**about, "host": host_name(), "pid": os.getpid(), "sqkit_version": sqkit.__version__}
        self._sink = sink
        self.counts: Counter[str] = Counter()
        self.instants = InstantText()

    def event(self, what: str, now_ns: int, **more: Any) -> None:
        """Record that something happened to the engine."""
        self._sink.event({"event": what, "at": self.instants.of(now_ns), **self.about, **more})

    def once(self, cause: str, message: str, *values: Any, level: int = logging.WARNING) -> bool:
        """Log a cause the first time and count it every time; whether it was the first."""
        if len(self.counts) >= _MOST_CAUSES and cause not in self.counts:
            cause = "others"
        self.counts[cause] += 1
        if self.counts[cause] > 1:
            return False
        logger.log(level, message, *values, extra=COMPONENT)
        return True

    def loading(self, admission: Admission, version: str) -> None:
        """What came of loading the student."""
        if admission.refusal == "disabled":
            return
        if admission.refusal == "no_student":
            logger.warning(
                "Student model not found: %s, falling back to baseline", admission.path, extra=COMPONENT
            )
        elif admission.refusal:
            problem = admission.problem
            logger.error(
                "Failed to load student model: %s, falling back to baseline",
                admission.note or admission.refusal,
                extra=COMPONENT,
                exc_info=problem or ValueError(admission.refusal),
            )
        else:
            logger.info(
                "Student model loaded: version=%s", version, extra={**COMPONENT, "model_version": version}
            )
            if admission.note:
                self.once(f"note {admission.note}", "%s", admission.note)

    def mismatch(self, found: Mismatch) -> None:
        """A position that is not what it should be."""
        self.once(
            f"mismatch {found.symbol} {found.expected} {found.real}",
            "%s: %d shares are held where the engine has %d; its entries are locked, its exits work on %d",
            found.symbol,
            found.real,
            found.expected,
            found.real,
        )

    def silence(self, symbol: str, now_ns: int, seconds: float) -> None:
        """A symbol without a bar for too long."""
        self.counts["feed_stale"] += 1
        self.event("feed_stale", now_ns, symbol=symbol, silent_seconds=seconds)
        self.once(f"stale {symbol}", "%s: no bar for %.0f seconds", symbol, seconds)

    def halt(self, level: str | None, now_ns: int) -> None:
        """A person has stopped the slot, or ended that."""
        self.event("halt" if level else "resume", now_ns, level=level)
        state = f"halted ({level})" if level else "not halted any more"
        logger.warning("slot %s is %s", self.about["slot"], state, extra=COMPONENT)

    def prediction(self, direction: str, confidence: float, version: str) -> None:
        """What the student said of a bar; only where somebody listens."""
        logger.debug(
            "Student prediction: %s (confidence=%.3f)",
            direction,
            confidence,
            extra={
                **COMPONENT,
                "model_version": version,
                "student_direction": direction,
                "student_confidence": confidence,
            },
        )


def served(scorer: StudentScorer) -> dict[str, Any]:
    """What an engine serves, for its events: the digest that scores, whatever lies on the disk."""
    ready = scorer.ready
    return {
        "feature_set": scorer.feature_set.name if ready and scorer.feature_set else None,
        "model_digest": scorer.digest if ready else None,
        "model_version": scorer.version if ready else None,
        "note": scorer.note,
        "refusal": scorer.refusal or None,
        "release": scorer.admission.release_name or None,
        "symbols_allowed": sorted(scorer.symbols) if scorer.symbols is not None else None,
    }
