"""`MonitoringService`: the same state by queue, by file, in any portions, over kills; one holder a slot."""

from __future__ import annotations

import datetime as dt
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from sqkit.errors import ConflictError
from sqkit.production.alert_channels import ALERTS_FILE
from sqkit.production.monitor_machine import (
    CONFIRMING,
    HALT,
    HALTED,
    OK,
    ROLLED_BACK,
    STUDENT_HALTED,
    VERIFYING,
    Done,
    Request,
)
from sqkit.production.monitor_rehearsal import Watched, rebuild
from sqkit.production.monitor_store import MONITORING_FOLDER, STATE_FILE, MonitorStore
from sqkit.production.monitoring import MonitoringService, stored_status
from sqkit.settings import Settings
from tests.monitored import BASELINE, EARLIER, LIVE, Market, baseline_of, behaviour_of, write_telemetry

ROOT = Path(__file__).resolve().parents[1]
GOOD, BAD = (0.6, 0.6), (0.45, 0.6)


def settings(**changes: Any) -> Settings:
    """A project that is monitored."""
    return Settings(_env_file=None, **({"market": "us", "student_monitoring_enabled": True} | changes))


def service(root: Path, **more: Any) -> MonitoringService:
    """A service of the intraday strategy, polled by hand."""
    given: dict[str, Any] = {
        "strategy": "intraday",
        "market": "us",
        "interval": "1m",
        "root": root,
        "baseline_of": baseline_of,
    }
    return MonitoringService(settings(student_auto_rollback_enabled="on_breach" in more), **(given | more))


def contents(root: Path) -> dict[str, list[tuple[Any, ...]]]:
    """All that the state file knows of the slot."""
    store = MonitorStore(root / "data" / MONITORING_FOLDER / STATE_FILE, read_only=True)
    try:
        return store.contents("default")
    finally:
        store.close()


@pytest.fixture(scope="module")
def market() -> Market:
    """A model that fails from the fourth session on; the earlier release does not."""
    return Market(7, {0: GOOD, 3: BAD})


def test_alerts_go_out_once_and_end(tmp_path: Path, market: Market) -> None:
    """One line when it begins, with what will happen and what to type; none while it lasts, however often polled."""
    folder = tmp_path / "data/telemetry"
    one = service(tmp_path)
    for number in range(7):
        write_telemetry(folder, market.records(range(number, number + 1)))
        one.poll()
        one.poll()
    one.close()
    said = [
        json.loads(line) for line in (tmp_path / "data/monitoring" / ALERTS_FILE).read_text().splitlines()
    ]
    sequential = [alert for alert in said if alert["name"] == "sequential_hit_ratio"]

    assert len(sequential) == 1
    assert sequential[0]["model"] == LIVE
    assert "is false" in sequential[0]["will"]
    assert any(command.startswith("sqkit rollback") for command in sequential[0]["commands"])
    assert one.status()["state"] == CONFIRMING


def test_rolling_metrics_and_degradation_as_the_user_names_them(tmp_path: Path, market: Market) -> None:
    """`evaluate_student_model_performance` and `check_student_model_degradation`, before and after the loss."""
    folder = tmp_path / "data/telemetry"
    one = service(tmp_path)
    write_telemetry(folder, market.records(range(3)))
    assert one.check_student_model_degradation() is None
    good = one.evaluate_student_model_performance()["hit_ratio"]
    write_telemetry(folder, market.records(range(3, 6)))
    alert = one.check_student_model_degradation()

    assert good["value"] == pytest.approx(0.6, abs=0.04)
    assert good["baseline"] == 0.6
    assert alert is not None
    assert alert.confirmed
    assert (alert.slot, alert.model, alert.restores) == ("default", LIVE, EARLIER)
    one.close()


def test_by_queue_and_by_file_is_the_same(tmp_path: Path, market: Market) -> None:
    """Handed over line by line with its place, or read from the file later: to the bit the same state."""
    records = list(market.records(range(5)))
    by_file, by_queue = tmp_path / "file", tmp_path / "queue"
    write_telemetry(by_file / "data/telemetry", iter(records))
    reading = service(by_file)
    reading.poll()
    reading.close()

    hearing = service(by_queue)
    hearing.poll()
    sizes: dict[str, int] = {}
    for at, record in enumerate(records):
        write_telemetry(by_queue / "data/telemetry", iter([record]))
        path, line = f"{record['session_date']}/host-1.jsonl", orjson.dumps(record) + b"\n"
        begins = sizes.get(path, 0)
        sizes[path] = begins + len(line)
        if at % 7:  # some never reach the queue: they are read from the file
            hearing.hear(path, begins, sizes[path], line)
        if at % 50 == 0:
            hearing.poll()
    hearing.close()

    assert contents(by_queue) == contents(by_file)


