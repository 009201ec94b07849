"""Proof that soft labels are out of fold: blocks are cut again, one block's teacher is fitted again.

`distil.py` calls this before it trains a student on the labels. A teacher that had seen the answers
would hand them to the student, and every figure of the student would flatter it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from sqkit.bars import BarArrays
from sqkit.errors import LabelsInFold
from sqkit.features import teacher_set
from sqkit.records import session_day
from sqkit.research.folds import BLOCKS, block_folds, session_blocks
from sqkit.research.labels import TrainingTable, cut_bars, training_table
from sqkit.research.teacher import fit_teacher, library_versions
from sqkit.research.teacher_folder import StoredTeacher

TOLERANCE: Final = 1e-9
OTHER_LIBRARIES: Final = 0.05
"""Largest mean distance that another version of the learner is allowed; labels in fold lie further off."""


def verify_out_of_fold(
    teacher: StoredTeacher, bars: Mapping[str, BarArrays], *, block: int | None = None
) -> dict[str, Any]:
    """Fit the teacher of one block again, on the other blocks only, and hold the stored labels against it.

    Parameters
    ----------
    teacher
        Metadata and soft labels, already held against their digests.
    bars
        The bars it was trained on.
    block
        Which of the five to fit again; by default the labels' own digest chooses, so that whoever
        changes labels cannot know beforehand where it will be looked.

    Returns
    -------
    dict
        ``blocks``, ``refitted_block`` (from 0), ``largest_difference`` between stored and refitted.

    Raises
    ------
    LabelsInFold
        The blocks are not contiguous runs of session dates, or the block's labels are not those of a
        teacher that was fitted on the other blocks.
    """
    metadata, labels = teacher.metadata, teacher.soft_labels
    table = _teacher_table(metadata, bars)
    if not np.array_equal(labels["block"], session_blocks(table.session_day)):
        raise LabelsInFold(
            "soft labels: their blocks are not five runs of session dates over all symbols at once; "
            "train the teacher again",
        )
    if block is None:
        block = int(metadata["soft_labels_digest"][:8], 16) % BLOCKS
    fold = block_folds(table)[block]
    refitted = fit_teacher(
        metadata["model_type"], table.features[fold.train], table.up[fold.train], seed=metadata["seed"]
    )
    distance = np.abs(refitted.probability_up(table.features[fold.test]) - labels["soft_label"][fold.test])
    largest = float(np.max(distance))
    same_libraries = metadata["library_versions"] == library_versions(metadata["model_type"])
    near = largest <= TOLERANCE if same_libraries else float(np.mean(distance)) <= OTHER_LIBRARIES
    if not near:  # asked this way round: a label that is NaN is near nothing
        raise LabelsInFold(
            f"soft labels of block {block + 1} of {BLOCKS} are not those of a teacher fitted on the other blocks "
            f"(they differ by up to {largest:.3g}), so a student would learn answers; train the teacher again",
            block=block,
            largest_difference=largest,
        )
    return {"blocks": BLOCKS, "refitted_block": block, "largest_difference": largest}


def _teacher_table(metadata: dict[str, Any], bars: Mapping[str, BarArrays]) -> TrainingTable:
    first_day, last_day = (
        session_day(dt.date.fromisoformat(metadata["training_window"][end])) for end in ("start", "end")
    )
    return training_table(
        cut_bars({symbol: bars[symbol] for symbol in metadata["symbols"]}, first_day, last_day),
        teacher_set(metadata["strategy"]),
        first_day=first_day,
        last_day=last_day,
        horizon_bars=metadata["horizon_bars"],
        dead_zone=metadata["dead_zone"],
        within_session=metadata["strategy"] == "intraday",
    )
