"""What a red team tried on monitoring: nothing is done to the wrong release, twice, or because of a damaged file."""

from __future__ import annotations

import os
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from sqkit.audit_log import HALT, ROLLBACK
from sqkit.production.interventions import resume
from sqkit.production.monitor_actions import PromoterActions
from sqkit.production.monitor_machine import HALT as ASK_HALT
from sqkit.production.monitor_machine import HALTED, OK, REFUSED, ROLLED_BACK, Done, Request
from sqkit.production.monitor_machine import ROLL_BACK as ASK_ROLL_BACK
from sqkit.production.monitor_rehearsal import rebuild
from sqkit.production.monitor_store import IN_MEMORY
from sqkit.production.monitoring import MonitoringService
from sqkit.production.telemetry_tail import TelemetryTail
from tests.engines import Bench, pairs, series, settings_of, student
from tests.monitored import EARLIER, LIVE, Market, write_telemetry
from tests.test_monitor_machine import GOOD, Rig
from tests.test_monitoring import service, watched
from tests.watched import Watched, project

DAYS = "2003-01-02T15:00:00Z"


class OwnSink:
    """A host's own place for records."""

    lost = 0

    def write(self, session_day: int, record: dict[str, Any]) -> bool:
        """Taken."""
        return True

    def event(self, record: dict[str, Any]) -> bool:
        """Taken."""
        return True

    def close(self) -> None:
        """Nothing."""


def test_a_host_with_its_own_numbers_and_sink_trades_on(tmp_path: Path) -> None:
    """Bars of decimals, no file: monitoring hears every decision, and no tick fails for it."""
    monitor = MonitoringService(
        settings_of(), strategy="swing", market="us", interval="1d", root=tmp_path, state=IN_MEMORY
    )
    bench = Bench(tmp_path, "swing", model=student("swing"), sink=OwnSink(), monitor=monitor)
    prices = ("open", "high", "low", "close", "volume")
    bench.feed(
        (replace(bar, **{name: Decimal(str(getattr(bar, name))) for name in prices}), at)
        for bar, at in pairs(series("swing"))
    )
    monitor.poll()

    assert sum(signal is not None for signal in bench.signals) > 250
    assert monitor.status()["counts"]["predictions"] == 380


def asked(made: Watched, kind: str, model: str, raised_at: str = DAYS) -> Request:
    """What a machine asks for about a model."""
    return Request(
        f"default/9/{model}/{raised_at}", kind, "default", model, "", raised_at, "worse", {"pair": 30.0}
    )


@pytest.mark.parametrize("kind", [ASK_HALT, ASK_ROLL_BACK])
def test_evidence_about_a_model_that_is_not_live_does_nothing(kind: str, tmp_path: Path) -> None:
    """A person promoted meanwhile: the new release is neither halted nor rolled back on the old one's evidence."""
    made = project(tmp_path)
    model = made.entries[1]["digests"]["model"][:12]
    made.promote(3, "2003-01-03T10:00:00+00:00")
    lines = len(made.entries)
    done = PromoterActions("default", made.monitored(), tmp_path, lambda: made.now)(asked(made, kind, model))

    assert done.kind == REFUSED
    assert "not live any more" in done.reason
    assert len(made.entries) == lines


def test_a_halt_is_done_once_and_not_over_a_persons_resume(tmp_path: Path) -> None:
    """Asked again after a crash it is found in the log; asked about older evidence than a resume it is refused."""
    made = project(tmp_path)
    model = made.entries[1]["digests"]["model"][:12]
    made.on("2003-01-03T10:00:00+00:00")
    act = PromoterActions("default", made.monitored(), tmp_path, lambda: made.now)
    request = asked(made, ASK_HALT, model)
    first = act(request)
    made.on("2003-01-04T10:00:00+00:00")
    resume(made.production, "default", "looked at it")
    again, other = act(request), act(replace(request, id="default/11/other"))

    assert first.kind == again.kind == "halted"
    assert first.at == again.at
    assert other.kind == REFUSED
    assert "acted after the alert" in other.reason
    assert [entry["kind"] for entry in made.entries].count(HALT) == 1
    assert made.state.halted is None


def test_an_old_rollback_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    """The same step number about another model is another request."""
    made = project(tmp_path)
    model = made.entries[1]["digests"]["model"][:12]
    made.on("2003-01-05T10:00:00+00:00")
    act = PromoterActions("default", made.monitored(), tmp_path, lambda: made.now)
    first = act(asked(made, ASK_ROLL_BACK, model))
    made.promote(3, "2003-01-06T10:00:00+00:00")
    third = made.entries[-1]["digests"]["model"][:12]
    second = act(asked(made, ASK_ROLL_BACK, third, "2003-01-07T15:00:00Z"))

    assert first.kind == ROLLED_BACK
    assert second.kind == REFUSED  # twelve hours have not passed
    assert made.live == 3
    assert [entry["kind"] for entry in made.entries].count(ROLLBACK) == 1


