"""The disk under a promotion: in which order things reach it, and what happens when it is cut off, full or read-only.

The calls of real promotions and rollbacks are recorded; from them follows what a power cut would leave,
which is built and judged like a kill. Faults are those of the operating system wherever it can be made to
give them: a full tmpfs, a file size limit, folders without rights; each single call is also made to fail.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from sqkit.artifacts import ARCHIVE_FOLDER, RELEASE_FILE, STUDENT_FILE
from sqkit.audit_log import AUDIT_FILE, UNMANAGED
from sqkit.production.archive import SET_ASIDE
from tests.crash_driver import (
    Call,
    Ended,
    Points,
    Warm,
    copied,
    die,
    ended,
    fail_at,
    limit_file_size,
    quick_folder,
)
from tests.crash_ground import CHANGES, ENV_FILE, HALTING, Ground, Project, difference, files_of, project_of

LOG: Final = f"data/models/{AUDIT_FILE}"
PRODUCTION: Final = "data/models/production"
PAGE: Final = 4096


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    """A process in which everything is imported."""
    with Warm() as process:
        yield process


# --- in which order things reach the disk


def record(name: str) -> list[list[str]]:
    """Every call that a change makes on files of the project: its name, the path, and where a rename leads."""
    with quick_folder() as folder:
        calls = ended(_recorded, Ground(name, folder)).value
        return [call for call in calls if Path(call[1]).parts[:1] != ("..",)]


def _recorded(ground: Ground) -> list[list[str]]:
    root, points = ground.fresh(), Points()
    points.watch()
    ground.made(root)
    return _relative(points.calls, root)


def _relative(calls: Sequence[Call], root: Path) -> list[list[str]]:
    return [
        [call.name, *(os.path.relpath(path, root) for path in (call.path, call.target) if path is not None)]
        for call in calls
    ]


def _before(calls: Sequence[Sequence[str]], first: Sequence[str], then: Sequence[str]) -> bool:
    """Whether a call is made, and another one at some time after it."""
    return list(first) in calls and list(then) in calls[calls.index(list(first)) :]


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_renamed_was_flushed_before_and_its_folder_is_flushed_after(warm: Warm, name: str) -> None:
    """A name never stands for bytes that are not on the disk, and the next thing is begun when the name is."""
    calls = warm.run(record, name)

    for number, call in enumerate(calls):
        if (
            call[0] == "rename" and SET_ASIDE not in call[2]
        ):  # what is set aside was flushed when it was stored
            before, after, (_, source, target) = calls[:number], calls[number + 1 :], call
            written = max(
                (n for n, one in enumerate(before) if one[0] in ("write", "flush") and one[1] == source),
                default=-1,
            )
            assert ["fsync", source] in before[written + 1 :], f"{source} is renamed and was not flushed"
            assert after[0] == ["fsync", str(Path(target).parent)], (
                f"{target}: its folder is not flushed at once"
            )


@pytest.mark.parametrize("name", CHANGES)
def test_every_byte_that_is_written_is_flushed(warm: Warm, name: str) -> None:
    """After the last write to a file comes a flush of that file to the disk."""
    calls = warm.run(record, name)

    for number, (said, path, *_) in enumerate(calls):
        if said in ("write", "truncate"):
            assert ["fsync", path] in calls[number:], f"{path} is written and never flushed"


def test_a_promotion_reaches_the_disk_in_its_order(warm: Warm) -> None:
    """Archived files, their folder's name, the audit line, the seal, the record, the model; each flushed before the next."""
    calls = warm.run(record, "promotion")
    folder = next(call[2] for call in calls if call[0] == "rename" and call[1].endswith(".staging"))
    staging = f"{Path(folder).parent}/.{Path(folder).name}.staging"
    line = calls.index(["write", LOG])

    for file in (STUDENT_FILE, "approvals.json", "manifest.json", "promotion_checklist.json"):
        assert any(call[0] == "rename" and call[2] == f"{staging}/{file}" for call in calls[:line]), file
    assert _before(calls[:line], ["fsync", staging], ["rename", staging, folder])
    assert calls[line - 4 : line].count(["fsync", str(Path(folder).parent)]) == 1
    assert calls[line + 1 : line + 3] == [["fsync", LOG], ["fsync", "data/models"]]
    renamed = [call[2] for call in calls[line:] if call[0] == "rename"]
    assert renamed == [
        "data/models/audit.head",
        f"{folder}/{RELEASE_FILE}",
        f"{PRODUCTION}/{RELEASE_FILE}",
        f"{PRODUCTION}/{STUDENT_FILE}",
    ]


