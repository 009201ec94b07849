"""Five blocks of sessions, and for each the rows a teacher may learn from before labelling it.

`teacher.py` and `distil.py` call this. In: per row the session date, the instant of the
decision, the instant its label ends and the instant `horizon` bars before it. Out: row
numbers. The blocks are cut by session date over all symbols at once, so no date lies in two
blocks. Purging and embargo after M. López de Prado, Advances in Financial Machine Learning
(2018), chapter 7, on label intervals rather than row counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from sqkit.errors import TrainingDataTooSmall
from sqkit.research.labels import TrainingTable

BLOCKS: Final = 5


@dataclass(frozen=True)
class Fold:
    """One block and what may be known when it is labelled.

    Attributes
    ----------
    train, test
        int64 row numbers, ascending; `test` is the block.
    """

    train: np.ndarray
    test: np.ndarray


def session_blocks(session_day: np.ndarray, blocks: int = BLOCKS) -> np.ndarray:
    """Number of each row's block: contiguous runs of session dates, equally many dates each.

    Parameters
    ----------
    session_day
        int (n,), any order.

    Returns
    -------
    np.ndarray
        int8 (n,), 0 for the earliest block.

    Raises
    ------
    TrainingDataTooSmall
        Fewer session dates than blocks.
    """
    days = np.unique(session_day)
    if len(days) < blocks:
        raise TrainingDataTooSmall(
            f"{len(days)} session dates with decisive rows cannot be cut into {blocks} blocks; "
            "train on a longer window",
            sessions=len(days),
        )
    starts = [part[0] for part in np.array_split(days, blocks)]
    return (np.searchsorted(np.array(starts), session_day, "right") - 1).astype(np.int8)


def purged_train_rows(
    decision_ns: np.ndarray,
    label_end_ns: np.ndarray,
    embargo_ns: np.ndarray,
    test: np.ndarray,
) -> np.ndarray:
    """Rows whose label interval neither meets the test rows' span nor begins `horizon` bars after it.

    The span runs from the first test decision to the last end of a test label. A row is kept
    when its label ends before the span, or when `horizon` bars of its own symbol lie between
    the span and its decision.

    Parameters
    ----------
    decision_ns, label_end_ns, embargo_ns
        int64 (n,), as in `TrainingTable`.
    test
        int64, numbers of the test rows.

    Returns
    -------
    np.ndarray
        int64, ascending row numbers.
    """
    span_start, span_end = decision_ns[test].min(), label_end_ns[test].max()
    before = label_end_ns < span_start
    after = np.minimum(embargo_ns, decision_ns) > span_end
    return np.flatnonzero(before | after)


def block_folds(table: TrainingTable, blocks: int = BLOCKS) -> list[Fold]:
    """One fold per block, in time order.

    Raises
    ------
    TrainingDataTooSmall
        Fewer session dates than blocks, or purging leaves a block nothing to learn from.
    """
    block = session_blocks(table.session_day, blocks)
    folds = []
    for number in range(blocks):
        test = np.flatnonzero(block == number)
        train = purged_train_rows(table.decision_ns, table.label_end_ns, table.embargo_ns, test)
        if not len(train):
            raise TrainingDataTooSmall(
                f"purging leaves nothing to label block {number + 1} of {blocks} with; "
                "train on a longer window or with a shorter horizon",
                block=number,
            )
        folds.append(Fold(train, test))
    return folds
