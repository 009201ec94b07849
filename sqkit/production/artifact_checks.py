"""Checks of what lies there: is every file of the candidate present, whole and of one decision?

Each function looks at a `Case`, returns one line for a person, or raises. Called by
`sqkit.production.promotion_checks`, which says in which order and what needs what.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath
from typing import Any, Final

from sqkit.artifacts import (
    ACCURACY_FILE,
    CHECKLIST_FILE,
    CHECKLIST_PAGE,
    COMPARISON_FILE,
    EVIDENCE_FILE,
    PARITY_FILE,
    RESULTS_FILE,
    STUDENT_FILE,
    TELEMETRY_FOLDER,
    VERIFICATION_FILE,
)
from sqkit.checklist import PROMOTE, differences, rederive
from sqkit.errors import (
    ArtifactChanged,
    ChecklistEdited,
    ChecklistOfAnother,
    IntegrityError,
    NotRecommended,
)
from sqkit.files import sha256_bytes, sha256_file, sha256_json
from sqkit.production.promotion_case import Case
from sqkit.report_manifest import MANIFEST, verify_manifest

DECIDED_FILES: Final = (
    STUDENT_FILE,
    CHECKLIST_FILE,
    EVIDENCE_FILE,
    RESULTS_FILE,
    ACCURACY_FILE,
    COMPARISON_FILE,
    PARITY_FILE,
)
"""What a verification must have read, and but for the model what a report's manifest must name."""

REPORT_PAGES: Final = ("validate", "checklist")

_AGAIN: Final = "validate the model again with sqkit validate"
_VERIFY: Final = "run sqkit verify on the student's folder"
_SHOWN: Final = 12


def check_artifacts(case: Case) -> str:
    """Every file of the decision lies beside the model, and each is strict JSON."""
    if case.refusal_of_artifacts is not None:
        raise case.refusal_of_artifacts
    names = [*DECIDED_FILES[1:], VERIFICATION_FILE]
    for name in names:
        case.read.json(name)
    return ", ".join(names)


def check_checklist(case: Case) -> str:
    """Checklist, results and model speak of each other."""
    checklist, results, about = case.checklist, case.results, case.model.metadata
    digests, runtime = checklist["digests"], checklist["runtime"]
    if digests.get("model") != case.model_digest:
        raise ChecklistOfAnother(
            f"{case.folder_name(CHECKLIST_FILE)}: judges another model ({_shown(digests.get('model'))}) than the one "
            f"that lies there ({case.model_digest[:_SHOWN]}); {_AGAIN}",
            stored=digests.get("model"),
            found=case.model_digest,
        )
    ran = {**runtime, "interval": results["interval"]}
    for name in ("strategy", "market", "interval", "horizon_bars", "dead_zone"):
        if ran.get(name) != about[name]:
            raise ArtifactChanged(
                f"{case.folder_name(CHECKLIST_FILE)}: ran with {name} {ran.get(name)!r}, the model is made for "
                f"{about[name]!r}; {_AGAIN}",
                key=name,
            )
    shared = {name: value for name, value in digests.items() if name in results["digests"]}
    said = {**checklist, "digests": shared, "model_version": about["model_version"]}
    for name in ("digests", "runtime", "validation_period", "model_version"):
        if results[name] != said[name]:
            raise ArtifactChanged(
                f"{case.folder_name(RESULTS_FILE)}: its {name} is not the {'model' if name == 'model_version' else 'checklist'}'s; "
                f"{_AGAIN}",
                key=name,
            )
    if digests.get("runtime") != sha256_json(runtime):
        raise ArtifactChanged(
            f"{case.folder_name(CHECKLIST_FILE)}: its runtime differs from its digest; {_AGAIN}",
            key="runtime",
        )
    period = checklist["validation_period"]
    return f"decided {checklist['timestamp']} over {period['start']} to {period['end']}"


def check_recommendation(case: Case) -> str:
    """What the checklist says follows from its inputs, and the decision derived again is PROMOTE."""
    checklist, place = case.checklist, case.folder_name(CHECKLIST_FILE)
    if not checklist["integrity"] or not checklist["digests"].get("predictions"):
        raise NotRecommended(
            f"{place}: rests on metrics from elsewhere, which nobody can compute again; {_AGAIN}",
            decision_exit_code=IntegrityError.exit_code,
        )
    different = differences(checklist)
    if different:
        raise ChecklistEdited(f"{place}: {different[0]}; {_AGAIN}", differences=different)
    recommendation, code, reasons = rederive(checklist)
    if recommendation != PROMOTE:
        raise NotRecommended(
            f"{place}: the decision is {recommendation} ({reasons[0]}); train a better student, or validate it over "
            "more sessions",
            decision_exit_code=code,
            recommendation=recommendation,
        )
    return f"{recommendation}, derived again from the recorded metrics and evidence under the recorded policy"


