"""A monitored slot from end to end: real releases, real promoter, a real engine on minute bars, one injected clock.

Release 1 follows the last move, release 2 bets against it. While moves reverse release 2 is right; when they
persist it fails and release 1 would not; when they are random both fail.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from sqkit.bars import NANOSECONDS_PER_MINUTE, Bar, BarArrays, make_bar_arrays
from sqkit.files import canonical_json, parse_json
from sqkit.monitoring_baseline import SECTION, Rate
from sqkit.production.engine import Config, Engine
from sqkit.production.engine_time import SetClock
from sqkit.production.monitor_machine import Step
from sqkit.production.monitor_wiring import monitoring_service
from sqkit.production.monitoring import MonitoringService
from sqkit.production.replay import delivered
from sqkit.sessions import load_sessions
from sqkit.settings import Settings
from tests.engines import Trading, student_bytes
from tests.monitored import BASELINE
from tests.synthetic_bars import FIRST_DAY

SYMBOLS: Final = ("AAA", "BBB")
REVERSING, PERSISTING, RANDOM = -0.6, 0.6, 0.0
VALIDATED: Final = Rate(0.5, 20_000, 20_000.0)
POLL_BARS: Final = 130


@dataclass
class Watched(Trading):
    """The project: release 1 was live, release 2 is."""

    strategy: str = "intraday"
    symbols: tuple[str, ...] = SYMBOLS

    def student(self, number: int, **about: Any) -> bytes:
        """An odd release follows the last move, an even one bets against it."""
        return student_bytes(self.strategy, bias=number / 1000, slope=3.0 if number % 2 else -3.0, **about)

    def checklist(self, model: bytes, **decided: Any) -> bytes:
        """A decision that says how good the model was."""
        said = parse_json(super().checklist(model, **decided), Path("checklist"))
        baseline = replace(BASELINE, hit_ratio=VALIDATED, precision_long=VALIDATED, symbols=2)
        said[SECTION] = {"baseline": baseline.to_dict()}
        return canonical_json(said).encode()

    def monitored(self, **changes: Any) -> Settings:
        """Scoring, monitoring and automatic rollback enabled."""
        given = {"student_monitoring_enabled": True, "student_auto_rollback_enabled": True}
        return self.enabled(**(given | changes))


def project(root: Path, *, releases: int = 2) -> Watched:
    """Releases were promoted one after the other, each on a day of its own."""
    made = Watched(root)
    for number in range(1, releases + 1):
        made.promote(number, f"2002-12-{number:02d}T10:00:00+00:00")
    return made


def bars_of(symbol: str, persistence: Iterable[float], seed: int) -> BarArrays:
    """Minute bars whose moves follow on the last one so strongly, session after session."""
    table, each = load_sessions("us"), list(persistence)
    days = table.session_days(FIRST_DAY, FIRST_DAY + 3 * len(each) + 10)[: len(each)]
    opens, closes = table.open_close_ns(days)
    times = [np.arange(*span, NANOSECONDS_PER_MINUTE) for span in zip(opens, closes, strict=True)]
    strength = np.repeat(each, [len(part) for part in times])
    noise = np.random.default_rng(seed).standard_normal(len(strength))
    moves = np.zeros(len(strength))
    for at in range(1, len(moves)):
        moves[at] = strength[at] * moves[at - 1] + np.sqrt(1.0 - strength[at] ** 2) * noise[at]
    close = 100.0 * np.exp(np.cumsum(1e-3 * moves))
    opening = np.concatenate([[100.0], close[:-1]])
    prices = (opening, np.maximum(opening, close) * 1.0002, np.minimum(opening, close) * 0.9998, close)
    volume = np.full(len(close), 1e5)
    stacked = np.column_stack([*prices, volume])
    return make_bar_arrays(symbol, "1m", "us", np.concatenate(times).astype(np.int64), stacked, table)[0]


def feed_of(persistence: Iterable[float]) -> list[tuple[Bar, int]]:
    """Bars of both symbols in order of time, each with the instant at which it is finished."""
    each = list(persistence)
    return list(delivered({name: bars_of(name, each, seed) for seed, name in enumerate(SYMBOLS, 1)}))


class Desk:
    """An engine with its monitor, fed by hand: what their threads do is done between bars."""

    def __init__(self, made: Watched, *, at_step: str = "", **changes: Any) -> None:
        self.project = made
        self.settings = made.monitored(**changes)
        self.clock = SetClock()
        self.at_step = at_step
        self.service = self._service()
        self.engine = Engine(
            Config("intraday", SYMBOLS, calendar="us"),
            self.settings,
            root=made.root,
            clock=self.clock,
            monitor=self.service,
            watch=False,
        )

    def _service(self) -> MonitoringService:
        service = monitoring_service(
            self.settings,
            strategy="intraday",
            market="us",
            interval="1m",
            root=self.project.root,
            now_ns=self.clock.now_ns,
        )
        if self.at_step:
            service._on_steps = self._dying(service._on_steps)
        return service

    def _dying(self, keep: Any) -> Any:
        """Die by SIGKILL the first time a state is entered, after it was kept and before the audit log has it."""

        def on_steps(steps: Iterable[Step]) -> None:
            listed = list(steps)
            if any(step.after == self.at_step for step in listed) and self.engine_started:
                os.kill(os.getpid(), signal.SIGKILL)
            keep(listed)

        return on_steps

    engine_started = False

    def feed(self, bars: Iterable[tuple[Bar, int]]) -> None:
        """Deliver what the engine has not seen yet."""
        self.engine_started = True
        seen = {name: lane.intake.last_ns for name, lane in self.engine._lanes.items()}
        for number, (bar, available) in enumerate(bars):
            if int(bar.timestamp.timestamp()) * 10**9 <= seen[bar.symbol]:
                continue
            self.clock.set_ns = available
            self.engine.process_tick(bar)
            if number % POLL_BARS == 0:
                self.look()
        self.look()

    def look(self) -> None:
        """What the threads do: the monitor works, the engine looks at its slot."""
        self.service.poll()
        self.engine.look()

    def close(self) -> None:
        """Both end."""
        self.engine.close()
        self.service.close()

    def states(self) -> Iterator[str]:
        """The states that the slot went through."""
        store = self.service._store
        assert store is not None
        return (step["after"] for step in store.steps("default"))


LOST: Final = [REVERSING] * 2 + [PERSISTING] * 4


if __name__ == "__main__":  # a process that is to be killed: folder, state at which it dies
    desk = Desk(Watched(Path(sys.argv[1])), at_step=sys.argv[2])
    desk.feed(feed_of(LOST))
    desk.close()
    print("done", flush=True)
