"""The env file: the lines a promotion asks for, changed in place and nothing else; pins that would block."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from dotenv import dotenv_values
from hypothesis import given
from hypothesis import strategies as st

from sqkit.errors import ConflictError, OutputError, PinBlocks, SettingsError
from sqkit.production.env_file import (
    PIN,
    environment_lines,
    pin_after_rollback,
    pin_problem,
    require_rewritable,
    rewrite,
)
from sqkit.production.env_text import changed
from sqkit.production.slots import slot_named
from sqkit.settings import PREFIX, Settings

OLD, NEW = "20250112_143000", "20250301_090000"
PATH_LINE = f"{PREFIX}STUDENT_MODEL_PATH=data/models/production/student_model.onnx"
PIN_LINE = f"{PIN}={NEW}"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the caller's reaches a test."""
    for name in list(os.environ):
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def _lines(
    settings: Settings, slot: str = "default", version: str = NEW, *, enable: bool = False
) -> list[str]:
    return environment_lines(settings, slot_named(settings, slot), version, enable)


def _problem(settings: Settings, env_file: str | None = None, **environ: str) -> PinBlocks | None:
    return pin_problem(settings, slot_named(settings, "default"), NEW, env_file, environ)


# --- the lines


def test_the_default_slot_asks_for_its_path_and_its_pin() -> None:
    """Path as the settings have it, and the version that is live now; scoring is not touched."""
    assert _lines(Settings()) == [PATH_LINE, PIN_LINE]


def test_scoring_is_enabled_only_when_asked() -> None:
    """``--enable`` adds the one line that turns scoring on."""
    assert _lines(Settings(), enable=True) == [PATH_LINE, PIN_LINE, f"{PREFIX}STUDENT_MODEL_ENABLED=true"]


def test_a_release_without_a_version_empties_the_pin() -> None:
    """After a rollback to no student, or to an unmanaged model, no pin may stand in the way."""
    assert _lines(Settings(), version="") == [PATH_LINE, f"{PIN}="]


def test_another_slot_asks_for_all_paths_and_no_pin(tmp_path: Path) -> None:
    """The pin is the default slot's alone; paths of slots are one variable, whole, as JSON."""
    paths = {
        "swing": "data/models/production_swing/student_model.onnx",
        "intraday": "data/i/student_model.onnx",
    }

    lines = _lines(Settings(student_model_paths=paths), "swing")

    assert [line.split("=")[0] for line in lines] == [f"{PREFIX}STUDENT_MODEL_PATHS"]
    rewrite(tmp_path / ".env", lines)
    assert Settings().student_model_paths == paths


@pytest.mark.parametrize(
    "path",
    [
        "a b/m.onnx",
        "h#sh #/m.onnx",
        "$HOME/m.onnx",
        "ü/m.onnx",
    ],
)
def test_any_path_is_read_back_as_it_was(path: str, tmp_path: Path) -> None:
    """Spaces, hashes and dollars in a path survive the env file."""
    rewrite(tmp_path / ".env", _lines(Settings(student_model_path=path)))

    assert Settings().student_model_path == path
    (tmp_path / ".env").unlink()
    lines = _lines(Settings(student_model_paths={"swing": path}), "swing")
    rewrite(tmp_path / ".env", lines)
    assert Settings().student_model_paths == {"swing": path}


@pytest.mark.parametrize("path", ["it's/m.onnx", "back\\slash/m.onnx", "'; touch x; '/m.onnx"])
def test_a_path_that_a_shell_would_read_otherwise_is_refused(path: str) -> None:
    """python-dotenv and a shell read a quote in quotes differently; no line may run anything when sourced."""
    with pytest.raises(SettingsError, match="cannot stand in an env file"):
        _lines(Settings(student_model_path=path))


def test_a_plain_or_quoted_line_means_the_same_to_a_shell(tmp_path: Path) -> None:
    """What is printed can be pasted into a shell script as well, JSON included."""
    lines = _lines(Settings(student_model_paths={"swing": "a b/$x.onnx"}), "swing")

    script = f'{lines[0]}\nprintf %s "${PREFIX}STUDENT_MODEL_PATHS"'
    said = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout

    assert json.loads(said) == {"swing": "a b/$x.onnx"}


