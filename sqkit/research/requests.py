"""What a person asks of a job, and what a job answers; plain values between commands and jobs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqkit.checklist import Policy
from sqkit.research.run_policy import JudgedBy, judged_by


@dataclass(frozen=True)
class Thresholds:
    """Promotion thresholds given as flags; None leaves the settings' value."""

    precision_uplift: float | None = None
    hit_ratio_uplift: float | None = None
    sharpe_uplift: float | None = None

    def judged_by(self, strategy: str | None = None) -> JudgedBy:
        """The policy of a strategy's slot with these thresholds in place."""
        return judged_by(
            strategy,
            precision_uplift=self.precision_uplift,
            hit_ratio_uplift=self.hit_ratio_uplift,
            sharpe_uplift=self.sharpe_uplift,
        )

    def policy(self, strategy: str | None = None) -> Policy:
        """That policy alone."""
        return self.judged_by(strategy).policy

    def parameters(self) -> dict[str, float]:
        """As parameters of the checklist notebook."""
        given = {
            "precision_uplift_threshold": self.precision_uplift,
            "hit_ratio_uplift_threshold": self.hit_ratio_uplift,
            "sharpe_uplift_threshold": self.sharpe_uplift,
        }
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class ValidationRequest:
    """What a person asked to validate; empty means the default.

    Attributes
    ----------
    full
        Replay every bar through the live engine, instead of a share chosen by seed.
    """

    model: str
    bars: str = ""
    symbols: list[str] | None = None
    start: str = ""
    end: str = ""
    baseline_model: str = ""
    thresholds: Thresholds = field(default_factory=Thresholds)
    full: bool = False

    def parameters(self) -> dict[str, Any]:
        """As parameters of the validation notebook."""
        return {
            "model": self.model,
            "symbols": self.symbols or [],
            "start": self.start,
            "end": self.end,
            "baseline_model": self.baseline_model,
            "full": self.full,
        }


@dataclass(frozen=True)
class Decision:
    """How a validation ended and where its papers lie."""

    recommendation: str
    reason: str
    exit_code: int
    checklist: str
    report: str | None

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "checklist": self.checklist,
            "exit_code": self.exit_code,
            "reason": self.reason,
            "recommendation": self.recommendation,
            "report": self.report,
        }

    def lines(self) -> list[str]:
        """Verdict, reason and report path, the path last."""
        return [self.recommendation, self.reason, self.report or self.checklist]


@dataclass(frozen=True)
class Trained:
    """A trained student and, where it was asked for, its validation."""

    version: str
    model: str
    report: str
    verdict: Decision | None = None

    def summary(self) -> dict[str, Any]:
        """For ``--json``."""
        return {"model": self.model, "report": self.report, "version": self.version}
