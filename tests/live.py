"""An engine on a project that was made by the real chain: planted daily bars, a promoted release."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqkit.bars import BarArrays
from sqkit.production.engine import Config, Engine, Signal
from sqkit.production.engine_time import SetClock
from sqkit.production.monitor_wiring import monitoring_service
from sqkit.production.replay import delivered
from sqkit.research.marketdata import available_symbols, load_symbol
from sqkit.settings import Settings
from tests.engines import read_lines

WARM_UP = 130


class LiveProject:
    """The bars of a project, and an engine that is fed with them."""

    def __init__(
        self, root: Path, settings: Settings, *, bars: str = "data/bars/1d", monitored: bool = False
    ) -> None:
        self.root = root
        place = root / bars
        self.bars: dict[str, BarArrays] = {
            name: load_symbol(place, name, interval="1d", market="us")[0]
            for name in available_symbols(str(place))
        }
        self.clock = SetClock()
        config = Config("swing", tuple(self.bars), calendar="us")
        self.monitor = (
            monitoring_service(
                settings, strategy="swing", market="us", interval="1d", root=root, now_ns=self.clock.now_ns
            )
            if monitored
            else None
        )
        self.engine = Engine(config, settings, root=root, clock=self.clock, monitor=self.monitor, watch=False)

    def warm_up(self, bars: int = WARM_UP) -> None:
        """Let the first bars pass."""
        self.engine.warm_up({name: series.slice(0, bars) for name, series in self.bars.items()})

    def feed(self, start: int, stop: int) -> list[Signal | None]:
        """Deliver bars by position."""
        said = []
        for bar, available in delivered({name: one.slice(start, stop) for name, one in self.bars.items()}):
            self.clock.set_ns = available
            said.append(self.engine.swing_tick(bar))
            if len(said) % len(self.bars) == 0:
                self.look()
        return said

    def look(self) -> None:
        """What the threads of a monitored engine do: take in what was decided, look at the slot."""
        if self.monitor is not None:
            self.monitor.poll()
            self.engine.look()

    def predictions(self) -> list[dict[str, Any]]:
        """Every decision on disk."""
        records = read_lines(sorted((self.root / "data/telemetry").glob("2*/*.jsonl")))
        return [one for one in records if one["event"] == "prediction"]