def test_two_hosts_that_write_the_same_count_once(tmp_path: Path, market: Market) -> None:
    """Their files are read together; the second record of a decision is a duplicate."""
    folder = tmp_path / "data/telemetry"
    write_telemetry(folder, market.records(range(3)))
    write_telemetry(folder, market.records(range(3)), "host-2.jsonl")
    one = service(tmp_path)
    one.poll()
    status = one.status()
    one.close()

    assert status["counts"]["duplicate"] == status["counts"]["predictions"] == 3 * 390 * 3
    assert status["counts"].get("conflicting", 0) == 0


def test_torn_and_foreign_lines_stop_nobody(tmp_path: Path, market: Market) -> None:
    """A line that is no record, one of another slot, a half one at the end: the rest counts, the half one when it is whole."""
    folder = tmp_path / "data/telemetry"
    records = list(market.records(range(2)))
    write_telemetry(folder, iter(records[:500]))
    place = next(folder.glob("*/host-1.jsonl"))
    with place.open("ab") as stream:
        stream.write(b'{"event": "prediction"\nnonsense\n')
        stream.write(orjson.dumps({**records[500], "slot": "swing"}) + b"\n")
        stream.write(orjson.dumps({**records[500], "bar": None}) + b"\n")
        whole = orjson.dumps(records[500]) + b"\n"
        stream.write(whole[:40])
    one = service(tmp_path)
    one.poll()
    assert one.status()["counts"]["predictions"] == 500
    with place.open("ab") as stream:
        stream.write(whole[40:])
    one.poll()

    assert one.status()["counts"]["predictions"] == 501
    assert one.status()["counts"]["broken"] == 1
    one.close()


def test_one_holds_the_slot_and_another_takes_over(tmp_path: Path, market: Market) -> None:
    """The second reads what the first kept; when the first is gone it goes on where that was."""
    folder = tmp_path / "data/telemetry"
    write_telemetry(folder, market.records(range(2)))
    first, second = service(tmp_path), service(tmp_path)
    first.poll()
    second.poll()
    assert first.status()["holder"]
    assert not second.status()["holder"]
    assert second.status()["state"] == first.status()["state"] == OK
    first.close()
    write_telemetry(folder, market.records(range(2, 3)))
    second.poll()

    assert second.status()["holder"]
    assert second.status()["counts"]["predictions"] == 3 * 390 * 3
    assert second.status()["counts"].get("duplicate", 0) == 0
    second.close()


class Acts:
    """Does what is asked for and counts it."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def __call__(self, request: Request) -> Done:
        """Restored."""
        self.requests.append(request)
        return Done(ROLLED_BACK, request.restores, at="2003-01-10T21:00:00Z")


def test_what_was_asked_for_before_a_crash_is_asked_again(tmp_path: Path, market: Market) -> None:
    """Killed between the request and its answer: the restart asks with the same id, and goes on with what came of it."""
    write_telemetry(tmp_path / "data/telemetry", market.records(range(6)))

    def dies(request: Request) -> Done:
        raise KeyboardInterrupt(request.id)

    first = service(tmp_path, on_breach=dies)
    with pytest.raises(KeyboardInterrupt, match="default/") as died:
        first.poll()
    first._let_go()
    acts = Acts()
    second = service(tmp_path, on_breach=acts)
    second.poll()

    assert [request.id for request in acts.requests] == [str(died.value)]
    assert second.status()["state"] == VERIFYING
    second.close()


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.test_monitoring import Acts, service
one = service(Path(sys.argv[1]), on_breach=Acts())
one.poll()
one.close()
print("done", flush=True)
"""


@pytest.mark.slow
def test_killed_anywhere_it_ends_as_if_it_had_not_been(tmp_path: Path, market: Market) -> None:
    """SIGKILL of the real process at many moments, restarted each time: state, steps and outcomes to the bit."""

    def records() -> Iterator[dict[str, Any]]:
        yield from market.records(range(6))
        yield from market.records(range(6, 7), model=EARLIER, previous=None)

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for root in (whole, cut):
        write_telemetry(root / "data/telemetry", records())
    uncut = service(whole, on_breach=Acts())
    uncut.poll()
    uncut.close()
    assert any(step["after"] == VERIFYING for step in steps(whole))

    kills, wait = 0, 0.6
    while True:
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED.format(root=str(ROOT)), str(cut)], stdout=subprocess.PIPE, text=True
        )
        try:
            said, _ = process.communicate(timeout=wait)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills, wait = kills + 1, wait + 0.12
            continue
        assert said == "done\n"
        break

    assert kills >= 3
    assert contents(cut) == contents(whole)