@pytest.mark.parametrize("path", ["two\nlines.onnx", "${HOME}/m.onnx"])
def test_a_path_that_no_env_file_can_hold_is_refused(path: str) -> None:
    """A line break would be two lines, and ``${...}`` would be filled in by python-dotenv."""
    with pytest.raises(SettingsError, match="cannot stand in an env file"):
        _lines(Settings(student_model_path=path))


# --- the file


def test_a_file_that_is_not_there_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    """A new env file may come to hold secrets: mode 0600, whatever the umask allows."""
    rewrite(tmp_path / "new.env", [PATH_LINE, PIN_LINE])

    assert (tmp_path / "new.env").read_text() == f"{PATH_LINE}\n{PIN_LINE}\n"
    assert stat.S_IMODE((tmp_path / "new.env").stat().st_mode) == 0o600


def test_everything_else_stays_to_the_byte(tmp_path: Path) -> None:
    """Comments, order, blank lines, `export`, spacing, secrets and multi-line values are not touched."""
    before = (
        "# our settings\n\nexport OTHER='a\nb'\n"
        f"  export {PIN} = '{OLD}'   # pinned by hand\n"
        'SECRET="p@ss # word"\n\n\n'
        f"# {PIN}=commented\n"
        f"{PREFIX}STUDENT_MODEL_PATH=old.onnx\t# why\n"
        "LAST=1"
    )
    (tmp_path / ".env").write_text(before)

    rewrite(tmp_path / ".env", [PATH_LINE, PIN_LINE, f"{PREFIX}STUDENT_MODEL_ENABLED=true"])

    expected = before.replace(f"'{OLD}'", NEW).replace("old.onnx", PATH_LINE.split("=")[1])
    assert (tmp_path / ".env").read_text() == f"{expected}\n{PREFIX}STUDENT_MODEL_ENABLED=true\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (f"{PIN}=\n", f"{PIN}={NEW}\n"),
        (f"{PIN}=", f"{PIN}={NEW}"),
        (f"{PIN}\n", f"{PIN}={NEW}\n"),
        (f"{PIN} # none\n", f"{PIN}={NEW} # none\n"),
        (f"{PIN}= # none yet\n", f"{PIN}={NEW} # none yet\n"),
        (f"{PIN}=#novalue\n", f"{PIN}={NEW}\n"),
        (f"{PIN}=a b c  \n", f"{PIN}={NEW}  \n"),
        (f'{PIN}="{OLD}" # x\n', f"{PIN}={NEW} # x\n"),
        (f"{PIN}='{OLD}'# x\n", f"{PIN}={NEW} # x\n"),
        (f"'{PIN}'={OLD}\n", f"'{PIN}'={NEW}\n"),
        (f"{PIN.lower()}={OLD}\n", f"{PIN.lower()}={NEW}\n"),
        (f"{PIN}={OLD}\r\nX=1\r\n", f"{PIN}={NEW}\r\nX=1\r\n"),
        ("X=1\r\nY=2", f"X=1\r\nY=2\r\n{PIN}={NEW}\r\n"),
        (f"\ufeff{PIN}={OLD}\n", f"\ufeff{PIN}={NEW}\n"),
        ("this is no assignment\n", f"this is no assignment\n{PIN}={NEW}\n"),
    ],
)
def test_one_assignment_in_each_of_its_forms(before: str, after: str, tmp_path: Path) -> None:
    """Whatever form python-dotenv accepts, the value is replaced and the form stays."""
    (tmp_path / ".env").write_bytes(before.encode())

    rewrite(tmp_path / ".env", [PIN_LINE])

    assert (tmp_path / ".env").read_bytes().decode() == after
    assert Settings().student_model_version == NEW


def test_a_variable_given_twice_is_the_same_in_every_place(tmp_path: Path) -> None:
    """The last one wins for python-dotenv, another reader may take the first: all of them change."""
    (tmp_path / ".env").write_text(f"{PIN}={OLD}\nX=1\n{PIN.lower()}={OLD}\n{PIN}=older\n")

    rewrite(tmp_path / ".env", [PIN_LINE])

    assert (tmp_path / ".env").read_text() == f"{PIN}={NEW}\nX=1\n{PIN.lower()}={NEW}\n{PIN}={NEW}\n"


