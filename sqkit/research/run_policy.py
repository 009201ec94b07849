"""What one run is judged by: the accepted policy of its slot, with settings and flags in place.

Notebook 04 and the jobs ask `judged_by`; `sqkit.policy_in_force` holds the rules. The audit log is only
read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqkit.artifacts import RESULTS_FILE
from sqkit.audit_log import read_audit
from sqkit.checklist_inputs import Policy
from sqkit.errors import ArtifactChanged
from sqkit.monitoring_baseline import MonitoringRules
from sqkit.policy_in_force import DEFAULT_SLOT, accepted_policy, held_against, policy_of_run, slot_of
from sqkit.research.accuracy import read_results
from sqkit.settings import Settings


@dataclass(frozen=True)
class JudgedBy:
    """What a run is judged by, and what the checklist keeps of the policy in force and of monitoring.

    Attributes
    ----------
    in_force
        Digest of the accepted policy and what is looser (`sqkit.policy_in_force.held_against`); None
        where none was ever accepted.
    rules
        By which the model would be watched; None says nothing of it.
    """

    policy: Policy
    in_force: dict[str, Any] | None = None
    rules: MonitoringRules | None = None


def judged_by(
    strategy: str | None = None,
    *,
    precision_uplift: float | None = None,
    hit_ratio_uplift: float | None = None,
    sharpe_uplift: float | None = None,
) -> JudgedBy:
    """The policy of a strategy's slot as the audit log and the settings say, with flags in place.

    Parameters
    ----------
    strategy
        None for metrics from elsewhere, which belong to no slot: they are held against the default one.
    precision_uplift, hit_ratio_uplift, sharpe_uplift
        Thresholds given as flags; None leaves what is in force.

    Raises
    ------
    AuditBroken
        The audit log does not hold: what is in force is not known.
    """
    settings = Settings()
    entries = read_audit(Path(settings.data_dir) / "models")
    slot = DEFAULT_SLOT if strategy is None else slot_of(settings, strategy)
    policy = policy_of_run(
        settings,
        entries,
        slot,
        min_precision_uplift=precision_uplift,
        min_hit_ratio_uplift=hit_ratio_uplift,
        min_sharpe_uplift=sharpe_uplift,
    )
    in_force = held_against(policy, accepted_policy(entries, slot))
    return JudgedBy(policy, in_force, MonitoringRules.from_settings(settings))


def policy_with(
    precision_uplift: float | None = None,
    hit_ratio_uplift: float | None = None,
    sharpe_uplift: float | None = None,
) -> Policy:
    """The policy that commands judge by when no strategy is known: `judged_by` with these flags."""
    return judged_by(
        precision_uplift=precision_uplift, hit_ratio_uplift=hit_ratio_uplift, sharpe_uplift=sharpe_uplift
    ).policy


def strategy_of(validated: Path) -> str:
    """The strategy of a stored validation, which names its slot.

    Raises
    ------
    ArtifactChanged
        The results do not say.
    """
    runtime = read_results(validated)["runtime"]
    if not isinstance(runtime, dict) or not isinstance(runtime.get("strategy"), str):
        raise ArtifactChanged(
            f"{validated / RESULTS_FILE}: its runtime names no strategy; validate again", path=str(validated)
        )
    return str(runtime["strategy"])
