"""The production room: promotion, live scoring, monitoring. No pandas, scikit-learn or Jupyter.

What an engine or a script needs is imported from here; each name brings in its module when it is first
asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqkit.production.promoter import (
        DegradationAlert,
        Promoted,
        PromotionValidationResult,
        RollbackAdvice,
        RolledBack,
        StudentModelPromoter,
    )
    from sqkit.production.release import ServedRelease, served_release

__all__ = [
    "DegradationAlert",
    "Promoted",
    "PromotionValidationResult",
    "RollbackAdvice",
    "RolledBack",
    "ServedRelease",
    "StudentModelPromoter",
    "served_release",
]

_RELEASE = ("ServedRelease", "served_release")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{'release' if name in _RELEASE else 'promoter'}"), name)