def steps(root: Path) -> list[dict[str, Any]]:
    """Changes of state that were kept."""
    store = MonitorStore(root / "data" / MONITORING_FOLDER / STATE_FILE, read_only=True)
    try:
        return store.steps("default")
    finally:
        store.close()


def watched(root: Path, **changes: Any) -> Watched:
    """The slot of such a project, for a rehearsal."""
    return Watched(settings(**changes), "intraday", "us", "1m", root, baseline_of)


def test_a_rebuild_gives_the_same_to_the_bit(tmp_path: Path, market: Market) -> None:
    """From telemetry alone, in one go, what a service kept portion by portion."""
    folder = tmp_path / "data/telemetry"
    one = service(tmp_path)
    for number in range(5):
        write_telemetry(folder, market.records(range(number, number + 1)))
        one.poll()
    with pytest.raises(ConflictError, match="monitored by a running process"):
        rebuild(watched(tmp_path))
    one.close()
    before = contents(tmp_path)
    told = rebuild(watched(tmp_path))

    assert told["differs"] == []
    assert told["records"] == 5 * 390 * 3
    assert contents(tmp_path) == before


def test_a_lost_state_is_rebuilt(tmp_path: Path, market: Market) -> None:
    """Without its file, and with another one in its place: the state is that of the telemetry."""
    write_telemetry(tmp_path / "data/telemetry", market.records(range(4)))
    one = service(tmp_path)
    one.poll()
    one.close()
    before = contents(tmp_path)
    (tmp_path / "data" / MONITORING_FOLDER / STATE_FILE).unlink()
    told = rebuild(watched(tmp_path))

    assert "slots" in told["differs"]
    assert contents(tmp_path) == before


def test_the_thread_works_beside_the_caller_and_ends(tmp_path: Path, market: Market) -> None:
    """Started, it takes what comes; closed, it leaves the lock to others."""
    one = service(tmp_path)
    one.start()
    write_telemetry(tmp_path / "data/telemetry", market.records(range(1)))
    one.record_student_prediction({"slot": "other", "strategy": "intraday", "event": "prediction"})
    until = time.monotonic() + 20
    while not stored_status(tmp_path / "data/monitoring/state.sqlite", "default").get("rolling"):
        assert time.monotonic() < until
        time.sleep(0.05)
    one.close()

    assert one._thread is not None
    assert not one._thread.is_alive()
    assert service(tmp_path)._holds()


def test_a_full_disk_stops_no_thread(
    tmp_path: Path, market: Market, caplog: pytest.LogCaptureFixture
) -> None:
    """A state file that cannot be written is said once and tried again; nothing is lost when it can."""
    write_telemetry(tmp_path / "data/telemetry", market.records(range(2)))
    one = service(tmp_path)
    one.poll()
    assert one._store is not None
    one._store._base.execute("pragma max_page_count = 1")
    write_telemetry(tmp_path / "data/telemetry", market.records(range(2, 4)))
    one._guarded_poll()
    one._guarded_poll()
    assert one.failures == 2
    assert sum("monitoring failed" in record.message for record in caplog.records) == 1
    one._store._base.execute("pragma max_page_count = 1073741823")
    one._guarded_poll()

    assert one.failures == 2
    assert one.status()["counts"]["predictions"] == 4 * 390 * 3
    one.close()


# --- what needs no outcome, and what only a clock knows


@pytest.fixture(scope="module")
def usual() -> Market:
    """Twenty symbols whose model behaves as usual."""
    return Market(14, {0: GOOD}, symbols=20, seed=5)


def behaving(usual: Market) -> Any:
    """What a model was validated at, its behaviour included: measured on the first sessions of the market."""
    profile = behaviour_of(usual, range(12))
    return lambda model: (
        replace(BASELINE, behaviour=profile, symbols=20) if model == LIVE else baseline_of(model)
    )


def all_long(record: dict[str, Any]) -> dict[str, Any]:
    """A record of a model that calls everything LONG."""
    return {**record, "student_prediction": "LONG", "student_probability_up": 0.99, "reason": "scored"}


