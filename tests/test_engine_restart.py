"""A restart at any bar reproduces the run that was not interrupted, to the bit."""

from __future__ import annotations

import itertools
import json
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sqkit.production.journal import Journal, read_journal
from sqkit.strategy import StrategyParameters
from tests.engines import SYMBOL, Bench, pairs, series, settings_of, student

SAME = (
    "id",
    "features",
    "student_probability_up",
    "student_prediction",
    "reason",
    "strength",
    "target",
    "bar_status",
)


def kept(bench: Bench) -> list[tuple[Any, ...]]:
    """What must not depend on when the engine was restarted, one tuple a decision; the first of an id counts."""
    seen: dict[str, tuple[Any, ...]] = {}
    for one in bench.predictions():
        seen.setdefault(one["id"], tuple(json.dumps(one[name]) for name in SAME))
    return list(seen.values())


def trades(bench: Bench) -> list[dict[str, Any]]:
    """Closed trades without what differs by process."""
    return [one for one in bench.records() if one["event"] == "trade_closed"]


def abandon(bench: Bench) -> None:
    """What a kill leaves: nothing is flushed, nothing closed; only the lock goes, as with a dead process."""
    state = bench.engine._state
    assert state is not None
    os.close(state.journal._lock)


@pytest.mark.parametrize("strategy", ["swing", "intraday"])
def test_restarts_change_nothing(strategy: str, tmp_path: Path) -> None:
    """Abandoned at many bars, inside positions and between sessions: decisions, orders and trades are the same."""
    bars, model = pairs(series(strategy)), student(strategy)
    whole = Bench(tmp_path / "whole", strategy, model=model)
    whole.feed(bars)
    asked = {0, 1, 57, 101, 130, 131, 250, 300, 389, 390, 391, len(bars) - 1, len(bars)}
    cuts = sorted(cut for cut in asked if cut <= len(bars))
    signals, root = [], tmp_path / "cut"
    for start, stop in zip([0, *cuts], [*cuts, len(bars)], strict=True):
        bench = Bench(root, strategy, model=model)
        signals += bench.feed(bars[start:stop])
        abandon(bench)

    assert signals == whole.signals
    assert kept(bench) == kept(whole)
    assert trades(bench) == trades(whole)
    assert any(one.orders for one in signals if one)


def test_a_stopped_engine_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    """After a proper stop no bar has to pass again."""
    bars, model = pairs(series("intraday")), student("intraday")
    whole = Bench(tmp_path / "whole", "intraday", model=model)
    whole.feed(bars)
    first = Bench(tmp_path / "cut", "intraday", model=model)
    first.feed(bars[:500])
    first.engine.close()
    second = Bench(tmp_path / "cut", "intraday", model=model)
    second.feed(bars[500:])
    starts = [one["restored_bars"] for one in second.events() if one["event"] == "start"]

    assert first.signals + second.signals == whole.signals
    assert starts == [0, 0]


def test_a_new_session_is_a_checkpoint(tmp_path: Path) -> None:
    """A killed engine goes through one session's bars again, not through all."""
    bars = pairs(series("intraday"))
    bench = Bench(tmp_path, "intraday", model=student("intraday"))
    bench.feed(bars[:800])
    bench.engine._watch.do_task()
    abandon(bench)
    again = Bench(tmp_path, "intraday", model=student("intraday"))

    assert [one["restored_bars"] for one in again.events() if one["event"] == "start"] == [0, 20]


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.engines import Bench, pairs, series, student
root, strategy, start, stop = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
bench = Bench(root, strategy, model=student(strategy), watch=True)
bench.feed(pairs(series(strategy))[start:stop])
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_a_killed_process_goes_on(tmp_path: Path) -> None:
    """Real processes, really killed: the records on disk are those of one run."""
    bars = pairs(series("intraday"))
    whole = Bench(tmp_path / "whole", "intraday", model=student("intraday"))
    whole.feed(bars)
    cuts = [0, 333, 391, 700, len(bars)]
    for start, stop in itertools.pairwise(cuts):
        words = [sys.executable, "-c", KILLED, str(tmp_path / "cut"), "intraday", str(start), str(stop)]
        run = subprocess.run(words, capture_output=True, text=True, check=False)
        assert run.returncode == -signal.SIGKILL, run.stderr
    after = Bench(tmp_path / "cut", "intraday", model=student("intraday"))

    assert kept(after) == kept(whole)
    assert [{k: v for k, v in one.items() if k != "pid"} for one in trades(after)] == trades(whole)


