"""A warm process whose forked children change production, and are killed, or find the disk full, on the way.

`Warm` starts it once for a test file and has it run functions of that file: a function forks as many
children as it likes, at a few milliseconds each, because everything is imported already. The process has
one thread, so that forking is safe.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import BuiltinFunctionType, FrameType, TracebackType
from typing import Any, Final, Self

PROJECT: Final = Path(__file__).resolve().parents[1]
_ONE_THREAD: Final = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class JobFailed(AssertionError):
    """What a job raised in the warm process, with its traceback."""


class Warm:
    """The process, for a test; a context manager.

    Parameters
    ----------
    prefix
        A command that starts it, such as one that takes away rights.
    """

    def __init__(self, prefix: Sequence[str] = ()) -> None:
        self._prefix = prefix

    def __enter__(self) -> Self:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SENSEQUANT_")}
        kept.pop("SOURCE_DATE_EPOCH", None)
        self._process = subprocess.Popen(
            [*self._prefix, sys.executable, "-c", "from tests.crash_driver import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=PROJECT,
            env=kept | _ONE_THREAD,
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, value: Any, trace: TracebackType | None) -> None:
        self._process.communicate()

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a function of a test module there; its value, as JSON brings it back.

        Raises
        ------
        JobFailed
            It raised.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        words = [value.as_posix() if isinstance(value, Path) else value for value in arguments]
        job = {"module": function.__module__, "name": function.__name__, "arguments": words}
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise JobFailed("the warm process ended")
        reply = json.loads(line)
        if reply["failure"]:
            raise JobFailed(reply["failure"])
        return reply["value"]


@contextlib.contextmanager
def quick_folder() -> Iterator[Path]:
    """A scratch folder in memory where there is one: a kill loses nothing there that it keeps on a disk."""
    memory = Path("/dev/shm")
    place = memory if memory.is_dir() and os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="sqkit-crash-", dir=place) as folder:
        yield Path(folder)


# --- children


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes
    ----------
    signal
        Which killed it; 0 where none did.
    value
        What its function returned.
    error, message, exit_code
        Class, line and exit code of what sqkit refused with; empty where it refused nothing.
    """

    signal: int = 0
    value: Any = None
    error: str = ""
    message: str = ""
    exit_code: int = 0

    @property
    def killed(self) -> bool:
        """Whether a signal ended it."""
        return self.signal != 0


@dataclass
class Child:
    """A forked process that runs one function."""

    pid: int
    _reports: int

    def wait(self) -> Ended:
        """Wait for its end; an error that is none of sqkit's is raised here."""
        with open(self._reports, "rb") as stream:
            report = stream.read()
        status = os.waitpid(self.pid, 0)[1]
        if os.WIFSIGNALED(status):
            return Ended(signal=os.WTERMSIG(status))
        reply = json.loads(report)
        if reply["failure"]:
            raise JobFailed(reply["failure"])
        return Ended(0, reply["value"], reply["error"], reply["message"], reply["exit_code"])

    def kill(self) -> None:
        """SIGKILL, from outside."""
        os.kill(self.pid, signal.SIGKILL)


def fork(function: Callable[..., Any], *arguments: Any) -> Child:
    """Run a function in a child; its value comes back as JSON."""
    reports, report = os.pipe()
    pid = os.fork()
    if pid:
        os.close(report)
        return Child(pid, reports)
    os.close(reports)
    reply = _reply_of(function, arguments)
    sys.setprofile(None)
    with open(report, "wb") as stream:
        stream.write(json.dumps(reply).encode())
    os._exit(0)


def ended(function: Callable[..., Any], *arguments: Any) -> Ended:
    """Run a function in a child and wait for its end."""
    return fork(function, *arguments).wait()


def _reply_of(function: Callable[..., Any], arguments: Any) -> dict[str, Any]:
    from sqkit.errors import SqkitError

    reply: dict[str, Any] = {"value": None, "failure": "", "error": "", "message": "", "exit_code": 0}
    try:
        reply["value"] = function(*arguments)
    except SqkitError as refusal:
        reply |= {"error": type(refusal).__name__, "message": str(refusal), "exit_code": refusal.exit_code}
    except OSError as problem:  # no refusal of sqkit's: it should have been one
        reply |= {"error": type(problem).__name__, "message": traceback.format_exc()[-900:]}
    except BaseException:  # noqa: BLE001 - a child never leaves this function
        reply["failure"] = traceback.format_exc()
    return reply


# --- points at which something happens to a child

