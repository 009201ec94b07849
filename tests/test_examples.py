"""The examples of docs/examples, run as a user runs them, on a release that was really promoted.

Each prints or writes what the student said; it must be what `StudentModel.score_rows` says of
`feature_matrix` over the same bars, to the bit. The one for nautilus_trader needs an environment of its own,
``make setup-nautilus`` or SQKIT_NAUTILUS=PYTHON, else it is skipped.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
import os
import re
import subprocess
import sys
import tokenize
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from sqkit.bars import VOLUME, BarArrays
from sqkit.features import feature_matrix
from sqkit.people import Actor
from sqkit.production.promoter import StudentModelPromoter
from sqkit.records import DIRECTIONS, REASONS
from sqkit.research.marketdata import load_symbol
from sqkit.settings import Settings
from sqkit.student import StudentModel
from tests.factory import FIRST, PROJECT, clock_of, make_candidate, run_commands

EXAMPLES = PROJECT / "docs/examples"
SYMBOL = "PLANT01"
HEAVY = {"pandas", "pyarrow", "sklearn", "matplotlib", "IPython", "sqkit.research"}
WITHOUT_AGE = {"SENSEQUANT_STUDENT_MODEL_MAX_AGE_DAYS": "100000"}
"""The planted bars are of 2012, the student is of 2025 and these tests run on any day."""

Decision = tuple[str, str, str, str, str]
"""Direction, confidence and P(up) as hexadecimal floats, version, reason."""


@dataclass(frozen=True)
class Released:
    """A project whose student is in production, and bars of a symbol that it may trade."""

    root: Path
    bars: BarArrays

    @property
    def dates(self) -> list[str]:
        """Session date of each bar."""
        return [(dt.date(1970, 1, 1) + dt.timedelta(int(day))).isoformat() for day in self.bars.session_days]

    @property
    def text(self) -> str:
        """The bars as a feed of lines."""
        lines = io.StringIO()
        writer = csv.writer(lines)
        writer.writerow(["date", "open", "high", "low", "close", "volume"])
        rows = self.bars.rows[:, : VOLUME + 1].tolist()
        writer.writerows([date, *row] for date, row in zip(self.dates, rows, strict=True))
        return lines.getvalue()


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Released:
    """The real chain up to a promotion; the tests leave production as it is."""
    root = tmp_path_factory.mktemp("released")
    model = make_candidate(root, FIRST).relative_to(root).as_posix()
    actor = Actor("Dana", "dana", "desk4")
    promoter = StudentModelPromoter(
        Settings(_env_file=None), root=root, clock=lambda: clock_of(FIRST), actor=actor
    )
    promoter.promote_model(model)
    bars, _ = load_symbol(root / "data/bars/1d", SYMBOL, interval="1d", market="us")
    return Released(root, bars)


def run_example(
    root: Path,
    *words: str,
    python: str = sys.executable,
    feed: str | None = None,
    environment: dict[str, str] | None = None,
) -> str:
    """What an example prints in a project's folder, scoring enabled; it must end well."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SENSEQUANT_")}
    enabled = {"SENSEQUANT_STUDENT_MODEL_ENABLED": "true", "PYTHONPATH": str(PROJECT)}
    run = subprocess.run(
        [python, *words],
        cwd=root,
        env=kept | enabled | (environment or {}),
        input=feed,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, f"{run.stdout[-2000:]}\n{run.stderr[-4000:]}"
    return run.stdout


def said_of(released: Released, bars: BarArrays) -> list[Decision]:
    """What the promoted file says of bars in one go, from the first warm bar on."""
    model = StudentModel.load(released.root / "data/models/production/student_model.onnx")
    matrix = feature_matrix(model.feature_set, bars)[model.feature_set.warmup_bars - 1 :]
    scores = model.score_rows(matrix, Settings(_env_file=None).student_model_confidence_threshold)
    said = [
        (DIRECTIONS[direction], confidence.hex(), probability.hex(), model.version, REASONS[reason])
        for direction, confidence, probability, reason in zip(
            scores.direction.tolist(),
            scores.confidence.tolist(),
            scores.probability_up.tolist(),
            scores.reason.tolist(),
            strict=True,
        )
    ]
    assert {("LONG", "scored"), ("SHORT", "scored"), ("FLAT", "low_confidence")} <= {
        (decision[0], decision[4]) for decision in said
    }, "there is something to compare"
    return said


def decision_of(cells: list[str]) -> Decision:
    """A decision that an example wrote as text."""
    direction, confidence, probability, version, reason = cells
    return direction, float(confidence or "nan").hex(), float(probability or "nan").hex(), version, reason


def decisions_in(text: str) -> tuple[list[str], list[Decision]]:
    """The first cell of each line, and the decisions behind it."""
    lines = list(csv.reader(io.StringIO(text)))
    return [line[0] for line in lines], [decision_of(line[1:]) for line in lines]


@pytest.mark.slow
def test_own_loop_says_what_the_model_says(released: Released) -> None:
    """Bars through a pipe, one decision a line."""
    script = str(EXAMPLES / "own_loop.py")

    printed = run_example(released.root, script, SYMBOL, feed=released.text, environment=WITHOUT_AGE)

    dates, decisions = decisions_in(printed)
    assert decisions == said_of(released, released.bars)
    assert dates == released.dates[-len(decisions) :]


@pytest.mark.slow
def test_own_loop_says_why_it_is_silent(released: Released) -> None:
    """Other symbols than the approved ones, a student that grew too old, a halted slot: FLAT, with the reason."""
    script, root = str(EXAMPLES / "own_loop.py"), released.root

    def directions_and_reasons(symbol: str, environment: dict[str, str]) -> set[tuple[str, str]]:
        printed = run_example(root, script, symbol, feed=released.text, environment=environment)
        return {(decision[0], decision[4]) for decision in decisions_in(printed)[1]}

    assert directions_and_reasons("MSFT", WITHOUT_AGE) == {("FLAT", "out_of_scope")}
    young = {"SENSEQUANT_STUDENT_MODEL_MAX_AGE_DAYS": "1"}
    assert directions_and_reasons(SYMBOL, young) == {("FLAT", "stale_model")}
    run_commands(root, [["halt", "--reason", "a test"]], clock_of(FIRST))
    try:
        assert directions_and_reasons(SYMBOL, WITHOUT_AGE) == {("FLAT", "halted")}
    finally:
        run_commands(root, [["resume", "--reason", "the test is over"]], clock_of(FIRST))


def test_own_loop_goes_on_without_a_student(tmp_path: Path) -> None:
    """Nothing was ever promoted: each bar has its FLAT line. No research library is loaded for that."""
    days = [dt.date(2014, 1, 1) + dt.timedelta(number) for number in range(150)]
    feed = "date,open,high,low,close,volume\n" + "".join(
        f"{day},{100 + number},{102 + number},{99 + number},{101 + number},{1000 + number % 7}\n"
        for number, day in enumerate(days)
    )
    watched = (
        "import runpy, sys\n"
        "runpy.run_path(sys.argv.pop(1), run_name='__main__')\n"
        f"loaded = {sorted(HEAVY)!r}\n"
        "sys.exit(', '.join(name for name in loaded if name in sys.modules) or 0)\n"
    )

    words = ("-c", watched, str(EXAMPLES / "own_loop.py"), SYMBOL)
    dates, decisions = decisions_in(run_example(tmp_path, *words, feed=feed))
    disabled = {"SENSEQUANT_STUDENT_MODEL_ENABLED": "false"}
    unasked = decisions_in(run_example(tmp_path, *words, feed=feed, environment=disabled))[1]

    assert set(decisions) == {("FLAT", "nan", "nan", "", "no_student")}
    assert set(unasked) == {("FLAT", "nan", "nan", "", "disabled")}
    assert dates[-1] == days[-1].isoformat()
    assert not any(dt.date.fromisoformat(date).weekday() > 4 for date in dates)


def test_own_loop_is_short() -> None:
    """At most 25 lines of code, imports included; blank lines, comments and the docstring do not count."""
    with open(EXAMPLES / "own_loop.py", "rb") as source:
        tokens = list(tokenize.tokenize(source.readline))
    silent = {tokenize.ENCODING, tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT}
    silent |= {tokenize.DEDENT, tokenize.ENDMARKER}
    code = [token for token in tokens if token.type not in silent]
    assert code.pop(0).type == tokenize.STRING, "the docstring"
    lines = {row for token in code for row in range(token.start[0], token.end[0] + 1)}
    assert len(lines) <= 25


@pytest.mark.slow
def test_backtesting_strategy_asks_the_student_on_every_bar(released: Released, tmp_path: Path) -> None:
    """The stored bars in backtesting.py: the same decisions, trades made of them, statistics printed."""
    written = tmp_path / "decisions.csv"
    script = str(EXAMPLES / "backtesting_strategy.py")

    printed = run_example(released.root, script, SYMBOL, str(written))

    dates, decisions = decisions_in(written.read_text().split("\n", 1)[1])
    assert decisions == said_of(released, released.bars)
    assert dates == released.dates[-len(decisions) :]
    assert "Sharpe Ratio" in printed
    trades = re.search(r"^# Trades +(\d+)$", printed, re.MULTILINE)
    assert trades is not None
    assert int(trades[1]) > 0


@pytest.mark.slow
def test_nautilus_strategy_asks_the_student_on_every_bar(released: Released, tmp_path: Path) -> None:
    """A Parquet file of bars in cents through nautilus_trader's engine: the same decisions, some trades."""
    python = os.environ.get("SQKIT_NAUTILUS") or str(PROJECT / ".venv-nautilus/bin/python")
    if not Path(python).exists():
        pytest.skip(f"no nautilus_trader at {python}: run make setup-nautilus, or set SQKIT_NAUTILUS")
    frame = pd.read_parquet(released.root / f"data/bars/1d/{SYMBOL}.parquet")
    prices = ["open", "high", "low", "close"]
    frame[prices] = frame[prices].round(2)
    frame.to_parquet(tmp_path / f"{SYMBOL}.parquet")
    written = tmp_path / "decisions.csv"
    words = (str(EXAMPLES / "nautilus_strategy.py"), str(tmp_path / f"{SYMBOL}.parquet"), str(written))

    printed = run_example(released.root, *words, python=python)

    in_cents, _ = load_symbol(tmp_path, SYMBOL, interval="1d", market="us")
    ends, decisions = decisions_in(written.read_text().split("\n", 1)[1])
    assert decisions == said_of(released, in_cents)
    assert ends == [str(end) for end in in_cents.available_ns[-len(decisions) :]]
    assert f"{SYMBOL}.SIM" in printed, "positions were opened"


def test_the_nautilus_environment_scores_with_the_same_libraries() -> None:
    """Its constraints are names and versions; what sqkit itself needs is as tested everywhere else."""

    def pins(name: str) -> dict[str, str]:
        lines = (PROJECT / name).read_text().splitlines()
        found = [re.fullmatch(r"([\w.-]+)==([\w.]+)", line) for line in lines if not line.startswith("#")]
        assert all(found), name
        return {pin[1].lower(): pin[2] for pin in found if pin}

    own, ours = pins("constraints-nautilus.txt"), pins("constraints.txt")
    different = {name for name in own.keys() & ours.keys() if own[name] != ours[name]}
    assert different == {"pandas", "fsspec"}, "what nautilus_trader asks for in older versions"
    assert own["pandas"].startswith("2.")
    assert "nautilus_trader" not in ours
