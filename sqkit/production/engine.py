"""`Engine`: the released student in a trading loop, bar by bar; trading never stops for the model.

A bar goes through intake, features, student, strategy step and paper book, all of them the compiled code of
the backtest. What the student may not say, or fails to say, leaves the baseline as it is, with a reason. No
exception leaves a tick. See ``docs/live-engine.md``.

One thread calls an engine. Beside it a thread of the engine's own watches the slot and writes checkpoints,
never inside a tick.
"""

from __future__ import annotations

import datetime as dt
import logging
import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sqkit.bars import INTERVAL_MINUTES, NANOSECONDS_PER_MINUTE, Bar, BarArrays
from sqkit.errors import UsageError
from sqkit.fills import FillStream
from sqkit.production.desk import Desk
from sqkit.production.engine_config import Config, Sink
from sqkit.production.engine_log import EngineLog, served, settings_digest
from sqkit.production.engine_state import EngineState
from sqkit.production.engine_time import Clock, EngineClock
from sqkit.production.intake import BarIntake, start_ns
from sqkit.production.journal import JournalEntry
from sqkit.production.lane import Lane
from sqkit.production.positions import Fill, Mismatch
from sqkit.production.reload import warm
from sqkit.production.scorer import StudentScorer
from sqkit.production.serving import Serving
from sqkit.production.signals import Order, Signal
from sqkit.production.telemetry import TELEMETRY_FOLDER, TelemetryWriter, logger
from sqkit.production.tick_record import TickRecords
from sqkit.production.voice import Voice
from sqkit.records import (
    BAR_STATUS_CODES,
    BAR_STATUSES,
    DIRECTIONS,
    ENTRY_LOCKS,
    FIRST_REFUSED,
    FLAT,
    REASONS,
    SOURCES,
    TRADE_CLOSED,
    iso_date,
)
from sqkit.sessions import SessionCursor, load_sessions
from sqkit.settings import Settings
from sqkit.strategystep import EXITS_ONLY, TRADING
from sqkit.student import StudentModel

if TYPE_CHECKING:
    from sqkit.production.monitoring import MonitoringService

__all__ = ["Config", "Engine", "Order", "Signal"]

ENGINE_FOLDER: Final = "engine"

_SIDES: Final = {
    float(code): word for code, word in DIRECTIONS.items()
}  # the strategy step says them as floats
_SOURCES: Final = {float(code): word for code, word in SOURCES.items()}


