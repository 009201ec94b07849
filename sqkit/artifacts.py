"""Names of the files in a student's folder, each written down once.

Research writes most of them, the promoter reads them and adds approvals; both know them from
here.
"""

from __future__ import annotations

from typing import Final

from sqkit.model_file import STUDENT_FILE

__all__ = [
    "ACCURACY_FILE",
    "APPROVALS_FILE",
    "ARCHIVE_FOLDER",
    "CHECKLIST_FILE",
    "CHECKLIST_PAGE",
    "COMPARISON_FILE",
    "DECISION_ARTIFACTS",
    "EARLIER_FOLDER",
    "EVIDENCE_FILE",
    "HALT_FILE",
    "PARITY_FILE",
    "RELEASE_FILE",
    "RESULTS_FILE",
    "SIGNERS_FILE",
    "STUDENT_FILE",
    "TELEMETRY_FOLDER",
    "VALIDATION_ARTIFACTS",
    "VERIFICATION_FILE",
]

RESULTS_FILE: Final = "validation_results.json"
ACCURACY_FILE: Final = "validation_accuracy.json"
COMPARISON_FILE: Final = "comparison_baseline.json"
PARITY_FILE: Final = "parity.json"
TELEMETRY_FOLDER: Final = "validation_telemetry"
VALIDATION_ARTIFACTS: Final = (RESULTS_FILE, ACCURACY_FILE, COMPARISON_FILE, PARITY_FILE, TELEMETRY_FOLDER)
"""What a validation leaves, in the order in which it is published."""

CHECKLIST_FILE: Final = "promotion_checklist.json"
CHECKLIST_PAGE: Final = "promotion_checklist.md"
EVIDENCE_FILE: Final = "evidence.json"
DECISION_ARTIFACTS: Final = (CHECKLIST_FILE, CHECKLIST_PAGE, EVIDENCE_FILE)
"""What a decision leaves; the page is a view of the checklist and of its approvals, and is never hashed."""

VERIFICATION_FILE: Final = "verification.json"
APPROVALS_FILE: Final = "approvals.json"

EARLIER_FOLDER: Final = "validations"
"""Below a student's folder: the artifacts of earlier validations, in ``v<run>``."""

RELEASE_FILE: Final = "release.json"
"""Beside a production model, and in each archived release: which release it is and who said so."""

SIGNERS_FILE: Final = "allowed_signers"
"""In an archived release: who was allowed to sign when it was promoted."""

HALT_FILE: Final = "halt.json"
"""Beside a production model while the slot is halted: what an engine looks at."""

ARCHIVE_FOLDER: Final = "archive"
"""Below the models folder: every release that ever was in production."""
