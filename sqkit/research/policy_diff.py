"""What another policy would have decided: stored checklists and changed thresholds in, changed verdicts out.

``sqkit policy diff`` calls `policy_changes` on what was typed and `policy_diff` on the folder of
models. Nothing is measured again and nothing is written: each checklist's own decision is
repeated from its recorded metrics and evidence, with the changed thresholds in its recorded policy.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from sqkit.artifacts import CHECKLIST_FILE
from sqkit.checklist import Policy, differences, rederive
from sqkit.errors import ChecklistInputError, SqkitError, UsageError
from sqkit.files import read_json
from sqkit.settings import PREFIX, Settings

STORED_CHECKLISTS: Final = (f"*/*/{CHECKLIST_FILE}", f"*/*/validations/*/{CHECKLIST_FILE}")
"""Below the folder of models: the newest decision of every student, and its earlier ones."""

_SECTION: Final = "promotion_"
_AFTER_A_DECISION: Final = (
    "required_approvals",
    "allow_self_approval",
    "approval_max_age_days",
    "checklist_max_age_days",
)
"""Parts of a policy that count when a decision is signed or carried out, not when it is made."""


def policy_changes(assignments: Sequence[str]) -> dict[str, Any]:
    """Thresholds typed as ``promotion_min_sharpe=0.5``, read as the settings read them.

    Parameters
    ----------
    assignments
        ``NAME=VALUE`` each; the name of a setting, with or without ``SENSEQUANT_``, in any case.

    Returns
    -------
    dict
        Value by name in `Policy` (``min_sharpe``).

    Raises
    ------
    UsageError
        Nothing is given, a word has no ``=``, a name is given twice, is no setting, or does not
        enter a decision.
    SettingsError
        A value cannot be used.
    """
    if not assignments:
        raise UsageError("nothing to change; give --set promotion_min_precision_uplift=0.03, for example")
    given: dict[str, str] = {}
    for assignment in assignments:
        word, equals, value = assignment.partition("=")
        name = word.strip().lower().removeprefix(PREFIX.lower())
        if not equals:
            raise UsageError(f"--set {assignment}: give NAME=VALUE, promotion_min_sharpe=0.5 for example")
        if name in given:
            raise UsageError(f"--set {name}: given twice; give it once")
        _require_deciding(name)
        given[name] = value.strip()
    settings: dict[str, Any] = dict(given)
    read = Settings(**settings)
    return {name.removeprefix(_SECTION): getattr(read, name) for name in given}


def policy_diff(models: Path, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Past decisions that the changed thresholds would have decided otherwise.

    Parameters
    ----------
    models
        Folder of all models, ``data/models``.
    changes
        What `policy_changes` returned.

    Returns
    -------
    dict
        ``changes``; ``models``, the folder; ``decisions``, how many were repeated; ``changed``,
        for each decision that comes out otherwise ``checklist`` (path), ``version``, ``window``
        (``start`` and ``end``), ``old`` and ``new`` recommendation and ``reason`` (the new one's
        first); ``skipped``, for each checklist that cannot be judged ``checklist`` and
        ``problem``. Sorted by path.
    """
    paths = [path for pattern in STORED_CHECKLISTS for path in models.glob(pattern)]
    shown = sorted(path for path in paths if not _is_hidden(path.relative_to(models)))
    changed: list[dict[str, Any]] = []
    skipped: list[dict[str, Any]] = []
    for path in shown:
        try:
            decided = _decided_again(path, changes)
        except SqkitError as problem:
            skipped.append({"checklist": path.as_posix(), "problem": str(problem)})
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as problem:
            line = " ".join(f"not a checklist of sqkit ({type(problem).__name__}: {problem})".split())
            skipped.append({"checklist": path.as_posix(), "problem": line})
        else:
            if decided["old"] != decided["new"]:
                version = path.relative_to(models).parts[0]
                changed.append({"checklist": path.as_posix(), "version": version, **decided})
    return {
        "changed": changed,
        "changes": {f"{_SECTION}{name}": value for name, value in changes.items()},
        "decisions": len(shown) - len(skipped),
        "models": models.as_posix(),
        "skipped": skipped,
    }


def policy_diff_lines(found: Mapping[str, Any]) -> list[str]:
    """What `policy_diff` found, one line each; the count last."""
    lines = [f"{entry['checklist']}: skipped: {entry['problem']}" for entry in found["skipped"]]
    for entry in found["changed"]:
        window = f"{entry['window']['start'] or 'n/a'} to {entry['window']['end'] or 'n/a'}"
        lines.append(
            f"{entry['checklist']}: {entry['version']}, {window}: {entry['old']} -> {entry['new']}: {entry['reason']}"
        )
    count = f"{len(found['changed'])} of {found['decisions']} decisions below {found['models']} would have changed"
    return [*lines, count]


def _decided_again(path: Path, changes: Mapping[str, Any]) -> dict[str, Any]:
    """A stored decision as it was, and as it would be."""
    checklist = read_json(path)
    if not isinstance(checklist, dict):
        raise ChecklistInputError("not a checklist of sqkit")
    wrong = differences(checklist)
    if wrong:
        raise ChecklistInputError(f"does not follow from its own inputs: {wrong[0]}")
    recommendation, _, reasons = rederive(checklist | {"policy": checklist["policy"] | dict(changes)})
    period = checklist["validation_period"]
    return {
        "window": {"start": period["start"], "end": period["end"]},
        "old": checklist["recommendation"],
        "new": recommendation,
        "reason": reasons[0],
    }


def _require_deciding(name: str) -> None:
    """Refuse a name that is no setting, or one that no decision depends on."""
    if name not in Settings.model_fields:
        close = difflib.get_close_matches(name, [f"{_SECTION}{part}" for part in _deciding()], n=1)
        hint = f"did you mean {close[0]}?" if close else f"give one of {', '.join(_deciding(_SECTION))}"
        raise UsageError(f"--set {name}: is no setting of sqkit; {hint}", name=name)
    part = name.removeprefix(_SECTION)
    if name.startswith(_SECTION) and part in _deciding():
        return
    why = (
        "it counts when a decision is signed or promoted"
        if name.startswith(_SECTION)
        else "only promotion_... do; validate again to see its effect"
    )
    raise UsageError(f"--set {name}: does not enter a decision: {why}; leave it out", name=name)


def _deciding(prefix: str = "") -> list[str]:
    """Names of the policy's thresholds that are settings and enter a decision."""
    return [
        prefix + field.name
        for field in fields(Policy)
        if field.name not in _AFTER_A_DECISION and f"{_SECTION}{field.name}" in Settings.model_fields
    ]


def _is_hidden(relative: Path) -> bool:
    """A staging folder holds no decision yet."""
    return any(part.startswith(".") for part in relative.parts)
