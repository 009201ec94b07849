"""Checks of the model itself: where it lies, whether it loads and scores, what it says about itself.

Each function looks at a `Case`, returns one line for a person, or raises. Called by
`sqkit.production.promotion_checks`, which says in which order and what needs what.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sqkit.artifacts import ARCHIVE_FOLDER
from sqkit.errors import ModelFileMissing, ModelMetadataInvalid, ModelPathRefused
from sqkit.model_file import model_age_days, refuse_pickle_name
from sqkit.production.candidate import candidate_path
from sqkit.production.promotion_case import Case
from sqkit.production.slots import all_slots
from sqkit.sessions import MARKETS

_SHOWN: Final = 12


def check_path(case: Case) -> str:
    """The candidate lies in the models folder under its own name; no link, archive or production place."""
    path = Path(case.typed)
    refuse_pickle_name(path)
    if ".." in path.parts:
        raise ModelPathRefused(
            f"{case.typed}: leads back by ..; give the path of the model file itself", path=case.typed
        )
    try:
        place = candidate_path(case.typed, case.models_dir, case.root).resolve()
    except (OSError, RuntimeError, ValueError) as problem:
        raise ModelPathRefused(
            f"{case.typed}: no usable path ({problem}); give the path of the model file", path=case.typed
        ) from None
    if (case.models_dir / ARCHIVE_FOLDER).resolve() in place.parents:
        raise ModelPathRefused(
            f"{case.typed}: lies in the archive; bring a release back with sqkit rollback --to",
            path=case.typed,
        )
    if place.parent in {slot.folder.resolve() for slot in all_slots(case.settings, case.root)}:
        raise ModelPathRefused(
            f"{case.typed}: is a production place; give the student's folder in which the model was validated",
            path=case.typed,
        )
    refusal = case.refusal_of_model
    if isinstance(refusal, ModelFileMissing | ModelPathRefused):
        raise refusal
    return f"{case.typed} lies in the models folder"


def check_model(case: Case) -> str:
    """The very bytes that would be archived load, and score a probe row."""
    if case.refusal_of_model is not None:
        raise case.refusal_of_model
    model = case.model
    return f"version {model.version} scores with {model.feature_set.name}, SHA-256 {model.digest[:_SHOWN]}"


def check_metadata(case: Case) -> str:
    """What the file says about itself is whole: the schema was checked on loading, here what may be empty."""
    about = case.model.metadata
    if not about["created_by"].strip():
        raise ModelMetadataInvalid(
            f"{case.typed}: created_by is empty, so nobody can tell whether an approver is its author; train "
            "again with sqkit train-student",
            key="created_by",
        )
    if about["market"] not in MARKETS:
        raise ModelMetadataInvalid(
            f"{case.typed}: market {about['market']!r} is none of {', '.join(MARKETS)}; train again with "
            "sqkit train-student",
            key="market",
        )
    model_age_days(case.model.version, case.now)  # refuses a version that is no time
    window = about["training_window"]
    return (
        f"trained {window['start']} to {window['end']} by {about['created_by']}, teacher "
        f"{about['teacher_digest'][:_SHOWN]}, features {about['feature_set_digest'][:_SHOWN]}, classes "
        f"{' '.join(about['class_order'])}"
    )