def test_a_rollback_reaches_the_disk_in_its_order(warm: Warm) -> None:
    """The audit line, the record, the model; each flushed before the next."""
    calls = warm.run(record, "rollback")
    line = calls.index(["write", LOG])

    assert calls[line + 1 : line + 3] == [["fsync", LOG], ["fsync", "data/models"]]
    assert not [call for call in calls[:line] if call[0] == "rename"]
    assert [call[2] for call in calls[line:] if call[0] == "rename"] == [
        "data/models/audit.head",
        f"{PRODUCTION}/{RELEASE_FILE}",
        f"{PRODUCTION}/{STUDENT_FILE}",
    ]


def test_an_env_file_is_rewritten_before_the_record_says_that_it_is_done(warm: Warm) -> None:
    """A crash between the two writes it again; a crash after the record never does."""
    calls = warm.run(record, "promotion with an env file")
    renamed = [call[2] for call in calls if call[0] == "rename"]

    assert renamed.index(ENV_FILE) < renamed.index(f"{PRODUCTION}/{RELEASE_FILE}")


def record_recovery() -> list[list[str]]:
    """The calls of a recovery after a kill between the writing of an audit line and its flush."""
    with quick_folder() as folder:
        ground = Ground("promotion", folder)
        assert ended(_killed_before_flush, ground).killed
        return ended(_calls_of_recovery, ground.here).value  # type: ignore[no-any-return]


def _killed_before_flush(ground: Ground) -> None:
    root = ground.fresh()

    def act(number: int, call: Call) -> None:
        if call.name == "fsync" and call.path.name == AUDIT_FILE:
            die()

    Points(act).watch()
    ground.made(root)


def _calls_of_recovery(root: Path) -> list[list[str]]:
    points = Points().watch()
    project_of(CHANGES["promotion"], root).recover()
    return _relative(points.calls, root)


def test_what_a_recovery_builds_on_is_flushed_first(warm: Warm) -> None:
    """A line that was written, but by a process killed before it was on the disk, is flushed before it is acted on."""
    calls = warm.run(record_recovery)

    assert calls.index(["fsync", LOG]) < next(n for n, call in enumerate(calls) if call[0] == "rename")


# --- the power is cut


