"""Writing and naming files: atomic writes, canonical JSON, SHA-256, paths that stay inside.

Every file of sqkit is written here: to a temporary name beside the target, flushed to
disk, then renamed. A reader sees the old file or the new one, never half of either.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from sqkit.errors import ArtifactChanged, ConflictError, OutputError, UsageError

_SYMBOL = re.compile(r"^[A-Za-z0-9^][A-Za-z0-9&._=^+-]{0,63}$")


def canonical_json(value: Any, *, indent: int | None = 2) -> str:
    """Sorted keys, no NaN, one trailing newline: the same value gives the same bytes.

    Raises
    ------
    ValueError
        A number is not finite; JSON has no word for it.
    """
    separators = (",", ": ") if indent is not None else (",", ":")
    text = json.dumps(
        value, sort_keys=True, allow_nan=False, indent=indent, separators=separators, ensure_ascii=False
    )
    return text + "\n"


def read_json(path: Path) -> Any:
    """Parse a JSON file strictly: ``NaN`` and ``Infinity`` are refused.

    Raises
    ------
    ArtifactChanged
        The file is missing or is not strict JSON.
    """
    try:
        data = read_plain(path)
    except OSError as problem:
        raise ArtifactChanged(
            f"{path}: cannot be read ({problem.strerror}); run the step that writes it again", path=str(path)
        ) from None
    return parse_json(data, path)


def parse_json(data: bytes, place: Path) -> Any:
    """Parse JSON strictly: ``NaN``, ``Infinity`` and a key given twice are refused.

    Parameters
    ----------
    place
        Where the bytes come from, for the message.

    Raises
    ------
    ArtifactChanged
        It is not strict JSON.
    """
    try:
        return json.loads(
            data.decode("utf-8"), parse_constant=refuse_constant, object_pairs_hook=refuse_twins
        )
    except (ValueError, RecursionError) as problem:
        raise ArtifactChanged(
            f"{place}: not strict JSON ({problem}); write it again", path=str(place)
        ) from None


def refuse_constant(name: str) -> Any:
    """For `json.loads`: NaN and the infinities are no numbers (ValueError)."""
    raise ValueError(f"{name} is not a JSON number")


def refuse_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For `json.loads`: a key given twice is refused (ValueError)."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name} is given twice")
        found[name] = value
    return found


def sha256_bytes(data: bytes) -> str:
    """SHA-256 of bytes, as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def open_plain(path: Path, *, follow: bool = True) -> BinaryIO:
    """Open a plain file for reading; a pipe, a device or a folder in its place is an OSError, never a wait."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    handle = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "no plain file", str(path))
    return open(handle, "rb")


def read_plain(path: Path, *, follow: bool = True) -> bytes:
    """The bytes of a plain file; see `open_plain`."""
    with open_plain(path, follow=follow) as stream:
        return stream.read()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open_plain(path) as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_json(value: Any) -> str:
    """SHA-256 of a value's canonical JSON."""
    return sha256_bytes(canonical_json(value, indent=None).encode())


def sha256_columns(**columns: np.ndarray) -> str:
    """SHA-256 over named columns, independent of any file format.

    Integers count as int64 and floats as float64, little endian, in the order of the
    sorted names; a NaN has one bit pattern.
    """
    digest = hashlib.sha256()
    for name in sorted(columns):
        column = np.asarray(columns[name])
        if column.dtype.kind == "f":
            canonical = np.where(np.isnan(column), np.nan, column.astype("<f8"))
        elif column.dtype.kind in "iub":
            canonical = column.astype("<i8")
        else:
            raise TypeError(f"column {name}: {column.dtype} has no canonical form")
        digest.update(f"{name}:{canonical.dtype.str}:{canonical.size};".encode())
        digest.update(np.ascontiguousarray(canonical).tobytes())
    return digest.hexdigest()


@contextlib.contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn what the file system says while writing into one clear line."""
    try:
        yield
    except OSError as problem:
        reasons = {
            errno.ENOSPC: "the disk is full; free some space and run again",
            errno.EDQUOT: "the disk quota is used up; free some space and run again",
            errno.EFBIG: "the file size limit was reached; raise it (ulimit -f) and run again",
            errno.EACCES: "no permission to write here; choose another folder or change its rights",
            errno.EPERM: "no permission to write here; choose another folder or change its rights",
            errno.EIO: "the disk reports an error; check it and run again",
            errno.EROFS: "the file system is read-only; choose another folder",
            errno.EEXIST: "a file is in the way of this folder; choose another folder",
            errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
            errno.ENOENT: "the folder cannot be made here; choose another",
            errno.EISDIR: "a folder lies where a file belongs; move it away and run again",
            errno.ENOTEMPTY: "a folder lies where a file belongs; move it away and run again",
            errno.ELOOP: "is a symlink; put a file of its own there and run again",
            errno.ENXIO: "a pipe lies where a file belongs; move it away and run again",
            errno.ENOTDIR: "a part of this path is a file, not a folder; choose another folder",
        }
        if problem.errno not in reasons:
            raise
        where = problem.filename or path
        raise OutputError(
            f"{where}: {reasons[problem.errno]}", path=str(where), errno=problem.errno
        ) from None


def make_folder(path: Path) -> Path:
    """Create a folder and its parents; one clear line when that is not possible."""
    with output_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def fsync_folder(path: Path) -> None:
    """Flush a folder's entries, so that a rename inside it survives a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def temporaries(path: Path) -> list[Path]:
    """Unfinished writes of a file: of processes that write it now, or were killed while they did."""
    return sorted(path.parent.glob(f".{glob.escape(path.name)}.*.tmp"))