def test_an_emptied_pin_before_a_comment_stays_empty(tmp_path: Path) -> None:
    """An empty value in front of a comment is written as quotes, or the comment might be the value."""
    (tmp_path / ".env").write_text(f"{PIN}={OLD} # by hand\n")

    rewrite(tmp_path / ".env", [f"{PIN}="])

    assert (tmp_path / ".env").read_text() == f"{PIN}='' # by hand\n"
    assert Settings().student_model_version == ""


def test_doing_it_again_changes_nothing(tmp_path: Path) -> None:
    """After a crash the same lines are set once more: the file is not even written."""
    rewrite(tmp_path / ".env", [PATH_LINE, PIN_LINE])
    before = (tmp_path / ".env").stat()

    rewrite(tmp_path / ".env", [PATH_LINE, PIN_LINE])

    after = (tmp_path / ".env").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


_NAMES = st.sampled_from([PIN, PIN.lower(), f"{PREFIX}STUDENT_MODEL_PATH", "OTHER", "A.B"])
_LINES = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", "export ", "  ", "# ", "\n"]),
        _NAMES,
        st.sampled_from(["=", " = ", "= ", "", "=="]),
        st.text("ab$ #'\"\\{}=\t", max_size=8),
        st.sampled_from(["\n", "\r\n", " # why\n", "\n\n", ""]),
    ),
)


@given(st.lists(_LINES, max_size=6), st.sampled_from(["", NEW, "'a b'"]))
def test_whatever_the_file_holds_only_the_variable_changes(parts: list[str], value: str) -> None:
    """For any text: python-dotenv reads the new value and every other variable as before, or it is refused."""
    text = "".join(parts)
    try:
        new = changed(text, [f"{PIN}={value}"], Path(".env"))
    except OutputError:
        assert text.count("'") + text.count('"') > 0
        return

    was, now = _read(text), _read(new)
    assert {now.pop(name) for name in list(now) if name.upper() == PIN} == {value.strip("'")}
    assert now == {name: old for name, old in was.items() if name.upper() != PIN}
    assert changed(new, [f"{PIN}={value}"], Path(".env")) == new


def _read(text: str) -> dict[str, str | None]:
    from io import StringIO

    return dict(dotenv_values(stream=StringIO(text), interpolate=False))


def test_a_quote_that_is_never_closed_is_refused_not_swallowed(tmp_path: Path) -> None:
    """A line added behind an open quote would become part of it: refused, and the file is as it was."""
    before = "NOTE='it is open\n"
    (tmp_path / ".env").write_text(before)

    with pytest.raises(OutputError, match="never closed"):
        rewrite(tmp_path / ".env", [f"{PREFIX}STUDENT_MODEL_PATH='a b'"])

    assert (tmp_path / ".env").read_text() == before


# --- rights


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o660])
def test_the_mode_stays(mode: int, tmp_path: Path) -> None:
    """A private file stays private, a shared one shared."""
    (tmp_path / ".env").write_text("X=1\n")
    (tmp_path / ".env").chmod(mode)

    rewrite(tmp_path / ".env", [PIN_LINE])

    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == mode


def test_a_private_file_is_never_readable_by_others_not_even_for_a_moment(tmp_path: Path) -> None:
    """Every file that appears in the folder while a 0600 file is rewritten is 0600."""
    (tmp_path / ".env").write_text("SECRET=1\n")
    (tmp_path / ".env").chmod(0o600)
    script = """
import os, sys
from pathlib import Path
seen = set()
def watch(event, arguments):
    if event in {"open", "os.rename", "os.chmod", "os.truncate", "os.chown", "os.remove"}:
        for entry in os.scandir("."):
            seen.add(entry.stat(follow_symlinks=False).st_mode & 0o777)
from sqkit.production.env_file import rewrite
os.umask(0)
sys.addaudithook(watch)
rewrite(Path(".env"), ["%s"])
print(sorted(seen))
"""
    said = subprocess.run(
        [sys.executable, "-c", script % PIN_LINE], capture_output=True, text=True, check=True
    )

    assert said.stdout == f"{[0o600]}\n"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_the_owner_stays(tmp_path: Path) -> None:
    """Run by root for another account, the file still is that account's."""
    (tmp_path / ".env").write_text("X=1\n")
    os.chown(tmp_path / ".env", 4321, 4322)

    rewrite(tmp_path / ".env", [PIN_LINE])

    now = (tmp_path / ".env").stat()
    assert (now.st_uid, now.st_gid) == (4321, 4322)