class Disk:
    """What of a tree is on the disk for sure: what was flushed, of files and of folders.

    Inodes are held open, so that no other file gets the number of one that was removed.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._bytes: dict[int, bytes] = {}
        self._names: dict[int, dict[str, tuple[int, bool]]] = {}
        self._held: dict[int, int] = {}
        for folder, _, names in os.walk(root):
            for name in names:
                self.flushed(Path(folder, name))
            self.flushed(Path(folder))

    def flushed(self, path: Path) -> None:
        """A file, or a folder with the names in it, is on the disk as it is now."""
        handle = os.open(path, os.O_RDONLY)
        inode = os.fstat(handle).st_ino
        self._held[inode] = handle
        if path.is_dir():
            self._names[inode] = {entry.name: (entry.inode(), entry.is_dir()) for entry in os.scandir(path)}
        else:
            self._bytes[inode] = path.read_bytes()

    def nothing_else(self, target: Path) -> Path:
        """What a power cut leaves where nothing that was not flushed survives."""
        shutil.rmtree(target, ignore_errors=True)
        self._rebuild(self.root.stat().st_ino, target)
        return target

    def _rebuild(self, folder: int, target: Path) -> None:
        target.mkdir()
        for name, (inode, is_folder) in self._names.get(folder, {}).items():
            if is_folder:
                self._rebuild(inode, target / name)
            else:
                self._write(target / name, inode)

    def _write(self, place: Path, inode: int) -> None:
        place.write_bytes(self._bytes.get(inode, b""))
        if inode in self._held:
            place.chmod(os.fstat(self._held[inode]).st_mode & 0o777)

    def names_only(self, target: Path) -> Path:
        """What it leaves where every name survives, but no byte that was not flushed."""
        shutil.rmtree(target, ignore_errors=True)
        for folder, _, names in os.walk(self.root):
            place = target / Path(folder).relative_to(self.root)
            place.mkdir()
            for name in names:
                self._write(place / name, Path(folder, name).stat().st_ino)
        return target


def cut_power_everywhere(name: str) -> dict[str, Any]:
    """Build and judge what a power cut before each call of a change leaves, at worst."""
    with quick_folder() as folder:
        ground, left = Ground(name, folder), folder / "left"
        left.mkdir()
        cuts = ended(_cut, ground, left).value
        judged = set()
        for number, said in cuts.items():
            for kind in ("nothing else", "names only"):
                state = frozenset(files_of(left / f"{number} {kind}").items())
                if state in judged:
                    continue
                judged.add(state)
                copied(left / f"{number} {kind}", ground.here)
                ground.judge(f"by a power cut (survives: {kind}) before call {number}, {said}")
        copied(left / "end", ground.here)
        kept, made = _without_modes(files_of(ground.here)), _without_modes(ground.after)
        lost = [] if ground.same(kept, made) else difference(made, kept)
        if ground.change.timed and _changes(ground.here) == _changes(ground.before):
            lost.append(LOG)
        return {"kills": ground.kills, "wrong": ground.wrong, "lost": lost}


def _cut(ground: Ground, left: Path) -> dict[int, str]:
    root = ground.fresh()
    disk = Disk(root)

    def act(number: int, call: Call) -> None:
        if not call.below(root):
            return
        disk.nothing_else(left / f"{number} nothing else")
        disk.names_only(left / f"{number} names only")
        if call.name == "fsync":
            disk.flushed(call.path)

    points = Points(act).watch()
    ground.made(root)
    seen = {number: str(call) for number, call in enumerate(points.calls) if call.below(root)}
    disk.nothing_else(left / "end")
    return seen


def _without_modes(files: dict[str, str]) -> dict[str, str]:
    return {name: about.split()[-1] for name, about in files.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGES)
def test_a_power_cut_at_any_point_leaves_old_or_new_and_what_returned_is_kept(warm: Warm, name: str) -> None:
    """Only what was flushed survives, or every name but no other byte; what a command reported done is on the disk."""
    report = warm.run(cut_power_everywhere, name)

    print(f"{name}: {report['kills']} power cuts")
    assert report["wrong"] == []
    assert report["lost"] == []


# --- a call fails


def fail_everywhere(name: str, code: int) -> dict[str, Any]:
    """Let each call of a change fail, one at a time, and judge what it leaves and what it says."""
    with quick_folder() as folder:
        ground = Ground(name, folder)
        wrong = []
        for number in ground.disturbed:
            outcome = ended(_failing, ground, number, code)
            wrong += [
                f"{name}, call {number} ({ground.points[number]}) fails: {problem}"
                for problem in _after_failure(ground, outcome)
            ]
        return {"faults": len(ground.disturbed), "wrong": wrong}


def _failing(ground: Ground, point: int, code: int) -> list[str]:
    root = ground.fresh()
    Points(fail_at(point, code)).watch()
    return ground.made(root)


def _after_failure(ground: Ground, outcome: Ended) -> Iterator[str]:
    """Before its line counts nothing has changed; after it the refusal says so and recovery finishes."""
    left = files_of(ground.here)
    by_hand = (
        "by hand" in ground.name
    )  # what was copied there may be archived by now, which recovery finishes
    counted = _changes(ground.here) > _changes(ground.before)
    yield from ground.problems_of_a_reader()
    if outcome.error not in ("", "OutputError"):
        yield f"{outcome.error}: {outcome.message}"
    if ground.change.do in HALTING:
        pass
    elif not counted and left not in (files_of(ground.before), ground.settled) and not by_hand:
        yield f"it never counted, and changed {difference(ground.settled, left)}"
    elif not counted and not outcome.error:
        yield "it never counted, and nothing was said"
    elif counted and outcome.error and "counts already" not in outcome.message:
        yield f"it counts, which is not said: {outcome.message}"
    elif counted and not outcome.error and not ground.same(left, ground.after) and not outcome.value:
        yield f"nothing was said, and missing is {difference(ground.after, left)}"
    yield from ground.problems_of_recovery(left)
    yield from ground.problems_of_going_on()


def _changes(root: Path) -> int:
    """How many lines of the log, but for models that were found, and facts of a candidate's book count."""
    log = root / LOG
    lines = log.read_text().splitlines() if log.is_file() else []  # whole ones: nothing was killed
    counted = [line for line in lines if json.loads(line)["kind"] != UNMANAGED]
    return len(counted) + len(Project(root).book)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "code"),
    [
        *((name, errno.ENOSPC) for name in CHANGES if "recovery" not in name and "overwritten" not in name),
        ("promotion", errno.EROFS),
        ("rollback", errno.EROFS),
        ("promotion with an env file", errno.EIO),
    ],
)
def test_whatever_call_fails_nothing_has_changed_or_the_line_counts_and_says_so(
    warm: Warm, name: str, code: int
) -> None:
    """One clear line each time: before the audit line nothing has changed, after it recovery finishes."""
    report = warm.run(fail_everywhere, name, code)

    assert report["wrong"] == []
    assert report["faults"] > 5


