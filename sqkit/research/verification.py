"""Verification: a student's folder in, what its stored files do not bear out.

``sqkit verify`` calls `verify` and `write_verification`. Metrics, evidence and recommendation
are computed again from the stored predictions, returns and policy, by the functions that made
them, and every stored value is held against the new one (`sqkit.research.verification_checks`).
Nothing is trained, nothing unpickled, no bar is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

import sqkit
from sqkit.artifacts import (
    CHECKLIST_FILE,
    CHECKLIST_PAGE,
    DECISION_ARTIFACTS,
    RESULTS_FILE,
    VALIDATION_ARTIFACTS,
    VERIFICATION_FILE,
)
from sqkit.errors import OutputError, SqkitError, UsageError
from sqkit.files import read_json, sha256_file, write_json
from sqkit.model_file import STUDENT_FILE
from sqkit.research.accuracy import read_results
from sqkit.research.stored_values import Difference, difference_line, plain
from sqkit.research.verification_checks import (
    Check,
    Notes,
    Stored,
    check_accuracy,
    check_comparison,
    check_consistency,
    check_decision,
    check_model,
    check_records,
    check_results,
    check_symbols,
)
from sqkit.research.verification_witnesses import check_ledger, check_page, check_policy, check_report

VERIFIED: Final = "verified"
DIFFERS: Final = "differs"

CHECKS: Final[tuple[Check, ...]] = (
    check_records,
    check_results,
    check_symbols,
    check_accuracy,
    check_comparison,
    check_model,
    check_decision,
    check_consistency,
    check_page,
    check_policy,
    check_ledger,
    check_report,
)
"""In the order in which a reader wants to hear of a difference: the cause before what follows from it."""

CHECKS_OF_A_CHECKLIST: Final[tuple[Check, ...]] = (check_consistency, check_page, check_policy)

_DAMAGED: Final = (
    SqkitError,
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What reading a damaged file can end in; it becomes a difference, never a traceback."""


def verify(folder: Path, *, reports_dir: Path = Path("reports"), root: Path = Path()) -> dict[str, Any]:
    """Compute a decision again from its stored files and name every difference; nothing is written.

    Parameters
    ----------
    folder
        A student's folder, or one of its ``validations/v<n>``.
    reports_dir, root
        Where the reports lie, and the project's root.

    Returns
    -------
    dict
        ``status`` (``verified`` or ``differs``), ``differences`` (``what``, and where two values
        differ ``stored`` and ``computed``), ``notes`` (what could not be checked, in words),
        ``unchecked`` (the same in the sorted words of `Notes`: a folder that only agrees with itself
        has some), ``read`` (SHA-256 of every file by name, but for the checklist's page, a view),
        ``trials`` as kept by the validation, ``sqkit_version``.

    Raises
    ------
    UsageError
        There is no such folder, it cannot be read, or it holds neither validation nor checklist.
    """
    _require_decision(folder)
    findings, notes = _Findings(folder), Notes()
    read = {name: digest for name, digest in findings.digests_of(_files_of(folder)) if digest}
    stored = Stored(
        folder,
        reports_dir,
        root,
        findings.attempt(lambda: _checklist(folder)) or {},
        (findings.attempt(lambda: read_results(folder)) if RESULTS_FILE in read else None) or {},
    )
    if RESULTS_FILE not in read and _is_from_elsewhere(stored.checklist):
        notes.lines.append(
            "metrics from elsewhere carry no predictions: only the checklist itself was verified"
        )
        checks = CHECKS_OF_A_CHECKLIST
    else:
        findings.missing((*VALIDATION_ARTIFACTS, *DECISION_ARTIFACTS))
        checks = CHECKS if stored.results else (*CHECKS_OF_A_CHECKLIST, check_report)
    with np.errstate(all="ignore"):  # a damaged number is a difference, not a warning
        for check in checks:
            findings.add(findings.attempt(partial(check, stored, notes)) or [])
    return {
        "differences": findings.found,
        "notes": notes.lines,
        "read": read,
        "sqkit_version": sqkit.__version__,
        "status": DIFFERS if findings.found else VERIFIED,
        "trials": plain(_kept_trials(stored.results)),
        "unchecked": sorted(notes.unchecked),
    }