def test_a_symlink_stays_and_its_target_is_changed(tmp_path: Path) -> None:
    """An env file kept elsewhere is changed where it is; the link still points there."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/trading.env").write_text("X=1\n")
    (tmp_path / ".env").symlink_to("shared/trading.env")

    rewrite(tmp_path / ".env", [PIN_LINE])

    assert (tmp_path / ".env").readlink() == Path("shared/trading.env")
    assert (tmp_path / "shared/trading.env").read_text() == f"X=1\n{PIN_LINE}\n"
    assert sorted(path.name for path in (tmp_path / "shared").iterdir()) == ["trading.env"]


@pytest.mark.parametrize("kind", ["folder", "pipe", "loop", "no folder", "not text"])
def test_what_is_no_env_file_is_refused(kind: str, tmp_path: Path) -> None:
    """A folder, a pipe, a link to itself, a file in no folder, bytes that are no text: one clear line each."""
    path = tmp_path / "odd.env"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "no folder":
        path = tmp_path / "none/odd.env"
    else:
        path.write_bytes(b"X=\xff\xfe\n")

    for attempt in (require_rewritable, rewrite):
        with pytest.raises(OutputError, match=r"odd\.env: ") as refused:
            attempt(path, [PIN_LINE])
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("closed", ["folder", "file"])
def test_a_folder_or_file_that_cannot_be_written_leaves_the_file_whole(
    closed: str, tmp_path: Path, without_root_rights: list[str]
) -> None:
    """No permission is one clear line that names the env file; the old file is as it was."""
    folder = tmp_path / "closed"
    folder.mkdir()
    (folder / ".env").write_text("X=1\n")
    (folder if closed == "folder" else folder / ".env").chmod(0o555 if closed == "folder" else 0o444)
    script = f"from pathlib import Path\nfrom sqkit.production.env_file import rewrite\nrewrite(Path('closed/.env'), ['{PIN_LINE}'])"

    run = subprocess.run(
        [*without_root_rights, sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    folder.chmod(0o755)

    said = run.stderr.splitlines()[-1]
    assert said.startswith("sqkit.errors.OutputError: closed/.env: ")
    assert (folder / ".env").read_text() == "X=1\n"
    assert sorted(path.name for path in folder.iterdir()) == [".env"]


def test_a_full_disk_leaves_the_file_whole(tmp_path: Path) -> None:
    """A write that stops half way is one clear line; the old file is as it was and no piece stays."""
    before = "X=1\n" * 2000
    (tmp_path / ".env").write_text(before)
    script = (
        "import resource, signal\nfrom pathlib import Path\nfrom sqkit.production.env_file import rewrite\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nresource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        f"rewrite(Path('.env'), ['{PIN_LINE}'])"
    )

    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert "sqkit.errors.OutputError: .env: the file size limit was reached" in run.stderr.splitlines()[-1]
    assert (tmp_path / ".env").read_text() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [".env"]


def test_a_process_that_is_killed_leaves_the_old_file_and_the_next_one_tidies(tmp_path: Path) -> None:
    """Killed before the rename: the old file is whole, and what was left is gone after the next change."""
    (tmp_path / ".env").write_text("X=1\n")
    script = (
        "import os, signal\nfrom pathlib import Path\nfrom sqkit.production.env_file import rewrite\n"
        "os.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"rewrite(Path('.env'), ['{PIN_LINE}'])"
    )

    run = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)

    assert run.returncode == -9
    assert (tmp_path / ".env").read_text() == "X=1\n"
    assert len(list(tmp_path.iterdir())) == 2
    rewrite(tmp_path / ".env", [PIN_LINE])
    assert [path.name for path in tmp_path.iterdir()] == [".env"]


def test_two_slots_that_share_a_file_lose_nothing(tmp_path: Path) -> None:
    """Forty changes from eight sides at once all stand in the file afterwards."""
    (tmp_path / ".env").write_text("X=1\n")
    problems: list[Any] = []

    def change(number: int) -> None:
        try:
            for turn in range(5):
                rewrite(tmp_path / ".env", [f"V{number}_{turn}=1"])
        except ConflictError as problem:
            problems.append(problem)

    threads = [threading.Thread(target=change, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not problems
    assert len(_read((tmp_path / ".env").read_text())) == 41


# --- pins


def test_no_pin_and_the_same_pin_block_nothing() -> None:
    """Without a pin, or pinned to the very version that goes live, there is nothing to say."""
    assert _problem(Settings()) is None
    assert _problem(Settings(student_model_version=NEW)) is None


def test_a_pin_is_of_the_default_slot_only() -> None:
    """Another slot's release is served whatever the pin says."""
    settings = Settings(student_model_version=OLD, student_model_paths={"swing": "data/s/student_model.onnx"})

    assert pin_problem(settings, slot_named(settings, "swing"), NEW, None, {}) is None


