"""Files: atomic writes, canonical bytes, digests, names that stay inside, real full and read-only disks."""

from __future__ import annotations

import copy
import json
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from sqkit.errors import ArtifactChanged, ConflictError, OutputError, SqkitError, UsageError
from sqkit.files import (
    canonical_json,
    exclusive,
    inside,
    output_errors,
    publish,
    read_json,
    sha256_columns,
    staging_folder,
    symbol_file_name,
    write_bytes,
    write_json,
)


def test_the_order_of_keys_does_not_matter() -> None:
    """Equal values give equal bytes."""
    assert canonical_json({"b": 1, "a": [1.5, None]}) == canonical_json({"a": [1.5, None], "b": 1})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_never_written(tmp_path: Path, value: float) -> None:
    """JSON has no NaN: the write fails and no file appears."""
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"x": value})

    assert list(tmp_path.iterdir()) == []


def test_a_nan_in_a_file_is_refused_on_reading(tmp_path: Path) -> None:
    """Python's json would read NaN; sqkit does not."""
    (tmp_path / "x.json").write_text('{"x": NaN}')

    with pytest.raises(ArtifactChanged, match="not strict JSON"):
        read_json(tmp_path / "x.json")


def test_a_digest_of_columns_ignores_width_and_order_but_not_values() -> None:
    """int32 and int64 of equal values agree, argument order does not matter, a value does."""
    days, prices = np.array([1, 2]), np.array([1.0, np.nan])

    assert sha256_columns(a=days.astype(np.int32), b=prices) == sha256_columns(b=prices, a=days)
    assert sha256_columns(a=days, b=prices) != sha256_columns(a=days, b=prices + 1.0)


def test_a_digest_of_columns_knows_where_a_column_ends() -> None:
    """Moving a value from one column to the next changes the digest."""
    assert sha256_columns(a=np.array([1, 2]), b=np.array([3])) != sha256_columns(
        a=np.array([1]), b=np.array([2, 3])
    )


@pytest.mark.parametrize("symbol", ["../x", "a/b", "", ".hidden", "a\x00b", "..", "a..b"])
def test_a_symbol_never_leaves_its_folder(symbol: str) -> None:
    """What could climb out of the folder of bars is refused."""
    with pytest.raises(UsageError):
        symbol_file_name(symbol)


@pytest.mark.parametrize("symbol", ["M&N", "BAJ-X", "^INDEX", "X.NS", "A_1"])
def test_real_symbols_keep_their_names(symbol: str) -> None:
    """Ampersands, dashes, carets and dots of real symbols are file names as they are."""
    assert symbol_file_name(symbol) == f"{symbol}.parquet"


def test_a_path_and_a_symlink_that_lead_outside_are_refused(tmp_path: Path) -> None:
    """Neither dots nor a link reach out of the root."""
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path)

    for path in ("../x", "link/x"):
        with pytest.raises(UsageError, match="outside"):
            inside(tmp_path / "root", Path(path))


def test_staging_leaves_nothing_behind_when_the_work_fails(tmp_path: Path) -> None:
    """A failure inside removes the scratch folder and publishes nothing."""
    with pytest.raises(RuntimeError), staging_folder(tmp_path / "out") as staging:
        (staging / "half").write_text("half")
        raise RuntimeError

    assert list(tmp_path.iterdir()) == []


def test_publishing_a_folder_replaces_the_old_one_whole(tmp_path: Path) -> None:
    """Files of the old folder do not survive in the new one."""
    old, new = tmp_path / "out", tmp_path / "new"
    for folder, name in ((old, "old.txt"), (new, "new.txt")):
        folder.mkdir()
        (folder / name).write_text("x")

    publish(new, old)

    assert [path.name for path in tmp_path.rglob("*.txt")] == ["new.txt"]


def test_a_folder_is_held_by_one_process_at_a_time(tmp_path: Path) -> None:
    """A second holder is refused with exit code 5, and gets in when the first is done."""
    with exclusive(tmp_path, "first"), pytest.raises(ConflictError) as refused, exclusive(tmp_path, "second"):
        pass

    assert refused.value.exit_code == 5
    with exclusive(tmp_path, "third"):
        pass


def test_every_error_survives_the_way_to_another_process() -> None:
    """Errors keep class, message and values when a worker process hands them back."""
    error = OutputError("the disk is full", path="x")

    twin = copy.copy(error)

    assert (type(twin), str(twin), twin.values) == (OutputError, "the disk is full", {"path": "x"})


def test_exit_codes_are_those_of_the_design() -> None:
    """2 for input, 4 for integrity, 5 for conflicts, 6 for notebooks; nothing else."""

    def family(kind: type[SqkitError]) -> set[int]:
        return {kind.exit_code}.union(*(family(child) for child in kind.__subclasses__()))

    assert family(SqkitError) == {1, 2, 4, 5, 6}


def test_a_read_only_folder_is_one_clear_line(tmp_path: Path, without_root_rights: list[str]) -> None:
    """A process without root's rights gets OutputError, and the folder stays as it was."""
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o555)
    code = """
        import sys
        from pathlib import Path
        from sqkit.errors import OutputError
        from sqkit.files import write_text
        try:
            write_text(Path(sys.argv[1]), "x")
        except OutputError as problem:
            print(problem)
        """

    run = subprocess.run(
        [*without_root_rights, sys.executable, "-c", textwrap.dedent(code), str(locked / "x")],
        capture_output=True,
        text=True,
        check=True,
    )

    assert "no permission to write here" in run.stdout
    assert list(locked.iterdir()) == []


def test_a_full_disk_leaves_the_old_file_untouched(tmp_path: Path) -> None:
    """With a real limit on file size the old content survives and no temporary file stays."""
    target = tmp_path / "x.json"
    target.write_text("old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OutputError, match="file size limit"):
            write_bytes(target, b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)

    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_dev_full_is_a_full_disk() -> None:
    """The kernel's own full device gives the same clear line."""
    with pytest.raises(OutputError, match="the disk is full"), output_errors(Path("/dev/full")):
        with open("/dev/full", "wb", buffering=0) as stream:
            stream.write(json.dumps({}).encode())