def test_the_square_off_happens_after_a_restart(tmp_path: Path) -> None:
    """Ended inside a position and started the next day: it is closed at the first open, as missed."""
    bars = pairs(series("intraday"))
    first = Bench(tmp_path, "intraday")
    for count, pair in enumerate(bars[:300]):
        first.feed([pair])
        if first.engine.quantity(SYMBOL) and count > 100:
            break
    abandon(first)
    second = Bench(tmp_path, "intraday")
    assert second.engine.quantity(SYMBOL) == first.engine.quantity(SYMBOL)
    second.feed(bars[390:391])
    closed = trades(second)[-1]

    assert closed["exit_reason"] == "missed_square_off"
    assert closed["exit_time"] == "2003-01-03T14:30:00Z"
    assert second.engine.quantity(SYMBOL) == 0


def test_a_position_keeps_the_rules_it_was_opened_under(tmp_path: Path) -> None:
    """Restarted under other settings: the open position leaves by its own rules, the next one has today's."""
    bars = pairs(series("swing"))
    strict = settings_of(strategy_exit_strength=0.25, swing_max_holding_days=10)
    loose = settings_of(strategy_exit_strength=0.25, swing_max_holding_days=2)
    whole = Bench(tmp_path / "whole", settings=strict)
    whole.feed(bars)
    opened = next(
        i
        for i, one in enumerate(whole.signals)
        if one and one.orders and one.orders[-1].reason == "entry" and i > 150
    )
    left = next(i for i in range(opened + 1, len(bars)) if whole.signals[i].orders)
    assert left - opened > 3, "held longer than today's rules would"
    first = Bench(tmp_path / "cut", settings=strict)
    first.feed(bars[: opened + 2])
    first.engine.close()
    second = Bench(tmp_path / "cut", settings=loose)
    second.engine.warm_up({SYMBOL: series("swing").slice(0, opened + 2)})
    second.feed(bars[opened + 2 :])
    held = [one.orders for one in second.signals[: left - opened - 1]]
    lane = second.engine._lanes[SYMBOL]

    assert held == [one.orders for one in whole.signals[opened + 2 : left + 1]]
    assert lane.strategy.parameters == StrategyParameters.from_settings(loose, "swing")
    fresh = Bench(tmp_path / "fresh", settings=loose)
    fresh.feed(bars)
    assert [one.baseline_strength for one in second.signals[-50:]] == [
        one.baseline_strength for one in fresh.signals[-50:]
    ]


# --- the journal


