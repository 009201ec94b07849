"""The checks of a verification that ask others: the page, the audit log, the trial ledger, the report.

A folder that was rewritten consistently contradicts only these. Each check works as those of
`sqkit.research.verification_checks`.
"""

from __future__ import annotations

import re
from itertools import zip_longest
from pathlib import Path
from typing import Final

from sqkit.artifacts import APPROVALS_FILE, CHECKLIST_FILE, CHECKLIST_PAGE
from sqkit.audit_log import POLICY
from sqkit.checklist import Policy, render_markdown
from sqkit.files import read_json
from sqkit.policy_in_force import looser
from sqkit.report_manifest import MANIFEST, RUN_FOLDER, verify_manifest
from sqkit.research.ledger_check import ledger_above, ledger_contradictions
from sqkit.research.promotion_state import audit_above
from sqkit.research.stored_values import Difference, value_differences
from sqkit.research.trials import TrialLedger
from sqkit.research.verification_checks import Notes, Stored

_NUMBERED: Final = re.compile(r"^v([1-9]\d*)$")
_SIGNED_SECTIONS: Final = ("## Pre-Deployment Checklist", "## Approval Sign-offs")
"""Parts of the checklist's page that approvals and ticked boxes draw again."""


def check_page(stored: Stored, notes: Notes) -> list[Difference]:
    """``promotion_checklist.md`` is the checklist, line for line.

    Beside approvals the sections that they draw again are left out; their headings are not.
    """
    page = stored.folder / CHECKLIST_PAGE
    if not stored.checklist or not page.is_file():
        return []
    signed = (stored.folder / APPROVALS_FILE).is_file()
    said = _held_lines(page.read_bytes().decode("utf-8"), signed)
    computed = _held_lines(render_markdown(stored.checklist), signed)
    found: list[Difference] = [
        {"what": f"{CHECKLIST_PAGE}: line {ours[0] or theirs[0]}", "stored": ours[1], "computed": theirs[1]}
        for ours, theirs in zip_longest(said, computed, fillvalue=(0, None))
        if ours[1] != theirs[1]
    ]
    return found[:1] if len(said) != len(computed) else found


def _held_lines(page: str, signed: bool) -> list[tuple[int, str]]:
    """Numbered lines of a page; of a signed one without what stands in `_SIGNED_SECTIONS`."""
    held, within = [], False
    for number, line in enumerate(page.split("\n"), start=1):
        if line.startswith(("# ", "## ")):
            within = signed and line in _SIGNED_SECTIONS
        if not within or line in _SIGNED_SECTIONS:
            held.append((number, line))
    return held


def check_policy(stored: Stored, notes: Notes) -> list[Difference]:
    """The policy in force that the checklist names was accepted, and loosened only where it says so."""
    if not stored.checklist:
        return []
    in_force, place = stored.in_force, f"{CHECKLIST_FILE}: evidence: policy_in_force"
    if in_force is None:
        notes.checked("policy")
        return []
    entries = audit_above(stored.folder)
    if entries is None:
        notes.lines.append("no audit log lies above this folder; the policy in force could not be asked for")
        return []
    notes.checked("policy")
    known = [
        entry["policy"]
        for entry in entries
        if entry["kind"] == POLICY and entry["policy_digest"] == in_force["digest"]
    ]
    if not known:
        return [{"what": f"{place}: the audit log knows no accepted policy {in_force['digest']}"}]
    asked = looser(Policy.from_dict(stored.checklist["policy"]), Policy.from_dict(known[-1]))
    return value_differences(in_force["looser"], asked, f"{place}: looser")


def check_ledger(stored: Stored, notes: Notes) -> list[Difference]:
    """The trial ledger beside the models has seen these predictions, returns and this number of trials."""
    path = ledger_above(stored.folder)
    if path is None:
        notes.lines.append("no trial ledger lies above this folder; nothing there could be asked")
        return []
    notes.checked("ledger")
    return [{"what": line} for line in ledger_contradictions(TrialLedger(path), stored.results)]


def check_report(stored: Stored, notes: Notes) -> list[Difference]:
    """The newest report that names this folder: its pages and these artifacts by digest."""
    run = _report_of(stored)
    if run is None:
        notes.lines.append(
            f"no report in {stored.reports_dir.as_posix()} names these artifacts; no manifest was verified"
        )
        return []
    notes.checked("report")
    return [{"what": line} for line in verify_manifest(run, stored.root)]


def _report_of(stored: Stored) -> Path | None:
    """The run whose manifest names the student's folder: the newest, or for ``validations/v<n>`` the nth."""
    earlier = _NUMBERED.match(stored.folder.name) if stored.student != stored.folder else None
    if stored.student != stored.folder and earlier is None:
        return None
    version = stored.results.get("model_version")
    runs = [
        (int(match["number"]), path)
        for path in (stored.reports_dir.iterdir() if stored.reports_dir.is_dir() else ())
        if (match := RUN_FOLDER.match(path.name))
        and version in (None, match["version"])
        and (path / MANIFEST).is_file()
    ]
    for number, path in sorted(runs, reverse=True):
        if earlier and number != int(earlier[1]):
            continue
        named = stored.root / read_json(path / MANIFEST)["artifacts"]["folder"]
        if named.resolve() == stored.student.resolve():
            return path
    return None
