"""Commands that look at past decisions again, and at what they are held against: ``sqkit verify`` and ``policy``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from sqkit.cli.words import Json, app, group, show
from sqkit.errors import UsageError
from sqkit.files import canonical_json

policy = group(
    "policy", "What candidates must reach: the policy in force, and what another would have decided."
)


@app.command
def verify(
    folder: str = "",
    /,
    *,
    audit: Annotated[bool, Parameter(negative=())] = False,
    json: Json = False,
) -> int:
    """Compute a decision again from what is stored, or the audit log; exit 1 when anything differs.

    Metrics, evidence and recommendation are computed from the stored predictions, returns and
    policy; no bar is read. The outcome goes to verification.json in the same folder, with the
    digests it read and what could not be checked.

    Parameters
    ----------
    folder
        A student's folder, or one of its validations/v<n>; may be left out with --audit.
    audit
        Verify the audit log too: its chain, every archived release, and production against it.
    json
        Print the outcome as JSON.
    """
    if not folder and not audit:
        raise UsageError("give a student's folder, or --audit for the audit log and the releases")
    outcome, lines = _decision_again(folder) if folder else ({}, [])
    differs = bool(outcome.get("differences"))
    if audit:
        from sqkit.production.audit_check import audit_lines, check_audit
        from sqkit.settings import Settings

        found = check_audit(Settings(), Path())
        outcome = outcome | {"audit": found} if folder else found
        lines = [*lines, *audit_lines(found)]
        differs = differs or found["status"] == "differs"
    show(outcome, json, lines)
    return 1 if differs else 0


def _decision_again(folder: str) -> tuple[dict[str, Any], list[str]]:
    """What a verification of a folder found, stored there, and in words."""
    from sqkit.research.verification import verification_lines, write_verification
    from sqkit.research.verification import verify as compute_again
    from sqkit.settings import Settings

    outcome = compute_again(Path(folder), reports_dir=Path(Settings().reports_dir))
    unwritten = write_verification(Path(folder), outcome)
    if unwritten:
        _say(unwritten)
    return outcome, verification_lines(Path(folder), outcome)


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


@policy.command(name="show")
def policy_show(*, slot: str = "default", json: Json = False) -> int:
    """Print the policy in force as a file that policy accept takes; where it comes from on standard error.

    Parameters
    ----------
    slot
        default, or a strategy.
    json
        Print the policy, its digest and where it comes from as one JSON object.
    """
    from sqkit.production.changes import Production
    from sqkit.production.policy_acceptance import policy_about, source_lines
    from sqkit.settings import Settings

    about = policy_about(Production(Settings(), say=_say), slot)
    if not json:
        for line in source_lines(about):
            _say(line)
    show(about, json, canonical_json(about["policy"]).splitlines())
    return 0


@policy.command(name="accept")
def policy_accept(
    file: str,
    /,
    *,
    slot: str = "default",
    as_name: Annotated[str, Parameter(name="--as")] = "",
    key: str = "",
    reason: str = "",
) -> int:
    """Put a slot's policy in force, as a fact of the audit log; each field that becomes looser is named.

    From then on the environment and flags may tighten it, never loosen it. Where
    SENSEQUANT_PROMOTION_ALLOWED_SIGNERS is set it has to be signed.

    Parameters
    ----------
    file
        JSON with every field of the policy, as sqkit policy show prints it.
    slot
        default, or a strategy.
    as_name
        Who accepts; by default the account's name.
    key
        SSH key to sign with.
    reason
        Why, for the audit log.
    """
    from sqkit.people import Actor
    from sqkit.production.changes import Production
    from sqkit.production.policy_acceptance import accept_policy, parse_policy
    from sqkit.settings import Settings

    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise UsageError(
            f"{file}: cannot be read ({problem}); give a JSON file, such as sqkit policy show prints"
        ) from None
    accepted = accept_policy(
        Production(Settings(), actor=Actor.here(as_name), say=_say),
        slot,
        parse_policy(text, file),
        key=Path(key) if key else None,
        reason=reason,
        terminal=sys.stdin.isatty(),
    )
    print("\n".join(accepted.lines()), flush=True)
    return 0


def _say(line: str) -> None:
    """A line beside the result."""
    print(f"sqkit: {line}", file=sys.stderr)
