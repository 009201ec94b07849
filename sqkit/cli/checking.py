"""Commands that look at past decisions again: ``sqkit verify`` and ``sqkit policy diff``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from sqkit.cli.words import Json, app, group, show

policy = group("policy", "What another policy would have decided.")


@app.command
def verify(folder: str, /, *, json: Json = False) -> int:
    """Compute a decision again from what is stored; exit 1 when anything differs.

    Metrics, evidence and recommendation are computed from the stored predictions, returns and
    policy; no bar is read. The outcome goes to verification.json in the same folder, with the
    digests it read.

    Parameters
    ----------
    folder
        A student's folder, or one of its validations/v<n>.
    json
        Print the outcome as JSON.
    """
    from sqkit.research.verification import verification_lines, write_verification
    from sqkit.research.verification import verify as compute_again
    from sqkit.settings import Settings

    outcome = compute_again(Path(folder), reports_dir=Path(Settings().reports_dir))
    unwritten = write_verification(Path(folder), outcome)
    show(outcome, json, verification_lines(Path(folder), outcome))
    if unwritten:
        print(f"sqkit: {unwritten}", file=sys.stderr)
    return 1 if outcome["differences"] else 0


@policy.command(name="diff")
def policy_diff(
    *,
    changes: Annotated[list[str], Parameter(name="--set", negative=())],
    json: Json = False,
) -> int:
    """List past decisions that changed thresholds would have decided otherwise.

    Every stored checklist below data/models is decided again from its own metrics and evidence.
    One that cannot be read, or does not follow from its own inputs, is named and skipped: exit 1.

    Parameters
    ----------
    changes
        A setting and its value, such as promotion_min_precision_uplift=0.03; may be given again.
    json
        Print the list as JSON.
    """
    from sqkit.research.policy_diff import policy_changes, policy_diff_lines
    from sqkit.research.policy_diff import policy_diff as decide_again
    from sqkit.settings import Settings

    values = policy_changes(changes)
    found = decide_again(Path(Settings().data_dir) / "models", values)
    show(found, json, policy_diff_lines(found))
    return 1 if found["skipped"] else 0