def test_a_pin_in_the_env_file_asks_for_that_file(tmp_path: Path) -> None:
    """Without --env-file the pin would stay: refused, naming file, both versions and the way out."""
    (tmp_path / ".env").write_text(f"{PIN}={OLD}\n")

    problem = _problem(Settings())

    assert problem is not None
    assert problem.exit_code == 5
    assert str(problem) == (
        f"{PIN}={OLD} stands in .env: an engine with this pin refuses version {NEW}; give --env-file .env, "
        "or change that line yourself, and run again"
    )


@pytest.mark.parametrize("spelled", [".env", "./.env", "linked.env"])
def test_a_pin_that_is_rewritten_in_the_same_step_blocks_nothing(spelled: str, tmp_path: Path) -> None:
    """--env-file names the file with the pin, under whatever name it is the same file."""
    (tmp_path / ".env").write_text(f"{PIN}={OLD}\n")
    (tmp_path / "linked.env").symlink_to(".env")

    assert _problem(Settings(), spelled) is None


def test_a_pin_in_one_file_is_not_rewritten_by_another(tmp_path: Path) -> None:
    """--env-file names another file than the one with the pin: refused, naming both."""
    (tmp_path / ".env").write_text(f"{PIN}={OLD}\n")

    problem = _problem(Settings(), "prod.env")

    assert problem is not None
    assert "give --env-file .env, not prod.env" in str(problem)


def test_a_pin_in_the_process_environment_is_beyond_any_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The environment is stronger than a file: refused even when --env-file names the file with the pin."""
    (tmp_path / ".env").write_text(f"{PIN}={OLD}\n")
    monkeypatch.setenv(PIN, OLD)

    problem = _problem(Settings(), ".env", **{PIN: OLD})

    assert problem is not None
    assert "process environment, which no env file can change" in str(problem)
    assert f"unset it there, or set it to {NEW}" in str(problem)


def test_an_empty_pin_in_the_environment_switches_off_that_of_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Settings read the empty variable, so no pin is known and none blocks."""
    (tmp_path / ".env").write_text(f"{PIN}={OLD}\n")
    monkeypatch.setenv(PIN, "")

    assert _problem(Settings(), None, **{PIN: ""}) is None


def test_a_pin_given_in_code_cannot_be_rewritten() -> None:
    """Settings built with a pin keep it whatever file is written."""
    problem = _problem(Settings(student_model_version=OLD), "prod.env")

    assert problem is not None
    assert "given to Settings itself" in str(problem)


def test_a_rollback_overrides_a_pin_and_says_the_new_line(tmp_path: Path) -> None:
    """A rollback is never refused for a pin: one line says where it stands and what to set there."""
    (tmp_path / ".env").write_text(f"{PIN}={OLD}\n")
    slot = slot_named(Settings(), "default")

    said = pin_after_rollback(Settings(), slot, NEW, None, {})

    assert said == f"{PIN}={OLD} stands in .env: overridden by this rollback; set {PIN}={NEW} there"
    assert pin_after_rollback(Settings(), slot, "", None, {}).endswith(f"set {PIN}= there")
    assert pin_after_rollback(Settings(), slot, OLD, None, {}) == ""
    assert pin_after_rollback(Settings(), slot, NEW, ".env", {}) == ""