_EVENTS: Final = {
    "os.rename": "rename",
    "os.remove": "remove",
    "os.mkdir": "mkdir",
    "os.rmdir": "rmdir",
    "os.chmod": "chmod",
    "os.truncate": "truncate",
}
_CALLS: Final = ("write", "flush", "fsync", "truncate")
_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass(frozen=True)
class Call:
    """One call that touches the disk: what it is called, the file, and where a rename leads."""

    name: str
    path: Path
    target: Path | None = None

    def __str__(self) -> str:
        return f"{self.name} {self.path.name}"

    def below(self, root: Path) -> bool:
        """Whether the file is a folder, or lies in it."""
        return root in (self.path, *self.path.parents)


@dataclass
class Points:
    """Every moment at which this process is about to change the disk, in order.

    What is about to open a file for writing, rename, remove or make something is told by the
    interpreter's audit events; `write`, `flush`, `fsync` and `truncate` of files by its profiler. Nothing of
    sqkit is replaced. Before one such call is after the one before it, so these are all there are.

    Attributes
    ----------
    act
        Called with the number of the point (from 0) before the call is made; it may kill the process or
        raise.
    calls
        What was seen.
    """

    act: Callable[[int, Call], None] = lambda number, call: None
    calls: list[Call] = field(default_factory=list)
    _acting: bool = False

    def watch(self) -> Self:
        """Begin; there is no end but that of the process."""
        sys.addaudithook(self._event)
        sys.setprofile(self._profile)
        return self

    def _event(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._acting:
            return
        if event == "open":
            path, _, flags = arguments
            if flags & _WRITING and not isinstance(path, int):
                self._reach("open", path)
        elif event == "os.rename":
            self._reach("rename", *arguments[:2])
        elif event in _EVENTS and not (event == "os.mkdir" and Path(arguments[0]).is_dir()):
            self._reach(_EVENTS[event], arguments[0])

    def _profile(self, frame: FrameType, event: str, function: Any) -> None:
        if event != "c_call" or not isinstance(function, BuiltinFunctionType):
            return
        if function.__name__ in _CALLS and isinstance(function.__self__, io.FileIO | io.BufferedWriter):
            self._reach(function.__name__, _open_file(function.__self__.fileno()))
        elif function.__name__ == "fsync":
            self._reach("fsync", _open_file(_flushed_in(frame)))

    def _reach(self, name: str, path: Any, target: Any = None) -> None:
        call = Call(name, Path(os.fsdecode(path)), None if target is None else Path(os.fsdecode(target)))
        self.calls.append(call)
        self._acting = True
        try:
            self.act(len(self.calls) - 1, call)
        except OSError:
            sys.setprofile(None)  # what raises in a profiler is not asked again; the audit hook goes on
            raise
        finally:
            self._acting = False


def _flushed_in(frame: FrameType) -> int:
    """The descriptor that a function is about to flush: it holds it as `stream` or as `handle`."""
    known = frame.f_locals
    return known["stream"].fileno() if "stream" in known else known["handle"]  # type: ignore[no-any-return]


def _open_file(handle: int) -> Path:
    return Path(f"/proc/self/fd/{handle}").readlink()


def die() -> None:
    """SIGKILL this very process."""
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at(point: int) -> Callable[[int, Call], None]:
    """What `Points` does to be killed at one point."""

    def act(number: int, call: Call) -> None:
        if number == point:
            die()

    return act


def fail_at(point: int, code: int) -> Callable[[int, Call], None]:
    """What `Points` does so that one call fails as the operating system would have it fail."""

    def act(number: int, call: Call) -> None:
        if number == point:
            raise OSError(code, os.strerror(code), str(call.path))

    return act


def limit_file_size(size: int, *, fatal: bool) -> None:
    """No file of this process grows beyond `size`: what crosses it is cut there, and fails or is killed."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL if fatal else signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


# --- trees


def copied(source: Path, target: Path) -> Path:
    """A copy of a tree, in the place of what is there."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, symlinks=True)
    return target


def tree(root: Path) -> dict[str, str]:
    """Every file and folder below a root but locks: its relative path to mode and SHA-256."""
    from sqkit.files import sha256_file

    found = {}
    for folder, folders, names in os.walk(root):
        for name in folders:
            found[Path(folder, name).relative_to(root).as_posix()] = "folder"
        for name in names:
            path = Path(folder, name)
            if not name.endswith(".lock"):
                mode = path.stat().st_mode & 0o777
                found[path.relative_to(root).as_posix()] = f"{mode:o} {sha256_file(path)}"
    return found


# --- the process itself


def serve() -> None:
    """Run jobs from standard input, each in a child, until it ends: what the warm process does."""
    importlib.import_module("tests.releases")
    for line in sys.stdin:
        job = json.loads(line)
        function = getattr(importlib.import_module(job["module"]), job["name"])
        try:
            done = ended(function, *job["arguments"])
            failure = f"{done.error or done.signal}: {done.message}" if done.error or done.killed else ""
        except JobFailed as problem:
            done, failure = Ended(), str(problem)
        print(json.dumps({"value": done.value, "failure": failure}), flush=True)
