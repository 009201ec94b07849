"""Boxes and signatures on a checklist's page: what was ticked and who signed, as plain lines.

The promoter's side knows who approved (`sqkit.production.approval_view`); the page only shows it.
In: a few plain values. Out: Markdown lines, each harmless on its one line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sqkit.checklist_tables import inline

ALL_SYMBOLS: Final = "stability.symbols"
"""The evidence record behind the first box."""

CRITERIA_MET: Final = "criteria-met"
PERIOD_REPRESENTATIVE: Final = "period-representative"
METADATA_VERIFIED: Final = "metadata-verified"
BASELINE_ARCHIVED: Final = "baseline-archived"
CONFIG_UPDATED: Final = "config-updated"
ALERTS_CONFIGURED: Final = "alerts-configured"
ROLLBACK_TESTED: Final = "rollback-tested"

BOX_TITLES: Final[Mapping[str, str]] = {
    CRITERIA_MET: "Validation criteria met for all symbols",
    PERIOD_REPRESENTATIVE: "Out-of-sample period representative (recent 3 months)",
    METADATA_VERIFIED: "Model metadata verified (teacher hash, training window)",
    BASELINE_ARCHIVED: "Baseline model archived with timestamp",
    CONFIG_UPDATED: "Config updated with new model path/version",
    ALERTS_CONFIGURED: "Telemetry monitoring alerts configured",
    ROLLBACK_TESTED: "Rollback procedure documented and tested",
}
"""The pre-deployment boxes by id, as the user worded them."""

_ROLE_TITLES: Final = {"ml_lead": "ML Lead", "quant_lead": "Quant Team Lead", "risk_manager": "Risk Manager"}
_OPEN: Final = "_______________ Date: ___________"


@dataclass(frozen=True)
class Signature:
    """What one role said.

    Attributes
    ----------
    role
        Of the policy, or whatever a rejection came as.
    name
        Who; empty where nobody said anything.
    principal
        Who signed; None for a typed name.
    date
        Calendar date in the market's zone.
    approved, rejected
        At most one of them; neither: it does not count, and `note` says why.
    note
        The comment of a rejection, or why the role is open.
    """

    role: str
    name: str = ""
    principal: str | None = None
    date: str = ""
    approved: bool = False
    rejected: bool = False
    note: str = ""


@dataclass(frozen=True)
class SignOffs:
    """What a page shows of boxes and signatures.

    Attributes
    ----------
    ticked
        Id of a box to what or who ticked it.
    signatures
        One for each role that the policy asks for, then rejections of others.
    remarks
        Lines below the signatures.
    """

    ticked: Mapping[str, str] = field(default_factory=dict)
    signatures: tuple[Signature, ...] = ()
    remarks: tuple[str, ...] = ()


def boxes_section(evidence: Mapping[str, Any], signoffs: SignOffs | None) -> list[str]:
    """The user's boxes; the first is ticked by the evidence, which names the weak symbols beside it.

    Without sign-offs no other box is ticked: a fresh decision knows of nothing that was done since.
    """
    record = all_symbols(evidence)
    passed = record is not None and record.get("status") == "pass"
    lines = []
    for box, title in BOX_TITLES.items():
        by = signoffs.ticked.get(box, "") if signoffs else ""
        ticked = bool(by) or (signoffs is None and box == CRITERIA_MET and passed)
        weak = _weak_symbols(record) if box == CRITERIA_MET else ""
        lines.append(f"- [{'x' if ticked else ' '}] {title}{weak}" + (f" — {inline(by)}" if by else ""))
    return ["## Pre-Deployment Checklist", "", *lines]


def all_symbols(evidence: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The record that says whether the criteria hold for all symbols; None without one."""
    return next((record for record in evidence["records"] if record["name"] == ALL_SYMBOLS), None)


def _weak_symbols(record: Mapping[str, Any] | None) -> str:
    params = record.get("params", {}) if record else {}
    kinds = [words for words in ("significantly_worse", "weak", "undefined") if params.get(words)]
    return "".join(f"; {words.replace('_', ' ')}: {inline(', '.join(params[words]))}" for words in kinds)


def signatures_section(roles: Iterable[str], signoffs: SignOffs | None) -> list[str]:
    """One line a role: signed, rejected or open; without sign-offs the lines of the template."""
    if signoffs is None:
        lines, remarks = [_open_line(role) for role in roles], []
    else:
        lines, remarks = [_signature_line(one) for one in signoffs.signatures], list(signoffs.remarks)
    lines = lines or ["No approval is required by the policy."]
    return ["## Approval Sign-offs", "", *lines, *([""] if remarks else []), *map(inline, remarks)]


def _open_line(role: str) -> str:
    return f"- [ ] **{_title(role)}**: {_OPEN}"


def _signature_line(one: Signature) -> str:
    note = inline(one.note)
    if not (one.approved or one.rejected):
        return _open_line(one.role) + (f" ({note})" if note else "")
    proof = f"signed, {inline(one.principal)}" if one.principal else "typed name, not authenticated"
    said = f"{inline(one.name)} ({proof}) Date: {one.date}" + (f": {note}" if note else "")
    if one.rejected:
        return f"- [ ] **{_title(one.role)}**: ❌ rejected by {said}"
    return f"- [x] **{_title(one.role)}**: {said}"


def _title(role: str) -> str:
    return inline(_ROLE_TITLES.get(role, role.replace("_", " ").title()))