def check_verification(case: Case) -> str:
    """``sqkit verify`` computed the decision again from these very files and found no difference."""
    outcome, place = case.verification, case.folder_name(VERIFICATION_FILE)
    if outcome["status"] != "verified" or outcome["differences"]:
        count = len(outcome["differences"])
        raise ArtifactChanged(
            f"{place}: status {outcome['status']}, {count} difference{'' if count == 1 else 's'}; see them with "
            "sqkit verify, then " + _AGAIN,
            status=outcome["status"],
        )
    read: dict[str, Any] = outcome["read"]
    listed = [f"{TELEMETRY_FOLDER}/{entry['file']}" for entry in case.results["files"]]
    unread = [name for name in (*DECIDED_FILES, *listed) if name not in read]
    if unread:
        raise ArtifactChanged(f"{place}: did not read {', '.join(unread[:3])}; {_VERIFY}", unread=unread)
    for name, digest in sorted(read.items()):
        if name != CHECKLIST_PAGE and _digest_now(case, name) != digest:
            changed = ChecklistEdited if name == CHECKLIST_FILE else ArtifactChanged
            raise changed(
                f"{case.folder_name(name)}: is not the file that was verified; {_VERIFY}", artifact=name
            )
    if "unchecked" not in outcome:
        raise ArtifactChanged(f"{place}: does not say what could not be checked; {_VERIFY}", key="unchecked")
    unchecked = [name for name in ("ledger", "report") if name in outcome["unchecked"]]
    if unchecked:
        raise ArtifactChanged(
            f"{place}: {' and '.join(unchecked)} could not be checked; {_VERIFY} where the trial ledger and the "
            "reports lie",
            unchecked=unchecked,
        )
    return f"verified, {len(read)} files as they were read then"


def check_report(case: Case) -> str:
    """The report is whole, and its manifest names these very artifacts and this decision."""
    manifest, folder = case.read.json(MANIFEST), case.read.report
    assert folder is not None  # the manifest lies in it
    place = (folder / MANIFEST).as_posix()
    different = verify_manifest(folder, case.root)
    if different:
        raise ArtifactChanged(
            f"{different[0]}; restore the report from a backup, or {_AGAIN}", differences=different
        )
    named = manifest["artifacts"]["files"]
    for name in DECIDED_FILES[1:]:
        if named.get(name) != case.read.digest(name):
            raise ArtifactChanged(
                f"{place}: {'names another' if name in named else 'does not name'} {name}; {_AGAIN}",
                artifact=name,
            )
    missing = [
        f"{page}.{suffix}"
        for page in REPORT_PAGES
        for suffix in ("html", "ipynb", "md")
        if f"{page}.{suffix}" not in manifest["files"]
    ]
    if missing or "checklist" not in manifest["notebooks"]:
        raise ArtifactChanged(
            f"{place}: the report lacks {', '.join(missing) or 'the decision notebook'}; {_AGAIN}",
            missing=missing,
        )
    summary = manifest["summary"]
    for name in ("recommendation", "reason"):
        if summary[name] != case.checklist[name]:
            raise ArtifactChanged(
                f"{place}: its {name} is {summary[name]!r}, the checklist's {case.checklist[name]!r}; {_AGAIN}",
                key=name,
            )
    if manifest["model_version"] != case.model.version:
        raise ArtifactChanged(
            f"{place}: reports on version {manifest['model_version']!r}, the model is {case.model.version}; {_AGAIN}",
            key="model_version",
        )
    return f"{folder.name}, {len(manifest['files'])} files as they were made"


def check_parity(case: Case) -> str:
    """The live engine, given the bars of the validation, does the same."""
    parity, place = case.read.json(PARITY_FILE), case.folder_name(PARITY_FILE)
    status, note = parity["status"], parity.get("note", "")
    if status == "pass":
        return note or "the live engine does the same"
    if status == "not_run":
        raise IntegrityError(
            f"{place}: the validation was not replayed through the live engine; {_AGAIN}", status=status
        )
    if status == "fail":
        raise IntegrityError(
            f"{place}: the live engine does something else than the backtest ({note}); find the difference with "
            "sqkit replay before you validate again",
            status=status,
        )
    raise ArtifactChanged(
        f"{place}: status {status!r} is none of pass, fail, not_run; {_AGAIN}", status=status
    )


def _digest_now(case: Case, name: str) -> str | None:
    """Digest of a file of the student's folder: of the bytes read, else of the file; None for no plain file."""
    if name in case.read.files and name != MANIFEST:
        return sha256_bytes(case.read.files[name])
    parts = PurePosixPath(name).parts
    if ".." in parts or PurePosixPath(name).is_absolute():
        raise ArtifactChanged(
            f"{case.folder_name(VERIFICATION_FILE)}: names {name!r} outside the student's folder; {_VERIFY}",
            artifact=name,
        )
    place = case.read.folder / name
    return sha256_file(place) if _is_plain(place) else None


def _is_plain(place: Path) -> bool:
    try:
        return stat.S_ISREG(os.lstat(place).st_mode)
    except OSError:
        return False


def _shown(digest: Any) -> str:
    return digest[:_SHOWN] if isinstance(digest, str) else "none is named"
