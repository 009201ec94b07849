"""Engines over synthetic bars, and a slot whose releases an engine may serve: for tests of the live side.

Models are real ONNX files made by hand whose answer follows from the first feature; releases are put into the
slot below the promoter's checks (`tests.releases`), with a decision that was made under today's settings.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from sqkit.artifacts import CHECKLIST_FILE, STUDENT_FILE
from sqkit.bars import Bar, BarArrays
from sqkit.chain import Entry
from sqkit.features import student_set
from sqkit.files import canonical_json, sha256_bytes
from sqkit.production.admission import Admission
from sqkit.production.engine import Config, Engine, Signal
from sqkit.production.engine_time import SetClock
from sqkit.production.promotion import promote
from sqkit.production.replay import delivered
from sqkit.production.scorer import StudentScorer
from sqkit.records import iso_date
from sqkit.research.onnx_export import dense_graph, model_bytes
from sqkit.settings import Settings
from sqkit.student import StudentModel
from sqkit.trading_rules import TradingRules
from tests.releases import Slotted, promotion_of
from tests.small_student import small_metadata
from tests.synthetic_bars import synthetic_bars

INTERVALS: Final = {"intraday": "1m", "swing": "1d"}
SYMBOL: Final = "AAA"


def student_bytes(strategy: str = "swing", bias: float = 0.0, slope: float = 0.7, **changes: Any) -> bytes:
    """A student that says what the last move was, on every row that is finite."""
    features = student_set(strategy)
    count = len(features.columns)
    weights = np.zeros((count, 1))
    weights[0] = slope
    graph = dense_graph([(weights, np.array([bias]))], mean=np.zeros(count), scale=np.ones(count))
    about = {
        "strategy": strategy,
        "interval": INTERVALS[strategy],
        "feature_set": features.name,
        "feature_set_digest": features.digest,
        "feature_names": list(features.columns),
        "feature_ranges": [[-1e9, 1e9]] * count,
        "model_version": "20030101_000000",
    }
    return model_bytes(graph, small_metadata(**(about | changes)))


def student(strategy: str = "swing", **changes: Any) -> StudentModel:
    """The same, loaded."""
    return StudentModel(student_bytes(strategy, **changes), Path("student_model.onnx"))


def scorer_of(
    model: StudentModel,
    settings: Settings,
    *,
    now_ns: int = 0,
    root: Path = Path("/nowhere"),
    symbols: tuple[str, ...] | None = None,
) -> StudentScorer:
    """A scorer of a model that needs no release."""
    scorer = StudentScorer(
        settings,
        model.metadata["strategy"],
        now_ns=lambda: now_ns,
        admission=Admission(model, "", "", "default", root / "data/models/production/student_model.onnx"),
    )
    scorer.symbols = None if symbols is None else frozenset(symbols)
    return scorer


def settings_of(**changes: Any) -> Settings:
    """Settings by default in the US market, no environment file read."""
    return Settings(_env_file=None, **({"market": "us"} | changes))


class Bench:
    """An engine on a set clock, and the bars it is fed.

    Attributes
    ----------
    signals
        What it said, one for each bar that was fed.
    """

    def __init__(
        self,
        root: Path,
        strategy: str = "swing",
        *,
        settings: Settings | None = None,
        model: StudentModel | None = None,
        config: dict[str, Any] | None = None,
        **engine: Any,
    ) -> None:
        self.root = root
        self.clock = engine.pop("clock", None) or SetClock()
        self.settings = settings or settings_of()
        self.signals: list[Signal | None] = []
        if model is not None:
            engine["scorer"] = scorer_of(model, self.settings, root=root)
        given = {"symbols": (SYMBOL,), "interval": INTERVALS[strategy]} | (config or {})
        self.engine = Engine(
            Config(strategy, **given),
            self.settings,
            root=root,
            clock=self.clock,
            **({"watch": False} | engine),
        )

    def feed(self, bars: BarArrays | Iterable[tuple[Bar, int]]) -> list[Signal | None]:
        """Deliver bars, each when it is finished; what the engine said of them."""
        said = []
        for bar, available in delivered({bars.symbol: bars}) if isinstance(bars, BarArrays) else bars:
            self.clock.set_ns = available
            said.append(self.engine.process_tick(bar))
        self.signals += said
        return said

    def records(self) -> list[dict[str, Any]]:
        """Every telemetry record on disk, in the order of the files."""
        return read_lines(sorted((self.root / "data/telemetry").glob("2*/*.jsonl")))

    def events(self) -> list[dict[str, Any]]:
        """Every event of the engines that wrote here."""
        return read_lines(sorted((self.root / "data/telemetry/engines").glob("*.jsonl")))

    def predictions(self) -> list[dict[str, Any]]:
        """The decisions among the records."""
        return [record for record in self.records() if record["event"] == "prediction"]


def read_lines(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """Objects of line files, parsed strictly."""
    from sqkit.files import parse_json

    return [parse_json(line, path) for path in paths for line in path.read_bytes().splitlines()]


def pairs(bars: BarArrays, start: int = 0, stop: int | None = None) -> list[tuple[Bar, int]]:
    """Bars of a part of a series with the instant at which each is finished."""
    return list(delivered({bars.symbol: bars.slice(start, len(bars) if stop is None else stop)}))


def series(strategy: str = "swing", *, seed: int = 1, sessions: int = 0, symbol: str = SYMBOL) -> BarArrays:
    """Synthetic bars: a year and a half of days, or a few days of minutes."""
    sessions = sessions or {"swing": 380, "intraday": 3}[strategy]
    return synthetic_bars(symbol, seed=seed, sessions=sessions, interval=INTERVALS[strategy])


class Trading(Slotted):
    """A slot whose releases were decided under today's settings, so that an engine serves them."""

    symbols: tuple[str, ...] = (SYMBOL,)
    environment: dict[str, Any] | None = None

    def promote(self, number: int, day: str = "", **decided: Any) -> Entry:
        """Put release number so-and-so into the slot; `decided` are settings of its decision."""
        self.on(day)
        production = self.production
        with production.changing(production.slot(self.slot_name)):
            return promote(self.place, self.promotion(number, **decided))

    def promotion(self, number: int, **decided: Any) -> Any:
        """What is promoted: a model that answers by its number, and its decision."""
        plain = promotion_of(number, self.strategy, self.market)
        about = {"model_version": plain.content["model_version"], "market": self.market}
        model = self.student(number, **about)
        files = {**plain.files, STUDENT_FILE: model, CHECKLIST_FILE: self.checklist(model, **decided)}
        digests = plain.content["digests"] | {
            "model": sha256_bytes(model),
            "checklist": sha256_bytes(files[CHECKLIST_FILE]),
        }
        content = plain.content | {
            "digests": digests,
            "environment": self.environment,
            "symbols": list(self.symbols),
        }
        return replace(plain, files=files, content=content)

    def student(self, number: int, **about: Any) -> bytes:
        """The model of release number so-and-so."""
        return student_bytes(self.strategy, bias=number / 100, **about)

    def checklist(self, model: bytes, **decided: Any) -> bytes:
        """The decision, under the settings of the project with some in place."""
        about = StudentModel(model, Path("student_model.onnx")).metadata
        rules = TradingRules.from_settings(
            settings_of(**({"market": self.market} | decided)),
            strategy=self.strategy,
            market=self.market,
            horizon_bars=about["horizon_bars"],
            dead_zone=about["dead_zone"],
            last_day=19_700,
        )
        said = {
            "recommendation": "PROMOTE",
            "runtime": rules.describe(),
            "timestamp": "2024-01-01T00:00:00Z",
            "validation_period": {"start": iso_date(19_600), "end": iso_date(19_700), "symbols": [SYMBOL]},
        }
        return canonical_json(said).encode()

    def enabled(self, **changes: Any) -> Settings:
        """The project's settings with scoring enabled."""
        given = {"market": self.market, "student_model_paths": self.paths, "student_model_enabled": True}
        return Settings(_env_file=None, **(given | changes))

    def scorer(self, now_ns: int = 1_704_200_000 * 10**9, **changes: Any) -> StudentScorer:
        """What the slot serves, on 2 January 2024 unless told otherwise."""
        return StudentScorer(self.enabled(**changes), self.strategy, root=self.root, now_ns=lambda: now_ns)
