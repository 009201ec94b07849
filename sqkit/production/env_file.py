"""The lines that an engine's environment needs after a promotion, and the env file that holds them.

In: settings, a slot, the version that goes live. Out: lines for a person to set, an env file with
these lines changed and nothing else, and a refusal where a version pin would block the release.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from sqkit.errors import ConflictError, OutputError, PinBlocks
from sqkit.files import fsync_folder, inside, output_errors
from sqkit.production.env_text import changed, quoted, values_in
from sqkit.production.slots import Slot
from sqkit.settings import PREFIX, Settings

ENABLED: Final = f"{PREFIX}STUDENT_MODEL_ENABLED"
MODEL_PATH: Final = f"{PREFIX}STUDENT_MODEL_PATH"
MODEL_PATHS: Final = f"{PREFIX}STUDENT_MODEL_PATHS"
PIN: Final = f"{PREFIX}STUDENT_MODEL_VERSION"

_WAIT_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.01
_LEFTOVER: Final = ".sqkit.tmp"

# --- what is to be set


def environment_lines(settings: Settings, slot: Slot, release_version: str, enable: bool) -> list[str]:
    """The lines to set once a release is live in a slot, as an env file and a shell take them.

    Parameters
    ----------
    release_version
        What the default slot is pinned to; empty for no pin. Other slots have no pin.
    enable
        Whether scoring is to be enabled; it is never disabled here.

    Raises
    ------
    SettingsError
        A path has characters that no env file can hold.
    """
    if slot.name == "default":
        wanted = {MODEL_PATH: settings.student_model_path, PIN: release_version}
    else:
        paths = json.dumps(settings.student_model_paths, ensure_ascii=False, sort_keys=True)
        wanted = {MODEL_PATHS: paths}
    if enable:
        wanted[ENABLED] = "true"
    return [f"{name}={quoted(name, value)}" for name, value in wanted.items()]


# --- the pin


class _Pin(NamedTuple):
    said: str
    remedy: str


def pin_problem(
    settings: Settings,
    slot: Slot,
    version: str,
    env_file: str | Path | None,
    environ: Mapping[str, str],
    *,
    root: Path = Path(),
) -> PinBlocks | None:
    """Why a known pin would keep an engine from serving this version; None where none would.

    Parameters
    ----------
    version
        Of the release that is to go live.
    env_file
        The file that is rewritten in the same step, relative to `root`; a pin in it blocks nothing.
    environ
        The process environment, which is stronger than any file.
    """
    pin = _pin_in_the_way(settings, slot, version, env_file, environ, root)
    if pin is None:
        return None
    return PinBlocks(
        f"{pin.said}: an engine with this pin refuses version {version}; {pin.remedy}",
        pin=settings.student_model_version,
        version=version,
    )


def pin_after_rollback(
    settings: Settings,
    slot: Slot,
    version: str,
    env_file: str | Path | None,
    environ: Mapping[str, str],
    *,
    root: Path = Path(),
) -> str:
    """One line on a pin that a rollback to this version overrides; empty where none stands against it.

    `version` is empty for an unmanaged release and for no student.
    """
    pin = _pin_in_the_way(settings, slot, version, env_file, environ, root)
    return f"{pin.said}: overridden by this rollback; set {PIN}={version} there" if pin else ""


def _pin_in_the_way(
    settings: Settings,
    slot: Slot,
    version: str,
    env_file: str | Path | None,
    environ: Mapping[str, str],
    root: Path,
) -> _Pin | None:
    """The known pin that stays as it is and names another version, and how to change it."""
    pin, known = settings.student_model_version, Path(str(settings.model_config.get("env_file")))
    if slot.name != "default" or pin in ("", version):
        return None
    if any(name.upper() == PIN and value for name, value in environ.items()):
        return _Pin(
            f"{PIN}={pin} is set in the process environment, which no env file can change",
            f"unset it there, or set it to {version}, and run again",
        )
    rewritten = None if env_file is None else Path(os.path.realpath(root / env_file))
    if _pinned_in(known) and Path(os.path.realpath(known)) != rewritten:
        instead = f", not {env_file}" if env_file else ""
        return _Pin(
            f"{PIN}={pin} stands in {known}",
            f"give --env-file {known}{instead}, or change that line yourself, and run again",
        )
    if rewritten is not None and _pinned_in(rewritten):
        return None
    return _Pin(f"student_model_version={pin!r} was given to Settings itself", "build Settings without it")


def _pinned_in(path: Path) -> bool:
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return any(name.upper() == PIN and value for name, value in values_in(text).items())


# --- the file


def env_path(root: Path, file: str | Path) -> Path:
    """Where an env file lies; it must lie in the project, and so must what a symlink there leads to.

    Raises
    ------
    UsageError
        It leads outside the project.
    """
    return inside(root, Path(file))


def require_rewritable(path: Path, lines: Sequence[str]) -> None:
    """Refuse, as `rewrite` would, an env file that cannot be changed; nothing is written.

    Raises
    ------
    OutputError
        As `rewrite`.
    """
    target = _target(path)
    changed(_read(target, path), lines, path)


def rewrite(path: Path, lines: Sequence[str]) -> None:
    """Set variables in an env file, atomically; everything else in it stays to the byte.

    Mode, owner and extended attributes stay too; see `sqkit.production.env_text.changed` for the text.
    A new file is for its owner alone. Of a symlink the target is changed.

    Parameters
    ----------
    lines
        As from `environment_lines`.

    Raises
    ------
    OutputError
        It cannot be written, or cannot be read as an env file; it is as it was.
    ConflictError
        Another process has been changing it for too long.
    """
    target = _target(path)
    with output_errors(path), _alone(target.parent, path):
        old = _read(target, path)
        new = changed(old, lines, path)
        for leftover in target.parent.glob(glob.escape(f".{target.name}.") + "*" + _LEFTOVER):
            leftover.unlink(missing_ok=True)  # of a process that was killed: nobody else is writing now
        if new != old:
            _replace(target, new, path)


def _target(path: Path) -> Path:
    """The file itself, behind any symlink; what is no file, or in no folder to write in, is refused."""
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise OutputError(f"{path}: its folder does not exist; make it or give another file", path=str(path))
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise OutputError(
            f"{path}: no permission to write in its folder; change its rights or give another file",
            path=str(path),
        )
    if target.is_symlink() or (target.exists() and not target.is_file()):
        raise OutputError(f"{path}: is no file; give the path of an env file", path=str(path))
    return target


def _read(target: Path, path: Path) -> str:
    try:
        text = target.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return ""
    except OSError as problem:
        raise OutputError(
            f"{path}: cannot be read ({problem.strerror}); correct its rights", path=str(path)
        ) from None
    except UnicodeDecodeError:
        raise OutputError(
            f"{path}: is not UTF-8, so no settings can be read from it; store it as UTF-8", path=str(path)
        ) from None
    if not os.access(target, os.W_OK):
        raise OutputError(
            f"{path}: is read-only for this account; change its rights or give another file", path=str(path)
        )
    return text


@contextlib.contextmanager
def _alone(folder: Path, path: Path) -> Iterator[None]:
    """Hold a folder for one change: two slots may share an env file. Leaves no lock file in it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        until = time.monotonic() + _WAIT_SECONDS
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise ConflictError(
                        f"{path}: another process has held {folder} for {_WAIT_SECONDS:g} seconds; wait for it and "
                        "run again",
                        path=str(path),
                    ) from None
                time.sleep(_POLL_SECONDS)
            except OSError:  # a file system that locks no folders
                break
        yield
    finally:
        os.close(handle)


def _replace(target: Path, text: str, path: Path) -> None:
    """Put a new file in the target's place, with its rights from the moment that it has its content."""
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=_LEFTOVER, dir=target.parent)
    temporary = Path(name)  # readable by its owner alone
    try:
        with open(handle, "wb") as stream:
            if target.exists():
                _take_rights(target, stream.fileno(), temporary, path)
            stream.write(text.encode("utf-8"))
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
        fsync_folder(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _take_rights(target: Path, handle: int, temporary: Path, path: Path) -> None:
    old, new = target.stat(), os.fstat(handle)
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        try:
            os.fchown(handle, old.st_uid, old.st_gid)
        except PermissionError:
            raise OutputError(
                f"{path}: belongs to another account or group, and would not any more; set the lines as its owner",
                path=str(path),
            ) from None
    shutil.copystat(target, temporary)