def never(record: dict[str, Any]) -> dict[str, Any]:
    """A record of a model that never says anything."""
    return {**record, "student_prediction": "FLAT", "student_probability_up": None, "reason": "error"}


@pytest.mark.parametrize("fault", [all_long, never])
def test_a_model_that_behaves_oddly_alerts_within_five_minutes(
    fault: Any, tmp_path: Path, usual: Market
) -> None:
    """Long before any outcome says so; by default nothing is done about it."""
    folder = tmp_path / "data/telemetry"
    records = list(usual.records(range(12, 14)))
    breaks = 20 * (390 + 100)
    one = service(tmp_path, baseline_of=behaving(usual))
    write_telemetry(folder, iter(records[:breaks]))
    one.poll()
    assert one.status()["behaviour"] == {}
    write_telemetry(folder, (fault(record) for record in records[breaks : breaks + 20 * 6]))
    one.poll()
    status = one.status()
    one.close()

    assert status["behaviour"]
    alert = next(alert for alert in status["alerts"] if alert["name"].startswith("behaviour_"))
    assert "behaviour never rolls back" in alert["will"]
    assert status["state"] == OK


def test_behaviour_may_halt_where_it_is_allowed_to(tmp_path: Path, usual: Market) -> None:
    """With `student_behaviour_halt_enabled` the student is halted, and nothing else is ever asked for."""
    folder = tmp_path / "data/telemetry"
    records = list(usual.records(range(12, 14)))
    breaks = 20 * (390 + 100)
    write_telemetry(folder, iter(records[:breaks]))
    write_telemetry(folder, (all_long(record) for record in records[breaks : breaks + 20 * 6]))
    asked: list[Request] = []

    def halts(request: Request) -> Done:
        asked.append(request)
        return Done(STUDENT_HALTED, reason=request.reason, at="2004-01-01T00:00:00Z")

    one = MonitoringService(
        settings(student_behaviour_halt_enabled=True),
        strategy="intraday",
        market="us",
        interval="1m",
        root=tmp_path,
        baseline_of=behaving(usual),
        on_breach=halts,
    )
    one.poll()
    status = one.status()
    one.close()

    assert [request.kind for request in asked] == [HALT]
    assert "does not behave as validated" in asked[0].reason
    assert status["state"] == HALTED


def test_no_bar_while_the_market_is_open_alerts_and_changes_no_state(tmp_path: Path, market: Market) -> None:
    """Only a clock knows it; the alert ends with the next bar, and over night nothing is wrong."""
    records = list(market.records(range(2)))
    now = [0]
    one = service(tmp_path, now_ns=lambda: now[0])
    write_telemetry(tmp_path / "data/telemetry", iter(records[: 390 * 3 + 300]))
    last = int(dt.datetime.fromisoformat(records[390 * 3 + 299]["decision_time"]).timestamp()) * 10**9

    def names(at_ns: int) -> list[str]:
        now[0] = at_ns
        one.poll()
        return [alert["name"] for alert in one.status()["alerts"]]

    assert "feed_stale" not in names(last + 60 * 10**9)
    assert "feed_stale" in names(last + 600 * 10**9)
    before = one.status()["state"]
    assert one.status()["feed_age_seconds"] == 600
    assert "feed_stale" not in names(last + 8 * 3600 * 10**9)
    assert one.status()["state"] == before
    one.close()


def test_metrics_are_served_where_the_settings_say(tmp_path: Path, market: Market) -> None:
    """A scrape over HTTP has the model, the state and the records that this process's engine made."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    one = MonitoringService(
        settings(metrics_port=port),
        strategy="intraday",
        market="us",
        interval="1m",
        root=tmp_path,
        baseline_of=baseline_of,
    )
    records = list(market.records(range(1)))
    write_telemetry(tmp_path / "data/telemetry", iter(records))
    one.start()
    line = orjson.dumps(records[0]) + b"\n"
    one.hear(f"{records[0]['session_date']}/host-1.jsonl", 0, len(line), line)
    until, text = time.monotonic() + 20, ""
    while "sqkit_predictions_total{" not in text or f'digest="{LIVE}"' not in text:
        assert time.monotonic() < until, text
        time.sleep(0.1)
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
    one.close()

    assert 'sqkit_monitoring_state{slot="default",state="HALTED",strategy="intraday"} 0.0' in text
    assert 'sqkit_rolling_metric_ratio{metric="hit_ratio"' in text
