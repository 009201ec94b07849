"""What a promotion or a rollback did or would do, and what monitoring may say about a live model."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqkit.chain import Entry
from sqkit.production.promotion_checks import PromotionValidationResult
from sqkit.production.rollback import Target


@dataclass(frozen=True)
class Promoted:
    """What a promotion did, or would do.

    Attributes
    ----------
    result
        The checks.
    entry
        The audit line; None for a dry run, or where the candidate was refused.
    steps
        What was or would be done, in order.
    environment
        Lines that the engine's environment needs.
    """

    result: PromotionValidationResult
    entry: Entry | None
    steps: tuple[str, ...]
    environment: tuple[str, ...]


@dataclass(frozen=True)
class RolledBack:
    """What a rollback did, or would do.

    Attributes
    ----------
    target
        Where production is now, and whether it was there already.
    entry
        The audit line; None where nothing was to be done.
    """

    slot: str
    target: Target
    entry: Entry | None
    steps: tuple[str, ...]
    environment: tuple[str, ...]


@dataclass(frozen=True)
class DegradationAlert:
    """What monitoring says of the live model.

    Attributes
    ----------
    model
        SHA-256 of the model it is about.
    raised_at
        UTC.
    confirmed
        Whether outcomes after the alert confirmed it.
    restores
        First digits of the digest that did better on the same bars: a rollback goes there or nowhere. Empty
        where none was compared.
    """

    slot: str
    model: str
    raised_at: dt.datetime
    confirmed: bool
    reason: str
    evidence: Mapping[str, Any]
    restores: str = ""


@dataclass(frozen=True)
class RollbackAdvice:
    """Whether to roll back, and why or why not."""

    should: bool
    reason: str
    alert: DegradationAlert | None = None
