"""The version tag of a training run: ``YYYYMMDD_HHMMSS``.

The commands that train call `resolve_version`. In: the tag as typed and the output folder. Out:
one tag, or a refusal.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Final

from sqkit.errors import UsageError

_FORM: Final = "%Y%m%d_%H%M%S"


def resolve_version(
    version_tag: str | None,
    output_dir: str | Path | None,
    environ: Mapping[str, str] | None = None,
    now: dt.datetime | None = None,
) -> str:
    """The tag of a run: as typed, else the parent folder's name, else a time in UTC.

    Parameters
    ----------
    version_tag
        What ``--version-tag`` says; None or empty when it was not given.
    output_dir
        Such as ``data/models/20250112_143000/student``; its parent's name counts when it has
        the form of a tag. None or empty when it was not given.
    environ
        ``SOURCE_DATE_EPOCH`` in it stands for the time, if set; by default the process's own.
    now
        The present, with its zone; by default the clock's.

    Raises
    ------
    UsageError
        A tag of another form, a tag and a folder that disagree, or a bad SOURCE_DATE_EPOCH.
    """
    folder = Path(output_dir).absolute().parent.name if output_dir else ""
    if version_tag:
        if not is_version(version_tag):
            raise UsageError(
                f"--version-tag {version_tag}: give a date and time as YYYYMMDD_HHMMSS", tag=version_tag
            )
        if is_version(folder) and folder != version_tag:
            raise UsageError(
                f"--version-tag {version_tag} but the folder {output_dir} says {folder}; "
                "leave the tag out or choose another folder",
                tag=version_tag,
                folder=folder,
            )
        return version_tag
    if is_version(folder):
        return folder
    return run_time(os.environ if environ is None else environ, now).strftime(_FORM)


def run_time(environ: Mapping[str, str], now: dt.datetime | None = None) -> dt.datetime:
    """The time of a run, in UTC: ``SOURCE_DATE_EPOCH`` where it is set, else `now`, else the clock.

    Raises
    ------
    UsageError
        SOURCE_DATE_EPOCH is no count of seconds since 1970.
    """
    epoch = environ.get("SOURCE_DATE_EPOCH", "")
    if not epoch:
        return (now or dt.datetime.now(dt.UTC)).astimezone(dt.UTC)
    try:
        moment = dt.datetime.fromtimestamp(int(epoch), dt.UTC)
        if moment.year < 1970:
            raise ValueError
    except (ValueError, OverflowError, OSError):
        raise UsageError(
            f"SOURCE_DATE_EPOCH={epoch}: not a count of seconds since 1970; correct it or unset it",
            value=epoch,
        ) from None
    return moment


def decision_time(environ: Mapping[str, str] | None = None) -> str:
    """The time a checklist or the trial ledger names: `run_time` in whole seconds, ``...T15:30:00Z``."""
    return run_time(os.environ if environ is None else environ).strftime("%Y-%m-%dT%H:%M:%SZ")


def tidy_clock(environ: MutableMapping[str, str]) -> None:
    """Refuse a bad SOURCE_DATE_EPOCH before libraries stumble over it; an empty one counts as unset."""
    if not environ.get("SOURCE_DATE_EPOCH", "unset"):
        del environ["SOURCE_DATE_EPOCH"]
    run_time(environ)


def version_ns(version: str) -> int:
    """The time that a version tag names, UTC nanoseconds: a clock under which its model has no age.

    A replay takes it. Whether a model is too old to trade is asked when it trades, so a model with an old tag
    can be validated like any other.
    """
    made = dt.datetime.strptime(version, _FORM).replace(tzinfo=dt.UTC)
    return int(made.timestamp()) * 1_000_000_000


def is_version(text: str) -> bool:
    """Whether a text is a date and time of the form YYYYMMDD_HHMMSS."""
    try:
        return dt.datetime.strptime(text, _FORM).strftime(_FORM) == text  # noqa: DTZ007 - only the form
    except ValueError:
        return False