def test_hosts_that_serve_two_models_in_turn_flip_nothing() -> None:
    """Bar by bar another model: the watched one stays until the other has the majority for some bars in a row."""
    market = Market(4, {0: GOOD}, symbols=1)
    one = list(market.records(range(4)))
    two = list(market.records(range(4), model=EARLIER, previous=None))
    rig = Rig().feed(one[:780])
    rig.feed(two[at] if at % 2 else one[at] for at in range(780, 1170))

    assert rig.machine.watch is not None
    assert rig.machine.watch.model == LIVE
    assert sum("is served in place" in step.reason for step in rig.steps) == 0


def test_a_refused_halt_leaves_the_state_as_it_was() -> None:
    """Asked for by behaviour and refused: the machine goes on where it was."""
    market = Market(3, {0: GOOD})
    rig = Rig().feed(market.records(range(2)))
    assert rig.machine.state == OK
    steps = rig.machine.ask_halt("all_long", {}, rig.closed[-1])
    steps += rig.machine.acted(Done(REFUSED, reason="no room"), rig.closed[-1])
    rig.feed(market.records(range(2, 3)))

    assert [step.after for step in steps] == ["ROLLING_BACK", OK]
    assert rig.machine.state in (OK, "ALERTING")


def test_a_resume_between_two_bars_is_seen() -> None:
    """Halted and resumed before any bar said so: rows that were decided after the halt end it."""
    market = Market(6, {0: GOOD, 2: (0.4, 0.4)})
    rig = Rig(answer=lambda request: Done("halted")).feed(market.records(range(4), previous=None))
    assert rig.machine.state == HALTED
    rig.feed(market.records(range(4, 6)))

    assert "the slot was resumed" in [step.reason for step in rig.steps]


def test_a_request_that_nobody_may_do_any_more_is_refused(tmp_path: Path) -> None:
    """Killed while it was asked, started again with automatic rollback off: monitoring goes on."""
    write_telemetry(tmp_path / "data/telemetry", Market(6, {0: GOOD, 3: (0.4, 0.6)}).records(range(6)))

    def dies(request: Request) -> Done:
        raise KeyboardInterrupt

    first = service(tmp_path, on_breach=dies)
    with pytest.raises(KeyboardInterrupt):
        first.poll()
    first._let_go()
    second = service(tmp_path)
    second.poll()
    status = second.status()
    second.close()

    assert status["refused"] == "nothing may be done by itself now"
    assert status["pending_outcomes"] < 100


def test_files_that_are_damaged_stop_nobody(tmp_path: Path) -> None:
    """A line of ten million bytes, a file that shrank, values of another kind, a pipe: counted or passed over."""
    folder = tmp_path / "data/telemetry"
    records = list(Market(2, {0: GOOD}, symbols=1).records(range(2)))
    write_telemetry(folder, iter(records[:300]))
    place = next(folder.glob("*/host-1.jsonl"))
    odd = [{"latency_us": "slow"}, {"symbol": 5}, {"student_model_digest": 7}, {"reason": ["scored"]}]
    with place.open("ab") as stream:
        stream.write(b'{"x": "' + b"y" * 10_000_000 + b'"}\n')
        stream.writelines(orjson.dumps({**records[300], **one}) + b"\n" for one in odd)
    write_telemetry(folder, iter(records[300:]))
    os.mkfifo(place.with_name("pipe.jsonl"))
    one = service(tmp_path)
    one.poll()
    status = one.status()
    one.close()

    assert status["counts"]["predictions"] == len(records)
    assert status["counts"]["broken"] == len(odd)
    assert status["broken_lines"] >= 1
    tail = TelemetryTail(folder, "default", "intraday", {place.relative_to(folder).as_posix(): 10**9})
    assert sum(len(lines) for lines in tail.new(place.parent.name)) > 300


def test_a_state_that_cannot_be_used_is_set_aside_by_a_rebuild(tmp_path: Path) -> None:
    """No database, or one of another version: the advice in the message works."""
    write_telemetry(tmp_path / "data/telemetry", Market(2, {0: GOOD}, symbols=1).records(range(2)))
    state = tmp_path / "data/monitoring/state.sqlite"
    state.parent.mkdir(parents=True)
    state.write_bytes(b"this is no database" * 100)
    done = rebuild(watched(tmp_path))

    assert done["aside"] is not None
    assert Path(done["aside"]).is_file()
    assert rebuild(watched(tmp_path))["differs"] == []


def test_two_hosts_that_differ_in_time_alone_are_rebuilt_to_the_bit(tmp_path: Path) -> None:
    """The earlier decision counts, whichever was read first."""
    folder = tmp_path / "data/telemetry"
    records = list(Market(2, {0: GOOD}, symbols=1).records(range(2)))
    later = [
        {**one, "decision_time": one["decision_time"].replace("Z", ".500000Z"), "latency_us": 90.0}
        for one in records
    ]
    one = service(tmp_path)
    for start in range(0, 160, 4):
        write_telemetry(folder, iter(later[start : start + 4]), "host-2.jsonl")
        one.poll()
        write_telemetry(folder, iter(records[start : start + 4]))
        one.poll()
    one.close()

    assert rebuild(watched(tmp_path))["differs"] == []
