"""May this candidate go into production? Every check in order, each with its outcome.

`examine` is what the promoter asks, twice: before, for a person to read, and again under the lock. The
first check that fails decides which refusal is raised, so what was damaged comes before what is merely
not allowed. A check whose input is broken fails; those that need its input are then not checked.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from sqkit.chain import Entry
from sqkit.errors import ArtifactChanged, SqkitError
from sqkit.production.artifact_checks import (
    check_artifacts,
    check_checklist,
    check_parity,
    check_recommendation,
    check_report,
    check_verification,
)
from sqkit.production.candidate import Candidate
from sqkit.production.decision_checks import (
    check_age,
    check_already_live,
    check_approvals,
    check_boxes,
    check_clock,
    check_incumbent,
    check_pin,
    check_policy,
    check_quarantine,
    check_runtime,
    check_slot,
)
from sqkit.production.model_checks import check_metadata, check_model, check_path
from sqkit.production.promotion_case import Advisory, Case, Unread
from sqkit.production.slot_state import SlotState
from sqkit.production.slots import Slot
from sqkit.settings import Settings

Status = Literal["pass", "fail", "advisory", "not_checked"]

_MARKS: Final[Mapping[Status, str]] = {"pass": "✓", "fail": "✗", "advisory": "·", "not_checked": "–"}
_LONGEST_LINE: Final = 1000


@dataclass(frozen=True)
class PromotionCheck:
    """One check and its outcome.

    Attributes
    ----------
    status
        ``advisory``: nothing refuses, but a person should read it; ``not_checked``: what it needs is
        missing or broken, and another check says so.
    detail
        One line.
    error
        What a promotion raises for it; None unless it failed.
    """

    name: str
    status: Status
    detail: str
    error: SqkitError | None = None

    def line(self) -> str:
        """For a person."""
        return f"{_MARKS[self.status]} {self.name}: {self.detail}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "name": self.name,
            "status": self.status,
            "detail": self.detail,
            "error": type(self.error).__name__ if self.error else None,
            "exit_code": self.error.exit_code if self.error else None,
        }


@dataclass(frozen=True)
class PromotionValidationResult:
    """Whether a candidate may be promoted.

    Attributes
    ----------
    reasons
        Why not: the line of each check that failed. Empty when it may.
    """

    can_promote: bool
    reasons: tuple[str, ...]
    checks: tuple[PromotionCheck, ...]

    @classmethod
    def of(cls, checks: Sequence[PromotionCheck]) -> PromotionValidationResult:
        """From the checks that were made."""
        return cls(
            all(check.status in ("pass", "advisory") for check in checks),
            tuple(f"{check.name}: {check.detail}" for check in checks if check.status == "fail"),
            tuple(checks),
        )

    def raise_refusal(self) -> None:
        """Raise what the first failed check refuses with; nothing when the candidate may be promoted."""
        for check in self.checks:
            if check.error is not None:
                raise check.error

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "can_promote": self.can_promote,
            "reasons": list(self.reasons),
            "checks": [check.to_dict() for check in self.checks],
        }

    def lines(self) -> list[str]:
        """For a person: one line a check."""
        return [check.line() for check in self.checks]


@dataclass(frozen=True)
class _Check:
    name: str
    run: Callable[[Case], str]
    needs: tuple[str, ...] = ()


_LOADED: Final = ("model_path", "model_loads", "metadata_complete")
_DECIDED: Final = (*_LOADED, "artifacts", "checklist")

CHECKS: Final = (
    _Check("model_path", check_path),
    _Check("model_loads", check_model, ("model_path",)),
    _Check("metadata_complete", check_metadata, ("model_loads",)),
    _Check("artifacts", check_artifacts, ("model_path",)),
    _Check("checklist", check_checklist, (*_LOADED, "artifacts")),
    _Check("recommendation", check_recommendation, _DECIDED),
    _Check("already_live", check_already_live, ("model_loads",)),
    _Check("incumbent", check_incumbent, _DECIDED),
    _Check("verification", check_verification, _DECIDED),
    _Check("report", check_report, _DECIDED),
    _Check("parity", check_parity, ("artifacts",)),
    _Check("approvals", check_approvals, _DECIDED),
    _Check("boxes", check_boxes, _DECIDED),
    _Check("policy", check_policy, _DECIDED),
    _Check("runtime", check_runtime, _DECIDED),
    _Check("age", check_age, _DECIDED),
    _Check("slot", check_slot, _LOADED),
    _Check("quarantine", check_quarantine, ("model_loads",)),
    _Check("pin", check_pin, ("model_loads",)),
    _Check("clock", check_clock),
)
"""In this order: the first that fails is the refusal of a promotion."""


def examine(
    model_path: str | Path,
    *,
    settings: Settings,
    root: Path,
    now: dt.datetime,
    entries: Sequence[Entry],
    state: SlotState,
    slot: Slot,
    env_file: str | Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> tuple[PromotionValidationResult, Candidate | None]:
    """Make every check; nothing is written, and whatever the files hold nothing is raised.

    Parameters
    ----------
    model_path
        The candidate's ONNX file, relative to `root`.
    now
        The present, with its zone.
    entries, state
        The verified audit log, and what it says of the slot.
    env_file
        The env file that the promotion is going to rewrite.
    environ
        In which a version pin may stand; by default the process's own.

    Returns
    -------
    result, candidate
        The outcome, and the very bytes that were examined; None where they could not be read.
    """
    case = Case(
        str(model_path),
        settings,
        root,
        now.astimezone(dt.UTC),
        entries,
        state,
        slot,
        env_file,
        os.environ if environ is None else environ,
    )
    return check_case(case), case.candidate


def check_case(case: Case) -> PromotionValidationResult:
    """Make every check of a case; whatever its files hold, nothing is raised."""
    made: dict[str, PromotionCheck] = {}
    for check in CHECKS:
        broken = [name for name in check.needs if made[name].status not in ("pass", "advisory")]
        made[check.name] = _not_checked(check, broken[0]) if broken else _outcome(check, case)
    return PromotionValidationResult.of(list(made.values()))


_BROKEN: Final = (
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What a damaged file can end a check in; it is a refusal, never a traceback."""


def _outcome(check: _Check, case: Case) -> PromotionCheck:
    try:
        detail = check.run(case)
    except Unread as missing:
        return _not_checked(check, str(missing))
    except SqkitError as refusal:
        return _failed(check, refusal)
    except _BROKEN as problem:
        return _failed(
            check,
            ArtifactChanged(
                f"{case.folder_name('')}: what the check {check.name} reads has another form than sqkit writes "
                f"({type(problem).__name__}: {problem}); validate the model again with sqkit validate"
            ),
        )
    status: Status = "advisory" if isinstance(detail, Advisory) else "pass"
    return PromotionCheck(check.name, status, _one_line(detail))


def _failed(check: _Check, refusal: SqkitError) -> PromotionCheck:
    """The refusal, brought to one line: what a file holds may stand in it."""
    refusal.message = _one_line(refusal.message)
    refusal.args = (refusal.message,)
    return PromotionCheck(check.name, "fail", refusal.message, refusal)


def _not_checked(check: _Check, needed: str) -> PromotionCheck:
    return PromotionCheck(check.name, "not_checked", f"needs {needed}")


def _one_line(text: str) -> str:
    plain = "".join(sign if sign.isprintable() else " " for sign in text)
    words = " ".join(plain.split())
    return words if len(words) <= _LONGEST_LINE else f"{words[: _LONGEST_LINE - 1]}…"
