"""Telemetry lines: strict JSON whatever is in them, whole whatever becomes of the disk."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqkit.bars import Bar
from sqkit.files import parse_json
from sqkit.production.telemetry import InstantText, LineFile, TelemetryWriter
from sqkit.production.tick_record import TickRecords
from sqkit.records import iso_instant
from tests.engines import read_lines

NOW = 1_735_830_000_123_456_789

anything = st.floats(allow_nan=True, allow_infinity=True)


@given(
    st.text(max_size=12),
    st.lists(anything, max_size=22),
    st.tuples(anything, anything, anything),
    st.one_of(st.none(), anything),
    st.integers(0, 2**40),
)
def test_every_line_is_strict_json(
    symbol: str, features: list[float], numbers: tuple[float, float, float], volume: float | None, start: int
) -> None:
    """Any symbol, any numbers, NumPy's or Python's: one line, parsed by a strict reader, finite values unchanged."""
    from tempfile import TemporaryDirectory

    records = TickRecords("intraday", "default", InstantText())
    bar = Bar(symbol, None, *numbers, numbers[0], volume)  # type: ignore[arg-type]
    record = records.prediction(
        "x",
        symbol,
        start,
        20_000,
        NOW,
        ("20250101_000000", "abc", "LONG", numbers[0], "scored"),
        ("SHORT", *numbers, "student_model"),
        np.array(features),
        bar,
        ("ok", 0, None),
    )
    record["latency_us"] = np.float64(1.5).item()
    with TemporaryDirectory() as folder:
        writer = TelemetryWriter(Path(folder), "e", 0)
        writer.write(20_000, record)
        writer.close()
        (path,) = Path(folder).glob("2024-*/*.jsonl")
        (line,) = path.read_bytes().splitlines(keepends=True)
    said = parse_json(line, Path("line"))

    assert line.endswith(b"\n")
    assert said["symbol"] == symbol
    assert said["features"] == [one if math.isfinite(one) else None for one in features]
    assert said["strength"] == (numbers[1] if math.isfinite(numbers[1]) else None)
    assert list(said) == list(record), "the order of the fields is fixed"


@given(st.integers(0, 4 * 10**18))
def test_instants_are_written_as_everywhere(nanoseconds: int) -> None:
    """The quick writer gives the text of `iso_instant`, microseconds cut, not rounded."""
    texts = InstantText()

    assert texts.whole(nanoseconds) == iso_instant(nanoseconds)
    assert texts.of(nanoseconds)[:19] == iso_instant(nanoseconds)[:19]
    assert len(texts.of(nanoseconds)) == 27


def test_a_session_date_has_its_own_file(tmp_path: Path) -> None:
    """Host and process name it; two engines of one process append to one."""
    first, second = TelemetryWriter(tmp_path, "a", NOW), TelemetryWriter(tmp_path, "b", NOW)
    first.write(20_000, {"n": 1})
    second.write(20_000, {"n": 2})
    first.write(20_001, {"n": 3})
    for writer in (first, second):
        writer.close()
    paths = sorted(tmp_path.glob("2*/*.jsonl"))

    assert [path.parent.name for path in paths] == ["2024-10-04", "2024-10-05"]
    assert all(path.stem.endswith(f"-{os.getpid()}") for path in paths)
    assert read_lines(paths) == [{"n": 1}, {"n": 2}, {"n": 3}]


def test_a_line_is_there_when_the_call_returns(tmp_path: Path) -> None:
    """Killed at once afterwards, nothing is lost."""
    code = (
        "import os, signal, sys; from pathlib import Path; "
        "from sqkit.production.telemetry import TelemetryWriter; "
        "w = TelemetryWriter(Path(sys.argv[1]), 'e', 0); "
        "[w.write(20_000, {'n': n}) for n in range(1000)]; os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)

    assert read_lines(tmp_path.glob("2*/*.jsonl")) == [{"n": n} for n in range(1000)]


def test_a_torn_line_is_followed_by_a_new_one(tmp_path: Path) -> None:
    """A disk that fills in the middle of a line: it is counted as lost, the next one begins on its own line."""
    code = """
import json, resource, signal, sys
from pathlib import Path
from sqkit.production.telemetry import LineFile
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
file = LineFile(Path(sys.argv[1]))
line = b'{"n":' + b'1' * 90 + b'}\\n'
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (250, hard))
said = [file.append(line) for _ in range(4)]
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
file._retry_at_ns = 0
said.append(file.append(b'{"n":2}\\n'))
print(json.dumps([said, file.lost]))
"""
    place = tmp_path / "lines.jsonl"
    run = subprocess.run([sys.executable, "-c", code, str(place)], capture_output=True, text=True, check=True)
    said, lost = json.loads(run.stdout)
    whole: list[Any] = []
    for line in place.read_bytes().splitlines():
        try:
            whole.append(json.loads(line))
        except ValueError:
            whole.append("torn")

    assert said == [True, True, False, False, True]
    assert lost == 2
    assert whole[2] == "torn"
    assert whole[-1] == {"n": 2}
    assert len(whole) == 4


def test_a_symlink_in_the_place_of_a_file_is_not_followed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Telemetry never writes where somebody else points it."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "lines.jsonl").symlink_to(victim)
    file = LineFile(tmp_path / "lines.jsonl")

    assert not file.append(b"{}\n")
    assert not file.append(b"{}\n")
    assert victim.read_text() == "mine"
    assert file.lost == 2
    assert caplog.text.count("telemetry cannot be written") == 1
