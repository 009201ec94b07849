"""The halt flag as an engine reads it: never an error, never a wait, and in doubt the strictest level."""

from __future__ import annotations

import errno
import json
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqkit.errors import OutputError
from sqkit.production.audit import AuditLog
from sqkit.production.halt_watch import HaltWatch
from sqkit.production.halting import (
    HALT_LEVELS,
    MEANING,
    NO_NEW_ENTRIES,
    STUDENT_OFF,
    Halt,
    read_halt,
    read_level,
    stricter,
    sure_level,
    write_flag,
)
from tests.crash_driver import Points, Warm, ended, fail_at, limit_file_size
from tests.releases import ASHA

AT = "2025-04-02T17:00:00Z"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where a flag lies, or will."""
    return tmp_path / "production/halt.json"


def flag(level: str = STUDENT_OFF, reason: str = "feed") -> dict[str, Any]:
    """A flag as it is written."""
    return {"at": AT, "by": ASHA.to_dict(), "level": level, "reason": reason}


def lay(place: Path, data: bytes | str) -> Path:
    """Somebody else writes a flag."""
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(data.encode() if isinstance(data, str) else data)
    return place


# --- what is read


@pytest.mark.parametrize("level", HALT_LEVELS)
def test_what_is_written_is_read_back(place: Path, level: str) -> None:
    """Level, instant, name and reason."""
    assert write_flag(place, flag(level)) == ""
    assert read_level(place) == sure_level(place) == level
    assert read_halt(place) == Halt(level, AT, "Asha", "feed")


def test_without_a_flag_nothing_is_halted(place: Path, tmp_path: Path) -> None:
    """No flag, no folder, or a file where the folder should be."""
    assert read_level(place) is None
    place.parent.mkdir()
    assert read_level(place) is None
    (tmp_path / "file").touch()
    assert read_level(tmp_path / "file/halt.json") is None
    assert read_halt(place) is None
    assert sure_level(place) is None


@pytest.mark.parametrize(
    "data",
    [
        *("", " ", "\n", "{", "{}", "[]", "null", "0", '"student_off"', "student_off", "\0" * 100),
        *('{"level": null}', '{"level": 1}', '{"level": ["student_off"]}', '{"level": {"student_off": 1}}'),
        *(
            '{"level": ""}',
            '{"level": "STUDENT_OFF"}',
            '{"level": "student_off "}',
            '{"level": "later_level"}',
        ),
        *(
            '{"at": "2025-04-02T17:00:00Z", "reason": "feed"}',
            '{"level": "student_off"',
            '{"level": "student_off"}x',
        ),
        *('{"level": "no_new_entries", "level": "student_off"}', '{"level": "student_off", "at": NaN}'),
        *("[" * 100_000, '{"level": ' + "9" * 10_000 + "}", '\ufeff{"level": "student_off"}'),
        *(b"\xff\xfe", b'{"level": "student_off", "reason": "\xff"}'),
        '{"reason": "' + "x" * (2 << 20) + '", "level": "student_off"}',
    ],
    ids=lambda data: repr(data)[:40],
)
def test_what_says_no_known_level_halts_at_the_strictest(place: Path, data: bytes | str) -> None:
    """Empty, torn, not JSON, of another version, too long: it was meant to halt."""
    assert read_level(lay(place, data)) == NO_NEW_ENTRIES
    halted = read_halt(place)
    assert halted is not None
    assert halted.level == sure_level(place) == NO_NEW_ENTRIES


@given(st.binary(max_size=200))
def test_whatever_bytes_lie_there_it_halts(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """No bytes are an error, and none are no halt."""
    place = tmp_path_factory.getbasetemp() / "any-flag.json"
    place.write_bytes(data)

    assert read_level(place) == NO_NEW_ENTRIES


@given(st.data())
def test_every_torn_flag_halts_at_the_strictest(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    """However much of a flag reached the disk."""
    whole = json.dumps(flag()).encode()
    place = tmp_path_factory.getbasetemp() / "torn-flag.json"
    place.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])

    assert read_level(place) == NO_NEW_ENTRIES


@pytest.mark.parametrize(
    "said",
    [
        {"level": STUDENT_OFF},
        {"level": STUDENT_OFF, "at": 5, "by": "Asha", "reason": ["feed"]},
        {"level": STUDENT_OFF, "by": {"name": None}, "more": 1},
    ],
)
def test_a_flag_written_by_hand_needs_its_level_alone(place: Path, said: dict[str, Any]) -> None:
    """What else it should say is empty, and what nobody knows is left aside."""
    assert read_halt(lay(place, json.dumps(said))) == Halt(STUDENT_OFF, "", "", "")


def test_words_of_a_flag_are_one_line(place: Path) -> None:
    """A terminal is not commanded by a file."""
    lay(place, json.dumps(flag(reason="feed\n\x1b[2Jgone")))

    assert read_halt(place) == Halt(STUDENT_OFF, AT, "Asha", "feed ?[2Jgone")


# --- what is no file


@pytest.fixture
def unix_socket(place: Path) -> Iterator[None]:
    """A socket in the flag's place."""
    place.parent.mkdir()
    here = Path.cwd()
    os.chdir(place.parent)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(place.name)
        os.chdir(here)
        yield


