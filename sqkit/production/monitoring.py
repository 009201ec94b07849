"""`MonitoringService`: watches the live model of a slot, on a thread of its own, never inside a tick.

An engine hands it every telemetry line by a queue; lines of other engines it reads from their files on shared
storage. One service a slot holds that slot's lock, writes the state and acts; the others wait, and take over when the
holder dies. It does not know the promoter: `on_breach` does what is asked for. See ``docs/monitoring.md``.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from sqkit.files import lock_file, sha256_json
from sqkit.monitoring_baseline import MonitoringRules
from sqkit.monitoring_rates import implied
from sqkit.production.alert_channels import Channels
from sqkit.production.alerts import Alert
from sqkit.production.audit import AuditLog
from sqkit.production.bar_clock import BarClock
from sqkit.production.feed_watch import FeedWatch
from sqkit.production.monitor_log import COMPONENT, logger
from sqkit.production.monitor_machine import Done, Request, Step
from sqkit.production.monitor_store import (
    IN_MEMORY,
    MONITORING_FOLDER,
    STATE_FILE,
    MonitorStore,
    store_errors,
)
from sqkit.production.outcomes import DegradationAlert
from sqkit.production.release_baselines import ReleaseBaselines
from sqkit.production.slot_monitor import BaselineOf, SlotMonitor
from sqkit.production.slots import models_folder, slot_named
from sqkit.production.telemetry import TELEMETRY_FOLDER, encoded
from sqkit.production.telemetry_tail import Line, TelemetryTail
from sqkit.sessions import load_sessions
from sqkit.settings import Settings

if TYPE_CHECKING:
    from sqkit.production.exporter import Exporter


POLL_SECONDS: Final = 1.0
QUEUE_LINES: Final = 100_000
_LATEST_DAYS: Final = 3


class MonitoringService:
    """Watches one slot.

    Parameters
    ----------
    settings, root
        Settings, and the project's root.
    strategy, market, interval
        Of the slot's bars.
    baseline_of
        What a model was validated at, by the first digits of its digest; by default the release says it.
    on_breach
        Does a rollback or halt that the evidence asks for and says what came of it; None: nobody does.
    on_steps
        Told of changes of state, each slot's in order; told of them again after a restart.
    channels
        Where alerts go; by default those of the settings, and nowhere where the state is in memory.
    state, telemetry
        The state file and the telemetry folder, by default below the data folder.
    now_ns
        Gives the present, UTC nanoseconds: how long no bar came. Nothing else asks it.

    Examples
    --------
    ::

        service = MonitoringService(Settings(), strategy="swing", market="us", interval="1d")
        service.start()                                   # an Engine does this by itself
        service.evaluate_student_model_performance()      # rolling metrics beside the validated ones
        service.check_student_model_degradation()         # what is wrong, or None
    """

    def __init__(
        self,
        settings: Settings,
        *,
        strategy: str,
        market: str,
        interval: str,
        root: Path = Path(),
        baseline_of: BaselineOf | None = None,
        on_breach: Callable[[Request], Done] | None = None,
        on_steps: Callable[[Iterable[Step]], None] | None = None,
        channels: Channels | None = None,
        state: Path | str | None = None,
        telemetry: Path | None = None,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.settings = settings
        self.slot = slot_named(settings, strategy, root)
        self.strategy = strategy
        data = root / settings.data_dir
        self._folder = data / MONITORING_FOLDER
        self._state = state if state is not None else self._folder / STATE_FILE
        self._telemetry = telemetry or data / TELEMETRY_FOLDER
        models = models_folder(settings, root)
        log = AuditLog(models, (self.slot.release_path,))
        self._baseline_of = baseline_of or ReleaseBaselines(models, self.slot, log)
        self._clock = BarClock(load_sessions(market, settings.sessions_file), interval)
        self._on_breach = on_breach
        self._on_steps = on_steps
        self._channels = channels or (Channels.none() if state == IN_MEMORY else Channels(settings, root))
        self._queue: deque[tuple[str, int, int, bytes]] = deque(maxlen=QUEUE_LINES)
        self._working = threading.RLock()
        self._wake = threading.Event()
        self._stop = False
        self._thread: threading.Thread | None = None
        self._lock = -1
        self._store: MonitorStore | None = None
        self.monitor: SlotMonitor | None = None
        self._tail: TelemetryTail | None = None
        self._caught_up = False
        self._feed = FeedWatch(self.slot.name, strategy, settings.feed_stale_seconds, now_ns)
        self._latest: dict[str, Any] = {}
        self._implied: dict[str, Any] | None = None
        self._implied_of = ""
        self._exporter: Exporter | None = None
        self.failures = 0
        self._failed = False
        self._said: set[str] = set()

    # --- what an engine calls, inside a tick: nothing here waits

    def hear(self, path: str, begins: int, ends: int, line: bytes) -> None:
        """Take a telemetry line that was written at a place of a file below the telemetry folder."""
        self._queue.append((path, begins, ends, line))
        self._wake.set()

    def record_student_prediction(self, record: Mapping[str, Any]) -> None:
        """Take a telemetry record that is in no file: from a host that writes none.

        It is judged like the others, but no rebuild will find it.
        """
        self.hear("", 0, 0, encoded(record))

    # --- what anybody may ask

    def evaluate_student_model_performance(self) -> dict[str, Any]:
        """Rolling precision, hit ratio and accuracy of the served model beside the validated ones.

        Returns
        -------
        dict
            Metric to ``value``, ``count`` and ``baseline``; empty before any prediction was judged.
        """
        rolling: dict[str, Any] = self.status().get("rolling", {})
        return rolling

    def check_student_model_degradation(self) -> DegradationAlert | None:
        """Look now, and say whether the sequential evidence is against the served model; None where it is not."""
        self.poll()
        with self._working:
            return self.monitor.degradation() if self.monitor is not None else None

    def status(self) -> dict[str, Any]:
        """Everything that is known of the slot, plain JSON; see `sqkit.production.slot_monitor.SlotMonitor.status`."""
        with self._working:
            if self.monitor is not None:
                return self._status_now(self.monitor)
        return stored_status(self._state, self.slot.name) | {"holder": False}

    def implies(self) -> dict[str, Any] | None:
        """What the settings imply for the watched model (`sqkit.monitoring_rates.implied`); the first time takes seconds."""
        with self._working:
            return self._implies(self.monitor) if self.monitor is not None else self.status().get("implies")

    def _status_now(self, monitor: SlotMonitor) -> dict[str, Any]:
        known = monitor.status()
        feed = [alert.to_dict() for alert in self._feed.firing()]
        about = {"alerts": [*known["alerts"], *feed], "holder": True, **self._feed.figures()}
        return (
            known
            | about
            | {
                "broken_lines": self._tail.broken if self._tail else 0,
                "channel_problems": self._channels.problems(),
                "implies": self._implied,
            }
        )

    def _implies(self, monitor: SlotMonitor) -> dict[str, Any] | None:
        """What the settings imply for the model that is watched; worked out once, which takes seconds, and said."""
        assert self._store is not None
        watch, slot = monitor.machine.watch, self.slot.name
        if watch is None or watch.baseline is None:
            return None
        of = sha256_json([watch.baseline.to_dict(), monitor.rules.to_dict()])
        if of == self._implied_of:
            return self._implied
        found = self._store.implied(slot, of)
        if found is None:
            found = implied(watch.baseline, monitor.rules)
            self._store.keep_implied(slot, of, found)
            for line in found["warnings"]:
                logger.warning("slot %s: %s", slot, line, extra=COMPONENT)
        self._implied, self._implied_of = found, of
        return found

    def steps(self) -> list[dict[str, Any]]:
        """Every change of state of the slot that is kept, oldest first."""
        return self._stored(lambda store: store.steps(self.slot.name))

    def outcomes(self) -> list[tuple[Any, ...]]:
        """Judged predictions of the slot with their outcome; see `sqkit.production.monitor_store.MonitorStore.outcomes`."""
        return self._stored(lambda store: store.outcomes(self.slot.name))

    def _stored(self, ask: Callable[[MonitorStore], list[Any]]) -> list[Any]:
        """What the state file says, whoever holds the slot; nothing where there is none."""
        with self._working:
            if self._store is not None:
                return ask(self._store)
        if not isinstance(self._state, Path) or not self._state.is_file():
            return []
        store = MonitorStore(self._state, read_only=True)
        try:
            return ask(store)
        finally:
            store.close()

    # --- the work

    def start(self) -> None:
        """Begin to watch, on a thread that ends with the process, and to serve metrics where the settings ask for it."""
        if self.settings.metrics_port:
            from sqkit.production.exporter import serve_metrics  # a library that nobody else needs

            self._exporter = serve_metrics(
                self.settings, lambda: [self._latest], failures=lambda: self._channels.failures
            )
        self._thread = threading.Thread(target=self._run, name="sqkit-monitoring", daemon=True)
        atexit.register(self.close)
        self._thread.start()

    def close(self) -> None:
        """Take what waits, and end; the lock is free for another one."""
        atexit.unregister(self.close)
        self._stop = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        with self._working:
            if not self._failed:
                self._guarded_poll()
            self._let_go()
        self._channels.close()
        if self._exporter is not None:
            self._exporter.close()

    def poll(self) -> None:
        """Do one round: take what came, close bars, act, send alerts.

        Raises
        ------
        SqkitError
            The state cannot be read or written.
        """
        with self._working, store_errors(self._state):
            self._failed = True  # until the round is over
            if not self._holds():
                for _, _, _, line in self._drained():  # the holder reads these lines from their file
                    self._count(line)
                self._latest = stored_status(self._state, self.slot.name)
                self._failed = False
                return
            self._take_new()
            self._send()
            assert self.monitor is not None
            self._latest = self._status_now(self.monitor)
            self._failed = False

    def _run(self) -> None:
        while not self._stop:
            self._wake.wait(POLL_SECONDS)
            self._wake.clear()
            self._guarded_poll()

    def _guarded_poll(self) -> None:
        try:
            self.poll()
            if self._thread is not None and not self._stop:
                self.implies()
        except Exception as problem:  # noqa: BLE001 - it stops no trading, and tries again
            self.failures += 1
            self._failed = True
            said = f"{type(problem).__name__}: {' '.join(str(problem).split())}"
            if said not in self._said:
                self._said.add(said)
                logger.exception("monitoring failed (%s); it tries again", said, extra=COMPONENT)

    def _holds(self) -> bool:
        """Whether this service is the slot's holder; it becomes that where nobody is."""
        if self.monitor is not None and self._lock_lies():
            return True
        self._let_go()
        if self._state != IN_MEMORY:
            found = lock_file(self._folder / f"{self.slot.name}.lock")
            if found is None:
                return False
            self._lock = found
        try:
            self._store = MonitorStore(self._state)
            self.monitor = SlotMonitor(
                self.slot.name,
                self.strategy,
                self._clock,
                MonitoringRules.from_settings(self.settings),
                self._baseline_of,
                self._store,
                act=self._on_breach,
                rolls_back=self.settings.student_auto_rollback_enabled,
                behaviour_halts=self.settings.student_behaviour_halt_enabled,
                on_steps=self._on_steps,
            )
        except BaseException:
            self._let_go()
            raise
        self._tail = TelemetryTail(self._telemetry, self.slot.name, self.strategy, self.monitor.read)
        self._caught_up = False
        if self._on_steps is not None:
            self._on_steps(self._store.steps_of(self.slot.name))
        return True

    def _lock_lies(self) -> bool:
        """Whether the lock that is held is the one that others would ask for; somebody may have deleted it."""
        if self._lock < 0:
            return True
        try:
            return os.path.samestat(os.fstat(self._lock), (self._folder / f"{self.slot.name}.lock").stat())
        except OSError:
            return False

    def _let_go(self) -> None:
        if self._store is not None:
            self._store.close()
        self._store = self.monitor = self._tail = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _take_new(self) -> None:
        """Lines that were handed over first, then what the files have."""
        assert self.monitor is not None
        assert self._tail is not None
        tail, monitor = self._tail, self.monitor
        try:
            if self._caught_up:  # before that the files have more than the queue
                monitor.take(self._handed_over(), tail.read)
            days = tail.days()
            for day in days[-_LATEST_DAYS:] if self._caught_up else days:
                for lines in tail.new(day):
                    monitor.take((line.record for line in lines), tail.read)
            if not self._caught_up:
                self._caught_up = True
                monitor.take(self._handed_over(), tail.read)
            monitor.go_on(tail.read)
        except BaseException:
            tail.read = dict(monitor.read)
            self._caught_up = False
            raise

    def _handed_over(self) -> Iterable[Mapping[str, Any]]:
        assert self._tail is not None
        for path, begins, ends, data in self._drained():
            self._count(data)
            if path:
                lines: list[Line] = self._tail.take(path, begins, ends, data)
                yield from (line.record for line in lines)
            else:
                record = orjson.loads(data)
                if record.get("slot") == self.slot.name:
                    yield record

    def _drained(self) -> Iterator[tuple[str, int, int, bytes]]:
        while self._queue:
            yield self._queue.popleft()

    def _count(self, line: bytes) -> None:
        """Count a line of this process's engine in the metrics."""
        if self._exporter is not None:
            self._exporter.observe(orjson.loads(line))

    def _send(self) -> None:
        """Alerts that were kept go out: of each the last word, and of one that a person has seen its end alone."""
        assert self._store is not None
        assert self.monitor is not None
        slot = self.slot.name
        seen, queued = self._store.acknowledged(slot), self._store.queued(slot)
        words: dict[str, list[Alert]] = {}
        for _, stored in queued:
            alert = Alert.from_dict(stored)
            words.setdefault(alert.fingerprint, []).append(alert)
        for fingerprint, said in words.items():
            passed = bool(said[-1].resolved) and not said[0].resolved  # began and ended while nobody looked
            if not passed and (said[-1].resolved or fingerprint not in seen):
                self._channels.send(said[-1])
        for number, _ in queued:
            self._store.sent(slot, number)
        feed = self._feed.look(self._clock, self.monitor.book.newest_decision_ns, self.monitor.machine.watch)
        if feed is not None and self._thread is not None:  # one look now and then would say it each time
            self._channels.send(feed)
        self._channels.repeat([*self.monitor.alerts.firing(), *self._feed.firing()])


def stored_status(state: Path | str, slot: str) -> dict[str, Any]:
    """The status that a slot's holder kept last; empty where nothing is known."""
    if not isinstance(state, Path) or not state.is_file():
        return {}
    store = MonitorStore(state, read_only=True)
    try:
        stored = store.load(slot)
        return {**stored.state["status"], "implies": store.implied(slot)} if stored else {}
    finally:
        store.close()
