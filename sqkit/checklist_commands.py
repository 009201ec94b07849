"""The commands on a checklist's page: how this candidate gets into production, and how it is taken back.

Every line runs exactly as it is printed; names come from the account of whoever runs it. Called by
`sqkit.checklist_markdown`.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from sqkit.checklist_signoffs import CRITERIA_MET, PERIOD_REPRESENTATIVE, all_symbols


def promotion_commands(checklist: Mapping[str, Any]) -> list[str]:
    """From the decision to production, step by step."""
    lines = ["## Promotion Commands", ""]
    if not checklist["digests"].get("model") or checklist["candidate_model"] is None:
        return [
            *lines,
            "This checklist names no model digest and can never be promoted: "
            "validate the model itself with `sqkit validate`.",
        ]
    if checklist["recommendation"] != "PROMOTE":
        lines += [
            f"The promoter refuses this checklist: its recommendation is {checklist['recommendation']}.",
            "",
        ]
    model = shlex.quote(checklist["candidate_model"])
    folder = shlex.quote(PurePosixPath(checklist["candidate_model"]).parent.as_posix())
    steps = [
        ("Compute the decision again from what is stored", [f"sqkit verify {folder}"]),
        (
            "Tick what only a person can tell",
            [f"sqkit attest {box} --model {model} --note '{note}'" for box, note in _to_attest(checklist)],
        ),
        ("Rehearse the rollback in a scratch folder", [f"sqkit rollback --drill{_slot(checklist)}"]),
        (
            "Approve, one person for each role",
            [
                f"sqkit approve --model {model} --role {shlex.quote(role)}"
                for role in checklist["policy"]["required_approvals"]
            ],
        ),
        ("See every step; nothing is written", [f"sqkit promote --model {model} --dry-run"]),
        (
            "Archive the current production model, put the candidate in its place, enable scoring in .env",
            [f"sqkit promote --model {model} --enable --env-file .env"],
        ),
        ("See what is live", ["sqkit status"]),
    ]
    return [
        *lines,
        "Names come from the account that runs a command. Where `promotion_allowed_signers` is set, `sqkit attest` and "
        "`sqkit approve` also need `--key` and your SSH key.",
        "",
        *_block(steps),
    ]


def rollback_procedure(checklist: Mapping[str, Any]) -> list[str]:
    """How the model that was replaced comes back."""
    runtime = checklist["runtime"]
    ratio, days = runtime.get("accuracy_floor_ratio", 0.9), runtime.get("accuracy_floor_days", 3)
    slot, reason = _slot(checklist), "--reason 'live accuracy below validation'"
    return [
        "## Rollback Procedure",
        "",
        f"If live performance degrades (accuracy < {100 * ratio:g}% of validation for {days} days):",
        "",
        *_block(
            [
                ("Disable student scoring", [f"sqkit halt{slot} {reason}"]),
                ("Restore the model that was replaced", [f"sqkit rollback{slot} {reason}"]),
                ("Re-enable with the restored model", [f"sqkit resume{slot}"]),
                ("Investigate root cause", [f"sqkit history{slot}"]),
            ]
        ),
    ]


def _block(steps: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    """Numbered steps as one block of shell lines; a step without a command is left out."""
    lines: list[str] = []
    for number, (words, commands) in enumerate(((words, one) for words, one in steps if one), 1):
        lines += [*([""] if lines else []), f"# {number}. {words}", *commands]
    return ["```bash", *lines, "```"]


def _to_attest(checklist: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Boxes that no program can tick for this checklist, each with a note."""
    found = [(PERIOD_REPRESENTATIVE, "window reviewed")]
    record = all_symbols(checklist["evidence"])
    if record is None or record.get("status") not in ("pass", "fail"):
        found.append((CRITERIA_MET, "every symbol reviewed"))
    return found


def _slot(checklist: Mapping[str, Any]) -> str:
    """The strategy stands for its slot; where it has none of its own that is the default slot."""
    runtime = checklist["runtime"]
    strategy = runtime.get("strategy") or runtime.get("strategy_parameters", {}).get("strategy")
    return f" --slot {shlex.quote(str(strategy))}" if strategy else ""
