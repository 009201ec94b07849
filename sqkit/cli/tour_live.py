"""The live half of ``make tour``: a real engine with its monitor, fed with stored bars under a clock of its own.

What their threads do beside a feed is done here between two sessions, so that the tour ends the same every time.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from sqkit.bars import BarArrays
from sqkit.cli.tour_market import INTERVAL, MARKET, Story
from sqkit.production.engine import Config, Engine
from sqkit.production.engine_time import SetClock
from sqkit.production.monitor_machine import HALTED, OK, VERIFYING
from sqkit.production.monitor_store import MONITORING_FOLDER, STATE_FILE, MonitorStore
from sqkit.production.monitor_wiring import monitoring_service
from sqkit.production.replay import delivered
from sqkit.research.sources import load_bars
from sqkit.settings import Settings

STRATEGY: Final = "swing"
WARM_UP_BARS: Final = 200

_NS_PER_DAY: Final = 86_400_000_000_000


class Live:
    """Engine and monitor from the morning after the second promotion on.

    Attributes
    ----------
    engine, service
        The real ones.
    """

    def __init__(self, story: Story, root: Path = Path()) -> None:
        settings = Settings()
        loaded, _ = load_bars(story.bars, list(story.symbols), interval=INTERVAL, market=MARKET)
        self._bars = {name: _from(series, story.live_from) for name, series in loaded.items()}
        self._clock = SetClock(int(story.second.evening.timestamp()) * 10**9)
        self.service = monitoring_service(
            settings,
            strategy=STRATEGY,
            market=MARKET,
            interval=INTERVAL,
            root=root,
            now_ns=self._clock.now_ns,
        )
        self.engine = Engine(
            Config(STRATEGY, story.symbols, interval=INTERVAL, calendar=MARKET, name="tour"),
            settings,
            root=root,
            clock=self._clock,
            monitor=self.service,
            watch=False,
        )
        self.engine.warm_up({name: _before(series, story.live_from) for name, series in loaded.items()})
        self._look()
        self._store = MonitorStore(root / settings.data_dir / MONITORING_FOLDER / STATE_FILE, read_only=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._store.close()
        self.engine.close()
        self.service.close()

    def sessions(self) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        """Session after session: its day, and the changes of state it brought; ends where the story does."""
        known, states = 0, [""]
        for available, bars in groupby(delivered(self._bars), key=lambda one: one[1]):
            self._clock.set_ns = available
            for bar, _ in bars:
                self.engine.process_tick(bar)
            self._look()
            steps = self._store.steps(self.service.slot.name)[known:]
            known += len(steps)
            states += [step["after"] for step in steps]
            yield available // _NS_PER_DAY, steps  # a New York session closes on the same day in UTC
            if states[-1] == HALTED or (states[-1] == OK and VERIFYING in states):
                return

    @property
    def now_seconds(self) -> int:
        """The time of the last session's close, UTC seconds."""
        return self._clock.set_ns // 10**9

    def _look(self) -> None:
        """What two threads do while an engine runs: the monitor works, the engine looks at its slot."""
        self.service.poll()
        self.engine.look()


def _from(series: BarArrays, day: int) -> BarArrays:
    start, stop = series.window(day, int(series.session_days[-1]))
    return series.slice(start, stop)


def _before(series: BarArrays, day: int) -> BarArrays:
    start, _ = series.window(day, int(series.session_days[-1]))
    return series.slice(max(start - WARM_UP_BARS, 0), start)
