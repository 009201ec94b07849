"""The production room: promotion, live scoring, monitoring. No pandas, scikit-learn or Jupyter.

What an engine or a script needs is imported from here; each name brings in its module when it is first
asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqkit.production.engine import Engine
    from sqkit.production.engine_config import Config
    from sqkit.production.promoter import (
        DegradationAlert,
        Promoted,
        PromotionValidationResult,
        RollbackAdvice,
        RolledBack,
        StudentModelPromoter,
    )
    from sqkit.production.release import ServedRelease, served_release
    from sqkit.production.scorer import Score, StudentScorer
    from sqkit.production.signals import Order, Signal

__all__ = [
    "Config",
    "DegradationAlert",
    "Engine",
    "Order",
    "Promoted",
    "PromotionValidationResult",
    "RollbackAdvice",
    "RolledBack",
    "Score",
    "ServedRelease",
    "Signal",
    "StudentModelPromoter",
    "StudentScorer",
    "served_release",
]

_ELSEWHERE = {
    "Config": "engine_config",
    "Engine": "engine",
    "Order": "signals",
    "Score": "scorer",
    "ServedRelease": "release",
    "Signal": "signals",
    "StudentScorer": "scorer",
    "served_release": "release",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ELSEWHERE.get(name, 'promoter')}"), name)
