"""Telling a person that work goes on: a bar on a terminal, one line per step otherwise."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def progress_over(items: Sequence[Item], label: str) -> Iterable[Item]:
    """Iterate with a progress bar when standard error is a terminal, silently otherwise."""
    if not sys.stderr.isatty():
        return items
    from tqdm import tqdm  # a terminal is there to see it; nobody else pays for the import

    return tqdm(items, desc=label, leave=False, file=sys.stderr)  # type: ignore[no-any-return]


def say(line: str) -> None:
    """One line of progress on standard error; standard output stays for results."""
    print(line, file=sys.stderr, flush=True)
