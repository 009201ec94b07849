"""Policies put in force in a scratch project, for tests that need one: the real audit log, an own clock."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

from sqkit.chain import Entry
from sqkit.checklist import Policy
from sqkit.people import Actor
from sqkit.production.changes import Production
from sqkit.production.policy_acceptance import accept_policy
from sqkit.settings import Settings

ACCEPTED_AT = dt.datetime(2025, 1, 10, 9, 30, tzinfo=dt.UTC)


def usual(**changes: Any) -> Policy:
    """The policy of the default settings with fields in place."""
    return Policy.from_settings(Settings(_env_file=None), **changes)


def accept(
    root: Path, policy: Policy, slot: str = "default", *, key: Path | None = None, **settings: Any
) -> Entry:
    """Accept a policy in a project; the audit line in force."""
    production = Production(
        Settings(_env_file=None, **settings),
        root,
        clock=lambda: ACCEPTED_AT,
        actor=Actor("Ann", "ann", "desk"),
    )
    return accept_policy(production, slot, policy, key=key, reason="agreed on 10 January").entry
