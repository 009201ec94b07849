"""A change to production as a list of steps: shown by a dry run, done one after the other.

Each step leaves the disk in a state from which the next promoter can go on or back; whoever
injects `before` sees, or kills, the process between any two of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """What is done, for a person to read, and how."""

    what: str
    do: Callable[[], object]


def run_steps(steps: Iterable[Step], before: Callable[[str], None]) -> None:
    """Do the steps in order; `before` is told of each before it is done."""
    for step in steps:
        before(step.what)
        step.do()