class Engine:
    """A trading engine with the slot's student in the loop.

    Parameters
    ----------
    config, settings
        What it trades, and `sqkit.settings.Settings`.
    root
        The project's root; relative paths of the settings are below it.
    clock
        Gives the time; a replay sets it to the end of each bar.
    scorer, challengers
        In place of what the slot serves and of ``student_challenger_path``.
    sink
        Where telemetry goes; by default ``data/telemetry``.
    on_trade
        Told of every trade that was opened or closed: event, symbol, fields of ``records.TRADE_FIELDS``.
    keep_state
        Whether bars are journalled and state is kept, so that a restart goes on.
    monitor
        Who watches the live model and is handed every decision; by default, with ``student_monitoring_enabled``
        and `watch`, one of the engine's own.
    watch
        Whether a thread of the engine's watches the slot for promotions and rollbacks, and writes checkpoints at
        each new session; without it only `warm_up` and `close` write one.

    Examples
    --------
    ::

        with Engine(Config("intraday", ("AAPL", "MSFT")), Settings()) as engine:
            engine.warm_up(history)
            for bar in feed:
                signal = engine.process_tick(bar)
    """

    def __init__(
        self,
        config: Config,
        settings: Settings,
        *,
        root: Path = Path(),
        clock: Clock | None = None,
        scorer: StudentScorer | None = None,
        challengers: Iterable[StudentScorer] | None = None,
        sink: Sink | None = None,
        on_trade: Callable[[str, str, dict[str, Any]], None] | None = None,
        keep_state: bool = True,
        monitor: MonitoringService | None = None,
        watch: bool = True,
    ) -> None:
        root = root.absolute()  # a host may change its folder
        self.config = config = config.filled(settings)
        self.settings = settings
        self._clock = clock or EngineClock()
        now = self._clock.now_ns()
        self._table = load_sessions(config.calendar, settings.sessions_file)
        self._cursor = SessionCursor(self._table, daily=config.interval == "1d")
        self._rules = config.rules(settings)
        self._shift_ns = (
            INTERVAL_MINUTES[config.interval] * NANOSECONDS_PER_MINUTE if config.stamp == "end" else 0
        )
        self._stale_ns = int(settings.feed_stale_seconds * 1e9)
        self._serving = Serving(config, settings, root, self._clock.now_ns, scorer, challengers)
        self._halts = self._serving.halts
        self._watch = self._serving.watch
        slot = self._serving.scorer.admission.slot
        self._sink = sink or TelemetryWriter(root / settings.data_dir / TELEMETRY_FOLDER, config.name, now)
        about = {"engine": config.name, "slot": slot, "strategy": config.strategy}
        self.log = EngineLog(about, self._sink)
        self._records = TickRecords(config.strategy, slot, self.log.instants)
        self._voice = Voice(self._serving, self._clock, self.log)
        self._on_trade = on_trade
        self._desk = Desk(
            dry_run=config.dry_run,
            without_student=settings.student_fallback == "baseline",
            record=self._trade,
            warn=self.log.mismatch,
        )
        folder = root / settings.data_dir / ENGINE_FOLDER / config.name
        self._state = EngineState.open(folder, config) if keep_state else None
        self._lanes = {symbol: self._lane(symbol) for symbol in config.symbols}
        self._day = -1
        self._halt_level: str | None = None
        self._debug = False
        self._last_stamp: Any = None
        self._last_start = 0
        self._closed = False
        self._own_monitor: MonitoringService | None = None
        self._unheard: Callable[[Mapping[str, Any]], None] | None = None
        self.monitor = monitor
        if monitor is not None or (watch and settings.student_monitoring_enabled):
            self._be_monitored(root)
        self._start(now)
        if watch:
            self._watch.start()

    # --- what a host calls

    def process_tick(self, bar: Bar) -> Signal | None:
        """What is wanted after a finished bar; None where the bar was refused or the rule is not warm yet.

        Never raises: what goes wrong inside is logged, counted, and this bar has no signal.
        """
        return self._guarded(bar, self.config.strategy)

    def intraday_tick(self, bar: Bar) -> Signal | None:
        """`process_tick` of an intraday engine; another strategy's engine refuses the bar."""
        return self._guarded(bar, "intraday")

    def swing_tick(self, bar: Bar) -> Signal | None:
        """`process_tick` of a swing engine; another strategy's engine refuses the bar."""
        return self._guarded(bar, "swing")

    def warm_up(self, history: Mapping[str, BarArrays]) -> dict[str, int]:
        """Let bars pass that end before the first live one, so that it is ready; how many were new, by symbol.

        Nothing is traded on them. After a restart the bars that are in already are left out.
        """
        taken = {}
        for symbol, bars in history.items():
            lane = self._lanes.get(symbol)
            if lane is not None and len(bars):
                taken[symbol] = lane.warm_up(bars)
                if taken[symbol] and self.monitor is not None:
                    record = self._records.history(symbol, bars, self._clock.now_ns())
                    self._keep(int(bars.session_days[-1]), record)
        self._day = max([self._day, *(lane.intake.last_day for lane in self._lanes.values())])
        self.checkpoint()
        self._watch.do_task()  # these bars are in no journal, and a history may take its time
        return taken

    def sync_positions(self, real: Mapping[str, int], confirmed: Collection[str] = ()) -> list[Mismatch]:
        """Hold a host's positions, signed shares, against the engine's; entries wait for the first call.

        A symbol that differs is locked for entries, its exits work on what is real. It is free again when
        both are flat at a later call, or when it stands in `confirmed`: somebody has looked.
        """
        found = self._desk.sync(self._lanes, real, confirmed)
        locked = sorted(self._desk.positions.locked)
        self.log.event("sync", self._clock.now_ns(), positions=dict(real), locked=locked)
        return found

    def on_fill(
        self, symbol: str, quantity: int, price: float, *, fees: float = 0.0, at: dt.datetime | None = None
    ) -> None:
        """A host's execution: signed shares at a price, fees in the market's currency.

        Raises
        ------
        UsageError
            The engine does not trade this symbol, or a time without a zone.
        """
        lane = self._lanes.get(symbol)
        now = self._clock.now_ns() if at is None else start_ns(at)
        if lane is None or now is None:
            raise UsageError(
                f"a fill of {symbol} at {at}: no symbol of this engine, or a time without a zone"
            )
        day = int(self._table.local_days(np.array([now]))[0])
        self._desk.fill(lane, Fill(symbol, quantity, price, now, day, fees))

    def on_time(self) -> list[Signal]:
        """What time alone brings: symbols without bars, positions past their square-off; call it now and then.

        With a dry run it returns no signal: paper orders fill at the next bar, as in the backtest.
        """
        now = self._clock.now_ns()
        days, open_ns, close_ns, inside = self._table.locate(np.array([now], dtype=np.int64))
        day, opens, closes = int(days[0]), int(open_ns[0]), int(close_ns[0])
        if not inside[0]:
            self._take_ready(new_session=True)
        elif self.config.interval != "1d":
            for lane in self._lanes.values():
                self._silence(lane, now, max(opens, lane.intake.end_ns) + lane.intake.bar_ns)
        due = closes - self.settings.square_off_minutes * NANOSECONDS_PER_MINUTE
        if self.config.strategy != "intraday" or self.config.dry_run or not closes or now < due:
            return []
        signals = (self._overdue(lane, day, now) for lane in self._lanes.values())
        return [signal for signal in signals if signal is not None]

    def checkpoint(self) -> None:
        """Have the whole state as it is now put onto the disk, beside the ticks: a restart has less to go through.

        A disk that fails is said once; the state before stays.
        """
        if self._state is not None:
            write = self._state.captured(self._lanes, self._desk.positions)
            self._watch.later(lambda: self._written(write))

    def look(self) -> None:
        """Do now what the engine's thread does beside the ticks: for a host that gave it none.

        A checkpoint that waits is written, and the slot is looked at for a promotion, a rollback or a halt.
        """
        self._watch.do_task()
        self._watch.check()

    def health(self) -> dict[str, Any]:
        """Counters for a status page: what was refused, failed, lost."""
        scorer = self._serving.scorer
        return {
            "bars": {symbol: lane.bars_used for symbol, lane in self._lanes.items()},
            "counts": dict(sorted(self.log.counts.items())),
            "halted": self._halt(),
            "locked": sorted(self._desk.positions.locked),
            "lost_bars": self._state.journal.lost if self._state else None,
            "lost_records": self._sink.lost,
            "prediction_failures": scorer.failures,
            "refusal": scorer.refusal or None,
            "student_model_version": self.student_model_version,
            "watch_failures": self._watch.failures,
        }

    @property
    def scorer(self) -> StudentScorer:
        """Who is served."""
        return self._serving.scorer

    @property
    def student_model(self) -> StudentModel | None:
        """The model that is served; None while the baseline trades alone."""
        return self.scorer.admission.model if self.scorer.ready else None

    @property
    def student_model_version(self) -> str:
        """Its version; empty while the baseline trades alone."""
        return self.scorer.version if self.scorer.ready else ""

    def quantity(self, symbol: str) -> int:
        """Signed shares held: on paper, or as the host says."""
        return self._lanes[symbol].quantity

    def paper_book(self, symbol: str) -> FillStream:
        """The book that sizes orders, and with a dry run holds the position."""
        return self._lanes[symbol].fills

    def close(self) -> None:
        """Stop: the state goes to the disk, the stop is recorded."""
        if self._closed:
            return
        self._closed = True
        self.checkpoint()
        self._watch.close()
        if self._own_monitor is not None:
            self._own_monitor.close()
        self.log.event("stop", self._clock.now_ns(), **served(self.scorer), counts=dict(self.log.counts))
        self._sink.close()
        if self._state is not None:
            self._state.journal.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- a tick

    def _guarded(self, bar: Bar, strategy: str) -> Signal | None:
        began = time.perf_counter_ns()
        try:
            if strategy == self.config.strategy:
                return self._tick(bar, began)
            self._refused(bar, BAR_STATUS_CODES["strategy_mismatch"], self._clock.now_ns())
        except Exception as problem:  # noqa: BLE001 - nothing leaves a tick
            kind = type(problem).__name__
            self.log.once(f"tick {kind}", "A tick failed (%s: %s)", kind, problem)
        return None

    def _tick(self, bar: Bar, began: int) -> Signal | None:
        now = self._clock.now_ns()
        try:
            lane, start = self._lanes.get(bar.symbol), self._start_of(bar)
        except (AttributeError, TypeError, ValueError, OverflowError):
            self._refused(bar, BAR_STATUS_CODES["not_a_bar"], now)
            return None
        if lane is None or start is None:
            status = "unknown_symbol" if lane is None else "naive_timestamp"
            self._refused(bar, BAR_STATUS_CODES[status], now)
            return None
        intake = lane.intake
        cursor = self._cursor
        if not cursor.first_ns <= start < cursor.after_ns or cursor.day != self._day:
            due = intake.session_of(start, now)
            if due > self._day:
                self._open_session(due)
        if self._watch.ready is not self._serving.taken:
            self._take_ready(new_session=False)
        status_code = intake.take(bar, start, now)
        if status_code >= FIRST_REFUSED:
            self._refused(bar, status_code, now)
            return None
        day = intake.last_day
        halt = self._halt()
        features = self._voice.observe(lane)
        probability, direction, reason = self._voice.ask(lane, features, halt)
        lock = self._desk.lock(lane, status_code, reason, halt)
        mode = EXITS_ONLY if lock else TRADING
        side, rule, strength, target, source, left = self._desk.advance(lane, start, direction, mode)
        scorer = self._serving.scorer
        version = scorer.version if scorer.ready else ""
        said = DIRECTIONS[direction]
        if self._debug and reason == 0:
            self.log.prediction(said, max(probability, 1.0 - probability), version)
        identity = self._records.prediction_id(lane.symbol, start)
        side_word, source_word, reason_word = _SIDES[side], _SOURCES[source], REASONS[reason]
        record = self._records.prediction(
            identity,
            lane.symbol,
            start,
            day,
            now,
            (version, scorer.short_digest if version else "", said, probability, reason_word),
            (side_word, rule, strength, target, source_word),
            features,
            bar,
            (BAR_STATUSES[status_code], intake.missing, ENTRY_LOCKS[lock]),
        )
        if self._serving.beside:
            record["challengers"] = self._voice.shadows(lane)
        record["latency_us"] = (time.perf_counter_ns() - began) / 1000.0
        self._keep(day, record)
        if self._state is not None:
            said_then = (probability, direction, reason, mode, lock)
            self._state.journal.append(
                self._day, lane.number, status_code, start, now, intake.prices, said_then
            )
        if not lane.warm:
            return None
        return Signal(
            lane.symbol,
            start,
            day,
            side_word,
            rule,
            strength,
            target,
            self._desk.orders(lane, int(left)),
            source_word,
            said,
            max(probability, 1.0 - probability),
            version,
            reason_word,
            identity,
        )

    def _start_of(self, bar: Bar) -> int | None:
        """Start of a bar in UTC nanoseconds; symbols of one minute often share the very stamp."""
        stamp = bar.timestamp
        if stamp is not self._last_stamp:
            start = start_ns(stamp)
            if start is None:
                return None
            self._last_stamp, self._last_start = stamp, start - self._shift_ns
        return self._last_start

    def _refused(self, bar: Bar, status: int, now: int) -> None:
        word, symbol = BAR_STATUSES[status], getattr(bar, "symbol", "?")
        known = (
            symbol if isinstance(symbol, str) and symbol in self._lanes else ""
        )  # a feed of a whole market names thousands
        self.log.once(f"{word} {known}".strip(), "%s: a bar was refused: %s", symbol, word)
        day = self._day if self._day >= 0 else int(self._table.local_days(np.array([now]))[0])
        self._keep(day, self._records.refused(bar, word, now))

    def _keep(self, day: int, record: dict[str, Any]) -> None:
        if not self._sink.write(day, record) or self._unheard is None:
            return
        try:
            self._unheard(record)
        except Exception as problem:  # noqa: BLE001 - whoever watches stops no tick
            kind = type(problem).__name__
            self.log.once(f"monitoring {kind}", "monitoring cannot take a record (%s: %s)", kind, problem)

    def _trade(self, event: str, symbol: str, trade: dict[str, Any]) -> None:
        if self._on_trade is not None:
            try:
                self._on_trade(event, symbol, trade)
            except Exception as problem:  # noqa: BLE001 - a host's listener stops no trade
                self.log.once(f"on_trade {problem}", "on_trade failed: %s", problem)
        day = trade["exit_session_date"] if event == TRADE_CLOSED else trade["entry_session_date"]
        self._sink.write(int(day), self._records.trade(event, symbol, trade, self.student_model_version))

    # --- between ticks

    def _open_session(self, day: int) -> None:
        """Before the first bar of a session: a promotion takes effect, the model's age is looked at."""
        first, self._day = self._day < 0, day
        self._debug = logger.isEnabledFor(logging.DEBUG)
        self._halts.look()
        self._take_ready(new_session=True)
        self._serving.warn_of_age(self.log, day, self._table.shift)
        self.log.event("session", self._clock.now_ns(), **served(self.scorer), session_date=iso_date(day))
        if not first:
            self.checkpoint()

    def _take_ready(self, *, new_session: bool) -> None:
        self._serving.take_ready(
            self.log, new_session=new_session, flat=lambda: all(lane.flat for lane in self._lanes.values())
        )

    def _halt(self) -> str | None:
        """The level at which a person has stopped the slot; asked before every tick."""
        level = self._halts.level()
        if level != self._halt_level:
            self._halt_level = level
            self.log.halt(level, self._clock.now_ns())
        return level

    def _silence(self, lane: Lane, now: int, since: int) -> None:
        """A symbol without a bar for too long: the first bar afterwards enters nothing."""
        silent = self._desk.silent
        if now - since <= self._stale_ns or lane.symbol in silent:
            return
        silent.add(lane.symbol)
        self.log.silence(lane.symbol, now, (now - since) / 1e9)

    def _overdue(self, lane: Lane, day: int, now: int) -> Signal | None:
        order = self._desk.overdue(lane, day, now, self._stale_ns)
        if order is None:
            return None
        self.log.event("square_off", now, symbol=lane.symbol, quantity=order.quantity, reason=order.reason)
        rule = (DIRECTIONS[FLAT], 0.0, 0.0, 0.0, (order,), SOURCES[0])
        student = (DIRECTIONS[FLAT], math.nan, self.student_model_version, "out_of_session", "")
        return Signal(lane.symbol, lane.intake.last_ns, day, *rule, *student)

    # --- start and state

    def _lane(self, symbol: str) -> Lane:
        rules = self._rules
        fills = FillStream(
            capital=rules.capital,
            slippage_bps=rules.slippage_bps,
            schedule=rules.cost_schedule,
            parameters=rules.parameters,
        )
        intake = BarIntake(self.config.interval, self._cursor, self._stale_ns)
        number = self._state.numbers[symbol] if self._state else 0
        return Lane(symbol, number, intake, rules.parameters, fills)

    def _be_monitored(self, root: Path) -> None:
        """Hand what is decided to whoever watches the live model; by default to a service of the engine's own."""
        from sqkit.production.monitor_wiring import hearing, own_monitor  # an engine without it is lighter

        if self.monitor is None:
            now_ns = self._clock.now_ns
            self._own_monitor = own_monitor(self.config, self.settings, root, self.scorer, now_ns)
            self.monitor = self._own_monitor
        self._unheard = hearing(self.monitor, self._sink)

    def _start(self, now: int) -> None:
        """Go on where the engine was when it ended, warm what is served, say that it has started."""
        scorer = self.scorer
        self.log.loading(scorer.admission, scorer.version)
        sets = self._serving.feature_sets()
        for lane in self._lanes.values():
            lane.fit(sets, scorer)
        passed = 0
        if self._state is not None:
            self._desk.recording = False
            passed = self._state.restore(self._lanes, self._desk.positions, self._pass_again)
            self._desk.recording = True
            self._written(self._state.captured(self._lanes, self._desk.positions))
        self._day = max(lane.intake.last_day for lane in self._lanes.values())
        self._debug = logger.isEnabledFor(logging.DEBUG)
        warm(scorer)
        self.log.event(
            "start",
            now,
            **served(scorer),
            challengers=[one.digest for one in self._serving.challengers],
            dry_run=self.config.dry_run,
            feature_names={features.name: list(features.columns) for features in sets},
            interval=self.config.interval,
            market=self.config.calendar,
            restored_bars=passed,
            settings_digest=settings_digest(self.settings),
            symbols=list(self.config.symbols),
        )

    def _pass_again(self, lane: Lane, entry: JournalEntry) -> None:
        """Do to a lane what the tick of a journalled bar did."""
        lane.observe(lambda _problem: None)  # it was logged then
        self._desk.advance(lane, entry.start_ns, entry.direction, entry.mode)

    def _written(self, write: Callable[[], None]) -> None:
        try:
            write()
        except Exception as problem:  # noqa: BLE001 - a disk that fails never stops trading
            self.log.once(f"state {type(problem).__name__}", "the engine's state cannot be kept: %s", problem)