# --- a disk that is really full, really read-only, and files that may not grow


@pytest.fixture(scope="module")
def mounting() -> Iterator[Warm]:
    """A process that can mount a file system, which nobody else sees."""
    for prefix in (["unshare", "--mount"], ["unshare", "--user", "--map-root-user", "--mount"]):
        try:
            run = subprocess.run(
                [*prefix, "mount", "-t", "tmpfs", "tmpfs", "/tmp"],
                capture_output=True,
                check=False,
                timeout=20,
            )
        except OSError:
            continue
        if run.returncode == 0:
            with Warm(prefix) as process:
                yield process
            return
    pytest.skip(
        "no file system can be mounted here: neither root nor user namespaces, or no unshare (util-linux)"
    )


def fill_the_disk(name: str, mount_at: str) -> dict[str, Any]:
    """Make a change on a small disk of its own that is full after one page, two pages, and so on."""
    root = Path(mount_at)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", mount_at], check=True)
    with quick_folder() as folder:
        ground = Ground(name, folder)
        ground.here = root / "here"
        wrong, refused, free = [], 0, 0
        while True:
            (root / "ballast").unlink(missing_ok=True)
            ground.fresh()
            _leave_free(root, free)
            outcome = ended(ground.made, ground.here)
            (root / "ballast").unlink()
            wrong += [f"{name}, {free} pages free: {said}" for said in _after_failure(ground, outcome)]
            refused += bool(outcome.error)
            if not outcome.error and not outcome.value:
                return {"wrong": wrong, "refused": refused}
            free += 1


def _leave_free(root: Path, pages: int) -> None:
    about = os.statvfs(root)
    with open(root / "ballast", "wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, (about.f_bavail - pages) * about.f_frsize)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["first promotion", "promotion", "rollback", "halt", "halt at another level"]
)
def test_on_a_disk_that_is_really_full_the_same_holds(mounting: Warm, tmp_path: Path, name: str) -> None:
    """One free page more each time, until the change goes through: refused in one line, and nothing is lost."""
    report = mounting.run(fill_the_disk, name, tmp_path)

    assert report["wrong"] == []
    assert report["refused"] > 0 or "halt" in name  # of which one half is enough


