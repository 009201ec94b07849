"""The figures of one monitoring rule, and the size of the simulations behind them."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

QUARTER_DAYS: Final = 63
YEAR_DAYS: Final = 252
LOSSES: Final = {"5_points": 0.05, "10_points": 0.10}

PATHS: Final = 200
SEED: Final = 20_260_731


def cannot_fire(reason: str) -> dict[str, Any]:
    """Of a rule that says nothing of this model; the reason follows the rule's name in a sentence."""
    return {
        "can_fire": False,
        "delay_days": dict.fromkeys(LOSSES),
        "false_alerts_per_quarter": None,
        "reason": reason,
    }


def rule_figures(alerts: float, delays: dict[str, float | None]) -> dict[str, Any]:
    """Of a rule that can fire.

    Parameters
    ----------
    alerts
        False ones on all paths of a year.
    delays
        Loss to session days, see `median_delay`.
    """
    return {
        "can_fire": True,
        "delay_days": {
            name: None if days is None else round(days, 1 if days < 10.0 else 0)
            for name, days in delays.items()
        },
        "false_alerts_per_quarter": round(alerts / PATHS * QUARTER_DAYS / YEAR_DAYS, 2),
        "reason": None,
    }


def median_delay(delays: np.ndarray) -> float | None:
    """Median in days; None where half of the paths never alert."""
    middle = float(np.quantile(delays, 0.5, method="higher"))
    return middle if math.isfinite(middle) else None