def write_verification(folder: Path, outcome: dict[str, Any]) -> str:
    """Write ``verification.json``; a line that says why where that is not possible, else an empty one."""
    try:
        write_json(folder / VERIFICATION_FILE, outcome)
    except (OutputError, OSError) as problem:
        return f"{VERIFICATION_FILE} was not written: {problem}"
    return ""


def verification_lines(folder: Path, outcome: dict[str, Any]) -> list[str]:
    """The outcome for a person: every difference, what could not be checked, the status last."""
    lines = [difference_line(difference) for difference in outcome["differences"]]
    lines += [f"note: {note}" for note in outcome["notes"]]
    count = len(outcome["differences"])
    if count:
        return [
            *lines,
            f"{folder}: differs in {count} place{'s' if count > 1 else ''}; do not rely on this decision",
        ]
    return [*lines, f"{folder}: verified; {len(outcome['read'])} files agree"]


class _Findings:
    """Differences in the order in which they were found, each once, without the folder's own place."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.found: list[Difference] = []

    def add(self, differences: list[Difference]) -> None:
        for difference in differences:
            told = plain(difference | {"what": difference["what"].replace(f"{self.folder}/", "")})
            if told not in self.found:
                self.found.append(told)

    def attempt(self, step: Callable[[], Any]) -> Any:
        """What a step returns; None, and a difference, where damaged files end it."""
        try:
            return step()
        except SqkitError as problem:
            self.add([{"what": problem.message}])
        except _DAMAGED as problem:
            said = " ".join(str(problem).split())
            self.add(
                [
                    {
                        "what": f"a stored file has another form than sqkit writes ({type(problem).__name__}: {said})"
                    }
                ]
            )
        return None

    def digests_of(self, paths: list[Path]) -> Iterator[tuple[str, str | None]]:
        for path in paths:
            yield path.relative_to(self.folder).as_posix(), self.attempt(partial(sha256_file, path))

    def missing(self, names: tuple[str, ...]) -> None:
        self.add([{"what": f"{name}: missing"} for name in names if not (self.folder / name).exists()])


def _require_decision(folder: Path) -> None:
    """A folder that can be read and holds a validation or a checklist."""
    try:
        names = {path.name for path in folder.iterdir()}
    except NotADirectoryError:
        raise UsageError(f"{folder}: is a file; give the student's folder") from None
    except OSError as problem:
        raise UsageError(f"{folder}: cannot be read ({problem.strerror}); give a student's folder") from None
    if not names & {RESULTS_FILE, CHECKLIST_FILE}:
        raise UsageError(
            f"{folder}: holds neither {RESULTS_FILE} nor {CHECKLIST_FILE}; give the folder of a validated student",
            folder=str(folder),
        )


def _files_of(folder: Path) -> list[Path]:
    """The files of model, validation and decision that are there; nothing of later steps, no view."""
    names = sorted({STUDENT_FILE, *VALIDATION_ARTIFACTS, *DECISION_ARTIFACTS} - {CHECKLIST_PAGE})
    places = [folder / name for name in names]
    return [
        path
        for place in places
        for path in (sorted(place.iterdir()) if place.is_dir() else [place])
        if path.is_file() and not path.name.startswith(".")
    ]


def _checklist(folder: Path) -> dict[str, Any]:
    if not (folder / CHECKLIST_FILE).exists():
        return {}
    checklist = read_json(folder / CHECKLIST_FILE)
    if not isinstance(checklist, dict) or not checklist:
        raise UsageError(f"{folder / CHECKLIST_FILE}: is no checklist")
    return checklist


def _kept_trials(results: dict[str, Any]) -> Any:
    """The count of trials the validation kept, not one that is counted now; without other trials' returns."""
    trials = results.get("trials")
    if not isinstance(trials, dict):
        return trials
    return {name: value for name, value in trials.items() if name != "returns"}


def _is_from_elsewhere(checklist: dict[str, Any]) -> bool:
    """Metrics from elsewhere name neither a model's digest nor predictions."""
    digests = checklist.get("digests")
    return isinstance(digests, dict) and not any(digests.get(name) for name in ("model", "predictions"))
