"""The `sqkit` command. Every command imports its room only when it runs.

Standard output carries results, standard error progress and refusals. A refusal is one line
that says what to do next, and its exit code:

0 done or PROMOTE; 1 REJECT or verification failed; 2 usage or bad input;
3 INSUFFICIENT_EVIDENCE; 4 integrity; 5 conflict or stale; 6 a notebook failed. A bug of sqkit's
own exits with 70, an interrupted run with 130.

With the notebooks this folder is the only place that knows both rooms. `sqkit.cli.words` holds
what the commands share; the modules beside it hold the commands, one theme each.
"""

from __future__ import annotations

import logging
import os
import sys

from cyclopts import CycloptsError

from sqkit.cli import (
    approving,
    auditing,
    bars,
    checking,
    engine,
    guarding,
    judging,
    monitoring,
    promoting,
    reading,
    simulating,
    training,
)
from sqkit.cli.words import app
from sqkit.errors import UNEXPECTED, SqkitError, unexpected
from sqkit.leaving import leave
from sqkit.versions import tidy_clock

__all__ = [
    "app",
    "approving",
    "auditing",
    "bars",
    "checking",
    "engine",
    "guarding",
    "judging",
    "main",
    "monitoring",
    "promoting",
    "reading",
    "run",
    "simulating",
    "training",
]


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; every way out is an exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given
    words = [word for word in given if word != "--debug"]
    try:
        _tidy_clock(words)
        code = app(words, exit_on_error=False, print_error=False)
    except CycloptsError as problem:
        said = " ".join(str(problem).split()).rstrip(".")
        _stop(f"{said}; see {' '.join(['sqkit', *_command(words)])} --help", 2)
    except SqkitError as problem:
        if debug:
            raise
        _stop(str(problem), problem.exit_code)
    except KeyboardInterrupt:
        logging.getLogger("asyncio").disabled = True  # what the stopped kernel's client still has to say
        _stop("interrupted; the step under way published nothing", 130)
    except ModuleNotFoundError as problem:
        if debug or (problem.name or "").startswith("sqkit"):
            raise
        _stop(f"{problem.name} is not installed; install it with: pip install 'sqkit[research]'", 2)
    except OSError as problem:
        if debug:
            raise
        _stop(f"{problem.filename or 'standard output'}: {problem.strerror or problem}", 2)
    except Exception as problem:
        if debug:
            raise
        _stop(unexpected(problem), UNEXPECTED)
    sys.exit(code if isinstance(code, int) else 0)


def _tidy_clock(words: list[str]) -> None:
    """A time that cannot be used is refused, but nothing keeps a person from stopping a model."""
    try:
        tidy_clock(os.environ)
    except SqkitError as problem:
        if words[:1] not in (["halt"], ["rollback"]):
            raise
        print(f"sqkit: {problem}; the machine's clock is used here", file=sys.stderr)
        del os.environ["SOURCE_DATE_EPOCH"]


def _command(words: list[str]) -> list[str]:
    """The words of the command line that name a known command."""
    known, here = [], app
    for word in words:
        if word.startswith("-") or word not in here:
            break
        known.append(word)
        here = here[word]
    return known


def _stop(line: str, code: int) -> None:
    print(f"sqkit: {line}", file=sys.stderr)
    sys.exit(code)


def run() -> None:
    """The command itself: `main`, then an exit that no library's thread can turn into a crash."""
    try:
        main()
    except SystemExit as leaving:
        leave(leaving.code if isinstance(leaving.code, int) else 1)