@pytest.mark.usefixtures("unix_socket")
def test_a_socket_halts(place: Path) -> None:
    """Nobody listens to it."""
    assert read_level(place) == NO_NEW_ENTRIES


@pytest.mark.parametrize(
    "what", ["pipe", "folder", "symlink", "dangling symlink", "symlink to itself", "device"]
)
def test_what_is_no_file_halts_at_once(place: Path, what: str) -> None:
    """Also a symlink to a sound flag: whoever may write there could take it back unseen."""
    place.parent.mkdir()
    if what == "pipe":
        os.mkfifo(place)
    elif what == "folder":
        place.mkdir()
    else:
        lay(place.with_name("other.json"), json.dumps(flag()))
        targets = {"symlink": "other.json", "symlink to itself": "halt.json", "device": "/dev/zero"}
        place.symlink_to(targets.get(what, "nowhere"))
    started = time.monotonic()

    assert read_level(place) == NO_NEW_ENTRIES
    assert read_halt(place) == Halt(NO_NEW_ENTRIES)
    assert sure_level(place) == NO_NEW_ENTRIES
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("closed", ["file", "folder"])
def test_a_flag_that_must_not_be_read_halts(place: Path, without_root_rights: list[str], closed: str) -> None:
    """Its own rights, or those of the folder, where nobody can know whether a flag lies in it; what is sure is less."""
    lay(place, json.dumps(flag()))
    locked = place if closed == "file" else place.parent
    locked.chmod(0)
    code = (
        "import sys; from pathlib import Path; from sqkit.production.halting import read_level, sure_level; "
        "place = Path(sys.argv[1]); print(read_level(place), sure_level(place))"
    )
    words = [*without_root_rights, sys.executable, "-c", code, str(place)]
    run = subprocess.run(words, capture_output=True, text=True, check=False)
    locked.chmod(0o755)

    sure = STUDENT_OFF if closed == "file" else None
    assert run.stdout.strip() == f"{NO_NEW_ENTRIES} {sure}", run.stderr