def write_bytes(path: Path, data: bytes, *, alone: bool = False) -> None:
    """Write a file atomically and durably.

    Parameters
    ----------
    alone
        The caller holds a lock under which alone this file is written: what killed processes left of
        earlier writes is removed.

    Raises
    ------
    OutputError
        The folder cannot be written or the disk is full; the old file, if any, is untouched.
    """
    make_folder(path.parent)
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
    try:
        with output_errors(path):
            for leftover in temporaries(path) if alone else ():
                leftover.unlink(missing_ok=True)
            with open(temporary, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)
            fsync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):  # on a read-only disk not even what is not there can be removed
            temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str, *, alone: bool = False) -> None:
    """`write_bytes` for UTF-8 text."""
    write_bytes(path, text.encode("utf-8"), alone=alone)


def write_json(path: Path, value: Any, *, alone: bool = False) -> None:
    """`write_bytes` for canonical JSON."""
    write_text(path, canonical_json(value), alone=alone)


@contextlib.contextmanager
def exclusive(folder: Path, purpose: str, *, name: str = ".lock") -> Iterator[None]:
    """Hold a folder for one process; the operating system frees it when that process dies.

    Raises
    ------
    ConflictError
        Another process holds it.
    """
    made = not folder.exists()
    lock = folder / name
    handle = lock_file(lock)
    if handle is None:
        raise ConflictError(
            f"{folder}: another process is busy here ({purpose}); wait for it and run again", path=str(folder)
        )
    try:
        yield
    finally:
        if made and list(folder.iterdir()) == [lock]:  # nothing came of it: leave no empty folder
            lock.unlink()
            with contextlib.suppress(OSError):  # somebody else has begun here meanwhile
                folder.rmdir()
        os.close(handle)


def lock_file(lock: Path) -> int | None:
    """A handle that holds the lock file which lies there; None where another process holds it."""
    while True:
        with output_errors(lock.parent):
            try:
                lock.parent.mkdir(parents=True, exist_ok=True)
            except FileExistsError:
                if _in_the_way(lock.parent):
                    raise
                continue  # its holder removed the folder while we looked at it
        with output_errors(lock):
            try:
                handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_NOFOLLOW, 0o644)
            except FileNotFoundError:  # its holder removed the folder before we made the file
                continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        try:
            if os.path.samestat(os.fstat(handle), lock.stat()):
                return handle
        except FileNotFoundError:  # its holder removed it between our opening and locking it
            pass
        os.close(handle)


def _in_the_way(folder: Path) -> bool:
    """Whether something lies there that is no folder; asked of one answer, so nothing comes between."""
    try:
        mode = folder.lstat().st_mode
    except FileNotFoundError:
        return False
    return not stat.S_ISDIR(mode) and not folder.is_dir()


@contextlib.contextmanager
def staging_folder(beside: Path) -> Iterator[Path]:
    """A scratch folder on the same file system as `beside`, removed at the end whatever happens."""
    make_folder(beside.parent)
    with output_errors(beside):
        folder = Path(tempfile.mkdtemp(prefix=f".{beside.name}.", suffix=".staging", dir=beside.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(source: Path, target: Path) -> None:
    """Rename a finished file or folder to its final name; an existing target is replaced.

    A folder cannot be replaced in one step by POSIX, so an existing folder is first moved
    aside, and moved back should the second rename fail.
    """
    make_folder(target.parent)
    aside = target.parent / f".{target.name}.{os.getpid()}.old"
    with output_errors(target):
        for path in [source, *sorted(source.rglob("*"))] if source.is_dir() else [source]:
            if path.is_file():
                with open(path, "rb") as stream:
                    os.fsync(stream.fileno())
        if source.is_dir() and target.exists():
            os.replace(target, aside)
        try:
            os.replace(source, target)
        except OSError:
            if aside.exists():
                os.replace(aside, target)
            raise
        fsync_folder(target.parent)
    if aside.exists():
        shutil.rmtree(aside, ignore_errors=True)


def symbol_file_name(symbol: str, suffix: str = ".parquet") -> str:
    """The file name of a symbol; a symbol that could leave its folder is refused.

    Raises
    ------
    UsageError
        The symbol has characters that do not belong into a file name.
    """
    if not _SYMBOL.match(symbol) or ".." in symbol:
        raise UsageError(
            f"symbol {symbol[:80]!r}: at most 64 letters, digits and & . _ = ^ + -, starting with a letter or digit",
            symbol=symbol,
        )
    return symbol + suffix


def inside(root: Path, path: Path) -> Path:
    """Resolve `path` below `root`; a path that leaves it, also by a symlink, is refused.

    Raises
    ------
    UsageError
        The path leads outside.
    """
    base, full = root.resolve(), (root / path).resolve()
    if full != base and base not in full.parents:
        raise UsageError(
            f"{path}: leads outside {root}; give a path inside it", path=str(path), root=str(root)
        )
    return full