def limit_files(name: str) -> dict[str, Any]:
    """Make a change where no file may grow beyond a size, for every size at which a file of it ends or begins."""
    with quick_folder() as folder:
        ground = Ground(name, folder)
        begins, ends = (ground.before / LOG).stat().st_size, ground.sizes[LOG]
        sizes = {
            0,
            1,
            *(size - 1 for size in ground.sizes.values()),
            *range(begins, ends, (ends - begins) // 8),
        }
        wrong = []
        for size in sorted(sizes):
            outcome = ended(_limited, ground, size)
            wrong += [f"{name}, {size} bytes a file: {said}" for said in _after_failure(ground, outcome)]
        return {"wrong": wrong, "sizes": len(sizes)}


def _limited(ground: Ground, size: int) -> list[str]:
    root = ground.fresh()
    limit_file_size(size, fatal=False)
    return ground.made(root)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["promotion", "rollback", "halt", "halt at another level"])
def test_where_files_may_not_grow_the_same_holds(warm: Warm, name: str) -> None:
    """With a real file size limit writes are cut short and fail."""
    report = warm.run(limit_files, name)

    assert report["wrong"] == []
    assert report["sizes"] > 8


def deny(name: str, place: str) -> list[str]:
    """Make a change where one folder or file may not be written."""
    with quick_folder() as folder:
        ground = Ground(name, folder)
        root = ground.fresh()
        locked = root / place
        mode = locked.stat().st_mode
        locked.chmod(mode & 0o555)
        outcome = ended(ground.made, root)
        locked.chmod(mode)
        silent = [] if outcome.error or outcome.value else [f"{name}, {place} is read-only: nothing is said"]
        return [*silent, *_after_failure(ground, outcome)]


@pytest.fixture(scope="module")
def without_rights(without_root_rights: list[str]) -> Iterator[Warm]:
    """A process for which the rights of files and folders count."""
    with Warm(without_root_rights) as process:
        yield process


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("promotion", "data/models"),
        ("promotion", f"data/models/{ARCHIVE_FOLDER}"),
        ("promotion", LOG),
        ("promotion", PRODUCTION),
        ("rollback", "data/models"),
        ("rollback", LOG),
        ("rollback", PRODUCTION),
    ],
)
def test_without_the_right_to_write_the_same_holds(without_rights: Warm, name: str, place: str) -> None:
    """A folder, or the log, that is read-only for this account is one clear line."""
    assert without_rights.run(deny, name, place) == []


def on_a_read_only_disk(mount_at: str) -> list[str]:
    """What a promotion, a rollback, a halt and a recovery say on a disk that is mounted read-only."""
    with quick_folder() as folder:
        ground = Ground("promotion", folder)
        shutil.copytree(ground.before, Path(mount_at) / "project")
        subprocess.run(["mount", "--bind", mount_at, mount_at], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", mount_at], check=True)
        changes = (lambda project: project.put(3), Project.back, Project.halt, Project.recover)
        return [f"{one.error} {one.message}" for one in (ended(_on, mount_at, change) for change in changes)]


def _on(mount_at: str, change: Callable[[Project], object]) -> None:
    change(project_of(CHANGES["promotion"], Path(mount_at) / "project"))


def test_on_a_disk_that_is_mounted_read_only_each_change_is_one_clear_line(
    mounting: Warm, tmp_path: Path
) -> None:
    """OutputError, which names the file and the reason; a reader goes on reading."""
    said = mounting.run(on_a_read_only_disk, tmp_path)

    assert len(said) == 4
    for line in said:
        assert line.startswith("OutputError "), line
        assert "read-only" in line, line
        assert "\n" not in line, line