def test_a_process_without_free_handles_is_halted_by_a_flag_and_by_nothing_else(place: Path) -> None:
    """Where no file can be opened any more a flag still halts, and no flag still is none."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        assert read_level(place) is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    lay(place, json.dumps(flag()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        assert read_level(place) == NO_NEW_ENTRIES
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


# --- as an engine looks at it before every tick


def watched(place: Path) -> HaltWatch:
    """The watch of an engine, beside which there is no audit log."""
    return HaltWatch(place, AuditLog(place.parent), "default")


@pytest.mark.parametrize(
    "what", ["pipe", "folder", "symlink", "dangling symlink", "symlink to itself", "empty file", "torn file"]
)
def test_whatever_comes_to_lie_there_halts_a_running_engine(place: Path, what: str) -> None:
    """What `read_level` calls a halt is one at the next tick, and ends with it.

    Two symlinks that lead nowhere are seen by the look that an engine takes five times a second.
    """
    place.parent.mkdir()
    watch = watched(place)
    before = watch.level()
    unseen = what in ("dangling symlink", "symlink to itself")
    if what == "pipe":
        os.mkfifo(place)
    elif what == "folder":
        place.mkdir()
    elif "file" in what:
        lay(place, "" if what == "empty file" else json.dumps(flag())[:-5])
    else:
        lay(place.with_name("other.json"), json.dumps(flag()))
        place.symlink_to({"symlink": "other.json", "symlink to itself": "halt.json"}.get(what, "nowhere"))
    if unseen:
        watch.look()
    during = watch.level(), watch.level()
    place.rename(place.with_name("away"))
    if unseen:
        watch.look()

    assert (before, during, watch.level()) == (None, (NO_NEW_ENTRIES, NO_NEW_ENTRIES), None)


def test_a_flag_that_changes_is_read_again(place: Path) -> None:
    """Written anew, written over in its place with its old date, or made a symlink."""
    watch = watched(place)
    seen = []
    for level in (STUDENT_OFF, NO_NEW_ENTRIES, STUDENT_OFF):
        write_flag(place, flag(level))
        seen.append(watch.level())
    about = place.stat()
    place.write_text("")
    os.utime(place, ns=(about.st_atime_ns, about.st_mtime_ns))
    seen.append(watch.level())
    write_flag(place, flag())
    seen.append(watch.level())
    place.unlink()
    place.symlink_to("nowhere")
    watch.look()
    seen.append(watch.level())

    assert seen == [STUDENT_OFF, NO_NEW_ENTRIES, STUDENT_OFF, NO_NEW_ENTRIES, STUDENT_OFF, NO_NEW_ENTRIES]


def test_of_flag_and_log_the_stricter_one_holds_a_running_engine(place: Path) -> None:
    """Either is enough; the log stays where the flag is gone."""
    watch = watched(place)
    watch.logged = STUDENT_OFF
    seen = [watch.level()]
    write_flag(place, flag(NO_NEW_ENTRIES))
    seen.append(watch.level())
    watch.logged = NO_NEW_ENTRIES
    write_flag(place, flag(STUDENT_OFF))
    seen.append(watch.level())
    place.unlink()
    seen.append(watch.level())

    assert seen == [STUDENT_OFF, *[NO_NEW_ENTRIES] * 3]


def test_a_folder_that_was_closed_halts_a_running_engine(place: Path, without_root_rights: list[str]) -> None:
    """Nobody can know whether a flag lies in it."""
    place.parent.mkdir()
    code = (
        "import sys; from pathlib import Path; from sqkit.production.audit import AuditLog; "
        "from sqkit.production.halt_watch import HaltWatch; place = Path(sys.argv[1]); "
        "print(HaltWatch(place, AuditLog(place.parent), 'default').level())"
    )
    words = [*without_root_rights, sys.executable, "-c", code, str(place)]
    place.parent.chmod(0)
    run = subprocess.run(words, capture_output=True, text=True, check=False)
    place.parent.chmod(0o755)

    assert run.stdout.strip() == NO_NEW_ENTRIES, run.stderr


# --- while it is written


def test_a_reader_sees_one_level_or_the_other(place: Path) -> None:
    """While a flag changes between two levels it is never torn, and never gone."""
    write_flag(place, flag())
    seen, stop = set(), threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.add(read_halt(place))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(200):
        write_flag(place, flag(HALT_LEVELS[number % 2]))
    stop.set()
    reader.join()

    assert seen <= {Halt(level, AT, "Asha", "feed") for level in HALT_LEVELS}


def test_a_flag_that_comes_and_goes_is_never_an_error(place: Path) -> None:
    """Resumed between looking and reading: no halt, and no error."""
    lay(place, json.dumps(flag()))
    seen, stop = set(), threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.add(read_level(place))

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(200):
        place.unlink()
        write_flag(place, flag())
    stop.set()
    reader.join()

    assert seen <= {None, STUDENT_OFF}


# --- where there is no room


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    """A process whose children find the disk full."""
    with Warm() as process:
        yield process


def write_without_room(place: str, level: str) -> dict[str, Any]:
    """Write a flag where no file may grow by a byte."""
    return vars(ended(_write_without_room, place, level))


def _write_without_room(place: str, level: str) -> str:
    limit_file_size(0, fatal=False)
    return write_flag(Path(place), flag(level))


@pytest.mark.parametrize("level", HALT_LEVELS)
def test_without_room_for_its_words_a_flag_is_empty(warm: Warm, place: Path, level: str) -> None:
    """Which halts at the strictest level; what is missing is said."""
    said = warm.run(write_without_room, place, level)

    assert place.read_bytes() == b""
    assert read_level(place) == NO_NEW_ENTRIES
    assert said["value"].endswith("until then the flag is empty, which means no_new_entries")
    assert "limit was reached" in said["value"]
    assert [path.name for path in place.parent.iterdir()] == [place.name]


@pytest.mark.parametrize(
    ("lying", "level", "left"),
    [
        (STUDENT_OFF, NO_NEW_ENTRIES, None),
        (NO_NEW_ENTRIES, STUDENT_OFF, NO_NEW_ENTRIES),
        (NO_NEW_ENTRIES, NO_NEW_ENTRIES, NO_NEW_ENTRIES),
        (STUDENT_OFF, STUDENT_OFF, STUDENT_OFF),
    ],
)
def test_a_flag_that_halts_far_enough_is_not_emptied(
    warm: Warm, place: Path, lying: str, level: str, left: str | None
) -> None:
    """Its words stay; only one that is too mild gives way to an empty one."""
    write_flag(place, flag(lying, "earlier"))
    said = warm.run(write_without_room, place, level)

    assert read_halt(place) == (Halt(NO_NEW_ENTRIES) if left is None else Halt(left, AT, "Asha", "earlier"))
    assert said["error"] == ("" if left is None else "OutputError")


def write_with_fault(place: str, point: int, code: int) -> dict[str, Any]:
    """Write a flag while one call fails."""
    return vars(ended(_write_with_fault, place, point, code))


def _write_with_fault(place: str, point: int, code: int) -> str:
    Points(fail_at(point, code)).watch()
    return write_flag(Path(place), flag())


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_whatever_call_finds_no_room_it_halts_or_is_refused(warm: Warm, place: Path, code: int) -> None:
    """Each call of the writing in turn: a flag lies there then, or the refusal says that none does."""
    place.parent.mkdir()
    points = 0
    while (said := warm.run(write_with_fault, place, points, code))["value"] != "":
        assert (read_level(place) is None) <= (said["error"] == "OutputError")
        assert said["error"] or read_level(place) == NO_NEW_ENTRIES
        place.unlink(missing_ok=True)
        points += 1

    assert points >= 4
    assert read_level(place) == STUDENT_OFF


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EIO])
def test_other_faults_are_refused_as_they_are(warm: Warm, place: Path, code: int) -> None:
    """An empty flag is for a disk without room."""
    place.parent.mkdir()
    said = warm.run(write_with_fault, place, 0, code)

    assert said["error"] == OutputError.__name__
    assert read_level(place) is None


# --- levels


def test_the_stricter_level_holds() -> None:
    """In either order; no halt is milder than any."""
    assert stricter(STUDENT_OFF, NO_NEW_ENTRIES) == stricter(NO_NEW_ENTRIES, STUDENT_OFF) == NO_NEW_ENTRIES
    assert stricter(None, STUDENT_OFF) == stricter(STUDENT_OFF, None) == STUDENT_OFF
    assert stricter(None, None) is None


def test_every_level_has_its_meaning() -> None:
    """For whoever is told of it."""
    assert set(MEANING) == set(HALT_LEVELS)


def test_reading_a_flag_loads_nothing_heavy() -> None:
    """An engine imports it before anything else."""
    code = "import sys, sqkit.production.halting; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in run.stdout.split()}

    assert not loaded & {"numba", "onnxruntime", "pandas", "scipy", "sklearn", "cyclopts"}