def test_two_engines_do_not_share_a_state(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The second one keeps none and says so; it trades."""
    first = Bench(tmp_path)
    second = Bench(tmp_path)
    second.feed(series("swing", sessions=60))

    assert first.engine.health()["lost_bars"] == 0
    assert second.engine.health()["lost_bars"] is None
    assert "another engine keeps its state here" in caplog.text
    assert any(second.signals)


def test_a_state_of_other_bars_is_not_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The same name for another strategy or interval: the engine begins anew and says why."""
    first = Bench(tmp_path, config={"name": "desk"})
    first.feed(series("swing", sessions=60))
    first.engine.close()
    second = Bench(tmp_path, "intraday", config={"name": "desk"})

    assert "was kept under another strategy, interval" in caplog.text
    assert second.engine.health()["bars"] == {SYMBOL: 0}


UNCLOSED = """
import sys
from pathlib import Path
from tests.engines import Bench, series
Bench(Path(sys.argv[1]), watch=True).feed(series("swing", sessions=60))
"""


@pytest.mark.slow
def test_a_host_that_forgets_to_close_ends_cleanly(tmp_path: Path) -> None:
    """The engine's thread ends before the interpreter does, and the state is kept."""
    run = subprocess.run(
        [sys.executable, "-c", UNCLOSED, str(tmp_path)], capture_output=True, text=True, check=False
    )
    again = Bench(tmp_path)

    assert (run.returncode, run.stderr) == (0, "")
    restored = sorted(one["restored_bars"] for one in again.events() if one["event"] == "start")
    assert restored == [0, 1], "the checkpoint of the last session was written"
    assert again.engine._lanes[SYMBOL].strategy.bars_seen == 60


def test_half_an_entry_is_no_entry(tmp_path: Path) -> None:
    """A journal that ends in the middle of an entry, or in zeros, ends before it."""
    journal = Journal.open(tmp_path)
    assert journal is not None
    for number in range(5):
        prices = struct.pack("<5d", 1.0, 2.0, 3.0, 4.0, number)
        journal.append(19_000, 0, 0, number, number, prices, (0.5, 1, 0, 1, 0))
    journal.close()
    path = next(tmp_path.glob("*.journal"))
    whole = path.read_bytes()

    assert [(one.start_ns, one.low, one.volume, one.probability) for one in read_journal(path)] == [
        (number, 3.0, number, 0.5) for number in range(5)
    ]
    path.write_bytes(whole[:-7])
    assert len(list(read_journal(path))) == 4
    path.write_bytes(whole + bytes(400))
    assert len(list(read_journal(path))) == 5
    path.write_bytes(whole[:200] + b"X" + whole[201:])
    assert len(list(read_journal(path))) == 2


def test_a_damaged_checkpoint_begins_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is said, and the engine starts as if there had been none."""
    bench = Bench(tmp_path)
    bench.feed(series("swing", sessions=60))
    bench.engine.close()
    state = tmp_path / "data/engine/swing/state.json"
    state.write_text(state.read_text().replace('"quantity":0', '"quantity":7', 1))
    again = Bench(tmp_path)

    assert "cannot be read" in caplog.text
    assert again.engine.health()["bars"] == {SYMBOL: 0}


def _no_room() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


FULL = """
import json, sys
from pathlib import Path
from tests.engines import Bench, pairs, series, student
import tests.test_engine_restart as here
bars = pairs(series("intraday", sessions=2))
bench = Bench(Path(sys.argv[1]), "intraday", model=student("intraday"))
bench.feed(bars[:100])
here._no_room()
bench.feed(bars[100:])
health = bench.engine.health()
print(json.dumps({"signals": repr(bench.signals), "lost": health["lost_records"], "bars": health["bars"]}))
"""


@pytest.mark.slow
def test_a_full_disk_stops_no_tick(tmp_path: Path) -> None:
    """Records and bars that cannot be kept are counted, said once; every signal is as on a healthy disk."""
    bars = pairs(series("intraday", sessions=2))
    healthy = Bench(tmp_path / "healthy", "intraday", model=student("intraday"))
    healthy.feed(bars)
    words = [sys.executable, "-W", "error", "-c", FULL, str(tmp_path / "full")]
    run = subprocess.run(words, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)

    assert found["signals"] == repr(healthy.signals)
    assert found["lost"] >= len(bars) - 100
    assert run.stderr.count("telemetry cannot be written") <= 3, "once for each file"


def test_a_folder_that_cannot_be_written_stops_nothing(
    tmp_path: Path, without_root_rights: list[str]
) -> None:
    """Read-only from the start: no state, no telemetry, every signal."""
    bars = pairs(series("swing", sessions=120))
    healthy = Bench(tmp_path / "healthy", model=student())
    healthy.feed(bars)
    place = tmp_path / "locked"
    (place / "data").mkdir(parents=True)
    (place / "data").chmod(0o500)
    code = (
        "import sys; from pathlib import Path; from tests.engines import Bench, pairs, series, student; "
        "bench = Bench(Path(sys.argv[1]), model=student()); bench.feed(pairs(series('swing', sessions=120))); "
        "print(repr(bench.signals))"
    )
    words = [*without_root_rights, sys.executable, "-c", code, str(place)]
    run = subprocess.run(words, capture_output=True, text=True, check=False)
    (place / "data").chmod(0o700)

    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == repr(healthy.signals)
    shutil.rmtree(place)
